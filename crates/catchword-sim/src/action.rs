//! Everything a user and the world can do to one device, as data: one vocabulary for property tests,
//! the simulator and fuzzers.
//!
//! Books, annotations, tags and words are small numbers, so that actions meet on the same ones.
//!
//! # What is not here
//!
//! What an action does: that is [`Device`](crate::device::Device).

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::disk::Outage;

/// How many books there are.
pub const BOOKS: u8 = 3;
/// How many annotations of a book have a name of their own.
pub const ANNOTATIONS: u8 = 8;
/// How many tags, notes, colours and titles there are.
pub const WORDS: u8 = 4;
/// Most annotations that are made in one go.
pub const MANY_MAX: u16 = 96;

/// One of the two files of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskName {
    /// The file of waiting records.
    Wal,
    /// The file of rows and log.
    Library,
}

impl DiskName {
    /// Both files.
    pub const ALL: [Self; 2] = [Self::Wal, Self::Library];
}

/// Something that happens to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Makes an annotation.
    Annotate {
        /// In which book.
        book: u8,
        /// Which one.
        annotation: u8,
        /// Where, in parts per million.
        ppm: u32,
    },
    /// Makes that many annotations that nobody has made before, in one call.
    AnnotateMany {
        /// In which book.
        book: u8,
        /// How many.
        count: u16,
    },
    /// Gives an annotation a note.
    EditNote {
        /// In which book.
        book: u8,
        /// Which one.
        annotation: u8,
        /// Which note.
        word: u8,
    },
    /// Gives an annotation a colour.
    Recolor {
        /// In which book.
        book: u8,
        /// Which one.
        annotation: u8,
        /// Which colour.
        word: u8,
    },
    /// Deletes an annotation.
    Delete {
        /// In which book.
        book: u8,
        /// Which one.
        annotation: u8,
    },
    /// Takes the deletion of an annotation back.
    Undelete {
        /// In which book.
        book: u8,
        /// Which one.
        annotation: u8,
    },
    /// Puts a tag on a book.
    Tag {
        /// Which book.
        book: u8,
        /// Which tag.
        word: u8,
    },
    /// Takes a tag off a book.
    Untag {
        /// Which book.
        book: u8,
        /// Which tag.
        word: u8,
    },
    /// Gives a book a title of the user's own.
    SetTitle {
        /// Which book.
        book: u8,
        /// Which title.
        word: u8,
    },
    /// Writes the journal of a book.
    Journal {
        /// Of which book.
        book: u8,
        /// Which text.
        word: u8,
    },
    /// Turns a page.
    Turn {
        /// Of which book.
        book: u8,
        /// To where, in parts per million.
        ppm: u32,
        /// After how many seconds.
        seconds: u8,
    },
    /// Goes somewhere else in a book.
    Jump {
        /// In which book.
        book: u8,
        /// To where, in parts per million.
        ppm: u32,
    },
    /// Begins a book again.
    Restart {
        /// Which book.
        book: u8,
    },
    /// Publishes the turns of a book.
    Publish {
        /// Which book.
        book: u8,
    },
    /// Moves what waits into the rows.
    Drain,
    /// Packs the log into blocks.
    Compact,
    /// Adds a book, with the title of its file.
    Import {
        /// Which book.
        book: u8,
    },
    /// Takes everything that another device has.
    Receive {
        /// Which device, counted round from this one.
        from: u8,
    },
    /// Closes the library in order, and opens it again.
    Reopen,
    /// Drops the memory of the process, keeps the disk, and opens the library again.
    Kill,
    /// Cuts the power of the device at a later call of a disk, counted from 1.
    PowerCut {
        /// The disk whose calls are counted.
        disk: DiskName,
        /// Which call.
        call: u16,
    },
    /// Lets a later call of a disk fail, counted from 1.
    Fail {
        /// Which disk.
        disk: DiskName,
        /// Which call.
        call: u16,
        /// For how long.
        outage: Outage,
    },
    /// Leaves both disks that many blocks.
    FullDisk {
        /// How many blocks more can be written.
        blocks: u8,
    },
    /// Takes the limit of the disks and every planned failure back.
    Mend,
}

impl Arbitrary for Action {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![60 => arb_edit(), 20 => arb_reading(), 14 => arb_household(), 12 => arb_mishap()]
            .boxed()
    }
}

impl Action {
    /// Returns the sequence of this seed. It is the same in every run.
    pub fn sequence(seed: u64, length: usize) -> Vec<Self> {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(seed.to_le_bytes()).for_each(|(byte, of)| *byte = of);
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), random);
        let action = any::<Self>();
        let drawn = (0..length).filter_map(|_| action.new_tree(&mut runner).ok());
        drawn.map(|tree| tree.current()).collect()
    }

    /// Returns the action that a number stands for, so that a fuzzer may choose it.
    pub fn numbered(number: u16) -> Option<Self> {
        Self::sequence(u64::from(number), 1).pop()
    }
}

fn arb_edit() -> impl Strategy<Value = Action> {
    let (book, annotation, word) = (0..BOOKS, 0..ANNOTATIONS, 0..WORDS);
    let of = (book.clone(), annotation);
    let worded = (of.clone(), word.clone());
    let tagged = (book, word);
    prop_oneof![
        12 => (of.clone(), arb_ppm()).prop_map(|((book, annotation), ppm)| {
            Action::Annotate { book, annotation, ppm }
        }),
        4 => worded.clone().prop_map(|((book, annotation), word)| {
            Action::EditNote { book, annotation, word }
        }),
        2 => worded.prop_map(|((book, annotation), word)| {
            Action::Recolor { book, annotation, word }
        }),
        3 => of.clone().prop_map(|(book, annotation)| Action::Delete { book, annotation }),
        2 => of.prop_map(|(book, annotation)| Action::Undelete { book, annotation }),
        2 => tagged.clone().prop_map(|(book, word)| Action::Tag { book, word }),
        2 => tagged.clone().prop_map(|(book, word)| Action::Untag { book, word }),
        1 => tagged.clone().prop_map(|(book, word)| Action::SetTitle { book, word }),
        1 => tagged.prop_map(|(book, word)| Action::Journal { book, word }),
    ]
}

fn arb_reading() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..BOOKS, arb_ppm(), 1..=60_u8).prop_map(|(book, ppm, seconds)| {
            Action::Turn { book, ppm, seconds }
        }),
        1 => (0..BOOKS, arb_ppm()).prop_map(|(book, ppm)| Action::Jump { book, ppm }),
        1 => (0..BOOKS).prop_map(|book| Action::Restart { book }),
        2 => (0..BOOKS).prop_map(|book| Action::Publish { book }),
    ]
}

fn arb_household() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Drain),
        1 => Just(Action::Compact),
        3 => (0..BOOKS).prop_map(|book| Action::Import { book }),
        8 => (1..3_u8).prop_map(|from| Action::Receive { from }),
        1 => (0..BOOKS, 2..=MANY_MAX).prop_map(|(book, count)| {
            Action::AnnotateMany { book, count }
        }),
        2 => Just(Action::Reopen),
    ]
}

fn arb_mishap() -> impl Strategy<Value = Action> {
    let disk = || prop_oneof![Just(DiskName::Wal), Just(DiskName::Library)];
    let outage = prop_oneof![Just(Outage::Once), Just(Outage::Lasting)];
    prop_oneof![
        5 => Just(Action::Kill),
        4 => (disk(), 1..200_u16).prop_map(|(disk, call)| Action::PowerCut { disk, call }),
        2 => (disk(), 1..200_u16, outage).prop_map(|(disk, call, outage)| {
            Action::Fail { disk, call, outage }
        }),
        2 => (0..12_u8).prop_map(|blocks| Action::FullDisk { blocks }),
        1 => Just(Action::Mend),
    ]
}

/// A tenth of the book at a time, so that places meet.
fn arb_ppm() -> impl Strategy<Value = u32> {
    (0..=10_u32).prop_map(|tenths| tenths * 100_000)
}

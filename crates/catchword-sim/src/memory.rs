//! What a device was told is durable, in plain words: the state that must be there afterwards.
//!
//! A [`Seen`] is what a person would see. It is read from a store, or computed from the one before
//! and an action, without asking the store; the two must be equal.
//!
//! # Invariants
//!
//! 1. [`Seen::after`] follows the rules of the design, not the code of the store.
//! 2. [`Seen::read`] moves nothing into the rows: what waits goes on waiting.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, BookId, DeviceId};
use catchword_model::meta::Rank;
use catchword_model::position::highest_pass;
use catchword_store::Store;

use crate::action::{ANNOTATIONS, Action, BOOKS};

/// What a person would see of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The books that are here, by their number.
    pub books: BTreeMap<u8, SeenBook>,
}

/// What a person would see of a book.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenBook {
    /// The annotations, deleted ones among them.
    pub annotations: BTreeMap<AnnotationId, SeenAnnotation>,
    /// The title and who says so.
    pub title: Option<(String, Rank)>,
    /// The tags.
    pub tags: BTreeSet<String>,
    /// The journal.
    pub journal: String,
    /// The place this device published: stamp, pass, parts per million.
    pub place: Option<(Hlc, u32, u32)>,
    /// The highest pass that any device published.
    pub pass: u32,
    /// The turn that waits to be published: stamp, pass, parts per million.
    pub pending: Option<(Hlc, u32, u32)>,
    /// Reading events, and the seconds in them.
    pub events: (u64, u64),
    /// Totals over all devices: seconds, turns, sessions.
    pub totals: (u64, u64, u64),
}

/// What a person would see of an annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAnnotation {
    /// The quotation.
    pub quote: String,
    /// Where it is, in parts per million.
    pub ppm: Option<u32>,
    /// The note.
    pub note: Option<String>,
    /// The colour.
    pub color: Option<String>,
    /// Whether it is deleted.
    pub deleted: bool,
}

/// Seconds and turns of the page turns that wait, by book: a store shows them only once published.
pub type Reading = BTreeMap<u8, (u64, u64)>;

/// Why an action is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The book is not here.
    NoDocument,
    /// The annotation is not in the book.
    NoAnnotation,
    /// The annotation is in the book already.
    AnnotationExists,
    /// The annotation is deleted.
    AnnotationDeleted,
}

/// What an action needs to know that the state before does not say.
#[derive(Debug, Clone, Copy)]
pub struct Hint<'a> {
    /// The stamp of a turn: only the store knows it.
    pub stamp: Hlc,
    /// The annotations that [`Action::AnnotateMany`] makes.
    pub many: &'a [AnnotationId],
}

/// Returns the id of a book.
pub fn book_id(book: u8) -> BookId {
    BookId([book.wrapping_add(0x70); 32])
}

/// Returns the id of an annotation, which is the same on every device.
pub fn annotation_id(annotation: u8) -> AnnotationId {
    AnnotationId::new(u64::from(annotation), [3; 10])
}

/// Returns the quotation of an annotation.
pub fn quote(id: AnnotationId) -> String {
    format!("the words of {id}")
}

/// Returns the title in the file of a book.
pub fn file_title(book: u8) -> String {
    format!("book {book}")
}

/// Returns a note, colour, tag or title.
pub fn word(word: u8) -> String {
    format!("word {word}")
}

impl Seen {
    /// Reads what a person would see, without moving anything into the rows.
    ///
    /// `known` are annotations to look for beside those that have a name.
    ///
    /// # Errors
    ///
    /// What the store could not read.
    pub fn read(store: &Store, known: &Self) -> anyhow::Result<Self> {
        let mut seen = Self::default();
        for book in 0..BOOKS {
            let named = (0..ANNOTATIONS).map(annotation_id);
            let known = known.books.get(&book).into_iter().flat_map(|b| b.annotations.keys());
            let ids: BTreeSet<AnnotationId> = named.chain(known.copied()).collect();
            let found = read_book(store, book, &ids)?;
            seen.books.extend(found.map(|found| (book, found)));
        }
        Ok(seen)
    }

    /// Returns why the action must be refused, if it must.
    pub fn refusal(&self, action: &Action) -> Option<Refusal> {
        let book = touched(action)?;
        let creates = matches!(action, Action::Import { .. });
        let Some(found) = self.books.get(&book) else {
            return (!creates).then_some(Refusal::NoDocument);
        };
        let of = |annotation: u8| found.annotations.get(&annotation_id(annotation));
        let edit = |annotation, deleted| match of(annotation) {
            None => Some(Refusal::NoAnnotation),
            Some(found) => found.deleted.then_some(deleted).flatten(),
        };
        match action {
            Action::Annotate { annotation, .. } => {
                of(*annotation).map(|_| Refusal::AnnotationExists)
            }
            Action::EditNote { annotation, .. } | Action::Recolor { annotation, .. } => {
                edit(*annotation, Some(Refusal::AnnotationDeleted))
            }
            Action::Delete { annotation, .. } | Action::Undelete { annotation, .. } => {
                edit(*annotation, None)
            }
            Action::AnnotateMany { .. }
            | Action::Tag { .. }
            | Action::Untag { .. }
            | Action::SetTitle { .. }
            | Action::Journal { .. }
            | Action::Turn { .. }
            | Action::Jump { .. }
            | Action::Restart { .. }
            | Action::Publish { .. }
            | Action::Drain
            | Action::Compact
            | Action::Import { .. }
            | Action::Receive { .. }
            | Action::Reopen
            | Action::Kill
            | Action::PowerCut { .. }
            | Action::Fail { .. }
            | Action::FullDisk { .. }
            | Action::Mend => None,
        }
    }

    /// Returns the state after an action that was not refused.
    ///
    /// Actions that change nothing a person would see, and [`Action::Receive`], leave it as it is.
    #[must_use]
    pub fn after(&self, action: &Action, hint: Hint<'_>, reading: &Reading) -> Self {
        let mut after = self.clone();
        let Some(book) = touched(action) else { return after };
        let found =
            after.books.entry(book).or_insert_with(|| SeenBook { pass: 1, ..SeenBook::default() });
        let is_turn =
            matches!(action, Action::Turn { .. } | Action::Jump { .. } | Action::Restart { .. });
        if is_turn {
            found.turn(action, hint.stamp);
        } else {
            found.publish(reading.get(&book).copied().unwrap_or_default());
            found.edit(action, hint.many);
        }
        after
    }

    /// Returns the state in which only the turns that wait are published.
    #[must_use]
    pub fn published(&self, action: &Action, reading: &Reading) -> Self {
        let mut after = self.clone();
        if let Some(book) = touched(action)
            && let Some(found) = after.books.get_mut(&book)
        {
            found.publish(reading.get(&book).copied().unwrap_or_default());
        }
        after
    }
}

impl SeenBook {
    fn turn(&mut self, action: &Action, stamp: Hlc) {
        let pass = self.pending.map_or(self.pass, |(_, pass, _)| pass);
        self.pending = if let Action::Turn { ppm, .. } | Action::Jump { ppm, .. } = action {
            Some((stamp, pass, *ppm))
        } else {
            Some((stamp, pass + 1, 0))
        };
    }

    fn publish(&mut self, (seconds, turns): (u64, u64)) {
        let Some(pending) = self.pending.take() else { return };
        self.place = Some(pending);
        self.pass = self.pass.max(pending.1);
        self.events = (self.events.0 + 1, self.events.1 + seconds);
        let before = self.totals;
        self.totals = (before.0 + seconds, before.1 + turns, before.2 + 1);
    }

    fn edit(&mut self, action: &Action, many: &[AnnotationId]) {
        let new = |id, ppm| SeenAnnotation {
            quote: quote(id),
            ppm: Some(ppm),
            note: None,
            color: Some("yellow".to_owned()),
            deleted: false,
        };
        match action {
            Action::Annotate { annotation, ppm, .. } => {
                let id = annotation_id(*annotation);
                self.annotations.insert(id, new(id, *ppm));
            }
            Action::AnnotateMany { .. } => {
                self.annotations.extend(many.iter().map(|id| (*id, new(*id, MANY_PPM))));
            }
            Action::EditNote { annotation, word: note, .. } => {
                self.change(*annotation, |found| found.note = Some(word(*note)));
            }
            Action::Recolor { annotation, word: color, .. } => {
                self.change(*annotation, |found| found.color = Some(word(*color)));
            }
            Action::Delete { annotation, .. } => {
                self.change(*annotation, |found| found.deleted = true);
            }
            Action::Undelete { annotation, .. } => {
                self.change(*annotation, |found| found.deleted = false);
            }
            Action::Tag { word: tag, .. } => {
                self.tags.insert(word(*tag));
            }
            Action::Untag { word: tag, .. } => {
                self.tags.remove(&word(*tag));
            }
            Action::Journal { word: text, .. } => self.journal = word(*text),
            Action::SetTitle { word: title, .. } => self.title = Some((word(*title), Rank::User)),
            Action::Import { book } => {
                let users = matches!(self.title, Some((_, Rank::User)));
                if !users {
                    self.title = Some((file_title(*book), Rank::File));
                }
            }
            Action::Turn { .. }
            | Action::Jump { .. }
            | Action::Restart { .. }
            | Action::Publish { .. }
            | Action::Drain
            | Action::Compact
            | Action::Receive { .. }
            | Action::Reopen
            | Action::Kill
            | Action::PowerCut { .. }
            | Action::Fail { .. }
            | Action::FullDisk { .. }
            | Action::Mend => (),
        }
    }

    fn change(&mut self, annotation: u8, change: impl FnOnce(&mut SeenAnnotation)) {
        if let Some(found) = self.annotations.get_mut(&annotation_id(annotation)) {
            change(found);
        }
    }
}

/// Where annotations stand that were made many at once, in parts per million.
pub const MANY_PPM: u32 = 550_000;

/// Returns the book an action reads or writes, if it is one.
pub fn touched(action: &Action) -> Option<u8> {
    match action {
        Action::Annotate { book, .. }
        | Action::AnnotateMany { book, .. }
        | Action::EditNote { book, .. }
        | Action::Recolor { book, .. }
        | Action::Delete { book, .. }
        | Action::Undelete { book, .. }
        | Action::Tag { book, .. }
        | Action::Untag { book, .. }
        | Action::SetTitle { book, .. }
        | Action::Journal { book, .. }
        | Action::Turn { book, .. }
        | Action::Jump { book, .. }
        | Action::Restart { book }
        | Action::Publish { book }
        | Action::Import { book } => Some(*book),
        Action::Drain
        | Action::Compact
        | Action::Receive { .. }
        | Action::Reopen
        | Action::Kill
        | Action::PowerCut { .. }
        | Action::Fail { .. }
        | Action::FullDisk { .. }
        | Action::Mend => None,
    }
}

fn read_book(
    store: &Store,
    book: u8,
    ids: &BTreeSet<AnnotationId>,
) -> anyhow::Result<Option<SeenBook>> {
    let id = book_id(book);
    let Some(view) = store.view(id)? else { return Ok(None) };
    let mut annotations = BTreeMap::new();
    for annotation in ids {
        let row = store.annotation(id, *annotation)?;
        let shown = row.and_then(|row| row.annotation());
        annotations.extend(shown.map(|shown| (*annotation, seen(&shown))));
    }
    let title = view.meta.get("title");
    let title = title.and_then(|meta| Some((meta.value.as_str()?.to_owned(), meta.rank)));
    let device: DeviceId = store.device();
    let own = view.positions.iter().filter(|entry| entry.device == device);
    let mut own = own.map(|entry| (entry.stamp(), entry.position.pass, entry.position.ppm));
    let place = own.next();
    anyhow::ensure!(own.next().is_none(), "a device holds its own place twice");
    let total = |name| view.totals.get(name).copied().unwrap_or(0);
    Ok(Some(SeenBook {
        annotations,
        title,
        tags: view.tags.iter().cloned().collect(),
        journal: view.journal.clone(),
        place,
        pass: highest_pass(&view.positions),
        pending: store.pending_turn(id),
        events: (view.events.count, view.events.seconds),
        totals: (total("seconds"), total("turns"), total("sessions")),
    }))
}

/// Returns what a person sees of an annotation, without what only a merge decides.
pub fn seen(shown: &catchword_model::annotation::Annotation) -> SeenAnnotation {
    SeenAnnotation {
        quote: shown.quote.clone(),
        ppm: shown.locator.total_ppm(),
        note: shown.note.clone(),
        color: shown.color.clone(),
        deleted: shown.deleted,
    }
}

/// Fails unless the lists of a store show exactly this: nothing missing and nothing invented.
///
/// Lists are read from the rows, so what waits is moved there first.
///
/// # Errors
///
/// What differs, or could not be read.
pub fn check_lists(store: &Store, expected: &Seen) -> anyhow::Result<()> {
    let mut listed = BTreeSet::new();
    for summary in store.books()? {
        listed.insert(summary.book);
    }
    let books: BTreeSet<BookId> = expected.books.keys().map(|book| book_id(*book)).collect();
    anyhow::ensure!(listed == books, "the list of books is {listed:?}, not {books:?}");
    for (book, expected) in &expected.books {
        let id = book_id(*book);
        let mut found = BTreeMap::new();
        store.annotations(id, 0, u32::MAX, |shown| {
            found.insert(shown.id, seen(&shown));
        })?;
        anyhow::ensure!(
            found == expected.annotations,
            "book {book} lists other annotations: {}",
            difference(&found, &expected.annotations)
        );
        let summary = store.book(id)?.context("a listed book is missing")?;
        let count = expected.annotations.values().filter(|shown| !shown.deleted).count() as u64;
        anyhow::ensure!(
            summary.annotations == count,
            "book {book} counts {}, not {count}",
            summary.annotations
        );
        let title = expected.title.as_ref().map_or("", |(title, _)| title.as_str());
        anyhow::ensure!(summary.title == title, "book {book} is called {:?}", summary.title);
        let (mut events, mut seconds) = (0, 0);
        store.events(id, |event| {
            events += 1;
            seconds += u64::from(event.seconds);
        })?;
        anyhow::ensure!(
            (events, seconds) == expected.events,
            "book {book} has {events} events of {seconds} s, not {:?}",
            expected.events
        );
    }
    Ok(())
}

/// Returns the first lines in which two values differ.
pub fn difference<T: std::fmt::Debug>(found: &T, expected: &T) -> String {
    let (found, expected) = (format!("{found:#?}"), format!("{expected:#?}"));
    let same = found.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| {
        let lines: Vec<&str> = text.lines().skip(same.saturating_sub(6)).take(12).collect();
        lines.join("\n")
    };
    format!("found …\n{}\ninstead of …\n{}", part(&found), part(&expected))
}

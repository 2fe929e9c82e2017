//! The integrity check: the log is read and verified, everything derived from it is built again
//! beside the library, and the two are compared.
//!
//! # Invariants
//!
//! 1. What is built again goes through the same function as every change: [`Stage::apply`].
//! 2. Local numbers (documents, writers) are kept, so that a healthy library compares equal.
//! 3. A document whose log is damaged is named and not rebuilt: its rows may be all that is left.
//! 4. A repair replaces a document in one transaction; a crash in between leaves each either way.
//! 5. Memory does not grow with the library.
//!
//! [`Stage::apply`]: crate::stage::Stage::apply

mod compare;
mod rebuild;
mod repair;

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::id::{AnnotationId, DocumentId};
use redb::{Builder, Database, ReadableTableMetadata as _};

use crate::Store;
use crate::copy::Scratch;
use crate::doc::Doc;
use crate::error::{Cause, LoadError, corrupt, load};
use crate::progress::{End, OnProgress, Progress, Step};
use crate::snapshot::Snapshot;

use rebuild::Rebuilt;

/// Differences that a report names; more are counted.
pub const DIFFERENCES_NAMED_MAX: usize = 100;

/// The least of all annotation ids.
const FIRST_ID: AnnotationId = AnnotationId([0; 16]);
const SCRATCH_FILE: &str = "check.new";
const SCRATCH_CACHE_BYTES: usize = 8 << 20;

/// Whether a check writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Only reads and reports.
    ReportOnly,
    /// Replaces what differs from the log by what the log says.
    Rebuild,
}

/// A part of the library that is a function of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Derived {
    /// Which number a document has.
    Numbers,
    /// Heads, counters and writers of a document, and what lists show of it.
    Documents,
    /// Annotations.
    Annotations,
    /// Where each annotation stands.
    Places,
    /// Positions, tags, metadata and the like.
    Fields,
    /// Changes by their hash.
    Hashes,
    /// Changes by writer, with what is in their past.
    Chains,
    /// Books by when they were read.
    Recent,
    /// The text of journals.
    Journals,
    /// The number of the next record.
    NextNumber,
}

/// How a table differs from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mismatch {
    /// The log says something that the table lacks.
    Missing,
    /// The table says something that the log does not.
    Unexpected,
    /// Both say something, and not the same.
    Different,
    /// What the table says does not read.
    Unreadable,
}

/// One place where a table differs from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which document, if that is known.
    pub document: Option<DocumentId>,
    /// Which table.
    pub derived: Derived,
    /// In which way.
    pub mismatch: Mismatch,
    /// Which entry: its key in hexadecimal digits, or what of a document.
    pub entry: String,
}

/// A record that every copy of the library was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordName {
    /// A change or a block of the log, by its local sequence.
    Change {
        /// The local sequence.
        sequence: u64,
    },
    /// A reading event.
    Event {
        /// The place of its writer in the document's list.
        writer: u16,
        /// Its number.
        n: u64,
    },
}

/// A record that does not read, or does not fit what is around it. It is never served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Which document.
    pub document: DocumentId,
    /// Which record.
    pub record: RecordName,
    /// What is wrong with it.
    pub reason: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Whether it came to its end. What a check that was stopped did not look at is not reported.
    pub end: End,
    /// Documents that were read.
    pub documents: u64,
    /// Changes that were read and verified.
    pub changes: u64,
    /// Reading events that were read and verified.
    pub events: u64,
    /// Annotations that were built again.
    pub annotations: u64,
    /// Changes that stand in the log twice, after a compaction that was cut off. Harmless.
    pub leftovers: u64,
    /// How many places differ from the log.
    pub differences: u64,
    /// The first of them, at most [`DIFFERENCES_NAMED_MAX`].
    pub named: Vec<Difference>,
    /// Records that cannot be used. Only a backup or another device can bring them back.
    pub damaged: Vec<Damaged>,
    /// Documents that were replaced by what the log says.
    pub repaired: u64,
}

impl CheckReport {
    /// Returns whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.differences == 0 && self.damaged.is_empty()
    }

    fn note(&mut self, difference: Difference) {
        self.differences += 1;
        if self.named.len() < DIFFERENCES_NAMED_MAX {
            self.named.push(difference);
        }
    }
}

impl Store {
    /// Verifies every record, builds everything derived again in a scratch file, and compares.
    ///
    /// Takes about as much room beside the library as the library itself, and frees it again. With
    /// [`Repair::ReportOnly`] the library can be used meanwhile; with [`Repair::Rebuild`] other calls
    /// wait. A check that is stopped repairs nothing.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the disk refuses. Damage is no error: it is what the report is about. After an
    /// error while repairing, some documents may be repaired and others not.
    pub fn check(
        &self,
        repair: Repair,
        progress: OnProgress<'_>,
    ) -> Result<CheckReport, LoadError> {
        let mut inner = self.lock();
        inner.drain_for_reading();
        inner.is_sound()?;
        let pages = inner.library.pages();
        let disk = Snapshot::take(&inner.library)?;
        let (_scratch, database) = self.scratch()?;
        let checked = match repair {
            Repair::ReportOnly => {
                drop(inner);
                Check::new(&disk, &database, progress).and_then(|mut check| {
                    check.run()?;
                    Ok(check.report)
                })
            }
            Repair::Rebuild => Check::new(&disk, &database, progress).and_then(|mut check| {
                check.run()?;
                if !check.is_stopped() && pages.rot().is_none() {
                    check.repair(&mut inner)?;
                }
                Ok(check.report)
            }),
        };
        // A page that has rotted is no record that does not read: nothing after it was compared.
        match pages.rot() {
            Some(rot) => Err(corrupt(rot.to_string())),
            None => checked,
        }
    }

    /// Makes the file to build in, which goes with its guard.
    fn scratch(&self) -> Result<(Option<Scratch>, Database), LoadError> {
        let mut builder = Builder::new();
        builder.set_cache_size(SCRATCH_CACHE_BYTES);
        let Some(folder) = self.folder() else {
            let memory = redb::backends::InMemoryBackend::new();
            return Ok((None, builder.create_with_backend(memory).map_err(load)?));
        };
        let io = |error: std::io::Error| LoadError::Io(Cause::from(error));
        let scratch = Scratch::new(folder.join(SCRATCH_FILE)).map_err(io)?;
        let database = builder.create(&scratch.path).map_err(load)?;
        Ok((Some(scratch), database))
    }
}

/// A check while it runs.
struct Check<'a> {
    disk: &'a Snapshot,
    rebuilt: Rebuilt<'a>,
    progress: OnProgress<'a>,
    report: CheckReport,
    /// Documents that differ from the log.
    wrong: BTreeSet<u32>,
    /// Documents whose log is damaged.
    broken: BTreeSet<u32>,
    /// Whether lists of all documents differ: by last reading, by id, the number of the next record.
    lists_differ: bool,
    /// What each document is called: its own row may be what is damaged.
    ids: BTreeMap<u32, DocumentId>,
    /// The greatest local sequence in the log.
    last_sequence: u64,
    done: u64,
    total: u64,
}

/// A document as the library names it.
struct Named {
    id: DocumentId,
    number: u32,
    /// What is stored of it; absent if it does not read.
    stored: Option<Doc>,
}

impl<'a> Check<'a> {
    fn new(
        disk: &'a Snapshot,
        database: &'a Database,
        progress: OnProgress<'a>,
    ) -> Result<Self, LoadError> {
        let total = disk.log.len().map_err(load)? + disk.events.len().map_err(load)?;
        Ok(Self {
            disk,
            rebuilt: Rebuilt::new(database)?,
            progress,
            report: CheckReport::default(),
            wrong: BTreeSet::new(),
            broken: BTreeSet::new(),
            lists_differ: false,
            ids: BTreeMap::new(),
            last_sequence: 0,
            done: 0,
            total,
        })
    }

    fn run(&mut self) -> Result<(), LoadError> {
        let documents = self.documents()?;
        for named in &documents {
            self.rebuild(named)?;
            if self.is_stopped() || self.tell(Step::Reading, self.done, self.total) {
                return Ok(());
            }
        }
        self.rebuilt.flush()?;
        let total = documents.len() as u64;
        for (done, named) in (1..).zip(&documents) {
            if !self.broken.contains(&named.number) {
                self.compare(named)?;
            }
            if self.tell(Step::Comparing, done, total) {
                return Ok(());
            }
        }
        self.compare_recent()?;
        self.compare_sum()?;
        self.compare_next_number()
    }

    /// Tells how far the check has come, and returns whether it is to stop.
    fn tell(&mut self, step: Step, done: u64, total: u64) -> bool {
        let ended = (self.progress)(Progress { step, done: done.min(total), total }).is_break();
        if ended {
            self.report.end = End::Stopped;
        }
        ended
    }

    fn is_stopped(&self) -> bool {
        self.report.end == End::Stopped
    }

    /// Returns every document that has a number, ascending by number.
    fn documents(&mut self) -> Result<Vec<Named>, LoadError> {
        let mut ids: BTreeMap<u32, DocumentId> = BTreeMap::new();
        for found in self.disk.book_ids.range::<&[u8; 32]>(..).map_err(load)? {
            let (id, number) = found.map_err(load)?;
            let id = DocumentId(*id.value());
            if ids.insert(number.value(), id).is_some() {
                self.note(Some(id), Derived::Numbers, Mismatch::Different, id.to_string());
            }
        }
        let mut named = Vec::with_capacity(ids.len());
        for found in self.disk.books.range::<u32>(..).map_err(load)? {
            let (number, bytes) = found.map_err(load)?;
            let number = number.value();
            let stored = Doc::decode(number, bytes.value()).ok();
            let id = ids.remove(&number);
            match (id, &stored) {
                (Some(id), Some(doc)) if doc.id == id => {
                    named.push(Named { id, number, stored });
                }
                (Some(id), _) => named.push(Named { id, number, stored: None }),
                (None, Some(doc)) => {
                    let id = doc.id;
                    self.note(Some(id), Derived::Numbers, Mismatch::Missing, id.to_string());
                    named.push(Named { id, number, stored });
                }
                (None, None) => {
                    let entry = number.to_string();
                    self.note(None, Derived::Documents, Mismatch::Unreadable, entry);
                }
            }
        }
        named.extend(ids.into_iter().map(|(number, id)| Named { id, number, stored: None }));
        named.sort_by_key(|named| named.number);
        self.ids = named.iter().map(|named| (named.number, named.id)).collect();
        Ok(named)
    }

    fn note(
        &mut self,
        document: Option<DocumentId>,
        derived: Derived,
        mismatch: Mismatch,
        entry: String,
    ) {
        self.lists_differ |=
            matches!(derived, Derived::Numbers | Derived::Recent | Derived::NextNumber)
                || (derived == Derived::Documents && document.is_none());
        self.report.note(Difference { document, derived, mismatch, entry });
    }

    fn damage(&mut self, named: &Named, record: RecordName, reason: &dyn std::fmt::Display) {
        self.broken.insert(named.number);
        let (document, reason) = (named.id, reason.to_string());
        self.report.damaged.push(Damaged { document, record, reason });
    }
}

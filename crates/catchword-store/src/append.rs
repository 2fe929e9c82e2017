//! The one door: local edits become changes, are acknowledged in `wal`, and reach the rows later.

use std::collections::BTreeSet;

use catchword_model::annotation::{AnnotationField, NOTE_BYTES_MAX, QUOTE_BYTES_MAX};
use catchword_model::change::Change;
use catchword_model::change::read::OPS_MAX;
use catchword_model::edit::{Edit, Write, build};
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, ChangeHash, DocumentId};
use catchword_model::meta::{META_BYTES_MAX, meta};
use catchword_model::position::{PASS_MAX, PPM_MAX};
use catchword_model::schema::{Container, tag_key};

use crate::contain::contained;
use crate::doc::ACTORS_MAX;
use crate::error::{AppendError, LoadError};
use crate::flush::{Marks, flush};
use crate::rows::field_key;
use crate::snapshot::Snapshot;
use crate::stage::Stage;
use crate::wal::{self, Pending, Record, WalCommit};
use crate::{Inner, Store};

/// Changes and events that wait in `wal` before they are moved to the rows: each move costs pages of
/// every table, whose share in a write falls with their number (`docs/design/0010-rows-follow.md`).
pub const WAITING_MAX: usize = 256;
/// Changes of one transaction of `library` when many are written at once.
pub(crate) const BATCH_CHANGES: usize = 4_096;
/// Longest title or shelf name, in bytes.
pub(crate) const TITLE_BYTES_MAX: usize = 1 << 10;

/// The receipt of a write that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The stamp of the change.
    pub stamp: Hlc,
    /// The change, or `None` if everything was so already.
    pub hash: Option<ChangeHash>,
}

/// What one commit of `wal` will hold.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    pub(crate) records: Vec<(u64, Record)>,
    pub(crate) pending: Vec<(u32, Option<Pending>)>,
    /// The local sequences of what page turns became.
    pub(crate) published: BTreeSet<u64>,
}

impl Acknowledged {
    /// Returns whether the turns of a book are published in this commit already.
    pub(crate) fn publishes(&self, number: u32) -> bool {
        self.pending.iter().any(|(of, turns)| *of == number && turns.is_none())
    }

    /// Leaves page turns and what they became.
    fn into_published(mut self) -> Self {
        self.records.retain(|(sequence, _)| self.published.contains(sequence));
        self
    }
}

impl Store {
    /// Makes one change of the edits and returns when it is durable: after one sync of the disk.
    ///
    /// Page turns of the book that are not published yet are published first, in the same commit.
    /// `now_ms` is the wall clock in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`AppendError`] says which edit is refused, and nothing was written; or that the disk refused,
    /// and the library must be reopened.
    pub fn append(
        &self,
        document: DocumentId,
        edits: &[Edit],
        now_ms: u64,
    ) -> Result<Commit, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let mut acknowledged = Acknowledged::default();
        let made = inner.make(document, edits, now_ms, &mut acknowledged);
        let commit = inner.or_roll_back(made)?;
        inner.acknowledge(acknowledged)?;
        Ok(commit)
    }

    /// Makes one change for each list of edits and returns when all are durable, after one sync.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append): either all changes are made, or none. Turns may have been published
    /// even if the disk then refuses the rest.
    pub fn append_all(
        &self,
        batch: &[(DocumentId, Vec<Edit>)],
        now_ms: u64,
    ) -> Result<Vec<Commit>, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let mut acknowledged = Acknowledged::default();
        let made = inner.make_all(batch, now_ms, &mut acknowledged);
        let commits = inner.or_roll_back(made)?;
        if acknowledged.records.len() <= WAITING_MAX {
            inner.acknowledge(acknowledged)?;
        } else {
            inner.acknowledge_in_rows(acknowledged)?;
        }
        Ok(commits)
    }

    /// Moves everything that waits into the rows. Nothing to do is no work.
    ///
    /// # Errors
    ///
    /// [`AppendError::Io`] if the disk refuses; what was acknowledged is kept, and the library must be
    /// reopened.
    pub fn drain(&self) -> Result<(), AppendError> {
        self.lock().drain()
    }
}

impl Inner {
    pub(crate) fn writable(&self) -> Result<(), AppendError> {
        self.is_sound()?;
        if self.failed { Err(AppendError::Closed) } else { Ok(()) }
    }

    fn make_all(
        &mut self,
        batch: &[(DocumentId, Vec<Edit>)],
        now_ms: u64,
        acknowledged: &mut Acknowledged,
    ) -> Result<Vec<Commit>, AppendError> {
        let make = |(document, edits): &(DocumentId, Vec<Edit>)| {
            self.make(*document, edits, now_ms, acknowledged)
        };
        batch.iter().map(make).collect()
    }

    /// Checks the edits, and stages the change they make.
    pub(crate) fn make(
        &mut self,
        document: DocumentId,
        edits: &[Edit],
        now_ms: u64,
        acknowledged: &mut Acknowledged,
    ) -> Result<Commit, AppendError> {
        let number = self.number(document)?.ok_or(AppendError::NoDocument)?;
        let edits = self.check_edits(number, edits)?;
        self.publish_into(number, acknowledged)?;
        let stamp = self.clock.tick(now_ms);
        let device = self.identity.device;
        let writes: Vec<Write> = edits.iter().flat_map(|edit| edit.writes(device, stamp)).collect();
        let hash = self.stage_writes(number, stamp, &writes, acknowledged)?;
        Ok(Commit { stamp, hash })
    }

    pub(crate) fn number(&mut self, document: DocumentId) -> Result<Option<u32>, LoadError> {
        let (stage, disk) = self.parts()?;
        stage.number(disk, document)
    }

    /// Builds and stages a change of these writes, with this stamp.
    pub(crate) fn stage_writes(
        &mut self,
        number: u32,
        stamp: Hlc,
        writes: &[Write],
        acknowledged: &mut Acknowledged,
    ) -> Result<Option<ChangeHash>, AppendError> {
        if OPS_MAX < writes.len() {
            let (value, max) = (writes.len() as u64, OPS_MAX as u64);
            return Err(AppendError::OutOfRange { what: "writes of one change", value, max });
        }
        let (stage, disk) = self.parts()?;
        let id = stage.doc(disk, number)?.id;
        let author = self.author_in(id);
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?;
        let base = doc.base(author);
        if doc.writer_place(base.actor).is_none() && ACTORS_MAX <= doc.writers.len() {
            return Err(AppendError::Full { what: "writers", max: ACTORS_MAX as u64 });
        }
        let held = |container, key: &str| stage.held(disk, number, container, key);
        let Some(change) = build(&base, stamp, writes, held)? else { return Ok(None) };
        let hash = change.hash();
        self.stage_change(number, id, change, acknowledged)?;
        Ok(Some(hash))
    }

    /// Stages a change that was made here.
    pub(crate) fn stage_change(
        &mut self,
        number: u32,
        id: DocumentId,
        change: Change,
        acknowledged: &mut Acknowledged,
    ) -> Result<(), LoadError> {
        let sequence = self.take_sequence();
        let (stage, disk) = self.parts()?;
        stage.apply(disk, number, &change, sequence)?;
        acknowledged.records.push((sequence, Record::Change(id, Box::new(change))));
        Ok(())
    }

    /// Makes what was staged durable in `wal`, and moves the rows on when enough waits.
    pub(crate) fn acknowledge(&mut self, acknowledged: Acknowledged) -> Result<(), AppendError> {
        self.put(acknowledged)?;
        if WAITING_MAX <= self.tail.len() {
            // The write is acknowledged already: a failure here shows at the next write.
            drop(self.drain());
        }
        Ok(())
    }

    /// Makes what was staged durable in `wal`: one commit.
    fn put(&mut self, acknowledged: Acknowledged) -> Result<(), AppendError> {
        if acknowledged.records.is_empty() && acknowledged.pending.is_empty() {
            return Ok(());
        }
        let last = acknowledged.records.last().map(|(sequence, _)| *sequence);
        let drained = if self.removed < self.drained { self.drained } else { 0 };
        let commit = WalCommit {
            records: &acknowledged.records,
            pending: acknowledged.pending.clone(),
            drained,
        };
        if let Err(error) = contained(|| wal::commit(&self.wal, &commit)) {
            self.fail();
            return Err(error.into());
        }
        self.removed = self.removed.max(drained);
        self.last_record = last.unwrap_or(self.last_record);
        self.tail.extend(acknowledged.records);
        self.remember_pending(acknowledged.pending);
        Ok(())
    }

    /// Makes what was staged durable in the rows at once, as many changes are.
    pub(crate) fn acknowledge_in_rows(
        &mut self,
        acknowledged: Acknowledged,
    ) -> Result<(), AppendError> {
        // Turns leave `wal` in the commit that puts what they became. If the rows came first, a crash
        // in between would publish them twice.
        self.put(acknowledged.into_published())?;
        self.flush()
    }

    fn remember_pending(&mut self, pending: Vec<(u32, Option<Pending>)>) {
        for (number, turns) in pending {
            match turns {
                Some(turns) => self.pending.insert(number, turns),
                None => self.pending.remove(&number),
            };
        }
    }

    pub(crate) fn drain(&mut self) -> Result<(), AppendError> {
        if self.tail.is_empty() && self.stage.is_clean() {
            return Ok(());
        }
        self.writable()?;
        self.flush()
    }

    /// Writes the stage into `library`: one transaction, with quick-repair.
    pub(crate) fn flush(&mut self) -> Result<(), AppendError> {
        self.refresh_texts()?;
        let marks = Marks {
            drained: self.last_record.max(self.drained),
            next_sequence: self.next_sequence,
            clock: self.clock.latest(),
        };
        let Some(disk) = self.disk.take() else { return Err(AppendError::Closed) };
        let flushed = contained(|| flush(&self.library, &mut self.stage, disk, marks));
        let reopened = flushed.and_then(|()| Snapshot::take(&self.library));
        match reopened {
            Ok(disk) => {
                self.disk = Some(disk);
                self.drained = marks.drained;
                self.tail.clear();
                Ok(())
            }
            Err(error) => {
                self.fail();
                Err(error.into())
            }
        }
    }

    /// Passes a result on; after an error of the disk what is acknowledged is staged anew.
    pub(crate) fn or_roll_back<T>(
        &mut self,
        result: Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    /// Forgets what is staged and not acknowledged.
    pub(crate) fn roll_back(&mut self) {
        if self.reload().is_err() {
            self.failed = true;
        }
    }

    /// Refuses writes from now on. What is acknowledged can be read.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
        drop(self.reload());
    }

    /// Stages what is acknowledged and waits for its rows, and nothing else.
    pub(crate) fn reload(&mut self) -> Result<(), LoadError> {
        self.disk = None;
        self.stage = Stage::default();
        let disk = Snapshot::take(&self.library)?;
        self.drained = disk.meta_number(crate::meta::DRAINED)?;
        self.actors = disk.actor_numbers()?;
        self.disk = Some(disk);
        self.tail.retain(|(sequence, _)| self.drained < *sequence);
        self.stage_tail()
    }

    /// Takes up what `wal` holds and the rows do not.
    pub(crate) fn replay(&mut self, waiting: wal::Waiting) -> Result<(), LoadError> {
        self.last_record = self.last_record.max(waiting.last);
        self.next_sequence = self.next_sequence.max(waiting.last + 1);
        for turns in waiting.pending.values() {
            self.clock.observe(turns.stamp);
        }
        self.pending = waiting.pending;
        self.tail = waiting.records;
        self.stage_tail()
    }

    fn stage_tail(&mut self) -> Result<(), LoadError> {
        let tail = std::mem::take(&mut self.tail);
        let staged =
            tail.iter().try_for_each(|(sequence, record)| self.stage_record(*sequence, record));
        self.tail = tail;
        if staged.is_err() {
            // Nothing is read from a part of what was acknowledged.
            self.disk = None;
        }
        staged
    }

    fn stage_record(&mut self, sequence: u64, record: &Record) -> Result<(), LoadError> {
        match record {
            Record::Change(id, change) => {
                self.clock.observe(Hlc::of_change(change.time));
                let number = self.replayed_number(*id)?;
                let (stage, disk) = self.parts()?;
                stage.apply(disk, number, change, sequence)
            }
            Record::Event(id, event) => {
                let number = self.replayed_number(*id)?;
                let (stage, disk) = self.parts()?;
                stage.apply_event(disk, number, **event, sequence)
            }
        }
    }

    fn replayed_number(&mut self, id: DocumentId) -> Result<u32, LoadError> {
        let missing = || crate::error::corrupt(format!("document {id} waits and is missing"));
        self.number(id)?.ok_or_else(missing)
    }

    /// Refuses what a reader would ignore, and drops what would change nothing.
    fn check_edits(&mut self, number: u32, edits: &[Edit]) -> Result<Vec<Edit>, AppendError> {
        let (stage, disk) = self.parts()?;
        let kind = stage.doc(disk, number)?.kind;
        let mut checked = Checked { stage, disk, number, new: Vec::new() };
        let mut kept = Vec::with_capacity(edits.len());
        for edit in edits {
            if edit.kind() != kind {
                return Err(AppendError::WrongDocument);
            }
            if let Some(edit) = checked.check(edit)? {
                kept.push(edit);
            }
        }
        Ok(kept)
    }
}

struct Checked<'a> {
    stage: &'a mut Stage,
    disk: &'a Snapshot,
    number: u32,
    /// Annotations made by earlier edits of the same change.
    new: Vec<AnnotationId>,
}

impl Checked<'_> {
    fn check(&mut self, edit: &Edit) -> Result<Option<Edit>, AppendError> {
        match edit {
            Edit::Annotate { id, creation } => {
                fits("quote", creation.quote.len(), QUOTE_BYTES_MAX)?;
                fits("note", creation.note.as_ref().map_or(0, String::len), NOTE_BYTES_MAX)?;
                let known = !self.stage.row(self.disk, self.number, *id)?.row.created.is_empty();
                if known || self.new.contains(id) {
                    return Err(AppendError::AnnotationExists(*id));
                }
                self.new.push(*id);
            }
            Edit::SetField { id, field, value } => {
                let bytes_max = match field {
                    AnnotationField::Note | AnnotationField::Locator => NOTE_BYTES_MAX,
                    AnnotationField::Color | AnnotationField::Style => TITLE_BYTES_MAX,
                };
                fits(field.name(), value.len(), bytes_max)?;
                if self.deleted(*id)? {
                    return Err(AppendError::AnnotationDeleted(*id));
                }
            }
            // A deletion of what is deleted, and the reverse, change nothing.
            Edit::Delete { id } => {
                return Ok((!self.deleted(*id)?).then(|| edit.clone()));
            }
            Edit::Undelete { id } => return Ok(self.deleted(*id)?.then(|| edit.clone())),
            Edit::AddTag { tag } => return Ok(Some(Edit::AddTag { tag: tag_key(tag)? })),
            Edit::RemoveTag { tag } => return Ok(Some(Edit::RemoveTag { tag: tag_key(tag)? })),
            Edit::SetMeta { field, meta: new } => {
                fits("metadata", new.to_json().len(), META_BYTES_MAX)?;
                let key = field_key(Container::Meta, field);
                let shown = meta(&self.stage.field(self.disk, self.number, &key)?.field);
                if shown.is_some_and(|shown| new.rank < shown.rank) {
                    return Ok(None);
                }
            }
            Edit::SetPosition(position) => {
                in_range("position", position.ppm, PPM_MAX)?;
                in_range("pass", position.pass, PASS_MAX)?;
            }
            Edit::SetFurthest { furthest, .. } => in_range("position", furthest.ppm, PPM_MAX)?,
            Edit::NameShelf { name, .. } => fits("name", name.len(), TITLE_BYTES_MAX)?,
            Edit::NameDevice(name) => fits("name", name.name.len(), TITLE_BYTES_MAX)?,
            Edit::SetTotal { .. }
            | Edit::Withdraw { .. }
            | Edit::DeleteShelf { .. }
            | Edit::AddMember { .. }
            | Edit::RemoveMember { .. }
            | Edit::AddAlias { .. }
            | Edit::Join(_)
            | Edit::Unjoin(_)
            | Edit::Apart(_)
            | Edit::AddHold { .. }
            | Edit::RemoveHold { .. } => (),
        }
        Ok(Some(edit.clone()))
    }

    fn deleted(&mut self, id: AnnotationId) -> Result<bool, AppendError> {
        let row = &self.stage.row(self.disk, self.number, id)?.row;
        if row.created.is_empty() && !self.new.contains(&id) {
            return Err(AppendError::NoAnnotation(id));
        }
        Ok(row.is_deleted())
    }
}

fn fits(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), AppendError> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(AppendError::TooLarge { what, bytes: bytes as u64, bytes_max: bytes_max as u64 })
}

fn in_range(what: &'static str, value: u32, max: u32) -> Result<(), AppendError> {
    if value <= max {
        return Ok(());
    }
    Err(AppendError::OutOfRange { what, value: u64::from(value), max: u64::from(max) })
}

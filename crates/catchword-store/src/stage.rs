//! What is decided and not yet in the tables of `library`: rows read through and written back.
//!
//! One function, [`Stage::apply`], takes every change, whoever made it: local edits after their
//! commit in `wal`, received changes, and replay after a crash. [`crate::flush`] writes what it left.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use catchword_model::annotation::{AnnotationField, Row};
use catchword_model::change::{Action, Change, Key, OpId};
use catchword_model::event::ReadingEvent;
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, ChangeHash, DocumentId};
use catchword_model::locator::SortKey;
use catchword_model::merge::{Field, Holder};
use catchword_model::schema::{Container, DocumentKind, KEY_BYTES_MAX, RecordKey, record_key};

use crate::chain::{Chain, Clock, join};
use crate::doc::Doc;
use crate::error::{LoadError, corrupt};
use crate::exchange::Staged;
use crate::rows::{decode_field, decode_row, object_key};
use crate::snapshot::Snapshot;

/// A row that was read, and maybe written since.
#[derive(Debug, Clone)]
pub(crate) struct StagedRow {
    pub(crate) row: Row,
    /// Where it stands in the tables, if it does.
    pub(crate) stored: Option<SortKey>,
    /// Whether the number of annotations counts it.
    pub(crate) counted: bool,
    pub(crate) dirty: bool,
    /// Whether something was written that decides about its place.
    moved: bool,
}

impl StagedRow {
    fn new(row: Row, stored: Option<SortKey>) -> Self {
        let counted = stored.is_some() && is_counted(&row);
        Self { row, stored, counted, dirty: false, moved: false }
    }

    /// Returns where the row stands in reading order. That of a row that has not moved is known.
    pub(crate) fn sort_key(&self) -> SortKey {
        match self.stored {
            Some(stored) if !self.moved => stored,
            _ => self.row.sort_key(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct StagedField {
    pub(crate) field: Field,
    pub(crate) dirty: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub(crate) docs: BTreeMap<u32, Doc>,
    pub(crate) dirty_docs: BTreeSet<u32>,
    pub(crate) numbers: BTreeMap<DocumentId, u32>,
    pub(crate) new_numbers: BTreeSet<DocumentId>,
    pub(crate) fields: BTreeMap<(u32, Vec<u8>), StagedField>,
    pub(crate) rows: BTreeMap<(u32, AnnotationId), StagedRow>,
    /// Changes that wait to be put into the log, by document number and local sequence.
    pub(crate) changes: BTreeMap<(u32, u64), Vec<u8>>,
    pub(crate) chains: BTreeMap<(u32, u16, u32), Chain>,
    pub(crate) hashes: BTreeSet<(u32, u64, u16, u32)>,
    pub(crate) events: BTreeMap<(u32, u16, u64), ReadingEvent>,
    pub(crate) texts: BTreeMap<u32, String>,
    /// Notes documents whose journal must be read again before the tables are written.
    pub(crate) stale_texts: BTreeSet<u32>,
    /// Documents whose summary may have changed.
    pub(crate) stale_summaries: BTreeSet<u32>,
    pub(crate) exchange: Staged,
    /// Documents whose history goes.
    pub(crate) gone: Option<crate::purge::Gone>,
}

pub(crate) fn hash_prefix(hash: ChangeHash) -> u64 {
    hash.0.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or_default()
}

impl Stage {
    /// Returns whether nothing waits to be written.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty_docs.is_empty() && self.exchange.is_clean()
    }

    pub(crate) fn number(
        &mut self,
        disk: &Snapshot,
        id: DocumentId,
    ) -> Result<Option<u32>, LoadError> {
        if let Some(number) = self.numbers.get(&id) {
            return Ok(Some(*number));
        }
        let found = disk.number(id)?;
        if let Some(number) = found {
            self.numbers.insert(id, number);
        }
        Ok(found)
    }

    pub(crate) fn doc(&mut self, disk: &Snapshot, number: u32) -> Result<&mut Doc, LoadError> {
        doc_in(&mut self.docs, disk, number)
    }

    pub(crate) fn find_doc(
        &mut self,
        disk: &Snapshot,
        id: DocumentId,
    ) -> Result<Option<&mut Doc>, LoadError> {
        match self.number(disk, id)? {
            Some(number) => self.doc(disk, number).map(Some),
            None => Ok(None),
        }
    }

    /// Makes a document with its genesis. `sequence` is the local sequence of the genesis.
    pub(crate) fn add_doc(
        &mut self,
        disk: &Snapshot,
        doc: Doc,
        sequence: u64,
    ) -> Result<u32, LoadError> {
        let number = doc.number;
        let genesis = catchword_model::genesis::genesis(doc.kind);
        self.numbers.insert(doc.id, number);
        self.new_numbers.insert(doc.id);
        self.docs.insert(number, doc);
        self.apply(disk, number, genesis, sequence)?;
        Ok(number)
    }

    pub(crate) fn field(
        &mut self,
        disk: &Snapshot,
        number: u32,
        key: &[u8],
    ) -> Result<&mut StagedField, LoadError> {
        match self.fields.entry((number, key.to_vec())) {
            Entry::Occupied(held) => Ok(held.into_mut()),
            Entry::Vacant(vacant) => {
                let stored = disk.field(number, key)?;
                let doc = doc_in(&mut self.docs, disk, number)?;
                let field = stored.map(|bytes| decode_field(doc, &bytes)).transpose()?;
                Ok(vacant.insert(StagedField { field: field.unwrap_or_default(), dirty: false }))
            }
        }
    }

    pub(crate) fn row(
        &mut self,
        disk: &Snapshot,
        number: u32,
        id: AnnotationId,
    ) -> Result<&mut StagedRow, LoadError> {
        match self.rows.entry((number, id)) {
            Entry::Occupied(held) => Ok(held.into_mut()),
            Entry::Vacant(vacant) => Ok(vacant.insert(match disk.row(number, id)? {
                Some((sort, bytes)) => {
                    let doc = doc_in(&mut self.docs, disk, number)?;
                    StagedRow::new(decode_row(doc, id, &bytes)?, Some(sort))
                }
                None => StagedRow::new(Row::new(id), None),
            })),
        }
    }

    /// Returns what holds a register of an annotation or of another container.
    pub(crate) fn held(
        &mut self,
        disk: &Snapshot,
        number: u32,
        container: Container,
        key: &str,
    ) -> Result<Field, LoadError> {
        if container == Container::Annotations {
            match record_key(key) {
                Some(RecordKey::Record(id)) => {
                    let row = &self.row(disk, number, id)?.row;
                    return Ok(created_field(row));
                }
                Some(RecordKey::Field(id, field)) => {
                    let row = &self.row(disk, number, id)?.row;
                    return Ok(row.fields.get(field).cloned().unwrap_or_default());
                }
                None => (),
            }
        }
        let key = crate::rows::field_key(container, key);
        Ok(self.field(disk, number, &key)?.field.clone())
    }

    /// Takes a change whose past is here: log, chain and rows. `sequence` is its local sequence.
    ///
    /// The change is admitted already. Its cost depends on the change alone.
    pub(crate) fn apply(
        &mut self,
        disk: &Snapshot,
        number: u32,
        change: &Change,
        sequence: u64,
    ) -> Result<(), LoadError> {
        let clock = self.clock_of_next(disk, number, change)?;
        let doc = self.doc(disk, number)?;
        let head = doc.advance(change)?;
        let kind = doc.kind;
        let clock_before = self.clock_before(disk, number, head.writer, head.seq)?;
        self.chains.insert(
            (number, head.writer, head.seq),
            Chain {
                log: sequence,
                count: 1,
                start_op: change.start_op,
                clock_before,
                clocks: clock.map(|clock| (head.seq, clock)).into_iter().collect(),
            },
        );
        self.hashes.insert((number, hash_prefix(head.hash), head.writer, head.seq));
        self.changes.insert((number, sequence), change.bytes().to_vec());
        self.exchange.arrive(sequence, number);
        self.dirty_docs.insert(number);
        match kind {
            DocumentKind::Book | DocumentKind::Library => self.apply_ops(disk, number, change),
            DocumentKind::Notes => {
                self.texts.remove(&number);
                self.stale_texts.insert(number);
                Ok(())
            }
        }
    }

    fn apply_ops(
        &mut self,
        disk: &Snapshot,
        number: u32,
        change: &Change,
    ) -> Result<(), LoadError> {
        let stamp = Hlc::of_change(change.time);
        for (id, op) in change.ops_with_ids() {
            let Key::Map(key) = &op.key else { continue };
            if KEY_BYTES_MAX < key.len() {
                continue;
            }
            let value = match &op.action {
                Action::Put(value) => Some(value),
                Action::Delete => None,
                Action::MakeMap
                | Action::MakeList
                | Action::MakeText
                | Action::MakeTable
                | Action::Increment(_)
                | Action::Mark { .. } => continue,
            };
            let holder = value.map(|value| Holder { op: id, stamp, value: value.clone() });
            let doc = self.doc(disk, number)?;
            let Some((container, place)) = object_key(doc, op.object, key) else { continue };
            if container == Some(Container::Annotations)
                && let Some(record) = record_key(key)
            {
                self.apply_to_row(disk, number, record, &op.predecessors, holder)?;
                continue;
            }
            let staged = self.field(disk, number, &place)?;
            staged.field.supersede(&op.predecessors);
            if let Some(holder) = holder {
                staged.field.put(holder);
            }
            staged.dirty = true;
            self.stale_summaries.insert(number);
        }
        Ok(())
    }

    fn apply_to_row(
        &mut self,
        disk: &Snapshot,
        number: u32,
        record: RecordKey<'_, AnnotationId>,
        predecessors: &[OpId],
        holder: Option<Holder>,
    ) -> Result<(), LoadError> {
        match record {
            RecordKey::Record(id) => {
                let staged = self.row(disk, number, id)?;
                if let Some(holder) = holder {
                    staged.row.put_created(holder);
                }
                (staged.dirty, staged.moved) = (true, true);
            }
            RecordKey::Field(id, name) => {
                let staged = self.row(disk, number, id)?;
                let field = staged.row.fields.entry(name.to_owned()).or_default();
                field.supersede(predecessors);
                if let Some(holder) = holder {
                    field.put(holder);
                }
                staged.dirty = true;
                staged.moved |= name == AnnotationField::Locator.name();
            }
        }
        Ok(())
    }

    /// Takes a reading event. The number must be the next of its writer. `sequence` is its local
    /// sequence.
    pub(crate) fn apply_event(
        &mut self,
        disk: &Snapshot,
        number: u32,
        event: ReadingEvent,
        sequence: u64,
    ) -> Result<(), LoadError> {
        self.exchange.arrive(sequence, number);
        self.exchange.event_order.insert((number, sequence), (event.actor, event.n));
        let doc = self.doc(disk, number)?;
        let place = doc.writer_place_or_new(event.actor);
        if let Some(writer) = doc.writers.get_mut(usize::from(place)) {
            writer.events = event.n;
            writer.last_event = event.hash();
        }
        doc.summary.events = doc.summary.events.saturating_add(1);
        doc.summary.seconds = doc.summary.seconds.saturating_add(u64::from(event.seconds));
        self.events.insert((number, place, event.n), event);
        self.dirty_docs.insert(number);
        Ok(())
    }

    /// Returns the last chain entry of a writer that begins in the range.
    pub(crate) fn chain(
        &self,
        disk: &Snapshot,
        number: u32,
        writer: u16,
        seqs: std::ops::RangeInclusive<u32>,
    ) -> Result<Option<(u32, Chain)>, LoadError> {
        let keys = (number, writer, *seqs.start())..=(number, writer, *seqs.end());
        if let Some(((_, _, first), chain)) = self.chains.range(keys).next_back() {
            return Ok(Some((*first, chain.clone())));
        }
        disk.chain(number, writer, seqs)
    }

    fn clock_before(
        &self,
        disk: &Snapshot,
        number: u32,
        writer: u16,
        seq: u32,
    ) -> Result<u32, LoadError> {
        let before = self.chain(disk, number, writer, 0..=seq.saturating_sub(1))?;
        Ok(before.map_or(0, |(_, chain)| chain.clock_at(seq.saturating_sub(1))))
    }

    /// Returns what of other writers is in the past of a change that is here.
    pub(crate) fn clock(
        &self,
        disk: &Snapshot,
        number: u32,
        writer: u16,
        seq: u32,
    ) -> Result<Clock, LoadError> {
        let broken = || corrupt(format!("document number {number} has a broken chain"));
        let (_, chain) = self.chain(disk, number, writer, 0..=seq)?.ok_or_else(broken)?;
        let at = chain.clock_at(seq);
        if at == 0 {
            return Ok(Clock::new());
        }
        if let Some(clock) = chain.clock(at) {
            return Ok(clock.clone());
        }
        let (_, chain) = self.chain(disk, number, writer, 0..=at)?.ok_or_else(broken)?;
        chain.clock(at).cloned().ok_or_else(broken)
    }

    /// Returns the clock of a change that is about to be applied, where it must be written.
    fn clock_of_next(
        &mut self,
        disk: &Snapshot,
        number: u32,
        change: &Change,
    ) -> Result<Option<Clock>, LoadError> {
        let doc = self.doc(disk, number)?;
        let own = doc.writer(change.actor).and_then(|writer| writer.last);
        match (change.dependencies.as_slice(), own) {
            ([], None) => return Ok(None),
            ([only], Some(last)) if *only == last.hash => return Ok(None),
            _ => (),
        }
        let writer = doc.writer_place(change.actor);
        let mut clock = Clock::new();
        for hash in &change.dependencies {
            let head = self.find(disk, number, *hash)?;
            let head = head.ok_or_else(|| corrupt(format!("change {hash} is missing")))?;
            for (other, seq) in self.clock(disk, number, head.writer, head.seq)? {
                join(&mut clock, other, seq);
            }
            join(&mut clock, head.writer, head.seq);
        }
        clock.retain(|(other, _)| Some(*other) != writer);
        Ok(Some(clock))
    }

    /// Finds a change of a document by its hash.
    pub(crate) fn find(
        &mut self,
        disk: &Snapshot,
        number: u32,
        hash: ChangeHash,
    ) -> Result<Option<crate::doc::Head>, LoadError> {
        let doc = self.doc(disk, number)?;
        let lasts = doc.writers.iter().filter_map(|writer| writer.last);
        if let Some(head) = lasts.into_iter().find(|head| head.hash == hash) {
            return Ok(Some(head));
        }
        let prefix = hash_prefix(hash);
        let range = (number, prefix, 0, 0)..=(number, prefix, u16::MAX, u32::MAX);
        let mut candidates: Vec<(u16, u32)> =
            self.hashes.range(range.clone()).map(|(_, _, writer, seq)| (*writer, *seq)).collect();
        for found in disk.hashes.range(range).map_err(crate::error::load)? {
            let (key, _) = found.map_err(crate::error::load)?;
            let (_, _, writer, seq) = key.value();
            candidates.push((writer, seq));
        }
        for (writer, seq) in candidates {
            let change = self.change(disk, number, writer, seq)?;
            if change.hash() == hash {
                return Ok(Some(crate::doc::Head { hash, writer, seq, max_op: change.max_op() }));
            }
        }
        Ok(None)
    }

    /// Returns the changes of a document that wait to be put into the log, in the order they came.
    pub(crate) fn waiting(
        &self,
        number: u32,
    ) -> impl Iterator<Item = Result<Change, LoadError>> + '_ {
        let waiting = self.changes.range((number, 0)..=(number, u64::MAX));
        waiting.map(|(_, bytes)| crate::log::read_change(bytes))
    }

    /// Loads one change from what waits or from the log.
    pub(crate) fn change(
        &self,
        disk: &Snapshot,
        number: u32,
        writer: u16,
        seq: u32,
    ) -> Result<Change, LoadError> {
        let missing = || corrupt(format!("document number {number} lacks a change of its chain"));
        let (first, chain) = self.chain(disk, number, writer, 0..=seq)?.ok_or_else(missing)?;
        if let Some(staged) = self.changes.get(&(number, chain.log)) {
            return crate::log::read_change(staged);
        }
        let offset = usize::try_from(seq.saturating_sub(first)).map_err(|_| missing())?;
        let actor = self.docs.get(&number).and_then(|doc| doc.writers.get(usize::from(writer)));
        let change = disk.change(number, chain.log, offset)?.ok_or_else(missing)?;
        // Invariant: the chain says where each change is; a block that says otherwise is damage.
        let named =
            change.seq == u64::from(seq) && actor.is_none_or(|writer| writer.actor == change.actor);
        if named { Ok(change) } else { Err(missing()) }
    }
}

impl Stage {
    /// Forgets what is staged of a document, as if nothing of it had come since the last flush.
    pub(crate) fn forget(&mut self, number: u32) {
        self.docs.remove(&number);
        self.dirty_docs.remove(&number);
        let ids = self.numbers.iter().filter(|(_, of)| **of == number);
        for id in ids.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.numbers.remove(&id);
            self.new_numbers.remove(&id);
        }
        self.fields.retain(|(of, _), _| *of != number);
        self.rows.retain(|(of, _), _| *of != number);
        self.changes.retain(|(of, _), _| *of != number);
        self.chains.retain(|(of, _, _), _| *of != number);
        self.hashes.retain(|(of, _, _, _)| *of != number);
        self.events.retain(|(of, _, _), _| *of != number);
        self.texts.remove(&number);
        self.stale_texts.remove(&number);
        self.stale_summaries.remove(&number);
        self.exchange.forget(number);
    }
}

fn doc_in<'a>(
    docs: &'a mut BTreeMap<u32, Doc>,
    disk: &Snapshot,
    number: u32,
) -> Result<&'a mut Doc, LoadError> {
    match docs.entry(number) {
        Entry::Occupied(held) => Ok(held.into_mut()),
        Entry::Vacant(vacant) => {
            let doc = disk.doc(number)?.ok_or_else(|| missing_doc(number))?;
            Ok(vacant.insert(doc))
        }
    }
}

/// Returns whether a list counts the annotation.
pub(crate) fn is_counted(row: &Row) -> bool {
    row.creation().is_some() && !row.is_deleted()
}

/// The creation as a register: only its operations matter, since it is never written again.
fn created_field(row: &Row) -> Field {
    let holders = row.created.iter().map(|created| Holder {
        op: created.op,
        stamp: created.stamp,
        value: catchword_model::change::Scalar::Null,
    });
    Field::from_holders(holders.collect())
}

fn missing_doc(number: u32) -> LoadError {
    corrupt(format!("document number {number} is missing"))
}

//! Writing what is staged into `library`: rows, log and lists in one transaction, sorted by key.
//!
//! Invariant: every commit of `library` is made with quick-repair, so that the file opens at once after
//! a kill, whatever its size.

use catchword_model::exchange::Sum;
use catchword_model::hlc::Hlc;
use catchword_model::meta::meta;
use catchword_model::position::{self, Entry, entries, furthest};
use catchword_model::schema::{Container, DocumentKind};
use redb::{Database, WriteTransaction};

use crate::error::{LoadError, load};
use crate::exchange::item_of;
use crate::log::change_record;
use crate::rows::{encode_field, encode_row, field_key, field_text, full_key, id_key, row_key};
use crate::snapshot::Snapshot;
use crate::stage::{Stage, is_counted};
use crate::tables;

/// What the transaction records beside the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// The greatest record of `wal` whose rows are durable after this transaction.
    pub(crate) drained: u64,
    pub(crate) next_sequence: u64,
    pub(crate) clock: Hlc,
}

/// Begins a transaction of `library`, durable and quickly repaired.
pub(crate) fn begin(library: &Database) -> Result<WriteTransaction, LoadError> {
    let mut write = library.begin_write().map_err(load)?;
    write.set_quick_repair(true);
    Ok(write)
}

/// Brings what lists show up to date, from rows and fields.
pub(crate) fn summarize(stage: &mut Stage, disk: &Snapshot) -> Result<(), LoadError> {
    for number in std::mem::take(&mut stage.stale_summaries) {
        if stage.doc(disk, number)?.kind != DocumentKind::Book {
            continue;
        }
        let title = stage.field(disk, number, &field_key(Container::Meta, "title"))?;
        let title = meta(&title.field).and_then(|meta| Some(meta.value.as_str()?.to_owned()));
        let entries = all_entries(stage, disk, number)?;
        let place = position::place(&entries);
        let (ppm, wall_ms) =
            place.map_or((None, 0), |place| (Some(place.position.ppm), place.position.wall_ms));
        let pass = position::highest_pass(&entries);
        let furthest_ppm = furthest_point(stage, disk, number, pass)?.map(|point| point.ppm);
        let standing = entries.iter().filter(|entry| entry.stands());
        let last_read = standing.map(Entry::stamp).max().unwrap_or(Hlc::ZERO);
        let summary = &mut stage.doc(disk, number)?.summary;
        summary.title = title.unwrap_or_default();
        (summary.ppm, summary.wall_ms) = (ppm, wall_ms);
        (summary.furthest_ppm, summary.last_read) = (furthest_ppm, last_read);
    }
    Ok(())
}

/// Returns the positions of every device, with what decides about them.
pub(crate) fn all_entries(
    stage: &mut Stage,
    disk: &Snapshot,
    number: u32,
) -> Result<Vec<Entry>, LoadError> {
    let mut found = Vec::new();
    for (key, field) in stage.container(disk, number, Container::Positions)? {
        let Ok(device) = key.parse() else { continue };
        let mark = stage.field(disk, number, &field_key(Container::Withdrawn, &key))?;
        found.extend(entries(device, &field, &mark.field));
    }
    Ok(found)
}

/// Returns the furthest point of a pass over all devices.
pub(crate) fn furthest_point(
    stage: &mut Stage,
    disk: &Snapshot,
    number: u32,
    pass: u32,
) -> Result<Option<position::Furthest>, LoadError> {
    let fields = stage.container(disk, number, Container::Furthest)?;
    Ok(furthest(pass, fields.iter().map(|(key, field)| (key.as_str(), field))))
}

/// Writes everything staged and commits. The stage keeps what it knows of documents.
pub(crate) fn flush(
    library: &Database,
    stage: &mut Stage,
    disk: Snapshot,
    marks: Marks,
) -> Result<(), LoadError> {
    summarize(stage, &disk)?;
    count_annotations(stage, &disk)?;
    let before = Before::of(stage, &disk)?;
    drop(disk);
    let write = begin(library)?;
    if let Some(gone) = &stage.gone {
        gone.write(&write)?;
    }
    write_rows(&write, stage)?;
    write_fields(&write, stage)?;
    write_log(&write, stage)?;
    write_docs(&write, stage, &before)?;
    write_marks(&write, marks)?;
    stage.exchange.write(&write)?;
    write.commit().map_err(load)?;
    stage.forget_written();
    Ok(())
}

/// Brings the numbers of annotations up to date. Counting again changes nothing.
pub(crate) fn count_annotations(stage: &mut Stage, disk: &Snapshot) -> Result<(), LoadError> {
    let mut counts: std::collections::BTreeMap<u32, i64> = std::collections::BTreeMap::new();
    for ((number, _), staged) in stage.rows.iter_mut().filter(|(_, staged)| staged.dirty) {
        let counts_now = is_counted(&staged.row);
        let change = i64::from(counts_now) - i64::from(staged.counted);
        staged.counted = counts_now;
        *counts.entry(*number).or_default() += change;
    }
    for (number, change) in counts {
        let summary = &mut stage.doc(disk, number)?.summary;
        summary.annotations = summary.annotations.saturating_add_signed(change);
    }
    Ok(())
}

/// What the tables say of the documents that will change.
struct Before {
    /// Where they stand in `recent`.
    recents: Vec<(u32, Hlc)>,
    /// The sum of the items of all documents, without those that will change.
    sum: Option<Sum>,
}

impl Before {
    fn of(stage: &Stage, disk: &Snapshot) -> Result<Self, LoadError> {
        let mut before = Self { recents: Vec::new(), sum: disk.kept_sum()? };
        if let (Some(gone), Some(sum)) = (&stage.gone, &mut before.sum) {
            gone.subtract_from(sum);
        }
        for number in &stage.dirty_docs {
            let Some(doc) = disk.doc(*number)? else { continue };
            before.recents.push((*number, doc.summary.last_read));
            if let (Some(sum), Some(item)) = (&mut before.sum, item_of(&doc)) {
                sum.subtract(&item);
            }
        }
        Ok(before)
    }
}

fn write_rows(write: &WriteTransaction, stage: &Stage) -> Result<(), LoadError> {
    let mut ids = write.open_table(tables::IDS).map_err(load)?;
    let mut sorted = Vec::new();
    for ((number, id), staged) in stage.rows.iter().filter(|(_, staged)| staged.dirty) {
        let Some(doc) = stage.docs.get(number) else { continue };
        let sort = staged.sort_key();
        if staged.stored != Some(sort) {
            let key = id_key(*number, *id);
            ids.insert(&key, sort.as_bytes()).map_err(load)?;
            let old = staged.stored.map(|old| row_key(*number, &old, *id));
            sorted.extend(old.map(|key| (key, None)));
        }
        sorted.push((row_key(*number, &sort, *id), Some(encode_row(doc, &staged.row)?)));
    }
    sorted.sort_unstable();
    let mut rows = write.open_table(tables::ROWS).map_err(load)?;
    for (key, value) in sorted {
        match value {
            Some(value) => rows.insert(key.as_slice(), value.as_slice()),
            None => rows.remove(key.as_slice()),
        }
        .map_err(load)?;
    }
    Ok(())
}

fn write_fields(write: &WriteTransaction, stage: &Stage) -> Result<(), LoadError> {
    let mut fields = write.open_table(tables::FIELDS).map_err(load)?;
    for ((number, key), staged) in stage.fields.iter().filter(|(_, staged)| staged.dirty) {
        let Some(doc) = stage.docs.get(number) else { continue };
        let key = full_key(*number, key);
        if staged.field.is_empty() {
            fields.remove(key.as_slice()).map_err(load)?;
        } else {
            let value = encode_field(doc, &staged.field)?;
            fields.insert(key.as_slice(), value.as_slice()).map_err(load)?;
        }
    }
    Ok(())
}

fn write_log(write: &WriteTransaction, stage: &Stage) -> Result<(), LoadError> {
    let mut log = write.open_table(tables::LOG).map_err(load)?;
    for (key, bytes) in &stage.changes {
        log.insert(*key, change_record(bytes).as_slice()).map_err(load)?;
    }
    let mut chains = write.open_table(tables::CHAINS).map_err(load)?;
    for (key, chain) in &stage.chains {
        chains.insert(*key, chain.encode().as_slice()).map_err(load)?;
    }
    let mut hashes = write.open_table(tables::HASHES).map_err(load)?;
    for key in &stage.hashes {
        hashes.insert(*key, ()).map_err(load)?;
    }
    let mut events = write.open_table(tables::EVENTS).map_err(load)?;
    for (key, event) in &stage.events {
        events.insert(*key, event.encode().as_slice()).map_err(load)?;
    }
    let mut texts = write.open_table(tables::TEXTS).map_err(load)?;
    for (number, text) in &stage.texts {
        texts.insert(*number, text.as_str()).map_err(load)?;
    }
    Ok(())
}

fn write_docs(write: &WriteTransaction, stage: &Stage, before: &Before) -> Result<(), LoadError> {
    let mut ids = write.open_table(tables::BOOK_IDS).map_err(load)?;
    for id in &stage.new_numbers {
        if let Some(number) = stage.numbers.get(id) {
            ids.insert(&id.0, *number).map_err(load)?;
        }
    }
    let mut books = write.open_table(tables::BOOKS).map_err(load)?;
    let mut recent = write.open_table(tables::RECENT).map_err(load)?;
    let mut sum = before.sum;
    for number in &stage.dirty_docs {
        let Some(doc) = stage.docs.get(number) else { continue };
        if let (Some(sum), Some(item)) = (&mut sum, item_of(doc)) {
            sum.add(&item);
        }
        books.insert(*number, doc.encode().as_slice()).map_err(load)?;
        let now = doc.summary.last_read;
        let before = before.recents.iter().find(|(of, _)| of == number).map(|(_, stamp)| *stamp);
        if doc.kind != DocumentKind::Book || before == Some(now) {
            continue;
        }
        if let Some(before) = before {
            recent.remove((before.packed(), *number)).map_err(load)?;
        }
        recent.insert((now.packed(), *number), ()).map_err(load)?;
    }
    if let Some(sum) = sum.filter(|_| !stage.dirty_docs.is_empty() || stage.gone.is_some()) {
        let mut meta = write.open_table(tables::META).map_err(load)?;
        meta.insert(crate::meta::SUM, sum.0.as_slice()).map_err(load)?;
    }
    Ok(())
}

fn write_marks(write: &WriteTransaction, marks: Marks) -> Result<(), LoadError> {
    let mut meta = write.open_table(tables::META).map_err(load)?;
    let numbers = [
        (crate::meta::DRAINED, marks.drained),
        (crate::meta::NEXT_SEQUENCE, marks.next_sequence),
        (crate::meta::CLOCK, marks.clock.packed()),
    ];
    for (name, value) in numbers {
        meta.insert(name, value.to_be_bytes().as_slice()).map_err(load)?;
    }
    Ok(())
}

impl Stage {
    /// Returns every key of a container that something holds, with its field.
    pub(crate) fn container(
        &mut self,
        disk: &Snapshot,
        number: u32,
        container: Container,
    ) -> Result<Vec<(String, catchword_model::merge::Field)>, LoadError> {
        let (start, end) = (vec![container.code()], vec![container.code() + 1]);
        let full = full_key(number, &start)..full_key(number, &end);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for found in disk.fields.range(full.start.as_slice()..full.end.as_slice()).map_err(load)? {
            let (key, _) = found.map_err(load)?;
            keys.push(key.value().iter().skip(4).copied().collect());
        }
        let staged = self.fields.range((number, start)..(number, end));
        keys.extend(staged.map(|((_, key), _)| key.clone()));
        keys.sort_unstable();
        keys.dedup();
        let mut fields = Vec::with_capacity(keys.len());
        for key in keys {
            let Some((_, text)) = field_text(&key) else { continue };
            let text = text.to_owned();
            let field = self.field(disk, number, &key)?.field.clone();
            if !field.is_empty() {
                fields.push((text, field));
            }
        }
        Ok(fields)
    }

    /// Drops what the tables now say. What is known of documents stays, within bounds.
    fn forget_written(&mut self) {
        let docs = std::mem::take(&mut self.docs);
        let numbers = std::mem::take(&mut self.numbers);
        *self = Self::default();
        if docs.len() <= DOCS_KEPT_MAX {
            (self.docs, self.numbers) = (docs, numbers);
        }
    }
}

/// Documents that are kept in memory after they were written.
const DOCS_KEPT_MAX: usize = 256;

//! Replacing what differs from the log by what the log says.

use std::collections::BTreeSet;

use redb::WriteTransaction;

use crate::Inner;
use crate::chain::Chain;
use crate::check::{Check, FIRST_ID, Named};
use crate::doc::Doc;
use crate::error::{LoadError, corrupt, load};
use crate::log::{is_block, read_record};
use crate::progress::{Progress, Step};
use crate::rows::id_key;
use crate::snapshot::Snapshot;
use crate::tables;

impl Check<'_> {
    /// Replaces every document that differs, each in one transaction, then the lists of all of them.
    pub(super) fn repair(&mut self, inner: &mut Inner) -> Result<(), LoadError> {
        let wrong: Vec<u32> = self.wrong.difference(&self.broken).copied().collect();
        let total = wrong.len() as u64;
        for (done, number) in (1..).zip(wrong) {
            self.replace(inner, number)?;
            self.report.repaired += 1;
            // What is repaired stays so, whether or not the rest is.
            let _ = (self.progress)(Progress { step: Step::Rebuilding, done, total });
        }
        if self.lists_differ || 0 < total {
            self.replace_lists(inner)?;
        }
        // What is known of documents was read from the tables that were replaced.
        inner.reload()
    }

    fn replace(&self, inner: &mut Inner, number: u32) -> Result<(), LoadError> {
        let built = self.rebuilt.disk()?;
        let doc = built.doc(number)?.ok_or_else(|| corrupt("a rebuilt document is gone"))?;
        let stored = self.disk.doc(number).ok().flatten();
        let journal = match doc.kind {
            catchword_model::schema::DocumentKind::Notes => {
                self.journal(&Named { id: doc.id, number, stored: None })?
            }
            catchword_model::schema::DocumentKind::Book
            | catchword_model::schema::DocumentKind::Library => None,
        };
        inner.write_meta(|write| {
            replace_rows(write, built, number)?;
            replace_fields(write, built, number)?;
            replace_hashes(write, built, number)?;
            replace_chains(write, self.disk, built, &doc)?;
            if stored.is_none_or(|stored| actors(&stored) != actors(&doc)) {
                replace_writers(write, built, number)?;
            }
            if let Some(journal) = journal {
                let mut texts = write.open_table(tables::TEXTS).map_err(load)?;
                texts.insert(number, journal.as_str()).map_err(load)?;
            }
            let mut ids = write.open_table(tables::BOOK_IDS).map_err(load)?;
            ids.insert(&doc.id.0, number).map_err(load)?;
            let mut books = write.open_table(tables::BOOKS).map_err(load)?;
            books.insert(number, doc.encode().as_slice()).map_err(load)?;
            Ok(())
        })
    }

    fn replace_lists(&self, inner: &mut Inner) -> Result<(), LoadError> {
        let recent = self.recent()?;
        let built = self.rebuilt.disk()?;
        let next = self.disk.meta_number(crate::meta::NEXT_SEQUENCE)?.max(self.last_sequence + 1);
        inner.next_sequence = inner.next_sequence.max(next);
        inner.write_meta(|write| {
            let mut table = write.open_table(tables::RECENT).map_err(load)?;
            table.retain(|_, ()| false).map_err(load)?;
            for key in &recent {
                table.insert(*key, ()).map_err(load)?;
            }
            let mut ids = write.open_table(tables::BOOK_IDS).map_err(load)?;
            for found in built.book_ids.range::<&[u8; 32]>(..).map_err(load)? {
                let (id, number) = found.map_err(load)?;
                ids.insert(id.value(), number.value()).map_err(load)?;
            }
            let mut meta = write.open_table(tables::META).map_err(load)?;
            // It is built again when it is next asked for.
            meta.remove(crate::meta::SUM).map_err(load)?;
            let next = next.to_be_bytes();
            meta.insert(crate::meta::NEXT_SEQUENCE, next.as_slice()).map_err(load)?;
            Ok(())
        })
    }
}

fn actors(doc: &Doc) -> Vec<catchword_model::id::ActorId> {
    doc.writers.iter().map(|writer| writer.actor).collect()
}

fn replace_rows(write: &WriteTransaction, built: &Snapshot, number: u32) -> Result<(), LoadError> {
    let (start, end) = (number.to_be_bytes(), number.saturating_add(1).to_be_bytes());
    let mut rows = write.open_table(tables::ROWS).map_err(load)?;
    rows.retain_in(start.as_slice()..end.as_slice(), |_, _| false).map_err(load)?;
    for found in built.rows.range(start.as_slice()..end.as_slice()).map_err(load)? {
        let (key, value) = found.map_err(load)?;
        rows.insert(key.value(), value.value()).map_err(load)?;
    }
    let (start, end) = (id_key(number, FIRST_ID), id_key(number.saturating_add(1), FIRST_ID));
    let mut ids = write.open_table(tables::IDS).map_err(load)?;
    ids.retain_in::<&[u8; 20], _>(&start..&end, |_, _| false).map_err(load)?;
    for found in built.ids.range::<&[u8; 20]>(&start..&end).map_err(load)? {
        let (key, value) = found.map_err(load)?;
        ids.insert(key.value(), value.value()).map_err(load)?;
    }
    Ok(())
}

fn replace_fields(
    write: &WriteTransaction,
    built: &Snapshot,
    number: u32,
) -> Result<(), LoadError> {
    let (start, end) = (number.to_be_bytes(), number.saturating_add(1).to_be_bytes());
    let mut fields = write.open_table(tables::FIELDS).map_err(load)?;
    fields.retain_in(start.as_slice()..end.as_slice(), |_, _| false).map_err(load)?;
    for found in built.fields.range(start.as_slice()..end.as_slice()).map_err(load)? {
        let (key, value) = found.map_err(load)?;
        fields.insert(key.value(), value.value()).map_err(load)?;
    }
    Ok(())
}

fn replace_hashes(
    write: &WriteTransaction,
    built: &Snapshot,
    number: u32,
) -> Result<(), LoadError> {
    let range = || (number, 0, 0, 0)..(number.saturating_add(1), 0, 0, 0);
    let mut hashes = write.open_table(tables::HASHES).map_err(load)?;
    hashes.retain_in(range(), |_, ()| false).map_err(load)?;
    for found in built.hashes.range(range()).map_err(load)? {
        let (key, _) = found.map_err(load)?;
        hashes.insert(key.value(), ()).map_err(load)?;
    }
    Ok(())
}

/// Writes one entry for each record of the log. What was built has one for each change, with its clock.
fn replace_chains(
    write: &WriteTransaction,
    disk: &Snapshot,
    built: &Snapshot,
    doc: &Doc,
) -> Result<(), LoadError> {
    let number = doc.number;
    let mut chains = write.open_table(tables::CHAINS).map_err(load)?;
    chains
        .retain_in((number, 0, 0)..(number.saturating_add(1), 0, 0), |_, _| false)
        .map_err(load)?;
    // Blocks first, the later before the earlier: what a block contains may also stand alone, or in a
    // smaller block before it, after a compaction that was cut off.
    let mut in_blocks: BTreeSet<u64> = BTreeSet::new();
    for blocks in [true, false] {
        for found in disk.log.range((number, 0)..=(number, u64::MAX)).map_err(load)?.rev() {
            let (key, record) = found.map_err(load)?;
            let (log, record) = (key.value().1, record.value());
            if is_block(record) != blocks || in_blocks.contains(&log) {
                continue;
            }
            let changes = read_record(log, record)?;
            if blocks {
                in_blocks.extend(changes.iter().map(|(sequence, _)| *sequence));
            }
            let Some((_, first)) = changes.first() else { continue };
            let place = doc.writer_place(first.actor);
            let place = place.ok_or_else(|| corrupt("a change of nobody"))?;
            let first = u32::try_from(first.seq).map_err(|_| corrupt("a number is too large"))?;
            let count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
            let chain = joined(built, number, place, first, count, log)?;
            chains.insert((number, place, first), chain.encode().as_slice()).map_err(load)?;
        }
    }
    Ok(())
}

fn joined(
    built: &Snapshot,
    number: u32,
    writer: u16,
    first: u32,
    count: u32,
    log: u64,
) -> Result<Chain, LoadError> {
    let missing = || corrupt("a rebuilt chain lacks a change");
    let (_, begin) = built.chain(number, writer, first..=first)?.ok_or_else(missing)?;
    let mut clocks = Vec::new();
    for seq in first..first.saturating_add(count) {
        let (_, chain) = built.chain(number, writer, seq..=seq)?.ok_or_else(missing)?;
        clocks.extend(chain.clocks);
    }
    let (start_op, clock_before) = (begin.start_op, begin.clock_before);
    Ok(Chain { log, count, start_op, clock_before, clocks })
}

/// Writers stand in another order than before: what is kept by their place is written anew, and
/// statements, which backups sign again, go.
fn replace_writers(
    write: &WriteTransaction,
    built: &Snapshot,
    number: u32,
) -> Result<(), LoadError> {
    let range = || (number, 0, 0)..(number.saturating_add(1), 0, 0);
    let mut events = write.open_table(tables::EVENTS).map_err(load)?;
    events.retain_in(range(), |_, _| false).map_err(load)?;
    for found in built.events.range(range()).map_err(load)? {
        let (key, value) = found.map_err(load)?;
        events.insert(key.value(), value.value()).map_err(load)?;
    }
    let mut statements = write.open_table(tables::STATEMENTS).map_err(load)?;
    let range = (number, 0, 0, 0)..(number.saturating_add(1), 0, 0, 0);
    statements.retain_in(range, |_, _| false).map_err(load)
}

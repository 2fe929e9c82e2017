//! The tables of `library` as they were at the last commit, open for reading.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use catchword_model::change::Change;
use catchword_model::id::{AnnotationId, ChangeHash, DocumentId};
use catchword_model::locator::SortKey;
use redb::{Database, ReadOnlyTable, ReadableDatabase};

use crate::chain::Chain;
use crate::doc::Doc;
use crate::error::{LoadError, load};
use crate::log::{is_block, read_record};
use crate::rows::{full_key, id_key, row_key};
use crate::tables;

pub(crate) struct Snapshot {
    pub(crate) meta: ReadOnlyTable<&'static str, &'static [u8]>,
    pub(crate) book_ids: ReadOnlyTable<&'static [u8; 32], u32>,
    pub(crate) books: ReadOnlyTable<u32, &'static [u8]>,
    pub(crate) rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) ids: ReadOnlyTable<&'static [u8; 20], &'static [u8]>,
    pub(crate) fields: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) log: ReadOnlyTable<(u32, u64), &'static [u8]>,
    pub(crate) chains: ReadOnlyTable<(u32, u16, u32), &'static [u8]>,
    pub(crate) hashes: ReadOnlyTable<(u32, u64, u16, u32), ()>,
    pub(crate) recent: ReadOnlyTable<(u64, u32), ()>,
    pub(crate) events: ReadOnlyTable<(u32, u16, u64), &'static [u8]>,
    pub(crate) texts: ReadOnlyTable<u32, &'static str>,
    pub(crate) removed: ReadOnlyTable<u32, u64>,
    pub(crate) files: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pub(crate) peers: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pub(crate) statements: ReadOnlyTable<(u32, u8, u16, u64), &'static [u8]>,
    pub(crate) received: ReadOnlyTable<u64, &'static [u8]>,
    pub(crate) event_order: ReadOnlyTable<(u32, u64), &'static [u8]>,
    pub(crate) parked: ReadOnlyTable<(&'static [u8; 32], u64), &'static [u8]>,
    pub(crate) peer_marks: ReadOnlyTable<&'static [u8; 48], &'static [u8]>,
    pub(crate) cloud: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pub(crate) paused: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pub(crate) quarantine: ReadOnlyTable<&'static [u8; 64], &'static [u8]>,
    pub(crate) void: ReadOnlyTable<(&'static [u8; 32], &'static [u8; 32]), &'static [u8]>,
    last_record: RefCell<Option<LastRecord>>,
}

/// The block of the log that was read last, unpacked, by document number and local sequence.
type LastRecord = ((u32, u64), Vec<(u64, Change)>);

impl Snapshot {
    pub(crate) fn take(library: &Database) -> Result<Self, LoadError> {
        let read = library.begin_read().map_err(load)?;
        Ok(Self {
            meta: read.open_table(tables::META).map_err(load)?,
            book_ids: read.open_table(tables::BOOK_IDS).map_err(load)?,
            books: read.open_table(tables::BOOKS).map_err(load)?,
            rows: read.open_table(tables::ROWS).map_err(load)?,
            ids: read.open_table(tables::IDS).map_err(load)?,
            fields: read.open_table(tables::FIELDS).map_err(load)?,
            log: read.open_table(tables::LOG).map_err(load)?,
            chains: read.open_table(tables::CHAINS).map_err(load)?,
            hashes: read.open_table(tables::HASHES).map_err(load)?,
            recent: read.open_table(tables::RECENT).map_err(load)?,
            events: read.open_table(tables::EVENTS).map_err(load)?,
            texts: read.open_table(tables::TEXTS).map_err(load)?,
            removed: read.open_table(tables::REMOVED).map_err(load)?,
            files: read.open_table(tables::FILES).map_err(load)?,
            peers: read.open_table(tables::PEERS).map_err(load)?,
            statements: read.open_table(tables::STATEMENTS).map_err(load)?,
            received: read.open_table(tables::RECEIVED).map_err(load)?,
            event_order: read.open_table(tables::EVENT_ORDER).map_err(load)?,
            parked: read.open_table(tables::PARKED).map_err(load)?,
            peer_marks: read.open_table(tables::PEER_MARKS).map_err(load)?,
            paused: read.open_table(tables::PAUSED).map_err(load)?,
            quarantine: read.open_table(tables::QUARANTINE).map_err(load)?,
            cloud: read.open_table(tables::CLOUD).map_err(load)?,
            void: read.open_table(tables::VOID).map_err(load)?,
            last_record: RefCell::new(None),
        })
    }

    pub(crate) fn number(&self, id: DocumentId) -> Result<Option<u32>, LoadError> {
        Ok(self.book_ids.get(&id.0).map_err(load)?.map(|number| number.value()))
    }

    pub(crate) fn doc(&self, number: u32) -> Result<Option<Doc>, LoadError> {
        let found = self.books.get(number).map_err(load)?;
        found.map(|bytes| Doc::decode(number, bytes.value())).transpose()
    }

    pub(crate) fn field(&self, number: u32, key: &[u8]) -> Result<Option<Vec<u8>>, LoadError> {
        let found = self.fields.get(full_key(number, key).as_slice()).map_err(load)?;
        Ok(found.map(|bytes| bytes.value().to_vec()))
    }

    /// Returns where an annotation stands, and its row.
    pub(crate) fn row(
        &self,
        number: u32,
        id: AnnotationId,
    ) -> Result<Option<(SortKey, Vec<u8>)>, LoadError> {
        let Some(sort) = self.ids.get(&id_key(number, id)).map_err(load)? else { return Ok(None) };
        let missing = || crate::error::corrupt(format!("annotation {id} has no row"));
        let sort = SortKey::from_bytes(sort.value()).ok_or_else(missing)?;
        let row = self.rows.get(row_key(number, &sort, id).as_slice()).map_err(load)?;
        let row = row.ok_or_else(missing)?;
        Ok(Some((sort, row.value().to_vec())))
    }

    /// Returns the last entry of a writer that begins in the range.
    pub(crate) fn chain(
        &self,
        number: u32,
        writer: u16,
        seqs: RangeInclusive<u32>,
    ) -> Result<Option<(u32, Chain)>, LoadError> {
        let keys = (number, writer, *seqs.start())..=(number, writer, *seqs.end());
        let Some(last) = self.chains.range(keys).map_err(load)?.next_back() else {
            return Ok(None);
        };
        let (key, value) = last.map_err(load)?;
        Ok(Some((key.value().2, Chain::decode(value.value())?)))
    }

    pub(crate) fn record(&self, number: u32, log: u64) -> Result<Option<Vec<u8>>, LoadError> {
        let found = self.log.get((number, log)).map_err(load)?;
        Ok(found.map(|bytes| bytes.value().to_vec()))
    }

    /// Returns the hash of a writer's change.
    pub(crate) fn hash_at(
        &self,
        doc: &Doc,
        writer: u16,
        seq: u32,
    ) -> Result<ChangeHash, LoadError> {
        if let Some(last) = doc.writer_at(writer)?.last
            && last.seq == seq
        {
            return Ok(last.hash);
        }
        let missing = || crate::error::corrupt(format!("document {} lacks a change", doc.id));
        let (first, chain) = self.chain(doc.number, writer, 0..=seq)?.ok_or_else(missing)?;
        let offset = usize::try_from(seq.saturating_sub(first)).map_err(|_| missing())?;
        Ok(self.change(doc.number, chain.log, offset)?.ok_or_else(missing)?.hash())
    }

    /// Returns one change of a record of the log. The block read last is kept unpacked.
    pub(crate) fn change(
        &self,
        number: u32,
        log: u64,
        offset: usize,
    ) -> Result<Option<Change>, LoadError> {
        let mut last = self.last_record.borrow_mut();
        if let Some((key, changes)) = last.as_ref()
            && *key == (number, log)
        {
            return Ok(changes.get(offset).map(|(_, change)| change.clone()));
        }
        let Some(record) = self.record(number, log)? else { return Ok(None) };
        let changes = read_record(log, &record)?;
        let change = changes.get(offset).map(|(_, change)| change.clone());
        if is_block(&record) {
            *last = Some(((number, log), changes));
        }
        Ok(change)
    }
}

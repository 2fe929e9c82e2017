//! `wal`: what is acknowledged and not yet in the rows, and the page turns not yet published.
//!
//! # Invariants
//!
//! 1. A local write is acknowledged by one commit here, and by nothing else.
//! 2. A record is removed only in a later commit than the one that made its rows durable.

use std::collections::BTreeMap;

use catchword_model::change::Change;
use catchword_model::event::ReadingEvent;
use catchword_model::hlc::Hlc;
use catchword_model::id::DocumentId;
use catchword_model::locator::Locator;
use catchword_model::position::Intent;
use redb::{Database, ReadableDatabase, ReadableTable};

use crate::bytes::{Reader, Writer};
use crate::error::{LoadError, corrupt, load};
use crate::log::read_change;
use crate::tables;

const RECORD_CHANGE: u8 = 1;
const RECORD_EVENT: u8 = 2;

/// What was written locally, in the order of local sequences.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    Change(DocumentId, Box<Change>),
    Event(DocumentId, Box<ReadingEvent>),
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(320);
        match self {
            Self::Change(id, change) => {
                out.byte(RECORD_CHANGE).fixed(&id.0).fixed(change.bytes());
            }
            Self::Event(id, event) => {
                out.byte(RECORD_EVENT).fixed(&id.0).fixed(&event.encode());
            }
        }
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let tag = input.byte()?;
        let id = DocumentId(input.fixed()?);
        match tag {
            RECORD_CHANGE => Ok(Self::Change(id, Box::new(read_change(input.0)?))),
            RECORD_EVENT => {
                let event = ReadingEvent::decode(input.0);
                let event = event.map_err(|_| corrupt("a reading event does not read"))?;
                Ok(Self::Event(id, Box::new(event)))
            }
            _ => Err(corrupt(format!("a record of type {tag} waits"))),
        }
    }
}

/// The page turns of one book since this device's last published position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pending {
    pub(crate) locator: Locator,
    pub(crate) ppm: u32,
    pub(crate) pass: u32,
    pub(crate) intent: Intent,
    /// The stamp of the last turn; its change carries it, whenever it is made.
    pub(crate) stamp: Hlc,
    pub(crate) wall_ms: u64,
    pub(crate) seen: Hlc,
    /// Where reading began.
    pub(crate) from_ppm: u32,
    /// The pass's greatest point among these turns.
    pub(crate) furthest: Locator,
    pub(crate) furthest_ppm: u32,
    pub(crate) seconds: u32,
    pub(crate) turns: u32,
}

impl Pending {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(160);
        let intent = Intent::ALL.iter().position(|intent| *intent == self.intent);
        out.text(self.locator.as_json()).number(u64::from(self.ppm)).number(u64::from(self.pass));
        out.len(intent.unwrap_or_default()).number(self.stamp.packed()).number(self.wall_ms);
        out.number(self.seen.packed()).number(u64::from(self.from_ppm));
        out.text(self.furthest.as_json()).number(u64::from(self.furthest_ppm));
        out.number(u64::from(self.seconds)).number(u64::from(self.turns));
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let stamp = |packed| Hlc::from_packed(packed).ok_or_else(|| corrupt("a stamp of a turn"));
        let locator = Locator::stored(input.text()?.to_owned());
        let (ppm, pass) = (input.small()?, input.small()?);
        let intent = Intent::ALL.get(input.small::<usize>()?).copied();
        Ok(Self {
            locator,
            ppm,
            pass,
            intent: intent.ok_or_else(|| corrupt("an intent of a turn"))?,
            stamp: stamp(input.number()?)?,
            wall_ms: input.number()?,
            seen: stamp(input.number()?)?,
            from_ppm: input.small()?,
            furthest: Locator::stored(input.text()?.to_owned()),
            furthest_ppm: input.small()?,
            seconds: input.small()?,
            turns: input.small()?,
        })
    }
}

/// What one commit of `wal` does.
#[derive(Debug, Default)]
pub(crate) struct WalCommit<'a> {
    /// Records that wait, with their local sequences.
    pub(crate) records: &'a [(u64, Record)],
    /// Books whose turns change: the new ones, or `None` where they are published.
    pub(crate) pending: Vec<(u32, Option<Pending>)>,
    /// Records up to this one are in the rows and go.
    pub(crate) drained: u64,
}

/// What `wal` held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) records: Vec<(u64, Record)>,
    pub(crate) pending: BTreeMap<u32, Pending>,
    /// The greatest record there is, drained or not.
    pub(crate) last: u64,
}

/// Makes the commit durable: one sync of the disk.
pub(crate) fn commit(wal: &Database, commit: &WalCommit<'_>) -> Result<(), LoadError> {
    let write = wal.begin_write().map_err(load)?;
    {
        let mut tail = write.open_table(tables::TAIL).map_err(load)?;
        if 0 < commit.drained {
            tail.retain_in(..=commit.drained, |_, _| false).map_err(load)?;
        }
        for (sequence, record) in commit.records {
            tail.insert(*sequence, record.encode().as_slice()).map_err(load)?;
        }
    }
    if !commit.pending.is_empty() {
        let mut pending = write.open_table(tables::PENDING).map_err(load)?;
        for (number, turns) in &commit.pending {
            match turns {
                Some(turns) => pending.insert(*number, turns.encode().as_slice()),
                None => pending.remove(*number),
            }
            .map_err(load)?;
        }
    }
    write.commit().map_err(load)
}

/// Reads what waits above the last drained record.
pub(crate) fn waiting(wal: &Database, drained: u64) -> Result<Waiting, LoadError> {
    let read = wal.begin_read().map_err(load)?;
    let mut waiting = Waiting::default();
    let tail = read.open_table(tables::TAIL).map_err(load)?;
    for found in tail.range(drained + 1..).map_err(load)? {
        let (sequence, record) = found.map_err(load)?;
        waiting.records.push((sequence.value(), Record::decode(record.value())?));
    }
    if let Some((last, _)) = tail.last().map_err(load)? {
        waiting.last = last.value();
    }
    let pending = read.open_table(tables::PENDING).map_err(load)?;
    for found in pending.iter().map_err(load)? {
        let (number, turns) = found.map_err(load)?;
        waiting.pending.insert(number.value(), Pending::decode(turns.value())?);
    }
    Ok(waiting)
}

/// Returns the random id of the file, if it has one.
pub(crate) fn id(wal: &Database) -> Result<Option<Vec<u8>>, LoadError> {
    let read = wal.begin_read().map_err(load)?;
    let meta = match read.open_table(tables::WAL_META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(load(error)),
    };
    Ok(meta.get(crate::meta::WAL_ID).map_err(load)?.map(|id| id.value().to_vec()))
}

/// Empties the file, makes its tables and names it anew.
pub(crate) fn claim(wal: &Database, id: &[u8]) -> Result<(), LoadError> {
    let write = wal.begin_write().map_err(load)?;
    {
        let mut tail = write.open_table(tables::TAIL).map_err(load)?;
        tail.retain(|_, _| false).map_err(load)?;
        let mut pending = write.open_table(tables::PENDING).map_err(load)?;
        pending.retain(|_, _| false).map_err(load)?;
        let mut meta = write.open_table(tables::WAL_META).map_err(load)?;
        meta.insert(crate::meta::WAL_ID, id).map_err(load)?;
    }
    write.commit().map_err(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_turn_says_everything_again() {
        let pending = Pending {
            locator: Locator::new().with_href("a.xhtml"),
            ppm: 500,
            pass: 2,
            intent: Intent::Jump,
            stamp: Hlc::new(77, 1).unwrap(),
            wall_ms: 99,
            seen: Hlc::ZERO,
            from_ppm: 100,
            furthest: Locator::new(),
            furthest_ppm: 700,
            seconds: 61,
            turns: 4,
        };
        assert_eq!(Pending::decode(&pending.encode()).unwrap(), pending);
    }
}

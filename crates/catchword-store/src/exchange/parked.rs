//! What waits for a change it builds on, or for a statement that covers it.

use std::collections::BTreeMap;

use catchword_model::event::ReadingEvent;
use catchword_model::exchange::{Signed, Statement};
use catchword_model::id::{DocumentId, Generation};
use catchword_model::identity::Fingerprint;
use redb::{ReadableTable as _, WriteTransaction};

use crate::bytes::{Reader, Writer};
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::exchange::pool::Body;
use crate::exchange::{Origin, PARKED_ALL_BYTES_MAX};
use crate::log::read_change;
use crate::snapshot::Snapshot;
use crate::{Inner, Store, meta, tables};

const CHANGE: u8 = 0;
const EVENT: u8 = 1;

/// A change or event that waits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parked {
    /// Who brought it.
    pub(super) origin: Origin,
    /// When, in milliseconds since the Unix epoch.
    pub(super) since_ms: u64,
    pub(super) body: Body,
    /// A valid statement of exactly this.
    pub(super) statement: Option<Statement>,
}

impl Parked {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(400);
        out.fixed(&self.origin.to_bytes()).number(self.since_ms);
        match &self.body {
            Body::Change(change) => out.byte(CHANGE).prefixed(change.bytes()),
            Body::Event(event) => out.byte(EVENT).prefixed(&event.encode()),
        };
        match &self.statement {
            None => out.byte(0),
            Some(statement) => {
                out.byte(1).prefixed(&statement.public_key_spki).fixed(&statement.generation.0);
                out.fixed(&statement.signature).number(u64::from(statement.n))
            }
        };
        out.0
    }

    pub(super) fn decode(document: DocumentId, bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let (origin, since_ms) = (Origin::read(&mut input)?, input.number()?);
        let kind = input.byte()?;
        let content = input.prefixed()?;
        let (body, actor, signed, hash) = match kind {
            CHANGE => {
                let change = read_change(content)?;
                let signed = Signed::Change { seq: change.seq };
                let (actor, hash) = (change.actor, change.hash().0);
                (Body::Change(Box::new(change)), actor, signed, hash)
            }
            EVENT => {
                let event = ReadingEvent::decode(content);
                let event = event.map_err(|_| corrupt("a parked event does not read"))?;
                let signed = Signed::Event { n: event.n };
                (Body::Event(Box::new(event)), event.actor, signed, event.hash().0)
            }
            _ => return Err(corrupt(format!("something of type {kind} is parked"))),
        };
        let statement = match input.byte()? {
            0 => None,
            _ => Some(Statement {
                document,
                actor,
                signed,
                hash,
                public_key_spki: input.prefixed()?.to_vec(),
                generation: Generation(input.fixed()?),
                signature: input.fixed()?,
                n: input.small()?,
            }),
        };
        Ok(Self { origin, since_ms, body, statement })
    }
}

/// What of one document and peer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// How many changes and events.
    pub count: u64,
    /// Since when the first of them does, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// Everything that waits in one document, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Lot {
    /// The key of each, and its size in bytes.
    pub(super) entries: BTreeMap<u64, (Parked, u64)>,
}

impl Lot {
    pub(super) fn of(disk: &Snapshot, document: DocumentId) -> Result<Self, LoadError> {
        let mut entries = BTreeMap::new();
        for found in disk.parked.range((&document.0, 0)..=(&document.0, u64::MAX)).map_err(load)? {
            let (key, value) = found.map_err(load)?;
            let parked = Parked::decode(document, value.value())?;
            entries.insert(key.value().1, (parked, value.value().len() as u64));
        }
        Ok(Self { entries })
    }

    /// Adds something at the end, and returns its key and its bytes.
    pub(super) fn add(&mut self, parked: Parked) -> (u64, Vec<u8>) {
        let key = self.entries.last_key_value().map_or(0, |(last, _)| last + 1);
        let bytes = parked.encode();
        self.entries.insert(key, (parked, bytes.len() as u64));
        (key, bytes)
    }

    /// Takes out the oldest that one peer brought, until what is left of it is within the limits, and
    /// returns their keys.
    pub(super) fn trim(&mut self, peer: Fingerprint, max: usize, room: u64) -> Vec<u64> {
        let own = |(parked, _): &(Parked, u64)| parked.origin.peer == peer;
        let mut gone = Vec::new();
        loop {
            let of_peer = self.entries.values().filter(|entry| own(entry));
            let (count, bytes) =
                of_peer.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes));
            if count <= max && bytes <= room {
                return gone;
            }
            let oldest = self.entries.iter().find(|(_, entry)| own(entry)).map(|(key, _)| *key);
            let Some(oldest) = oldest else { return gone };
            self.entries.remove(&oldest);
            gone.push(oldest);
        }
    }
}

/// Writes what is parked and what is not any more, and counts its bytes.
pub(super) fn write(
    write: &WriteTransaction,
    staged: &BTreeMap<(DocumentId, u64), Option<Vec<u8>>>,
) -> Result<(), LoadError> {
    if staged.is_empty() {
        return Ok(());
    }
    let mut meta = write.open_table(tables::META).map_err(load)?;
    let before = meta.get(meta::PARKED_BYTES).map_err(load)?;
    let before = before.and_then(|bytes| bytes.value().try_into().ok()).map(u64::from_be_bytes);
    let mut bytes = before.unwrap_or(0);
    let mut parked = write.open_table(tables::PARKED).map_err(load)?;
    for ((document, order), value) in staged {
        let key = (&document.0, *order);
        let old = match value {
            Some(value) => {
                bytes += value.len() as u64;
                parked.insert(key, value.as_slice())
            }
            None => parked.remove(key),
        };
        let old = old.map_err(load)?.map_or(0, |old| old.value().len() as u64);
        bytes = bytes.saturating_sub(old);
    }
    meta.insert(meta::PARKED_BYTES, bytes.to_be_bytes().as_slice()).map_err(load)?;
    Ok(())
}

impl Inner {
    /// Returns how many bytes more may be parked in the whole library.
    pub(super) fn parked_room(&mut self) -> Result<u64, LoadError> {
        let (_, disk) = self.parts()?;
        let bytes = disk.meta_number(meta::PARKED_BYTES)?;
        Ok(PARKED_ALL_BYTES_MAX.saturating_sub(bytes))
    }
}

impl Store {
    /// Returns what waits, for each document and peer.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn parked(&self) -> Result<BTreeMap<(DocumentId, Fingerprint), Waiting>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        let mut waiting: BTreeMap<_, Waiting> = BTreeMap::new();
        let all = disk.parked.range::<(&[u8; 32], u64)>(..).map_err(load)?;
        for found in all {
            let (key, value) = found.map_err(load)?;
            let document = DocumentId(*key.value().0);
            let mut input = Reader(value.value());
            let (origin, since_ms) = (Origin::read(&mut input)?, input.number()?);
            let first = Waiting { count: 0, since_ms };
            let of_peer = waiting.entry((document, origin.peer)).or_insert(first);
            of_peer.count += 1;
            of_peer.since_ms = of_peer.since_ms.min(since_ms);
        }
        Ok(waiting)
    }

    /// Drops what waits and was brought by a peer: it said that it does not hold it any more.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was dropped.
    pub fn drop_parked(&self, peer: Fingerprint) -> Result<u64, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let (stage, disk) = inner.parts()?;
        let mut dropped = 0;
        for found in disk.parked.range::<(&[u8; 32], u64)>(..).map_err(load)? {
            let (key, value) = found.map_err(load)?;
            if Origin::read(&mut Reader(value.value()))?.peer == peer {
                let (document, order) = key.value();
                stage.exchange.parked.insert((DocumentId(*document), order), None);
                dropped += 1;
            }
        }
        inner.drain()?;
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use catchword_model::hlc::Hlc;
    use catchword_model::id::{ActorId, BookId, EventHash};

    use super::*;

    fn event(n: u64) -> ReadingEvent {
        let before = EventHash(if n == 1 { [0; 32] } else { [9; 32] });
        ReadingEvent {
            book: BookId([1; 32]),
            actor: ActorId([2; 16]),
            n,
            before,
            pass: 1,
            from_ppm: 0,
            to_ppm: 0,
            seconds: 0,
            turns: 0,
            wall_ms: 0,
            stamp: Hlc::ZERO,
        }
    }

    fn parked(peer: u8, n: u64) -> Parked {
        let origin = Origin { peer: Fingerprint([peer; 32]), generation: Generation([3; 16]) };
        let event = event(n);
        let statement = Statement {
            document: DocumentId([1; 32]),
            actor: event.actor,
            n: 5,
            signed: Signed::Event { n },
            hash: event.hash().0,
            public_key_spki: vec![4; 44],
            generation: Generation([6; 16]),
            signature: [7; 64],
        };
        let body = Body::Event(Box::new(event));
        Parked { origin, since_ms: 8, body, statement: Some(statement) }
    }

    #[test]
    fn what_waits_reads_again_with_its_statement() {
        let parked = parked(1, 2);
        assert_eq!(Parked::decode(DocumentId([1; 32]), &parked.encode()).unwrap(), parked);
    }

    #[test]
    fn the_oldest_of_the_same_peer_goes_first() {
        let mut lot = Lot::default();
        for n in 1..=6 {
            lot.add(parked((n % 2).try_into().unwrap(), n));
        }
        assert_eq!(lot.trim(Fingerprint([1; 32]), 3, u64::MAX), [0; 0]);
        assert_eq!(lot.trim(Fingerprint([1; 32]), 2, u64::MAX), [0]);
        assert_eq!(lot.trim(Fingerprint([0; 32]), 1, u64::MAX), [1, 3]);
        let size = lot.entries[&5].1;
        assert_eq!(lot.trim(Fingerprint([1; 32]), 2, 2 * size), [0; 0]);
        assert_eq!(lot.trim(Fingerprint([1; 32]), 2, 2 * size - 1), [2]);
    }
}

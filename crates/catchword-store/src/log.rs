//! The records of the log: one change, or a block of changes of one writer; and reading them in order.
//!
//! ```text
//! change   0, the change chunk
//! block    2, see [`crate::block`]; or 1, in the form that was written before
//! ```
//!
//! # Invariants
//!
//! 1. A record stands under the local sequence of its last change.
//! 2. The changes of a document between the first and the last of a block, whoever wrote them, are at
//!    most [`SPAN_BYTES_MAX`] together: whoever reads so much ahead has seen everything before.
//! 3. A change may stand in the log twice, alone and in a block, after a compaction that was cut off.
//!    Both say the same, the chain names the block, and readers see the change once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use catchword_model::change::Change;
use catchword_model::change::read::read;

use crate::block::{Form, content_bytes, read_block, read_sequences};
use crate::error::{LoadError, corrupt, load};
use crate::snapshot::Snapshot;

/// How far apart in the log the changes of one block may lie, in bytes of the changes between them.
pub const SPAN_BYTES_MAX: usize = 1 << 20;

const CHANGE: u8 = 0;
const WHOLE_BLOCK: u8 = 1;
const BLOCK: u8 = 2;

/// Reads a change that this store wrote.
pub(crate) fn read_change(bytes: &[u8]) -> Result<Change, LoadError> {
    read(bytes).map_err(|error| corrupt(format!("a change in the log does not read: {error}")))
}

/// Returns the record of a single change.
pub(crate) fn change_record(bytes: &[u8]) -> Vec<u8> {
    tagged(CHANGE, bytes)
}

/// Returns the record of a block.
pub(crate) fn block_record(packed: &[u8]) -> Vec<u8> {
    tagged(BLOCK, packed)
}

fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(1 + bytes.len());
    record.push(tag);
    record.extend_from_slice(bytes);
    record
}

/// Returns whether a record is a block.
pub(crate) fn is_block(record: &[u8]) -> bool {
    record.first().is_some_and(|tag| form(*tag).is_some())
}

fn form(tag: u8) -> Option<Form> {
    match tag {
        BLOCK => Some(Form::Apart),
        WHOLE_BLOCK => Some(Form::Whole),
        _ => None,
    }
}

/// Reads a record that stands under `key`: the changes in it with their local sequences, ascending.
pub(crate) fn read_record(key: u64, record: &[u8]) -> Result<Vec<(u64, Change)>, LoadError> {
    let changes = match record.split_first() {
        Some((&CHANGE, bytes)) => vec![(key, read_change(bytes)?)],
        Some((tag, packed)) => match form(*tag) {
            Some(form) => read_block(form, packed)?,
            None => return Err(corrupt(format!("a record of type {tag} in the log"))),
        },
        None => return Err(corrupt("an empty record in the log")),
    };
    match changes.last() {
        Some((last, _)) if *last == key => Ok(changes),
        _ => Err(corrupt("a block in the log stands in another's place")),
    }
}

/// Returns the local sequences in a record that stands under `key`, ascending.
pub(crate) fn record_sequences(key: u64, record: &[u8]) -> Result<Vec<u64>, LoadError> {
    match record.split_first() {
        Some((tag, packed)) if form(*tag).is_some() => read_sequences(packed),
        _ => Ok(vec![key]),
    }
}

/// Returns how much a record holds when it is unpacked, in bytes.
pub(crate) fn record_content_bytes(record: &[u8]) -> usize {
    match record.split_first() {
        Some((tag, packed)) if form(*tag).is_some() => content_bytes(packed),
        _ => record.len(),
    }
}

/// Reads a record that a peer sent: the changes in it, which nobody vouches for yet.
pub(crate) fn read_foreign(record: &[u8]) -> Result<Vec<Change>, LoadError> {
    let Some((tag, bytes)) = record.split_first() else { return Err(corrupt("an empty record")) };
    match form(*tag) {
        Some(form) => Ok(read_block(form, bytes)?.into_iter().map(|(_, change)| change).collect()),
        None if *tag == CHANGE => Ok(vec![read_change(bytes)?]),
        None => Err(corrupt("a record of another type")),
    }
}

/// A change as it was found in the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logged {
    pub(crate) sequence: u64,
    pub(crate) change: Change,
    /// The local sequence under which its record stands.
    pub(crate) record: u64,
    /// Length of that record, in bytes.
    pub(crate) record_bytes: usize,
    pub(crate) in_block: bool,
}

/// What stands in the log of one document.
pub(crate) enum Found {
    Change(Box<Logged>),
    /// A change that a later block contains already: left over from a compaction that was cut off.
    Leftover(Box<Logged>),
    /// A record that does not read. It stands under this local sequence.
    Damaged(u64, LoadError),
}

/// The changes of one document in the order of their local sequences, each once.
///
/// Reads ahead as far as invariant 2 demands, and no further.
pub(crate) struct Ordered {
    range: LogRange,
    ahead: BTreeMap<u64, Logged>,
    ahead_bytes: usize,
    waiting: Vec<Found>,
    ended: bool,
}

type LogRange = redb::OwnedRange<(u32, u64), &'static [u8]>;

impl Ordered {
    pub(crate) fn of(disk: &Snapshot, number: u32) -> Result<Self, LoadError> {
        let range = disk.log.range_owned((number, 0)..=(number, u64::MAX)).map_err(load)?;
        let (ahead, waiting) = (BTreeMap::new(), Vec::new());
        Ok(Self { range, ahead, ahead_bytes: 0, waiting, ended: false })
    }

    /// Returns what is next; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`LoadError::Io`] if the disk refuses; nothing more can be read then.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, LoadError> {
        loop {
            if let Some(found) = self.waiting.pop() {
                return Ok(Some(found));
            }
            if (self.ended || SPAN_BYTES_MAX < self.ahead_bytes)
                && let Some((_, logged)) = self.ahead.pop_first()
            {
                self.ahead_bytes -= logged.change.bytes().len();
                return Ok(Some(Found::Change(Box::new(logged))));
            }
            if self.ended {
                return Ok(None);
            }
            self.read_on()?;
        }
    }

    fn read_on(&mut self) -> Result<(), LoadError> {
        let Some(found) = self.range.next() else {
            self.ended = true;
            return Ok(());
        };
        let (key, value) = found.map_err(load)?;
        let (_, key) = key.value();
        let record = value.value();
        match read_record(key, record) {
            Ok(changes) => {
                let (record_bytes, in_block) = (record.len(), is_block(record));
                for (sequence, change) in changes {
                    self.put(Logged { sequence, change, record: key, record_bytes, in_block });
                }
            }
            Err(error) => self.waiting.push(Found::Damaged(key, error)),
        }
        Ok(())
    }

    fn put(&mut self, logged: Logged) {
        let bytes = logged.change.bytes().len();
        match self.ahead.entry(logged.sequence) {
            Entry::Vacant(place) => {
                self.ahead_bytes += bytes;
                place.insert(logged);
            }
            Entry::Occupied(mut place) => {
                let held = place.get();
                if held.change.hash() != logged.change.hash() || held.record == logged.record {
                    let detail = "two changes in the log have one local sequence";
                    self.waiting.push(Found::Damaged(logged.record, corrupt(detail)));
                    return;
                }
                // A block stands under its last change: of two records, the later has the earlier in it.
                let later = held.record < logged.record;
                let left = if later { place.insert(logged) } else { logged };
                self.waiting.push(Found::Leftover(Box::new(left)));
            }
        }
    }
}

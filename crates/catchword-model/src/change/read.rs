//! The strict reader of received changes: hostile bytes in, a [`Change`] or a reason out.
//!
//! # Invariants
//!
//! 1. What is read, encoded again, has the same bytes and the same hash.
//! 2. The verdict depends on the bytes alone, so every device reaches the same one.
//! 3. No more than a small multiple of [`CHANGE_BYTES_MAX`] is ever allocated, and no run is expanded
//!    beyond [`OPS_MAX`] rows.
//!
//! # What is not here
//!
//! What a change may mean: see [`crate::change::past`].

use std::io::Read;

use crate::id::{ActorId, Author, ChangeHash};

use super::columns::{Input, read_booleans, read_deltas, read_runs};
use super::{
    Action, CHUNK_CHANGE, CHUNK_DEFLATED, Change, Draft, FOOTER_AUTHOR, Key, MAGIC, Object, Op,
    OpId, Scalar, chunk, spec,
};

/// Size of one change, inflated, in bytes.
pub const CHANGE_BYTES_MAX: usize = 4 << 20;
/// Operations of one change.
pub const OPS_MAX: usize = 50_000;
/// Dependencies of one change: the head of every actor, and the writer's own last change.
pub const DEPENDENCIES_MAX: usize = 1_025;
/// Predecessors named by one change.
pub const PREDECESSORS_MAX: usize = 262_144;
/// Bytes of the keys and mark names of one change, counted for each operation: a few bytes can say
/// that thousands of operations have one long key.
pub const TEXT_BYTES_MAX: usize = 4 * CHANGE_BYTES_MAX;
/// Greatest operation counter and sequence number.
pub const COUNTER_MAX: u64 = (1 << 31) - 1;

/// Bytes are not a change, or not one that this release reads.
///
/// Nothing but a newer release can make the same bytes acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes end before what they announce.
    #[error("change is cut off")]
    Truncated,
    /// The bytes are no change chunk: another magic, another type, or something after the end.
    #[error("not a change")]
    NotAChange,
    /// A limit of this module is passed.
    #[error("change is larger than allowed")]
    TooLarge,
    /// A number does not fit, or is out of range.
    #[error("change holds a number out of range")]
    Number,
    /// Text is not UTF-8.
    #[error("change holds text that is not UTF-8")]
    Text,
    /// The columns contradict each other, or are none that a change has.
    #[error("change has columns that do not fit together")]
    Column,
    /// The checksum does not fit the bytes.
    #[error("change is damaged: its checksum does not fit")]
    Checksum,
    /// The bytes say what other bytes would say too.
    #[error("change is not in its one canonical form")]
    NotCanonical,
}

/// Reads one change chunk, deflated or not.
///
/// # Errors
///
/// [`ReadError`] says which rule the bytes break.
pub fn read(bytes: &[u8]) -> Result<Change, ReadError> {
    let received = Chunk::parse(bytes)?;
    let (hash, plain) = chunk(&received.body);
    if !hash.0.starts_with(&received.checksum) {
        return Err(ReadError::Checksum);
    }
    let draft = read_body(&received.body)?;
    let mut again = Vec::with_capacity(received.body.len());
    draft.write_body(&mut again);
    let same = draft.dependencies.is_sorted()
        && again == *received.body
        && (received.deflated || bytes == plain);
    let body_len = again.len();
    if same {
        Ok(Change { draft, hash, bytes: plain, body_len })
    } else {
        Err(ReadError::NotCanonical)
    }
}

struct Chunk<'a> {
    checksum: [u8; 4],
    body: std::borrow::Cow<'a, [u8]>,
    deflated: bool,
}

impl<'a> Chunk<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let mut input = Input(bytes);
        if input.array::<4>()? != MAGIC {
            return Err(ReadError::NotAChange);
        }
        let checksum = input.array::<4>()?;
        let [kind] = input.array::<1>()?;
        let len = input.len()?;
        if CHANGE_BYTES_MAX < len {
            return Err(ReadError::TooLarge);
        }
        let content = input.take(len)?;
        if !input.is_empty() {
            return Err(ReadError::NotAChange);
        }
        match kind {
            CHUNK_CHANGE => Ok(Self { checksum, body: content.into(), deflated: false }),
            CHUNK_DEFLATED => Ok(Self { checksum, body: inflate(content)?.into(), deflated: true }),
            _ => Err(ReadError::NotAChange),
        }
    }
}

fn inflate(deflated: &[u8]) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    let mut decoder = flate2::bufread::DeflateDecoder::new(deflated);
    let limit = CHANGE_BYTES_MAX as u64 + 1;
    (&mut decoder).take(limit).read_to_end(&mut body).map_err(|_| ReadError::Truncated)?;
    if CHANGE_BYTES_MAX < body.len() {
        return Err(ReadError::TooLarge);
    }
    let all_read = decoder.total_in() == deflated.len() as u64;
    if all_read { Ok(body) } else { Err(ReadError::NotCanonical) }
}

fn read_body(body: &[u8]) -> Result<Draft, ReadError> {
    let mut input = Input(body);
    let dependencies = read_dependencies(&mut input)?;
    let actor = read_actor(&mut input)?;
    let seq = in_range(input.unsigned()?)?;
    let start_op = in_range(input.unsigned()?)?;
    if seq == 0 || start_op == 0 {
        return Err(ReadError::Number);
    }
    let time = input.signed()?;
    let message = text(input.prefixed()?)?.to_owned();
    let actors = read_actors(&mut input, actor)?;
    let columns = Columns::read(&mut input)?;
    let author = read_author(input)?;
    let ops = columns.ops(&actors, start_op)?;
    Ok(Draft { actor, seq, start_op, time, message, dependencies, author, ops })
}

fn in_range(value: u64) -> Result<u64, ReadError> {
    if value <= COUNTER_MAX { Ok(value) } else { Err(ReadError::Number) }
}

fn text(bytes: &[u8]) -> Result<&str, ReadError> {
    std::str::from_utf8(bytes).map_err(|_| ReadError::Text)
}

fn read_dependencies(input: &mut Input<'_>) -> Result<Vec<ChangeHash>, ReadError> {
    let count = usize::try_from(input.unsigned()?).map_err(|_| ReadError::Number)?;
    if DEPENDENCIES_MAX < count {
        return Err(ReadError::TooLarge);
    }
    (0..count).map(|_| input.array().map(ChangeHash)).collect()
}

/// Every actor of a catchword document has 16 bytes.
fn read_actor(input: &mut Input<'_>) -> Result<ActorId, ReadError> {
    ActorId::from_slice(input.prefixed()?).map_err(|_| ReadError::Number)
}

/// Returns the writer, then the others; a row names an actor by its place here.
fn read_actors(input: &mut Input<'_>, writer: ActorId) -> Result<Vec<ActorId>, ReadError> {
    let count = usize::try_from(input.unsigned()?).map_err(|_| ReadError::Number)?;
    if input.0.len() / ActorId::LEN < count {
        return Err(ReadError::Truncated);
    }
    let mut actors = vec![writer];
    for _ in 0..count {
        actors.push(read_actor(input)?);
    }
    Ok(actors)
}

fn read_author(mut rest: Input<'_>) -> Result<Option<Author>, ReadError> {
    if rest.is_empty() {
        return Ok(None);
    }
    if rest.unsigned()? != FOOTER_AUTHOR {
        return Err(ReadError::Column);
    }
    let author = Author::from_bytes(rest.prefixed()?).ok_or(ReadError::Column)?;
    if rest.is_empty() { Ok(Some(author)) } else { Err(ReadError::Column) }
}

#[derive(Default)]
struct Columns<'a> {
    object_actor: Vec<Option<u64>>,
    object_counter: Vec<Option<u64>>,
    key_actor: Vec<Option<u64>>,
    key_counter: Vec<Option<i64>>,
    key_text: Vec<Option<&'a str>>,
    insert: Vec<bool>,
    action: Vec<Option<u64>>,
    value_meta: Vec<Option<u64>>,
    value: &'a [u8],
    predecessor_count: Vec<Option<u64>>,
    predecessor_actor: Vec<Option<u64>>,
    predecessor_counter: Vec<Option<i64>>,
    expand: Vec<bool>,
    mark_name: Vec<Option<&'a str>>,
}

/// Columns there are. Which and in what order is checked by encoding again.
const COLUMNS_MAX: usize = 14;

impl<'a> Columns<'a> {
    fn read(input: &mut Input<'a>) -> Result<Self, ReadError> {
        let count = input.unsigned()?;
        if (COLUMNS_MAX as u64) < count {
            return Err(ReadError::Column);
        }
        let mut table = Vec::with_capacity(COLUMNS_MAX);
        for _ in 0..count {
            table.push((input.unsigned()?, input.len()?));
        }
        let mut columns = Self::default();
        for (spec, len) in table {
            columns.set(spec, input.take(len)?)?;
        }
        Ok(columns)
    }

    fn set(&mut self, spec: u64, bytes: &'a [u8]) -> Result<(), ReadError> {
        match spec {
            spec::OBJECT_ACTOR => self.object_actor = read_runs(bytes, OPS_MAX)?,
            spec::OBJECT_COUNTER => self.object_counter = read_runs(bytes, OPS_MAX)?,
            spec::KEY_ACTOR => self.key_actor = read_runs(bytes, OPS_MAX)?,
            spec::KEY_COUNTER => self.key_counter = read_deltas(bytes, OPS_MAX)?,
            spec::KEY_TEXT => self.key_text = read_runs(bytes, OPS_MAX)?,
            spec::INSERT => self.insert = read_booleans(bytes, OPS_MAX)?,
            spec::ACTION => self.action = read_runs(bytes, OPS_MAX)?,
            spec::VALUE_META => self.value_meta = read_runs(bytes, OPS_MAX)?,
            spec::VALUE => self.value = bytes,
            spec::PREDECESSOR_COUNT => self.predecessor_count = read_runs(bytes, OPS_MAX)?,
            spec::PREDECESSOR_ACTOR => {
                self.predecessor_actor = read_runs(bytes, PREDECESSORS_MAX)?;
            }
            spec::PREDECESSOR_COUNTER => {
                self.predecessor_counter = read_deltas(bytes, PREDECESSORS_MAX)?;
            }
            spec::EXPAND => self.expand = read_booleans(bytes, OPS_MAX)?,
            spec::MARK_NAME => self.mark_name = read_runs(bytes, OPS_MAX)?,
            _ => return Err(ReadError::Column),
        }
        Ok(())
    }

    /// Puts the rows together. A column that is too long shows when the change is encoded again.
    fn ops(&self, actors: &[ActorId], start_op: u64) -> Result<Vec<Op>, ReadError> {
        let last = start_op.saturating_add(self.action.len() as u64).saturating_sub(1);
        in_range(last)?;
        let texts = self.key_text.iter().chain(&self.mark_name).flatten();
        if TEXT_BYTES_MAX < texts.map(|text| text.len()).sum() {
            return Err(ReadError::TooLarge);
        }
        let mut values = Input(self.value);
        let mut predecessors = self.predecessor_actor.iter().zip(&self.predecessor_counter);
        let mut ops = Vec::with_capacity(self.action.len());
        for (row, code) in self.action.iter().enumerate() {
            let count = cell(&self.predecessor_count, row).ok_or(ReadError::Column)?;
            if PREDECESSORS_MAX as u64 <= count {
                return Err(ReadError::TooLarge);
            }
            ops.push(Op {
                object: self.object(row, actors)?,
                key: self.key(row, actors)?,
                insert: self.insert.get(row).copied().ok_or(ReadError::Column)?,
                action: self.action(row, code.ok_or(ReadError::Column)?, &mut values)?,
                predecessors: (0..count)
                    .map(|_| {
                        let (actor, counter) = predecessors.next().ok_or(ReadError::Column)?;
                        op_id(*actor, counter.map(i64::try_into), actors)
                    })
                    .collect::<Result<_, _>>()?,
            });
        }
        Ok(ops)
    }

    fn object(&self, row: usize, actors: &[ActorId]) -> Result<Object, ReadError> {
        match (cell(&self.object_actor, row), cell(&self.object_counter, row)) {
            (None, None) => Ok(Object::Root),
            (actor, counter) => op_id(actor, counter.map(Ok), actors).map(Object::Made),
        }
    }

    fn key(&self, row: usize, actors: &[ActorId]) -> Result<Key, ReadError> {
        let actor = cell(&self.key_actor, row);
        match (cell(&self.key_text, row), actor, cell(&self.key_counter, row)) {
            (Some(text), None, None) => Ok(Key::Map(text.to_owned())),
            (None, None, Some(0)) => Ok(Key::Head),
            (None, Some(_), Some(counter)) => {
                op_id(actor, Some(counter.try_into()), actors).map(Key::Element)
            }
            _ => Err(ReadError::Column),
        }
    }

    fn action(&self, row: usize, code: u64, values: &mut Input<'a>) -> Result<Action, ReadError> {
        let meta = cell(&self.value_meta, row).ok_or(ReadError::Column)?;
        let value = scalar(meta, values)?;
        let expand = self.expand.get(row).copied().unwrap_or(false);
        let name = cell(&self.mark_name, row).map(str::to_owned);
        match (code, value) {
            (1, value) => Ok(Action::Put(value)),
            (5, value @ Scalar::Int(_)) => Ok(Action::Increment(value)),
            // Automerge would lose the value of a mark that ends.
            (7, value) if name.is_some() || value == Scalar::Null => {
                Ok(Action::Mark { name, value, expand })
            }
            (0, Scalar::Null) => Ok(Action::MakeMap),
            (2, Scalar::Null) => Ok(Action::MakeList),
            (3, Scalar::Null) => Ok(Action::Delete),
            (4, Scalar::Null) => Ok(Action::MakeText),
            (6, Scalar::Null) => Ok(Action::MakeTable),
            _ => Err(ReadError::Column),
        }
    }
}

fn cell<T: Copy>(column: &[Option<T>], row: usize) -> Option<T> {
    column.get(row).copied().flatten()
}

fn op_id(
    actor: Option<u64>,
    counter: Option<Result<u64, std::num::TryFromIntError>>,
    actors: &[ActorId],
) -> Result<OpId, ReadError> {
    let (Some(actor), Some(counter)) = (actor, counter) else { return Err(ReadError::Column) };
    let place = usize::try_from(actor).map_err(|_| ReadError::Column)?;
    let actor = actors.get(place).copied().ok_or(ReadError::Column)?;
    let counter = in_range(counter.map_err(|_| ReadError::Number)?)?;
    if counter == 0 {
        return Err(ReadError::Number);
    }
    Ok(OpId { counter, actor })
}

fn scalar(meta: u64, values: &mut Input<'_>) -> Result<Scalar, ReadError> {
    let len = usize::try_from(meta >> 4).map_err(|_| ReadError::TooLarge)?;
    let bytes = values.take(len)?;
    let mut input = Input(bytes);
    let value = match meta & 0xF {
        0 => Scalar::Null,
        1 => Scalar::Boolean(false),
        2 => Scalar::Boolean(true),
        3 => Scalar::Uint(input.unsigned()?),
        4 => Scalar::Int(input.signed()?),
        5 => Scalar::F64(f64::from_le_bytes(input.array()?)),
        6 => return Ok(Scalar::Text(text(bytes)?.to_owned())),
        7 => return Ok(Scalar::Bytes(bytes.to_vec())),
        8 => Scalar::Counter(input.signed()?),
        9 => Scalar::Timestamp(input.signed()?),
        _ => return Err(ReadError::Column),
    };
    if input.is_empty() { Ok(value) } else { Err(ReadError::Column) }
}

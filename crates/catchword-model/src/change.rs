//! A change: the operations of one commit, hash-linked to the changes it builds on.
//!
//! A [`Draft`] is what a change says; [`Draft::encode`] gives it the bytes, and so the hash, that
//! Automerge's own transaction would have given it. [`read`] takes bytes apart again, strictly.
//!
//! # Source
//!
//! The change chunk of Automerge's binary format, as written by automerge 0.12, which is the oracle
//! of the tests. The encoding is ours for good: what automerge adds later is not read here.

pub(crate) mod columns;
pub mod past;
pub mod read;
mod texts;

use crate::id::{ActorId, Author, ChangeHash, sha256};

use columns::{
    write_booleans, write_deltas, write_len, write_prefixed, write_runs, write_signed,
    write_unsigned,
};

pub use texts::texts;

pub(crate) const MAGIC: [u8; 4] = [0x85, 0x6F, 0x4A, 0x83];
pub(crate) const CHUNK_CHANGE: u8 = 1;
pub(crate) const CHUNK_DEFLATED: u8 = 2;
const FOOTER_AUTHOR: u64 = 1;

/// The column specifications of a change, in the order in which they stand: id × 16 + type.
pub(crate) mod spec {
    pub(crate) const OBJECT_ACTOR: u64 = 0x01;
    pub(crate) const OBJECT_COUNTER: u64 = 0x02;
    pub(crate) const KEY_ACTOR: u64 = 0x11;
    pub(crate) const KEY_COUNTER: u64 = 0x13;
    pub(crate) const KEY_TEXT: u64 = 0x15;
    pub(crate) const INSERT: u64 = 0x34;
    pub(crate) const ACTION: u64 = 0x42;
    pub(crate) const VALUE_META: u64 = 0x56;
    pub(crate) const VALUE: u64 = 0x57;
    pub(crate) const PREDECESSOR_COUNT: u64 = 0x70;
    pub(crate) const PREDECESSOR_ACTOR: u64 = 0x71;
    pub(crate) const PREDECESSOR_COUNTER: u64 = 0x73;
    pub(crate) const EXPAND: u64 = 0x94;
    pub(crate) const MARK_NAME: u64 = 0xA5;
}

/// One operation of a document: unique in it, and ordered by counter, then actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    /// One above every operation in the past of the change.
    pub counter: u64,
    /// Who wrote it.
    pub actor: ActorId,
}

/// Where an operation writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The root map of the document.
    Root,
    /// The object that this operation made.
    Made(OpId),
}

/// What an operation writes to, inside its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A key of a map.
    Map(String),
    /// The start of a sequence.
    Head,
    /// The element of a sequence that this operation inserted.
    Element(OpId),
}

/// A value that is not an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Nothing.
    Null,
    /// A truth value.
    Boolean(bool),
    /// A number that is not negative.
    Uint(u64),
    /// A number.
    Int(i64),
    /// A floating-point number.
    F64(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An Automerge counter at its start.
    Counter(i64),
    /// Milliseconds since the Unix epoch, as Automerge has them.
    Timestamp(i64),
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Makes a map.
    MakeMap,
    /// Makes a list.
    MakeList,
    /// Makes a text.
    MakeText,
    /// Makes a table, which automerge 0.12 writes and cannot use.
    MakeTable,
    /// Writes a value.
    Put(Scalar),
    /// Removes what its predecessors wrote.
    Delete,
    /// Adds to an Automerge counter.
    Increment(Scalar),
    /// Begins (with a name) or ends (without) a mark of a text.
    Mark {
        /// The name of the mark that begins.
        name: Option<String>,
        /// Its value.
        value: Scalar,
        /// Whether text inserted at its border belongs to it.
        expand: bool,
    },
}

/// What kind of object an operation made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Keys with values.
    Map,
    /// A sequence of values.
    List,
    /// A sequence of characters.
    Text,
}

impl Action {
    /// Returns what kind of object this makes, if it makes one that can be written to.
    pub const fn makes(&self) -> Option<ObjectKind> {
        match self {
            Self::MakeMap => Some(ObjectKind::Map),
            Self::MakeList => Some(ObjectKind::List),
            Self::MakeText => Some(ObjectKind::Text),
            Self::MakeTable
            | Self::Put(_)
            | Self::Delete
            | Self::Increment(_)
            | Self::Mark { .. } => None,
        }
    }
}

/// One operation of a change. Its id is the change's first counter plus its place in the change.
#[derive(Debug, Clone, PartialEq)]
pub struct Op {
    /// The object written to.
    pub object: Object,
    /// The place in it.
    pub key: Key,
    /// Whether a new element is inserted after `key`, rather than `key` written.
    pub insert: bool,
    /// What is done.
    pub action: Action,
    /// The operations superseded, ascending by counter, then actor.
    pub predecessors: Vec<OpId>,
}

/// What a change says, before it has bytes and a hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Who writes.
    pub actor: ActorId,
    /// The number of this change among those of the actor, from 1.
    pub seq: u64,
    /// The counter of the first operation.
    pub start_op: u64,
    /// The packed stamp; see [`crate::hlc`].
    pub time: i64,
    /// A message. catchword writes none.
    pub message: String,
    /// The changes this one builds on.
    pub dependencies: Vec<ChangeHash>,
    /// Who the actor is: in its first change only.
    pub author: Option<Author>,
    /// The operations.
    pub ops: Vec<Op>,
}

/// A change with its bytes and its hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    draft: Draft,
    hash: ChangeHash,
    bytes: Vec<u8>,
    body_len: usize,
}

impl std::ops::Deref for Change {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.draft
    }
}

impl Change {
    /// Returns the SHA-256 of the change's content, by which other changes name it.
    pub fn hash(&self) -> ChangeHash {
        self.hash
    }

    /// Returns the whole chunk, not deflated.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the whole chunk, not deflated, without the rest.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the content of the chunk, without its header.
    pub fn body(&self) -> &[u8] {
        let header = self.bytes.len().saturating_sub(self.body_len);
        self.bytes.get(header..).unwrap_or_default()
    }

    /// Returns what the change says.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// Returns the counter of the last operation, or the one before the first if there is none.
    pub fn max_op(&self) -> u64 {
        self.draft.start_op.saturating_sub(1).saturating_add(self.draft.ops.len() as u64)
    }

    /// Returns the operations with their ids.
    pub fn ops_with_ids(&self) -> impl Iterator<Item = (OpId, &Op)> {
        let (actor, start) = (self.draft.actor, self.draft.start_op);
        (start..).zip(&self.draft.ops).map(move |(counter, op)| (OpId { counter, actor }, op))
    }
}

impl Draft {
    /// Encodes the change as Automerge's own transaction would.
    ///
    /// Dependencies are written in ascending order, whatever the order here. Predecessors must be
    /// ascending.
    pub fn encode(mut self) -> Change {
        self.dependencies.sort_unstable();
        let mut body = Vec::with_capacity(256);
        self.write_body(&mut body);
        let (hash, bytes) = chunk(&body);
        Change { draft: self, hash, bytes, body_len: body.len() }
    }

    fn write_body(&self, body: &mut Vec<u8>) {
        let actors = self.other_actors();
        write_len(body, self.dependencies.len());
        self.dependencies.iter().for_each(|hash| body.extend_from_slice(&hash.0));
        write_prefixed(body, &self.actor.0);
        write_unsigned(body, self.seq);
        write_unsigned(body, self.start_op);
        write_signed(body, self.time);
        write_prefixed(body, self.message.as_bytes());
        write_len(body, actors.len());
        for actor in &actors {
            write_prefixed(body, &actor.0);
        }

        let index = |actor: ActorId| -> u64 {
            match actors.binary_search(&actor) {
                Ok(place) if actor != self.actor => place as u64 + 1,
                _ => 0,
            }
        };
        let columns = Columns::of(&self.ops, index);
        columns.write(body);
        if let Some(author) = self.author {
            write_unsigned(body, FOOTER_AUTHOR);
            write_prefixed(body, &author.to_bytes());
        }
    }

    /// Returns every actor the operations name but the writer, ascending.
    fn other_actors(&self) -> Vec<ActorId> {
        let mut actors: Vec<ActorId> = Vec::new();
        for op in &self.ops {
            if let Object::Made(id) = op.object {
                actors.push(id.actor);
            }
            if let Key::Element(id) = op.key {
                actors.push(id.actor);
            }
            actors.extend(op.predecessors.iter().map(|id| id.actor));
        }
        actors.sort_unstable();
        actors.dedup();
        actors.retain(|actor| *actor != self.actor);
        actors
    }
}

/// Returns the change chunk with this content, whatever the content says.
pub fn chunk_of(body: &[u8]) -> Vec<u8> {
    chunk(body).1
}

/// Returns hash and bytes of the change chunk with this body.
pub(crate) fn chunk(body: &[u8]) -> (ChangeHash, Vec<u8>) {
    let mut header = Vec::with_capacity(10);
    header.push(CHUNK_CHANGE);
    write_len(&mut header, body.len());
    let hash = sha256(&[&header, body]);
    let mut bytes = Vec::with_capacity(8 + header.len() + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend(hash.iter().take(4));
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(body);
    (ChangeHash(hash), bytes)
}

/// The operations of a change, column by column: most columns are read off the operations as they
/// are written, since one change is small and there are fourteen of them.
struct Columns<'a, I> {
    ops: &'a [Op],
    /// The number under which a change names an actor.
    index: I,
    value_meta: Vec<Option<u64>>,
    value: Vec<u8>,
    predecessor_actor: Vec<Option<u64>>,
    predecessor_counter: Vec<Option<i64>>,
}

impl<'a, I: Fn(ActorId) -> u64> Columns<'a, I> {
    fn of(ops: &'a [Op], index: I) -> Self {
        let mut columns = Self {
            ops,
            index,
            value_meta: Vec::with_capacity(ops.len()),
            value: Vec::new(),
            predecessor_actor: Vec::new(),
            predecessor_counter: Vec::new(),
        };
        for op in ops {
            columns.push_value(action_parts(&op.action).1);
            for id in &op.predecessors {
                let actor = (columns.index)(id.actor);
                columns.predecessor_actor.push(Some(actor));
                columns.predecessor_counter.push(Some(id.counter.cast_signed()));
            }
        }
        columns
    }

    fn object(&self, op: &Op) -> Option<(u64, u64)> {
        match op.object {
            Object::Root => None,
            Object::Made(id) => Some(((self.index)(id.actor), id.counter)),
        }
    }

    fn key_actor(&self, op: &Op) -> Option<u64> {
        match op.key {
            Key::Map(_) | Key::Head => None,
            Key::Element(id) => Some((self.index)(id.actor)),
        }
    }

    fn push_value(&mut self, value: &Scalar) {
        let start = self.value.len();
        let code = match value {
            Scalar::Null => 0,
            Scalar::Boolean(false) => 1,
            Scalar::Boolean(true) => 2,
            Scalar::Uint(value) => {
                write_unsigned(&mut self.value, *value);
                3
            }
            Scalar::Int(value) => {
                write_signed(&mut self.value, *value);
                4
            }
            Scalar::F64(value) => {
                self.value.extend_from_slice(&value.to_le_bytes());
                5
            }
            Scalar::Text(text) => {
                self.value.extend_from_slice(text.as_bytes());
                6
            }
            Scalar::Bytes(bytes) => {
                self.value.extend_from_slice(bytes);
                7
            }
            Scalar::Counter(value) => {
                write_signed(&mut self.value, *value);
                8
            }
            Scalar::Timestamp(value) => {
                write_signed(&mut self.value, *value);
                9
            }
        };
        let len = (self.value.len() - start) as u64;
        self.value_meta.push(Some(len << 4 | code));
    }

    /// Appends the table of columns, then their bytes; an empty column is left out of both.
    fn write(&self, body: &mut Vec<u8>) {
        let ops = self.ops;
        let mut data = Vec::with_capacity(256 + self.value.len());
        let mut table: Vec<(u64, usize)> = Vec::with_capacity(14);
        let mut column = |spec: u64, write: &dyn Fn(&mut Vec<u8>)| {
            let start = data.len();
            write(&mut data);
            let len = data.len() - start;
            if 0 < len {
                table.push((spec, len));
            }
        };
        let actors = |op| self.object(op).map(|(actor, _)| actor);
        let counters = |op| self.object(op).map(|(_, counter)| counter);
        column(spec::OBJECT_ACTOR, &|out| write_runs(out, ops.iter().map(actors)));
        column(spec::OBJECT_COUNTER, &|out| write_runs(out, ops.iter().map(counters)));
        column(spec::KEY_ACTOR, &|out| write_runs(out, ops.iter().map(|op| self.key_actor(op))));
        column(spec::KEY_COUNTER, &|out| write_deltas(out, ops.iter().map(key_counter)));
        column(spec::KEY_TEXT, &|out| write_runs(out, ops.iter().map(key_text)));
        column(spec::INSERT, &|out| write_booleans(out, ops.iter().map(|op| op.insert)));
        let actions = |op: &Op| Some(action_parts(&op.action).0);
        column(spec::ACTION, &|out| write_runs(out, ops.iter().map(actions)));
        column(spec::VALUE_META, &|out| write_runs(out, self.value_meta.iter().copied()));
        column(spec::VALUE, &|out| out.extend_from_slice(&self.value));
        let counts = |op: &Op| Some(op.predecessors.len() as u64);
        column(spec::PREDECESSOR_COUNT, &|out| write_runs(out, ops.iter().map(counts)));
        let predecessors = self.predecessor_actor.iter().copied();
        column(spec::PREDECESSOR_ACTOR, &|out| write_runs(out, predecessors.clone()));
        let predecessors = self.predecessor_counter.iter().copied();
        column(spec::PREDECESSOR_COUNTER, &|out| write_deltas(out, predecessors.clone()));
        let expands = |op: &Op| matches!(op.action, Action::Mark { expand: true, .. });
        if ops.iter().any(expands) {
            column(spec::EXPAND, &|out| write_booleans(out, ops.iter().map(expands)));
        }
        column(spec::MARK_NAME, &|out| write_runs(out, ops.iter().map(mark_name)));

        write_len(body, table.len());
        for (spec, len) in table {
            write_unsigned(body, spec);
            write_len(body, len);
        }
        body.extend_from_slice(&data);
    }
}

/// Returns the number of an action and the value that goes with it.
fn action_parts(action: &Action) -> (u64, &Scalar) {
    match action {
        Action::MakeMap => (0, &Scalar::Null),
        Action::Put(value) => (1, value),
        Action::MakeList => (2, &Scalar::Null),
        Action::Delete => (3, &Scalar::Null),
        Action::MakeText => (4, &Scalar::Null),
        Action::Increment(by) => (5, by),
        Action::MakeTable => (6, &Scalar::Null),
        Action::Mark { value, .. } => (7, value),
    }
}

fn key_counter(op: &Op) -> Option<i64> {
    match op.key {
        Key::Map(_) => None,
        Key::Head => Some(0),
        Key::Element(id) => Some(id.counter.cast_signed()),
    }
}

fn key_text(op: &Op) -> Option<&str> {
    match &op.key {
        Key::Map(text) => Some(text),
        Key::Head | Key::Element(_) => None,
    }
}

fn mark_name(op: &Op) -> Option<&str> {
    match &op.action {
        Action::Mark { name, .. } => name.as_deref(),
        Action::MakeMap
        | Action::MakeList
        | Action::MakeText
        | Action::MakeTable
        | Action::Put(_)
        | Action::Delete
        | Action::Increment(_) => None,
    }
}

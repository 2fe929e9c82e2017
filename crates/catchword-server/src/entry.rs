//! An entry as far as it can be read without the database: changes, events and statements, checked for
//! everything that their bytes alone say.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::change::read::read;
use catchword_model::change::{Change, Key, Object, OpId};
use catchword_model::event::ReadingEvent;
use catchword_model::exchange::DocumentName;
use catchword_model::genesis::{claimed_upgrade, genesis};
use catchword_model::id::{ActorId, EventHash};
use catchword_proto::cloud::api::{
    ChainKind, Entry, EntryKey, Hash, Outcome, Reason, Verdict, WireStatement,
};

use crate::docket::{Link, Loaded};
use crate::fold::{Register, RegisterKey, register};

/// Schema versions below the one an upgrade claims that are looked at.
const SCHEMAS_MAX: u32 = 64;

/// An entry that reads.
#[derive(Debug, Clone)]
pub struct Reading {
    pub(crate) document: DocumentName,
    pub(crate) base_version: u64,
    pub(crate) replay: bool,
    pub(crate) changes: Vec<Change>,
    pub(crate) events: Vec<ReadingEvent>,
    /// Valid statements, by what they are about.
    pub(crate) statements: BTreeMap<[u8; 32], WireStatement>,
}

/// A batch, each entry read or answered already.
#[derive(Debug, Clone)]
pub struct Batch {
    pub(crate) entries: Vec<(EntryKey, Result<Reading, Outcome>)>,
}

impl Batch {
    /// Reads every entry. This takes a signature's verification for each statement.
    pub fn read(entries: &[Entry]) -> Self {
        let read = |entry: &Entry| (entry.key, Reading::of(entry));
        Self { entries: entries.iter().map(read).collect() }
    }

    /// Returns what must be known of each document, ascending by id.
    pub(crate) fn wanted(&self) -> Vec<Wanted> {
        let mut wanted: BTreeMap<_, Wanted> = BTreeMap::new();
        for reading in self.entries.iter().filter_map(|(_, entry)| entry.as_ref().ok()) {
            let of = wanted.entry(reading.document.id());
            of.or_insert_with(|| Wanted::of(reading.document)).add(reading);
        }
        wanted.into_values().map(Wanted::sorted).collect()
    }
}

impl Reading {
    fn of(entry: &Entry) -> Result<Self, Outcome> {
        let refused =
            |reason, hash: Option<[u8; 32]>| Outcome::Refused { reason, hash: hash.map(Hash) };
        if entry.key() != entry.key {
            return Err(refused(Reason::Key, None));
        }
        if entry.records() == 0 {
            return Err(refused(Reason::Empty, None));
        }
        if entry.records() < entry.statements.len() {
            return Err(refused(Reason::Statements, None));
        }
        let genesis = genesis(entry.document.kind()).hash();
        let mut changes = Vec::with_capacity(entry.changes.len());
        for bytes in &entry.changes {
            let change = read(&bytes.0).map_err(|_| refused(Reason::Unreadable, None))?;
            if change.hash() == genesis {
                return Err(refused(Reason::Rule, Some(genesis.0)));
            }
            changes.push(change);
        }
        let mut events = Vec::with_capacity(entry.events.len());
        for bytes in &entry.events {
            let event = ReadingEvent::decode(&bytes.0).ok();
            let event = event.filter(|event| entry.document == DocumentName::Book(event.book));
            events.push(event.ok_or_else(|| refused(Reason::Event, None))?);
        }
        let mut statements = BTreeMap::new();
        for statement in &entry.statements {
            if !statement.about(entry.document).is_valid() {
                return Err(refused(Reason::Signature, Some(statement.hash)));
            }
            statements.insert(statement.hash, statement.clone());
        }
        Ok(Self {
            document: entry.document,
            base_version: entry.base_version,
            replay: entry.replay,
            changes,
            events,
            statements,
        })
    }

    /// Returns whether a valid statement is about exactly this.
    pub(crate) fn states(
        &self,
        chain: ChainKind,
        actor: ActorId,
        number: u64,
        hash: &[u8; 32],
    ) -> bool {
        self.statements.get(hash).is_some_and(|statement| {
            (statement.chain, statement.actor, statement.number) == (chain, actor, number)
        })
    }
}

/// What must be known of a document to decide about entries.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) document: DocumentName,
    /// Changes and events by hash: these themselves, and what they build on.
    pub(crate) hashes: Vec<[u8; 32]>,
    /// What has these numbers, and the hashes of what is to have them.
    pub(crate) numbers: Vec<(ChainKind, ActorId, u64, [u8; 32])>,
    /// The changes in which these operations are, with their bytes.
    pub(crate) ops: Vec<OpId>,
    /// The first changes of these actors, with their bytes.
    pub(crate) first: Vec<ActorId>,
    /// Rows of the fold, besides every position and its marks.
    pub(crate) registers: Vec<RegisterKey>,
}

impl Wanted {
    fn of(document: DocumentName) -> Self {
        let (hashes, numbers) = (Vec::new(), Vec::new());
        let (ops, first, registers) = (Vec::new(), Vec::new(), Vec::new());
        Self { document, hashes, numbers, ops, first, registers }
    }

    fn add(&mut self, reading: &Reading) {
        for change in &reading.changes {
            self.hashes.push(change.hash().0);
            self.hashes.extend(change.dependencies.iter().map(|hash| hash.0));
            let hash = change.hash().0;
            self.numbers.push((ChainKind::Changes, change.actor, change.seq, hash));
            if let Some(schema) = claimed_upgrade(change).filter(|schema| *schema <= SCHEMAS_MAX) {
                self.first.extend((2..schema).map(ActorId::of_schema));
            }
            self.add_ops(change);
            let kind = self.document.kind();
            let registers = change.ops.iter().filter_map(|op| match &op.key {
                Key::Map(key) => register(kind, op.object, key),
                Key::Head | Key::Element(_) => None,
            });
            self.registers.extend(registers.flat_map(Register::wanted));
        }
        for event in &reading.events {
            self.hashes.push(event.hash().0);
            self.hashes.extend((event.before != EventHash([0; 32])).then_some(event.before.0));
            self.numbers.push((ChainKind::Events, event.actor, event.n, event.hash().0));
        }
    }

    fn add_ops(&mut self, change: &Change) {
        let own = |id: &OpId| id.actor == change.actor && change.start_op <= id.counter;
        let genesis = ActorId::of_schema(1);
        for op in &change.ops {
            let object = if let Object::Made(id) = op.object { Some(id) } else { None };
            let element = if let Key::Element(id) = op.key { Some(id) } else { None };
            let named = object.into_iter().chain(element).chain(op.predecessors.iter().copied());
            self.ops.extend(named.filter(|id| !own(id) && id.actor != genesis));
        }
    }

    /// Returns whether somebody's second history is concerned, as far as that was loaded: then everything
    /// of the document is needed.
    pub(crate) fn is_forked(&self, loaded: &Loaded) -> bool {
        let known: BTreeSet<&[u8; 32]> = loaded.links.iter().map(|link| &link.hash).collect();
        if self.numbers.iter().all(|(.., hash)| known.contains(hash)) {
            // Whatever became of them is answered again.
            return false;
        }
        let number = |of: &(ChainKind, ActorId, u64, [u8; 32])| (of.0, of.1, of.2);
        let once = self.numbers.is_sorted_by(|a, b| number(a) != number(b));
        let is_concerned = |link: &Link| {
            let key = (link.chain, link.actor, link.number);
            let first = self.numbers.partition_point(|of| number(of) < key);
            let other = self.numbers.get(first).filter(|of| number(of) == key);
            link.verdict == Verdict::Void || other.is_some_and(|of| of.3 != link.hash)
        };
        !once || loaded.links.iter().any(is_concerned)
    }

    /// Returns whether a change is one of those with these operations, or an upgrade.
    pub(crate) fn names(&self, change: &Change) -> bool {
        let from = self.ops.partition_point(|op| op.counter < change.start_op);
        let ops = self.ops.get(from..).unwrap_or_default().iter();
        let mut own = ops.take_while(|op| op.counter <= change.max_op());
        own.any(|op| op.actor == change.actor) || claimed_upgrade(change).is_some()
    }

    fn sorted(mut self) -> Self {
        self.hashes.sort_unstable();
        self.hashes.dedup();
        self.numbers.sort_unstable();
        self.numbers.dedup();
        self.ops.sort_unstable();
        self.ops.dedup();
        self.first.sort_unstable();
        self.first.dedup();
        self.registers.sort_unstable();
        self.registers.dedup();
        self
    }
}

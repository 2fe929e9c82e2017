//! The admitted changes of one document, in memory: the plain reference for judging and merging.
//!
//! The store answers the same questions from its tables. This is what the tests hold it against, and
//! what small tools use that have no store.

use std::collections::BTreeMap;

use crate::change::past::{Judgement, Known, Past, Place, Refusal, judge};
use crate::change::{Action, Change, Key, Object, OpId, Scalar};
use crate::edit::Base;
use crate::genesis::{Below, SCHEMA_KEY, claimed_upgrade, genesis};
use crate::hlc::Hlc;
use crate::id::{ActorId, Author, ChangeHash, DocumentId};
use crate::merge::{Field, Holder};
use crate::schema::DocumentKind;

/// The history of one document.
#[derive(Debug, Clone)]
pub struct History {
    kind: DocumentKind,
    id: DocumentId,
    changes: BTreeMap<ChangeHash, Change>,
    clocks: BTreeMap<ChangeHash, BTreeMap<ActorId, u64>>,
    order: Vec<ChangeHash>,
    heads: Vec<ChangeHash>,
    max_op: u64,
    places: BTreeMap<OpId, Place>,
    fields: BTreeMap<(Object, String), Field>,
    authors: BTreeMap<ActorId, Author>,
    numbers: BTreeMap<(ActorId, u64), ChangeHash>,
    upgrades: BTreeMap<u32, Below>,
}

impl History {
    /// Starts a document: its genesis is there.
    pub fn new(kind: DocumentKind, id: DocumentId) -> Self {
        let mut history = Self {
            kind,
            id,
            changes: BTreeMap::new(),
            clocks: BTreeMap::new(),
            order: Vec::new(),
            heads: Vec::new(),
            max_op: 0,
            places: BTreeMap::new(),
            fields: BTreeMap::new(),
            authors: BTreeMap::new(),
            numbers: BTreeMap::new(),
            upgrades: BTreeMap::new(),
        };
        history.apply(genesis(kind).clone());
        history
    }

    /// Judges a change, and takes it if it is admitted. Taking one twice changes nothing.
    ///
    /// Of a fork the branch that came first is kept, and the other refused as out of sequence: the
    /// only verdict that depends on the order of arrival. See [`rival`](Self::rival).
    pub fn admit(&mut self, change: Change) -> Judgement {
        if self.changes.contains_key(&change.hash()) {
            return Judgement::Admitted;
        }
        let Ok(mut judgement) = judge(&change, self.kind, self.id, self);
        if judgement == Judgement::Admitted && self.rival(&change).is_some() {
            judgement = Judgement::Refused(Refusal::Sequence);
        }
        if judgement == Judgement::Admitted {
            self.apply(change);
        }
        judgement
    }

    /// Returns the other change that has the writer and the number of this one: a fork.
    pub fn rival(&self, change: &Change) -> Option<ChangeHash> {
        let known = self.numbers.get(&(change.actor, change.seq)).copied();
        known.filter(|hash| *hash != change.hash())
    }

    /// Returns which document this is.
    pub fn id(&self) -> DocumentId {
        self.id
    }

    /// Returns the heads, ascending.
    pub fn heads(&self) -> &[ChangeHash] {
        &self.heads
    }

    /// Returns the greatest operation counter.
    pub fn max_op(&self) -> u64 {
        self.max_op
    }

    /// Returns what holds a key of an object.
    pub fn field(&self, object: Object, key: &str) -> Field {
        self.fields.get(&(object, key.to_owned())).cloned().unwrap_or_default()
    }

    /// Returns every register with what holds it.
    pub fn fields(&self) -> &BTreeMap<(Object, String), Field> {
        &self.fields
    }

    /// Returns the changes in the order in which they were taken.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.order.iter().filter_map(|hash| self.changes.get(hash))
    }

    /// Finds a change by its hash.
    pub fn change(&self, hash: ChangeHash) -> Option<&Change> {
        self.changes.get(&hash)
    }

    /// Returns where the next change of `author` stands.
    pub fn base(&self, author: Author) -> Base {
        let actor = author.actor(self.id);
        let own = self.numbers.range((actor, 0)..=(actor, u64::MAX));
        let last = own.last().map(|((_, seq), hash)| (*seq, *hash));
        Base {
            author,
            actor,
            seq: last.map_or(1, |(seq, _)| seq + 1),
            max_op: self.max_op,
            heads: self.heads.clone(),
            last: last.map(|(_, hash)| hash),
        }
    }

    fn apply(&mut self, change: Change) {
        let mut clock = BTreeMap::new();
        for (actor, seq) in change.dependencies.iter().filter_map(|h| self.clocks.get(h)).flatten()
        {
            let entry = clock.entry(*actor).or_insert(*seq);
            *entry = (*entry).max(*seq);
        }
        clock.insert(change.actor, change.seq);
        for (id, op) in change.ops_with_ids() {
            let makes = op.action.makes();
            let key = if op.insert { Key::Element(id) } else { op.key.clone() };
            if !matches!(op.action, Action::Delete | Action::Increment(_)) {
                let place = Place { seq: change.seq, object: op.object, key, makes };
                self.places.insert(id, place);
            }
            let Key::Map(key) = &op.key else { continue };
            let field = self.fields.entry((op.object, key.clone())).or_default();
            field.supersede(&op.predecessors);
            if let Action::Put(value) = &op.action {
                let stamp = Hlc::of_change(change.time);
                field.put(Holder { op: id, stamp, value: value.clone() });
            }
        }
        self.note_upgrade(&change);
        self.authors.extend(change.author.map(|author| (change.actor, author)));
        self.heads.retain(|head| !change.dependencies.contains(head));
        self.heads.push(change.hash());
        self.heads.sort_unstable();
        self.max_op = self.max_op.max(change.max_op());
        self.numbers.insert((change.actor, change.seq), change.hash());
        self.clocks.insert(change.hash(), clock);
        self.order.push(change.hash());
        self.changes.insert(change.hash(), change);
    }

    fn note_upgrade(&mut self, change: &Change) {
        let first = change.hash() == genesis(self.kind).hash();
        let Some(schema) = claimed_upgrade(change).or(first.then_some(1)) else { return };
        let wrote_schema = change.ops_with_ids().find(|(_, op)| {
            op.key == Key::Map(SCHEMA_KEY.to_owned())
                && matches!(op.action, Action::Put(Scalar::Int(_)))
        });
        if let Some((schema_op, _)) = wrote_schema {
            let below = Below { hash: change.hash(), max_op: change.max_op(), schema_op };
            self.upgrades.insert(schema, below);
        }
    }
}

impl Past for History {
    type Error = std::convert::Infallible;

    fn find(&self, hash: ChangeHash) -> Result<Option<Known>, Self::Error> {
        Ok(self.changes.get(&hash).map(|change| Known {
            actor: change.actor,
            seq: change.seq,
            max_op: change.max_op(),
        }))
    }

    fn seq_in_past(&self, heads: &[ChangeHash], actor: ActorId) -> Result<u64, Self::Error> {
        let clocks = heads.iter().filter_map(|hash| self.clocks.get(hash));
        Ok(clocks.filter_map(|clock| clock.get(&actor).copied()).max().unwrap_or(0))
    }

    fn place(&self, op: OpId) -> Result<Option<Place>, Self::Error> {
        Ok(self.places.get(&op).cloned())
    }

    fn author(&self, actor: ActorId) -> Result<Option<Author>, Self::Error> {
        Ok(self.authors.get(&actor).copied())
    }

    fn below(&self, schema: u32) -> Result<Option<(Below, Vec<String>)>, Self::Error> {
        let Some(below) = schema.checked_sub(1).and_then(|n| self.upgrades.get(&n)) else {
            return Ok(None);
        };
        let at_root = self
            .places
            .iter()
            .filter(|(id, place)| place.object == Object::Root && id.counter <= below.max_op);
        let taken = at_root.filter_map(|(_, place)| match &place.key {
            Key::Map(key) => Some(key.clone()),
            Key::Head | Key::Element(_) => None,
        });
        Ok(Some((*below, taken.collect())))
    }
}

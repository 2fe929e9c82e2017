//! What a received change may mean, judged from its bytes and its own past alone.
//!
//! Every device decides alike, whatever arrived first: no rule here asks the clock, the settings or
//! what else is known.
//!
//! # Invariants
//!
//! 1. What is admitted, automerge applies, saves and loads again with the same heads.
//! 2. The cost depends on the change, not on the document.
//!
//! # What is not here
//!
//! Forks: of two changes with one (actor, seq) that do not know each other, each is admitted by its
//! own past. Whoever keeps the changes notices that the number is taken.

use std::collections::BTreeMap;

use crate::genesis::{Below, claimed_upgrade, genesis, is_upgrade};
use crate::id::{ActorId, AnnotationId, Author, ChangeHash, DocumentId};
use crate::schema::{Container, DocumentKind, RecordKey, record_key};

use super::read::{COUNTER_MAX, OPS_MAX};
use super::{Action, Change, Key, Object, ObjectKind, Op, OpId, Scalar};

/// What is known of a change that another one depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Who wrote it.
    pub actor: ActorId,
    /// Its number among those of the actor.
    pub seq: u64,
    /// The counter of its last operation.
    pub max_op: u64,
}

/// What an operation wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The number of its change among those of the actor.
    pub seq: u64,
    /// The object.
    pub object: Object,
    /// The place in the object. An insertion wrote the element it made.
    pub key: Key,
    /// What kind of object it made, if it made one.
    pub makes: Option<ObjectKind>,
}

/// The admitted changes of one document, as far as judging another one needs them.
pub trait Past {
    /// Why the past cannot be read.
    type Error;

    /// Finds an admitted change by its hash.
    ///
    /// # Errors
    ///
    /// If the past cannot be read.
    fn find(&self, hash: ChangeHash) -> Result<Option<Known>, Self::Error>;

    /// Returns the number of the actor's last change that is among `heads` or in their past, 0 if none.
    ///
    /// # Errors
    ///
    /// If the past cannot be read.
    fn seq_in_past(&self, heads: &[ChangeHash], actor: ActorId) -> Result<u64, Self::Error>;

    /// Finds what an operation wrote. A deletion and an increment wrote nothing that can be superseded.
    ///
    /// # Errors
    ///
    /// If the past cannot be read.
    fn place(&self, op: OpId) -> Result<Option<Place>, Self::Error>;

    /// Returns who an actor is, from its first change.
    ///
    /// # Errors
    ///
    /// If the past cannot be read.
    fn author(&self, actor: ActorId) -> Result<Option<Author>, Self::Error>;

    /// Returns what the upgrade to `schema` would build on, and the keys at the root so far.
    ///
    /// # Errors
    ///
    /// If the past cannot be read.
    fn below(&self, schema: u32) -> Result<Option<(Below, Vec<String>)>, Self::Error>;
}

/// What is decided about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It counts.
    Admitted,
    /// It waits for these.
    Missing(Vec<ChangeHash>),
    /// No device will ever take it.
    Refused(Refusal),
}

/// The rule that a change breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It depends on nothing and is not the first change of its document.
    #[error("it builds on nothing")]
    NoDependency,
    /// Its dependencies are not distinct and ascending.
    #[error("its dependencies are not in order")]
    Dependencies,
    /// It is not the next change of its actor.
    #[error("it does not follow its writer's change before")]
    Sequence,
    /// Its first operation is not one above its past.
    #[error("its operations are not numbered from its past")]
    StartOp,
    /// It has no operations, or too many.
    #[error("it has no operations, or too many")]
    OpCount,
    /// It names no author where it must, names one where it must not, or the wrong one.
    #[error("its author does not fit its writer")]
    Author,
    /// It carries a message.
    #[error("it carries a message")]
    Message,
    /// It looks like an upgrade of the schema and has not its form.
    #[error("it is not a proper upgrade of the schema")]
    Upgrade,
    /// It writes where this kind of document allows no writing, or to what is not in its past.
    #[error("it writes outside the containers of its document")]
    Object,
    /// It does what this container or this kind of object does not allow.
    #[error("it does what its container does not allow")]
    Action,
    /// It writes a key that names another device.
    #[error("it writes what only another device may write")]
    Owner,
    /// It writes an annotation a second time.
    #[error("it replaces what may only be created")]
    Immutable,
    /// It names a predecessor outside its past, of another key, twice, or out of order.
    #[error("it supersedes what it cannot have seen")]
    Predecessor,
}

/// Judges a change of the document `id` by its meaning.
///
/// # Errors
///
/// Only if the past cannot be read; a change that breaks a rule is a [`Judgement`].
pub fn judge<P: Past>(
    change: &Change,
    kind: DocumentKind,
    id: DocumentId,
    past: &P,
) -> Result<Judgement, P::Error> {
    if change.hash() == genesis(kind).hash() {
        return Ok(Judgement::Admitted);
    }
    if let Err(refusal) = check_form(change) {
        return Ok(Judgement::Refused(refusal));
    }
    let mut known = Vec::with_capacity(change.dependencies.len());
    let mut missing = Vec::new();
    for hash in &change.dependencies {
        match past.find(*hash)? {
            Some(found) => known.push(found),
            None => missing.push(*hash),
        }
    }
    if !missing.is_empty() {
        return Ok(Judgement::Missing(missing));
    }
    let own = OwnPlaces::of(change);
    let mut judge = Judge { change, kind, id, past, own, seqs: BTreeMap::new() };
    match judge.check(&known) {
        Ok(()) => Ok(Judgement::Admitted),
        Err(Stop::Refused(refusal)) => Ok(Judgement::Refused(refusal)),
        Err(Stop::Unreadable(error)) => Err(error),
    }
}

fn check_form(change: &Change) -> Result<(), Refusal> {
    if change.dependencies.is_empty() {
        return Err(Refusal::NoDependency);
    }
    if !change.dependencies.is_sorted_by(|a, b| a < b) {
        return Err(Refusal::Dependencies);
    }
    if change.ops.is_empty() || OPS_MAX < change.ops.len() {
        return Err(Refusal::OpCount);
    }
    if !change.message.is_empty() {
        return Err(Refusal::Message);
    }
    Ok(())
}

/// Why judging ends early.
enum Stop<E> {
    Refused(Refusal),
    Unreadable(E),
}

impl<E> From<Refusal> for Stop<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// One change of which every dependency is known.
struct Judge<'a, P> {
    change: &'a Change,
    kind: DocumentKind,
    id: DocumentId,
    past: &'a P,
    own: OwnPlaces,
    /// What [`Past::seq_in_past`] has answered: a change may name one actor many times.
    seqs: BTreeMap<ActorId, u64>,
}

impl<P: Past> Judge<'_, P> {
    fn check(&mut self, known: &[Known]) -> Result<(), Stop<P::Error>> {
        let change = self.change;
        if let Some(schema) = claimed_upgrade(change) {
            let below = self.past.below(schema).map_err(Stop::Unreadable)?;
            let proper =
                |(below, taken): (Below, Vec<String>)| is_upgrade(change, schema, &below, &taken);
            return require(below.is_some_and(proper), Refusal::Upgrade);
        }
        self.check_sequence(known)?;
        let author = self.author()?;
        let before = known.iter().map(|known| known.max_op).max().unwrap_or(0);
        let counted = change.start_op == before + 1 && change.max_op() <= COUNTER_MAX;
        require(counted, Refusal::StartOp)?;
        for (id, op) in change.ops_with_ids() {
            match self.kind {
                DocumentKind::Book | DocumentKind::Library => self.check_register(op, author)?,
                DocumentKind::Notes => self.check_notes(id, op)?,
            }
            self.check_predecessors(id, op)?;
        }
        Ok(())
    }

    /// The change before is a dependency, and no other change of the actor is in the past.
    fn check_sequence(&mut self, known: &[Known]) -> Result<(), Stop<P::Error>> {
        let (actor, seq) = (self.change.actor, self.change.seq);
        let follows = |before: &Known| before.actor == actor && before.seq + 1 == seq;
        require(seq == 1 || known.iter().any(follows), Refusal::Sequence)?;
        // A single dependency that is the change before has nothing of the actor above itself.
        let alone = 1 < seq && known.len() == 1;
        require(alone || self.seq_in_past(actor)? + 1 == seq, Refusal::Sequence)
    }

    fn author(&self) -> Result<Author, Stop<P::Error>> {
        let change = self.change;
        match change.author {
            Some(author) => {
                let fits = change.seq == 1 && author.actor(self.id) == change.actor;
                require(fits, Refusal::Author)?;
                Ok(author)
            }
            None if change.seq == 1 => Err(Refusal::Author.into()),
            None => {
                let author = self.past.author(change.actor).map_err(Stop::Unreadable)?;
                author.ok_or(Stop::Refused(Refusal::Author))
            }
        }
    }

    fn seq_in_past(&mut self, actor: ActorId) -> Result<u64, Stop<P::Error>> {
        if let Some(seq) = self.seqs.get(&actor) {
            return Ok(*seq);
        }
        let seq = self.past.seq_in_past(&self.change.dependencies, actor);
        let seq = seq.map_err(Stop::Unreadable)?;
        self.seqs.insert(actor, seq);
        Ok(seq)
    }

    /// Returns what an operation wrote, if it is in the past of the change.
    fn place_in_past(&mut self, op: OpId) -> Result<Option<Place>, Stop<P::Error>> {
        let Some(place) = self.past.place(op).map_err(Stop::Unreadable)? else { return Ok(None) };
        let seen = place.seq <= self.seq_in_past(op.actor)?;
        Ok(seen.then_some(place))
    }

    fn is_own(&self, op: OpId) -> bool {
        op.actor == self.change.actor && self.change.start_op <= op.counter
    }

    fn check_register(&mut self, op: &Op, author: Author) -> Result<(), Stop<P::Error>> {
        let (Key::Map(key), false) = (&op.key, op.insert) else {
            return Err(Refusal::Action.into());
        };
        let container = self.kind.container(op.object);
        if container.is_none() {
            let made = self.is_upgrade_container(op.object)?;
            require(made, Refusal::Object)?;
        }
        // What a newer release made takes any write of a register: what is refused here would have
        // to be refused there too, and what is admitted here can never be refused there.
        let may_delete = container.is_none_or(Container::may_delete);
        let allowed = match &op.action {
            Action::Put(value) => !matches!(value, Scalar::Counter(_)),
            // Automerge would lose a deletion of nothing when it saves.
            Action::Delete => may_delete && !op.predecessors.is_empty(),
            Action::MakeMap
            | Action::MakeList
            | Action::MakeText
            | Action::MakeTable
            | Action::Increment(_)
            | Action::Mark { .. } => false,
        };
        require(allowed, Refusal::Action)?;
        let Some(container) = container else { return Ok(()) };
        let foreign = container.owner(key).is_some_and(|owner| owner != Some(author.device));
        require(!foreign, Refusal::Owner)?;
        let creation = container == Container::Annotations
            && matches!(record_key::<AnnotationId>(key), Some(RecordKey::Record(_)));
        require(!creation || op.predecessors.is_empty(), Refusal::Immutable)
    }

    /// Whether this is a container that a newer release made, in this change's past.
    fn is_upgrade_container(&mut self, object: Object) -> Result<bool, Stop<P::Error>> {
        let Object::Made(id) = object else { return Ok(false) };
        if id.actor == ActorId::of_schema(1) {
            return Ok(false);
        }
        let place = self.place_in_past(id)?;
        Ok(place.is_some_and(|place| place.makes.is_some() && place.object == Object::Root))
    }

    /// Anything goes under the journal and the application's data that Automerge can carry out: the
    /// object is there, the key is of its kind, and an element was inserted before it is named.
    fn check_notes(&mut self, id: OpId, op: &Op) -> Result<(), Stop<P::Error>> {
        let Object::Made(object) = op.object else { return Err(Refusal::Object.into()) };
        let kind = if self.is_own(object) {
            self.own_action(object, id).and_then(Action::makes)
        } else {
            self.place_in_past(object)?.and_then(|place| place.makes)
        };
        let Some(kind) = kind else { return Err(Refusal::Object.into()) };
        let fits = match (kind, &op.key) {
            (ObjectKind::Map, Key::Map(_)) => !op.insert,
            (ObjectKind::List | ObjectKind::Text, Key::Head) => op.insert,
            (ObjectKind::List | ObjectKind::Text, Key::Element(element)) => {
                let there = self.is_element(op.object, *element, id)?;
                require(there, Refusal::Object)?;
                true
            }
            (ObjectKind::Map, Key::Head | Key::Element(_))
            | (ObjectKind::List | ObjectKind::Text, Key::Map(_)) => false,
        };
        let allowed = match op.action {
            Action::Delete | Action::Increment(_) => !op.insert && !op.predecessors.is_empty(),
            Action::Mark { .. } => op.insert && kind == ObjectKind::Text,
            Action::Put(_) | Action::MakeMap | Action::MakeList | Action::MakeText => true,
            // Automerge stops at what is written into one.
            Action::MakeTable => false,
        };
        require(fits && allowed, Refusal::Action)
    }

    /// Returns what this change itself does in `op`, if that stands before `before`.
    fn own_action(&self, op: OpId, before: OpId) -> Option<&Action> {
        self.own_op(op, before).map(|op| &op.action)
    }

    fn own_op(&self, op: OpId, before: OpId) -> Option<&Op> {
        let row = usize::try_from(op.counter.checked_sub(self.change.start_op)?).ok()?;
        self.change.ops.get(row).filter(|_| op.counter < before.counter)
    }

    fn is_element(
        &mut self,
        object: Object,
        element: OpId,
        before: OpId,
    ) -> Result<bool, Stop<P::Error>> {
        if self.is_own(element) {
            let inserted = self.own_op(element, before);
            return Ok(inserted.is_some_and(|op| op.insert && op.object == object));
        }
        let place = self.place_in_past(element)?;
        Ok(place.is_some_and(|p| p.object == object && p.key == Key::Element(element)))
    }

    fn check_predecessors(&mut self, id: OpId, op: &Op) -> Result<(), Stop<P::Error>> {
        let ordered = op.predecessors.is_sorted_by(|a, b| a < b);
        require(ordered, Refusal::Predecessor)?;
        let place = PlaceKey::of(id, op);
        if let Some(counter) = self.own.holder_before(&place, id.counter) {
            let earlier = OpId { counter, actor: self.change.actor };
            let named = op.predecessors.binary_search(&earlier).is_ok();
            require(named, Refusal::Predecessor)?;
        }
        for predecessor in &op.predecessors {
            let fits = if self.is_own(*predecessor) {
                predecessor.counter < id.counter && self.own.holds(&place, predecessor.counter)
            } else {
                let written = self.place_in_past(*predecessor)?;
                written.is_some_and(|written| place.is(written.object, &written.key))
            };
            require(fits, Refusal::Predecessor)?;
        }
        Ok(())
    }
}

fn require<E>(fits: bool, refusal: Refusal) -> Result<(), Stop<E>> {
    if fits { Ok(()) } else { Err(Stop::Refused(refusal)) }
}

/// Where an operation wrote, as something to compare: an insertion wrote the element it made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PlaceKey(Object, Option<String>, Option<OpId>);

impl PlaceKey {
    fn of(id: OpId, op: &Op) -> Self {
        match &op.key {
            _ if op.insert => Self(op.object, None, Some(id)),
            Key::Map(text) => Self(op.object, Some(text.clone()), None),
            Key::Element(id) => Self(op.object, None, Some(*id)),
            Key::Head => Self(op.object, None, None),
        }
    }

    fn is(&self, object: Object, key: &Key) -> bool {
        let same = match key {
            Key::Map(text) => self.1.as_ref() == Some(text),
            Key::Element(id) => self.2 == Some(*id),
            Key::Head => self.1.is_none() && self.2.is_none(),
        };
        self.0 == object && same
    }
}

/// The places a change writes itself, ascending by place, then counter; and whether each operation
/// holds its place afterwards, as a deletion and an increment do not.
struct OwnPlaces {
    sorted: Vec<(PlaceKey, u64, bool)>,
}

impl OwnPlaces {
    fn of(change: &Change) -> Self {
        let place = |(id, op): (OpId, &Op)| {
            let holds = !matches!(op.action, Action::Delete | Action::Increment(_));
            (PlaceKey::of(id, op), id.counter, holds)
        };
        let mut sorted: Vec<_> = change.ops_with_ids().map(place).collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// Returns the operation that holds the place just before `counter`.
    fn holder_before(&self, place: &PlaceKey, counter: u64) -> Option<u64> {
        let end = self.sorted.partition_point(|(other, at, _)| (other, *at) < (place, counter));
        let (other, at, holds) = self.sorted.get(end.checked_sub(1)?)?;
        (other == place && *holds).then_some(*at)
    }

    fn holds(&self, place: &PlaceKey, counter: u64) -> bool {
        let found =
            self.sorted.binary_search_by(|(other, at, _)| (other, *at).cmp(&(place, counter)));
        found.ok().and_then(|at| self.sorted.get(at)).is_some_and(|(_, _, holds)| *holds)
    }
}

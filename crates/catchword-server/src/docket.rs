//! Deciding about the entries of one document, from rows that were loaded before: no database, no
//! document, no clock.
//!
//! # Invariants
//!
//! 1. An entry counts as a whole or not at all.
//! 2. Everything that counts is covered: of each chain, an entry's last new change or event has a
//!    statement of its own.
//! 3. What became of a change is decided once, and answered again for ever.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::change::past::{Judgement, Known, Past, Place, judge};
use catchword_model::change::read::read;
use catchword_model::change::{Action, Change, Key, Object, OpId, Scalar};
use catchword_model::event::ReadingEvent;
use catchword_model::exchange::DocumentName;
use catchword_model::genesis::{Below, SCHEMA_KEY, claimed_upgrade, genesis};
use catchword_model::id::{ActorId, Author, ChangeHash, EventHash};
use catchword_proto::cloud::api::{
    ChainKind, DOCUMENTS_MAX, Hash, Outcome, Reason, Receipt, Verdict, WireStatement,
};

use crate::entry::Reading;
use crate::fold::{Fold, RegisterKey};

/// Actors of a document: those that wrote a change or an event.
pub(crate) const ACTORS_MAX: u64 = 1_024;

/// How far each actor is in the past of a change, and the change itself.
pub(crate) type Clock = BTreeMap<ActorId, u64>;

/// A change or event that the server has, without its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    pub(crate) chain: ChainKind,
    pub(crate) actor: ActorId,
    pub(crate) number: u64,
    pub(crate) hash: [u8; 32],
    /// The first operation; 0 for an event.
    pub(crate) start_op: u64,
    /// The last operation; 0 for an event.
    pub(crate) max_op: u64,
    /// Who the actor is: as its first change says. None for an event and an upgrade.
    pub(crate) author: Option<Author>,
    /// Empty for an event.
    pub(crate) clock: Clock,
    pub(crate) verdict: Verdict,
}

/// What is kept of a document beside its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DocumentRow {
    /// How many changes there are.
    pub(crate) version: u64,
    /// How many events.
    pub(crate) events: u64,
    /// How many chains were begun.
    pub(crate) actors: u64,
}

/// What was loaded of a document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    pub(crate) row: DocumentRow,
    pub(crate) links: Vec<Link>,
    /// Changes with their bytes, for what their operations wrote.
    pub(crate) sources: Vec<Vec<u8>>,
    pub(crate) fold: Vec<(RegisterKey, Vec<u8>)>,
}

/// Something that counts now and did not before.
#[derive(Debug, Clone)]
pub(crate) struct NewRecord {
    pub(crate) document: DocumentName,
    pub(crate) version: u64,
    pub(crate) link: Link,
    pub(crate) statement: Option<WireStatement>,
    pub(crate) bytes: Vec<u8>,
}

/// The entries of one document while they are decided.
#[derive(Debug)]
pub(crate) struct Docket {
    document: DocumentName,
    row: DocumentRow,
    links: BTreeMap<[u8; 32], Link>,
    numbers: BTreeMap<(ChainKind, ActorId, u64), [u8; 32]>,
    authors: BTreeMap<ActorId, Author>,
    /// By writer and first operation.
    sources: BTreeMap<(ActorId, u64), Change>,
    fold: Fold,
}

/// Why an entry is not taken.
#[derive(Debug, Default)]
struct Lack {
    missing: BTreeSet<ChangeHash>,
    missing_events: BTreeSet<EventHash>,
    uncovered: BTreeSet<Hash>,
}

impl Docket {
    pub(crate) fn new(document: DocumentName, loaded: Loaded) -> Self {
        let mut docket = Self {
            document,
            row: loaded.row,
            links: BTreeMap::new(),
            numbers: BTreeMap::new(),
            authors: BTreeMap::new(),
            sources: BTreeMap::new(),
            fold: Fold::new(loaded.fold),
        };
        for link in loaded.links {
            docket.add_link(link);
        }
        // What does not read any more is as if it were not there: nothing can be built on it.
        for change in loaded.sources.iter().filter_map(|bytes| read(bytes).ok()) {
            docket.add_source(change);
        }
        docket
    }

    pub(crate) const fn document(&self) -> DocumentName {
        self.document
    }

    pub(crate) const fn row(&self) -> DocumentRow {
        self.row
    }

    pub(crate) const fn fold(&self) -> &Fold {
        &self.fold
    }

    /// Returns whether the account has nothing of the document.
    pub(crate) const fn is_new(&self) -> bool {
        self.row.version == 0 && self.row.events == 0
    }

    /// Decides about an entry. `documents` is how many the account has.
    pub(crate) fn decide(
        &mut self,
        reading: &Reading,
        documents: u64,
    ) -> (Outcome, Vec<NewRecord>) {
        if self.is_new() && DOCUMENTS_MAX <= documents {
            let outcome = Outcome::Refused { reason: Reason::TooManyDocuments, hash: None };
            return (outcome, Vec::new());
        }
        let mut added = Vec::new();
        match self.judge_all(reading, &mut added) {
            Ok(()) => self.take(reading, &added),
            Err(outcome) => {
                for hash in added {
                    self.remove_link(&hash);
                }
                (outcome, Vec::new())
            }
        }
    }

    /// Judges what is not known, in order. What is admitted is noted in `added`.
    fn judge_all(&mut self, reading: &Reading, added: &mut Vec<[u8; 32]>) -> Result<(), Outcome> {
        let mut lack = Lack::default();
        for change in &reading.changes {
            if self.links.contains_key(&change.hash().0) {
                continue;
            }
            let link = self.judge_change(change, &mut lack)?;
            if let Some(link) = link {
                added.push(link.hash);
                self.add_link(link);
                self.add_source(change.clone());
            }
        }
        for event in &reading.events {
            if self.links.contains_key(&event.hash().0) {
                continue;
            }
            let link = self.judge_event(event, &mut lack)?;
            if let Some(link) = link {
                added.push(link.hash);
                self.add_link(link);
            }
        }
        self.check_covered(reading, added, &mut lack);
        lack.into_outcome()?;
        let begun = self.begun(added);
        if begun != 0 && ACTORS_MAX < self.row.actors + begun {
            return Err(Outcome::Refused { reason: Reason::TooManyActors, hash: None });
        }
        Ok(())
    }

    fn judge_change(&self, change: &Change, lack: &mut Lack) -> Result<Option<Link>, Outcome> {
        let hash = change.hash();
        let refused = |reason| Outcome::Refused { reason, hash: Some(Hash(hash.0)) };
        let Ok(judgement) = judge(change, self.document.kind(), self.document.id(), self);
        match judgement {
            Judgement::Admitted => (),
            Judgement::Missing(missing) => {
                lack.missing.extend(missing);
                return Ok(None);
            }
            Judgement::Refused(_) => return Err(refused(Reason::Rule)),
        }
        if self.numbers.contains_key(&(ChainKind::Changes, change.actor, change.seq)) {
            return Err(refused(Reason::Fork));
        }
        let mut clock = Clock::new();
        for link in change.dependencies.iter().filter_map(|hash| self.links.get(&hash.0)) {
            for (actor, seq) in &link.clock {
                let entry = clock.entry(*actor).or_insert(*seq);
                *entry = (*entry).max(*seq);
            }
        }
        clock.insert(change.actor, change.seq);
        Ok(Some(Link {
            chain: ChainKind::Changes,
            actor: change.actor,
            number: change.seq,
            hash: hash.0,
            start_op: change.start_op,
            max_op: change.max_op(),
            author: change.author.or_else(|| self.authors.get(&change.actor).copied()),
            clock,
            verdict: Verdict::Accepted,
        }))
    }

    fn judge_event(&self, event: &ReadingEvent, lack: &mut Lack) -> Result<Option<Link>, Outcome> {
        let hash = event.hash().0;
        let fork = Outcome::Refused { reason: Reason::Fork, hash: Some(Hash(hash)) };
        if self.numbers.contains_key(&(ChainKind::Events, event.actor, event.n)) {
            return Err(fork);
        }
        if 1 < event.n {
            let Some(before) = self.links.get(&event.before.0) else {
                lack.missing_events.insert(event.before);
                return Ok(None);
            };
            let follows = (before.chain, before.actor, before.number + 1)
                == (ChainKind::Events, event.actor, event.n);
            if !follows {
                return Err(Outcome::Refused { reason: Reason::Event, hash: Some(Hash(hash)) });
            }
        }
        Ok(Some(Link {
            chain: ChainKind::Events,
            actor: event.actor,
            number: event.n,
            hash,
            start_op: 0,
            max_op: 0,
            author: None,
            clock: Clock::new(),
            verdict: Verdict::Accepted,
        }))
    }

    /// Notes the last new one of each chain that has no statement. An upgrade of the schema needs none.
    fn check_covered(&self, reading: &Reading, added: &[[u8; 32]], lack: &mut Lack) {
        let mut last: BTreeMap<(ChainKind, ActorId), &Link> = BTreeMap::new();
        for link in added.iter().filter_map(|hash| self.links.get(hash)) {
            last.insert((link.chain, link.actor), link);
        }
        let upgrades: BTreeSet<[u8; 32]> = reading
            .changes
            .iter()
            .filter(|change| claimed_upgrade(change).is_some())
            .map(|change| change.hash().0)
            .collect();
        for ((chain, actor), link) in last {
            if !upgrades.contains(&link.hash)
                && !reading.states(chain, actor, link.number, &link.hash)
            {
                lack.uncovered.insert(Hash(link.hash));
            }
        }
    }

    fn begun(&self, added: &[[u8; 32]]) -> u64 {
        let links = added.iter().filter_map(|hash| self.links.get(hash));
        links.filter(|link| link.number == 1).count() as u64
    }

    /// Takes an entry of which everything counts.
    fn take(&mut self, reading: &Reading, added: &[[u8; 32]]) -> (Outcome, Vec<NewRecord>) {
        let current = self.row.version;
        self.row.actors += self.begun(added);
        let added: BTreeSet<[u8; 32]> = added.iter().copied().collect();
        let mut left = added;
        let mut records = Vec::with_capacity(left.len());
        let mut verdicts = Vec::with_capacity(reading.changes.len());
        let kind = self.document.kind();
        for change in &reading.changes {
            let hash = change.hash().0;
            // One that stands twice in the entry is new only once.
            if left.remove(&hash) {
                self.row.version += 1;
                let verdict = self.fold.apply(change, kind, reading.replay);
                if let Some(link) = self.links.get_mut(&hash) {
                    link.verdict = verdict;
                }
                records.extend(self.record(reading, hash, change.bytes().to_vec()));
            }
            verdicts.extend(self.links.get(&hash).map(|link| link.verdict));
        }
        for event in &reading.events {
            let hash = event.hash().0;
            if left.remove(&hash) {
                self.row.events += 1;
                records.extend(self.record(reading, hash, event.encode()));
            }
        }
        let merged = reading.base_version == current;
        let again =
            verdicts.iter().any(|verdict| matches!(verdict, Verdict::Restamp | Verdict::Void));
        let stale = verdicts.contains(&Verdict::Withdrawn);
        let version = self.row.version;
        let receipt = Receipt { version, verdicts, place: self.fold.place() };
        let outcome = match (stale, merged && !again) {
            (true, _) => Outcome::Conflict(receipt),
            (false, true) => Outcome::Accepted(receipt),
            (false, false) => Outcome::Rebased(receipt),
        };
        (outcome, records)
    }

    fn record(&self, reading: &Reading, hash: [u8; 32], bytes: Vec<u8>) -> Option<NewRecord> {
        let link = self.links.get(&hash)?.clone();
        let stated = reading.states(link.chain, link.actor, link.number, &hash);
        let statement = reading.statements.get(&hash).filter(|_| stated).cloned();
        let (document, version) = (self.document, self.row.version);
        Some(NewRecord { document, version, link, statement, bytes })
    }

    fn add_link(&mut self, link: Link) {
        self.numbers.insert((link.chain, link.actor, link.number), link.hash);
        self.authors.extend(link.author.map(|author| (link.actor, author)));
        self.links.insert(link.hash, link);
    }

    fn remove_link(&mut self, hash: &[u8; 32]) {
        let Some(link) = self.links.remove(hash) else { return };
        self.numbers.remove(&(link.chain, link.actor, link.number));
        self.sources.remove(&(link.actor, link.start_op));
        if link.number == 1 {
            self.authors.remove(&link.actor);
        }
    }

    fn add_source(&mut self, change: Change) {
        self.sources.insert((change.actor, change.start_op), change);
    }

    fn upgrade(&self, schema: u32) -> Option<&Change> {
        if schema == 1 {
            return Some(genesis(self.document.kind()));
        }
        let actor = ActorId::of_schema(schema);
        let mut changes = self.sources.range((actor, 0)..=(actor, u64::MAX));
        changes.next().map(|(_, change)| change)
    }
}

impl Lack {
    fn into_outcome(self) -> Result<(), Outcome> {
        if self.missing.is_empty() && self.missing_events.is_empty() && self.uncovered.is_empty() {
            return Ok(());
        }
        Err(Outcome::Incomplete {
            missing: self.missing.into_iter().collect(),
            missing_events: self.missing_events.into_iter().collect(),
            uncovered: self.uncovered.into_iter().collect(),
        })
    }
}

impl Past for Docket {
    type Error = std::convert::Infallible;

    fn find(&self, hash: ChangeHash) -> Result<Option<Known>, Self::Error> {
        let first = genesis(self.document.kind());
        if hash == first.hash() {
            return Ok(Some(Known { actor: first.actor, seq: first.seq, max_op: first.max_op() }));
        }
        let link = self.links.get(&hash.0).filter(|link| link.chain == ChainKind::Changes);
        let known =
            |link: &Link| Known { actor: link.actor, seq: link.number, max_op: link.max_op };
        Ok(link.map(known))
    }

    fn seq_in_past(&self, heads: &[ChangeHash], actor: ActorId) -> Result<u64, Self::Error> {
        if actor == ActorId::of_schema(1) {
            return Ok(1);
        }
        let links = heads.iter().filter_map(|hash| self.links.get(&hash.0));
        Ok(links.filter_map(|link| link.clock.get(&actor).copied()).max().unwrap_or(0))
    }

    fn place(&self, op: OpId) -> Result<Option<Place>, Self::Error> {
        if op.actor == ActorId::of_schema(1) {
            return Ok(place_in(genesis(self.document.kind()), op));
        }
        let mut below = self.sources.range((op.actor, 0)..=(op.actor, op.counter));
        Ok(below.next_back().and_then(|(_, change)| place_in(change, op)))
    }

    fn author(&self, actor: ActorId) -> Result<Option<Author>, Self::Error> {
        Ok(self.authors.get(&actor).copied())
    }

    fn below(&self, schema: u32) -> Result<Option<(Below, Vec<String>)>, Self::Error> {
        let Some(before) = schema.checked_sub(1).and_then(|before| self.upgrade(before)) else {
            return Ok(None);
        };
        let wrote_schema = before.ops_with_ids().find(|(_, op)| {
            op.key == Key::Map(SCHEMA_KEY.to_owned())
                && matches!(op.action, Action::Put(Scalar::Int(_)))
        });
        let Some((schema_op, _)) = wrote_schema else { return Ok(None) };
        let earlier = (1..schema).filter_map(|schema| self.upgrade(schema));
        let taken = earlier.flat_map(|change| &change.ops).filter_map(|op| match &op.key {
            Key::Map(key) if op.object == Object::Root => Some(key.clone()),
            Key::Map(_) | Key::Head | Key::Element(_) => None,
        });
        let below = Below { hash: before.hash(), max_op: before.max_op(), schema_op };
        Ok(Some((below, taken.collect())))
    }
}

fn place_in(change: &Change, id: OpId) -> Option<Place> {
    let row = usize::try_from(id.counter.checked_sub(change.start_op)?).ok()?;
    let op = change.ops.get(row)?;
    let wrote = !matches!(op.action, Action::Delete | Action::Increment(_));
    let key = if op.insert { Key::Element(id) } else { op.key.clone() };
    let makes = op.action.makes();
    wrote.then_some(Place { seq: change.seq, object: op.object, key, makes })
}

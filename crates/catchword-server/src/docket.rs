//! Deciding about the entries of one document, from rows that were loaded before: no database, no
//! document, no clock.
//!
//! # Invariants
//!
//! 1. An entry is taken as a whole or not at all.
//! 2. Everything that is taken is covered: where a chain ends in an entry, its last new change or event
//!    has a statement of its own. So both sides of a fork are proven.
//! 3. What became of a change is decided once, and answered again for ever, unless it becomes void.
//! 4. A change is judged by its own past: beside a change that counts only those that count are seen,
//!    and beside one that builds on something void exactly what it builds on.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::change::past::{Judgement, Known, Past, Place, judge};
use catchword_model::change::read::read;
use catchword_model::change::{Action, Change, Key, Object, OpId, Scalar};
use catchword_model::event::ReadingEvent;
use catchword_model::exchange::DocumentName;
use catchword_model::genesis::{Below, SCHEMA_KEY, genesis};
use catchword_model::id::{ActorId, Author, ChangeHash, EventHash};
use catchword_proto::cloud::api::{
    ChainKind, DOCUMENTS_MAX, Hash, Outcome, Reason, Receipt, Verdict, WireStatement,
};

use crate::entry::{Reading, Wanted};
use crate::fold::{Fold, RegisterKey, concerns};
use crate::forks::{Ancestors, Lineage};

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
    /// How many changes there are, void or not.
    pub(crate) version: u64,
    /// How many events count.
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
    /// Everything there is, in the order of the feed, where a writer has two histories; then the fold is
    /// whole, too.
    pub(crate) whole: Option<Vec<(Link, Vec<u8>)>>,
}

/// Something that is in the feed now and was not before.
#[derive(Debug, Clone)]
pub(crate) struct NewRecord {
    pub(crate) document: DocumentName,
    pub(crate) version: u64,
    pub(crate) link: Link,
    pub(crate) statement: Option<WireStatement>,
    /// Empty where this says no more than that the link is void.
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: RecordKind,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// The link is there.
    Link,
    /// The link does not count any more, or never did.
    Void,
}

/// The entries of one document while they are decided.
#[derive(Debug)]
pub(crate) struct Docket {
    document: DocumentName,
    row: DocumentRow,
    links: BTreeMap<[u8; 32], Link>,
    authors: BTreeMap<ActorId, Author>,
    /// By writer, first operation and hash.
    sources: BTreeMap<(ActorId, u64, [u8; 32]), Change>,
    fold: Fold,
    forks: Option<Forks>,
}

/// What is needed where a writer has two histories.
#[derive(Debug, Default)]
struct Forks {
    lineage: Lineage,
    /// The changes that the fold is made of, in order.
    folded: Vec<Change>,
    /// What was in the feed before and is void now.
    voided: BTreeSet<[u8; 32]>,
}

/// An entry while it is tried.
#[derive(Debug, Default)]
struct Trial {
    /// What is new, in order.
    added: Vec<[u8; 32]>,
    /// What something new of the same chain follows.
    followed: BTreeSet<[u8; 32]>,
    /// What is new and the second history of its writer.
    forks: Vec<[u8; 32]>,
    /// What counted and does not any more, with what was decided about it.
    voided: Vec<([u8; 32], Verdict)>,
    lack: Lack,
}

/// Why an entry is not taken.
#[derive(Debug, Default)]
struct Lack {
    missing: BTreeSet<ChangeHash>,
    missing_events: BTreeSet<EventHash>,
    uncovered: BTreeSet<Hash>,
}

impl Docket {
    pub(crate) fn new(wanted: &Wanted, loaded: Loaded) -> Self {
        let mut docket = Self {
            document: wanted.document,
            row: loaded.row,
            links: BTreeMap::new(),
            authors: BTreeMap::new(),
            sources: BTreeMap::new(),
            fold: Fold::new(loaded.fold),
            forks: None,
        };
        for link in loaded.links {
            docket.add_link(link);
        }
        // What does not read any more is as if it were not there: nothing can be built on it.
        for change in loaded.sources.iter().filter_map(|bytes| read(bytes).ok()) {
            docket.add_source(change);
        }
        if let Some(whole) = loaded.whole {
            docket.add_all(wanted, whole);
        }
        docket
    }

    /// Takes everything there is.
    fn add_all(&mut self, wanted: &Wanted, whole: Vec<(Link, Vec<u8>)>) {
        let mut forks = Forks::default();
        for (link, bytes) in whole {
            match link.chain {
                ChainKind::Events => {
                    let before = ReadingEvent::decode(&bytes).ok().map(|event| event.before.0);
                    forks.lineage.load(&link, before.as_slice());
                }
                ChainKind::Changes => match read(&bytes) {
                    Ok(change) => {
                        forks.lineage.load(&link, &builds_on(&change));
                        if wanted.names(&change) {
                            self.add_source(change.clone());
                        }
                        if concerns(&change, self.document.kind()) {
                            forks.folded.push(change);
                        }
                    }
                    Err(_) => forks.lineage.load(&link, &[]),
                },
            }
            self.add_link(link);
        }
        self.forks = Some(forks);
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
        let mut trial = Trial::default();
        match self.judge_all(reading, &mut trial) {
            Ok(()) => self.take(reading, &trial),
            Err(outcome) => {
                self.undo(trial);
                (outcome, Vec::new())
            }
        }
    }

    /// Returns what was in the feed before and is void now.
    pub(crate) fn voided(&self) -> impl Iterator<Item = &Link> {
        let voided = self.forks.iter().flat_map(|forks| &forks.voided);
        voided.filter_map(|hash| self.links.get(hash))
    }

    /// Judges what is not known, in order. What is admitted is noted in `trial`.
    fn judge_all(&mut self, reading: &Reading, trial: &mut Trial) -> Result<(), Outcome> {
        for change in &reading.changes {
            if self.links.contains_key(&change.hash().0) {
                continue;
            }
            if let Some(link) = self.judge_change(change, &mut trial.lack)? {
                self.join(link, &builds_on(change), trial)?;
                self.add_source(change.clone());
            }
        }
        for event in &reading.events {
            if self.links.contains_key(&event.hash().0) {
                continue;
            }
            if let Some(link) = self.judge_event(event, &mut trial.lack)? {
                self.join(link, &[event.before.0], trial)?;
            }
        }
        self.check_covered(reading, trial);
        let unproven = trial.forks.first().filter(|_| !trial.lack.uncovered.is_empty());
        if let Some(hash) = unproven.filter(|_| trial.lack.is_of_statements()) {
            return Err(Outcome::Refused { reason: Reason::Fork, hash: Some(Hash(*hash)) });
        }
        std::mem::take(&mut trial.lack).into_outcome()?;
        let begun = self.begun(&trial.added);
        if begun != 0 && ACTORS_MAX < self.row.actors + begun {
            return Err(Outcome::Refused { reason: Reason::TooManyActors, hash: None });
        }
        Ok(())
    }

    /// Takes something that was admitted to what is there, and decides what counts with it.
    fn join(
        &mut self,
        mut link: Link,
        builds_on: &[[u8; 32]],
        trial: &mut Trial,
    ) -> Result<(), Outcome> {
        let hash = link.hash;
        if let Some(forks) = &mut self.forks {
            let number = (link.chain, link.actor, link.number);
            // An upgrade has no writer who could sign it, so nothing proves a second one.
            if is_unsigned(&link) && forks.lineage.is_taken(number) {
                return Err(Outcome::Refused { reason: Reason::Fork, hash: Some(Hash(hash)) });
            }
            let joined = forks.lineage.join(&link, builds_on);
            trial.forks.extend(joined.forks.then_some(hash));
            if joined.void {
                link.verdict = Verdict::Void;
            }
            for voided in joined.voided {
                if let Some(other) = self.links.get_mut(&voided) {
                    trial.voided.push((voided, other.verdict));
                    other.verdict = Verdict::Void;
                }
            }
        }
        let of_chain = |below: &&[u8; 32]| {
            self.links.get(*below).is_some_and(|below| {
                (below.chain, below.actor, below.number + 1)
                    == (link.chain, link.actor, link.number)
            })
        };
        trial.followed.extend(builds_on.iter().find(of_chain));
        trial.added.push(hash);
        self.add_link(link);
        Ok(())
    }

    fn undo(&mut self, trial: Trial) {
        for hash in &trial.added {
            self.remove_link(hash);
        }
        let voided: Vec<[u8; 32]> = trial.voided.iter().map(|(hash, _)| *hash).collect();
        for (hash, verdict) in trial.voided {
            if let Some(link) = self.links.get_mut(&hash) {
                link.verdict = verdict;
            }
        }
        if let Some(forks) = &mut self.forks {
            forks.lineage.undo(trial.added.len(), voided);
        }
    }

    fn judge_change(&self, change: &Change, lack: &mut Lack) -> Result<Option<Link>, Outcome> {
        let hash = change.hash();
        let view = View { docket: self, ancestors: self.ancestors_of(change) };
        let Ok(judgement) = judge(change, self.document.kind(), self.document.id(), &view);
        match judgement {
            Judgement::Admitted => (),
            Judgement::Missing(missing) => {
                lack.missing.extend(missing);
                return Ok(None);
            }
            Judgement::Refused(_) => {
                let hash = Some(Hash(hash.0));
                return Err(Outcome::Refused { reason: Reason::Rule, hash });
            }
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

    /// Returns what a change builds on, if something of it is void.
    fn ancestors_of(&self, change: &Change) -> Option<Ancestors> {
        let below = change.dependencies.iter().filter_map(|hash| self.links.get(&hash.0));
        let void = below.clone().any(|below| below.verdict == Verdict::Void);
        let forks = self.forks.as_ref().filter(|_| void)?;
        Some(forks.lineage.ancestors(below.map(|below| below.hash)))
    }

    fn judge_event(&self, event: &ReadingEvent, lack: &mut Lack) -> Result<Option<Link>, Outcome> {
        let hash = event.hash().0;
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

    /// Notes where a chain ends without a statement. An upgrade of the schema needs none.
    fn check_covered(&self, reading: &Reading, trial: &mut Trial) {
        let ends = trial.added.iter().filter(|hash| !trial.followed.contains(*hash));
        for link in ends.filter_map(|hash| self.links.get(hash)) {
            let stated = reading.states(link.chain, link.actor, link.number, &link.hash);
            if !stated && !is_unsigned(link) {
                trial.lack.uncovered.insert(Hash(link.hash));
            }
        }
    }

    fn begun(&self, added: &[[u8; 32]]) -> u64 {
        let links = added.iter().filter_map(|hash| self.links.get(hash));
        links.filter(|link| link.number == 1).count() as u64
    }

    /// Takes an entry in which nothing is wrong.
    fn take(&mut self, reading: &Reading, trial: &Trial) -> (Outcome, Vec<NewRecord>) {
        let current = self.row.version;
        self.row.actors += self.begun(&trial.added);
        let voided = self.void_all(trial);
        let mut left: BTreeSet<[u8; 32]> = trial.added.iter().copied().collect();
        let mut records = Vec::with_capacity(left.len());
        for change in &reading.changes {
            let hash = change.hash().0;
            // One that stands twice in the entry is new only once.
            if left.remove(&hash) {
                self.row.version += 1;
                self.fold_in(change, reading.replay);
                records.extend(self.record(reading, hash, change.bytes().to_vec()));
            }
        }
        let mut notices = voided;
        for event in &reading.events {
            let hash = event.hash().0;
            if left.remove(&hash) {
                let void = self.is_void(&hash);
                self.row.events += u64::from(!void);
                // The record of an event has no room for a verdict.
                notices.extend(void.then_some(hash));
                records.extend(self.record(reading, hash, event.encode()));
            }
        }
        let merged = reading.base_version == current && notices.is_empty();
        records.extend(notices.iter().filter_map(|hash| self.notice(hash)));
        (self.outcome(reading, merged), records)
    }

    fn outcome(&self, reading: &Reading, merged: bool) -> Outcome {
        let links = reading.changes.iter().filter_map(|change| self.links.get(&change.hash().0));
        let verdicts: Vec<Verdict> = links.map(|link| link.verdict).collect();
        let again =
            verdicts.iter().any(|verdict| matches!(verdict, Verdict::Restamp | Verdict::Void));
        let stale = verdicts.contains(&Verdict::Withdrawn);
        let receipt = Receipt { version: self.row.version, verdicts, place: self.fold.place() };
        match (stale, merged && !again) {
            (true, _) => Outcome::Conflict(receipt),
            (false, true) => Outcome::Accepted(receipt),
            (false, false) => Outcome::Rebased(receipt),
        }
    }

    /// Takes what became void out of the counts and the fold. Returns what of it is in the feed.
    fn void_all(&mut self, trial: &Trial) -> Vec<[u8; 32]> {
        let Some(forks) = &mut self.forks else { return Vec::new() };
        let added: BTreeSet<&[u8; 32]> = trial.added.iter().collect();
        let voided = trial.voided.iter().map(|(hash, _)| *hash);
        let voided: Vec<_> = voided.filter(|hash| !added.contains(hash)).collect();
        forks.voided.extend(&voided);
        let links = &self.links;
        let of = |hash: &[u8; 32]| links.get(hash).map(|link| (link.chain, link.verdict));
        let events = voided
            .iter()
            .filter(|hash| of(hash).is_some_and(|(chain, _)| chain == ChainKind::Events));
        self.row.events -= events.count() as u64;
        let counting = forks.folded.iter().filter_map(|change| {
            let (_, verdict) = of(&change.hash().0)?;
            (verdict != Verdict::Void).then_some((change, verdict))
        });
        if !voided.is_empty() {
            self.fold.make_anew(counting, self.document.kind());
        }
        voided
    }

    /// Folds a new change in, if it counts, and notes what its position is worth.
    fn fold_in(&mut self, change: &Change, replay: bool) {
        let kind = self.document.kind();
        let Some(link) = self.links.get_mut(&change.hash().0) else { return };
        if link.verdict != Verdict::Void {
            link.verdict = self.fold.apply(change, kind, replay);
        }
        if let Some(forks) = self.forks.as_mut().filter(|_| concerns(change, kind)) {
            forks.folded.push(change.clone());
        }
    }

    fn is_void(&self, hash: &[u8; 32]) -> bool {
        self.links.get(hash).is_some_and(|link| link.verdict == Verdict::Void)
    }

    fn record(&self, reading: &Reading, hash: [u8; 32], bytes: Vec<u8>) -> Option<NewRecord> {
        let link = self.links.get(&hash)?.clone();
        let stated = reading.states(link.chain, link.actor, link.number, &hash);
        let statement = reading.statements.get(&hash).filter(|_| stated).cloned();
        let (document, version, kind) = (self.document, self.row.version, RecordKind::Link);
        Some(NewRecord { document, version, link, statement, bytes, kind })
    }

    fn notice(&self, hash: &[u8; 32]) -> Option<NewRecord> {
        let link = self.links.get(hash)?.clone();
        let (document, version, kind) = (self.document, self.row.version, RecordKind::Void);
        Some(NewRecord { document, version, link, statement: None, bytes: Vec::new(), kind })
    }

    fn add_link(&mut self, link: Link) {
        self.authors.extend(link.author.map(|author| (link.actor, author)));
        self.links.insert(link.hash, link);
    }

    fn remove_link(&mut self, hash: &[u8; 32]) {
        let Some(link) = self.links.remove(hash) else { return };
        self.sources.remove(&(link.actor, link.start_op, link.hash));
    }

    fn add_source(&mut self, change: Change) {
        self.sources.insert((change.actor, change.start_op, change.hash().0), change);
    }

    fn upgrade(&self, schema: u32) -> Option<&Change> {
        if schema == 1 {
            return Some(genesis(self.document.kind()));
        }
        let actor = ActorId::of_schema(schema);
        let mut changes = self.sources.range((actor, 0, [0; 32])..=(actor, u64::MAX, [0xff; 32]));
        changes.next().map(|(_, change)| change)
    }
}

/// Returns whether this is an upgrade, which nobody signs.
fn is_unsigned(link: &Link) -> bool {
    link.chain == ChainKind::Changes && link.author.is_none()
}

/// Returns the hashes of what a change names as its past.
fn builds_on(change: &Change) -> Vec<[u8; 32]> {
    change.dependencies.iter().map(|hash| hash.0).collect()
}

impl Lack {
    /// Returns whether nothing but statements is missing.
    fn is_of_statements(&self) -> bool {
        self.missing.is_empty() && self.missing_events.is_empty()
    }

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

/// What a change may see: what counts, or else exactly what it builds on.
struct View<'a> {
    docket: &'a Docket,
    ancestors: Option<Ancestors>,
}

impl View<'_> {
    fn sees(&self, hash: &[u8; 32]) -> bool {
        match (&self.ancestors, &self.docket.forks) {
            (Some(ancestors), Some(forks)) => forks.lineage.is_among(ancestors, hash),
            (Some(_) | None, _) => !self.docket.is_void(hash),
        }
    }
}

impl Past for View<'_> {
    type Error = std::convert::Infallible;

    fn find(&self, hash: ChangeHash) -> Result<Option<Known>, Self::Error> {
        let first = genesis(self.docket.document.kind());
        if hash == first.hash() {
            return Ok(Some(Known { actor: first.actor, seq: first.seq, max_op: first.max_op() }));
        }
        let link = self.docket.links.get(&hash.0).filter(|link| link.chain == ChainKind::Changes);
        let known =
            |link: &Link| Known { actor: link.actor, seq: link.number, max_op: link.max_op };
        Ok(link.map(known))
    }

    fn seq_in_past(&self, heads: &[ChangeHash], actor: ActorId) -> Result<u64, Self::Error> {
        if actor == ActorId::of_schema(1) {
            return Ok(1);
        }
        let links = heads.iter().filter_map(|hash| self.docket.links.get(&hash.0));
        Ok(links.filter_map(|link| link.clock.get(&actor).copied()).max().unwrap_or(0))
    }

    fn place(&self, op: OpId) -> Result<Option<Place>, Self::Error> {
        if op.actor == ActorId::of_schema(1) {
            return Ok(place_in(genesis(self.docket.document.kind()), op));
        }
        let (first, last) = ((op.actor, 0, [0; 32]), (op.actor, op.counter, [0xff; 32]));
        let below = self.docket.sources.range(first..=last).rev();
        let mut seen = below.filter(|((_, _, hash), _)| self.sees(hash));
        Ok(seen.next().and_then(|(_, change)| place_in(change, op)))
    }

    fn author(&self, actor: ActorId) -> Result<Option<Author>, Self::Error> {
        Ok(self.docket.authors.get(&actor).copied())
    }

    fn below(&self, schema: u32) -> Result<Option<(Below, Vec<String>)>, Self::Error> {
        let docket = self.docket;
        let Some(before) = schema.checked_sub(1).and_then(|before| docket.upgrade(before)) else {
            return Ok(None);
        };
        let wrote_schema = before.ops_with_ids().find(|(_, op)| {
            op.key == Key::Map(SCHEMA_KEY.to_owned())
                && matches!(op.action, Action::Put(Scalar::Int(_)))
        });
        let Some((schema_op, _)) = wrote_schema else { return Ok(None) };
        let earlier = (1..schema).filter_map(|schema| docket.upgrade(schema));
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

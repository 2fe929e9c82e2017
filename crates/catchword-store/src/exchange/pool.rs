//! Changes and events of one document that are not decided: what came now and what waits from before;
//! and which of them a statement covers and can be applied together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use catchword_model::change::Change;
use catchword_model::event::ReadingEvent;
use catchword_model::exchange::Statement;
use catchword_model::genesis::claimed_upgrade;
use catchword_model::id::{ActorId, EventHash};

use crate::error::{LoadError, Rejection};
use crate::exchange::Origin;
use crate::exchange::forks::Voids;
use crate::statements::{OF_CHANGES, OF_EVENTS};

/// Branches of one chain that are tried at once. A fork has two; a folder that was copied often and
/// used everywhere has more. Each is another look at everything that waits.
const BRANCHES_MAX: usize = 16;

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It lacks something.
    Waiting,
    /// It was here before.
    Known,
    /// It is staged.
    Added,
    /// It does not count, now or ever.
    Refused(Rejection),
    /// It is well-formed and signed, and belongs to a history that does not count.
    Void,
}

/// Changes or events of one actor: their kind, and whose.
pub(super) type ChainId = (u8, ActorId);

/// A hash of a change or of an event.
pub(super) type Hash = [u8; 32];

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Change(Box<Change>),
    Event(Box<ReadingEvent>),
}

impl Body {
    /// Returns its chain, its number there, and its hash.
    pub(super) fn place(&self) -> (ChainId, u64, Hash) {
        match self {
            Self::Change(change) => ((OF_CHANGES, change.actor), change.seq, change.hash().0),
            Self::Event(event) => ((OF_EVENTS, event.actor), event.n, event.hash().0),
        }
    }

    /// Returns the hashes of what it builds on.
    pub(super) fn builds_on(&self) -> Vec<Hash> {
        match self {
            Self::Change(change) => change.dependencies.iter().map(|hash| hash.0).collect(),
            Self::Event(event) if event.before == EventHash([0; 32]) => Vec::new(),
            Self::Event(event) => vec![event.before.0],
        }
    }
}

/// Something that came, or waited.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) body: Body,
    pub(super) chain: ChainId,
    pub(super) number: u64,
    pub(super) hash: Hash,
    /// The hashes of what it builds on.
    pub(super) builds_on: Vec<Hash>,
    /// Who brought it first.
    pub(super) origin: Origin,
    /// Its key among what waits, if it waited.
    pub(super) parked: Option<u64>,
    /// Whether this message has it.
    pub(super) new: bool,
    /// A valid statement of exactly this.
    pub(super) statement: Option<Statement>,
    /// Whether something that follows it in its chain is signed and does not count: what is signed there
    /// covers this, too.
    pub(super) is_vouched_for: bool,
    pub(super) state: State,
}

impl Candidate {
    pub(super) fn new(body: Body, origin: Origin) -> Self {
        let (chain, number, hash) = body.place();
        let builds_on = body.builds_on();
        Self {
            body,
            chain,
            number,
            hash,
            builds_on,
            origin,
            parked: None,
            new: true,
            statement: None,
            is_vouched_for: false,
            state: State::Waiting,
        }
    }

    /// Returns where a change begins, above every operation of its past.
    pub(super) fn start(&self) -> u64 {
        match &self.body {
            Body::Change(change) => change.start_op,
            Body::Event(event) => event.n,
        }
    }

    /// Returns its size, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match &self.body {
            Body::Change(change) => change.bytes().len() as u64,
            Body::Event(_) => ReadingEvent::LEN as u64,
        }
    }

    /// Returns whether its form is all that counts, as of an upgrade of the schema: it has no author.
    fn needs_no_statement(&self) -> bool {
        match &self.body {
            Body::Change(change) => claimed_upgrade(change).is_some(),
            Body::Event(_) => false,
        }
    }
}

/// The newest of a chain that is here: number and hash.
pub(super) type Tip = Option<(u64, Hash)>;

#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) candidates: Vec<Candidate>,
    /// Only ever asked, never walked: its order is another one each time.
    by_hash: HashMap<Hash, usize>,
}

/// Consecutive changes or events of one actor that statements cover, on top of what is here.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Places in the pool.
    pub(super) places: Vec<usize>,
    /// How many there are up to each statement, ascending.
    ends: Vec<usize>,
    /// How many of them are to be applied: one of `ends`, or 0.
    pub(super) take: usize,
}

impl Pool {
    /// Adds something, or notes that it came again.
    pub(super) fn add(&mut self, candidate: Candidate) {
        let hash = candidate.hash;
        let held = self.by_hash.get(&hash).and_then(|at| self.candidates.get_mut(*at));
        if let Some(held) = held {
            held.new |= candidate.new;
            held.statement = held.statement.take().or(candidate.statement);
        } else {
            self.by_hash.insert(hash, self.candidates.len());
            self.candidates.push(candidate);
        }
    }

    pub(super) fn at(&self, place: usize) -> Option<&Candidate> {
        self.candidates.get(place)
    }

    /// Marks what something that is signed and cannot count follows in its chain.
    pub(super) fn vouch(&mut self, voids: &Voids) {
        let signed = voids.signed();
        if signed.is_empty() {
            return;
        }
        let doomed = self.doomed(voids);
        let mut vouched: BTreeSet<usize> =
            doomed.iter().filter_map(|at| self.before(*at)).collect();
        vouched.retain(|place| !doomed.contains(place));
        for (place, candidate) in self.candidates.iter_mut().enumerate() {
            let mut behind = voids.at(candidate.chain, candidate.number + 1);
            candidate.is_vouched_for |= vouched.contains(&place)
                || behind.any(|(hash, void)| {
                    signed.contains(hash) && void.body.builds_on().contains(&candidate.hash)
                });
        }
    }

    /// Returns the places of what is signed, waits, and builds on what does not count.
    fn doomed(&self, voids: &Voids) -> BTreeSet<usize> {
        // Each behind what it builds on, so that once through is almost always enough.
        let mut covered: Vec<usize> = self.covered().into_iter().collect();
        covered.sort_by_key(|place| self.at(*place).map(Candidate::start));
        let mut doomed: BTreeSet<usize> = BTreeSet::new();
        let mut before = None;
        while before != Some(doomed.len()) {
            before = Some(doomed.len());
            for place in &covered {
                let Some(candidate) = self.at(*place) else { continue };
                let on_void = |hash: &Hash| {
                    let here = self.find(hash).is_some_and(|place| doomed.contains(&place));
                    voids.contains(hash) || here
                };
                if candidate.state == State::Waiting && candidate.builds_on.iter().any(on_void) {
                    doomed.insert(*place);
                }
            }
        }
        doomed
    }

    /// Returns the places of what waits, is signed and has everything it builds on: here, or coming with
    /// it, up to what is signed of its chain.
    pub(super) fn coming(
        &self,
        mut is_here: impl FnMut(&Hash) -> Result<bool, LoadError>,
    ) -> Result<BTreeSet<usize>, LoadError> {
        let waits = |place: &usize| self.at(*place).is_some_and(|it| it.state == State::Waiting);
        let mut coming: BTreeSet<usize> = self.covered().into_iter().filter(waits).collect();
        let mut here: HashMap<Hash, bool> = HashMap::new();
        let mut before = None;
        while before != Some(coming.len()) {
            before = Some(coming.len());
            let mut rest = BTreeSet::new();
            for place in &coming {
                let Some(candidate) = self.at(*place) else { continue };
                let mut whole = true;
                // An event builds on the one before alone, which its chain has.
                let builds_on = candidate.builds_on.iter();
                for hash in builds_on.filter(|_| candidate.chain.0 == OF_CHANGES) {
                    let comes = self.find(hash).is_some_and(|on| coming.contains(&on));
                    whole = whole
                        && (comes
                            || match here.get(hash) {
                                Some(here) => *here,
                                None => *here.entry(*hash).or_insert(is_here(hash)?),
                            });
                }
                if whole {
                    rest.insert(*place);
                }
            }
            coming = self.covered_of(&rest).intersection(&rest).copied().collect();
        }
        Ok(coming)
    }

    pub(super) fn find(&self, hash: &Hash) -> Option<usize> {
        self.by_hash.get(hash).copied()
    }

    pub(super) fn set(&mut self, place: usize, state: State) {
        if let Some(candidate) = self.candidates.get_mut(place) {
            candidate.state = state;
        }
    }

    /// Returns the places of what waits, by chain, ascending by number.
    pub(super) fn waiting(&self) -> BTreeMap<ChainId, Vec<usize>> {
        let mut waiting: BTreeMap<ChainId, Vec<usize>> = BTreeMap::new();
        for (place, candidate) in self.candidates.iter().enumerate() {
            if candidate.state == State::Waiting {
                waiting.entry(candidate.chain).or_default().push(place);
            }
        }
        let key =
            |place: &usize| self.at(*place).map(|candidate| (candidate.number, candidate.hash));
        for places in waiting.values_mut() {
            places.sort_by_key(key);
        }
        waiting
    }

    /// Returns the one before in the chain, if it is in the pool.
    pub(super) fn before(&self, place: usize) -> Option<usize> {
        let candidate = self.at(place)?;
        candidate.builds_on.iter().find_map(|hash| {
            let before = self.find(hash)?;
            let other = self.at(before)?;
            let follows = other.chain == candidate.chain && other.number + 1 == candidate.number;
            follows.then_some(before)
        })
    }

    /// Marks something that is here, and with it everything below it in its chain.
    pub(super) fn recognise_down(&mut self, place: usize) {
        let mut at = Some(place);
        while let Some(place) = at {
            if self.at(place).is_none_or(|candidate| candidate.state != State::Waiting) {
                return;
            }
            self.set(place, State::Known);
            at = self.before(place);
        }
    }

    /// Lets everything wait again that was staged.
    pub(super) fn take_back(&mut self) {
        for candidate in self.candidates.iter_mut().filter(|found| found.state == State::Added) {
            candidate.state = State::Waiting;
        }
    }

    /// Returns the places of everything that a statement in the pool covers.
    pub(super) fn covered(&self) -> BTreeSet<usize> {
        self.covered_of(&(0..self.candidates.len()).collect())
    }

    /// Returns the places of everything that a statement of these covers.
    fn covered_of(&self, places: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut covered = BTreeSet::new();
        for place in places.iter().copied() {
            let Some(candidate) = self.at(place) else { continue };
            let is_end = candidate.statement.is_some() || candidate.is_vouched_for;
            let mut at = is_end.then_some(place);
            while let Some(place) = at.filter(|place| covered.insert(*place)) {
                at = self.before(place);
            }
        }
        covered
    }

    /// Refuses everything that waits and builds on what is refused.
    pub(super) fn refuse_descendants(&mut self) {
        let mut builders: BTreeMap<Hash, Vec<usize>> = BTreeMap::new();
        for (place, candidate) in self.candidates.iter().enumerate() {
            for hash in &candidate.builds_on {
                builders.entry(*hash).or_default().push(place);
            }
        }
        let refused = |candidate: &Candidate| matches!(candidate.state, State::Refused(_));
        let mut open: Vec<Hash> = self
            .candidates
            .iter()
            .filter(|candidate| refused(candidate))
            .map(|candidate| candidate.hash)
            .collect();
        while let Some(on) = open.pop() {
            for place in builders.remove(&on).unwrap_or_default() {
                let Some(candidate) = self.candidates.get_mut(place) else { continue };
                if candidate.state == State::Waiting {
                    let hash = candidate.hash;
                    candidate.state = State::Refused(Rejection::BuildsOnRefused { hash, on });
                    open.push(hash);
                }
            }
        }
    }

    /// Returns the chains that are covered, continue what is here, and can be applied together. Of two
    /// branches, the one with the statement that comes first (by number, then hash) is tried first; if
    /// what it builds on is not here, the other one is.
    pub(super) fn ready(
        &self,
        tip: impl Fn(ChainId) -> Tip,
        mut is_here: impl FnMut(&Hash) -> Result<bool, LoadError>,
    ) -> Result<BTreeMap<ChainId, Chain>, LoadError> {
        let mut without = BTreeSet::new();
        let mut chains = BTreeMap::new();
        for _ in 0..BRANCHES_MAX {
            chains = self.chains(&tip, &without);
            self.settle(&mut chains, &mut is_here)?;
            let failed = chains.iter().filter_map(|(id, chain)| self.failed(*id, chain, &without));
            let failed: Vec<usize> = failed.collect();
            if failed.is_empty() {
                break;
            }
            without.extend(failed);
        }
        Ok(chains)
    }

    /// Returns the first of a chain that is not to be applied and stands beside another one, which was
    /// not tried.
    fn failed(&self, id: ChainId, chain: &Chain, without: &BTreeSet<usize>) -> Option<usize> {
        let left = chain.places.get(chain.take..).filter(|left| !left.is_empty())?;
        let tried: BTreeSet<&usize> = chain.places.iter().chain(without).collect();
        let rivals: BTreeSet<u64> = self
            .candidates
            .iter()
            .enumerate()
            .filter(|(place, candidate)| {
                candidate.chain == id && candidate.state == State::Waiting && !tried.contains(place)
            })
            .map(|(_, candidate)| candidate.number)
            .collect();
        let number = |place: &&usize| self.at(**place).map(|candidate| candidate.number);
        left.iter().find(|place| number(place).is_some_and(|at| rivals.contains(&at))).copied()
    }

    /// Returns the chains that are covered and continue what is here. Nothing of `without` is in them.
    fn chains(
        &self,
        tip: impl Fn(ChainId) -> Tip,
        without: &BTreeSet<usize>,
    ) -> BTreeMap<ChainId, Chain> {
        let mut chains: BTreeMap<ChainId, Chain> = BTreeMap::new();
        for (id, places) in self.waiting() {
            let base = tip(id);
            let mut chain = Chain::default();
            let mut dead = without.clone();
            for place in places {
                let Some(candidate) = self.at(place) else { continue };
                if candidate.statement.is_none()
                    && !candidate.is_vouched_for
                    && !candidate.needs_no_statement()
                {
                    continue;
                }
                let top = chain.places.last().copied();
                let mut stretch = vec![place];
                if self.leads_up(&mut stretch, top, base, &dead) {
                    chain.places.extend(stretch.into_iter().rev());
                    chain.ends.push(chain.places.len());
                } else {
                    dead.extend(stretch);
                }
            }
            if !chain.places.is_empty() {
                chain.take = chain.places.len();
                chains.insert(id, chain);
            }
        }
        chains
    }

    /// Goes down from the last of a stretch to `top`, or to what is here if there is none, and returns
    /// whether it gets there. What is dead is known not to.
    fn leads_up(
        &self,
        stretch: &mut Vec<usize>,
        top: Option<usize>,
        base: Tip,
        dead: &BTreeSet<usize>,
    ) -> bool {
        while let Some(at) = stretch.last().copied() {
            let Some(candidate) = self.at(at) else { return false };
            if top == Some(at) || dead.contains(&at) || candidate.state != State::Waiting {
                return false;
            }
            let on_base = match base {
                Some((number, hash)) => {
                    number + 1 == candidate.number && candidate.builds_on.contains(&hash)
                }
                None => candidate.number == 1,
            };
            let before = self.before(at);
            match top {
                None if on_base => return true,
                Some(_) if before == top => return true,
                _ => (),
            }
            let Some(before) = before else { return false };
            stretch.push(before);
        }
        false
    }

    /// Shortens the chains to the longest that can be applied together: everything a change builds on
    /// is here, or taken too.
    fn settle(
        &self,
        chains: &mut BTreeMap<ChainId, Chain>,
        mut is_here: impl FnMut(&Hash) -> Result<bool, LoadError>,
    ) -> Result<(), LoadError> {
        let mut places: BTreeMap<usize, (ChainId, usize)> = BTreeMap::new();
        for (id, chain) in chains.iter() {
            places.extend(chain.places.iter().enumerate().map(|(at, place)| (*place, (*id, at))));
        }
        let mut builders: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut lacking: Vec<usize> = Vec::new();
        for place in places.keys() {
            // An event builds on the one before alone, which its chain has.
            let Some(candidate) = self.at(*place).filter(|found| found.chain.0 == OF_CHANGES)
            else {
                continue;
            };
            for hash in &candidate.builds_on {
                match self.find(hash).filter(|on| places.contains_key(on)) {
                    Some(on) => builders.entry(on).or_default().push(*place),
                    None if is_here(hash)? => (),
                    None => lacking.push(*place),
                }
            }
        }
        while let Some(place) = lacking.pop() {
            let Some((id, at)) = places.get(&place) else { continue };
            let Some(chain) = chains.get_mut(id) else { continue };
            if chain.take <= *at {
                continue;
            }
            let fits = chain.ends.partition_point(|end| end <= at);
            let take =
                fits.checked_sub(1).and_then(|end| chain.ends.get(end)).map_or(0, |end| *end);
            for gone in chain.places.get(take..chain.take).unwrap_or_default() {
                lacking.extend(builders.get(gone).into_iter().flatten());
            }
            chain.take = take;
        }
        Ok(())
    }

    /// Returns what is taken of the chains, each behind what it builds on, and of one chain as many after
    /// another as possible.
    pub(super) fn order(&self, chains: &BTreeMap<ChainId, Chain>) -> Vec<usize> {
        let taken = |chain: &Chain| chain.places.iter().take(chain.take).copied().collect();
        let queues: BTreeMap<ChainId, Vec<usize>> =
            chains.iter().map(|(id, chain)| (*id, taken(chain))).collect();
        let mut lacking = vec![false; self.candidates.len()];
        for place in queues.values().flatten() {
            if let Some(lacks) = lacking.get_mut(*place) {
                *lacks = true;
            }
        }
        let mut next: BTreeMap<ChainId, usize> = BTreeMap::new();
        let mut blocked: BTreeMap<usize, Vec<ChainId>> = BTreeMap::new();
        let mut order = Vec::new();
        let mut ready: Vec<ChainId> = queues.keys().rev().copied().collect();
        while let Some(id) = ready.pop() {
            let at = next.entry(id).or_default();
            while let Some(place) = queues.get(&id).and_then(|queue| queue.get(*at)) {
                let builds_on = self.at(*place).map(|candidate| candidate.builds_on.as_slice());
                let lacks = builds_on
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|hash| self.find(hash))
                    .find(|on| lacking.get(*on) == Some(&true));
                if let Some(on) = lacks {
                    blocked.entry(on).or_default().push(id);
                    break;
                }
                if let Some(lacks) = lacking.get_mut(*place) {
                    *lacks = false;
                }
                order.push(*place);
                *at += 1;
                ready.extend(blocked.remove(place).unwrap_or_default());
            }
        }
        order
    }
}

//! What counts where a writer has two histories: how the changes and events of one document build on
//! one another, and what is void.
//!
//! # Invariants
//!
//! 1. What is void is a function of what there is, whatever came first: of those of one chain that
//!    follow the same one, all but that with the smallest hash, and everything that builds on something
//!    void.
//! 2. Of those that count no two of a chain have one number.
//! 3. What is void stays so.

use std::collections::BTreeMap;

use catchword_model::id::ActorId;
use catchword_proto::cloud::api::{ChainKind, Verdict};

use crate::docket::Link;

/// Everything of one document, each behind what it builds on.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    nodes: Vec<Node>,
    places: BTreeMap<[u8; 32], usize>,
    numbers: BTreeMap<(ChainKind, ActorId, u64), Vec<usize>>,
}

/// A change or an event. What it builds on, and what builds on it, are places in the list.
#[derive(Debug)]
struct Node {
    hash: [u8; 32],
    number: (ChainKind, ActorId, u64),
    builds_on: Vec<usize>,
    carries: Vec<usize>,
    void: bool,
}

/// What came of one more change or event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    /// There is another one behind the same one.
    pub(crate) forks: bool,
    /// It does not count.
    pub(crate) void: bool,
    /// What counted and does not any more.
    pub(crate) voided: Vec<[u8; 32]>,
}

/// What a change builds on, near and far.
#[derive(Debug)]
pub(crate) struct Ancestors(Vec<bool>);

impl Lineage {
    /// Takes what was decided before.
    pub(crate) fn load(&mut self, link: &Link, builds_on: &[[u8; 32]]) {
        let place = self.push(link, builds_on);
        if let Some(node) = self.nodes.get_mut(place) {
            node.void = link.verdict == Verdict::Void;
        }
    }

    /// Takes something new, and decides what counts with it.
    pub(crate) fn join(&mut self, link: &Link, builds_on: &[[u8; 32]]) -> Joined {
        let place = self.push(link, builds_on);
        let rivals = self.rivals(place);
        let smaller =
            |rival: &&usize| self.nodes.get(**rival).is_some_and(|of| of.hash < link.hash);
        let beaten = rivals.iter().any(|rival| smaller(&rival));
        let void = beaten || self.builds_on_void(place);
        let losers: Vec<usize> = rivals.iter().filter(|rival| !smaller(rival)).copied().collect();
        if let Some(node) = self.nodes.get_mut(place) {
            node.void = void;
        }
        Joined { forks: !rivals.is_empty(), void, voided: self.void_from(losers) }
    }

    /// Takes the last ones away again, and lets what they voided count.
    pub(crate) fn undo(&mut self, last: usize, voided: impl IntoIterator<Item = [u8; 32]>) {
        for hash in voided {
            if let Some(node) = self.places.get(&hash).and_then(|place| self.nodes.get_mut(*place))
            {
                node.void = false;
            }
        }
        for _ in 0..last {
            let Some(node) = self.nodes.pop() else { return };
            let place = self.nodes.len();
            self.places.remove(&node.hash);
            if let Some(all) = self.numbers.get_mut(&node.number) {
                all.retain(|one| *one != place);
            }
            for below in node.builds_on {
                if let Some(below) = self.nodes.get_mut(below) {
                    below.carries.retain(|one| *one != place);
                }
            }
        }
    }

    /// Returns whether something has this number, void or not.
    pub(crate) fn is_taken(&self, number: (ChainKind, ActorId, u64)) -> bool {
        self.numbers.get(&number).is_some_and(|all| !all.is_empty())
    }

    /// Returns everything that these are or build on.
    pub(crate) fn ancestors(&self, heads: impl Iterator<Item = [u8; 32]>) -> Ancestors {
        let mut found = vec![false; self.nodes.len()];
        let mut next: Vec<usize> =
            heads.filter_map(|hash| self.places.get(&hash).copied()).collect();
        while let Some(place) = next.pop() {
            let Some(seen) = found.get_mut(place).filter(|seen| !**seen) else { continue };
            *seen = true;
            next.extend(self.nodes.get(place).into_iter().flat_map(|node| &node.builds_on));
        }
        Ancestors(found)
    }

    /// Returns whether this is one of them.
    pub(crate) fn is_among(&self, ancestors: &Ancestors, hash: &[u8; 32]) -> bool {
        let place = self.places.get(hash);
        place.and_then(|place| ancestors.0.get(*place)).copied().unwrap_or(false)
    }

    fn push(&mut self, link: &Link, builds_on: &[[u8; 32]]) -> usize {
        let place = self.nodes.len();
        let builds_on = builds_on.iter().filter_map(|hash| self.places.get(hash).copied());
        let builds_on: Vec<usize> = builds_on.collect();
        for below in &builds_on {
            if let Some(below) = self.nodes.get_mut(*below) {
                below.carries.push(place);
            }
        }
        let number = (link.chain, link.actor, link.number);
        self.numbers.entry(number).or_default().push(place);
        self.places.insert(link.hash, place);
        let (hash, carries) = (link.hash, Vec::new());
        self.nodes.push(Node { hash, number, builds_on, carries, void: false });
        place
    }

    /// Returns the others with the same number that follow the same one.
    fn rivals(&self, place: usize) -> Vec<usize> {
        let Some(node) = self.nodes.get(place) else { return Vec::new() };
        let before = self.before(place);
        let all = self.numbers.get(&node.number).into_iter().flatten().copied();
        all.filter(|other| *other != place && self.before(*other) == before).collect()
    }

    /// Returns the one before in its own chain.
    fn before(&self, place: usize) -> Option<usize> {
        let node = self.nodes.get(place)?;
        let (chain, actor, number) = node.number;
        let before = (chain, actor, number.checked_sub(1)?);
        let is_before =
            |below: &&usize| self.nodes.get(**below).is_some_and(|of| of.number == before);
        node.builds_on.iter().find(is_before).copied()
    }

    fn builds_on_void(&self, place: usize) -> bool {
        let below = self.nodes.get(place).into_iter().flat_map(|node| &node.builds_on);
        below.filter_map(|below| self.nodes.get(*below)).any(|below| below.void)
    }

    /// Voids these and what builds on them. Returns what counted before.
    fn void_from(&mut self, mut next: Vec<usize>) -> Vec<[u8; 32]> {
        let mut voided = Vec::new();
        while let Some(place) = next.pop() {
            let Some(node) = self.nodes.get_mut(place).filter(|node| !node.void) else { continue };
            node.void = true;
            voided.push(node.hash);
            next.extend(&node.carries);
        }
        voided
    }
}

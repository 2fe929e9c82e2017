//! Two histories of one writer: which of them counts, and what becomes of the other.
//!
//! A writer forks where its device was copied, or its disk lost what had left it. Of two signed changes
//! with one number that follow the same one, the change with the smaller hash counts. The other one is
//! void, and everything that builds on it; the document is laid out anew without them, and each device
//! writes what it had written there again, as another actor.
//!
//! # Invariants
//!
//! 1. What is void is a function of the set of signed changes, and grows with it: whatever the order in
//!    which they come, all devices with the same changes have the same document.
//! 2. What is void is kept and exchanged like what counts, and the state of a document covers it: a
//!    device that lacks what decides about a change cannot be taken for one that is in sync.
//! 3. A change is judged by the rules of its document only if it counts. What is void is read strictly
//!    and signed, and nothing else is known of it.
//! 4. Nothing is lost on the way: in one transaction everything of the document moves out of the log,
//!    and what counts comes back in those that follow, also after a crash.
//!
//! # What is not here
//!
//! Finding where two histories part: a session halves the chain.

mod again;
mod notes;
mod rebuild;
mod void;

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::id::ActorId;

use crate::Inner;
use crate::error::{AppendError, LoadError};
use crate::exchange::accept::Hearing;
use crate::exchange::pool::{ChainId, Hash, State};
use crate::exchange::{Equivocation, Peer};
use crate::statements::OF_CHANGES;

pub(crate) use again::Again;
pub(crate) use rebuild::Anew;
pub(super) use void::Void;
pub(crate) use void::{Voids, delete, to_do, write};

/// Branches of one document that do not count. A book with more is paused, for a person to look at: a
/// device that forks without end is broken, or means harm.
pub const VOID_BRANCHES_MAX: usize = 256;
/// Changes and events of one document that do not count. As [`VOID_BRANCHES_MAX`].
pub const VOID_MAX: usize = 1 << 17;

/// What a candidate is worth, beside what is here.
#[derive(Default)]
struct Worth {
    /// It does not count.
    is_void: bool,
    /// What is here in its place, and does not count.
    beats: Option<Hash>,
}

impl Inner {
    /// Decides about everything that stands against another history of its writer. Returns whether the
    /// document was laid out anew.
    pub(super) fn settle_forks(
        &mut self,
        peer: &Peer<'_>,
        hearing: &mut Hearing,
    ) -> Result<bool, AppendError> {
        let Some(number) = hearing.number else { return Ok(false) };
        if !hearing.is_forked && hearing.voids.is_empty() {
            return Ok(false);
        }
        hearing.pool.vouch(&hearing.voids);
        let covered = hearing.pool.covered();
        let mut places: Vec<usize> = covered.iter().copied().collect();
        places
            .sort_by_key(|place| hearing.pool.at(*place).map(|found| (found.start(), found.hash)));
        let (kind, voids) = (hearing.name.kind(), &hearing.voids);
        let coming = hearing
            .pool
            .coming(|hash| Ok(voids.contains(hash) || self.is_here(Some(number), kind, hash)?))?;
        let (mut lost, mut forks) = (BTreeSet::new(), BTreeMap::new());
        // Each that is set aside may decide about those before.
        let mut before = None;
        while before != Some(hearing.voids.len()) {
            before = Some(hearing.voids.len());
            for place in &places {
                let worth = self.worth(hearing, number, &coming, *place)?;
                if worth.is_void {
                    self.set_aside(hearing, *place);
                }
                lost.extend(worth.beats);
                if let Some(candidate) = hearing.pool.at(*place)
                    && (worth.is_void || worth.beats.is_some())
                {
                    forks.entry(candidate.chain).or_insert(candidate.number);
                }
            }
        }
        self.note_forks(hearing, &forks);
        if !lost.is_empty() {
            // A crash must not leave what is void without what made it so.
            self.settle_parked(peer, hearing, true)?;
            self.lay_out_anew(hearing, number, &lost)?;
        } else if !forks.is_empty() {
            self.stage_sum(hearing, number)?;
        }
        hearing.pool.vouch(&hearing.voids);
        pause_if_hopeless(peer, hearing, &forks);
        Ok(!lost.is_empty())
    }

    fn worth(
        &mut self,
        hearing: &Hearing,
        number: u32,
        coming: &BTreeSet<usize>,
        place: usize,
    ) -> Result<Worth, LoadError> {
        let mut worth = Worth::default();
        let Some(candidate) = hearing.pool.at(place) else { return Ok(worth) };
        if candidate.state != State::Waiting {
            return Ok(worth);
        }
        let (chain, at, hash) = (candidate.chain, candidate.number, candidate.hash);
        let builds_on_void = candidate.builds_on.iter().any(|hash| hearing.voids.contains(hash));
        let mut before = hearing.voids.at(chain, at.saturating_sub(1));
        if before.any(|(hash, _)| candidate.builds_on.contains(hash)) {
            worth.is_void = true;
            return Ok(worth);
        }
        let tip = self.tip(number, chain)?;
        if tip + 1 < at {
            // What comes before it in its chain is not here.
            return Ok(worth);
        }
        // Chains are judged where they part, and nowhere else.
        let before = if at == 1 { None } else { Some(self.hash_here(number, chain, at - 1)?) };
        let parts_here = |builds_on: &[Hash]| before.is_none_or(|hash| builds_on.contains(&hash));
        if !parts_here(&candidate.builds_on) {
            return Ok(worth);
        }
        worth.is_void = builds_on_void;
        worth.is_void |= hearing
            .voids
            .at(chain, at)
            .any(|(other, void)| *other < hash && parts_here(&void.body.builds_on()));
        if tip < at {
            return Ok(worth);
        }
        let held = self.hash_here(number, chain, at)?;
        worth.is_void |= held < hash;
        // What waits for something else decides nothing yet.
        if hash < held && (worth.is_void || coming.contains(&place)) {
            worth.beats = Some(held);
        }
        Ok(worth)
    }

    /// Returns the number of the last of a chain that is here; 0 if there is none.
    fn tip(&mut self, number: u32, chain: ChainId) -> Result<u64, LoadError> {
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?;
        let Some(writer) = doc.writer(chain.1) else { return Ok(0) };
        let changes = writer.last.map_or(0, |last| u64::from(last.seq));
        Ok(if chain.0 == OF_CHANGES { changes } else { writer.events })
    }

    /// Keeps a candidate as what does not count.
    fn set_aside(&mut self, hearing: &mut Hearing, place: usize) {
        let Some(candidate) = hearing.pool.at(place) else { return };
        let (hash, actor) = (candidate.hash, candidate.chain.1);
        let again = self.is_own_key(hearing, actor);
        let void = Void::of(candidate, again);
        self.stage.exchange.void.insert((hearing.id, hash), Some(void.encode()));
        hearing.voids.insert(hash, void);
        hearing.pool.set(place, State::Void);
    }

    /// Keeps what was refused by a rule of its document, but made another change void before.
    pub(super) fn keep_evidence(&mut self, hearing: &mut Hearing) -> Result<(), LoadError> {
        let Some(number) = hearing.number.filter(|_| !hearing.voids.is_empty()) else {
            return Ok(());
        };
        let covered = hearing.pool.covered();
        let beat = |place: &usize| {
            let candidate = hearing.pool.at(*place)?;
            let refused = matches!(candidate.state, State::Refused(_));
            let mut others = hearing.voids.at(candidate.chain, candidate.number);
            (refused && others.any(|(other, _)| candidate.hash < *other)).then_some(*place)
        };
        let kept: Vec<usize> = covered.iter().filter_map(beat).collect();
        for place in &kept {
            self.set_aside(hearing, *place);
        }
        if kept.is_empty() { Ok(()) } else { self.stage_sum(hearing, number) }
    }

    /// Stages the sum of everything that does not count.
    pub(super) fn stage_sum(&mut self, hearing: &Hearing, number: u32) -> Result<(), LoadError> {
        let (stage, disk) = self.parts()?;
        stage.doc(disk, number)?.void = hearing.voids.sum();
        stage.dirty_docs.insert(number);
        if hearing.voids.again().next().is_some() {
            self.again.documents.insert(hearing.id);
        }
        Ok(())
    }

    /// Returns whether an actor is one of this device's, in whatever generation of its key.
    fn is_own_key(&self, hearing: &Hearing, actor: ActorId) -> bool {
        let own = self.identity.public_key_spki.as_slice();
        let signed = hearing
            .statements
            .iter()
            .any(|(((_, of), _, _), statement)| *of == actor && statement.public_key_spki == own);
        if signed || hearing.voids.is_of_key(actor, own) {
            return true;
        }
        let n_max = self.author_in(hearing.id).n;
        self.identity.generation_with_actor(hearing.id, actor, n_max).is_some()
    }

    /// Tells what forked, and remembers whether this device's present generation did.
    fn note_forks(&mut self, hearing: &mut Hearing, forks: &BTreeMap<ChainId, u64>) {
        let n_max = self.author_in(hearing.id).n;
        for ((_, actor), at) in forks {
            let generation = self.identity.generation_with_actor(hearing.id, *actor, n_max);
            let generation = generation.map(|(generation, _)| generation);
            if generation == Some(self.identity.generation) {
                self.again.forked = true;
                self.stage.exchange.is_forked = true;
            }
            let own = generation.is_some();
            let fork = Equivocation { document: hearing.id, actor: *actor, at: *at, own };
            if !hearing.forks.contains(&fork) {
                hearing.forks.push(fork);
            }
        }
    }
}

fn pause_if_hopeless(peer: &Peer<'_>, hearing: &mut Hearing, forks: &BTreeMap<ChainId, u64>) {
    let many = VOID_MAX < hearing.voids.len() || VOID_BRANCHES_MAX < hearing.voids.tips().len();
    if many && let Some((chain, at)) = forks.first_key_value() {
        hearing.hopeless = Some(hearing.pause(peer, *chain, *at));
    }
}

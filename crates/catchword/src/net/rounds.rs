//! When to sync with whom, unasked.
//!
//! A peer is met when it is paired or seen, again after every change here, and on a heartbeat besides:
//! whatever was missed, by a lost packet or a closed lid, is made up for by the next beat.
//!
//! # Invariants
//!
//! 1. Of each peer at most one sync runs.
//! 2. Whatever happens, every peer comes up again within [`HEARTBEAT`] of the end of its last sync.
//! 3. What others announce brings a peer up at most once in [`DIAL_PAUSE`](discovery::DIAL_PAUSE).
//!
//! # What is not here
//!
//! Clocks and connections: the owner passes the time, and syncs with whom it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::Dials;

/// How long after the last sync with a peer the next one comes, if nothing else calls for it.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(60);
/// How long after the last change here it is pushed: a page is turned more often than that.
pub(crate) const PUSH_AFTER: Duration = Duration::from_secs(2);

/// What is planned for each peer.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    plans: BTreeMap<Fingerprint, Plan>,
    dials: Dials,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    /// When it comes up by itself.
    due: Instant,
    /// When it comes up because of a change here.
    push: Option<Instant>,
    running: bool,
    /// Whether the last sync with it succeeded: changes are pushed to it only then.
    reachable: bool,
}

impl Plan {
    fn next(&self) -> Instant {
        self.push.map_or(self.due, |push| push.min(self.due))
    }
}

impl Rounds {
    /// Takes over who is a peer now. A new one is due at once.
    pub(crate) fn follow(&mut self, peers: &BTreeSet<Fingerprint>, now: Instant) {
        self.plans.retain(|peer, plan| plan.running || peers.contains(peer));
        let new = Plan { due: now, push: None, running: false, reachable: false };
        for peer in peers {
            self.plans.entry(*peer).or_insert(new);
        }
    }

    /// Something new was announced that carries a peer's tag.
    pub(crate) fn heard(&mut self, peer: Fingerprint, now: Instant) {
        if let Some(plan) = self.plans.get_mut(&peer)
            && self.dials.begin(peer, now)
        {
            plan.due = now;
        }
    }

    /// Something changed here.
    pub(crate) fn changed(&mut self, now: Instant) {
        // What a sync that runs has passed already would wait for the next beat.
        for plan in self.plans.values_mut().filter(|plan| plan.reachable || plan.running) {
            plan.push = Some(now + PUSH_AFTER);
        }
    }

    /// The peer came by itself, and was answered.
    pub(crate) fn came(&mut self, peer: Fingerprint, now: Instant) {
        if let Some(plan) = self.plans.get_mut(&peer) {
            plan.due = now + HEARTBEAT;
            plan.reachable = true;
        }
    }

    /// Returns who is due, and counts their syncs as running.
    pub(crate) fn begin(&mut self, now: Instant) -> Vec<Fingerprint> {
        let is_due = |plan: &Plan| !plan.running && plan.next() <= now;
        let due = self.plans.iter_mut().filter(|(_, plan)| is_due(plan));
        due.map(|(peer, plan)| {
            *plan = Plan { push: None, running: true, ..*plan };
            *peer
        })
        .collect()
    }

    /// A sync has ended, well or not.
    pub(crate) fn done(&mut self, peer: Fingerprint, reached: bool, now: Instant) {
        if let Some(plan) = self.plans.get_mut(&peer) {
            let push = plan.push.filter(|_| reached);
            *plan = Plan { due: now + HEARTBEAT, running: false, reachable: reached, push };
        }
    }

    /// Returns when somebody is due next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.plans.values().filter(|plan| !plan.running).map(Plan::next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Fingerprint = Fingerprint([1; 32]);
    const OTHER: Fingerprint = Fingerprint([2; 32]);
    const SECOND: Duration = Duration::from_secs(1);

    fn with(peers: &[Fingerprint], now: Instant) -> Rounds {
        let mut rounds = Rounds::default();
        rounds.follow(&peers.iter().copied().collect(), now);
        rounds
    }

    #[test]
    fn a_new_peer_is_due_at_once_and_again_with_every_beat() {
        let start = Instant::now();
        let mut rounds = with(&[PEER], start);
        assert_eq!(rounds.begin(start), [PEER]);
        assert_eq!(rounds.begin(start + HEARTBEAT), [], "it runs");
        assert_eq!(rounds.next(), None);

        rounds.done(PEER, false, start + SECOND);
        assert_eq!(rounds.next(), Some(start + SECOND + HEARTBEAT));
        assert_eq!(rounds.begin(start + HEARTBEAT), []);
        assert_eq!(rounds.begin(start + SECOND + HEARTBEAT), [PEER]);
    }

    #[test]
    fn a_change_is_pushed_two_seconds_after_the_last_to_whom_can_be_reached() {
        let start = Instant::now();
        let mut rounds = with(&[PEER, OTHER], start);
        assert_eq!(rounds.begin(start), [PEER, OTHER]);
        rounds.done(PEER, true, start);
        rounds.done(OTHER, false, start);
        rounds.changed(start);
        rounds.changed(start + SECOND);
        assert_eq!(rounds.begin(start + PUSH_AFTER), []);
        assert_eq!(rounds.begin(start + SECOND + PUSH_AFTER), [PEER]);

        // What changes meanwhile is pushed afterwards.
        rounds.changed(start + 4 * SECOND);
        rounds.done(PEER, true, start + 5 * SECOND);
        assert_eq!(rounds.begin(start + 6 * SECOND), [PEER]);
    }

    #[test]
    fn a_change_during_the_first_sync_is_pushed_after_it_unless_it_fails() {
        let start = Instant::now();
        for reached in [true, false] {
            let mut rounds = with(&[PEER], start);
            assert_eq!(rounds.begin(start), [PEER]);
            rounds.changed(start);
            rounds.done(PEER, reached, start + SECOND);
            assert_eq!(rounds.begin(start + PUSH_AFTER).is_empty(), !reached);
        }
    }

    #[test]
    fn announcements_bring_a_peer_up_once_in_five_seconds_and_strangers_never() {
        let start = Instant::now();
        let mut rounds = with(&[PEER], start);
        let syncs = |rounds: &mut Rounds, at: Instant| {
            rounds.heard(PEER, at);
            rounds.heard(OTHER, at);
            let begun = rounds.begin(at);
            for peer in &begun {
                rounds.done(*peer, true, at);
            }
            begun.len()
        };
        let at = |seconds: u32| start + seconds * SECOND;
        let counts = [0, 1, 4, 5, 9, 10].map(|seconds| syncs(&mut rounds, at(seconds)));
        assert_eq!(counts, [1, 0, 0, 1, 0, 1]);
    }

    #[test]
    fn whoever_came_by_itself_is_left_alone_until_the_next_beat() {
        let start = Instant::now();
        let mut rounds = with(&[PEER], start);
        assert_eq!(rounds.begin(start), [PEER]);
        rounds.done(PEER, false, start);
        rounds.came(PEER, start + 30 * SECOND);
        assert_eq!(rounds.begin(start + HEARTBEAT), []);
        rounds.changed(start + HEARTBEAT);
        assert_eq!(rounds.next(), Some(start + HEARTBEAT + PUSH_AFTER), "and can be reached");
    }

    #[test]
    fn whoever_is_a_peer_no_more_is_forgotten() {
        let start = Instant::now();
        let mut rounds = with(&[PEER], start);
        rounds.follow(&BTreeSet::new(), start);
        assert_eq!((rounds.begin(start), rounds.next()), (vec![], None));
    }
}

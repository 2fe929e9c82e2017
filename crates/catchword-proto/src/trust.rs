//! Which certificates may speak for which peers, and how that changes.
//!
//! ```text
//!            promoted                  deactivated
//! Provisional ------> Active <----------------------> Deactivated
//!      |                |        reactivated              |
//!      | 10 min         | revoked                         | revoked
//!      v                v                                 |
//!    (gone)          Revoked <----------------------------+
//!
//! Pairing makes a new record in any state: Provisional at the host, Active at the joiner.
//! ```
//!
//! [`Peers`] is a plain value. A [`Step`] is first planned, then made durable by the owner in one
//! transaction, then applied: what the store has not kept has no effect.
//!
//! # Invariants
//!
//! 1. A record's certificate never changes. Another certificate is another peer.
//! 2. Only a pairing makes a peer, and only a pairing brings a revoked one back.
//! 3. A stranger's certificate changes nobody's state: whoever announces a name cannot switch off a
//!    peer's sync.
//!
//! # What is not here
//!
//! TLS, which asks for a [`Verdict`] on each certificate; the table, which holds
//! [`PeerRecord::encode`]; and the secrets, which are in a key store under their [`SecretId`].

mod record;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use catchword_model::identity::Fingerprint;

use crate::pairing::NewPeer;

pub use record::{
    ADDRESSES_MAX, Deactivation, PeerRecord, PeerScope, PeerState, RecordError, SCOPE_MAX,
    SKEW_TOLD_MS, SecretId,
};

/// Peers that are kept, in any state. An announcement has room for so many tags.
pub const PEERS_MAX: usize = 16;

/// How long a joiner that has not confirmed stays provisional, in milliseconds: 10 minutes.
///
/// Its first signed request confirms too, and it sends one as soon as it is paired.
pub const PROVISIONAL_MS: u64 = 10 * 60 * 1_000;

/// What happens to a peer.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// A joiner has proven itself and was allowed: it becomes provisional.
    Admit(&'a NewPeer),
    /// A host has proven itself: it becomes active.
    Join(&'a NewPeer),
    /// A provisional peer has confirmed: by its last message, or by a signed request.
    Promote(Fingerprint),
    /// A signed exchange succeeded, at this address if it was dialled.
    Reach(Fingerprint, Option<SocketAddr>),
    /// The peer may not speak until the person decides.
    Deactivate(Fingerprint, Deactivation),
    /// The person goes on trusting the pinned certificate.
    Reactivate(Fingerprint),
    /// The person takes the trust away.
    Revoke(Fingerprint),
    /// From now on it gets, and may bring, these books.
    Scope(Fingerprint, &'a PeerScope),
    /// A peer only gets books from now on, or may bring changes again.
    ReadOnly(Fingerprint, bool),
    /// Its clock is so many milliseconds ahead of this device's.
    Skew(Fingerprint, i64),
    /// Provisional peers that did not confirm in time are dropped.
    Expire,
}

/// What a step changes: to be made durable in one transaction, then applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Records to be put, each in the place of the one with its fingerprint.
    pub put: Vec<PeerRecord>,
    /// Records to be deleted.
    pub dropped: Vec<Fingerprint>,
    /// Secrets that no record names afterwards: to be deleted when the transaction is durable.
    pub unused: Vec<SecretId>,
}

impl Update {
    /// Says whether there is nothing to be done.
    pub const fn is_empty(&self) -> bool {
        self.put.is_empty() && self.dropped.is_empty() && self.unused.is_empty()
    }
}

/// A step is not possible. Nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// There is no such peer.
    #[error("there is no such peer; `catchword peers` lists them")]
    NoPeer,
    /// The peer is in a state from which this step does not lead anywhere.
    #[error("a peer that is {0} cannot do that; pair again")]
    NotFrom(PeerState),
    /// A scope names more than [`SCOPE_MAX`] shelves and books. Make a shelf of them.
    #[error("a scope names at most {SCOPE_MAX} shelves and books; put the books on one shelf")]
    ScopeTooLarge,
    /// There are [`PEERS_MAX`] peers already.
    #[error("there are {PEERS_MAX} peers already; forget one first")]
    Full,
}

/// May this certificate speak for that peer?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Trusted,
    /// It may, and its first correctly signed request promotes the peer.
    Provisional,
    /// Nobody knows it. Refuse it and count it; it claims nobody's identity and deactivates nobody.
    Unknown,
    /// The peer is deactivated or revoked. Refuse it.
    Barred(PeerState),
    /// The peer was dialled, and this is another certificate: close before a byte is sent, and
    /// [deactivate](Step::Deactivate) the peer.
    Mismatch,
}

/// All peers. See the [module documentation](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// Invariant: at most [`PEERS_MAX`].
    records: BTreeMap<Fingerprint, PeerRecord>,
}

impl Peers {
    /// Takes over the records that were kept.
    pub fn new(records: impl IntoIterator<Item = PeerRecord>) -> Self {
        let keyed = |record: PeerRecord| (record.fingerprint, record);
        Self { records: records.into_iter().map(keyed).collect() }
    }

    /// Returns a peer, whatever its state.
    pub fn find(&self, fingerprint: Fingerprint) -> Option<&PeerRecord> {
        self.records.get(&fingerprint)
    }

    /// Returns all peers, in the order of their fingerprints.
    pub fn iter(&self) -> impl Iterator<Item = &PeerRecord> {
        self.records.values()
    }

    /// Judges the certificate of an incoming connection.
    pub fn incoming(&self, shown: Fingerprint, now_ms: u64) -> Verdict {
        self.records.get(&shown).map_or(Verdict::Unknown, |record| record.verdict(now_ms))
    }

    /// Judges the certificate that was shown where `dialled` should be.
    pub fn outgoing(&self, dialled: Fingerprint, shown: Fingerprint, now_ms: u64) -> Verdict {
        let verdict = self.incoming(dialled, now_ms);
        let may_speak = matches!(verdict, Verdict::Trusted | Verdict::Provisional);
        if may_speak && shown != dialled { Verdict::Mismatch } else { verdict }
    }

    /// Says what a step changes, at `now_ms` of the wall clock. Changes nothing itself.
    ///
    /// # Errors
    ///
    /// [`StepError`] if the step is not possible.
    pub fn plan(&self, step: Step<'_>, now_ms: u64) -> Result<Update, StepError> {
        match step {
            Step::Admit(peer) => self.plan_pairing(peer, PeerState::Provisional, now_ms),
            Step::Join(peer) => self.plan_pairing(peer, PeerState::Active, now_ms),
            Step::Promote(peer) => self.plan_state(peer, now_ms, |record| match record.state {
                PeerState::Provisional if !record.has_expired(now_ms) => Some(PeerState::Active),
                PeerState::Active => Some(PeerState::Active),
                PeerState::Provisional | PeerState::Deactivated(_) | PeerState::Revoked => None,
            }),
            Step::Reach(peer, address) => self.plan_reach(peer, address, now_ms),
            Step::Deactivate(peer, why) => self.plan_state(peer, now_ms, |record| {
                match record.state {
                    // Nothing brings back keys that are gone, so that reason replaces another.
                    PeerState::Deactivated(_) if why.is_reversible() => Some(record.state),
                    PeerState::Provisional | PeerState::Active | PeerState::Deactivated(_) => {
                        Some(PeerState::Deactivated(why))
                    }
                    PeerState::Revoked => None,
                }
            }),
            Step::Reactivate(peer) => self.plan_state(peer, now_ms, |record| match record.state {
                PeerState::Deactivated(why) if why.is_reversible() => Some(PeerState::Active),
                PeerState::Active => Some(PeerState::Active),
                PeerState::Provisional | PeerState::Deactivated(_) | PeerState::Revoked => None,
            }),
            Step::Revoke(peer) => {
                let mut update = self.plan_state(peer, now_ms, |_| Some(PeerState::Revoked))?;
                update.unused.extend(update.put.iter().map(|record| record.secret));
                Ok(update)
            }
            Step::Scope(peer, scope) => self.plan_scope(peer, scope),
            Step::ReadOnly(peer, is_read_only) => {
                let record = self.records.get(&peer).ok_or(StepError::NoPeer)?;
                Ok(replace(record, PeerRecord { is_read_only, ..record.clone() }))
            }
            Step::Skew(peer, skew_ms) => self.plan_skew(peer, skew_ms),
            Step::Expire => Ok(self.plan_expiry(now_ms)),
        }
    }

    /// Applies an update that is durable.
    pub fn apply(&mut self, update: Update) {
        for fingerprint in update.dropped {
            self.records.remove(&fingerprint);
        }
        for record in update.put {
            self.records.insert(record.fingerprint, record);
        }
    }

    /// A pairing replaces what was known of the peer, its secret included: whoever pairs again does
    /// so because the old one is of no use any more.
    fn plan_pairing(
        &self,
        peer: &NewPeer,
        state: PeerState,
        now_ms: u64,
    ) -> Result<Update, StepError> {
        let mut update = self.plan_expiry(now_ms);
        update.dropped.retain(|expired| *expired != peer.fingerprint);
        let others = self.records.values().filter(|record| {
            record.fingerprint != peer.fingerprint && !update.dropped.contains(&record.fingerprint)
        });
        let others: Vec<&PeerRecord> = others.collect();
        if others.len() == PEERS_MAX {
            let revoked = others.iter().filter(|record| record.state == PeerState::Revoked);
            let oldest = revoked.min_by_key(|record| record.since_ms).ok_or(StepError::Full)?;
            update.dropped.push(oldest.fingerprint);
        }
        let secret = SecretId::of(peer);
        let known = self.records.get(&peer.fingerprint);
        let former = known.map(|record| record.secret);
        update.unused.retain(|unused| Some(*unused) != former);
        update.unused.extend(former.filter(|former| *former != secret));
        update.put.push(PeerRecord {
            fingerprint: peer.fingerprint,
            name: peer.introduction.name().to_owned(),
            platform: peer.introduction.platform().to_owned(),
            state,
            since_ms: now_ms,
            paired_at_ms: now_ms,
            last_ok_ms: None,
            secret,
            addresses: known.map(|record| record.addresses.clone()).unwrap_or_default(),
            // Whoever pairs again does not mean to give more than before.
            scope: known.map(|record| record.scope.clone()).unwrap_or_default(),
            is_read_only: known.is_some_and(|record| record.is_read_only),
            skew_ms: known.map_or(0, |record| record.skew_ms),
        });
        Ok(update)
    }

    fn plan_state(
        &self,
        peer: Fingerprint,
        now_ms: u64,
        next: impl FnOnce(&PeerRecord) -> Option<PeerState>,
    ) -> Result<Update, StepError> {
        let record = self.records.get(&peer).ok_or(StepError::NoPeer)?;
        let state = next(record).ok_or(StepError::NotFrom(record.state))?;
        if state == record.state {
            return Ok(Update::default());
        }
        let put = vec![PeerRecord { state, since_ms: now_ms, ..record.clone() }];
        Ok(Update { put, ..Update::default() })
    }

    fn plan_reach(
        &self,
        peer: Fingerprint,
        address: Option<SocketAddr>,
        now_ms: u64,
    ) -> Result<Update, StepError> {
        let mut record = self.records.get(&peer).ok_or(StepError::NoPeer)?.clone();
        record.last_ok_ms = Some(now_ms);
        if let Some(address) = address {
            record.addresses.retain(|known| *known != address);
            record.addresses.insert(0, address);
            record.addresses.truncate(ADDRESSES_MAX);
        }
        Ok(Update { put: vec![record], ..Update::default() })
    }

    fn plan_scope(&self, peer: Fingerprint, scope: &PeerScope) -> Result<Update, StepError> {
        let record = self.records.get(&peer).ok_or(StepError::NoPeer)?;
        if let PeerScope::Chosen { shelves, books } = scope
            && SCOPE_MAX < shelves.len() + books.len()
        {
            return Err(StepError::ScopeTooLarge);
        }
        Ok(replace(record, PeerRecord { scope: scope.clone(), ..record.clone() }))
    }

    /// A clock wanders: what is kept changes only when a person would be told something else.
    fn plan_skew(&self, peer: Fingerprint, skew_ms: i64) -> Result<Update, StepError> {
        let record = self.records.get(&peer).ok_or(StepError::NoPeer)?;
        let is_told = SKEW_TOLD_MS < skew_ms.unsigned_abs();
        let skew_ms = if is_told { skew_ms } else { 0 };
        if is_told && record.skew_ms.abs_diff(skew_ms) <= SKEW_TOLD_MS {
            return Ok(Update::default());
        }
        Ok(replace(record, PeerRecord { skew_ms, ..record.clone() }))
    }

    fn plan_expiry(&self, now_ms: u64) -> Update {
        let mut update = Update::default();
        for record in self.records.values().filter(|record| record.has_expired(now_ms)) {
            update.dropped.push(record.fingerprint);
            update.unused.push(record.secret);
        }
        update
    }
}

/// Puts a record in the place of another, unless they are the same.
fn replace(record: &PeerRecord, next: PeerRecord) -> Update {
    let put = if *record == next { Vec::new() } else { vec![next] };
    Update { put, ..Update::default() }
}

impl PeerRecord {
    /// A clock that was set does not matter: an instant ahead is as far away as one that lies back.
    fn has_expired(&self, now_ms: u64) -> bool {
        match self.state {
            PeerState::Provisional => PROVISIONAL_MS <= self.since_ms.abs_diff(now_ms),
            PeerState::Active | PeerState::Deactivated(_) | PeerState::Revoked => false,
        }
    }

    fn verdict(&self, now_ms: u64) -> Verdict {
        match self.state {
            PeerState::Provisional if self.has_expired(now_ms) => Verdict::Unknown,
            PeerState::Provisional => Verdict::Provisional,
            PeerState::Active => Verdict::Trusted,
            PeerState::Deactivated(_) | PeerState::Revoked => Verdict::Barred(self.state),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use catchword_model::id::{BookId, ShelfId};
    use proptest::prelude::*;

    use super::*;
    use crate::pairing::Introduction;
    use crate::secret::PairSecret;
    use crate::wire::WireError;

    const NOW_MS: u64 = 1_780_000_000_000;
    const PEER: Fingerprint = Fingerprint([7; 32]);
    const STRANGER: Fingerprint = Fingerprint([8; 32]);
    const STATES: [PeerState; 7] = [
        PeerState::Provisional,
        PeerState::Active,
        PeerState::Deactivated(Deactivation::FingerprintMismatch),
        PeerState::Deactivated(Deactivation::UnknownToPeer),
        PeerState::Deactivated(Deactivation::KeysNotRestored),
        PeerState::Deactivated(Deactivation::Malformed),
        PeerState::Revoked,
    ];

    fn new_peer(fingerprint: Fingerprint, secret: u8) -> NewPeer {
        let introduction = Introduction::new("Ana's phone", "android", "0.1.0");
        NewPeer { fingerprint, introduction, secret: PairSecret::new([secret; 32]) }
    }

    /// Plans and applies.
    fn take(peers: &mut Peers, step: Step<'_>, now_ms: u64) -> Result<Update, StepError> {
        let update = peers.plan(step, now_ms)?;
        peers.apply(update.clone());
        Ok(update)
    }

    fn peers_in(state: PeerState) -> Peers {
        let mut peers = Peers::default();
        take(&mut peers, Step::Join(&new_peer(PEER, 1)), NOW_MS).unwrap();
        let record = PeerRecord { state, ..peers.find(PEER).unwrap().clone() };
        Peers::new([record])
    }

    #[test]
    fn a_step_leads_only_where_the_picture_says() {
        use Deactivation::{KeysNotRestored, Malformed};
        use PeerState::{Active, Deactivated, Provisional, Revoked};
        let deactivated = |why| Some(Deactivated(why));
        for state in STATES {
            let stays_or = |why: Deactivation| match state {
                Provisional | Active => deactivated(why),
                Deactivated(_) if why == KeysNotRestored => deactivated(why),
                Deactivated(_) => Some(state),
                Revoked => None,
            };
            let expected = [
                (Step::Promote(PEER), [Provisional, Active].contains(&state).then_some(Active)),
                (Step::Reach(PEER, None), Some(state)),
                (Step::Deactivate(PEER, Malformed), stays_or(Malformed)),
                (Step::Deactivate(PEER, KeysNotRestored), stays_or(KeysNotRestored)),
                (
                    Step::Reactivate(PEER),
                    match state {
                        Active => Some(Active),
                        Deactivated(why) => (why != KeysNotRestored).then_some(Active),
                        Provisional | Revoked => None,
                    },
                ),
                (Step::Revoke(PEER), Some(Revoked)),
                (Step::Expire, Some(state)),
                (Step::Admit(&new_peer(PEER, 2)), Some(Provisional)),
                (Step::Join(&new_peer(PEER, 2)), Some(Active)),
            ];
            for (step, end) in expected {
                let mut peers = peers_in(state);
                let before = peers.clone();
                let planned = take(&mut peers, step, NOW_MS + 1);
                let now = peers.find(PEER).unwrap();
                assert_eq!(now.state, end.unwrap_or(state), "{state}: {step:?}");
                if end.is_none() {
                    assert_eq!(planned, Err(StepError::NotFrom(state)), "{step:?}");
                    assert_eq!(peers, before);
                }
                let since_ms = before.find(PEER).unwrap().since_ms;
                let is_pairing = matches!(step, Step::Admit(_) | Step::Join(_));
                let changed = is_pairing || end.is_some_and(|end| end != state);
                assert_eq!(now.since_ms, since_ms + u64::from(changed), "{state}: {step:?}");
            }
        }
    }

    #[test]
    fn a_plan_changes_nothing_until_it_is_applied() {
        let peers = peers_in(PeerState::Active);
        let update = peers.plan(Step::Revoke(PEER), NOW_MS).unwrap();
        assert!(!update.is_empty());
        assert_eq!(peers.incoming(PEER, NOW_MS), Verdict::Trusted);
    }

    #[test]
    fn a_stranger_is_nobody_and_changes_nobody() {
        for state in STATES {
            let mut peers = peers_in(state);
            assert_eq!(peers.incoming(STRANGER, NOW_MS), Verdict::Unknown);
            let steps = [
                Step::Promote(STRANGER),
                Step::Reach(STRANGER, None),
                Step::Deactivate(STRANGER, Deactivation::FingerprintMismatch),
                Step::Reactivate(STRANGER),
                Step::Revoke(STRANGER),
            ];
            for step in steps {
                assert_eq!(take(&mut peers, step, NOW_MS), Err(StepError::NoPeer));
            }
            assert_eq!(peers, peers_in(state));
        }
    }

    #[test]
    fn a_certificate_speaks_for_its_peer_as_its_state_says() {
        for state in STATES {
            let peers = peers_in(state);
            let expected = match state {
                PeerState::Provisional => Verdict::Provisional,
                PeerState::Active => Verdict::Trusted,
                PeerState::Deactivated(_) | PeerState::Revoked => Verdict::Barred(state),
            };
            assert_eq!(peers.incoming(PEER, NOW_MS), expected);
            assert_eq!(peers.outgoing(PEER, PEER, NOW_MS), expected);
            let other = match state {
                PeerState::Provisional | PeerState::Active => Verdict::Mismatch,
                PeerState::Deactivated(_) | PeerState::Revoked => Verdict::Barred(state),
            };
            assert_eq!(peers.outgoing(PEER, STRANGER, NOW_MS), other);
            assert_eq!(peers.outgoing(STRANGER, PEER, NOW_MS), Verdict::Unknown);
        }
    }

    #[test]
    fn a_provisional_peer_is_a_stranger_after_ten_minutes_by_either_clock() {
        let peers = peers_in(PeerState::Provisional);
        for (in_time_ms, too_late_ms) in [
            (NOW_MS + PROVISIONAL_MS - 1, NOW_MS + PROVISIONAL_MS),
            (NOW_MS - PROVISIONAL_MS + 1, NOW_MS - PROVISIONAL_MS),
        ] {
            assert_eq!(peers.incoming(PEER, in_time_ms), Verdict::Provisional);
            assert!(peers.plan(Step::Expire, in_time_ms).unwrap().is_empty());
            assert!(peers.plan(Step::Promote(PEER), in_time_ms).is_ok());

            assert_eq!(peers.incoming(PEER, too_late_ms), Verdict::Unknown);
            let refused = Err(StepError::NotFrom(PeerState::Provisional));
            assert_eq!(peers.plan(Step::Promote(PEER), too_late_ms), refused);
            let expired = peers.plan(Step::Expire, too_late_ms).unwrap();
            assert_eq!(expired.dropped, [PEER]);
            assert_eq!(expired.unused, [peers.find(PEER).unwrap().secret]);
        }
    }

    #[test]
    fn a_seventeenth_peer_takes_the_place_of_an_expired_or_revoked_one_or_is_refused() {
        let peer = |n: u8| Fingerprint([n; 32]);
        let mut full = Peers::default();
        for n in 0..16 {
            take(&mut full, Step::Join(&new_peer(peer(n), n)), NOW_MS).unwrap();
        }
        let seventeenth = new_peer(peer(16), 16);

        assert_eq!(full.plan(Step::Join(&seventeenth), NOW_MS), Err(StepError::Full));
        assert!(full.plan(Step::Join(&new_peer(peer(3), 99)), NOW_MS).is_ok(), "known already");

        let mut revoked = full.clone();
        take(&mut revoked, Step::Revoke(peer(9)), NOW_MS + 1).unwrap();
        take(&mut revoked, Step::Revoke(peer(5)), NOW_MS + 2).unwrap();
        let update = take(&mut revoked, Step::Admit(&seventeenth), NOW_MS + 3).unwrap();
        assert_eq!(update.dropped, [peer(9)]);
        assert_eq!(revoked.iter().count(), PEERS_MAX);

        let mut provisional = full.clone();
        take(&mut provisional, Step::Admit(&new_peer(peer(4), 44)), NOW_MS).unwrap();
        let late_ms = NOW_MS + PROVISIONAL_MS;
        assert_eq!(provisional.plan(Step::Admit(&seventeenth), late_ms - 1), Err(StepError::Full));
        let update = take(&mut provisional, Step::Admit(&seventeenth), late_ms).unwrap();
        assert_eq!(update.dropped, [peer(4)]);
        assert_eq!(provisional.iter().count(), PEERS_MAX);
    }

    #[test]
    fn a_secret_that_no_record_names_any_more_is_to_be_deleted_once() {
        let mut peers = Peers::default();
        take(&mut peers, Step::Admit(&new_peer(PEER, 1)), NOW_MS).unwrap();
        let first = peers.find(PEER).unwrap().secret;
        let again = take(&mut peers, Step::Join(&new_peer(PEER, 1)), NOW_MS).unwrap();
        assert_eq!(again.unused, [], "it is the same secret");

        take(&mut peers, Step::Admit(&new_peer(PEER, 1)), NOW_MS).unwrap();
        let late_ms = NOW_MS + PROVISIONAL_MS;
        let anew = take(&mut peers, Step::Join(&new_peer(PEER, 2)), late_ms).unwrap();
        assert_eq!((anew.unused, anew.dropped), (vec![first], vec![]));

        let second = peers.find(PEER).unwrap().secret;
        assert_ne!(first, second);
        assert_eq!(take(&mut peers, Step::Revoke(PEER), late_ms).unwrap().unused, [second]);
        assert!(take(&mut peers, Step::Revoke(PEER), late_ms).unwrap().is_empty());
    }

    #[test]
    fn the_latest_four_addresses_are_remembered() {
        let mut peers = peers_in(PeerState::Active);
        let address = |n: u8| SocketAddr::from(([10, 0, 0, n], 4_433));
        for n in [1, 2, 3, 4, 5, 2] {
            take(&mut peers, Step::Reach(PEER, Some(address(n))), NOW_MS + 9).unwrap();
        }
        let record = peers.find(PEER).unwrap();
        assert_eq!(record.addresses, [2, 5, 4, 3].map(address));
        assert_eq!((record.last_ok_ms, record.since_ms), (Some(NOW_MS + 9), NOW_MS));
    }

    #[test]
    fn a_scope_has_a_bound_and_outlives_a_new_pairing() {
        let chosen = |books: usize| PeerScope::Chosen {
            shelves: BTreeSet::from([ShelfId([1; 16])]),
            books: (0..books)
                .map(|n| BookId(catchword_model::id::sha256(&[&n.to_be_bytes()])))
                .collect(),
        };
        let mut peers = peers_in(PeerState::Active);
        let (most, more) = (chosen(SCOPE_MAX - 1), chosen(SCOPE_MAX));
        let refused = peers.plan(Step::Scope(PEER, &more), NOW_MS);
        assert_eq!(refused, Err(StepError::ScopeTooLarge));
        take(&mut peers, Step::Scope(PEER, &most), NOW_MS).unwrap();
        assert!(peers.plan(Step::Scope(PEER, &most), NOW_MS).unwrap().is_empty());
        take(&mut peers, Step::ReadOnly(PEER, true), NOW_MS).unwrap();
        take(&mut peers, Step::Join(&new_peer(PEER, 2)), NOW_MS).unwrap();
        let record = peers.find(PEER).unwrap();
        assert_eq!((&record.scope, record.is_read_only), (&most, true));
        assert_eq!(PeerRecord::decode(PEER, &record.encode()), Ok(record.clone()));
    }

    #[test]
    fn a_skew_is_kept_beyond_a_minute_and_when_it_changes_by_one() {
        let told = i64::try_from(SKEW_TOLD_MS).unwrap();
        for sign in [1, -1] {
            let mut peers = peers_in(PeerState::Active);
            for (skew_ms, kept_ms) in [
                (told, 0),
                (told + 1, told + 1),
                (2 * told + 1, told + 1),
                (2 * told + 2, 2 * told + 2),
                (told, 0),
            ] {
                take(&mut peers, Step::Skew(PEER, sign * skew_ms), NOW_MS).unwrap();
                assert_eq!(peers.find(PEER).unwrap().skew_ms, sign * kept_ms);
            }
        }
    }

    #[test]
    fn a_row_of_the_first_version_still_reads() {
        let record = peers_in(PeerState::Active).find(PEER).unwrap().clone();
        let mut row = record.encode();
        row[0] = 1;
        // Scope and skew stand last where there are no addresses.
        row.truncate(row.len() - 9);
        assert_eq!(PeerRecord::decode(PEER, &row), Ok(record));
    }

    #[test]
    fn a_key_store_takes_the_name_of_a_secret() {
        let name = peers_in(PeerState::Active).find(PEER).unwrap().secret.to_string();
        assert_eq!(name.len(), 21);
        let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        assert!(name.bytes().all(allowed), "{name}");
    }

    #[test]
    fn a_row_that_is_damaged_or_newer_is_told_apart() {
        let record = peers_in(PeerState::Active).find(PEER).unwrap().clone();
        let row = record.encode();
        let with = |at: usize, value: u8| {
            let mut row = row.clone();
            row[at] = value;
            PeerRecord::decode(PEER, &row).err()
        };
        assert_eq!(with(0, 3), Some(RecordError::Version));
        assert_eq!(with(1, 0), Some(RecordError::State));
        assert_eq!(
            with(34, 65),
            Some(RecordError::Damaged(WireError::TooLong { bytes: 65, bytes_max: 64 }))
        );
        let more = |more: &[u8]| PeerRecord::decode(PEER, &[&row, more].concat()).err();
        assert_eq!(more(&[5, 1, 2, 3, 4, 0, 0]), Some(RecordError::Address));
        assert_eq!(more(&[4, 1, 2, 3, 4, 0, 0].repeat(4)), None);
        let fifth = Some(RecordError::Damaged(WireError::Trailing(7)));
        assert_eq!(more(&[4, 1, 2, 3, 4, 0, 0].repeat(5)), fifth);
        for end in 0..row.len() {
            assert!(PeerRecord::decode(PEER, &row[..end]).is_err(), "{end} bytes");
        }
    }

    proptest! {
        #[test]
        fn records_round_trip(state in 0..7_usize, name in ".{0,70}", times in any::<(u64, u64)>(), last_ok_ms in proptest::option::of(1..u64::MAX), addresses in proptest::collection::vec(any::<(IpAddr, u16)>(), 0..5), scope in any::<Option<(BTreeSet<[u8; 16]>, BTreeSet<[u8; 32]>)>>(), is_read_only: bool, skew_ms: i64) {
            let introduction = Introduction::new(&name, &name, "");
            let record = PeerRecord {
                fingerprint: PEER,
                name: introduction.name().to_owned(),
                platform: introduction.platform().to_owned(),
                state: STATES[state],
                since_ms: times.0,
                paired_at_ms: times.1,
                last_ok_ms,
                secret: SecretId([5; 8]),
                addresses: addresses.into_iter().map(SocketAddr::from).collect(),
                scope: match scope {
                    None => PeerScope::All,
                    Some((shelves, books)) => PeerScope::Chosen {
                        shelves: shelves.into_iter().map(ShelfId).collect(),
                        books: books.into_iter().map(BookId).collect(),
                    },
                },
                is_read_only,
                skew_ms,
            };
            prop_assert_eq!(PeerRecord::decode(PEER, &record.encode()), Ok(record));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(record) = PeerRecord::decode(PEER, &bytes) {
                prop_assert_eq!(PeerRecord::decode(PEER, &record.encode()), Ok(record));
            }
        }
    }
}

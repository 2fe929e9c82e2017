//! Which connections there are, and whether one more may come.
//!
//! # Invariants
//!
//! 1. There are never more than [`CONNECTIONS_MAX`], nor more than [`CONNECTIONS_PER_PEER_MAX`] of one
//!    peer.
//! 2. A connection is put down as a peer's, and trust in the peer asked for, in one step under the lock:
//!    whoever closes the connections of a peer that is trusted no more misses none.
//! 3. Nobody takes up room under somebody else's address: only those count that have shown to be there.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;

use crate::net::tls::{Purpose, Trust};

/// Connections in all: two for each of 16 peers, and as many that are not done with their handshake.
pub(crate) const CONNECTIONS_MAX: usize = 64;
/// Connections of one peer: both sides may have dialled at the same time.
pub(crate) const CONNECTIONS_PER_PEER_MAX: usize = 2;
/// Connections from one address.
pub(crate) const CONNECTIONS_PER_ADDRESS_MAX: usize = 8;
/// Incoming handshakes that may go on before callers must show that they are where they say.
pub(crate) const HANDSHAKES_UNPROVED_MAX: usize = 8;
/// Incoming handshakes that may go on at all.
pub(crate) const HANDSHAKES_MAX: usize = 32;
/// Pairing connections from one address within [`PAIRING_SPAN`].
pub(crate) const PAIRINGS_PER_ADDRESS_MAX: usize = 3;
/// The time over which pairing connections are counted.
pub(crate) const PAIRING_SPAN: Duration = Duration::from_secs(10);

/// What is closed when a connection must go.
pub(crate) trait Close: Clone {
    /// Closes at once, without a reason.
    fn close(&self);
}

/// All connections of an endpoint.
#[derive(Debug)]
pub(crate) struct Table<C> {
    entries: BTreeMap<u64, Entry<C>>,
    next: u64,
    /// When and from where pairing connections came, within [`PAIRING_SPAN`].
    pairings: VecDeque<(Instant, IpAddr)>,
}

#[derive(Debug)]
struct Entry<C> {
    address: IpAddr,
    stage: Stage<C>,
}

#[derive(Debug)]
enum Stage<C> {
    /// We called.
    Calling,
    /// Somebody called, and may or may not have shown to be at the address.
    Called {
        proved: bool,
    },
    Open {
        peer: Fingerprint,
        connection: C,
    },
}

/// What is known of a caller before anything is read of what it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    /// It has answered at its address.
    pub(crate) proved: bool,
    /// It can be asked to.
    pub(crate) may_prove: bool,
}

/// What happens to a caller.
#[derive(Debug)]
pub(crate) enum Verdict<C: Close> {
    Accept(Slot<C>),
    /// It must show that it is where it says.
    Prove,
    Refuse,
    /// Not even an answer.
    Ignore,
}

/// Room for one connection, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot<C: Close> {
    number: u64,
    table: SharedTable<C>,
}

/// The table, in all hands.
#[derive(Debug)]
pub(crate) struct SharedTable<C>(Arc<Mutex<Table<C>>>);

impl<C> Clone for SharedTable<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Close> SharedTable<C> {
    pub(crate) fn new() -> Self {
        let table = Table { entries: BTreeMap::new(), next: 0, pairings: VecDeque::new() };
        Self(Arc::new(Mutex::new(table)))
    }

    fn lock(&self) -> MutexGuard<'_, Table<C>> {
        // Every change of the table is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, table: &mut Table<C>, address: IpAddr, stage: Stage<C>) -> Slot<C> {
        let number = table.next;
        table.next += 1;
        table.entries.insert(number, Entry { address, stage });
        Slot { number, table: self.clone() }
    }

    /// Makes room for a call of ours.
    pub(crate) fn call(&self, address: IpAddr) -> Option<Slot<C>> {
        let mut table = self.lock();
        let room = table.entries.len() < CONNECTIONS_MAX;
        room.then(|| self.insert(&mut table, address, Stage::Calling))
    }

    /// Decides about a caller.
    pub(crate) fn called(&self, caller: Caller) -> Verdict<C> {
        let mut table = self.lock();
        let handshakes = table.handshakes();
        let of_address = table.of_address(caller.address);
        if HANDSHAKES_MAX <= handshakes {
            Verdict::Ignore
        } else if HANDSHAKES_UNPROVED_MAX <= handshakes && !caller.proved && caller.may_prove {
            Verdict::Prove
        } else if CONNECTIONS_MAX <= table.entries.len()
            || CONNECTIONS_PER_ADDRESS_MAX <= of_address
        {
            Verdict::Refuse
        } else {
            let stage = Stage::Called { proved: caller.proved };
            Verdict::Accept(self.insert(&mut table, caller.address, stage))
        }
    }

    /// Closes every connection of a peer, and returns how many there were.
    pub(crate) fn close_peer(&self, peer: Fingerprint) -> usize {
        let table = self.lock();
        let connections: Vec<C> = table.of_peer(peer).map(|(_, connection)| connection).collect();
        drop(table);
        connections.iter().for_each(Close::close);
        connections.len()
    }

    /// Returns how many connections there are, those in their handshake included.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }
}

impl<C: Close> Table<C> {
    fn handshakes(&self) -> usize {
        let called = |entry: &&Entry<C>| matches!(entry.stage, Stage::Called { .. });
        self.entries.values().filter(called).count()
    }

    fn of_address(&self, address: IpAddr) -> usize {
        let counts = |entry: &&Entry<C>| {
            let there = match entry.stage {
                Stage::Calling => false,
                Stage::Called { proved } => proved,
                Stage::Open { .. } => true,
            };
            there && entry.address == address
        };
        self.entries.values().filter(counts).count()
    }

    fn of_peer(&self, wanted: Fingerprint) -> impl Iterator<Item = (u64, C)> {
        self.entries.iter().filter_map(move |(number, entry)| match &entry.stage {
            Stage::Open { peer, connection } if *peer == wanted => {
                Some((*number, connection.clone()))
            }
            Stage::Open { .. } | Stage::Calling | Stage::Called { .. } => None,
        })
    }

    fn may_pair(&mut self, address: IpAddr, now: Instant) -> bool {
        self.pairings.retain(|(at, _)| now.saturating_duration_since(*at) < PAIRING_SPAN);
        let of_address = self.pairings.iter().filter(|(_, from)| *from == address).count();
        let room = self.pairings.len() < CONNECTIONS_MAX;
        let may = room && of_address < PAIRINGS_PER_ADDRESS_MAX;
        if may {
            self.pairings.push_back((now, address));
        }
        may
    }
}

impl<C: Close> Slot<C> {
    /// Puts the connection down as that of the certificate it was made with, and returns whether it may
    /// stay.
    ///
    /// A third connection of a peer replaces its oldest: the peer may have been restarted, and only it
    /// can do this to itself.
    pub(crate) fn open(
        &self,
        peer: Fingerprint,
        purpose: Purpose,
        connection: &C,
        trust: &dyn Trust,
        now: Instant,
    ) -> bool {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.get(&self.number) else { return false };
        let (address, we_called) = (entry.address, matches!(entry.stage, Stage::Calling));
        let may_stay = match purpose {
            Purpose::Sync => trust.is_peer(peer),
            Purpose::Pairing => we_called || trust.is_pairing() && table.may_pair(address, now),
        };
        if !may_stay {
            return false;
        }
        let others: Vec<(u64, C)> = table.of_peer(peer).collect();
        let surplus = (others.len() + 1).saturating_sub(CONNECTIONS_PER_PEER_MAX);
        for (number, other) in others.into_iter().take(surplus) {
            table.entries.remove(&number);
            other.close();
        }
        let stage = Stage::Open { peer, connection: connection.clone() };
        table.entries.insert(self.number, Entry { address, stage });
        true
    }
}

impl<C: Close> Drop for Slot<C> {
    fn drop(&mut self) {
        let removed = self.table.lock().entries.remove(&self.number);
        // After the lock is released: what is dropped here may close a connection.
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Fake(Arc<AtomicUsize>);

    impl Fake {
        fn closed(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Close for Fake {
        fn close(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[derive(Debug, Default)]
    struct Everybody {
        refused: AtomicBool,
    }

    impl Trust for Everybody {
        fn is_peer(&self, _: Fingerprint) -> bool {
            !self.refused.load(Ordering::SeqCst)
        }

        fn is_pairing(&self) -> bool {
            !self.refused.load(Ordering::SeqCst)
        }
    }

    const PEER: Fingerprint = Fingerprint([1; 32]);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    fn caller(last: u8, proved: bool) -> Caller {
        Caller { address: address(last), proved, may_prove: !proved }
    }

    fn accepted(verdict: Verdict<Fake>) -> Slot<Fake> {
        let Verdict::Accept(slot) = verdict else { panic!("{verdict:?}") };
        slot
    }

    fn open(slot: &Slot<Fake>, peer: u8) -> (bool, Fake) {
        let (fake, peer) = (Fake::default(), Fingerprint([peer; 32]));
        let trust = Everybody::default();
        (slot.open(peer, Purpose::Sync, &fake, &trust, Instant::now()), fake)
    }

    #[test]
    fn the_ninth_handshake_must_prove_its_address_and_the_33rd_gets_no_answer() {
        let table = SharedTable::<Fake>::new();
        let mut slots = Vec::new();
        for number in 0..HANDSHAKES_UNPROVED_MAX {
            slots.push(accepted(table.called(caller(u8::try_from(number).unwrap(), false))));
        }
        assert!(matches!(table.called(caller(100, false)), Verdict::Prove));
        for number in HANDSHAKES_UNPROVED_MAX..HANDSHAKES_MAX {
            slots.push(accepted(table.called(caller(u8::try_from(number).unwrap(), true))));
        }
        assert!(matches!(table.called(caller(100, true)), Verdict::Ignore));
        assert!(matches!(table.called(caller(100, false)), Verdict::Ignore));

        slots.pop();
        slots.push(accepted(table.called(caller(100, true))));
        assert_eq!(table.len(), HANDSHAKES_MAX);
    }

    #[test]
    fn eight_connections_come_from_one_address_and_nobody_fills_them_for_another() {
        let table = SharedTable::<Fake>::new();
        let spoofed: Vec<_> = (0..HANDSHAKES_UNPROVED_MAX)
            .map(|_| accepted(table.called(caller(1, false))))
            .collect();
        let mut real = Vec::new();
        for _ in 0..CONNECTIONS_PER_ADDRESS_MAX {
            real.push(accepted(table.called(caller(1, true))));
        }
        assert!(matches!(table.called(caller(1, true)), Verdict::Refuse));
        drop(accepted(table.called(caller(2, true))));

        drop(spoofed);
        for (slot, peer) in real.iter().zip(1..) {
            assert!(open(slot, peer).0);
        }
        assert!(matches!(table.called(caller(1, true)), Verdict::Refuse), "open ones count");
        assert!(matches!(table.called(caller(1, false)), Verdict::Refuse));
        real.pop();
        drop(accepted(table.called(caller(1, true))));
    }

    #[test]
    fn there_are_64_connections_and_no_more() {
        let table = SharedTable::<Fake>::new();
        let mut slots = Vec::new();
        for number in 0..u8::try_from(CONNECTIONS_MAX).unwrap() {
            let slot = accepted(table.called(caller(number, true)));
            assert!(open(&slot, number).0);
            slots.push(slot);
        }
        assert!(matches!(table.called(caller(100, true)), Verdict::Refuse));
        assert!(table.call(address(100)).is_none());

        slots.pop();
        let ours = table.call(address(100)).unwrap();
        assert_eq!(table.len(), CONNECTIONS_MAX);
        drop((slots, ours));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_third_connection_of_a_peer_replaces_its_oldest() {
        let table = SharedTable::<Fake>::new();
        let slots: Vec<_> = (0..4).map(|_| table.call(address(1)).unwrap()).collect();
        let [first, second, other, third] =
            [(0, 1), (1, 1), (2, 2), (3, 1)].map(|(slot, peer)| open(&slots[slot], peer));

        assert!([first.0, second.0, other.0, third.0].into_iter().all(|open| open));
        let closed = [first.1, second.1, other.1, third.1].map(|fake| fake.closed());
        assert_eq!(closed, [1, 0, 0, 0]);
        assert_eq!(table.close_peer(PEER), 2);
    }

    #[test]
    fn closing_the_connections_of_a_peer_leaves_the_others() {
        let table = SharedTable::<Fake>::new();
        let slots: Vec<_> = (0..3).map(|_| table.call(address(1)).unwrap()).collect();
        let [first, second, other] =
            [(0, 1), (1, 1), (2, 2)].map(|(slot, peer)| open(&slots[slot], peer).1);

        assert_eq!(table.close_peer(PEER), 2);
        assert_eq!([first, second, other].map(|fake| fake.closed()), [1, 1, 0]);
    }

    #[test]
    fn who_is_trusted_no_more_when_the_handshake_is_over_does_not_stay() {
        let table = SharedTable::<Fake>::new();
        let slot = accepted(table.called(caller(1, true)));
        let trust = Everybody { refused: AtomicBool::new(true) };
        for purpose in [Purpose::Sync, Purpose::Pairing] {
            assert!(!slot.open(PEER, purpose, &Fake::default(), &trust, Instant::now()));
        }
        assert_eq!(table.close_peer(PEER), 0);
    }

    #[test]
    fn three_pairings_come_from_one_address_in_ten_seconds() {
        let table = SharedTable::<Fake>::new();
        let (trust, start) = (Everybody::default(), Instant::now());
        let pair = |last: u8, after: Duration| {
            let slot = accepted(table.called(caller(last, true)));
            let now = start + after;
            slot.open(PEER, Purpose::Pairing, &Fake::default(), &trust, now)
        };

        let second = Duration::from_secs(1);
        assert!(pair(1, Duration::ZERO) && pair(1, second) && pair(1, second));
        assert!(!pair(1, Duration::from_millis(9_999)));
        assert!(pair(2, second), "another address");
        assert!(pair(1, PAIRING_SPAN));
        assert!(!pair(1, PAIRING_SPAN));
    }
}

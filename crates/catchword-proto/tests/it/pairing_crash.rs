//! Devices that are killed in the middle of a pairing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use catchword_model::identity::Fingerprint;
use catchword_proto::pairing::host::{ConnectionId, Exporters};
use catchword_proto::pairing::joiner::Meeting;
use catchword_proto::pairing::{Host, Introduction, Joiner, PairingId, host, joiner};
use catchword_proto::trust::{
    Deactivation, PROVISIONAL_MS, PeerRecord, PeerState, Peers, Step, Verdict,
};

use crate::pairing_support::{HOST, JOINER, Session, run_random, seeded, typed, window};
use crate::{any_instant, report};

/// The day of the pairing, in milliseconds since the Unix epoch.
const START_MS: u64 = 1_780_000_000_000;

/// The side whose power is cut, and at which of its moments: each input, and each write once before
/// it and once after it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    side: Side,
    moment: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Host,
    Joiner,
}

/// What survives a power cut: rows as a table holds them.
#[derive(Debug, Default)]
struct Disk(BTreeMap<Fingerprint, Vec<u8>>);

impl Disk {
    fn peers(&self) -> Peers {
        let rows = self.0.iter().map(|(peer, row)| PeerRecord::decode(*peer, row).unwrap());
        Peers::new(rows)
    }

    fn write(&mut self, step: Step<'_>, now_ms: u64) {
        let update = self.peers().plan(step, now_ms).unwrap();
        self.0.extend(update.put.iter().map(|record| (record.fingerprint, record.encode())));
        self.0.retain(|peer, _| !update.dropped.contains(peer));
    }

    fn state(&self, peer: Fingerprint) -> Option<PeerState> {
        self.peers().find(peer).map(|record| record.state)
    }
}

/// A device of which nothing is left but its disk once its power is cut.
struct Device<M> {
    side: Side,
    machine: Option<M>,
    disk: Disk,
    moments: u32,
    /// The other side has been told that nobody is there any more.
    has_hung_up: bool,
}

impl<M> Device<M> {
    fn new(side: Side, machine: M) -> Self {
        let (disk, moments) = (Disk::default(), 0);
        Self { side, machine: Some(machine), disk, moments, has_hung_up: false }
    }

    /// Returns whether the device is still there after this moment.
    fn survives(&mut self, cuts: &[Cut]) -> bool {
        self.moments += 1;
        if cuts.contains(&Cut { side: self.side, moment: self.moments }) {
            self.machine = None;
        }
        self.machine.is_some()
    }

    fn write(&mut self, step: Step<'_>, cuts: &[Cut]) {
        if self.survives(cuts) {
            self.disk.write(step, START_MS);
            self.survives(cuts);
        }
    }

    /// Says once that the connection ends with the device.
    fn hangs_up(&mut self) -> bool {
        self.machine.is_none() && !std::mem::replace(&mut self.has_hung_up, true)
    }
}

const CONNECTION: ConnectionId = ConnectionId(1);

/// What is on its way, or `None` for the end of the connection.
type Line = VecDeque<Option<Vec<u8>>>;

struct World {
    host: Device<Host>,
    joiner: Device<Joiner>,
    now: Instant,
    to_host: Line,
    to_joiner: Line,
}

impl World {
    fn new() -> Self {
        let mut rng = seeded(11);
        let now = any_instant();
        let session = Session(1);
        let mut machine = Host::open(window(&mut rng), now);
        let exporters = Exporters {
            named: session.exporter(PairingId([1; 8])),
            unnamed: session.exporter(PairingId::UNNAMED),
        };
        machine.handle_input(
            host::Input::Connected {
                connection: CONNECTION,
                source: [10, 0, 0, 2].into(),
                joiner: JOINER,
                exporters,
                random: run_random(&mut rng),
            },
            now,
        );
        let invitation = typed(123_456);
        let exporter = session.exporter(invitation.id());
        let random = run_random(&mut rng);
        let meeting = Meeting { host: HOST, joiner: JOINER, exporter, random };
        let introduction = Introduction::new("joiner", "android", "0.1.0");
        let joiner = Joiner::start(&invitation, introduction, meeting, now);
        Self {
            host: Device::new(Side::Host, machine),
            joiner: Device::new(Side::Joiner, joiner),
            now,
            to_host: Line::new(),
            to_joiner: Line::new(),
        }
    }

    /// Runs until nothing moves any more, time included.
    fn pair(&mut self, cuts: &[Cut]) {
        loop {
            self.drive_host(cuts);
            self.drive_joiner(cuts);
            if let Some(said) = self.to_host.pop_front() {
                let connection = CONNECTION;
                self.tell_host(
                    match said {
                        Some(bytes) => host::Input::Received { connection, bytes },
                        None => host::Input::Closed { connection },
                    },
                    cuts,
                );
            } else if let Some(said) = self.to_joiner.pop_front() {
                self.tell_joiner(
                    said.map_or(joiner::Input::Closed(None), joiner::Input::Received),
                    cuts,
                );
            } else if !self.wait() {
                return;
            }
        }
    }

    /// Lets time pass up to the next deadline of a device that is still there.
    fn wait(&mut self) -> bool {
        let host = self.host.machine.as_ref().and_then(Host::poll_timeout);
        let joiner = self.joiner.machine.as_ref().and_then(Joiner::poll_timeout);
        let Some(next) = host.into_iter().chain(joiner).min() else { return false };
        self.now = next;
        if let Some(machine) = &mut self.host.machine {
            machine.handle_timeout(next);
        }
        if let Some(machine) = &mut self.joiner.machine {
            machine.handle_timeout(next);
        }
        true
    }

    fn tell_host(&mut self, input: host::Input, cuts: &[Cut]) {
        if self.host.survives(cuts)
            && let Some(machine) = &mut self.host.machine
        {
            machine.handle_input(input, self.now);
        }
    }

    fn tell_joiner(&mut self, input: joiner::Input, cuts: &[Cut]) {
        if self.joiner.survives(cuts)
            && let Some(machine) = &mut self.joiner.machine
        {
            machine.handle_input(input, self.now);
        }
    }

    fn drive_host(&mut self, cuts: &[Cut]) {
        while let Some(event) = self.host.machine.as_mut().and_then(Host::poll_event) {
            let input = match event {
                host::Event::Ask { .. } => host::Input::Approved,
                host::Event::Keep(peer) => {
                    self.host.write(Step::Admit(&peer), cuts);
                    host::Input::Kept
                }
                host::Event::Promote { joiner } => {
                    self.host.write(Step::Promote(joiner), cuts);
                    host::Input::Kept
                }
                host::Event::TurnedAway { .. } | host::Event::Ended(_) => continue,
            };
            self.tell_host(input, cuts);
        }
        while let Some(transmit) = self.host.machine.as_mut().and_then(Host::poll_transmit) {
            if !self.host.survives(cuts) {
                break;
            }
            self.to_joiner.push_back(match transmit {
                host::Transmit::Send { bytes, .. } => Some(bytes),
                host::Transmit::Close { .. } => None,
            });
        }
        if self.host.hangs_up() {
            self.to_joiner.push_back(None);
        }
    }

    fn drive_joiner(&mut self, cuts: &[Cut]) {
        while let Some(event) = self.joiner.machine.as_mut().and_then(Joiner::poll_event) {
            match event {
                joiner::Event::Keep(peer) => {
                    self.joiner.write(Step::Join(&peer), cuts);
                    self.tell_joiner(joiner::Input::Kept, cuts);
                }
                joiner::Event::Ended(_) => (),
            }
        }
        while let Some(transmit) = self.joiner.machine.as_mut().and_then(Joiner::poll_transmit) {
            if !self.joiner.survives(cuts) {
                break;
            }
            self.to_host.push_back(match transmit {
                joiner::Transmit::Send(bytes) => Some(bytes),
                joiner::Transmit::Close(_) => None,
            });
        }
        if self.joiner.hangs_up() {
            self.to_host.push_back(None);
        }
    }

    /// Both devices are started again, and the joiner, if it knows the host, sends a signed request.
    fn sync(&mut self, now_ms: u64) {
        self.host.disk.write(Step::Expire, now_ms);
        let dials = self.joiner.disk.peers().outgoing(HOST, HOST, now_ms) == Verdict::Trusted;
        if !dials {
            return;
        }
        match self.host.disk.peers().incoming(JOINER, now_ms) {
            Verdict::Trusted => (),
            Verdict::Provisional => self.host.disk.write(Step::Promote(JOINER), now_ms),
            Verdict::Unknown | Verdict::Barred(_) | Verdict::Mismatch => {
                let why = Deactivation::UnknownToPeer;
                self.joiner.disk.write(Step::Deactivate(HOST, why), now_ms);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    BothActive,
    Neither,
}

/// Pairs, cuts power, and says what both disks have come to after a sync at `sync_ms`.
fn end_of(cuts: &[Cut], sync_ms: u64) -> (World, End) {
    let mut world = World::new();
    world.pair(cuts);
    world.sync(sync_ms);
    let after_ms = START_MS + PROVISIONAL_MS;
    world.host.disk.write(Step::Expire, after_ms);
    let end = match (world.host.disk.state(JOINER), world.joiner.disk.state(HOST)) {
        (Some(PeerState::Active), Some(PeerState::Active)) => End::BothActive,
        (None, None | Some(PeerState::Deactivated(Deactivation::UnknownToPeer))) => End::Neither,
        mixed => panic!("{cuts:?}, sync at {sync_ms}: {mixed:?}"),
    };
    (world, end)
}

/// Goal: a pairing that is cut off at any moment ends with both sides trusting each other, or with
/// neither, after 10 minutes at most.
///
/// Method: the power of one side, and of both, is cut at every moment there is: at every message and
/// before and after every durable write. Afterwards the joiner syncs, at once or too late.
#[test]
fn t_pair_11_a_power_cut_at_any_moment_leaves_both_active_or_neither() {
    let (whole, end) = end_of(&[], START_MS + 1);
    assert_eq!(end, End::BothActive);
    let moments = [(Side::Host, whole.host.moments), (Side::Joiner, whole.joiner.moments)];
    let single: Vec<Cut> = moments
        .into_iter()
        .flat_map(|(side, moments)| (1..=moments).map(move |moment| Cut { side, moment }))
        .collect();
    let of = |side: Side| single.iter().filter(move |cut| cut.side == side);
    let pairs = of(Side::Host).flat_map(|host| of(Side::Joiner).map(|joiner| vec![*host, *joiner]));
    let all: Vec<Vec<Cut>> = single.iter().map(|cut| vec![*cut]).chain(pairs).collect();

    let mut ends = BTreeMap::new();
    for cuts in &all {
        for sync_ms in [START_MS + 1, START_MS + PROVISIONAL_MS - 1, START_MS + PROVISIONAL_MS] {
            *ends.entry(end_of(cuts, sync_ms).1).or_insert(0_u32) += 1;
        }
    }

    report(&format!(
        "T-PAIR-11: {} moments of the host, {} of the joiner, {} ways to cut, each with 3 times of \
         the next sync; ends: {ends:?}, nothing else",
        whole.host.moments,
        whole.joiner.moments,
        all.len(),
    ));
    assert!(10 <= whole.host.moments && 6 <= whole.joiner.moments);
    assert!(ends.len() == 2 && ends.values().all(|count| 10 < *count), "{ends:?}");
}

#[test]
fn a_joiner_that_was_cut_off_before_its_last_message_is_promoted_by_its_first_request() {
    // The joiner's moments: M1 out, M2 in, M3 out, M4 in, before and after its write, …
    let cut = Cut { side: Side::Joiner, moment: 6 };
    let mut world = World::new();
    world.pair(&[cut]);
    assert_eq!(world.host.disk.state(JOINER), Some(PeerState::Provisional));
    assert_eq!(world.joiner.disk.state(HOST), Some(PeerState::Active));

    world.sync(START_MS + PROVISIONAL_MS - 1);

    assert_eq!(world.host.disk.state(JOINER), Some(PeerState::Active));
}

//! A host to which everything happens in any order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use catchword_proto::pairing::host::{
    Approval, Attempts, ConnectionId, Exporters, Input, KeyOnly, Transmit, WAITING_MAX, Window,
};
use catchword_proto::pairing::{ATTEMPTS_MAX, Host, PairingId, host};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::pairing_support::{
    HOST, JOINER, JoinerDevice, Said, Session, StandIn, run_random, seeded, typed, window,
};
use crate::{any_instant, report};

/// Somebody on a connection, with what it will say next.
struct Guest {
    connection: ConnectionId,
    device: JoinerDevice<StandIn>,
    says: VecDeque<Said>,
}

/// A host, and all that its events have said so far.
struct World {
    host: Host<StandIn>,
    now: Instant,
    guests: Vec<Guest>,
    connections: u64,
    keeps: u32,
    promotes: u32,
    ends: u32,
    /// The store has been asked and has not answered.
    store_is_asked: bool,
}

impl World {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let approval = if rng.random() { Approval::Asked } else { Approval::Given };
        let key_only = if rng.random_ratio(3, 4) { KeyOnly::Accepted } else { KeyOnly::Refused };
        let settings = Window { approval, key_only, ..window(rng) };
        let now = any_instant();
        Self {
            host: Host::open(settings, now),
            now,
            guests: Vec::new(),
            connections: 0,
            keeps: 0,
            promotes: 0,
            ends: 0,
            store_is_asked: false,
        }
    }

    fn step(&mut self, rng: &mut ChaCha8Rng) {
        match rng.random_range(0..12) {
            0 | 1 => self.connect(rng),
            2..=7 if !self.guests.is_empty() => self.say(rng),
            8 => {
                let ms = [1, 9_999, 10_000, 30_000][rng.random_range(0..4)];
                self.now += Duration::from_millis(ms);
                self.host.handle_timeout(self.now);
            }
            9 => self.tell(Input::Approved),
            10 => self.answer_for_the_store(rng),
            11 if rng.random_ratio(1, 8) => {
                self.tell(if rng.random() { Input::Denied } else { Input::Cancelled });
            }
            _ if !self.guests.is_empty() => {
                let guest = self.guests.swap_remove(rng.random_range(0..self.guests.len()));
                self.tell(Input::Closed { connection: guest.connection });
            }
            _ => (),
        }
        self.look();
    }

    fn connect(&mut self, rng: &mut ChaCha8Rng) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let session = Session(self.connections);
        let exporters = Exporters {
            named: session.exporter(PairingId([1; 8])),
            unnamed: session.exporter(PairingId::UNNAMED),
        };
        let key = if rng.random() { 123_456 } else { 1 };
        let invitation = typed(key);
        let (device, first) = JoinerDevice::start(&invitation, (HOST, JOINER), session, rng);
        self.guests.push(Guest { connection, device, says: first.into() });
        let source = [10, 0, 0, rng.random_range(0..40)].into();
        let random = run_random(rng);
        self.tell(Input::Connected { connection, source, joiner: JOINER, exporters, random });
    }

    /// Lets one guest say what it has to say, or something spoiled, or nothing that anybody expects.
    fn say(&mut self, rng: &mut ChaCha8Rng) {
        let at = rng.random_range(0..self.guests.len());
        let guest = &mut self.guests[at];
        let connection = guest.connection;
        let mut bytes = match guest.says.pop_front() {
            Some(Said::Bytes(bytes)) => bytes,
            Some(Said::Close(_)) => return self.tell(Input::Closed { connection }),
            None => vec![rng.random(); rng.random_range(0..3)],
        };
        match rng.random_range(0..16) {
            0 => bytes.truncate(rng.random_range(0..=bytes.len())),
            1 => bytes.push(rng.random()),
            2 => bytes = vec![rng.random(); rng.random_range(0..3_000)],
            3 if !bytes.is_empty() => {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            _ => (),
        }
        self.tell(Input::Received { connection, bytes });
    }

    fn answer_for_the_store(&mut self, rng: &mut impl Rng) {
        self.store_is_asked = false;
        self.tell(if rng.random_ratio(9, 10) { Input::Kept } else { Input::NotKept });
    }

    fn tell(&mut self, input: Input) {
        self.host.handle_input(input, self.now);
    }

    /// Takes what the machine says, and checks that it may say so.
    fn look(&mut self) {
        while let Some(event) = self.host.poll_event() {
            assert_eq!(self.ends, 0, "the end is the last event");
            match event {
                host::Event::Keep(_) => {
                    self.keeps += 1;
                    self.store_is_asked = true;
                }
                host::Event::Promote { .. } => {
                    self.promotes += 1;
                    self.store_is_asked = true;
                }
                host::Event::Ended(ending) => {
                    let Attempts { scanned, key_only } = self.host.attempts_left();
                    assert!(ending.attempts_spent + scanned + key_only <= 2 * ATTEMPTS_MAX);
                    self.ends += 1;
                }
                host::Event::Ask { .. } | host::Event::TurnedAway { .. } => (),
            }
        }
        assert!(self.keeps <= 1 && self.promotes <= self.keeps, "one joiner in one window");
        while let Some(transmit) = self.host.poll_transmit() {
            let (to, said) = match transmit {
                Transmit::Send { connection, bytes } => (connection, Said::Bytes(bytes)),
                Transmit::Close { connection, code } => (connection, Said::Close(code)),
            };
            if let Some(guest) = self.guests.iter_mut().find(|guest| guest.connection == to) {
                let answers = guest.device.hear(&said);
                guest.says.extend(answers);
            }
        }
    }
}

/// Goal: no order of events makes the host panic, keep two joiners, or stay open for ever.
#[test]
fn whatever_happens_to_a_host_its_window_ends_once() {
    let (runs, steps) = (4_000, 60);
    let (mut keeps, mut promotes) = (0, 0);
    for seed in 0..runs {
        let mut rng = seeded(seed);
        let mut world = World::new(&mut rng);
        for _ in 0..steps {
            world.step(&mut rng);
        }
        // Time and the store do the rest: each connection, and each stage of the run, has an end.
        for _ in 0..WAITING_MAX + 8 {
            if world.store_is_asked {
                world.answer_for_the_store(&mut rng);
            }
            if let Some(deadline) = world.host.poll_timeout() {
                assert!(world.ends == 0, "seed {seed}: a deadline after the end");
                world.now = world.now.max(deadline);
                world.host.handle_timeout(world.now);
            }
            world.look();
        }
        assert_eq!(world.ends, 1, "seed {seed}: {:?}", world.host);
        keeps += world.keeps;
        promotes += world.promotes;
    }
    report(&format!(
        "{runs} hosts, {steps} events each: {keeps} joiners kept, {promotes} promoted"
    ));
    assert!(200 < keeps && 50 < promotes && promotes < keeps, "the test sees too little");
}

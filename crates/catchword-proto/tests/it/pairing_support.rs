//! Two devices and the connection between them, with everything a driver would do.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use catchword_model::id::sha256;
use catchword_model::identity::Fingerprint;
use catchword_proto::pairing::host::{
    Approval, Attempts, ConnectionId, Ending, Exporters, KeyOnly, Reason, Window,
};
use catchword_proto::pairing::joiner::{Invitation, Meeting, Outcome};
use catchword_proto::pairing::{
    BadShare, CloseCode, Exporter, Host, Identities, Introduction, Joiner, NewPeer,
    PAKE_RANDOM_BYTES, PairingId, PairingKey, Pake, QrCode, QrSecret, Role, RunRandom, SHARE_BYTES,
    Spake2, host, joiner,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zeroize::Zeroizing;

use crate::any_instant;

pub(crate) const HOST: Fingerprint = Fingerprint([0xA0; 32]);
pub(crate) const JOINER: Fingerprint = Fingerprint([0xB0; 32]);
pub(crate) const IMPOSTOR: Fingerprint = Fingerprint([0xC0; 32]);

pub(crate) fn seeded(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub(crate) fn key(number: u32) -> PairingKey {
    PairingKey::parse(&format!("{number:06}")).unwrap()
}

pub(crate) fn run_random(rng: &mut impl Rng) -> RunRandom {
    let mut bytes = [0; RunRandom::BYTES];
    rng.fill_bytes(&mut bytes);
    RunRandom::new(bytes)
}

/// A TLS session: whoever is on it exports the same, and nobody else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session(pub(crate) u64);

impl Session {
    pub(crate) fn exporter(self, id: PairingId) -> Exporter {
        Exporter::new(sha256(&[&self.0.to_be_bytes(), &id.0]))
    }
}

/// What one side did on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Bytes(Vec<u8>),
    Close(CloseCode),
}

/// A window with id 1, key 123456, that asks and takes joiners of both modes.
pub(crate) fn window(rng: &mut impl Rng) -> Window {
    Window {
        id: PairingId([1; 8]),
        key: key(123_456),
        secret: QrSecret::new(rng.random()),
        host: HOST,
        introduction: Introduction::new("host", "linux", "0.1.0"),
        key_only: KeyOnly::Accepted,
        approval: Approval::Asked,
    }
}

/// A host and its driver. The person says yes, and the store keeps everything.
pub(crate) struct HostDevice<P = Spake2> {
    pub(crate) machine: Host<P>,
    pub(crate) now: Instant,
    pub(crate) window: Window,
    pub(crate) kept: Vec<NewPeer>,
    pub(crate) promoted: Vec<Fingerprint>,
    pub(crate) asked: Vec<(Fingerprint, Introduction)>,
    pub(crate) turned_away: Vec<Reason>,
    pub(crate) ended: Option<Ending>,
    /// What the person says, if anything.
    pub(crate) answer: Option<host::Input>,
    rng: ChaCha8Rng,
    connections: u64,
}

impl<P: Pake> HostDevice<P> {
    pub(crate) fn open(window: Window, rng: &mut impl Rng) -> Self {
        let now = any_instant();
        Self {
            machine: Host::open(window.clone(), now),
            now,
            window,
            kept: Vec::new(),
            promoted: Vec::new(),
            asked: Vec::new(),
            turned_away: Vec::new(),
            ended: None,
            answer: Some(host::Input::Approved),
            rng: seeded(rng.random()),
            connections: 0,
        }
    }

    pub(crate) fn code(&self) -> QrCode {
        self.machine.qr_code(4_433, vec![IpAddr::from([192, 168, 0, 2])])
    }

    /// Connects from an address that nobody has used before.
    pub(crate) fn connect(&mut self, session: Session, joiner: Fingerprint) -> Guest {
        let [_, b, c, d] = u32::try_from(self.connections).unwrap().to_be_bytes();
        self.connect_from(IpAddr::from([10, b, c, d]), session, joiner)
    }

    pub(crate) fn connect_from(
        &mut self,
        source: IpAddr,
        session: Session,
        joiner: Fingerprint,
    ) -> Guest {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let named = session.exporter(self.window.id);
        let exporters = Exporters { named, unnamed: session.exporter(PairingId::UNNAMED) };
        let random = run_random(&mut self.rng);
        let input = host::Input::Connected { connection, source, joiner, exporters, random };
        let heard = self.input(input).into_iter().map(|(_, said)| said).collect();
        Guest { connection, heard }
    }

    /// Gives the machine an input, does everything it asks for, and returns what goes out.
    pub(crate) fn input(&mut self, input: host::Input) -> Vec<(ConnectionId, Said)> {
        self.machine.handle_input(input, self.now);
        self.drive()
    }

    pub(crate) fn pass(&mut self, time: Duration) -> Vec<(ConnectionId, Said)> {
        self.now += time;
        self.machine.handle_timeout(self.now);
        self.drive()
    }

    fn drive(&mut self) -> Vec<(ConnectionId, Said)> {
        while let Some(event) = self.machine.poll_event() {
            assert_eq!(self.ended, None, "the end is the last event");
            match event {
                host::Event::Ask { joiner, introduction } => {
                    self.asked.push((joiner, introduction));
                    if let Some(answer) = self.answer.take() {
                        self.machine.handle_input(answer, self.now);
                    }
                }
                host::Event::Keep(peer) => {
                    self.kept.push(peer);
                    self.machine.handle_input(host::Input::Kept, self.now);
                }
                host::Event::Promote { joiner } => {
                    self.promoted.push(joiner);
                    self.machine.handle_input(host::Input::Kept, self.now);
                }
                host::Event::TurnedAway { reason, .. } => self.turned_away.push(reason),
                host::Event::Ended(ending) => self.ended = Some(ending),
            }
        }
        let transmits = std::iter::from_fn(|| self.machine.poll_transmit());
        transmits
            .map(|transmit| match transmit {
                host::Transmit::Send { connection, bytes } => (connection, Said::Bytes(bytes)),
                host::Transmit::Close { connection, code } => (connection, Said::Close(code)),
            })
            .collect()
    }

    pub(crate) fn left(&self) -> Attempts {
        self.machine.attempts_left()
    }

    /// Nothing of anybody was kept.
    pub(crate) fn is_untouched(&self) -> bool {
        self.kept.is_empty() && self.promoted.is_empty()
    }
}

/// One end of a connection to a host, for whoever holds it.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) connection: ConnectionId,
    /// What the host has said so far.
    pub(crate) heard: Vec<Said>,
}

impl Guest {
    /// Says something, and returns what the host answers on this connection.
    pub(crate) fn say<P: Pake>(&mut self, host: &mut HostDevice<P>, bytes: &[u8]) -> Vec<Said> {
        let connection = self.connection;
        let input = host::Input::Received { connection, bytes: bytes.to_vec() };
        let answers = host.input(input).into_iter().filter(|(to, _)| *to == connection);
        let answers: Vec<Said> = answers.map(|(_, said)| said).collect();
        self.heard.extend_from_slice(&answers);
        answers
    }

    pub(crate) fn leave<P: Pake>(&self, host: &mut HostDevice<P>) {
        let answers = host.input(host::Input::Closed { connection: self.connection });
        assert_eq!(answers, [], "nobody is there any more");
    }
}

/// A joiner and its driver. The store keeps everything.
pub(crate) struct JoinerDevice<P = Spake2> {
    machine: Joiner<P>,
    pub(crate) now: Instant,
    pub(crate) kept: Vec<NewPeer>,
    pub(crate) outcome: Option<Outcome>,
}

impl<P: Pake> JoinerDevice<P> {
    /// Connects to whoever shows `host`'s certificate on this session.
    pub(crate) fn start(
        invitation: &Invitation,
        (host, joiner): (Fingerprint, Fingerprint),
        session: Session,
        rng: &mut impl Rng,
    ) -> (Self, Vec<Said>) {
        let exporter = session.exporter(invitation.id());
        let meeting = Meeting { host, joiner, exporter, random: run_random(rng) };
        let introduction = Introduction::new("joiner", "android", "0.1.0");
        let now = any_instant();
        let machine = Joiner::start(invitation, introduction, meeting, now);
        let mut device = Self { machine, now, kept: Vec::new(), outcome: None };
        let said = device.drive();
        (device, said)
    }

    pub(crate) fn hear(&mut self, said: &Said) -> Vec<Said> {
        self.input(match said {
            Said::Bytes(bytes) => joiner::Input::Received(bytes.clone()),
            Said::Close(code) => joiner::Input::Closed(Some(*code)),
        })
    }

    pub(crate) fn input(&mut self, input: joiner::Input) -> Vec<Said> {
        self.machine.handle_input(input, self.now);
        self.drive()
    }

    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Said> {
        self.now += time;
        self.machine.handle_timeout(self.now);
        self.drive()
    }

    fn drive(&mut self) -> Vec<Said> {
        while let Some(event) = self.machine.poll_event() {
            assert_eq!(self.outcome, None, "the end is the last event");
            match event {
                joiner::Event::Keep(peer) => {
                    self.kept.push(peer);
                    self.machine.handle_input(joiner::Input::Kept, self.now);
                }
                joiner::Event::Ended(outcome) => self.outcome = Some(outcome),
            }
        }
        let transmits = std::iter::from_fn(|| self.machine.poll_transmit());
        transmits
            .map(|transmit| match transmit {
                joiner::Transmit::Send(bytes) => Said::Bytes(bytes),
                joiner::Transmit::Close(code) => Said::Close(code),
            })
            .collect()
    }
}

/// Everything that was said on a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    pub(crate) by_joiner: Vec<Vec<u8>>,
    pub(crate) by_host: Vec<Vec<u8>>,
}

impl Recording {
    fn messages(&self) -> usize {
        self.by_joiner.len() + self.by_host.len()
    }
}

/// Carries what the sides say from one to the other until nobody says anything.
pub(crate) fn converse<P: Pake>(
    host: &mut HostDevice<P>,
    guest: &mut Guest,
    joiner: &mut JoinerDevice<P>,
    first: Vec<Said>,
) -> Recording {
    converse_through(host, guest, joiner, first, |_, _| ())
}

/// The same, through somebody who may change each message; the first one has number 1.
pub(crate) fn converse_through<P: Pake>(
    host: &mut HostDevice<P>,
    guest: &mut Guest,
    joiner: &mut JoinerDevice<P>,
    first: Vec<Said>,
    mut change: impl FnMut(usize, &mut Vec<u8>),
) -> Recording {
    let mut recording = Recording::default();
    let mut by_joiner = first;
    let mut by_host = std::mem::take(&mut guest.heard);
    while !by_joiner.is_empty() || !by_host.is_empty() {
        for said in std::mem::take(&mut by_joiner) {
            match said {
                Said::Bytes(mut bytes) => {
                    change(recording.messages() + 1, &mut bytes);
                    by_host.extend(guest.say(host, &bytes));
                    recording.by_joiner.push(bytes);
                }
                Said::Close(_) => guest.leave(host),
            }
        }
        for mut said in std::mem::take(&mut by_host) {
            if let Said::Bytes(bytes) = &mut said {
                change(recording.messages() + 1, bytes);
                recording.by_host.push(bytes.clone());
            }
            by_joiner.extend(joiner.hear(&said));
        }
    }
    recording
}

/// One attempt from its beginning to its end, between a host and whoever has this invitation.
pub(crate) fn attempt<P: Pake>(
    host: &mut HostDevice<P>,
    invitation: &Invitation,
    joiner: Fingerprint,
    rng: &mut impl Rng,
) -> (JoinerDevice<P>, Recording) {
    let session = Session(rng.random());
    let mut guest = host.connect(session, joiner);
    let (mut device, first) = JoinerDevice::start(invitation, (HOST, joiner), session, rng);
    let recording = converse(host, &mut guest, &mut device, first);
    (device, recording)
}

pub(crate) fn typed(number: u32) -> Invitation {
    Invitation::KeyOnly { id: PairingId([1; 8]), key: key(number) }
}

pub(crate) fn scanned<P: Pake>(host: &HostDevice<P>, number: u32) -> Invitation {
    Invitation::Scanned { code: host.code(), key: key(number) }
}

/// An exchange that costs nothing and protects nothing: both sides have one key if and only if
/// they had one password and the same identities, as with the real one. For counting.
pub(crate) struct StandIn {
    role: Role,
    password: [u8; 32],
    identities: [u8; 32],
    own: [u8; SHARE_BYTES],
}

impl Pake for StandIn {
    fn start(
        role: Role,
        password: &[u8; 32],
        identities: Identities<'_>,
        random: &[u8; PAKE_RANDOM_BYTES],
    ) -> (Self, [u8; SHARE_BYTES]) {
        let mut own = [0; SHARE_BYTES];
        own.copy_from_slice(&random[..SHARE_BYTES]);
        let identities = sha256(&[identities.host, identities.joiner]);
        (Self { role, password: *password, identities, own }, own)
    }

    fn finish(self, share: &[u8; SHARE_BYTES]) -> Result<Zeroizing<Vec<u8>>, BadShare> {
        let (host, joiner) = match self.role {
            Role::Host => (&self.own, share),
            Role::Joiner => (share, &self.own),
        };
        let key = sha256(&[&self.password, &self.identities, host, joiner]);
        Ok(Zeroizing::new(key.to_vec()))
    }
}

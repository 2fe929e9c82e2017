//! Runs a pairing over connections: the machine decides, this carries.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;
use catchword_proto::pairing::host::{
    self, Approval, ConnectionId, Exporters, Host, KeyOnly, Window,
};
use catchword_proto::pairing::joiner::{self, Failure, Invitation, Joiner, Meeting};
use catchword_proto::pairing::{
    CloseCode, EXPORTER_LABEL, Exporter, Introduction, PairingId, PairingKey, QrCode, QrSecret,
    RunRandom,
};
use catchword_proto::request::Status;
use catchword_proto::trust::Step;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::error::ReadError;
use crate::net::peers::{PeerBook, PeerError};
use crate::net::quic::{Connection, DialError, Lost};
use crate::net::stream::{Stream, StreamError};

/// How long a read on a stream waits; the machine's own deadlines are shorter.
const READ_WAIT: Duration = Duration::from_secs(180);
/// How long the last message may take to reach the other side.
const FINISH_WAIT: Duration = Duration::from_secs(5);
/// What readers have told and the window has not yet looked at.
const TOLD_MAX: usize = 64;

/// A pairing did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// Nobody came in time, or nobody who had the key. Show a new code.
    #[error("no device was paired: {0}")]
    Over(&'static str),
    /// The other device was not paired.
    #[error(transparent)]
    Join(#[from] Failure),
    /// The other device could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection was lost.
    #[error("the connection was lost; start again with a new code")]
    Lost(#[source] Lost),
    /// Too many windows failed lately, or what is kept of peers could not be read or written.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The library could not be read.
    #[error(transparent)]
    Read(ReadError),
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random(#[source] std::io::Error),
}

/// Who asks to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asking {
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// What it says it is called.
    pub name: String,
}

/// The answer of a person to [`Asking`]. Dropped unsaid, it is no.
#[derive(Debug)]
pub struct Allow(oneshot::Sender<bool>);

impl Allow {
    /// Says yes or no.
    pub fn say(self, yes: bool) {
        // Nobody waits for it any more if the window is over.
        let _window_over = self.0.send(yes);
    }
}

/// Asked before a device is taken in; must not block.
pub type OnAsk = Box<dyn Fn(Asking, Allow) + Send + Sync>;

/// How a window is opened.
#[derive(Default)]
#[non_exhaustive]
pub struct Hosting {
    /// Only a device that has scanned the QR code may come.
    pub qr_only: bool,
    /// Asked before a device is taken in. Default: showing the code was the approval.
    pub ask: Option<OnAsk>,
}

impl Hosting {
    /// Takes only a device that has scanned the QR code, or any that has the six digits.
    #[must_use]
    pub fn with_qr_only(mut self, qr_only: bool) -> Self {
        self.qr_only = qr_only;
        self
    }

    /// Asks before a device is taken in.
    #[must_use]
    pub fn with_ask(mut self, ask: impl Fn(Asking, Allow) + Send + Sync + 'static) -> Self {
        self.ask = Some(Box::new(ask));
        self
    }
}

impl std::fmt::Debug for Hosting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosting").field("qr_only", &self.qr_only).finish_non_exhaustive()
    }
}

/// Something that happened to one of the window's connections.
enum Told {
    Bytes(ConnectionId, Vec<u8>),
    Gone(ConnectionId),
    Answer(bool),
}

/// One connection of the window.
struct Guest {
    connection: Connection,
    to_stream: mpsc::Sender<Out>,
}

/// What a guest's task does with its stream.
enum Out {
    Bytes(Vec<u8>),
    Close(CloseCode),
}

/// An open window: who shows the code.
pub(crate) struct HostRun {
    machine: Host,
    peers: Arc<PeerBook>,
    ask: Option<OnAsk>,
    guests: BTreeMap<ConnectionId, Guest>,
    told: (mpsc::Sender<Told>, mpsc::Receiver<Told>),
    id: PairingId,
    next: u64,
}

impl HostRun {
    /// Opens a window, durably counted, and returns it with the key.
    pub(crate) fn open(
        peers: &Arc<PeerBook>,
        own: Fingerprint,
        introduction: Introduction,
        hosting: Hosting,
    ) -> Result<(Self, PairingKey), PairError> {
        peers.open_window()?;
        let key = draw_key()?;
        let id = PairingId(random()?);
        let window = Window {
            id,
            key: key.clone(),
            secret: QrSecret::new(random()?),
            host: own,
            introduction,
            key_only: if hosting.qr_only { KeyOnly::Refused } else { KeyOnly::Accepted },
            approval: if hosting.ask.is_some() { Approval::Asked } else { Approval::Given },
        };
        let run = Self {
            machine: Host::open(window, Instant::now()),
            peers: Arc::clone(peers),
            ask: hosting.ask,
            guests: BTreeMap::new(),
            told: mpsc::channel(TOLD_MAX),
            id,
            next: 0,
        };
        Ok((run, key))
    }

    /// Returns what names this window.
    pub(crate) fn id(&self) -> PairingId {
        self.id
    }

    /// Returns what the QR code says, for a host at these addresses.
    pub(crate) fn qr_code(&self, port: u16, addresses: Vec<std::net::IpAddr>) -> QrCode {
        self.machine.qr_code(port, addresses)
    }

    /// Takes whoever comes, until somebody is paired or the window is over.
    pub(crate) async fn run(
        mut self,
        mut connections: mpsc::Receiver<Connection>,
    ) -> Result<Fingerprint, PairError> {
        loop {
            if let Some(ending) = self.settle().await {
                self.peers.close_window(ending)?;
                self.close_all().await;
                return outcome(ending.outcome);
            }
            let until = self.machine.poll_timeout();
            tokio::select! {
                Some(connection) = connections.recv() => self.connected(connection)?,
                Some(told) = self.told.1.recv() => self.hear(told),
                () = sleep_until(until) => self.machine.handle_timeout(Instant::now()),
            }
        }
    }

    fn connected(&mut self, connection: Connection) -> Result<(), PairError> {
        let export = |id: PairingId| {
            connection.exporter(EXPORTER_LABEL, &id.0).map(Exporter::new).map_err(PairError::Lost)
        };
        // A connection that went away meanwhile is nobody's failure.
        let (Ok(named), Ok(unnamed)) = (export(self.id), export(PairingId::UNNAMED)) else {
            return Ok(());
        };
        let id = ConnectionId(self.next);
        self.next += 1;
        let random = run_random()?;
        let input = host::Input::Connected {
            connection: id,
            source: connection.remote_address().ip(),
            joiner: connection.peer(),
            exporters: Exporters { named, unnamed },
            random,
        };
        let (to_stream, outs) = mpsc::channel(TOLD_MAX);
        tokio::spawn(attend(id, connection.clone(), self.told.0.clone(), outs));
        self.guests.insert(id, Guest { connection, to_stream });
        self.machine.handle_input(input, Instant::now());
        Ok(())
    }

    fn hear(&mut self, told: Told) {
        let input = match told {
            Told::Bytes(connection, bytes) => host::Input::Received { connection, bytes },
            Told::Gone(connection) => {
                self.guests.remove(&connection);
                host::Input::Closed { connection }
            }
            Told::Answer(true) => host::Input::Approved,
            Told::Answer(false) => host::Input::Denied,
        };
        self.machine.handle_input(input, Instant::now());
    }

    /// Does what the machine asks for; returns how it ended, if it did.
    async fn settle(&mut self) -> Option<host::Ending> {
        let mut ended = None;
        loop {
            if let Some(event) = self.machine.poll_event() {
                ended = self.act(event).or(ended);
            } else if let Some(transmit) = self.machine.poll_transmit() {
                self.send(transmit).await;
            } else {
                return ended;
            }
        }
    }

    fn act(&mut self, event: host::Event) -> Option<host::Ending> {
        let kept = match event {
            host::Event::Ask { joiner, introduction } => {
                self.ask(joiner, &introduction);
                return None;
            }
            host::Event::Keep(peer) => self.peers.take(Step::Admit(&peer)),
            host::Event::Promote { joiner } => self.peers.take(Step::Promote(joiner)),
            host::Event::TurnedAway { .. } => return None,
            host::Event::Ended(ending) => return Some(ending),
        };
        let input = if kept.is_ok() { host::Input::Kept } else { host::Input::NotKept };
        self.machine.handle_input(input, Instant::now());
        None
    }

    fn ask(&self, joiner: Fingerprint, introduction: &Introduction) {
        let (answer, answered) = oneshot::channel();
        let told = self.told.0.clone();
        tokio::spawn(async move {
            // Whoever does not answer says no.
            let yes = answered.await.unwrap_or(false);
            let _window_over = told.send(Told::Answer(yes)).await;
        });
        if let Some(ask) = &self.ask {
            let name = introduction.name().to_owned();
            ask(Asking { fingerprint: joiner, name }, Allow(answer));
        }
    }

    async fn send(&mut self, transmit: host::Transmit) {
        let (connection, out) = match transmit {
            host::Transmit::Send { connection, bytes } => (connection, Out::Bytes(bytes)),
            host::Transmit::Close { connection, code } => (connection, Out::Close(code)),
        };
        if let Some(guest) = self.guests.get(&connection) {
            let _gone = guest.to_stream.send(out).await;
        }
    }

    /// Lets what was sent arrive, and closes what is left.
    async fn close_all(&mut self) {
        for (_, guest) in std::mem::take(&mut self.guests) {
            drop(guest.to_stream);
            let _closed = tokio::time::timeout(FINISH_WAIT, guest.connection.closed()).await;
        }
    }
}

/// Carries the one stream of a guest.
async fn attend(
    id: ConnectionId,
    connection: Connection,
    told: mpsc::Sender<Told>,
    mut outs: mpsc::Receiver<Out>,
) {
    let accepted = tokio::select! {
        accepted = connection.accept() => accepted.ok(),
        // Turned away before it said anything, or the window is over.
        out = outs.recv() => {
            let code = if let Some(Out::Close(code)) = out { code } else { CloseCode::Refused };
            connection.close(status(code));
            None
        }
    };
    let Some(mut stream) = accepted else {
        let _window_over = told.send(Told::Gone(id)).await;
        return;
    };
    loop {
        tokio::select! {
            biased;
            out = outs.recv() => match out {
                Some(Out::Bytes(bytes)) => if stream.write(&bytes).await.is_err() { break },
                Some(Out::Close(code)) => {
                    let _arrived = stream.finish(FINISH_WAIT).await;
                    connection.close(status(code));
                    break;
                }
                None => {
                    let _arrived = stream.finish(FINISH_WAIT).await;
                    connection.close(Status::OK);
                    return;
                }
            },
            read = stream.read(READ_WAIT) => match read {
                Ok(bytes) if !bytes.is_empty() => {
                    if told.send(Told::Bytes(id, bytes)).await.is_err() { return }
                }
                _ => break,
            },
        }
    }
    let _window_over = told.send(Told::Gone(id)).await;
}

fn outcome(outcome: host::Outcome) -> Result<Fingerprint, PairError> {
    match outcome {
        host::Outcome::Paired(peer) | host::Outcome::Unconfirmed(peer) => Ok(peer),
        host::Outcome::Expired => Err(PairError::Over("nobody came in time")),
        host::Outcome::AttemptsSpent => Err(PairError::Over("the key was wrong three times")),
        host::Outcome::Lost => Err(PairError::Over("the other device went away")),
        host::Outcome::Denied => Err(PairError::Over("it was not allowed")),
        host::Outcome::NotKept => {
            Err(PairError::Over("it could not be kept; see how many are paired already"))
        }
        host::Outcome::Cancelled => Err(PairError::Over("it was given up")),
    }
}

/// Runs the joining side over a connection to the host.
pub(crate) async fn join(
    peers: &PeerBook,
    own: Fingerprint,
    introduction: Introduction,
    invitation: &Invitation,
    connection: &Connection,
) -> Result<Fingerprint, PairError> {
    let exporter = connection.exporter(EXPORTER_LABEL, &invitation.id().0);
    let meeting = Meeting {
        host: connection.peer(),
        joiner: own,
        exporter: Exporter::new(exporter.map_err(PairError::Lost)?),
        random: run_random()?,
    };
    let mut machine: Joiner = Joiner::start(invitation, introduction, meeting, Instant::now());
    let mut stream = connection.open().await.map_err(PairError::Lost)?;
    loop {
        while let Some(event) = machine.poll_event() {
            match event {
                joiner::Event::Keep(peer) => {
                    let kept = peers.take(Step::Join(&peer));
                    let input =
                        if kept.is_ok() { joiner::Input::Kept } else { joiner::Input::NotKept };
                    machine.handle_input(input, Instant::now());
                }
                joiner::Event::Ended(outcome) => {
                    send(&mut machine, &mut stream, connection).await;
                    return match outcome {
                        joiner::Outcome::Paired(peer) => Ok(peer),
                        joiner::Outcome::Failed(failure) => Err(failure.into()),
                    };
                }
            }
        }
        send(&mut machine, &mut stream, connection).await;
        tokio::select! {
            read = stream.read(READ_WAIT) => {
                let input = match read {
                    Ok(bytes) if !bytes.is_empty() => joiner::Input::Received(bytes),
                    Ok(_) => joiner::Input::Closed(None),
                    Err(error) => joiner::Input::Closed(closed_with(&error)),
                };
                machine.handle_input(input, Instant::now());
            }
            () = sleep_until(machine.poll_timeout()) => machine.handle_timeout(Instant::now()),
        }
    }
}

async fn send(machine: &mut Joiner, stream: &mut Stream, connection: &Connection) {
    while let Some(transmit) = machine.poll_transmit() {
        match transmit {
            // What cannot be sent shows as a connection that is gone.
            joiner::Transmit::Send(bytes) => drop(stream.write(&bytes).await),
            joiner::Transmit::Close(code) => {
                let _arrived = stream.finish(FINISH_WAIT).await;
                connection.close(status(code));
            }
        }
    }
}

fn closed_with(error: &StreamError) -> Option<CloseCode> {
    match error {
        StreamError::Lost(Lost::Closed { code }) => Some(CloseCode::from_number(*code)),
        StreamError::Lost(_)
        | StreamError::TooLarge
        | StreamError::TooSlow
        | StreamError::Reset { .. } => None,
    }
}

const fn status(code: CloseCode) -> Status {
    match code {
        CloseCode::Done => Status::OK,
        CloseCode::Refused => Status::REFUSED,
        CloseCode::Busy => Status(0x21),
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

fn random<const N: usize>() -> Result<[u8; N], PairError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| PairError::Random(error.into()))?;
    Ok(bytes)
}

fn run_random() -> Result<RunRandom, PairError> {
    let bytes = Zeroizing::new(random::<{ RunRandom::BYTES }>()?);
    Ok(RunRandom::new(*bytes))
}

fn draw_key() -> Result<PairingKey, PairError> {
    loop {
        let bytes = Zeroizing::new(random::<32>()?);
        if let Some(key) = PairingKey::draw(&bytes) {
            return Ok(key);
        }
    }
}

/// Where a joiner finds the host.
pub(crate) fn addresses_of(code: &QrCode) -> Vec<SocketAddr> {
    code.addresses.iter().map(|ip| SocketAddr::new(*ip, code.port)).collect()
}

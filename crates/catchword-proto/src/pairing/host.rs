//! The side that shows the key: one window, and everybody who comes while it is open.
//!
//! ```text
//!          M1 right: M2         M3 right           allowed            kept: M4
//! waiting ----------> Proving ---------> Asking ------------> Keeping --------> Acknowledging
//!                        |                  |                                        |  M5 right
//!                        | wrong, late,     | denied, late,                          v
//!                        | gone             | gone                     kept       Promoting
//!                        v                  v                   Paired <-------------+
//!               the window stays open    the window is over
//!               while attempts are left
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::time::Instant;

use catchword_model::identity::Fingerprint;

use super::code::{PairingId, PairingKey, QrCode, QrSecret};
use super::keys::{Confirmation, Exporter, Setting, same_mac};
use super::message::{First, Introduction, Mode, Proof, Second};
use super::pake::{Identities, Pake, Role, Spake2};
use super::sources::Sources;
use super::{APPROVAL_WAIT, ATTEMPTS_MAX, CloseCode, MESSAGE_WAIT, NewPeer, RunRandom, WINDOW};
use crate::wire::{PairingFrames, pairing_frame};

/// Connections that may be open without having said anything. One more is told to come again.
pub const WAITING_MAX: usize = 8;

/// What a window is opened with.
#[derive(Debug, Clone)]
pub struct Window {
    /// The name of the window, random.
    pub id: PairingId,
    /// What the person types at the joiner.
    pub key: PairingKey,
    /// What only the QR code carries.
    pub secret: QrSecret,
    /// The certificate of this device.
    pub host: Fingerprint,
    /// What the joiner is told about this device.
    pub introduction: Introduction,
    /// Whether a joiner may come without having scanned the code.
    pub key_only: KeyOnly,
    /// Whether the person is asked before a joiner is kept.
    pub approval: Approval,
}

/// Whether a joiner may come without having scanned the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOnly {
    /// The six digits are enough.
    Accepted,
    /// Only who has scanned the code may try.
    Refused,
}

/// Whether the person is asked before a joiner is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// The person says yes to the name and the fingerprint. The default.
    Asked,
    /// Showing the code was the approval.
    Given,
}

/// Names a connection between the driver and the machine; used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What was exported from the TLS session, for each id that M1 may carry.
#[derive(Debug, Clone)]
pub struct Exporters {
    /// With the id of the window as context.
    pub named: Exporter,
    /// With [`PairingId::UNNAMED`] as context.
    pub unnamed: Exporter,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A handshake for a pairing is complete, and its signature was right.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// Where it comes from.
        source: IpAddr,
        /// The certificate that the other side has shown in this handshake.
        joiner: Fingerprint,
        /// From this session.
        exporters: Exporters,
        /// For this connection alone.
        random: RunRandom,
    },
    /// Bytes arrived on the one stream of a connection.
    Received {
        /// The connection.
        connection: ConnectionId,
        /// The bytes, in order.
        bytes: Vec<u8>,
    },
    /// A connection is gone.
    Closed {
        /// The connection.
        connection: ConnectionId,
    },
    /// The person said yes to [`Event::Ask`].
    Approved,
    /// The person said no to [`Event::Ask`].
    Denied,
    /// What the last [`Event::Keep`] or [`Event::Promote`] asked for is durable.
    Kept,
    /// What the last [`Event::Keep`] or [`Event::Promote`] asked for was not made.
    NotKept,
    /// The person closes the window. Once a joiner is being kept, it is too late.
    Cancelled,
}

/// What to do on the network. Whatever is for a connection that is gone is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// Write bytes to the one stream of a connection.
    Send {
        /// The connection.
        connection: ConnectionId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close a connection when what was sent before has left.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// With this code and no text.
        code: CloseCode,
    },
}

/// What to tell the owner of the machine, or to ask of the store.
#[derive(Debug)]
pub enum Event {
    /// Ask the person whether to allow the name and the fingerprint, and answer with [`Input::Approved`] or
    /// [`Input::Denied`] within [`APPROVAL_WAIT`].
    Ask {
        /// The certificate that asks.
        joiner: Fingerprint,
        /// Who it says it is.
        introduction: Introduction,
    },
    /// Keep the peer as provisional, durably, and answer with [`Input::Kept`] or [`Input::NotKept`].
    Keep(NewPeer),
    /// Promote the peer to active, durably, and answer with [`Input::Kept`] or [`Input::NotKept`].
    Promote {
        /// The peer.
        joiner: Fingerprint,
    },
    /// Somebody was turned away. If the person has not tried to join with the other device just now,
    /// somebody else is trying to pair.
    TurnedAway {
        /// The certificate that was shown.
        joiner: Fingerprint,
        /// Why; nobody else is told.
        reason: Reason,
        /// What is left.
        left: Attempts,
    },
    /// The window is over. This is the last event.
    Ended(Ending),
}

/// Why somebody was turned away: for the local log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The window is over, or a joiner has proven itself already.
    #[error("no window is open")]
    WindowClosed,
    /// Too many connections came from one address, or from too many.
    #[error("too many connections")]
    TooOften,
    /// The certificate is this device's own.
    #[error("a device does not pair with itself")]
    Itself,
    /// A message does not have the form it should have, or came when none was expected.
    #[error("a message is malformed")]
    Malformed,
    /// The message is for another window.
    #[error("the message is for another window")]
    OtherWindow,
    /// The joiner has not scanned the code, and must.
    #[error("the code must be scanned")]
    KeyOnlyRefused,
    /// The joiner has not seen this code.
    #[error("the joiner has not seen this code")]
    WrongCode,
    /// Another joiner is being paired.
    #[error("another joiner is being paired")]
    Busy,
    /// No attempt is left in this mode.
    #[error("no attempt is left")]
    NoAttempts,
    /// The share is one that no honest device sends.
    #[error("a share is forged")]
    BadShare,
    /// The keys differ: mistyped, or guessed.
    #[error("the keys differ")]
    WrongKey,
    /// A message did not come in time.
    #[error("a message did not come in time")]
    Late,
    /// The connection went away in the middle.
    #[error("the connection went away")]
    Gone,
    /// The person said no, or nothing.
    #[error("the person did not allow it")]
    Denied,
    /// The peer could not be kept.
    #[error("the peer could not be kept")]
    NotKept,
}

/// Attempts that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// For who has scanned the code.
    pub scanned: u8,
    /// For who has the six digits only.
    pub key_only: u8,
}

impl Attempts {
    const fn of(self, mode: Mode) -> u8 {
        match mode {
            Mode::Scanned => self.scanned,
            Mode::KeyOnly => self.key_only,
        }
    }

    const fn spend(&mut self, mode: Mode) {
        match mode {
            Mode::Scanned => self.scanned -= 1,
            Mode::KeyOnly => self.key_only -= 1,
        }
    }
}

/// How a window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// What came of it.
    pub outcome: Outcome,
    /// How many attempts were spent, the successful one included.
    pub attempts_spent: u8,
}

impl Ending {
    /// Says whether the window counts as failed: somebody tried, and nobody was paired.
    pub const fn has_failed(self) -> bool {
        match self.outcome {
            Outcome::Paired(_) | Outcome::Unconfirmed(_) => false,
            Outcome::Expired
            | Outcome::AttemptsSpent
            | Outcome::Lost
            | Outcome::Denied
            | Outcome::NotKept
            | Outcome::Cancelled => 0 < self.attempts_spent,
        }
    }
}

/// What came of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both devices have proven themselves, and the joiner is active.
    Paired(Fingerprint),
    /// The joiner is provisional: it has proven itself and did not confirm that it has kept this
    /// device. Its first signed request promotes it; without one it expires.
    Unconfirmed(Fingerprint),
    /// Nobody came in time.
    Expired,
    /// All attempts were spent.
    AttemptsSpent,
    /// The joiner had the key and went away before it was kept.
    Lost,
    /// The person said no, or nothing.
    Denied,
    /// The peer could not be kept.
    NotKept,
    /// The person closed the window.
    Cancelled,
}

/// A window and everybody who comes. See the [module documentation](self).
pub struct Host<P = Spake2> {
    window: Window,
    state: State,
    left: Attempts,
    attempts_spent: u8,
    /// Invariant: at most [`WAITING_MAX`]; empty unless the window is open.
    waiting: Vec<Waiting>,
    /// Invariant: never two at once.
    run: Option<Run>,
    sources: Sources,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    exchange: PhantomData<fn() -> P>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open {
        until: Instant,
    },
    /// A joiner has the key. Nobody else is admitted any more, whatever becomes of it.
    Won,
    Over,
}

/// A connection that has not said anything yet.
#[derive(Debug)]
struct Waiting {
    connection: ConnectionId,
    joiner: Fingerprint,
    exporters: Exporters,
    random: RunRandom,
    frames: PairingFrames,
    until: Instant,
}

/// The one joiner that is being paired.
#[derive(Debug)]
struct Run {
    /// `None` when the connection is gone and the store has yet to answer.
    connection: Option<ConnectionId>,
    joiner: Fingerprint,
    frames: PairingFrames,
    confirmation: Confirmation,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// M2 is sent.
    Proving { until: Instant },
    /// M3 was right, and the person is asked.
    Asking { introduction: Introduction, mac: [u8; 32], until: Instant },
    /// The store is asked to keep the peer. The MAC is that of M3.
    Keeping { mac: [u8; 32] },
    /// M4 is sent.
    Acknowledging { expected: [u8; 32], until: Instant },
    /// M5 was right, and the store is asked to promote the peer.
    Promoting,
}

impl Stage {
    const fn until(&self) -> Option<Instant> {
        match self {
            Self::Proving { until }
            | Self::Asking { until, .. }
            | Self::Acknowledging { until, .. } => Some(*until),
            Self::Keeping { .. } | Self::Promoting => None,
        }
    }
}

impl<P: Pake> Host<P> {
    /// Opens a window at `now`, for [`WINDOW`].
    pub fn open(window: Window, now: Instant) -> Self {
        let key_only = match window.key_only {
            KeyOnly::Accepted => ATTEMPTS_MAX,
            KeyOnly::Refused => 0,
        };
        Self {
            window,
            state: State::Open { until: now + WINDOW },
            left: Attempts { scanned: ATTEMPTS_MAX, key_only },
            attempts_spent: 0,
            waiting: Vec::new(),
            run: None,
            sources: Sources::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            exchange: PhantomData,
        }
    }

    /// Returns the code to be drawn beside the key, for a host that listens there.
    pub fn qr_code(&self, port: u16, addresses: Vec<IpAddr>) -> QrCode {
        let Window { id, host, ref secret, .. } = self.window;
        QrCode { id, host, secret: secret.clone(), port, addresses }
    }

    /// Returns the attempts that are left.
    pub const fn attempts_left(&self) -> Attempts {
        self.left
    }

    /// Tells the machine what happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        // What comes too late must not count because the driver has not looked at the clock yet.
        self.handle_timeout(now);
        match input {
            Input::Connected { connection, source, joiner, exporters, random } => {
                let frames = PairingFrames::default();
                let until = now + MESSAGE_WAIT;
                let guest = Waiting { connection, joiner, exporters, random, frames, until };
                match self.admit(source, joiner, now) {
                    Ok(()) => self.waiting.push(guest),
                    Err(reason) => self.turn_away(&guest, reason),
                }
            }
            Input::Received { connection, bytes } => self.receive(connection, &bytes, now),
            Input::Closed { connection } => {
                self.waiting.retain(|guest| guest.connection != connection);
                if self.run.as_ref().is_some_and(|run| run.connection == Some(connection)) {
                    self.lose(Reason::Gone);
                    self.settle(now);
                }
            }
            Input::Approved => self.keep(),
            Input::Denied => self.deny(),
            Input::Kept => self.kept(now),
            Input::NotKept => self.not_kept(),
            Input::Cancelled => self.cancel(),
        }
    }

    /// Reports that time has reached `now`. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = |guest: &Waiting| guest.until <= now;
        while let Some(at) = self.waiting.iter().position(late) {
            let guest = self.waiting.remove(at);
            self.turn_away(&guest, Reason::Late);
        }
        if let Some(run) = &self.run
            && run.stage.until().is_some_and(|until| until <= now)
        {
            let nothing_said = matches!(run.stage, Stage::Asking { .. });
            self.lose(if nothing_said { Reason::Denied } else { Reason::Late });
        }
        self.settle(now);
    }

    /// Returns what to do next on the network.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns what to do or to tell next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = match (&self.run, self.state) {
            (Some(run), _) => run.stage.until(),
            (None, State::Open { until }) => Some(until),
            (None, State::Won | State::Over) => None,
        };
        self.waiting.iter().map(|guest| guest.until).chain(next).min()
    }

    fn is_open(&self, now: Instant) -> bool {
        match self.state {
            State::Open { until } => now < until,
            State::Won | State::Over => false,
        }
    }

    fn admit(&mut self, source: IpAddr, joiner: Fingerprint, now: Instant) -> Result<(), Reason> {
        if !self.is_open(now) {
            return Err(Reason::WindowClosed);
        }
        if joiner == self.window.host {
            return Err(Reason::Itself);
        }
        if !self.sources.admit(source, now) {
            return Err(Reason::TooOften);
        }
        if self.waiting.len() == WAITING_MAX {
            return Err(Reason::Busy);
        }
        Ok(())
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        if let Some(at) = self.waiting.iter().position(|guest| guest.connection == connection) {
            let mut guest = self.waiting.remove(at);
            match guest.frames.push(bytes) {
                Ok(None) => self.waiting.push(guest),
                Ok(Some(first)) => {
                    if let Err(reason) = self.begin(&guest, &first, now) {
                        self.turn_away(&guest, reason);
                    }
                }
                Err(_) => self.turn_away(&guest, Reason::Malformed),
            }
        } else if let Some(run) = &mut self.run
            && run.connection == Some(connection)
        {
            match run.frames.push(bytes) {
                Ok(None) => (),
                Ok(Some(message)) => self.advance(&message, now),
                Err(_) => self.lose(Reason::Malformed),
            }
        }
    }

    /// Answers M1 with M2, or says why not.
    fn begin(&mut self, guest: &Waiting, first_bytes: &[u8], now: Instant) -> Result<(), Reason> {
        let first = First::decode(first_bytes).ok_or(Reason::Malformed)?;
        let setting = self.setting(guest, &first, now)?;
        let code = match first.mode() {
            Mode::Scanned => Some(&self.window.secret),
            Mode::KeyOnly => None,
        };
        if let (Some(code), Some(proof)) = (code, &first.proof)
            && !same_mac(proof, &setting.qr_proof(code, &first.nonce))
        {
            return Err(Reason::WrongCode);
        }
        if self.run.is_some() {
            return Err(Reason::Busy);
        }
        if self.left.of(first.mode()) == 0 {
            return Err(Reason::NoAttempts);
        }
        let password = setting.password(&self.window.key, code);
        let (host, joiner) = (setting.host_identity(), setting.joiner_identity());
        let identities = Identities { host: &host, joiner: &joiner };
        let random = guest.random.share();
        let (exchange, share) = P::start(Role::Host, &password, identities, random);
        let key = exchange.finish(&first.share).map_err(|_| Reason::BadShare)?;
        let second = Second { nonce: guest.random.nonce(), share }.encode();
        let confirmation = setting.confirmation(first_bytes, &second, &key);

        // Invariant 1 of the pairing: from here on the attempt is spent, whatever happens.
        self.left.spend(first.mode());
        self.attempts_spent += 1;
        self.send(guest.connection, &second);
        self.run = Some(Run {
            connection: Some(guest.connection),
            joiner: guest.joiner,
            frames: PairingFrames::default(),
            confirmation,
            stage: Stage::Proving { until: now + MESSAGE_WAIT },
        });
        Ok(())
    }

    /// Returns what a run with this first message would be about, if there may be one.
    fn setting<'a>(
        &self,
        guest: &'a Waiting,
        first: &First,
        now: Instant,
    ) -> Result<Setting<'a>, Reason> {
        if !self.is_open(now) {
            return Err(Reason::WindowClosed);
        }
        let (mode, id) = (first.mode(), first.id);
        let exporter = match mode {
            _ if id == self.window.id => &guest.exporters.named,
            Mode::KeyOnly if id == PairingId::UNNAMED => &guest.exporters.unnamed,
            Mode::KeyOnly | Mode::Scanned => return Err(Reason::OtherWindow),
        };
        if mode == Mode::KeyOnly && self.window.key_only == KeyOnly::Refused {
            return Err(Reason::KeyOnlyRefused);
        }
        Ok(Setting { mode, id, host: self.window.host, joiner: guest.joiner, exporter })
    }

    /// Takes M3 or M5; nothing else is ever said.
    fn advance(&mut self, message: &[u8], now: Instant) {
        let Some(run) = &mut self.run else { return };
        match run.stage {
            Stage::Proving { .. } => match proven(&run.confirmation, message) {
                Ok(Proof { introduction, mac, .. }) => {
                    let until = now + APPROVAL_WAIT;
                    run.stage = Stage::Asking { introduction, mac, until };
                    self.win();
                }
                Err(reason) => self.lose(reason),
            },
            Stage::Acknowledging { ref expected, .. } => {
                if <&[u8; 32]>::try_from(message).is_ok_and(|mac| same_mac(mac, expected)) {
                    self.events.push_back(Event::Promote { joiner: run.joiner });
                    run.stage = Stage::Promoting;
                } else {
                    self.lose(Reason::WrongKey);
                }
            }
            Stage::Asking { .. } | Stage::Keeping { .. } | Stage::Promoting => {
                self.lose(Reason::Malformed);
            }
        }
        self.settle(now);
    }

    /// Closes the window for good: somebody has the key.
    fn win(&mut self) {
        self.state = State::Won;
        self.turn_everybody_away();
        match self.window.approval {
            Approval::Given => self.keep(),
            Approval::Asked => {
                if let Some(Run { joiner, stage: Stage::Asking { introduction, .. }, .. }) =
                    &self.run
                {
                    let (joiner, introduction) = (*joiner, introduction.clone());
                    self.events.push_back(Event::Ask { joiner, introduction });
                }
            }
        }
    }

    /// Asks the store to keep the joiner that the person has allowed.
    fn keep(&mut self) {
        let Some(run) = &mut self.run else { return };
        let Stage::Asking { introduction, mac, .. } = &run.stage else { return };
        let (introduction, mac) = (introduction.clone(), *mac);
        let secret = run.confirmation.secret();
        run.stage = Stage::Keeping { mac };
        self.events.push_back(Event::Keep(NewPeer {
            fingerprint: run.joiner,
            introduction,
            secret,
        }));
    }

    fn deny(&mut self) {
        let stage = self.run.as_ref().map(|run| &run.stage);
        if matches!(stage, Some(Stage::Asking { .. })) {
            self.lose(Reason::Denied);
        }
    }

    /// Goes on with what waited for the store.
    fn kept(&mut self, now: Instant) {
        let Some(run) = &mut self.run else { return };
        let (connection, joiner) = (run.connection, run.joiner);
        match (&run.stage, connection) {
            (Stage::Keeping { .. }, None) => self.end(Outcome::Unconfirmed(joiner)),
            (Stage::Keeping { mac }, Some(connection)) => {
                let introduction = self.window.introduction.encode();
                let mac = run.confirmation.host_mac(&introduction, mac);
                let expected = run.confirmation.acknowledgement(&mac);
                run.stage = Stage::Acknowledging { expected, until: now + MESSAGE_WAIT };
                self.send(connection, &Proof::encode(&introduction, &mac));
            }
            (Stage::Promoting, connection) => {
                self.close(connection, CloseCode::Done);
                self.end(Outcome::Paired(joiner));
            }
            (Stage::Proving { .. } | Stage::Asking { .. } | Stage::Acknowledging { .. }, _) => (),
        }
    }

    fn not_kept(&mut self) {
        let Some(run) = &self.run else { return };
        let outcome = match run.stage {
            Stage::Keeping { .. } => Outcome::NotKept,
            Stage::Promoting => Outcome::Unconfirmed(run.joiner),
            Stage::Proving { .. } | Stage::Asking { .. } | Stage::Acknowledging { .. } => return,
        };
        self.dismiss(Reason::NotKept);
        self.end(outcome);
    }

    fn cancel(&mut self) {
        match self.run.as_ref().map(|run| &run.stage) {
            Some(Stage::Keeping { .. } | Stage::Acknowledging { .. } | Stage::Promoting) => (),
            Some(Stage::Proving { .. } | Stage::Asking { .. }) | None => {
                self.dismiss(Reason::WindowClosed);
                self.end(Outcome::Cancelled);
            }
        }
    }

    /// The run goes no further with this joiner.
    fn lose(&mut self, reason: Reason) {
        self.dismiss(reason);
        let Some(run) = &self.run else { return };
        match run.stage {
            Stage::Proving { .. } => self.run = None,
            Stage::Asking { .. } if reason == Reason::Denied => self.end(Outcome::Denied),
            Stage::Asking { .. } => self.end(Outcome::Lost),
            Stage::Acknowledging { .. } => self.end(Outcome::Unconfirmed(run.joiner)),
            // The store's answer decides.
            Stage::Keeping { .. } | Stage::Promoting => (),
        }
    }

    /// Ends a window in which nothing can happen any more.
    fn settle(&mut self, now: Instant) {
        let State::Open { until } = self.state else { return };
        if self.run.is_some() {
            return;
        }
        if until <= now {
            self.end(Outcome::Expired);
        } else if self.left == (Attempts { scanned: 0, key_only: 0 }) {
            self.end(Outcome::AttemptsSpent);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if self.state == State::Over {
            return;
        }
        self.run = None;
        self.turn_everybody_away();
        self.state = State::Over;
        let attempts_spent = self.attempts_spent;
        self.events.push_back(Event::Ended(Ending { outcome, attempts_spent }));
    }

    fn turn_everybody_away(&mut self) {
        for guest in std::mem::take(&mut self.waiting) {
            self.turn_away(&guest, Reason::WindowClosed);
        }
    }

    fn turn_away(&mut self, guest: &Waiting, reason: Reason) {
        let code = if reason == Reason::Busy { CloseCode::Busy } else { CloseCode::Refused };
        self.close(Some(guest.connection), code);
        self.report(guest.joiner, reason);
    }

    /// Closes the connection of the run, if it is still there.
    fn dismiss(&mut self, reason: Reason) {
        let Some(run) = &mut self.run else { return };
        let (connection, joiner) = (run.connection.take(), run.joiner);
        if reason != Reason::Gone {
            self.close(connection, CloseCode::Refused);
        }
        self.report(joiner, reason);
    }

    fn report(&mut self, joiner: Fingerprint, reason: Reason) {
        if self.state != State::Over {
            let left = self.left;
            self.events.push_back(Event::TurnedAway { joiner, reason, left });
        }
    }

    fn send(&mut self, connection: ConnectionId, message: &[u8]) {
        let bytes = pairing_frame(message).expect("our messages fit into a frame");
        self.transmits.push_back(Transmit::Send { connection, bytes });
    }

    fn close(&mut self, connection: Option<ConnectionId>, code: CloseCode) {
        let close = connection.map(|connection| Transmit::Close { connection, code });
        self.transmits.extend(close);
    }
}

/// Reads M3, and says whether its sender has the key.
fn proven(confirmation: &Confirmation, message: &[u8]) -> Result<Proof, Reason> {
    let proof = Proof::decode(message).ok_or(Reason::Malformed)?;
    let expected = confirmation.joiner_mac(&proof.introduction_bytes);
    if same_mac(&proof.mac, &expected) { Ok(proof) } else { Err(Reason::WrongKey) }
}

/// The key and the secret are left out.
impl<P> fmt::Debug for Host<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("state", &self.state)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

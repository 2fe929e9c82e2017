//! The side where the key is typed: one attempt on one connection.
//!
//! ```text
//!      M1         M2: M3            M4 right            kept: M5            closed, late
//! start --> Asking ----> Proving -----------> Keeping ------------> Leaving ------------> paired
//! ```
//!
//! Anything else ends the attempt, and nothing is kept. The machine never tries again by itself: an
//! impostor has one guess for each time that a person types the key.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use catchword_model::identity::Fingerprint;

use super::code::{PairingId, PairingKey, QrCode};
use super::keys::{Confirmation, Exporter, Setting, same_mac};
use super::message::{First, Introduction, Mode, Proof, Second};
use super::pake::{Identities, Pake, Role, Spake2};
use super::{APPROVAL_WAIT, CloseCode, MESSAGE_WAIT, NewPeer, RunRandom};
use crate::wire::{PairingFrames, pairing_frame};

/// What the person gave to this device.
#[derive(Debug, Clone)]
pub enum Invitation {
    /// The QR code was scanned and the key typed.
    Scanned {
        /// What the code says.
        code: QrCode,
        /// What was typed.
        key: PairingKey,
    },
    /// Only the key was typed.
    KeyOnly {
        /// The id that the host announces, or [`PairingId::UNNAMED`] if only its address is known.
        id: PairingId,
        /// What was typed.
        key: PairingKey,
    },
}

impl Invitation {
    /// Returns the context under which this side exports from its TLS session.
    pub const fn id(&self) -> PairingId {
        match self {
            Self::Scanned { code, .. } => code.id,
            Self::KeyOnly { id, .. } => *id,
        }
    }

    /// Returns the only certificate that the handshake may accept, if the code names one.
    pub const fn pinned(&self) -> Option<Fingerprint> {
        match self {
            Self::Scanned { code, .. } => Some(code.host),
            Self::KeyOnly { .. } => None,
        }
    }

    const fn key(&self) -> &PairingKey {
        match self {
            Self::Scanned { key, .. } | Self::KeyOnly { key, .. } => key,
        }
    }
}

/// The connection on which a joiner meets a host.
#[derive(Debug, Clone)]
pub struct Meeting {
    /// The certificate that the host has shown in this handshake, with a signature that was right.
    pub host: Fingerprint,
    /// The certificate of this device.
    pub joiner: Fingerprint,
    /// From this session, with [`Invitation::id`] as context.
    pub exporter: Exporter,
    /// For this connection alone.
    pub random: RunRandom,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Bytes arrived on the stream.
    Received(Vec<u8>),
    /// The connection is gone: with the code of the other side, or without one if it was lost.
    Closed(Option<CloseCode>),
    /// What [`Event::Keep`] asked for is durable.
    Kept,
    /// What [`Event::Keep`] asked for was not made.
    NotKept,
    /// The person gives up. Once the host is being kept, it is too late.
    Cancelled,
}

/// What to do on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// Write bytes to the stream; with the first ones, open it.
    Send(Vec<u8>),
    /// Close the connection with this code and no text.
    Close(CloseCode),
}

/// What to tell the owner of the machine, or to ask of the store.
#[derive(Debug)]
pub enum Event {
    /// Keep the peer as active, durably, and answer with [`Input::Kept`] or [`Input::NotKept`].
    Keep(NewPeer),
    /// The attempt is over. This is the last event.
    Ended(Outcome),
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The host is active here. That it has promoted this device shows with the first sync.
    Paired(Fingerprint),
    /// Nothing was kept.
    Failed(Failure),
}

/// Why an attempt to join failed. Messages say what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The certificate is not the one in the QR code. Nothing was said.
    #[error("this is not the device whose code was scanned; scan its code again")]
    WrongHost,
    /// The other device is this one.
    #[error("a device does not pair with itself")]
    Itself,
    /// Another device is being paired. No attempt was spent.
    #[error("another device is being paired; try again when it is done")]
    Busy,
    /// The other device closed the connection and, as always, does not say why.
    #[error(
        "the other device refused: the key was mistyped, its time is over, or the person there said \
         no; or somebody on this network is interfering; start again with a new code"
    )]
    Refused,
    /// The other device does not have the key: somebody stands in its place, or the key was mistyped.
    #[error(
        "the codes differ: either one was mistyped, or somebody on this network is interfering; \
         start again with a new code"
    )]
    NotProven,
    /// The other device said something that this release does not understand.
    #[error("the other device said something unexpected; update both devices")]
    Malformed,
    /// The other device did not answer in time.
    #[error("the other device did not answer in time; start again with a new code")]
    Late,
    /// The connection was lost.
    #[error("the connection was lost; start again with a new code")]
    Gone,
    /// The host could not be kept.
    #[error("the other device could not be kept; see the cause, and start again with a new code")]
    NotKept,
    /// The person gave up.
    #[error("the pairing was given up")]
    Cancelled,
}

/// One attempt to join. See the [module documentation](self).
pub struct Joiner<P = Spake2> {
    host: Fingerprint,
    introduction: Introduction,
    frames: PairingFrames,
    stage: Stage<P>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

enum Stage<P> {
    /// M1 is sent.
    Asking {
        question: Box<Question<P>>,
        until: Instant,
    },
    /// M3 is sent. The MAC is the one in it.
    Proving {
        confirmation: Confirmation,
        mac: [u8; 32],
        until: Instant,
    },
    /// The store is asked to keep the host. The MAC is the one of M5.
    Keeping {
        mac: [u8; 32],
    },
    /// M5 is sent. The host closes when it has read it.
    Leaving {
        until: Instant,
    },
    Over,
}

/// What M2 is needed for.
struct Question<P> {
    exchange: P,
    mode: Mode,
    id: PairingId,
    meeting: Meeting,
    first: Vec<u8>,
}

impl<P: Pake> Joiner<P> {
    /// Begins an attempt at `now`, on a connection whose handshake is complete.
    pub fn start(
        invitation: &Invitation,
        introduction: Introduction,
        meeting: Meeting,
        now: Instant,
    ) -> Self {
        let mut joiner = Self {
            host: meeting.host,
            introduction,
            frames: PairingFrames::default(),
            stage: Stage::Over,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        if invitation.pinned().is_some_and(|pinned| pinned != meeting.host) {
            joiner.refuse(Failure::WrongHost);
        } else if meeting.host == meeting.joiner {
            joiner.refuse(Failure::Itself);
        } else {
            joiner.ask(invitation, meeting, now);
        }
        joiner
    }

    /// Tells the machine what happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        // What comes too late must not count because the driver has not looked at the clock yet.
        self.handle_timeout(now);
        match input {
            Input::Received(bytes) => self.receive(&bytes, now),
            Input::Closed(code) => self.closed(code),
            Input::Kept => {
                if let Stage::Keeping { mac } = self.stage {
                    self.send(&mac);
                    self.stage = Stage::Leaving { until: now + MESSAGE_WAIT };
                }
            }
            Input::NotKept => {
                if matches!(self.stage, Stage::Keeping { .. }) {
                    self.refuse(Failure::NotKept);
                }
            }
            Input::Cancelled => match self.stage {
                Stage::Asking { .. } | Stage::Proving { .. } => self.refuse(Failure::Cancelled),
                Stage::Keeping { .. } | Stage::Leaving { .. } | Stage::Over => (),
            },
        }
    }

    /// Reports that time has reached `now`. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|until| now < until) {
            return;
        }
        if matches!(self.stage, Stage::Leaving { .. }) {
            self.transmits.push_back(Transmit::Close(CloseCode::Done));
            self.end(Outcome::Paired(self.host));
        } else {
            self.refuse(Failure::Late);
        }
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
        match self.stage {
            Stage::Asking { until, .. }
            | Stage::Proving { until, .. }
            | Stage::Leaving { until } => Some(until),
            Stage::Keeping { .. } | Stage::Over => None,
        }
    }

    /// Sends M1.
    fn ask(&mut self, invitation: &Invitation, meeting: Meeting, now: Instant) {
        let (mode, code) = match invitation {
            Invitation::Scanned { code, .. } => (Mode::Scanned, Some(&code.secret)),
            Invitation::KeyOnly { .. } => (Mode::KeyOnly, None),
        };
        let id = invitation.id();
        let setting = meeting.setting(mode, id);
        let nonce = meeting.random.nonce();
        let proof = code.map(|code| setting.qr_proof(code, &nonce));
        let password = setting.password(invitation.key(), code);
        let (host, joiner) = (setting.host_identity(), setting.joiner_identity());
        let identities = Identities { host: &host, joiner: &joiner };
        let random = meeting.random.share();
        let (exchange, share) = P::start(Role::Joiner, &password, identities, random);

        let first = First { id, nonce, proof, share }.encode();
        self.send(&first);
        let question = Box::new(Question { exchange, mode, id, meeting, first });
        self.stage = Stage::Asking { question, until: now + MESSAGE_WAIT };
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        let message = match self.frames.push(bytes) {
            Ok(None) => return,
            Ok(Some(message)) => message,
            Err(_) => return self.misled(),
        };
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Asking { question, .. } => self.prove(*question, &message, now),
            Stage::Proving { confirmation, mac, .. } => self.verify(&confirmation, &mac, &message),
            stage @ (Stage::Keeping { .. } | Stage::Leaving { .. } | Stage::Over) => {
                self.stage = stage;
                self.misled();
            }
        }
    }

    /// Takes M2, and sends M3: the joiner proves first.
    fn prove(&mut self, question: Question<P>, message: &[u8], now: Instant) {
        let Question { exchange, mode, id, meeting, first } = question;
        let Some(second) = Second::decode(message) else {
            return self.refuse(Failure::Malformed);
        };
        let Ok(key) = exchange.finish(&second.share) else {
            return self.refuse(Failure::Malformed);
        };
        let confirmation = meeting.setting(mode, id).confirmation(&first, message, &key);
        let introduction = self.introduction.encode();
        let mac = confirmation.joiner_mac(&introduction);
        self.send(&Proof::encode(&introduction, &mac));
        let until = now + APPROVAL_WAIT + MESSAGE_WAIT;
        self.stage = Stage::Proving { confirmation, mac, until };
    }

    /// Takes M4, and has the host kept.
    fn verify(&mut self, confirmation: &Confirmation, mac: &[u8; 32], message: &[u8]) {
        let Some(proof) = Proof::decode(message) else {
            return self.refuse(Failure::Malformed);
        };
        let expected = confirmation.host_mac(&proof.introduction_bytes, mac);
        if !same_mac(&proof.mac, &expected) {
            return self.refuse(Failure::NotProven);
        }
        self.stage = Stage::Keeping { mac: confirmation.acknowledgement(&proof.mac) };
        self.events.push_back(Event::Keep(NewPeer {
            fingerprint: self.host,
            introduction: proof.introduction,
            secret: confirmation.secret(),
        }));
    }

    /// The host said something when it had nothing to say.
    fn misled(&mut self) {
        match self.stage {
            Stage::Asking { .. } | Stage::Proving { .. } => self.refuse(Failure::Malformed),
            Stage::Leaving { .. } => {
                self.transmits.push_back(Transmit::Close(CloseCode::Refused));
                self.end(Outcome::Paired(self.host));
            }
            // The store's answer decides.
            Stage::Keeping { .. } | Stage::Over => (),
        }
    }

    fn closed(&mut self, code: Option<CloseCode>) {
        match self.stage {
            Stage::Asking { .. } | Stage::Proving { .. } => {
                self.end(Outcome::Failed(match code {
                    Some(CloseCode::Busy) => Failure::Busy,
                    Some(CloseCode::Refused | CloseCode::Done) => Failure::Refused,
                    None => Failure::Gone,
                }));
            }
            Stage::Leaving { .. } => self.end(Outcome::Paired(self.host)),
            // The store's answer decides.
            Stage::Keeping { .. } | Stage::Over => (),
        }
    }

    fn refuse(&mut self, failure: Failure) {
        self.transmits.push_back(Transmit::Close(CloseCode::Refused));
        self.end(Outcome::Failed(failure));
    }

    fn end(&mut self, outcome: Outcome) {
        self.stage = Stage::Over;
        self.events.push_back(Event::Ended(outcome));
    }

    fn send(&mut self, message: &[u8]) {
        let bytes = pairing_frame(message).expect("our messages fit into a frame");
        self.transmits.push_back(Transmit::Send(bytes));
    }
}

impl Meeting {
    fn setting(&self, mode: Mode, id: PairingId) -> Setting<'_> {
        Setting { mode, id, host: self.host, joiner: self.joiner, exporter: &self.exporter }
    }
}

/// The key and the secret are left out.
impl<P> fmt::Debug for Joiner<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joiner").field("host", &self.host).finish_non_exhaustive()
    }
}

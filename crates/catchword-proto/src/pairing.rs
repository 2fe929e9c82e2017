//! Two devices that a person holds side by side come to trust each other's certificates.
//!
//! The host opens a window and shows a QR code and a key of six digits. The joiner scans the code,
//! and the person types the key (mode Q); or the joiner has no camera, and the person types the key
//! only (mode K). A password-authenticated exchange turns the key into a strong one, and everything
//! is tied to both certificates and to this one TLS session.
//!
//! ```text
//! joiner                                  host
//!        M1 proof of the code, share -->    window open, id, mode, proof, no other run, attempts
//!                                           one attempt is spent
//!    <-- M2 share
//!        M3 who I am, MAC ------------->    the window is closed for good, the person is asked,
//!                                           the joiner is kept as provisional, durably
//!    <-- M4 who I am, MAC
//!  the host is kept as active, durably
//!        M5 MAC ----------------------->    the joiner is promoted to active, durably
//! ```
//!
//! [`Host`] is a whole window with all connections that come while it is open; [`Joiner`] is one
//! attempt on one connection. Both are machines with the five verbs of the [crate].
//!
//! # Invariants
//!
//! 1. An attempt is spent before M2 is sent and never given back, so whoever leaves after M2 has had
//!    no free look.
//! 2. Nothing is kept of a joiner that has not proven the key for its certificate on this connection.
//! 3. The host sends M4 only when the joiner is durably kept; the joiner sends M5 only when the host is.
//! 4. Every failure looks alike from outside: the connection closes with [`CloseCode::Refused`]. Only
//!    who comes during another's run is told so. Reasons are for the local log.
//! 5. Secrets are wiped when they are dropped and are never printed.
//!
//! # What is not here
//!
//! QUIC and TLS. The driver admits a connection by its ALPN [`ALPN`] while a window is open, checks
//! the handshake's signature, and gives the machine the certificates' fingerprints and the exporter.
//!
//! # Source
//!
//! SPAKE2: Abdalla and Pointcheval, "Simple Password-Based Encrypted Key Exchange Protocols"
//! (CT-RSA 2005). The messages, transcript and confirmations are our own: see `docs/PAIRING.md`.

mod code;
pub mod host;
pub mod joiner;
mod keys;
mod message;
mod pake;
mod sources;
mod windows;

use std::time::Duration;

use catchword_model::identity::Fingerprint;
use zeroize::Zeroizing;

use crate::secret::PairSecret;

pub use code::{
    KEY_DIGITS, KEY_SPACE, KeyError, PairingId, PairingKey, QR_ADDRESSES_MAX, QR_CHARS_MAX,
    QR_PREFIX, QrCode, QrError, QrSecret,
};
pub use host::Host;
pub use joiner::Joiner;
pub use keys::{EXPORTER_LABEL, Exporter};
pub use message::{Introduction, Mode, NAME_BYTES_MAX, PAIRING_VERSION, TAG_BYTES_MAX};
pub use pake::{BadShare, Identities, PAKE_RANDOM_BYTES, Pake, Role, SHARE_BYTES, Spake2};
pub use sources::{SOURCE_CONNECTIONS_MAX, SOURCE_PERIOD, SOURCES_MAX};
pub use windows::{FAILED_WINDOWS_MAX, FAILED_WINDOWS_PERIOD_MS, WAIT_MS, Wait, Windows};

/// The application protocol of a pairing, as the TLS handshake names it.
pub const ALPN: &[u8] = b"catchword-pair/1";

/// How long a window is open. Long enough to fetch the other device, short enough to be watched.
pub const WINDOW: Duration = Duration::from_secs(120);

/// Attempts in one window, in each mode: a person mistypes once or twice.
pub const ATTEMPTS_MAX: u8 = 3;

/// How long either side waits for a message that the other can send at once.
pub const MESSAGE_WAIT: Duration = Duration::from_secs(10);

/// How long the host waits for the answer of the person in front of it.
pub const APPROVAL_WAIT: Duration = Duration::from_secs(60);

/// With what a connection of a pairing is closed, as QUIC's application error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// Everything has been said.
    Done,
    /// Something was wrong; nobody says what.
    Refused,
    /// Another joiner is being paired. Trying again later costs no attempt.
    Busy,
}

impl CloseCode {
    /// Returns the number on the wire.
    pub const fn number(self) -> u64 {
        match self {
            Self::Done => 0x00,
            Self::Refused => 0x20,
            Self::Busy => 0x21,
        }
    }

    /// Reads the number with which the other side closed; a number nobody uses is a refusal.
    pub const fn from_number(number: u64) -> Self {
        match number {
            0x00 => Self::Done,
            0x21 => Self::Busy,
            _ => Self::Refused,
        }
    }
}

/// Random bytes for one run, from the operating system's generator. Wiped when dropped.
#[derive(Clone)]
pub struct RunRandom(Zeroizing<[u8; Self::BYTES]>);

impl RunRandom {
    /// How many random bytes a run takes.
    pub const BYTES: usize = 32 + PAKE_RANDOM_BYTES;

    /// Takes over random bytes. The caller wipes its own copy, and uses them for nothing else.
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    fn nonce(&self) -> [u8; 32] {
        self.0.first_chunk().copied().unwrap_or([0; 32])
    }

    fn share(&self) -> &[u8; PAKE_RANDOM_BYTES] {
        self.0.last_chunk().expect("the share's bytes are the last of a run's")
    }
}

/// The bytes are left out.
impl std::fmt::Debug for RunRandom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunRandom(..)")
    }
}

/// A device that has proven itself, to be kept.
#[derive(Debug, Clone)]
pub struct NewPeer {
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// Who it says it is.
    pub introduction: Introduction,
    /// What both devices share from now on.
    pub secret: PairSecret,
}

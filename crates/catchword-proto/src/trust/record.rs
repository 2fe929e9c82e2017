//! What is kept of a paired device, and the row that holds it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use catchword_model::id::{BookId, ShelfId};
use catchword_model::identity::Fingerprint;

use crate::mac::MacKey;
use crate::pairing::{NAME_BYTES_MAX, NewPeer, TAG_BYTES_MAX};
use crate::wire::{Reader, WireError, Writer};

/// Addresses that are remembered of a peer.
pub const ADDRESSES_MAX: usize = 4;
/// Shelves and books that a scope names, together.
pub const SCOPE_MAX: usize = 4_096;
/// A clock that is off by more is told of, in milliseconds.
pub const SKEW_TOLD_MS: u64 = 60_000;

/// Version 1 had neither scope nor skew.
const RECORD_VERSIONS: std::ops::RangeInclusive<u8> = 1..=2;
/// Bits of a scope.
const SCOPE_CHOSEN: u8 = 1;
const SCOPE_READ_ONLY: u8 = 2;
const FAMILY_4: u8 = 4;
const FAMILY_6: u8 = 6;

/// A paired device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// The pinned certificate: the peer's id.
    pub fingerprint: Fingerprint,
    /// What people call it; may be empty.
    pub name: String,
    /// The kind of device.
    pub platform: String,
    /// Whether it may speak.
    pub state: PeerState,
    /// Since when it is in this state, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it was paired, in milliseconds since the Unix epoch.
    pub paired_at_ms: u64,
    /// When a signed exchange with it last succeeded, in milliseconds since the Unix epoch.
    pub last_ok_ms: Option<u64>,
    /// Under which name the key store has what both devices share.
    pub secret: SecretId,
    /// Where it was last reached, the latest first; [`ADDRESSES_MAX`] at most.
    pub addresses: Vec<SocketAddr>,
    /// Which books it gets, and may bring.
    pub scope: PeerScope,
    /// Whether it only gets them: nothing is taken from it.
    pub is_read_only: bool,
    /// How far its clock is ahead of this device's, in milliseconds; 0 within [`SKEW_TOLD_MS`].
    pub skew_ms: i64,
}

/// Which books a peer gets, and may bring.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PeerScope {
    /// Everything.
    #[default]
    All,
    /// Books, and those on shelves; at most [`SCOPE_MAX`] together. Shelves themselves stay here: what
    /// they hold names books that the peer is not to know.
    Chosen {
        /// Whatever is on them, now and later.
        shelves: BTreeSet<ShelfId>,
        /// Each of them.
        books: BTreeSet<BookId>,
    },
}

/// Whether a peer may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// It has the key and was allowed, and has not confirmed yet. Expires after
    /// [`PROVISIONAL_MS`](super::PROVISIONAL_MS).
    Provisional,
    /// It may speak.
    Active,
    /// It may not speak until the person decides.
    Deactivated(Deactivation),
    /// It may never speak again, unless it is paired anew.
    Revoked,
}

/// Why a peer was deactivated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deactivation {
    /// Another certificate came under its name. Pair again, or go on trusting the pinned one.
    FingerprintMismatch,
    /// It does not know this device any more. Pair again.
    UnknownToPeer,
    /// This library was restored without its keys. Pair again.
    KeysNotRestored,
    /// It sent what no honest device sends, again and again. Look at it, then trust it again.
    Malformed,
}

impl Deactivation {
    /// Says whether the person may go on trusting the pinned certificate without pairing again.
    pub const fn is_reversible(self) -> bool {
        match self {
            Self::FingerprintMismatch | Self::UnknownToPeer | Self::Malformed => true,
            // The secret that both devices shared is gone.
            Self::KeysNotRestored => false,
        }
    }
}

/// Names the secret of one pairing in a key store. Says nothing about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretId(pub [u8; 8]);

impl SecretId {
    pub(super) fn of(peer: &NewPeer) -> Self {
        let name = MacKey::derive(&peer.secret, &[b"catchword/name/v1"]).tag(&[]);
        Self(name.first_chunk().copied().unwrap_or_default())
    }
}

/// `pair-` and 16 hex digits: a name that every key store takes.
impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pair-{:016x}", u64::from_be_bytes(self.0))
    }
}

/// For people, as the end of "a peer that is".
impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provisional => "provisional",
            Self::Active => "active",
            Self::Deactivated(Deactivation::FingerprintMismatch) => {
                "deactivated because another certificate came under its name"
            }
            Self::Deactivated(Deactivation::UnknownToPeer) => {
                "deactivated because it does not know this device"
            }
            Self::Deactivated(Deactivation::KeysNotRestored) => {
                "deactivated because its keys were not restored"
            }
            Self::Deactivated(Deactivation::Malformed) => {
                "deactivated because it sent damaged data"
            }
            Self::Revoked => "revoked",
        })
    }
}

impl PeerRecord {
    /// Returns the bytes of a row, without the fingerprint, which is its key.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.byte(*RECORD_VERSIONS.end()).byte(state_byte(self.state)).u64(self.since_ms);
        writer.u64(self.paired_at_ms).u64(self.last_ok_ms.unwrap_or_default());
        writer.bytes(&self.secret.0);
        writer.short_text(&self.name, NAME_BYTES_MAX).short_text(&self.platform, TAG_BYTES_MAX);
        write_scope(&mut writer, &self.scope, self.is_read_only);
        writer.u64(self.skew_ms.cast_unsigned());
        for address in self.addresses.iter().take(ADDRESSES_MAX) {
            match address.ip() {
                IpAddr::V4(ip) => writer.byte(FAMILY_4).bytes(&ip.octets()),
                IpAddr::V6(ip) => writer.byte(FAMILY_6).bytes(&ip.octets()),
            };
            writer.u16(address.port());
        }
        writer.finish()
    }

    /// Reads a row.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if it is damaged or of a newer release.
    pub fn decode(fingerprint: Fingerprint, bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let version = reader.byte()?;
        if !RECORD_VERSIONS.contains(&version) {
            return Err(RecordError::Version);
        }
        let state = state_from(reader.byte()?).ok_or(RecordError::State)?;
        let since_ms = reader.u64()?;
        let paired_at_ms = reader.u64()?;
        let last_ok_ms = Some(reader.u64()?).filter(|last_ok_ms| *last_ok_ms != 0);
        let secret = SecretId(reader.fixed()?);
        let name = reader.short_text(NAME_BYTES_MAX)?.to_owned();
        let platform = reader.short_text(TAG_BYTES_MAX)?.to_owned();
        let ((scope, is_read_only), skew_ms) = match version {
            1 => ((PeerScope::All, false), 0),
            _ => (read_scope(&mut reader)?, reader.u64()?.cast_signed()),
        };
        let mut addresses = Vec::new();
        while !reader.rest().is_empty() && addresses.len() < ADDRESSES_MAX {
            let ip = match reader.byte()? {
                FAMILY_4 => IpAddr::V4(Ipv4Addr::from(reader.fixed::<4>()?)),
                FAMILY_6 => IpAddr::V6(Ipv6Addr::from(reader.fixed::<16>()?)),
                _ => return Err(RecordError::Address),
            };
            addresses.push(SocketAddr::new(ip, reader.u16()?));
        }
        reader.finish()?;
        Ok(Self {
            fingerprint,
            name,
            platform,
            state,
            since_ms,
            paired_at_ms,
            last_ok_ms,
            secret,
            addresses,
            scope,
            is_read_only,
            skew_ms,
        })
    }
}

fn write_scope(writer: &mut Writer, scope: &PeerScope, is_read_only: bool) {
    let read_only = if is_read_only { SCOPE_READ_ONLY } else { 0 };
    let PeerScope::Chosen { shelves, books } = scope else {
        writer.byte(read_only);
        return;
    };
    let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    writer.byte(SCOPE_CHOSEN | read_only).u16(count(shelves.len())).u16(count(books.len()));
    for shelf in shelves {
        writer.bytes(&shelf.0);
    }
    for book in books {
        writer.bytes(&book.0);
    }
}

fn read_scope(reader: &mut Reader<'_>) -> Result<(PeerScope, bool), RecordError> {
    let bits = reader.byte()?;
    if bits & !(SCOPE_CHOSEN | SCOPE_READ_ONLY) != 0 {
        return Err(RecordError::Scope);
    }
    let is_read_only = bits & SCOPE_READ_ONLY != 0;
    if bits & SCOPE_CHOSEN == 0 {
        return Ok((PeerScope::All, is_read_only));
    }
    let (shelves, books) = (reader.u16()?, reader.u16()?);
    let shelves = (0..shelves).map(|_| reader.fixed().map(ShelfId)).collect::<Result<_, _>>()?;
    let books = (0..books).map(|_| reader.fixed().map(BookId)).collect::<Result<_, _>>()?;
    Ok((PeerScope::Chosen { shelves, books }, is_read_only))
}

const fn state_byte(state: PeerState) -> u8 {
    match state {
        PeerState::Provisional => 1,
        PeerState::Active => 2,
        PeerState::Revoked => 3,
        PeerState::Deactivated(Deactivation::FingerprintMismatch) => 0x10,
        PeerState::Deactivated(Deactivation::UnknownToPeer) => 0x11,
        PeerState::Deactivated(Deactivation::KeysNotRestored) => 0x12,
        PeerState::Deactivated(Deactivation::Malformed) => 0x13,
    }
}

const fn state_from(byte: u8) -> Option<PeerState> {
    Some(match byte {
        1 => PeerState::Provisional,
        2 => PeerState::Active,
        3 => PeerState::Revoked,
        0x10 => PeerState::Deactivated(Deactivation::FingerprintMismatch),
        0x11 => PeerState::Deactivated(Deactivation::UnknownToPeer),
        0x12 => PeerState::Deactivated(Deactivation::KeysNotRestored),
        0x13 => PeerState::Deactivated(Deactivation::Malformed),
        _ => return None,
    })
}

/// A row of a peer does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A newer release wrote it. Use that release.
    #[error("a peer was written by a newer release; use that one")]
    Version,
    /// It names a state that nobody knows.
    #[error("a peer is in no known state")]
    State,
    /// It has a scope that nobody knows.
    #[error("a peer has no known scope")]
    Scope,
    /// An address is of no known family.
    #[error("an address of a peer is of no known family")]
    Address,
    /// It is damaged.
    #[error("the row of a peer is damaged")]
    Damaged(#[source] WireError),
}

impl From<WireError> for RecordError {
    fn from(error: WireError) -> Self {
        Self::Damaged(error)
    }
}

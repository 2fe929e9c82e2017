//! Announcements on the local network that only paired devices can read.
//!
//! A device announces a random name, its port, and 16 tags of 8 bytes: one for each paired peer, the
//! rest random. A tag is the beginning of an HMAC that only the two devices of a pair can compute, so
//! nobody else learns who announces, and nobody else can be made to be dialled.
//!
//! ```text
//! tag   first 8 bytes of K_disc over  fingerprint of the announcing device[32] | name[8] | u32 day | u16 port
//! TXT   v=1    t= 16 tags, sorted, raw bytes    p= pairing id, 8 raw bytes, while one is open
//! ```
//!
//! A day is the number of whole days since the Unix epoch, UTC. A device whose clock is a day off is
//! still recognised.
//!
//! # Invariants
//!
//! 1. An announcement without a tag of a peer leads to no dial.
//! 2. What is announced has the same form however many peers there are.
//!
//! # What is not here
//!
//! The network. What is dialled shows by its certificate who it is: a tag can be repeated by anybody.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;

use crate::mac::MacKey;
use crate::secret::PairSecret;

/// The service under which devices announce themselves.
pub const SERVICE: &str = "_catchword._udp";
/// Tags in an announcement: as many as there may be peers.
pub const TAGS: usize = 16;
/// A new name is drawn this long after the last one, and at every start.
pub const NAME_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Addresses of one announcement that are dialled.
pub const ADDRESSES_MAX: usize = 4;
/// The time between two dials of one peer because of announcements.
pub const DIAL_PAUSE: Duration = Duration::from_secs(5);

const NAME_BYTES: usize = 8;
const TAG_BYTES: usize = 8;
const PAIRING_ID_BYTES: usize = 8;
const VERSION: &[u8] = b"1";
const DAY_MS: u64 = 86_400_000;

/// A tag that only two devices can compute.
pub type Tag = [u8; TAG_BYTES];

/// The name under which a device is announced until it draws another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(pub [u8; NAME_BYTES]);

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceName({self})")
    }
}

impl FromStr for InstanceName {
    type Err = AnnouncementError;

    fn from_str(text: &str) -> Result<Self, AnnouncementError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes());
        let bytes = bytes.map_err(|_| AnnouncementError::Name)?;
        bytes.try_into().map(Self).map_err(|_| AnnouncementError::Name)
    }
}

/// What makes the tags of one pair of devices.
#[derive(Debug, Clone)]
pub struct DiscoveryKey(MacKey);

impl DiscoveryKey {
    /// Derives the key from what the two devices share.
    pub fn new(secret: &PairSecret) -> Self {
        Self(MacKey::derive(secret, &[b"catchword/disc/v1"]))
    }

    fn tag(&self, announcer: Fingerprint, name: InstanceName, day: u32, port: u16) -> Tag {
        let (day, port) = (day.to_be_bytes(), port.to_be_bytes());
        let whole = self.0.tag(&[&announcer.0, &name.0, &day, &port]);
        whole.first_chunk().copied().unwrap_or_default()
    }
}

/// What one device announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Random, new at each start and every 24 hours.
    pub name: InstanceName,
    /// The UDP port it listens at.
    pub port: u16,
    /// Sorted: the order says nothing about whose a tag is.
    tags: [Tag; TAGS],
    /// Set while a pairing is open that needs no QR code.
    pub pairing_id: Option<[u8; PAIRING_ID_BYTES]>,
}

/// Why an announcement is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// The name is not one.
    #[error("the name is not 16 hex digits")]
    Name,
    /// Another version, or none.
    #[error("the version is not 1")]
    Version,
    /// The tags are not 16 times 8 bytes.
    #[error("the tags are not 128 bytes")]
    Tags,
    /// The pairing id is not 8 bytes.
    #[error("the pairing id is not 8 bytes")]
    PairingId,
}

impl Announcement {
    /// Makes the announcement of the device `own`.
    ///
    /// `day` is [`utc_day`] of now, `keys` are those of the active peers, and `padding` is random.
    pub fn new<'k>(
        own: Fingerprint,
        name: InstanceName,
        port: u16,
        day: u32,
        keys: impl IntoIterator<Item = &'k DiscoveryKey>,
        padding: [Tag; TAGS],
    ) -> Self {
        let mut tags = padding;
        for (tag, key) in tags.iter_mut().zip(keys) {
            *tag = key.tag(own, name, day, port);
        }
        tags.sort_unstable();
        Self { name, port, tags, pairing_id: None }
    }

    /// Returns the announcement with the id of a pairing that is open.
    #[must_use]
    pub const fn with_pairing_id(mut self, id: [u8; PAIRING_ID_BYTES]) -> Self {
        self.pairing_id = Some(id);
        self
    }

    /// Returns the entries of the TXT record.
    pub fn txt(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut entries = vec![("v", VERSION.to_vec()), ("t", self.tags.concat())];
        entries.extend(self.pairing_id.map(|id| ("p", id.to_vec())));
        entries
    }

    /// Reads an announcement. Entries with other names are passed over; of two with one name the first
    /// counts.
    ///
    /// # Errors
    ///
    /// [`AnnouncementError`]: it is not for us.
    pub fn read<'a>(
        name: &str,
        port: u16,
        txt: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, AnnouncementError> {
        let (mut version, mut tags, mut pairing_id) = (None, None, None);
        for (key, value) in txt {
            let slot = match key {
                "v" => &mut version,
                "t" => &mut tags,
                "p" => &mut pairing_id,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        let name = name.parse()?;
        if version != Some(VERSION) {
            return Err(AnnouncementError::Version);
        }
        let tags = read_tags(tags.unwrap_or_default()).ok_or(AnnouncementError::Tags)?;
        let pairing_id = pairing_id.map(TryInto::try_into).transpose();
        let pairing_id = pairing_id.map_err(|_| AnnouncementError::PairingId)?;
        Ok(Self { name, port, tags, pairing_id })
    }

    /// Returns which of the peers may have made this announcement: one whose tag of yesterday, today or
    /// tomorrow it carries.
    ///
    /// A tag can be repeated by anybody, so this is a reason to dial and no proof.
    pub fn announcer<'k>(
        &self,
        peers: impl IntoIterator<Item = (Fingerprint, &'k DiscoveryKey)>,
        day: u32,
    ) -> Option<Fingerprint> {
        let days = [day, day.saturating_sub(1), day.saturating_add(1)];
        let carries = |peer: Fingerprint, key: &DiscoveryKey| {
            days.iter().any(|day| self.tags.contains(&key.tag(peer, self.name, *day, self.port)))
        };
        let mut peers = peers.into_iter();
        peers.find(|(peer, key)| carries(*peer, key)).map(|(peer, _)| peer)
    }
}

fn read_tags(bytes: &[u8]) -> Option<[Tag; TAGS]> {
    let (tags, rest) = bytes.as_chunks::<TAG_BYTES>();
    if rest.is_empty() { tags.try_into().ok() } else { None }
}

/// Returns the day of a wall clock in milliseconds since the Unix epoch.
pub fn utc_day(now_ms: u64) -> u32 {
    u32::try_from(now_ms / DAY_MS).unwrap_or(u32::MAX)
}

/// Returns those of the announced addresses that are dialled: on this network, each once, at most
/// [`ADDRESSES_MAX`]. Those that reach farthest come first, this machine's own last.
pub fn dialable(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let reach = |address: &SocketAddr| Reach::of(address.ip());
    let mut found: Vec<_> =
        addresses.into_iter().filter(|address| reach(address).is_some()).collect();
    found.sort_unstable_by_key(|address| (reach(address), *address));
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Private,
    LinkLocal,
    Loopback,
}

impl Reach {
    /// Nothing for an address out in the world: nobody here can make us dial it.
    const fn of(ip: IpAddr) -> Option<Self> {
        let (private, link_local) = match ip.to_canonical() {
            IpAddr::V4(ip) => (ip.is_private(), ip.is_link_local()),
            IpAddr::V6(ip) => (ip.is_unique_local(), ip.is_unicast_link_local()),
        };
        if private {
            Some(Self::Private)
        } else if link_local {
            Some(Self::LinkLocal)
        } else if ip.to_canonical().is_loopback() {
            Some(Self::Loopback)
        } else {
            None
        }
    }
}

/// When each peer was last dialled because of an announcement.
#[derive(Debug, Default)]
pub struct Dials {
    /// Invariant: none is older than [`DIAL_PAUSE`] at the latest call.
    last: BTreeMap<Fingerprint, Instant>,
}

impl Dials {
    /// Returns whether a peer may be dialled now; if so, it counts as dialled.
    pub fn begin(&mut self, peer: Fingerprint, now: Instant) -> bool {
        self.last.retain(|_, last| now.saturating_duration_since(*last) < DIAL_PAUSE);
        let free = !self.last.contains_key(&peer);
        if free {
            self.last.insert(peer, now);
        }
        free
    }
}

//! What of what peers brought does not count, and keeps books from being exchanged.

use std::fmt;

use catchword_model::exchange::Signed;
use catchword_model::id::{BookId, DeviceId};
use catchword_model::identity::Fingerprint;
use catchword_store::{LoadError, Store};

use crate::error::ReadError;
use crate::library::Library;

/// Something that a peer brought and that does not count as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trouble {
    /// Who brought it.
    pub peer: Fingerprint,
    /// In which book; `None`: in what is about several books.
    pub book: Option<BookId>,
    /// What it is.
    pub why: Why,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// What came, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// It breaks a rule: the book is not exchanged with this peer for a while.
    Refused {
        /// What was refused last, and why, in words.
        what: String,
        /// Until when, in milliseconds since the Unix epoch.
        until_ms: u64,
        /// How often something was refused.
        failures: u32,
    },
    /// A device wrote two histories: the book is exchanged with nobody until a person decides.
    Forked {
        /// Which device, if it is known.
        device: Option<DeviceId>,
        /// Whether that is this device, now or in an earlier generation.
        own: bool,
        /// Where the two were seen to differ.
        at: Signed,
    },
    /// It builds on something that did not come, or nobody signed it. It changes nothing.
    Waiting {
        /// How many changes and reading events.
        count: u64,
    },
    /// It counts, and its stamp is ahead of this device's clock: the stamps of all devices are, from
    /// then on.
    Ahead {
        /// Whose clock it was.
        device: DeviceId,
        /// How far, in milliseconds.
        by_ms: u64,
    },
}

impl Why {
    /// Returns what would help.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "update that device; if it goes on, forget it",
            Self::Forked { .. } => "one folder was copied or restored: keep one of the two",
            Self::Waiting { .. } => "sync with the device that made it",
            Self::Ahead { .. } => "set the clock of that device",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { what, .. } => write!(f, "{what}"),
            Self::Forked { own: true, .. } => write!(f, "this device wrote two histories"),
            Self::Forked { device: Some(device), .. } => {
                write!(f, "device {device} wrote two histories")
            }
            Self::Forked { device: None, .. } => write!(f, "a device wrote two histories"),
            Self::Waiting { count } => {
                write!(f, "{count} changes wait for a signature, or for what they build on")
            }
            Self::Ahead { device, by_ms } => {
                write!(f, "the clock of device {device} was {} s ahead", by_ms / 1_000)
            }
        }
    }
}

impl Library {
    /// Returns what of what peers brought does not count, or only for a while, oldest first.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn troubles(&self) -> Result<Vec<Trouble>, ReadError> {
        let core = self.core();
        let mut troubles = find(&core.store, core.now_ms()).map_err(ReadError::store)?;
        troubles.sort_by_key(|trouble| trouble.since_ms);
        Ok(troubles)
    }
}

/// Finds what of what peers brought does not count.
pub(crate) fn find(store: &Store, now_ms: u64) -> Result<Vec<Trouble>, LoadError> {
    let mut troubles = Vec::new();
    for quarantine in store.quarantines()?.into_iter().filter(|found| now_ms < found.until_ms) {
        let (what, until_ms, failures) = (quarantine.why, quarantine.until_ms, quarantine.failures);
        let why = Why::Refused { what, until_ms, failures };
        let (peer, book, since_ms) = (quarantine.peer, quarantine.book, quarantine.since_ms);
        troubles.push(Trouble { peer, book, why, since_ms });
    }
    for pause in store.pauses()? {
        let device = store.writer(pause.document, pause.actor)?;
        let is_own =
            |device| device == store.device() || store.replaced_devices().contains(&device);
        let why = Why::Forked { device, own: device.is_some_and(is_own), at: pause.at };
        let (peer, book, since_ms) = (pause.brought_by, pause.book, pause.since_ms);
        troubles.push(Trouble { peer, book, why, since_ms });
    }
    for ((document, peer), waiting) in store.parked()? {
        let (book, why) = (store.book_of(document)?, Why::Waiting { count: waiting.count });
        troubles.push(Trouble { peer, book, why, since_ms: waiting.since_ms });
    }
    if let Some(ahead) = store.ahead(now_ms)? {
        let by_ms = ahead.stamp.wall_ms().saturating_sub(now_ms);
        let why = Why::Ahead { device: ahead.device, by_ms };
        let (peer, book) = (ahead.brought_by, store.book_of(ahead.document)?);
        troubles.push(Trouble { peer, book, why, since_ms: ahead.since_ms });
    }
    Ok(troubles)
}

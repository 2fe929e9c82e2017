//! The store of a library: two redb files, and the one door through which everything is written.
//!
//! The log of changes is the truth, rows are what is read, and an Automerge document is built only
//! when needed. Every local write is acknowledged by one commit of `wal`; `library` follows in batches.
//!
//! # Invariants
//!
//! 1. One door: local edits, received changes and imports all become [`stage`](crate)d by the same
//!    function, and are written to rows, log and lists in one transaction.
//! 2. What was acknowledged is there after a crash at any moment.
//! 3. Rows are a function of the log: [`Store::check`] rebuilds them and compares.
//! 4. Reading never loads a document.
//! 5. The cost of a change does not grow with the book.
//! 6. A write that fails leaves the store as it was, and says that it must be reopened.
//!
//! # What is not here
//!
//! What a change means (`catchword-model`), book files' contents (`catchword-formats`), and when to
//! publish, announce or show something (`catchword`). Nothing here knows about async.

mod admit;
mod append;
mod backup;
mod block;
mod bytes;
mod chain;
mod check;
mod cloud;
mod compact;
mod contain;
mod copy;
mod doc;
mod error;
mod exchange;
mod files;
mod flush;
mod log;
mod meta;
mod notes;
mod open;
mod opening;
mod page;
mod partial;
mod peers;
mod progress;
mod purge;
mod query;
mod remove;
mod restore;
mod rows;
mod salvage;
mod shrink;
mod snapshot;
mod stage;
mod statements;
mod tables;
mod turns;
mod verify;
mod wal;
mod witness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use catchword_model::hlc::HlcClock;
use catchword_model::id::{Author, DeviceId, DocumentId, Generation};

pub use admit::{ReceiveReport, Received};
pub use append::{Commit, WAITING_MAX};
pub use backup::{BackupError, BackupReport};
pub use block::{BLOCK_BYTES_MAX, BLOCK_CONTENT_BYTES_MAX};
pub use catchword_model::exchange::{Signed, Statement, events_message, head_message};
pub use check::{
    CheckReport, DIFFERENCES_NAMED_MAX, Damaged, Derived, Difference, Mismatch, RecordName, Repair,
};
pub use cloud::{
    Class, CloudAccount, CloudCursor, CloudLogin, CloudRow, CloudStart, Consignment, Skipped,
    Stopped, Unsent,
};
pub use compact::CompactReport;
pub use doc::ACTORS_MAX;
pub use error::{AppendError, Cause, LoadError, OpenError, Rejection};
pub use exchange::{
    Ahead, Applied, ApplyError, Bounds, CollectError, Collected, Delivery, EXCLUSIONS_MAX,
    Equivocation, ExchangeOptions, Exclusions, Fate, Given, Heard, Item, Local, Origin,
    PARKED_ALL_BYTES_MAX, PARKED_BYTES_MAX, PARKED_MAX, PIECE_CONTENT_BYTES, Pause, Peer,
    Quarantine, STAMP_AHEAD_MS, STATEMENT_BYTES, STATEMENT_INTERVAL, Said, Scope, Span, Spot,
    Standing, VOID_BRANCHES_MAX, VOID_MAX, Waiting,
};
pub use files::{BookFileRecord, FileError, book_id};
pub use log::SPAN_BYTES_MAX;
pub use meta::FORMAT;
pub use open::{Backends, Opened, Options};
pub use partial::PartialFile;
pub use peers::PeerRows;
pub use progress::{End, OnProgress, Progress, Step};
pub use query::{BookSummary, BookView, EventTotals, PlaceEntry, ShelfView};
pub use restore::{Existing, RestoreError, RestoreReport, restore};
pub use salvage::{SalvageReport, salvage};
pub use statements::Signer;
pub use turns::{Motion, Turn, TurnReceipt};
pub use witness::Evidence;

use opening::DatabaseFile;
use snapshot::Snapshot;
use stage::Stage;
use wal::Pending;

/// Name of the file of waiting records in the folder of a library.
pub const WAL_FILE: &str = "wal";
/// Name of the file of rows and log in the folder of a library.
pub const LIBRARY_FILE: &str = "library";
/// Name of the witness in the folder of a library.
pub const WITNESS_FILE: &str = "witness";

/// An open library. See the [crate documentation](crate).
///
/// All methods take `&self` and may be called from any thread; one write happens at a time.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    folder: Option<PathBuf>,
    opened: Opened,
}

/// What is behind the lock.
pub(crate) struct Inner {
    pub(crate) wal: DatabaseFile,
    pub(crate) library: DatabaseFile,
    /// Invariant: `library` as of its last commit. Absent only while that commit is made.
    pub(crate) disk: Option<Snapshot>,
    pub(crate) stage: Stage,
    pub(crate) clock: HlcClock,
    /// Invariant: above every number in either file.
    pub(crate) next_sequence: u64,
    /// The greatest waiting record whose rows are durable.
    pub(crate) drained: u64,
    /// The greatest record that is acknowledged in `wal`.
    pub(crate) last_record: u64,
    /// Records up to this one were removed from `wal`.
    pub(crate) removed: u64,
    /// Invariant: what is acknowledged in `wal` and waits for its rows. Kept, since a file that failed
    /// once is not read again until it is reopened.
    pub(crate) tail: Vec<(u64, wal::Record)>,
    pub(crate) pending: BTreeMap<u32, Pending>,
    pub(crate) identity: meta::StoredIdentity,
    pub(crate) actors: purge::ActorNumbers,
    /// The notes document that was used last.
    pub(crate) loaded: Option<notes::Loaded>,
    /// What this device has to write again.
    pub(crate) again: exchange::Again,
    pub(crate) exchange: ExchangeOptions,
    /// The greatest local sequence that the witness knows to have left this device.
    pub(crate) sent: u64,
    /// Set by a write that failed; cleared by reopening only.
    pub(crate) failed: bool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("waiting", &self.tail.len()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Who writes here, in a document.
    pub(crate) fn author_in(&self, document: DocumentId) -> Author {
        let n = self.actors.get(&document).copied().unwrap_or_default();
        Author { device: self.identity.device, n }
    }

    /// Returns the stage and the tables under it.
    pub(crate) fn parts(&mut self) -> Result<(&mut Stage, &Snapshot), LoadError> {
        self.is_sound()?;
        match &self.disk {
            Some(disk) => Ok((&mut self.stage, disk)),
            None => Err(LoadError::Io("the library was closed by an earlier failure".into())),
        }
    }

    /// Fails if something that was read had rotted: nothing is read until the library is opened again.
    pub(crate) fn is_sound(&self) -> Result<(), LoadError> {
        self.library.is_sound()?;
        self.wal.is_sound()
    }

    pub(crate) fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }
}

impl Store {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held leaves the stage as it was before or after an apply; what is
        // acknowledged is on disk either way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns this device in the present generation.
    pub fn device(&self) -> DeviceId {
        self.lock().identity.device
    }

    /// Returns the present generation of the store.
    pub fn generation(&self) -> Generation {
        self.lock().identity.generation
    }

    /// Returns the devices this library was before, newest last.
    pub fn replaced_devices(&self) -> Vec<DeviceId> {
        self.lock().identity.replaced.iter().map(|former| former.device).collect()
    }

    /// Returns what opening found.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Returns the folder of the library, unless it lives elsewhere than in files.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
}

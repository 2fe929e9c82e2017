//! The peers of a library: rules of the protocols, rows in the store, secrets in the key store.
//!
//! # Invariants
//!
//! 1. What is in memory is durable: a step counts only when its transaction is.
//! 2. A peer's secret is in the key store before its row is in the table, and until no row names it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use catchword_model::identity::Fingerprint;
use catchword_proto::pairing::host::Ending;
use catchword_proto::pairing::{Wait, Windows};
use catchword_proto::secret::PairSecret;
use catchword_proto::trust::{
    Deactivation, PeerRecord, PeerState, Peers, RecordError, Step, StepError, Update, Verdict,
};
use catchword_store::PeerRows;
use tokio::sync::Notify;

use crate::error::EditError;
use crate::event::Event;
use crate::keys::{KeyError, Secret};
use crate::library::Library;
use crate::net::Trust;

/// The peers of a library, and the windows in which they are paired.
///
/// What it answers from is durable, and a peer that is in it has its secret in the key store.
pub struct PeerBook {
    library: Library,
    peers: Mutex<Peers>,
    windows: Mutex<Windows>,
    is_pairing: AtomicBool,
    changed: Notify,
}

/// Something about a peer could not be done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The peer is not there, or its state does not allow it.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A window for pairing is open already. Close it first.
    #[error("a window for pairing is open already; close it first")]
    WindowOpen,
    /// Too many windows failed lately.
    #[error(transparent)]
    Wait(#[from] Wait),
    /// A row of the library does not read.
    #[error("a peer of this library cannot be read")]
    Damaged(#[source] RecordError),
    /// What is kept of earlier windows does not read.
    #[error("the earlier windows for pairing cannot be read")]
    DamagedWindows,
    /// The secret could not be kept or loaded.
    #[error("cannot read or write the secret of a peer")]
    Keys(#[source] KeyError),
    /// The library could not be read or written.
    #[error("cannot read or write the peers of this library")]
    Library(#[source] EditError),
}

impl PeerBook {
    /// Reads the peers of a library.
    ///
    /// Provisional peers whose time is over are dropped. Peers whose secret is gone, since the library
    /// was restored without its keys, are deactivated.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub fn open(library: &Library) -> Result<Self, PeerError> {
        let store = &library.core().store;
        let rows = store.peers().map_err(EditError::load).map_err(PeerError::Library)?;
        let records = rows.iter().map(|(peer, row)| PeerRecord::decode(*peer, row));
        let records = records.collect::<Result<Vec<_>, _>>().map_err(PeerError::Damaged)?;
        let windows = store.pairing_windows().map_err(EditError::load);
        let windows = windows.map_err(PeerError::Library)?.map(|kept| Windows::decode(&kept));
        let windows = windows.transpose().map_err(|_| PeerError::DamagedWindows)?;
        let book = Self {
            library: library.clone(),
            peers: Mutex::new(Peers::new(records)),
            windows: Mutex::new(windows.unwrap_or_default()),
            is_pairing: AtomicBool::new(false),
            changed: Notify::new(),
        };
        book.take(Step::Expire)?;
        for record in book.records() {
            let is_gone = record.state != PeerState::Revoked && book.load(&record)?.is_none();
            if is_gone {
                book.take(Step::Deactivate(record.fingerprint, Deactivation::KeysNotRestored))?;
            }
        }
        Ok(book)
    }

    /// Waits until a peer comes, goes, or changes its state.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns every peer, whatever its state.
    pub fn records(&self) -> Vec<PeerRecord> {
        self.lock().iter().cloned().collect()
    }

    /// Returns a peer, whatever its state.
    pub fn find(&self, peer: Fingerprint) -> Option<PeerRecord> {
        self.lock().find(peer).cloned()
    }

    /// Returns what this device shares with a peer, or `None` if there is no such peer any more.
    ///
    /// # Errors
    ///
    /// [`PeerError::Keys`].
    pub fn secret(&self, peer: Fingerprint) -> Result<Option<PairSecret>, PeerError> {
        self.find(peer).map_or(Ok(None), |record| self.load(&record))
    }

    /// Judges the certificate of an incoming connection.
    pub fn incoming(&self, shown: Fingerprint) -> Verdict {
        self.lock().incoming(shown, self.now_ms())
    }

    /// Judges the certificate that was shown where `dialled` should be.
    pub fn outgoing(&self, dialled: Fingerprint, shown: Fingerprint) -> Verdict {
        self.lock().outgoing(dialled, shown, self.now_ms())
    }

    /// Takes a step, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing was changed.
    pub fn take(&self, step: Step<'_>) -> Result<(), PeerError> {
        let core = self.library.core();
        let mut peers = self.lock();
        let update = peers.plan(step, core.now_ms())?;
        if update.is_empty() {
            return Ok(());
        }
        if let (Step::Admit(peer) | Step::Join(peer), [record]) = (step, update.put.as_slice()) {
            let secret = Secret::new(*peer.secret.expose());
            core.keys.store(&record.secret.to_string(), &secret).map_err(PeerError::Keys)?;
        }
        let written = core.store.write_peers(&rows(&update)).map_err(EditError::store);
        written.map_err(PeerError::Library)?;
        let unused = update.unused.clone();
        let told = changed(&peers, &update);
        peers.apply(update);
        drop(peers);
        for secret in unused {
            // No row names it any more: one that stays is of no use to anybody.
            drop(core.keys.remove(&secret.to_string()));
        }
        if told.is_empty() {
            return Ok(());
        }
        self.changed.notify_one();
        for peer in told {
            core.announce(&Event::PeerChanged { peer });
        }
        Ok(())
    }

    /// Notes durably that a window for pairing opens, and lets strangers connect to pair.
    ///
    /// # Errors
    ///
    /// [`PeerError::WindowOpen`] if there is one; [`PeerError::Wait`] if too many failed lately.
    pub fn open_window(&self) -> Result<(), PeerError> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_pairing() {
            return Err(PeerError::WindowOpen);
        }
        let mut noted = windows.clone();
        noted.open(self.now_ms())?;
        self.keep(&noted)?;
        *windows = noted;
        self.is_pairing.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Lets no stranger connect any more, and notes durably how the window ended.
    ///
    /// # Errors
    ///
    /// [`PeerError::Library`]; the window is closed and will count as failed.
    pub fn close_window(&self, ending: Ending) -> Result<(), PeerError> {
        self.is_pairing.store(false, Ordering::SeqCst);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut noted = windows.clone();
        noted.close(ending, self.now_ms());
        self.keep(&noted)?;
        *windows = noted;
        Ok(())
    }

    fn keep(&self, windows: &Windows) -> Result<(), PeerError> {
        let kept = self.library.core().store.keep_pairing_windows(&windows.encode());
        kept.map_err(EditError::store).map_err(PeerError::Library)
    }

    fn load(&self, record: &PeerRecord) -> Result<Option<PairSecret>, PeerError> {
        let secret = self.library.core().keys.load(&record.secret.to_string());
        let secret = secret.map_err(PeerError::Keys)?;
        Ok(secret.map(|secret| PairSecret::new(*secret.expose())))
    }

    fn now_ms(&self) -> u64 {
        self.library.core().now_ms()
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        // An update is applied as a whole, after everything that could go wrong.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whom an update makes another peer than before: that one was reached is no news.
fn changed(before: &Peers, update: &Update) -> Vec<Fingerprint> {
    let same = |after: &&PeerRecord| {
        before.find(after.fingerprint).is_some_and(|before| {
            (before.state, before.secret, &before.scope)
                == (after.state, after.secret, &after.scope)
        })
    };
    let put = update.put.iter().filter(|after| !same(after)).map(|after| after.fingerprint);
    put.chain(update.dropped.iter().copied()).collect()
}

fn rows(update: &Update) -> PeerRows {
    let row = |record: &PeerRecord| (record.fingerprint, record.encode());
    PeerRows { put: update.put.iter().map(row).collect(), dropped: update.dropped.clone() }
}

/// Answers from memory.
impl Trust for PeerBook {
    fn is_peer(&self, fingerprint: Fingerprint) -> bool {
        matches!(self.incoming(fingerprint), Verdict::Trusted | Verdict::Provisional)
    }

    fn is_pairing(&self) -> bool {
        self.is_pairing.load(Ordering::SeqCst)
    }
}

/// Whom this device knows is left out.
impl fmt::Debug for PeerBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerBook").field("library", &self.library).finish_non_exhaustive()
    }
}

//! A library on the network: listens, pairs, and syncs with the paired devices.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;

use catchword_model::id::BookId;
use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::dialable;
use catchword_proto::pairing::joiner::Invitation;
use catchword_proto::pairing::{
    KeyError as TypedKeyError, PairingId, PairingKey, QR_ADDRESSES_MAX, QrCode, QrError,
};
use catchword_proto::trust::{PeerRecord, PeerScope, Step};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use crate::error::{EditError, ReadError, RemoveError};
use crate::keys::KeyError;
use crate::library::Library;
use crate::net::Discovery;
use crate::net::certificate::DeviceIdentity;
use crate::net::fetching::{FetchError, FetchProgress, FetchReport};
use crate::net::keeping::{Shared, Window, keep};
use crate::net::meeting::SyncError;
use crate::net::neighbours::Neighbours;
use crate::net::pairing::{HostRun, Hosting, PairError, addresses_of, join};
use crate::net::peers::PeerError;
use crate::net::quic::BindError;
use crate::net::serving::accept_all;
use crate::net::status::{Status, status};
use crate::net::syncing::SyncReport;

/// Digits of a fingerprint that name a peer, at least.
const DIGITS_MIN: usize = 6;
/// Connections that wait to be looked at by a window.
const GUESTS_MAX: usize = 16;

/// How a node listens, and what it does unasked.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Where to listen. Default: any free port, on every interface.
    pub listen: Option<SocketAddr>,
    /// How devices near here are found. Default: not at all.
    pub discovery: Option<Arc<dyn Discovery>>,
    /// Whether it announces itself, and syncs unasked. Default: no.
    pub lasting: bool,
}

impl NodeConfig {
    /// Listens at this address.
    #[must_use]
    pub fn with_listen(mut self, listen: Option<SocketAddr>) -> Self {
        self.listen = listen;
        self
    }

    /// Finds devices, and is found, in this way.
    #[must_use]
    pub fn with_discovery(mut self, discovery: Option<Arc<dyn Discovery>>) -> Self {
        self.discovery = discovery;
        self
    }

    /// Announces itself as long as it runs, and syncs with every peer: when it is found, 2 s after a
    /// change, and every minute.
    #[must_use]
    pub fn with_lasting(mut self, lasting: bool) -> Self {
        self.lasting = lasting;
        self
    }
}

/// A node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The device's certificate could not be read or kept.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// What is kept of peers could not be read.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The library could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// No paired device is meant, or more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindPeerError {
    /// No paired device has this name, or a fingerprint that begins so.
    #[error("no paired device has this name, or a fingerprint that begins so")]
    NoPeer,
    /// Several are meant. Give more of the fingerprint.
    #[error("several paired devices are called that; give more of the fingerprint")]
    Ambiguous,
}

/// What a person shows on one device and takes to the other.
#[derive(Debug)]
#[non_exhaustive]
pub struct Hosted {
    /// The text of the QR code.
    pub qr: String,
    /// The six digits.
    pub key: String,
    /// The port that this device listens at.
    pub port: u16,
    paired: JoinHandle<Result<Fingerprint, PairError>>,
    shared: Arc<Shared>,
}

impl Hosted {
    /// Waits until the other device has come, at most two minutes.
    ///
    /// # Errors
    ///
    /// [`PairError`]: nobody was paired.
    pub async fn wait(self) -> Result<PeerRecord, PairError> {
        let paired = self.paired.await.unwrap_or(Err(PairError::Over("it was given up")));
        self.shared.set_window(None);
        self.shared.paired(paired?)
    }
}

/// What a person types or scans to join.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Join {
    /// The QR code and the six digits.
    Scanned {
        /// The text of the code.
        qr: String,
        /// The six digits.
        key: String,
        /// Where the host is, if it is not where the code says.
        address: Option<SocketAddr>,
    },
    /// The six digits, and a host that was picked from those [near here](Node::near).
    Near {
        /// The six digits.
        key: String,
        /// The host.
        host: Near,
    },
    /// The six digits, and where the host is.
    KeyOnly {
        /// The six digits.
        key: String,
        /// Where the host is; where it announces itself, if that is not known.
        address: Option<SocketAddr>,
    },
}

/// A device near here that shows a code. What it announces proves nothing: the six digits do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Near {
    pub(crate) id: PairingId,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

/// What was typed or scanned is no invitation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The text is no QR code of a device.
    #[error(transparent)]
    Code(#[from] QrError),
    /// The key has not six digits.
    #[error(transparent)]
    Key(#[from] TypedKeyError),
    /// Nobody near here announces that it shows a code. Give an address.
    #[error("no device near here announces that it shows a code")]
    NobodyNear,
    /// Several devices near here show a code. Give the address of one.
    #[error("{0} devices near here show a code; say which by its address")]
    SeveralNear(usize),
    /// The pairing did not come about.
    #[error(transparent)]
    Pair(#[from] PairError),
}

/// A library on the network. Dropping it closes every connection.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

impl Node {
    /// Puts a library on the network. Called within a tokio runtime.
    ///
    /// That devices near here cannot be found is no error: [`status`](Self::status) says so.
    ///
    /// # Errors
    ///
    /// [`NodeError`]; nothing listens.
    pub fn start(library: &Library, config: &NodeConfig) -> Result<Self, NodeError> {
        let identity = DeviceIdentity::load_or_make(&*library.core().keys)?;
        let shared = Arc::new(Shared::new(library, config, identity)?);
        let mut tasks = vec![tokio::spawn(accept_all(Arc::clone(&shared))).abort_handle()];
        if config.lasting {
            tasks.push(tokio::spawn(keep(Arc::clone(&shared))).abort_handle());
        }
        Ok(Self { shared, tasks })
    }

    /// Returns this device's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.shared.own
    }

    /// Returns where it listens. The IP is unspecified if that is every interface.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_address()
    }

    /// Opens a window for another device, and returns what is to be shown.
    ///
    /// # Errors
    ///
    /// [`PairError`]; no window is open.
    pub fn host(&self, hosting: Hosting) -> Result<Hosted, PairError> {
        let shared = Arc::clone(&self.shared);
        let introduction = shared.introduction()?;
        let qr_only = hosting.qr_only;
        let (run, key) = HostRun::open(&shared.peers, shared.own, introduction, hosting)?;
        let address = self.address().map_err(PairError::Random)?;
        let qr = run.qr_code(address.port(), reachable(address.ip())).encode().to_string();
        let (guests, receiver) = mpsc::channel(GUESTS_MAX);
        shared.set_window(Some(Window { guests, pairing: (!qr_only).then(|| run.id()) }));
        let paired = tokio::spawn(run.run(receiver));
        let key = String::from_utf8_lossy(key.expose()).into_owned();
        Ok(Hosted { qr, key, port: address.port(), paired, shared })
    }

    /// Joins the device that shows a code.
    ///
    /// # Errors
    ///
    /// [`JoinError`]: nothing was kept.
    pub async fn join(&self, invitation: &Join) -> Result<PeerRecord, JoinError> {
        let shared = &self.shared;
        let (invitation, addresses) = match invitation {
            Join::Scanned { qr, key, address } => {
                let (code, key) = (QrCode::decode(qr)?, PairingKey::parse(key)?);
                let addresses = address.map_or_else(|| addresses_of(&code), |given| vec![given]);
                (Invitation::Scanned { code, key }, addresses)
            }
            Join::Near { key, host } => {
                let (key, id) = (PairingKey::parse(key)?, host.id);
                (Invitation::KeyOnly { id, key }, host.addresses.clone())
            }
            Join::KeyOnly { key, address } => {
                let key = PairingKey::parse(key)?;
                let (id, addresses) = match address {
                    Some(address) => (PairingId::UNNAMED, vec![*address]),
                    None => shared.host_near().await.map(|near| (near.id, near.addresses))?,
                };
                (Invitation::KeyOnly { id, key }, addresses)
            }
        };
        let dialled = shared.endpoint.dial_to_pair(invitation.pinned(), &addresses).await;
        let connection = dialled.map_err(PairError::from)?;
        let introduction = shared.introduction()?;
        let address = connection.remote_address();
        let peer = join(&shared.peers, shared.own, introduction, &invitation, &connection).await?;
        shared.peers.take(Step::Reach(peer, Some(address))).map_err(PairError::from)?;
        Ok(shared.paired(peer)?)
    }

    /// Returns the devices near here that show a code, as far as they were heard by now.
    pub fn near(&self) -> Vec<Near> {
        self.shared.neighbours.as_ref().map(Neighbours::hosts).unwrap_or_default()
    }

    /// Returns what is known of every peer.
    pub fn peers(&self) -> Vec<PeerRecord> {
        self.shared.peers.records()
    }

    /// Returns the peer that a person means: by name, fingerprint, or the beginning of one.
    ///
    /// # Errors
    ///
    /// [`FindPeerError`].
    pub fn find_peer(&self, named: &str) -> Result<PeerRecord, FindPeerError> {
        let digits = named.to_ascii_lowercase();
        let records = self.peers();
        let begins = |record: &&PeerRecord| {
            DIGITS_MIN <= digits.len() && record.fingerprint.to_string().starts_with(&digits)
        };
        let mut found: Vec<_> = records.iter().filter(|record| record.name == named).collect();
        if found.is_empty() {
            found = records.iter().filter(begins).collect();
        }
        match found.as_slice() {
            [] => Err(FindPeerError::NoPeer),
            [one] => Ok((*one).clone()),
            _ => Err(FindPeerError::Ambiguous),
        }
    }

    /// Takes the trust from a peer: its connections are closed at once, and it is refused from now on.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing was changed.
    pub fn forget(&self, peer: Fingerprint) -> Result<(), PeerError> {
        self.shared.peers.take(Step::Revoke(peer))?;
        self.shared.endpoint.disconnect(peer);
        Ok(())
    }

    /// Goes on trusting the pinned certificate of a peer that was deactivated.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing was changed.
    pub fn trust(&self, peer: Fingerprint) -> Result<(), PeerError> {
        self.shared.peers.take(Step::Reactivate(peer))
    }

    /// Says which books a peer gets, and may bring, from the next sync on. What it has stays there.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing was changed.
    pub fn scope(&self, peer: Fingerprint, scope: &PeerScope) -> Result<(), PeerError> {
        self.shared.peers.take(Step::Scope(peer, scope))
    }

    /// Says whether a peer only gets books, from the next sync on, or may bring changes as well. What is
    /// in its scope it gets either way.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing was changed.
    pub fn set_read_only(&self, peer: Fingerprint, is_read_only: bool) -> Result<(), PeerError> {
        self.shared.peers.take(Step::ReadOnly(peer, is_read_only))
    }

    /// Brings this library and a peer's to the same state: at an address, or where it announces itself
    /// and was last.
    ///
    /// # Errors
    ///
    /// [`SyncError`]. What was received before is kept.
    pub async fn sync(
        &self,
        peer: Fingerprint,
        address: Option<SocketAddr>,
    ) -> Result<SyncReport, SyncError> {
        self.shared.sync(peer, address).await
    }

    /// Removes a book from this device and deletes its history here, if a peer that can be reached now, at
    /// the address or where it is found, has everything of it. Returns that peer.
    ///
    /// Importing the book again, and a sync, bring everything back.
    ///
    /// # Errors
    ///
    /// [`RemoveError::OnlyHere`] if no such peer was found: a book that was not removed stays as it is.
    pub async fn purge(
        &self,
        book: BookId,
        address: Option<SocketAddr>,
    ) -> Result<Fingerprint, RemoveError> {
        self.shared.purge(book, address).await
    }

    /// Fetches the file of a book that the library shows: from one peer, at an address or where it is
    /// found, or from everyone who has it at once. What came of it earlier is not fetched again, and
    /// nobody sees it before all of it has the name of the book.
    ///
    /// `progress` is told how far it is, ten times a second and after each part, and may stop it.
    ///
    /// # Errors
    ///
    /// [`FetchError`]. What came is kept for the next time.
    pub async fn fetch(
        &self,
        book: BookId,
        from: Option<(Fingerprint, Option<SocketAddr>)>,
        progress: impl FnMut(FetchProgress) -> ControlFlow<()>,
    ) -> Result<FetchReport, FetchError> {
        self.shared.fetch(book, from, progress).await
    }

    /// Says how things stand, of everything or of one book: whether each peer is in sync, and if not,
    /// why, since when, and what would help.
    ///
    /// # Errors
    ///
    /// [`EditError`] if the library cannot be read, or what waits to be moved cannot be.
    pub fn status(&self, book: Option<BookId>) -> Result<Vec<Status>, EditError> {
        status(&self.shared, book)
    }

    /// Closes every connection, and waits a moment until the peers have heard of it.
    pub async fn close(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let shared = Arc::clone(&self.shared);
        let silent = tokio::task::spawn_blocking(move || shared.fall_silent());
        self.shared.endpoint.close().await;
        // It waits for its last packet alone.
        let _silent = silent.await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Returns where others on this network may reach a device that listens there.
fn reachable(listening: IpAddr) -> Vec<IpAddr> {
    if !listening.is_unspecified() {
        return vec![listening];
    }
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    // The port plays no part in the choice.
    let addresses = found.into_iter().map(|interface| SocketAddr::new(interface.ip(), 0));
    let reachable = dialable(addresses).into_iter().map(|address| address.ip());
    reachable.take(QR_ADDRESSES_MAX).collect()
}

//! A library on the network: listens, pairs, and syncs with the paired devices.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::dialable;
use catchword_proto::pairing::joiner::Invitation;
use catchword_proto::pairing::{
    Introduction, KeyError as TypedKeyError, PairingKey, QR_ADDRESSES_MAX, QrCode, QrError,
};
use catchword_proto::request::{Guard, SigningClock, Standing};
use catchword_proto::trust::{Deactivation, PeerRecord, Step, StepError, Verdict};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use crate::error::ReadError;
use crate::keys::KeyError;
use crate::library::Library;
use crate::net::call::CallError;
use crate::net::certificate::DeviceIdentity;
use crate::net::ledger::{Answered, Ledger};
use crate::net::pairing::{HostRun, Hosting, PairError, addresses_of, join};
use crate::net::peers::{PeerBook, PeerError};
use crate::net::quic::{BindError, Candidate, Connection, DialError, Endpoint, Lost, Source};
use crate::net::syncing::{SyncReport, request, respond};
use crate::net::tls::{Purpose, Trust as _};

/// Digits of a fingerprint that name a peer, at least.
const DIGITS_MIN: usize = 6;
/// Connections that wait to be looked at by a window.
const GUESTS_MAX: usize = 16;

/// How a node listens.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Where to listen. Default: any free port, on every interface.
    pub listen: Option<SocketAddr>,
}

impl NodeConfig {
    /// Listens at this address.
    #[must_use]
    pub fn with_listen(mut self, listen: Option<SocketAddr>) -> Self {
        self.listen = listen;
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

/// A sync did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// There is no such peer, or what is kept of it could not be read.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The peer is not active.
    #[error("this device is {0}")]
    NotActive(catchword_proto::trust::PeerState),
    /// What this device and the peer share is gone. Pair again.
    #[error("the keys of this pairing are gone; pair again")]
    NoSecret,
    /// No address of the peer is known. Give one.
    #[error("it is not known where this device is; give its address")]
    NoAddress,
    /// The peer could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer does not know this device any more. Pair again.
    #[error("that device does not know this one any more; pair again")]
    UnknownToPeer,
    /// The connection was lost, or what came was not the peer's.
    #[error(transparent)]
    Call(CallError),
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
        self.shared.close_window();
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
    /// The six digits, and where the host is.
    KeyOnly {
        /// The six digits.
        key: String,
        /// Where the host is.
        address: SocketAddr,
    },
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
    /// The pairing did not come about.
    #[error(transparent)]
    Pair(#[from] PairError),
}

/// A library on the network. Dropping it closes every connection.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    library: Library,
    own: Fingerprint,
    endpoint: Endpoint,
    peers: Arc<PeerBook>,
    /// What keeps requests of each peer from being repeated, as long as this process runs.
    guards: Mutex<BTreeMap<Fingerprint, Arc<Mutex<Guard>>>>,
    /// Where connections of a window go, while one is open.
    window: Mutex<Option<mpsc::Sender<Connection>>>,
    /// How far the clock of each peer is off.
    clocks: Mutex<BTreeMap<Fingerprint, SigningClock>>,
    answered: Answered,
}

impl Node {
    /// Puts a library on the network. Called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`NodeError`]; nothing listens.
    pub fn start(library: &Library, config: &NodeConfig) -> Result<Self, NodeError> {
        let identity = DeviceIdentity::load_or_make(&*library.core().keys)?;
        let own = identity.fingerprint();
        let peers = Arc::new(PeerBook::open(library)?);
        let endpoint = Endpoint::bind(config.listen, identity, Arc::clone(&peers) as _)?;
        let shared = Arc::new(Shared {
            library: library.clone(),
            own,
            endpoint,
            peers,
            guards: Mutex::default(),
            window: Mutex::default(),
            clocks: Mutex::default(),
            answered: Answered::default(),
        });
        let accepting = tokio::spawn(accept_all(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, accepting })
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
        let (run, key) = HostRun::open(&shared.peers, shared.own, introduction, hosting)?;
        let address = self.address().map_err(PairError::Random)?;
        let qr = run.qr_code(address.port(), reachable(address.ip())).encode().to_string();
        let (sender, receiver) = mpsc::channel(GUESTS_MAX);
        *shared.window() = Some(sender);
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
        let (invitation, addresses) = match invitation {
            Join::Scanned { qr, key, address } => {
                let (code, key) = (QrCode::decode(qr)?, PairingKey::parse(key)?);
                let addresses = address.map_or_else(|| addresses_of(&code), |given| vec![given]);
                (Invitation::Scanned { code, key }, addresses)
            }
            Join::KeyOnly { key, address } => {
                let id = catchword_proto::pairing::PairingId::UNNAMED;
                (Invitation::KeyOnly { id, key: PairingKey::parse(key)? }, vec![*address])
            }
        };
        let shared = &self.shared;
        let dialled = shared.endpoint.dial_to_pair(invitation.pinned(), &addresses).await;
        let connection = dialled.map_err(PairError::from)?;
        let introduction = shared.introduction()?;
        let address = connection.remote_address();
        let peer = join(&shared.peers, shared.own, introduction, &invitation, &connection).await?;
        shared.peers.take(Step::Reach(peer, Some(address))).map_err(PairError::from)?;
        Ok(shared.paired(peer)?)
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
        self.shared.find(named)
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

    /// Brings this library and a peer's to the same state: at an address, or where it was last.
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

    /// Closes every connection, and waits a moment until the peers have heard of it.
    pub async fn close(&self) {
        self.accepting.abort();
        self.shared.endpoint.close().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn window(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Connection>>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_window(&self) {
        *self.window() = None;
    }

    /// Returns the peer that a person means.
    fn find(&self, named: &str) -> Result<PeerRecord, FindPeerError> {
        let digits = named.to_ascii_lowercase();
        let records = self.peers.records();
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

    /// Says that a signed exchange with a peer succeeded: a provisional one is promoted by that.
    fn reached(&self, peer: Fingerprint, dialled: Option<SocketAddr>) -> Result<(), PeerError> {
        if self.peers.incoming(peer) == Verdict::Provisional {
            self.peers.take(Step::Promote(peer))?;
        }
        match dialled {
            Some(address) => self.peers.take(Step::Reach(peer, Some(address))),
            None => Ok(()),
        }
    }

    fn guard(&self, peer: Fingerprint) -> Arc<Mutex<Guard>> {
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Mutex::new(Guard::new(std::time::Instant::now())));
        Arc::clone(guards.entry(peer).or_insert_with(new))
    }

    fn paired(&self, peer: Fingerprint) -> Result<PeerRecord, PairError> {
        let record = self.peers.find(peer);
        let gone = || PeerError::Step(StepError::NoPeer);
        Ok(record.ok_or_else(gone)?)
    }

    /// What another device is told of this one.
    fn introduction(&self) -> Result<Introduction, PairError> {
        let devices = self.library.devices().map_err(PairError::Read)?;
        let own = self.library.device();
        let name = devices.into_iter().find(|(device, _)| *device == own);
        let (name, platform) =
            name.map(|(_, named)| (named.name, named.platform)).unwrap_or_default();
        Ok(Introduction::new(&name, &platform, env!("CARGO_PKG_VERSION")))
    }

    async fn sync(
        &self,
        peer: Fingerprint,
        address: Option<SocketAddr>,
    ) -> Result<SyncReport, SyncError> {
        let record = self.peers.find(peer).ok_or(PeerError::Step(StepError::NoPeer))?;
        if !self.peers.is_peer(peer) {
            return Err(SyncError::NotActive(record.state));
        }
        let secret = self.peers.secret(peer)?.ok_or(SyncError::NoSecret)?;
        let candidates = candidates(&record, address);
        if candidates.is_empty() {
            return Err(SyncError::NoAddress);
        }
        let dialled = self.endpoint.dial(peer, &candidates).await;
        if let Err(DialError::Impostor { .. }) = dialled {
            self.peers.take(Step::Deactivate(peer, Deactivation::FingerprintMismatch))?;
            self.endpoint.disconnect(peer);
        }
        let connection = dialled?;
        let channel = connection.channel(&secret, self.own).map_err(lost)?;
        let mut clock = self.clock(peer);
        let ledger = Arc::new(Ledger::new(&self.library, peer, &secret, &self.answered));
        let synced = request(&connection, &channel, &mut clock, &ledger).await;
        self.clocks().insert(peer, clock);
        match synced {
            Ok(report) => {
                if 0 < report.round_trips {
                    self.reached(peer, Some(connection.remote_address()))?;
                }
                Ok(report)
            }
            Err(error) if error.lost() == Some(Lost::Refused) => {
                self.peers.take(Step::Deactivate(peer, Deactivation::UnknownToPeer))?;
                Err(SyncError::UnknownToPeer)
            }
            Err(error) => Err(SyncError::Call(error)),
        }
    }

    fn clocks(&self) -> std::sync::MutexGuard<'_, BTreeMap<Fingerprint, SigningClock>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self, peer: Fingerprint) -> SigningClock {
        self.clocks().get(&peer).copied().unwrap_or_default()
    }
}

/// Returns where a peer may be: where a person says, or else where it was last.
fn candidates(record: &PeerRecord, given: Option<SocketAddr>) -> Vec<Candidate> {
    if let Some(address) = given {
        return vec![Candidate::new(address, Source::Given)];
    }
    let known = record.addresses.iter();
    known.map(|address| Candidate::new(*address, Source::Known)).collect()
}

fn lost(lost: Lost) -> SyncError {
    SyncError::Call(CallError::Stream(crate::net::stream::StreamError::Lost(lost)))
}

/// Takes connections until the endpoint is closed.
async fn accept_all(shared: Arc<Shared>) {
    while let Some(connection) = shared.endpoint.accept().await {
        match connection.purpose() {
            Purpose::Pairing => {
                let window = shared.window().clone();
                // Without a window the connection is dropped, and closed by that.
                if let Some(window) = window {
                    let _full = window.try_send(connection);
                }
            }
            Purpose::Sync => {
                tokio::spawn(serve(Arc::clone(&shared), connection));
            }
        }
    }
}

/// Answers the requests of a peer until its connection is gone.
async fn serve(shared: Arc<Shared>, connection: Connection) {
    let peer = connection.peer();
    let Ok(Some(secret)) = shared.peers.secret(peer) else { return };
    let Ok(channel) = connection.channel(&secret, shared.own) else { return };
    let guard = shared.guard(peer);
    let ledger = Arc::new(Ledger::new(&shared.library, peer, &secret, &shared.answered));
    let standing = || {
        if shared.peers.is_peer(peer) { Standing::Trusted } else { Standing::Refused }
    };
    while let Ok(stream) = connection.accept().await {
        let now_ms = || shared.library.core().now_ms();
        let read = connection.read_request(stream, &channel, &guard, standing, now_ms).await;
        let Ok(incoming) = read else { continue };
        if shared.reached(peer, None).is_err() {
            return;
        }
        // An answer that did not arrive is asked for again.
        let _answered = respond(incoming, &channel, &ledger).await;
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

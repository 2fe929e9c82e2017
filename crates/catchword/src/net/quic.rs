//! QUIC between devices: one endpoint that calls and is called, and the limits it holds.
//!
//! # Invariants
//!
//! 1. A connection is handed out only when both certificates were checked, and the peer's is looked up
//!    once more after the handshake.
//! 2. What strangers send before that costs a bounded amount of memory, however many they are.
//! 3. Once [`Endpoint::disconnect`] has returned, nothing more is sent to that peer or received from it.
//!    What was received before is refused by the look at its standing.
//!
//! # What is not here
//!
//! Whether a peer is to be deactivated: [`DialError::Impostor`] and [`Lost::Refused`] say what was seen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use catchword_model::identity::Fingerprint;
use catchword_proto::request::{EXPORTER_BYTES, Status};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    ConnectionError, IdleTimeout, NoneTokenStore, ServerConfig, TransportConfig,
    ValidationTokenConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::net::certificate::SUBJECT;
use crate::net::table::{CONNECTIONS_MAX, Caller, Close, HANDSHAKES_MAX, SharedTable, Verdict};
use crate::net::tls::Tls;
use crate::net::{DeviceIdentity, Purpose, Stream, Trust};

/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Requests of a peer that are carried out side by side.
const STREAMS_MAX: VarInt = VarInt::from_u32(8);
/// Before the peer is known, and while it is being paired.
const STREAMS_OF_A_STRANGER_MAX: VarInt = VarInt::from_u32(1);
/// What a peer may have sent on one stream, and we not read.
const STREAM_WINDOW_BYTES: VarInt = VarInt::from_u32(1 << 20);
/// The same over all streams of a connection.
const RECEIVE_WINDOW_BYTES: VarInt = VarInt::from_u32(4 << 20);
/// What we may have sent, and the peer not taken.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// A connection on which nothing arrives for this long is lost.
const IDLE_MS_MAX: VarInt = VarInt::from_u32(30_000);
/// Who dialled says so often that it is still there. It holds the connection while it has a use for it.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// What one caller may send before it is accepted, and all of them together.
const CALLER_BYTES_MAX: u64 = 64 << 10;
const CALLERS_BYTES_MAX: u64 = 1 << 20;
/// Addresses of one peer that are tried at once.
pub(crate) const CANDIDATES_MAX: usize = 16;
/// How long closing waits for peers to hear of it.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// How much later the next address of a host is tried: it takes few connections from one address, and
/// those that lose a race would be counted.
const PAIRING_HEAD_START: Duration = Duration::from_millis(250);

/// Room for one connection.
pub(crate) type Slot = crate::net::table::Slot<quinn::Connection>;

impl Close for quinn::Connection {
    fn close(&self) {
        Self::close(self, code(Status::REFUSED), b"");
    }
}

pub(crate) fn code(status: Status) -> VarInt {
    VarInt::from_u32(status.0.into())
}

/// Makes connections to other devices, and takes theirs.
pub struct Endpoint {
    shared: Arc<Shared>,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    accepting: AbortHandle,
}

/// What the tasks of an endpoint share.
struct Shared {
    quinn: quinn::Endpoint,
    tls: Tls,
    table: SharedTable<quinn::Connection>,
}

/// An endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The port is taken, or the system refuses. Choose another port.
    #[error("cannot listen for other devices")]
    Io(#[source] io::Error),
    /// The device's certificate is of no use. Restore the keys, or make a new library.
    #[error("the device's certificate cannot be used")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Endpoint {
    /// Listens at an address, or at any that is free, on every interface, IPv4 and IPv6.
    ///
    /// Called within a tokio runtime. `trust` is asked about every certificate.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(
        address: Option<SocketAddr>,
        identity: DeviceIdentity,
        trust: Arc<dyn Trust>,
    ) -> Result<Self, BindError> {
        let tls = Tls::new(identity, trust);
        let config = server_config(&tls).map_err(BindError::Certificate)?;
        let quinn = match address {
            Some(address) => quinn::Endpoint::client(address),
            // Some systems have no IPv6.
            None => quinn::Endpoint::client((Ipv6Addr::UNSPECIFIED, 0).into())
                .or_else(|_| quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())),
        };
        let quinn = quinn.map_err(BindError::Io)?;
        quinn.set_server_config(Some(config));
        let shared = Arc::new(Shared { quinn, tls, table: SharedTable::new() });
        let (sender, receiver) = mpsc::channel(CONNECTIONS_MAX);
        let accepting = tokio::spawn(accept_all(Arc::clone(&shared), sender)).abort_handle();
        Ok(Self { shared, accepted: Mutex::new(receiver), accepting })
    }

    /// Returns the address it listens at. The IP is unspecified if that is every interface.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.shared.quinn.local_addr()
    }

    /// Returns the next connection that another device has made, or `None` when closed.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost.
    pub async fn accept(&self) -> Option<Connection> {
        self.accepted.lock().await.recv().await
    }

    /// Connects to a peer: all candidates at once, and the first that is the peer counts.
    ///
    /// That a connection comes about does not mean that the peer trusts this device: only a signed answer
    /// does, and [`Lost::Refused`] is how it says that it does not.
    ///
    /// # Errors
    ///
    /// [`DialError`].
    pub async fn dial(
        &self,
        peer: Fingerprint,
        candidates: &[Candidate],
    ) -> Result<Connection, DialError> {
        if !self.shared.tls.trust().is_peer(peer) {
            return Err(DialError::NotTrusted);
        }
        self.race(Purpose::Sync, Some(peer), candidates).await
    }

    /// Connects to the host of a pairing. With its code the joiner knows the fingerprint; without,
    /// whoever answers is taken, and the pairing itself shows who it is.
    ///
    /// # Errors
    ///
    /// [`DialError`].
    pub async fn dial_to_pair(
        &self,
        host: Option<Fingerprint>,
        addresses: &[SocketAddr],
    ) -> Result<Connection, DialError> {
        let given = |address: &SocketAddr| Candidate { address: *address, source: Source::Given };
        let candidates: Vec<_> = addresses.iter().map(given).collect();
        self.race(Purpose::Pairing, host, &candidates).await
    }

    async fn race(
        &self,
        purpose: Purpose,
        pin: Option<Fingerprint>,
        candidates: &[Candidate],
    ) -> Result<Connection, DialError> {
        let mut attempts = JoinSet::new();
        let mut head_start = Duration::ZERO;
        for candidate in candidates.iter().take(CANDIDATES_MAX) {
            let (shared, candidate) = (Arc::clone(&self.shared), *candidate);
            attempts.spawn(async move {
                tokio::time::sleep(head_start).await;
                shared.attempt(purpose, pin, candidate).await
            });
            if purpose == Purpose::Pairing {
                head_start += PAIRING_HEAD_START;
            }
        }
        let mut failure = DialError::Unreachable;
        while let Some(attempt) = attempts.join_next().await {
            match attempt.unwrap_or(Err(DialError::Unreachable)) {
                Ok(connection) => return Ok(connection),
                // Somebody pretends: no other address is tried, and what the others say is not heard.
                Err(impostor @ DialError::Impostor { .. }) => return Err(impostor),
                Err(DialError::Unreachable) => (),
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    /// Closes every connection of a peer at once, and returns how many there were.
    ///
    /// Called when the peer is trusted no more, after [`Trust`] says so: what comes later is refused.
    pub fn disconnect(&self, peer: Fingerprint) -> usize {
        self.shared.table.close_peer(peer)
    }

    /// Returns how many connections there are, those included that are not done with their handshake.
    pub fn connections(&self) -> usize {
        self.shared.table.len()
    }

    /// Closes everything, and waits a moment until the peers have heard of it.
    pub async fn close(&self) {
        self.accepting.abort();
        self.shared.quinn.close(code(Status::OK), b"");
        // A peer that does not answer finds out by itself.
        let _heard = timeout(CLOSE_TIME_MAX, self.shared.quinn.wait_idle()).await;
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.quinn.close(code(Status::OK), b"");
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// Where a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Address and port.
    pub address: SocketAddr,
    /// Who says so.
    pub source: Source,
}

impl Candidate {
    /// Makes a candidate.
    pub fn new(address: SocketAddr, source: Source) -> Self {
        Self { address, source }
    }
}

/// Who says that a peer is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// An announcement with a tag of the peer: whoever else is there pretends to be it.
    Announced,
    /// It was there before. Addresses are given to others, so somebody else there means nothing.
    Known,
    /// A person says so, or a QR code.
    Given,
}

/// A peer could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody answers at any of the addresses. Try again later, or with another address.
    #[error("no address answers")]
    Unreachable,
    /// Another device is at the address. Try another address.
    #[error("another device answers")]
    SomebodyElse {
        /// Its fingerprint.
        presented: Fingerprint,
    },
    /// Another device is where the peer's tag was announced. Nothing was sent to it. Deactivate the peer.
    #[error("another device answers in the name of the peer")]
    Impostor {
        /// Its fingerprint.
        presented: Fingerprint,
    },
    /// The peer is not trusted, or no more. Pair again.
    #[error("the peer is not trusted")]
    NotTrusted,
    /// There are too many connections. Try again when some are closed.
    #[error("there are {CONNECTIONS_MAX} connections already")]
    TooMany,
}

impl Shared {
    async fn attempt(
        &self,
        purpose: Purpose,
        pin: Option<Fingerprint>,
        candidate: Candidate,
    ) -> Result<Connection, DialError> {
        let ip = candidate.address.ip().to_canonical();
        let slot = self.table.call(ip).ok_or(DialError::TooMany)?;
        let (config, verifier) =
            self.tls.client(purpose, pin).map_err(|_| DialError::Unreachable)?;
        let crypto = QuicClientConfig::try_from(config).map_err(|_| DialError::Unreachable)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport(purpose, Side::Calling));
        // A token would tell whoever listens that it is the same device again.
        config.token_store(Arc::new(NoneTokenStore));
        let connecting = self.quinn.connect_with(config, candidate.address, SUBJECT);
        let connecting = connecting.map_err(|_| DialError::Unreachable)?;
        match timeout(HANDSHAKE_TIME_MAX, connecting).await {
            Ok(Ok(quinn)) => self.opened(slot, quinn, purpose).ok_or(DialError::NotTrusted),
            Err(_) | Ok(Err(_)) => Err(match (verifier.presented(), candidate.source) {
                (Some(presented), _) if Some(presented) == pin || pin.is_none() => {
                    DialError::Unreachable
                }
                (Some(presented), Source::Announced) => DialError::Impostor { presented },
                (Some(presented), Source::Known | Source::Given) => {
                    DialError::SomebodyElse { presented }
                }
                (None, _) => DialError::Unreachable,
            }),
        }
    }

    /// Looks once more at who is there, now that the handshake is over.
    fn opened(&self, slot: Slot, quinn: quinn::Connection, purpose: Purpose) -> Option<Connection> {
        let peer = peer_of(&quinn);
        let trust = self.tls.trust();
        let may_stay = |peer| slot.open(peer, purpose, &quinn, trust, Instant::now());
        let Some(peer) = peer.filter(|peer| may_stay(*peer)) else {
            Close::close(&quinn);
            return None;
        };
        if purpose == Purpose::Sync {
            quinn.set_max_concurrent_bi_streams(STREAMS_MAX);
        }
        Some(Connection { quinn, slot: Arc::new(slot), peer, purpose })
    }

    async fn answer(&self, incoming: quinn::Incoming, slot: Slot) -> Option<Connection> {
        let config = server_config(&self.tls).ok()?;
        let connecting = incoming.accept_with(Arc::new(config)).ok()?;
        let quinn = timeout(HANDSHAKE_TIME_MAX, connecting).await.ok()?.ok()?;
        let data = quinn.handshake_data()?.downcast::<HandshakeData>().ok()?;
        let purpose = Purpose::of_alpn(&data.protocol?)?;
        self.opened(slot, quinn, purpose)
    }
}

/// Takes callers until the endpoint is closed.
async fn accept_all(shared: Arc<Shared>, accepted: mpsc::Sender<Connection>) {
    while let Some(incoming) = shared.quinn.accept().await {
        let caller = Caller {
            address: incoming.remote_address().ip().to_canonical(),
            proved: incoming.remote_address_validated(),
            may_prove: incoming.may_retry(),
        };
        match shared.table.called(caller) {
            Verdict::Accept(slot) => {
                let (shared, accepted) = (Arc::clone(&shared), accepted.clone());
                tokio::spawn(async move {
                    if let Some(connection) = shared.answer(incoming, slot).await {
                        // Fails only when nobody asks for connections any more.
                        let _nobody_asks = accepted.send(connection).await;
                    }
                });
            }
            Verdict::Prove => {
                // Fails only for callers that were asked already, and those are not.
                let _asked_once = incoming.retry();
            }
            Verdict::Refuse => incoming.refuse(),
            Verdict::Ignore => incoming.ignore(),
        }
    }
}

fn peer_of(quinn: &quinn::Connection) -> Option<Fingerprint> {
    let chain = quinn.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match chain.as_slice() {
        [leaf] => Some(Fingerprint::of_certificate(leaf)),
        _ => None,
    }
}

fn server_config(tls: &Tls) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let crypto = QuicServerConfig::try_from(tls.server()?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .transport_config(transport(Purpose::Pairing, Side::Called))
        .validation_token_config(tokens)
        .migration(false)
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(CALLER_BYTES_MAX)
        .incoming_buffer_size_total(CALLERS_BYTES_MAX);
    Ok(config)
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Calling,
    Called,
}

fn transport(purpose: Purpose, side: Side) -> Arc<TransportConfig> {
    let (streams, keep_alive) = match (side, purpose) {
        (Side::Calling, Purpose::Sync) => (STREAMS_MAX, Some(KEEP_ALIVE)),
        (Side::Calling, Purpose::Pairing) => (STREAMS_OF_A_STRANGER_MAX, Some(KEEP_ALIVE)),
        (Side::Called, Purpose::Sync | Purpose::Pairing) => (STREAMS_OF_A_STRANGER_MAX, None),
    };
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(streams)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(STREAM_WINDOW_BYTES)
        .receive_window(RECEIVE_WINDOW_BYTES)
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(IDLE_MS_MAX)))
        .keep_alive_interval(keep_alive)
        .allow_spin(false);
    Arc::new(config)
}

/// A connection to another device whose certificate was checked. It is closed when the last of it and
/// its streams is dropped.
#[derive(Debug, Clone)]
pub struct Connection {
    quinn: quinn::Connection,
    slot: Arc<Slot>,
    peer: Fingerprint,
    purpose: Purpose,
}

/// Why a connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The peer does not know this device's certificate, or no more. Pair again.
    #[error("the peer does not know this device")]
    Refused,
    /// The peer closed it.
    #[error("closed by the peer, code {code:#x}")]
    Closed {
        /// What it said.
        code: u64,
    },
    /// Nothing came for too long.
    #[error("the peer is gone")]
    Silent,
    /// This side closed it.
    #[error("closed here")]
    Here,
    /// The other side breaks the rules of QUIC or TLS.
    #[error("the connection is broken")]
    Broken,
}

impl Lost {
    /// Only of connections that came about: before that, an alert proves nothing.
    pub(crate) fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::Closed { code: close.error_code.into_inner() }
            }
            ConnectionError::ConnectionClosed(close)
                if u64::from(close.error_code) == NOT_KNOWN =>
            {
                Self::Refused
            }
            ConnectionError::TimedOut | ConnectionError::Reset => Self::Silent,
            ConnectionError::LocallyClosed => Self::Here,
            ConnectionError::ConnectionClosed(_)
            | ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::CidsExhausted => Self::Broken,
        }
    }
}

/// What a verifier's refusal becomes on the wire: QUIC's range for TLS alerts, and `access_denied`.
const NOT_KNOWN: u64 = 0x100 + 49;

impl Connection {
    /// Returns whose certificate is at the other end.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// Returns what the connection is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Returns where the other end is.
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.quinn.remote_address();
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => (ip, address.port()).into(),
            IpAddr::V6(_) => address,
        }
    }

    /// Returns a value that only the two ends of this TLS session know.
    ///
    /// # Errors
    ///
    /// [`Lost`] if there is no session.
    pub fn exporter(&self, label: &[u8], context: &[u8]) -> Result<[u8; EXPORTER_BYTES], Lost> {
        let mut value = [0; EXPORTER_BYTES];
        let exported = self.quinn.export_keying_material(&mut value, label, context);
        exported.map(|()| value).map_err(|_| Lost::Broken)
    }

    /// Opens a stream. The peer learns of it with the first byte.
    ///
    /// # Errors
    ///
    /// [`Lost`].
    pub async fn open(&self) -> Result<Stream, Lost> {
        let stream = self.quinn.open_bi().await.map_err(|error| Lost::of(&error))?;
        Ok(Stream::new(stream, Arc::clone(&self.slot)))
    }

    /// Waits for a stream that the peer opens.
    ///
    /// # Errors
    ///
    /// [`Lost`].
    ///
    /// # Cancel safety
    ///
    /// No stream is lost.
    pub async fn accept(&self) -> Result<Stream, Lost> {
        let stream = self.quinn.accept_bi().await.map_err(|error| Lost::of(&error))?;
        Ok(Stream::new(stream, Arc::clone(&self.slot)))
    }

    /// Waits until the connection is gone, and returns why.
    pub async fn closed(&self) -> Lost {
        Lost::of(&self.quinn.closed().await)
    }

    /// Closes the connection, with a code for the peer and nothing else.
    pub fn close(&self, status: Status) {
        self.quinn.close(code(status), b"");
    }
}

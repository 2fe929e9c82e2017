//! Devices to connect, and strangers that show and say whatever they like.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catchword::net::{Candidate, Connection, DeviceIdentity, Endpoint, Source, Trust};
use catchword::{DEVICE_KEY, FileKeyStore, KeyStore as _, Secret};
use catchword_model::identity::Fingerprint;
use ed25519_dalek::{Signer as _, SigningKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

pub(crate) const SYNC: &[u8] = b"catchword-sync/1";
pub(crate) const PAIRING: &[u8] = b"catchword-pair/1";
const NAME: &str = "catchword.invalid";

/// Whom a device trusts, as its store would say.
#[derive(Debug, Default)]
pub(crate) struct Friends {
    peers: Mutex<BTreeSet<Fingerprint>>,
    pairing: AtomicBool,
    asked: AtomicUsize,
}

impl Friends {
    pub(crate) fn add(&self, peer: Fingerprint) {
        self.peers.lock().unwrap().insert(peer);
    }

    pub(crate) fn remove(&self, peer: Fingerprint) {
        self.peers.lock().unwrap().remove(&peer);
    }

    pub(crate) fn open_pairing(&self, open: bool) {
        self.pairing.store(open, Ordering::SeqCst);
    }

    /// How often anybody asked whether somebody is a peer.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Trust for Friends {
    fn is_peer(&self, fingerprint: Fingerprint) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.peers.lock().unwrap().contains(&fingerprint)
    }

    fn is_pairing(&self) -> bool {
        self.pairing.load(Ordering::SeqCst)
    }
}

/// A device that listens on loopback.
pub(crate) struct Device {
    pub(crate) endpoint: Endpoint,
    pub(crate) friends: Arc<Friends>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) address: SocketAddr,
    seed: u8,
}

impl Device {
    pub(crate) fn new(seed: u8) -> Self {
        Self::listening(seed, Some((Ipv4Addr::LOCALHOST, 0).into()))
    }

    pub(crate) fn listening(seed: u8, at: Option<SocketAddr>) -> Self {
        let (_, identity) = identity_of(seed);
        let fingerprint = identity.fingerprint();
        let friends = Arc::new(Friends::default());
        let trust = Arc::clone(&friends) as Arc<dyn Trust>;
        let endpoint = Endpoint::bind(at, identity, trust).unwrap();
        let address = endpoint.local_address().unwrap();
        Self { endpoint, friends, fingerprint, address, seed }
    }

    /// Two devices that trust each other.
    pub(crate) fn pair() -> (Self, Self) {
        let (one, other) = (Self::new(1), Self::new(2));
        one.friends.add(other.fingerprint);
        other.friends.add(one.fingerprint);
        (one, other)
    }

    /// Where others find this device.
    pub(crate) fn candidate(&self, source: Source) -> [Candidate; 1] {
        [Candidate::new(self.address, source)]
    }

    /// Connects to another device; returns both ends.
    pub(crate) async fn connect(&self, other: &Self) -> (Connection, Connection) {
        let candidates = other.candidate(Source::Known);
        let dialled = self.endpoint.dial(other.fingerprint, &candidates);
        let (mine, theirs) = tokio::join!(dialled, other.endpoint.accept());
        (mine.unwrap(), theirs.unwrap())
    }

    /// Returns what this device shows.
    pub(crate) fn shown(&self) -> Shown {
        Shown { chain: vec![identity_of(self.seed).0], key: key(self.seed) }
    }

    /// Returns whether somebody was let in since the last call.
    pub(crate) async fn let_somebody_in(&self) -> bool {
        let accepted = tokio::time::timeout(Duration::from_millis(50), self.endpoint.accept());
        accepted.await.is_ok()
    }
}

/// The certificate of a device, and what it listens with.
fn identity_of(seed: u8) -> (CertificateDer<'static>, DeviceIdentity) {
    let folder = tempfile::tempdir().unwrap();
    let keys = FileKeyStore::new(folder.path().join("keys"));
    keys.store(DEVICE_KEY, &Secret::new([seed; 32])).unwrap();
    let identity = DeviceIdentity::load_or_make(&keys).unwrap();
    (keys.load_certificate().unwrap().unwrap().into(), identity)
}

/// A key that signs whatever it is asked for.
pub(crate) fn key(seed: u8) -> Arc<dyn rustls::sign::SigningKey> {
    Arc::new(PlainKey(SigningKey::from_bytes(&[seed; 32])))
}

#[derive(Debug)]
struct PlainKey(SigningKey);

impl rustls::sign::SigningKey for PlainKey {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self(self.0.clone())))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for PlainKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A key in a file, which signs by one scheme whether it was offered or not.
pub(crate) fn stubborn_key(
    pkcs8: &'static [u8],
    scheme: SignatureScheme,
) -> Arc<dyn rustls::sign::SigningKey> {
    let pkcs8 = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8));
    let key = rustls::crypto::ring::sign::any_supported_type(&pkcs8).unwrap();
    Arc::new(Stubborn { key, scheme })
}

#[derive(Debug)]
struct Stubborn {
    key: Arc<dyn rustls::sign::SigningKey>,
    scheme: SignatureScheme,
}

impl rustls::sign::SigningKey for Stubborn {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.key.choose_scheme(&[self.scheme])
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

/// What somebody shows in a handshake: certificates, and a key that may not be theirs.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<dyn rustls::sign::SigningKey>,
}

impl Shown {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_certificate(&self.chain[0])
    }

    /// A certificate whose dates are over.
    pub(crate) fn expired(seed: u8) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(1.into());
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let issuer = Issuer::new(seed);
        let certificate = params.self_signed(&issuer).unwrap();
        Self { chain: vec![certificate.der().clone()], key: key(seed) }
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        Arc::new(CertifiedKey::new(self.chain.clone(), Arc::clone(&self.key)))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

/// Signs certificates.
struct Issuer {
    key: SigningKey,
    public: [u8; 32],
}

impl Issuer {
    fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = key.verifying_key().to_bytes();
        Self { key, public }
    }
}

impl rcgen::PublicKeyData for Issuer {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Issuer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }
}

/// Believes everything.
#[derive(Debug)]
struct Gullible;

const EVERY_SCHEME: [SignatureScheme; 3] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::RSA_PSS_SHA256,
];

macro_rules! believe_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            EVERY_SCHEME.to_vec()
        }
    };
}

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    believe_signatures!();
}

impl ClientCertVerifier for Gullible {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    believe_signatures!();
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A caller that believes everything, remembers every session, and would send early data.
pub(crate) fn caller(shown: Option<Shown>, protocols: &[&[u8]]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(Arc::new(shown)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(16)));
    config.enable_early_data = true;
    config
}

/// Calls from a socket of its own. What is returned came about for the caller, whatever the other side
/// thinks of it.
pub(crate) fn call(config: ClientConfig, to: SocketAddr) -> (quinn::Endpoint, quinn::Connecting) {
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let crypto = QuicClientConfig::try_from(config).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint.connect_with(config, to, NAME).unwrap();
    (endpoint, connecting)
}

/// Calls a device, tries to send something, and returns how it was refused.
pub(crate) async fn refused(config: ClientConfig, device: &Device) -> quinn::ConnectionError {
    let (_endpoint, connecting) = call(config, device.address);
    let error = match connecting.await {
        Err(error) => error,
        Ok(connection) => {
            if let Ok((mut send, _)) = connection.open_bi().await {
                let _refused = send.write_all(b"let me in").await;
            }
            connection.closed().await
        }
    };
    assert!(!device.let_somebody_in().await, "{error}");
    error
}

/// Answers in somebody's place, and counts what it is told.
pub(crate) struct Impostor {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    endpoint: quinn::Endpoint,
}

impl Impostor {
    pub(crate) fn new(shown: Shown) -> Self {
        Self::with(answering(shown))
    }

    pub(crate) fn with(config: ServerConfig) -> Self {
        let crypto = QuicServerConfig::try_from(config).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (connections, bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counters = (Arc::clone(&connections), Arc::clone(&bytes));
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                counters.0.fetch_add(1, Ordering::SeqCst);
                let bytes = Arc::clone(&counters.1);
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    while let Ok((_send, mut receive)) = connection.accept_bi().await {
                        let read = receive.read_to_end(1 << 20).await.unwrap_or_default();
                        bytes.fetch_add(read.len(), Ordering::SeqCst);
                    }
                });
            }
        });
        Self { address, connections, bytes, endpoint }
    }

    /// How often it was called, and how much it was told.
    pub(crate) async fn heard(&self) -> (usize, usize) {
        // Whoever was refused has said so before.
        self.endpoint.wait_idle().await;
        (self.connections.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }
}

/// Somebody who answers, believes everything, and gives out tickets for early data.
pub(crate) fn answering(shown: Shown) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Gullible))
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![SYNC.to_vec(), PAIRING.to_vec()];
    config.max_early_data_size = u32::MAX;
    config
}

//! TLS between devices: version 1.3, pinned certificates on both sides, nothing remembered.
//!
//! # Invariants
//!
//! 1. A certificate is accepted because of its fingerprint, never because of who signed it, its name or
//!    its dates.
//! 2. Whoever shows a certificate has also signed the handshake with its key.
//! 3. Every connection shows and checks certificates anew: no tickets, no resumption, no early data. A
//!    resumed session would skip the check, and a revoked device would come back.
//! 4. The peers of this device do not show in what it sends before the handshake is over.
//!
//! # What is not here
//!
//! Who is a peer: [`Trust`] says so.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use catchword_model::identity::Fingerprint;
use catchword_proto::pairing;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, PeerMisbehaved, ServerConfig, SignatureScheme,
};

use crate::net::DeviceIdentity;

/// Names the protocol of paired devices.
pub(crate) const ALPN_SYNC: &[u8] = b"catchword-sync/1";

/// What a handshake may be signed with: the keys that devices and their platforms have.
const SCHEMES: [SignatureScheme; 2] =
    [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];

/// Who may connect. Asked in the middle of every handshake and again after it, so answers come from
/// memory.
pub trait Trust: fmt::Debug + Send + Sync {
    /// Returns whether this is the fingerprint of a peer that is active, or provisional.
    fn is_peer(&self, fingerprint: Fingerprint) -> bool;

    /// Returns whether a pairing is open, so that a stranger may connect to pair.
    fn is_pairing(&self) -> bool;
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// Requests between paired devices.
    Sync,
    /// Pairing with a device that is not known yet.
    Pairing,
}

impl Purpose {
    pub(crate) const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Sync => ALPN_SYNC,
            Self::Pairing => pairing::ALPN,
        }
    }

    pub(crate) fn of_alpn(protocol: &[u8]) -> Option<Self> {
        [Self::Sync, Self::Pairing].into_iter().find(|purpose| purpose.alpn() == protocol)
    }
}

/// Makes the configuration of each connection.
#[derive(Debug)]
pub(crate) struct Tls {
    identity: DeviceIdentity,
    trust: Arc<dyn Trust>,
    provider: Arc<CryptoProvider>,
}

impl Tls {
    pub(crate) fn new(identity: DeviceIdentity, trust: Arc<dyn Trust>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { identity, trust, provider }
    }

    pub(crate) fn trust(&self) -> &dyn Trust {
        &*self.trust
    }

    /// Returns the configuration for one caller. Another caller may want something else, and whose
    /// certificate is accepted depends on what this one wants.
    pub(crate) fn server(&self) -> Result<ServerConfig, Error> {
        let wanted = Arc::new(Wanted::default());
        let accepts = Accepts::Callers(Arc::clone(&self.trust), Arc::clone(&wanted));
        let presents = Presents { certified: Arc::clone(self.identity.certified()), wanted };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(self.verifier(accepts)))
            .with_cert_resolver(Arc::new(presents));
        let open = [Some(Purpose::Sync), self.trust.is_pairing().then_some(Purpose::Pairing)];
        config.alpn_protocols =
            open.into_iter().flatten().map(|purpose| purpose.alpn().to_vec()).collect();
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// Returns the configuration for one call, and what will know whom it reached. Without a pin anybody
    /// is accepted, as the joiner of a pairing must who has not seen the host's code.
    pub(crate) fn client(
        &self,
        purpose: Purpose,
        pin: Option<Fingerprint>,
    ) -> Result<(ClientConfig, Arc<Verifier>), Error> {
        let verifier = Arc::new(self.verifier(pin.map_or(Accepts::Anybody, Accepts::Pinned)));
        let presents = Presents {
            certified: Arc::clone(self.identity.certified()),
            wanted: Arc::new(Wanted::default()),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::new(presents));
        config.alpn_protocols = vec![purpose.alpn().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok((config, verifier))
    }

    fn verifier(&self, accepts: Accepts) -> Verifier {
        Verifier { accepts, provider: Arc::clone(&self.provider), presented: OnceLock::new() }
    }
}

/// What a caller has asked for, known from its first message on.
#[derive(Debug, Default)]
struct Wanted(Mutex<Option<Purpose>>);

impl Wanted {
    fn set(&self, purpose: Option<Purpose>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = purpose;
    }

    fn get(&self) -> Option<Purpose> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows the device's certificate.
#[derive(Debug)]
struct Presents {
    certified: Arc<CertifiedKey>,
    wanted: Arc<Wanted>,
}

impl ResolvesServerCert for Presents {
    /// A caller names one protocol: whose certificate is accepted must not depend on which of several
    /// would be chosen.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut offered = hello.alpn().into_iter().flatten();
        let only = if let (Some(only), None) = (offered.next(), offered.next()) {
            Purpose::of_alpn(only)
        } else {
            None
        };
        self.wanted.set(only);
        only.map(|_| Arc::clone(&self.certified))
    }
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whose certificate is accepted.
#[derive(Debug)]
enum Accepts {
    /// The device with this fingerprint.
    Pinned(Fingerprint),
    /// Whoever answers, to pair.
    Anybody,
    /// Peers for sync, and anybody for a pairing while one is open.
    Callers(Arc<dyn Trust>, Arc<Wanted>),
}

/// Checks the certificate of the other side, in either role.
#[derive(Debug)]
pub(crate) struct Verifier {
    accepts: Accepts,
    provider: Arc<CryptoProvider>,
    presented: OnceLock<Fingerprint>,
}

impl Verifier {
    /// Returns whose certificate was shown, accepted or not; `None` if none was.
    pub(crate) fn presented(&self) -> Option<Fingerprint> {
        self.presented.get().copied()
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let fingerprint = Fingerprint::of_certificate(leaf);
        let shown = *self.presented.get_or_init(|| fingerprint);
        let accepted = intermediates.is_empty()
            && shown == fingerprint
            && match &self.accepts {
                Accepts::Pinned(pin) => *pin == fingerprint,
                Accepts::Anybody => true,
                Accepts::Callers(trust, wanted) => match wanted.get() {
                    Some(Purpose::Sync) => trust.is_peer(fingerprint),
                    Some(Purpose::Pairing) => trust.is_pairing(),
                    None => false,
                },
            };
        if !accepted || ParsedCertificate::try_from(leaf).is_err() {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }

    fn check_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !SCHEMES.contains(&signed.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }
}

/// How signatures are checked, on either side: rustls has two traits that ask alike.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.check_signature(message, leaf, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            SCHEMES.to_vec()
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, intermediates).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    /// Empty, so that no list of peers leaks.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, intermediates).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::keys::FileKeyStore;

    #[derive(Debug)]
    struct Everybody;

    impl Trust for Everybody {
        fn is_peer(&self, _: Fingerprint) -> bool {
            true
        }

        fn is_pairing(&self) -> bool {
            true
        }
    }

    fn tls() -> (tempfile::TempDir, Tls) {
        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        let identity = DeviceIdentity::load_or_make(&keys).unwrap();
        (folder, Tls::new(identity, Arc::new(Everybody)))
    }

    /// Carries a handshake in memory, and returns how it ended for the one who is called.
    fn handshake(config: ClientConfig, server: ServerConfig) -> Result<(), Error> {
        let name = crate::net::certificate::SUBJECT.try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    /// QUIC has no older version, so that the version is ours to refuse shows without it only.
    #[test]
    fn t_tls_3_an_older_version_is_refused() {
        let (_folder, tls) = tls();
        let verifier = Arc::new(tls.verifier(Accepts::Anybody));
        let older = |version| {
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&tls.provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
                .with_client_cert_resolver(Arc::new(Presents {
                    certified: Arc::clone(tls.identity.certified()),
                    wanted: Arc::default(),
                }));
            config.alpn_protocols = vec![ALPN_SYNC.to_vec()];
            config
        };

        let refused = handshake(older(&rustls::version::TLS12), tls.server().unwrap());
        assert!(matches!(refused, Err(Error::PeerIncompatible(_))), "{refused:?}");
        handshake(older(&rustls::version::TLS13), tls.server().unwrap()).unwrap();
    }

    #[test]
    fn nothing_is_remembered_and_no_name_is_sent() {
        let (_folder, tls) = tls();
        let server = tls.server().unwrap();
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
        assert!(!server.session_storage.can_cache());
        assert!(!server.ticketer.enabled());

        let (client, verifier) = tls.client(Purpose::Sync, Some(Fingerprint([1; 32]))).unwrap();
        assert!(!client.enable_early_data && !client.enable_sni);
        assert_eq!(verifier.presented(), None);
        assert!(ClientCertVerifier::root_hint_subjects(&*verifier).is_empty());
    }
}

//! The certificate by which other devices know this one.
//!
//! Its content is a function of the key alone, and it is kept besides, so that a library shows the same
//! certificate at every start, also after the program that makes certificates has changed.

use std::fmt;
use std::sync::Arc;

use catchword_model::identity::Fingerprint;
use ed25519_dalek::{Signer as _, SigningKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData, SanType, SerialNumber};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer};
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::keys::{self, KeyError, KeyStore, Secret};

/// The name in every certificate: it says nothing, and no resolver knows it.
pub(crate) const SUBJECT: &str = "catchword.invalid";

/// Nobody checks the dates, since devices have wrong clocks; other programs should not stumble over
/// them either.
const NOT_BEFORE_YEAR: i32 = 1975;
const NOT_AFTER_YEAR: i32 = 9999;

/// This device as others see it: its certificate, and the key that stands behind it.
#[derive(Clone)]
pub struct DeviceIdentity {
    certified: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl DeviceIdentity {
    /// Loads the identity of a device; the first time it is made, and kept before it is returned.
    ///
    /// A certificate of another key is replaced: its device is gone with the key.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn load_or_make(store: &dyn KeyStore) -> Result<Self, KeyError> {
        let key = Arc::new(DeviceKey::new(&keys::load_or_make(store)?));
        if let Some(der) = store.load_certificate()?
            && let Some(identity) = Self::of(&key, der)
        {
            return Ok(identity);
        }
        let der = certificate(&key);
        store.store_certificate(&der)?;
        Self::of(&key, der).ok_or(KeyError::Damaged)
    }

    /// Returns `None` if it is the certificate of another key.
    fn of(key: &Arc<DeviceKey>, der: Vec<u8>) -> Option<Self> {
        let fingerprint = Fingerprint::of_certificate(&der);
        let key = Arc::clone(key) as Arc<dyn rustls::sign::SigningKey>;
        let certified = CertifiedKey::new(vec![CertificateDer::from(der)], key);
        certified.keys_match().ok()?;
        Some(Self { certified: Arc::new(certified), fingerprint })
    }

    /// Returns the name of this device among its peers.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// The key is left out.
impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceIdentity({})", self.fingerprint)
    }
}

/// Signs certificates and handshakes. The key is wiped when the last of its users is gone.
struct DeviceKey {
    key: SigningKey,
    public: [u8; 32],
    spki: Vec<u8>,
}

impl DeviceKey {
    fn new(secret: &Secret) -> Self {
        let public = keys::public_key(secret);
        Self {
            key: SigningKey::from_bytes(secret.expose()),
            public: public.to_bytes(),
            spki: public.to_spki().to_vec(),
        }
    }
}

fn certificate(key: &DeviceKey) -> Vec<u8> {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, SUBJECT);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = rcgen::date_time_ymd(NOT_BEFORE_YEAR, 1, 1);
    params.not_after = rcgen::date_time_ymd(NOT_AFTER_YEAR, 12, 31);
    // One certificate is ever made under this name and key.
    params.serial_number = Some(SerialNumber::from(1));
    let subject = SUBJECT.try_into().expect("the name is ASCII");
    params.subject_alt_names = vec![SanType::DnsName(subject)];
    let certificate = params.self_signed(key).expect("everything a certificate needs is set");
    certificate.der().to_vec()
}

impl PublicKeyData for DeviceKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for DeviceKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }
}

impl rustls::sign::SigningKey for DeviceKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = || Box::new(HandshakeSigner(self.key.clone())) as Box<dyn Signer>;
        offered.contains(&SignatureScheme::ED25519).then(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki.as_slice()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

/// The key is left out.
impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(..)")
    }
}

/// Signs one handshake.
struct HandshakeSigner(SigningKey);

impl Signer for HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// The key is left out.
impl fmt::Debug for HandshakeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeSigner(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{CERTIFICATE_BYTES_MAX, DEVICE_KEY, FileKeyStore};

    fn store() -> (tempfile::TempDir, FileKeyStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = FileKeyStore::new(folder.path().join("keys"));
        (folder, store)
    }

    #[test]
    fn the_same_library_shows_the_same_certificate_at_every_start() {
        let (_folder, store) = store();
        let first = DeviceIdentity::load_or_make(&store).unwrap();
        let second = DeviceIdentity::load_or_make(&store).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.certified().cert, second.certified().cert);
    }

    /// Peers know a device by these bytes: a program that makes others would make strangers of all.
    #[test]
    fn a_certificate_is_a_function_of_its_key() {
        let key = DeviceKey::new(&Secret::new([7; 32]));
        let der = certificate(&key);
        let fingerprint = Fingerprint::of_certificate(&der).to_string();
        assert_eq!(fingerprint, "4376c5f1f34f0162e50fd8983bd1bbeb2e0121a56a54987281b4a7ab176c660a");
        assert!(der.len() <= CERTIFICATE_BYTES_MAX);
    }

    /// What was kept counts, whatever would be made today.
    #[test]
    fn a_certificate_that_was_kept_is_not_made_again() {
        let (_folder, store) = store();
        store.store(DEVICE_KEY, &Secret::new([7; 32])).unwrap();
        let key = Arc::new(DeviceKey::new(&Secret::new([7; 32])));
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(2));
        let kept = params.self_signed(&*key).unwrap().der().to_vec();
        store.store_certificate(&kept).unwrap();

        let identity = DeviceIdentity::load_or_make(&store).unwrap();
        assert_eq!(identity.fingerprint(), Fingerprint::of_certificate(&kept));
    }

    #[test]
    fn a_certificate_of_another_key_is_replaced() {
        let (_folder, store) = store();
        let before = DeviceIdentity::load_or_make(&store).unwrap();
        store.store(DEVICE_KEY, &Secret::new([7; 32])).unwrap();

        let after = DeviceIdentity::load_or_make(&store).unwrap();
        assert_ne!(after.fingerprint(), before.fingerprint());
        let kept = store.load_certificate().unwrap().unwrap();
        assert_eq!(after.fingerprint(), Fingerprint::of_certificate(&kept));
    }

    #[test]
    fn an_identity_does_not_print_its_key() {
        let (_folder, store) = store();
        let identity = DeviceIdentity::load_or_make(&store).unwrap();
        assert_eq!(format!("{identity:?}"), format!("DeviceIdentity({})", identity.fingerprint()));
        assert_eq!(format!("{:?}", identity.certified().key), "DeviceKey(..)");
    }
}

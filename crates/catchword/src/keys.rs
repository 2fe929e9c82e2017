//! Where a device keeps its secrets: the [`KeyStore`] trait, and a default that uses files.
//!
//! # Invariants
//!
//! 1. A secret is wiped from memory when it is dropped, and never printed.
//! 2. A file that others may read is not used: [`KeyError::Exposed`].
//! 3. A secret is either in its file completely or not at all, after a crash at any moment.
//!
//! # What is not here
//!
//! The keychains of platforms: an application that has one implements [`KeyStore`] for it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use catchword_model::identity::PublicKey;
use catchword_store::Signer;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Name of the secret from which the device's signing key is made.
pub const DEVICE_KEY: &str = "device";

/// Length of a secret, in bytes.
pub const SECRET_BYTES: usize = 32;

/// Longest certificate that is kept, in bytes; those that devices make have a tenth of it.
pub const CERTIFICATE_BYTES_MAX: usize = 4_096;

/// The file of the certificate. No secret can have its name, since names have no dot.
const CERTIFICATE_FILE: &str = "certificate.der";

/// First byte of a key file: the version of its form.
const FILE_VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const FILE_BYTES_MAX: usize = 1 + CERTIFICATE_BYTES_MAX + CHECKSUM_BYTES;

/// A place where a device keeps its secrets: files, or the keychain of a platform.
///
/// A name is a short word of lower-case letters, digits and hyphens. Implementations are called from
/// any thread, and rarely: when a library is opened or created.
pub trait KeyStore: fmt::Debug + Send + Sync {
    /// Returns the secret of this name, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; nothing is changed.
    fn load(&self, name: &str) -> Result<Option<Secret>, KeyError>;

    /// Keeps a secret under a name, and returns when it is durable. An earlier one is replaced.
    ///
    /// # Errors
    ///
    /// [`KeyError::Io`]; an earlier secret is still there.
    fn store(&self, name: &str, secret: &Secret) -> Result<(), KeyError>;

    /// Deletes the secret of this name, and returns when it is gone for good. There need not be one.
    ///
    /// # Errors
    ///
    /// [`KeyError::Io`]; the secret may still be there.
    fn remove(&self, name: &str) -> Result<(), KeyError>;

    /// Returns the device's certificate, DER-encoded, or `None` if none was kept.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; nothing is changed.
    fn load_certificate(&self) -> Result<Option<Vec<u8>>, KeyError>;

    /// Keeps the device's certificate, at most [`CERTIFICATE_BYTES_MAX`] long, and returns when it is
    /// durable. An earlier one is replaced.
    ///
    /// Peers know the device by the bytes of its certificate, so they are kept as they are and with the
    /// same care as the key, although they are no secret.
    ///
    /// # Errors
    ///
    /// [`KeyError::Io`]; an earlier certificate is still there.
    fn store_certificate(&self, der: &[u8]) -> Result<(), KeyError>;
}

/// 32 secret bytes, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

impl Secret {
    /// Takes over secret bytes. The caller wipes its own copy.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Draws a secret from the operating system.
    ///
    /// # Errors
    ///
    /// [`KeyError::Io`] if the operating system has no random numbers.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut *bytes).map_err(|error| KeyError::Io(io::Error::other(error)))?;
        Ok(Self(bytes))
    }

    /// Returns the secret bytes.
    pub fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

/// The bytes are left out.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A secret could not be loaded or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Others may read the key file or its folder, so the key may be known. Take the permissions
    /// away if nobody else had access, or make a new library.
    #[error("others may read the keys (permissions {mode:o})")]
    Exposed {
        /// The permissions that were found.
        mode: u32,
    },
    /// The key file is not one. Restore it, or delete it and continue as a new device.
    #[error("the key file is damaged")]
    Damaged,
    /// The disk refused, or the platform's keychain did.
    #[error("cannot read or write the keys")]
    Io(#[source] io::Error),
}

/// Keeps each secret in a file of its own, in a folder that only its owner may open.
#[derive(Debug, Clone)]
pub struct FileKeyStore {
    folder: PathBuf,
}

impl FileKeyStore {
    /// Makes a key store in a folder, which is made when the first secret is kept.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(KeyError::Io(error)),
        };
        refuse_exposed(&fs::metadata(&self.folder).map_err(KeyError::Io)?)?;
        refuse_exposed(&file.metadata().map_err(KeyError::Io)?)?;
        // The whole capacity at once: what grows leaves copies of a secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * FILE_BYTES_MAX));
        let limit = u64::try_from(FILE_BYTES_MAX + 1).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut bytes).map_err(KeyError::Io)?;
        Ok(Some(bytes))
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        make_private_folder(&self.folder)?;
        let path = self.path(name);
        let beside = path.with_extension("new");
        write_private(&beside, &encode(content))?;
        fs::rename(&beside, &path)?;
        sync_folder(&self.folder)
    }
}

impl KeyStore for FileKeyStore {
    fn load(&self, name: &str) -> Result<Option<Secret>, KeyError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let secret = decode(&bytes)?.try_into().map_err(|_| KeyError::Damaged)?;
        Ok(Some(Secret::new(secret)))
    }

    fn store(&self, name: &str, secret: &Secret) -> Result<(), KeyError> {
        self.write(name, secret.expose()).map_err(KeyError::Io)
    }

    fn remove(&self, name: &str) -> Result<(), KeyError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.and_then(|()| sync_folder(&self.folder)).map_err(KeyError::Io),
        }
    }

    fn load_certificate(&self) -> Result<Option<Vec<u8>>, KeyError> {
        let Some(bytes) = self.read(CERTIFICATE_FILE)? else { return Ok(None) };
        Ok(Some(decode(&bytes)?.to_vec()))
    }

    fn store_certificate(&self, der: &[u8]) -> Result<(), KeyError> {
        if CERTIFICATE_BYTES_MAX < der.len() {
            return Err(KeyError::Io(io::ErrorKind::FileTooLarge.into()));
        }
        self.write(CERTIFICATE_FILE, der).map_err(KeyError::Io)
    }
}

/// The device's signing key, in memory while a backup is made.
pub(crate) struct DeviceKey {
    key: SigningKey,
    public_key_spki: Vec<u8>,
}

impl DeviceKey {
    pub(crate) fn new(secret: &Secret) -> Self {
        let key = SigningKey::from_bytes(secret.expose());
        Self { key, public_key_spki: public_key_spki(secret) }
    }
}

impl Signer for DeviceKey {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    fn public_key_spki(&self) -> &[u8] {
        &self.public_key_spki
    }
}

/// The device's public key.
pub(crate) fn public_key(secret: &Secret) -> PublicKey {
    PublicKey::of_secret(secret.expose())
}

/// The device's public key as a DER-encoded `SubjectPublicKeyInfo`.
pub(crate) fn public_key_spki(secret: &Secret) -> Vec<u8> {
    public_key(secret).to_spki().to_vec()
}

/// Returns the device's key, after making one where there is none.
pub(crate) fn load_or_make(keys: &dyn KeyStore) -> Result<Secret, KeyError> {
    if let Some(secret) = keys.load(DEVICE_KEY)? {
        return Ok(secret);
    }
    let secret = Secret::random()?;
    keys.store(DEVICE_KEY, &secret)?;
    Ok(secret)
}

fn encode(content: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 + content.len() + CHECKSUM_BYTES));
    bytes.push(FILE_VERSION);
    bytes.extend_from_slice(content);
    let checksum = Sha256::digest(&*bytes);
    bytes.extend(checksum.iter().take(CHECKSUM_BYTES));
    bytes
}

fn decode(bytes: &[u8]) -> Result<&[u8], KeyError> {
    let (whole, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(KeyError::Damaged)?;
    let (version, content) = whole.split_first().ok_or(KeyError::Damaged)?;
    let intact = *version == FILE_VERSION && Sha256::digest(whole).starts_with(checksum);
    if intact { Ok(content) } else { Err(KeyError::Damaged) }
}

#[cfg(unix)]
fn refuse_exposed(metadata: &fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = metadata.permissions().mode() & 0o777;
    let others = mode & 0o077;
    if others == 0 { Ok(()) } else { Err(KeyError::Exposed { mode }) }
}

/// Elsewhere the folder of the library carries the access list of its owner.
#[cfg(not(unix))]
fn refuse_exposed(_: &fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

fn make_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename in the folder durable, where folders can be opened.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_was_kept_is_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        assert!(keys.load("device").unwrap().is_none());

        keys.store("device", &Secret::new([7; 32])).unwrap();
        assert_eq!(keys.load("device").unwrap().unwrap().expose(), &[7; 32]);

        keys.store("device", &Secret::new([8; 32])).unwrap();
        assert_eq!(keys.load("device").unwrap().unwrap().expose(), &[8; 32]);
    }

    #[test]
    fn a_secret_that_was_removed_is_gone_and_may_be_removed_again() {
        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        keys.store("pair", &Secret::new([7; 32])).unwrap();
        keys.store("device", &Secret::new([8; 32])).unwrap();

        keys.remove("pair").unwrap();
        keys.remove("pair").unwrap();
        assert!(keys.load("pair").unwrap().is_none());
        assert!(keys.load("device").unwrap().is_some());
    }

    #[test]
    fn a_certificate_is_kept_beside_the_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        assert!(keys.load_certificate().unwrap().is_none());

        let longest = vec![7; CERTIFICATE_BYTES_MAX];
        keys.store("device", &Secret::new([8; 32])).unwrap();
        keys.store_certificate(&longest).unwrap();
        assert_eq!(keys.load_certificate().unwrap(), Some(longest.clone()));
        assert_eq!(keys.load("device").unwrap().unwrap().expose(), &[8; 32]);

        let too_long = [longest.clone(), vec![7]].concat();
        assert!(matches!(keys.store_certificate(&too_long), Err(KeyError::Io(_))));
        assert_eq!(keys.load_certificate().unwrap(), Some(longest));
    }

    #[test]
    fn a_damaged_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        keys.store_certificate(b"certificate").unwrap();
        let path = folder.path().join("keys").join(CERTIFICATE_FILE);
        let whole = fs::read(&path).unwrap();

        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(keys.load_certificate(), Err(KeyError::Damaged)), "at {place}");
        }
        fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        assert!(matches!(keys.load_certificate(), Err(KeyError::Damaged)));
    }

    #[test]
    fn a_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        let first = load_or_make(&keys).unwrap();
        let second = load_or_make(&keys).unwrap();
        assert_eq!(first.expose(), second.expose());
        assert_ne!(first.expose(), &[0; 32]);
    }

    #[cfg(unix)]
    #[test]
    fn keys_that_others_may_read_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        keys.store("device", &Secret::new([7; 32])).unwrap();
        let path = folder.path().join("keys/device");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(keys.load("device"), Err(KeyError::Exposed { mode: 0o640 })));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path().join("keys"), open).unwrap();
        assert!(matches!(keys.load("device"), Err(KeyError::Exposed { mode: 0o755 })));
    }

    #[test]
    fn a_damaged_key_is_refused_wherever_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::new(folder.path().join("keys"));
        keys.store("device", &Secret::new([7; 32])).unwrap();
        let path = folder.path().join("keys/device");
        let whole = fs::read(&path).unwrap();

        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(keys.load("device"), Err(KeyError::Damaged)), "at {place}");
            fs::write(&path, &whole[..place]).unwrap();
            assert!(matches!(keys.load("device"), Err(KeyError::Damaged)), "cut at {place}");
        }
    }

    #[test]
    fn a_secret_does_not_print_its_bytes() {
        assert_eq!(format!("{:?}", Secret::new([7; 32])), "Secret(..)");
    }

    /// The public key of RFC 8032, section 7.1, test 1.
    #[test]
    fn the_public_key_is_the_one_of_the_standard() {
        let decode = |hex: &str| -> Vec<u8> {
            hex.as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        };
        let seed = decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");

        let spki = public_key_spki(&Secret::new(seed.try_into().unwrap()));
        assert_eq!(spki.len(), 44);
        assert_eq!(spki[12..], public);
    }
}

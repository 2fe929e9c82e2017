//! Peers and windows of a library, over restarts, restores and failing key stores.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catchword::net::{PeerBook, PeerError, Trust as _};
use catchword::{Config, FileKeyStore, KeyError, KeyStore, Library, Secret};
use catchword_model::identity::Fingerprint;
use catchword_proto::pairing::host::{Ending, Outcome};
use catchword_proto::pairing::{Introduction, NewPeer, WAIT_MS};
use catchword_proto::secret::PairSecret;
use catchword_proto::trust::{Deactivation, PROVISIONAL_MS, PeerState, Step, StepError, Verdict};

const PHONE: Fingerprint = Fingerprint([7; 32]);
const FAILED: Ending = Ending { outcome: Outcome::AttemptsSpent, attempts_spent: 3 };

fn phone(secret: u8) -> NewPeer {
    let introduction = Introduction::new("phone", "android", "0.1.0");
    NewPeer { fingerprint: PHONE, introduction, secret: PairSecret::new([secret; 32]) }
}

fn book(folder: &Path) -> PeerBook {
    PeerBook::open(&Library::open(folder).unwrap()).unwrap()
}

/// The same folder some time later.
fn later(folder: &Path, ms: u64) -> PeerBook {
    let offset_ms = i64::try_from(ms).unwrap();
    let config = Config::default().with_clock_offset_ms(offset_ms);
    PeerBook::open(&Library::open_existing(folder, config).unwrap()).unwrap()
}

fn state(book: &PeerBook) -> Option<PeerState> {
    book.find(PHONE).map(|record| record.state)
}

fn secrets(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder.join("keys")).unwrap();
    names
        .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with("pair-"))
        .count()
}

#[test]
fn a_peer_is_known_after_a_restart_with_what_both_share() {
    let folder = tempfile::tempdir().unwrap();
    let peers = book(folder.path());
    assert!(!peers.is_peer(PHONE));
    peers.take(Step::Admit(&phone(1))).unwrap();
    assert_eq!(peers.incoming(PHONE), Verdict::Provisional);
    peers.take(Step::Promote(PHONE)).unwrap();
    drop(peers);

    let peers = book(folder.path());
    assert!(peers.is_peer(PHONE));
    assert_eq!(peers.secret(PHONE).unwrap().unwrap().expose(), &[1; 32]);
    assert_eq!(peers.records()[0].name, "phone");
}

#[test]
fn a_provisional_peer_is_gone_after_ten_minutes_with_its_secret() {
    let folder = tempfile::tempdir().unwrap();
    book(folder.path()).take(Step::Admit(&phone(1))).unwrap();
    assert_eq!(state(&later(folder.path(), PROVISIONAL_MS / 2)), Some(PeerState::Provisional));
    assert_eq!(secrets(folder.path()), 1);

    assert_eq!(state(&later(folder.path(), PROVISIONAL_MS)), None);
    assert_eq!(secrets(folder.path()), 0);
}

#[test]
fn a_revoked_peer_is_refused_at_once_and_for_good_and_its_secret_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let peers = book(folder.path());
    peers.take(Step::Join(&phone(1))).unwrap();
    peers.take(Step::Revoke(PHONE)).unwrap();
    assert!(!peers.is_peer(PHONE));
    assert_eq!(secrets(folder.path()), 0);
    drop(peers);

    let peers = book(folder.path());
    assert_eq!(peers.incoming(PHONE), Verdict::Barred(PeerState::Revoked));
    let refused = peers.take(Step::Reactivate(PHONE));
    assert!(matches!(refused, Err(PeerError::Step(StepError::NotFrom(PeerState::Revoked)))));
}

#[test]
fn who_pairs_again_shares_something_new_and_nothing_old() {
    let folder = tempfile::tempdir().unwrap();
    let peers = book(folder.path());
    for secret in [1, 2] {
        peers.take(Step::Join(&phone(secret))).unwrap();
        assert_eq!(peers.secret(PHONE).unwrap().unwrap().expose(), &[secret; 32]);
        assert_eq!(secrets(folder.path()), 1);
    }
}

#[test]
fn a_peer_whose_secret_was_not_restored_is_deactivated_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    book(folder.path()).take(Step::Join(&phone(1))).unwrap();
    std::fs::remove_dir_all(folder.path().join("keys")).unwrap();

    let peers = book(folder.path());
    let why = PeerState::Deactivated(Deactivation::KeysNotRestored);
    assert_eq!(state(&peers), Some(why));
    assert!(!peers.is_peer(PHONE));
    peers.take(Step::Join(&phone(2))).unwrap();
    assert!(peers.is_peer(PHONE));
}

/// Files that refuse to take a secret when told so.
#[derive(Debug)]
struct Stubborn {
    files: FileKeyStore,
    refuses: AtomicBool,
}

impl KeyStore for Stubborn {
    fn load(&self, name: &str) -> Result<Option<Secret>, KeyError> {
        self.files.load(name)
    }

    fn store(&self, name: &str, secret: &Secret) -> Result<(), KeyError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(KeyError::Io(std::io::ErrorKind::StorageFull.into()));
        }
        self.files.store(name, secret)
    }

    fn remove(&self, name: &str) -> Result<(), KeyError> {
        self.files.remove(name)
    }

    fn load_certificate(&self) -> Result<Option<Vec<u8>>, KeyError> {
        self.files.load_certificate()
    }

    fn store_certificate(&self, certificate: &[u8]) -> Result<(), KeyError> {
        self.files.store_certificate(certificate)
    }
}

#[test]
fn a_peer_whose_secret_cannot_be_kept_is_no_peer() {
    let folder = tempfile::tempdir().unwrap();
    let files = FileKeyStore::new(folder.path().join("keys"));
    let keys = Arc::new(Stubborn { files, refuses: AtomicBool::new(false) });
    let config = Config::default().with_keys(Arc::clone(&keys) as Arc<dyn KeyStore>);
    let peers = PeerBook::open(&Library::open_with(folder.path(), config).unwrap()).unwrap();

    keys.refuses.store(true, Ordering::SeqCst);
    assert!(matches!(peers.take(Step::Join(&phone(1))), Err(PeerError::Keys(_))));
    assert_eq!(state(&peers), None);
    drop(peers);
    assert_eq!(state(&book(folder.path())), None);
}

#[test]
fn strangers_may_connect_while_a_window_is_open_and_after_three_failures_it_stays_shut() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let peers = book(folder.path());
        assert!(!peers.is_pairing());
        peers.open_window().unwrap();
        assert!(peers.is_pairing());
        assert!(matches!(peers.open_window(), Err(PeerError::WindowOpen)));
        peers.close_window(FAILED).unwrap();
        assert!(!peers.is_pairing());
    }
    // The third ends with its process.
    book(folder.path()).open_window().unwrap();

    let peers = book(folder.path());
    assert!(matches!(peers.open_window(), Err(PeerError::Wait(_))));
    assert!(!peers.is_pairing());
    drop(peers);
    later(folder.path(), WAIT_MS).open_window().unwrap();
}

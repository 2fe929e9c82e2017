//! What is kept of paired devices: durable with each write, and part of everything that is copied.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use catchword_model::identity::Fingerprint;
use catchword_store::{Existing, PeerRows, Signer, Store, restore};

use crate::support::{BOOK, MONDAY_MS, annotate, library, options};

const ANA: Fingerprint = Fingerprint([2; 32]);
const BEN: Fingerprint = Fingerprint([1; 32]);

fn row(peer: Fingerprint, text: &str) -> (Fingerprint, Vec<u8>) {
    (peer, text.as_bytes().to_vec())
}

fn put(store: &Store, rows: &[(Fingerprint, Vec<u8>)]) {
    store.write_peers(&PeerRows { put: rows.to_vec(), dropped: Vec::new() }).unwrap();
}

/// The library as it is on the disk at this moment: what a kill would leave.
fn after_a_kill(folder: &Path) -> (tempfile::TempDir, Store) {
    let copy = tempfile::tempdir().unwrap();
    for file in ["wal", "library", "witness"] {
        fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    let store = Store::open(copy.path(), &options(1)).unwrap();
    (copy, store)
}

#[test]
fn a_peer_is_kept_from_the_moment_the_write_returns() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    assert_eq!(store.peers().unwrap(), []);
    store.append(BOOK.document(), &[annotate(1, 5)], MONDAY_MS).unwrap();

    put(&store, &[row(ANA, "provisional"), row(BEN, "active")]);
    let kept = [row(BEN, "active"), row(ANA, "provisional")];
    assert_eq!(store.peers().unwrap(), kept);
    assert_eq!(after_a_kill(folder.path()).1.peers().unwrap(), kept);

    let both = PeerRows { put: vec![row(ANA, "active")], dropped: vec![BEN] };
    store.write_peers(&both).unwrap();
    let (_copy, killed) = after_a_kill(folder.path());
    assert_eq!(killed.peers().unwrap(), [row(ANA, "active")]);
    assert_eq!(killed.books().unwrap()[0].annotations, 1, "what waited is there, too");
}

#[test]
fn a_peer_that_is_dropped_and_put_in_one_write_is_there_and_a_stranger_is_dropped_in_vain() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let rows = PeerRows { put: vec![row(ANA, "new")], dropped: vec![ANA, BEN] };
    store.write_peers(&rows).unwrap();
    assert_eq!(store.peers().unwrap(), [row(ANA, "new")]);
}

#[test]
fn what_is_known_of_windows_is_kept_from_the_moment_the_write_returns() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    assert_eq!(store.pairing_windows().unwrap(), None);
    for windows in [b"one".as_slice(), b"two", b""] {
        store.keep_pairing_windows(windows).unwrap();
        assert_eq!(store.pairing_windows().unwrap().as_deref(), Some(windows));
        let (_copy, killed) = after_a_kill(folder.path());
        assert_eq!(killed.pairing_windows().unwrap().as_deref(), Some(windows));
    }
}

struct NoKey;

impl Signer for NoKey {
    fn sign(&self, _: &[u8]) -> [u8; 64] {
        [0; 64]
    }

    fn public_key_spki(&self) -> &[u8] {
        &[1; 44]
    }
}

#[test]
fn peers_and_windows_are_in_what_is_compacted_and_backed_up() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = library(folder.path(), 1);
    put(&store, &[row(ANA, "active")]);
    store.keep_pairing_windows(b"failed once").unwrap();
    let holds_both = |store: &Store| {
        assert_eq!(store.peers().unwrap(), [row(ANA, "active")]);
        assert_eq!(store.pairing_windows().unwrap().as_deref(), Some(b"failed once".as_slice()));
    };

    store.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    holds_both(&store);

    let backup = folder.path().join("backup");
    store.backup(&backup, &NoKey, &mut |_| ControlFlow::Continue(())).unwrap();
    restore(&backup, other.path(), Existing::Refuse).unwrap();
    holds_both(&Store::open(other.path(), &options(1)).unwrap());
}

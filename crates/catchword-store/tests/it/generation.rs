//! A library that is a copy, or whose store went back, never uses an actor again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use catchword_model::id::{ActorId, ChangeHash};
use catchword_store::{Evidence, Store};

use crate::support::{BOOK, MONDAY_MS, annotate, library, options, turn};

fn copy(from: &Path, to: &Path, files: &[&str]) {
    for file in files {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

fn changes(store: &Store) -> BTreeMap<(ActorId, u64), ChangeHash> {
    let mut all = BTreeMap::new();
    let mut note = |change: catchword_model::change::Change| {
        all.insert((change.actor, change.seq), change.hash());
    };
    store.changes(BOOK.document(), &mut note).unwrap();
    all
}

/// Asserts that nothing both libraries wrote has the same writer and number and another hash.
fn assert_no_fork(a: &Store, b: &Store) {
    let (a, b) = (changes(a), changes(b));
    for (place, hash) in &a {
        assert!(b.get(place).is_none_or(|other| other == hash), "{place:?} has two hashes");
    }
}

#[test]
fn a_copied_folder_starts_a_new_generation_and_the_original_keeps_its_own() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = library(first.path(), 1);
    store.append(BOOK.document(), &[annotate(1, 5)], MONDAY_MS).unwrap();
    let generation = store.generation();
    drop(store);
    copy(first.path(), second.path(), &["wal", "library", "witness"]);

    let original = Store::open(first.path(), &options(1)).unwrap();
    let clone = Store::open(second.path(), &options(1)).unwrap();

    assert_eq!(original.opened().new_generation, None);
    assert_eq!(original.generation(), generation);
    assert_eq!(clone.opened().new_generation, Some(Evidence::OtherFile));
    assert_ne!(clone.device(), original.device());
    assert_eq!(clone.replaced_devices(), [original.device()]);
    let names = clone.devices().unwrap();
    assert_eq!(names[&clone.device()].replaces, Some(original.device().to_string()));
    for store in [&original, &clone] {
        store.append(BOOK.document(), &[annotate(2, 6)], MONDAY_MS).unwrap();
    }
    assert_no_fork(&original, &clone);
}

#[test]
fn a_library_opened_again_keeps_its_generation() {
    let folder = tempfile::tempdir().unwrap();
    let mut generation = library(folder.path(), 1).generation();
    for n in 0..5 {
        let store = Store::open(folder.path(), &options(1)).unwrap();
        store.append(BOOK.document(), &[annotate(n, 5)], MONDAY_MS).unwrap();
        assert_eq!(std::mem::replace(&mut generation, store.generation()), store.generation());
    }
}

#[test]
fn an_older_state_without_its_witness_starts_a_new_generation() {
    let (folder, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(library(folder.path(), 1));
    copy(folder.path(), older.path(), &["wal", "library"]);
    let newer = Store::open(folder.path(), &options(1)).unwrap();
    newer.append(BOOK.document(), &[annotate(1, 5)], MONDAY_MS).unwrap();

    let restored = Store::open(older.path(), &options(1)).unwrap();
    assert_eq!(restored.opened().new_generation, Some(Evidence::NoWitness));
    restored.append(BOOK.document(), &[annotate(2, 5)], MONDAY_MS).unwrap();
    assert_no_fork(&newer, &restored);
}

#[test]
fn a_lost_or_foreign_wal_starts_a_new_generation() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = library(folder.path(), 1);
    store.turn(BOOK, &turn(9), MONDAY_MS).unwrap();
    drop(store);
    drop(library(other.path(), 2));

    fs::remove_file(folder.path().join("wal")).unwrap();
    let store = Store::open(folder.path(), &options(1)).unwrap();
    assert_eq!(store.opened().new_generation, Some(Evidence::OtherWal));
    drop(store);
    fs::copy(other.path().join("wal"), folder.path().join("wal")).unwrap();
    let store = Store::open(folder.path(), &options(1)).unwrap();
    assert_eq!(store.opened().new_generation, Some(Evidence::OtherWal));
    assert_eq!(store.replaced_devices().len(), 2);
}

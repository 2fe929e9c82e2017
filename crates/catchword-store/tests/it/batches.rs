//! Many changes in one go, made here or received: each once, and nothing builds on what is not durable.

use catchword_model::change::Change;
use catchword_model::edit::{Base, Edit, build};
use catchword_model::genesis::genesis;
use catchword_model::hlc::Hlc;
use catchword_model::id::{Author, DeviceId};
use catchword_model::merge::Field;
use catchword_model::schema::DocumentKind;
use catchword_store::{ACTORS_MAX, AppendError, Received, Store, WAITING_MAX};

use crate::support::{BOOK, MONDAY_MS, annotate, library, options, titled, turn};

#[test]
fn a_turn_is_published_once_by_many_changes_at_once() {
    for count in [2, WAITING_MAX as u64 + 9] {
        let folder = tempfile::tempdir().unwrap();
        let store = library(folder.path(), 1);
        store.turn(BOOK, &turn(120_000), MONDAY_MS).unwrap();

        let batch: Vec<_> = (0..count).map(|n| (BOOK.document(), vec![annotate(n, 5)])).collect();
        store.append_all(&batch, MONDAY_MS).unwrap();

        let view = store.view(BOOK).unwrap().unwrap();
        assert_eq!((view.events.count, view.events.seconds), (1, 30));
        assert_eq!((view.totals["seconds"], view.totals["sessions"]), (30, 1));
        assert_eq!(store.pending_turn(BOOK), None);
    }
}

#[test]
fn a_turn_is_published_once_by_an_import_of_its_book() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    store.turn(BOOK, &turn(120_000), MONDAY_MS).unwrap();

    let again = vec![(BOOK, titled("Moby Dick")), (BOOK, titled("The Whale"))];
    store.add_books(again, Vec::new(), MONDAY_MS).unwrap();

    assert_eq!(store.view(BOOK).unwrap().unwrap().events.count, 1);
}

/// The first change of each of many writers, who know nothing of each other.
fn first_changes(count: usize) -> Vec<Received> {
    let genesis = genesis(DocumentKind::Book);
    let change = |n: usize| -> Change {
        let mut device = [0xAB; 16];
        device[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let author = Author { device: DeviceId(device), n: 0 };
        let base = Base {
            author,
            actor: author.actor(BOOK.document()),
            seq: 1,
            max_op: genesis.max_op(),
            heads: vec![genesis.hash()],
            last: None,
        };
        let stamp = Hlc::new(MONDAY_MS, 0).unwrap();
        let writes = Edit::AddTag { tag: format!("tag {n}") }.writes(author.device, stamp);
        let held = |_, _: &str| Ok::<_, std::convert::Infallible>(Field::default());
        build(&base, stamp, &writes, held).unwrap().unwrap()
    };
    let receive =
        |change: Change| Received { document: BOOK.document(), bytes: change.bytes().to_vec() };
    (0..count).map(change).map(receive).collect()
}

#[test]
fn a_write_after_a_refused_batch_builds_on_nothing_that_is_not_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let refused = store.receive(&first_changes(ACTORS_MAX));
    assert!(matches!(refused, Err(AppendError::Full { .. })));

    store.append(BOOK.document(), &[annotate(1, 5)], MONDAY_MS).unwrap();
    let heads = store.heads(BOOK.document()).unwrap();
    // The process is killed: nothing more is written.
    std::mem::forget(store);
    let copy = tempfile::tempdir().unwrap();
    for file in ["wal", "library"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }

    let store = Store::open(copy.path(), &options(1)).unwrap();
    assert_eq!(store.heads(BOOK.document()).unwrap(), heads);
    assert!(store.view(BOOK).unwrap().unwrap().tags.is_empty());
}

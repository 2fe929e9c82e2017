//! The history of a removed book goes, and nothing is written twice under one number.

use catchword_model::id::ActorId;
use catchword_store::{AppendError, CloudRow, Options, Repair, Store};
use tempfile::TempDir;

use crate::support::{BOOK, MONDAY_MS, annotate, library, options, titled, turn};

/// A library with a book that was read, annotated and written about, and another one.
fn read_library(folder: &TempDir) -> Store {
    let store = library(folder.path(), 1);
    for n in 0..600 {
        store.append(BOOK.document(), &[annotate(n, 5)], MONDAY_MS).unwrap();
    }
    store.turn(BOOK, &turn(200_000), MONDAY_MS).unwrap();
    store.publish(BOOK).unwrap();
    store.set_journal(BOOK, "A whale of a book.", MONDAY_MS).unwrap();
    let other = catchword_model::id::BookId([8; 32]);
    store.add_book(other, titled("Typee"), Vec::new(), MONDAY_MS).unwrap();
    store.append(other.document(), &[annotate(1, 5)], MONDAY_MS).unwrap();
    store
}

fn assert_clean(store: &Store) {
    let mut go_on = |_| std::ops::ControlFlow::Continue(());
    let checked = store.check(Repair::ReportOnly, &mut go_on).unwrap();
    assert!(checked.is_clean(), "{checked:?}");
}

/// The actor of this device's newest change.
fn actor(store: &Store) -> ActorId {
    let mut last = None;
    store.changes(BOOK.document(), |change| last = Some(change.draft().actor)).unwrap();
    last.unwrap()
}

#[test]
fn a_purged_book_leaves_nothing_but_its_name_and_the_number_of_its_actor() {
    let folder = tempfile::tempdir().unwrap();
    let store = read_library(&folder);
    let before = actor(&store);
    let seen = store.book_state(BOOK).unwrap().unwrap();
    let refused = store.purge(BOOK, seen);
    assert!(matches!(refused, Err(AppendError::NoDocument)), "it was not removed: {refused:?}");
    let row = CloudRow { version: 9, max_op: 700, ..CloudRow::default() };
    let rows = [(BOOK.document(), row)].into();
    store.keep_cloud_rows(&rows, None).unwrap();
    store.remove(BOOK, MONDAY_MS).unwrap();
    assert!(store.purge(BOOK, seen).unwrap());
    let row = store.cloud_row(BOOK.document()).unwrap();
    assert_eq!((row.version, row.max_op), (0, 700), "the server has what it had");
    assert_eq!(row.skipped.map(|skipped| skipped.after), Some(0), "and would be asked again");

    assert!(store.is_removed(BOOK).unwrap());
    assert_eq!(store.book(BOOK).unwrap().unwrap().annotations, 0);
    assert_eq!(store.journal(BOOK).unwrap(), "");
    assert_eq!(store.books().unwrap().len(), 1, "the other one is there");
    assert_clean(&store);
    store.close().unwrap();

    let store = Store::open(folder.path(), &Options { now_ms: MONDAY_MS, ..options(1) }).unwrap();
    assert_clean(&store);
    assert!(store.restore_removed(BOOK).unwrap());
    store.append(BOOK.document(), &[annotate(1, 5)], MONDAY_MS).unwrap();
    store.set_journal(BOOK, "Again.", MONDAY_MS).unwrap();
    assert_ne!(actor(&store), before, "a purged actor's numbers are never used again");
    assert_eq!(store.book(BOOK).unwrap().unwrap().annotations, 1);
    assert_eq!(store.journal(BOOK).unwrap(), "Again.");
    assert_clean(&store);
}

#[test]
fn a_book_that_was_written_in_since_somebody_looked_is_not_purged() {
    let folder = tempfile::tempdir().unwrap();
    let store = read_library(&folder);
    let seen = store.book_state(BOOK).unwrap().unwrap();
    store.append(BOOK.document(), &[annotate(700, 5)], MONDAY_MS).unwrap();
    store.remove(BOOK, MONDAY_MS).unwrap();
    assert!(!store.purge(BOOK, seen).unwrap());
    let seen = store.book_state(BOOK).unwrap().unwrap();
    store.restore_removed(BOOK).unwrap();
    store.set_journal(BOOK, "A whale of two books.", MONDAY_MS).unwrap();
    store.remove(BOOK, MONDAY_MS).unwrap();
    assert!(!store.purge(BOOK, seen).unwrap(), "its notes count as the book");
    assert_eq!(store.book(BOOK).unwrap().unwrap().annotations, 601);
}

//! The journal and the application's own data: merged by Automerge, read without it.

use catchword_model::document::AppError;
use catchword_store::{AppendError, Received, Store};

use crate::support::{BOOK, MONDAY_MS, annotate, library, options, turn};

fn give_notes(from: &Store, to: &Store) {
    let document = BOOK.notes_document();
    let mut received = Vec::new();
    let mut note = |change: catchword_model::change::Change| {
        received.push(Received { document, bytes: change.into_bytes() });
    };
    from.changes(document, &mut note).unwrap();
    to.expect_book(BOOK).unwrap();
    assert_eq!(to.receive(&received).unwrap().rejected, []);
}

#[test]
fn a_journal_is_there_after_reopening_and_after_a_kill() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = library(folder.path(), 1);
    store.set_journal(BOOK, "Call me Ishmael.", MONDAY_MS).unwrap();
    store.set_journal(BOOK, "Call me Ishmael. Some years ago", MONDAY_MS).unwrap();
    assert_eq!(store.journal(BOOK).unwrap(), "Call me Ishmael. Some years ago");
    std::mem::forget(store);
    for file in ["wal", "library"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }

    let store = Store::open(copy.path(), &options(1)).unwrap();
    assert_eq!(store.journal(BOOK).unwrap(), "Call me Ishmael. Some years ago");
    drop(store);
    let store = Store::open(copy.path(), &options(1)).unwrap();
    assert_eq!(store.view(BOOK).unwrap().unwrap().journal, "Call me Ishmael. Some years ago");
}

#[test]
fn journals_merge_character_by_character() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (phone, tablet) = (library(folders[0].path(), 1), library(folders[1].path(), 2));
    phone.set_journal(BOOK, "whale", MONDAY_MS).unwrap();
    give_notes(&phone, &tablet);
    phone.set_journal(BOOK, "the whale", MONDAY_MS).unwrap();
    tablet.set_journal(BOOK, "whale watching", MONDAY_MS).unwrap();

    give_notes(&phone, &tablet);
    give_notes(&tablet, &phone);

    assert_eq!(phone.journal(BOOK).unwrap(), "the whale watching");
    assert_eq!(tablet.journal(BOOK).unwrap(), "the whale watching");
    let heads = [&phone, &tablet].map(|store| store.heads(BOOK.notes_document()).unwrap());
    assert_eq!(heads[0], heads[1]);
}

#[test]
fn the_applications_data_is_kept_and_a_failed_edit_of_it_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let put = |path: &'static str, value: i64| {
        store.edit_app(BOOK, MONDAY_MS, move |data| data.put(&[path], &value.into()))
    };
    put("theme", 3).unwrap();
    let failed = store.edit_app(BOOK, MONDAY_MS, |data| {
        data.put(&["theme"], &4.into())?;
        data.put(&[], &5.into())
    });
    assert!(matches!(failed, Err(AppendError::Application(AppError::Path { .. }))), "{failed:?}");
    assert_eq!(store.app(BOOK).unwrap(), serde_json::json!({ "theme": 3 }));
    assert_eq!(store.journal(BOOK).unwrap(), "");
}

#[test]
fn writing_the_journal_publishes_the_turns_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    store.turn(BOOK, &turn(500), MONDAY_MS).unwrap();
    store.set_journal(BOOK, "half an hour", MONDAY_MS).unwrap();
    assert_eq!(store.view(BOOK).unwrap().unwrap().events.count, 1);
}

#[test]
fn any_automerge_program_loads_what_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    store.append(BOOK.document(), &[annotate(1, 5)], MONDAY_MS).unwrap();
    let saved = store.save_document(BOOK.document()).unwrap();
    let document = automerge::Automerge::load(&saved).unwrap();
    let mut heads: Vec<_> = document.get_heads().iter().map(|hash| hash.0).collect();
    heads.sort_unstable();
    let ours = store.heads(BOOK.document()).unwrap().unwrap();
    assert_eq!(heads, ours.iter().map(|hash| hash.0).collect::<Vec<_>>());
}

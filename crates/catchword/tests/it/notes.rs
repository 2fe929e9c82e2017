//! The journal, the application's data, and saved documents.

use catchword::{Event, Part};
use serde_json::{Value, json};

use crate::support::device;

#[test]
fn a_journal_is_read_as_it_was_written_last() {
    let device = device("phone");
    let book = device.sample();
    assert_eq!(book.journal().unwrap(), "");
    book.set_journal("The lamp is a sign.\n").unwrap();
    book.set_journal("The lamp is a warning, not a sign.\n").unwrap();
    assert_eq!(book.journal().unwrap(), "The lamp is a warning, not a sign.\n");
    assert_eq!(book.view().unwrap().journal, "The lamp is a warning, not a sign.\n");

    let id = book.id();
    drop(book);
    let device = device.reopened();
    let book = device.library.book(id).unwrap().unwrap();
    assert_eq!(book.journal().unwrap(), "The lamp is a warning, not a sign.\n");
}

#[test]
fn writing_the_journal_that_is_there_changes_nothing() {
    let device = device("phone");
    let book = device.sample();
    book.set_journal("Once.").unwrap();
    let before = book.view().unwrap();
    let subscription = device.library.subscribe();

    book.set_journal("Once.").unwrap();

    assert_eq!(book.view().unwrap(), before);
    assert_eq!(subscription.try_next(), None);
}

#[test]
fn the_applications_data_are_its_own() {
    let device = device("phone");
    let book = device.sample();
    let subscription = device.library.subscribe();
    assert_eq!(book.app().unwrap(), Value::Null);

    book.edit_app(|data| data.put(&["font", "size"], &json!(14))).unwrap();

    assert_eq!(book.app().unwrap(), json!({ "font": { "size": 14 } }));
    assert_eq!(subscription.try_next(), Some(Event::AppDataChanged { book: book.id() }));
    assert!(book.edit_app(|data| data.put(&[], &json!(1))).is_err());
    assert_eq!(book.app().unwrap(), json!({ "font": { "size": 14 } }));
}

#[test]
fn a_saved_document_has_the_heads_of_the_book() {
    let device = device("phone");
    let book = device.sample();
    let saved = book.save(Part::Book).unwrap().unwrap();
    assert_eq!(saved.heads, book.view().unwrap().heads);
    assert!(!saved.bytes.is_empty());
    assert_eq!(book.save(Part::Notes).unwrap(), None);

    book.set_journal("A note.").unwrap();
    let notes = book.save(Part::Notes).unwrap().unwrap();
    assert_eq!(notes.heads, book.view().unwrap().notes_heads);
}

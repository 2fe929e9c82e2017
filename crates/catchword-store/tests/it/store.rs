//! One device: what is written is there, in order, and comes back after any ending.

use catchword_model::annotation::AnnotationField;
use catchword_model::edit::Edit;
use catchword_model::id::AnnotationId;
use catchword_model::locator::Locator;
use catchword_model::position::Intent;
use catchword_store::{AppendError, OpenError, Store, WAITING_MAX};

use crate::support::{BOOK, DAY_MS, MONDAY_MS, annotate, library, options, turn};

fn ids(store: &Store) -> Vec<AnnotationId> {
    let mut ids = Vec::new();
    store.annotations(BOOK, 0, u32::MAX, |shown| ids.push(shown.id)).unwrap();
    ids
}

#[test]
fn annotations_are_read_in_reading_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    for (n, ppm) in [(1, 900_000), (2, 100), (3, 500_000)] {
        store.append(BOOK.document(), &[annotate(n, ppm)], MONDAY_MS).unwrap();
    }

    let expected = [2, 3, 1].map(|n| AnnotationId::new(n, [3; 10]));
    assert_eq!(ids(&store), expected);
    let mut middle = Vec::new();
    store.annotations(BOOK, 101, 900_000, |shown| middle.push(shown.quote)).unwrap();
    assert_eq!(middle, ["quote 3"]);
    assert_eq!(store.books().unwrap()[0].annotations, 3);
}

#[test]
fn what_waits_is_there_after_the_process_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    for n in 0..WAITING_MAX as u64 + 9 {
        store.append(BOOK.document(), &[annotate(n, 5)], MONDAY_MS).unwrap();
    }
    // Nothing is drained when a process is killed.
    std::mem::forget(store);
    let copy = tempfile::tempdir().unwrap();
    for file in ["wal", "library", "witness"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }

    let store = Store::open(copy.path(), &options(1)).unwrap();
    assert_eq!(store.opened().replayed, 9);
    assert!(!store.opened().library_repaired);
    assert_eq!(ids(&store).len(), WAITING_MAX + 9);
}

#[test]
fn an_edit_of_a_deleted_annotation_is_refused_until_it_is_undeleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let id = AnnotationId::new(1, [3; 10]);
    let book = BOOK.document();
    let note = |value: &str| {
        [Edit::SetField { id, field: AnnotationField::Note, value: value.to_owned() }]
    };
    store.append(book, &[annotate(1, 5)], MONDAY_MS).unwrap();
    store.append(book, &[Edit::Delete { id }], MONDAY_MS).unwrap();

    let refused = store.append(book, &note("late"), MONDAY_MS);
    assert!(matches!(refused, Err(AppendError::AnnotationDeleted(of)) if of == id));
    store.append(book, &[Edit::Undelete { id }], MONDAY_MS).unwrap();
    store.append(book, &note("now"), MONDAY_MS).unwrap();

    let row = store.annotation(BOOK, id).unwrap().unwrap().annotation().unwrap();
    assert_eq!((row.note.as_deref(), row.deleted), (Some("now"), false));
}

#[test]
fn mondays_turn_published_on_wednesday_keeps_mondays_stamp_and_pass() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let monday = store.turn(BOOK, &turn(120_000), MONDAY_MS).unwrap();
    assert_eq!(store.view(BOOK).unwrap().unwrap().place, None);
    std::mem::forget(store);
    let copy = tempfile::tempdir().unwrap();
    for file in ["wal", "library"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }

    // The copied folder starts a new generation: turns become events only.
    let store = Store::open(copy.path(), &options(1)).unwrap();
    assert!(store.opened().new_generation.is_some());
    let view = store.view(BOOK).unwrap().unwrap();
    assert_eq!((view.place, view.events.count), (None, 1));

    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let turned = store.turn(BOOK, &turn(120_000), MONDAY_MS).unwrap();
    assert_eq!(turned.pass, monday.pass);
    drop(store);
    let store = Store::open(folder.path(), &options(1)).unwrap();
    assert_eq!(store.opened().new_generation, None);
    store.append(BOOK.document(), &[annotate(1, 5)], MONDAY_MS + DAY_MS).unwrap();
    assert_eq!(store.publish_all().unwrap(), 0, "the annotation published it");
    let place = store.view(BOOK).unwrap().unwrap().place.unwrap();
    assert_eq!(place.stamp(), turned.stamp);
    assert_eq!((place.position.ppm, place.position.pass), (120_000, 1));
    assert_eq!(place.position.intent, Intent::Advance);
}

#[test]
fn turns_of_one_session_are_one_change_and_one_event() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let mut before = 0;
    store.changes(BOOK.document(), |_| before += 1).unwrap();
    for page in 1..20 {
        store.turn(BOOK, &turn(page * 1_000), MONDAY_MS + u64::from(page)).unwrap();
    }
    assert!(store.publish(BOOK).unwrap());
    assert!(!store.publish(BOOK).unwrap());

    let mut changes = 0;
    store.changes(BOOK.document(), |_| changes += 1).unwrap();
    assert_eq!(changes, before + 1);
    let view = store.view(BOOK).unwrap().unwrap();
    assert_eq!((view.events.count, view.events.seconds), (1, 19 * 30));
    assert_eq!(view.totals["seconds"], 19 * 30);
    assert_eq!((view.totals["turns"], view.totals["sessions"]), (19, 1));
    assert_eq!(view.furthest.unwrap().ppm, 19_000);
}

#[test]
fn a_second_process_gets_a_clear_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    assert!(matches!(Store::open(folder.path(), &options(1)), Err(OpenError::Locked)));
    assert!(matches!(Store::create(folder.path(), &options(1)), Err(OpenError::Exists)));
    drop(store);
    assert!(Store::open(folder.path(), &options(1)).is_ok());
    let elsewhere = folder.path().join("elsewhere");
    assert!(matches!(Store::open(&elsewhere, &options(1)), Err(OpenError::Missing)));
}

#[test]
fn many_changes_at_once_are_one_transaction_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let batch: Vec<_> = (0..500).map(|n| (BOOK.document(), vec![annotate(n, 5)])).collect();
    store.append_all(&batch, MONDAY_MS).unwrap();
    assert_eq!(ids(&store).len(), 500);

    let mut wrong: Vec<_> = (500..600).map(|n| (BOOK.document(), vec![annotate(n, 5)])).collect();
    wrong.push((BOOK.document(), vec![annotate(0, 5)]));
    let refused = store.append_all(&wrong, MONDAY_MS);
    assert!(matches!(refused, Err(AppendError::AnnotationExists(_))));
    assert_eq!(ids(&store).len(), 500);
    store.append(BOOK.document(), &[annotate(500, 5)], MONDAY_MS).unwrap();
    assert_eq!(ids(&store).len(), 501);
}

#[test]
fn an_annotation_with_a_better_locator_is_read_where_that_says() {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    let id = AnnotationId::new(1, [3; 10]);
    store.append(BOOK.document(), &[annotate(1, 900_000)], MONDAY_MS).unwrap();
    store.drain().unwrap();

    let value = Locator::new().with_total_ppm(100_000).to_json();
    let edit = Edit::SetField { id, field: AnnotationField::Locator, value };
    store.append(BOOK.document(), &[edit], MONDAY_MS + 1).unwrap();
    store.drain().unwrap();

    let between = |from, to| {
        let mut found = Vec::new();
        store.annotations(BOOK, from, to, |shown| found.push(shown.id)).unwrap();
        found
    };
    assert_eq!(between(0, 500_000), [id]);
    assert_eq!(between(500_000, 1_000_000), []);
}

//! Sessions, page turns, places.

use catchword::{Deed, EditError, Event, Intent};

use crate::support::{DAY_MS, at, device, read};

/// What a person sees of the place.
fn place(book: &catchword::Book) -> (u32, u32, Intent) {
    let place = book.place().unwrap().unwrap().position;
    (place.ppm, place.pass, place.intent)
}

#[test]
fn opening_is_not_reading() {
    let device = device("phone");
    let book = device.sample();
    let before = book.view().unwrap();

    let mut session = book.session("test").unwrap();
    session.restored();
    session.close().unwrap();

    assert_eq!(book.view().unwrap(), before);
    assert_eq!(book.place().unwrap(), None);
}

#[test]
fn what_the_page_engine_reports_while_it_restores_the_place_is_not_a_turn() {
    let device = device("phone");
    let book = device.sample();
    let before = book.view().unwrap();

    let mut session = book.session("test").unwrap();
    assert_eq!(session.turned(at(5_000)).unwrap(), None);
    assert_eq!(session.jumped(at(6_000)).unwrap(), None);
    session.close().unwrap();

    assert_eq!(book.view().unwrap(), before);
}

#[test]
fn a_session_becomes_one_change_and_one_event() {
    let device = device("phone");
    let book = device.sample();

    let mut session = book.session("test").unwrap();
    session.restored();
    for ppm in [1_000, 2_000, 3_000] {
        session.spent(20);
        session.turned(at(ppm)).unwrap().unwrap();
    }
    assert_eq!(book.place().unwrap(), None, "turns are not published one by one");
    session.close().unwrap();

    let view = book.view().unwrap();
    assert_eq!(place(&book), (3_000, 1, Intent::Advance));
    assert_eq!((view.events.count, view.events.seconds), (1, 60));
    assert_eq!(view.totals.get("turns"), Some(&3));
    assert_eq!(view.totals.get("sessions"), Some(&1));
}

#[test]
fn going_back_moves_the_place_and_not_the_furthest_point() {
    let device = device("phone");
    let book = device.sample();

    read(&book, 500_000);
    read(&book, 200_000);

    assert_eq!(place(&book), (200_000, 1, Intent::Rewind));
    assert_eq!(book.furthest().unwrap().unwrap().ppm, 500_000);
}

#[test]
fn a_restart_opens_the_next_reading_of_the_book() {
    let device = device("phone");
    let book = device.sample();
    read(&book, 900_000);

    let mut session = book.session("test").unwrap();
    session.restored();
    session.restarted(at(0)).unwrap();
    session.turned(at(10_000)).unwrap();
    session.close().unwrap();

    assert_eq!(place(&book), (10_000, 2, Intent::Restart));
    assert_eq!(book.furthest().unwrap().unwrap().ppm, 10_000);
}

#[test]
fn mondays_turn_published_on_wednesday_after_a_kill_stays_mondays() {
    let monday = device("phone");
    let book = monday.sample();
    let id = book.id();
    let mut session = book.session("test").unwrap();
    session.restored();
    let receipt = session.turned(at(250_000)).unwrap().unwrap();
    let killed_here = monday.disk();
    drop((session, book));

    let wednesday = monday.killed_at(killed_here, 2 * DAY_MS);
    let book = wednesday.library.book(id).unwrap().unwrap();
    let place = book.place().unwrap().unwrap();

    assert_eq!(place.stamp(), receipt.stamp);
    assert_eq!(place.position.pass, receipt.pass);
    assert_eq!(place.position.ppm, 250_000);
    let today = catchword::Hlc::new(receipt.stamp.wall_ms() + 86_400_000, 0).unwrap();
    let history = book.history().unwrap();
    let read = history.iter().find(|entry| matches!(entry.deed, Deed::Read { .. })).unwrap();
    assert_eq!(read.stamp, receipt.stamp);
    assert!(history.iter().all(|entry| entry.stamp < today), "nothing was made on Wednesday");
    assert_eq!(wednesday.library.opened().new_generation, None);
}

#[test]
fn an_edit_publishes_the_turns_before_it() {
    let device = device("phone");
    let book = device.sample();
    let mut session = book.session("test").unwrap();
    session.restored();
    session.turned(at(1_000)).unwrap();

    book.tag(&["sea"], &[]).unwrap();

    assert_eq!(place(&book), (1_000, 1, Intent::Advance));
    session.close().unwrap();
    assert_eq!(book.view().unwrap().events.count, 1);
}

#[test]
fn a_session_that_is_dropped_publishes_its_turns() {
    let device = device("phone");
    let book = device.sample();
    let subscription = device.library.subscribe();
    {
        let mut session = book.session("test").unwrap();
        session.restored();
        session.turned(at(4_000)).unwrap();
    }
    assert_eq!(place(&book), (4_000, 1, Intent::Advance));
    let moved = Event::PlaceMoved { book: book.id(), ppm: 4_000, pass: 1 };
    assert_eq!(subscription.try_next(), Some(moved));
}

#[test]
fn a_turn_without_a_place_is_refused_and_the_turns_before_are_kept() {
    let device = device("phone");
    let book = device.sample();
    let mut session = book.session("test").unwrap();
    session.restored();
    session.turned(at(7_000)).unwrap();

    let refused = session.turned(catchword::Locator::new());
    assert!(matches!(refused, Err(EditError::NoPlace)));
    session.close().unwrap();

    assert_eq!(place(&book), (7_000, 1, Intent::Advance));
}

#[test]
fn every_place_that_was_current_is_in_the_history() {
    let device = device("phone");
    let book = device.sample();
    for ppm in [100_000, 300_000, 50_000] {
        read(&book, ppm);
    }
    let history = book.history().unwrap();
    let mut places = Vec::new();
    for entry in &history {
        if let Deed::Moved { ppm, intent, .. } = &entry.deed {
            places.push((*ppm, *intent));
        }
    }
    let expected =
        [(100_000, Intent::Advance), (300_000, Intent::Advance), (50_000, Intent::Rewind)];
    assert_eq!(places, expected);
    assert!(history.iter().all(|entry| entry.device == Some(device.library.device())));
}

#[test]
fn books_are_listed_last_read_first() {
    let device = device("phone");
    let one = device.sample();
    let path = device.folder.path().join("two.epub");
    let two = catchword_formats::sample::Builder::new("Two").chapter("One", "It rained.").build();
    std::fs::write(&path, two).unwrap();
    let two = device.library.import(path).unwrap().book;
    read(&two, 10);
    assert_eq!(device.library.recent(10).unwrap().len(), 1);
    read(&one, 20);

    let order = |books: Vec<catchword::BookSummary>| {
        books.into_iter().map(|book| book.book).collect::<Vec<_>>()
    };
    assert_eq!(order(device.library.recent(10).unwrap()), [one.id(), two.id()]);
    read(&two, 30);
    assert_eq!(order(device.library.books().unwrap()), [two.id(), one.id()]);
}

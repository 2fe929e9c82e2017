//! A device that gives its books to another, and takes nothing from it; and one that keeps for another
//! what that one has no room for.

use catchword::net::{Reason, State};
use catchword::{Book, NewAnnotation, RemoveError, WHOLE_BOOK};

use crate::net::libraries::{Device, assert_clean, pair, state, sync};
use crate::support::{at, sample_file};

impl Device {
    fn quotes(&self, book: &Book) -> Vec<String> {
        let book = self.library.book(book.id()).unwrap().unwrap();
        let annotations = book.annotations(WHOLE_BOOK).unwrap();
        annotations.into_iter().map(|found| found.quote).collect()
    }

    fn reasons(&self) -> Vec<(State, Option<Reason>)> {
        let lines = self.node.status(None).unwrap().into_iter();
        lines.map(|line| (line.state, line.reason)).collect()
    }
}

fn mark(book: &Book, quote: &str, ppm: u32) {
    book.annotate(NewAnnotation::highlight(quote).at(at(ppm))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_from_whom_books_are_only_given() {
    let (desk, guest) = (Device::new("desk"), Device::new("guest"));
    pair(&desk.node, &guest.node).await;
    desk.node.set_read_only(guest.node.fingerprint(), true).unwrap();
    let book = desk.library.import(sample_file(desk.folder.path())).unwrap().book;
    mark(&book, "from the desk", 1_000);

    assert!(sync(&guest.node, &desk.node).await.in_sync);
    let copy = guest.library.book(book.id()).unwrap().unwrap();
    mark(&copy, "from the guest", 2_000);
    mark(&book, "later, from the desk", 3_000);
    // Each side looks through what differs once, and then knows that the guest lacks nothing.
    for round_trips in [3, 1] {
        let asked = sync(&guest.node, &desk.node).await;
        assert_eq!((asked.in_sync, asked.changes_sent), (true, 0), "{asked:?}");
        let told = sync(&desk.node, &guest.node).await;
        assert_eq!((told.in_sync, told.changes_received), (true, 0), "{told:?}");
        assert_eq!(told.round_trips, round_trips, "{told:?}");
    }
    assert_eq!(desk.quotes(&book), ["from the desk", "later, from the desk"]);
    assert_eq!(guest.quotes(&book).len(), 3);
    assert!(desk.reasons().contains(&(State::Noted, Some(Reason::ReadOnly))));
    let there = guest.reasons();
    assert!(there.contains(&(State::Noted, Some(Reason::ReadOnlyThere))), "{there:?}");
    assert!(there.contains(&(State::InSync, None)), "{there:?}");

    desk.node.set_read_only(guest.node.fingerprint(), false).unwrap();
    assert!(sync(&guest.node, &desk.node).await.in_sync);
    assert_eq!(state(&desk.library), state(&guest.library));
    assert_clean(&desk.library);
    assert_clean(&guest.library);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_is_purged_when_another_device_has_everything_of_it() {
    let (phone, desk) = (Device::new("phone"), Device::new("desk"));
    let file = sample_file(phone.folder.path());
    let book = phone.library.import(&file).unwrap().book;
    let id = book.id();
    let nobody = phone.node.purge(id, None).await;
    assert!(matches!(nobody, Err(RemoveError::OnlyHere)), "{nobody:?}");
    assert!(phone.library.book(id).unwrap().is_some(), "nothing was changed");

    pair(&desk.node, &phone.node).await;
    assert!(sync(&phone.node, &desk.node).await.in_sync);
    mark(&book, "made after the sync", 1_000);
    let before = state(&phone.library);
    // The desk lacks the mark, and gets it by being asked.
    let address = Some(desk.node.address().unwrap());
    assert_eq!(phone.node.purge(id, address).await.unwrap(), desk.node.fingerprint());
    assert!(phone.library.book(id).unwrap().is_none());
    assert_eq!(state(&desk.library), before, "the desk has everything");
    assert_clean(&phone.library);

    // It does not come back by itself, and comes back whole.
    assert!(sync(&phone.node, &desk.node).await.in_sync);
    assert!(phone.library.books().unwrap().is_empty());
    let back = phone.library.import(&file).unwrap().book;
    mark(&back, "before it met the desk again", 2_000);
    assert!(sync(&phone.node, &desk.node).await.in_sync);
    assert_eq!(state(&phone.library), state(&desk.library));
    assert_eq!(phone.quotes(&back), ["made after the sync", "before it met the desk again"]);
    assert_clean(&phone.library);
    assert_clean(&desk.library);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_takes_nothing_keeps_nothing_for_another() {
    let (phone, desk) = (Device::new("phone"), Device::new("desk"));
    let book = phone.library.import(sample_file(phone.folder.path())).unwrap().book;
    pair(&desk.node, &phone.node).await;
    assert!(sync(&phone.node, &desk.node).await.in_sync);
    desk.node.set_read_only(phone.node.fingerprint(), true).unwrap();
    phone.library.remove(book.id()).unwrap();

    let address = Some(desk.node.address().unwrap());
    let refused = phone.node.purge(book.id(), address).await;
    assert!(matches!(refused, Err(RemoveError::OnlyHere)), "{refused:?}");
    assert!(phone.library.books().unwrap().is_empty(), "it stays removed");
    desk.node.set_read_only(phone.node.fingerprint(), false).unwrap();
    assert!(phone.node.purge(book.id(), address).await.is_ok(), "a removed book can be purged");
    desk.node.close().await;
    let gone = phone.node.purge(book.id(), address).await;
    assert!(matches!(gone, Err(RemoveError::OnlyHere)), "nobody can be asked: {gone:?}");
}

//! A device that gives its books to another, and takes nothing from it.

use catchword::net::{Node, Reason, State};
use catchword::{Book, Config, Library, NewAnnotation, WHOLE_BOOK};
use tempfile::TempDir;

use crate::net::libraries::{assert_clean, listen, pair, state, sync};
use crate::support::{at, sample_file};

struct Device {
    node: Node,
    library: Library,
    folder: TempDir,
}

impl Device {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default().with_device_name(name);
        let library = Library::create(folder.path().join("library"), config).unwrap();
        Self { node: listen(&library), library, folder }
    }

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

//! Book files between real devices: on request, in parts, from whoever has them.

use std::fs;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use catchword::net::{FetchError, FetchFailure, FetchProgress, FetchReport, PeerScope};
use catchword::{Book, ReadError};
use catchword_formats::sample::Builder;
use catchword_model::identity::Fingerprint;
use catchword_proto::blob::RANGE_BYTES_MAX;

use crate::net::libraries::{Device, pair, sync};
use crate::net::report;

const RANGE: u64 = RANGE_BYTES_MAX as u64;
const RANGE_LENGTH: usize = RANGE_BYTES_MAX as usize;

impl Device {
    /// Imports a book of about so many parts, and returns it with its bytes.
    fn import(&self, parts: usize) -> (Book, Vec<u8>) {
        let text = "It rained, and nobody came. ".repeat(parts * RANGE_LENGTH / 28);
        let bytes = Builder::new("Rain").author("Ana").chapter("One", &text).build();
        let path = self.folder.path().join("rain.epub");
        fs::write(&path, &bytes).unwrap();
        (self.library.import(&path).unwrap().book, bytes)
    }

    fn book(&self, of: &Book) -> Book {
        self.library.book(of.id()).unwrap().unwrap()
    }

    /// Where the file of a book is kept.
    fn place(&self, book: &Book) -> PathBuf {
        let name = book.id().to_string();
        self.folder.path().join("library/files").join(&name[..2]).join(&name)
    }

    fn whereabouts(&self) -> (Fingerprint, Option<SocketAddr>) {
        (self.node.fingerprint(), Some(self.node.address().unwrap()))
    }

    async fn fetch(&self, book: &Book) -> Result<FetchReport, FetchError> {
        self.node.fetch(book.id(), None, |_| ControlFlow::Continue(())).await
    }
}

/// Pairs them, and tells the first what the second knows.
async fn meet(one: &Device, other: &Device) {
    pair(&other.node, &one.node).await;
    assert!(sync(&one.node, &other.node).await.in_sync);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_travels_when_it_is_asked_for() {
    let (phone, tablet) = (Device::new("phone"), Device::new("tablet"));
    let (original, bytes) = tablet.import(3);
    meet(&phone, &tablet).await;

    let book = phone.book(&original);
    assert!(matches!(book.file(), Err(ReadError::NoFile)), "no file travels by itself");
    let fetched = phone.fetch(&book).await.unwrap();
    let size = bytes.len() as u64;
    assert_eq!((fetched.bytes, fetched.bytes_received), (size, size));
    assert_eq!(fetched.from, [tablet.node.fingerprint()].into());
    assert!(fetched.damaged.is_empty());
    assert_eq!(fs::read(phone.place(&book)).unwrap(), bytes);
    assert_eq!(book.file().unwrap().title.as_deref(), Some("Rain"));

    let again = phone.fetch(&book).await.unwrap();
    assert_eq!((again.bytes, again.bytes_received), (size, 0), "it is here");
    // That this device has it now is all that there is to say.
    let told = sync(&phone.node, &tablet.node).await;
    assert_eq!((told.changes_sent, told.changes_received), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_where_it_was_stopped() {
    let (phone, tablet) = (Device::new("phone"), Device::new("tablet"));
    let (original, bytes) = tablet.import(5);
    meet(&phone, &tablet).await;
    let book = phone.book(&original);

    let stop = |progress: FetchProgress| {
        if 2 * RANGE <= progress.bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = phone.node.fetch(book.id(), None, stop).await;
    assert!(matches!(stopped, Err(FetchError::Stopped)), "{stopped:?}");
    assert!(matches!(book.file(), Err(ReadError::NoFile)), "a part is not visible");

    let kept = fs::metadata(phone.place(&book).with_extension("part")).unwrap().len();
    assert!(2 * RANGE <= kept && kept < bytes.len() as u64, "{kept} bytes were kept");
    // Another process would go on just so: nothing but the part is remembered.
    let fetched = phone.fetch(&book).await.unwrap();
    assert_eq!(fetched.bytes_received, bytes.len() as u64 - kept);
    assert_eq!(fs::read(phone.place(&book)).unwrap(), bytes);
    assert!(!phone.place(&book).with_extension("part").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_book_is_never_visible() {
    let (phone, tablet) = (Device::new("phone"), Device::new("tablet"));
    let (original, bytes) = tablet.import(2);
    meet(&phone, &tablet).await;
    let book = phone.book(&original);

    // What came before is wrong: the power was cut, say.
    let part = phone.place(&book).with_extension("part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, vec![7; RANGE_LENGTH]).unwrap();
    let fetched = phone.fetch(&book).await.unwrap();
    assert_eq!(fs::read(phone.place(&book)).unwrap(), bytes);
    assert!((bytes.len() as u64) < fetched.bytes_received && fetched.damaged.is_empty());

    // The copy over there is damaged: it is not given away.
    phone.library.remove(book.id()).unwrap();
    phone.library.import(tablet.folder.path().join("rain.epub")).unwrap();
    fs::remove_file(phone.place(&book)).unwrap();
    let mut damaged = bytes.clone();
    damaged[4_711] ^= 1;
    fs::write(tablet.place(&original), damaged).unwrap();
    let refused = phone.fetch(&book).await;
    assert!(matches!(refused, Err(FetchError::Failed(FetchFailure::Nowhere))), "{refused:?}");
    assert!(matches!(book.file(), Err(ReadError::NoFile)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_given_to_whom_the_book_is_given() {
    let (phone, tablet) = (Device::new("phone"), Device::new("tablet"));
    let (original, _) = tablet.import(1);
    meet(&phone, &tablet).await;
    let book = phone.book(&original);

    let nothing = PeerScope::Chosen { shelves: [].into(), books: [].into() };
    tablet.node.scope(phone.node.fingerprint(), &nothing).unwrap();
    let refused = phone.fetch(&book).await;
    assert!(matches!(refused, Err(FetchError::Failed(FetchFailure::Nowhere))), "{refused:?}");
    tablet.node.scope(phone.node.fingerprint(), &PeerScope::All).unwrap();
    // The phone was met at this address before.
    assert!(phone.fetch(&book).await.is_ok());

    let unknown = catchword::BookId([9; 32]);
    let nobody = phone.node.fetch(unknown, None, |_| ControlFlow::Continue(())).await;
    assert!(matches!(nobody, Err(FetchError::NoBook)), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_said_and_so_is_why() {
    let (phone, tablet) = (Device::new("phone"), Device::new("tablet"));
    let (original, _) = tablet.import(1);
    meet(&phone, &tablet).await;
    let (book, from) = (phone.book(&original), tablet.whereabouts());
    tablet.node.close().await;

    let all = phone.fetch(&book).await;
    assert!(matches!(all, Err(FetchError::Failed(FetchFailure::NoSource))), "{all:?}");
    let one = phone.node.fetch(book.id(), Some(from), |_| ControlFlow::Continue(())).await;
    assert!(matches!(one, Err(FetchError::Peer(_))), "{one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_give_one_file_and_one_of_them_goes_away() {
    let (phone, tablet, reader) =
        (Device::new("phone"), Device::new("tablet"), Device::new("reader"));
    let (original, bytes) = tablet.import(24);
    meet(&phone, &tablet).await;
    meet(&phone, &reader).await;
    let copy = reader.import(24).0;
    assert_eq!(copy.id(), original.id());
    assert!(sync(&phone.node, &reader.node).await.in_sync);

    let book = phone.book(&original);
    let (leave, left) = tokio::sync::oneshot::channel();
    let mut leave = Some(leave);
    let closing = Arc::clone(&tablet.node);
    let going = tokio::spawn(async move {
        left.await.unwrap();
        closing.close().await;
    });
    let fetched = phone.node.fetch(book.id(), None, |progress| {
        if 6 * RANGE <= progress.bytes
            && let Some(leave) = leave.take()
        {
            leave.send(()).unwrap();
        }
        ControlFlow::Continue(())
    });
    let fetched = fetched.await.unwrap();
    going.await.unwrap();
    assert_eq!(fs::read(phone.place(&book)).unwrap(), bytes);
    assert_eq!(fetched.from, [&tablet, &reader].map(|it| it.node.fingerprint()).into());
    report(&format!(
        "fetch: {} bytes from two devices, one left; {} came",
        fetched.bytes, fetched.bytes_received
    ));
}

//! Libraries on loopback, and what must be equal on those that are in sync.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;

use catchword::net::{Hosting, Join, Node, NodeConfig, SyncReport};
use catchword::{Config, Library, Repair, WHOLE_BOOK};
use tempfile::TempDir;

/// A library on loopback, in a folder that goes when the test ends.
pub(crate) struct Device {
    pub(crate) node: Arc<Node>,
    pub(crate) library: Library,
    pub(crate) folder: TempDir,
}

impl Device {
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default().with_device_name(name);
        let library = Library::create(folder.path().join("library"), config).unwrap();
        Self { node: Arc::new(listen(&library)), library, folder }
    }
}

/// Puts a library on loopback.
pub(crate) fn listen(library: &Library) -> Node {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Node::start(library, &NodeConfig::default().with_listen(Some(loopback))).unwrap()
}

/// Lets two devices know each other.
pub(crate) async fn pair(host: &Node, joiner: &Node) {
    let hosted = host.host(Hosting::default()).unwrap();
    let (qr, key) = (hosted.qr.clone(), hosted.key.clone());
    let told = joiner.join(&Join::Scanned { qr, key, address: None }).await.unwrap();
    assert_eq!(told.fingerprint, host.fingerprint());
    assert_eq!(hosted.wait().await.unwrap().fingerprint, joiner.fingerprint());
}

/// Syncs, as the device that dials.
pub(crate) async fn sync(from: &Node, to: &Node) -> SyncReport {
    from.sync(to.fingerprint(), Some(to.address().unwrap())).await.unwrap()
}

/// What a person sees, book by book.
pub(crate) fn state(library: &Library) -> Vec<String> {
    let mut books = library.books().unwrap();
    books.sort_by_key(|book| book.book);
    let books = books.into_iter().map(|found| {
        let book = library.book(found.book).unwrap().unwrap();
        let annotations = book.annotations(WHOLE_BOOK).unwrap();
        format!("{:?} {annotations:?}", book.view().unwrap())
    });
    books.collect()
}

/// Everything derived is what the log says.
pub(crate) fn assert_clean(library: &Library) {
    let mut go_on = |_| ControlFlow::Continue(());
    let checked = library.check(Repair::ReportOnly, &mut go_on).unwrap();
    assert!(checked.library.is_clean(), "{checked:?}");
}

//! A server in this process, and devices that use it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use catchword::net::cloud::{Cloud, CloudReport, Credentials, ServerAddress};
use catchword::{BookId, Config, Library, Locator, NewAnnotation};
use catchword_server::app::{AddressFrom, App, Policy, Routes, SignUp};
use catchword_server::ledger::{Ledger, RedbLedger};
use catchword_server::serve;
use redb::backends::InMemoryBackend;
use tempfile::TempDir;
use tokio::sync::watch;

const OPEN: Policy = Policy { sign_up: SignUp::Open, address: AddressFrom::Connection };
pub(crate) const PASSWORD: &str = "correct horse";

/// A server in a thread of its own.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    pub(crate) ledger: Arc<dyn Ledger>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves a ledger in memory.
    pub(crate) fn start() -> Self {
        Self::over(ledger(), "127.0.0.1:0")
    }

    /// Serves a ledger at a given place.
    pub(crate) fn over(ledger: Arc<dyn Ledger>, at: &str) -> Self {
        let (end, ending) = watch::channel(false);
        let (told, listening) = std::sync::mpsc::channel();
        let (served, at) = (Arc::clone(&ledger), at.to_owned());
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(at).await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let app = App::new(served, OPEN, ending).unwrap();
                let router = Routes::all().serve(Arc::clone(&app));
                serve::serve(listener, None, app, router).await;
            });
        });
        Self { at: listening.recv().unwrap(), ledger, end, thread: Some(thread) }
    }

    pub(crate) fn credentials(&self, user: &str) -> Credentials {
        let address = ServerAddress::parse(&format!("http://{}", self.at), false).unwrap();
        Credentials::new(address, user, PASSWORD)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.send_replace(true);
        self.thread.take().map(JoinHandle::join);
    }
}

pub(crate) fn ledger() -> Arc<dyn Ledger> {
    let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
    Arc::new(RedbLedger::over(database).unwrap())
}

/// A library with its cloud.
pub(crate) struct Device {
    pub(crate) library: Library,
    pub(crate) cloud: Cloud,
    pub(crate) folder: TempDir,
}

impl Device {
    pub(crate) fn new(name: &str) -> Self {
        Self::with_clock(name, 0)
    }

    /// A device whose clock is off by so much.
    pub(crate) fn with_clock(name: &str, offset_ms: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default().with_device_name(name).with_clock_offset_ms(offset_ms);
        let library = Library::open_with(folder.path().join("library"), config).unwrap();
        let cloud = Cloud::of(&library);
        Self { library, cloud, folder }
    }

    /// Takes in the same book as everybody.
    pub(crate) fn import(&self) -> BookId {
        self.import_sample(0)
    }

    pub(crate) fn import_sample(&self, number: usize) -> BookId {
        let sample = catchword_formats::sample::all().swap_remove(number);
        let file = self.folder.path().join(format!("{number}.epub"));
        std::fs::write(&file, sample.bytes).unwrap();
        self.library.import(&file).unwrap().book.id()
    }

    pub(crate) fn annotate(&self, book: BookId, quote: &str) {
        let book = self.library.book(book).unwrap().unwrap();
        book.annotate(NewAnnotation::highlight(quote).at(at(1_000))).unwrap();
    }

    /// Reads to a place, in a session of one page.
    pub(crate) fn read(&self, book: BookId, ppm: u32) {
        let mut session = self.library.book(book).unwrap().unwrap().session("test").unwrap();
        session.restored();
        session.turned(at(ppm)).unwrap();
        session.close().unwrap();
    }

    pub(crate) fn place(&self, book: BookId) -> Option<u32> {
        let place = self.library.book(book).unwrap()?.place().unwrap();
        place.map(|place| place.position.ppm)
    }

    pub(crate) fn quotes(&self, book: BookId) -> Vec<String> {
        let book = self.library.book(book).unwrap().unwrap();
        let annotations = book.annotations(catchword::WHOLE_BOOK).unwrap();
        let mut quotes: Vec<_> = annotations.into_iter().map(|found| found.quote).collect();
        quotes.sort_unstable();
        quotes
    }

    pub(crate) async fn sign_up(&self, server: &Server, user: &str) {
        self.cloud.sign_up(&server.credentials(user)).await.unwrap();
    }

    pub(crate) async fn sign_in(&self, server: &Server, user: &str) {
        self.cloud.sign_in(&server.credentials(user)).await.unwrap();
    }

    pub(crate) async fn sync(&self) -> CloudReport {
        self.cloud.sync().await.unwrap()
    }

    /// Returns whether any file of the library holds these bytes.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        found_in(self.folder.path(), bytes)
    }
}

fn found_in(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return found_in(&path, bytes);
        }
        let content = std::fs::read(&path).unwrap_or_default();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

pub(crate) fn at(ppm: u32) -> Locator {
    Locator::new().with_total_ppm(ppm)
}

/// Runs a test on a runtime of its own.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(work)
}

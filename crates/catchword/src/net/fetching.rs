//! Fetches the file of a book from paired devices: the machine decides, this carries and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catchword_model::id::BookId;
use catchword_model::identity::Fingerprint;
use catchword_proto::blob::fetch::{Event, Failure, Fetch, Input, Transmit};
use catchword_proto::blob::path_of;
use catchword_proto::request::SigningClock;
use catchword_proto::trust::PeerState;
use catchword_store::{FileError, PartialFile};
use tokio::task::{JoinSet, spawn_blocking};

use crate::error::{Cause, ImportError};
use crate::library::Library;
use crate::net::call::Ask;
use crate::net::keeping::Shared;
use crate::net::meeting::{Line, SyncError};
use crate::net::syncing::METHOD;

/// How often whoever waits is asked whether to go on.
const LOOK: Duration = Duration::from_millis(100);

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchProgress {
    /// Bytes that are here, those of an earlier attempt included.
    pub bytes: u64,
    /// Bytes that the file has, as other devices say; 0 until one has said so.
    pub size: u64,
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchReport {
    /// Of which book.
    pub book: BookId,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes that came now; 0 if the file was here.
    pub bytes_received: u64,
    /// Who gave something.
    pub from: BTreeSet<Fingerprint>,
    /// Whose copy is not the book.
    pub damaged: BTreeSet<Fingerprint>,
}

/// A file was not fetched. What came of it is kept, and the next attempt goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The library does not show this book.
    #[error("this book is not in the library")]
    NoBook,
    /// It is being fetched.
    #[error("this file is being fetched already")]
    Running,
    /// No device gave it.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The one device that was asked could not be reached.
    #[error(transparent)]
    Peer(#[from] SyncError),
    /// Whoever waited for it gave up.
    #[error("stopped; what came is kept, and the next attempt goes on from there")]
    Stopped,
    /// The disk refused, or the library lives in no folder.
    #[error("cannot keep the file")]
    Io(#[source] Cause),
    /// The file is here, but what it says could not be added to the library.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Books whose files are being fetched.
#[derive(Debug, Default)]
pub(crate) struct Errands(Mutex<BTreeSet<BookId>>);

/// Ends the errand when it is dropped.
struct Errand<'a>(&'a Errands, BookId);

impl Errands {
    fn begin(&self, book: BookId) -> Option<Errand<'_>> {
        let is_new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(book);
        is_new.then_some(Errand(self, book))
    }
}

impl Drop for Errand<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// What one of the tasks of a fetch has done.
enum Done {
    Reached(Fingerprint, Result<Box<Line>, SyncError>),
    Asked(Input),
}

impl Shared {
    /// Fetches the file of a book: from one peer, or from everyone who has it.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        book: BookId,
        from: Option<(Fingerprint, Option<SocketAddr>)>,
        mut progress: impl FnMut(FetchProgress) -> ControlFlow<()>,
    ) -> Result<FetchReport, FetchError> {
        let Some(_errand) = self.errands.begin(book) else { return Err(FetchError::Running) };
        let library = self.library.clone();
        let (here, partial) = blocking(move || begin(&library, book)).await?;
        if let Some(bytes) = here {
            let (from, damaged) = (BTreeSet::new(), BTreeSet::new());
            return Ok(FetchReport { book, bytes, bytes_received: 0, from, damaged });
        }
        let Some(partial) = partial else { return Err(FetchError::NoBook) };
        let run = Run::new(Arc::clone(self), book, partial, from);
        let (partial, report) = run.carry_through(&mut progress).await?;
        let library = self.library.clone();
        blocking(move || {
            let bytes = partial.finish().map_err(file)?;
            library.adopt_file(book)?;
            Ok(FetchReport { bytes, ..report })
        })
        .await
    }

    /// Asks a peer for a part of a file.
    async fn ask(
        self: Arc<Self>,
        line: Arc<Line>,
        book: BookId,
        transmit: Transmit,
        mut clock: SigningClock,
    ) -> (Input, SigningClock) {
        let Transmit { source, range } = transmit;
        let (path, body) = (path_of(book), range.encode());
        let ask = Ask { method: METHOD, path: &path, body: &body };
        let called = line.connection.call(&line.channel, &mut clock, || self.now_ms(), ask).await;
        let input = match called {
            Ok(reply) => Input::Answered { source, range, status: reply.status, body: reply.body },
            Err(error) => {
                // What it means beyond this fetch, the next sync tells as well.
                let _told = self.broken(source, error);
                Input::Lost(source)
            }
        };
        (input, clock)
    }
}

/// Returns how long the file is if it is here, or else the beginning of it.
fn begin(
    library: &Library,
    book: BookId,
) -> Result<(Option<u64>, Option<PartialFile>), FetchError> {
    let store = &library.core().store;
    let read = |error| FetchError::Import(ImportError::Edit(crate::error::EditError::load(error)));
    if store.book(book).map_err(read)?.is_none() || store.is_removed(book).map_err(read)? {
        return Err(FetchError::NoBook);
    }
    match store.open_file(book) {
        Ok(found) => {
            let bytes = found.metadata().map_err(|error| FetchError::Io(error.into()))?.len();
            // A crash may have come between the file and the note that it is here.
            if store.file_record(book).map_err(read)?.is_none() {
                library.adopt_file(book)?;
            }
            return Ok((Some(bytes), None));
        }
        Err(FileError::Damaged) => store.drop_file(book).map_err(file)?,
        Err(FileError::Missing) => (),
        Err(error @ (FileError::NoFolder | FileError::Io(_))) => return Err(file(error)),
    }
    Ok((None, Some(store.partial_file(book).map_err(file)?)))
}

fn file(error: FileError) -> FetchError {
    FetchError::Io(error.into())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let gone = |error: tokio::task::JoinError| FetchError::Io(std::io::Error::other(error).into());
    spawn_blocking(work).await.map_err(gone)?
}

/// One fetch, while it runs.
struct Run {
    shared: Arc<Shared>,
    machine: Fetch,
    /// `None` while something is written.
    partial: Option<PartialFile>,
    lines: BTreeMap<Fingerprint, Arc<Line>>,
    /// What was learned of their clocks.
    clocks: BTreeMap<Fingerprint, SigningClock>,
    tasks: JoinSet<(Done, Option<SigningClock>)>,
    /// Devices that are being dialled.
    dialling: usize,
    /// Whether one device alone is asked.
    is_one: bool,
    /// Why a device was not reached.
    unreached: Option<SyncError>,
    size: u64,
    report: FetchReport,
}

impl Run {
    fn new(
        shared: Arc<Shared>,
        book: BookId,
        partial: PartialFile,
        from: Option<(Fingerprint, Option<SocketAddr>)>,
    ) -> Self {
        let (is_one, damaged) = (from.is_some(), BTreeSet::new());
        let peers: Vec<_> = match from {
            Some(one) => vec![one],
            None => shared
                .peers
                .records()
                .into_iter()
                .filter(|it| matches!(it.state, PeerState::Active | PeerState::Provisional))
                .map(|record| (record.fingerprint, None))
                .collect(),
        };
        let mut tasks = JoinSet::new();
        for (peer, address) in &peers {
            let (shared, peer, address) = (Arc::clone(&shared), *peer, *address);
            tasks.spawn(async move {
                (Done::Reached(peer, shared.connect(peer, address).await.map(Box::new)), None)
            });
        }
        let report =
            FetchReport { book, bytes: 0, bytes_received: 0, from: BTreeSet::new(), damaged };
        let (machine, partial) = (Fetch::new(), Some(partial));
        let (lines, clocks) = (BTreeMap::new(), BTreeMap::new());
        let dialling = peers.len();
        Self {
            shared,
            machine,
            partial,
            lines,
            clocks,
            tasks,
            dialling,
            is_one,
            unreached: None,
            size: 0,
            report,
        }
    }

    async fn carry_through(
        mut self,
        progress: &mut impl FnMut(FetchProgress) -> ControlFlow<()>,
    ) -> Result<(PartialFile, FetchReport), FetchError> {
        let written = self.bytes();
        self.machine.handle_input(Input::Start { written }, Instant::now());
        if self.dialling == 0 {
            self.machine.handle_input(Input::AllKnown, Instant::now());
        }
        loop {
            while let Some(event) = self.machine.poll_event() {
                if let Event::Ended(ending) = event {
                    return self.ended(ending);
                }
                self.carry_out(event).await?;
            }
            while let Some(transmit) = self.machine.poll_transmit() {
                self.send(transmit);
            }
            let now = FetchProgress { bytes: self.bytes(), size: self.size };
            if progress(now).is_break() {
                return Err(FetchError::Stopped);
            }
            let next = Instant::now() + LOOK;
            let next = self.machine.poll_timeout().map_or(next, |deadline| deadline.min(next));
            tokio::select! {
                Some(done) = self.tasks.join_next() => {
                    // A task is aborted only together with this.
                    if let Ok((done, clock)) = done {
                        self.done(done, clock);
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {
                    self.machine.handle_timeout(Instant::now());
                }
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.partial.as_ref().map_or(0, PartialFile::bytes)
    }

    fn ended(
        mut self,
        ending: Result<(), Failure>,
    ) -> Result<(PartialFile, FetchReport), FetchError> {
        let unreached = self.unreached.take().filter(|_| self.is_one);
        match (ending, unreached, self.partial.take()) {
            (Ok(()), _, Some(partial)) => Ok((partial, self.report)),
            (Err(Failure::NoSource), Some(why), _) => Err(why.into()),
            (Err(failure), ..) => Err(failure.into()),
            (Ok(()), _, None) => Err(Failure::Lost.into()),
        }
    }

    async fn carry_out(&mut self, event: Event) -> Result<(), FetchError> {
        match event {
            Event::Size(size) => self.size = size,
            Event::Write(bytes) => {
                self.report.bytes_received += bytes.len() as u64;
                self.on_disk(move |partial| partial.append(&bytes)).await?;
            }
            Event::Discard => self.on_disk(PartialFile::discard).await?,
            Event::Verify => {
                let is_book = self.partial.as_ref().is_some_and(PartialFile::is_book);
                self.machine.handle_input(Input::Verified(is_book), Instant::now());
            }
            Event::Barred(peer) => {
                self.report.damaged.insert(peer);
                self.report.from.remove(&peer);
            }
            Event::Ended(_) => (),
        }
        Ok(())
    }

    async fn on_disk(
        &mut self,
        work: impl FnOnce(&mut PartialFile) -> Result<(), FileError> + Send + 'static,
    ) -> Result<(), FetchError> {
        let Some(mut partial) = self.partial.take() else { return Ok(()) };
        let written = blocking(move || {
            work(&mut partial).map_err(file)?;
            Ok(partial)
        });
        self.partial = Some(written.await?);
        Ok(())
    }

    fn send(&mut self, transmit: Transmit) {
        let Some(line) = self.lines.get(&transmit.source).cloned() else { return };
        let (shared, book) = (Arc::clone(&self.shared), self.report.book);
        let clock = self.clocks.get(&transmit.source).copied().unwrap_or_default();
        self.tasks.spawn(async move {
            let (input, clock) = shared.ask(line, book, transmit, clock).await;
            (Done::Asked(input), Some(clock))
        });
    }

    fn done(&mut self, done: Done, clock: Option<SigningClock>) {
        let input = match done {
            Done::Reached(peer, reached) => {
                self.dialling -= 1;
                match reached {
                    Ok(line) => {
                        self.lines.insert(peer, Arc::from(line));
                        self.machine.handle_input(Input::Joined(peer), Instant::now());
                    }
                    Err(error) => self.unreached = Some(error),
                }
                if 0 < self.dialling {
                    return;
                }
                Input::AllKnown
            }
            Done::Asked(input) => {
                if let Input::Answered { source, body, .. } = &input {
                    self.clocks.extend(clock.map(|clock| (*source, clock)));
                    // The first answer has one byte, and says that it has the file.
                    if 9 < body.len() {
                        self.report.from.insert(*source);
                    }
                }
                input
            }
        };
        self.machine.handle_input(input, Instant::now());
    }
}

//! Gives paired devices the files of books that are exchanged with them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use catchword_model::id::BookId;
use catchword_proto::blob::{Range, encode_part};
use catchword_proto::request::{Channel, Status};
use tokio::task::spawn_blocking;

use crate::library::Library;
use crate::net::call::{CallError, Incoming};
use crate::net::ledger::Ledger;

/// The file that the peer at the other end of one connection is reading.
#[derive(Debug)]
pub(crate) struct Lender {
    library: Library,
    open: Option<Lent>,
}

/// A file that was verified when it was opened.
#[derive(Debug)]
struct Lent {
    book: BookId,
    file: File,
    size: u64,
}

impl Lender {
    pub(crate) fn new(library: &Library) -> Self {
        Self { library: library.clone(), open: None }
    }

    /// Answers a request for a part of a book's file.
    pub(crate) async fn respond(
        &mut self,
        book: BookId,
        incoming: Incoming,
        channel: &Channel,
        ledger: &Arc<Ledger>,
    ) -> Result<(), CallError> {
        let (status, body) = match Range::decode(incoming.body()) {
            Err(_) => (Status::MALFORMED, Vec::new()),
            // A scope may have changed since the last part.
            Ok(_) if !ledger.gives(book).await => (Status::UNKNOWN_DOCUMENT, Vec::new()),
            Ok(range) => self.part(book, range).await,
        };
        incoming.respond(channel, status, &body).await.map(|_| ())
    }

    async fn part(&mut self, book: BookId, range: Range) -> (Status, Vec<u8>) {
        let kept = self.open.take().filter(|lent| lent.book == book);
        let library = self.library.clone();
        let read = spawn_blocking(move || {
            let mut lent = match kept {
                Some(lent) => lent,
                None => open(&library, book)?,
            };
            let body = lent.read(range).ok()?;
            Some((lent, body))
        });
        // A copy that is not here, and one that is not the book, are the same to the peer.
        let Ok(Some((lent, body))) = read.await else {
            return (Status::UNKNOWN_DOCUMENT, Vec::new());
        };
        self.open = Some(lent);
        (Status::OK, body)
    }
}

fn open(library: &Library, book: BookId) -> Option<Lent> {
    let file = library.core().store.open_file(book).ok()?;
    let size = file.metadata().ok()?.len();
    Some(Lent { book, file, size })
}

impl Lent {
    fn read(&mut self, range: Range) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; range.within(self.size)];
        self.file.seek(SeekFrom::Start(range.offset))?;
        self.file.read_exact(&mut bytes)?;
        Ok(encode_part(self.size, &bytes))
    }
}

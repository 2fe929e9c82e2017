//! What is given to peers and taken from them: pieces, cut in the order in which this device received
//! or made everything, and decided in one transaction each.
//!
//! # Invariants
//!
//! 1. Every local sequence stands in one run of `received`, which names the peer that brought it.
//! 2. A transaction of received changes ends, of each actor, at one with a statement; so whatever
//!    counts can be passed on.
//! 3. A mark of a peer moves in the transaction that decided what it stands for, never before.
//! 4. The witness knows of a sequence before anybody else does.
//!
//! # What is not here
//!
//! When to sync and with whom, and the conversation itself: a session carries pieces unread.

mod accept;
mod ahead;
mod arrivals;
mod common;
mod forks;
mod gather;
mod parked;
mod peers;
mod pool;
mod standing;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::id::{ActorId, BookId, DocumentId, Generation};
use catchword_model::identity::Fingerprint;
use redb::WriteTransaction;

use crate::Store;
use crate::bytes::{Reader, Writer};
use crate::error::{LoadError, load};
use crate::{meta, tables};

pub use accept::{Applied, ApplyError, Bounds, Delivery, Equivocation, Fate};
pub use ahead::{Ahead, STAMP_AHEAD_MS};
pub(crate) use arrivals::delete as delete_arrivals;
pub(crate) use common::item_of;
pub use common::{Item, Span, Spot};
pub(crate) use forks::{Again, Anew, delete as delete_void, to_do};
pub use forks::{VOID_BRANCHES_MAX, VOID_MAX};
pub(crate) use gather::Within;
pub use gather::{CollectError, Collected, Given};
pub use parked::Waiting;
pub use peers::{EXCLUSIONS_MAX, Exclusions, Heard, Local, Pause, Quarantine, Said};
pub use standing::Standing;

/// A statement is made for every change whose number is a multiple of this.
pub const STATEMENT_INTERVAL: u64 = 512;
/// A statement is made wherever the encoded bytes of an actor's changes pass a multiple of this.
pub const STATEMENT_BYTES: u64 = 1 << 20;
/// Changes and events of one document, brought by one peer, that wait for something.
pub const PARKED_MAX: usize = 1_024;
/// The same in bytes.
pub const PARKED_BYTES_MAX: u64 = 4 << 20;
/// Everything that waits in a library, in bytes.
pub const PARKED_ALL_BYTES_MAX: u64 = 64 << 20;
/// What a piece is cut at: unpacked content, in bytes, before what closes it is added.
///
/// What a peer holds in memory while it applies a piece is about five times that.
pub const PIECE_CONTENT_BYTES: usize = 2 << 20;

/// Sizes that tests make small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeOptions {
    /// In place of [`STATEMENT_INTERVAL`].
    pub statement_interval: u64,
    /// In place of [`PARKED_MAX`].
    pub parked_max: usize,
    /// In place of [`PIECE_CONTENT_BYTES`]. A piece holds at least one change or event.
    pub piece_content_bytes: usize,
}

impl Default for ExchangeOptions {
    fn default() -> Self {
        Self {
            statement_interval: STATEMENT_INTERVAL,
            parked_max: PARKED_MAX,
            piece_content_bytes: PIECE_CONTENT_BYTES,
        }
    }
}

/// A peer in one generation of its store: who brought a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Which peer.
    pub peer: Fingerprint,
    /// In which generation.
    pub generation: Generation,
}

impl Origin {
    const LEN: usize = 48;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (peer, generation) = bytes.split_at_mut(Fingerprint::LEN);
        peer.copy_from_slice(&self.peer.0);
        generation.copy_from_slice(&self.generation.0);
        bytes
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, LoadError> {
        let peer = Fingerprint(input.fixed()?);
        Ok(Self { peer, generation: Generation(input.fixed()?) })
    }
}

/// Which books a peer gets, and may bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them, and the library document, which names every book.
    All,
    /// These.
    Books(BTreeSet<BookId>),
}

impl Scope {
    fn holds(&self, subject: Subject) -> bool {
        match (self, subject) {
            (Self::All, _) => true,
            (Self::Books(books), Subject::Book(book)) => books.contains(&book),
            (Self::Books(_), Subject::Library) => false,
        }
    }

    /// Returns whether a document is in the scope, whether or not it is here.
    fn holds_document(&self, id: DocumentId) -> bool {
        match self {
            Self::All => true,
            Self::Books(books) => {
                let is_of = |book: &BookId| book.document() == id || book.notes_document() == id;
                books.iter().any(is_of)
            }
        }
    }
}

/// What is excluded as a whole: a book with its notes, or the library document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Library,
    Book(BookId),
}

impl Subject {
    /// Returns the bytes under which it is paused or quarantined.
    pub(crate) fn bytes(self) -> [u8; 32] {
        match self {
            Self::Library => DocumentId::library().0,
            Self::Book(book) => book.0,
        }
    }

    /// Returns the documents by which exclusions name it.
    pub(crate) fn documents(self) -> Vec<DocumentId> {
        match self {
            Self::Library => vec![DocumentId::library()],
            Self::Book(book) => vec![book.document(), book.notes_document()],
        }
    }
}

/// The other side of an exchange, and what it may have.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    /// Who.
    pub origin: Origin,
    /// Which books are exchanged with it.
    pub scope: &'a Scope,
    /// The first 8 bytes of the MAC by which the two name a document that is excluded.
    pub mac: &'a dyn Fn(DocumentId) -> [u8; 8],
    /// The wall clock, in milliseconds since the Unix epoch: a quarantine ends.
    pub now_ms: u64,
}

impl std::fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Store {
    /// Makes the sizes of the exchange others than they are.
    pub fn set_exchange_options(&self, options: ExchangeOptions) {
        self.lock().exchange = options;
    }
}

/// A change or event that has a local sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) number: u32,
    /// Absent for what was made here.
    pub(crate) origin: Option<Origin>,
}

/// Number of the document, 0 for changes or 1 for events, writer place, seq or number of the event.
pub(crate) type StatementKey = (u32, u8, u16, u64);

/// What the next transaction writes of the exchange.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    arrivals: BTreeMap<u64, Arrival>,
    pub(crate) event_order: BTreeMap<(u32, u64), (ActorId, u64)>,
    /// Statements that come, or go.
    pub(crate) statements: BTreeMap<StatementKey, Option<Vec<u8>>>,
    pub(crate) parked: BTreeMap<(DocumentId, u64), Option<Vec<u8>>>,
    pub(crate) marks: BTreeMap<Origin, Vec<u8>>,
    pub(crate) paused: BTreeMap<[u8; 32], Vec<u8>>,
    pub(crate) quarantine: BTreeMap<(Fingerprint, [u8; 32]), Vec<u8>>,
    pub(crate) ahead: Option<Ahead>,
    pub(crate) void: BTreeMap<(DocumentId, [u8; 32]), Option<Vec<u8>>>,
    /// The document that was laid out anew is whole again.
    pub(crate) is_anew: bool,
    /// This device's present generation forked.
    pub(crate) is_forked: bool,
}

impl Staged {
    pub(crate) fn is_clean(&self) -> bool {
        self.arrivals.is_empty()
            && self.statements.is_empty()
            && self.parked.is_empty()
            && self.marks.is_empty()
            && self.paused.is_empty()
            && self.quarantine.is_empty()
            && self.ahead.is_none()
            && self.void.is_empty()
            && !self.is_anew
            && !self.is_forked
    }

    /// Notes that something of a document takes a local sequence, made here unless more is said.
    pub(crate) fn arrive(&mut self, sequence: u64, number: u32) {
        self.arrivals.insert(sequence, Arrival { number, origin: None });
    }

    pub(crate) fn came_from(&mut self, sequence: u64, origin: Origin) {
        if let Some(arrival) = self.arrivals.get_mut(&sequence) {
            arrival.origin = Some(origin);
        }
    }

    pub(crate) fn forget(&mut self, number: u32) {
        self.arrivals.retain(|_, arrival| arrival.number != number);
        self.event_order.retain(|(of, _), _| *of != number);
        self.statements.retain(|(of, _, _, _), _| *of != number);
    }

    pub(crate) fn write(&self, write: &WriteTransaction) -> Result<(), LoadError> {
        arrivals::write(write, &self.arrivals)?;
        let mut order = write.open_table(tables::EVENT_ORDER).map_err(load)?;
        for (key, (actor, n)) in &self.event_order {
            let mut out = Writer::default();
            out.fixed(&actor.0).number(*n);
            order.insert(*key, out.0.as_slice()).map_err(load)?;
        }
        if !self.statements.is_empty() {
            let mut statements = write.open_table(tables::STATEMENTS).map_err(load)?;
            for (key, value) in &self.statements {
                match value {
                    Some(value) => statements.insert(*key, value.as_slice()),
                    None => statements.remove(*key),
                }
                .map_err(load)?;
            }
        }
        parked::write(write, &self.parked)?;
        ahead::write(write, self.ahead)?;
        forks::write(write, &self.void)?;
        if self.is_anew {
            let mut meta = write.open_table(tables::META).map_err(load)?;
            meta.remove(meta::ANEW).map_err(load)?;
        }
        if self.is_forked {
            let mut meta = write.open_table(tables::META).map_err(load)?;
            meta.insert(meta::FORKED, [].as_slice()).map_err(load)?;
        }
        if !self.marks.is_empty() {
            let mut marks = write.open_table(tables::PEER_MARKS).map_err(load)?;
            for (origin, value) in &self.marks {
                marks.insert(&origin.to_bytes(), value.as_slice()).map_err(load)?;
            }
        }
        peers::write(write, self)
    }
}

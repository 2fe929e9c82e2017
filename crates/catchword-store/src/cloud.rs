//! What an account's server has of each document, as far as this device knows, and what it lacks.
//!
//! A row says two things of a document: how many changes the server counts in it, as far as everything
//! up to there has been merged here, and how far each of its chains reaches there. The second comes
//! from the server alone, by what it sent and what it acknowledged; what is here never stands for what
//! is there.
//!
//! # Invariants
//!
//! 1. A row is written after what it says was durable, and so is the cursor of the feed, in the same
//!    transaction: what is too old makes something travel twice, and what is too new would lose it.
//! 2. What is unsent follows from the log and the rows. There is no list of it that could be lost.
//!
//! # What is not here
//!
//! Tokens and HTTP, and what to do about a verdict.

mod account;
mod place;

use std::collections::BTreeMap;

use catchword_model::change::Change;
use catchword_model::event::ReadingEvent;
use catchword_model::exchange::{
    DocumentName, EventRun, Parcel, Piece, Reach, Statement, Vector, prefix_of,
};
use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, BookId, DocumentId};
use catchword_model::schema::{Container, DocumentKind};

use crate::bytes::{Reader, Writer};
use crate::doc::Doc;
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::exchange::{Applied, ApplyError, Bounds, CollectError, Delivery, Peer, Subject, Within};
use crate::log::{change_record, read_foreign};
use crate::snapshot::Snapshot;
use crate::stage::Stage;
use crate::statements::Signer;
use crate::{Store, tables};

pub use account::{CloudAccount, CloudCursor, CloudLogin, CloudStart};

/// What the server has of a document, as far as this device knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudRow {
    /// The server's version up to which everything has been merged here.
    pub version: u64,
    /// How far the chains reach there.
    pub known: Vector,
    /// The greatest operation counter there.
    pub max_op: u64,
    /// The stamp of this device's position that the server wants to have written again.
    pub again: Option<Hlc>,
    /// What of the feed was not decided here, since the document is not exchanged.
    pub skipped: Option<Skipped>,
    /// Why nothing of the document is sent any more, if that is so.
    pub stopped: Option<Stopped>,
}

/// A part of the feed that was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The cursor from which it is read again.
    pub after: u64,
    /// The book whose document it is, or whose notes; none for the library document.
    pub book: Option<BookId>,
}

/// Why nothing of a document is sent to the server any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// In words.
    pub reason: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// What is sent first. Within a document, everything goes in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A position is unsent.
    Positions,
    /// Annotations and everything else.
    Rest,
    /// Reading events alone.
    Events,
}

/// A document of which the server lacks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsent {
    /// Which document.
    pub name: DocumentName,
    /// What it holds.
    pub class: Class,
    /// How many changes.
    pub changes: u64,
    /// How many reading events.
    pub events: u64,
}

/// Changes and events of one document, unpacked, with the statements that cover them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Consignment {
    /// Each behind what it builds on.
    pub changes: Vec<Change>,
    /// Each behind the one before.
    pub events: Vec<ReadingEvent>,
    /// What covers them.
    pub statements: Vec<Statement>,
}

impl CloudRow {
    /// Notes that the server has this, too.
    pub fn extend(&mut self, sent: &Consignment) {
        for change in &sent.changes {
            let draft = change.draft();
            raise(&mut self.known.changes, draft.actor, draft.seq, &change.hash().0);
            self.max_op = self.max_op.max(change.max_op());
        }
        for event in &sent.events {
            raise(&mut self.known.events, event.actor, event.n, &event.hash().0);
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.number(self.version).number(self.max_op);
        for list in [&self.known.changes, &self.known.events] {
            out.len(list.len());
            for reach in list {
                out.fixed(&reach.actor.0).number(reach.number).fixed(&reach.prefix);
            }
        }
        out.number(self.again.unwrap_or(Hlc::ZERO).packed());
        out.byte(u8::from(self.skipped.is_some()));
        if let Some(skipped) = &self.skipped {
            out.number(skipped.after).fixed(&skipped.book.map_or([0; 32], |book| book.0));
        }
        if let Some(stopped) = &self.stopped {
            out.number(stopped.since_ms).text(&stopped.reason);
        }
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let (version, max_op) = (input.number()?, input.number()?);
        let mut list = || -> Result<Vec<Reach>, LoadError> {
            let count = input.count()?;
            let reach = (0..count).map(|_| {
                let (actor, number) = (ActorId(input.fixed()?), input.number()?);
                Ok(Reach { actor, number, prefix: input.fixed()? })
            });
            reach.collect()
        };
        let known = Vector { changes: list()?, events: list()?, void: Vec::new() };
        let again = Hlc::from_packed(input.number()?).filter(|stamp| Hlc::ZERO < *stamp);
        let skipped = if input.byte()? == 0 {
            None
        } else {
            let (after, book) = (input.number()?, BookId(input.fixed()?));
            Some(Skipped { after, book: (book.0 != [0; 32]).then_some(book) })
        };
        let stopped = if input.is_empty() {
            None
        } else {
            let since_ms = input.number()?;
            Some(Stopped { reason: input.text()?.to_owned(), since_ms })
        };
        if input.is_empty() {
            Ok(Self { version, known, max_op, again, skipped, stopped })
        } else {
            Err(corrupt("what a server has of a document has something after its end"))
        }
    }
}

fn raise(list: &mut Vec<Reach>, actor: ActorId, number: u64, hash: &[u8; 32]) {
    let next = Reach { actor, number, prefix: prefix_of(hash) };
    match list.binary_search_by_key(&actor, |reach| reach.actor) {
        Ok(at) => {
            if let Some(reach) = list.get_mut(at).filter(|reach| reach.number < number) {
                *reach = next;
            }
        }
        Err(at) => list.insert(at, next),
    }
}

fn number_of(list: &[Reach], actor: ActorId) -> u64 {
    let found = list.binary_search_by_key(&actor, |reach| reach.actor).ok();
    found.and_then(|at| list.get(at)).map_or(0, |reach| reach.number)
}

impl Consignment {
    /// Returns what a parcel holds.
    fn of(parcel: Parcel) -> Result<Self, LoadError> {
        let mut changes = Vec::new();
        for run in &parcel.runs {
            changes.extend(read_foreign(run)?);
        }
        // A change begins above every operation of its past, so this is an order to apply it in.
        changes.sort_by_key(|change| (change.draft().start_op, change.draft().actor));
        let events = parcel.events.iter().flat_map(|run| run.events().iter().copied()).collect();
        Ok(Self { changes, events, statements: parcel.statements })
    }

    fn parcel(self, name: DocumentName) -> Option<Parcel> {
        let runs = self.changes.iter().map(|change| change_record(change.bytes())).collect();
        let mut chains: BTreeMap<ActorId, Vec<ReadingEvent>> = BTreeMap::new();
        for event in self.events {
            chains.entry(event.actor).or_default().push(event);
        }
        let events = chains.into_values().map(EventRun::new).collect::<Option<_>>()?;
        Some(Parcel { name, runs, events, statements: self.statements })
    }
}

impl Store {
    /// Returns what the server has of a document.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn cloud_row(&self, document: DocumentId) -> Result<CloudRow, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        disk.cloud_row(document)
    }

    /// Returns every document of which nothing is sent any more, and why.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn stopped_in_cloud(&self) -> Result<Vec<(DocumentId, Stopped)>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        let mut stopped = Vec::new();
        for found in disk.cloud.range::<&[u8; 32]>(..).map_err(load)? {
            let (document, bytes) = found.map_err(load)?;
            let row = CloudRow::decode(bytes.value())?;
            stopped.extend(row.stopped.map(|why| (DocumentId(*document.value()), why)));
        }
        Ok(stopped)
    }

    /// Keeps what the server has of documents, and up to where its feed is merged, in one transaction, and
    /// returns when it is durable. `None`: as far as before.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; what was kept before stays.
    pub fn keep_cloud_rows(
        &self,
        rows: &BTreeMap<DocumentId, CloudRow>,
        cursor: Option<CloudCursor>,
    ) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let (_, disk) = inner.parts()?;
        let before = disk.cloud_account()?;
        let account = match (&before, cursor) {
            (Some(account), Some(cursor)) => Some(account.clone().at(cursor)),
            _ => None,
        };
        let account = account.filter(|account| before.as_ref() != Some(account));
        if rows.is_empty() && account.is_none() {
            return Ok(());
        }
        Ok(inner.write_meta(|write| {
            let mut cloud = write.open_table(tables::CLOUD).map_err(load)?;
            for (document, row) in rows {
                cloud.insert(&document.0, row.encode().as_slice()).map_err(load)?;
            }
            account.as_ref().map_or(Ok(()), |account| account.write(write))
        })?)
    }

    /// Returns every document of which the server lacks something, and that may be sent. What waits in
    /// `wal` is moved to the rows before.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the disk refuses.
    pub fn unsent_to_cloud(&self, server: &Peer<'_>) -> Result<Vec<Unsent>, AppendError> {
        let mut inner = self.lock();
        inner.drain()?;
        let (stage, disk) = inner.parts()?;
        let mut all = Vec::new();
        for found in disk.books.range::<u32>(..).map_err(load)? {
            let (number, bytes) = found.map_err(load)?;
            let doc = Doc::decode(number.value(), bytes.value())?;
            all.extend(unsent(stage, disk, server, &doc)?);
        }
        Ok(all)
    }

    /// Takes what the server lacks of a document, or the beginning of it, cut at about `bytes_max`, and
    /// behind this local sequence, if one is given. Nothing, if no change is up to there.
    /// Statements that are missing are made, and the witness knows of everything before this returns.
    ///
    /// # Errors
    ///
    /// [`CollectError`].
    pub fn collect_for_cloud(
        &self,
        server: &Peer<'_>,
        document: DocumentId,
        signer: &dyn Signer,
        bytes_max: usize,
        through: Option<u64>,
    ) -> Result<Consignment, CollectError> {
        let known = self.cloud_row(document)?.known;
        let within = Within { bytes_max: Some(bytes_max), through };
        let collected = self.collect_within(server, &[(document, known)], signer, within)?;
        let piece = Piece::decode(&collected.piece)
            .map_err(|_| corrupt("a piece that was just made does not read"))?;
        let parcel = piece.parcels.into_iter().next();
        Ok(parcel.map_or_else(|| Ok(Consignment::default()), Consignment::of)?)
    }

    /// Decides what the server sent, as what a peer brought; `bounds` are those of its feed.
    ///
    /// # Errors
    ///
    /// [`ApplyError`].
    pub fn apply_from_cloud(
        &self,
        server: &Peer<'_>,
        brought: impl IntoIterator<Item = (DocumentName, Consignment)>,
        bounds: Option<Bounds>,
    ) -> Result<Applied, ApplyError> {
        let parcels = brought.into_iter().filter_map(|(name, brought)| brought.parcel(name));
        let piece = Piece { parcels: parcels.collect() }.encode();
        self.apply(server, Delivery { piece: &piece, bounds, said: None })
    }
}

impl Snapshot {
    pub(crate) fn cloud_row(&self, document: DocumentId) -> Result<CloudRow, LoadError> {
        let found = self.cloud.get(&document.0).map_err(load)?;
        found.map_or_else(|| Ok(CloudRow::default()), |bytes| CloudRow::decode(bytes.value()))
    }
}

fn unsent(
    stage: &mut Stage,
    disk: &Snapshot,
    server: &Peer<'_>,
    doc: &Doc,
) -> Result<Option<Unsent>, LoadError> {
    let row = disk.cloud_row(doc.id)?;
    let (mut changes, mut events) = (0, 0);
    for writer in doc.writers.iter().filter(|writer| writer.actor != ActorId::of_schema(1)) {
        let last = writer.last.map_or(0, |last| u64::from(last.seq));
        changes += last.saturating_sub(number_of(&row.known.changes, writer.actor));
        events += writer.events.saturating_sub(number_of(&row.known.events, writer.actor));
    }
    let subject = disk.subject_of(doc)?;
    if changes + events == 0 || row.stopped.is_some() || disk.is_barred(server, subject)? {
        return Ok(None);
    }
    let name = match (subject, doc.kind) {
        (Subject::Library, _) => DocumentName::Library,
        (Subject::Book(book), DocumentKind::Notes) => DocumentName::Notes(book),
        (Subject::Book(book), DocumentKind::Book | DocumentKind::Library) => {
            DocumentName::Book(book)
        }
    };
    let class = if changes == 0 {
        Class::Events
    } else if has_position_above(stage, disk, doc, row.max_op)? {
        Class::Positions
    } else {
        Class::Rest
    };
    Ok(Some(Unsent { name, class, changes, events }))
}

/// Returns whether a position was written by an operation that the server cannot have.
fn has_position_above(
    stage: &mut Stage,
    disk: &Snapshot,
    doc: &Doc,
    max_op: u64,
) -> Result<bool, LoadError> {
    if doc.kind != DocumentKind::Book {
        return Ok(false);
    }
    let positions = stage.container(disk, doc.number, Container::Positions)?;
    let mut holders = positions.iter().flat_map(|(_, field)| field.holders());
    Ok(holders.any(|holder| max_op < holder.op.counter))
}

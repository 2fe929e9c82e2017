//! Deleting the history of a removed book from this device, once another one has it.
//!
//! Everything under the document's number goes, in one transaction. The document itself stays, empty and
//! removed, under a new number: otherwise the next sync would bring the book back. What stays too is the
//! number of this device's actor, so that nothing is ever written twice under one.

use std::collections::BTreeMap;

use catchword_model::exchange::Sum;
use catchword_model::id::{BookId, DocumentId};
use catchword_model::schema::DocumentKind;
use redb::WriteTransaction;

use crate::append::Acknowledged;
use crate::bytes::{Reader, Writer};
use crate::cloud::{CloudRow, Skipped};
use crate::doc::Doc;
use crate::error::{AppendError, LoadError, load};
use crate::exchange::{Anew, delete_arrivals, delete_void, item_of};
use crate::rows::full_key;
use crate::snapshot::Snapshot;
use crate::{Store, meta, tables};

/// Which of this device's actors writes in documents that were purged; the first one in all others.
pub(crate) type ActorNumbers = BTreeMap<DocumentId, u32>;

/// What the next flush deletes.
#[derive(Debug)]
pub(crate) struct Gone {
    /// The book, then its notes; or what is laid out anew.
    documents: Vec<Doc>,
    why: Why,
    actors: ActorNumbers,
    /// What a server has of them is read again, should they come back.
    cloud: Vec<(DocumentId, CloudRow)>,
}

#[derive(Debug)]
enum Why {
    /// The book is purged, and is removed under this number from now on, since then.
    Purged(u32, u64),
    /// It is laid out anew, since a writer forked.
    Anew(Box<Anew>),
}

impl Store {
    /// Returns what stands for everything of a book that is here, its notes included; `None` if it is not
    /// here. What waits in `wal` is moved to the rows before.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the disk refuses.
    pub fn book_state(&self, book: BookId) -> Result<Option<[u8; 32]>, AppendError> {
        self.publish(book)?;
        let mut inner = self.lock();
        inner.drain()?;
        let (_, disk) = inner.parts()?;
        Ok(state(&documents(disk, book)?))
    }

    /// Deletes the history of a removed book, if everything of it is still as it was when somebody saw
    /// that another device has it. Returns whether it was.
    ///
    /// # Errors
    ///
    /// [`AppendError::NoDocument`] if the book is not here, or was not removed.
    pub fn purge(&self, book: BookId, seen: [u8; 32]) -> Result<bool, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let (_, disk) = inner.parts()?;
        let documents = documents(disk, book)?;
        let Some(number) = documents.first().map(|doc| doc.number) else {
            return Err(AppendError::NoDocument);
        };
        let since_ms = disk.removed.get(number).map_err(load)?.map(|since_ms| since_ms.value());
        let since_ms = since_ms.ok_or(AppendError::NoDocument)?;
        if state(&documents) != Some(seen) {
            return Ok(false);
        }
        let cloud = from_the_beginning(disk, book, &documents)?;
        for doc in &documents {
            *inner.actors.entry(doc.id).or_default() += 1;
        }
        let actors = inner.actors.clone();
        let new = inner.free_number()?;
        let (stage, _) = inner.parts()?;
        for doc in &documents {
            stage.docs.remove(&doc.number);
            stage.numbers.remove(&doc.id);
        }
        stage.gone = Some(Gone { documents, why: Why::Purged(new, since_ms), actors, cloud });
        let made = inner.stage_doc(Doc::empty(new, book.document(), DocumentKind::Book, new));
        inner.or_roll_back(made.map_err(AppendError::from))?;
        inner.loaded = None;
        inner.acknowledge_in_rows(Acknowledged::default())?;
        Ok(true)
    }
}

/// Returns the documents of a book.
fn documents(disk: &Snapshot, book: BookId) -> Result<Vec<Doc>, LoadError> {
    let mut documents = Vec::new();
    for id in [book.document(), book.notes_document()] {
        if let Some(number) = disk.number(id)? {
            documents.extend(disk.doc(number)?);
        }
    }
    Ok(documents)
}

/// Returns what is known of a server, as of one from which nothing was merged here.
fn from_the_beginning(
    disk: &Snapshot,
    book: BookId,
    documents: &[Doc],
) -> Result<Vec<(DocumentId, CloudRow)>, LoadError> {
    let mut rows = Vec::new();
    for doc in documents {
        if disk.cloud.get(&doc.id.0).map_err(load)?.is_some() {
            let skipped = Some(Skipped { after: 0, book: Some(book) });
            let row = disk.cloud_row(doc.id)?;
            rows.push((doc.id, CloudRow { version: 0, skipped, again: None, ..row }));
        }
    }
    Ok(rows)
}

fn state(documents: &[Doc]) -> Option<[u8; 32]> {
    let mut sum = Sum::default();
    documents.iter().filter_map(item_of).for_each(|item| sum.add(&item));
    (!documents.is_empty()).then_some(sum.0)
}

impl Gone {
    /// A document that is laid out anew. What a server has of it is sent again: it may have another
    /// history.
    pub(crate) fn anew(
        disk: &Snapshot,
        doc: Doc,
        book: Option<BookId>,
        actors: ActorNumbers,
    ) -> Result<Self, LoadError> {
        let mut cloud = Vec::new();
        if disk.cloud.get(&doc.id.0).map_err(load)?.is_some() {
            let skipped = Some(Skipped { after: 0, book });
            cloud.push((doc.id, CloudRow { skipped, ..CloudRow::default() }));
        }
        let why = Why::Anew(Box::new(Anew::of(&doc)));
        Ok(Self { documents: vec![doc], why, actors, cloud })
    }

    /// Takes the documents out of the sum of all.
    pub(crate) fn subtract_from(&self, sum: &mut Sum) {
        self.documents.iter().filter_map(item_of).for_each(|item| sum.subtract(&item));
    }

    /// Deletes the documents, before what is new is written.
    pub(crate) fn write(&self, write: &WriteTransaction) -> Result<(), LoadError> {
        for doc in &self.documents {
            delete(write, doc)?;
        }
        match &self.why {
            Why::Purged(number, since_ms) => {
                let mut removed = write.open_table(tables::REMOVED).map_err(load)?;
                for doc in &self.documents {
                    removed.remove(doc.number).map_err(load)?;
                }
                removed.insert(*number, *since_ms).map_err(load)?;
            }
            Why::Anew(anew) => anew.write(write)?,
        }
        let mut meta = write.open_table(tables::META).map_err(load)?;
        let mut out = Writer::default();
        out.len(self.actors.len());
        for (id, n) in &self.actors {
            out.fixed(&id.0).number(u64::from(*n));
        }
        meta.insert(meta::ACTORS, out.0.as_slice()).map_err(load)?;
        let mut cloud = write.open_table(tables::CLOUD).map_err(load)?;
        for (id, row) in &self.cloud {
            cloud.insert(&id.0, row.encode().as_slice()).map_err(load)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// Returns which of this device's actors writes in documents that were purged.
    pub(crate) fn actor_numbers(&self) -> Result<ActorNumbers, LoadError> {
        let Some(bytes) = self.meta_bytes(meta::ACTORS)? else { return Ok(ActorNumbers::new()) };
        let mut input = Reader(&bytes);
        let count = input.count()?;
        (0..count).map(|_| Ok((DocumentId(input.fixed()?), input.small()?))).collect()
    }
}

/// Deletes everything that is kept under a document's number.
fn delete(write: &WriteTransaction, doc: &Doc) -> Result<(), LoadError> {
    let (number, next) = (doc.number, doc.number.saturating_add(1));
    let (from, to) = (full_key(number, &[]), full_key(next, &[]));
    for table in [tables::ROWS, tables::FIELDS] {
        let mut table = write.open_table(table).map_err(load)?;
        table.retain_in(from.as_slice()..to.as_slice(), |_, _| false).map_err(load)?;
    }
    let mut ids = write.open_table(tables::IDS).map_err(load)?;
    let (first, behind) = (id_bound(number), id_bound(next));
    ids.retain_in::<&[u8; 20], _>(&first..&behind, |_, _| false).map_err(load)?;
    let mut log = write.open_table(tables::LOG).map_err(load)?;
    log.retain_in((number, 0)..(next, 0), |_, _| false).map_err(load)?;
    let mut chains = write.open_table(tables::CHAINS).map_err(load)?;
    chains.retain_in((number, 0, 0)..(next, 0, 0), |_, _| false).map_err(load)?;
    let mut hashes = write.open_table(tables::HASHES).map_err(load)?;
    hashes.retain_in((number, 0, 0, 0)..(next, 0, 0, 0), |_, ()| false).map_err(load)?;
    let mut events = write.open_table(tables::EVENTS).map_err(load)?;
    events.retain_in((number, 0, 0)..(next, 0, 0), |_, _| false).map_err(load)?;
    let mut order = write.open_table(tables::EVENT_ORDER).map_err(load)?;
    order.retain_in((number, 0)..(next, 0), |_, _| false).map_err(load)?;
    let mut statements = write.open_table(tables::STATEMENTS).map_err(load)?;
    statements.retain_in((number, 0, 0, 0)..(next, 0, 0, 0), |_, _| false).map_err(load)?;
    delete_arrivals(write, number)?;
    write.open_table(tables::TEXTS).map_err(load)?.remove(number).map_err(load)?;
    let mut recent = write.open_table(tables::RECENT).map_err(load)?;
    recent.remove((doc.summary.last_read.packed(), number)).map_err(load)?;
    delete_void(write, doc.id)?;
    write.open_table(tables::BOOK_IDS).map_err(load)?.remove(&doc.id.0).map_err(load)?;
    write.open_table(tables::BOOKS).map_err(load)?.remove(number).map_err(load)?;
    Ok(())
}

fn id_bound(number: u32) -> [u8; 20] {
    crate::rows::id_key(number, catchword_model::id::AnnotationId([0; 16]))
}

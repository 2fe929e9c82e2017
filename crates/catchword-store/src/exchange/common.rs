//! The documents that both sides exchange: their sum, ranges of it, and how far each reaches.

use std::collections::BTreeSet;

use catchword_model::exchange::{Reach, Signed, Sum, Vector, item, prefix_of};
use catchword_model::genesis::genesis;
use catchword_model::id::{ActorId, BookId, ChangeHash, DocumentId, EventHash, sha256};

use crate::doc::Doc;
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::exchange::forks::Voids;
use crate::exchange::wanted::event;
use crate::exchange::{Peer, Scope};
use crate::open::LIBRARY_NUMBER;
use crate::snapshot::Snapshot;
use crate::{Inner, Store, meta, tables};

/// Documents from one on, up to another that is not meant any more; to the end, if there is none.
pub type Span = (DocumentId, Option<DocumentId>);

/// A document, and what stands for its state.
pub type Item = (DocumentId, [u8; 32]);

/// One number of a chain: the document, its writer, and which change or event.
pub type Spot = (DocumentId, ActorId, Signed);

/// Which documents are common, by the number of the book they belong to.
pub(crate) struct Common {
    /// Whether all are but those listed, or only those.
    all: bool,
    of: BTreeSet<u32>,
}

impl Common {
    pub(crate) fn holds(&self, of: u32) -> bool {
        self.all != self.of.contains(&of)
    }
}

/// What a document adds to the sum. One that has nothing but its genesis is as good as none.
pub(crate) fn item_of(doc: &Doc) -> Option<[u8; 32]> {
    let heads: Vec<ChangeHash> = doc.head_hashes();
    let events: Vec<EventHash> = doc
        .writers
        .iter()
        .filter(|writer| 0 < writer.events)
        .map(|writer| writer.last_event)
        .collect();
    let bare = events.is_empty() && heads.iter().all(|head| *head == genesis(doc.kind).hash());
    let item = (!bare).then(|| item(doc.id, &heads, &events));
    match doc.void {
        None => item,
        Some(void) => Some(sha256(&[&item.unwrap_or(doc.id.0), &void.0])),
    }
}

impl Snapshot {
    /// Returns which documents are exchanged with a peer.
    pub(crate) fn common(&self, peer: &Peer<'_>) -> Result<Common, LoadError> {
        let mut excluded = self.excluded(peer)?;
        let theirs = self.peer_record(peer.origin)?.exclusions;
        if !theirs.macs.is_empty() {
            for found in self.book_ids.range::<&[u8; 32]>(..).map_err(load)? {
                let (id, _) = found.map_err(load)?;
                let id = DocumentId(*id.value());
                if theirs.macs.binary_search(&(peer.mac)(id)).is_ok() {
                    excluded.insert(id);
                }
            }
        }
        let mut of = BTreeSet::new();
        for id in excluded {
            let Some(number) = self.number(id)? else { continue };
            of.extend(self.doc(number)?.map(|doc| doc.of));
        }
        match peer.scope {
            Scope::All => Ok(Common { all: true, of }),
            Scope::Books(books) => {
                let mut within = BTreeSet::new();
                for book in books {
                    within.extend(self.number(book.document())?.filter(|at| !of.contains(at)));
                }
                Ok(Common { all: false, of: within })
            }
        }
    }

    /// Returns the sum of the items of these books and their notes.
    fn sum_of(&self, of: &BTreeSet<u32>) -> Result<Sum, LoadError> {
        let mut sum = Sum::default();
        for number in of {
            let Some(doc) = self.doc(*number)? else { continue };
            if let Some(item) = item_of(&doc) {
                sum.add(&item);
            }
            if *number == LIBRARY_NUMBER {
                continue;
            }
            let Some(notes) = self.number(BookId(doc.id.0).notes_document())? else { continue };
            if let Some(item) = self.doc(notes)?.as_ref().and_then(item_of) {
                sum.add(&item);
            }
        }
        Ok(sum)
    }

    /// Returns the sum of the items of all documents.
    pub(crate) fn sum_of_all(&self) -> Result<Sum, LoadError> {
        let mut sum = Sum::default();
        for found in self.books.range::<u32>(..).map_err(load)? {
            let (number, bytes) = found.map_err(load)?;
            let doc = Doc::decode(number.value(), bytes.value())?;
            if let Some(item) = item_of(&doc) {
                sum.add(&item);
            }
        }
        Ok(sum)
    }

    /// Returns the sum that is kept, if it is.
    pub(crate) fn kept_sum(&self) -> Result<Option<Sum>, LoadError> {
        let Some(bytes) = self.meta_bytes(meta::SUM)? else { return Ok(None) };
        let bytes = bytes.try_into().map_err(|_| corrupt("the sum of all documents is no sum"))?;
        Ok(Some(Sum(bytes)))
    }
}

impl Inner {
    /// Returns the sum of the common set. What is kept is the sum of all documents, moved on by each
    /// transaction; what is not common is taken out.
    pub(crate) fn common_sum(&mut self, peer: &Peer<'_>) -> Result<Sum, LoadError> {
        let all = self.sum()?;
        let (_, disk) = self.parts()?;
        let common = disk.common(peer)?;
        let listed = disk.sum_of(&common.of)?;
        if !common.all {
            return Ok(listed);
        }
        let mut sum = all;
        sum.subtract(&listed.0);
        Ok(sum)
    }

    fn sum(&mut self) -> Result<Sum, LoadError> {
        let (_, disk) = self.parts()?;
        if let Some(sum) = disk.kept_sum()? {
            return Ok(sum);
        }
        let sum = disk.sum_of_all()?;
        self.write_meta(|write| {
            let mut meta = write.open_table(tables::META).map_err(load)?;
            meta.insert(meta::SUM, sum.0.as_slice()).map_err(load)?;
            Ok(())
        })?;
        Ok(sum)
    }
}

impl Store {
    /// Returns the documents in each span that are exchanged with a peer, each with its item, ascending.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the disk refuses.
    pub fn items(&self, peer: &Peer<'_>, spans: &[Span]) -> Result<Vec<Vec<Item>>, AppendError> {
        let mut inner = self.lock();
        inner.drain()?;
        let (_, disk) = inner.parts()?;
        let common = disk.common(peer)?;
        let mut items = Vec::with_capacity(spans.len());
        for span in spans {
            items.push(items_in(disk, &common, *span)?);
        }
        Ok(items)
    }

    /// Returns whether a book is exchanged with a peer.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn exchanges(&self, peer: &Peer<'_>, book: BookId) -> Result<bool, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        let Some(number) = disk.number(book.document())? else { return Ok(false) };
        Ok(disk.common(peer)?.holds(number))
    }

    /// Returns the first bytes of the hash at each of these; none where there is no such number, or the
    /// document is not exchanged with this peer.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the disk refuses.
    pub fn hashes(
        &self,
        peer: &Peer<'_>,
        spots: &[Spot],
    ) -> Result<Vec<Option<[u8; 8]>>, AppendError> {
        let mut inner = self.lock();
        inner.drain()?;
        let (_, disk) = inner.parts()?;
        let common = disk.common(peer)?;
        let mut hashes = Vec::with_capacity(spots.len());
        for spot in spots {
            hashes.push(hash_at(disk, &common, *spot)?);
        }
        Ok(hashes)
    }

    /// Returns how far each of these documents reaches here. One that is not here, or not exchanged
    /// with this peer, reaches nowhere. If the peer's scope does not hold one that is not here, it is
    /// excluded from now on, so that the peer learns of it.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the disk refuses.
    pub fn vectors(
        &self,
        peer: &Peer<'_>,
        documents: &[DocumentId],
    ) -> Result<Vec<(DocumentId, Vector)>, AppendError> {
        let mut inner = self.lock();
        inner.drain()?;
        let (_, disk) = inner.parts()?;
        let common = disk.common(peer)?;
        let mut vectors = Vec::with_capacity(documents.len());
        for id in documents {
            let doc = match disk.number(*id)? {
                Some(number) => disk.doc(number)?,
                None => None,
            };
            let doc = doc.filter(|doc| common.holds(doc.of));
            let mut reach = doc.as_ref().map_or_else(Vector::default, vector);
            if doc.is_some_and(|doc| doc.void.is_some()) {
                reach.void = Voids::on(disk, *id)?.tips();
            }
            vectors.push((*id, reach));
        }
        let outside = documents.iter().filter(|id| !peer.scope.holds_document(**id)).copied();
        inner.note_outside(peer.origin, outside)?;
        inner.drain()?;
        Ok(vectors)
    }
}

fn items_in(disk: &Snapshot, common: &Common, (from, to): Span) -> Result<Vec<Item>, LoadError> {
    let mut items = Vec::new();
    for found in disk.book_ids.range::<&[u8; 32]>(&from.0..).map_err(load)? {
        let (id, number) = found.map_err(load)?;
        let id = DocumentId(*id.value());
        if to.is_some_and(|to| to <= id) {
            break;
        }
        let doc = disk.doc(number.value())?.filter(|doc| common.holds(doc.of));
        items.extend(doc.as_ref().and_then(item_of).map(|item| (id, item)));
    }
    Ok(items)
}

fn hash_at(
    disk: &Snapshot,
    common: &Common,
    (id, actor, signed): Spot,
) -> Result<Option<[u8; 8]>, LoadError> {
    let Some(number) = disk.number(id)? else { return Ok(None) };
    let Some(doc) = disk.doc(number)?.filter(|doc| common.holds(doc.of)) else { return Ok(None) };
    let Some(place) = doc.writer_place(actor) else { return Ok(None) };
    let writer = doc.writer_at(place)?;
    match signed {
        Signed::Change { seq } => {
            let newest = writer.last.map_or(0, |last| last.seq);
            match u32::try_from(seq) {
                Ok(seq) if 0 < seq && seq <= newest => {
                    Ok(Some(prefix_of(&disk.hash_at(&doc, place, seq)?.0)))
                }
                _ => Ok(None),
            }
        }
        Signed::Event { n } if 0 < n && n <= writer.events => {
            Ok(Some(prefix_of(&event(disk, number, place, n)?.hash().0)))
        }
        Signed::Event { .. } => Ok(None),
    }
}

/// Returns how far a document reaches.
fn vector(doc: &Doc) -> Vector {
    let mut vector = Vector::default();
    for writer in doc.writers.iter().filter(|writer| writer.actor != ActorId::of_schema(1)) {
        let actor = writer.actor;
        if let Some(last) = writer.last {
            let prefix = prefix_of(&last.hash.0);
            vector.changes.push(Reach { actor, number: u64::from(last.seq), prefix });
        }
        if 0 < writer.events {
            let prefix = prefix_of(&writer.last_event.0);
            vector.events.push(Reach { actor, number: writer.events, prefix });
        }
    }
    vector.changes.sort_unstable();
    vector.events.sort_unstable();
    vector
}

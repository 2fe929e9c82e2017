//! Reading: lists, places, annotations in reading order, history. Nothing here loads a document.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::annotation::{Annotation, Row};
use catchword_model::change::Change;
use catchword_model::event::ReadingEvent;
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, BookId, ChangeHash, DeviceId, DocumentId, ShelfId};
use catchword_model::locator::SortKey;
use catchword_model::merge::Field;
use catchword_model::meta::{self, DeviceName, Meta, meta, total};
use catchword_model::position::{self, Entry, Furthest, PPM_MAX};
use catchword_model::schema::{Container, DocumentKind, parse_total};
use catchword_model::shelf;

use crate::doc::Doc;
use crate::error::{LoadError, load};
use crate::flush::{all_entries, count_annotations, furthest_point, summarize};
use crate::log::{Found, Ordered};
use crate::open::LIBRARY_NUMBER;
use crate::rows::{decode_annotation, decode_row, row_id, row_key};
use crate::{Inner, Store};

/// What a list shows of a book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookSummary {
    /// Which book.
    pub book: BookId,
    /// Its title; empty if none is known.
    pub title: String,
    /// The place, in parts per million.
    pub ppm: Option<u32>,
    /// The furthest point of the pass, in parts per million.
    pub furthest_ppm: Option<u32>,
    /// The wall clock at the place, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The latest stamp of a position; zero for a book nobody has read.
    pub last_read: Hlc,
    /// Annotations that are not deleted.
    pub annotations: u64,
}

/// A position that a device wrote.
pub type PlaceEntry = Entry;

/// Sums over the reading log of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventTotals {
    /// Reading events.
    pub count: u64,
    /// Seconds read.
    pub seconds: u64,
}

/// A book, merged, without its annotations.
#[derive(Debug, Clone, PartialEq)]
pub struct BookView {
    /// Which book.
    pub book: BookId,
    /// The heads of its document, ascending.
    pub heads: Vec<ChangeHash>,
    /// The heads of its notes document, ascending; empty if there is none.
    pub notes_heads: Vec<ChangeHash>,
    /// What is known about it, by field.
    pub meta: BTreeMap<String, Meta>,
    /// Every position that parses, of every device.
    pub positions: Vec<Entry>,
    /// The one that counts.
    pub place: Option<Entry>,
    /// The furthest point of the pass.
    pub furthest: Option<Furthest>,
    /// Its tags, ascending.
    pub tags: Vec<String>,
    /// Its totals, summed over devices, by name.
    pub totals: BTreeMap<String, u64>,
    /// Its reading log.
    pub events: EventTotals,
    /// The journal.
    pub journal: String,
    /// Whether it was removed from this device.
    pub removed: bool,
}

/// A shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShelfView {
    /// Which shelf.
    pub id: ShelfId,
    /// Its name.
    pub name: String,
    /// The books on it, ascending by id.
    pub books: Vec<BookId>,
}

impl Store {
    /// Returns every book that is not removed, last read first.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn books(&self) -> Result<Vec<BookSummary>, LoadError> {
        self.recent(usize::MAX)
    }

    /// Returns the `count` books read last, last first.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn recent(&self, count: usize) -> Result<Vec<BookSummary>, LoadError> {
        self.lock().recent(count)
    }

    /// Returns what a list shows of one book; `None` if it is not here.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn book(&self, book: BookId) -> Result<Option<BookSummary>, LoadError> {
        let mut inner = self.lock();
        let Some(number) = inner.number(book.document())? else { return Ok(None) };
        inner.settle_summaries()?;
        let (stage, disk) = inner.parts()?;
        Ok(Some(summary(stage.doc(disk, number)?)))
    }

    /// Returns the ids of the books whose id begins with these digits, at most `count`.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn books_by_prefix(&self, prefix: &str, count: usize) -> Result<Vec<BookId>, LoadError> {
        self.lock().books_by_prefix(prefix, count)
    }

    /// Returns whether a book was removed from this device.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn is_removed(&self, book: BookId) -> Result<bool, LoadError> {
        let mut inner = self.lock();
        let Some(number) = inner.number(book.document())? else { return Ok(false) };
        let (_, disk) = inner.parts()?;
        Ok(disk.removed.get(number).map_err(load)?.is_some())
    }

    /// Returns a book, merged, without its annotations; `None` if it is not here.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn view(&self, book: BookId) -> Result<Option<BookView>, LoadError> {
        self.lock().view(book)
    }

    /// Returns the positions of every device, with the marks that decide about them.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoDocument`] if the book is not here.
    pub fn positions(&self, book: BookId) -> Result<Vec<Entry>, LoadError> {
        let mut inner = self.lock();
        let number = inner.number(book.document())?.ok_or(LoadError::NoDocument)?;
        let (stage, disk) = inner.parts()?;
        all_entries(stage, disk, number)
    }

    /// Returns the turns of a book that are durable and not published: stamp, pass, ppm.
    pub fn pending_turn(&self, book: BookId) -> Option<(Hlc, u32, u32)> {
        let mut inner = self.lock();
        let number = inner.number(book.document()).ok().flatten()?;
        inner.pending.get(&number).map(|turn| (turn.stamp, turn.pass, turn.ppm))
    }

    /// Returns one annotation with everything the log says about it.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoDocument`] if the book is not here.
    pub fn annotation(&self, book: BookId, id: AnnotationId) -> Result<Option<Row>, LoadError> {
        let mut inner = self.lock();
        let number = inner.number(book.document())?.ok_or(LoadError::NoDocument)?;
        let (stage, disk) = inner.parts()?;
        let row = &stage.row(disk, number, id)?.row;
        Ok((!row.is_empty()).then(|| row.clone()))
    }

    /// Calls `visit` for every annotation from `from_ppm` up to and without `to_ppm`, in reading order.
    ///
    /// What has no place stands at 1,000,001. Deleted ones are among them. The library is not locked
    /// while `visit` runs; it sees the state at the call.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn annotations(
        &self,
        book: BookId,
        from_ppm: u32,
        to_ppm: u32,
        mut visit: impl FnMut(Annotation),
    ) -> Result<(), LoadError> {
        let (doc, scan) = self.lock().scan(book, from_ppm, to_ppm)?;
        let stored = |id, bytes: &[u8]| decode_annotation(&doc, id, bytes);
        scan.read(stored, Row::into_annotation, |shown| shown.into_iter().for_each(&mut visit))
    }

    /// As [`annotations`](Self::annotations), with every holder of every field.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn rows(
        &self,
        book: BookId,
        from_ppm: u32,
        to_ppm: u32,
        mut visit: impl FnMut(Row),
    ) -> Result<(), LoadError> {
        let (doc, scan) = self.lock().scan(book, from_ppm, to_ppm)?;
        scan.read(|id, bytes| decode_row(&doc, id, bytes), |row| row, &mut visit)
    }

    /// Returns every register of a container with what holds it, by key.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoDocument`] if the document is not here.
    pub fn fields(
        &self,
        document: DocumentId,
        container: Container,
    ) -> Result<Vec<(String, Field)>, LoadError> {
        let mut inner = self.lock();
        let number = inner.number(document)?.ok_or(LoadError::NoDocument)?;
        let (stage, disk) = inner.parts()?;
        stage.container(disk, number, container)
    }

    /// Returns the heads of a document, ascending; `None` if it is not here.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn heads(&self, document: DocumentId) -> Result<Option<Vec<ChangeHash>>, LoadError> {
        let mut inner = self.lock();
        let (stage, disk) = inner.parts()?;
        Ok(stage.find_doc(disk, document)?.map(|doc| doc.head_hashes()))
    }

    /// Calls `visit` for every change of a document, in the order in which they became durable here.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoDocument`] if the document is not here.
    pub fn changes(
        &self,
        document: DocumentId,
        mut visit: impl FnMut(Change),
    ) -> Result<(), LoadError> {
        let (mut log, waiting) = self.lock().ordered_log(document)?;
        while let Some(found) = log.next()? {
            match found {
                Found::Change(logged) => visit(logged.change),
                Found::Leftover(_) => (),
                Found::Damaged(_, error) => return Err(error),
            }
        }
        waiting.into_iter().for_each(visit);
        Ok(())
    }

    /// Calls `visit` for every reading event of a book, by writer and number.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoDocument`] if the book is not here.
    pub fn events(
        &self,
        book: BookId,
        mut visit: impl FnMut(ReadingEvent),
    ) -> Result<(), LoadError> {
        let mut inner = self.lock();
        let number = inner.number(book.document())?.ok_or(LoadError::NoDocument)?;
        inner.drain_for_reading();
        let (stage, disk) = inner.parts()?;
        let range = (number, 0, 0)..(number + 1, 0, 0);
        let mut waiting = stage.events.range(range.clone()).peekable();
        for found in disk.events.range(range).map_err(load)? {
            let (key, value) = found.map_err(load)?;
            while let Some((_, event)) = waiting.next_if(|(at, _)| **at < key.value()) {
                visit(*event);
            }
            let event = ReadingEvent::decode(value.value());
            visit(event.map_err(|_| crate::error::corrupt("a reading event does not read"))?);
        }
        waiting.for_each(|(_, event)| visit(*event));
        Ok(())
    }

    /// Returns who writes under an actor of a document.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn writer(
        &self,
        document: DocumentId,
        actor: catchword_model::id::ActorId,
    ) -> Result<Option<DeviceId>, LoadError> {
        let mut inner = self.lock();
        let (stage, disk) = inner.parts()?;
        let doc = stage.find_doc(disk, document)?;
        let author = doc.and_then(|doc| doc.writer(actor)).and_then(|writer| writer.author);
        Ok(author.map(|author| author.device))
    }

    /// Returns the shelves that are not deleted, by name.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn shelves(&self) -> Result<Vec<ShelfView>, LoadError> {
        self.lock().shelves()
    }

    /// Returns what each device is called.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn devices(&self) -> Result<BTreeMap<DeviceId, DeviceName>, LoadError> {
        let fields = self.fields(DocumentId::library(), Container::Devices)?;
        let named = fields
            .iter()
            .filter_map(|(key, field)| Some((key.parse().ok()?, DeviceName::of(field)?)));
        Ok(named.collect())
    }
}

/// A range of rows as of one moment.
struct Scan {
    range: redb::OwnedRange<&'static [u8], &'static [u8]>,
    /// Rows in the range that are not in the tables yet, by key.
    waiting: BTreeMap<Vec<u8>, Row>,
    /// The annotations whose rows in the tables do not count any more.
    superseded: BTreeSet<AnnotationId>,
}

impl Scan {
    /// Calls `visit` for every row in order, those of the tables by `stored` and those that wait by
    /// `waiting`.
    fn read<T>(
        mut self,
        stored: impl Fn(AnnotationId, &[u8]) -> Result<T, LoadError>,
        waiting: impl Fn(Row) -> T,
        mut visit: impl FnMut(T),
    ) -> Result<(), LoadError> {
        for found in self.range {
            let (key, value) = found.map_err(load)?;
            let id = row_id(key.value())?;
            while let Some(before) = self.waiting.first_entry()
                && before.key().as_slice() < key.value()
            {
                visit(waiting(before.remove()));
            }
            if !self.superseded.contains(&id) {
                visit(stored(id, value.value())?);
            }
        }
        self.waiting.into_values().for_each(|row| visit(waiting(row)));
        Ok(())
    }
}

impl Inner {
    /// Moves what waits into the rows, so that a range can be read. After a failed write it goes on
    /// waiting, and whoever reads a range reads what waits as well.
    pub(crate) fn drain_for_reading(&mut self) {
        if !self.failed {
            drop(self.drain());
        }
    }

    fn settle_summaries(&mut self) -> Result<(), LoadError> {
        let (stage, disk) = self.parts()?;
        count_annotations(stage, disk)?;
        summarize(stage, disk)
    }

    fn recent(&mut self, count: usize) -> Result<Vec<BookSummary>, LoadError> {
        self.drain_for_reading();
        self.settle_summaries()?;
        let (stage, disk) = self.parts()?;
        // Usually none: see `drain_for_reading`.
        let mut waiting: BTreeMap<(u64, u32), &Doc> = BTreeMap::new();
        for doc in stage.dirty_docs.iter().filter_map(|number| stage.docs.get(number)) {
            if doc.kind == DocumentKind::Book {
                waiting.insert((doc.summary.last_read.packed(), doc.number), doc);
            }
        }
        let moved: BTreeSet<u32> = waiting.keys().map(|(_, number)| *number).collect();
        let mut books = Vec::new();
        let mut list = |number: u32, doc: &Doc| {
            if disk.removed.get(number).map_err(load)?.is_none() {
                books.push(summary(doc));
            }
            Ok::<bool, LoadError>(count <= books.len())
        };
        if count == 0 {
            return Ok(books);
        }
        for found in disk.recent.range::<(u64, u32)>(..).map_err(load)?.rev() {
            let (last_read, number) = found.map_err(load)?.0.value();
            while let Some(entry) = waiting.last_entry()
                && (last_read, number) < *entry.key()
            {
                if list(entry.key().1, entry.get())? {
                    return Ok(books);
                }
                entry.remove();
            }
            if !moved.contains(&number)
                && let Some(doc) = disk.doc(number)?
                && list(number, &doc)?
            {
                return Ok(books);
            }
        }
        for (key, doc) in waiting.iter().rev() {
            if list(key.1, doc)? {
                break;
            }
        }
        Ok(books)
    }

    fn books_by_prefix(&mut self, prefix: &str, count: usize) -> Result<Vec<BookId>, LoadError> {
        let low = format!("{prefix:0<64}").parse::<BookId>();
        let high = format!("{prefix:f<64}").parse::<BookId>();
        let (Ok(low), Ok(high)) = (low, high) else { return Ok(Vec::new()) };
        self.drain_for_reading();
        let (_, disk) = self.parts()?;
        let mut found = Vec::new();
        for entry in disk.book_ids.range::<&[u8; 32]>(&low.0..=&high.0).map_err(load)? {
            let (id, number) = entry.map_err(load)?;
            let book = disk.doc(number.value())?.is_some_and(|doc| doc.kind == DocumentKind::Book);
            if book && found.len() < count {
                found.push(BookId(*id.value()));
            }
        }
        Ok(found)
    }

    fn view(&mut self, book: BookId) -> Result<Option<BookView>, LoadError> {
        let Some(number) = self.number(book.document())? else { return Ok(None) };
        let journal = self.journal(book)?;
        let notes = self.number(book.notes_document())?;
        let (stage, disk) = self.parts()?;
        let positions = all_entries(stage, disk, number)?;
        let place = position::place(&positions).cloned();
        let pass = position::highest_pass(&positions);
        let furthest = furthest_point(stage, disk, number, pass)?;
        let metadata = stage.container(disk, number, Container::Meta)?;
        let tags = stage.container(disk, number, Container::Tags)?;
        let totals = totals(&stage.container(disk, number, Container::Totals)?);
        let notes_heads = match notes {
            Some(notes) => stage.doc(disk, notes)?.head_hashes(),
            None => Vec::new(),
        };
        let doc = stage.doc(disk, number)?;
        let events = EventTotals { count: doc.summary.events, seconds: doc.summary.seconds };
        let heads = doc.head_hashes();
        let known = metadata.iter().filter_map(|(key, field)| Some((key.clone(), meta(field)?)));
        Ok(Some(BookView {
            book,
            heads,
            notes_heads,
            meta: known.collect(),
            positions,
            place,
            furthest,
            tags: meta::tags(borrowed(&tags)).into_iter().collect(),
            totals,
            events,
            journal,
            removed: disk.removed.get(number).map_err(load)?.is_some(),
        }))
    }

    /// Prepares reading a range of rows, with those that wait: usually none, since they are moved on
    /// first; after a failed write all that were acknowledged since the last commit.
    fn scan(&mut self, book: BookId, from_ppm: u32, to_ppm: u32) -> Result<(Doc, Scan), LoadError> {
        let number = self.number(book.document())?.ok_or(LoadError::NoDocument)?;
        self.drain_for_reading();
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?.clone();
        let start = range_key(number, from_ppm);
        let end = if to_ppm <= PPM_MAX + 1 { range_key(number, to_ppm) } else { range_end(number) };
        let range = disk.rows.range_owned(start.as_slice()..end.as_slice()).map_err(load)?;
        let mut scan = Scan { range, waiting: BTreeMap::new(), superseded: BTreeSet::new() };
        let first = AnnotationId([0; 16]);
        for ((_, id), staged) in stage.rows.range((number, first)..(number + 1, first)) {
            if staged.dirty {
                let key = row_key(number, &staged.sort_key(), *id);
                scan.superseded.insert(*id);
                if start <= key && key < end {
                    scan.waiting.insert(key, staged.row.clone());
                }
            }
        }
        Ok((doc, scan))
    }

    /// Prepares reading the log of a document: what is in the tables, and what waits, which is later.
    fn ordered_log(&mut self, document: DocumentId) -> Result<(Ordered, Vec<Change>), LoadError> {
        let number = self.number(document)?.ok_or(LoadError::NoDocument)?;
        self.drain_for_reading();
        let (stage, disk) = self.parts()?;
        let waiting = stage.waiting(number).collect::<Result<_, _>>()?;
        Ok((Ordered::of(disk, number)?, waiting))
    }

    fn shelves(&mut self) -> Result<Vec<ShelfView>, LoadError> {
        let (stage, disk) = self.parts()?;
        let named = stage.container(disk, LIBRARY_NUMBER, Container::Shelves)?;
        let members = stage.container(disk, LIBRARY_NUMBER, Container::Members)?;
        let shelves = shelf::shelves(borrowed(&named), borrowed(&members));
        let shown = shelves.into_iter().filter(|(_, shelf)| !shelf.deleted);
        let mut shown: Vec<ShelfView> = shown
            .map(|(id, shelf)| {
                let books = shelf.books.into_iter().collect();
                ShelfView { id, name: shelf.name, books }
            })
            .collect();
        shown.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(shown)
    }
}

fn range_key(number: u32, ppm: u32) -> Vec<u8> {
    let mut key = number.to_be_bytes().to_vec();
    key.extend_from_slice(SortKey::first_at(ppm).as_bytes());
    key
}

fn range_end(number: u32) -> Vec<u8> {
    number.saturating_add(1).to_be_bytes().to_vec()
}

fn summary(doc: &Doc) -> BookSummary {
    BookSummary {
        book: BookId(doc.id.0),
        title: doc.summary.title.clone(),
        ppm: doc.summary.ppm,
        furthest_ppm: doc.summary.furthest_ppm,
        wall_ms: doc.summary.wall_ms,
        last_read: doc.summary.last_read,
        annotations: doc.summary.annotations,
    }
}

/// Returns every total, summed over the devices, by name.
fn totals(fields: &[(String, Field)]) -> BTreeMap<String, u64> {
    let names = fields.iter().filter_map(|(key, _)| Some(parse_total(key)?.0));
    let distinct: BTreeSet<&str> = names.collect();
    let sum = |name: &str| total(name, borrowed(fields));
    distinct.into_iter().map(|name| (name.to_owned(), sum(name))).collect()
}

fn borrowed(fields: &[(String, Field)]) -> impl Iterator<Item = (&str, &Field)> {
    fields.iter().map(|(key, field)| (key.as_str(), field))
}

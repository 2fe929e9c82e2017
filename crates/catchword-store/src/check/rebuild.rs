//! Reading the log of each document, verifying it, and building everything derived from it again.

use catchword_model::change::Change;
use catchword_model::event::ReadingEvent;
use catchword_model::genesis::genesis;
use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, BookId, DocumentId, EventHash};
use catchword_model::schema::DocumentKind;
use redb::Database;

use crate::append::BATCH_CHANGES;
use crate::check::{Check, Named, RecordName};
use crate::doc::{ACTORS_MAX, Doc, Head};
use crate::error::{LoadError, corrupt, load};
use crate::exchange::Staged;
use crate::flush::{Marks, flush};
use crate::log::{Found, Logged, Ordered, read_record};
use crate::open::{LIBRARY_NUMBER, make_tables};
use crate::progress::Step;
use crate::snapshot::Snapshot;
use crate::stage::Stage;

/// What the log says, in a library of its own.
pub(super) struct Rebuilt<'a> {
    database: &'a Database,
    disk: Option<Snapshot>,
    stage: Stage,
    staged: usize,
}

impl<'a> Rebuilt<'a> {
    pub(super) fn new(database: &'a Database) -> Result<Self, LoadError> {
        let write = crate::flush::begin(database)?;
        make_tables(&write)?;
        write.commit().map_err(load)?;
        let disk = Some(Snapshot::take(database)?);
        Ok(Self { database, disk, stage: Stage::default(), staged: 0 })
    }

    fn parts(&mut self) -> Result<(&mut Stage, &Snapshot), LoadError> {
        let disk = self.disk.as_ref();
        Ok((&mut self.stage, disk.ok_or_else(|| corrupt("the scratch file is gone"))?))
    }

    /// Returns the tables of what was built, after the last flush.
    pub(super) fn disk(&self) -> Result<&Snapshot, LoadError> {
        self.disk.as_ref().ok_or_else(|| corrupt("the scratch file is gone"))
    }

    pub(super) fn flush(&mut self) -> Result<(), LoadError> {
        // Journals are compared by the heads of their documents.
        self.stage.stale_texts.clear();
        // Who brought what follows from nothing else, and is not built again.
        self.stage.exchange = Staged::default();
        let Some(disk) = self.disk.take() else { return Ok(()) };
        let marks = Marks { drained: 0, next_sequence: 0, clock: Hlc::ZERO };
        flush(self.database, &mut self.stage, disk, marks)?;
        self.disk = Some(Snapshot::take(self.database)?);
        self.staged = 0;
        Ok(())
    }

    fn count(&mut self) -> Result<(), LoadError> {
        self.staged += 1;
        if BATCH_CHANGES <= self.staged { self.flush() } else { Ok(()) }
    }

    fn add(&mut self, doc: Doc) {
        self.stage.numbers.insert(doc.id, doc.number);
        self.stage.new_numbers.insert(doc.id);
        self.stage.dirty_docs.insert(doc.number);
        self.stage.docs.insert(doc.number, doc);
    }

    /// Takes a change, unless it does not continue what is here; returns what is wrong then.
    fn take(
        &mut self,
        number: u32,
        change: &Change,
        sequence: u64,
    ) -> Result<Option<String>, LoadError> {
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?;
        let last = doc.writer(change.actor).and_then(|writer| writer.last);
        let expected = last.map_or(1, |last| u64::from(last.seq) + 1);
        if change.seq != expected {
            let (actor, seq) = (change.actor, change.seq);
            return Ok(Some(format!("change {seq} of {actor} stands where {expected} belongs")));
        }
        let first = genesis(doc.kind).hash();
        if change.dependencies.is_empty() && change.hash() != first {
            return Ok(Some("change builds on nothing and is not the first".to_owned()));
        }
        if doc.writer(change.actor).is_none() && ACTORS_MAX <= doc.writers.len() {
            return Ok(Some(format!("document has more than {ACTORS_MAX} writers")));
        }
        let mut max_op = 0;
        for hash in &change.dependencies {
            match stage.find(disk, number, *hash)? {
                Some(found) => max_op = max_op.max(found.max_op),
                None => return Ok(Some(format!("change builds on {hash}, which is missing"))),
            }
        }
        if change.start_op != max_op + 1 {
            return Ok(Some(format!(
                "operations begin at {}, not above {max_op}",
                change.start_op
            )));
        }
        stage.apply(disk, number, change, sequence)?;
        self.count()?;
        Ok(None)
    }

    fn take_event(&mut self, number: u32, event: ReadingEvent) -> Result<(), LoadError> {
        let (stage, disk) = self.parts()?;
        stage.apply_event(disk, number, event, 0)?;
        self.count()
    }

    /// Returns a document as far as it is built.
    fn doc(&mut self, number: u32) -> Result<Doc, LoadError> {
        let (stage, disk) = self.parts()?;
        Ok(stage.doc(disk, number)?.clone())
    }

    /// Returns how many events a writer has so far, and the last.
    fn events_of(&mut self, number: u32, actor: ActorId) -> Result<(u64, EventHash), LoadError> {
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?;
        let writer = doc.writer(actor);
        Ok(writer.map_or((0, EventHash([0; 32])), |writer| (writer.events, writer.last_event)))
    }
}

impl Check<'_> {
    /// Reads everything that was recorded of a document, and builds the document again.
    pub(super) fn rebuild(&mut self, named: &Named) -> Result<(), LoadError> {
        self.report.documents += 1;
        match self.skeleton(named) {
            Ok(doc) => self.rebuilt.add(doc),
            Err(LoadError::Corrupt { detail }) => {
                self.damage(named, RecordName::Change { sequence: 0 }, &detail);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let mut log = Ordered::of(self.disk, named.number)?;
        loop {
            if self.is_stopped() {
                return Ok(());
            }
            match log.next() {
                Ok(None) => break,
                Ok(Some(Found::Change(logged))) => self.take(named, &logged)?,
                Ok(Some(Found::Leftover(_))) => self.report.leftovers += 1,
                Ok(Some(Found::Damaged(sequence, error))) => {
                    self.damage(named, RecordName::Change { sequence }, &error);
                }
                Err(LoadError::Corrupt { detail }) => {
                    self.damage(named, RecordName::Change { sequence: 0 }, &detail);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.rebuild_events(named)?;
        self.miss_the_end(named)
    }

    /// A log that ends before what the document says of its writers has lost its end: what is shown of it
    /// may be all that is left.
    fn miss_the_end(&mut self, named: &Named) -> Result<(), LoadError> {
        let Some(stored) = &named.stored else { return Ok(()) };
        let seq = |last: Option<Head>| last.map_or(0, |last| last.seq);
        let built = self.rebuilt.doc(named.number)?;
        let ends = stored.writers.iter().all(|writer| {
            let built = built.writer(writer.actor);
            let (last, events) = built.map_or((None, 0), |built| (built.last, built.events));
            seq(writer.last) <= seq(last) && writer.events <= events
        });
        if !ends && !self.broken.contains(&named.number) {
            let record = RecordName::Change { sequence: 0 };
            self.damage(named, record, &"changes or events at the end are missing");
        }
        Ok(())
    }

    fn take(&mut self, named: &Named, logged: &Logged) -> Result<(), LoadError> {
        self.report.changes += 1;
        self.last_sequence = self.last_sequence.max(logged.sequence);
        self.done += u64::from(logged.sequence == logged.record);
        let wrong = self.rebuilt.take(named.number, &logged.change, logged.sequence)?;
        if let Some(reason) = wrong {
            self.damage(named, RecordName::Change { sequence: logged.record }, &reason);
        }
        if self.report.changes.is_multiple_of(BATCH_CHANGES as u64) {
            let (done, total) = (self.done, self.total);
            self.tell(Step::Reading, done, total);
        }
        Ok(())
    }

    fn rebuild_events(&mut self, named: &Named) -> Result<(), LoadError> {
        let number = named.number;
        let range = (number, 0, 0)..=(number, u16::MAX, u64::MAX);
        for found in self.disk.events.range(range).map_err(load)? {
            let (key, bytes) = found.map_err(load)?;
            let (_, writer, n) = key.value();
            self.report.events += 1;
            self.done += 1;
            let record = RecordName::Event { writer, n };
            let Ok(event) = ReadingEvent::decode(bytes.value()) else {
                self.damage(named, record, &"a reading event does not read");
                continue;
            };
            match self.wrong_event(named, writer, n, &event)? {
                Some(reason) => self.damage(named, record, &reason),
                None => self.rebuilt.take_event(number, event)?,
            }
        }
        Ok(())
    }

    fn wrong_event(
        &mut self,
        named: &Named,
        writer: u16,
        n: u64,
        event: &ReadingEvent,
    ) -> Result<Option<&'static str>, LoadError> {
        let (count, last) = self.rebuilt.events_of(named.number, event.actor)?;
        let stored = named.stored.as_ref().and_then(|doc| doc.writers.get(usize::from(writer)));
        Ok(if event.book != BookId(named.id.0) {
            Some("a reading event of another book")
        } else if event.n != n || stored.is_some_and(|stored| stored.actor != event.actor) {
            Some("a reading event stands in another's place")
        } else if n != count + 1 || event.before != last {
            Some("a reading event does not continue the one before")
        } else {
            None
        })
    }

    /// Returns the document without anything that the log says, its writers in their order.
    fn skeleton(&self, named: &Named) -> Result<Doc, LoadError> {
        let (number, id) = (named.number, named.id);
        let Some(stored) = &named.stored else { return self.guess(named) };
        let mut doc = Doc::empty(number, id, stored.kind, stored.of);
        self.verify_kind(&doc)?;
        for writer in &stored.writers {
            doc.writer_place_or_new(writer.actor);
        }
        Ok(doc)
    }

    /// Returns what a document must be whose own row does not read.
    fn guess(&self, named: &Named) -> Result<Doc, LoadError> {
        let (number, id) = (named.number, named.id);
        let kind = self.first_kind(number)?;
        let of = match kind {
            DocumentKind::Book => number,
            DocumentKind::Library => LIBRARY_NUMBER,
            DocumentKind::Notes => self.book_of_notes(id)?,
        };
        let doc = Doc::empty(number, id, kind, of);
        self.verify_kind(&doc)?;
        Ok(doc)
    }

    /// Returns what kind of document the first change in its log begins.
    fn first_kind(&self, number: u32) -> Result<DocumentKind, LoadError> {
        let unknown = || corrupt("nothing says what kind of document this is");
        let range = (number, 0)..=(number, u64::MAX);
        let first = self.disk.log.range(range).map_err(load)?.next();
        let (key, record) = first.ok_or_else(unknown)?.map_err(load)?;
        let changes = read_record(key.value().1, record.value())?;
        let (_, change) = changes.first().ok_or_else(unknown)?;
        [DocumentKind::Book, DocumentKind::Notes, DocumentKind::Library]
            .into_iter()
            .find(|kind| genesis(*kind).hash() == change.hash())
            .ok_or_else(unknown)
    }

    fn book_of_notes(&self, notes: DocumentId) -> Result<u32, LoadError> {
        let mut books = self.ids.iter().map(|(number, id)| (*number, BookId(id.0)));
        let book = books.find(|(_, book)| book.notes_document() == notes);
        book.map(|(number, _)| number).ok_or_else(|| corrupt("notes of no book"))
    }

    /// A document's kind follows from its id, and from the book it belongs to.
    fn verify_kind(&self, doc: &Doc) -> Result<(), LoadError> {
        let of = self.ids.get(&doc.of).map(|id| BookId(id.0));
        let fits = match doc.kind {
            DocumentKind::Library => doc.id == DocumentId::library(),
            DocumentKind::Book => doc.of == doc.number && doc.id != DocumentId::library(),
            DocumentKind::Notes => of.is_none_or(|book| book.notes_document() == doc.id),
        };
        if fits { Ok(()) } else { Err(corrupt("the document is of another kind than its id")) }
    }
}

//! Changes that others made: read strictly, judged by their past, and applied to the same rows.

use catchword_model::change::past::{Judgement, Known, Past, Place, judge};
use catchword_model::change::read::read;
use catchword_model::change::{Action, Change, Key, Object, OpId};
use catchword_model::genesis::Below;
use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, Author, BookId, ChangeHash, DocumentId};
use catchword_model::schema::DocumentKind;
use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::append::BATCH_CHANGES;
use crate::doc::{ACTORS_MAX, Doc};
use crate::error::{AppendError, LoadError, Rejection};
use crate::snapshot::Snapshot;
use crate::stage::Stage;
use crate::{Inner, Store};

/// A change as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// The document it belongs to.
    pub document: DocumentId,
    /// The change chunk.
    pub bytes: Vec<u8>,
}

/// What became of received changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceiveReport {
    /// Changes that are durable now and were not before.
    pub added: u64,
    /// Changes that were here already.
    pub known: u64,
    /// Changes that do not count, with the document and the reason.
    pub rejected: Vec<(DocumentId, Rejection)>,
}

impl Store {
    /// Makes received changes durable, in transactions of some thousand, and says what became of each.
    ///
    /// The order of the list does not matter, as long as what a change builds on is in it or here. A
    /// change that does not count does not stop the others.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the disk refuses; what the report of earlier calls named is kept.
    pub fn receive(&self, received: &[Received]) -> Result<ReceiveReport, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let mut report = ReceiveReport::default();
        let mut waiting: Vec<(DocumentId, Change)> = Vec::new();
        for item in received {
            match read(&item.bytes) {
                Ok(change) => waiting.push((item.document, change)),
                Err(error) => report.rejected.push((item.document, error.into())),
            }
        }
        // What is not durable is forgotten, so that nothing made here builds on it.
        let received = inner.receive(waiting, &mut report);
        inner.or_roll_back(received)?;
        Ok(report)
    }

    /// Adds the book a received document belongs to, if it is not here.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    pub fn expect_book(&self, book: BookId) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let made = inner.stage_expected(book);
        inner.or_roll_back(made)?;
        inner.drain()
    }
}

impl Inner {
    pub(crate) fn stage_expected(&mut self, book: BookId) -> Result<(), AppendError> {
        if self.number(book.document())?.is_none() {
            let number = self.free_number()?;
            self.stage_doc(Doc::empty(number, book.document(), DocumentKind::Book, number))?;
        }
        let of = self.number(book.document())?.unwrap_or_default();
        if self.number(book.notes_document())?.is_none() {
            let number = self.free_number()?;
            let id = book.notes_document();
            self.stage_doc(Doc::empty(number, id, DocumentKind::Notes, of))?;
        }
        Ok(())
    }

    fn receive(
        &mut self,
        mut waiting: Vec<(DocumentId, Change)>,
        report: &mut ReceiveReport,
    ) -> Result<(), AppendError> {
        let mut staged = 0;
        // Each round takes what has its past by now; a round that takes nothing is the last.
        loop {
            let before = waiting.len();
            let mut left = Vec::new();
            for (document, change) in waiting {
                match self.admit(document, &change)? {
                    Verdict::Added => {
                        report.added += 1;
                        staged += 1;
                    }
                    Verdict::Known => report.known += 1,
                    Verdict::Rejected(rejection) => report.rejected.push((document, rejection)),
                    Verdict::Waits(missing) => left.push((document, change, missing)),
                }
                if BATCH_CHANGES <= staged {
                    self.flush()?;
                    staged = 0;
                }
            }
            if left.len() == before || left.is_empty() {
                let missing = left.into_iter().map(|(document, change, missing)| {
                    (document, Rejection::Missing { hash: change.hash(), missing })
                });
                report.rejected.extend(missing);
                break;
            }
            waiting = left.into_iter().map(|(document, change, _)| (document, change)).collect();
        }
        if 0 < staged { self.flush() } else { Ok(()) }
    }

    pub(crate) fn admit(
        &mut self,
        document: DocumentId,
        change: &Change,
    ) -> Result<Verdict, AppendError> {
        let Some(number) = self.number(document)? else {
            return Ok(Verdict::Rejected(Rejection::NoDocument(document)));
        };
        let (stage, disk) = self.parts()?;
        let hash = change.hash();
        // What is here has a number its writer has reached.
        let reached = |last: crate::doc::Head| change.seq <= u64::from(last.seq);
        let reached =
            stage.doc(disk, number)?.writer(change.actor).and_then(|w| w.last).is_some_and(reached);
        if reached && stage.find(disk, number, hash)?.is_some() {
            return Ok(Verdict::Known);
        }
        let doc = stage.doc(disk, number)?;
        let (kind, known_writer) = (doc.kind, doc.writer_place(change.actor).is_some());
        if !known_writer && ACTORS_MAX <= doc.writers.len() {
            return Err(AppendError::Full { what: "writers", max: ACTORS_MAX as u64 });
        }
        let past = StorePast { stage: RefCell::new(stage), disk, number };
        match judge(change, kind, document, &past)? {
            Judgement::Missing(missing) => return Ok(Verdict::Waits(missing)),
            Judgement::Refused(refusal) => {
                return Ok(Verdict::Rejected(Rejection::Refused { hash, refusal }));
            }
            Judgement::Admitted => (),
        }
        let stage = past.stage.into_inner();
        if let Some(last) = stage.doc(disk, number)?.writer(change.actor).and_then(|w| w.last)
            && change.seq <= u64::from(last.seq)
        {
            let seq = u32::try_from(change.seq).unwrap_or_default();
            let held = stage.change(disk, number, last.writer, seq)?.hash();
            return Ok(Verdict::Rejected(Rejection::Equivocation { hash, held }));
        }
        if kind == DocumentKind::Notes && !self.notes_take(number, change)? {
            return Ok(Verdict::Rejected(Rejection::Document(document)));
        }
        self.clock.observe(Hlc::of_change(change.time));
        let sequence = self.take_sequence();
        let (stage, disk) = self.parts()?;
        stage.apply(disk, number, change, sequence)?;
        Ok(Verdict::Added)
    }
}

pub(crate) enum Verdict {
    Added,
    Known,
    Waits(Vec<ChangeHash>),
    Rejected(Rejection),
}

/// The past of a change, from chains and log.
struct StorePast<'a> {
    stage: RefCell<&'a mut Stage>,
    disk: &'a Snapshot,
    number: u32,
}

impl Past for StorePast<'_> {
    type Error = LoadError;

    fn find(&self, hash: ChangeHash) -> Result<Option<Known>, LoadError> {
        let mut stage = self.stage.borrow_mut();
        let Some(head) = stage.find(self.disk, self.number, hash)? else { return Ok(None) };
        let actor = stage.doc(self.disk, self.number)?.writer_at(head.writer)?.actor;
        Ok(Some(Known { actor, seq: u64::from(head.seq), max_op: head.max_op }))
    }

    fn seq_in_past(&self, heads: &[ChangeHash], actor: ActorId) -> Result<u64, LoadError> {
        if actor == ActorId::of_schema(1) {
            return Ok(1);
        }
        let mut stage = self.stage.borrow_mut();
        let writer = stage.doc(self.disk, self.number)?.writer_place(actor);
        let Some(writer) = writer else { return Ok(0) };
        let mut greatest = 0;
        for hash in heads {
            let Some(head) = stage.find(self.disk, self.number, *hash)? else { continue };
            if head.writer == writer {
                greatest = greatest.max(head.seq);
                continue;
            }
            let clock = stage.clock(self.disk, self.number, head.writer, head.seq)?;
            let seq = clock.iter().find(|(other, _)| *other == writer).map_or(0, |(_, seq)| *seq);
            greatest = greatest.max(seq);
        }
        Ok(u64::from(greatest))
    }

    fn place(&self, op: OpId) -> Result<Option<Place>, LoadError> {
        let mut stage = self.stage.borrow_mut();
        let doc = stage.doc(self.disk, self.number)?;
        let Some(writer) = doc.writer_place(op.actor) else { return Ok(None) };
        let last = doc.writer(op.actor).and_then(|writer| writer.last);
        let Some(last) = last.filter(|last| op.counter <= last.max_op) else { return Ok(None) };
        // Start ops rise with sequence numbers: find the last change that starts at or below.
        let (mut low, mut high) = (1, last.seq);
        let mut found = None;
        while low <= high {
            let middle = low + (high - low) / 2;
            let Some((first, chain)) = stage.chain(self.disk, self.number, writer, 0..=middle)?
            else {
                break;
            };
            if chain.start_op <= op.counter {
                found = Some((first, chain.count));
                low = (first + chain.count).max(middle + 1);
            } else {
                high = first.saturating_sub(1);
            }
        }
        let Some((first, count)) = found else { return Ok(None) };
        for seq in (first..first.saturating_add(count)).rev() {
            let change = stage.change(self.disk, self.number, writer, seq)?;
            if change.start_op <= op.counter {
                return Ok(place_in(&change, op));
            }
        }
        Ok(None)
    }

    fn author(&self, actor: ActorId) -> Result<Option<Author>, LoadError> {
        let mut stage = self.stage.borrow_mut();
        let doc = stage.doc(self.disk, self.number)?;
        Ok(doc.writer(actor).and_then(|writer| writer.author))
    }

    fn below(&self, schema: u32) -> Result<Option<(Below, Vec<String>)>, LoadError> {
        let mut stage = self.stage.borrow_mut();
        let upgrades = stage.doc(self.disk, self.number)?.upgrades.clone();
        let Some(below) = schema.checked_sub(1).and_then(|before| {
            upgrades.iter().find(|upgrade| upgrade.schema == before).map(|upgrade| upgrade.below)
        }) else {
            return Ok(None);
        };
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for upgrade in upgrades.iter().filter(|upgrade| upgrade.schema < schema) {
            let actor = ActorId::of_schema(upgrade.schema);
            let writer = stage.doc(self.disk, self.number)?.writer_place(actor);
            let Some(writer) = writer else { continue };
            let change = stage.change(self.disk, self.number, writer, 1)?;
            taken.extend(change.ops.iter().filter_map(|op| match &op.key {
                Key::Map(key) if op.object == Object::Root => Some(key.clone()),
                Key::Map(_) | Key::Head | Key::Element(_) => None,
            }));
        }
        Ok(Some((below, taken.into_iter().collect())))
    }
}

fn place_in(change: &Change, id: OpId) -> Option<Place> {
    let (_, op) = change.ops_with_ids().find(|(of, _)| *of == id)?;
    let makes = op.action.makes();
    let wrote = !matches!(op.action, Action::Delete | Action::Increment(_));
    let key = if op.insert { Key::Element(id) } else { op.key.clone() };
    wrote.then_some(Place { seq: change.seq, object: op.object, key, makes })
}

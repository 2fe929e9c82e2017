//! Laying a document out anew, without what does not count.
//!
//! First everything of the document moves from its log to the table of what is void, where what counts
//! is marked; then what counts comes back, some thousand at a time, in the order in which it came before.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::exchange::Statement;
use catchword_model::genesis::genesis;
use catchword_model::id::DocumentId;
use redb::WriteTransaction;

use crate::Inner;
use crate::append::BATCH_CHANGES;
use crate::bytes::{Reader, Writer};
use crate::doc::{Doc, kind_code, kind_from_code};
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::exchange::accept::Hearing;
use crate::exchange::forks::void::{self, Void, Voids};
use crate::exchange::pool::{Body, ChainId, Hash};
use crate::exchange::wanted::event;
use crate::exchange::{Origin, StatementKey, arrivals};
use crate::log::{Found, Ordered};
use crate::purge::Gone;
use crate::snapshot::Snapshot;
use crate::statements::{self, Kept, OF_CHANGES, OF_EVENTS};
use crate::{meta, tables};

/// A document that is being laid out anew.
#[derive(Debug, Clone)]
pub(crate) struct Anew {
    doc: Doc,
}

impl Anew {
    pub(crate) fn of(doc: &Doc) -> Self {
        Self { doc: Doc::empty(doc.number, doc.id, doc.kind, doc.of) }
    }

    /// Notes it, in the transaction that takes it out of the log.
    pub(crate) fn write(&self, write: &WriteTransaction) -> Result<(), LoadError> {
        let doc = &self.doc;
        let mut out = Writer::default();
        out.number(u64::from(doc.number)).fixed(&doc.id.0).byte(kind_code(doc.kind));
        out.number(u64::from(doc.of));
        let mut meta = write.open_table(tables::META).map_err(load)?;
        meta.insert(meta::ANEW, out.0.as_slice()).map_err(load)?;
        Ok(())
    }

    /// Returns what is being laid out anew, if a crash came in between.
    pub(crate) fn read(disk: &Snapshot) -> Result<Option<Self>, LoadError> {
        let Some(bytes) = disk.meta_bytes(meta::ANEW)? else { return Ok(None) };
        let mut input = Reader(&bytes);
        let (number, id) = (input.small()?, DocumentId(input.fixed()?));
        let kind = kind_from_code(input.byte()?)?;
        let of = input.small()?;
        Ok(Some(Self { doc: Doc::empty(number, id, kind, of) }))
    }
}

/// What stands in the log of a document, and what of it does not count any more.
struct Moved {
    /// In the order of arrival.
    all: Vec<Void>,
    /// Whether this device's present actor is among what does not count.
    own: bool,
}

impl Inner {
    /// Takes what is lost, and what builds on it, out of a document.
    pub(super) fn lay_out_anew(
        &mut self,
        hearing: &mut Hearing,
        number: u32,
        lost: &BTreeSet<Hash>,
    ) -> Result<(), AppendError> {
        self.flush()?;
        let moved = self.moved(hearing, number, lost)?;
        if moved.own {
            *self.actors.entry(hearing.id).or_default() += 1;
        }
        // All of them are deleted with the document's log.
        for void in hearing.voids.all() {
            let (_, _, hash) = void.body.place();
            self.stage.exchange.void.insert((hearing.id, hash), Some(void.encode()));
        }
        for void in moved.all {
            let (_, _, hash) = void.body.place();
            self.stage.exchange.void.insert((hearing.id, hash), Some(void.encode()));
            if void.counts.is_none() {
                hearing.voids.insert(hash, void);
            }
        }
        let actors = self.actors.clone();
        let (stage, disk) = self.parts()?;
        let doc = disk.doc(number)?.ok_or(LoadError::NoDocument)?;
        let gone = Gone::anew(disk, doc, hearing.name.book(), actors)?;
        stage.docs.remove(&number);
        stage.numbers.remove(&hearing.id);
        stage.gone = Some(gone);
        self.loaded = None;
        self.flush()?;
        self.finish_anew()
    }

    /// Brings back what counts of a document that is being laid out anew.
    pub(crate) fn finish_anew(&mut self) -> Result<(), AppendError> {
        let (_, disk) = self.parts()?;
        let Some(Anew { doc }) = Anew::read(disk)? else { return Ok(()) };
        let (number, id) = (doc.number, doc.id);
        let mut back: Vec<(u64, Hash, Void)> = Vec::new();
        for (hash, void) in void::read(disk, id)? {
            back.extend(void.counts.map(|order| (order, hash, void)));
        }
        back.sort_by_key(|(order, hash, _)| (*order, *hash));
        let (stage, disk) = self.parts()?;
        let voids = Voids::of(&stage.exchange, disk, id)?;
        if self.number(id)?.is_none() {
            self.stage_doc(doc)?;
        }
        if voids.again().next().is_some() {
            self.again.documents.insert(id);
        }
        if !voids.unsigned_tips().is_empty() {
            self.again.unsigned.insert(id);
        }
        let (stage, disk) = self.parts()?;
        stage.doc(disk, number)?.void = voids.sum();
        stage.dirty_docs.insert(number);
        let mut bytes: BTreeMap<ChainId, u64> = BTreeMap::new();
        for (count, (_, hash, void)) in (1..).zip(back) {
            self.bring_back(number, void, &mut bytes)?;
            self.stage.exchange.void.insert((id, hash), None);
            if count % BATCH_CHANGES == 0 {
                self.flush()?;
            }
        }
        self.stage.exchange.is_anew = true;
        self.flush()
    }

    fn bring_back(
        &mut self,
        number: u32,
        void: Void,
        bytes: &mut BTreeMap<ChainId, u64>,
    ) -> Result<(), LoadError> {
        let interval = self.exchange.statement_interval;
        let sequence = self.take_sequence();
        let (stage, disk) = self.parts()?;
        let (chain, at, _) = void.body.place();
        let own = match &void.body {
            Body::Change(change) => {
                stage.apply(disk, number, change, sequence)?;
                change.bytes().len() as u64
            }
            Body::Event(event) => {
                stage.apply_event(disk, number, **event, sequence)?;
                0
            }
        };
        if let Some(origin) = void.origin {
            stage.exchange.came_from(sequence, origin);
        }
        let sum = bytes.entry(chain).or_default();
        *sum += own;
        let writer = stage.doc(disk, number)?.writer_place(chain.1);
        if let (Some(statement), Some(writer)) = (void.statement, writer) {
            let kept = Kept::of(&statement, *sum, statements::stays(at, interval, *sum, own));
            statements::put(&mut stage.exchange, disk, (number, chain.0, writer, at), &kept)?;
        }
        Ok(())
    }

    /// Reads the whole log of a document, and finds what does not count in it.
    fn moved(
        &mut self,
        hearing: &Hearing,
        number: u32,
        lost: &BTreeSet<Hash>,
    ) -> Result<Moved, LoadError> {
        let (_, disk) = self.parts()?;
        let doc = disk.doc(number)?.ok_or(LoadError::NoDocument)?;
        let present = self.author_in(doc.id).actor(doc.id);
        let own: BTreeSet<_> = doc
            .writers
            .iter()
            .filter(|writer| self.own_actor(&doc, writer).is_some())
            .map(|writer| writer.actor)
            .collect();
        let (_, disk) = self.parts()?;
        let mut signed = kept_statements(disk, &doc)?;
        let came_from = origins(disk, number)?;
        let mut moved = Moved { all: Vec::new(), own: false };
        let mut void: BTreeSet<Hash> = lost.clone();
        for (sequence, body) in bodies(disk, &doc)? {
            let ((kind, actor), at, hash) = body.place();
            let builds_on_void = |on: &Hash| void.contains(on) || hearing.voids.contains(on);
            let counts = !void.contains(&hash) && !body.builds_on().iter().any(builds_on_void);
            if !counts {
                void.insert(hash);
                moved.own |= actor == present;
            }
            let origin = came_from.get(&sequence).copied().flatten();
            let writer = doc.writer_place(actor);
            let statement = writer.and_then(|writer| signed.remove(&(number, kind, writer, at)));
            moved.all.push(Void {
                counts: counts.then_some(sequence),
                again: !counts && own.contains(&actor),
                origin,
                body,
                statement,
            });
        }
        Ok(moved)
    }
}

/// Returns the changes and events of a document, in the order of arrival. Its genesis is left out.
fn bodies(disk: &Snapshot, doc: &Doc) -> Result<BTreeMap<u64, Body>, LoadError> {
    let mut bodies = BTreeMap::new();
    let mut log = Ordered::of(disk, doc.number)?;
    while let Some(found) = log.next()? {
        match found {
            Found::Change(logged) if logged.change.hash() != genesis(doc.kind).hash() => {
                bodies.insert(logged.sequence, Body::Change(Box::new(logged.change)));
            }
            Found::Change(_) | Found::Leftover(_) => (),
            Found::Damaged(_, error) => return Err(error),
        }
    }
    let (first, last) = ((doc.number, 0), (doc.number, u64::MAX));
    for found in disk.event_order.range(first..=last).map_err(load)? {
        let (key, value) = found.map_err(load)?;
        let mut input = Reader(value.value());
        let actor = catchword_model::id::ActorId(input.fixed()?);
        let n = input.number()?;
        let writer = doc.writer_place(actor).ok_or_else(|| corrupt("an event of nobody"))?;
        let event = event(disk, doc.number, writer, n)?;
        bodies.insert(key.value().1, Body::Event(Box::new(event)));
    }
    Ok(bodies)
}

fn kept_statements(
    disk: &Snapshot,
    doc: &Doc,
) -> Result<BTreeMap<StatementKey, Statement>, LoadError> {
    let mut kept = BTreeMap::new();
    for kind in [OF_CHANGES, OF_EVENTS] {
        for writer in 0..doc.writers.len() {
            let writer = u16::try_from(writer).unwrap_or(u16::MAX);
            let range = (doc.number, kind, writer, 0)..=(doc.number, kind, writer, u64::MAX);
            for found in disk.statements.range(range).map_err(load)? {
                let (key, value) = found.map_err(load)?;
                let statement = Kept::decode(value.value())?.statement(doc, key.value())?;
                kept.insert(key.value(), statement);
            }
        }
    }
    Ok(kept)
}

/// Returns who brought what of a document, by local sequence.
fn origins(disk: &Snapshot, number: u32) -> Result<BTreeMap<u64, Option<Origin>>, LoadError> {
    let mut origins = BTreeMap::new();
    for run in arrivals::above(disk, 0)? {
        let run = run?;
        if run.arrival.number == number {
            origins.extend((run.first..=run.last()).map(|at| (at, run.arrival.origin)));
        }
    }
    Ok(origins)
}

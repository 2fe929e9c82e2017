//! Writing again what this device had written into a history that does not count.
//!
//! Registers are written with the stamp they had, so that they win and lose as before; they supersede
//! what they had superseded, and this device's own older values. Totals grow by what they had grown.
//! What only this device may write is written under the name it has now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use catchword_model::change::{Action, Change, Key, Object, Op, OpId, Scalar};
use catchword_model::edit::{Write, build};
use catchword_model::event::ReadingEvent;
use catchword_model::exchange::{Signed, Statement};
use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, AnnotationId, DeviceId, DocumentId, EventHash};
use catchword_model::merge::{Field, Holder};
use catchword_model::meta::DeviceName;
use catchword_model::schema::{
    Container, DocumentKind, RecordKey, parse_total, record_key, total_key,
};

use crate::Inner;
use crate::append::Acknowledged;
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::exchange::forks::void::{Void, Voids};
use crate::exchange::pool::{Body, Hash};
use crate::open::Options;
use crate::statements::{self, OF_CHANGES, OF_EVENTS, Signer};

/// What this device has to do about its forks.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// Documents in which something has to be written again.
    pub(crate) documents: BTreeSet<DocumentId>,
    /// Whether the present generation forked: another one has to start.
    pub(crate) forked: bool,
    /// Documents in which something of this device's own does not count and is not signed: others must
    /// learn of it, since it may have decided about theirs.
    pub(crate) unsigned: BTreeSet<DocumentId>,
}

/// Something of this device's that does not count.
struct Lost {
    hash: Hash,
    void: Void,
    /// The device that wrote it: this one, or what it was before.
    device: DeviceId,
    /// Whether what adds up is to be added again: another store with the same key may have done that.
    adds: bool,
}

/// What a change or event keeps when it is written again: its stamp, and the place it is about. The first
/// alone may be that of another one, made by a copy in the same millisecond.
type Mark = (Hlc, String);

impl Inner {
    /// Starts a new generation if the present one forked, and writes again what does not count.
    pub(crate) fn recover_from_forks(
        &mut self,
        folder: Option<&Path>,
        now_ms: u64,
    ) -> Result<(), AppendError> {
        if self.again.forked {
            let public_key_spki = self.identity.public_key_spki.clone();
            // Used only where the library document does not name the device.
            let device = DeviceName::default();
            self.start_generation(&Options { public_key_spki, device, now_ms })?;
            if let Some(folder) = folder {
                self.testify(folder).map_err(|error| AppendError::Io(error.into()))?;
            }
        }
        self.write_again(now_ms)
    }

    /// Signs what this device wrote and does not count, so that it can be given to others.
    pub(crate) fn sign_void(&mut self, signer: &dyn Signer) -> Result<(), AppendError> {
        for document in std::mem::take(&mut self.again.unsigned) {
            let Some(number) = self.number(document)? else { continue };
            let (stage, disk) = self.parts()?;
            let mut voids = Voids::of(&stage.exchange, disk, document)?;
            for hash in voids.unsigned_tips() {
                let Some(void) = voids.get(&hash) else { continue };
                let statement = self.statement_of(document, &void.body, signer);
                let void = Void { statement, ..void.clone() };
                self.stage.exchange.void.insert((document, hash), Some(void.encode()));
                voids.insert(hash, void);
            }
            let (stage, disk) = self.parts()?;
            stage.doc(disk, number)?.void = voids.sum();
            stage.dirty_docs.insert(number);
        }
        self.drain()
    }

    /// Signs something of this device's; `None` if it is somebody else's.
    fn statement_of(
        &self,
        document: DocumentId,
        body: &Body,
        signer: &dyn Signer,
    ) -> Option<Statement> {
        let ((kind, actor), at, hash) = body.place();
        let n_max = self.author_in(document).n;
        let (generation, n) = self.identity.generation_with_actor(document, actor, n_max)?;
        let mut statement = Statement {
            document,
            actor,
            n,
            signed: if kind == OF_CHANGES {
                Signed::Change { seq: at }
            } else {
                Signed::Event { n: at }
            },
            hash,
            public_key_spki: self.identity.public_key_spki.clone(),
            generation,
            signature: [0; 64],
        };
        statement.signature = signer.sign(&statement.message());
        Some(statement)
    }

    /// Writes again what this device had written and does not count.
    pub(crate) fn write_again(&mut self, now_ms: u64) -> Result<(), AppendError> {
        for document in std::mem::take(&mut self.again.documents) {
            let written = self.write_document_again(document, now_ms);
            if self.or_roll_back(written)? {
                self.again.documents.insert(document);
            }
        }
        Ok(())
    }

    /// Returns whether something is left that cannot be written again yet.
    fn write_document_again(
        &mut self,
        document: DocumentId,
        now_ms: u64,
    ) -> Result<bool, AppendError> {
        let Some(number) = self.number(document)? else { return Ok(false) };
        let (stage, disk) = self.parts()?;
        let voids = Voids::of(&stage.exchange, disk, document)?;
        let kind = stage.doc(disk, number)?.kind;
        let done_before = self.written_by_key(number, document)?;
        let lost = self.lost(&voids, document, &done_before);
        let ops = Ops::of(&voids);
        let mut done: Vec<Hash> = Vec::new();
        for of in &lost {
            let written = match &of.void.body {
                Body::Event(event) => self.write_event_again(number, of, event)?,
                Body::Change(change) if kind != DocumentKind::Notes => {
                    self.write_change_again(number, of, change, &ops)?
                }
                Body::Change(_) => true,
            };
            if written {
                done.push(of.hash);
            }
        }
        if kind == DocumentKind::Notes {
            let changes = lost.iter().filter_map(|of| match &of.void.body {
                Body::Change(change) => Some(change.as_ref()),
                Body::Event(_) => None,
            });
            self.write_notes_again(number, changes, &voids, now_ms)?;
        }
        for hash in &done {
            let Some(void) = voids.get(hash) else { continue };
            let void = Void { again: false, ..void.clone() };
            self.stage.exchange.void.insert((document, *hash), Some(void.encode()));
        }
        self.acknowledge_in_rows(Acknowledged::default())?;
        Ok(done.len() < lost.len())
    }

    /// Returns what is to be written again, in the order in which it was written.
    fn lost(&self, voids: &Voids, document: DocumentId, done: &BTreeSet<Mark>) -> Vec<Lost> {
        let mut lost = Vec::new();
        for (hash, void) in voids.again() {
            let ((_, actor), ..) = void.body.place();
            let device = self.writer_of(voids, document, actor);
            let adds = !done.contains(&mark_of(&void.body));
            lost.push(Lost { hash: *hash, void: void.clone(), device, adds });
        }
        lost.sort_by_key(|of| (stamp_of(&of.void.body), of.void.start(), of.hash));
        lost
    }

    /// Returns the marks of the changes and events that count and were written with this device's key.
    fn written_by_key(
        &mut self,
        number: u32,
        document: DocumentId,
    ) -> Result<BTreeSet<Mark>, LoadError> {
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?.clone();
        let mut own: BTreeSet<ActorId> = BTreeSet::new();
        for (place, writer) in (0_u16..).zip(&doc.writers) {
            let mut is_own = self.own_actor(&doc, writer).is_some();
            for kind in [OF_CHANGES, OF_EVENTS] {
                let (stage, disk) = self.parts()?;
                let last = (doc.number, kind, place);
                let kept = statements::last(&stage.exchange, disk, last, u64::MAX)?;
                is_own |= kept
                    .is_some_and(|(_, kept)| kept.public_key_spki == self.identity.public_key_spki);
            }
            if is_own {
                own.insert(writer.actor);
            }
        }
        let mut marks = BTreeSet::new();
        for change in self.changes_of(number)? {
            if own.contains(&change.actor) {
                marks.insert(mark_of(&Body::Change(Box::new(change))));
            }
        }
        let (_, disk) = self.parts()?;
        let range = (number, 0, 0)..=(number, u16::MAX, u64::MAX);
        for found in disk.events.range(range).map_err(load)? {
            let (_, value) = found.map_err(load)?;
            let event = ReadingEvent::decode(value.value());
            let event = event.map_err(|_| corrupt(format!("an event of {document}")))?;
            if own.contains(&event.actor) {
                marks.insert(mark_of(&Body::Event(Box::new(event))));
            }
        }
        Ok(marks)
    }

    /// Returns the device that an actor of this device's key is.
    fn writer_of(&self, voids: &Voids, document: DocumentId, actor: ActorId) -> DeviceId {
        let n_max = self.author_in(document).n;
        let known = self.identity.generation_with_actor(document, actor, n_max);
        let known = known
            .map(|(generation, _)| DeviceId::derive(&self.identity.public_key_spki, generation));
        let statements = voids.all().filter_map(|void| void.statement.as_ref());
        let signed = || {
            let mut of_actor = statements.clone().filter(|statement| statement.actor == actor);
            of_actor.next().map(Statement::device)
        };
        known.or_else(signed).unwrap_or(self.identity.device)
    }

    fn write_event_again(
        &mut self,
        number: u32,
        lost: &Lost,
        event: &ReadingEvent,
    ) -> Result<bool, LoadError> {
        if !lost.adds {
            return Ok(true);
        }
        let sequence = self.take_sequence();
        let (stage, disk) = self.parts()?;
        let id = stage.doc(disk, number)?.id;
        let actor = self.author_in(id).actor(id);
        let (stage, disk) = self.parts()?;
        let writer = stage.doc(disk, number)?.writer(actor);
        let (n, before) =
            writer.map_or((0, EventHash([0; 32])), |writer| (writer.events, writer.last_event));
        let event = ReadingEvent { actor, n: n + 1, before, ..*event };
        stage.apply_event(disk, number, event, sequence)?;
        Ok(true)
    }

    /// Returns whether everything of the change is written: what it took away may not be back yet.
    fn write_change_again(
        &mut self,
        number: u32,
        lost: &Lost,
        change: &Change,
        ops: &Ops<'_>,
    ) -> Result<bool, AppendError> {
        let stamp = Hlc::of_change(change.time);
        let mut whole = true;
        let mut writes: Vec<(Write, Vec<Holder>)> = Vec::new();
        for (_, op) in change.ops_with_ids() {
            let (stage, disk) = self.parts()?;
            let kind = stage.doc(disk, number)?.kind;
            let (Key::Map(old), Some(container)) = (&op.key, kind.container(op.object)) else {
                continue;
            };
            let key = self.renamed(container, old, lost.device);
            let (stage, disk) = self.parts()?;
            let field = stage.held(disk, number, container, &key)?;
            let named = |holder: &&Holder| op.predecessors.contains(&holder.op);
            match &op.action {
                Action::Put(value) if container == Container::Totals => {
                    let Some(value) = self.grown(number, lost, (old, value), op, ops)? else {
                        continue;
                    };
                    let value = Some(Scalar::Int(value));
                    writes.push((Write { container, key, value }, field.holders().to_vec()));
                }
                Action::Put(value) => {
                    let own = self.own_holders(number, &field)?;
                    let is_created = container == Container::Annotations
                        && matches!(record_key::<AnnotationId>(&key), Some(RecordKey::Record(_)));
                    let newer = field.holders().iter().any(|holder| {
                        own.contains(&holder.op) && (is_created || stamp <= holder.stamp)
                    });
                    if newer || (is_created && !field.is_empty()) {
                        continue;
                    }
                    let held = field.holders().iter().filter(|holder| {
                        named(holder) || (own.contains(&holder.op) && holder.stamp < stamp)
                    });
                    let held = held.cloned().collect();
                    let value = Some(value.clone());
                    writes.push((Write { container, key, value }, held));
                }
                Action::Delete => {
                    let gone = op.predecessors.iter().flat_map(|op| ops.stamps(*op));
                    let gone: Vec<Hlc> = gone.collect();
                    let held = field.holders().iter();
                    let held: Vec<Holder> = held
                        .filter(|holder| named(holder) || gone.contains(&holder.stamp))
                        .cloned()
                        .collect();
                    whole &= gone.iter().all(|gone| held.iter().any(|held| held.stamp == *gone));
                    writes.push((Write { container, key, value: None }, held));
                }
                Action::MakeMap
                | Action::MakeList
                | Action::MakeText
                | Action::MakeTable
                | Action::Increment(_)
                | Action::Mark { .. } => (),
            }
        }
        self.stage_again(number, stamp, &writes)?;
        Ok(whole)
    }

    fn stage_again(
        &mut self,
        number: u32,
        stamp: Hlc,
        writes: &[(Write, Vec<Holder>)],
    ) -> Result<(), AppendError> {
        let (stage, disk) = self.parts()?;
        let id = stage.doc(disk, number)?.id;
        let author = self.author_in(id);
        let (stage, disk) = self.parts()?;
        let base = stage.doc(disk, number)?.base(author);
        let held = |container: Container, key: &str| -> Result<Field, LoadError> {
            let of = writes
                .iter()
                .find(|(write, _)| (write.container, write.key.as_str()) == (container, key));
            Ok(Field::from_holders(of.map(|(_, held)| held.clone()).unwrap_or_default()))
        };
        let list: Vec<Write> = writes.iter().map(|(write, _)| write.clone()).collect();
        let Some(change) = build(&base, stamp, &list, held)? else { return Ok(()) };
        let mut acknowledged = Acknowledged::default();
        self.stage_change(number, id, change, &mut acknowledged)?;
        Ok(())
    }

    /// Returns the operations of a field that this device wrote, under whatever name.
    fn own_holders(&mut self, number: u32, field: &Field) -> Result<BTreeSet<OpId>, LoadError> {
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?.clone();
        let is_own = |holder: &&Holder| {
            doc.writer(holder.op.actor).is_some_and(|writer| self.own_actor(&doc, writer).is_some())
        };
        Ok(field.holders().iter().filter(is_own).map(|holder| holder.op).collect())
    }

    /// Returns the key under which this device writes now what it wrote as another device.
    fn renamed(&self, container: Container, key: &str, was: DeviceId) -> String {
        match container.owner(key) {
            Some(Some(owner)) if owner == was => {
                key.replace(&was.to_string(), &self.identity.device.to_string())
            }
            _ => key.to_owned(),
        }
    }

    /// Returns what a running total of this device is with what it had grown by; `None` if nothing is to
    /// be added.
    fn grown(
        &mut self,
        number: u32,
        lost: &Lost,
        (key, value): (&str, &Scalar),
        op: &Op,
        ops: &Ops<'_>,
    ) -> Result<Option<i64>, LoadError> {
        let (true, Some((name, _))) = (lost.adds, parse_total(key)) else { return Ok(None) };
        let new = total_key(name, self.identity.device);
        let (stage, disk) = self.parts()?;
        let old = stage.held(disk, number, Container::Totals, key)?;
        let here = |of: &OpId| {
            let held = old.holders().iter().find(|holder| holder.op == *of);
            held.and_then(|holder| holder.value.as_int())
        };
        let before = op.predecessors.iter().filter_map(|of| here(of).or_else(|| ops.value(*of)));
        let before = before.max().unwrap_or(0);
        let by = value.as_int().unwrap_or(0).saturating_sub(before).max(0);
        let now = stage.held(disk, number, Container::Totals, &new)?;
        let now = now.latest().and_then(|holder| holder.value.as_int()).unwrap_or(0);
        Ok((0 < by).then(|| now.saturating_add(by)))
    }
}

/// Returns what a change or event keeps when it is written again.
fn mark_of(body: &Body) -> Mark {
    let place = match body {
        Body::Change(change) => {
            let positions = Object::Made(Container::Positions.object());
            let of_position = change.ops.iter().find(|op| op.object == positions);
            match of_position.map(|op| &op.action) {
                Some(Action::Put(Scalar::Text(text))) => text.clone(),
                _ => String::new(),
            }
        }
        Body::Event(event) => {
            format!("{} {} {} {}", event.from_ppm, event.to_ppm, event.seconds, event.wall_ms)
        }
    };
    (stamp_of(body), place)
}

fn stamp_of(body: &Body) -> Hlc {
    match body {
        Body::Change(change) => Hlc::of_change(change.time),
        Body::Event(event) => event.stamp,
    }
}

/// The changes that do not count, by where their operations begin.
struct Ops<'a> {
    begins: BTreeMap<(ActorId, u64), Vec<&'a Change>>,
}

impl<'a> Ops<'a> {
    fn of(voids: &'a Voids) -> Self {
        let mut begins: BTreeMap<(ActorId, u64), Vec<&Change>> = BTreeMap::new();
        for void in voids.all() {
            if let Body::Change(change) = &void.body {
                begins.entry((change.actor, change.start_op)).or_default().push(change);
            }
        }
        Self { begins }
    }

    /// Returns the changes that have this operation, of whatever branch.
    fn changes(&self, op: OpId) -> impl Iterator<Item = &'a Change> {
        let mut upwards = self.begins.range((op.actor, 0)..=(op.actor, op.counter));
        let last = upwards.next_back().map(|(_, changes)| changes.as_slice()).unwrap_or_default();
        last.iter().copied().filter(move |change| op.counter <= change.max_op())
    }

    fn stamps(&self, op: OpId) -> impl Iterator<Item = Hlc> {
        self.changes(op).map(|change| Hlc::of_change(change.time))
    }

    /// Returns the whole number that an operation wrote.
    fn value(&self, op: OpId) -> Option<i64> {
        self.changes(op).find_map(|change| {
            let (_, op) = change.ops_with_ids().find(|(id, _)| *id == op)?;
            if let Action::Put(value) = &op.action { value.as_int() } else { None }
        })
    }
}

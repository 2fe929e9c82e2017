//! Deciding what a peer sent: applied, known, parked or refused.
//!
//! # Invariants
//!
//! 1. What becomes of a change does not depend on the order in which things arrive. What a device makes
//!    of two histories of one writer is in [`crate::exchange::forks`].
//! 2. Nothing of a document is staged when one of its changes is refused: what can be applied without
//!    it is found anew.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::exchange::{
    CHANGES_MAX, CONTENT_BYTES_MAX, DocumentName, Parcel, Piece, PieceError, Signed, Statement,
};
use catchword_model::genesis::genesis;
use catchword_model::id::{ActorId, ChangeHash, DocumentId};
use catchword_model::schema::DocumentKind;

use crate::admit::Verdict;
use crate::append::BATCH_CHANGES;
use crate::doc::{ACTORS_MAX, Doc};
use crate::error::{AppendError, LoadError, Rejection, corrupt, load};
use crate::exchange::forks::Voids;
use crate::exchange::parked::{Lot, Parked};
use crate::exchange::peers::encode_pause;
use crate::exchange::pool::{Body, Candidate, Chain, ChainId, Hash, Pool, State};
use crate::exchange::{Origin, PARKED_BYTES_MAX, Pause, Peer, Said, Subject};
use crate::log::read_foreign;
use crate::open::LIBRARY_NUMBER;
use crate::statements::{self, Kept, OF_CHANGES, OF_EVENTS};
use crate::{Inner, Store};

/// Refusals in one document of one piece; beyond, the rest that the peer brought of it is not looked at.
const REFUSALS_MAX: usize = 16;

/// A piece as it came.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The encoded piece.
    pub piece: &'a [u8],
    /// What it holds all of, if it was cut by marks for this generation.
    pub bounds: Option<Bounds>,
    /// What else the peer said. It is kept in the same transaction.
    pub said: Option<&'a Said>,
}

/// The bounds of a piece in the sender's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Nothing above this local sequence is left out ...
    pub from: u64,
    /// ... up to this one.
    pub through: u64,
    /// The greatest that the sender has.
    pub end: u64,
}

/// What became of one change or event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is durable now and was not before.
    Added,
    /// It was here already.
    Known,
    /// It waits for something it builds on, or for a statement.
    Parked,
    /// It does not count.
    Refused,
    /// It belongs to a history that does not count, and is kept as such.
    Void,
}

/// Two histories of one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Equivocation {
    /// Of which document.
    pub document: DocumentId,
    /// Whose.
    pub actor: ActorId,
    /// The first number at which something came that does not count, or does in the place of another.
    pub at: u64,
    /// Whether the writer is this device, in one of its generations.
    pub own: bool,
}

/// What became of a piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Changes that are durable now and were not before, whoever brought them.
    pub changes_added: u64,
    /// The same of reading events.
    pub events_added: u64,
    /// What was here already.
    pub known: u64,
    /// What waits, of this piece.
    pub parked: u64,
    /// Each change and event of the piece, and what it released, with the document.
    pub fates: Vec<(DocumentId, Hash, Fate)>,
    /// What does not count, with the document and the reason.
    pub refused: Vec<(DocumentId, Rejection)>,
    /// Documents that have something new.
    pub documents: BTreeSet<DocumentId>,
    /// Changes and events that do not count and were not here before, since their writer forked.
    pub void: u64,
    /// Which writers were seen to have forked.
    pub equivocations: Vec<Equivocation>,
    /// The mark of the peer afterwards.
    pub mark: u64,
    /// The greatest local sequence before.
    pub before: u64,
    /// The greatest local sequence afterwards.
    pub end: u64,
}

/// Nothing of a piece was taken, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The bytes are no piece. Nothing was taken.
    #[error(transparent)]
    Piece(#[from] PieceError),
    /// The library could not be read or written. What was durable before stays; the mark did not move.
    #[error(transparent)]
    Library(#[from] AppendError),
}

/// How much a piece may still unpack to.
struct Budget {
    changes: usize,
    bytes: usize,
}

/// One document while it is decided.
pub(super) struct Hearing {
    pub(super) name: DocumentName,
    pub(super) id: DocumentId,
    subject: Subject,
    pub(super) number: Option<u32>,
    pub(super) pool: Pool,
    lot: Lot,
    /// Valid statements of this piece, by chain and number.
    pub(super) statements: BTreeMap<(ChainId, u64, Hash), Statement>,
    /// What of the document does not count.
    pub(super) voids: Voids,
    /// Whether something came that stands in the place of something else.
    pub(super) is_forked: bool,
    pub(super) forks: Vec<Equivocation>,
    /// Its forks are too many.
    pub(super) hopeless: Option<Pause>,
    refused: Vec<Rejection>,
}

impl Store {
    /// Decides everything in a piece and makes it durable, in transactions of some thousand changes.
    ///
    /// The mark moves in the last of them, if the delivery continues the mark that is kept; one above the
    /// end of the sender counts as 0, since its order went back. A change counts when a valid statement covers it and everything it builds on is here; until then it is
    /// parked, within limits. What is refused does not stop the rest.
    ///
    /// # Errors
    ///
    /// [`ApplyError`].
    pub fn apply(&self, peer: &Peer<'_>, delivery: Delivery<'_>) -> Result<Applied, ApplyError> {
        let piece = Piece::decode(delivery.piece)?;
        let mut inner = self.lock();
        inner.writable().map_err(ApplyError::Library)?;
        inner.drain()?;
        let applied = inner.apply_piece(peer, piece, delivery);
        let applied = inner.or_roll_back(applied)?;
        inner.recover_from_forks(self.folder(), peer.now_ms)?;
        Ok(applied)
    }
}

impl Inner {
    fn apply_piece(
        &mut self,
        peer: &Peer<'_>,
        piece: Piece,
        delivery: Delivery<'_>,
    ) -> Result<Applied, AppendError> {
        if let Some(said) = delivery.said {
            self.stage_said(peer.origin, said)?;
        }
        let mut applied = Applied { before: self.end()?, ..Applied::default() };
        let mut budget = Budget { changes: CHANGES_MAX, bytes: CONTENT_BYTES_MAX };
        let mut outside = Vec::new();
        let mut staged = 0;
        for parcel in piece.parcels {
            let subject = parcel.name.book().map_or(Subject::Library, Subject::Book);
            let id = parcel.name.id();
            let in_scope = peer.scope.holds(subject);
            let (_, disk) = self.parts()?;
            if !in_scope || disk.is_barred(peer, subject)? {
                outside.extend((!in_scope).then_some(id));
                applied.refused.push((id, Rejection::NotExchanged(id)));
                continue;
            }
            let before = applied.changes_added + applied.events_added;
            self.apply_parcel(peer, parcel, &mut budget, &mut applied)?;
            staged += applied.changes_added + applied.events_added - before;
            if BATCH_CHANGES as u64 <= staged {
                self.flush()?;
                staged = 0;
            }
        }
        applied.mark = self.move_mark(peer.origin, delivery.bounds)?;
        self.note_outside(peer.origin, outside)?;
        self.drain()?;
        applied.end = self.end()?;
        Ok(applied)
    }

    /// Stages the mark of a peer, and returns it.
    fn move_mark(&mut self, origin: Origin, bounds: Option<Bounds>) -> Result<u64, LoadError> {
        let mut record = self.peer_record(origin)?;
        let Some(bounds) = bounds else { return Ok(record.mark) };
        let before = record.mark;
        if bounds.end < record.mark {
            record.mark = 0;
        }
        if bounds.from <= record.mark {
            record.mark = record.mark.max(bounds.through);
        }
        if record.mark != before {
            self.stage.exchange.marks.insert(origin, record.encode());
        }
        Ok(record.mark)
    }

    /// Stages documents that a peer named though its scope does not hold them.
    pub(super) fn note_outside(
        &mut self,
        origin: Origin,
        documents: impl IntoIterator<Item = DocumentId>,
    ) -> Result<(), LoadError> {
        let mut record = self.peer_record(origin)?;
        let (stage, disk) = self.parts()?;
        let mut changed = false;
        for document in documents {
            // What is here is excluded anyway.
            changed |= disk.number(document)?.is_none() && record.note_outside(document);
        }
        if changed {
            stage.exchange.marks.insert(origin, record.encode());
        }
        Ok(())
    }

    fn apply_parcel(
        &mut self,
        peer: &Peer<'_>,
        parcel: Parcel,
        budget: &mut Budget,
        applied: &mut Applied,
    ) -> Result<(), AppendError> {
        let mut hearing = self.hear(peer, parcel, budget)?;
        let mut refusals = 0;
        loop {
            self.recognise(&mut hearing)?;
            if self.settle_forks(peer, &mut hearing)? {
                continue;
            }
            if hearing.hopeless.is_some() {
                break;
            }
            hearing.pool.refuse_descendants();
            let tips = self.tips(&hearing)?;
            let kind = hearing.name.kind();
            let tip = |chain| tips.get(&chain).copied();
            let chains =
                hearing.pool.ready(tip, |hash| self.is_here(hearing.number, kind, hash))?;
            let order = hearing.pool.order(&chains);
            if order.is_empty() {
                break;
            }
            let Some((place, rejection)) = self.stage_all(peer, &mut hearing, &order)? else {
                self.keep_statements(&hearing, &chains)?;
                continue;
            };
            self.unstage(&mut hearing)?;
            if let Some(number) = hearing.number.filter(|_| !hearing.voids.is_empty()) {
                self.stage_sum(&hearing, number)?;
            }
            hearing.pool.set(place, State::Refused(rejection));
            refusals += 1;
            if REFUSALS_MAX <= refusals {
                hearing.give_up();
            }
        }
        self.keep_evidence(&mut hearing)?;
        self.keep_known_statements(&hearing)?;
        self.settle_parked(peer, &mut hearing, false)?;
        self.report(peer, hearing, applied)
    }

    /// Lays out what came of a document, with what waits there.
    fn hear(
        &mut self,
        peer: &Peer<'_>,
        parcel: Parcel,
        budget: &mut Budget,
    ) -> Result<Hearing, LoadError> {
        let (name, id) = (parcel.name, parcel.name.id());
        let number = self.number(id)?;
        let (_, disk) = self.parts()?;
        let lot = Lot::of(disk, id)?;
        let subject = name.book().map_or(Subject::Library, Subject::Book);
        let (stage, disk) = self.parts()?;
        let has_void = match number {
            Some(number) => stage.doc(disk, number)?.void.is_some(),
            None => false,
        };
        let voids = if has_void { Voids::of(&stage.exchange, disk, id)? } else { Voids::default() };
        let mut hearing = Hearing {
            name,
            id,
            subject,
            number,
            pool: Pool::default(),
            lot,
            statements: BTreeMap::new(),
            voids,
            is_forked: false,
            forks: Vec::new(),
            hopeless: None,
            refused: Vec::new(),
        };
        for statement in parcel.statements {
            self.check_statement(&mut hearing, statement)?;
        }
        for (key, (parked, _)) in &hearing.lot.entries {
            let mut candidate = Candidate::new(parked.body.clone(), parked.origin);
            candidate.parked = Some(*key);
            candidate.new = false;
            candidate.statement.clone_from(&parked.statement);
            hearing.pool.add(candidate);
        }
        for run in &parcel.runs {
            hearing.unpack(run, peer.origin, budget);
        }
        for run in &parcel.events {
            for event in run.events() {
                hearing.add(Body::Event(Box::new(*event)), peer.origin);
            }
        }
        Ok(hearing)
    }

    /// Verifies a statement, unless the very same is kept.
    fn check_statement(
        &mut self,
        hearing: &mut Hearing,
        statement: Statement,
    ) -> Result<(), LoadError> {
        let (kind, number) = match statement.signed {
            Signed::Change { seq } => (OF_CHANGES, seq),
            Signed::Event { n } => (OF_EVENTS, n),
        };
        let mut valid = false;
        if let Some(of) = hearing.number {
            let (stage, disk) = self.parts()?;
            if let Some(writer) = stage.doc(disk, of)?.writer_place(statement.actor) {
                let kept = statements::find(&stage.exchange, disk, (of, kind, writer, number))?;
                valid = kept.is_some_and(|kept| {
                    kept.hash == statement.hash && kept.signature == statement.signature
                });
            }
        }
        if valid || statement.is_valid() {
            let key = ((kind, statement.actor), number, statement.hash);
            hearing.statements.entry(key).or_insert(statement);
        } else {
            hearing.refused.push(Rejection::Statement { hash: statement.hash });
        }
        Ok(())
    }

    /// Returns the newest of each chain in the pool that is here.
    fn tips(&mut self, hearing: &Hearing) -> Result<BTreeMap<ChainId, (u64, Hash)>, LoadError> {
        let mut tips = BTreeMap::new();
        let Some(number) = hearing.number else { return Ok(tips) };
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?;
        for writer in &doc.writers {
            if let Some(last) = writer.last {
                tips.insert((OF_CHANGES, writer.actor), (u64::from(last.seq), last.hash.0));
            }
            if 0 < writer.events {
                tips.insert((OF_EVENTS, writer.actor), (writer.events, writer.last_event.0));
            }
        }
        Ok(tips)
    }

    /// Returns whether a change is here. A document that is not made yet has its genesis.
    pub(super) fn is_here(
        &mut self,
        number: Option<u32>,
        kind: DocumentKind,
        hash: &Hash,
    ) -> Result<bool, LoadError> {
        match number {
            None => Ok(genesis(kind).hash().0 == *hash),
            Some(number) => {
                let (stage, disk) = self.parts()?;
                Ok(stage.find(disk, number, ChangeHash(*hash))?.is_some())
            }
        }
    }

    /// Returns the hash of a change or event that is here.
    pub(super) fn hash_here(
        &mut self,
        number: u32,
        chain: ChainId,
        at: u64,
    ) -> Result<Hash, LoadError> {
        let (kind, actor) = chain;
        let (stage, disk) = self.parts()?;
        let missing = || corrupt("a chain lacks what it is said to have");
        let place = stage.doc(disk, number)?.writer_place(actor).ok_or_else(missing)?;
        if kind == OF_CHANGES {
            let seq = u32::try_from(at).map_err(|_| missing())?;
            return Ok(stage.change(disk, number, place, seq)?.hash().0);
        }
        if let Some(event) = stage.events.get(&(number, place, at)) {
            return Ok(event.hash().0);
        }
        let found = disk.events.get((number, place, at)).map_err(load)?.ok_or_else(missing)?;
        let event = catchword_model::event::ReadingEvent::decode(found.value());
        Ok(event.map_err(|_| corrupt("a reading event does not read"))?.hash().0)
    }

    /// Marks what is here already, refuses what contradicts it without a signature, and notices forks.
    fn recognise(&mut self, hearing: &mut Hearing) -> Result<(), LoadError> {
        let Some(number) = hearing.number else { return Ok(()) };
        let tips = self.tips(hearing)?;
        let mut covered: Option<BTreeSet<usize>> = None;
        for (chain, places) in hearing.pool.waiting() {
            let tip = tips.get(&chain).copied();
            for place in places.into_iter().rev() {
                let Some(candidate) = hearing.pool.at(place) else { continue };
                if candidate.state != State::Waiting {
                    continue;
                }
                let (at, hash) = (candidate.number, candidate.hash);
                if hearing.voids.contains(&hash) {
                    hearing.pool.set(place, State::Known);
                    continue;
                }
                let Some((tip, tip_hash)) = tip.filter(|(tip, _)| at <= *tip) else { continue };
                let held = if at == tip { tip_hash } else { self.hash_here(number, chain, at)? };
                if held == hash {
                    hearing.pool.recognise_down(place);
                    continue;
                }
                let covered = covered.get_or_insert_with(|| hearing.pool.covered());
                if covered.contains(&place) {
                    hearing.is_forked = true;
                } else {
                    hearing.pool.set(place, State::Refused(Rejection::Unsigned { hash }));
                }
            }
        }
        Ok(())
    }

    /// Applies candidates in this order. Returns which is refused, and why, if one is.
    fn stage_all(
        &mut self,
        peer: &Peer<'_>,
        hearing: &mut Hearing,
        order: &[usize],
    ) -> Result<Option<(usize, Rejection)>, AppendError> {
        let number = self.expect_document(hearing.name)?;
        hearing.number = Some(number);
        for place in order {
            let Some(candidate) = hearing.pool.at(*place) else { continue };
            let (hash, actor) = (candidate.hash, candidate.chain.1);
            let (stage, disk) = self.parts()?;
            let doc = stage.doc(disk, number)?;
            if doc.writer_place(actor).is_none() && ACTORS_MAX <= doc.writers.len() {
                return Ok(Some((*place, Rejection::Full { hash })));
            }
            match &candidate.body {
                Body::Change(change) => match self.admit(hearing.id, change)? {
                    Verdict::Added => self.note_stamp(peer, hearing.id, change)?,
                    Verdict::Known => continue,
                    Verdict::Rejected(rejection) => return Ok(Some((*place, rejection))),
                    Verdict::Waits(missing) => {
                        let hash = change.hash();
                        return Ok(Some((*place, Rejection::Missing { hash, missing })));
                    }
                },
                Body::Event(event) => {
                    self.clock.observe(event.stamp);
                    let sequence = self.take_sequence();
                    let (stage, disk) = self.parts()?;
                    stage.apply_event(disk, number, **event, sequence)?;
                }
            }
            let sequence = self.next_sequence - 1;
            self.stage.exchange.came_from(sequence, candidate.origin);
            hearing.pool.set(*place, State::Added);
        }
        Ok(None)
    }

    /// Takes back what was staged of a document.
    fn unstage(&mut self, hearing: &mut Hearing) -> Result<(), LoadError> {
        hearing.pool.take_back();
        let Some(number) = hearing.number else { return Ok(()) };
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?;
        let bare = Doc::empty(number, doc.id, doc.kind, doc.of);
        stage.forget(number);
        stage.exchange.ahead = stage.exchange.ahead.filter(|ahead| ahead.document != hearing.id);
        if disk.doc(number)?.is_none() {
            // Others may name it by its number already.
            self.stage_doc(bare)?;
        }
        Ok(())
    }

    /// Returns the number of a document, which is made if it is not here.
    fn expect_document(&mut self, name: DocumentName) -> Result<u32, LoadError> {
        let Some(book) = name.book() else { return Ok(LIBRARY_NUMBER) };
        let of = match self.number(book.document())? {
            Some(number) => number,
            None => self.stage_new(book.document(), DocumentKind::Book, None)?,
        };
        let DocumentName::Notes(_) = name else { return Ok(of) };
        match self.number(name.id())? {
            Some(number) => Ok(number),
            None => self.stage_new(name.id(), DocumentKind::Notes, Some(of)),
        }
    }

    /// Stages a document with its genesis. It belongs to itself, or to another one.
    fn stage_new(
        &mut self,
        id: DocumentId,
        kind: DocumentKind,
        of: Option<u32>,
    ) -> Result<u32, LoadError> {
        let number = self.free_number()?;
        self.stage_doc(Doc::empty(number, id, kind, of.unwrap_or(number)))
    }

    /// Keeps the statements of what was staged: those that stay, and the newest of each chain.
    fn keep_statements(
        &mut self,
        hearing: &Hearing,
        chains: &BTreeMap<ChainId, Chain>,
    ) -> Result<(), LoadError> {
        let Some(number) = hearing.number else { return Ok(()) };
        let interval = self.exchange.statement_interval;
        let (stage, disk) = self.parts()?;
        for ((kind, actor), chain) in chains {
            let Some(writer) = stage.doc(disk, number)?.writer_place(*actor) else { continue };
            let taken: Vec<&Candidate> = chain
                .places
                .iter()
                .take(chain.take)
                .filter_map(|at| hearing.pool.at(*at))
                .collect();
            let (Some(first), Some(newest)) = (taken.first(), taken.last()) else { continue };
            let before = first.number - 1;
            let of = (number, *kind, writer);
            let kept = statements::last(&stage.exchange, disk, of, before)?;
            let counted = kept.filter(|(key, _)| key.3 == before).map(|(_, kept)| kept.bytes);
            let mut bytes = counted.or((before == 0).then_some(0));
            for candidate in &taken {
                let own = candidate.bytes();
                bytes = bytes.map(|bytes| bytes + own).filter(|_| *kind == OF_CHANGES);
                let sum = bytes.unwrap_or(0);
                let stays = statements::stays(candidate.number, interval, sum, own);
                let is_newest = candidate.number == newest.number;
                if let Some(statement) = candidate.statement.as_ref().filter(|_| stays || is_newest)
                {
                    let key = (number, *kind, writer, candidate.number);
                    let kept = Kept::of(statement, sum, stays);
                    statements::put(&mut stage.exchange, disk, key, &kept)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps valid statements of what was here before, where there was none.
    fn keep_known_statements(&mut self, hearing: &Hearing) -> Result<(), LoadError> {
        let Some(number) = hearing.number.filter(|_| hearing.hopeless.is_none()) else {
            return Ok(());
        };
        let interval = self.exchange.statement_interval;
        let tips = self.tips(hearing)?;
        for ((chain, at, hash), statement) in &hearing.statements {
            let Some((tip, _)) = tips.get(chain) else { continue };
            let stays = statements::stays(*at, interval, 0, 0);
            if *at == 0 || tip < at || !(stays || tip == at) {
                continue;
            }
            let (stage, disk) = self.parts()?;
            let Some(writer) = stage.doc(disk, number)?.writer_place(chain.1) else { continue };
            let key = (number, chain.0, writer, *at);
            if statements::find(&stage.exchange, disk, key)?.is_none()
                && self.hash_here(number, *chain, *at)? == *hash
            {
                let (stage, disk) = self.parts()?;
                statements::put(&mut stage.exchange, disk, key, &Kept::of(statement, 0, stays))?;
            }
        }
        Ok(())
    }

    /// Stages what waits now, and what does not any more.
    /// `keep_all` leaves the limits aside: for what is decided about at once, unless a crash comes first.
    pub(super) fn settle_parked(
        &mut self,
        peer: &Peer<'_>,
        hearing: &mut Hearing,
        keep_all: bool,
    ) -> Result<(), LoadError> {
        let max = self.exchange.parked_max;
        let room = self.parked_room()?;
        let of_peer = hearing.lot.entries.values();
        let of_peer = of_peer.filter(|(parked, _)| parked.origin.peer == peer.origin.peer);
        let room = room.saturating_add(of_peer.map(|(_, bytes)| bytes).sum());
        let exchange = &mut self.stage.exchange;
        let mut added: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for candidate in &mut hearing.pool.candidates {
            let waits = candidate.state == State::Waiting && hearing.hopeless.is_none();
            match candidate.parked {
                Some(key) if !waits => {
                    hearing.lot.entries.remove(&key);
                    exchange.parked.insert((hearing.id, key), None);
                }
                None if waits => {
                    let (body, statement) = (candidate.body.clone(), candidate.statement.clone());
                    let (origin, since_ms) = (candidate.origin, peer.now_ms);
                    let parked = Parked { origin, since_ms, body, statement };
                    let (key, bytes) = hearing.lot.add(parked);
                    candidate.parked = Some(key);
                    added.insert(key, bytes);
                }
                Some(_) | None => (),
            }
        }
        let limits =
            if keep_all { (usize::MAX, u64::MAX) } else { (max, room.min(PARKED_BYTES_MAX)) };
        for key in hearing.lot.trim(peer.origin.peer, limits.0, limits.1) {
            if added.remove(&key).is_none() {
                exchange.parked.insert((hearing.id, key), None);
            }
        }
        exchange
            .parked
            .extend(added.into_iter().map(|(key, bytes)| ((hearing.id, key), Some(bytes))));
        Ok(())
    }

    /// Counts what became of everything, pauses a fork, and keeps the peer away from what it spoiled.
    fn report(
        &mut self,
        peer: &Peer<'_>,
        hearing: Hearing,
        applied: &mut Applied,
    ) -> Result<(), AppendError> {
        applied.equivocations.extend(hearing.forks);
        if let Some(pause) = hearing.hopeless {
            self.stage.exchange.paused.insert(hearing.subject.bytes(), encode_pause(&pause));
        }
        let mut spoiled = None;
        for candidate in hearing.pool.candidates {
            let is_change = candidate.chain.0 == OF_CHANGES;
            let fate = match candidate.state {
                State::Added => {
                    applied.documents.insert(hearing.id);
                    applied.changes_added += u64::from(is_change);
                    applied.events_added += u64::from(!is_change);
                    Fate::Added
                }
                State::Known => Fate::Known,
                State::Void => {
                    applied.documents.insert(hearing.id);
                    applied.void += 1;
                    Fate::Void
                }
                State::Waiting if hearing.hopeless.is_none() => Fate::Parked,
                State::Waiting => {
                    if candidate.new {
                        applied.refused.push((hearing.id, Rejection::NotExchanged(hearing.id)));
                    }
                    Fate::Refused
                }
                State::Refused(rejection) => {
                    if candidate.new && rejection.spoils() {
                        spoiled.get_or_insert_with(|| rejection.clone());
                    }
                    applied.refused.push((hearing.id, rejection));
                    Fate::Refused
                }
            };
            if candidate.new || fate != Fate::Parked {
                applied.known += u64::from(fate == Fate::Known);
                applied.parked += u64::from(fate == Fate::Parked);
                applied.fates.push((hearing.id, candidate.hash, fate));
            }
        }
        for rejection in hearing.refused {
            if rejection.spoils() {
                spoiled.get_or_insert_with(|| rejection.clone());
            }
            applied.refused.push((hearing.id, rejection));
        }
        if let Some(why) = spoiled {
            self.quarantine(peer, hearing.subject, &why)?;
        }
        Ok(())
    }
}

impl Hearing {
    /// Adds the changes of a run, or notes why it is refused.
    fn unpack(&mut self, run: &[u8], origin: Origin, budget: &mut Budget) {
        let Ok(changes) = read_foreign(run) else {
            self.refused.push(Rejection::Run(self.id));
            return;
        };
        let bytes: usize = changes.iter().map(|change| change.bytes().len()).sum();
        let left = budget.changes.checked_sub(changes.len()).zip(budget.bytes.checked_sub(bytes));
        let Some((changes_left, bytes_left)) = left else {
            self.refused.push(Rejection::TooMuch(self.id));
            return;
        };
        (budget.changes, budget.bytes) = (changes_left, bytes_left);
        let genesis = genesis(self.name.kind()).hash();
        for change in changes.into_iter().filter(|change| change.hash() != genesis) {
            self.add(Body::Change(Box::new(change)), origin);
        }
    }

    fn add(&mut self, body: Body, origin: Origin) {
        let mut candidate = Candidate::new(body, origin);
        let key = (candidate.chain, candidate.number, candidate.hash);
        candidate.statement = self.statements.get(&key).cloned();
        self.pool.add(candidate);
    }

    pub(super) fn pause(&self, peer: &Peer<'_>, (kind, actor): ChainId, at: u64) -> Pause {
        let at =
            if kind == OF_CHANGES { Signed::Change { seq: at } } else { Signed::Event { n: at } };
        let book = self.name.book();
        let (brought_by, since_ms) = (peer.origin.peer, peer.now_ms);
        Pause { document: self.id, book, actor, at, brought_by, since_ms }
    }

    /// Refuses everything of this piece that is not decided.
    fn give_up(&mut self) {
        for candidate in &mut self.pool.candidates {
            if candidate.new && candidate.state == State::Waiting {
                candidate.state = State::Refused(Rejection::TooMuch(self.id));
            }
        }
    }
}

//! Cutting a piece for a peer: by what it has not seen of this device's order, or by what it lacks.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use catchword_model::event::ReadingEvent;
use catchword_model::exchange::{
    CHANGES_MAX, CONTENT_BYTES_MAX, PIECE_BYTES_MAX, Piece, Reach, Vector, prefix_of,
};
use catchword_model::id::{ActorId, DocumentId};

use crate::block::Packer;
use crate::error::{AppendError, Cause, LoadError, load};
use crate::exchange::forks::Voids;
use crate::exchange::wanted::{Wanted, event};
use crate::exchange::{Bounds, Peer, arrivals};
use crate::log::record_content_bytes;
use crate::snapshot::Snapshot;
use crate::statements::Signer;
use crate::{Inner, Store};

/// How many times what a piece is cut at it may have when it is closed, unless it is one change.
const CLOSED_TIMES_MAX: usize = 2;

/// What is sent in one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// What the piece holds all of; zeros but for the end in a piece by vectors.
    pub bounds: Bounds,
    /// Whether something is left for another piece.
    pub more: bool,
    /// The encoded piece.
    pub piece: Vec<u8>,
    /// How many changes are in it.
    pub changes: u64,
    /// How many reading events are in it.
    pub events: u64,
    /// Actors whose chain here is another one than the peer's.
    pub forks: Vec<(DocumentId, ActorId)>,
    /// What the next piece by marks need not hold, if the peer decides this one.
    pub given: Given,
}

/// What closed the pieces of a peer: changes beyond their `through`, which need not come again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// Number of the document and place of the writer, and its last change that was given.
    reach: BTreeMap<(u32, u16), u64>,
    /// What the last piece was cut at.
    budget: Option<usize>,
}

impl Given {
    /// Returns up to which of a writer's changes the peer was given everything; 0 for none.
    pub(super) fn up_to(&self, number: u32, writer: u16) -> u64 {
        self.reach.get(&(number, writer)).copied().unwrap_or(0)
    }

    /// Returns whether all of a document that has these local sequences was given.
    fn covers(
        &self,
        disk: &Snapshot,
        number: u32,
        range: RangeInclusive<u64>,
    ) -> Result<bool, LoadError> {
        let of_document = (number, 0)..=(number, u16::MAX);
        if self.reach.range(of_document).next().is_none() {
            return Ok(false);
        }
        let events = (number, *range.start())..=(number, *range.end());
        if disk.event_order.range(events).map_err(load)?.next().is_some() {
            return Ok(false);
        }
        Wanted::of(disk, number)?.is_given(disk, *range.end(), self)
    }
}

/// Nothing can be sent. What is kept here is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The signer holds another key than the library was opened with.
    #[error("the key is not the one this library was opened with")]
    OtherKey,
    /// The witness could not be written: nothing may leave this device that it does not know of.
    #[error("cannot write the witness")]
    Witness(#[source] Cause),
    /// The library could not be read or written.
    #[error(transparent)]
    Library(#[from] AppendError),
}

impl From<LoadError> for CollectError {
    fn from(error: LoadError) -> Self {
        Self::Library(error.into())
    }
}

impl Store {
    /// Cuts a piece of what has a local sequence above `after`, did not come from this peer in its
    /// present generation, and is exchanged with it. A mark above the end counts as 0.
    ///
    /// Statements that are missing are made and kept. The witness knows of everything before this
    /// returns. Page turns that wait are no part of it: publish them before.
    ///
    /// # Errors
    ///
    /// [`CollectError`].
    pub fn collect(
        &self,
        peer: &Peer<'_>,
        after: u64,
        signer: &dyn Signer,
    ) -> Result<Collected, CollectError> {
        self.collect_next(peer, after, &Given::default(), signer)
    }

    /// As [`collect`](Self::collect), behind pieces that the peer has decided: what closed them is left
    /// out.
    ///
    /// # Errors
    ///
    /// [`CollectError`].
    pub fn collect_next(
        &self,
        peer: &Peer<'_>,
        after: u64,
        given: &Given,
        signer: &dyn Signer,
    ) -> Result<Collected, CollectError> {
        let mut inner = self.lock();
        inner.begin_collect(signer)?;
        let end = inner.end()?;
        let from = if end < after { 0 } else { after };
        let content_bytes = inner.exchange.piece_content_bytes;
        let last = given.budget.map(|budget| budget.saturating_mul(2));
        let mut budget = last.unwrap_or(content_bytes).min(content_bytes);
        let collected = loop {
            let cut = inner.cut(peer, from..=end, budget, given)?;
            let mut wanted = cut.wanted;
            let through = cut.last;
            let closed_bytes_max = content_bytes.saturating_mul(CLOSED_TIMES_MAX);
            let max = if budget <= 1 { usize::MAX } else { closed_bytes_max };
            let (piece, fits) = inner.emit(&mut wanted, through, given, max, signer)?;
            if fits || budget <= 1 {
                let bounds = Bounds { from, through, end };
                let mut given = given.clone();
                given.budget = Some(budget);
                for document in &wanted {
                    document.note_given(&mut given.reach);
                }
                break Collected { bounds, more: through < end, given, ..piece };
            }
            budget /= 2;
        };
        self.end_collect(&mut inner, end)?;
        Ok(collected)
    }

    /// Cuts a piece of what a peer lacks of some documents, given how far each reaches there. Where
    /// chains fork, it holds what proves that to the peer.
    ///
    /// # Errors
    ///
    /// [`CollectError`].
    pub fn collect_for(
        &self,
        peer: &Peer<'_>,
        vectors: &[(DocumentId, Vector)],
        signer: &dyn Signer,
    ) -> Result<Collected, CollectError> {
        self.collect_within(peer, vectors, signer, Within::default())
    }

    /// As [`collect_for`](Self::collect_for), cut further.
    pub(crate) fn collect_within(
        &self,
        peer: &Peer<'_>,
        vectors: &[(DocumentId, Vector)],
        signer: &dyn Signer,
        within: Within,
    ) -> Result<Collected, CollectError> {
        let mut inner = self.lock();
        inner.begin_collect(signer)?;
        let end = inner.end()?;
        let mut budget = within.bytes_max.unwrap_or(inner.exchange.piece_content_bytes);
        let collected = loop {
            let mut lacking = inner.lacking(peer, vectors, budget, within)?;
            let through = lacking.cut.unwrap_or(end);
            let given = Given::default();
            let max = if budget <= 1 { usize::MAX } else { CONTENT_BYTES_MAX };
            let (piece, fits) = inner.emit(&mut lacking.wanted, through, &given, max, signer)?;
            if fits || budget <= 1 {
                let bounds = Bounds { end, ..Bounds::default() };
                break Collected { bounds, more: lacking.more, forks: lacking.forks, ..piece };
            }
            budget /= 2;
        };
        self.end_collect(&mut inner, end)?;
        Ok(collected)
    }

    /// Makes statements durable, and lets the witness know of everything that may leave now.
    fn end_collect(&self, inner: &mut Inner, end: u64) -> Result<(), CollectError> {
        inner.drain()?;
        if inner.sent < end {
            if let Some(folder) = self.folder() {
                inner
                    .raise_witness(folder, end)
                    .map_err(|error| CollectError::Witness(error.into()))?;
            }
            inner.sent = end;
        }
        Ok(())
    }
}

/// What a piece by vectors is cut at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Within {
    /// Bytes of content: as many of changes, and as many of events.
    pub(crate) bytes_max: Option<usize>,
    /// Changes with a greater local sequence are left out, and documents without any other.
    pub(crate) through: Option<u64>,
}

/// What has the next local sequences, up to the last of them.
struct Cut {
    wanted: Vec<Wanted>,
    last: u64,
}

/// What a peer lacks.
struct Lacking {
    wanted: Vec<Wanted>,
    /// Up to which local sequence, if not all of it.
    cut: Option<u64>,
    more: bool,
    forks: Vec<(DocumentId, ActorId)>,
}

/// Intervals of local sequences of one document.
#[derive(Default)]
struct Intervals {
    list: Vec<(u64, u64)>,
    /// Whether something of the document was passed over since the last one.
    broken: bool,
}

impl Intervals {
    fn add(&mut self, first: u64, last: u64) {
        match self.list.last_mut().filter(|_| !self.broken) {
            Some((_, end)) => *end = last,
            None => self.list.push((first, last)),
        }
        self.broken = false;
    }
}

impl Inner {
    fn begin_collect(&mut self, signer: &dyn Signer) -> Result<(), CollectError> {
        if self.identity.public_key_spki != signer.public_key_spki() {
            return Err(CollectError::OtherKey);
        }
        self.writable()?;
        self.drain()?;
        self.sign_void(signer)?;
        Ok(())
    }

    fn cut(
        &mut self,
        peer: &Peer<'_>,
        marks: RangeInclusive<u64>,
        budget: usize,
        given: &Given,
    ) -> Result<Cut, LoadError> {
        let (after, end) = (*marks.start(), *marks.end());
        let (_, disk) = self.parts()?;
        let common = disk.common(peer)?;
        let mut intervals: BTreeMap<u32, Intervals> = BTreeMap::new();
        let mut is_common: BTreeMap<u32, bool> = BTreeMap::new();
        let (mut last, mut left) = (end, budget);
        for run in arrivals::above(disk, after)? {
            let run = run?;
            if end < run.first {
                break;
            }
            let number = run.arrival.number;
            if let std::collections::btree_map::Entry::Vacant(vacant) = is_common.entry(number) {
                let doc = disk.doc(number)?;
                vacant.insert(doc.is_some_and(|doc| common.holds(doc.of)));
            }
            if is_common.get(&number) != Some(&true) {
                continue;
            }
            let of_document = intervals.entry(number).or_default();
            if run.arrival.origin == Some(peer.origin) {
                of_document.broken = true;
                continue;
            }
            let (from, to) = (run.first.max(after + 1), run.last().min(end));
            if given.covers(disk, number, from..=to)? {
                continue;
            }
            let first = left == budget;
            let reached = reach(disk, number, from..=to, &mut left, first)?;
            if from <= reached {
                of_document.add(from, reached);
            }
            if reached < to {
                last = reached;
                break;
            }
        }
        let mut wanted = Vec::new();
        for (number, intervals) in intervals {
            let mut document = Wanted::of(disk, number)?;
            for (first, last) in intervals.list {
                document.add_sequences(disk, first, last, given)?;
            }
            wanted.push(document);
        }
        Ok(Cut { wanted, last })
    }

    fn lacking(
        &mut self,
        peer: &Peer<'_>,
        vectors: &[(DocumentId, Vector)],
        budget: usize,
        Within { bytes_max, through }: Within,
    ) -> Result<Lacking, LoadError> {
        let interval = self.exchange.statement_interval;
        let (_, disk) = self.parts()?;
        let common = disk.common(peer)?;
        let mut lacking = Lacking { wanted: Vec::new(), cut: None, more: false, forks: Vec::new() };
        let mut left = budget;
        for (id, vector) in vectors {
            let Some(number) = disk.number(*id)? else { continue };
            let mut wanted = Wanted::of(disk, number)?;
            if !common.holds(wanted.doc.of) {
                continue;
            }
            add_lacking(disk, &mut wanted, vector, interval, &mut lacking.forks)?;
            // A server decides about forks by what counts somewhere.
            if wanted.doc.void.is_some() && bytes_max.is_none() {
                let voids = Voids::on(disk, *id)?;
                lacking.more |= wanted.add_void(&voids, &vector.void, &mut left);
            }
            if bytes_max.is_some() {
                lacking.more |= wanted.cut_events((budget / ReadingEvent::LEN).max(1));
            }
            if let Some(through) = through {
                wanted.cut(disk, through)?;
                lacking.cut = Some(through);
            }
            if wanted.is_empty() || (through.is_some() && !wanted.has_changes()) {
                continue;
            }
            let records = wanted.records(disk)?;
            let bytes: usize = records.iter().map(|(_, bytes)| bytes).sum();
            if bytes <= left {
                left -= bytes;
                lacking.wanted.push(wanted);
                continue;
            }
            lacking.more = true;
            if lacking.wanted.is_empty() {
                let mut taken = 0;
                let within = records.iter().take_while(|(_, bytes)| {
                    taken += bytes;
                    taken <= left
                });
                let cut = within.last().or(records.first()).map_or(0, |(log, _)| *log);
                let cut = through.map_or(cut, |through| cut.min(through));
                wanted.cut(disk, cut)?;
                lacking.cut = Some(cut);
                lacking.wanted.push(wanted);
            }
            break;
        }
        Ok(lacking)
    }

    /// Closes and encodes what is wanted, and returns whether it fits into a piece.
    fn emit(
        &mut self,
        wanted: &mut [Wanted],
        through: u64,
        given: &Given,
        content_bytes_max: usize,
        signer: &dyn Signer,
    ) -> Result<(Collected, bool), LoadError> {
        let mut packer = Packer::new()?;
        let mut piece = Piece::default();
        let mut collected = Collected::default();
        let mut content_bytes = 0;
        for document in wanted {
            document.close(self, through, given, signer)?;
            let (parcel, emitted) = document.emit(self, &mut packer)?;
            collected.changes += emitted.changes;
            collected.events += emitted.events;
            content_bytes += emitted.content_bytes;
            if content_bytes_max < content_bytes {
                return Ok((collected, false));
            }
            if !parcel.is_empty() {
                piece.parcels.push(parcel);
            }
        }
        collected.piece = piece.encode();
        // Rebuilt, a change has about 100 bytes that its block leaves out.
        let changes = usize::try_from(collected.changes + collected.events).unwrap_or(usize::MAX);
        let content_bytes = content_bytes.saturating_add(changes.saturating_mul(100));
        let fits = collected.piece.len() <= PIECE_BYTES_MAX
            && changes <= CHANGES_MAX
            && content_bytes <= CONTENT_BYTES_MAX;
        Ok((collected, fits))
    }
}

/// Returns up to which local sequence of a range the content of a document stays within what is left.
/// The first of all is always within.
fn reach(
    disk: &Snapshot,
    number: u32,
    range: RangeInclusive<u64>,
    left: &mut usize,
    first: bool,
) -> Result<u64, LoadError> {
    let (from, mut to) = (*range.start(), *range.end());
    let mut costs: Vec<(u64, usize)> = Vec::new();
    let mut bytes = 0;
    for found in disk.log.range((number, from)..=(number, to)).map_err(load)? {
        let (key, record) = found.map_err(load)?;
        let own = record_content_bytes(record.value());
        bytes += own;
        costs.push((key.value().1, own));
        if *left < bytes {
            to = key.value().1;
            break;
        }
    }
    bytes = 0;
    for found in disk.event_order.range((number, from)..=(number, to)).map_err(load)? {
        let (key, _) = found.map_err(load)?;
        bytes += ReadingEvent::LEN;
        costs.push((key.value().1, ReadingEvent::LEN));
        if *left < bytes {
            to = key.value().1;
            break;
        }
    }
    costs.sort_unstable();
    let mut reached = None;
    for (sequence, own) in costs.into_iter().filter(|(sequence, _)| *sequence <= to) {
        match left.checked_sub(own) {
            Some(rest) => (*left, reached) = (rest, Some(sequence)),
            None if first && reached.is_none() => (*left, reached) = (0, Some(sequence)),
            None => return Ok(reached.unwrap_or(from - 1)),
        }
    }
    Ok(to)
}

fn add_lacking(
    disk: &Snapshot,
    wanted: &mut Wanted,
    vector: &Vector,
    interval: u64,
    forks: &mut Vec<(DocumentId, ActorId)>,
) -> Result<(), LoadError> {
    let (id, number) = (wanted.doc.id, wanted.doc.number);
    for (place, writer) in (0_u16..).zip(wanted.doc.writers.clone()) {
        if writer.actor == ActorId::of_schema(1) {
            continue;
        }
        let theirs = reach_of(&vector.changes, writer.actor);
        let ours = writer.last.map_or(0, |last| u64::from(last.seq));
        match theirs {
            _ if ours == 0 => (),
            None => wanted.add_changes(place, 1, ours),
            Some(theirs) if ours < theirs.number => (),
            Some(theirs) => {
                let seq = u32::try_from(theirs.number).unwrap_or(u32::MAX);
                let hash = disk.hash_at(&wanted.doc, place, seq)?;
                if prefix_of(&hash.0) == theirs.prefix {
                    wanted.add_changes(place, theirs.number + 1, ours);
                } else {
                    wanted.add_fork(place, theirs.number, interval);
                    forks.push((id, writer.actor));
                }
            }
        }
        match reach_of(&vector.events, writer.actor) {
            _ if writer.events == 0 => (),
            None => wanted.add_events(place, 1, writer.events),
            Some(theirs) if writer.events < theirs.number => (),
            Some(theirs) => {
                let hash = event(disk, number, place, theirs.number)?.hash();
                if prefix_of(&hash.0) == theirs.prefix {
                    wanted.add_events(place, theirs.number + 1, writer.events);
                } else {
                    wanted.add_events(place, 1, writer.events);
                    forks.push((id, writer.actor));
                }
            }
        }
    }
    Ok(())
}

fn reach_of(reaches: &[Reach], actor: ActorId) -> Option<&Reach> {
    reaches.iter().find(|reach| reach.actor == actor && 0 < reach.number)
}

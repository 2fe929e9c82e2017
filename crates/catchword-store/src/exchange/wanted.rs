//! What of one document goes into a piece: for each actor, stretches of its chain.

use std::collections::BTreeMap;

use catchword_model::event::ReadingEvent;
use catchword_model::exchange::{DocumentName, EventRun, Parcel, Reach};
use catchword_model::id::ActorId;
use catchword_model::schema::DocumentKind;

use crate::Inner;
use crate::block::Packer;
use crate::doc::Doc;
use crate::error::{LoadError, corrupt, load};
use crate::exchange::Subject;
use crate::exchange::forks::{Void, Voids};
use crate::exchange::gather::Given;
use crate::exchange::pool::Body;
use crate::log::{change_record, read_record, record_content_bytes, record_sequences};
use crate::snapshot::Snapshot;
use crate::statements::{self, NewStatement, OF_CHANGES, OF_EVENTS, Signer};

/// Stretches of numbers, first and last, ascending and apart.
type Stretches = BTreeMap<u16, Vec<(u64, u64)>>;

/// What is wanted of one document.
pub(super) struct Wanted {
    pub(super) doc: Doc,
    name: DocumentName,
    changes: Stretches,
    events: Stretches,
    /// What does not count.
    void: Vec<Void>,
}

/// What became of it.
#[derive(Default)]
pub(super) struct Emitted {
    pub(super) changes: u64,
    pub(super) events: u64,
    pub(super) content_bytes: usize,
}

impl Wanted {
    pub(super) fn of(disk: &Snapshot, number: u32) -> Result<Self, LoadError> {
        let doc = disk.doc(number)?.ok_or(LoadError::NoDocument)?;
        let name = match (doc.kind, disk.subject_of(&doc)?) {
            (DocumentKind::Notes, Subject::Book(book)) => DocumentName::Notes(book),
            (DocumentKind::Library, _) | (_, Subject::Library) => DocumentName::Library,
            (DocumentKind::Book, Subject::Book(book)) => DocumentName::Book(book),
        };
        let (changes, events) = (Stretches::new(), Stretches::new());
        Ok(Self { doc, name, changes, events, void: Vec::new() })
    }

    /// Wants everything that has a local sequence from `first` to `last`.
    pub(super) fn add_sequences(
        &mut self,
        disk: &Snapshot,
        first: u64,
        last: u64,
        given: &Given,
    ) -> Result<(), LoadError> {
        for place in self.places() {
            let Some(end) = self.doc.writer_at(place)?.last else { continue };
            let to = last_up_to(disk, &self.doc, place, end.seq, last)?;
            if to == 0 {
                continue;
            }
            let from = last_up_to(disk, &self.doc, place, to, first.saturating_sub(1))? + 1;
            let from = u64::from(from).max(given.up_to(self.doc.number, place) + 1);
            self.add_changes(place, from, u64::from(to));
        }
        let range = (self.doc.number, first)..=(self.doc.number, last);
        for found in disk.event_order.range(range).map_err(load)? {
            let (_, value) = found.map_err(load)?;
            let mut input = crate::bytes::Reader(value.value());
            let (actor, n) = (ActorId(input.fixed()?), input.number()?);
            let place = self.doc.writer_place(actor);
            self.add_events(place.ok_or_else(|| corrupt("an event of nobody"))?, n, n);
        }
        Ok(())
    }

    /// Returns whether every change with a local sequence up to `at` was given.
    pub(super) fn is_given(
        &self,
        disk: &Snapshot,
        at: u64,
        given: &Given,
    ) -> Result<bool, LoadError> {
        for place in self.places() {
            let Some(end) = self.doc.writer_at(place)?.last else { continue };
            let to = last_up_to(disk, &self.doc, place, end.seq, at)?;
            if given.up_to(self.doc.number, place) < u64::from(to) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes how far the changes of each writer reach that are wanted.
    pub(super) fn note_given(&self, reach: &mut BTreeMap<(u32, u16), u64>) {
        for (writer, stretches) in &self.changes {
            if let Some((_, last)) = stretches.last() {
                let kept = reach.entry((self.doc.number, *writer)).or_default();
                *kept = (*kept).max(*last);
            }
        }
    }

    /// Wants changes of a writer, first and last number; none if they are not in order.
    pub(super) fn add_changes(&mut self, writer: u16, first: u64, last: u64) {
        add(self.changes.entry(writer).or_default(), first, last);
    }

    pub(super) fn add_events(&mut self, writer: u16, first: u64, last: u64) {
        add(self.events.entry(writer).or_default(), first, last);
    }

    /// Wants what does not count and is in none of these branches, as far as there is room for it; at
    /// least one. Returns whether there is more.
    pub(super) fn add_void(&mut self, voids: &Voids, theirs: &[Reach], left: &mut usize) -> bool {
        let lacking = voids.lacking(theirs);
        for void in &lacking {
            let bytes = void.bytes();
            if *left < bytes && !self.void.is_empty() {
                break;
            }
            *left = left.saturating_sub(bytes);
            self.void.push((*void).clone());
        }
        self.void.len() < lacking.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        let stretches = self.changes.values().chain(self.events.values());
        self.void.is_empty() && stretches.into_iter().all(Vec::is_empty)
    }

    pub(super) fn has_changes(&self) -> bool {
        self.changes.values().any(|stretches| !stretches.is_empty())
    }

    /// Returns the places of all writers but that of the genesis, which is never sent.
    fn places(&self) -> Vec<u16> {
        let writers = (0_u16..).zip(&self.doc.writers);
        let others = writers.filter(|(_, writer)| writer.actor != ActorId::of_schema(1));
        others.map(|(place, _)| place).collect()
    }

    /// Adds what is missing: of each actor what follows up to the first statement, and what that builds
    /// on. A peer has, or gets by this piece, everything up to `through`.
    pub(super) fn close(
        &mut self,
        inner: &mut Inner,
        through: u64,
        given: &Given,
        signer: &dyn Signer,
    ) -> Result<(), LoadError> {
        let mut open: Vec<(u16, u64)> = Vec::new();
        for (writer, stretches) in &self.changes {
            open.extend(stretches.iter().map(|(_, last)| (*writer, *last)));
        }
        while let Some((writer, last)) = open.pop() {
            let end = self.end(inner, writer, last, signer)?;
            self.add_changes(writer, last, end);
            let (stage, disk) = inner.parts()?;
            self.add_cover(stage, disk, OF_CHANGES, writer, end)?;
            let at = u32::try_from(end).map_err(|_| corrupt("a number is too large"))?;
            if end == last {
                continue;
            }
            for (other, seq) in stage.clock(disk, self.doc.number, writer, at)? {
                let below = last_up_to(disk, &self.doc, other, seq, through)?;
                let below = u64::from(below).max(given.up_to(self.doc.number, other));
                let (first, last) = (below + 1, u64::from(seq));
                let genesis = self.doc.writer_at(other)?.actor == ActorId::of_schema(1);
                if !genesis && first <= last && !self.holds(other, first, last) {
                    self.add_changes(other, first, last);
                    open.push((other, last));
                }
            }
        }
        self.close_events(inner, signer)
    }

    fn holds(&self, writer: u16, first: u64, last: u64) -> bool {
        let stretches = self.changes.get(&writer).map(Vec::as_slice).unwrap_or_default();
        stretches.iter().any(|(from, to)| *from <= first && last <= *to)
    }

    /// Returns the number of the first change from `at` on that has a statement, or of the last change.
    fn end(
        &self,
        inner: &mut Inner,
        writer: u16,
        at: u64,
        signer: &dyn Signer,
    ) -> Result<u64, LoadError> {
        let owner = self.doc.writer_at(writer)?;
        if let Some((generation, n)) = inner.own_actor(&self.doc, owner) {
            self.sign_up_to(inner, (writer, at), (generation, n), signer)?;
        }
        let (stage, disk) = inner.parts()?;
        let chain = (self.doc.number, OF_CHANGES, writer);
        let next = statements::next(&stage.exchange, disk, chain, at)?;
        let newest = owner.last.map_or(at, |last| u64::from(last.seq));
        Ok(next.map_or(newest, |((_, _, _, seq), _)| seq))
    }

    /// Makes the statements of an own actor up to `at`, and one of `at` itself: so nothing behind it is
    /// needed to close a piece that ends there.
    fn sign_up_to(
        &self,
        inner: &mut Inner,
        (writer, at): (u16, u64),
        (generation, n): (catchword_model::id::Generation, u32),
        signer: &dyn Signer,
    ) -> Result<(), LoadError> {
        let (stage, disk) = inner.parts()?;
        let chain = (self.doc.number, OF_CHANGES, writer);
        let key = |seq| (self.doc.number, OF_CHANGES, writer, seq);
        if statements::find(&stage.exchange, disk, key(at))?.is_some() {
            return Ok(());
        }
        let (mut base, mut bytes) = (at, 0);
        while let Some((key, kept)) = statements::last(&stage.exchange, disk, chain, base)? {
            (base, bytes) = (key.3, kept.bytes);
            if 0 < bytes || base == 0 {
                break;
            }
            base -= 1;
        }
        let first = if bytes == 0 { 1 } else { base + 1 };
        let interval = inner.exchange.statement_interval;
        for seq in first..=at {
            let (stage, disk) = inner.parts()?;
            let small = u32::try_from(seq).map_err(|_| corrupt("a number is too large"))?;
            let change = stage.change(disk, self.doc.number, writer, small)?;
            let own = change.bytes().len() as u64;
            bytes += own;
            if statements::stays(seq, interval, bytes, own) || seq == at {
                let new = NewStatement { key: key(seq), hash: change.hash().0, generation, n };
                inner.sign(&self.doc, &new, bytes, own, signer)?;
            }
        }
        Ok(())
    }

    fn close_events(&mut self, inner: &mut Inner, signer: &dyn Signer) -> Result<(), LoadError> {
        let lasts: Vec<(u16, u64)> = self
            .events
            .iter()
            .flat_map(|(writer, stretches)| stretches.iter().map(|(_, last)| (*writer, *last)))
            .collect();
        for (writer, last) in lasts {
            let owner = self.doc.writer_at(writer)?;
            let (newest, newest_hash) = (owner.events, owner.last_event.0);
            if let Some((generation, n)) = inner.own_actor(&self.doc, owner) {
                let interval = inner.exchange.statement_interval;
                let mut at = last.next_multiple_of(interval).min(newest);
                // All multiples of this stretch, and what ends it.
                let first = self.events.get(&writer).and_then(|stretches| stretches.first());
                let first = first.map_or(at, |(first, _)| *first).next_multiple_of(interval);
                let mut ends: Vec<u64> = Vec::new();
                let mut multiple = first;
                while multiple < at {
                    ends.push(multiple);
                    multiple += interval;
                }
                ends.push(std::mem::take(&mut at));
                for at in ends {
                    let (_, disk) = inner.parts()?;
                    let hash = if at == newest {
                        newest_hash
                    } else {
                        event(disk, self.doc.number, writer, at)?.hash().0
                    };
                    let key = (self.doc.number, OF_EVENTS, writer, at);
                    let new = NewStatement { key, hash, generation, n };
                    inner.sign(&self.doc, &new, 0, 0, signer)?;
                }
            }
            let (stage, disk) = inner.parts()?;
            let chain = (self.doc.number, OF_EVENTS, writer);
            let next = statements::next(&stage.exchange, disk, chain, last)?;
            let end = next.map_or(newest, |((_, _, _, n), _)| n);
            self.add_events(writer, last, end);
            let (stage, disk) = inner.parts()?;
            self.add_cover(stage, disk, OF_EVENTS, writer, end)?;
        }
        Ok(())
    }

    /// Wants what follows the end of a chain and does not count, if nothing else shows who wrote the end:
    /// its statement was about what followed it once.
    fn add_cover(
        &mut self,
        stage: &crate::stage::Stage,
        disk: &Snapshot,
        kind: u8,
        writer: u16,
        end: u64,
    ) -> Result<(), LoadError> {
        let key = (self.doc.number, kind, writer, end);
        if self.doc.void.is_none() || statements::find(&stage.exchange, disk, key)?.is_some() {
            return Ok(());
        }
        let voids = Voids::on(disk, self.doc.id)?;
        let owner = self.doc.writer_at(writer)?;
        let last = match (kind, u32::try_from(end)) {
            (OF_CHANGES, Ok(seq)) => disk.hash_at(&self.doc, writer, seq)?.0,
            _ => event(disk, self.doc.number, writer, end)?.hash().0,
        };
        for void in voids.cover((kind, owner.actor), end, last) {
            if !self.void.contains(void) {
                self.void.push(void.clone());
            }
        }
        Ok(())
    }

    /// Returns the parcel. Blocks of the log are packed anew: they are small, so that redb can keep
    /// them, and what is alike in many of them would be sent with each.
    pub(super) fn emit(
        &self,
        inner: &mut Inner,
        packer: &mut Packer,
    ) -> Result<(Parcel, Emitted), LoadError> {
        let mut parcel = Parcel::new(self.name);
        let mut emitted = Emitted::default();
        let (stage, disk) = inner.parts()?;
        for (writer, stretches) in &self.changes {
            for (first, last) in stretches {
                emitted.changes += last + 1 - first;
                self.emit_stretch(disk, (*writer, *first, *last), packer, &mut parcel)?;
                let range = (self.doc.number, OF_CHANGES, *writer);
                self.emit_statements(stage, disk, range, (*first, *last), &mut parcel)?;
            }
        }
        for (writer, stretches) in &self.events {
            for (first, last) in stretches {
                emitted.events += last + 1 - first;
                let events = (*first..=*last).map(|n| event(disk, self.doc.number, *writer, n));
                let run = EventRun::new(events.collect::<Result<_, _>>()?);
                parcel.events.push(run.ok_or_else(|| corrupt("events that do not follow"))?);
                let range = (self.doc.number, OF_EVENTS, *writer);
                self.emit_statements(stage, disk, range, (*first, *last), &mut parcel)?;
            }
        }
        for void in &self.void {
            match &void.body {
                Body::Change(change) => {
                    emitted.changes += 1;
                    parcel.runs.push(change_record(change.bytes()));
                }
                Body::Event(event) => {
                    emitted.events += 1;
                    parcel.events.extend(EventRun::new(vec![**event]));
                }
            }
            parcel.statements.extend(void.statement.clone());
        }
        let runs = parcel.runs.iter().map(|run| record_content_bytes(run)).sum::<usize>();
        emitted.content_bytes =
            runs + usize::try_from(emitted.events).unwrap_or(0) * ReadingEvent::LEN;
        Ok((parcel, emitted))
    }

    fn emit_stretch(
        &self,
        disk: &Snapshot,
        (writer, first, last): (u16, u64, u64),
        packer: &mut Packer,
        parcel: &mut Parcel,
    ) -> Result<(), LoadError> {
        let mut wanted = Vec::new();
        let mut seq = first;
        while seq <= last {
            let (begin, count, log, record) = self.record(disk, writer, seq)?;
            let changes = read_record(log, &record)?.into_iter().map(|(_, change)| change);
            wanted.extend(changes.filter(|change| (first..=last).contains(&change.seq)));
            seq = begin + count;
        }
        parcel.runs.extend(packer.pack_all(&wanted)?);
        Ok(())
    }

    /// Returns the record that holds a change: its first number, how many, where it stands, its bytes.
    fn record(
        &self,
        disk: &Snapshot,
        writer: u16,
        seq: u64,
    ) -> Result<(u64, u64, u64, Vec<u8>), LoadError> {
        let missing = || corrupt(format!("document {} lacks a change of its chain", self.doc.id));
        let at = u32::try_from(seq).map_err(|_| missing())?;
        let (begin, chain) = disk.chain(self.doc.number, writer, 0..=at)?.ok_or_else(missing)?;
        let record = disk.record(self.doc.number, chain.log)?.ok_or_else(missing)?;
        if begin + chain.count <= at {
            return Err(missing());
        }
        Ok((u64::from(begin), u64::from(chain.count), chain.log, record))
    }

    /// Returns where the records of what is wanted stand, and what each holds unpacked, in bytes.
    pub(super) fn records(&self, disk: &Snapshot) -> Result<Vec<(u64, usize)>, LoadError> {
        let mut records = Vec::new();
        for (writer, stretches) in &self.changes {
            for (first, last) in stretches {
                let mut seq = *first;
                while seq <= *last {
                    let (begin, count, log, record) = self.record(disk, *writer, seq)?;
                    records.push((log, record_content_bytes(&record)));
                    seq = begin + count;
                }
            }
        }
        records.sort_unstable();
        Ok(records)
    }

    /// Leaves out changes with a local sequence above `cut`.
    pub(super) fn cut(&mut self, disk: &Snapshot, cut: u64) -> Result<(), LoadError> {
        for (writer, stretches) in &mut self.changes {
            let Some((_, last)) = stretches.last().copied() else { continue };
            let last = u32::try_from(last).unwrap_or(u32::MAX);
            let end = u64::from(last_up_to(disk, &self.doc, *writer, last, cut)?);
            stretches.retain_mut(|(first, last)| {
                *last = (*last).min(end);
                *first <= *last
            });
        }
        Ok(())
    }

    /// Leaves out events beyond so many, and returns whether there were any.
    pub(super) fn cut_events(&mut self, events_max: usize) -> bool {
        let mut left = events_max as u64;
        let mut cut = false;
        for stretches in self.events.values_mut() {
            stretches.retain_mut(|(first, last)| {
                let most = first.saturating_add(left).saturating_sub(1);
                cut |= most < *last;
                *last = (*last).min(most);
                left = left.saturating_sub((*last + 1).saturating_sub(*first));
                *first <= *last
            });
        }
        cut
    }

    fn emit_statements(
        &self,
        stage: &crate::stage::Stage,
        disk: &Snapshot,
        chain: (u32, u8, u16),
        (first, last): (u64, u64),
        parcel: &mut Parcel,
    ) -> Result<(), LoadError> {
        let mut at = first;
        while let Some((key, kept)) = statements::next(&stage.exchange, disk, chain, at)? {
            if last < key.3 {
                break;
            }
            parcel.statements.push(kept.statement(&self.doc, key)?);
            at = key.3 + 1;
        }
        Ok(())
    }

    /// Wants what shows that a writer's chain is another one than the peer's, which reaches to `at`: its
    /// statements up to there, and its changes behind the last of those that both must have had.
    pub(super) fn add_fork(&mut self, writer: u16, at: u64, interval: u64) {
        let newest = self.doc.writer_at(writer).ok().and_then(|writer| writer.last);
        let newest = newest.map_or(0, |last| u64::from(last.seq));
        let from = at.min(newest).saturating_sub(1) / interval * interval;
        self.add_changes(writer, from.max(1), newest);
    }
}

pub(super) fn event(
    disk: &Snapshot,
    number: u32,
    writer: u16,
    n: u64,
) -> Result<ReadingEvent, LoadError> {
    let missing = || corrupt("a reading event is missing");
    let found = disk.events.get((number, writer, n)).map_err(load)?.ok_or_else(missing)?;
    ReadingEvent::decode(found.value()).map_err(|_| corrupt("a reading event does not read"))
}

/// Puts a stretch among others, and joins those that touch.
fn add(stretches: &mut Vec<(u64, u64)>, first: u64, last: u64) {
    if last < first {
        return;
    }
    let from = stretches.partition_point(|(_, end)| end.saturating_add(1) < first);
    let to = stretches.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
    let touched = stretches.get(from..to).unwrap_or_default();
    let first = touched.first().map_or(first, |(begin, _)| first.min(*begin));
    let last = touched.last().map_or(last, |(_, end)| last.max(*end));
    stretches.splice(from..to, [(first, last)]);
}

/// Returns the number of a writer's last change, up to `newest`, whose local sequence is at most `at`;
/// 0 if there is none. A writer's changes arrive in the order of their numbers.
pub(super) fn last_up_to(
    disk: &Snapshot,
    doc: &Doc,
    writer: u16,
    newest: u32,
    at: u64,
) -> Result<u32, LoadError> {
    let (mut low, mut high, mut found) = (1, newest, 0);
    // The newest is asked for most.
    let mut middle = newest;
    while low <= high {
        let missing = || corrupt(format!("document {} lacks a change of its chain", doc.id));
        let (first, chain) = disk.chain(doc.number, writer, 0..=middle)?.ok_or_else(missing)?;
        if chain.log <= at {
            let last = first.saturating_add(chain.count).saturating_sub(1).min(newest);
            (low, found) = (last.max(middle) + 1, last);
        } else if 1 < chain.count {
            let record = disk.record(doc.number, chain.log)?.ok_or_else(missing)?;
            let sequences = record_sequences(chain.log, &record)?;
            let within = sequences.partition_point(|sequence| *sequence <= at);
            if 0 < within {
                let last = first + u32::try_from(within).unwrap_or(u32::MAX) - 1;
                return Ok(last.min(newest));
            }
            high = first.saturating_sub(1);
        } else {
            high = first.saturating_sub(1);
        }
        middle = low + high.saturating_sub(low) / 2;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_touch_become_one() {
        let mut stretches = Vec::new();
        for (first, last) in [(5, 6), (9, 9), (1, 2), (8, 7)] {
            add(&mut stretches, first, last);
        }
        assert_eq!(stretches, [(1, 2), (5, 6), (9, 9)]);
        add(&mut stretches, 3, 3);
        assert_eq!(stretches, [(1, 3), (5, 6), (9, 9)]);
        add(&mut stretches, 4, 8);
        assert_eq!(stretches, [(1, 9)]);
        add(&mut stretches, 2, 3);
        assert_eq!(stretches, [(1, 9)]);
    }
}

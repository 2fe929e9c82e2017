//! Page turns: durable at once, and one change and one reading event later.

use catchword_model::edit::{Edit, Write};
use catchword_model::event::{EVENT_SECONDS_MAX, ReadingEvent};
use catchword_model::hlc::Hlc;
use catchword_model::id::{BookId, DocumentId};
use catchword_model::locator::Locator;
use catchword_model::position::{self, Entry, Furthest, Intent, PASS_MAX, PPM_MAX, Position};
use catchword_model::schema::{Container, DocumentKind, furthest_key, total_key};

use crate::append::Acknowledged;
use crate::error::{AppendError, LoadError};
use crate::flush::all_entries;
use crate::rows::field_key;
use crate::wal::{Pending, Record};
use crate::{Inner, Store};

/// How a page was turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// A page forward or back: advance when the place grows, rewind otherwise.
    Turned,
    /// Somewhere else: by a link, a search or the table of contents.
    Jumped,
    /// Over from the start: opens the next pass.
    Restarted,
}

/// One page turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Where the reader is now.
    pub locator: Locator,
    /// How far through the book, in parts per million.
    pub ppm: u32,
    /// How the reader got there.
    pub motion: Motion,
    /// Seconds read since the turn before.
    pub seconds: u32,
    /// Where this reading began, in parts per million; counts for the first turn only.
    pub from_ppm: u32,
}

/// The receipt of a page turn that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnReceipt {
    /// The stamp of the turn, which its change will carry.
    pub stamp: Hlc,
    /// The pass it belongs to.
    pub pass: u32,
    /// What all turns since the last published position amount to.
    pub intent: Intent,
}

impl Store {
    /// Records a page turn and returns when it is durable.
    ///
    /// It becomes part of one change when [`publish`](Self::publish) is called, or any other write of
    /// the book is made. `now_ms` is the wall clock in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the turns before are kept.
    pub fn turn(&self, book: BookId, turn: &Turn, now_ms: u64) -> Result<TurnReceipt, AppendError> {
        if PPM_MAX < turn.ppm {
            let (value, max) = (u64::from(turn.ppm), u64::from(PPM_MAX));
            return Err(AppendError::OutOfRange { what: "position", value, max });
        }
        let mut inner = self.lock();
        inner.writable()?;
        let number = inner.number(book.document())?.ok_or(AppendError::NoDocument)?;
        let pending = inner.turned(number, turn, now_ms)?;
        let receipt =
            TurnReceipt { stamp: pending.stamp, pass: pending.pass, intent: pending.intent };
        let mut acknowledged = Acknowledged::default();
        acknowledged.pending.push((number, Some(pending)));
        inner.acknowledge(acknowledged)?;
        Ok(receipt)
    }

    /// Makes the change and the reading event of the turns that wait, and returns whether any did.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the turns are kept.
    pub fn publish(&self, book: BookId) -> Result<bool, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let number = inner.number(book.document())?.ok_or(AppendError::NoDocument)?;
        inner.publish(number)
    }

    /// Publishes the turns of every book: at start, and before a sync.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; what is published stays so, the other turns are kept.
    pub fn publish_all(&self) -> Result<usize, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let numbers: Vec<u32> = inner.pending.keys().copied().collect();
        for number in &numbers {
            inner.publish(*number)?;
        }
        Ok(numbers.len())
    }
}

impl Inner {
    fn publish(&mut self, number: u32) -> Result<bool, AppendError> {
        let mut acknowledged = Acknowledged::default();
        let published = self.publish_into(number, &mut acknowledged);
        let published = self.or_roll_back(published)?;
        self.acknowledge(acknowledged)?;
        Ok(published)
    }

    fn turned(&mut self, number: u32, turn: &Turn, now_ms: u64) -> Result<Pending, AppendError> {
        let device = self.identity.device;
        let (stage, disk) = self.parts()?;
        if stage.doc(disk, number)?.kind != DocumentKind::Book {
            return Err(AppendError::WrongDocument);
        }
        let entries = all_entries(stage, disk, number)?;
        let stamp = self.clock.tick(now_ms);
        let seen = position::seen_by(device, &entries);
        let own = entries.iter().filter(|entry| entry.device == device).max_by_key(|e| e.order);
        let before = self.pending.get(&number);
        let pass = before.map_or_else(|| position::highest_pass(&entries), |before| before.pass);
        let restarted = turn.motion == Motion::Restarted;
        let pass = if restarted { (pass + 1).min(PASS_MAX) } else { pass };
        let intent = intent_of(turn, before.map(|before| before.intent), own);
        let (furthest, furthest_ppm) = match before.filter(|_| !restarted) {
            Some(before) if turn.ppm <= before.furthest_ppm => {
                (before.furthest.clone(), before.furthest_ppm)
            }
            _ => (turn.locator.clone(), turn.ppm),
        };
        let seconds = before.map_or(0, |before| before.seconds).saturating_add(turn.seconds);
        Ok(Pending {
            locator: turn.locator.clone(),
            ppm: turn.ppm,
            pass,
            intent,
            stamp,
            wall_ms: now_ms,
            seen,
            from_ppm: before.map_or(turn.from_ppm.min(PPM_MAX), |before| before.from_ppm),
            furthest,
            furthest_ppm,
            seconds: seconds.min(EVENT_SECONDS_MAX),
            turns: before.map_or(0, |before| before.turns).saturating_add(1),
        })
    }

    /// Stages the change and the event of the turns that wait, if any do.
    pub(crate) fn publish_into(
        &mut self,
        number: u32,
        acknowledged: &mut Acknowledged,
    ) -> Result<bool, AppendError> {
        let Some(pending) = self.pending.get(&number).cloned() else { return Ok(false) };
        if acknowledged.publishes(number) {
            return Ok(false);
        }
        let before = acknowledged.records.len();
        if let Some(writes) = self.turn_writes(number, &pending)? {
            self.stage_writes(number, pending.stamp, &writes, acknowledged)?;
        }
        self.stage_event(number, &pending, acknowledged)?;
        let made = acknowledged.records.iter().skip(before).map(|(sequence, _)| *sequence);
        acknowledged.published.extend(made);
        acknowledged.pending.push((number, None));
        Ok(true)
    }

    /// Returns what the turns write: positions, furthest and totals; nothing if the rows have a newer
    /// entry of this device already.
    fn turn_writes(
        &mut self,
        number: u32,
        pending: &Pending,
    ) -> Result<Option<Vec<Write>>, LoadError> {
        let device = self.identity.device;
        let (stage, disk) = self.parts()?;
        let entries = all_entries(stage, disk, number)?;
        let mut own = entries.iter().filter(|entry| entry.device == device);
        if own.any(|entry| pending.stamp < entry.stamp()) {
            return Ok(None);
        }
        let mut edits = vec![Edit::SetPosition(Position {
            locator: pending.locator.clone(),
            ppm: pending.ppm,
            intent: pending.intent,
            pass: pending.pass,
            wall_ms: pending.wall_ms,
            seen: pending.seen,
        })];
        let key = field_key(Container::Furthest, &furthest_key(device, pending.pass));
        let held = stage.field(disk, number, &key)?;
        let points = held.field.holders().iter();
        let far = points.filter_map(|holder| Furthest::from_json(holder.value.as_text()?));
        if far.map(|point| point.ppm).max().is_none_or(|far| far < pending.furthest_ppm) {
            let (locator, ppm) = (pending.furthest.clone(), pending.furthest_ppm);
            let furthest = Furthest { locator, ppm };
            edits.push(Edit::SetFurthest { pass: pending.pass, furthest });
        }
        let more = [("seconds", pending.seconds), ("turns", pending.turns), ("sessions", 1)];
        for (name, more) in more {
            let key = field_key(Container::Totals, &total_key(name, device));
            let held = stage.field(disk, number, &key)?;
            let latest = held.field.latest().and_then(|holder| holder.value.as_int());
            let total = u64::try_from(latest.unwrap_or(0)).unwrap_or(0);
            if 0 < more {
                let value = total.saturating_add(u64::from(more));
                edits.push(Edit::SetTotal { name: name.to_owned(), value });
            }
        }
        let writes = edits.iter().flat_map(|edit| edit.writes(device, pending.stamp));
        Ok(Some(writes.collect()))
    }

    fn stage_event(
        &mut self,
        number: u32,
        pending: &Pending,
        acknowledged: &mut Acknowledged,
    ) -> Result<(), LoadError> {
        let sequence = self.take_sequence();
        let (stage, disk) = self.parts()?;
        let id: DocumentId = stage.doc(disk, number)?.id;
        let actor = self.author_in(id).actor(id);
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?;
        let writer = doc.writer(actor);
        let event = ReadingEvent {
            book: BookId(id.0),
            actor,
            n: writer.map_or(0, |writer| writer.events) + 1,
            before: writer.map_or(catchword_model::id::EventHash([0; 32]), |w| w.last_event),
            pass: pending.pass,
            from_ppm: pending.from_ppm,
            to_ppm: pending.ppm,
            seconds: pending.seconds,
            turns: pending.turns,
            wall_ms: pending.wall_ms,
            stamp: pending.stamp,
        };
        stage.apply_event(disk, number, event, sequence)?;
        acknowledged.records.push((sequence, Record::Event(id, Box::new(event))));
        Ok(())
    }

    /// Turns that waited when the store was found to have gone back become events only.
    pub(crate) fn turns_become_events(&mut self) -> Result<(), AppendError> {
        let waiting = self.pending.clone();
        let mut acknowledged = Acknowledged::default();
        for (number, pending) in &waiting {
            self.stage_event(*number, pending, &mut acknowledged)?;
            acknowledged.pending.push((*number, None));
        }
        self.acknowledge(acknowledged)
    }
}

/// One intent for all turns since the last published entry: a restart or a jump if there was one,
/// else by comparing with that entry.
fn intent_of(turn: &Turn, before: Option<Intent>, own: Option<&Entry>) -> Intent {
    match (turn.motion, before) {
        (Motion::Restarted, _) | (_, Some(Intent::Restart)) => Intent::Restart,
        (Motion::Jumped, _) | (_, Some(Intent::Jump)) => Intent::Jump,
        (Motion::Turned, None | Some(Intent::Advance | Intent::Rewind)) => match own {
            Some(own) if turn.ppm <= own.position.ppm => Intent::Rewind,
            _ => Intent::Advance,
        },
    }
}

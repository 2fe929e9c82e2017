//! Fetches one file from every paired device that has it.
//!
//! ```text
//!  joined -> one byte of it -> not there: left alone
//!                  | its size
//!                  v
//!         ranges in order, from all sources at once -> whole -> verify -> it has its name: done
//!                  ^                                              | it has not
//!                  |            from one source alone: that one is barred, begin again
//!                  +--- else begin again, one source after the other ---+
//! ```
//!
//! What is there is always a beginning of the file, so how far it goes is all that must be kept between
//! two attempts. A source that is slow holds nobody up: whoever has nothing else to do asks for the same.
//!
//! # Invariants
//!
//! 1. Bytes are written in order, without gaps. At most [`WINDOW_BYTES`] are held besides.
//! 2. A file ends as done only if its owner has verified all of it.
//! 3. It ends: each attempt that fails bars a source, or is the only one that mixes sources.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;

use crate::blob::{RANGE_BYTES_MAX, Range, decode_part};
use crate::request::Status;
use crate::wire::Reader;

/// Requests that are out at one source: the next is there when one is answered.
pub const ASKED_MAX: usize = 2;
/// How far beyond what is written is asked for, in bytes.
pub const WINDOW_BYTES: u64 = 16 << 20;
/// A source that is too busy is left alone for so long, if it does not say for how long.
pub const REST: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Begin, with so many bytes from an earlier attempt.
    Start {
        /// How long the beginning of the file is that is there.
        written: u64,
    },
    /// This device was reached, and may have the file.
    Joined(Fingerprint),
    /// There will be no more devices.
    AllKnown,
    /// A device answers a request.
    Answered {
        /// Who.
        source: Fingerprint,
        /// What it was asked for.
        range: Range,
        /// How it answers.
        status: Status,
        /// Its body.
        body: Vec<u8>,
    },
    /// A device is gone.
    Lost(Fingerprint),
    /// The owner's answer to [`Event::Verify`]: whether the whole has the name of the book.
    Verified(bool),
}

/// What to ask of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Whom.
    pub source: Fingerprint,
    /// For which part.
    pub range: Range,
}

/// What to do with the file or tell the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The file has so many bytes, as far as anybody knows.
    Size(u64),
    /// Put this at the end of what is there.
    Write(Vec<u8>),
    /// Forget what is there.
    Discard,
    /// It is whole: see whether it has the name of the book, and answer with [`Input::Verified`].
    Verify,
    /// This device's copy is not the book: nothing is taken from it any more.
    Barred(Fingerprint),
    /// It is over.
    Ended(Result<(), Failure>),
}

/// Why there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No device was reached.
    #[error("no paired device could be reached")]
    NoSource,
    /// No device that was reached has it, or gives it to this one.
    #[error("no device that was reached has this file")]
    Nowhere,
    /// Whoever has it was lost. What came is kept for the next time.
    #[error("the connection was lost; what came is kept, and the next attempt goes on from there")]
    Lost,
    /// Whoever has it has something else under its name.
    #[error("the copies that other devices have are damaged")]
    Corrupt,
}

#[derive(Debug, Default)]
struct Source {
    asked: Vec<Range>,
    /// How long it says that the file is; `None` until it has said so.
    size: Option<u64>,
    rests_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// All sources at once.
    Together,
    /// One after the other: the present one, if there is one.
    Alone(Option<Fingerprint>),
    Ended,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Fetch {
    state: State,
    is_verifying: bool,
    sources: BTreeMap<Fingerprint, Source>,
    all_known: bool,
    size: Option<u64>,
    /// Everything below is in the file.
    written: u64,
    /// Everything below is in the file, here, or asked for.
    planned: u64,
    /// What came before its turn, by offset.
    early: BTreeMap<u64, Vec<u8>>,
    /// What was asked of a source that is gone.
    given_back: BTreeSet<Range>,
    /// Who brought what is in the file.
    bringers: BTreeSet<Fingerprint>,
    /// Whether something in the file is from an earlier attempt.
    is_resumed: bool,
    failure: Failure,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Default for Fetch {
    fn default() -> Self {
        Self::new()
    }
}

/// What a source is asked first: whether it has the file, and how long it is.
const PROBE: Range = Range { offset: 0, length: 1 };

impl Fetch {
    /// Makes a machine that has not begun.
    pub const fn new() -> Self {
        Self {
            state: State::Idle,
            is_verifying: false,
            sources: BTreeMap::new(),
            all_known: false,
            size: None,
            written: 0,
            planned: 0,
            early: BTreeMap::new(),
            given_back: BTreeSet::new(),
            bringers: BTreeSet::new(),
            is_resumed: false,
            failure: Failure::NoSource,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Tells the machine what happened. What does not belong to the present state changes nothing.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match (self.state, input) {
            (State::Idle, Input::Start { written }) => {
                self.state = State::Together;
                (self.written, self.planned, self.is_resumed) = (written, written, 0 < written);
            }
            (State::Idle | State::Ended, _) | (_, Input::Start { .. }) => return,
            (_, Input::Joined(source)) => {
                self.sources.entry(source).or_default();
                self.failure = self.failure.max_of(Failure::Nowhere);
            }
            (_, Input::AllKnown) => self.all_known = true,
            (_, Input::Answered { source, range, status, body }) => {
                self.answered(source, range, status, &body, now);
            }
            (_, Input::Lost(source)) => self.drop_source(source, Failure::Lost),
            (_, Input::Verified(is_book)) if self.is_verifying => self.verified(is_book),
            (_, Input::Verified(_)) => return,
        }
        self.go_on(now);
    }

    /// Reports that time has reached `now`. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !matches!(self.state, State::Idle | State::Ended) {
            self.go_on(now);
        }
    }

    /// Returns the next request, until `None`.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns what to do with the file or tell the application next, until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), while a source is left alone.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sources.values().filter_map(|source| source.rests_until).min()
    }

    fn answered(
        &mut self,
        from: Fingerprint,
        range: Range,
        status: Status,
        body: &[u8],
        now: Instant,
    ) {
        let Some(source) = self.sources.get_mut(&from) else { return };
        let Some(at) = source.asked.iter().position(|asked| *asked == range) else { return };
        source.asked.remove(at);
        if status == Status::SLOW_DOWN {
            let told = Reader::new(body).u32().ok().map(u64::from).map(Duration::from_millis);
            source.rests_until = Some(now + told.unwrap_or(REST).max(Duration::from_millis(1)));
            self.give_back(range);
            return;
        }
        let part = if status == Status::OK { decode_part(range, body).ok() } else { None };
        match part {
            Some((size, bytes)) if source.size.is_none_or(|said| said == size) => {
                source.size = Some(size);
                if range != PROBE && self.takes_from(from) {
                    self.keep(from, range, bytes);
                }
            }
            _ if status == Status::UNKNOWN_DOCUMENT => self.drop_source(from, Failure::Nowhere),
            // It failed, or does not keep to the protocol.
            _ => self.drop_source(from, Failure::Lost),
        }
    }

    fn takes_from(&self, source: Fingerprint) -> bool {
        match self.state {
            State::Together => self.sources.get(&source).is_some_and(|it| it.size == self.size),
            State::Alone(alone) => alone == Some(source),
            State::Idle | State::Ended => false,
        }
    }

    fn keep(&mut self, from: Fingerprint, range: Range, bytes: &[u8]) {
        if range.offset < self.written || self.early.contains_key(&range.offset) {
            return;
        }
        self.bringers.insert(from);
        self.early.insert(range.offset, bytes.to_vec());
        while let Some(bytes) = self.early.remove(&self.written) {
            self.written += bytes.len() as u64;
            self.events.push_back(Event::Write(bytes));
        }
    }

    fn give_back(&mut self, range: Range) {
        let elsewhere = self.sources.values().any(|source| source.asked.contains(&range));
        if range != PROBE && self.written <= range.offset && !elsewhere {
            self.given_back.insert(range);
        }
    }

    fn drop_source(&mut self, gone: Fingerprint, why: Failure) {
        let Some(source) = self.sources.remove(&gone) else { return };
        self.failure = self.failure.max_of(why);
        self.transmits.retain(|transmit| transmit.source != gone);
        source.asked.into_iter().for_each(|range| self.give_back(range));
        if self.state == State::Alone(Some(gone)) {
            self.state = State::Alone(None);
        }
    }

    fn verified(&mut self, is_book: bool) {
        self.is_verifying = false;
        if is_book {
            self.end(Ok(()));
            return;
        }
        let bringers = std::mem::take(&mut self.bringers);
        let blamed = bringers.first().filter(|_| bringers.len() == 1 && !self.is_resumed);
        match (blamed, self.state) {
            (Some(source), _) => {
                self.events.push_back(Event::Barred(*source));
                self.drop_source(*source, Failure::Corrupt);
            }
            // What was there before was wrong, whoever brought it.
            (None, State::Together) if bringers.len() <= 1 => (),
            (None, _) => self.state = State::Alone(None),
        }
        self.begin_again();
    }

    /// Forgets what is there.
    fn begin_again(&mut self) {
        (self.written, self.planned, self.is_resumed, self.size) = (0, 0, false, None);
        self.early.clear();
        self.given_back.clear();
        self.bringers.clear();
        self.events.push_back(Event::Discard);
    }

    /// Looks what can be asked for, and whether anything can still come.
    fn go_on(&mut self, now: Instant) {
        if self.is_verifying || self.state == State::Ended {
            return;
        }
        for source in self.sources.values_mut() {
            source.rests_until = source.rests_until.filter(|until| now < *until);
        }
        self.probe();
        self.choose();
        if self.size == Some(self.written) {
            self.is_verifying = true;
            self.events.push_back(Event::Verify);
            return;
        }
        self.plan();
        let may_come = !self.all_known || !self.sources.is_empty();
        if !may_come {
            self.end(Err(self.failure));
        }
    }

    fn probe(&mut self) {
        for (name, source) in &mut self.sources {
            let is_new = source.size.is_none() && source.asked.is_empty();
            if is_new && source.rests_until.is_none() {
                source.asked.push(PROBE);
                self.transmits.push_back(Transmit { source: *name, range: PROBE });
            }
        }
    }

    /// Decides from whom to take, and with that how long the file is.
    fn choose(&mut self) {
        let known = || self.sources.iter().filter_map(|(name, it)| Some((*name, it.size?)));
        match self.state {
            State::Together => {
                let is_same = |size: &u64| known().any(|(_, it)| it == *size);
                if self.size.as_ref().is_some_and(is_same) {
                    return;
                }
                let Some((_, size)) = known().next() else { return };
                // Whoever said otherwise is gone, and so is what it brought.
                if self.size.is_some() || size < self.written {
                    self.begin_again();
                }
                self.set_size(size);
            }
            State::Alone(None) => {
                let Some((name, size)) = known().next() else { return };
                self.state = State::Alone(Some(name));
                self.begin_again();
                self.set_size(size);
            }
            State::Alone(Some(_)) | State::Idle | State::Ended => (),
        }
    }

    fn set_size(&mut self, size: u64) {
        self.size = Some(size);
        self.events.push_back(Event::Size(size));
    }

    fn plan(&mut self) {
        let names: Vec<Fingerprint> = self.sources.keys().copied().collect();
        for _ in 0..ASKED_MAX {
            for name in &names {
                let Some(source) = self.sources.get(name) else { continue };
                let is_free = source.rests_until.is_none() && source.asked.len() < ASKED_MAX;
                if !is_free || !self.takes_from(*name) {
                    continue;
                }
                let Some(range) = self.next_range(*name) else { continue };
                if let Some(source) = self.sources.get_mut(name) {
                    source.asked.push(range);
                    self.transmits.push_back(Transmit { source: *name, range });
                }
            }
        }
    }

    fn next_range(&mut self, of: Fingerprint) -> Option<Range> {
        if let Some(range) = self.given_back.pop_first() {
            return Some(range);
        }
        let size = self.size?;
        if self.planned < size && self.planned < self.written.saturating_add(WINDOW_BYTES) {
            // The last one, too: so none is ever taken for a probe.
            let range = Range { offset: self.planned, length: RANGE_BYTES_MAX };
            self.planned = range.end();
            return Some(range);
        }
        self.slow_range(of)
    }

    /// Returns what others were asked for longest ago, if one of them alone was: it may be slow.
    fn slow_range(&self, of: Fingerprint) -> Option<Range> {
        let mut asked: BTreeMap<Range, usize> = BTreeMap::new();
        let all = self
            .sources
            .iter()
            .flat_map(|(name, source)| source.asked.iter().map(move |range| (*range, *name == of)));
        for (range, is_own) in all.filter(|(range, _)| *range != PROBE) {
            *asked.entry(range).or_default() += if is_own { 2 } else { 1 };
        }
        let waited =
            |range: &Range| self.written <= range.offset && !self.early.contains_key(&range.offset);
        asked
            .into_iter()
            .find(|(range, count)| *count == 1 && waited(range))
            .map(|(range, _)| range)
    }

    fn end(&mut self, ending: Result<(), Failure>) {
        self.state = State::Ended;
        self.transmits.clear();
        self.events.push_back(Event::Ended(ending));
    }
}

impl Failure {
    /// Returns whichever says more.
    fn max_of(self, other: Self) -> Self {
        let rank = |failure| match failure {
            Self::NoSource => 0,
            Self::Nowhere => 1,
            Self::Corrupt => 2,
            Self::Lost => 3,
        };
        if rank(self) < rank(other) { other } else { self }
    }
}

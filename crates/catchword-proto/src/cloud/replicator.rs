//! Keeps a library in step with its account in the cloud.
//!
//! A [`Replicator`] is a machine without IO: it asks its owner for everything that is stored, and says
//! which request to make next.
//!
//! ```text
//!                 +------------------ more in the feed, a nudge, a rebase ---------------+
//!                 v                                                                      |
//!  start -> load -> pull -> merge -+-> end of the feed -> rewrite -> choose -> collect   |
//!    ^                             |                                   | nothing   |     |
//!    |                             +-- more -> pull                    v           v     |
//!    |                                                                rest       push -> keep
//!    +------- wait (backoff, full jitter) <---- anything failed
//! ```
//!
//! # Invariants
//!
//! 1. Nothing is pushed before the feed was merged up to its end as of this start: yesterday's position
//!    is not sent before today's is known.
//! 2. At most one request is out, or one question asked.
//! 3. Nothing is remembered that is not stored: after a failure the machine loads again and goes on
//!    from there, however much of the lost request was carried out.
//! 4. A document whose entry is refused for good stops; the others flow.
//! 5. A position is written again at most [`RESTAMPS_MAX`] times before one of its document counts.
//! 6. A document of which nothing can be taken does not go round for ever: one whose entries are
//!    incomplete [`INCOMPLETE_MAX`] times in a row stops, and so does one whose smallest entry is still
//!    more than the server takes.
//!
//! # What is not here
//!
//! HTTP (the driver), cutting entries and merging (the store), and what a verdict means there: whoever
//! merges a withdrawn change writes its mark in the same transaction.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use catchword_model::exchange::DocumentName;

use super::api::{
    Anchor, Entry, EntryAnswer, FeedTag, Ingested, Outcome, PAGE_RECORDS_MAX, Page, ProblemKind,
    Reason,
};
use super::outbox::{Waiting, order};

/// A position is written again so often for a verdict of `restamp`.
pub const RESTAMPS_MAX: u8 = 3;
/// Entries of one document that are incomplete in a row: the first says what the server lacks, the second
/// is sent from the beginning, and the third is a wonder.
pub const INCOMPLETE_MAX: u8 = 3;
/// The first wait after a failure is at most this long; each further one doubles it.
pub const RETRY_MIN: Duration = Duration::from_secs(1);
/// No wait is longer, unless the server names one.
pub const RETRY_MAX: Duration = Duration::from_secs(300);
/// How long a request may take.
pub const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(60);
/// The feed is looked at this often, whatever nudges say.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Changes and events of a batch, unless its first entry cannot be cut smaller: what is lost with a
/// connection is sent again.
pub const BATCH_RECORDS: usize = 1_000;
/// Changes and events of a batch, in bytes: base64 and the rest of the body fit beside them.
pub const BATCH_BYTES_MAX: usize = 5 << 20;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The library is signed in and open.
    Start,
    /// Something of this device, or of a peer, is durable and may be unsent. Said any number of times.
    Changed,
    /// The server says where the feed ends.
    Nudged(u64),
    /// The owner's answer to the last question.
    Answer(Answer),
    /// The server's answer to [`Transmit::Pull`].
    Pulled(Page),
    /// The server's answer to [`Transmit::Push`].
    Pushed(Ingested),
    /// The server refused the request, or there was no answer.
    Failed {
        /// What the server said; none if it said nothing.
        problem: Option<ProblemKind>,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
        /// Any number, each as likely as the others: a machine draws none itself.
        random: u64,
    },
}

/// What to ask of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Transmit {
    /// `GET /v1/changes`.
    Pull {
        /// After this cursor.
        after: u64,
        /// About so many records.
        limit: usize,
        /// A record that was merged: the server says if it does not have it.
        known: Option<Anchor>,
    },
    /// `POST /v1/ingest`.
    Push(Vec<Entry>),
}

/// What to ask of the store or tell the application.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Ask this, and answer with [`Input::Answer`].
    Ask(Question),
    /// Everything is sent and merged.
    Synced,
    /// A document is not sent any more, until a person decides.
    Stopped {
        /// Which one.
        document: DocumentName,
        /// Why.
        reason: Reason,
    },
    /// A position is left as it is, though it is not the place it was meant to be.
    RestampGivenUp(DocumentName),
    /// The token is worth nothing any more: sign in again. The machine has ended.
    SignedOut,
    /// The next try is at this time.
    Waits {
        /// What the server said.
        problem: Option<ProblemKind>,
        /// When.
        until: Instant,
    },
}

/// What a machine asks of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Up to which number is the feed merged, and what is to be written again? Answered by
    /// [`Answer::Loaded`].
    Load,
    /// Decide everything in this page, and move the cursor, what the server is known to have, and the
    /// versions with it, in one transaction. A change with the verdict `withdrawn` brings the mark.
    /// Answered by [`Answer::Kept`].
    Merge(Page),
    /// The server has something else than it said before: forget the cursor, all versions, and what it is known to
    /// have. Answered by [`Answer::Kept`].
    Forget,
    /// Of which documents is something unsent, that are not stopped? Answered by [`Answer::Outbox`].
    Outbox,
    /// Cut entries of these documents, in this order: each document's unsent changes in log order,
    /// closed under statements, together at most this much. A document that does not fit any more is left
    /// out; the first one is never. Answered by [`Answer::Collected`].
    Collect {
        /// Which documents, the first first.
        documents: Vec<DocumentName>,
        /// Changes and events in all.
        records_max: usize,
        /// Their bytes in all.
        bytes_max: usize,
    },
    /// Keep what the server answered: what it has, versions, marks of withdrawn positions; of a document
    /// whose entry was incomplete, that nothing is known to be there; of one that was refused, that it
    /// stops. Answered by [`Answer::Kept`].
    Keep {
        /// What the server answered, with the document of each entry.
        answers: Vec<(DocumentName, EntryAnswer)>,
        /// The new cursor, if nothing but this batch is between it and the old one.
        cursor: Option<u64>,
        /// The tag of the record there.
        tag: Option<FeedTag>,
    },
    /// Write this device's newest position of the document again, with a new stamp and `seen`, unless it
    /// is the place, or another one than the server said so of. Answered by [`Answer::Kept`].
    Rewrite(DocumentName),
}

/// What a store answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`Question::Load`].
    Loaded {
        /// The cursor.
        cursor: u64,
        /// The last record that was merged and has a tag, which may be beyond the cursor.
        known: Option<Anchor>,
        /// As in [`Answer::Kept`].
        again: Vec<DocumentName>,
    },
    /// It is durable.
    Kept {
        /// Documents in which this device's newest position has the verdict `restamp` and is not the
        /// place, of those that the question was about.
        again: Vec<DocumentName>,
    },
    /// To [`Question::Outbox`].
    Outbox(Vec<Waiting>),
    /// To [`Question::Collect`].
    Collected(Vec<Entry>),
    /// The store failed.
    Failed {
        /// As in [`Input::Failed`].
        random: u64,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Not started, or signed out.
    Off,
    Loading,
    Pulling,
    Merging {
        cursor: u64,
        end: u64,
        tag: Option<FeedTag>,
    },
    Forgetting,
    Rewriting,
    Choosing,
    Collecting,
    Pushing(Vec<(DocumentName, Entry)>),
    Keeping,
    Resting,
    Waiting,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Replicator {
    state: State,
    cursor: u64,
    /// The last record that was merged and has a tag.
    known: Option<Anchor>,
    /// The greatest end of the feed that the server told since the last pull was sent.
    end: u64,
    /// Invariant 1: whether the feed was merged to its end since the last load.
    open: bool,
    changed: bool,
    rewrites: BTreeSet<DocumentName>,
    restamps: BTreeMap<DocumentName, u8>,
    incomplete: BTreeMap<DocumentName, u8>,
    /// A document whose entry alone was more than the server takes, and how many records it had.
    indivisible: Option<(DocumentName, usize)>,
    failures: u32,
    /// Records of the next batch: fewer after a batch that the server could not take as a whole.
    records_max: usize,
    turn: u64,
    deadline: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Default for Replicator {
    fn default() -> Self {
        Self::new()
    }
}

impl Replicator {
    /// Makes a machine that has not started.
    pub const fn new() -> Self {
        Self {
            state: State::Off,
            cursor: 0,
            known: None,
            end: 0,
            open: false,
            changed: false,
            rewrites: BTreeSet::new(),
            restamps: BTreeMap::new(),
            incomplete: BTreeMap::new(),
            indivisible: None,
            failures: 0,
            records_max: BATCH_RECORDS,
            turn: 0,
            deadline: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Tells the machine what happened. What does not belong to the present state changes nothing.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match (input, &self.state) {
            (Input::Start, State::Off) => self.load(),
            (Input::Changed, _) => {
                self.changed = true;
                if self.state == State::Resting {
                    self.choose();
                }
            }
            (Input::Nudged(end), _) => {
                self.end = self.end.max(end);
                if self.state == State::Resting && self.cursor < self.end {
                    self.pull(now);
                }
            }
            (Input::Answer(answer), _) => self.answered(answer, now),
            (Input::Pulled(page), State::Pulling) => self.pulled(page),
            (Input::Pushed(ingested), State::Pushing(_)) => self.pushed(ingested, now),
            (
                Input::Failed { problem, retry_after, random },
                State::Pulling | State::Pushing(_),
            ) => {
                self.failed(problem, retry_after, random, now);
            }
            (Input::Start | Input::Pulled(_) | Input::Pushed(_) | Input::Failed { .. }, _) => (),
        }
    }

    /// Reports that time has reached `now`. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.state {
            State::Waiting => self.load(),
            State::Resting => self.pull(now),
            // Whatever became of the request: what is stored says how to go on.
            State::Pulling | State::Pushing(_) => {
                self.transmits.clear();
                self.wait(None, RETRY_MIN, now);
            }
            State::Off
            | State::Loading
            | State::Merging { .. }
            | State::Forgetting
            | State::Rewriting
            | State::Choosing
            | State::Collecting
            | State::Keeping => (),
        }
    }

    /// Returns the next request, until `None`.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns what to ask of the store or tell the application next, until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), if at all.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn ask(&mut self, state: State, question: Question) {
        self.state = state;
        self.deadline = None;
        self.events.push_back(Event::Ask(question));
    }

    fn load(&mut self) {
        self.open = false;
        self.ask(State::Loading, Question::Load);
    }

    fn pull(&mut self, now: Instant) {
        self.state = State::Pulling;
        // The page will say; a nudge from now on may be about what is behind it.
        self.end = 0;
        self.deadline = Some(now + RESPONSE_WAIT_MAX);
        self.transmits.push_back(Transmit::Pull {
            after: self.cursor,
            limit: PAGE_RECORDS_MAX,
            known: self.known,
        });
    }

    fn choose(&mut self) {
        self.changed = false;
        self.ask(State::Choosing, Question::Outbox);
    }

    fn answered(&mut self, answer: Answer, now: Instant) {
        match (self.state.clone(), answer) {
            (State::Loading, Answer::Loaded { cursor, known, again }) => {
                self.restamp(again);
                (self.cursor, self.known) = (cursor, known);
                self.pull(now);
            }
            (State::Merging { cursor, end, tag }, Answer::Kept { again }) => {
                self.restamp(again);
                self.cursor = cursor;
                self.known = Anchor::later(self.known, cursor, tag);
                self.end = end.max(self.end);
                self.open |= end <= self.cursor;
                self.go_on(now);
            }
            (State::Forgetting, Answer::Kept { .. }) => self.load(),
            (State::Rewriting | State::Keeping, Answer::Kept { again }) => {
                self.restamp(again);
                self.go_on(now);
            }
            (State::Choosing, Answer::Outbox(waiting)) => self.chosen(waiting, now),
            (State::Collecting, Answer::Collected(entries)) => self.collected(entries, now),
            (
                State::Loading
                | State::Merging { .. }
                | State::Forgetting
                | State::Rewriting
                | State::Choosing
                | State::Collecting
                | State::Keeping,
                Answer::Failed { random },
            ) => self.back_off(None, None, random, now),
            // The owner answers something that was not asked.
            _ => (),
        }
    }

    fn pulled(&mut self, page: Page) {
        if page.reset || page.end < page.cursor || page.end < self.cursor {
            // Restored from an old backup: what it had may be gone, and the rest be something else.
            self.ask(State::Forgetting, Question::Forget);
            return;
        }
        self.failures = 0;
        let (cursor, end, tag) = (page.cursor, page.end, page.tag);
        self.ask(State::Merging { cursor, end, tag }, Question::Merge(page));
    }

    /// Merges first, then writes positions again, then looks at the outbox.
    fn go_on(&mut self, now: Instant) {
        if self.cursor < self.end {
            self.pull(now);
        } else if let Some(document) = self.rewrites.pop_first() {
            self.ask(State::Rewriting, Question::Rewrite(document));
        } else {
            self.choose();
        }
    }

    fn chosen(&mut self, waiting: Vec<Waiting>, now: Instant) {
        if !waiting.is_empty() {
            let documents = order(waiting, &mut self.turn);
            let (records_max, bytes_max) = (self.records_max, BATCH_BYTES_MAX);
            let question = Question::Collect { documents, records_max, bytes_max };
            self.ask(State::Collecting, question);
        } else if self.changed {
            self.choose();
        } else if self.cursor < self.end {
            self.pull(now);
        } else {
            self.state = State::Resting;
            self.deadline = Some(now + LOOK_INTERVAL);
            self.events.push_back(Event::Synced);
        }
    }

    fn collected(&mut self, entries: Vec<Entry>, now: Instant) {
        debug_assert!(self.open, "nothing is pushed before the feed is merged");
        if entries.is_empty() {
            // It was sent or removed meanwhile, or cannot be cut now: the next look decides.
            self.state = State::Resting;
            self.deadline = Some(now + LOOK_INTERVAL);
            return;
        }
        let sent = entries.iter().map(|entry| (entry.document, entry.clone())).collect();
        self.state = State::Pushing(sent);
        self.deadline = Some(now + RESPONSE_WAIT_MAX);
        self.transmits.push_back(Transmit::Push(entries));
    }

    fn pushed(&mut self, ingested: Ingested, now: Instant) {
        let State::Pushing(sent) = std::mem::replace(&mut self.state, State::Off) else { return };
        let fits = sent.len() == ingested.answers.len()
            && sent.iter().zip(&ingested.answers).all(|((_, entry), of)| entry.key == of.key);
        if !fits {
            // An answer to something else proves nothing about this.
            self.wait(None, RETRY_MIN, now);
            return;
        }
        (self.failures, self.records_max, self.indivisible) = (0, BATCH_RECORDS, None);
        self.end = self.end.max(ingested.cursor);
        let alone = self.is_end(&ingested) && self.cursor < ingested.cursor;
        let cursor = alone.then_some(ingested.cursor);
        let tag = ingested.tag.filter(|_| alone);
        self.cursor = cursor.unwrap_or(self.cursor);
        self.known = Anchor::later(self.known, self.cursor, tag);
        let answers = sent.into_iter().map(|(document, _)| document).zip(ingested.answers);
        let answers = answers.map(|(document, answer)| {
            let outcome = self.judge(document, answer.outcome);
            (document, EntryAnswer { outcome, ..answer })
        });
        let answers = answers.collect();
        self.ask(State::Keeping, Question::Keep { answers, cursor, tag });
    }

    /// Returns whether the feed ended at the cursor, and in the record that is known, before a batch.
    fn is_end(&self, ingested: &Ingested) -> bool {
        let fits = |known: Anchor| match known.number.cmp(&self.cursor) {
            Ordering::Less => true,
            Ordering::Equal => ingested.before_tag.is_none_or(|tag| tag == known.tag),
            Ordering::Greater => false,
        };
        ingested.before == self.cursor && self.known.is_none_or(fits)
    }

    /// Returns what is to be kept of an answer.
    fn judge(&mut self, document: DocumentName, outcome: Outcome) -> Outcome {
        let outcome = match outcome {
            Outcome::Incomplete { .. } => {
                let times = self.incomplete.entry(document).or_default();
                *times += 1;
                if *times < INCOMPLETE_MAX {
                    // The store sends it again from the beginning.
                    return outcome;
                }
                Outcome::Refused { reason: Reason::Incomplete, hash: None }
            }
            Outcome::Accepted(_)
            | Outcome::Rebased(_)
            | Outcome::Conflict(_)
            | Outcome::Refused { .. } => outcome,
        };
        self.incomplete.remove(&document);
        match &outcome {
            Outcome::Accepted(_) => drop(self.restamps.remove(&document)),
            Outcome::Refused { reason, .. } => {
                self.events.push_back(Event::Stopped { document, reason: *reason });
            }
            Outcome::Rebased(_) | Outcome::Conflict(_) | Outcome::Incomplete { .. } => (),
        }
        outcome
    }

    /// Notes documents in which a position is to be written again.
    fn restamp(&mut self, again: Vec<DocumentName>) {
        for document in again {
            if self.rewrites.contains(&document) {
                continue;
            }
            let tries = self.restamps.entry(document).or_default();
            match (*tries).cmp(&RESTAMPS_MAX) {
                Ordering::Less => drop(self.rewrites.insert(document)),
                Ordering::Equal => self.events.push_back(Event::RestampGivenUp(document)),
                // It was said before.
                Ordering::Greater => continue,
            }
            *tries += 1;
        }
    }

    fn failed(
        &mut self,
        problem: Option<ProblemKind>,
        retry_after: Option<Duration>,
        random: u64,
        now: Instant,
    ) {
        if problem == Some(ProblemKind::Unauthorized) {
            self.state = State::Off;
            self.deadline = None;
            self.events.push_back(Event::SignedOut);
            return;
        }
        if let (
            Some(poison @ (ProblemKind::Malformed | ProblemKind::TooLarge)),
            State::Pushing(sent),
        ) = (problem, &self.state)
        {
            let sent = sent.clone();
            self.divide(&sent, poison);
            return;
        }
        self.back_off(problem, retry_after, random, now);
    }

    /// A batch that the server cannot take is divided until the entry is found that it cannot take.
    fn divide(&mut self, sent: &[(DocumentName, Entry)], problem: ProblemKind) {
        let records: usize = sent.iter().map(|(_, entry)| entry.records()).sum();
        if let [(document, entry)] = sent {
            let smallest =
                self.indivisible.is_some_and(|(of, least)| of == *document && least <= records);
            if smallest || records <= 1 {
                let too_large = problem == ProblemKind::TooLarge;
                let reason = if too_large { Reason::TooLarge } else { Reason::Unreadable };
                let (document, key) = (*document, entry.key);
                self.events.push_back(Event::Stopped { document, reason });
                let outcome = Outcome::Refused { reason, hash: None };
                let answers = vec![(document, EntryAnswer { key, outcome })];
                (self.records_max, self.indivisible) = (BATCH_RECORDS, None);
                self.ask(State::Keeping, Question::Keep { answers, cursor: None, tag: None });
                return;
            }
            self.indivisible = Some((*document, records));
        }
        self.records_max = (records.min(self.records_max) / 2).max(1);
        self.choose();
    }

    fn back_off(
        &mut self,
        problem: Option<ProblemKind>,
        retry_after: Option<Duration>,
        random: u64,
        now: Instant,
    ) {
        let most = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        // Full jitter: anything up to the most, so that devices do not come back together.
        let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        let jitter = Duration::from_millis(random % (most_ms + 1));
        self.wait(problem, jitter.max(retry_after.unwrap_or_default()), now);
    }

    fn wait(&mut self, problem: Option<ProblemKind>, delay: Duration, now: Instant) {
        let until = now + delay;
        self.state = State::Waiting;
        self.deadline = Some(until);
        self.events.push_back(Event::Waits { problem, until });
    }
}

//! Keeps a library and an account's server in step: what to ask, what to send, when to try again.
//!
//! ```text
//!          start, poll, nudge, change
//! Idle ---------------------------------> Pulling <---------------+
//!  ^                                         | end of the feed     | somebody else wrote
//!  |                                         v                     |
//!  +-------- nothing is unsent -------- Sending -------------------+
//!  ^                                         |
//!  +---------------- Waiting <--- a call failed, in either state
//! ```
//!
//! The driver carries out [`Call`]s over HTTP and answers [`Question`]s from the store. What is unsent is
//! asked of the store each time, so nothing that this machine forgets is lost.
//!
//! # Invariants
//!
//! 1. Nothing is sent before everything up to the end of the feed, as it was read first after the start,
//!    is decided.
//! 2. A page is asked for after the one before is decided and durable.
//! 3. After a failure something is tried again, however long nothing happens.
//!
//! # What is not here
//!
//! What an entry holds, what a verdict means for a book, tokens, and the network.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::api::{EntryAnswer, Ingest, Ingested, PAGE_RECORDS_MAX, Page, ProblemKind};
use super::backoff;

/// How long after the last look the feed is looked at again, if no nudge came.
pub const POLL: Duration = Duration::from_secs(60);

/// How long after a failure of the store it is asked again, at least.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// What the driver does over the network.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// `GET /v1/changes`.
    Changes {
        /// The cursor.
        after: u64,
        /// How many records at most.
        limit: usize,
    },
    /// `POST /v1/ingest`.
    Ingest(Ingest),
}

/// What the driver asks of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Up to where the feed was decided.
    Cursor,
    /// Decide a page, and make it durable.
    Apply(Page),
    /// What is to be sent next; nothing if the server has everything.
    Next,
    /// Keep what the server said about what was sent.
    Settle {
        /// What was sent.
        sent: Ingest,
        /// One for each entry, in their order.
        answers: Vec<EntryAnswer>,
    },
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The cursor.
    Cursor(u64),
    /// The page is decided. Whether something here has to be sent because of it does not matter: what is
    /// unsent is asked for anyway.
    Applied,
    /// What is to be sent.
    Next(Ingest),
    /// It is kept. Whether the server has something that is not here.
    Settled {
        /// It has.
        behind: bool,
    },
    /// The store failed. It is tried again later.
    Failed,
}

/// What the server replied.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Call::Changes`].
    Page(Page),
    /// To [`Call::Ingest`].
    Ingested(Ingested),
    /// A problem, and how long it asks to wait.
    Problem {
        /// Which.
        kind: ProblemKind,
        /// How long, if it says.
        retry_after: Option<Duration>,
    },
    /// Nothing came, or nothing that reads.
    Lost,
}

/// What happens to the machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The device is signed in, and the driver runs.
    Start,
    /// Something changed here.
    Changed,
    /// The server says that its feed has grown; the connection to hear it may have been lost, too.
    Nudged,
    /// The store answered.
    Answered(Answer),
    /// The server replied.
    Replied {
        /// What.
        reply: Reply,
        /// Uniform over all its values: what a wait is drawn from.
        random: u64,
    },
}

/// What the driver is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To be answered with [`Input::Answered`].
    Ask(Question),
    /// Everything of the feed is decided, and the server has everything from here.
    InStep,
    /// A call failed; it is tried again by itself.
    Failed {
        /// Why, if the server said.
        problem: Option<ProblemKind>,
    },
    /// The token does not count any more. Nothing is tried until the next [`Input::Start`].
    SignedOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not started, or signed out.
    Off,
    /// Until then, unless something happens.
    Idle(Instant),
    /// Until then, whatever happens.
    Waiting(Instant),
    /// Something was asked of the store or of the server.
    Busy,
}

/// The machine. See the [module documentation](self).
#[derive(Debug)]
pub struct Replicator {
    state: State,
    cursor: u64,
    /// The end of the feed that has to be reached before anything is sent; `None` until it was read.
    gate: Option<u64>,
    /// Something happened while it was busy, after what it did could have seen it.
    pull_again: bool,
    send_again: bool,
    /// What was sent and not answered for yet.
    sent: Option<Ingest>,
    failures: u32,
    calls: VecDeque<Call>,
    events: VecDeque<Event>,
}

impl Default for Replicator {
    fn default() -> Self {
        Self::new()
    }
}

impl Replicator {
    /// Makes a machine that does nothing before [`Input::Start`].
    pub fn new() -> Self {
        Self {
            state: State::Off,
            cursor: 0,
            gate: None,
            pull_again: false,
            send_again: false,
            sent: None,
            failures: 0,
            calls: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Returns what is to be called over the network, if anything is.
    pub fn poll_call(&mut self) -> Option<Call> {
        self.calls.pop_front()
    }

    /// Returns what the driver is to be told, if anything is.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle(until) | State::Waiting(until) => Some(until),
            State::Off | State::Busy => None,
        }
    }

    /// Says that it is so late.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|until| until <= now) {
            self.look();
        }
    }

    /// Says what happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Start => {
                *self = Self { failures: 0, ..Self::new() };
                self.look();
            }
            Input::Changed => self.changed(),
            Input::Nudged => self.nudged(),
            Input::Answered(answer) => {
                if self.state == State::Busy {
                    self.answered(answer, now);
                }
            }
            Input::Replied { reply, random } => {
                if self.state == State::Busy {
                    self.replied(reply, random, now);
                }
            }
        }
    }

    fn changed(&mut self) {
        match self.state {
            // The gate was passed: an idle machine has decided everything.
            State::Idle(_) => self.ask(Question::Next),
            State::Busy => self.send_again = true,
            // It asks what is unsent when it is over.
            State::Off | State::Waiting(_) => (),
        }
    }

    fn nudged(&mut self) {
        match self.state {
            State::Idle(_) => self.look(),
            State::Busy => self.pull_again = true,
            State::Off | State::Waiting(_) => (),
        }
    }

    fn look(&mut self) {
        self.pull_again = false;
        self.gate = None;
        self.ask(Question::Cursor);
    }

    fn ask(&mut self, question: Question) {
        self.state = State::Busy;
        self.events.push_back(Event::Ask(question));
    }

    fn call(&mut self, call: Call) {
        self.state = State::Busy;
        self.calls.push_back(call);
    }

    fn answered(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Cursor(cursor) => {
                self.cursor = cursor;
                self.call(Call::Changes { after: cursor, limit: PAGE_RECORDS_MAX });
            }
            Answer::Applied if self.gate.is_some_and(|gate| self.cursor < gate) => {
                self.call(Call::Changes { after: self.cursor, limit: PAGE_RECORDS_MAX });
            }
            Answer::Applied | Answer::Settled { behind: false } => self.send(),
            Answer::Next(ingest) if ingest.entries.is_empty() => self.done(now),
            Answer::Next(ingest) => {
                self.sent = Some(ingest.clone());
                self.call(Call::Ingest(ingest));
            }
            Answer::Settled { behind: true } => self.look(),
            // A disk that is full does not heal within a second.
            Answer::Failed => self.failed(None, Some(STORE_WAIT), 0, now),
        }
    }

    fn send(&mut self) {
        self.send_again = false;
        self.ask(Question::Next);
    }

    fn done(&mut self, now: Instant) {
        if self.pull_again {
            self.look();
        } else if self.send_again {
            self.send();
        } else {
            self.state = State::Idle(now + POLL);
            self.events.push_back(Event::InStep);
        }
    }

    fn replied(&mut self, reply: Reply, random: u64, now: Instant) {
        match reply {
            Reply::Page(page) if page.cursor < self.cursor => self.failed(None, None, random, now),
            Reply::Page(page) => {
                self.failures = 0;
                // What the feed grows by while it is read is told by a nudge, or by the next look: who
                // waited for its end would never send while others write.
                self.gate.get_or_insert(page.end);
                // A server that says that there is more and gives nothing would be asked for ever.
                if page.records.is_empty() && page.cursor < page.end {
                    self.failed(None, None, random, now);
                } else if page.records.is_empty() {
                    self.send();
                } else {
                    self.cursor = page.cursor;
                    self.ask(Question::Apply(page));
                }
            }
            Reply::Ingested(ingested) => match self.sent.take() {
                Some(sent) if answers(&sent, &ingested) => {
                    self.failures = 0;
                    self.ask(Question::Settle { sent, answers: ingested.answers });
                }
                _ => self.failed(None, None, random, now),
            },
            Reply::Problem { kind: ProblemKind::Unauthorized, .. } => {
                self.state = State::Off;
                self.events.push_back(Event::SignedOut);
            }
            Reply::Problem { kind, retry_after } => {
                self.failed(Some(kind), retry_after, random, now);
            }
            Reply::Lost => self.failed(None, None, random, now),
        }
    }

    fn failed(
        &mut self,
        problem: Option<ProblemKind>,
        at_least: Option<Duration>,
        random: u64,
        now: Instant,
    ) {
        self.sent = None;
        self.failures = self.failures.saturating_add(1);
        let wait = backoff::wait(self.failures, random).max(at_least.unwrap_or_default());
        self.state = State::Waiting(now + wait.min(backoff::WAIT_MAX));
        self.events.push_back(Event::Failed { problem });
    }
}

/// Whether there is an answer for each entry, and for no other.
fn answers(sent: &Ingest, ingested: &Ingested) -> bool {
    let sent = sent.entries.iter().map(|entry| entry.key);
    sent.eq(ingested.answers.iter().map(|answer| answer.key))
}

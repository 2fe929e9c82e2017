//! The side that dials: runs one sync to its end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use catchword_model::id::Generation;

use crate::request::Status;
use crate::session::mend::{Mend, Response, Step, Tally};
use crate::session::message::{Header, RangesRequest, Sync, SyncBody, decode_ranges};
use crate::session::ranges::Search;
use crate::session::{
    Answer, Applied, Apply, Bounds, Collected, Event, Heard, PROTOCOL_MAX, PROTOCOL_MIN, Path,
    Question, Span, Summary, Transmit, Violation,
};

/// How long a response may take. A piece of 4 MiB at the slowest rate that is served takes longer
/// than anybody waits.
pub const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(120);

/// Requests of one sync: 2 GiB in pieces of 4 MiB are 512, and 200,000 documents that all differ
/// are some 6,300.
pub const ROUND_TRIPS_MAX: u64 = 16_384;

/// How often a sync is run once more because something moved while it was compared, or because the
/// peer's generation or a list was not known.
pub const REPEATS_MAX: u8 = 4;

/// How often documents are searched that differ although nothing was added the last time.
pub const IDLE_MENDS_MAX: u8 = 1;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Begin.
    Start,
    /// The store answers the last question.
    Answer(Answer),
    /// The peer answers the last request.
    Response {
        /// How it answers.
        status: Status,
        /// Its body.
        body: Vec<u8>,
    },
    /// The connection is gone.
    Lost,
}

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Both held the same when the last response was made; or one of both takes nothing from the other,
    /// which lacked nothing that it held.
    InSync,
    /// Everything was exchanged, but something moved all the time: the next sync decides.
    Moving,
    /// Something differs that could not be exchanged.
    Differs,
    /// The peer does not keep to the protocol.
    Violation(Violation),
    /// The peer refused.
    Refused(Status),
    /// No response came in time, or the connection was lost.
    Lost,
    /// The store failed, or answered something that was not asked.
    Unable,
}

/// What a sync did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that were answered.
    pub round_trips: u64,
    /// Changes and events that were sent, each time they were.
    pub changes_sent: u64,
    /// Changes and events that were received, each time they were.
    pub changes_received: u64,
    /// Changes and events that are new here.
    pub changes_added: u64,
    /// Bodies of requests, in bytes.
    pub bytes_sent: u64,
    /// Bodies of responses, in bytes.
    pub bytes_received: u64,
    /// Documents that were found to differ, each time they were.
    pub documents_differing: u64,
}

/// The requesting side of one sync. See the [module documentation](super).
#[derive(Debug)]
pub struct Requester {
    state: State,
    /// The generation of the peer that is talked to.
    peer: Option<Generation>,
    report: Report,
    repeats: u8,
    idle_mends: u8,
    /// As both sides said in the last exchange.
    way: Way,
    /// The summary, at the last comparison, of whichever side takes nothing.
    lent: Option<Summary>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Idle,
    Collecting,
    Syncing(Sent),
    Applying(Sent, Sync),
    /// A hello alone is being kept.
    Greeting,
    Listing(Header),
    Searching(Header, Search),
    Mending(Mend),
    Ended,
}

/// What a request for `/sync` said.
#[derive(Debug, Clone, Copy)]
struct Sent {
    header: Header,
    mark: u64,
    bounds: Bounds,
}

/// Which way changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// From here to the peer.
    pub(crate) out: bool,
    /// From the peer to here.
    pub(crate) back: bool,
}

impl Way {
    /// Whether they go one way alone.
    pub(crate) const fn is_one(self) -> bool {
        self.out != self.back
    }
}

impl From<Violation> for Ending {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Default for Requester {
    fn default() -> Self {
        Self::new()
    }
}

impl Requester {
    /// Makes a session that has not begun.
    pub const fn new() -> Self {
        Self {
            state: State::Idle,
            peer: None,
            report: Report {
                round_trips: 0,
                changes_sent: 0,
                changes_received: 0,
                changes_added: 0,
                bytes_sent: 0,
                bytes_received: 0,
                documents_differing: 0,
            },
            repeats: 0,
            idle_mends: 0,
            way: Way { out: true, back: true },
            lent: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            deadline: None,
        }
    }

    /// Tells the machine what happened. What does not belong to the present state changes nothing.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        if matches!(self.state, State::Ended) {
            return;
        }
        let waits = self.deadline.is_some();
        let done = match input {
            Input::Start if matches!(self.state, State::Idle) => {
                self.collect();
                Ok(())
            }
            Input::Answer(Answer::Failed) if !waits => Err(Ending::Unable),
            Input::Answer(answer) if !waits => self.answered(answer, now),
            Input::Response { status, body } if waits => self.responded(status, &body, now),
            Input::Lost => Err(Ending::Lost),
            Input::Start | Input::Answer(_) | Input::Response { .. } => Ok(()),
        };
        if let Err(ending) = done {
            self.end(ending);
        }
    }

    /// Reports that time has reached `now`. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.end(Ending::Lost);
        }
    }

    /// Returns the next request, until `None`.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns what to ask of the store or tell the owner next, until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), while a request is out.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn answered(&mut self, answer: Answer, now: Instant) -> Result<(), Ending> {
        match (std::mem::replace(&mut self.state, State::Ended), answer) {
            (State::Collecting, Answer::Collected(collected)) => self.sync(collected, now),
            (State::Applying(sent, reply), Answer::Applied(applied)) => {
                self.judge(sent, &reply, &applied)
            }
            (State::Greeting, Answer::Applied(_)) => self.repeat(),
            (State::Listing(header), Answer::Items(mut mine)) => {
                let search = Search::new(mine.pop().unwrap_or_default());
                self.search(header, search, now)
            }
            (State::Mending(mut mend), answer) => {
                let step = mend.answer(answer).ok_or(Ending::Unable)?;
                self.mend(mend, step, now)
            }
            // The owner answers something that was not asked.
            _ => Err(Ending::Unable),
        }
    }

    fn responded(&mut self, status: Status, body: &[u8], now: Instant) -> Result<(), Ending> {
        self.deadline = None;
        self.report.round_trips += 1;
        self.report.bytes_received += body.len() as u64;
        if status != Status::OK {
            return Err(Ending::Refused(status));
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Syncing(sent) => self.apply(sent, Sync::decode(body)?),
            State::Searching(asked, mut search) => {
                let (header, answers) = decode_ranges(body)?;
                let Some(answers) = answers else { return self.greet_alone(header) };
                search.response(answers)?;
                self.search(asked, search, now)
            }
            State::Mending(mut mend) => match mend.response(body)? {
                Response::Alone(header) => self.greet_alone(header),
                Response::Step(step) => self.mend(mend, step, now),
            },
            State::Idle
            | State::Collecting
            | State::Applying(..)
            | State::Greeting
            | State::Listing(_)
            | State::Ended => Err(Ending::Unable),
        }
    }

    /// Begins the first phase, or begins it again.
    fn collect(&mut self) {
        self.state = State::Collecting;
        self.ask(Question::Collect { after: None });
    }

    fn sync(&mut self, collected: Collected, now: Instant) -> Result<(), Ending> {
        let Collected { peer, local, list, bounds, piece } = collected;
        self.peer = peer;
        let (sender, receiver) = (local.generation, peer.unwrap_or(Header::UNKNOWN));
        let header = Header { sender, receiver, takes: local.takes };
        self.report.changes_sent += piece.changes;
        let request = Sync {
            header,
            versions: (PROTOCOL_MIN, PROTOCOL_MAX),
            exclusions: local.exclusions,
            held: local.held,
            list,
            agreed: local.agreed,
            parked: local.parked,
            body: Some(SyncBody {
                mark: local.mark,
                summary: local.settled.then_some(local.summary),
                bounds,
                piece: piece.bytes,
            }),
        };
        self.state = State::Syncing(Sent { header, mark: local.mark, bounds });
        self.send(Path::Sync, request.encode(), now)
    }

    /// Hands a response to the store. One from another generation than was named is a hello alone.
    fn apply(&mut self, sent: Sent, mut reply: Sync) -> Result<(), Ending> {
        let Some(body) = &mut reply.body else {
            self.greet(reply);
            return Ok(());
        };
        if reply.header.sender != sent.header.receiver {
            return Err(Violation::Unasked.into());
        }
        let apply = Apply {
            piece: std::mem::take(&mut body.piece),
            bounds: Some(body.bounds),
            heard: Some(heard(&mut reply)),
        };
        self.state = State::Applying(sent, reply);
        self.ask(Question::Apply(apply));
        Ok(())
    }

    fn greet_alone(&mut self, header: Header) -> Result<(), Ending> {
        self.peer = Some(header.sender);
        self.repeat()
    }

    /// Keeps a hello alone, and asks again for the generation that it names.
    fn greet(&mut self, mut reply: Sync) {
        self.peer = Some(reply.header.sender);
        self.state = State::Greeting;
        let heard = Some(heard(&mut reply));
        self.ask(Question::Apply(Apply { heard, piece: Vec::new(), bounds: None }));
    }

    /// Compares both sides after the response was applied, and decides how to go on.
    fn judge(&mut self, sent: Sent, reply: &Sync, applied: &Applied) -> Result<(), Ending> {
        self.report.changes_received += applied.received;
        self.report.changes_added += applied.added;
        let (Some(body), Some(peer)) = (&reply.body, self.peer) else {
            return Err(Ending::Unable);
        };
        let local = &applied.local;
        let header = Header { sender: local.generation, receiver: peer, takes: local.takes };
        let way = Way { out: reply.header.takes, back: local.takes };
        self.way = way;
        if !way.out && !way.back {
            return Err(Ending::InSync);
        }
        let parked = local.parked || reply.parked;
        let more = (way.out && sent.bounds.more()) || (way.back && body.bounds.more());
        let moved_there = sent.bounds.from < body.mark && body.mark <= sent.bounds.end;
        let moved = moved_there || sent.mark != local.mark;
        // The peer has less than was thought, and said how much.
        let gap = way.out && body.mark < sent.bounds.from;

        let lender = if way.out { Some(local.summary) } else { body.summary };
        self.lent = lender.filter(|_| way.is_one());
        let contained = self.lent.is_some() && self.lent == local.contained;
        let equal = Self::compare(sent, reply, applied).map(|equal| equal || contained);
        if equal == Some(true) {
            self.events.push_back(Event::Compared { peer, equal: true });
            if !(more && moved) {
                return Err(Ending::InSync);
            }
            self.collect();
            return Ok(());
        }
        if equal == Some(false) && !gap && (parked || !more) {
            self.events.push_back(Event::Compared { peer, equal: false });
            return self.list(header);
        }
        match (more, moved) {
            _ if gap => self.repeat(),
            (true, true) => {
                self.collect();
                Ok(())
            }
            (true, false) => self.list(header),
            (false, _) => self.repeat(),
        }
    }

    /// Says whether both sides hold the same; `None` where the summaries are not of one instant or
    /// not over the same documents.
    fn compare(sent: Sent, reply: &Sync, applied: &Applied) -> Option<bool> {
        let local = &applied.local;
        let alone = sent.bounds.end == applied.before && applied.after == local.end;
        let same_set = reply.exclusions == local.held && reply.held == local.exclusions;
        let same_generation = local.generation == sent.header.sender;
        let theirs = reply.body.as_ref()?.summary?;
        (alone && local.settled && same_set && same_generation).then_some(theirs == local.summary)
    }

    /// Begins the second phase, unless the last one changed nothing.
    fn list(&mut self, header: Header) -> Result<(), Ending> {
        if IDLE_MENDS_MAX < self.idle_mends {
            return Err(Ending::Differs);
        }
        self.state = State::Listing(header);
        self.ask(Question::Items(vec![Span::ALL]));
        Ok(())
    }

    fn search(&mut self, header: Header, mut search: Search, now: Instant) -> Result<(), Ending> {
        let spans = search.request();
        if spans.is_empty() {
            let found = search.found();
            self.report.documents_differing += found.len() as u64;
            let mut mend = Mend::new(header, self.way, found);
            let step = mend.next_batch();
            return self.mend(mend, step, now);
        }
        self.state = State::Searching(header, search);
        self.send(Path::Ranges, RangesRequest { header, spans }.encode(), now)
    }

    fn mend(&mut self, mend: Mend, step: Step, now: Instant) -> Result<(), Ending> {
        match step {
            Step::Ask(question) => {
                self.state = State::Mending(mend);
                self.ask(question);
                Ok(())
            }
            Step::Send(path, body) => {
                self.state = State::Mending(mend);
                self.send(path, body, now)
            }
            Step::Done => {
                let contained = mend.tally.contained;
                self.count(mend.tally);
                if let (true, Some(summary), Some(peer)) = (contained, self.lent, self.peer) {
                    self.events.push_back(Event::Contained { peer, summary });
                    self.events.push_back(Event::Compared { peer, equal: true });
                    return Err(Ending::InSync);
                }
                self.collect();
                Ok(())
            }
        }
    }

    fn count(&mut self, tally: Tally) {
        self.report.changes_sent += tally.sent;
        self.report.changes_received += tally.received;
        self.report.changes_added += tally.added;
        self.events.extend(tally.forks.into_iter().map(Event::Forked));
        self.idle_mends = if 0 < tally.added + tally.added_there { 0 } else { self.idle_mends + 1 };
    }

    /// Runs the first phase once more, though nothing moved: a few times only.
    fn repeat(&mut self) -> Result<(), Ending> {
        if REPEATS_MAX <= self.repeats {
            return Err(Ending::Moving);
        }
        self.repeats += 1;
        self.collect();
        Ok(())
    }

    fn ask(&mut self, question: Question) {
        self.events.push_back(Event::Ask { peer: self.peer, question });
    }

    fn send(&mut self, path: Path, body: Vec<u8>, now: Instant) -> Result<(), Ending> {
        if ROUND_TRIPS_MAX <= self.report.round_trips {
            return Err(Ending::Moving);
        }
        self.report.bytes_sent += body.len() as u64;
        self.deadline = Some(now + RESPONSE_WAIT_MAX);
        self.transmits.push_back(Transmit::Request { path, body });
        Ok(())
    }

    fn end(&mut self, ending: Ending) {
        if let State::Mending(mend) = std::mem::replace(&mut self.state, State::Ended) {
            self.count(mend.tally);
        }
        self.deadline = None;
        self.transmits.clear();
        self.events.push_back(Event::Ended { ending, report: self.report.clone() });
    }
}

/// Takes what the store keeps out of a message.
pub(crate) fn heard(message: &mut Sync) -> Heard {
    Heard {
        built_for: message.header.receiver,
        list: message.list.take(),
        held: message.held,
        mark: message.body.as_ref().map(|body| body.mark),
        agreed: message.agreed,
        takes: message.header.takes,
    }
}

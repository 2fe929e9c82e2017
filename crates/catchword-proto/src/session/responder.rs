//! The side that is dialled: answers one request, and keeps nothing.

use std::time::Instant;

use catchword_model::id::Generation;

use crate::request::Status;
use crate::session::mend::leave_out;
use crate::session::message::{
    ChangesRequest, ChangesResponse, Header, RangesRequest, Sync, SyncBody, VectorsRequest,
    VectorsResponse, encode_ranges,
};
use crate::session::ranges::answer_span;
use crate::session::requester::heard;
use crate::session::{
    Answer, Applied, Apply, Bounds, Collected, Event, Local, NO_COMMON_VERSION, PROTOCOL_MAX,
    PROTOCOL_MIN, Path, Question, Spot, Transmit, Vector, Violation,
};

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A request came.
    Request {
        /// What it asks for.
        path: Path,
        /// Its body.
        body: Vec<u8>,
    },
    /// The store answers the last question.
    Answer(Answer),
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// Changes and events that were sent.
    pub changes_sent: u64,
    /// Changes and events that were received.
    pub changes_received: u64,
    /// Changes and events that are new here.
    pub changes_added: u64,
    /// The requester's last comparison found no difference; `None`: it did not say.
    pub agreed: Option<bool>,
    /// What was wrong with the request.
    pub violation: Option<Violation>,
}

/// The responding side of one request. See the [module documentation](super).
#[derive(Debug, Default)]
pub struct Responder {
    state: State,
    peer: Option<Generation>,
    answered: Answered,
    transmit: Option<Transmit>,
    events: std::collections::VecDeque<Event>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Applying(Sync),
    Collecting {
        request: Sync,
        from: u64,
    },
    /// Whether the request is for this generation is being looked up.
    Checking(Later),
    Listing(Header, RangesRequest),
    Comparing(Header, VectorsRequest),
    /// What the requester lacks is being collected.
    Filling(Header, VectorsRequest, VectorsResponse),
    /// What the responder has where chains fork is being looked up.
    Probing(Header, VectorsRequest, VectorsResponse),
    Taking(Header),
    Ended,
}

/// A request of the later phases.
#[derive(Debug)]
enum Later {
    Ranges(RangesRequest),
    Vectors(VectorsRequest),
    Changes(ChangesRequest),
}

impl Responder {
    /// Makes a session that has no request yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the machine what happened. What does not belong to the present state changes nothing.
    pub fn handle_input(&mut self, input: Input, _now: Instant) {
        match (std::mem::take(&mut self.state), input) {
            (State::Idle, Input::Request { path, body }) => {
                if let Err(violation) = self.begin(path, &body) {
                    self.answered.violation = Some(violation);
                    let version = matches!(violation, Violation::Version(_));
                    let status = if version { NO_COMMON_VERSION } else { Status::MALFORMED };
                    self.finish(status, Vec::new());
                }
            }
            (State::Idle | State::Ended, _) => self.state = State::Ended,
            (_, Input::Answer(Answer::Failed)) => self.finish(Status::INTERNAL, Vec::new()),
            (state, Input::Answer(answer)) => self.answer(state, answer),
            (state, Input::Request { .. }) => self.state = state,
        }
    }

    /// Does nothing: a responder waits for nobody but its store.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Returns the response, once.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmit.take()
    }

    /// Returns what to ask of the store or tell the owner next, until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns `None`: a responder has no deadline.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn begin(&mut self, path: Path, body: &[u8]) -> Result<(), Violation> {
        let later = match path {
            Path::Sync => return self.begin_sync(Sync::decode(body)?),
            Path::Ranges => Later::Ranges(RangesRequest::decode(body)?),
            Path::Vectors => Later::Vectors(VectorsRequest::decode(body)?),
            Path::Changes => Later::Changes(ChangesRequest::decode(body)?),
        };
        self.peer = Some(later.header().sender);
        self.ask(State::Checking(later), Question::Local);
        Ok(())
    }

    fn begin_sync(&mut self, mut request: Sync) -> Result<(), Violation> {
        if !request.has_common_version() {
            return Err(Violation::Version(request.versions.0));
        }
        let Some(body) = &mut request.body else { return Err(Violation::Unasked) };
        self.peer = Some(request.header.sender);
        self.answered.agreed = Some(request.agreed);
        let apply = Apply {
            piece: std::mem::take(&mut body.piece),
            bounds: Some(body.bounds),
            heard: Some(heard(&mut request)),
        };
        self.ask(State::Applying(request), Question::Apply(apply));
        Ok(())
    }

    fn answer(&mut self, state: State, answer: Answer) {
        match (state, answer) {
            (State::Applying(request), Answer::Applied(applied)) => self.applied(request, &applied),
            (State::Collecting { request, from }, Answer::Collected(collected)) => {
                self.respond(&request, from, collected);
            }
            (State::Checking(later), Answer::Local(local)) => self.checked(later, &local),
            (State::Listing(header, request), Answer::Items(items)) => {
                let spans = request.spans.iter().zip(&items);
                let answers: Vec<_> =
                    spans.map(|((span, theirs), mine)| answer_span(*span, mine, theirs)).collect();
                self.finish(Status::OK, encode_ranges(header, &answers));
            }
            (State::Comparing(header, request), Answer::Compared { mine, forks }) => {
                self.fill(header, request, mine, forks);
            }
            (State::Filling(header, request, mut response), Answer::Piece { piece, more }) => {
                self.answered.changes_sent = piece.changes;
                (response.more, response.piece) = (more, piece.bytes);
                self.probe(header, request, response);
            }
            (State::Probing(header, request, mut response), Answer::Hashes(mine)) => {
                let probes = request.probes.iter().zip(mine);
                response.agreements =
                    probes.map(|((_, theirs), mine)| mine == Some(*theirs)).collect();
                self.finish(Status::OK, response.encode(header));
            }
            (State::Taking(header), Answer::Applied(applied)) => {
                self.count(&applied);
                let Applied { received, added, .. } = applied;
                self.finish(Status::OK, ChangesResponse { received, added }.encode(header));
            }
            (state, _) => self.state = state,
        }
    }

    /// The request is durable: the response says what holds after it.
    fn applied(&mut self, request: Sync, applied: &Applied) {
        self.count(applied);
        let local = &applied.local;
        let Some(body) = &request.body else { return };
        if request.header.receiver != local.generation {
            let hello = hello(&request, local);
            return self.finish(Status::OK, hello.encode());
        }
        let from = if body.mark <= local.end { body.mark } else { 0 };
        // The requester holds what is held here: nothing up to now need be sent.
        let equal = body.summary == Some(local.summary) && comparable(&request, local);
        let after = if equal { local.end } else { from };
        self.ask(State::Collecting { request, from }, Question::Collect { after: Some(after) });
    }

    fn respond(&mut self, request: &Sync, from: u64, collected: Collected) {
        let Collected { local, list, bounds, piece, .. } = collected;
        if request.header.receiver != local.generation {
            return self.finish(Status::OK, hello(request, &local).encode());
        }
        self.answered.changes_sent = piece.changes;
        let body = SyncBody {
            mark: local.mark,
            summary: (local.settled && same_set(request, &local)).then_some(local.summary),
            bounds: Bounds { from, ..bounds },
            piece: piece.bytes,
        };
        let (peer, through) = (request.header.sender, body.bounds.through);
        self.events.push_back(Event::Sent { peer, through });
        let response = Sync { list, body: Some(body), ..hello(request, &local) };
        self.finish(Status::OK, response.encode());
    }

    /// A request for another generation of this device is answered with a hello alone.
    fn checked(&mut self, later: Later, local: &Local) {
        let asked = later.header();
        let (sender, takes) = (local.generation, local.takes);
        let header = Header { sender, receiver: asked.sender, takes };
        if asked.receiver != local.generation {
            return self.finish(Status::OK, header.encode_alone());
        }
        match later {
            Later::Ranges(request) => {
                let spans = request.spans.iter().map(|(span, _)| *span).collect();
                self.ask(State::Listing(header, request), Question::Items(spans));
            }
            Later::Vectors(request) if request.vectors.is_empty() => {
                self.fill(header, request, Vec::new(), Vec::new());
            }
            Later::Vectors(request) => {
                let question = Question::Compare(request.vectors.clone());
                self.ask(State::Comparing(header, request), question);
            }
            Later::Changes(request) => {
                let apply = Apply { heard: None, piece: request.piece, bounds: None };
                self.ask(State::Taking(header), Question::Apply(apply));
            }
        }
    }

    fn fill(&mut self, to: Header, request: VectorsRequest, mine: Vec<Vector>, forks: Vec<Spot>) {
        let mut wanted = request.vectors.clone();
        wanted.retain(|vector| mine.iter().any(|mine| mine.document == vector.document));
        leave_out(&mut wanted, &forks);
        let (agreements, piece) = (Vec::new(), Vec::new());
        let response = VectorsResponse { vectors: mine, forks, agreements, more: false, piece };
        if wanted.is_empty() || !request.header.takes {
            return self.probe(to, request, response);
        }
        self.ask(State::Filling(to, request, response), Question::CollectFor(wanted));
    }

    fn probe(&mut self, header: Header, request: VectorsRequest, response: VectorsResponse) {
        if request.probes.is_empty() {
            return self.finish(Status::OK, response.encode(header));
        }
        let spots = request.probes.iter().map(|(spot, _)| *spot).collect();
        self.ask(State::Probing(header, request, response), Question::Hashes(spots));
    }

    fn count(&mut self, applied: &Applied) {
        self.answered.changes_received = applied.received;
        self.answered.changes_added = applied.added;
    }

    fn ask(&mut self, state: State, question: Question) {
        self.state = state;
        self.events.push_back(Event::Ask { peer: self.peer, question });
    }

    fn finish(&mut self, status: Status, body: Vec<u8>) {
        self.state = State::Ended;
        self.transmit = Some(Transmit::Response { status, body });
        self.events.push_back(Event::Answered(self.answered.clone()));
    }
}

impl Later {
    const fn header(&self) -> Header {
        match self {
            Self::Ranges(request) => request.header,
            Self::Vectors(request) => request.header,
            Self::Changes(request) => request.header,
        }
    }
}

/// Whether both sides' summaries are over the same documents.
fn same_set(request: &Sync, local: &Local) -> bool {
    request.exclusions == local.held && request.held == local.exclusions
}

fn comparable(request: &Sync, local: &Local) -> bool {
    local.settled && same_set(request, local)
}

fn hello(request: &Sync, local: &Local) -> Sync {
    Sync {
        header: Header {
            sender: local.generation,
            receiver: request.header.sender,
            takes: local.takes,
        },
        versions: (PROTOCOL_MIN, PROTOCOL_MAX),
        exclusions: local.exclusions,
        held: local.held,
        list: None,
        agreed: false,
        parked: local.parked,
        body: None,
    }
}

//! Single machines against owners and peers that misbehave.

use std::time::Duration;

use catchword_model::id::{ActorId, DocumentId, Generation};
use catchword_proto::request::Status;
use catchword_proto::session::message::{
    ChangesRequest, ChangesResponse, Header, RangesRequest, SpanAnswer, Sync, SyncBody,
    VectorsRequest, VectorsResponse, decode_ranges, encode_ranges,
};
use catchword_proto::session::requester::{
    Ending, Input, REPEATS_MAX, RESPONSE_WAIT_MAX, ROUND_TRIPS_MAX, Report, Requester,
};
use catchword_proto::session::responder::{self, Responder};
use catchword_proto::session::{
    Answer, Applied, Bounds, Chain, Collected, Entry, Event, Item, ListDigest, Local, Log,
    NO_COMMON_VERSION, Path, Piece, Question, Span, Spot, Summary, Transmit, Vector, Violation,
};

use crate::any_instant;

const MINE: Generation = Generation([1; 16]);
const THEIRS: Generation = Generation([2; 16]);
const BOOK: DocumentId = DocumentId([3; 32]);

fn local() -> Local {
    Local {
        generation: MINE,
        end: 5,
        settled: true,
        mark: 7,
        summary: Summary([4; 32]),
        exclusions: ListDigest::default(),
        held: ListDigest::default(),
        parked: false,
        agreed: false,
        takes: true,
        contained: None,
    }
}

fn collected() -> Answer {
    let (bounds, piece) = (Bounds { from: 5, through: 5, end: 5 }, Piece::default());
    Answer::Collected(Collected { peer: Some(THEIRS), local: local(), list: None, bounds, piece })
}

fn applied(mark: u64) -> Answer {
    let local = Local { mark, ..local() };
    Answer::Applied(Applied { local, before: 5, after: 5, received: 0, added: 0, refused: 0 })
}

fn compared() -> Answer {
    let mine = vec![Vector { document: BOOK, entries: Vec::new() }];
    Answer::Compared { mine, forks: Vec::new() }
}

/// A response with another summary, and with more above `through`.
fn response(through: u64, end: u64) -> Sync {
    let bounds = Bounds { from: 7, through, end };
    let summary = Some(Summary([9; 32]));
    Sync {
        header: Header { sender: THEIRS, receiver: MINE, takes: true },
        versions: (1, 1),
        exclusions: ListDigest::default(),
        held: ListDigest::default(),
        list: None,
        agreed: false,
        parked: false,
        body: Some(SyncBody { mark: 5, summary, bounds, piece: Vec::new() }),
    }
}

/// A requester that has asked a question or sent a request.
struct Bench {
    requester: Requester,
    sent: Vec<(Path, Vec<u8>)>,
    asked: Vec<Question>,
    forked: Vec<Spot>,
    ended: Option<(Ending, Report)>,
}

impl Bench {
    fn new() -> Self {
        let requester = Requester::new();
        let (sent, asked, forked) = (Vec::new(), Vec::new(), Vec::new());
        let mut bench = Self { requester, sent, asked, forked, ended: None };
        bench.input(Input::Start);
        bench
    }

    fn input(&mut self, input: Input) {
        self.requester.handle_input(input, any_instant());
        while let Some(event) = self.requester.poll_event() {
            match event {
                Event::Ask { question, .. } => self.asked.push(question),
                Event::Ended { ending, report } => {
                    assert_eq!(self.ended.replace((ending, report)), None, "it ends twice");
                }
                Event::Forked(spot) => self.forked.push(spot),
                Event::Compared { .. } | Event::Contained { .. } | Event::Sent { .. } => (),
                Event::Answered(_) => panic!("a requester answers nothing"),
            }
        }
        while let Some(Transmit::Request { path, body }) = self.requester.poll_transmit() {
            self.sent.push((path, body));
        }
    }

    fn answer(&mut self, answer: Answer) {
        self.asked.clear();
        self.input(Input::Answer(answer));
    }

    fn response(&mut self, body: Vec<u8>) {
        self.sent.clear();
        self.input(Input::Response { status: Status::OK, body });
    }

    /// A requester that waits for the answer to `/vectors` about [`BOOK`].
    fn asking_for_vectors() -> Self {
        let mut bench = Self::asking_for_ranges();
        let theirs = vec![SpanAnswer::Items(vec![Item { document: BOOK, state: [5; 8] }])];
        bench.response(encode_ranges(header(), &theirs));
        bench.answer(compared());
        bench
    }

    fn asking_for_ranges() -> Self {
        let mut bench = Self::new();
        bench.answer(collected());
        bench.response(response(7, 7).encode());
        bench.answer(applied(7));
        bench.answer(Answer::Items(vec![Vec::new()]));
        bench
    }

    fn ending(&self) -> Option<Ending> {
        self.ended.as_ref().map(|(ending, _)| *ending)
    }
}

const fn header() -> Header {
    Header { sender: THEIRS, receiver: MINE, takes: true }
}

#[test]
fn a_peer_that_differs_is_asked_for_ranges_and_then_for_vectors() {
    let ranges = Bench::asking_for_ranges();
    assert_eq!(ranges.sent.iter().map(|(path, _)| *path).collect::<Vec<_>>(), [Path::Ranges]);
    let vectors = Bench::asking_for_vectors();
    assert_eq!(vectors.sent.iter().map(|(path, _)| *path).collect::<Vec<_>>(), [Path::Vectors]);
}

#[test]
fn nothing_is_sent_before_the_store_has_answered() {
    let mut bench = Bench::new();
    assert_eq!(bench.asked, [Question::Collect { after: None }]);
    assert_eq!(bench.sent, []);
    assert_eq!(bench.requester.poll_timeout(), None);

    bench.answer(collected());
    assert_eq!(bench.sent.len(), 1);
    bench.response(response(7, 7).encode());
    assert!(matches!(bench.asked[..], [Question::Apply(_)]));
    assert_eq!(bench.sent, []);
}

#[test]
fn what_does_not_belong_to_the_state_changes_nothing() {
    let mut bench = Bench::new();
    bench.input(Input::Response { status: Status::OK, body: response(7, 7).encode() });
    bench.input(Input::Start);
    bench.answer(collected());
    bench.input(Input::Answer(collected()));
    bench.input(Input::Start);
    assert_eq!(bench.sent.len(), 1);
    assert_eq!(bench.ended, None);

    bench.input(Input::Lost);
    bench.input(Input::Lost);
    bench.input(Input::Response { status: Status::OK, body: response(7, 7).encode() });
    assert_eq!(bench.ending(), Some(Ending::Lost));
}

#[test]
fn a_response_is_waited_for_120_seconds_and_no_longer() {
    let now = any_instant();
    let mut requester = Requester::new();
    requester.handle_input(Input::Start, now);
    requester.handle_input(Input::Answer(collected()), now);
    assert_eq!(requester.poll_timeout(), Some(now + RESPONSE_WAIT_MAX));

    while requester.poll_event().is_some() {}
    let early = RESPONSE_WAIT_MAX.saturating_sub(Duration::from_millis(1));
    requester.handle_timeout(now + early);
    assert_eq!(requester.poll_event(), None);
    requester.handle_timeout(now + RESPONSE_WAIT_MAX);
    let ended = requester.poll_event();
    assert!(matches!(ended, Some(Event::Ended { ending: Ending::Lost, .. })), "{ended:?}");
    assert_eq!(requester.poll_timeout(), None);
}

#[test]
fn a_store_that_fails_or_answers_something_else_ends_the_session() {
    for wrong in [Answer::Failed, compared()] {
        let mut bench = Bench::new();
        bench.answer(wrong);
        assert_eq!(bench.ending(), Some(Ending::Unable));
    }
}

#[test]
fn a_refusal_ends_the_session_with_its_code() {
    let mut bench = Bench::new();
    bench.answer(collected());
    bench.input(Input::Response { status: Status::MALFORMED, body: Vec::new() });
    assert_eq!(bench.ending(), Some(Ending::Refused(Status::MALFORMED)));
}

#[test]
fn a_peer_with_another_generation_each_time_is_asked_a_few_times() {
    let mut bench = Bench::new();
    let mut requests = 0;
    while bench.ended.is_none() {
        bench.answer(collected());
        requests += 1;
        let alone = Sync { body: None, ..response(7, 7) };
        bench.response(alone.encode());
        bench.answer(applied(7));
    }
    assert_eq!(bench.ending(), Some(Ending::Moving));
    assert_eq!(requests, u64::from(REPEATS_MAX) + 1);
}

#[test]
fn a_peer_that_always_has_more_is_left_in_the_end() {
    let mut bench = Bench::new();
    let mut mark = 7;
    while bench.ended.is_none() {
        bench.answer(collected());
        if bench.ended.is_none() {
            mark += 1;
            bench.response(response(mark, u64::MAX).encode());
            bench.answer(applied(mark));
        }
    }
    let (ending, report) = bench.ended.unwrap();
    assert_eq!((ending, report.round_trips), (Ending::Moving, ROUND_TRIPS_MAX));
}

#[test]
fn a_difference_that_nothing_mends_ends_the_session() {
    let mut bench = Bench::asking_for_ranges();
    for _ in 0..2 {
        bench.response(encode_ranges(header(), &[SpanAnswer::Equal]));
        bench.answer(collected());
        bench.response(response(7, 7).encode());
        bench.answer(applied(7));
        bench.answer(Answer::Items(vec![Vec::new()]));
    }
    assert_eq!(bench.ending(), Some(Ending::Differs));
}

#[test]
fn nothing_is_compared_while_something_moves() {
    let asked_after = |applied: Applied| {
        let mut bench = Bench::new();
        bench.answer(collected());
        bench.response(response(7, 7).encode());
        bench.answer(Answer::Applied(applied));
        bench.asked.pop()
    };
    let Answer::Applied(quiet) = applied(7) else { unreachable!() };
    assert_eq!(asked_after(quiet.clone()), Some(Question::Items(vec![Span::ALL])));

    let local = quiet.local.clone();
    let other = ListDigest([1; 8]);
    let moved = [
        Applied { before: 6, after: 6, local: Local { end: 6, ..local.clone() }, ..quiet.clone() },
        Applied { local: Local { end: 6, ..local.clone() }, ..quiet.clone() },
        Applied { local: Local { settled: false, ..local.clone() }, ..quiet.clone() },
        Applied { local: Local { exclusions: other, ..local.clone() }, ..quiet.clone() },
        Applied { local: Local { held: other, ..local.clone() }, ..quiet.clone() },
        Applied { local: Local { generation: Generation([8; 16]), ..local }, ..quiet },
    ];
    for applied in moved {
        let again = Some(Question::Collect { after: None });
        assert_eq!(asked_after(applied.clone()), again, "{applied:?}");
    }
}

#[test]
fn answers_to_what_was_not_asked_are_violations() {
    let unasked = Some(Ending::Violation(Violation::Unasked));

    let mut bench = Bench::new();
    bench.answer(collected());
    let stranger = Header { sender: Generation([8; 16]), receiver: MINE, takes: true };
    bench.response(Sync { header: stranger, ..response(7, 7) }.encode());
    assert_eq!(bench.ending(), unasked, "another generation than was named");

    let mut bench = Bench::asking_for_ranges();
    bench.response(encode_ranges(header(), &[]));
    assert_eq!(bench.ending(), unasked, "fewer answers than spans");

    let other = Vector { document: DocumentId([6; 32]), entries: Vec::new() };
    let vectors = VectorsResponse {
        vectors: vec![other],
        forks: Vec::new(),
        agreements: Vec::new(),
        more: false,
        piece: Vec::new(),
    };
    let mut bench = Bench::asking_for_vectors();
    bench.response(vectors.encode(header()));
    assert_eq!(bench.ending(), unasked, "another document");
}

#[test]
fn a_new_generation_in_a_later_phase_begins_again() {
    let alone = Header { sender: Generation([8; 16]), receiver: MINE, takes: true }.encode_alone();
    for mut bench in [Bench::asking_for_ranges(), Bench::asking_for_vectors()] {
        bench.asked.clear();
        bench.response(alone.clone());
        assert_eq!(bench.asked, [Question::Collect { after: None }]);
        assert_eq!(bench.ended, None);
    }
}

/// Hands a request and answers to a responder. Returns what it asked and what it sent.
fn respond(path: Path, body: Vec<u8>, answers: Vec<Answer>) -> (Vec<Question>, (Status, Vec<u8>)) {
    let mut responder = Responder::new();
    let inputs = answers.into_iter().map(responder::Input::Answer);
    let mut asked = Vec::new();
    for input in [responder::Input::Request { path, body }].into_iter().chain(inputs) {
        responder.handle_input(input, any_instant());
        while let Some(event) = responder.poll_event() {
            if let Event::Ask { question, .. } = event {
                asked.push(question);
            }
        }
    }
    let Some(Transmit::Response { status, body }) = responder.poll_transmit() else {
        panic!("no response after {asked:?}");
    };
    assert_eq!(responder.poll_transmit(), None);
    (asked, (status, body))
}

fn from_peer() -> Sync {
    Sync { header: Header { sender: THEIRS, receiver: MINE, takes: true }, ..response(7, 7) }
}

#[test]
fn what_is_malformed_reaches_no_store() {
    for path in Path::ALL {
        let (asked, response) = respond(path, vec![1; 5], Vec::new());
        assert_eq!((asked, response), (Vec::new(), (Status::MALFORMED, Vec::new())));
        let (asked, response) = respond(path, vec![2; 50], Vec::new());
        assert_eq!((asked, response), (Vec::new(), (NO_COMMON_VERSION, Vec::new())));
    }
    let newer = Sync { versions: (2, 3), ..from_peer() }.encode();
    let (asked, (status, _)) = respond(Path::Sync, newer, Vec::new());
    assert_eq!((asked, status), (Vec::new(), NO_COMMON_VERSION));
    let alone = Sync { body: None, ..from_peer() }.encode();
    let (asked, (status, _)) = respond(Path::Sync, alone, Vec::new());
    assert_eq!((asked, status), (Vec::new(), Status::MALFORMED), "a request says something");
}

#[test]
fn a_store_that_fails_is_said_to_the_peer() {
    let (_, response) = respond(Path::Sync, from_peer().encode(), vec![Answer::Failed]);
    assert_eq!(response, (Status::INTERNAL, Vec::new()));
}

#[test]
fn a_request_is_durable_before_anything_is_said() {
    let (asked, (status, _)) =
        respond(Path::Sync, from_peer().encode(), vec![applied(7), collected()]);
    assert!(matches!(asked[..], [Question::Apply(_), Question::Collect { .. }]), "{asked:?}");
    assert_eq!(status, Status::OK);
}

#[test]
fn a_request_for_another_generation_gets_a_hello_alone_and_its_later_phases_change_nothing() {
    let header = Header { sender: THEIRS, receiver: Generation([8; 16]), takes: true };
    let sync = Sync { header, ..from_peer() };
    let (asked, (_, body)) = respond(Path::Sync, sync.encode(), vec![applied(7)]);
    assert_eq!(asked.len(), 1, "what came is kept");
    let hello = Sync::decode(&body).unwrap();
    assert_eq!((hello.header.sender, hello.body), (MINE, None));

    let ranges = RangesRequest { header, spans: vec![(Span::ALL, [0; 16])] }.encode();
    let vectors = VectorsRequest { header, vectors: Vec::new(), probes: Vec::new() }.encode();
    let changes = ChangesRequest { header, piece: vec![1] }.encode();
    let local = || vec![Answer::Local(local())];
    let (asked, (_, body)) = respond(Path::Ranges, ranges, local());
    assert_eq!((asked, decode_ranges(&body).unwrap().1), (vec![Question::Local], None));
    let (asked, (_, body)) = respond(Path::Vectors, vectors, local());
    assert_eq!((asked, VectorsResponse::decode(&body).unwrap().1), (vec![Question::Local], None));
    let (asked, (_, body)) = respond(Path::Changes, changes, local());
    assert_eq!((asked, ChangesResponse::decode(&body).unwrap().1), (vec![Question::Local], None));
}

#[test]
fn a_summary_is_sent_only_over_the_documents_that_the_peer_means_too() {
    let summary = |request: Sync, local: Local| {
        let Answer::Collected(collected) = collected() else { unreachable!() };
        let answers = vec![applied(7), Answer::Collected(Collected { local, ..collected })];
        let (_, (_, body)) = respond(Path::Sync, request.encode(), answers);
        Sync::decode(&body).unwrap().body.unwrap().summary
    };
    let other = ListDigest([1; 8]);
    assert_eq!(summary(from_peer(), local()), Some(Summary([4; 32])));
    assert_eq!(summary(Sync { held: other, ..from_peer() }, local()), None);
    assert_eq!(summary(Sync { exclusions: other, ..from_peer() }, local()), None);
    assert_eq!(summary(from_peer(), Local { settled: false, ..local() }), None);
}

#[test]
fn whoever_has_the_same_summary_is_sent_nothing_below_the_end() {
    let same = SyncBody { summary: Some(Summary([4; 32])), ..from_peer().body.unwrap() };
    let same = SyncBody { mark: 2, ..same };
    let request = Sync { body: Some(same.clone()), ..from_peer() };
    let (asked, _) = respond(Path::Sync, request.encode(), vec![applied(7), collected()]);
    assert_eq!(asked[1], Question::Collect { after: Some(5) });

    let other = SyncBody { summary: Some(Summary([9; 32])), ..same };
    let request = Sync { body: Some(other.clone()), ..from_peer() };
    let (asked, _) = respond(Path::Sync, request.encode(), vec![applied(7), collected()]);
    assert_eq!(asked[1], Question::Collect { after: Some(2) });

    let above = SyncBody { mark: 6, ..other };
    let request = Sync { body: Some(above), ..from_peer() };
    let (asked, _) = respond(Path::Sync, request.encode(), vec![applied(7), collected()]);
    assert_eq!(asked[1], Question::Collect { after: Some(0) }, "a mark above the end counts as 0");
}

#[test]
fn more_goes_on_by_marks_where_one_moves_and_by_ranges_where_none_does() {
    let asked_after = |response: Sync, applied: Answer| {
        let mut bench = Bench::new();
        bench.answer(collected());
        bench.response(response.encode());
        bench.answer(applied);
        bench.asked.pop()
    };
    let again = Some(Question::Collect { after: None });
    let search = Some(Question::Items(vec![Span::ALL]));
    assert_eq!(asked_after(response(8, 9), applied(8)), again);
    assert_eq!(asked_after(response(8, 9), applied(7)), search);

    let with_mark = |mark| {
        let body = SyncBody { mark, ..response(7, 9).body.unwrap() };
        Sync { body: Some(body), ..response(7, 9) }
    };
    assert_eq!(asked_after(with_mark(6), applied(7)), search, "a mark above our end has not moved");
    assert_eq!(asked_after(with_mark(4), applied(7)), again, "the peer has less than was thought");
}

#[test]
fn what_is_parked_is_compared_although_there_is_more() {
    let judged = |summary, at_peer, here| {
        let mut bench = Bench::new();
        bench.answer(collected());
        let body = SyncBody { summary: Some(summary), ..response(8, 9).body.unwrap() };
        let reply = Sync { parked: at_peer, body: Some(body), ..response(8, 9) };
        bench.response(reply.encode());
        let Answer::Applied(applied) = applied(8) else { unreachable!() };
        let local = Local { parked: here, ..applied.local.clone() };
        bench.answer(Answer::Applied(Applied { local, ..applied }));
        bench.asked.pop()
    };
    let again = Some(Question::Collect { after: None });
    for (at_peer, here) in [(true, false), (false, true)] {
        let different = judged(Summary([9; 32]), at_peer, here);
        assert_eq!(different, Some(Question::Items(vec![Span::ALL])));
        assert_eq!(judged(Summary([4; 32]), at_peer, here), again);
    }
    assert_eq!(judged(Summary([9; 32]), false, false), again);
}

#[test]
fn a_search_is_repeated_as_long_as_it_adds_something() {
    let mut bench = Bench::asking_for_ranges();
    for _ in 0..5 {
        let theirs = vec![SpanAnswer::Items(vec![Item { document: BOOK, state: [5; 8] }])];
        bench.response(encode_ranges(header(), &theirs));
        bench.answer(compared());
        bench.response(vectors_of(4, &[], vec![1]));
        bench.answer(compared());
        bench.answer(Answer::Piece { piece: Piece::default(), more: false });
        let Answer::Applied(applied) = applied(7) else { unreachable!() };
        bench.answer(Answer::Applied(Applied { received: 1, added: 1, ..applied.clone() }));
        bench.answer(collected());
        bench.response(response(7, 7).encode());
        bench.answer(Answer::Applied(applied));
        bench.answer(Answer::Items(vec![Vec::new()]));
    }
    assert_eq!(bench.ended, None);
}

fn chain() -> Chain {
    Chain { document: BOOK, log: Log::Changes, actor: ActorId([7; 16]) }
}

fn entries(seq: u32, hash: u8) -> Vec<Vector> {
    let Chain { document, log, actor } = chain();
    vec![Vector { document, entries: vec![Entry { log, actor, seq, hash: [hash; 8] }] }]
}

/// What the peer answers to `/vectors`: its chain, which ends with 9s.
fn vectors_of(seq: u32, forks: &[Spot], piece: Vec<u8>) -> Vec<u8> {
    let (vectors, forks) = (entries(seq, 9), forks.to_vec());
    let response = VectorsResponse { vectors, forks, agreements: Vec::new(), more: false, piece };
    response.encode(header())
}

#[test]
fn of_a_chain_that_forks_both_branches_are_sent_from_where_they_agree() {
    let spot = |seq| Spot { chain: chain(), seq };
    let mine = || Answer::Compared { mine: entries(4, 1), forks: Vec::new() };
    let nothing = || Answer::Piece { piece: Piece::default(), more: false };
    let theirs = vec![SpanAnswer::Items(vec![Item { document: BOOK, state: [5; 8] }])];
    let mut bench = Bench::asking_for_ranges();
    bench.response(encode_ranges(header(), &theirs));
    bench.answer(mine());
    bench.response(vectors_of(5, &[spot(4)], Vec::new()));
    bench.answer(Answer::Compared { mine: entries(4, 1), forks: Vec::new() });
    assert_eq!(bench.asked, [Question::CollectFor(entries(u32::MAX, 9))], "nothing of it yet");
    bench.answer(nothing());

    for (seq, agrees) in [(2, true), (3, false)] {
        assert_eq!(bench.asked, [Question::Hashes(vec![spot(seq)])]);
        bench.answer(Answer::Hashes(vec![Some([6; 8])]));
        let request = VectorsRequest::decode(&bench.sent[0].1).unwrap();
        assert_eq!(request.probes, [(spot(seq), [6; 8])]);
        let (vectors, forks, piece) = (Vec::new(), Vec::new(), Vec::new());
        let agreements = vec![agrees];
        let response = VectorsResponse { vectors, forks, agreements, more: false, piece };
        bench.response(response.encode(header()));
    }

    bench.answer(mine());
    let request = VectorsRequest::decode(&bench.sent[0].1).unwrap();
    assert_eq!(request.vectors, entries(2, 6), "so the peer sends what is above");
    bench.response(vectors_of(5, &[], vec![8]));
    bench.answer(mine());
    assert_eq!(bench.asked, [Question::CollectFor(entries(2, 6))], "and is sent what is above");
    let piece = Piece { bytes: vec![3], changes: 2 };
    bench.answer(Answer::Piece { piece, more: false });
    assert!(matches!(bench.asked[..], [Question::Apply(_)]), "applied only now");
    bench.answer(applied(7));
    assert_eq!(bench.sent[0].0, Path::Changes);
    bench.response(ChangesResponse { received: 2, added: 0 }.encode(header()));
    assert_eq!(bench.forked, [spot(3)]);
}

//! Bodies of requests and responses: what is written reads, and nothing else does.

use std::fmt::Debug;

use catchword_model::id::{ActorId, DocumentId, Generation};
use catchword_proto::session::message::{
    ChangesRequest, ChangesResponse, ENTRIES_MAX, FORKS_MAX, Header, ITEMS_MAX, PARTS_MAX,
    RangesRequest, SPANS_MAX, SpanAnswer, Sync, SyncBody, VECTORS_MAX, VectorsRequest,
    VectorsResponse, decode_ranges, encode_ranges,
};
use catchword_proto::session::{
    BODY_BYTES_MAX, Bounds, Chain, EXCLUSIONS_MAX, Entry, Exclusion, Item, Log, PIECE_BYTES_MAX,
    Path, Span, Spot, Summary, Vector, Violation, list_digest,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

const HEADER: Header =
    Header { sender: Generation([1; 16]), receiver: Generation([2; 16]), takes: true };

fn numbered(number: usize) -> DocumentId {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    DocumentId(bytes)
}

fn hello() -> Sync {
    Sync {
        header: HEADER,
        versions: (1, 1),
        exclusions: list_digest(&[]),
        held: list_digest(&[]),
        list: None,
        agreed: false,
        parked: false,
        body: None,
    }
}

fn body(piece: usize) -> SyncBody {
    let bounds = Bounds { from: 1, through: 2, end: 3 };
    SyncBody { mark: 9, summary: Some(Summary([3; 32])), bounds, piece: vec![7; piece] }
}

fn exclusions(count: usize) -> Vec<Exclusion> {
    (0..count as u64).map(|number| Exclusion(number.to_be_bytes())).collect()
}

fn vector(document: usize, entries: usize) -> Vector {
    let entry = |number: usize| {
        let mut actor = [0; 16];
        actor[8..].copy_from_slice(&(number as u64).to_be_bytes());
        Entry { log: Log::Changes, actor: ActorId(actor), seq: 1, hash: [5; 8] }
    };
    Vector { document: numbered(document), entries: (0..entries).map(entry).collect() }
}

fn spot(seq: u32) -> Spot {
    let chain = Chain { document: numbered(0), log: Log::Events, actor: ActorId([4; 16]) };
    Spot { chain, seq }
}

/// What is at a limit reads, what is one past it is refused for that reason.
#[track_caller]
fn assert_limit<T: Debug + PartialEq>(
    at: Result<T, Violation>,
    beyond: Result<T, Violation>,
    count_max: usize,
) {
    assert!(at.is_ok(), "{:?}", at.err());
    assert_eq!(beyond.err(), Some(Violation::TooMany { count: count_max + 1, count_max }));
}

#[test]
fn an_idle_sync_has_117_bytes_each_way() {
    let idle = Sync { body: Some(body(0)), ..hello() };
    assert_eq!(idle.encode().len(), 117);
    assert_eq!(hello().encode().len(), 53);
}

#[test]
fn a_list_of_exclusions_at_the_limit_reads_and_one_more_does_not() {
    let with = |count| {
        let list = exclusions(count);
        let sync = Sync { exclusions: list_digest(&list), list: Some(list), ..hello() };
        Sync::decode(&sync.encode()).map(|sync| sync.list.unwrap().len())
    };
    assert_limit(with(EXCLUSIONS_MAX), with(EXCLUSIONS_MAX + 1), EXCLUSIONS_MAX);
}

#[test]
fn a_piece_at_the_limit_reads_and_one_byte_more_does_not() {
    let sync = |bytes| Sync::decode(&Sync { body: Some(body(bytes)), ..hello() }.encode());
    assert_limit(sync(PIECE_BYTES_MAX), sync(PIECE_BYTES_MAX + 1), PIECE_BYTES_MAX);
    let changes = |bytes| {
        ChangesRequest::decode(&ChangesRequest { header: HEADER, piece: vec![7; bytes] }.encode())
    };
    assert_limit(changes(PIECE_BYTES_MAX), changes(PIECE_BYTES_MAX + 1), PIECE_BYTES_MAX);

    let body = hello().encode();
    let body = [body.clone(), vec![0; BODY_BYTES_MAX + 1 - body.len()]].concat();
    let count = Violation::TooMany { count: body.len(), count_max: BODY_BYTES_MAX };
    assert_eq!(Sync::decode(&body), Err(count), "before anything is read");
    let nobody = Header { sender: Header::UNKNOWN, ..HEADER };
    let body = Sync { header: nobody, ..hello() }.encode();
    assert_eq!(Sync::decode(&body), Err(Violation::Number), "a generation of zeros");
}

#[test]
fn spans_items_and_parts_have_limits() {
    let spans = |count| {
        let span = |at| Span { from: numbered(2 * at), to: Some(numbered(2 * at + 1)) };
        let spans = (0..count).map(|at| (span(at), [6; 16])).collect();
        RangesRequest::decode(&RangesRequest { header: HEADER, spans }.encode())
    };
    assert_limit(spans(SPANS_MAX), spans(SPANS_MAX + 1), SPANS_MAX);

    let answer = |answer| decode_ranges(&encode_ranges(HEADER, &[answer]));
    let items = |count| {
        let item = |at| Item { document: numbered(at), state: [8; 8] };
        answer(SpanAnswer::Items((0..count).map(item).collect()))
    };
    assert_limit(items(ITEMS_MAX), items(ITEMS_MAX + 1), ITEMS_MAX);
    let parts =
        |count| answer(SpanAnswer::Parts((0..count).map(|at| (numbered(at), [6; 16])).collect()));
    assert_limit(parts(PARTS_MAX), parts(PARTS_MAX + 1), PARTS_MAX);
    assert_eq!(parts(1), Err(Violation::Number), "one part is no split");
    assert!(parts(2).is_ok());
}

#[test]
fn vectors_entries_and_forks_have_limits() {
    let vectors = |count: usize, entries| {
        let vectors = (0..count).map(|document| vector(document, entries)).collect();
        VectorsRequest::decode(
            &VectorsRequest { header: HEADER, vectors, probes: Vec::new() }.encode(),
        )
    };
    assert_limit(vectors(VECTORS_MAX, 1), vectors(VECTORS_MAX + 1, 1), VECTORS_MAX);
    assert_limit(vectors(1, ENTRIES_MAX), vectors(1, ENTRIES_MAX + 1), ENTRIES_MAX);

    let probes = |count| {
        let probes = vec![(spot(1), [9; 8]); count];
        VectorsRequest::decode(
            &VectorsRequest { header: HEADER, vectors: Vec::new(), probes }.encode(),
        )
    };
    assert_limit(probes(FORKS_MAX), probes(FORKS_MAX + 1), FORKS_MAX);
    let forks = |count| {
        let (vectors, agreements, piece) = (Vec::new(), vec![true; count], Vec::new());
        let forks = vec![spot(1); count];
        let response = VectorsResponse { vectors, forks, agreements, more: false, piece };
        VectorsResponse::decode(&response.encode(HEADER))
    };
    assert_limit(forks(FORKS_MAX), forks(FORKS_MAX + 1), FORKS_MAX);
}

#[test]
fn numbers_of_chains_are_1_to_2_to_the_31st_minus_1() {
    let probe = |seq| {
        let probes = vec![(spot(seq), [9; 8])];
        let request = VectorsRequest { header: HEADER, vectors: Vec::new(), probes };
        VectorsRequest::decode(&request.encode()).err()
    };
    assert_eq!([1, i32::MAX as u32].map(probe), [None; 2]);
    assert_eq!([0, i32::MAX as u32 + 1, u32::MAX].map(probe), [Some(Violation::Number); 3]);
}

#[test]
fn what_is_out_of_order_is_refused() {
    let mut list = exclusions(3);
    list.swap(0, 1);
    let sync = Sync { exclusions: list_digest(&list), list: Some(list), ..hello() };
    assert_eq!(Sync::decode(&sync.encode()), Err(Violation::Order));

    let vectors = vec![vector(1, 0), vector(1, 0)];
    let request = VectorsRequest { header: HEADER, vectors, probes: Vec::new() };
    assert_eq!(VectorsRequest::decode(&request.encode()), Err(Violation::Order));
    let mut twice = vector(1, 2);
    twice.entries[1] = twice.entries[0];
    let request = VectorsRequest { header: HEADER, vectors: vec![twice], probes: Vec::new() };
    assert_eq!(VectorsRequest::decode(&request.encode()), Err(Violation::Order));

    let all = (Span::ALL, [6; 16]);
    let empty = (Span { from: numbered(1), to: Some(numbered(1)) }, [6; 16]);
    for spans in [vec![all, all], vec![empty]] {
        let request = RangesRequest { header: HEADER, spans };
        assert_eq!(RangesRequest::decode(&request.encode()), Err(Violation::Order));
    }

    let bounds = [(2, 1, 3), (1, 3, 2)];
    for (from, through, end) in bounds {
        let body = SyncBody { bounds: Bounds { from, through, end }, ..body(0) };
        let sync = Sync { body: Some(body), ..hello() };
        assert_eq!(Sync::decode(&sync.encode()), Err(Violation::Number));
    }
    let sync = Sync { versions: (2, 1), ..hello() };
    assert_eq!(Sync::decode(&sync.encode()), Err(Violation::Number));
}

#[test]
fn flags_without_meaning_versions_and_wrong_digests_are_refused() {
    let bytes = hello().encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        Sync::decode(&bytes).err()
    };
    assert_eq!(with(0, 0), Some(Violation::Version(0)));
    assert_eq!(with(0, 2), Some(Violation::Version(2)));
    assert_eq!(with(33, 32), Some(Violation::Flag(32)), "unknown");
    assert_eq!(with(33, 16 | 2), Some(Violation::Flag(18)), "a hello alone has no summary");

    let list = exclusions(2);
    let sync = Sync { exclusions: list_digest(&list[..1]), list: Some(list), ..hello() };
    assert_eq!(Sync::decode(&sync.encode()), Err(Violation::Digest));
}

#[test]
fn a_hello_alone_answers_every_path() {
    let alone = HEADER.encode_alone();
    assert_eq!(decode_ranges(&alone), Ok((HEADER, None)));
    assert_eq!(VectorsResponse::decode(&alone), Ok((HEADER, None)));
    assert_eq!(ChangesResponse::decode(&alone), Ok((HEADER, None)));
    let longer = [alone, vec![0]].concat();
    assert!(matches!(ChangesResponse::decode(&longer), Err(Violation::Wire(_))));
}

#[test]
fn paths_have_exactly_one_text() {
    for path in Path::ALL {
        assert_eq!(Path::from_text(path.as_str()), Some(path));
    }
    for text in ["", "/", "/Sync", "/sync/", "/sync?", "/file"] {
        assert_eq!(Path::from_text(text), None, "{text}");
    }
}

fn header() -> impl Strategy<Value = Header> {
    let generation = || any::<[u8; 16]>().prop_map(Generation);
    let known = generation().prop_filter("zeros are nobody", |it| *it != Header::UNKNOWN);
    let parts = (known, generation(), any::<bool>());
    parts.prop_map(|(sender, receiver, takes)| Header { sender, receiver, takes })
}

fn document() -> impl Strategy<Value = DocumentId> {
    any::<[u8; 32]>().prop_map(DocumentId)
}

fn chain_log() -> impl Strategy<Value = Log> {
    prop_oneof![Just(Log::Changes), Just(Log::Events)]
}

fn sync() -> impl Strategy<Value = Sync> {
    let bounds = vec(any::<u64>(), 3).prop_map(|mut numbers| {
        numbers.sort_unstable();
        Bounds { from: numbers[0], through: numbers[1], end: numbers[2] }
    });
    let summary = proptest::option::of(any::<[u8; 32]>().prop_map(Summary));
    let body = (any::<u64>(), summary, bounds, vec(any::<u8>(), 0..40))
        .prop_map(|(mark, summary, bounds, piece)| SyncBody { mark, summary, bounds, piece });
    let list = btree_set(any::<[u8; 8]>().prop_map(Exclusion), 0..9);
    let list = proptest::option::of(list.prop_map(|list| list.into_iter().collect::<Vec<_>>()));
    let flags = (any::<bool>(), any::<bool>());
    (header(), list, any::<[u8; 8]>(), flags, proptest::option::of(body)).prop_map(
        |(header, list, held, (agreed, parked), body)| Sync {
            header,
            list: list.clone(),
            exclusions: list_digest(&list.unwrap_or_default()),
            held: catchword_proto::session::ListDigest(held),
            agreed,
            parked,
            body,
            ..hello()
        },
    )
}

fn vectors() -> impl Strategy<Value = Vec<Vector>> {
    let key = (chain_log(), any::<[u8; 16]>().prop_map(ActorId));
    let entries = btree_map(key, (1..=i32::MAX as u32, any::<[u8; 8]>()), 0..5);
    let entries = entries.prop_map(|entries| {
        let entry = |((log, actor), (seq, hash))| Entry { log, actor, seq, hash };
        entries.into_iter().map(entry).collect::<Vec<_>>()
    });
    btree_map(document(), entries, 0..5).prop_map(|vectors| {
        let vector = |(document, entries)| Vector { document, entries };
        vectors.into_iter().map(vector).collect()
    })
}

fn spots() -> impl Strategy<Value = Vec<Spot>> {
    let chain = (document(), chain_log(), any::<[u8; 16]>().prop_map(ActorId))
        .prop_map(|(document, log, actor)| Chain { document, log, actor });
    vec((chain, 1..=i32::MAX as u32).prop_map(|(chain, seq)| Spot { chain, seq }), 0..5)
}

fn answers() -> impl Strategy<Value = Vec<SpanAnswer>> {
    let items = btree_map(document(), any::<[u8; 8]>(), 0..5).prop_map(|items| {
        let item = |(document, state)| Item { document, state };
        SpanAnswer::Items(items.into_iter().map(item).collect())
    });
    let parts = btree_map(document(), any::<[u8; 16]>(), 2..5)
        .prop_map(|parts| SpanAnswer::Parts(parts.into_iter().collect()));
    vec(prop_oneof![Just(SpanAnswer::Equal), items, parts], 0..5)
}

proptest! {
    #[test]
    fn every_message_round_trips(
        sync in sync(),
        header in header(),
        vectors in vectors(),
        spots in spots(),
        answers in answers(),
        more in any::<bool>(),
        piece in vec(any::<u8>(), 0..40),
    ) {
        prop_assert_eq!(Sync::decode(&sync.encode()), Ok(sync));
        let probes = spots.iter().map(|spot| (*spot, [6; 8])).collect();
        let request = VectorsRequest { header, vectors: vectors.clone(), probes };
        prop_assert_eq!(VectorsRequest::decode(&request.encode()), Ok(request));
        let agreements = vec![more; spots.len()];
        let response = VectorsResponse { vectors, forks: spots, agreements, more, piece: piece.clone() };
        let read = VectorsResponse::decode(&response.encode(header));
        prop_assert_eq!(read, Ok((header, Some(response))));
        let read = decode_ranges(&encode_ranges(header, &answers));
        prop_assert_eq!(read, Ok((header, Some(answers))));
        let request = ChangesRequest { header, piece };
        prop_assert_eq!(ChangesRequest::decode(&request.encode()), Ok(request));
        let response = ChangesResponse { received: 3, added: 2 };
        let read = ChangesResponse::decode(&response.encode(header));
        prop_assert_eq!(read, Ok((header, Some(response))));
    }

    /// What reads has one spelling, and what does not is an error and no panic.
    #[test]
    fn damaged_messages_read_as_they_are_or_not_at_all(
        sync in sync(),
        vectors in vectors(),
        answers in answers(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let probes = vec![(spot(1), [9; 8])];
        let vectors = VectorsRequest { header: HEADER, vectors, probes };
        let bodies = [sync.encode(), vectors.encode(), encode_ranges(HEADER, &answers)];
        for mut body in bodies {
            for (at, byte) in &damage {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            if damage.is_empty() {
                body.truncate(cut.index(body.len()));
            }
            if let Ok(sync) = Sync::decode(&body) {
                prop_assert_eq!(&sync.encode(), &body);
            }
            if let Ok(request) = VectorsRequest::decode(&body) {
                prop_assert_eq!(&request.encode(), &body);
            }
            if let Ok(request) = RangesRequest::decode(&body) {
                prop_assert_eq!(&request.encode(), &body);
            }
            if let Ok((header, Some(answers))) = decode_ranges(&body) {
                prop_assert_eq!(&encode_ranges(header, &answers), &body);
            }
            if let Ok((header, Some(response))) = VectorsResponse::decode(&body) {
                prop_assert_eq!(&response.encode(header), &body);
            }
            if let Ok((header, Some(response))) = ChangesResponse::decode(&body) {
                prop_assert_eq!(&response.encode(header), &body);
            }
        }
    }
}

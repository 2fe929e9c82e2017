//! Every fuzz target over its seeds, and over every input that ever broke one.
//!
//! Seeds are what we write ourselves, made anew each time: `CATCHWORD_WRITE_SEEDS=1` puts them where the
//! fuzzer looks.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use catchword_formats::sample;
use catchword_model::change::Change;
use catchword_model::exchange::{DocumentName, Parcel, Piece};
use catchword_model::genesis::genesis;
use catchword_model::id::{BookId, Generation};
use catchword_model::identity::Fingerprint;
use catchword_model::schema::DocumentKind;
use catchword_proto::blob::{Range, encode_part};
use catchword_proto::cloud::api::{Ingest, Problem, ProblemKind};
use catchword_proto::cloud::codec::Format;
use catchword_proto::discovery::{Announcement, DiscoveryKey, InstanceName};
use catchword_proto::pairing::host::{Approval, KeyOnly, Window};
use catchword_proto::pairing::joiner::{Invitation, Meeting, Transmit};
use catchword_proto::pairing::{
    Exporter, Host, Introduction, Joiner, PairingId, PairingKey, QrSecret, RunRandom, Spake2,
};
use catchword_proto::request::{Channel, Head};
use catchword_proto::secret::PairSecret;
use catchword_proto::session::message::{
    ChangesRequest, Header, RangesRequest, Sync, SyncBody, VectorsRequest,
};
use catchword_proto::session::{Bounds, ListDigest, Span, Summary, Vector};
use catchword_proto::wire::pairing_frame;
use catchword_sim::fuzz::TARGETS;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::report;

const HOST: Fingerprint = Fingerprint([0xA0; 32]);
const JOINER: Fingerprint = Fingerprint([0xB0; 32]);
const NOW_MS: u64 = 1_780_000_000_000;

type Seeds = BTreeMap<&'static str, Vec<Vec<u8>>>;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(name)
}

fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    seeds.insert("frame", vec![pairing_frame(b"hello").unwrap()]);
    seeds.insert("session_bytes", session());
    seeds.insert("pairing_bytes", vec![first_message()]);
    seeds.insert("qr_text", vec![qr_text()]);
    let changes = changes();
    seeds.insert("change_reader", changes.iter().map(|change| change.body().to_vec()).collect());
    seeds.insert("piece", vec![piece(&changes), Piece::default().encode()]);
    seeds.insert("request_header", vec![request()]);
    seeds.insert("discovery_txt", vec![announcement()]);
    for (name, format) in [("cloud_json", Format::Json), ("cloud_cbor", Format::Cbor)] {
        let ingest = format.encode(&Ingest { entries: Vec::new() }).unwrap();
        let problem = format.encode(&Problem::of(ProblemKind::Malformed)).unwrap();
        seeds.insert(name, vec![ingest, problem]);
    }
    // The first version of a record: no scope, no address.
    let mut record = vec![1, 2];
    record.extend([0; 24]);
    record.extend([5; 8]);
    record.extend([5, b'p', b'h', b'o', b'n', b'e', 0]);
    seeds.insert("peer_record", vec![record]);
    let range = Range { offset: 4, length: 4 }.encode();
    seeds.insert("file_part", vec![range.clone(), [range, encode_part(8, b"last")].concat()]);
    let book = sample::Builder::new("Rain").author("Ana").chapter("One", "It rained.").build();
    seeds.insert("import_book", vec![book, b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>".to_vec()]);
    // One bit in each of sixteen pages.
    let damage = |page: u32| [&[1][..], &(page * 4_096 + 300).to_be_bytes(), &[4]].concat();
    let pages = |first: u32| (first..first + 16).flat_map(damage).collect();
    seeds.insert("store_open", vec![pages(2), pages(40), vec![0, 0, 0, 16, 9, 1]]);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut bytes = vec![0; 64];
    random.fill(bytes.as_mut_slice());
    seeds.insert("world_actions", vec![bytes]);
    seeds
}

fn session() -> Vec<Vec<u8>> {
    let (sender, receiver) = (Generation([1; 16]), Generation([2; 16]));
    let header = Header { sender, receiver, takes: true };
    let sync = Sync {
        header,
        versions: (1, 1),
        exclusions: ListDigest::default(),
        held: ListDigest::default(),
        list: None,
        agreed: true,
        parked: false,
        body: Some(SyncBody {
            mark: 3,
            summary: Some(Summary([4; 32])),
            bounds: Bounds { from: 1, through: 2, end: 3 },
            piece: vec![9; 8],
        }),
    };
    let document = BookId([3; 32]).document();
    let vector = Vector { document, entries: Vec::new() };
    let ranges = RangesRequest { header, spans: vec![(Span::ALL, [5; 16])] };
    let vectors = VectorsRequest { header, vectors: vec![vector], probes: Vec::new() };
    let changes = ChangesRequest { header, piece: vec![9; 8] };
    let bodies = [sync.encode(), ranges.encode(), vectors.encode(), changes.encode()];
    (0..).zip(bodies).map(|(path, body)| [vec![path], body].concat()).collect()
}

fn window() -> Window {
    Window {
        id: PairingId([1; 8]),
        key: PairingKey::parse("123456").unwrap(),
        secret: QrSecret::new([2; 16]),
        host: HOST,
        introduction: Introduction::new("host", "linux", "0.1.0"),
        key_only: KeyOnly::Accepted,
        approval: Approval::Given,
    }
}

fn first_message() -> Vec<u8> {
    let key = PairingKey::parse("123456").unwrap();
    let invitation = Invitation::KeyOnly { id: PairingId([1; 8]), key };
    let exporter = Exporter::new([3; 32]);
    let random = RunRandom::new([4; RunRandom::BYTES]);
    let meeting = Meeting { host: HOST, joiner: JOINER, exporter, random };
    let introduction = Introduction::new("joiner", "linux", "0.1.0");
    let mut joiner: Joiner<Spake2> =
        Joiner::start(&invitation, introduction, meeting, Instant::now());
    match joiner.poll_transmit() {
        Some(Transmit::Send(bytes)) => bytes,
        other => panic!("a joiner speaks first: {other:?}"),
    }
}

fn qr_text() -> Vec<u8> {
    let host: Host<Spake2> = Host::open(window(), Instant::now());
    let code = host.qr_code(4_433, vec![IpAddr::from([192, 168, 0, 2])]);
    code.encode().as_bytes().to_vec()
}

/// The fixed first changes: whatever else is written bears a generation that is drawn anew.
fn changes() -> Vec<Change> {
    let kinds = [DocumentKind::Book, DocumentKind::Notes, DocumentKind::Library];
    kinds.into_iter().map(|kind| genesis(kind).clone()).collect()
}

fn piece(changes: &[Change]) -> Vec<u8> {
    // Tag 1 is a change by itself; nobody signed these.
    let run = |change: &Change| [&[1], change.bytes()].concat();
    let runs = changes.iter().map(run).collect();
    let name = DocumentName::Book(BookId([7; 32]));
    let parcel = Parcel { name, runs, events: Vec::new(), statements: Vec::new() };
    Piece { parcels: vec![parcel] }.encode()
}

/// Signed with another secret than the target's.
fn request() -> Vec<u8> {
    let channel = Channel::new(&PairSecret::new([9; 32]), JOINER, HOST, [6; 32]);
    let head = Head { time_ms: NOW_MS, nonce: [7; 16], method: "POST", path: "/sync" };
    channel.request(&head, b"body").unwrap()
}

fn announcement() -> Vec<u8> {
    let key = DiscoveryKey::new(&PairSecret::new([5; 32]));
    let name = InstanceName([8; 8]);
    let announced = Announcement::new(HOST, name, 4_433, 20_000, [&key], [[3; 8]; 16]);
    let txt = announced.with_pairing_id([1; 8]).txt();
    let entry = |(key, value): (&str, Vec<u8>)| [key.as_bytes(), b"=", &value].concat();
    let entries = txt.into_iter().map(entry);
    entries.flat_map(|it| [vec![u8::try_from(it.len()).unwrap()], it].concat()).collect()
}

#[test]
fn seeds_are_what_we_write_today() {
    let all = seeds();
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(all.len(), names.len());
    for name in names {
        let program = folder("fuzz_targets").join(format!("{name}.rs"));
        assert!(program.is_file(), "no program fuzzes {name}");
        for (n, seed) in all[name].iter().enumerate() {
            let path = folder("seeds").join(name).join(n.to_string());
            if std::env::var_os("CATCHWORD_WRITE_SEEDS").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, seed).unwrap();
            }
            assert!(fs::read(&path).unwrap() == *seed, "{} is out of date", path.display());
        }
    }
}

#[test]
fn no_target_breaks_on_its_seeds_nor_on_what_broke_it_once() {
    let (mut inputs, mut kept) = (0, 0);
    for (name, target) in TARGETS {
        let from = |folder: PathBuf| fs::read_dir(folder.join(name)).into_iter().flatten();
        let regressions: Vec<_> = from(folder("regressions")).collect();
        kept += regressions.len();
        for entry in from(folder("seeds")).chain(regressions) {
            target(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        // And on every beginning of a seed.
        for seed in &seeds()[name] {
            let step = seed.len().div_ceil(64).max(1);
            (0..seed.len()).step_by(step).for_each(|end| target(&seed[..end]));
        }
    }
    assert!(TARGETS.len() <= inputs, "{inputs} inputs");
    report(&format!(
        "{} fuzz targets: {inputs} inputs, {kept} of them once broke one",
        TARGETS.len()
    ));
}

//! What is fuzzed: one function for each reader of bytes that somebody else wrote.
//!
//! A fuzzer calls them with whatever it finds interesting, a test with every seed and every input that
//! ever broke one. Each panics if what must hold does not.
//!
//! The programs are in `fuzz/`, and `fuzz/run` builds and runs them.
#![expect(clippy::missing_panics_doc, reason = "each panics where what must hold does not")]

use std::io::Cursor;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::time::Instant;

use catchword_model::change::chunk_of;
use catchword_model::change::read::read;
use catchword_model::edit::Edit;
use catchword_model::exchange::Piece;
use catchword_model::id::{DocumentId, Generation};
use catchword_model::identity::Fingerprint;
use catchword_model::meta::DeviceName;
use catchword_proto::blob::{self, Range};
use catchword_proto::cloud::api::{Books, Ingest, Ingested, Page, Problem, SignIn, SignedIn};
use catchword_proto::cloud::codec::Format;
use catchword_proto::discovery::Announcement;
use catchword_proto::pairing::host::{self, Approval, ConnectionId, Exporters, KeyOnly, Window};
use catchword_proto::pairing::{
    Exporter, Host, Introduction, PairingId, PairingKey, QrCode, QrSecret, RunRandom, Spake2,
};
use catchword_proto::request::{Channel, Guard, Standing};
use catchword_proto::secret::PairSecret;
use catchword_proto::session::message::{
    ChangesRequest, ChangesResponse, RangesRequest, Sync, VectorsRequest, VectorsResponse,
    decode_ranges, encode_ranges,
};
use catchword_proto::session::responder::{Input, Responder};
use catchword_proto::session::{Answer, Event, Path};
use catchword_proto::trust::PeerRecord;
use catchword_proto::wire::{PAIRING_FRAME_BYTES_MAX, PairingFrames};
use catchword_store::{Backends, Delivery, Options, Origin, Peer, Repair, Scope, Store};
use redb::backends::InMemoryBackend;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::action::{Action, DiskName};
use crate::device::Device;
use crate::memory::{Seen, book_id};
use crate::oracle::Ledger;

/// Tries bytes on one reader.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 15] = [
    ("frame", frame),
    ("session_bytes", session_bytes),
    ("pairing_bytes", pairing_bytes),
    ("qr_text", qr_text),
    ("change_reader", change_reader),
    ("piece", piece),
    ("request_header", request_header),
    ("discovery_txt", discovery_txt),
    ("cloud_json", cloud_json),
    ("cloud_cbor", cloud_cbor),
    ("peer_record", peer_record),
    ("file_part", file_part),
    ("import_book", import_book),
    ("store_open", store_open),
    ("world_actions", world_actions),
];

const NOW_MS: u64 = 1_780_000_000_000;
/// Bytes that are changed in one damaged library.
const DAMAGES_MAX: usize = 16;
/// Bytes of the header of a redb file that say something.
const HEADER_BYTES: usize = 320;
const ACTIONS_MAX: usize = 40;
const HOST: Fingerprint = Fingerprint([0xA0; 32]);
const JOINER: Fingerprint = Fingerprint([0xB0; 32]);

/// Frames of a pairing, however they arrive: the content never exceeds its limit.
pub fn frame(bytes: &[u8]) {
    let mut frames = PairingFrames::default();
    let step = usize::from(bytes.first().copied().unwrap_or(1)).max(1);
    for chunk in bytes.chunks(step) {
        match frames.push(chunk) {
            Ok(Some(content)) => assert!(content.len() <= PAIRING_FRAME_BYTES_MAX),
            Ok(None) => (),
            Err(_) => return,
        }
    }
}

/// Bodies of a session: what reads, written again, has the same bytes; and whatever a responder is
/// asked, it answers once.
pub fn session_bytes(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    if let Ok(sync) = Sync::decode(body) {
        assert_eq!(sync.encode(), body);
    }
    if let Ok(request) = RangesRequest::decode(body) {
        assert_eq!(request.encode(), body);
    }
    if let Ok((header, Some(answers))) = decode_ranges(body) {
        assert_eq!(encode_ranges(header, &answers), body);
    }
    if let Ok(request) = VectorsRequest::decode(body) {
        assert_eq!(request.encode(), body);
    }
    if let Ok((header, Some(response))) = VectorsResponse::decode(body) {
        assert_eq!(response.encode(header), body);
    }
    if let Ok(request) = ChangesRequest::decode(body) {
        assert_eq!(request.encode(), body);
    }
    if let Ok((header, Some(response))) = ChangesResponse::decode(body) {
        assert_eq!(response.encode(header), body);
    }
    let path = Path::ALL.get(usize::from(*first) % Path::ALL.len()).copied();
    let path = path.unwrap_or(Path::Sync);
    let (now, mut machine) = (Instant::now(), Responder::new());
    machine.handle_input(Input::Request { path, body: body.to_vec() }, now);
    let mut responses = 0;
    for _ in 0..64 {
        match machine.poll_event() {
            Some(Event::Ask { .. }) => {
                machine.handle_input(Input::Answer(Answer::Failed), now);
            }
            Some(_) => (),
            None => break,
        }
        responses += u32::from(machine.poll_transmit().is_some());
    }
    responses += u32::from(machine.poll_transmit().is_some());
    assert_eq!(responses, 1, "a request has one response");
}

/// Bytes from whoever connects to a window: nobody is kept, and what is sent stays small.
pub fn pairing_bytes(bytes: &[u8]) {
    let window = Window {
        id: PairingId([1; 8]),
        key: PairingKey::parse("123456").expect("six digits"),
        secret: QrSecret::new([2; 16]),
        host: HOST,
        introduction: Introduction::new("host", "linux", "0.1.0"),
        key_only: KeyOnly::Accepted,
        approval: Approval::Given,
    };
    let (now, connection) = (Instant::now(), ConnectionId(1));
    let mut machine: Host<Spake2> = Host::open(window, now);
    let exporter = || Exporter::new([3; 32]);
    machine.handle_input(
        host::Input::Connected {
            connection,
            source: IpAddr::from([192, 168, 0, 9]),
            joiner: JOINER,
            exporters: Exporters { named: exporter(), unnamed: exporter() },
            random: RunRandom::new([4; RunRandom::BYTES]),
        },
        now,
    );
    let step = usize::from(bytes.first().copied().unwrap_or(1)).max(1);
    for chunk in bytes.chunks(step) {
        machine.handle_input(host::Input::Received { connection, bytes: chunk.to_vec() }, now);
        while let Some(event) = machine.poll_event() {
            assert!(!matches!(event, host::Event::Keep(_) | host::Event::Promote { .. }));
        }
        while let Some(transmit) = machine.poll_transmit() {
            if let host::Transmit::Send { bytes, .. } = transmit {
                assert!(bytes.len() <= 2 + PAIRING_FRAME_BYTES_MAX);
            }
        }
    }
}

/// The text of a QR code: what reads, written again, is the same text.
pub fn qr_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(code) = QrCode::decode(text) {
        let again = QrCode::decode(&code.encode()).expect("what we write, we read");
        assert_eq!(code.encode(), again.encode());
    }
}

/// The content of a change: what the reader takes, automerge takes, with the same hash and as many
/// operations.
pub fn change_reader(bytes: &[u8]) {
    let chunk = chunk_of(bytes);
    let Ok(change) = read(&chunk) else { return };
    let theirs = automerge::Change::from_bytes(chunk).expect("automerge reads what we take");
    assert_eq!(theirs.hash().0, change.hash().0);
    assert_eq!(theirs.seq(), change.draft().seq);
    assert_eq!(theirs.len(), change.draft().ops.len());
    assert_eq!(theirs.max_op(), change.max_op());
}

/// A piece from a peer: what reads, written again, reads the same; and a store that is given it stays
/// whole.
pub fn piece(bytes: &[u8]) {
    if let Ok(piece) = Piece::decode(bytes) {
        assert_eq!(Piece::decode(&piece.encode()), Ok(piece));
    }
    let store = empty_store();
    let origin = Origin { peer: JOINER, generation: Generation([7; 16]) };
    let mac = |id: DocumentId| *id.0.first_chunk().unwrap_or(&[0; 8]);
    let peer = Peer { origin, scope: &Scope::All, mac: &mac, now_ms: NOW_MS };
    let before = store.local(&peer).expect("it reads").fingerprint;
    let applied = store.apply(&peer, Delivery { piece: bytes, bounds: None, said: None });
    let added = applied.is_ok_and(|applied| 0 < applied.changes_added + applied.events_added);
    if !added {
        let after = store.local(&peer).expect("it reads").fingerprint;
        assert_eq!(after, before, "what is refused changes nothing");
    }
}

fn options() -> Options {
    let device = DeviceName { name: "fuzz".to_owned(), ..DeviceName::default() };
    Options { public_key_spki: vec![1; 44], device, now_ms: NOW_MS }
}

fn empty_store() -> Store {
    let backends = Backends { wal: InMemoryBackend::new(), library: InMemoryBackend::new() };
    Store::open_on(backends, &options()).expect("memory takes a library")
}

/// A library whose files were damaged: each six bytes change one byte of one file. It is opened, read,
/// checked and written, or refused; what is read is what was written.
pub fn store_open(bytes: &[u8]) {
    let Some(lived) = lived() else { return };
    let damaged = lived.copy_closed(1);
    let mut header_is_whole = true;
    for damage in bytes.chunks_exact(6).take(DAMAGES_MAX) {
        let [file, a, b, c, d, bits] = damage else { continue };
        let name = if file % 4 == 0 { DiskName::Wal } else { DiskName::Library };
        let length = damaged.disk(name).flushed().len().max(1);
        let offset = u32::from_be_bytes([*a, *b, *c, *d]) as usize % length;
        header_is_whole &= HEADER_BYTES <= offset;
        for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
            damaged.disk(name).flip_bit(offset, bit);
        }
    }
    let disk = |name| damaged.disk(name).reopen();
    let backends = Backends { wal: disk(DiskName::Wal), library: disk(DiskName::Library) };
    let Ok(store) = Store::open_on(backends, &options()) else { return };
    // Whoever changes several bytes of a header by design can name the commit before.
    if let (true, Ok(found)) = (header_is_whole, Seen::read(&store, lived.acknowledged())) {
        assert_eq!(&found, lived.acknowledged(), "something else is read");
    }
    let checked = store.check(Repair::ReportOnly, &mut |_| ControlFlow::Continue(()));
    if let (true, Ok(checked)) = (header_is_whole, checked) {
        assert!(checked.is_clean(), "{checked:?}");
    }
    let tag = Edit::AddTag { tag: "after".to_owned() };
    drop(store.append(book_id(0).document(), &[tag], NOW_MS));
    drop(store.check(Repair::Rebuild, &mut |_| ControlFlow::Continue(())));
    drop(store.close());
}

/// A device that has lived, made once.
fn lived() -> Option<&'static Device> {
    static LIVED: OnceLock<Option<Device>> = OnceLock::new();
    let live = || {
        let mut device = Device::new(1, 1).ok()?;
        let mut actions = vec![Action::Import { book: 0 }, Action::Import { book: 1 }];
        actions.extend((0..2).map(|book| Action::AnnotateMany { book, count: 80 }));
        actions.push(Action::Journal { book: 0, word: 1 });
        actions.push(Action::Compact);
        actions.extend((0..2).map(|book| Action::AnnotateMany { book, count: 20 }));
        actions.push(Action::Turn { book: 0, ppm: 200_000, seconds: 9 });
        actions.push(Action::Reopen);
        actions.push(Action::Tag { book: 1, word: 2 });
        actions.iter().try_for_each(|action| device.perform(action, &[])).ok()?;
        Some(device)
    };
    LIVED.get_or_init(live).as_ref()
}

/// Two devices that do what the bytes say, two for each action, with kills, power cuts and full disks: nothing that was
/// acknowledged is lost, and nothing is invented.
pub fn world_actions(bytes: &[u8]) {
    let Ok(mut one) = Device::new(1, 1) else { return };
    let Ok(mut other) = Device::new(2, 2) else { return };
    let numbers = bytes.as_chunks::<2>().0.iter().map(|number| u16::from_be_bytes(*number));
    let actions = numbers.filter_map(Action::numbered).take(ACTIONS_MAX);
    for (step, action) in actions.enumerate() {
        let (who, from) = if step % 3 < 2 { (&mut one, &other) } else { (&mut other, &one) };
        // Its own disk may refuse what it would send.
        let others = from.changes().unwrap_or_default();
        who.perform(&action, &others).unwrap_or_else(|broken| panic!("{broken:?}"));
    }
    let mut ledger = Ledger::default();
    for device in [&mut one, &mut other] {
        device.mend();
        let checked = device.perform(&Action::Kill, &[]).and_then(|()| device.check(&mut ledger));
        checked.unwrap_or_else(|broken| panic!("{broken:?}"));
    }
}

/// A request that nobody signed: it is refused.
pub fn request_header(bytes: &[u8]) {
    let channel = Channel::new(&PairSecret::new([5; 32]), HOST, JOINER, [6; 32]);
    let now = Instant::now();
    let mut guard = Guard::new(now);
    assert!(guard.admit(&channel, Standing::Trusted, bytes, NOW_MS, now).is_err());
    assert!(channel.open_response(&[7; 16], bytes).is_err());
}

/// An announcement: entries of one byte of length, `key=value`, as they stand in a TXT record.
pub fn discovery_txt(bytes: &[u8]) {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some((length, tail)) = rest.split_first() {
        let (entry, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let mut parts = entry.splitn(2, |byte| *byte == b'=');
        let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
        entries.extend(std::str::from_utf8(key).ok().map(|key| (key, value)));
    }
    let read = Announcement::read("0123456789abcdef", 4_433, entries);
    if let Ok(announcement) = read {
        let txt = announcement.txt();
        let entries = txt.iter().map(|(key, value)| (*key, value.as_slice()));
        let again = Announcement::read("0123456789abcdef", 4_433, entries);
        assert_eq!(again.as_ref(), Ok(&announcement));
    }
}

/// Bodies of the account's calls as JSON: what reads, written again, reads the same.
pub fn cloud_json(bytes: &[u8]) {
    cloud(Format::Json, bytes);
}

/// The same as CBOR.
pub fn cloud_cbor(bytes: &[u8]) {
    cloud(Format::Cbor, bytes);
}

fn cloud(format: Format, bytes: &[u8]) {
    again::<Ingest>(format, bytes);
    again::<Ingested>(format, bytes);
    again::<Page>(format, bytes);
    again::<Problem>(format, bytes);
    again::<Books>(format, bytes);
    again::<SignedIn>(format, bytes);
    drop(format.decode::<SignIn>(bytes));
}

fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    format: Format,
    bytes: &[u8],
) {
    if let Ok(read) = format.decode::<T>(bytes) {
        let written = format.encode(&read).expect("what we read, we write");
        let again = format.decode::<T>(&written).expect("what we write, we read");
        assert_eq!(again, read);
    }
}

/// The row of a peer: what reads, written again, has the same meaning.
pub fn peer_record(bytes: &[u8]) {
    if let Ok(record) = PeerRecord::decode(JOINER, bytes) {
        assert_eq!(PeerRecord::decode(JOINER, &record.encode()), Ok(record));
    }
}

/// Parts of book files: a range stays within its limit, and a part has the bytes that were asked for.
pub fn file_part(bytes: &[u8]) {
    if let Ok(range) = Range::decode(bytes) {
        assert_eq!(range.encode(), bytes);
    }
    let Some((head, body)) = bytes.split_first_chunk::<12>() else { return };
    let Ok(range) = Range::decode(head) else { return };
    if let Ok((size, part)) = blob::decode_part(range, body) {
        assert_eq!(part.len(), range.within(size));
        assert_eq!(blob::encode_part(size, part), body);
    }
}

/// A book file: it is read or refused.
pub fn import_book(bytes: &[u8]) {
    drop(catchword_formats::read(Cursor::new(bytes)));
}

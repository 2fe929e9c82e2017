//! T-MAL-1 to T-MAL-4: bytes that were made to crash, hang or swell whoever reads them.
//!
//! Goal: no process dies, no memory swells, nothing that is refused changes anything, and what is
//! admitted loads again.
//!
//! Method: everything runs in a child process, which says at its end how often what happened and how
//! much memory it took at most. `CATCHWORD_HOSTILE` names a folder of inputs beside the fixtures, and
//! `CATCHWORD_MUTATIONS` says how many changes are mutated.

use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use automerge::AutoCommit;
use catchword_model::change::{Change, chunk_of};
use catchword_model::exchange::{DocumentName, Parcel, Piece};
use catchword_model::id::{BookId, DocumentId, Generation};
use catchword_model::identity::Fingerprint;
use catchword_model::meta::DeviceName;
use catchword_sim::device::START_MS;
use catchword_store::{Backends, Delivery, Options, Origin, Peer, Received, Repair, Scope, Store};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::backends::InMemoryBackend;

use crate::{report, size};

/// What a process may take at most.
const MEMORY_MIB_MAX: u64 = 256;
/// After which admission is given up.
const DEADLINE: Duration = Duration::from_secs(10);
const MUTATIONS: u64 = 1_000;
const CHILD: &str = "CATCHWORD_HOSTILE_CHILD";
/// How every chunk of Automerge begins.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Places in one input at which a chunk may begin.
const CHUNKS_MAX: usize = 32;
const BOOK: BookId = BookId([7; 32]);

static PANICS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default)]
struct Figures {
    inputs: u64,
    tried: u64,
    admitted: u64,
    rejected: u64,
    changed_by_rejected: u64,
    not_loading: u64,
    escaped: u64,
    longest: Duration,
}

fn store(key: u8) -> Store {
    let device = DeviceName { name: "phone".to_owned(), ..DeviceName::default() };
    let options = Options { public_key_spki: vec![key; 44], device, now_ms: START_MS };
    let backends = Backends { wal: InMemoryBackend::new(), library: InMemoryBackend::new() };
    Store::open_on(backends, &options).unwrap()
}

/// A book with a journal and application data.
fn written() -> Store {
    let store = store(1);
    store.add_book(BOOK, Vec::new(), Vec::new(), START_MS).unwrap();
    for (n, text) in ["It rained.", "It rained again.", "The sun."].into_iter().enumerate() {
        store.set_journal(BOOK, text, START_MS + n as u64).unwrap();
    }
    store.drain().unwrap();
    store
}

fn changes(store: &Store, document: DocumentId) -> Vec<Change> {
    let mut changes = Vec::new();
    store.changes(document, |change| changes.push(change)).unwrap();
    changes
}

fn documents() -> [DocumentId; 3] {
    [BOOK.document(), BOOK.notes_document(), DocumentId::library()]
}

/// What a rejected input must leave as it is.
fn state(store: &Store) -> (Vec<Option<Vec<catchword_model::id::ChangeHash>>>, String) {
    let heads = documents().map(|id| store.heads(id).unwrap()).to_vec();
    (heads, store.journal(BOOK).unwrap())
}

/// Gives bytes to every door that bytes of others come through; returns whether anything was admitted.
/// Each time another peer brings them: one that brought such bytes is not heard again for an hour.
fn offer(store: &Store, bytes: &[u8], peer: u64) -> bool {
    let mut admitted = false;
    for document in documents() {
        let received = Received { document, bytes: bytes.to_vec() };
        admitted |= 0 < store.receive(&[received]).unwrap().added;
    }
    let mut fingerprint = [9; 32];
    fingerprint[..8].copy_from_slice(&peer.to_be_bytes());
    let origin = Origin { peer: Fingerprint(fingerprint), generation: Generation([7; 16]) };
    let mac = |id: DocumentId| *id.0.first_chunk().unwrap();
    let peer = Peer { origin, scope: &Scope::All, mac: &mac, now_ms: START_MS };
    let wrapped = [DocumentName::Book(BOOK), DocumentName::Notes(BOOK)].map(|name| {
        let runs = [0_u8, 1].map(|tag| [&[tag], bytes].concat()).to_vec();
        Piece { parcels: vec![Parcel { runs, ..Parcel::new(name) }] }.encode()
    });
    for piece in wrapped.iter().map(Vec::as_slice).chain([bytes]) {
        let applied = store.apply(&peer, Delivery { piece, bounds: None, said: None });
        admitted |= applied.is_ok_and(|applied| 0 < applied.changes_added + applied.events_added);
    }
    admitted
}

impl Figures {
    /// Offers one input, and looks at everything afterwards. Returns whether it was admitted.
    fn offer(&mut self, store: &Store, bytes: &[u8]) -> bool {
        let before = state(store);
        let begun = Instant::now();
        let offered = catch_unwind(AssertUnwindSafe(|| offer(store, bytes, self.tried)));
        self.longest = self.longest.max(begun.elapsed());
        self.tried += 1;
        self.escaped += u64::from(offered.is_err());
        let admitted = offered.unwrap_or(false);
        *if admitted { &mut self.admitted } else { &mut self.rejected } += 1;
        self.changed_by_rejected += u64::from(!admitted && state(store) != before);
        self.not_loading += u64::from(admitted && !loads(store));
        admitted
    }

    fn print(&self, name: &str) {
        report(&format!(
            "{name}: {} inputs tried {} times, admitted {}, rejected {}, panics contained {}, \
             panics escaped {}, store changed by a rejected input {}, admitted that do not load {}, \
             longest {:?}, peak {} MiB",
            self.inputs,
            self.tried,
            self.admitted,
            self.rejected,
            PANICS.load(Ordering::Relaxed) - self.escaped,
            self.escaped,
            self.changed_by_rejected,
            self.not_loading,
            self.longest,
            peak_mib(),
        ));
        assert_eq!((self.escaped, self.changed_by_rejected, self.not_loading), (0, 0, 0));
        assert!(self.longest < DEADLINE, "{:?}", self.longest);
        assert!(peak_mib() < MEMORY_MIB_MAX, "{} MiB", peak_mib());
    }
}

/// T-MAL-3: whether Automerge loads every document, with the heads the store says.
fn loads(store: &Store) -> bool {
    documents().into_iter().all(|id| {
        let Some(mut heads) = store.heads(id).unwrap() else { return true };
        let Ok(saved) = store.save_document(id) else { return false };
        let Ok(mut loaded) = AutoCommit::load(&saved) else { return false };
        let mut found: Vec<_> = loaded.get_heads().into_iter().map(|hash| hash.0).collect();
        found.sort_unstable();
        heads.sort();
        found == heads.iter().map(|hash| hash.0).collect::<Vec<_>>()
    })
}

/// The most memory this process has had, in MiB; 0 where the system does not say.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1_024
}

fn inputs() -> Vec<(String, Vec<u8>)> {
    let named = std::env::var_os("CATCHWORD_HOSTILE").map(PathBuf::from);
    let fixtures = std::env::var_os("CATCHWORD_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let mut inputs = Vec::new();
    for folder in [Some(fixtures.join("hostile")), named].into_iter().flatten() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_file() {
                inputs.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    inputs.sort();
    inputs
}

/// Runs a test of this file in a process of its own, which must live to its end.
fn in_child(test: &str) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", &format!("hostile::{test}"), "--nocapture", "--test-threads", "1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.starts_with("T-MAL")).for_each(report);
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(said.contains("T-MAL"), "the child did nothing: {said}");
}

/// Whether this is the child; panics are counted there and not printed.
fn is_child() -> bool {
    let child = std::env::var_os(CHILD).is_some();
    if child {
        std::panic::set_hook(Box::new(|panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            // What a test of this file asserts is for the parent to see.
            if panic.location().is_some_and(|at| at.file().ends_with("hostile.rs")) {
                report(&panic.to_string());
            }
        }));
    }
    child
}

#[test]
fn t_mal_1_the_hostile_corpus_kills_nobody_and_changes_nothing() {
    if inputs().is_empty() {
        let required = std::env::var_os("CATCHWORD_REQUIRE_FIXTURES").is_some();
        assert!(!required, "there are no hostile inputs");
        return report("left out: there are no hostile inputs");
    }
    if !is_child() {
        return in_child("t_mal_1_the_hostile_corpus_kills_nobody_and_changes_nothing");
    }
    let store = written();
    let mut figures = Figures::default();
    for (_, bytes) in inputs() {
        figures.inputs += 1;
        figures.offer(&store, &bytes);
        // Many are changes behind something else.
        let starts = (1..bytes.len()).filter(|at| bytes[*at..].starts_with(&MAGIC));
        for at in starts.take(CHUNKS_MAX).collect::<Vec<_>>() {
            figures.offer(&store, &bytes[at..]);
        }
    }
    assert!(
        store.check(Repair::ReportOnly, &mut |_| ControlFlow::Continue(())).unwrap().is_clean()
    );
    figures.print("T-MAL-1 hostile_corpus");
}

/// The next change of each document is mutated and sealed again, and offered to a store that has all
/// before it: the judge and the copy path see it.
#[test]
fn t_mal_2_and_3_mutated_changes_of_a_hostile_corpus_load_or_change_nothing() {
    if !is_child() {
        return in_child(
            "t_mal_2_and_3_mutated_changes_of_a_hostile_corpus_load_or_change_nothing",
        );
    }
    let written = written();
    let mut figures = Figures::default();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let bases = [BOOK.notes_document(), BOOK.document()].map(|id| (id, changes(&written, id)));
    let mut victim = None;
    for n in 0..size("CATCHWORD_MUTATIONS", MUTATIONS) {
        let (document, base) = &bases[usize::from(n % 4 == 3)];
        let next = random.random_range(1..base.len().max(2)).min(base.len() - 1);
        let fresh = victim.take().filter(|(of, upto, _)| (*of, *upto) == (*document, next));
        let (_, _, store) =
            fresh.unwrap_or_else(|| (*document, next, upto(*document, &base[..next])));
        let mut body = base[next].body().to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..body.len());
            match random.random_range(0..3) {
                0 => body[at] ^= 1 << random.random_range(0..8),
                1 => body[at] = random.random(),
                _ => drop(body.remove(at)),
            }
        }
        figures.inputs += 1;
        if !figures.offer(&store, &chunk_of(&body)) {
            victim = Some((*document, next, store));
        }
    }
    figures.print("T-MAL-2 and T-MAL-3 hostile_corpus");
}

/// A store that has these changes of a document.
fn upto(document: DocumentId, changes: &[Change]) -> Store {
    let store = store(2);
    store.expect_book(BOOK).unwrap();
    let received: Vec<_> = changes
        .iter()
        .map(|change| Received { document, bytes: change.bytes().to_vec() })
        .collect();
    store.receive(&received).unwrap();
    store
}

/// Other tests of T-MAL-4 stand beside the exchange: equivocation and orphans.
#[test]
fn t_mal_4_a_bomb_of_a_hostile_corpus_is_not_unpacked() {
    if !is_child() {
        return in_child("t_mal_4_a_bomb_of_a_hostile_corpus_is_not_unpacked");
    }
    let store = written();
    let mut figures = Figures { inputs: 2, ..Figures::default() };
    for content_bytes in [512 << 20, 5 << 20] {
        let bomb = deflated(content_bytes);
        assert!(bomb.len() < content_bytes / 500, "{} bytes", bomb.len());
        assert!(!figures.offer(&store, &bomb));
    }
    figures.print("T-MAL-4 hostile_corpus, bombs of deflate");
    store.set_journal(BOOK, "The other documents go on.", START_MS + 9).unwrap();
}

/// A chunk that says to be a deflated change, of so many zeros.
fn deflated(content_bytes: usize) -> Vec<u8> {
    use std::io::Write as _;

    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    (0..content_bytes >> 20).for_each(|_| encoder.write_all(&zeros).unwrap());
    let deflated = encoder.finish().unwrap();
    let mut out = [&MAGIC[..], &[1, 2, 3, 4], &[2]].concat();
    let mut length = deflated.len();
    while 0x7F < length {
        out.push(u8::try_from(length & 0x7F).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(deflated);
    out
}

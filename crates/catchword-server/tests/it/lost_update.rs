//! T-SRV-2: clients push, things die, and nothing acknowledged is lost or double.
//!
//! `CATCHWORD_PUSHES`, `CATCHWORD_KILLS` and `CATCHWORD_CLIENTS` say how many: 100000, 20 and 64 are the
//! full size.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use catchword_model::change::read::read;
use catchword_model::exchange::DocumentName;
use catchword_proto::cloud::api::{FeedRecord, Ingested, Page, ProblemKind, Record};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::cluster::Cluster;
use crate::conformance::receipt;
use crate::devices::{Device, doc};
use crate::server::{Client, Reply};

const BOOKS: u8 = 8;

fn size(name: &str, small: u32) -> u32 {
    std::env::var(name).map_or(small, |text| text.parse().unwrap())
}

/// The binary, as people run it.
struct Process {
    child: Child,
    at: SocketAddr,
}

impl Process {
    fn start(arguments: &[&str], listen: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_catchword-server"));
        command.args(arguments).args(["--listen", listen]).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let at = lines.by_ref().map(Result::unwrap).find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                line["fields"]["security"].is_string(),
                line["fields"]["message"] == "serving"
            );
            line["fields"]["listening"].as_str().map(|at| at.parse().unwrap())
        });
        // Nobody may be kept waiting by a log that is not read.
        std::thread::spawn(move || lines.count());
        Self { child, at: at.unwrap() }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as a service manager does.
    fn end(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Tries of one push. With the pauses between them, some minutes.
const TRIES_MAX: u32 = 5_000;

/// What clients did, and what they found.
#[derive(Default)]
struct Tally {
    pushes: AtomicU32,
    retries: AtomicU32,
    gave_up: AtomicU32,
}

/// A client that pushes until each is answered. In one of twenty it goes away before the answer.
fn push_all(client: &Client, number: u8, pushes: u32, tally: &Tally) -> Vec<Answered> {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(number));
    let mut device = Device::new(number + 1);
    let mut known: BTreeMap<u8, BTreeSet<[u8; 32]>> = BTreeMap::new();
    let mut answered = Vec::new();
    for n in 0..pushes {
        let of = rng.random_range(0..BOOKS);
        let change = device.annotate(doc(of), &n.to_string());
        let known = known.entry(of).or_default();
        let entry = device.entry(doc(of), known, 0);
        let give_up = rng.random_bool(0.05);
        if give_up {
            tally.gave_up.fetch_add(1, Ordering::Relaxed);
            let (client, entry) = (client.clone(), entry.clone());
            let _unanswered = std::thread::spawn(move || client.try_push(&[entry]));
        }
        let mut tries = 0;
        let version = loop {
            tries += 1;
            assert!(tries < TRIES_MAX, "the server does not come back");
            match client.try_push(std::slice::from_ref(&entry)) {
                Ok(reply) if reply.status == 200 => {
                    let ingested: Ingested = reply.json();
                    break receipt(&ingested.answers[0].outcome).version;
                }
                Ok(reply) => assert!(may_retry(&reply), "{reply:?}"),
                Err(_) => (),
            }
            tally.retries.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(rng.random_range(5..50)));
        };
        tally.pushes.fetch_add(1, Ordering::Relaxed);
        known.insert(change.hash().0);
        answered.push((change.hash().0, of, version));
    }
    answered
}

fn may_retry(reply: &Reply) -> bool {
    matches!(reply.problem(), ProblemKind::Busy | ProblemKind::SlowDown)
}

/// Clients that share an account: its calls are limited.
const SHARING: u8 = 8;

/// What a client was answered: the hash of its change, its book, and the version.
type Answered = ([u8; 32], u8, u64);

/// Runs the clients, and kills again and again until they are done.
fn run(name: &str, at: SocketAddr, mut kill: impl FnMut()) {
    let clients = u8::try_from(size("CATCHWORD_CLIENTS", 8)).unwrap();
    let (pushes, kills) = (size("CATCHWORD_PUSHES", 240), size("CATCHWORD_KILLS", 3));
    let accounts: Vec<Client> = (0..clients.div_ceil(SHARING))
        .map(|number| Client::sign_up(at, &format!("account {number}")))
        .collect();
    let tally = Tally::default();
    let answered: Vec<Vec<Answered>> = std::thread::scope(|scope| {
        let (accounts, tally) = (&accounts, &tally);
        let each = pushes.div_ceil(u32::from(clients));
        let start = |number: u8| {
            let client = &accounts[usize::from(number / SHARING)];
            scope.spawn(move || push_all(client, number, each, tally))
        };
        let running: Vec<_> = (0..clients).map(start).collect();
        for killed in 0..kills {
            let due = pushes / (kills + 2) * (killed + 1);
            while tally.pushes.load(Ordering::Relaxed) < due {
                std::thread::sleep(Duration::from_millis(2));
            }
            kill();
        }
        running.into_iter().map(|client| client.join().unwrap()).collect()
    });

    let mut found = Found::default();
    for (client, answered) in accounts.iter().zip(answered.chunks(usize::from(SHARING))) {
        found.count(&whole_feed(client), &answered.concat());
    }
    eprintln!(
        "T-SRV-2 on {name}: {clients} clients, {} acknowledged, {} tried again, {} given up, {kills} \
         kills: {found:?}",
        tally.pushes.load(Ordering::Relaxed),
        tally.retries.load(Ordering::Relaxed),
        tally.gave_up.load(Ordering::Relaxed),
    );
    let records = tally.pushes.load(Ordering::Relaxed) as usize;
    assert_eq!(found, Found { records, ..Found::default() });
}

/// What is wrong with what is there.
#[derive(Debug, Default, PartialEq)]
struct Found {
    records: usize,
    lost: usize,
    double: usize,
    gaps: usize,
    other_versions: usize,
}

impl Found {
    fn count(&mut self, feed: &[FeedRecord], answered: &[Answered]) {
        let mut places: BTreeMap<[u8; 32], Vec<(DocumentName, u64)>> = BTreeMap::new();
        let mut versions: BTreeMap<DocumentName, Vec<u64>> = BTreeMap::new();
        for (index, record) in feed.iter().enumerate() {
            self.gaps += usize::from(record.number != index as u64 + 1);
            versions.entry(record.document).or_default().push(record.version);
            let Record::Change { bytes, .. } = &record.record else { panic!("{record:?}") };
            let change = read(&bytes.0).unwrap();
            let place = (record.document, record.version);
            places.entry(change.hash().0).or_default().push(place);
        }
        self.records += feed.len();
        self.double += places.values().filter(|of| 1 < of.len()).count();
        self.gaps +=
            versions.values().filter(|of| !of.iter().copied().eq(1..=of.len() as u64)).count();
        for (hash, of, version) in answered {
            match places.get(hash).and_then(|places| places.first()) {
                None => self.lost += 1,
                // Answered again, a change may be told a later version, never an earlier one.
                Some((document, at)) => {
                    self.other_versions += usize::from(*document != doc(*of) || version < at);
                }
            }
        }
    }
}

fn whole_feed(client: &Client) -> Vec<FeedRecord> {
    let (mut feed, mut cursor) = (Vec::new(), 0);
    loop {
        let reply = client.get(&format!("/v1/changes?after={cursor}"));
        if reply.status != 200 {
            assert!(may_retry(&reply));
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let page: Page = reply.json();
        cursor = page.cursor;
        feed.extend(page.records);
        if page.cursor == page.end {
            return feed;
        }
    }
}

#[test]
fn nothing_is_lost_or_double_when_the_server_is_killed_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = path_text(&data);
    let first = Process::start(&["--data", data], "127.0.0.1:0");
    let at = first.at;
    let mut running = Some(first);
    run("redb", at, || {
        running.take().unwrap().kill();
        running = Some(Process::start(&["--data", data], &at.to_string()));
    });
    running.unwrap().end();
}

#[test]
fn nothing_is_lost_or_double_when_the_database_is_killed() {
    let Some(mut cluster) = Cluster::start() else { return };
    let url = cluster.database("cloud");
    let server = Process::start(&["--database-url", &url], "127.0.0.1:0");
    run("PostgreSQL", server.at, || {
        cluster.kill();
        cluster.run();
    });
    server.end();
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

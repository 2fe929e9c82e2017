//! Random search over the replicator: devices, one server, lost replies, kills, and a store that fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use catchword_model::exchange::DocumentName;
use catchword_proto::cloud::api::{
    Entry, EntryAnswer, EntryKey, FeedRecord, Ingest, Ingested, Outcome, Page, ProblemKind,
    Receipt, Record,
};
use catchword_proto::cloud::backoff::WAIT_MAX;
use catchword_proto::cloud::codec::Blob;
use catchword_proto::cloud::replicator::{
    Answer, Call, Event, Input, POLL, Question, Replicator, Reply,
};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{any_instant, report};

/// Records of a page, and entries of a batch: few, so that there are many.
const PAGE: usize = 3;
const BATCH: usize = 2;

/// A thing that a device made.
type Item = u64;

/// What survives a kill.
#[derive(Default)]
struct Store {
    items: BTreeSet<Item>,
    /// What the server has, as far as it said so.
    known: BTreeSet<Item>,
    cursor: u64,
}

struct Device {
    store: Store,
    machine: Replicator,
    /// What was called and not replied to.
    called: Option<Call>,
    asked: Option<Question>,
    /// The end of the feed when it was read first after the start.
    gate: Option<u64>,
    in_step: bool,
}

#[derive(Default)]
struct Server {
    feed: Vec<Item>,
    pushes: u64,
}

impl Server {
    fn page(&self, after: u64) -> Page {
        let number = |at: usize| u64::try_from(at).unwrap();
        let from = usize::try_from(after).unwrap().min(self.feed.len());
        let items = self.feed[from..].iter().take(PAGE).enumerate();
        let records: Vec<FeedRecord> = items
            .map(|(at, item)| FeedRecord {
                number: number(from + at + 1),
                document: DocumentName::Library,
                version: 0,
                statement: None,
                record: Record::Event { bytes: Blob(item.to_be_bytes().to_vec()) },
            })
            .collect();
        let cursor = records.last().map_or(after, |record| record.number);
        Page { records, cursor, end: number(self.feed.len()) }
    }

    /// Takes what is new, once, however often it comes.
    fn ingest(&mut self, ingest: &Ingest) -> Ingested {
        self.pushes += 1;
        let answer = |entry: &Entry| {
            let receipt = Receipt { version: 0, verdicts: Vec::new(), place: None };
            EntryAnswer { key: entry.key, outcome: Outcome::Accepted(receipt) }
        };
        let answers = ingest.entries.iter().map(answer).collect();
        for item in ingest.entries.iter().flat_map(|entry| &entry.events).map(item_of) {
            if !self.feed.contains(&item) {
                self.feed.push(item);
            }
        }
        Ingested { answers, cursor: u64::try_from(self.feed.len()).unwrap() }
    }
}

fn item_of(blob: &Blob) -> Item {
    Item::from_be_bytes(blob.0.as_slice().try_into().unwrap())
}

fn entry(item: Item) -> Entry {
    let mut entry = Entry {
        key: EntryKey([0; 32]),
        document: DocumentName::Library,
        base_version: 0,
        replay: false,
        statements: Vec::new(),
        changes: Vec::new(),
        events: vec![Blob(item.to_be_bytes().to_vec())],
    };
    entry.key = entry.key();
    entry
}

impl Device {
    fn new(now: Instant) -> Self {
        let mut device = Self {
            store: Store::default(),
            machine: Replicator::new(),
            called: None,
            asked: None,
            gate: None,
            in_step: false,
        };
        device.start(now);
        device
    }

    /// The process ends, and another begins.
    fn start(&mut self, now: Instant) {
        (self.machine, self.called, self.asked) = (Replicator::new(), None, None);
        (self.gate, self.in_step) = (None, false);
        self.input(Input::Start, now);
    }

    fn input(&mut self, input: Input, now: Instant) {
        self.in_step = false;
        self.machine.handle_input(input, now);
        self.look();
    }

    fn look(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Ask(question) => assert!(self.asked.replace(question).is_none()),
                Event::InStep => self.in_step = true,
                Event::Failed { .. } | Event::SignedOut => (),
            }
        }
        if let Some(call) = self.machine.poll_call() {
            assert!(self.called.replace(call).is_none(), "one call at a time");
        }
    }

    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Cursor => Answer::Cursor(self.store.cursor),
            Question::Apply(page) => {
                for record in &page.records {
                    let Record::Event { bytes } = &record.record else { panic!("an event") };
                    self.store.items.insert(item_of(bytes));
                    self.store.known.insert(item_of(bytes));
                }
                self.store.cursor = page.cursor;
                Answer::Applied
            }
            Question::Next => {
                let unsent = self.store.items.difference(&self.store.known).take(BATCH);
                Answer::Next(Ingest { entries: unsent.map(|item| entry(*item)).collect() })
            }
            Question::Settle { sent, .. } => {
                let items = sent.entries.iter().flat_map(|entry| &entry.events).map(item_of);
                self.store.known.extend(items);
                Answer::Settled { behind: false }
            }
        }
    }

    /// Lets the server carry out what was called.
    fn carry_out(&mut self, call: Call, server: &mut Server) -> Reply {
        match call {
            Call::Changes { after, .. } => {
                let page = server.page(after);
                self.gate.get_or_insert(page.end);
                Reply::Page(page)
            }
            Call::Ingest(ingest) => {
                let decided = self.gate.is_some_and(|gate| gate <= self.store.cursor);
                assert!(decided, "sent before the feed was decided");
                Reply::Ingested(server.ingest(&ingest))
            }
        }
    }
}

/// Something happens to a device.
fn step(
    device: &mut Device,
    server: &mut Server,
    rng: &mut ChaCha8Rng,
    now: Instant,
    next: &mut Item,
) {
    match rng.random_range(0..20) {
        0 => {
            *next += 1;
            device.store.items.insert(*next);
            device.input(Input::Changed, now);
        }
        1 => device.input(Input::Nudged, now),
        2 if rng.random_bool(0.3) => device.start(now),
        3 => {
            device.machine.handle_timeout(now);
            device.look();
        }
        _ => {
            if let Some(question) = device.asked.take() {
                let fails = rng.random_bool(0.05);
                let answer = if fails { Answer::Failed } else { device.answer(question) };
                device.input(Input::Answered(answer), now);
            } else if let Some(call) = device.called.take() {
                let reply = match rng.random_range(0..20) {
                    0 => Reply::Lost,
                    1 => {
                        // It was carried out, and nobody hears of it.
                        device.carry_out(call, server);
                        Reply::Lost
                    }
                    2 => Reply::Problem { kind: ProblemKind::Busy, retry_after: None },
                    _ => device.carry_out(call, server),
                };
                device.input(Input::Replied { reply, random: rng.next_u64() }, now);
            }
        }
    }
}

/// Lets everything come to rest without faults, and returns how many calls that took.
fn settle(devices: &mut [Device], server: &mut Server, mut now: Instant) -> u64 {
    let mut calls = 0;
    // A look each, for what the others sent meanwhile.
    for _ in 0..3 {
        now += POLL.max(WAIT_MAX);
        for device in &mut *devices {
            device.machine.handle_timeout(now);
            device.look();
            for _ in 0..1_000 {
                if let Some(question) = device.asked.take() {
                    let answer = device.answer(question);
                    device.input(Input::Answered(answer), now);
                } else if let Some(call) = device.called.take() {
                    calls += 1;
                    let reply = device.carry_out(call, server);
                    device.input(Input::Replied { reply, random: 0 }, now);
                } else {
                    break;
                }
            }
            assert!(device.in_step, "it stands still");
        }
    }
    calls
}

#[test]
fn everything_reaches_everybody_whatever_is_lost() {
    let traces = std::env::var("CATCHWORD_TRACES").map_or(2_000, |n| n.parse().unwrap());
    let (mut pushes, mut items) = (0, 0);
    for seed in 0..traces {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let start = any_instant();
        let (mut now, mut next) = (start, 0);
        let mut devices: Vec<Device> =
            (0..rng.random_range(2..=3)).map(|_| Device::new(start)).collect();
        let mut server = Server::default();
        for _ in 0..rng.random_range(20..200) {
            now += Duration::from_millis(rng.random_range(0..2_000));
            let at = rng.random_range(0..devices.len());
            step(&mut devices[at], &mut server, &mut rng, now, &mut next);
        }
        settle(&mut devices, &mut server, now);
        let all: BTreeSet<Item> = (1..=next).collect();
        assert_eq!(server.feed.iter().copied().collect::<BTreeSet<_>>(), all, "seed {seed}");
        assert_eq!(server.feed.len(), all.len(), "once each, seed {seed}");
        for device in &devices {
            assert_eq!((&device.store.items, &device.store.known), (&all, &all), "seed {seed}");
        }
        (pushes, items) = (pushes + server.pushes, items + next);
    }
    report(&format!(
        "replicator: {traces} traces, {items} items, {pushes} pushes, 0 lost, 0 stuck"
    ));
}

#[test]
fn a_device_that_is_signed_out_says_so_and_asks_nothing() {
    let now = any_instant();
    let mut machine = Replicator::new();
    machine.handle_input(Input::Start, now);
    machine.handle_input(Input::Answered(Answer::Cursor(0)), now);
    let reply = Reply::Problem { kind: ProblemKind::Unauthorized, retry_after: None };
    machine.handle_input(Input::Replied { reply, random: 0 }, now);
    let events: Vec<Event> = std::iter::from_fn(|| machine.poll_event()).collect();
    assert_eq!(events, [Event::Ask(Question::Cursor), Event::SignedOut]);
    machine.handle_input(Input::Changed, now);
    machine.handle_input(Input::Nudged, now);
    assert_eq!((machine.poll_timeout(), machine.poll_event()), (None, None));
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let now = any_instant();
    let wait = Duration::from_secs(30);
    let mut machine = Replicator::new();
    machine.handle_input(Input::Start, now);
    machine.handle_input(Input::Answered(Answer::Cursor(0)), now);
    let reply = Reply::Problem { kind: ProblemKind::SlowDown, retry_after: Some(wait) };
    machine.handle_input(Input::Replied { reply, random: 17 }, now);
    assert_eq!(machine.poll_timeout(), Some(now + wait));
    machine.handle_input(Input::Changed, now);
    machine.handle_timeout(now + wait / 2);
    let asked = |machine: &mut Replicator| {
        std::iter::from_fn(|| machine.poll_event()).filter(|it| matches!(it, Event::Ask(_))).count()
    };
    assert_eq!(asked(&mut machine), 1, "the first cursor alone");
    machine.handle_timeout(now + wait);
    assert_eq!(asked(&mut machine), 1);
}

#[test]
fn an_answer_to_something_else_is_no_answer() {
    let now = any_instant();
    let mut machine = Replicator::new();
    machine.handle_input(Input::Start, now);
    machine.handle_input(Input::Answered(Answer::Cursor(0)), now);
    let page = Page { records: Vec::new(), cursor: 0, end: 0 };
    machine.handle_input(Input::Replied { reply: Reply::Page(page), random: 0 }, now);
    let ingest = Ingest { entries: vec![entry(1)] };
    machine.handle_input(Input::Answered(Answer::Next(ingest)), now);
    let ingested = Ingested { answers: Vec::new(), cursor: 1 };
    let reply = Reply::Ingested(ingested);
    machine.handle_input(Input::Replied { reply, random: 0 }, now);
    let settled = std::iter::from_fn(|| machine.poll_event())
        .any(|event| matches!(event, Event::Ask(Question::Settle { .. })));
    assert!(!settled);
    assert!(machine.poll_timeout().is_some(), "it is tried again");
}

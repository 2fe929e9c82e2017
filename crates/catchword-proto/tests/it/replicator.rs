//! Replicators and a server that forgets, stalls, refuses and answers twice: everything gets there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use catchword_model::exchange::DocumentName;
use catchword_model::id::BookId;
use catchword_proto::cloud::api::{
    Anchor, Entry, EntryAnswer, EntryKey, FeedRecord, FeedTag, Ingested, Outcome, Page,
    ProblemKind, Reason, Receipt, Record, Verdict,
};
use catchword_proto::cloud::codec::Blob;
use catchword_proto::cloud::outbox::{Class, Waiting};
use catchword_proto::cloud::replicator::{
    Answer, Event, INCOMPLETE_MAX, Input, LOOK_INTERVAL, Question, RESTAMPS_MAX, RETRY_MIN,
    Replicator, Transmit,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

fn doc(number: u8) -> DocumentName {
    DocumentName::Book(BookId([number; 32]))
}

/// A document that cannot be cut.
const WHOLE: DocumentName = DocumentName::Library;

fn change(id: u32) -> Blob {
    Blob(id.to_be_bytes().to_vec())
}

fn id_of(bytes: &Blob) -> u32 {
    u32::from_be_bytes(bytes.0.as_slice().try_into().unwrap())
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is carried out and answered.
    Answered,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// It does not arrive.
    Lost,
    /// The server is busy.
    Busy,
    /// It is carried out, and nothing comes back.
    Stalled,
    /// It is carried out, and answered twice.
    Twice,
}

const FATES: [Fate; 6] =
    [Fate::Answered, Fate::AnswerLost, Fate::Lost, Fate::Busy, Fate::Stalled, Fate::Twice];

/// The server: a feed, and what it does not take.
#[derive(Debug, Clone, Default)]
struct Server {
    feed: Vec<(DocumentName, u32)>,
    /// Changes that are refused for good.
    refused: BTreeSet<u32>,
    /// Changes of which the server lacks what they build on, whatever comes with them.
    lacking: BTreeSet<u32>,
    /// Changes that cannot be cut apart from what follows them, and more records than one call may have.
    records_max: Option<usize>,
    /// Changes that make a whole batch unreadable.
    indigestible: BTreeSet<u32>,
    /// Changes that are to be written again.
    early: BTreeSet<u32>,
}

impl Server {
    /// What stands in the feed is part of the tag, so a server that went back and went on has others.
    fn tag(&self, number: u64) -> Option<FeedTag> {
        let last = usize::try_from(number).unwrap().checked_sub(1)?;
        let (_, id) = self.feed.get(last)?;
        Some(FeedTag(u64::from(*id).to_be_bytes()))
    }

    fn page(&self, after: u64, limit: usize, known: Option<Anchor>) -> Page {
        let end = self.feed.len() as u64;
        let first = usize::try_from(after).unwrap().min(self.feed.len());
        // A small page makes several of them common.
        let rest = self.feed[first..].iter().zip(after + 1..).take(limit.min(2));
        let records: Vec<FeedRecord> = rest
            .map(|((document, id), number)| FeedRecord {
                number,
                document: *document,
                version: 0,
                statement: None,
                record: Record::Change { bytes: change(*id), verdict: self.verdict(*id) },
            })
            .collect();
        let cursor = records.last().map_or(after, |record| record.number);
        let is_other = known.is_some_and(|known| self.tag(known.number) != Some(known.tag));
        Page { records, cursor, end, tag: self.tag(cursor), reset: is_other }
    }

    fn verdict(&self, id: u32) -> Verdict {
        if self.early.contains(&id) { Verdict::Restamp } else { Verdict::Accepted }
    }

    fn ingest(&mut self, entries: &[Entry]) -> Result<Ingested, ProblemKind> {
        let before = self.feed.len() as u64;
        let ids = entries.iter().flat_map(|entry| &entry.changes).map(id_of);
        if self.records_max.is_some_and(|max| max < ids.clone().count()) {
            return Err(ProblemKind::TooLarge);
        }
        if ids.clone().any(|id| self.indigestible.contains(&id)) {
            return Err(ProblemKind::Malformed);
        }
        let answers = entries
            .iter()
            .map(|entry| EntryAnswer { key: entry.key, outcome: self.take(entry) })
            .collect();
        let cursor = self.feed.len() as u64;
        let (before_tag, tag) = (self.tag(before), self.tag(cursor));
        Ok(Ingested { answers, before, cursor, before_tag, tag })
    }

    fn take(&mut self, entry: &Entry) -> Outcome {
        let ids: Vec<u32> = entry.changes.iter().map(id_of).collect();
        if ids.iter().any(|id| self.refused.contains(id)) {
            return Outcome::Refused { reason: Reason::Rule, hash: None };
        }
        if ids.iter().any(|id| self.lacking.contains(id)) {
            let (missing, missing_events, uncovered) = (Vec::new(), Vec::new(), Vec::new());
            return Outcome::Incomplete { missing, missing_events, uncovered };
        }
        let mut verdicts = Vec::new();
        for id in ids {
            if !self.feed.contains(&(entry.document, id)) {
                self.feed.push((entry.document, id));
            }
            verdicts.push(self.verdict(id));
        }
        let again = verdicts.contains(&Verdict::Restamp);
        let receipt = Receipt { version: 0, verdicts, place: None };
        if again { Outcome::Rebased(receipt) } else { Outcome::Accepted(receipt) }
    }
}

/// A device: what its store keeps, and its machine, which it loses whenever it starts again.
#[derive(Debug)]
struct Device {
    number: u32,
    next: u32,
    log: Vec<(DocumentName, u32, Class)>,
    cursor: u64,
    anchor: Option<Anchor>,
    known: BTreeSet<u32>,
    stopped: BTreeSet<DocumentName>,
    /// Changes with the verdict `restamp`.
    early: BTreeMap<DocumentName, u32>,
    machine: Replicator,
    /// The end of the feed that must be merged before anything is pushed.
    gate: Option<u64>,
    events: Vec<Event>,
    pushes: u32,
    rewrites: u32,
    /// Changes of entries that were cut, by their keys.
    sent: BTreeMap<EntryKey, Vec<u32>>,
}

impl Device {
    fn new(number: u32) -> Self {
        Self {
            number,
            next: 0,
            log: Vec::new(),
            cursor: 0,
            anchor: None,
            known: BTreeSet::new(),
            stopped: BTreeSet::new(),
            early: BTreeMap::new(),
            machine: Replicator::new(),
            gate: None,
            events: Vec::new(),
            pushes: 0,
            rewrites: 0,
            sent: BTreeMap::new(),
        }
    }

    fn write(&mut self, document: DocumentName, class: Class) -> u32 {
        self.next += 1;
        let id = self.number * 10_000 + self.next;
        self.log.push((document, id, class));
        id
    }

    fn start(&mut self, now: Instant) {
        self.machine = Replicator::new();
        self.gate = None;
        self.machine.handle_input(Input::Start, now);
    }

    fn unsent(&self) -> impl Iterator<Item = &(DocumentName, u32, Class)> {
        self.log.iter().filter(|(document, id, _)| {
            !self.known.contains(id) && !self.stopped.contains(document)
        })
    }

    /// Carries out what the machine asks, and hands each request to `send`.
    fn drive(&mut self, now: Instant, mut send: impl FnMut(&mut Self, Transmit)) {
        loop {
            if let Some(event) = self.machine.poll_event() {
                if let Event::Ask(question) = event {
                    let answer = self.answer(question);
                    self.machine.handle_input(Input::Answer(answer), now);
                } else {
                    self.events.push(event);
                }
            } else if let Some(transmit) = self.machine.poll_transmit() {
                send(self, transmit);
            } else {
                return;
            }
        }
    }

    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Load => {
                self.gate = None;
                let (cursor, known) = (self.cursor, self.anchor);
                return Answer::Loaded { cursor, known, again: self.again() };
            }
            Question::Merge(page) => {
                self.gate = self.gate.or(Some(page.end));
                for record in &page.records {
                    let Record::Change { bytes, verdict } = &record.record else {
                        panic!("{record:?}")
                    };
                    let id = id_of(bytes);
                    self.judged(record.document, &[id], &[*verdict]);
                    self.known.insert(id);
                    if self.log.iter().all(|(_, known, _)| *known != id) {
                        self.log.push((record.document, id, Class::Change));
                    }
                }
                self.cursor = page.cursor;
                self.anchor = Anchor::later(self.anchor, page.cursor, page.tag);
            }
            Question::Forget => {
                (self.cursor, self.anchor) = (0, None);
                self.known.clear();
            }
            Question::Outbox => return Answer::Outbox(self.waiting()),
            Question::Collect { documents, records_max, .. } => {
                return Answer::Collected(self.collect(&documents, records_max));
            }
            Question::Keep { answers, cursor, tag } => {
                self.cursor = cursor.unwrap_or(self.cursor);
                self.anchor = Anchor::later(self.anchor, self.cursor, tag);
                for (document, answer) in answers {
                    match answer.outcome {
                        Outcome::Accepted(receipt)
                        | Outcome::Rebased(receipt)
                        | Outcome::Conflict(receipt) => {
                            let ids = self.sent.remove(&answer.key).unwrap_or_default();
                            self.judged(document, &ids, &receipt.verdicts);
                            self.known.extend(ids);
                        }
                        Outcome::Incomplete { .. } => (),
                        Outcome::Refused { .. } => drop(self.stopped.insert(document)),
                    }
                }
            }
            Question::Rewrite(document) => {
                self.rewrites += 1;
                self.write(document, Class::Position);
            }
        }
        Answer::Kept { again: self.again() }
    }

    /// Notes verdicts on this device's newest change of a document.
    fn judged(&mut self, document: DocumentName, ids: &[u32], verdicts: &[Verdict]) {
        let own = |id: &u32| id / 10_000 == self.number;
        let of = self.log.iter().filter(|(of, id, _)| *of == document && own(id));
        let newest = of.map(|(_, id, _)| *id).max();
        for (id, verdict) in ids.iter().zip(verdicts) {
            if *verdict == Verdict::Restamp && Some(*id) == newest {
                self.early.insert(document, *id);
            }
        }
    }

    /// Returns documents whose newest change is to be written again.
    fn again(&self) -> Vec<DocumentName> {
        let newest = |document: &DocumentName| {
            let own =
                self.log.iter().filter(|(of, id, _)| of == document && id / 10_000 == self.number);
            own.map(|(_, id, _)| *id).max()
        };
        let early = self.early.iter().filter(|(document, id)| newest(document) == Some(**id));
        early.map(|(document, _)| *document).collect()
    }

    fn collect(&mut self, documents: &[DocumentName], records_max: usize) -> Vec<Entry> {
        let mut left = records_max;
        let mut entries = Vec::new();
        for document in documents {
            let unsent = self.unsent().filter(|(of, _, _)| of == document).map(|(_, id, _)| *id);
            let least = if *document == WHOLE && entries.is_empty() { usize::MAX } else { left };
            let ids: Vec<u32> = unsent.take(least).collect();
            if ids.is_empty() {
                break;
            }
            left = left.saturating_sub(ids.len());
            let entry = entry(*document, &ids);
            self.sent.insert(entry.key, ids);
            entries.push(entry);
        }
        entries
    }

    fn waiting(&self) -> Vec<Waiting> {
        let mut waiting: BTreeMap<DocumentName, Waiting> = BTreeMap::new();
        for (document, id, class) in self.unsent() {
            let fresh = Waiting { class: *class, since: u64::from(*id), document: *document };
            let of = waiting.entry(*document).or_insert(fresh);
            of.class = of.class.min(*class);
        }
        waiting.into_values().collect()
    }
}

fn entry(document: DocumentName, ids: &[u32]) -> Entry {
    let mut entry = Entry {
        key: EntryKey([0; 32]),
        document,
        base_version: 0,
        replay: false,
        statements: Vec::new(),
        changes: ids.iter().copied().map(change).collect(),
        events: Vec::new(),
    };
    entry.key = entry.key();
    entry
}

/// Devices and a server, on a clock of their own.
struct World {
    now: Instant,
    server: Server,
    devices: Vec<Device>,
    pushed_too_early: u32,
}

impl World {
    fn new(devices: u32) -> Self {
        let devices = (0..devices).map(Device::new).collect();
        Self { now: crate::any_instant(), server: Server::default(), devices, pushed_too_early: 0 }
    }

    /// Lets one device go on until it waits for something; `fate` says what becomes of a request.
    fn run(&mut self, who: usize, mut fate: impl FnMut() -> (Fate, u64)) {
        let Self { now, server, devices, pushed_too_early } = self;
        devices[who].drive(*now, |device, transmit| {
            if matches!(transmit, Transmit::Push(_)) {
                device.pushes += 1;
                *pushed_too_early += u32::from(device.gate.is_none_or(|gate| device.cursor < gate));
            }
            let (fate, random) = fate();
            for input in respond(server, transmit, fate, random) {
                device.machine.handle_input(input, *now);
            }
        });
    }

    /// Lets time pass for a device, up to what it waits for.
    fn pass(&mut self, who: usize) {
        let Some(until) = self.devices[who].machine.poll_timeout() else { return };
        self.now = self.now.max(until);
        let now = self.now;
        self.devices[who].machine.handle_timeout(now);
    }

    /// Lets a healthy server and all devices come to rest.
    fn settle(&mut self) {
        for _ in 0..40 {
            for who in 0..self.devices.len() {
                self.run(who, || (Fate::Answered, 7));
                self.pass(who);
            }
        }
        for who in 0..self.devices.len() {
            self.run(who, || (Fate::Answered, 7));
        }
    }

    fn check(&self) {
        assert_eq!(self.pushed_too_early, 0, "the gate was closed");
        let distinct: BTreeSet<_> = self.server.feed.iter().collect();
        assert_eq!(distinct.len(), self.server.feed.len(), "nothing is there twice");
        for device in &self.devices {
            assert_eq!(device.unsent().count(), 0, "everything is sent: {device:?}");
            assert_eq!(device.cursor, self.server.feed.len() as u64, "everything is merged");
            let has: BTreeSet<u32> = device.log.iter().map(|(_, id, _)| *id).collect();
            for (_, id) in &self.server.feed {
                assert!(has.contains(id), "{id} is missing");
            }
        }
    }
}

fn respond(server: &mut Server, transmit: Transmit, fate: Fate, random: u64) -> Vec<Input> {
    let failed = |problem| Input::Failed { problem, retry_after: None, random };
    if fate == Fate::Lost {
        return vec![failed(None)];
    }
    if fate == Fate::Busy {
        return vec![failed(Some(ProblemKind::Busy))];
    }
    let answer = match transmit {
        Transmit::Pull { after, limit, known } => Input::Pulled(server.page(after, limit, known)),
        Transmit::Push(entries) => match server.ingest(&entries) {
            Ok(ingested) => Input::Pushed(ingested),
            Err(problem) => failed(Some(problem)),
        },
    };
    match fate {
        Fate::Answered => vec![answer],
        Fate::Twice => vec![answer.clone(), answer],
        Fate::AnswerLost => vec![failed(None)],
        Fate::Stalled | Fate::Lost | Fate::Busy => Vec::new(),
    }
}

/// Every sequence of six fates, over a device with two documents and something to merge.
#[test]
fn the_outbox_drains_from_every_state_once_the_server_is_healthy() {
    const LENGTH: u32 = 6;
    let all = FATES.len().pow(LENGTH);
    let mut states = BTreeSet::new();
    for number in 0..all {
        let mut world = World::new(2);
        world.devices[1].write(doc(1), Class::Change);
        world.devices[1].write(doc(3), Class::Change);
        world.devices[1].write(doc(3), Class::Change);
        world.devices[1].start(world.now);
        world.run(1, || (Fate::Answered, 0));
        world.devices[0].write(doc(1), Class::Position);
        world.devices[0].write(doc(2), Class::Change);
        world.devices[0].start(world.now);
        let mut left = number;
        let mut fates = (0..LENGTH).map(|_| {
            let fate = FATES[left % FATES.len()];
            left /= FATES.len();
            fate
        });
        for _ in 0..LENGTH {
            // Each fate is that of one request; behind the last one nothing arrives.
            world.run(0, || (fates.next().unwrap_or(Fate::Lost), 0));
            let device = &world.devices[0];
            states.insert((device.cursor, device.known.len(), world.server.feed.len()));
            world.pass(0);
        }
        world.settle();
        world.check();
        assert_eq!(world.server.feed.len(), 5);
    }
    crate::report(&format!("replicator: {all} sequences of fates, {} states", states.len()));
    assert_eq!(states.len(), 5, "{states:?}");
}

/// Writes, meetings with a failing server, restarts, refusals and restamps, in any order.
#[test]
fn whatever_happens_everything_that_may_be_sent_is_sent_once() {
    let traces: u64 = std::env::var("CATCHWORD_TRACES").map_or(3_000, |text| text.parse().unwrap());
    let mut pushes = 0;
    let mut stopped = 0;
    for seed in 0..traces {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(rng.random_range(1..=3));
        for who in 0..world.devices.len() {
            world.devices[who].start(world.now);
        }
        for _ in 0..rng.random_range(5..40) {
            let who = rng.random_range(0..world.devices.len());
            match rng.random_range(0..10) {
                0..=2 => write(&mut world, who, &mut rng),
                3 => {
                    let now = world.now;
                    world.devices[who].start(now);
                }
                4 => {
                    let end = world.server.feed.len() as u64;
                    let now = world.now;
                    world.devices[who].machine.handle_input(Input::Nudged(end), now);
                }
                5 => world.pass(who),
                _ => world.run(who, || {
                    (FATES[rng.random_range(0..FATES.len())], rng.random_range(0..u64::MAX))
                }),
            }
        }
        world.settle();
        world.check();
        for device in &world.devices {
            pushes += device.pushes;
            stopped += device.stopped.len();
            for document in &device.stopped {
                let told = |event: &Event| matches!(event, Event::Stopped { document: of, .. } if of == document);
                assert!(device.events.iter().any(told), "nobody was told of {document:?}");
            }
        }
    }
    crate::report(&format!(
        "replicator: {traces} traces, {pushes} pushes, {stopped} documents stopped"
    ));
    assert!(traces < u64::from(pushes) && 0 < stopped);
}

fn write(world: &mut World, who: usize, rng: &mut ChaCha8Rng) {
    let classes = [Class::Position, Class::Change, Class::Event];
    let class = classes[rng.random_range(0..3)];
    let id = world.devices[who].write(doc(rng.random_range(1..6)), class);
    match rng.random_range(0..20) {
        0 => drop(world.server.refused.insert(id)),
        1 => drop(world.server.indigestible.insert(id)),
        2 | 3 => drop(world.server.early.insert(id)),
        _ => (),
    }
    let now = world.now;
    world.devices[who].machine.handle_input(Input::Changed, now);
}

#[test]
fn a_stale_position_is_not_pushed_before_the_feed_is_merged() {
    let mut world = World::new(1);
    world.server.feed = (0..5).map(|id| (doc(1), 90_000 + id)).collect();
    world.devices[0].write(doc(1), Class::Position);
    world.devices[0].start(world.now);
    let mut requests = Vec::new();
    let Some(Event::Ask(Question::Load)) = world.devices[0].machine.poll_event() else { panic!() };
    let now = world.now;
    world.devices[0].machine.handle_input(
        Input::Answer(Answer::Loaded { cursor: 0, known: None, again: Vec::new() }),
        now,
    );
    // Even told of changes, it reads three pages of two before it sends anything.
    world.devices[0].machine.handle_input(Input::Changed, now);
    let World { server, devices, .. } = &mut world;
    devices[0].drive(now, |device, transmit| {
        requests.push(matches!(transmit, Transmit::Push(_)));
        for input in respond(server, transmit, Fate::Answered, 0) {
            device.machine.handle_input(input, now);
        }
    });
    assert_eq!(requests, [false, false, false, true]);
}

/// It was restored from a backup, and others were faster: its feed is as long as before, or longer.
#[test]
fn a_server_that_went_back_and_on_is_given_everything_again() {
    for others in [2, 5] {
        let mut world = World::new(1);
        for _ in 0..5 {
            world.devices[0].write(doc(1), Class::Change);
        }
        world.devices[0].start(world.now);
        world.settle();
        assert_eq!(world.server.feed.len(), 5);

        world.server.feed.truncate(3);
        world.server.feed.extend((0..others).map(|id| (doc(2), 90_000 + id)));
        let now = world.now;
        world.devices[0].write(doc(1), Class::Change);
        world.devices[0].machine.handle_input(Input::Changed, now);
        world.settle();

        assert_eq!(world.server.feed.len(), 6 + others as usize, "nothing is lost");
        world.check();
    }
}

#[test]
fn a_position_is_written_again_three_times_at_most() {
    let mut world = World::new(1);
    world.devices[0].write(doc(1), Class::Position);
    world.server.early = (0..20).collect();
    world.devices[0].start(world.now);
    world.settle();

    let device = &world.devices[0];
    assert_eq!(device.rewrites, u32::from(RESTAMPS_MAX));
    assert_eq!(world.server.feed.len(), 1 + usize::from(RESTAMPS_MAX));
    assert!(device.events.contains(&Event::RestampGivenUp(doc(1))));
    world.check();
}

#[test]
fn what_was_to_be_written_again_is_so_after_a_restart_and_after_a_lost_answer() {
    let mut world = World::new(1);
    let id = world.devices[0].write(doc(1), Class::Position);
    world.server.early.insert(id);
    world.devices[0].start(world.now);
    // The page arrives, and the answer to the push is lost: the verdict comes with the feed.
    let mut fates = [Fate::Answered, Fate::AnswerLost].into_iter();
    world.run(0, || (fates.next().unwrap_or(Fate::Answered), 0));
    assert_eq!(world.server.feed.len(), 1);
    world.settle();
    assert_eq!((world.devices[0].rewrites, world.server.feed.len()), (1, 2));

    let id = world.devices[0].write(doc(2), Class::Position);
    world.devices[0].known.insert(id);
    world.server.feed.push((doc(2), id));
    world.devices[0].early.insert(doc(2), id);
    world.devices[0].start(world.now);
    world.settle();
    assert_eq!(world.devices[0].rewrites, 2);
    world.check();
}

#[test]
fn a_document_that_is_never_complete_stops_after_three_tries() {
    let mut world = World::new(1);
    let id = world.devices[0].write(doc(1), Class::Change);
    world.devices[0].write(doc(2), Class::Change);
    world.server.lacking.insert(id);
    world.devices[0].start(world.now);
    world.settle();

    let device = &world.devices[0];
    assert_eq!(device.pushes, u32::from(INCOMPLETE_MAX));
    assert_eq!(device.stopped, BTreeSet::from([doc(1)]));
    let stopped = Event::Stopped { document: doc(1), reason: Reason::Incomplete };
    assert!(device.events.contains(&stopped));
    assert_eq!(world.server.feed.len(), 1);
    world.check();
}

#[test]
fn what_cannot_be_cut_as_small_as_the_server_takes_stops_and_the_others_flow() {
    for (records_max, stops) in [(9, false), (8, true)] {
        let mut world = World::new(1);
        for _ in 0..9 {
            world.devices[0].write(WHOLE, Class::Position);
        }
        world.devices[0].write(doc(2), Class::Change);
        world.server.records_max = Some(records_max);
        world.devices[0].start(world.now);
        world.settle();

        let device = &world.devices[0];
        let stopped = Event::Stopped { document: WHOLE, reason: Reason::TooLarge };
        assert_eq!(device.events.contains(&stopped), stops);
        assert_eq!(world.server.feed.len(), if stops { 1 } else { 10 });
        world.check();
    }
}

#[test]
fn an_entry_that_the_server_cannot_read_is_found_and_the_others_flow() {
    let mut world = World::new(1);
    let ids: Vec<u32> =
        (1..=9).map(|number| world.devices[0].write(doc(number), Class::Change)).collect();
    world.server.indigestible.insert(ids[6]);
    world.devices[0].start(world.now);
    world.settle();

    assert_eq!(world.devices[0].stopped, BTreeSet::from([doc(7)]));
    assert_eq!(world.server.feed.len(), 8);
    world.check();
}

#[test]
fn a_server_that_went_back_gets_everything_again() {
    let mut world = World::new(2);
    for number in 1..=6 {
        world.devices[0].write(doc(number), Class::Change);
    }
    for who in 0..2 {
        world.devices[who].start(world.now);
    }
    world.settle();
    assert_eq!(world.server.feed.len(), 6);

    world.server.feed.truncate(2);
    world.settle();
    assert_eq!(world.server.feed.len(), 6);
    world.check();
}

#[test]
fn each_failure_doubles_the_longest_wait_and_an_answer_ends_it() {
    let mut world = World::new(1);
    world.devices[0].start(world.now);
    let mut waits = Vec::new();
    for _ in 0..11 {
        // The greatest number below 1 000 in each case: the longest wait.
        let most_ms = 1_000 << waits.len().min(9);
        world.run(0, || (Fate::Busy, most_ms.min(300_000)));
        let until = world.devices[0].machine.poll_timeout().unwrap();
        waits.push((until - world.now).as_secs());
        world.pass(0);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    world.run(0, || (Fate::Answered, 0));
    assert_eq!(world.devices[0].machine.poll_timeout(), Some(world.now + LOOK_INTERVAL));
    assert_eq!(world.devices[0].events.last(), Some(&Event::Synced));
    world.pass(0);
    world.run(0, || (Fate::Busy, 999));
    let until = world.devices[0].machine.poll_timeout().unwrap();
    assert!(until - world.now <= RETRY_MIN);

    // A server that names a time is left alone until then.
    let now = until;
    world.devices[0].machine.handle_timeout(now);
    world.devices[0].drive(now, |device, _| {
        let problem = Some(ProblemKind::SlowDown);
        let retry_after = Some(Duration::from_secs(40));
        device.machine.handle_input(Input::Failed { problem, retry_after, random: 0 }, now);
    });
    assert_eq!(world.devices[0].machine.poll_timeout(), Some(now + Duration::from_secs(40)));
}

#[test]
fn a_token_that_is_worth_nothing_ends_the_machine_and_loses_nothing() {
    let mut world = World::new(1);
    world.devices[0].write(doc(1), Class::Change);
    world.devices[0].start(world.now);
    let now = world.now;
    world.devices[0].drive(now, |device, _| {
        let problem = Some(ProblemKind::Unauthorized);
        device.machine.handle_input(Input::Failed { problem, retry_after: None, random: 0 }, now);
    });
    assert_eq!(world.devices[0].events, [Event::SignedOut]);
    assert_eq!(world.devices[0].machine.poll_timeout(), None);
    world.devices[0].machine.handle_input(Input::Changed, now);
    assert_eq!(world.devices[0].machine.poll_event(), None);

    world.devices[0].machine.handle_input(Input::Start, now);
    world.settle();
    world.check();
    assert_eq!(world.server.feed.len(), 1);
}

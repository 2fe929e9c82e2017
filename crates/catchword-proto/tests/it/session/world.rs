//! Devices that sync over a network that loses, repeats and reorders, and are killed at will.
//!
//! Every question of a machine is answered on its own, so that anything can happen between two
//! transactions of a store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use catchword_model::id::{DocumentId, Generation};
use catchword_proto::request::Status;
use catchword_proto::session::requester::{Ending, Input, Report, Requester};
use catchword_proto::session::responder::{self, Responder};
use catchword_proto::session::{Answer, Event, Log, Path, Question, Transmit};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::any_instant;

use super::store::{Key, Ledger, Rules, Store};

/// Who asked a store, and where its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Machine {
    Requester(usize),
    Responder(usize),
}

#[derive(Debug)]
struct Asked {
    machine: Machine,
    key: Key,
    peer: Option<Generation>,
    question: Question,
}

#[derive(Debug, Clone)]
enum Message {
    Request { session: usize, number: u64, from: Key, to: (usize, Key), path: Path, body: Vec<u8> },
    Response { session: usize, number: u64, version: Option<u64>, status: Status, body: Vec<u8> },
}

#[derive(Debug)]
struct Session {
    requester: Requester,
    from: usize,
    to: usize,
    /// Requests so far: a response belongs to the stream of its request.
    number: u64,
    /// The state of both stores in the last first phase: every claim is about what was told there.
    versions: (u64, u64),
    /// Whether it is in the first phase.
    is_first: bool,
    /// What both shared when it began.
    sharing: (u64, u64),
}

#[derive(Debug)]
struct Answering {
    responder: Responder,
    at: usize,
    session: usize,
    number: u64,
    key: Key,
    /// The state of the store at its last answer.
    version: u64,
    /// Whether it answers the first phase.
    is_first: bool,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) store: Store,
    /// Counts what changes the store.
    pub(crate) version: u64,
    /// Counts what changes which documents it shares.
    sharing: u64,
    pub(crate) backup: Option<Store>,
    pub(crate) snapshot: Option<Store>,
    asked: VecDeque<Asked>,
    /// Whose transaction is open.
    committing: Option<Machine>,
}

/// What happened in a world, and in many.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) facts: u64,
    pub(crate) sessions: u64,
    pub(crate) round_trips: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) kills: u64,
    pub(crate) restores: u64,
    pub(crate) copies: u64,
    pub(crate) rollbacks: u64,
    pub(crate) exclusions: u64,
    pub(crate) lendings: u64,
    pub(crate) purges: u64,
    pub(crate) forks: u64,
    pub(crate) forked: u64,
    /// Transactions that left something parked.
    pub(crate) parked: u64,
    pub(crate) claims: u64,
    pub(crate) claims_checked: u64,
    pub(crate) mends: u64,
    pub(crate) rounds_max: u64,
    pub(crate) body_bytes_max: u64,
    pub(crate) changes_sent: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.facts += other.facts;
        self.sessions += other.sessions;
        self.round_trips += other.round_trips;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.kills += other.kills;
        self.restores += other.restores;
        self.copies += other.copies;
        self.rollbacks += other.rollbacks;
        self.exclusions += other.exclusions;
        self.lendings += other.lendings;
        self.purges += other.purges;
        self.forks += other.forks;
        self.forked += other.forked;
        self.parked += other.parked;
        self.claims += other.claims;
        self.claims_checked += other.claims_checked;
        self.mends += other.mends;
        self.changes_sent += other.changes_sent;
        self.rounds_max = self.rounds_max.max(other.rounds_max);
        self.body_bytes_max = self.body_bytes_max.max(other.body_bytes_max);
    }
}

/// What may happen besides edits, syncs, losses and kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// Restores, copies, scopes, removals.
    Honest,
    /// Also stores that go back without notice.
    Forks,
}

#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    pub(crate) ledger: Ledger,
    pub(crate) devices: Vec<Device>,
    pub(crate) links: Vec<(usize, usize)>,
    sessions: BTreeMap<usize, Session>,
    answering: BTreeMap<usize, Answering>,
    messages: Vec<Message>,
    next: usize,
    now: Instant,
    time: u64,
    keys: Key,
    pub(crate) random: ChaCha8Rng,
    pub(crate) documents: Vec<DocumentId>,
    pub(crate) tally: Tally,
    /// Where chains were said to fork, and by whom.
    pub(crate) forked: Vec<(usize, u32)>,
    /// How sessions ended since this was last emptied.
    pub(crate) ended: Vec<(usize, usize, Ending, Report)>,
}

impl World {
    pub(crate) fn new(seed: u64, rules: Rules, devices: usize, links: Vec<(usize, usize)>) -> Self {
        let mut world = Self {
            seed,
            ledger: Ledger::default(),
            devices: Vec::new(),
            links,
            sessions: BTreeMap::new(),
            answering: BTreeMap::new(),
            messages: Vec::new(),
            next: 0,
            now: any_instant(),
            time: 0,
            keys: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
            documents: [1, 2, 3].map(|byte| DocumentId([byte; 32])).to_vec(),
            tally: Tally::default(),
            forked: Vec::new(),
            ended: Vec::new(),
        };
        for _ in 0..devices {
            let key = world.new_key();
            world.add(Store::new(rules, key));
        }
        world
    }

    pub(crate) fn new_key(&mut self) -> Key {
        self.keys += 1;
        self.keys
    }

    pub(crate) fn add(&mut self, store: Store) -> usize {
        let (asked, committing) = (VecDeque::new(), None);
        let (version, sharing, backup, snapshot) = (0, 0, None, None);
        self.devices.push(Device { store, version, sharing, backup, snapshot, asked, committing });
        self.devices.len() - 1
    }

    // What a person does.

    pub(crate) fn write(&mut self, at: usize, document: DocumentId, log: Log) {
        self.time += 1;
        let device = &mut self.devices[at];
        if device.store.write(&mut self.ledger, document, log, self.time) {
            device.version += 1;
            self.tally.facts += 1;
        }
    }

    pub(crate) fn start(&mut self, from: usize, to: usize) {
        let session = self.next;
        self.next += 1;
        let mut requester = Requester::new();
        requester.handle_input(Input::Start, self.now);
        let versions = (0, 0);
        let sharing = (self.devices[from].sharing, self.devices[to].sharing);
        let is_first = true;
        let session_at = Session { requester, from, to, number: 0, versions, is_first, sharing };
        self.sessions.insert(session, session_at);
        self.tally.sessions += 1;
        self.poll(Machine::Requester(session));
    }

    // What the world does.

    /// Whether anything is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.answering.is_empty() && self.messages.is_empty()
    }

    /// Lets one thing happen that is under way; `None`: nothing can.
    pub(crate) fn step(&mut self, loss: f64) -> Option<()> {
        let busy = (0..self.devices.len()).filter(|at| !self.devices[*at].asked.is_empty());
        let busy: Vec<usize> = busy.collect();
        let messages = self.messages.len();
        if busy.is_empty() && messages == 0 {
            return self.time_out();
        }
        let chosen = self.random.random_range(0..busy.len() + messages);
        if let Some(at) = busy.get(chosen) {
            self.answer(*at);
            return Some(());
        }
        let message = self.messages.swap_remove(chosen - busy.len());
        if self.random.random_bool(loss) {
            self.tally.lost += 1;
            return Some(());
        }
        if self.random.random_bool(loss / 2.0) {
            self.tally.repeated += 1;
            self.messages.push(message.clone());
        }
        self.deliver(message);
        Some(())
    }

    /// Lets everything end that is under way.
    pub(crate) fn settle(&mut self) {
        while self.step(0.0).is_some() {}
        assert!(self.is_idle(), "something waits for ever: {:?}", self.sessions);
    }

    /// Loses a response, if one is under way.
    pub(crate) fn lose_a_response(&mut self) -> bool {
        let count = self.messages.len();
        self.messages.retain(|message| matches!(message, Message::Request { .. }));
        self.messages.len() < count
    }

    /// Runs one session to its end on a network that works.
    pub(crate) fn sync(&mut self, from: usize, to: usize) -> (Ending, Report) {
        self.ended.clear();
        self.start(from, to);
        self.settle();
        let (_, _, ending, report) = self.ended.pop().expect("a session ends");
        (ending, report)
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Request { session, number, from: key, to: (at, to), path, body } => {
                // Nobody else has the receiver's certificate.
                if self.devices[at].store.key != to {
                    return;
                }
                let is_first = path == Path::Sync;
                let mut responder = Responder::new();
                responder.handle_input(responder::Input::Request { path, body }, self.now);
                let id = self.next;
                self.next += 1;
                let version = 0;
                let answering =
                    Answering { responder, at, session, number, key, version, is_first };
                self.answering.insert(id, answering);
                self.poll(Machine::Responder(id));
            }
            Message::Response { session, number, version, status, body } => {
                let Some(sender) = self.sessions.get_mut(&session) else { return };
                // A stream has one response.
                if sender.number == number && sender.requester.poll_timeout().is_some() {
                    sender.versions.1 = version.unwrap_or(sender.versions.1);
                    let input = Input::Response { status, body };
                    sender.requester.handle_input(input, self.now);
                    self.poll(Machine::Requester(session));
                }
            }
        }
    }

    /// Answers the oldest question of a device, or makes the first half of a transaction.
    fn answer(&mut self, at: usize) {
        let drawn = self.random.random();
        let device = &mut self.devices[at];
        let (machine, answer) = if let Some(machine) = device.committing.take() {
            device.asked.pop_front();
            let committed = device.store.commit(&self.ledger, usize::MAX, drawn);
            device.version += u64::from(0 < committed.applied.added || 0 < committed.forks);
            self.tally.forks += committed.forks as u64;
            self.tally.parked += u64::from(0 < committed.parked);
            (machine, Answer::Applied(committed.applied))
        } else {
            let asked = device.asked.front_mut().unwrap();
            let (machine, key, peer) = (asked.machine, asked.key, asked.peer);
            if let Question::Apply(apply) = &mut asked.question {
                let apply = std::mem::replace(apply, nothing());
                let peer = peer.expect("it sent something");
                device.store.begin(&self.ledger, (key, peer), apply);
                device.committing = Some(machine);
                return;
            }
            let question = device.asked.pop_front().unwrap().question;
            (machine, device.store.answer(&self.ledger, key, peer, question))
        };
        self.note_version(machine, at);
        match machine {
            Machine::Requester(id) => {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                session.requester.handle_input(Input::Answer(answer), self.now);
            }
            Machine::Responder(id) => {
                let Some(answering) = self.answering.get_mut(&id) else { return };
                answering.responder.handle_input(responder::Input::Answer(answer), self.now);
            }
        }
        self.poll(machine);
    }

    /// Remembers the state of a store at its last answer, so that a claim can be checked.
    fn note_version(&mut self, machine: Machine, at: usize) {
        let version = self.devices[at].version;
        match machine {
            Machine::Requester(id) => {
                if let Some(session) = self.sessions.get_mut(&id).filter(|it| it.is_first) {
                    session.versions.0 = version;
                }
            }
            Machine::Responder(id) => {
                if let Some(answering) = self.answering.get_mut(&id) {
                    answering.version = version;
                }
            }
        }
    }

    /// Does what a machine wants, as every driver does.
    fn poll(&mut self, machine: Machine) {
        loop {
            let (event, transmit) = match machine {
                Machine::Requester(id) => {
                    let Some(session) = self.sessions.get_mut(&id) else { return };
                    let event = session.requester.poll_event();
                    (event, session.requester.poll_transmit())
                }
                Machine::Responder(id) => {
                    let Some(answering) = self.answering.get_mut(&id) else { return };
                    (answering.responder.poll_event(), answering.responder.poll_transmit())
                }
            };
            if event.is_none() && transmit.is_none() {
                return;
            }
            if let Some(transmit) = transmit {
                self.transmit(machine, transmit);
            }
            if let Some(event) = event {
                self.event(machine, event);
            }
        }
    }

    fn transmit(&mut self, machine: Machine, transmit: Transmit) {
        match (machine, transmit) {
            (Machine::Requester(id), Transmit::Request { path, body }) => {
                let session = self.sessions.get_mut(&id).unwrap();
                session.number += 1;
                session.is_first = path == Path::Sync;
                let Session { from, to, .. } = *session;
                self.tally.mends += u64::from(path == Path::Vectors);
                let (session, number) = (id, session.number);
                let [from, to] = [from, to].map(|at| (at, self.devices[at].store.key));
                let from = from.1;
                self.messages.push(Message::Request { session, number, from, to, path, body });
            }
            (Machine::Responder(id), Transmit::Response { status, body }) => {
                let Answering { session, number, version, is_first, .. } = self.answering[&id];
                let version = is_first.then_some(version);
                self.messages.push(Message::Response { session, number, version, status, body });
            }
            (machine, transmit) => panic!("{machine:?} sends {transmit:?}"),
        }
    }

    fn event(&mut self, machine: Machine, event: Event) {
        let (at, key) = self.parties(machine);
        match event {
            Event::Ask { peer, question } => {
                self.devices[at].asked.push_back(Asked { machine, key, peer, question });
            }
            Event::Compared { peer, equal } => {
                self.devices[at].store.compared((key, peer), equal);
            }
            Event::Contained { peer, summary } => {
                self.devices[at].store.contained((key, peer), summary);
            }
            Event::Sent { peer, through } => {
                self.devices[at].store.sent((key, peer), through);
            }
            Event::Forked(spot) => {
                self.tally.forked += 1;
                self.forked.push((at, spot.seq));
            }
            Event::Ended { ending, report } => self.end(machine, ending, report),
            Event::Answered(answered) => {
                assert_eq!(answered.violation, None, "we speak our own protocol");
                let Machine::Responder(id) = machine else { panic!("answered by a requester") };
                self.tally.changes_sent += answered.changes_sent;
                self.answering.remove(&id);
            }
        }
    }

    fn parties(&self, machine: Machine) -> (usize, Key) {
        match machine {
            Machine::Requester(id) => {
                let session = &self.sessions[&id];
                (session.from, self.devices[session.to].store.key)
            }
            Machine::Responder(id) => (self.answering[&id].at, self.answering[&id].key),
        }
    }

    fn end(&mut self, machine: Machine, ending: Ending, report: Report) {
        let Machine::Requester(id) = machine else { panic!("ended by a responder") };
        let session = self.sessions.remove(&id).unwrap();
        self.tally.round_trips += report.round_trips;
        self.tally.changes_sent += report.changes_sent;
        let body = report.bytes_sent.max(report.bytes_received);
        self.tally.body_bytes_max = self.tally.body_bytes_max.max(body);
        assert!(!matches!(ending, Ending::Violation(_) | Ending::Refused(_)), "{ending:?}");
        if ending == Ending::InSync {
            self.check_claim(&session);
        }
        self.ended.push((session.from, session.to, ending, report));
    }

    /// Nothing differs where a session says so, if nothing has happened since.
    fn check_claim(&mut self, session: &Session) {
        self.tally.claims += 1;
        let (from, to) = (&self.devices[session.from], &self.devices[session.to]);
        let same = (session.versions.0 == from.version, session.versions.1 == to.version);
        // What is lent must be there, however much the other side has learned since.
        let lends = |it: &Device, other: &Device| it.store.lends_to.contains(&other.store.key);
        let as_told = match (lends(from, to), lends(to, from)) {
            (true, false) => same.0,
            (false, true) => same.1,
            _ => same == (true, true),
        };
        if as_told && session.sharing == (from.sharing, to.sharing) {
            self.tally.claims_checked += 1;
            let differing = differing(&from.store, &to.store);
            assert_eq!(differing, BTreeSet::new(), "seed {}: claimed: {session:?}", self.seed);
        }
    }

    fn time_out(&mut self) -> Option<()> {
        let waiting =
            |(id, session): (&usize, &Session)| Some((session.requester.poll_timeout()?, *id));
        let (deadline, id) = self.sessions.iter().filter_map(waiting).min()?;
        self.now = deadline;
        self.sessions.get_mut(&id)?.requester.handle_timeout(deadline);
        self.poll(Machine::Requester(id));
        Some(())
    }

    /// The process of a device ends, with everything it was doing.
    pub(crate) fn kill(&mut self, at: usize) {
        self.tally.kills += 1;
        let drawn = self.random.random();
        let device = &mut self.devices[at];
        if device.committing.take().is_some() {
            if self.random.random_bool(0.5) {
                // Between two transactions of one question.
                let transactions = self.random.random_range(0..3);
                let committed = device.store.commit(&self.ledger, transactions, drawn);
                self.tally.forks += committed.forks as u64;
            }
            device.version += 1;
        }
        self.stop(at);
    }

    /// Forgets everything a device was doing.
    pub(crate) fn stop(&mut self, at: usize) {
        let device = &mut self.devices[at];
        device.store.kill();
        device.committing = None;
        device.asked.clear();
        device.version += 1;
        self.sessions.retain(|_, session| session.from != at && session.to != at);
        self.answering.retain(|_, answering| answering.at != at);
    }

    /// Notes that what a device shares is another set now.
    pub(crate) fn changed(&mut self, at: usize) {
        self.devices[at].version += 1;
        self.devices[at].sharing += 1;
        self.tally.exclusions += 1;
    }

    /// Returns the links whose ends do not hold the same.
    pub(crate) fn differing(&self) -> Vec<(usize, usize, BTreeSet<DocumentId>)> {
        let store = |at: usize| &self.devices[at].store;
        let links = self.links.iter();
        let differing = links.map(|(a, b)| (*a, *b, differing(store(*a), store(*b))));
        differing.filter(|(_, _, documents)| !documents.is_empty()).collect()
    }

    pub(crate) fn random_document(&mut self) -> DocumentId {
        *self.documents.choose(&mut self.random).unwrap()
    }

    /// Lets `now` pass, so that timeouts come apart.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

/// Returns the documents that both should hold alike and do not.
pub(crate) fn differing(a: &Store, b: &Store) -> BTreeSet<DocumentId> {
    let named = a.named.union(&b.named);
    let [a_takes, b_takes] = [(a, b), (b, a)].map(|(it, from)| !it.lends_to.contains(&from.key));
    let differs = |document: DocumentId| match (a_takes, b_takes) {
        (true, true) => !a.equals(b, document),
        (true, false) => !b.is_within(a, document),
        (false, true) => !a.is_within(b, document),
        (false, false) => false,
    };
    named.filter(|it| a.shares(b, **it) && differs(**it)).copied().collect()
}

fn nothing() -> catchword_proto::session::Apply {
    catchword_proto::session::Apply { heard: None, piece: Vec::new(), bounds: None }
}

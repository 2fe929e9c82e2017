//! Random traces over real stores, real clerks, real machines and a real ledger, all in memory: whatever
//! happens, there is one place in the end, and nothing unsent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use catchword::net::cloud::{Books, Clerk};
use catchword_model::annotation::{Creation, Kind};
use catchword_model::edit::Edit;
use catchword_model::id::{AnnotationId, BookId, DocumentId, sha256};
use catchword_model::identity::{Fingerprint, PublicKey};
use catchword_model::locator::Locator;
use catchword_model::meta::{DeviceName, Meta, Rank};
use catchword_model::position;
use catchword_proto::cloud::api::{AccountId, TokenId};
use catchword_proto::cloud::replicator::{Event, Input, Replicator, Transmit};
use catchword_server::entry::Batch;
use catchword_server::ledger::{AccountRow, DeviceRow, Ledger};
use catchword_store::{
    Backends, CloudLogin, Delivery, Motion, Options, Origin, Peer, Scope, Signer, Store, Turn,
};
use ed25519_dalek::{Signer as _, SigningKey};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use redb::backends::InMemoryBackend;
use tokio::runtime::Runtime;

use super::support::ledger;
use crate::report;

/// Traces of one world: each is about a book of its own.
const TRACES_OF_WORLD: u64 = 20;
/// Rounds in which everybody meets everybody once nothing is lost any more.
const ROUNDS: usize = 12;
const MONDAY_MS: u64 = 1_750_000_000_000;

struct Key {
    secret: SigningKey,
    spki: Vec<u8>,
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
    }

    fn public_key_spki(&self) -> &[u8] {
        &self.spki
    }
}

/// A store on a disk in memory, and its key.
struct Device {
    number: u8,
    key: Key,
    store: Store,
    /// How far its clock is off.
    offset_ms: u64,
    scope: Scope,
}

impl Device {
    fn new(number: u8, world: u64, offset_ms: u64) -> Self {
        let seed = sha256(&[&world.to_be_bytes(), &[number]]);
        let secret = SigningKey::from_bytes(&seed);
        let public = PublicKey::from_bytes(&secret.verifying_key().to_bytes()).unwrap();
        let key = Key { secret, spki: public.to_spki().to_vec() };
        let backends = Backends { wal: InMemoryBackend::new(), library: InMemoryBackend::new() };
        let options = Options {
            public_key_spki: key.spki.clone(),
            device: DeviceName { name: format!("device {number}"), ..DeviceName::default() },
            now_ms: MONDAY_MS,
        };
        let store = Store::open_on(backends, &options).unwrap();
        Self { number, key, store, offset_ms, scope: Scope::All }
    }

    fn towards<T>(&self, other: &Self, run: impl FnOnce(&Peer<'_>) -> T) -> T {
        let mac = |id: DocumentId| sha256(&[&id.0])[..8].try_into().unwrap();
        let generation = other.store.generation();
        let origin = Origin { peer: Fingerprint([other.number; 32]), generation };
        run(&Peer { origin, scope: &self.scope, mac: &mac, now_ms: MONDAY_MS })
    }

    /// Gives another device everything above the mark; returns whether that was anything new.
    fn give(&self, to: &Self) -> bool {
        let mut new = false;
        loop {
            let mark = to.towards(self, |peer| to.store.local(peer).unwrap().mark);
            let piece = self.towards(to, |peer| self.store.collect(peer, mark, &self.key).unwrap());
            let (bounds, bytes) = (Some(piece.bounds), &piece.piece);
            let applied = to.towards(self, |peer| {
                let delivery = Delivery { piece: bytes, bounds, said: None };
                to.store.apply(peer, delivery).unwrap()
            });
            assert_eq!((applied.parked, applied.refused.len()), (0, 0), "{applied:?}");
            new |= 0 < applied.changes_added + applied.events_added;
            if !piece.more {
                return new;
            }
        }
    }

    fn place(&self, book: BookId) -> Option<(String, u64, u32)> {
        let entries = self.store.positions(book).unwrap();
        position::place(&entries)
            .map(|place| (place.device.to_string(), place.stamp().packed(), place.position.ppm))
    }
}

/// A device in the account.
struct Signed {
    device: Device,
    clerk: Clerk,
    machine: Replicator,
    stopped: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// It does not arrive.
    Lost,
}

struct World {
    runtime: Arc<Runtime>,
    ledger: Arc<dyn Ledger>,
    account: AccountId,
    signed: Vec<Signed>,
    /// Paired with all of them, in no account.
    guest: Device,
    now: Instant,
    now_ms: u64,
    next: u64,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    pushes: u64,
    lost: u64,
    withdrawn: u64,
    rewritten: u64,
    rounds: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.pushes += other.pushes;
        self.lost += other.lost;
        self.withdrawn += other.withdrawn;
        self.rewritten += other.rewritten;
        self.rounds = self.rounds.max(other.rounds);
    }
}

impl World {
    fn new(world: u64, runtime: &Arc<Runtime>, ledger: &Arc<dyn Ledger>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(world);
        let mut account = [0; 16];
        account[..8].copy_from_slice(&world.to_be_bytes());
        let row = DeviceRow {
            id: TokenId(account),
            name: String::new(),
            token_hash: [0; 32],
            created_ms: 0,
            expires_ms: u64::MAX >> 1,
        };
        let kept = AccountRow { password_hash: String::new() };
        runtime.block_on(ledger.add_account(AccountId(account), kept, row)).unwrap();
        let url = "https://cloud.example".to_owned();
        let login = CloudLogin { url, account, ..CloudLogin::default() };
        let mut number = 0;
        // Up to a day behind or ahead, or all alike.
        let mut device = || {
            number += 1;
            let offset_ms = [0, 0, 3_600_000, 86_400_000][rng.random_range(0..4)];
            Device::new(number, world, offset_ms)
        };
        let signed = (0..2 + world % 2).map(|_| {
            let device = device();
            device.store.sign_in_to_cloud(&login, MONDAY_MS).unwrap();
            let (clerk, machine) = (Clerk::new(&login), Replicator::new());
            Signed { device, clerk, machine, stopped: false }
        });
        let signed: Vec<_> = signed.collect();
        let guest = device();
        Self {
            runtime: Arc::clone(runtime),
            ledger: Arc::clone(ledger),
            account: AccountId(account),
            signed,
            guest,
            now: Instant::now(),
            now_ms: MONDAY_MS,
            next: 0,
            tally: Tally::default(),
        }
    }

    fn device(&self, who: usize) -> &Device {
        self.signed.get(who).map_or(&self.guest, |signed| &signed.device)
    }

    fn read(&mut self, who: usize, book: BookId, ppm: u32, motion: Motion) {
        self.now_ms += 10;
        let device = self.device(who);
        let locator = Locator::new().with_total_ppm(ppm);
        let turn = Turn { locator, ppm, motion, seconds: 1, from_ppm: 0 };
        device.store.turn(book, &turn, self.now_ms + device.offset_ms).unwrap();
        device.store.publish(book).unwrap();
    }

    fn annotate(&mut self, who: usize, book: BookId) {
        self.now_ms += 10;
        self.next += 1;
        let creation = Creation {
            kind: Kind::Highlight,
            locator: Locator::new().with_total_ppm(1),
            quote: self.next.to_string(),
            color: None,
            note: None,
            created_by: "00000000000000000000000000000001".to_owned(),
            source: None,
            unknown: String::new(),
        };
        let id = AnnotationId::new(self.next, [3; 10]);
        let edit = Edit::Annotate { id, creation: Box::new(creation) };
        let device = self.device(who);
        device.store.append(book.document(), &[edit], self.now_ms + device.offset_ms).unwrap();
    }

    fn meet(&self, who: usize) -> bool {
        let signed = self.device(who);
        signed.give(&self.guest) | self.guest.give(signed)
    }

    /// Tells a machine something, and carries out what it wants until it waits.
    fn drive(&mut self, who: usize, input: Input, mut fate: impl FnMut() -> Fate) {
        let now = self.now;
        self.now_ms += 1;
        let Self { runtime, ledger, account, signed, now_ms, tally, .. } = self;
        let Signed { device, clerk, machine, stopped } = &mut signed[who];
        machine.handle_input(input, now);
        loop {
            if let Some(event) = machine.poll_event() {
                match event {
                    Event::Ask(question) => {
                        let now_ms = *now_ms + device.offset_ms;
                        let books = Books { store: &device.store, signer: &device.key, now_ms };
                        let answer = clerk.answer(books, question).unwrap();
                        machine.handle_input(Input::Answer(answer), now);
                    }
                    Event::Stopped { document, reason } => panic!("{document:?}: {reason:?}"),
                    Event::SignedOut => panic!("nobody signed out"),
                    Event::Waits { .. } => *stopped = true,
                    Event::Synced | Event::RestampGivenUp(_) => (),
                }
            } else if let Some(transmit) = machine.poll_transmit() {
                let fate = fate();
                let lost = Input::Failed { problem: None, retry_after: None, random: 0 };
                if fate == Fate::Lost {
                    machine.handle_input(lost, now);
                    continue;
                }
                let answer = match transmit {
                    Transmit::Pull { after, limit, known } => {
                        if let Some(known) = known {
                            let knows = ledger.knows(*account, known);
                            assert!(runtime.block_on(knows).unwrap(), "nobody restored it");
                        }
                        let page = ledger.page(*account, after, limit.min(40));
                        Input::Pulled(runtime.block_on(page).unwrap())
                    }
                    Transmit::Push(entries) => {
                        tally.pushes += 1;
                        let batch = Arc::new(Batch::read(&entries));
                        Input::Pushed(runtime.block_on(ledger.admit(*account, batch)).unwrap())
                    }
                };
                tally.lost += u64::from(fate == Fate::AnswerLost);
                let answer = if fate == Fate::Answered { answer } else { lost };
                machine.handle_input(answer, now);
            } else {
                return;
            }
        }
    }

    /// The process dies and begins anew: the feed is read before anything is sent.
    fn restart(&mut self, who: usize, fate: impl FnMut() -> Fate) {
        self.signed[who].machine = Replicator::new();
        self.signed[who].stopped = false;
        self.drive(who, Input::Start, fate);
    }

    fn act(&mut self, book: BookId, rng: &mut ChaCha8Rng) {
        let somebody = rng.random_range(0..=self.signed.len());
        let who = rng.random_range(0..self.signed.len());
        let mut dice = ChaCha8Rng::seed_from_u64(rng.random_range(0..u64::MAX));
        let fate = move || match dice.random_range(0..8) {
            0 => Fate::AnswerLost,
            1 => Fate::Lost,
            _ => Fate::Answered,
        };
        match rng.random_range(0..16) {
            0..=4 => {
                let ppm = rng.random_range(0..10) * 100_000;
                let motion = match rng.random_range(0..12) {
                    0 => Motion::Jumped,
                    1 => Motion::Restarted,
                    _ => Motion::Turned,
                };
                self.read(somebody, book, ppm, motion);
            }
            5 | 6 => self.annotate(somebody, book),
            // Without having read the feed before, if the machine was at rest.
            7..=10 if !self.signed[who].stopped => self.drive(who, Input::Changed, fate),
            7..=12 => self.restart(who, fate),
            13 => {
                let end = self.runtime.block_on(self.ledger.end(self.account)).unwrap();
                self.drive(who, Input::Nudged(end), fate);
            }
            _ => drop(self.meet(who)),
        }
        self.now += Duration::from_millis(50);
    }

    /// Nothing is lost any more, and everybody meets everybody, until nobody has anything new.
    fn settle(&mut self) -> usize {
        for round in 1..=ROUNDS {
            let before = self.runtime.block_on(self.ledger.end(self.account)).unwrap();
            let mut new = false;
            for who in 0..self.signed.len() {
                self.restart(who, || Fate::Answered);
                new |= self.meet(who);
            }
            if !new && before == self.runtime.block_on(self.ledger.end(self.account)).unwrap() {
                return round;
            }
        }
        panic!("they do not come to rest");
    }

    fn check(&mut self, book: BookId) {
        let kept = self.runtime.block_on(self.ledger.book(self.account, book)).unwrap();
        let kept = kept.and_then(|kept| kept.place);
        let kept = kept.map(|place| (place.device.to_string(), place.stamp, place.ppm));
        let heads = self.guest.store.heads(book.document()).unwrap();
        assert_eq!(self.guest.place(book), kept, "the device without an account");
        for signed in &self.signed {
            assert_eq!(signed.device.place(book), kept, "device {}", signed.device.number);
            assert_eq!(signed.device.store.heads(book.document()).unwrap(), heads);
            let books = Books {
                store: &signed.device.store,
                signer: &signed.device.key,
                now_ms: self.now_ms,
            };
            assert_eq!(signed.clerk.outbox(books).unwrap(), 0, "something is unsent");
        }
    }

    fn trace(&mut self, number: u64, rng: &mut ChaCha8Rng) {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let book = BookId(id);
        let meta = Meta { value: "a book".into(), rank: Rank::File };
        let titled = Edit::SetMeta { field: "title".to_owned(), meta };
        for who in 0..=self.signed.len() {
            let device = self.device(who);
            device.store.add_book(book, vec![titled.clone()], Vec::new(), self.now_ms).unwrap();
        }
        for _ in 0..rng.random_range(6..30) {
            self.act(book, rng);
        }
        self.tally.rounds = self.tally.rounds.max(self.settle());
        self.check(book);
    }
}

/// Runs some worlds, one after the other, and returns what happened in all of them.
fn search(worlds: impl Iterator<Item = u64>) -> Tally {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = Arc::new(runtime.build().unwrap());
    let (mut all, mut of_ledger) = (Tally::default(), ledger());
    for (number, world) in worlds.enumerate() {
        // A ledger in memory only grows.
        if number % 100 == 99 {
            of_ledger = ledger();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(world);
        let mut here = World::new(world, &runtime, &of_ledger);
        for trace in 0..TRACES_OF_WORLD {
            let context = format!("CATCHWORD_SEED={world} trace {trace}");
            let live = std::panic::AssertUnwindSafe(|| here.trace(trace, &mut rng));
            if let Err(panic) = std::panic::catch_unwind(live) {
                report(&context);
                std::panic::resume_unwind(panic);
            }
        }
        for signed in &here.signed {
            let tally = signed.clerk.tally();
            here.tally.withdrawn += tally.refused;
            here.tally.rewritten += tally.rebased;
        }
        all.add(&here.tally);
    }
    all
}

/// As many traces as `CATCHWORD_TRACES` says, on all cores.
#[test]
fn whatever_happens_there_is_one_place_in_the_end_and_nothing_unsent() {
    let traces: u64 = std::env::var("CATCHWORD_TRACES").map_or(200, |text| text.parse().unwrap());
    let worlds = traces.div_ceil(TRACES_OF_WORLD);
    let first: u64 = std::env::var("CATCHWORD_SEED").map_or(0, |text| text.parse().unwrap());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..cores as u64)
            .map(|core| scope.spawn(move || search((first + core..first + worlds).step_by(cores))))
            .collect();
        for part in parts {
            all.add(&part.join().unwrap());
        }
    });
    let Tally { pushes, lost, withdrawn, rewritten, rounds } = all;
    report(&format!(
        "cloud: {} traces, {pushes} pushes, {lost} answers lost, {withdrawn} positions refused, \
         {rewritten} rebased; at rest after at most {rounds} rounds",
        worlds * TRACES_OF_WORLD
    ));
    assert!(traces < pushes && 0 < lost && 0 < withdrawn && 0 < rewritten);
}

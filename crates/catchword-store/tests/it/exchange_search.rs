//! Random traces of devices that sync by marks and by vectors, with losses, duplicates and kills.

use std::collections::BTreeMap;

use catchword_model::id::DocumentId;
use catchword_store::{Bounds, Given, Rejection};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::exchange_disk::Disk;
use crate::exchange_support::{Device, differing, exchange_options, give, reconcile};
use crate::oracle::everything;
use crate::support::{BOOK, MONDAY_MS, annotate, arb_edit, titled, turn};

/// Who meets whom.
const CHAIN: &[(usize, usize)] = &[(0, 1), (1, 2)];
const TRIANGLE: &[(usize, usize)] = &[(0, 1), (1, 2), (2, 0)];

/// Who sent a piece, who gets it, the piece, and its bounds.
type Flying = (usize, usize, Vec<u8>, Bounds);

struct World {
    rng: ChaCha8Rng,
    disks: Vec<Disk>,
    devices: Vec<Device>,
    edges: &'static [(usize, usize)],
    flying: Vec<Flying>,
    /// Up to where the last piece from one to another went, and what closed it.
    given: BTreeMap<(usize, usize), (u64, Given)>,
    interval: u64,
    now: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let edges = if rng.random() { CHAIN } else { TRIANGLE };
        let interval = rng.random_range(2..4);
        let disks = vec![Disk::default(), Disk::default(), Disk::default()];
        let devices = (1..).zip(&disks).map(|(number, disk)| Device::on(number, disk)).collect();
        let (flying, given, now) = (Vec::new(), BTreeMap::new(), MONDAY_MS);
        let mut world = Self { rng, disks, devices, edges, flying, given, interval, now };
        for device in 0..3 {
            world.set_options(device);
            if world.rng.random() || device == 0 {
                let store = &world.devices[device].store;
                store.add_book(BOOK, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap();
            }
        }
        world
    }

    fn set_options(&mut self, device: usize) {
        let piece = [1, 400, 1 << 20][self.rng.random_range(0..3)];
        let parked = self.rng.random_range(1..4);
        let options = exchange_options(self.interval, piece, parked);
        self.devices[device].store.set_exchange_options(options);
    }

    fn has_book(&self, device: usize) -> bool {
        self.devices[device].store.heads(BOOK.document()).unwrap().is_some()
    }

    fn step(&mut self) {
        self.now += 1;
        let (who, now) = (self.rng.random_range(0..3), self.now);
        let (x, y) = self.edges[self.rng.random_range(0..self.edges.len())];
        let (from, to) = if self.rng.random() { (x, y) } else { (y, x) };
        match self.rng.random_range(0..15) {
            0..5 if self.has_book(who) => {
                let edit = arb_edit(&mut self.rng);
                drop(self.devices[who].store.append(BOOK.document(), &[edit], now));
            }
            5 if self.has_book(who) => {
                let turn = turn(self.rng.random_range(0..1_000_001));
                self.devices[who].store.turn(BOOK, &turn, now).unwrap();
            }
            6 if self.has_book(who) => drop(self.devices[who].store.publish(BOOK)),
            7 if self.has_book(who) => {
                let text = format!("words {}", self.rng.random_range(0..9));
                self.devices[who].store.set_journal(BOOK, &text, now).unwrap();
            }
            8..11 => {
                let (from_device, to_device) = (&self.devices[from], &self.devices[to]);
                let after = to_device.mark_of(from_device);
                let given = self.given.remove(&(from, to)).filter(|(through, _)| *through == after);
                let given = given.map(|(_, given)| given).unwrap_or_default();
                let piece = from_device.towards(to_device.origin(), |peer| {
                    let store = &from_device.store;
                    store.collect_next(peer, after, &given, &from_device.key).unwrap()
                });
                self.given.insert((from, to), (piece.bounds.through, piece.given));
                self.flying.push((from, to, piece.piece, piece.bounds));
            }
            11 | 12 if !self.flying.is_empty() => {
                let at = self.rng.random_range(0..self.flying.len());
                // Some arrive twice, some late, some never.
                let (from, to, piece, bounds) = if self.rng.random() {
                    self.flying[at].clone()
                } else {
                    self.flying.swap_remove(at)
                };
                let applied = self.devices[to].apply(&self.devices[from], &piece, Some(bounds));
                // Nothing but a book that was removed.
                let removed = |(_, rejection): &(_, Rejection)| {
                    matches!(rejection, Rejection::NotExchanged(_))
                };
                assert!(applied.refused.iter().all(removed), "{:?}", applied.refused);
            }
            13 => self.kill(who),
            14 if self.has_book(who) => {
                let store = &self.devices[who].store;
                if !store.restore_removed(BOOK).unwrap() {
                    store.remove(BOOK, now).unwrap();
                }
            }
            _ => (),
        }
    }

    /// Ends a process; what is on its disk comes back.
    fn kill(&mut self, who: usize) {
        let disk = self.disks[who].copy();
        let number = self.devices[who].number;
        let dead = std::mem::replace(&mut self.devices[who], Device::on(number, &disk));
        std::mem::forget(dead.store);
        self.disks[who] = disk;
        self.set_options(who);
    }

    /// Lets everybody meet until nobody has anything to say; returns how many rounds of vectors it took.
    fn come_to_rest(&mut self) -> u64 {
        for device in &self.devices {
            device.store.publish_all().unwrap();
            if device.store.heads(BOOK.document()).unwrap().is_some() {
                device.store.restore_removed(BOOK).unwrap();
            }
        }
        let mut rounds = 0;
        for _ in 0..3 {
            for (x, y) in self.edges {
                let (a, b) = (&self.devices[*x], &self.devices[*y]);
                give(a, b);
                give(b, a);
                rounds += reconcile(a, b);
            }
        }
        rounds
    }
}

#[test]
fn everything_reaches_everybody_whatever_is_lost() {
    let (mut steps, mut by_vectors) = (0, 0);
    for seed in 0..120 {
        let mut world = World::new(seed);
        for _ in 0..80 {
            world.step();
            steps += 1;
        }
        by_vectors += world.come_to_rest();
        let first = everything(&world.devices[0].store);
        for device in &world.devices {
            assert_eq!(everything(&device.store), first, "seed {seed}, device {}", device.number);
            for document in [DocumentId::library(), BOOK.notes_document()] {
                let expected = world.devices[0].heads(document);
                assert_eq!(device.heads(document), expected, "seed {seed}");
            }
            let events = |device: &Device| device.store.view(BOOK).unwrap().unwrap().events;
            assert_eq!(events(device), events(&world.devices[0]), "seed {seed}");
            assert!(device.store.parked().unwrap().is_empty(), "seed {seed}");
            assert!(device.store.pauses().unwrap().is_empty(), "seed {seed}");
            device.assert_clean();
        }
        for (x, y) in world.edges {
            assert!(differing(&world.devices[*x], &world.devices[*y]).is_empty());
        }
    }
    assert!(0 < by_vectors, "a book that was removed and added again is found by vectors");
    eprintln!("{steps} steps, {by_vectors} rounds by vectors");
}

#[test]
fn a_power_cut_at_any_flush_of_a_piece_loses_nothing_and_repeats_nothing() {
    let a = Device::on(1, &Disk::default());
    for book in [BOOK, catchword_model::id::BookId([8; 32])] {
        a.store.add_book(book, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap();
        let batch: Vec<_> = (0..4_200).map(|n| (book.document(), vec![annotate(n, 5)])).collect();
        a.store.append_all(&batch, MONDAY_MS).unwrap();
    }
    let fresh = Disk::default();
    drop(Device::on(2, &fresh));
    let mut cuts = 0;
    for flushes in 1.. {
        let disk = fresh.copy();
        let b = Device::on(2, &disk);
        let piece = a.collect(&b, 0);
        disk.cut_after(flushes);
        let delivery = catchword_store::Delivery {
            piece: &piece.piece,
            bounds: Some(piece.bounds),
            said: None,
        };
        let applied = b.towards(a.origin(), |peer| b.store.apply(peer, delivery));
        let cut = disk.is_cut();
        std::mem::forget(b.store);

        let disk = disk.copy();
        let b = Device::on(2, &disk);
        let mark = b.mark_of(&a);
        assert!(mark == 0 || mark == piece.bounds.through, "a mark moves with all it stands for");
        if applied.is_ok() {
            assert_eq!(mark, piece.bounds.through);
        }
        b.assert_clean();
        give(&a, &b);
        give(&b, &a);
        assert_eq!(a.sum_towards(&b), b.sum_towards(&a), "cut at flush {flushes}");
        if !cut {
            break;
        }
        cuts += 1;
    }
    assert!(4 <= cuts, "two transactions at least, of two flushes: {cuts}");
    eprintln!("{cuts} power cuts");
}

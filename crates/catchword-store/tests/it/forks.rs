//! Devices that were copied, or whose disk lost what had left it: two histories of one writer.

use std::collections::BTreeSet;

use catchword_model::id::{AnnotationId, DocumentId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::exchange_disk::Disk;
use crate::exchange_support::{Device, exchange_options, give, reconcile, sync};
use crate::oracle::everything;
use crate::support::{BOOK, MONDAY_MS, annotate, arb_edit, titled, turn};

/// Two stores of one device that do not know of each other, and one that hears both.
pub(crate) fn clones(events: bool) -> (Device, Device, Device) {
    let disk = Disk::default();
    let original = Device::on(1, &disk);
    original.store.add_book(BOOK, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap();
    original.store.drain().unwrap();
    let copy = Device::on(1, &disk.copy());
    let third = Device::empty(3);
    for (device, ppm) in [(&original, 100), (&copy, 200)] {
        if events {
            device.store.turn(BOOK, &turn(ppm), MONDAY_MS).unwrap();
            device.store.publish(BOOK).unwrap();
        } else {
            device.write(&[annotate(u64::from(ppm), ppm)], u64::from(ppm));
        }
    }
    (original, copy, third)
}

/// Returns the annotations that can be shown.
fn shown(device: &Device) -> BTreeSet<AnnotationId> {
    let mut ids = BTreeSet::new();
    device
        .store
        .rows(BOOK, 0, u32::MAX, |row| {
            ids.insert(row.id);
        })
        .unwrap();
    ids
}

fn id(n: u64) -> AnnotationId {
    AnnotationId::new(n, [3; 10])
}

/// Everything that a device says of the book, however it came to know it.
fn said(device: &Device) -> impl PartialEq + std::fmt::Debug {
    let view = device.store.view(BOOK).unwrap().unwrap();
    let heads = [BOOK.document(), BOOK.notes_document(), DocumentId::library()];
    let heads = heads.map(|document| device.heads(document));
    (everything(&device.store), view.events, device.store.journal(BOOK).unwrap(), heads)
}

#[test]
fn t_mal_4_of_two_histories_one_counts_and_the_other_is_written_again() {
    for events in [false, true] {
        let (original, copy, third) = clones(events);
        let before = original.store.device();
        assert_eq!(original.store.generation(), copy.store.generation());
        give(&original, &third);
        third.write(&[annotate(77, 7)], 50);
        copy.write(&[annotate(300, 300)], 300);
        copy.store.turn(BOOK, &turn(300), MONDAY_MS).unwrap();
        copy.store.publish(BOOK).unwrap();
        let expected: BTreeSet<_> = if events { vec![77, 300] } else { vec![77, 100, 200, 300] }
            .into_iter()
            .map(id)
            .collect();

        let piece = copy.collect(&third, 0);
        let applied = third.apply(&copy, &piece.piece, None);
        let [found, ..] = applied.equivocations.as_slice() else { panic!("{applied:?}") };
        assert_eq!((found.document, found.own), (BOOK.document(), false));
        assert!(third.store.pauses().unwrap().is_empty());
        for _ in 0..3 {
            for device in [&original, &copy] {
                sync(device, &third);
                reconcile(device, &third);
            }
        }
        for device in [&original, &copy] {
            assert_ne!(device.store.device(), before, "another generation");
            assert_eq!(said(device), said(&third));
            device.assert_clean();
        }
        third.assert_clean();
        assert_ne!(original.store.device(), copy.store.device());
        assert_eq!(shown(&third), expected, "nothing is lost");
        let seconds = third.store.view(BOOK).unwrap().unwrap().events.seconds;
        assert_eq!(seconds, if events { 90 } else { 30 }, "nothing is counted twice");
        // The new actors go on as ever.
        original.write(&[annotate(8, 8)], 400);
        sync(&original, &third);
        sync(&copy, &third);
        assert!(shown(&copy).contains(&id(8)));
        assert_eq!(reconcile(&copy, &third), 0);
    }
}

#[test]
fn a_power_cut_while_a_document_is_laid_out_anew_loses_nothing() {
    let mut cuts = 0;
    for flushes in 1.. {
        let (original, copy, _) = clones(false);
        let disk = Disk::default();
        let third = Device::on(3, &disk);
        third.store.set_exchange_options(exchange_options(2, 1 << 20, 8));
        give(&original, &third);
        third.write(&[annotate(77, 7)], 50);
        for n in 0..20 {
            copy.write(&[annotate(300 + n, 300)], n);
        }
        let pieces = [copy.collect(&third, 0).piece, original.collect(&third, 0).piece];
        disk.cut_after(flushes);
        for (from, piece) in [&copy, &original].into_iter().zip(&pieces) {
            drop(third.towards(from.origin(), |peer| {
                let delivery = catchword_store::Delivery { piece, bounds: None, said: None };
                third.store.apply(peer, delivery)
            }));
        }
        let cut = disk.is_cut();
        std::mem::forget(third.store);

        let third = Device::on(3, &disk.copy());
        third.assert_clean();
        assert!(
            shown(&third).is_superset(&BTreeSet::from([id(77), id(100)])) || {
                // What the original wrote may be void here, and is its own to write again.
                shown(&third).contains(&id(77))
            }
        );
        for _ in 0..3 {
            for device in [&original, &copy] {
                sync(device, &third);
                reconcile(device, &third);
            }
        }
        assert_eq!(said(&original), said(&third), "cut at flush {flushes}");
        assert_eq!(said(&copy), said(&third), "cut at flush {flushes}");
        assert_eq!(shown(&third).len(), 23);
        if !cut {
            break;
        }
        cuts += 1;
    }
    assert!(4 <= cuts, "{cuts}");
    eprintln!("{cuts} power cuts while a document was laid out anew");
}

#[test]
fn a_change_that_is_void_everywhere_comes_back_to_a_writer_that_forgot_it() {
    let disk = Disk::default();
    let original = Device::on(1, &disk);
    original.store.add_book(BOOK, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap();
    original.store.drain().unwrap();
    let (earlier, copied) = (disk.copy(), disk.copy());
    let copy = Device::on(1, &copied);
    let third = Device::empty(3);
    original.write(&[annotate(1, 1)], 1);
    copy.write(&[annotate(2, 2)], 2);
    give(&original, &third);
    // By its marks it is the same device, so all of it is asked for.
    third.apply(&copy, &copy.collect(&third, 0).piece, None);
    // Both are gone, and what is left of them knows of neither.
    drop((original, copy));
    let restored = Device::on(1, &earlier);
    for _ in 0..3 {
        sync(&restored, &third);
        reconcile(&restored, &third);
    }
    assert_eq!(said(&restored), said(&third));
    assert_eq!(shown(&third), BTreeSet::from([id(1), id(2)]));
}

/// Devices of which some are copied, and some go back without notice.
struct World {
    rng: ChaCha8Rng,
    disks: Vec<Disk>,
    devices: Vec<Device>,
    /// Earlier states of disks.
    earlier: Vec<(usize, Disk)>,
    interval: u64,
    now: u64,
    next: u64,
    /// What was written on each disk, and what of it reached another device.
    written: BTreeSet<AnnotationId>,
    goes_back: bool,
}

impl World {
    fn new(seed: u64, goes_back: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let disks = vec![Disk::default(), Disk::default(), Disk::default()];
        let devices: Vec<Device> =
            (1..).zip(&disks).map(|(number, disk)| Device::on(number, disk)).collect();
        let interval = rng.random_range(2..5);
        for device in &devices {
            device.store.add_book(BOOK, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap();
            device.store.set_exchange_options(exchange_options(interval, 1 << 20, 1_000));
        }
        let (earlier, written) = (Vec::new(), BTreeSet::new());
        let (now, next) = (MONDAY_MS, 100);
        Self { rng, disks, devices, earlier, interval, now, next, written, goes_back }
    }

    fn open(&self, number: u8, disk: &Disk) -> Device {
        let device = Device::on(number, disk);
        device.store.set_exchange_options(exchange_options(self.interval, 1 << 20, 1_000));
        device
    }

    fn step(&mut self) {
        self.now += 1;
        let (who, now) = (self.rng.random_range(0..self.devices.len()), self.now);
        let other = self.rng.random_range(0..self.devices.len());
        let device = &self.devices[who];
        match self.rng.random_range(0..20) {
            0..4 => {
                let edit = arb_edit(&mut self.rng);
                drop(device.store.append(BOOK.document(), &[edit], now));
            }
            4..7 => {
                self.next += 1;
                device.store.append(BOOK.document(), &[annotate(self.next, 5)], now).unwrap();
                self.written.insert(id(self.next));
            }
            7 => {
                let turn = turn(self.rng.random_range(0..1_000_001));
                device.store.turn(BOOK, &turn, now).unwrap();
                device.store.publish(BOOK).unwrap();
            }
            8 => {
                let text = device.store.journal(BOOK).unwrap();
                self.next += 1;
                let text = format!("{text}{} ", self.next);
                device.store.set_journal(BOOK, &text, now).unwrap();
            }
            9..17 if device.number != self.devices[other].number => {
                give(device, &self.devices[other]);
            }
            17 if self.devices.len() < 5 => {
                device.store.drain().unwrap();
                let disk = self.disks[who].copy();
                let copy = self.open(device.number, &disk);
                self.disks.push(disk);
                self.devices.push(copy);
            }
            18 if self.goes_back => {
                device.store.drain().unwrap();
                self.earlier.push((who, self.disks[who].copy()));
            }
            19 if self.goes_back && !self.earlier.is_empty() => {
                let at = self.rng.random_range(0..self.earlier.len());
                let (who, disk) = self.earlier.swap_remove(at);
                let disk = disk.copy();
                let back = self.open(self.devices[who].number, &disk);
                let dead = std::mem::replace(&mut self.devices[who], back);
                std::mem::forget(dead.store);
                self.disks[who] = disk;
            }
            _ => (),
        }
    }

    /// Lets everybody meet who can, until nothing is new.
    fn come_to_rest(&self, context: &str) -> u64 {
        for round in 1..20 {
            let before: Vec<_> = self.devices.iter().map(said).collect();
            for one in &self.devices {
                for other in self.devices.iter().filter(|other| other.number != one.number) {
                    sync(one, other);
                    reconcile(one, other);
                }
            }
            let after: Vec<_> = self.devices.iter().map(said).collect();
            if before == after {
                return round;
            }
        }
        panic!("they do not come to rest: {context}");
    }
}

fn search(goes_back: bool, seeds: u64) {
    let (mut forks, mut rounds) = (0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed, goes_back);
        for _ in 0..60 {
            world.step();
        }
        let context = format!("seed {seed}");
        rounds = rounds.max(world.come_to_rest(&context));
        let first = said(&world.devices[0]);
        for device in &world.devices {
            assert_eq!(said(device), first, "{context}, device {}", device.number);
            assert!(device.store.pauses().unwrap().is_empty(), "{context}");
            assert!(device.store.parked().unwrap().is_empty(), "{context}");
            device.assert_clean();
            // Automerge takes what counts, and has the same heads.
            device.store.save_document(BOOK.document()).unwrap();
            device.store.save_document(BOOK.notes_document()).ok();
            forks += device.store.replaced_devices().len();
        }
        if !goes_back {
            let shown = shown(&world.devices[0]);
            assert!(world.written.is_subset(&shown), "{context}: something is lost");
        }
    }
    assert!(0 < forks, "nobody forked");
    eprintln!("{seeds} seeds, {forks} generations ended, at rest after at most {rounds} rounds");
}

fn seeds() -> u64 {
    std::env::var("CATCHWORD_SEEDS").map_or(40, |text| text.parse().unwrap())
}

#[test]
fn copies_that_write_apart_end_equal_and_nothing_is_lost() {
    search(false, seeds());
}

#[test]
fn devices_that_go_back_without_notice_end_equal() {
    search(true, seeds());
}

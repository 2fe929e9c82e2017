//! Random actions with kills, power cuts, failures and full disks, on one device and on three that
//! exchange what they have.
//!
//! Goal: nothing that was acknowledged is lost, nothing is invented, and devices that have seen the
//! same changes agree with each other, with the plain reference and with Automerge, in whatever
//! order the changes came.

use catchword_sim::action::Action;
use catchword_sim::device::{Device, Tally};
use catchword_sim::memory::book_id;
use catchword_sim::oracle::{self, Ledger};
use catchword_store::Received;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{report, seeds};

/// Actions of one device, and of three together.
const ACTIONS: usize = 120;

/// Orders in which a fresh device gets everything.
const ORDERS: usize = 3;

fn add(sum: &mut Tally, tally: Tally) {
    sum.acknowledged += tally.acknowledged;
    sum.refused += tally.refused;
    sum.failed += tally.failed;
    sum.closed += tally.closed;
    sum.in_doubt_kept += tally.in_doubt_kept;
    sum.kills += tally.kills;
    sum.power_cuts += tally.power_cuts;
    sum.opened += tally.opened;
    sum.open_failed += tally.open_failed;
    sum.slowest_open = sum.slowest_open.max(tally.slowest_open);
    sum.replayed += tally.replayed;
    sum.turns_found += tally.turns_found;
    sum.received += tally.received;
}

fn one_device(seed: u64) -> anyhow::Result<(Tally, usize)> {
    let mut device = Device::new(1, seed)?;
    let mut ledger = Ledger::default();
    let begin = [Action::Import { book: 0 }, Action::Import { book: 1 }];
    for (step, action) in begin.iter().chain(&Action::sequence(seed, ACTIONS)).enumerate() {
        device.perform(action, &[])?;
        if step % 40 == 39 {
            device.mend();
            device.perform(&Action::Kill, &[])?;
            device.check(&mut ledger)?;
        }
    }
    Ok((device.tally(), ledger.changes()))
}

#[test]
fn nothing_is_lost_or_invented_on_one_device_whatever_happens_to_it() {
    let (mut sum, mut changes) = (Tally::default(), 0);
    for seed in seeds() {
        match one_device(seed) {
            Ok((tally, more)) => {
                add(&mut sum, tally);
                changes += more;
            }
            Err(broken) => panic!("seed {seed}: {broken:?}\nagain: CATCHWORD_SEED={seed}"),
        }
    }
    let seeds = seeds().count();
    report(&format!(
        "T-CRASH-1, random stories of one device: {seeds} seeds, {changes} changes, 0 lost; {sum:#?}"
    ));
    if 100 < seeds {
        let happened = [sum.failed, sum.closed, sum.kills, sum.power_cuts, sum.turns_found];
        assert!(happened.iter().all(|often| 20 < *often), "too little happened: {happened:?}");
    }
}

/// What the device would send, if its disk lets it.
fn offered(device: &Device) -> Vec<Received> {
    device.changes().unwrap_or_default()
}

fn three_devices(seed: u64) -> anyhow::Result<(Tally, usize)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut devices = vec![Device::new(1, seed)?, Device::new(2, seed)?, Device::new(3, seed)?];
    let mut ledger = Ledger::default();
    for device in &mut devices {
        device.perform(&Action::Import { book: 0 }, &[])?;
    }
    for action in Action::sequence(seed ^ 0x5EED, ACTIONS) {
        let who = random.random_range(0..devices.len());
        let from = if let Action::Receive { from } = action { usize::from(from) } else { 0 };
        let others = match from {
            0 => Vec::new(),
            from => offered(&devices[(who + from) % devices.len()]),
        };
        devices[who].perform(&action, &others)?;
    }
    for device in &mut devices {
        device.mend();
        device.perform(&Action::Kill, &[])?;
        device.check(&mut ledger)?;
    }
    exchange(&mut devices)?;
    for device in &devices {
        device.check(&mut ledger)?;
    }
    assert_agree(&devices, &mut random)?;
    let mut sum = Tally::default();
    for device in &devices {
        add(&mut sum, device.tally());
    }
    Ok((sum, ledger.changes()))
}

/// Gives everything to everybody.
fn exchange(devices: &mut [Device]) -> anyhow::Result<()> {
    let count = devices.len();
    for who in (0..count).chain(0..count) {
        for from in 1..3 {
            let others = devices[(who + usize::from(from)) % count].changes()?;
            devices[who].perform(&Action::Receive { from }, &others)?;
        }
    }
    Ok(())
}

/// Devices that have the same changes agree, and so does a fresh one, whatever the order of arrival.
fn assert_agree(devices: &[Device], random: &mut ChaCha8Rng) -> anyhow::Result<()> {
    let mut changes = devices[0].changes()?;
    let mut fresh = Vec::new();
    for order in 0..ORDERS {
        let mut device = Device::new(9, order as u64)?;
        changes.shuffle(random);
        let piece = random.random_range(1..60);
        give_in_pieces(&mut device, &changes, piece)?;
        fresh.push(device);
    }
    for book in devices[0].acknowledged().books.keys() {
        let expected = oracle::check(devices[0].store()?, book_id(*book))?;
        let heads = devices[0].store()?.heads(book_id(*book).document())?;
        let journal = devices[0].store()?.journal(book_id(*book))?;
        for device in devices.iter().chain(&fresh) {
            let store = device.store()?;
            anyhow::ensure!(oracle::check(store, book_id(*book))? == expected, "registers differ");
            anyhow::ensure!(store.heads(book_id(*book).document())? == heads, "heads differ");
            anyhow::ensure!(store.journal(book_id(*book))? == journal, "journals differ");
        }
    }
    Ok(())
}

/// Gives changes piece by piece; those whose past is missing come again with the next piece.
fn give_in_pieces(device: &mut Device, changes: &[Received], piece: usize) -> anyhow::Result<()> {
    for book in 0..catchword_sim::action::BOOKS {
        let id = book_id(book);
        if changes.iter().any(|change| change.document == id.document()) {
            device.store()?.expect_book(id)?;
        }
    }
    let mut waiting: Vec<Received> = Vec::new();
    for more in changes.chunks(piece) {
        waiting.extend(more.iter().cloned());
        let report = device.store()?.receive(&waiting)?;
        let taken = report.added + report.known + report.rejected.len() as u64;
        anyhow::ensure!(taken == waiting.len() as u64, "a change is not accounted for");
        let mut left = Vec::new();
        for received in waiting {
            let change = catchword_model::change::read::read(&received.bytes)?;
            let missing = report.rejected.iter().any(|(_, why)| {
                matches!(why, catchword_store::Rejection::Missing { hash, .. } if *hash == change.hash())
            });
            left.extend(missing.then_some(received));
        }
        anyhow::ensure!(left.len() == report.rejected.len(), "{:?}", report.rejected);
        waiting = left;
    }
    anyhow::ensure!(waiting.is_empty(), "{} changes never found their past", waiting.len());
    Ok(())
}

#[test]
fn three_devices_agree_whatever_happens_to_them_and_in_whatever_order_changes_come() {
    let (mut sum, mut changes) = (Tally::default(), 0);
    for seed in seeds() {
        match three_devices(seed) {
            Ok((tally, more)) => {
                add(&mut sum, tally);
                changes += more;
            }
            Err(broken) => panic!("seed {seed}: {broken:?}\nagain: CATCHWORD_SEED={seed}"),
        }
    }
    let seeds = seeds().count();
    let orders = seeds * ORDERS;
    report(&format!(
        "three devices: {seeds} seeds, {changes} changes, {orders} orders of arrival, 0 lost; {sum:#?}"
    ));
}

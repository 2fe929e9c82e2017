//! T-CRASH-1 and T-CRASH-2: every kind of write on a disk that fails at every call, fills up at every block, or loses power at
//! every call.
//!
//! Goal: what was acknowledged is read before and after reopening, the write that failed is there
//! wholly or not at all, the error is typed, and the library can be written again.

use std::time::Duration;

use catchword_sim::action::{Action, DiskName};
use catchword_sim::device::Device;
use catchword_sim::disk::{BLOCK_BYTES, Outage};
use catchword_sim::oracle::Ledger;
use catchword_store::{Received, WAITING_MAX};

use crate::report;

const BOOK: u8 = 0;
const TAG: Action = Action::Tag { book: BOOK, word: 3 };
const TURN: Action = Action::Turn { book: BOOK, ppm: 300_000, seconds: 30 };

/// A write, and the state it is made in.
struct Kind {
    name: &'static str,
    before: Vec<Action>,
    write: Action,
}

fn kinds() -> Vec<Kind> {
    let annotate = Action::Annotate { book: BOOK, annotation: 7, ppm: 200_000 };
    let many = Action::AnnotateMany { book: BOOK, count: 80 };
    let journal = |word| Action::Journal { book: BOOK, word };
    let full_tail =
        (0..4).cycle().take(WAITING_MAX - 1).map(|word| Action::SetTitle { book: BOOK, word });
    let some = || vec![Action::Untag { book: BOOK, word: 1 }, Action::Tag { book: BOOK, word: 2 }];
    let and_turn = || [some(), vec![TURN]].concat();
    let kind = |name, before, write| Kind { name, before, write };
    vec![
        kind("append", some(), annotate.clone()),
        kind("append that publishes a turn", and_turn(), annotate.clone()),
        kind("append that drains", [vec![Action::Drain], full_tail.collect()].concat(), annotate),
        kind("append after a drain", vec![Action::Drain], TAG),
        kind("append_all", some(), many.clone()),
        kind("append_all that publishes a turn", and_turn(), many),
        kind("turn", and_turn(), TURN),
        kind("publish", and_turn(), Action::Publish { book: BOOK }),
        kind("drain", and_turn(), Action::Drain),
        kind("compact", and_turn(), Action::Compact),
        kind("compact again", [vec![Action::Compact], and_turn()].concat(), Action::Compact),
        kind("add_book", and_turn(), Action::Import { book: 1 }),
        kind("add_book again, which publishes a turn", and_turn(), Action::Import { book: BOOK }),
        kind("first journal", and_turn(), journal(1)),
        kind("journal", [vec![journal(1)], and_turn()].concat(), journal(2)),
        kind("receive", and_turn(), Action::Receive { from: 1 }),
        kind("reopen", and_turn(), Action::Reopen),
    ]
}

/// A device that has lived a little.
fn lived(number: u8) -> Device {
    let mut device = Device::new(number, 1).unwrap();
    let mut actions = vec![Action::Import { book: BOOK }];
    actions.extend((0..5).map(|annotation| Action::Annotate {
        book: BOOK,
        annotation: annotation + number,
        ppm: 100_000 * u32::from(annotation),
    }));
    actions.push(Action::Delete { book: BOOK, annotation: 3 });
    actions.push(Action::Tag { book: BOOK, word: 1 });
    actions.push(TURN);
    actions.push(Action::Publish { book: BOOK });
    for action in &actions {
        device.perform(action, &[]).unwrap();
    }
    device
}

/// Every kind, with the device as it is before the write, and what another device has.
fn prepared() -> Vec<(Kind, Device, Vec<Received>)> {
    let other = lived(2).changes().unwrap();
    let prepare = |kind: Kind| {
        let mut device = lived(1);
        for action in &kind.before {
            device.perform(action, &[]).unwrap();
        }
        (kind, device, other.clone())
    };
    kinds().into_iter().map(prepare).collect()
}

/// Makes the write on a copy of the device with a disk that was made worse, and checks everything in
/// every state after. Returns whether anything failed.
fn disturb(
    (kind, before, other): &(Kind, Device, Vec<Received>),
    seed: u64,
    sum: &mut Sum,
    worsen: impl Fn(&Device),
) -> anyhow::Result<bool> {
    let mut device = before.copy(seed)?;
    let failures = device.failures();
    worsen(&device);
    device.perform(&kind.write, other)?;
    let failed = failures < device.failures();

    if device.is_closed() {
        // It is refused, and what was acknowledged is read once more.
        let closed = device.tally().closed;
        device.perform(&TAG, &[])?;
        anyhow::ensure!(closed < device.tally().closed, "a write after the failure is accepted");
    }
    device.perform(&Action::Reopen, &[])?;
    device.mend();
    device.perform(&Action::Kill, &[])?;
    device.perform(&TURN, &[])?;
    device.perform(&Action::Untag { book: BOOK, word: 1 }, &[])?;
    device.cut_power()?;
    device.check(&mut Ledger::default())?;
    sum.add(&device);
    Ok(failed)
}

/// What all disturbed devices together went through.
#[derive(Debug, Default)]
struct Sum {
    acknowledged: u64,
    opened: u64,
    open_failed: u64,
    slowest_open: Duration,
}

impl Sum {
    fn add(&mut self, device: &Device) {
        let tally = device.tally();
        self.acknowledged += tally.acknowledged;
        self.opened += tally.opened;
        // Of a disk that is mended and does not open, `perform` says so itself.
        self.open_failed += tally.open_failed;
        self.slowest_open = self.slowest_open.max(tally.slowest_open);
    }

    fn report(&self, test: &str, times: u64) {
        report(&format!(
            "{test}: {times} times, {} writes acknowledged, 0 lost, 0 torn, {} openings, 0 failed on \
             a good disk ({} on a bad one), slowest {:?}, 0 panics",
            self.acknowledged, self.opened, self.open_failed, self.slowest_open
        ));
    }
}

/// Disturbs the 1st, 2nd, 3rd … time, until nothing fails any more; returns how often it did.
fn disturb_each(
    prepared: &(Kind, Device, Vec<Received>),
    what: &str,
    sum: &mut Sum,
    worsen: impl Fn(&Device, u64),
) -> u64 {
    for nth in 1..5_000 {
        match disturb(prepared, nth, sum, |device| worsen(device, nth)) {
            Ok(true) => (),
            Ok(false) => return nth - 1,
            Err(broken) => panic!("{}, {what} {nth}: {broken:?}", prepared.0.name),
        }
    }
    panic!("{} takes more than five thousand calls", prepared.0.name);
}

#[test]
fn t_crash_2_what_was_acknowledged_survives_a_failure_of_any_call_of_any_write() {
    let (mut sum, mut indices) = (Sum::default(), 0);
    for outage in [Outage::Once, Outage::Lasting] {
        for prepared in &prepared() {
            let failed = DiskName::ALL.map(|name| {
                let what = format!("{outage:?} on {name:?} at call");
                disturb_each(prepared, &what, &mut sum, |device, nth| {
                    device.disk(name).fail_call(nth, outage);
                })
            });
            indices += failed.iter().sum::<u64>();
            report(&format!(
                "{outage:?}, {}: {failed:?} calls of wal, library; 0 lost",
                prepared.0.name
            ));
            assert!(0 < failed.iter().sum::<u64>(), "{} calls no disk", prepared.0.name);
        }
    }
    sum.report("T-CRASH-2, I/O errors at every call", indices);
}

#[test]
fn t_crash_1_what_was_acknowledged_survives_a_power_cut_at_any_call_of_any_write() {
    let (mut sum, mut all) = (Sum::default(), 0);
    for prepared in &prepared() {
        let cuts = DiskName::ALL.map(|name| {
            let what = format!("power cut on {name:?} at call");
            disturb_each(prepared, &what, &mut sum, |device, nth| {
                device.disk(name).cut_power_at_call(nth);
            })
        });
        all += cuts.iter().sum::<u64>();
        report(&format!(
            "power, {}: {cuts:?} cuts at calls of wal, library; 0 lost",
            prepared.0.name
        ));
        assert!(0 < cuts.iter().sum::<u64>(), "{} calls no disk", prepared.0.name);
    }
    sum.report("T-CRASH-1, power cuts at every call", all);
}

#[test]
fn t_crash_2_what_was_acknowledged_survives_a_disk_that_fills_up_at_any_block_of_any_write() {
    let (mut sum, mut budgets) = (Sum::default(), 0);
    for prepared in &prepared() {
        // From a disk without any room to one with enough.
        let failed = disturb_each(prepared, "full disk, block", &mut sum, |device, nth| {
            let blocks = usize::try_from(nth - 1).unwrap();
            device.limit(Some(blocks * BLOCK_BYTES));
        });
        report(&format!("full disk, {}: {failed} budgets, 0 lost", prepared.0.name));
        budgets += failed;
    }
    sum.report("T-CRASH-2, full disks at every block", budgets);
    assert!(10 < budgets, "{budgets} budgets show little");
}

//! Failures that once lost or invented something, each as its shortest story, and any short story.

use catchword_sim::action::{Action, DiskName};
use catchword_sim::device::Device;
use catchword_sim::disk::Outage;
use catchword_sim::oracle::Ledger;
use proptest::prelude::*;

fn perform(device: &mut Device, actions: &[Action]) {
    for action in actions {
        device.perform(action, &[]).unwrap_or_else(|broken| panic!("{broken:?}"));
    }
}

const ANNOTATE: Action = Action::Annotate { book: 0, annotation: 1, ppm: 500_000 };
const TURN: Action = Action::Turn { book: 0, ppm: 300_000, seconds: 30 };

/// redb reads a file no more once a call of it has failed, so what waits must not be read from it.
#[test]
fn highlights_that_wait_are_listed_after_the_disk_has_refused_another() {
    let mut device = Device::new(1, 1).unwrap();
    let fail = Action::Fail { disk: DiskName::Wal, call: 1, outage: Outage::Lasting };
    perform(&mut device, &[Action::Import { book: 0 }, ANNOTATE, TURN, fail]);

    // The device reads every list after the failure, and holds it against what was acknowledged.
    perform(&mut device, &[Action::Tag { book: 0, word: 1 }]);

    assert!(device.is_closed());
    assert_eq!(device.acknowledged().books[&0].annotations.len(), 1);
}

/// Rows before turns, and a cut in between, published the turns once more at the next opening.
#[test]
fn a_turn_that_a_batch_published_is_not_published_again_after_a_power_cut() {
    for call in 1..60 {
        for disk in DiskName::ALL {
            let mut device = Device::new(1, u64::from(call)).unwrap();
            let cut = Action::PowerCut { disk, call };
            let batch = Action::AnnotateMany { book: 0, count: 80 };
            perform(&mut device, &[Action::Import { book: 0 }, TURN, cut, batch]);
            device.mend();
            perform(&mut device, &[Action::Publish { book: 0 }, Action::Kill]);
            assert_eq!(device.acknowledged().books[&0].events, (1, 30));
        }
    }
}

/// A check stages document by document, so what it stages is not in the order of the sequences.
#[test]
fn a_check_of_two_books_that_two_devices_wrote_by_turns_is_clean() {
    let mut devices = vec![Device::new(1, 1).unwrap(), Device::new(2, 2).unwrap()];
    for round in 0..8_u8 {
        for who in 0..2 {
            let annotation = round;
            for book in [1, 0] {
                let others = devices[1 - who].changes().unwrap();
                let annotate = Action::Annotate { book, annotation, ppm: 100_000 };
                let delete = Action::Delete { book, annotation };
                let receive = Action::Receive { from: 1 };
                perform(&mut devices[who], &[Action::Import { book }, annotate, delete]);
                devices[who].perform(&receive, &others).unwrap();
            }
        }
    }
    let mut ledger = Ledger::default();
    for device in &devices {
        device.check(&mut ledger).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The shortest story that breaks something is what is reported.
    #[test]
    fn no_short_sequence_of_actions_loses_or_invents_anything(
        actions in proptest::collection::vec(any::<Action>(), 1..60),
        seed in 0..1_000_u64,
    ) {
        let mut device = Device::new(1, seed).unwrap();
        let begin = Action::Import { book: 0 };
        for action in std::iter::once(&begin).chain(&actions) {
            device.perform(action, &[]).map_err(|broken| TestCaseError::fail(format!("{broken:?}")))?;
        }
        device.mend();
        device.perform(&Action::Kill, &[]).map_err(|broken| TestCaseError::fail(format!("{broken:?}")))?;
        let checked = device.check(&mut Ledger::default());
        checked.map_err(|broken| TestCaseError::fail(format!("{broken:?}")))?;
    }
}

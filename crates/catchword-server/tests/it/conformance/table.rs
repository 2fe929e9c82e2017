//! Places: compare-and-swap with intent.

use super::*;
use catchword_model::change::Change;
use catchword_model::change::read::read;
use catchword_model::hlc::Hlc;
use catchword_model::id::{Author, DeviceId};
use catchword_model::locator::Locator;
use catchword_model::position::{Intent, Position, place};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// One cell of the table, and in which lane the position comes.
#[derive(Debug, Clone, Copy)]
struct Cell {
    intent: Intent,
    contended: bool,
    ahead: bool,
    earlier: bool,
    lane: Lane,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lane {
    /// The device brings its own position.
    Own,
    /// The device whose entry stands there brings it, having met the other.
    ByTheOther,
    /// A third one brings it.
    ByAThird,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        let flags = [false, true];
        let lanes = [Lane::Own, Lane::ByTheOther, Lane::ByAThird];
        Intent::ALL.into_iter().flat_map(move |intent| {
            flags.into_iter().flat_map(move |contended| {
                flags.into_iter().flat_map(move |ahead| {
                    flags.into_iter().flat_map(move |earlier| {
                        lanes.map(|lane| Self { intent, contended, ahead, earlier, lane })
                    })
                })
            })
        })
    }

    /// The table of `docs/CLOUD.md`, word for word.
    #[expect(clippy::match_same_arms, reason = "each arm is one cell of the written table")]
    fn verdict(self) -> Verdict {
        match (self.intent, self.contended, self.ahead, self.earlier) {
            (_, false, _, _) => Verdict::Accepted,
            (Intent::Advance, true, true, false) => Verdict::Accepted,
            (Intent::Advance, true, true, true) => Verdict::Restamp,
            (Intent::Advance, true, false, false) => Verdict::Withdrawn,
            (Intent::Advance, true, false, true) => Verdict::Accepted,
            (Intent::Rewind, true, _, _) => Verdict::Withdrawn,
            (Intent::Jump | Intent::Restart, true, _, false) => Verdict::Accepted,
            (Intent::Jump | Intent::Restart, true, _, true) => Verdict::Restamp,
        }
    }

    /// The later entry counts, unless it is withdrawn.
    fn mine_is_the_place(self) -> bool {
        !self.earlier && self.verdict() != Verdict::Withdrawn
    }
}

pub(crate) async fn every_cell_of_compare_and_swap_with_intent(ledgers: Ledgers) {
    let mut seen = std::collections::BTreeMap::new();
    for (index, cell) in Cell::all().enumerate() {
        let anna = ledgers.account(&format!("table {index}")).await;
        let verdict = play(&anna, cell).await;
        assert_eq!(verdict, cell.verdict(), "{cell:?}");
        *seen.entry(format!("{verdict:?}")).or_insert(0) += 1;
    }
    let counts: Vec<(&str, i32)> =
        seen.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts, [("Accepted", 66), ("Restamp", 15), ("Withdrawn", 15)]);
}

async fn play(anna: &Ledgers, cell: Cell) -> Verdict {
    let (mut phone, mut tablet, mut third) = (Device::new(1), Device::new(2), Device::new(3));
    let pass = if cell.intent == Intent::Restart { 2 } else { 1 };
    let there = tablet.turn(doc(1), stamp(10_000), (Intent::Advance, pass, 500_000));
    let entry = tablet.entry(doc(1), &BTreeSet::new(), 0);
    assert!(matches!(anna.push_one(&entry).await, Outcome::Accepted(_)));

    let at = if cell.earlier { stamp(5_000) } else { stamp(20_000) };
    let ppm = if cell.ahead { 700_000 } else { 300_000 };
    let seen = if cell.contended { Hlc::ZERO } else { stamp(10_000) };
    let mine = phone.turn_having_seen(doc(1), at, (cell.intent, pass, ppm), seen);
    let known = BTreeSet::from([there.hash().0]);
    let entry = match cell.lane {
        Lane::Own => phone.entry(doc(1), &known, 1),
        Lane::ByTheOther => {
            phone.give(doc(1), &mut tablet);
            tablet.entry(doc(1), &known, 1)
        }
        Lane::ByAThird => {
            third.annotate(doc(1), "between");
            phone.give(doc(1), &mut third);
            third.entry(doc(1), &known, 1)
        }
    };
    let outcome = anna.push_one(&entry).await;
    let receipt = receipt(&outcome);
    let of_mine = |index: usize| entry.changes[index].0 == mine.bytes();
    let verdict = (0..entry.changes.len()).find(|index| of_mine(*index));
    let verdict = receipt.verdicts[verdict.unwrap()];

    let status = match &outcome {
        Outcome::Accepted(_) => Verdict::Accepted,
        Outcome::Rebased(_) => Verdict::Restamp,
        Outcome::Conflict(_) => Verdict::Withdrawn,
        Outcome::Incomplete { .. } | Outcome::Refused { .. } => panic!("{outcome:?}"),
    };
    assert_eq!(status, verdict, "the base was current: {cell:?}");
    let expected = if cell.mine_is_the_place() { phone.id } else { tablet.id };
    assert_eq!(receipt.place.as_ref().unwrap().device, expected, "{cell:?}");
    verdict
}

pub(crate) async fn a_replay_is_folded_and_never_contended(ledgers: Ledgers) {
    let anna = ledgers.account("replay").await;
    let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
    tablet.turn(doc(1), stamp(10), (Intent::Advance, 1, 500_000));
    anna.push(&[tablet.entry(doc(1), &BTreeSet::new(), 0)]).await;
    phone.turn(doc(1), stamp(20), (Intent::Rewind, 1, 100));
    let entry = Entry { replay: true, ..phone.entry(doc(1), &BTreeSet::new(), 1) };

    let outcome = anna.push_one(&keyed(entry)).await;

    assert_eq!(receipt(&outcome).verdicts, [Verdict::Accepted]);
    assert_eq!(receipt(&outcome).place.as_ref().unwrap().device, phone.id);
}

pub(crate) async fn a_verdict_is_answered_again_and_stands_in_the_feed(ledgers: Ledgers) {
    let anna = ledgers.account("again").await;
    let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
    tablet.turn(doc(1), stamp(10), (Intent::Advance, 1, 500_000));
    anna.push(&[tablet.entry(doc(1), &BTreeSet::new(), 0)]).await;
    let stale = phone.turn(doc(1), stamp(20), (Intent::Rewind, 1, 100));
    let first = anna.push_one(&phone.entry(doc(1), &BTreeSet::new(), 1)).await;
    assert_eq!(receipt(&first).verdicts, [Verdict::Withdrawn]);

    // Later it would be judged otherwise: but it was judged. And nobody wrote the mark yet.
    tablet.turn(doc(1), stamp(15), (Intent::Rewind, 1, 50));
    let known = BTreeSet::new();
    anna.push(&[tablet.entry(doc(1), &known, 2)]).await;
    let again = anna
        .push_one(&keyed(Entry { replay: true, ..phone.entry(doc(1), &BTreeSet::new(), 0) }))
        .await;
    assert!(
        matches!(&again, Outcome::Conflict(receipt) if receipt.verdicts == [Verdict::Withdrawn])
    );
    assert_eq!(receipt(&again).place.as_ref().unwrap().ppm, 50);
    let in_feed = anna.feed().await;
    let verdicts: Vec<Verdict> =
        in_feed.iter().filter_map(change_bytes).map(|(_, verdict)| verdict).collect();
    assert_eq!(verdicts, [Verdict::Accepted, Verdict::Withdrawn, Verdict::Accepted]);
    assert_eq!(change_bytes(&in_feed[1]).unwrap().0.0, stale.bytes());

    // The device reads on: a new entry is above its mark.
    phone.turn_having_seen(doc(1), stamp(30), (Intent::Advance, 1, 60), stamp(15));
    let known = BTreeSet::from([stale.hash().0]);
    let on = anna.push_one(&phone.entry(doc(1), &known, 3)).await;
    assert_eq!(receipt(&on).verdicts, [Verdict::Accepted]);
    assert_eq!(receipt(&on).place.as_ref().unwrap().ppm, 60);
}

pub(crate) async fn a_withdrawn_mark_that_a_device_wrote_counts(ledgers: Ledgers) {
    let anna = ledgers.account("marks").await;
    let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
    tablet.turn(doc(1), stamp(10), (Intent::Advance, 1, 500_000));
    anna.push(&[tablet.entry(doc(1), &BTreeSet::new(), 0)]).await;
    let gone = tablet.id;
    tablet.give(doc(1), &mut phone);
    phone.write(doc(1), &[Edit::Withdraw { device: gone, mark: stamp(10) }]);
    let known = tablet.history(doc(1)).changes().map(|change| change.hash().0).collect();
    anna.push(&[phone.entry(doc(1), &known, 1)]).await;

    // Nothing stands there, so a rewind that knows nothing contends with nothing.
    phone.turn_having_seen(doc(1), stamp(9_000), (Intent::Rewind, 1, 100), Hlc::ZERO);
    let known: BTreeSet<_> =
        phone.history(doc(1)).changes().map(|change| change.hash().0).collect();
    let all = phone.entry(doc(1), &BTreeSet::new(), 2);
    let outcome = anna.push_one(&all).await;
    assert_eq!(receipt(&outcome).verdicts, [Verdict::Accepted; 3]);
    assert_eq!(receipt(&outcome).place.as_ref().unwrap().device, phone.id);
    assert_eq!(known.len(), 4, "with genesis");
}

pub(crate) async fn a_stamp_that_no_mark_can_reach_is_not_withdrawn(ledgers: Ledgers) {
    let anna = ledgers.account("last stamp").await;
    let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
    tablet.turn(doc(1), stamp(10), (Intent::Advance, 1, 500_000));
    anna.push(&[tablet.entry(doc(1), &BTreeSet::new(), 0)]).await;
    for (at, verdict) in [(Hlc::LAST, Verdict::Accepted), (below_last(), Verdict::Withdrawn)] {
        let mut device = phone.clone();
        let position = Position {
            locator: Locator::new(),
            ppm: 5,
            intent: Intent::Rewind,
            pass: 1,
            wall_ms: 0,
            seen: Hlc::ZERO,
        };
        device.write_at(doc(1), at, &[Edit::SetPosition(position)]);
        let outcome = anna.push_one(&device.entry(doc(1), &BTreeSet::new(), 1)).await;
        assert_eq!(receipt(&outcome).verdicts, [verdict]);
        phone = Device::new(3);
    }
}

fn below_last() -> Hlc {
    Hlc::from_packed(Hlc::LAST.packed() - 1).unwrap()
}

/// Devices write the marks that verdicts ask for, and everybody's changes reach the server by
/// anybody: then the server has the place that a device with all of them computes.
pub(crate) async fn the_place_is_the_one_that_devices_compute(ledgers: Ledgers) {
    use rand::SeedableRng as _;

    let mut withdrawn = 0;
    for seed in 0..40_u64 {
        let anna = ledgers.account(&format!("places {seed}")).await;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut devices: Vec<Device> = (1..=3).map(Device::new).collect();
        let mut known = BTreeSet::new();
        for step in 0..30 {
            wander(&mut rng, &mut devices);
            let bringer = rng.random_range(0..3);
            bring(&anna, &mut devices, bringer, &mut known, step).await;
        }
        for bringer in 0..3 {
            bring(&anna, &mut devices, bringer, &mut known, 100).await;
        }
        let feed = anna.feed().await;
        let stale = feed.iter().filter_map(change_bytes);
        withdrawn += stale.filter(|(_, verdict)| *verdict == Verdict::Withdrawn).count();
        let entries = everything(&devices, &feed).standing(doc(1));
        let expected = place(&entries).unwrap();
        let book = anna.ledger.book(anna.account, book(1)).await.unwrap().unwrap();
        let found = book.place.unwrap();
        let expected = (expected.device, expected.stamp().packed());
        assert_eq!((found.device, found.stamp), expected, "{seed}");
    }
    assert!(20 < withdrawn, "{withdrawn}");
}

/// A device turns a page, and perhaps meets another.
fn wander(rng: &mut ChaCha8Rng, devices: &mut [Device]) {
    let (who, whom) = (rng.random_range(0..3), rng.random_range(0..3));
    let intent = Intent::ALL[rng.random_range(0..4)];
    let of = (intent, rng.random_range(1..3), rng.random_range(0..9));
    let at = stamp(rng.random_range(1..40));
    devices[who].try_turn(doc(1), at, of);
    if who != whom && rng.random_bool(0.5) {
        let mut from = devices[who].clone();
        from.give(doc(1), &mut devices[whom]);
    }
}

/// A device brings what the server has not, and writes the marks that it is asked for.
async fn bring(
    anna: &Ledgers,
    devices: &mut [Device],
    bringer: usize,
    known: &mut BTreeSet<[u8; 32]>,
    step: u64,
) {
    let entry = devices[bringer].entry(doc(1), known, 0);
    if entry.changes.is_empty() {
        return;
    }
    let outcome = anna.push_one(&entry).await;
    known.extend(devices[bringer].history(doc(1)).changes().map(|change| change.hash().0));
    for (bytes, verdict) in entry.changes.iter().zip(&receipt(&outcome).verdicts) {
        if *verdict == Verdict::Withdrawn {
            let mark = mark_of(devices, bytes);
            devices[bringer].withdraw(doc(1), stamp(1_000 + step), mark);
        }
    }
}

/// Returns a device that merged the whole feed, and wrote the marks that are not there yet.
fn everything(devices: &[Device], feed: &[FeedRecord]) -> Device {
    let mut device = Device::new(9);
    for record in feed {
        let (bytes, verdict) = change_bytes(record).unwrap();
        device.history(doc(1)).admit(read(&bytes.0).unwrap());
        if verdict == Verdict::Withdrawn {
            let mark = mark_of(devices, bytes);
            device.withdraw(doc(1), stamp(100_000 + record.number), mark);
        }
    }
    device
}

fn mark_of(devices: &[Device], bytes: &Blob) -> (DeviceId, Hlc) {
    let change = read(&bytes.0).unwrap();
    let author = devices.iter().find(|device| is_of(device, &change)).unwrap();
    (author.id, Hlc::of_change(change.time))
}

fn is_of(device: &Device, change: &Change) -> bool {
    Author { device: device.id, n: device.n }.actor(doc(1).id()) == change.actor
}

//! What writes cost, counted in calls and bytes of the disks: numbers that no machine changes.
//!
//! Goal: a highlight is one sync of `wal` and nothing of `library`, whatever the size of the book.

use catchword_model::id::AnnotationId;
use catchword_sim::action::{Action, DiskName};
use catchword_sim::annotate;
use catchword_sim::device::Device;
use catchword_sim::disk::Counts;
use catchword_sim::memory::book_id;
use catchword_store::WAITING_MAX;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::report;

/// Annotations of a small and of a large book.
const SMALL: u64 = 100;
/// More than anybody makes in one book.
const LARGE: u64 = 100_000;
/// Annotations that are made in one call.
const BATCH: u64 = 4_000;

fn both(device: &Device) -> [Counts; 2] {
    DiskName::ALL.map(|name| device.disk(name).counts())
}

/// Runs something and returns what it cost on `wal` and on `library`.
fn cost(device: &mut Device, run: impl FnOnce(&mut Device)) -> [Counts; 2] {
    for name in DiskName::ALL {
        device.disk(name).reset_counts();
    }
    run(device);
    both(device)
}

fn shown(cost: Counts) -> String {
    format!(
        "{} syncs, {} writes, {} bytes, {} reads",
        cost.syncs, cost.writes, cost.bytes_written, cost.reads
    )
}

/// A device with a book of so many annotations, in random places, and nothing that waits.
fn with_annotations(count: u64) -> Device {
    let mut device = Device::new(1, count).unwrap();
    device.perform(&Action::Import { book: 0 }, &[]).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(count);
    let book = book_id(0).document();
    let mut made = 0;
    while made < count {
        let batch: Vec<_> = (made..count.min(made + BATCH))
            .map(|n| {
                let id = AnnotationId::new(1_000 + n, [5; 10]);
                (book, vec![annotate(id, random.random_range(0..=1_000_000))])
            })
            .collect();
        made += batch.len() as u64;
        device.store().unwrap().append_all(&batch, 1_780_000_000_000).unwrap();
    }
    device.store().unwrap().drain().unwrap();
    device
}

fn highlight(device: &Device, n: u64) {
    let id = AnnotationId::new(n, [6; 10]);
    let ppm = u32::try_from(n * 7_919 % 1_000_001).unwrap();
    let edits = [annotate(id, ppm)];
    device.store().unwrap().append(book_id(0).document(), &edits, 1_780_000_000_000 + n).unwrap();
}

#[test]
fn a_highlight_is_one_sync_of_wal_and_nothing_of_library() {
    const HIGHLIGHTS: u64 = 10 * WAITING_MAX as u64;

    let mut device = with_annotations(SMALL);
    let (mut grown, mut drained, mut sum) = (0, 0, 0);
    for n in 0..HIGHLIGHTS {
        let [wal, library] = cost(&mut device, |device| highlight(device, n));
        // A file that grows is flushed before its new length counts.
        assert!((1..=1 + wal.set_lens).contains(&wal.syncs), "highlight {n}: {wal:?}");
        grown += wal.syncs - 1;
        sum += wal.bytes_written;
        if library == Counts::default() {
            continue;
        }
        drained += 1;
        let flushes = 2..=2 + library.set_lens;
        assert!(flushes.contains(&library.syncs), "highlight {n}: {library:?}");
        if drained == 1 {
            report(&format!(
                "a highlight that drains: wal {}; library {}",
                shown(wal),
                shown(library)
            ));
        }
    }

    report(&format!(
        "{HIGHLIGHTS} highlights: {} syncs of wal, {grown} for a longer file; {} bytes each",
        HIGHLIGHTS + grown,
        sum / HIGHLIGHTS
    ));
    assert_eq!(drained, HIGHLIGHTS / WAITING_MAX as u64, "the rows follow once in {WAITING_MAX}");
    assert!(grown <= HIGHLIGHTS / WAITING_MAX as u64, "the file goes on growing: {grown} times");
}

#[test]
fn a_turn_is_one_sync_and_so_is_an_edit_that_publishes_it() {
    let mut device = with_annotations(SMALL);
    let turn = Action::Turn { book: 0, ppm: 400_000, seconds: 30 };
    let tag = Action::Tag { book: 0, word: 0 };
    for (name, action) in [("a turn", turn.clone()), ("another turn", turn), ("a tag", tag)] {
        let [wal, library] = cost(&mut device, |device| device.perform(&action, &[]).unwrap());
        // A file that grows is flushed before its new length counts.
        assert_eq!(wal.syncs, 1 + wal.set_lens, "{name}");
        assert_eq!((library.syncs, library.writes), (0, 0), "{name}");
        report(&format!("{name}: wal {}", shown(wal)));
    }
    assert_eq!(device.store().unwrap().view(book_id(0)).unwrap().unwrap().events.count, 1);
}

#[test]
fn a_drain_and_an_import_are_one_transaction_of_library_each() {
    let mut device = with_annotations(SMALL);
    let [_, import] = cost(&mut device, |device| {
        device.perform(&Action::Import { book: 1 }, &[]).unwrap();
    });
    (0..20).for_each(|n| highlight(&device, n));
    let [wal, drain] = cost(&mut device, |device| device.store().unwrap().drain().unwrap());

    report(&format!("an import: library {}", shown(import)));
    report(&format!("a drain of 20: library {}", shown(drain)));
    // A transaction with quick-repair is two phases: two syncs.
    assert_eq!((import.syncs, drain.syncs), (2, 2));
    assert_eq!((wal.syncs, wal.writes), (0, 0), "records go with the next commit");
}

#[test]
fn a_highlight_into_a_large_book_costs_what_it_costs_into_a_small_one() {
    let [small, large] = [SMALL, LARGE].map(|count| {
        let mut device = with_annotations(count);
        // The first commit after opening reads what the cache does not hold.
        highlight(&device, 0);
        let [wal, library] = cost(&mut device, |device| {
            (1..WAITING_MAX as u64 - 1).for_each(|n| highlight(device, n));
        });
        let [_, drain] = cost(&mut device, |device| device.store().unwrap().drain().unwrap());
        report(&format!(
            "{} highlights into {count}: wal {}; library {}",
            WAITING_MAX - 2,
            shown(wal),
            shown(library)
        ));
        report(&format!("their drain into {count}: {}", shown(drain)));
        (wal, library, drain)
    });

    // A file that grows is flushed before its new length counts.
    let highlights = WAITING_MAX as u64 - 2;
    for (wal, _, drain) in [small, large] {
        assert!((highlights..=highlights + wal.set_lens).contains(&wal.syncs), "{wal:?}");
        assert!((2..=2 + drain.set_lens).contains(&drain.syncs), "{drain:?}");
    }
    assert_eq!(small.0.writes, large.0.writes);
    assert!(large.0.bytes_written <= small.0.bytes_written * 11 / 10);
    assert_eq!((small.1.writes, large.1.writes), (0, 0));
    // In random places the drain touches a page for each row: more of them, and no more than that.
    assert!(large.2.bytes_written <= small.2.bytes_written * 16);
}

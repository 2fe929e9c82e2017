//! T-CRASH-5: a disk that ignores flushes loses what was acknowledged and what others have already; a
//! sync afterwards brings it back.
//!
//! Goal: both devices are equal in the end, and no number that was used before the power cut is in
//! anybody's way. A library that such a disk has torn is refused, and one that is made anew in its place
//! gets everything from the other device.

use catchword_model::edit::Edit;
use catchword_model::meta::DeviceName;
use catchword_sim::annotate;
use catchword_sim::device::START_MS;
use catchword_sim::disk::{Flushes, SimDisk};
use catchword_sim::memory::{MANY_PPM, book_id};
use catchword_store::{Backends, OpenError, Options, Received, Rejection, Store};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{report, seeds};

#[derive(Debug, Default)]
struct Tally {
    went_back: u64,
    lost_nothing: u64,
    made_anew: u64,
    came_back: u64,
}

fn open(key: u8, wal: &SimDisk, library: &SimDisk) -> Result<Store, OpenError> {
    let device = DeviceName { name: format!("device {key}"), ..DeviceName::default() };
    let options = Options { public_key_spki: vec![key; 44], device, now_ms: START_MS };
    Store::open_on(Backends { wal: wal.reopen(), library: library.reopen() }, &options)
}

fn write(store: &Store, first: u64, count: u64) -> anyhow::Result<()> {
    for n in first..first + count {
        let id = catchword_model::id::AnnotationId::new(n, [store.device().0[0]; 10]);
        let edit: Edit = annotate(id, MANY_PPM);
        store.append(book_id(0).document(), &[edit], START_MS + n)?;
    }
    Ok(())
}

/// Gives everything that one device has to another; returns how much was new there.
fn give(from: &Store, to: &Store) -> anyhow::Result<u64> {
    let document = book_id(0).document();
    let mut all = Vec::new();
    from.changes(document, |change| {
        all.push(Received { document, bytes: change.bytes().to_vec() });
    })?;
    let report = to.receive(&all)?;
    let double =
        report.rejected.iter().find(|(_, why)| matches!(why, Rejection::Equivocation { .. }));
    anyhow::ensure!(double.is_none(), "a number is in the way: {double:?}");
    anyhow::ensure!(report.rejected.is_empty(), "refused: {:?}", report.rejected);
    Ok(report.added)
}

fn story(seed: u64, tally: &mut Tally) -> anyhow::Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (wal, library) = (SimDisk::new(seed), SimDisk::new(seed + 1_000_000));
    let honest = [SimDisk::new(0), SimDisk::new(1)];
    let (liar, friend) = (open(1, &wal, &library)?, open(2, &honest[0], &honest[1])?);
    for store in [&liar, &friend] {
        store.add_book(book_id(0), Vec::new(), Vec::new(), START_MS)?;
    }
    write(&liar, 0, random.random_range(1..40))?;
    liar.drain()?;

    wal.set_flushes(Flushes::Ignored);
    library.set_flushes(Flushes::Ignored);
    write(&liar, 1_000, random.random_range(1..300))?;
    give(&liar, &friend)?;
    write(&friend, 2_000, 5)?;
    wal.cut_power();
    library.cut_power();
    drop(liar);
    for disk in [&wal, &library] {
        disk.set_flushes(Flushes::Honest);
    }

    let opened = open(1, &wal, &library).and_then(|store| {
        // What a lying disk tore is found where it is read.
        let mut changes = 0;
        store.changes(book_id(0).document(), |_| changes += 1)?;
        Ok(store)
    });
    let again = match opened {
        Ok(store) => store,
        Err(OpenError::Corrupt { .. } | OpenError::Io(_)) => {
            tally.made_anew += 1;
            open(3, &SimDisk::new(seed), &SimDisk::new(seed + 1))?
        }
        Err(error) => return Err(error.into()),
    };
    again.expect_book(book_id(0))?;
    let came_back = give(&friend, &again)?;
    tally.came_back += came_back;
    *if came_back > 5 { &mut tally.went_back } else { &mut tally.lost_nothing } += 1;
    write(&again, 3_000, 5)?;
    give(&again, &friend)?;
    let document = book_id(0).document();
    anyhow::ensure!(again.heads(document)? == friend.heads(document)?, "they differ");
    Ok(())
}

#[test]
fn t_crash_5_what_a_lying_disk_lost_comes_back_by_a_sync() {
    let mut tally = Tally::default();
    for seed in seeds() {
        story(seed, &mut tally).unwrap_or_else(|broken| {
            panic!("seed {seed}: {broken:?}\nagain: CATCHWORD_SEED={seed}")
        });
    }
    let seeds = seeds().count();
    report(&format!("T-CRASH-5: {seeds} seeds, all equal, 0 numbers in the way; {tally:?}"));
    if 100 < seeds {
        assert!(10 < tally.went_back, "the disk did not lie: {tally:?}");
    }
}

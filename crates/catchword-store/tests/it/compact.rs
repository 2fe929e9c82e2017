//! Compaction loses nothing, makes the library small, and can be cut off anywhere.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use catchword_model::annotation::{Creation, Kind, Row};
use catchword_model::change::Change;
use catchword_model::edit::Edit;
use catchword_model::id::{AnnotationId, ChangeHash};
use catchword_model::locator::Locator;
use catchword_store::{End, Progress, Received, Repair, Step, Store};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{BOOK, MONDAY_MS, library, options};

fn words(rng: &mut impl Rng, bytes: usize) -> String {
    // Made of syllables, so that words repeat about as often as in a language.
    const SYLLABLES: [&str; 24] = [
        "an", "be", "ca", "da", "el", "fo", "ga", "he", "in", "ja", "ko", "la", "mo", "ne", "or",
        "pe", "qui", "ra", "so", "ta", "um", "vi", "wo", "ya",
    ];
    let mut text = String::new();
    while text.len() < bytes {
        let rare = rng.random_range(0..3) == 0;
        let syllables = if rare { rng.random_range(2..5) } else { 1 };
        for _ in 0..syllables {
            text.push_str(SYLLABLES[rng.random_range(0..24_usize)]);
        }
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

/// An annotation with a quote of about 80 characters and a note of 0 to 120.
fn annotation(store: &Store, rng: &mut impl Rng, n: u64, of: u64) -> Edit {
    let ppm = u32::try_from(n * 1_000_000 / of).unwrap();
    let (chapter, paragraph) = (n * 40 / of * 2 + 2, n % 900 * 2);
    let cfi = format!("epubcfi(/6/{chapter}!/4/{paragraph}/1:{})", rng.random_range(0..200));
    let quote_bytes = rng.random_range(60..100);
    let note_bytes = rng.random_range(0..121_usize);
    let creation = Creation {
        kind: Kind::Highlight,
        locator: Locator::new().with_cfi(&cfi).with_total_ppm(ppm),
        quote: words(rng, quote_bytes),
        color: Some("yellow".to_owned()),
        note: (0 < note_bytes).then(|| words(rng, note_bytes)),
        created_by: store.device().to_string(),
        source: None,
        unknown: String::new(),
    };
    let id = AnnotationId::new(MONDAY_MS + n * 60_000, rng.random());
    Edit::Annotate { id, creation: Box::new(creation) }
}

fn annotated(folder: &Path, count: u64) -> Store {
    let store = library(folder, 1);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let all: Vec<u64> = (0..count).collect();
    for batch in all.chunks(2_000) {
        let batch: Vec<_> = batch
            .iter()
            .map(|n| (BOOK.document(), vec![annotation(&store, &mut rng, *n, count)]))
            .collect();
        store.append_all(&batch, MONDAY_MS + batch.len() as u64).unwrap();
    }
    store
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Everything a reader sees of the book: its changes in order, its rows, its heads.
fn everything(store: &Store) -> (Vec<Change>, Vec<Row>, Vec<ChangeHash>) {
    let (mut changes, mut rows) = (Vec::new(), Vec::new());
    store.changes(BOOK.document(), |change| changes.push(change)).unwrap();
    store.rows(BOOK, 0, u32::MAX, |row| rows.push(row)).unwrap();
    (changes, rows, store.heads(BOOK.document()).unwrap().unwrap())
}

/// Two devices that write in turns, so that their runs lie across each other in the log.
fn two_writers(ours: &Path, theirs: &Path, rounds: u64) -> Store {
    let (ours, theirs) = (library(ours, 1), library(theirs, 2));
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut given = BTreeSet::new();
    for round in 0..rounds {
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            for n in 0..rng.random_range(1..8) {
                let edit = annotation(from, &mut rng, round * 10 + n, rounds * 10);
                from.append(BOOK.document(), &[edit], MONDAY_MS + round).unwrap();
            }
            from.set_journal(BOOK, &words(&mut rng, 90), MONDAY_MS + round).unwrap();
            for document in [BOOK.document(), BOOK.notes_document()] {
                let mut new = Vec::new();
                from.changes(document, |change| {
                    if given.insert(change.hash()) {
                        new.push(Received { document, bytes: change.into_bytes() });
                    }
                })
                .unwrap();
                to.expect_book(BOOK).unwrap();
                assert_eq!(to.receive(&new).unwrap().rejected, []);
            }
        }
    }
    ours
}

fn assert_clean(store: &Store) {
    let report = store.check(Repair::ReportOnly, &mut go_on).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn compaction_changes_nothing_that_is_read_and_makes_the_library_small() {
    let folder = tempfile::tempdir().unwrap();
    let store = annotated(folder.path(), 20_000);
    let before = everything(&store);

    let report = store.compact(&mut go_on).unwrap();

    assert_eq!(report.end, End::Finished);
    assert!(19_990 <= report.changes && (100..160).contains(&report.blocks), "{report:?}");
    assert!(report.bytes_after < report.bytes_before, "{report:?}");
    assert!(everything(&store) == before, "something else is read");
    assert_clean(&store);
    let bytes = report.bytes_after / 20_000;
    eprintln!("{bytes} bytes on disk per annotation");
    assert!(bytes <= BYTES_MAX || cfg!(not(unix)), "{bytes} bytes on disk per annotation");
    let again = store.compact(&mut |progress| {
        assert_eq!(progress.step, Step::Packing, "there is nothing to give back");
        ControlFlow::Continue(())
    });
    assert_eq!(again.unwrap().blocks, 0);
    drop(store);

    let store = Store::open(folder.path(), &options(1)).unwrap();
    assert_eq!((store.opened().new_generation, store.opened().library_repaired), (None, false));
    assert!(everything(&store) == before, "something else is read");
}

/// One and a half times what SQLite takes for the same rows without their history.
const BYTES_MAX: u64 = 466;

#[test]
fn a_library_is_written_and_compacted_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = library(folder.path(), 1);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for round in 0..10 {
        for n in 0..150 {
            let edit = annotation(&store, &mut rng, round * 150 + n, 2_000);
            store.append(BOOK.document(), &[edit], MONDAY_MS).unwrap();
        }
        let before = everything(&store);
        let report = store.compact(&mut go_on).unwrap();
        assert!(150 <= report.changes, "{report:?}");
        assert_eq!(store.compact(&mut go_on).unwrap().blocks, 0, "nothing is left to pack");
        assert!(everything(&store) == before, "something else is read");
        assert_clean(&store);
        drop(store);
        store = Store::open(folder.path(), &options(1)).unwrap();
        assert_eq!((store.opened().new_generation, store.opened().library_repaired), (None, false));
        assert!(everything(&store) == before, "something else is read");
    }
}

#[test]
fn blocks_of_writers_that_took_turns_read_in_the_order_of_receipt() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = two_writers(first.path(), second.path(), 16);
    let before = everything(&store);
    let journal = store.journal(BOOK).unwrap();

    let report = store.compact(&mut go_on).unwrap();

    assert!(3 <= report.blocks, "{report:?}");
    assert!(everything(&store) == before, "something else is read");
    assert_eq!(store.journal(BOOK).unwrap(), journal);
    assert_clean(&store);
    // What is in blocks is still the past of what comes: received again, it is known; and a device
    // that has nothing takes everything.
    let empty = tempfile::tempdir().unwrap();
    let third = library(empty.path(), 3);
    third.expect_book(BOOK).unwrap();
    let all: Vec<_> = [BOOK.document(), BOOK.notes_document()]
        .into_iter()
        .flat_map(|document| {
            let mut received = Vec::new();
            let mut take = |change: Change| {
                received.push(Received { document, bytes: change.into_bytes() });
            };
            store.changes(document, &mut take).unwrap();
            received
        })
        .collect();
    assert_eq!(store.receive(&all).unwrap().known, all.len() as u64);
    assert_eq!(third.receive(&all).unwrap().rejected, []);
    assert_eq!(third.journal(BOOK).unwrap(), journal);
    assert_clean(&third);
}

#[test]
fn changes_of_somebody_who_writes_rarely_are_read_in_their_place() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (library(first.path(), 1), library(second.path(), 2));
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let document = BOOK.document();
    // Each gives what it has got since it gave last.
    let give = |from: &Store, to: &Store, given: &mut usize| {
        let mut all = Vec::new();
        let mut take = |change: Change| {
            all.push(Received { document, bytes: change.into_bytes() });
        };
        from.changes(document, &mut take).unwrap();
        assert_eq!(to.receive(&all[*given..]).unwrap().rejected, []);
        *given = all.len();
    };
    let (mut to_ours, mut to_theirs) = (0, 0);
    for round in 0..10 {
        let batch: Vec<_> = (0..880)
            .map(|n| (document, vec![annotation(&theirs, &mut rng, round * 880 + n, 20_000)]))
            .collect();
        theirs.append_all(&batch, MONDAY_MS).unwrap();
        give(&theirs, &ours, &mut to_ours);
        // Two changes in a megabyte, known to everything after them.
        let own = annotation(&ours, &mut rng, 19_000 + round, 20_000);
        ours.append(document, &[own], MONDAY_MS).unwrap();
        give(&ours, &theirs, &mut to_theirs);
    }
    let before = everything(&ours);

    ours.compact(&mut go_on).unwrap();

    assert!(everything(&ours) == before, "something else is read");
    assert_clean(&ours);
}

#[test]
fn compaction_that_is_stopped_or_killed_anywhere_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = annotated(folder.path(), 15_000);
    let before = everything(&store);
    let mut copies = Vec::new();
    // At each call the process could be killed: what is on disk then must open. Then it is stopped.
    let report = store.compact(&mut |progress| {
        assert_eq!(progress.step, Step::Packing);
        let copy = tempfile::tempdir().unwrap();
        for file in ["wal", "library", "witness"] {
            std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
        }
        copies.push(copy);
        if progress.done < 1_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let report = report.unwrap();

    assert_eq!(report.end, End::Stopped);
    assert!(0 < report.changes && report.changes < 12_000, "{report:?}");
    assert!(everything(&store) == before, "something else is read");
    assert_clean(&store);
    let mut leftovers = 0;
    for copy in &copies {
        let killed = Store::open(copy.path(), &options(1)).unwrap();
        assert!(!killed.opened().library_repaired);
        assert!(everything(&killed) == before, "something else is read");
        let found = killed.check(Repair::ReportOnly, &mut go_on).unwrap();
        assert!(found.is_clean(), "{found:?}");
        leftovers += found.leftovers;
        // The next compaction clears them away.
        killed.compact(&mut go_on).unwrap();
        assert!(everything(&killed) == before, "something else is read");
        let found = killed.check(Repair::ReportOnly, &mut go_on).unwrap();
        assert!(found.is_clean() && found.leftovers == 0, "{found:?}");
    }
    assert!(0 < leftovers, "no copy was made between a block and the deletion of its changes");
}

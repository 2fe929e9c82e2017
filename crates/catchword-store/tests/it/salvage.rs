//! What rots is refused where it is read, and what can be read is saved.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use catchword_model::annotation::Row;
use catchword_store::{LoadError, OpenError, Progress, Repair, SalvageReport, Store, salvage};

use crate::support::{BOOK, MONDAY_MS, annotate, library, options, turn};

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn saved(folder: &Path) -> SalvageReport {
    salvage(folder, &options(1), &mut go_on).unwrap()
}

fn rows(store: &Store) -> Result<Vec<Row>, LoadError> {
    let mut rows = Vec::new();
    store.rows(BOOK, 0, u32::MAX, |row| rows.push(row))?;
    Ok(rows)
}

/// A closed library with 200 annotations in a folder, and what is in its rows.
fn closed() -> (tempfile::TempDir, Vec<Row>) {
    let folder = tempfile::tempdir().unwrap();
    let store = library(folder.path(), 1);
    for n in 0..200 {
        let edit = annotate(n, u32::try_from(n).unwrap() * 1_000);
        store.append(BOOK.document(), &[edit], MONDAY_MS + n).unwrap();
    }
    store.drain().unwrap();
    let rows = rows(&store).unwrap();
    store.close().unwrap();
    (folder, rows)
}

/// Flips a bit in every place of a file that says this; returns in how many.
fn rot(path: &Path, text: &[u8]) -> usize {
    let mut bytes = fs::read(path).unwrap();
    let places = (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text));
    let places: Vec<usize> = places.collect();
    for at in &places {
        bytes[*at] ^= 4;
    }
    fs::write(path, bytes).unwrap();
    places.len()
}

#[test]
fn a_library_that_can_be_read_is_left_alone() {
    let (folder, _) = closed();
    let before = fs::read(folder.path().join("library")).unwrap();

    assert_eq!(saved(folder.path()), SalvageReport::default());

    // But for the note in the header that somebody had it open.
    assert_eq!(fs::read(folder.path().join("library")).unwrap().len(), before.len());
    assert_eq!(Store::open(folder.path(), &options(1)).unwrap().opened().new_generation, None);
    assert!(!folder.path().join("library.damaged").exists());
}

#[test]
fn rows_that_rot_are_refused_and_built_again_from_the_log() {
    let (folder, before) = closed();
    let path = folder.path().join("library");
    // The keys of rows: number, parts per million. The log has none.
    let key = [&1_u32.to_be_bytes()[..], &100_000_u32.to_be_bytes()].concat();
    assert!(0 < rot(&path, &key));
    // Wherever it is read first.
    let read = Store::open(folder.path(), &options(1)).map(|store| rows(&store).map(drop));
    let refused =
        matches!(read, Ok(Err(LoadError::Corrupt { .. })) | Err(OpenError::Corrupt { .. }));
    assert!(refused, "{read:?}");

    let report = saved(folder.path());

    assert!(0 < report.pages_lost && report.wal_pages_lost == 0, "{report:?}");
    assert!(report.tables.iter().all(|table| table == "rows-1" || table == "ids-1"), "{report:?}");
    let store = Store::open(folder.path(), &options(1)).unwrap();
    assert_eq!(store.replaced_devices().len(), 1, "a new generation");
    assert!(rows(&store).unwrap() == before, "other rows");
    assert!(store.check(Repair::ReportOnly, &mut go_on).unwrap().is_clean());
    assert!(folder.path().join("library.damaged").exists());
}

#[test]
fn a_log_that_rots_is_named_and_its_rows_stay() {
    let (folder, before) = closed();
    // The first change of the schema stands in the log alone.
    let genesis = catchword_model::genesis::genesis(catchword_model::schema::DocumentKind::Book);
    let body = &genesis.bytes()[..24];
    assert!(0 < rot(&folder.path().join("library"), body));

    let report = saved(folder.path());

    assert_eq!(report.tables, ["log-1"]);
    let damaged = report.check.unwrap().damaged;
    assert!(damaged.iter().any(|damaged| damaged.document == BOOK.document()), "{damaged:?}");
    let store = Store::open(folder.path(), &options(1)).unwrap();
    assert!(rows(&store).unwrap() == before, "rows may be all that is left");
    let again = store.check(Repair::Rebuild, &mut go_on).unwrap();
    assert!(!again.is_clean());
    assert!(rows(&store).unwrap() == before, "and stay so after a repair");
}

#[test]
fn a_library_that_forgot_who_it_is_goes_on_as_a_new_device_with_what_waits() {
    let (folder, before) = closed();
    let store = Store::open(folder.path(), &options(1)).unwrap();
    let device = store.device();
    store.turn(BOOK, &turn(500_000), MONDAY_MS + 300).unwrap();
    drop(store);
    assert!(0 < rot(&folder.path().join("library"), b"next_sequence"));
    let error = Store::open(folder.path(), &options(1)).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");

    let report = saved(folder.path());

    assert!(report.tables.contains(&"meta-1".to_owned()), "{report:?}");
    let store = Store::open(folder.path(), &options(1)).unwrap();
    assert_ne!(store.device(), device);
    assert!(rows(&store).unwrap() == before, "other rows");
    assert_eq!(store.book(BOOK).unwrap().unwrap().annotations, 200);
    let events = store.view(BOOK).unwrap().unwrap().events;
    assert_eq!(events.count, 1, "the turn that waited is published");
    assert!(store.check(Repair::ReportOnly, &mut go_on).unwrap().is_clean());
}

#[test]
fn a_salvage_that_is_stopped_changes_nothing() {
    let (folder, _) = closed();
    let path = folder.path().join("library");
    assert!(0 < rot(&path, b"next_sequence"));
    let before = fs::read(&path).unwrap();

    let report = salvage(folder.path(), &options(1), &mut |_| ControlFlow::Break(())).unwrap();

    assert_eq!(report, SalvageReport::default());
    assert!(fs::read(&path).unwrap() == before);
    assert!(!folder.path().join("library.damaged").exists());
}

#[test]
fn a_list_of_tables_that_rots_leaves_everything_as_it_is() {
    let (folder, _) = closed();
    let path = folder.path().join("library");
    assert!(0 < rot(&path, b"book_ids-1"));
    let before = fs::read(&path).unwrap();

    let error = salvage(folder.path(), &options(1), &mut go_on).unwrap_err();

    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    assert!(fs::read(&path).unwrap() == before);
}

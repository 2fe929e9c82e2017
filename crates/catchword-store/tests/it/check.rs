//! A check finds what differs from the log and what is damaged, and a repair brings back the first.

use std::ops::ControlFlow;
use std::path::Path;

use catchword_model::annotation::Row;
use catchword_model::edit::Edit;
use catchword_model::id::BookId;
use catchword_model::schema::Container;
use catchword_store::{
    BookSummary, CheckReport, Derived, End, LoadError, Mismatch, Progress, RecordName, Repair,
    Step, Store,
};
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use crate::support::{BOOK, MONDAY_MS, annotate, library, options, titled, turn};

const OTHER: BookId = BookId([9; 32]);

const BOOKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("books-1");
const BOOK_IDS: TableDefinition<'_, &[u8; 32], u32> = TableDefinition::new("book_ids-1");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows-1");
const IDS: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("ids-1");
const FIELDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("fields-1");
const LOG: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("log-1");
const CHAINS: TableDefinition<'_, (u32, u16, u32), &[u8]> = TableDefinition::new("chains-1");
const HASHES: TableDefinition<'_, (u32, u64, u16, u32), ()> = TableDefinition::new("hashes-1");
const RECENT: TableDefinition<'_, (u64, u32), ()> = TableDefinition::new("recent-1");
const EVENTS: TableDefinition<'_, (u32, u16, u64), &[u8]> = TableDefinition::new("events-1");
const TEXTS: TableDefinition<'_, u32, &str> = TableDefinition::new("texts-1");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta-1");

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn check(store: &Store, repair: Repair) -> CheckReport {
    store.check(repair, &mut go_on).unwrap()
}

/// Two books with annotations, positions, tags, events and a journal; half of it in blocks.
fn two_books(folder: &Path) -> Store {
    let store = library(folder, 1);
    store.add_book(OTHER, titled("Emma"), Vec::new(), MONDAY_MS).unwrap();
    for half in 0..2 {
        for n in 0..40 {
            let ppm = u32::try_from(n * 7_919 % 1_000).unwrap() * 1_000;
            for book in [BOOK, OTHER] {
                let edit = annotate(half * 100 + n, ppm);
                store.append(book.document(), &[edit], MONDAY_MS + n).unwrap();
            }
        }
        for book in [BOOK, OTHER] {
            store.turn(book, &turn(100_000), MONDAY_MS).unwrap();
            let tag = Edit::AddTag { tag: format!("tag {half}") };
            store.append(book.document(), &[tag], MONDAY_MS).unwrap();
        }
        store.set_journal(BOOK, &format!("I read this {half} times."), MONDAY_MS).unwrap();
        if half == 0 {
            store.compact(&mut go_on).unwrap();
        }
    }
    store.drain().unwrap();
    store
}

#[derive(Debug, PartialEq)]
struct Seen {
    rows: Vec<Row>,
    fields: Vec<(String, catchword_model::merge::Field)>,
    books: Vec<BookSummary>,
    journal: String,
    changes: usize,
}

fn seen(store: &Store) -> Seen {
    let (mut rows, mut changes, mut fields) = (Vec::new(), 0, Vec::new());
    for book in [BOOK, OTHER] {
        store.rows(book, 0, u32::MAX, |row| rows.push(row)).unwrap();
        store.changes(book.document(), |_| changes += 1).unwrap();
        for container in Container::BOOK {
            fields.extend(store.fields(book.document(), container).unwrap());
        }
    }
    let (books, journal) = (store.books().unwrap(), store.journal(BOOK).unwrap());
    Seen { rows, fields, books, journal, changes }
}

/// Closes the library, lets `harm` write to its tables, and opens it again.
fn harmed(store: Store, folder: &Path, harm: impl FnOnce(&WriteTransaction)) -> Store {
    drop(store);
    let library = Database::open(folder.join("library")).unwrap();
    let mut write = library.begin_write().unwrap();
    write.set_quick_repair(true);
    harm(&write);
    write.commit().unwrap();
    drop(library);
    Store::open(folder, &options(1)).unwrap()
}

#[test]
fn a_healthy_library_is_clean_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = two_books(folder.path());
    let before = seen(&store);

    let report = check(&store, Repair::Rebuild);

    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        (report.documents, report.annotations, report.events, report.repaired),
        (4, 160, 4, 0)
    );
    assert!(seen(&store) == before, "something else is read");
    let mut files: Vec<_> =
        folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["library", "wal", "witness"]);
}

/// What is done to the tables, and where the check must see it.
type Harm = (&'static str, Derived, Mismatch, fn(&WriteTransaction));

fn first<K: redb::Key + 'static, V: redb::Value + 'static, T>(
    table: &redb::Table<'_, K, V>,
    skip: usize,
    take: impl FnOnce(K::SelfType<'_>, V::SelfType<'_>) -> T,
) -> T {
    let (key, value) = table.iter().unwrap().nth(skip).unwrap().unwrap();
    take(key.value(), value.value())
}

const HARMS: &[Harm] = &[
    ("an annotation lost", Derived::Annotations, Mismatch::Missing, |write| {
        let mut table = write.open_table(ROWS).unwrap();
        let key = first(&table, 3, |key, _| key.to_vec());
        table.remove(key.as_slice()).unwrap();
    }),
    ("a letter of a quote", Derived::Annotations, Mismatch::Different, |write| {
        let mut table = write.open_table(ROWS).unwrap();
        let (key, mut value) = first(&table, 3, |key, value| (key.to_vec(), value.to_vec()));
        let place = value.windows(5).position(|word| word == b"quote").unwrap();
        value[place] = b'Q';
        table.insert(key.as_slice(), value.as_slice()).unwrap();
    }),
    ("an annotation nobody made", Derived::Annotations, Mismatch::Unexpected, |write| {
        let mut table = write.open_table(ROWS).unwrap();
        let (mut key, value) = first(&table, 3, |key, value| (key.to_vec(), value.to_vec()));
        *key.last_mut().unwrap() ^= 1;
        table.insert(key.as_slice(), value.as_slice()).unwrap();
    }),
    ("an id lost", Derived::Places, Mismatch::Missing, |write| {
        let mut table = write.open_table(IDS).unwrap();
        let key = first(&table, 3, |key, _| *key);
        table.remove(&key).unwrap();
    }),
    ("a tag lost", Derived::Fields, Mismatch::Missing, |write| {
        let mut table = write.open_table(FIELDS).unwrap();
        let tag = [&[0, 0, 0, 1][..], &[Container::Tags.code()], b"tag 1"].concat();
        assert!(table.remove(tag.as_slice()).unwrap().is_some());
    }),
    ("a field that does not read", Derived::Fields, Mismatch::Different, |write| {
        let mut table = write.open_table(FIELDS).unwrap();
        let tag = [&[0, 0, 0, 1][..], &[Container::Tags.code()], b"tag 1"].concat();
        table.insert(tag.as_slice(), [9].as_slice()).unwrap();
    }),
    ("a hash lost", Derived::Hashes, Mismatch::Missing, |write| {
        let mut table = write.open_table(HASHES).unwrap();
        let key = first(&table, 9, |key, ()| key);
        table.remove(key).unwrap();
    }),
    ("the chain entry of a block lost", Derived::Chains, Mismatch::Different, |write| {
        write.open_table(CHAINS).unwrap().remove((1, 1, 1)).unwrap();
    }),
    ("a chain entry that names another record", Derived::Chains, Mismatch::Different, |write| {
        let mut table = write.open_table(CHAINS).unwrap();
        let wrong = table.get((2, 1, 1)).unwrap().unwrap().value().to_vec();
        table.insert((1, 1, 1), wrong.as_slice()).unwrap();
    }),
    ("a list without a book", Derived::Recent, Mismatch::Missing, |write| {
        let mut table = write.open_table(RECENT).unwrap();
        let key = first(&table, 0, |key, ()| key);
        table.remove(key).unwrap();
    }),
    ("a list with a book twice", Derived::Recent, Mismatch::Unexpected, |write| {
        write.open_table(RECENT).unwrap().insert((5, 1), ()).unwrap();
    }),
    ("a document that does not read", Derived::Documents, Mismatch::Unreadable, |write| {
        write.open_table(BOOKS).unwrap().insert(1, [1, 2, 3].as_slice()).unwrap();
    }),
    ("a document of another book", Derived::Documents, Mismatch::Unreadable, |write| {
        let mut table = write.open_table(BOOKS).unwrap();
        let wrong = table.get(2).unwrap().unwrap().value().to_vec();
        table.insert(1, wrong.as_slice()).unwrap();
    }),
    ("a book without its number", Derived::Numbers, Mismatch::Missing, |write| {
        write.open_table(BOOK_IDS).unwrap().remove(&BOOK.0).unwrap();
    }),
    ("another journal", Derived::Journals, Mismatch::Different, |write| {
        let mut table = write.open_table(TEXTS).unwrap();
        let key = first(&table, 0, |key, _| key);
        table.insert(key, "I never read this.").unwrap();
    }),
    ("numbers that would be used twice", Derived::NextNumber, Mismatch::Different, |write| {
        let mut table = write.open_table(META).unwrap();
        table.insert("next_sequence", 3_u64.to_be_bytes().as_slice()).unwrap();
    }),
];

#[test]
fn what_differs_from_the_log_is_found_and_brought_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = two_books(folder.path());
    for (name, derived, mismatch, harm) in HARMS {
        let before = seen(&store);
        store = harmed(store, folder.path(), harm);

        let report = check(&store, Repair::ReportOnly);
        let found =
            report.named.iter().any(|it| (it.derived, it.mismatch) == (*derived, *mismatch));
        assert!(found, "{name}: {report:?}");
        assert_eq!(report.damaged, [], "{name}");
        let report = check(&store, Repair::Rebuild);
        assert!(!report.is_clean(), "{name}: a report changed something");

        let report = check(&store, Repair::ReportOnly);
        assert!(report.is_clean(), "{name}: {report:?}");
        assert!(seen(&store) == before, "{name}: something else came back");
        store
            .append(BOOK.document(), &[Edit::AddTag { tag: "tag 1".to_owned() }], MONDAY_MS)
            .unwrap();
    }
    assert!(check(&store, Repair::ReportOnly).is_clean());
}

#[test]
fn a_damaged_record_is_named_and_never_served_and_other_books_are_not_touched() {
    for in_block in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = two_books(folder.path());
        let before = seen(&store);
        let mut sequence = 0;
        store = harmed(store, folder.path(), |write| {
            let mut table = write.open_table(LOG).unwrap();
            let records = table.range((1, 0)..(2, 0)).unwrap().map(|found| {
                let (key, value) = found.unwrap();
                (key.value(), value.value().to_vec())
            });
            // Singles begin with 0, blocks with 2. The first single is the genesis of the book.
            let mut of_kind = records.filter(|(_, record)| record[0] == 2 * u8::from(in_block));
            let (key, mut record) = of_kind.nth(usize::from(!in_block)).unwrap();
            drop(of_kind);
            let middle = record.len() / 2;
            record[middle] ^= 0x10;
            table.insert(key, record.as_slice()).unwrap();
            sequence = key.1;
        });

        let report = check(&store, Repair::Rebuild);

        let named = report.damaged.first().unwrap();
        let record = RecordName::Change { sequence };
        assert_eq!((named.document, named.record), (BOOK.document(), record), "{report:?}");
        assert!(report.damaged.iter().all(|damaged| damaged.document == BOOK.document()));
        assert_eq!(report.repaired, 0);
        let read = store.changes(BOOK.document(), |_| ());
        assert!(matches!(read, Err(LoadError::Corrupt { .. })), "{read:?}");
        store.changes(OTHER.document(), |_| ()).unwrap();
        store.append(OTHER.document(), &[annotate(900, 5)], MONDAY_MS).unwrap();
        // The rows are all that is left of what the record said.
        let mut rows = Vec::new();
        store.rows(BOOK, 0, u32::MAX, |row| rows.push(row)).unwrap();
        assert_eq!(rows, before.rows[..rows.len()]);
    }
}

#[test]
fn a_record_that_is_gone_is_named_by_what_builds_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = two_books(folder.path());
    let store = harmed(store, folder.path(), |write| {
        let mut table = write.open_table(LOG).unwrap();
        let key = table.range((1, 0)..(2, 0)).unwrap().rev().nth(9).unwrap().unwrap().0.value();
        table.remove(key).unwrap();
        let mut events = write.open_table(EVENTS).unwrap();
        let key = events.range((2, 0, 0)..(3, 0, 0)).unwrap().next().unwrap().unwrap().0.value();
        events.remove(key).unwrap();
    });

    let report = check(&store, Repair::ReportOnly);

    let changes = report.damaged.iter().filter(|it| it.document == BOOK.document()).count();
    assert!((9..30).contains(&changes), "{report:?}");
    let event = report.damaged.iter().find(|it| it.document == OTHER.document()).unwrap();
    assert!(matches!(event.record, RecordName::Event { n: 2, .. }), "{event:?}");
}

#[test]
fn a_check_that_is_stopped_repairs_nothing_and_a_repair_that_is_killed_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = two_books(folder.path());
    let before = seen(&store);
    let store = harmed(store, folder.path(), |write| {
        let mut rows = write.open_table(ROWS).unwrap();
        rows.retain(|key, _| key[3] == 0).unwrap();
    });

    for step in [Step::Reading, Step::Comparing] {
        let stop_at = |progress: Progress| {
            if progress.step == step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let report = store.check(Repair::Rebuild, &mut { stop_at }).unwrap();
        assert_eq!((report.end, report.repaired), (End::Stopped, 0));
    }
    let mut copies = Vec::new();
    let report = store.check(Repair::Rebuild, &mut |progress| {
        if progress.step == Step::Rebuilding {
            let copy = tempfile::tempdir().unwrap();
            for file in ["wal", "library", "witness"] {
                std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
            }
            copies.push(copy);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(report.unwrap().repaired, 2);
    assert!(seen(&store) == before, "something else is read");
    for copy in copies {
        let killed = Store::open(copy.path(), &options(1)).unwrap();
        check(&killed, Repair::Rebuild);
        assert!(seen(&killed) == before, "something else came back");
        assert!(check(&killed, Repair::ReportOnly).is_clean());
    }
}

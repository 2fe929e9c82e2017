//! The suite against the embedded ledger.

use std::collections::BTreeSet;

use catchword_proto::cloud::api::Anchor;
use catchword_server::ledger::{LedgerError, RedbLedger};
use redb::backends::InMemoryBackend;

use crate::conformance::{self, Ledgers};
use crate::devices::{Device, doc};

fn ledger() -> RedbLedger {
    let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
    RedbLedger::over(database).unwrap()
}

fn run(check: impl AsyncFnOnce(Ledgers)) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(check(Ledgers::new(ledger())));
}

crate::conformance::suite!(run);

/// More of the same.
#[test]
fn in_300_stories_the_same_counts_whatever_the_order() {
    run(async |ledgers| conformance::stories(ledgers, 1_000..1_300).await);
}

/// A file of the first format has no table that says so, and everything else as it is.
#[test]
fn a_file_of_an_earlier_format_is_used_and_one_of_a_later_refused() {
    const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("cloud-meta-1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloud.redb");
    let edit = |work: &dyn Fn(&redb::WriteTransaction)| {
        let database = redb::Database::open(&file).unwrap();
        let write = database.begin_write().unwrap();
        work(&write);
        write.commit().unwrap();
    };
    run(async |_| {
        let cursor = conformance::fill(&Ledgers::new(RedbLedger::open(&file).unwrap()), 5).await;
        edit(&|write| assert!(write.delete_table(META).unwrap()));
        assert_eq!(Ledgers::new(RedbLedger::open(&file).unwrap()).end().await, cursor);
        edit(&|write| {
            let mut meta = write.open_table(META).unwrap();
            assert_eq!(meta.insert("format", 3).unwrap().unwrap().value(), 2);
        });
        let refused = RedbLedger::open(&file);
        assert!(matches!(refused, Err(LedgerError::Unfit { .. })), "{refused:?}");
    });
}

#[test]
fn what_was_answered_is_there_after_the_ledger_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloud.redb");
    run(async |_| {
        let cursor = {
            let ledgers = Ledgers::new(RedbLedger::open(&file).unwrap());
            conformance::fill(&ledgers, 5).await
        };
        let ledgers = Ledgers::new(RedbLedger::open(&file).unwrap());
        assert_eq!(ledgers.end().await, cursor);
        assert!(RedbLedger::open(&file).is_err(), "one process has the file");
    });
}

/// What the documentation says about backup and restore: also when the feed has grown past the cursor.
#[test]
fn a_restored_server_does_not_know_what_came_after_its_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (file, backup) = (folder.path().join("cloud.redb"), folder.path().join("backup.redb"));
    run(async |_| {
        let known = {
            let ledgers = Ledgers::new(RedbLedger::open(&file).unwrap());
            conformance::fill(&ledgers, 5).await
        };
        std::fs::copy(&file, &backup).unwrap();
        let push = async |ledgers: &Ledgers, quotes: &[&str]| {
            let mut tablet = Device::new(2);
            for quote in quotes {
                tablet.annotate(doc(1), quote);
            }
            ledgers.push(&[tablet.entry(doc(1), &BTreeSet::new(), 0)]).await
        };
        let (before, after) = {
            let ledgers = Ledgers::new(RedbLedger::open(&file).unwrap());
            let page = ledgers.page(0, 9).await;
            let after = push(&ledgers, &["after the backup"]).await;
            (Anchor { number: known, tag: page.tag.unwrap() }, after)
        };
        let after = Anchor { number: after.cursor, tag: after.tag.unwrap() };

        std::fs::copy(&backup, &file).unwrap();
        let ledgers = Ledgers::new(RedbLedger::open(&file).unwrap());
        let is_there = async |anchor| ledgers.ledger.knows(ledgers.account, anchor).await.unwrap();
        assert!(is_there(before).await && !is_there(after).await);
        // The same change comes again, under the same number.
        push(&ledgers, &["after the backup"]).await;
        assert_eq!(ledgers.end().await, after.number);
        assert!(is_there(before).await && !is_there(after).await);
    });
}

/// The file as a killed process leaves it: redb would walk all of it, were its last commit one that needs
/// a repair.
#[test]
fn a_server_that_was_killed_opens_without_a_repair() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloud.redb");
    let left = folder.path().join("left.redb");
    run(async |_| {
        let ledgers = Ledgers::new(RedbLedger::open(&file).unwrap());
        let cursor = conformance::fill(&ledgers, 5).await;
        std::fs::copy(&file, &left).unwrap();

        let repairs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&repairs);
        let mut builder = redb::Builder::new();
        builder.set_repair_callback(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let opened = Ledgers::new(RedbLedger::over(builder.open(&left).unwrap()).unwrap());
        assert_eq!(opened.end().await, cursor);
        assert_eq!(repairs.load(Ordering::Relaxed), 0);
    });
}

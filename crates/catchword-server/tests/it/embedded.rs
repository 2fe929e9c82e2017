//! The suite against the embedded ledger.

use catchword_server::ledger::RedbLedger;
use redb::backends::InMemoryBackend;

use crate::conformance::{self, Ledgers};

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

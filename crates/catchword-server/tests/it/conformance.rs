//! The contract of a ledger: every one must do all of this.

use std::collections::BTreeSet;
use std::sync::Arc;

use catchword_model::edit::Edit;
use catchword_model::exchange::DocumentName;
use catchword_model::id::sha256;
use catchword_model::meta::{Meta, Rank};
use catchword_proto::cloud::api::{
    AccountId, Anchor, DEVICES_MAX, Entry, FeedRecord, FeedTag, Hash, Ingested, Outcome, Page,
    Reason, Receipt, Record, TokenId, Verdict, WireStatement,
};
use catchword_proto::cloud::codec::Blob;
use catchword_server::entry::Batch;
use catchword_server::ledger::{AccountRow, Added, DeviceRow, Ledger};

use crate::devices::{Device, book, doc, keyed, stamp};

mod feed;
mod forks;
mod forms;
mod orders;
mod table;

pub(crate) use feed::*;
pub(crate) use forks::*;
pub(crate) use forms::*;
pub(crate) use orders::*;
pub(crate) use table::*;

/// A ledger, and an account of one test in it.
#[derive(Clone)]
pub(crate) struct Ledgers {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) account: AccountId,
}

/// Makes a test of each check.
macro_rules! suite {
    ($run:path) => {
        $crate::conformance::suite!(
            $run:
            accounts_are_made_once,
            an_account_has_at_most_so_many_devices,
            an_entry_counts_once_however_often_it_is_sent,
            many_clients_push_and_nothing_is_lost_or_double,
            an_account_sees_nothing_of_another,
            a_nudge_says_how_far_the_feed_is,
            a_page_ends_where_an_entry_ended,
            a_record_of_the_feed_is_known_by_its_tag,
            a_page_is_covered_by_its_own_statements,
            a_page_has_at_most_some_bytes_and_always_an_entry,
            books_are_listed_with_place_and_counts,
            an_entry_that_lacks_something_says_what,
            an_entry_without_a_statement_says_so,
            an_entry_counts_as_a_whole_or_not_at_all,
            what_is_wrong_is_refused_with_the_reason,
            of_two_histories_of_a_writer_the_one_with_the_smaller_hash_counts,
            a_second_history_that_nobody_signed_changes_nothing,
            what_builds_on_a_void_branch_is_judged_by_its_own_past,
            of_two_histories_in_one_call_one_counts,
            the_place_is_folded_again_of_what_is_left,
            of_two_histories_of_events_one_counts,
            an_upgrade_has_no_second_form,
            in_whatever_order_histories_come_the_same_counts,
            events_follow_one_another,
            every_kind_of_document_is_taken,
            chains_that_interleave_all_the_way_are_one_entry,
            an_upgrade_needs_no_statement_and_makes_containers,
            a_document_has_at_most_so_many_actors,
            an_account_has_at_most_so_many_documents,
            the_ledger_admits_what_a_history_admits,
            every_cell_of_compare_and_swap_with_intent,
            a_replay_is_folded_and_never_contended,
            a_verdict_is_answered_again_and_stands_in_the_feed,
            a_withdrawn_mark_that_a_device_wrote_counts,
            a_stamp_that_no_mark_can_reach_is_not_withdrawn,
            the_place_is_the_one_that_devices_compute,
        );
    };
    ($run:path: $($name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                $run(async |ledgers| $crate::conformance::$name(ledgers).await);
            }
        )*
    };
}
pub(crate) use suite;

impl Ledgers {
    pub(crate) fn new(ledger: impl Ledger) -> Self {
        Self { ledger: Arc::new(ledger), account: AccountId([1; 16]) }
    }

    pub(crate) fn of(&self, name: &str) -> Self {
        Self { ledger: Arc::clone(&self.ledger), account: AccountId::of_user(name) }
    }

    /// Signs a first device in to an account of this name.
    pub(crate) async fn account(&self, name: &str) -> Self {
        let of = self.of(name);
        let row = AccountRow { password_hash: "secret".to_owned() };
        let added = of.ledger.add_account(of.account, row, device_row(0, u64::MAX)).await.unwrap();
        assert_eq!(added, Added::Added);
        of
    }

    pub(crate) async fn push(&self, entries: &[Entry]) -> Ingested {
        let batch = Arc::new(Batch::read(entries));
        self.ledger.admit(self.account, batch).await.unwrap()
    }

    pub(crate) async fn push_one(&self, entry: &Entry) -> Outcome {
        let mut answered = self.push(std::slice::from_ref(entry)).await;
        assert_eq!(answered.answers.len(), 1);
        let answer = answered.answers.remove(0);
        assert_eq!(answer.key, entry.key);
        answer.outcome
    }

    pub(crate) async fn page(&self, after: u64, limit: usize) -> Page {
        self.ledger.page(self.account, after, limit).await.unwrap()
    }

    /// Reads the whole feed.
    pub(crate) async fn feed(&self) -> Vec<FeedRecord> {
        let mut records = Vec::new();
        let mut cursor = 0;
        loop {
            let page = self.page(cursor, 500).await;
            records.extend(page.records);
            if page.cursor == page.end {
                return records;
            }
            assert!(cursor < page.cursor, "a page brings something");
            cursor = page.cursor;
        }
    }

    pub(crate) async fn end(&self) -> u64 {
        self.ledger.end(self.account).await.unwrap()
    }
}

pub(crate) fn receipt(outcome: &Outcome) -> &Receipt {
    match outcome {
        Outcome::Accepted(receipt) | Outcome::Rebased(receipt) | Outcome::Conflict(receipt) => {
            receipt
        }
        Outcome::Incomplete { .. } | Outcome::Refused { .. } => panic!("not taken: {outcome:?}"),
    }
}

pub(crate) fn device_row(number: u8, expires_ms: u64) -> DeviceRow {
    DeviceRow {
        id: TokenId([number; 16]),
        name: format!("device {number}"),
        token_hash: sha256(&[&[number]]),
        created_ms: 5,
        expires_ms,
    }
}

/// Makes an account with so many changes, and returns the end of its feed.
pub(crate) async fn fill(ledgers: &Ledgers, count: u8) -> u64 {
    let row = AccountRow { password_hash: "secret".to_owned() };
    let device = device_row(0, u64::MAX);
    ledgers.ledger.add_account(ledgers.account, row, device).await.unwrap();
    let mut phone = Device::new(1);
    for n in 0..count {
        phone.annotate(doc(1), &n.to_string());
    }
    ledgers.push(&[phone.entry(doc(1), &BTreeSet::new(), 0)]).await.cursor
}

pub(crate) async fn accounts_are_made_once(ledgers: Ledgers) {
    let anna = ledgers.account("accounts").await;
    let again = AccountRow { password_hash: "other".to_owned() };
    let added = anna.ledger.add_account(anna.account, again, device_row(7, 9)).await.unwrap();
    assert_eq!(added, Added::Refused);
    let secret = |text: &str| Some(AccountRow { password_hash: text.to_owned() });
    assert_eq!(anna.ledger.account(anna.account).await.unwrap(), secret("secret"));
    assert_eq!(anna.ledger.device(anna.account, TokenId([7; 16])).await.unwrap(), None);

    anna.ledger.set_password_hash(anna.account, "better".to_owned()).await.unwrap();
    assert_eq!(anna.ledger.account(anna.account).await.unwrap(), secret("better"));
    let nobody = ledgers.of("accounts: nobody");
    assert_eq!(nobody.ledger.account(nobody.account).await.unwrap(), None);
    let added = nobody.ledger.add_device(nobody.account, device_row(1, 9), 0).await.unwrap();
    assert_eq!(added, Added::Refused);
    assert_eq!(nobody.end().await, 0);
    nobody.ledger.check().await.unwrap();
}

pub(crate) async fn an_account_has_at_most_so_many_devices(ledgers: Ledgers) {
    let anna = ledgers.account("devices").await;
    let (ledger, account) = (&anna.ledger, anna.account);
    for number in 1..u8::try_from(DEVICES_MAX).unwrap() {
        let row = device_row(number, 1_000 + u64::from(number));
        assert_eq!(ledger.add_device(account, row, 0).await.unwrap(), Added::Added, "{number}");
    }
    let full = ledger.add_device(account, device_row(99, 9_999), 1_000).await.unwrap();
    assert_eq!(full, Added::Full);
    assert_eq!(ledger.devices(account).await.unwrap().len(), DEVICES_MAX);

    let ended = ledger.add_device(account, device_row(99, 9_999), 1_002).await.unwrap();
    assert_eq!(ended, Added::Added, "two tokens have ended");
    let ids: Vec<_> = ledger.devices(account).await.unwrap().iter().map(|row| row.id).collect();
    assert!(ids.is_sorted() && !ids.contains(&TokenId([1; 16])), "{ids:?}");

    ledger.extend_device(account, TokenId([99; 16]), 77).await.unwrap();
    let row = ledger.device(account, TokenId([99; 16])).await.unwrap();
    assert_eq!(row, Some(device_row(99, 77)));
    assert!(ledger.remove_device(account, TokenId([99; 16])).await.unwrap());
    assert!(!ledger.remove_device(account, TokenId([99; 16])).await.unwrap());
    assert_eq!(ledger.device(account, TokenId([99; 16])).await.unwrap(), None);
}

pub(crate) async fn an_entry_counts_once_however_often_it_is_sent(ledgers: Ledgers) {
    let anna = ledgers.account("once").await;
    let mut phone = Device::new(1);
    phone.annotate(doc(1), "one");
    phone.annotate(doc(1), "two");
    phone.read(book(1));
    let entry = phone.entry(doc(1), &BTreeSet::new(), 0);

    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (anna, entry) = (anna.clone(), entry.clone());
        sending.spawn(async move { anna.push_one(&entry).await });
    }
    let outcomes = sending.join_all().await;

    assert_eq!(anna.end().await, 3);
    assert_eq!(anna.feed().await.len(), 3);
    for outcome in &outcomes {
        let receipt = receipt(outcome);
        assert_eq!((receipt.version, receipt.verdicts.len()), (2, 2), "{outcome:?}");
    }
    let accepted = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted(_)));
    assert_eq!(accepted.count(), 1, "the others come on top of what they bring");
    // Twice in one batch, and twice in one entry.
    let double = keyed(Entry {
        changes: [entry.changes.clone(), entry.changes.clone()].concat(),
        ..entry.clone()
    });
    let answered = anna.push(&[entry.clone(), entry, double]).await;
    let numbers = (answered.answers.len(), answered.before, answered.cursor);
    assert_eq!(numbers, (3, 3, 3), "nothing of it is new");
    assert_eq!(receipt(&answered.answers[2].outcome).verdicts.len(), 4);
}

/// T-SRV-2 in small: see also the tests with kills.
pub(crate) async fn many_clients_push_and_nothing_is_lost_or_double(ledgers: Ledgers) {
    const CLIENTS: u8 = 16;
    const PUSHES: usize = 12;
    let anna = ledgers.account("clients").await;
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let anna = anna.clone();
        sending.spawn(async move {
            let mut device = Device::new(number + 1);
            let of = doc(number % 3);
            let mut known = BTreeSet::new();
            let mut versions = Vec::new();
            for n in 0..PUSHES {
                let change = device.annotate(of, &n.to_string());
                let outcome = anna.push_one(&device.entry(of, &known, 0)).await;
                known.insert(change.hash().0);
                versions.push((of, receipt(&outcome).version));
            }
            versions
        });
    }
    let versions: Vec<_> = sending.join_all().await.into_iter().flatten().collect();

    let all = usize::from(CLIENTS) * PUSHES;
    let distinct: BTreeSet<_> = versions.iter().copied().collect();
    assert_eq!((versions.len(), distinct.len()), (all, all), "each push has a version of its own");
    let feed = anna.feed().await;
    assert_eq!(feed.len(), all);
    for (index, record) in feed.iter().enumerate() {
        assert_eq!(record.number, index as u64 + 1);
    }
    for of in [doc(0), doc(1), doc(2)] {
        let of_doc = feed.iter().filter(|record| record.document == of);
        let versions: Vec<u64> = of_doc.map(|record| record.version).collect();
        assert!(versions.iter().copied().eq(1..=versions.len() as u64), "{versions:?}");
    }
}

pub(crate) async fn an_account_sees_nothing_of_another(ledgers: Ledgers) {
    let (anna, bert) = (ledgers.account("anna").await, ledgers.account("bert").await);
    let mut phone = Device::new(1);
    phone.annotate(doc(1), "anna's");
    phone.read(book(1));
    let entry = phone.entry(doc(1), &BTreeSet::new(), 0);
    anna.push(std::slice::from_ref(&entry)).await;
    assert_eq!(anna.ledger.devices(anna.account).await.unwrap().len(), 1);

    assert_eq!(bert.end().await, 0);
    assert_eq!(
        bert.page(0, 10).await,
        Page { records: Vec::new(), cursor: 0, end: 0, tag: None, reset: false }
    );
    assert_eq!(bert.ledger.books(bert.account, None, 9).await.unwrap().books, []);
    assert_eq!(bert.ledger.book(bert.account, book(1)).await.unwrap(), None);
    assert!(anna.ledger.remove_device(anna.account, TokenId([0; 16])).await.unwrap());
    assert!(bert.ledger.device(bert.account, TokenId([0; 16])).await.unwrap().is_some());

    // What builds on another account's changes lacks them here.
    let next = phone.annotate(doc(1), "more");
    let outcome = bert.push_one(&phone.entry_of(doc(1), 0, &[next], &[])).await;
    let Outcome::Incomplete { missing, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(missing.len(), 1);
    // And the same changes are new there.
    assert_eq!(receipt(&bert.push_one(&entry).await).version, 1);
    assert_eq!((anna.end().await, bert.end().await), (2, 2));
}

pub(crate) async fn a_nudge_says_how_far_the_feed_is(ledgers: Ledgers) {
    let anna = ledgers.account("nudges").await;
    let mut nudges = anna.ledger.nudges();
    let mut phone = Device::new(1);
    phone.annotate(doc(1), "one");
    let entry = phone.entry(doc(1), &BTreeSet::new(), 0);
    anna.push(std::slice::from_ref(&entry)).await;

    let heard = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        loop {
            let (account, cursor) = nudges.recv().await.unwrap();
            if account == anna.account {
                return cursor;
            }
        }
    });
    assert_eq!(heard.await.unwrap(), 1);
}

fn titled(text: &str) -> Edit {
    let meta = Meta { value: text.into(), rank: Rank::User };
    Edit::SetMeta { field: "title".to_owned(), meta }
}

fn statements_of(record: &FeedRecord) -> Option<&WireStatement> {
    record.statement.as_ref()
}

fn change_bytes(record: &FeedRecord) -> Option<(&Blob, Verdict)> {
    match &record.record {
        Record::Change { bytes, verdict } => Some((bytes, *verdict)),
        Record::Event { .. } | Record::Void { .. } => None,
    }
}

//! What the server keeps, and the two places where it can be kept.
//!
//! # Invariants
//!
//! 1. What is answered as taken is durable.
//! 2. Numbers of an account's feed become visible in order and without gaps.
//! 3. Nothing is asked or written across accounts: every key begins with the account.
//!
//! # What is not here
//!
//! What an entry means: the docket decides, from rows that a ledger loads.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use catchword_model::exchange::DocumentName;
use catchword_model::id::BookId;
use catchword_proto::cloud::api::{
    AccountId, Anchor, Book, Books, ChainKind, EntryAnswer, FeedRecord, FeedTag, Hash, Ingested,
    PAGE_BYTES_MAX, Page, Record, TokenId, Verdict,
};
use catchword_proto::cloud::codec::Blob;
use tokio::sync::broadcast;

use crate::docket::{Docket, Link, Loaded, NewRecord, RecordKind};
use crate::entry::{Batch, Wanted};
use crate::fold::Fold;

mod local;
mod postgres;
mod rows;
mod tables;

pub use local::RedbLedger;
pub use postgres::{PostgresLedger, Projected};
pub(crate) use rows::{pack_holders, unpack_holders};

/// Nudges that wait for a slow listener; beyond, it hears that it missed some.
pub(crate) const NUDGES_MAX: usize = 1_024;

/// Stands where the end of a feed stands, in a nudge that says that a device of the account was signed out.
pub const SIGNED_OUT: u64 = 0;

/// The ledger could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// There is too much to do; nothing was written. Ask again.
    #[error("the ledger is busy")]
    Busy,
    /// The database does not answer, or refused. Whether something was written is not known: ask again,
    /// since taking an entry twice changes nothing.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row does not read.
    #[error("the database is damaged: {detail}")]
    Damaged {
        /// Which one.
        detail: &'static str,
    },
    /// The database is not one that this release can use.
    #[error("the database cannot be used: {detail}")]
    Unfit {
        /// Why, and what would help.
        detail: String,
    },
}

impl LedgerError {
    pub(crate) fn database(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Database(error.into())
    }
}

/// What a ledger answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// An account as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// What its password is held against: a PHC string.
    pub password_hash: String,
}

/// A signed-in device as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its id.
    pub id: TokenId,
    /// What it is called.
    pub name: String,
    /// The SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// When it signed in, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When its token ends, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// What became of a new account or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    Added,
    /// The account is there already, or is not there at all.
    Refused,
    /// There are as many devices as there may be.
    Full,
}

/// Keeps accounts and what they have. Two of them exist: [`RedbLedger`] and [`PostgresLedger`].
///
/// One suite holds both to this contract.
pub trait Ledger: Send + Sync + 'static {
    /// Makes an account with its first device. An account that is there is left alone.
    fn add_account(
        &self,
        account: AccountId,
        row: AccountRow,
        device: DeviceRow,
    ) -> Answer<'_, Added>;

    /// Finds an account.
    fn account(&self, account: AccountId) -> Answer<'_, Option<AccountRow>>;

    /// Replaces what the password is held against.
    fn set_password_hash(&self, account: AccountId, password_hash: String) -> Answer<'_, ()>;

    /// Signs a device in. Devices whose tokens have ended at `now_ms` make room.
    fn add_device(&self, account: AccountId, device: DeviceRow, now_ms: u64) -> Answer<'_, Added>;

    /// Returns the devices of an account, by id.
    fn devices(&self, account: AccountId) -> Answer<'_, Vec<DeviceRow>>;

    /// Finds a device.
    fn device(&self, account: AccountId, device: TokenId) -> Answer<'_, Option<DeviceRow>>;

    /// Lets a token end later.
    fn extend_device(&self, account: AccountId, device: TokenId, expires_ms: u64)
    -> Answer<'_, ()>;

    /// Signs a device out, and tells who has live connections. Returns whether it was there.
    fn remove_device(&self, account: AccountId, device: TokenId) -> Answer<'_, bool>;

    /// Decides about a batch and makes durable what counts.
    fn admit(&self, account: AccountId, batch: Arc<Batch>) -> Answer<'_, Ingested>;

    /// Reads the feed after a cursor: about `limit` records, and whole entries.
    fn page(&self, account: AccountId, after: u64, limit: usize) -> Answer<'_, Page>;

    /// Returns whether the feed has a record; one that was restored may have another one in its place.
    fn knows(&self, account: AccountId, anchor: Anchor) -> Answer<'_, bool>;

    /// Returns the end of the feed.
    fn end(&self, account: AccountId) -> Answer<'_, u64>;

    /// Returns books after one, ascending by id.
    fn books(&self, account: AccountId, after: Option<BookId>, limit: usize) -> Answer<'_, Books>;

    /// Finds a book.
    fn book(&self, account: AccountId, book: BookId) -> Answer<'_, Option<Book>>;

    /// Returns whether the database answers.
    fn check(&self) -> Answer<'_, ()>;

    /// Hears of accounts whose feed has grown, or of which a device was signed out ([`SIGNED_OUT`]),
    /// whichever process did it.
    fn nudges(&self) -> broadcast::Receiver<(AccountId, u64)>;
}

/// What a batch comes to: answers, and what is to be written.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) answers: Vec<EntryAnswer>,
    /// New records of each entry that has any, in the order of the batch; each notice that something is
    /// void is a group of its own, so that a page may end there.
    pub(crate) groups: Vec<Vec<NewRecord>>,
    /// The documents that changed.
    pub(crate) dockets: Vec<Docket>,
    /// How many of them the account did not have.
    pub(crate) begun: u64,
}

impl Decided {
    pub(crate) fn records(&self) -> u64 {
        self.groups.iter().map(Vec::len).sum::<usize>() as u64
    }

    /// Returns the number up to which a reader must have merged the feed to have merged all of it, where
    /// `cursor` is its end now: what a call lets others know of its own changes is not read again, but
    /// for what became void.
    pub(crate) fn before(&self, cursor: u64) -> u64 {
        let notices = self.groups.iter().flatten().any(|record| record.kind == RecordKind::Void);
        if notices { cursor } else { cursor - self.records() }
    }
}

/// Decides about a batch. `documents` is how many the account has.
pub(crate) fn decide(batch: &Batch, loaded: Vec<(Wanted, Loaded)>, documents: u64) -> Decided {
    let mut dockets: Vec<Docket> =
        loaded.into_iter().map(|(wanted, loaded)| Docket::new(&wanted, loaded)).collect();
    let mut decided =
        Decided { answers: Vec::new(), groups: Vec::new(), dockets: Vec::new(), begun: 0 };
    let mut changed = vec![false; dockets.len()];
    for (key, entry) in &batch.entries {
        let outcome = match entry {
            Err(outcome) => outcome.clone(),
            Ok(reading) => {
                let docket = dockets.iter_mut().zip(&mut changed);
                let mut of = docket.filter(|(docket, _)| docket.document() == reading.document);
                let Some((docket, changed)) = of.next() else { continue };
                let is_new = docket.is_new();
                let (outcome, records) = docket.decide(reading, documents + decided.begun);
                if !records.is_empty() {
                    decided.begun += u64::from(is_new);
                    *changed = true;
                    decided.groups.extend(grouped(records));
                }
                outcome
            }
        };
        decided.answers.push(EntryAnswer { key: *key, outcome });
    }
    let touched = dockets.drain(..).zip(changed).filter(|(_, changed)| *changed);
    decided.dockets = touched.map(|(docket, _)| docket).collect();
    let voided = decided.dockets.iter().flat_map(Docket::voided).map(|link| link.hash);
    let voided: BTreeSet<[u8; 32]> = voided.collect();
    for record in decided.groups.iter_mut().flatten() {
        // It may have become void later in the batch.
        if voided.contains(&record.link.hash) {
            record.link.verdict = Verdict::Void;
        }
    }
    decided
}

fn grouped(mut records: Vec<NewRecord>) -> impl Iterator<Item = Vec<NewRecord>> {
    let links = records.iter().take_while(|record| record.kind == RecordKind::Link).count();
    let notices = records.split_off(links);
    std::iter::once(records).chain(notices.into_iter().map(|notice| vec![notice]))
}

/// A record of the feed as it is stored, without its number.
#[derive(Debug, Clone)]
pub(crate) struct StoredRecord {
    pub(crate) document: DocumentName,
    pub(crate) version: u64,
    /// The number of the last record of its entry.
    pub(crate) through: u64,
    pub(crate) link: Link,
    pub(crate) statement: Option<catchword_proto::cloud::api::WireStatement>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: RecordKind,
}

impl StoredRecord {
    fn new(record: &NewRecord, through: u64) -> Self {
        Self {
            document: record.document,
            version: record.version,
            through,
            link: record.link.clone(),
            statement: record.statement.clone(),
            bytes: record.bytes.clone(),
            kind: record.kind,
        }
    }

    fn into_feed(self, number: u64) -> FeedRecord {
        let bytes = Blob(self.bytes);
        let record = match (self.kind, self.link.chain) {
            (RecordKind::Void, _) => Record::Void { hash: Hash(self.link.hash) },
            (RecordKind::Link, ChainKind::Changes) => {
                Record::Change { bytes, verdict: self.link.verdict }
            }
            (RecordKind::Link, ChainKind::Events) => Record::Event { bytes },
        };
        FeedRecord {
            number,
            document: self.document,
            version: self.version,
            statement: self.statement,
            record,
        }
    }
}

/// Where a page ends: after some records or bytes, and always where an entry ended.
#[derive(Debug)]
pub(crate) struct Cut {
    left: usize,
    bytes: u64,
    through: u64,
}

impl Cut {
    fn new(limit: usize) -> Self {
        Self { left: limit.max(1), bytes: 0, through: 0 }
    }

    /// Returns whether the next record belongs to the page. `through` is the last of its entry.
    fn takes(&mut self, number: u64, through: u64, bytes: u64) -> bool {
        let full = self.left == 0 || PAGE_BYTES_MAX as u64 <= self.bytes;
        if self.through < number && full {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        self.bytes += bytes;
        self.through = through;
        true
    }
}

/// Draws the tag of the records of one call.
fn draw_tag() -> Result<FeedTag, LedgerError> {
    let mut tag = [0; 8];
    getrandom::fill(&mut tag).map_err(|error| LedgerError::database(error.to_string()))?;
    Ok(FeedTag(tag))
}

/// Records before the first have none.
fn tag_at(number: u64, tag: FeedTag) -> Option<FeedTag> {
    (0 < number).then_some(tag)
}

fn book_of(book: BookId, row: crate::docket::DocumentRow, fold: &Fold) -> Book {
    Book {
        book,
        version: row.version,
        events: row.events,
        place: fold.place(),
        furthest_ppm: fold.furthest().map(|furthest| furthest.ppm),
    }
}

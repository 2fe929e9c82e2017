//! What client and server of the account cloud say to each other: the bodies of `/v1`.
//!
//! | call | request | response |
//! |---|---|---|
//! | `POST /v1/accounts` | [`SignIn`] | [`SignedIn`] |
//! | `POST /v1/devices` | [`SignIn`] | [`SignedIn`] |
//! | `GET /v1/devices` | | [`Devices`] |
//! | `DELETE /v1/devices/{id}` | | |
//! | `POST /v1/ingest` | [`Ingest`] | [`Ingested`] |
//! | `GET /v1/changes?after=&limit=` | | [`Page`] |
//! | `GET /v1/live` (WebSocket) | | [`Nudge`], as JSON, each time the feed has grown |
//! | `GET /v1/books?after=&limit=` | | [`Books`] |
//! | `GET /v1/books/{id}` | | [`Book`] |
//!
//! Errors are [`Problem`]s. How bodies are written down says [`super::codec`].
//!
//! # Invariants
//!
//! 1. An entry counts as a whole or not at all, so that everything the server has of an actor ends at a
//!    change with a statement.
//! 2. A page of the feed ends where an entry ended.

use std::fmt;

use catchword_model::exchange::{DocumentName, Signed, Statement};
use catchword_model::id::{ActorId, BookId, ChangeHash, DeviceId, EventHash, Generation, sha256};
use catchword_model::position::Intent;
use serde::{Deserialize, Serialize};

use super::codec::{self, Blob};

pub use super::problem::{PROBLEM_CONTENT_TYPE, Problem, ProblemKind};

/// One body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Changes and events of one call, over all its entries.
///
/// An entry ends at statements, and those of other devices stand up to 512 changes apart. Closing one chain
/// may need a stretch of another, which is closed in turn, and so on through everything that two devices
/// wrote answering each other: so it is [`BODY_BYTES_MAX`] that bounds an entry, and this what may stand in
/// it, since a change or event takes some 256 bytes.
pub const RECORDS_MAX: usize = 32_768;
/// Device tokens of an account.
pub const DEVICES_MAX: usize = 32;
/// Documents of an account.
pub const DOCUMENTS_MAX: u64 = 10_000;
/// Records that a page of the feed is asked for at most; an entry that begins in it is not cut.
pub const PAGE_RECORDS_MAX: usize = 1_000;
/// Bytes of changes after which a page of the feed ends with the entry that passes them.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Books of one answer.
pub const BOOKS_MAX: usize = 500;
/// The name of a person, in bytes.
pub const USER_BYTES_MAX: usize = 128;
/// A password, in bytes. Hashing it must not be a way to keep the server busy.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// The shortest password, in bytes.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// The name of a device, in bytes.
pub const DEVICE_NAME_BYTES_MAX: usize = 128;

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "codec::fixed")] pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_hex(text).map(Self)
            }
        }
    };
}

opaque_id!(
    /// Names an account: the first 16 bytes of SHA-256("catchword/account/v1" ‖ user name).
    ///
    /// Derived, so that nothing is ever looked up across accounts.
    AccountId, 16
);
opaque_id!(
    /// Names one signed-in device of an account, and so its token. No secret.
    TokenId, 16
);
opaque_id!(
    /// Names an entry by its content: see [`Entry::key`].
    EntryKey, 32
);

opaque_id!(
    /// Tells records of the feed with one number apart: drawn at random for each call that writes some.
    FeedTag, 8
);

/// A record of the feed that somebody has merged. A server that has another one with its number, or none,
/// was restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Its number.
    pub number: u64,
    /// Its tag.
    pub tag: FeedTag,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.tag)
    }
}

impl std::str::FromStr for Anchor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = ParseError { bytes: 8 };
        let (number, tag) = text.split_once('-').ok_or(error)?;
        Ok(Self { number: number.parse().map_err(|_| error)?, tag: tag.parse()? })
    }
}

impl Anchor {
    /// Returns the later one of what was known and a record that was merged.
    pub fn later(known: Option<Self>, number: u64, tag: Option<FeedTag>) -> Option<Self> {
        let Some(tag) = tag.filter(|_| 0 < number) else { return known };
        if known.is_some_and(|known| number < known.number) {
            return known;
        }
        Some(Self { number, tag })
    }
}

/// Text is not an identifier of the account cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of {} hex digits", 2 * bytes)]
#[non_exhaustive]
pub struct ParseError {
    /// How many bytes it should have.
    pub bytes: usize,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseError> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(ParseError { bytes: N })
}

/// Makes an account or signs in to one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignIn {
    /// The name of the person, at most [`USER_BYTES_MAX`] bytes.
    pub user: String,
    /// The password.
    pub password: String,
    /// What the device is called in lists, for people.
    pub device: String,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("device", &self.device).finish_non_exhaustive()
    }
}

/// A device is signed in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// The account.
    pub account: AccountId,
    /// This device there.
    pub device: TokenId,
    /// What the device bears from now on: `Authorization: Bearer …`. Said once; the server cannot
    /// repeat it.
    pub token: String,
    /// When the token ends if it is not used until then, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SignedIn");
        shown.field("account", &self.account).field("device", &self.device).finish_non_exhaustive()
    }
}

/// The signed-in devices of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// The devices, by id.
    pub devices: Vec<Device>,
}

impl AccountId {
    /// Returns the account of a person. Names that differ in nothing but case are one.
    pub fn of_user(user: &str) -> Self {
        let hash = sha256(&[b"catchword/account/v1", user.trim().to_lowercase().as_bytes()]);
        Self(hash.first_chunk().copied().unwrap_or_default())
    }
}

/// A signed-in device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: TokenId,
    /// What it is called.
    pub name: String,
    /// When it signed in, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When its token ends, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// A batch from the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingest {
    /// The entries, each decided on its own. Together at most [`RECORDS_MAX`] changes and events.
    pub entries: Vec<Entry>,
}

/// Changes and events of one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Must be [`Entry::key`] of the rest.
    pub key: EntryKey,
    /// Which document.
    #[serde(with = "codec::document")]
    pub document: DocumentName,
    /// The version up to which the sender has merged everything; 0: nothing.
    pub base_version: u64,
    /// History from before the sender signed in: it is folded, and nothing in it is stale.
    #[serde(default)]
    pub replay: bool,
    /// What covers the changes and events, at most as many as there are of these.
    #[serde(default)]
    pub statements: Vec<WireStatement>,
    /// Change chunks, each behind what it builds on.
    #[serde(default)]
    pub changes: Vec<Blob>,
    /// Encoded reading events, each behind the one before.
    #[serde(default)]
    pub events: Vec<Blob>,
}

impl Entry {
    /// Returns the name of an entry: SHA-256("catchword/entry/v1" ‖ document ‖ u64 base version ‖ u8
    /// replay ‖ changes ‖ events), where each list is its u64 count and each item its u64 length and
    /// its bytes.
    ///
    /// Statements are left out: another signature under the same changes makes no other entry.
    pub fn key(&self) -> EntryKey {
        let mut bytes = b"catchword/entry/v1".to_vec();
        bytes.extend_from_slice(&self.document.id().0);
        bytes.extend_from_slice(&self.base_version.to_be_bytes());
        bytes.push(u8::from(self.replay));
        for list in [&self.changes, &self.events] {
            bytes.extend_from_slice(&(list.len() as u64).to_be_bytes());
            for item in list {
                bytes.extend_from_slice(&(item.0.len() as u64).to_be_bytes());
                bytes.extend_from_slice(&item.0);
            }
        }
        EntryKey(sha256(&[&bytes]))
    }

    /// Returns how many changes and events this is.
    pub fn records(&self) -> usize {
        self.changes.len() + self.events.len()
    }
}

/// A statement without its document, which stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireStatement {
    /// Whose chain.
    pub actor: ActorId,
    /// Which of the device's actors in the document this is.
    pub n: u32,
    /// Changes or events.
    pub chain: ChainKind,
    /// Up to which number.
    pub number: u64,
    /// The hash of what has that number.
    #[serde(with = "codec::fixed")]
    pub hash: [u8; 32],
    /// The public key of the device, as a DER-encoded `SubjectPublicKeyInfo`.
    pub public_key: Blob,
    /// The generation of the device.
    pub generation: Generation,
    /// The Ed25519 signature.
    #[serde(with = "codec::fixed")]
    pub signature: [u8; 64],
}

/// Which chain of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainKind {
    /// Changes, by seq.
    Changes,
    /// Reading events, by n.
    Events,
}

impl WireStatement {
    /// Returns a statement as it is sent.
    pub fn of(statement: &Statement) -> Self {
        Self {
            actor: statement.actor,
            n: statement.n,
            chain: match statement.signed {
                Signed::Change { .. } => ChainKind::Changes,
                Signed::Event { .. } => ChainKind::Events,
            },
            number: statement.signed.number(),
            hash: statement.hash,
            public_key: Blob(statement.public_key_spki.clone()),
            generation: statement.generation,
            signature: statement.signature,
        }
    }

    /// Returns the statement about a document. Whether it is valid is another question.
    pub fn about(&self, document: DocumentName) -> Statement {
        Statement {
            document: document.id(),
            actor: self.actor,
            n: self.n,
            signed: match self.chain {
                ChainKind::Changes => Signed::Change { seq: self.number },
                ChainKind::Events => Signed::Event { n: self.number },
            },
            hash: self.hash,
            public_key_spki: self.public_key.0.clone(),
            generation: self.generation,
            signature: self.signature,
        }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ingested {
    /// One for each entry, in the order of the request.
    pub answers: Vec<EntryAnswer>,
    /// Who had merged everything up to here has merged everything up to `cursor`, since what is between is
    /// their own: the end of the account's feed before, or that afterwards, if something became void.
    pub before: u64,
    /// The end of the account's feed afterwards.
    pub cursor: u64,
    /// The tag of the record before the first that this call wrote; none at the begin of a feed, and from
    /// servers of earlier releases.
    #[serde(default)]
    pub before_tag: Option<FeedTag>,
    /// The tag of the last record of the feed; none likewise.
    #[serde(default)]
    pub tag: Option<FeedTag>,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntryAnswer {
    /// Which entry.
    pub key: EntryKey,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// It is durable, and the sender knew everything before it.
    Accepted(Receipt),
    /// It is durable; there is something that the sender has not merged, or that it writes again.
    Rebased(Receipt),
    /// It is durable, but a position in it is withdrawn: the place is another one.
    Conflict(Receipt),
    /// Nothing of it was taken: it builds on what the server does not have, or lacks statements. It
    /// may be sent again with what is named here.
    Incomplete {
        /// Changes that are not here.
        missing: Vec<ChangeHash>,
        /// Events that are not here.
        missing_events: Vec<EventHash>,
        /// What no valid statement covers: changes and events by their hashes.
        uncovered: Vec<Hash>,
    },
    /// Nothing of it was taken, nor will it be.
    Refused {
        /// Why.
        reason: Reason,
        /// Which change or event it is about, where it is about one.
        hash: Option<Hash>,
    },
}

/// A hash of a change or of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hash(#[serde(with = "codec::fixed")] pub [u8; 32]);

/// What the server has of a document after an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The version of the document.
    pub version: u64,
    /// The verdict on each change, in the order of the entry.
    pub verdicts: Vec<Verdict>,
    /// The place of the book, if it is the document of one that is read.
    pub place: Option<Place>,
}

/// What the server decided about a change when it first came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It counts; its position is to be written again if it is still the newest of its device and not
    /// the place.
    Restamp,
    /// It counts, but its position was made by somebody who did not know what had happened: whoever
    /// merges it writes the mark that withdraws it.
    Withdrawn,
    /// It belongs to the branch of a fork that does not count, or builds on it.
    Void,
}

/// Why something is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The key is not that of the entry: it was damaged on the way, or made wrongly.
    Key,
    /// There is nothing in it.
    Empty,
    /// It has more statements than changes and events.
    Statements,
    /// A statement is not what its signer signed.
    Signature,
    /// A change does not read.
    Unreadable,
    /// A change breaks a rule.
    Rule,
    /// An event does not read, or belongs to another document.
    Event,
    /// The document has as many actors as a document can have.
    TooManyActors,
    /// The account has as many documents as it may have.
    TooManyDocuments,
    /// A writer has two histories, and nothing proves that this one is theirs.
    Fork,
    /// It lacked something each time, whatever was sent with it. Said by a client to itself.
    Incomplete,
    /// Cut as small as it can be, it is more than the server takes. Said by a client to itself.
    TooLarge,
}

/// What the account has after a cursor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Ascending by number.
    pub records: Vec<FeedRecord>,
    /// Where to go on: the number of the last record, or what was asked for.
    pub cursor: u64,
    /// The end of the feed when this was read. Beyond the cursor there is more.
    pub end: u64,
    /// The tag of the record at the cursor; none at the begin of the feed, and from servers of earlier
    /// releases.
    #[serde(default)]
    pub tag: Option<FeedTag>,
    /// The feed does not have the record that the caller named: begin at 0, and send everything again.
    #[serde(default)]
    pub reset: bool,
}

/// One record of the feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedRecord {
    /// Its number in the account's feed, from 1 without gaps.
    pub number: u64,
    /// Of which document.
    #[serde(with = "codec::document")]
    pub document: DocumentName,
    /// The version of the document with it.
    pub version: u64,
    /// A statement of exactly this, if one came.
    pub statement: Option<WireStatement>,
    /// What it is.
    pub record: Record,
}

/// What is in the feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A change.
    Change {
        /// The change chunk.
        bytes: Blob,
        /// What was decided about it.
        verdict: Verdict,
    },
    /// A reading event.
    Event {
        /// The encoded event.
        bytes: Blob,
    },
    /// A change or event that is in the feed before this and does not count.
    Void {
        /// Which one.
        hash: Hash,
    },
}

/// The feed has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nudge {
    /// Its end.
    pub cursor: u64,
}

/// The books of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Books {
    /// Ascending by id.
    pub books: Vec<Book>,
    /// There are more behind this one.
    pub next: Option<BookId>,
}

/// What the server knows of a book.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Book {
    /// Which book.
    pub book: BookId,
    /// How many changes of its document the server has, void or not.
    pub version: u64,
    /// How many reading events count.
    pub events: u64,
    /// Where the person is.
    pub place: Option<Place>,
    /// The greatest point of the highest pass, in parts per million.
    pub furthest_ppm: Option<u32>,
}

/// Where a person is in a book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The device whose entry counts.
    pub device: DeviceId,
    /// The packed stamp of the entry.
    pub stamp: u64,
    /// Which reading of the book.
    pub pass: u32,
    /// How far through the book, in parts per million.
    pub ppm: u32,
    /// Why it moved there.
    pub intent: Intent,
    /// The wall clock of the device, in milliseconds since the Unix epoch, for people.
    pub wall_ms: u64,
    /// The locator, as JSON, word for word.
    pub locator: String,
}

#[cfg(test)]
mod tests {
    use super::super::codec::Format;
    use super::*;

    fn entry() -> Entry {
        let mut entry = Entry {
            key: EntryKey([0; 32]),
            document: DocumentName::Notes(BookId([7; 32])),
            base_version: 9,
            replay: true,
            statements: vec![WireStatement {
                actor: ActorId([1; 16]),
                n: 2,
                chain: ChainKind::Events,
                number: 3,
                hash: [4; 32],
                public_key: Blob(vec![5; 44]),
                generation: Generation([6; 16]),
                signature: [7; 64],
            }],
            changes: vec![Blob(vec![0, 255]), Blob(Vec::new())],
            events: vec![Blob(vec![1])],
        };
        entry.key = entry.key();
        entry
    }

    fn answers() -> Ingested {
        let place = Place {
            device: DeviceId([1; 16]),
            stamp: 1 << 60,
            pass: 2,
            ppm: 3,
            intent: Intent::Rewind,
            wall_ms: 4,
            locator: "{\"page\":1}".to_owned(),
        };
        let verdicts = vec![Verdict::Accepted, Verdict::Withdrawn];
        let outcomes = [
            Outcome::Conflict(Receipt { version: 5, verdicts, place: Some(place) }),
            Outcome::Incomplete {
                missing: vec![ChangeHash([8; 32])],
                missing_events: vec![EventHash([9; 32])],
                uncovered: vec![Hash([1; 32])],
            },
            Outcome::Refused { reason: Reason::Fork, hash: Some(Hash([2; 32])) },
        ];
        let answers = outcomes.map(|outcome| EntryAnswer { key: EntryKey([3; 32]), outcome });
        let (before_tag, tag) = (None, Some(FeedTag([7; 8])));
        Ingested { answers: answers.into(), before: 7, cursor: u64::MAX, before_tag, tag }
    }

    #[test]
    fn what_is_said_in_either_format_is_understood() {
        let record = |record| FeedRecord {
            number: 1,
            document: DocumentName::Library,
            version: 2,
            statement: None,
            record,
        };
        let page = Page {
            records: vec![
                record(Record::Change { bytes: Blob(vec![9; 99]), verdict: Verdict::Restamp }),
                record(Record::Event { bytes: Blob(vec![8; 125]) }),
                record(Record::Void { hash: Hash([7; 32]) }),
            ],
            cursor: 3,
            end: 4,
            tag: Some(FeedTag([5; 8])),
            reset: false,
        };
        for format in [Format::Json, Format::Cbor] {
            let ingest = Ingest { entries: vec![entry()] };
            let bytes = format.encode(&ingest).unwrap();
            assert_eq!(format.decode::<Ingest>(&bytes), Ok(ingest), "{format:?}");
            let bytes = format.encode(&answers()).unwrap();
            assert_eq!(format.decode::<Ingested>(&bytes), Ok(answers()), "{format:?}");
            let bytes = format.encode(&page).unwrap();
            assert_eq!(format.decode::<Page>(&bytes).as_ref(), Ok(&page), "{format:?}");
            let more = [bytes, vec![b'0']].concat();
            assert_eq!(format.decode::<Page>(&more), Err(codec::BodyError), "{format:?}");
        }
    }

    #[test]
    fn the_form_in_json_is_the_written_one() {
        let json = String::from_utf8(Format::Json.encode(&answers()).unwrap()).unwrap();
        let zeros = "03".repeat(32);
        let conflict = format!(
            "{{\"key\":\"{zeros}\",\"outcome\":{{\"status\":\"conflict\",\"version\":5,\
             \"verdicts\":[\"accepted\",\"withdrawn\"],\"place\":{{\"device\":\"{}\"",
            "01".repeat(16)
        );
        assert!(json.contains(&conflict), "{json}");
        let entry = String::from_utf8(Format::Json.encode(&entry()).unwrap()).unwrap();
        let document = format!("\"document\":\"notes/{}\",\"base_version\":9", "07".repeat(32));
        assert!(entry.contains(&document), "{entry}");
        assert!(entry.contains("\"changes\":[\"AP8=\",\"\"]"), "{entry}");
    }

    #[test]
    fn cbor_has_bytes_where_json_has_digits() {
        let bytes = Format::Cbor.encode(&entry()).unwrap();
        assert!(bytes.windows(32).any(|window| window == entry().key.0));
        assert!(bytes.windows(64).any(|window| window == [7; 64]));
        assert!(bytes.len() < Format::Json.encode(&entry()).unwrap().len() * 2 / 3);
    }

    #[test]
    fn a_key_names_everything_but_the_statements() {
        let base = entry();
        assert_eq!(Entry { statements: Vec::new(), ..base.clone() }.key(), base.key);
        let moved = Entry {
            changes: vec![Blob(vec![0])],
            events: vec![Blob(vec![255]), Blob(vec![1])],
            ..base.clone()
        };
        for other in [
            Entry { document: DocumentName::Library, ..base.clone() },
            Entry { base_version: 8, ..base.clone() },
            Entry { replay: false, ..base.clone() },
            Entry { changes: Vec::new(), ..base.clone() },
            Entry { events: Vec::new(), ..base.clone() },
            moved,
        ] {
            assert_ne!(other.key(), base.key, "{other:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        let sign_in = SignIn {
            user: "anna".to_owned(),
            password: "a secret".to_owned(),
            device: "phone".to_owned(),
        };
        let shown = format!("{sign_in:?}");
        assert!(!shown.contains("secret") && !shown.contains("anna"), "{shown}");
        let (account, device, token) = (AccountId([1; 16]), TokenId([2; 16]), "a secret".into());
        let signed_in = SignedIn { account, device, token, expires_ms: 3 };
        assert!(!format!("{signed_in:?}").contains("secret"));
    }

    #[test]
    fn an_account_is_named_by_its_user() {
        assert_eq!(AccountId::of_user(" Anna "), AccountId::of_user("anna"));
        assert_ne!(AccountId::of_user("anna"), AccountId::of_user("bert"));
        let account = AccountId::of_user("anna");
        assert_eq!(account.to_string().parse(), Ok(account));
        assert_eq!("0a".parse::<AccountId>(), Err(ParseError { bytes: 16 }));
    }

    #[test]
    fn an_anchor_is_written_as_it_is_read_and_never_goes_back() {
        let anchor = Anchor { number: 40, tag: FeedTag([0xab; 8]) };
        assert_eq!(anchor.to_string(), "40-abababababababab");
        assert_eq!(anchor.to_string().parse(), Ok(anchor));
        for wrong in ["", "40", "-abababababababab", "40-ab", "40-ABABABABABABABAB"] {
            assert!(wrong.parse::<Anchor>().is_err(), "{wrong}");
        }
        let tag = FeedTag([1; 8]);
        let later = |known, number, tag| Anchor::later(known, number, tag);
        assert_eq!(later(None, 0, Some(tag)), None);
        assert_eq!(later(Some(anchor), 41, None), Some(anchor));
        assert_eq!(later(Some(anchor), 39, Some(tag)), Some(anchor));
        assert_eq!(later(Some(anchor), 40, Some(tag)), Some(Anchor { number: 40, tag }));
    }

    #[test]
    fn what_an_earlier_server_says_is_understood() {
        let page = br#"{"records":[],"cursor":3,"end":3}"#;
        let page: Page = Format::Json.decode(page).unwrap();
        assert_eq!((page.tag, page.reset), (None, false));
        let ingested: Ingested =
            Format::Json.decode(br#"{"answers":[],"before":3,"cursor":3}"#).unwrap();
        assert_eq!((ingested.before_tag, ingested.tag), (None, None));
    }

    #[test]
    fn a_statement_comes_back_as_it_was() {
        let (name, wire) = (DocumentName::Book(BookId([1; 32])), entry().statements.remove(0));
        assert_eq!(WireStatement::of(&wire.about(name)), wire);
        assert_eq!(wire.about(name).document, name.id());
    }
}

//! Brings two paired devices to the same state, in one round trip when both remember each other.
//!
//! A [`Requester`](requester::Requester) runs one sync from the side that dials; a
//! [`Responder`](responder::Responder) answers one request. Both
//! are machines without IO: they move names and numbers, and ask their owner for everything that is
//! stored. A change is never looked into: what travels is a *piece*, bytes that the stores of both
//! sides understand.
//!
//! ```text
//!            +--------------------- again: more, moved, another generation -----+
//!            v                                                                  |
//!  start -> collect -> POST /sync -> apply -> judge -> equal: in sync           |
//!                                               | differ                        |
//!                                               v                               |
//!                        POST /ranges: which documents (log steps)              |
//!                                               v                               |
//!                        POST /vectors, /changes: what each side lacks ---------+
//! ```
//!
//! # Invariants
//!
//! 1. Correctness never depends on marks. They say what need not be sent; the summary says whether
//!    both sides hold the same.
//! 2. Only a requester claims `in_sync`, and only for summaries of the same instant over the same
//!    common set.
//! 3. Marks are moved by the store, in the transaction that applied what they stand for.
//! 4. A responder keeps nothing between two requests.
//! 5. A device that takes nothing from another is compared with it one way: in sync is whoever lacks
//!    nothing that the lender holds. What one device lacks of a lender it does not lack later, so a
//!    summary that was found to be contained need not be looked through again.
//! 6. A session ends: each further round trip needs a mark that moved, something added, or one of a
//!    few tries.
//!
//! # What is not here
//!
//! What a change or a statement is, which documents are common, and cutting pieces (the store);
//! signing, streams and when to sync (the drivers).

use catchword_model::id::{ActorId, DocumentId, Generation};

use crate::request::{FRAME_BYTES_MAX, HEADER_BYTES_MAX, Status};
use crate::wire::WireError;

mod forks;
mod mend;
pub mod message;
mod ranges;
pub mod requester;
pub mod responder;

use requester::{Ending, Report};
use responder::Answered;

/// The oldest version of the session protocol that is spoken here.
pub const PROTOCOL_MIN: u8 = 1;

/// The newest version of the session protocol that is spoken here.
pub const PROTOCOL_MAX: u8 = 1;

/// One piece of changes as it is sent, in bytes.
///
/// Progress is durable after each, so a connection that breaks loses this much at most.
pub const PIECE_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// One body of a request or a response, in bytes: what a signed message has room for.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES_MAX;

/// What a device excludes towards one peer: as many as it may have documents.
pub const EXCLUSIONS_MAX: usize = 200_000;

/// There is no version of the session protocol that both sides speak; update the older device.
pub const NO_COMMON_VERSION: Status = Status(0x37);

/// One document that is not exchanged: the first 8 bytes of
/// HMAC-SHA-256(`K_disc`, "excluded" ‖ document), so that nobody learns of a book he does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exclusion(pub [u8; 8]);

/// Names a list of exclusions by its content. See [`list_digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListDigest(pub [u8; 8]);

/// The sum mod 2^256 of SHA-256(document ‖ heads ‖ event heads) over the common set.
///
/// A document that holds nothing but genesis counts as not there, so that whoever has heard of a
/// book and whoever has not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary(pub [u8; 32]);

/// The beginning of a hash: of a change, of an event, or of SHA-256(document ‖ heads ‖ event heads).
pub type ShortHash = [u8; 8];

/// Which chain of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// Changes of the document, numbered by seq.
    Changes,
    /// Reading events, numbered by n.
    Events,
    /// Changes and events that do not count, since their writer forked. It is no chain: of each branch
    /// the last is named.
    Void,
}

/// One actor's changes or events in one document: each names the one before, so the last says all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// The document.
    pub document: DocumentId,
    /// Changes or events.
    pub log: Log,
    /// Who wrote them.
    pub actor: ActorId,
}

/// One number of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The chain.
    pub chain: Chain,
    /// The number, from 1.
    pub seq: u32,
}

/// How far somebody has a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Changes or events.
    pub log: Log,
    /// Who wrote them.
    pub actor: ActorId,
    /// The last number, from 1; [`u32::MAX`] where nothing is wanted of this chain.
    pub seq: u32,
    /// The hash of what has that number.
    pub hash: ShortHash,
}

/// How far somebody has every chain of a document. Genesis and upgrades are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// The document.
    pub document: DocumentId,
    /// Invariant: ascending by log and actor, each at most once; of [`Log::Void`] by number and hash, too.
    pub entries: Vec<Entry>,
}

/// Documents from one on, up to another that is not meant any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first document.
    pub from: DocumentId,
    /// The first document behind; `None`: to the end.
    pub to: Option<DocumentId>,
}

/// One document of the common set and its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The document.
    pub document: DocumentId,
    /// The beginning of SHA-256(document ‖ heads ‖ event heads).
    pub state: ShortHash,
}

/// What a device knows of itself and of one generation of the peer: one read of its store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub struct Local {
    /// This device's generation.
    pub generation: Generation,
    /// The greatest local sequence that may be sent: below every transaction that is still open.
    pub end: u64,
    /// Whether the summary covers exactly what lies at or below `end`.
    pub settled: bool,
    /// The greatest local sequence of the peer that is decided here.
    pub mark: u64,
    /// Of the common set, without this device's exclusions and without the list it holds.
    pub summary: Summary,
    /// What this device excludes towards the peer.
    pub exclusions: ListDigest,
    /// The list of the peer that this device holds.
    pub held: ListDigest,
    /// Whether anything that the peer brought is parked here.
    pub parked: bool,
    /// What the last comparison of this device, as requester, with the peer said.
    pub agreed: bool,
    /// Whether this device takes anything from the peer.
    pub takes: bool,
    /// Where one of both takes nothing: the summary of that one when it was last found to hold nothing
    /// that the other lacks. Kept as long as the process runs.
    pub contained: Option<Summary>,
}

/// Changes with their statements, cut and closed by the sender's store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// The encoded changes, events and statements; empty: none.
    pub bytes: Vec<u8>,
    /// How many changes and events they are.
    pub changes: u64,
}

/// What the store collected for a peer, and what it knew at that instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The generation of the peer for which it was collected; `None`: no generation is known yet.
    pub peer: Option<Generation>,
    /// The store at that instant.
    pub local: Local,
    /// The exclusions, where the peer does not hold them: where it last said that it holds a list
    /// of another digest. Ascending.
    pub list: Option<Vec<Exclusion>>,
    /// Where the piece begins and ends; `bounds.end` is `local.end`.
    pub bounds: Bounds,
    /// Everything within the bounds, except what came from this generation of the peer.
    pub piece: Piece,
}

/// What a peer said of itself in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The generation of this device that the peer had in mind.
    pub built_for: Generation,
    /// The exclusions of the peer, if it sent them. Ascending.
    pub list: Option<Vec<Exclusion>>,
    /// The list of this device that the peer holds.
    pub held: ListDigest,
    /// What the peer has decided of this device; `None`: it did not say.
    pub mark: Option<u64>,
    /// The peer's last comparison, as requester, found no difference.
    pub agreed: bool,
    /// Whether the peer takes anything from this device.
    pub takes: bool,
}

/// The bounds of a piece in the sender's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Nothing above this local sequence is left out ...
    pub from: u64,
    /// ... up to this one.
    pub through: u64,
    /// The greatest that may be sent. A piece that reaches it leaves nothing behind.
    pub end: u64,
}

impl Bounds {
    /// Whether something did not fit.
    pub const fn more(self) -> bool {
        self.through < self.end
    }
}

/// What a message brought, to be made durable before anything is answered.
///
/// A store that takes nothing from the peer keeps what was heard, and passes over the piece and its
/// bounds. Any other does, in this order:
///
/// 1. It takes the generation that the question is about as the last known one of the peer.
/// 2. It keeps the list, and if `built_for` is its own generation, also `held` and `mark`; if the
///    peer agreed, it drops what is parked from it.
/// 3. It applies or parks each change of a common document; what belongs to others is passed over.
/// 4. In the last transaction of 3 it raises the mark to `through`, if `bounds` are given,
///    `built_for` is its own generation, `from` is not above the mark, and everything is decided.
///    A mark above `bounds.end` counts as 0: the peer's own order went back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// What the peer said; `None`: the message says nothing of it.
    pub heard: Option<Heard>,
    /// The encoded changes.
    pub piece: Vec<u8>,
    /// What the piece holds all of; `None`: no mark moves.
    pub bounds: Option<Bounds>,
}

/// What became of what a message brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The store after the last transaction.
    pub local: Local,
    /// This took the local sequences above this one ...
    pub before: u64,
    /// ... up to this one.
    pub after: u64,
    /// How many changes and events the piece had.
    pub received: u64,
    /// How many of them, and of what was parked, are durable now and were not before.
    pub added: u64,
    /// How many do not count and never will.
    pub refused: u64,
}

/// What a machine asks of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What is known now? Answered by [`Answer::Local`].
    Local,
    /// What is to be sent by marks? Answered by [`Answer::Collected`].
    ///
    /// In the order of local sequences, up to [`PIECE_BYTES_MAX`], closed under statements. Nothing
    /// where no generation of the peer is known; nothing either, and `through` as `from`, where the
    /// peer said last that it takes nothing.
    Collect {
        /// Above this local sequence; `None`: above the mark that the peer said last or was sent,
        /// which counts as 0 where it is above `end`.
        after: Option<u64>,
    },
    /// Make this durable. Answered by [`Answer::Applied`].
    Apply(Apply),
    /// Which documents of the common set lie in these spans? Answered by [`Answer::Items`].
    Items(Vec<Span>),
    /// How far are these documents here, and where do these vectors leave our chains? Answered by
    /// [`Answer::Compared`].
    ///
    /// A document that is excluded and was not known is put on the list of exclusions, so that the
    /// peer learns of it. The same holds for the documents of a piece.
    Compare(Vec<Vector>),
    /// What is the hash at each of these? Answered by [`Answer::Hashes`].
    Hashes(Vec<Spot>),
    /// What of the common set does somebody lack who has this much? Answered by [`Answer::Piece`].
    ///
    /// As [`Collect`](Self::Collect), but whatever came from the peer is not left out.
    CollectFor(Vec<Vector>),
}

/// What a store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Local`].
    Local(Local),
    /// To [`Question::Collect`].
    Collected(Collected),
    /// To [`Question::Apply`].
    Applied(Applied),
    /// To [`Question::Items`]: a list for each span, ascending by document.
    Items(Vec<Vec<Item>>),
    /// To [`Question::Compare`].
    Compared {
        /// What is here, for each of the documents that is common, in the order of the question; an
        /// unknown one has no entries.
        mine: Vec<Vector>,
        /// Entries of the question whose number exists here with another hash.
        forks: Vec<Spot>,
    },
    /// To [`Question::Hashes`]: one for each, `None` where there is no such number or the document is
    /// not common.
    Hashes(Vec<Option<ShortHash>>),
    /// To [`Question::CollectFor`].
    Piece {
        /// The changes.
        piece: Piece,
        /// Whether something did not fit.
        more: bool,
    },
    /// The store could not; nothing was written.
    Failed,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// The first phase: marks and summary.
    Sync,
    /// The second: which documents differ.
    Ranges,
    /// The third: how far each side has them, and where chains fork.
    Vectors,
    /// The third: what the responder lacks.
    Changes,
}

impl Path {
    /// Every path.
    pub const ALL: [Self; 4] = [Self::Sync, Self::Ranges, Self::Vectors, Self::Changes];

    /// Returns the text that is signed and routed on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "/sync",
            Self::Ranges => "/ranges",
            Self::Vectors => "/vectors",
            Self::Changes => "/changes",
        }
    }

    /// Returns the path with exactly this text.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|path| path.as_str() == text)
    }
}

/// What to send next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// A request, on a stream of its own; by a [`Requester`](requester::Requester).
    Request {
        /// What it asks for.
        path: Path,
        /// Its body, at most [`BODY_BYTES_MAX`].
        body: Vec<u8>,
    },
    /// The response on the stream of the request; by a [`Responder`](responder::Responder).
    Response {
        /// How it answers: [`Status::OK`], [`Status::MALFORMED`], [`NO_COMMON_VERSION`] or
        /// [`Status::INTERNAL`].
        status: Status,
        /// Its body, at most [`BODY_BYTES_MAX`].
        body: Vec<u8>,
    },
}

/// What to ask of the store or to tell the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Ask the store, and hand the answer in as input.
    Ask {
        /// The generation of the peer that it is about; `None`: the last known one.
        peer: Option<Generation>,
        /// The question.
        question: Question,
    },
    /// Keep this with the peer's marks: the next request says so. Where both are equal, drop what is
    /// parked from the peer: it has set that aside.
    Compared {
        /// The generation of the peer.
        peer: Generation,
        /// Both hold the same; or one of both takes nothing, and the other lacks nothing that it holds.
        equal: bool,
    },
    /// One of both takes nothing, and when this was its summary, the other lacked nothing that it held.
    /// Keep it for [`Local::contained`]. This need not be durable.
    Contained {
        /// The generation of the peer.
        peer: Generation,
        /// Of the one that takes nothing.
        summary: Summary,
    },
    /// A response says everything up to this local sequence. Take it as what the peer has decided
    /// until it says otherwise: it will say so in its next message, and until then nothing is sent
    /// twice. This need not be durable.
    Sent {
        /// The generation of the peer.
        peer: Generation,
        /// This device's local sequence.
        through: u64,
    },
    /// An actor has two histories; this is the first number at which they differ.
    Forked(Spot),
    /// The sync is over; by a [`Requester`](requester::Requester).
    Ended {
        /// How.
        ending: Ending,
        /// What was done.
        report: Report,
    },
    /// The request is answered; by a [`Responder`](responder::Responder).
    Answered(Answered),
}

/// A peer does not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message does not read.
    #[error("a message does not read")]
    Wire(#[source] WireError),
    /// A message is written in a version that is not spoken here.
    #[error("version {0} of the session protocol is not spoken here; update the older device")]
    Version(u8),
    /// A flag or a tag has no meaning.
    #[error("flag or tag {0:#04x} has no meaning")]
    Flag(u8),
    /// A list is not in order or names something twice.
    #[error("a list is not in ascending order")]
    Order,
    /// A list is longer than allowed.
    #[error("a list of {count}, more than {count_max}")]
    TooMany {
        /// Its length.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// A number is outside its range.
    #[error("a number is out of range")]
    Number,
    /// A list of exclusions does not have the digest that stands beside it.
    #[error("a list of exclusions does not have its digest")]
    Digest,
    /// A message speaks of something that was not asked for.
    #[error("an answer to something that was not asked")]
    Unasked,
}

impl From<WireError> for Violation {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// Returns the digest of a list of exclusions: the first 8 bytes of
/// SHA-256("catchword/exclusions/v1" ‖ exclusions in ascending order), and zeros for the empty list.
///
/// So a device that holds no list and one that holds an empty list say the same.
pub fn list_digest(ascending: &[Exclusion]) -> ListDigest {
    use sha2::{Digest, Sha256};

    if ascending.is_empty() {
        return ListDigest::default();
    }
    let mut hasher = Sha256::new_with_prefix(b"catchword/exclusions/v1");
    for exclusion in ascending {
        hasher.update(exclusion.0);
    }
    ListDigest(short(&hasher.finalize()))
}

/// Returns the first bytes of a hash.
fn short<const N: usize>(hash: &[u8]) -> [u8; N] {
    hash.first_chunk().copied().unwrap_or([0; N])
}

//! What can go wrong, one enum for each operation. A variant says what the caller should do.

use catchword_model::change::past::Refusal;
use catchword_model::change::read::ReadError;
use catchword_model::id::{AnnotationId, ChangeHash, DocumentId};
use catchword_model::schema::TagError;

use crate::verify::Rot;

/// The cause of an error of the environment, kept for the log.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A library could not be opened or created. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no library in the folder. Create one.
    #[error("there is no library here")]
    Missing,
    /// There is a library in the folder already. Open it.
    #[error("there is a library here already")]
    Exists,
    /// Another process holds the library. Wait for it, or ask it.
    #[error("another process holds this library")]
    Locked,
    /// The library was written by a newer release. Use that release.
    #[error("library has format {found}, newer than {known}, the newest this release reads")]
    Newer {
        /// The format of the library.
        found: u32,
        /// The newest format this release reads.
        known: u32,
    },
    /// The disk refused to read or write.
    #[error("cannot read or write the library")]
    Io(#[source] Cause),
    /// The library contradicts itself. Restore a backup, or ask `check` what can be saved.
    #[error("library is damaged: {detail}")]
    Corrupt {
        /// Which rule is broken, and where.
        detail: String,
    },
}

/// A write was not made.
///
/// Unless the variant says otherwise, nothing was written and the library is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The document is not in this library.
    #[error("no such book in this library")]
    NoDocument,
    /// The annotation is not in this book.
    #[error("no annotation {0} in this book")]
    NoAnnotation(AnnotationId),
    /// The annotation exists already: an id is used once.
    #[error("annotation {0} exists already")]
    AnnotationExists(AnnotationId),
    /// The annotation is deleted. Undelete it first.
    #[error("annotation {0} is deleted")]
    AnnotationDeleted(AnnotationId),
    /// The text is not a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// A value is larger than a reader would show.
    #[error("{what} is {bytes} bytes long, more than {bytes_max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is, in bytes.
        bytes: u64,
        /// How large it may be, in bytes.
        bytes_max: u64,
    },
    /// A number is out of range.
    #[error("{what} is {value}, more than {max}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The greatest that is allowed.
        max: u64,
    },
    /// The application's own edit failed.
    #[error("edit of the application's data failed")]
    Application(#[source] catchword_model::document::AppError),
    /// The edit belongs to another kind of document.
    #[error("this document does not hold that")]
    WrongDocument,
    /// The document holds as much as this release allows.
    #[error("the document has reached its limit of {max} {what}")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: u64,
    },
    /// The disk refused the write, for instance because it is full.
    ///
    /// Everything acknowledged before is kept. Whether this write reached the disk is unknown until
    /// the library is reopened; until then every write fails with [`Closed`](Self::Closed).
    #[error("cannot write to the library: make room if the disk is full, then reopen it")]
    Io(#[source] Cause),
    /// An earlier write failed. Make room if the disk is full, then reopen the library.
    #[error(
        "library must be reopened, after making room if the disk is full: an earlier write failed"
    )]
    Closed,
    /// The library contradicts itself. `check` says what can be saved.
    #[error("library is damaged: {detail}")]
    Corrupt {
        /// Which rule is broken, and where.
        detail: String,
    },
}

/// Something could not be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The document is not in this library.
    #[error("no such book in this library")]
    NoDocument,
    /// The document is larger than this release loads.
    #[error("document is {bytes} bytes, more than the {bytes_max} that are loaded")]
    TooLarge {
        /// Its size, in bytes.
        bytes: u64,
        /// The greatest size that is loaded, in bytes.
        bytes_max: u64,
    },
    /// The disk refused to read.
    #[error("cannot read the library")]
    Io(#[source] Cause),
    /// The library contradicts itself. `check` says what can be saved.
    #[error("library is damaged: {detail}")]
    Corrupt {
        /// Which rule is broken, and where.
        detail: String,
    },
}

/// Why a received change does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Its bytes are not a change.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// It breaks a rule that no device makes exceptions to.
    #[error("change {hash} is refused: {refusal}")]
    Refused {
        /// Which change.
        hash: ChangeHash,
        /// Which rule.
        refusal: Refusal,
    },
    /// Another change with the same actor and number is here: a cloned device.
    #[error("change {hash} contradicts {held}, which has the same writer and number")]
    Equivocation {
        /// The change that came.
        hash: ChangeHash,
        /// The change that is here.
        held: ChangeHash,
    },
    /// No valid statement covers it, and another change or event has its writer and number.
    #[error("{} is unsigned and contradicts what is here", short(hash))]
    Unsigned {
        /// The hash of the change or event.
        hash: [u8; 32],
    },
    /// It builds on a change that was refused.
    #[error("{} builds on {}, which is refused", short(hash), short(on))]
    BuildsOnRefused {
        /// The hash of the change or event.
        hash: [u8; 32],
        /// The hash of what it builds on.
        on: [u8; 32],
    },
    /// Its document has as many writers as this release allows.
    #[error("{} would be one writer too many", short(hash))]
    Full {
        /// The hash of the change or event.
        hash: [u8; 32],
    },
    /// A statement is not what its device signed.
    #[error("a statement about {} is not signed by its device", short(hash))]
    Statement {
        /// The hash that the statement names.
        hash: [u8; 32],
    },
    /// Its book is not exchanged with the peer that brought it: out of scope, removed, paused or
    /// quarantined.
    #[error("document {0} is not exchanged with this peer")]
    NotExchanged(DocumentId),
    /// The peer did too much wrong in this document: the rest of what it brought is not looked at.
    #[error("too much of document {0} is refused")]
    TooMuch(DocumentId),
    /// A run of changes does not unpack.
    #[error("a run of changes of document {0} does not read")]
    Run(DocumentId),
    /// It builds on changes that are not here and did not come with it.
    #[error("change {hash} builds on {} that are missing", missing.len())]
    Missing {
        /// Which change.
        hash: ChangeHash,
        /// What it builds on and is not here.
        missing: Vec<ChangeHash>,
    },
    /// Its document is not in this library.
    #[error("document {0} is not in this library")]
    NoDocument(DocumentId),
    /// It passed every rule and Automerge could not take it.
    #[error("document {0} does not load with what came")]
    Document(DocumentId),
}

impl Rejection {
    /// Returns whether an honest peer never sends this.
    pub(crate) fn spoils(&self) -> bool {
        match self {
            Self::Unreadable(_)
            | Self::Refused { .. }
            | Self::Unsigned { .. }
            | Self::BuildsOnRefused { .. }
            | Self::Statement { .. }
            | Self::TooMuch(_)
            | Self::Run(_)
            | Self::Document(_)
            | Self::Full { .. } => true,
            Self::Equivocation { .. }
            | Self::NotExchanged(_)
            | Self::Missing { .. }
            | Self::NoDocument(_) => false,
        }
    }
}

impl From<LoadError> for AppendError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NoDocument => Self::NoDocument,
            LoadError::TooLarge { bytes, bytes_max } => {
                Self::TooLarge { what: "document", bytes, bytes_max }
            }
            LoadError::Io(cause) => Self::Io(cause),
            LoadError::Corrupt { detail } => Self::Corrupt { detail },
        }
    }
}

impl From<LoadError> for OpenError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NoDocument => Self::Corrupt { detail: "a document is missing".to_owned() },
            LoadError::TooLarge { bytes, .. } => {
                Self::Corrupt { detail: format!("a document is {bytes} bytes") }
            }
            LoadError::Io(cause) => Self::Io(cause),
            LoadError::Corrupt { detail } => Self::Corrupt { detail },
        }
    }
}

/// The first digits of a hash, for people.
fn short(hash: &[u8; 32]) -> String {
    let [a, b, c, d, ..] = hash;
    format!("{:08x}", u32::from_be_bytes([*a, *b, *c, *d]))
}

/// The one place where errors of the database become ours.
pub(crate) fn load(error: impl Into<redb::Error>) -> LoadError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum that grows")]
    match error.into() {
        redb::Error::Corrupted(detail) => LoadError::Corrupt { detail },
        redb::Error::Io(error) if rot(&error).is_some() => {
            LoadError::Corrupt { detail: error.to_string() }
        }
        other => LoadError::Io(other.into()),
    }
}

pub(crate) fn open(error: redb::DatabaseError) -> OpenError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum that grows")]
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenError::Locked,
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(detail)) => {
            OpenError::Corrupt { detail }
        }
        redb::DatabaseError::UpgradeRequired(version) => OpenError::Corrupt {
            detail: format!("the database file has format {version}, which is not read"),
        },
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) => match error.kind() {
            _ if rot(&error).is_some() => OpenError::Corrupt { detail: error.to_string() },
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                OpenError::Corrupt { detail: "not a database file".to_owned() }
            }
            _ => OpenError::Io(error.into()),
        },
        other => OpenError::Io(other.into()),
    }
}

/// Returns what a disk did not keep, if that is the error.
fn rot(error: &std::io::Error) -> Option<&Rot> {
    error.get_ref()?.downcast_ref()
}

pub(crate) fn corrupt(detail: impl Into<String>) -> LoadError {
    LoadError::Corrupt { detail: detail.into() }
}

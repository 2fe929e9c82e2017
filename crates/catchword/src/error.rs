//! What can go wrong, one enum for each kind of operation. A variant says what the caller should do.
//!
//! No message holds keys, book text or paths; what the environment said is the source.

use catchword_formats::RefusedFile;
use catchword_model::document::AppError;
use catchword_model::id::{AnnotationId, BookId};
use catchword_model::locator::LocatorError;
use catchword_model::schema::TagError;
use catchword_store as store;

use crate::keys::KeyError;

/// What the environment said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A library could not be opened or made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no library in the folder. Make one.
    #[error("there is no library in this folder")]
    NoLibrary,
    /// There is a library in the folder already. Open it.
    #[error("there is a library in this folder already")]
    AlreadyThere,
    /// Another process holds the library. Wait until it ends.
    #[error("another process holds this library")]
    Busy,
    /// A newer release wrote the library. Use that release.
    #[error("library has format {found}, and this release reads up to {known}")]
    Newer {
        /// The format of the library.
        found: u32,
        /// The newest format this release reads.
        known: u32,
    },
    /// The device's key cannot be used.
    #[error("the keys of this device cannot be used")]
    Keys(#[source] KeyError),
    /// The library contradicts itself, or its disk changed it. [`Library::salvage`] saves what can be
    /// read; or bring a backup back, or sync a new library.
    ///
    /// [`Library::salvage`]: crate::Library::salvage
    #[error("library is damaged: {detail}")]
    Damaged {
        /// Which rule is broken, and where.
        detail: String,
    },
    /// The disk refused to read or write.
    #[error("cannot read or write the library")]
    Io(#[source] Cause),
}

/// A write was not made. Unless the variant says otherwise, the library is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The book is not in this library any more.
    #[error("there is no such book in this library")]
    NoBook,
    /// There is no such annotation in this book.
    #[error("there is no annotation {0} in this book")]
    NoAnnotation(AnnotationId),
    /// The annotation is deleted. Undelete it first.
    #[error("annotation {0} is deleted")]
    Deleted(AnnotationId),
    /// An annotation with this id exists.
    #[error("annotation {0} exists already")]
    AnnotationExists(AnnotationId),
    /// There is no such shelf.
    #[error("there is no such shelf")]
    NoShelf,
    /// The text is not a tag.
    #[error("not a tag")]
    Tag(#[source] TagError),
    /// A locator is nested too deeply or holds a text that is too long.
    #[error("not a locator")]
    Locator(#[source] LocatorError),
    /// A place has no position in the book, or one beyond its end.
    #[error("the place names no position in the book")]
    NoPlace,
    /// A value is larger than what is shown anywhere. Make it shorter.
    #[error("{what} is {bytes} bytes long, more than {bytes_max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is, in bytes.
        bytes: u64,
        /// How large it may be, in bytes.
        bytes_max: u64,
    },
    /// A number is greater than what is shown anywhere.
    #[error("{what} is {value}, more than {max}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The greatest that is allowed.
        max: u64,
    },
    /// The book holds as much as this release allows.
    #[error("the book has reached its limit of {max} {what}")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: u64,
    },
    /// The application's own edit of its data failed.
    #[error("the application's data were not changed")]
    Application(#[source] AppError),
    /// An earlier write failed. Make room if the disk is full, then open the library again.
    ///
    /// What was acknowledged before is kept.
    #[error("an earlier write failed: make room if the disk is full, then open the library again")]
    MustReopen,
    /// The disk refused the write, for instance because it is full.
    ///
    /// Whether this write is there is known once the library is opened again; what was acknowledged
    /// before is kept.
    #[error("cannot write to the library: make room if the disk is full, then open it again")]
    Io(#[source] Cause),
    /// The library contradicts itself. A check says what is wrong.
    #[error("library is damaged: {detail}")]
    Damaged {
        /// Which rule is broken, and where.
        detail: String,
    },
}

/// Something could not be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The book is not in this library any more.
    #[error("there is no such book in this library")]
    NoBook,
    /// The book has no file on this device. Import it again.
    #[error("the file of this book is not on this device")]
    NoFile,
    /// The file of the book has changed since it was imported. Import it again.
    #[error("the file of this book is damaged")]
    DamagedFile,
    /// The document is larger than what is loaded.
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
    /// The library contradicts itself. A check says what is wrong.
    #[error("library is damaged: {detail}")]
    Damaged {
        /// Which rule is broken, and where.
        detail: String,
    },
}

/// A book was named, and not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// No book has this id or title, or an id that begins so.
    #[error("no book is called {name:?}")]
    NotFound {
        /// The name that was looked for.
        name: String,
    },
    /// Several books do. Name one of them by more digits of its id.
    #[error("{} books are called {name:?}", books.len())]
    Ambiguous {
        /// The name that was looked for.
        name: String,
        /// The books it fits, at least two; not all of them if there are many.
        books: Vec<BookId>,
    },
    /// The library could not be read.
    #[error("cannot look for the book")]
    Read(#[source] ReadError),
}

/// A file was not imported. Nothing of it is kept, and the library is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is no book that can be read. The source says what is wrong with it.
    #[error("not accepted as a book")]
    Refused(#[source] RefusedFile),
    /// The file could not be read from where it is, or not be copied into the library.
    #[error("cannot read the file or copy it into the library")]
    Io(#[source] Cause),
    /// The file changed while it was read. Try again.
    #[error("the file changed while it was read")]
    Changed,
    /// The library did not take the book.
    #[error("the book was not added")]
    Edit(#[source] EditError),
}

/// A book was not removed, or its history not purged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No paired device that could be asked now has everything of the book. Nothing was changed.
    #[error("no paired device that could be asked now has everything of this book")]
    OnlyHere,
    /// The library could not be changed.
    #[error("the book was not removed")]
    Edit(#[source] EditError),
}

/// A backup was not made. What was there under its name is there still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is a file under that name that is no backup. Choose another name.
    #[error("a file that is no backup has that name")]
    Occupied,
    /// The keys of this device cannot be used, so its newest changes cannot be signed.
    #[error("the keys of this device cannot be used")]
    Keys(#[source] KeyError),
    /// The keys are not those the library was opened with. Open it again.
    #[error("the keys have changed since the library was opened")]
    OtherKey,
    /// It was asked to stop.
    #[error("the backup was stopped")]
    Stopped,
    /// The library could not be read or signed.
    #[error("cannot read the library")]
    Library(#[source] EditError),
    /// The disk refused to write the backup, for instance because it is full.
    #[error("cannot write the backup")]
    Io(#[source] Cause),
}

/// A backup was not brought back. Unless the variant says otherwise, the folder is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is a library in the folder. Say so if it is to be replaced.
    #[error("there is a library in this folder already")]
    AlreadyThere,
    /// Another process holds the library in the folder. Wait until it ends.
    #[error("another process holds the library in this folder")]
    Busy,
    /// The file is no backup, or is cut off or changed. Use another one.
    #[error("not a whole backup: {detail}")]
    NotABackup {
        /// What is wrong, and where.
        detail: String,
    },
    /// A newer release made the backup. Use that release.
    #[error("backup has format {found}, and this release reads up to {known}")]
    Newer {
        /// The format of the backup, or of the library in it.
        found: u32,
        /// The newest format this release reads.
        known: u32,
    },
    /// The disk refused to read the backup or to write the library, for instance because it is full.
    #[error("cannot read the backup or write the library")]
    Io(#[source] Cause),
    /// The disk refused while the library was put in its place. Opening the library finishes it.
    #[error("the backup is unpacked and not in place yet")]
    Unfinished(#[source] Cause),
}

impl BackupError {
    pub(crate) fn store(error: store::BackupError) -> Self {
        match error {
            store::BackupError::Occupied => Self::Occupied,
            store::BackupError::OtherKey => Self::OtherKey,
            store::BackupError::Stopped => Self::Stopped,
            store::BackupError::Library(error) => Self::Library(EditError::store(error)),
            store::BackupError::Io(cause) => Self::Io(cause),
        }
    }
}

impl RestoreError {
    pub(crate) fn store(error: store::RestoreError) -> Self {
        match error {
            store::RestoreError::Exists => Self::AlreadyThere,
            store::RestoreError::Locked => Self::Busy,
            store::RestoreError::Damaged { detail } => Self::NotABackup { detail },
            store::RestoreError::Newer { found, known } => Self::Newer { found, known },
            store::RestoreError::Io(cause) => Self::Io(cause),
            store::RestoreError::Unfinished(cause) => Self::Unfinished(cause),
        }
    }
}

impl OpenError {
    pub(crate) fn store(error: store::OpenError) -> Self {
        match error {
            store::OpenError::Missing => Self::NoLibrary,
            store::OpenError::Exists => Self::AlreadyThere,
            store::OpenError::Locked => Self::Busy,
            store::OpenError::Newer { found, known } => Self::Newer { found, known },
            store::OpenError::Io(cause) => Self::Io(cause),
            store::OpenError::Corrupt { detail } => Self::Damaged { detail },
        }
    }
}

impl EditError {
    pub(crate) fn store(error: store::AppendError) -> Self {
        match error {
            store::AppendError::NoDocument | store::AppendError::WrongDocument => Self::NoBook,
            store::AppendError::NoAnnotation(id) => Self::NoAnnotation(id),
            store::AppendError::AnnotationExists(id) => Self::AnnotationExists(id),
            store::AppendError::AnnotationDeleted(id) => Self::Deleted(id),
            store::AppendError::Tag(error) => Self::Tag(error),
            store::AppendError::TooLarge { what, bytes, bytes_max } => {
                Self::TooLarge { what, bytes, bytes_max }
            }
            store::AppendError::OutOfRange { what, value, max } => {
                Self::OutOfRange { what, value, max }
            }
            store::AppendError::Application(error) => Self::Application(error),
            store::AppendError::Full { what, max } => Self::Full { what, max },
            store::AppendError::Io(cause) => Self::Io(cause),
            store::AppendError::Closed => Self::MustReopen,
            store::AppendError::Corrupt { detail } => Self::Damaged { detail },
        }
    }

    pub(crate) fn load(error: store::LoadError) -> Self {
        Self::store(error.into())
    }
}

impl ReadError {
    pub(crate) fn store(error: store::LoadError) -> Self {
        match error {
            store::LoadError::NoDocument => Self::NoBook,
            store::LoadError::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
            store::LoadError::Io(cause) => Self::Io(cause),
            store::LoadError::Corrupt { detail } => Self::Damaged { detail },
        }
    }

    pub(crate) fn file(error: store::FileError) -> Self {
        match error {
            store::FileError::NoFolder | store::FileError::Missing => Self::NoFile,
            store::FileError::Damaged => Self::DamagedFile,
            store::FileError::Io(error) => Self::Io(error.into()),
        }
    }
}

impl ImportError {
    pub(crate) fn file(error: store::FileError) -> Self {
        match error {
            store::FileError::Damaged => Self::Changed,
            store::FileError::Io(error) => Self::Io(error.into()),
            error @ (store::FileError::NoFolder | store::FileError::Missing) => {
                Self::Io(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_store_keeps_what_the_caller_should_do() {
        let error = EditError::store(store::AppendError::Closed);
        assert!(matches!(error, EditError::MustReopen));
        let error = OpenError::store(store::OpenError::Locked);
        assert!(matches!(error, OpenError::Busy));
        let error = ReadError::file(store::FileError::Missing);
        assert!(matches!(error, ReadError::NoFile));
    }
}

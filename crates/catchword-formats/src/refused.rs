//! Why a file is not accepted as a book.

use crate::limits;

/// A file is not accepted as a book.
///
/// Nothing is kept of it. Every message says what is wrong and what can be done; only
/// [`Io`](Self::Io) is worth a retry with the same file.
#[derive(Debug, thiserror::Error)]
pub enum RefusedFile {
    /// The file is neither an archive nor a PDF.
    #[error("the file is neither an EPUB nor a PDF; convert it to one of them first")]
    NotABook,

    /// The archive is cut off or overwritten.
    #[error("the archive is damaged: {detail}; fetch the file again")]
    DamagedArchive {
        /// What does not fit.
        detail: String,
    },

    /// The archive has no readable `META-INF/container.xml`, so it is no EPUB.
    #[error("the archive is no EPUB: META-INF/container.xml {detail}; fetch or export it again")]
    NoContainer {
        /// What is wrong with the container, as the end of a sentence that begins with its name.
        detail: String,
    },

    /// The package document, which lists what the book consists of, is missing or unreadable.
    #[error("the package {path:?} {detail}; fetch or export the book again")]
    NoPackage {
        /// The package, as the container names it.
        path: String,
        /// What is wrong with it, as the end of a sentence that begins with its name.
        detail: String,
    },

    /// Not one document of the reading order can be read.
    #[error("none of the {items} documents in the reading order can be read; fetch the book again")]
    NoReadableSpineItem {
        /// How many documents the reading order names.
        items: usize,
    },

    /// The file is larger than a book can be, or pretends to be smaller than it is.
    #[error("the file is too large: {excess}; if it is a book, split it or reduce its images")]
    TooLarge {
        /// The limit that was passed.
        excess: Excess,
    },

    /// The content is encrypted, usually by copy protection.
    #[error("the book is encrypted ({algorithm}); ask its seller for a file without protection")]
    Encrypted {
        /// The algorithm as the file names it, or where the file says that it is encrypted.
        algorithm: String,
    },

    /// The PDF cannot be read.
    #[error("the PDF cannot be read: {detail}; save it again with another program")]
    PdfUnreadable {
        /// What does not fit.
        detail: String,
    },

    /// The PDF opens with a password only, or is encrypted in a way nobody here can read.
    #[error("the PDF needs a password; save a copy without one and import that")]
    PdfPassword,

    /// The file cannot be read from where it lies. It may be a good book.
    #[error("the file cannot be read")]
    Io(#[source] std::io::Error),
}

/// The limit that a file passed. See [`limits`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// All entries together inflate beyond [`limits::INFLATED_BYTES_MAX`].
    #[error("it inflates to more than {} MiB", limits::INFLATED_BYTES_MAX >> 20)]
    Inflated,

    /// All entries together inflate beyond [`limits::RATIO_MAX`] times the size of the file.
    #[error("it inflates to more than {} times its {file_bytes} bytes", limits::RATIO_MAX)]
    Ratio {
        /// Size of the file, in bytes.
        file_bytes: u64,
    },

    /// The archive has more than [`limits::ENTRIES_MAX`] entries.
    #[error("it has more than {} entries", limits::ENTRIES_MAX)]
    Entries,

    /// The list of entries is longer than [`limits::LISTING_BYTES_MAX`].
    #[error("its list of entries is larger than {} MiB", limits::LISTING_BYTES_MAX >> 20)]
    Listing,

    /// An entry that must be held in memory is larger than [`limits::XML_BYTES_MAX`].
    #[error("{path:?} in it is larger than {} MiB", limits::XML_BYTES_MAX >> 20)]
    Part {
        /// The entry.
        path: String,
    },

    /// A PDF is larger than [`limits::PDF_BYTES_MAX`].
    #[error("it is larger than {} MiB", limits::PDF_BYTES_MAX >> 20)]
    Pdf,
}

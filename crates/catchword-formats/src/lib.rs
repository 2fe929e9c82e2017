//! Book files read into what catchword needs to know of them: title, authors, reading order, sizes.
//!
//! [`read`] takes any source that reads and seeks, tells EPUB from PDF by the bytes alone and
//! returns a [`BookFile`], or says in a [`RefusedFile`] why this is no book and what to do about
//! it. [`partial_md5`] is the identity that e-reader programs share.
//!
//! # Invariants
//!
//! 1. Nothing is trusted because a header declares it: every entry of an archive is inflated, under
//!    the limits of [`limits`], before a book is accepted.
//! 2. Memory is bounded: an entry passes through a fixed buffer, and only the container, the package
//!    and the list of encrypted entries are held, each up to [`limits::XML_BYTES_MAX`]. A PDF is
//!    held whole, up to [`limits::PDF_BYTES_MAX`].
//! 3. No input makes [`read`] panic.
//! 4. The same bytes give the same [`BookFile`].
//!
//! # What is not here
//!
//! Files, clocks and the environment: the caller opens files. Content: no chapter is parsed, and
//! what a page looks like is the reader's business.
//!
//! # Examples
//!
//! ```
//! use std::io::Cursor;
//!
//! use catchword_formats::{Format, sample};
//!
//! let epub = sample::Builder::new("A Walk").author("Ana").chapter("One", "It rained.").build();
//! let book = catchword_formats::read(Cursor::new(epub))?;
//!
//! assert_eq!(book.format, Format::Epub3);
//! assert_eq!(book.title.as_deref(), Some("A Walk"));
//! assert_eq!(book.total_ppm_at("EPUB/chapter-1.xhtml", 500_000), Some(500_000));
//! # Ok::<(), catchword_formats::RefusedFile>(())
//! ```

mod archive;
mod book;
mod epub;
mod href;
pub mod limits;
mod partial_md5;
mod pdf;
mod refused;
pub mod sample;
mod text;
mod warning;
mod xml;

use std::io::{Read, Seek, SeekFrom};

pub use crate::book::{BookFile, Format, SpineItem};
pub use crate::partial_md5::partial_md5;
pub use crate::refused::{Excess, RefusedFile};
pub use crate::warning::{ItemKind, Warning};

/// How far into a file the mark of a PDF may stand, in bytes.
const PDF_MARK_BYTES_MAX: u64 = 1024;

/// Reads what catchword needs to know of a book file.
///
/// The format is told by the content: an archive is taken for an EPUB, `%PDF-` within the first
/// 1,024 bytes for a PDF. Names and extensions play no part. The position of `source` at the
/// beginning does not matter.
///
/// # Errors
///
/// [`RefusedFile`] says what is wrong with the file; the variants are documented there. Nothing is
/// kept of a refused file.
pub fn read<R: Read + Seek>(mut source: R) -> Result<BookFile, RefusedFile> {
    let head = read_head(&mut source).map_err(RefusedFile::Io)?;
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return epub::read(source);
    }
    if head.windows(5).any(|window| window == b"%PDF-") {
        return pdf::read(source);
    }
    Err(RefusedFile::NotABook)
}

fn read_head<R: Read + Seek>(source: &mut R) -> std::io::Result<Vec<u8>> {
    source.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    source.by_ref().take(PDF_MARK_BYTES_MAX).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_text_file_is_refused_as_no_book() {
        let refused = read(Cursor::new(b"Call me Ishmael. Some years ago".to_vec())).unwrap_err();
        assert!(matches!(refused, RefusedFile::NotABook), "{refused:?}");
    }

    #[test]
    fn an_empty_file_is_refused_as_no_book() {
        let refused = read(Cursor::new(Vec::new())).unwrap_err();
        assert!(matches!(refused, RefusedFile::NotABook), "{refused:?}");
    }

    #[test]
    fn a_failing_disk_is_not_blamed_on_the_file() {
        let refused = read(FailingDisk).unwrap_err();
        assert!(matches!(refused, RefusedFile::Io(_)), "{refused:?}");
    }

    struct FailingDisk;

    impl Read for FailingDisk {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("bad sector"))
        }
    }

    impl Seek for FailingDisk {
        fn seek(&mut self, _: SeekFrom) -> std::io::Result<u64> {
            Ok(0)
        }
    }
}

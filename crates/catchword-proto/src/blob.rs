//! Book files between paired devices: asked for by ranges, believed when the whole has its name.
//!
//! A file is named by its SHA-256 and by nothing else, so no part of it can be checked before all of it
//! is there. [`Fetch`](fetch::Fetch) decides who is asked for what; the name decides who told the truth.
//!
//! ```text
//! request    POST /file/{64 hex digits}    u64 offset | u32 length
//! response   UNKNOWN_DOCUMENT              it is not here, or not for you
//!            OK                            u64 size of the file | the bytes from offset, as many as
//!                                          there are, at most length
//! ```
//!
//! # What is not here
//!
//! Files (the store), who may have which book (its owner), signing and streams (the drivers).

use catchword_model::id::BookId;

use crate::wire::{Reader, WireError, Writer};

pub mod fetch;

/// What one request may ask for, in bytes: an eighth of a frame, so that a slow device loses little when
/// a connection breaks, and 100 MiB are 100 of the 200 requests that a peer may make at once.
pub const RANGE_BYTES_MAX: u32 = 1 << 20;

/// A whole file, in bytes: 4 GiB, more than any format here is read up to.
pub const FILE_BYTES_MAX: u64 = 4 << 30;

const PATH_PREFIX: &str = "/file/";

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first byte, from 0.
    pub offset: u64,
    /// How many at most, up to [`RANGE_BYTES_MAX`].
    pub length: u32,
}

/// A message about a file that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// It does not read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It asks for nothing, or for more than a range may have.
    #[error("a range of {0} bytes is asked for")]
    Length(u32),
    /// It speaks of a file beyond [`FILE_BYTES_MAX`], or of a place there.
    #[error("a file has {0} bytes")]
    Size(u64),
    /// It brings other bytes than were asked for.
    #[error("{0} bytes came that were not asked for")]
    Unasked(u64),
}

/// Returns the path of a book's file.
pub fn path_of(book: BookId) -> String {
    format!("{PATH_PREFIX}{book}")
}

/// Returns whose file a path names, if it names one.
pub fn book_of(path: &str) -> Option<BookId> {
    path.strip_prefix(PATH_PREFIX)?.parse().ok()
}

impl Range {
    /// Writes the body of a request.
    pub fn encode(self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.offset).u32(self.length);
        writer.finish()
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    ///
    /// [`BlobError`].
    pub fn decode(body: &[u8]) -> Result<Self, BlobError> {
        let mut reader = Reader::new(body);
        let (offset, length) = (reader.u64()?, reader.u32()?);
        reader.finish()?;
        if length == 0 || RANGE_BYTES_MAX < length {
            return Err(BlobError::Length(length));
        }
        if FILE_BYTES_MAX < offset {
            return Err(BlobError::Size(offset));
        }
        Ok(Self { offset, length })
    }

    /// Returns how many bytes of it a file of this size has.
    pub fn within(self, size: u64) -> usize {
        let there = size.saturating_sub(self.offset).min(u64::from(self.length));
        usize::try_from(there).unwrap_or(usize::MAX)
    }

    /// Returns the first byte behind it.
    pub fn end(self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// Writes the body of a response.
pub fn encode_part(size: u64, bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(size).bytes(bytes);
    writer.finish()
}

/// Reads the body of a response: the size of the file, and the bytes of the range.
///
/// # Errors
///
/// [`BlobError`].
pub fn decode_part(range: Range, body: &[u8]) -> Result<(u64, &[u8]), BlobError> {
    let mut reader = Reader::new(body);
    let size = reader.u64()?;
    if FILE_BYTES_MAX < size {
        return Err(BlobError::Size(size));
    }
    let bytes = reader.rest();
    if bytes.len() == range.within(size) {
        Ok((size, bytes))
    } else {
        Err(BlobError::Unasked(bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: BookId = BookId([0xab; 32]);

    #[test]
    fn a_path_names_a_book() {
        assert_eq!(path_of(BOOK), format!("/file/{}", "ab".repeat(32)));
        assert_eq!(book_of(&path_of(BOOK)), Some(BOOK));
        for wrong in ["/file/", "/file/ab", "/files/ab", "file", &"ab".repeat(32)] {
            assert_eq!(book_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_range_is_read_up_to_the_limit_and_not_beyond() {
        let decode = |offset, length| Range::decode(&Range { offset, length }.encode());
        let most = Range { offset: FILE_BYTES_MAX, length: RANGE_BYTES_MAX };
        assert_eq!(Range::decode(&most.encode()), Ok(most));
        assert_eq!(decode(0, RANGE_BYTES_MAX + 1), Err(BlobError::Length(RANGE_BYTES_MAX + 1)));
        assert_eq!(decode(0, 0), Err(BlobError::Length(0)));
        assert_eq!(decode(FILE_BYTES_MAX + 1, 1), Err(BlobError::Size(FILE_BYTES_MAX + 1)));
        assert!(Range::decode(&[0; 13]).is_err() && Range::decode(&[0; 11]).is_err());
    }

    #[test]
    fn a_part_has_exactly_what_was_asked_for() {
        let range = Range { offset: 10, length: 4 };
        let decode = |size, bytes: &[u8]| decode_part(range, &encode_part(size, bytes)).is_ok();
        assert!(decode(20, b"abcd") && decode(12, b"ab") && decode(10, b"") && decode(3, b""));
        assert!(!decode(20, b"abc") && !decode(20, b"abcde") && !decode(12, b"abc"));
        assert!(!decode(FILE_BYTES_MAX + 1, b"abcd") && decode(FILE_BYTES_MAX, b"abcd"));
    }
}

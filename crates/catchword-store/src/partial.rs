//! A book file that is still on its way: a beginning of it, beside where the whole will be.
//!
//! It is nothing until it has its name: nobody reads it, and whatever is in it may be wrong. What is
//! there goes to disk when the whole does, so after a power cut it may have holes; then it is fetched
//! again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use catchword_model::id::BookId;
use sha2::{Digest as _, Sha256};

use crate::Store;
use crate::files::{COPY_BYTES, FileError};
use crate::witness::sync_folder;

const SUFFIX: &str = "part";

/// The beginning of a book file. Dropping it keeps what is there for the next time.
#[derive(Debug)]
pub struct PartialFile {
    book: BookId,
    /// Where the whole will be.
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Store {
    /// Opens the beginning of a book file that is there, or begins one.
    ///
    /// One at a time for each book: the caller sees to that.
    ///
    /// # Errors
    ///
    /// [`FileError::NoFolder`] or [`FileError::Io`].
    pub fn partial_file(&self, book: BookId) -> Result<PartialFile, FileError> {
        let path = self.file_path(book)?;
        let folder = path.parent().ok_or(FileError::NoFolder)?;
        fs::create_dir_all(folder).map_err(FileError::Io)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(place(&path)).map_err(FileError::Io)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = file.read(&mut buffer).map_err(FileError::Io)?;
            let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
            hash.update(chunk);
            bytes += chunk.len() as u64;
        }
        Ok(PartialFile { book, path, file, hash, bytes })
    }
}

impl PartialFile {
    /// Returns how many bytes are there.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts bytes at the end of what is there.
    ///
    /// # Errors
    ///
    /// [`FileError::Io`]; what was there before is kept.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        if let Err(error) = self.file.write_all(bytes) {
            // A part of these bytes may be there.
            self.cut()?;
            return Err(FileError::Io(error));
        }
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is there.
    ///
    /// # Errors
    ///
    /// [`FileError::Io`].
    pub fn discard(&mut self) -> Result<(), FileError> {
        (self.hash, self.bytes) = (Sha256::new(), 0);
        self.cut()
    }

    fn cut(&mut self) -> Result<(), FileError> {
        self.file.set_len(self.bytes).map_err(FileError::Io)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map_err(FileError::Io)?;
        Ok(())
    }

    /// Returns whether what is there is the book.
    pub fn is_book(&self) -> bool {
        self.hash.clone().finalize().as_slice() == self.book.0
    }

    /// Puts the whole, flushed, where it is read from.
    ///
    /// # Errors
    ///
    /// [`FileError::Damaged`] if it is not the book.
    pub fn finish(self) -> Result<u64, FileError> {
        if !self.is_book() {
            return Err(FileError::Damaged);
        }
        self.file.sync_all().map_err(FileError::Io)?;
        fs::rename(place(&self.path), &self.path).map_err(FileError::Io)?;
        sync_folder(&self.path).map_err(FileError::Io)?;
        Ok(self.bytes)
    }
}

/// Where the beginning of a file is kept that will be there.
pub(crate) fn place(path: &Path) -> PathBuf {
    path.with_extension(SUFFIX)
}

//! Book files: a copy of each, named by its SHA-256, verified on read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use catchword_model::id::BookId;
use sha2::{Digest, Sha256};

use crate::bytes::{Reader, Writer};
use crate::error::{AppendError, LoadError, load};
use crate::witness::sync_folder;
use crate::{Store, partial, tables};

const FOLDER: &str = "files";
pub(crate) const COPY_BYTES: usize = 64 << 10;

/// What is kept about a book file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookFileRecord {
    /// Size in bytes.
    pub bytes: u64,
    /// The name it had when it was imported, without folders.
    pub name: String,
}

/// A book file could not be kept or read. The library is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The library lives in no folder.
    #[error("this library keeps no files")]
    NoFolder,
    /// There is no file of that book on this device.
    #[error("the file of this book is not on this device")]
    Missing,
    /// The file's bytes are not those it was imported with. Import it again.
    #[error("the file of this book is damaged: it has changed since it was imported")]
    Damaged,
    /// The disk refused.
    #[error("cannot read or write the file")]
    Io(#[source] io::Error),
}

/// Computes the id of a book: the SHA-256 of everything `source` yields.
///
/// # Errors
///
/// What `source` returns.
pub fn book_id(mut source: impl Read) -> io::Result<(BookId, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut bytes = 0;
    loop {
        let count = source.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
        hash.update(chunk);
        bytes += chunk.len() as u64;
    }
    Ok((BookId(hash.finalize().into()), bytes))
}

impl Store {
    /// Copies a book file into the library, flushed and under its final name, and verifies the copy.
    ///
    /// Keeping it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`FileError::Damaged`] if the bytes read are not those of `book`: the file changed meanwhile.
    pub fn keep_file(&self, book: BookId, mut source: impl Read) -> Result<u64, FileError> {
        let path = self.file_path(book)?;
        if let Ok(metadata) = fs::metadata(&path) {
            return Ok(metadata.len());
        }
        let folder = path.parent().ok_or(FileError::NoFolder)?;
        fs::create_dir_all(folder).map_err(FileError::Io)?;
        let beside = path.with_extension("new");
        let kept = copy(&mut source, &beside, book);
        if kept.is_err() {
            drop(fs::remove_file(&beside));
        }
        let bytes = kept?;
        fs::rename(&beside, &path).map_err(FileError::Io)?;
        sync_folder(&path).map_err(FileError::Io)?;
        Ok(bytes)
    }

    /// Records what is known about the file of a book.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    pub fn record_file(&self, book: BookId, record: &BookFileRecord) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let written = inner.write_meta(|write| {
            let mut out = Writer::default();
            out.number(record.bytes).text(&record.name);
            let mut files = write.open_table(tables::FILES).map_err(load)?;
            files.insert(&book.0, out.0.as_slice()).map_err(load)?;
            Ok(())
        });
        Ok(written?)
    }

    /// Returns what is known about the file of a book, if it is on this device.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn file_record(&self, book: BookId) -> Result<Option<BookFileRecord>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        let Some(found) = disk.files.get(&book.0).map_err(load)? else { return Ok(None) };
        let mut input = Reader(found.value());
        Ok(Some(BookFileRecord { bytes: input.number()?, name: input.text()?.to_owned() }))
    }

    /// Opens the file of a book after verifying every byte of it.
    ///
    /// # Errors
    ///
    /// [`FileError::Missing`] or [`FileError::Damaged`].
    pub fn open_file(&self, book: BookId) -> Result<File, FileError> {
        let path = self.file_path(book)?;
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let file = match File::open(&path) {
            Err(error) if missing(&error) => return Err(FileError::Missing),
            opened => opened.map_err(FileError::Io)?,
        };
        let (found, _) = book_id(&file).map_err(FileError::Io)?;
        if found != book {
            return Err(FileError::Damaged);
        }
        File::open(&path).map_err(FileError::Io)
    }

    /// Deletes the file of a book from this device, if it is there, and what came of it so far.
    ///
    /// # Errors
    ///
    /// [`FileError::Io`].
    pub fn drop_file(&self, book: BookId) -> Result<(), FileError> {
        let path = self.file_path(book)?;
        for path in [partial::place(&path), path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::Io(error));
                }
                _ => (),
            }
        }
        Ok(())
    }

    pub(crate) fn file_path(&self, book: BookId) -> Result<PathBuf, FileError> {
        Ok(file_place(self.folder().ok_or(FileError::NoFolder)?, book))
    }
}

/// Where the file of a book is kept in the folder of a library.
pub(crate) fn file_place(folder: &Path, book: BookId) -> PathBuf {
    let name = book.to_string();
    let shelf: String = name.chars().take(2).collect();
    folder.join(FOLDER).join(shelf).join(name)
}

fn copy(source: &mut impl Read, path: &Path, book: BookId) -> Result<u64, FileError> {
    let mut file = File::create(path).map_err(FileError::Io)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut bytes = 0;
    loop {
        let count = source.read(&mut buffer).map_err(FileError::Io)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
        hash.update(chunk);
        file.write_all(chunk).map_err(FileError::Io)?;
        bytes += chunk.len() as u64;
    }
    file.sync_all().map_err(FileError::Io)?;
    let found: [u8; 32] = hash.finalize().into();
    if found == book.0 { Ok(bytes) } else { Err(FileError::Damaged) }
}

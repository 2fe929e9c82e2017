//! Backups: the whole library in one file, without keys and without the witness.
//!
//! ```text
//! backup    "catchword backup", version (1 byte)
//!           parts: kind (1 byte: 1 library, 2 wal, 3 book file), name (32 bytes: id of the book, or 0),
//!                  length (8 bytes), that many bytes, their SHA-256
//!           end:   0 (1 byte), number of parts (8 bytes), SHA-256 of everything before
//! ```
//!
//! Numbers are big-endian. Both databases are copied table by table, as one moment saw them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use catchword_model::id::BookId;
use redb::{Database, ReadTransaction, ReadableDatabase as _};
use sha2::{Digest, Sha256};

use crate::copy::{Scratch, copy_library, copy_wal};
use crate::error::{AppendError, Cause, LoadError, load};
use crate::files::FileError;
use crate::progress::{OnProgress, Progress, Step};
use crate::statements::Signer;
use crate::witness::sync_folder;
use crate::{Store, tables};

/// How every backup begins.
pub(crate) const MAGIC: &[u8; 16] = b"catchword backup";
/// The format this release writes.
pub(crate) const VERSION: u8 = 1;
pub(crate) const END: u8 = 0;
pub(crate) const LIBRARY: u8 = 1;
pub(crate) const WAL: u8 = 2;
pub(crate) const BOOK_FILE: u8 = 3;

pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupReport {
    /// Signatures that were made for it.
    pub statements: u64,
    /// Book files in it.
    pub files: u64,
    /// Books whose file is missing on this device or damaged: their files are not in it.
    pub files_left_out: Vec<BookId>,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// A backup was not made. What was there under its name is there still.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is a file under that name that is no backup. Choose another name.
    #[error("a file that is no backup has that name")]
    Occupied,
    /// The signer holds another key than the library was opened with.
    #[error("the key is not that of this library")]
    OtherKey,
    /// It was asked to stop.
    #[error("backup was stopped")]
    Stopped,
    /// The library could not be drained, signed or read.
    #[error("cannot read the library")]
    Library(#[source] AppendError),
    /// The disk refused to write the backup, for instance because it is full.
    #[error("cannot write the backup")]
    Io(#[source] Cause),
}

impl Store {
    /// Writes the whole library into one file: what is acknowledged by now, and the book files.
    ///
    /// Publishes nothing: page turns that wait are in it as such. The newest change and event of each of
    /// this device's own actors is signed first, since a library restored without its keys could not.
    /// The file is written beside `path`, flushed, and renamed; a backup that is there is replaced then.
    /// Needs room for the library twice. The library can be used meanwhile.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; nothing is left behind.
    pub fn backup(
        &self,
        path: &Path,
        signer: &dyn Signer,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, BackupError> {
        refuse_other_files(path)?;
        let (statements, library, wal) = self.freeze(signer)?;
        let mut report = BackupReport { statements, ..BackupReport::default() };
        let beside = Scratch::new(named(path, ".new")).map_err(io)?;
        let mut parts = Parts::begin(&beside.path, progress)?;
        {
            let copy = Scratch::new(named(path, ".library")).map_err(io)?;
            let database = Database::create(&copy.path).map_err(load).map_err(copied)?;
            copy_library(&library, &database).map_err(copied)?;
            drop(database);
            parts.add(LIBRARY, [0; 32], File::open(&copy.path).map_err(io)?)?;
        }
        {
            let copy = Scratch::new(named(path, ".wal")).map_err(io)?;
            let database = Database::create(&copy.path).map_err(load).map_err(copied)?;
            copy_wal(&wal, &database).map_err(copied)?;
            drop(database);
            parts.add(WAL, [0; 32], File::open(&copy.path).map_err(io)?)?;
        }
        for book in
            books_with_files(&library).map_err(|error| BackupError::Library(error.into()))?
        {
            match self.open_file(book) {
                Ok(file) => {
                    parts.add(BOOK_FILE, book.0, file)?;
                    report.files += 1;
                }
                Err(FileError::Missing | FileError::Damaged | FileError::NoFolder) => {
                    report.files_left_out.push(book);
                }
                Err(FileError::Io(error)) => return Err(io(error)),
            }
        }
        report.bytes = parts.end()?;
        beside.rename(path).map_err(io)?;
        sync_folder(path).map_err(io)?;
        Ok(report)
    }

    /// Drains, signs, and takes both files as of one moment.
    fn freeze(
        &self,
        signer: &dyn Signer,
    ) -> Result<(u64, ReadTransaction, ReadTransaction), BackupError> {
        let mut inner = self.lock();
        if signer.public_key_spki() != inner.identity.public_key_spki {
            return Err(BackupError::OtherKey);
        }
        inner.writable().map_err(BackupError::Library)?;
        inner.drain().map_err(BackupError::Library)?;
        let statements = inner.sign_newest(signer).map_err(BackupError::Library)?;
        let library = |error: LoadError| BackupError::Library(error.into());
        let read = inner.library.begin_read().map_err(load).map_err(library)?;
        let wal = inner.wal.begin_read().map_err(load).map_err(library)?;
        Ok((statements, read, wal))
    }
}

/// What goes wrong while a database is copied is nearly always the disk of the backup.
fn copied(error: LoadError) -> BackupError {
    match error {
        LoadError::Io(cause) => BackupError::Io(cause),
        LoadError::NoDocument | LoadError::TooLarge { .. } | LoadError::Corrupt { .. } => {
            BackupError::Library(error.into())
        }
    }
}

fn io(error: io::Error) -> BackupError {
    BackupError::Io(error.into())
}

/// Returns the path with more at the end of its name.
fn named(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    PathBuf::from(name)
}

/// Refuses to replace what is no backup.
fn refuse_other_files(path: &Path) -> Result<(), BackupError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    let mut magic = [0; 16];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == *MAGIC => Ok(()),
        Ok(()) => Err(BackupError::Occupied),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(BackupError::Occupied),
        Err(error) => Err(io(error)),
    }
}

fn books_with_files(library: &ReadTransaction) -> Result<Vec<BookId>, LoadError> {
    let files = library.open_table(tables::FILES).map_err(load)?;
    let books = files.range::<&[u8; 32]>(..).map_err(load)?;
    books.map(|found| found.map(|(id, _)| BookId(*id.value())).map_err(load)).collect()
}

/// The file while it is written.
struct Parts<'a> {
    out: BufWriter<File>,
    hash: Sha256,
    count: u64,
    bytes: u64,
    progress: OnProgress<'a>,
}

impl<'a> Parts<'a> {
    fn begin(path: &Path, progress: OnProgress<'a>) -> Result<Self, BackupError> {
        let out = BufWriter::new(File::create(path).map_err(io)?);
        let mut parts = Self { out, hash: Sha256::new(), count: 0, bytes: 0, progress };
        parts.write(MAGIC)?;
        parts.write(&[VERSION])?;
        Ok(parts)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.out.write_all(bytes).map_err(io)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn add(&mut self, kind: u8, name: [u8; 32], mut file: File) -> Result<(), BackupError> {
        let len = file.metadata().map_err(io)?.len();
        self.write(&[kind])?;
        self.write(&name)?;
        self.write(&len.to_be_bytes())?;
        let (mut hash, mut left) = (Sha256::new(), len);
        let mut buffer = vec![0; CHUNK_BYTES];
        while 0 < left {
            let count = file.read(&mut buffer).map_err(io)?;
            let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
                return Err(io(io::ErrorKind::UnexpectedEof.into()));
            };
            left = left
                .checked_sub(count as u64)
                .ok_or_else(|| io(io::ErrorKind::InvalidData.into()))?;
            hash.update(chunk);
            self.write(chunk)?;
            let (done, total) = (self.bytes, self.bytes + left);
            if (self.progress)(Progress { step: Step::Copying, done, total }).is_break() {
                return Err(BackupError::Stopped);
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        self.count += 1;
        self.write(&hash)
    }

    /// Ends the file, flushes it, and returns its length.
    fn end(mut self) -> Result<u64, BackupError> {
        self.write(&[END])?;
        self.write(&self.count.to_be_bytes())?;
        let hash: [u8; 32] = self.hash.finalize_reset().into();
        self.out.write_all(&hash).map_err(io)?;
        let file = self.out.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        Ok(self.bytes + hash.len() as u64)
    }
}

/// Removes a folder with what is in it, if it is there.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

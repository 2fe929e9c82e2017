//! Restoring a backup: verified and unpacked beside the library first, then put in its place.
//!
//! # Invariants
//!
//! 1. Nothing of the folder changes before every byte of the backup was verified, both databases
//!    opened, and everything flushed in the folder `restoring`.
//! 2. Renaming that folder to `restored` decides: from then on every start finishes what is left, so
//!    that a crash at any moment leaves the old library or the new one, never parts of both.
//! 3. The witness goes before anything else moves: the restored library starts a new generation.
//! 4. `library` comes last. Until it is in place, either nothing can be opened, or the old one is
//!    locked.
//!
//! Keys are neither in a backup nor touched.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use catchword_model::id::BookId;
use redb::Database;
use sha2::{Digest, Sha256};

use crate::backup::{BOOK_FILE, CHUNK_BYTES, END, LIBRARY, MAGIC, VERSION, WAL, remove_folder};
use crate::doc::Doc;
use crate::error::{Cause, LoadError, OpenError, corrupt, load};
use crate::files::file_place;
use crate::open::{check_format, library_builder, wal_builder};
use crate::snapshot::Snapshot;
use crate::witness::sync_folder;
use crate::{LIBRARY_FILE, WAL_FILE, WITNESS_FILE, meta, wal};

const RESTORING: &str = "restoring";
const RESTORED: &str = "restored";
const LOCK_FILE: &str = "restore.lock";

/// What to do with a library that is in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse to restore.
    Refuse,
    /// Replace it. Its book files stay, each under the name of its contents.
    Replace,
}

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreReport {
    /// Documents of the library.
    pub documents: u64,
    /// Book files.
    pub files: u64,
    /// Size of the backup, in bytes.
    pub bytes: u64,
}

/// A backup was not restored. Unless the variant says otherwise, the folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is a library in the folder. Say so if it is to be replaced.
    #[error("there is a library here already")]
    Exists,
    /// Another process holds the library in the folder.
    #[error("another process holds the library here")]
    Locked,
    /// The file is no backup, or is cut off or changed.
    #[error("backup is damaged: {detail}")]
    Damaged {
        /// What is wrong, and where.
        detail: String,
    },
    /// The backup was made by a newer release. Use that release.
    #[error("backup has format {found}, newer than {known}, the newest this release reads")]
    Newer {
        /// The format of the backup or of the library in it.
        found: u32,
        /// The newest format this release reads.
        known: u32,
    },
    /// The disk refused to read the backup or to write the library, for instance because it is full.
    #[error("cannot restore the backup")]
    Io(#[source] Cause),
    /// The disk refused while the restored library took its place. The next start finishes it.
    #[error("the backup is unpacked but not in place: open the library to finish")]
    Unfinished(#[source] Cause),
}

/// Puts the library of a backup into a folder, which is made if it does not exist.
///
/// The restored library starts a new generation when it is opened: its actors are never used again,
/// since nobody can tell what was written after the backup. Everything is verified before the folder is
/// touched. Needs room for the library a second time.
///
/// # Errors
///
/// [`RestoreError`]; after all but [`RestoreError::Unfinished`] the folder is as it was.
pub fn restore(
    backup: &Path,
    folder: &Path,
    existing: Existing,
) -> Result<RestoreReport, RestoreError> {
    let bytes = verify(backup)?;
    fs::create_dir_all(folder).map_err(io)?;
    let _lock = lock(folder)?;
    finish(folder).map_err(unfinished)?;
    let _held = match (folder.join(LIBRARY_FILE).exists(), existing) {
        (true, Existing::Refuse) => return Err(RestoreError::Exists),
        (true, Existing::Replace) => hold(&folder.join(LIBRARY_FILE))?,
        (false, _) => None,
    };
    let restoring = folder.join(RESTORING);
    let unpacked = unpack(backup, &restoring).and_then(|report| {
        fs::rename(&restoring, folder.join(RESTORED)).map_err(io)?;
        Ok(report)
    });
    if unpacked.is_err() {
        // What could not be unpacked only takes room; the next restore removes it, too.
        drop(remove_folder(&restoring));
    }
    let mut report = unpacked?;
    sync(folder).map_err(unfinished)?;
    finish(folder).map_err(unfinished)?;
    report.bytes = bytes;
    Ok(report)
}

/// Finishes a restore that was cut off after it was decided. Called before a library is opened.
pub(crate) fn resume(folder: &Path) -> Result<(), OpenError> {
    if !folder.join(RESTORED).exists() {
        return Ok(());
    }
    let _lock = lock(folder).map_err(|error| match error {
        RestoreError::Locked => OpenError::Locked,
        RestoreError::Io(cause) | RestoreError::Unfinished(cause) => OpenError::Io(cause),
        RestoreError::Exists | RestoreError::Damaged { .. } | RestoreError::Newer { .. } => {
            OpenError::Io(error.into())
        }
    })?;
    finish(folder).map_err(|error| OpenError::Io(error.into()))
}

/// Puts what is in `restored` in its place. Every step may have been made before.
fn finish(folder: &Path) -> io::Result<()> {
    let restored = folder.join(RESTORED);
    if !restored.exists() {
        return Ok(());
    }
    remove_file(&folder.join(WITNESS_FILE))?;
    sync(folder)?;
    move_files(&restored, folder)?;
    for name in [WAL_FILE, LIBRARY_FILE] {
        let (from, to) = (restored.join(name), folder.join(name));
        if from.exists() {
            if to.exists() {
                fs::rename(&to, set_aside(folder, name))?;
            }
            fs::rename(&from, &to)?;
        }
    }
    sync(folder)?;
    remove_folder(&restored)?;
    for name in [WAL_FILE, LIBRARY_FILE] {
        remove_file(&set_aside(folder, name))?;
    }
    sync(folder)
}

/// Where the old file waits until the new one is in place and flushed.
fn set_aside(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.replaced"))
}

/// Moves book files to where the library looks for them. One that is there has the same contents.
fn move_files(restored: &Path, folder: &Path) -> io::Result<()> {
    let unpacked = restored.join(BOOK_FILES);
    let found = match fs::read_dir(&unpacked) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for file in found {
        let file = file?;
        let book: Option<BookId> = file.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(place) = book.map(|book| file_place(folder, book)) else { continue };
        if let Some(shelf) = place.parent() {
            fs::create_dir_all(shelf)?;
        }
        fs::rename(file.path(), &place)?;
        sync_folder(&place)?;
    }
    Ok(())
}

/// Book files in the unpacked folder, by id.
const BOOK_FILES: &str = "book_files";

fn io(error: io::Error) -> RestoreError {
    RestoreError::Io(error.into())
}

fn unfinished(error: io::Error) -> RestoreError {
    RestoreError::Unfinished(error.into())
}

fn damaged(detail: impl Into<String>) -> RestoreError {
    RestoreError::Damaged { detail: detail.into() }
}

fn sync(folder: &Path) -> io::Result<()> {
    sync_folder(&folder.join(LIBRARY_FILE))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One restore of a folder at a time.
fn lock(folder: &Path) -> Result<File, RestoreError> {
    let file = File::create(folder.join(LOCK_FILE)).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RestoreError::Locked),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Locks the library that will be replaced, by opening it. One that does not open is not in use.
fn hold(path: &Path) -> Result<Option<Database>, RestoreError> {
    let builder = library_builder(&Arc::new(AtomicBool::new(false)));
    match builder.open(path).map_err(crate::error::open) {
        Ok(database) => Ok(Some(database)),
        Err(OpenError::Locked) => Err(RestoreError::Locked),
        Err(
            OpenError::Missing
            | OpenError::Exists
            | OpenError::Newer { .. }
            | OpenError::Io(_)
            | OpenError::Corrupt { .. },
        ) => Ok(None),
    }
}

/// Reads a backup to its end and compares every hash. Returns its length.
fn verify(backup: &Path) -> Result<u64, RestoreError> {
    let mut parts = Parts::begin(backup)?;
    let mut kinds = Vec::new();
    while let Some(part) = parts.next()? {
        kinds.push(part.kind);
        let hash = parts.copy(&part, &mut io::sink())?;
        if part.kind == BOOK_FILE && hash != part.name {
            return Err(damaged("a book file is another one than its name says"));
        }
    }
    match kinds.as_slice() {
        [LIBRARY, WAL, files @ ..] if files.iter().all(|kind| *kind == BOOK_FILE) => {
            Ok(parts.bytes)
        }
        _ => Err(damaged("it does not begin with a library")),
    }
}

/// Unpacks a backup, opens what came out, and flushes it.
fn unpack(backup: &Path, to: &Path) -> Result<RestoreReport, RestoreError> {
    remove_folder(to).map_err(io)?;
    fs::create_dir(to).map_err(io)?;
    let mut report = RestoreReport::default();
    let mut parts = Parts::begin(backup)?;
    while let Some(part) = parts.next()? {
        let path = match part.kind {
            LIBRARY => to.join(LIBRARY_FILE),
            WAL => to.join(WAL_FILE),
            _ => {
                report.files += 1;
                fs::create_dir_all(to.join(BOOK_FILES)).map_err(io)?;
                to.join(BOOK_FILES).join(BookId(part.name).to_string())
            }
        };
        let mut out = BufWriter::new(File::create(&path).map_err(io)?);
        parts.copy(&part, &mut out)?;
        let file = out.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
    }
    report.documents = open_unpacked(to)?;
    for name in [LIBRARY_FILE, WAL_FILE] {
        // Opening and closing them wrote to them.
        File::open(to.join(name)).and_then(|file| file.sync_all()).map_err(io)?;
    }
    if 0 < report.files {
        sync(&to.join(BOOK_FILES)).map_err(io)?;
    }
    sync(to).map_err(io)?;
    Ok(report)
}

/// Opens both databases as they would be opened in their place, and returns how many documents there
/// are.
fn open_unpacked(folder: &Path) -> Result<u64, RestoreError> {
    let builder = library_builder(&Arc::new(AtomicBool::new(false)));
    let library = builder.open(folder.join(LIBRARY_FILE)).map_err(crate::error::open);
    let library = library.map_err(opened)?;
    let wal = wal_builder().open(folder.join(WAL_FILE)).map_err(crate::error::open);
    let wal = wal.map_err(opened)?;
    documents(&library, &wal).map_err(opened)
}

fn documents(library: &Database, wal: &Database) -> Result<u64, OpenError> {
    let disk = Snapshot::take(library)?;
    check_format(&disk)?;
    disk.identity()?;
    if disk.meta_bytes(meta::WAL)? != wal::id(wal)? {
        return Err(corrupt("the files of the backup do not belong together").into());
    }
    wal::waiting(wal, 0)?;
    let books = disk.books.range::<u32>(..).map_err(load)?;
    let read = books.map(|found| {
        let (number, bytes) = found.map_err(load)?;
        Doc::decode(number.value(), bytes.value()).map(|_| ())
    });
    Ok(read.collect::<Result<Vec<()>, LoadError>>()?.len() as u64)
}

fn opened(error: OpenError) -> RestoreError {
    match error {
        OpenError::Io(cause) => RestoreError::Io(cause),
        OpenError::Newer { found, known } => RestoreError::Newer { found, known },
        OpenError::Missing | OpenError::Exists | OpenError::Locked | OpenError::Corrupt { .. } => {
            damaged(error.to_string())
        }
    }
}

/// A backup while it is read.
struct Parts {
    input: BufReader<File>,
    hash: Sha256,
    count: u64,
    bytes: u64,
}

struct Part {
    kind: u8,
    name: [u8; 32],
    len: u64,
}

impl Parts {
    fn begin(path: &Path) -> Result<Self, RestoreError> {
        let input = BufReader::new(File::open(path).map_err(io)?);
        let mut parts = Self { input, hash: Sha256::new(), count: 0, bytes: 0 };
        if parts.read::<16>()? != *MAGIC {
            return Err(damaged("it does not begin like a backup"));
        }
        match parts.read::<1>()? {
            [VERSION] => Ok(parts),
            [0] => Err(damaged("it names no format")),
            [found] => {
                Err(RestoreError::Newer { found: u32::from(found), known: u32::from(VERSION) })
            }
        }
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&mut self, bytes: &mut [u8]) -> Result<(), RestoreError> {
        self.input.read_exact(bytes).map_err(|error| {
            let cut_off = error.kind() == io::ErrorKind::UnexpectedEof;
            if cut_off { damaged("it is cut off") } else { io(error) }
        })?;
        self.hash.update(&*bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Returns the next part; `None` at an end that proves everything before it.
    fn next(&mut self) -> Result<Option<Part>, RestoreError> {
        let [kind] = self.read()?;
        match kind {
            END => {
                let count = u64::from_be_bytes(self.read()?);
                let expected: [u8; 32] = self.hash.clone().finalize().into();
                if self.read::<32>()? != expected || count != self.count {
                    return Err(damaged("it was changed after it was written"));
                }
                let mut more = [0; 1];
                match self.input.read(&mut more).map_err(io)? {
                    0 => Ok(None),
                    _ => Err(damaged("it has something after its end")),
                }
            }
            LIBRARY | WAL | BOOK_FILE => {
                self.count += 1;
                let name = self.read()?;
                Ok(Some(Part { kind, name, len: u64::from_be_bytes(self.read()?) }))
            }
            _ => Err(damaged(format!("it has a part of kind {kind}"))),
        }
    }

    /// Copies a part, compares its hash, and returns it.
    fn copy(&mut self, part: &Part, out: &mut impl io::Write) -> Result<[u8; 32], RestoreError> {
        let (mut hash, mut left) = (Sha256::new(), part.len);
        let mut buffer = vec![0; CHUNK_BYTES];
        while 0 < left {
            let count = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let Some(chunk) = buffer.get_mut(..count) else { break };
            self.read_into(chunk)?;
            hash.update(&*chunk);
            out.write_all(chunk).map_err(io)?;
            left -= count as u64;
        }
        let hash: [u8; 32] = hash.finalize().into();
        if self.read::<32>()? == hash {
            Ok(hash)
        } else {
            Err(damaged(format!("part {} was changed after it was written", self.count)))
        }
    }
}

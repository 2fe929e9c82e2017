//! The archive of an EPUB, read under limits.
//!
//! Headers are written by whoever made the file. They are used to refuse early, never to accept:
//! every entry is inflated into a fixed buffer and counted while it comes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::rc::Rc;

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;

use crate::href;
use crate::limits::{
    ENTRIES_MAX, INFLATED_BYTES_MAX, LISTING_BYTES_MAX, RATIO_FREE_BYTES, RATIO_MAX,
};
use crate::refused::{Excess, RefusedFile};

/// Bytes inflated at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// The archive of an EPUB.
pub(crate) struct Archive<R> {
    zip: ZipArchive<Tap<BufReader<R>>>,
    tap: Rc<TapState>,
    /// Size of the file, in bytes.
    file_bytes: u64,
    /// The entries by path; of two with one path the first counts.
    by_path: BTreeMap<String, usize>,
}

/// Why a part of an archive could not be read.
#[derive(Debug)]
pub(crate) enum PartError {
    /// It is damaged; the text says how, as the end of a sentence that begins with its name.
    Damaged(String),
    /// It is larger than the caller allows.
    TooLarge,
    /// The file cannot be read from where it lies.
    Io(io::Error),
}

impl<R: Read + Seek> Archive<R> {
    /// Opens an archive and refuses it by what its headers declare.
    pub(crate) fn open(source: R) -> Result<Self, RefusedFile> {
        let tap = Rc::new(TapState::default());
        let mut tapped = Tap { inner: BufReader::new(source), state: Rc::clone(&tap) };
        let file_bytes = tapped.seek(SeekFrom::End(0)).map_err(RefusedFile::Io)?;
        if ENTRIES_MAX < declared_entries(&mut tapped, file_bytes).map_err(RefusedFile::Io)? {
            return Err(RefusedFile::TooLarge { excess: Excess::Entries });
        }

        tap.bytes_left.set(Some(LISTING_BYTES_MAX));
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let zip = ZipArchive::with_config(config, tapped).map_err(|error| tap.refusal(&error))?;
        tap.bytes_left.set(None);

        let mut archive = Self { zip, tap, file_bytes, by_path: BTreeMap::new() };
        archive.check_headers()?;
        Ok(archive)
    }

    /// Returns the entry at `path`.
    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        self.by_path.get(path).copied()
    }

    /// Returns the path of the first entry, as written in the archive.
    pub(crate) fn first_name(&mut self) -> Option<String> {
        let entry = self.zip.by_index_raw(0).ok()?;
        Some(entry.name().to_owned())
    }

    /// Reads an entry into memory, up to `bytes_max`.
    pub(crate) fn read_part(&mut self, index: usize, bytes_max: u64) -> Result<Vec<u8>, PartError> {
        let mut part = Vec::new();
        let read = match self.zip.by_index(index) {
            Ok(entry) => entry.take(bytes_max.saturating_add(1)).read_to_end(&mut part),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        if let Err(error) = read {
            return Err(match self.tap.take_failure() {
                Some(failure) => PartError::Io(failure),
                None => PartError::Damaged(format!("cannot be unpacked: {error}")),
            });
        }
        if bytes_max < u64::try_from(part.len()).unwrap_or(u64::MAX) {
            return Err(PartError::TooLarge);
        }
        Ok(part)
    }

    /// Inflates every entry and returns their true sizes in bytes, `None` for those that cannot be
    /// read.
    ///
    /// The limits are held against what comes out, whatever the entry declares.
    pub(crate) fn measure(&mut self) -> Result<Vec<Option<u64>>, RefusedFile> {
        let mut total = 0;
        let mut buffer = vec![0; BUFFER_BYTES];
        (0..self.zip.len())
            .map(|index| self.measure_entry(index, &mut total, &mut buffer))
            .collect()
    }

    fn measure_entry(
        &mut self,
        index: usize,
        total: &mut u64,
        buffer: &mut [u8],
    ) -> Result<Option<u64>, RefusedFile> {
        let file_bytes = self.file_bytes;
        let Ok(mut entry) = self.zip.by_index(index) else {
            return self
                .tap
                .take_failure()
                .map_or(Ok(None), |failure| Err(RefusedFile::Io(failure)));
        };
        let mut bytes: u64 = 0;
        loop {
            match entry.read(buffer) {
                Ok(0) => return Ok(Some(bytes)),
                Ok(count) => {
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    bytes = bytes.saturating_add(count);
                    *total = total.saturating_add(count);
                    refuse_excess(*total, file_bytes)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => match self.tap.take_failure() {
                    Some(failure) => return Err(RefusedFile::Io(failure)),
                    None => return Ok(None),
                },
            }
        }
    }

    fn check_headers(&mut self) -> Result<(), RefusedFile> {
        if ENTRIES_MAX < u64::try_from(self.zip.len()).unwrap_or(u64::MAX) {
            return Err(RefusedFile::TooLarge { excess: Excess::Entries });
        }
        let mut total: u64 = 0;
        for index in 0..self.zip.len() {
            let entry = self.zip.by_index_raw(index).map_err(|error| damaged(&error))?;
            if entry.encrypted() {
                return Err(RefusedFile::Encrypted {
                    algorithm: "a password of the archive".into(),
                });
            }
            total = total.saturating_add(entry.size());
            let name = entry.name().to_owned();
            self.by_path.entry(href::entry_path(&name)).or_insert(index);
        }
        refuse_excess(total, self.file_bytes)
    }
}

/// Refuses an archive of `file_bytes` that inflates to `total` bytes or more.
fn refuse_excess(total: u64, file_bytes: u64) -> Result<(), RefusedFile> {
    if INFLATED_BYTES_MAX < total {
        return Err(RefusedFile::TooLarge { excess: Excess::Inflated });
    }
    if RATIO_FREE_BYTES < total && file_bytes.saturating_mul(RATIO_MAX) < total {
        return Err(RefusedFile::TooLarge { excess: Excess::Ratio { file_bytes } });
    }
    Ok(())
}

fn damaged(error: &ZipError) -> RefusedFile {
    RefusedFile::DamagedArchive { detail: error.to_string() }
}

/// Returns the number of entries that the end of the archive declares.
///
/// The archive reader makes room for so many before it reads one. The large form of the record can
/// ask for billions, so it is looked at first, by the reader's own rules.
fn declared_entries<R: Read + Seek>(source: &mut R, file_bytes: u64) -> io::Result<u64> {
    const RECORD_BYTES: u64 = 22;
    const LOCATOR_BYTES: usize = 20;
    const COMMENT_BYTES_MAX: u64 = 1 << 16;

    let tail_bytes = RECORD_BYTES + 4 + COMMENT_BYTES_MAX + LOCATOR_BYTES as u64;
    source.seek(SeekFrom::Start(file_bytes.saturating_sub(tail_bytes)))?;
    let mut tail = Vec::new();
    source.take(tail_bytes).read_to_end(&mut tail)?;

    let mut entries_max = None;
    for at in (0..tail.len()).rev() {
        let Some(record) = tail.get(at..).filter(|record| record.starts_with(b"PK\x05\x06")) else {
            continue;
        };
        // What stands before the last record is no archive unless the last one is none.
        let small = u64::from(little_endian::<2>(record, 10).map_or(0, u16::from_le_bytes));
        entries_max.get_or_insert(small);
        let large = at
            .checked_sub(LOCATOR_BYTES)
            .and_then(|at| tail.get(at..))
            .filter(|locator| locator.starts_with(b"PK\x06\x07"))
            .and_then(|locator| little_endian::<8>(locator, 8))
            .map(u64::from_le_bytes);
        if let Some(large) = large {
            entries_max = entries_max.max(Some(large_record_entries(source, large)?));
        }
    }
    Ok(entries_max.unwrap_or(0))
}

fn large_record_entries<R: Read + Seek>(source: &mut R, offset: u64) -> io::Result<u64> {
    if i64::try_from(offset).is_err() {
        return Ok(0);
    }
    source.seek(SeekFrom::Start(offset))?;
    let mut record = Vec::new();
    source.take(56).read_to_end(&mut record)?;
    if !record.starts_with(b"PK\x06\x06") {
        return Ok(0);
    }
    Ok(little_endian::<8>(&record, 32).map_or(0, u64::from_le_bytes))
}

fn little_endian<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A source that remembers why it failed, and stops when more is read than the caller allows.
///
/// The archive reader reports a bad disk and a bad archive alike; only here they differ.
struct Tap<R> {
    inner: R,
    state: Rc<TapState>,
}

#[derive(Default)]
struct TapState {
    /// What may still be read, in bytes; `None` for any amount.
    bytes_left: Cell<Option<u64>>,
    /// The first failure of the source itself.
    failure: RefCell<Option<io::Error>>,
}

impl TapState {
    fn take_failure(&self) -> Option<io::Error> {
        self.failure.borrow_mut().take()
    }

    /// Returns why an archive could not be opened.
    fn refusal(&self, error: &ZipError) -> RefusedFile {
        match self.take_failure() {
            Some(failure) => RefusedFile::Io(failure),
            None if self.bytes_left.get() == Some(0) => {
                RefusedFile::TooLarge { excess: Excess::Listing }
            }
            None => damaged(error),
        }
    }

    /// Keeps the failure and returns one of the same kind for the archive reader.
    fn remember(&self, failure: io::Error) -> io::Error {
        let kind = failure.kind();
        self.failure.borrow_mut().get_or_insert(failure);
        kind.into()
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.state.bytes_left.get() == Some(0) && !buffer.is_empty() {
            return Err(io::Error::other("the list of entries is too long"));
        }
        let count = match self.inner.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.state.remember(error)),
        };
        if let Some(bytes_left) = self.state.bytes_left.get() {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.state.bytes_left.set(Some(bytes_left.saturating_sub(count)));
        }
        Ok(count)
    }
}

impl<R: Seek> Seek for Tap<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to).map_err(|error| {
            if error.kind() == ErrorKind::InvalidInput {
                // A damaged header sends the reader to places that no file has: its own fault.
                return error;
            }
            self.state.remember(error)
        })
    }
}

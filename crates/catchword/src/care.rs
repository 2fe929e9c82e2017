//! The care of a library: check, compact, backup, restore.

use std::ops::ControlFlow;
use std::path::Path;

use catchword_model::id::BookId;
use catchword_store::{
    BackupReport, CheckReport, CompactReport, End, Existing, FileError, OnProgress, Progress,
    Repair, RestoreReport, SalvageReport, Step,
};

use crate::config::Config;
use crate::error::{BackupError, EditError, OpenError, ReadError, RestoreError};
use crate::keys::{self, DEVICE_KEY, DeviceKey};
use crate::library::{Library, key_store, options};

/// What a check found: in the log and what is derived from it, and in the book files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The log, and everything derived from it.
    pub library: CheckReport,
    /// Book files that were read and are as they were imported.
    pub files: u64,
    /// Books whose file has changed since it was imported. Import it again.
    pub damaged_files: Vec<BookId>,
    /// Books whose file is gone. Import it again.
    pub missing_files: Vec<BookId>,
    /// Whether everything was looked at; otherwise it was stopped.
    pub end: End,
}

impl Checked {
    /// Returns whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.library.is_clean() && self.damaged_files.is_empty() && self.missing_files.is_empty()
    }
}

impl Library {
    /// Puts what can be read of a library whose files have rotted into new files, and builds again what
    /// is derived from the log. The library must be closed.
    ///
    /// Nothing is done if everything can be read. The old files are kept beside the new ones, named
    /// `library.damaged` and `wal.damaged`. What is saved goes on as a new device; what was not comes
    /// back by a sync with another device that has it.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] if nothing can be read: bring a backup back, or sync a new library.
    pub fn salvage(
        folder: impl AsRef<Path>,
        config: &Config,
        progress: OnProgress<'_>,
    ) -> Result<SalvageReport, OpenError> {
        let folder = folder.as_ref();
        let keys = key_store(folder, config);
        let secret = keys::load_or_make(&*keys).map_err(OpenError::Keys)?;
        let options = options(&secret, config);
        catchword_store::salvage(folder, &options, progress).map_err(OpenError::store)
    }

    /// Reads everything, builds what is derived from the log again and compares, and verifies the book
    /// files.
    ///
    /// Takes about as much room beside the library as the library itself, and frees it again.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the disk refuses. What is wrong with the library is no error: it is the report.
    pub fn check(&self, repair: Repair, progress: OnProgress<'_>) -> Result<Checked, ReadError> {
        let library = self.core().store.check(repair, progress).map_err(ReadError::store)?;
        let mut checked = Checked {
            end: library.end,
            library,
            files: 0,
            damaged_files: Vec::new(),
            missing_files: Vec::new(),
        };
        if checked.end == End::Finished {
            self.check_files(&mut checked, progress)?;
        }
        Ok(checked)
    }

    fn check_files(
        &self,
        checked: &mut Checked,
        progress: OnProgress<'_>,
    ) -> Result<(), ReadError> {
        let store = &self.core().store;
        let books = self.books()?;
        let total = books.len() as u64;
        for (done, book) in (1..).zip(&books) {
            if store.file_record(book.book).map_err(ReadError::store)?.is_some() {
                match store.open_file(book.book) {
                    Ok(_) => checked.files += 1,
                    Err(FileError::Damaged) => checked.damaged_files.push(book.book),
                    Err(FileError::Missing) => checked.missing_files.push(book.book),
                    Err(error @ (FileError::NoFolder | FileError::Io(_))) => {
                        return Err(ReadError::file(error));
                    }
                }
            }
            let step = Progress { step: Step::Reading, done, total };
            if progress(step) == ControlFlow::Break(()) && done < total {
                checked.end = End::Stopped;
                break;
            }
        }
        Ok(())
    }

    /// Writes the whole library into one file: everything but this device's keys, and what tells it from
    /// its copies. A backup that is there is replaced once the new one is complete.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; nothing is left behind.
    pub fn backup(
        &self,
        path: impl AsRef<Path>,
        progress: OnProgress<'_>,
    ) -> Result<BackupReport, BackupError> {
        let secret = self.core().keys.load(DEVICE_KEY).map_err(BackupError::Keys)?;
        let key = DeviceKey::new(&secret.ok_or(BackupError::OtherKey)?);
        self.core().store.backup(path.as_ref(), &key, progress).map_err(BackupError::store)
    }

    /// Brings the library of a backup back into a folder. Everything is verified before the folder is
    /// touched.
    ///
    /// When it is opened it continues as a new device, since nobody can tell what was written after the
    /// backup was made. Keys that are in the folder stay.
    ///
    /// # Errors
    ///
    /// [`RestoreError`]; after all but [`RestoreError::Unfinished`] the folder is as it was.
    pub fn restore(
        backup: impl AsRef<Path>,
        folder: impl AsRef<Path>,
        existing: Existing,
    ) -> Result<RestoreReport, RestoreError> {
        let restored = catchword_store::restore(backup.as_ref(), folder.as_ref(), existing);
        restored.map_err(RestoreError::store)
    }

    /// Packs the history into blocks and gives free room back. Nothing is lost.
    ///
    /// Other calls wait meanwhile. When `progress` says so it stops between two transactions.
    ///
    /// # Errors
    ///
    /// [`EditError::Damaged`] if something did not come back as it was written; nothing is lost then.
    pub fn compact(&self, progress: OnProgress<'_>) -> Result<CompactReport, EditError> {
        self.core().store.compact(progress).map_err(EditError::store)
    }
}

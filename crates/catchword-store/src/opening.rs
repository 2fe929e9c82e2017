//! Opening a redb file: without waiting for the disk more than once, and so that no page that has
//! rotted ever comes out of it.
//!
//! redb notes in the header of a file that it is open, and after a kill that it is repaired: one write
//! and one sync of the disk each, seven in all for the two files of a library.
//!
//! # Invariants
//!
//! 1. A sync is left out only as long as nothing but the header was written since the file was opened.
//!    Then what is on the disk is the header of before or one of those written since: the first makes
//!    redb do the same again at the next start, the others say what is so.
//! 2. The first write of anything else ends that, and every sync from then on waits for everything
//!    written before it: a commit puts the note that the file is open on the disk with its pages.
//! 3. What is read from `library` is on the disk: a process that was killed may have written a commit
//!    and not waited for it. `wal` gives up what `library` has, so `library` is waited for once.
//!    What is read from `wal` alone need not be: its next commit takes it along.
//! 4. A panic of redb over what a file holds is an error of opening. Its pages are [verified](Pages)
//!    before redb sees them, so the header is what can be left to panic about.

use std::fs::OpenOptions;
use std::ops::{Bound, Deref};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, StorageBackend};

use crate::contain::contained;
use crate::error::{LoadError, OpenError, corrupt};
use crate::verify::Pages;

/// Bytes of the header of a redb file.
const HEADER_BYTES: u64 = 512;

/// Which of the two files is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What is in it is relied on.
    Library,
    /// What is in it is written again.
    Wal,
}

/// Opens a file that exists.
pub(crate) fn open_file(
    builder: &Builder,
    path: &Path,
    role: Role,
) -> Result<DatabaseFile, OpenError> {
    let io = |error: std::io::Error| OpenError::Io(error.into());
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() == 0 {
        return Err(OpenError::Corrupt { detail: format!("{} is empty", path.display()) });
    }
    let backend = FileBackend::new(file).map_err(crate::error::open)?;
    open_backend(builder, backend, role)
}

/// Makes a file, or opens one.
pub(crate) fn create_file(
    builder: &Builder,
    path: &Path,
    role: Role,
) -> Result<DatabaseFile, OpenError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| OpenError::Io(error.into()))?;
    let backend = FileBackend::new(file).map_err(crate::error::open)?;
    open_backend(builder, backend, role)
}

/// Opens storage, or makes an empty one.
pub(crate) fn open_backend(
    builder: &Builder,
    backend: impl StorageBackend,
    role: Role,
) -> Result<DatabaseFile, OpenError> {
    let patient = Arc::new(AtomicBool::new(false));
    let pages = Arc::new(Pages::default());
    let backend = Arc::new(backend);
    let guarded = Guarded {
        inner: Arc::clone(&backend),
        patient: Arc::clone(&patient),
        pages: Arc::clone(&pages),
    };
    let database = contained(|| builder.create_with_backend(guarded).map_err(crate::error::open))?;
    pages.be_strict();
    let waited = patient.swap(true, Ordering::AcqRel);
    if role == Role::Library && !waited {
        backend.sync_data().map_err(|error| OpenError::Io(error.into()))?;
    }
    Ok(DatabaseFile { database, pages })
}

/// An open file, which knows whether it has rotted.
pub(crate) struct DatabaseFile {
    database: Database,
    pages: Arc<Pages>,
}

impl DatabaseFile {
    pub(crate) fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.pages)
    }

    /// Fails if a page that was read had rotted: redb gives no reason for what it refuses since.
    pub(crate) fn is_sound(&self) -> Result<(), LoadError> {
        match self.pages.rot() {
            Some(rot) => Err(corrupt(rot.to_string())),
            None => Ok(()),
        }
    }
}

impl Deref for DatabaseFile {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Storage that is not waited for while its file is opened, and whose pages are verified.
#[derive(Debug)]
struct Guarded<B> {
    inner: Arc<B>,
    /// Whether syncs are waited for: set when the file is open, or by a write beyond the header.
    patient: Arc<AtomicBool>,
    pages: Arc<Pages>,
}

impl<B: StorageBackend> StorageBackend for Guarded<B> {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.inner.read(offset, out)?;
        self.pages.after_read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.patient.store(true, Ordering::Release);
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        if self.patient.load(Ordering::Acquire) { self.inner.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        if HEADER_BYTES < offset.saturating_add(data.len() as u64) {
            self.patient.store(true, Ordering::Release);
        }
        self.inner.write(offset, data)?;
        self.pages.after_write(offset, data);
        Ok(())
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use redb::ReadableDatabase as _;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::tables::RECENT as TABLE;

    #[derive(Debug, Clone, Default)]
    struct Counted {
        inner: Arc<InMemoryBackend>,
        syncs: Arc<AtomicUsize>,
    }

    impl Counted {
        fn syncs(&self) -> usize {
            self.syncs.load(Ordering::Relaxed)
        }
    }

    impl StorageBackend for Counted {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.inner.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.inner.read(offset, out)
        }
        fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
            self.inner.set_len(len)
        }
        fn sync_data(&self) -> Result<(), std::io::Error> {
            self.syncs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.inner.write(offset, data)
        }
    }

    fn put(database: &Database, key: u64) {
        let write = database.begin_write().unwrap();
        write.open_table(TABLE).unwrap().insert((key, 0), ()).unwrap();
        write.commit().unwrap();
    }

    fn open(disk: &Counted, role: Role) -> DatabaseFile {
        open_backend(&Builder::new(), disk.clone(), role).unwrap()
    }

    /// As a kill leaves it: what was written is there, and redb did not close the file.
    fn killed(disk: &Counted) -> Counted {
        let copy = Counted::default();
        let mut bytes = vec![0; usize::try_from(disk.len().unwrap()).unwrap()];
        disk.read(0, &mut bytes).unwrap();
        copy.set_len(disk.len().unwrap()).unwrap();
        copy.write(0, &bytes).unwrap();
        copy
    }

    #[test]
    fn opening_after_a_kill_waits_for_the_library_once_and_never_for_the_wal() {
        for (role, syncs) in [(Role::Library, 1), (Role::Wal, 0)] {
            let disk = Counted::default();
            let database = open(&disk, role);
            assert!(0 < disk.syncs(), "making a file is waited for");
            put(&database, 1);

            let after = killed(&disk);
            let reopened = open(&after, role);
            assert_eq!(after.syncs(), syncs, "{role:?}");
            put(&reopened, 2);
            assert!(syncs < after.syncs());
        }
    }

    #[test]
    fn a_second_kill_before_any_commit_loses_nothing() {
        let disk = Counted::default();
        let database = open(&disk, Role::Wal);
        put(&database, 1);

        let once = killed(&disk);
        let reopened = open(&once, Role::Wal);
        let twice = open(&killed(&once), Role::Wal);
        for database in [reopened, twice] {
            let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
            assert!(table.get((1, 0)).unwrap().is_some());
        }
    }

    #[test]
    fn an_empty_file_is_damage_and_no_new_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library");
        std::fs::write(&path, []).unwrap();
        let opened = open_file(&Builder::new(), &path, Role::Library);
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })));
    }
}

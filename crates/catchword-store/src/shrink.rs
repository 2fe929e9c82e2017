//! Giving free pages back to the file system.
//!
//! redb's own compaction commits without quick-repair: a kill in the middle would make the next start
//! walk the whole file. So the library is copied into a new file, which takes the place of the old one.
//!
//! Invariant: the witness names both files before they are exchanged, so that a crash at any moment
//! leaves a library that knows itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use redb::ReadableDatabase as _;

use crate::copy::{Scratch, copy_library};
use crate::error::{AppendError, Cause, LoadError, load};
use crate::open::library_builder;
use crate::opening::{Role, create_file};
use crate::progress::{OnProgress, Progress, Step};
use crate::snapshot::Snapshot;
use crate::witness::{Witness, file_identity, sync_folder};
use crate::{Inner, LIBRARY_FILE, WITNESS_FILE};

const COPY_FILE: &str = "library.new";
/// A file with less than this to give back is left alone.
const FREE_BYTES_MIN: u64 = 256 << 10;

impl Inner {
    /// Copies the library into a new file, if that makes it smaller by a fifth or more.
    pub(crate) fn shrink(
        &mut self,
        folder: &Path,
        progress: OnProgress<'_>,
    ) -> Result<(), AppendError> {
        let path = folder.join(LIBRARY_FILE);
        let bytes = disk_bytes(&path).map_err(io)?;
        let free = bytes.saturating_sub(self.bytes_in_use()?);
        if free < (bytes / 5).max(FREE_BYTES_MIN) || cfg!(windows) {
            return Ok(());
        }
        if progress(Progress { step: Step::Copying, done: 0, total: 1 }).is_break() {
            return Ok(());
        }
        let scratch = Scratch::new(folder.join(COPY_FILE)).map_err(io)?;
        let builder = library_builder(&Arc::new(AtomicBool::new(false)));
        let copy = create_file(&builder, &scratch.path, Role::Library).map_err(io)?;
        copy_library(&self.library.begin_read().map_err(load)?, &copy)?;
        if bytes <= disk_bytes(&scratch.path).map_err(io)? {
            return Ok(());
        }
        let snapshot = Snapshot::take(&copy)?;
        announce(folder, &scratch.path).map_err(io)?;
        scratch.rename(&path).map_err(io)?;
        // From here on the new file is the library, whatever else goes wrong.
        (self.disk, self.library) = (Some(snapshot), copy);
        sync_folder(&path).map_err(io)?;
        self.testify(folder).map_err(io)?;
        let _ = progress(Progress { step: Step::Copying, done: 1, total: 1 });
        Ok(())
    }

    fn bytes_in_use(&self) -> Result<u64, LoadError> {
        let write = self.library.begin_write().map_err(load)?;
        let stats = write.stats().map_err(load)?;
        write.abort().map_err(load)?;
        Ok(stats.stored_bytes() + stats.metadata_bytes())
    }
}

/// Lets the witness name the file that is about to become the library.
fn announce(folder: &Path, next: &Path) -> std::io::Result<()> {
    let path = folder.join(WITNESS_FILE);
    match Witness::load(&path) {
        Some(witness) => Witness { next: Some(file_identity(next)?), ..witness }.store(&path),
        None => Ok(()),
    }
}

/// Returns what a file takes on disk. redb makes files up to twice as long as what it writes, and file
/// systems keep no room for the rest.
pub(crate) fn disk_bytes(path: &Path) -> std::io::Result<u64> {
    let file = std::fs::metadata(path)?;
    #[cfg(unix)]
    let bytes = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    #[cfg(not(unix))]
    let bytes = file.len();
    Ok(bytes)
}

fn io(error: impl Into<Cause>) -> AppendError {
    AppendError::Io(error.into())
}

#[cfg(test)]
mod tests {
    use catchword_model::id::BookId;
    use catchword_model::meta::DeviceName;

    use super::*;
    use crate::{Options, Store};

    fn options() -> Options {
        let device = DeviceName { name: "phone".to_owned(), ..DeviceName::default() };
        Options { public_key_spki: vec![1; 44], device, now_ms: 1_780_000_000_000 }
    }

    /// A copy of the library, as it is before it takes the place of the library.
    fn copied(folder: &Path) -> std::path::PathBuf {
        let store = Store::create(folder, &options()).unwrap();
        store.add_book(BookId([1; 32]), Vec::new(), Vec::new(), 1_780_000_000_000).unwrap();
        let path = folder.join(COPY_FILE);
        let copy = redb::Database::create(&path).unwrap();
        copy_library(&store.lock().library.begin_read().unwrap(), &copy).unwrap();
        path
    }

    #[test]
    fn a_crash_at_any_moment_of_the_exchange_leaves_the_generation_as_it_is() {
        for exchanged in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let copy = copied(folder.path());
            let before = Store::open(folder.path(), &options()).unwrap().generation();
            announce(folder.path(), &copy).unwrap();
            if exchanged {
                std::fs::rename(&copy, folder.path().join(LIBRARY_FILE)).unwrap();
            }

            for _ in 0..2 {
                let store = Store::open(folder.path(), &options()).unwrap();
                assert_eq!(store.opened().new_generation, None, "exchanged: {exchanged}");
                assert!(!store.opened().library_repaired);
                assert_eq!(store.generation(), before);
                assert_eq!(store.books().unwrap().len(), 1);
            }
        }
    }

    #[test]
    fn a_copy_that_was_not_announced_is_another_library() {
        let folder = tempfile::tempdir().unwrap();
        let copy = copied(folder.path());
        std::fs::rename(&copy, folder.path().join(LIBRARY_FILE)).unwrap();

        let store = Store::open(folder.path(), &options()).unwrap();

        assert_eq!(store.opened().new_generation, Some(crate::Evidence::OtherFile));
    }
}

//! Libraries and books to test with.

use std::path::{Path, PathBuf};

use catchword::{Book, Config, Library, Locator};
use catchword_formats::sample;
use tempfile::TempDir;

/// One day, in milliseconds.
pub(crate) const DAY_MS: i64 = 86_400_000;

/// A library in a folder of its own.
pub(crate) struct Device {
    pub(crate) library: Library,
    pub(crate) folder: TempDir,
}

/// Makes a library with a name.
pub(crate) fn device(name: &str) -> Device {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::default().with_device_name(name);
    let library = Library::create(folder.path().join("library"), config).unwrap();
    Device { library, folder }
}

impl Device {
    /// Where the library lies.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("library")
    }

    /// Returns the two files as they lie on the disk now.
    pub(crate) fn disk(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = ["wal", "library"].map(|name| self.path().join(name));
        paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).into()
    }

    /// Closes the library and opens it again. Books of it must be dropped or forgotten before.
    pub(crate) fn reopened(self) -> Self {
        let Self { library, folder } = self;
        drop(library);
        let path = folder.path().join("library");
        let library = Library::open_existing(path, Config::default()).unwrap();
        Self { library, folder }
    }

    /// Opens the library with a shifted clock on what lay on the disk at an earlier moment: as if the
    /// process had been killed then.
    pub(crate) fn killed_at(self, disk: Vec<(PathBuf, Vec<u8>)>, offset_ms: i64) -> Self {
        let Self { library, folder } = self;
        drop(library);
        for (path, bytes) in disk {
            // Into the same files: a new file would be a copy of the library.
            std::fs::write(path, bytes).unwrap();
        }
        let config = Config::default().with_clock_offset_ms(offset_ms);
        let library = Library::open_existing(folder.path().join("library"), config).unwrap();
        Self { library, folder }
    }

    /// Imports a sample book.
    pub(crate) fn sample(&self) -> Book {
        let path = sample_file(self.folder.path());
        self.library.import(path).unwrap().book
    }
}

/// Writes a sample book into a folder.
pub(crate) fn sample_file(folder: &Path) -> PathBuf {
    let sample = sample::all().remove(0);
    let path = folder.join(sample.file_name);
    std::fs::write(&path, sample.bytes).unwrap();
    path
}

/// A place in a book.
pub(crate) fn at(ppm: u32) -> Locator {
    Locator::new().with_total_ppm(ppm)
}

/// Reads up to a place, and closes the session.
pub(crate) fn read(book: &Book, ppm: u32) {
    let mut session = book.session("test").unwrap();
    session.restored();
    session.turned(at(ppm)).unwrap();
    session.close().unwrap();
}

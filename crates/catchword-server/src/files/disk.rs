//! Book files on a disk, each account in a folder of its own.
//!
//! ```text
//! FOLDER/ACCOUNT/SHA256     a file, whole and verified
//! FOLDER/ACCOUNT/*.part     one that is on its way
//! ```
//!
//! # Invariants
//!
//! 1. What has the name of a file has its bytes, and is durable.
//! 2. Nothing is shared between accounts: whether a file exists elsewhere changes nothing here.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use catchword_model::id::BookId;
use catchword_proto::cloud::api::AccountId;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

/// A file that was on its way is removed after this: longer than any upload takes.
const PART_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const PART: &str = "part";

/// Where files are kept.
#[derive(Debug, Clone)]
pub struct Disk {
    folder: PathBuf,
    /// What the files of one account may take, in bytes.
    account_bytes_max: u64,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    /// It is there now.
    Kept,
    /// The bytes are not those that the name says; nothing is left of them.
    Other,
    /// The disk is full; nothing is left of them.
    Full,
}

impl Disk {
    /// Uses a folder, which is made if it is not there. The files of one account may take so many bytes.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn open(folder: &Path, account_bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), account_bytes_max })
    }

    fn folder(&self, account: AccountId) -> PathBuf {
        self.folder.join(account.to_string())
    }

    fn path(&self, account: AccountId, file: BookId) -> PathBuf {
        self.folder(account).join(file.to_string())
    }

    /// Opens a file, if it is there. Returns its length in bytes, too.
    pub(super) fn find(&self, account: AccountId, file: BookId) -> io::Result<Option<(File, u64)>> {
        match File::open(self.path(account, file)) {
            Ok(file) => {
                let bytes = file.metadata()?.len();
                Ok(Some((file, bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether so many bytes more fit into an account.
    pub(super) fn has_room(&self, account: AccountId, bytes: u64) -> io::Result<bool> {
        let entries = match fs::read_dir(self.folder(account)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(bytes <= self.account_bytes_max);
            }
            Err(error) => return Err(error),
        };
        let mut taken: u64 = 0;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            // Another upload may have ended meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            if path.extension().is_some_and(|extension| extension == PART) && PART_AGE_MAX < age {
                fs::remove_file(path)?;
            } else {
                taken = taken.saturating_add(metadata.len());
            }
        }
        Ok(taken.saturating_add(bytes) <= self.account_bytes_max)
    }

    /// Keeps what comes, if it has the SHA-256 that the name says. It replaces nothing but itself.
    ///
    /// `chance` tells uploads apart.
    pub(super) fn keep(
        &self,
        (account, file): (AccountId, BookId),
        chance: [u8; 16],
        mut chunks: mpsc::Receiver<Bytes>,
    ) -> io::Result<Upload> {
        let folder = self.folder(account);
        fs::create_dir_all(&folder)?;
        let name = data_encoding::HEXLOWER.encode(&chance);
        let part = Part(folder.join(name).with_extension(PART));
        let mut to = File::create_new(&part.0)?;
        let mut hash = Sha256::new();
        let written = || -> io::Result<bool> {
            while let Some(chunk) = chunks.blocking_recv() {
                hash.update(&chunk);
                to.write_all(&chunk)?;
            }
            let fits = hash.finalize().as_slice() == file.0;
            if fits {
                to.sync_all()?;
                fs::rename(&part.0, self.path(account, file))?;
                File::open(&folder)?.sync_all()?;
            }
            Ok(fits)
        };
        match written() {
            Ok(true) => Ok(Upload::Kept),
            Ok(false) => Ok(Upload::Other),
            Err(error) if is_full(&error) => Ok(Upload::Full),
            Err(error) => Err(error),
        }
    }

    /// Removes a file. Returns whether it was there.
    pub(super) fn remove(&self, account: AccountId, file: BookId) -> io::Result<bool> {
        match fs::remove_file(self.path(account, file)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file on its way: gone at the end, unless it has its name by then.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // It is not there where it has its name; what is left over is removed a day later.
        let _removed = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchword_model::id::sha256;

    const ANNA: AccountId = AccountId([1; 16]);

    fn keep(disk: &Disk, file: BookId, chunks: &[&'static [u8]]) -> io::Result<Upload> {
        let (sender, receiver) = mpsc::channel(chunks.len().max(1));
        for chunk in chunks {
            sender.try_send(Bytes::from_static(chunk)).unwrap();
        }
        drop(sender);
        disk.keep((ANNA, file), [7; 16], receiver)
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder.join(ANNA.to_string())).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn only_what_has_the_bytes_that_its_name_says_stays() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path(), 10).unwrap();
        let file = BookId(sha256(&[b"abcd"]));
        assert_eq!(keep(&disk, file, &[b"ab", b"ce"]).unwrap(), Upload::Other);
        assert_eq!(keep(&disk, file, &[b"ab"]).unwrap(), Upload::Other, "cut off");
        assert_eq!(names(folder.path()), [""; 0]);
        assert!(disk.find(ANNA, file).unwrap().is_none());
        assert_eq!(keep(&disk, file, &[b"ab", b"cd"]).unwrap(), Upload::Kept);
        assert_eq!(names(folder.path()), [file.to_string()]);
        assert_eq!(disk.find(ANNA, file).unwrap().unwrap().1, 4);
        assert!(disk.find(AccountId([2; 16]), file).unwrap().is_none());

        assert!(disk.has_room(ANNA, 6).unwrap() && !disk.has_room(ANNA, 7).unwrap());
        assert!(!disk.has_room(ANNA, u64::MAX).unwrap());
        assert!(disk.has_room(AccountId([2; 16]), 10).unwrap());
        assert!(!disk.has_room(AccountId([2; 16]), 11).unwrap());
        assert!(disk.remove(ANNA, file).unwrap() && !disk.remove(ANNA, file).unwrap());
    }

    #[test]
    fn what_was_on_its_way_for_a_day_is_removed_and_counts_until_then() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path(), 10).unwrap();
        let own = folder.path().join(ANNA.to_string());
        fs::create_dir(&own).unwrap();
        fs::write(own.join("new.part"), b"123").unwrap();
        fs::write(own.join("old.part"), b"123").unwrap();
        let yesterday = std::time::SystemTime::now() - PART_AGE_MAX - Duration::from_secs(60);
        File::options()
            .write(true)
            .open(own.join("old.part"))
            .unwrap()
            .set_modified(yesterday)
            .unwrap();
        assert!(disk.has_room(ANNA, 7).unwrap() && !disk.has_room(ANNA, 8).unwrap());
        assert_eq!(names(folder.path()), ["new.part"]);
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let of = |kind: io::ErrorKind| is_full(&kind.into());
        assert!(of(io::ErrorKind::StorageFull) && of(io::ErrorKind::QuotaExceeded));
        assert!(!of(io::ErrorKind::PermissionDenied));
        if let Ok(mut full) = File::options().write(true).open("/dev/full") {
            assert!(is_full(&full.write_all(b"x").unwrap_err()), "what the system says");
        }
    }
}

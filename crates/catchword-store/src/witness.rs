//! The witness: a small file beside the database and outside backups, by which a library notices that
//! its store went back, or that it is a copy.
//!
//! It names the `library` file by the time of its birth (a copy gets a new one; where the file system
//! has none, by its canonical path), the generation, and the greatest local sequence that ever left
//! this device. It is written beside, flushed and renamed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use catchword_model::id::{Generation, sha256};

use crate::bytes::{Reader, Writer};

const VERSION: u8 = 1;

/// Why a new generation was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// There is no witness: a restored backup, or a library moved without it.
    NoWitness,
    /// The witness is another file's: a copy.
    OtherFile,
    /// The witness knows another generation: one backup restored twice.
    OtherGeneration,
    /// The witness knows of sequences the store does not have: an older state of the store.
    Ahead,
    /// The waiting records are missing, or another library's.
    OtherWal,
    /// The keys are not those the library was written with.
    OtherKey,
    /// Somebody else writes as this device: a copy that nothing told apart.
    Forked,
}

/// In words, as the end of "it continues as a new device, because".
impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoWitness => "it was restored from a backup, or moved without its witness",
            Self::OtherFile => "it is a copy of another one",
            Self::OtherGeneration => "one backup was restored twice",
            Self::Ahead => "it is an older state of itself",
            Self::OtherWal => "its newest writes are missing or those of another library",
            Self::OtherKey => "its keys are not those it was written with",
            Self::Forked => "another copy of it writes as the same device",
        })
    }
}

/// What the witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Witness {
    /// The birth of the file, or its path.
    pub(crate) file: [u8; 32],
    /// The file that is about to take its place, while `compact` exchanges them.
    pub(crate) next: Option<[u8; 32]>,
    pub(crate) generation: Generation,
    /// The greatest local sequence that ever left this device.
    pub(crate) sent: u64,
}

impl Witness {
    /// Reads the witness; `None` if there is none, or it does not read.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        let bytes = fs::read(path).ok()?;
        let (content, checksum) = bytes.split_last_chunk::<8>()?;
        if !sha256(&[content]).starts_with(checksum) {
            return None;
        }
        let mut input = Reader(content);
        (input.byte().ok()? == VERSION).then_some(())?;
        Some(Self {
            file: input.fixed().ok()?,
            next: match input.byte().ok()? {
                0 => None,
                _ => Some(input.fixed().ok()?),
            },
            generation: Generation(input.fixed().ok()?),
            sent: input.number().ok()?,
        })
    }

    /// Returns whether this file is the library, or was about to become it.
    pub(crate) fn knows(&self, file: [u8; 32]) -> bool {
        self.file == file || self.next == Some(file)
    }

    /// Writes the witness beside itself, flushes it, and puts it in its place.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let mut out = Writer::default();
        out.byte(VERSION).fixed(&self.file);
        match &self.next {
            Some(next) => out.byte(1).fixed(next),
            None => out.byte(0),
        };
        out.fixed(&self.generation.0).number(self.sent);
        let checksum = sha256(&[&out.0]);
        out.0.extend(checksum.iter().take(8));
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&out.0)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder(path)
    }
}

/// Makes a rename in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent()
        && cfg!(unix)
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Returns what tells this file from its copies.
pub(crate) fn file_identity(path: &Path) -> io::Result<[u8; 32]> {
    let metadata = fs::metadata(path)?;
    let birth = metadata.created().ok().and_then(|birth| birth.duration_since(UNIX_EPOCH).ok());
    if let Some(birth) = birth {
        return Ok(sha256(&[b"birth", &birth.as_nanos().to_be_bytes()]));
    }
    let canonical: PathBuf = fs::canonicalize(path)?;
    Ok(sha256(&[b"path", canonical.as_os_str().as_encoded_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_that_was_cut_off_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness");
        let witness = Witness {
            file: [1; 32],
            next: Some([3; 32]),
            generation: Generation([2; 16]),
            sent: 300,
        };
        witness.store(&path).unwrap();
        assert_eq!(Witness::load(&path), Some(witness));

        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(Witness::load(&path), None);
        }
    }
}

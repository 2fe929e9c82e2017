//! Writing a file so that it is either the old one or the new one, whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Replaces a file once the new one is complete and on the disk.
pub(crate) fn replace(path: &Path, source: impl io::Read) -> Result<(), Failure> {
    let beside = beside(path);
    let written = write(&beside, source).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // The error is what matters; a part that stays is in nobody's way.
        let _leftover = fs::remove_file(&beside);
        Failure::file("write", path, error)
    })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write(path: &Path, mut source: impl io::Read) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::copy(&mut source, &mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.automerge");
        replace(&path, &b"one"[..]).unwrap();
        replace(&path, &b"two"[..]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let failure = replace(&folder.path().join("no/a"), &b"one"[..]).unwrap_err();
        assert_eq!(failure.exit.code(), 4);
    }
}

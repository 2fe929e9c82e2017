//! Copying a library file table by table: the copy holds what one transaction saw, and no free pages.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::WriteTransaction;
use redb::{Database, Key, ReadTransaction, ReadableTable as _, TableDefinition, Value};

use crate::error::{LoadError, load};
use crate::tables;

/// A file that is removed when it is no longer needed, however that comes about.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Makes sure that there is no such file yet.
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self { path }),
        }
    }

    /// Gives the file its name for good.
    pub(crate) fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is gone after a rename; one that stays takes room until the next time.
        drop(fs::remove_file(&self.path));
    }
}

/// Copies every table of `library` in one transaction, made with quick-repair.
pub(crate) fn copy_library(read: &ReadTransaction, to: &Database) -> Result<(), LoadError> {
    struct Copier<'a>(&'a ReadTransaction, WriteTransaction);

    impl tables::EachTable for Copier<'_> {
        fn table<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
        ) -> Result<(), LoadError> {
            copy_table(self.0, &self.1, table)
        }
    }

    let mut copier = Copier(read, crate::flush::begin(to)?);
    tables::each_of_library(&mut copier)?;
    copier.1.commit().map_err(load)
}

/// Copies every table of `wal` in one transaction.
pub(crate) fn copy_wal(read: &ReadTransaction, to: &Database) -> Result<(), LoadError> {
    let write = to.begin_write().map_err(load)?;
    copy_table(read, &write, tables::TAIL)?;
    copy_table(read, &write, tables::PENDING)?;
    copy_table(read, &write, tables::WAL_META)?;
    write.commit().map_err(load)
}

/// Tables are copied in the order of their keys through the gap at the end, which fills the pages of
/// the copy: inserting key by key would leave each page half full when the next one begins.
fn copy_table<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    write: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), LoadError> {
    let from = read.open_table(table).map_err(load)?;
    let mut to = write.open_table(table).map_err(load)?;
    let mut end = to.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded).map_err(load)?;
    for found in from.iter().map_err(load)? {
        let (key, value) = found.map_err(load)?;
        end.insert_before(key.value(), value.value()).map_err(load)?;
    }
    end.close().map_err(load)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{ReadableDatabase as _, TableHandle as _};

    use super::*;

    fn in_memory() -> Database {
        Database::builder().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    fn table_names(database: &Database) -> Vec<String> {
        let read = database.begin_read().unwrap();
        let mut names: Vec<String> =
            read.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn no_table_is_left_out_of_a_copy() {
        let (library, copy) = (in_memory(), in_memory());
        let write = library.begin_write().unwrap();
        crate::open::make_tables(&write).unwrap();
        write.commit().unwrap();

        copy_library(&library.begin_read().unwrap(), &copy).unwrap();

        assert_eq!(table_names(&copy), table_names(&library));
        let (wal, copy) = (in_memory(), in_memory());
        crate::wal::claim(&wal, &[1]).unwrap();
        copy_wal(&wal.begin_read().unwrap(), &copy).unwrap();
        assert_eq!(table_names(&copy), table_names(&wal));
        assert_eq!(crate::wal::id(&copy).unwrap(), Some(vec![1]));
    }
}

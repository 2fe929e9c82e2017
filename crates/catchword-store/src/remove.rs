//! Removing a book from this device. It is local and does not travel.

use catchword_model::edit::Edit;
use catchword_model::id::{BookId, DocumentId};

use crate::contain::contained;
use crate::error::{AppendError, LoadError, load};
use crate::snapshot::Snapshot;
use crate::{Inner, Store, tables};

impl Store {
    /// Hides a book on this device: its file goes, its history stays. Adding it again undoes it.
    ///
    /// # Errors
    ///
    /// [`AppendError::NoDocument`] if the book is not here.
    pub fn remove(&self, book: BookId, now_ms: u64) -> Result<(), AppendError> {
        let number = self.lock().number(book.document())?.ok_or(AppendError::NoDocument)?;
        self.publish(book)?;
        self.append(DocumentId::library(), &[Edit::RemoveHold { book }], now_ms)?;
        let mut inner = self.lock();
        inner.drain()?;
        let written = inner.write_meta(|write| {
            let mut removed = write.open_table(tables::REMOVED).map_err(load)?;
            removed.insert(number, now_ms).map_err(load)?;
            let mut files = write.open_table(tables::FILES).map_err(load)?;
            files.remove(&book.0).map_err(load)?;
            Ok(())
        });
        Ok(written?)
    }

    /// Takes back a removal. A book that was not removed stays as it is.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    pub fn restore_removed(&self, book: BookId) -> Result<bool, AppendError> {
        let mut inner = self.lock();
        let number = inner.number(book.document())?.ok_or(AppendError::NoDocument)?;
        let (_, disk) = inner.parts()?;
        if disk.removed.get(number).map_err(load)?.is_none() {
            return Ok(false);
        }
        inner.writable()?;
        inner.drain()?;
        let written = inner.write_meta(|write| {
            let mut removed = write.open_table(tables::REMOVED).map_err(load)?;
            removed.remove(number).map_err(load)?;
            Ok(())
        });
        written.map(|()| true).map_err(AppendError::from)
    }

    /// Returns every removed book, and when it was removed, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn removed(&self) -> Result<Vec<(BookId, u64)>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        let mut removed = Vec::new();
        for found in disk.removed.range::<u32>(..).map_err(load)? {
            let (number, since_ms) = found.map_err(load)?;
            let book = disk.doc(number.value())?.map(|doc| BookId(doc.id.0));
            removed.extend(book.map(|book| (book, since_ms.value())));
        }
        Ok(removed)
    }
}

impl Inner {
    /// Writes tables that no change is behind, in a transaction of their own.
    pub(crate) fn write_meta(
        &mut self,
        write_tables: impl FnOnce(&redb::WriteTransaction) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let result = contained(|| {
            let write = crate::flush::begin(&self.library)?;
            write_tables(&write)?;
            write.commit().map_err(load)?;
            Snapshot::take(&self.library)
        });
        match result {
            Ok(disk) => {
                self.disk = Some(disk);
                Ok(())
            }
            Err(error) => {
                self.fail();
                Err(error)
            }
        }
    }
}

//! What a device writes because of a verdict.

use catchword_model::edit::Edit;
use catchword_model::hlc::Hlc;
use catchword_model::id::{BookId, DeviceId};
use catchword_model::position::{self, Entry, Position, withdrawal_mark};
use catchword_model::schema::Container;

use crate::append::Acknowledged;
use crate::error::{AppendError, LoadError};
use crate::flush::all_entries;
use crate::rows::field_key;
use crate::{Inner, Store};

impl Store {
    /// Withdraws positions of devices, each up to and including a stamp, unless the rows have that
    /// already. Returns whether a change was needed, when it is durable. What is not here is left out.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    pub fn withdraw(
        &self,
        book: BookId,
        marks: &[(DeviceId, Hlc)],
        now_ms: u64,
    ) -> Result<bool, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let Some(number) = inner.number(book.document())? else { return Ok(false) };
        let mut edits = Vec::new();
        for (device, mark) in marks {
            let (stage, disk) = inner.parts()?;
            let key = field_key(Container::Withdrawn, &device.to_string());
            if withdrawal_mark(&stage.field(disk, number, &key)?.field) < *mark {
                edits.push(Edit::Withdraw { device: *device, mark: *mark });
                // A mark above the stamp of the change that writes it does not count.
                inner.clock.observe(*mark);
            }
        }
        if edits.is_empty() {
            return Ok(false);
        }
        inner.put_edits(book, &edits, now_ms)?;
        Ok(true)
    }

    /// Returns whether this device's newest position in a book has this stamp and is not the place.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn is_behind(&self, book: BookId, stamp: Hlc) -> Result<bool, LoadError> {
        Ok(self.lock().behind(book, stamp)?.is_some())
    }

    /// Writes this device's newest position in a book again, with a new stamp and what it sees now, if
    /// it has this stamp and is not the place. Returns whether it was written, when it is durable.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    pub fn rewrite_position(
        &self,
        book: BookId,
        stamp: Hlc,
        now_ms: u64,
    ) -> Result<bool, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let Some((own, seen)) = inner.behind(book, stamp)? else { return Ok(false) };
        let again = Position { seen, ..own.position };
        inner.put_edits(book, &[Edit::SetPosition(again)], now_ms)?;
        Ok(true)
    }
}

impl Inner {
    fn put_edits(&mut self, book: BookId, edits: &[Edit], now_ms: u64) -> Result<(), AppendError> {
        let mut acknowledged = Acknowledged::default();
        let made = self.make(book.document(), edits, now_ms, &mut acknowledged);
        self.or_roll_back(made)?;
        self.acknowledge(acknowledged)
    }

    /// Returns this device's newest position with what it would see now, if it has this stamp and is not
    /// the place. Turns that wait are newer.
    fn behind(&mut self, book: BookId, stamp: Hlc) -> Result<Option<(Entry, Hlc)>, LoadError> {
        let device = self.identity.device;
        let Some(number) = self.number(book.document())? else { return Ok(None) };
        if self.pending.contains_key(&number) {
            return Ok(None);
        }
        let (stage, disk) = self.parts()?;
        let entries = all_entries(stage, disk, number)?;
        let own = entries.iter().filter(|entry| entry.device == device);
        let Some(own) = own.max_by_key(|entry| entry.order) else { return Ok(None) };
        let is_place = position::place(&entries) == Some(own);
        let meant = own.stamp() == stamp && own.stands() && !is_place;
        Ok(meant.then(|| (own.clone(), position::seen_by(device, &entries))))
    }
}

//! Reading: turning pages, and what becomes of it.
//!
//! # Invariants
//!
//! 1. Opening is not reading: a session without a page turn writes nothing.
//! 2. What the page engine reports while it restores the place is not a page turn.
//! 3. A page turn is durable when the call returns, and becomes a change when the session is closed,
//!    a minute later, with the next edit of the book, or at the next start.

use std::time::Instant;

use catchword_model::locator::Locator;
use catchword_model::position::Entry;
use catchword_store::{Motion, Turn, TurnReceipt};

use crate::book::{Book, check};
use crate::error::EditError;

/// Longest time that counts for one page, in seconds: who looks at a page for longer is elsewhere.
pub const PAGE_SECONDS_MAX: u32 = 300;

/// Somebody reads a book on this device. See the [crate documentation](crate).
///
/// Dropping it publishes the turns as [`close`](Self::close) does, silently.
#[derive(Debug)]
pub struct ReadingSession {
    book: Book,
    engine: String,
    place: Option<Entry>,
    restored: bool,
    turned: bool,
    /// Time the application counted since the last turn; measured here where it did not.
    spent_seconds: Option<u32>,
    last_turn: Instant,
}

impl ReadingSession {
    pub(crate) fn new(book: Book, engine: &str, place: Option<Entry>) -> Self {
        Self {
            book,
            engine: engine.to_owned(),
            place,
            restored: false,
            turned: false,
            spent_seconds: None,
            last_turn: Instant::now(),
        }
    }

    /// Returns where to open the book; `None` for its beginning.
    pub fn place(&self) -> Option<&Entry> {
        self.place.as_ref()
    }

    /// Says that the page engine shows the place, and that what it reports from now on is reading.
    pub fn restored(&mut self) {
        self.restored = true;
        self.last_turn = Instant::now();
    }

    /// Says how long the reader took since the last turn, instead of having it measured.
    pub fn spent(&mut self, seconds: u32) {
        self.spent_seconds = Some(self.spent_seconds.unwrap_or(0).saturating_add(seconds));
    }

    /// Records that a page was turned, forward or back, and returns when that is durable.
    ///
    /// The locator names the whole position in `total_ppm`. Before [`restored`](Self::restored) it is
    /// no page turn: nothing is recorded, and `None` returned.
    ///
    /// # Errors
    ///
    /// [`EditError::NoPlace`] without `total_ppm`; the turns before are kept.
    pub fn turned(&mut self, locator: Locator) -> Result<Option<TurnReceipt>, EditError> {
        self.moved(locator, Motion::Turned)
    }

    /// Records that the reader went somewhere else, by a link, a search or the table of contents.
    ///
    /// # Errors
    ///
    /// As [`turned`](Self::turned).
    pub fn jumped(&mut self, locator: Locator) -> Result<Option<TurnReceipt>, EditError> {
        self.moved(locator, Motion::Jumped)
    }

    /// Records that the reader began the book anew, there.
    ///
    /// # Errors
    ///
    /// As [`turned`](Self::turned).
    pub fn restarted(&mut self, locator: Locator) -> Result<Option<TurnReceipt>, EditError> {
        self.moved(locator, Motion::Restarted)
    }

    /// Ends the session and publishes its turns; returns whether there were any.
    ///
    /// # Errors
    ///
    /// [`EditError`]; the turns are kept, and published at the next start.
    pub fn close(mut self) -> Result<bool, EditError> {
        self.publish()
    }

    fn moved(
        &mut self,
        locator: Locator,
        motion: Motion,
    ) -> Result<Option<TurnReceipt>, EditError> {
        if !self.restored {
            return Ok(None);
        }
        let locator = match locator.engine() {
            Some(_) => locator,
            None => locator.with_engine(&self.engine),
        };
        check(&locator)?;
        let ppm = locator.total_ppm().ok_or(EditError::NoPlace)?;
        let from_ppm = self.place.as_ref().map_or(0, |place| place.position.ppm);
        let turn = Turn { locator, ppm, motion, seconds: self.seconds(), from_ppm };
        let core = self.book.core();
        let receipt = core.store.turn(self.book.id(), &turn, core.now_ms());
        let receipt = receipt.map_err(EditError::store)?;
        self.turned = true;
        self.spent_seconds = None;
        self.last_turn = Instant::now();
        self.book.library().keeper().turned(self.book.id());
        Ok(Some(receipt))
    }

    fn seconds(&self) -> u32 {
        self.spent_seconds.unwrap_or_else(|| {
            let measured = self.last_turn.elapsed().as_secs();
            u32::try_from(measured).unwrap_or(PAGE_SECONDS_MAX).min(PAGE_SECONDS_MAX)
        })
    }

    fn publish(&mut self) -> Result<bool, EditError> {
        if !std::mem::take(&mut self.turned) {
            return Ok(false);
        }
        self.book.library().keeper().published(self.book.id());
        self.book.core().publish(self.book.id())?;
        self.book.library().keeper().written();
        Ok(true)
    }
}

impl Drop for ReadingSession {
    fn drop(&mut self) {
        // What cannot be published now is kept, and published at the next start.
        let _kept = self.publish();
    }
}

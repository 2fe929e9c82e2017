//! A simulated device: the real store on two simulated disks, and what it was told is durable.
//!
//! ```text
//!                action acknowledged: the memory moves on
//!   +------------------------------------------------------+
//!   |                                                      v
//!  Open --- a write fails ---> Closed: every write is refused, what was acknowledged is read
//!   ^                            |
//!   |                            | reopened, by hand or after some refusals
//!   +---- kill, power cut -------+--> the store shows what was acknowledged, and the write that was
//!                                     in doubt either wholly or not at all
//! ```
//!
//! # Invariants
//!
//! 1. What was acknowledged is read after every opening, and after every failure as long as the disk
//!    can be read.
//! 2. An action is refused exactly when the plain state says so.
//! 3. Nothing opens slowly: redb's repair never runs on `library`, and no generation is started.
//!
//! # What is not here
//!
//! Other devices: changes come and go as bytes.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use catchword_model::hlc::Hlc;
use catchword_model::id::AnnotationId;
use catchword_model::meta::DeviceName;
use catchword_store::{
    AppendError, Backends, LoadError, OpenError, Options, Received, Repair, Store,
};

use crate::action::{Action, BOOKS, DiskName};
use crate::call::{Receipt, call, refusal_of};
use crate::disk::{BLOCK_BYTES, SimDisk};
use crate::memory::{
    Hint, Reading, Refusal, Seen, SeenBook, book_id, check_lists, difference, touched,
};
use crate::oracle::{self, Ledger};

/// Wall clock at which devices are made, in milliseconds since the Unix epoch.
pub const START_MS: u64 = 1_780_000_000_000;
/// Writes that a closed library refuses before somebody makes room and opens it again.
const REFUSALS_MAX: u32 = 2;

/// What happened to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were refused for what they ask.
    pub refused: u64,
    /// Writes that failed because of the disk.
    pub failed: u64,
    /// Writes that were refused because one before them had failed.
    pub closed: u64,
    /// Writes in doubt that were there afterwards.
    pub in_doubt_kept: u64,
    /// How often the process was killed.
    pub kills: u64,
    /// How often the power was cut.
    pub power_cuts: u64,
    /// How often the library was opened.
    pub opened: u64,
    /// How long opening took at most.
    pub slowest_open: Duration,
    /// How often opening failed, until the disk was mended.
    pub open_failed: u64,
    /// Records that were staged again at an opening.
    pub replayed: u64,
    /// Books whose turns were found waiting at an opening.
    pub turns_found: u64,
    /// Changes that came from other devices.
    pub received: u64,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Device {
    number: u8,
    wal: SimDisk,
    library: SimDisk,
    store: Option<Store>,
    now_ms: u64,
    /// What was acknowledged.
    certain: Seen,
    reading: Reading,
    /// The write that failed last, until the library is opened again.
    doubt: Option<Doubt>,
    closed: bool,
    refusals: u32,
    many: u64,
    tally: Tally,
}

#[derive(Debug)]
struct Doubt {
    action: Action,
    many: Vec<AnnotationId>,
}

impl Device {
    /// Makes a device with an empty library. Faults begin after this.
    ///
    /// # Errors
    ///
    /// What the store could not create.
    pub fn new(number: u8, seed: u64) -> anyhow::Result<Self> {
        let seed = seed.wrapping_mul(64).wrapping_add(u64::from(number) * 2);
        Self::on(number, SimDisk::new(seed), SimDisk::new(seed + 1))
    }

    fn on(number: u8, wal: SimDisk, library: SimDisk) -> anyhow::Result<Self> {
        let mut device = Self {
            number,
            wal,
            library,
            store: None,
            now_ms: START_MS,
            certain: Seen::default(),
            reading: Reading::new(),
            doubt: None,
            closed: false,
            refusals: 0,
            many: 0,
            tally: Tally::default(),
        };
        device.store = Some(device.try_open()?);
        Ok(device)
    }

    /// Returns a device with copies of the disks, as a killed process left them, and the same memory.
    ///
    /// # Errors
    ///
    /// What the copy could not open, or does not show.
    pub fn copy(&self, seed: u64) -> anyhow::Result<Self> {
        let mut copy = self.copy_closed(seed);
        copy.open()?;
        Ok(copy)
    }

    /// As [`copy`](Self::copy), before the library is opened.
    #[must_use]
    pub fn copy_closed(&self, seed: u64) -> Self {
        Self {
            number: self.number,
            wal: self.wal.copy(seed),
            library: self.library.copy(seed.wrapping_add(1)),
            store: None,
            now_ms: self.now_ms,
            certain: self.certain.clone(),
            reading: self.reading.clone(),
            doubt: None,
            closed: false,
            refusals: 0,
            many: self.many,
            tally: Tally::default(),
        }
    }

    /// Returns one of its disks.
    pub fn disk(&self, name: DiskName) -> &SimDisk {
        match name {
            DiskName::Wal => &self.wal,
            DiskName::Library => &self.library,
        }
    }

    /// Returns the store, unless it could not be opened.
    ///
    /// # Errors
    ///
    /// If the library is not open.
    pub fn store(&self) -> anyhow::Result<&Store> {
        self.store.as_ref().context("the library is not open")
    }

    /// Returns what happened so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns what was acknowledged.
    pub fn acknowledged(&self) -> &Seen {
        &self.certain
    }

    /// Returns whether a write failed since the library was opened.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Performs an action, and holds what the store says against what was acknowledged.
    ///
    /// `others` are the changes of the device that [`Action::Receive`] names.
    ///
    /// # Errors
    ///
    /// An invariant is broken.
    pub fn perform(&mut self, action: &Action, others: &[Received]) -> anyhow::Result<()> {
        self.now_ms += 1_000;
        match action {
            Action::Reopen => self.reopen(),
            Action::Kill => self.kill(),
            Action::PowerCut { disk, call } => {
                self.disk(*disk).cut_power_at_call(u64::from(*call));
                Ok(())
            }
            Action::Fail { disk, call, outage } => {
                self.disk(*disk).fail_call(u64::from(*call), *outage);
                Ok(())
            }
            Action::FullDisk { blocks } => {
                self.limit(Some(usize::from(*blocks) * BLOCK_BYTES));
                Ok(())
            }
            Action::Mend => {
                self.mend();
                Ok(())
            }
            Action::Annotate { .. }
            | Action::AnnotateMany { .. }
            | Action::EditNote { .. }
            | Action::Recolor { .. }
            | Action::Delete { .. }
            | Action::Undelete { .. }
            | Action::Tag { .. }
            | Action::Untag { .. }
            | Action::SetTitle { .. }
            | Action::Journal { .. }
            | Action::Turn { .. }
            | Action::Jump { .. }
            | Action::Restart { .. }
            | Action::Publish { .. }
            | Action::Drain
            | Action::Compact
            | Action::Import { .. }
            | Action::Receive { .. } => self.write(action, others),
        }
        .with_context(|| format!("device {}: {action:?}", self.number))
    }

    /// Returns how many calls the disks made fail since their counts began.
    pub fn failures(&self) -> u64 {
        self.wal.counts().failures + self.library.counts().failures
    }

    /// Takes the limits of the disks and every planned failure back.
    pub fn mend(&mut self) {
        self.limit(None);
        self.wal.repair();
        self.library.repair();
    }

    /// Leaves both disks that many bytes.
    pub fn limit(&self, free_bytes: Option<usize>) {
        self.wal.set_free_bytes(free_bytes);
        self.library.set_free_bytes(free_bytes);
    }

    fn write(&mut self, action: &Action, others: &[Received]) -> anyhow::Result<()> {
        let many = self.new_annotations(action);
        let expected = self.certain.refusal(action);
        let was_closed = self.closed;
        match call(self.store()?, action, &many, others, self.now_ms)? {
            Ok(receipt) => self.acknowledge(action, receipt, &many, was_closed, expected)?,
            Err(AppendError::Io(cause)) => {
                ensure!(!was_closed, "a closed library reports a new failure: {cause}");
                ensure!(0 < self.failures(), "a good disk is said to fail: {cause}");
                self.tally.failed += 1;
                self.closed = true;
                self.doubt = Some(Doubt { action: action.clone(), many });
                self.after_failure()?;
            }
            Err(error @ AppendError::Closed) => {
                let advice = error.to_string();
                ensure!(advice.contains("must be reopened"), "no advice: {advice}");
                self.tally.closed += 1;
                self.refusals += 1;
                self.closed = true;
                self.after_failure()?;
            }
            Err(error) => {
                let found = refusal_of(&error);
                ensure!(found.is_some() && found == expected, "{error} instead of {expected:?}");
                self.tally.refused += 1;
            }
        }
        self.notice_power_cut()?;
        if REFUSALS_MAX <= self.refusals {
            self.mend();
            self.reopen()?;
        }
        Ok(())
    }

    fn acknowledge(
        &mut self,
        action: &Action,
        receipt: Receipt,
        many: &[AnnotationId],
        was_closed: bool,
        expected: Option<Refusal>,
    ) -> anyhow::Result<()> {
        ensure!(expected.is_none(), "done, although it must be refused: {expected:?}");
        // A closed library may say that there is nothing to do.
        ensure!(!was_closed || *action == Action::Drain, "a closed library accepted a write");
        self.tally.acknowledged += 1;
        if matches!(action, Action::Receive { .. }) {
            self.tally.received += receipt.added;
            // What arrived is read from the rows, and the disk may refuse that.
            return match self.merged() {
                Ok(merged) => {
                    self.certain = merged;
                    Ok(())
                }
                Err(error) => {
                    disk_error(error)?;
                    self.doubt = Some(Doubt { action: action.clone(), many: Vec::new() });
                    self.restart()
                }
            };
        }
        let hint = Hint { stamp: receipt.stamp, many };
        self.certain = self.certain.after(action, hint, &self.reading);
        self.read_on(action);
        self.check_touched(action)
    }

    /// Adds up seconds and turns as the store must.
    fn read_on(&mut self, action: &Action) {
        let Some(book) = touched(action) else { return };
        if let Action::Turn { seconds, .. } = action {
            let reading = self.reading.entry(book).or_default();
            *reading = (reading.0 + u64::from(*seconds), reading.1 + 1);
        } else if matches!(action, Action::Jump { .. } | Action::Restart { .. }) {
            self.reading.entry(book).or_default().1 += 1;
        } else {
            self.reading.remove(&book);
        }
    }

    /// Reads what is there after changes of others came: the rows decide, and the oracle judges them.
    fn merged(&self) -> anyhow::Result<Seen> {
        let store = self.store()?;
        let mut known = self.certain.clone();
        for book in 0..BOOKS {
            let id = book_id(book);
            if store.heads(id.document())?.is_none() {
                continue;
            }
            let found = known.books.entry(book).or_default();
            store.annotations(id, 0, u32::MAX, |shown| {
                let seen = crate::memory::seen(&shown);
                found.annotations.insert(shown.id, seen);
            })?;
        }
        let merged = Seen::read(store, &known)?;
        for (book, before) in &self.certain.books {
            let after = merged.books.get(book).context("a book is gone")?;
            let own = |book: &SeenBook| (book.place, book.pending, book.events);
            ensure!(own(before) == own(after), "book {book}: what is this device's own changed");
            let lost = before.annotations.keys().find(|id| !after.annotations.contains_key(id));
            ensure!(lost.is_none(), "book {book}: annotation {lost:?} is gone");
        }
        Ok(merged)
    }

    fn new_annotations(&mut self, action: &Action) -> Vec<AnnotationId> {
        let Action::AnnotateMany { count, .. } = action else { return Vec::new() };
        let first = self.many;
        self.many += u64::from(*count);
        (first..self.many).map(|n| AnnotationId::new(n, [self.number ^ 0xFF; 10])).collect()
    }

    /// Invariant 1: what is read after a failure is what was acknowledged, or an error.
    fn after_failure(&mut self) -> anyhow::Result<()> {
        // What others sent arrives in several transactions: some of it may be there.
        let receives = |doubt: &Doubt| matches!(doubt.action, Action::Receive { .. });
        let receives = self.doubt.as_ref().is_some_and(receives);
        let found = if receives { self.merged() } else { Seen::read(self.store()?, &self.certain) };
        match found {
            Ok(found) if receives => self.certain = found,
            Ok(found) => {
                self.notice_published(&found);
                expect(&found, &self.certain).context("after a failed write")?;
            }
            Err(error) => disk_error(error)?,
        }
        check_lists(self.store()?, &self.certain)
            .or_else(disk_error)
            .context("after a failed write")
    }

    /// Turns are published before many changes are made, and stay so if those fail.
    fn notice_published(&mut self, found: &Seen) {
        let Some(Doubt { action, .. }) = &self.doubt else { return };
        let many = matches!(action, Action::AnnotateMany { .. } | Action::Import { .. });
        let published = self.certain.published(action, &self.reading);
        if many && *found == published {
            let action = action.clone();
            self.certain = published;
            self.read_on(&action);
        }
    }

    fn check_touched(&self, action: &Action) -> anyhow::Result<()> {
        let store = self.store()?;
        let Some(book) = touched(action) else { return Ok(()) };
        let mut expected = Seen::default();
        let certain = self.certain.books.get(&book).context("a book was acknowledged")?;
        expected.books.insert(book, certain.clone());
        let found = match Seen::read(store, &expected) {
            Ok(mut found) => {
                found.books.retain(|of, _| *of == book);
                found
            }
            // Moving what waits may have failed after the acknowledgement.
            Err(error) => return disk_error(error),
        };
        expect(&found, &expected).context("after it was acknowledged")
    }

    /// A power cut takes both disks at once.
    fn notice_power_cut(&mut self) -> anyhow::Result<()> {
        if self.has_power() { Ok(()) } else { self.restart() }
    }

    fn has_power(&self) -> bool {
        self.wal.has_power() && self.library.has_power()
    }

    /// Cuts the power now, and opens the library when it is back.
    ///
    /// # Errors
    ///
    /// An invariant is broken.
    pub fn cut_power(&mut self) -> anyhow::Result<()> {
        self.wal.cut_power();
        self.restart()
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.tally.kills += 1;
        self.restart()
    }

    /// Drops the memory of the process, and nothing else, and opens the library.
    fn restart(&mut self) -> anyhow::Result<()> {
        self.switch_off();
        self.store = None;
        self.open()
    }

    /// Cuts off what has the disks open, so that nothing is written while memory is dropped.
    fn switch_off(&mut self) {
        if self.has_power() {
            drop((self.wal.reopen(), self.library.reopen()));
        } else {
            self.wal.cut_power();
            self.library.cut_power();
            self.tally.power_cuts += 1;
        }
    }

    fn reopen(&mut self) -> anyhow::Result<()> {
        if let Some(store) = self.store.take() {
            match store.close() {
                Ok(()) | Err(AppendError::Io(_) | AppendError::Closed) => (),
                Err(error) => bail!("closing fails: {error}"),
            }
        }
        self.restart()
    }

    fn try_open(&mut self) -> Result<Store, OpenError> {
        self.tally.opened += 1;
        let name = DeviceName { name: format!("device {}", self.number), ..DeviceName::default() };
        let options =
            Options { public_key_spki: vec![self.number; 44], device: name, now_ms: self.now_ms };
        let backends = Backends { wal: self.wal.reopen(), library: self.library.reopen() };
        let begun = Instant::now();
        let opened = Store::open_on(backends, &options);
        self.tally.slowest_open = self.tally.slowest_open.max(begun.elapsed());
        opened
    }

    /// Opens the library, with the disk mended if need be, and looks whether everything is there.
    ///
    /// # Errors
    ///
    /// An invariant is broken.
    pub fn open(&mut self) -> anyhow::Result<()> {
        match self.open_once() {
            Ok(()) => return Ok(()),
            Err(error) => disk_error(error)?,
        }
        self.tally.open_failed += 1;
        self.switch_off();
        self.store = None;
        self.mend();
        self.open_once().context("although the disk is mended")
    }

    fn open_once(&mut self) -> anyhow::Result<()> {
        let store = self.try_open().map_err(anyhow::Error::from).context("it does not open")?;
        let opened = *store.opened();
        ensure!(!opened.library_repaired, "redb walked through `library`");
        ensure!(opened.new_generation.is_none(), "a new generation: {:?}", opened.new_generation);
        self.tally.replayed += opened.replayed as u64;
        self.tally.turns_found += opened.pending_turns as u64;
        self.store = Some(store);
        (self.closed, self.refusals) = (false, 0);
        self.settle()
    }

    /// Finds out what became of the write in doubt: it is there, or it is not, and all else is.
    fn settle(&mut self) -> anyhow::Result<()> {
        let store = self.store()?;
        let Some(Doubt { action, many }) = &self.doubt else {
            let found = Seen::read(store, &self.certain)?;
            return expect(&found, &self.certain).context("after opening");
        };
        if matches!(action, Action::Receive { .. }) {
            self.certain = self.merged()?;
            self.doubt = None;
            return Ok(());
        }
        let turn = touched(action).and_then(|book| store.pending_turn(book_id(book)));
        let stamp = turn.map_or(Hlc::ZERO, |(stamp, _, _)| stamp);
        let made = self.certain.after(action, Hint { stamp, many }, &self.reading);
        let found = Seen::read(store, &made)?;
        let action = action.clone();
        if found == made && found != self.certain {
            self.tally.in_doubt_kept += 1;
            self.certain = made;
            self.read_on(&action);
        } else {
            self.notice_published(&found);
        }
        self.doubt = None;
        expect(&found, &self.certain).with_context(|| format!("{action:?} was in doubt"))
    }

    /// Reads every list, and holds every book against the plain reference and Automerge.
    ///
    /// # Errors
    ///
    /// An invariant is broken.
    pub fn check(&self, ledger: &mut Ledger) -> anyhow::Result<()> {
        let store = self.store()?;
        check_lists(store, &self.certain)?;
        let report = store.check(Repair::ReportOnly, &mut |_| ControlFlow::Continue(()))?;
        ensure!(report.is_clean(), "the check is not clean: {report:#?}");
        for book in self.certain.books.keys() {
            oracle::check(store, book_id(*book)).with_context(|| format!("book {book}"))?;
            ledger.note(store, book_id(*book))?;
        }
        Ok(())
    }

    /// Returns every change this device has, as it would send them.
    ///
    /// # Errors
    ///
    /// What the store could not read.
    pub fn changes(&self) -> anyhow::Result<Vec<Received>> {
        let store = self.store()?;
        let mut all = Vec::new();
        for book in self.certain.books.keys() {
            let id = book_id(*book);
            for document in [id.document(), id.notes_document()] {
                if store.heads(document)?.is_some() {
                    let changes = oracle::changes(store, document)?;
                    all.extend(
                        changes
                            .iter()
                            .map(|change| Received { document, bytes: change.bytes().to_vec() }),
                    );
                }
            }
        }
        Ok(all)
    }
}

fn expect(found: &Seen, expected: &Seen) -> anyhow::Result<()> {
    ensure!(found == expected, difference(found, expected));
    Ok(())
}

/// Passes on an error that is not the disk's.
fn disk_error(error: anyhow::Error) -> anyhow::Result<()> {
    let reading = matches!(error.downcast_ref(), Some(LoadError::Io(_)));
    let opening = matches!(error.downcast_ref(), Some(OpenError::Io(_)));
    if reading || opening { Ok(()) } else { Err(error) }
}

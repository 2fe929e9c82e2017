//! A disk that loses power, fills up, fails, rots and lies, as often as a seed says.
//!
//! [`SimDisk`] is a handle that stays with the test; redb owns a [`SimBackend`] of it. What redb has
//! written since the last flush is kept apart from what it has flushed, and only a power cut decides
//! what of it the medium has.
//!
//! ```text
//!             reopen: a killed process            cut_power, or the call that cut_power_at_call names
//!   On -------------------------------> On ------------------------------------------------> Off
//!    ^                                                                                        |
//!    +----------------------------------------------------------------------------------------+
//!                                               reopen
//! ```
//!
//! # Invariants
//!
//! 1. What an honest flush has acknowledged is on the medium, whatever happens afterwards, except
//!    where bits are flipped on purpose.
//! 2. Of a write that was not flushed, any subset of its sectors of [`SECTOR_BYTES`] may be on the
//!    medium after a power cut. Writes between two changes of the length may arrive in any order.
//! 3. Changes of the length arrive in their order; the last ones may be missing.
//! 4. One seed and one sequence of calls give one outcome.
//! 5. A backend from before a power cut or a [`reopen`](SimDisk::reopen) never touches the disk
//!    again: every call fails.
//!
//! # What is not here
//!
//! Time. A call takes none.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::{BackendError, StorageBackend};

/// What a disk writes wholly or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// What a file system hands out at a time, in bytes.
pub const BLOCK_BYTES: usize = 4_096;

/// Longest file. A longer one would only exhaust the memory of the test.
pub const FILE_BYTES_MAX: u64 = 4 << 30;

/// Handle of a simulated disk with one file. Clones are handles of the same disk.
///
/// # Examples
///
/// ```
/// use catchword_sim::disk::SimDisk;
/// use redb::StorageBackend;
///
/// let disk = SimDisk::new(7);
/// let backend = disk.backend();
/// backend.set_len(4_096)?;
/// backend.write(0, b"flushed")?;
/// backend.sync_data()?;
///
/// disk.cut_power();
/// assert!(backend.read(0, &mut [0; 7]).is_err());
///
/// let mut survived = [0; 7];
/// disk.reopen().read(0, &mut survived)?;
/// assert_eq!(&survived, b"flushed");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What redb owns: one opening of the disk.
#[derive(Debug)]
pub struct SimBackend {
    state: Arc<Mutex<State>>,
    epoch: u64,
    id: u64,
}

/// How often the disk was called since it was made or [`SimDisk::reset_counts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of any kind, those that failed included.
    pub calls: u64,
    /// Questions for the length.
    pub lens: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub syncs: u64,
    /// Changes of the length.
    pub set_lens: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Calls that were made to fail, by a fault or a full disk.
    pub failures: u64,
}

/// What a flush is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushes {
    /// What was written before it is on the medium when it returns.
    Honest,
    /// It returns and has done nothing: a disk that lies.
    Ignored,
}

/// How long a disk that has failed once goes on failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// For that one call.
    Once,
    /// For that call and all later ones, until [`SimDisk::repair`].
    Lasting,
}

impl SimDisk {
    /// Makes an empty disk with power, room and honest flushes.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: ChaCha8Rng::seed_from_u64(seed),
            medium: Vec::new(),
            live: Vec::new(),
            unflushed: Vec::new(),
            allocated: BTreeSet::new(),
            free_bytes: None,
            flushes: Flushes::Honest,
            fault: None,
            counts: Counts::default(),
            power: Power::On,
            epoch: 0,
            next_id: 0,
            holder: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Returns a backend for redb.
    ///
    /// Backends of one disk exclude each other as processes do: while redb holds one, it refuses to
    /// open a second. After a power cut every call of it fails until [`reopen`](Self::reopen).
    pub fn backend(&self) -> SimBackend {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        SimBackend { state: Arc::clone(&self.state), epoch: state.epoch, id }
    }

    /// Turns the power on if it is off, cuts every earlier backend off, and returns a fresh one.
    ///
    /// Without a power cut before it, this is what a killed process leaves: all that was written is
    /// there, but what was not flushed can still be lost to a power cut.
    pub fn reopen(&self) -> SimBackend {
        let mut state = self.lock();
        state.power = Power::On;
        state.epoch += 1;
        state.holder = None;
        drop(state);
        self.backend()
    }

    /// Cuts the power: what was not flushed is dropped, kept, reordered or torn, as the seed says.
    ///
    /// A plan of a later fault is forgotten.
    pub fn cut_power(&self) {
        self.lock().cut_power();
    }

    /// Cuts the power at the `nth` call from now, counted from 1; a write may still land in part.
    ///
    /// Replaces an earlier plan. Whether it has come to that, [`has_power`](Self::has_power) says.
    pub fn cut_power_at_call(&self, nth: u64) {
        self.lock().plan(nth, FaultKind::PowerCut);
    }

    /// Lets the `nth` call from now, counted from 1, fail with an I/O error.
    ///
    /// A write that fails so may have landed in part; a flush has flushed nothing. Replaces an
    /// earlier plan.
    pub fn fail_call(&self, nth: u64, outage: Outage) {
        self.lock().plan(nth, FaultKind::Failure(outage));
    }

    /// Takes the plan of [`fail_call`](Self::fail_call) or
    /// [`cut_power_at_call`](Self::cut_power_at_call) back.
    pub fn repair(&self) {
        self.lock().fault = None;
    }

    /// Limits how many bytes more the file system hands out, in blocks of [`BLOCK_BYTES`]; `None`
    /// for no limit.
    ///
    /// A block is taken by the first write to it, not by making the file longer, and comes back when
    /// the file is made shorter. A write that does not fit lands as far as it fits and fails with
    /// [`io::ErrorKind::StorageFull`].
    pub fn set_free_bytes(&self, free_bytes: Option<usize>) {
        self.lock().free_bytes = free_bytes;
    }

    /// Says what a flush is worth from now on.
    pub fn set_flushes(&self, flushes: Flushes) {
        self.lock().flushes = flushes;
    }

    /// Flips `count` bits at random places, on the medium and in what is read.
    ///
    /// Does nothing to an empty file.
    pub fn flip_bits(&self, count: usize) {
        let mut state = self.lock();
        for _ in 0..count {
            let length = state.live.len();
            if length == 0 {
                return;
            }
            let at = state.random.random_range(0..length);
            let bit = state.random.random_range(0..8_u8);
            state.flip_bit(at, bit);
        }
    }

    /// Flips one bit, on the medium and in what is read: `bit` 0 to 7 of the byte at `offset`.
    ///
    /// Does nothing beyond the end of the file.
    pub fn flip_bit(&self, offset: usize, bit: u8) {
        self.lock().flip_bit(offset, bit);
    }

    /// Returns another disk with the same file, as a killed process would find it: on, with everything
    /// written and flushed, with room, and without a plan.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        let state = self.lock();
        let mut other = copy.lock();
        other.medium.clone_from(&state.live);
        other.live.clone_from(&state.live);
        other.allocated.clone_from(&state.allocated);
        drop((state, other));
        copy
    }

    /// Returns how often the disk was called.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Begins to count anew. A plan keeps its place.
    pub fn reset_counts(&self) {
        let mut state = self.lock();
        let done = state.counts.calls;
        if let Some(fault) = &mut state.fault {
            fault.at_call = fault.at_call.saturating_sub(done);
        }
        state.counts = Counts::default();
    }

    /// Returns whether the power is on.
    pub fn has_power(&self) -> bool {
        self.lock().power == Power::On
    }

    /// Returns how many bytes the file system has handed out.
    pub fn allocated_bytes(&self) -> usize {
        self.lock().allocated.len() * BLOCK_BYTES
    }

    /// Returns what a power cut that drops everything unflushed would leave.
    pub fn flushed(&self) -> Vec<u8> {
        self.lock().medium.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        let mut state = lock(&self.state);
        state.counts.lens += 1;
        state.begin(self.epoch)?;
        Ok(state.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.counts.reads += 1;
        state.counts.bytes_read += out.len() as u64;
        state.begin(self.epoch)?;
        out.copy_from_slice(window(&mut state.live, to_index(offset)?, out.len())?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.counts.set_lens += 1;
        state.begin(self.epoch)?;
        state.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.counts.syncs += 1;
        state.begin(self.epoch)?;
        state.flush();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.counts.writes += 1;
        state.counts.bytes_written += data.len() as u64;
        let offset = to_index(offset)?;
        match state.admit(self.epoch) {
            Admission::Granted => state.write(offset, data),
            Admission::Fails => {
                state.write_in_part(offset, data)?;
                Err(failure())
            }
            Admission::CutsPower => {
                state.write_in_part(offset, data)?;
                state.cut_power();
                Err(no_power())
            }
            Admission::Gone => Err(no_power()),
        }
    }

    fn close(&self) -> io::Result<()> {
        self.release();
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        check_whole(start, end)?;
        let mut state = lock(&self.state);
        if state.epoch != self.epoch || state.holder.is_some() {
            return Ok(false);
        }
        state.holder = Some(self.id);
        Ok(true)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        check_whole(start, end)?;
        self.release();
        Ok(())
    }
}

impl SimBackend {
    fn release(&self) {
        let mut state = lock(&self.state);
        if state.holder == Some(self.id) {
            state.holder = None;
        }
    }
}

#[derive(Debug)]
struct State {
    random: ChaCha8Rng,
    /// What is on the medium for certain.
    medium: Vec<u8>,
    /// Invariant: `medium` with everything in `unflushed` applied.
    live: Vec<u8>,
    unflushed: Vec<Unflushed>,
    /// Numbers of the blocks that were ever written and are still within the file.
    allocated: BTreeSet<usize>,
    free_bytes: Option<usize>,
    flushes: Flushes,
    fault: Option<Fault>,
    counts: Counts,
    power: Power,
    epoch: u64,
    next_id: u64,
    /// The backend that holds the lock of the file.
    holder: Option<u64>,
}

#[derive(Debug)]
enum Unflushed {
    Write(Piece),
    SetLen(usize),
}

#[derive(Debug)]
struct Piece {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    /// In the count of [`Counts::calls`].
    at_call: u64,
    kind: FaultKind,
}

#[derive(Debug, Clone, Copy)]
enum FaultKind {
    PowerCut,
    Failure(Outage),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Off,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
enum Admission {
    Granted,
    Fails,
    CutsPower,
    Gone,
}

/// What a power cut makes of a write.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Dropped,
    Kept,
    Torn,
}

impl State {
    fn plan(&mut self, nth: u64, kind: FaultKind) {
        self.fault = Some(Fault { at_call: self.counts.calls.saturating_add(nth), kind });
    }

    fn admit(&mut self, epoch: u64) -> Admission {
        self.counts.calls += 1;
        if self.power == Power::Off || self.epoch != epoch {
            return Admission::Gone;
        }
        let Some(fault) = self.fault.filter(|fault| fault.at_call <= self.counts.calls) else {
            return Admission::Granted;
        };
        self.counts.failures += 1;
        match fault.kind {
            FaultKind::PowerCut => {
                self.fault = None;
                Admission::CutsPower
            }
            FaultKind::Failure(Outage::Once) => {
                self.fault = None;
                Admission::Fails
            }
            FaultKind::Failure(Outage::Lasting) => Admission::Fails,
        }
    }

    /// Admits a call that leaves nothing behind when it fails.
    fn begin(&mut self, epoch: u64) -> io::Result<()> {
        match self.admit(epoch) {
            Admission::Granted => Ok(()),
            Admission::Fails => Err(failure()),
            Admission::CutsPower => {
                self.cut_power();
                Err(no_power())
            }
            Admission::Gone => Err(no_power()),
        }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if FILE_BYTES_MAX < len {
            self.counts.failures += 1;
            return Err(full());
        }
        let len = to_index(len)?;
        if len < self.live.len() {
            let kept = self.allocated.split_off(&len.div_ceil(BLOCK_BYTES));
            let freed = kept.len() * BLOCK_BYTES;
            self.free_bytes = self.free_bytes.map(|free| free.saturating_add(freed));
        }
        self.live.resize(len, 0);
        self.unflushed.push(Unflushed::SetLen(len));
        Ok(())
    }

    fn write(&mut self, offset: usize, data: &[u8]) -> io::Result<()> {
        window(&mut self.live, offset, data.len())?;
        let fitting = self.allocate(offset, data.len());
        let landed = data.get(..fitting).unwrap_or(data);
        window(&mut self.live, offset, landed.len())?.copy_from_slice(landed);
        self.unflushed.push(Unflushed::Write(Piece { offset, bytes: landed.to_vec() }));
        if landed.len() < data.len() {
            self.counts.failures += 1;
            return Err(full());
        }
        Ok(())
    }

    /// Lands nothing, all, or a beginning.
    fn write_in_part(&mut self, offset: usize, data: &[u8]) -> io::Result<()> {
        let landed = match self.random.random_range(0..3_u8) {
            0 => 0,
            1 => data.len(),
            _ => self.random.random_range(0..=data.len()),
        };
        self.write(offset, data.get(..landed).unwrap_or(data))
    }

    /// Takes the blocks that a write needs, and returns how many of its bytes have one.
    fn allocate(&mut self, offset: usize, length: usize) -> usize {
        let end = offset.saturating_add(length);
        for block in offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            if self.allocated.contains(&block) {
                continue;
            }
            if let Some(free) = self.free_bytes {
                let Some(left) = free.checked_sub(BLOCK_BYTES) else {
                    return (block * BLOCK_BYTES).saturating_sub(offset);
                };
                self.free_bytes = Some(left);
            }
            self.allocated.insert(block);
        }
        length
    }

    fn flush(&mut self) {
        match self.flushes {
            Flushes::Ignored => (),
            Flushes::Honest => {
                for change in std::mem::take(&mut self.unflushed) {
                    match change {
                        Unflushed::Write(piece) => land(&mut self.medium, &piece),
                        Unflushed::SetLen(len) => self.medium.resize(len, 0),
                    }
                }
            }
        }
    }

    /// Decides what of the unflushed writes is on the medium. Some cuts are clean.
    fn cut_power(&mut self) {
        let unflushed = std::mem::take(&mut self.unflushed);
        let lengths = unflushed.iter().filter(|c| matches!(c, Unflushed::SetLen(_))).count();
        let (only, mut lengths_left) = match self.random.random_range(0..8_u8) {
            0 => (Some(Fate::Dropped), 0),
            1 => (Some(Fate::Kept), lengths),
            _ => (None, self.random.random_range(0..=lengths)),
        };
        let mut in_flight = Vec::new();
        for change in unflushed {
            match change {
                Unflushed::Write(piece) => {
                    let fate = only.unwrap_or_else(|| self.fate());
                    in_flight.extend(self.remains(piece, fate));
                }
                Unflushed::SetLen(len) => {
                    self.land_in_any_order(&mut in_flight);
                    if 0 < lengths_left {
                        lengths_left -= 1;
                        self.medium.resize(len, 0);
                    }
                }
            }
        }
        self.land_in_any_order(&mut in_flight);
        self.live = self.medium.clone();
        self.power = Power::Off;
        self.fault = None;
    }

    fn fate(&mut self) -> Fate {
        match self.random.random_range(0..3_u8) {
            0 => Fate::Dropped,
            1 => Fate::Kept,
            _ => Fate::Torn,
        }
    }

    /// Returns what is left of a write: nothing, all of it, or some of its sectors.
    fn remains(&mut self, piece: Piece, fate: Fate) -> Vec<Piece> {
        match fate {
            Fate::Dropped => Vec::new(),
            Fate::Kept => vec![piece],
            Fate::Torn => {
                let mut sectors = sectors(&piece);
                sectors.retain(|_| self.random.random_bool(0.5));
                sectors
            }
        }
    }

    fn land_in_any_order(&mut self, pieces: &mut Vec<Piece>) {
        if self.random.random_bool(0.5) {
            pieces.shuffle(&mut self.random);
        }
        for piece in pieces.drain(..) {
            land(&mut self.medium, &piece);
        }
    }

    fn flip_bit(&mut self, offset: usize, bit: u8) {
        for bytes in [&mut self.medium, &mut self.live] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1_u8.rotate_left(bit.into());
            }
        }
    }
}

/// Cuts a write where the sectors of the disk begin.
fn sectors(piece: &Piece) -> Vec<Piece> {
    let mut sectors = Vec::new();
    let mut rest = piece.bytes.as_slice();
    let mut offset = piece.offset;
    while !rest.is_empty() {
        let length = (SECTOR_BYTES - offset % SECTOR_BYTES).min(rest.len());
        let (sector, after) = rest.split_at(length);
        sectors.push(Piece { offset, bytes: sector.to_vec() });
        rest = after;
        offset += length;
    }
    sectors
}

/// Puts a write on the medium, as far as the file reaches.
fn land(medium: &mut [u8], piece: &Piece) {
    let place = medium.get_mut(piece.offset..).unwrap_or_default();
    for (byte, written) in place.iter_mut().zip(&piece.bytes) {
        *byte = *written;
    }
}

fn window(bytes: &mut [u8], offset: usize, length: usize) -> io::Result<&mut [u8]> {
    offset
        .checked_add(length)
        .and_then(|end| bytes.get_mut(offset..end))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the file"))
}

fn to_index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn check_whole(start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
    match (start, end) {
        (Bound::Unbounded | Bound::Included(0), Bound::Unbounded) => Ok(()),
        _ => Err(BackendError::Unsupported),
    }
}

fn failure() -> io::Error {
    io::Error::other("simulated failure of the disk")
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "simulated disk is full")
}

fn no_power() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "simulated power is off")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

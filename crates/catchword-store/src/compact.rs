//! Compaction: consecutive changes of a writer become a block, and the file gives back what is free.
//!
//! # Invariants
//!
//! 1. Lossless: every change keeps its bytes, its hash and its local sequence.
//! 2. Every change can be read from what is durable at every instant. A block and the chain entry
//!    that names it are committed and read back before the changes it covers are deleted; a crash in
//!    between leaves changes that the block already contains, and readers recognise them.
//! 3. A block is closed by bytes, never by count.
//! 4. Memory does not grow with the book: one batch, and what lies within the span of a block.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use catchword_model::change::Change;
use catchword_model::id::{ActorId, ChangeHash};

use crate::block::{Packer, Run};
use crate::chain::Chain;
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::log::{Found, Logged, Ordered, SPAN_BYTES_MAX, is_block, read_record};
use crate::progress::{End, OnProgress, Progress, Step};
use crate::shrink::disk_bytes;
use crate::snapshot::Snapshot;
use crate::{Inner, Store, tables};

/// A block of this size is left as it is.
const SETTLED_BYTES: usize = 12_000;
/// Blocks of one transaction, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// What compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactReport {
    /// Whether it came to its end.
    pub end: End,
    /// Changes that were moved into blocks.
    pub changes: u64,
    /// Blocks that were written.
    pub blocks: u64,
    /// Records of the log that do not read, and were left as they are. `check` names them.
    pub damaged: u64,
    /// What the library file took on disk before, in bytes; 0 if it is no file.
    pub bytes_before: u64,
    /// What the library file takes on disk afterwards, in bytes; 0 if it is no file.
    pub bytes_after: u64,
}

impl Store {
    /// Packs the log into blocks and gives free pages back to the file system.
    ///
    /// Other calls wait meanwhile. When `progress` says so it stops between two transactions; what is
    /// packed by then stays so, and nothing is ever lost.
    ///
    /// # Errors
    ///
    /// [`AppendError::Corrupt`] if a block did not come back as it was written: the changes it was
    /// made of stand where they stood. [`AppendError::Io`] if the disk refused: if that was while
    /// giving free pages back, the library works on, else it must be reopened.
    pub fn compact(&self, progress: OnProgress<'_>) -> Result<CompactReport, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let mut report =
            CompactReport { bytes_before: self.library_bytes(), ..CompactReport::default() };
        let ended = Compaction::new(&mut inner, progress)?.run(&mut report)?;
        if ended.is_break() {
            report.end = End::Stopped;
        } else if let Some(folder) = self.folder() {
            inner.shrink(folder, progress)?;
        }
        report.bytes_after = self.library_bytes();
        Ok(report)
    }

    fn library_bytes(&self) -> u64 {
        let path = self.folder().map(|folder| folder.join(crate::LIBRARY_FILE));
        path.and_then(|path| disk_bytes(&path).ok()).unwrap_or(0)
    }
}

/// Changes that one record of the log holds; never cut apart.
struct Unit {
    changes: Vec<(u64, Change)>,
    record: u64,
    chain: Chain,
    /// Bytes of the document's changes before its first, and up to its last.
    begins: usize,
    ends: usize,
}

/// What is collected for the next block of one writer.
#[derive(Default)]
struct Open {
    /// A record whose changes have not all come yet, and where it begins.
    partial: Vec<(u64, Change)>,
    partial_begins: usize,
    run: Run,
    units: VecDeque<Unit>,
}

/// A block, and what it replaces.
struct Rewrite {
    number: u32,
    writer: u16,
    key: u64,
    record: Vec<u8>,
    chain: Chain,
    /// For each record: its local sequence, the first number in it, and its chain entry.
    replaced: Vec<(u64, u32, Chain)>,
    members: Vec<(u64, ChangeHash)>,
    /// What stands under `key` until then.
    record_before: Vec<u8>,
}

/// One document while it is read.
struct Document {
    number: u32,
    disk: Snapshot,
    writers: BTreeMap<ActorId, u16>,
    open: BTreeMap<u16, Open>,
    /// Bytes of the changes that were read.
    bytes: usize,
    /// Where runs were last looked through for those that cannot grow any more.
    swept: usize,
}

struct Compaction<'a> {
    inner: &'a mut Inner,
    progress: OnProgress<'a>,
    packer: Packer,
    batch: Vec<Rewrite>,
    batch_bytes: usize,
    /// Records that a block contains which was read back.
    removals: Vec<(u32, u64)>,
    done: u64,
    total: u64,
}

impl<'a> Compaction<'a> {
    fn new(inner: &'a mut Inner, progress: OnProgress<'a>) -> Result<Self, AppendError> {
        use redb::ReadableTableMetadata as _;

        let (_, disk) = inner.parts()?;
        let total = disk.log.len().map_err(load)?;
        let packer = Packer::new()?;
        let (batch, removals) = (Vec::new(), Vec::new());
        Ok(Self { inner, progress, packer, batch, batch_bytes: 0, removals, done: 0, total })
    }

    fn run(mut self, report: &mut CompactReport) -> Result<ControlFlow<()>, AppendError> {
        for number in self.numbers()? {
            let flow = self.document(number, report)?;
            if flow.is_break() || self.tell().is_break() {
                self.settle(report)?;
                return Ok(ControlFlow::Break(()));
            }
        }
        self.settle(report)?;
        Ok(ControlFlow::Continue(()))
    }

    fn numbers(&mut self) -> Result<Vec<u32>, LoadError> {
        let (_, disk) = self.inner.parts()?;
        let books = disk.books.range::<u32>(..).map_err(load)?;
        books.map(|found| found.map(|(number, _)| number.value()).map_err(load)).collect()
    }

    fn tell(&mut self) -> ControlFlow<()> {
        let (done, total) = (self.done.min(self.total), self.total);
        (self.progress)(Progress { step: Step::Packing, done, total })
    }

    fn document(
        &mut self,
        number: u32,
        report: &mut CompactReport,
    ) -> Result<ControlFlow<()>, AppendError> {
        let mut document = Document::open(&self.inner.library, number)?;
        let (records, loose) = document.count_records()?;
        if loose < 2 {
            self.done += records;
            return Ok(ControlFlow::Continue(()));
        }
        let mut log = Ordered::of(&document.disk, number)?;
        while let Some(found) = log.next()? {
            match found {
                Found::Change(logged) => {
                    self.done += u64::from(logged.sequence == logged.record);
                    self.take(&mut document, *logged)?;
                }
                Found::Leftover(logged) => {
                    if document.is_leftover(&logged)? {
                        self.removals.push((number, logged.record));
                    }
                }
                Found::Damaged(_, _) => report.damaged += 1,
            }
            if BATCH_BYTES <= self.batch_bytes {
                self.commit(report)?;
                if self.tell().is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        for writer in document.open.keys().copied().collect::<Vec<_>>() {
            self.close(&mut document, writer)?;
        }
        if BATCH_BYTES <= self.batch_bytes {
            self.commit(report)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take(&mut self, document: &mut Document, logged: Logged) -> Result<(), LoadError> {
        let Some(writer) = document.writers.get(&logged.change.actor).copied() else {
            return Ok(());
        };
        let Logged { sequence, change, record, record_bytes, in_block } = logged;
        let begins = document.bytes;
        document.bytes += change.bytes().len();
        let open = document.open.entry(writer).or_default();
        if open.partial.is_empty() {
            open.partial_begins = begins;
        }
        open.partial.push((sequence, change));
        if sequence == record {
            let (changes, begins) = (std::mem::take(&mut open.partial), open.partial_begins);
            let unit = document.unit(writer, changes, record, begins)?;
            let settled = in_block && SETTLED_BYTES <= record_bytes;
            match unit.filter(|_| !settled) {
                Some(unit) => self.add(document, writer, unit)?,
                None => self.close(document, writer)?,
            }
        }
        if document.swept + SPAN_BYTES_MAX / 4 < document.bytes {
            self.sweep(document)?;
        }
        Ok(())
    }

    fn add(&mut self, document: &mut Document, writer: u16, unit: Unit) -> Result<(), LoadError> {
        let open = document.open.entry(writer).or_default();
        let follows = open.units.back().is_none_or(|last| last.next_seq() == unit.first_seq());
        let first = open.units.front().map_or(unit.begins, |first| first.begins);
        if !follows || SPAN_BYTES_MAX < unit.ends - first {
            self.close(document, writer)?;
        }
        let open = document.open.entry(writer).or_default();
        open.run.add(&unit.changes);
        open.units.push_back(unit);
        while document.open.get(&writer).is_some_and(|open| open.run.is_ready(&self.packer)) {
            self.cut(document, writer)?;
        }
        Ok(())
    }

    /// Closes runs that lie too far back to grow.
    fn sweep(&mut self, document: &mut Document) -> Result<(), LoadError> {
        let now = document.bytes;
        let far = |open: &Open| {
            open.units.front().is_some_and(|first| SPAN_BYTES_MAX < now - first.begins)
        };
        let writers: Vec<u16> =
            document.open.iter().filter(|(_, open)| far(open)).map(|(writer, _)| *writer).collect();
        for writer in writers {
            self.close(document, writer)?;
        }
        document.swept = now;
        Ok(())
    }

    fn close(&mut self, document: &mut Document, writer: u16) -> Result<(), LoadError> {
        while document.open.get(&writer).is_some_and(|open| !open.run.is_empty()) {
            self.cut(document, writer)?;
        }
        Ok(())
    }

    /// Takes a block, or what is too large for one, off the front of a run.
    fn cut(&mut self, document: &mut Document, writer: u16) -> Result<(), LoadError> {
        let Some(open) = document.open.get_mut(&writer) else { return Ok(()) };
        let cut = self.packer.cut(&open.run)?;
        let units: Vec<Unit> = open.units.drain(..cut.units.min(open.units.len())).collect();
        open.run = Run::default();
        open.units.iter().for_each(|unit| open.run.add(&unit.changes));
        // One record stays as it is: packing it again would change nothing.
        let (Some(record), true) = (cut.record, 1 < units.len()) else { return Ok(()) };
        let rewrite = document.rewrite(writer, record, units)?;
        self.batch_bytes += rewrite.record.len();
        self.batch.push(rewrite);
        Ok(())
    }

    /// Writes what is left, and deletes what blocks contain.
    fn settle(&mut self, report: &mut CompactReport) -> Result<(), AppendError> {
        if !self.batch.is_empty() {
            self.commit(report)?;
        }
        if !self.removals.is_empty() {
            self.commit(report)?;
        }
        Ok(())
    }

    /// Makes the blocks durable, reads them back, and remembers what they replace.
    fn commit(&mut self, report: &mut CompactReport) -> Result<(), AppendError> {
        let batch = std::mem::take(&mut self.batch);
        let removals = std::mem::take(&mut self.removals);
        self.batch_bytes = 0;
        self.inner.write_meta(|write| {
            let mut log = write.open_table(tables::LOG).map_err(load)?;
            for key in &removals {
                log.remove(*key).map_err(load)?;
            }
            let mut chains = write.open_table(tables::CHAINS).map_err(load)?;
            for rewrite in &batch {
                log.insert((rewrite.number, rewrite.key), rewrite.record.as_slice())
                    .map_err(load)?;
                for (_, first, _) in &rewrite.replaced {
                    chains.remove((rewrite.number, rewrite.writer, *first)).map_err(load)?;
                }
                let key = (rewrite.number, rewrite.writer, rewrite.first_seq());
                chains.insert(key, rewrite.chain.encode().as_slice()).map_err(load)?;
            }
            Ok(())
        })?;
        let (_, disk) = self.inner.parts()?;
        let wrong = batch.iter().find_map(|rewrite| rewrite.read_back(disk).err());
        if let Some(error) = wrong {
            self.inner.write_meta(|write| undo(write, &batch))?;
            return Err(error.into());
        }
        for rewrite in &batch {
            report.blocks += 1;
            report.changes += rewrite.members.len() as u64;
            let old = rewrite.replaced.iter().filter(|(record, _, _)| *record != rewrite.key);
            self.removals.extend(old.map(|(record, _, _)| (rewrite.number, *record)));
        }
        Ok(())
    }
}

/// Puts back what the blocks of a batch were made of. Everything but what stood under their keys is
/// still there.
fn undo(write: &redb::WriteTransaction, batch: &[Rewrite]) -> Result<(), LoadError> {
    let mut log = write.open_table(tables::LOG).map_err(load)?;
    let mut chains = write.open_table(tables::CHAINS).map_err(load)?;
    for rewrite in batch {
        let key = (rewrite.number, rewrite.key);
        log.insert(key, rewrite.record_before.as_slice()).map_err(load)?;
        chains.remove((rewrite.number, rewrite.writer, rewrite.first_seq())).map_err(load)?;
        for (_, first, chain) in &rewrite.replaced {
            let key = (rewrite.number, rewrite.writer, *first);
            chains.insert(key, chain.encode().as_slice()).map_err(load)?;
        }
    }
    Ok(())
}

impl Rewrite {
    fn first_seq(&self) -> u32 {
        self.replaced.first().map_or(0, |(_, first, _)| *first)
    }

    fn read_back(&self, disk: &Snapshot) -> Result<(), LoadError> {
        let record = disk.record(self.number, self.key)?;
        let record = record.ok_or_else(|| corrupt("a new block of the log is not there"))?;
        let found = read_record(self.key, &record)?;
        let same = found.len() == self.members.len()
            && found.iter().zip(&self.members).all(|((sequence, change), (expected, hash))| {
                (*sequence, change.hash()) == (*expected, *hash)
            });
        if same { Ok(()) } else { Err(corrupt("a new block of the log reads otherwise")) }
    }
}

impl Unit {
    fn first_seq(&self) -> u64 {
        self.changes.first().map_or(0, |(_, change)| change.seq)
    }

    fn next_seq(&self) -> u64 {
        self.changes.last().map_or(0, |(_, change)| change.seq + 1)
    }
}

impl Document {
    fn open(library: &redb::Database, number: u32) -> Result<Self, LoadError> {
        let disk = Snapshot::take(library)?;
        let doc = disk.doc(number)?;
        let writers = doc.into_iter().flat_map(|doc| doc.writers);
        let writers = (0..).zip(writers).map(|(place, writer)| (writer.actor, place)).collect();
        Ok(Self { number, disk, writers, open: BTreeMap::new(), bytes: 0, swept: 0 })
    }

    /// Returns how many records there are, and how many of them may become part of a larger one.
    fn count_records(&mut self) -> Result<(u64, u64), LoadError> {
        let (mut records, mut loose) = (0, 0);
        let range = (self.number, 0)..=(self.number, u64::MAX);
        for found in self.disk.log.range(range).map_err(load)? {
            let (_, value) = found.map_err(load)?;
            records += 1;
            loose += u64::from(!is_block(value.value()) || value.value().len() < SETTLED_BYTES);
        }
        Ok((records, loose))
    }

    /// Returns the record's changes with their chain entry; `None` if the two do not agree.
    fn unit(
        &self,
        writer: u16,
        changes: Vec<(u64, Change)>,
        record: u64,
        begins: usize,
    ) -> Result<Option<Unit>, LoadError> {
        let first = changes.first().and_then(|(_, change)| u32::try_from(change.seq).ok());
        let Some(first) = first else { return Ok(None) };
        let found = self.disk.chain(self.number, writer, first..=first)?;
        let agrees = |chain: &Chain| chain.log == record && chain.count as usize == changes.len();
        let Some((_, chain)) = found.filter(|(_, chain)| agrees(chain)) else { return Ok(None) };
        Ok(Some(Unit { changes, record, chain, begins, ends: self.bytes }))
    }

    /// Returns whether the chain knows the change in a block, and not under its own record.
    fn is_leftover(&self, logged: &Logged) -> Result<bool, LoadError> {
        let Some(writer) = self.writers.get(&logged.change.actor) else { return Ok(false) };
        let Ok(seq) = u32::try_from(logged.change.seq) else { return Ok(false) };
        let found = self.disk.chain(self.number, *writer, 0..=seq)?;
        Ok(found
            .is_some_and(|(first, chain)| chain.log != logged.record && seq - first < chain.count))
    }

    fn rewrite(
        &self,
        writer: u16,
        record: Vec<u8>,
        units: Vec<Unit>,
    ) -> Result<Rewrite, LoadError> {
        let missing = || corrupt("a run of the log ends in nothing");
        let first = units.first().ok_or_else(missing)?;
        let key = units.last().map(|unit| unit.record).ok_or_else(missing)?;
        let chain = Chain {
            log: key,
            count: units.iter().map(|unit| unit.chain.count).sum(),
            start_op: first.chain.start_op,
            clock_before: first.chain.clock_before,
            clocks: units.iter().flat_map(|unit| unit.chain.clocks.iter().cloned()).collect(),
        };
        let members = units.iter().flat_map(|unit| &unit.changes);
        let members = members.map(|(sequence, change)| (*sequence, change.hash())).collect();
        let record_before = self.disk.record(self.number, key)?.ok_or_else(missing)?;
        let replaced = units.into_iter().map(|unit| {
            let first = u32::try_from(unit.first_seq()).unwrap_or_default();
            (unit.record, first, unit.chain)
        });
        let replaced = replaced.collect();
        let number = self.number;
        Ok(Rewrite { number, writer, key, record, chain, replaced, members, record_before })
    }
}

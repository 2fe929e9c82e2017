//! Blocks: a run of changes of one writer, packed.
//!
//! ```text
//! block     zstd, with its checksum, of:
//!           count, writer, number of the first change, counter of its first operation
//!           length of the numbers: for each change its local sequence and its stamp as differences,
//!               the gap in the operation counters, how many dependencies, how long the rest is
//!           dependencies other than the change before
//!           length of the keys: the texts of the keys of each change
//!           length of the rests: of each change what follows the stamp, without keys and values
//!           the values of each change
//!           hash of the last change
//! ```
//!
//! A block keeps what cannot be computed. The dependency on the change before is left out, and so is
//! every hash but the last: rebuilding a change computes its hash, the next change names it, and the
//! last hash proves them all. Keys and values stand apart, since each are alike among themselves.
//!
//! A block of the first form has the rest of each change in one piece, in place of the three parts.

use catchword_model::change::{Change, chunk_of, texts};
use catchword_model::id::{ActorId, ChangeHash};

use crate::bytes::{Reader, Writer};
use crate::error::{LoadError, corrupt};
use crate::log::{block_record, change_record, read_change};

/// Size of a block, in bytes. redb rounds values to 4 KiB times a power of two.
pub const BLOCK_BYTES_MAX: usize = 16_000;
/// Size of the content of a block before compression, in bytes.
pub const BLOCK_CONTENT_BYTES_MAX: usize = 1 << 20;

/// Content beside numbers, dependencies and rests: count, writer, first numbers, lengths, last hash.
const FRAME_BYTES_MAX: usize = 128;
/// A tenth slower to write than 3, and 3 % smaller; reading costs the same.
const ZSTD_LEVEL: i32 = 9;
/// How often a block is packed again to come closer to its greatest size.
const TRIALS_MAX: usize = 5;

/// Packs runs into blocks. Remembers how much smaller content becomes, to cut the next block well.
pub(crate) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    /// Bytes of content for 1,000 packed ones.
    ratio: usize,
}

/// A block that was cut off the front of a run.
#[derive(Debug)]
pub(crate) struct Cut {
    /// How many units are in it.
    pub(crate) units: usize,
    /// The record for the log; absent if the first unit alone is too large for a block.
    pub(crate) record: Option<Vec<u8>>,
}

/// Consecutive changes of one writer, encoded. They are added in units that are never cut apart.
#[derive(Debug, Default)]
pub(crate) struct Run {
    numbers: Vec<u8>,
    hashes: Vec<u8>,
    keys: Vec<u8>,
    rests: Vec<u8>,
    values: Vec<u8>,
    units: Vec<Unit>,
    first: Option<First>,
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct First {
    actor: ActorId,
    seq: u64,
    start_op: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    sequence: u64,
    time: i64,
    max_op: u64,
    hash: ChangeHash,
}

/// Where a unit ends in the run.
#[derive(Debug, Clone, Copy)]
struct Unit {
    changes: usize,
    numbers: usize,
    hashes: usize,
    keys: usize,
    rests: usize,
    values: usize,
    last: ChangeHash,
}

impl Unit {
    fn bytes(&self) -> usize {
        self.numbers + self.hashes + self.keys + self.rests + self.values
    }
}

impl Run {
    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Returns whether there is surely enough for a block.
    pub(crate) fn is_ready(&self, packer: &Packer) -> bool {
        let bytes = self.units.last().map_or(0, Unit::bytes);
        packer.content_of(BLOCK_BYTES_MAX) * 5 / 4 < bytes
            || BLOCK_CONTENT_BYTES_MAX * 3 / 4 < bytes
    }

    /// Adds changes that stay together. They must follow what is here, in the writer's chain.
    pub(crate) fn add(&mut self, unit: &[(u64, Change)]) {
        for (sequence, change) in unit {
            self.add_change(*sequence, change);
        }
        self.end_unit(unit.len());
    }

    fn end_unit(&mut self, added: usize) {
        let Some(last) = self.last else { return };
        let changes = self.units.last().map_or(0, |unit| unit.changes) + added;
        self.units.push(Unit {
            changes,
            numbers: self.numbers.len(),
            hashes: self.hashes.len(),
            keys: self.keys.len(),
            rests: self.rests.len(),
            values: self.values.len(),
            last: last.hash,
        });
    }

    fn add_change(&mut self, sequence: u64, change: &Change) {
        if self.first.is_none() {
            let (actor, seq, start_op) = (change.actor, change.seq, change.start_op);
            self.first = Some(First { actor, seq, start_op });
        }
        let before = self.last.map(|last| last.hash);
        let (last_sequence, last_time, last_op) = match self.last {
            Some(last) => (last.sequence, last.time, last.max_op),
            None => (0, 0, change.start_op.saturating_sub(1)),
        };
        let others = || change.dependencies.iter().filter(move |hash| Some(**hash) != before);
        let count = others().count();
        let [before_keys, keys, between, values, behind] = parts(rest(change));
        let mut out = Writer(std::mem::take(&mut self.numbers));
        out.number(sequence.saturating_sub(last_sequence));
        out.number(zigzag(change.time.wrapping_sub(last_time)));
        out.number(change.start_op.saturating_sub(last_op + 1));
        out.number((count as u64) << 1 | u64::from(count < change.dependencies.len()));
        out.len(before_keys.len() + between.len() + behind.len());
        self.numbers = out.0;
        others().for_each(|hash| self.hashes.extend_from_slice(&hash.0));
        self.keys.extend_from_slice(keys);
        for part in [before_keys, between, behind] {
            self.rests.extend_from_slice(part);
        }
        self.values.extend_from_slice(values);
        let (time, max_op, hash) = (change.time, change.max_op(), change.hash());
        self.last = Some(Last { sequence, time, max_op, hash });
    }

    /// Returns the content of a block of the first `units`.
    fn content(&self, units: usize) -> Option<Vec<u8>> {
        let (first, unit) = (self.first?, self.units.get(units.checked_sub(1)?)?);
        let mut out = Writer::with_capacity(unit.bytes() + FRAME_BYTES_MAX);
        out.len(unit.changes).fixed(&first.actor.0).number(first.seq).number(first.start_op);
        out.prefixed(self.numbers.get(..unit.numbers)?);
        out.fixed(self.hashes.get(..unit.hashes)?);
        out.prefixed(self.keys.get(..unit.keys)?);
        out.prefixed(self.rests.get(..unit.rests)?);
        out.fixed(self.values.get(..unit.values)?);
        out.fixed(&unit.last.0);
        Some(out.0)
    }

    /// Returns how many units have at most so many bytes together; at least one.
    fn units_within(&self, bytes: usize) -> usize {
        self.units.partition_point(|unit| unit.bytes() <= bytes).max(1)
    }
}

impl Packer {
    pub(crate) fn new() -> Result<Self, LoadError> {
        let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(io)?;
        zstd.include_checksum(true).map_err(io)?;
        Ok(Self { zstd, ratio: 3_000 })
    }

    /// About how much content makes so many packed bytes.
    fn content_of(&self, packed: usize) -> usize {
        packed * self.ratio / 1_000
    }

    /// Cuts the largest block off the front of a run that fits [`BLOCK_BYTES_MAX`], or nearly so.
    pub(crate) fn cut(&mut self, run: &Run) -> Result<Cut, LoadError> {
        let mut best = Cut { units: 1, record: None };
        // Invariant: `fits` units fit, `too_many` do not.
        let (mut fits, mut too_many) = (0, run.units.len() + 1);
        let mut bytes = self.content_of(BLOCK_BYTES_MAX);
        for trial in 0.. {
            let guess = run.units_within(bytes.min(BLOCK_CONTENT_BYTES_MAX - FRAME_BYTES_MAX));
            // Guesses find the size in a few steps; where they do not, halving does.
            let middle = fits + (too_many - fits) / 2;
            let guess = if trial < TRIALS_MAX { guess } else { middle };
            let units = guess.clamp(fits + 1, too_many.saturating_sub(1).max(fits + 1));
            if too_many <= units {
                break;
            }
            let packed = self.pack(run, units)?;
            let content = run.units.get(units - 1).map_or(0, Unit::bytes);
            match packed {
                Some(packed) if packed.len() < BLOCK_BYTES_MAX => {
                    self.ratio = (content * 1_000 / packed.len().max(1)).clamp(1_000, 100_000);
                    let record = Some(block_record(&packed));
                    (fits, best) = (units, Cut { units, record });
                    if BLOCK_BYTES_MAX * 15 / 16 <= packed.len() {
                        break;
                    }
                    bytes = content * BLOCK_BYTES_MAX / packed.len().max(1) * 63 / 64;
                }
                Some(packed) => {
                    too_many = units;
                    bytes = content * BLOCK_BYTES_MAX / packed.len().max(1) * 31 / 32;
                }
                None => {
                    too_many = units;
                    bytes = content / 2;
                }
            }
        }
        Ok(best)
    }

    /// Packs the first `units` of a run; `None` if there is too much for one block.
    fn pack(&mut self, run: &Run, units: usize) -> Result<Option<Vec<u8>>, LoadError> {
        match run.content(units) {
            Some(content) if content.len() <= BLOCK_CONTENT_BYTES_MAX => {
                self.zstd.compress(&content).map(Some).map_err(io)
            }
            _ => Ok(None),
        }
    }
}

impl Packer {
    /// Packs a whole run, in as few blocks as their content allows, whatever size they become. Changes
    /// too large for a block stand alone.
    pub(crate) fn pack_all(&mut self, changes: &[Change]) -> Result<Vec<Vec<u8>>, LoadError> {
        let mut records = Vec::new();
        let mut left = changes;
        while !left.is_empty() {
            let mut run = Run::default();
            let mut taken = 0;
            for change in left {
                run.add_change(0, change);
                run.end_unit(1);
                let bytes = run.units.last().map_or(0, Unit::bytes);
                if 0 < taken && BLOCK_CONTENT_BYTES_MAX - FRAME_BYTES_MAX < bytes {
                    break;
                }
                taken += 1;
            }
            let alone =
                left.first().filter(|_| taken == 1).map(|change| change_record(change.bytes()));
            let block = self.pack(&run, taken)?.map(|packed| block_record(&packed));
            records.push(match (alone, block) {
                (Some(alone), Some(block)) if alone.len() <= block.len() => alone,
                (_, Some(block)) => block,
                (Some(alone), None) => alone,
                (None, None) => return Err(corrupt("a run does not fit a block")),
            });
            left = left.get(taken..).unwrap_or_default();
        }
        Ok(records)
    }
}

fn io(error: std::io::Error) -> LoadError {
    LoadError::Io(error.into())
}

/// Returns what follows the stamp in the body of a change.
fn rest(change: &Change) -> &[u8] {
    let head =
        body_head(&change.dependencies, change.actor, change.seq, change.start_op, change.time);
    change.body().get(head.len()..).unwrap_or_default()
}

/// Cuts keys and values out of what follows the stamp.
fn parts(rest: &[u8]) -> [&[u8]; 5] {
    let [keys, values] = texts(rest);
    let part = |from, to| rest.get(from..to).unwrap_or_default();
    [
        part(0, keys.start),
        part(keys.start, keys.end),
        part(keys.end, values.start),
        part(values.start, values.end),
        part(values.end, rest.len()),
    ]
}

/// Puts keys and values back.
fn join(
    rest: &[u8],
    keys: &mut Reader<'_>,
    values: &mut Reader<'_>,
    body: &mut Vec<u8>,
) -> Result<(), LoadError> {
    let [of_keys, of_values] = texts(rest);
    let mut rest = Reader(rest);
    body.extend_from_slice(rest.take(of_keys.start)?);
    body.extend_from_slice(keys.take(of_keys.len())?);
    body.extend_from_slice(rest.take(of_values.start - of_keys.end)?);
    body.extend_from_slice(values.take(of_values.len())?);
    body.extend_from_slice(rest.0);
    Ok(())
}

fn body_head(
    dependencies: &[ChangeHash],
    actor: ActorId,
    seq: u64,
    start_op: u64,
    time: i64,
) -> Vec<u8> {
    let mut out = Writer::with_capacity(96);
    out.len(dependencies.len());
    for hash in dependencies {
        out.fixed(&hash.0);
    }
    out.prefixed(&actor.0).number(seq).number(start_op);
    signed(&mut out, time);
    out.0
}

/// A signed LEB128 number, as Automerge writes stamps.
fn signed(out: &mut Writer, mut value: i64) {
    loop {
        let bits = value.cast_unsigned();
        let byte = (bits & 0x7F) as u8;
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            out.byte(byte);
            return;
        }
        out.byte(byte | 0x80);
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// In how many parts a block has its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Each change in one: blocks that earlier releases wrote.
    Whole,
    /// Keys, values, and the rest.
    Apart,
}

/// Reads a block: its changes with their local sequences, ascending.
pub(crate) fn read_block(form: Form, packed: &[u8]) -> Result<Vec<(u64, Change)>, LoadError> {
    let content = zstd::bulk::decompress(packed, BLOCK_CONTENT_BYTES_MAX)
        .map_err(|error| corrupt(format!("a block does not unpack: {error}")))?;
    let mut input = Reader(&content);
    let count = input.count()?;
    let actor = ActorId(input.fixed()?);
    let (mut seq, mut start_op) = (input.number()?, input.number()?);
    let mut numbers = Reader(input.prefixed()?);
    let lines = (0..count).map(|_| Line::read(&mut numbers)).collect::<Result<Vec<_>, _>>()?;
    let others: Vec<Vec<ChangeHash>> =
        lines.iter().map(|line| line.others(&mut input)).collect::<Result<_, _>>()?;
    let mut keys = Reader(&[]);
    let mut rests = Reader(&[]);
    if form == Form::Apart {
        (keys, rests) = (Reader(input.prefixed()?), Reader(input.prefixed()?));
    }
    let (mut sequence, mut time, mut before) = (0_u64, 0_i64, None);
    let mut changes = Vec::with_capacity(count);
    for (line, mut dependencies) in lines.iter().zip(others) {
        let overflow = || corrupt("a number in a block is out of range");
        sequence = sequence.checked_add(line.sequence).ok_or_else(overflow)?;
        time = time.wrapping_add(unzigzag(line.time));
        start_op = start_op.checked_add(line.gap).ok_or_else(overflow)?;
        if line.dependencies & 1 == 1 {
            dependencies.push(before.ok_or_else(|| corrupt("a block begins in the middle"))?);
            dependencies.sort_unstable();
        }
        let mut body = body_head(&dependencies, actor, seq, start_op, time);
        match form {
            Form::Whole => body.extend_from_slice(input.take(line.rest)?),
            Form::Apart => join(rests.take(line.rest)?, &mut keys, &mut input, &mut body)?,
        }
        let change = read_change(&chunk_of(&body))?;
        (before, start_op, seq) = (Some(change.hash()), change.max_op() + 1, seq + 1);
        changes.push((sequence, change));
    }
    let proof = input.fixed().map(ChangeHash)?;
    if before != Some(proof) {
        return Err(corrupt("the changes of a block have other hashes than when it was written"));
    }
    let whole = [input, numbers, keys, rests].iter().all(Reader::is_empty);
    if whole { Ok(changes) } else { Err(corrupt("a block has something after its end")) }
}

/// Returns the local sequences of the changes of a block, without rebuilding these.
pub(crate) fn read_sequences(packed: &[u8]) -> Result<Vec<u64>, LoadError> {
    let content = zstd::bulk::decompress(packed, BLOCK_CONTENT_BYTES_MAX)
        .map_err(|error| corrupt(format!("a block does not unpack: {error}")))?;
    let mut input = Reader(&content);
    let count = input.count()?;
    input.take(ActorId::LEN)?;
    let (_, _) = (input.number()?, input.number()?);
    let mut numbers = Reader(input.prefixed()?);
    let mut sequence = 0_u64;
    let mut sequences = Vec::with_capacity(count);
    for _ in 0..count {
        let line = Line::read(&mut numbers)?;
        let overflow = || corrupt("a number in a block is out of range");
        sequence = sequence.checked_add(line.sequence).ok_or_else(overflow)?;
        sequences.push(sequence);
    }
    Ok(sequences)
}

/// Returns how much a block unpacks to, in bytes, as it says itself.
pub(crate) fn content_bytes(packed: &[u8]) -> usize {
    let said = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    said.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(BLOCK_CONTENT_BYTES_MAX)
}

/// The numbers of one change.
struct Line {
    sequence: u64,
    time: u64,
    gap: u64,
    dependencies: u64,
    rest: usize,
}

impl Line {
    fn read(numbers: &mut Reader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            sequence: numbers.number()?,
            time: numbers.number()?,
            gap: numbers.number()?,
            dependencies: numbers.number()?,
            rest: numbers.small()?,
        })
    }

    fn others(&self, input: &mut Reader<'_>) -> Result<Vec<ChangeHash>, LoadError> {
        let count = self.dependencies >> 1;
        if input.0.len() as u64 / 32 < count {
            return Err(corrupt("a block is cut off"));
        }
        (0..count).map(|_| input.fixed().map(ChangeHash)).collect()
    }
}

#[cfg(test)]
mod tests {
    use catchword_model::change::{Action, Draft, Key, Object, Op, OpId, Scalar};
    use catchword_model::genesis::genesis;
    use catchword_model::schema::{Container, DocumentKind};
    use proptest::prelude::*;

    use super::*;

    const WRITER: ActorId = ActorId([7; 16]);

    /// What a random change of a run is made of.
    #[derive(Debug, Clone)]
    struct Step {
        sequence: u64,
        time: i64,
        gap: u64,
        others: Vec<[u8; 32]>,
        texts: Vec<String>,
        insert: bool,
    }

    fn step(text: &'static str) -> impl Strategy<Value = Step> {
        let texts = prop::collection::vec(text, 1..4);
        let others = prop::collection::vec(any::<[u8; 32]>(), 0..3);
        (1..40_u64, 0..1_u64 << 50, 0..3_u64, others, texts, any::<bool>()).prop_map(
            |(sequence, time, gap, others, texts, insert)| {
                let time = time.cast_signed();
                Step { sequence, time, gap, others, texts, insert }
            },
        )
    }

    fn op(text: &str, insert: bool, counter: u64) -> Op {
        let before = OpId { counter: counter.saturating_sub(1).max(1), actor: WRITER };
        let object = Object::Made(Container::Annotations.object());
        let action = Action::Put(Scalar::Text(text.to_owned()));
        if insert {
            // As in a journal: a character after another one.
            let key = if counter < 9 { Key::Head } else { Key::Element(before) };
            return Op { object, key, insert, action, predecessors: Vec::new() };
        }
        let key = Key::Map(format!("key{}", text.len()));
        Op { object, key, insert, action, predecessors: vec![before] }
    }

    fn run_of(steps: &[Step], first_seq: u64) -> Vec<(u64, Change)> {
        let mut changes: Vec<(u64, Change)> = Vec::new();
        let (mut sequence, mut start_op) = (5, 100);
        let mut before = genesis(DocumentKind::Book).hash();
        for (n, step) in steps.iter().enumerate() {
            sequence += step.sequence;
            start_op += step.gap;
            let mut dependencies: Vec<_> = step.others.iter().copied().map(ChangeHash).collect();
            dependencies.push(before);
            let ops = (start_op..).zip(&step.texts).map(|(at, text)| op(text, step.insert, at));
            let draft = Draft {
                actor: WRITER,
                seq: first_seq + n as u64,
                start_op,
                time: step.time,
                message: String::new(),
                dependencies,
                author: None,
                ops: ops.collect(),
            };
            let change = draft.encode();
            (before, start_op) = (change.hash(), change.max_op() + 1);
            changes.push((sequence, change));
        }
        changes
    }

    /// Packs a run as compaction does; a unit that fits no block stays as it is.
    fn pack(changes: &[(u64, Change)], unit: usize) -> Vec<(u64, Change)> {
        let mut packer = Packer::new().unwrap();
        let mut back = Vec::new();
        let mut left: Vec<&[(u64, Change)]> = changes.chunks(unit).collect();
        while !left.is_empty() {
            let mut run = Run::default();
            for unit in &left {
                run.add(unit);
            }
            let cut = packer.cut(&run).unwrap();
            let units: Vec<_> = left.drain(..cut.units).flatten().cloned().collect();
            match cut.record {
                Some(record) => {
                    assert!(record.len() <= BLOCK_BYTES_MAX, "{} bytes", record.len());
                    back.extend(crate::log::read_record(units.last().unwrap().0, &record).unwrap());
                }
                None => back.extend(units),
            }
        }
        back
    }

    proptest! {
        #[test]
        fn a_run_comes_back_with_the_same_hashes_and_sequences(
            steps in prop::collection::vec(step(".{0,60}"), 1..60),
            first_seq in 1..9_u64,
            unit in 1..5_usize,
        ) {
            let changes = run_of(&steps, first_seq);
            prop_assert_eq!(pack(&changes, unit), changes);
        }

        #[test]
        fn a_block_with_any_bit_flipped_is_damage(
            steps in prop::collection::vec(step(".{0,20}"), 1..6),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let changes = run_of(&steps, 1);
            let mut run = Run::default();
            run.add(&changes);
            let mut packed = Packer::new().unwrap().pack(&run, 1).unwrap().unwrap();
            let at = at.index(packed.len());
            packed[at] ^= 1_u8 << bit;
            // A bit of the frame's header that means nothing may flip; what comes back is never wrong.
            if let Ok(read) = read_block(Form::Apart, &packed) {
                prop_assert_eq!(read, changes);
            }
        }
    }

    #[test]
    fn a_block_of_the_first_form_reads() {
        let step = |n: i64| Step {
            sequence: 2,
            time: n,
            gap: 1,
            others: vec![[9; 32]],
            texts: vec!["some text".to_owned()],
            insert: false,
        };
        let changes = run_of(&[step(1), step(2), step(3)], 4);
        let first = &changes[0].1;
        let (mut numbers, mut others, mut rests) =
            (Writer::default(), Writer::default(), Writer::default());
        let (mut sequence, mut time, mut max_op, mut before) = (0, 0, first.start_op - 1, None);
        for (at, change) in &changes {
            let foreign = |hash: &&ChangeHash| Some(**hash) != before;
            let count = change.dependencies.iter().filter(foreign).count();
            numbers.number(at - sequence).number(zigzag(change.time - time));
            numbers.number(change.start_op - max_op - 1);
            numbers.number((count as u64) << 1 | u64::from(before.is_some()));
            numbers.len(rest(change).len());
            change.dependencies.iter().filter(foreign).for_each(|hash| _ = others.fixed(&hash.0));
            rests.fixed(rest(change));
            (sequence, time, max_op) = (*at, change.time, change.max_op());
            before = Some(change.hash());
        }
        let mut content = Writer::default();
        content.len(changes.len()).fixed(&WRITER.0).number(4).number(first.start_op);
        content.prefixed(&numbers.0).fixed(&others.0).fixed(&rests.0);
        content.fixed(&changes[2].1.hash().0);
        let packed = zstd::bulk::compress(&content.0, 3).unwrap();

        assert_eq!(read_block(Form::Whole, &packed).unwrap(), changes);
        assert!(read_block(Form::Apart, &packed).is_err());
    }

    #[test]
    fn what_does_not_shrink_still_makes_blocks_that_are_full() {
        // Random letters: a third of the bytes of the greatest block each.
        let mut seed = 1_u64;
        let mut letters = |count: usize| -> String {
            let mut letter = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b' ' + u8::try_from(seed >> 58).unwrap())
            };
            (0..count).map(|_| letter()).collect()
        };
        let steps: Vec<Step> = (0..40)
            .map(|n| Step {
                sequence: 1,
                time: n,
                gap: 0,
                others: Vec::new(),
                texts: vec![letters(5_000), letters(usize::from(n == 20) * 60_000)],
                insert: false,
            })
            .collect();
        let changes = run_of(&steps, 1);

        assert_eq!(pack(&changes, 1), changes);
        let mut run = Run::default();
        for change in &changes {
            run.add(std::slice::from_ref(change));
        }
        let mut packer = Packer::new().unwrap();
        let cut = packer.cut(&run).unwrap();
        let bytes = cut.record.unwrap().len();
        assert!((3..5).contains(&cut.units), "{} changes in {bytes} bytes", cut.units);
    }

    #[test]
    fn a_block_that_was_made_of_another_run_is_damage() {
        let steps = |text: &str| Step {
            sequence: 1,
            time: 1,
            gap: 0,
            others: Vec::new(),
            texts: vec![text.to_owned()],
            insert: false,
        };
        let changes = run_of(&[steps("a"), steps("b")], 1);
        let mut run = Run::default();
        run.add(&changes);
        let mut content = run.content(1).unwrap();
        let proof = content.len() - 32;
        let place = content[..proof].iter().rposition(|byte| *byte == b'b').unwrap();
        content[place] = b'c';

        let packed = zstd::bulk::compress(&content, ZSTD_LEVEL).unwrap();
        let damage = read_block(Form::Apart, &packed).unwrap_err().to_string();
        assert!(damage.contains("other hashes"), "{damage}");
    }
}

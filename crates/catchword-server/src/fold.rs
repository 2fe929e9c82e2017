//! The place of a book on the server, and what a new position is worth: the fold of the model, and the
//! right to withdraw.
//!
//! # Invariants
//!
//! 1. The place is [`position::place`] over the holders, with the marks that the server's own verdicts
//!    stand for. There is no second rule.
//! 2. A position is compared once, when its change first comes, whoever brings it.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::change::{Action, Change, Key, Object, OpId};
use catchword_model::hlc::Hlc;
use catchword_model::id::DeviceId;
use catchword_model::merge::{Field, Holder};
use catchword_model::position::{self, Entry, Furthest, Intent, Position};
use catchword_model::schema::{Container, DocumentKind, furthest_key, parse_furthest};
use catchword_proto::cloud::api::{Place, Verdict};

use crate::ledger::{pack_holders, unpack_holders};

/// What one row of the fold is about: a container, or [`MARK`], then a device, then a pass.
pub(crate) type RegisterKey = [u8; 21];

/// Stands where a container stands, in the key of a mark that verdicts stand for.
const MARK: u8 = 0;

/// A register that the fold reads: a device's position or mark, or its furthest point in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Register {
    container: Container,
    device: DeviceId,
    /// 0 but for [`Container::Furthest`].
    pass: u32,
}

/// Everything of a document that decides about places.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fold {
    registers: BTreeMap<Register, Field>,
    /// The greatest stamp of each device that a verdict withdrew.
    marks: BTreeMap<DeviceId, Hlc>,
    touched: BTreeSet<Register>,
    marked: BTreeSet<DeviceId>,
}

impl Register {
    fn key(self) -> RegisterKey {
        key_of(self.container.code(), self.device, self.pass)
    }

    /// Returns what must be loaded where this register is written.
    pub(crate) fn wanted(self) -> impl Iterator<Item = RegisterKey> {
        let of_position = (self.container == Container::Positions).then(|| marks_of(self.device));
        std::iter::once(self.key()).chain(of_position.into_iter().flatten())
    }
}

fn key_of(code: u8, device: DeviceId, pass: u32) -> RegisterKey {
    let mut key = [code; 21];
    let (_, rest) = key.split_at_mut(1);
    let (to_device, to_pass) = rest.split_at_mut(DeviceId::LEN);
    to_device.copy_from_slice(&device.0);
    to_pass.copy_from_slice(&pass.to_be_bytes());
    key
}

/// The first byte of the keys that decide whether a position counts; the rest is that of the position.
pub(crate) const MARK_CODES: [[u8; 1]; 2] = [[MARK], [Container::Withdrawn.code()]];

fn marks_of(device: DeviceId) -> [RegisterKey; 2] {
    MARK_CODES.map(|[code]| key_of(code, device, 0))
}

/// Returns the keys between which every position of a document stands.
pub(crate) const fn position_keys() -> (RegisterKey, RegisterKey) {
    let code = Container::Positions.code();
    let (mut first, mut last) = ([0; 21], [0xff; 21]);
    first[0] = code;
    last[0] = code;
    (first, last)
}

/// Returns the keys that decide whether a position with this key counts.
pub(crate) fn keys_of_marks(position: &RegisterKey) -> [RegisterKey; 2] {
    let device = position.get(1..=DeviceId::LEN).and_then(|id| DeviceId::from_slice(id).ok());
    marks_of(device.unwrap_or(DeviceId([0; DeviceId::LEN])))
}

impl Fold {
    /// Makes the fold of rows. One that does not read holds nothing.
    pub(crate) fn new(rows: Vec<(RegisterKey, Vec<u8>)>) -> Self {
        let mut fold = Self::default();
        for (key, value) in rows {
            fold.load(&key, &value);
        }
        fold
    }

    fn load(&mut self, key: &RegisterKey, value: &[u8]) -> Option<()> {
        let (code, rest) = key.split_first()?;
        let (device, pass) = rest.split_first_chunk()?;
        let (device, pass) = (DeviceId(*device), u32::from_be_bytes(pass.try_into().ok()?));
        if *code == MARK {
            let mark = Hlc::from_packed(u64::from_be_bytes(value.try_into().ok()?))?;
            self.marks.insert(device, mark);
            return Some(());
        }
        let container = Container::from_code(*code)?;
        let holders = unpack_holders(value)?;
        self.registers.insert(Register { container, device, pass }, Field::from_holders(holders));
        Some(())
    }

    /// Returns the rows that were changed: an empty one holds nothing any more.
    pub(crate) fn changed(&self) -> Vec<(RegisterKey, Vec<u8>)> {
        let holders = |register: &Register| {
            self.registers.get(register).map(|field| pack_holders(field.holders()))
        };
        let registers = self.touched.iter();
        let registers = registers.map(|of| (of.key(), holders(of).unwrap_or_default()));
        let mark = |device: &DeviceId| {
            let mark = self.marks.get(device).map(|mark| mark.packed().to_be_bytes().to_vec());
            (key_of(MARK, *device, 0), mark.unwrap_or_default())
        };
        registers.chain(self.marked.iter().map(mark)).collect()
    }

    /// Applies a change that counts, and returns what its position is worth.
    pub(crate) fn apply(&mut self, change: &Change, kind: DocumentKind, replay: bool) -> Verdict {
        let judge = |fold: &Self, device, holder: &Holder| fold.judge(device, holder, replay);
        self.write(change, kind, judge)
    }

    /// Makes everything again of these changes and what was decided about them.
    pub(crate) fn make_anew<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a Change, Verdict)>,
        kind: DocumentKind,
    ) {
        let before = std::mem::take(self);
        self.touched = before.touched;
        self.touched.extend(before.registers.keys());
        self.marked = before.marked;
        self.marked.extend(before.marks.keys());
        for (change, verdict) in changes {
            self.write(change, kind, |_, _, _| verdict);
        }
    }

    fn write(
        &mut self,
        change: &Change,
        kind: DocumentKind,
        judge: impl Fn(&Self, DeviceId, &Holder) -> Verdict,
    ) -> Verdict {
        let stamp = Hlc::of_change(change.time);
        let mut decided = None;
        for (op, write) in change.ops_with_ids() {
            let Key::Map(key) = &write.key else { continue };
            let Some(register) = register(kind, write.object, key) else { continue };
            self.supersede(register, &write.predecessors);
            let Action::Put(value) = &write.action else { continue };
            let holder = Holder { op, stamp, value: value.clone() };
            if register.container == Container::Positions {
                // Of several in one change the last stays.
                decided = Some((register.device, judge(self, register.device, &holder)));
            }
            self.put(register, holder);
        }
        let Some((device, verdict)) = decided else { return Verdict::Accepted };
        if verdict == Verdict::Withdrawn {
            let mark = self.marks.entry(device).or_insert(stamp);
            *mark = stamp.max(*mark);
            self.marked.insert(device);
        }
        verdict
    }

    fn supersede(&mut self, register: Register, predecessors: &[OpId]) {
        if let Some(field) = self.registers.get_mut(&register) {
            field.supersede(predecessors);
            self.touched.insert(register);
        }
    }

    fn put(&mut self, register: Register, holder: Holder) {
        self.registers.entry(register).or_default().put(holder);
        self.touched.insert(register);
    }

    fn judge(&self, device: DeviceId, holder: &Holder, replay: bool) -> Verdict {
        let position = holder.value.as_text().and_then(Position::from_json);
        let Some(position) = position.filter(|_| !replay) else { return Verdict::Accepted };
        let withdrawn = self.mark_of(device);
        let entry = Entry { device, order: holder.order(), withdrawn, position };
        verdict(&entry, &self.entries())
    }

    fn mark_of(&self, device: DeviceId) -> Hlc {
        let register = Register { container: Container::Withdrawn, device, pass: 0 };
        let written = self.registers.get(&register).map(position::withdrawal_mark);
        let decided = self.marks.get(&device).copied();
        written.max(decided).unwrap_or(Hlc::ZERO)
    }

    /// Returns every entry of every device, with its mark.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let positions = self
            .registers
            .iter()
            .filter(|(register, _)| register.container == Container::Positions);
        let no_mark = Field::default();
        let of = |(register, field): (&Register, &Field)| {
            let mark = self.mark_of(register.device);
            let entries = position::entries(register.device, field, &no_mark);
            entries.map(move |entry| Entry { withdrawn: mark, ..entry }).collect::<Vec<_>>()
        };
        positions.flat_map(of).collect()
    }

    /// Returns where the person is.
    pub(crate) fn place(&self) -> Option<Place> {
        let entries = self.entries();
        position::place(&entries).map(|entry| Place {
            device: entry.device,
            stamp: entry.stamp().packed(),
            pass: entry.position.pass,
            ppm: entry.position.ppm,
            intent: entry.position.intent,
            wall_ms: entry.position.wall_ms,
            locator: entry.position.locator.as_json().to_owned(),
        })
    }

    /// Returns the greatest point of the highest pass.
    pub(crate) fn furthest(&self) -> Option<Furthest> {
        let pass = position::highest_pass(&self.entries());
        let points = self.registers.iter().filter(|(register, _)| {
            register.container == Container::Furthest && register.pass == pass
        });
        let points: Vec<(String, &Field)> =
            points.map(|(of, field)| (furthest_key(of.device, of.pass), field)).collect();
        position::furthest(pass, points.iter().map(|(key, field)| (key.as_str(), *field)))
    }
}

/// Returns whether the fold reads anything of a change.
pub(crate) fn concerns(change: &Change, kind: DocumentKind) -> bool {
    change.ops.iter().any(|op| match &op.key {
        Key::Map(key) => register(kind, op.object, key).is_some(),
        Key::Head | Key::Element(_) => false,
    })
}

/// Returns which register an operation of a book's document writes, if the fold reads it. A key that
/// does not read never means anything.
pub(crate) fn register(kind: DocumentKind, object: Object, key: &str) -> Option<Register> {
    if kind != DocumentKind::Book {
        return None;
    }
    let container = kind.container(object)?;
    let (device, pass) = match container {
        Container::Positions | Container::Withdrawn => (key.parse().ok()?, 0),
        Container::Furthest => parse_furthest(key)?,
        Container::Annotations
        | Container::Meta
        | Container::Tags
        | Container::Totals
        | Container::Devices
        | Container::Shelves
        | Container::Members
        | Container::Aliases
        | Container::Joins
        | Container::Apart
        | Container::Holds
        | Container::App => return None,
    };
    Some(Register { container, device, pass })
}

/// Decides about a position that comes for the first time. `others` are the entries there are, without
/// those that it supersedes.
///
/// # Source
///
/// The table of compare-and-swap with intent: `docs/CLOUD.md`, "A position".
pub(crate) fn verdict(entry: &Entry, others: &[Entry]) -> Verdict {
    let pass = entry.position.pass;
    let contended = others.iter().any(|other| {
        other.device != entry.device
            && other.stands()
            && pass <= other.position.pass
            && entry.position.seen < other.stamp()
    });
    let Some(place) = position::place(others).filter(|_| contended) else {
        return Verdict::Accepted;
    };
    let ahead = (place.position.pass, place.position.ppm) < (pass, entry.position.ppm);
    let earlier = entry.order < place.order;
    match entry.position.intent {
        Intent::Advance if ahead && earlier => Verdict::Restamp,
        Intent::Advance if ahead => Verdict::Accepted,
        Intent::Advance if would_be_the_place(entry, others) => withdrawn(entry),
        Intent::Rewind => withdrawn(entry),
        Intent::Jump | Intent::Restart if earlier => Verdict::Restamp,
        Intent::Advance | Intent::Jump | Intent::Restart => Verdict::Accepted,
    }
}

fn would_be_the_place(entry: &Entry, others: &[Entry]) -> bool {
    let mut all = others.to_vec();
    all.push(entry.clone());
    position::place(&all).is_some_and(|place| place.order == entry.order)
}

/// A mark must be below the last stamp to count, so an entry there cannot be withdrawn; one without a
/// valid stamp never stands anyway.
fn withdrawn(entry: &Entry) -> Verdict {
    let can = Hlc::ZERO < entry.stamp() && entry.stamp() < Hlc::LAST;
    if can { Verdict::Withdrawn } else { Verdict::Accepted }
}

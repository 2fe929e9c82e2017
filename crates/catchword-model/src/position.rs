//! Positions: where each device is in a book, and the one place a person sees.
//!
//! Every device writes its own entry and nobody else's; which entry counts is decided by reading.
//! Place and furthest point are functions of what the devices wrote, never of when it arrived.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::hlc::Hlc;
use crate::id::DeviceId;
use crate::locator::Locator;
use crate::merge::{Field, Holder, Order};
use crate::schema::parse_furthest;

/// The end of a book, in parts per million.
pub const PPM_MAX: u32 = 1_000_000;
/// The last pass there is; a restart there stays in it.
pub const PASS_MAX: u32 = 65_535;

/// Why a position moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Reading on.
    Advance,
    /// Going back by turning pages.
    Rewind,
    /// Going somewhere by a link, a search or the table of contents.
    Jump,
    /// Starting over: opens the next pass.
    Restart,
}

impl Intent {
    /// Every intent.
    pub const ALL: [Self; 4] = [Self::Advance, Self::Rewind, Self::Jump, Self::Restart];

    /// Returns the word that stands in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Advance => "advance",
            Self::Rewind => "rewind",
            Self::Jump => "jump",
            Self::Restart => "restart",
        }
    }

    /// Returns the intent with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|intent| intent.name() == name)
    }
}

/// A device's own entry, as it stands in a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Where in the book.
    pub locator: Locator,
    /// How far through the book, in parts per million.
    pub ppm: u32,
    /// Why it moved.
    pub intent: Intent,
    /// Which reading of the book, from 1.
    pub pass: u32,
    /// The wall clock of the device, in milliseconds since the Unix epoch, for people.
    pub wall_ms: u64,
    /// The greatest stamp among the counting entries of other devices when the page was turned.
    pub seen: Hlc,
}

#[derive(Serialize, Deserialize)]
struct PositionJson<'a> {
    #[serde(borrow)]
    loc: &'a RawValue,
    ppm: u32,
    intent: Intent,
    pass: u32,
    #[serde(default)]
    wall_ms: u64,
    #[serde(default)]
    seen: u64,
}

impl Position {
    /// Writes the value of `positions`.
    pub fn to_json(&self) -> String {
        format!(
            "{{\"loc\":{},\"ppm\":{},\"intent\":\"{}\",\"pass\":{},\"wall_ms\":{},\"seen\":{}}}",
            self.locator.as_json(),
            self.ppm,
            self.intent.name(),
            self.pass,
            self.wall_ms,
            self.seen.packed(),
        )
    }

    /// Reads the value of `positions`; `None` if it does not count.
    pub fn from_json(text: &str) -> Option<Self> {
        let json: PositionJson<'_> = serde_json::from_str(text).ok()?;
        let counts = json.ppm <= PPM_MAX && (1..=PASS_MAX).contains(&json.pass);
        counts.then(|| Self {
            locator: Locator::stored(json.loc.get().to_owned()),
            ppm: json.ppm,
            intent: json.intent,
            pass: json.pass,
            wall_ms: json.wall_ms,
            seen: Hlc::from_packed(json.seen).unwrap_or(Hlc::ZERO),
        })
    }
}

/// A position that counts, with what decides about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Whose it is.
    pub device: DeviceId,
    /// Where its write stands in the order of the document.
    pub order: Order,
    /// The mark of that device: at or below it, the entry does not count.
    pub withdrawn: Hlc,
    /// What the device wrote.
    pub position: Position,
}

impl Entry {
    /// Returns whether the entry is above its device's mark.
    pub fn stands(&self) -> bool {
        self.withdrawn < self.order.0
    }

    /// Returns the stamp of the entry.
    pub fn stamp(&self) -> Hlc {
        self.order.0
    }
}

/// Reads the entries of one device: every holder that parses, with the device's mark.
///
/// `positions` and `withdrawn` are what holds the device's key there.
pub fn entries(
    device: DeviceId,
    positions: &Field,
    withdrawn: &Field,
) -> impl Iterator<Item = Entry> {
    let mark = withdrawal_mark(withdrawn);
    let parse = move |holder: &Holder| {
        let position = holder.value.as_text().and_then(Position::from_json)?;
        Some(Entry { device, order: holder.order(), withdrawn: mark, position })
    };
    positions.holders().iter().filter_map(parse).collect::<Vec<_>>().into_iter()
}

/// Returns the mark below which a device's entries do not count: the greatest that is valid.
///
/// A mark is a positive whole number below the last stamp and not above the stamp of the change
/// that wrote it.
pub fn withdrawal_mark(withdrawn: &Field) -> Hlc {
    let valid = withdrawn.holders().iter().filter_map(|holder| {
        let mark = u64::try_from(holder.value.as_int()?).ok().and_then(Hlc::from_packed)?;
        (mark < Hlc::LAST && mark <= holder.stamp).then_some(mark)
    });
    valid.max().unwrap_or(Hlc::ZERO)
}

/// Returns the entry that counts as the reader's place, or `None` for an unread book.
///
/// Only entries of the highest pass count, and of those the latest: by stamp, then by operation
/// counter, then by actor. An entry at or below its device's withdrawal mark does not count, unless
/// no entry is above its mark.
///
/// # Source
///
/// `docs/SCHEMA.md`, "place". The order does not depend on arrival, so every device agrees.
pub fn place(entries: &[Entry]) -> Option<&Entry> {
    let standing = entries.iter().filter(|entry| entry.stands());
    latest_of_highest_pass(standing).or_else(|| latest_of_highest_pass(entries.iter()))
}

fn latest_of_highest_pass<'a>(entries: impl Iterator<Item = &'a Entry>) -> Option<&'a Entry> {
    entries.max_by_key(|entry| (entry.position.pass, entry.order))
}

/// Returns the highest pass among the entries, at least 1: the pass a position is written in.
pub fn highest_pass(entries: &[Entry]) -> u32 {
    entries.iter().map(|entry| entry.position.pass).max().unwrap_or(1)
}

/// Returns what a device writes as `seen`: the greatest stamp among the counting entries of others.
pub fn seen_by(device: DeviceId, entries: &[Entry]) -> Hlc {
    let others = entries.iter().filter(|entry| entry.device != device && entry.stands());
    others.map(Entry::stamp).max().unwrap_or(Hlc::ZERO)
}

/// How far somebody has been in one pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Furthest {
    /// Where in the book.
    pub locator: Locator,
    /// How far through the book, in parts per million.
    pub ppm: u32,
}

#[derive(Deserialize)]
struct FurthestJson<'a> {
    #[serde(borrow)]
    loc: &'a RawValue,
    ppm: u32,
}

impl Furthest {
    /// Writes the value of `furthest`.
    pub fn to_json(&self) -> String {
        format!("{{\"loc\":{},\"ppm\":{}}}", self.locator.as_json(), self.ppm)
    }

    /// Reads the value of `furthest`; `None` if it does not count.
    pub fn from_json(text: &str) -> Option<Self> {
        let json: FurthestJson<'_> = serde_json::from_str(text).ok()?;
        (json.ppm <= PPM_MAX)
            .then(|| Self { locator: Locator::stored(json.loc.get().to_owned()), ppm: json.ppm })
    }
}

/// Returns the furthest point of a pass over all devices.
///
/// `fields` are the keys of `furthest` with what holds them. Of equal points the one by the earliest
/// operation is returned, so that every device shows the same locator.
pub fn furthest<'a>(
    pass: u32,
    fields: impl Iterator<Item = (&'a str, &'a Field)>,
) -> Option<Furthest> {
    let of_pass = fields.filter(|(key, _)| parse_furthest(key).is_some_and(|(_, of)| of == pass));
    let points = of_pass
        .flat_map(|(_, field)| field.holders())
        .filter_map(|holder| Some((Furthest::from_json(holder.value.as_text()?)?, holder.op)));
    let best = points.max_by_key(|(point, op)| (point.ppm, std::cmp::Reverse(*op)));
    best.map(|(point, _)| point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{OpId, Scalar};
    use crate::id::ActorId;

    fn position(ppm: u32, pass: u32) -> Position {
        Position {
            locator: Locator::new(),
            ppm,
            intent: Intent::Advance,
            pass,
            wall_ms: 5,
            seen: Hlc::ZERO,
        }
    }

    fn field(stamp: u64, counter: u64, value: Scalar) -> Field {
        let op = OpId { counter, actor: ActorId([1; 16]) };
        let stamp = Hlc::from_packed(stamp).unwrap();
        Field::from_holders(vec![Holder { op, stamp, value }])
    }

    fn entry(device: u8, stamp: u64, counter: u64, ppm: u32, pass: u32, mark: i64) -> Entry {
        let positions = field(stamp, counter, Scalar::Text(position(ppm, pass).to_json()));
        let withdrawn = field(stamp.max(1_000), 1, Scalar::Int(mark));
        entries(DeviceId([device; 16]), &positions, &withdrawn).next().unwrap()
    }

    #[test]
    fn the_latest_entry_of_the_highest_pass_is_the_place() {
        let all = [
            entry(1, 50, 9, 900_000, 1, 0),
            entry(2, 20, 3, 10_000, 2, 0),
            entry(3, 30, 2, 5_000, 2, 0),
        ];
        assert_eq!(place(&all).unwrap().device, DeviceId([3; 16]));
        assert_eq!(highest_pass(&all), 2);
    }

    #[test]
    fn a_withdrawn_entry_counts_only_when_no_other_does() {
        let withdrawn = entry(1, 50, 1, 900_000, 1, 50);
        let standing = entry(2, 40, 1, 500_000, 1, 0);
        let both = [withdrawn.clone(), standing];
        assert_eq!(place(&both).unwrap().device, DeviceId([2; 16]));
        assert_eq!(place(&[withdrawn]).unwrap().device, DeviceId([1; 16]));
        assert_eq!(seen_by(DeviceId([9; 16]), &both), Hlc::from_packed(40).unwrap());
    }

    #[test]
    fn a_mark_above_its_own_change_or_not_positive_does_not_count() {
        assert_eq!(withdrawal_mark(&field(10, 1, Scalar::Int(11))), Hlc::ZERO);
        assert_eq!(withdrawal_mark(&field(10, 1, Scalar::Int(-3))), Hlc::ZERO);
        assert_eq!(withdrawal_mark(&field(10, 1, Scalar::Int(10))).packed(), 10);
        let last = Hlc::LAST.packed();
        let at_last = field(last, 1, Scalar::Int(last.cast_signed()));
        assert_eq!(withdrawal_mark(&at_last), Hlc::ZERO);
    }

    #[test]
    fn a_position_out_of_range_does_not_count() {
        let json = position(1, 1).to_json();
        assert_eq!(Position::from_json(&json), Some(position(1, 1)));
        assert_eq!(Position::from_json(&position(PPM_MAX + 1, 1).to_json()), None);
        assert_eq!(Position::from_json(&position(1, 0).to_json()), None);
        assert_eq!(Position::from_json(&position(1, PASS_MAX + 1).to_json()), None);
        assert_eq!(Position::from_json("{}"), None);
    }

    #[test]
    fn the_furthest_point_is_kept_by_pass() {
        let point = |ppm| Furthest { locator: Locator::new(), ppm }.to_json();
        let device = DeviceId([1; 16]);
        let (first, second) = (format!("{device}/1"), format!("{device}/2"));
        let far = field(1, 1, Scalar::Text(point(700)));
        let near = field(2, 2, Scalar::Text(point(30)));
        let fields = [(first.as_str(), &far), (second.as_str(), &near)];
        assert_eq!(furthest(1, fields.into_iter()).unwrap().ppm, 700);
        assert_eq!(furthest(2, fields.into_iter()).unwrap().ppm, 30);
        assert_eq!(furthest(3, fields.into_iter()), None);
    }
}

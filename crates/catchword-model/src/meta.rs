//! What is known about a book or a device: values with a rank, and small JSON records.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::merge::{Field, Holder};
use crate::schema::{parse_total, tag_key};

/// Longest value that is shown, in bytes of its JSON.
pub const META_BYTES_MAX: usize = 16 << 10;

/// Who says so. A higher rank counts before a later write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    /// Made up for want of better, such as the file name.
    Placeholder,
    /// From the book file.
    File,
    /// From the person.
    User,
}

/// The value of a field of `meta`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// What it is: text for a title or a language, a list of texts for authors.
    pub value: Value,
    /// Who says so.
    pub rank: Rank,
}

impl Meta {
    /// Writes the value of a field.
    pub fn to_json(&self) -> String {
        serde_json::json!({ "value": self.value, "rank": self.rank }).to_string()
    }

    /// Reads the value of a field; `None` for what does not count.
    pub fn from_json(text: &str) -> Option<Self> {
        if META_BYTES_MAX < text.len() {
            return None;
        }
        serde_json::from_str(text).ok()
    }
}

/// Returns what counts for a field of `meta`: the highest rank, then the latest write.
pub fn meta(field: &Field) -> Option<Meta> {
    let parse = |holder: &Holder| Some((Meta::from_json(holder.value.as_text()?)?, holder.order()));
    let best = field.holders().iter().filter_map(parse);
    best.max_by_key(|(meta, order)| (meta.rank, *order)).map(|(meta, _)| meta)
}

/// Greatest running total, and greatest sum: what every reader of JSON keeps exactly.
pub const TOTAL_MAX: u64 = (1 << 53) - 1;

/// Returns a total over all devices.
///
/// `fields` are the keys of `totals` with what holds them. Of each device the latest write counts
/// that is a whole number from 0 to [`TOTAL_MAX`]; others are ignored. The sum stays at
/// [`TOTAL_MAX`] once it has reached it.
pub fn total<'a>(name: &str, fields: impl Iterator<Item = (&'a str, &'a Field)>) -> u64 {
    let of_name = fields.filter(|(key, _)| parse_total(key).is_some_and(|(of, _)| of == name));
    let values = of_name.filter_map(|(_, field)| {
        let valid = field.holders().iter().filter_map(|holder| {
            let value = u64::try_from(holder.value.as_int()?).ok()?;
            (value <= TOTAL_MAX).then_some((holder.order(), value))
        });
        valid.max_by_key(|(order, _)| *order).map(|(_, value)| value)
    });
    values.fold(0, |sum: u64, value| sum.saturating_add(value).min(TOTAL_MAX))
}

/// Returns the tags: the keys of `tags` that something holds.
///
/// A tag added beside a concurrent removal stays, since the removal does not name that write. A key
/// that is not the one form of a tag is ignored.
pub fn tags<'a>(fields: impl Iterator<Item = (&'a str, &'a Field)>) -> BTreeSet<String> {
    let held = fields.filter(|(_, field)| !field.is_empty()).map(|(key, _)| key);
    held.filter(|key| tag_key(key).is_ok_and(|tag| tag == *key)).map(str::to_owned).collect()
}

/// What a device is called: the value of its key in `devices`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceName {
    /// The name a person gave it.
    pub name: String,
    /// The operating system.
    #[serde(default)]
    pub platform: String,
    /// The device it took the place of, after a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

impl DeviceName {
    /// Writes the value of a key of `devices`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what counts for a key of `devices`.
    pub fn of(field: &Field) -> Option<Self> {
        serde_json::from_str(field.latest()?.value.as_text()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{OpId, Scalar};
    use crate::hlc::Hlc;
    use crate::id::{ActorId, DeviceId};
    use crate::schema::total_key;

    fn number(counter: u64, stamp: u64, value: Scalar) -> Holder {
        let op = OpId { counter, actor: ActorId([1; 16]) };
        Holder { op, stamp: Hlc::from_packed(stamp).unwrap(), value }
    }

    fn sum(values: &[Vec<Holder>]) -> u64 {
        let keys = (1..).map(|n| total_key("seconds", DeviceId([n; 16])));
        let mut fields: Vec<(String, Field)> =
            keys.zip(values.iter().cloned().map(Field::from_holders)).collect();
        let other = vec![number(1, 1, Scalar::Int(1_000))];
        fields.push((total_key("turns", DeviceId([1; 16])), Field::from_holders(other)));
        total("seconds", fields.iter().map(|(key, field)| (key.as_str(), field)))
    }

    #[test]
    fn a_total_is_the_sum_over_devices_of_what_each_wrote_last() {
        let first = vec![number(5, 10, Scalar::Int(30)), number(4, 20, Scalar::Int(40))];
        assert_eq!(sum(&[first, vec![number(1, 1, Scalar::Uint(2))]]), 42);
        assert_eq!(sum(&[]), 0);
    }

    #[test]
    fn what_is_no_total_is_ignored_and_a_sum_stays_at_the_greatest() {
        let max = i64::try_from(TOTAL_MAX).unwrap();
        let wrong = [
            Scalar::Int(-1),
            Scalar::Int(max + 1),
            Scalar::Uint(u64::MAX),
            Scalar::F64(3.0),
            Scalar::Text("3".to_owned()),
        ];
        let late: Vec<_> = wrong.into_iter().map(|value| number(9, 9, value)).collect();
        for wrong in late {
            assert_eq!(sum(&[vec![wrong, number(1, 1, Scalar::Int(7))]]), 7);
        }
        let full = || vec![number(1, 1, Scalar::Int(max))];
        assert_eq!(sum(&[full()]), TOTAL_MAX);
        assert_eq!(sum(&[full(), vec![number(1, 1, Scalar::Int(1))], full()]), TOTAL_MAX);
    }

    #[test]
    fn a_tag_is_a_key_that_something_holds() {
        let held = Field::from_holders(vec![number(1, 1, Scalar::Int(1))]);
        let empty = Field::default();
        let fields = [("sea", &held), ("ship", &empty), (" sea", &held), ("a\u{7}b", &held)];
        assert_eq!(tags(fields.into_iter()), BTreeSet::from(["sea".to_owned()]));
    }

    #[test]
    fn what_a_person_wrote_counts_before_a_later_import() {
        let holder = |counter, stamp, rank, text: &str| Holder {
            op: OpId { counter, actor: ActorId([1; 16]) },
            stamp: Hlc::from_packed(stamp).unwrap(),
            value: Scalar::Text(Meta { value: text.into(), rank }.to_json()),
        };
        let field = Field::from_holders(vec![
            holder(1, 10, Rank::User, "Moby-Dick"),
            holder(2, 20, Rank::File, "moby_dick_v2"),
            holder(3, 5, Rank::User, "Whale"),
        ]);
        assert_eq!(meta(&field).unwrap().value, "Moby-Dick");
    }
}

//! Who holds a field, who wins, what conflicts: the merge of one register.
//!
//! A register is held by every operation that wrote it and was not superseded. Two or more holders
//! are a conflict; which of them counts is a function of the set of changes alone.

use crate::change::{OpId, Scalar};
use crate::hlc::Hlc;

/// An operation that currently holds a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    /// The operation.
    pub op: OpId,
    /// The stamp of its change; an invalid one counts as [`Hlc::ZERO`].
    pub stamp: Hlc,
    /// What it wrote.
    pub value: Scalar,
}

/// The order of two writes in a document: stamp, then operation counter, then actor.
///
/// A counter is one above everything in the past of its change, so "later in cause wins" holds even
/// where stamps cannot rise.
pub type Order = (Hlc, u64, crate::id::ActorId);

impl Holder {
    /// Returns where this write stands in the order of the document.
    pub fn order(&self) -> Order {
        (self.stamp, self.op.counter, self.op.actor)
    }
}

/// A register with the operations that hold it, ascending by operation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Field {
    holders: Vec<Holder>,
}

impl Field {
    /// Makes a field of holders as they were stored.
    pub fn from_holders(mut holders: Vec<Holder>) -> Self {
        holders.sort_unstable_by_key(|holder| holder.op);
        Self { holders }
    }

    /// Returns the holders, ascending by operation: what a write of this field supersedes.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Returns whether nothing holds the field.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Returns whether writes that did not know each other hold the field.
    pub fn is_conflict(&self) -> bool {
        1 < self.holders.len()
    }

    /// Returns the holder that counts: the latest.
    pub fn latest(&self) -> Option<&Holder> {
        self.holders.iter().max_by_key(|holder| holder.order())
    }

    /// Removes what `predecessors` wrote. One that holds nothing any more changes nothing.
    pub fn supersede(&mut self, predecessors: &[OpId]) {
        if !predecessors.is_empty() {
            self.holders.retain(|holder| !predecessors.contains(&holder.op));
        }
    }

    /// Adds a holder. Adding the same operation again changes nothing.
    pub fn put(&mut self, holder: Holder) {
        if let Err(place) = self.holders.binary_search_by_key(&holder.op, |held| held.op) {
            self.holders.insert(place, holder);
        }
    }

    /// Returns whether the field says that its record is deleted.
    ///
    /// A positive stamp says deleted, a negative one kept, anything else nothing; any holder that
    /// says kept wins. So a delete that has seen an edit deletes, and a concurrent edit keeps.
    pub fn is_deleted(&self) -> bool {
        let (deleted, kept) = self.deletion_votes();
        deleted && !kept
    }

    /// Returns whether an edit and a delete did not know each other.
    pub fn is_edited_while_deleted(&self) -> bool {
        self.deletion_votes() == (true, true)
    }

    fn deletion_votes(&self) -> (bool, bool) {
        let votes = self
            .holders
            .iter()
            .map(|holder| if let Scalar::Int(stamp) = holder.value { stamp.signum() } else { 0 });
        votes.fold((false, false), |(deleted, kept), vote| (deleted || 0 < vote, kept || vote < 0))
    }
}

impl Scalar {
    /// Returns the text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null
            | Self::Boolean(_)
            | Self::Uint(_)
            | Self::Int(_)
            | Self::F64(_)
            | Self::Bytes(_)
            | Self::Counter(_)
            | Self::Timestamp(_) => None,
        }
    }

    /// Returns the whole number, if it is one that fits.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Uint(value) => i64::try_from(*value).ok(),
            Self::Null
            | Self::Boolean(_)
            | Self::Text(_)
            | Self::F64(_)
            | Self::Bytes(_)
            | Self::Counter(_)
            | Self::Timestamp(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActorId;

    fn holder(counter: u64, actor: u8, stamp: u64, value: i64) -> Holder {
        Holder {
            op: OpId { counter, actor: ActorId([actor; 16]) },
            stamp: Hlc::from_packed(stamp).unwrap(),
            value: Scalar::Int(value),
        }
    }

    #[test]
    fn the_latest_is_by_stamp_then_counter_then_actor() {
        let field = Field::from_holders(vec![
            holder(9, 1, 5, 0),
            holder(3, 1, 6, 0),
            holder(4, 1, 6, 0),
            holder(4, 2, 6, 0),
        ]);
        assert_eq!(field.latest(), Some(&holder(4, 2, 6, 0)));
    }

    #[test]
    fn a_delete_that_has_seen_the_edit_deletes_and_a_concurrent_one_does_not() {
        let mut field = Field::default();
        field.put(holder(1, 1, 10, -10));
        assert!(!field.is_deleted());

        field.put(holder(1, 2, 11, 11));
        assert!(!field.is_deleted());
        assert!(field.is_edited_while_deleted());

        let seen: Vec<_> = field.holders().iter().map(|holder| holder.op).collect();
        field.supersede(&seen);
        field.put(holder(2, 2, 12, 12));
        assert!(field.is_deleted());
    }

    #[test]
    fn a_predecessor_that_holds_nothing_any_more_changes_nothing() {
        let mut field = Field::default();
        field.put(holder(2, 1, 10, 1));
        let before = field.clone();
        field.supersede(&[OpId { counter: 1, actor: ActorId([1; 16]) }]);
        field.put(holder(2, 1, 10, 1));
        assert_eq!(field, before);
    }
}

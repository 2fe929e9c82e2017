//! What devices give each other: changes in runs, reading events, and the statements that cover them.
//!
//! ```text
//! piece       1, list of signers, list of parcels
//! signer      public key as bytes, generation (16)
//! parcel      name, list of runs as bytes, list of event runs, list of statements
//! name        0 the library; 1 a book, 2 the notes of a book, with the book id (32)
//! event run   actor (16), number of the first event, hash of the event before it (32), list of events
//! event       pass, from and to ppm, seconds, turns, wall clock, stamp
//! statement   place of the signer in the list, n of the author, 0 for a change or 1 for an event,
//!             its number, its hash (32), signature (64)
//! ```
//!
//! Numbers are LEB128, bytes and lists have their length before them.
//!
//! # Invariants
//!
//! 1. A piece has one spelling: what is read, encoded again, has the same bytes.
//! 2. A length that a peer claims is held against what is there before anything of that size is kept.
//! 3. Whether a statement is valid depends on its bytes alone.
//!
//! # What is not here
//!
//! What is in a run of changes: a record of the log, which [`catchword-store`](../catchword_store/index.html)
//! packs and unpacks. And who is given what.

mod piece;
mod statement;

pub use piece::{
    CHANGES_MAX, CONTENT_BYTES_MAX, DocumentName, EventRun, PIECE_BYTES_MAX, Parcel, Piece,
    PieceError, STATEMENTS_MAX,
};
pub use statement::{Signed, Statement, events_message, head_message};

use crate::id::{ActorId, ChangeHash, DocumentId, EventHash, sha256};

/// How far an actor's chain reaches: its last number, and the first bytes of the hash there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// Whose.
    pub actor: ActorId,
    /// The number of its last change or event.
    pub number: u64,
    /// The first 8 bytes of the hash of that change or event.
    pub prefix: [u8; 8],
}

/// What of a document is here. An actor's changes form a chain, so this says exactly what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vector {
    /// By changes, ascending by actor.
    pub changes: Vec<Reach>,
    /// By reading events, ascending by actor.
    pub events: Vec<Reach>,
    /// The last of each branch that does not count, ascending.
    pub void: Vec<Reach>,
}

/// Returns the first 8 bytes of a hash.
pub fn prefix_of(hash: &[u8; 32]) -> [u8; 8] {
    hash.first_chunk().copied().unwrap_or_default()
}

/// What stands for the state of one document where libraries are compared: a SHA-256.
///
/// `heads` are those of its changes and `event_heads` the last event of each actor; their order does
/// not matter.
pub fn item(document: DocumentId, heads: &[ChangeHash], event_heads: &[EventHash]) -> [u8; 32] {
    let mut heads: Vec<&[u8; 32]> = heads.iter().map(|hash| &hash.0).collect();
    heads.sort_unstable();
    let mut events: Vec<&[u8; 32]> = event_heads.iter().map(|hash| &hash.0).collect();
    events.sort_unstable();
    let mut parts: Vec<&[u8]> = vec![&document.0];
    parts.extend(heads.into_iter().chain(events).map(<[u8; 32]>::as_slice));
    sha256(&parts)
}

/// A sum of items modulo 2^256: what a set of documents is, whatever order it was summed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Sum(pub [u8; 32]);

impl Sum {
    /// Adds an item.
    pub fn add(&mut self, item: &[u8; 32]) {
        let mut carry = 0_u16;
        for (byte, more) in self.0.iter_mut().zip(item).rev() {
            let [high, low] = (u16::from(*byte) + u16::from(*more) + carry).to_be_bytes();
            (*byte, carry) = (low, u16::from(high));
        }
    }

    /// Takes an item out again.
    pub fn subtract(&mut self, item: &[u8; 32]) {
        let mut borrow = 0_i16;
        for (byte, less) in self.0.iter_mut().zip(item).rev() {
            let difference = i16::from(*byte) - i16::from(*less) - borrow;
            let [_, low] = difference.to_be_bytes();
            (*byte, borrow) = (low, i16::from(difference < 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_item_is_the_hash_of_document_heads_and_event_heads() {
        let heads = [ChangeHash([9; 32]), ChangeHash([2; 32])];
        let events = [EventHash([5; 32]), EventHash([4; 32])];
        let parts = [[1; 32], [2; 32], [9; 32], [4; 32], [5; 32]].concat();
        assert_eq!(item(DocumentId([1; 32]), &heads, &events), sha256(&[&parts]));
    }

    #[test]
    fn a_sum_wraps_around() {
        let mut sum = Sum([0xff; 32]);
        let mut one = [0; 32];
        one[31] = 1;
        sum.add(&one);
        assert_eq!(sum, Sum::default());
        sum.subtract(&one);
        assert_eq!(sum, Sum([0xff; 32]));
    }

    proptest! {
        #[test]
        fn a_sum_does_not_depend_on_order(items in prop::collection::vec(any::<[u8; 32]>(), 1..9)) {
            let (mut forward, mut backward) = (Sum::default(), Sum::default());
            for item in &items {
                forward.add(item);
            }
            for item in items.iter().rev() {
                backward.add(item);
            }
            prop_assert_eq!(forward, backward);
            for item in &items[1..] {
                forward.subtract(item);
            }
            prop_assert_eq!(forward, Sum(items[0]));
        }
    }
}

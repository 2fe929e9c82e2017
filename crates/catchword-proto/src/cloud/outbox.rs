//! Which document's changes go first.
//!
//! What is unsent follows from the log and from what the server is known to have; the outbox only orders
//! documents. One place in eight belongs to a lower class, so that nothing starves.

use catchword_model::exchange::DocumentName;

/// One place in so many belongs to a lower class.
pub const LOWER_INTERVAL: u64 = 8;

/// How urgent what is unsent of a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A position: somebody may be about to go on elsewhere.
    Position,
    /// Annotations and everything else.
    Change,
    /// Reading events alone.
    Event,
}

/// A document of which something is unsent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// The most urgent of what is unsent.
    pub class: Class,
    /// The local sequence of the oldest of what is unsent: who waits longest goes first in a class.
    pub since: u64,
    /// Which document.
    pub document: DocumentName,
}

/// Puts documents in the order in which they are sent. `turn` counts places over all calls.
pub fn order(mut waiting: Vec<Waiting>, turn: &mut u64) -> Vec<DocumentName> {
    waiting.sort_unstable();
    let mut ordered = Vec::with_capacity(waiting.len());
    while let Some(first) = waiting.first().copied() {
        *turn += 1;
        let lower = waiting.iter().position(|it| first.class < it.class);
        let place = lower.filter(|_| turn.is_multiple_of(LOWER_INTERVAL)).unwrap_or(0);
        ordered.push(waiting.remove(place).document);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use catchword_model::id::BookId;

    use super::*;

    fn waiting(class: Class, since: u64) -> Waiting {
        let mut id = [class as u8; 32];
        id[..8].copy_from_slice(&since.to_be_bytes());
        Waiting { class, since, document: DocumentName::Book(BookId(id)) }
    }

    #[test]
    fn positions_go_first_and_who_waits_longest_in_a_class() {
        let all = [
            waiting(Class::Event, 1),
            waiting(Class::Change, 2),
            waiting(Class::Position, 9),
            waiting(Class::Position, 4),
        ];
        let expected = [all[3], all[2], all[1], all[0]].map(|it| it.document);
        assert_eq!(order(all.to_vec(), &mut 0), expected);
    }

    #[test]
    fn one_place_in_eight_belongs_to_a_lower_class() {
        let mut turn = 0;
        let mut lower = Vec::new();
        // Every call has more positions than it can send: only the first place of each is used.
        for _ in 0..40 {
            let all = vec![
                waiting(Class::Position, 1),
                waiting(Class::Position, 2),
                waiting(Class::Event, 3),
            ];
            let first = order(all, &mut turn)[0];
            turn -= 2;
            lower.push(first == waiting(Class::Event, 3).document);
        }
        let places: Vec<usize> =
            lower.iter().enumerate().filter(|(_, is)| **is).map(|(at, _)| at).collect();
        assert_eq!(places, [7, 15, 23, 31, 39]);
    }
}

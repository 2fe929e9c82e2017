//! Differences of texts: what a person changed, for texts that merge character by character.
//!
//! Positions and lengths are counted in characters (Unicode scalar values), as Automerge counts them.
//!
//! # Source
//!
//! Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), the greedy form, first by lines
//! and then by words of what differs. It gives up beyond [`EDITS_MAX`] and takes the whole stretch as
//! replaced: its cost is quadratic in the difference, and the text may come from anybody.

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, AutomergeError, ObjType, ROOT, ReadDoc};

/// Lines or words that may differ before a stretch counts as replaced as a whole.
pub const EDITS_MAX: usize = 1_000;

/// One place at which two texts differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// Where in the old text, in characters.
    pub at: usize,
    /// How many characters go.
    pub delete: usize,
    /// What comes in their place.
    pub insert: String,
}

/// Returns what makes `new` of `old`, ascending by place in `old`.
///
/// Applied from the last to the first, the places stay right.
///
/// # Examples
///
/// ```
/// use catchword_model::diff::{Splice, splices};
///
/// let expected = Splice { at: 9, delete: 5, insert: "Ishmael".to_owned() };
/// assert_eq!(splices("Call me, Ahab!.", "Call me, Ishmael."), [expected]);
/// ```
pub fn splices(old: &str, new: &str) -> Vec<Splice> {
    let mut out = Vec::new();
    let mut at = 0;
    for stretch in differences(&lines(old), &lines(new)) {
        at += chars(&stretch.same);
        let behind = at + chars(&stretch.old);
        let (old, new) = (stretch.old.concat(), stretch.new.concat());
        for word in differences(&words(&old), &words(&new)) {
            at += chars(&word.same);
            let (delete, insert) = (word.old.concat(), word.new.concat());
            out.extend(trimmed(at, &delete, &insert));
            at += delete.chars().count();
        }
        at = behind;
    }
    out
}

/// Merges two texts that were made of `base`: what either changed is changed.
///
/// The result does not depend on which text is which. Where both changed the same words, both stand
/// one behind the other, for a person to choose.
///
/// # Examples
///
/// ```
/// use catchword_model::diff::merge_note;
///
/// let merged = merge_note("a white whale", "a great white whale", "a white whale!");
/// assert_eq!(merged, "a great white whale!");
/// ```
pub fn merge_note(base: &str, ours: &str, theirs: &str) -> String {
    let sides = [ours.min(theirs), ours.max(theirs)];
    // Automerge refuses nothing here: the object exists, and every place is inside the text.
    merged(base, sides).unwrap_or_else(|_| sides.concat())
}

fn merged(base: &str, sides: [&str; 2]) -> Result<String, AutomergeError> {
    let mut document = Automerge::new();
    document.set_actor(ActorId::from(vec![0]));
    let mut transaction = document.transaction();
    let text = transaction.put_object(ROOT, "text", ObjType::Text)?;
    transaction.splice_text(&text, 0, 0, base)?;
    transaction.commit();
    let mut copies = Vec::new();
    for (actor, side) in (1..).zip(sides) {
        let mut copy = document.clone();
        copy.set_actor(ActorId::from(vec![actor]));
        let mut transaction = copy.transaction();
        for splice in splices(base, side).into_iter().rev() {
            let delete = splice.delete.cast_signed();
            transaction.splice_text(&text, splice.at, delete, &splice.insert)?;
        }
        transaction.commit();
        copies.push(copy);
    }
    for mut copy in copies {
        document.merge(&mut copy)?;
    }
    document.text(&text)
}

/// A stretch that is the same in both texts, and what differs behind it.
#[derive(Debug, Default)]
struct Difference<'a> {
    same: Vec<&'a str>,
    old: Vec<&'a str>,
    new: Vec<&'a str>,
}

fn chars(pieces: &[&str]) -> usize {
    pieces.iter().map(|piece| piece.chars().count()).sum()
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Splits a text into words, stretches of white space, and everything else by itself.
fn words(text: &str) -> Vec<&str> {
    let class = |c: char| match c {
        _ if c.is_alphanumeric() => 1,
        _ if c.is_whitespace() => 2,
        _ => 0,
    };
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let of = class(first);
        let end = match of {
            0 => first.len_utf8(),
            _ => rest.find(|c| class(c) != of).unwrap_or(rest.len()),
        };
        let (word, tail) = rest.split_at(end);
        out.push(word);
        rest = tail;
    }
    out
}

/// Cuts off what a replaced stretch and its replacement have in common at both ends.
fn trimmed(at: usize, delete: &str, insert: &str) -> Option<Splice> {
    let head = delete.chars().zip(insert.chars()).take_while(|(a, b)| a == b).count();
    let delete: Vec<char> = delete.chars().skip(head).collect();
    let insert: Vec<char> = insert.chars().skip(head).collect();
    let ends = delete.iter().rev().zip(insert.iter().rev());
    let tail = ends.take_while(|(a, b)| a == b).count();
    let delete = delete.len() - tail;
    let insert: String = insert.iter().take(insert.len() - tail).collect();
    (delete != 0 || !insert.is_empty()).then_some(Splice { at: at + head, delete, insert })
}

fn differences<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Difference<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (same, old) = old.split_at(head);
    let (_, new) = new.split_at(head);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, _) = old.split_at(old.len() - tail);
    let (new, _) = new.split_at(new.len() - tail);
    let mut out = match Path::shortest(old, new) {
        Some(path) => path.differences(old, new),
        None => vec![Difference { same: Vec::new(), old: old.to_vec(), new: new.to_vec() }],
    };
    if let Some(first) = out.first_mut() {
        first.same.splice(0..0, same.iter().copied());
    }
    out.retain(|difference| !(difference.old.is_empty() && difference.new.is_empty()));
    out
}

/// A way through the grid of two sequences: for each number of edits the furthest places.
struct Path {
    /// For `d` edits, how far each diagonal from -d to d goes, in the old sequence.
    rounds: Vec<Vec<usize>>,
}

impl Path {
    fn shortest(old: &[&str], new: &[&str]) -> Option<Self> {
        let mut rounds: Vec<Vec<usize>> = Vec::new();
        for edits in 0..=EDITS_MAX {
            let mut round = Vec::with_capacity(2 * edits + 1);
            let mut done = false;
            for place in 0..=2 * edits {
                if place % 2 == 1 {
                    // An odd place is a diagonal that so many edits do not end on.
                    round.push(0);
                    continue;
                }
                let x = match rounds.last() {
                    Some(before) => from_before(before, place),
                    None => 0,
                };
                // The diagonal is place - edits = x - y; what is off the grid is never reached.
                let y = (x + edits).checked_sub(place);
                let x = y.map_or(x, |y| x + run(old, new, x, y));
                done |= y.is_some() && x == old.len() && x + edits == new.len() + place;
                round.push(x);
            }
            rounds.push(round);
            if done {
                return Some(Self { rounds });
            }
        }
        None
    }

    /// Walks back from the end, and returns what differs, from the start.
    fn differences<'a>(&self, old: &[&'a str], new: &[&'a str]) -> Vec<Difference<'a>> {
        let (mut x, mut y) = (old.len(), new.len());
        let mut steps: Vec<Step> = Vec::new();
        for edits in (0..self.rounds.len()).rev() {
            let place = (x + edits).saturating_sub(y);
            let before = edits.checked_sub(1).and_then(|edits| self.rounds.get(edits));
            let start = before.map_or(0, |before| from_before(before, place));
            while start < x && 0 < y {
                (x, y) = (x - 1, y - 1);
                steps.push(Step::Same);
            }
            let Some(before) = before else { break };
            if is_deletion(before, place) {
                x = x.saturating_sub(1);
                steps.push(Step::Delete);
            } else {
                y = y.saturating_sub(1);
                steps.push(Step::Insert);
            }
        }
        collect(steps.into_iter().rev(), old, new)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Same,
    Delete,
    Insert,
}

fn collect<'a>(
    steps: impl Iterator<Item = Step>,
    old: &[&'a str],
    new: &[&'a str],
) -> Vec<Difference<'a>> {
    let (mut old, mut new) = (old.iter(), new.iter());
    let mut out = vec![Difference::default()];
    let mut differs = false;
    for step in steps {
        if step == Step::Same && differs {
            out.push(Difference::default());
        }
        differs = step != Step::Same;
        let Some(last) = out.last_mut() else { continue };
        match step {
            Step::Same => {
                last.same.extend(old.next());
                new.next();
            }
            Step::Delete => last.old.extend(old.next()),
            Step::Insert => last.new.extend(new.next()),
        }
    }
    out
}

/// How many pieces are the same from here on.
fn run(old: &[&str], new: &[&str], x: usize, y: usize) -> usize {
    match (old.get(x..), new.get(y..)) {
        (Some(old), Some(new)) => old.iter().zip(new).take_while(|(a, b)| a == b).count(),
        _ => 0,
    }
}

/// Where a diagonal starts, given the round with one edit less: the better of deleting and inserting.
fn from_before(before: &[usize], place: usize) -> usize {
    let after_insertion = before.get(place).copied();
    let deleted = place.checked_sub(2).and_then(|place| before.get(place)).map(|x| x + 1);
    after_insertion.max(deleted).unwrap_or(0)
}

fn is_deletion(before: &[usize], place: usize) -> bool {
    let after_insertion = before.get(place).copied();
    let deleted = place.checked_sub(2).and_then(|place| before.get(place)).map(|x| x + 1);
    after_insertion < deleted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(old: &str, splices: &[Splice]) -> String {
        let mut text: Vec<char> = old.chars().collect();
        for splice in splices.iter().rev() {
            text.splice(splice.at..splice.at + splice.delete, splice.insert.chars());
        }
        text.into_iter().collect()
    }

    fn splice(at: usize, delete: usize, insert: &str) -> Splice {
        Splice { at, delete, insert: insert.to_owned() }
    }

    #[test]
    fn only_what_differs_is_touched() {
        assert_eq!(splices("", ""), []);
        assert_eq!(splices("same\n", "same\n"), []);
        assert_eq!(splices("", "new"), [splice(0, 0, "new")]);
        assert_eq!(splices("old", ""), [splice(0, 3, "")]);
        let old = "one two three\nfour five\nsix";
        let new = "one three\nfour, five\nsix\n";
        assert_eq!(splices(old, new), [splice(4, 4, ""), splice(18, 0, ","), splice(27, 0, "\n")]);
        assert_eq!(splices("\u{1F4DA} read", "\u{1F4DA} reads"), [splice(6, 0, "s")]);
    }

    #[test]
    fn texts_that_have_nothing_in_common_are_replaced_as_a_whole_and_soon() {
        let text = |seed: u64| -> String {
            let words = (0..20_000_u64).map(|n| (n.wrapping_mul(seed) % 99_991).to_string());
            words.collect::<Vec<_>>().join(" ")
        };
        let (old, new) = (text(7_919), text(104_729));
        let splices = splices(&old, &new);
        assert_eq!(apply(&old, &splices), new);
        assert!(splices.len() <= EDITS_MAX);
    }

    #[test]
    fn a_merge_has_what_either_side_changed() {
        assert_eq!(merge_note("a b c", "a x b c", "a b c y"), "a x b c y");
        assert_eq!(merge_note("a b c", "b c", "a b c"), "b c");
        assert_eq!(merge_note("same", "same", "same"), "same");
        let both = merge_note("", "ours", "theirs");
        assert_eq!(both, merge_note("", "theirs", "ours"));
        assert!(both.contains("ours") && both.contains("theirs"), "{both}");
    }

    proptest! {
        #[test]
        fn splices_make_the_new_text_of_the_old(old in "[ab \n,\u{e9}]{0,40}", new in "[ab \n,\u{e9}]{0,40}") {
            let splices = splices(&old, &new);
            prop_assert_eq!(apply(&old, &splices), new);
            for pair in splices.windows(2) {
                prop_assert!(pair[0].at + pair[0].delete < pair[1].at);
            }
        }

        /// Held against the plain recurrence: nobody deletes and inserts fewer words.
        #[test]
        fn the_difference_is_a_shortest_one(old in "[ab]( [ab]){0,9}", new in "[ab]( [ab]){0,9}") {
            let (old, new) = (words(&old), words(&new));
            let found = differences(&old, &new);
            let edits: usize = found.iter().map(|found| found.old.len() + found.new.len()).sum();
            prop_assert_eq!(edits, old.len() + new.len() - 2 * longest_common(&old, &new));
        }

        #[test]
        fn a_merge_does_not_depend_on_which_side_is_ours(
            base in "[ab ]{0,12}", ours in "[abc ]{0,12}", theirs in "[abd ]{0,12}",
        ) {
            let merged = merge_note(&base, &ours, &theirs);
            prop_assert_eq!(&merged, &merge_note(&base, &theirs, &ours));
            prop_assert_eq!(merge_note(&base, &ours, &base), ours);
        }
    }

    fn longest_common(a: &[&str], b: &[&str]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut corner = 0;
            for (place, y) in b.iter().enumerate() {
                let above = row[place + 1];
                row[place + 1] = if x == y { corner + 1 } else { above.max(row[place]) };
                corner = above;
            }
        }
        row[b.len()]
    }
}

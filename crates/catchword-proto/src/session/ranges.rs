//! Which documents differ: range-based set reconciliation over (document, state).
//!
//! Both sides sort their common set by document. A span whose digests agree holds the same; one that
//! does not is named document by document if it is short, else split into parts of equal length.
//! So two sets of n documents that differ in d cost about d × log n digests.
//!
//! # Source
//!
//! A. Meyer, "Range-Based Set Reconciliation" (SRDS 2023), with a fixed number of parts and a digest
//! that is a plain hash over the items, since the sets are small enough to be read whole.

use std::collections::{BTreeSet, VecDeque};

use catchword_model::id::DocumentId;
use sha2::{Digest, Sha256};

use crate::session::message::{ITEMS_MAX, PARTS_MAX, SPANS_MAX, SpanAnswer, SpanDigest};
use crate::session::{Item, Span, Violation, short};

/// Spans that wait to be asked about. Each request settles 256, and what it splits is bounded by the
/// documents of both sides.
const PENDING_MAX: usize = 65_536;

/// Documents that may be found to differ: as many as a store has.
const FOUND_MAX: usize = 200_000;

/// The requester's search for documents that differ.
#[derive(Debug)]
pub(crate) struct Search {
    /// The requester's common set. Invariant: ascending by document.
    mine: Vec<Item>,
    pending: VecDeque<Span>,
    asked: Vec<Span>,
    found: BTreeSet<DocumentId>,
}

impl Search {
    /// Begins with all documents of the requester.
    pub(crate) fn new(mine: Vec<Item>) -> Self {
        let pending = match answer(&mine, &SpanDigest::default()) {
            SpanAnswer::Parts(parts) => spans(Span::ALL, &parts).collect(),
            SpanAnswer::Equal | SpanAnswer::Items(_) => VecDeque::from([Span::ALL]),
        };
        Self { mine, pending, asked: Vec::new(), found: BTreeSet::new() }
    }

    /// Returns what to ask about next; nothing when the search is over.
    pub(crate) fn request(&mut self) -> Vec<(Span, SpanDigest)> {
        let count = self.pending.len().min(SPANS_MAX);
        self.asked = self.pending.drain(..count).collect();
        // Parts of one answer go to the end, so spans of different depths would mix.
        self.asked.sort_by_key(|span| span.from);
        self.asked.iter().map(|span| (*span, digest(within(&self.mine, *span)))).collect()
    }

    /// Takes the answers to the last request.
    pub(crate) fn response(&mut self, answers: Vec<SpanAnswer>) -> Result<(), Violation> {
        let asked = std::mem::take(&mut self.asked);
        if asked.len() != answers.len() {
            return Err(Violation::Unasked);
        }
        for (span, answer) in asked.into_iter().zip(answers) {
            match answer {
                SpanAnswer::Equal => (),
                SpanAnswer::Items(theirs) => self.compare(span, &theirs)?,
                SpanAnswer::Parts(parts) => self.split(span, &parts)?,
            }
        }
        let pending = (self.pending.len(), PENDING_MAX);
        for (count, count_max) in [pending, (self.found.len(), FOUND_MAX)] {
            if count_max < count {
                return Err(Violation::TooMany { count, count_max });
            }
        }
        Ok(())
    }

    /// Returns the documents that differ.
    pub(crate) fn found(self) -> BTreeSet<DocumentId> {
        self.found
    }

    fn compare(&mut self, span: Span, theirs: &[Item]) -> Result<(), Violation> {
        if theirs.iter().any(|item| !span.contains(item.document)) {
            return Err(Violation::Unasked);
        }
        let mine = within(&self.mine, span);
        self.found.extend(missing(mine, theirs).chain(missing(theirs, mine)));
        Ok(())
    }

    fn split(&mut self, span: Span, parts: &[(DocumentId, SpanDigest)]) -> Result<(), Violation> {
        let begins = parts.first().is_some_and(|(first, _)| *first == span.from);
        if !begins || parts.iter().any(|(first, _)| !span.contains(*first)) {
            return Err(Violation::Unasked);
        }
        let differing = spans(span, parts)
            .zip(parts)
            .filter(|(span, (_, theirs))| digest(within(&self.mine, *span)) != *theirs)
            .map(|(span, _)| span);
        self.pending.extend(differing);
        Ok(())
    }
}

/// Returns what to say of a span whose items are `mine` to somebody who has another digest there.
pub(crate) fn answer(mine: &[Item], theirs: &SpanDigest) -> SpanAnswer {
    if digest(mine) == *theirs {
        return SpanAnswer::Equal;
    }
    if mine.len() <= ITEMS_MAX {
        return SpanAnswer::Items(mine.to_vec());
    }
    let parts = mine.chunks(mine.len().div_ceil(PARTS_MAX));
    let parts = parts.filter_map(|part| Some((part.first()?.document, digest(part))));
    SpanAnswer::Parts(parts.collect())
}

/// Returns `answer` with its first part moved to where the span begins.
pub(crate) fn answer_span(span: Span, mine: &[Item], theirs: &SpanDigest) -> SpanAnswer {
    let mut answer = answer(mine, theirs);
    if let SpanAnswer::Parts(parts) = &mut answer
        && let Some((first, _)) = parts.first_mut()
    {
        *first = span.from;
    }
    answer
}

fn spans(whole: Span, parts: &[(DocumentId, SpanDigest)]) -> impl Iterator<Item = Span> {
    let ends = parts.iter().skip(1).map(|(next, _)| Some(*next)).chain([whole.to]);
    let begins = [whole.from].into_iter().chain(parts.iter().skip(1).map(|(first, _)| *first));
    begins.zip(ends).map(|(from, to)| Span { from, to })
}

fn missing(from: &[Item], there: &[Item]) -> impl Iterator<Item = DocumentId> {
    from.iter().filter(|item| !there.contains(item)).map(|item| item.document)
}

fn within(items: &[Item], span: Span) -> &[Item] {
    let begin = items.partition_point(|item| item.document < span.from);
    let end = items.partition_point(|item| span.to.is_none_or(|to| item.document < to));
    items.get(begin..end).unwrap_or_default()
}

fn digest(items: &[Item]) -> SpanDigest {
    let mut hasher = Sha256::new_with_prefix(b"catchword/span/v1");
    for item in items {
        hasher.update(item.document.0);
        hasher.update(item.state);
    }
    short(&hasher.finalize())
}

impl Span {
    /// Every document.
    pub const ALL: Self = Self { from: DocumentId([0; 32]), to: None };

    /// Whether a document lies in this span.
    pub fn contains(self, document: DocumentId) -> bool {
        self.from <= document && self.to.is_none_or(|to| document < to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(number: u32) -> DocumentId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        DocumentId(bytes)
    }

    fn items(states: impl IntoIterator<Item = (u32, u8)>) -> Vec<Item> {
        let item = |(number, state)| Item { document: document(number), state: [state; 8] };
        states.into_iter().map(item).collect()
    }

    /// Runs a search to its end. Returns what it found, and in how many requests.
    fn search(mine: Vec<Item>, theirs: &[Item]) -> (BTreeSet<DocumentId>, usize) {
        let mut search = Search::new(mine);
        let mut requests = 0;
        loop {
            let spans = search.request();
            if spans.is_empty() {
                return (search.found(), requests);
            }
            requests += 1;
            let answer = |(span, digest): &(Span, SpanDigest)| {
                answer_span(*span, within(theirs, *span), digest)
            };
            search.response(spans.iter().map(answer).collect()).unwrap();
        }
    }

    #[test]
    fn one_document_of_ten_thousand_is_found_in_two_requests() {
        let mine = items((0..10_000).map(|number| (number * 7, 1)));
        let mut theirs = mine.clone();
        theirs[4_711].state = [2; 8];

        let found = (BTreeSet::from([theirs[4_711].document]), 2);
        assert_eq!(search(mine, &theirs), found);
    }

    #[test]
    fn whoever_has_nothing_finds_everything_and_whoever_has_the_same_nothing() {
        let theirs = items((0..1_000).map(|number| (number, 1)));
        let all: BTreeSet<_> = theirs.iter().map(|item| item.document).collect();
        assert!(search(Vec::new(), &theirs) == (all.clone(), 2));
        assert!(search(theirs.clone(), &[]) == (all, 1));
        assert_eq!(search(theirs.clone(), &theirs), (BTreeSet::new(), 1));
    }

    #[test]
    fn an_answer_about_something_else_is_refused() {
        let outside = SpanAnswer::Items(items([(5_000, 1)]));
        let elsewhere = SpanAnswer::Parts(vec![(document(0), [0; 16]), (document(5_000), [0; 16])]);
        let late = SpanAnswer::Parts(vec![(document(1), [0; 16]), (document(2), [0; 16])]);
        for wrong in [outside, elsewhere, late] {
            let mut search = Search::new(items((0..4_096).map(|number| (number, 1))));
            let spans = search.request().len();
            let mut answers = vec![SpanAnswer::Equal; spans];
            answers[0] = wrong;
            assert_eq!(search.response(answers), Err(Violation::Unasked));
        }
        let mut search = Search::new(Vec::new());
        search.request();
        assert_eq!(search.response(Vec::new()), Err(Violation::Unasked));
    }

    #[test]
    fn a_responder_that_splits_for_ever_is_stopped_at_the_limit() {
        let mut search = Search::new(Vec::new());
        let violation = loop {
            let spans = search.request();
            let split = |(span, _): &(Span, SpanDigest)| {
                let begin = u32::from_be_bytes(*span.from.0.first_chunk().unwrap());
                let end =
                    span.to.map_or(u32::MAX, |to| u32::from_be_bytes(*to.0.first_chunk().unwrap()));
                let step = (end - begin) / 16;
                let part =
                    |at| (if at == 0 { span.from } else { document(begin + at * step) }, [1; 16]);
                SpanAnswer::Parts((0..16).map(part).collect())
            };
            if let Err(violation) = search.response(spans.iter().map(split).collect()) {
                break violation;
            }
            assert!(search.pending.len() <= PENDING_MAX);
        };
        let Violation::TooMany { count, count_max } = violation else { panic!("{violation:?}") };
        assert_eq!(count_max, PENDING_MAX);
        assert!(count <= PENDING_MAX + 16 * SPANS_MAX, "{count} spans were kept");
    }

    #[test]
    fn no_more_documents_may_differ_than_a_store_has() {
        let mut search = Search::new(Vec::new());
        let all = u32::try_from(FOUND_MAX).unwrap();
        search.found = (0..all).map(document).collect();
        search.request();
        assert_eq!(search.response(vec![SpanAnswer::Items(items([(0, 1)]))]), Ok(()));

        search.pending.push_back(Span::ALL);
        search.request();
        let one_more = search.response(vec![SpanAnswer::Items(items([(all, 1)]))]);
        let (count, count_max) = (FOUND_MAX + 1, FOUND_MAX);
        assert_eq!(one_more, Err(Violation::TooMany { count, count_max }));
    }

    proptest! {
        #[test]
        fn exactly_what_differs_is_found(
            both in proptest::collection::btree_map(0..2_000_u32, 0..2_u8, 0..400),
            changed in proptest::collection::btree_map(0..2_000_u32, 2..4_u8, 0..30),
            gone in proptest::collection::btree_set(0..2_000_u32, 0..30),
        ) {
            let mine = items(both.clone());
            let mut theirs = both.clone();
            theirs.extend(changed.clone());
            theirs.retain(|number, _| !gone.contains(number));

            let differs = |number: &u32| both.get(number) != theirs.get(number);
            let differing = (0..2_000).filter(differs).map(document).collect();
            prop_assert_eq!(search(mine, &items(theirs.clone())).0, differing);
        }
    }
}

//! Works: the books that a person calls the same.
//!
//! Documents are never merged across books; a work is a view. Books are joined by hand (`joins`) or
//! because an identifier says so, which is computed and never stored; `apart` says that two books are
//! not one work, whatever their identifiers say.
//!
//! # Invariants
//!
//! 1. Every book is in exactly one work.
//! 2. A work is named by its smallest book.
//! 3. Every device that has the same library document sees the same works.

use std::collections::{BTreeMap, BTreeSet};

use crate::edit::Edit;
use crate::id::BookId;
use crate::merge::Field;
use crate::schema::{Pair, parse_alias};

/// The kind of alias whose values join books: what a publisher wrote into the file.
pub const IDENTIFIER: &str = "identifier";

/// Everything that decides which books are one work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bonds {
    /// Pairs that somebody joined.
    pub joins: BTreeSet<Pair>,
    /// Pairs that somebody took apart: they beat `derived`, not `joins`.
    pub apart: BTreeSet<Pair>,
    /// Groups of books that share an identifier.
    pub derived: Vec<BTreeSet<BookId>>,
}

impl Bonds {
    /// Returns the works among `books` and all books that are named here, by name.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::BTreeSet;
    ///
    /// use catchword_model::id::BookId;
    /// use catchword_model::schema::Pair;
    /// use catchword_model::work::Bonds;
    ///
    /// let [first, second, third] = [1, 2, 3].map(|n| BookId([n; 32]));
    /// let joins = BTreeSet::from_iter(Pair::new(third, first));
    /// let works = Bonds { joins, ..Bonds::default() }.works([second]);
    ///
    /// assert_eq!(works[&first], BTreeSet::from([first, third]));
    /// assert_eq!(works[&second], BTreeSet::from([second]));
    /// ```
    pub fn works(
        &self,
        books: impl IntoIterator<Item = BookId>,
    ) -> BTreeMap<BookId, BTreeSet<BookId>> {
        let mut names = Names::default();
        for book in books {
            names.of(book);
        }
        for pair in &self.joins {
            let [first, second] = pair.books();
            names.unite(first, second);
        }
        for group in &self.derived {
            self.unite_group(group, &mut names);
        }
        names.works()
    }

    /// Returns the work that `book` is part of.
    pub fn work_of(&self, book: BookId) -> BTreeSet<BookId> {
        let works = self.works([book]).into_values();
        works.into_iter().find(|work| work.contains(&book)).unwrap_or_default()
    }

    /// Unites what a group joins: all pairs but those that were taken apart.
    ///
    /// Goes from book to book over what is not yet reached, so that a large group costs as much as
    /// it has members and pairs apart, not as it has pairs.
    fn unite_group(&self, group: &BTreeSet<BookId>, names: &mut Names) {
        let mut left = group.clone();
        while let Some(start) = left.pop_first() {
            names.of(start);
            let mut reached = vec![start];
            while let Some(book) = reached.pop() {
                let apart = |other: &BookId| {
                    Pair::new(book, *other).is_some_and(|pair| self.apart.contains(&pair))
                };
                let (stay, joined) = left.into_iter().partition(apart);
                left = stay;
                let joined: BTreeSet<BookId> = joined;
                for other in joined {
                    names.unite(book, other);
                    reached.push(other);
                }
            }
        }
    }

    /// Returns the edits that take `book` out of its work and leave the rest of it together.
    ///
    /// They delete the joins of the book, join those it held together, and put it apart from every
    /// other book of the work, so that no identifier brings it back. Nothing is returned for a book
    /// that is a work by itself.
    pub fn split(&self, book: BookId) -> Vec<Edit> {
        let own = self.joins.iter().filter_map(|pair| Some((*pair, pair.other(book)?)));
        let mut neighbours: BTreeSet<BookId> = own.clone().map(|(_, other)| other).collect();
        for group in self.derived.iter().filter(|group| group.contains(&book)) {
            let derived = |other: &&BookId| {
                Pair::new(book, **other).is_some_and(|pair| !self.apart.contains(&pair))
            };
            neighbours.extend(group.iter().filter(derived));
        }
        let mut edits: Vec<Edit> = own.map(|(pair, _)| Edit::Unjoin(pair)).collect();
        let followers = neighbours.iter().skip(1);
        let chain = neighbours.iter().zip(followers).filter_map(|(a, b)| Pair::new(*a, *b));
        edits.extend(chain.filter(|pair| !self.joins.contains(pair)).map(Edit::Join));
        let others = self.work_of(book).into_iter().filter_map(|other| Pair::new(book, other));
        edits.extend(others.map(Edit::Apart));
        edits
    }
}

/// Reads the keys of `joins` or `apart` that something holds.
pub fn pairs<'a>(fields: impl Iterator<Item = (&'a str, &'a Field)>) -> BTreeSet<Pair> {
    let held = fields.filter(|(_, field)| !field.is_empty());
    held.filter_map(|(key, _)| Pair::parse(key)).collect()
}

/// Reads the groups of books that share an identifier from the keys of `aliases`.
pub fn derived<'a>(fields: impl Iterator<Item = (&'a str, &'a Field)>) -> Vec<BTreeSet<BookId>> {
    let mut groups: BTreeMap<&str, BTreeSet<BookId>> = BTreeMap::new();
    let held = fields.filter(|(_, field)| !field.is_empty());
    for (kind, value, book) in held.filter_map(|(key, _)| parse_alias(key)) {
        if kind == IDENTIFIER {
            groups.entry(value).or_default().insert(book);
        }
    }
    groups.into_values().filter(|group| 1 < group.len()).collect()
}

/// Which work each book is in so far: every book points to one no greater, a name to itself.
#[derive(Default)]
struct Names(BTreeMap<BookId, BookId>);

impl Names {
    fn of(&mut self, book: BookId) -> BookId {
        let mut name = book;
        while let Some(next) = self.0.get(&name).copied().filter(|next| *next != name) {
            name = next;
        }
        self.0.insert(name, name);
        self.0.insert(book, name);
        name
    }

    fn unite(&mut self, a: BookId, b: BookId) {
        let (a, b) = (self.of(a), self.of(b));
        self.0.insert(a.max(b), a.min(b));
    }

    fn works(mut self) -> BTreeMap<BookId, BTreeSet<BookId>> {
        let books: Vec<BookId> = self.0.keys().copied().collect();
        let mut works: BTreeMap<BookId, BTreeSet<BookId>> = BTreeMap::new();
        for book in books {
            works.entry(self.of(book)).or_default().insert(book);
        }
        works
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn book(n: u8) -> BookId {
        BookId([n; 32])
    }

    fn pair(a: u8, b: u8) -> Pair {
        Pair::new(book(a), book(b)).unwrap()
    }

    fn bonds(joins: &[(u8, u8)], apart: &[(u8, u8)], derived: &[&[u8]]) -> Bonds {
        Bonds {
            joins: joins.iter().map(|(a, b)| pair(*a, *b)).collect(),
            apart: apart.iter().map(|(a, b)| pair(*a, *b)).collect(),
            derived: derived.iter().map(|group| group.iter().map(|n| book(*n)).collect()).collect(),
        }
    }

    fn works(bonds: &Bonds) -> Vec<Vec<u8>> {
        let works = bonds.works((1..=5).map(book));
        works.values().map(|work| work.iter().map(|book| book.0[0]).collect()).collect()
    }

    /// What the library holds after these edits.
    fn after(bonds: &Bonds, edits: &[Edit]) -> Bonds {
        let mut bonds = bonds.clone();
        for edit in edits {
            if let Edit::Join(pair) = edit {
                bonds.joins.insert(*pair);
                bonds.apart.remove(pair);
            } else if let Edit::Unjoin(pair) = edit {
                bonds.joins.remove(pair);
            } else if let Edit::Apart(pair) = edit {
                bonds.joins.remove(pair);
                bonds.apart.insert(*pair);
            } else {
                panic!("{edit:?}");
            }
        }
        bonds
    }

    #[test]
    fn joins_and_identifiers_make_connected_works_named_by_the_smallest_book() {
        let bonds = bonds(&[(4, 2), (2, 5)], &[], &[&[3, 1]]);
        assert_eq!(works(&bonds), [vec![1, 3], vec![2, 4, 5]]);
        assert_eq!(bonds.works([]).into_keys().collect::<Vec<_>>(), [book(1), book(2)]);
        assert_eq!(bonds.work_of(book(5)), BTreeSet::from([2, 4, 5].map(book)));
        assert_eq!(bonds.work_of(book(9)), BTreeSet::from([book(9)]));
    }

    #[test]
    fn books_apart_are_not_joined_by_an_identifier_but_by_hand_they_are() {
        assert_eq!(works(&bonds(&[], &[(1, 2)], &[&[1, 2]])).len(), 5);
        assert_eq!(works(&bonds(&[(1, 2)], &[(1, 2)], &[&[1, 2]])).len(), 4);
        // The others of the group stay together, though the book between them is apart from both.
        let bonds = bonds(&[], &[(2, 1), (2, 3)], &[&[1, 2, 3]]);
        assert_eq!(works(&bonds), [vec![1, 3], vec![2], vec![4], vec![5]]);
    }

    #[test]
    fn a_split_takes_out_one_book_and_leaves_the_rest_together() {
        let before = bonds(&[(1, 2), (2, 3)], &[], &[&[2, 4]]);
        assert_eq!(works(&before), [vec![1, 2, 3, 4], vec![5]]);
        let after = after(&before, &before.split(book(2)));
        assert_eq!(works(&after), [vec![1, 3, 4], vec![2], vec![5]]);
        assert_eq!(before.split(book(5)), []);
    }

    #[test]
    fn only_identifiers_join_books() {
        let held = Field::from_holders(vec![crate::merge::Holder {
            op: crate::change::OpId { counter: 1, actor: crate::id::ActorId([1; 16]) },
            stamp: crate::hlc::Hlc::ZERO,
            value: crate::change::Scalar::Int(1),
        }]);
        let empty = Field::default();
        let key = |kind, n| crate::schema::alias_key(kind, "urn:isbn:1", book(n));
        let keys = [key("identifier", 1), key("identifier", 2), key("filename", 3)];
        let mut fields: Vec<_> = keys.iter().map(|key| (key.as_str(), &held)).collect();
        let dropped = key("identifier", 4);
        fields.push((&dropped, &empty));
        assert_eq!(derived(fields.into_iter()), [BTreeSet::from([book(1), book(2)])]);

        let (good, gone) = (pair(1, 2).key(), pair(1, 3).key());
        let fields = [(good.as_str(), &held), (gone.as_str(), &empty), ("nonsense", &held)];
        assert_eq!(pairs(fields.into_iter()), BTreeSet::from([pair(1, 2)]));
    }

    fn arb_bonds() -> impl Strategy<Value = Bonds> {
        let pairs = || proptest::collection::vec((1..8_u8, 1..8_u8), 0..6);
        let groups =
            proptest::collection::vec(proptest::collection::btree_set(1..8_u8, 0..4), 0..3);
        (pairs(), pairs(), groups).prop_map(|(joins, apart, groups)| Bonds {
            joins: joins.into_iter().filter_map(|(a, b)| Pair::new(book(a), book(b))).collect(),
            apart: apart.into_iter().filter_map(|(a, b)| Pair::new(book(a), book(b))).collect(),
            derived: groups
                .into_iter()
                .map(|group| group.into_iter().map(book).collect())
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn every_book_is_in_one_work_and_every_bond_holds(bonds in arb_bonds()) {
            let works = bonds.works((1..8).map(book));
            let mut all: Vec<BookId> = works.values().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (1..8).map(book).collect::<Vec<_>>());
            for (name, work) in &works {
                prop_assert_eq!(Some(name), work.first());
            }
            let derived = bonds.derived.iter().flat_map(|group| {
                let pairs = group.iter().flat_map(|a| group.iter().map(|b| Pair::new(*a, *b)));
                pairs.flatten().filter(|pair| !bonds.apart.contains(pair)).collect::<Vec<_>>()
            });
            for pair in derived.chain(bonds.joins.iter().copied()) {
                let [a, b] = pair.books();
                prop_assert!(works.values().any(|work| work.contains(&a) && work.contains(&b)));
            }
        }

        /// Whatever the bonds were, the book is alone afterwards and the others are as together as
        /// they were.
        #[test]
        fn after_a_split_the_book_is_alone_and_the_rest_is_together(bonds in arb_bonds()) {
            let before = bonds.work_of(book(3));
            let after = after(&bonds, &bonds.split(book(3)));
            prop_assert_eq!(after.work_of(book(3)), BTreeSet::from([book(3)]));
            for other in before.iter().filter(|other| **other != book(3)) {
                let mut rest = before.clone();
                rest.remove(&book(3));
                prop_assert_eq!(after.work_of(*other), rest);
            }
        }
    }
}

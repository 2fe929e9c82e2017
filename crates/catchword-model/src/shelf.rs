//! Shelves: names for groups of books, in the library document.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{BookId, ShelfId};
use crate::merge::Field;
use crate::schema::{DELETED, RecordKey, parse_member, record_key};

/// Longest name that is shown, in bytes.
pub const NAME_BYTES_MAX: usize = 1 << 10;

/// What a person sees of a shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    /// The newest name.
    pub name: String,
    /// Whether devices that did not know of each other gave it different names.
    pub name_conflict: bool,
    /// Whether it is deleted. Its books stay.
    pub deleted: bool,
    /// Whether it was named and deleted by devices that did not know of each other.
    pub edited_while_deleted: bool,
    /// The books that stand on it.
    pub books: BTreeSet<BookId>,
}

/// Reads the shelves from the keys of `shelves` and of `members` with what holds them.
///
/// The newest name counts, and a book stands on the shelf while something holds its key: a book
/// added beside a concurrent removal stays. A shelf without a name is not shown.
pub fn shelves<'a>(
    shelves: impl Iterator<Item = (&'a str, &'a Field)>,
    members: impl Iterator<Item = (&'a str, &'a Field)>,
) -> BTreeMap<ShelfId, Shelf> {
    let mut shown: BTreeMap<ShelfId, Shelf> = BTreeMap::new();
    let mut deletions: BTreeMap<ShelfId, &Field> = BTreeMap::new();
    for (key, field) in shelves {
        match record_key::<ShelfId>(key) {
            Some(RecordKey::Record(id)) => {
                shown.extend(named(field).map(|shelf| (id, shelf)));
            }
            Some(RecordKey::Field(id, DELETED)) => {
                deletions.insert(id, field);
            }
            Some(RecordKey::Field(..)) | None => (),
        }
    }
    for (id, field) in deletions {
        if let Some(shelf) = shown.get_mut(&id) {
            shelf.deleted = field.is_deleted();
            shelf.edited_while_deleted = field.is_edited_while_deleted();
        }
    }
    for (key, _) in members.filter(|(_, field)| !field.is_empty()) {
        let Some((id, book)) = parse_member(key) else { continue };
        if let Some(shelf) = shown.get_mut(&id) {
            shelf.books.insert(book);
        }
    }
    shown
}

fn named(field: &Field) -> Option<Shelf> {
    let latest = field.latest()?;
    let name = latest.value.as_text().filter(|name| name.len() <= NAME_BYTES_MAX)?;
    Some(Shelf {
        name: name.to_owned(),
        name_conflict: field.holders().iter().any(|holder| holder.value != latest.value),
        deleted: false,
        edited_while_deleted: false,
        books: BTreeSet::new(),
    })
}

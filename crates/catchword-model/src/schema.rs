//! The containers of a document and the text forms of their keys. Nobody else uses string keys.
//!
//! # Source
//!
//! `docs/SCHEMA.md`.

use crate::change::{Object, OpId};
use crate::id::{ActorId, AnnotationId, BookId, DeviceId, DocumentId, ShelfId};

/// The schema this release writes.
pub const SCHEMA: u32 = 1;
/// Longest key that means anything, in bytes; a longer one is kept, and ignored when read.
///
/// The longest key written here is that of an alias: its kind, a value of [`ALIAS_BYTES_MAX`] and a
/// book, about 180 bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest tag, in bytes of its normal form.
pub const TAG_BYTES_MAX: usize = 64;
/// Longest value of an alias, in bytes; of a longer one the SHA-256 is kept.
pub const ALIAS_BYTES_MAX: usize = 96;

/// What a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// Positions, highlights, notes, tags and totals of one book: registers only.
    Book,
    /// A book's journal and the application's own data.
    Notes,
    /// What is about several books: shelves, aliases, works, devices.
    Library,
}

/// A map of a document that holds registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Container {
    /// Book: where each device is.
    Positions = 1,
    /// Book: how far each device has been, by pass.
    Furthest = 2,
    /// Book: marks below which a device's positions do not count.
    Withdrawn = 3,
    /// Book: highlights, notes and bookmarks, and their fields.
    Annotations = 4,
    /// Book: title, authors, language and the like.
    Meta = 5,
    /// Book: tags.
    Tags = 6,
    /// Book: running totals of each device.
    Totals = 7,
    /// Library: what each device is called.
    Devices = 16,
    /// Library: names of shelves.
    Shelves = 17,
    /// Library: which book stands on which shelf.
    Members = 18,
    /// Library: other names of books.
    Aliases = 19,
    /// Library: books that are one work.
    Joins = 20,
    /// Library: books that are not one work, whatever their identifiers say.
    Apart = 21,
    /// Library: who has which file.
    Holds = 22,
    /// Library: the embedding application's own scalars.
    App = 23,
}

impl Container {
    /// The containers of a book document, in the order in which its genesis makes them.
    pub const BOOK: [Self; 7] = [
        Self::Positions,
        Self::Furthest,
        Self::Withdrawn,
        Self::Annotations,
        Self::Meta,
        Self::Tags,
        Self::Totals,
    ];

    /// The containers of the library document, in the order in which its genesis makes them.
    pub const LIBRARY: [Self; 8] = [
        Self::Devices,
        Self::Shelves,
        Self::Members,
        Self::Aliases,
        Self::Joins,
        Self::Apart,
        Self::Holds,
        Self::App,
    ];

    /// Returns the number by which files name this container.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the container with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::BOOK.into_iter().chain(Self::LIBRARY).find(|container| container.code() == code)
    }

    /// Returns the key under which the container stands at the root of its document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Positions => "positions",
            Self::Furthest => "furthest",
            Self::Withdrawn => "withdrawn",
            Self::Annotations => "annotations",
            Self::Meta => "meta",
            Self::Tags => "tags",
            Self::Totals => "totals",
            Self::Devices => "devices",
            Self::Shelves => "shelves",
            Self::Members => "members",
            Self::Aliases => "aliases",
            Self::Joins => "joins",
            Self::Apart => "apart",
            Self::Holds => "holds",
            Self::App => "app",
        }
    }

    /// Returns the document this container belongs to.
    pub fn kind(self) -> DocumentKind {
        if Self::BOOK.contains(&self) { DocumentKind::Book } else { DocumentKind::Library }
    }

    /// Returns the object that the genesis change made for this container.
    pub fn object(self) -> OpId {
        let among: &[Self] = match self.kind() {
            DocumentKind::Book | DocumentKind::Notes => &Self::BOOK,
            DocumentKind::Library => &Self::LIBRARY,
        };
        let place = among.iter().position(|container| *container == self).unwrap_or_default();
        OpId { counter: place as u64 + FIRST_CONTAINER, actor: ActorId::of_schema(1) }
    }

    /// Returns whether keys may be deleted, or only written.
    pub const fn may_delete(self) -> bool {
        match self {
            Self::Tags
            | Self::Devices
            | Self::Shelves
            | Self::Members
            | Self::Aliases
            | Self::Joins
            | Self::Apart
            | Self::Holds => true,
            Self::Positions
            | Self::Furthest
            | Self::Withdrawn
            | Self::Annotations
            | Self::Meta
            | Self::Totals
            | Self::App => false,
        }
    }

    /// Returns whether only the device that a key names may write it, and that device.
    ///
    /// `None`: anybody may write the key. `Some(None)`: the key names no device, so nobody may.
    pub fn owner(self, key: &str) -> Option<Option<DeviceId>> {
        let device = match self {
            Self::Positions | Self::Devices => Some(key),
            Self::Furthest => key.split_once('/').map(|(device, _)| device),
            Self::Totals | Self::Holds => key.rsplit_once('/').map(|(_, device)| device),
            Self::Withdrawn
            | Self::Annotations
            | Self::Meta
            | Self::Tags
            | Self::Shelves
            | Self::Members
            | Self::Aliases
            | Self::Joins
            | Self::Apart
            | Self::App => return None,
        };
        Some(device.and_then(|text| text.parse().ok()))
    }
}

/// The first operation of a genesis writes `schema`; the containers follow.
pub(crate) const FIRST_CONTAINER: u64 = 2;

impl DocumentKind {
    /// Returns the id of the document of this kind for a book; the library has one of its own.
    pub fn document(self, book: BookId) -> DocumentId {
        match self {
            Self::Book => book.document(),
            Self::Notes => book.notes_document(),
            Self::Library => DocumentId::library(),
        }
    }

    /// Returns the containers of registers, in the order in which the genesis makes them.
    pub const fn containers(self) -> &'static [Container] {
        match self {
            Self::Book => &Container::BOOK,
            Self::Notes => &[],
            Self::Library => &Container::LIBRARY,
        }
    }

    /// Returns the container that `object` is, if the genesis of this kind made it.
    pub fn container(self, object: Object) -> Option<Container> {
        let Object::Made(id) = object else { return None };
        if id.actor != ActorId::of_schema(1) {
            return None;
        }
        let place = usize::try_from(id.counter.checked_sub(FIRST_CONTAINER)?).ok()?;
        self.containers().get(place).copied()
    }
}

/// What a key of `annotations` or `shelves` says: an id, or a field of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKey<'a, T> {
    /// The record itself.
    Record(T),
    /// One of its fields, under this name.
    Field(T, &'a str),
}

/// Reads a key of the form `ID` or `ID/field`; `None` for anything else.
pub fn record_key<T: std::str::FromStr>(key: &str) -> Option<RecordKey<'_, T>> {
    if KEY_BYTES_MAX < key.len() {
        return None;
    }
    match key.split_once('/') {
        None => key.parse().ok().map(RecordKey::Record),
        Some((_, "")) => None,
        Some((id, field)) => id.parse().ok().map(|id| RecordKey::Field(id, field)),
    }
}

/// Returns the key of a field of an annotation.
pub fn annotation_field(id: AnnotationId, field: &str) -> String {
    format!("{id}/{field}")
}

/// The field that says whether a record is deleted.
pub const DELETED: &str = "deleted";

/// Returns the key that says whether a shelf is deleted.
pub fn shelf_deleted(id: ShelfId) -> String {
    format!("{id}/{DELETED}")
}

/// Returns the key of `furthest` for one device and pass.
pub fn furthest_key(device: DeviceId, pass: u32) -> String {
    format!("{device}/{pass}")
}

/// Reads a key of `furthest`: the device and the pass, written in their one form.
pub fn parse_furthest(key: &str) -> Option<(DeviceId, u32)> {
    let (device, pass) = key.split_once('/')?;
    let number: u32 = pass.parse().ok()?;
    (number.to_string() == pass).then_some((device.parse().ok()?, number))
}

/// Returns the key of `totals` for one device.
pub fn total_key(name: &str, device: DeviceId) -> String {
    format!("{name}/{device}")
}

/// Reads a key of `totals`: the name and the device.
pub fn parse_total(key: &str) -> Option<(&str, DeviceId)> {
    let (name, device) = key.rsplit_once('/')?;
    (!name.is_empty()).then_some((name, device.parse().ok()?))
}

/// Returns the key of `members`: this book stands on that shelf.
pub fn member_key(shelf: ShelfId, book: BookId) -> String {
    format!("{shelf}/{book}")
}

/// Reads a key of `members`.
pub fn parse_member(key: &str) -> Option<(ShelfId, BookId)> {
    let (shelf, book) = key.split_once('/')?;
    Some((shelf.parse().ok()?, book.parse().ok()?))
}

/// Returns the key of `holds`: that device has the file of this book.
pub fn hold_key(book: BookId, device: DeviceId) -> String {
    format!("{book}/{device}")
}

/// Returns the key of `aliases`: another name of a book. A long value is written as its SHA-256.
pub fn alias_key(kind: &str, value: &str, book: BookId) -> String {
    let short = value.len() <= ALIAS_BYTES_MAX;
    let hashed = || data_encoding::HEXLOWER.encode(&crate::id::sha256(&[value.as_bytes()]));
    let value = if short { value.to_owned() } else { hashed() };
    format!("{kind}:{value}/{book}")
}

/// Reads a key of `aliases`: the kind, the value and the book.
pub fn parse_alias(key: &str) -> Option<(&str, &str, BookId)> {
    let (alias, book) = key.rsplit_once('/')?;
    let (kind, value) = alias.split_once(':')?;
    Some((kind, value, book.parse().ok()?))
}

/// Two different books, smaller id first: what is a key of `joins` or `apart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// Invariant: less than `second`.
    first: BookId,
    second: BookId,
}

impl Pair {
    /// Makes the pair of two books, in whatever order; `None` for one book twice.
    pub fn new(a: BookId, b: BookId) -> Option<Self> {
        (a != b).then(|| Self { first: a.min(b), second: a.max(b) })
    }

    /// Reads a key of `joins` or `apart`; `None` unless the smaller id stands first.
    pub fn parse(key: &str) -> Option<Self> {
        let (first, second) = key.split_once('|')?;
        let (first, second) = (first.parse().ok()?, second.parse().ok()?);
        (first < second).then_some(Self { first, second })
    }

    /// Returns the books, smaller id first.
    pub const fn books(self) -> [BookId; 2] {
        [self.first, self.second]
    }

    /// Returns the other of the two, if `book` is one of them.
    pub fn other(self, book: BookId) -> Option<BookId> {
        match book {
            _ if book == self.first => Some(self.second),
            _ if book == self.second => Some(self.first),
            _ => None,
        }
    }

    /// Returns the key.
    pub fn key(self) -> String {
        format!("{}|{}", self.first, self.second)
    }
}

/// Text is not a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// Nothing is left of it once white space is gone.
    #[error("a tag needs at least one character")]
    Empty,
    /// It is longer than [`TAG_BYTES_MAX`].
    #[error("tag is {bytes} bytes long, more than {TAG_BYTES_MAX}")]
    TooLong {
        /// Length of the normal form, in bytes.
        bytes: usize,
    },
    /// It holds a control character.
    #[error("tag holds a control character")]
    Control,
}

/// Returns the one form of a tag: NFC, trimmed.
///
/// # Errors
///
/// [`TagError`] if nothing is left, it is too long, or it holds control characters.
pub fn tag_key(tag: &str) -> Result<String, TagError> {
    use unicode_normalization::UnicodeNormalization as _;

    let tag: String = tag.trim().nfc().collect();
    match tag.len() {
        0 => Err(TagError::Empty),
        bytes if TAG_BYTES_MAX < bytes => Err(TagError::TooLong { bytes }),
        _ if tag.chars().any(char::is_control) => Err(TagError::Control),
        _ => Ok(tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_is_found_by_its_number_and_by_its_object() {
        for kind in [DocumentKind::Book, DocumentKind::Library] {
            for container in kind.containers() {
                assert_eq!(Container::from_code(container.code()), Some(*container));
                let object = Object::Made(container.object());
                assert_eq!(kind.container(object), Some(*container));
                assert_eq!(container.kind(), kind);
            }
        }
        assert_eq!(DocumentKind::Book.container(Object::Root), None);
    }

    #[test]
    fn keys_that_name_a_device_have_an_owner() {
        let device = DeviceId([5; 16]);
        let book = BookId([6; 32]);
        assert_eq!(Container::Positions.owner(&device.to_string()), Some(Some(device)));
        assert_eq!(Container::Furthest.owner(&furthest_key(device, 2)), Some(Some(device)));
        assert_eq!(Container::Totals.owner(&total_key("app.x/y", device)), Some(Some(device)));
        assert_eq!(Container::Holds.owner(&hold_key(book, device)), Some(Some(device)));
        assert_eq!(Container::Positions.owner("phone"), Some(None));
        assert_eq!(Container::Withdrawn.owner(&device.to_string()), None);
    }

    #[test]
    fn a_pass_has_one_spelling() {
        let device = DeviceId([5; 16]);
        assert_eq!(parse_furthest(&furthest_key(device, 12)), Some((device, 12)));
        assert_eq!(parse_furthest(&format!("{device}/012")), None);
    }

    #[test]
    fn two_books_have_one_key() {
        let (a, b) = (BookId([1; 32]), BookId([2; 32]));
        let pair = Pair::new(b, a).unwrap();
        assert_eq!(Pair::parse(&pair.key()), Some(pair));
        assert_eq!(pair.books(), [a, b]);
        assert_eq!(pair.other(a), Some(b));
        assert_eq!(pair.other(BookId([3; 32])), None);
        assert_eq!(Pair::new(a, a), None);
        assert_eq!(Pair::parse(&format!("{b}|{a}")), None);
        assert_eq!(Pair::parse(&format!("{a}|{a}")), None);
    }

    #[test]
    fn a_tag_has_one_form() {
        assert_eq!(tag_key("  caf\u{65}\u{301} "), Ok("caf\u{e9}".to_owned()));
        assert_eq!(tag_key("   "), Err(TagError::Empty));
        assert_eq!(tag_key("a\u{7}b"), Err(TagError::Control));
        assert_eq!(tag_key(&"x".repeat(65)), Err(TagError::TooLong { bytes: 65 }));
    }

    #[test]
    fn a_long_alias_is_kept_as_its_hash() {
        let book = BookId([1; 32]);
        let key = alias_key("identifier", &"x".repeat(97), book);
        let (kind, value, of) = parse_alias(&key).unwrap();
        assert_eq!((kind, value.len(), of), ("identifier", 64, book));
        let key = alias_key("identifier", "urn:isbn:1/2", book);
        assert_eq!(parse_alias(&key), Some(("identifier", "urn:isbn:1/2", book)));
    }
}

//! Where in a book: an open record in the words of whoever wrote it, and its place in reading order.
//!
//! Every engine names places in its own way, so a locator is a JSON object of which this crate knows
//! some members and keeps all. What is stored and synced is the text as it was written; the members
//! are read out of it when somebody asks.
//!
//! # Invariants
//!
//! 1. [`Locator::to_json`] returns the very text that was read, spaces and spellings of numbers
//!    included, unless a `with_` method has changed the record.
//! 2. A member that this version does not know survives everything that is done to the others.
//! 3. The order of sort keys never contradicts the order of CFIs at one `total_ppm`.
//!
//! # What is not here
//!
//! Finding a locator's place in a file, and turning one engine's words into another's.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::cfi::{Cfi, CfiError};

/// The end of a book, in parts per million. A greater fraction does not count.
pub const PPM_MAX: u32 = 1_000_000;

/// Deepest nesting of objects and arrays; the locator itself is the first level.
pub const NESTING_MAX: usize = 16;

/// Longest name of a member, at any depth, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// Longest quoted text (`before`, `text` and `after`, each), in bytes.
pub const QUOTE_BYTES_MAX: usize = 16 * 1_024;

/// Where in a book, as one engine says it, with whatever helps another to find it again.
///
/// Two are equal if their texts are.
///
/// # Examples
///
/// ```
/// use catchword_model::locator::Locator;
///
/// let written = r#"{"cfi": "epubcfi(/6/4!/4/2/1:9)", "total_ppm": 41000, "mood": 1.50}"#;
/// let locator = Locator::from_json(written)?;
///
/// assert_eq!(locator.total_ppm(), Some(41_000));
/// assert_eq!(locator.to_json(), written);
/// # Ok::<(), catchword_model::locator::LocatorError>(())
/// ```
#[derive(Clone)]
pub struct Locator {
    text: String,
    /// Invariant: what `text` says, once somebody has asked.
    members: OnceLock<Box<Map<String, Value>>>,
}

impl Locator {
    /// Returns a locator that says nothing yet.
    pub fn new() -> Self {
        Self::stored("{}".to_owned())
    }

    /// Reads a locator and checks it against the limits of this module.
    ///
    /// # Errors
    ///
    /// [`LocatorError`] if the text is not one JSON object or exceeds a limit.
    pub fn from_json(text: &str) -> Result<Self, LocatorError> {
        let members: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            LocatorError::NotAnObject { line: error.line(), column: error.column() }
        })?;
        check_members(&members)?;
        Ok(Self { text: text.to_owned(), members: OnceLock::from(Box::new(members)) })
    }

    /// Takes a locator that is part of a larger record which has been parsed already.
    ///
    /// # Errors
    ///
    /// [`LocatorError`] if a limit of this module is exceeded.
    pub fn from_members(members: Map<String, Value>) -> Result<Self, LocatorError> {
        check_members(&members)?;
        Ok(Self::of(members))
    }

    /// Takes the text of a locator that was checked when it was stored, and does not read it before
    /// somebody asks for a member.
    ///
    /// Of a text that is no JSON object every member is absent.
    pub fn stored(text: String) -> Self {
        Self { text, members: OnceLock::new() }
    }

    /// Checks a locator that was put together here against the limits of this module.
    ///
    /// # Errors
    ///
    /// [`LocatorError`], as [`from_json`](Self::from_json).
    pub fn check(&self) -> Result<(), LocatorError> {
        Self::from_json(&self.text).map(|_| ())
    }

    /// Returns the record word for word.
    pub fn to_json(&self) -> String {
        self.text.clone()
    }

    /// Returns the record word for word, without copying it.
    pub fn as_json(&self) -> &str {
        &self.text
    }

    /// Returns a member by its name, known to this version or not.
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members().get(name)
    }

    /// Returns the name and version of the engine that wrote the locator.
    pub fn engine(&self) -> Option<&str> {
        self.string("engine")
    }

    /// Returns the EPUB CFI, as it was written.
    pub fn cfi(&self) -> Option<&str> {
        self.string("cfi")
    }

    /// Returns the position in the form of KOReader's engine.
    pub fn xpointer(&self) -> Option<&str> {
        self.string("xpointer")
    }

    /// Returns the page of a paged book, counted from 1.
    pub fn page(&self) -> Option<u32> {
        self.number("page")
    }

    /// Returns the areas on the page, in whatever form the engine writes them.
    pub fn rects(&self) -> Option<&Value> {
        self.member("rects")
    }

    /// Returns the resource within the book.
    pub fn href(&self) -> Option<&str> {
        self.string("href")
    }

    /// Returns how far into the resource, in parts per million.
    ///
    /// Only an integer of at most [`PPM_MAX`] counts.
    pub fn progression_ppm(&self) -> Option<u32> {
        self.ppm("progression_ppm")
    }

    /// Returns how far into the book, in parts per million.
    ///
    /// Only an integer of at most [`PPM_MAX`] counts.
    pub fn total_ppm(&self) -> Option<u32> {
        self.ppm("total_ppm")
    }

    /// Returns the text before the place.
    pub fn before(&self) -> Option<&str> {
        self.string("before")
    }

    /// Returns the text at the place.
    pub fn text(&self) -> Option<&str> {
        self.string("text")
    }

    /// Returns the text after the place.
    pub fn after(&self) -> Option<&str> {
        self.string("after")
    }

    /// Returns the title of the chapter.
    pub fn chapter(&self) -> Option<&str> {
        self.string("chapter")
    }

    /// Returns the locator with a member put or replaced; the others stay as and where they are.
    ///
    /// What stands here is not checked: see [`check`](Self::check).
    #[must_use]
    pub fn with(self, name: &str, value: impl Into<Value>) -> Self {
        let mut members = self.members().clone();
        members.insert(name.to_owned(), value.into());
        Self::of(members)
    }

    /// Returns the locator with the name and version of the engine.
    #[must_use]
    pub fn with_engine(self, engine: &str) -> Self {
        self.with("engine", engine)
    }

    /// Returns the locator with an EPUB CFI.
    #[must_use]
    pub fn with_cfi(self, cfi: &str) -> Self {
        self.with("cfi", cfi)
    }

    /// Returns the locator with a position in the form of KOReader's engine.
    #[must_use]
    pub fn with_xpointer(self, xpointer: &str) -> Self {
        self.with("xpointer", xpointer)
    }

    /// Returns the locator with a page, counted from 1.
    #[must_use]
    pub fn with_page(self, page: u32) -> Self {
        self.with("page", page)
    }

    /// Returns the locator with areas on the page.
    #[must_use]
    pub fn with_rects(self, rects: Value) -> Self {
        self.with("rects", rects)
    }

    /// Returns the locator with a resource within the book.
    #[must_use]
    pub fn with_href(self, href: &str) -> Self {
        self.with("href", href)
    }

    /// Returns the locator with the fraction of the resource, in parts per million.
    #[must_use]
    pub fn with_progression_ppm(self, ppm: u32) -> Self {
        self.with("progression_ppm", ppm)
    }

    /// Returns the locator with the fraction of the book, in parts per million.
    #[must_use]
    pub fn with_total_ppm(self, ppm: u32) -> Self {
        self.with("total_ppm", ppm)
    }

    /// Returns the locator with the text before the place.
    #[must_use]
    pub fn with_before(self, before: &str) -> Self {
        self.with("before", before)
    }

    /// Returns the locator with the text at the place.
    #[must_use]
    pub fn with_text(self, text: &str) -> Self {
        self.with("text", text)
    }

    /// Returns the locator with the text after the place.
    #[must_use]
    pub fn with_after(self, after: &str) -> Self {
        self.with("after", after)
    }

    /// Returns the locator with the title of the chapter.
    #[must_use]
    pub fn with_chapter(self, chapter: &str) -> Self {
        self.with("chapter", chapter)
    }

    /// Returns where the locator stands in reading order.
    ///
    /// A CFI counts wrapped or bare; one that cannot be read counts as none.
    pub fn sort_key(&self) -> SortKey {
        // Reading out two members is several times cheaper than keeping all of them.
        match Place::read(&self.text) {
            Some(Place { cfi, total_ppm }) => sort_key(cfi.as_deref(), total_ppm),
            None => sort_key(self.cfi(), self.total_ppm()),
        }
    }

    fn of(members: Map<String, Value>) -> Self {
        let members = Value::Object(members);
        Self::stored(members.to_string())
    }

    fn members(&self) -> &Map<String, Value> {
        self.members.get_or_init(|| Box::new(serde_json::from_str(&self.text).unwrap_or_default()))
    }

    fn string(&self, name: &str) -> Option<&str> {
        self.member(name)?.as_str()
    }

    fn number(&self, name: &str) -> Option<u32> {
        u32::try_from(self.member(name)?.as_u64()?).ok()
    }

    fn ppm(&self, name: &str) -> Option<u32> {
        self.number(name).filter(|ppm| *ppm <= PPM_MAX)
    }
}

/// The members that decide about reading order. Where they do not read so (one is written twice, or
/// is no text or no whole number), the record as a whole decides.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    cfi: Option<Cow<'a, str>>,
    total_ppm: Option<u32>,
}

impl<'a> Place<'a> {
    fn read(text: &'a str) -> Option<Self> {
        // A list would be read too, as the members in their order.
        let object = text.trim_ascii_start().starts_with('{');
        if object { serde_json::from_str(text).ok() } else { None }
    }
}

fn sort_key(cfi: Option<&str>, total_ppm: Option<u32>) -> SortKey {
    let cfi = cfi.and_then(|text| read_cfi(text).ok());
    match (total_ppm.filter(|ppm| *ppm <= PPM_MAX), cfi) {
        (Some(ppm), Some(cfi)) => SortKey::of(ppm, &cfi.sort_key()),
        (Some(ppm), None) => SortKey::of(ppm, &[]),
        (None, Some(cfi)) => SortKey::of(PPM_ABSENT, &cfi.sort_key()),
        (None, None) => SortKey::LAST,
    }
}

impl Default for Locator {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Locator {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Locator {}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locator").field(&self.text).finish()
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Writes the members, not the text: numbers come out in the spelling of the serialiser.
impl Serialize for Locator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.members().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Locator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Map::deserialize(deserializer)?;
        Self::from_members(members).map_err(serde::de::Error::custom)
    }
}

/// A text is not a locator that counts.
///
/// The record that holds it is kept and synced; it is ignored when it is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocatorError {
    /// The text is not one JSON object.
    #[error("not a JSON object: line {line}, column {column}")]
    NotAnObject {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1; 0 after the last line feed.
        column: usize,
    },

    /// Objects and arrays are nested deeper than [`NESTING_MAX`].
    #[error("nested deeper than {NESTING_MAX} levels")]
    TooDeep,

    /// A member's name is longer than [`KEY_BYTES_MAX`].
    #[error("a name has {bytes} bytes, more than {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Length of the name, in bytes.
        bytes: usize,
    },

    /// `before`, `text` or `after` is longer than [`QUOTE_BYTES_MAX`].
    #[error("quoted text has {bytes} bytes, more than {QUOTE_BYTES_MAX}")]
    QuoteTooLong {
        /// Length of the text, in bytes.
        bytes: usize,
    },
}

fn check_members(members: &Map<String, Value>) -> Result<(), LocatorError> {
    for name in ["before", "text", "after"] {
        let bytes = members.get(name).and_then(Value::as_str).map_or(0, str::len);
        if QUOTE_BYTES_MAX < bytes {
            return Err(LocatorError::QuoteTooLong { bytes });
        }
    }
    check_object(members, 1)
}

fn check_object(members: &Map<String, Value>, depth: usize) -> Result<(), LocatorError> {
    if NESTING_MAX < depth {
        return Err(LocatorError::TooDeep);
    }
    for (name, value) in members {
        if KEY_BYTES_MAX < name.len() {
            return Err(LocatorError::KeyTooLong { bytes: name.len() });
        }
        check_value(value, depth + 1)?;
    }
    Ok(())
}

fn check_value(value: &Value, depth: usize) -> Result<(), LocatorError> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        Value::Object(members) => check_object(members, depth),
        Value::Array(_) if NESTING_MAX < depth => Err(LocatorError::TooDeep),
        Value::Array(values) => values.iter().try_for_each(|value| check_value(value, depth + 1)),
    }
}

fn read_cfi(text: &str) -> Result<Cfi, CfiError> {
    match Cfi::parse(text) {
        Err(CfiError::Unwrapped) => Cfi::parse_bare(text),
        other => other,
    }
}

/// Stands for a fraction that nobody has given: after every one that somebody has.
const PPM_ABSENT: u32 = PPM_MAX + 1;

/// Greater than every first byte of a CFI's key.
const NO_PLACE: u8 = 0xff;

const PPM_BYTES: usize = 4;

/// Where an annotation stands in reading order: bytes that compare as a reader meets the places.
///
/// ```text
/// total_ppm, 1,000,001 where there is none    u32, big-endian
/// the beginning of the CFI's sort key         0 to 28 bytes; FF where there is no total_ppm either
/// ```
///
/// So what has no place at all stands last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortKey {
    /// Invariant: zero from `length` on, so that the derived order is that of the bytes that count.
    bytes: [u8; Self::BYTES_MAX],
    /// Invariant: at least four, at most [`Self::BYTES_MAX`].
    length: u8,
}

impl SortKey {
    /// Longest key, in bytes.
    pub const BYTES_MAX: usize = 32;

    /// The key of everything that has no place.
    pub const LAST: Self = {
        let [a, b, c, d] = PPM_ABSENT.to_be_bytes();
        let mut bytes = [0; Self::BYTES_MAX];
        [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]] = [a, b, c, d, NO_PLACE];
        Self { bytes, length: 5 }
    };

    /// Returns the least key at a fraction of the book: a bound for ranges.
    pub fn first_at(ppm: u32) -> Self {
        Self::of(ppm, &[])
    }

    /// Returns the bytes, four at least and [`BYTES_MAX`](Self::BYTES_MAX) at most.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Takes the bytes of a key that was stored, or nothing if they cannot be a key.
    pub fn from_bytes(stored: &[u8]) -> Option<Self> {
        (PPM_BYTES..=Self::BYTES_MAX).contains(&stored.len()).then(|| Self::cut(stored.iter()))
    }

    /// Returns the fraction of the book in parts per million, if the key has one.
    pub fn total_ppm(&self) -> Option<u32> {
        let ppm = self.bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        ppm.filter(|ppm| *ppm <= PPM_MAX)
    }

    fn of(ppm: u32, cfi_key: &[u8]) -> Self {
        Self::cut(ppm.to_be_bytes().iter().chain(cfi_key))
    }

    fn cut<'a>(source: impl Iterator<Item = &'a u8>) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        let mut length = 0;
        for (slot, byte) in bytes.iter_mut().zip(source) {
            *slot = *byte;
            length += 1;
        }
        Self { bytes, length }
    }
}

impl fmt::Debug for SortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SortKey(")?;
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_kept_word_for_word_with_what_this_version_does_not_know() {
        let written =
            "{ \"b\" : 1.50e3, \"a\":{\"z\":[],\"y\":null} ,\n\"page\":7,\"é\":\"\\u00e9\"}";

        let locator = Locator::from_json(written).unwrap();

        assert_eq!(locator.to_json(), written);
        assert_eq!(locator.page(), Some(7));
        assert_eq!(locator.member("é").and_then(Value::as_str), Some("é"));
    }

    #[test]
    fn a_changed_member_leaves_the_others_as_and_where_they_are() {
        let locator = Locator::from_json(r#"{"later":[1,{"x":0.5}],"page":7,"a":true}"#).unwrap();

        let moved = locator.with_page(8).with_chapter("IX");

        assert_eq!(moved.to_json(), r#"{"later":[1,{"x":0.5}],"page":8,"a":true,"chapter":"IX"}"#);
        assert_eq!(moved.page(), Some(8));
    }

    #[test]
    fn every_member_that_is_put_is_read_again() {
        let locator = Locator::new()
            .with_engine("foliate-js 1.0")
            .with_cfi("epubcfi(/6/4!/4/2)")
            .with_xpointer("/body/DocFragment[2].0")
            .with_page(3)
            .with_rects(Value::from(vec![1, 2, 3, 4]))
            .with_href("ch1.xhtml")
            .with_progression_ppm(5)
            .with_total_ppm(PPM_MAX)
            .with_before("Call ")
            .with_text("me")
            .with_after(" Ishmael.")
            .with_chapter("Loomings");

        assert_eq!(locator.check(), Ok(()));
        let again = Locator::from_json(&locator.to_json()).unwrap();
        assert_eq!(again.engine(), Some("foliate-js 1.0"));
        assert_eq!(again.cfi(), Some("epubcfi(/6/4!/4/2)"));
        assert_eq!(again.xpointer(), Some("/body/DocFragment[2].0"));
        assert_eq!(again.page(), Some(3));
        assert_eq!(again.rects(), Some(&Value::from(vec![1, 2, 3, 4])));
        assert_eq!(again.href(), Some("ch1.xhtml"));
        assert_eq!(again.progression_ppm(), Some(5));
        assert_eq!(again.total_ppm(), Some(PPM_MAX));
        assert_eq!(
            [again.before(), again.text(), again.after()],
            [Some("Call "), Some("me"), Some(" Ishmael.")]
        );
        assert_eq!(again.chapter(), Some("Loomings"));
    }

    #[test]
    fn a_fraction_that_is_no_integer_or_beyond_the_end_does_not_count() {
        for value in ["1000001", "-1", "0.5", "1e3", "\"7\"", "null", "[7]", "99999999999999999999"]
        {
            let text = format!(r#"{{"total_ppm":{value},"progression_ppm":{value}}}"#);
            let locator = Locator::from_json(&text).unwrap();
            assert_eq!((locator.total_ppm(), locator.progression_ppm()), (None, None), "{value}");
            assert_eq!(locator.to_json(), text);
        }
    }

    #[test]
    fn nesting_names_and_quotes_are_accepted_at_their_limit_and_refused_one_past_it() {
        let nested = |levels: usize| {
            format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        assert!(Locator::from_json(&nested(NESTING_MAX)).is_ok());
        assert_eq!(Locator::from_json(&nested(NESTING_MAX + 1)), Err(LocatorError::TooDeep));

        let named = |bytes: usize| format!("{{\"a\":[{{\"{}\":1}}]}}", "k".repeat(bytes));
        assert!(Locator::from_json(&named(KEY_BYTES_MAX)).is_ok());
        assert_eq!(
            Locator::from_json(&named(KEY_BYTES_MAX + 1)),
            Err(LocatorError::KeyTooLong { bytes: KEY_BYTES_MAX + 1 })
        );

        for name in ["before", "text", "after"] {
            let quoted = |bytes: usize| Locator::new().with(name, "q".repeat(bytes));
            assert_eq!(quoted(QUOTE_BYTES_MAX).check(), Ok(()));
            assert_eq!(
                quoted(QUOTE_BYTES_MAX + 1).check(),
                Err(LocatorError::QuoteTooLong { bytes: QUOTE_BYTES_MAX + 1 })
            );
        }
    }

    #[test]
    fn what_is_no_object_is_refused_and_says_where() {
        for text in ["", "[]", "7", "{", "{} {}", "{\"a\":}"] {
            let refused = Locator::from_json(text);
            assert!(matches!(refused, Err(LocatorError::NotAnObject { .. })), "{text}");
        }
        assert_eq!(
            Locator::from_json("{\"a\":}"),
            Err(LocatorError::NotAnObject { line: 1, column: 6 })
        );
        assert_eq!(Locator::stored("no object".to_owned()).page(), None);
    }

    #[test]
    fn as_part_of_a_larger_record_it_is_the_same_and_has_the_same_limits() {
        let text = r#"{"cfi":"epubcfi(/6/4)","x":{"y":1}}"#;
        let locator: Locator = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&locator).unwrap(), text);

        let named = format!("{{\"{}\":1}}", "k".repeat(KEY_BYTES_MAX + 1));
        assert!(serde_json::from_str::<Locator>(&named).is_err());
    }

    #[test]
    fn annotations_stand_by_fraction_then_cfi_and_last_if_they_have_neither() {
        let cfi =
            |locator: Locator, offset: u32| locator.with_cfi(&format!("/6/4!/4/2/1:{offset}"));
        let rising = [
            Locator::new().with_total_ppm(0).with_page(99),
            Locator::new().with_total_ppm(255),
            cfi(Locator::new().with_total_ppm(255), 9),
            cfi(Locator::new().with_total_ppm(255), 10),
            cfi(Locator::new().with_total_ppm(256), 1),
            Locator::new().with_total_ppm(PPM_MAX),
            cfi(Locator::new(), 3),
            cfi(Locator::new().with_total_ppm(PPM_MAX + 1), 4),
            Locator::new().with_text("no place").with_cfi("not a CFI"),
        ];

        let keys: Vec<SortKey> = rising.iter().map(Locator::sort_key).collect();

        assert!(keys.is_sorted_by(|left, right| left < right), "{keys:?}");
        assert_eq!(keys.last(), Some(&SortKey::LAST));
        assert_eq!(keys[1], SortKey::first_at(255));
        assert_eq!((keys[3].total_ppm(), keys[7].total_ppm()), (Some(255), None));
    }

    #[test]
    fn the_bytes_of_a_key_are_four_to_thirty_two_and_begin_with_the_fraction() {
        let key = Locator::new().with_total_ppm(0x01_02_03).with_cfi("epubcfi(/6/4!/7)").sort_key();
        assert_eq!(key.as_bytes(), b"\x00\x01\x02\x03\x21\x06\x21\x04\x40\x21\x07\x10\x00");

        let long = Locator::new().with_cfi(&format!("epubcfi({})", "/70000".repeat(20))).sort_key();
        assert_eq!(long.as_bytes().len(), SortKey::BYTES_MAX);

        assert_eq!(SortKey::from_bytes(&[0; 3]), None);
        assert_eq!(SortKey::from_bytes(&[0; 33]), None);
        for key in [key, long, SortKey::LAST, SortKey::first_at(0)] {
            assert_eq!(SortKey::from_bytes(key.as_bytes()), Some(key));
        }
    }

    #[test]
    fn odd_spellings_stand_where_their_members_say() {
        let placed = Locator::new().with_total_ppm(7).with_cfi("epubcfi(/6/4)").sort_key();
        let first = Locator::new().with_total_ppm(7).sort_key();
        let cases = [
            (r#" {"x":[{"total_ppm":1}],"total_ppm":7,"cfi":"epubcfi(/6/4)"}"#, placed),
            (r#"{"cfi":"epubcfi(\u002f6/4)","total_ppm":7}"#, placed),
            (r#"{"total_ppm":1,"cfi":"epubcfi(/6/4)","total_ppm":7}"#, placed),
            (r#"{"cfi":null,"total_ppm":7}"#, first),
            (r#"{"cfi":["epubcfi(/6/4)"],"total_ppm":7}"#, first),
            (r#"{"total_ppm":7.0}"#, SortKey::LAST),
            (r#"{"total_ppm":1000001}"#, SortKey::LAST),
            (r#"["epubcfi(/6/4)",7]"#, SortKey::LAST),
        ];
        for (text, key) in cases {
            let locator = Locator::stored(text.to_owned());
            assert_eq!(locator.sort_key(), key, "{text}");
            locator.total_ppm();
            assert_eq!(locator.sort_key(), key, "{text}, after it was read");
        }
    }

    proptest! {
        #[test]
        fn keys_order_as_their_bytes_do(left in arb_key_bytes(), right in arb_key_bytes()) {
            let keys = (SortKey::from_bytes(&left).unwrap(), SortKey::from_bytes(&right).unwrap());
            prop_assert_eq!(keys.0.cmp(&keys.1), left.cmp(&right));
            prop_assert_eq!(keys.0.as_bytes(), left.as_slice());
        }

        /// Invariant 3: what is cut off a key makes places equal at worst.
        #[test]
        fn a_key_never_contradicts_the_order_of_cfis(left in arb_cfi_text(), right in arb_cfi_text()) {
            let key = |text: &str| Locator::new().with_total_ppm(1).with_cfi(text).sort_key();
            let order = key(&left).cmp(&key(&right));
            let cfis = Cfi::parse_bare(&left).unwrap().compare(&Cfi::parse_bare(&right).unwrap());
            prop_assert!(order == Ordering::Equal || order == cfis, "{:?} {:?}", order, cfis);
        }

        #[test]
        fn no_text_makes_reading_panic(text in "[\\[\\]{}:,\"a0-9.e -]{0,40}|\\PC{0,20}") {
            if let Ok(locator) = Locator::from_json(&text) {
                prop_assert_eq!(locator.to_json(), text.clone());
                locator.sort_key();
            }
            Locator::stored(text).sort_key();
        }
    }

    fn arb_key_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0..3_u8, PPM_BYTES..=SortKey::BYTES_MAX)
    }

    fn arb_cfi_text() -> impl Strategy<Value = String> {
        "/6(/[0-9]|/[1-9][0-9]{5}|!){0,12}(:[0-9]|,/1:[0-9],/2)?"
    }
}

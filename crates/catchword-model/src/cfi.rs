//! EPUB Canonical Fragment Identifiers: read, printed, and put into reading order.
//!
//! A CFI names a point or a range of a book by the numbers of the nodes on the way to it. This
//! module reads the text form, writes it again without loss, compares two of them, and makes a key
//! whose byte order is that order, so that a table can keep annotations as a reader meets them.
//!
//! # Invariants
//!
//! 1. Printing what was read gives the text that was read; an unwrapped one is printed wrapped.
//! 2. `a.compare(&b)` equals `a.sort_key().cmp(&b.sort_key())` for any two CFIs.
//! 3. Reading never panics and takes time and memory in proportion to the text, which is bounded by
//!    [`CFI_BYTES_MAX`].
//!
//! # What is not here
//!
//! The grammar, which is in `read`. Finding the place in a document. Percent-encoding: whoever takes a CFI out of a URI decodes it
//! first.

use std::cmp::Ordering;
use std::fmt;

use self::read::Reader;

mod read;

/// Longest text that is read as a CFI, in bytes. Real ones stay under 300.
pub const CFI_BYTES_MAX: usize = 4_096;

/// Most digits behind the decimal point. What other programs print of a double fits.
const FRACTION_DIGITS_MAX: usize = 18;

/// Characters that an assertion can only hold behind a circumflex.
const SPECIAL: [char; 8] = ['^', '[', ']', '(', ')', ',', ';', '='];

/// A point or a range in an EPUB.
///
/// Two are equal if they are written alike. Two that are written differently may still stand at one
/// place, for instance because only one carries an assertion: that is what
/// [`compare`](Self::compare) says, and why there is no `Ord`.
///
/// # Source
///
/// EPUB Canonical Fragment Identifiers 1.1. Deviations: a range may have an empty first part, which
/// is the start of its parent; an empty second part is refused, and so is a range whose parent ends
/// in an offset, since nothing can follow an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cfi {
    /// Invariant: begins with a step; only the last piece may be an offset.
    path: Vec<Piece>,
    range: Option<Ends>,
}

/// The two ends of a range, each to be put behind the path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ends {
    start: Vec<Piece>,
    /// Invariant: not empty.
    end: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Step { number: u32, assertion: Option<Assertion> },
    Indirection,
    Offset { offset: Offset, assertion: Option<Assertion> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offset {
    Character(u32),
    /// Invariant: at least one of the two is there.
    Media {
        seconds: Option<Decimal>,
        spot: Option<Spot>,
    },
}

/// A place in an image. The order compares `y` first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    y: Decimal,
    x: Decimal,
}

/// A decimal number without loss: whole part and the part behind the point in units of 10^-18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Decimal {
    whole: u32,
    fraction: u64,
}

/// What stands in brackets, unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assertion {
    /// Empty if the brackets begin with a parameter; otherwise as many as there are commas, and one.
    values: Vec<String>,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    values: Vec<String>,
}

/// What of a piece counts for the order. The variants stand in the order in which different kinds
/// follow one another at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Character(u32),
    Step(u32),
    Media { seconds: Option<Decimal>, spot: Option<Spot> },
    Indirection,
}

impl Cfi {
    /// Reads a CFI in its wrapping `epubcfi(…)`.
    ///
    /// # Errors
    ///
    /// [`CfiError::Unwrapped`] without the wrapping: the caller may know that
    /// [`parse_bare`](Self::parse_bare) is meant. The other variants say what is wrong and where.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cmp::Ordering;
    ///
    /// use catchword_model::cfi::Cfi;
    ///
    /// let ninth = Cfi::parse("epubcfi(/6/4[chapter]!/4/2/1:9)")?;
    /// let tenth = Cfi::parse("epubcfi(/6/4!/4/2/1:10)")?;
    ///
    /// assert_eq!(ninth.compare(&tenth), Ordering::Less);
    /// assert!(ninth.sort_key() < tenth.sort_key());
    /// # Ok::<(), catchword_model::cfi::CfiError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, CfiError> {
        check_length(text)?;
        let bare = text
            .strip_prefix("epubcfi(")
            .and_then(|rest| rest.strip_suffix(')'))
            .ok_or(CfiError::Unwrapped)?;
        Self::parse_within(bare)
    }

    /// Reads a CFI that stands without its wrapping, as some programs store it.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), without [`CfiError::Unwrapped`].
    pub fn parse_bare(text: &str) -> Result<Self, CfiError> {
        check_length(text)?;
        Self::parse_within(text)
    }

    /// Compares two CFIs by where a reader meets them.
    ///
    /// Assertions do not count. A range stands at its start; of two with one start the one that ends
    /// first comes first, and a point comes before both. A range that does not end after its start
    /// counts as a point.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.places().cmp(&other.places())
    }

    /// Returns bytes whose order is that of [`compare`](Self::compare).
    ///
    /// A prefix of the key may be kept instead of the whole: prefixes of one length are never in the
    /// opposite order, at worst they are equal.
    ///
    /// ```text
    /// key       = place 00 [ place 00 ]       the second place for a range
    /// place     = { mark }
    /// character = 10 + n, then the number in n bytes, big-endian, without leading zero bytes
    /// step      = 20 + n, likewise
    /// media     = 30, seconds, spot           each 00 if absent, else 01 and the decimals (y, then x)
    /// decimal   = whole part in 4 bytes, fraction in units of 10^-18 in 8
    /// redirect  = 40
    /// ```
    ///
    /// # Source
    ///
    /// The key of `docs/FORMAT.md`, "sort key". Numbers go in as few bytes as they need, so that
    /// twenty-eight bytes of the key reach some twelve levels deep instead of five.
    pub fn sort_key(&self) -> Vec<u8> {
        let (start, end) = self.places();
        let mut key = Vec::with_capacity(32);
        push_place(&mut key, &start);
        if let Some(end) = end {
            push_place(&mut key, &end);
        }
        key
    }

    fn parse_within(bare: &str) -> Result<Self, CfiError> {
        let mut reader = Reader::new(bare);
        let path = reader.path()?;
        let range = reader.range(&path)?;
        Ok(Self { path, range })
    }

    /// Returns where the CFI starts and, if it is a range with a length, where it ends.
    fn places(&self) -> (Vec<Mark>, Option<Vec<Mark>>) {
        match &self.range {
            None => (marks(&self.path, &[]), None),
            Some(ends) => {
                let start = marks(&self.path, &ends.start);
                let end = marks(&self.path, &ends.end);
                let end = (start < end).then_some(end);
                (start, end)
            }
        }
    }
}

impl fmt::Display for Cfi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("epubcfi(")?;
        write_pieces(f, &self.path)?;
        if let Some(ends) = &self.range {
            f.write_str(",")?;
            write_pieces(f, &ends.start)?;
            f.write_str(",")?;
            write_pieces(f, &ends.end)?;
        }
        f.write_str(")")
    }
}

/// A text is not a CFI that counts.
///
/// Whoever stored the text keeps it: it may mean something to the program that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CfiError {
    /// The text is longer than [`CFI_BYTES_MAX`].
    #[error("text has {bytes} bytes, more than {CFI_BYTES_MAX}")]
    TooLong {
        /// Length of the text, in bytes.
        bytes: usize,
    },

    /// The text does not stand in `epubcfi(…)`.
    #[error("text is not wrapped in epubcfi( )")]
    Unwrapped,

    /// The text breaks the grammar.
    #[error("expected {expected} at byte {at}")]
    Malformed {
        /// Where, in bytes from the first one inside the wrapping.
        at: usize,
        /// What would have been right there.
        expected: &'static str,
    },

    /// A number does not fit 32 bits, or has more than 18 digits behind the point.
    #[error("number before byte {at} is out of range")]
    NumberOutOfRange {
        /// Where the number ends, in bytes from the first one inside the wrapping.
        at: usize,
    },
}

fn check_length(text: &str) -> Result<(), CfiError> {
    if CFI_BYTES_MAX < text.len() {
        return Err(CfiError::TooLong { bytes: text.len() });
    }
    Ok(())
}

fn marks(path: &[Piece], rest: &[Piece]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = path.iter().chain(rest).map(mark).collect();
    // A place in text without an offset is the start of that text.
    if matches!(marks.last(), Some(Mark::Step(number)) if number % 2 == 1) {
        marks.push(Mark::Character(0));
    }
    marks
}

fn mark(piece: &Piece) -> Mark {
    match piece {
        Piece::Step { number, .. } => Mark::Step(*number),
        Piece::Indirection => Mark::Indirection,
        Piece::Offset { offset: Offset::Character(number), .. } => Mark::Character(*number),
        Piece::Offset { offset: Offset::Media { seconds, spot }, .. } => {
            Mark::Media { seconds: *seconds, spot: *spot }
        }
    }
}

/// Each is greater than every byte that begins a smaller kind, its count of bytes included.
const KEY_END: u8 = 0x00;
const KEY_CHARACTER: u8 = 0x10;
const KEY_STEP: u8 = 0x20;
const KEY_MEDIA: u8 = 0x30;
const KEY_INDIRECTION: u8 = 0x40;

fn push_place(key: &mut Vec<u8>, place: &[Mark]) {
    for mark in place {
        match mark {
            Mark::Character(number) => push_number(key, KEY_CHARACTER, *number),
            Mark::Step(number) => push_number(key, KEY_STEP, *number),
            Mark::Media { seconds, spot } => {
                key.push(KEY_MEDIA);
                push_decimals(key, seconds.as_slice());
                push_decimals(key, &spot.map_or(vec![], |spot| vec![spot.y, spot.x]));
            }
            Mark::Indirection => key.push(KEY_INDIRECTION),
        }
    }
    key.push(KEY_END);
}

/// A longer number is a greater one, so the count of bytes can stand before them.
fn push_number(key: &mut Vec<u8>, kind: u8, number: u32) {
    let bytes = number.to_be_bytes();
    let significant = bytes.iter().skip_while(|byte| **byte == 0);
    let first = key.len();
    key.push(kind);
    key.extend(significant);
    let count = u8::try_from(key.len() - first - 1).unwrap_or(u8::MAX);
    if let Some(kind) = key.get_mut(first) {
        *kind += count;
    }
}

fn push_decimals(key: &mut Vec<u8>, decimals: &[Decimal]) {
    key.push(u8::from(!decimals.is_empty()));
    for decimal in decimals {
        key.extend(decimal.whole.to_be_bytes());
        key.extend(decimal.fraction.to_be_bytes());
    }
}

fn write_pieces(f: &mut fmt::Formatter<'_>, pieces: &[Piece]) -> fmt::Result {
    for piece in pieces {
        match piece {
            Piece::Step { number, assertion } => {
                write!(f, "/{number}")?;
                write_assertion(f, assertion.as_ref())?;
            }
            Piece::Indirection => f.write_str("!")?,
            Piece::Offset { offset, assertion } => {
                write_offset(f, *offset)?;
                write_assertion(f, assertion.as_ref())?;
            }
        }
    }
    Ok(())
}

fn write_offset(f: &mut fmt::Formatter<'_>, offset: Offset) -> fmt::Result {
    match offset {
        Offset::Character(number) => write!(f, ":{number}"),
        Offset::Media { seconds, spot } => {
            if let Some(seconds) = seconds {
                write!(f, "~{seconds}")?;
            }
            if let Some(Spot { y, x }) = spot {
                write!(f, "@{x}:{y}")?;
            }
            Ok(())
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.whole)?;
        if self.fraction == 0 {
            return Ok(());
        }
        let digits = format!("{:0>FRACTION_DIGITS_MAX$}", self.fraction);
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

fn write_assertion(f: &mut fmt::Formatter<'_>, assertion: Option<&Assertion>) -> fmt::Result {
    let Some(Assertion { values, parameters }) = assertion else {
        return Ok(());
    };
    f.write_str("[")?;
    write_values(f, values)?;
    for Parameter { name, values } in parameters {
        f.write_str(";")?;
        write_escaped(f, name)?;
        f.write_str("=")?;
        write_values(f, values)?;
    }
    f.write_str("]")
}

fn write_values(f: &mut fmt::Formatter<'_>, values: &[String]) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        if index != 0 {
            f.write_str(",")?;
        }
        write_escaped(f, value)?;
    }
    Ok(())
}

fn write_escaped(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    for char in value.chars() {
        if SPECIAL.contains(&char) {
            f.write_str("^")?;
        }
        write!(f, "{char}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bare(text: &str) -> Cfi {
        Cfi::parse_bare(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn assert_order(left: &str, right: &str, expected: Ordering) {
        let (left, right) = (bare(left), bare(right));
        assert_eq!(left.compare(&right), expected, "{left} {right}");
        assert_eq!(right.compare(&left), expected.reverse(), "{right} {left}");
        assert_eq!(left.sort_key().cmp(&right.sort_key()), expected, "keys: {left} {right}");
    }

    /// Reads the shared vectors, or says that they are absent.
    fn vectors() -> Option<serde_json::Value> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = std::env::var_os("CATCHWORD_FIXTURES")
            .map_or_else(|| root.join("../shared/fixtures"), Into::into);
        let path = folder.join("cfi/vectors.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(serde_json::from_str(&text).expect("the vectors are JSON")),
            Err(error) => {
                let required =
                    std::env::var("CATCHWORD_REQUIRE_FIXTURES").is_ok_and(|set| set == "1");
                assert!(!required, "{}: {error}", path.display());
                #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
                {
                    eprintln!("left out, no fixtures: {}: {error}", path.display());
                }
                None
            }
        }
    }

    fn strings(list: &serde_json::Value) -> Vec<&str> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
    }

    #[test]
    fn the_vectors_of_other_programs_compare_as_they_say() {
        let Some(vectors) = vectors() else { return };

        let mut compared = 0;
        for list in ["compare", "compare_made"] {
            for row in vectors[list].as_array().unwrap() {
                let expected = row[2].as_i64().unwrap().cmp(&0);
                assert_order(row[0].as_str().unwrap(), row[1].as_str().unwrap(), expected);
                compared += 1;
            }
        }

        assert!(20 <= compared, "only {compared} vectors");
    }

    #[test]
    fn what_the_vectors_refuse_is_refused_and_what_was_seen_is_read_and_printed_again() {
        let Some(vectors) = vectors() else { return };

        for text in strings(&vectors["must_be_refused"]) {
            assert!(Cfi::parse(text).is_err(), "{text}");
        }
        for text in strings(&vectors["seen_in_the_wild"]) {
            assert_eq!(Cfi::parse(text).unwrap().to_string(), text);
        }
        for row in vectors["resolve"]["points"].as_array().unwrap() {
            bare(row[0].as_str().unwrap());
        }
        for row in vectors["resolve"]["ranges"].as_array().unwrap() {
            bare(row[0].as_str().unwrap());
        }
    }

    #[test]
    fn at_one_place_the_kinds_of_what_follows_have_an_order() {
        let rising = [
            "/6/4!/4",
            "/6/4!/4:0",
            "/6/4!/4:7",
            "/6/4!/4/2",
            "/6/4!/4/300",
            "/6/4!/4/70000",
            "/6/4!/4@5:1",
            "/6/4!/4@1:5",
            "/6/4!/4@1:5.5",
            "/6/4!/4@2:5.5",
            "/6/4!/4~1",
            "/6/4!/4~1@0:0",
            "/6/4!/4~1.25",
            "/6/4!/4~10",
            "/6/4!/4!/2",
            "/6/4!/5",
        ];
        for (index, left) in rising.iter().enumerate() {
            for right in rising.iter().skip(index + 1) {
                assert_order(left, right, Ordering::Less);
            }
        }
    }

    #[test]
    fn text_without_an_offset_is_the_start_of_the_text_and_an_element_is_not() {
        assert_order("/6/4!/4/3", "/6/4!/4/3:0", Ordering::Equal);
        assert_order("/6/4!/4/2", "/6/4!/4/2:0", Ordering::Less);
        assert_order("/6/4!/4,/3,/5", "/6/4!/4,/3:0,/5:0", Ordering::Equal);
    }

    #[test]
    fn a_point_comes_before_a_range_that_starts_there_and_equals_one_of_no_length() {
        assert_order("/6/4!/4/1:3", "/6/4!/4/1,:3,:4", Ordering::Less);
        assert_order("/6/4!/4/1:3", "/6/4!/4/1,:3,:3", Ordering::Equal);
        assert_order("/6/4!/4/1:3", "/6/4!/4/1,:3,:2", Ordering::Equal);
        assert_order("/6/4!/4/1,:3,:9", "/6/4!/4/1:4", Ordering::Less);
        assert_order("/6/4!/4", "/6/4!/4,,/2", Ordering::Less);
    }

    #[test]
    fn a_malformed_text_is_refused_at_the_place_where_it_goes_wrong() {
        let refused = |text: &str| Cfi::parse_bare(text).unwrap_err();

        assert_eq!(refused(""), CfiError::Malformed { at: 0, expected: "a step" });
        assert_eq!(refused("/6/x"), CfiError::Malformed { at: 3, expected: "a digit" });
        assert_eq!(
            refused("/6[]"),
            CfiError::Malformed { at: 4, expected: "brackets with something in them" }
        );
        assert_eq!(
            refused("/6[a^b]"),
            CfiError::Malformed { at: 5, expected: "a special character after ^" }
        );
        assert_eq!(
            refused("/6:1,/2,/4"),
            CfiError::Malformed { at: 4, expected: "the end, after an offset" }
        );
        assert_eq!(
            refused("/6,/2,"),
            CfiError::Malformed { at: 6, expected: "the end of the range" }
        );
        assert_eq!(Cfi::parse("/6/4"), Err(CfiError::Unwrapped));
    }

    #[test]
    fn a_malformed_number_or_assertion_is_refused() {
        let texts = [
            "/6/01", "/6:1:2", "/6~", "/6~1.", "/6~1.50", "/6@1", "/6@1:", "/6~-1", "/6/+1",
            "/6[a", "/6[a[b]", "/6[a(b]", "/6[a=b]", "/6[;=b]", "/6[;s]", "/6[;s=]", "/6]", "/6 ",
            "/6[a][b]", "/6/4[^",
        ];
        for text in texts {
            assert!(matches!(Cfi::parse_bare(text), Err(CfiError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn numbers_and_lengths_are_read_up_to_their_bounds_and_refused_one_past_them() {
        bare("/4294967295:4294967295");
        assert_eq!(
            Cfi::parse_bare("/4294967296"),
            Err(CfiError::NumberOutOfRange { at: "/4294967296".len() })
        );
        bare("/2~0.123456789012345678");
        assert_eq!(
            Cfi::parse_bare("/2~0.1234567890123456789"),
            Err(CfiError::NumberOutOfRange { at: "/2~0.1234567890123456789".len() })
        );

        let longest = "/2".repeat(CFI_BYTES_MAX / 2);
        bare(&longest);
        assert_eq!(
            Cfi::parse_bare(&(longest + "/")),
            Err(CfiError::TooLong { bytes: CFI_BYTES_MAX + 1 })
        );
    }

    #[test]
    fn a_place_deep_in_a_chapter_keeps_its_offset_within_twenty_eight_bytes() {
        let deep = "/6/46[chapter-23]!/4/2/4/30/8/2/1:";
        let left = bare(&format!("{deep}925")).sort_key();
        let right = bare(&format!("{deep}994")).sort_key();
        assert!(left.iter().take(28).lt(right.iter().take(28)));
    }

    proptest! {
        /// Invariant 2.
        #[test]
        fn keys_order_as_the_comparison_does(left in arb_cfi(), right in arb_cfi()) {
            prop_assert_eq!(left.sort_key().cmp(&right.sort_key()), left.compare(&right));
            prop_assert_eq!(left.compare(&right), right.compare(&left).reverse());
        }

        #[test]
        fn the_comparison_is_transitive(mut three in [arb_cfi(), arb_cfi(), arb_cfi()]) {
            three.sort_by(Cfi::compare);
            let [first, second, third] = three;
            prop_assert!(first.compare(&second).is_le());
            prop_assert!(second.compare(&third).is_le());
            prop_assert!(first.compare(&third).is_le());
        }

        #[test]
        fn assertions_do_not_change_the_place(cfi in arb_cfi()) {
            let plain = without_assertions(cfi.clone());
            prop_assert_eq!(cfi.compare(&plain), Ordering::Equal);
            prop_assert_eq!(cfi.sort_key(), plain.sort_key());
        }

        /// Invariant 1.
        #[test]
        fn what_is_printed_reads_as_what_it_was(cfi in arb_cfi()) {
            let text = cfi.to_string();
            let again = Cfi::parse(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(again.to_string(), text);
            prop_assert_eq!(again, cfi);
        }

        /// Invariant 3, on texts of which many get far into the grammar.
        #[test]
        fn no_text_makes_reading_panic(text in arb_text()) {
            if let Ok(cfi) = Cfi::parse_bare(&text) {
                prop_assert_eq!(cfi.to_string(), format!("epubcfi({text})"));
                cfi.sort_key();
            }
            let _refused_or_not = Cfi::parse(&text);
        }
    }

    fn without_assertions(mut cfi: Cfi) -> Cfi {
        let ends = cfi.range.iter_mut().flat_map(|ends| [&mut ends.start, &mut ends.end]);
        for piece in [&mut cfi.path].into_iter().chain(ends).flatten() {
            match piece {
                Piece::Step { assertion, .. } | Piece::Offset { assertion, .. } => {
                    *assertion = None;
                }
                Piece::Indirection => (),
            }
        }
        cfi
    }

    fn arb_text() -> impl Strategy<Value = String> {
        let likely =
            "(/[0-9]{1,3}|!|:[0-9]{1,2}|~1\\.5|@1:2|,|\\[[a-c^,;=]{0,4}\\]|[\\[\\]()^é]){0,12}";
        prop_oneof![3 => likely.prop_map(String::from), 1 => "\\PC{0,40}".prop_map(String::from)]
    }

    fn arb_cfi() -> impl Strategy<Value = Cfi> {
        let ends = (arb_path(0), arb_offset(), arb_path(1), arb_offset()).prop_map(
            |(mut start, start_offset, mut end, end_offset)| {
                start.extend(start_offset);
                end.extend(end_offset);
                Ends { start, end }
            },
        );
        (arb_step(), arb_path(0), prop::option::of(ends), arb_offset()).prop_map(
            |(first, rest, range, offset)| {
                let mut path = vec![first];
                path.extend(rest);
                path.extend(offset.filter(|_| range.is_none()));
                Cfi { path, range }
            },
        )
    }

    fn arb_path(least: usize) -> impl Strategy<Value = Vec<Piece>> {
        let piece = prop_oneof![5 => arb_step(), 1 => Just(Piece::Indirection)];
        prop::collection::vec(piece, least..4)
    }

    fn arb_step() -> impl Strategy<Value = Piece> {
        (arb_number(), arb_assertion())
            .prop_map(|(number, assertion)| Piece::Step { number, assertion })
    }

    fn arb_offset() -> impl Strategy<Value = Option<Piece>> {
        let spot = (arb_decimal(), arb_decimal()).prop_map(|(y, x)| Spot { y, x });
        let media = (prop::option::of(arb_decimal()), prop::option::of(spot))
            .prop_filter("one of the two", |(seconds, spot)| seconds.is_some() || spot.is_some())
            .prop_map(|(seconds, spot)| Offset::Media { seconds, spot });
        let offset = prop_oneof![2 => arb_number().prop_map(Offset::Character), 1 => media];
        let piece = (offset, arb_assertion())
            .prop_map(|(offset, assertion)| Piece::Offset { offset, assertion });
        prop::option::of(piece)
    }

    /// Few different numbers, so that places often agree for a while; all lengths in bytes.
    fn arb_number() -> impl Strategy<Value = u32> {
        prop_oneof![
            6 => 0..4_u32,
            1 => 254..258_u32,
            1 => 65_534..65_538_u32,
            1 => 16_777_214..16_777_218_u32,
            1 => u32::MAX - 1..=u32::MAX,
        ]
    }

    fn arb_decimal() -> impl Strategy<Value = Decimal> {
        let fraction = prop::sample::select(vec![0, 1, 250_000_000_000_000_000]);
        (arb_number(), fraction).prop_map(|(whole, fraction)| Decimal { whole, fraction })
    }

    fn arb_assertion() -> impl Strategy<Value = Option<Assertion>> {
        let value = "[a-b^(),;=\\[\\] é]{1,3}";
        let values = prop::collection::vec(value, 1..3);
        let parameter =
            (value, values.clone()).prop_map(|(name, values)| Parameter { name, values });
        let assertion = (values, prop::collection::vec(parameter, 0..2))
            .prop_map(|(values, parameters)| Assertion { values, parameters });
        prop::option::weighted(0.3, assertion)
    }
}

//! Identifiers: one type for each, with its text form and, where it is derived, its derivation.
//!
//! Every identifier is plain bytes of a fixed length. Text forms are lower-case hex, except for
//! annotations and shelves, whose 16 bytes are written as 26 characters of Crockford's base32 in
//! upper case so that they sort by time of creation. In a format that people read an identifier of
//! hex digits is its text form, in any other its bytes.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use sha2::{Digest, Sha256};

/// An identifier was not written in its text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}")]
#[non_exhaustive]
pub struct ParseIdError {
    /// The form that was expected, for people.
    pub expected: &'static str,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Returns the bytes of the identifier.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Reads an identifier from exactly as many bytes as it has.
            ///
            /// # Errors
            ///
            /// [`ParseIdError`] if `bytes` has another length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseIdError> {
                bytes.try_into().map(Self).map_err(|_| ParseIdError { expected: $expected })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Through the formatter each digit would be a call of its own.
                let mut text = [0; 2 * $len];
                for (digits, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    digits.copy_from_slice(&hex_digits(byte));
                }
                f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let wrong = ParseIdError { expected: $expected };
                if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(wrong);
                }
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong)?;
                Self::from_slice(&bytes)
            }
        }

        impl serde::ser::Serialize for $name {
            fn serialize<S: serde::ser::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::id::serialize(self, &self.0, to)
            }
        }

        impl<'de> serde::de::Deserialize<'de> for $name {
            fn deserialize<D: serde::de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::id::deserialize(from, $expected, Self::from_slice)
            }
        }
    };
}

pub(crate) use hex_id;

pub(crate) fn serialize<S: Serializer>(
    text: &impl fmt::Display,
    bytes: &[u8],
    to: S,
) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() { to.collect_str(text) } else { to.serialize_bytes(bytes) }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err = ParseIdError>>(
    from: D,
    expected: &'static str,
    from_slice: fn(&[u8]) -> Result<T, ParseIdError>,
) -> Result<T, D::Error> {
    let either = Either { expected, from_slice };
    if from.is_human_readable() {
        from.deserialize_str(either)
    } else {
        from.deserialize_bytes(either)
    }
}

/// Takes both forms: what a tagged value holds has lost which kind of format it stood in.
struct Either<T> {
    expected: &'static str,
    from_slice: fn(&[u8]) -> Result<T, ParseIdError>,
}

impl<T: FromStr<Err = ParseIdError>> Visitor<'_> for Either<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        (self.from_slice)(bytes).map_err(E::custom)
    }
}

pub(crate) const fn hex_digits(byte: u8) -> [u8; 2] {
    const fn digit(value: u8) -> u8 {
        if value < 10 { b'0' + value } else { b'a' + value - 10 }
    }
    [digit(byte >> 4), digit(byte & 0xF)]
}

hex_id!(
    /// One book file: the SHA-256 of its bytes.
    BookId, 32, "a book id of 64 hex digits"
);
hex_id!(
    /// One Automerge document: of a book, of a book's notes, or of the library.
    DocumentId, 32, "a document id of 64 hex digits"
);
hex_id!(
    /// One change, by the SHA-256 of its bytes as Automerge computes it.
    ChangeHash, 32, "a change hash of 64 hex digits"
);
hex_id!(
    /// One reading event, by the SHA-256 of its bytes under a label of its own.
    EventHash, 32, "an event hash of 64 hex digits"
);
hex_id!(
    /// One installation and one generation of it.
    DeviceId, 16, "a device id of 32 hex digits"
);
hex_id!(
    /// One writer of one document: a device in one of its turns there.
    ActorId, 16, "an actor id of 32 hex digits"
);
hex_id!(
    /// 16 random bytes, drawn anew when the store is known to have gone back in time.
    Generation, 16, "a generation of 32 hex digits"
);

impl BookId {
    /// Returns the id of this book's own document, which has the same bytes.
    pub const fn document(self) -> DocumentId {
        DocumentId(self.0)
    }

    /// Returns the id of the document that holds this book's journal and application data.
    pub fn notes_document(self) -> DocumentId {
        DocumentId(sha256(&[b"catchword/notes/v1", &self.0]))
    }
}

impl DocumentId {
    /// Returns the fixed id of the library document.
    pub fn library() -> Self {
        Self(sha256(&[b"catchword/library/v1"]))
    }
}

impl DeviceId {
    /// Derives the id of a device from its public key and the generation of its store.
    ///
    /// `public_key_spki` is the key as a DER-encoded `SubjectPublicKeyInfo`.
    pub fn derive(public_key_spki: &[u8], generation: Generation) -> Self {
        Self(first16(sha256(&[b"catchword/device/v1", public_key_spki, &generation.0])))
    }
}

impl ActorId {
    /// Derives the actor of `device` in `document`; `n` is 0 until a fork forces another.
    pub fn derive(device: DeviceId, document: DocumentId, n: u32) -> Self {
        let n = n.to_be_bytes();
        Self(first16(sha256(&[b"catchword/actor/v1", &device.0, &document.0, &n])))
    }

    /// Derives the fixed actor that upgrades a document to `schema`.
    pub fn of_schema(schema: u32) -> Self {
        Self(first16(sha256(&[b"catchword/schema", &schema.to_be_bytes()])))
    }
}

/// Whose change this is: what the first change of an actor carries as its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author {
    /// The device that writes.
    pub device: DeviceId,
    /// Which of the device's actors in this document.
    pub n: u32,
}

impl Author {
    /// Length in bytes: the device, then `n` big-endian.
    pub const LEN: usize = 20;

    /// Returns the 20 bytes that a change carries.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (device, n) = bytes.split_at_mut(DeviceId::LEN);
        device.copy_from_slice(&self.device.0);
        n.copy_from_slice(&self.n.to_be_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (device, n) = bytes.split_first_chunk::<16>()?;
        Some(Self { device: DeviceId(*device), n: u32::from_be_bytes(n.try_into().ok()?) })
    }

    /// Returns the actor under which this author writes in `document`.
    pub fn actor(self, document: DocumentId) -> ActorId {
        ActorId::derive(self.device, document, self.n)
    }
}

macro_rules! base32_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Makes an id that sorts by `now_ms`, in the ULID layout: 48 bits of milliseconds
            /// since the Unix epoch, then 80 random bits.
            pub fn new(now_ms: u64, random: [u8; 10]) -> Self {
                Self(ulid(now_ms, random))
            }

            /// Derives an id from where a record came from, so that importing it again makes the
            /// same id. `source` names the kind of source, `fields` what is stable in the record.
            pub fn derived(source: &str, fields: &[&str]) -> Self {
                Self(derived(stringify!($name), source, fields))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&crockford(u128::from_be_bytes(self.0)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let value = parse_crockford(text).ok_or(ParseIdError { expected: $expected })?;
                Ok(Self(value.to_be_bytes()))
            }
        }
    };
}

base32_id!(
    /// One highlight, note or bookmark.
    AnnotationId, "an annotation id of 26 characters of Crockford's base32, in upper case"
);
base32_id!(
    /// One shelf.
    ShelfId, "a shelf id of 26 characters of Crockford's base32, in upper case"
);

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CROCKFORD_CHARS: u32 = 26;

fn crockford(value: u128) -> String {
    (0..CROCKFORD_CHARS)
        .rev()
        .map(|place| {
            let digit = usize::try_from((value >> (place * 5)) & 31).unwrap_or_default();
            CROCKFORD.get(digit).copied().map_or('0', char::from)
        })
        .collect()
}

/// Only the canonical form is read: one id must not have two spellings, since it is part of keys.
fn parse_crockford(text: &str) -> Option<u128> {
    if text.len() != CROCKFORD_CHARS as usize {
        return None;
    }
    let mut value: u128 = 0;
    for (place, byte) in text.bytes().enumerate() {
        let digit = CROCKFORD.iter().position(|known| *known == byte)?;
        if place == 0 && 7 < digit {
            return None;
        }
        value = (value << 5) | u128::try_from(digit).ok()?;
    }
    Some(value)
}

fn ulid(now_ms: u64, random: [u8; 10]) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (time, rest) = bytes.split_at_mut(6);
    for (to, from) in time.iter_mut().zip(now_ms.to_be_bytes().into_iter().skip(2)) {
        *to = from;
    }
    rest.copy_from_slice(&random);
    bytes
}

fn derived(kind: &str, source: &str, fields: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in ["catchword/derived/v1", kind, source].iter().chain(fields) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    first16(hash.finalize().into())
}

/// Returns the SHA-256 of the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn first16(hash: [u8; 32]) -> [u8; 16] {
    let [head, _] = [hash.first_chunk::<16>(), hash.last_chunk::<16>()];
    head.copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn derivations_follow_the_written_rule() {
        let device = DeviceId::derive(b"spki", Generation([7; 16]));
        let expected = sha256(&[b"catchword/device/v1spki", &[7; 16]]);
        assert_eq!(device.0, expected[..16]);

        let document = BookId([9; 32]).document();
        let actor = ActorId::derive(device, document, 3);
        let expected = sha256(&[b"catchword/actor/v1", &device.0, &[9; 32], &[0, 0, 0, 3]]);
        assert_eq!(actor.0, expected[..16]);
        assert_eq!(Author { device, n: 3 }.actor(document), actor);
    }

    #[test]
    fn the_notes_document_is_not_the_document_of_the_book() {
        let book = BookId([1; 32]);
        assert_ne!(book.document(), book.notes_document());
        assert_ne!(book.notes_document(), DocumentId::library());
    }

    #[test]
    fn annotation_ids_sort_by_the_time_they_were_made() {
        let early = AnnotationId::new(1_000, [255; 10]);
        let late = AnnotationId::new(1_001, [0; 10]);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn a_second_spelling_of_an_id_is_refused() {
        let id = AnnotationId::new(1, [3; 10]).to_string();
        assert!(id.to_lowercase().parse::<AnnotationId>().is_err());
        assert!("80000000000000000000000000".parse::<AnnotationId>().is_err());
        assert!("AB".repeat(32).parse::<BookId>().is_err());
    }

    #[test]
    fn importing_a_record_twice_makes_one_id() {
        let fields = ["2024-05-01", "page 3"];
        let once = AnnotationId::derived("kindle", &fields);
        assert_eq!(once, AnnotationId::derived("kindle", &fields));
        assert_ne!(once, AnnotationId::derived("kindle", &["2024-05-01page 3"]));
    }

    #[test]
    fn where_people_read_an_identifier_is_its_text_form() {
        let book = BookId([7; 32]);
        let json = serde_json::to_string(&book).unwrap();
        assert_eq!(json, format!("\"{book}\""));
        assert_eq!(serde_json::from_str::<BookId>(&json).unwrap(), book);
        assert!(serde_json::from_str::<BookId>("\"07\"").is_err());
        assert!(serde_json::from_str::<BookId>(&json.replace("07", "0A")).is_err());
    }

    proptest! {
        #[test]
        fn text_forms_round_trip(bytes in any::<[u8; 32]>(), id in any::<[u8; 16]>()) {
            let book = BookId(bytes);
            prop_assert_eq!(book.to_string().parse::<BookId>(), Ok(book));
            let id = AnnotationId(id);
            prop_assert_eq!(id.to_string().parse::<AnnotationId>(), Ok(id));
        }
    }
}

//! How a body is written down: JSON for people and web pages, CBOR for devices.
//!
//! Bytes are base64 in JSON (the standard alphabet, padded) and byte strings in CBOR; identifiers are
//! lower-case hex in JSON and byte strings in CBOR. Unknown members are passed over, so that either
//! side may be newer.

use std::fmt;

use catchword_model::exchange::DocumentName;
use data_encoding::BASE64;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A way to write a body down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Format {
    /// Text.
    #[default]
    Json,
    /// Binary, as of RFC 8949.
    Cbor,
}

/// A body does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not what this call expects")]
#[non_exhaustive]
pub struct BodyError;

impl Format {
    /// Returns the media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// Returns the format with this media type, whatever its parameters are.
    pub fn of_content_type(value: &str) -> Option<Self> {
        let media = value.split(';').next().unwrap_or_default().trim();
        let is = |format: &Self| media.eq_ignore_ascii_case(format.content_type());
        [Self::Json, Self::Cbor].into_iter().find(is)
    }

    /// Writes a body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] if a value cannot be said in this format.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Vec<u8>, BodyError> {
        match self {
            Self::Json => serde_json::to_vec(value).map_err(|_| BodyError),
            Self::Cbor => {
                let mut out = Vec::new();
                ciborium::into_writer(value, &mut out).map_err(|_| BodyError)?;
                Ok(out)
            }
        }
    }

    /// Reads a body. Nothing may follow it.
    ///
    /// # Errors
    ///
    /// [`BodyError`].
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, BodyError> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|_| BodyError),
            Self::Cbor => {
                let mut rest = bytes;
                let value = ciborium::from_reader(&mut rest).map_err(|_| BodyError)?;
                if rest.is_empty() { Ok(value) } else { Err(BodyError) }
            }
        }
    }
}

/// Bytes in a body.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(&BASE64.encode(&self.0))
        } else {
            to.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            from.deserialize_str(BlobVisitor)
        } else {
            from.deserialize_byte_buf(BlobVisitor)
        }
    }
}

/// Takes both forms: what a tagged value holds has lost which kind of format it stood in.
struct BlobVisitor;

impl Visitor<'_> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Blob, E> {
        BASE64.decode(text.as_bytes()).map(Blob).map_err(|_| E::custom("not base64"))
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(Blob(bytes.to_vec()))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(Blob(bytes))
    }
}

/// A document by its name: `library`, `book/` or `notes/` with the id of the book. For `serde(with)`.
pub mod document {
    use super::{Deserialize, Deserializer, DocumentName, Serializer};
    use serde::de::Error as _;

    /// Writes a name.
    ///
    /// # Errors
    ///
    /// Those of the format.
    pub fn serialize<S: Serializer>(name: &DocumentName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::document_text(*name))
    }

    /// Reads a name.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DocumentName, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_document(&text).ok_or_else(|| D::Error::custom("not the name of a document"))
    }
}

/// Returns the text form of a document's name.
pub fn document_text(name: DocumentName) -> String {
    match name {
        DocumentName::Library => "library".to_owned(),
        DocumentName::Book(book) => format!("book/{book}"),
        DocumentName::Notes(book) => format!("notes/{book}"),
    }
}

/// Reads the text form of a document's name.
pub fn parse_document(text: &str) -> Option<DocumentName> {
    if text == "library" {
        return Some(DocumentName::Library);
    }
    let (kind, book) = text.split_once('/')?;
    let book = book.parse().ok()?;
    match kind {
        "book" => Some(DocumentName::Book(book)),
        "notes" => Some(DocumentName::Notes(book)),
        _ => None,
    }
}

/// So many bytes, as hex digits where people read them. For `serde(with)`.
pub(super) mod fixed {
    use super::{Deserializer, FixedVisitor, Serializer};
    pub(in crate::cloud) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(&data_encoding::HEXLOWER.encode(bytes))
        } else {
            to.serialize_bytes(bytes)
        }
    }

    pub(in crate::cloud) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        from.deserialize_any(FixedVisitor)
    }
}

struct FixedVisitor<const N: usize>;

impl<const N: usize> Visitor<'_> for FixedVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<[u8; N], E> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes());
        let bytes = bytes.map_err(|_| E::custom("not lower-case hex"))?;
        self.visit_bytes(&bytes)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

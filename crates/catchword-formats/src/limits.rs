//! How much of a book file is read at most. Files beyond a limit are refused, never cut.

/// Inflated size of all entries of an archive together, in bytes: 1 GiB.
///
/// Large comics stay below; what is above would fill a telephone.
pub const INFLATED_BYTES_MAX: u64 = 1 << 30;

/// Inflated size up to which any ratio of compression is accepted, in bytes: 64 MiB.
pub const RATIO_FREE_BYTES: u64 = 64 << 20;

/// Inflated bytes for each byte of the file, beyond [`RATIO_FREE_BYTES`].
///
/// Text compresses to a fifth, never to a two-hundredth.
pub const RATIO_MAX: u64 = 200;

/// Entries of an archive.
pub const ENTRIES_MAX: u64 = 20_000;

/// Bytes read to learn what an archive contains, its list of entries above all: 64 MiB.
///
/// The list is held in memory; 20,000 entries with long names fit easily.
pub const LISTING_BYTES_MAX: u64 = 64 << 20;

/// Size of the container, of the package and of the list of encrypted entries, each, in bytes: 8 MiB.
pub const XML_BYTES_MAX: u64 = 8 << 20;

/// Elements of one XML document.
///
/// A package names each entry of the archive at most a few times.
pub const XML_ELEMENTS_MAX: usize = 200_000;

/// Elements inside each other in one XML document.
pub const XML_DEPTH_MAX: usize = 64;

/// Attributes of one element.
pub const XML_ATTRIBUTES_MAX: usize = 64;

/// Size of a PDF, in bytes: 512 MiB. It is held in memory while it is read.
pub const PDF_BYTES_MAX: u64 = 512 << 20;

/// Size to which one stream of a PDF may inflate, in bytes: 64 MiB.
pub const PDF_STREAM_BYTES_MAX: u64 = 64 << 20;

/// Characters kept of a title, a name or an identifier; the rest is cut off.
pub const TEXT_CHARS_MAX: usize = 1_000;

/// Authors and identifiers kept of a book, each; the rest is left out.
pub const NAMES_MAX: usize = 100;

/// Warnings kept of a book; the rest is counted.
pub const WARNINGS_MAX: usize = 100;

const _: () = assert!(RATIO_FREE_BYTES < INFLATED_BYTES_MAX);
const _: () = assert!(XML_BYTES_MAX < RATIO_FREE_BYTES);

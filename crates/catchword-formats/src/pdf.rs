//! PDF: title, author and pages, by a maintained library that is not trusted with memory or panics.
//!
//! The library first looks up only what the file's table of contents leads to. The whole file is
//! read when that does not suffice: no title there, or a number of pages that cannot be.

use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};

use lopdf::{Dictionary, Document, LoadOptions, Object, ObjectId, PdfMetadata};

use crate::book::{BookFile, Format};
use crate::limits::{NAMES_MAX, PDF_BYTES_MAX, PDF_STREAM_BYTES_MAX, XML_BYTES_MAX};
use crate::refused::{Excess, RefusedFile};
use crate::text;
use crate::warning::{Warning, Warnings};
use crate::xml::{self, Element, Namespace};

/// A page takes more than this of a file, in bytes, however well it is compressed.
///
/// A file that declares more pages than that is not believed; its pages are counted.
const PAGE_BYTES_MIN: usize = 16;

/// Reads a PDF.
pub(crate) fn read<R: Read + Seek>(source: R) -> Result<BookFile, RefusedFile> {
    let bytes = read_whole(source)?;
    let metadata = guarded(|| Document::load_metadata_mem(&bytes))?;
    if metadata.encrypted && metadata.page_count == 0 {
        return Err(RefusedFile::PdfPassword);
    }
    let mut known = Known::from_metadata(&metadata);
    let credible =
        usize::try_from(known.pages).unwrap_or(usize::MAX) <= bytes.len() / PAGE_BYTES_MIN;
    if known.title.is_none() || known.pages == 0 || !credible {
        let found = guarded(|| {
            let document = Document::load_mem_with_options(&bytes, options())?;
            Ok(Found { pages: document.get_pages().len(), xmp: xmp(&document) })
        });
        known.complete(found, credible)?;
    }

    let mut warnings = Warnings::default();
    if metadata.xref_recovery.is_some() {
        warnings.push(Warning::RepairedPdf);
    }
    if known.title.is_none() {
        warnings.push(Warning::NoTitle);
    }
    Ok(BookFile {
        format: Format::Pdf,
        title: known.title,
        authors: known.authors,
        language: None,
        identifiers: Vec::new(),
        spine: Vec::new(),
        pages: Some(known.pages),
        has_cover: false,
        warnings: warnings.into_vec(),
    })
}

/// What is known of a PDF so far.
struct Known {
    title: Option<String>,
    authors: Vec<String>,
    pages: u32,
}

/// What the whole file says.
struct Found {
    pages: usize,
    /// The metadata stream of the document.
    xmp: Option<Vec<u8>>,
}

impl Known {
    fn from_metadata(metadata: &PdfMetadata) -> Self {
        let clean = |text: &Option<String>| text.as_deref().and_then(text::clean);
        Self {
            title: clean(&metadata.title),
            authors: clean(&metadata.author).into_iter().collect(),
            pages: metadata.page_count,
        }
    }

    /// Adds what the whole file says. Where the number of pages is settled, a file that cannot be
    /// read whole is a file without further metadata.
    fn complete(
        &mut self,
        found: Result<Found, RefusedFile>,
        credible: bool,
    ) -> Result<(), RefusedFile> {
        let found = match found {
            Ok(found) => found,
            Err(_) if credible && 0 < self.pages => return Ok(()),
            Err(refused) => return Err(refused),
        };
        if self.pages == 0 || !credible {
            self.pages = u32::try_from(found.pages).unwrap_or(u32::MAX);
        }
        if self.pages == 0 {
            return Err(RefusedFile::PdfUnreadable { detail: "it has no pages".into() });
        }
        let Some(root) = found.xmp.and_then(|xmp| xml::parse(&xmp).ok()) else { return Ok(()) };
        if self.title.is_none() {
            self.title = dublin_core(&root, "title").into_iter().next();
        }
        if self.authors.is_empty() {
            self.authors = dublin_core(&root, "creator");
        }
        Ok(())
    }
}

fn read_whole<R: Read + Seek>(mut source: R) -> Result<Vec<u8>, RefusedFile> {
    let length = source.seek(SeekFrom::End(0)).map_err(RefusedFile::Io)?;
    if PDF_BYTES_MAX < length {
        return Err(RefusedFile::TooLarge { excess: Excess::Pdf });
    }
    source.seek(SeekFrom::Start(0)).map_err(RefusedFile::Io)?;
    let mut bytes = Vec::new();
    source.take(PDF_BYTES_MAX).read_to_end(&mut bytes).map_err(RefusedFile::Io)?;
    Ok(bytes)
}

/// Runs the library and turns its errors and its panics into refusals.
///
/// The library meets bytes from anywhere and indexes into them; a panic there is a damaged file,
/// not a reason to take the application down. Nothing it touched is used afterwards.
fn guarded<T>(run: impl FnOnce() -> lopdf::Result<T>) -> Result<T, RefusedFile> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(refusal(&error)),
        Err(_) => Err(RefusedFile::PdfUnreadable { detail: "its structure makes no sense".into() }),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum that grows: the file is at fault")]
fn refusal(error: &lopdf::Error) -> RefusedFile {
    match error {
        lopdf::Error::InvalidPassword
        | lopdf::Error::Decryption(_)
        | lopdf::Error::UnsupportedSecurityHandler(_) => RefusedFile::PdfPassword,
        other => RefusedFile::PdfUnreadable { detail: other.to_string() },
    }
}

fn options() -> LoadOptions {
    LoadOptions {
        max_decompressed_size: usize::try_from(PDF_STREAM_BYTES_MAX).ok(),
        filter: Some(keep_structure),
        ..LoadOptions::default()
    }
}

/// Keeps of an object what leads to pages and metadata, so that the pages themselves, which are
/// nearly all of the file, take no memory.
///
/// The library asks whether to keep an object and takes a changed one from the argument, or, for
/// objects packed together, from the result.
fn keep_structure(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    match object {
        Object::Stream(stream) => {
            let dict = &stream.dict;
            let keep = dict.has_type(b"ObjStm") || dict.has_type(b"Metadata");
            keep.then_some((id, Object::Null))
        }
        Object::Dictionary(dictionary) => {
            let mut kept = Dictionary::new();
            for key in [&b"Type"[..], b"Pages", b"Kids", b"Count", b"Parent", b"Metadata"] {
                if let Ok(value) = dictionary.get(key) {
                    kept.set(key, value.clone());
                }
            }
            *dictionary = kept;
            Some((id, Object::Dictionary(dictionary.clone())))
        }
        Object::Array(_) | Object::Reference(_) | Object::Integer(_) => Some((id, object.clone())),
        Object::Null
        | Object::Boolean(_)
        | Object::Real(_)
        | Object::Name(_)
        | Object::String(..) => None,
    }
}

/// Returns the metadata stream of the document, inflated.
fn xmp(document: &Document) -> Option<Vec<u8>> {
    let stream =
        document.catalog().ok()?.get_deref(b"Metadata", document).ok()?.as_stream().ok()?;
    let bytes_max = usize::try_from(XML_BYTES_MAX).ok()?;
    stream.get_plain_content_with_limit(bytes_max).ok()
}

/// Returns the values of a property of Dublin Core, in order.
fn dublin_core(root: &Element, name: &str) -> Vec<String> {
    let mut values = Vec::new();
    root.walk(&mut |element| {
        if element.namespace == Namespace::DublinCore && element.name == name {
            element.walk(&mut |inner| values.extend(text::clean(&inner.text)));
        }
    });
    values.truncate(NAMES_MAX);
    values
}

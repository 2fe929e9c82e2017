//! EPUB 2 and 3: what the package says, held against what the archive contains.
//!
//! The container names the package; the package lists the parts of the book and their order. What
//! is missing or damaged is a warning, as long as one document of the reading order can be read.

mod package;

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use crate::archive::{Archive, PartError};
use crate::book::{BookFile, Format, SpineItem};
use crate::href;
use crate::limits::XML_BYTES_MAX;
use crate::refused::{Excess, RefusedFile};
use crate::warning::{ItemKind, Warning, Warnings};
use crate::xml;

use self::package::{ManifestItem, Package};

const CONTAINER: &str = "META-INF/container.xml";
const ENCRYPTION: &str = "META-INF/encryption.xml";
const PACKAGE_TYPE: &str = "application/oebps-package+xml";

/// What the first entry of the archive, called `mimetype`, contains.
const MIMETYPE: &[u8] = b"application/epub+zip";

/// The two ways of making fonts unusable outside of the book. The text is not touched.
const FONT_OBFUSCATIONS: [&str; 2] =
    ["http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"];

/// Reads an EPUB.
pub(crate) fn read<R: Read + Seek>(source: R) -> Result<BookFile, RefusedFile> {
    let mut archive = Archive::open(source)?;
    let mut warnings = Warnings::default();
    if !has_mimetype(&mut archive)? {
        warnings.push(Warning::OddMimetype);
    }
    let container = read_container(&mut archive)?;
    refuse_encryption(&mut archive)?;
    let (path, package) = read_package(&mut archive, &container)?;
    let sizes = archive.measure()?;

    let contents = Contents { archive: &archive, sizes: &sizes, package_path: &path };
    contents.warn_of_items(&package, &mut warnings);
    let spine = contents.spine(&package, &mut warnings);
    if spine.iter().all(|item| item.bytes == 0) {
        return Err(RefusedFile::NoReadableSpineItem { items: spine.len() });
    }
    let has_cover = contents.has_cover(&package, &mut warnings);
    if package.title.is_none() {
        warnings.push(Warning::NoTitle);
    }
    Ok(BookFile {
        format: if package.version.starts_with('3') { Format::Epub3 } else { Format::Epub2 },
        title: package.title,
        authors: package.authors,
        language: package.language,
        identifiers: package.identifiers,
        spine,
        pages: None,
        has_cover,
        warnings: warnings.into_vec(),
    })
}

/// The parts of a book as the package names them, looked up in the archive.
struct Contents<'a, R> {
    archive: &'a Archive<R>,
    /// True sizes of the entries in bytes; `None` for those that cannot be read.
    sizes: &'a [Option<u64>],
    package_path: &'a str,
}

/// Where a part of a book is.
enum Found {
    /// It lies in the archive.
    Here { path: String, bytes: u64 },
    /// It lies in the archive and cannot be read, or is empty.
    Damaged { path: String },
    /// It does not lie in the archive; the reference as far as it could be resolved.
    Missing { path: String },
    /// It is on the web.
    Remote,
}

impl<R: Read + Seek> Contents<'_, R> {
    fn find(&self, item: &ManifestItem) -> Found {
        if href::is_remote(&item.href) {
            return Found::Remote;
        }
        let paths = [
            href::resolve(self.package_path, &item.href),
            href::resolve_literally(self.package_path, &item.href),
        ];
        for path in paths.iter().flatten() {
            let Some(index) = self.archive.find(path) else { continue };
            let path = path.clone();
            return match self.sizes.get(index).copied().flatten() {
                Some(bytes) if 0 < bytes => Found::Here { path, bytes },
                _ => Found::Damaged { path },
            };
        }
        let [path, _] = paths;
        Found::Missing { path: path.unwrap_or_else(|| item.href.clone()) }
    }

    fn warn_of_items(&self, package: &Package, warnings: &mut Warnings) {
        let in_spine: BTreeSet<&str> = package.spine.iter().map(String::as_str).collect();
        for item in &package.manifest {
            let kind = if in_spine.contains(item.id.as_str()) {
                ItemKind::SpineItem
            } else {
                kind_of(&item.media_type)
            };
            match self.find(item) {
                Found::Here { .. } => {}
                // The web has no part in reading; only sound and fonts may be there.
                Found::Remote if kind != ItemKind::SpineItem => {}
                Found::Remote => {
                    warnings.push(Warning::MissingItem { item: kind, href: item.href.clone() });
                }
                Found::Damaged { path } => {
                    warnings.push(Warning::DamagedItem { item: kind, href: href::encode(&path) });
                }
                Found::Missing { path } => {
                    warnings.push(Warning::MissingItem { item: kind, href: href::encode(&path) });
                }
            }
        }
        for id in &package.duplicate_ids {
            warnings.push(Warning::DuplicateId { id: id.clone() });
        }
    }

    fn spine(&self, package: &Package, warnings: &mut Warnings) -> Vec<SpineItem> {
        let mut spine = Vec::with_capacity(package.spine.len());
        for idref in &package.spine {
            let (href, bytes) = match package.item(idref).map(|item| self.find(item)) {
                Some(Found::Here { path, bytes }) => (href::encode(&path), bytes),
                Some(Found::Damaged { path } | Found::Missing { path }) => (href::encode(&path), 0),
                Some(Found::Remote) => (String::new(), 0),
                None => {
                    warnings.push(Warning::UnknownSpineItem { idref: idref.clone() });
                    (String::new(), 0)
                }
            };
            spine.push(SpineItem { href, bytes, idref: idref.clone() });
        }
        spine
    }

    fn has_cover(&self, package: &Package, warnings: &mut Warnings) -> bool {
        let Some(cover) = package.cover() else {
            warnings.push(Warning::NoCover);
            return false;
        };
        matches!(self.find(cover), Found::Here { .. })
    }
}

fn kind_of(media_type: &str) -> ItemKind {
    let media_type = media_type.to_ascii_lowercase();
    if media_type.starts_with("image/") {
        ItemKind::Image
    } else if media_type.contains("font") || media_type.contains("opentype") {
        ItemKind::Font
    } else if media_type == "text/css" {
        ItemKind::Style
    } else {
        ItemKind::Other
    }
}

fn has_mimetype<R: Read + Seek>(archive: &mut Archive<R>) -> Result<bool, RefusedFile> {
    if archive.first_name().as_deref() != Some("mimetype") {
        return Ok(false);
    }
    match archive.read_part(0, 1024) {
        Ok(mimetype) => Ok(mimetype.trim_ascii() == MIMETYPE),
        Err(PartError::Damaged(_) | PartError::TooLarge) => Ok(false),
        Err(PartError::Io(error)) => Err(RefusedFile::Io(error)),
    }
}

/// Returns where the container says the package is.
fn read_container<R: Read + Seek>(archive: &mut Archive<R>) -> Result<String, RefusedFile> {
    let no_container = |detail: String| RefusedFile::NoContainer { detail };
    let Some(index) = archive.find(CONTAINER) else {
        return Err(no_container("is missing".into()));
    };
    let bytes = read_xml(archive, index, CONTAINER, no_container)?;
    let root = xml::parse(&bytes).map_err(no_container)?;
    let mut packages = Vec::new();
    root.walk(&mut |element| {
        if element.name == "rootfile" {
            packages.extend(element.attribute("full-path").map(|path| (path, element)));
        }
    });
    let declared = packages.iter().find(|(_, element)| {
        element.attribute("media-type").is_some_and(|media_type| media_type == PACKAGE_TYPE)
    });
    match declared.or(packages.first()) {
        Some((path, _)) => Ok((*path).to_owned()),
        None => Err(no_container("names no package".into())),
    }
}

/// Returns the path of the package in the archive, and what it says.
fn read_package<R: Read + Seek>(
    archive: &mut Archive<R>,
    full_path: &str,
) -> Result<(String, Package), RefusedFile> {
    let no_package = |detail: String| RefusedFile::NoPackage { path: full_path.to_owned(), detail };
    // The standard wants no encoding here; some programs encode all the same.
    let paths = [href::resolve_literally("", full_path), href::path(full_path)];
    if paths.iter().all(Option::is_none) {
        return Err(no_package("is not inside the archive".into()));
    }
    let found = paths.into_iter().flatten().find_map(|path| Some((archive.find(&path)?, path)));
    let Some((index, path)) = found else {
        return Err(no_package("is missing".into()));
    };
    let bytes = read_xml(archive, index, &path, no_package)?;
    let package = xml::parse(&bytes).and_then(|root| Package::read(&root)).map_err(no_package)?;
    Ok((path, package))
}

/// Refuses a book of which more than fonts is encrypted.
///
/// Rights without encryption (`META-INF/rights.xml`) keep nobody from reading.
fn refuse_encryption<R: Read + Seek>(archive: &mut Archive<R>) -> Result<(), RefusedFile> {
    let encrypted = |algorithm: String| RefusedFile::Encrypted { algorithm };
    let unreadable = |detail: String| encrypted(format!("{ENCRYPTION} {detail}"));
    let Some(index) = archive.find(ENCRYPTION) else { return Ok(()) };
    let bytes = read_xml(archive, index, ENCRYPTION, unreadable)?;
    let root = xml::parse(&bytes).map_err(unreadable)?;

    let mut refused = None;
    root.walk(&mut |element| {
        if element.name != "EncryptedData" && element.name != "EncryptedKey" {
            return;
        }
        let method = element.child("EncryptionMethod");
        let algorithm = method.and_then(|method| method.attribute("Algorithm"));
        if !algorithm.is_some_and(|algorithm| FONT_OBFUSCATIONS.contains(&algorithm.trim())) {
            refused.get_or_insert(algorithm.unwrap_or("an algorithm that it does not name"));
        }
    });
    match refused {
        Some(algorithm) => Err(encrypted(algorithm.to_owned())),
        None => Ok(()),
    }
}

fn read_xml<R: Read + Seek>(
    archive: &mut Archive<R>,
    index: usize,
    path: &str,
    damaged: impl FnOnce(String) -> RefusedFile,
) -> Result<Vec<u8>, RefusedFile> {
    archive.read_part(index, XML_BYTES_MAX).map_err(|error| match error {
        PartError::Damaged(detail) => damaged(detail),
        PartError::TooLarge => {
            RefusedFile::TooLarge { excess: Excess::Part { path: path.to_owned() } }
        }
        PartError::Io(error) => RefusedFile::Io(error),
    })
}

//! What is known of a book file, and where a place in it lies in the whole.
//!
//! Fractions are integers in parts per million, worked out without floating point, so that every
//! machine arrives at the same number.

use serde::Serialize;

use crate::href;
use crate::warning::Warning;

/// One whole, in parts per million.
const WHOLE_PPM: u32 = 1_000_000;

/// What is known of a book file.
///
/// Texts are trimmed, runs of white space in them are one blank, and none is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BookFile {
    /// The format of the file.
    pub format: Format,
    /// The title, or `None` if the file names none; people then know it by its file name.
    pub title: Option<String>,
    /// The authors, in the order of the file. Translators, illustrators and others are left out.
    pub authors: Vec<String>,
    /// The language tag, as written.
    pub language: Option<String>,
    /// The identifiers of an EPUB, the one declared unique first. Hints: many books share one.
    pub identifiers: Vec<String>,
    /// The documents of an EPUB in reading order, readable or not: the n-th element of the
    /// package's spine is the n-th here. Empty for a PDF.
    pub spine: Vec<SpineItem>,
    /// The number of pages of a PDF, at least 1. `None` for an EPUB.
    pub pages: Option<u32>,
    /// Whether the file names a cover image and contains it. Always `false` for a PDF.
    pub has_cover: bool,
    /// What is wrong with the file and does not keep it from being read.
    pub warnings: Vec<Warning>,
}

/// The format of a book file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// EPUB 2, and whatever came before it.
    Epub2,
    /// EPUB 3.
    Epub3,
    /// PDF.
    Pdf,
}

/// A document in the reading order of an EPUB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpineItem {
    /// Where the document lies, relative to the root of the container, percent-encoded, without a
    /// leading `/`. Empty if the package refers to something that it does not list.
    pub href: String,
    /// Size of the inflated document in bytes; 0 if it cannot be read.
    pub bytes: u64,
    /// The name by which the spine refers to the document.
    pub idref: String,
}

impl BookFile {
    /// Returns how far into the book a place in one of its documents lies, in parts per million.
    ///
    /// It is the share of bytes of the reading order before that place, rounded down: the
    /// documents before, and `progression_ppm` of the document itself. A progression above
    /// 1,000,000 counts as 1,000,000. `None` if the document is not in the spine or cannot be
    /// read, and for a PDF.
    ///
    /// `href` is compared as a path: percent-encoding, a leading `/`, a fragment and a query make
    /// no difference. A document that the spine names twice counts where it comes first.
    pub fn total_ppm_at(&self, href: &str, progression_ppm: u32) -> Option<u32> {
        let path = href::path(href)?;
        let item = self
            .spine
            .iter()
            .position(|item| 0 < item.bytes && href::path(&item.href).as_ref() == Some(&path))?;
        let before: u128 = self.spine.iter().take(item).map(|item| u128::from(item.bytes)).sum();
        let total: u128 = self.spine.iter().map(|item| u128::from(item.bytes)).sum();
        let within = u128::from(self.spine.get(item)?.bytes);
        let whole = u128::from(WHOLE_PPM);
        let at = before * whole + within * u128::from(progression_ppm.min(WHOLE_PPM));
        u32::try_from(at.checked_div(total)?).ok()
    }

    /// Returns how far into the book a page lies, in parts per million: page p of n is
    /// p × 1,000,000 / n, rounded down.
    ///
    /// Pages count from 1. `None` if there is no such page, and for an EPUB.
    pub fn total_ppm_of_page(&self, page: u32) -> Option<u32> {
        let pages = self.pages?;
        if page < 1 || pages < page {
            return None;
        }
        let at = u64::from(page) * u64::from(WHOLE_PPM) / u64::from(pages);
        u32::try_from(at).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_counts_the_bytes_before_it() {
        let book = epub(&[("EPUB/a.xhtml", 100), ("EPUB/b.xhtml", 300)]);

        assert_eq!(book.total_ppm_at("EPUB/a.xhtml", 0), Some(0));
        assert_eq!(book.total_ppm_at("EPUB/a.xhtml", 500_000), Some(125_000));
        assert_eq!(book.total_ppm_at("EPUB/b.xhtml", 0), Some(250_000));
        assert_eq!(book.total_ppm_at("EPUB/b.xhtml", 1_000_000), Some(1_000_000));
        assert_eq!(book.total_ppm_at("EPUB/b.xhtml", u32::MAX), Some(1_000_000));
    }

    #[test]
    fn a_place_is_rounded_down() {
        let book = epub(&[("a", 1), ("b", 2)]);
        assert_eq!(book.total_ppm_at("b", 0), Some(333_333));
    }

    #[test]
    fn hrefs_are_compared_as_paths() {
        let book = epub(&[("EPUB/a.xhtml", 1), ("EPUB/caf%C3%A9%20one.xhtml", 1)]);

        for href in [
            "EPUB/caf%C3%A9%20one.xhtml",
            "/EPUB/caf%c3%a9%20one.xhtml#p12",
            "EPUB/café one.xhtml",
            "EPUB/text/../cafe\u{301} one.xhtml",
            "./EPUB/café one.xhtml?x=1",
        ] {
            assert_eq!(book.total_ppm_at(href, 0), Some(500_000), "{href}");
        }
        assert_eq!(book.total_ppm_at("EPUB/cafe one.xhtml", 0), None);
        assert_eq!(book.total_ppm_at("", 0), None);
        assert_eq!(book.total_ppm_at("../EPUB/a.xhtml", 0), None);
    }

    #[test]
    fn a_document_that_cannot_be_read_has_no_place() {
        let book = epub(&[("a", 5), ("b", 0), ("", 0)]);
        assert_eq!(book.total_ppm_at("b", 0), None);
        assert_eq!(book.total_ppm_at("", 0), None);
    }

    #[test]
    fn pages_count_from_one_to_the_last() {
        let book = BookFile { pages: Some(3), ..epub(&[]) };

        assert_eq!(book.total_ppm_of_page(0), None);
        assert_eq!(book.total_ppm_of_page(1), Some(333_333));
        assert_eq!(book.total_ppm_of_page(3), Some(1_000_000));
        assert_eq!(book.total_ppm_of_page(4), None);
        assert_eq!(epub(&[("a", 1)]).total_ppm_of_page(1), None);
    }

    proptest! {
        #[test]
        fn places_rise_along_the_spine(sizes in proptest::collection::vec(0_u64..=1 << 40, 0..20)) {
            let names: Vec<String> = (0..sizes.len()).map(|n| format!("c{n}.xhtml")).collect();
            let book = epub(&names.iter().map(String::as_str).zip(sizes).collect::<Vec<_>>());

            let mut floor = 0;
            for name in &names {
                for progression_ppm in [0, 1, 499_999, 1_000_000] {
                    let Some(at) = book.total_ppm_at(name, progression_ppm) else { continue };
                    prop_assert!(floor <= at && at <= 1_000_000, "{name}: {at} after {floor}");
                    floor = at;
                }
            }
        }

        #[test]
        fn pages_rise_to_the_whole(pages in 1_u32.., page in 1_u32..) {
            let book = BookFile { pages: Some(pages), ..epub(&[]) };
            let page = 1 + (page - 1) % pages;

            let at = book.total_ppm_of_page(page).unwrap();

            prop_assert!(at <= 1_000_000);
            prop_assert!(book.total_ppm_of_page(page - 1).unwrap_or(0) <= at);
            prop_assert_eq!(book.total_ppm_of_page(pages), Some(1_000_000));
        }
    }

    fn epub(spine: &[(&str, u64)]) -> BookFile {
        BookFile {
            format: Format::Epub3,
            title: None,
            authors: Vec::new(),
            language: None,
            identifiers: Vec::new(),
            spine: spine
                .iter()
                .map(|&(href, bytes)| SpineItem { href: href.into(), bytes, idref: href.into() })
                .collect(),
            pages: None,
            has_cover: false,
            warnings: Vec::new(),
        }
    }
}

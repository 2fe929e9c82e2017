//! What is wrong with a book file and does not keep it from being read.

use std::fmt;

use serde::Serialize;

use crate::limits::WARNINGS_MAX;

/// Something is wrong with a book file that does not keep it from being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "warning", rename_all = "snake_case")]
pub enum Warning {
    /// The package lists something that the archive does not contain.
    MissingItem {
        /// What is missing.
        item: ItemKind,
        /// Where it should lie, relative to the root of the container, or as the package writes it
        /// if that is no place in the container.
        href: String,
    },
    /// The archive contains something that cannot be read: cut off, overwritten, empty, or
    /// compressed in a way that EPUB does not know.
    DamagedItem {
        /// What cannot be read.
        item: ItemKind,
        /// Where it lies, relative to the root of the container.
        href: String,
    },
    /// The spine refers to something that the package does not list.
    UnknownSpineItem {
        /// The name by which the spine refers to it.
        idref: String,
    },
    /// The package uses a name for two things; the first one counts.
    DuplicateId {
        /// The name.
        id: String,
    },
    /// The file names no title.
    NoTitle,
    /// The package names no cover image.
    NoCover,
    /// The first entry of the archive is not a `mimetype` that says EPUB.
    OddMimetype,
    /// The PDF's table of contents was damaged and has been worked out anew.
    RepairedPdf,
    /// There are more warnings than are kept.
    More {
        /// How many were left out.
        count: usize,
    },
}

/// What a part of an EPUB is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// A document in the reading order.
    SpineItem,
    /// An image.
    Image,
    /// A font.
    Font,
    /// A style sheet.
    Style,
    /// Anything else: a table of contents, a script, sound.
    Other,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingItem { item, href } => write!(f, "the {item} {href:?} is missing"),
            Self::DamagedItem { item, href } => write!(f, "the {item} {href:?} cannot be read"),
            Self::UnknownSpineItem { idref } => {
                write!(f, "the reading order refers to {idref:?}, which is not listed")
            }
            Self::DuplicateId { id } => {
                write!(f, "the name {id:?} is used twice; the first one counts")
            }
            Self::NoTitle => f.write_str("the file names no title"),
            Self::NoCover => f.write_str("the book has no cover image"),
            Self::OddMimetype => {
                f.write_str("the archive does not begin with the mimetype of an EPUB")
            }
            Self::RepairedPdf => {
                f.write_str("the PDF is damaged; what could be found was put together again")
            }
            Self::More { count } => write!(f, "{count} more warnings"),
        }
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SpineItem => "document",
            Self::Image => "image",
            Self::Font => "font",
            Self::Style => "style sheet",
            Self::Other => "file",
        })
    }
}

/// Warnings in the order of their discovery, up to [`WARNINGS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    kept: Vec<Warning>,
    left_out: usize,
}

impl Warnings {
    pub(crate) fn push(&mut self, warning: Warning) {
        if self.kept.len() < WARNINGS_MAX {
            self.kept.push(warning);
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn into_vec(mut self) -> Vec<Warning> {
        if 0 < self.left_out {
            self.kept.push(Warning::More { count: self.left_out });
        }
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_beyond_the_limit_are_counted() {
        let mut warnings = Warnings::default();
        for _ in 0..WARNINGS_MAX + 3 {
            warnings.push(Warning::NoTitle);
        }

        let kept = warnings.into_vec();

        assert_eq!(kept.len(), WARNINGS_MAX + 1);
        assert_eq!(kept.last(), Some(&Warning::More { count: 3 }));
    }
}

//! Taking book files into the library: what they say about themselves, other names, a copy.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::Path;

use catchword_formats::{BookFile, Warning};
use catchword_model::cfi::Cfi;
use catchword_model::edit::Edit;
use catchword_model::id::BookId;
use catchword_model::meta::{Meta, Rank};
use catchword_store::{BookFileRecord, FileError, book_id};
use serde_json::Value;

use crate::book::Book;
use crate::error::{EditError, ImportError, ReadError};
use crate::event::Event;
use crate::library::{Core, Library};

/// Longest title or file name that is kept, in bytes.
const NAME_BYTES_MAX: usize = 1 << 10;

/// A book that was imported.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The book.
    pub book: Book,
    /// Whether the library did not show it before.
    pub newness: Newness,
    /// What its file says.
    pub file: BookFile,
    /// The title: of the file, or its name.
    pub title: String,
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Newness {
    /// The library did not know the book.
    New,
    /// The book had been removed, and is back with everything it had.
    Back,
    /// The book was there.
    Known,
}

impl Imported {
    /// Returns what is wrong with the file and does not keep it from being read.
    pub fn warnings(&self) -> &[Warning] {
        &self.file.warnings
    }
}

impl Library {
    /// Imports a book: reads its file, copies it into the library, and adds what it says about itself.
    ///
    /// The book's id is the SHA-256 of the file, so importing it again changes nothing, but for a copy
    /// that is damaged or gone: it is made anew. What a person said about the book stays.
    ///
    /// # Errors
    ///
    /// [`ImportError::Refused`] says what is wrong with the file. Whatever the error, nothing is kept.
    pub fn import(&self, path: impl AsRef<Path>) -> Result<Imported, ImportError> {
        let path = path.as_ref();
        let mut source = File::open(path).map_err(io)?;
        let file = catchword_formats::read(&source).map_err(ImportError::Refused)?;
        rewind(&mut source)?;
        let (id, bytes) = book_id(&source).map_err(io)?;
        let pmd5 = catchword_formats::partial_md5(&source).map_err(io)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = shorten(name.as_deref().unwrap_or_default());
        rewind(&mut source)?;

        let record = BookFileRecord { bytes, name: name.to_owned() };
        let described = Described { id, pmd5, record, file };
        let newness = self.take(&described, &source)?;
        let title = described.title().0;
        Ok(Imported { book: Book::new(self.clone(), id), newness, file: described.file, title })
    }

    /// Takes note of a book's file that has come here by itself.
    ///
    /// What it says about itself came with the book, unless whoever added it did not look into it.
    #[cfg(feature = "net")]
    pub(crate) fn adopt_file(&self, id: BookId) -> Result<(), ImportError> {
        let store = &self.core().store;
        let source = store.open_file(id).map_err(ImportError::file)?;
        let bytes = source.metadata().map_err(io)?.len();
        // Nobody imported it here, so it has no name of its own.
        let record = BookFileRecord { bytes, name: String::new() };
        let is_titled = store.book(id).map_err(edit)?.is_some_and(|it| !it.title.is_empty());
        let file = if is_titled { None } else { catchword_formats::read(&source).ok() };
        let edits = file.map_or_else(Vec::new, |file| {
            let (pmd5, record) = ([0; 16], record.clone());
            Described { id, pmd5, record, file }.metadata()
        });
        let adopted = self.write(|core| {
            let holds = vec![Edit::AddHold { book: id }];
            core.store.add_book(id, edits, holds, core.now_ms()).map_err(EditError::store)?;
            core.store.record_file(id, &record).map_err(EditError::store)?;
            Ok(((), None))
        });
        adopted.map_err(ImportError::Edit)
    }

    fn take(&self, described: &Described, source: &File) -> Result<Newness, ImportError> {
        let store = &self.core().store;
        let id = described.id;
        let known = store.book(id).map_err(edit)?.is_some();
        let kept = store.file_record(id).map_err(edit)?.is_some();
        let removed = store.is_removed(id).map_err(edit)?;
        if known && kept && !removed {
            match store.open_file(id) {
                Ok(_) => return Ok(Newness::Known),
                Err(FileError::Damaged) => store.drop_file(id).map_err(ImportError::file)?,
                Err(FileError::Missing | FileError::NoFolder) => (),
                Err(error @ FileError::Io(_)) => return Err(ImportError::file(error)),
            }
        }
        store.keep_file(id, source).map_err(ImportError::file)?;
        let added = self.write(|core| described.add(core, known, removed));
        if added.is_err() && !known {
            // The error is what matters; a copy that stays is found by the next check.
            let _orphan = store.drop_file(id);
        }
        added.map_err(ImportError::Edit)
    }
}

impl Book {
    /// Reads the file of the book again, after verifying every byte of it.
    ///
    /// # Errors
    ///
    /// [`ReadError::NoFile`] if it is not on this device, [`ReadError::DamagedFile`] if it has changed.
    pub fn file(&self) -> Result<BookFile, ReadError> {
        catchword_formats::read(self.open_file()?).map_err(|error| ReadError::Io(error.into()))
    }

    /// Opens the file of the book, after verifying every byte of it.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn open_file(&self) -> Result<File, ReadError> {
        self.core().store.open_file(self.id()).map_err(ReadError::file)
    }

    /// Returns where a CFI leads, in parts per million of the whole book: the beginning of the file in
    /// the spine that it names. `None` if it is no CFI, or names no file of this book.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn ppm_of_cfi(&self, cfi: &str) -> Result<Option<u32>, ReadError> {
        let Some(place) = spine_place(cfi) else { return Ok(None) };
        let file = self.file()?;
        let item = file.spine.get(place);
        Ok(item.and_then(|item| file.total_ppm_at(&item.href, 0)))
    }

    /// Returns where a page of a PDF file is, in parts per million of the book. `None` if there is no
    /// such page, or the book has none.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn ppm_of_page(&self, page: u32) -> Result<Option<u32>, ReadError> {
        Ok(self.file()?.total_ppm_of_page(page))
    }
}

/// A file with everything that is to be said about it.
struct Described {
    id: BookId,
    pmd5: [u8; 16],
    record: BookFileRecord,
    file: BookFile,
}

impl Described {
    fn add(
        &self,
        core: &Core,
        known: bool,
        removed: bool,
    ) -> Result<(Newness, Option<Event>), EditError> {
        let (id, now_ms) = (self.id, core.now_ms());
        let aliases = if known { Vec::new() } else { self.aliases() };
        let library_edits = aliases.into_iter().chain([Edit::AddHold { book: id }]).collect();
        let added = core.store.add_book(id, self.metadata(), library_edits, now_ms);
        added.map_err(EditError::store)?;
        core.store.record_file(id, &self.record).map_err(EditError::store)?;
        if removed {
            core.store.restore_removed(id).map_err(EditError::store)?;
        }
        let newness = match (known, removed) {
            (false, _) => Newness::New,
            (true, true) => Newness::Back,
            (true, false) => Newness::Known,
        };
        let event = (newness != Newness::Known).then_some(Event::BookAdded { book: id });
        Ok((newness, event))
    }

    /// The title of the file; without one its name, which anything better replaces.
    fn title(&self) -> (String, Rank) {
        let stem = Path::new(&self.record.name).file_stem().unwrap_or_default().to_string_lossy();
        match &self.file.title {
            Some(title) => (shorten(title).to_owned(), Rank::File),
            None => (stem.into_owned(), Rank::Placeholder),
        }
    }

    fn metadata(&self) -> Vec<Edit> {
        let (title, rank) = self.title();
        let set = |field: &str, value: Value, rank| Edit::SetMeta {
            field: field.to_owned(),
            meta: Meta { value, rank },
        };
        let mut edits = Vec::new();
        if !title.is_empty() {
            edits.push(set("title", title.into(), rank));
        }
        if !self.file.authors.is_empty() {
            let authors = fitting(&self.file.authors);
            edits.push(set("authors", authors.into(), Rank::File));
        }
        if let Some(language) = &self.file.language {
            edits.push(set("language", shorten(language).into(), Rank::File));
        }
        if let Some(pages) = self.file.pages {
            edits.push(set("pages", pages.into(), Rank::File));
        }
        edits
    }

    fn aliases(&self) -> Vec<Edit> {
        let pmd5 = hex(&self.pmd5);
        let mut names = vec![("pmd5", pmd5), ("filename", self.record.name.clone())];
        names.extend(self.file.identifiers.iter().map(|name| ("identifier", name.clone())));
        names
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(kind, value)| Edit::AddAlias { kind: kind.to_owned(), value, book: self.id })
            .collect()
    }
}

/// Returns as many of the names, from the first, as fit into one field.
fn fitting(names: &[String]) -> Vec<&str> {
    let mut room = NAME_BYTES_MAX * 8;
    let short = names.iter().map(|name| shorten(name));
    short
        .take_while(|name| {
            let fits = name.len() <= room;
            room = room.saturating_sub(name.len());
            fits
        })
        .collect()
}

/// Cuts a text after at most [`NAME_BYTES_MAX`] bytes, between characters.
fn shorten(text: &str) -> &str {
    let end = (0..=NAME_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Returns the place in the spine that a CFI names, from 0: `/6/2` is the first.
fn spine_place(cfi: &str) -> Option<usize> {
    let canonical = Cfi::parse(cfi).ok()?.to_string();
    let step = canonical.strip_prefix("epubcfi(/6/")?;
    let digits = step.split(|c: char| !c.is_ascii_digit()).next()?;
    let number: usize = digits.parse().ok()?;
    number.is_multiple_of(2).then_some(number / 2)?.checked_sub(1)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "a string takes every digit");
        text
    })
}

fn rewind(source: &mut File) -> Result<(), ImportError> {
    source.seek(SeekFrom::Start(0)).map(|_| ()).map_err(io)
}

fn io(error: std::io::Error) -> ImportError {
    ImportError::Io(error.into())
}

fn edit(error: catchword_store::LoadError) -> ImportError {
    ImportError::Edit(EditError::load(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cfi_names_a_place_in_the_spine() {
        assert_eq!(spine_place("epubcfi(/6/2!/4/2)"), Some(0));
        assert_eq!(spine_place("epubcfi(/6/14[chap05ref]!/4[body01]/10/3:10)"), Some(6));
        assert_eq!(spine_place("epubcfi(/6/4!/4,/2/1:0,/2/1:9)"), Some(1));
        assert_eq!(spine_place("epubcfi(/6/3!/4)"), None);
        assert_eq!(spine_place("epubcfi(/4/2)"), None);
        assert_eq!(spine_place("chapter 5"), None);
    }

    #[test]
    fn a_long_title_is_cut_between_characters() {
        assert_eq!(shorten("Emma"), "Emma");
        let long = "é".repeat(600);
        assert_eq!(shorten(&long).len(), 1_024);
        let odd = format!("x{}", "é".repeat(600));
        assert_eq!(shorten(&odd).len(), 1_023);
    }
}

//! What is written about a whole book: the journal, the application's own data; and saving documents.

use catchword_model::document::{AppData, AppError};
use catchword_model::id::ChangeHash;
use catchword_store::{Commit, LoadError};
use serde_json::Value;

use crate::book::Book;
use crate::error::{EditError, ReadError};
use crate::event::Event;
use crate::library::changed;

/// One of the two documents of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Positions, annotations, tags and what is known about the book.
    Book,
    /// The journal and the application's own data.
    Notes,
}

/// A document with its whole history, as any Automerge program loads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The version that was saved.
    pub heads: Vec<ChangeHash>,
    /// The document.
    pub bytes: Vec<u8>,
}

impl Book {
    /// Returns the journal: the reader's notes on the whole book. Empty if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn journal(&self) -> Result<String, ReadError> {
        self.core().store.journal(self.id()).map_err(ReadError::store)
    }

    /// Makes `text` the journal, by the difference to what it is: what stays keeps its history, so that
    /// texts written on two devices merge.
    ///
    /// # Errors
    ///
    /// [`EditError::TooLarge`]; the journal is as it was.
    pub fn set_journal(&self, text: &str) -> Result<Commit, EditError> {
        let book = self.id();
        self.library().write(|core| {
            let commit = core.store.set_journal(book, text, core.now_ms());
            let commit = commit.map_err(EditError::store)?;
            Ok((commit, changed(commit, Event::JournalChanged { book })))
        })
    }

    /// Returns the application's own data of the book; null if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn app(&self) -> Result<Value, ReadError> {
        self.core().store.app(self.id()).map_err(ReadError::store)
    }

    /// Changes the application's own data of the book, as one write that merges member by member.
    ///
    /// # Errors
    ///
    /// [`EditError::Application`] if `edit` fails; the data is as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("lamp.epub");
    /// # std::fs::write(&file, catchword_formats::sample::all().remove(0).bytes)?;
    /// # let library = catchword::Library::open(folder.path().join("library"))?;
    /// # let book = library.import(&file)?.book;
    /// book.edit_app(|data| data.put(&["theme"], &"sepia".into()))?;
    /// assert_eq!(book.app()?["theme"], "sepia");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn edit_app<T>(
        &self,
        edit: impl FnOnce(&mut AppData<'_, '_>) -> Result<T, AppError>,
    ) -> Result<T, EditError> {
        let book = self.id();
        self.library().write(|core| {
            let edited = core.store.edit_app(book, core.now_ms(), edit);
            let (commit, answer) = edited.map_err(EditError::store)?;
            Ok((answer, changed(commit, Event::AppDataChanged { book })))
        })
    }

    /// Returns one of the book's documents; `None` if there is no such document yet.
    ///
    /// # Errors
    ///
    /// [`ReadError::TooLarge`] if it is larger than what is loaded.
    pub fn save(&self, part: Part) -> Result<Option<Saved>, ReadError> {
        let store = &self.core().store;
        let document = match part {
            Part::Book => self.id().document(),
            Part::Notes => self.id().notes_document(),
        };
        let Some(heads) = store.heads(document).map_err(ReadError::store)? else {
            return Ok(None);
        };
        match store.save_document(document) {
            Err(LoadError::NoDocument) => Ok(None),
            saved => Ok(Some(Saved { heads, bytes: saved.map_err(ReadError::store)? })),
        }
    }
}

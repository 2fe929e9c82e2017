//! Notes documents: loaded when they are edited, received or exported, and never to be read.
//!
//! The document that was used last is kept, and used again while its heads are those of the log.

use catchword_model::change::Change;
use catchword_model::document::{AppData, AppError, Document, EditError};
use catchword_model::hlc::Hlc;
use catchword_model::id::{BookId, ChangeHash, DocumentId};

use crate::append::{Acknowledged, Commit};
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::log::{Found, Ordered};
use crate::{Inner, Store};

/// A document that was loaded, by the number it has here.
pub(crate) struct Loaded {
    number: u32,
    pub(crate) document: Document,
}

impl Store {
    /// Makes `text` the journal of a book, by the difference to what it is.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the journal is as it was.
    pub fn set_journal(
        &self,
        book: BookId,
        text: &str,
        now_ms: u64,
    ) -> Result<Commit, AppendError> {
        self.lock()
            .edit_notes(book, now_ms, |document, stamp| {
                Ok(((), document.set_journal(text, stamp)?))
            })
            .map(|(commit, ())| commit)
    }

    /// Returns the journal of a book; empty if it has none.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn journal(&self, book: BookId) -> Result<String, LoadError> {
        self.lock().journal(book)
    }

    /// Lets the application edit its own data of a book, as one change.
    ///
    /// # Errors
    ///
    /// [`AppendError::Application`] if `edit` fails; the data is as it was.
    pub fn edit_app<T>(
        &self,
        book: BookId,
        now_ms: u64,
        edit: impl FnOnce(&mut AppData<'_, '_>) -> Result<T, AppError>,
    ) -> Result<(Commit, T), AppendError> {
        self.lock().edit_notes(book, now_ms, |document, stamp| {
            let (answer, change) = document.edit_app(stamp, edit)?;
            Ok((answer, change.into_iter().collect()))
        })
    }

    /// Returns the application's own data of a book as JSON; `null` if there is none. Loads the document.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn app(&self, book: BookId) -> Result<serde_json::Value, LoadError> {
        let mut inner = self.lock();
        let Some(number) = inner.number(book.notes_document())? else {
            return Ok(serde_json::Value::Null);
        };
        let loaded = inner.take_document(number)?;
        let data = loaded.document.app();
        inner.loaded = Some(loaded);
        Ok(data)
    }

    /// Returns a document with its whole history, as any Automerge program loads it.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoDocument`] if it is not here.
    pub fn save_document(&self, document: DocumentId) -> Result<Vec<u8>, LoadError> {
        let mut inner = self.lock();
        let number = inner.number(document)?.ok_or(LoadError::NoDocument)?;
        let loaded = inner.take_document(number)?;
        let bytes = loaded.document.save();
        inner.loaded = Some(loaded);
        Ok(bytes)
    }
}

impl Inner {
    /// Returns the journal of a book; empty if it has none.
    pub(crate) fn journal(&mut self, book: BookId) -> Result<String, LoadError> {
        let Some(number) = self.number(book.notes_document())? else { return Ok(String::new()) };
        self.refresh_texts()?;
        let (stage, disk) = self.parts()?;
        if let Some(text) = stage.texts.get(&number) {
            return Ok(text.clone());
        }
        let text = disk.texts.get(number).map_err(load)?;
        Ok(text.map_or_else(String::new, |text| text.value().to_owned()))
    }

    /// Reads the journals of notes documents that changed. One that does not load keeps the text it
    /// had; `check` names it.
    pub(crate) fn refresh_texts(&mut self) -> Result<(), LoadError> {
        for number in std::mem::take(&mut self.stage.stale_texts) {
            match self.take_document(number) {
                Ok(loaded) => {
                    self.stage.texts.insert(number, loaded.document.journal());
                    self.loaded = Some(loaded);
                }
                Err(LoadError::Io(cause)) => return Err(LoadError::Io(cause)),
                Err(
                    LoadError::Corrupt { .. } | LoadError::NoDocument | LoadError::TooLarge { .. },
                ) => (),
            }
        }
        Ok(())
    }

    fn edit_notes<T>(
        &mut self,
        book: BookId,
        now_ms: u64,
        edit: impl FnOnce(&mut Document, Hlc) -> Result<(T, Vec<Change>), EditError>,
    ) -> Result<(Commit, T), AppendError> {
        self.writable()?;
        let of = self.number(book.document())?.ok_or(AppendError::NoDocument)?;
        if self.number(book.notes_document())?.is_none() {
            // Records of `wal` name documents that `library` knows.
            let made = self.stage_expected(book);
            self.or_roll_back(made)?;
            self.flush()?;
        }
        let number = self.number(book.notes_document())?.ok_or(AppendError::NoDocument)?;
        let mut loaded = self.take_document(number)?;
        let stamp = self.clock.tick(now_ms);
        let (answer, changes) = edit(&mut loaded.document, stamp).map_err(edit_error)?;
        let hash = changes.last().map(Change::hash);
        let mut acknowledged = Acknowledged::default();
        let staged = self.stage_notes(of, number, changes, &loaded.document, &mut acknowledged);
        self.or_roll_back(staged)?;
        self.acknowledge(acknowledged)?;
        self.loaded = Some(loaded);
        Ok((Commit { stamp, hash }, answer))
    }

    pub(crate) fn stage_notes(
        &mut self,
        of: u32,
        number: u32,
        changes: Vec<Change>,
        document: &Document,
        acknowledged: &mut Acknowledged,
    ) -> Result<(), AppendError> {
        self.publish_into(of, acknowledged)?;
        let (stage, disk) = self.parts()?;
        let id = stage.doc(disk, number)?.id;
        for change in changes {
            self.stage_change(number, id, change, acknowledged)?;
        }
        self.stage.stale_texts.remove(&number);
        self.stage.texts.insert(number, document.journal());
        Ok(())
    }

    /// Applies a received change to a copy of the document, and returns whether it survived.
    pub(crate) fn notes_take(&mut self, number: u32, change: &Change) -> Result<bool, LoadError> {
        let mut loaded = self.take_document(number)?;
        let taken = loaded.document.apply(&[change.bytes()]).is_ok();
        self.loaded = Some(loaded);
        Ok(taken)
    }

    /// Takes the document out of the cache, or builds it from the log.
    pub(crate) fn take_document(&mut self, number: u32) -> Result<Loaded, LoadError> {
        let (stage, disk) = self.parts()?;
        let doc = stage.doc(disk, number)?;
        let (id, kind, heads): (_, _, Vec<ChangeHash>) = (doc.id, doc.kind, doc.head_hashes());
        let author = self.author_in(id);
        if let Some(loaded) = self.loaded.take()
            && loaded.number == number
            && loaded.document.heads() == heads
        {
            return Ok(loaded);
        }
        let changes = self.changes_of(number)?;
        let document = Document::load(kind, changes.iter().map(Change::bytes), author, id);
        let document =
            document.map_err(|error| corrupt(format!("document {id} does not load: {error}")))?;
        if document.heads() != heads {
            return Err(corrupt(format!("document {id} has other heads than its log")));
        }
        Ok(Loaded { number, document })
    }

    /// Returns the changes of a document in the order in which they became durable here, with those
    /// that wait.
    pub(crate) fn changes_of(&mut self, number: u32) -> Result<Vec<Change>, LoadError> {
        let (stage, disk) = self.parts()?;
        let mut changes = Vec::new();
        let mut log = Ordered::of(disk, number)?;
        while let Some(found) = log.next()? {
            match found {
                Found::Change(logged) => changes.push(logged.change),
                Found::Leftover(_) => (),
                Found::Damaged(_, error) => return Err(error),
            }
        }
        // What waits was written last.
        for change in stage.waiting(number) {
            changes.push(change?);
        }
        Ok(changes)
    }
}

pub(crate) fn edit_error(error: EditError) -> AppendError {
    match error {
        EditError::NotNotes => AppendError::WrongDocument,
        EditError::TooLarge => {
            let bytes_max = catchword_model::document::DOCUMENT_BYTES_MAX as u64;
            AppendError::TooLarge { what: "notes document", bytes: bytes_max + 1, bytes_max }
        }
        EditError::App(error) => AppendError::Application(error),
        EditError::Failed => {
            AppendError::Corrupt { detail: "automerge could not carry out the edit".to_owned() }
        }
    }
}

//! One book: where its reader is, what was marked and written in it, and changing that.

use std::ops::Range;

use catchword_model::annotation::Annotation;
use catchword_model::edit::Edit;
use catchword_model::id::{AnnotationId, BookId};
use catchword_model::locator::Locator;
use catchword_model::meta::{Meta, Rank};
use catchword_model::position::{Entry, Furthest, PPM_MAX};
use catchword_model::schema::{Container, tag_key};
use catchword_store::{BookView, Commit};

use crate::annotating::{Annotated, AnnotationEdit, NewAnnotation};
use crate::error::{EditError, ReadError};
use crate::event::Event;
use crate::library::{Core, Library, changed, random};
use crate::session::ReadingSession;
use crate::undo::Step;

/// What an annotation without a place stands at: behind everything.
pub const NO_PLACE_PPM: u32 = PPM_MAX + 1;

/// The whole book, with what has no place in it.
pub const WHOLE_BOOK: Range<u32> = 0..NO_PLACE_PPM + 1;

/// A book of an open [`Library`]. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Book {
    library: Library,
    id: BookId,
}

impl Book {
    pub(crate) fn new(library: Library, id: BookId) -> Self {
        Self { library, id }
    }

    pub(crate) fn core(&self) -> &Core {
        self.library.core()
    }

    /// Returns the id of the book.
    pub fn id(&self) -> BookId {
        self.id
    }

    /// Returns the library the book is in.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Returns the title; empty if none is known.
    ///
    /// # Errors
    ///
    /// [`ReadError::NoBook`] if the book is not in the library any more.
    pub fn title(&self) -> Result<String, ReadError> {
        let summary = self.core().store.book(self.id).map_err(ReadError::store)?;
        Ok(summary.ok_or(ReadError::NoBook)?.title)
    }

    /// Returns everything about the book but its annotations, merged.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn view(&self) -> Result<BookView, ReadError> {
        let view = self.core().store.view(self.id).map_err(ReadError::store)?;
        view.ok_or(ReadError::NoBook)
    }

    /// Returns the reader's place; `None` if nobody has read in the book.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn place(&self) -> Result<Option<Entry>, ReadError> {
        let entries = self.positions()?;
        Ok(catchword_model::position::place(&entries).cloned())
    }

    /// Returns the furthest point of the present reading, which may be beyond the place.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn furthest(&self) -> Result<Option<Furthest>, ReadError> {
        Ok(self.view()?.furthest)
    }

    /// Returns where each device is. The one that counts is the [`place`](Self::place).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn positions(&self) -> Result<Vec<Entry>, ReadError> {
        self.core().store.positions(self.id).map_err(ReadError::store)
    }

    /// Returns the annotations from `range.start` up to and without `range.end`, in parts per million,
    /// in reading order; [`WHOLE_BOOK`] for all. Deleted ones are left out.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn annotations(&self, range: Range<u32>) -> Result<Vec<Annotation>, ReadError> {
        let mut annotations = Vec::new();
        self.visit_annotations(range, |annotation| {
            if !annotation.deleted {
                annotations.push(annotation);
            }
        })?;
        Ok(annotations)
    }

    /// Calls `visit` for each annotation in the range, in reading order, deleted ones too.
    ///
    /// Takes the memory of one annotation. The library is not locked meanwhile: what is visited is the
    /// state at the call.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; some annotations may have been visited.
    pub fn visit_annotations(
        &self,
        range: Range<u32>,
        visit: impl FnMut(Annotation),
    ) -> Result<(), ReadError> {
        let visited = self.core().store.annotations(self.id, range.start, range.end, visit);
        visited.map_err(ReadError::store)
    }

    /// Returns one annotation, deleted or not.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn annotation(&self, id: AnnotationId) -> Result<Option<Annotation>, ReadError> {
        let row = self.core().store.annotation(self.id, id).map_err(ReadError::store)?;
        Ok(row.and_then(|row| row.annotation()))
    }

    /// Makes an annotation and returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`EditError::TooLarge`] for a quote beyond 16 KiB or a note beyond 64 KiB.
    pub fn annotate(&self, new: NewAnnotation) -> Result<Annotated, EditError> {
        check(new.locator())?;
        let id = AnnotationId::new(self.core().now_ms(), random()?);
        let creation = Box::new(new.into_creation(self.library.device()));
        let step = Step { undo: vec![Edit::Delete { id }], redo: vec![Edit::Undelete { id }] };
        let made = Edit::Annotate { id, creation };
        let book = self.id;
        let commit = self.write_step(&[made], step, Event::AnnotationAdded { book, id })?;
        Ok(Annotated { id, stamp: commit.stamp })
    }

    /// Changes an annotation.
    ///
    /// # Errors
    ///
    /// [`EditError::NoAnnotation`], or [`EditError::Deleted`] if it is deleted.
    pub fn edit(&self, id: AnnotationId, edit: &AnnotationEdit) -> Result<Commit, EditError> {
        edit.new_locator().map_or(Ok(()), check)?;
        let row = self.core().store.annotation(self.id, id).map_err(EditError::load)?;
        let before = row.and_then(|row| row.annotation()).ok_or(EditError::NoAnnotation(id))?;
        if before.deleted {
            return Err(EditError::Deleted(id));
        }
        let (redo, undo) = edit.edits(&before);
        let event = Event::AnnotationChanged { book: self.id, id };
        self.write_step(&redo.clone(), Step { undo, redo }, event)
    }

    /// Deletes an annotation: it is hidden everywhere, and can be brought back.
    ///
    /// # Errors
    ///
    /// [`EditError::NoAnnotation`].
    pub fn delete(&self, id: AnnotationId) -> Result<Commit, EditError> {
        let (delete, undelete) = (vec![Edit::Delete { id }], vec![Edit::Undelete { id }]);
        let step = Step { undo: undelete, redo: delete.clone() };
        self.write_step(&delete, step, Event::AnnotationRemoved { book: self.id, id })
    }

    /// Brings a deleted annotation back.
    ///
    /// # Errors
    ///
    /// [`EditError::NoAnnotation`].
    pub fn undelete(&self, id: AnnotationId) -> Result<Commit, EditError> {
        let (delete, undelete) = (vec![Edit::Delete { id }], vec![Edit::Undelete { id }]);
        let step = Step { undo: delete, redo: undelete.clone() };
        self.write_step(&undelete, step, Event::AnnotationChanged { book: self.id, id })
    }

    /// Returns the tags, ascending.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn tags(&self) -> Result<Vec<String>, ReadError> {
        let fields = self.core().store.fields(self.id.document(), Container::Tags);
        let fields = fields.map_err(ReadError::store)?;
        Ok(fields.into_iter().filter(|(_, field)| !field.is_empty()).map(|(tag, _)| tag).collect())
    }

    /// Puts tags on the book and takes others off, in one write.
    ///
    /// # Errors
    ///
    /// [`EditError::Tag`] if a text is not a tag; nothing was written.
    pub fn tag(&self, add: &[&str], remove: &[&str]) -> Result<(), EditError> {
        let form = |tag: &&str| tag_key(tag).map_err(EditError::Tag);
        let add = add.iter().map(form).collect::<Result<Vec<_>, _>>()?;
        let remove = remove.iter().map(form).collect::<Result<Vec<_>, _>>()?;
        let fields = self.core().store.fields(self.id.document(), Container::Tags);
        let fields = fields.map_err(EditError::load)?;
        let has = |tag: &str| fields.iter().any(|(has, field)| has == tag && !field.is_empty());

        let mut step = Step { undo: Vec::new(), redo: Vec::new() };
        for tag in add.into_iter().filter(|tag| !has(tag)) {
            step.undo.push(Edit::RemoveTag { tag: tag.clone() });
            step.redo.push(Edit::AddTag { tag });
        }
        for tag in remove.into_iter().filter(|tag| has(tag)) {
            step.undo.push(Edit::AddTag { tag: tag.clone() });
            step.redo.push(Edit::RemoveTag { tag });
        }
        if step.redo.is_empty() {
            return Ok(());
        }
        self.write_step(&step.redo.clone(), step, Event::TagsChanged { book: self.id })?;
        Ok(())
    }

    /// Gives the book another title. It counts before the one in the file.
    ///
    /// # Errors
    ///
    /// [`EditError::TooLarge`].
    pub fn set_title(&self, title: &str) -> Result<(), EditError> {
        let view = self.core().store.view(self.id).map_err(EditError::load)?;
        let before = view.ok_or(EditError::NoBook)?.meta.remove("title");
        let set = |value| {
            let meta = Meta { value, rank: Rank::User };
            vec![Edit::SetMeta { field: "title".to_owned(), meta }]
        };
        let redo = set(title.into());
        let undo = before.map_or_else(Vec::new, |before| set(before.value));
        let event = Event::MetadataChanged { book: self.id };
        self.write_step(&redo.clone(), Step { undo, redo }, event)?;
        Ok(())
    }

    /// Begins to read. Nothing is recorded before a page is turned.
    ///
    /// `engine` names what draws the pages, for whoever reads the positions later.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn session(&self, engine: &str) -> Result<ReadingSession, ReadError> {
        let place = self.place()?;
        Ok(ReadingSession::new(self.clone(), engine, place))
    }

    /// Takes back this device's last edit of annotations, tags or title since the library was opened,
    /// and returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`EditError`]; the edit stays, and can be undone later.
    pub fn undo(&self) -> Result<bool, EditError> {
        self.library.write_undoable(|core, undo| {
            let stack = undo.entry(self.id).or_default();
            let Some(step) = stack.next_undo() else { return Ok((false, Vec::new())) };
            core.append(self.id.document(), &step.undo)?;
            stack.undone();
            Ok((true, self.events(&step.undo)))
        })
    }

    /// Makes the last edit again that was undone, and returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`EditError`]; the edit stays undone, and can be redone later.
    pub fn redo(&self) -> Result<bool, EditError> {
        self.library.write_undoable(|core, undo| {
            let stack = undo.entry(self.id).or_default();
            let Some(step) = stack.next_redo() else { return Ok((false, Vec::new())) };
            core.append(self.id.document(), &step.redo)?;
            stack.redone();
            Ok((true, self.events(&step.redo)))
        })
    }

    fn write_step(&self, edits: &[Edit], step: Step, event: Event) -> Result<Commit, EditError> {
        self.library.write_undoable(|core, undo| {
            let commit = core.append(self.id.document(), edits)?;
            if commit.hash.is_some() {
                undo.entry(self.id).or_default().note(step);
            }
            Ok((commit, changed(commit, event)))
        })
    }

    /// Returns what subscribers are told of edits that were undone or redone.
    fn events(&self, edits: &[Edit]) -> Vec<Event> {
        let book = self.id;
        let mut events: Vec<Event> = Vec::new();
        for edit in edits {
            let event = match edit {
                Edit::Delete { id } => Event::AnnotationRemoved { book, id: *id },
                Edit::Undelete { id } | Edit::SetField { id, .. } => {
                    Event::AnnotationChanged { book, id: *id }
                }
                Edit::SetMeta { .. } => Event::MetadataChanged { book },
                Edit::AddTag { .. } | Edit::RemoveTag { .. } => Event::TagsChanged { book },
                // Never part of a step: a new annotation is undone by its deletion.
                Edit::Annotate { .. }
                | Edit::SetPosition(_)
                | Edit::SetFurthest { .. }
                | Edit::SetTotal { .. }
                | Edit::Withdraw { .. }
                | Edit::NameDevice(_)
                | Edit::NameShelf { .. }
                | Edit::DeleteShelf { .. }
                | Edit::AddMember { .. }
                | Edit::RemoveMember { .. }
                | Edit::AddAlias { .. }
                | Edit::AddHold { .. }
                | Edit::RemoveHold { .. }
                | Edit::Join(_)
                | Edit::Unjoin(_)
                | Edit::Apart(_) => continue,
            };
            if !events.contains(&event) {
                events.push(event);
            }
        }
        events
    }
}

/// Refuses a locator that a reader would ignore.
pub(crate) fn check(locator: &Locator) -> Result<(), EditError> {
    locator.check().map_err(EditError::Locator)
}

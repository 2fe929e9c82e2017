//! What an action asks of a store, and how the store answers.

use std::ops::ControlFlow;

use anyhow::{bail, ensure};
use catchword_model::annotation::{AnnotationField, Creation, Kind};
use catchword_model::edit::Edit;
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, BookId, DocumentId};
use catchword_model::locator::Locator;
use catchword_model::meta::{Meta, Rank};
use catchword_store::{AppendError, Motion, Received, Rejection, Store, Turn};

use crate::action::{Action, BOOKS};
use crate::memory::{MANY_PPM, Refusal, annotation_id, book_id, file_title, quote, touched, word};

/// What is known of a write that was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Receipt {
    /// The stamp of a turn; zero for anything else.
    pub(crate) stamp: Hlc,
    /// Changes of others that were new.
    pub(crate) added: u64,
}

/// Makes a write, and returns what a caller would get.
///
/// # Errors
///
/// The store rejects what an honest device sent.
pub(crate) fn call(
    store: &Store,
    action: &Action,
    many: &[AnnotationId],
    others: &[Received],
    now_ms: u64,
) -> anyhow::Result<Result<Receipt, AppendError>> {
    let nothing = Receipt::default();
    if let Some((document, edit)) = edit_of(action) {
        return Ok(store.append(document, &[edit], now_ms).map(|_| nothing));
    }
    if let Some((book, turn)) = turn_of(action) {
        let turned = store.turn(book, &turn, now_ms);
        return Ok(turned.map(|receipt| Receipt { stamp: receipt.stamp, ..nothing }));
    }
    Ok(match action {
        Action::AnnotateMany { book, .. } => {
            let document = book_id(*book).document();
            let edits = many.iter().map(|id| (document, vec![annotate(*id, MANY_PPM)]));
            store.append_all(&edits.collect::<Vec<_>>(), now_ms).map(|_| nothing)
        }
        Action::Journal { book, word: text } => {
            store.set_journal(book_id(*book), &word(*text), now_ms).map(|_| nothing)
        }
        Action::Publish { book } => store.publish(book_id(*book)).map(|_| nothing),
        Action::Drain => store.drain().map(|()| nothing),
        Action::Compact => store.compact(&mut |_| ControlFlow::Continue(())).map(|_| nothing),
        Action::Import { book } => {
            let meta = Meta { value: file_title(*book).into(), rank: Rank::File };
            let title = Edit::SetMeta { field: "title".to_owned(), meta };
            let id = book_id(*book);
            let hold = vec![Edit::AddHold { book: id }];
            store.add_book(id, vec![title], hold, now_ms).map(|_| nothing)
        }
        Action::Receive { .. } => receive(store, others)?.map(|added| Receipt { added, ..nothing }),
        Action::Annotate { .. }
        | Action::EditNote { .. }
        | Action::Recolor { .. }
        | Action::Delete { .. }
        | Action::Undelete { .. }
        | Action::Tag { .. }
        | Action::Untag { .. }
        | Action::SetTitle { .. }
        | Action::Turn { .. }
        | Action::Jump { .. }
        | Action::Restart { .. }
        | Action::Reopen
        | Action::Kill
        | Action::PowerCut { .. }
        | Action::Fail { .. }
        | Action::FullDisk { .. }
        | Action::Mend => bail!("not a write: {action:?}"),
    })
}

/// Gives a store what others have, and returns how many changes were new.
fn receive(store: &Store, others: &[Received]) -> anyhow::Result<Result<u64, AppendError>> {
    for book in 0..BOOKS {
        let id = book_id(book);
        let documents = [id.document(), id.notes_document()];
        if others.iter().any(|received| documents.contains(&received.document))
            && let Err(error) = store.expect_book(id)
        {
            return Ok(Err(error));
        }
    }
    let report = match store.receive(others) {
        Ok(report) => report,
        Err(error) => return Ok(Err(error)),
    };
    let rejected: Vec<&Rejection> = report.rejected.iter().map(|(_, why)| why).collect();
    ensure!(rejected.is_empty(), "changes of an honest device are rejected: {rejected:?}");
    Ok(Ok(report.added))
}

/// Returns why a write was refused for what it asks.
pub(crate) fn refusal_of(error: &AppendError) -> Option<Refusal> {
    match error {
        AppendError::NoDocument => Some(Refusal::NoDocument),
        AppendError::NoAnnotation(_) => Some(Refusal::NoAnnotation),
        AppendError::AnnotationExists(_) => Some(Refusal::AnnotationExists),
        AppendError::AnnotationDeleted(_) => Some(Refusal::AnnotationDeleted),
        AppendError::Tag(_)
        | AppendError::TooLarge { .. }
        | AppendError::OutOfRange { .. }
        | AppendError::WrongDocument
        | AppendError::Full { .. }
        | AppendError::Application(_)
        | AppendError::Io(_)
        | AppendError::Closed
        | AppendError::Corrupt { .. } => None,
    }
}

/// Returns an edit that makes an annotation.
pub fn annotate(id: AnnotationId, ppm: u32) -> Edit {
    let creation = Creation {
        kind: Kind::Highlight,
        locator: Locator::new().with_total_ppm(ppm),
        quote: quote(id),
        color: Some("yellow".to_owned()),
        note: None,
        created_by: "somebody".to_owned(),
        source: None,
        unknown: String::new(),
    };
    Edit::Annotate { id, creation: Box::new(creation) }
}

/// Returns the one edit an action makes, if it makes one.
fn edit_of(action: &Action) -> Option<(DocumentId, Edit)> {
    let field = |annotation: u8, field, of: u8| Edit::SetField {
        id: annotation_id(annotation),
        field,
        value: word(of),
    };
    let edit = match action {
        Action::Annotate { annotation, ppm, .. } => annotate(annotation_id(*annotation), *ppm),
        Action::EditNote { annotation, word, .. } => {
            field(*annotation, AnnotationField::Note, *word)
        }
        Action::Recolor { annotation, word, .. } => {
            field(*annotation, AnnotationField::Color, *word)
        }
        Action::Delete { annotation, .. } => Edit::Delete { id: annotation_id(*annotation) },
        Action::Undelete { annotation, .. } => Edit::Undelete { id: annotation_id(*annotation) },
        Action::Tag { word: tag, .. } => Edit::AddTag { tag: word(*tag) },
        Action::Untag { word: tag, .. } => Edit::RemoveTag { tag: word(*tag) },
        Action::SetTitle { word: title, .. } => {
            let meta = Meta { value: word(*title).into(), rank: Rank::User };
            Edit::SetMeta { field: "title".to_owned(), meta }
        }
        Action::AnnotateMany { .. }
        | Action::Journal { .. }
        | Action::Turn { .. }
        | Action::Jump { .. }
        | Action::Restart { .. }
        | Action::Publish { .. }
        | Action::Drain
        | Action::Compact
        | Action::Import { .. }
        | Action::Receive { .. }
        | Action::Reopen
        | Action::Kill
        | Action::PowerCut { .. }
        | Action::Fail { .. }
        | Action::FullDisk { .. }
        | Action::Mend => return None,
    };
    Some((book_id(touched(action)?).document(), edit))
}

fn turn_of(action: &Action) -> Option<(BookId, Turn)> {
    let (ppm, motion, seconds) = if let Action::Turn { ppm, seconds, .. } = action {
        (*ppm, Motion::Turned, *seconds)
    } else if let Action::Jump { ppm, .. } = action {
        (*ppm, Motion::Jumped, 0)
    } else if matches!(action, Action::Restart { .. }) {
        (0, Motion::Restarted, 0)
    } else {
        return None;
    };
    let locator = Locator::new().with_total_ppm(ppm);
    let turn = Turn { locator, ppm, motion, seconds: u32::from(seconds), from_ppm: 0 };
    Some((book_id(touched(action)?), turn))
}

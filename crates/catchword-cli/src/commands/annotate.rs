//! `catchword annotate`, `edit`, `delete` and `undelete`.

use catchword::{AnnotationEdit, AnnotationId, Book, Hlc, Kind, Locator, NewAnnotation, ReadError};

use crate::args::{AnnotateArgs, AnnotationArgs, EditArgs, KindArg};
use crate::context::{Context, annotation_id};
use crate::failure::Failure;
use crate::shapes::Written;

/// Adds an annotation.
pub(crate) fn annotate(args: &AnnotateArgs, context: &Context) -> Result<(), Failure> {
    let book = context.open()?.find(&args.book)?;
    let kind = match args.kind {
        KindArg::Highlight => Kind::Highlight,
        KindArg::Note => Kind::Note,
        KindArg::Bookmark => Kind::Bookmark,
    };
    let mut new = NewAnnotation::new(kind, &args.quote).at(locator(&book, args)?);
    if let Some(note) = &args.note {
        new = new.with_note(note);
    }
    if let Some(color) = &args.color {
        new = new.with_color(color);
    }
    let made = book.annotate(new)?;
    print(context, &book, made.id, made.stamp, "added")
}

/// Where it is. A CFI leads to the beginning of its file; where that is not known, nothing is said.
fn locator(book: &Book, args: &AnnotateArgs) -> Result<Locator, Failure> {
    let mut locator = Locator::new();
    let mut ppm = args.ppm;
    if let Some(cfi) = &args.cfi {
        locator = locator.with_cfi(cfi);
        if ppm.is_none() {
            ppm = match book.ppm_of_cfi(cfi) {
                Err(ReadError::NoFile) => None,
                found => found?,
            };
        }
    }
    Ok(match ppm {
        Some(ppm) => locator.with_total_ppm(ppm),
        None => locator,
    })
}

/// Changes an annotation.
pub(crate) fn edit(args: &EditArgs, context: &Context) -> Result<(), Failure> {
    let id = annotation_id(&args.annotation.id)?;
    let book = context.open()?.find(&args.annotation.book)?;
    let mut edit = AnnotationEdit::new();
    if let Some(note) = &args.note {
        edit = edit.note(note);
    }
    if let Some(color) = &args.color {
        edit = edit.color(color);
    }
    let commit = book.edit(id, &edit)?;
    print(context, &book, id, commit.stamp, "changed")
}

/// Deletes an annotation.
pub(crate) fn delete(args: &AnnotationArgs, context: &Context) -> Result<(), Failure> {
    let id = annotation_id(&args.id)?;
    let book = context.open()?.find(&args.book)?;
    let commit = book.delete(id)?;
    print(context, &book, id, commit.stamp, "deleted")
}

/// Brings an annotation back.
pub(crate) fn undelete(args: &AnnotationArgs, context: &Context) -> Result<(), Failure> {
    let id = annotation_id(&args.id)?;
    let book = context.open()?.find(&args.book)?;
    let commit = book.undelete(id)?;
    print(context, &book, id, commit.stamp, "brought back")
}

fn print(
    context: &Context,
    book: &Book,
    id: AnnotationId,
    stamp: Hlc,
    did: &str,
) -> Result<(), Failure> {
    let written =
        Written { book: book.id().to_string(), id: id.to_string(), stamp: stamp.packed() };
    context.output.print(&written, |page| page.line(format_args!("{did}  {}", written.id)))
}

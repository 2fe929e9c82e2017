//! `catchword document`: a book as a plain Automerge document.

use catchword::Part;
use serde::Serialize;

use crate::args::DocumentArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::output::count;

#[derive(Serialize)]
struct Saved {
    book: String,
    heads: Vec<String>,
    bytes: u64,
}

/// Saves the document.
pub(crate) fn run(args: &DocumentArgs, context: &Context) -> Result<(), Failure> {
    let book = context.open()?.find(&args.book)?;
    let part = if args.notes { Part::Notes } else { Part::Book };
    let saved = book.save(part)?.ok_or_else(|| {
        Failure::message(
            Exit::NotFound,
            "this book has no notes document yet",
            "`catchword journal BOOK --set TEXT` makes one",
        )
    })?;
    files::replace(&context.path(&args.save), saved.bytes.as_slice())?;
    let shape = Saved {
        book: book.id().to_string(),
        heads: saved.heads.iter().map(ToString::to_string).collect(),
        bytes: saved.bytes.len() as u64,
    };
    context.output.print(&shape, |page| {
        page.line(format_args!("saved {} to {}", count(shape.bytes, "byte"), args.save.display()));
    })
}

//! `catchword remove`: a book off this device.

use serde::Serialize;

use crate::args::RemoveArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::plain;

#[derive(Serialize)]
struct Removed {
    book: String,
    removed: bool,
}

/// Removes the book.
pub(crate) fn run(args: &RemoveArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let book = library.find(&args.book)?;
    if args.purge {
        library.may_purge(book.id())?;
    }
    let title = book.title()?;
    library.remove(book.id())?;
    let removed = Removed { book: book.id().to_string(), removed: true };
    context.output.print(&removed, |page| {
        page.line(format_args!("removed {} from this device", plain(&title)));
        page.line("importing its file again brings everything back");
    })
}

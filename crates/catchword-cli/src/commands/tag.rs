//! `catchword tag`: the tags of a book.

use serde::Serialize;

use crate::args::TagArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::plain;

#[derive(Serialize)]
struct Tagged {
    book: String,
    tags: Vec<String>,
}

/// Changes the tags, if asked to, and lists them.
pub(crate) fn run(args: &TagArgs, context: &Context) -> Result<(), Failure> {
    let book = context.open()?.find(&args.book)?;
    let add: Vec<&str> = args.add.iter().map(String::as_str).collect();
    let remove: Vec<&str> = args.remove.iter().map(String::as_str).collect();
    book.tag(&add, &remove)?;
    let tagged = Tagged { book: book.id().to_string(), tags: book.tags()? };
    context.output.print(&tagged, |page| match tagged.tags.as_slice() {
        [] => page.line("no tags"),
        tags => tags.iter().for_each(|tag| page.line(plain(tag))),
    })
}

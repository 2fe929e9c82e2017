//! `catchword journal`: the notes on a whole book.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::Serialize;

use crate::args::JournalArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::count;

#[derive(Serialize)]
struct Journal {
    book: String,
    /// In characters.
    length: u64,
    /// Absent where it was written, since whoever wrote it has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Writes the journal, if asked to; otherwise prints it.
pub(crate) fn run(args: &JournalArgs, context: &Context) -> Result<(), Failure> {
    let new = match (&args.set, &args.file) {
        (Some(text), _) => Some(text.clone()),
        (None, Some(file)) => Some(read(context, file)?),
        (None, None) => None,
    };
    let book = context.open()?.find(&args.book)?;
    if let Some(text) = &new {
        book.set_journal(text)?;
    }
    let text = book.journal()?;
    let length = text.chars().count() as u64;
    let shown = new.is_none().then_some(text);
    let journal = Journal { book: book.id().to_string(), length, text: shown };
    context.output.print(&journal, |page| match &journal.text {
        Some(text) => page.paragraph(text),
        None => page.line(format_args!("the journal has {}", count(length, "character"))),
    })
}

fn read(context: &Context, file: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        context.output.input().read_to_end(&mut bytes).map(|_| ())
    } else {
        fs::read(context.path(file)).map(|read| bytes = read)
    };
    read.map_err(|error| Failure::file("read", file, error))?;
    String::from_utf8(bytes).map_err(|error| {
        let error = anyhow::Error::new(error).context("the text is not UTF-8");
        Failure::new(Exit::Refused, error, "convert it to UTF-8 first")
    })
}

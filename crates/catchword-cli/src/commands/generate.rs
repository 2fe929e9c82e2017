//! `catchword generate`: a made-up library.

use catchword::{Library, OpenError};
use serde::Serialize;

use crate::args::GenerateArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::stopped;
use crate::output::count;

/// Name of the device of a library that is made here.
const MADE_BY: &str = "generate";

#[derive(Serialize)]
struct Generated {
    books: u64,
    annotations: u64,
}

/// Makes the books, or goes on making them.
pub(crate) fn run(args: &GenerateArgs, context: &Context) -> Result<(), Failure> {
    let library = match Library::create(&context.folder, context.config().with_device_name(MADE_BY))
    {
        Err(OpenError::AlreadyThere) => context.open()?,
        made => made?,
    };
    let interrupt = context.interrupt()?;
    let progress = context.output.progress("generate", 0);
    let mut complete = false;
    let made = library.generate(args.books, args.annotations, args.seed, |done, total| {
        progress.set(done, total);
        complete = done == total;
        interrupt.flow()
    })?;
    drop(progress);
    let (books, annotations) = (made.books, made.annotations);
    let added = format!("added {}, {}", count(books, "book"), count(annotations, "annotation"));
    if !complete {
        return Err(stopped(&added));
    }
    context.output.print(&Generated { books, annotations }, |page| page.line(&added))
}

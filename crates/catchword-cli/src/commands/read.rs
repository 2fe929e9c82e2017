//! `catchword read`: a reading session that ends at a place.

use catchword::{Book, Locator};
use serde::Serialize;

use crate::args::{IntentArg, ReadArgs};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::percent;

/// What positions made here name as their page engine.
const ENGINE: &str = "catchword";

#[derive(Serialize)]
struct Recorded {
    book: String,
    ppm: u32,
    pass: u32,
    stamp: u64,
}

/// Records the session.
pub(crate) fn run(args: &ReadArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let book = library.find(&args.book)?;
    let ppm = place(&book, args)?;
    let mut locator = Locator::new().with_total_ppm(ppm);
    if let Some(page) = args.page {
        locator = locator.with_page(page);
    }
    if let Some(href) = &args.href {
        locator = locator.with_href(href);
    }
    if let Some(cfi) = &args.cfi {
        locator = locator.with_cfi(cfi);
    }

    let mut session = book.session(ENGINE)?;
    session.restored();
    session.spent(args.seconds);
    let receipt = match args.intent {
        // Which of the two it is follows from the place before.
        None | Some(IntentArg::Advance | IntentArg::Rewind) => session.turned(locator)?,
        Some(IntentArg::Jump) => session.jumped(locator)?,
        Some(IntentArg::Restart) => session.restarted(locator)?,
    };
    session.close()?;
    let receipt = receipt
        .ok_or_else(|| Failure::message(Exit::Failed, "the session recorded nothing", ""))?;

    let recorded = Recorded {
        book: book.id().to_string(),
        ppm,
        pass: receipt.pass,
        stamp: receipt.stamp.packed(),
    };
    context.output.print(&recorded, |page| {
        let pass = match recorded.pass {
            1 => String::new(),
            pass => format!(", reading no. {pass}"),
        };
        page.line(format_args!("read up to {}{pass}", percent(recorded.ppm)));
    })
}

fn place(book: &Book, args: &ReadArgs) -> Result<u32, Failure> {
    match (args.ppm, args.page) {
        (Some(ppm), _) => Ok(ppm),
        (None, Some(page)) => book.ppm_of_page(page)?.ok_or_else(|| {
            Failure::message(
                Exit::Usage,
                format_args!("this book has no page {page}"),
                "EPUB files have no pages: say where with --ppm",
            )
        }),
        (None, None) => Err(Failure::message(Exit::Usage, "no place is given", "see --help")),
    }
}

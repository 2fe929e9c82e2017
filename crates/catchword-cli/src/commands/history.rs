//! `catchword history`: who did what in a book.

use crate::args::BookArgs;
use crate::commands::show::{name, names};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Column, Table, percent};
use crate::shapes::{Done, What};
use crate::time::{duration, utc};

/// Lists everything that was done, oldest first.
pub(crate) fn run(args: &BookArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let book = library.find(&args.book)?;
    let done: Vec<Done> = book.history()?.into_iter().map(Done::from).collect();
    let devices = names(&library)?;
    context.output.print(&done, |page| {
        if done.is_empty() {
            page.line("nothing was done in this book yet");
            return;
        }
        let columns = [Column::word("When"), Column::word("Device"), Column::text("What")];
        let mut table = Table::new(columns);
        for entry in &done {
            let device = entry.device.as_ref().map(|device| name(&devices, device));
            table.row([utc(entry.wall_ms), device.unwrap_or_default(), sentence(&entry.what)]);
        }
        page.table(&table);
    })
}

/// Says in words what was done.
pub(crate) fn sentence(what: &What) -> String {
    match what {
        What::Moved { ppm, pass, intent, .. } => {
            let reading = if *pass == 1 { String::new() } else { format!(" of reading {pass}") };
            format!("place: {}{reading} ({intent})", percent(*ppm))
        }
        What::Read { from_ppm, to_ppm, seconds, .. } => {
            let (from, to) = (percent(*from_ppm), percent(*to_ppm));
            format!("read from {from} to {to}, {}", duration(u64::from(*seconds)))
        }
        What::Annotated { id, kind, quote, note } => {
            let note = note.as_ref().map(|note| format!(", noted {note:?}")).unwrap_or_default();
            format!("added {kind} {id}: {quote:?}{note}")
        }
        What::Edited { id, field, value } => format!("set {field} of {id} to {value:?}"),
        What::Deleted { id } => format!("deleted {id}"),
        What::Undeleted { id } => format!("brought {id} back"),
        What::Tagged { tag } => format!("tagged {tag:?}"),
        What::Untagged { tag } => format!("took the tag {tag:?} off"),
        What::Described { field, value } => format!("{field}: {value}"),
        What::Wrote { operations } => format!("wrote in the journal ({operations} operations)"),
        What::Other => "something a newer release knows".to_owned(),
    }
}

//! `catchword remove`: a book off this device.

use catchword::net::NodeConfig;
use serde::Serialize;

use crate::args::RemoveArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::network::{Network, discovery};
use crate::output::plain;

#[derive(Serialize)]
struct Row {
    book: String,
    removed: bool,
    /// The fingerprint of the device that has everything, where the history went, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_by: Option<String>,
}

/// Removes the book, and its history if that is asked for and another device has it.
pub(crate) fn run(args: &RemoveArgs, context: &Context) -> Result<(), Failure> {
    if args.purge {
        return purge(args, context);
    }
    let library = context.open()?;
    let book = library.find(&args.book)?;
    let title = book.title()?;
    library.remove(book.id())?;
    let row = Row { book: book.id().to_string(), removed: true, kept_by: None };
    context.output.print(&row, |page| {
        page.line(format_args!("removed {} from this device", plain(&title)));
        page.line("importing its file again brings everything back");
    })
}

fn purge(args: &RemoveArgs, context: &Context) -> Result<(), Failure> {
    let discovery = if args.addr.is_none() { discovery(context) } else { None };
    let network = Network::of(context, &NodeConfig::default().with_discovery(discovery))?;
    let library = network.library();
    // A book that was removed before has its history here still.
    let book = match library.find_removed(&args.book) {
        Ok(book) => book,
        Err(_) => library.find(&args.book)?.id(),
    };
    let purged = network.run(network.node().purge(book, args.addr));
    let peers = network.node().peers();
    network.close();
    let peer = purged?;
    let name = peers.into_iter().find(|record| record.fingerprint == peer).map(|it| it.name);
    let kept_by = Some(peer.to_string());
    let row = Row { book: book.to_string(), removed: true, kept_by };
    context.output.print(&row, |page| {
        let name = plain(&name.unwrap_or_default());
        page.line(format_args!("removed from this device with its history; {name} has everything"));
    })
}

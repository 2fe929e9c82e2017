//! One module for each command: take the arguments, ask the engine, print.

mod annotate;
mod backup;
mod books;
mod check;
pub(crate) mod cloud;
mod compact;
mod completions;
mod conflicts;
mod demo;
mod demo_cloud;
mod demo_crash;
mod demo_devices;
mod document;
mod fetch;
mod generate;
mod history;
mod import;
mod init;
mod journal;
mod man;
mod pair;
mod peers;
mod read;
mod remove;
mod serve;
mod shelf;
mod show;
mod status;
mod sync;
mod tag;

use crate::args::{Command, DemoArgs};
use crate::context::Context;
use crate::failure::Failure;

/// Carries out the command.
pub(crate) fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Demo(DemoArgs { writer: Some(book), .. }) => {
            demo_crash::write_until_killed(book, context)
        }
        Command::Demo(args) => demo::run(args, context),
        Command::Init(args) => init::run(args, context),
        Command::Import(args) => import::run(args, context),
        Command::Books => books::all(context),
        Command::Recent => books::recent(context),
        Command::Read(args) => read::run(args, context),
        Command::Annotate(args) => annotate::annotate(args, context),
        Command::Edit(args) => annotate::edit(args, context),
        Command::Delete(args) => annotate::delete(args, context),
        Command::Undelete(args) => annotate::undelete(args, context),
        Command::Tag(args) => tag::run(args, context),
        Command::Shelf(args) => shelf::run(args, context),
        Command::Show(args) => show::run(args, context),
        Command::History(args) => history::run(args, context),
        Command::Conflicts(args) => conflicts::run(args, context),
        Command::Journal(args) => journal::run(args, context),
        Command::Document(args) => document::run(args, context),
        Command::Pair(args) => pair::run(args, context),
        Command::Peers(args) => peers::run(args, context),
        Command::Serve(args) => serve::run(args, context),
        Command::Sync(args) => sync::run(args, context),
        Command::Fetch(args) => fetch::run(args, context),
        Command::Status(args) => status::run(args, context),
        Command::Cloud(args) => cloud::run(args, context),
        Command::Remove(args) => remove::run(args, context),
        Command::Check(args) => check::run(args, context),
        Command::Compact => compact::run(context),
        Command::Generate(args) => generate::run(args, context),
        Command::Completions(args) => completions::run(args, &context.output),
        Command::Man(args) => man::run(args, &context.output),
        Command::Backup(args) => backup::backup(args, context),
        Command::Restore(args) => backup::restore(args, context),
    }
}

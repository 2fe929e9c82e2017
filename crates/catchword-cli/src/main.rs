//! The catchword command line: parse, dispatch, exit code.
//!
//! This is the only crate that prints or reads the environment. Everything it does to a library goes
//! through the engine, as any other application would do it.

mod advice;
mod args;
mod commands;
mod context;
mod failure;
mod files;
mod interrupt;
mod output;
mod shapes;
mod time;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::failure::Exit;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_usage(&error),
    };
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure.to_string());
            failure.exit.into()
        }
    }
}

/// Help and version were asked for and are no failure; everything else is wrong usage.
fn refuse_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader of the help that closed its end has seen what it wanted.
        let _closed_early = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    output::complain(&format!("catchword: {}", text.trim_end()));
    Exit::Usage.into()
}

//! The catchword command line: parse, dispatch, exit code.
//!
//! This is the only crate that prints or reads the environment. Everything it does to a library goes
//! through the engine, as any other application would do it.

mod advice;
mod args;
mod commands;
mod context;
mod daemon;
mod failure;
mod files;
mod interrupt;
mod network;
mod output;
mod shapes;
mod terminal;
mod time;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::terminal::Terminal;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_usage(&error),
    };
    match run(&cli) {
        Ok(code) => code,
        Err(failure) => {
            Terminal::Here.complain(&failure.to_string());
            failure.exit.into()
        }
    }
}

/// Carries out the command: here, or through the daemon that holds the library.
fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let context = Context::new(&cli.global)?;
    if let Some(code) = daemon::client::forward(&cli.command, &context)? {
        return Ok(code);
    }
    commands::run(&cli.command, &context)?;
    Ok(ExitCode::SUCCESS)
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
    Terminal::Here.complain(&format!("catchword: {}", text.trim_end()));
    Exit::Usage.into()
}

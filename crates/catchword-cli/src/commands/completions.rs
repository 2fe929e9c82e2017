//! `catchword completions`: a script that teaches a shell the command line.

use clap::CommandFactory as _;
use serde::Serialize;

use crate::args::{Cli, CompletionsArgs};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Script {
    shell: String,
    script: String,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs, output: &Output) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "catchword", &mut bytes);
    let script = Script {
        shell: args.shell.to_string(),
        script: String::from_utf8_lossy(&bytes).into_owned(),
    };
    output.print(&script, |page| page.paragraph(&script.script))
}

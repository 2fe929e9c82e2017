//! `catchword man`: manual pages, made of the same words as `--help`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_mangen::Man;
use serde::Serialize;

use crate::args::{Cli, ManArgs};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Pages {
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<String>,
    files: Vec<PathBuf>,
}

/// Prints the main page, or writes all pages into a folder.
pub(crate) fn run(args: &ManArgs, output: &Output) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    match &args.dir {
        None => {
            let page = String::from_utf8_lossy(&render(command)?).into_owned();
            let pages = Pages { page: Some(page), files: Vec::new() };
            output.print(&pages, |out| out.paragraph(pages.page.as_deref().unwrap_or_default()))
        }
        Some(folder) => {
            let files = write_all(&command, folder)?;
            let pages = Pages { page: None, files };
            output.print(&pages, |out| {
                pages.files.iter().for_each(|file| out.line(file.display()));
            })
        }
    }
}

fn write_all(command: &clap::Command, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    fs::create_dir_all(folder).map_err(|error| Failure::file("make", folder, error))?;
    let pages = std::iter::once(command).chain(command.get_subcommands());
    pages.map(|page| write_one(page.clone(), folder)).collect()
}

fn write_one(command: clap::Command, folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join(Man::new(command.clone()).get_filename());
    fs::write(&path, render(command)?).map_err(|error| Failure::file("write", &path, error))?;
    Ok(path)
}

fn render(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    Man::new(command).render(&mut bytes)?;
    Ok(bytes)
}

//! `catchword import`: books from files, folders and lists of paths.

use std::fs;
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};

use catchword::{EditError, ImportError, Imported, Library, Newness};
use serde::Serialize;

use crate::args::ImportArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::interrupt::stopped;
use crate::output::{count, plain};

/// What the name of a book file ends with, in a folder that is imported.
const EXTENSIONS: [&str; 2] = ["epub", "pdf"];

#[derive(Serialize)]
struct Row {
    book: String,
    title: String,
    authors: Vec<String>,
    new: bool,
    warnings: Vec<String>,
}

impl From<Imported> for Row {
    fn from(imported: Imported) -> Self {
        Self {
            book: imported.book.id().to_string(),
            new: imported.newness != Newness::Known,
            warnings: imported.warnings().iter().map(ToString::to_string).collect(),
            title: imported.title,
            authors: imported.file.authors,
        }
    }
}

/// Imports what can be imported, and fails if anything could not.
pub(crate) fn run(args: &ImportArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let interrupt = context.interrupt()?;
    let (paths, mut failed) = expand(context, &args.files)?;
    let total = paths.len() as u64;
    let progress = context.output.progress("import", total);
    let mut rows: Vec<Row> = Vec::new();
    let mut ended = None;
    for (done, path) in (0..).zip(&paths) {
        if interrupt.is_asked() {
            ended = Some(stopped(&format!("{done} of {} read", count(total, "file"))));
            break;
        }
        match import(context, &library, path) {
            Ok(row) => rows.push(row),
            Err(Outcome::File(failure)) => failed.push(failure),
            Err(Outcome::Library(failure)) => {
                ended = Some(failure);
                break;
            }
        }
        progress.set(done + 1, total);
    }
    drop(progress);
    report(context, &rows)?;
    // A single failure is what the command fails with; of several, each is named before.
    let ended = ended.or_else(|| if failed.len() == 1 { failed.pop() } else { None });
    for failure in &failed {
        context.output.complain(&failure.to_string());
    }
    let worst = failed.iter().map(|failure| failure.exit).max_by_key(|exit| severity(*exit));
    match (ended, worst) {
        (Some(failure), _) => Err(failure),
        (None, None) => Ok(()),
        (None, Some(exit)) => {
            let message = format!("{} not imported", count(failed.len() as u64, "file"));
            Err(Failure::message(exit, message, "the other files were imported"))
        }
    }
}

/// Whether the next file is worth a try.
enum Outcome {
    File(Failure),
    Library(Failure),
}

fn import(context: &Context, library: &Library, path: &Path) -> Result<Row, Outcome> {
    match library.import(path) {
        Ok(imported) => {
            for warning in imported.warnings() {
                context.output.complain(&format!("catchword: {}: {warning}", path.display()));
            }
            Ok(imported.into())
        }
        Err(error @ ImportError::Edit(EditError::Io(_) | EditError::MustReopen)) => {
            Err(Outcome::Library(error.into()))
        }
        Err(error) => Err(Outcome::File(Failure::from(error).about(path.display()))),
    }
}

/// A refusal says most about what to do: it decides the exit code.
const fn severity(exit: Exit) -> u8 {
    match exit {
        Exit::Usage => 0,
        Exit::Failed => 1,
        Exit::NotFound => 2,
        Exit::Refused => 3,
    }
}

fn report(context: &Context, rows: &[Row]) -> Result<(), Failure> {
    context.output.print(&rows, |page| {
        for row in rows {
            let did = if row.new { "added" } else { "known" };
            let authors = match row.authors.as_slice() {
                [] => String::new(),
                authors => format!(", {}", plain(&authors.join(", "))),
            };
            let id: String = row.book.chars().take(12).collect();
            page.line(format_args!("{did}  {id}  {}{authors}", plain(&row.title)));
        }
    })
}

/// Returns the files that the arguments stand for, and what does not stand for any.
fn expand(context: &Context, files: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<Failure>), Failure> {
    let mut paths = Vec::new();
    let mut failed = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            for line in context.output.input().lines() {
                let line = line.map_err(|error| Failure::file("read", file, error))?;
                if !line.is_empty() {
                    add(&context.path(&line), &mut paths, &mut failed);
                }
            }
        } else {
            add(&context.path(file), &mut paths, &mut failed);
        }
    }
    Ok((paths, failed))
}

fn add(path: &Path, paths: &mut Vec<PathBuf>, failed: &mut Vec<Failure>) {
    if !path.is_dir() {
        paths.push(path.to_owned());
        return;
    }
    if let Err(error) = walk(path, paths) {
        failed.push(Failure::file("read", path, error));
    }
}

/// Adds every book file below a folder, in the order of names. Links to folders are not followed.
fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(&path, paths)?;
        } else if is_book_file(&path) && path.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_book_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

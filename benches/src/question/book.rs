//! A whole book of 100,000 annotations into structs.
//!
//! Every turn is a process of its own: what an earlier one freed would decide how dear memory is.

use std::path::{Path, PathBuf};
use std::time::Instant;

use catchword_model::annotation::Annotation;
use serde_json::{Value, json};

use super::{book_of, median, path};
use crate::figure::{Case, Figure, Reach};
use crate::peer::{Sqlite, Synchronous};
use crate::process::{OnProcessor, number, task, warm_program};
use crate::round::micros;
use crate::workload::{Places, Workspace, open};

const ANNOTATIONS: u64 = 100_000;

/// Reads every annotation into the struct that an application gets, files in the page cache: out of a
/// library as it was written, and after it was compacted.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let library = workspace.one_book(ANNOTATIONS, Places::InOrder)?;
    let rows = workspace.fresh("book.sqlite")?;
    let mut sqlite = Sqlite::create(&rows, Synchronous::Full)?;
    sqlite.put(&workspace.annotations(&library)?)?;
    sqlite.close()?;
    let compacted = workspace.copy(&library, "book-compacted")?;
    task("compact-library", &[&compacted])?;
    let written = compare(workspace, "as written", &library, &rows)?;
    let compacted = compare(workspace, "compacted", &compacted, &rows)?;
    Ok([written, compacted].concat())
}

fn compare(
    workspace: &Workspace,
    name: &str,
    library: &Path,
    rows: &Path,
) -> anyhow::Result<Vec<Figure>> {
    let book = workspace.book_file()?;
    let rounds = if workspace.quick { 7 } else { 21 };
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let ours = task("book-library", &[library, &book])?;
        let theirs = task("book-sqlite", &[rows])?;
        let found = [(&ours, "us"), (&theirs, "us"), (&ours, "busy_us"), (&theirs, "busy_us")];
        for (times, (from, name)) in times.iter_mut().zip(found) {
            times.push(number(from, name)? / 1_000.0);
        }
    }
    let [ours, theirs, ours_busy, theirs_busy] = times.map(median);
    let case = Case::new("book", format!("{ANNOTATIONS}, {name}"))
        .with("catchword", "median", ours, "ms")
        .with("SQLite", "median", theirs, "ms")
        .with("catchword", "busy", ours_busy, "ms")
        .with("SQLite", "busy", theirs_busy, "ms")
        .must(Reach::Ratio(0.5));
    Ok(case.figures())
}

/// Reads a whole book from a library.
pub(super) fn read_library(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let book = book_of(path(paths, 1)?)?;
    warm(path(paths, 0)?)?;
    let store = open(path(paths, 0)?)?;
    let (start, busy) = (Instant::now(), OnProcessor::start()?);
    let mut found = Vec::new();
    store.annotations(book, 0, u32::MAX, |annotation| found.push(annotation))?;
    said(start, &busy, &found)
}

/// Reads a whole book from rows.
pub(super) fn read_sqlite(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm(path(paths, 0)?.parent().unwrap_or(Path::new(".")))?;
    let sqlite = Sqlite::open(path(paths, 0)?, Synchronous::Full)?;
    let (start, busy) = (Instant::now(), OnProcessor::start()?);
    let mut found = Vec::new();
    sqlite.annotations(0, u32::MAX, |annotation| found.push(annotation))?;
    said(start, &busy, &found)
}

fn warm(folder: &Path) -> anyhow::Result<()> {
    for file in ["library", "book.sqlite"] {
        let file = folder.join(file);
        if file.exists() {
            std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
        }
    }
    warm_program()
}

fn said(start: Instant, busy: &OnProcessor, found: &[Annotation]) -> anyhow::Result<Value> {
    let (time, busy) = (start.elapsed(), busy.elapsed()?);
    anyhow::ensure!(found.len() as u64 >= ANNOTATIONS, "{} annotations", found.len());
    Ok(json!({ "us": micros(time), "busy_us": micros(busy) }))
}

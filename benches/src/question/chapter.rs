//! The 200 annotations of a chapter, out of a book of 100,000, with nothing in the page cache.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::{book_of, median, path};
use crate::figure::{Case, Figure, Reach};
use crate::peer::{Sqlite, Synchronous};
use crate::process::{Cache, number, task, warm_program};
use crate::round::micros;
use crate::workload::{Places, Workspace, open};

/// A chapter, in parts per million: 200 of 100,000 annotations.
const FROM_PPM: u32 = 600_000;
const TO_PPM: u32 = 602_000;

/// Reads a chapter of a book that was annotated in reading order, and in random order.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (places, name) in [(Places::InOrder, "in order"), (Places::Random, "random order")] {
        let library = workspace.one_book(100_000, places)?;
        let sqlite = workspace.fresh("chapter.sqlite")?;
        let mut rows = Sqlite::create(&sqlite, Synchronous::Full)?;
        // A row is written when it is made, so rows stand in the order of writing.
        let mut annotations = workspace.annotations(&library)?;
        annotations.sort_unstable_by_key(|annotation| annotation.stamp);
        annotations.chunks(2_000).try_for_each(|chunk| rows.put(chunk))?;
        rows.close()?;
        figures.extend(compare(workspace, name, &library, &sqlite)?);
    }
    Ok(figures)
}

fn compare(
    workspace: &Workspace,
    name: &str,
    library: &Path,
    sqlite: &Path,
) -> anyhow::Result<Vec<Figure>> {
    let book = workspace.book_file()?;
    let rounds = if workspace.quick { 5 } else { 15 };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut cache = Cache::Warm;
    for _ in 0..rounds {
        cache = Cache::drop_pages();
        ours.push(number(&task("chapter-library", &[library, &book])?, "us")? / 1_000.0);
        theirs.push(number(&task("chapter-sqlite", &[sqlite])?, "us")? / 1_000.0);
    }
    let case = Case::new("chapter", format!("{name}, {}", cache.name()))
        .with("catchword", "median", median(ours), "ms")
        .with("SQLite", "median", median(theirs), "ms")
        .must(Reach::Ratio(1.0));
    Ok(case.figures())
}

/// Reads a chapter from a library.
pub(super) fn read_library(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let book = book_of(path(paths, 1)?)?;
    let store = open(path(paths, 0)?)?;
    let start = Instant::now();
    let mut found = Vec::new();
    store.annotations(book, FROM_PPM, TO_PPM, |annotation| found.push(annotation))?;
    said(start, &found)
}

/// Reads a chapter from rows.
pub(super) fn read_sqlite(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let sqlite = Sqlite::open(path(paths, 0)?, Synchronous::Full)?;
    let start = Instant::now();
    let mut found = Vec::new();
    sqlite.annotations(FROM_PPM, TO_PPM, |annotation| found.push(annotation))?;
    said(start, &found)
}

fn said(
    start: Instant,
    found: &[catchword_model::annotation::Annotation],
) -> anyhow::Result<Value> {
    let time = start.elapsed();
    anyhow::ensure!((150..300).contains(&found.len()), "{} annotations", found.len());
    Ok(json!({ "us": micros(time), "count": found.len() }))
}

//! Opening a library of 10,000 books and listing the 50 read last.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use super::{median, path};
use crate::figure::{Case, Figure, Reach};
use crate::peer::{Sqlite, Synchronous};
use crate::process::{Cache, number, task, warm_program};
use crate::round::micros;
use crate::workload::{Workspace, open};

const LISTED: usize = 50;

/// Opens and lists, with and without the page cache.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let books = if workspace.quick { 2_000 } else { 10_000 };
    let library = workspace.library(books, u64::from(books) * 5)?;
    let sqlite = workspace.fresh("recent.sqlite")?;
    let mut rows = Sqlite::create(&sqlite, Synchronous::Full)?;
    rows.put_books(&open(&library)?.books()?)?;
    rows.close()?;

    let rounds = if workspace.quick { 5 } else { 11 };
    let (mut cold, mut warm) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut cache = Cache::Warm;
    for _ in 0..rounds {
        cache = Cache::drop_pages();
        for times in [&mut cold, &mut warm] {
            let [ours, theirs] = times;
            ours.push(number(&task("recent-library", &[&library])?, "us")? / 1_000.0);
            theirs.push(number(&task("recent-sqlite", &[&sqlite])?, "us")? / 1_000.0);
        }
    }
    let [cold_ours, cold_theirs] = cold.map(median);
    let [warm_ours, warm_theirs] = warm.map(median);
    let first = Case::new("recent", format!("{books} books, {}", cache.name()))
        .with("catchword", "median", cold_ours, "ms")
        .must(Reach::Value(10.0))
        .with("SQLite", "median", cold_theirs, "ms");
    let second = Case::new("recent", format!("{books} books, cached"))
        .with("catchword", "median", warm_ours, "ms")
        .must(Reach::Value(2.0))
        .with("SQLite", "median", warm_theirs, "ms");
    Ok([first.figures(), second.figures()].concat())
}

/// Opens a library and lists.
pub(super) fn list_library(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let start = Instant::now();
    let store = open(path(paths, 0)?)?;
    let listed = store.recent(LISTED)?;
    let time = start.elapsed();
    anyhow::ensure!(listed.len() == LISTED, "{} books", listed.len());
    Ok(json!({ "us": micros(time) }))
}

/// Opens rows and lists.
pub(super) fn list_sqlite(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let start = Instant::now();
    let sqlite = Sqlite::open(path(paths, 0)?, Synchronous::Full)?;
    let listed = sqlite.recent(u32::try_from(LISTED)?)?;
    let time = start.elapsed();
    anyhow::ensure!(listed.len() == LISTED, "{} books", listed.len());
    Ok(json!({ "us": micros(time) }))
}

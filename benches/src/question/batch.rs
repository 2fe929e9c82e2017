//! A thousand remote changes in one batch, durable, and the memory that takes.

use std::path::PathBuf;
use std::time::Instant;

use catchword_model::change::read::read;
use catchword_model::change::{Action, Scalar};
use serde_json::{Value, json};

use super::{book_of, median, path};
use crate::figure::{Case, Figure, Reach};
use crate::peer::{Sqlite, Synchronous};
use crate::process::{PeakMemory, copy_folder, number, task, warm_program};
use crate::round::micros;
use crate::workload::{Places, Workspace, load_changes, open};

const BATCH: usize = 1_000;

/// Receives a thousand changes into a book of 100,000, each time into a fresh copy.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let made = workspace.one_book(100_000, Places::InOrder)?;
    let file = workspace.remote_file(&made, BATCH)?;
    let book = workspace.book_file()?;
    let rows_folder = workspace.fresh("batch-rows")?;
    std::fs::create_dir_all(&rows_folder)?;
    let mut rows = Sqlite::create(&rows_folder.join("rows"), Synchronous::Full)?;
    rows.put(&workspace.annotations(&made)?)?;
    rows.close()?;

    let rounds = if workspace.quick { 3 } else { 9 };
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let library = workspace.copy(&made, "batch")?;
        let sqlite = workspace.fresh("batch-copy")?;
        copy_folder(&rows_folder, &sqlite)?;
        let ours = task("batch-library", &[&library, &book, &file])?;
        let theirs = task("batch-sqlite", &[&sqlite.join("rows"), &file])?;
        let found = [
            number(&ours, "us")? / 1_000.0,
            number(&ours, "mib")?,
            number(&theirs, "us")? / 1_000.0,
            number(&theirs, "mib")?,
        ];
        times.iter_mut().zip(found).for_each(|(times, found)| times.push(found));
    }
    let [ours_ms, ours_mib, theirs_ms, theirs_mib] = times.map(median);
    let case = Case::new("batch", "1000 into 100000, durable")
        .with("catchword", "median", ours_ms, "ms")
        .must(Reach::Value(60.0))
        .with("catchword", "memory", ours_mib, "MiB")
        .must(Reach::Value(16.0))
        .with("SQLite, rows only", "median", theirs_ms, "ms")
        .with("SQLite, rows only", "memory", theirs_mib, "MiB");
    Ok(case.figures())
}

/// Receives the changes of a file.
pub(super) fn receive(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let book = book_of(path(paths, 1)?)?;
    let changes = load_changes(path(paths, 2)?, book.document())?;
    let store = open(path(paths, 0)?)?;
    let memory = PeakMemory::forget()?;
    let start = Instant::now();
    let report = store.receive(&changes)?;
    let time = start.elapsed();
    let mib = memory.growth_mib()?;
    anyhow::ensure!(report.added == changes.len() as u64, "{report:?}");
    Ok(json!({ "us": micros(time), "mib": mib }))
}

/// Puts what the changes of a file say into rows, in one transaction.
pub(super) fn insert(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let changes = load_changes(path(paths, 1)?, catchword_model::id::DocumentId([0; 32]))?;
    let mut sqlite = Sqlite::open(path(paths, 0)?, Synchronous::Full)?;
    let mut any = None;
    sqlite.annotations(0, 1_000, |annotation| {
        any.get_or_insert(annotation);
    })?;
    let Some(first) = any else { anyhow::bail!("no annotation") };
    let memory = PeakMemory::forget()?;
    let start = Instant::now();
    let mut rows = Vec::with_capacity(changes.len());
    for change in &changes {
        let change = read(&change.bytes)?;
        let mut row = first.clone();
        for op in &change.ops {
            let (catchword_model::change::Key::Map(key), Action::Put(Scalar::Text(text))) =
                (&op.key, &op.action)
            else {
                continue;
            };
            row.id = key.get(..26).unwrap_or_default().parse()?;
            match key.get(27..) {
                Some("color") => row.color = Some(text.clone()),
                Some("note") => row.note = Some(text.clone()),
                _ => row.quote.clone_from(text),
            }
        }
        rows.push(row);
    }
    sqlite.put(&rows)?;
    let time = start.elapsed();
    Ok(json!({ "us": micros(time), "mib": memory.growth_mib()? }))
}

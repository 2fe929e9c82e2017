//! A whole book of 100,000 annotations into structs.

use std::time::Instant;

use crate::figure::{Case, Figure, Reach};
use crate::peer::{Sqlite, Synchronous};
use crate::round::{Contestant, interleave};
use crate::workload::{Places, Workspace, open};

/// Reads every annotation into the struct that an application gets.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let library = workspace.one_book(100_000, Places::InOrder)?;
    let annotations = workspace.annotations(&library)?;
    let mut sqlite = Sqlite::create(&workspace.fresh("book.sqlite")?, Synchronous::Full)?;
    sqlite.put(&annotations)?;
    let store = open(&library)?;
    let book = workspace.book();

    let rounds = if workspace.quick { 7 } else { 21 };
    let times = interleave(
        rounds,
        &mut [
            Contestant {
                name: "catchword",
                turn: Box::new(|_| {
                    let start = Instant::now();
                    let mut found = Vec::new();
                    store.annotations(book, 0, u32::MAX, |annotation| found.push(annotation))?;
                    let time = start.elapsed();
                    anyhow::ensure!(found.len() == annotations.len(), "{}", found.len());
                    Ok(time)
                }),
            },
            Contestant {
                name: "SQLite",
                turn: Box::new(|_| {
                    let start = Instant::now();
                    let mut found = Vec::new();
                    sqlite.annotations(0, u32::MAX, |annotation| found.push(annotation))?;
                    let time = start.elapsed();
                    anyhow::ensure!(found.len() == annotations.len(), "{}", found.len());
                    Ok(time)
                }),
            },
        ],
    )?;
    let [ours, theirs] = times.as_slice() else { return Ok(Vec::new()) };
    let case = Case::new("book", "100000 into structs")
        .with(ours.name, "median", ours.median_us() / 1_000.0, "ms")
        .with(theirs.name, "median", theirs.median_us() / 1_000.0, "ms")
        .must(Reach::Ratio(0.5));
    Ok(case.figures())
}

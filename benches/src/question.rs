//! The questions, in the order of the design, and the tasks they give to processes of their own.

mod batch;
mod book;
mod chapter;
mod disk;
mod edits;
mod event;
mod first;
mod highlight;
mod idle;
mod live;
mod open;
mod push;
mod recent;
mod remote;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use catchword_model::id::BookId;
use serde_json::Value;

use crate::figure::Figure;
use crate::workload::Workspace;

/// One question and how to answer it.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// What the command line calls it.
    pub name: &'static str,
    /// Measures.
    pub ask: fn(&Workspace) -> anyhow::Result<Vec<Figure>>,
}

/// Every question.
pub const QUESTIONS: [Question; 15] = [
    Question { name: "highlight", ask: highlight::one },
    Question { name: "ten", ask: highlight::ten },
    Question { name: "open", ask: open::ask },
    Question { name: "recent", ask: recent::ask },
    Question { name: "chapter", ask: chapter::ask },
    Question { name: "book", ask: book::ask },
    Question { name: "remote", ask: remote::ask },
    Question { name: "batch", ask: batch::ask },
    Question { name: "event", ask: event::ask },
    Question { name: "idle", ask: idle::ask },
    Question { name: "edits", ask: edits::ask },
    Question { name: "first", ask: first::ask },
    Question { name: "disk", ask: disk::ask },
    Question { name: "push", ask: push::ask },
    Question { name: "live", ask: live::ask },
];

/// Work for a process of its own: paths in, one JSON value out.
type Task = fn(&[PathBuf]) -> anyhow::Result<Value>;

const TASKS: [(&str, Task); 22] = [
    ("hold-library", open::hold_library),
    ("hold-redb", open::hold_redb),
    ("hold-sqlite", open::hold_sqlite),
    ("open-library", open::open_library),
    ("open-redb", open::open_redb),
    ("open-sqlite", open::open_sqlite),
    ("load-automerge", open::load_automerge),
    ("recent-library", recent::list_library),
    ("recent-sqlite", recent::list_sqlite),
    ("chapter-library", chapter::read_library),
    ("chapter-sqlite", chapter::read_sqlite),
    ("book-library", book::read_library),
    ("book-sqlite", book::read_sqlite),
    ("remote-library", remote::receive),
    ("remote-automerge", remote::apply),
    ("batch-library", batch::receive),
    ("batch-sqlite", batch::insert),
    ("edits-automerge", edits::automerge),
    ("first-receive", first::receive),
    ("first-automerge", first::automerge),
    ("compact-library", disk::compact),
    ("live-server", live::serve_live),
];

/// Does a task and prints what it returns.
///
/// # Errors
///
/// What the task met.
pub fn perform(name: &str, paths: &[PathBuf]) -> anyhow::Result<()> {
    let (_, task) = TASKS.iter().find(|(task, _)| *task == name).context("no such task")?;
    let value = task(paths)?;
    print(&value)
}

fn print(value: &Value) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// Returns the path of a task's argument.
fn path(paths: &[PathBuf], place: usize) -> anyhow::Result<&Path> {
    paths.get(place).map(PathBuf::as_path).context("a path is missing")
}

/// Reads the id of a book that [`Workspace::book_file`] wrote.
fn book_of(path: &Path) -> anyhow::Result<BookId> {
    Ok(BookId::from_slice(&std::fs::read(path)?)?)
}

/// Returns the number in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

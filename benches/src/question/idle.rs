//! A sync of two libraries of 10,000 books that are equal.

use automerge::sync::{State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};

use crate::figure::{Case, Figure, Reach};
use crate::network::{Side, library, pair};
use crate::workload::Workspace;

const BOOKS: u32 = 10_000;

/// Counts what a sync costs that finds nothing.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let host = library(workspace, "idle-host", BOOKS, 1)?;
    let other = Side::open(&workspace.fresh("idle-other")?)?;
    let peer = pair(&host, &other)?;
    other.sync(&peer)?;
    let idle = other.sync(&peer)?;
    anyhow::ensure!(idle.changes_sent + idle.changes_received == 0, "{idle:?}");
    let count = |bytes: u64| u32::try_from(bytes).map(f64::from);

    let case = Case::new("idle", format!("{BOOKS} books"))
        .with("catchword", "requests", count(idle.round_trips)?, "")
        .must(Reach::Value(1.0))
        .with("catchword", "there", count(idle.bytes_sent)?, "B")
        .must(Reach::Value(512.0))
        .with("catchword", "back", count(idle.bytes_received)?, "B")
        .must(Reach::Value(512.0))
        .with("automerge", "there", f64::from(BOOKS) * automerge_message()?, "B");
    Ok(case.figures())
}

/// Returns the bytes of the first message about one document of two changes.
fn automerge_message() -> anyhow::Result<f64> {
    let mut document = AutoCommit::new();
    for key in ["title", "annotation"] {
        document.put(ROOT, key, "a value")?;
        document.commit();
    }
    let message = document.sync().generate_sync_message(&mut State::new());
    let bytes = message.map_or(0, |message| message.encode().len());
    Ok(f64::from(u32::try_from(bytes)?))
}

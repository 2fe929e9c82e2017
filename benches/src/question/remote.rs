//! One remote edit or highlight: read, judged by its past, applied to rows and log, without a disk.
//!
//! The transaction is open for a thousand changes and its commit is counted too, but its pages stay
//! in memory. Each contestant is a process of its own.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use catchword_model::change::read::read;
use catchword_store::{Backends, Received, Store};
use redb::backends::InMemoryBackend;
use serde_json::{Value, json};

use super::{book_of, median, path};
use crate::figure::{Case, Figure, Reach};
use crate::peer::AutomergeRedb;
use crate::process::{OnProcessor, number, task};
use crate::round::micros;
use crate::workload::{NOW_MS, Places, Workspace, load_changes, options, store_changes};

/// Changes of one transaction.
const BATCH: usize = 1_000;
/// Changes that are received in one turn.
const CHANGES: usize = 10_000;
/// Changes that automerge applies, since each takes milliseconds.
const FEW: usize = 20;

/// Applies remote changes to a book of 100,000.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let library = workspace.one_book(100_000, Places::InOrder)?;
    let remote = workspace.remote_file(&library, CHANGES)?;
    let all = workspace.fresh("remote.changes")?;
    store_changes(&all, &workspace.changes(&library)?)?;
    let book = workspace.book_file()?;
    let scratch = workspace.fresh("remote-automerge.redb")?;
    let rounds = if workspace.quick { 3 } else { 5 };
    let mut times = [const { Vec::new() }; 5];
    for _ in 0..rounds {
        let ours = task("remote-library", &[&all, &remote, &book])?;
        let _path = workspace.fresh("remote-automerge.redb")?;
        let theirs = task("remote-automerge", &[&all, &remote, &book, &scratch])?;
        let found = [
            number(&ours, "us")?,
            number(&ours, "busy_us")?,
            number(&ours, "compacted_us")?,
            number(&ours, "read_us")?,
            number(&theirs, "us")?,
        ];
        times.iter_mut().zip(found).for_each(|(times, found)| times.push(found));
    }
    let [ours, busy, compacted, reading, theirs] = times.map(median);
    let case = Case::new("remote", "each of 1000, no disk")
        .with("catchword", "median", ours, "us")
        .with("catchword", "busy", busy, "us")
        .must(Reach::Value(20.0))
        .with("catchword, compacted", "median", compacted, "us")
        .must(Reach::Value(20.0))
        .with("reading the bytes", "median", reading, "us")
        .with("automerge, in memory", "median", theirs, "us");
    Ok(case.figures())
}

/// Receives changes into a library in memory.
pub(super) fn receive(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let book = book_of(path(paths, 2)?)?;
    let backends = Backends { wal: InMemoryBackend::new(), library: InMemoryBackend::new() };
    let store = Store::open_on(backends, &options(3, NOW_MS))?;
    store.expect_book(book)?;
    for chunk in load_changes(path(paths, 0)?, book.document())?.chunks(BATCH) {
        let report = store.receive(chunk)?;
        anyhow::ensure!(report.rejected.is_empty(), "{:?}", report.rejected.first());
    }
    let remote = load_changes(path(paths, 1)?, book.document())?;
    let (before, after) = remote.split_at(remote.len() / 2);
    let (us, busy_us) = receive_all(&store, before)?;
    store.compact(&mut |_| ControlFlow::Continue(()))?;
    // The median, since the memory that stands for the file grows by doubling in one of the batches.
    let (compacted_us, _) = receive_all(&store, after)?;
    let start = Instant::now();
    for change in &remote {
        std::hint::black_box(read(&change.bytes)?);
    }
    let reading = each(start.elapsed(), &remote);
    Ok(json!({
        "us": us, "busy_us": busy_us, "compacted_us": compacted_us, "read_us": reading,
    }))
}

/// Returns the median time for each change, and the mean time on a processor.
fn receive_all(store: &Store, changes: &[Received]) -> anyhow::Result<(f64, f64)> {
    let mut times = Vec::new();
    let busy = OnProcessor::start()?;
    for batch in changes.chunks(BATCH) {
        let start = Instant::now();
        let report = store.receive(batch)?;
        times.push(each(start.elapsed(), batch));
        anyhow::ensure!(report.added == batch.len() as u64, "{report:?}");
    }
    Ok((median(times), each(busy.elapsed()?, changes)))
}

/// Applies changes to a loaded document.
pub(super) fn apply(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let document = book_of(path(paths, 2)?)?.document();
    let all = load_changes(path(paths, 0)?, document)?;
    let all: Vec<Vec<u8>> = all.into_iter().map(|change| change.bytes).collect();
    let remote = load_changes(path(paths, 1)?, document)?;
    let mut automerge = AutomergeRedb::load(path(paths, 3)?, &all)?;
    let few = remote.get(..FEW).unwrap_or_default();
    let start = Instant::now();
    few.iter().try_for_each(|change| automerge.apply(&change.bytes))?;
    Ok(json!({ "us": each(start.elapsed(), few) }))
}

fn each(time: Duration, of: &[Received]) -> f64 {
    micros(time) / f64::from(u32::try_from(of.len()).unwrap_or(u32::MAX))
}

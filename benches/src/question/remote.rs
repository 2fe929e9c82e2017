//! One remote edit or highlight: read, judged by its past, applied to rows and log, without a disk.
//!
//! The transaction is open for a thousand changes and its commit is counted too, but its pages stay
//! in memory.

use std::time::{Duration, Instant};

use catchword_model::change::read::read;
use catchword_store::{Backends, Received, Store};
use redb::backends::InMemoryBackend;

use crate::figure::{Case, Figure, Reach};
use crate::peer::AutomergeRedb;
use crate::round::{Contestant, interleave, micros};
use crate::workload::{NOW_MS, Places, Workspace, load_changes, options};

/// Changes of one transaction.
const BATCH: usize = 1_000;
/// Changes that automerge applies in one turn, since each takes milliseconds.
const FEW: usize = 10;

/// Applies remote changes to a book of 100,000.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let library = workspace.one_book(100_000, Places::InOrder)?;
    let rounds = if workspace.quick { 4 } else { 10 };
    let document = workspace.book().document();
    let remote = load_changes(&workspace.remote_file(&library, 10 * BATCH)?, document)?;
    let changes = workspace.changes(&library)?;
    let store = in_memory(workspace, &changes)?;
    let path = workspace.fresh("remote-automerge.redb")?;
    let mut automerge = AutomergeRedb::load(&path, &changes)?;
    let batch = |n: usize| remote.get(n * BATCH..(n + 1) * BATCH).unwrap_or_default();
    let times = interleave(
        rounds,
        &mut [
            Contestant {
                name: "catchword",
                turn: Box::new(|n| {
                    let start = Instant::now();
                    let report = store.receive(batch(n))?;
                    let time = start.elapsed();
                    anyhow::ensure!(report.added == BATCH as u64, "{report:?}");
                    Ok(per(time, BATCH))
                }),
            },
            Contestant {
                name: "reading the bytes",
                turn: Box::new(|n| {
                    let start = Instant::now();
                    for change in batch(n) {
                        std::hint::black_box(read(&change.bytes)?);
                    }
                    Ok(per(start.elapsed(), BATCH))
                }),
            },
            Contestant {
                name: "automerge, in memory",
                turn: Box::new(|n| {
                    let few = remote.get(n * FEW..(n + 1) * FEW).unwrap_or_default();
                    let start = Instant::now();
                    few.iter().try_for_each(|change| automerge.apply(&change.bytes))?;
                    Ok(per(start.elapsed(), FEW))
                }),
            },
        ],
    )?;
    let mut case = Case::new("remote", "each of 1000, no disk");
    for contestant in &times {
        case = case.with(contestant.name, "median", contestant.median_us(), "us");
        if contestant.name == "catchword" {
            case = case.must(Reach::Value(20.0));
        }
    }
    Ok(case.figures())
}

fn per(time: Duration, count: usize) -> Duration {
    Duration::from_secs_f64(micros(time) / 1e6 / f64::from(u32::try_from(count).unwrap_or(1)))
}

fn in_memory(workspace: &Workspace, changes: &[Vec<u8>]) -> anyhow::Result<Store> {
    let backends = Backends { wal: InMemoryBackend::new(), library: InMemoryBackend::new() };
    let store = Store::open_on(backends, &options(3, NOW_MS))?;
    store.expect_book(workspace.book())?;
    let document = workspace.book().document();
    for chunk in changes.chunks(20_000) {
        let received = |bytes: &Vec<u8>| Received { document, bytes: bytes.clone() };
        let report = store.receive(&chunk.iter().map(received).collect::<Vec<_>>())?;
        anyhow::ensure!(report.rejected.is_empty(), "{:?}", report.rejected.first());
    }
    Ok(store)
}

//! An empty device gets a book over loopback QUIC: durable, readable, and in how much memory.

use std::path::PathBuf;
use std::time::Instant;

use automerge::AutoCommit;
use catchword::WHOLE_BOOK;
use serde_json::{Value, json};

use super::{book_of, median, path};
use crate::figure::{Case, Figure, Reach};
use crate::network::{Side, library};
use crate::peer::{Sqlite, Synchronous, automerge_sync};
use crate::process::{PeakMemory, number, start_task, task, warm_program};
use crate::round::micros;
use crate::workload::{Places, Workspace, load_changes, store_changes};

const ANNOTATIONS: u32 = 100_000;
/// Between two pairings with one host: it takes three connections from one address in ten seconds.
const PAIRING_PAUSE: std::time::Duration = std::time::Duration::from_secs(4);

/// Sends a book of 100,000 to an empty device, which is a process of its own.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let host = library(workspace, "first-host", 1, ANNOTATIONS)?;
    let rounds = if workspace.quick { 3 } else { 5 };
    let mut ours = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        std::thread::sleep(PAIRING_PAUSE);
        let folder = workspace.fresh("first-empty")?;
        let (hosted, words) = host.invite()?;
        let receiver = start_task("first-receive", &[&folder, &PathBuf::from(words)])?;
        host.admit(hosted)?;
        let found = receiver.wait()?;
        for (values, name) in ours.iter_mut().zip(["us", "bytes", "mib", "round_trips"]) {
            values.push(number(&found, name)?);
        }
    }
    drop(host);

    let made = workspace.one_book(u64::from(ANNOTATIONS), Places::InOrder)?;
    let changes = workspace.fresh("first.changes")?;
    store_changes(&changes, &workspace.changes(&made)?)?;
    let theirs = task("first-automerge", &[&changes, &workspace.book_file()?])?;
    let annotations = workspace.annotations(&made)?;
    let mut rows = Sqlite::create(&workspace.fresh("first.sqlite")?, Synchronous::Full)?;
    let start = Instant::now();
    rows.put(&annotations)?;
    let rows_ms = micros(start.elapsed()) / 1_000.0;

    let [us, bytes, mib, round_trips] = ours.map(median);
    let case = Case::new("first", format!("{ANNOTATIONS} to an empty device"))
        .with("catchword", "median", us / 1_000.0, "ms")
        .must(Reach::Value(1_500.0))
        .with("catchword", "wire", bytes / 1_000_000.0, "MB")
        .must(Reach::Value(9.0))
        .with("catchword", "memory", mib, "MiB")
        .must(Reach::Value(48.0))
        .with("catchword", "requests", round_trips, "")
        .with("SQLite, rows only", "median", rows_ms, "ms")
        .with("automerge, in memory", "median", number(&theirs, "us")? / 1_000.0, "ms")
        .with("automerge, in memory", "wire", number(&theirs, "bytes")? / 1_000_000.0, "MB");
    Ok(case.figures())
}

/// Joins the host whose words come, and syncs.
pub(super) fn receive(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let side = Side::open(path(paths, 0)?)?;
    let host = side.join(&path(paths, 1)?.to_string_lossy())?;
    let memory = PeakMemory::forget()?;
    let start = Instant::now();
    let report = side.sync(&host)?;
    let time = start.elapsed();
    let mib = memory.growth_mib()?;
    let books = side.library.books()?;
    let mut readable = 0;
    for book in &books {
        if let Some(book) = side.library.book(book.book)? {
            book.visit_annotations(WHOLE_BOOK, |_| readable += 1)?;
        }
    }
    anyhow::ensure!(readable == ANNOTATIONS, "{readable} annotations");
    let bytes = report.bytes_sent + report.bytes_received;
    let round_trips = report.round_trips;
    Ok(json!({ "us": micros(time), "bytes": bytes, "mib": mib, "round_trips": round_trips }))
}

/// Syncs a document of automerge with an empty one, without a disk or a network.
pub(super) fn automerge(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let document = book_of(path(paths, 1)?)?.document();
    let changes = load_changes(path(paths, 0)?, document)?;
    let bytes: Vec<u8> = changes.into_iter().flat_map(|change| change.bytes).collect();
    let mut full = AutoCommit::load(&bytes)?;
    let mut empty = AutoCommit::new();
    let start = Instant::now();
    let bytes = automerge_sync(&mut full, &mut empty)?;
    Ok(json!({ "us": micros(start.elapsed()), "bytes": bytes }))
}

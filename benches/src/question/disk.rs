//! What a book with its whole history takes on the disk, beside SQLite's rows without history.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::path;
use crate::figure::{Case, Figure, Reach};
use crate::peer::{Sqlite, Synchronous};
use crate::process::{number, task};
use crate::workload::{Places, Workspace, open};

const ANNOTATIONS: u32 = 100_000;

/// Weighs books of 100,000 annotations.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let orders = [(Places::InOrder, "in order"), (Places::Random, "random order")];
    let mut figures = Vec::new();
    for (places, name) in orders {
        let made = workspace.one_book(u64::from(ANNOTATIONS), places)?;
        let sqlite = workspace.fresh("disk.sqlite")?;
        let mut rows = Sqlite::create(&sqlite, Synchronous::Full)?;
        let mut annotations = workspace.annotations(&made)?;
        annotations.sort_unstable_by_key(|annotation| annotation.stamp);
        annotations.chunks(2_000).try_for_each(|chunk| rows.put(chunk))?;
        rows.close()?;
        let library = workspace.copy(&made, "disk")?;
        let report = task("compact-library", &[&library])?;
        let theirs = bytes_each(disk_bytes(&fs::metadata(&sqlite)?));
        let most = match places {
            Places::InOrder => 1.5,
            Places::Random => 2.0,
        };
        let before = Case::new("disk", format!("{name}, before compaction"))
            .with("catchword", "bytes", number(&report, "before")?, "each")
            .with("SQLite, no history", "bytes", theirs, "each");
        let after = Case::new("disk", format!("{name}, compacted"))
            .with("catchword", "bytes", number(&report, "after")?, "each")
            .with("SQLite, no history", "bytes", theirs, "each")
            .must(Reach::Ratio(most));
        figures.extend([before.figures(), after.figures()].concat());
    }
    Ok(figures)
}

/// Weighs a library before and after it is compacted.
pub(super) fn compact(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let folder = path(paths, 0)?;
    open(folder)?.close()?;
    let before = bytes_each(folder_bytes(folder)?);
    let store = open(folder)?;
    store.compact(&mut |_| std::ops::ControlFlow::Continue(()))?;
    store.close()?;
    Ok(json!({ "before": before, "after": bytes_each(folder_bytes(folder)?) }))
}

/// Returns what the files of a folder take on the disk: redb makes files longer than what it writes,
/// and file systems keep no room for the rest.
fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        bytes += disk_bytes(&entry?.metadata()?);
    }
    Ok(bytes)
}

fn disk_bytes(file: &fs::Metadata) -> u64 {
    file.blocks() * 512
}

fn bytes_each(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 16).unwrap_or(u32::MAX)) * 16.0 / f64::from(ANNOTATIONS)
}

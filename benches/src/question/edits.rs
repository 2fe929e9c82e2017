//! A hundred edits of colour and note on each side of a book that both have.

use std::path::PathBuf;

use anyhow::Context as _;
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT, ReadDoc as _};
use catchword::{AnnotationEdit, AnnotationId, Library, WHOLE_BOOK};
use catchword_model::schema::annotation_field;
use serde_json::{Value, json};

use super::{book_of, path};
use crate::figure::{Case, Figure, Reach};
use crate::network::{Side, library, pair};
use crate::peer::automerge_sync;
use crate::process::{number, task};
use crate::workload::{Places, Workspace, load_changes, store_changes};

const ANNOTATIONS: u32 = 100_000;
const EDITS: usize = 100;

/// Counts what a sync costs after both sides edited.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let host = library(workspace, "edits-host", 1, ANNOTATIONS)?;
    let other = Side::open(&workspace.fresh("edits-other")?)?;
    let peer = pair(&host, &other)?;
    other.sync(&peer)?;
    other.sync(&peer)?;
    edit(&host.library, 0)?;
    edit(&other.library, 1)?;
    let report = other.sync(&peer)?;
    let sent = usize::try_from(report.changes_sent + report.changes_received)?;
    anyhow::ensure!(sent == 2 * EDITS, "{report:?}");
    let bytes = u32::try_from(report.bytes_sent + report.bytes_received)?;
    drop((host, other));

    let made = workspace.one_book(u64::from(ANNOTATIONS), Places::InOrder)?;
    let changes = workspace.fresh("edits.changes")?;
    store_changes(&changes, &workspace.changes(&made)?)?;
    let theirs = task("edits-automerge", &[&changes, &workspace.book_file()?])?;
    let case = Case::new("edits", format!("{EDITS} on each side"))
        .with("catchword", "requests", f64::from(u32::try_from(report.round_trips)?), "")
        .must(Reach::Value(1.0))
        .with("catchword", "wire", f64::from(bytes) / 1_000.0, "kB")
        .must(Reach::Value(7.5))
        .with("automerge", "wire", number(&theirs, "bytes")? / 1_000.0, "kB");
    Ok(case.figures())
}

/// The annotations that a side edits: every so many, and no two sides the same.
fn edited(all: &[AnnotationId], side: usize) -> impl Iterator<Item = (usize, AnnotationId)> {
    let step = all.len() / EDITS;
    all.iter().copied().skip(side * step / 2).step_by(step.max(1)).take(EDITS).enumerate()
}

fn color(n: usize) -> &'static str {
    if n.is_multiple_of(2) { "red" } else { "blue" }
}

fn note(n: usize, side: usize) -> String {
    format!("{n}: seen again on device {side}")
}

fn edit(library: &Library, side: usize) -> anyhow::Result<()> {
    let book = library.books()?.first().context("no book")?.book;
    let book = library.book(book)?.context("no book")?;
    let ids: Vec<_> = book.annotations(WHOLE_BOOK)?.into_iter().map(|shown| shown.id).collect();
    for (n, id) in edited(&ids, side) {
        book.edit(id, &AnnotationEdit::new().color(color(n)).note(note(n, side)))?;
    }
    Ok(())
}

/// The same with two documents of automerge.
pub(super) fn automerge(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let document = book_of(path(paths, 1)?)?.document();
    let changes = load_changes(path(paths, 0)?, document)?;
    let bytes: Vec<u8> = changes.into_iter().flat_map(|change| change.bytes).collect();
    let mut sides = [AutoCommit::load(&bytes)?, AutoCommit::load(&bytes)?];
    for (side, document) in sides.iter_mut().enumerate() {
        let (_, annotations) = document.get(ROOT, "annotations")?.context("no annotations")?;
        let keys = document.keys(&annotations);
        let ids: Vec<AnnotationId> = keys.filter_map(|key| key.parse().ok()).collect();
        for (n, id) in edited(&ids, side) {
            document.put(&annotations, annotation_field(id, "color"), color(n))?;
            document.put(&annotations, annotation_field(id, "note"), note(n, side))?;
            document.commit();
        }
    }
    let [one, other] = &mut sides;
    Ok(json!({ "bytes": automerge_sync(one, other)? }))
}

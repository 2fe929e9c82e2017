//! Opening after a kill, and the place of a book, in processes of their own.

use std::path::PathBuf;
use std::time::Instant;

use catchword_model::position;
use serde_json::{Value, json};

use super::{book_of, median, path, print};
use crate::figure::{Case, Figure, Reach};
use crate::peer::{BareRedb, Sqlite, Synchronous};
use crate::process::{Cache, kill_when_ready, number, task, warm_program};
use crate::round::micros;
use crate::workload::{NOW_MS, Places, Workspace, load_changes, open};

/// Highlights that are acknowledged before the process is killed, fewer than would be moved.
const HELD: usize = 250;

/// Opens libraries of several sizes after `kill -9`, and asks for the place of the book.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let sizes: &[u64] = if workspace.quick { &[100, 100_000] } else { &[100, 100_000, 1_000_000] };
    let mut figures = Vec::new();
    for size in sizes {
        figures.extend(open_size(workspace, *size)?);
    }
    Ok(figures)
}

fn open_size(workspace: &Workspace, size: u64) -> anyhow::Result<Vec<Figure>> {
    let made = workspace.one_book(size, Places::InOrder)?;
    let library = workspace.copy(&made, "open")?;
    let redb = workspace.fresh("open.redb")?;
    let changes = workspace.changes(&made)?;
    BareRedb::open(&redb)?.fill(&changes, changes.len())?;
    let sqlite = workspace.fresh("open.sqlite")?;
    let mut rows = Sqlite::create(&sqlite, Synchronous::Full)?;
    rows.put(&workspace.annotations(&made)?)?;
    rows.close()?;

    let book = workspace.book_file()?;
    let rounds = if workspace.quick { 5 } else { 11 };
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); 4];
    let mut cache = Cache::Warm;
    for _ in 0..rounds {
        kill_when_ready("hold-library", &[&library, &book])?;
        kill_when_ready("hold-redb", &[&redb])?;
        kill_when_ready("hold-sqlite", &[&sqlite])?;
        cache = Cache::drop_pages();
        let ours = task("open-library", &[&library, &book])?;
        let found = [
            number(&ours, "open_us")?,
            number(&ours, "place_us")?,
            number(&task("open-redb", &[&redb])?, "us")?,
            number(&task("open-sqlite", &[&sqlite])?, "us")?,
        ];
        times.iter_mut().zip(found).for_each(|(times, found)| times.push(found / 1_000.0));
    }
    let [opened, placed, redb, sqlite] =
        <[_; 4]>::try_from(times).map_err(|_| anyhow::anyhow!("four contestants"))?.map(median);
    let case = format!("{size}, {}, killed", cache.name());
    let open = Case::new("open", case.as_str())
        .with("catchword", "median", opened, "ms")
        .must(Reach::Value(10.0))
        .with("bare redb", "median", redb, "ms")
        .with("SQLite, open + row", "median", sqlite, "ms");
    let mut place = Case::new("open", format!("{case}, place"))
        .with("catchword", "median", placed, "ms")
        .must(Reach::Value(5.0))
        .with("catchword, with open", "median", opened + placed, "ms");
    if size <= 100_000 {
        let file = workspace.fresh("open.changes")?;
        crate::workload::store_changes(&file, &changes)?;
        let loaded = number(&task("load-automerge", &[&file])?, "us")?;
        place = place.with("automerge, load", "once", loaded / 1_000.0, "ms");
    }
    Ok([open.figures(), place.figures()].concat())
}

fn forever() -> anyhow::Result<Value> {
    print(&json!("ready"))?;
    loop {
        std::thread::park();
    }
}

/// Writes highlights into a library and waits to be killed.
pub(super) fn hold_library(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let folder = path(paths, 0)?;
    let workspace = Workspace::new(folder.to_path_buf(), true)?;
    let store = open(folder)?;
    let book = book_of(path(paths, 1)?)?;
    let held = store.book(book)?.map_or(0, |book| book.annotations);
    for n in 0..HELD {
        let edit = workspace.annotate(&store, usize::try_from(held)? + n);
        store.append(book.document(), &[edit], NOW_MS)?;
    }
    forever()
}

/// Writes records into a table and waits to be killed.
pub(super) fn hold_redb(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let mut redb = BareRedb::open(path(paths, 0)?)?;
    for _ in 0..HELD {
        redb.put(&[&[7; 320]])?;
    }
    forever()
}

/// Writes rows and waits to be killed.
pub(super) fn hold_sqlite(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let mut sqlite = Sqlite::open(path(paths, 0)?, Synchronous::Full)?;
    let mut first = None;
    sqlite.annotations(0, u32::MAX, |annotation| {
        first.get_or_insert(annotation);
    })?;
    for _ in 0..HELD {
        sqlite.put(first.as_slice())?;
    }
    forever()
}

/// Opens a library and asks for the place of a book.
pub(super) fn open_library(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let book = book_of(path(paths, 1)?)?;
    let start = Instant::now();
    let store = open(path(paths, 0)?)?;
    let opened = start.elapsed();
    let entries = store.positions(book)?;
    let place = position::place(&entries).map(|entry| entry.position.ppm);
    let placed = start.elapsed().saturating_sub(opened);
    anyhow::ensure!(!store.opened().library_repaired, "redb repaired the library");
    anyhow::ensure!(store.opened().new_generation.is_none(), "a new generation was started");
    anyhow::ensure!(store.opened().replayed == HELD, "{:?}", store.opened());
    Ok(json!({ "open_us": micros(opened), "place_us": micros(placed), "ppm": place }))
}

/// Opens a table after the process that wrote it was killed.
pub(super) fn open_redb(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let start = Instant::now();
    let last = BareRedb::last(path(paths, 0)?)?;
    Ok(json!({ "us": micros(start.elapsed()), "last": last }))
}

/// Opens rows after the process that wrote them was killed, and reads one.
pub(super) fn open_sqlite(paths: &[PathBuf]) -> anyhow::Result<Value> {
    warm_program()?;
    let start = Instant::now();
    let sqlite = Sqlite::open(path(paths, 0)?, Synchronous::Full)?;
    let books = sqlite.recent(1)?;
    Ok(json!({ "us": micros(start.elapsed()), "books": books.len() }))
}

/// Loads a document from its changes, as it must be before anything can be read.
pub(super) fn load_automerge(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let document = catchword_model::id::DocumentId([0; 32]);
    let changes = load_changes(path(paths, 0)?, document)?;
    let bytes: Vec<u8> = changes.into_iter().flat_map(|change| change.bytes).collect();
    let start = Instant::now();
    let loaded = automerge::AutoCommit::load(&bytes)?;
    let time = start.elapsed();
    drop(loaded);
    Ok(json!({ "us": micros(time) }))
}

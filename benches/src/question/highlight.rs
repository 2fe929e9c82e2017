//! One durable highlight, and ten in one commit, into books of several sizes.

use std::time::{Duration, Instant};

use catchword_model::annotation::Annotation;
use catchword_model::edit::Edit;
use catchword_store::Store;

use crate::figure::{Case, Figure, Reach};
use crate::peer::{AutomergeRedb, BareRedb, Sqlite, Synchronous};
use crate::round::{Contestant, Times, interleave};
use crate::workload::{NOW_MS, Places, Workspace, open};

/// Above this automerge takes minutes to load.
const AUTOMERGE_ANNOTATIONS_MAX: u64 = 100_000;

/// One highlight, into books of 100, 100,000 and 1,000,000.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn one(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let sizes: &[u64] = if workspace.quick { &[100, 100_000] } else { &[100, 100_000, 1_000_000] };
    let rounds = if workspace.quick { 2_048 } else { 5_120 };
    let mut figures = Vec::new();
    for size in sizes {
        let arena = Arena::new(workspace, *size, rounds)?;
        let times = arena.race(rounds)?;
        figures.extend(one_case(*size, &times).figures());
    }
    Ok(figures)
}

fn one_case(size: u64, times: &[Times]) -> Case {
    let mut case = Case::new("highlight", format!("into {size}"));
    for contestant in times {
        case = case.with(contestant.name, "median", contestant.median_us(), "us");
        if contestant.name == "bare redb" {
            case = case.must(Reach::Ratio(1.0));
        }
        case = case.with(contestant.name, "mean", contestant.mean_us(), "us");
        if contestant.name == "bare redb" {
            case = case.must(Reach::Ratio(1.1));
        }
        case = case.with(contestant.name, "p99", contestant.p99_us(), "us");
    }
    case
}

/// Everybody with the same annotations in it.
struct Arena<'a> {
    workspace: &'a Workspace,
    store: Store,
    redb: BareRedb,
    full: Sqlite,
    normal: Sqlite,
    automerge: Option<AutomergeRedb>,
    changes: Vec<Vec<u8>>,
    /// What is put, with ids of its own.
    fresh: Vec<(Edit, Annotation)>,
}

impl<'a> Arena<'a> {
    fn new(workspace: &'a Workspace, size: u64, rounds: usize) -> anyhow::Result<Self> {
        let made = workspace.one_book(size, Places::InOrder)?;
        let changes = workspace.changes(&made)?;
        let mut redb = BareRedb::open(&workspace.fresh("highlight.redb")?)?;
        redb.fill(&changes, changes.len())?;
        let annotations = workspace.annotations(&made)?;
        let fill_table = |name: &str, level| -> anyhow::Result<Sqlite> {
            let mut sqlite = Sqlite::create(&workspace.fresh(name)?, level)?;
            sqlite.put(&annotations)?;
            Ok(sqlite)
        };
        let full = fill_table("highlight-full.sqlite", Synchronous::Full)?;
        let normal = fill_table("highlight-normal.sqlite", Synchronous::Normal)?;
        let automerge = if size <= AUTOMERGE_ANNOTATIONS_MAX {
            let path = workspace.fresh("highlight-automerge.redb")?;
            Some(AutomergeRedb::load(&path, &changes)?)
        } else {
            None
        };
        let store = open(&workspace.copy(&made, "highlight")?)?;
        let fresh = (0..rounds).map(|n| shown(workspace.annotate(&store, n))).collect();
        Ok(Self { workspace, store, redb, full, normal, automerge, changes, fresh })
    }

    fn race(self, rounds: usize) -> anyhow::Result<Vec<Times>> {
        let Self { workspace, store, mut redb, mut full, mut normal, automerge, changes, fresh } =
            self;
        let document = workspace.book().document();
        let fresh = &fresh;
        let of = |n: usize| fresh.get(n % fresh.len()).expect("there are some");
        let mut contestants = vec![
            contestant("catchword", move |n| {
                let edit = std::slice::from_ref(&of(n).0);
                timed(|| Ok(store.append(document, edit, NOW_MS + n as u64).map(|_| ())?))
            }),
            contestant("bare redb", move |n| {
                let record = changes.get(n % changes.len()).map_or(&[][..], Vec::as_slice);
                timed(|| redb.put(&[record]))
            }),
            contestant("SQLite, FULL", move |n| timed(|| full.put(std::slice::from_ref(&of(n).1)))),
            contestant("SQLite, NORMAL", move |n| {
                timed(|| normal.put(std::slice::from_ref(&of(n).1)))
            }),
        ];
        if let Some(mut automerge) = automerge {
            contestants.push(contestant("automerge + redb", move |n| {
                let Edit::Annotate { id, creation } = &of(n).0 else { return Ok(Duration::ZERO) };
                timed(|| automerge.put(*id, &creation.to_json()))
            }));
        }
        interleave(rounds, &mut contestants)
    }
}

/// Ten highlights in one commit against one, of the store and of bare redb.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ten(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let made = workspace.one_book(100_000, Places::InOrder)?;
    let changes = workspace.changes(&made)?;
    let (one_folder, ten_folder) =
        (workspace.copy(&made, "ten-one")?, workspace.copy(&made, "ten-ten")?);
    let (one, ten) = (open(&one_folder)?, open(&ten_folder)?);
    let bare = |name: &str| -> anyhow::Result<BareRedb> {
        let mut redb = BareRedb::open(&workspace.fresh(name)?)?;
        redb.fill(&changes, changes.len())?;
        Ok(redb)
    };
    let (mut bare_one, mut bare_ten) = (bare("ten-one.redb")?, bare("ten-ten.redb")?);
    let document = workspace.book().document();
    let records: Vec<&[u8]> = changes.iter().take(10).map(Vec::as_slice).collect();
    let rounds = if workspace.quick { 256 } else { 1_024 };
    let times = interleave(
        rounds,
        &mut [
            contestant("ten", |n| {
                let batch: Vec<_> = (0..10)
                    .map(|k| (document, vec![workspace.annotate(&ten, 10 * n + k)]))
                    .collect();
                timed(|| Ok(ten.append_all(&batch, NOW_MS).map(|_| ())?))
            }),
            contestant("one", |n| {
                let edit = [workspace.annotate(&one, n)];
                timed(|| Ok(one.append(document, &edit, NOW_MS).map(|_| ())?))
            }),
            contestant("bare redb, ten", |_| timed(|| bare_ten.put(&records))),
            contestant("bare redb, one", |_| {
                timed(|| bare_one.put(records.get(..1).unwrap_or_default()))
            }),
        ],
    )?;
    let [ours, one, bare_ten, bare_one] = times.as_slice() else { return Ok(Vec::new()) };
    let case = Case::new("ten", "in one commit")
        .with("catchword, ten", "median", ours.median_us(), "us")
        .with("catchword, one", "median", one.median_us(), "us")
        .must(Reach::Ratio(1.5))
        .with("bare redb, ten", "median", bare_ten.median_us(), "us")
        .with("bare redb, one", "median", bare_one.median_us(), "us");
    Ok(case.figures())
}

/// Boxes a contestant.
fn contestant<'a>(
    name: &'static str,
    turn: impl FnMut(usize) -> anyhow::Result<Duration> + 'a,
) -> Contestant<'a> {
    Contestant { name, turn: Box::new(turn) }
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Returns an edit with what a reader would see of it.
fn shown(edit: Edit) -> (Edit, Annotation) {
    let Edit::Annotate { id, creation } = &edit else { unreachable!("it makes an annotation") };
    let annotation = Annotation {
        id: *id,
        kind: creation.kind,
        quote: creation.quote.clone(),
        note: creation.note.clone(),
        color: creation.color.clone(),
        style: None,
        locator: creation.locator.clone(),
        stamp: catchword_model::hlc::Hlc::ZERO,
        device: creation.created_by.clone(),
        source: None,
        deleted: false,
        edited_while_deleted: false,
        conflicts: Vec::new(),
    };
    (edit, annotation)
}

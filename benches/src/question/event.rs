//! An edit, and the event that an observer gets of it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use catchword::{Book, Config, Event, Library, Locator, NewAnnotation};

use crate::figure::{Case, Figure, Reach};
use crate::round::{Contestant, interleave};
use crate::workload::{Places, Workspace};

/// Highlights a book of 100,000 with nobody watching, and with an observer that reads each event.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let rounds = if workspace.quick { 512 } else { 2_048 };
    let (_alone, unwatched) = open(workspace, "event-unwatched")?;
    let (observed, watched) = open(workspace, "event-watched")?;
    let events = observed.subscribe();
    let times = interleave(
        rounds,
        &mut [
            Contestant { name: "edit", turn: Box::new(|n| highlight(&unwatched, n)) },
            Contestant {
                name: "edit and event",
                turn: Box::new(|n| {
                    let start = Instant::now();
                    highlight(&watched, n)?;
                    let event = events.try_next().context("no event")?;
                    let took = start.elapsed();
                    anyhow::ensure!(matches!(event, Event::AnnotationAdded { .. }), "{event:?}");
                    Ok(took)
                }),
            },
        ],
    )?;
    let [alone, with_event] = times.as_slice() else { return Ok(Vec::new()) };
    let case = Case::new("event", "into 100000")
        .with("edit and event", "median", with_event.median_us(), "us")
        .with("edit", "median", alone.median_us(), "us")
        .must(Reach::Ratio(1.5));
    Ok(case.figures())
}

fn open(workspace: &Workspace, name: &str) -> anyhow::Result<(Library, Book)> {
    let made = workspace.one_book(100_000, Places::InOrder)?;
    let library = Library::open_existing(workspace.copy(&made, name)?, Config::default())?;
    let book = library.book(workspace.book())?.context("no book")?;
    Ok((library, book))
}

fn highlight(book: &Book, n: usize) -> anyhow::Result<Duration> {
    let ppm = u32::try_from(n % 1_000_000)?;
    let new = NewAnnotation::highlight("a passage of about forty characters")
        .at(Locator::new().with_total_ppm(ppm));
    let start = Instant::now();
    book.annotate(new)?;
    Ok(start.elapsed())
}

//! `catchword show`: everything about a book, merged.

use std::collections::BTreeMap;

use catchword::Library;

use crate::args::BookArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Column, Page, Table, count, percent, plain};
use crate::shapes::{Place, Shown, ShownAnnotation};
use crate::time::{duration, utc};

/// Shows the book.
pub(crate) fn run(args: &BookArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let book = library.find(&args.book)?;
    let shown = Shown::read(&book)?;
    let devices = names(&library)?;
    let kept = if context.output.is_json() { Vec::new() } else { shown.annotations.kept()? };
    context.output.print(&shown, |page| write(page, &shown, &kept, &devices))
}

/// Returns what devices are called, by the text form of their ids.
pub(crate) fn names(library: &Library) -> Result<BTreeMap<String, String>, Failure> {
    let devices = library.devices()?;
    Ok(devices.into_iter().map(|(id, name)| (id.to_string(), plain(&name.name))).collect())
}

/// Writes what a device is called, or the beginning of its id.
pub(crate) fn name(devices: &BTreeMap<String, String>, device: &str) -> String {
    devices.get(device).cloned().unwrap_or_else(|| plain(device).chars().take(8).collect())
}

fn write(
    page: &mut Page,
    shown: &Shown<'_>,
    kept: &[ShownAnnotation],
    devices: &BTreeMap<String, String>,
) {
    page.line(plain(&shown.title));
    page.property("book", &shown.book);
    match &shown.place {
        Some(place) => page.property("place", sentence(place, devices)),
        None => page.property("place", "not read yet"),
    }
    if let Some(furthest) = &shown.furthest {
        page.property("furthest", percent(furthest.ppm));
    }
    if 1 < shown.positions.len() {
        for place in &shown.positions {
            page.property("", sentence(place, devices));
        }
    }
    if 0 < shown.events.count {
        let sessions = count(shown.events.count, "session");
        page.property("read", format_args!("{sessions}, {}", duration(shown.events.seconds)));
    }
    if !shown.tags.is_empty() {
        page.property("tags", plain(&shown.tags.join(", ")));
    }
    if !kept.is_empty() {
        page.line("");
        page.table(&annotations(kept));
    }
    if !shown.journal.is_empty() {
        page.line("");
        page.paragraph(&shown.journal);
    }
}

fn sentence(place: &Place, devices: &BTreeMap<String, String>) -> String {
    let reading = if place.pass == 1 { String::new() } else { format!(", reading {}", place.pass) };
    let device = name(devices, &place.device);
    format!("{}{reading}, {device}, {}", percent(place.ppm), utc(place.wall_ms))
}

fn annotations(annotations: &[ShownAnnotation]) -> Table {
    let columns = [
        Column::number("Place"),
        Column::word("Id"),
        Column::word("Kind"),
        Column::word("Color"),
        Column::text("Quote"),
        Column::text("Note"),
    ];
    let mut table = Table::new(columns);
    for one in annotations {
        let note = one.note.clone().unwrap_or_default();
        let flag = if one.conflict.is_empty() { "" } else { "! " };
        table.row([
            one.ppm.map_or_else(|| "-".to_owned(), percent),
            one.id.clone(),
            one.kind.to_owned(),
            one.color.clone().unwrap_or_default(),
            one.quote.clone(),
            format!("{flag}{note}"),
        ]);
    }
    table
}

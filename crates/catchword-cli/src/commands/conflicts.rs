//! `catchword conflicts`: where devices disagreed, and what counts.

use std::collections::BTreeMap;

use catchword::Book;
use serde_json::Value;

use crate::args::ConflictsArgs;
use crate::commands::show::{name, names};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Page, percent, plain};
use crate::shapes::{About, Disagreement, Side};
use crate::time::utc;

/// Lists the disagreements of a book, or of all.
pub(crate) fn run(args: &ConflictsArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let mut books: Vec<Book> = Vec::new();
    match &args.book {
        Some(name) => books.push(library.find(name)?),
        None => {
            for summary in library.books()? {
                books.extend(library.book(summary.book)?);
            }
        }
    }
    let mut found: Vec<(String, Disagreement)> = Vec::new();
    for book in &books {
        let title = book.title()?;
        for conflict in book.conflicts()? {
            found.push((title.clone(), Disagreement::new(book, conflict)));
        }
    }
    let devices = names(&library)?;
    let (titles, shapes): (Vec<String>, Vec<Disagreement>) = found.into_iter().unzip();
    context.output.print(&shapes, |page| {
        if shapes.is_empty() {
            page.line("all devices agree");
        }
        for (title, shape) in titles.iter().zip(&shapes) {
            write(page, title, shape, &devices);
        }
    })
}

fn write(page: &mut Page, title: &str, shape: &Disagreement, devices: &BTreeMap<String, String>) {
    page.line(format_args!("{}: {}", plain(title), about(&shape.subject)));
    let device = |side: &Side| {
        let device = side.device.as_deref().map(|device| name(devices, device));
        device.unwrap_or_else(|| "unknown device".to_owned())
    };
    for side in &shape.sides {
        let said = plain(&value(&side.value));
        page.line(format_args!("    {}, {}: {said}", device(side), utc(side.wall_ms)));
    }
    if let Some(winner) = shape.sides.get(shape.winner) {
        let why = because(shape.rule);
        page.line(format_args!("    what {} wrote counts, because {why}", device(winner)));
    }
}

fn about(subject: &About) -> String {
    match subject {
        About::Place => "the place".to_owned(),
        About::Creation { id } => format!("annotation {id} was made twice"),
        About::Field { id, field } => format!("{field} of annotation {id}"),
        About::Deletion { id } => format!("annotation {id} was edited and deleted"),
        About::Metadata { field } => field.clone(),
        About::Other => "something a newer release knows".to_owned(),
    }
}

/// A place in words, anything else as it is.
fn value(value: &Value) -> String {
    let ppm = value.get("ppm").and_then(Value::as_u64).and_then(|ppm| u32::try_from(ppm).ok());
    match (ppm, value) {
        (Some(ppm), _) => percent(ppm),
        (None, Value::String(text)) => text.clone(),
        (None, other) => other.to_string(),
    }
}

fn because(rule: &str) -> &'static str {
    match rule {
        "latest" => "it is the latest",
        "oldest" => "it is the oldest",
        "higher_pass" => "it belongs to a later reading of the book",
        "higher_rank" => "a person said it, and not a file",
        "edit_keeps" => "an edit that did not know of the deletion keeps the annotation",
        _ => "a newer release has a rule for it",
    }
}

//! `catchword conflicts`: where devices disagreed, and what counts.

use std::collections::BTreeMap;

use catchword::{BookId, Library};
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
    let cards = match &args.book {
        Some(name) => Cards::of(&library, [library.find(name)?.id()])?,
        None => Cards::of(&library, library.books()?.into_iter().map(|summary| summary.book))?,
    };
    context.output.print(&cards.shapes, |page| {
        if cards.shapes.is_empty() {
            page.line("all devices agree");
        }
        cards.write(page, usize::MAX);
    })
}

/// Disagreements, and what is needed to put them into words.
#[derive(Default)]
pub(crate) struct Cards {
    shapes: Vec<Disagreement>,
    /// The title of the book of each.
    titles: Vec<String>,
    devices: BTreeMap<String, String>,
}

impl Cards {
    /// Finds the disagreements about books.
    pub(crate) fn of(
        library: &Library,
        books: impl IntoIterator<Item = BookId>,
    ) -> Result<Self, Failure> {
        let mut cards = Self { devices: names(library)?, ..Self::default() };
        for book in books {
            let Some(book) = library.book(book)? else { continue };
            let title = book.title()?;
            for conflict in book.conflicts()? {
                cards.shapes.push(Disagreement::new(&book, conflict));
                cards.titles.push(title.clone());
            }
        }
        Ok(cards)
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.shapes.len()
    }

    /// Puts the first of them into words.
    pub(crate) fn write(&self, page: &mut Page, cards_max: usize) {
        for (title, shape) in self.titles.iter().zip(&self.shapes).take(cards_max) {
            write(page, title, shape, &self.devices);
        }
        if cards_max < self.shapes.len() {
            let more = self.shapes.len() - cards_max;
            page.line(format_args!("and {more} more: `catchword conflicts`"));
        }
    }
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

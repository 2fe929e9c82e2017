//! The JSON that commands print, as it is documented, and how the engine's answers become it.

use std::collections::BTreeMap;

use catchword::{
    Annotation, Book, BookSummary, BookView, Conflict, Deed, Entry, HistoryEntry, Locator,
    NO_PLACE_PPM, ReadError, Subject, WHOLE_BOOK,
};
use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A line of `books` and `recent`.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    pub(crate) book: String,
    pub(crate) title: String,
    pub(crate) ppm: Option<u32>,
    pub(crate) furthest_ppm: Option<u32>,
    pub(crate) wall_ms: u64,
    pub(crate) annotations: u64,
}

impl From<BookSummary> for Listed {
    fn from(summary: BookSummary) -> Self {
        Self {
            book: summary.book.to_string(),
            title: summary.title,
            ppm: summary.ppm,
            furthest_ppm: summary.furthest_ppm,
            wall_ms: summary.wall_ms,
            annotations: summary.annotations,
        }
    }
}

/// The receipt of a write to an annotation.
#[derive(Debug, Serialize)]
pub(crate) struct Written {
    pub(crate) book: String,
    pub(crate) id: String,
    pub(crate) stamp: u64,
}

/// A shelf.
#[derive(Debug, Serialize)]
pub(crate) struct Shelf {
    #[serde(rename = "shelf")]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) books: Vec<String>,
}

/// Everything about a book: `show`.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    pub(crate) book: String,
    pub(crate) title: String,
    pub(crate) heads: Vec<String>,
    pub(crate) place: Option<Place>,
    pub(crate) furthest: Option<FurthestPoint>,
    pub(crate) positions: Vec<Place>,
    pub(crate) annotations: Annotations<'a>,
    pub(crate) tags: Vec<String>,
    pub(crate) totals: BTreeMap<String, u64>,
    pub(crate) events: Events,
    pub(crate) journal: String,
}

/// Where a device is.
#[derive(Debug, Serialize)]
pub(crate) struct Place {
    pub(crate) ppm: u32,
    pub(crate) pass: u32,
    pub(crate) intent: &'static str,
    pub(crate) device: String,
    pub(crate) stamp: u64,
    pub(crate) wall_ms: u64,
    pub(crate) locator: Box<RawValue>,
}

impl From<&Entry> for Place {
    fn from(entry: &Entry) -> Self {
        let position = &entry.position;
        Self {
            ppm: position.ppm,
            pass: position.pass,
            intent: position.intent.name(),
            device: entry.device.to_string(),
            stamp: entry.stamp().packed(),
            wall_ms: position.wall_ms,
            locator: raw(&position.locator),
        }
    }
}

/// The furthest point of the present reading.
#[derive(Debug, Serialize)]
pub(crate) struct FurthestPoint {
    pub(crate) ppm: u32,
}

/// Sums over the reading log.
#[derive(Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) count: u64,
    pub(crate) seconds: u64,
}

/// An annotation, deleted or not.
#[derive(Debug, Serialize)]
pub(crate) struct ShownAnnotation {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) quote: String,
    pub(crate) note: Option<String>,
    pub(crate) color: Option<String>,
    pub(crate) deleted: bool,
    pub(crate) ppm: Option<u32>,
    pub(crate) locator: Box<RawValue>,
    pub(crate) stamp: u64,
    pub(crate) device: String,
    /// The fields that devices wrote differently without knowing of each other.
    pub(crate) conflict: Vec<String>,
}

impl From<Annotation> for ShownAnnotation {
    fn from(annotation: Annotation) -> Self {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            id: annotation.id.to_string(),
            kind: annotation.kind.name(),
            quote: annotation.quote,
            note: some(annotation.note),
            color: some(annotation.color),
            deleted: annotation.deleted,
            ppm: annotation.locator.total_ppm().filter(|ppm| *ppm < NO_PLACE_PPM),
            locator: raw(&annotation.locator),
            stamp: annotation.stamp.packed(),
            device: annotation.device,
            conflict: annotation.conflicts,
        }
    }
}

/// The annotations of a book, deleted or not. They are read while they are written, one at a time, so
/// that a book of any size takes the memory of one.
#[derive(Debug)]
pub(crate) struct Annotations<'a>(&'a Book);

impl Annotations<'_> {
    /// Returns those that are not deleted.
    pub(crate) fn kept(&self) -> Result<Vec<ShownAnnotation>, ReadError> {
        let kept = self.0.annotations(WHOLE_BOOK)?;
        Ok(kept.into_iter().map(ShownAnnotation::from).collect())
    }
}

impl Serialize for Annotations<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        let mut written = Ok(());
        let visited = self.0.visit_annotations(WHOLE_BOOK, |one| {
            if written.is_ok() {
                written = list.serialize_element(&ShownAnnotation::from(one));
            }
        });
        visited.map_err(S::Error::custom)?;
        written?;
        list.end()
    }
}

impl<'a> Shown<'a> {
    /// Reads everything about a book but its annotations.
    pub(crate) fn read(book: &'a Book) -> Result<Self, ReadError> {
        let view = book.view()?;
        Ok(Self {
            book: view.book.to_string(),
            title: book.title()?,
            heads: view.heads.iter().map(ToString::to_string).collect(),
            place: view.place.as_ref().map(Place::from),
            furthest: view.furthest.as_ref().map(|point| FurthestPoint { ppm: point.ppm }),
            positions: positions(&view),
            annotations: Annotations(book),
            tags: view.tags,
            totals: view.totals,
            events: Events { count: view.events.count, seconds: view.events.seconds },
            journal: view.journal,
        })
    }
}

fn positions(view: &BookView) -> Vec<Place> {
    view.positions.iter().map(Place::from).collect()
}

/// A line of `history`.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) device: Option<String>,
    pub(crate) stamp: u64,
    pub(crate) wall_ms: u64,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum What {
    Moved { ppm: u32, pass: u32, intent: &'static str, locator: Box<RawValue> },
    Read { from_ppm: u32, to_ppm: u32, pass: u32, seconds: u32, turns: u32 },
    Annotated { id: String, kind: &'static str, quote: String, note: Option<String> },
    Edited { id: String, field: String, value: String },
    Deleted { id: String },
    Undeleted { id: String },
    Tagged { tag: String },
    Untagged { tag: String },
    Described { field: String, value: Value },
    Wrote { operations: usize },
    Other,
}

impl From<HistoryEntry> for Done {
    fn from(entry: HistoryEntry) -> Self {
        Self {
            device: entry.device.map(|device| device.to_string()),
            stamp: entry.stamp.packed(),
            wall_ms: entry.wall_ms,
            what: entry.deed.into(),
        }
    }
}

impl From<Deed> for What {
    fn from(deed: Deed) -> Self {
        match deed {
            Deed::Moved { ppm, pass, intent, locator } => {
                Self::Moved { ppm, pass, intent: intent.name(), locator: raw(&locator) }
            }
            Deed::Read { from_ppm, to_ppm, pass, seconds, turns } => {
                Self::Read { from_ppm, to_ppm, pass, seconds, turns }
            }
            Deed::Annotated { id, kind, quote, note } => {
                Self::Annotated { id: id.to_string(), kind: kind.name(), quote, note }
            }
            Deed::Edited { id, field, value } => Self::Edited { id: id.to_string(), field, value },
            Deed::Deleted { id } => Self::Deleted { id: id.to_string() },
            Deed::Undeleted { id } => Self::Undeleted { id: id.to_string() },
            Deed::Tagged { tag } => Self::Tagged { tag },
            Deed::Untagged { tag } => Self::Untagged { tag },
            Deed::Described { field, value } => Self::Described { field, value },
            Deed::Wrote { operations } => Self::Wrote { operations },
            _ => Self::Other,
        }
    }
}

/// A line of `conflicts`.
#[derive(Debug, Serialize)]
pub(crate) struct Disagreement {
    pub(crate) book: String,
    pub(crate) subject: About,
    pub(crate) sides: Vec<Side>,
    /// Which of the sides counts, from 0.
    pub(crate) winner: usize,
    pub(crate) rule: &'static str,
}

/// What devices disagree about.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum About {
    Place,
    Creation { id: String },
    Field { id: String, field: String },
    Deletion { id: String },
    Metadata { field: String },
    Other,
}

/// What one device wrote.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    pub(crate) device: Option<String>,
    pub(crate) stamp: u64,
    pub(crate) wall_ms: u64,
    pub(crate) value: Value,
}

impl Disagreement {
    /// Makes the JSON of a conflict in a book.
    pub(crate) fn new(book: &Book, conflict: Conflict) -> Self {
        let sides = conflict.sides.into_iter().map(|side| Side {
            device: side.device.map(|device| device.to_string()),
            stamp: side.stamp.packed(),
            wall_ms: side.wall_ms,
            value: side.value,
        });
        Self {
            book: book.id().to_string(),
            subject: conflict.subject.into(),
            sides: sides.collect(),
            winner: conflict.winner,
            rule: conflict.rule.name(),
        }
    }
}

impl From<Subject> for About {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Place => Self::Place,
            Subject::Creation { id } => Self::Creation { id: id.to_string() },
            Subject::Field { id, field } => Self::Field { id: id.to_string(), field },
            Subject::Deletion { id } => Self::Deletion { id: id.to_string() },
            Subject::Metadata { field } => Self::Metadata { field },
            _ => Self::Other,
        }
    }
}

/// The locator word for word. What does not read as JSON was never taken into a library.
fn raw(locator: &Locator) -> Box<RawValue> {
    RawValue::from_string(locator.to_json()).unwrap_or_default()
}

//! Highlights, notes and bookmarks: what is written at creation, what may change later.
//!
//! The creation is immutable; each field that may change is a register of its own, so that a note
//! and a colour written on two devices both arrive. A [`Row`] is everything the log says about one
//! annotation: it is what is read, and it names the predecessors of the next write.

use std::collections::BTreeMap;

use serde_json::{Map, Value, value::RawValue};

use crate::change::{OpId, Scalar};
use crate::hlc::Hlc;
use crate::id::{AnnotationId, DeviceId};
use crate::locator::{Locator, SortKey};
use crate::merge::{Field, Holder};
use crate::schema::DELETED;

/// Longest note that is shown, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 << 10;
/// Longest quoted text that is shown, in bytes.
pub const QUOTE_BYTES_MAX: usize = 16 << 10;

/// What an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A passage that was marked.
    Highlight,
    /// A remark at a place.
    Note,
    /// A place to come back to.
    Bookmark,
}

impl Kind {
    /// Every kind, in the order of their names in documents.
    pub const ALL: [Self; 3] = [Self::Highlight, Self::Note, Self::Bookmark];

    /// Returns the word that stands in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Highlight => "highlight",
            Self::Note => "note",
            Self::Bookmark => "bookmark",
        }
    }

    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What is written when an annotation is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Creation {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub locator: Locator,
    /// The passage, word for word.
    pub quote: String,
    /// Its colour at creation.
    pub color: Option<String>,
    /// Its note at creation.
    pub note: Option<String>,
    /// The device that made it, as text; what another program wrote there is kept.
    pub created_by: String,
    /// Where it was imported from.
    pub source: Option<String>,
    /// Members this release does not know, as JSON text without the braces; empty if there are none.
    pub unknown: String,
}

/// What nearly every creation is: the members this release knows. Keeping unknown members copies
/// every member once more, so that is done only where there are some.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownJson<'a> {
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    loc: &'a RawValue,
    #[serde(default)]
    quote: String,
    color: Option<String>,
    note: Option<String>,
    #[serde(default)]
    created_by: String,
    source: Option<String>,
}

impl<'a> KnownJson<'a> {
    fn read(text: &'a str) -> Option<Self> {
        // A list would be read too, as the members in their order.
        let object = text.trim_ascii_start().starts_with('{');
        if object { serde_json::from_str(text).ok() } else { None }
    }
}

impl<'a> From<KnownJson<'a>> for CreationJson<'a> {
    fn from(known: KnownJson<'a>) -> Self {
        let KnownJson { kind, loc, quote, color, note, created_by, source } = known;
        Self { kind, loc, quote, color, note, created_by, source, unknown: Map::new() }
    }
}

#[derive(serde::Deserialize)]
struct CreationJson<'a> {
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    loc: &'a RawValue,
    #[serde(default)]
    quote: String,
    color: Option<String>,
    note: Option<String>,
    #[serde(default)]
    created_by: String,
    source: Option<String>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Creation {
    /// Reads the value of a creation; `None` for what this release cannot show.
    ///
    /// Such a value is kept and synced all the same.
    pub fn from_json(text: &str) -> Option<Self> {
        let json: CreationJson<'_> = match KnownJson::read(text) {
            Some(known) => known.into(),
            None => serde_json::from_str(text).ok()?,
        };
        let note_fits = json.note.as_ref().is_none_or(|note| note.len() <= NOTE_BYTES_MAX);
        if QUOTE_BYTES_MAX < json.quote.len() || !note_fits {
            return None;
        }
        let unknown = if json.unknown.is_empty() {
            String::new()
        } else {
            let text = Value::Object(json.unknown).to_string();
            text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned()
        };
        Some(Self {
            kind: Kind::from_name(&json.kind)?,
            locator: Locator::stored(json.loc.get().to_owned()),
            quote: json.quote,
            color: json.color,
            note: json.note,
            created_by: json.created_by,
            source: json.source,
            unknown,
        })
    }

    /// Writes the value of a creation.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(160 + self.quote.len());
        let text = |text: &str| Value::from(text).to_string();
        out.push_str("{\"kind\":");
        out.push_str(&text(self.kind.name()));
        out.push_str(",\"loc\":");
        out.push_str(self.locator.as_json());
        out.push_str(",\"quote\":");
        out.push_str(&text(&self.quote));
        let optional = [("color", &self.color), ("note", &self.note), ("source", &self.source)];
        for (name, value) in optional {
            if let Some(value) = value {
                for part in [",\"", name, "\":", &text(value)] {
                    out.push_str(part);
                }
            }
        }
        out.push_str(",\"created_by\":");
        out.push_str(&text(&self.created_by));
        if !self.unknown.is_empty() {
            out.push(',');
            out.push_str(&self.unknown);
        }
        out.push('}');
        out
    }

    /// Returns whether two imports of one annotation differ in what a person would notice.
    fn differs_from(&self, other: &Self) -> bool {
        (self.kind, self.locator.as_json(), &self.quote, &self.note)
            != (other.kind, other.locator.as_json(), &other.quote, &other.note)
    }
}

/// A field of an annotation that may change after its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnotationField {
    /// The colour.
    Color,
    /// The note.
    Note,
    /// How it is drawn.
    Style,
    /// A better locator found later.
    Locator,
}

impl AnnotationField {
    /// Returns the name that stands in the key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Color => "color",
            Self::Note => "note",
            Self::Style => "style",
            Self::Locator => "loc",
        }
    }
}

/// A write of an annotation's own key.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The operation.
    pub op: OpId,
    /// The stamp of its change.
    pub stamp: Hlc,
    /// What it wrote, or the raw value where this release cannot show it.
    pub creation: Result<Creation, Scalar>,
}

/// Everything the log says about one annotation.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which annotation.
    pub id: AnnotationId,
    /// Who wrote its key, ascending by operation. More than one: the same import on two devices.
    pub created: Vec<Created>,
    /// The fields written after creation, by name, with their holders.
    pub fields: BTreeMap<String, Field>,
}

impl Row {
    /// Makes the row of an annotation nothing is known of yet.
    pub fn new(id: AnnotationId) -> Self {
        Self { id, created: Vec::new(), fields: BTreeMap::new() }
    }

    /// Returns whether nothing holds any part of it.
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.fields.values().all(Field::is_empty)
    }

    /// Takes a write of the annotation's own key.
    pub fn put_created(&mut self, holder: Holder) {
        let Err(place) = self.created.binary_search_by_key(&holder.op, |held| held.op) else {
            return;
        };
        let parsed = holder.value.as_text().and_then(Creation::from_json);
        let creation = parsed.ok_or(holder.value);
        let created = Created { op: holder.op, stamp: holder.stamp, creation };
        self.created.insert(place, created);
    }

    /// Returns the creation that counts: of those that can be shown, the oldest with a valid stamp.
    pub fn creation(&self) -> Option<(&Created, &Creation)> {
        let shown = self.created.iter().filter_map(|created| {
            created.creation.as_ref().ok().map(|creation| (created, creation))
        });
        shown.min_by_key(|(created, _)| {
            (created.stamp == Hlc::ZERO, created.stamp, created.op.counter, created.op.actor)
        })
    }

    /// Returns a field by name, if anything ever wrote it after creation.
    pub fn field(&self, field: AnnotationField) -> Option<&Field> {
        self.fields.get(field.name()).filter(|field| !field.is_empty())
    }

    /// Returns the locator that counts: the better one found later, or the first.
    pub fn locator(&self) -> Option<Locator> {
        let later = self.field(AnnotationField::Locator).and_then(Field::latest);
        match later.and_then(|holder| holder.value.as_text()) {
            Some(text) if serde_json::from_str::<&RawValue>(text).is_ok() => {
                Some(Locator::stored(text.to_owned()))
            }
            _ => self.creation().map(|(_, creation)| creation.locator.clone()),
        }
    }

    /// Returns where the row stands in reading order.
    pub fn sort_key(&self) -> SortKey {
        self.locator().unwrap_or_default().sort_key()
    }

    /// Returns whether it is deleted.
    pub fn is_deleted(&self) -> bool {
        self.fields.get(DELETED).is_some_and(Field::is_deleted)
    }

    /// Returns what a person sees of it, or `None` if no creation of it can be shown.
    pub fn annotation(&self) -> Option<Annotation> {
        let (created, creation) = self.creation()?;
        let text = |field, first: &Option<String>| match self.field(field).and_then(Field::latest) {
            None => first.clone(),
            Some(holder) => {
                let text = holder.value.as_text().filter(|text| text.len() <= NOTE_BYTES_MAX);
                text.map(str::to_owned)
            }
        };
        Some(Annotation {
            id: self.id,
            kind: creation.kind,
            quote: creation.quote.clone(),
            note: text(AnnotationField::Note, &creation.note),
            color: text(AnnotationField::Color, &creation.color),
            style: text(AnnotationField::Style, &None),
            locator: self.locator().unwrap_or_default(),
            stamp: self.stamp(created),
            device: creation.created_by.clone(),
            source: creation.source.clone(),
            deleted: self.is_deleted(),
            edited_while_deleted: self
                .fields
                .get(DELETED)
                .is_some_and(Field::is_edited_while_deleted),
            conflicts: self.conflicts(),
        })
    }

    /// Returns what a person sees of it, as [`annotation`](Self::annotation), without copying the texts
    /// of a row that nobody has written since its creation: nearly every row.
    pub fn into_annotation(mut self) -> Option<Annotation> {
        if !self.fields.is_empty() || self.created.len() != 1 {
            return self.annotation();
        }
        let created = self.created.pop()?;
        let creation = created.creation.ok()?;
        Some(Annotation::created(self.id, created.stamp, creation))
    }

    fn stamp(&self, created: &Created) -> Hlc {
        let fields = self.fields.values().filter_map(Field::latest).map(|holder| holder.stamp);
        fields.fold(created.stamp, Hlc::max)
    }

    /// Returns the names of the fields whose writers did not know each other and differ.
    fn conflicts(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut shown = self.created.iter().filter_map(|created| created.creation.as_ref().ok());
        if let Some(first) = shown.next()
            && shown.any(|other| first.differs_from(other))
        {
            names.push("created".to_owned());
        }
        let fields = self.fields.iter().filter(|(name, field)| {
            if name.as_str() == DELETED {
                return field.is_edited_while_deleted();
            }
            let mut values = field.holders().iter().map(|holder| &holder.value);
            let first = values.next();
            values.any(|other| Some(other) != first)
        });
        names.extend(fields.map(|(name, _)| name.clone()));
        names
    }
}

/// What a person sees of an annotation.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// Which one.
    pub id: AnnotationId,
    /// What it is.
    pub kind: Kind,
    /// The passage, word for word.
    pub quote: String,
    /// The note that counts.
    pub note: Option<String>,
    /// The colour that counts.
    pub color: Option<String>,
    /// The style that counts.
    pub style: Option<String>,
    /// Where it is.
    pub locator: Locator,
    /// The latest write of any part of it.
    pub stamp: Hlc,
    /// The device that made it, as text.
    pub device: String,
    /// Where it was imported from.
    pub source: Option<String>,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Whether it was edited and deleted by devices that did not know of each other.
    pub edited_while_deleted: bool,
    /// The fields that devices wrote differently without knowing of each other.
    pub conflicts: Vec<String>,
}

impl Annotation {
    /// Returns what a person sees of an annotation that nobody has written since its creation.
    pub fn created(id: AnnotationId, stamp: Hlc, creation: Creation) -> Self {
        Self {
            id,
            kind: creation.kind,
            quote: creation.quote,
            note: creation.note,
            color: creation.color,
            style: None,
            locator: creation.locator,
            stamp,
            device: creation.created_by,
            source: creation.source,
            deleted: false,
            edited_while_deleted: false,
            conflicts: Vec::new(),
        }
    }

    /// Returns the device that made it, if that is a device of ours.
    pub fn device(&self) -> Option<DeviceId> {
        self.device.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActorId;

    fn creation(quote: &str) -> Creation {
        Creation {
            kind: Kind::Highlight,
            locator: Locator::new().with_total_ppm(7),
            quote: quote.to_owned(),
            color: Some("yellow".to_owned()),
            note: None,
            created_by: DeviceId([1; 16]).to_string(),
            source: None,
            unknown: String::new(),
        }
    }

    fn put(row: &mut Row, counter: u64, stamp: u64, text: &str) {
        row.put_created(Holder {
            op: OpId { counter, actor: ActorId([1; 16]) },
            stamp: Hlc::from_packed(stamp).unwrap(),
            value: Scalar::Text(text.to_owned()),
        });
    }

    #[test]
    fn members_this_release_does_not_know_survive_a_round_trip() {
        let text = r#"{"kind":"note","loc":{"cfi":"epubcfi(/6/4)","x":[1.50]},"quote":"a \"b\"",
            "created_by":"me","mood":{"a":1},"stars":5}"#;
        let creation = Creation::from_json(text).unwrap();
        assert_eq!(creation.unknown, r#""mood":{"a":1},"stars":5"#);
        assert_eq!(creation.locator.as_json(), r#"{"cfi":"epubcfi(/6/4)","x":[1.50]}"#);
        assert_eq!(Creation::from_json(&creation.to_json()), Some(creation));
    }

    #[test]
    fn of_two_imports_the_oldest_counts_and_they_conflict_only_where_they_differ() {
        let mut row = Row::new(AnnotationId([1; 16]));
        put(&mut row, 5, 0, &creation("invalid stamp").to_json());
        put(&mut row, 3, 20, &creation("later").to_json());
        put(&mut row, 4, 10, &creation("older").to_json());
        let shown = row.annotation().unwrap();
        assert_eq!(shown.quote, "older");
        assert_eq!(shown.conflicts, ["created"]);

        let mut row = Row::new(AnnotationId([1; 16]));
        put(&mut row, 3, 20, &creation("same").to_json());
        put(&mut row, 4, 10, &creation("same").to_json());
        assert_eq!(row.annotation().unwrap().conflicts, Vec::<String>::new());
    }

    #[test]
    fn a_row_that_is_taken_apart_shows_what_it_showed_before() {
        let id = AnnotationId([1; 16]);
        let mut row = Row::new(id);
        assert_eq!(row.clone().into_annotation(), None);
        put(&mut row, 3, 20, &creation("first").to_json());
        assert_eq!(row.clone().into_annotation(), row.annotation());
        assert_eq!(row.annotation().unwrap().quote, "first");

        let mut imported = row.clone();
        put(&mut imported, 4, 10, &creation("older").to_json());
        assert_eq!(imported.clone().into_annotation(), imported.annotation());

        let mut note = Field::default();
        let op = OpId { counter: 9, actor: ActorId([1; 16]) };
        let stamp = Hlc::from_packed(30).unwrap();
        note.put(Holder { op, stamp, value: Scalar::Text("a thought".to_owned()) });
        row.fields.insert("note".to_owned(), note);
        assert_eq!(row.annotation().unwrap().note.as_deref(), Some("a thought"));
        assert_eq!(row.clone().into_annotation(), row.annotation());
    }

    #[test]
    fn a_member_that_is_written_twice_makes_no_creation() {
        let twice = r#"{"kind":"note","loc":{},"quote":"a","quote":"b","created_by":"me"}"#;
        assert_eq!(Creation::from_json(twice), None);
        let unknown_too = r#"{"kind":"note","loc":{},"quote":"a","quote":"b","stars":5}"#;
        assert_eq!(Creation::from_json(unknown_too), None);
        assert_eq!(Creation::from_json(r#"["note",{},"quote",null,null,"me",null]"#), None);
    }

    #[test]
    fn a_creation_that_cannot_be_shown_is_kept() {
        let mut row = Row::new(AnnotationId([1; 16]));
        put(&mut row, 1, 1, r#"{"kind":"hologram","loc":{}}"#);
        assert_eq!(row.annotation(), None);
        assert!(!row.is_empty());
    }
}

//! What an application says when it makes or changes an annotation.

use catchword_model::annotation::{Annotation, AnnotationField, Creation, Kind};
use catchword_model::edit::Edit;
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, DeviceId};
use catchword_model::locator::Locator;

/// An annotation to be made.
///
/// # Examples
///
/// ```
/// use catchword::{Locator, NewAnnotation};
///
/// let place = Locator::new().with_total_ppm(1_200);
/// let new = NewAnnotation::highlight("Call me Ishmael.").at(place).with_note("the best opening");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NewAnnotation {
    kind: Kind,
    locator: Locator,
    quote: String,
    color: Option<String>,
    note: Option<String>,
    source: Option<String>,
}

impl NewAnnotation {
    /// Makes an annotation of a kind, with the passage word for word.
    pub fn new(kind: Kind, quote: impl Into<String>) -> Self {
        Self {
            kind,
            locator: Locator::new(),
            quote: quote.into(),
            color: None,
            note: None,
            source: None,
        }
    }

    /// Marks a passage.
    pub fn highlight(quote: impl Into<String>) -> Self {
        Self::new(Kind::Highlight, quote)
    }

    /// Remarks on a place.
    pub fn note(note: impl Into<String>) -> Self {
        Self::new(Kind::Note, "").with_note(note)
    }

    /// Says where it is. Without a place, or without `total_ppm` in it, it stands last.
    #[must_use]
    pub fn at(mut self, locator: Locator) -> Self {
        self.locator = locator;
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Gives it a colour.
    #[must_use]
    pub fn with_color(mut self, color: impl Into<String>) -> Self {
        self.color = Some(color.into());
        self
    }

    /// Says which program it came from.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn locator(&self) -> &Locator {
        &self.locator
    }

    pub(crate) fn into_creation(self, device: DeviceId) -> Creation {
        Creation {
            kind: self.kind,
            locator: self.locator,
            quote: self.quote,
            color: self.color,
            note: self.note,
            created_by: device.to_string(),
            source: self.source,
            unknown: String::new(),
        }
    }
}

/// What changes about an annotation; what is not named stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnnotationEdit {
    note: Option<String>,
    color: Option<String>,
    style: Option<String>,
    locator: Option<Locator>,
}

impl AnnotationEdit {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the note; an empty one clears it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Replaces the colour.
    #[must_use]
    pub fn color(mut self, color: impl Into<String>) -> Self {
        self.color = Some(color.into());
        self
    }

    /// Replaces the style.
    #[must_use]
    pub fn style(mut self, style: impl Into<String>) -> Self {
        self.style = Some(style.into());
        self
    }

    /// Gives a better locator. The first one stays readable in the history.
    #[must_use]
    pub fn locator(mut self, locator: Locator) -> Self {
        self.locator = Some(locator);
        self
    }

    pub(crate) fn new_locator(&self) -> Option<&Locator> {
        self.locator.as_ref()
    }

    /// Returns the edits this asks for, and those that bring back what `before` shows.
    pub(crate) fn edits(&self, before: &Annotation) -> (Vec<Edit>, Vec<Edit>) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let fields = [
            (AnnotationField::Note, self.note.clone(), text(&before.note)),
            (AnnotationField::Color, self.color.clone(), text(&before.color)),
            (AnnotationField::Style, self.style.clone(), text(&before.style)),
            (
                AnnotationField::Locator,
                self.locator.as_ref().map(Locator::to_json),
                before.locator.to_json(),
            ),
        ];
        let set = |field, value| Edit::SetField { id: before.id, field, value };
        fields
            .into_iter()
            .filter_map(|(field, new, old)| Some((set(field, new?), set(field, old))))
            .unzip()
    }
}

/// The receipt of an annotation that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotated {
    /// Its id.
    pub id: AnnotationId,
    /// The stamp of the write.
    pub stamp: Hlc,
}

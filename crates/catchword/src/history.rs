//! Who did what in a book: read from its log and its reading events, without a document.

use std::collections::BTreeMap;

use catchword_model::annotation::{Creation, Kind};
use catchword_model::change::{Action, Change, Key, Op, Scalar};
use catchword_model::event::ReadingEvent;
use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, AnnotationId, DeviceId};
use catchword_model::locator::Locator;
use catchword_model::meta::Meta;
use catchword_model::position::{Intent, Position};
use catchword_model::schema::{Container, DELETED, DocumentKind, RecordKey, record_key};
use serde_json::Value;

use crate::book::Book;
use crate::error::ReadError;

/// Something that was done in a book.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// Who did it; `None` where the log names nobody.
    pub device: Option<DeviceId>,
    /// When, in the order of all devices.
    pub stamp: Hlc,
    /// When, by the clock of that device, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// What.
    pub deed: Deed,
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Deed {
    /// The device's place moved.
    Moved {
        /// To where, in parts per million.
        ppm: u32,
        /// In which reading of the book.
        pass: u32,
        /// Why.
        intent: Intent,
        /// To where, exactly: what a session may return to.
        locator: Locator,
    },
    /// Somebody read.
    Read {
        /// From where, in parts per million.
        from_ppm: u32,
        /// To where, in parts per million.
        to_ppm: u32,
        /// In which reading of the book.
        pass: u32,
        /// How long, in seconds.
        seconds: u32,
        /// How many pages were turned.
        turns: u32,
    },
    /// An annotation was made.
    Annotated {
        /// Which one.
        id: AnnotationId,
        /// What it is.
        kind: Kind,
        /// The passage.
        quote: String,
        /// The note it was made with.
        note: Option<String>,
    },
    /// A field of an annotation was written.
    Edited {
        /// Which annotation.
        id: AnnotationId,
        /// Which field.
        field: String,
        /// What was written, as text.
        value: String,
    },
    /// An annotation was deleted.
    Deleted {
        /// Which one.
        id: AnnotationId,
    },
    /// An annotation was brought back.
    Undeleted {
        /// Which one.
        id: AnnotationId,
    },
    /// A tag was put on the book.
    Tagged {
        /// The tag.
        tag: String,
    },
    /// A tag was taken off the book.
    Untagged {
        /// The tag.
        tag: String,
    },
    /// Something was said about the book.
    Described {
        /// Which field: title, authors, ….
        field: String,
        /// What it was said to be.
        value: Value,
    },
    /// The journal or the application's own data were written.
    Wrote {
        /// How many operations it took.
        operations: usize,
    },
}

impl Book {
    /// Returns everything that was done in the book, oldest first, as far as this release can tell.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn history(&self) -> Result<Vec<HistoryEntry>, ReadError> {
        let mut collector = Collector::default();
        let store = &self.core().store;
        let book = self.id().document();
        store.changes(book, |change| collector.book_change(&change)).map_err(ReadError::store)?;
        let notes = self.id().notes_document();
        if store.heads(notes).map_err(ReadError::store)?.is_some() {
            let read = store.changes(notes, |change| collector.notes_change(&change));
            read.map_err(ReadError::store)?;
        }
        let mut events = Vec::new();
        store.events(self.id(), |event| events.push(event)).map_err(ReadError::store)?;
        for event in &events {
            if !collector.devices.contains_key(&event.actor)
                && let Some(device) = store.writer(book, event.actor).map_err(ReadError::store)?
            {
                collector.devices.insert(event.actor, device);
            }
            collector.event(event);
        }
        let mut entries = collector.entries;
        entries.sort_by_key(|(order, _)| *order);
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }
}

/// Where an entry stands: stamp, then operation counter, then actor.
type Order = (Hlc, u64, ActorId);

#[derive(Default)]
struct Collector {
    devices: BTreeMap<ActorId, DeviceId>,
    entries: Vec<(Order, HistoryEntry)>,
}

impl Collector {
    /// The first change of an actor names its author.
    fn meet(&mut self, change: &Change) {
        if let Some(author) = change.author {
            self.devices.insert(change.actor, author.device);
        }
    }

    fn add(&mut self, actor: ActorId, counter: u64, stamp: Hlc, wall_ms: u64, deed: Deed) {
        let device = self.devices.get(&actor).copied();
        let entry = HistoryEntry { device, stamp, wall_ms, deed };
        self.entries.push(((stamp, counter, actor), entry));
    }

    fn book_change(&mut self, change: &Change) {
        self.meet(change);
        let stamp = Hlc::of_change(change.time);
        let mut deeds: Vec<(u64, Deed)> = Vec::new();
        for (id, op) in change.ops_with_ids() {
            let container = DocumentKind::Book.container(op.object);
            if let (Some(container), Key::Map(key)) = (container, &op.key)
                && let Some(deed) = book_deed(container, key, op)
            {
                deeds.push((id.counter, deed));
            }
        }
        let edited: Vec<AnnotationId> =
            deeds.iter().filter_map(|(_, deed)| edited_annotation(deed)).collect();
        for (counter, deed) in deeds {
            // Every edit says "kept" beside what it writes; alone that is an undeletion.
            if !matches!(&deed, Deed::Undeleted { id } if edited.contains(id)) {
                self.add(change.actor, counter, stamp, stamp.wall_ms(), deed);
            }
        }
    }

    fn notes_change(&mut self, change: &Change) {
        self.meet(change);
        if self.devices.contains_key(&change.actor) {
            let stamp = Hlc::of_change(change.time);
            let deed = Deed::Wrote { operations: change.ops_with_ids().count() };
            self.add(change.actor, change.max_op(), stamp, stamp.wall_ms(), deed);
        }
    }

    fn event(&mut self, event: &ReadingEvent) {
        let deed = Deed::Read {
            from_ppm: event.from_ppm,
            to_ppm: event.to_ppm,
            pass: event.pass,
            seconds: event.seconds,
            turns: event.turns,
        };
        self.add(event.actor, u64::MAX, event.stamp, event.wall_ms, deed);
    }
}

fn edited_annotation(deed: &Deed) -> Option<AnnotationId> {
    match deed {
        Deed::Edited { id, .. } => Some(*id),
        Deed::Moved { .. }
        | Deed::Read { .. }
        | Deed::Annotated { .. }
        | Deed::Deleted { .. }
        | Deed::Undeleted { .. }
        | Deed::Tagged { .. }
        | Deed::Untagged { .. }
        | Deed::Described { .. }
        | Deed::Wrote { .. } => None,
    }
}

/// Returns what an operation on a register of a book did, if people would call it something.
fn book_deed(container: Container, key: &str, op: &Op) -> Option<Deed> {
    let value = match &op.action {
        Action::Put(value) => Some(value),
        Action::Delete => None,
        Action::MakeMap
        | Action::MakeList
        | Action::MakeText
        | Action::MakeTable
        | Action::Increment(_)
        | Action::Mark { .. } => return None,
    };
    match container {
        Container::Positions => {
            let place = Position::from_json(value?.as_text()?)?;
            let Position { ppm, pass, intent, locator, .. } = place;
            Some(Deed::Moved { ppm, pass, intent, locator })
        }
        Container::Annotations => annotation_deed(key, value?),
        Container::Tags => {
            let tag = key.to_owned();
            Some(if value.is_some() { Deed::Tagged { tag } } else { Deed::Untagged { tag } })
        }
        Container::Meta => {
            let meta = Meta::from_json(value?.as_text()?)?;
            Some(Deed::Described { field: key.to_owned(), value: meta.value })
        }
        // What a page turn writes besides the place, and what is about other devices.
        Container::Furthest
        | Container::Withdrawn
        | Container::Totals
        // Of the library document.
        | Container::Devices
        | Container::Shelves
        | Container::Members
        | Container::Aliases
        | Container::Joins
        | Container::Apart
        | Container::Holds
        | Container::App => None,
    }
}

fn annotation_deed(key: &str, value: &Scalar) -> Option<Deed> {
    match record_key::<AnnotationId>(key)? {
        RecordKey::Record(id) => {
            let Creation { kind, quote, note, .. } = Creation::from_json(value.as_text()?)?;
            Some(Deed::Annotated { id, kind, quote, note })
        }
        RecordKey::Field(id, DELETED) => match value.as_int()? {
            0 => None,
            stamp if 0 < stamp => Some(Deed::Deleted { id }),
            _ => Some(Deed::Undeleted { id }),
        },
        RecordKey::Field(id, field) => {
            let value = value.as_text().map_or_else(|| format!("{value:?}"), str::to_owned);
            Some(Deed::Edited { id, field: field.to_owned(), value })
        }
    }
}

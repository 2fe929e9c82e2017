//! What people read with SQL, made of changes: no database.
//!
//! # Invariants
//!
//! 1. A row shows what a device shows: both read it by [`Row`] and [`meta`], from the same holders.
//! 2. A row is a function of the set of changes that were applied, each behind what it builds on.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::annotation::{Annotation, Row};
use catchword_model::change::{Action, Change, Key};
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, BookId};
use catchword_model::merge::{Field, Holder};
use catchword_model::meta::meta;
use catchword_model::schema::{Container, DocumentKind, RecordKey, record_key};
use serde_json::Value;

use crate::ledger::{pack_holders, unpack_holders};

/// The field of `meta` that names a book.
const TITLE: &str = "title";
/// Stands for an annotation's own key among the names of its fields; no field has it.
const OWN_KEY: &str = "";

/// The registers of one record, by name.
pub(crate) type State = BTreeMap<String, Field>;

/// One record that changes write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A book: its title.
    Book(BookId),
    /// An annotation.
    Annotation(BookId, AnnotationId),
}

/// Changes of books, and the records that they write.
#[derive(Debug, Default)]
pub(crate) struct Projection {
    changes: Vec<(BookId, Change)>,
    states: BTreeMap<Subject, State>,
    written: BTreeSet<Subject>,
}

impl Projection {
    /// Takes a change that is to be applied.
    pub(crate) fn add(&mut self, book: BookId, change: Change) {
        self.states.entry(Subject::Book(book)).or_default();
        let subjects = writes(book, &change).map(|write| write.subject);
        self.states.extend(subjects.map(|subject| (subject, State::new())));
        self.changes.push((book, change));
    }

    /// Returns the books of which there are changes.
    pub(crate) fn books(&self) -> Vec<BookId> {
        let book = |subject: &Subject| match subject {
            Subject::Book(book) => Some(*book),
            Subject::Annotation(..) => None,
        };
        self.states.keys().filter_map(book).collect()
    }

    /// Returns the annotations that are written.
    pub(crate) fn annotations(&self) -> Vec<(BookId, AnnotationId)> {
        let annotation = |subject: &Subject| match subject {
            Subject::Annotation(book, id) => Some((*book, *id)),
            Subject::Book(_) => None,
        };
        self.states.keys().filter_map(annotation).collect()
    }

    /// Sets what was kept of a record. What does not read holds nothing.
    pub(crate) fn load(&mut self, subject: Subject, packed: &[u8]) {
        self.states.insert(subject, unpack(packed).unwrap_or_default());
    }

    /// Applies every change, in the order in which they were taken.
    pub(crate) fn apply(&mut self) {
        for (book, change) in &self.changes {
            let stamp = Hlc::of_change(change.time);
            for write in writes(*book, change) {
                let state = self.states.entry(write.subject).or_default();
                let field = state.entry(write.field.to_owned()).or_default();
                field.supersede(&write.op.predecessors);
                if let Action::Put(value) = &write.op.action {
                    field.put(Holder { op: write.id, stamp, value: value.clone() });
                }
                self.written.insert(write.subject);
            }
        }
    }

    /// Returns every annotation that was written, with what is kept of it.
    pub(crate) fn written(&self) -> impl Iterator<Item = (BookId, AnnotationId, &State)> {
        self.written.iter().filter_map(|subject| match subject {
            Subject::Annotation(book, id) => Some((*book, *id, self.states.get(subject)?)),
            Subject::Book(_) => None,
        })
    }

    /// Returns what is kept of a book.
    pub(crate) fn book(&self, book: BookId) -> Option<&State> {
        self.states.get(&Subject::Book(book))
    }
}

struct Write<'a> {
    subject: Subject,
    field: &'a str,
    id: catchword_model::change::OpId,
    op: &'a catchword_model::change::Op,
}

fn writes(book: BookId, change: &Change) -> impl Iterator<Item = Write<'_>> {
    change.ops_with_ids().filter_map(move |(id, op)| {
        let Key::Map(key) = &op.key else { return None };
        let container = DocumentKind::Book.container(op.object)?;
        let (subject, field) = match container {
            Container::Annotations => match record_key(key)? {
                RecordKey::Record(id) => (Subject::Annotation(book, id), OWN_KEY),
                RecordKey::Field(id, name) => (Subject::Annotation(book, id), name),
            },
            Container::Meta if key == TITLE => (Subject::Book(book), TITLE),
            Container::Meta
            | Container::Positions
            | Container::Furthest
            | Container::Withdrawn
            | Container::Tags
            | Container::Totals
            | Container::Devices
            | Container::Shelves
            | Container::Members
            | Container::Aliases
            | Container::Joins
            | Container::Apart
            | Container::Holds
            | Container::App => return None,
        };
        Some(Write { subject, field, id, op })
    })
}

/// Returns what a person sees of an annotation, if devices show it.
pub(crate) fn shown(id: AnnotationId, state: &State) -> Option<Annotation> {
    let mut row = Row::new(id);
    for (name, field) in state {
        if name == OWN_KEY {
            field.holders().iter().cloned().for_each(|holder| row.put_created(holder));
        } else {
            row.fields.insert(name.clone(), field.clone());
        }
    }
    row.annotation()
}

/// Returns the title that counts.
pub(crate) fn title(state: &State) -> Option<String> {
    match meta(state.get(TITLE)?)?.value {
        Value::String(title) => Some(title),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

/// Each field: the length of its name (u32), its name, the length of its holders (u32), its holders.
pub(crate) fn pack(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, field) in state {
        for part in [name.as_bytes(), &pack_holders(field.holders())] {
            out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

fn unpack(mut rest: &[u8]) -> Option<State> {
    let mut state = State::new();
    while !rest.is_empty() {
        let name = str::from_utf8(part(&mut rest)?).ok()?.to_owned();
        let holders = unpack_holders(part(&mut rest)?)?;
        state.insert(name, Field::from_holders(holders));
    }
    Some(state)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (part, tail) = tail.split_at_checked(length)?;
    *rest = tail;
    Some(part)
}

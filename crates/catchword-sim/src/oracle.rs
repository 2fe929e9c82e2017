//! What must hold of the changes a store keeps: the plain reference and Automerge agree with it.
//!
//! # Invariants
//!
//! 1. The log is whole: each change is admitted after those before it.
//! 2. Heads and registers are what [`History`] makes of the same changes, and what the automerge
//!    crate makes of them; rows are read by the same rules.
//! 3. No writer has two changes, or two events, of one number, on whichever device.
//!
//! # What is not here
//!
//! Whether what was acknowledged is there: see [`memory`](crate::memory).

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use catchword_model::annotation::{Creation, Row};
use catchword_model::change::past::Judgement;
use catchword_model::change::{Change, Scalar};
use catchword_model::history::History;
use catchword_model::id::{ActorId, AnnotationId, BookId, ChangeHash, DocumentId, EventHash};
use catchword_model::merge::Field;
use catchword_model::oracle;
use catchword_model::schema::{Container, DocumentKind, RecordKey, record_key};
use catchword_store::Store;

use crate::memory::difference;

/// Every register of a document that something holds.
pub type Registers = BTreeMap<(Container, String), Field>;

/// Who wrote what under which number, over all devices and all times.
#[derive(Debug, Default)]
pub struct Ledger {
    changes: BTreeMap<(DocumentId, ActorId, u64), ChangeHash>,
    events: BTreeMap<(BookId, ActorId, u64), EventHash>,
}

impl Ledger {
    /// Notes every change and event of a book, and fails if a number has been used for another one.
    ///
    /// # Errors
    ///
    /// Invariant 3 is broken, or the store could not be read.
    pub fn note(&mut self, store: &Store, book: BookId) -> anyhow::Result<()> {
        let mut forks = Vec::new();
        store.changes(book.document(), |change| {
            let place = (book.document(), change.actor, change.seq);
            if *self.changes.entry(place).or_insert(change.hash()) != change.hash() {
                forks.push(format!("change {} of {}", change.seq, change.actor));
            }
        })?;
        store.events(book, |event| {
            let place = (book, event.actor, event.n);
            if *self.events.entry(place).or_insert(event.hash()) != event.hash() {
                forks.push(format!("event {} of {}", event.n, event.actor));
            }
        })?;
        ensure!(forks.is_empty(), "a number was used twice: {forks:?}");
        Ok(())
    }

    /// Returns how many changes were noted.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }
}

/// Returns the changes of a document in the order in which they became durable.
///
/// # Errors
///
/// What the store could not read.
pub fn changes(store: &Store, document: DocumentId) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::new();
    store.changes(document, |change| changes.push(change))?;
    Ok(changes)
}

/// Holds a book against the plain reference and against Automerge, and returns its registers.
///
/// # Errors
///
/// Invariant 1 or 2 is broken, or the store could not be read.
pub fn check(store: &Store, book: BookId) -> anyhow::Result<Registers> {
    let changes = changes(store, book.document())?;
    let mut history = History::new(DocumentKind::Book, book.document());
    for change in &changes {
        let judgement = history.admit(change.clone());
        ensure!(judgement == Judgement::Admitted, "{} in the log: {judgement:?}", change.hash());
    }
    let heads = store.heads(book.document())?.context("the book has no document")?;
    ensure!(history.heads() == heads, "heads are {heads:?}, not {:?}", history.heads());
    let registers = registers(&history);
    let theirs = oracle::registers(DocumentKind::Book, changes.iter().map(Change::bytes))?;
    ensure!(theirs.heads == heads, "automerge has the heads {:?}, not {heads:?}", theirs.heads);
    let differs = || difference(&theirs.fields, &registers);
    ensure!(theirs.fields == registers, "automerge holds other registers: {}", differs());
    check_fields(store, book, &registers)?;
    check_rows(store, book, &registers)?;
    Ok(registers)
}

/// Returns every register of the reference that something holds.
fn registers(history: &History) -> Registers {
    let held = history.fields().iter().filter(|(_, field)| !field.is_empty());
    held.filter_map(|((object, key), field)| {
        let container = DocumentKind::Book.container(*object)?;
        Some(((container, key.clone()), field.clone()))
    })
    .collect()
}

fn check_fields(store: &Store, book: BookId, expected: &Registers) -> anyhow::Result<()> {
    let mut found = Registers::new();
    for container in Container::BOOK {
        if container == Container::Annotations {
            continue;
        }
        for (key, field) in store.fields(book.document(), container)? {
            found.insert((container, key), field);
        }
    }
    let mut expected = expected.clone();
    expected.retain(|(container, _), _| *container != Container::Annotations);
    ensure!(found == expected, "other registers: {}", difference(&found, &expected));
    Ok(())
}

fn check_rows(store: &Store, book: BookId, expected: &Registers) -> anyhow::Result<()> {
    let mut found = Registers::new();
    let mut shown = Vec::new();
    store.rows(book, 0, u32::MAX, |row| shown.push(row))?;
    for row in &shown {
        found.extend(row.fields.iter().filter(|(_, field)| !field.is_empty()).map(
            |(name, field)| ((Container::Annotations, format!("{}/{name}", row.id)), field.clone()),
        ));
        check_creation(row, expected)?;
    }
    let fields = expected.iter().filter(|((container, key), _)| {
        *container == Container::Annotations
            && matches!(record_key(key), Some(RecordKey::<'_, AnnotationId>::Field(..)))
    });
    let fields: Registers = fields.map(|(key, field)| (key.clone(), field.clone())).collect();
    ensure!(found == fields, "rows hold other registers: {}", difference(&found, &fields));
    let created = expected.keys().filter(|(container, key)| {
        *container == Container::Annotations
            && matches!(record_key(key), Some(RecordKey::<'_, AnnotationId>::Record(..)))
    });
    let (rows, created) = (shown.iter().filter(|r| !r.created.is_empty()).count(), created.count());
    ensure!(rows == created, "{rows} annotations are listed, not {created}");
    Ok(())
}

fn check_creation(row: &Row, expected: &Registers) -> anyhow::Result<()> {
    let key = (Container::Annotations, row.id.to_string());
    let holders = expected.get(&key).map_or(&[][..], Field::holders);
    let creation = |value: &Scalar| value.as_text().and_then(Creation::from_json);
    let expected: Vec<_> =
        holders.iter().map(|holder| (holder.op, holder.stamp, creation(&holder.value))).collect();
    let found: Vec<_> = row
        .created
        .iter()
        .map(|created| (created.op, created.stamp, created.creation.clone().ok()))
        .collect();
    ensure!(found == expected, "annotation {} was made by {found:#?}, not {expected:#?}", row.id);
    Ok(())
}

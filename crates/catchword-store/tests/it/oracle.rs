//! After any sequence of actions of several devices, applied in every causal order tried, heads and
//! rows are equal, and equal to what the plain reference makes of the same changes.

use std::collections::BTreeMap;

use catchword_model::annotation::Row;
use catchword_model::change::past::Judgement;
use catchword_model::change::{Change, Object};
use catchword_model::genesis::genesis;
use catchword_model::history::History;
use catchword_model::merge::Field;
use catchword_model::schema::{Container, DocumentKind};
use catchword_store::{Received, Store};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{BOOK, MONDAY_MS, arb_edit, library, options, turn};

#[derive(Debug, PartialEq)]
pub(crate) struct Everything {
    heads: Vec<catchword_model::id::ChangeHash>,
    fields: BTreeMap<(Container, String), Field>,
    rows: Vec<Row>,
    count: u64,
}

pub(crate) fn everything(store: &Store) -> Everything {
    let mut fields = BTreeMap::new();
    for container in Container::BOOK {
        for (key, field) in store.fields(BOOK.document(), container).unwrap() {
            fields.insert((container, key), field);
        }
    }
    let mut rows = Vec::new();
    store.rows(BOOK, 0, u32::MAX, |row| rows.push(row)).unwrap();
    rows.sort_by_key(|row| row.id);
    let heads = store.heads(BOOK.document()).unwrap().unwrap();
    Everything { heads, fields, rows, count: store.book(BOOK).unwrap().unwrap().annotations }
}

fn all_changes(store: &Store) -> Vec<Change> {
    let mut changes = Vec::new();
    store.changes(BOOK.document(), |change| changes.push(change)).unwrap();
    changes
}

fn give(changes: &[Change], to: &Store) -> u64 {
    let received: Vec<_> = changes
        .iter()
        .map(|change| Received { document: BOOK.document(), bytes: change.bytes().to_vec() })
        .collect();
    let report = to.receive(&received).unwrap();
    assert_eq!(report.rejected, []);
    report.added
}

fn assert_reference_agrees(store: &Store, changes: &[Change]) {
    let mut history = History::new(DocumentKind::Book, BOOK.document());
    for change in changes {
        assert_eq!(history.admit(change.clone()), Judgement::Admitted);
    }
    let ours = everything(store);
    assert_eq!(history.heads(), ours.heads);
    for ((object, key), field) in history.fields() {
        let Some(container) = DocumentKind::Book.container(*object) else { continue };
        if container == Container::Annotations {
            continue;
        }
        let held = ours.fields.get(&(container, key.clone())).cloned().unwrap_or_default();
        assert_eq!(&held, field, "{container:?} {key}");
    }
    let annotations = Object::Made(Container::Annotations.object());
    for row in &ours.rows {
        let created = history.field(annotations, &row.id.to_string());
        let ops: Vec<_> = created.holders().iter().map(|holder| holder.op).collect();
        assert_eq!(ops, row.created.iter().map(|created| created.op).collect::<Vec<_>>());
        for (name, field) in &row.fields {
            assert_eq!(&history.field(annotations, &format!("{}/{name}", row.id)), field);
        }
    }
}

#[test]
fn devices_agree_in_every_causal_order() {
    let mut orders = 0;
    for seed in 0..12 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let stores: Vec<_> =
            (1..).zip(&folders).map(|(n, folder)| library(folder.path(), n)).collect();
        for step in 0..120 {
            let who = rng.random_range(0..3);
            let now = MONDAY_MS + step;
            match rng.random_range(0..8) {
                0 => drop(give(&all_changes(&stores[(who + 1) % 3]), &stores[who])),
                1 => drop(stores[who].turn(BOOK, &turn(rng.random_range(0..1_000_001)), now)),
                2 => drop(stores[who].publish(BOOK)),
                // What is refused (an annotation that is not here, or deleted) changes nothing.
                _ => drop(stores[who].append(BOOK.document(), &[arb_edit(&mut rng)], now)),
            }
        }
        for _ in 0..2 {
            for from in 0..3 {
                give(&all_changes(&stores[from]), &stores[(from + 1) % 3]);
            }
        }
        let expected = everything(&stores[0]);
        assert!(!expected.rows.is_empty());
        for store in &stores {
            assert_eq!(everything(store), expected, "seed {seed}");
        }
        let changes = all_changes(&stores[0]);
        assert_reference_agrees(&stores[0], &changes);
        for _ in 0..4 {
            orders += 1;
            let mut shuffled = changes.clone();
            shuffled.shuffle(&mut rng);
            let folder = tempfile::tempdir().unwrap();
            let fresh = Store::create(folder.path(), &options(9)).unwrap();
            fresh.expect_book(BOOK).unwrap();
            let pieces = rng.random_range(1..40);
            let mut left: Vec<Change> = Vec::new();
            for piece in shuffled.chunks(pieces) {
                left.extend(piece.iter().cloned());
                left = still_missing(&left, &fresh);
            }
            assert_eq!(still_missing(&left, &fresh), []);
            assert_eq!(everything(&fresh), expected, "seed {seed}");
        }
    }
    eprintln!("{orders} orders of arrival agree");
}

/// Gives what has its past, and returns what does not yet.
fn still_missing(changes: &[Change], to: &Store) -> Vec<Change> {
    let received: Vec<_> = changes
        .iter()
        .map(|change| Received { document: BOOK.document(), bytes: change.bytes().to_vec() })
        .collect();
    let report = to.receive(&received).unwrap();
    let missing: Vec<_> = report
        .rejected
        .iter()
        .map(|(_, rejection)| {
            let catchword_store::Rejection::Missing { hash, .. } = rejection else {
                panic!("{rejection}")
            };
            *hash
        })
        .collect();
    changes.iter().filter(|change| missing.contains(&change.hash())).cloned().collect()
}

#[test]
fn a_changes_past_survives_reopening() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = library(folders[0].path(), 1);
    for n in 0..200 {
        store.append(BOOK.document(), &[crate::support::annotate(n, 5)], MONDAY_MS).unwrap();
    }
    drop(store);
    let store = Store::open(folders[0].path(), &options(1)).unwrap();
    let other = Store::create(folders[1].path(), &options(2)).unwrap();
    other.expect_book(BOOK).unwrap();
    let mut changes = all_changes(&store);
    assert_eq!(changes.len(), 202);
    assert_eq!(changes.remove(0).hash(), genesis(DocumentKind::Book).hash());
    changes.reverse();
    assert_eq!(give(&changes, &other), 201);
    assert_eq!(give(&changes, &other), 0);
}

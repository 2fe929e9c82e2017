//! Libraries in folders of their own, and a small vocabulary of edits.

use std::path::Path;

use catchword_model::annotation::{AnnotationField, Creation, Kind};
use catchword_model::edit::Edit;
use catchword_model::id::{AnnotationId, BookId};
use catchword_model::locator::Locator;
use catchword_model::meta::{DeviceName, Meta, Rank};
use catchword_store::{Motion, Options, Store, Turn};
use rand::{Rng, RngExt};

/// A day in 2026, in milliseconds since the Unix epoch.
pub(crate) const MONDAY_MS: u64 = 1_780_000_000_000;
/// A day, in milliseconds.
pub(crate) const DAY_MS: u64 = 86_400_000;

pub(crate) const BOOK: BookId = BookId([7; 32]);

pub(crate) fn options(device: u8) -> Options {
    let name = DeviceName { name: format!("device {device}"), ..DeviceName::default() };
    Options { public_key_spki: vec![device; 44], device: name, now_ms: MONDAY_MS }
}

/// A library with one book in it.
pub(crate) fn library(folder: &Path, device: u8) -> Store {
    let store = Store::create(folder, &options(device)).unwrap();
    assert!(store.add_book(BOOK, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap());
    store
}

pub(crate) fn titled(title: &str) -> Vec<Edit> {
    let meta = Meta { value: title.into(), rank: Rank::File };
    vec![Edit::SetMeta { field: "title".to_owned(), meta }]
}

pub(crate) fn annotate(n: u64, ppm: u32) -> Edit {
    let id = AnnotationId::new(n, [3; 10]);
    Edit::Annotate { id, creation: Box::new(creation(ppm, &format!("quote {n}"))) }
}

pub(crate) fn creation(ppm: u32, quote: &str) -> Creation {
    Creation {
        kind: Kind::Highlight,
        locator: Locator::new().with_total_ppm(ppm),
        quote: quote.to_owned(),
        color: Some("yellow".to_owned()),
        note: None,
        created_by: "00000000000000000000000000000001".to_owned(),
        source: None,
        unknown: String::new(),
    }
}

pub(crate) fn turn(ppm: u32) -> Turn {
    let locator = Locator::new().with_total_ppm(ppm);
    Turn { locator, ppm, motion: Motion::Turned, seconds: 30, from_ppm: 0 }
}

/// A random edit of a book, on few keys, so that devices meet on them.
pub(crate) fn arb_edit(rng: &mut impl Rng) -> Edit {
    let id = AnnotationId::new(rng.random_range(0..6), [3; 10]);
    let word = format!("w{}", rng.random_range(0..4));
    match rng.random_range(0..10) {
        0..3 => {
            let ppm = rng.random_range(0..1_000_001);
            Edit::Annotate { id, creation: Box::new(creation(ppm, &word)) }
        }
        3 => Edit::SetField { id, field: AnnotationField::Note, value: word },
        4 => {
            let ppm = rng.random_range(0..1_000_001);
            let value = Locator::new().with_total_ppm(ppm).to_json();
            Edit::SetField { id, field: AnnotationField::Locator, value }
        }
        5 => Edit::Delete { id },
        6 => Edit::Undelete { id },
        7 => Edit::AddTag { tag: word },
        8 => Edit::RemoveTag { tag: word },
        _ => {
            let meta = Meta { value: word.into(), rank: Rank::User };
            Edit::SetMeta { field: "title".to_owned(), meta }
        }
    }
}

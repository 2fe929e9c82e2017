//! The sample books and the builder of test books.

use std::io::Cursor;

use catchword_formats::{Format, Warning, partial_md5, sample};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::made::read;

#[test]
fn the_samples_are_books_without_fault() {
    let samples = sample::all();

    let titles: Vec<_> = samples
        .into_iter()
        .map(|sample| {
            let book = read(sample.bytes).unwrap();
            assert_eq!(book.warnings, [], "{}", sample.file_name);
            assert_eq!(book.format, Format::Epub3);
            assert_eq!(book.authors, ["The catchword authors"]);
            assert!(book.has_cover);
            assert_eq!(book.spine.len(), 5);
            assert!(book.spine.iter().all(|item| 500 < item.bytes));
            book.title.unwrap()
        })
        .collect();
    assert_eq!(titles, ["The Lamp at Skerry Point", "The Library Ferry"]);
}

/// Other tests and the demonstration know the samples by these ids.
#[test]
fn the_samples_never_change() {
    let hashes: Vec<_> = sample::all()
        .iter()
        .map(|sample| HEXLOWER.encode(&Sha256::digest(&sample.bytes)))
        .collect();
    assert_eq!(
        hashes,
        [
            "f977974afa4eb035e91db09016dce93067c8895bf90bd35998b1e5eaf0c569c1",
            "a4ea54a5808c61c980efcc64412088c1e1c89862cee8e3f1ac8a11d48dd4aac8",
        ]
    );
}

#[test]
fn the_builder_gives_the_same_bytes_for_the_same_book() {
    let builder = sample::Builder::new("T").author("A").chapter("One", "x\n\ny");
    assert_eq!(builder.build(), builder.clone().build());

    let other = builder.clone().chapter("Two", "z").build();
    assert_ne!(
        partial_md5(Cursor::new(builder.build())).unwrap(),
        partial_md5(Cursor::new(other)).unwrap()
    );
}

#[test]
fn what_the_builder_is_given_comes_back() {
    let book = sample::Builder::new("Fish & <Chips>")
        .author("Ana “A.” Müller")
        .author("漢 字")
        .language("de-AT")
        .identifier("urn:isbn:9780000000000")
        .chapter("1 < 2", "a & b")
        .without_cover();

    let book = read(book.build()).unwrap();

    assert_eq!(book.title.as_deref(), Some("Fish & <Chips>"));
    assert_eq!(book.authors, ["Ana “A.” Müller", "漢 字"]);
    assert_eq!(book.language.as_deref(), Some("de-AT"));
    assert_eq!(book.identifiers, ["urn:isbn:9780000000000"]);
    assert_eq!(book.spine[0].href, "EPUB/chapter-1.xhtml");
    assert_eq!(book.warnings, [Warning::NoCover]);
}

#[test]
fn a_book_serializes_with_plain_names() {
    let book = read(sample::Builder::new("T").chapter("One", "x").without_cover().build()).unwrap();

    let mut value = serde_json::to_value(&book).unwrap();
    value["spine"][0]["bytes"] = 1.into();

    assert_eq!(
        value,
        serde_json::json!({
            "format": "epub3", "title": "T", "authors": [], "language": "en",
            "identifiers": ["urn:catchword:sample:t"],
            "spine": [{"href": "EPUB/chapter-1.xhtml", "bytes": 1, "idref": "chapter-1"}],
            "pages": null, "has_cover": false, "warnings": [{"warning": "no_cover"}],
        })
    );
}

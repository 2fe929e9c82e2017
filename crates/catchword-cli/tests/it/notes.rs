//! `annotate`, `edit`, `delete`, `undelete`, `tag`, `journal`, `document`: what is written.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Shelf, stdout};

/// Adds an annotation and returns its id.
fn annotate(shelf: &Shelf, book: &str, args: &[&str]) -> String {
    let line = [&["annotate", book, "--quote", "the lamp"][..], args].concat();
    shelf.json(&line)["id"].as_str().expect("an id").to_owned()
}

/// Returns the only annotation of a book.
fn only(shelf: &Shelf, book: &str) -> Value {
    let shown = shelf.json(&["show", book]);
    assert_eq!(shown["annotations"].as_array().map(Vec::len), Some(1));
    shown["annotations"][0].clone()
}

#[test]
fn an_annotation_is_shown_as_it_was_made() {
    let (shelf, book) = Shelf::with_sample();
    let args = ["--note", "a sign", "--ppm", "4000", "--color", "blue", "--kind", "note"];
    let id = annotate(&shelf, &book, &args);
    let shown = only(&shelf, &book);
    assert_eq!(shown["id"], json!(id));
    assert_eq!(shown["kind"], "note");
    assert_eq!(shown["quote"], "the lamp");
    assert_eq!(shown["note"], "a sign");
    assert_eq!(shown["color"], "blue");
    assert_eq!(shown["ppm"], 4_000);
    assert_eq!(shown["deleted"], false);
    assert_eq!(shown["conflict"], json!([]));
}

#[test]
fn a_cfi_gives_the_place_and_without_any_it_stands_last() {
    let (shelf, book) = Shelf::with_sample();
    let last = annotate(&shelf, &book, &[]);
    let second = annotate(&shelf, &book, &["--cfi", "epubcfi(/6/4!/4/2)"]);
    let first = annotate(&shelf, &book, &["--ppm", "0"]);
    let shown = shelf.json(&["show", &book]);
    let order: Vec<_> = shown["annotations"].as_array().unwrap().iter().collect();
    let ids: Vec<&str> = order.iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(ids, [&first, &second, &last]);
    assert_eq!(order[2]["ppm"], Value::Null);
    assert!(order[1]["ppm"].as_u64().is_some_and(|ppm| 0 < ppm));
}

#[test]
fn a_deleted_annotation_is_refused_until_it_is_back() {
    let (shelf, book) = Shelf::with_sample();
    let id = annotate(&shelf, &book, &["--note", "one"]);
    shelf.json(&["delete", &book, &id]);
    assert_eq!(only(&shelf, &book)["deleted"], true);
    assert!(!stdout(&shelf.run(&["show", &book])).contains(&id));

    let (code, said) = shelf.failure(&["edit", &book, &id, "--note", "two"]);
    assert_eq!(code, 3);
    assert!(said.contains("catchword undelete"), "{said}");

    shelf.json(&["undelete", &book, &id]);
    shelf.json(&["edit", &book, &id.to_lowercase(), "--note", "two", "--color", "red"]);
    let shown = only(&shelf, &book);
    assert_eq!((&shown["note"], &shown["color"]), (&json!("two"), &json!("red")));
}

#[test]
fn an_annotation_that_is_not_there_is_not_found_and_no_id_is_wrong_usage() {
    let (shelf, book) = Shelf::with_sample();
    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    assert_eq!(shelf.failure(&["delete", &book, unknown]).0, 4);
    assert_eq!(shelf.failure(&["delete", &book, "first"]).0, 2);
}

#[test]
fn what_is_too_long_is_refused_and_nothing_is_written() {
    let (shelf, book) = Shelf::with_sample();
    let before = shelf.json(&["show", &book]);
    let long = "x".repeat(64 * 1_024 + 1);
    let (code, said) = shelf.failure(&["annotate", &book, "--quote", "a", "--note", &long]);
    assert_eq!(code, 3);
    assert!(said.contains("make it shorter"), "{said}");
    assert_eq!(shelf.json(&["show", &book]), before);
}

#[test]
fn tags_are_added_and_removed() {
    let (shelf, book) = Shelf::with_sample();
    let tags = shelf.json(&["tag", &book, "--add", "sea", "--add", " light "]);
    assert_eq!(tags, json!({ "book": book, "tags": ["light", "sea"] }));
    let tags = shelf.json(&["tag", &book, "--remove", "sea", "--remove", "never"]);
    assert_eq!(tags["tags"], json!(["light"]));
    assert_eq!(shelf.failure(&["tag", &book, "--add", " "]).0, 2);
}

#[test]
fn the_journal_is_written_from_text_file_or_standard_input() {
    let (shelf, book) = Shelf::with_sample();
    assert_eq!(shelf.json(&["journal", &book])["length"], 0);
    let set = shelf.json(&["journal", &book, "--set", "Grüße\n"]);
    assert_eq!(set, json!({ "book": book, "length": 6 }));
    assert_eq!(stdout(&shelf.run(&["journal", &book])), "Grüße\n");

    let file = shelf.path().join("journal.txt");
    std::fs::write(&file, "From a file.").unwrap();
    shelf.json(&["journal", &book, "--file", file.to_str().unwrap()]);
    assert_eq!(shelf.json(&["show", &book])["journal"], "From a file.");

    let mut child = shelf
        .command(&["journal", &book, "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"From a pipe.").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(shelf.json(&["journal", &book])["text"], "From a pipe.");

    std::fs::write(&file, b"\xff\xfe").unwrap();
    assert_eq!(shelf.failure(&["journal", &book, "--file", file.to_str().unwrap()]).0, 3);
    assert_eq!(shelf.failure(&["journal", &book, "--file", "/nowhere/a"]).0, 4);
    assert_eq!(shelf.json(&["journal", &book])["text"], "From a pipe.");
}

#[test]
fn a_document_is_saved_whole() {
    let (shelf, book) = Shelf::with_sample();
    annotate(&shelf, &book, &[]);
    let path = shelf.path().join("book.automerge");
    let saved = shelf.json(&["document", &book, "--save", path.to_str().unwrap()]);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(saved["bytes"], json!(bytes.len()));
    assert_eq!(saved["heads"], shelf.json(&["show", &book])["heads"]);
    // What every saved Automerge document begins with.
    assert_eq!(bytes[..4], [0x85, 0x6f, 0x4a, 0x83]);

    let notes = shelf.path().join("notes.automerge");
    let line = ["document", &book, "--notes", "--save", notes.to_str().unwrap()];
    assert_eq!(shelf.failure(&line).0, 4);
    shelf.json(&["journal", &book, "--set", "A note."]);
    shelf.json(&line);
    assert!(notes.exists());
}

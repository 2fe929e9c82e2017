//! `init`, `import`, `books`, `remove`, `shelf`, `generate`: what is in the library.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Shelf, command, fixtures, stderr, stdout};

#[test]
fn a_library_is_made_once() {
    let shelf = Shelf::new();
    let made = shelf.data().join("keys/device");
    assert!(made.exists());

    let (code, said) = shelf.failure(&["init", "--name", "again"]);
    assert_eq!(code, 3);
    assert!(said.starts_with("catchword: there is a library in this folder already\n"), "{said}");
}

#[test]
fn without_a_library_every_command_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("nothing");
    let data = data.to_str().unwrap();
    for line in [&["books"][..], &["show", "Emma"], &["import", "a.epub"]] {
        let output = command(line).args(["--data", data]).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{line:?}");
        assert!(stderr(&output).contains("catchword init --name NAME"), "{}", stderr(&output));
    }
    assert!(!folder.path().join("nothing").exists());
}

#[test]
fn a_book_is_imported_once_and_listed() {
    let shelf = Shelf::new();
    let file = shelf.sample();
    let file = file.to_str().unwrap();
    let first = shelf.json(&["import", file]);
    assert_eq!(first[0]["title"], "The Lamp at Skerry Point");
    assert_eq!(first[0]["authors"], json!(["The catchword authors"]));
    assert_eq!(first[0]["new"], true);
    assert_eq!(shelf.json(&["import", file])[0]["new"], false);

    let listed = shelf.json(&["books"]);
    let expected = json!([{
        "book": first[0]["book"],
        "title": "The Lamp at Skerry Point",
        "ppm": null,
        "furthest_ppm": null,
        "wall_ms": 0,
        "annotations": 0,
    }]);
    assert_eq!(listed, expected);
    assert_eq!(shelf.json(&["recent"]), json!([]));
}

#[test]
fn a_folder_is_imported_with_everything_below_it() {
    let shelf = Shelf::new();
    let below = shelf.path().join("books/old");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::rename(shelf.sample(), below.join("LAMP.EPUB")).unwrap();
    std::fs::write(below.join("notes.txt"), "not a book, and not asked for").unwrap();

    let folder = shelf.path().join("books");
    let imported = shelf.json(&["import", folder.to_str().unwrap()]);
    assert_eq!(imported.as_array().unwrap().len(), 1);
}

#[test]
fn paths_are_read_from_standard_input() {
    let shelf = Shelf::new();
    let file = shelf.sample();
    let mut child = shelf
        .command(&["import", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}\n", file.display()).unwrap();
    let output = child.wait_with_output().unwrap();
    let imported: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(imported[0]["new"], true);
}

#[test]
fn what_is_no_book_is_refused_by_name_and_the_others_are_imported() {
    let shelf = Shelf::new();
    let (good, bad) = (shelf.sample(), shelf.path().join("bad.epub"));
    std::fs::write(&bad, "PK\x03\x04 and nothing more").unwrap();
    let missing = shelf.path().join("missing.epub");
    let paths = [&bad, &missing, &good].map(|path| path.to_str().unwrap());

    let output = shelf.run(&["import", paths[0], paths[1], paths[2], "--json"]);

    assert_eq!(output.status.code(), Some(3));
    let imported: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(imported.as_array().unwrap().len(), 1);
    let said = stderr(&output);
    assert!(said.contains("bad.epub: ") && said.contains("missing.epub: "), "{said}");
    assert_eq!(shelf.json(&["books"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_book_is_named_by_id_beginning_or_title_and_unknown_names_are_not_found() {
    let (shelf, book) = Shelf::with_sample();
    for name in [&book, &book[..6], "The Lamp at Skerry Point"] {
        assert_eq!(shelf.json(&["show", name])["book"], json!(book));
    }
    for name in [&book[..5], "the lamp at skerry point", ""] {
        let (code, said) = shelf.failure(&["show", name]);
        assert_eq!(code, 4, "{name}");
        assert!(said.contains("`catchword books`"), "{said}");
    }
}

#[test]
fn a_removed_book_is_gone_until_it_is_imported_again() {
    let (shelf, book) = Shelf::with_sample();
    shelf.json(&["read", &book, "--ppm", "250000"]);
    let before = shelf.json(&["show", &book]);

    let (code, said) = shelf.failure(&["remove", &book, "--purge"]);
    assert_eq!(code, 3);
    assert!(said.contains("without --purge"), "{said}");
    assert_eq!(shelf.json(&["remove", &book]), json!({ "book": book, "removed": true }));
    assert_eq!(shelf.json(&["books"]), json!([]));
    assert_eq!(shelf.failure(&["show", &book]).0, 4);

    let file = shelf.sample();
    assert_eq!(shelf.json(&["import", file.to_str().unwrap()])[0]["new"], true);
    assert_eq!(shelf.json(&["show", &book]), before);
}

#[test]
fn shelves_are_made_filled_and_deleted() {
    let (shelf, book) = Shelf::with_sample();
    assert_eq!(shelf.json(&["shelf"]), json!([]));
    assert_eq!(shelf.failure(&["shelf", "Sea"]).0, 4);

    let made = shelf.json(&["shelf", "Sea", "--add", &book]);
    assert_eq!((&made[0]["name"], &made[0]["books"]), (&json!("Sea"), &json!([book])));
    assert_eq!(shelf.json(&["shelf"]), made);
    let id = made[0]["shelf"].as_str().unwrap();
    assert_eq!(shelf.json(&["shelf", id, "--remove", &book])[0]["books"], json!([]));

    assert_eq!(shelf.json(&["shelf", "Sea", "--delete"]), json!([]));
    assert_eq!(shelf.failure(&["shelf", "Sea", "--delete"]).0, 4);
    assert_eq!(shelf.json(&["books"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_made_library_has_what_was_asked_for() {
    let shelf = Shelf::nothing();
    let args = ["generate", "--books", "3", "--annotations", "40", "--seed", "7"];
    assert_eq!(shelf.json(&args), json!({ "books": 3, "annotations": 120 }));
    assert_eq!(shelf.json(&args), json!({ "books": 0, "annotations": 0 }), "they are there");
    let books = shelf.json(&["books"]);
    let counts: Vec<_> =
        books.as_array().unwrap().iter().map(|book| book["annotations"].clone()).collect();
    assert_eq!(counts, [json!(40), json!(40), json!(40)]);
}

#[test]
fn lists_for_people_are_tables_and_say_when_there_is_nothing() {
    let (shelf, book) = Shelf::with_sample();
    assert_eq!(stdout(&shelf.run(&["recent"])), "nothing was read yet\n");
    let listed = stdout(&shelf.run(&["books"]));
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(lines[0].starts_with("Book          Title"), "{listed}");
    assert!(lines[1].starts_with(&book[..12]) && lines[1].contains("Skerry"), "{listed}");
}

#[test]
fn a_second_process_is_told_to_wait() {
    let shelf = Shelf::new();
    let library = catchword::Library::open(shelf.data()).unwrap();
    let (code, said) = shelf.failure(&["books"]);
    assert_eq!(code, 1);
    assert!(said.starts_with("catchword: another process holds this library"), "{said}");
    drop(library);
    assert_eq!(shelf.json(&["books"]), json!([]));
}

#[test]
fn every_real_book_is_imported_with_its_title() {
    let Some(fixtures) = fixtures() else { return };
    let shelf = Shelf::new();
    let imported = shelf.json(&["import", fixtures.to_str().unwrap()]);
    let mut titles: Vec<&str> =
        imported.as_array().unwrap().iter().filter_map(|book| book["title"].as_str()).collect();
    titles.sort_unstable();
    let expected = [
        "Abroad",
        "Alice's Adventures in Wonderland",
        "Dialogues",
        "Flatland",
        "Frankenstein",
        "Leaves of Grass",
        "Preparation of Papers in Two-Column Format",
        "single column",
    ];
    assert_eq!(titles, expected);
    let alice = imported.as_array().unwrap().iter().find(|book| book["title"] == expected[1]);
    assert_eq!(alice.unwrap()["warnings"], json!(["the book has no cover image"]));

    // A page of a PDF is a place: page p of n is p / n.
    let read = shelf.json(&["read", "single column", "--page", "1"]);
    assert!(read["ppm"].as_u64().is_some_and(|ppm| 0 < ppm), "{read}");
}

#[test]
fn a_real_book_that_is_cut_off_is_refused_and_leaves_nothing() {
    let Some(fixtures) = fixtures() else { return };
    let shelf = Shelf::new();
    let whole = std::fs::read(fixtures.join("epubjs/alice_without_cover.epub")).unwrap();
    let cut = shelf.path().join("cut.epub");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();

    let (code, said) = shelf.failure(&["import", cut.to_str().unwrap()]);

    assert_eq!(code, 3);
    assert!(said.contains("cut.epub: the archive is damaged"), "{said}");
    assert_eq!(shelf.json(&["books"]), json!([]));
    assert!(!shelf.data().join("files").exists());
}

//! `read`, `show`, `history`, `conflicts`: where the reader is.

use serde_json::{Value, json};

use crate::support::{Shelf, stdout};

#[test]
fn reading_moves_the_place_and_is_told_with_its_stamp() {
    let (shelf, book) = Shelf::with_sample();
    let read = shelf.json(&["read", &book, "--ppm", "250000", "--seconds", "90"]);
    assert_eq!(
        (&read["book"], &read["ppm"], &read["pass"]),
        (&json!(book), &json!(250_000), &json!(1))
    );

    let shown = shelf.json(&["show", &book]);
    assert_eq!(shown["place"]["ppm"], 250_000);
    assert_eq!(shown["place"]["stamp"], read["stamp"]);
    assert_eq!(shown["place"]["intent"], "advance");
    assert_eq!(shown["furthest"], json!({ "ppm": 250_000 }));
    assert_eq!(shown["events"], json!({ "count": 1, "seconds": 90 }));
    assert_eq!(shown["totals"]["seconds"], 90);
}

#[test]
fn going_back_is_a_rewind_and_a_jump_or_restart_is_what_it_is_called() {
    let (shelf, book) = Shelf::with_sample();
    let intent = |args: &[&str]| {
        let line = [&["read", book.as_str()][..], args].concat();
        shelf.json(&line);
        shelf.json(&["show", &book])["place"]["intent"].clone()
    };
    assert_eq!(intent(&["--ppm", "500000"]), "advance");
    assert_eq!(intent(&["--ppm", "400000"]), "rewind");
    assert_eq!(intent(&["--ppm", "700000", "--intent", "jump"]), "jump");
    assert_eq!(intent(&["--ppm", "0", "--intent", "restart"]), "restart");

    let shown = shelf.json(&["show", &book]);
    assert_eq!((&shown["place"]["pass"], &shown["furthest"]["ppm"]), (&json!(2), &json!(0)));
}

#[test]
fn showing_a_book_twice_prints_the_same_bytes() {
    let (shelf, book) = Shelf::with_sample();
    shelf.json(&["read", &book, "--ppm", "250000"]);
    let first = stdout(&shelf.run(&["show", &book, "--json"]));
    assert_eq!(stdout(&shelf.run(&["show", &book, "--json"])), first);
}

#[test]
fn a_locator_is_kept_word_for_word() {
    let (shelf, book) = Shelf::with_sample();
    let cfi = "epubcfi(/6/4!/4/2/1:10)";
    shelf.json(&["read", &book, "--ppm", "5", "--cfi", cfi, "--href", "EPUB/chapter-2.xhtml"]);
    let locator = &shelf.json(&["show", &book])["place"]["locator"];
    assert_eq!(locator["cfi"], cfi);
    assert_eq!(locator["href"], "EPUB/chapter-2.xhtml");
    assert_eq!(locator["total_ppm"], 5);
}

#[test]
fn a_page_of_a_book_without_pages_is_wrong_usage() {
    let (shelf, book) = Shelf::with_sample();
    let (code, said) = shelf.failure(&["read", &book, "--page", "3"]);
    assert_eq!(code, 2);
    assert!(said.contains("--ppm"), "{said}");
    assert_eq!(shelf.json(&["recent"]), json!([]));
}

#[test]
fn a_shifted_clock_shifts_what_is_recorded() {
    let (shelf, book) = Shelf::with_sample();
    let read = |offset: &str| -> Value {
        let output = shelf
            .command(&["read", &book, "--ppm", "1000", "--json"])
            .env("CATCHWORD_CLOCK_OFFSET_MS", offset)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let now = read("0")["stamp"].as_u64().unwrap() >> 16;
    let later = read("86400000")["stamp"].as_u64().unwrap() >> 16;
    assert!((86_400_000..86_460_000).contains(&(later - now)), "{}", later - now);

    let wrong =
        shelf.command(&["books"]).env("CATCHWORD_CLOCK_OFFSET_MS", "tomorrow").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_history_tells_reading_and_marking_in_order() {
    let (shelf, book) = Shelf::with_sample();
    shelf.json(&["read", &book, "--ppm", "100000", "--seconds", "60"]);
    shelf.json(&["annotate", &book, "--quote", "the lamp"]);
    let history = shelf.json(&["history", &book]);
    let actions: Vec<&str> = history
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["action"].as_str())
        .filter(|action| *action != "described")
        .collect();
    assert_eq!(actions, ["moved", "read", "annotated"]);
    let text = stdout(&shelf.run(&["history", &book]));
    assert!(text.contains("phone   read from 0.0 % to 10.0 %, 1 min"), "{text}");
}

#[test]
fn one_device_has_no_conflicts() {
    let (shelf, book) = Shelf::with_sample();
    shelf.json(&["read", &book, "--ppm", "100000"]);
    assert_eq!(shelf.json(&["conflicts"]), json!([]));
    assert_eq!(stdout(&shelf.run(&["conflicts", &book])), "all devices agree\n");
}

//! `check`, `compact`, `backup`, `restore`, and stopping long work.

use serde_json::json;

use crate::support::{Shelf, stderr, stdout};

#[test]
fn a_library_in_use_is_clean_before_and_after_it_is_compacted() {
    let (shelf, book) = Shelf::with_sample();
    shelf.json(&["generate", "--books", "2", "--annotations", "300"]);
    shelf.json(&["read", &book, "--ppm", "1000"]);
    let before = (shelf.json(&["books"]), shelf.json(&["show", &book]));
    assert_eq!(shelf.json(&["check"])["clean"], true);

    let report = shelf.json(&["compact"]);
    assert!(600 <= report["changes"].as_u64().unwrap(), "{report}");

    assert_eq!((shelf.json(&["books"]), shelf.json(&["show", &book])), before);
    let report = shelf.json(&["check"]);
    assert_eq!((&report["clean"], &report["files"]), (&json!(true), &json!(1)));
    assert!(stdout(&shelf.run(&["check"])).ends_with("nothing is wrong\n"));
}

#[test]
fn a_book_file_that_changed_is_named_and_importing_it_again_mends_it() {
    let (shelf, book) = Shelf::with_sample();
    let copy = shelf.data().join("files").join(&book[..2]).join(&book);
    std::fs::write(&copy, "something else").unwrap();

    let output = shelf.run(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["damaged_files"], json!([book]));
    assert!(stderr(&output).contains("import the named files again"), "{}", stderr(&output));

    let file = shelf.sample();
    shelf.json(&["import", file.to_str().unwrap()]);
    assert_eq!(shelf.json(&["check"])["clean"], true);
}

#[test]
fn a_backup_is_restored_over_its_own_folder_or_into_an_empty_one_as_a_new_device() {
    let (shelf, book) = Shelf::with_sample();
    shelf.json(&["read", &book, "--ppm", "250000"]);
    let before = shelf.json(&["show", &book]);
    let device = before["place"]["device"].clone();
    let file = shelf.path().join("saved");
    let file = file.to_str().unwrap();
    assert_eq!(shelf.json(&["backup", file])["files"], 1);
    shelf.json(&["read", &book, "--ppm", "900000"]);

    let restored = shelf.json(&["restore", file]);
    assert_ne!(restored["device"], device);
    assert_eq!(shelf.json(&["show", &book]), before);
    assert_eq!(shelf.json(&["check"])["clean"], true);

    let empty = shelf.path().join("empty");
    let output = crate::support::command(&["restore", file, "--json", "--data"])
        .arg(&empty)
        .output()
        .unwrap();
    let elsewhere: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_ne!(elsewhere["device"], device);
    assert_ne!(elsewhere["device"], restored["device"]);
}

#[test]
fn what_is_no_backup_is_refused_and_the_library_stays() {
    let (shelf, book) = Shelf::with_sample();
    let file = shelf.sample();
    let (code, said) = shelf.failure(&["restore", file.to_str().unwrap()]);
    assert_eq!(code, 3, "{said}");
    assert_eq!(shelf.failure(&["restore", "/nowhere/saved"]).0, 4);
    assert_eq!(shelf.failure(&["backup", file.to_str().unwrap()]).0, 3);
    assert_eq!(shelf.json(&["show", &book])["book"], json!(book));
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_between_transactions_and_the_next_run_goes_on() {
    use std::process::{Command, Stdio};

    let shelf = Shelf::new();
    let args = ["generate", "--books", "4", "--annotations", "30000"];
    let child = shelf.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Once the log grows, the work has begun and its signal handler is in place.
    let library = shelf.data().join("library");
    let size = || std::fs::metadata(&library).map_or(0, |metadata| metadata.len());
    while size() < 8 << 20 {
        std::thread::yield_now();
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).starts_with("catchword: stopped: added 4 books, "),
        "{}",
        stderr(&output)
    );
    assert_eq!(shelf.json(&["check"])["clean"], true);
    shelf.json(&args);
    let books = shelf.json(&["books"]);
    let whole = books.as_array().unwrap().iter().all(|book| book["annotations"] == 30_000);
    assert!(whole, "{books}");
}

#[test]
fn a_library_that_its_disk_changed_is_refused_and_a_repair_saves_it() {
    let (shelf, book) = Shelf::with_sample();
    shelf.json(&["annotate", &book, "--quote", "the sea", "--ppm", "1000"]);
    let before = shelf.json(&["show", &book])["annotations"].clone();
    let path = shelf.data().join("library");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = b"next_sequence";
    for at in 0..bytes.len() - name.len() {
        if bytes[at..].starts_with(name) {
            bytes[at] ^= 1;
        }
    }
    std::fs::write(&path, bytes).unwrap();
    let (_, said) = shelf.failure(&["books"]);
    assert!(said.contains("is not there any more") && said.contains("check --repair"), "{said}");

    let output = shelf.run(&["check", "--repair"]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("lost 1 page of the library (meta-1)"), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("nothing is wrong\n"));
    assert_eq!(shelf.json(&["show", &book])["annotations"], before);
    assert!(shelf.data().join("library.damaged").exists());
    assert_eq!(shelf.run(&["check", "--repair"]).status.code(), Some(0));
}

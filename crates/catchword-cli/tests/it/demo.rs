//! `demo`: the whole story, with its crash.

use serde_json::Value;

use crate::support::{Shelf, catchword, stderr, stdout};

#[test]
fn the_demo_loses_nothing_and_leaves_nothing() {
    let shelf = Shelf::new();
    let output = shelf.command(&["demo"]).env("TMPDIR", shelf.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    for said in [
        "nothing is recorded",
        "brought it back, with its note",
        "Read last",
        "both libraries are equal",
        "what tablet wrote counts",
        "the account refuses it",
        "the e-reader meets the tablet alone",
        "What comes next",
    ] {
        assert!(told.contains(said), "{said:?} is missing in {told}");
    }
    let left = std::fs::read_dir(shelf.path()).unwrap().count();
    assert_eq!(left, 1, "only the library that was there before");
}

#[test]
fn every_write_acknowledged_before_the_crash_is_found() {
    let output = catchword(&["demo", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let story: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(35 <= story["acknowledged"].as_u64().unwrap());
    assert_eq!(story["found"], story["acknowledged"]);
    assert_eq!(story["recent"].as_array().map(Vec::len), Some(2));
    let devices = &story["devices"];
    assert_eq!((&devices["in_sync"], &devices["third_in_sync"]), (&true.into(), &true.into()));
    assert_eq!(devices["round_trips"], 1);
    assert!(devices["found"].is_boolean(), "it says whether multicast carries: {devices}");
    // The place, a colour, and an edit against a deletion.
    assert_eq!(devices["disagreements"], 3);
    let cloud = &devices["cloud"];
    assert_eq!((&cloud["refused"], &cloud["agreed"]), (&1.into(), &true.into()), "{cloud}");
    assert!(10 <= cloud["pushed"].as_u64().unwrap(), "{cloud}");
    assert!(devices["idle_bytes"].as_u64().unwrap() <= 1_024, "{devices}");
}

#[test]
fn the_demo_takes_books_of_ones_own_and_refuses_what_is_none() {
    let shelf = Shelf::new();
    let file = shelf.sample();
    let output = catchword(&["demo", file.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    std::fs::write(&file, "no book any more").unwrap();
    let output = catchword(&["demo", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

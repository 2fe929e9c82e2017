//! Notes documents: the journal, the application's data, and what comes from elsewhere.

use catchword_model::change::past::Judgement;
use catchword_model::change::{Change, Key};
use catchword_model::document::{AppError, Document, EditError, LoadError};
use catchword_model::genesis::genesis;
use catchword_model::history::History;
use catchword_model::hlc::Hlc;
use catchword_model::id::{Author, DeviceId, DocumentId};
use catchword_model::schema::DocumentKind;
use serde_json::json;

use crate::writer::{BOOK, Writer, insert, notes_object, put_text};

fn id() -> DocumentId {
    DocumentKind::Notes.document(BOOK)
}

fn author(device: u8) -> Author {
    Author { device: DeviceId([device; 16]), n: 0 }
}

fn notes(device: u8) -> Document {
    Document::load(DocumentKind::Notes, [], author(device), id()).unwrap()
}

fn stamp(ms: u64) -> Hlc {
    Hlc::new(ms, 0).unwrap()
}

fn bytes(changes: &[Change]) -> Vec<&[u8]> {
    changes.iter().map(Change::bytes).collect()
}

/// Asserts that any device admits the document's changes and has its heads.
fn assert_admitted(document: &Document) {
    let mut history = History::new(DocumentKind::Notes, id());
    for change in document.history() {
        assert_eq!(history.admit(change), Judgement::Admitted);
    }
    assert_eq!(history.heads(), document.heads());
}

#[test]
fn a_new_notes_document_is_its_genesis() {
    let document = notes(1);
    assert_eq!(document.heads(), [genesis(DocumentKind::Notes).hash()]);
    assert_eq!((document.journal(), document.app()), (String::new(), json!({})));
    assert_eq!(document.history(), [genesis(DocumentKind::Notes).clone()]);
}

#[test]
fn a_journal_is_edited_by_difference_under_the_devices_own_actor() {
    let mut document = notes(1);
    let first = document.set_journal("The whale is white.\n", stamp(10)).unwrap();
    let second = document.set_journal("The whale is very white.\n", stamp(20)).unwrap();
    assert_eq!(document.set_journal("The whale is very white.\n", stamp(30)).unwrap(), []);

    assert_eq!(document.journal(), "The whale is very white.\n");
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first[0].author, Some(author(1)));
    assert_eq!(first[0].actor, author(1).actor(id()));
    assert_eq!((second[0].seq, second[0].time), (2, stamp(20).to_time()));
    assert_eq!(second[0].ops.len(), "very ".len());
    assert_admitted(&document);

    let log = [first, second].concat();
    let again = Document::load(DocumentKind::Notes, bytes(&log), author(1), id()).unwrap();
    assert_eq!((again.journal(), again.heads()), (document.journal(), document.heads()));
}

#[test]
fn two_journals_written_at_once_merge_character_by_character() {
    let (mut one, mut other) = (notes(1), notes(2));
    let base = one.set_journal("Call me Ishmael.", stamp(1)).unwrap();
    other.apply(&bytes(&base)).unwrap();
    let here = one.set_journal("Call me Ishmael, please.", stamp(2)).unwrap();
    let there = other.set_journal("Do call me Ishmael.", stamp(2)).unwrap();
    one.apply(&bytes(&there)).unwrap();
    other.apply(&bytes(&here)).unwrap();

    assert_eq!(one.journal(), "Do call me Ishmael, please.");
    assert_eq!((one.journal(), one.heads()), (other.journal(), other.heads()));
    other.apply(&bytes(&here)).unwrap();
    assert_eq!(one.heads(), other.heads());
    assert_admitted(&other);
}

#[test]
fn a_journal_of_more_characters_than_a_change_may_have_becomes_several_changes() {
    let mut document = notes(1);
    let long: String = (0..60_000).map(|n| ['a', '\u{e9}', ' ', '\n'][n % 4]).collect();
    let changes = document.set_journal(&long, stamp(1)).unwrap();
    assert_eq!(changes.iter().map(|change| change.ops.len()).collect::<Vec<_>>(), [50_000, 10_000]);
    assert_eq!(document.journal(), long);
    let shorter = document.set_journal("b", stamp(2)).unwrap();
    assert_eq!(shorter.len(), 2);
    assert_eq!(document.journal(), "b");
    assert_admitted(&document);

    let heads = document.heads();
    let endless = "x".repeat(2_000_000);
    assert!(matches!(document.set_journal(&endless, stamp(3)), Err(EditError::TooLarge)));
    assert_eq!((document.journal().as_str(), document.heads()), ("b", heads));
}

#[test]
fn only_notes_have_a_journal() {
    let mut book = Document::load(DocumentKind::Book, [], author(1), BOOK.document()).unwrap();
    assert!(matches!(book.set_journal("x", stamp(1)), Err(EditError::NotNotes)));
    let edited = book.edit_app(stamp(1), |app| app.put(&["x"], &json!(1)));
    assert!(matches!(edited, Err(EditError::NotNotes)));
    assert_eq!((book.journal(), book.app()), (String::new(), json!(null)));
}

#[test]
fn the_applications_data_is_json_by_path() {
    let mut document = notes(1);
    let everything = json!({
        "theme": {"dark": true, "size": 1.5, "name": "caf\u{e9}", "none": null},
        "list": [1, [2, {"three": 3}], "four"],
        "big": u64::MAX,
        "small": -1,
    });
    let ((), change) = document
        .edit_app(stamp(1), |app| {
            for (key, value) in everything.as_object().unwrap() {
                app.put(&[key], value)?;
            }
            assert_eq!(app.get(&["list", "1", "1", "three"]), Some(json!(3)));
            assert_eq!(app.get(&["list", "9"]), None);
            Ok(())
        })
        .unwrap();
    assert!(change.is_some());
    assert_eq!(document.app(), everything);

    let (was, change) = document
        .edit_app(stamp(2), |app| {
            let was = app.get(&["theme", "size"]);
            app.put(&["theme", "size"], &json!(2))?;
            app.put(&["deep", "er"], &json!("made on the way"))?;
            app.put(&["list", "3"], &json!(5))?;
            app.delete(&["list", "0"])?;
            app.delete(&["small"])?;
            app.delete(&["no", "such"])?;
            Ok(was)
        })
        .unwrap();
    assert_eq!(was, Some(json!(1.5)));
    assert!(change.is_some());
    assert_eq!(document.app()["theme"]["size"], json!(2));
    assert_eq!(document.app()["deep"], json!({"er": "made on the way"}));
    assert_eq!(document.app()["list"], json!([[2, {"three": 3}], "four", 5]));
    assert_eq!(document.app().get("small"), None);
    assert_admitted(&document);

    let ((), nothing) = document
        .edit_app(stamp(3), |app| app.put(&["deep"], &json!({"er": "made on the way"})))
        .unwrap();
    assert_eq!(nothing, None);
}

#[test]
fn an_edit_of_the_applications_data_that_fails_leaves_no_trace() {
    let mut document = notes(1);
    document.edit_app(stamp(1), |app| app.put(&["word"], &json!("w"))).unwrap();
    let (before, heads) = (document.app(), document.heads());
    let deep: Vec<&str> = vec!["d"; 17];
    let long = "k".repeat(257);
    for path in [&[][..], &[""], &deep, &[long.as_str()]] {
        let put = document.edit_app(stamp(2), |app| {
            app.put(&["other"], &json!(1))?;
            app.put(path, &json!(2))
        });
        assert!(matches!(put, Err(EditError::App(AppError::Path { .. }))), "{path:?}");
    }
    let nested = json!({"": 1});
    let put = document.edit_app(stamp(2), |app| app.put(&["a"], &nested));
    assert!(matches!(put, Err(EditError::App(AppError::Path { .. }))));
    let put = document.edit_app(stamp(2), |app| app.put(&["word", "deeper"], &json!(1)));
    assert!(matches!(put, Err(EditError::App(AppError::NoContainer { .. }))));
    let huge = json!("x".repeat(5 << 20));
    let put = document.edit_app(stamp(2), |app| app.put(&["huge"], &huge));
    assert!(matches!(put, Err(EditError::TooLarge)));
    assert_eq!((document.app(), document.heads()), (before, heads));
}

#[test]
fn what_two_devices_put_under_different_keys_both_stays() {
    let (mut one, mut other) = (notes(1), notes(2));
    let put = |document: &mut Document, key: &'static str| {
        document.edit_app(stamp(1), |app| app.put(&[key], &json!(key))).unwrap().1.unwrap()
    };
    let (here, there) = (put(&mut one, "a"), put(&mut other, "b"));
    one.apply(&[there.bytes()]).unwrap();
    other.apply(&[here.bytes()]).unwrap();
    assert_eq!(one.app(), json!({"a": "a", "b": "b"}));
    assert_eq!((one.app(), one.heads()), (other.app(), other.heads()));
}

#[test]
fn what_is_missing_damaged_or_stops_automerge_leaves_the_document_as_it_was() {
    let mut document = notes(1);
    document.set_journal("kept", stamp(1)).unwrap();
    let (journal, heads) = (document.journal(), document.heads());
    let mut other = notes(2);
    let first = other.set_journal("a", stamp(1)).unwrap();
    let second = other.set_journal("ab", stamp(2)).unwrap();

    assert!(matches!(document.apply(&bytes(&second)), Err(LoadError::Incomplete)));
    let mut damaged = first[0].bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(document.apply(&[&damaged]), Err(LoadError::Read(_))));
    // An element that was never inserted: the judge refuses it, and automerge stops over it.
    let writer = Writer::new(3, DocumentKind::Notes);
    let nowhere =
        Key::Element(catchword_model::change::OpId { counter: 1, actor: author(9).actor(id()) });
    let stops =
        writer.draft(vec![insert(notes_object("journal"), nowhere, put_text("x"))]).encode();
    assert!(matches!(document.apply(&[stops.bytes()]), Err(LoadError::Refused)));
    assert_eq!((document.journal(), document.heads()), (journal, heads));

    document.apply(&bytes(&[first, second.clone()].concat())).unwrap();
    assert_eq!(document.heads().len(), 2);
    let alone = Document::load(DocumentKind::Notes, bytes(&second), author(1), id());
    assert!(matches!(alone.err(), Some(LoadError::Incomplete)));
}

#[test]
fn a_saved_document_is_one_that_automerge_loads() {
    let mut document = notes(1);
    document.set_journal("for everybody", stamp(1)).unwrap();
    let theirs = automerge::Automerge::load(&document.save()).unwrap();
    let heads: Vec<_> = theirs.get_heads().iter().map(|hash| hash.0).collect();
    assert_eq!(heads, document.heads().iter().map(|hash| hash.0).collect::<Vec<_>>());
}

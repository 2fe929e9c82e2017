//! Annotations, tags, titles, shelves; undo; events.

use catchword::{AnnotationEdit, AnnotationId, Deed, EditError, Event, NewAnnotation, WHOLE_BOOK};

use crate::support::{at, device};

#[test]
fn annotations_stand_in_reading_order_and_those_without_a_place_last() {
    let device = device("phone");
    let book = device.sample();
    for (quote, ppm) in [("late", Some(9_000)), ("none", None), ("early", Some(10))] {
        let new = NewAnnotation::highlight(quote);
        book.annotate(match ppm {
            Some(ppm) => new.at(at(ppm)),
            None => new,
        })
        .unwrap();
    }
    let quotes = |range| -> Vec<String> {
        book.annotations(range).unwrap().into_iter().map(|one| one.quote).collect()
    };
    assert_eq!(quotes(WHOLE_BOOK), ["early", "late", "none"]);
    assert_eq!(quotes(0..9_000), ["early"]);
    assert_eq!(quotes(9_000..1_000_000), ["late"]);
}

#[test]
fn a_deleted_annotation_cannot_be_edited_before_it_is_back() {
    let device = device("phone");
    let book = device.sample();
    let id = book.annotate(NewAnnotation::highlight("a").with_note("first")).unwrap().id;
    book.delete(id).unwrap();
    assert_eq!(book.annotations(WHOLE_BOOK).unwrap(), []);

    let edit = AnnotationEdit::new().note("second");
    assert!(matches!(book.edit(id, &edit), Err(EditError::Deleted(of)) if of == id));

    book.undelete(id).unwrap();
    book.edit(id, &edit).unwrap();
    let shown = book.annotation(id).unwrap().unwrap();
    assert_eq!((shown.note.as_deref(), shown.deleted), (Some("second"), false));
}

#[test]
fn an_annotation_that_is_not_there_is_not_found() {
    let device = device("phone");
    let book = device.sample();
    let id = AnnotationId([7; 16]);
    let edit = AnnotationEdit::new().note("x");
    for outcome in [book.edit(id, &edit), book.delete(id), book.undelete(id)] {
        assert!(matches!(outcome, Err(EditError::NoAnnotation(of)) if of == id));
    }
}

#[test]
fn a_quote_or_note_that_nobody_would_be_shown_is_refused() {
    let device = device("phone");
    let book = device.sample();
    let before = book.view().unwrap();
    let long = NewAnnotation::highlight("x".repeat(catchword::QUOTE_BYTES_MAX + 1));
    assert!(matches!(book.annotate(long), Err(EditError::TooLarge { .. })));
    let long = NewAnnotation::highlight("x").with_note("x".repeat(catchword::NOTE_BYTES_MAX + 1));
    assert!(matches!(book.annotate(long), Err(EditError::TooLarge { .. })));
    assert_eq!(book.view().unwrap(), before);
}

#[test]
fn undo_takes_back_edits_in_turn_and_redo_makes_them_again() {
    let device = device("phone");
    let book = device.sample();
    let id = book.annotate(NewAnnotation::highlight("a").with_note("one")).unwrap().id;
    book.edit(id, &AnnotationEdit::new().note("two").color("red")).unwrap();
    book.tag(&["sea"], &[]).unwrap();
    let shown = || {
        let one = book.annotation(id).unwrap().unwrap();
        (one.note.unwrap_or_default(), one.color.unwrap_or_default(), one.deleted)
    };

    assert!(book.undo().unwrap());
    assert_eq!(book.tags().unwrap(), Vec::<String>::new());
    assert!(book.undo().unwrap());
    assert_eq!(shown(), ("one".to_owned(), String::new(), false));
    assert!(book.undo().unwrap());
    assert!(shown().2);
    assert!(!book.undo().unwrap());

    while book.redo().unwrap() {}
    assert_eq!(shown(), ("two".to_owned(), "red".to_owned(), false));
    assert_eq!(book.tags().unwrap(), ["sea"]);
}

#[test]
fn what_changed_nothing_cannot_be_undone() {
    let device = device("phone");
    let book = device.sample();
    book.tag(&["sea"], &[]).unwrap();
    book.tag(&["sea"], &["never there"]).unwrap();
    assert!(book.undo().unwrap());
    assert!(!book.undo().unwrap());
}

#[test]
fn tags_are_kept_in_one_form() {
    let device = device("phone");
    let book = device.sample();
    book.tag(&["  cafe\u{301} ", "sea"], &[]).unwrap();
    book.tag(&["caf\u{e9}"], &["sea"]).unwrap();
    assert_eq!(book.tags().unwrap(), ["caf\u{e9}"]);
    assert!(matches!(book.tag(&[" "], &[]), Err(EditError::Tag(_))));
}

#[test]
fn a_title_given_by_a_person_stays_when_the_file_is_imported_again() {
    let device = device("phone");
    let book = device.sample();
    book.set_title("The Lamp").unwrap();
    device.library.remove(book.id()).unwrap();
    let again = device.sample();
    assert_eq!(again.title().unwrap(), "The Lamp");
}

#[test]
fn shelves_hold_books_and_deleting_one_leaves_them() {
    let device = device("phone");
    let book = device.sample();
    let id = device.library.create_shelf("To read").unwrap();
    device.library.fill_shelf(id, &[book.id()], &[]).unwrap();
    let shelves = device.library.shelves().unwrap();
    assert_eq!(shelves.len(), 1);
    assert_eq!((shelves[0].name.as_str(), &shelves[0].books), ("To read", &vec![book.id()]));

    device.library.rename_shelf(id, "Read").unwrap();
    device.library.fill_shelf(id, &[], &[book.id()]).unwrap();
    assert_eq!(device.library.shelves().unwrap()[0].books, []);

    device.library.delete_shelf(id).unwrap();
    assert_eq!(device.library.shelves().unwrap(), []);
    assert!(matches!(device.library.delete_shelf(id), Err(EditError::NoShelf)));
    assert_eq!(device.library.books().unwrap().len(), 1);
}

#[test]
fn subscribers_hear_of_every_kind_of_change_once_and_in_order() {
    let device = device("phone");
    let subscription = device.library.subscribe();
    let book = device.sample();
    let added = book.annotate(NewAnnotation::highlight("a").at(at(5))).unwrap().id;
    book.edit(added, &AnnotationEdit::new().note("n")).unwrap();
    book.delete(added).unwrap();
    book.delete(added).unwrap();
    book.tag(&["sea"], &[]).unwrap();
    let shelf = device.library.create_shelf("s").unwrap();
    device.library.remove(book.id()).unwrap();

    let (book, id) = (book.id(), added);
    let expected = [
        Event::BookAdded { book },
        Event::AnnotationAdded { book, id },
        Event::AnnotationChanged { book, id },
        Event::AnnotationRemoved { book, id },
        Event::TagsChanged { book },
        Event::ShelfChanged { shelf },
        Event::BookRemoved { book },
    ];
    let heard: Vec<Event> = std::iter::from_fn(|| subscription.try_next()).collect();
    assert_eq!(heard, expected);
}

#[test]
fn the_history_says_what_an_edit_did_and_no_more() {
    let device = device("phone");
    let book = device.sample();
    let id = book.annotate(NewAnnotation::highlight("a")).unwrap().id;
    book.edit(id, &AnnotationEdit::new().note("n")).unwrap();
    book.delete(id).unwrap();
    book.undelete(id).unwrap();

    let history = book.history().unwrap();
    let deeds = history.into_iter().map(|entry| entry.deed);
    let deeds: Vec<Deed> = deeds.filter(|deed| !matches!(deed, Deed::Described { .. })).collect();
    let kind = catchword::Kind::Highlight;
    let expected = [
        Deed::Annotated { id, kind, quote: "a".to_owned(), note: None },
        Deed::Edited { id, field: "note".to_owned(), value: "n".to_owned() },
        Deed::Deleted { id },
        Deed::Undeleted { id },
    ];
    assert_eq!(deeds, expected);
}

//! Opening libraries; importing, finding and removing books.

use catchword::{
    Config, FindError, ImportError, Library, Newness, OpenError, ReadError, RefusedFile,
};

use crate::support::{device, read, sample_file};

fn is_send_and_sync<T: Send + Sync + Clone>() {}

#[test]
fn handles_go_to_any_thread() {
    is_send_and_sync::<Library>();
    is_send_and_sync::<catchword::Book>();
}

#[test]
fn a_library_is_made_once_and_opened_by_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("library");
    let missing = Library::open_existing(&path, Config::default());
    assert!(matches!(missing, Err(OpenError::NoLibrary)));
    assert!(!path.exists(), "looking for a library makes none");

    let library = Library::open(&path).unwrap();
    assert!(matches!(Library::create(&path, Config::default()), Err(OpenError::AlreadyThere)));
    assert!(matches!(Library::open(&path), Err(OpenError::Busy)));

    let device = library.device();
    drop(library);
    let again = Library::open(&path).unwrap();
    assert_eq!(again.device(), device);
    assert_eq!(again.opened().new_generation, None);
}

#[test]
fn the_name_of_a_device_is_the_one_it_was_made_with() {
    let phone = device("phone");
    let names = phone.library.devices().unwrap();
    assert_eq!(names.get(&phone.library.device()).unwrap().name, "phone");
}

#[test]
fn importing_a_book_twice_changes_nothing() {
    let device = device("phone");
    let path = sample_file(device.folder.path());
    let first = device.library.import(&path).unwrap();
    assert_eq!(first.newness, Newness::New);
    let before = first.book.view().unwrap();

    let second = device.library.import(&path).unwrap();
    assert_eq!(second.newness, Newness::Known);
    assert_eq!(second.book.view().unwrap(), before);
    assert_eq!(device.library.books().unwrap().len(), 1);
}

#[test]
fn the_file_is_copied_and_noticed_when_it_changes() {
    let device = device("phone");
    let path = sample_file(device.folder.path());
    let book = device.library.import(&path).unwrap().book;
    std::fs::remove_file(&path).unwrap();
    assert_eq!(book.file().unwrap().title, Some(book.title().unwrap()));

    let id = book.id().to_string();
    let copy = device.path().join("files").join(&id[..2]).join(&id);
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    assert!(matches!(book.file(), Err(ReadError::DamagedFile)));
}

#[test]
fn a_file_that_is_no_book_is_refused_and_leaves_nothing() {
    let device = device("phone");
    let path = device.folder.path().join("notes.txt");
    std::fs::write(&path, "not a book").unwrap();

    let refused = device.library.import(&path);
    assert!(matches!(refused, Err(ImportError::Refused(RefusedFile::NotABook))));
    let gone = device.library.import(device.folder.path().join("nowhere.epub"));
    assert!(matches!(gone, Err(ImportError::Io(_))));

    assert_eq!(device.library.books().unwrap(), []);
    assert!(!device.path().join("files").exists());
}

#[test]
fn a_book_without_a_title_is_called_after_its_file() {
    let device = device("phone");
    let path = device.folder.path().join("my walk.epub");
    let untitled = catchword_formats::sample::Builder::new("").chapter("One", "Rain.").build();
    std::fs::write(&path, untitled).unwrap();
    let imported = device.library.import(&path).unwrap();
    assert_eq!(imported.title, "my walk");
    assert_eq!(imported.book.title().unwrap(), "my walk");
}

#[test]
fn a_book_is_found_by_id_beginning_or_title_and_not_by_less() {
    let device = device("phone");
    let book = device.sample();
    let (id, title) = (book.id().to_string(), book.title().unwrap());
    for name in [id.as_str(), &id[..6], &id[..40], &title] {
        assert_eq!(device.library.find(name).unwrap().id(), book.id(), "{name}");
    }
    for name in [&id[..5], "", "no such title", &format!("{id}0")] {
        let outcome = device.library.find(name);
        assert!(matches!(outcome, Err(FindError::NotFound { .. })), "{name}");
    }
}

#[test]
fn two_books_of_one_title_are_told_apart_by_their_ids() {
    let device = device("phone");
    let mut books = Vec::new();
    for text in ["one", "two"] {
        let path = device.folder.path().join(format!("{text}.epub"));
        let bytes = catchword_formats::sample::Builder::new("Twins").chapter("1", text).build();
        std::fs::write(&path, bytes).unwrap();
        books.push(device.library.import(path).unwrap().book.id());
    }
    books.sort_unstable();
    match device.library.find("Twins") {
        Err(FindError::Ambiguous { books: mut found, .. }) => {
            found.sort_unstable();
            assert_eq!(found, books);
        }
        other => panic!("{other:?}"),
    }
    device.library.remove(books[0]).unwrap();
    assert_eq!(device.library.find("Twins").unwrap().id(), books[1]);
}

#[test]
fn a_removed_book_comes_back_as_it_was() {
    let device = device("phone");
    let book = device.sample();
    read(&book, 300_000);
    let before = book.view().unwrap();
    let title = book.title().unwrap();

    device.library.remove(book.id()).unwrap();
    assert_eq!(device.library.books().unwrap(), []);
    assert!(device.library.book(book.id()).unwrap().is_none());
    for name in [&title, &book.id().to_string()] {
        assert!(matches!(device.library.find(name), Err(FindError::NotFound { .. })), "{name}");
    }
    assert!(matches!(book.file(), Err(ReadError::NoFile)));

    let path = sample_file(device.folder.path());
    let back = device.library.import(path).unwrap();
    assert_eq!(back.newness, Newness::Back);
    assert_eq!(back.book.view().unwrap(), before);
    assert!(back.book.file().is_ok());
}

#[test]
fn a_cfi_leads_to_the_beginning_of_its_file() {
    let device = device("phone");
    let book = device.sample();
    let file = book.file().unwrap();
    assert!(1 < file.spine.len());
    let second = file.total_ppm_at(&file.spine[1].href, 0);
    assert_eq!(book.ppm_of_cfi("epubcfi(/6/4!/4/2)").unwrap(), second);
    assert_eq!(book.ppm_of_cfi("epubcfi(/6/2!/4/2)").unwrap(), Some(0));
    assert_eq!(book.ppm_of_cfi("epubcfi(/6/4000!/4/2)").unwrap(), None);
    assert_eq!(book.ppm_of_cfi("nonsense").unwrap(), None);
    assert_eq!(book.ppm_of_page(1).unwrap(), None);
}

#[test]
fn a_made_up_library_can_be_stopped_and_goes_on_where_it_was() {
    use std::ops::ControlFlow;

    let generate = |device: &crate::support::Device, stop_at: u64| {
        let mut last = (0, 0);
        let generated = device.library.generate(3, 1_100, 5, |done, total| {
            last = (done, total);
            if done < stop_at { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        (generated.unwrap().annotations, last)
    };
    let stopped = device("phone");
    let (first, last) = generate(&stopped, 100);
    assert!(0 < first && first < 3_300 && last.0 < last.1, "{first} {last:?}");
    let (second, last) = generate(&stopped, u64::MAX);
    assert_eq!((first + second, last.0), (3_300, last.1));
    assert_eq!(generate(&stopped, u64::MAX).0, 0, "everything is there");

    let whole = device("phone");
    assert_eq!(generate(&whole, u64::MAX).0, 3_300);
    let counts = |device: &crate::support::Device| {
        let books = device.library.books().unwrap().into_iter();
        let mut counts: Vec<_> = books.map(|one| (one.title, one.ppm, one.annotations)).collect();
        counts.sort();
        counts
    };
    assert_eq!(counts(&stopped), counts(&whole));
    assert!(counts(&whole).iter().all(|(_, _, annotations)| *annotations == 1_100));
}

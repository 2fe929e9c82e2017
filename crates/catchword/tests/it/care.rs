//! Checking and compacting.

use std::ops::ControlFlow;

use catchword::{BackupError, Config, End, Existing, Library, NewAnnotation, Repair, RestoreError};

use crate::support::{at, device, read};

#[test]
fn a_library_in_use_is_clean_and_stays_so_when_it_is_compacted() {
    let device = device("phone");
    let book = device.sample();
    for number in 0..200 {
        book.annotate(NewAnnotation::highlight("a").at(at(number * 1_000))).unwrap();
    }
    read(&book, 300_000);
    book.set_journal("A note.").unwrap();
    let before = (book.view().unwrap(), book.history().unwrap());

    let checked = device.library.check(Repair::ReportOnly, &mut |_| ControlFlow::Continue(()));
    let checked = checked.unwrap();
    assert!(checked.is_clean(), "{checked:?}");
    assert_eq!((checked.files, checked.end), (1, End::Finished));

    let packed = device.library.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    assert!(200 <= packed.changes, "{packed:?}");
    assert_eq!((book.view().unwrap(), book.history().unwrap()), before);
    let checked = device.library.check(Repair::ReportOnly, &mut |_| ControlFlow::Continue(()));
    assert!(checked.unwrap().is_clean());
}

#[test]
fn a_file_that_changed_or_is_gone_is_named() {
    let device = device("phone");
    let book = device.sample();
    let id = book.id().to_string();
    let copy = device.path().join("files").join(&id[..2]).join(&id);
    let check = || {
        let checked = device.library.check(Repair::ReportOnly, &mut |_| ControlFlow::Continue(()));
        checked.unwrap()
    };

    std::fs::write(&copy, "something else").unwrap();
    assert_eq!(check().damaged_files, [book.id()]);
    std::fs::remove_file(&copy).unwrap();
    assert_eq!(check().missing_files, [book.id()]);
    assert!(!check().is_clean());
}

#[test]
fn a_check_that_is_stopped_says_so() {
    let device = device("phone");
    device.sample();
    let checked = device.library.check(Repair::ReportOnly, &mut |_| ControlFlow::Break(()));
    assert_eq!(checked.unwrap().end, End::Stopped);
}

#[test]
fn a_backup_brings_everything_back_on_a_new_device() {
    let device = device("phone");
    let book = device.sample();
    read(&book, 300_000);
    let id = book.annotate(NewAnnotation::highlight("a").at(at(5)).with_note("n")).unwrap().id;
    book.set_journal("A note.").unwrap();
    let before = (book.view().unwrap(), book.history().unwrap());
    let backup = device.folder.path().join("backup");
    let made = device.library.backup(&backup, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((made.files, made.files_left_out.len()), (1, 0));
    let old = device.library.device();
    book.delete(id).unwrap();

    let empty = device.folder.path().join("empty");
    let restored = Library::restore(&backup, &empty, Existing::Refuse).unwrap();
    assert_eq!(restored.files, 1);
    let library = Library::open_existing(&empty, Config::default()).unwrap();
    let again = library.book(book.id()).unwrap().unwrap();
    assert_eq!((again.view().unwrap(), again.history().unwrap()), before);
    assert!(again.file().is_ok());
    assert_ne!(library.device(), old);
    assert_eq!(library.replaced_devices(), [old]);

    let refused = Library::restore(&backup, &empty, Existing::Refuse);
    assert!(matches!(refused, Err(RestoreError::Busy | RestoreError::AlreadyThere)));
}

#[test]
fn a_file_that_is_no_backup_is_neither_restored_nor_overwritten() {
    let device = device("phone");
    let path = device.folder.path().join("letter.txt");
    std::fs::write(&path, "Dear reader").unwrap();
    let empty = device.folder.path().join("empty");

    let refused = Library::restore(&path, &empty, Existing::Replace);
    assert!(matches!(refused, Err(RestoreError::NotABackup { .. })), "{refused:?}");
    assert!(!empty.join("library").exists());
    let refused = device.library.backup(&path, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(BackupError::Occupied)), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "Dear reader");
}

//! A backup holds everything, and what is restored from it never uses an actor again.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use catchword_model::change::Change;
use catchword_model::id::{ActorId, BookId, ChangeHash, DeviceId};
use catchword_store::{
    BackupError, BackupReport, BookFileRecord, Evidence, Existing, Progress, Repair, RestoreError,
    Signed, Signer, Store, book_id, events_message, head_message, restore,
};

use crate::support::{BOOK, MONDAY_MS, annotate, library, options, titled, turn};

/// Signs with a hash in place of a curve: here it counts what is signed, not how.
struct Key(Vec<u8>);

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        signature(&self.0, message)
    }

    fn public_key_spki(&self) -> &[u8] {
        &self.0
    }
}

fn signature(key: &[u8], message: &[u8]) -> [u8; 64] {
    let hash = catchword_model::id::sha256(&[key, message]);
    [hash, hash].concat().try_into().unwrap()
}

fn key() -> Key {
    Key(options(1).public_key_spki)
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn back_up(store: &Store, to: &Path) -> BackupReport {
    store.backup(to, &key(), &mut go_on).unwrap()
}

const FILE: &[u8] = b"Call me Ishmael.";

/// A library with a book that was read and annotated, its file, and a turn that waits.
fn read_library(folder: &Path) -> Store {
    let store = library(folder, 1);
    let (book, bytes) = book_id(FILE).unwrap();
    store.add_book(book, titled("Moby-Dick, the file"), Vec::new(), MONDAY_MS).unwrap();
    store.keep_file(book, FILE).unwrap();
    store.record_file(book, &BookFileRecord { bytes, name: "moby.epub".to_owned() }).unwrap();
    store.turn(BOOK, &turn(100_000), MONDAY_MS).unwrap();
    for n in 0..20 {
        store.append(BOOK.document(), &[annotate(n, 5)], MONDAY_MS).unwrap();
    }
    store.set_journal(BOOK, "A whale of a book.", MONDAY_MS).unwrap();
    store.turn(BOOK, &turn(200_000), MONDAY_MS).unwrap();
    store
}

fn changes(store: &Store) -> BTreeMap<(ActorId, u64), ChangeHash> {
    let mut all = BTreeMap::new();
    for document in [BOOK.document(), BOOK.notes_document()] {
        let note = |change: Change| {
            all.insert((change.actor, change.seq), change.hash());
        };
        store.changes(document, note).unwrap();
    }
    all
}

fn write_more(store: &Store) {
    store.append(BOOK.document(), &[annotate(500, 9)], MONDAY_MS).unwrap();
    store.set_journal(BOOK, "Another ending.", MONDAY_MS).unwrap();
    store.publish_all().unwrap();
}

/// Asserts that what `after` wrote since `before` is by other actors than all of `before`.
fn assert_new_actors(
    before: &BTreeMap<(ActorId, u64), ChangeHash>,
    after: &BTreeMap<(ActorId, u64), ChangeHash>,
) {
    let mut new = 0;
    for ((actor, seq), hash) in after {
        if let Some(known) = before.get(&(*actor, *seq)) {
            assert_eq!(known, hash);
        } else {
            let old = before.keys().any(|(known, _)| known == actor);
            assert!(!old, "{actor} goes on at {seq}");
            new += 1;
        }
    }
    assert!(1 < new, "nothing was written");
}

fn assert_whole(store: &Store) {
    let report = store.check(Repair::ReportOnly, &mut go_on).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let (book, _) = book_id(FILE).unwrap();
    assert_eq!(fs::read(kept(store.folder().unwrap(), book)).unwrap(), FILE);
    store.open_file(book).unwrap();
    assert_eq!(store.journal(BOOK).unwrap(), "A whale of a book.");
    let mut annotations = 0;
    store.annotations(BOOK, 0, u32::MAX, |_| annotations += 1).unwrap();
    assert_eq!(annotations, 20);
}

fn kept(folder: &Path, book: BookId) -> std::path::PathBuf {
    let name = book.to_string();
    folder.join("files").join(&name[..2]).join(name)
}

#[test]
fn a_backup_restored_into_empty_folders_starts_a_new_generation_each_time() {
    let (home, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = files.path().join("monday.backup");
    let store = read_library(home.path());
    let report = back_up(&store, &backup);
    assert_eq!((report.files, report.files_left_out.len()), (1, 0));
    assert_eq!(report.bytes, fs::metadata(&backup).unwrap().len());
    assert_eq!(files.path().read_dir().unwrap().count(), 1, "something was left behind");
    let before = changes(&store);
    assert!(store.pending_turn(BOOK).is_some(), "a backup publishes nothing");
    write_more(&store);
    let ours = changes(&store);

    let mut devices = vec![store.device()];
    let mut written = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let restored = folder.path().join("new");
        let report = restore(&backup, &restored, Existing::Refuse).unwrap();
        assert_eq!((report.documents, report.files), (4, 1));
        let restored = Store::open(&restored, &options(1)).unwrap();
        assert_eq!(restored.opened().new_generation, Some(Evidence::NoWitness));
        assert!(!restored.opened().library_repaired);
        assert_eq!(changes(&restored), before, "the turn that waited is an event only");
        assert_eq!(restored.view(BOOK).unwrap().unwrap().events.count, 2);
        assert_whole(&restored);
        write_more(&restored);
        assert_new_actors(&ours, &changes(&restored));
        devices.push(restored.device());
        written.push(changes(&restored));
    }
    assert_new_actors(&written[0], &written[1]);
    devices.sort();
    devices.dedup();
    assert_eq!(devices.len(), 3);
}

#[test]
fn a_backup_restored_over_its_own_folder_starts_a_new_generation() {
    let (home, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = files.path().join("b");
    fs::write(home.path().join("key"), "secret").unwrap();
    let store = read_library(home.path());
    back_up(&store, &backup);
    let mut before = changes(&store);
    write_more(&store);
    before.extend(changes(&store));

    let refused = restore(&backup, home.path(), Existing::Replace);
    assert!(matches!(refused, Err(RestoreError::Locked)), "{refused:?}");
    drop(store);
    let refused = restore(&backup, home.path(), Existing::Refuse);
    assert!(matches!(refused, Err(RestoreError::Exists)), "{refused:?}");
    let store = Store::open(home.path(), &options(1)).unwrap();
    assert_eq!((store.opened().new_generation, changes(&store)), (None, before.clone()));
    drop(store);

    for _ in 0..2 {
        restore(&backup, home.path(), Existing::Replace).unwrap();
        let store = Store::open(home.path(), &options(1)).unwrap();
        assert_eq!(store.opened().new_generation, Some(Evidence::NoWitness));
        assert_whole(&store);
        write_more(&store);
        assert_new_actors(&before, &changes(&store));
        before.extend(changes(&store));
        drop(store);
        let mut left: Vec<_> =
            home.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["files", "key", "library", "restore.lock", "wal", "witness"]);
    }
    assert_eq!(fs::read_to_string(home.path().join("key")).unwrap(), "secret");
}

#[test]
fn the_newest_change_and_event_of_every_own_actor_is_signed() {
    let (home, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = files.path().join("b");
    let store = read_library(home.path());
    let made = back_up(&store, &backup).statements;
    // The library, two books, the notes; and the events of one book.
    assert_eq!(made, 5);
    assert_eq!(back_up(&store, &backup).statements, 0, "what is signed is not signed again");

    let mut newest: BTreeMap<ActorId, (u64, ChangeHash)> = BTreeMap::new();
    for ((actor, seq), hash) in changes(&store) {
        newest
            .entry(actor)
            .and_modify(|last| *last = (*last).max((seq, hash)))
            .or_insert((seq, hash));
    }
    let mut events = Vec::new();
    store.events(BOOK, |event| events.push(event)).unwrap();
    let statements = store.statements(BOOK.document()).unwrap();
    assert_eq!(statements.len(), 2);
    for statement in &statements {
        let device = DeviceId::derive(&statement.public_key_spki, statement.generation);
        assert_eq!(device, store.device());
        assert_eq!(statement.actor, ActorId::derive(device, BOOK.document(), 0));
        let message = match statement.signed {
            Signed::Change { seq } => {
                assert_eq!(seq, newest[&statement.actor].0);
                let hash = newest[&statement.actor].1;
                head_message(BOOK.document(), statement.actor, seq, hash)
            }
            Signed::Event { n } => {
                let last = events.last().unwrap();
                assert_eq!(n, last.n);
                events_message(BOOK.document(), statement.actor, n, last.hash())
            }
        };
        assert_eq!(statement.signature, signature(&key().0, &message));
    }

    // A restored library signs what its earlier generation wrote, too: the key is the same.
    let again = tempfile::tempdir().unwrap();
    restore(&backup, again.path(), Existing::Refuse).unwrap();
    let restored = Store::open(again.path(), &options(1)).unwrap();
    assert_eq!(restored.statements(BOOK.document()).unwrap(), statements);
    restored.append(BOOK.document(), &[annotate(77, 1)], MONDAY_MS).unwrap();
    back_up(&restored, &files.path().join("c"));
    assert_eq!(restored.statements(BOOK.document()).unwrap().len(), 4);
    let other = Key(vec![9; 44]);
    let refused = restored.backup(&backup, &other, &mut go_on);
    assert!(matches!(refused, Err(BackupError::OtherKey)), "{refused:?}");
}

#[test]
fn a_backup_that_was_cut_off_or_changed_is_refused_and_nothing_changes() {
    let (home, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (backup, harmed) = (files.path().join("b"), files.path().join("harmed"));
    let store = read_library(home.path());
    back_up(&store, &backup);
    let before = changes(&store);
    drop(store);
    let bytes = fs::read(&backup).unwrap();
    let target = tempfile::tempdir().unwrap();

    let mut tried = 0;
    let mut refuse = |bytes: &[u8], what: &str| {
        fs::write(&harmed, bytes).unwrap();
        for folder in [home.path(), target.path()] {
            let refused = restore(&harmed, folder, Existing::Replace);
            let typed =
                matches!(refused, Err(RestoreError::Damaged { .. } | RestoreError::Newer { .. }));
            assert!(typed, "{what}: {refused:?}");
        }
        tried += 1;
    };
    let places = (0..70).chain((70..bytes.len()).step_by(bytes.len() / 40));
    for place in places.chain(bytes.len() - 45..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        refuse(&flipped, &format!("bit {place}"));
    }
    for len in [0, 1, 16, 17, 57, 58, 5_000, bytes.len() / 2, bytes.len() - 33, bytes.len() - 1] {
        refuse(&bytes[..len], &format!("length {len}"));
    }
    refuse(&[&bytes[..], b"x"].concat(), "one byte more");
    eprintln!("{tried} damaged backups refused");

    assert_eq!(target.path().read_dir().unwrap().count(), 0);
    let store = Store::open(home.path(), &options(1)).unwrap();
    assert_eq!(store.opened().new_generation, None);
    assert_eq!(changes(&store), before);
}

#[test]
fn a_backup_never_replaces_what_is_no_backup_and_stops_when_asked() {
    let (home, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = read_library(home.path());
    let letter = files.path().join("letter.txt");
    fs::write(&letter, "Dear reader").unwrap();

    let refused = store.backup(&letter, &key(), &mut go_on);
    assert!(matches!(refused, Err(BackupError::Occupied)), "{refused:?}");
    let backup = files.path().join("b");
    let stopped = store.backup(&backup, &key(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(BackupError::Stopped)), "{stopped:?}");

    assert_eq!(fs::read_to_string(&letter).unwrap(), "Dear reader");
    assert_eq!(files.path().read_dir().unwrap().count(), 1);
    fs::remove_file(kept(home.path(), book_id(FILE).unwrap().0)).unwrap();
    let report = back_up(&store, &backup);
    assert_eq!((report.files, report.files_left_out), (0, vec![book_id(FILE).unwrap().0]));
}

#[test]
fn a_restore_that_was_cut_off_leaves_the_old_library_or_the_new_one() {
    let (home, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = files.path().join("b");
    let store = read_library(home.path());
    back_up(&store, &backup);
    let restored = changes(&store);
    write_more(&store);
    let old = changes(&store);
    drop(store);
    let unpacked = tempfile::tempdir().unwrap();
    restore(&backup, unpacked.path(), Existing::Refuse).unwrap();

    // What putting it in place does, one after the other: a crash may come after any of them.
    let moves = [
        "restoring>restored",
        "witness>",
        "wal>wal.replaced",
        "restored/wal>wal",
        "library>library.replaced",
        "restored/library>library",
    ];
    for made in 0..=moves.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        // Moved, not copied: a copied library would start a new generation in any case.
        let copy = |from: &Path, to: &Path| fs::copy(from, to).map(drop).unwrap();
        for file in ["wal", "library", "witness"] {
            copy(&home.path().join(file), &path.join(file));
        }
        fs::create_dir(path.join("restoring")).unwrap();
        for file in ["wal", "library"] {
            copy(&unpacked.path().join(file), &path.join("restoring").join(file));
        }
        for (from, to) in moves[..made].iter().map(|step| step.split_once('>').unwrap()) {
            match to {
                "" => fs::remove_file(path.join(from)).unwrap(),
                to => fs::rename(path.join(from), path.join(to)).unwrap(),
            }
        }

        let store = Store::open(path, &options(1)).unwrap();
        assert!(store.opened().new_generation.is_some(), "after {made} moves");
        let expected = if 0 < made { &restored } else { &old };
        for (place, hash) in expected {
            assert_eq!(changes(&store).get(place), Some(hash), "after {made} moves");
        }
        assert_eq!(changes(&store).len(), expected.len(), "after {made} moves");
        assert!(store.check(Repair::ReportOnly, &mut go_on).unwrap().is_clean());
        assert!(!path.join("restored").exists() && !path.join("library.replaced").exists());
    }
}

/// A full disk, by a limit on the size of files: the same test, run again under the limit, works on
/// what it finds in the folder that this variable names.
const FULL: &str = "CATCHWORD_TEST_FULL_DISK";

#[test]
fn a_full_disk_leaves_no_half_backup_and_no_half_library() {
    if let Some(folder) = std::env::var_os(FULL) {
        work_on_a_full_disk(Path::new(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (home, backup) = (folder.path().join("home"), folder.path().join("b"));
    let store = read_library(&home);
    back_up(&store, &backup);
    let before = changes(&store);
    drop(store);
    let blocks = fs::metadata(&backup).unwrap().len() / 512 / 3;

    let this = std::env::current_exe().unwrap();
    let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let name = "backup::a_full_disk_leaves_no_half_backup_and_no_half_library";
    // Pipes: the limit counts for a file that the output is sent to as well.
    let output = Command::new("sh")
        .args(["-c", &limited, "sh"])
        .arg(this)
        .args(["--exact", name, "--nocapture"])
        .env(FULL, folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let store = Store::open(&home, &options(1)).unwrap();
    assert_eq!((store.opened().new_generation, changes(&store)), (None, before));
    assert_whole(&store);
    assert!(!folder.path().join("c").exists() && !home.join("restoring").exists());
    assert_eq!(folder.path().join("empty").read_dir().unwrap().count(), 1, "only the lock");
}

fn work_on_a_full_disk(folder: &Path) {
    let (home, empty) = (folder.join("home"), folder.join("empty"));
    for target in [&home, &empty] {
        let refused = restore(&folder.join("b"), target, Existing::Replace);
        assert!(matches!(refused, Err(RestoreError::Io(_))), "{refused:?}");
    }
    let store = Store::open(&home, &options(1)).unwrap();
    let refused = store.backup(&folder.join("c"), &key(), &mut go_on);
    assert!(matches!(refused, Err(BackupError::Io(_))), "{refused:?}");
}

//! T-CRASH-4: bits flip in the files of a library that is closed, or that a killed process left.
//!
//! Goal: nobody is ever shown anything else than what was written, nothing panics, and what can be read
//! is saved.
//!
//! Method: a library with packed and loose changes, events, journals and waiting records. One bit of one
//! file is flipped; the library is opened, read, checked, written, and salvaged where it refuses.
//! `CATCHWORD_FLIPS` says how often.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use catchword_model::edit::Edit;
use catchword_model::meta::DeviceName;
use catchword_sim::action::{Action, BOOKS, DiskName};
use catchword_sim::device::{Device, START_MS};
use catchword_sim::memory::{Seen, book_id, check_lists, difference};
use catchword_store::{AppendError, LoadError, OpenError, Options, Repair, Store, salvage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{report, size};

const FLIPS: u64 = 300;
/// Bytes of the header of a redb file that say something.
const HEADER_BYTES: usize = 320;
/// The tag that shows whether a library can be written.
const WRITTEN: &str = "after";
const FILES: [&str; 3] = ["library", "wal", "witness"];

fn options() -> Options {
    let device = DeviceName { name: "phone".to_owned(), ..DeviceName::default() };
    Options { public_key_spki: vec![1; 44], device, now_ms: START_MS + 10_000_000 }
}

/// The files of a library at one moment, and what must be read from them.
struct Image {
    files: BTreeMap<&'static str, Vec<u8>>,
    expected: Seen,
    /// What `library` alone says.
    without_wal: Seen,
    /// What was there before the last commit of `wal`, which a killed process may not have finished.
    before: Option<Seen>,
}

/// A folder, and two images of its library: closed, and killed.
struct Shelf {
    folder: tempfile::TempDir,
    /// Further names of the first files.
    kept: tempfile::TempDir,
    images: [Image; 2],
}

impl Shelf {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path();
        for (name, bytes) in lived()? {
            fs::write(path.join(name), bytes)?;
        }
        // A library that was brought here starts a generation first.
        Store::open(path, &options())?.close()?;
        let store = Store::open(path, &options())?;
        let expected = Seen::read(&store, &everything(&store)?)?;
        store.close()?;
        let closed =
            Image { files: files(path)?, without_wal: expected.clone(), expected, before: None };

        let store = Store::open(path, &options())?;
        let edit =
            |n: u8| (book_id(n % BOOKS).document(), Edit::AddTag { tag: format!("new {n}") });
        for n in 0..20 {
            let (document, edit) = edit(n);
            store.append(document, &[edit], START_MS + 20_000_000)?;
        }
        let before = Seen::read(&store, &closed.expected)?;
        let (document, edit) = edit(20);
        store.append(document, &[edit], START_MS + 20_000_000)?;
        let expected = Seen::read(&store, &closed.expected)?;
        let without_wal = closed.expected.clone();
        let before = Some(before);
        let killed = Image { files: files(path)?, expected, without_wal, before };
        drop(store);
        Ok(Self { folder, kept: tempfile::tempdir()?, images: [closed, killed] })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts an image back into the same files, which are still those that the witness knows.
    fn put_back(&self, image: &Image) -> anyhow::Result<()> {
        for name in ["library.damaged", "wal.damaged", "library.new", "wal.new", "check.new"] {
            drop(fs::remove_file(self.path().join(name)));
        }
        for (name, bytes) in &image.files {
            let (path, kept) = (self.path().join(name), self.kept.path().join(name));
            if !kept.exists() {
                fs::hard_link(&path, &kept)?;
            }
            drop(fs::remove_file(&path));
            fs::hard_link(&kept, &path)?;
            fs::write(&path, bytes)?;
        }
        Ok(())
    }
}

/// The two files of a device that has lived: three books, half of them packed.
fn lived() -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let mut device = Device::new(1, 4)?;
    let mut actions: Vec<Action> = (0..BOOKS).map(|book| Action::Import { book }).collect();
    for round in 0..6 {
        for book in 0..BOOKS {
            actions.push(Action::AnnotateMany { book, count: 90 });
            actions.push(Action::Annotate { book, annotation: round, ppm: 300_000 });
            actions.push(Action::Tag { book, word: round % 4 });
            actions.push(Action::Journal { book, word: round % 4 });
            actions.push(Action::Turn { book, ppm: 100_000, seconds: 30 });
            actions.push(Action::Publish { book });
        }
        actions.push(if round == 2 { Action::Compact } else { Action::Drain });
    }
    actions.push(Action::Reopen);
    for action in &actions {
        device.perform(action, &[])?;
    }
    let names = [("library", DiskName::Library), ("wal", DiskName::Wal)];
    Ok(names.into_iter().map(|(name, disk)| (name, device.disk(disk).flushed())).collect())
}

/// Every annotation there is, so that nobody has to know their ids.
fn everything(store: &Store) -> anyhow::Result<Seen> {
    let mut known = Seen::default();
    for book in 0..BOOKS {
        let found = known.books.entry(book).or_default();
        store.annotations(book_id(book), 0, u32::MAX, |shown| {
            found.annotations.insert(shown.id, catchword_sim::memory::seen(&shown));
        })?;
    }
    Ok(known)
}

fn files(path: &Path) -> anyhow::Result<BTreeMap<&'static str, Vec<u8>>> {
    FILES.into_iter().map(|name| Ok((name, fs::read(path.join(name))?))).collect()
}

/// What one flip led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Everything is as it was, and the check is clean.
    Unread,
    /// The last commit of a killed process is taken for one that was cut off.
    TakenForTorn,
    /// Noticed. `wal` was set aside, and a new generation says so.
    SetAside,
    /// Noticed. Everything was saved.
    SavedAll,
    /// Noticed. Everything is shown as it was, and what is lost behind it is named.
    Shown,
    /// Noticed. A part was saved, and what was not is named.
    SavedSome,
    /// Noticed. Only a backup or another device helps.
    SavedNothing,
}

/// Whether an error says that the library is damaged.
fn is_typed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LoadError::Corrupt { .. }))
        || matches!(error.downcast_ref(), Some(OpenError::Corrupt { .. }))
        || matches!(error.downcast_ref(), Some(AppendError::Corrupt { .. }))
}

/// Opens, reads, lists, checks and writes; `Err` if anything of it is refused.
fn live(path: &Path, image: &Image) -> anyhow::Result<Outcome> {
    let store = Store::open(path, &options())?;
    let found = Seen::read(&store, &image.expected)?;
    let outcome = if store.opened().new_generation.is_some() {
        let all = (0..BOOKS).all(|book| same(&found, &image.without_wal, book));
        ensure!(all, "WRONG: {}", difference(&found, &image.without_wal));
        ensure!(path.join("wal.damaged").exists(), "a new generation, and no reason for it");
        Outcome::SetAside
    } else if found == image.expected {
        check_lists(&store, &found)?;
        Outcome::Unread
    } else if image.before.as_ref() == Some(&found) {
        Outcome::TakenForTorn
    } else {
        bail!("WRONG: {}", difference(&found, &image.expected));
    };
    let checked = store.check(Repair::ReportOnly, &mut |_| ControlFlow::Continue(()))?;
    ensure!(checked.is_clean(), "WRONG: read without an error, and {} differ", checked.differences);
    let edit = Edit::AddTag { tag: WRITTEN.to_owned() };
    store.append(book_id(0).document(), &[edit], START_MS + 30_000_000).context("writing")?;
    store.close().context("closing")?;
    Ok(outcome)
}

/// Saves what can be read, and returns how much that is.
fn save(path: &Path, image: &Image, tally: &mut Tally) -> anyhow::Result<Outcome> {
    let go_on = &mut |_| ControlFlow::Continue(());
    let saved = match salvage(path, &options(), go_on) {
        Ok(saved) => saved,
        Err(OpenError::Corrupt { .. }) => return Ok(Outcome::SavedNothing),
        Err(error) => return Err(error.into()),
    };
    let store =
        Store::open(path, &options()).with_context(|| format!("lost {:?}", saved.tables))?;
    let again = store.check(Repair::ReportOnly, go_on)?;
    let found = Seen::read(&store, &image.expected).unwrap_or_default();
    let same = (0..BOOKS).all(|book| same(&found, &image.expected, book));
    let kept = image.expected.books.iter().flat_map(|(book, expected)| {
        let found = found.books.get(book);
        let kept = move |id| found.and_then(|found| found.annotations.get(id));
        expected.annotations.iter().map(move |(id, annotation)| kept(id) == Some(annotation))
    });
    for kept in kept {
        tally.annotations.0 += u64::from(kept);
        tally.annotations.1 += 1;
    }
    if same {
        return Ok(if again.is_clean() { Outcome::SavedAll } else { Outcome::Shown });
    }
    let named = !again.is_clean() || 0 < saved.wal_pages_lost || !saved.tables.is_empty();
    ensure!(named, "WRONG: something is lost and not named");
    *tally.lost_with.entry(saved.tables.join(" ")).or_default() += 1;
    Ok(Outcome::SavedSome)
}

/// Compares what does not depend on the generation, nor on whether what [`live`] wrote was acknowledged
/// before something was refused.
fn same(found: &Seen, expected: &Seen, book: u8) -> bool {
    match (found.books.get(&book), expected.books.get(&book)) {
        (Some(found), Some(expected)) => {
            let mut found = found.clone();
            found.tags.remove(WRITTEN);
            (&found.annotations, &found.title, &found.tags, &found.journal, found.events)
                == (
                    &expected.annotations,
                    &expected.title,
                    &expected.tags,
                    &expected.journal,
                    expected.events,
                )
        }
        (None, None) => true,
        _ => false,
    }
}

#[derive(Debug, Default)]
struct Tally {
    outcomes: BTreeMap<Outcome, u64>,
    refused_at: BTreeMap<String, u64>,
    /// Of the annotations of libraries that were salvaged: how many are shown as they were, of how many.
    annotations: (u64, u64),
    /// Tables that had lost pages where something was lost.
    lost_with: BTreeMap<String, u64>,
    slowest: Duration,
}

fn flip(shelf: &Shelf, seed: u64, tally: &mut Tally) -> anyhow::Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let image = &shelf.images[random.random_range(0..2_usize)];
    let name = if random.random_range(0..5) == 0 { "wal" } else { "library" };
    let bytes = &image.files[name];
    let header = random.random_range(0..10) == 0;
    let at = random.random_range(0..if header { HEADER_BYTES } else { bytes.len() });
    shelf.put_back(image)?;
    let path: PathBuf = shelf.path().join(name);
    let mut bytes = bytes.clone();
    bytes[at] ^= 1 << random.random_range(0..8);
    fs::write(&path, bytes)?;

    let begun = Instant::now();
    let outcome = match live(shelf.path(), image) {
        Ok(outcome) => outcome,
        Err(error) if is_typed(&error) => {
            *tally.refused_at.entry(short(&error)).or_default() += 1;
            save(shelf.path(), image, tally)?
        }
        Err(error) => Err(error)?,
    };
    tally.slowest = tally.slowest.max(begun.elapsed());
    *tally.outcomes.entry(outcome).or_default() += 1;
    Ok(())
}

/// An error without its numbers.
fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(120).collect()
}

#[test]
fn t_crash_4_a_flipped_bit_is_never_served_and_never_panics() {
    let shelf = Shelf::new().unwrap();
    let flips = size("CATCHWORD_FLIPS", FLIPS);
    let mut tally = Tally::default();
    let (mut wrong, mut panics) = (Vec::new(), 0);
    let only = std::env::var("CATCHWORD_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..flips, |seed: u64| seed..seed + 1) {
        let flipped = catch_unwind(AssertUnwindSafe(|| flip(&shelf, seed, &mut tally)));
        match flipped {
            Ok(Ok(())) => (),
            Ok(Err(error)) => wrong.push(format!("flip {seed}: {error:#}")),
            Err(_) => panics += 1,
        }
    }
    report(&format!(
        "T-CRASH-4: {flips} flips, wrong data served {}, panics reaching the caller {panics}, {tally:#?}",
        wrong.len(),
    ));
    assert!(
        wrong.is_empty() && panics == 0,
        "{panics} panics; {:#?}",
        &wrong[..wrong.len().min(5)]
    );
    let noticed = flips - tally.outcomes.get(&Outcome::Unread).copied().unwrap_or(0);
    assert!(flips / 5 < noticed, "only {noticed} flips were noticed: the test shows little");
}

//! Libraries to measure on, made once and copied, and what a second device does to them.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use catchword::generate::{Made, Plan, generate};
use catchword_model::annotation::{Annotation, AnnotationField};
use catchword_model::edit::Edit;
use catchword_model::id::{ActorId, BookId, DocumentId};
use catchword_model::meta::DeviceName;
use catchword_store::{Options, Received, Store};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::process::copy_folder;

/// The wall clock of the made libraries, in milliseconds since the Unix epoch.
pub const NOW_MS: u64 = 1_780_000_000_000;
/// When they were begun.
const BEGUN_MS: u64 = NOW_MS - 181 * 24 * 3_600 * 1_000;
/// What everything that is made follows from.
pub const SEED: u64 = 2_026;
/// Changes in one call while a library is made.
const BATCH_CHANGES: usize = 2_000;
/// Numbers of annotations that are made while measuring: above every number a library begins with.
const FRESH_FROM: u64 = 10_000_000;

/// Annotations that are edited again and again.
const EDITED_AGAIN: usize = 100;

/// Where the places of annotations lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// Written mostly in reading order.
    InOrder,
    /// Written in random order.
    Random,
}

/// A folder of made libraries, and how thorough to be.
#[derive(Debug)]
pub struct Workspace {
    folder: PathBuf,
    /// Whether small and few will do.
    pub quick: bool,
    made: Made,
}

impl Workspace {
    /// Uses a folder, with the libraries an earlier run left in it.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made.
    pub fn new(folder: PathBuf, quick: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, quick, made: Made::new(SEED) })
    }

    /// Returns the book that all annotations are in.
    pub fn book(&self) -> BookId {
        self.made.book(0)
    }

    /// Returns a file that says which book that is, for tasks.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn book_file(&self) -> anyhow::Result<PathBuf> {
        let path = self.folder.join("book");
        fs::write(&path, self.book().0)?;
        Ok(path)
    }

    /// Returns a path that nothing is at.
    ///
    /// # Errors
    ///
    /// If what is there cannot be removed.
    pub fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if path.exists() {
            fs::remove_file(&path)?;
        }
        for beside in ["-wal", "-shm"] {
            let beside = self.folder.join(format!("{name}{beside}"));
            if beside.exists() {
                fs::remove_file(beside)?;
            }
        }
        Ok(path)
    }

    /// Returns the folder of a library of so many books with so many annotations in all.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn library(&self, books: u32, annotations: u64) -> anyhow::Result<PathBuf> {
        self.made_once(&format!("library-{books}-{annotations}"), |folder| {
            let store = Store::create(folder, &options(1, BEGUN_MS))?;
            let plan = Plan { books, annotations, seed: SEED, now_ms: NOW_MS };
            generate(&store, &plan, &mut |_, _| ControlFlow::Continue(()))?;
            Ok(store.close()?)
        })
    }

    /// Returns the folder of a library of one book.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn one_book(&self, annotations: u64, places: Places) -> anyhow::Result<PathBuf> {
        match places {
            Places::InOrder => self.library(1, annotations),
            Places::Random => self.made_once(&format!("random-{annotations}"), |folder| {
                let store = Store::create(folder, &options(1, BEGUN_MS))?;
                store.add_book(self.book(), Vec::new(), Vec::new(), BEGUN_MS)?;
                let mut rng = ChaCha8Rng::seed_from_u64(SEED);
                let numbers: Vec<u64> = (0..annotations).collect();
                for chunk in numbers.chunks(BATCH_CHANGES) {
                    let batch: Vec<_> = chunk
                        .iter()
                        .map(|n| {
                            let edit = self.annotate_at(&store, *n, rng.random_range(0..1_000_000));
                            (self.book().document(), vec![edit])
                        })
                        .collect();
                    store.append_all(&batch, BEGUN_MS + chunk.first().unwrap_or(&0) * 60_000)?;
                }
                Ok(store.close()?)
            }),
        }
    }

    /// Returns a copy of a library that belongs to this run, opened and closed once: a copy starts a
    /// new generation.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn copy(&self, from: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let to = self.folder.join(name);
        copy_folder(from, &to)?;
        open(&to)?.close()?;
        Ok(to)
    }

    /// Returns an edit that makes an annotation nobody has made yet.
    pub fn annotate(&self, store: &Store, n: usize) -> Edit {
        let n = FRESH_FROM + n as u64;
        self.annotate_at(store, n, self.made.ppm(0, n % 100_000, 100_000))
    }

    fn annotate_at(&self, store: &Store, n: u64, ppm: u32) -> Edit {
        let creation = Box::new(self.made.creation(0, n, ppm, store.device()));
        Edit::Annotate { id: self.made.annotation(0, n), creation }
    }

    /// Returns every annotation of the book in a library.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn annotations(&self, library: &Path) -> anyhow::Result<Vec<Annotation>> {
        let store = open(library)?;
        let mut found = Vec::new();
        store.annotations(self.book(), 0, u32::MAX, |annotation| found.push(annotation))?;
        Ok(found)
    }

    /// Returns the changes of the book in a library, in their order.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn changes(&self, library: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
        let store = open(library)?;
        let mut found = Vec::new();
        store.changes(self.book().document(), |change| found.push(change.into_bytes()))?;
        Ok(found)
    }

    /// Returns a file of what another device wrote that has everything a library has: half of it new
    /// highlights, half of it edits of colour and note, one change each. See [`load_changes`].
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn remote_file(&self, library: &Path, count: usize) -> anyhow::Result<PathBuf> {
        let name = library.file_name().context("a library has a name")?.to_string_lossy();
        let file = self.folder.join(format!("remote-{name}-{count}"));
        if !file.exists() {
            let changes = self.write_remotely(library, count)?;
            store_changes(&file, &changes)?;
        }
        Ok(file)
    }

    fn write_remotely(&self, library: &Path, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        let document = self.book().document();
        let ids: Vec<_> = self.annotations(library)?.into_iter().map(|shown| shown.id).collect();
        let other = Store::create(&self.fresh("remote")?, &options(2, BEGUN_MS))?;
        other.add_book(self.book(), Vec::new(), Vec::new(), BEGUN_MS)?;
        for chunk in self.changes(library)?.chunks(10 * BATCH_CHANGES) {
            let received = |bytes: &Vec<u8>| Received { document, bytes: bytes.clone() };
            let report = other.receive(&chunk.iter().map(received).collect::<Vec<_>>())?;
            anyhow::ensure!(report.rejected.is_empty(), "{:?}", report.rejected.first());
        }
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        for n in 0..count {
            let edits = if n % 2 == 0 {
                vec![self.annotate(&other, n)]
            } else {
                // Every other edit goes to one of a few annotations, and so supersedes another edit.
                let among = if n % 4 == 1 { ids.len() } else { ids.len().min(EDITED_AGAIN) };
                let id = *ids.get(rng.random_range(0..among)).context("no annotation")?;
                let set = |field, value: &str| Edit::SetField { id, field, value: value.into() };
                vec![
                    set(AnnotationField::Color, if n % 8 < 4 { "red" } else { "blue" }),
                    set(AnnotationField::Note, &format!("{n}: seen again on the other device")),
                ]
            };
            other.append(document, &edits, NOW_MS + n as u64 * 1_000)?;
        }
        let mut changes = Vec::new();
        let actor = ActorId::derive(other.device(), document, 0);
        other.changes(document, |change| {
            if change.actor == actor {
                changes.push(change.into_bytes());
            }
        })?;
        anyhow::ensure!(changes.len() == count, "{} changes", changes.len());
        Ok(changes)
    }

    fn made_once(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        if !folder.exists() {
            // A library belongs to the folder in which it was begun, so it is finished before the
            // marker says so.
            let marker = self.folder.join(format!("{name}.begun"));
            File::create(&marker)?;
            make(&folder)?;
            fs::remove_file(marker)?;
        }
        let begun = self.folder.join(format!("{name}.begun")).exists();
        anyhow::ensure!(!begun, "{} was not finished: remove it", folder.display());
        Ok(folder)
    }
}

/// How the made libraries are opened.
pub fn options(device: u8, now_ms: u64) -> Options {
    let name = DeviceName { name: format!("device {device}"), ..DeviceName::default() };
    Options { public_key_spki: vec![device; 44], device: name, now_ms }
}

/// Opens a made library.
///
/// # Errors
///
/// What the store says.
pub fn open(library: &Path) -> anyhow::Result<Store> {
    Ok(Store::open(library, &options(1, NOW_MS))?)
}

/// Writes changes to a file, each after its length.
///
/// # Errors
///
/// What the disk says.
pub fn store_changes(path: &Path, changes: &[Vec<u8>]) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for change in changes {
        file.write_all(&u32::try_from(change.len())?.to_be_bytes())?;
        file.write_all(change)?;
    }
    Ok(file.flush()?)
}

/// Reads changes of one document from a file.
///
/// # Errors
///
/// What the disk says.
pub fn load_changes(path: &Path, document: DocumentId) -> anyhow::Result<Vec<Received>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut changes = Vec::new();
    let mut len = [0; 4];
    while file.read_exact(&mut len).is_ok() {
        let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(len))?];
        file.read_exact(&mut bytes)?;
        changes.push(Received { document, bytes });
    }
    Ok(changes)
}

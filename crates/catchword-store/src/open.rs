//! Creating and opening a library, and finding out whether its store went back.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use catchword_model::edit::Edit;
use catchword_model::hlc::HlcClock;
use catchword_model::id::{BookId, DeviceId, DocumentId, Generation};
use catchword_model::meta::DeviceName;
use catchword_model::schema::{Container, DocumentKind};
use redb::{Builder, Database, StorageBackend};

use crate::append::Acknowledged;
use crate::contain::contained;
use crate::doc::Doc;
use crate::error::{AppendError, Cause, LoadError, OpenError, load};
use crate::exchange::ExchangeOptions;
use crate::exchange::{Again, Anew, to_do};
use crate::meta::{self, FORMAT, StoredIdentity};
use crate::opening::{DatabaseFile, Role, open_backend, open_file};
use crate::snapshot::Snapshot;
use crate::stage::Stage;
use crate::witness::{Evidence, Witness, file_identity, sync_folder};
use crate::{Inner, LIBRARY_FILE, Store, WAL_FILE, WITNESS_FILE, tables, wal};

/// The number of the library document.
pub(crate) const LIBRARY_NUMBER: u32 = 0;

const WAL_CACHE_BYTES: usize = 4 << 20;
const LIBRARY_CACHE_BYTES: usize = 12 << 20;

/// How a library is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The device's public key as a DER-encoded `SubjectPublicKeyInfo`.
    pub public_key_spki: Vec<u8>,
    /// What the device is called, and the operating system, for a new library.
    pub device: DeviceName,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// What opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// Why a new generation was started, if one was.
    pub new_generation: Option<Evidence>,
    /// Whether redb walked the whole `library` file to repair it. It never should.
    pub library_repaired: bool,
    /// Writes that were acknowledged and not yet in the rows.
    pub replayed: usize,
    /// Books whose page turns wait to be published.
    pub pending_turns: usize,
}

/// Where the two files live, for tests that simulate the disk.
#[derive(Debug)]
pub struct Backends<W, L> {
    /// Of `wal`.
    pub wal: W,
    /// Of `library`.
    pub library: L,
}

impl Store {
    /// Creates a library in a folder, which is made if it does not exist.
    ///
    /// # Errors
    ///
    /// [`OpenError::Exists`] if there is one; otherwise what the disk refused.
    pub fn create(folder: &Path, options: &Options) -> Result<Self, OpenError> {
        fs::create_dir_all(folder).map_err(io)?;
        crate::restore::resume(folder)?;
        if folder.join(LIBRARY_FILE).exists() {
            return Err(OpenError::Exists);
        }
        Self::open_files(folder, options, Mode::Create)
    }

    /// Opens the library in a folder.
    ///
    /// Takes milliseconds, whatever the size of the library and however it was left. What was
    /// acknowledged is there. If the store went back (a restored backup, a copy), a new generation is
    /// started: see [`Opened::new_generation`].
    ///
    /// # Errors
    ///
    /// [`OpenError::Missing`], [`OpenError::Locked`], or what is wrong with the files.
    pub fn open(folder: &Path, options: &Options) -> Result<Self, OpenError> {
        crate::restore::resume(folder)?;
        if !folder.join(LIBRARY_FILE).exists() {
            return Err(OpenError::Missing);
        }
        Self::open_files(folder, options, Mode::Open)
    }

    /// Opens or creates a library on given storage, without a witness.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on<W: StorageBackend, L: StorageBackend>(
        backends: Backends<W, L>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let repaired = Arc::new(AtomicBool::new(false));
        let library = open_backend(&library_builder(&repaired), backends.library, Role::Library)?;
        let wal = open_backend(&wal_builder(), backends.wal, Role::Wal)?;
        Self::assemble(library, wal, options, &repaired, None)
    }

    fn open_files(folder: &Path, options: &Options, mode: Mode) -> Result<Self, OpenError> {
        let repaired = Arc::new(AtomicBool::new(false));
        let path = folder.join(LIBRARY_FILE);
        match mode {
            Mode::Create => create_whole(&path, |library| initialize(library, options))?,
            Mode::Open => (),
        }
        let library = open_file(&library_builder(&repaired), &path, Role::Library)?;
        let wal = open_wal(&folder.join(WAL_FILE))?;
        Self::assemble(library, wal, options, &repaired, Some(folder))
    }

    pub(crate) fn assemble(
        library: DatabaseFile,
        wal: DatabaseFile,
        options: &Options,
        repaired: &AtomicBool,
        folder: Option<&Path>,
    ) -> Result<Self, OpenError> {
        let pages = [library.pages(), wal.pages()];
        let opened = contained(|| Self::put_together(library, wal, options, repaired, folder));
        opened.map_err(|error| match pages.iter().find_map(|pages| pages.rot()) {
            Some(rot) => OpenError::Corrupt { detail: rot.to_string() },
            None => error,
        })
    }

    fn put_together(
        library: DatabaseFile,
        wal: DatabaseFile,
        options: &Options,
        repaired: &AtomicBool,
        folder: Option<&Path>,
    ) -> Result<Self, OpenError> {
        if !is_initialized(&library)? {
            initialize(&library, options)?;
        }
        complete_tables(&library)?;
        let disk = Snapshot::take(&library)?;
        check_format(&disk)?;
        let is_anew = Anew::read(&disk)?.is_some();
        let new = !is_anew && disk.doc(LIBRARY_NUMBER)?.is_none();
        let (documents, unsigned) = to_do(&disk)?;
        let forked = disk.meta_bytes(meta::FORKED)?.is_some();
        let again = Again { documents, forked, unsigned };
        let (identity, actors) = (disk.identity()?, disk.actor_numbers()?);
        let same_wal = claim_wal(&library, &wal, &disk, new)?;
        let mut inner = Inner {
            clock: HlcClock::resume(disk.clock()?),
            next_sequence: disk.meta_number(meta::NEXT_SEQUENCE)?.max(1),
            drained: disk.meta_number(meta::DRAINED)?,
            disk: Some(disk),
            wal,
            library,
            stage: Stage::default(),
            last_record: 0,
            removed: 0,
            tail: Vec::new(),
            pending: std::collections::BTreeMap::new(),
            identity,
            actors,
            loaded: None,
            again,
            exchange: ExchangeOptions::default(),
            sent: 0,
            failed: false,
        };
        inner.finish_anew().map_err(open_error)?;
        inner.resume(same_wal)?;
        let evidence = if new { None } else { inner.evidence(folder, options, same_wal)? };
        let opened = Opened {
            new_generation: evidence,
            library_repaired: repaired.load(Ordering::Relaxed),
            replayed: inner.tail.len(),
            pending_turns: inner.pending.len(),
        };
        if new {
            inner.found(options).map_err(open_error)?;
        }
        if evidence.is_some() {
            inner.start_generation(options).map_err(open_error)?;
        }
        inner.write_again(options.now_ms).map_err(open_error)?;
        if let Some(folder) = folder {
            inner.testify(folder).map_err(io)?;
        }
        Ok(Self { inner: Mutex::new(inner), folder: folder.map(Path::to_path_buf), opened })
    }

    /// Adds a book with its metadata and aliases, and returns whether it was new.
    ///
    /// `edits` are made in the book's document, `library_edits` in the library document; both are
    /// durable together.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    pub fn add_book(
        &self,
        book: BookId,
        edits: Vec<Edit>,
        library_edits: Vec<Edit>,
        now_ms: u64,
    ) -> Result<bool, AppendError> {
        let added = self.add_books(vec![(book, edits)], library_edits, now_ms)?;
        Ok(added.first().copied().unwrap_or(false))
    }

    /// Adds several books in one transaction. See [`add_book`](Self::add_book).
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    pub fn add_books(
        &self,
        books: Vec<(BookId, Vec<Edit>)>,
        library_edits: Vec<Edit>,
        now_ms: u64,
    ) -> Result<Vec<bool>, AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        let mut parts: Vec<(Option<BookId>, Vec<Edit>)> =
            books.into_iter().map(|(book, edits)| (Some(book), edits)).collect();
        parts.push((None, library_edits));
        let added = inner.stage_books(&parts, now_ms);
        let (added, acknowledged) = inner.or_roll_back(added)?;
        inner.acknowledge_in_rows(acknowledged)?;
        Ok(added)
    }

    /// Moves what waits into the rows and closes the library. Dropping it does the same, silently.
    ///
    /// # Errors
    ///
    /// [`AppendError::Io`] if the disk refused; what was acknowledged is kept all the same.
    pub fn close(self) -> Result<(), AppendError> {
        self.drain()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What waits is durable; moving it now only makes the next start a little faster.
        drop(self.drain());
    }
}

impl Inner {
    /// Stages what waits in `wal`, and makes the local sequences resume above every number.
    fn resume(&mut self, same_wal: bool) -> Result<(), OpenError> {
        if same_wal {
            let waiting = wal::waiting(&self.wal, self.drained)?;
            self.replay(waiting)?;
        }
        self.next_sequence = self.next_sequence.max(self.drained + 1);
        Ok(())
    }

    /// Makes the library document of a new library.
    fn found(&mut self, options: &Options) -> Result<(), AppendError> {
        let id = DocumentId::library();
        self.stage_doc(Doc::empty(LIBRARY_NUMBER, id, DocumentKind::Library, LIBRARY_NUMBER))?;
        self.name_device(&options.device, options.now_ms)
    }

    fn name_device(&mut self, name: &DeviceName, now_ms: u64) -> Result<(), AppendError> {
        let mut acknowledged = Acknowledged::default();
        let stamp = self.clock.tick(now_ms);
        let writes = Edit::NameDevice(name.clone()).writes(self.identity.device, stamp);
        self.stage_writes(LIBRARY_NUMBER, stamp, &writes, &mut acknowledged)?;
        self.acknowledge_in_rows(acknowledged)
    }

    pub(crate) fn stage_doc(&mut self, doc: Doc) -> Result<u32, LoadError> {
        let sequence = self.take_sequence();
        let (stage, disk) = self.parts()?;
        stage.add_doc(disk, doc, sequence)
    }

    /// Returns a number no document has.
    pub(crate) fn free_number(&mut self) -> Result<u32, LoadError> {
        let (stage, disk) = self.parts()?;
        let last =
            disk.books.range::<u32>(..).map_err(load)?.next_back().transpose().map_err(load)?;
        let last = last.map_or(0, |(number, _)| number.value());
        let staged = stage.docs.keys().next_back().copied().unwrap_or(0);
        Ok(last.max(staged) + 1)
    }

    /// Stages books with their edits, and edits of the library document (those of no book).
    fn stage_books(
        &mut self,
        parts: &[(Option<BookId>, Vec<Edit>)],
        now_ms: u64,
    ) -> Result<(Vec<bool>, Acknowledged), AppendError> {
        let mut acknowledged = Acknowledged::default();
        let mut added = Vec::with_capacity(parts.len());
        for (book, edits) in parts {
            let id = book.map_or_else(DocumentId::library, BookId::document);
            if book.is_some() {
                let new = self.number(id)?.is_none();
                if new {
                    let number = self.free_number()?;
                    self.stage_doc(Doc::empty(number, id, DocumentKind::Book, number))?;
                }
                added.push(new);
            }
            if !edits.is_empty() {
                self.make(id, edits, now_ms, &mut acknowledged)?;
            }
        }
        Ok((added, acknowledged))
    }

    /// Starts a new generation: another device id, and so other actors everywhere.
    pub(crate) fn start_generation(&mut self, options: &Options) -> Result<(), AppendError> {
        self.flush()?;
        let before = self.identity.clone();
        let identity = before.succeeded_by(Generation(random()), &options.public_key_spki);
        let write = crate::flush::begin(&self.library)?;
        {
            let mut meta = write.open_table(tables::META).map_err(load)?;
            meta.insert(meta::IDENTITY, identity.encode().as_slice()).map_err(load)?;
            meta.remove(meta::OTHER_WAL).map_err(load)?;
            meta.remove(meta::FORKED).map_err(load)?;
        }
        write.commit().map_err(load)?;
        self.identity = identity;
        self.again.forked = false;
        // It would go on writing as the device before.
        self.loaded = None;
        self.reload()?;
        let name = self.device_name(before.device)?.unwrap_or_else(|| options.device.clone());
        let name = DeviceName { replaces: Some(before.device.to_string()), ..name };
        self.name_device(&name, options.now_ms)?;
        self.turns_become_events()
    }

    fn device_name(&mut self, device: DeviceId) -> Result<Option<DeviceName>, LoadError> {
        let (stage, disk) = self.parts()?;
        let held = stage.held(disk, LIBRARY_NUMBER, Container::Devices, &device.to_string())?;
        Ok(DeviceName::of(&held))
    }

    /// Returns what says that the store went back, if anything does. An unclean shutdown does not.
    fn evidence(
        &self,
        folder: Option<&Path>,
        options: &Options,
        same_wal: bool,
    ) -> Result<Option<Evidence>, OpenError> {
        if self.identity.public_key_spki != options.public_key_spki {
            return Ok(Some(Evidence::OtherKey));
        }
        if let Some(folder) = folder {
            let Some(witness) = Witness::load(&folder.join(WITNESS_FILE)) else {
                return Ok(Some(Evidence::NoWitness));
            };
            if !witness.knows(file_identity(&folder.join(LIBRARY_FILE)).map_err(io)?) {
                return Ok(Some(Evidence::OtherFile));
            }
            if witness.generation != self.identity.generation {
                return Ok(Some(Evidence::OtherGeneration));
            }
            if self.next_sequence <= witness.sent {
                return Ok(Some(Evidence::Ahead));
            }
        }
        let marked = match &self.disk {
            Some(disk) => disk.meta_bytes(meta::OTHER_WAL)?.is_some(),
            None => false,
        };
        if self.again.forked {
            return Ok(Some(Evidence::Forked));
        }
        Ok((marked || !same_wal).then_some(Evidence::OtherWal))
    }

    /// Lets the witness know that local sequences up to `sent` may have left this device.
    pub(crate) fn raise_witness(&self, folder: &Path, sent: u64) -> std::io::Result<()> {
        let path = folder.join(WITNESS_FILE);
        let file = file_identity(&folder.join(LIBRARY_FILE))?;
        Witness { file, next: None, generation: self.identity.generation, sent }.store(&path)
    }

    /// Writes the witness unless it says the same already.
    pub(crate) fn testify(&mut self, folder: &Path) -> std::io::Result<()> {
        let path = folder.join(WITNESS_FILE);
        let file = file_identity(&folder.join(LIBRARY_FILE))?;
        let before = Witness::load(&path);
        let generation = self.identity.generation;
        let sent = before.as_ref().filter(|w| w.generation == generation).map_or(0, |w| w.sent);
        self.sent = sent;
        let witness = Witness { file, next: None, generation, sent };
        if before.as_ref() == Some(&witness) { Ok(()) } else { witness.store(&path) }
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Create,
    Open,
}

pub(crate) fn library_builder(repaired: &Arc<AtomicBool>) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(LIBRARY_CACHE_BYTES);
    let repaired = Arc::clone(repaired);
    builder.set_repair_callback(move |_| repaired.store(true, Ordering::Relaxed));
    builder
}

pub(crate) fn wal_builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(WAL_CACHE_BYTES);
    builder
}

/// Makes a database file that is whole or not there: one that is cut off while redb creates it would
/// never open again.
fn create_whole(
    path: &Path,
    fill: impl FnOnce(&Database) -> Result<(), LoadError>,
) -> Result<(), OpenError> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => (),
    }
    let database = Builder::new().create(&beside).map_err(crate::error::open)?;
    fill(&database)?;
    drop(database);
    fs::rename(&beside, path).map_err(io)?;
    sync_folder(path).map_err(io)
}

/// A `wal` that does not open is set aside: what `library` holds stays readable, and a new generation
/// makes sure that no number is used twice.
fn open_wal(path: &Path) -> Result<DatabaseFile, OpenError> {
    if !path.exists() {
        create_whole(path, |_| Ok(()))?;
    }
    match open_file(&wal_builder(), path, Role::Wal) {
        Err(OpenError::Corrupt { .. }) => {
            fs::rename(path, path.with_extension("damaged")).map_err(io)?;
            create_whole(path, |_| Ok(()))?;
            open_file(&wal_builder(), path, Role::Wal)
        }
        other => other,
    }
}

fn is_initialized(library: &Database) -> Result<bool, OpenError> {
    use redb::{ReadableDatabase as _, TableError};

    let read = library.begin_read().map_err(load)?;
    match read.open_table(tables::META) {
        Ok(_) => Ok(true),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(load(error).into()),
    }
}

/// Makes a library of nobody's books. Every table is there, so that reading never meets a missing one.
fn initialize(library: &Database, options: &Options) -> Result<(), LoadError> {
    let write = crate::flush::begin(library)?;
    {
        let mut meta = write.open_table(tables::META).map_err(load)?;
        let identity = StoredIdentity::new(Generation(random()), &options.public_key_spki);
        let format = FORMAT.to_be_bytes();
        meta.insert(meta::FORMAT_NAME, format.as_slice()).map_err(load)?;
        meta.insert(meta::IDENTITY, identity.encode().as_slice()).map_err(load)?;
        meta.insert(meta::SUM, [0; 32].as_slice()).map_err(load)?;
    }
    make_tables(&write)?;
    write.commit().map_err(load)
}

/// Makes the tables that a library of an earlier release has not.
fn complete_tables(library: &Database) -> Result<(), LoadError> {
    use redb::{ReadableDatabase as _, TableError};

    // The newest: whoever has it has all.
    match library.begin_read().map_err(load)?.open_table(tables::VOID) {
        Ok(_) => Ok(()),
        Err(TableError::TableDoesNotExist(_)) => {
            let write = crate::flush::begin(library)?;
            // Forks were kept apart for a person to decide about. They are repaired now, as they are
            // seen again.
            let _was_there = write.delete_table(tables::PAUSED).map_err(load)?;
            make_tables(&write)?;
            drop_former_tables(&write)?;
            write.commit().map_err(load)
        }
        Err(error) => Err(load(error)),
    }
}

/// Drops tables whose values have another form now. What was in them comes again: changes that waited
/// are sent again, and forks and refusals are seen again.
fn drop_former_tables(write: &redb::WriteTransaction) -> Result<(), LoadError> {
    for name in ["parked-1", "paused-1", "quarantine-1"] {
        // It is found by its name alone.
        let former: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new(name);
        let was_there = write.delete_table(former).map_err(load)?;
        if was_there && name == "parked-1" {
            let mut meta = write.open_table(tables::META).map_err(load)?;
            meta.remove(meta::PARKED_BYTES).map_err(load)?;
        }
    }
    Ok(())
}

/// Makes every table of `library`.
pub(crate) fn make_tables(write: &redb::WriteTransaction) -> Result<(), LoadError> {
    struct Maker<'a>(&'a redb::WriteTransaction);

    impl tables::EachTable for Maker<'_> {
        fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
            &mut self,
            table: redb::TableDefinition<'static, K, V>,
        ) -> Result<(), LoadError> {
            self.0.open_table(table).map(drop).map_err(load)
        }
    }

    tables::each_of_library(&mut Maker(write))
}

pub(crate) fn check_format(disk: &Snapshot) -> Result<(), OpenError> {
    let bytes = disk.meta_bytes(meta::FORMAT_NAME)?;
    let found = bytes.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    match found {
        Some(found) if found <= FORMAT => Ok(()),
        Some(found) => Err(OpenError::Newer { found, known: FORMAT }),
        None => Err(OpenError::Corrupt { detail: "the library names no format".to_owned() }),
    }
}

/// Returns whether `wal` is the one that `library` knows; another one is emptied and claimed.
fn claim_wal(
    library: &Database,
    wal: &Database,
    disk: &Snapshot,
    new: bool,
) -> Result<bool, OpenError> {
    let known = disk.meta_bytes(meta::WAL)?;
    let found = wal::id(wal)?;
    if known.is_some() && known == found {
        return Ok(true);
    }
    let id = random();
    wal::claim(wal, &id)?;
    let write = crate::flush::begin(library)?;
    {
        let mut meta = write.open_table(tables::META).map_err(load)?;
        meta.insert(meta::WAL, id.as_slice()).map_err(load)?;
        if !new {
            // Evidence until a new generation has started, also if this process ends before.
            meta.insert(meta::OTHER_WAL, [1].as_slice()).map_err(load)?;
        }
    }
    write.commit().map_err(load)?;
    Ok(false)
}

/// Draws 16 random bytes from the operating system.
pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}

fn io(error: impl Into<Cause>) -> OpenError {
    OpenError::Io(error.into())
}

/// What goes wrong with the disk while opening is an error of opening.
fn open_error(error: AppendError) -> OpenError {
    match error {
        AppendError::Corrupt { detail } => OpenError::Corrupt { detail },
        AppendError::Io(cause) => OpenError::Io(cause),
        AppendError::NoDocument
        | AppendError::NoAnnotation(_)
        | AppendError::AnnotationExists(_)
        | AppendError::AnnotationDeleted(_)
        | AppendError::Tag(_)
        | AppendError::TooLarge { .. }
        | AppendError::OutOfRange { .. }
        | AppendError::WrongDocument
        | AppendError::Application(_)
        | AppendError::Full { .. }
        | AppendError::Closed => OpenError::Io(error.into()),
    }
}

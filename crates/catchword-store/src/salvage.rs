//! Saving what can be read of a library whose files have rotted.
//!
//! Both files are read here without redb, page by page: a page that is not what the page above it says
//! is left out, with what is below it. The rest goes into new files, and what is derived from the log is
//! built again there.
//!
//! # Invariants
//!
//! 1. Nothing that has rotted is read, and nothing that can be read is left out.
//! 2. The old files stay beside the new ones, as `library.damaged` and `wal.damaged`.
//! 3. The new library starts a new generation: nobody can tell which of its own changes it lost.
//! 4. Of the records that wait in `wal`, those before the first that is lost are kept: each may build
//!    on the one before it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use catchword_model::id::Generation;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, Key, ReadableTable as _, StorageBackend, TableDefinition, TableHandle as _, Value,
    WriteTransaction,
};

use crate::check::{CheckReport, Repair};
use crate::contain::contained;
use crate::copy::Scratch;
use crate::error::{Cause, LoadError, OpenError, load};
use crate::meta::{self, FORMAT, StoredIdentity};
use crate::open::{Options, library_builder, random, wal_builder};
use crate::opening::{DatabaseFile, Role, create_file, open_backend, open_file};
use crate::page::{Geometry, HEADER_BYTES, Header, Page, Root, Tree, read_table};
use crate::progress::{End, OnProgress};
use crate::snapshot::Snapshot;
use crate::tables::{self, EachTable};
use crate::witness::sync_folder;
use crate::{LIBRARY_FILE, Store, WAL_FILE, WITNESS_FILE, wal};

/// What was saved of a library that had rotted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SalvageReport {
    /// Pages of `library` that could not be read.
    pub pages_lost: u64,
    /// The tables they belong to, by the names in `docs/FORMAT.md`.
    pub tables: Vec<String>,
    /// Pages of `wal` that could not be read, or 1 if what waits there builds on what is lost: what was
    /// written last is lost then.
    pub wal_pages_lost: u64,
    /// What was built again from the log, and what of the log is lost. Absent if `library` was left as it
    /// is: then everything in it can be read.
    pub check: Option<CheckReport>,
}

/// Puts what can be read of a library into new files, which take the place of the old ones.
///
/// The library must be closed. Nothing is done if every page can be read. The old files are kept beside
/// the new ones, and replace those of an earlier salvage. What is saved is a new generation.
/// Needs room for the library twice. One that is stopped changes nothing.
///
/// # Errors
///
/// [`OpenError::Corrupt`] if not even the list of tables can be read: restore a backup, or sync with
/// another device. Otherwise what the disk refused. The library is as it was.
pub fn salvage(
    folder: &Path,
    options: &Options,
    progress: OnProgress<'_>,
) -> Result<SalvageReport, OpenError> {
    crate::restore::resume(folder)?;
    let mut report = SalvageReport::default();
    let path = folder.join(LIBRARY_FILE);
    if !path.exists() {
        return Err(OpenError::Missing);
    }
    let builder = library_builder(&Arc::new(AtomicBool::new(false)));
    let opens = match contained(|| open_file(&builder, &path, Role::Library)) {
        Ok(_) => true,
        Err(OpenError::Corrupt { .. }) => false,
        Err(error) => return Err(error),
    };
    let held = hold(&path)?;
    let wal_id = save_wal(folder, &mut report)?;
    let scratch = Scratch::new(folder.join("library.new")).map_err(io)?;
    let copy = create_file(&builder, &scratch.path, Role::Library)?;
    if opens && is_whole(&held, &scratch.path)? {
        return Ok(report);
    }
    save_library(&held, &scratch.path, &copy, &mut report)?;
    complete(&copy, options, wal_id)?;
    let check = rebuild(copy, folder, options, progress)?;
    if check.end == End::Stopped {
        return Ok(SalvageReport::default());
    }
    report.check = Some(check);
    replace(&path, scratch)?;
    drop(held);
    if let Err(OpenError::Corrupt { .. }) = Store::open(folder, options) {
        // What waits builds on what is lost.
        set_aside(&folder.join(WAL_FILE))?;
        report.wal_pages_lost += 1;
    }
    Ok(report)
}

/// Makes the lists of what was saved whole again, before anything that waits in `wal` builds on them.
fn rebuild(
    copy: DatabaseFile,
    folder: &Path,
    options: &Options,
    progress: OnProgress<'_>,
) -> Result<CheckReport, OpenError> {
    let wal = open_backend(&wal_builder(), InMemoryBackend::new(), Role::Wal)?;
    if let Some(id) = Snapshot::take(&copy)?.meta_bytes(meta::WAL)? {
        wal::claim(&wal, &id)?;
    }
    let mut store = Store::assemble(copy, wal, options, &AtomicBool::new(false), None)?;
    store.folder = Some(folder.to_path_buf());
    Ok(store.check(Repair::Rebuild, progress)?)
}

/// Opens a file so that nobody else does.
fn hold(path: &Path) -> Result<FileBackend, OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
    let backend = FileBackend::new(file).map_err(crate::error::open)?;
    let locked = backend.try_lock_range(Bound::Unbounded, Bound::Unbounded);
    match locked {
        Ok(false) => Err(OpenError::Locked),
        // A file system without locks is not one that libraries are kept on.
        Ok(true) | Err(_) => Ok(backend),
    }
}

/// Puts a file in the place of another, which is kept under another name. Without the witness, what is
/// in the new one starts a new generation.
fn replace(path: &Path, new: Scratch) -> Result<(), OpenError> {
    match fs::remove_file(path.with_file_name(WITNESS_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => (),
    }
    let kept = path.with_extension("damaged");
    drop(fs::remove_file(&kept));
    fs::hard_link(path, &kept).or_else(|_| fs::copy(path, &kept).map(drop)).map_err(io)?;
    new.rename(path).map_err(io)?;
    sync_folder(path).map_err(io)
}

/// A file that is read page by page.
struct Image<'a> {
    file: &'a dyn StorageBackend,
    bytes: u64,
    geometry: Geometry,
    /// Tables of redb's own: which pages are free.
    system: Option<Root>,
    lost: u64,
}

type Pair<'a> = (&'a [u8], &'a [u8]);
type OnPair<'a> = &'a mut dyn FnMut(Option<Pair<'_>>) -> Result<(), LoadError>;
type Tables = BTreeMap<Vec<u8>, (Root, Tree)>;

impl<'a> Image<'a> {
    /// Reads the header, and the tables of the first commit whose list of tables can be read. `new` is a
    /// file that redb has just made.
    fn open(file: &'a dyn StorageBackend, new: &Path) -> Option<(Self, Tables)> {
        let mut bytes = [0; HEADER_BYTES];
        file.read(0, &mut bytes).ok()?;
        let header = Header::guess(&bytes)?;
        let slots = [header.primary, header.secondary];
        let bytes = file.len().ok()?;
        // What the header says of pages has no checksum.
        for geometry in [Some(header.geometry), geometry(new)].into_iter().flatten() {
            for slot in slots.into_iter().flatten() {
                let mut image = Self { file, bytes, geometry, system: slot.system, lost: 0 };
                let tables = slot.tables.and_then(|root| image.tables(root));
                if let Some(tables) = tables {
                    return Some((image, tables));
                }
            }
        }
        None
    }

    fn tables(&mut self, root: Root) -> Option<Tables> {
        let mut tables = Tables::new();
        let walked = self.walk(root, Tree::TABLES, &mut |pair| {
            let table = pair.and_then(|(name, table)| Some((name, read_table(table)?)));
            tables.extend(table.map(|(name, table)| (name.to_vec(), table)));
            Ok(())
        });
        (walked.is_ok() && !tables.is_empty()).then_some(tables)
    }

    /// Gives the pairs of a tree in the order of the keys, and nothing in the place of those that are lost.
    fn walk(&mut self, root: Root, tree: Tree, each: OnPair<'_>) -> Result<(), LoadError> {
        let bytes = self.page(root);
        let Some(page) = bytes.as_deref().and_then(|bytes| Page::read(bytes, tree, root.checksum))
        else {
            self.lost += 1;
            return each(None);
        };
        for child in page.children() {
            self.walk(child, tree, each)?;
        }
        page.pairs().try_for_each(|pair| each(Some(pair)))
    }

    /// Reads a page. One that the disk refuses is lost like one that it changed.
    fn page(&self, root: Root) -> Option<Vec<u8>> {
        let (offset, bytes) = self.geometry.place(root.page)?;
        if self.bytes < offset.checked_add(bytes)? {
            return None;
        }
        let mut page = vec![0; usize::try_from(bytes).ok()?];
        self.file.read(offset, &mut page).ok()?;
        Some(page)
    }
}

/// Returns how pages are placed in a file that was made now.
fn geometry(path: &Path) -> Option<Geometry> {
    let mut bytes = [0; HEADER_BYTES];
    fs::File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    Some(Header::read(&bytes)?.geometry)
}

/// Returns whether every page can be read, those that redb keeps for itself among them.
fn is_whole(file: &dyn StorageBackend, new: &Path) -> Result<bool, LoadError> {
    let Some((mut image, tables)) = Image::open(file, new) else { return Ok(false) };
    let system = match image.system {
        Some(root) => image.tables(root).unwrap_or_default(),
        None => Tables::new(),
    };
    for (root, tree) in tables.into_values().chain(system.into_values()) {
        image.walk(root, tree, &mut |_| Ok(()))?;
    }
    Ok(image.lost == 0)
}

fn save_library(
    file: &dyn StorageBackend,
    new: &Path,
    copy: &Database,
    report: &mut SalvageReport,
) -> Result<(), OpenError> {
    let unreadable = || OpenError::Corrupt { detail: "no table can be read".to_owned() };
    let (image, tables) = Image::open(file, new).ok_or_else(unreadable)?;
    let write = crate::flush::begin(copy)?;
    let mut saver = Saver { image, tables, write: &write, report };
    tables::each_of_library(&mut saver)?;
    let lost = saver.image.lost;
    write.commit().map_err(load)?;
    report.pages_lost = lost;
    Ok(())
}

struct Saver<'a> {
    image: Image<'a>,
    tables: Tables,
    write: &'a WriteTransaction,
    report: &'a mut SalvageReport,
}

impl EachTable for Saver<'_> {
    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), LoadError> {
        let mut to = self.write.open_table(table).map_err(load)?;
        let Some((root, tree)) = self.tables.get(table.name().as_bytes()).copied() else {
            return Ok(());
        };
        let before = self.image.lost;
        self.image.walk(root, tree, &mut |pair| {
            let Some((key, value)) = pair else { return Ok(()) };
            to.insert(K::from_bytes(key), V::from_bytes(value)).map(drop).map_err(load)
        })?;
        if before < self.image.lost {
            self.report.tables.push(table.name().to_owned());
        }
        Ok(())
    }
}

/// Gives a library whose own record was lost another one. What `wal` holds for it is kept.
fn complete(copy: &Database, options: &Options, wal_id: Option<Vec<u8>>) -> Result<(), OpenError> {
    let disk = Snapshot::take(copy)?;
    if disk.meta_bytes(meta::IDENTITY)?.is_some() {
        return Ok(());
    }
    let mut last = 0;
    for found in disk.log.range::<(u32, u64)>(..).map_err(load)? {
        last = last.max(found.map_err(load)?.0.value().1);
    }
    for found in disk.event_order.range::<(u32, u64)>(..).map_err(load)? {
        last = last.max(found.map_err(load)?.0.value().1);
    }
    drop(disk);
    let write = crate::flush::begin(copy)?;
    {
        let mut meta = write.open_table(tables::META).map_err(load)?;
        let identity = StoredIdentity::new(Generation(random()), &options.public_key_spki);
        let mut put = |name, value: &[u8]| meta.insert(name, value).map(drop).map_err(load);
        put(meta::FORMAT_NAME, &FORMAT.to_be_bytes())?;
        put(meta::IDENTITY, &identity.encode())?;
        put(meta::DRAINED, &last.to_be_bytes())?;
        put(meta::NEXT_SEQUENCE, &(last + 1).to_be_bytes())?;
        if let Some(id) = wal_id {
            put(meta::WAL, &id)?;
        }
    }
    Ok(write.commit().map_err(load)?)
}

/// Saves what `wal` holds if not all of it can be read, and returns its id.
fn save_wal(folder: &Path, report: &mut SalvageReport) -> Result<Option<Vec<u8>>, OpenError> {
    let path = &folder.join(WAL_FILE);
    if !path.exists() {
        return Ok(None);
    }
    // redb knows best what a power cut left of it.
    let readable = contained(|| {
        let database = open_file(&wal_builder(), path, Role::Wal)?;
        wal::waiting(&database, 0)?;
        Ok::<_, OpenError>(wal::id(&database)?)
    });
    let held = hold(path)?;
    let scratch = Scratch::new(path.with_extension("new")).map_err(io)?;
    let copy = create_file(&wal_builder(), &scratch.path, Role::Wal)?;
    match readable {
        Ok(id) if is_whole(&held, &scratch.path)? => return Ok(id),
        Ok(_) | Err(OpenError::Corrupt { .. }) => (),
        Err(error) => return Err(error),
    }
    let Some((mut image, found)) = Image::open(&held, &scratch.path) else {
        set_aside(path)?;
        report.wal_pages_lost = 1;
        return Ok(None);
    };
    let write = copy.begin_write().map_err(load)?;
    save_until_lost(&mut image, &found, &write, tables::TAIL)?;
    save_until_lost(&mut image, &found, &write, tables::PENDING)?;
    save_until_lost(&mut image, &found, &write, tables::WAL_META)?;
    let id = {
        let meta = write.open_table(tables::WAL_META).map_err(load)?;
        meta.get(meta::WAL_ID).map_err(load)?.map(|id| id.value().to_vec())
    };
    write.commit().map_err(load)?;
    drop(copy);
    report.wal_pages_lost = image.lost.max(1);
    replace(path, scratch)?;
    Ok(id)
}

/// Renames a `wal` that nothing can be read from. Opening the library makes another one.
fn set_aside(wal: &Path) -> Result<(), OpenError> {
    fs::rename(wal, wal.with_extension("damaged")).map_err(io)
}

/// Saves the pairs of a table before the first that is lost.
fn save_until_lost<K: Key + 'static, V: Value + 'static>(
    image: &mut Image<'_>,
    tables: &Tables,
    write: &WriteTransaction,
    table: TableDefinition<'static, K, V>,
) -> Result<(), LoadError> {
    let mut to = write.open_table(table).map_err(load)?;
    let Some((root, tree)) = tables.get(table.name().as_bytes()).copied() else { return Ok(()) };
    let mut whole = true;
    image.walk(root, tree, &mut |pair| {
        whole &= pair.is_some();
        match pair {
            Some((key, value)) if whole => {
                to.insert(K::from_bytes(key), V::from_bytes(value)).map(drop).map_err(load)
            }
            _ => Ok(()),
        }
    })
}

fn io(error: impl Into<Cause>) -> OpenError {
    OpenError::Io(error.into())
}

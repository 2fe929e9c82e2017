//! Pages that have rotted are never given to redb.
//!
//! redb keeps the checksum of each page in the page above it and compares them only when it repairs a
//! file. Here they are compared whenever a page comes from the disk: what redb reads is what it wrote,
//! or an error. See `docs/design/0013-rot.md`.
//!
//! # Invariants
//!
//! 1. A page is reached through the page above it, so what it must be is known before it is read.
//! 2. A page that was written since the file was opened must be, whole, what was written.
//! 3. A file of another format than [`page`] understands is not verified.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::page::{self, Geometry, Header, PAGE_BYTES, Page, Root, Tree};

/// A place of the file does not hold what was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was written at byte {offset} of a file is not there any more")]
pub(crate) struct Rot {
    offset: u64,
}

/// What is known of the pages of one file while it is open.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    known: Mutex<Known>,
    /// Set while redb itself looks for the pages that a power cut left whole.
    lenient: AtomicBool,
    /// The first place that was found to have rotted. From then on redb refuses the file.
    found: OnceLock<Rot>,
}

#[derive(Debug, Default)]
struct Known {
    geometry: Option<Geometry>,
    /// By where a page begins.
    expected: HashMap<u64, Expected>,
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    /// The checksum that the page above names.
    InTree(page::Checksum, Tree),
    /// The checksum of everything that was written.
    Written(page::Checksum),
}

impl Pages {
    /// Ends the leniency towards pages that a power cut tore.
    pub(crate) fn be_strict(&self) {
        self.lenient.store(false, Ordering::Release);
    }

    /// Returns the first place that was found to have rotted.
    pub(crate) fn rot(&self) -> Option<Rot> {
        self.found.get().copied()
    }

    /// Judges what was read.
    pub(crate) fn after_read(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset < PAGE_BYTES {
            if offset == 0 {
                self.learn_header(bytes);
            }
            return Ok(());
        }
        let Some(expected) = self.lock().expected.get(&offset).copied() else { return Ok(()) };
        let roots = match expected {
            Expected::Written(sum) => (page::checksum(bytes) == sum).then(Vec::new),
            Expected::InTree(sum, tree) => Page::read(bytes, tree, sum).map(|page| page.roots()),
        };
        let Some(roots) = roots else {
            return if self.lenient.load(Ordering::Acquire) {
                Ok(())
            } else {
                Err(self.refuse(offset))
            };
        };
        self.lock().learn(&roots);
        Ok(())
    }

    /// Remembers what was written.
    pub(crate) fn after_write(&self, offset: u64, bytes: &[u8]) {
        if PAGE_BYTES <= offset {
            let expected = Expected::Written(page::checksum(bytes));
            self.lock().expected.insert(offset, expected);
        }
    }

    fn learn_header(&self, bytes: &[u8]) {
        let Some(header) = Header::read(bytes) else { return };
        if header.is_unclean && !header.is_two_phase {
            self.lenient.store(true, Ordering::Release);
        }
        let mut known = self.lock();
        if known.geometry.replace(header.geometry).is_some() {
            // What it named then may have been written over since.
            return;
        }
        // The primary last: a page of the commit before may be in use again.
        let slots = [header.secondary, header.primary].into_iter().flatten();
        let roots: Vec<_> = slots
            .flat_map(|slot| [slot.tables, slot.system])
            .flatten()
            .map(|root| (root, Tree::TABLES))
            .collect();
        known.learn(&roots);
    }

    fn refuse(&self, offset: u64) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, *self.found.get_or_init(|| Rot { offset }))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn learn(&mut self, roots: &[(Root, Tree)]) {
        let Some(geometry) = self.geometry else { return };
        for (root, tree) in roots {
            if let Some((offset, _)) = geometry.place(root.page) {
                self.expected.insert(offset, Expected::InTree(root.checksum, *tree));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase as _, StorageBackend};

    use crate::error::{LoadError, OpenError, load};
    use crate::opening::{Role, open_backend};
    use crate::tables::{LOG as NUMBERS, RECENT as SET, ROWS as TEXTS};

    #[derive(Debug, Clone)]
    struct Shared(Arc<InMemoryBackend>);

    impl Shared {
        fn bytes(&self) -> Vec<u8> {
            let mut bytes = vec![0; usize::try_from(self.0.len().unwrap()).unwrap()];
            self.0.read(0, &mut bytes).unwrap();
            bytes
        }

        fn of(bytes: &[u8]) -> Self {
            let disk = Self(Arc::new(InMemoryBackend::new()));
            disk.0.set_len(bytes.len() as u64).unwrap();
            disk.0.write(0, bytes).unwrap();
            disk
        }
    }

    impl StorageBackend for Shared {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> Result<(), std::io::Error> {
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.0.write(offset, data)
        }
    }

    type Everything = BTreeMap<Vec<u8>, Vec<u8>>;

    fn everything(database: &Database) -> Result<Everything, LoadError> {
        let read = database.begin_read().map_err(load)?;
        let mut found = Everything::new();
        for pair in read.open_table(TEXTS).map_err(load)?.range::<&[u8]>(..).map_err(load)? {
            let (key, value) = pair.map_err(load)?;
            found.insert(key.value().to_vec(), value.value().to_vec());
        }
        for pair in read.open_table(NUMBERS).map_err(load)?.range::<(u32, u64)>(..).map_err(load)? {
            let (key, value) = pair.map_err(load)?;
            found.insert(format!("{:?}", key.value()).into_bytes(), value.value().to_vec());
        }
        for pair in read.open_table(SET).map_err(load)?.range::<(u64, u32)>(..).map_err(load)? {
            let (key, ()) = pair.map(|(key, _)| (key, ())).map_err(load)?;
            found.insert(format!("set {:?}", key.value()).into_bytes(), Vec::new());
        }
        Ok(found)
    }

    /// Trees of three heights, pages of several sizes, keys and values of one width and of any.
    fn filled() -> Vec<u8> {
        let disk = Shared(Arc::new(InMemoryBackend::new()));
        let database = open_backend(&Builder::new(), disk.clone(), Role::Library).unwrap();
        for round in 0..3_u8 {
            let mut write = database.begin_write().unwrap();
            write.set_quick_repair(true);
            for n in 0..400_u32 {
                let long = if n == 7 { 40_000 } else { 90 };
                let (key, value) = (n.wrapping_mul(0x9E37_79B9).to_be_bytes(), vec![round; long]);
                write.open_table(TEXTS).unwrap().insert(&key[..], value.as_slice()).unwrap();
                let mut numbers = write.open_table(NUMBERS).unwrap();
                numbers.insert((n % 3, u64::from(n)), &value[..20]).unwrap();
                write.open_table(SET).unwrap().insert((u64::from(n), 1), ()).unwrap();
            }
            write.commit().unwrap();
        }
        drop(database);
        disk.bytes()
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_nobody_reads_it() {
        let whole = filled();
        let open = |disk: Shared| open_backend(&Builder::new(), disk, Role::Library);
        let expected = everything(&open(Shared::of(&whole)).unwrap()).unwrap();
        let (mut noticed, mut unread) = (0, 0);
        for bit in (0..whole.len() * 8).step_by(whole.len() * 8 / 4_000) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match open(Shared::of(&bytes)).map_err(Some).and_then(|database| {
                everything(&database).map_err(|error| {
                    assert!(matches!(error, LoadError::Corrupt { .. }), "{error:?}");
                    None
                })
            }) {
                Ok(found) => {
                    assert!(found == expected, "bit {bit} changes what is read");
                    unread += 1;
                }
                Err(error) => {
                    let typed = matches!(error, None | Some(OpenError::Corrupt { .. }));
                    assert!(typed, "bit {bit}: {error:?}");
                    noticed += 1;
                }
            }
        }
        assert!(1_000 < noticed && 0 < unread, "{noticed} noticed, {unread} unread");
    }

    #[test]
    fn what_is_written_and_rots_before_it_is_read_again_is_an_error() {
        let disk = Shared(Arc::new(InMemoryBackend::new()));
        let database = open_backend(Builder::new().set_cache_size(0), disk.clone(), Role::Wal);
        let database = database.unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(TEXTS).unwrap().insert(&b"a key"[..], &b"a value"[..]).unwrap();
        write.commit().unwrap();
        let bytes = disk.bytes();
        let at = bytes.windows(7).position(|window| window == b"a value").unwrap();

        disk.0.write(at as u64, b"A value").unwrap();

        let read = database.begin_read().unwrap();
        let found = read.open_table(TEXTS).map_err(load);
        let found = found.and_then(|table| {
            table
                .get(&b"a key"[..])
                .map(|found| found.map(|value| value.value().to_vec()))
                .map_err(load)
        });
        assert!(matches!(found, Err(LoadError::Corrupt { .. })), "{found:?}");
    }
}

//! What others do: a bare redb table, SQLite with a row for each annotation, and automerge with redb.

use std::path::Path;

use anyhow::Context as _;
use automerge::sync::{State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ObjId, ROOT, ReadDoc as _};
use catchword_model::annotation::{Annotation, Kind};
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, DeviceId};
use catchword_model::locator::Locator;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use rusqlite::{Connection, params};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const FILL_ROWS: usize = 50_000;

/// The floor: one redb table, one commit for each record, durable as redb makes it by default.
#[derive(Debug)]
pub struct BareRedb {
    database: Database,
    next: u64,
}

impl BareRedb {
    /// Opens or makes the file.
    ///
    /// # Errors
    ///
    /// What redb says.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let database = redb::Builder::new().set_cache_size(16 << 20).create(path)?;
        let write = database.begin_write()?;
        let next = write.open_table(RECORDS)?.last()?.map_or(0, |(key, _)| key.value() + 1);
        write.commit()?;
        Ok(Self { database, next })
    }

    /// Puts so many records, taken in turns from `samples`.
    ///
    /// # Errors
    ///
    /// What redb says.
    pub fn fill(&mut self, samples: &[Vec<u8>], count: usize) -> anyhow::Result<()> {
        let all: Vec<&[u8]> = samples.iter().map(Vec::as_slice).cycle().take(count).collect();
        all.chunks(FILL_ROWS).try_for_each(|chunk| self.put(chunk))
    }

    /// Puts records in one commit.
    ///
    /// # Errors
    ///
    /// What redb says.
    pub fn put(&mut self, records: &[&[u8]]) -> anyhow::Result<()> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(RECORDS)?;
            for record in records {
                table.insert(self.next, *record)?;
                self.next += 1;
            }
        }
        Ok(write.commit()?)
    }

    /// Returns how many records there are.
    ///
    /// # Errors
    ///
    /// What redb says.
    pub fn last(path: &Path) -> anyhow::Result<u64> {
        let database = redb::Builder::new().set_cache_size(16 << 20).open(path)?;
        let read = database.begin_read()?;
        let last = read.open_table(RECORDS)?.last()?.map_or(0, |(key, _)| key.value());
        Ok(last)
    }
}

/// How SQLite syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// At every commit: what is acknowledged survives a power cut.
    Full,
    /// At checkpoints only: what is acknowledged may be lost.
    Normal,
}

/// SQLite in WAL mode, one row for each annotation, with the index that matches reading order.
#[derive(Debug)]
pub struct Sqlite(Connection);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS annotations (
        id BLOB PRIMARY KEY, book INTEGER NOT NULL, sort BLOB NOT NULL, kind INTEGER NOT NULL,
        quote TEXT NOT NULL, note TEXT, color TEXT, style TEXT, loc TEXT NOT NULL,
        created_by BLOB NOT NULL, source TEXT, stamp INTEGER NOT NULL, deleted INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS reading_order ON annotations (book, sort);
    CREATE TABLE IF NOT EXISTS books (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, title TEXT NOT NULL, ppm INTEGER,
        furthest_ppm INTEGER, wall_ms INTEGER, last_read INTEGER NOT NULL,
        annotations INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS recent ON books (last_read);
";
const INSERT: &str = "INSERT INTO annotations VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)
    ON CONFLICT (id) DO UPDATE SET note = excluded.note, color = excluded.color,
    stamp = max(stamp, excluded.stamp)";
const SELECT: &str = "SELECT id, kind, quote, note, color, style, loc, created_by, source, stamp,
    deleted FROM annotations WHERE book = 1 AND ?1 <= sort AND sort < ?2 ORDER BY sort";

/// A book in a list: its id, its title, and the place in parts per million.
pub type Listed = (Vec<u8>, String, Option<u32>);

impl Sqlite {
    /// Opens or makes the file.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn open(path: &Path, synchronous: Synchronous) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        let level = match synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", level)?;
        Ok(Self(connection))
    }

    /// Makes the tables.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn create(path: &Path, synchronous: Synchronous) -> anyhow::Result<Self> {
        let made = Self::open(path, synchronous)?;
        made.0.execute_batch(SCHEMA)?;
        Ok(made)
    }

    /// Puts annotations in one transaction.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn put(&mut self, annotations: &[Annotation]) -> anyhow::Result<()> {
        if let [only] = annotations {
            return insert(&self.0, only);
        }
        let transaction = self.0.transaction()?;
        annotations.iter().try_for_each(|annotation| insert(&transaction, annotation))?;
        Ok(transaction.commit()?)
    }

    /// Calls `visit` with every annotation from `from_ppm` up to and without `to_ppm`, in order.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn annotations(
        &self,
        from_ppm: u32,
        to_ppm: u32,
        mut visit: impl FnMut(Annotation),
    ) -> anyhow::Result<()> {
        let mut select = self.0.prepare_cached(SELECT)?;
        let bounds = params![from_ppm.to_be_bytes(), to_ppm.to_be_bytes()];
        let mut rows = select.query(bounds)?;
        while let Some(row) = rows.next()? {
            visit(annotation(row)?);
        }
        Ok(())
    }

    /// Puts a book into the list.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn put_books(&mut self, books: &[catchword_store::BookSummary]) -> anyhow::Result<()> {
        let transaction = self.0.transaction()?;
        for (number, book) in books.iter().enumerate() {
            transaction.execute(
                "INSERT INTO books VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
                params![
                    i64::try_from(number)?,
                    book.book.0,
                    book.title,
                    book.ppm,
                    book.furthest_ppm,
                    book.wall_ms.cast_signed(),
                    book.last_read.packed().cast_signed(),
                    book.annotations.cast_signed()
                ],
            )?;
        }
        Ok(transaction.commit()?)
    }

    /// Returns the titles of the books read last.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn recent(&self, count: u32) -> anyhow::Result<Vec<Listed>> {
        let mut select = self.0.prepare_cached(
            "SELECT id, title, ppm, furthest_ppm, wall_ms, last_read, annotations FROM books
             ORDER BY last_read DESC LIMIT ?1",
        )?;
        let rows = select.query_map([count], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Moves everything into the main file.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn close(self) -> anyhow::Result<()> {
        self.0.close().map_err(|(_, error)| error.into())
    }
}

fn insert(connection: &Connection, annotation: &Annotation) -> anyhow::Result<()> {
    let kind = Kind::ALL.iter().position(|kind| *kind == annotation.kind).unwrap_or_default();
    let device = annotation.device().context("no device of ours")?;
    connection.prepare_cached(INSERT)?.execute(params![
        annotation.id.0,
        1,
        annotation.locator.sort_key().as_bytes(),
        i64::try_from(kind)?,
        annotation.quote,
        annotation.note,
        annotation.color,
        annotation.style,
        annotation.locator.as_json(),
        device.0,
        annotation.source,
        annotation.stamp.packed().cast_signed(),
        annotation.deleted
    ])?;
    Ok(())
}

fn annotation(row: &rusqlite::Row<'_>) -> anyhow::Result<Annotation> {
    let kind: u8 = row.get(1)?;
    Ok(Annotation {
        id: AnnotationId(row.get(0)?),
        kind: Kind::ALL.get(usize::from(kind)).copied().context("no such kind")?,
        quote: row.get(2)?,
        note: row.get(3)?,
        color: row.get(4)?,
        style: row.get(5)?,
        locator: Locator::stored(row.get(6)?),
        device: DeviceId(row.get(7)?).to_string(),
        source: row.get(8)?,
        stamp: Hlc::from_packed(row.get::<_, i64>(9)?.cast_unsigned()).context("no stamp")?,
        deleted: row.get(10)?,
        edited_while_deleted: false,
        conflicts: Vec::new(),
    })
}

/// The usual way with automerge: the document in memory, its changes in a redb table.
#[derive(Debug)]
pub struct AutomergeRedb {
    document: AutoCommit,
    annotations: ObjId,
    changes: BareRedb,
}

impl AutomergeRedb {
    /// Loads the document from all its changes.
    ///
    /// # Errors
    ///
    /// What automerge or redb says.
    pub fn load(path: &Path, changes: &[Vec<u8>]) -> anyhow::Result<Self> {
        let mut redb = BareRedb::open(path)?;
        redb.fill(changes, changes.len())?;
        let document = AutoCommit::load(&changes.concat())?;
        let (_, annotations) = document.get(ROOT, "annotations")?.context("no annotations")?;
        Ok(Self { document, annotations, changes: redb })
    }

    /// Makes a change of one annotation and puts it.
    ///
    /// # Errors
    ///
    /// What automerge or redb says.
    pub fn put(&mut self, id: AnnotationId, json: &str) -> anyhow::Result<()> {
        self.document.put(&self.annotations, id.to_string(), json)?;
        self.document.commit();
        let change = self.document.get_last_local_change().context("no change")?;
        self.changes.put(&[change.raw_bytes()])
    }

    /// Applies one change of another device, in memory.
    ///
    /// # Errors
    ///
    /// What automerge says.
    pub fn apply(&mut self, change: &[u8]) -> anyhow::Result<()> {
        let change = automerge::Change::from_bytes(change.to_vec())?;
        Ok(self.document.apply_changes([change])?)
    }
}

/// Syncs two documents by automerge's own protocol, and returns how many bytes the messages have.
///
/// # Errors
///
/// What automerge says.
pub fn automerge_sync(one: &mut AutoCommit, other: &mut AutoCommit) -> anyhow::Result<usize> {
    let (mut of_one, mut of_other) = (State::new(), State::new());
    let mut bytes = 0;
    loop {
        let there = one.sync().generate_sync_message(&mut of_one);
        let idle = there.is_none();
        if let Some(message) = there {
            bytes += message.clone().encode().len();
            other.sync().receive_sync_message(&mut of_other, message)?;
        }
        let back = other.sync().generate_sync_message(&mut of_other);
        if back.is_none() && idle {
            return Ok(bytes);
        }
        if let Some(message) = back {
            bytes += message.clone().encode().len();
            one.sync().receive_sync_message(&mut of_one, message)?;
        }
    }
}

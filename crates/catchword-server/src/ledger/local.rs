//! The embedded ledger: one redb file, for one household.
//!
//! One thread writes. What waits when it begins is decided in one transaction, so that many clients
//! share a flush.
//!
//! # Invariants
//!
//! 1. An answer is given after the commit.
//! 2. One transaction writes at a time, so numbers of a feed are in order.
//! 3. Every commit is one that needs no repair, so that a server that was killed opens at once,
//!    whatever the size of its file.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use catchword_model::exchange::DocumentName;
use catchword_model::id::{BookId, DocumentId};
use catchword_proto::cloud::api::{
    AccountId, Anchor, Book, Books, ChainKind, DEVICES_MAX, FeedTag, Ingested, Page, TokenId,
    Verdict,
};
use catchword_proto::cloud::codec::Blob;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::{broadcast, oneshot};

use super::rows::{
    AccountBytes, DeviceBytes, DocumentBytes, RecordBytes, damaged, no_tag, pack, unpack,
};
use super::tables::{ACCOUNTS, DEVICES, DOCUMENTS, FOLDS, HASHES, META, NUMBERS, OPS, RECORDS};
use super::{
    AccountRow, Added, Answer, Cut, Decided, DeviceRow, Ledger, LedgerError, NUDGES_MAX,
    SIGNED_OUT, StoredRecord, book_of, decide, draw_tag, tag_at,
};
use crate::docket::{DocumentRow, Loaded, RecordKind};
use crate::entry::{Batch, Wanted};
use crate::fold::{Fold, RegisterKey, keys_of_marks, position_keys};

/// The format of the file. The second may say that something is void.
const FORMAT: u64 = 2;
/// Jobs that share one transaction.
const GROUP_MAX: usize = 64;
/// Jobs that wait for the writer; beyond, the ledger is busy.
const WAITING_MAX: usize = 4_096;

/// Keeps everything in one file.
#[derive(Debug)]
pub struct RedbLedger {
    database: Arc<Database>,
    jobs: Option<mpsc::SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    nudges: broadcast::Sender<(AccountId, u64)>,
}

/// Writes inside the transaction, and returns what is to be done once it is durable.
type Job = Box<dyn FnOnce(&WriteTransaction) -> Result<Finish, LedgerError> + Send>;
type Finish = Box<dyn FnOnce(Result<(), LedgerError>) + Send>;

impl RedbLedger {
    /// Opens or makes the ledger in a file.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if the file cannot be opened, for instance because another process has it.
    pub fn open(file: &Path) -> Result<Self, LedgerError> {
        Self::over(Database::create(file).map_err(LedgerError::database)?)
    }

    /// Uses a database that is open already.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if it cannot be written, or is of a newer release.
    pub fn over(database: Database) -> Result<Self, LedgerError> {
        let transaction = begin(&database)?;
        set_format(&transaction)?;
        make_tables(&transaction)?;
        transaction.commit().map_err(LedgerError::database)?;

        let database = Arc::new(database);
        let (jobs, waiting) = mpsc::sync_channel(WAITING_MAX);
        let (nudges, _) = broadcast::channel(NUDGES_MAX);
        let of_writer = Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write_all(&of_writer, &waiting))
            .map_err(LedgerError::database)?;
        Ok(Self { database, jobs: Some(jobs), writer: Some(writer), nudges })
    }

    /// Runs something in a transaction of the writer, and answers when it is durable.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, LedgerError> + Send + 'static,
    ) -> Answer<'_, T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            let done = work(transaction)?;
            let finish: Finish = Box::new(move |durable| {
                // Whoever asked may be gone; what was written stays.
                drop(reply.send(durable.map(|()| done)));
            });
            Ok(finish)
        });
        let sent = match &self.jobs {
            Some(jobs) => jobs.try_send(job).map_err(|_| LedgerError::Busy),
            None => Err(LedgerError::Busy),
        };
        Box::pin(async move {
            sent?;
            // Without an answer the transaction was given up.
            answer.await.map_err(|_| LedgerError::database("the transaction failed"))?
        })
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, LedgerError> + Send + 'static,
    ) -> Answer<'_, T> {
        let database = Arc::clone(&self.database);
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                work(&database.begin_read().map_err(LedgerError::database)?)
            });
            read.await.map_err(LedgerError::database)?
        })
    }
}

impl Drop for RedbLedger {
    /// Waits for what was accepted.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

fn write_all(database: &Database, waiting: &mpsc::Receiver<Job>) {
    while let Ok(first) = waiting.recv() {
        let mut finishes = Vec::new();
        let written = begin(database).and_then(|write| {
            let more = std::iter::from_fn(|| waiting.try_recv().ok()).take(GROUP_MAX - 1);
            for job in std::iter::once(first).chain(more) {
                // One that fails may have written half of it: the group is given up.
                finishes.push(job(&write)?);
            }
            write.commit().map_err(LedgerError::database)
        });
        match written {
            Ok(()) => finishes.into_iter().for_each(|finish| finish(Ok(()))),
            Err(error) => {
                tracing::error!(%error, "a transaction failed");
                drop(finishes);
            }
        }
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, LedgerError> {
    let mut write = database.begin_write().map_err(LedgerError::database)?;
    write.set_quick_repair(true);
    Ok(write)
}

/// Notes the format. What an earlier release wrote reads as it is.
fn set_format(write: &WriteTransaction) -> Result<(), LedgerError> {
    let mut meta = write.open_table(META).map_err(LedgerError::database)?;
    let format = meta.get("format").map_err(LedgerError::database)?.map(|row| row.value());
    if let Some(newer) = format.filter(|format| FORMAT < *format) {
        let detail = format!("its format is {newer}; this release knows {FORMAT}");
        return Err(LedgerError::Unfit { detail });
    }
    meta.insert("format", FORMAT).map_err(LedgerError::database)?;
    Ok(())
}

fn make_tables(write: &WriteTransaction) -> Result<(), LedgerError> {
    write.open_table(ACCOUNTS).map_err(LedgerError::database)?;
    write.open_table(DEVICES).map_err(LedgerError::database)?;
    write.open_table(DOCUMENTS).map_err(LedgerError::database)?;
    write.open_table(RECORDS).map_err(LedgerError::database)?;
    write.open_table(HASHES).map_err(LedgerError::database)?;
    write.open_table(NUMBERS).map_err(LedgerError::database)?;
    write.open_table(OPS).map_err(LedgerError::database)?;
    write.open_table(FOLDS).map_err(LedgerError::database)?;
    Ok(())
}

impl Ledger for RedbLedger {
    fn add_account(
        &self,
        account: AccountId,
        row: AccountRow,
        device: DeviceRow,
    ) -> Answer<'_, Added> {
        self.write(move |write| {
            let mut accounts = write.open_table(ACCOUNTS).map_err(LedgerError::database)?;
            if accounts.get(account.0).map_err(LedgerError::database)?.is_some() {
                return Ok(Added::Refused);
            }
            let (password_hash, tag) = (row.password_hash, no_tag());
            let row = AccountBytes { password_hash, feed: 0, documents: 0, tag };
            accounts.insert(account.0, pack(&row)?.as_slice()).map_err(LedgerError::database)?;
            put_device(write, account, &device)?;
            Ok(Added::Added)
        })
    }

    fn account(&self, account: AccountId) -> Answer<'_, Option<AccountRow>> {
        self.read(move |read| {
            let accounts = read.open_table(ACCOUNTS).map_err(LedgerError::database)?;
            let row = find_account(&accounts, account)?;
            Ok(row.map(|row| AccountRow { password_hash: row.password_hash }))
        })
    }

    fn set_password_hash(&self, account: AccountId, password_hash: String) -> Answer<'_, ()> {
        self.write(move |write| {
            let mut accounts = write.open_table(ACCOUNTS).map_err(LedgerError::database)?;
            let Some(row) = find_account(&accounts, account)? else { return Ok(()) };
            let row = pack(&AccountBytes { password_hash, ..row })?;
            accounts.insert(account.0, row.as_slice()).map_err(LedgerError::database)?;
            Ok(())
        })
    }

    fn add_device(&self, account: AccountId, device: DeviceRow, now_ms: u64) -> Answer<'_, Added> {
        self.write(move |write| {
            let accounts = write.open_table(ACCOUNTS).map_err(LedgerError::database)?;
            if find_account(&accounts, account)?.is_none() {
                return Ok(Added::Refused);
            }
            let mut table = write.open_table(DEVICES).map_err(LedgerError::database)?;
            let (ended, there): (Vec<_>, Vec<_>) = devices_of(&table, account)?
                .into_iter()
                .partition(|device| device.expires_ms <= now_ms);
            if DEVICES_MAX <= there.len() {
                return Ok(Added::Full);
            }
            for device in ended {
                table.remove((account.0, device.id.0)).map_err(LedgerError::database)?;
            }
            drop(table);
            put_device(write, account, &device)?;
            Ok(Added::Added)
        })
    }

    fn devices(&self, account: AccountId) -> Answer<'_, Vec<DeviceRow>> {
        self.read(move |read| {
            devices_of(&read.open_table(DEVICES).map_err(LedgerError::database)?, account)
        })
    }

    fn device(&self, account: AccountId, device: TokenId) -> Answer<'_, Option<DeviceRow>> {
        self.read(move |read| {
            let devices = read.open_table(DEVICES).map_err(LedgerError::database)?;
            let row = devices.get((account.0, device.0)).map_err(LedgerError::database)?;
            row.map(|row| device_row(device, row.value())).transpose()
        })
    }

    fn extend_device(
        &self,
        account: AccountId,
        device: TokenId,
        expires_ms: u64,
    ) -> Answer<'_, ()> {
        self.write(move |write| {
            let devices = write.open_table(DEVICES).map_err(LedgerError::database)?;
            let row = devices.get((account.0, device.0)).map_err(LedgerError::database)?;
            let row = row.map(|row| device_row(device, row.value())).transpose()?;
            drop(devices);
            match row {
                Some(row) => put_device(write, account, &DeviceRow { expires_ms, ..row }),
                None => Ok(()),
            }
        })
    }

    fn remove_device(&self, account: AccountId, device: TokenId) -> Answer<'_, bool> {
        let removed = self.write(move |write| {
            let mut devices = write.open_table(DEVICES).map_err(LedgerError::database)?;
            let gone = devices.remove((account.0, device.0)).map_err(LedgerError::database)?;
            Ok(gone.is_some())
        });
        Box::pin(async move {
            let gone = removed.await?;
            // Nobody may be listening.
            drop(self.nudges.send((account, SIGNED_OUT)));
            Ok(gone)
        })
    }

    fn admit(&self, account: AccountId, batch: Arc<Batch>) -> Answer<'_, Ingested> {
        let written = self.write(move |write| admit(write, account, &batch));
        Box::pin(async move {
            let admitted = written.await??;
            let (ingested, grown) = admitted;
            if grown {
                // Nobody may be listening.
                drop(self.nudges.send((account, ingested.cursor)));
            }
            Ok(ingested)
        })
    }

    fn page(&self, account: AccountId, after: u64, limit: usize) -> Answer<'_, Page> {
        self.read(move |read| page(read, account, after, limit))
    }

    fn knows(&self, account: AccountId, anchor: Anchor) -> Answer<'_, bool> {
        self.read(move |read| {
            let records = read.open_table(RECORDS).map_err(LedgerError::database)?;
            let row = records.get((account.0, anchor.number)).map_err(LedgerError::database)?;
            let row = row.map(|row| unpack::<RecordBytes>(row.value())).transpose()?;
            Ok(row.is_some_and(|row| row.tag == anchor.tag))
        })
    }

    fn end(&self, account: AccountId) -> Answer<'_, u64> {
        self.read(move |read| {
            let accounts = read.open_table(ACCOUNTS).map_err(LedgerError::database)?;
            Ok(find_account(&accounts, account)?.map_or(0, |row| row.feed))
        })
    }

    fn books(&self, account: AccountId, after: Option<BookId>, limit: usize) -> Answer<'_, Books> {
        self.read(move |read| books(read, account, after, limit))
    }

    fn book(&self, account: AccountId, book: BookId) -> Answer<'_, Option<Book>> {
        self.read(move |read| {
            let documents = read.open_table(DOCUMENTS).map_err(LedgerError::database)?;
            let key = (account.0, book.document().0);
            let row = documents.get(key).map_err(LedgerError::database)?;
            let Some(row) = row.map(|row| unpack::<DocumentBytes>(row.value())).transpose()? else {
                return Ok(None);
            };
            let DocumentName::Book(_) = row.name else { return Ok(None) };
            let fold = whole_fold(read, account, book.document())?;
            Ok(Some(book_of(book, row.row(), &fold)))
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        self.write(|_| Ok(()))
    }

    fn nudges(&self) -> broadcast::Receiver<(AccountId, u64)> {
        self.nudges.subscribe()
    }
}

fn find_account(
    accounts: &impl ReadableTable<[u8; 16], &'static [u8]>,
    account: AccountId,
) -> Result<Option<AccountBytes>, LedgerError> {
    let row = accounts.get(account.0).map_err(LedgerError::database)?;
    row.map(|row| unpack(row.value())).transpose()
}

fn device_row(id: TokenId, bytes: &[u8]) -> Result<DeviceRow, LedgerError> {
    let row: DeviceBytes = unpack(bytes)?;
    Ok(DeviceRow {
        id,
        name: row.name,
        token_hash: row.token_hash.0.try_into().map_err(|_| damaged())?,
        created_ms: row.created_ms,
        expires_ms: row.expires_ms,
    })
}

fn put_device(
    write: &WriteTransaction,
    account: AccountId,
    device: &DeviceRow,
) -> Result<(), LedgerError> {
    let row = pack(&DeviceBytes {
        name: device.name.clone(),
        token_hash: Blob(device.token_hash.to_vec()),
        created_ms: device.created_ms,
        expires_ms: device.expires_ms,
    })?;
    let mut devices = write.open_table(DEVICES).map_err(LedgerError::database)?;
    devices.insert((account.0, device.id.0), row.as_slice()).map_err(LedgerError::database)?;
    Ok(())
}

fn devices_of(
    devices: &impl ReadableTable<([u8; 16], [u8; 16]), &'static [u8]>,
    account: AccountId,
) -> Result<Vec<DeviceRow>, LedgerError> {
    let range = (account.0, [0; 16])..=(account.0, [0xff; 16]);
    let mut found = Vec::new();
    for row in devices.range(range).map_err(LedgerError::database)? {
        let (key, row) = row.map_err(LedgerError::database)?;
        found.push(device_row(TokenId(key.value().1), row.value())?);
    }
    Ok(found)
}

const fn chain_code(chain: ChainKind) -> u8 {
    match chain {
        ChainKind::Changes => 0,
        ChainKind::Events => 1,
    }
}

/// What a batch came to, and whether the feed has grown.
type Admitted = (Ingested, bool);

/// Decides and writes. Inside is what went wrong before anything was written: others in the same
/// transaction are not concerned.
fn admit(
    write: &WriteTransaction,
    account: AccountId,
    batch: &Batch,
) -> Result<Result<Admitted, LedgerError>, LedgerError> {
    let (row, decided) = match read_and_decide(write, account, batch) {
        Ok(decided) => decided,
        Err(error) => return Ok(Err(error)),
    };
    let (end, cursor) = (row.feed, row.feed + decided.records());
    let grown = end < cursor;
    let before_tag = tag_at(end, row.tag);
    let tag = if grown { draw_tag()? } else { row.tag };
    if grown {
        let documents = row.documents + decided.begun;
        let row = pack(&AccountBytes { feed: cursor, documents, tag, ..row })?;
        let mut accounts = write.open_table(ACCOUNTS).map_err(LedgerError::database)?;
        accounts.insert(account.0, row.as_slice()).map_err(LedgerError::database)?;
        drop(accounts);
        void_records(write, account, &decided)?;
        put_records(write, account, (end, tag), &decided)?;
        put_documents(write, account, &decided)?;
    }
    let (before, tag) = (decided.before(cursor), tag_at(cursor, tag));
    Ok(Ok((Ingested { answers: decided.answers, before, cursor, before_tag, tag }, grown)))
}

fn read_and_decide(
    write: &WriteTransaction,
    account: AccountId,
    batch: &Batch,
) -> Result<(AccountBytes, Decided), LedgerError> {
    let accounts = write.open_table(ACCOUNTS).map_err(LedgerError::database)?;
    let row = find_account(&accounts, account)?.ok_or_else(damaged)?;
    let mut loaded = Vec::new();
    for wanted in batch.wanted() {
        let mut found = load(write, account, &wanted)?;
        if wanted.is_forked(&found) {
            load_whole(write, account, &wanted, &mut found)?;
        }
        loaded.push((wanted, found));
    }
    let decided = decide(batch, loaded, row.documents);
    Ok((row, decided))
}

fn load(
    write: &WriteTransaction,
    account: AccountId,
    wanted: &Wanted,
) -> Result<Loaded, LedgerError> {
    let document = wanted.document.id().0;
    let documents = write.open_table(DOCUMENTS).map_err(LedgerError::database)?;
    let row = documents.get((account.0, document)).map_err(LedgerError::database)?;
    let Some(row) = row else { return Ok(Loaded::default()) };
    let row = unpack::<DocumentBytes>(row.value())?.row();

    let mut links = std::collections::BTreeSet::new();
    let mut sources = std::collections::BTreeSet::new();
    let hashes = write.open_table(HASHES).map_err(LedgerError::database)?;
    for hash in &wanted.hashes {
        let found = hashes.get((account.0, document, *hash)).map_err(LedgerError::database)?;
        links.extend(found.map(|number| number.value()));
    }
    let numbers = write.open_table(NUMBERS).map_err(LedgerError::database)?;
    for (chain, actor, number, _) in &wanted.numbers {
        let key = (account.0, document, chain_code(*chain), actor.0, *number);
        let found = numbers.get(key).map_err(LedgerError::database)?;
        links.extend(found.map(|number| number.value()));
    }
    for actor in &wanted.first {
        let key = (account.0, document, chain_code(ChainKind::Changes), actor.0, 1);
        let found = numbers.get(key).map_err(LedgerError::database)?;
        sources.extend(found.map(|number| number.value()));
    }
    let ops = write.open_table(OPS).map_err(LedgerError::database)?;
    for op in &wanted.ops {
        let of = |counter| (account.0, document, op.actor.0, counter);
        let mut below = ops.range(of(0)..=of(op.counter)).map_err(LedgerError::database)?;
        let found = below.next_back().transpose().map_err(LedgerError::database)?;
        sources.extend(found.map(|(_, number)| number.value()));
    }

    let records = write.open_table(RECORDS).map_err(LedgerError::database)?;
    let mut found = Loaded { row, ..Loaded::default() };
    for number in &links | &sources {
        let record = records.get((account.0, number)).map_err(LedgerError::database)?;
        let record = record.ok_or_else(damaged)?;
        let record = unpack::<RecordBytes>(record.value())?.record()?;
        found.links.push(record.link);
        found.sources.extend(sources.contains(&number).then_some(record.bytes));
    }
    found.fold = load_fold(write, account, wanted)?;
    Ok(found)
}

/// Loads everything of a document.
fn load_whole(
    write: &WriteTransaction,
    account: AccountId,
    wanted: &Wanted,
    found: &mut Loaded,
) -> Result<(), LedgerError> {
    let document = wanted.document.id().0;
    let hashes = write.open_table(HASHES).map_err(LedgerError::database)?;
    let range = (account.0, document, [0; 32])..=(account.0, document, [0xff; 32]);
    let mut feed = std::collections::BTreeSet::new();
    for row in hashes.range(range).map_err(LedgerError::database)? {
        feed.insert(row.map_err(LedgerError::database)?.1.value());
    }
    let records = write.open_table(RECORDS).map_err(LedgerError::database)?;
    let mut whole = Vec::with_capacity(feed.len());
    for number in feed {
        let record = records.get((account.0, number)).map_err(LedgerError::database)?;
        let record = unpack::<RecordBytes>(record.ok_or_else(damaged)?.value())?.record()?;
        whole.push((record.link, record.bytes));
    }
    found.whole = Some(whole);
    let folds = write.open_table(FOLDS).map_err(LedgerError::database)?;
    found.fold = fold_rows(&folds, account, wanted.document.id())?;
    Ok(())
}

fn load_fold(
    write: &WriteTransaction,
    account: AccountId,
    wanted: &Wanted,
) -> Result<Vec<(RegisterKey, Vec<u8>)>, LedgerError> {
    let document = wanted.document.id().0;
    let folds = write.open_table(FOLDS).map_err(LedgerError::database)?;
    let (first, last) = position_keys();
    let mut rows = Vec::new();
    let mut keys = wanted.registers.clone();
    let range = (account.0, document, first)..=(account.0, document, last);
    for row in folds.range(range).map_err(LedgerError::database)? {
        let (key, value) = row.map_err(LedgerError::database)?;
        let register = key.value().2;
        keys.extend(keys_of_marks(&register));
        rows.push((register, value.value().to_vec()));
    }
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| !(first..=last).contains(key));
    for key in keys {
        let value = folds.get((account.0, document, key)).map_err(LedgerError::database)?;
        rows.extend(value.map(|value| (key, value.value().to_vec())));
    }
    Ok(rows)
}

/// Notes of what was taken before that it is void. What is in the same batch is written so.
fn void_records(
    write: &WriteTransaction,
    account: AccountId,
    decided: &Decided,
) -> Result<(), LedgerError> {
    let mut records = write.open_table(RECORDS).map_err(LedgerError::database)?;
    let hashes = write.open_table(HASHES).map_err(LedgerError::database)?;
    let mut ops = write.open_table(OPS).map_err(LedgerError::database)?;
    for docket in &decided.dockets {
        let document = docket.document().id().0;
        for link in docket.voided() {
            let found = hashes.get((account.0, document, link.hash));
            let Some(number) = found.map_err(LedgerError::database)?.map(|row| row.value()) else {
                continue;
            };
            let key = (account.0, number);
            let row = records.get(key).map_err(LedgerError::database)?.ok_or_else(damaged)?;
            let mut record = unpack::<RecordBytes>(row.value())?;
            drop(row);
            record.verdict = Verdict::Void;
            records.insert(key, pack(&record)?.as_slice()).map_err(LedgerError::database)?;
            if link.chain == ChainKind::Changes {
                let key = (account.0, document, link.actor.0, link.start_op);
                ops.remove(key).map_err(LedgerError::database)?;
            }
        }
    }
    Ok(())
}

fn put_records(
    write: &WriteTransaction,
    account: AccountId,
    (before, tag): (u64, FeedTag),
    decided: &Decided,
) -> Result<(), LedgerError> {
    let mut records = write.open_table(RECORDS).map_err(LedgerError::database)?;
    let mut hashes = write.open_table(HASHES).map_err(LedgerError::database)?;
    let mut numbers = write.open_table(NUMBERS).map_err(LedgerError::database)?;
    let mut ops = write.open_table(OPS).map_err(LedgerError::database)?;
    let mut number = before;
    for group in &decided.groups {
        let through = number + group.len() as u64;
        for record in group {
            number += 1;
            let record = StoredRecord::new(record, through);
            let (document, link) = (record.document.id().0, &record.link);
            let row = pack(&RecordBytes::of(&record, tag))?;
            records.insert((account.0, number), row.as_slice()).map_err(LedgerError::database)?;
            if record.kind == RecordKind::Void {
                continue;
            }
            hashes
                .insert((account.0, document, link.hash), number)
                .map_err(LedgerError::database)?;
            // Of a fork it says no more than that the number is taken.
            let key = (account.0, document, chain_code(link.chain), link.actor.0, link.number);
            numbers.insert(key, number).map_err(LedgerError::database)?;
            if link.chain == ChainKind::Changes && link.verdict != Verdict::Void {
                let key = (account.0, document, link.actor.0, link.start_op);
                ops.insert(key, number).map_err(LedgerError::database)?;
            }
        }
    }
    Ok(())
}

fn put_documents(
    write: &WriteTransaction,
    account: AccountId,
    decided: &Decided,
) -> Result<(), LedgerError> {
    let mut documents = write.open_table(DOCUMENTS).map_err(LedgerError::database)?;
    let mut folds = write.open_table(FOLDS).map_err(LedgerError::database)?;
    for docket in &decided.dockets {
        let (name, DocumentRow { version, events, actors }) = (docket.document(), docket.row());
        let document = name.id().0;
        let row = pack(&DocumentBytes { name, version, events, actors })?;
        documents.insert((account.0, document), row.as_slice()).map_err(LedgerError::database)?;
        for (key, value) in docket.fold().changed() {
            folds
                .insert((account.0, document, key), value.as_slice())
                .map_err(LedgerError::database)?;
        }
    }
    Ok(())
}

fn page(
    read: &ReadTransaction,
    account: AccountId,
    after: u64,
    limit: usize,
) -> Result<Page, LedgerError> {
    let accounts = read.open_table(ACCOUNTS).map_err(LedgerError::database)?;
    let end = find_account(&accounts, account)?.map_or(0, |row| row.feed);
    let records = read.open_table(RECORDS).map_err(LedgerError::database)?;
    let mut page = Page { records: Vec::new(), cursor: after, end, tag: None, reset: false };
    let at = records.get((account.0, after)).map_err(LedgerError::database)?;
    page.tag = at.map(|row| unpack::<RecordBytes>(row.value())).transpose()?.map(|row| row.tag);
    let mut cut = Cut::new(limit);
    let range = (account.0, after.saturating_add(1))..=(account.0, u64::MAX);
    for row in records.range(range).map_err(LedgerError::database)? {
        let (key, value) = row.map_err(LedgerError::database)?;
        let number = key.value().1;
        let row = unpack::<RecordBytes>(value.value())?;
        let tag = row.tag;
        let record = row.record()?;
        if !cut.takes(number, record.through, record.bytes.len() as u64) {
            break;
        }
        (page.cursor, page.tag) = (number, Some(tag));
        page.records.push(record.into_feed(number));
    }
    Ok(page)
}

fn whole_fold(
    read: &ReadTransaction,
    account: AccountId,
    document: DocumentId,
) -> Result<Fold, LedgerError> {
    let folds = read.open_table(FOLDS).map_err(LedgerError::database)?;
    Ok(Fold::new(fold_rows(&folds, account, document)?))
}

fn fold_rows(
    folds: &impl ReadableTable<([u8; 16], [u8; 32], RegisterKey), &'static [u8]>,
    account: AccountId,
    document: DocumentId,
) -> Result<Vec<(RegisterKey, Vec<u8>)>, LedgerError> {
    let range = (account.0, document.0, [0; 21])..=(account.0, document.0, [0xff; 21]);
    let mut rows = Vec::new();
    for row in folds.range(range).map_err(LedgerError::database)? {
        let (key, value) = row.map_err(LedgerError::database)?;
        rows.push((key.value().2, value.value().to_vec()));
    }
    Ok(rows)
}

fn books(
    read: &ReadTransaction,
    account: AccountId,
    after: Option<BookId>,
    limit: usize,
) -> Result<Books, LedgerError> {
    let documents = read.open_table(DOCUMENTS).map_err(LedgerError::database)?;
    let first = after.map_or([0; 32], |book| book.0);
    let mut found = Books { books: Vec::new(), next: None };
    let range = (account.0, first)..=(account.0, [0xff; 32]);
    for row in documents.range(range).map_err(LedgerError::database)? {
        let (_, row) = row.map_err(LedgerError::database)?;
        let row: DocumentBytes = unpack(row.value())?;
        let DocumentName::Book(book) = row.name else { continue };
        if after == Some(book) {
            continue;
        }
        if limit <= found.books.len() {
            found.next = found.books.last().map(|last| last.book);
            break;
        }
        let fold = whole_fold(read, account, book.document())?;
        found.books.push(book_of(book, row.row(), &fold));
    }
    Ok(found)
}

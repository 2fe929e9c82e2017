//! The ledger in PostgreSQL 15 or newer, for any number of server processes.
//!
//! # Invariants
//!
//! 1. A transaction begins by naming its account; without it, row-level security shows nothing.
//! 2. Rows of documents are locked before that of the account, in order of id; the account's row, which
//!    numbers the feed, is the last lock and is held to the commit.
//! 3. A connection on which a transaction did not end is closed, never used again.

use std::sync::Arc;
use std::time::Duration;

use catchword_model::exchange::DocumentName;
use catchword_model::id::BookId;
use catchword_proto::cloud::api::{
    AccountId, Anchor, Book, Books, DEVICES_MAX, FeedTag, Ingested, Page, TokenId,
};
use catchword_proto::cloud::codec::parse_document;
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use tokio::sync::broadcast;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{
    AccountRow, Added, Answer, Cut, DeviceRow, Ledger, LedgerError, NUDGES_MAX, SIGNED_OUT, book_of,
};
use crate::docket::DocumentRow;
use crate::entry::Batch;
use crate::fold::{Fold, RegisterKey};

mod admit;
mod connect;
mod migrate;
mod notify;
mod project;
mod record;

pub use project::Projected;

/// How long a call waits for a connection.
const POOL_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long the database may take to be reached.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Says who works in a connection, how long a statement may take, and that statements are planned once
/// and by indexes: all of them look up keys, to plan one takes as long as to carry it out, and a plan that
/// was made while a table was empty would read all of it for ever.
const SESSION: &str = "SET ROLE catchword_service; SET statement_timeout = '5s'; \
                       SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";

/// Keeps everything in PostgreSQL.
#[derive(Debug)]
pub struct PostgresLedger {
    pool: Pool,
    nudges: broadcast::Sender<(AccountId, u64)>,
    notices: notify::Notices,
    projector: Option<project::Projector>,
}

impl PostgresLedger {
    /// Connects, brings the schema up to date, and listens to other processes.
    ///
    /// `url` names a role that may create the schema and the role `catchword_service`; every
    /// transaction works as the latter. With `sslmode=require&sslrootcert=FILE` in it the server speaks
    /// TLS with the database. At most `connections` are open, two of them aside.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if the database does not answer, is too old, is newer than this release, if the
    /// service would see the rows of all accounts, or if they would go over a network in plain.
    pub async fn open(url: &str, connections: usize) -> Result<Self, LedgerError> {
        let (mut config, connect) = connect::parse(url)?;
        config.connect_timeout(CONNECT_WAIT_MAX).application_name("catchword-server");
        migrate::migrate(&config, connect.clone()).await?;

        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), connect.clone(), recycling);
        let begin = Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
        });
        let pool = Pool::builder(manager)
            .max_size(connections)
            .wait_timeout(Some(POOL_WAIT_MAX))
            .create_timeout(Some(CONNECT_WAIT_MAX))
            .runtime(Runtime::Tokio1)
            .post_create(begin)
            .build()
            .map_err(LedgerError::database)?;
        check_role(&pool.get().await.map_err(pool_error)?).await?;
        let (nudges, _) = broadcast::channel(NUDGES_MAX);
        let notices = notify::Notices::start((config, connect), pool.clone(), nudges.clone());
        Ok(Self { pool, nudges, notices, projector: None })
    }

    /// Begins a transaction of an account.
    async fn begin(&self, account: AccountId) -> Result<Work, LedgerError> {
        begin(&self.pool, account).await
    }
}

async fn begin(pool: &Pool, account: AccountId) -> Result<Work, LedgerError> {
    let client = pool.get().await.map_err(pool_error)?;
    let work = Work { client: Some(client) };
    let name = work.prepare(NAME_ACCOUNT).await?;
    let client = work.client()?;
    let account = account.to_string();
    let parameters: [&(dyn ToSql + Sync); 1] = [&account];
    // Both are on their way before the first is answered.
    let (begun, named) =
        tokio::join!(biased; client.batch_execute("BEGIN"), client.query(&name, &parameters));
    begun.map_err(LedgerError::database)?;
    named.map_err(LedgerError::database)?;
    Ok(work)
}

const NAME_ACCOUNT: &str = "SELECT set_config('app.account_id', $1, true)";

/// A connection inside a transaction. Dropped before it ended, it is closed.
#[derive(Debug)]
struct Work {
    client: Option<Object>,
}

impl Work {
    fn client(&self) -> Result<&Object, LedgerError> {
        self.client.as_ref().ok_or(LedgerError::Busy)
    }

    async fn prepare(&self, sql: &str) -> Result<tokio_postgres::Statement, LedgerError> {
        self.client()?.prepare_cached(sql).await.map_err(LedgerError::database)
    }

    async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        let statement = self.prepare(sql).await?;
        self.client()?.query(&statement, parameters).await.map_err(LedgerError::database)
    }

    async fn execute(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, LedgerError> {
        let statement = self.prepare(sql).await?;
        self.client()?.execute(&statement, parameters).await.map_err(LedgerError::database)
    }

    async fn commit(self) -> Result<(), LedgerError> {
        self.end("COMMIT").await
    }

    async fn roll_back(self) -> Result<(), LedgerError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &str) -> Result<(), LedgerError> {
        self.client()?.batch_execute(how).await.map_err(LedgerError::database)?;
        drop(self.client.take());
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

fn pool_error(error: deadpool_postgres::PoolError) -> LedgerError {
    match error {
        deadpool_postgres::PoolError::Timeout(_) => LedgerError::Busy,
        error @ (deadpool_postgres::PoolError::Backend(_)
        | deadpool_postgres::PoolError::Closed
        | deadpool_postgres::PoolError::NoRuntimeSpecified
        | deadpool_postgres::PoolError::PostCreateHook(_)) => LedgerError::database(error),
    }
}

/// Makes sure that row-level security binds the service.
async fn check_role(client: &Object) -> Result<(), LedgerError> {
    const ROLE: &str =
        "SELECT (rolsuper OR rolbypassrls)::bool FROM pg_roles WHERE rolname = current_user";
    let row = client.query_one(ROLE, &[]).await.map_err(LedgerError::database)?;
    if row.try_get::<_, bool>(0).map_err(LedgerError::database)? {
        let detail = "catchword_service sees the rows of all accounts; take SUPERUSER and \
                      BYPASSRLS from it";
        return Err(LedgerError::Unfit { detail: detail.to_owned() });
    }
    Ok(())
}

impl Ledger for PostgresLedger {
    fn add_account(
        &self,
        account: AccountId,
        row: AccountRow,
        device: DeviceRow,
    ) -> Answer<'_, Added> {
        const ADD: &str = "INSERT INTO catchword.accounts (account_id, password_hash) \
                           VALUES ($1, $2) ON CONFLICT (account_id) DO NOTHING";
        Box::pin(async move {
            let work = self.begin(account).await?;
            if work.execute(ADD, &[&&account.0[..], &row.password_hash]).await? == 0 {
                work.roll_back().await?;
                return Ok(Added::Refused);
            }
            put_device(&work, account, &device).await?;
            work.commit().await?;
            Ok(Added::Added)
        })
    }

    fn account(&self, account: AccountId) -> Answer<'_, Option<AccountRow>> {
        const FIND: &str = "SELECT password_hash FROM catchword.accounts WHERE account_id = $1";
        Box::pin(async move {
            let work = self.begin(account).await?;
            let rows = work.query(FIND, &[&&account.0[..]]).await?;
            work.commit().await?;
            let row = rows.first().map(|row| row.try_get(0).map_err(LedgerError::database));
            Ok(row.transpose()?.map(|password_hash| AccountRow { password_hash }))
        })
    }

    fn set_password_hash(&self, account: AccountId, password_hash: String) -> Answer<'_, ()> {
        const SET: &str = "UPDATE catchword.accounts SET password_hash = $2 WHERE account_id = $1";
        Box::pin(async move {
            let work = self.begin(account).await?;
            work.execute(SET, &[&&account.0[..], &password_hash]).await?;
            work.commit().await
        })
    }

    fn add_device(&self, account: AccountId, device: DeviceRow, now_ms: u64) -> Answer<'_, Added> {
        const LOCK: &str = "SELECT 1 FROM catchword.accounts WHERE account_id = $1 FOR UPDATE";
        const CLEAR: &str =
            "DELETE FROM catchword.devices WHERE account_id = $1 AND expires_ms <= $2";
        const COUNT: &str = "SELECT count(*) FROM catchword.devices WHERE account_id = $1";
        Box::pin(async move {
            let work = self.begin(account).await?;
            let id = &account.0[..];
            if work.query(LOCK, &[&id]).await?.is_empty() {
                work.roll_back().await?;
                return Ok(Added::Refused);
            }
            work.execute(CLEAR, &[&id, &number(now_ms)]).await?;
            let count: i64 = column(&one(work.query(COUNT, &[&id]).await?)?, 0)?;
            if DEVICES_MAX as u64 <= count.cast_unsigned() {
                work.roll_back().await?;
                return Ok(Added::Full);
            }
            put_device(&work, account, &device).await?;
            work.commit().await?;
            Ok(Added::Added)
        })
    }

    fn devices(&self, account: AccountId) -> Answer<'_, Vec<DeviceRow>> {
        const LIST: &str = "SELECT device_id, name, token_hash, created_ms, expires_ms \
                            FROM catchword.devices WHERE account_id = $1 ORDER BY device_id";
        Box::pin(async move {
            let work = self.begin(account).await?;
            let rows = work.query(LIST, &[&&account.0[..]]).await?;
            work.commit().await?;
            rows.iter().map(device_row).collect()
        })
    }

    fn device(&self, account: AccountId, device: TokenId) -> Answer<'_, Option<DeviceRow>> {
        const FIND: &str = "SELECT device_id, name, token_hash, created_ms, expires_ms \
                            FROM catchword.devices WHERE account_id = $1 AND device_id = $2";
        Box::pin(async move {
            let work = self.begin(account).await?;
            let rows = work.query(FIND, &[&&account.0[..], &&device.0[..]]).await?;
            work.commit().await?;
            rows.first().map(device_row).transpose()
        })
    }

    fn extend_device(
        &self,
        account: AccountId,
        device: TokenId,
        expires_ms: u64,
    ) -> Answer<'_, ()> {
        const SET: &str = "UPDATE catchword.devices SET expires_ms = $3 \
                           WHERE account_id = $1 AND device_id = $2";
        Box::pin(async move {
            let work = self.begin(account).await?;
            let (id, device) = (&account.0[..], &device.0[..]);
            work.execute(SET, &[&id, &device, &number(expires_ms)]).await?;
            work.commit().await
        })
    }

    fn remove_device(&self, account: AccountId, device: TokenId) -> Answer<'_, bool> {
        const REMOVE: &str =
            "DELETE FROM catchword.devices WHERE account_id = $1 AND device_id = $2";
        Box::pin(async move {
            let work = self.begin(account).await?;
            let gone = work.execute(REMOVE, &[&&account.0[..], &&device.0[..]]).await?;
            work.commit().await?;
            // Nobody may be listening.
            drop(self.nudges.send((account, SIGNED_OUT)));
            self.notices.tell(account, SIGNED_OUT);
            Ok(0 < gone)
        })
    }

    fn admit(&self, account: AccountId, batch: Arc<Batch>) -> Answer<'_, Ingested> {
        let pool = self.pool.clone();
        Box::pin(async move {
            // On its own, so that nobody who stops waiting interrupts a transaction.
            let admitting = tokio::spawn(async move { admit::admit(&pool, account, &batch).await });
            let admitted = admitting.await.map_err(LedgerError::database)??;
            let (ingested, grown) = admitted;
            if grown {
                // Nobody may be listening.
                drop(self.nudges.send((account, ingested.cursor)));
                self.notices.tell(account, ingested.cursor);
            }
            Ok(ingested)
        })
    }

    fn page(&self, account: AccountId, after: u64, limit: usize) -> Answer<'_, Page> {
        Box::pin(async move {
            let work = self.begin(account).await?;
            let page = page(&work, account, after, limit).await?;
            work.commit().await?;
            Ok(page)
        })
    }

    fn knows(&self, account: AccountId, anchor: Anchor) -> Answer<'_, bool> {
        Box::pin(async move {
            let work = self.begin(account).await?;
            let tag = tag(&work, account, anchor.number).await?;
            work.commit().await?;
            Ok(tag == Some(anchor.tag))
        })
    }

    fn end(&self, account: AccountId) -> Answer<'_, u64> {
        Box::pin(async move {
            let work = self.begin(account).await?;
            let end = end(&work, account).await?;
            work.commit().await?;
            Ok(end)
        })
    }

    fn books(&self, account: AccountId, after: Option<BookId>, limit: usize) -> Answer<'_, Books> {
        Box::pin(async move {
            let work = self.begin(account).await?;
            let books = books(&work, account, after, limit).await?;
            work.commit().await?;
            Ok(books)
        })
    }

    fn book(&self, account: AccountId, book: BookId) -> Answer<'_, Option<Book>> {
        const FIND: &str = "SELECT document, version, events, actors FROM catchword.documents \
                            WHERE account_id = $1 AND document = $2 AND name LIKE 'book/%' \
                            AND 0 < version + events";
        Box::pin(async move {
            let work = self.begin(account).await?;
            let document = book.document();
            let rows = work.query(FIND, &[&&account.0[..], &&document.0[..]]).await?;
            let found = of_rows(&work, account, &rows).await?;
            work.commit().await?;
            Ok(found.into_iter().next())
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let client = self.pool.get().await.map_err(pool_error)?;
            client.batch_execute("SELECT 1").await.map_err(LedgerError::database)
        })
    }

    fn nudges(&self) -> broadcast::Receiver<(AccountId, u64)> {
        self.nudges.subscribe()
    }
}

async fn put_device(work: &Work, account: AccountId, row: &DeviceRow) -> Result<(), LedgerError> {
    const PUT: &str = "INSERT INTO catchword.devices \
                       (account_id, device_id, name, token_hash, created_ms, expires_ms) \
                       VALUES ($1, $2, $3, $4, $5, $6)";
    let (account, id, token_hash) = (&account.0[..], &row.id.0[..], &row.token_hash[..]);
    let (created, expires) = (number(row.created_ms), number(row.expires_ms));
    work.execute(PUT, &[&account, &id, &row.name, &token_hash, &created, &expires]).await?;
    Ok(())
}

fn device_row(row: &Row) -> Result<DeviceRow, LedgerError> {
    Ok(DeviceRow {
        id: TokenId(fixed(row, 0)?),
        name: column(row, 1)?,
        token_hash: fixed(row, 2)?,
        created_ms: count(row, 3)?,
        expires_ms: count(row, 4)?,
    })
}

async fn page(
    work: &Work,
    account: AccountId,
    after: u64,
    limit: usize,
) -> Result<Page, LedgerError> {
    const LIST: &str = "SELECT feed, through, octet_length(bytes)::bigint FROM catchword.records \
                        WHERE account_id = $1 AND $2 < feed ORDER BY feed LIMIT $3";
    let id = &account.0[..];
    let mut cut = Cut::new(limit);
    for row in work.query(LIST, &[&id, &number(after), &number(limit as u64)]).await? {
        let (feed, through, bytes) = (count(&row, 0)?, count(&row, 1)?, count(&row, 2)?);
        if !cut.takes(feed, through, bytes) {
            break;
        }
    }
    // An entry that was begun is ended, however many records it has.
    let cursor = after.max(cut.through);
    let rows = work.query(record::BETWEEN, &[&id, &number(after), &number(cursor)]).await?;
    let records = rows.iter().map(record::feed_record).collect::<Result<_, _>>()?;
    // Read last, so that it is never below the cursor.
    let end = end(work, account).await?;
    let tag = tag(work, account, cursor).await?;
    Ok(Page { records, cursor, end, tag, reset: false })
}

/// Returns the tag of a record, if it is there.
async fn tag(work: &Work, account: AccountId, at: u64) -> Result<Option<FeedTag>, LedgerError> {
    const TAG: &str = "SELECT tag FROM catchword.records WHERE account_id = $1 AND feed = $2";
    let rows = work.query(TAG, &[&&account.0[..], &number(at)]).await?;
    rows.first().map(|row| tag_of(row, 0)).transpose()
}

fn tag_of(row: &Row, at: usize) -> Result<FeedTag, LedgerError> {
    Ok(FeedTag(column::<i64>(row, at)?.to_be_bytes()))
}

async fn end(work: &Work, account: AccountId) -> Result<u64, LedgerError> {
    const END: &str = "SELECT feed FROM catchword.accounts WHERE account_id = $1";
    let rows = work.query(END, &[&&account.0[..]]).await?;
    rows.first().map_or(Ok(0), |row| count(row, 0))
}

async fn books(
    work: &Work,
    account: AccountId,
    after: Option<BookId>,
    limit: usize,
) -> Result<Books, LedgerError> {
    const LIST: &str = "SELECT document, version, events, actors FROM catchword.documents \
                        WHERE account_id = $1 AND $2 < document AND name LIKE 'book/%' \
                        AND 0 < version + events ORDER BY document LIMIT $3";
    let first = after.map_or_else(Vec::new, |book| book.0.to_vec());
    let one_more = number(limit.saturating_add(1) as u64);
    let mut rows = work.query(LIST, &[&&account.0[..], &first, &one_more]).await?;
    let more = limit < rows.len();
    rows.truncate(limit);
    let books = of_rows(work, account, &rows).await?;
    let next = books.last().map(|book| book.book).filter(|_| more);
    Ok(Books { books, next })
}

/// Reads the books of some rows of documents.
async fn of_rows(work: &Work, account: AccountId, rows: &[Row]) -> Result<Vec<Book>, LedgerError> {
    const FOLDS: &str = "SELECT document, register, value FROM catchword.folds \
                         WHERE account_id = $1 AND document = ANY($2)";
    let documents = rows.iter().map(|row| fixed::<32>(row, 0)).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<&[u8]> = documents.iter().map(<[u8; 32]>::as_slice).collect();
    let mut folds: Vec<Vec<(RegisterKey, Vec<u8>)>> = vec![Vec::new(); documents.len()];
    for row in work.query(FOLDS, &[&&account.0[..], &ids]).await? {
        let document = fixed::<32>(&row, 0)?;
        let of = documents.iter().position(|id| *id == document);
        if let Some(fold) = of.and_then(|of| folds.get_mut(of)) {
            fold.push((fixed(&row, 1)?, column(&row, 2)?));
        }
    }
    let of = |((row, document), fold): ((&Row, &[u8; 32]), _)| {
        Ok(book_of(BookId(*document), document_row(row, 1)?, &Fold::new(fold)))
    };
    rows.iter().zip(&documents).zip(folds).map(of).collect()
}

fn document_row(row: &Row, first: usize) -> Result<DocumentRow, LedgerError> {
    let (version, events) = (count(row, first)?, count(row, first + 1)?);
    Ok(DocumentRow { version, events, actors: count(row, first + 2)? })
}

fn document_name(row: &Row, at: usize) -> Result<DocumentName, LedgerError> {
    parse_document(&column::<String>(row, at)?).ok_or_else(super::rows::damaged)
}

fn one(rows: Vec<Row>) -> Result<Row, LedgerError> {
    rows.into_iter().next().ok_or_else(super::rows::damaged)
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    at: usize,
) -> Result<T, LedgerError> {
    row.try_get(at).map_err(LedgerError::database)
}

fn fixed<const N: usize>(row: &Row, at: usize) -> Result<[u8; N], LedgerError> {
    column::<&[u8]>(row, at)?.try_into().map_err(|_| super::rows::damaged())
}

fn count(row: &Row, at: usize) -> Result<u64, LedgerError> {
    column::<i64>(row, at)?.try_into().map_err(|_| super::rows::damaged())
}

/// PostgreSQL's numbers end at 2^63 - 1, and so does everything that is counted here.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

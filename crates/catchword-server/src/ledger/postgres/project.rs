//! The projector: plain rows for SQL, behind the records and outside the request path.
//!
//! # Invariants
//!
//! 1. What was applied and how far that is are one transaction: a step that is cut off was never begun.
//! 2. One process at a time works on an account: whoever locks its row of `projections`.
//! 3. A cursor at 0 begins with no rows, so whoever empties `projections` has everything made again.
//! 4. A book of which something became void begins with no rows as well, in the step that reads of it.

use std::collections::BTreeSet;
use std::time::Duration;

use catchword_model::annotation::Annotation;
use catchword_model::change::Change;
use catchword_model::change::read::read;
use catchword_model::exchange::DocumentName;
use catchword_model::id::{AnnotationId, BookId};
use catchword_model::locator::SortKey;
use catchword_proto::cloud::api::{AccountId, Verdict};
use deadpool_postgres::Pool;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::record::{NOTICE, verdict_code};
use super::{PostgresLedger, Work, begin, column, count, document_name, fixed, number, pool_error};
use crate::fold::{Fold, RegisterKey};
use crate::ledger::LedgerError;
use crate::projection::{Projection, State, Subject, pack, shown, title};

/// Records of one step.
const STEP_RECORDS_MAX: usize = 500;
/// Bytes of the changes of one step, but for the last.
const STEP_BYTES_MAX: usize = 4 << 20;
/// Between two rounds: what comes meanwhile is done in one step.
const ROUND_INTERVAL: Duration = Duration::from_millis(200);
/// Before accounts that failed are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks at every account, for nudges that were lost.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Accounts that one statement of a sweep looks at.
const SWEEP_ACCOUNTS: usize = 1_000;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projected {
    /// The plain rows show the feed up to here. There may be more behind it.
    UpTo(u64),
    /// Another process works on this account.
    Elsewhere,
}

impl PostgresLedger {
    /// Keeps the plain rows of every account up to date, for as long as this ledger is open.
    #[must_use]
    pub fn with_projector(mut self) -> Self {
        let projector = tokio::spawn(project_all(self.pool.clone(), self.nudges.subscribe()));
        self.projector = Some(Projector(projector));
        self
    }

    /// Brings the plain rows of one account forward by at most so many records.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; nothing was changed.
    pub async fn project(
        &self,
        account: AccountId,
        records: usize,
    ) -> Result<Projected, LedgerError> {
        step(&self.pool, account, records).await
    }
}

/// Ends with the ledger.
#[derive(Debug)]
pub(super) struct Projector(JoinHandle<()>);

impl Drop for Projector {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn project_all(pool: Pool, mut nudges: broadcast::Receiver<(AccountId, u64)>) {
    let mut due = BTreeSet::new();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let mut retry = tokio::time::interval(RETRY_INTERVAL);
    let mut failed = BTreeSet::new();
    loop {
        tokio::select! {
            nudge = nudges.recv() => match nudge {
                Ok((account, _)) => drop(due.insert(account)),
                Err(RecvError::Lagged(_)) => sweep.reset_immediately(),
                Err(RecvError::Closed) => return,
            },
            _ = sweep.tick() => match behind(&pool).await {
                Ok(found) => due.extend(found),
                Err(error) => {
                    tracing::warn!(%error, "the projector does not see what there is to do");
                    sweep.reset_after(RETRY_INTERVAL);
                }
            },
            _ = retry.tick() => due.append(&mut failed),
        }
        tokio::time::sleep(ROUND_INTERVAL).await;
        while let Ok((account, _)) = nudges.try_recv() {
            due.insert(account);
        }
        for account in std::mem::take(&mut due) {
            if let Err(error) = catch_up(&pool, account).await {
                tracing::warn!(%error, "plain rows of an account stay behind");
                failed.insert(account);
            }
        }
    }
}

async fn catch_up(pool: &Pool, account: AccountId) -> Result<(), LedgerError> {
    let mut at = None;
    loop {
        match step(pool, account, STEP_RECORDS_MAX).await? {
            Projected::UpTo(feed) if at != Some(feed) => at = Some(feed),
            Projected::UpTo(_) | Projected::Elsewhere => return Ok(()),
        }
    }
}

/// Finds every account whose plain rows are behind its feed.
async fn behind(pool: &Pool) -> Result<BTreeSet<AccountId>, LedgerError> {
    const LOOK: &str = "SELECT a.account_id, COALESCE(p.feed, 0) < a.feed FROM \
         (SELECT account_id, feed FROM catchword.accounts WHERE $1 < account_id \
          ORDER BY account_id LIMIT $2) a \
         LEFT JOIN catchword.projections p USING (account_id) ORDER BY account_id";
    let (mut found, mut after) = (BTreeSet::new(), Vec::new());
    loop {
        let work = Work { client: Some(pool.get().await.map_err(pool_error)?) };
        let begin = "BEGIN; SET LOCAL ROLE catchword_projector";
        work.client()?.batch_execute(begin).await.map_err(LedgerError::database)?;
        let rows = work.query(LOOK, &[&after, &number(SWEEP_ACCOUNTS as u64)]).await?;
        work.commit().await?;
        for row in &rows {
            let account = AccountId(fixed(row, 0)?);
            if column(row, 1)? {
                found.insert(account);
            }
            after = account.0.to_vec();
        }
        if rows.len() < SWEEP_ACCOUNTS {
            return Ok(found);
        }
    }
}

async fn step(pool: &Pool, account: AccountId, records: usize) -> Result<Projected, LedgerError> {
    const EXPECT: &str = "INSERT INTO catchword.projections (account_id) VALUES ($1) \
                          ON CONFLICT (account_id) DO NOTHING";
    const TAKE: &str = "SELECT feed FROM catchword.projections WHERE account_id = $1 \
                        FOR UPDATE SKIP LOCKED";
    const MOVE: &str = "UPDATE catchword.projections SET feed = $2 WHERE account_id = $1";
    let id = &account.0[..];
    let mut work = begin(pool, account).await?;
    let mut taken = work.query(TAKE, &[&id]).await?;
    if taken.is_empty() && 0 < work.execute(EXPECT, &[&id]).await? {
        // Nobody is to wait for the rest of this step.
        work.commit().await?;
        work = begin(pool, account).await?;
        taken = work.query(TAKE, &[&id]).await?;
    }
    let Some(row) = taken.first() else {
        work.roll_back().await?;
        return Ok(Projected::Elsewhere);
    };
    let from = count(row, 0)?;
    if from == 0 {
        clear(&work, account).await?;
    }
    let mut read = load_changes(&work, account, (from, None), None, records).await?;
    let feed = read.feed;
    if feed == from {
        work.roll_back().await?;
        return Ok(Projected::UpTo(feed));
    }
    for book in &read.void {
        make_anew(&work, account, *book, feed).await?;
    }
    read.changes.retain(|(book, _)| !read.void.contains(book));
    apply(&work, account, read.changes).await?;
    work.execute(MOVE, &[&id, &number(feed)]).await?;
    work.commit().await?;
    Ok(Projected::UpTo(feed))
}

/// Makes the plain rows of a book of what counts up to some number, and of nothing else.
async fn make_anew(
    work: &Work,
    account: AccountId,
    book: BookId,
    through: u64,
) -> Result<(), LedgerError> {
    const ANNOTATIONS: &str =
        "DELETE FROM catchword.annotations WHERE account_id = $1 AND book = $2";
    const PLACE: &str = "DELETE FROM catchword.places WHERE account_id = $1 AND book = $2";
    for sql in [ANNOTATIONS, PLACE] {
        work.execute(sql, &[&&account.0[..], &&book.0[..]]).await?;
    }
    let mut from = 0;
    loop {
        let within = (from, Some(through));
        let read = load_changes(work, account, within, Some(book), STEP_RECORDS_MAX).await?;
        if read.feed == from {
            return Ok(());
        }
        from = read.feed;
        apply(work, account, read.changes).await?;
    }
}

async fn apply(
    work: &Work,
    account: AccountId,
    changes: Vec<(BookId, Change)>,
) -> Result<(), LedgerError> {
    let mut projection = Projection::default();
    for (book, change) in changes {
        projection.add(book, change);
    }
    load_states(work, account, &mut projection).await?;
    projection.apply();
    put_annotations(work, account, &projection).await?;
    put_places(work, account, &projection).await
}

async fn clear(work: &Work, account: AccountId) -> Result<(), LedgerError> {
    const ANNOTATIONS: &str = "DELETE FROM catchword.annotations WHERE account_id = $1";
    const PLACES: &str = "DELETE FROM catchword.places WHERE account_id = $1";
    work.execute(ANNOTATIONS, &[&&account.0[..]]).await?;
    work.execute(PLACES, &[&&account.0[..]]).await?;
    Ok(())
}

/// What was read of the feed.
#[derive(Default)]
struct Read {
    /// Up to where.
    feed: u64,
    /// The changes of books that count.
    changes: Vec<(BookId, Change)>,
    /// The books of which something that counted is void.
    void: BTreeSet<BookId>,
}

/// Reads the changes behind a cursor and up to a number, of every book or of one.
async fn load_changes(
    work: &Work,
    account: AccountId,
    (from, through): (u64, Option<u64>),
    book: Option<BookId>,
    records: usize,
) -> Result<Read, LedgerError> {
    const READ: &str = "SELECT r.feed, d.name, r.chain, \
         CASE WHEN r.chain = 0 AND r.verdict <> $5 AND d.name LIKE 'book/%' THEN r.bytes END \
         FROM (SELECT account_id, document, feed, chain, verdict, bytes, \
             sum(octet_length(bytes)) OVER (ORDER BY feed) - octet_length(bytes) AS before \
             FROM catchword.records WHERE account_id = $1 AND $2 < feed AND feed <= $6 \
             AND ($7::bytea IS NULL OR document = $7) ORDER BY feed LIMIT $3) r \
         JOIN catchword.documents d USING (account_id, document) \
         WHERE before < $4 ORDER BY r.feed";
    let (limit, bytes) = (number(records as u64), number(STEP_BYTES_MAX as u64));
    let (void, through) = (verdict_code(Verdict::Void), number(through.unwrap_or(u64::MAX)));
    let document = book.map(BookId::document);
    let document = document.as_ref().map(|document| &document.0[..]);
    let id = &account.0[..];
    let from_number = number(from);
    let rows =
        work.query(READ, &[&id, &from_number, &limit, &bytes, &void, &through, &document]).await?;
    let mut found = Read { feed: from, ..Read::default() };
    for row in &rows {
        found.feed = count(row, 0)?;
        let DocumentName::Book(book) = document_name(row, 1)? else { continue };
        if column::<i16>(row, 2)? == NOTICE {
            found.void.insert(book);
        }
        let Some(bytes) = column::<Option<&[u8]>>(row, 3)? else { continue };
        // What was admitted once reads; what a bad disk made of it cannot be shown.
        let Ok(change) = read(bytes) else { continue };
        found.changes.push((book, change));
    }
    Ok(found)
}

async fn load_states(
    work: &Work,
    account: AccountId,
    projection: &mut Projection,
) -> Result<(), LedgerError> {
    const BOOKS: &str =
        "SELECT book, state FROM catchword.places WHERE account_id = $1 AND book = ANY($2)";
    const ANNOTATIONS: &str = "SELECT a.book, a.annotation_id, a.state \
         FROM unnest($2::bytea[], $3::text[]) AS w (book, annotation_id) \
         CROSS JOIN LATERAL (SELECT * FROM catchword.annotations a WHERE a.account_id = $1 \
         AND a.book = w.book AND a.annotation_id = w.annotation_id LIMIT 1) a";
    let id = &account.0[..];
    let books = projection.books();
    let books: Vec<&[u8]> = books.iter().map(|book| &book.0[..]).collect();
    for row in &work.query(BOOKS, &[&id, &books]).await? {
        projection.load(Subject::Book(BookId(fixed(row, 0)?)), column(row, 1)?);
    }
    let annotations = projection.annotations();
    let books: Vec<&[u8]> = annotations.iter().map(|(book, _)| &book.0[..]).collect();
    let ids: Vec<String> = annotations.iter().map(|(_, id)| id.to_string()).collect();
    for row in &work.query(ANNOTATIONS, &[&id, &books, &ids]).await? {
        let annotation = column::<&str>(row, 1)?.parse::<AnnotationId>();
        let annotation = annotation.map_err(|_| crate::ledger::rows::damaged())?;
        projection.load(Subject::Annotation(BookId(fixed(row, 0)?), annotation), column(row, 2)?);
    }
    Ok(())
}

/// PostgreSQL's text holds every character but one.
fn clean(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// What is written of annotations, column by column.
#[derive(Default)]
struct Annotations {
    books: Vec<Vec<u8>>,
    ids: Vec<String>,
    kinds: Vec<Option<&'static str>>,
    quotes: Vec<Option<String>>,
    notes: Vec<Option<String>>,
    colors: Vec<Option<String>>,
    styles: Vec<Option<String>>,
    locators: Vec<Option<String>>,
    total_ppm: Vec<Option<i32>>,
    sort_keys: Vec<Option<Vec<u8>>>,
    stamps: Vec<Option<i64>>,
    devices: Vec<Option<String>>,
    sources: Vec<Option<String>>,
    deleted: Vec<bool>,
    edited: Vec<bool>,
    conflicts: Vec<String>,
    states: Vec<Vec<u8>>,
}

impl Annotations {
    fn push(&mut self, book: BookId, id: AnnotationId, state: &State) {
        self.books.push(book.0.to_vec());
        self.ids.push(id.to_string());
        self.states.push(pack(state));
        let shown = shown(id, state);
        self.kinds.push(shown.as_ref().map(|shown| shown.kind.name()));
        let key = shown.as_ref().map(|shown| shown.locator.sort_key());
        let ppm = key.as_ref().and_then(SortKey::total_ppm);
        self.total_ppm.push(ppm.and_then(|ppm| i32::try_from(ppm).ok()));
        self.sort_keys.push(key.map(|key| key.as_bytes().to_vec()));
        self.stamps.push(shown.as_ref().map(|shown| number(shown.stamp.packed())));
        self.deleted.push(shown.as_ref().is_some_and(|shown| shown.deleted));
        self.edited.push(shown.as_ref().is_some_and(|shown| shown.edited_while_deleted));
        let names = shown.as_ref().map(|shown| shown.conflicts.clone()).unwrap_or_default();
        let names: Vec<String> = names.into_iter().map(clean).collect();
        self.conflicts.push(serde_json::Value::from(names).to_string());
        self.push_texts(shown);
    }

    fn push_texts(&mut self, shown: Option<Annotation>) {
        let [quote, note, color, style, locator, device, source] = match shown {
            None => [const { None }; 7],
            Some(shown) => [
                Some(shown.quote),
                shown.note,
                shown.color,
                shown.style,
                Some(shown.locator.as_json().to_owned()),
                Some(shown.device),
                shown.source,
            ],
        };
        self.quotes.push(quote.map(clean));
        self.notes.push(note.map(clean));
        self.colors.push(color.map(clean));
        self.styles.push(style.map(clean));
        self.locators.push(locator.map(clean));
        self.devices.push(device.map(clean));
        self.sources.push(source.map(clean));
    }
}

async fn put_annotations(
    work: &Work,
    account: AccountId,
    projection: &Projection,
) -> Result<(), LedgerError> {
    const PUT: &str = "INSERT INTO catchword.annotations (account_id, book, annotation_id, kind, \
           quote, note, color, style, locator, total_ppm, sort_key, stamp, device, source, deleted, \
           edited_while_deleted, conflicts, state) \
         SELECT $1, book, annotation_id, kind, quote, note, color, style, locator, total_ppm, \
           sort_key, stamp, device, source, deleted, edited, conflicts::jsonb, state \
         FROM unnest($2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
           $8::text[], $9::text[], $10::int4[], $11::bytea[], $12::int8[], $13::text[], $14::text[], \
           $15::bool[], $16::bool[], $17::text[], $18::bytea[]) AS w (book, annotation_id, kind, \
           quote, note, color, style, locator, total_ppm, sort_key, stamp, device, source, deleted, \
           edited, conflicts, state) \
         ON CONFLICT (account_id, book, annotation_id) DO UPDATE SET kind = excluded.kind, \
           quote = excluded.quote, note = excluded.note, color = excluded.color, \
           style = excluded.style, locator = excluded.locator, total_ppm = excluded.total_ppm, \
           sort_key = excluded.sort_key, stamp = excluded.stamp, device = excluded.device, \
           source = excluded.source, deleted = excluded.deleted, \
           edited_while_deleted = excluded.edited_while_deleted, conflicts = excluded.conflicts, \
           state = excluded.state";
    let mut rows = Annotations::default();
    for (book, id, state) in projection.written() {
        rows.push(book, id, state);
    }
    if rows.ids.is_empty() {
        return Ok(());
    }
    let account = &account.0[..];
    #[rustfmt::skip]
    let parameters: Vec<&(dyn ToSql + Sync)> = vec![
        &account, &rows.books, &rows.ids, &rows.kinds, &rows.quotes, &rows.notes,
        &rows.colors, &rows.styles, &rows.locators, &rows.total_ppm, &rows.sort_keys, &rows.stamps,
        &rows.devices, &rows.sources, &rows.deleted, &rows.edited, &rows.conflicts, &rows.states,
    ];
    work.execute(PUT, &parameters).await?;
    Ok(())
}

/// What is written of places, column by column.
#[derive(Default)]
struct Places {
    titles: Vec<Option<String>>,
    ppm: Vec<Option<i32>>,
    passes: Vec<Option<i32>>,
    intents: Vec<Option<&'static str>>,
    devices: Vec<Option<Vec<u8>>>,
    stamps: Vec<Option<i64>>,
    wall_ms: Vec<Option<i64>>,
    locators: Vec<Option<String>>,
    furthest: Vec<Option<i32>>,
    states: Vec<Vec<u8>>,
}

impl Places {
    fn push(&mut self, state: &State, fold: &Fold) {
        let place = fold.place();
        let small = |value: u32| i32::try_from(value).ok();
        self.titles.push(title(state).map(clean));
        self.ppm.push(place.as_ref().and_then(|place| small(place.ppm)));
        self.passes.push(place.as_ref().and_then(|place| small(place.pass)));
        self.intents.push(place.as_ref().map(|place| place.intent.name()));
        self.devices.push(place.as_ref().map(|place| place.device.0.to_vec()));
        self.stamps.push(place.as_ref().map(|place| number(place.stamp)));
        self.wall_ms.push(place.as_ref().map(|place| number(place.wall_ms)));
        self.locators.push(place.map(|place| clean(place.locator)));
        self.furthest.push(fold.furthest().and_then(|furthest| small(furthest.ppm)));
        self.states.push(pack(state));
    }
}

/// Writes the places of books that changed: the fold as it is now, which may be ahead of the cursor.
async fn put_places(
    work: &Work,
    account: AccountId,
    projection: &Projection,
) -> Result<(), LedgerError> {
    const FOLDS: &str = "SELECT document, register, value FROM catchword.folds \
         WHERE account_id = $1 AND document = ANY($2) ORDER BY document";
    const PUT: &str = "INSERT INTO catchword.places (account_id, book, title, ppm, pass, intent, \
           device, stamp, wall_ms, locator, furthest_ppm, state) \
         SELECT $1, * FROM unnest($2::bytea[], $3::text[], $4::int4[], $5::int4[], $6::text[], \
           $7::bytea[], $8::int8[], $9::int8[], $10::text[], $11::int4[], $12::bytea[]) \
         ON CONFLICT (account_id, book) DO UPDATE SET title = excluded.title, ppm = excluded.ppm, \
           pass = excluded.pass, intent = excluded.intent, device = excluded.device, \
           stamp = excluded.stamp, wall_ms = excluded.wall_ms, locator = excluded.locator, \
           furthest_ppm = excluded.furthest_ppm, state = excluded.state";
    let id = &account.0[..];
    let books = projection.books();
    let ids: Vec<&[u8]> = books.iter().map(|book| &book.0[..]).collect();
    let folds = work.query(FOLDS, &[&id, &ids]).await?;
    let mut rows = Places::default();
    let empty = State::new();
    for book in &books {
        let fold = Fold::new(registers_of(&folds, *book)?);
        rows.push(projection.book(*book).unwrap_or(&empty), &fold);
    }
    #[rustfmt::skip]
    let parameters: Vec<&(dyn ToSql + Sync)> = vec![
        &id, &ids, &rows.titles, &rows.ppm, &rows.passes, &rows.intents, &rows.devices, &rows.stamps,
        &rows.wall_ms, &rows.locators, &rows.furthest, &rows.states,
    ];
    work.execute(PUT, &parameters).await?;
    Ok(())
}

fn registers_of(folds: &[Row], book: BookId) -> Result<Vec<(RegisterKey, Vec<u8>)>, LedgerError> {
    let mut registers = Vec::new();
    let begin = folds.partition_point(|row| fixed::<32>(row, 0).is_ok_and(|id| id < book.0));
    for row in folds.get(begin..).unwrap_or_default() {
        if fixed::<32>(row, 0)? != book.0 {
            break;
        }
        registers.push((fixed(row, 1)?, column(row, 2)?));
    }
    Ok(registers)
}

//! A batch in one transaction: everything that is needed is asked at once, and written in one statement.

use std::collections::BTreeMap;

use catchword_proto::cloud::api::{AccountId, FeedTag, Ingested};
use catchword_proto::cloud::codec::document_text;
use deadpool_postgres::Pool;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::record::{chain_code, link, link_columns, record_code, verdict_code};
use super::{Work, begin, column, count, document_row, fixed, number, one, tag_of};
use crate::docket::{DocumentRow, Loaded};
use crate::entry::{Batch, Wanted};
use crate::fold::{MARK_CODES, position_keys};
use crate::ledger::rows::{damaged, pack, pack_clock};
use crate::ledger::{Decided, LedgerError, decide, draw_tag, tag_at};

/// What a batch came to, and whether the feed has grown.
pub(super) type Admitted = (Ingested, bool);

type Parameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

pub(super) async fn admit(
    pool: &Pool,
    account: AccountId,
    batch: &Batch,
) -> Result<Admitted, LedgerError> {
    let wanted = batch.wanted();
    let work = begin(pool, account).await?;
    let (end, documents, mut loaded) = load(&work, account, &wanted).await?;
    for (wanted, loaded) in wanted.iter().zip(&mut loaded) {
        if wanted.is_forked(loaded) {
            load_whole(&work, account, wanted, loaded).await?;
        }
    }
    let before: Vec<DocumentRow> = loaded.iter().map(|loaded| loaded.row).collect();
    let ids: Vec<_> = wanted.iter().map(|wanted| wanted.document).collect();
    let decided = decide(batch, wanted.into_iter().zip(loaded).collect(), documents);
    if decided.records() == 0 {
        work.roll_back().await?;
        let (answers, (feed, tag)) = (decided.answers, end);
        let tag = tag_at(feed, tag);
        let (before, cursor, before_tag) = (feed, feed, tag);
        return Ok((Ingested { answers, before, cursor, before_tag, tag }, false));
    }
    let base: BTreeMap<_, _> = ids.into_iter().zip(before).collect();
    let of = |name| base.get(&name).copied().unwrap_or_default();
    let rows: Vec<_> = decided.dockets.iter().map(|docket| of(docket.document())).collect();
    void(&work, account, &decided).await?;
    let tag = draw_tag()?;
    let (cursor, before_tag) = write(&work, account, (&decided, tag), &rows).await?;
    if decided.dockets.len() < base.len() {
        let ids: Vec<Vec<u8>> = base.keys().map(|name| name.id().0.to_vec()).collect();
        work.execute(CLEAR, &[&&account.0[..], &ids]).await?;
    }
    work.commit().await?;
    let before_tag = tag_at(cursor - decided.records(), before_tag);
    let (before, tag) = (decided.before(cursor), tag_at(cursor, tag));
    Ok((Ingested { answers: decided.answers, before, cursor, before_tag, tag }, true))
}

/// Makes room for documents that are new. It waits for whoever makes the same ones.
const EXPECT: &str = "INSERT INTO catchword.documents (account_id, document, name) \
     SELECT $1, document, name FROM unnest($2::bytea[], $3::text[]) AS w (document, name) \
     ON CONFLICT (account_id, document) DO NOTHING";

/// Takes away the room that was made for documents of which nothing counts.
const CLEAR: &str = "DELETE FROM catchword.documents WHERE account_id = $1 \
     AND document = ANY($2) AND version = 0 AND events = 0";

const ACCOUNT: &str = "SELECT feed, documents, tag FROM catchword.accounts WHERE account_id = $1";

const LOCK: &str = "SELECT document, version, events, actors FROM catchword.documents \
     WHERE account_id = $1 AND document = ANY($2) ORDER BY document FOR UPDATE";

// A subquery with a limit is looked up by an index for each row, and one with an order by the index that
// has it, whatever the planner believes about a table that was empty a minute ago.
const BY_HASH: &str = concat!(
    "SELECT ",
    link_columns!(),
    ", r.document FROM unnest($2::bytea[], $3::bytea[]) AS w (document, hash) \
     CROSS JOIN LATERAL (SELECT * FROM catchword.records r WHERE r.account_id = $1 \
     AND r.document = w.document AND r.hash = w.hash AND r.chain <> 2 LIMIT 1) r"
);

/// What has a number: what counts, and of what is void one.
const BY_NUMBER: &str = concat!(
    "SELECT ",
    link_columns!(),
    ", r.document \
     FROM unnest($2::bytea[], $3::int2[], $4::bytea[], $5::int8[]) AS w (document, chain, actor, number) \
     CROSS JOIN LATERAL ((SELECT * FROM catchword.records r WHERE r.account_id = $1 \
     AND r.document = w.document AND r.chain = w.chain AND r.actor = w.actor \
     AND w.number <= r.number AND r.verdict <> 3 ORDER BY r.number LIMIT 1) \
     UNION ALL (SELECT * FROM catchword.records r WHERE r.account_id = $1 \
     AND r.document = w.document AND r.chain = w.chain AND r.actor = w.actor \
     AND w.number <= r.number AND r.verdict = 3 ORDER BY r.number LIMIT 1)) r \
     WHERE r.number = w.number"
);

/// The change in which an operation is: the last of its actor that begins at or below it.
const BY_OP: &str = concat!(
    "SELECT ",
    link_columns!(),
    ", r.document, r.bytes \
     FROM unnest($2::bytea[], $3::bytea[], $4::int8[]) AS w (document, actor, counter) \
     CROSS JOIN LATERAL (SELECT * FROM catchword.records r WHERE r.account_id = $1 \
     AND r.document = w.document AND r.actor = w.actor AND r.start_op <= w.counter AND r.chain = 0 \
     AND r.verdict <> 3 ORDER BY r.start_op DESC LIMIT 1) r"
);

/// Every position and its marks, and the registers that are written.
const FOLDS: &str = "WITH positions AS ( \
     SELECT document, register, value FROM catchword.folds WHERE account_id = $1 \
     AND document = ANY($2) AND $3 <= register AND register <= $4), \
     keys AS (SELECT document, register FROM unnest($5::bytea[], $6::bytea[]) AS w (document, register) \
     UNION SELECT document, code || substring(register FROM 2) \
     FROM positions CROSS JOIN unnest($7::bytea[]) AS code) \
     SELECT document, register, value FROM positions \
     UNION ALL SELECT f.document, f.register, f.value FROM keys \
     CROSS JOIN LATERAL (SELECT * FROM catchword.folds f WHERE f.account_id = $1 \
     AND f.document = keys.document AND f.register = keys.register LIMIT 1) f \
     WHERE NOT ($3 <= f.register AND f.register <= $4)";

/// What is asked, column by column.
#[derive(Default)]
struct Asked<'a> {
    documents: Vec<&'a [u8]>,
    names: Vec<String>,
    hash_documents: Vec<&'a [u8]>,
    hashes: Vec<&'a [u8]>,
    number_documents: Vec<&'a [u8]>,
    chains: Vec<i16>,
    actors: Vec<&'a [u8]>,
    numbers: Vec<i64>,
    op_documents: Vec<&'a [u8]>,
    op_actors: Vec<&'a [u8]>,
    ops: Vec<i64>,
    register_documents: Vec<&'a [u8]>,
    registers: Vec<&'a [u8]>,
}

impl<'a> Asked<'a> {
    fn of(ids: &'a [[u8; 32]], wanted: &'a [Wanted]) -> Self {
        let mut asked = Self::default();
        for (id, wanted) in ids.iter().zip(wanted) {
            asked.documents.push(id);
            asked.names.push(document_text(wanted.document));
            for hash in &wanted.hashes {
                asked.hash_documents.push(id);
                asked.hashes.push(hash);
            }
            for (chain, actor, number, _) in &wanted.numbers {
                asked.number_documents.push(id);
                asked.chains.push(chain_code(*chain));
                asked.actors.push(&actor.0);
                asked.numbers.push(super::number(*number));
            }
            // The first change of an actor is the one in which its greatest early operation is: an
            // actor of a schema writes one change.
            let first = wanted.first.iter().map(|actor| (actor, i64::MAX));
            let ops = wanted.ops.iter().map(|op| (&op.actor, number(op.counter)));
            for (actor, counter) in ops.chain(first) {
                asked.op_documents.push(id);
                asked.op_actors.push(&actor.0);
                asked.ops.push(counter);
            }
            for register in &wanted.registers {
                asked.register_documents.push(id);
                asked.registers.push(register);
            }
        }
        asked
    }
}

/// Returns the end of the feed and its tag, the number of documents, and what was loaded, in the order of `wanted`.
async fn load(
    work: &Work,
    account: AccountId,
    wanted: &[Wanted],
) -> Result<((u64, FeedTag), u64, Vec<Loaded>), LedgerError> {
    let ids: Vec<[u8; 32]> = wanted.iter().map(|wanted| wanted.document.id().0).collect();
    let asked = Asked::of(&ids, wanted);
    let id = &account.0[..];
    let (first, last) = position_keys();
    let (first, last) = (&first[..], &last[..]);
    let marks: Vec<&[u8]> = MARK_CODES.iter().map(<[u8; 1]>::as_slice).collect();
    let statements = [
        work.prepare(EXPECT).await?,
        work.prepare(ACCOUNT).await?,
        work.prepare(LOCK).await?,
        work.prepare(BY_HASH).await?,
        work.prepare(BY_NUMBER).await?,
        work.prepare(BY_OP).await?,
        work.prepare(FOLDS).await?,
    ];
    let [expect, of_account, lock, by_hash, by_number, by_op, folds] = &statements;
    let documents = &asked.documents;
    let expected: Parameters<'_> = vec![&id, documents, &asked.names];
    let of_hash: Parameters<'_> = vec![&id, &asked.hash_documents, &asked.hashes];
    let of_number: Parameters<'_> =
        vec![&id, &asked.number_documents, &asked.chains, &asked.actors, &asked.numbers];
    let of_op: Parameters<'_> = vec![&id, &asked.op_documents, &asked.op_actors, &asked.ops];
    let of_fold: Parameters<'_> =
        vec![&id, documents, &first, &last, &asked.register_documents, &asked.registers, &marks];
    let client = work.client()?;
    let (of_id, to_lock): (Parameters<'_>, Parameters<'_>) = (vec![&id], vec![&id, documents]);
    // All are on their way before the first is answered, and are carried out in this order.
    let (_, of_account, locked, by_hash, by_number, by_op, folds) = tokio::try_join!(
        biased;
        client.execute(expect, &expected),
        client.query(of_account, &of_id),
        client.query(lock, &to_lock),
        client.query(by_hash, &of_hash),
        client.query(by_number, &of_number),
        client.query(by_op, &of_op),
        client.query(folds, &of_fold),
    )
    .map_err(LedgerError::database)?;

    let row = one(of_account)?;
    let (end, count_documents) = ((count(&row, 0)?, tag_of(&row, 2)?), count(&row, 1)?);
    let loaded = gather(&ids, &locked, [&by_hash, &by_number, &by_op], &folds)?;
    Ok((end, count_documents, loaded))
}

fn gather(
    ids: &[[u8; 32]],
    locked: &[Row],
    [by_hash, by_number, by_op]: [&[Row]; 3],
    folds: &[Row],
) -> Result<Vec<Loaded>, LedgerError> {
    let mut loaded: BTreeMap<[u8; 32], Loaded> = BTreeMap::new();
    for row in locked {
        let document = fixed(row, 0)?;
        loaded.insert(document, Loaded { row: document_row(row, 1)?, ..Loaded::default() });
    }
    for row in by_hash.iter().chain(by_number).chain(by_op) {
        let of = loaded.get_mut(&fixed::<32>(row, 9)?).ok_or_else(damaged)?;
        of.links.push(link(row)?);
    }
    for row in by_op {
        let of = loaded.get_mut(&fixed::<32>(row, 9)?).ok_or_else(damaged)?;
        of.sources.push(column(row, 10)?);
    }
    for row in folds {
        let of = loaded.get_mut(&fixed::<32>(row, 0)?).ok_or_else(damaged)?;
        of.fold.push((fixed(row, 1)?, column(row, 2)?));
    }
    ids.iter().map(|id| loaded.remove(id).ok_or_else(damaged)).collect()
}

/// Loads everything of a document that is locked.
async fn load_whole(
    work: &Work,
    account: AccountId,
    wanted: &Wanted,
    loaded: &mut Loaded,
) -> Result<(), LedgerError> {
    const WHOLE: &str = concat!(
        "SELECT ",
        link_columns!(),
        ", r.bytes FROM catchword.records r WHERE r.account_id = $1 AND r.document = $2 \
         AND r.chain <> 2 ORDER BY r.feed"
    );
    const FOLD: &str = "SELECT register, value FROM catchword.folds \
         WHERE account_id = $1 AND document = $2";
    let (account, document) = (&account.0[..], &wanted.document.id().0[..]);
    let mut whole = Vec::new();
    for row in work.query(WHOLE, &[&account, &document]).await? {
        whole.push((link(&row)?, column(&row, 9)?));
    }
    loaded.whole = Some(whole);
    loaded.fold.clear();
    for row in work.query(FOLD, &[&account, &document]).await? {
        loaded.fold.push((fixed(&row, 0)?, column(&row, 1)?));
    }
    Ok(())
}

/// Notes of what was taken before that it is void, so that its numbers are free again. What is in the same
/// batch is written so.
async fn void(work: &Work, account: AccountId, decided: &Decided) -> Result<(), LedgerError> {
    const VOID: &str = "UPDATE catchword.records SET verdict = 3 WHERE account_id = $1 \
         AND document = $2 AND hash = ANY($3) AND chain <> 2";
    for docket in &decided.dockets {
        let hashes: Vec<&[u8]> = docket.voided().map(|link| &link.hash[..]).collect();
        if !hashes.is_empty() {
            let document = docket.document().id();
            work.execute(VOID, &[&&account.0[..], &&document.0[..], &hashes]).await?;
        }
    }
    Ok(())
}

/// Compares and swaps every document's version, numbers the feed, and writes the rest.
///
/// The account's row is locked here, after the documents, and by the first of these parts: what takes
/// its number refers to it.
const WRITE: &str = "WITH account AS ( \
       UPDATE catchword.accounts SET feed = feed + $2, documents = documents + $3, \
         tag_before = tag, tag = $28 \
       WHERE account_id = $1 RETURNING feed - $2 AS before, tag_before), \
     swapped AS ( \
       UPDATE catchword.documents d \
       SET version = w.version, events = w.events, actors = w.actors \
       FROM unnest($4::bytea[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[]) \
         AS w (document, base_version, base_events, version, events, actors) \
       WHERE d.account_id = $1 AND d.document = w.document \
         AND d.version = w.base_version AND d.events = w.base_events RETURNING 1), \
     folded AS ( \
       INSERT INTO catchword.folds (account_id, document, register, value) \
       SELECT $1, * FROM unnest($10::bytea[], $11::bytea[], $12::bytea[]) \
       ON CONFLICT (account_id, document, register) DO UPDATE SET value = excluded.value), \
     kept AS ( \
       INSERT INTO catchword.records (account_id, feed, through, document, version, chain, actor, \
         number, hash, start_op, max_op, author, clock, verdict, statement, bytes, tag) \
       SELECT $1, before + place, before + through, document, version, chain, actor, \
         number, hash, start_op, max_op, author, clock, verdict, statement, bytes, $28 \
       FROM account, unnest($13::int8[], $14::int8[], $15::bytea[], $16::int8[], $17::int2[], \
         $18::bytea[], $19::int8[], $20::bytea[], $21::int8[], $22::int8[], $23::bytea[], \
         $24::bytea[], $25::int2[], $26::bytea[], $27::bytea[]) \
         AS w (place, through, document, version, chain, actor, number, hash, start_op, max_op, \
         author, clock, verdict, statement, bytes) RETURNING 1) \
     SELECT before, (SELECT count(*) FROM swapped), (SELECT count(*) FROM kept), tag_before \
     FROM account";

/// What is written of records, column by column.
#[derive(Default)]
struct Records<'a> {
    places: Vec<i64>,
    through: Vec<i64>,
    documents: Vec<Vec<u8>>,
    versions: Vec<i64>,
    chains: Vec<i16>,
    actors: Vec<&'a [u8]>,
    numbers: Vec<i64>,
    hashes: Vec<&'a [u8]>,
    start_ops: Vec<i64>,
    max_ops: Vec<i64>,
    authors: Vec<Option<Vec<u8>>>,
    clocks: Vec<Vec<u8>>,
    verdicts: Vec<i16>,
    statements: Vec<Option<Vec<u8>>>,
    bytes: Vec<&'a [u8]>,
}

impl<'a> Records<'a> {
    fn of(decided: &'a Decided) -> Result<Self, LedgerError> {
        let mut rows = Self::default();
        let mut place = 0;
        for group in &decided.groups {
            let through = place + group.len() as u64;
            for record in group {
                place += 1;
                let link = &record.link;
                rows.places.push(number(place));
                rows.through.push(number(through));
                rows.documents.push(record.document.id().0.to_vec());
                rows.versions.push(number(record.version));
                rows.chains.push(record_code(record.kind, link.chain));
                rows.actors.push(&link.actor.0);
                rows.numbers.push(number(link.number));
                rows.hashes.push(&link.hash);
                rows.start_ops.push(number(link.start_op));
                rows.max_ops.push(number(link.max_op));
                rows.authors.push(link.author.map(|author| author.to_bytes().to_vec()));
                rows.clocks.push(pack_clock(&link.clock));
                rows.verdicts.push(verdict_code(link.verdict));
                rows.statements.push(record.statement.as_ref().map(pack).transpose()?);
                rows.bytes.push(&record.bytes);
            }
        }
        Ok(rows)
    }
}

async fn write(
    work: &Work,
    account: AccountId,
    (decided, tag): (&Decided, FeedTag),
    base: &[DocumentRow],
) -> Result<(u64, FeedTag), LedgerError> {
    let records = Records::of(decided)?;
    let (added, begun) = (number(decided.records()), number(decided.begun));
    let dockets = &decided.dockets;
    let ids: Vec<Vec<u8>> = dockets.iter().map(|of| of.document().id().0.to_vec()).collect();
    let each = |value: fn(&DocumentRow) -> u64| -> (Vec<i64>, Vec<i64>) {
        let now = dockets.iter().map(|docket| number(value(&docket.row())));
        (base.iter().map(|row| number(value(row))).collect(), now.collect())
    };
    let (base_versions, versions) = each(|row| row.version);
    let (base_events, events) = each(|row| row.events);
    let (_, actors) = each(|row| row.actors);
    let mut fold_documents: Vec<&[u8]> = Vec::new();
    let (mut registers, mut values) = (Vec::new(), Vec::new());
    for (docket, id) in dockets.iter().zip(&ids) {
        for (register, value) in docket.fold().changed() {
            fold_documents.push(id);
            registers.push(register.to_vec());
            values.push(value);
        }
    }
    let (id, tag) = (&account.0[..], i64::from_be_bytes(tag.0));
    #[rustfmt::skip]
    let parameters: Parameters<'_> = vec![
        &id, &added, &begun,
        &ids, &base_versions, &base_events, &versions, &events, &actors,
        &fold_documents, &registers, &values,
        &records.places, &records.through, &records.documents, &records.versions, &records.chains,
        &records.actors, &records.numbers, &records.hashes, &records.start_ops, &records.max_ops,
        &records.authors, &records.clocks, &records.verdicts, &records.statements, &records.bytes,
        &tag,
    ];
    let row = one(work.query(WRITE, &parameters).await?)?;
    let (before, swapped, kept) = (count(&row, 0)?, count(&row, 1)?, count(&row, 2)?);
    if swapped != dockets.len() as u64 || kept != decided.records() {
        return Err(LedgerError::Damaged { detail: "a document moved while it was locked" });
    }
    Ok((before + kept, tag_of(&row, 3)?))
}

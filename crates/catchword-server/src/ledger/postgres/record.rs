//! Rows of `records`.

use catchword_model::id::{ActorId, Author};
use catchword_proto::cloud::api::{ChainKind, FeedRecord, Hash, Record, Verdict, WireStatement};
use tokio_postgres::Row;

use super::{column, count, document_name, fixed};
use crate::docket::{Link, RecordKind};
use crate::ledger::rows::{damaged, unpack, unpack_clock};
use crate::ledger::{LedgerError, StoredRecord};

/// The columns of a link, in the order in which [`link`] reads them.
macro_rules! link_columns {
    () => {
        "r.chain, r.actor, r.number, r.hash, r.start_op, r.max_op, r.author, r.clock, r.verdict"
    };
}
pub(super) use link_columns;

/// The records after a cursor, up to another one.
pub(super) const BETWEEN: &str = concat!(
    "SELECT ",
    link_columns!(),
    ", r.feed, r.through, r.version, r.statement, r.bytes, d.name \
     FROM catchword.records r JOIN catchword.documents d USING (account_id, document) \
     WHERE r.account_id = $1 AND $2 < r.feed AND r.feed <= $3 ORDER BY r.feed"
);

pub(super) fn link(row: &Row) -> Result<Link, LedgerError> {
    let author = column::<Option<&[u8]>>(row, 6)?;
    let author = author.map(|bytes| Author::from_bytes(bytes).ok_or_else(damaged));
    Ok(Link {
        chain: chain(column(row, 0)?)?,
        actor: ActorId(fixed(row, 1)?),
        number: count(row, 2)?,
        hash: fixed(row, 3)?,
        start_op: count(row, 4)?,
        max_op: count(row, 5)?,
        author: author.transpose()?,
        clock: unpack_clock(column(row, 7)?)?,
        verdict: verdict(column(row, 8)?)?,
    })
}

pub(super) fn feed_record(row: &Row) -> Result<FeedRecord, LedgerError> {
    if column::<i16>(row, 0)? == NOTICE {
        let (number, document) = (count(row, 9)?, document_name(row, 14)?);
        let record = Record::Void { hash: Hash(fixed(row, 3)?) };
        return Ok(FeedRecord {
            number,
            document,
            version: count(row, 11)?,
            statement: None,
            record,
        });
    }
    let statement = column::<Option<&[u8]>>(row, 12)?;
    let record = StoredRecord {
        document: document_name(row, 14)?,
        version: count(row, 11)?,
        through: count(row, 10)?,
        link: link(row)?,
        statement: statement.map(unpack::<WireStatement>).transpose()?,
        bytes: column(row, 13)?,
        kind: RecordKind::Link,
    };
    Ok(record.into_feed(count(row, 9)?))
}

/// Stands where the code of a chain stands, in a record that says no more than that something is void.
pub(super) const NOTICE: i16 = 2;

pub(super) const fn record_code(kind: RecordKind, chain: ChainKind) -> i16 {
    match kind {
        RecordKind::Link => chain_code(chain),
        RecordKind::Void => NOTICE,
    }
}

pub(super) const fn chain_code(chain: ChainKind) -> i16 {
    match chain {
        ChainKind::Changes => 0,
        ChainKind::Events => 1,
    }
}

fn chain(code: i16) -> Result<ChainKind, LedgerError> {
    let chains = [ChainKind::Changes, ChainKind::Events];
    chains.into_iter().find(|chain| chain_code(*chain) == code).ok_or_else(damaged)
}

pub(super) const fn verdict_code(verdict: Verdict) -> i16 {
    match verdict {
        Verdict::Accepted => 0,
        Verdict::Restamp => 1,
        Verdict::Withdrawn => 2,
        Verdict::Void => 3,
    }
}

fn verdict(code: i16) -> Result<Verdict, LedgerError> {
    let verdicts = [Verdict::Accepted, Verdict::Restamp, Verdict::Withdrawn, Verdict::Void];
    verdicts.into_iter().find(|verdict| verdict_code(*verdict) == code).ok_or_else(damaged)
}

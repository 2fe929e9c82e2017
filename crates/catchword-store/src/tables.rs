//! Every table of the two files. The name carries the version of its row format, so that an old
//! table cannot be misread. Keys are plain numbers and bytes: see `docs/FORMAT.md`.

use redb::{Key, TableDefinition, Value};

use crate::error::LoadError;

/// `wal`: local sequence of a record that waits → the record.
pub(crate) const TAIL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("tail-1");
/// `wal`: document number → the page turns that are not published yet.
pub(crate) const PENDING: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("pending-1");
/// `wal`: name → bytes.
pub(crate) const WAL_META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta-1");

/// `library`: name → bytes. The same name as in `wal`, in another file.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta-1");
/// Document id → document number, which is used in all other keys and means nothing elsewhere.
pub(crate) const BOOK_IDS: TableDefinition<'_, &[u8; 32], u32> = TableDefinition::new("book_ids-1");
/// Document number → what a document is, its heads, its writers, and what a list shows of it.
pub(crate) const BOOKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("books-1");
/// Number, sort key, 0, annotation id → one annotation. Clustered in reading order.
pub(crate) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows-1");
/// Number, annotation id → sort key.
pub(crate) const IDS: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("ids-1");
/// Number, container, key → holders.
pub(crate) const FIELDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("fields-1");
/// Number, last local sequence → a change, or a block of changes.
pub(crate) const LOG: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("log-1");
/// Number, actor, first sequence number → where the changes lie, and what is in their past.
pub(crate) const CHAINS: TableDefinition<'_, (u32, u16, u32), &[u8]> =
    TableDefinition::new("chains-1");
/// Number, first 8 bytes of the hash, actor, sequence number → nothing.
pub(crate) const HASHES: TableDefinition<'_, (u32, u64, u16, u32), ()> =
    TableDefinition::new("hashes-1");
/// Stamp of the last reading, document number → nothing.
pub(crate) const RECENT: TableDefinition<'_, (u64, u32), ()> = TableDefinition::new("recent-1");
/// Number, actor, number of the event → the event.
pub(crate) const EVENTS: TableDefinition<'_, (u32, u16, u64), &[u8]> =
    TableDefinition::new("events-1");
/// Number of a notes document → its journal, at its heads.
pub(crate) const TEXTS: TableDefinition<'_, u32, &str> = TableDefinition::new("texts-1");
/// Document number → when it was removed from this device, in milliseconds since the Unix epoch.
pub(crate) const REMOVED: TableDefinition<'_, u32, u64> = TableDefinition::new("removed-1");
/// Book id → size and name of the book file.
pub(crate) const FILES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("files-1");
/// Fingerprint of a peer → its record, as the protocols write it.
pub(crate) const PEERS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("peers-1");
/// Number, 0 for changes and 1 for events, writer, sequence number or number of the event → the
/// statement of its writer: public key, generation, signature, and where it stands.
pub(crate) const STATEMENTS: TableDefinition<'_, (u32, u8, u16, u64), &[u8]> =
    TableDefinition::new("statements-2");
/// First local sequence of a run → how many, of which document, and which peer brought them, if one did.
pub(crate) const RECEIVED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("received-1");
/// Number, local sequence of an event → its actor and number.
pub(crate) const EVENT_ORDER: TableDefinition<'_, (u32, u64), &[u8]> =
    TableDefinition::new("event_order-1");
/// Document id, order of arrival → a change or event that waits, and who brought it.
pub(crate) const PARKED: TableDefinition<'_, (&[u8; 32], u64), &[u8]> =
    TableDefinition::new("parked-2");
/// Fingerprint and generation of a peer → what is decided of it, and its exclusions.
pub(crate) const PEER_MARKS: TableDefinition<'_, &[u8; 48], &[u8]> =
    TableDefinition::new("peer_marks-1");
/// Book id, or the id of the library document → the fork because of which it is not exchanged.
pub(crate) const PAUSED: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("paused-2");
/// Document id → what an account's server has of it.
pub(crate) const CLOUD: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("cloud-1");
/// Fingerprint of a peer, book id or id of the library document → until when, how often, and why.
pub(crate) const QUARANTINE: TableDefinition<'_, &[u8; 64], &[u8]> =
    TableDefinition::new("quarantine-2");
/// Document id, hash → a change or event that does not count, and what is to be done about it.
pub(crate) const VOID: TableDefinition<'_, (&[u8; 32], &[u8; 32]), &[u8]> =
    TableDefinition::new("void-1");

/// Something that is done with every table of `library`.
pub(crate) trait EachTable {
    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), LoadError>;
}

/// Does it with every table of `library`, in one order.
pub(crate) fn each_of_library(each: &mut impl EachTable) -> Result<(), LoadError> {
    each.table(META)?;
    each.table(BOOK_IDS)?;
    each.table(BOOKS)?;
    each.table(ROWS)?;
    each.table(IDS)?;
    each.table(FIELDS)?;
    each.table(LOG)?;
    each.table(CHAINS)?;
    each.table(HASHES)?;
    each.table(RECENT)?;
    each.table(EVENTS)?;
    each.table(TEXTS)?;
    each.table(REMOVED)?;
    each.table(FILES)?;
    each.table(STATEMENTS)?;
    each.table(PEERS)?;
    each.table(RECEIVED)?;
    each.table(EVENT_ORDER)?;
    each.table(PARKED)?;
    each.table(PEER_MARKS)?;
    each.table(PAUSED)?;
    each.table(VOID)?;
    each.table(QUARANTINE)?;
    each.table(CLOUD)
}

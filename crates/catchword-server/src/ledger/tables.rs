//! Every table of the embedded ledger. A key begins with the account.
//!
//! Values are CBOR, as `rows.rs` has them, unless it says otherwise.

use redb::TableDefinition;

type Account = [u8; 16];
type Document = [u8; 32];
type Actor = [u8; 16];

/// `format` -> the number of the format; a file without it has the first.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("cloud-meta-1");
/// Account -> password, end of the feed, number of documents.
pub(crate) const ACCOUNTS: TableDefinition<'_, Account, &[u8]> =
    TableDefinition::new("cloud-accounts-1");
/// Account, id of the token -> device.
pub(crate) const DEVICES: TableDefinition<'_, (Account, [u8; 16]), &[u8]> =
    TableDefinition::new("cloud-devices-1");
/// Account, document -> name, version, counts.
pub(crate) const DOCUMENTS: TableDefinition<'_, (Account, Document), &[u8]> =
    TableDefinition::new("cloud-documents-1");
/// Account, number in the feed -> change or event, with what was decided.
pub(crate) const RECORDS: TableDefinition<'_, (Account, u64), &[u8]> =
    TableDefinition::new("cloud-records-1");
/// Account, document, hash -> number in the feed.
pub(crate) const HASHES: TableDefinition<'_, (Account, Document, [u8; 32]), u64> =
    TableDefinition::new("cloud-hashes-1");
/// Account, document, changes (0) or events (1), actor, its number -> number in the feed.
pub(crate) const NUMBERS: TableDefinition<'_, (Account, Document, u8, Actor, u64), u64> =
    TableDefinition::new("cloud-numbers-1");
/// Account, document, actor, first operation of a change -> number in the feed.
pub(crate) const OPS: TableDefinition<'_, (Account, Document, Actor, u64), u64> =
    TableDefinition::new("cloud-ops-1");
/// Account, document, register (container, device, u32 pass) -> holders, or a mark as u64.
pub(crate) const FOLDS: TableDefinition<'_, (Account, Document, [u8; 21]), &[u8]> =
    TableDefinition::new("cloud-folds-1");

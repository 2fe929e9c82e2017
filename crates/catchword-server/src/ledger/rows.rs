//! Rows as bytes, the same in either database.

use catchword_model::change::{OpId, Scalar};
use catchword_model::exchange::DocumentName;
use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, Author, sha256};
use catchword_model::merge::Holder;
use catchword_proto::cloud::api::{ChainKind, FeedTag, Verdict, WireStatement};
use catchword_proto::cloud::codec::{Blob, Format};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::docket::{Clock, DocumentRow, Link, RecordKind};
use crate::ledger::{LedgerError, StoredRecord};

/// An account, with the end of its feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AccountBytes {
    pub(super) password_hash: String,
    pub(super) feed: u64,
    pub(super) documents: u64,
    /// The tag of the last record. Those of earlier releases have zeros.
    #[serde(default = "no_tag")]
    pub(super) tag: FeedTag,
}

pub(super) const fn no_tag() -> FeedTag {
    FeedTag([0; 8])
}

/// A device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeviceBytes {
    pub(super) name: String,
    pub(super) token_hash: Blob,
    pub(super) created_ms: u64,
    pub(super) expires_ms: u64,
}

/// A document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DocumentBytes {
    #[serde(with = "catchword_proto::cloud::codec::document")]
    pub(super) name: DocumentName,
    pub(super) version: u64,
    pub(super) events: u64,
    pub(super) actors: u64,
}

impl DocumentBytes {
    pub(super) const fn row(&self) -> DocumentRow {
        DocumentRow { version: self.version, events: self.events, actors: self.actors }
    }
}

/// A record of the feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RecordBytes {
    #[serde(with = "catchword_proto::cloud::codec::document")]
    document: DocumentName,
    version: u64,
    pub(super) through: u64,
    chain: ChainKind,
    actor: ActorId,
    number: u64,
    hash: catchword_proto::cloud::api::Hash,
    start_op: u64,
    max_op: u64,
    author: Option<Blob>,
    clock: Blob,
    pub(super) verdict: Verdict,
    statement: Option<WireStatement>,
    bytes: Blob,
    /// This says no more than that the rest is void.
    #[serde(default)]
    notice: bool,
    #[serde(default = "no_tag")]
    pub(super) tag: FeedTag,
}

impl RecordBytes {
    pub(super) fn of(record: &StoredRecord, tag: FeedTag) -> Self {
        let link = &record.link;
        Self {
            document: record.document,
            version: record.version,
            through: record.through,
            chain: link.chain,
            actor: link.actor,
            number: link.number,
            hash: catchword_proto::cloud::api::Hash(link.hash),
            start_op: link.start_op,
            max_op: link.max_op,
            author: link.author.map(|author| Blob(author.to_bytes().to_vec())),
            clock: Blob(pack_clock(&link.clock)),
            verdict: link.verdict,
            statement: record.statement.clone(),
            bytes: Blob(record.bytes.clone()),
            notice: record.kind == RecordKind::Void,
            tag,
        }
    }

    pub(super) fn record(self) -> Result<StoredRecord, LedgerError> {
        let author = self.author.map(|bytes| Author::from_bytes(&bytes.0).ok_or_else(damaged));
        let link = Link {
            chain: self.chain,
            actor: self.actor,
            number: self.number,
            hash: self.hash.0,
            start_op: self.start_op,
            max_op: self.max_op,
            author: author.transpose()?,
            clock: unpack_clock(&self.clock.0)?,
            verdict: self.verdict,
        };
        Ok(StoredRecord {
            document: self.document,
            version: self.version,
            through: self.through,
            link,
            statement: self.statement,
            bytes: self.bytes.0,
            kind: if self.notice { RecordKind::Void } else { RecordKind::Link },
        })
    }
}

pub(super) fn pack<T: Serialize>(row: &T) -> Result<Vec<u8>, LedgerError> {
    Format::Cbor.encode(row).map_err(LedgerError::database)
}

pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, LedgerError> {
    Format::Cbor.decode(bytes).map_err(|_| damaged())
}

pub(super) const fn damaged() -> LedgerError {
    LedgerError::Damaged { detail: "a row does not read" }
}

/// Each actor (16) with its number (u32).
pub(super) fn pack_clock(clock: &Clock) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 * clock.len());
    for (actor, seq) in clock {
        out.extend_from_slice(&actor.0);
        // The strict reader takes no number above 2^31 - 1.
        out.extend_from_slice(&u32::try_from(*seq).unwrap_or(u32::MAX).to_be_bytes());
    }
    out
}

pub(super) fn unpack_clock(bytes: &[u8]) -> Result<Clock, LedgerError> {
    let (entries, []) = bytes.as_chunks::<20>() else { return Err(damaged()) };
    let mut clock = Clock::new();
    for entry in entries {
        let (actor, seq) = entry.split_first_chunk::<16>().ok_or_else(damaged)?;
        let seq = u32::from_be_bytes(seq.try_into().map_err(|_| damaged())?);
        clock.insert(ActorId(*actor), u64::from(seq));
    }
    Ok(clock)
}

const OTHER: u8 = 0;
const TEXT: u8 = 1;
const INT: u8 = 2;

/// Each holder: counter (u64), actor (16), stamp (u64), kind of value, its length (u32), its bytes.
pub(crate) fn pack_holders(holders: &[Holder]) -> Vec<u8> {
    let mut out = Vec::new();
    for holder in holders {
        out.extend_from_slice(&holder.op.counter.to_be_bytes());
        out.extend_from_slice(&holder.op.actor.0);
        out.extend_from_slice(&holder.stamp.packed().to_be_bytes());
        // What is neither text nor a whole number means nothing, and is only equal to itself.
        let (kind, value) = match (holder.value.as_text(), holder.value.as_int()) {
            (Some(text), _) => (TEXT, text.as_bytes().to_vec()),
            (None, Some(value)) => (INT, value.to_be_bytes().to_vec()),
            (None, None) => (OTHER, sha256(&[format!("{:?}", holder.value).as_bytes()]).to_vec()),
        };
        out.push(kind);
        out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&value);
    }
    out
}

pub(crate) fn unpack_holders(mut rest: &[u8]) -> Option<Vec<Holder>> {
    let mut holders = Vec::new();
    while !rest.is_empty() {
        let counter = u64::from_be_bytes(take(&mut rest)?);
        let actor = ActorId(take(&mut rest)?);
        let stamp = Hlc::from_packed(u64::from_be_bytes(take(&mut rest)?))?;
        let [kind] = take(&mut rest)?;
        let length = usize::try_from(u32::from_be_bytes(take(&mut rest)?)).ok()?;
        let (value, after) = rest.split_at_checked(length)?;
        rest = after;
        let value = match kind {
            TEXT => Scalar::Text(str::from_utf8(value).ok()?.to_owned()),
            INT => Scalar::Int(i64::from_be_bytes(value.try_into().ok()?)),
            _ => Scalar::Bytes(value.to_vec()),
        };
        holders.push(Holder { op: OpId { counter, actor }, stamp, value });
    }
    Some(holders)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

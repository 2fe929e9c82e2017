//! Statements that are kept: a device's signatures under changes and events of its own actors.
//!
//! A change counts elsewhere when a valid statement covers it through its actor's chain. A library
//! that is restored without its keys could not sign what it wrote before: so a backup does.
//!
//! # Invariants
//!
//! 1. Kept are, of each actor, the statement of its newest change, of every change whose number is a
//!    multiple of the interval, and wherever its bytes pass a multiple of [`STATEMENT_BYTES`]; and the
//!    same of events, without the bytes.
//! 2. The first valid statement of a number stays.

use catchword_model::exchange::{Signed, Statement, events_message, head_message};
use catchword_model::id::{DocumentId, Generation};

use crate::bytes::{Reader, Writer};
use crate::doc::{Doc, DocWriter};
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::exchange::{STATEMENT_BYTES, Staged, StatementKey};
use crate::snapshot::Snapshot;
use crate::{Inner, Store, tables};

pub(crate) const OF_CHANGES: u8 = 0;
pub(crate) const OF_EVENTS: u8 = 1;

/// Holds the device's key, and signs with it.
pub trait Signer {
    /// Returns the Ed25519 signature of a message.
    fn sign(&self, message: &[u8]) -> [u8; 64];
    /// Returns the public key as a DER-encoded `SubjectPublicKeyInfo`.
    fn public_key_spki(&self) -> &[u8];
}

/// A statement as it is stored; the key says of which change or event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) public_key_spki: Vec<u8>,
    pub(crate) generation: Generation,
    pub(crate) signature: [u8; 64],
    pub(crate) n: u32,
    /// Bytes of the actor's changes up to here; 0 if they were not counted.
    pub(crate) bytes: u64,
    /// Whether it stays when it is no longer the newest.
    pub(crate) stays: bool,
    pub(crate) hash: [u8; 32],
}

impl Kept {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(200);
        out.prefixed(&self.public_key_spki).fixed(&self.generation.0).fixed(&self.signature);
        out.number(u64::from(self.n)).number(self.bytes).byte(u8::from(self.stays));
        out.fixed(&self.hash);
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let public_key_spki = input.prefixed()?.to_vec();
        let (generation, signature) = (Generation(input.fixed()?), input.fixed()?);
        let (n, bytes, stays) = (input.small()?, input.number()?, input.byte()? == 1);
        let hash = input.fixed()?;
        if !input.is_empty() {
            return Err(corrupt("a statement has something after its end"));
        }
        Ok(Self { public_key_spki, generation, signature, n, bytes, stays, hash })
    }

    /// Returns the statement as it is sent.
    pub(crate) fn statement(&self, doc: &Doc, key: StatementKey) -> Result<Statement, LoadError> {
        let (_, kind, writer, number) = key;
        let signed = match kind {
            OF_CHANGES => Signed::Change { seq: number },
            _ => Signed::Event { n: number },
        };
        Ok(Statement {
            document: doc.id,
            actor: doc.writer_at(writer)?.actor,
            n: self.n,
            signed,
            hash: self.hash,
            public_key_spki: self.public_key_spki.clone(),
            generation: self.generation,
            signature: self.signature,
        })
    }

    /// Returns what is stored of a valid statement.
    pub(crate) fn of(statement: &Statement, bytes: u64, stays: bool) -> Self {
        Self {
            public_key_spki: statement.public_key_spki.clone(),
            generation: statement.generation,
            signature: statement.signature,
            n: statement.n,
            bytes,
            stays,
            hash: statement.hash,
        }
    }
}

/// Returns whether a change that ends at `bytes` of its actor's chain, and begins `own` bytes before,
/// has a statement for ever.
pub(crate) fn stays(number: u64, interval: u64, bytes: u64, own: u64) -> bool {
    number.is_multiple_of(interval)
        || bytes.saturating_sub(own) / STATEMENT_BYTES < bytes / STATEMENT_BYTES
}

/// Stages a statement, and removes the one that was the newest before if it does not stay.
pub(crate) fn put(
    staged: &mut Staged,
    disk: &Snapshot,
    key: StatementKey,
    kept: &Kept,
) -> Result<(), LoadError> {
    let (number, kind, writer, at) = key;
    if find(staged, disk, key)?.is_some() {
        return Ok(());
    }
    if let Some((before, old)) = last(staged, disk, (number, kind, writer), at)?
        && !old.stays
    {
        staged.statements.insert(before, None);
    }
    staged.statements.insert(key, Some(kept.encode()));
    Ok(())
}

/// Returns the statement of a number.
pub(crate) fn find(
    staged: &Staged,
    disk: &Snapshot,
    key: StatementKey,
) -> Result<Option<Kept>, LoadError> {
    if let Some(value) = staged.statements.get(&key) {
        return value.as_deref().map(Kept::decode).transpose();
    }
    let found = disk.statements.get(key).map_err(load)?;
    found.map(|bytes| Kept::decode(bytes.value())).transpose()
}

/// Returns the last statement of a writer up to a number.
pub(crate) fn last(
    staged: &Staged,
    disk: &Snapshot,
    (number, kind, writer): (u32, u8, u16),
    at: u64,
) -> Result<Option<(StatementKey, Kept)>, LoadError> {
    let range = (number, kind, writer, 0)..=(number, kind, writer, at);
    let new = staged.statements.range(range.clone()).rev().find(|(_, value)| value.is_some());
    let new = new.map(|(key, _)| *key);
    let mut old = None;
    for found in disk.statements.range(range).map_err(load)?.rev() {
        let (key, _) = found.map_err(load)?;
        if !staged.statements.contains_key(&key.value()) {
            old = Some(key.value());
            break;
        }
    }
    with_value(staged, disk, new.max(old))
}

/// Returns the first statement of a writer from a number on.
pub(crate) fn next(
    staged: &Staged,
    disk: &Snapshot,
    (number, kind, writer): (u32, u8, u16),
    at: u64,
) -> Result<Option<(StatementKey, Kept)>, LoadError> {
    let range = (number, kind, writer, at)..=(number, kind, writer, u64::MAX);
    let new = staged.statements.range(range.clone()).find(|(_, value)| value.is_some());
    let new = new.map(|(key, _)| *key);
    let mut old = None;
    for found in disk.statements.range(range).map_err(load)? {
        let (key, _) = found.map_err(load)?;
        if !staged.statements.contains_key(&key.value()) {
            old = Some(key.value());
            break;
        }
    }
    let first = match (new, old) {
        (Some(new), Some(old)) => Some(new.min(old)),
        (new, old) => new.or(old),
    };
    with_value(staged, disk, first)
}

fn with_value(
    staged: &Staged,
    disk: &Snapshot,
    key: Option<StatementKey>,
) -> Result<Option<(StatementKey, Kept)>, LoadError> {
    let Some(key) = key else { return Ok(None) };
    Ok(find(staged, disk, key)?.map(|kept| (key, kept)))
}

impl Store {
    /// Returns the statements that are kept about a document.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoDocument`] if the document is not here.
    pub fn statements(&self, document: DocumentId) -> Result<Vec<Statement>, LoadError> {
        use redb::ReadableDatabase as _;

        let mut inner = self.lock();
        let number = inner.number(document)?.ok_or(LoadError::NoDocument)?;
        let (stage, disk) = inner.parts()?;
        let doc = stage.doc(disk, number)?.clone();
        let read = inner.library.begin_read().map_err(load)?;
        let table = read.open_table(tables::STATEMENTS).map_err(load)?;
        let range = (number, 0, 0, 0)..(number.saturating_add(1), 0, 0, 0);
        let mut statements = Vec::new();
        for found in table.range(range).map_err(load)? {
            let (key, value) = found.map_err(load)?;
            statements.push(Kept::decode(value.value())?.statement(&doc, key.value())?);
        }
        Ok(statements)
    }
}

impl Inner {
    /// Returns the generation in which an actor is this device's, and which of its actors it is.
    ///
    /// A writer of nothing but events does not say who it is: then it is compared with every
    /// generation.
    pub(crate) fn own_actor(&self, doc: &Doc, writer: &DocWriter) -> Option<(Generation, u32)> {
        if let Some(author) = writer.author {
            return Some((self.identity.generation_of(author.device)?, author.n));
        }
        let n_max = self.author_in(doc.id).n;
        self.identity.generation_with_actor(doc.id, writer.actor, n_max)
    }

    /// Signs the newest change and event of each of this device's own actors in every document, and
    /// returns how many signatures that took. What is signed already is left alone.
    ///
    /// Everything must be drained. Other devices' actors, and those of a generation that had another
    /// key, are passed over.
    pub(crate) fn sign_newest(&mut self, signer: &dyn Signer) -> Result<u64, AppendError> {
        let (_, disk) = self.parts()?;
        let books = disk.books.range::<u32>(..).map_err(load)?;
        let numbers = books.map(|found| found.map(|(number, _)| number.value()).map_err(load));
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        let mut made = 0;
        for number in numbers {
            let (_, disk) = self.parts()?;
            // A document that does not read is for `check` to name; the others are signed.
            let Ok(Some(doc)) = disk.doc(number) else { continue };
            for (place, writer) in (0_u16..).zip(&doc.writers) {
                let Some((generation, n)) = self.own_actor(&doc, writer) else { continue };
                let ends = [
                    (OF_CHANGES, writer.last.map(|last| (u64::from(last.seq), last.hash.0))),
                    (
                        OF_EVENTS,
                        (0 < writer.events).then_some((writer.events, writer.last_event.0)),
                    ),
                ];
                for (kind, end) in ends {
                    let Some((at, hash)) = end else { continue };
                    let new = NewStatement { key: (number, kind, place, at), hash, generation, n };
                    made += u64::from(self.sign(&doc, &new, 0, 0, signer)?);
                }
            }
        }
        self.drain()?;
        Ok(made)
    }

    /// Stages a statement of an own actor, unless there is one, and returns whether there was none.
    pub(crate) fn sign(
        &mut self,
        doc: &Doc,
        new: &NewStatement,
        bytes: u64,
        own_bytes: u64,
        signer: &dyn Signer,
    ) -> Result<bool, LoadError> {
        let interval = self.exchange.statement_interval;
        let (stage, disk) = self.parts()?;
        if find(&stage.exchange, disk, new.key)?.is_some() {
            return Ok(false);
        }
        let (_, kind, writer, at) = new.key;
        let actor = doc.writer_at(writer)?.actor;
        let message = match kind {
            OF_CHANGES => {
                head_message(doc.id, actor, at, catchword_model::id::ChangeHash(new.hash))
            }
            _ => events_message(doc.id, actor, at, catchword_model::id::EventHash(new.hash)),
        };
        let kept = Kept {
            public_key_spki: signer.public_key_spki().to_vec(),
            generation: new.generation,
            signature: signer.sign(&message),
            n: new.n,
            bytes,
            stays: stays(at, interval, bytes, own_bytes),
            hash: new.hash,
        };
        put(&mut stage.exchange, disk, new.key, &kept)?;
        Ok(true)
    }
}

/// What is about to be signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewStatement {
    pub(crate) key: StatementKey,
    pub(crate) hash: [u8; 32],
    pub(crate) generation: Generation,
    pub(crate) n: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::STATEMENT_INTERVAL;

    #[test]
    fn multiples_and_passed_mebibytes_stay() {
        let interval = STATEMENT_INTERVAL;
        assert!(stays(512, interval, 10, 10));
        assert!(!stays(513, interval, STATEMENT_BYTES - 1, 10));
        assert!(stays(513, interval, STATEMENT_BYTES, 1));
        assert!(!stays(514, interval, STATEMENT_BYTES + 5, 5));
        assert!(stays(514, interval, 2 * STATEMENT_BYTES + 3, 4));
    }

    #[test]
    fn what_is_kept_reads_again() {
        let kept = Kept {
            public_key_spki: vec![1; 44],
            generation: Generation([2; 16]),
            signature: [3; 64],
            n: 4,
            bytes: 500,
            stays: true,
            hash: [6; 32],
        };
        assert_eq!(Kept::decode(&kept.encode()).unwrap(), kept);
        assert!(Kept::decode(&kept.encode()[1..]).is_err());
    }
}

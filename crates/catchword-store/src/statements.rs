//! Statements: a device's signature under the newest change or event of one of its own actors.
//!
//! A change counts elsewhere when a valid statement covers it through its actor's chain. A library
//! that is restored without its keys could not sign what it wrote before: so a backup does.

use catchword_model::id::{ActorId, ChangeHash, DocumentId, EventHash, Generation};

use crate::bytes::{Reader, Writer};
use crate::doc::Doc;
use crate::error::{AppendError, LoadError, corrupt, load};
use crate::{Inner, Store, tables};

const OF_CHANGES: u8 = 0;
const OF_EVENTS: u8 = 1;

/// Holds the device's key, and signs with it.
pub trait Signer {
    /// Returns the Ed25519 signature of a message.
    fn sign(&self, message: &[u8]) -> [u8; 64];
    /// Returns the public key as a DER-encoded `SubjectPublicKeyInfo`.
    fn public_key_spki(&self) -> &[u8];
}

/// What a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// A change, by its number among those of its actor.
    Change {
        /// The number.
        seq: u64,
    },
    /// A reading event, by its number among those of its actor.
    Event {
        /// The number.
        n: u64,
    },
}

/// A signature under everything an actor wrote up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Whose.
    pub actor: ActorId,
    /// Up to where.
    pub signed: Signed,
    /// The public key of the device, as a DER-encoded `SubjectPublicKeyInfo`.
    pub public_key_spki: Vec<u8>,
    /// The generation of the device: with the key it yields the device id, and so the actor.
    pub generation: Generation,
    /// The signature.
    pub signature: [u8; 64],
}

/// Returns what is signed for a change.
pub fn head_message(document: DocumentId, actor: ActorId, seq: u64, hash: ChangeHash) -> Vec<u8> {
    message(b"catchword/head/v1", document, actor, seq, &hash.0)
}

/// Returns what is signed for a reading event.
pub fn events_message(document: DocumentId, actor: ActorId, n: u64, hash: EventHash) -> Vec<u8> {
    message(b"catchword/events/v1", document, actor, n, &hash.0)
}

fn message(
    label: &[u8],
    document: DocumentId,
    actor: ActorId,
    number: u64,
    hash: &[u8; 32],
) -> Vec<u8> {
    let parts: [&[u8]; 5] = [label, &document.0, &actor.0, &number.to_be_bytes(), hash];
    parts.concat()
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
            let (_, kind, writer, number) = key.value();
            let actor = doc.writer_at(writer)?.actor;
            let signed = match kind {
                OF_CHANGES => Signed::Change { seq: number },
                _ => Signed::Event { n: number },
            };
            statements.push(decode(actor, signed, value.value())?);
        }
        Ok(statements)
    }
}

fn encode(public_key_spki: &[u8], generation: Generation, signature: &[u8; 64]) -> Vec<u8> {
    let mut out = Writer::with_capacity(160);
    out.prefixed(public_key_spki).fixed(&generation.0).fixed(signature);
    out.0
}

fn decode(actor: ActorId, signed: Signed, bytes: &[u8]) -> Result<Statement, LoadError> {
    let mut input = Reader(bytes);
    let public_key_spki = input.prefixed()?.to_vec();
    let generation = Generation(input.fixed()?);
    let signature = input.fixed()?;
    if !input.is_empty() {
        return Err(corrupt("a statement has something after its end"));
    }
    Ok(Statement { actor, signed, public_key_spki, generation, signature })
}

/// Number of the document, kind, writer, number of the change or event.
type Key = (u32, u8, u16, u64);

impl Inner {
    /// Signs the newest change and event of each of this device's own actors in every document, and
    /// returns how many signatures that took. What is signed already is left alone.
    ///
    /// Everything must be drained. Other devices' actors, and those of a generation that had another
    /// key, are passed over.
    pub(crate) fn sign_newest(&mut self, signer: &dyn Signer) -> Result<u64, AppendError> {
        use redb::ReadableDatabase as _;

        let identity = self.identity.clone();
        let read = self.library.begin_read().map_err(load)?;
        let kept = read.open_table(tables::STATEMENTS).map_err(load)?;
        let books = read.open_table(tables::BOOKS).map_err(load)?;
        let mut made: Vec<(Key, Vec<u8>)> = Vec::new();
        for found in books.range::<u32>(..).map_err(load)? {
            let (number, bytes) = found.map_err(load)?;
            // A document that does not read is for `check` to name; the others are signed.
            let Ok(doc) = Doc::decode(number.value(), bytes.value()) else { continue };
            for (key, generation, message) in newest(&doc, |device| identity.generation_of(device))
            {
                if kept.get(key).map_err(load)?.is_none() {
                    let signature = signer.sign(&message);
                    let key_spki = signer.public_key_spki();
                    made.push((key, encode(key_spki, generation, &signature)));
                }
            }
        }
        drop((kept, books, read));
        if !made.is_empty() {
            self.write_meta(|write| {
                let mut statements = write.open_table(tables::STATEMENTS).map_err(load)?;
                for (key, value) in &made {
                    statements.insert(*key, value.as_slice()).map_err(load)?;
                }
                Ok(())
            })?;
        }
        Ok(made.len() as u64)
    }
}

/// Returns what is to be signed of a document.
fn newest(
    doc: &Doc,
    own: impl Fn(catchword_model::id::DeviceId) -> Option<Generation>,
) -> Vec<(Key, Generation, Vec<u8>)> {
    let mut found = Vec::new();
    for (place, writer) in (0_u16..).zip(&doc.writers) {
        let author = writer.author.map(|author| author.device);
        let Some(generation) = author.and_then(&own) else { continue };
        if let Some(last) = writer.last {
            let seq = u64::from(last.seq);
            let message = head_message(doc.id, writer.actor, seq, last.hash);
            found.push(((doc.number, OF_CHANGES, place, seq), generation, message));
        }
        if 0 < writer.events {
            let message = events_message(doc.id, writer.actor, writer.events, writer.last_event);
            found.push(((doc.number, OF_EVENTS, place, writer.events), generation, message));
        }
    }
    found
}

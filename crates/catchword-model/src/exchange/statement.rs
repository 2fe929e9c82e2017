//! Statements: a device's signature under a change or event of one of its own actors.

use crate::id::{ActorId, Author, ChangeHash, DeviceId, DocumentId, EventHash, Generation};
use crate::identity::{PublicKey, SIGNATURE_BYTES};

/// What a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl Signed {
    /// Returns the number among those of the actor.
    pub const fn number(self) -> u64 {
        match self {
            Self::Change { seq } => seq,
            Self::Event { n } => n,
        }
    }
}

/// A signature under everything an actor wrote up to here: the hash of a change or event proves those
/// before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Of which document.
    pub document: DocumentId,
    /// Whose.
    pub actor: ActorId,
    /// Which of the device's actors in the document this is.
    pub n: u32,
    /// Up to where.
    pub signed: Signed,
    /// The hash of that change or event.
    pub hash: [u8; 32],
    /// The public key of the device, as a DER-encoded `SubjectPublicKeyInfo`.
    pub public_key_spki: Vec<u8>,
    /// The generation of the device.
    pub generation: Generation,
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Statement {
    /// Returns whose key signs: it yields the actor.
    pub fn device(&self) -> DeviceId {
        DeviceId::derive(&self.public_key_spki, self.generation)
    }

    /// Returns what is signed.
    pub fn message(&self) -> Vec<u8> {
        match self.signed {
            Signed::Change { seq } => {
                head_message(self.document, self.actor, seq, ChangeHash(self.hash))
            }
            Signed::Event { n } => {
                events_message(self.document, self.actor, n, EventHash(self.hash))
            }
        }
    }

    /// Returns whether the actor is this device's and the signature its own.
    pub fn is_valid(&self) -> bool {
        let author = Author { device: self.device(), n: self.n };
        author.actor(self.document) == self.actor
            && PublicKey::from_spki(&self.public_key_spki)
                .is_ok_and(|key| key.verify(&self.message(), &self.signature))
    }
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

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    fn statement(signed: Signed) -> Statement {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = PublicKey::from_bytes(&key.verifying_key().to_bytes()).unwrap();
        let (document, generation) = (DocumentId([3; 32]), Generation([4; 16]));
        let actor = Author { device: public.device(generation), n: 2 }.actor(document);
        let mut statement = Statement {
            document,
            actor,
            n: 2,
            signed,
            hash: [5; 32],
            public_key_spki: public.to_spki().to_vec(),
            generation,
            signature: [0; 64],
        };
        statement.signature = key.sign(&statement.message()).to_bytes();
        statement
    }

    #[test]
    fn a_statement_holds_for_what_it_says_and_nothing_else() {
        for signed in [Signed::Change { seq: 9 }, Signed::Event { n: 9 }] {
            let valid = statement(signed);
            assert!(valid.is_valid());
            let other = match signed {
                Signed::Change { .. } => Signed::Event { n: 9 },
                Signed::Event { .. } => Signed::Change { seq: 9 },
            };
            let stranger =
                PublicKey::from_bytes(&SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
            for wrong in [
                Statement { document: DocumentId([9; 32]), ..valid.clone() },
                Statement { actor: ActorId([9; 16]), ..valid.clone() },
                Statement { n: 3, ..valid.clone() },
                Statement { signed: other, ..valid.clone() },
                Statement { signed: Signed::Change { seq: 10 }, ..valid.clone() },
                Statement { hash: [6; 32], ..valid.clone() },
                Statement { generation: Generation([5; 16]), ..valid.clone() },
                Statement { public_key_spki: Vec::new(), ..valid.clone() },
                Statement { public_key_spki: stranger.unwrap().to_spki().into(), ..valid.clone() },
                Statement { signature: [1; 64], ..valid.clone() },
            ] {
                assert!(!wrong.is_valid(), "{wrong:?}");
            }
        }
    }
}

//! Stores that sync with each other: the conversation of a session, carried out by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use catchword_model::edit::Edit;
use catchword_model::exchange::Reach;
use catchword_model::id::{ChangeHash, DocumentId, sha256};
use catchword_model::identity::{Fingerprint, PublicKey};
use catchword_model::meta::DeviceName;
use catchword_store::{
    Applied, Bounds, Collected, Delivery, ExchangeOptions, Options, Origin, Peer, Repair, Scope,
    Signer, Store,
};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::exchange_disk::Disk;
use crate::support::{BOOK, MONDAY_MS, titled};

/// A device's key.
pub(crate) struct Key {
    secret: SigningKey,
    spki: Vec<u8>,
}

impl Key {
    pub(crate) fn of(device: u8) -> Self {
        let secret = SigningKey::from_bytes(&[device; 32]);
        let public = PublicKey::from_bytes(&secret.verifying_key().to_bytes()).unwrap();
        Self { secret, spki: public.to_spki().to_vec() }
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
    }

    fn public_key_spki(&self) -> &[u8] {
        &self.spki
    }
}

/// A store with its key, as peers know it.
pub(crate) struct Device {
    pub(crate) number: u8,
    pub(crate) key: Key,
    pub(crate) store: Store,
    pub(crate) folder: Option<tempfile::TempDir>,
    pub(crate) scope: Scope,
}

pub(crate) fn exchange_options(interval: u64, piece: usize, parked: usize) -> ExchangeOptions {
    ExchangeOptions { statement_interval: interval, piece_content_bytes: piece, parked_max: parked }
}

pub(crate) fn device_options(number: u8) -> Options {
    let name = DeviceName { name: format!("device {number}"), ..DeviceName::default() };
    Options { public_key_spki: Key::of(number).spki, device: name, now_ms: MONDAY_MS }
}

impl Device {
    /// A device without books.
    pub(crate) fn empty(number: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path(), &device_options(number)).unwrap();
        Self { number, key: Key::of(number), store, folder: Some(folder), scope: Scope::All }
    }

    /// A device with the book.
    pub(crate) fn with_book(number: u8) -> Self {
        let device = Self::empty(number);
        device.store.add_book(BOOK, titled("Moby-Dick"), Vec::new(), MONDAY_MS).unwrap();
        device
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint([self.number; 32])
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin { peer: self.fingerprint(), generation: self.store.generation() }
    }

    pub(crate) fn write(&self, edits: &[Edit], now: u64) {
        self.store.append(BOOK.document(), edits, MONDAY_MS + now).unwrap();
    }

    /// A device whose files are in memory.
    pub(crate) fn on(number: u8, disk: &Disk) -> Self {
        let (key, store) = (Key::of(number), disk.open(number));
        Self { number, key, store, folder: None, scope: Scope::All }
    }

    /// Speaks as another sees this device: what is given to `other`, or taken from it.
    pub(crate) fn towards<T>(&self, other: Origin, run: impl FnOnce(&Peer<'_>) -> T) -> T {
        let mac = |id: DocumentId| sha256(&[&id.0])[..8].try_into().unwrap();
        run(&Peer { origin: other, scope: &self.scope, mac: &mac, now_ms: MONDAY_MS })
    }

    pub(crate) fn collect(&self, to: &Self, after: u64) -> Collected {
        self.towards(to.origin(), |peer| self.store.collect(peer, after, &self.key).unwrap())
    }

    pub(crate) fn apply(&self, from: &Self, piece: &[u8], bounds: Option<Bounds>) -> Applied {
        self.towards(from.origin(), |peer| {
            self.store.apply(peer, Delivery { piece, bounds, said: None }).unwrap()
        })
    }

    pub(crate) fn mark_of(&self, from: &Self) -> u64 {
        self.towards(from.origin(), |peer| self.store.local(peer).unwrap().mark)
    }

    pub(crate) fn sum_towards(&self, other: &Self) -> [u8; 32] {
        self.towards(other.origin(), |peer| self.store.local(peer).unwrap().fingerprint)
    }

    pub(crate) fn heads(&self, document: DocumentId) -> Vec<ChangeHash> {
        self.store.heads(document).unwrap().unwrap_or_default()
    }

    pub(crate) fn assert_clean(&self) {
        let mut go_on = |_| ControlFlow::Continue(());
        let report = self.store.check(Repair::ReportOnly, &mut go_on).unwrap();
        assert!(report.is_clean(), "device {}: {report:#?}", self.number);
    }
}

/// What one message brought.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) changes: u64,
    pub(crate) events: u64,
    pub(crate) bytes: usize,
    pub(crate) pieces: u64,
    pub(crate) added: u64,
    pub(crate) refused: usize,
    pub(crate) parked: u64,
}

/// Gives everything above the mark, piece by piece.
pub(crate) fn give(from: &Device, to: &Device) -> Sent {
    let mut sent = Sent::default();
    loop {
        let piece = from.collect(to, to.mark_of(from));
        let applied = to.apply(from, &piece.piece, Some(piece.bounds));
        assert_eq!(applied.mark, piece.bounds.through);
        sent.changes += piece.changes;
        sent.events += piece.events;
        sent.bytes += piece.piece.len();
        sent.pieces += 1;
        sent.added += applied.changes_added + applied.events_added;
        sent.refused += applied.refused.len();
        sent.parked += applied.parked;
        if !piece.more {
            return sent;
        }
    }
}

/// A whole sync by marks, both ways.
pub(crate) fn sync(a: &Device, b: &Device) -> [Sent; 2] {
    [give(a, b), give(b, a)]
}

/// Finds what differs by ranges and brings it by vectors, both ways, until nothing does.
pub(crate) fn reconcile(a: &Device, b: &Device) -> u64 {
    let mut rounds = 0;
    while a.sum_towards(b) != b.sum_towards(a) {
        rounds += 1;
        assert!(rounds < 1_000, "no rest:\n{}\n{}", describe(a, b), describe(b, a));
        let differing = differing(a, b);
        assert!(!differing.is_empty());
        let mut forks = BTreeSet::new();
        // Once more where chains fork, as if nothing of them were there: a session finds where they part.
        for _ in 0..2 {
            for (from, to) in [(a, b), (b, a)] {
                let vectors = to.towards(from.origin(), |peer| to.store.vectors(peer, &differing));
                let mut vectors = vectors.unwrap();
                for (document, vector) in &mut vectors {
                    let forked = |reach: &Reach| forks.contains(&(*document, reach.actor));
                    vector.changes.retain(|reach| !forked(reach));
                    vector.events.retain(|reach| !forked(reach));
                }
                let piece = from.towards(to.origin(), |peer| {
                    from.store.collect_for(peer, &vectors, &from.key).unwrap()
                });
                forks.extend(piece.forks.iter().copied());
                to.apply(from, &piece.piece, None);
            }
            if forks.is_empty() {
                break;
            }
        }
    }
    rounds
}

/// Says how far a device reaches in the documents in which it differs from another.
fn describe(device: &Device, other: &Device) -> String {
    let differing = differing(device, other);
    let vectors =
        device.towards(other.origin(), |peer| device.store.vectors(peer, &differing).unwrap());
    let list = |reaches: &[Reach]| -> String {
        let one = |reach: &Reach| {
            let ([a, b, ..], [c, d, ..]) = (reach.actor.0, reach.prefix);
            format!(" {a:02x}{b:02x}:{}:{c:02x}{d:02x}", reach.number)
        };
        reaches.iter().map(one).collect()
    };
    let mut lines = vec![format!("device {}, waiting {:?}", device.number, device.store.parked())];
    for (id, vector) in vectors {
        let [changes, events, void] =
            [&vector.changes, &vector.events, &vector.void].map(|l| list(l));
        lines.push(format!("{id}:{changes} | events{events} | void{void}"));
    }
    lines.join("\n")
}

/// Returns the documents whose items differ.
pub(crate) fn differing(a: &Device, b: &Device) -> Vec<DocumentId> {
    let all = [(DocumentId([0; 32]), None)];
    let items = |one: &Device, other: &Device| -> BTreeMap<DocumentId, [u8; 32]> {
        let items = one.towards(other.origin(), |peer| one.store.items(peer, &all));
        items.unwrap().remove(0).into_iter().collect()
    };
    let (ours, theirs) = (items(a, b), items(b, a));
    let ids: BTreeSet<_> = ours.keys().chain(theirs.keys()).copied().collect();
    ids.into_iter().filter(|id| ours.get(id) != theirs.get(id)).collect()
}

//! What does not count, by document: kept, since others must learn of it, and since its writer writes it
//! again.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::event::ReadingEvent;
use catchword_model::exchange::{Reach, Statement, Sum, prefix_of};
use catchword_model::id::{ActorId, DocumentId, Generation};
use catchword_model::identity::Fingerprint;
use redb::WriteTransaction;

use crate::bytes::{Reader, Writer};
use crate::error::{LoadError, load};
use crate::exchange::parked::Parked;
use crate::exchange::pool::{Body, Candidate, ChainId, Hash};
use crate::exchange::{Origin, Staged};
use crate::snapshot::Snapshot;
use crate::tables;

/// It counts, and stands here only while its document is laid out anew.
const COUNTS: u8 = 1;
/// This device wrote it, and has to write it again.
const AGAIN: u8 = 2;

/// A change or event that stands outside the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Void {
    /// Whether it counts: see [`COUNTS`]. If so, where it stood in the order of arrival.
    pub(super) counts: Option<u64>,
    /// Whether this device has to write it again.
    pub(super) again: bool,
    /// Who brought it; nobody, if it was made here.
    pub(super) origin: Option<Origin>,
    pub(in crate::exchange) body: Body,
    /// A valid statement of exactly this.
    pub(in crate::exchange) statement: Option<Statement>,
}

impl Void {
    /// Something that never counted here.
    pub(super) fn of(candidate: &Candidate, again: bool) -> Self {
        Self {
            counts: None,
            again,
            origin: Some(candidate.origin),
            body: candidate.body.clone(),
            statement: candidate.statement.clone(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        let flags = flag(self.counts.is_some(), COUNTS) | flag(self.again, AGAIN);
        let nobody = Origin { peer: Fingerprint([0; 32]), generation: Generation([0; 16]) };
        let parked = Parked {
            origin: self.origin.unwrap_or(nobody),
            since_ms: self.counts.unwrap_or(0),
            body: self.body.clone(),
            statement: self.statement.clone(),
        };
        let mut out = Writer::default();
        out.byte(flags).byte(u8::from(self.origin.is_some())).fixed(&parked.encode());
        out.0
    }

    fn decode(document: DocumentId, bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let (flags, is_foreign) = (input.byte()?, input.byte()? == 1);
        let parked = Parked::decode(document, input.0)?;
        Ok(Self {
            counts: (flags & COUNTS != 0).then_some(parked.since_ms),
            again: flags & AGAIN != 0,
            origin: is_foreign.then_some(parked.origin),
            body: parked.body,
            statement: parked.statement,
        })
    }

    /// Returns its size, in bytes.
    pub(in crate::exchange) fn bytes(&self) -> usize {
        match &self.body {
            Body::Change(change) => change.bytes().len(),
            Body::Event(_) => ReadingEvent::LEN,
        }
    }

    /// Returns where a change begins, above every operation of its past: an order to read them in.
    pub(super) fn start(&self) -> u64 {
        match &self.body {
            Body::Change(change) => change.start_op,
            Body::Event(event) => event.n,
        }
    }
}

/// Everything of one document that does not count.
#[derive(Debug, Default)]
pub(crate) struct Voids {
    /// Invariant: what [`Self::places`] names, and nothing else.
    entries: BTreeMap<Hash, Void>,
    places: BTreeSet<(ChainId, u64, Hash)>,
}

impl Voids {
    /// Reads what is kept of a document.
    pub(crate) fn on(disk: &Snapshot, document: DocumentId) -> Result<Self, LoadError> {
        Self::of(&Staged::default(), disk, document)
    }

    /// Reads what is kept of a document, with what is staged.
    pub(crate) fn of(
        staged: &Staged,
        disk: &Snapshot,
        document: DocumentId,
    ) -> Result<Self, LoadError> {
        let mut all = read(disk, document)?;
        let (first, last) = ((document, [0; 32]), (document, [0xFF; 32]));
        for ((_, hash), value) in staged.void.range(first..=last) {
            match value {
                Some(bytes) => all.insert(*hash, Void::decode(document, bytes)?),
                None => all.remove(hash),
            };
        }
        let mut voids = Self::default();
        for (hash, void) in all.into_iter().filter(|(_, void)| void.counts.is_none()) {
            voids.insert(hash, void);
        }
        Ok(voids)
    }

    pub(super) fn insert(&mut self, hash: Hash, void: Void) {
        let (chain, number, _) = void.body.place();
        self.places.insert((chain, number, hash));
        self.entries.insert(hash, void);
    }

    pub(super) fn get(&self, hash: &Hash) -> Option<&Void> {
        self.entries.get(hash)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Void> + Clone {
        self.entries.values()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn contains(&self, hash: &Hash) -> bool {
        self.entries.contains_key(hash)
    }

    /// Returns what stands at one number of a chain.
    pub(in crate::exchange) fn at(
        &self,
        chain: ChainId,
        number: u64,
    ) -> impl Iterator<Item = (&Hash, &Void)> {
        let (first, last) = ((chain, number, [0; 32]), (chain, number, [0xFF; 32]));
        let hashes = self.places.range(first..=last).map(|(_, _, hash)| hash);
        hashes.filter_map(|hash| Some((hash, self.entries.get(hash)?)))
    }

    /// Returns what is signed, itself or by what follows it in its chain. The rest never left this
    /// device, and is nobody else's business.
    pub(in crate::exchange) fn signed(&self) -> BTreeSet<Hash> {
        let tops = self.entries.iter().filter(|(_, void)| void.statement.is_some());
        self.down_from(tops.map(|(hash, _)| *hash).collect())
    }

    /// Returns what follows a change or event in its chain, up to the first that has a statement.
    pub(in crate::exchange) fn cover(&self, chain: ChainId, at: u64, hash: Hash) -> Vec<&Void> {
        let signed = self.signed();
        let (mut cover, mut at, mut last) = (Vec::new(), at, hash);
        while cover.last().is_none_or(|void: &&Void| void.statement.is_none()) {
            at += 1;
            let next = self.at(chain, at).find(|(hash, void)| {
                signed.contains(*hash) && void.body.builds_on().contains(&last)
            });
            let Some((hash, void)) = next else { break };
            last = *hash;
            cover.push(void);
        }
        cover
    }

    /// Returns the last of each branch that is not signed: this device's own.
    pub(super) fn unsigned_tips(&self) -> Vec<Hash> {
        let signed = self.signed();
        let inner: BTreeSet<Hash> = self.all().filter_map(|void| self.before(void)).collect();
        let is_tip = |hash: &&Hash| !signed.contains(*hash) && !inner.contains(*hash);
        self.entries.keys().filter(is_tip).copied().collect()
    }

    /// Returns these, and everything before them in their chains.
    fn down_from(&self, mut open: Vec<Hash>) -> BTreeSet<Hash> {
        let mut found = BTreeSet::new();
        while let Some(hash) = open.pop() {
            if let Some(void) = self.entries.get(&hash).filter(|_| found.insert(hash)) {
                open.extend(self.before(void));
            }
        }
        found
    }

    /// Returns the one before in the chain, if it does not count either.
    fn before(&self, void: &Void) -> Option<Hash> {
        let (chain, number, _) = void.body.place();
        void.body.builds_on().into_iter().find(|hash| {
            self.entries.get(hash).is_some_and(|before| {
                let (of, at, _) = before.body.place();
                of == chain && at + 1 == number
            })
        })
    }

    /// Returns what stands for all of it.
    pub(super) fn sum(&self) -> Option<Sum> {
        let (mut sum, signed) = (Sum::default(), self.signed());
        for hash in &signed {
            sum.add(hash);
        }
        (!signed.is_empty()).then_some(sum)
    }

    /// Returns the last of each branch: the others follow from it.
    pub(crate) fn tips(&self) -> Vec<Reach> {
        let signed = self.signed();
        let all = || signed.iter().filter_map(|hash| Some((hash, self.entries.get(hash)?)));
        let inner: BTreeSet<Hash> = all().filter_map(|(_, void)| self.before(void)).collect();
        let tips = all().filter(|(hash, _)| !inner.contains(*hash));
        let reach = tips.map(|(hash, void)| {
            let ((_, actor), number, _) = void.body.place();
            Reach { actor, number, prefix: prefix_of(hash) }
        });
        let mut tips: Vec<Reach> = reach.collect();
        tips.sort_unstable();
        tips
    }

    /// Returns what somebody lacks who has these branches: each behind what it builds on.
    pub(crate) fn lacking(&self, theirs: &[Reach]) -> Vec<&Void> {
        let named = |hash: &&Hash| theirs.iter().any(|tip| tip.prefix == prefix_of(hash));
        let has = self.down_from(self.entries.keys().filter(named).copied().collect());
        let signed = self.signed();
        let lacking = signed.difference(&has).filter_map(|hash| self.entries.get(hash));
        let mut lacking: Vec<_> = lacking.collect();
        lacking.sort_by_key(|void| (void.start(), void.body.place()));
        lacking
    }

    /// Returns what has to be written again here.
    pub(super) fn again(&self) -> impl Iterator<Item = (&Hash, &Void)> {
        self.entries.iter().filter(|(_, void)| void.again)
    }

    /// Returns whether a signature shows that an actor has this key.
    pub(super) fn is_of_key(&self, actor: ActorId, public_key_spki: &[u8]) -> bool {
        let statements = self.entries.values().filter_map(|void| void.statement.as_ref());
        let mut of_actor = statements.filter(|statement| statement.actor == actor);
        of_actor.any(|statement| statement.public_key_spki == public_key_spki)
    }
}

/// Reads everything that is kept of a document outside its log, by hash.
pub(super) fn read(
    disk: &Snapshot,
    document: DocumentId,
) -> Result<BTreeMap<Hash, Void>, LoadError> {
    let mut all = BTreeMap::new();
    let (first, last) = ([0; 32], [0xFF; 32]);
    let range = (&document.0, &first)..=(&document.0, &last);
    for found in disk.void.range(range).map_err(load)? {
        let (key, value) = found.map_err(load)?;
        all.insert(*key.value().1, Void::decode(document, value.value())?);
    }
    Ok(all)
}

/// Returns the documents of which something has to be written again here, and those that have something
/// that is to be signed.
pub(crate) fn to_do(
    disk: &Snapshot,
) -> Result<(BTreeSet<DocumentId>, BTreeSet<DocumentId>), LoadError> {
    let (mut again, mut all) = (BTreeSet::new(), BTreeSet::new());
    for found in disk.void.range::<(&[u8; 32], &[u8; 32])>(..).map_err(load)? {
        let (key, value) = found.map_err(load)?;
        let document = DocumentId(*key.value().0);
        if value.value().first().is_some_and(|flags| flags & AGAIN != 0) {
            again.insert(document);
        }
        all.insert(document);
    }
    let mut unsigned = BTreeSet::new();
    for document in all {
        if !Voids::on(disk, document)?.unsigned_tips().is_empty() {
            unsigned.insert(document);
        }
    }
    Ok((again, unsigned))
}

/// Writes what does not count, and deletes what does or is done.
pub(crate) fn write(
    write: &WriteTransaction,
    staged: &BTreeMap<(DocumentId, Hash), Option<Vec<u8>>>,
) -> Result<(), LoadError> {
    if staged.is_empty() {
        return Ok(());
    }
    let mut table = write.open_table(tables::VOID).map_err(load)?;
    for ((document, hash), value) in staged {
        let key = (&document.0, hash);
        match value {
            Some(value) => table.insert(key, value.as_slice()),
            None => table.remove(key),
        }
        .map_err(load)?;
    }
    Ok(())
}

/// Deletes everything of a document.
pub(crate) fn delete(write: &WriteTransaction, document: DocumentId) -> Result<(), LoadError> {
    let mut table = write.open_table(tables::VOID).map_err(load)?;
    let (first, last) = ([0; 32], [0xFF; 32]);
    let range = (&document.0, &first)..=(&document.0, &last);
    table.retain_in(range, |_, _| false).map_err(load)
}

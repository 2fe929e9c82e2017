//! A store in memory that answers what session machines ask, as simple as the rules allow.
//!
//! A fact is a change or an event: a link of its actor's chain, with dependencies. Facts of the whole
//! world lie in one [`Ledger`], so that a piece is a list of their numbers.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::id::{ActorId, DocumentId, Generation};
use catchword_proto::session::{
    Answer, Applied, Apply, Bounds, Chain, Collected, Entry, Exclusion, Heard, Item, ListDigest,
    Local, Log, Piece, Question, ShortHash, Span, Spot, Summary, Vector, list_digest,
};
use sha2::{Digest, Sha256};

mod admission;

/// A fact, by its place in the ledger.
pub(crate) type Id = u32;

/// A key pair, which is also the peer's fingerprint.
pub(crate) type Key = u8;

/// One generation of a peer.
pub(crate) type Peer = (Key, Generation);

#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) chain: Chain,
    pub(crate) seq: u32,
    pub(crate) hash: [u8; 32],
    /// The fact with the number before.
    pub(crate) before: Option<Id>,
    pub(crate) deps: Vec<Id>,
    /// Whose signature a statement of it needs.
    pub(crate) key: Key,
    /// A perfect clock, for the counter-example alone.
    pub(crate) time: u64,
}

/// Every fact that was ever made.
#[derive(Debug, Default)]
pub(crate) struct Ledger(pub Vec<Fact>);

/// What holds for a whole world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Statements at seqs that are multiples of this are kept.
    pub(crate) multiple: u32,
    /// Facts of one piece before it is closed.
    pub(crate) piece_max: usize,
    /// Parked facts of one document and peer.
    pub(crate) parked_max: usize,
    /// Summaries are never compared: marks alone must do.
    pub(crate) blind: bool,
    /// Marks are times of making instead of numbers of receipt: the counter-example.
    pub(crate) watermark: bool,
}

/// What is kept about one generation of a peer.
#[derive(Debug, Clone, Default)]
struct Marks {
    mark: u64,
    list: Vec<Exclusion>,
    acknowledged: ListDigest,
    theirs: u64,
    agreed: bool,
    /// The peer takes nothing from this device.
    refused: bool,
    /// As a process remembers it.
    contained: Option<Summary>,
}

#[derive(Debug, Clone)]
struct Parked {
    id: Id,
    signed: bool,
    peer: Peer,
}

/// A transaction that has its numbers and is not committed.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    before: u64,
    after: u64,
    peer: Peer,
    apply: Apply,
}

/// How a commit went.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) applied: Applied,
    /// Chains of which two histories were seen.
    pub(crate) forks: usize,
    /// How many facts wait for others.
    pub(crate) parked: usize,
}

/// One device's store. A clone is a backup.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) rules: Rules,
    pub(crate) key: Key,
    pub(crate) generation: Generation,
    counter: u64,
    /// What is here, in the order of receipt.
    log: BTreeMap<u64, Id>,
    at: BTreeMap<Id, u64>,
    pub(crate) chains: BTreeMap<Chain, Vec<Id>>,
    /// Facts with a statement.
    signed: BTreeSet<Id>,
    received: BTreeMap<u64, Peer>,
    parked: Vec<Parked>,
    marks: BTreeMap<Peer, Marks>,
    last: BTreeMap<Key, Generation>,
    /// Documents outside the scope of a peer.
    pub(crate) outside: BTreeMap<Key, BTreeSet<DocumentId>>,
    /// Peers from which nothing is taken.
    pub(crate) lends_to: BTreeSet<Key>,
    pub(crate) removed: BTreeSet<DocumentId>,
    pub(crate) paused: BTreeSet<DocumentId>,
    /// Facts beside which a peer has others: it is shown ours until both agree.
    owed: BTreeSet<(Peer, Id)>,
    /// Documents that were ever heard of.
    pub(crate) named: BTreeSet<DocumentId>,
    /// The n of this device's actor in documents that were purged.
    purged: BTreeMap<DocumentId, u32>,
    pub(crate) open: Option<Open>,
    /// Greatest number that ever left. Not in backups: see [`restore`](Self::restore).
    witness: u64,
    generations: u8,
}

impl Ledger {
    fn get(&self, id: Id) -> &Fact {
        &self.0[id as usize]
    }

    fn entry(&self, tip: Id) -> Entry {
        let fact = self.get(tip);
        let Chain { log, actor, .. } = fact.chain;
        Entry { log, actor, seq: fact.seq, hash: short(fact) }
    }
}

fn short(fact: &Fact) -> ShortHash {
    *fact.hash.first_chunk().unwrap()
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn generation(key: Key, number: u8, drawn: u64) -> Generation {
    let mut bytes = [7; 16];
    bytes[..2].copy_from_slice(&[key, number]);
    bytes[8..].copy_from_slice(&drawn.to_be_bytes());
    Generation(bytes)
}

impl Store {
    pub(crate) fn new(rules: Rules, key: Key) -> Self {
        Self {
            rules,
            key,
            generation: generation(key, 0, 0),
            counter: 0,
            log: BTreeMap::new(),
            at: BTreeMap::new(),
            chains: BTreeMap::new(),
            signed: BTreeSet::new(),
            received: BTreeMap::new(),
            parked: Vec::new(),
            marks: BTreeMap::new(),
            last: BTreeMap::new(),
            outside: BTreeMap::new(),
            lends_to: BTreeSet::new(),
            removed: BTreeSet::new(),
            paused: BTreeSet::new(),
            owed: BTreeSet::new(),
            named: BTreeSet::new(),
            purged: BTreeMap::new(),
            open: None,
            witness: 0,
            generations: 0,
        }
    }

    // What a person does.

    /// Writes a change or an event, unless the document is removed.
    pub(crate) fn write(
        &mut self,
        ledger: &mut Ledger,
        document: DocumentId,
        log: Log,
        time: u64,
    ) -> bool {
        if self.removed.contains(&document) {
            return false;
        }
        let n = self.purged.get(&document).copied().unwrap_or(0);
        let actor = hash(&[&[self.key], &self.generation.0, &document.0, &n.to_be_bytes()]);
        let chain = Chain { document, log, actor: ActorId(*actor.first_chunk().unwrap()) };
        let before = self.chains.get(&chain).and_then(|ids| ids.last().copied());
        let seq = before.map_or(1, |before| ledger.get(before).seq + 1);
        let others = self.chains.iter().filter(|(other, _)| {
            log == Log::Changes
                && (other.document, other.log) == (document, log)
                && other.actor != chain.actor
        });
        let deps: Vec<Id> = others.filter_map(|(_, ids)| ids.last().copied()).collect();
        let id = Id::try_from(ledger.0.len()).unwrap();
        let hash = hash(&[&chain.actor.0, &seq.to_be_bytes(), &id.to_be_bytes()]);
        ledger.0.push(Fact { chain, seq, hash, before, deps, key: self.key, time });
        self.named.insert(document);
        self.counter += 1;
        self.put(ledger, id, self.counter);
        true
    }

    /// Forgets a removed document; its actor goes on under the next n.
    pub(crate) fn purge(&mut self, ledger: &Ledger, document: DocumentId) {
        let gone: Vec<Chain> =
            self.chains.keys().filter(|chain| chain.document == document).copied().collect();
        for id in gone.iter().filter_map(|chain| self.chains.remove(chain)).flatten() {
            let number = self.at.remove(&id).unwrap();
            self.log.remove(&number);
            self.received.remove(&number);
            self.signed.remove(&id);
        }
        self.parked.retain(|parked| ledger.get(parked.id).chain.document != document);
        *self.purged.entry(document).or_default() += 1;
    }

    /// Signs the newest of each own chain, so that a restore without the key can pass it on.
    pub(crate) fn back_up(&mut self, ledger: &Ledger) -> Self {
        let documents = self.named.clone();
        self.sign(ledger, &documents, u64::MAX);
        Self { open: None, ..self.clone() }
    }

    /// Goes back to a backup over a folder that keeps its key, under a new generation on evidence:
    /// something left since, or the witness names another generation.
    pub(crate) fn restore(&mut self, backup: &Self, drawn: u64) {
        let Self { witness, generation, generations, key, .. } = *self;
        *self = Self { generations, key, open: None, ..backup.clone() };
        if self.counter < witness || self.generation != generation {
            self.renew(drawn);
        }
        self.witness = self.counter;
    }

    /// Takes a backup over into an empty folder: another identity with the same past.
    pub(crate) fn restore_without_keys(&mut self, backup: &Self, key: Key) {
        *self = Self { open: None, key, ..backup.clone() };
        self.generations = 0;
        self.marks.clear();
        self.last.clear();
        self.renew(0);
    }

    /// A copied folder: its witness names another file.
    pub(crate) fn renew_copy(&mut self, drawn: u64) {
        self.generations += 100;
        self.renew(drawn);
    }

    /// Begins a new generation.
    pub(crate) fn renew(&mut self, drawn: u64) {
        self.generations += 1;
        self.generation = generation(self.key, self.generations, drawn);
        for marks in self.marks.values_mut() {
            (marks.acknowledged, marks.theirs) = (ListDigest::default(), 0);
        }
    }

    /// The process ends: what was not committed is gone, its numbers stay unused.
    pub(crate) fn kill(&mut self) {
        self.open = None;
        self.marks.values_mut().for_each(|marks| marks.contained = None);
    }

    // What a machine asks.

    /// Answers anything but [`Question::Apply`], which is [`begin`](Self::begin) and
    /// [`commit`](Self::commit).
    pub(crate) fn answer(
        &mut self,
        ledger: &Ledger,
        key: Key,
        peer: Option<Generation>,
        question: Question,
    ) -> Answer {
        let known = peer.or_else(|| self.last.get(&key).copied());
        let peer = (key, known.unwrap_or(Generation([0; 16])));
        match question {
            Question::Local => Answer::Local(self.local(ledger, peer)),
            Question::Collect { after } => {
                let mut collected = self.collect(ledger, peer, after);
                if known.is_none() {
                    collected = Collected {
                        peer: None,
                        bounds: Bounds::default(),
                        piece: Piece::default(),
                        ..collected
                    };
                }
                Answer::Collected(collected)
            }
            Question::Apply(_) => unreachable!("begin and commit"),
            Question::Items(spans) => {
                let items = self.items(ledger, peer);
                let within = |span: &Span| {
                    items.iter().filter(|it| span.contains(it.document)).copied().collect()
                };
                Answer::Items(spans.iter().map(within).collect())
            }
            Question::Compare(theirs) => {
                // What is excluded and was not known is listed from now on.
                self.named.extend(theirs.iter().map(|vector| vector.document));
                self.compare(ledger, peer, &theirs)
            }
            Question::Hashes(spots) => {
                let common = |spot: &Spot| self.is_common(spot.chain.document, peer);
                let find = |spot: &Spot| self.find(ledger, *spot).filter(|_| common(spot));
                Answer::Hashes(spots.iter().map(find).collect())
            }
            Question::CollectFor(vectors) => {
                let (piece, more) = self.collect_for(ledger, peer, &vectors);
                Answer::Piece { piece, more }
            }
        }
    }

    fn local(&self, ledger: &Ledger, peer: Peer) -> Local {
        let marks = self.marks.get(&peer).cloned().unwrap_or_default();
        let states: Vec<u8> = (self.items(ledger, peer).iter())
            .flat_map(|item| [&item.document.0[..], &item.state].concat())
            .collect();
        Local {
            generation: self.generation,
            end: self.end(ledger),
            settled: !self.rules.blind && self.open.is_none(),
            mark: marks.mark,
            summary: Summary(hash(&[&states])),
            exclusions: list_digest(&self.exclusions(peer.0)),
            held: list_digest(&marks.list),
            parked: self.parked.iter().any(|parked| parked.peer == peer),
            agreed: marks.agreed,
            takes: !self.lends_to.contains(&peer.0),
            contained: marks.contained,
        }
    }

    /// The greatest number that may be sent.
    fn end(&self, ledger: &Ledger) -> u64 {
        if self.rules.watermark {
            return self.at.keys().map(|id| ledger.get(*id).time).max().unwrap_or(0);
        }
        self.open.as_ref().map_or(self.counter, |open| open.before)
    }

    fn collect(&mut self, ledger: &Ledger, peer: Peer, after: Option<u64>) -> Collected {
        let end = self.end(ledger);
        let from = after.or_else(|| Some(self.marks.get(&peer)?.theirs)).unwrap_or(0);
        let from = if end < from { 0 } else { from };
        let is_new = |number: u64, id: Id| {
            from < number
                && number <= end
                && self.at.get(&id).is_some_and(|at| self.received.get(at) != Some(&peer))
                && self.is_common(ledger.get(id).chain.document, peer)
        };
        let mut new: Vec<(u64, Id)> =
            self.at.keys().map(|id| (self.number(ledger, *id), *id)).collect();
        new.retain(|(number, id)| is_new(*number, *id));
        new.sort_unstable();
        let more = self.rules.piece_max < new.len();
        new.truncate(self.rules.piece_max);
        let mut through = if more { new.last().unwrap().0 } else { end };
        let refused = self.marks.get(&peer).is_some_and(|marks| marks.refused);
        if refused {
            new.clear();
            through = from;
        }

        let is_wanted = |store: &Self, id: Id| {
            let at = store.at[&id];
            from < store.number(ledger, id) && store.received.get(&at) != Some(&peer)
        };
        let mut first: Vec<Id> = new.iter().map(|(_, id)| *id).collect();
        first.extend(self.owed_to(ledger, peer).into_iter().filter(|_| !refused));
        let piece = self.close(ledger, first, is_wanted);
        self.witness = self.witness.max(through);
        let exclusions = self.exclusions(peer.0);
        let acknowledged = self.marks.get(&peer).map(|marks| marks.acknowledged);
        let held = acknowledged.unwrap_or_default() == list_digest(&exclusions);
        Collected {
            peer: Some(peer.1),
            local: self.local(ledger, peer),
            list: (!held).then_some(exclusions),
            bounds: Bounds { from, through, end },
            piece,
        }
    }

    /// The beginning of our branch, where the peer has not listed the document as excluded.
    fn owed_to(&self, ledger: &Ledger, peer: Peer) -> Vec<Id> {
        let unknown = |id: &Id| {
            let document = ledger.get(*id).chain.document;
            let list = self.marks.get(&peer).map_or(&[][..], |marks| &marks.list);
            self.at.contains_key(id)
                && !self.removed.contains(&document)
                && !self.outside.get(&peer.0).is_some_and(|it| it.contains(&document))
                && !list.contains(&self.exclusion(document, peer.0))
        };
        self.owed.iter().filter(|(to, id)| *to == peer && unknown(id)).map(|(_, id)| *id).collect()
    }

    fn collect_for(&mut self, ledger: &Ledger, peer: Peer, vectors: &[Vector]) -> (Piece, bool) {
        let mut has = BTreeMap::new();
        for vector in vectors {
            for Entry { log, actor, seq, .. } in &vector.entries {
                has.insert(Chain { document: vector.document, log: *log, actor: *actor }, *seq);
            }
        }
        let documents: BTreeSet<_> = vectors.iter().map(|vector| vector.document).collect();
        let lacks = |fact: &Fact| {
            documents.contains(&fact.chain.document)
                && has.get(&fact.chain).copied().unwrap_or(0) < fact.seq
        };
        let end = self.end(ledger);
        let mut new: Vec<Id> = (self.log.iter())
            .filter(|(number, id)| {
                let fact = ledger.get(**id);
                (self.rules.watermark || **number <= end)
                    && lacks(fact)
                    && self.is_common(fact.chain.document, peer)
            })
            .map(|(_, id)| *id)
            .collect();
        let more = self.rules.piece_max < new.len();
        new.truncate(self.rules.piece_max);
        (self.close(ledger, new, |_, id| lacks(ledger.get(id))), more)
    }

    /// Adds what the facts build on and what their chains need up to a statement, and encodes.
    fn close(
        &mut self,
        ledger: &Ledger,
        first: Vec<Id>,
        is_wanted: impl Fn(&Self, Id) -> bool,
    ) -> Piece {
        let documents = first.iter().map(|id| ledger.get(*id).chain.document).collect();
        self.sign(ledger, &documents, self.open.as_ref().map_or(u64::MAX, |open| open.before));
        let mut closed = BTreeSet::new();
        let mut waiting = first;
        while let Some(id) = waiting.pop() {
            if !closed.insert(id) {
                continue;
            }
            let fact = ledger.get(id);
            let past = fact.before.iter().chain(&fact.deps);
            waiting.extend(past.filter(|id| is_wanted(self, **id)));
            if !self.signed.contains(&id) {
                let next = self.chains[&fact.chain].get(fact.seq as usize);
                waiting.push(*next.expect("every chain that may be sent ends at a statement"));
            }
        }
        let highest = closed.iter().map(|id| self.at[id]).max();
        self.witness = self.witness.max(highest.unwrap_or(0));
        let statements = closed.iter().filter(|id| self.signed.contains(id));
        let bytes = if closed.is_empty() { Vec::new() } else { encode(&closed, statements) };
        Piece { bytes, changes: closed.len() as u64 }
    }

    /// Signs the newest of each own chain of these documents, and each multiple.
    fn sign(&mut self, ledger: &Ledger, documents: &BTreeSet<DocumentId>, end: u64) {
        let own = |chain: &Chain, ids: &[Id]| {
            documents.contains(&chain.document) && ledger.get(ids[0]).key == self.key
        };
        let mut signed = Vec::new();
        for ids in self.chains.iter().filter(|(chain, ids)| own(chain, ids)).map(|(_, ids)| ids) {
            let sendable = ids.iter().filter(|id| self.at[id] <= end);
            signed.extend(sendable.clone().copied().filter(|id| self.is_multiple(ledger, *id)));
            signed.extend(sendable.max());
        }
        for id in signed {
            self.keep_statement(ledger, id);
        }
    }

    /// Keeps the statements at the multiples and the newest.
    fn keep_statement(&mut self, ledger: &Ledger, id: Id) {
        let fact = ledger.get(id);
        let of_chain = self.chains[&fact.chain].iter().filter(|id| self.signed.contains(id));
        let newest = of_chain.max().copied();
        if newest.is_some_and(|newest| id < newest) {
            if self.is_multiple(ledger, id) {
                self.signed.insert(id);
            }
            return;
        }
        if let Some(newest) = newest
            && !self.is_multiple(ledger, newest)
        {
            self.signed.remove(&newest);
        }
        self.signed.insert(id);
    }

    fn is_multiple(&self, ledger: &Ledger, id: Id) -> bool {
        ledger.get(id).seq.is_multiple_of(self.rules.multiple)
    }

    fn number(&self, ledger: &Ledger, id: Id) -> u64 {
        if self.rules.watermark { ledger.get(id).time } else { self.at[&id] }
    }

    fn put(&mut self, ledger: &Ledger, id: Id, number: u64) {
        self.log.insert(number, id);
        self.at.insert(id, number);
        self.chains.entry(ledger.get(id).chain).or_default().push(id);
    }
}

// What is common, and how it is compared.
impl Store {
    fn is_excluded(&self, document: DocumentId, key: Key) -> bool {
        self.removed.contains(&document)
            || self.paused.contains(&document)
            || self.outside.get(&key).is_some_and(|outside| outside.contains(&document))
    }

    fn exclusions(&self, key: Key) -> Vec<Exclusion> {
        let excluded = self.named.iter().filter(|document| self.is_excluded(**document, key));
        let mut list: Vec<_> = excluded.map(|document| self.exclusion(*document, key)).collect();
        list.sort_unstable();
        list
    }

    /// Under a secret of the pair.
    fn exclusion(&self, document: DocumentId, key: Key) -> Exclusion {
        let pair = [self.key.min(key), self.key.max(key)];
        Exclusion(*hash(&[&pair, b"excluded", &document.0]).first_chunk().unwrap())
    }

    fn is_common(&self, document: DocumentId, peer: Peer) -> bool {
        let theirs = self.marks.get(&peer).map_or(&[][..], |marks| &marks.list);
        !self.is_excluded(document, peer.0) && !theirs.contains(&self.exclusion(document, peer.0))
    }

    /// The last fact of each chain of a document.
    pub(crate) fn tips(&self, document: DocumentId) -> BTreeMap<Chain, Id> {
        let first = Chain { document, log: Log::Changes, actor: ActorId([0; 16]) };
        let from = self.chains.range(first..);
        let of_document = from.take_while(|(chain, _)| chain.document == document);
        of_document.filter_map(|(chain, ids)| Some((*chain, *ids.last()?))).collect()
    }

    fn items(&self, ledger: &Ledger, peer: Peer) -> Vec<Item> {
        let common = self.named.iter().filter(|document| self.is_common(**document, peer));
        let item = |document: &DocumentId| {
            let tips = self.tips(*document);
            let heads: Vec<u8> = tips.values().flat_map(|tip| ledger.get(*tip).hash).collect();
            let state = *hash(&[&document.0, &heads]).first_chunk().unwrap();
            (!tips.is_empty()).then_some(Item { document: *document, state })
        };
        common.filter_map(item).collect()
    }

    fn compare(&self, ledger: &Ledger, peer: Peer, theirs: &[Vector]) -> Answer {
        let common = theirs.iter().filter(|vector| self.is_common(vector.document, peer));
        let mine = |vector: &Vector| {
            let tips = self.tips(vector.document);
            let entries = tips.values().map(|tip| ledger.entry(*tip)).collect();
            Vector { document: vector.document, entries }
        };
        let forks = common.clone().flat_map(|vector| {
            let spot = |entry: &Entry| {
                let chain = Chain { document: vector.document, log: entry.log, actor: entry.actor };
                let spot = Spot { chain, seq: entry.seq };
                let ours = self.find(ledger, spot)?;
                (ours != entry.hash).then_some(spot)
            };
            vector.entries.iter().filter_map(spot).collect::<Vec<_>>()
        });
        Answer::Compared { forks: forks.collect(), mine: common.map(mine).collect() }
    }

    fn find(&self, ledger: &Ledger, spot: Spot) -> Option<ShortHash> {
        let id = self.chains.get(&spot.chain)?.get(spot.seq as usize - 1)?;
        Some(short(ledger.get(*id)))
    }

    /// Whether two stores hold the same of a document.
    pub(crate) fn equals(&self, other: &Self, document: DocumentId) -> bool {
        self.tips(document) == other.tips(document)
    }

    /// Whether a document should be the same here and at another device.
    pub(crate) fn shares(&self, other: &Self, document: DocumentId) -> bool {
        !self.is_excluded(document, other.key) && !other.is_excluded(document, self.key)
    }

    /// Whether everything of a document that is here is at another device.
    pub(crate) fn is_within(&self, other: &Self, document: DocumentId) -> bool {
        let mut here = self.chains.iter().filter(|(chain, _)| chain.document == document);
        here.all(|(_, ids)| ids.iter().all(|id| other.at.contains_key(id)))
    }
}

/// A piece: how many facts, the facts, and those of them with statements.
fn encode<'a>(facts: &'a BTreeSet<Id>, statements: impl Iterator<Item = &'a Id>) -> Vec<u8> {
    let mut bytes = u32::try_from(facts.len()).unwrap().to_be_bytes().to_vec();
    facts.iter().chain(statements).for_each(|id| bytes.extend(id.to_be_bytes()));
    bytes
}

fn decode(piece: &[u8]) -> (Vec<Id>, BTreeSet<Id>) {
    let mut numbers = piece.chunks_exact(4).map(|id| Id::from_be_bytes(id.try_into().unwrap()));
    let count = numbers.next().unwrap_or(0) as usize;
    (numbers.by_ref().take(count).collect(), numbers.collect())
}

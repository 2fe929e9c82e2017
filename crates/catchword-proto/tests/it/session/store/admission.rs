//! What came is made durable: what counts, what is parked, what proves a fork.

use super::*;

/// Facts that may count, each with whether a statement came with it.
type Candidates = BTreeMap<Id, (bool, Peer)>;

impl Store {
    /// Keeps what was heard and takes the numbers for what came. One transaction.
    pub(crate) fn begin(&mut self, ledger: &Ledger, peer: Peer, mut apply: Apply) {
        self.last.insert(peer.0, peer.1);
        let generation = self.generation;
        let marks = self.marks.entry(peer).or_default();
        let mut forget = false;
        if let Some(Heard { built_for, list, held, mark, agreed, takes }) = apply.heard.take() {
            marks.refused = !takes;
            marks.list = list.unwrap_or(std::mem::take(&mut marks.list));
            if built_for == generation {
                marks.acknowledged = held;
                marks.theirs = mark.unwrap_or(marks.theirs);
                forget = agreed;
            } else {
                apply.bounds = None;
            }
        }
        if forget {
            self.forget(peer);
        }
        if self.lends_to.contains(&peer.0) {
            apply = Apply { heard: None, piece: Vec::new(), bounds: None };
        }
        let (facts, _) = decode(&apply.piece);
        self.named.extend(facts.iter().map(|id| ledger.get(*id).chain.document));
        let before = self.counter;
        self.counter += (facts.len() + self.parked.len()) as u64;
        self.open = Some(Open { before, after: self.counter, peer, apply });
    }

    /// Applies what came, a document in each transaction; the mark moves in the last.
    ///
    /// The process is killed after so many transactions, if there are more. `drawn` are random bits
    /// for a new generation, should one be needed.
    pub(crate) fn commit(
        &mut self,
        ledger: &Ledger,
        transactions_max: usize,
        drawn: u64,
    ) -> Committed {
        let Open { before, after, peer, apply } = self.open.take().unwrap();
        let (facts, statements) = decode(&apply.piece);
        let received = facts.len() as u64;
        let mut documents: BTreeMap<DocumentId, Candidates> = BTreeMap::new();
        for id in facts {
            let document = ledger.get(id).chain.document;
            if !self.is_excluded(document, peer.0) {
                let signed = statements.contains(&id);
                documents.entry(document).or_default().insert(id, (signed, peer));
            }
        }
        let (mut number, mut forks, mut own) = (before, 0, false);
        let mut added = 0;
        for (done, (document, candidates)) in documents.into_iter().enumerate() {
            if transactions_max <= done {
                let applied = self.applied(ledger, peer, (before, after), (received, added));
                return Committed { applied, forks, parked: self.parked.len() };
            }
            let (new, fork) = self.admit(ledger, document, candidates, &mut number);
            added += new;
            forks += usize::from(fork.is_some());
            own |= fork.is_some_and(|key| key == self.key);
        }
        if let Some(bounds) = apply.bounds {
            self.move_mark(peer, bounds);
        }
        if own {
            self.renew(drawn);
        }
        let applied = self.applied(ledger, peer, (before, after), (received, added));
        Committed { applied, forks, parked: self.parked.len() }
    }

    fn applied(
        &self,
        ledger: &Ledger,
        peer: Peer,
        (before, after): (u64, u64),
        (received, added): (u64, u64),
    ) -> Applied {
        let local = self.local(ledger, peer);
        Applied { local, before, after, received, added, refused: 0 }
    }

    fn move_mark(&mut self, peer: Peer, bounds: Bounds) {
        let mark = &mut self.marks.entry(peer).or_default().mark;
        let counts = if *mark <= bounds.end { *mark } else { 0 };
        if bounds.from <= counts {
            *mark = counts.max(bounds.through);
        }
    }

    /// Takes what was sent for received, until the peer says otherwise.
    pub(crate) fn sent(&mut self, peer: Peer, through: u64) {
        self.marks.entry(peer).or_default().theirs = through;
    }

    /// Says that both hold the same, or not.
    pub(crate) fn compared(&mut self, peer: Peer, equal: bool) {
        self.marks.entry(peer).or_default().agreed = equal;
        if equal {
            self.forget(peer);
        }
    }

    /// Remembers what the peer, or this device, lacked nothing of.
    pub(crate) fn contained(&mut self, peer: Peer, summary: Summary) {
        self.marks.entry(peer).or_default().contained = Some(summary);
    }

    /// Both hold the same: what still waits, waits for nothing.
    fn forget(&mut self, peer: Peer) {
        self.parked.retain(|parked| parked.peer != peer);
        self.owed.retain(|(to, _)| *to != peer);
    }

    /// One transaction of one document. Returns how many facts are new, and whose key forked.
    fn admit(
        &mut self,
        ledger: &Ledger,
        document: DocumentId,
        mut candidates: Candidates,
        number: &mut u64,
    ) -> (u64, Option<Key>) {
        let of_document = |parked: &Parked| ledger.get(parked.id).chain.document == document;
        for parked in self.parked.iter().filter(|parked| of_document(parked)) {
            // Whoever brought it first is who has it.
            let (signed, peer) = candidates.entry(parked.id).or_insert((false, parked.peer));
            (*signed, *peer) = (*signed || parked.signed, parked.peer);
        }
        self.parked.retain(|parked| !of_document(parked));

        let counting = self.counting(ledger, &candidates);
        for id in &counting {
            *number += 1;
            self.put(ledger, *id, *number);
            self.received.insert(*number, candidates[id].1);
        }
        for (id, (signed, _)) in &candidates {
            if *signed && self.at.contains_key(id) {
                self.keep_statement(ledger, *id);
            }
        }
        if let Some((beside, brought)) = self.fork(ledger, &candidates) {
            self.paused.insert(document);
            self.owed.insert((brought, beside));
            return (counting.len() as u64, Some(ledger.get(beside).key));
        }
        for (id, (signed, peer)) in candidates {
            if !self.at.contains_key(&id) {
                self.park(ledger, document, Parked { id, signed, peer });
            }
        }
        (counting.len() as u64, None)
    }

    /// Returns what has a statement above it and everything below it, in the order of making.
    ///
    /// Of two branches that both wait, one may lack what it builds on: then the other is tried.
    fn counting(&self, ledger: &Ledger, candidates: &Candidates) -> BTreeSet<Id> {
        let mut without = BTreeSet::new();
        loop {
            let counting = self.counting_without(ledger, candidates, &without);
            let waits = |id: &&Id| !counting.contains(id) && !self.at.contains_key(id);
            let waiting: Vec<&Id> = candidates.keys().filter(waits).collect();
            let beside = |id: &Id, other: &Id| {
                let [one, two] = [id, other].map(|id| ledger.get(*id));
                id < other && (one.chain, one.before) == (two.chain, two.before)
            };
            let failed = waiting.iter().find(|id| {
                !without.contains(**id) && waiting.iter().any(|other| beside(id, other))
            });
            let Some(failed) = failed else { return counting };
            without.insert(**failed);
        }
    }

    fn counting_without(
        &self,
        ledger: &Ledger,
        candidates: &Candidates,
        without: &BTreeSet<Id>,
    ) -> BTreeSet<Id> {
        let mut runs: BTreeMap<Chain, Vec<Id>> = BTreeMap::new();
        let new = |id: &&Id| !self.at.contains_key(id) && !without.contains(id);
        for id in candidates.keys().filter(new) {
            let fact = ledger.get(*id);
            let run = runs.entry(fact.chain).or_default();
            let here = self.chains.get(&fact.chain).and_then(|ids| ids.last());
            if run.last().or(here).copied() == fact.before {
                run.push(*id);
            }
        }
        loop {
            let counting: BTreeSet<Id> = runs.values().flatten().copied().collect();
            let stands = |id: &Id| {
                let fact = ledger.get(*id);
                let mut past = fact.before.iter().chain(&fact.deps);
                past.all(|id| self.at.contains_key(id) || counting.contains(id))
            };
            let mut same = true;
            for run in runs.values_mut() {
                let standing = run.iter().take_while(|id| stands(id)).count();
                let signed = run[..standing].iter().rposition(|id| candidates[id].0);
                let length = signed.map_or(0, |at| at + 1);
                same &= length == run.len();
                run.truncate(length);
            }
            if same {
                return counting;
            }
        }
    }

    /// Returns a fact of ours beside which another one stands behind a common one, with a statement
    /// above it, and who brought that.
    fn fork(&self, ledger: &Ledger, candidates: &Candidates) -> Option<(Id, Peer)> {
        candidates.iter().find_map(|(id, (_, peer))| {
            let fact = ledger.get(*id);
            let beside = *self.chains.get(&fact.chain)?.get(fact.seq as usize - 1)?;
            let forks = beside != *id && ledger.get(beside).before == fact.before;
            (forks && is_covered(ledger, candidates, *id)).then_some((beside, *peer))
        })
    }

    fn park(&mut self, ledger: &Ledger, document: DocumentId, parked: Parked) {
        let of_both = |other: &Parked| {
            ledger.get(other.id).chain.document == document && other.peer == parked.peer
        };
        let count = self.parked.iter().filter(|other| of_both(other)).count();
        if self.rules.parked_max <= count {
            let oldest = self.parked.iter().position(of_both).unwrap();
            self.parked.remove(oldest);
        }
        self.parked.push(parked);
    }
}

/// Whether a statement covers a candidate through the candidates that follow it.
fn is_covered(ledger: &Ledger, candidates: &Candidates, id: Id) -> bool {
    let mut above = BTreeSet::from([id]);
    let mut covered = candidates[&id].0;
    for (next, (signed, _)) in candidates.range(id + 1..) {
        if ledger.get(*next).before.is_some_and(|before| above.contains(&before)) {
            above.insert(*next);
            covered |= signed;
        }
    }
    covered
}

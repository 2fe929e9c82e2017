//! The third phase of a requester: what each side lacks of the documents that differ.
//!
//! ```text
//!  next documents -> compare -> POST /vectors -> compare with the answer -> collect what they lack
//!        ^                                                                        v
//!        +-- halve forks <-------------- POST /changes <------- apply what came --+
//! ```
//!
//! What the responder lacks is collected before its own changes are applied: applying may show that
//! a chain has two histories, which pauses the document, and the responder must see both as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use catchword_model::id::DocumentId;

use crate::session::forks::{Floor, Halving};
use crate::session::message::{
    ChangesRequest, ChangesResponse, FORKS_MAX, Header, VECTORS_MAX, VectorsRequest,
    VectorsResponse,
};
use crate::session::requester::Way;
use crate::session::{
    Answer, Applied, Apply, Chain, Entry, Log, Path, Piece, Question, Spot, Vector, Violation,
};

/// What the requester is to do next.
#[derive(Debug)]
pub(crate) enum Step {
    Ask(Question),
    Send(Path, Vec<u8>),
    /// Every document was gone through.
    Done,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Mend {
    header: Header,
    way: Way,
    waiting: VecDeque<DocumentId>,
    batch: Vec<DocumentId>,
    /// Chains that fork, and how far they do not.
    floors: BTreeMap<Chain, Floor>,
    stage: Stage,
    /// Whether anything was added on either side for the present batch.
    progress: bool,
    pub(crate) tally: Tally,
}

/// What was done so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) added: u64,
    /// What was added on the other side.
    pub(crate) added_there: u64,
    /// Whether one side lacks nothing of what a side holds that takes nothing.
    pub(crate) contained: bool,
    pub(crate) forks: Vec<Spot>,
}

#[derive(Debug)]
enum Stage {
    Comparing,
    Asking,
    Judging(VectorsResponse),
    Collecting { piece: Vec<u8>, rest: Rest },
    Applying { piece: Piece, rest: Rest },
    Sending { rest: Rest },
    Looking(Halving),
    Probing(Halving),
}

/// What remains to be done for a batch after what was exchanged.
#[derive(Debug)]
struct Rest {
    more: bool,
    forks: Vec<Spot>,
}

impl Mend {
    pub(crate) fn new(header: Header, way: Way, documents: BTreeSet<DocumentId>) -> Self {
        Self {
            header,
            way,
            waiting: documents.into_iter().collect(),
            batch: Vec::new(),
            floors: BTreeMap::new(),
            stage: Stage::Comparing,
            progress: false,
            tally: Tally { contained: way.is_one(), ..Tally::default() },
        }
    }

    /// Goes on with the next documents.
    pub(crate) fn next_batch(&mut self) -> Step {
        let count = self.waiting.len().min(VECTORS_MAX);
        if count == 0 {
            return Step::Done;
        }
        self.batch = self.waiting.drain(..count).collect();
        self.batch.sort();
        self.progress = false;
        self.stage = Stage::Comparing;
        let empty = |document: &DocumentId| Vector { document: *document, entries: Vec::new() };
        Step::Ask(Question::Compare(self.batch.iter().map(empty).collect()))
    }

    /// Takes what the store answers; `None`: it answers something that was not asked.
    pub(crate) fn answer(&mut self, answer: Answer) -> Option<Step> {
        let stage = std::mem::replace(&mut self.stage, Stage::Comparing);
        match (stage, answer) {
            (Stage::Comparing, Answer::Compared { mut mine, .. }) => {
                self.lower(&mut mine);
                Some(self.send_vectors(mine))
            }
            (Stage::Judging(response), Answer::Compared { mine, forks }) => {
                self.tally.contained &= forks.is_empty() && self.is_contained(&mine, &response);
                Some(self.collect(response, forks))
            }
            (Stage::Collecting { piece: theirs, mut rest }, Answer::Piece { piece, more }) => {
                rest.more |= more;
                if theirs.is_empty() {
                    return Some(self.send_changes(piece, rest));
                }
                self.stage = Stage::Applying { piece, rest };
                let apply = Apply { heard: None, piece: theirs, bounds: None };
                Some(Step::Ask(Question::Apply(apply)))
            }
            (Stage::Applying { piece, rest }, Answer::Applied(Applied { received, added, .. })) => {
                self.tally.received += received;
                self.tally.added += added;
                self.progress |= 0 < added;
                Some(self.send_changes(piece, rest))
            }
            (Stage::Looking(mut halving), Answer::Hashes(mine)) => {
                let probes = halving.probes(&mine);
                if probes.is_empty() {
                    return Some(self.found_forks(&halving));
                }
                self.stage = Stage::Probing(halving);
                let request = VectorsRequest { header: self.header, vectors: Vec::new(), probes };
                Some(Step::Send(Path::Vectors, request.encode()))
            }
            _ => None,
        }
    }

    /// Takes the response to what was sent last: changes, probes, or else vectors.
    pub(crate) fn response(&mut self, body: &[u8]) -> Result<Response, Violation> {
        let stage = std::mem::replace(&mut self.stage, Stage::Comparing);
        if let Stage::Sending { rest } = stage {
            let (header, response) = ChangesResponse::decode(body)?;
            let response = response.filter(|_| header.takes == self.way.out);
            let Some(response) = response else { return Ok(Response::Alone(header)) };
            self.tally.added_there += response.added;
            self.progress |= 0 < response.added;
            return Ok(Response::Step(self.settle(rest)));
        }
        let (header, response) = VectorsResponse::decode(body)?;
        let response = response.filter(|_| header.takes == self.way.out);
        let Some(response) = response else { return Ok(Response::Alone(header)) };
        if let Stage::Probing(mut halving) = stage {
            halving.agreements(&response.agreements)?;
            return Ok(Response::Step(self.look(halving)));
        }
        let asked = |vector: &Vector| self.batch.contains(&vector.document);
        let forked = |spot: &Spot| self.batch.contains(&spot.chain.document);
        if !response.vectors.iter().all(asked) || !response.forks.iter().all(forked) {
            return Err(Violation::Unasked);
        }
        let step = Step::Ask(Question::Compare(response.vectors.clone()));
        self.stage = Stage::Judging(response);
        Ok(Response::Step(step))
    }

    /// Says of a chain that forks only what is agreed, so that the responder sends its branch.
    fn lower(&self, vectors: &mut [Vector]) {
        for vector in vectors {
            let document = vector.document;
            vector.entries.retain_mut(|entry| {
                let chain = Chain { document, log: entry.log, actor: entry.actor };
                match self.floors.get(&chain) {
                    None => true,
                    Some(None) => false,
                    Some(Some((seq, hash))) => {
                        (entry.seq, entry.hash) = (*seq, *hash);
                        true
                    }
                }
            });
        }
    }

    fn send_vectors(&mut self, vectors: Vec<Vector>) -> Step {
        self.stage = Stage::Asking;
        let request = VectorsRequest { header: self.header, vectors, probes: Vec::new() };
        Step::Send(Path::Vectors, request.encode())
    }

    fn collect(&mut self, response: VectorsResponse, mut forks: Vec<Spot>) -> Step {
        let VectorsResponse { mut vectors, forks: theirs, more, piece, .. } = response;
        forks.extend(theirs);
        forks.retain(|spot| !self.floors.contains_key(&spot.chain));
        forks.truncate(FORKS_MAX);
        self.lower(&mut vectors);
        leave_out(&mut vectors, &forks);
        let rest = Rest { more, forks };
        let piece = if self.way.back { piece } else { Vec::new() };
        if self.way.out {
            self.stage = Stage::Collecting { piece, rest };
            return Step::Ask(Question::CollectFor(vectors));
        }
        if piece.is_empty() {
            return self.settle(rest);
        }
        self.stage = Stage::Applying { piece: Piece::default(), rest };
        Step::Ask(Question::Apply(Apply { heard: None, piece, bounds: None }))
    }

    /// Whether one side has all that the other one has of every document of the batch, where changes go
    /// one way.
    fn is_contained(&self, mine: &[Vector], response: &VectorsResponse) -> bool {
        let theirs = response.vectors.as_slice();
        let (lender, taker) = if self.way.out { (mine, theirs) } else { (theirs, mine) };
        let all = |list: &[Vector]| {
            self.batch.iter().all(|document| list.iter().any(|it| it.document == *document))
        };
        let has = |vector: &Vector, entry: &Entry| {
            let of_document = taker.iter().find(|other| other.document == vector.document);
            let mut entries = of_document.into_iter().flat_map(|other| &other.entries);
            let same = |other: &Entry| (other.log, other.actor) == (entry.log, entry.actor);
            entries.any(|other| same(other) && entry.seq <= other.seq)
        };
        // What does not count is not lent: whoever has what counts lacks nothing.
        let counts = |entry: &&Entry| entry.log != Log::Void;
        let holds =
            |vector: &Vector| vector.entries.iter().filter(counts).all(|entry| has(vector, entry));
        response.forks.is_empty() && all(mine) && all(theirs) && lender.iter().all(holds)
    }

    fn send_changes(&mut self, piece: Piece, rest: Rest) -> Step {
        if piece.bytes.is_empty() {
            return self.settle(rest);
        }
        self.tally.sent += piece.changes;
        self.stage = Stage::Sending { rest };
        let request = ChangesRequest { header: self.header, piece: piece.bytes };
        Step::Send(Path::Changes, request.encode())
    }

    /// Repeats a batch only where that can help, so that the search for an end has one.
    fn settle(&mut self, rest: Rest) -> Step {
        if rest.more && self.progress {
            self.waiting.extend(self.batch.drain(..));
        }
        if rest.forks.is_empty() {
            return self.next_batch();
        }
        self.look(Halving::new(rest.forks))
    }

    fn look(&mut self, halving: Halving) -> Step {
        let spots = halving.spots();
        if spots.is_empty() {
            return self.found_forks(&halving);
        }
        self.stage = Stage::Looking(halving);
        Step::Ask(Question::Hashes(spots))
    }

    /// Goes through the documents that fork once more: now both sides send their branches.
    fn found_forks(&mut self, halving: &Halving) -> Step {
        for (spot, floor) in halving.floors() {
            self.floors.insert(spot.chain, floor);
            self.tally.forks.push(spot);
            if !self.waiting.contains(&spot.chain.document) {
                self.waiting.push_front(spot.chain.document);
            }
        }
        self.next_batch()
    }
}

/// What a response leads to.
#[derive(Debug)]
pub(crate) enum Response {
    Step(Step),
    /// The responder has another generation than was named, or has begun or ceased to lend.
    Alone(Header),
}

/// Marks the chains of these spots as not wanted.
pub(crate) fn leave_out(vectors: &mut [Vector], forks: &[Spot]) {
    for vector in vectors {
        let forked = |entry: &Entry| {
            let chain = Chain { document: vector.document, log: entry.log, actor: entry.actor };
            forks.iter().any(|spot| spot.chain == chain)
        };
        vector.entries.iter_mut().filter(|entry| forked(entry)).for_each(|it| it.seq = u32::MAX);
    }
}

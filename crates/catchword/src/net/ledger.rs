//! What a session asks of the store, towards one peer: the words of the protocol, and those of the
//! store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use catchword_model::exchange::{Reach, Signed, Vector as StoredVector, prefix_of};
use catchword_model::id::{BookId, DocumentId, Generation};
use catchword_model::identity::Fingerprint;
use catchword_proto::mac::MacKey;
use catchword_proto::secret::PairSecret;
use catchword_proto::session::{
    Answer, Applied, Apply, Bounds, Chain, Collected, Entry, Exclusion, Item, ListDigest, Local,
    Log, Piece, Question, Span, Spot, Summary, Vector,
};
use catchword_proto::trust::{PeerRecord, PeerScope};
use catchword_store::{
    AppendError, ApplyError, CollectError, Delivery, Exclusions, Given, LoadError, Origin, Peer,
    Said, Scope, Store, VOID_BRANCHES_MAX,
};

use tokio::sync::oneshot;

use crate::error::EditError;
use crate::event::Event;
use crate::keys::{DEVICE_KEY, DeviceKey};
use crate::library::{Core, Library};
use crate::net::desk::Desk;
use crate::net::status::Met;

/// A generation that nobody has: for a peer that was never met.
const NOBODY: Generation = Generation([0; 16]);

/// What all ledgers of a node share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered {
    /// Up to which local sequence each peer was answered since this process started. It says in its
    /// next message how far it came, and until then nothing is sent twice.
    through: Arc<Mutex<BTreeMap<Origin, u64>>>,
    /// Where one of both takes nothing: what that one held when the other last lacked nothing of it.
    contained: Arc<Mutex<BTreeMap<Origin, Summary>>>,
    desk: Arc<Desk>,
}

/// The store, towards one peer.
pub(crate) struct Ledger {
    library: Library,
    peer: Fingerprint,
    /// Names what is excluded, between the two.
    key: MacKey,
    scope: Scope,
    /// Whether anything is taken from the peer.
    takes: bool,
    answered: Answered,
    /// What will be asked for next, made while the peer is at work on what it has.
    next: Mutex<Option<Next>>,
    /// What the last piece was closed with, and up to where it went.
    given: Mutex<Option<(u64, Given)>>,
    /// Books that have something new since this was made.
    changed: Mutex<BTreeSet<BookId>>,
}

/// A piece that was made before it is asked for.
struct Next {
    origin: Origin,
    after: u64,
    /// What either side excluded when it was made.
    excluded: [[u8; 8]; 2],
    found: catchword_store::Collected,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The store could not answer.
#[derive(Debug, thiserror::Error)]
enum Unable {
    #[error(transparent)]
    Read(#[from] LoadError),
    #[error(transparent)]
    Write(#[from] AppendError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error("the device's key is missing")]
    NoKey,
}

impl Ledger {
    /// Makes the ledger of a peer.
    pub(crate) fn new(
        library: &Library,
        record: &PeerRecord,
        secret: &PairSecret,
        answered: &Answered,
    ) -> Self {
        Self {
            library: library.clone(),
            peer: record.fingerprint,
            key: MacKey::derive(secret, &[b"catchword/disc/v1"]),
            scope: scope(library, &record.scope),
            takes: !record.is_read_only,
            answered: answered.clone(),
            next: Mutex::default(),
            given: Mutex::default(),
            changed: Mutex::default(),
        }
    }

    /// Returns the wall clock, in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.core().now_ms()
    }

    /// Returns which books have something new since this was made.
    pub(crate) fn books_changed(&self) -> BTreeSet<BookId> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps how a comparison ended.
    pub(crate) async fn compared(self: &Arc<Self>, generation: Generation, equal: bool) {
        let (sender, receiver) = oneshot::channel();
        let ledger = Arc::clone(self);
        self.answered.desk.put(move || {
            ledger.keep_comparison(generation, equal);
            let _gone = sender.send(());
        });
        // What could not be kept is compared again.
        let _kept = receiver.await;
    }

    fn keep_comparison(&self, generation: Generation, equal: bool) {
        // What could not be kept is compared again.
        let _kept = self.towards(Some(generation), |peer| -> Result<(), Unable> {
            let heard = self.store().local(peer)?.heard;
            let heard = catchword_store::Heard { agreed: equal, ..heard };
            self.store().hear(peer.origin, &Said { heard, exclusions: None })?;
            if equal {
                self.store().drop_parked(self.peer)?;
            }
            Ok(())
        });
    }

    /// Returns what is known of the peer since it was met in this generation.
    pub(crate) fn met(&self, generation: Generation) -> Result<Met, EditError> {
        self.towards(Some(generation), |peer| {
            let local = self.store().local(peer).map_err(EditError::store)?;
            let answered = self.answered().get(&peer.origin).copied().unwrap_or_default();
            let after = local.heard.given.max(answered);
            let mut standing = self.store().standing(peer, after).map_err(EditError::store)?;
            if local.heard.refuses {
                standing.unsent.clear();
            }
            let outside = match &self.scope {
                Scope::All => BTreeSet::new(),
                Scope::Books(within) => {
                    let books = self.store().books().map_err(EditError::load)?;
                    let books = books.into_iter().map(|summary| summary.book);
                    books.filter(|book| !within.contains(book)).collect()
                }
            };
            let heard = local.heard;
            Ok(Met { standing, outside, agreed: heard.agreed, refuses: heard.refuses })
        })
    }

    /// Returns whether the peer gets this book.
    pub(crate) async fn gives(self: &Arc<Self>, book: BookId) -> bool {
        self.ask(move |ledger, peer| ledger.store().exchanges(peer, book)).await
    }

    /// Returns whether the peer gets this book, and takes what is new in it.
    pub(crate) async fn keeps(self: &Arc<Self>, book: BookId) -> bool {
        let refuses = |ledger: &Self, peer: &Peer<'_>| -> Result<bool, AppendError> {
            Ok(!ledger.store().local(peer)?.heard.refuses)
        };
        self.gives(book).await && self.ask(refuses).await
    }

    /// Asks the store something about the peer in its last known generation; what it cannot say is no.
    async fn ask<E: From<LoadError>>(
        self: &Arc<Self>,
        question: impl FnOnce(&Self, &Peer<'_>) -> Result<bool, E> + Send + 'static,
    ) -> bool {
        let (sender, receiver) = oneshot::channel();
        let ledger = Arc::clone(self);
        self.answered.desk.put(move || {
            let known = ledger.store().peer_generation(ledger.peer).map_err(E::from);
            let said = known.and_then(|known| ledger.towards(known, |it| question(&ledger, it)));
            let _gone = sender.send(said.unwrap_or(false));
        });
        receiver.await.unwrap_or(false)
    }

    /// Remembers that a response says everything up to this local sequence.
    pub(crate) fn sent(&self, generation: Generation, through: u64) {
        self.answered().insert(self.origin(generation), through);
    }

    /// Remembers what one side holds that takes nothing, and of which the other lacks nothing.
    pub(crate) fn contains(&self, generation: Generation, summary: Summary) {
        self.contained().insert(self.origin(generation), summary);
    }

    fn contained(&self) -> std::sync::MutexGuard<'_, BTreeMap<Origin, Summary>> {
        self.answered.contained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) -> std::sync::MutexGuard<'_, BTreeMap<Origin, u64>> {
        self.answered.through.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a question about a generation of the peer; `None`: the one it was met in last.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        generation: Option<Generation>,
        question: Question,
    ) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let ledger = Arc::clone(self);
        self.answered.desk.put(move || {
            let answer = ledger.try_answer(generation, question).unwrap_or(Answer::Failed);
            let mut next = None;
            if let Answer::Collected(Collected { peer: Some(peer), bounds, .. }) = &answer {
                next = bounds.more().then_some((*peer, bounds.through));
            }
            let _gone = sender.send(answer);
            // While the other side makes this piece durable, the next one is made here.
            if let Some((peer, through)) = next {
                ledger.prepare(peer, through);
            }
        });
        receiver.await.unwrap_or(Answer::Failed)
    }

    fn try_answer(
        &self,
        generation: Option<Generation>,
        question: Question,
    ) -> Result<Answer, Unable> {
        let known = match generation {
            Some(generation) => Some(generation),
            None => self.store().peer_generation(self.peer)?,
        };
        self.towards(known, |peer| {
            Ok(match question {
                Question::Local => Answer::Local(self.local(peer)?),
                Question::Collect { after } => {
                    Answer::Collected(self.collect(peer, known.is_some(), after)?)
                }
                Question::Apply(apply) => Answer::Applied(self.apply(peer, apply)?),
                Question::Items(spans) => Answer::Items(self.items(peer, &spans)?),
                Question::Compare(theirs) => self.compare(peer, &theirs)?,
                Question::Hashes(spots) => Answer::Hashes(self.hashes(peer, &spots)?),
                Question::CollectFor(vectors) => {
                    let wanted: Vec<_> = vectors.iter().map(to_store).collect();
                    let found = self.store().collect_for(peer, &wanted, &self.signer()?)?;
                    let changes = found.changes + found.events;
                    let bytes = if changes == 0 { Vec::new() } else { found.piece };
                    Answer::Piece { piece: Piece { bytes, changes }, more: found.more }
                }
            })
        })
    }

    /// Does something towards a generation of the peer; `None`: it was never met.
    fn towards<T>(&self, generation: Option<Generation>, work: impl FnOnce(&Peer<'_>) -> T) -> T {
        let mac = |id: DocumentId| self.mac(id);
        work(&Peer {
            origin: self.origin(generation.unwrap_or(NOBODY)),
            scope: &self.scope,
            mac: &mac,
            now_ms: self.now_ms(),
        })
    }

    fn core(&self) -> &Core {
        self.library.core()
    }

    fn store(&self) -> &Store {
        &self.core().store
    }

    fn origin(&self, generation: Generation) -> Origin {
        Origin { peer: self.peer, generation }
    }

    fn mac(&self, document: DocumentId) -> [u8; 8] {
        let tag = self.key.tag(&[b"excluded", &document.0]);
        tag.first_chunk().copied().unwrap_or_default()
    }

    fn signer(&self) -> Result<DeviceKey, Unable> {
        let secret = self.core().keys.load(DEVICE_KEY).ok().flatten();
        secret.map(|secret| DeviceKey::new(&secret)).ok_or(Unable::NoKey)
    }

    fn local(&self, peer: &Peer<'_>) -> Result<Local, Unable> {
        let local = self.store().local(peer)?;
        Ok(Local {
            generation: local.generation,
            end: local.end,
            settled: true,
            mark: local.mark,
            summary: Summary(local.fingerprint),
            exclusions: ListDigest(local.exclusions),
            held: ListDigest(local.held),
            parked: local.parked,
            agreed: local.heard.agreed,
            takes: self.takes,
            contained: self.contained().get(&peer.origin).copied(),
        })
    }

    fn collect(
        &self,
        peer: &Peer<'_>,
        known: bool,
        after: Option<u64>,
    ) -> Result<Collected, Unable> {
        self.core().publish_all();
        let now = self.store().local(peer)?;
        let heard = now.heard;
        let excluded = self.store().exclusions(peer)?;
        let held = excluded.digest() == heard.holds;
        let list = excluded.macs.into_iter().map(Exclusion).collect();
        let list = (!held).then_some(list);
        if !known {
            let (bounds, piece) = (Bounds::default(), Piece::default());
            return Ok(Collected { peer: None, local: self.local(peer)?, list, bounds, piece });
        }
        let answered = self.answered().get(&peer.origin).copied();
        let after = after.or(answered).unwrap_or(heard.given);
        if heard.refuses {
            let from = if now.end < after { 0 } else { after };
            let bounds = Bounds { from, through: from, end: now.end };
            let (peer_generation, local) = (Some(peer.origin.generation), self.local(peer)?);
            let piece = Piece::default();
            return Ok(Collected { peer: peer_generation, local, list, bounds, piece });
        }
        let prepared = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let prepared = prepared.filter(|next| {
            let made_for = (next.origin, next.after, next.excluded, next.found.bounds.end);
            made_for == (peer.origin, after, [now.exclusions, now.held], now.end)
        });
        let found = match prepared {
            Some(next) => next.found,
            None => self.store().collect(peer, after, &self.signer()?)?,
        };
        let given = (found.bounds.through, found.given);
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
        let local = self.local(peer)?;
        // What was made meanwhile is for the next sync: the summary then covers more than is sent.
        let catchword_store::Bounds { from, through, end } = found.bounds;
        let bounds = Bounds { from, through, end };
        let changes = found.changes + found.events;
        let local = Local { end, settled: local.end == end, ..local };
        let piece = Piece { bytes: if changes == 0 { Vec::new() } else { found.piece }, changes };
        let generation = Some(peer.origin.generation);
        Ok(Collected { peer: generation, local, list, bounds, piece })
    }

    /// Makes the piece that is asked for next, if everything goes on as it is.
    fn prepare(&self, generation: Generation, after: u64) {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner).take();
        let given = given.filter(|(through, _)| *through == after);
        let given = given.map(|(_, given)| given).unwrap_or_default();
        let made = self.towards(Some(generation), |peer| -> Result<_, Unable> {
            let now = self.store().local(peer)?;
            let found = self.store().collect_next(peer, after, &given, &self.signer()?)?;
            Ok(Next { origin: peer.origin, after, excluded: [now.exclusions, now.held], found })
        });
        // What fails now is tried again when it is asked for.
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = made.ok();
    }

    fn apply(&self, peer: &Peer<'_>, mut apply: Apply) -> Result<Applied, Unable> {
        let own = self.store().local(peer)?;
        if !self.takes {
            (apply.piece, apply.bounds) = (Vec::new(), None);
        }
        let for_us = apply.heard.as_ref().is_none_or(|heard| heard.built_for == own.generation);
        let said = apply.heard.map(|heard| {
            let macs = |list: Vec<Exclusion>| list.into_iter().map(|mac| mac.0).collect();
            let exclusions = heard.list.map(|list| Exclusions { macs: macs(list) });
            let mut said = own.heard;
            if for_us {
                said.holds = heard.held.0;
                said.given = heard.mark.unwrap_or(said.given);
            }
            said.refuses = !heard.takes;
            if heard.mark.is_some() {
                self.answered().remove(&peer.origin);
            }
            (Said { heard: said, exclusions }, heard.agreed)
        });
        if said.as_ref().is_some_and(|(_, agreed)| *agreed) {
            self.store().drop_parked(self.peer)?;
        }
        let said = said.as_ref().map(|(said, _)| said);
        let bounds = apply.bounds.filter(|_| for_us);
        let bounds = bounds.map(|Bounds { from, through, end }| catchword_store::Bounds {
            from,
            through,
            end,
        });
        let before = own.end;
        let moves =
            |bounds: catchword_store::Bounds| own.mark < bounds.through || bounds.end < own.mark;
        if apply.piece.is_empty() && !bounds.is_some_and(moves) {
            if let Some(said) = said {
                self.store().hear(peer.origin, said)?;
            }
            let local = self.local(peer)?;
            let after = local.end;
            return Ok(Applied { local, before, after, received: 0, added: 0, refused: 0 });
        }
        let applied = self.deliver(peer, &apply.piece, bounds, said)?;
        self.tell(&applied.documents);
        let local = self.local(peer)?;
        let received = applied.fates.len() as u64 + applied.refused.len() as u64;
        Ok(Applied {
            before,
            after: local.end,
            local,
            received,
            added: applied.changes_added + applied.events_added + applied.void,
            refused: applied.refused.len() as u64,
        })
    }

    fn deliver(
        &self,
        peer: &Peer<'_>,
        piece: &[u8],
        bounds: Option<catchword_store::Bounds>,
        said: Option<&Said>,
    ) -> Result<catchword_store::Applied, Unable> {
        let empty = catchword_model::exchange::Piece::default().encode();
        let piece = if piece.is_empty() { &empty } else { piece };
        Ok(self.store().apply(peer, Delivery { piece, bounds, said })?)
    }

    /// Tells whoever watches the library what has something new.
    fn tell(&self, documents: &BTreeSet<DocumentId>) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.extend(documents.iter().filter_map(|id| self.store().book_of(*id).ok().flatten()));
        if !documents.is_empty() {
            self.core().announce(&Event::Missed { count: documents.len() as u64 });
        }
    }

    fn items(&self, peer: &Peer<'_>, spans: &[Span]) -> Result<Vec<Vec<Item>>, Unable> {
        let spans: Vec<_> = spans.iter().map(|span| (span.from, span.to)).collect();
        let found = self.store().items(peer, &spans)?;
        let item = |(document, state)| Item { document, state: prefix_of(&state) };
        let lists = found.into_iter().map(|items| items.into_iter().map(item).collect());
        Ok(lists.collect())
    }

    fn compare(&self, peer: &Peer<'_>, theirs: &[Vector]) -> Result<Answer, Unable> {
        let documents: Vec<_> = theirs.iter().map(|vector| vector.document).collect();
        let mine = self.store().vectors(peer, &documents)?;
        let mine = mine.into_iter().map(|(document, vector)| from_store(document, &vector));
        let spots: Vec<Spot> = theirs.iter().flat_map(spots).collect();
        let claimed: Vec<_> =
            theirs.iter().flat_map(|vector| chains(vector).map(|entry| entry.hash)).collect();
        let here = self.hashes(peer, &spots)?;
        let differs = |((spot, here), claimed): ((Spot, Option<[u8; 8]>), [u8; 8])| {
            here.is_some_and(|here| here != claimed).then_some(spot)
        };
        let forks = spots.into_iter().zip(here).zip(claimed).filter_map(differs).collect();
        Ok(Answer::Compared { mine: mine.collect(), forks })
    }

    fn hashes(&self, peer: &Peer<'_>, spots: &[Spot]) -> Result<Vec<Option<[u8; 8]>>, Unable> {
        let spots: Vec<_> = spots
            .iter()
            .map(|Spot { chain, seq }| {
                let number = u64::from(*seq);
                let signed = match chain.log {
                    Log::Changes => Signed::Change { seq: number },
                    Log::Events | Log::Void => Signed::Event { n: number },
                };
                (chain.document, chain.actor, signed)
            })
            .collect();
        Ok(self.store().hashes(peer, &spots)?)
    }
}

/// Returns which books a scope means now. Shelves that cannot be read give nothing away.
pub(crate) fn scope(library: &Library, scope: &PeerScope) -> Scope {
    let PeerScope::Chosen { shelves, books } = scope else { return Scope::All };
    let on_shelves = library.shelves().unwrap_or_default().into_iter();
    let on_shelves = on_shelves.filter(|shelf| shelves.contains(&shelf.id));
    Scope::Books(books.iter().copied().chain(on_shelves.flat_map(|shelf| shelf.books)).collect())
}

fn chains(vector: &Vector) -> impl Iterator<Item = &Entry> {
    vector.entries.iter().filter(|entry| entry.log != Log::Void)
}

fn spots(vector: &Vector) -> impl Iterator<Item = Spot> + '_ {
    chains(vector).map(|entry| {
        let chain = Chain { document: vector.document, log: entry.log, actor: entry.actor };
        Spot { chain, seq: entry.seq }
    })
}

fn to_store(vector: &Vector) -> (DocumentId, StoredVector) {
    let of = |log: Log| {
        let entries = vector.entries.iter().filter(move |entry| entry.log == log);
        let reach = |entry: &Entry| Reach {
            actor: entry.actor,
            number: u64::from(entry.seq),
            prefix: entry.hash,
        };
        entries.map(reach).collect()
    };
    let (changes, events, void) = (of(Log::Changes), of(Log::Events), of(Log::Void));
    (vector.document, StoredVector { changes, events, void })
}

fn from_store(document: DocumentId, vector: &StoredVector) -> Vector {
    let entry = |log: Log| {
        move |reach: &Reach| Entry {
            log,
            actor: reach.actor,
            seq: u32::try_from(reach.number).unwrap_or(u32::MAX - 1),
            hash: reach.prefix,
        }
    };
    let changes = vector.changes.iter().map(entry(Log::Changes));
    let events = vector.events.iter().map(entry(Log::Events));
    let void = vector.void.iter().take(VOID_BRANCHES_MAX).map(entry(Log::Void));
    let entries = changes.chain(events).chain(void).collect();
    Vector { document, entries }
}

//! What is remembered of each peer: how far it is decided, what it excludes, and what is not
//! exchanged with it.

use std::collections::BTreeSet;

use catchword_model::exchange::{Signed, prefix_of};
use catchword_model::id::{ActorId, BookId, DocumentId, Generation, sha256};
use catchword_model::identity::Fingerprint;
use catchword_model::schema::DocumentKind;
use redb::{ReadableTable as _, WriteTransaction};

use crate::bytes::{Reader, Writer};
use crate::doc::Doc;
use crate::error::{AppendError, LoadError, Rejection, corrupt, load};
use crate::exchange::{Origin, Peer, Scope, Staged, Subject};
use crate::snapshot::Snapshot;
use crate::{Inner, Store, tables};

/// How long a first failure keeps a peer's book away, in milliseconds: 1 h.
pub(super) const QUARANTINE_MIN_MS: u64 = 3_600_000;
/// How long any failure does at most, in milliseconds: 24 h.
pub(super) const QUARANTINE_MAX_MS: u64 = 24 * QUARANTINE_MIN_MS;
/// Exclusions of a peer that are kept: as many as it may have documents.
pub const EXCLUSIONS_MAX: usize = 200_000;
/// Documents that a peer named though its scope does not hold them, and that it is told of.
const OUTSIDE_MAX: usize = 4_096;

/// No generation has it: what is kept under it names the last known one.
const NO_GENERATION: Generation = Generation([0; 16]);

/// What this device says of itself to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// The generation of the store.
    pub generation: Generation,
    /// The greatest local sequence that is durable.
    pub end: u64,
    /// The greatest local sequence of the peer, in the generation asked about, that is decided here.
    pub mark: u64,
    /// The sum of the items of every document that both exchange.
    pub fingerprint: [u8; 32],
    /// The digest of what is excluded here.
    pub exclusions: [u8; 8],
    /// The digest of the peer's exclusions that are kept here.
    pub held: [u8; 8],
    /// What the peer said last of this device.
    pub heard: Heard,
    /// Whether anything that the peer brought is parked here.
    pub parked: bool,
}

/// What a peer said of this device's present generation, or was sent since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// The greatest local sequence of this device that the peer has decided, or was sent.
    pub given: u64,
    /// The digest of this device's exclusions that the peer holds.
    pub holds: [u8; 8],
    /// Whether the last comparison of this device with the peer found both equal.
    pub agreed: bool,
    /// Whether the peer said that it takes nothing from this device.
    pub refuses: bool,
}

/// What a peer says beside a piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Of this device.
    pub heard: Heard,
    /// What it excludes, if it says that.
    pub exclusions: Option<Exclusions>,
}

/// What is not exchanged with a peer, by MACs, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exclusions {
    /// The first 8 bytes of the MAC of each id.
    pub macs: Vec<[u8; 8]>,
}

impl Exclusions {
    /// Returns the first 8 bytes of SHA-256("catchword/exclusions/v1" ‖ the list); zeros for an empty
    /// one, as for none.
    pub fn digest(&self) -> [u8; 8] {
        if self.macs.is_empty() {
            return [0; 8];
        }
        let mut parts: Vec<&[u8]> = vec![b"catchword/exclusions/v1"];
        parts.extend(self.macs.iter().map(<[u8; 8]>::as_slice));
        prefix_of(&sha256(&parts))
    }
}

/// A document that is not exchanged until a person decides: its writer makes histories without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Which document.
    pub document: DocumentId,
    /// The book that is excluded because of it; absent for the library document.
    pub book: Option<BookId>,
    /// Whose chain forks.
    pub actor: ActorId,
    /// Where the two were seen to differ.
    pub at: Signed,
    /// Who brought the other history.
    pub brought_by: Fingerprint,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A book that is not exchanged with one peer for a while, since what came was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Which peer.
    pub peer: Fingerprint,
    /// Which book; absent for the library document.
    pub book: Option<BookId>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// How often something was refused.
    pub failures: u32,
    /// What was refused last, and why, in words.
    pub why: String,
}

/// What is kept of a peer in one generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PeerRecord {
    pub(crate) mark: u64,
    pub(crate) exclusions: Exclusions,
    /// Documents that it named though its scope does not hold them.
    pub(crate) outside: BTreeSet<DocumentId>,
    /// What it said of this device, in this generation of it.
    pub(crate) heard: Heard,
    pub(crate) heard_of: Option<Generation>,
}

impl PeerRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.number(self.mark).number(self.heard.given).fixed(&self.heard.holds);
        out.byte(u8::from(self.heard.agreed) | (u8::from(self.heard.refuses) << 1));
        out.fixed(&self.heard_of.unwrap_or(NO_GENERATION).0).len(self.exclusions.macs.len());
        for mac in &self.exclusions.macs {
            out.fixed(mac);
        }
        out.len(self.outside.len());
        for id in &self.outside {
            out.fixed(&id.0);
        }
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let mark = input.number()?;
        let (given, holds) = (input.number()?, input.fixed()?);
        let flags = input.byte()?;
        let heard = Heard { given, holds, agreed: flags & 1 != 0, refuses: flags & 2 != 0 };
        let heard_of = Some(Generation(input.fixed()?)).filter(|of| *of != NO_GENERATION);
        let macs = (0..input.count()?).map(|_| input.fixed()).collect::<Result<_, _>>()?;
        let outside = (0..input.count()?).map(|_| input.fixed().map(DocumentId));
        let outside = outside.collect::<Result<_, _>>()?;
        if input.is_empty() {
            Ok(Self { mark, exclusions: Exclusions { macs }, outside, heard, heard_of })
        } else {
            Err(corrupt("what is kept of a peer has something after its end"))
        }
    }

    /// Notes a document that the peer should not bring. Beyond the limit it brings it in vain.
    pub(crate) fn note_outside(&mut self, document: DocumentId) -> bool {
        self.outside.len() < OUTSIDE_MAX && self.outside.insert(document)
    }
}

impl Snapshot {
    fn peer_generation(&self, peer: Fingerprint) -> Result<Option<Generation>, LoadError> {
        let last = Origin { peer, generation: NO_GENERATION };
        let found = self.peer_marks.get(&last.to_bytes()).map_err(load)?;
        let Some(bytes) = found else { return Ok(None) };
        Ok(Some(Generation(Reader(bytes.value()).fixed()?)))
    }

    fn parks_of(&self, peer: Fingerprint) -> Result<bool, LoadError> {
        for found in self.parked.range::<(&[u8; 32], u64)>(..).map_err(load)? {
            let (_, value) = found.map_err(load)?;
            if Origin::read(&mut Reader(value.value()))?.peer == peer {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn peer_record(&self, origin: Origin) -> Result<PeerRecord, LoadError> {
        let found = self.peer_marks.get(&origin.to_bytes()).map_err(load)?;
        found.map_or_else(|| Ok(PeerRecord::default()), |bytes| PeerRecord::decode(bytes.value()))
    }

    fn book_of(&self, number: u32) -> Result<Option<BookId>, LoadError> {
        Ok(self.doc(number)?.map(|doc| BookId(doc.id.0)))
    }

    /// Returns the book or the library document that a document belongs to.
    pub(crate) fn subject_of(&self, doc: &Doc) -> Result<Subject, LoadError> {
        match doc.kind {
            DocumentKind::Library => Ok(Subject::Library),
            DocumentKind::Book => Ok(Subject::Book(BookId(doc.id.0))),
            DocumentKind::Notes => {
                let book = self.book_of(doc.of)?;
                book.map(Subject::Book).ok_or_else(|| corrupt("notes of a book that is missing"))
            }
        }
    }

    fn quarantine_of(
        &self,
        peer: Fingerprint,
        subject: Subject,
    ) -> Result<Option<Quarantine>, LoadError> {
        let key = quarantine_key(peer, subject.bytes());
        let found = self.quarantine.get(&key).map_err(load)?;
        found.map(|bytes| read_quarantine(&key, bytes.value())).transpose()
    }

    /// Returns whether a book is not taken from this peer, and not given to it, whatever its scope is.
    pub(crate) fn is_barred(&self, peer: &Peer<'_>, subject: Subject) -> Result<bool, LoadError> {
        if self.paused.get(&subject.bytes()).map_err(load)?.is_some() {
            return Ok(true);
        }
        if let Subject::Book(book) = subject
            && let Some(number) = self.number(book.document())?
            && self.removed.get(number).map_err(load)?.is_some()
        {
            return Ok(true);
        }
        let quarantine = self.quarantine_of(peer.origin.peer, subject)?;
        Ok(quarantine.is_some_and(|quarantine| peer.now_ms < quarantine.until_ms))
    }

    /// Returns every document that is not exchanged with a peer.
    pub(crate) fn excluded(&self, peer: &Peer<'_>) -> Result<BTreeSet<DocumentId>, LoadError> {
        let mut subjects = BTreeSet::new();
        for found in self.removed.range::<u32>(..).map_err(load)? {
            let (number, _) = found.map_err(load)?;
            subjects.extend(self.book_of(number.value())?.map(Subject::Book));
        }
        for found in self.paused.range::<&[u8; 32]>(..).map_err(load)? {
            let id = DocumentId(*found.map_err(load)?.0.value());
            let book = Subject::Book(BookId(id.0));
            subjects.insert(if id == DocumentId::library() { Subject::Library } else { book });
        }
        for quarantine in self.quarantines()? {
            if quarantine.peer == peer.origin.peer && peer.now_ms < quarantine.until_ms {
                subjects.insert(quarantine.book.map_or(Subject::Library, Subject::Book));
            }
        }
        let mut excluded = BTreeSet::new();
        if let Scope::Books(books) = peer.scope {
            subjects.insert(Subject::Library);
            for found in self.books.range::<u32>(..).map_err(load)? {
                let (number, bytes) = found.map_err(load)?;
                let doc = Doc::decode(number.value(), bytes.value())?;
                let book = BookId(doc.id.0);
                let outside = doc.kind == DocumentKind::Book && !books.contains(&book);
                subjects.extend(outside.then_some(Subject::Book(book)));
            }
            let named = self.peer_record(peer.origin)?.outside;
            excluded.extend(named.into_iter().filter(|id| !peer.scope.holds_document(*id)));
        }
        excluded.extend(subjects.into_iter().flat_map(Subject::documents));
        Ok(excluded)
    }

    fn quarantines(&self) -> Result<Vec<Quarantine>, LoadError> {
        let all = self.quarantine.range::<&[u8; 64]>(..).map_err(load)?;
        all.map(|found| {
            let (key, value) = found.map_err(load)?;
            read_quarantine(key.value(), value.value())
        })
        .collect()
    }
}

impl Store {
    /// Says where this device stands towards a peer. What waits in `wal` is moved to the rows before.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the disk refuses.
    pub fn local(&self, peer: &Peer<'_>) -> Result<Local, AppendError> {
        let mut inner = self.lock();
        inner.drain()?;
        inner.local(peer)
    }

    /// Returns what is not exchanged with a peer.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn exclusions(&self, peer: &Peer<'_>) -> Result<Exclusions, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        exclusions(disk, peer)
    }

    /// Keeps what a peer said. Of its exclusions at most [`EXCLUSIONS_MAX`] are kept. Its generation
    /// becomes the one that is known of it.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; what was kept before stays.
    pub fn hear(&self, origin: Origin, said: &Said) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        inner.stage_said(origin, said)?;
        inner.drain()
    }

    /// Returns the generation of a peer that was heard of last.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn peer_generation(&self, peer: Fingerprint) -> Result<Option<Generation>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        disk.peer_generation(peer)
    }

    /// Returns every document that is not exchanged because its writer made two histories.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn pauses(&self) -> Result<Vec<Pause>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        let all = disk.paused.range::<&[u8; 32]>(..).map_err(load)?;
        all.map(|found| read_pause(found.map_err(load)?.1.value())).collect()
    }

    /// Lets a paused book be exchanged again, or the library document if `book` is absent, and returns
    /// whether it was paused. If its writers still have two histories, the next sync pauses it again.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was written.
    pub fn end_pause(&self, book: Option<BookId>) -> Result<bool, AppendError> {
        let subject = book.map_or(Subject::Library, Subject::Book).bytes();
        let mut inner = self.lock();
        inner.writable()?;
        inner.drain()?;
        let (_, disk) = inner.parts()?;
        if disk.paused.get(&subject).map_err(load)?.is_none() {
            return Ok(false);
        }
        inner.write_meta(|write| {
            let mut paused = write.open_table(tables::PAUSED).map_err(load)?;
            paused.remove(&subject).map_err(load)?;
            Ok(())
        })?;
        Ok(true)
    }

    /// Returns the book that a document belongs to; `None` for the library document. One that is not
    /// here counts as a book's own.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn book_of(&self, document: DocumentId) -> Result<Option<BookId>, LoadError> {
        let mut inner = self.lock();
        let number = inner.number(document)?;
        let (_, disk) = inner.parts()?;
        let doc = number.map(|number| disk.doc(number)).transpose()?.flatten();
        match doc.map(|doc| disk.subject_of(&doc)).transpose()? {
            Some(Subject::Library) => Ok(None),
            Some(Subject::Book(book)) => Ok(Some(book)),
            None => Ok((document != DocumentId::library()).then_some(BookId(document.0))),
        }
    }

    /// Returns every quarantine there was, whether or not it has ended.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn quarantines(&self) -> Result<Vec<Quarantine>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        disk.quarantines()
    }
}

impl Inner {
    /// Returns what is kept of a peer, or will be with the next transaction.
    pub(super) fn peer_record(&mut self, origin: Origin) -> Result<PeerRecord, LoadError> {
        let (stage, disk) = self.parts()?;
        match stage.exchange.marks.get(&origin) {
            Some(bytes) => PeerRecord::decode(bytes),
            None => disk.peer_record(origin),
        }
    }

    /// Stages what a peer said.
    pub(super) fn stage_said(&mut self, origin: Origin, said: &Said) -> Result<(), AppendError> {
        let heard_of = Some(self.identity.generation);
        let before = self.peer_record(origin)?;
        let mut record = PeerRecord { heard: said.heard, heard_of, ..before.clone() };
        if let Some(exclusions) = &said.exclusions {
            let count = exclusions.macs.len();
            if EXCLUSIONS_MAX < count {
                let (value, max) = (count as u64, EXCLUSIONS_MAX as u64);
                return Err(AppendError::OutOfRange { what: "exclusions", value, max });
            }
            record.exclusions.macs.clone_from(&exclusions.macs);
            record.exclusions.macs.sort_unstable();
            record.exclusions.macs.dedup();
        }
        let (stage, disk) = self.parts()?;
        if record != before {
            stage.exchange.marks.insert(origin, record.encode());
        }
        if disk.peer_generation(origin.peer)? != Some(origin.generation) {
            let last = Origin { generation: NO_GENERATION, ..origin };
            stage.exchange.marks.insert(last, origin.generation.0.to_vec());
        }
        Ok(())
    }

    pub(crate) fn local(&mut self, peer: &Peer<'_>) -> Result<Local, AppendError> {
        let end = self.end()?;
        let fingerprint = self.common_sum(peer)?;
        let generation = self.identity.generation;
        let (_, disk) = self.parts()?;
        let record = disk.peer_record(peer.origin)?;
        Ok(Local {
            generation,
            end,
            mark: record.mark,
            fingerprint: fingerprint.0,
            exclusions: exclusions(disk, peer)?.digest(),
            held: record.exclusions.digest(),
            heard: if record.heard_of == Some(generation) {
                record.heard
            } else {
                Heard::default()
            },
            parked: disk.parks_of(peer.origin.peer)?,
        })
    }

    /// Returns the greatest local sequence that is durable. Everything must be drained.
    ///
    /// Numbers of a write that failed may be given again after a restart: none above what `library`
    /// knows may be named to anybody.
    pub(crate) fn end(&mut self) -> Result<u64, LoadError> {
        let (_, disk) = self.parts()?;
        Ok(disk.meta_number(crate::meta::NEXT_SEQUENCE)?.saturating_sub(1))
    }

    /// Keeps a book away from a peer for an hour, and twice as long each time.
    pub(crate) fn quarantine(
        &mut self,
        peer: &Peer<'_>,
        subject: Subject,
        why: &Rejection,
    ) -> Result<(), LoadError> {
        let (stage, disk) = self.parts()?;
        let before = disk.quarantine_of(peer.origin.peer, subject)?;
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let length_ms = QUARANTINE_MIN_MS << (failures - 1).min(16);
        let (since, until) =
            (peer.now_ms, peer.now_ms.saturating_add(length_ms.min(QUARANTINE_MAX_MS)));
        let mut out = Writer::default();
        out.number(since).number(until).number(u64::from(failures)).text(&why.to_string());
        stage.exchange.quarantine.insert((peer.origin.peer, subject.bytes()), out.0);
        Ok(())
    }
}

fn exclusions(disk: &Snapshot, peer: &Peer<'_>) -> Result<Exclusions, LoadError> {
    let mut macs: Vec<[u8; 8]> = disk.excluded(peer)?.into_iter().map(peer.mac).collect();
    macs.sort_unstable();
    macs.dedup();
    Ok(Exclusions { macs })
}

/// Earlier releases had two hashes here.
const UNUSED: [u8; 64] = [0; 64];

pub(crate) fn encode_pause(pause: &Pause) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(pause.since_ms).fixed(&pause.document.0);
    match pause.book {
        None => out.byte(0),
        Some(book) => out.byte(1).fixed(&book.0),
    };
    out.fixed(&pause.actor.0);
    match pause.at {
        Signed::Change { seq } => out.byte(0).number(seq),
        Signed::Event { n } => out.byte(1).number(n),
    };
    out.fixed(&UNUSED).fixed(&pause.brought_by.0);
    out.0
}

fn read_pause(bytes: &[u8]) -> Result<Pause, LoadError> {
    let mut input = Reader(bytes);
    let (since_ms, document) = (input.number()?, DocumentId(input.fixed()?));
    let book = match input.byte()? {
        0 => None,
        _ => Some(BookId(input.fixed()?)),
    };
    let actor = ActorId(input.fixed()?);
    let at = match input.byte()? {
        0 => Signed::Change { seq: input.number()? },
        _ => Signed::Event { n: input.number()? },
    };
    let _unused: [u8; UNUSED.len()] = input.fixed()?;
    let brought_by = Fingerprint(input.fixed()?);
    Ok(Pause { document, book, actor, at, brought_by, since_ms })
}

fn quarantine_key(peer: Fingerprint, subject: [u8; 32]) -> [u8; 64] {
    let mut key = [0; 64];
    let (first, second) = key.split_at_mut(32);
    first.copy_from_slice(&peer.0);
    second.copy_from_slice(&subject);
    key
}

fn read_quarantine(key: &[u8; 64], bytes: &[u8]) -> Result<Quarantine, LoadError> {
    let mut names = Reader(key);
    let (peer, subject) = (Fingerprint(names.fixed()?), DocumentId(names.fixed()?));
    let book = (subject != DocumentId::library()).then_some(BookId(subject.0));
    let mut input = Reader(bytes);
    let (since_ms, until_ms) = (input.number()?, input.number()?);
    let (failures, why) = (input.small()?, input.text()?.to_owned());
    Ok(Quarantine { peer, book, since_ms, until_ms, failures, why })
}

pub(super) fn write(write: &WriteTransaction, staged: &Staged) -> Result<(), LoadError> {
    if !staged.paused.is_empty() {
        let mut paused = write.open_table(tables::PAUSED).map_err(load)?;
        for (subject, value) in &staged.paused {
            // The first fork that was seen stays: it is what a person is told.
            if paused.get(subject).map_err(load)?.is_none() {
                paused.insert(subject, value.as_slice()).map_err(load)?;
            }
        }
    }
    if !staged.quarantine.is_empty() {
        let mut quarantine = write.open_table(tables::QUARANTINE).map_err(load)?;
        for ((peer, subject), value) in &staged.quarantine {
            quarantine.insert(&quarantine_key(*peer, *subject), value.as_slice()).map_err(load)?;
        }
    }
    Ok(())
}

//! Answers what a replicator asks, from the store.
//!
//! # Invariants
//!
//! 1. What a verdict asks for is durable before the cursor moves past it: a crash in between leaves
//!    nothing undecided, since the page is read again.
//! 2. A row of the store speaks of the server alone: of what it sent, and of what it acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::change::{Change, Key, read};
use catchword_model::event::ReadingEvent;
use catchword_model::exchange::DocumentName;
use catchword_model::hlc::Hlc;
use catchword_model::id::{BookId, DeviceId, DocumentId, Generation, sha256};
use catchword_model::identity::Fingerprint;
use catchword_model::schema::{Container, DocumentKind};
use catchword_proto::cloud::api::{
    Anchor, Entry, EntryAnswer, EntryKey, FeedTag, Outcome, Page, Reason, Receipt, Record, Verdict,
    WireStatement,
};
use catchword_proto::cloud::codec::Blob;
use catchword_proto::cloud::outbox::{Class, Waiting};
use catchword_proto::cloud::replicator::{Answer, Question};
use catchword_store::{
    AppendError, ApplyError, CloudCursor, CloudLogin, CloudRow, CollectError, Consignment,
    LoadError, Origin, Peer, Rejection, Scope, Signer, Skipped, Stopped, Store,
};

/// Bytes of content that a change is taken for, when a batch is cut by their number.
const CHANGE_BYTES: usize = 256;

/// A store, and what is needed to answer from it.
#[derive(Clone, Copy)]
pub struct Books<'a> {
    /// The store.
    pub store: &'a Store,
    /// Signs what leaves.
    pub signer: &'a dyn Signer,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

impl std::fmt::Debug for Books<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Books").field("store", self.store).finish_non_exhaustive()
    }
}

/// What was done since the clerk was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Changes and reading events that the server acknowledged.
    pub pushed: u64,
    /// Changes and reading events that are new here.
    pub pulled: u64,
    /// Entries that the server took on top of something that was not merged here, and positions that were
    /// written again.
    pub rebased: u64,
    /// Positions that the server withdrew as stale, and documents that it refuses for good.
    pub refused: u64,
}

/// The store could not answer. What was durable before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClerkError {
    /// The library could not be read.
    #[error(transparent)]
    Read(#[from] LoadError),
    /// The library could not be written.
    #[error(transparent)]
    Write(#[from] AppendError),
    /// What came could not be decided.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Nothing can be sent.
    #[error(transparent)]
    Collect(#[from] CollectError),
}

/// Answers the questions of one replicator, towards one account.
#[derive(Debug)]
pub struct Clerk {
    origin: Origin,
    /// What was cut and not answered yet.
    sent: BTreeMap<EntryKey, Consignment>,
    /// Since when a document waits, counted in looks at the outbox.
    since: BTreeMap<DocumentName, u64>,
    looks: u64,
    tally: Tally,
    changed: BTreeSet<DocumentId>,
    reread: bool,
}

/// What a page brings of one document.
struct Arrived {
    name: DocumentName,
    brought: Consignment,
    verdicts: Vec<Verdict>,
    version: u64,
    /// The number of the first record.
    first: u64,
}

/// Returns what stands for an account's server where peers are named.
pub(crate) fn origin_of(login: &CloudLogin) -> Origin {
    let peer = sha256(&[b"catchword/cloud/v1", login.url.as_bytes(), &login.account]);
    let generation = peer.first_chunk().copied().unwrap_or_default();
    Origin { peer: Fingerprint(peer), generation: Generation(generation) }
}

impl Clerk {
    /// Makes the clerk of an account.
    pub fn new(login: &CloudLogin) -> Self {
        Self {
            origin: origin_of(login),
            sent: BTreeMap::new(),
            since: BTreeMap::new(),
            looks: 0,
            tally: Tally::default(),
            changed: BTreeSet::new(),
            reread: false,
        }
    }

    /// Returns what was done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns the documents that have something new since this was called last.
    pub fn take_changed(&mut self) -> BTreeSet<DocumentId> {
        std::mem::take(&mut self.changed)
    }

    /// Returns whether the last failure meant nothing but that the feed is to be read again from before.
    pub(crate) fn take_reread(&mut self) -> bool {
        std::mem::take(&mut self.reread)
    }

    /// Returns how many changes and reading events the server lacks.
    ///
    /// # Errors
    ///
    /// [`ClerkError`].
    pub fn outbox(&self, books: Books<'_>) -> Result<u64, ClerkError> {
        let unsent = self.towards(books, |server| books.store.unsent_to_cloud(server))?;
        Ok(unsent.iter().map(|unsent| unsent.changes + unsent.events).sum())
    }

    /// Answers a question.
    ///
    /// # Errors
    ///
    /// [`ClerkError`]; the machine is told [`Answer::Failed`].
    pub fn answer(&mut self, books: Books<'_>, question: Question) -> Result<Answer, ClerkError> {
        match question {
            Question::Load => self.load(books),
            Question::Merge(page) => self.merge(books, page),
            Question::Forget => {
                books.store.forget_cloud()?;
                Ok(Answer::Kept { again: Vec::new() })
            }
            Question::Outbox => self.waiting(books),
            Question::Collect { documents, records_max, bytes_max } => {
                self.collect(books, &documents, records_max, bytes_max)
            }
            Question::Keep { answers, cursor, tag } => {
                self.keep(books, answers, cursor.map(|cursor| cursor_of(cursor, tag)))
            }
            Question::Rewrite(document) => self.rewrite(books, document),
        }
    }

    fn towards<T>(&self, books: Books<'_>, work: impl FnOnce(&Peer<'_>) -> T) -> T {
        // The server excludes nothing, so nothing is named.
        let mac = |_| [0; 8];
        let (origin, scope) = (self.origin, &Scope::All);
        work(&Peer { origin, scope, mac: &mac, now_ms: books.now_ms })
    }

    fn load(&mut self, books: Books<'_>) -> Result<Answer, ClerkError> {
        self.sent.clear();
        let start = self.towards(books, |server| books.store.start_with_cloud(server))?;
        let mut again = Vec::new();
        for (book, stamp) in start.again {
            if books.store.is_behind(book, stamp)? {
                again.push(DocumentName::Book(book));
            }
        }
        let known = start.known.map(|(number, tag)| Anchor { number, tag: FeedTag(tag) });
        Ok(Answer::Loaded { cursor: start.cursor, known, again })
    }

    fn merge(&mut self, books: Books<'_>, page: Page) -> Result<Answer, ClerkError> {
        let cursor = cursor_of(page.cursor, page.tag);
        let arrived = lay_out(page);
        let brought = arrived.iter().map(|of| (of.name, of.brought.clone()));
        let brought: Vec<_> = brought.collect();
        let applied =
            self.towards(books, |server| books.store.apply_from_cloud(server, brought, None))?;
        self.tally.pulled += applied.changes_added + applied.events_added;
        self.changed.extend(&applied.documents);
        let barred: BTreeSet<DocumentId> = applied
            .refused
            .iter()
            .filter_map(|(id, why)| matches!(why, Rejection::NotExchanged(_)).then_some(*id))
            .collect();
        let mut rows = BTreeMap::new();
        for of in &arrived {
            let id = of.name.id();
            let mut row = books.store.cloud_row(id)?;
            row.extend(&of.counting());
            if barred.contains(&id) {
                let after = row.skipped.map_or(u64::MAX, |skipped| skipped.after);
                let after = after.min(of.first.saturating_sub(1));
                row.skipped = Some(Skipped { after, book: of.name.book() });
            } else {
                row.version = row.version.max(of.version);
                let verdicts = of.brought.changes.iter().zip(of.verdicts.iter().copied());
                self.decide(books, of.name, verdicts, &mut row)?;
            }
            rows.insert(id, row);
        }
        Self::keep_rows(books, &rows, Some(cursor))
    }

    /// Does what verdicts ask for, and notes in the row what is to be done later.
    fn decide<'a>(
        &mut self,
        books: Books<'_>,
        name: DocumentName,
        verdicts: impl Iterator<Item = (&'a Change, Verdict)>,
        row: &mut CloudRow,
    ) -> Result<u64, ClerkError> {
        let DocumentName::Book(book) = name else { return Ok(0) };
        let own = books.store.device();
        let mut marks: BTreeMap<DeviceId, Hlc> = BTreeMap::new();
        let mut withdrawn = 0;
        for (change, verdict) in verdicts {
            let Some((device, stamp)) = position_of(change) else { continue };
            match verdict {
                Verdict::Withdrawn => {
                    let mark = marks.entry(device).or_insert(stamp);
                    *mark = stamp.max(*mark);
                    withdrawn += 1;
                }
                Verdict::Restamp if device == own => row.again = row.again.max(Some(stamp)),
                Verdict::Restamp | Verdict::Accepted | Verdict::Void => (),
            }
        }
        let marks: Vec<_> = marks.into_iter().collect();
        if books.store.withdraw(book, &marks, books.now_ms)? {
            self.changed.insert(name.id());
        }
        Ok(withdrawn)
    }

    fn keep_rows(
        books: Books<'_>,
        rows: &BTreeMap<DocumentId, CloudRow>,
        cursor: Option<CloudCursor>,
    ) -> Result<Answer, ClerkError> {
        books.store.keep_cloud_rows(rows, cursor)?;
        let mut again = Vec::new();
        for (id, row) in rows {
            let book = BookId(id.0);
            if let Some(stamp) = row.again
                && books.store.is_behind(book, stamp)?
            {
                again.push(DocumentName::Book(book));
            }
        }
        Ok(Answer::Kept { again })
    }

    fn waiting(&mut self, books: Books<'_>) -> Result<Answer, ClerkError> {
        if self.towards(books, |server| books.store.lacks_of_cloud(server))? {
            // The machine loads again, and at once.
            self.reread = true;
            return Ok(Answer::Failed { random: 0 });
        }
        let unsent = self.towards(books, |server| books.store.unsent_to_cloud(server))?;
        self.looks += 1;
        let names: BTreeSet<DocumentName> = unsent.iter().map(|unsent| unsent.name).collect();
        self.since.retain(|name, _| names.contains(name));
        let waiting = unsent.into_iter().map(|unsent| Waiting {
            class: match unsent.class {
                catchword_store::Class::Positions => Class::Position,
                catchword_store::Class::Rest => Class::Change,
                catchword_store::Class::Events => Class::Event,
            },
            since: *self.since.entry(unsent.name).or_insert(self.looks),
            document: unsent.name,
        });
        Ok(Answer::Outbox(waiting.collect()))
    }

    fn collect(
        &mut self,
        books: Books<'_>,
        documents: &[DocumentName],
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Answer, ClerkError> {
        self.sent.clear();
        let account = books.store.cloud_account()?.unwrap_or_default();
        let (mut records_left, mut bytes_left) = (records_max, bytes_max);
        let mut entries: Vec<Entry> = Vec::new();
        for name in documents {
            let left = (records_left, bytes_left);
            // One that does not fit beside others goes first the next time.
            let alone = entries.is_empty();
            let (part, replay) = self.cut(books, *name, left, account.replay_through, alone)?;
            let records = part.changes.len() + part.events.len();
            if records == 0 {
                continue;
            }
            let entry = entry_of(*name, &part, books.store.cloud_row(name.id())?.version, replay);
            let blobs = entry.changes.iter().chain(&entry.events);
            let bytes: usize = blobs.map(|blob| blob.0.len()).sum();
            if !entries.is_empty() && (records_left < records || bytes_left < bytes) {
                break;
            }
            (records_left, bytes_left) =
                (records_left.saturating_sub(records), bytes_left.saturating_sub(bytes));
            self.sent.insert(entry.key, part);
            entries.push(entry);
            if records_left == 0 || bytes_left == 0 {
                break;
            }
        }
        Ok(Answer::Collected(entries))
    }

    /// Cuts what the server lacks of a document: history first, and by itself.
    fn cut(
        &self,
        books: Books<'_>,
        name: DocumentName,
        (records_left, bytes_left): (usize, usize),
        replay_through: u64,
        alone: bool,
    ) -> Result<(Consignment, bool), ClerkError> {
        for through in [Some(replay_through), None] {
            let mut budget = bytes_left.min(records_left.saturating_mul(CHANGE_BYTES)).max(1);
            let mut before = usize::MAX;
            let part = loop {
                let part = self.towards(books, |server| {
                    let (store, id) = (books.store, name.id());
                    store.collect_for_cloud(server, id, books.signer, budget, through)
                })?;
                let records = part.changes.len() + part.events.len();
                // What belongs together does not become smaller.
                if records <= records_left || !alone || budget <= 1 || before <= records {
                    break part;
                }
                before = records;
                budget = (budget / 4).max(1);
            };
            if !part.changes.is_empty() || !part.events.is_empty() {
                return Ok((part, through.is_some()));
            }
        }
        Ok((Consignment::default(), false))
    }

    fn keep(
        &mut self,
        books: Books<'_>,
        answers: Vec<(DocumentName, EntryAnswer)>,
        cursor: Option<CloudCursor>,
    ) -> Result<Answer, ClerkError> {
        let mut rows = BTreeMap::new();
        for (name, answer) in answers {
            let id = name.id();
            let mut row = match rows.remove(&id) {
                Some(row) => row,
                None => books.store.cloud_row(id)?,
            };
            let part = self.sent.remove(&answer.key).unwrap_or_default();
            match answer.outcome {
                Outcome::Accepted(receipt) => {
                    row.version = row.version.max(receipt.version);
                    self.acknowledged(books, name, &part, &receipt, &mut row)?;
                }
                Outcome::Rebased(receipt) | Outcome::Conflict(receipt) => {
                    // What is between is of this call alone, so all of it is merged.
                    if cursor.is_some() {
                        row.version = row.version.max(receipt.version);
                    }
                    self.tally.rebased += 1;
                    self.acknowledged(books, name, &part, &receipt, &mut row)?;
                }
                Outcome::Incomplete { .. } => {
                    row = CloudRow {
                        version: row.version,
                        skipped: row.skipped,
                        ..CloudRow::default()
                    };
                }
                Outcome::Refused { reason, .. } => {
                    self.tally.refused += 1;
                    let (reason, since_ms) = (in_words(reason).to_owned(), books.now_ms);
                    row.stopped = Some(Stopped { reason, since_ms });
                }
            }
            rows.insert(id, row);
        }
        Self::keep_rows(books, &rows, cursor)
    }

    fn acknowledged(
        &mut self,
        books: Books<'_>,
        name: DocumentName,
        part: &Consignment,
        receipt: &Receipt,
        row: &mut CloudRow,
    ) -> Result<(), ClerkError> {
        row.extend(part);
        self.tally.pushed += (part.changes.len() + part.events.len()) as u64;
        let verdicts = part.changes.iter().zip(receipt.verdicts.iter().copied());
        self.tally.refused += self.decide(books, name, verdicts, row)?;
        Ok(())
    }

    fn rewrite(&mut self, books: Books<'_>, name: DocumentName) -> Result<Answer, ClerkError> {
        let kept = Answer::Kept { again: Vec::new() };
        let DocumentName::Book(book) = name else { return Ok(kept) };
        let mut row = books.store.cloud_row(name.id())?;
        let Some(stamp) = row.again.take() else { return Ok(kept) };
        if books.store.rewrite_position(book, stamp, books.now_ms)? {
            self.tally.rebased += 1;
            self.changed.insert(name.id());
        }
        books.store.keep_cloud_rows(&BTreeMap::from([(name.id(), row)]), None)?;
        Ok(kept)
    }
}

impl Arrived {
    /// Returns what counts at the server: the rest says nothing about how far its chains reach.
    fn counting(&self) -> Consignment {
        let mut brought = self.brought.clone();
        let mut verdicts = self.verdicts.iter();
        brought.changes.retain(|_| verdicts.next() != Some(&Verdict::Void));
        brought
    }
}

fn cursor_of(number: u64, tag: Option<FeedTag>) -> CloudCursor {
    CloudCursor { number, tag: tag.map(|tag| tag.0) }
}

/// Sorts a page by documents.
fn lay_out(page: Page) -> Vec<Arrived> {
    let mut places: BTreeMap<DocumentName, usize> = BTreeMap::new();
    let mut arrived: Vec<Arrived> = Vec::new();
    for record in page.records {
        let place = *places.entry(record.document).or_insert(arrived.len());
        if place == arrived.len() {
            let (name, first) = (record.document, record.number);
            let (brought, verdicts) = (Consignment::default(), Vec::new());
            arrived.push(Arrived { name, brought, verdicts, version: 0, first });
        }
        let Some(of) = arrived.get_mut(place) else { continue };
        of.version = record.version;
        of.brought.statements.extend(record.statement.map(|it| it.about(of.name)));
        // What does not read is refused by every device for ever, like what breaks a rule.
        match record.record {
            Record::Change { bytes, verdict } => {
                if let Ok(change) = read::read(&bytes.0) {
                    of.brought.changes.push(change);
                    of.verdicts.push(verdict);
                }
            }
            Record::Event { bytes } => {
                of.brought.events.extend(ReadingEvent::decode(&bytes.0).ok());
            }
            // The history that counts is in the feed, too, and says the same here.
            Record::Void { .. } => (),
        }
    }
    arrived
}

fn entry_of(name: DocumentName, part: &Consignment, base_version: u64, replay: bool) -> Entry {
    let mut entry = Entry {
        key: EntryKey([0; 32]),
        document: name,
        base_version,
        replay,
        statements: part.statements.iter().map(WireStatement::of).collect(),
        changes: part.changes.iter().map(|change| Blob(change.bytes().to_vec())).collect(),
        events: part.events.iter().map(|event| Blob(event.encode())).collect(),
    };
    entry.key = entry.key();
    entry
}

/// Returns whose position a change of a book writes, and its stamp.
fn position_of(change: &Change) -> Option<(DeviceId, Hlc)> {
    let device = change.ops.iter().rev().find_map(|op| {
        let Key::Map(key) = &op.key else { return None };
        let is_position = DocumentKind::Book.container(op.object) == Some(Container::Positions);
        if is_position { key.parse().ok() } else { None }
    });
    Some((device?, Hlc::of_change(change.time)))
}

/// Says why a document is not sent any more.
fn in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::Key => "it was damaged on the way",
        Reason::Empty => "there was nothing in it",
        Reason::Statements => "it has more signatures than changes",
        Reason::Signature => "a signature is not right",
        Reason::Unreadable => "the server cannot read a change",
        Reason::Rule => "a change breaks a rule",
        Reason::Event => "a reading event does not read",
        Reason::TooManyActors => "it has as many writers as a document can have",
        Reason::TooManyDocuments => "the account has as many books as it may have",
        Reason::Fork => {
            "a device wrote two histories, and nothing signed shows that this one is its own"
        }
        Reason::Incomplete => "the server lacks what it builds on, whatever is sent",
        Reason::TooLarge => "what belongs together in it is more than the server takes at once",
        _ => "the server does not take it",
    }
}

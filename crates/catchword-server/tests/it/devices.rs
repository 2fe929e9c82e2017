//! Devices without a store: plain histories, real changes, real signatures.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::annotation::{Creation, Kind};
use catchword_model::change::past::Judgement;
use catchword_model::change::{Change, Object};
use catchword_model::edit::{Edit, build};
use catchword_model::event::ReadingEvent;
use catchword_model::exchange::{DocumentName, Signed, Statement};
use catchword_model::history::History;
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, Author, BookId, DeviceId, EventHash, Generation};
use catchword_model::identity::PublicKey;
use catchword_model::locator::Locator;
use catchword_model::position::{
    Entry as Standing, Intent, Position, entries, seen_by, withdrawal_mark,
};
use catchword_model::schema::Container;
use catchword_proto::cloud::api::{Entry, EntryKey, WireStatement};
use catchword_proto::cloud::codec::Blob;
use ed25519_dalek::{Signer as _, SigningKey};

/// Monday, in milliseconds since the Unix epoch.
pub(crate) const MONDAY_MS: u64 = 1_780_000_000_000;

/// A device with everything it knows.
#[derive(Clone)]
pub(crate) struct Device {
    key: SigningKey,
    pub(crate) id: DeviceId,
    pub(crate) n: u32,
    now_ms: u64,
    histories: BTreeMap<DocumentName, History>,
    events: BTreeMap<BookId, Vec<ReadingEvent>>,
    /// Statements of others, by the hash that they are about.
    heard: BTreeMap<[u8; 32], WireStatement>,
}

pub(crate) const fn book(number: u8) -> BookId {
    BookId([number; 32])
}

pub(crate) const fn doc(number: u8) -> DocumentName {
    DocumentName::Book(book(number))
}

pub(crate) fn stamp(ms: u64) -> Hlc {
    Hlc::new(MONDAY_MS + ms, 0).unwrap()
}

impl Device {
    pub(crate) fn new(number: u8) -> Self {
        let key = SigningKey::from_bytes(&[number; 32]);
        let public = PublicKey::from_bytes(&key.verifying_key().to_bytes()).unwrap();
        let id = public.device(Generation([number; 16]));
        let (histories, events) = (BTreeMap::new(), BTreeMap::new());
        let (now_ms, heard) = (MONDAY_MS, BTreeMap::new());
        Self { key, id, n: 0, now_ms, histories, events, heard }
    }

    pub(crate) fn history(&mut self, document: DocumentName) -> &mut History {
        let fresh = || History::new(document.kind(), document.id());
        self.histories.entry(document).or_insert_with(fresh)
    }

    /// Makes a change at a time.
    pub(crate) fn write_at(&mut self, document: DocumentName, at: Hlc, edits: &[Edit]) -> Change {
        self.try_write_at(document, at, edits).expect("the edits change something")
    }

    fn try_write_at(&mut self, document: DocumentName, at: Hlc, edits: &[Edit]) -> Option<Change> {
        let author = Author { device: self.id, n: self.n };
        let id = self.id;
        let history = self.history(document);
        let writes: Vec<_> = edits.iter().flat_map(|edit| edit.writes(id, at)).collect();
        let held = |container: Container, key: &str| {
            Ok::<_, std::convert::Infallible>(history.field(Object::Made(container.object()), key))
        };
        let Ok(change) = build(&history.base(author), at, &writes, held);
        let change = change?;
        assert_eq!(history.admit(change.clone()), Judgement::Admitted);
        Some(change)
    }

    /// Makes a change now.
    pub(crate) fn write(&mut self, document: DocumentName, edits: &[Edit]) -> Change {
        self.try_write(document, edits).expect("the edits change something")
    }

    /// Makes a change now, if the edits change something.
    pub(crate) fn try_write(&mut self, document: DocumentName, edits: &[Edit]) -> Option<Change> {
        self.now_ms += 1_000;
        self.try_write_at(document, Hlc::new(self.now_ms, 0).unwrap(), edits)
    }

    pub(crate) fn annotate(&mut self, document: DocumentName, quote: &str) -> Change {
        let id = AnnotationId::derived("test", &[quote, &self.id.to_string()]);
        let creation = Creation {
            kind: Kind::Highlight,
            locator: Locator::new(),
            quote: quote.to_owned(),
            color: None,
            note: None,
            created_by: self.id.to_string(),
            source: None,
            unknown: String::new(),
        };
        self.write(document, &[Edit::Annotate { id, creation: Box::new(creation) }])
    }

    /// Returns the entries that this device knows of a book.
    pub(crate) fn standing(&mut self, document: DocumentName) -> Vec<Standing> {
        let history = self.history(document).clone();
        let positions = Object::Made(Container::Positions.object());
        let withdrawn = Object::Made(Container::Withdrawn.object());
        let of_container = history.fields().iter().filter(|((object, _), _)| *object == positions);
        of_container
            .flat_map(|((_, key), field)| {
                let marks = history.field(withdrawn, key);
                entries(key.parse().unwrap(), field, &marks).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Turns a page, and publishes it.
    pub(crate) fn turn(
        &mut self,
        document: DocumentName,
        at: Hlc,
        of: (Intent, u32, u32),
    ) -> Change {
        self.try_turn(document, at, of).expect("the page is another one")
    }

    /// Turns a page, which may be the one that is open.
    pub(crate) fn try_turn(
        &mut self,
        document: DocumentName,
        at: Hlc,
        (intent, pass, ppm): (Intent, u32, u32),
    ) -> Option<Change> {
        let seen = seen_by(self.id, &self.standing(document));
        let locator = Locator::new();
        let position = Position { locator, ppm, intent, pass, wall_ms: at.wall_ms(), seen };
        self.try_write_at(document, at, &[Edit::SetPosition(position)])
    }

    pub(crate) fn turn_having_seen(
        &mut self,
        document: DocumentName,
        at: Hlc,
        (intent, pass, ppm): (Intent, u32, u32),
        seen: Hlc,
    ) -> Change {
        let locator = Locator::new();
        let position = Position { locator, ppm, intent, pass, wall_ms: at.wall_ms(), seen };
        self.write_at(document, at, &[Edit::SetPosition(position)])
    }

    /// Writes the mark that withdraws a device's entries, unless it knows as great a one.
    pub(crate) fn withdraw(
        &mut self,
        document: DocumentName,
        at: Hlc,
        (device, mark): (DeviceId, Hlc),
    ) {
        let withdrawn = Object::Made(Container::Withdrawn.object());
        let known = self.history(document).field(withdrawn, &device.to_string());
        if withdrawal_mark(&known) < mark {
            self.write_at(document, at, &[Edit::Withdraw { device, mark }]);
        }
    }

    /// Appends a reading event.
    pub(crate) fn read(&mut self, book: BookId) -> ReadingEvent {
        self.read_for(book, 60)
    }

    /// Appends a reading event of so many seconds.
    pub(crate) fn read_for(&mut self, book: BookId, seconds: u32) -> ReadingEvent {
        let actor = Author { device: self.id, n: self.n }.actor(book.document());
        let events = self.events.entry(book).or_default();
        let event = ReadingEvent {
            book,
            actor,
            n: events.len() as u64 + 1,
            before: events.last().map_or(EventHash([0; 32]), ReadingEvent::hash),
            pass: 1,
            from_ppm: 0,
            to_ppm: 10,
            seconds,
            turns: 3,
            wall_ms: MONDAY_MS,
            stamp: stamp(events.len() as u64),
        };
        events.push(event);
        event
    }

    /// Signs what was written last up to here.
    pub(crate) fn sign(
        &self,
        document: DocumentName,
        signed: Signed,
        hash: [u8; 32],
    ) -> WireStatement {
        let public = PublicKey::from_bytes(&self.key.verifying_key().to_bytes()).unwrap();
        let generation = Generation([self.key.to_bytes()[0]; 16]);
        let mut statement = Statement {
            document: document.id(),
            actor: Author { device: self.id, n: self.n }.actor(document.id()),
            n: self.n,
            signed,
            hash,
            public_key_spki: public.to_spki().to_vec(),
            generation,
            signature: [0; 64],
        };
        statement.signature = self.key.sign(&statement.message()).to_bytes();
        WireStatement::of(&statement)
    }

    pub(crate) fn sign_change(&self, document: DocumentName, change: &Change) -> WireStatement {
        self.sign(document, Signed::Change { seq: change.seq }, change.hash().0)
    }

    pub(crate) fn sign_event(&self, event: &ReadingEvent) -> WireStatement {
        let document = DocumentName::Book(event.book);
        self.sign(document, Signed::Event { n: event.n }, event.hash().0)
    }

    /// Gives everything of a document to another device, as the guest-peer lane does.
    pub(crate) fn give(&mut self, document: DocumentName, to: &mut Self) {
        let entry = self.entry(document, &BTreeSet::new(), 0);
        for statement in &entry.statements {
            to.heard.insert(statement.hash, statement.clone());
        }
        let changes: Vec<Change> = self.history(document).changes().skip(1).cloned().collect();
        for change in changes {
            assert_eq!(to.history(document).admit(change), Judgement::Admitted);
        }
    }

    /// Returns an entry with everything of a document that is not known to the server.
    pub(crate) fn entry(
        &mut self,
        document: DocumentName,
        known: &BTreeSet<[u8; 32]>,
        base_version: u64,
    ) -> Entry {
        let changes: Vec<Change> = self
            .history(document)
            .changes()
            .skip(1)
            .filter(|change| !known.contains(&change.hash().0))
            .cloned()
            .collect();
        let events = document.book().and_then(|book| self.events.get(&book));
        let events: Vec<ReadingEvent> = events
            .into_iter()
            .flatten()
            .filter(|event| !known.contains(&event.hash().0))
            .copied()
            .collect();
        self.entry_of(document, base_version, &changes, &events)
    }

    /// Returns an entry of these, with the statements that this device can give.
    pub(crate) fn entry_of(
        &self,
        document: DocumentName,
        base_version: u64,
        changes: &[Change],
        events: &[ReadingEvent],
    ) -> Entry {
        let own = Author { device: self.id, n: self.n }.actor(document.id());
        let mut newest = BTreeMap::new();
        for change in changes {
            newest.insert(change.actor, change);
        }
        let of_changes = newest.values().filter_map(|change| match change.actor {
            actor if actor == own => Some(self.sign_change(document, change)),
            _ => self.heard.get(&change.hash().0).cloned(),
        });
        let mut statements: Vec<WireStatement> = of_changes.collect();
        statements.extend(events.last().map(|event| self.sign_event(event)));
        let entry = Entry {
            key: EntryKey([0; 32]),
            document,
            base_version,
            replay: false,
            statements,
            changes: changes.iter().map(|change| Blob(change.bytes().to_vec())).collect(),
            events: events.iter().map(|event| Blob(event.encode())).collect(),
        };
        keyed(entry)
    }
}

/// Gives an entry its key.
pub(crate) fn keyed(mut entry: Entry) -> Entry {
    entry.key = entry.key();
    entry
}

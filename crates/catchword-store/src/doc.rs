//! What is kept of each document beside its log: enough to list it, and to make a change without it.

use catchword_model::change::{Action, Change, Key, OpId, Scalar};
use catchword_model::edit::Base;
use catchword_model::exchange::Sum;
use catchword_model::genesis::{Below, SCHEMA_KEY, claimed_upgrade, genesis};
use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, Author, ChangeHash, DocumentId, EventHash};
use catchword_model::schema::DocumentKind;

use crate::bytes::{Reader, Writer};
use crate::error::{LoadError, corrupt};

/// Writers of one document.
pub const ACTORS_MAX: usize = 1_024;

/// A change by its place in the document, and what others need of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) hash: ChangeHash,
    /// Place of the writer in the document's list.
    pub(crate) writer: u16,
    pub(crate) seq: u32,
    pub(crate) max_op: u64,
}

/// Somebody who wrote changes or events of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocWriter {
    pub(crate) actor: ActorId,
    /// Absent for the fixed actors of the schema.
    pub(crate) author: Option<Author>,
    /// Its newest change.
    pub(crate) last: Option<Head>,
    /// How many reading events it has.
    pub(crate) events: u64,
    pub(crate) last_event: EventHash,
}

/// What a list shows of a book. A function of the rows and events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) title: String,
    /// The place, in parts per million.
    pub(crate) ppm: Option<u32>,
    pub(crate) furthest_ppm: Option<u32>,
    /// The wall clock at the place, in milliseconds since the Unix epoch.
    pub(crate) wall_ms: u64,
    /// The latest stamp of any counting position.
    pub(crate) last_read: Hlc,
    /// Annotations that can be shown and are not deleted.
    pub(crate) annotations: u64,
    pub(crate) events: u64,
    pub(crate) seconds: u64,
}

/// An upgrade of the schema that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upgrade {
    pub(crate) schema: u32,
    pub(crate) below: Below,
}

/// One document of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doc {
    pub(crate) number: u32,
    pub(crate) id: DocumentId,
    pub(crate) kind: DocumentKind,
    /// The document of the book whose notes these are; the document itself otherwise.
    pub(crate) of: u32,
    /// Ascending by hash.
    pub(crate) heads: Vec<Head>,
    pub(crate) max_op: u64,
    pub(crate) writers: Vec<DocWriter>,
    pub(crate) upgrades: Vec<Upgrade>,
    pub(crate) summary: Summary,
    /// The sum of the hashes of everything that does not count; `None` where everything does.
    pub(crate) void: Option<Sum>,
}

impl Doc {
    /// A document nothing is known of yet, not even its genesis.
    pub(crate) fn empty(number: u32, id: DocumentId, kind: DocumentKind, of: u32) -> Self {
        Self {
            number,
            id,
            kind,
            of,
            heads: Vec::new(),
            max_op: 0,
            writers: Vec::new(),
            upgrades: Vec::new(),
            summary: Summary::default(),
            void: None,
        }
    }

    pub(crate) fn writer_place(&self, actor: ActorId) -> Option<u16> {
        let place = self.writers.iter().position(|writer| writer.actor == actor)?;
        u16::try_from(place).ok()
    }

    pub(crate) fn writer(&self, actor: ActorId) -> Option<&DocWriter> {
        self.writers.iter().find(|writer| writer.actor == actor)
    }

    pub(crate) fn writer_at(&self, place: u16) -> Result<&DocWriter, LoadError> {
        let writer = self.writers.get(usize::from(place));
        writer.ok_or_else(|| corrupt(format!("document {} has no writer {place}", self.id)))
    }

    /// Returns the writer's place, after making one for a writer that is new.
    pub(crate) fn writer_place_or_new(&mut self, actor: ActorId) -> u16 {
        if let Some(place) = self.writer_place(actor) {
            return place;
        }
        self.writers.push(DocWriter {
            actor,
            author: None,
            last: None,
            events: 0,
            last_event: EventHash([0; 32]),
        });
        u16::try_from(self.writers.len() - 1).unwrap_or(u16::MAX)
    }

    pub(crate) fn head_hashes(&self) -> Vec<ChangeHash> {
        self.heads.iter().map(|head| head.hash).collect()
    }

    /// Where the next change of `author` stands.
    pub(crate) fn base(&self, author: Author) -> Base {
        let actor = author.actor(self.id);
        let last = self.writer(actor).and_then(|writer| writer.last);
        Base {
            author,
            actor,
            seq: last.map_or(1, |last| u64::from(last.seq) + 1),
            max_op: self.max_op,
            heads: self.head_hashes(),
            last: last.map(|last| last.hash),
        }
    }

    /// Moves heads, counters and the writer's chain on by one change.
    pub(crate) fn advance(&mut self, change: &Change) -> Result<Head, LoadError> {
        let writer = self.writer_place_or_new(change.actor);
        let seq =
            u32::try_from(change.seq).map_err(|_| corrupt("a sequence number is too large"))?;
        let head = Head { hash: change.hash(), writer, seq, max_op: change.max_op() };
        if let Some(slot) = self.writers.get_mut(usize::from(writer)) {
            slot.author = slot.author.or(change.author);
            slot.last = Some(head);
        }
        self.heads.retain(|old| !change.dependencies.contains(&old.hash));
        let place = self.heads.partition_point(|old| old.hash < head.hash);
        self.heads.insert(place, head);
        self.max_op = self.max_op.max(head.max_op);
        self.note_upgrade(change);
        Ok(head)
    }

    fn note_upgrade(&mut self, change: &Change) {
        let first = change.hash() == genesis(self.kind).hash();
        let Some(schema) = claimed_upgrade(change).or(first.then_some(1)) else { return };
        let wrote = change.ops_with_ids().find(|(_, op)| {
            op.key == Key::Map(SCHEMA_KEY.to_owned())
                && matches!(op.action, Action::Put(Scalar::Int(_)))
        });
        if let Some((schema_op, _)) = wrote {
            let below = Below { hash: change.hash(), max_op: change.max_op(), schema_op };
            self.upgrades.push(Upgrade { schema, below });
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(256);
        out.fixed(&self.id.0).byte(kind_code(self.kind)).number(u64::from(self.of));
        out.number(self.max_op).len(self.heads.len());
        self.heads.iter().for_each(|head| write_head(&mut out, head));
        out.len(self.writers.len());
        for writer in &self.writers {
            out.fixed(&writer.actor.0);
            match writer.author {
                Some(author) => out.byte(1).fixed(&author.to_bytes()),
                None => out.byte(0),
            };
            match &writer.last {
                Some(last) => write_head(out.byte(1), last),
                None => {
                    out.byte(0);
                }
            }
            out.number(writer.events);
            if 0 < writer.events {
                out.fixed(&writer.last_event.0);
            }
        }
        out.len(self.upgrades.len());
        for upgrade in &self.upgrades {
            out.number(u64::from(upgrade.schema)).fixed(&upgrade.below.hash.0);
            out.number(upgrade.below.max_op).number(upgrade.below.schema_op.counter);
            out.fixed(&upgrade.below.schema_op.actor.0);
        }
        self.summary.write(&mut out);
        if let Some(void) = &self.void {
            out.fixed(&void.0);
        }
        out.0
    }

    pub(crate) fn decode(number: u32, bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let id = DocumentId(input.fixed()?);
        let kind = kind_from_code(input.byte()?)?;
        let of = input.small()?;
        let max_op = input.number()?;
        let heads = (0..input.count()?).map(|_| read_head(&mut input)).collect::<Result<_, _>>()?;
        let writers =
            (0..input.count()?).map(|_| read_writer(&mut input)).collect::<Result<_, _>>()?;
        let upgrades =
            (0..input.count()?).map(|_| read_upgrade(&mut input)).collect::<Result<_, _>>()?;
        let summary = Summary::read(&mut input)?;
        let void = if input.is_empty() { None } else { Some(Sum(input.fixed()?)) };
        Ok(Self { number, id, kind, of, heads, max_op, writers, upgrades, summary, void })
    }
}

fn write_head(out: &mut Writer, head: &Head) {
    out.fixed(&head.hash.0).number(u64::from(head.writer));
    out.number(u64::from(head.seq)).number(head.max_op);
}

fn read_head(input: &mut Reader<'_>) -> Result<Head, LoadError> {
    Ok(Head {
        hash: ChangeHash(input.fixed()?),
        writer: input.small()?,
        seq: input.small()?,
        max_op: input.number()?,
    })
}

fn read_writer(input: &mut Reader<'_>) -> Result<DocWriter, LoadError> {
    let actor = ActorId(input.fixed()?);
    let author = match input.byte()? {
        0 => None,
        _ => Author::from_bytes(&input.fixed::<20>()?),
    };
    let last = match input.byte()? {
        0 => None,
        _ => Some(read_head(input)?),
    };
    let events = input.number()?;
    let last_event = if 0 < events { EventHash(input.fixed()?) } else { EventHash([0; 32]) };
    Ok(DocWriter { actor, author, last, events, last_event })
}

fn read_upgrade(input: &mut Reader<'_>) -> Result<Upgrade, LoadError> {
    let schema = input.small()?;
    let hash = ChangeHash(input.fixed()?);
    let max_op = input.number()?;
    let schema_op = OpId { counter: input.number()?, actor: ActorId(input.fixed()?) };
    Ok(Upgrade { schema, below: Below { hash, max_op, schema_op } })
}

impl Summary {
    fn write(&self, out: &mut Writer) {
        let optional = |ppm: Option<u32>| ppm.map_or(0, |ppm| u64::from(ppm) + 1);
        out.text(&self.title).number(optional(self.ppm)).number(optional(self.furthest_ppm));
        out.number(self.wall_ms).number(self.last_read.packed()).number(self.annotations);
        out.number(self.events).number(self.seconds);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, LoadError> {
        let optional = |value: u64| value.checked_sub(1).and_then(|ppm| u32::try_from(ppm).ok());
        Ok(Self {
            title: input.text()?.to_owned(),
            ppm: optional(input.number()?),
            furthest_ppm: optional(input.number()?),
            wall_ms: input.number()?,
            last_read: Hlc::from_packed(input.number()?).unwrap_or(Hlc::ZERO),
            annotations: input.number()?,
            events: input.number()?,
            seconds: input.number()?,
        })
    }
}

pub(crate) fn kind_code(kind: DocumentKind) -> u8 {
    match kind {
        DocumentKind::Book => 1,
        DocumentKind::Notes => 2,
        DocumentKind::Library => 3,
    }
}

pub(crate) fn kind_from_code(code: u8) -> Result<DocumentKind, LoadError> {
    match code {
        1 => Ok(DocumentKind::Book),
        2 => Ok(DocumentKind::Notes),
        3 => Ok(DocumentKind::Library),
        _ => Err(corrupt(format!("a document of kind {code}"))),
    }
}

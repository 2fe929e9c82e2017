//! The bodies of requests and responses, byte by byte.
//!
//! ```text
//! every body     u8 version | 16 generation of the sender | 16 generation of the receiver, zeros: unknown
//!                | u8 0: the sender takes what it lacks, 1: it takes nothing from the receiver
//! /sync          u8 flags | u8 oldest, u8 newest version | 8 exclusions | 8 list held
//!                | list, if flagged: u32 count, 8 each
//!                | unless alone: u64 mark | 32 summary, if flagged | u64 from, through, end | piece
//! /ranges  ->    u16 count | each: span, 16 digest
//!          <-    u16 count | each: u8 tag | 0 equal
//!                                         | 1 items: u8 count, each 32 document, 8 state
//!                                         | 2 parts: u8 count, each 32 first document, 16 digest
//! /vectors ->    vectors | u16 count of probes | each: spot, 8 hash
//!          <-    vectors | u16 count of forks | each: spot | u16 count of agreements | u8 each
//!                | u8 more | piece
//! /changes ->    piece
//!          <-    u64 received | u64 added
//! span           32 from | u8 0: to the end, 1: 32 to
//! vectors        u16 count | each: 32 document | u16 count | each: u8 log | 16 actor | u32 seq | 8 hash
//! spot           32 document | u8 log | 16 actor | u32 seq
//! ```
//!
//! A response other than to `/sync` has `u8 1` between header and content, or `u8 0` and nothing: the
//! request was for another generation. A piece is what remains of the body.
//!
//! # Invariants
//!
//! 1. What reads, written again, has the same bytes.
//! 2. Every list is compared with its limit before it is kept, and is strictly ascending where it has
//!    an order.

use catchword_model::id::{ActorId, DocumentId, Generation};

use crate::session::{
    BODY_BYTES_MAX, Bounds, Chain, EXCLUSIONS_MAX, Entry, Exclusion, Item, ListDigest, Log,
    PIECE_BYTES_MAX, PROTOCOL_MAX, PROTOCOL_MIN, ShortHash, Span, Spot, Summary, Vector, Violation,
    list_digest,
};
use crate::wire::{Reader, Writer};

/// Spans of one request.
///
/// With [`ITEMS_MAX`] documents for each, an answer stays below one megabyte.
pub const SPANS_MAX: usize = 256;

/// Documents that are named one by one instead of being split further.
pub const ITEMS_MAX: usize = 64;

/// Parts into which a span is split.
pub const PARTS_MAX: usize = 16;

/// Documents whose vectors stand in one message.
pub const VECTORS_MAX: usize = 60;

/// Branches of one document that do not count. A document with more is not exchanged.
pub const VOID_BRANCHES_MAX: usize = 256;

/// Chains of one document: the actors a book may have, as many event logs, and what does not count.
pub const ENTRIES_MAX: usize = 2 * 1_024 + VOID_BRANCHES_MAX;

/// Forks, and questions about where they begin, of one message.
pub const FORKS_MAX: usize = 1_024;

/// Length of the digest of a span, in bytes.
pub const SPAN_DIGEST_BYTES: usize = 16;

const LIST: u8 = 1;
const SUMMARY: u8 = 2;
const AGREED: u8 = 4;
const PARKED: u8 = 8;
const ALONE: u8 = 16;
const FLAGS: u8 = LIST | SUMMARY | AGREED | PARKED | ALONE;

// A list of exclusions and a piece fit into one body, with room for the rest.
const _: () = assert!(8 * EXCLUSIONS_MAX + PIECE_BYTES_MAX + 1_024 <= BODY_BYTES_MAX);
const _: () = assert!(VECTORS_MAX * (34 + 29 * ENTRIES_MAX) + PIECE_BYTES_MAX <= BODY_BYTES_MAX);

/// Which generations a message is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The generation of who sends.
    pub sender: Generation,
    /// The generation of who receives, as last known; zeros where none is known.
    pub receiver: Generation,
    /// Whether the sender takes changes from the receiver: a device to which it only lends brings none.
    pub takes: bool,
}

/// A request for `/sync` or its response: the same, the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Between which generations.
    pub header: Header,
    /// The oldest and the newest version of the protocol that the sender speaks.
    pub versions: (u8, u8),
    /// The digest of the sender's exclusions.
    pub exclusions: ListDigest,
    /// The list of the receiver that the sender holds.
    pub held: ListDigest,
    /// The sender's exclusions, where the receiver does not hold them.
    pub list: Option<Vec<Exclusion>>,
    /// The sender's last comparison, as requester, found no difference.
    pub agreed: bool,
    /// Something that the receiver brought is parked at the sender.
    pub parked: bool,
    /// The rest; a hello alone has none.
    pub body: Option<SyncBody>,
}

/// What follows the hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncBody {
    /// The greatest local sequence of the receiver that the sender has decided.
    pub mark: u64,
    /// Of the common set; `None` where it cannot be compared.
    pub summary: Option<Summary>,
    /// What the piece holds all of.
    pub bounds: Bounds,
    /// The changes.
    pub piece: Vec<u8>,
}

impl Sync {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.header.begin();
        let body = self.body.as_ref();
        let flags = [
            (LIST, self.list.is_some()),
            (SUMMARY, body.is_some_and(|body| body.summary.is_some())),
            (AGREED, self.agreed),
            (PARKED, self.parked),
            (ALONE, body.is_none()),
        ];
        let flags = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum();
        writer.byte(flags).byte(self.versions.0).byte(self.versions.1);
        writer.bytes(&self.exclusions.0).bytes(&self.held.0);
        if let Some(list) = &self.list {
            write_count32(&mut writer, list.len());
            for exclusion in list {
                writer.bytes(&exclusion.0);
            }
        }
        if let Some(body) = body {
            writer.u64(body.mark);
            if let Some(summary) = &body.summary {
                writer.bytes(&summary.0);
            }
            let Bounds { from, through, end } = body.bounds;
            writer.u64(from).u64(through).u64(end).bytes(&body.piece);
        }
        writer.finish()
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`Violation`]; nothing of the message counts.
    pub fn decode(bytes: &[u8]) -> Result<Self, Violation> {
        let (header, mut reader) = Header::read(bytes)?;
        let flags = reader.byte()?;
        let has = |flag| flags & flag != 0;
        if flags & !FLAGS != 0 || (has(ALONE) && has(SUMMARY)) {
            return Err(Violation::Flag(flags));
        }
        let versions = (reader.byte()?, reader.byte()?);
        if versions.1 < versions.0 {
            return Err(Violation::Number);
        }
        let exclusions = ListDigest(reader.fixed()?);
        let held = ListDigest(reader.fixed()?);
        let list = if has(LIST) { Some(read_list(&mut reader, exclusions)?) } else { None };
        let body = if has(ALONE) {
            reader.finish()?;
            None
        } else {
            let mark = reader.u64()?;
            let summary = if has(SUMMARY) { Some(Summary(reader.fixed()?)) } else { None };
            let (from, through, end) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let bounds = Bounds { from, through, end };
            if through < from || end < through {
                return Err(Violation::Number);
            }
            Some(SyncBody { mark, summary, bounds, piece: read_piece(&reader)? })
        };
        let (agreed, parked) = (has(AGREED), has(PARKED));
        Ok(Self { header, versions, exclusions, held, list, agreed, parked, body })
    }

    /// Whether there is a version that both speak.
    pub const fn has_common_version(&self) -> bool {
        self.versions.0 <= PROTOCOL_MAX && PROTOCOL_MIN <= self.versions.1
    }
}

/// A digest of the documents of a span and their states.
pub type SpanDigest = [u8; SPAN_DIGEST_BYTES];

/// A request for `/ranges`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangesRequest {
    /// Between which generations.
    pub header: Header,
    /// Spans with the requester's digests.
    pub spans: Vec<(Span, SpanDigest)>,
}

/// What a responder says of one span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanAnswer {
    /// It has the same.
    Equal,
    /// It has these. Ascending.
    Items(Vec<Item>),
    /// It has too many to name: first document and digest of each part. The first part begins where
    /// the span begins, and each ends where the next begins.
    Parts(Vec<(DocumentId, SpanDigest)>),
}

impl RangesRequest {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.header.begin();
        write_count(&mut writer, self.spans.len());
        for (span, digest) in &self.spans {
            writer.bytes(&span.from.0);
            match span.to {
                None => writer.byte(0),
                Some(to) => writer.byte(1).bytes(&to.0),
            };
            writer.bytes(digest);
        }
        writer.finish()
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`Violation`]; nothing of the message counts.
    pub fn decode(bytes: &[u8]) -> Result<Self, Violation> {
        let (header, mut reader) = Header::read(bytes)?;
        let count = read_count(&mut reader, SPANS_MAX)?;
        let mut spans: Vec<(Span, SpanDigest)> = Vec::with_capacity(count);
        for _ in 0..count {
            let from = DocumentId(reader.fixed()?);
            let to = if read_bool(&mut reader)? { Some(DocumentId(reader.fixed()?)) } else { None };
            let apart = match spans.last() {
                Some((before, _)) => before.to.is_some_and(|to| to <= from),
                None => true,
            };
            if !apart || to.is_some_and(|to| to <= from) {
                return Err(Violation::Order);
            }
            spans.push((Span { from, to }, reader.fixed()?));
        }
        reader.finish()?;
        Ok(Self { header, spans })
    }
}

/// Writes the response to `/ranges`.
pub fn encode_ranges(header: Header, answers: &[SpanAnswer]) -> Vec<u8> {
    let mut writer = header.begin_content();
    write_count(&mut writer, answers.len());
    for answer in answers {
        match answer {
            SpanAnswer::Equal => _ = writer.byte(0),
            SpanAnswer::Items(items) => {
                write_count8(writer.byte(1), items.len());
                for item in items {
                    writer.bytes(&item.document.0).bytes(&item.state);
                }
            }
            SpanAnswer::Parts(parts) => {
                write_count8(writer.byte(2), parts.len());
                for (first, digest) in parts {
                    writer.bytes(&first.0).bytes(digest);
                }
            }
        }
    }
    writer.finish()
}

/// Reads the response to `/ranges`; `None`: it is a hello alone.
///
/// # Errors
///
/// [`Violation`]; nothing of the message counts.
pub fn decode_ranges(bytes: &[u8]) -> Result<(Header, Option<Vec<SpanAnswer>>), Violation> {
    let (header, Some(mut reader)) = Header::read_content(bytes)? else {
        return Ok((Header::read(bytes)?.0, None));
    };
    let count = read_count(&mut reader, SPANS_MAX)?;
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        answers.push(match reader.byte()? {
            0 => SpanAnswer::Equal,
            1 => SpanAnswer::Items(read_items(&mut reader)?),
            2 => SpanAnswer::Parts(read_parts(&mut reader)?),
            tag => return Err(Violation::Flag(tag)),
        });
    }
    reader.finish()?;
    Ok((header, Some(answers)))
}

/// A request for `/vectors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorsRequest {
    /// Between which generations.
    pub header: Header,
    /// How far the requester is.
    pub vectors: Vec<Vector>,
    /// Numbers of chains that fork: does the responder have the same there?
    pub probes: Vec<(Spot, ShortHash)>,
}

/// The response to `/vectors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorsResponse {
    /// How far the responder is with the documents of the request, as far as they are common.
    pub vectors: Vec<Vector>,
    /// Entries of the request whose number the responder has with another hash.
    pub forks: Vec<Spot>,
    /// For each probe, whether the responder has the same.
    pub agreements: Vec<bool>,
    /// Whether the responder has more that the requester lacks.
    pub more: bool,
    /// What the requester lacks, except of chains that fork.
    pub piece: Vec<u8>,
}

impl VectorsRequest {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.header.begin();
        write_vectors(&mut writer, &self.vectors);
        write_count(&mut writer, self.probes.len());
        for (spot, hash) in &self.probes {
            write_spot(&mut writer, *spot);
            writer.bytes(hash);
        }
        writer.finish()
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`Violation`]; nothing of the message counts.
    pub fn decode(bytes: &[u8]) -> Result<Self, Violation> {
        let (header, mut reader) = Header::read(bytes)?;
        let vectors = read_vectors(&mut reader)?;
        let count = read_count(&mut reader, FORKS_MAX)?;
        let mut probes = Vec::with_capacity(count);
        for _ in 0..count {
            probes.push((read_spot(&mut reader)?, reader.fixed()?));
        }
        reader.finish()?;
        Ok(Self { header, vectors, probes })
    }
}

impl VectorsResponse {
    /// Writes the body.
    pub fn encode(&self, header: Header) -> Vec<u8> {
        let mut writer = header.begin_content();
        write_vectors(&mut writer, &self.vectors);
        write_count(&mut writer, self.forks.len());
        self.forks.iter().for_each(|spot| write_spot(&mut writer, *spot));
        write_count(&mut writer, self.agreements.len());
        self.agreements.iter().for_each(|agrees| _ = writer.byte(u8::from(*agrees)));
        writer.byte(u8::from(self.more)).bytes(&self.piece);
        writer.finish()
    }

    /// Reads a body; `None`: it is a hello alone.
    ///
    /// # Errors
    ///
    /// [`Violation`]; nothing of the message counts.
    pub fn decode(bytes: &[u8]) -> Result<(Header, Option<Self>), Violation> {
        let (header, Some(mut reader)) = Header::read_content(bytes)? else {
            return Ok((Header::read(bytes)?.0, None));
        };
        let vectors = read_vectors(&mut reader)?;
        let count = read_count(&mut reader, FORKS_MAX)?;
        let forks = (0..count).map(|_| read_spot(&mut reader)).collect::<Result<_, _>>()?;
        let count = read_count(&mut reader, FORKS_MAX)?;
        let agreements = (0..count).map(|_| read_bool(&mut reader)).collect::<Result<_, _>>()?;
        let more = read_bool(&mut reader)?;
        let piece = read_piece(&reader)?;
        Ok((header, Some(Self { vectors, forks, agreements, more, piece })))
    }
}

/// A request for `/changes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesRequest {
    /// Between which generations.
    pub header: Header,
    /// What the responder lacks.
    pub piece: Vec<u8>,
}

/// The response to `/changes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangesResponse {
    /// How many changes and events the piece had.
    pub received: u64,
    /// How many are durable there now and were not before.
    pub added: u64,
}

impl ChangesRequest {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.header.begin();
        writer.bytes(&self.piece);
        writer.finish()
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`Violation`]; nothing of the message counts.
    pub fn decode(bytes: &[u8]) -> Result<Self, Violation> {
        let (header, reader) = Header::read(bytes)?;
        Ok(Self { header, piece: read_piece(&reader)? })
    }
}

impl ChangesResponse {
    /// Writes the body.
    pub fn encode(&self, header: Header) -> Vec<u8> {
        let mut writer = header.begin_content();
        writer.u64(self.received).u64(self.added);
        writer.finish()
    }

    /// Reads a body; `None`: it is a hello alone.
    ///
    /// # Errors
    ///
    /// [`Violation`]; nothing of the message counts.
    pub fn decode(bytes: &[u8]) -> Result<(Header, Option<Self>), Violation> {
        let (header, Some(mut reader)) = Header::read_content(bytes)? else {
            return Ok((Header::read(bytes)?.0, None));
        };
        let response = Self { received: reader.u64()?, added: reader.u64()? };
        reader.finish()?;
        Ok((header, Some(response)))
    }
}

impl Header {
    /// What stands for a generation that is not known.
    pub const UNKNOWN: Generation = Generation([0; 16]);

    /// Reads the header of any body, and leaves the rest.
    ///
    /// # Errors
    ///
    /// [`Violation`], also if the body is longer than [`BODY_BYTES_MAX`].
    pub fn read(bytes: &[u8]) -> Result<(Self, Reader<'_>), Violation> {
        limit(bytes.len(), BODY_BYTES_MAX)?;
        let mut reader = Reader::new(bytes);
        let version = reader.byte()?;
        if version < PROTOCOL_MIN || PROTOCOL_MAX < version {
            return Err(Violation::Version(version));
        }
        let sender = Generation(reader.fixed()?);
        let receiver = Generation(reader.fixed()?);
        if sender == Self::UNKNOWN {
            return Err(Violation::Number);
        }
        let takes = !read_bool(&mut reader)?;
        Ok((Self { sender, receiver, takes }, reader))
    }

    /// Writes a hello alone, as the response to anything but `/sync`.
    pub fn encode_alone(self) -> Vec<u8> {
        let mut writer = self.begin();
        writer.byte(0);
        writer.finish()
    }

    fn begin(self) -> Writer {
        let mut writer = Writer::new();
        writer.byte(PROTOCOL_MAX).bytes(&self.sender.0).bytes(&self.receiver.0);
        writer.byte(u8::from(!self.takes));
        writer
    }

    fn begin_content(self) -> Writer {
        let mut writer = self.begin();
        writer.byte(1);
        writer
    }

    fn read_content(bytes: &[u8]) -> Result<(Self, Option<Reader<'_>>), Violation> {
        let (header, mut reader) = Self::read(bytes)?;
        if read_bool(&mut reader)? {
            return Ok((header, Some(reader)));
        }
        reader.finish()?;
        Ok((header, None))
    }
}

fn read_list(reader: &mut Reader<'_>, digest: ListDigest) -> Result<Vec<Exclusion>, Violation> {
    let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    limit(count, EXCLUSIONS_MAX)?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(Exclusion(reader.fixed()?));
    }
    ascending(list.iter())?;
    if list_digest(&list) == digest { Ok(list) } else { Err(Violation::Digest) }
}

fn read_items(reader: &mut Reader<'_>) -> Result<Vec<Item>, Violation> {
    let count = usize::from(reader.byte()?);
    limit(count, ITEMS_MAX)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(Item { document: DocumentId(reader.fixed()?), state: reader.fixed()? });
    }
    ascending(items.iter().map(|item| item.document))?;
    Ok(items)
}

fn read_parts(reader: &mut Reader<'_>) -> Result<Vec<(DocumentId, SpanDigest)>, Violation> {
    let count = usize::from(reader.byte()?);
    limit(count, PARTS_MAX)?;
    if count < 2 {
        return Err(Violation::Number);
    }
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        parts.push((DocumentId(reader.fixed()?), reader.fixed()?));
    }
    ascending(parts.iter().map(|(first, _)| *first))?;
    Ok(parts)
}

fn write_vectors(writer: &mut Writer, vectors: &[Vector]) {
    write_count(writer, vectors.len());
    for vector in vectors {
        writer.bytes(&vector.document.0);
        write_count(writer, vector.entries.len());
        for entry in &vector.entries {
            writer.byte(entry.log.tag()).bytes(&entry.actor.0).u32(entry.seq).bytes(&entry.hash);
        }
    }
}

fn read_vectors(reader: &mut Reader<'_>) -> Result<Vec<Vector>, Violation> {
    let count = read_count(reader, VECTORS_MAX)?;
    let mut vectors = Vec::with_capacity(count);
    for _ in 0..count {
        let document = DocumentId(reader.fixed()?);
        let count = read_count(reader, ENTRIES_MAX)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let log = read_log(reader)?;
            let actor = ActorId(reader.fixed()?);
            entries.push(Entry { log, actor, seq: read_seq(reader)?, hash: reader.fixed()? });
        }
        let branch = |entry: &Entry| (entry.log == Log::Void).then_some((entry.seq, entry.hash));
        ascending(entries.iter().map(|entry| (entry.log, entry.actor, branch(entry))))?;
        vectors.push(Vector { document, entries });
    }
    ascending(vectors.iter().map(|vector| vector.document))?;
    Ok(vectors)
}

fn write_spot(writer: &mut Writer, spot: Spot) {
    let chain = spot.chain;
    writer.bytes(&chain.document.0).byte(chain.log.tag()).bytes(&chain.actor.0).u32(spot.seq);
}

fn read_spot(reader: &mut Reader<'_>) -> Result<Spot, Violation> {
    let document = DocumentId(reader.fixed()?);
    let log = read_log(reader)?;
    if log == Log::Void {
        return Err(Violation::Flag(log.tag()));
    }
    let chain = Chain { document, log, actor: ActorId(reader.fixed()?) };
    Ok(Spot { chain, seq: read_seq(reader)? })
}

impl Log {
    const fn tag(self) -> u8 {
        match self {
            Self::Changes => 0,
            Self::Events => 1,
            Self::Void => 2,
        }
    }
}

fn read_log(reader: &mut Reader<'_>) -> Result<Log, Violation> {
    match reader.byte()? {
        0 => Ok(Log::Changes),
        1 => Ok(Log::Events),
        2 => Ok(Log::Void),
        tag => Err(Violation::Flag(tag)),
    }
}

/// Numbers of chains are 1 to 2^31 - 1.
fn read_seq(reader: &mut Reader<'_>) -> Result<u32, Violation> {
    let seq = reader.u32()?;
    if 0 < seq && seq <= u32::MAX >> 1 { Ok(seq) } else { Err(Violation::Number) }
}

fn read_bool(reader: &mut Reader<'_>) -> Result<bool, Violation> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        tag => Err(Violation::Flag(tag)),
    }
}

fn read_piece(reader: &Reader<'_>) -> Result<Vec<u8>, Violation> {
    limit(reader.rest().len(), PIECE_BYTES_MAX)?;
    Ok(reader.rest().to_vec())
}

fn read_count(reader: &mut Reader<'_>, count_max: usize) -> Result<usize, Violation> {
    let count = reader.u16()?.into();
    limit(count, count_max)?;
    Ok(count)
}

/// Lists are cut to their limits, which are below 65,536, where they are made.
fn write_count(writer: &mut Writer, count: usize) {
    writer.u16(u16::try_from(count).unwrap_or(u16::MAX));
}

fn write_count8(writer: &mut Writer, count: usize) {
    writer.byte(u8::try_from(count).unwrap_or(u8::MAX));
}

fn write_count32(writer: &mut Writer, count: usize) {
    writer.u32(u32::try_from(count).unwrap_or(u32::MAX));
}

const fn limit(count: usize, count_max: usize) -> Result<(), Violation> {
    if count <= count_max { Ok(()) } else { Err(Violation::TooMany { count, count_max }) }
}

fn ascending<T: PartialOrd>(list: impl Iterator<Item = T>) -> Result<(), Violation> {
    if list.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(Violation::Order) }
}

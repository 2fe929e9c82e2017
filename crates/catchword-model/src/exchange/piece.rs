//! A piece: what one message carries of documents.

use std::collections::BTreeSet;

use crate::change::columns::{Input, write_len, write_prefixed, write_unsigned};
use crate::change::read::ReadError;
use crate::event::ReadingEvent;
use crate::hlc::Hlc;
use crate::id::{ActorId, Author, BookId, DeviceId, DocumentId, EventHash, Generation};
use crate::schema::DocumentKind;

use super::{Signed, Statement};

/// A piece as it is sent, in bytes.
pub const PIECE_BYTES_MAX: usize = 4 << 20;
/// What the runs and events of a piece may become, in bytes. It is held in memory.
pub const CONTENT_BYTES_MAX: usize = 32 << 20;
/// Changes and events of a piece.
pub const CHANGES_MAX: usize = 65_536;
/// Statements of a piece: each costs a signature's verification.
pub const STATEMENTS_MAX: usize = 16_384;

const VERSION: u8 = 1;
/// The key of an Ed25519 device has 44 bytes; one of P-256, which some platforms may bring, 91.
const SPKI_BYTES_MAX: usize = 128;
const OF_CHANGE: u8 = 0;
const OF_EVENT: u8 = 1;

/// Which document a parcel is about, said so that the receiver can make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocumentName {
    /// What is about several books.
    Library,
    /// A book's own document.
    Book(BookId),
    /// The notes of a book.
    Notes(BookId),
}

impl DocumentName {
    /// Returns the id of the document.
    pub fn id(self) -> DocumentId {
        match self {
            Self::Library => DocumentId::library(),
            Self::Book(book) => book.document(),
            Self::Notes(book) => book.notes_document(),
        }
    }

    /// Returns what kind of document it is.
    pub const fn kind(self) -> DocumentKind {
        match self {
            Self::Library => DocumentKind::Library,
            Self::Book(_) => DocumentKind::Book,
            Self::Notes(_) => DocumentKind::Notes,
        }
    }

    /// Returns the book it belongs to.
    pub const fn book(self) -> Option<BookId> {
        match self {
            Self::Library => None,
            Self::Book(book) | Self::Notes(book) => Some(book),
        }
    }
}

/// Consecutive reading events of one actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRun {
    events: Vec<ReadingEvent>,
}

impl EventRun {
    /// Returns a run of these events; `None` if they are none, or each is not the next of the same actor.
    pub fn new(events: Vec<ReadingEvent>) -> Option<Self> {
        let follows = |pair: &[ReadingEvent]| match pair {
            [before, after] => {
                (after.book, after.actor, after.n) == (before.book, before.actor, before.n + 1)
                    && after.before == before.hash()
            }
            _ => false,
        };
        let run = !events.is_empty() && events.windows(2).all(follows);
        run.then_some(Self { events })
    }

    /// Returns the events, ascending by number.
    pub fn events(&self) -> &[ReadingEvent] {
        &self.events
    }
}

/// What is sent of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Which document.
    pub name: DocumentName,
    /// Records of the log, each with consecutive changes of one actor.
    pub runs: Vec<Vec<u8>>,
    /// Reading events; none but in a book's own document.
    pub events: Vec<EventRun>,
    /// Statements about actors of this document.
    pub statements: Vec<Statement>,
}

impl Parcel {
    /// Returns an empty parcel.
    pub const fn new(name: DocumentName) -> Self {
        Self { name, runs: Vec::new(), events: Vec::new(), statements: Vec::new() }
    }

    /// Returns whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.events.is_empty() && self.statements.is_empty()
    }
}

/// What one message carries: parcels, no two of one document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// The parcels.
    pub parcels: Vec<Parcel>,
}

/// Bytes are not a piece of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PieceError {
    /// The bytes end before what they announce.
    #[error("a piece is cut off")]
    Truncated,
    /// The piece has another version.
    #[error("a piece of version {0}, which is not known here")]
    Version(u8),
    /// A limit of this module is passed.
    #[error("a piece is larger than allowed")]
    TooLarge,
    /// A number or a kind is out of range.
    #[error("a piece holds a number out of range")]
    Number,
    /// Two parcels are of one document, or events are of another one.
    #[error("a piece has two parcels of one document, or events of another one")]
    Document,
    /// The bytes say what other bytes would say too.
    #[error("a piece is not in its one form")]
    NotCanonical,
}

impl From<ReadError> for PieceError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Truncated => Self::Truncated,
            ReadError::TooLarge => Self::TooLarge,
            ReadError::NotAChange
            | ReadError::Number
            | ReadError::Text
            | ReadError::Column
            | ReadError::Checksum
            | ReadError::NotCanonical => Self::Number,
        }
    }
}

/// A public key and a generation.
type Signer = (Vec<u8>, Generation);

impl Piece {
    /// Encodes the piece.
    pub fn encode(&self) -> Vec<u8> {
        let mut signers: Vec<Signer> = Vec::new();
        let mut out = Vec::new();
        write_len(&mut out, self.parcels.len());
        for parcel in &self.parcels {
            write_parcel(&mut out, parcel, &mut signers);
        }
        let mut piece = Vec::with_capacity(out.len() + 64 * signers.len() + 8);
        piece.push(VERSION);
        write_len(&mut piece, signers.len());
        for (spki, generation) in &signers {
            write_prefixed(&mut piece, spki);
            piece.extend_from_slice(&generation.0);
        }
        piece.extend_from_slice(&out);
        piece
    }

    /// Reads what [`encode`](Self::encode) wrote. What is in the runs is not looked at, and neither is
    /// whether statements are valid.
    ///
    /// # Errors
    ///
    /// [`PieceError`] says which rule the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Self, PieceError> {
        if PIECE_BYTES_MAX < bytes.len() {
            return Err(PieceError::TooLarge);
        }
        let mut input = Input(bytes);
        let [version] = input.array()?;
        if version != VERSION {
            return Err(PieceError::Version(version));
        }
        let signers = (0..input.len()?).map(|_| read_signer(&mut input));
        let signers = signers.collect::<Result<Vec<_>, _>>()?;
        let mut left = Left { runs: CHANGES_MAX, events: CHANGES_MAX, statements: STATEMENTS_MAX };
        let parcels = input.len()?;
        if CHANGES_MAX < parcels {
            return Err(PieceError::TooLarge);
        }
        let parcels = (0..parcels).map(|_| read_parcel(&mut input, &signers, &mut left));
        let piece = Self { parcels: parcels.collect::<Result<_, _>>()? };
        let documents: BTreeSet<DocumentName> =
            piece.parcels.iter().map(|parcel| parcel.name).collect();
        if documents.len() != piece.parcels.len() {
            return Err(PieceError::Document);
        }
        // An unused or repeated signer, a longer number, something behind the end.
        if piece.encode() == bytes { Ok(piece) } else { Err(PieceError::NotCanonical) }
    }
}

/// How much of what is counted over a whole piece may still come.
struct Left {
    runs: usize,
    events: usize,
    statements: usize,
}

fn write_parcel(out: &mut Vec<u8>, parcel: &Parcel, signers: &mut Vec<Signer>) {
    match parcel.name {
        DocumentName::Library => out.push(0),
        DocumentName::Book(book) => {
            out.push(1);
            out.extend_from_slice(&book.0);
        }
        DocumentName::Notes(book) => {
            out.push(2);
            out.extend_from_slice(&book.0);
        }
    }
    write_len(out, parcel.runs.len());
    parcel.runs.iter().for_each(|run| write_prefixed(out, run));
    write_len(out, parcel.events.len());
    parcel.events.iter().for_each(|run| write_events(out, run));
    write_len(out, parcel.statements.len());
    for statement in &parcel.statements {
        let signer = (statement.public_key_spki.clone(), statement.generation);
        let place = signers.iter().position(|known| *known == signer).unwrap_or_else(|| {
            signers.push(signer);
            signers.len() - 1
        });
        write_statement(out, statement, place);
    }
}

fn read_parcel(
    input: &mut Input<'_>,
    signers: &[Signer],
    left: &mut Left,
) -> Result<Parcel, PieceError> {
    let [kind] = input.array()?;
    let name = match kind {
        0 => DocumentName::Library,
        1 => DocumentName::Book(BookId(input.array()?)),
        2 => DocumentName::Notes(BookId(input.array()?)),
        _ => return Err(PieceError::Number),
    };
    let mut parcel = Parcel::new(name);
    let runs = input.len()?;
    left.runs = left.runs.checked_sub(runs).ok_or(PieceError::TooLarge)?;
    for _ in 0..runs {
        parcel.runs.push(input.prefixed()?.to_vec());
    }
    for _ in 0..input.len()? {
        let book = match name {
            DocumentName::Book(book) => book,
            DocumentName::Library | DocumentName::Notes(_) => return Err(PieceError::Document),
        };
        parcel.events.push(read_events(input, book, left)?);
    }
    let statements = input.len()?;
    left.statements = left.statements.checked_sub(statements).ok_or(PieceError::TooLarge)?;
    for _ in 0..statements {
        parcel.statements.push(read_statement(input, name.id(), signers)?);
    }
    Ok(parcel)
}

fn read_signer(input: &mut Input<'_>) -> Result<Signer, PieceError> {
    let spki = input.prefixed()?;
    if SPKI_BYTES_MAX < spki.len() {
        return Err(PieceError::TooLarge);
    }
    Ok((spki.to_vec(), Generation(input.array()?)))
}

fn write_statement(out: &mut Vec<u8>, statement: &Statement, signer: usize) {
    write_len(out, signer);
    write_unsigned(out, u64::from(statement.n));
    out.push(match statement.signed {
        Signed::Change { .. } => OF_CHANGE,
        Signed::Event { .. } => OF_EVENT,
    });
    write_unsigned(out, statement.signed.number());
    out.extend_from_slice(&statement.hash);
    out.extend_from_slice(&statement.signature);
}

fn read_statement(
    input: &mut Input<'_>,
    document: DocumentId,
    signers: &[Signer],
) -> Result<Statement, PieceError> {
    let place = usize::try_from(input.unsigned()?).map_err(|_| PieceError::Number)?;
    let (public_key_spki, generation) = signers.get(place).cloned().ok_or(PieceError::Number)?;
    let n = u32::try_from(input.unsigned()?).map_err(|_| PieceError::Number)?;
    let [kind] = input.array()?;
    let number = input.unsigned()?;
    let signed = match kind {
        OF_CHANGE => Signed::Change { seq: number },
        OF_EVENT => Signed::Event { n: number },
        _ => return Err(PieceError::Number),
    };
    let (hash, signature) = (input.array()?, input.array()?);
    let device = DeviceId::derive(&public_key_spki, generation);
    let actor: ActorId = Author { device, n }.actor(document);
    Ok(Statement { document, actor, n, signed, hash, public_key_spki, generation, signature })
}

fn write_events(out: &mut Vec<u8>, run: &EventRun) {
    let Some(first) = run.events.first() else { return };
    out.extend_from_slice(&first.actor.0);
    write_unsigned(out, first.n);
    out.extend_from_slice(&first.before.0);
    write_len(out, run.events.len());
    for event in &run.events {
        for number in [event.pass, event.from_ppm, event.to_ppm, event.seconds, event.turns] {
            write_unsigned(out, u64::from(number));
        }
        write_unsigned(out, event.wall_ms);
        write_unsigned(out, event.stamp.packed());
    }
}

fn read_events(
    input: &mut Input<'_>,
    book: BookId,
    left: &mut Left,
) -> Result<EventRun, PieceError> {
    let actor = ActorId(input.array()?);
    let (mut n, mut before) = (input.unsigned()?, EventHash(input.array()?));
    let count = input.len()?;
    left.events = left.events.checked_sub(count).ok_or(PieceError::TooLarge)?;
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        let event = read_event(input, ReadingEvent { n, before, ..blank(book, actor) })?;
        (n, before) = (n.checked_add(1).ok_or(PieceError::Number)?, event.hash());
        events.push(event);
    }
    EventRun::new(events).ok_or(PieceError::NotCanonical)
}

fn blank(book: BookId, actor: ActorId) -> ReadingEvent {
    let before = EventHash([0; 32]);
    let (pass, from_ppm, to_ppm, seconds, turns) = (0, 0, 0, 0, 0);
    let (wall_ms, stamp) = (0, Hlc::ZERO);
    ReadingEvent {
        book,
        actor,
        n: 0,
        before,
        pass,
        from_ppm,
        to_ppm,
        seconds,
        turns,
        wall_ms,
        stamp,
    }
}

fn read_event(input: &mut Input<'_>, blank: ReadingEvent) -> Result<ReadingEvent, PieceError> {
    let mut small = || {
        let number = input.unsigned().map_err(PieceError::from)?;
        u32::try_from(number).map_err(|_| PieceError::Number)
    };
    let (pass, from_ppm, to_ppm) = (small()?, small()?, small()?);
    let (seconds, turns) = (small()?, small()?);
    let wall_ms = input.unsigned()?;
    let stamp = Hlc::from_packed(input.unsigned()?).ok_or(PieceError::Number)?;
    let event = ReadingEvent { pass, from_ppm, to_ppm, seconds, turns, wall_ms, stamp, ..blank };
    // The fixed form says what is in range.
    ReadingEvent::decode(&event.encode()).map_err(|_| PieceError::Number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOK: BookId = BookId([7; 32]);

    fn event(n: u64, before: EventHash) -> ReadingEvent {
        let stamp = Hlc::new(1_780_000_000_000, 1).unwrap();
        ReadingEvent {
            n,
            before,
            pass: 1,
            to_ppm: 20,
            seconds: 30,
            stamp,
            ..blank(BOOK, ActorId([2; 16]))
        }
    }

    fn statement(signed: Signed) -> Statement {
        let (public_key_spki, generation) = (vec![1; 44], Generation([4; 16]));
        let device = DeviceId::derive(&public_key_spki, generation);
        let document = BOOK.document();
        let actor = Author { device, n: 0 }.actor(document);
        let (hash, signature) = ([5; 32], [6; 64]);
        Statement { document, actor, n: 0, signed, hash, public_key_spki, generation, signature }
    }

    fn piece() -> Piece {
        let first = event(1, EventHash([0; 32]));
        let second = event(2, first.hash());
        let parcel = Parcel {
            name: DocumentName::Book(BOOK),
            runs: vec![vec![1, 2, 3], Vec::new()],
            events: vec![EventRun::new(vec![first, second]).unwrap()],
            statements: vec![
                statement(Signed::Change { seq: 300 }),
                statement(Signed::Event { n: 2 }),
            ],
        };
        let library = Parcel { runs: vec![vec![9; 200]], ..Parcel::new(DocumentName::Library) };
        let notes = Parcel::new(DocumentName::Notes(BOOK));
        Piece { parcels: vec![library, parcel, notes] }
    }

    #[test]
    fn a_piece_says_everything_again_and_names_a_signer_once() {
        let bytes = piece().encode();
        assert_eq!(Piece::decode(&bytes), Ok(piece()));
        assert_eq!(bytes.windows(44).filter(|window| *window == [1; 44]).count(), 1);
    }

    #[test]
    fn a_piece_that_is_cut_off_or_longer_is_refused() {
        let bytes = piece().encode();
        for cut in 0..bytes.len() {
            assert!(Piece::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [bytes.clone(), vec![0]].concat();
        assert_eq!(Piece::decode(&longer), Err(PieceError::NotCanonical));
        let other = [vec![2], bytes[1..].to_vec()].concat();
        assert_eq!(Piece::decode(&other), Err(PieceError::Version(2)));
    }

    #[test]
    fn two_parcels_of_one_document_are_refused() {
        let mut twice = piece();
        twice.parcels.push(Parcel::new(DocumentName::Library));
        assert_eq!(Piece::decode(&twice.encode()), Err(PieceError::Document));
    }

    #[test]
    fn events_have_no_place_but_in_a_book() {
        let mut wrong = piece();
        wrong.parcels[1].name = DocumentName::Notes(BookId([8; 32]));
        assert_eq!(Piece::decode(&wrong.encode()), Err(PieceError::Document));
    }

    #[test]
    fn a_gap_between_events_is_no_run() {
        let first = event(1, EventHash([0; 32]));
        assert_eq!(EventRun::new(Vec::new()), None);
        assert_eq!(EventRun::new(vec![first, event(3, first.hash())]), None);
        assert_eq!(EventRun::new(vec![first, event(2, EventHash([9; 32]))]), None);
    }

    #[test]
    fn the_limits_hold_at_the_bound_and_not_one_past_it() {
        let of = |bytes| Piece {
            parcels: vec![Parcel {
                runs: vec![vec![0; bytes]],
                ..Parcel::new(DocumentName::Library)
            }],
        };
        let frame = of(PIECE_BYTES_MAX - 100).encode().len() - (PIECE_BYTES_MAX - 100);
        let largest = of(PIECE_BYTES_MAX - frame);
        assert_eq!(largest.encode().len(), PIECE_BYTES_MAX);
        assert_eq!(Piece::decode(&largest.encode()), Ok(largest));
        let larger = of(PIECE_BYTES_MAX - frame + 1).encode();
        assert_eq!(Piece::decode(&larger), Err(PieceError::TooLarge));

        let of = |count| {
            let mut piece = piece();
            piece.parcels[1].statements = vec![statement(Signed::Change { seq: 1 }); count];
            piece
        };
        assert_eq!(Piece::decode(&of(STATEMENTS_MAX).encode()), Ok(of(STATEMENTS_MAX)));
        let more = of(STATEMENTS_MAX + 1).encode();
        assert_eq!(Piece::decode(&more), Err(PieceError::TooLarge));

        let of = |count: usize| {
            let mut events = vec![event(1, EventHash([0; 32]))];
            while events.len() < count {
                let last = events[events.len() - 1];
                events.push(event(last.n + 1, last.hash()));
            }
            let run = EventRun::new(events).unwrap();
            let parcel = Parcel { events: vec![run], ..Parcel::new(DocumentName::Book(BOOK)) };
            Piece { parcels: vec![parcel] }
        };
        assert!(Piece::decode(&of(CHANGES_MAX).encode()).is_ok());
        assert_eq!(Piece::decode(&of(CHANGES_MAX + 1).encode()), Err(PieceError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_reads_has_one_form_and_nothing_panics(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            if let Ok(piece) = Piece::decode(&bytes) {
                prop_assert_eq!(piece.encode(), bytes);
            }
            let mut harmed = piece().encode();
            let place = at.index(harmed.len());
            harmed[place] ^= 1 << bit;
            if let Ok(piece) = Piece::decode(&harmed) {
                prop_assert_eq!(piece.encode(), harmed);
            }
        }
    }
}

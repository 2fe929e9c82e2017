//! Reading events: immutable facts, numbered 1, 2, 3 … for each actor without gaps.

use crate::hlc::Hlc;
use crate::id::{ActorId, BookId, EventHash, sha256};

/// Longest time one event may claim, in seconds.
pub const EVENT_SECONDS_MAX: u32 = 86_400;
const VERSION: u8 = 1;

/// This device read from here to there, that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadingEvent {
    /// Which book.
    pub book: BookId,
    /// Whose event, and of which of its turns in the book.
    pub actor: ActorId,
    /// The number of this event among those of the actor, from 1.
    pub n: u64,
    /// The hash of the event before; zero for the first.
    pub before: EventHash,
    /// Which reading of the book.
    pub pass: u32,
    /// Where reading began, in parts per million.
    pub from_ppm: u32,
    /// Where reading ended, in parts per million.
    pub to_ppm: u32,
    /// How long, in seconds.
    pub seconds: u32,
    /// How many pages were turned.
    pub turns: u32,
    /// The wall clock at the end, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The stamp of the last turn.
    pub stamp: Hlc,
}

/// Bytes are not a reading event of this release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reading event")]
#[non_exhaustive]
pub struct EventError;

impl ReadingEvent {
    /// Length of the encoded form, in bytes.
    pub const LEN: usize = 125;

    /// Encodes the event: a version, then the fields in the order of the type, numbers big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.push(VERSION);
        out.extend_from_slice(&self.book.0);
        out.extend_from_slice(&self.actor.0);
        out.extend_from_slice(&self.n.to_be_bytes());
        out.extend_from_slice(&self.before.0);
        for number in [self.pass, self.from_ppm, self.to_ppm, self.seconds, self.turns] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.wall_ms.to_be_bytes());
        out.extend_from_slice(&self.stamp.packed().to_be_bytes());
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`EventError`] for another length or version, numbers out of range, an event numbered 0, or a
    /// first event that has one before it.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventError> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        let event = Self {
            book: BookId(take(&mut rest)?),
            actor: ActorId(take(&mut rest)?),
            n: u64::from_be_bytes(take(&mut rest)?),
            before: EventHash(take(&mut rest)?),
            pass: u32::from_be_bytes(take(&mut rest)?),
            from_ppm: u32::from_be_bytes(take(&mut rest)?),
            to_ppm: u32::from_be_bytes(take(&mut rest)?),
            seconds: u32::from_be_bytes(take(&mut rest)?),
            turns: u32::from_be_bytes(take(&mut rest)?),
            wall_ms: u64::from_be_bytes(take(&mut rest)?),
            stamp: Hlc::from_packed(u64::from_be_bytes(take(&mut rest)?)).ok_or(EventError)?,
        };
        let first = event.before == EventHash([0; 32]);
        let ppm_max = crate::position::PPM_MAX;
        let fits = version == VERSION
            && rest.is_empty()
            && event.n != 0
            && (event.n == 1) == first
            && event.seconds <= EVENT_SECONDS_MAX
            && event.from_ppm <= ppm_max
            && event.to_ppm <= ppm_max
            && (1..=crate::position::PASS_MAX).contains(&event.pass);
        if fits { Ok(event) } else { Err(EventError) }
    }

    /// Returns the hash by which the next event names this one.
    pub fn hash(&self) -> EventHash {
        EventHash(sha256(&[b"catchword/event/v1", &self.encode()]))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], EventError> {
    let (head, tail) = rest.split_first_chunk().ok_or(EventError)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> ReadingEvent {
        ReadingEvent {
            book: BookId([1; 32]),
            actor: ActorId([2; 16]),
            n: 1,
            before: EventHash([0; 32]),
            pass: 1,
            from_ppm: 10,
            to_ppm: 20,
            seconds: 30,
            turns: 4,
            wall_ms: 1_700_000_000_000,
            stamp: Hlc::new(1_700_000_000_000, 3).unwrap(),
        }
    }

    #[test]
    fn an_event_has_one_form_of_a_fixed_length() {
        let bytes = event().encode();
        assert_eq!(bytes.len(), ReadingEvent::LEN);
        assert_eq!(ReadingEvent::decode(&bytes), Ok(event()));
        assert_eq!(ReadingEvent::decode(&bytes[1..]), Err(EventError));
        assert_eq!(ReadingEvent::decode(&[bytes.clone(), vec![0]].concat()), Err(EventError));
    }

    #[test]
    fn an_event_out_of_range_is_refused() {
        for wrong in [
            ReadingEvent { n: 0, ..event() },
            ReadingEvent { n: 2, ..event() },
            ReadingEvent { pass: 0, ..event() },
            ReadingEvent { to_ppm: 1_000_001, ..event() },
            ReadingEvent { seconds: 86_401, ..event() },
        ] {
            assert_eq!(ReadingEvent::decode(&wrong.encode()), Err(EventError), "{wrong:?}");
        }
    }
}

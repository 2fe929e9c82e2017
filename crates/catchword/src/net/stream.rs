//! Streams: one message each way, and no patience for a peer that dawdles.

use std::sync::Arc;
use std::time::Duration;

use catchword_proto::request::{FRAME_BYTES_MAX, Status};
use tokio::time::{Instant, timeout, timeout_at};

use crate::net::quic::{Lost, Slot, code};

/// How long a request may keep us waiting for its first byte.
pub(crate) const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// How long an answer may take to begin: the peer makes a whole piece durable first.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// How long a message may take from its first byte to its last.
pub(crate) const MESSAGE_TIME_MAX: Duration = Duration::from_secs(120);
/// The time over which the slowest rate is measured.
const PACE_SPAN: Duration = Duration::from_secs(10);
/// What must arrive in that time: 1 KiB a second.
const PACE_BYTES_MIN: usize = 10 << 10;
/// Most that is taken off a stream at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// One stream of a connection: a request and its answer, or a pairing.
#[derive(Debug)]
pub struct Stream {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    /// The connection counts as long as one of its streams does.
    _slot: Arc<Slot>,
}

/// A message did not come, or could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer sends more than one message may have. The connection should be closed.
    #[error("a message of more than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
    /// The peer is too slow. The stream was reset.
    #[error("the message did not come in time")]
    TooSlow,
    /// The peer gave up this stream.
    #[error("the peer gave up a stream, code {code:#x}")]
    Reset {
        /// What it said.
        code: u64,
    },
    /// The connection is gone.
    #[error("the connection is lost")]
    Lost(#[source] Lost),
}

impl From<Lost> for StreamError {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl Stream {
    pub(crate) fn new(
        (send, receive): (quinn::SendStream, quinn::RecvStream),
        slot: Arc<Slot>,
    ) -> Self {
        Self { send, receive, _slot: slot }
    }

    /// Reads the one message that the peer sends on this stream.
    ///
    /// # Errors
    ///
    /// [`StreamError`]. The stream is of no use afterwards.
    pub(crate) async fn read_message(&mut self, wait: Duration) -> Result<Vec<u8>, StreamError> {
        let outcome = self.read_to_end(wait).await;
        if outcome.is_err() {
            self.reset();
        }
        outcome
    }

    async fn read_to_end(&mut self, wait: Duration) -> Result<Vec<u8>, StreamError> {
        let mut message = Vec::new();
        let first = timeout(wait, self.next()).await.map_err(|_| StreamError::TooSlow)?;
        let mut pace = Pace::new(Instant::now());
        let mut next = first?;
        while let Some(chunk) = next {
            if FRAME_BYTES_MAX < message.len() + chunk.bytes.len() {
                return Err(StreamError::TooLarge);
            }
            message.extend_from_slice(&chunk.bytes);
            pace.arrived(chunk.bytes.len());
            next = loop {
                pace.check(Instant::now())?;
                if let Ok(next) = timeout_at(pace.deadline(), self.next()).await {
                    break next?;
                }
            };
        }
        Ok(message)
    }

    async fn next(&mut self) -> Result<Option<quinn::Chunk>, StreamError> {
        self.receive.read_chunk(CHUNK_BYTES_MAX, true).await.map_err(read_error)
    }

    /// Sends the one message of this side, and ends its half of the stream.
    ///
    /// # Errors
    ///
    /// [`StreamError`]. The stream is of no use afterwards.
    pub(crate) async fn write_message(&mut self, message: &[u8]) -> Result<(), StreamError> {
        self.write(message).await?;
        // Fails only for a stream that was given up, and then the answer does not come.
        self.send.finish().map_err(|_| StreamError::Lost(Lost::Here))
    }

    /// Reads what has arrived, at least one byte; nothing, if the peer ended its half.
    ///
    /// # Errors
    ///
    /// [`StreamError`], also if nothing arrives in time.
    pub async fn read(&mut self, wait: Duration) -> Result<Vec<u8>, StreamError> {
        let next = timeout(wait, self.next()).await.map_err(|_| StreamError::TooSlow)?;
        Ok(next?.map(|chunk| chunk.bytes.to_vec()).unwrap_or_default())
    }

    /// Sends bytes, and returns when they are on their way.
    ///
    /// # Errors
    ///
    /// [`StreamError`], also if the peer does not take them in time.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let written = timeout(MESSAGE_TIME_MAX, self.send.write_all(bytes)).await;
        written.map_err(|_| StreamError::TooSlow)?.map_err(write_error)
    }

    /// Ends this side's half of the stream, and waits until the peer has everything.
    ///
    /// # Errors
    ///
    /// [`StreamError`]: the peer may not have everything.
    pub async fn finish(&mut self, wait: Duration) -> Result<(), StreamError> {
        // Fails only for a stream that was ended before.
        let _ended_once = self.send.finish();
        let stopped = timeout(wait, self.send.stopped()).await.map_err(|_| StreamError::TooSlow)?;
        match stopped {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(StreamError::Reset { code: code.into_inner() }),
            Err(quinn::StoppedError::ConnectionLost(error)) => {
                Err(StreamError::Lost(Lost::of(&error)))
            }
            Err(quinn::StoppedError::ZeroRttRejected) => Err(StreamError::Lost(Lost::Here)),
        }
    }

    /// Gives up both halves.
    pub fn reset(&mut self) {
        // Both fail only for what is over already.
        let _over = self.send.reset(code(Status::REFUSED));
        let _over = self.receive.stop(code(Status::REFUSED));
    }
}

fn read_error(error: quinn::ReadError) -> StreamError {
    match error {
        quinn::ReadError::Reset(code) => StreamError::Reset { code: code.into_inner() },
        quinn::ReadError::ConnectionLost(error) => StreamError::Lost(Lost::of(&error)),
        quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => StreamError::Lost(Lost::Here),
    }
}

fn write_error(error: quinn::WriteError) -> StreamError {
    match error {
        quinn::WriteError::Stopped(code) => StreamError::Reset { code: code.into_inner() },
        quinn::WriteError::ConnectionLost(error) => StreamError::Lost(Lost::of(&error)),
        quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => {
            StreamError::Lost(Lost::Here)
        }
    }
}

/// How fast a message comes.
#[derive(Debug)]
struct Pace {
    whole_by: Instant,
    span_by: Instant,
    bytes_in_span: usize,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { whole_by: now + MESSAGE_TIME_MAX, span_by: now + PACE_SPAN, bytes_in_span: 0 }
    }

    fn arrived(&mut self, bytes: usize) {
        self.bytes_in_span += bytes;
    }

    /// Returns when to look again, if nothing arrives before.
    fn deadline(&self) -> Instant {
        self.whole_by.min(self.span_by)
    }

    fn check(&mut self, now: Instant) -> Result<(), StreamError> {
        if self.whole_by <= now {
            return Err(StreamError::TooSlow);
        }
        if self.span_by <= now {
            if self.bytes_in_span < PACE_BYTES_MIN {
                return Err(StreamError::TooSlow);
            }
            (self.span_by, self.bytes_in_span) = (now + PACE_SPAN, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trickle(bytes_per_second: usize, seconds: u64) -> Result<(), StreamError> {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for second in 1..=seconds {
            pace.arrived(bytes_per_second);
            pace.check(start + Duration::from_secs(second))?;
        }
        Ok(())
    }

    #[test]
    fn a_kibibyte_a_second_is_fast_enough_and_a_byte_less_is_not() {
        assert_eq!(trickle(1_024, 119), Ok(()));
        assert_eq!(trickle(1_023, 9), Ok(()));
        assert_eq!(trickle(1_023, 10), Err(StreamError::TooSlow));
    }

    #[test]
    fn no_message_takes_more_than_two_minutes() {
        assert_eq!(trickle(1 << 20, 119), Ok(()));
        assert_eq!(trickle(1 << 20, 120), Err(StreamError::TooSlow));
    }

    #[test]
    fn a_fast_beginning_is_no_credit_for_later() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.arrived(1 << 20);
        assert_eq!(pace.deadline(), start + PACE_SPAN);
        assert_eq!(pace.check(start + PACE_SPAN), Ok(()));
        pace.arrived(PACE_BYTES_MIN - 1);
        assert_eq!(pace.check(start + 2 * PACE_SPAN), Err(StreamError::TooSlow));
    }
}

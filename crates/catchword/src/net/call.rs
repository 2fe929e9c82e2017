//! Signed requests over streams: one request and one answer on each.

use std::io;
use std::sync::{Mutex, PoisonError};

use catchword_model::identity::Fingerprint;
use catchword_proto::request::{
    Answer, Call, Channel, EXPORTER_LABEL, Guard, Nonce, Refusal, ResponseError, SigningClock,
    Standing, Status,
};
use catchword_proto::secret::PairSecret;
use catchword_proto::wire::WireError;

use crate::net::quic::{Connection, Lost};
use crate::net::stream::{ANSWER_WAIT, REQUEST_WAIT, Stream, StreamError};

/// What is asked of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// What is to be done, such as `POST`.
    pub method: &'a str,
    /// With what.
    pub path: &'a str,
    /// The rest.
    pub body: &'a [u8],
}

/// A peer's signed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// How the request ended.
    pub status: Status,
    /// What came with it.
    pub body: Vec<u8>,
    /// Bytes of the requests, signatures included.
    pub sent_bytes: u64,
    /// Bytes of the answers, signatures included.
    pub received_bytes: u64,
    /// 1, or 2 if the clocks were too far apart for the first.
    pub round_trips: u32,
}

/// A request had no answer that counts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The request is larger than a message may be. Ask for less.
    #[error("the request is too large")]
    TooLarge(#[source] WireError),
    /// The answer did not come. Try again, on another connection if this one is lost.
    #[error("no answer came")]
    Stream(#[source] StreamError),
    /// What came is not signed by the peer for this request. The connection was closed.
    #[error("the answer is not the peer's")]
    Forged(#[source] ResponseError),
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random(#[source] io::Error),
}

impl CallError {
    /// Returns why the connection is gone, if it is.
    pub fn lost(&self) -> Option<Lost> {
        match self {
            Self::Stream(StreamError::Lost(lost)) => Some(*lost),
            Self::Stream(_) | Self::TooLarge(_) | Self::Forged(_) | Self::Random(_) => None,
        }
    }
}

impl Connection {
    /// Derives the keys for requests over this connection, from what was kept of the pairing.
    ///
    /// # Errors
    ///
    /// [`Lost`] if there is no TLS session.
    pub fn channel(&self, secret: &PairSecret, own: Fingerprint) -> Result<Channel, Lost> {
        Ok(Channel::new(secret, own, self.peer(), self.exporter(EXPORTER_LABEL, b"")?))
    }

    /// Sends a request on a stream of its own, and returns the peer's answer. If the clocks are too far
    /// apart, `clock` is corrected and the request sent once more.
    ///
    /// `now_ms` is the wall clock, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`CallError`]. Whether the request was carried out is unknown.
    pub async fn call(
        &self,
        channel: &Channel,
        clock: &mut SigningClock,
        now_ms: impl Fn() -> u64,
        ask: Ask<'_>,
    ) -> Result<Reply, CallError> {
        let mut call = Call::new(channel, ask.method, ask.path, ask.body);
        let (mut sent_bytes, mut received_bytes, mut round_trips) = (0, 0, 0);
        loop {
            let nonce = nonce().map_err(CallError::Random)?;
            let message = call.message(*clock, now_ms(), nonce).map_err(CallError::TooLarge)?;
            let answer = self.exchange(&message).await.map_err(CallError::Stream)?;
            sent_bytes += message.len() as u64;
            received_bytes += answer.len() as u64;
            round_trips += 1;
            match call.answered(clock, now_ms(), &answer) {
                Ok(Answer::Again) => (),
                Ok(Answer::Done(response)) => {
                    let (status, body) = (response.status, response.body.to_vec());
                    return Ok(Reply { status, body, sent_bytes, received_bytes, round_trips });
                }
                Err(error) => {
                    self.close(Status::MALFORMED);
                    return Err(CallError::Forged(error));
                }
            }
        }
    }

    async fn exchange(&self, message: &[u8]) -> Result<Vec<u8>, StreamError> {
        let mut stream = self.open().await.map_err(StreamError::Lost)?;
        stream.write_message(message).await?;
        let answer = stream.read_message(ANSWER_WAIT).await;
        if answer == Err(StreamError::TooLarge) {
            self.close(Status::TOO_LARGE);
        }
        answer
    }

    /// Reads the request of a stream that the peer opened, and checks it.
    ///
    /// What is refused is refused here: with a signed answer, or by closing the connection. `guard` is the
    /// peer's, over all its connections; `standing` and `now_ms` are asked when the request is there.
    ///
    /// # Errors
    ///
    /// [`IncomingError`]: there is nothing to carry out.
    pub async fn read_request(
        &self,
        mut stream: Stream,
        channel: &Channel,
        guard: &Mutex<Guard>,
        standing: impl FnOnce() -> Standing,
        now_ms: impl FnOnce() -> u64,
    ) -> Result<Incoming, IncomingError> {
        let message = stream.read_message(REQUEST_WAIT).await.map_err(|error| {
            if error == StreamError::TooLarge {
                self.close(Status::TOO_LARGE);
            }
            IncomingError::Stream(error)
        })?;
        let outcome = {
            let now = std::time::Instant::now();
            // What a guard remembers changes in single steps.
            let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
            let admitted = guard.admit(channel, standing(), &message, now_ms(), now);
            admitted.map(|request| {
                let head = request.head;
                let (method, path) = (head.method.to_owned(), head.path.to_owned());
                let body_at = message.len() - request.body.len();
                (method, path, head.time_ms, head.nonce, body_at)
            })
        };
        match outcome {
            Ok((method, path, time_ms, nonce, body_at)) => {
                Ok(Incoming { stream, method, path, time_ms, nonce, message, body_at })
            }
            Err(refusal) => {
                self.refuse(stream, channel, refusal).await;
                Err(IncomingError::Refused { refusal, message })
            }
        }
    }

    async fn refuse(&self, mut stream: Stream, channel: &Channel, refusal: Refusal) {
        match refusal.answer(channel) {
            Some(answer) => {
                // A peer that does not wait for the answer does not need it.
                let _unheard = stream.write_message(&answer).await;
            }
            None => self.close(refusal.status()),
        }
    }
}

/// A peer's signed request, to be answered.
#[derive(Debug)]
pub struct Incoming {
    stream: Stream,
    method: String,
    path: String,
    time_ms: u64,
    nonce: Nonce,
    message: Vec<u8>,
    body_at: usize,
}

/// There is no request to carry out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncomingError {
    /// It did not come. The stream was reset, or the connection closed.
    #[error("the request did not come")]
    Stream(#[source] StreamError),
    /// It was refused.
    #[error("the request was refused")]
    Refused {
        /// Why.
        #[source]
        refusal: Refusal,
        /// What came, to find out whether somebody else signed it.
        message: Vec<u8>,
    },
}

impl Incoming {
    /// Returns what is to be done.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns with what.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the rest.
    pub fn body(&self) -> &[u8] {
        self.message.get(self.body_at..).unwrap_or_default()
    }

    /// Returns the peer's clock when it signed, in milliseconds since the Unix epoch.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Returns how many bytes the request has, its signature included.
    pub fn message_bytes(&self) -> u64 {
        self.message.len() as u64
    }

    /// Signs and sends the answer, and returns how many bytes it has, its signature included.
    ///
    /// # Errors
    ///
    /// [`CallError`]: the peer may not have it.
    pub async fn respond(
        mut self,
        channel: &Channel,
        status: Status,
        body: &[u8],
    ) -> Result<u64, CallError> {
        let answer = channel.response(&self.nonce, status, body).map_err(CallError::TooLarge)?;
        self.stream.write_message(&answer).await.map_err(CallError::Stream)?;
        Ok(answer.len() as u64)
    }
}

fn nonce() -> io::Result<Nonce> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

//! Signed requests and responses: each carries a tag under a key that only the two devices know.
//!
//! TLS says whose certificate is at the other end. The tag says besides that whoever has its key has
//! the secret of the pairing too, and that the message belongs to this connection and no other.
//!
//! ```text
//! request    u64 time_ms | nonce[16] | tag[32] | u8 length | method | u16 length | path | body
//! response   u16 status | tag[32] | body
//!
//! tag of a request    K_req(sender -> receiver) over  "CWREQ1" | ekm[32] | sender[32] | receiver[32]
//!                     | u64 time_ms | nonce[16] | u8 length | method | u16 length | path | SHA-256(body)
//! tag of a response   K_res(sender -> receiver) over  "CWRES1" | ekm[32] | sender[32] | receiver[32]
//!                     | nonce[16] of the request | u16 status | SHA-256(body)
//! ```
//!
//! Sender and receiver are the fingerprints of the two certificates of the connection, never taken
//! from a message. `ekm` comes from the exporter of the TLS session.
//!
//! # Invariants
//!
//! 1. Checks are made in this order: sizes, the peer's standing and rate, tag, time, nonce. Nobody looks
//!    into the body before.
//! 2. A nonce that could still be taken is never forgotten.
//! 3. A clock that is wrong by any amount costs one more round trip, and changes nothing but the
//!    times that are signed.
//!
//! # What is not here
//!
//! What is asked: method, path and body are carried unread.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use catchword_model::id::sha256;
use catchword_model::identity::Fingerprint;

use crate::mac::{MAC_BYTES, MacKey};
use crate::secret::PairSecret;
use crate::wire::{Reader, WireError, Writer};

/// Label of the TLS exporter whose value every tag of a connection covers. Its context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-catchword-sync-v1";
/// Length of that value, in bytes.
pub const EXPORTER_BYTES: usize = 32;

/// A whole request or response, in bytes: two pieces of 4 MiB would fit, and no peer makes us hold more.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// A path with its query, in bytes: the longest that is used has 70.
pub const PATH_BYTES_MAX: usize = 1 << 10;
/// A method, in bytes.
pub const METHOD_BYTES_MAX: usize = 16;
/// Everything of a request but its body, in bytes.
pub const HEADER_BYTES_MAX: usize = 4 << 10;

/// How far a request's time may be from the receiver's clock, in milliseconds, either way.
pub const TIME_WINDOW_MS: u64 = 300_000;
/// How long a nonce is remembered: until its time refuses the request of the fastest clock, too.
pub const NONCE_KEPT: Duration = Duration::from_millis(2 * TIME_WINDOW_MS + 1);
/// How many nonces of one peer are remembered: 100 KiB each.
pub const NONCES_MAX: usize = 4_096;

/// Requests of one peer that are taken in a second, on average.
pub const REQUESTS_PER_SECOND: u32 = 50;
/// Requests of one peer that are taken at once after a pause.
pub const REQUESTS_BURST: u32 = 200;

const NONCE_BYTES: usize = 16;
const REQUEST_FIXED_BYTES: usize = 8 + NONCE_BYTES + MAC_BYTES + 1 + 2;
const RESPONSE_FIXED_BYTES: usize = 2 + MAC_BYTES;
const _: () = assert!(REQUEST_FIXED_BYTES + METHOD_BYTES_MAX + PATH_BYTES_MAX <= HEADER_BYTES_MAX);

/// 16 random bytes, new for every request.
pub type Nonce = [u8; NONCE_BYTES];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Status(pub u16);

impl Status {
    /// Closed, without a reason: for whoever did not show that he is a peer.
    pub const REFUSED: Self = Self(0x20);
    /// Done; the body is the answer.
    pub const OK: Self = Self(0);
    /// More than a limit allows.
    pub const TOO_LARGE: Self = Self(0x30);
    /// Not of the form it should have.
    pub const MALFORMED: Self = Self(0x31);
    /// The time is outside the window; the body is the receiver's time, `u64`, in milliseconds.
    pub const CLOCK_SKEW: Self = Self(0x32);
    /// Too many requests; the body is how long to wait, `u32`, in milliseconds.
    pub const SLOW_DOWN: Self = Self(0x33);
    /// The peer has used up what it may store.
    pub const QUOTA: Self = Self(0x34);
    /// A document is not here, or not for this peer.
    pub const UNKNOWN_DOCUMENT: Self = Self(0x35);
    /// A document is not taken from this peer for now.
    pub const QUARANTINED: Self = Self(0x36);
    /// The receiver failed; the same request may succeed later.
    pub const INTERNAL: Self = Self(0x3f);
}

/// One connection between two paired devices: who is at its ends, and the keys of its tags.
#[derive(Debug, Clone)]
pub struct Channel {
    me: Fingerprint,
    peer: Fingerprint,
    ekm: [u8; EXPORTER_BYTES],
    to_peer: Keys,
    from_peer: Keys,
}

/// The keys of one direction.
#[derive(Debug, Clone)]
struct Keys {
    request: MacKey,
    response: MacKey,
}

impl Keys {
    fn new(secret: &PairSecret, from: Fingerprint, to: Fingerprint) -> Self {
        let key = |label: &[u8]| MacKey::derive(secret, &[label, &from.0, &to.0]);
        Self { request: key(b"catchword/req/v1"), response: key(b"catchword/res/v1") }
    }
}

/// What a request says besides its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The sender's clock, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// New for every request.
    pub nonce: Nonce,
    /// What is to be done, such as `POST`; at most [`METHOD_BYTES_MAX`].
    pub method: &'a str,
    /// With what; at most [`PATH_BYTES_MAX`].
    pub path: &'a str,
}

/// A request that was signed by the peer, is of now, and was not there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What it says besides its body.
    pub head: Head<'a>,
    /// What nobody has looked at yet.
    pub body: &'a [u8],
}

/// An answer that was signed by the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// How the request ended.
    pub status: Status,
    /// What nobody has looked at yet.
    pub body: &'a [u8],
}

impl Channel {
    /// Derives the keys between two devices, for one connection.
    ///
    /// `me` and `peer` are the fingerprints of the certificates of this connection, and `ekm` is the
    /// value of its exporter.
    pub fn new(
        secret: &PairSecret,
        me: Fingerprint,
        peer: Fingerprint,
        ekm: [u8; EXPORTER_BYTES],
    ) -> Self {
        let (to_peer, from_peer) = (Keys::new(secret, me, peer), Keys::new(secret, peer, me));
        Self { me, peer, ekm, to_peer, from_peer }
    }

    /// Returns who is at the other end.
    pub const fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// Signs a request, and returns the message.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLong`] if the method, the path or the whole is longer than allowed.
    pub fn request(&self, head: &Head<'_>, body: &[u8]) -> Result<Vec<u8>, WireError> {
        at_most(head.method.len(), METHOD_BYTES_MAX)?;
        at_most(head.path.len(), PATH_BYTES_MAX)?;
        let header_bytes = REQUEST_FIXED_BYTES + head.method.len() + head.path.len();
        at_most(header_bytes.saturating_add(body.len()), FRAME_BYTES_MAX)?;
        let tag = self.to_peer.request.tag(&[&self.covered_request(Way::ToPeer, head, body)]);
        let mut out = Writer::new();
        out.u64(head.time_ms).bytes(&head.nonce).bytes(&tag).bytes(&head.target()).bytes(body);
        Ok(out.finish())
    }

    /// Signs the answer to the request with this nonce, and returns the message.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLong`] if it is longer than [`FRAME_BYTES_MAX`].
    pub fn response(
        &self,
        nonce: &Nonce,
        status: Status,
        body: &[u8],
    ) -> Result<Vec<u8>, WireError> {
        at_most(RESPONSE_FIXED_BYTES.saturating_add(body.len()), FRAME_BYTES_MAX)?;
        let covered = self.covered_response(Way::ToPeer, nonce, status, body);
        let mut out = Writer::new();
        out.u16(status.0).bytes(&self.to_peer.response.tag(&[&covered])).bytes(body);
        Ok(out.finish())
    }

    /// Reads the answer to the request with this nonce.
    ///
    /// # Errors
    ///
    /// [`ResponseError`]: it is not the peer's, or not the answer to this request.
    pub fn open_response<'a>(
        &self,
        nonce: &Nonce,
        frame: &'a [u8],
    ) -> Result<Response<'a>, ResponseError> {
        at_most(frame.len(), FRAME_BYTES_MAX)?;
        let mut reader = Reader::new(frame);
        let (status, tag, body) = (Status(reader.u16()?), reader.fixed()?, reader.rest());
        let covered = self.covered_response(Way::FromPeer, nonce, status, body);
        if self.from_peer.response.verifies(&[&covered], &tag) {
            Ok(Response { status, body })
        } else {
            Err(ResponseError::Tag)
        }
    }

    fn signed_by_peer(&self, read: &Unchecked<'_>) -> bool {
        let covered = self.covered_request(Way::FromPeer, &read.request.head, read.request.body);
        self.from_peer.request.verifies(&[&covered], &read.tag)
    }

    fn covered_request(&self, way: Way, head: &Head<'_>, body: &[u8]) -> Vec<u8> {
        let mut out = self.covered(b"CWREQ1", way);
        out.u64(head.time_ms).bytes(&head.nonce).bytes(&head.target()).bytes(&sha256(&[body]));
        out.finish()
    }

    fn covered_response(&self, way: Way, nonce: &Nonce, status: Status, body: &[u8]) -> Vec<u8> {
        let mut out = self.covered(b"CWRES1", way);
        out.bytes(nonce).u16(status.0).bytes(&sha256(&[body]));
        out.finish()
    }

    fn covered(&self, label: &[u8], way: Way) -> Writer {
        let (sender, receiver) = match way {
            Way::ToPeer => (self.me, self.peer),
            Way::FromPeer => (self.peer, self.me),
        };
        let mut out = Writer::new();
        out.bytes(label).bytes(&self.ekm).bytes(&sender.0).bytes(&receiver.0);
        out
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    ToPeer,
    FromPeer,
}

impl Head<'_> {
    /// Method and path as they are sent and covered.
    fn target(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.byte(u8::try_from(self.method.len()).unwrap_or(u8::MAX)).bytes(self.method.as_bytes());
        out.u16(u16::try_from(self.path.len()).unwrap_or(u16::MAX)).bytes(self.path.as_bytes());
        out.finish()
    }
}

/// A request whose tag nobody has checked.
struct Unchecked<'a> {
    request: Request<'a>,
    tag: [u8; MAC_BYTES],
}

impl<'a> Unchecked<'a> {
    fn read(frame: &'a [u8]) -> Result<Self, WireError> {
        at_most(frame.len(), FRAME_BYTES_MAX)?;
        let mut reader = Reader::new(frame);
        let (time_ms, nonce, tag) = (reader.u64()?, reader.fixed()?, reader.fixed()?);
        let method = reader.byte()?.into();
        let method = text(reader.take(at_most(method, METHOD_BYTES_MAX)?)?)?;
        let path = reader.u16()?.into();
        let path = text(reader.take(at_most(path, PATH_BYTES_MAX)?)?)?;
        let head = Head { time_ms, nonce, method, path };
        Ok(Self { request: Request { head, body: reader.rest() }, tag })
    }
}

/// Returns whose secret signed a request that did not come under their certificate: somebody has it who
/// should not.
///
/// `ekm` and `me` are those of the connection it came on, `others` are the peers but the one at its end.
pub fn signed_by_another<'s>(
    frame: &[u8],
    ekm: [u8; EXPORTER_BYTES],
    me: Fingerprint,
    others: impl IntoIterator<Item = (Fingerprint, &'s PairSecret)>,
) -> Option<Fingerprint> {
    let read = Unchecked::read(frame).ok()?;
    let mut others = others.into_iter();
    let found =
        others.find(|(peer, secret)| Channel::new(secret, me, *peer, ekm).signed_by_peer(&read));
    found.map(|(peer, _)| peer)
}

/// Whether a peer may ask for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is paired: active, or provisional until its first request.
    Trusted,
    /// It was revoked or deactivated, or never paired.
    Refused,
}

/// Decides which requests of one peer are taken.
///
/// It is kept as long as this process runs, over all connections of the peer.
#[derive(Debug)]
pub struct Guard {
    /// Invariant: the nonces of `order`.
    nonces: BTreeSet<Nonce>,
    /// By when they came.
    order: VecDeque<(Instant, Nonce)>,
    rate: Rate,
}

impl Guard {
    /// Begins with a peer of which nothing came since this process started.
    pub fn new(now: Instant) -> Self {
        Self { nonces: BTreeSet::new(), order: VecDeque::new(), rate: Rate::new(now) }
    }

    /// Takes a request, or says why not.
    ///
    /// `now_ms` is the wall clock, in milliseconds since the Unix epoch; `now` is monotonic.
    ///
    /// # Errors
    ///
    /// [`Refusal`]. Only its [`answer`](Refusal::answer), if there is one, may be sent.
    pub fn admit<'a>(
        &mut self,
        channel: &Channel,
        standing: Standing,
        frame: &'a [u8],
        now_ms: u64,
        now: Instant,
    ) -> Result<Request<'a>, Refusal> {
        let read = Unchecked::read(frame).map_err(Refusal::Form)?;
        if standing == Standing::Refused {
            return Err(Refusal::Standing);
        }
        let nonce = read.request.head.nonce;
        let rate = self.rate.take(now);
        if !channel.signed_by_peer(&read) {
            return Err(Refusal::Tag);
        }
        rate.map_err(|wait| Refusal::SlowDown { nonce, wait })?;
        let time_ms = read.request.head.time_ms;
        if TIME_WINDOW_MS < time_ms.abs_diff(now_ms) {
            return Err(Refusal::ClockSkew { nonce, time_ms, now_ms });
        }
        self.remember(nonce, now)?;
        Ok(read.request)
    }

    fn remember(&mut self, nonce: Nonce, now: Instant) -> Result<(), Refusal> {
        while let Some((since, old)) = self.order.front()
            && NONCE_KEPT <= now.saturating_duration_since(*since)
        {
            self.nonces.remove(old);
            self.order.pop_front();
        }
        if self.nonces.contains(&nonce) {
            return Err(Refusal::Replay);
        }
        if let Some((oldest, _)) = self.order.front()
            && NONCES_MAX <= self.order.len()
        {
            let wait = NONCE_KEPT.saturating_sub(now.saturating_duration_since(*oldest));
            return Err(Refusal::SlowDown { nonce, wait });
        }
        self.nonces.insert(nonce);
        self.order.push_back((now, nonce));
        Ok(())
    }
}

/// How many requests may come now: each takes its share of a second, and shares may be saved up.
#[derive(Debug)]
struct Rate {
    /// Until when the shares are taken. In the past, if some are saved.
    taken_until: Instant,
}

impl Rate {
    const SHARE: Duration = Duration::from_millis(1_000 / REQUESTS_PER_SECOND as u64);
    const SAVED: Duration = Duration::from_millis(20 * (REQUESTS_BURST as u64 - 1));

    const fn new(now: Instant) -> Self {
        Self { taken_until: now }
    }

    /// Takes a share, or says how long to wait for one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let ahead = self.taken_until.saturating_duration_since(now);
        if Self::SAVED < ahead {
            return Err(ahead.saturating_sub(Self::SAVED));
        }
        self.taken_until = self.taken_until.max(now) + Self::SHARE;
        Ok(())
    }
}

/// A request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is too long, or does not read.
    #[error("the request does not read")]
    Form(#[source] WireError),
    /// The peer may not ask for anything.
    #[error("the peer is not trusted")]
    Standing,
    /// The peer did not sign it for this connection.
    #[error("the request is not signed by the peer for this connection")]
    Tag,
    /// Its time is outside the window.
    #[error("the clocks are {} ms apart", time_ms.abs_diff(*now_ms))]
    ClockSkew {
        /// Of the request.
        nonce: Nonce,
        /// The sender's clock.
        time_ms: u64,
        /// The receiver's clock.
        now_ms: u64,
    },
    /// It was there before.
    #[error("the request was there before")]
    Replay,
    /// Too many came.
    #[error("too many requests, wait {} ms", wait.as_millis())]
    SlowDown {
        /// Of the request.
        nonce: Nonce,
        /// How long to wait.
        wait: Duration,
    },
}

impl Refusal {
    /// Returns the signed message that says so to the peer, or `None` if the connection is closed with
    /// [`status`](Self::status) instead.
    pub fn answer(&self, channel: &Channel) -> Option<Vec<u8>> {
        let signed = |nonce, body: &[u8]| channel.response(nonce, self.status(), body).ok();
        match self {
            Self::ClockSkew { nonce, now_ms, .. } => signed(nonce, &now_ms.to_be_bytes()),
            Self::SlowDown { nonce, wait } => {
                // Rounded up: who comes a moment too early waits again.
                let wait_ms = u32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX);
                signed(nonce, &wait_ms.to_be_bytes())
            }
            Self::Form(_) | Self::Standing | Self::Tag | Self::Replay => None,
        }
    }

    /// Returns the code for the peer. Whoever did not show that he is one learns no reason.
    pub const fn status(&self) -> Status {
        match self {
            Self::Form(WireError::TooLong { .. }) => Status::TOO_LARGE,
            Self::Form(_) => Status::MALFORMED,
            Self::ClockSkew { .. } => Status::CLOCK_SKEW,
            Self::SlowDown { .. } => Status::SLOW_DOWN,
            Self::Standing | Self::Tag | Self::Replay => Status::REFUSED,
        }
    }
}

/// An answer is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// It is too long, or does not read.
    #[error("the answer does not read")]
    Form(#[from] WireError),
    /// The peer did not sign it for this request.
    #[error("the answer is not signed by the peer for this request")]
    Tag,
}

/// What a sender knows of a receiver's clock. Kept per peer, and used for signing only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SigningClock {
    offset_ms: i64,
}

impl SigningClock {
    /// Returns the time to sign with, where `now_ms` is this device's wall clock.
    pub fn time_ms(self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.offset_ms)
    }

    /// Returns how far the receiver's clock is ahead, in milliseconds; 0 if it never complained.
    pub const fn offset_ms(self) -> i64 {
        self.offset_ms
    }

    fn correct(&mut self, their_now_ms: u64, now_ms: u64) {
        let (theirs, mine) = (i128::from(their_now_ms), i128::from(now_ms));
        let bounds = (i128::from(i64::MIN), i128::from(i64::MAX));
        let offset = (theirs - mine).clamp(bounds.0, bounds.1);
        self.offset_ms = i64::try_from(offset).unwrap_or_default();
    }
}

/// A request until its answer: it is signed again once, if the clocks are too far apart.
#[derive(Debug)]
pub struct Call<'a> {
    channel: &'a Channel,
    method: &'a str,
    path: &'a str,
    body: &'a [u8],
    /// Of the latest message.
    nonce: Nonce,
    corrected: bool,
}

/// What the answer to a call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The call is over.
    Done(Response<'a>),
    /// The clocks were too far apart: send [`Call::message`] once more.
    Again,
}

impl<'a> Call<'a> {
    /// Begins a call.
    pub const fn new(channel: &'a Channel, method: &'a str, path: &'a str, body: &'a [u8]) -> Self {
        Self { channel, method, path, body, nonce: [0; NONCE_BYTES], corrected: false }
    }

    /// Returns the signed request. `nonce` is drawn anew for each message.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLong`].
    pub fn message(
        &mut self,
        clock: SigningClock,
        now_ms: u64,
        nonce: Nonce,
    ) -> Result<Vec<u8>, WireError> {
        self.nonce = nonce;
        let (method, path) = (self.method, self.path);
        let head = Head { time_ms: clock.time_ms(now_ms), nonce, method, path };
        self.channel.request(&head, self.body)
    }

    /// Reads what came back. A complaint about the clock corrects `clock`.
    ///
    /// # Errors
    ///
    /// [`ResponseError`].
    pub fn answered<'f>(
        &mut self,
        clock: &mut SigningClock,
        now_ms: u64,
        frame: &'f [u8],
    ) -> Result<Answer<'f>, ResponseError> {
        let response = self.channel.open_response(&self.nonce, frame)?;
        if response.status != Status::CLOCK_SKEW || self.corrected {
            return Ok(Answer::Done(response));
        }
        let mut reader = Reader::new(response.body);
        let their_now_ms = reader.u64()?;
        reader.finish()?;
        clock.correct(their_now_ms, now_ms);
        self.corrected = true;
        Ok(Answer::Again)
    }
}

fn at_most(bytes: usize, bytes_max: usize) -> Result<usize, WireError> {
    if bytes_max < bytes { Err(WireError::TooLong { bytes, bytes_max }) } else { Ok(bytes) }
}

fn text(bytes: &[u8]) -> Result<&str, WireError> {
    str::from_utf8(bytes).map_err(|_| WireError::NotUtf8)
}

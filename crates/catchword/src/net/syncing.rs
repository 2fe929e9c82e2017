//! Runs syncs over connections: the machines decide, this carries, and the ledger answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use catchword_model::id::BookId;
use catchword_model::identity::Fingerprint;
use catchword_proto::request::{Channel, SigningClock, Status};
use catchword_proto::session::requester::{self, Ending, Requester};
use catchword_proto::session::responder::{self, Responder};
use catchword_proto::session::{Event, Path, Spot, Transmit};

use crate::net::call::{Ask, CallError, Incoming};
use crate::net::ledger::Ledger;
use crate::net::quic::{Connection, Lost};

/// The method of every request.
pub(crate) const METHOD: &str = "POST";

/// What a sync with one peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReport {
    /// With whom.
    pub peer: Fingerprint,
    /// Where it was met.
    pub address: SocketAddr,
    /// Requests that were answered.
    pub round_trips: u64,
    /// Bodies and signatures of requests, in bytes.
    pub bytes_sent: u64,
    /// Bodies and signatures of responses, in bytes.
    pub bytes_received: u64,
    /// Changes and reading events that were sent.
    pub changes_sent: u64,
    /// Changes and reading events that were received.
    pub changes_received: u64,
    /// Books that have something new here.
    pub books_changed: BTreeSet<BookId>,
    /// Whether both held the same when the last response was made.
    pub in_sync: bool,
    /// How it ended.
    pub ending: Ending,
    /// Chains that have two histories.
    pub forks: Vec<Spot>,
    /// How far the peer's clock is ahead of this device's, in milliseconds.
    pub skew_ms: i64,
}

/// Runs one sync to its end, as the side that dials.
pub(crate) async fn request(
    connection: &Connection,
    channel: &Channel,
    clock: &mut SigningClock,
    ledger: &Arc<Ledger>,
) -> Result<SyncReport, CallError> {
    let mut machine = Requester::new();
    machine.handle_input(requester::Input::Start, Instant::now());
    let mut report = SyncReport {
        peer: connection.peer(),
        address: connection.remote_address(),
        round_trips: 0,
        bytes_sent: 0,
        bytes_received: 0,
        changes_sent: 0,
        changes_received: 0,
        books_changed: BTreeSet::new(),
        in_sync: false,
        ending: Ending::Lost,
        forks: Vec::new(),
        skew_ms: 0,
    };
    loop {
        if let Some(event) = machine.poll_event() {
            match event {
                Event::Ask { peer, question } => {
                    let answer = ledger.answer(peer, question).await;
                    machine.handle_input(requester::Input::Answer(answer), Instant::now());
                }
                Event::Compared { peer, equal } => ledger.compared(peer, equal).await,
                Event::Contained { peer, summary } => ledger.contains(peer, summary),
                Event::Sent { peer, through } => ledger.sent(peer, through),
                Event::Forked(spot) => report.forks.push(spot),
                Event::Ended { ending, report: done } => {
                    report.ending = ending;
                    report.in_sync = ending == Ending::InSync;
                    report.changes_sent = done.changes_sent;
                    report.changes_received = done.changes_received;
                    report.books_changed = ledger.books_changed();
                    report.skew_ms = clock.offset_ms();
                    return Ok(report);
                }
                Event::Answered(_) => (),
            }
            continue;
        }
        let Some(Transmit::Request { path, body }) = machine.poll_transmit() else {
            // A machine that neither asks nor sends nor ends would wait for ever.
            machine.handle_input(requester::Input::Lost, Instant::now());
            continue;
        };
        let ask = Ask { method: METHOD, path: path.as_str(), body: &body };
        let replied = connection.call(channel, clock, || ledger.now_ms(), ask).await;
        let input = match replied {
            Ok(reply) => {
                report.round_trips += u64::from(reply.round_trips);
                report.bytes_sent += reply.sent_bytes;
                report.bytes_received += reply.received_bytes;
                requester::Input::Response { status: reply.status, body: reply.body }
            }
            Err(error) => match error.lost() {
                Some(Lost::Refused) => return Err(error),
                _ => requester::Input::Lost,
            },
        };
        machine.handle_input(input, Instant::now());
    }
}

/// Answers one request, as the side that was dialled.
pub(crate) async fn respond(
    incoming: Incoming,
    channel: &Channel,
    ledger: &Arc<Ledger>,
) -> Result<(), CallError> {
    let path = Path::from_text(incoming.path()).filter(|_| incoming.method() == METHOD);
    let Some(path) = path else {
        return incoming.respond(channel, Status::MALFORMED, b"").await.map(|_| ());
    };
    let mut machine = Responder::new();
    let body = incoming.body().to_vec();
    machine.handle_input(responder::Input::Request { path, body }, Instant::now());
    loop {
        if let Some(event) = machine.poll_event() {
            match event {
                Event::Ask { peer, question } => {
                    let answer = ledger.answer(peer, question).await;
                    machine.handle_input(responder::Input::Answer(answer), Instant::now());
                }
                Event::Sent { peer, through } => ledger.sent(peer, through),
                Event::Compared { .. }
                | Event::Contained { .. }
                | Event::Forked(_)
                | Event::Ended { .. }
                | Event::Answered(_) => (),
            }
            continue;
        }
        return match machine.poll_transmit() {
            Some(Transmit::Response { status, body }) => {
                incoming.respond(channel, status, &body).await.map(|_| ())
            }
            _ => incoming.respond(channel, Status::INTERNAL, b"").await.map(|_| ()),
        };
    }
}

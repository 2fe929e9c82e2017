//! Answering other devices: those that are paired, and those that come to be.

use std::sync::Arc;

use catchword_model::identity::Fingerprint;
use catchword_proto::blob::book_of;
use catchword_proto::request::{EXPORTER_LABEL, Refusal, Standing, signed_by_another};
use catchword_proto::secret::PairSecret;

use crate::net::call::IncomingError;
use crate::net::keeping::Shared;
use crate::net::lending::Lender;
use crate::net::meeting::Skew;
use crate::net::quic::Connection;
use crate::net::syncing::{METHOD, respond};
use crate::net::tls::{Purpose, Trust as _};

/// Takes connections until the endpoint is closed.
pub(crate) async fn accept_all(shared: Arc<Shared>) {
    while let Some(connection) = shared.endpoint.accept().await {
        match connection.purpose() {
            Purpose::Pairing => {
                // Without a window the connection is dropped, and closed by that.
                if let Some(window) = shared.window() {
                    let _full = window.guests.try_send(connection);
                }
            }
            Purpose::Sync => {
                tokio::spawn(serve(Arc::clone(&shared), connection));
            }
        }
    }
}

/// Answers the requests of a peer until its connection is gone.
async fn serve(shared: Arc<Shared>, connection: Connection) {
    let peer = connection.peer();
    let Some(record) = shared.peers.find(peer) else { return };
    let Ok(Some(secret)) = shared.peers.secret(peer) else { return };
    let Ok(channel) = connection.channel(&secret, shared.own) else { return };
    let guard = shared.meetings.guard(peer);
    let ledger = shared.ledger(&record, &secret);
    let standing = || {
        if shared.peers.is_peer(peer) { Standing::Trusted } else { Standing::Refused }
    };
    let mut lender = Lender::new(&shared.library);
    let mut visit = Visit { shared: &shared, peer, is_known: false, is_skewed: false };
    while let Ok(stream) = connection.accept().await {
        let read =
            connection.read_request(stream, &channel, &guard, standing, || shared.now_ms()).await;
        let incoming = match read {
            Ok(incoming) => incoming,
            Err(error) => {
                visit.refused(&connection, &error);
                continue;
            }
        };
        visit.asked(incoming.time_ms());
        // An answer that did not arrive is asked for again.
        let _answered = match book_of(incoming.path()).filter(|_| incoming.method() == METHOD) {
            Some(book) => lender.respond(book, incoming, &channel, &ledger).await,
            None => respond(incoming, &channel, &ledger).await,
        };
        shared.came(peer);
    }
}

/// A connection that a peer has made.
struct Visit<'a> {
    shared: &'a Shared,
    peer: Fingerprint,
    /// Whether a request of it was taken.
    is_known: bool,
    /// Whether it was told that its clock is off, and signs with another one since.
    is_skewed: bool,
}

impl Visit<'_> {
    /// Notes what a request that was taken says of the peer. What cannot be kept is no reason to send it
    /// away: the next request says it again.
    fn asked(&mut self, time_ms: u64) {
        if !self.is_known {
            self.is_known = self.shared.reached(self.peer, None).is_ok();
        }
        if !self.is_skewed {
            self.note_time(time_ms, self.shared.now_ms());
        }
    }

    fn refused(&mut self, connection: &Connection, error: &IncomingError) {
        let IncomingError::Refused { refusal, message } = error else { return };
        match refusal {
            Refusal::ClockSkew { time_ms, now_ms, .. } => {
                self.is_skewed = true;
                self.note_time(*time_ms, *now_ms);
            }
            Refusal::Tag => self.look_for_another(connection, message),
            Refusal::Form(_) | Refusal::Standing | Refusal::Replay | Refusal::SlowDown { .. } => (),
        }
    }

    fn note_time(&self, time_ms: u64, now_ms: u64) {
        let ahead = i128::from(time_ms) - i128::from(now_ms);
        let ahead_ms = i64::try_from(ahead).unwrap_or(i64::MAX);
        let _said_again = self.shared.skewed(self.peer, Skew::Exactly(ahead_ms));
    }

    /// A request with the secret of another peer came under this one's certificate: somebody has what he
    /// should not, and the other peer is barred.
    fn look_for_another(&self, connection: &Connection, message: &[u8]) {
        let Ok(ekm) = connection.exporter(EXPORTER_LABEL, b"") else { return };
        let records = self.shared.peers.records().into_iter();
        let others = records.filter(|record| record.fingerprint != self.peer);
        let others: Vec<(Fingerprint, PairSecret)> = others
            .filter_map(|record| {
                let secret = self.shared.peers.secret(record.fingerprint).ok().flatten()?;
                Some((record.fingerprint, secret))
            })
            .collect();
        let secrets = others.iter().map(|(peer, secret)| (*peer, secret));
        if let Some(robbed) = signed_by_another(message, ekm, self.shared.own, secrets) {
            // What could not be made durable did not happen: the next request tries again.
            let _tried_again = self.shared.bar(robbed, self.peer);
        }
    }
}

//! A sync with one peer: where to find it, what it may mean if somebody else is there, and what is
//! remembered of how it went.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::{DiscoveryKey, utc_day};
use catchword_proto::request::{Channel, Guard, SigningClock, TIME_WINDOW_MS};
use catchword_proto::secret::PairSecret;
use catchword_proto::trust::{Deactivation, PeerRecord, Step, StepError, Verdict};

use crate::event::Event;
use crate::net::call::CallError;
use crate::net::keeping::{LISTEN_TIME, Shared};
use crate::net::ledger::Ledger;
use crate::net::neighbours::Neighbours;
use crate::net::peers::PeerError;
use crate::net::quic::{Candidate, Connection, DialError, Lost, Source};
use crate::net::syncing::{SyncReport, request};
use crate::net::tls::Trust as _;

/// A sync did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// There is no such peer, or what is kept of it could not be read.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The peer is not active.
    #[error("this device is {0}")]
    NotActive(catchword_proto::trust::PeerState),
    /// What this device and the peer share is gone. Pair again.
    #[error("the keys of this pairing are gone; pair again")]
    NoSecret,
    /// No address of the peer is known. Give one.
    #[error("it is not known where this device is; give its address")]
    NoAddress,
    /// The peer could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer does not know this device any more. Pair again.
    #[error("that device does not know this one any more; pair again")]
    UnknownToPeer,
    /// The connection was lost, or what came was not the peer's.
    #[error(transparent)]
    Call(CallError),
}

/// What is remembered of each peer as long as this process runs.
#[derive(Debug, Default)]
pub(crate) struct Meetings {
    peers: Mutex<BTreeMap<Fingerprint, Meeting>>,
}

#[derive(Debug, Clone)]
struct Meeting {
    /// What keeps its requests from being repeated.
    guard: Arc<Mutex<Guard>>,
    /// Held while a sync that was begun here runs.
    turn: Arc<tokio::sync::Mutex<()>>,
    outcome: Option<Outcome>,
}

/// How the last syncs with a peer went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
    /// Since when it is so, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
}

impl Meetings {
    fn of<T>(&self, peer: Fingerprint, with: impl FnOnce(&mut Meeting) -> T) -> T {
        let mut peers = self.lock();
        with(peers.entry(peer).or_insert_with(|| Meeting {
            guard: Arc::new(Mutex::new(Guard::new(Instant::now()))),
            turn: Arc::default(),
            outcome: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, Meeting>> {
        // Every change is one insertion or assignment.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn guard(&self, peer: Fingerprint) -> Arc<Mutex<Guard>> {
        self.of(peer, |meeting| Arc::clone(&meeting.guard))
    }

    /// Returns how the last syncs with a peer went, if there was one since this process started.
    pub(crate) fn outcome(&self, peer: Fingerprint) -> Option<Outcome> {
        self.of(peer, |meeting| meeting.outcome.clone())
    }

    /// Notes how a sync with a peer went, whoever began it.
    pub(crate) fn note(&self, peer: Fingerprint, failure: Option<String>, now_ms: u64) {
        self.of(peer, |meeting| {
            let same = meeting.outcome.as_ref().filter(|outcome| outcome.failure == failure);
            let since_ms = same.map_or(now_ms, |outcome| outcome.since_ms);
            meeting.outcome = Some(Outcome { failure, since_ms });
        });
    }
}

/// A connection to a peer, and what is needed to ask over it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) record: PeerRecord,
    pub(crate) secret: PairSecret,
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
}

/// What was learned of a peer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skew {
    /// It is so many milliseconds ahead.
    Exactly(i64),
    /// It did not object to ours.
    Tolerated,
}

impl Shared {
    /// Syncs with a peer, after a sync with it that is running.
    pub(crate) async fn sync(
        &self,
        peer: Fingerprint,
        address: Option<SocketAddr>,
    ) -> Result<SyncReport, SyncError> {
        let turn = self.meetings.of(peer, |meeting| Arc::clone(&meeting.turn));
        let _mine = turn.lock().await;
        let synced = self.meet(peer, address).await;
        let failure = synced.as_ref().err().map(ToString::to_string);
        self.meetings.note(peer, failure, self.now_ms());
        synced
    }

    async fn meet(
        &self,
        peer: Fingerprint,
        address: Option<SocketAddr>,
    ) -> Result<SyncReport, SyncError> {
        let line = self.connect(peer, address).await?;
        // Begun anew each time: a clock that was set right is noticed.
        let mut clock = SigningClock::default();
        let ledger = self.ledger(&line.record, &line.secret);
        match request(&line.connection, &line.channel, &mut clock, &ledger).await {
            Ok(report) => {
                if 0 < report.round_trips {
                    self.reached(peer, Some(line.connection.remote_address()))?;
                    let told = clock.offset_ms();
                    let skew = if told == 0 { Skew::Tolerated } else { Skew::Exactly(told) };
                    self.skewed(peer, skew)?;
                }
                Ok(report)
            }
            Err(error) => Err(self.broken(peer, error)?),
        }
    }

    /// Makes a connection to a peer.
    pub(crate) async fn connect(
        &self,
        peer: Fingerprint,
        address: Option<SocketAddr>,
    ) -> Result<Line, SyncError> {
        let record = self.peers.find(peer).ok_or(PeerError::Step(StepError::NoPeer))?;
        if !self.peers.is_peer(peer) {
            return Err(SyncError::NotActive(record.state));
        }
        let secret = self.peers.secret(peer)?.ok_or(SyncError::NoSecret)?;
        let reached = self.reach(&record, address, &secret).await;
        if let Err(SyncError::Dial(DialError::Impostor { presented })) = reached {
            self.bar(peer, presented)?;
        }
        let connection = reached?;
        let channel = connection.channel(&secret, self.own).map_err(lost)?;
        Ok(Line { record, secret, connection, channel })
    }

    /// Returns what a call that failed means: a peer that does not know this device is deactivated.
    pub(crate) fn broken(
        &self,
        peer: Fingerprint,
        error: CallError,
    ) -> Result<SyncError, PeerError> {
        if error.lost() != Some(Lost::Refused) {
            return Ok(SyncError::Call(error));
        }
        self.peers.take(Step::Deactivate(peer, Deactivation::UnknownToPeer))?;
        Ok(SyncError::UnknownToPeer)
    }

    /// Makes what answers from the store towards a peer.
    pub(crate) fn ledger(&self, record: &PeerRecord, secret: &PairSecret) -> Arc<Ledger> {
        Arc::new(Ledger::new(&self.library, record, secret, &self.answered))
    }

    /// Dials a peer: where a person says that it is, or else where it was last and where it announces
    /// itself, whichever answers first.
    async fn reach(
        &self,
        record: &PeerRecord,
        given: Option<SocketAddr>,
        secret: &PairSecret,
    ) -> Result<Connection, SyncError> {
        let peer = record.fingerprint;
        if let Some(address) = given {
            let candidate = Candidate::new(address, Source::Given);
            return Ok(self.endpoint.dial(peer, &[candidate]).await?);
        }
        let known = record.addresses.iter();
        let known: Vec<_> = known.map(|address| Candidate::new(*address, Source::Known)).collect();
        let Some(neighbours) = &self.neighbours else {
            return self.dial(peer, &known).await;
        };
        let key = DiscoveryKey::new(secret);
        let seen = async {
            let announced = self.announced(neighbours, peer, &key).await;
            self.dial(peer, &announced).await
        };
        let (known, seen) = (self.dial(peer, &known), seen);
        tokio::pin!(known, seen);
        tokio::select! {
            known = &mut known => match known {
                Ok(connection) => Ok(connection),
                Err(failure) => seen.await.map_err(|last| clearest(failure, last)),
            },
            seen = &mut seen => match seen {
                // No other address is tried: somebody pretends to be there.
                Err(impostor @ SyncError::Dial(DialError::Impostor { .. })) => Err(impostor),
                Err(failure) => known.await.map_err(|last| clearest(failure, last)),
                Ok(connection) => Ok(connection),
            },
        }
    }

    async fn dial(
        &self,
        peer: Fingerprint,
        candidates: &[Candidate],
    ) -> Result<Connection, SyncError> {
        if candidates.is_empty() {
            return Err(SyncError::NoAddress);
        }
        Ok(self.endpoint.dial(peer, candidates).await?)
    }

    /// Returns where a peer announces itself, after waiting a moment for it if listening has just begun.
    async fn announced(
        &self,
        neighbours: &Neighbours,
        peer: Fingerprint,
        key: &DiscoveryKey,
    ) -> Vec<Candidate> {
        let until = Instant::now() + LISTEN_TIME.saturating_sub(neighbours.listening_for());
        let mut heard = neighbours.watch();
        loop {
            let found = neighbours.find(peer, key, utc_day(self.now_ms()));
            if !found.is_empty() {
                let announced = |address| Candidate::new(address, Source::Announced);
                return found.into_iter().map(announced).collect();
            }
            if tokio::time::timeout_at(until.into(), heard.changed()).await.is_err() {
                return Vec::new();
            }
        }
    }

    /// Lets a peer in whose name somebody else came speak no more, until the person decides.
    pub(crate) fn bar(&self, peer: Fingerprint, presented: Fingerprint) -> Result<(), PeerError> {
        self.peers.take(Step::Deactivate(peer, Deactivation::FingerprintMismatch))?;
        self.endpoint.disconnect(peer);
        self.library.core().announce(&Event::Impostor { peer, presented });
        Ok(())
    }

    /// Says that a signed exchange with a peer succeeded: a provisional one is promoted by that.
    pub(crate) fn reached(
        &self,
        peer: Fingerprint,
        dialled: Option<SocketAddr>,
    ) -> Result<(), PeerError> {
        if self.peers.incoming(peer) == Verdict::Provisional {
            self.peers.take(Step::Promote(peer))?;
        }
        self.peers.take(Step::Reach(peer, dialled))
    }

    /// Notes what was learned of a peer's clock, and tells if it is off.
    pub(crate) fn skewed(&self, peer: Fingerprint, skew: Skew) -> Result<(), PeerError> {
        let Some(before) = self.peers.find(peer).map(|record| record.skew_ms) else {
            return Ok(());
        };
        let skew_ms = match skew {
            Skew::Exactly(skew_ms) => skew_ms,
            // It objects only beyond this: what its own requests show within it still holds.
            Skew::Tolerated if before.unsigned_abs() <= TIME_WINDOW_MS => return Ok(()),
            Skew::Tolerated => 0,
        };
        self.peers.take(Step::Skew(peer, skew_ms))?;
        let after = self.peers.find(peer).map_or(0, |record| record.skew_ms);
        if after != before && after != 0 {
            self.library.core().announce(&Event::ClockSkew { peer, by_ms: after });
        }
        Ok(())
    }
}

/// Of two failures, the one that says more.
fn clearest(first: SyncError, second: SyncError) -> SyncError {
    let says_nothing = |error: &SyncError| {
        matches!(error, SyncError::NoAddress | SyncError::Dial(DialError::Unreachable))
    };
    match (&first, &second) {
        (_, SyncError::Dial(DialError::Impostor { .. })) | (SyncError::NoAddress, _) => second,
        (first_error, second_error) if says_nothing(first_error) && !says_nothing(second_error) => {
            second
        }
        _ => first,
    }
}

fn lost(lost: Lost) -> SyncError {
    SyncError::Call(CallError::Stream(crate::net::stream::StreamError::Lost(lost)))
}

//! What the tasks of a node share, and the task that keeps it in touch with its peers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::{DiscoveryKey, utc_day};
use catchword_proto::pairing::{Introduction, PairingId};
use catchword_proto::trust::{PeerRecord, StepError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::event::Subscription;
use crate::library::Library;
use crate::net::DiscoveryError;
use crate::net::certificate::DeviceIdentity;
use crate::net::fetching::Errands;
use crate::net::ledger::Answered;
use crate::net::meeting::Meetings;
use crate::net::neighbours::{Neighbours, Voice, is_of};
use crate::net::node::{JoinError, Near, NodeConfig, NodeError};
use crate::net::pairing::PairError;
use crate::net::peers::{PeerBook, PeerError};
use crate::net::quic::{Connection, Endpoint};
use crate::net::rounds::{HEARTBEAT, Rounds};
use crate::net::tls::Trust as _;

/// How long is listened before nobody is near: an announcement is answered within a second, and a machine
/// that is busy takes a few.
pub(crate) const LISTEN_TIME: Duration = Duration::from_secs(5);
/// How often the thread that watches the library looks whether the node is gone.
const LOOK: Duration = Duration::from_secs(1);

/// What the tasks of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) library: Library,
    pub(crate) own: Fingerprint,
    pub(crate) endpoint: Endpoint,
    pub(crate) peers: Arc<PeerBook>,
    /// Who is near; `None` without discovery, and where the system refuses it.
    pub(crate) neighbours: Option<Neighbours>,
    /// Why devices near here are not found, or do not find this one.
    discovery_error: Mutex<Option<DiscoveryError>>,
    pub(crate) meetings: Meetings,
    pub(crate) answered: Answered,
    pub(crate) errands: Errands,
    rounds: Mutex<Rounds>,
    window: Mutex<Option<Window>>,
    changes: Arc<Changes>,
    /// Whether it syncs unasked.
    pub(crate) lasting: bool,
}

/// Whether something changed in the library that peers do not know of.
#[derive(Debug, Default)]
struct Changes {
    last: Mutex<Option<Instant>>,
    noted: Notify,
}

/// A window for pairing that is open.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// Where connections go.
    pub(crate) guests: mpsc::Sender<Connection>,
    /// Announced, if the six digits are enough.
    pub(crate) pairing: Option<PairingId>,
}

impl Shared {
    pub(crate) fn new(
        library: &Library,
        config: &NodeConfig,
        identity: DeviceIdentity,
    ) -> Result<Self, NodeError> {
        let own = identity.fingerprint();
        let peers = Arc::new(PeerBook::open(library)?);
        let endpoint = Endpoint::bind(config.listen, identity, Arc::clone(&peers) as _)?;
        let listening = config.discovery.clone().map(Neighbours::listen).transpose();
        let (neighbours, discovery_error) = match listening {
            Ok(neighbours) => (neighbours, None),
            Err(error) => (None, Some(error)),
        };
        Ok(Self {
            library: library.clone(),
            own,
            endpoint,
            peers,
            neighbours,
            discovery_error: Mutex::new(discovery_error),
            meetings: Meetings::default(),
            answered: Answered::default(),
            errands: Errands::default(),
            rounds: Mutex::default(),
            window: Mutex::default(),
            changes: Arc::default(),
            lasting: config.lasting,
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.library.core().now_ms()
    }

    /// Returns where connections of a window go, while one is open.
    pub(crate) fn window(&self) -> Option<Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the window to connections, or closes it.
    pub(crate) fn set_window(&self, window: Option<Window>) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = window;
        self.announce();
    }

    pub(crate) fn paired(&self, peer: Fingerprint) -> Result<PeerRecord, PairError> {
        let record = self.peers.find(peer);
        let gone = || PeerError::Step(StepError::NoPeer);
        Ok(record.ok_or_else(gone)?)
    }

    /// What another device is told of this one.
    pub(crate) fn introduction(&self) -> Result<Introduction, PairError> {
        let devices = self.library.devices().map_err(PairError::Read)?;
        let own = self.library.device();
        let name = devices.into_iter().find(|(device, _)| *device == own);
        let (name, platform) =
            name.map(|(_, named)| (named.name, named.platform)).unwrap_or_default();
        Ok(Introduction::new(&name, &platform, env!("CARGO_PKG_VERSION")))
    }

    /// Returns the one device near here that shows a code.
    pub(crate) async fn host_near(&self) -> Result<Near, JoinError> {
        let neighbours = self.neighbours.as_ref().ok_or(JoinError::NobodyNear)?;
        let until = Instant::now() + LISTEN_TIME.saturating_sub(neighbours.listening_for());
        let mut heard = neighbours.watch();
        loop {
            let mut hosts = neighbours.hosts();
            match (hosts.len(), hosts.pop()) {
                (1, Some(host)) => return Ok(host),
                (2.., _) => return Err(JoinError::SeveralNear(hosts.len() + 1)),
                _ => (),
            }
            if tokio::time::timeout_at(until.into(), heard.changed()).await.is_err() {
                return Err(JoinError::NobodyNear);
            }
        }
    }

    /// Returns what makes the tags of each device that may speak.
    fn discovery_keys(&self) -> Vec<(Fingerprint, DiscoveryKey)> {
        let records = self.peers.records().into_iter();
        let active = records.filter(|record| self.peers.is_peer(record.fingerprint));
        active
            .filter_map(|record| {
                let secret = self.peers.secret(record.fingerprint).ok().flatten()?;
                Some((record.fingerprint, DiscoveryKey::new(&secret)))
            })
            .collect()
    }

    /// Says to devices near here what they may know, if that has changed.
    fn announce(&self) {
        let Some(neighbours) = &self.neighbours else { return };
        let pairing = self.window().and_then(|window| window.pairing);
        if !self.lasting && pairing.is_none() {
            return;
        }
        let Ok(address) = self.endpoint.local_address() else { return };
        let keys = self.discovery_keys();
        let day = utc_day(self.now_ms());
        let (own, port) = (self.own, address.port());
        let said = neighbours.announce(&Voice { own, port, day, peers: &keys, pairing });
        *self.discovery_error() = said.err();
    }

    /// Returns why devices near here are not found, or do not find this one.
    pub(crate) fn discovery_error(&self) -> MutexGuard<'_, Option<DiscoveryError>> {
        self.discovery_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back what was announced.
    pub(crate) fn fall_silent(&self) {
        if let Some(neighbours) = &self.neighbours {
            neighbours.stop();
        }
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        // A plan that was changed in part is made up for by the next beat.
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a peer came by itself, and was answered.
    pub(crate) fn came(&self, peer: Fingerprint) {
        self.rounds().came(peer, Instant::now());
        self.meetings.note(peer, None, self.now_ms());
    }

    /// Looks through what was announced since the last time.
    fn hear(&self) {
        let Some(neighbours) = &self.neighbours else { return };
        let (keys, day) = (self.discovery_keys(), utc_day(self.now_ms()));
        for heard in neighbours.news() {
            let of = keys.iter().filter(|(peer, key)| is_of(&heard, *peer, key, day));
            of.for_each(|(peer, _)| self.rounds().heard(*peer, Instant::now()));
        }
    }

    fn followed(&self) -> BTreeSet<Fingerprint> {
        let records = self.peers.records().into_iter().map(|record| record.fingerprint);
        records.filter(|peer| self.peers.is_peer(*peer)).collect()
    }
}

/// Keeps in touch with every peer, until it is aborted.
pub(crate) async fn keep(shared: Arc<Shared>) {
    // Without the thread changes go out with the heartbeat.
    let _beats_alone = watch(shared.library.subscribe(), Arc::downgrade(&shared.changes));
    let mut heard = shared.neighbours.as_ref().map(Neighbours::watch);
    let mut syncs = JoinSet::new();
    loop {
        shared.announce();
        let (peers, now) = (shared.followed(), Instant::now());
        let (due, next) = {
            let mut rounds = shared.rounds();
            if let Some(last) = shared.changes.take() {
                rounds.changed(last);
            }
            rounds.follow(&peers, now);
            let due = rounds.begin(now);
            (due, rounds.next().unwrap_or(now + HEARTBEAT))
        };
        for peer in due {
            let shared = Arc::clone(&shared);
            syncs.spawn(async move {
                let reached = shared.sync(peer, None).await.is_ok();
                shared.rounds().done(peer, reached, Instant::now());
            });
        }
        // A new day and a new name are announced by the beat at the latest.
        let next = next.min(now + HEARTBEAT);
        tokio::select! {
            () = next_heard(&mut heard) => shared.hear(),
            () = shared.changes.noted.notified() => (),
            () = shared.peers.changed() => (),
            Some(_) = syncs.join_next() => (),
            () = tokio::time::sleep_until(next.into()) => (),
        }
    }
}

async fn next_heard(heard: &mut Option<watch::Receiver<u64>>) {
    let is_there = match heard {
        Some(heard) => heard.changed().await.is_ok(),
        None => false,
    };
    if !is_there {
        std::future::pending::<()>().await;
    }
}

impl Changes {
    fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.noted.notify_one();
    }

    fn take(&self) -> Option<Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Notes every change of the library, on a thread of its own, as long as somebody wants to know.
fn watch(events: Subscription, changes: Weak<Changes>) -> std::io::Result<()> {
    let thread = thread::Builder::new().name("catchword-watch".to_owned());
    thread.spawn(move || {
        while 0 < changes.strong_count() {
            let event = events.next_timeout(LOOK);
            if event.is_some_and(|event| !event.is_about_a_peer())
                && let Some(changes) = changes.upgrade()
            {
                changes.note();
            }
        }
    })?;
    Ok(())
}

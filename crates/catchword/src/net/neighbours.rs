//! Who is near: what this device announces, and what it has heard.
//!
//! # Invariants
//!
//! 1. However much is announced, the latest [`HEARD_MAX`] announcements are remembered and no more.
//! 2. What was heard is looked through when a peer is looked for, so that a device that is paired
//!    later is found as well.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::{
    Announcement, DiscoveryKey, InstanceName, NAME_KEPT, TAGS, Tag, dialable,
};
use catchword_proto::pairing::PairingId;
use tokio::sync::watch;

use crate::net::node::Near;
use crate::net::{Discovery, DiscoveryError, Heard};

/// Announcements that are remembered.
const HEARD_MAX: usize = 256;

/// Discovery, and what came of it.
#[derive(Debug)]
pub(crate) struct Neighbours {
    discovery: Arc<dyn Discovery>,
    heard: Arc<Heards>,
    announced: Mutex<Option<Announced>>,
    since: Instant,
}

/// What was heard, the latest last.
#[derive(Debug, Default)]
struct Heards {
    all: Mutex<VecDeque<Heard>>,
    /// What nobody has looked at yet.
    news: Mutex<VecDeque<Heard>>,
    /// How much was heard so far.
    count: watch::Sender<u64>,
}

/// What others hear of this device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Announced {
    name: InstanceName,
    drawn: Instant,
    day: u32,
    port: u16,
    peers: Vec<Fingerprint>,
    pairing: Option<PairingId>,
}

/// What is to be announced.
#[derive(Debug)]
pub(crate) struct Voice<'a> {
    pub(crate) own: Fingerprint,
    pub(crate) port: u16,
    /// UTC days since the Unix epoch.
    pub(crate) day: u32,
    pub(crate) peers: &'a [(Fingerprint, DiscoveryKey)],
    /// Set while a window is open to devices that have only the six digits.
    pub(crate) pairing: Option<PairingId>,
}

impl Neighbours {
    /// Starts to listen.
    pub(crate) fn listen(discovery: Arc<dyn Discovery>) -> Result<Self, DiscoveryError> {
        let heard = Arc::new(Heards::default());
        let list = Arc::clone(&heard);
        discovery.listen(Box::new(move |heard| list.put(heard)))?;
        Ok(Self { discovery, heard, announced: Mutex::new(None), since: Instant::now() })
    }

    /// Returns how long it has been listening.
    pub(crate) fn listening_for(&self) -> Duration {
        self.since.elapsed()
    }

    /// Announces this device, unless just that is announced already.
    pub(crate) fn announce(&self, voice: &Voice<'_>) -> Result<(), DiscoveryError> {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = announced.as_ref().filter(|last| last.drawn.elapsed() < NAME_KEPT);
        let (name, drawn) = match kept {
            Some(last) => (last.name, last.drawn),
            None => (InstanceName(random()?), Instant::now()),
        };
        let peers = voice.peers.iter().map(|(peer, _)| *peer).collect();
        let Voice { port, day, pairing, .. } = *voice;
        let next = Announced { name, drawn, day, port, peers, pairing };
        if announced.as_ref() == Some(&next) {
            return Ok(());
        }
        let keys = voice.peers.iter().map(|(_, key)| key);
        let padding: [u8; TAGS * size_of::<Tag>()] = random()?;
        let padding = padding.as_chunks().0.try_into().unwrap_or_default();
        let mut announcement = Announcement::new(voice.own, name, port, day, keys, padding);
        if let Some(id) = pairing {
            announcement = announcement.with_pairing_id(id.0);
        }
        self.discovery.announce(&announcement)?;
        *announced = Some(next);
        Ok(())
    }

    /// Returns what changes whenever something is heard from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.heard.count.subscribe()
    }

    /// Returns what nobody has looked at yet.
    pub(crate) fn news(&self) -> Vec<Heard> {
        Heards::lock(&self.heard.news).drain(..).collect()
    }

    /// Returns where a peer announced itself last; nothing if it did not.
    pub(crate) fn find(&self, peer: Fingerprint, key: &DiscoveryKey, day: u32) -> Vec<SocketAddr> {
        let heard = Heards::lock(&self.heard.all);
        let mut latest_first = heard.iter().rev();
        let found = latest_first.find(|heard| is_of(heard, peer, key, day));
        found.map(|heard| heard.addresses.clone()).unwrap_or_default()
    }

    /// Returns the pairings that are open near here, and where.
    pub(crate) fn hosts(&self) -> Vec<Near> {
        let own = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let own = own.as_ref().map(|announced| announced.name);
        let heard = Heards::lock(&self.heard.all);
        let hosts = heard.iter().filter(|heard| Some(heard.announcement.name) != own);
        hosts
            .filter_map(|heard| {
                let id = heard.announcement.pairing_id?;
                let addresses = dialable(heard.addresses.iter().copied());
                Some(Near { id: PairingId(id), addresses })
            })
            .collect()
    }

    /// Takes the announcement back, and stops listening.
    pub(crate) fn stop(&self) {
        self.discovery.stop();
    }
}

/// Returns whether an announcement carries a peer's tag.
pub(crate) fn is_of(heard: &Heard, peer: Fingerprint, key: &DiscoveryKey, day: u32) -> bool {
    heard.announcement.announcer([(peer, key)], day).is_some()
}

impl Heards {
    fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
        // Every change of a list is one insertion or removal.
        list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, heard: Heard) {
        let mut all = Self::lock(&self.all);
        if all.contains(&heard) {
            return;
        }
        // Whoever repeats another's name says that it is there: that is heard, and dialled once.
        all.retain(|known| known.announcement.name != heard.announcement.name);
        push(&mut all, heard.clone());
        drop(all);
        push(&mut Self::lock(&self.news), heard);
        self.count.send_modify(|count| *count += 1);
    }
}

fn push(list: &mut VecDeque<Heard>, heard: Heard) {
    if HEARD_MAX <= list.len() {
        list.pop_front();
    }
    list.push_back(heard);
}

fn random<const N: usize>() -> Result<[u8; N], DiscoveryError> {
    let mut bytes = [0; N];
    let drawn = getrandom::fill(&mut bytes);
    drawn.map_err(|error| DiscoveryError::Unavailable(error.into()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use catchword_proto::secret::PairSecret;

    use super::*;

    const OWN: Fingerprint = Fingerprint([1; 32]);
    const PEER: Fingerprint = Fingerprint([2; 32]);
    const DAY: u32 = 20_000;

    #[derive(Debug, Default)]
    struct Air(Mutex<Vec<Announcement>>);

    impl Discovery for Air {
        fn announce(&self, announcement: &Announcement) -> Result<(), DiscoveryError> {
            self.0.lock().unwrap().push(announcement.clone());
            Ok(())
        }

        fn listen(&self, _: Box<dyn Fn(Heard) + Send>) -> Result<(), DiscoveryError> {
            Ok(())
        }

        fn stop(&self) {}
    }

    fn key(of: u8) -> DiscoveryKey {
        DiscoveryKey::new(&PairSecret::new([of; 32]))
    }

    fn heard(n: u32, key: &DiscoveryKey, address: u8) -> Heard {
        let [.., a, b] = n.to_be_bytes();
        let name = InstanceName([0, 0, 0, 0, 0, 0, a, b]);
        let announcement = Announcement::new(PEER, name, 4_433, DAY, [key], Default::default());
        Heard::new(announcement, vec![SocketAddr::from(([10, 0, 0, address], 4_433))])
    }

    fn voice(peers: &[(Fingerprint, DiscoveryKey)]) -> Voice<'_> {
        Voice { own: OWN, port: 1, day: DAY, peers, pairing: None }
    }

    #[test]
    fn what_is_announced_already_is_not_announced_again_and_a_new_peer_is() {
        let air = Arc::new(Air::default());
        let neighbours = Neighbours::listen(Arc::clone(&air) as _).unwrap();
        let peers = [(PEER, key(1))];
        neighbours.announce(&voice(&[])).unwrap();
        neighbours.announce(&voice(&[])).unwrap();
        assert_eq!(air.0.lock().unwrap().len(), 1);
        neighbours.announce(&voice(&peers)).unwrap();
        neighbours.announce(&Voice { pairing: Some(PairingId([7; 8])), ..voice(&peers) }).unwrap();

        let said = air.0.lock().unwrap();
        assert_eq!(said.len(), 3);
        assert!(said.iter().all(|announcement| announcement.name == said[0].name));
        assert_eq!(said[1].announcer([(OWN, &peers[0].1)], DAY), Some(OWN));
        assert_eq!(said[2].pairing_id, Some([7; 8]));
    }

    #[test]
    fn the_latest_announcement_of_a_peer_says_where_it_is() {
        let neighbours = Neighbours::listen(Arc::new(Air::default())).unwrap();
        let (mine, other) = (key(1), key(2));
        neighbours.heard.put(heard(1, &mine, 1));
        neighbours.heard.put(heard(2, &mine, 2));
        neighbours.heard.put(heard(3, &other, 3));
        neighbours.heard.put(heard(3, &other, 3));
        let there = |last: u8| vec![SocketAddr::from(([10, 0, 0, last], 4_433))];
        assert_eq!(neighbours.find(PEER, &mine, DAY), there(2));
        assert_eq!(neighbours.find(PEER, &mine, DAY + 1), there(2));
        assert_eq!(neighbours.find(PEER, &mine, DAY + 2), []);
        assert_eq!(neighbours.find(OWN, &mine, DAY), []);
        assert_eq!(neighbours.news().len(), 3);
        assert_eq!(neighbours.news(), []);

        neighbours.heard.put(heard(2, &mine, 9));
        assert_eq!(neighbours.find(PEER, &mine, DAY), there(9));
    }

    #[test]
    fn the_257th_announcement_drives_out_the_first() {
        let neighbours = Neighbours::listen(Arc::new(Air::default())).unwrap();
        let (mine, other) = (key(1), key(2));
        neighbours.heard.put(heard(0, &mine, 1));
        for n in 1..256 {
            neighbours.heard.put(heard(n, &other, 2));
        }
        assert_eq!(neighbours.find(PEER, &mine, DAY).len(), 1);
        neighbours.heard.put(heard(256, &other, 2));
        assert_eq!(neighbours.find(PEER, &mine, DAY), []);
        assert_eq!(neighbours.news().len(), HEARD_MAX);
    }
}

//! Libraries on a network of their own: found, kept in sync, pretended to be, and asked how they are.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catchword::net::{
    Ask, Deactivation, Discovery, DiscoveryError, Heard, Hosting, Join, JoinError, Node,
    NodeConfig, PeerScope, PeerState, Reason, State, Status, Subject, SyncError, SyncReport,
};
use catchword::{Book, Config, Event, KeyStore as _, Library, NewAnnotation};
use catchword_proto::discovery::{Announcement, DiscoveryKey, InstanceName, TAGS};
use catchword_proto::request::SigningClock;
use catchword_proto::secret::PairSecret;
use tempfile::TempDir;

use crate::net::report;
use crate::net::support::{Device as Stranger, Impostor};
use crate::support::{at, sample_file};

const YEAR_MS: i64 = 365 * 86_400_000;
/// How long a test waits for what comes within a second or never.
const PATIENCE: Duration = Duration::from_secs(20);

type Listener = Box<dyn Fn(Heard) + Send>;

/// A network on which everybody hears everybody, and that remembers who said what last.
#[derive(Default)]
struct Air {
    listeners: Mutex<Vec<Listener>>,
    said: Mutex<Vec<Heard>>,
}

impl std::fmt::Debug for Air {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Air").finish_non_exhaustive()
    }
}

impl Air {
    fn say(&self, announcement: &Announcement, from: SocketAddr) {
        let heard = Heard::new(announcement.clone(), vec![from]);
        self.said.lock().unwrap().push(heard.clone());
        self.listeners.lock().unwrap().iter().for_each(|listener| listener(heard.clone()));
    }

    /// Returns what was announced last from a port.
    fn latest(&self, port: u16) -> Announcement {
        let said = self.said.lock().unwrap();
        said.iter()
            .rev()
            .find(|heard| heard.announcement.port == port)
            .unwrap()
            .announcement
            .clone()
    }
}

impl Discovery for Air {
    fn announce(&self, announcement: &Announcement) -> Result<(), DiscoveryError> {
        self.say(announcement, loopback(announcement.port));
        Ok(())
    }

    fn listen(&self, heard: Listener) -> Result<(), DiscoveryError> {
        self.said.lock().unwrap().iter().for_each(|said| heard(said.clone()));
        self.listeners.lock().unwrap().push(heard);
        Ok(())
    }

    fn stop(&self) {}
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A library on the network.
struct Device {
    node: Node,
    library: Library,
    folder: TempDir,
}

/// How a node is started.
struct Start {
    air: Option<Arc<Air>>,
    lasting: bool,
}

const ALONE: Start = Start { air: None, lasting: false };

impl Start {
    fn on(air: &Arc<Air>, lasting: bool) -> Self {
        Self { air: Some(Arc::clone(air)), lasting }
    }

    fn node(self, library: &Library) -> Node {
        let discovery = self.air.map(|air| air as Arc<dyn Discovery>);
        let config = NodeConfig::default().with_listen(Some(loopback(0)));
        let config = config.with_discovery(discovery).with_lasting(self.lasting);
        Node::start(library, &config).unwrap()
    }
}

impl Device {
    fn new(name: &str, start: Start) -> Self {
        Self::with_clock(name, 0, start)
    }

    fn with_clock(name: &str, offset_ms: i64, start: Start) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default().with_device_name(name).with_clock_offset_ms(offset_ms);
        let library = Library::create(folder.path().join("library"), config).unwrap();
        let node = start.node(&library);
        Self { node, library, folder }
    }

    fn import(&self) -> Book {
        self.library.import(sample_file(self.folder.path())).unwrap().book
    }

    fn address(&self) -> SocketAddr {
        self.node.address().unwrap()
    }

    fn state_of(&self, peer: &Self) -> PeerState {
        let records = self.node.peers();
        let wanted = peer.node.fingerprint();
        records.iter().find(|record| record.fingerprint == wanted).unwrap().state
    }

    async fn sync(&self, peer: &Self) -> SyncReport {
        let address = Some(peer.address());
        self.node.sync(peer.node.fingerprint(), address).await.unwrap()
    }

    fn status(&self) -> Vec<Status> {
        self.node.status(None).unwrap()
    }

    /// Returns how things are with a peer.
    fn about(&self, peer: &Self) -> Vec<(State, Option<Reason>)> {
        let wanted = peer.node.fingerprint();
        let of_peer = |status: &Status| matches!(status.subject, Subject::Peer { peer, .. } if peer == wanted);
        let lines = self.status().into_iter().filter(of_peer);
        lines.map(|status| (status.state, status.reason)).collect()
    }

    /// Waits until something is so, looking again whenever the library changes.
    async fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while !is_so() {
            assert!(std::time::Instant::now() < until, "it never came: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn pair(host: &Device, joiner: &Device) {
    let hosted = host.node.host(Hosting::default()).unwrap();
    let (qr, key, address) = (hosted.qr.clone(), hosted.key.clone(), Some(host.address()));
    let join = Join::Scanned { qr, key, address };
    let (host, peer) = tokio::join!(joiner.node.join(&join), hosted.wait());
    assert!(host.is_ok() && peer.is_ok(), "{host:?} {peer:?}");
}

fn annotate(book: &Book, quote: &str) {
    book.annotate(NewAnnotation::highlight(quote).at(at(1_000))).unwrap();
}

fn quotes(library: &Library) -> Vec<String> {
    let Some(book) = library.books().unwrap().first().map(|book| book.book) else {
        return Vec::new();
    };
    let view = library.book(book).unwrap().unwrap().annotations(catchword::WHOLE_BOOK).unwrap();
    let mut quotes: Vec<_> = view.into_iter().map(|annotation| annotation.quote).collect();
    quotes.sort();
    quotes
}

/// What both share, as the key store of one has it.
fn secret(device: &Device, peer: &Device) -> PairSecret {
    let records = device.node.peers();
    let wanted = peer.node.fingerprint();
    let record = records.iter().find(|record| record.fingerprint == wanted).unwrap();
    let keys = catchword::FileKeyStore::new(device.folder.path().join("library/keys"));
    PairSecret::new(*keys.load(&record.secret.to_string()).unwrap().unwrap().expose())
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_find_each_other_pair_by_six_digits_and_stay_in_sync_unasked() {
    let air = Arc::new(Air::default());
    let [phone, tablet] = ["phone", "tablet"].map(|name| Device::new(name, Start::on(&air, true)));
    let book = phone.import();

    let hosted = phone.node.host(Hosting::default()).unwrap();
    let join = Join::KeyOnly { key: hosted.key.clone(), address: None };
    let (joined, hosted) = tokio::join!(tablet.node.join(&join), hosted.wait());
    assert_eq!((joined.unwrap().name, hosted.unwrap().name), ("phone".into(), "tablet".into()));
    assert_eq!(air.latest(phone.address().port()).pairing_id, None, "the window is closed");

    tablet.wait("the book", || !tablet.library.books().unwrap().is_empty()).await;
    annotate(&book, "pushed");
    tablet.wait("a change of the phone", || quotes(&tablet.library) == ["pushed"]).await;
    annotate(&tablet.library.book(book.id()).unwrap().unwrap(), "the other way");
    phone.wait("a change of the tablet", || quotes(&phone.library).len() == 2).await;
    phone.wait("agreement", || phone.about(&tablet) == [(State::InSync, None)]).await;
    tablet.wait("agreement", || tablet.about(&phone) == [(State::InSync, None)]).await;
    phone.node.close().await;
    tablet.node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_not_guessed_where_nobody_or_several_show_one() {
    let air = Arc::new(Air::default());
    let [phone, tablet, reader] =
        ["phone", "tablet", "reader"].map(|name| Device::new(name, Start::on(&air, false)));
    let join = Join::KeyOnly { key: "123456".into(), address: None };
    assert!(matches!(reader.node.join(&join).await, Err(JoinError::NobodyNear)));
    let hidden = phone.node.host(Hosting::default().with_qr_only(true)).unwrap();
    assert!(matches!(reader.node.join(&join).await, Err(JoinError::NobodyNear)));
    drop(hidden);

    let other = Device::new("other", Start::on(&air, false));
    let _windows = [&tablet, &other].map(|device| device.node.host(Hosting::default()).unwrap());
    assert!(matches!(reader.node.join(&join).await, Err(JoinError::SeveralNear(2))));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stands_under_a_peers_tag_hears_nothing_and_stops_it_until_the_person_decides() {
    let air = Arc::new(Air::default());
    let (phone, tablet) = (
        Device::new("phone", Start::on(&air, true)),
        Device::new("tablet", Start { air: None, lasting: false }),
    );
    pair(&phone, &tablet).await;
    tablet.node.close().await;
    let events = phone.library.subscribe();

    // The tag is right: it was recorded when the tablet announced itself.
    let key = DiscoveryKey::new(&secret(&phone, &tablet));
    let stranger = Stranger::new(9);
    let impostor = Impostor::new(stranger.shown());
    let port = impostor.address.port();
    let day = catchword_proto::discovery::utc_day(now_ms());
    let name = InstanceName([7; 8]);
    let padding = [[0; 8]; TAGS];
    let tagged = Announcement::new(tablet.node.fingerprint(), name, port, day, [&key], padding);
    air.say(&tagged, impostor.address);

    let stopped = PeerState::Deactivated(Deactivation::FingerprintMismatch);
    phone.wait("the deactivation", || phone.state_of(&tablet) == stopped).await;
    let (peer, presented) = (tablet.node.fingerprint(), stranger.fingerprint);
    let told = Event::Impostor { peer, presented };
    assert!(std::iter::from_fn(|| events.next_timeout(PATIENCE)).any(|event| event == told));

    // Again and again: nobody is dialled any more.
    for _ in 0..3 {
        air.say(&tagged, impostor.address);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (dials, bytes) = impostor.heard().await;
    report(&format!("T-DISC-1 replayed tag: {dials} dial, 1 deactivation, {bytes} bytes sent"));
    assert_eq!((dials, bytes), (1, 0));

    let lines = phone.about(&tablet);
    let reason = Reason::Deactivated(Deactivation::FingerprintMismatch);
    let remedy = reason.remedy().unwrap();
    assert!(remedy.contains("pair --show") && remedy.contains("peers trust"), "{remedy}");
    assert_eq!(lines, [(State::Stopped, Some(reason.clone()))]);
    let refused = phone.node.sync(tablet.node.fingerprint(), None).await;
    assert!(matches!(refused, Err(SyncError::NotActive(state)) if state == stopped), "{refused:?}");

    // It is durable, and the pinned device is as good as before.
    phone.node.close().await;
    let again = Start { air: None, lasting: false }.node(&phone.library);
    assert_eq!(again.peers()[0].state, stopped);
    again.trust(tablet.node.fingerprint()).unwrap();
    let tablet_again = ALONE.node(&tablet.library);
    let address = Some(tablet_again.address().unwrap());
    let report = again.sync(tablet_again.fingerprint(), address).await.unwrap();
    assert!(report.in_sync, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_announcement_causes_no_dial() {
    const FORGED: u16 = 1_000;
    let air = Arc::new(Air::default());
    let (phone, tablet) =
        (Device::new("phone", Start::on(&air, true)), Device::new("tablet", ALONE));
    pair(&phone, &tablet).await;
    let attacker = UdpSocket::bind(loopback(0)).unwrap();
    attacker.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let at = attacker.local_addr().unwrap();
    let guess = DiscoveryKey::new(&PairSecret::new([3; 32]));
    let day = catchword_proto::discovery::utc_day(now_ms());
    for n in 0..FORGED {
        let [a, b] = n.to_be_bytes();
        let name = InstanceName([a, b, 0, 0, 0, 0, 0, 0]);
        let peer = tablet.node.fingerprint();
        let forged = Announcement::new(peer, name, at.port(), day, [&guess], [[a ^ b; 8]; TAGS]);
        air.say(&forged, at);
    }
    let received = attacker.recv(&mut [0; 2_000]);
    report(&format!("T-DISC-1 forged: {FORGED} announcements, 0 dials"));
    assert!(received.is_err(), "{received:?}");
    assert_eq!(phone.state_of(&tablet), PeerState::Active);
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signs_with_another_peers_secret_is_refused_and_the_other_is_stopped() {
    let (host, robbed) = (Device::new("host", ALONE), Device::new("robbed", ALONE));
    let thief = Device::new("thief", ALONE);
    pair(&host, &robbed).await;
    pair(&host, &thief).await;
    let stolen = secret(&robbed, &host);

    // The thief's own certificate, the other's secret.
    let keys = catchword::FileKeyStore::new(thief.folder.path().join("library/keys"));
    let identity = catchword::net::DeviceIdentity::load_or_make(&keys).unwrap();
    let peers = Arc::new(catchword::net::PeerBook::open(&thief.library).unwrap());
    let endpoint = catchword::net::Endpoint::bind(Some(loopback(0)), identity, peers as _).unwrap();
    let at_host = [catchword::net::Candidate::new(host.address(), catchword::net::Source::Known)];
    let connection = endpoint.dial(host.node.fingerprint(), &at_host).await.unwrap();
    // Signed as the robbed device would sign, over this connection.
    let as_robbed = connection.channel(&stolen, robbed.node.fingerprint()).unwrap();
    let ask = Ask { method: "POST", path: "/sync", body: b"" };
    let answer = connection.call(&as_robbed, &mut SigningClock::default(), now_ms, ask).await;
    assert!(answer.is_err(), "{answer:?}");

    let stopped = PeerState::Deactivated(Deactivation::FingerprintMismatch);
    host.wait("the deactivation", || host.state_of(&robbed) == stopped).await;
    assert_eq!(host.state_of(&thief), PeerState::Active, "its own certificate was right");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_a_year_ahead_and_a_day_behind_merge_and_are_named() {
    let phone = Device::with_clock("phone", 0, ALONE);
    let ahead = Device::with_clock("ahead", YEAR_MS, ALONE);
    let behind = Device::with_clock("behind", -86_400_000, ALONE);
    pair(&phone, &ahead).await;
    pair(&phone, &behind).await;
    let book = phone.import();
    for other in [&ahead, &behind] {
        let first = other.sync(&phone).await;
        assert!(first.in_sync, "{first:?}");
    }
    read(&book, 100_000);
    read(&ahead.library.book(book.id()).unwrap().unwrap(), 200_000);
    for (other, by_ms) in [(&ahead, YEAR_MS), (&behind, -86_400_000)] {
        assert!(other.sync(&phone).await.in_sync);
        let skews = |lines: Vec<(State, Option<Reason>)>| {
            lines.into_iter().find_map(|(_, reason)| match reason {
                Some(Reason::ClockSkew { by_ms }) => Some(by_ms),
                _ => None,
            })
        };
        let near = |told: Option<i64>, expected: i64| told.unwrap().abs_diff(expected) < 60_000;
        assert!(near(skews(phone.about(other)), by_ms), "{:?}", phone.status());
        assert!(near(skews(other.about(&phone)), -by_ms), "{:?}", other.status());
    }
    let by_name = phone.status().into_iter().find_map(|status| {
        if let Subject::Device { name, .. } = status.subject { Some(name) } else { None }
    });
    assert_eq!(by_name.as_deref(), Some("ahead"), "the stamps of the others were dragged along");

    // Whoever read after having seen the other's place is where the reader is, on every device.
    let late = behind.library.book(book.id()).unwrap().unwrap();
    assert_eq!(late.place().unwrap().unwrap().position.ppm, 200_000);
    read(&late, 300_000);
    for _ in 0..2 {
        assert!(behind.sync(&phone).await.in_sync);
        assert!(ahead.sync(&phone).await.in_sync);
    }
    for device in [&phone, &ahead, &behind] {
        let book = device.library.book(book.id()).unwrap().unwrap();
        assert_eq!(book.place().unwrap().unwrap().position.ppm, 300_000);
        assert_eq!(book.view().unwrap().heads, late.view().unwrap().heads);
    }
}

fn read(book: &Book, ppm: u32) {
    let mut session = book.session("test").unwrap();
    session.restored();
    session.turned(at(ppm)).unwrap();
    session.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_device_that_opens_a_book_and_closes_it_changes_nothing_on_the_others() {
    let (phone, tablet) = (Device::new("phone", ALONE), Device::new("tablet", ALONE));
    pair(&phone, &tablet).await;
    let book = phone.import();
    read(&book, 100_000);
    assert!(tablet.sync(&phone).await.in_sync);
    read(&book, 400_000);
    let before = book.view().unwrap();

    let stale = tablet.library.book(book.id()).unwrap().unwrap();
    let mut session = stale.session("test").unwrap();
    session.restored();
    session.spent(600);
    session.close().unwrap();
    let synced = tablet.sync(&phone).await;
    assert_eq!((synced.changes_sent, synced.in_sync), (0, true));
    let after = book.view().unwrap();
    assert_eq!((after.heads, after.events), (before.heads, before.events));
    assert_eq!(stale.place().unwrap().unwrap().position.ppm, 400_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_decides_which_books_go_over_and_status_names_the_others() {
    let (phone, tablet) = (Device::new("phone", ALONE), Device::new("tablet", ALONE));
    pair(&phone, &tablet).await;
    let all = catchword_formats::sample::all();
    assert!(2 <= all.len());
    let books: Vec<Book> = all
        .into_iter()
        .map(|sample| {
            let path = phone.folder.path().join(sample.file_name);
            std::fs::write(&path, sample.bytes).unwrap();
            phone.library.import(path).unwrap().book
        })
        .collect();
    let shelf = phone.library.create_shelf("for the tablet").unwrap();
    phone.library.fill_shelf(shelf, &[books[0].id()], &[]).unwrap();
    let shelves = [shelf].into();
    let scope = PeerScope::Chosen { shelves, books: [].into() };
    let peer = tablet.node.fingerprint();
    phone.node.scope(peer, &scope).unwrap();

    let synced = tablet.sync(&phone).await;
    assert!(synced.in_sync, "{synced:?}");
    let there = tablet.library.books().unwrap();
    assert_eq!(there.iter().map(|book| book.book).collect::<Vec<_>>(), [books[0].id()]);
    assert_eq!(tablet.library.shelves().unwrap(), [], "a shelf names books");
    let outside = |status: &Status| matches!(status.reason, Some(Reason::OutsideScope { .. }));
    assert_eq!(phone.status().iter().filter(|line| outside(line)).count(), books.len() - 1);

    // The shelf gets another book, then everything is allowed.
    phone.library.fill_shelf(shelf, &[books[1].id()], &[]).unwrap();
    assert!(tablet.sync(&phone).await.in_sync);
    assert_eq!(tablet.library.books().unwrap().len(), 2);
    phone.node.scope(peer, &PeerScope::All).unwrap();
    for _ in 0..2 {
        tablet.sync(&phone).await;
    }
    assert_eq!(tablet.library.books().unwrap().len(), books.len());
    assert_eq!(tablet.library.shelves().unwrap().len(), 1);
    assert!(!phone.status().iter().any(outside));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_why_a_book_is_not_in_sync() {
    let (phone, tablet) = (Device::new("phone", ALONE), Device::new("tablet", ALONE));
    let subject_of = |status: &Status| matches!(status.subject, Subject::Library);
    let lines = phone.status();
    assert_eq!(lines.iter().find(|line| subject_of(line)).unwrap().reason, Some(Reason::NoPeers));
    pair(&phone, &tablet).await;
    assert_eq!(phone.about(&tablet), [(State::Waiting, Some(Reason::NeverMet))]);

    let book = phone.import();
    assert!(phone.sync(&tablet).await.in_sync);
    assert_eq!(phone.about(&tablet), [(State::InSync, None)]);
    annotate(&book, "not there yet");
    let unsent = Some(Reason::Unsent { peer: "tablet".into(), changes: 1 });
    assert_eq!(phone.about(&tablet), [(State::Waiting, unsent.clone())]);
    let of_book = phone.node.status(Some(book.id())).unwrap();
    let reasons: Vec<_> = of_book.iter().map(|line| line.reason.clone()).collect();
    assert_eq!(reasons, [unsent.clone(), unsent]);
    assert!(phone.sync(&tablet).await.in_sync);
    assert_eq!(phone.about(&tablet), [(State::InSync, None)]);

    // Removed there: it is not exchanged, and both say so.
    tablet.library.remove(book.id()).unwrap();
    annotate(&book, "for nobody");
    assert!(phone.sync(&tablet).await.in_sync);
    let of_book = phone.node.status(Some(book.id())).unwrap();
    let excluded = Reason::ExcludedThere { peer: "tablet".into() };
    assert_eq!(of_book.len(), 1, "{of_book:?}");
    assert_eq!((of_book[0].state, of_book[0].reason.clone()), (State::Excluded, Some(excluded)));
    let there = tablet.node.status(Some(book.id())).unwrap();
    assert_eq!(there[0].reason, Some(Reason::RemovedHere));

    // Somebody else is there.
    let (peer, address) = (tablet.node.fingerprint(), Some(Stranger::new(9).address));
    phone.node.sync(peer, address).await.unwrap_err();
    let (state, reason) = phone.about(&tablet).pop().unwrap();
    assert_eq!(state, State::Failing);
    assert!(reason.is_some_and(|reason| reason.remedy().is_some()));
    // It comes by itself: that it could not be found is over.
    assert!(tablet.sync(&phone).await.in_sync);
    phone.wait("the visit", || phone.about(&tablet)[0].0 != State::Failing).await;
}

//! What the lane does, from a person's side.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use catchword::net::cloud::{
    CloudError, CloudReport, Credentials, ReachError, ServerAddress, SignInError,
};
use catchword::net::{Hosting, Join, Node, NodeConfig, Reason, State, Subject};
use catchword::{BookId, Library};

use super::support::{Device, PASSWORD, Server, run};
use crate::report;

/// How long a test waits for what comes within a second or never.
const PATIENCE: Duration = Duration::from_secs(20);

fn reasons(device: &Device) -> Vec<(State, Option<Reason>)> {
    let lines = device.cloud.status(None).unwrap();
    lines.into_iter().map(|line| (line.state, line.reason)).collect()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn node(library: &Library) -> Node {
    let config = NodeConfig::default().with_listen(Some(([127, 0, 0, 1], 0).into()));
    Node::start(library, &config).unwrap()
}

async fn pair(host: &Node, guest: &Node) {
    let hosted = host.host(Hosting::default()).unwrap();
    let address = host.address().unwrap();
    let (qr, key) = (hosted.qr.clone(), hosted.key.clone());
    let joined = Join::Scanned { qr, key, address: Some(address) };
    let (joined, waited) = tokio::join!(guest.join(&joined), hosted.wait());
    joined.unwrap();
    waited.unwrap();
}

#[test]
fn two_libraries_converge_through_an_account_without_ever_meeting() {
    run(async {
        let server = Server::start();
        let (phone, laptop) = (Device::new("phone"), Device::new("laptop"));
        let book = phone.import();
        phone.annotate(book, "on the phone");
        phone.read(book, 200_000);
        phone.sign_up(&server, "anna").await;
        let first = phone.sync().await;
        assert!(3 <= first.pushed && first.outbox == 0 && first.refused == 0, "{first:?}");
        assert_eq!(phone.sync().await, CloudReport::default(), "nothing is sent twice");

        assert_eq!(laptop.import(), book);
        laptop.annotate(book, "on the laptop");
        laptop.sign_in(&server, "ANNA ").await;
        let second = laptop.sync().await;
        assert_eq!((second.pulled, second.outbox), (first.pushed, 0), "{second:?}");
        assert_eq!(phone.sync().await.pulled, second.pushed);
        for device in [&phone, &laptop] {
            assert_eq!(device.quotes(book), ["on the laptop", "on the phone"]);
            assert_eq!(device.place(book), Some(200_000));
            assert_eq!(reasons(device), [(State::InSync, None)]);
        }
        let devices = laptop.library.devices().unwrap().into_values().map(|named| named.name);
        assert_eq!(devices.collect::<std::collections::BTreeSet<_>>().len(), 2);
    });
}

#[test]
fn a_refused_rewind_ends_with_the_servers_place_on_every_device() {
    run(async {
        let server = Server::start();
        let (phone, laptop) = (Device::new("phone"), Device::new("laptop"));
        // Paired with the laptop, in no account.
        let tablet = Device::new("tablet");
        let nodes = [node(&laptop.library), node(&tablet.library)];
        let [laptop_node, tablet_node] = &nodes;
        pair(laptop_node, tablet_node).await;
        let host = tablet_node.peers()[0].fingerprint;
        let address = laptop_node.address().unwrap();

        let book = phone.import();
        phone.sign_up(&server, "anna").await;
        laptop.sign_in(&server, "anna").await;
        laptop.import();
        laptop.read(book, 400_000);
        for device in [&phone, &laptop, &phone] {
            device.sync().await;
        }
        tablet_node.sync(host, Some(address)).await.unwrap();
        assert_eq!(tablet.place(book), Some(400_000));

        // Somebody goes on with the phone, and the laptop, which does not know, goes back.
        phone.read(book, 600_000);
        phone.sync().await;
        laptop.read(book, 100_000);
        // The paired device learns the rewind before the account refuses it.
        tablet_node.sync(host, Some(address)).await.unwrap();
        assert_eq!((laptop.place(book), tablet.place(book)), (Some(100_000), Some(100_000)));
        let refused = laptop.sync().await;
        assert_eq!(refused.refused, 1, "{refused:?}");
        assert_eq!(laptop.place(book), Some(600_000));
        tablet_node.sync(host, Some(address)).await.unwrap();
        phone.sync().await;
        for device in [&phone, &laptop, &tablet] {
            assert_eq!(device.place(book), Some(600_000));
        }
        let kept = server.ledger.book(account("anna"), book).await.unwrap().unwrap();
        assert_eq!(kept.place.unwrap().ppm, 600_000);
        for device in [&laptop, &phone] {
            let rest = device.sync().await;
            assert_eq!((rest.refused, rest.outbox), (0, 0));
        }

        // Who knows where the others are may go back.
        laptop.read(book, 300_000);
        assert_eq!(laptop.sync().await.refused, 0);
        phone.sync().await;
        assert_eq!(phone.place(book), Some(300_000));
    });
}

fn account(user: &str) -> catchword_proto::cloud::api::AccountId {
    catchword_proto::cloud::api::AccountId::of_user(user)
}

#[test]
fn a_paired_device_without_an_account_reaches_it_through_one_that_has_it() {
    run(async {
        let server = Server::start();
        let (phone, laptop, tablet) =
            (Device::new("phone"), Device::new("laptop"), Device::new("tablet"));
        phone.sign_up(&server, "anna").await;
        laptop.sign_in(&server, "anna").await;
        let nodes = [node(&phone.library), node(&tablet.library)];
        pair(&nodes[0], &nodes[1]).await;
        let host = nodes[1].peers()[0].fingerprint;
        let address = nodes[0].address().unwrap();
        // Both lanes at once, on one library.
        let lane = {
            let cloud = phone.cloud.clone();
            tokio::spawn(async move { cloud.run().await })
        };
        let book = tablet.import();
        tablet.annotate(book, "on the tablet");
        tablet.read(book, 500_000);
        nodes[1].sync(host, Some(address)).await.unwrap();
        until("the phone passes on what the tablet brought", || phone.cloud.outbox().unwrap() == 0)
            .await;
        laptop.sync().await;
        laptop.import();
        assert_eq!(laptop.quotes(book), ["on the tablet"]);
        assert_eq!(laptop.place(book), Some(500_000));
        lane.abort();
    });
}

#[test]
fn yesterdays_position_is_not_pushed_before_todays_is_pulled() {
    const DAY_MS: i64 = 86_400_000;
    run(async {
        let server = Server::start();
        let (yesterday, today) = (Device::with_clock("phone", -DAY_MS), Device::new("laptop"));
        let book = yesterday.import();
        let overheard = Overheard::before(server.at).await;
        yesterday.cloud.sign_up(&overheard.credentials("anna")).await.unwrap();
        today.sign_in(&server, "anna").await;
        today.import();
        today.sync().await;
        yesterday.sync().await;
        // Read yesterday without a network, and today elsewhere.
        yesterday.read(book, 900_000);
        today.read(book, 300_000);
        today.sync().await;
        overheard.forget();

        let report = yesterday.sync().await;
        assert!(0 < report.pulled && 0 < report.pushed, "{report:?}");
        let calls = overheard.calls();
        let first = |call: &str| calls.iter().position(|said| said.starts_with(call));
        assert!(first("GET /v1/changes") < first("POST /v1/ingest"), "{calls:?}");
        assert_eq!(first("GET /v1/changes"), Some(0), "{calls:?}");
        // Yesterday's place is ahead, and so it is written again; but nobody was moved before that was known.
        today.sync().await;
        assert_eq!(yesterday.place(book), today.place(book));

        // A stale place that is behind moves nobody at all.
        today.read(book, 950_000);
        today.sync().await;
        let other = yesterday.import_sample(1);
        yesterday.annotate(other, "x");
        yesterday.read(book, 910_000);
        let before = today.place(book);
        yesterday.sync().await;
        today.sync().await;
        assert_eq!((today.place(book), yesterday.place(book)), (before, before));
    });
}

/// Stands before a server, and notes which calls come.
struct Overheard {
    at: std::net::SocketAddr,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Overheard {
    async fn before(server: std::net::SocketAddr) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, said) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&said);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let there = tokio::net::TcpStream::connect(server).await.unwrap();
                let ((mut from, mut back), (mut answers, mut to)) =
                    (client.into_split(), there.into_split());
                let noted = Arc::clone(&noted);
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
                tokio::spawn(async move {
                    let mut bytes = [0; 4_096];
                    while let Ok(count @ 1..) = from.read(&mut bytes).await {
                        noted.lock().unwrap().extend_from_slice(&bytes[..count]);
                        to.write_all(&bytes[..count]).await.unwrap();
                    }
                });
            }
        });
        Self { at, said }
    }

    fn credentials(&self, user: &str) -> Credentials {
        let address = ServerAddress::parse(&format!("http://{}", self.at), false).unwrap();
        Credentials::new(address, user, PASSWORD)
    }

    fn forget(&self) {
        self.said.lock().unwrap().clear();
    }

    /// Returns the first line of each request.
    fn calls(&self) -> Vec<String> {
        let said = self.said.lock().unwrap();
        let text = String::from_utf8_lossy(&said);
        let lines = text.split("\r\n").filter_map(|line| line.strip_suffix(" HTTP/1.1"));
        // What is before it on its line is the body of the request before.
        let verbs = ["GET /v1/", "POST /v1/", "DELETE /v1/"];
        let call =
            |line: &str| verbs.iter().find_map(|verb| Some(line[line.find(verb)?..].to_owned()));
        lines.filter_map(call).collect()
    }
}

#[test]
fn a_change_reaches_another_device_as_it_happens_and_by_looking_when_it_cannot() {
    run(async {
        let server = Server::start();
        let (phone, laptop) = (Device::new("phone"), Device::new("laptop"));
        let book = phone.import();
        laptop.import();
        phone.sign_up(&server, "anna").await;
        laptop.sign_in(&server, "anna").await;
        let lanes: Vec<_> = [&phone, &laptop]
            .map(|device| {
                let cloud = device.cloud.clone();
                tokio::spawn(async move { cloud.run().await })
            })
            .into();
        for device in [&phone, &laptop] {
            device.sync().await;
        }
        until("both have come to rest", || {
            [&phone, &laptop].iter().all(|device| device.cloud.outbox().unwrap() == 0)
        })
        .await;
        let mut waits = Vec::new();
        for n in 1..=10 {
            let ppm = n * 10_000;
            phone.read(book, ppm);
            let since = Instant::now();
            until("the place arrives", || laptop.place(book) == Some(ppm)).await;
            waits.push(since.elapsed());
        }
        waits.sort_unstable();
        report(&format!("cloud: a position arrives elsewhere after {:?} (median of 10)", waits[5]));
        lanes.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

#[test]
fn signing_out_keeps_everything_and_another_account_gets_it_all() {
    run(async {
        let server = Server::start();
        let phone = Device::new("phone");
        let book = phone.import();
        phone.annotate(book, "mine");
        assert!(matches!(phone.cloud.sync().await, Err(CloudError::NotSignedIn)));
        phone.sign_up(&server, "anna").await;
        let first = phone.sync().await.pushed;
        assert!(phone.cloud.sign_out().await.unwrap(), "the server was told");
        assert!(matches!(phone.cloud.sync().await, Err(CloudError::NotSignedIn)));
        assert!(matches!(phone.cloud.sign_out().await, Err(CloudError::NotSignedIn)));
        assert_eq!(reasons(&phone), [(State::Stopped, Some(Reason::CloudSignedOut))]);
        assert_eq!(phone.quotes(book), ["mine"]);
        let devices = server.ledger.devices(account("anna")).await.unwrap();
        assert_eq!(devices.len(), 0);

        phone.annotate(book, "meanwhile");
        phone.sign_in(&server, "anna").await;
        assert_eq!(phone.sync().await.pushed, 1, "only what is new");
        phone.sign_up(&server, "bert").await;
        assert_eq!(phone.sync().await.pushed, first + 1, "all of it");
        assert_eq!(phone.quotes(book), ["meanwhile", "mine"]);
    });
}

#[test]
fn who_may_not_sign_in_is_told_why_and_nothing_is_kept() {
    run(async {
        let server = Server::start();
        let phone = Device::new("phone");
        let own = server.credentials("anna");
        let wrong = Credentials::new(own.server.clone(), "anna", "another password");
        let short = Credentials::new(own.server.clone(), "bert", "short");
        assert!(matches!(phone.cloud.sign_in(&own).await, Err(SignInError::Wrong)));
        phone.cloud.sign_up(&own).await.unwrap();
        let tablet = Device::new("tablet");
        assert!(matches!(tablet.cloud.sign_up(&own).await, Err(SignInError::NameTaken)));
        assert!(matches!(tablet.cloud.sign_in(&wrong).await, Err(SignInError::Wrong)));
        assert!(matches!(tablet.cloud.sign_up(&short).await, Err(SignInError::Unusable)));
        let nobody = ServerAddress::parse("http://127.0.0.1:1", false).unwrap();
        let nobody = Credentials::new(nobody, "anna", PASSWORD);
        let error = tablet.cloud.sign_in(&nobody).await.unwrap_err();
        assert!(matches!(error, SignInError::Server(ReachError::Connect(_))), "{error:?}");
        assert_eq!(tablet.cloud.account().unwrap(), None);
        assert_eq!(tablet.cloud.status(None).unwrap(), []);
        // Something else that speaks HTTP.
        let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = other.local_addr().unwrap();
        let answer = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut stream, _) = other.accept().await.unwrap();
            let mut request = [0; 4_096];
            while !request.windows(8).any(|end| end == b"password") {
                assert!(0 < stream.read(&mut request).await.unwrap());
            }
            let hello = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
            stream.write_all(hello).await.unwrap();
        });
        let other = ServerAddress::parse(&format!("http://{at}"), false).unwrap();
        let error = tablet.cloud.sign_in(&Credentials::new(other, "anna", PASSWORD)).await;
        assert!(matches!(error, Err(SignInError::Server(ReachError::Answer))), "{error:?}");
        answer.await.unwrap();
    });
}

#[test]
fn the_password_and_the_token_are_nowhere_but_where_they_belong() {
    run(async {
        let server = Server::start();
        let phone = Device::new("phone");
        phone.import();
        let credentials = server.credentials("anna");
        assert!(!format!("{credentials:?}").contains(PASSWORD));
        phone.cloud.sign_up(&credentials).await.unwrap();
        phone.sync().await;
        assert!(!format!("{:?}", phone.cloud).contains("cw1."));
        assert!(!phone.holds(PASSWORD.as_bytes()), "the password is not kept");
        assert!(!phone.holds(b"cw1."), "nor is the token as it is sent");
        let keys = phone.folder.path().join("library/keys");
        assert!(
            std::fs::read_dir(keys).unwrap().any(|entry| {
                entry.unwrap().file_name().to_string_lossy().starts_with("cloud-")
            })
        );
    });
}

#[test]
fn a_revoked_device_says_so_and_loses_nothing() {
    run(async {
        let server = Server::start();
        let phone = Device::new("phone");
        let book = phone.import();
        phone.sign_up(&server, "anna").await;
        phone.sync().await;
        let device = server.ledger.devices(account("anna")).await.unwrap()[0].id;
        server.ledger.remove_device(account("anna"), device).await.unwrap();
        phone.annotate(book, "meanwhile");
        // A token is believed for a while without being looked up.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(matches!(phone.cloud.sync().await, Err(CloudError::SignInAgain)));
        assert_eq!(reasons(&phone), [(State::Stopped, Some(Reason::CloudSignInAgain))]);
        phone.sign_in(&server, "anna").await;
        assert_eq!(phone.sync().await.pushed, 1);
        assert_eq!(reasons(&phone), [(State::InSync, None)]);
    });
}

#[test]
fn a_server_that_is_gone_is_named_and_everything_arrives_when_it_is_back() {
    run(async {
        let server = Server::start();
        let (phone, laptop) = (Device::new("phone"), Device::new("laptop"));
        let book = phone.import();
        phone.sign_up(&server, "anna").await;
        laptop.sign_in(&server, "anna").await;
        phone.sync().await;
        let (ledger, at) = (Arc::clone(&server.ledger), server.at.to_string());
        tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
        phone.annotate(book, "without a server");
        let error = phone.cloud.sync().await.unwrap_err();
        assert!(matches!(error, CloudError::Server(_)), "{error:?}");
        let told = phone.cloud.status(None).unwrap().pop().unwrap();
        assert!(matches!(told.subject, Subject::Account { .. }), "{told:?}");
        assert_eq!(told.state, State::Failing);
        assert!(told.since_ms.is_some() && told.reason.unwrap().remedy().is_some());
        // With the lane at work it comes back by itself.
        let lane = {
            let cloud = phone.cloud.clone();
            tokio::spawn(async move { cloud.run().await })
        };
        tokio::time::sleep(Duration::from_millis(300)).await;
        let server = Server::over(ledger, &at);
        until("the outbox drains", || phone.cloud.outbox().unwrap() == 0).await;
        laptop.sync().await;
        laptop.import();
        assert_eq!(laptop.quotes(book), ["without a server"]);
        lane.abort();
        drop(server);
    });
}

#[test]
fn a_book_that_was_removed_and_comes_back_has_what_it_missed() {
    run(async {
        let server = Server::start();
        let (phone, laptop) = (Device::new("phone"), Device::new("laptop"));
        let book = phone.import();
        laptop.import();
        phone.sign_up(&server, "anna").await;
        laptop.sign_in(&server, "anna").await;
        for device in [&phone, &laptop, &phone] {
            device.sync().await;
        }
        laptop.library.remove(book).unwrap();
        phone.annotate(book, "missed");
        phone.read(book, 123_456);
        phone.sync().await;
        assert_eq!(laptop.sync().await.outbox, 0);
        assert_eq!(laptop.place(book), None);
        phone.annotate(book, "missed, too");
        phone.sync().await;
        laptop.sync().await;

        laptop.import();
        laptop.sync().await;
        assert_eq!(laptop.quotes(book), ["missed", "missed, too"]);
        assert_eq!(laptop.place(book), Some(123_456));
    });
}

#[test]
fn a_server_that_was_restored_from_an_old_backup_gets_everything_again() {
    run(async {
        let old = Server::start();
        let phone = Device::new("phone");
        let book = phone.import();
        phone.sign_up(&old, "anna").await;
        for n in 0..5 {
            phone.annotate(book, &n.to_string());
        }
        phone.read(book, 5_000);
        phone.sync().await;
        // The same address and name, and nothing there.
        let at = old.at.to_string();
        tokio::task::spawn_blocking(move || drop(old)).await.unwrap();
        let server = Server::over(super::support::ledger(), &at);
        phone.sign_up(&server, "anna").await;
        phone.sync().await;
        let laptop = Device::new("laptop");
        laptop.sign_in(&server, "anna").await;
        laptop.sync().await;
        laptop.import();
        assert_eq!(laptop.quotes(book).len(), 5);
        assert_eq!(laptop.place(book), Some(5_000));
    });
}

/// Two devices that write by turns, so that their chains build on each other all the way.
#[test]
fn a_long_common_history_is_cut_where_the_server_takes_it() {
    run(async {
        let server = Server::start();
        let (phone, tablet) = (Device::new("phone"), Device::new("tablet"));
        let nodes = [node(&phone.library), node(&tablet.library)];
        pair(&nodes[0], &nodes[1]).await;
        let host = nodes[1].peers()[0].fingerprint;
        let address = nodes[0].address().unwrap();
        let book: BookId = phone.import();
        tablet.import();
        for n in 0..60 {
            for (device, name) in [(&phone, "p"), (&tablet, "t")] {
                for m in 0..20 {
                    device.annotate(book, &format!("{name} {n} {m}"));
                }
                nodes[1].sync(host, Some(address)).await.unwrap();
            }
        }
        phone.sign_up(&server, "anna").await;
        let report = phone.sync().await;
        assert_eq!((report.refused, report.outbox), (0, 0), "{report:?}");
        assert!(2_400 <= report.pushed);
        let laptop = Device::new("laptop");
        laptop.sign_in(&server, "anna").await;
        laptop.sync().await;
        laptop.import();
        assert_eq!(laptop.quotes(book).len(), 2_400);
    });
}

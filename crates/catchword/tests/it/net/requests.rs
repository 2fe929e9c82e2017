//! Signed requests over real connections, and the limits of what a peer may send.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use catchword::net::{
    Ask, CallError, Candidate, Connection, DialError, Incoming, IncomingError, Lost, Source,
    StreamError,
};
use catchword_model::identity::Fingerprint;
use catchword_proto::discovery::{Announcement, Dials, DiscoveryKey, InstanceName};
use catchword_proto::request::{
    Channel, FRAME_BYTES_MAX, Guard, Head, Refusal, SigningClock, Standing, Status,
};
use catchword_proto::secret::PairSecret;
use tokio::time::timeout;

use crate::net::report;
use crate::net::support::{Device, Impostor, SYNC, call, caller};

const NOW_MS: u64 = 1_760_000_000_000;
const DAY_MS: u64 = 86_400_000;
const SOON: Duration = Duration::from_secs(5);

fn secret() -> PairSecret {
    PairSecret::new([7; 32])
}

fn guard() -> Mutex<Guard> {
    Mutex::new(Guard::new(Instant::now()))
}

fn channel(connection: &Connection, own: &Device) -> Channel {
    connection.channel(&secret(), own.fingerprint).unwrap()
}

async fn take(
    connection: &Connection,
    channel: &Channel,
    guard: &Mutex<Guard>,
) -> Result<Incoming, IncomingError> {
    let stream = connection.accept().await.map_err(|lost| IncomingError::Stream(lost.into()))?;
    connection.read_request(stream, channel, guard, || Standing::Trusted, || NOW_MS).await
}

fn ask(body: &[u8]) -> Ask<'_> {
    Ask { method: "POST", path: "/sync", body }
}

/// Drivers run on whatever thread is free.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

/// A signed request as bytes, as somebody would record it.
fn message(channel: &Channel, number: u8, body: &[u8]) -> Vec<u8> {
    let head = Head { time_ms: NOW_MS, nonce: [number; 16], method: "POST", path: "/sync" };
    channel.request(&head, body).unwrap()
}

/// Sends bytes on a stream of their own.
async fn send(connection: &Connection, bytes: &[u8]) {
    let mut stream = connection.open().await.unwrap();
    // A stream that is refused while it is sent is refused too.
    let _refused = stream.write(bytes).await;
    let _refused = stream.finish(SOON).await;
}

#[tokio::test]
async fn a_signed_request_and_its_answer_cross_on_one_stream() {
    let (phone, tablet) = Device::pair();
    let (mine, theirs) = phone.connect(&tablet).await;
    let (my_channel, their_channel) = (channel(&mine, &phone), channel(&theirs, &tablet));
    let (guard, mut clock) = (guard(), SigningClock::default());

    let answering = async {
        let request = take(&theirs, &their_channel, &guard).await.unwrap();
        assert_eq!((request.method(), request.path()), ("POST", "/sync"));
        assert_eq!((request.body(), request.time_ms()), (&b"question"[..], NOW_MS));
        let request_bytes = request.message_bytes();
        (request_bytes, request.respond(&their_channel, Status::OK, b"answer").await.unwrap())
    };
    let calling = sendable(mine.call(&my_channel, &mut clock, || NOW_MS, ask(b"question")));
    let (reply, (request_bytes, answer_bytes)) = tokio::join!(calling, answering);

    let reply = reply.unwrap();
    assert_eq!((reply.status, reply.body), (Status::OK, b"answer".to_vec()));
    assert_eq!((reply.sent_bytes, reply.received_bytes), (request_bytes, answer_bytes));
    assert_eq!((reply.sent_bytes, reply.received_bytes, reply.round_trips), (76, 40, 1));
    report("a request of 8 bytes takes 68 more, an answer 34 more");
}

#[tokio::test]
async fn t_req_2_a_recorded_request_is_refused_wherever_it_is_sent_again() {
    let (phone, tablet) = Device::pair();
    let guard = guard();
    let (mine, theirs) = phone.connect(&tablet).await;
    let their_channel = channel(&theirs, &tablet);
    let recorded = message(&channel(&mine, &phone), 1, b"question");

    let ((), first) = tokio::join!(send(&mine, &recorded), take(&theirs, &their_channel, &guard));
    assert_eq!(first.unwrap().body(), b"question");
    let ((), again) = tokio::join!(send(&mine, &recorded), take(&theirs, &their_channel, &guard));
    assert_eq!(refusal(&again), Some(Refusal::Replay));
    assert_eq!(mine.closed().await, Lost::Closed { code: 0x20 });

    let (mine, theirs) = phone.connect(&tablet).await;
    let their_channel = channel(&theirs, &tablet);
    let ((), later) = tokio::join!(send(&mine, &recorded), take(&theirs, &their_channel, &guard));
    assert_eq!(refusal(&later), Some(Refusal::Tag));

    let restarted = Device::new(2);
    restarted.friends.add(phone.fingerprint);
    let (mine, theirs) = phone.connect(&restarted).await;
    let (their_channel, forgetful) = (channel(&theirs, &restarted), self::guard());
    let ((), after) =
        tokio::join!(send(&mine, &recorded), take(&theirs, &their_channel, &forgetful));
    assert_eq!(refusal(&after), Some(Refusal::Tag));
    report("T-REQ-2: 3 of 3 replays refused: same connection, new one, after a restart");
}

fn refusal(outcome: &Result<Incoming, IncomingError>) -> Option<Refusal> {
    match outcome {
        Err(IncomingError::Refused { refusal, .. }) => Some(*refusal),
        _ => None,
    }
}

#[tokio::test]
async fn t_req_3_a_clock_that_is_stepped_costs_one_more_round_trip() {
    let (phone, tablet) = Device::pair();
    let (mine, theirs) = phone.connect(&tablet).await;
    let (my_channel, their_channel) = (channel(&mine, &phone), channel(&theirs, &tablet));
    let (guard, mut clock) = (guard(), SigningClock::default());
    let answering = tokio::spawn(async move {
        loop {
            match take(&theirs, &their_channel, &guard).await {
                Ok(request) => {
                    request.respond(&their_channel, Status::OK, b"").await.unwrap();
                }
                Err(IncomingError::Refused { refusal: Refusal::ClockSkew { .. }, .. }) => (),
                Err(error) => break error,
            }
        }
    });

    let mut round_trips = Vec::new();
    for now_ms in [NOW_MS, NOW_MS + DAY_MS, NOW_MS - DAY_MS, NOW_MS] {
        let reply = mine.call(&my_channel, &mut clock, || now_ms, ask(b"")).await.unwrap();
        assert_eq!(reply.status, Status::OK);
        round_trips.push(reply.round_trips);
    }

    assert_eq!(round_trips, [1, 2, 2, 2]);
    mine.close(Status::OK);
    let over = answering.await.unwrap();
    let closed = StreamError::Lost(Lost::Closed { code: 0 });
    assert!(matches!(over, IncomingError::Stream(error) if error == closed), "{over:?}");
    report(&format!("T-REQ-3: round trips after each step of the clock: {round_trips:?}"));
}

#[tokio::test]
async fn an_answer_that_somebody_else_signed_closes_the_connection() {
    let (phone, tablet) = Device::pair();
    let (mine, theirs) = phone.connect(&tablet).await;
    let my_channel = channel(&mine, &phone);
    let another = PairSecret::new([8; 32]);
    let forging = theirs.channel(&another, tablet.fingerprint).unwrap();
    let (guard, mut clock) = (guard(), SigningClock::default());
    let their_channel = channel(&theirs, &tablet);

    let answering = async {
        let request = take(&theirs, &their_channel, &guard).await.unwrap();
        request.respond(&forging, Status::OK, b"").await.unwrap();
    };
    let (reply, ()) =
        tokio::join!(mine.call(&my_channel, &mut clock, || NOW_MS, ask(b"")), answering);
    assert!(matches!(reply, Err(CallError::Forged(_))), "{reply:?}");
    assert_eq!(theirs.closed().await, Lost::Closed { code: 0x31 });
}

#[tokio::test]
async fn a_message_of_eight_mebibytes_arrives_and_one_byte_more_closes_the_connection() {
    let (phone, tablet) = Device::pair();
    let (mine, theirs) = phone.connect(&tablet).await;
    let (my_channel, their_channel) = (channel(&mine, &phone), channel(&theirs, &tablet));
    let guard = guard();
    let body = vec![7; FRAME_BYTES_MAX - message(&my_channel, 1, b"").len()];
    let longest = message(&my_channel, 1, &body);
    assert_eq!(longest.len(), FRAME_BYTES_MAX);

    let ((), taken) = tokio::join!(send(&mine, &longest), take(&theirs, &their_channel, &guard));
    assert_eq!(taken.unwrap().body(), body);

    let longer = [longest, vec![7]].concat();
    let ((), refused) = tokio::join!(send(&mine, &longer), take(&theirs, &their_channel, &guard));
    assert!(matches!(refused, Err(IncomingError::Stream(StreamError::TooLarge))), "{refused:?}");
    assert_eq!(mine.closed().await, Lost::Closed { code: 0x30 });
}

/// Takes ten seconds: so long a peer may take for 10 KiB.
#[tokio::test]
async fn a_slow_request_is_reset_and_holds_up_no_other() {
    let (phone, tablet) = Device::pair();
    let (mine, theirs) = phone.connect(&tablet).await;
    let (my_channel, their_channel) = (channel(&mine, &phone), channel(&theirs, &tablet));
    let (guard, mut clock) = (guard(), SigningClock::default());

    let mut slow = mine.open().await.unwrap();
    slow.write(b"a").await.unwrap();
    let opened = theirs.accept().await.unwrap();
    let waiting =
        theirs.read_request(opened, &their_channel, &guard, || Standing::Trusted, || NOW_MS);
    let dripping = async {
        let mut dripped = 0;
        while slow.write(b"a").await.is_ok() {
            dripped += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        dripped
    };
    let others = async {
        for _ in 0..10 {
            let answering = async {
                let request = take(&theirs, &their_channel, &guard).await.unwrap();
                request.respond(&their_channel, Status::OK, b"").await.unwrap();
            };
            let calling = mine.call(&my_channel, &mut clock, || NOW_MS, ask(b""));
            let (reply, ()) = tokio::join!(calling, answering);
            assert_eq!(reply.unwrap().status, Status::OK);
        }
        Instant::now()
    };
    let waiting = async { (waiting.await, Instant::now()) };
    let (dripped, others_done, (outcome, reset)) = tokio::join!(dripping, others, waiting);

    assert!(matches!(outcome, Err(IncomingError::Stream(StreamError::TooSlow))), "{outcome:?}");
    assert!(others_done < reset);
    assert!(dripped < 10 << 10);
    report(&format!("a request was reset after {dripped} bytes, 10 others went on"));
}

#[tokio::test]
async fn a_peer_opens_eight_streams_and_no_other_kind() {
    let (phone, tablet) = Device::pair();
    let (_endpoint, connecting) = call(caller(Some(phone.shown()), &[SYNC]), tablet.address);
    let (raw, theirs) = tokio::join!(connecting, tablet.endpoint.accept());
    let (raw, _theirs) = (raw.unwrap(), theirs.unwrap());
    let moment = Duration::from_millis(300);

    let mut open = Vec::new();
    while let Ok(stream) = timeout(moment, raw.open_bi()).await {
        open.push(stream.unwrap());
    }
    assert_eq!(open.len(), 8);
    assert!(timeout(moment, raw.open_uni()).await.is_err());
    assert!(raw.max_datagram_size().is_none());
}

#[tokio::test]
async fn a_peer_that_was_restarted_twice_connects_again() {
    let tablet = Device::new(2);
    let mut starts = Vec::new();
    for _ in 0..3 {
        // As after a kill: the one before did not say goodbye.
        let phone = Device::new(1);
        phone.friends.add(tablet.fingerprint);
        tablet.friends.add(phone.fingerprint);
        let (mine, theirs) = phone.connect(&tablet).await;
        starts.push((phone, mine, theirs));
    }

    let (phone, oldest, _) = starts.remove(0);
    assert_eq!(oldest.closed().await, Lost::Closed { code: 0x20 });
    for (_, mine, _) in &starts {
        assert!(timeout(Duration::from_millis(50), mine.closed()).await.is_err());
    }
    assert_eq!(tablet.endpoint.disconnect(phone.fingerprint), 2);
}

#[tokio::test]
async fn the_first_address_that_is_the_peer_counts() {
    let (phone, tablet) = Device::pair();
    let somebody = Impostor::new(Device::new(3).shown());
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let candidates = [
        Candidate::new(silent, Source::Announced),
        Candidate::new(somebody.address, Source::Known),
        Candidate::new(tablet.address, Source::Given),
    ];

    let dialled = phone.endpoint.dial(tablet.fingerprint, &candidates);
    let (mine, theirs) = tokio::join!(dialled, tablet.endpoint.accept());
    assert_eq!(
        (mine.unwrap().peer(), theirs.unwrap().peer()),
        (tablet.fingerprint, phone.fingerprint)
    );
    assert_eq!(somebody.heard().await.1, 0);
}

/// A stranger on the network has recorded the announcement of the tablet, and answers in its place.
#[tokio::test]
async fn t_disc_1_who_repeats_a_tag_is_dialled_once_and_told_nothing() {
    let (phone, tablet) = Device::pair();
    let stranger = Impostor::new(Device::new(3).shown());
    let key = DiscoveryKey::new(&secret());
    let (name, port) = (InstanceName([9; 8]), stranger.address.port());
    let replayed = Announcement::new(tablet.fingerprint, name, port, 1, [&key], [[0; 8]; 16]);

    let (mut dials, mut dialled, mut deactivated) = (Dials::default(), 0, 0);
    let mut active: Vec<(Fingerprint, &DiscoveryKey)> = vec![(tablet.fingerprint, &key)];
    for seconds in 0..100 {
        let now = Instant::now() + Duration::from_secs(seconds);
        let announcer = replayed.announcer(active.iter().copied(), 1);
        let Some(peer) = announcer.filter(|peer| dials.begin(*peer, now)) else { continue };
        dialled += 1;
        let candidate = Candidate::new(stranger.address, Source::Announced);
        if let Err(DialError::Impostor { .. }) = phone.endpoint.dial(peer, &[candidate]).await {
            deactivated += 1;
            phone.friends.remove(peer);
            active.retain(|(active, _)| *active != peer);
        }
    }

    let (called, bytes) = stranger.heard().await;
    assert_eq!((dialled, deactivated, called, bytes), (1, 1, 1, 0));
    report("T-DISC-1: 100 replays: 1 dial, 1 deactivation, 0 bytes sent");
}

/// Strangers send the first packet of a handshake and are never heard of again.
#[tokio::test]
async fn callers_that_vanish_do_not_keep_a_peer_out() {
    let (phone, tablet) = Device::pair();
    let capture = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut packet = [0; 2_048];
    let mut sent = 0;
    for _ in 0..200 {
        let to = capture.local_addr().unwrap();
        let (_endpoint, _connecting) = call(caller(None, &[SYNC]), to);
        let (length, _) = capture.recv_from(&mut packet).await.unwrap();
        let spoofed = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        sent += spoofed.send_to(&packet[..length], tablet.address).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let half_open = tablet.endpoint.connections();

    assert_eq!(half_open, 8, "the others were asked to prove their address");
    let (mine, theirs) = phone.connect(&tablet).await;
    assert_eq!((mine.peer(), theirs.peer()), (tablet.fingerprint, phone.fingerprint));
    report(&format!("200 callers vanished after {sent} bytes, {half_open} are remembered"));
}

//! The calls over HTTP, and T-SRV-1, 3 and 4.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use catchword_proto::cloud::api::{
    BODY_BYTES_MAX, Books, DEVICES_MAX, Devices, Entry, Ingested, Nudge, Outcome, Page,
    ProblemKind, RECORDS_MAX, Record, SignedIn,
};
use catchword_proto::cloud::codec::Format;
use catchword_server::app::{AddressFrom, OPENAPI, Policy, Routes, SignUp};
use serde_json::Value;

use crate::conformance::receipt;
use crate::devices::{Device, book, doc};
use crate::server::{Body, Client, OPEN, PASSWORD, Reply, Server, call, wish};

fn nothing() -> BTreeSet<[u8; 32]> {
    BTreeSet::new()
}

fn one_entry(text: &str) -> Entry {
    let mut phone = Device::new(1);
    phone.annotate(doc(1), text);
    phone.read(book(1));
    phone.entry(doc(1), &nothing(), 0)
}

#[test]
fn a_device_signs_up_pushes_and_reads_and_another_one_signs_in_and_reads_the_same() {
    let server = Server::start(OPEN);
    let anna = server.sign_up("Anna");
    assert_eq!(anna.push(&[one_entry("one")]).cursor, 2);

    let body = wish("anna ", PASSWORD);
    let reply = call(server.at, ("POST", "/v1/devices"), &[], &body).unwrap();
    assert_eq!(reply.status, 201);
    let tablet = Client { at: server.at, signed_in: reply.json() };
    let page: Page = tablet.get("/v1/changes?after=0&limit=10").json();
    assert_eq!((page.records.len(), page.cursor, page.end), (2, 2, 2));
    let tag = page.tag.unwrap();
    let with = |known: &str| anna.get(&format!("/v1/changes?after=2&known={known}"));
    let same: Page = with(&format!("2-{tag}")).json();
    assert_eq!((same.reset, same.tag), (false, Some(tag)));
    for known in ["2-0123456789abcdef".to_owned(), format!("3-{tag}")] {
        let other: Page = with(&known).json();
        assert!(other.reset && other.records.is_empty() && other.end == 2, "{known}: {other:?}");
    }
    assert_eq!(with("2").problem(), ProblemKind::Malformed);
    let cbor =
        tablet.try_call(("GET", "/v1/changes"), &[("accept", "application/cbor")], &[]).unwrap();
    assert_eq!(cbor.headers["content-type"], "application/cbor");
    assert_eq!(Format::Cbor.decode(&cbor.body), Ok(page));
    let books: Books = tablet.get("/v1/books").json();
    assert_eq!((books.books.len(), books.books[0].events), (1, 1));

    let devices: Devices = tablet.get("/v1/devices").json();
    assert_eq!(devices.devices.len(), 2);
    let path = format!("/v1/devices/{}", anna.signed_in.device);
    assert_eq!(tablet.call(("DELETE", &path), &[]).status, 204);
    assert_eq!(tablet.call(("DELETE", &path), &[]).problem(), ProblemKind::NotFound);
    assert_eq!(anna.get("/v1/books").problem(), ProblemKind::Unauthorized);
    assert_eq!(tablet.get("/v1/books").status, 200);
}

#[test]
fn the_document_names_every_call_and_every_member() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, calls) in document["paths"].as_object().unwrap() {
        for method in calls.as_object().unwrap().keys() {
            described.insert((method.clone(), path.clone()));
        }
    }
    let calls = Routes::all().calls;
    let calls: BTreeSet<_> =
        calls.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, calls);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in OPENAPI.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }

    let server = Server::start(OPEN);
    let anna = server.sign_up("anna");
    let mut phone = Device::new(1);
    let at = crate::devices::stamp(9);
    phone.turn(doc(1), at, (catchword_model::position::Intent::Jump, 1, 5));
    phone.read(book(1));
    let entry = phone.entry(doc(1), &nothing(), 0);
    let body = serde_json::to_vec(&Body { entries: std::slice::from_ref(&entry) }).unwrap();
    let mut checked = 0;
    let mut check = |name: &str, body: &[u8]| {
        checked += fits(&document, &schemas[name], &serde_json::from_slice(body).unwrap(), name);
    };
    check("Ingest", &body);
    check("Ingested", &anna.call(("POST", "/v1/ingest"), &body).body);
    check("Page", &anna.get("/v1/changes").body);
    check("Books", &anna.get("/v1/books").body);
    check("Book", &anna.get(&format!("/v1/books/{}", book(1))).body);
    check("Devices", &anna.get("/v1/devices").body);
    check("Problem", &anna.get("/v1/nothing").body);
    check("SignedIn", &serde_json::to_vec(&anna.signed_in).unwrap());
    assert!(70 < checked, "{checked} members");
    assert_eq!(anna.get("/v1/openapi.json").body, OPENAPI.as_bytes());
}

/// Returns how many members are described, after checking that none is not and none is missing.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> usize {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return fits(document, &document["components"]["schemas"][name], value, name);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return if value.is_null() { 0 } else { fits(document, &any[0], value, at) };
    }
    match value {
        Value::Object(members) => {
            for needed in schema["required"].as_array().unwrap() {
                assert!(members.contains_key(needed.as_str().unwrap()), "{at} lacks {needed}");
            }
            let each = members.iter().map(|(name, value)| {
                let of = &schema["properties"][name];
                assert!(of.is_object(), "{at}.{name} is not described");
                1 + fits(document, of, value, name)
            });
            each.sum()
        }
        Value::Array(items) => {
            items.iter().map(|item| fits(document, &schema["items"], item, at)).sum()
        }
        Value::String(text) => {
            assert_eq!(schema["type"], "string", "{at}");
            if let Some(choices) = schema["enum"].as_array() {
                assert!(choices.contains(value), "{at}: {text}");
            }
            0
        }
        Value::Number(_) => {
            assert_eq!(schema["type"], "integer", "{at}");
            0
        }
        Value::Bool(_) | Value::Null => 0,
    }
}

#[test]
fn what_does_not_read_is_a_problem_with_a_stable_type() {
    let server = Server::start(OPEN);
    let anna = server.sign_up("anna");
    let ingest = ("POST", "/v1/ingest");
    let sent = |headers: &[(&str, &str)], body: &[u8]| {
        anna.try_call(ingest, headers, body).unwrap().problem()
    };
    assert_eq!(sent(&[], b"{"), ProblemKind::Malformed);
    assert_eq!(sent(&[], b"{\"entries\":[{}]}"), ProblemKind::Malformed);
    assert_eq!(sent(&[("content-type", "application/cbor")], b"{}"), ProblemKind::Malformed);
    assert_eq!(sent(&[("content-type", "text/html")], b"{}"), ProblemKind::MediaType);
    assert_eq!(anna.get("/v1/ingest").problem(), ProblemKind::Method);
    assert_eq!(anna.get("/v2").problem(), ProblemKind::NotFound);
    assert_eq!(anna.get("/v1/changes?after=x").problem(), ProblemKind::Malformed);
    assert_eq!(anna.get("/v1/books?after=x").problem(), ProblemKind::Malformed);
    assert_eq!(anna.get("/v1/books/x").problem(), ProblemKind::NotFound);
    assert_eq!(anna.get("/v1/live").problem(), ProblemKind::Malformed);
    for token in ["", "Bearer", "Bearer x", "Basic YTpi"] {
        let headers = [("authorization", token)];
        let reply = call(server.at, ("GET", "/v1/books"), &headers, &[]).unwrap();
        assert_eq!(reply.problem(), ProblemKind::Unauthorized, "{token}");
    }
    let sign_up = |user: &str, password: &str| {
        call(server.at, ("POST", "/v1/accounts"), &[], &wish(user, password)).unwrap()
    };
    assert_eq!(sign_up("ANNA", PASSWORD).problem(), ProblemKind::UserTaken);
    for (user, password) in
        [(" ", PASSWORD), ("b", "7 bytes"), ("b", &"x".repeat(1_025)), (&"u".repeat(129), PASSWORD)]
    {
        assert_eq!(sign_up(user, password).problem(), ProblemKind::Unusable);
    }
    assert_eq!(sign_up("b", "8 bytes!").status, 201);
    let closed = Server::start(Policy { sign_up: SignUp::Closed, ..OPEN });
    let reply = call(closed.at, ("POST", "/v1/accounts"), &[], &wish("c", PASSWORD)).unwrap();
    assert_eq!(reply.problem(), ProblemKind::Closed);
}

#[test]
fn a_body_and_a_batch_have_limits() {
    let server = Server::start(OPEN);
    let anna = server.sign_up("anna");
    let mut phone = Device::new(1);
    let all: Vec<_> = (0..=RECORDS_MAX).map(|_| phone.read(book(1))).collect();
    let too_many = phone.entry_of(doc(1), 0, &[], &all);
    let most = phone.entry_of(doc(1), 0, &[], &all[..RECORDS_MAX]);
    let empty = Entry { events: Vec::new(), ..most.clone() };
    assert_eq!(anna.try_push(&[too_many]).unwrap().problem(), ProblemKind::TooLarge);
    assert_eq!(anna.try_push(&[most.clone(), empty]).unwrap().problem(), ProblemKind::TooLarge);
    assert_eq!(anna.push(&[most]).cursor, RECORDS_MAX as u64);

    let spaces = |bytes: usize| [vec![b' '; bytes - 14], b"{\"entries\":[]}".to_vec()].concat();
    let ingest = ("POST", "/v1/ingest");
    let reply = anna.call(ingest, &spaces(BODY_BYTES_MAX));
    assert_eq!(reply.json::<Ingested>().cursor, RECORDS_MAX as u64);
    assert_eq!(anna.call(ingest, &spaces(BODY_BYTES_MAX + 1)).problem(), ProblemKind::TooLarge);
    // The same without saying so before.
    let mut stream = TcpStream::connect(server.at).unwrap();
    let head = format!(
        "POST /v1/ingest HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        anna.signed_in.token
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..9 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut text = Vec::new();
    let _cut = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 413"), "{text}");
}

#[test]
fn an_account_has_at_most_so_many_devices_and_tries() {
    let server = Server::start(OPEN);
    let anna = server.sign_up("anna");
    let sign_in = |user: &str, password: &str| {
        call(server.at, ("POST", "/v1/devices"), &[], &wish(user, password)).unwrap()
    };
    for _ in 1..DEVICES_MAX {
        assert_eq!(sign_in("anna", PASSWORD).status, 201);
    }
    assert_eq!(sign_in("anna", PASSWORD).problem(), ProblemKind::TooManyDevices);
    let path = format!("/v1/devices/{}", anna.signed_in.device);
    assert_eq!(anna.call(("DELETE", &path), &[]).status, 204);
    assert_eq!(sign_in("anna", PASSWORD).status, 201);

    for _ in 0..5 {
        assert_eq!(sign_in("anna", "wrong password").problem(), ProblemKind::SignIn);
    }
    let waits = sign_in("anna", PASSWORD);
    assert_eq!(waits.problem(), ProblemKind::SlowDown);
    let unknown = sign_in("nobody", "wrong password");
    assert_eq!(unknown.problem(), ProblemKind::SignIn, "as if it were there");
    assert_eq!(sign_in("bert", PASSWORD).problem(), ProblemKind::SignIn);
}

/// T-SRV-1: every call with every id of another account.
#[test]
fn no_call_reaches_another_account() {
    let server = Server::start(OPEN);
    let (anna, bert) = (server.sign_up("anna"), server.sign_up("bert"));
    let entry = one_entry("anna's own words");
    anna.push(std::slice::from_ref(&entry));
    let of_anna = anna.signed_in.device.to_string();
    let device = format!("/v1/devices/{of_anna}");
    let of_book = format!("/v1/books/{}", book(1));
    // Anna's token with Bert's account in it, and the other way round.
    let decode = |client: &Client| {
        let text = client.signed_in.token.strip_prefix("cw1.").unwrap().to_owned();
        data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()
    };
    let (a, b) = (decode(&anna), decode(&bert));
    let mut forged = Vec::new();
    for (first, second, third) in
        [(&b, &a, &a), (&b, &b, &a), (&b, &a, &b), (&a, &b, &b), (&a, &a, &b)]
    {
        let bytes = [&first[..16], &second[16..32], &third[32..]].concat();
        let token = format!("cw1.{}", data_encoding::BASE64URL_NOPAD.encode(&bytes));
        let signed_in = SignedIn { token, ..bert.signed_in.clone() };
        forged.push(Client { at: server.at, signed_in });
    }

    let (mut cases, mut crossed) = (0, 0);
    let mut look = |reply: Reply| {
        cases += 1;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let shows = text.contains(&of_anna) || text.contains(&book(1).to_string());
        crossed += u32::from(shows || reply.status == 204);
    };
    let paths = [
        ("GET", "/v1/devices".to_owned()),
        ("DELETE", device),
        ("GET", "/v1/changes?after=0".to_owned()),
        ("GET", "/v1/books".to_owned()),
        ("GET", of_book),
    ];
    for client in std::iter::once(&bert).chain(&forged) {
        for (method, path) in &paths {
            look(client.call((method, path), &[]));
        }
    }
    for client in &forged {
        let reply = client.try_push(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(reply.problem(), ProblemKind::Unauthorized);
        look(reply);
    }
    eprintln!(
        "T-SRV-1: {crossed} rows crossed, {} calls x {cases} cases",
        Routes::all().calls.len()
    );
    assert_eq!(crossed, 0);
    // The same entry, pushed to Bert, is new there: nothing says that Anna has it.
    assert!(matches!(bert.push(&[entry]).answers[0].outcome, Outcome::Accepted(_)));
}

/// T-SRV-3.
#[test]
fn a_batch_that_is_sent_several_times_at_once_counts_once() {
    let server = Server::start(OPEN);
    let anna = server.sign_up("anna");
    let mut sent = 0;
    for batch in 0..12_u8 {
        let mut phone = Device::new(batch + 1);
        phone.annotate(doc(batch), "x");
        phone.annotate(doc(batch), "y");
        let entry = phone.entry(doc(batch), &nothing(), 0);
        let times = batch % 5 + 1;
        std::thread::scope(|scope| {
            for _ in 0..times {
                scope.spawn(|| {
                    let ingested = anna.push(std::slice::from_ref(&entry));
                    assert_eq!(receipt(&ingested.answers[0].outcome).version, 2);
                });
            }
        });
        sent += u32::from(times);
    }
    let page: Page = anna.get("/v1/changes").json();
    eprintln!("T-SRV-3: 12 batches sent {sent} times, {} records", page.end);
    assert_eq!((page.records.len(), page.end), (24, 24));
}

/// T-SRV-4: `CATCHWORD_LOGINS=10000` for the full size.
///
/// Half of the flood comes from one address, which soon has to wait, and half from as many addresses as
/// there are logins, so that each of their passwords is looked at, or refused because too many wait.
#[test]
fn who_floods_the_server_does_not_slow_down_others() {
    let logins: u32 = std::env::var("CATCHWORD_LOGINS").map_or(300, |text| text.parse().unwrap());
    let server = Server::start(Policy { address: AddressFrom::Proxy, ..OPEN });
    let anna = server.sign_up("anna");
    let alone = times_of(&anna, || false);
    let done = AtomicBool::new(false);
    let (beside, one, many) = std::thread::scope(|scope| {
        let (done, anna) = (&done, &anna);
        let beside = scope.spawn(move || times_of(anna, || !done.load(Ordering::Relaxed)));
        let one = scope.spawn(|| flood(server.at, 0..logins / 2, |_| "10.0.0.1".to_owned()));
        let (half, each) = (logins / 2, (logins / 2).div_ceil(FLOODERS));
        let parts =
            (0..FLOODERS).map(|part| half + part * each..(half + (part + 1) * each).min(logins));
        let address = |n: u32| std::net::Ipv4Addr::from_bits(0x0b00_0000 + n).to_string();
        let at = server.at;
        let many: Vec<_> =
            parts.map(|numbers| scope.spawn(move || flood(at, numbers, address))).collect();
        let many: Vec<_> = many.into_iter().map(|flood| flood.join().unwrap()).collect();
        let one = one.join().unwrap();
        done.store(true, Ordering::Relaxed);
        (beside.join().unwrap(), one, many)
    });
    let mut of_many = BTreeMap::new();
    for (status, count) in many.into_iter().flatten() {
        *of_many.entry(status).or_insert(0) += count;
    }
    eprintln!(
        "T-SRV-4: {logins} logins; from one address {one:?}, from many {of_many:?}; a good client, in us \
         (p50, p99, calls): {alone:?} alone, {beside:?} beside"
    );
    // Passwords of the one address that were looked at, or would have been on a machine with nothing else
    // to do: until it must wait, and after each wait one.
    let counted = |statuses: &BTreeMap<u16, u32>, wanted: &[u16]| -> u32 {
        wanted.iter().filter_map(|status| statuses.get(status)).sum()
    };
    let looked_at = counted(&one, &[401, 503]);
    assert!((20..40).contains(&looked_at), "{one:?}");
    assert_eq!(looked_at + counted(&one, &[429]), logins / 2, "{one:?}");
    assert_eq!(counted(&of_many, &[401, 503]), logins - logins / 2, "{of_many:?}");
    assert_eq!(anna.push(&[one_entry("still here")]).cursor, 2);
}

/// Clients that try passwords at the same time.
const FLOODERS: u32 = 8;

/// Tries wrong passwords, and counts how they are answered.
fn flood(
    at: std::net::SocketAddr,
    numbers: std::ops::Range<u32>,
    address: impl Fn(u32) -> String,
) -> BTreeMap<u16, u32> {
    let mut statuses = BTreeMap::new();
    for n in numbers {
        let body = wish(&format!("user {n}"), "wrong password");
        let from = address(n);
        let headers = [("x-forwarded-for", from.as_str())];
        let reply = call(at, ("POST", "/v1/devices"), &headers, &body).unwrap();
        *statuses.entry(reply.status).or_insert(0_u32) += 1;
    }
    statuses
}

/// Returns the median and the 99th of 100 times of a call, in microseconds, and how many calls there
/// were: 200 at least, and on while it should.
fn times_of(client: &Client, go_on: impl Fn() -> bool) -> (u128, u128, usize) {
    let mut took: Vec<Duration> = Vec::new();
    while took.len() < 200 || go_on() {
        let start = Instant::now();
        assert_eq!(client.get("/v1/books").status, 200);
        took.push(start.elapsed());
        // An account makes at most 50 calls in a second.
        std::thread::sleep(Duration::from_millis(25));
    }
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100].as_micros();
    (at(50), at(99), took.len())
}

/// T-SRV-4, the slow one: a head and a body that never end.
#[test]
fn a_slow_request_is_given_up() {
    let server = Server::start(OPEN);
    let anna = server.sign_up("anna");
    let slow = |head: String| {
        let mut stream = TcpStream::connect(server.at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        let _cut = stream.read_to_string(&mut text);
        text
    };
    let token = &anna.signed_in.token;
    let body = format!(
        "POST /v1/ingest HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-length: 100\r\n\r\n{{"
    );
    std::thread::scope(|scope| {
        let head = scope.spawn(|| slow("GET /v1/books HTT".to_owned()));
        let body = scope.spawn(|| slow(body));
        assert_eq!(anna.get("/v1/books").status, 200);
        let body = body.join().unwrap();
        assert!(body.starts_with("HTTP/1.1 408"), "{body}");
        let head = head.join().unwrap();
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    });
}

fn live(client: &Client) -> tungstenite::Socket {
    tungstenite::connect(client)
}

/// A WebSocket client of some lines.
mod tungstenite {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

    use super::{Client, Duration, Nudge, TcpStream};

    pub(super) struct Socket(WebSocket<TcpStream>);

    pub(super) fn connect(to: &Client) -> Socket {
        let stream = TcpStream::connect(to.at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut request = format!("ws://{}/v1/live", to.at).into_client_request().unwrap();
        let bearer = format!("Bearer {}", to.signed_in.token);
        request.headers_mut().insert("authorization", bearer.parse().unwrap());
        Socket(client(request, stream).unwrap().0)
    }

    impl Socket {
        /// Returns the next nudge; none once the server has closed.
        pub(super) fn next(&mut self) -> Option<u64> {
            loop {
                match self.0.read() {
                    Ok(Message::Text(text)) => {
                        return Some(serde_json::from_str::<Nudge>(&text).unwrap().cursor);
                    }
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => (),
                }
            }
        }
    }
}

#[test]
fn a_live_connection_says_how_far_the_feed_is_until_its_device_is_signed_out() {
    let server = Server::start(OPEN);
    let (anna, bert) = (server.sign_up("anna"), server.sign_up("bert"));
    let (mut of_anna, mut of_bert) = (live(&anna), live(&bert));
    assert_eq!((of_anna.next(), of_bert.next()), (Some(0), Some(0)));

    let start = Instant::now();
    anna.push(&[one_entry("one")]);
    assert_eq!(of_anna.next(), Some(2));
    eprintln!("push to nudge: {} us", start.elapsed().as_micros());
    bert.push(&[one_entry("one")]);
    assert_eq!(of_bert.next(), Some(2), "and nothing about Anna");

    let gone = format!("/v1/devices/{}", anna.signed_in.device);
    assert_eq!(anna.call(("DELETE", &gone), &[]).status, 204);
    assert_eq!(of_anna.next(), None, "its token is worth nothing any more");
    let metrics = call(server.at, ("GET", "/metrics"), &[], &[]).unwrap();
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("catchword_live_connections 1\n"), "{text}");
    let counted =
        "catchword_requests_total{route=\"/v1/ingest\",method=\"POST\",status=\"200\"} 2\n";
    assert!(text.contains(counted), "{text}");
    let healthy = call(server.at, ("GET", "/v1/healthz"), &[], &[]).unwrap();
    assert_eq!(healthy.status, 200);
    drop(server);
    assert_eq!(of_bert.next(), None, "the server has ended");
}

/// What was answered before the process ended is there when the next one begins.
#[test]
fn a_server_that_ends_while_many_push_has_everything_that_it_answered() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use catchword_server::ledger::{Ledger as _, RedbLedger};

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloud.redb");
    let server = Server::over(OPEN, Arc::new(RedbLedger::open(&file).unwrap()), (None, None));
    let anna = server.sign_up("anna");
    let taken = Arc::new(AtomicUsize::new(0));
    let pushing: Vec<_> = (1..=4)
        .map(|number| {
            let (anna, taken) = (anna.clone(), Arc::clone(&taken));
            std::thread::spawn(move || {
                let mut device = Device::new(number);
                let (mut written, mut answered) = (BTreeSet::new(), BTreeSet::new());
                loop {
                    for _ in 0..20 {
                        let quote = written.len().to_string();
                        written.insert(device.annotate(doc(number), &quote).hash().0);
                    }
                    match anna.try_push(&[device.entry(doc(number), &answered, 0)]) {
                        Ok(reply) if reply.status == 200 => {
                            receipt(&reply.json::<Ingested>().answers[0].outcome);
                            answered = written.clone();
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                        // It is asked to slow down.
                        Ok(reply) if reply.status == 429 => (),
                        Ok(_) | Err(_) => return (answered, written),
                    }
                }
            })
        })
        .collect();
    while taken.load(Ordering::Relaxed) < 12 {
        std::thread::yield_now();
    }
    drop(server);

    let ends: Vec<_> = pushing.into_iter().map(|thread| thread.join().unwrap()).collect();
    let ledger = RedbLedger::open(&file).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut found = BTreeSet::new();
    let mut cursor = 0;
    loop {
        let page = runtime.block_on(ledger.page(anna.signed_in.account, cursor, 1_000)).unwrap();
        for record in page.records {
            let Record::Change { bytes, .. } = record.record else { continue };
            found.insert(catchword_model::change::read::read(&bytes.0).unwrap().hash().0);
        }
        if page.cursor == page.end {
            break;
        }
        cursor = page.cursor;
    }
    let mut answered_in_all = 0;
    for (answered, written) in ends {
        answered_in_all += answered.len();
        assert!(answered.is_subset(&found), "what was answered is there");
        let there = written.intersection(&found).count();
        assert!([answered.len(), written.len()].contains(&there), "a batch is whole: {there}");
    }
    eprintln!("ended after {answered_in_all} changes were answered; {} are there", found.len());
    assert!(12 * 20 <= answered_in_all);
}

/// The same calls over TLS 1.3, with a certificate that the client knows.
#[test]
fn with_a_certificate_the_server_speaks_tls() {
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};

    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = Server::start_tls(OPEN, catchword_server::serve::tls(&chain, &key).unwrap());

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&chain).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(server.at).unwrap();
    let mut tls = rustls::Stream::new(&mut session, &mut stream);
    tls.write_all(b"GET /v1/healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    let _closed = tls.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");

    // Plain HTTP there is closed without a word, and files that do not fit are refused at start.
    let plain = call(server.at, ("GET", "/v1/healthz"), &[], &[]);
    assert!(plain.is_err(), "{plain:?}");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    assert!(catchword_server::serve::tls(&chain, &key).is_err());
    assert!(catchword_server::serve::tls(&key, &key).is_err());
    assert!(catchword_server::serve::tls(&chain, &folder.path().join("nothing")).is_err());
}

//! A server on a free port of this machine, and a client that says exactly what it is told to.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use catchword_proto::cloud::api::{Entry, Ingested, Problem, ProblemKind, SignedIn};
use catchword_proto::cloud::codec::Format;
use catchword_server::app::{AddressFrom, App, Policy, Routes, SignUp};
use catchword_server::files::Disk;
use catchword_server::ledger::{Ledger, RedbLedger};
use catchword_server::serve;
use redb::backends::InMemoryBackend;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(crate) const OPEN: Policy = Policy { sign_up: SignUp::Open, address: AddressFrom::Connection };

/// A server in a thread of its own.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves a ledger in memory.
    pub(crate) fn start(policy: Policy) -> Self {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        Self::over(policy, Arc::new(RedbLedger::over(database).unwrap()), (None, None))
    }

    /// The same with a place for book files.
    pub(crate) fn start_with_files(policy: Policy, disk: Disk) -> Self {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        Self::over(policy, Arc::new(RedbLedger::over(database).unwrap()), (None, Some(disk)))
    }

    /// The same over TLS.
    pub(crate) fn start_tls(policy: Policy, tls: TlsAcceptor) -> Self {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        Self::over(policy, Arc::new(RedbLedger::over(database).unwrap()), (Some(tls), None))
    }

    pub(crate) fn over(
        policy: Policy,
        ledger: Arc<dyn Ledger>,
        (tls, files): (Option<TlsAcceptor>, Option<Disk>),
    ) -> Self {
        let (end, ending) = watch::channel(false);
        let (told, listening) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let app = App::with_files(ledger, files, policy, ending).unwrap();
                let router = Routes::all().serve(Arc::clone(&app));
                serve::serve(listener, tls, app, router).await;
            });
        });
        Self { at: listening.recv().unwrap(), end, thread: Some(thread) }
    }

    pub(crate) fn sign_up(&self, user: &str) -> Client {
        Client::sign_up(self.at, user)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.send_replace(true);
        self.thread.take().map(JoinHandle::join);
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        Format::Json.decode(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Returns the problem, after checking that it is written as one.
    pub(crate) fn problem(&self) -> ProblemKind {
        let problem: Problem = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!((problem.status, problem.kind.status()), (self.status, self.status));
        assert_eq!(problem.request_id.as_ref(), self.headers.get("x-request-id"));
        assert_eq!(problem.retry_after_ms.is_some(), self.headers.contains_key("retry-after"));
        problem.kind
    }
}

/// Makes one call on a connection of its own.
pub(crate) fn call(
    at: SocketAddr,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(40)))?;
    let length = body.len().to_string();
    let own = [("connection", "close"), ("content-length", length.as_str())];
    let all = headers.iter().chain(&own);
    let lines: String = all.map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
    stream.write_all(head.as_bytes())?;
    // A server that has read enough answers without reading the rest.
    let sent = stream.write_all(body);
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    if let Some(reply) = parse(&bytes) {
        return Ok(reply);
    }
    sent.and(read.map(drop))?;
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    };
    let headers: BTreeMap<_, _> = lines.filter_map(header).collect();
    let body = bytes[end + 4..].to_vec();
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let whole = length.is_none_or(|length: usize| body.len() == length);
    whole.then_some(Reply { status, headers, body })
}

/// A signed-in device.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) at: SocketAddr,
    pub(crate) signed_in: SignedIn,
}

pub(crate) fn wish(user: &str, password: &str) -> Vec<u8> {
    let device = "test";
    serde_json::to_vec(&serde_json::json!({ "user": user, "password": password, "device": device }))
        .unwrap()
}

pub(crate) const PASSWORD: &str = "correct horse";

impl Client {
    pub(crate) fn sign_up(at: SocketAddr, user: &str) -> Self {
        let reply = call(at, ("POST", "/v1/accounts"), &[], &wish(user, PASSWORD)).unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
        Self { at, signed_in: reply.json() }
    }

    pub(crate) fn try_call(
        &self,
        call_of: (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        let bearer = format!("Bearer {}", self.signed_in.token);
        let headers = [&[("authorization", bearer.as_str())], headers].concat();
        call(self.at, call_of, &headers, body)
    }

    pub(crate) fn call(&self, call_of: (&str, &str), body: &[u8]) -> Reply {
        self.try_call(call_of, &[], body).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.call(("GET", path), &[])
    }

    pub(crate) fn try_push(&self, entries: &[Entry]) -> std::io::Result<Reply> {
        let body = Format::Cbor.encode(&Body { entries }).unwrap();
        let cbor = [("content-type", "application/cbor"), ("accept", "application/json")];
        self.try_call(("POST", "/v1/ingest"), &cbor, &body)
    }

    pub(crate) fn push(&self, entries: &[Entry]) -> Ingested {
        let reply = self.try_push(entries).unwrap();
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        reply.json()
    }
}

/// The body of `POST /v1/ingest`, without owning the entries.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    pub(crate) entries: &'a [Entry],
}

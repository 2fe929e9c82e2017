//! Connections to `/v1/live` that hear nothing: what the server holds in memory for each.
//!
//! The server is a process of its own, on the ledger of one household; the connections are this process's.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use catchword_server::app::{AddressFrom, App, Policy, Routes, SignUp};
use catchword_server::ledger::RedbLedger;
use catchword_server::serve::serve;
use serde_json::{Value, json};

use super::path;
use crate::figure::{Case, Figure};
use crate::process::{listening, memory_kib};
use crate::workload::Workspace;

/// Connections of one account: as many as the server lets it have.
const OF_ACCOUNT: usize = 64;

/// Opens connections and measures by how much the server grows.
///
/// # Errors
///
/// What a connection met: the operating system may allow fewer open files.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let count: usize = if workspace.quick { 500 } else { 5_000 };
    let file = workspace.fresh("live.redb")?;
    let (mut server, port) = listening("live-server", &[&file])?;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let tokens = (0..count.div_ceil(OF_ACCOUNT)).map(|number| sign_up(at, number));
    let tokens = tokens.collect::<anyhow::Result<Vec<_>>>()?;
    let before_kib = memory_kib(server.id())?;
    let mut held = Vec::with_capacity(count);
    for (place, token) in (0..count).zip(tokens.iter().flat_map(|token| [token; OF_ACCOUNT])) {
        held.push(listen(at, token).with_context(|| format!("connection {place}"))?);
    }
    let grown_kib = memory_kib(server.id())?.saturating_sub(before_kib);
    server.kill()?;
    server.wait()?;
    let each = f64::from(u32::try_from(grown_kib)?) / f64::from(u32::try_from(held.len())?);
    let case = Case::new("live", format!("{count} idle connections"));
    Ok(case.with("catchword-server", "each", each, "KiB").figures())
}

/// Serves until it is killed, and says at which port.
pub(crate) fn serve_live(paths: &[PathBuf]) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let ledger = Arc::new(RedbLedger::open(path(paths, 0)?)?);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        super::print(&json!(listener.local_addr()?.port()))?;
        let policy = Policy { sign_up: SignUp::Open, address: AddressFrom::Proxy };
        let (_ends_with_the_process, ending) = tokio::sync::watch::channel(false);
        let app = App::new(ledger, policy, ending)?;
        let router = Routes::all().serve(Arc::clone(&app));
        serve(listener, None, app, router).await;
        Ok(Value::Null)
    })
}

/// Makes an account and returns its token. Each comes from another address, as new accounts of one are
/// few.
fn sign_up(at: SocketAddr, number: usize) -> anyhow::Result<String> {
    let body =
        json!({"user": format!("user-{number}"), "password": "correct horse", "device": "bench"});
    let body = body.to_string();
    let head = format!(
        "POST /v1/accounts HTTP/1.1\r\nHost: {at}\r\nX-Forwarded-For: 10.0.{}.{}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        number / 256,
        number % 256,
        body.len()
    );
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    let start = body.find('{').with_context(|| answer.clone())?;
    let end = body.rfind('}').with_context(|| answer.clone())?;
    let said: Value = serde_json::from_str(body.get(start..=end).unwrap_or_default())?;
    Ok(said.get("token").and_then(Value::as_str).with_context(|| answer.clone())?.to_owned())
}

/// Connects, and waits until the server has said where the feed is.
fn listen(at: SocketAddr, token: &str) -> anyhow::Result<TcpStream> {
    let head = format!(
        "GET /v1/live HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(head.as_bytes())?;
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    anyhow::ensure!(line.starts_with("HTTP/1.1 101"), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    // The first frame: two bytes of head, and the nudge.
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    drop(reader);
    Ok(stream)
}

//! `/v1/live`: a WebSocket that says when the feed of an account has grown.
//!
//! The nudge is all it says; data come by `/v1/changes`. What a lost nudge would have said is found by
//! looking at the feed now and then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use catchword_proto::cloud::api::{Nudge, ProblemKind};
use catchword_proto::cloud::codec::Format;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::app::{App, caller, now_ms};
use crate::auth::Caller;
use crate::ledger::SIGNED_OUT;
use crate::problem::Refusal;

/// A message of a client, in bytes. It has nothing to say.
const MESSAGE_BYTES_MAX: usize = 1_024;
/// How long a client may take to take a nudge.
const SEND_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the feed and at the token. Every connection costs the database so much, and clients look each
/// minute themselves.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

pub(crate) async fn live(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let caller = caller(&app, &headers).await?;
    let upgrade = upgrade.map_err(|_| ProblemKind::Malformed)?;
    let permit = app.limits.live(caller.account, Instant::now());
    let permit = permit.ok_or(Refusal::later(1_000))?;
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    // What is kept ready for reading is most of what an idle connection takes: 128 KiB, if nothing is said.
    let upgrade = upgrade.read_buffer_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.write_buffer_size(0).on_upgrade(move |socket| serve(app, caller, socket, permit)))
}

async fn serve(app: Arc<App>, caller: Caller, mut socket: WebSocket, permit: OwnedSemaphorePermit) {
    app.metrics.live.fetch_add(1, Ordering::Relaxed);
    // However it ends, the socket is closed.
    let _ended = run(&app, caller, &mut socket).await;
    drop(tokio::time::timeout(SEND_MAX, socket.send(Message::Close(None))).await);
    app.metrics.live.fetch_sub(1, Ordering::Relaxed);
    drop(permit);
}

/// Ends when the client goes, is signed out, or the server ends.
async fn run(app: &App, caller: Caller, socket: &mut WebSocket) -> Option<()> {
    let mut nudges = app.ledger.nudges();
    let mut ending = app.ending.clone();
    let mut said = None;
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = ended(&mut ending) => return None,
            message = socket.recv() => match message?.ok()? {
                Message::Close(_) => return None,
                Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => (),
            },
            _ = looks.tick() => {
                check(app, caller).await?;
                // A database that does not answer now may do so the next time.
                if let Ok(end) = app.ledger.end(caller.account).await {
                    say(socket, &mut said, end).await?;
                }
            }
            nudge = nudges.recv() => match nudge {
                Ok((account, SIGNED_OUT)) if account == caller.account => {
                    app.auth.forget(caller);
                    check(app, caller).await?;
                }
                Ok((account, end)) if account == caller.account => {
                    say(socket, &mut said, end).await?;
                }
                // Of another account; or some were missed, and the next look finds them.
                Ok(_) => (),
                Err(RecvError::Lagged(_)) => looks.reset_immediately(),
                Err(RecvError::Closed) => return None,
            },
        }
    }
}

/// Ends the connection if its device is signed out.
async fn check(app: &App, caller: Caller) -> Option<()> {
    // A database that does not answer now may do so the next time.
    let there = app.auth.is_signed_in(&*app.ledger, caller, now_ms()).await;
    (there != Ok(false)).then_some(())
}

/// Is done when the server ends, or is gone.
pub(crate) async fn ended(ending: &mut watch::Receiver<bool>) {
    let _gone = ending.wait_for(|ending| *ending).await.map(drop);
}

async fn say(socket: &mut WebSocket, said: &mut Option<u64>, end: u64) -> Option<()> {
    if Some(end) <= *said {
        return Some(());
    }
    let text = Format::Json.encode(&Nudge { cursor: end }).ok()?;
    let text = Utf8Bytes::try_from(text).ok()?;
    let sending = socket.send(Message::Text(text));
    tokio::time::timeout(SEND_MAX, sending).await.ok()?.ok()?;
    *said = Some(end);
    Some(())
}

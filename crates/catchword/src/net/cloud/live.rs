//! Listens at `/v1/live`: how far the feed is, as it happens.
//!
//! Nothing depends on it: what a lost nudge would have said is found by looking at the feed.

use std::time::Duration;

use catchword_proto::cloud::api::Nudge;
use catchword_proto::cloud::codec::Format;
use hyper::header;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use super::http::{Io, ReachError, Route, bearer};

/// How long nothing may be heard before the server is asked whether it is still there.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// The first wait before connecting again is at most this long; each further one doubles it.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// No wait is longer.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long the answer to the first request may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A nudge, in bytes.
const MESSAGE_BYTES_MAX: usize = 1_024;

type Socket = tokio_tungstenite::WebSocketStream<Box<dyn Io>>;

/// Tells where the feed ends, until it is aborted.
pub(crate) async fn listen(
    route: Route,
    token: zeroize::Zeroizing<String>,
    told: watch::Sender<u64>,
) {
    let mut failures = 0;
    loop {
        if let Ok(socket) = open(&route, &token).await {
            failures = 0;
            // However it ends, it is opened again.
            let _ended = hear(socket, &told).await;
        }
        let most = RETRY_MIN.saturating_mul(1 << failures).min(RETRY_MAX);
        failures = (failures + 1).min(8);
        let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        // Full jitter, so that devices do not come back together.
        sleep(Duration::from_millis(super::random() % (most_ms + 1))).await;
    }
}

async fn open(route: &Route, token: &str) -> Result<Socket, ReachError> {
    let lost = |error: tokio_tungstenite::tungstenite::Error| ReachError::Lost(error.into());
    let address = &route.address;
    let url = format!("ws://{}{}", address.authority(), address.path("/v1/live"));
    let mut request = url.into_client_request().map_err(lost)?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer(token)?);
    let stream = route.connect().await?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let shaken = client_async_with_config(request, stream, Some(config));
    let (socket, _) =
        timeout(ANSWER_MAX, shaken).await.map_err(|_| ReachError::Slow)?.map_err(lost)?;
    Ok(socket)
}

/// Ends when the server goes, or is not heard for too long.
async fn hear(mut socket: Socket, told: &watch::Sender<u64>) -> Option<()> {
    use futures_util::{SinkExt as _, StreamExt as _};
    let mut asked = false;
    loop {
        match timeout(QUIET_MAX, socket.next()).await {
            Ok(message) => {
                asked = false;
                if let Message::Text(text) = message?.ok()?
                    && let Ok(Nudge { cursor }) = Format::Json.decode(text.as_bytes())
                {
                    told.send_replace(cursor);
                }
            }
            Err(_) if asked => return None,
            Err(_) => {
                asked = true;
                timeout(QUIET_MAX, socket.send(Message::Ping(Vec::new().into())))
                    .await
                    .ok()?
                    .ok()?;
            }
        }
    }
}

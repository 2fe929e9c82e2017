//! Connections: HTTP/1.1, plain or over TLS, each for itself.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::live::ended;

/// Connections at once. Beyond, the next one waits to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
/// How long the head of a request may take, and a TLS handshake.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// The head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long calls that are being answered may still take when the server ends.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Between two tries to accept, when the system has no room.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("the {0} cannot be read")]
    File(&'static str, #[source] rustls::pki_types::pem::Error),
    /// The files do not belong together.
    #[error("certificate and key do not fit")]
    Pair(#[source] rustls::Error),
}

/// Reads a certificate chain and its key from PEM files.
///
/// # Errors
///
/// [`TlsError`].
pub fn tls(chain: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::File("certificate", error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File("key", error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until the server ends; then lets calls that are being answered finish.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, app: Arc<App>, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut ending = app.ending.clone();
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = ended(&mut ending) => break,
            accepted = accepted => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (tls, router, app) = (tls.clone(), router.clone(), Arc::clone(&app));
        tokio::spawn(async move {
            app.metrics.connections.fetch_add(1, Ordering::Relaxed);
            connection(stream, from, tls, router, app.ending.clone()).await;
            app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(listener);
    let all_gone = room.acquire_many(u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX));
    if tokio::time::timeout(DRAIN_MAX, all_gone).await.is_err() {
        tracing::warn!("some calls were not answered in time");
    }
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    ending: watch::Receiver<bool>,
) {
    // Small answers are not to wait for others; a system that cannot do so is only slower.
    let _set = stream.set_nodelay(true);
    match tls {
        None => speak(stream, from, router, ending).await,
        Some(tls) => {
            let shaken = tokio::time::timeout(HEAD_MAX, tls.accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                speak(stream, from, router, ending).await;
            }
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: SocketAddr,
    router: Router,
    mut ending: watch::Receiver<bool>,
) {
    let router = router.layer(axum::Extension(ConnectInfo(from)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = ended(&mut ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a connection ended");
    }
}

//! One connection to a server: calls over HTTP/1.1, and the stream a WebSocket begins on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use catchword_proto::cloud::api::{PROBLEM_CONTENT_TYPE, Problem};
use catchword_proto::cloud::codec::Format;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::ServerAddress;
use crate::error::Cause;

/// How long a connection may take to come about, with its handshake.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a call may take, with its answer. The machine that asked waits a little longer.
const CALL_MAX: Duration = Duration::from_secs(50);
/// The body of an answer, in bytes: a page may end with the largest entry.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A server cannot be spoken to, or said no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// Nobody answers there.
    #[error("the server cannot be reached")]
    Connect(#[source] io::Error),
    /// Who answers there cannot show that it is the server.
    #[error("the server's certificate is not believed")]
    Certificate(#[source] io::Error),
    /// It took too long.
    #[error("the server did not answer in time")]
    Slow,
    /// The connection ended in between.
    #[error("the connection to the server was lost")]
    Lost(#[source] Cause),
    /// What came back is not what this call answers.
    #[error("the answer is not that of a catchword server")]
    Answer,
    /// The server said no.
    #[error("the server says: {}", .0.title)]
    Problem(Problem),
}

/// Something bytes go over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where a server is, and how it is believed.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) address: ServerAddress,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Route {
    /// Makes a route. Without `roots` those of the system are believed.
    ///
    /// # Errors
    ///
    /// [`ReachError::Certificate`] if there are none.
    pub(crate) fn new(address: ServerAddress, roots: &[Vec<u8>]) -> Result<Self, ReachError> {
        let tls = if address.is_secure() { Some(connector(roots)?) } else { None };
        Ok(Self { address, tls })
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Io>, ReachError> {
        timeout(CONNECT_MAX, self.shake_hands()).await.map_err(|_| ReachError::Slow)?
    }

    async fn shake_hands(&self) -> Result<Box<dyn Io>, ReachError> {
        let to = (self.address.host(), self.address.port());
        let stream = TcpStream::connect(to).await.map_err(ReachError::Connect)?;
        // Small calls are not to wait for others; a system that cannot do so is only slower.
        let _set = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.address.host().to_owned());
        let name = name.map_err(|error| ReachError::Certificate(io::Error::other(error)))?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            let is_tls = error
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>);
            if is_tls { ReachError::Certificate(error) } else { ReachError::Connect(error) }
        })?;
        Ok(Box::new(stream))
    }
}

fn connector(roots: &[Vec<u8>]) -> Result<TlsConnector, ReachError> {
    let unusable = |error: rustls::Error| ReachError::Certificate(io::Error::other(error));
    let mut store = RootCertStore::empty();
    if roots.is_empty() {
        // Some of a system's certificates may not read; the others do.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    for root in roots {
        store.add(CertificateDer::from(root.clone())).map_err(unusable)?;
    }
    if store.is_empty() {
        return Err(ReachError::Certificate(io::Error::other("this system believes nobody")));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Makes calls, one after another, on a connection that is kept as long as it lasts.
#[derive(Debug)]
pub(crate) struct Client {
    route: Route,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is asked for.
pub(crate) struct Call<'a> {
    method: Method,
    path: &'a str,
    token: Option<&'a str>,
    body: Bytes,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, token: None, body: Bytes::new() }
    }

    pub(crate) fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// # Errors
    ///
    /// [`ReachError::Answer`] if the body cannot be written down.
    pub(crate) fn post(path: &'a str, body: &impl Serialize) -> Result<Self, ReachError> {
        let body = Format::Cbor.encode(body).map_err(|_| ReachError::Answer)?;
        Ok(Self { method: Method::POST, body: body.into(), ..Self::get(path) })
    }

    pub(crate) fn with_token(self, token: &'a str) -> Self {
        Self { token: Some(token), ..self }
    }
}

impl Client {
    pub(crate) const fn new(route: Route) -> Self {
        Self { route, open: None }
    }

    /// Makes a call whose answer has a body.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        call: Call<'_>,
    ) -> Result<T, ReachError> {
        let body = self.send(call).await?;
        Format::Cbor.decode(&body).map_err(|_| ReachError::Answer)
    }

    /// Makes a call, and returns the body of the answer.
    pub(crate) async fn send(&mut self, call: Call<'_>) -> Result<Bytes, ReachError> {
        let sent = timeout(CALL_MAX, self.exchange(call)).await;
        let result = sent.unwrap_or(Err(ReachError::Slow));
        if !matches!(result, Ok(_) | Err(ReachError::Problem(_))) {
            // Whatever is still under way on it belongs to nobody.
            self.open = None;
        }
        result
    }

    async fn exchange(&mut self, call: Call<'_>) -> Result<Bytes, ReachError> {
        let request = self.request(&call)?;
        let lost = |error: hyper::Error| ReachError::Lost(error.into());
        let open = self.open().await?;
        let response = open.sender.send_request(request).await.map_err(lost)?;
        let (is_problem, status) = (is_problem(&response), response.status());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(ReachError::Lost)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let problem = is_problem.then(|| Format::Json.decode(&body).ok()).flatten();
        Err(problem.map_or(ReachError::Answer, ReachError::Problem))
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, ReachError> {
        let address = &self.route.address;
        let cbor = HeaderValue::from_static(Format::Cbor.content_type());
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(address.path(call.path))
            .header(header::HOST, address.authority())
            .header(header::ACCEPT, cbor.clone());
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, cbor);
        }
        if let Some(token) = call.token {
            request = request.header(header::AUTHORIZATION, bearer(token)?);
        }
        request.body(Full::new(call.body.clone())).map_err(|_| ReachError::Answer)
    }

    /// Returns a connection that is open, a new one if the last has ended.
    async fn open(&mut self) -> Result<&mut Open, ReachError> {
        let ready = match &mut self.open {
            Some(open) => open.sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            // The old one first: a server may not take many.
            self.open = None;
            let stream = self.route.connect().await?;
            let shaken = http1::handshake(TokioIo::new(stream)).await;
            let (sender, connection) = shaken.map_err(|error| ReachError::Lost(error.into()))?;
            // Whoever waits for an answer hears how it ended.
            let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
            self.open = Some(Open { sender, task });
        }
        self.open.as_mut().ok_or(ReachError::Slow)
    }
}

/// Returns the header that shows a token, marked so that nothing prints it.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, ReachError> {
    let mut value =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ReachError::Answer)?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_problem<T>(response: &Response<T>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes() == PROBLEM_CONTENT_TYPE.as_bytes())
}

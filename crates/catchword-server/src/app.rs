//! The calls over HTTP: decode, call, encode, nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, MatchedPath, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use catchword_model::id::BookId;
use catchword_proto::cloud::api::{
    AccountId, Anchor, BODY_BYTES_MAX, BOOKS_MAX, DEVICE_NAME_BYTES_MAX, Device, Devices, Ingest,
    Outcome, PAGE_RECORDS_MAX, PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN, Page, Problem, ProblemKind,
    RECORDS_MAX, SignIn, SignedIn, TokenId, USER_BYTES_MAX,
};
use catchword_proto::cloud::codec::Format;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::Instrument as _;

use crate::auth::{Auth, Caller, fill};
use crate::entry::Batch;
use crate::files::{self, Disk, FILE_MAX, Files};
use crate::ledger::{AccountRow, Added, Ledger};
use crate::limits::{Limits, Who};
use crate::metrics::Metrics;
use crate::problem::{Refusal, body_of};

/// How long a call may take, without its body.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long a body may take.
const BODY_MAX: Duration = Duration::from_secs(10);

/// What is up to whoever runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether new accounts are taken.
    pub sign_up: SignUp,
    /// Whether a proxy says where a call comes from.
    pub address: AddressFrom,
}

/// Whether new accounts are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignUp {
    /// Anybody may make one.
    Open,
    /// Nobody.
    Closed,
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFrom {
    /// From where its connection does.
    Connection,
    /// From the last address of `X-Forwarded-For`, which the proxy before this server writes.
    Proxy,
}

/// Everything a call needs.
#[derive(Debug)]
pub struct App {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) files: Option<Files>,
    policy: Policy,
    /// Becomes true when the server ends.
    pub(crate) ending: watch::Receiver<bool>,
}

impl std::fmt::Debug for dyn Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger")
    }
}

impl App {
    /// Makes the server over a ledger. `ending` becomes true when live connections are to end.
    ///
    /// # Errors
    ///
    /// [`AppError`] if the system gives no random numbers or no threads.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        policy: Policy,
        ending: watch::Receiver<bool>,
    ) -> Result<Arc<Self>, AppError> {
        Self::with_files(ledger, None, policy, ending)
    }

    /// The same, with a place for book files.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_files(
        ledger: Arc<dyn Ledger>,
        files: Option<Disk>,
        policy: Policy,
        ending: watch::Receiver<bool>,
    ) -> Result<Arc<Self>, AppError> {
        let files = files.map(Files::new);
        let auth = Auth::new().map_err(|_| AppError::NoMeans)?;
        let (limits, metrics) = (Limits::default(), Metrics::default());
        Ok(Arc::new(Self { ledger, auth, limits, metrics, files, policy, ending }))
    }
}

/// The server cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The system gives no random numbers, or no threads.
    #[error("the system gives no random numbers, or no threads")]
    NoMeans,
}

pub(crate) type Shared = State<Arc<App>>;

/// The routes, and what they are called.
#[derive(Debug)]
pub struct Routes {
    router: Router<Arc<App>>,
    /// Method and path of each, as the document writes them.
    pub calls: Vec<(&'static str, &'static str)>,
}

impl Default for Routes {
    fn default() -> Self {
        Self::all()
    }
}

impl Routes {
    /// Returns every call there is.
    pub fn all() -> Self {
        Self { router: Router::new(), calls: Vec::new() }
            .add("/v1/accounts", [("post", routing::post(sign_up))])
            .add("/v1/devices", [("post", routing::post(sign_in)), ("get", routing::get(devices))])
            .add("/v1/devices/{id}", [("delete", routing::delete(sign_out))])
            .add("/v1/ingest", [("post", routing::post(ingest))])
            .add("/v1/changes", [("get", routing::get(changes))])
            .add("/v1/live", [("get", routing::get(crate::live::live))])
            .add("/v1/books", [("get", routing::get(books))])
            .add("/v1/books/{id}", [("get", routing::get(book))])
            .add(
                FILES,
                [
                    ("put", routing::put(files::put)),
                    ("get", routing::get(files::get)),
                    ("delete", routing::delete(files::delete)),
                ],
            )
            .add("/v1/healthz", [("get", routing::get(healthz))])
            .add("/v1/openapi.json", [("get", routing::get(openapi))])
            .add("/metrics", [("get", routing::get(metrics))])
    }

    fn add<const N: usize>(
        mut self,
        path: &'static str,
        calls: [(&'static str, MethodRouter<Arc<App>>); N],
    ) -> Self {
        for (method, route) in calls {
            self.router = self.router.route(path, route);
            self.calls.push((method, path));
        }
        self
    }

    /// Returns the service.
    pub fn serve(self, app: Arc<App>) -> Router {
        self.router
            .fallback(async || Refusal::from(ProblemKind::NotFound))
            .method_not_allowed_fallback(async || Refusal::from(ProblemKind::Method))
            .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
            .with_state(app)
    }
}

/// The calls that may take long.
const FILES: &str = "/v1/files/{sha256}";

/// The document that `GET /v1/openapi.json` serves.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// Names each request, counts it, and writes one line about it, without anything that is secret.
async fn observe(State(app): Shared, request: Request, next: Next) -> Response {
    let mut id = [0; 8];
    // Without a name a request is still carried out.
    let _named = fill(&mut id);
    let id = data_encoding::HEXLOWER.encode(&id);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("call", request = %id);
    let start = Instant::now();
    let is_live = route == "/v1/live";
    let mut response = async {
        let most = if route == FILES { FILE_MAX } else { CALL_MAX + BODY_MAX };
        match tokio::time::timeout(most, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Refusal::busy().into_response(),
        }
    }
    .instrument(span.clone())
    .await;
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.request_id = Some(id.clone());
        response = body_of(&problem);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    let took = start.elapsed();
    let status = response.status().as_u16();
    if !is_live {
        app.metrics.observe(method.as_str(), &route, status, took);
    }
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::info!(%method, route, status, took_ms, "answered"));
    response
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The format of an answer: what `Accept` names, else what the request has.
fn answer_format(headers: &HeaderMap) -> Format {
    let named = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let accepted = named(header::ACCEPT)
        .and_then(|accept| accept.split(',').find_map(Format::of_content_type));
    accepted
        .or_else(|| named(header::CONTENT_TYPE).and_then(Format::of_content_type))
        .unwrap_or_default()
}

fn answer<T: Serialize>(
    headers: &HeaderMap,
    status: StatusCode,
    body: &T,
) -> Result<Response, Refusal> {
    let format = answer_format(headers);
    let bytes = format.encode(body).map_err(|_| Refusal::from(ProblemKind::Failed))?;
    let content_type = HeaderValue::from_static(format.content_type());
    Ok((status, [(header::CONTENT_TYPE, content_type)], bytes).into_response())
}

/// Reads a body of at most [`BODY_BYTES_MAX`].
async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = match content_type {
        None => Format::Json,
        Some(value) => Format::of_content_type(value).ok_or(ProblemKind::MediaType)?,
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|bytes| BODY_BYTES_MAX as u64 <= bytes.saturating_sub(1)) {
        return Err(ProblemKind::TooLarge.into());
    }
    let bytes: Bytes = tokio::time::timeout(BODY_MAX, axum::body::to_bytes(body, BODY_BYTES_MAX))
        .await
        .map_err(|_| ProblemKind::Slow)?
        .map_err(|_| ProblemKind::TooLarge)?;
    format.decode(&bytes).map_err(|_| ProblemKind::Malformed.into())
}

/// Lets a device call, if its token is good and it does not call too often.
pub(crate) async fn admit(
    app: &App,
    headers: &HeaderMap,
) -> Result<(Caller, OwnedSemaphorePermit), Refusal> {
    let caller = caller(app, headers).await?;
    match app.limits.call(caller.account, Instant::now()).await {
        Ok(permit) => Ok((caller, permit)),
        Err(wait) => Err(later(wait)),
    }
}

pub(crate) async fn caller(app: &App, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer "));
    let token = token.ok_or(ProblemKind::Unauthorized)?;
    app.auth.caller(&*app.ledger, token, now_ms()).await
}

fn later(wait: Duration) -> Refusal {
    Refusal::later(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// Lets somebody try a password, if there were not too many wrong ones.
fn try_password(
    app: &App,
    account: Option<AccountId>,
    headers: &HeaderMap,
    connection: SocketAddr,
) -> Result<Vec<Who>, Refusal> {
    let address = match app.policy.address {
        AddressFrom::Connection => connection.ip(),
        AddressFrom::Proxy => forwarded(headers).unwrap_or(connection.ip()),
    };
    let mut who = vec![Who::address(address)];
    who.extend(account.map(Who::Account));
    let now = Instant::now();
    if let Some(wait) = app.limits.failure_wait(&who, now) {
        return Err(later(wait));
    }
    app.limits.count_failure(&who, now);
    Ok(who)
}

fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

fn check_names(sign_in: &SignIn) -> Result<(), Refusal> {
    let user = sign_in.user.trim();
    let password = sign_in.password.len();
    let fits = !user.is_empty()
        && user.len() <= USER_BYTES_MAX
        && (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password)
        && sign_in.device.len() <= DEVICE_NAME_BYTES_MAX;
    if fits { Ok(()) } else { Err(ProblemKind::Unusable.into()) }
}

async fn sign_up(
    State(app): Shared,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    if app.policy.sign_up == SignUp::Closed {
        return Err(ProblemKind::Closed.into());
    }
    let wish: SignIn = read(&headers, body).await?;
    check_names(&wish)?;
    // Each try counts, also one that makes an account: hashing is what it costs the server.
    try_password(&app, None, &headers, from)?;
    let account = AccountId::of_user(&wish.user);
    if app.ledger.account(account).await?.is_some() {
        return Err(ProblemKind::UserTaken.into());
    }
    let password_hash = app.auth.hash(wish.password).await?;
    let (device, token) = Auth::new_device(account, wish.device, now_ms())?;
    let signed_in = SignedIn { account, device: device.id, token, expires_ms: device.expires_ms };
    match app.ledger.add_account(account, AccountRow { password_hash }, device).await? {
        Added::Added => answer(&headers, StatusCode::CREATED, &signed_in),
        Added::Refused | Added::Full => Err(ProblemKind::UserTaken.into()),
    }
}

async fn sign_in(
    State(app): Shared,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let wish: SignIn = read(&headers, body).await?;
    check_names(&wish)?;
    let account = AccountId::of_user(&wish.user);
    let who = try_password(&app, Some(account), &headers, from)?;
    let kept = app.ledger.account(account).await?.map(|row| row.password_hash);
    let better = match app.auth.verify(wish.password, kept).await {
        Ok(better) => better,
        Err(refusal) => {
            app.metrics.sign_ins_failed.fetch_add(1, Ordering::Relaxed);
            return Err(refusal);
        }
    };
    app.limits.forgive(&who);
    if let Some(password_hash) = better {
        app.ledger.set_password_hash(account, password_hash).await?;
    }
    let now_ms = now_ms();
    let (device, token) = Auth::new_device(account, wish.device, now_ms)?;
    let signed_in = SignedIn { account, device: device.id, token, expires_ms: device.expires_ms };
    match app.ledger.add_device(account, device, now_ms).await? {
        Added::Added => answer(&headers, StatusCode::CREATED, &signed_in),
        Added::Full => Err(ProblemKind::TooManyDevices.into()),
        Added::Refused => Err(ProblemKind::SignIn.into()),
    }
}

async fn devices(State(app): Shared, headers: HeaderMap) -> Result<Response, Refusal> {
    let (caller, _permit) = admit(&app, &headers).await?;
    let rows = app.ledger.devices(caller.account).await?;
    let device = |row: crate::ledger::DeviceRow| Device {
        id: row.id,
        name: row.name,
        created_ms: row.created_ms,
        expires_ms: row.expires_ms,
    };
    let devices = Devices { devices: rows.into_iter().map(device).collect() };
    answer(&headers, StatusCode::OK, &devices)
}

async fn sign_out(
    State(app): Shared,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let (caller, _permit) = admit(&app, &headers).await?;
    let device: TokenId = id.parse().map_err(|_| ProblemKind::NotFound)?;
    let gone = app.ledger.remove_device(caller.account, device).await?;
    app.auth.forget(Caller { device, ..caller });
    if gone {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(ProblemKind::NotFound.into())
    }
}

async fn ingest(State(app): Shared, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let (caller, _permit) = admit(&app, &headers).await?;
    let ingest: Ingest = read(&headers, body).await?;
    let records: usize = ingest.entries.iter().map(|entry| entry.records().max(1)).sum();
    if RECORDS_MAX < records {
        return Err(ProblemKind::TooLarge.into());
    }
    // Signatures are verified where nobody waits.
    let read = tokio::task::spawn_blocking(move || Batch::read(&ingest.entries)).await;
    let batch = Arc::new(read.map_err(|_| ProblemKind::Failed)?);
    let admitting = app.ledger.admit(caller.account, batch);
    let ingested =
        tokio::time::timeout(CALL_MAX, admitting).await.map_err(|_| Refusal::busy())??;
    let (mut taken, mut refused) = (0, 0);
    for answer in &ingested.answers {
        match &answer.outcome {
            Outcome::Accepted(receipt) | Outcome::Rebased(receipt) | Outcome::Conflict(receipt) => {
                taken += receipt.verdicts.len() as u64;
            }
            Outcome::Incomplete { .. } | Outcome::Refused { .. } => refused += 1,
        }
    }
    app.metrics.records_taken.fetch_add(taken, Ordering::Relaxed);
    app.metrics.entries_refused.fetch_add(refused, Ordering::Relaxed);
    answer(&headers, StatusCode::OK, &ingested)
}

async fn changes(
    State(app): Shared,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let (caller, _permit) = admit(&app, &headers).await?;
    let query = Query(query.as_deref().unwrap_or_default());
    let after = query.number("after")?.unwrap_or(0);
    let limit = query.limit(PAGE_RECORDS_MAX)?;
    let known = query.find("known").map(str::parse::<Anchor>).transpose();
    if let Some(known) = known.map_err(|_| ProblemKind::Malformed)?
        && !app.ledger.knows(caller.account, known).await?
    {
        let end = app.ledger.end(caller.account).await?;
        let page = Page { records: Vec::new(), cursor: after, end, tag: None, reset: true };
        return answer(&headers, StatusCode::OK, &page);
    }
    answer(&headers, StatusCode::OK, &app.ledger.page(caller.account, after, limit).await?)
}

async fn books(
    State(app): Shared,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let (caller, _permit) = admit(&app, &headers).await?;
    let query = Query(query.as_deref().unwrap_or_default());
    let after = query.find("after").map(str::parse::<BookId>).transpose();
    let after = after.map_err(|_| ProblemKind::Malformed)?;
    let limit = query.limit(BOOKS_MAX)?;
    answer(&headers, StatusCode::OK, &app.ledger.books(caller.account, after, limit).await?)
}

async fn book(
    State(app): Shared,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let (caller, _permit) = admit(&app, &headers).await?;
    let book: BookId = id.parse().map_err(|_| ProblemKind::NotFound)?;
    let found = app.ledger.book(caller.account, book).await?.ok_or(ProblemKind::NotFound)?;
    answer(&headers, StatusCode::OK, &found)
}

async fn healthz(State(app): Shared) -> Result<Response, Refusal> {
    app.ledger.check().await?;
    Ok((StatusCode::OK, "ok\n").into_response())
}

async fn openapi() -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], OPENAPI).into_response()
}

async fn metrics(State(app): Shared, method: Method) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4");
    let text = if method == Method::HEAD { String::new() } else { app.metrics.text() };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// What stands behind the question mark: numbers and hex digits, so nothing needs decoding.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn find(&self, name: &str) -> Option<&'a str> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let number = self.find(name).map(str::parse).transpose();
        number.map_err(|_| ProblemKind::Malformed.into())
    }

    /// At least 1 and at most `max`, which is also what is meant where nothing is said.
    fn limit(&self, max: usize) -> Result<usize, Refusal> {
        let wish = self.number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(max));
        Ok(wish.unwrap_or(max).clamp(1, max))
    }
}

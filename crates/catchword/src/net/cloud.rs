//! The account cloud: a library that also lives on a server which its owner may run.
//!
//! ```no_run
//! # async fn example(library: &catchword::Library) -> Result<(), Box<dyn std::error::Error>> {
//! use catchword::net::cloud::{Cloud, Credentials, ServerAddress};
//!
//! let cloud = Cloud::of(library);
//! let server = ServerAddress::parse("https://cloud.example", false)?;
//! cloud.sign_in(&Credentials::new(server, "anna", "a long password")).await?;
//! let report = cloud.sync().await?;
//! println!("{} sent, {} received, {} waiting", report.pushed, report.pulled, report.outbox);
//!
//! // Or for as long as the application runs: at every change, and as soon as another device has one.
//! tokio::spawn(async move { cloud.run().await });
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! 1. The device stays first: nothing of the library waits for the server, and signing out deletes nothing.
//! 2. The token is a secret of the [`KeyStore`](crate::KeyStore); it goes to the server that issued it and
//!    nowhere else. Redirects are not followed.
//! 3. One replicator runs at a time.
//! 4. Nothing is remembered that is not stored, but what [`status`](Cloud::status) tells.
//!
//! # What is not here
//!
//! What is sent when ([`catchword_proto::cloud::replicator`]), and what a verdict means ([`Clerk`]).

mod address;
mod clerk;
mod http;
mod lane;
mod live;
mod status;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use catchword_model::id::BookId;
use catchword_proto::cloud::api::{Page, ProblemKind, SignIn, SignedIn};
use catchword_store::{CloudAccount, CloudLogin};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::{Notify, oneshot, watch};
use zeroize::Zeroizing;

use self::http::{Call, Client, Route};
use self::lane::{End, Lane, Mode, Seen};
use crate::error::{EditError, ReadError};
use crate::event::Subscription;
use crate::keys::KeyError;
use crate::library::Library;
use crate::net::Status;
use crate::net::desk::Desk;

pub use self::address::{AddressError, ServerAddress};
pub(crate) use self::clerk::origin_of;
pub use self::clerk::{Books, Clerk, ClerkError, Tally};
pub use self::http::ReachError;

/// How often the thread that watches the library looks whether anybody still wants to know.
const LOOK: Duration = Duration::from_secs(1);
/// How long a server may take to say how it is.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long a lane may take to notice that the account is to be changed.
const YIELD_MAX: Duration = Duration::from_millis(200);

/// Reads certificates from PEM, for [`Credentials::with_roots`]. None: the text holds none that reads.
pub fn roots_of_pem(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().ok()?;
    let roots: Vec<Vec<u8>> = found.iter().map(|root| root.to_vec()).collect();
    (!roots.is_empty()).then_some(roots)
}

/// Who signs in, and where.
#[derive(Clone)]
#[non_exhaustive]
pub struct Credentials {
    /// Where the server is.
    pub server: ServerAddress,
    /// The name of the person there.
    pub user: String,
    /// The password. It is sent once and not kept.
    pub password: Zeroizing<String>,
    /// What this device is called in the account's list. Default: its name in the library.
    pub device: Option<String>,
    /// Certificates that are believed to sign the server's, DER-encoded. Default: those of the system.
    pub roots: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Names a person and a server.
    pub fn new(
        server: ServerAddress,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        let (user, password) = (user.into(), Zeroizing::new(password.into()));
        Self { server, user, password, device: None, roots: Vec::new() }
    }

    /// Calls this device so in the account's list.
    #[must_use]
    pub fn with_device(mut self, name: impl Into<String>) -> Self {
        self.device = Some(name.into());
        self
    }

    /// Believes these certificates instead of the system's.
    #[must_use]
    pub fn with_roots(mut self, roots: Vec<Vec<u8>>) -> Self {
        self.roots = roots;
        self
    }
}

/// The account that a library is signed in to, or was last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// Where the server is.
    pub url: String,
    /// The name of the person there.
    pub user: String,
    /// Whether the library is signed in.
    pub signed_in: bool,
    /// When it signed in or out, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// What a sync did, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CloudReport {
    /// Changes and reading events that the server acknowledged.
    pub pushed: u64,
    /// Changes and reading events that are new here.
    pub pulled: u64,
    /// Entries that the server took on top of something that was not merged here, and positions that were
    /// written again.
    pub rebased: u64,
    /// Positions that the server withdrew as stale, and documents that it refuses for good.
    pub refused: u64,
    /// Changes and reading events that the server still lacks: of documents that stopped, none are counted.
    pub outbox: u64,
}

/// A library was not signed in. It is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignInError {
    /// Name or password are wrong.
    #[error("name or password is wrong")]
    Wrong,
    /// Somebody has that name. Sign in, or take another.
    #[error("that name is taken")]
    NameTaken,
    /// The server takes no new accounts. Ask who runs it.
    #[error("the server takes no new accounts")]
    Closed,
    /// The account has as many devices as it may have. Sign one out.
    #[error("too many devices are signed in")]
    TooManyDevices,
    /// Name or password are shorter or longer than the server allows.
    #[error("a name or password is too short or too long")]
    Unusable,
    /// Too many tries. Wait.
    #[error("too many tries")]
    SlowDown {
        /// How long, as far as the server says.
        retry_after: Option<Duration>,
    },
    /// The server cannot be spoken to.
    #[error(transparent)]
    Server(ReachError),
    /// The token could not be kept.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The library could not be read or written.
    #[error(transparent)]
    Library(#[from] EditError),
}

impl From<ReachError> for SignInError {
    fn from(error: ReachError) -> Self {
        let ReachError::Problem(problem) = &error else { return Self::Server(error) };
        let retry_after = problem.retry_after_ms.map(Duration::from_millis);
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others are not about names")]
        match problem.kind {
            ProblemKind::SignIn => Self::Wrong,
            ProblemKind::UserTaken => Self::NameTaken,
            ProblemKind::Closed => Self::Closed,
            ProblemKind::TooManyDevices => Self::TooManyDevices,
            ProblemKind::Unusable => Self::Unusable,
            ProblemKind::SlowDown => Self::SlowDown { retry_after },
            _ => Self::Server(error),
        }
    }
}

/// Nothing was exchanged with the account, or not all of it. What was durable before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudError {
    /// The library is in no account.
    #[error("this library is not signed in")]
    NotSignedIn,
    /// The token is gone, expired or revoked.
    #[error("the account does not know this device any more")]
    SignInAgain,
    /// The kept address cannot be used any more.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The server cannot be spoken to.
    #[error(transparent)]
    Server(#[from] ReachError),
    /// The lane that runs all the time has just failed.
    #[error("{0}")]
    Failing(String),
    /// The token could not be read or forgotten.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// What is kept of the account could not be read or written.
    #[error(transparent)]
    Account(#[from] EditError),
    /// The library could not answer.
    #[error(transparent)]
    Library(ClerkError),
}

/// A library and its account. Cheap to clone; all clones are one.
///
/// Make one for a library, and keep it: each has a replicator of its own.
#[derive(Debug, Clone)]
pub struct Cloud {
    shared: Arc<Shared>,
}

/// Somebody who waits for a sync.
type Ask = oneshot::Sender<Result<CloudReport, CloudError>>;

/// What the tasks of a cloud share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) library: Library,
    desk: Desk,
    /// Held by whoever runs a replicator, or changes the account.
    turn: tokio::sync::Mutex<()>,
    /// Counts changes of the account.
    epoch: watch::Sender<u64>,
    asks: Mutex<Vec<Ask>>,
    asked: Notify,
    changed: Arc<Notify>,
    seen: Mutex<Seen>,
    watched: Mutex<bool>,
}

impl Shared {
    pub(crate) fn now_ms(&self) -> u64 {
        self.library.core().now_ms()
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each of its parts stands for itself.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a failure, and returns it in words.
    fn failed(&self, error: &CloudError) -> String {
        let words = lane::chain(error);
        let now_ms = self.now_ms();
        let mut seen = self.seen();
        let since_ms = seen.failure.as_ref().map_or(now_ms, |(_, since_ms)| *since_ms);
        seen.failure = Some((words.clone(), since_ms));
        words
    }

    /// Returns everybody who asked for a sync that has not begun.
    fn take_asks(&self) -> Vec<Ask> {
        std::mem::take(&mut *self.asks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something on the thread that may wait for the disk; `None` if it failed to.
    async fn at_desk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.desk.put(move || drop(sender.send(work())));
        receiver.await.ok()
    }

    /// Changes or reads what is kept of the account.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Library) -> Result<T, EditError> + Send + 'static,
    ) -> Result<T, EditError> {
        let library = self.library.clone();
        let done = self.at_desk(move || work(&library)).await;
        done.unwrap_or(Err(EditError::MustReopen))
    }

    async fn account(&self) -> Result<Option<CloudAccount>, EditError> {
        self.with_store(|library| library.core().store.cloud_account().map_err(EditError::load))
            .await
    }

    /// Returns the way to the account, and the token.
    async fn way(&self) -> Result<(CloudLogin, Route, Zeroizing<String>), CloudError> {
        let account = self.account().await?;
        let account = account.filter(|account| account.signed_in);
        let login = account.ok_or(CloudError::NotSignedIn)?.login;
        let token = token::load(&*self.library.core().keys, &login)?;
        let token = token.ok_or(CloudError::SignInAgain)?;
        let route = route(&login)?;
        Ok((login, route, token))
    }

    /// Waits until no replicator runs. A lane that goes on for ever is told to yield.
    async fn take_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        loop {
            self.epoch.send_modify(|epoch| *epoch += 1);
            if let Ok(turn) = tokio::time::timeout(YIELD_MAX, self.turn.lock()).await {
                return turn;
            }
        }
    }
}

impl Cloud {
    /// Makes the cloud of a library. Nothing is sent before it is asked to.
    pub fn of(library: &Library) -> Self {
        let shared = Shared {
            library: library.clone(),
            desk: Desk::default(),
            turn: tokio::sync::Mutex::new(()),
            epoch: watch::Sender::new(0),
            asks: Mutex::default(),
            asked: Notify::new(),
            changed: Arc::default(),
            seen: Mutex::default(),
            watched: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes an account, and signs in to it.
    ///
    /// # Errors
    ///
    /// [`SignInError`]; the library is as it was.
    pub async fn sign_up(&self, credentials: &Credentials) -> Result<Account, SignInError> {
        self.enter("/v1/accounts", credentials).await
    }

    /// Signs in. Everything that is here is sent as history, by the next [`sync`](Self::sync) or by
    /// [`run`](Self::run); what the account has is merged with it. What was known of another account is
    /// forgotten, and nothing else.
    ///
    /// # Errors
    ///
    /// [`SignInError`]; the library is as it was.
    pub async fn sign_in(&self, credentials: &Credentials) -> Result<Account, SignInError> {
        self.enter("/v1/devices", credentials).await
    }

    async fn enter(&self, call: &str, credentials: &Credentials) -> Result<Account, SignInError> {
        let shared = &self.shared;
        let device = match &credentials.device {
            Some(name) => name.clone(),
            None => shared.with_store(own_name).await?,
        };
        let wish = SignIn {
            user: credentials.user.trim().to_owned(),
            password: credentials.password.to_string(),
            device,
        };
        let route = Route::new(credentials.server.clone(), &credentials.roots)?;
        let mut client = Client::new(route);
        let signed_in: SignedIn = client.call(Call::post(call, &wish)?).await?;
        let secret = token::secret_of(&signed_in).ok_or(SignInError::Server(ReachError::Answer))?;
        let login = CloudLogin {
            url: credentials.server.to_string(),
            user: wish.user,
            account: signed_in.account.0,
            device: signed_in.device.0,
            roots: credentials.roots.clone(),
            plain: !credentials.server.is_secure(),
        };
        let turn = shared.take_turn().await;
        token::keep(&*shared.library.core().keys, &login, &secret)?;
        let kept = login.clone();
        shared
            .with_store(move |library| {
                let core = library.core();
                core.store.sign_in_to_cloud(&kept, core.now_ms()).map_err(EditError::store)
            })
            .await?;
        *shared.seen() = Seen::default();
        drop(turn);
        shared.epoch.send_modify(|epoch| *epoch += 1);
        let (url, user) = (login.url, login.user);
        Ok(Account { url, user, signed_in: true, since_ms: shared.now_ms() })
    }

    /// Signs out. Books, and what is known of the account, stay; signing in again goes on from there.
    /// Returns whether the server was told: otherwise it believes the token, which is gone from here, until
    /// it expires.
    ///
    /// # Errors
    ///
    /// [`CloudError::NotSignedIn`]; or the library could not be written, and is still signed in.
    pub async fn sign_out(&self) -> Result<bool, CloudError> {
        let shared = &self.shared;
        let turn = shared.take_turn().await;
        let told = match shared.way().await {
            Ok((login, route, token)) => {
                let device = data_encoding::HEXLOWER.encode(&login.device);
                let path = format!("/v1/devices/{device}");
                let call = Call::delete(&path).with_token(&token);
                Client::new(route).send(call).await.is_ok()
            }
            Err(CloudError::NotSignedIn) => return Err(CloudError::NotSignedIn),
            Err(_) => false,
        };
        if let Some(account) = shared.account().await? {
            token::forget(&*shared.library.core().keys, &account.login)?;
        }
        shared
            .with_store(|library| {
                let core = library.core();
                core.store.sign_out_of_cloud(core.now_ms()).map_err(EditError::store)
            })
            .await?;
        *shared.seen() = Seen::default();
        drop(turn);
        shared.epoch.send_modify(|epoch| *epoch += 1);
        Ok(told)
    }

    /// Returns the account that the library is signed in to, or was last.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn account(&self) -> Result<Option<Account>, ReadError> {
        let account = self.shared.library.core().store.cloud_account().map_err(ReadError::store)?;
        Ok(account.map(|CloudAccount { login, signed_in, since_ms, .. }| Account {
            url: login.url,
            user: login.user,
            signed_in,
            since_ms,
        }))
    }

    /// Brings the library and its account to the same state, and returns what that took. If
    /// [`run`](Self::run) is at work, that does it.
    ///
    /// # Errors
    ///
    /// [`CloudError`]. What was exchanged before is kept.
    pub async fn sync(&self) -> Result<CloudReport, CloudError> {
        let shared = &self.shared;
        let (sender, receiver) = oneshot::channel();
        shared.asks.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        // A permit that nobody takes would begin the next lane twice, which is no harm.
        shared.asked.notify_one();
        tokio::select! {
            biased;
            Ok(answer) = receiver => answer,
            _turn = shared.turn.lock() => {
                let (login, route, token) = shared.way().await?;
                let mut lane = Lane::new(shared, &login, route, token, Mode::Once);
                match Box::pin(lane.run(&mut shared.epoch.subscribe())).await {
                    End::Synced(report) => Ok(report),
                    End::SignedOut => Err(CloudError::SignInAgain),
                    End::Changed => Err(CloudError::NotSignedIn),
                    End::Failed(error) => Err(error),
                }
            }
        }
    }

    /// Keeps the library and its account in step, until the future is dropped: at every change, whenever
    /// the account has something new, and every minute. While the library is not signed in, it waits.
    pub async fn run(&self) {
        let shared = &self.shared;
        self.watch();
        let mut epoch = shared.epoch.subscribe();
        loop {
            epoch.borrow_and_update();
            let turn = shared.turn.lock().await;
            let ended = match shared.way().await {
                Ok((login, route, token)) => {
                    let mut lane = Lane::new(shared, &login, route, token, Mode::Lasting);
                    Some(Box::pin(lane.run(&mut epoch)).await)
                }
                Err(CloudError::NotSignedIn) => None,
                Err(CloudError::SignInAgain) => {
                    shared.seen().refused_since_ms.get_or_insert(shared.now_ms());
                    None
                }
                Err(error) => {
                    let _words = shared.failed(&error);
                    None
                }
            };
            drop(turn);
            if !matches!(ended, Some(End::Changed)) && epoch.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks the server whether it is there, believes this device, and has something new, for
    /// [`status`](Self::status) to tell. Nothing is exchanged.
    ///
    /// # Errors
    ///
    /// [`CloudError`], which the status tells as well.
    pub async fn look(&self) -> Result<(), CloudError> {
        let shared = &self.shared;
        let (_, route, token) = shared.way().await?;
        let cursor = shared.account().await?.map_or(0, |account| account.cursor);
        let path = format!("/v1/changes?after={cursor}&limit=1");
        let mut client = Client::new(route);
        let call = client.call::<Page>(Call::get(&path).with_token(&token));
        let answer = tokio::time::timeout(LOOK_MAX, call).await.unwrap_or(Err(ReachError::Slow));
        let now_ms = shared.now_ms();
        match answer {
            Ok(page) => {
                let mut seen = shared.seen();
                (seen.failure, seen.refused_since_ms, seen.end) = (None, None, Some(page.end));
                Ok(())
            }
            Err(ReachError::Problem(problem)) if problem.kind == ProblemKind::Unauthorized => {
                shared.seen().refused_since_ms.get_or_insert(now_ms);
                Err(CloudError::SignInAgain)
            }
            Err(error) => {
                let error = CloudError::Server(error);
                shared.failed(&error);
                Err(error)
            }
        }
    }

    /// Says how the account stands, of everything or of one book: nothing, if the library never had one.
    ///
    /// # Errors
    ///
    /// [`EditError`] if the library cannot be read, or what waits to be moved cannot be.
    pub fn status(&self, book: Option<BookId>) -> Result<Vec<Status>, EditError> {
        status::status(&self.shared, book)
    }

    /// Returns how many changes and reading events the account lacks.
    ///
    /// # Errors
    ///
    /// [`EditError`] if the library cannot be read, or what waits to be moved cannot be.
    pub fn outbox(&self) -> Result<u64, EditError> {
        status::outbox(&self.shared)
    }

    /// Notes changes of the library from now on, on a thread of its own.
    fn watch(&self) {
        let mut watched = self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if !*watched {
            let changed = Arc::downgrade(&self.shared.changed);
            let events = self.shared.library.subscribe();
            // Without the thread changes go out when the feed is looked at.
            let thread = thread::Builder::new().name("catchword-cloud".to_owned());
            *watched = thread.spawn(move || note(&events, &changed)).is_ok();
        }
    }
}

fn note(events: &Subscription, changed: &Weak<Notify>) {
    while 0 < changed.strong_count() {
        let event = events.next_timeout(LOOK);
        if event.is_some_and(|event| !event.is_about_a_peer())
            && let Some(changed) = changed.upgrade()
        {
            changed.notify_one();
        }
    }
}

fn route(login: &CloudLogin) -> Result<Route, CloudError> {
    let address = ServerAddress::parse(&login.url, login.plain)?;
    Ok(Route::new(address, &login.roots)?)
}

/// Returns what this device is called in its library.
fn own_name(library: &Library) -> Result<String, EditError> {
    let devices = library.core().store.devices().map_err(EditError::load)?;
    let own = devices.get(&library.device());
    let mut name = own.map(|named| named.name.clone()).unwrap_or_default();
    let most = catchword_proto::cloud::api::DEVICE_NAME_BYTES_MAX;
    while most < name.len() {
        name.pop();
    }
    Ok(name)
}

/// Draws any number: for waits, where one that is not random does no harm.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _drawn = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

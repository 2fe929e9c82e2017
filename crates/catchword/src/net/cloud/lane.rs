//! Runs a replicator: carries its questions to the store and its requests to the server.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catchword_model::exchange::DocumentName;
use catchword_proto::cloud::api::{Ingest, Ingested, Page, ProblemKind};
use catchword_proto::cloud::replicator::{Answer, Event, Input, Question, Replicator, Transmit};
use catchword_store::CloudLogin;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;
use zeroize::Zeroizing;

use super::clerk::{Books, Clerk, ClerkError, Tally};
use super::http::{Call, Client, ReachError, Route};
use super::{Ask, CloudError, CloudReport, Shared, live, random};
use crate::event::Event as Told;
use crate::keys::{DEVICE_KEY, DeviceKey};
use crate::library::Library;

/// Changes that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(30);
/// How often a sync that was asked for waits because the server says so.
const WAITS_MAX: u32 = 8;

/// What is known of the lane since this process began.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Why the last try failed, and since when it does.
    pub(crate) failure: Option<(String, u64)>,
    /// The server does not believe the token any more, since then.
    pub(crate) refused_since_ms: Option<u64>,
    /// Positions that were left as they are.
    pub(crate) given_up: BTreeSet<DocumentName>,
    /// When everything was sent and merged last.
    pub(crate) synced_ms: Option<u64>,
    /// Where the feed ended when it was asked for without being merged.
    pub(crate) end: Option<u64>,
}

/// How a lane ended.
pub(crate) enum End {
    /// Everything is sent and merged.
    Synced(CloudReport),
    /// The token is worth nothing.
    SignedOut,
    /// It was to go on for ever, and the account was changed.
    Changed,
    /// It could not be done now.
    Failed(CloudError),
}

/// How long a lane runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Until everything is sent and merged, or the first failure.
    Once,
    /// Until the account is changed.
    Lasting,
}

/// One account's lane, while it runs.
pub(crate) struct Lane<'a> {
    shared: &'a Shared,
    machine: Replicator,
    clerk: Arc<Mutex<Clerk>>,
    client: Client,
    token: Zeroizing<String>,
    nudges: watch::Receiver<u64>,
    /// Ends listening when this is dropped.
    _live: Option<Listening>,
    mode: Mode,
    /// Who asked before the machine was started last.
    asks: Vec<Ask>,
    waits: u32,
    /// Why the store could not answer, until the machine has said that it waits.
    store_failure: Option<ClerkError>,
    last_failure: Option<ReachError>,
    /// What was reported to those who asked before.
    reported: Tally,
}

struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<'a> Lane<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        login: &CloudLogin,
        route: Route,
        token: Zeroizing<String>,
        mode: Mode,
    ) -> Self {
        let (told, nudges) = watch::channel(0);
        let live = (mode == Mode::Lasting).then(|| {
            let listening = tokio::spawn(live::listen(route.clone(), token.clone(), told));
            Listening(listening.abort_handle())
        });
        Self {
            shared,
            machine: Replicator::new(),
            clerk: Arc::new(Mutex::new(Clerk::new(login))),
            client: Client::new(route),
            token,
            nudges,
            _live: live,
            mode,
            asks: Vec::new(),
            waits: 0,
            store_failure: None,
            last_failure: None,
            reported: Tally::default(),
        }
    }

    /// Runs until the end.
    pub(crate) async fn run(&mut self, epoch: &mut watch::Receiver<u64>) -> End {
        self.start();
        loop {
            if let Some(end) = self.settle(epoch).await {
                return end;
            }
            let deadline = self.machine.poll_timeout();
            let wake = async {
                match deadline {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wake => self.machine.handle_timeout(Instant::now()),
                Ok(()) = self.nudges.changed() => {
                    let end = *self.nudges.borrow_and_update();
                    self.machine.handle_input(Input::Nudged(end), Instant::now());
                }
                () = self.shared.changed.notified() => {
                    tokio::time::sleep(GATHER).await;
                    self.machine.handle_input(Input::Changed, Instant::now());
                }
                () = self.shared.asked.notified() => self.start(),
                // Nobody can change it any more, or somebody did.
                _ = epoch.changed(), if self.mode == Mode::Lasting => return End::Changed,
            }
        }
    }

    /// Begins, or begins anew: nothing is remembered that is not stored, and the feed is looked at.
    fn start(&mut self) {
        self.asks.extend(self.shared.take_asks());
        self.machine = Replicator::new();
        self.machine.handle_input(Input::Start, Instant::now());
    }

    /// Tells everybody who asked how it ended.
    fn answer_asks(&mut self, answer: &dyn Fn() -> Result<CloudReport, CloudError>) {
        for ask in self.asks.drain(..) {
            // Whoever went away does not want to know.
            let _gone = ask.send(answer());
        }
    }

    /// Carries out what the machine wants, until it waits for something else.
    async fn settle(&mut self, epoch: &mut watch::Receiver<u64>) -> Option<End> {
        let yields = self.mode == Mode::Lasting;
        loop {
            // History may take long, and nobody is to wait for all of it to sign out.
            if yields && epoch.has_changed().unwrap_or(true) {
                return Some(End::Changed);
            }
            if let Some(event) = self.machine.poll_event() {
                if let Some(end) = self.event(event).await {
                    return Some(end);
                }
            } else if let Some(transmit) = self.machine.poll_transmit() {
                let input = tokio::select! {
                    input = self.transmit(transmit) => input,
                    _ = epoch.changed(), if yields => return Some(End::Changed),
                };
                self.machine.handle_input(input, Instant::now());
            } else {
                return None;
            }
        }
    }

    async fn event(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Ask(question) => {
                let answer = self.ask(question).await;
                self.machine.handle_input(Input::Answer(answer), Instant::now());
                None
            }
            Event::Synced => self.synced().await,
            // What is stopped is kept in the store, and status reads it there.
            Event::Stopped { .. } => None,
            Event::RestampGivenUp(document) => {
                self.shared.seen().given_up.insert(document);
                None
            }
            Event::SignedOut => {
                self.shared.seen().refused_since_ms.get_or_insert(self.shared.now_ms());
                self.answer_asks(&|| Err(CloudError::SignInAgain));
                Some(End::SignedOut)
            }
            Event::Waits { problem, .. } => self.waits(problem),
        }
    }

    async fn synced(&mut self) -> Option<End> {
        let outbox = self.outbox().await;
        let now_ms = self.shared.now_ms();
        {
            let mut seen = self.shared.seen();
            (seen.failure, seen.refused_since_ms) = (None, None);
            (seen.synced_ms, seen.end) = (Some(now_ms), None);
        }
        let tally = lock(&self.clerk).tally();
        let before = std::mem::replace(&mut self.reported, tally);
        let report = CloudReport {
            pushed: tally.pushed - before.pushed,
            pulled: tally.pulled - before.pulled,
            rebased: tally.rebased - before.rebased,
            refused: tally.refused - before.refused,
            outbox,
        };
        self.answer_asks(&|| Ok(report));
        (self.mode == Mode::Once).then_some(End::Synced(report))
    }

    /// Decides whether a failure ends the lane.
    fn waits(&mut self, problem: Option<ProblemKind>) -> Option<End> {
        if lock(&self.clerk).take_reread() {
            return None;
        }
        let told = matches!(problem, Some(ProblemKind::SlowDown | ProblemKind::Busy));
        self.waits += 1;
        if self.mode == Mode::Once && told && self.waits < WAITS_MAX {
            return None;
        }
        let error = match (self.store_failure.take(), self.last_failure.take()) {
            (Some(error), _) => CloudError::Library(error),
            (None, Some(error)) => CloudError::Server(error),
            (None, None) => CloudError::Server(ReachError::Slow),
        };
        let words = self.shared.failed(&error);
        self.answer_asks(&|| Err(CloudError::Failing(words.clone())));
        (self.mode == Mode::Once).then_some(End::Failed(error))
    }

    /// Asks the store, on a thread that may wait.
    async fn ask(&mut self, question: Question) -> Answer {
        if matches!(question, Question::Load) {
            // What is shown to somebody else includes the page that is open.
            let library = self.shared.library.clone();
            self.shared.at_desk(move || library.core().publish_all()).await;
        }
        let answered = self.with_clerk(move |clerk, books| clerk.answer(books, question)).await;
        let changed = lock(&self.clerk).take_changed();
        if !changed.is_empty() {
            self.shared.library.core().announce(&Told::Missed { count: changed.len() as u64 });
        }
        match answered {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => {
                self.store_failure = Some(error);
                Answer::Failed { random: random() }
            }
            None => Answer::Failed { random: random() },
        }
    }

    async fn outbox(&self) -> u64 {
        let outbox = self.with_clerk(|clerk, books| clerk.outbox(books)).await;
        outbox.and_then(Result::ok).unwrap_or(0)
    }

    async fn with_clerk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Clerk, Books<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (library, clerk) = (self.shared.library.clone(), Arc::clone(&self.clerk));
        let done = self.shared.at_desk(move || {
            let core = library.core();
            let signer = signer(&library)?;
            let books = Books { store: &core.store, signer: &signer, now_ms: core.now_ms() };
            Some(work(&mut lock(&clerk), books))
        });
        done.await.flatten()
    }

    async fn transmit(&mut self, transmit: Transmit) -> Input {
        let token = self.token.clone();
        let done = match transmit {
            Transmit::Pull { after, limit, known } => {
                let known = known.map(|known| format!("&known={known}")).unwrap_or_default();
                let path = format!("/v1/changes?after={after}&limit={limit}{known}");
                let call = Call::get(&path).with_token(&token);
                self.client.call::<Page>(call).await.map(Input::Pulled)
            }
            Transmit::Push(entries) => match Call::post("/v1/ingest", &Ingest { entries }) {
                Ok(call) => {
                    let call = call.with_token(&token);
                    self.client.call::<Ingested>(call).await.map(Input::Pushed)
                }
                Err(error) => Err(error),
            },
        };
        done.unwrap_or_else(|error| {
            let (mut problem, mut retry_after) = (None, None);
            if let ReachError::Problem(said) = &error {
                problem = Some(said.kind);
                retry_after = said.retry_after_ms.map(Duration::from_millis);
            }
            self.last_failure = Some(error);
            Input::Failed { problem, retry_after, random: random() }
        })
    }
}

fn signer(library: &Library) -> Option<DeviceKey> {
    let secret = library.core().keys.load(DEVICE_KEY).ok().flatten()?;
    Some(DeviceKey::new(&secret))
}

fn lock(clerk: &Mutex<Clerk>) -> std::sync::MutexGuard<'_, Clerk> {
    // What it remembers is made anew with the next page or batch.
    clerk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns an error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

//! The cloud in the demonstration: a server in this process, a device that signs in, one that does not,
//! and one that meets neither.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use catchword::net::cloud::{Cloud, CloudReport, Credentials, ServerAddress};
use catchword::{BookId, Library, Locator, NewAnnotation};
use catchword_server::app::{AddressFrom, App, Policy, Routes, SignUp};
use catchword_server::ledger::RedbLedger;
use catchword_server::serve;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::commands::demo::{broken, chapter, open, say, turn};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{count, percent};

/// What the account did.
#[derive(Serialize)]
pub(crate) struct CloudAct {
    pushed: u64,
    pulled: u64,
    refused: u64,
    agreed: bool,
}

/// A server on loopback, and what runs it.
struct Server {
    runtime: Runtime,
    at: SocketAddr,
    /// The server ends when this goes.
    _end: watch::Sender<bool>,
}

impl Server {
    fn start(folder: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(Exit::Failed, error, "");
        let ledger = RedbLedger::open(&folder.join("cloud.redb"));
        let ledger = ledger.map_err(|error| Failure::new(Exit::Failed, error, ""))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let policy = Policy { sign_up: SignUp::Open, address: AddressFrom::Connection };
        let (end, ending) = watch::channel(false);
        let app = App::new(Arc::new(ledger), policy, ending);
        let app = app.map_err(|error| Failure::new(Exit::Failed, error, ""))?;
        let router = Routes::all().serve(Arc::clone(&app));
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        drop(runtime.spawn(serve::serve(listener, None, app, router)));
        Ok(Self { runtime, at, _end: end })
    }

    fn credentials(&self) -> Result<Credentials, Failure> {
        let server = ServerAddress::parse(&format!("http://{}", self.at), false)?;
        Ok(Credentials::new(server, "reader", "a password of its own"))
    }

    fn sync(&self, cloud: &Cloud) -> Result<CloudReport, Failure> {
        Ok(self.runtime.block_on(cloud.sync())?)
    }
}

/// Signs in the first of two paired devices; `meet` brings both to the same state.
pub(crate) fn run(
    context: &Context,
    folder: &Path,
    id: BookId,
    [phone, tablet]: [&Library; 2],
    meet: impl Fn() -> Result<(), Failure>,
) -> Result<CloudAct, Failure> {
    let out = &context.output;
    chapter(out, "An account, on a server that runs here for the moment")?;
    let server = Server::start(folder)?;
    let phone_account = Cloud::of(phone);
    server.runtime.block_on(phone_account.sign_up(&server.credentials()?))?;
    let first = server.sync(&phone_account)?;
    say(out, &format!("the phone signs up and sends {}", count(first.pushed, "change")))?;

    let on_tablet = open(tablet, id)?;
    let place = Locator::new().with_total_ppm(230_000);
    let marked = on_tablet.annotate(NewAnnotation::highlight("from the tablet").at(place))?.id;
    meet()?;
    server.sync(&phone_account)?;
    say(out, "the tablet has no account: what it marks reaches the account through the phone")?;

    let config = context.config().with_device_name("laptop");
    let laptop = Library::create(folder.join("laptop"), config)?;
    let laptop_account = Cloud::of(&laptop);
    server.runtime.block_on(laptop_account.sign_in(&server.credentials()?))?;
    let second = server.sync(&laptop_account)?;
    let on_laptop = open(&laptop, id)?;
    if on_laptop.annotation(marked)?.is_none() {
        return Err(broken("what a paired device wrote did not reach the account"));
    }
    let received = count(second.pulled, "change");
    say(out, &format!("a laptop signs in, meets neither of them, and has {received}"))?;

    turn(&on_laptop, 800_000, 600)?;
    server.sync(&laptop_account)?;
    let on_phone = open(phone, id)?;
    turn(&on_phone, 20_000, 60)?;
    say(out, "the laptop reads on to 80.0 %; the phone, which does not know, goes back to 2.0 %")?;
    let stale = server.sync(&phone_account)?;
    meet()?;
    server.sync(&laptop_account)?;
    let mut places = Vec::new();
    for book in [&on_phone, &on_tablet, &on_laptop] {
        places.push(book.place()?.map_or(0, |place| place.position.ppm));
    }
    let agreed = places.iter().all(|place| *place == 800_000);
    if stale.refused != 1 || !agreed {
        return Err(broken("a stale place was not refused on every device"));
    }
    say(
        out,
        &format!("the account refuses it: phone, tablet and laptop open at {}", percent(800_000)),
    )?;
    Ok(CloudAct { pushed: first.pushed, pulled: second.pulled, refused: stale.refused, agreed })
}

//! `cloud`: an account on a server that runs in the test's process.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use catchword_server::app::{AddressFrom, App, Policy, Routes, SignUp};
use catchword_server::ledger::{Ledger, RedbLedger};
use catchword_server::serve as serving;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::devices::{serve, state};
use crate::support::{Shelf, stderr, stdout};

pub(crate) const PASSWORD: &str = "correct horse";
/// How long a test waits for what comes within a second or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server in a thread of its own, on a file.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    pub(crate) ledger: Arc<dyn Ledger>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, None)
    }

    /// The same with a certificate and its key, if there are any.
    fn start_with(folder: &Path, pair: Option<[&Path; 2]>) -> Self {
        let tls = pair.map(|[chain, key]| serving::tls(chain, key).unwrap());
        let ledger: Arc<dyn Ledger> =
            Arc::new(RedbLedger::open(&folder.join("cloud.redb")).unwrap());
        let (end, ending) = watch::channel(false);
        let (told, listening) = std::sync::mpsc::channel();
        let served = Arc::clone(&ledger);
        let policy = Policy { sign_up: SignUp::Open, address: AddressFrom::Connection };
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let app = App::new(served, policy, ending).unwrap();
                let router = Routes::all().serve(Arc::clone(&app));
                serving::serve(listener, tls, app, router).await;
            });
        });
        Self { at: listening.recv().unwrap(), ledger, end, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.at)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.send_replace(true);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Signs up or in with the password in the environment.
pub(crate) fn enter(shelf: &Shelf, how: &str, url: &str, user: &str) -> Output {
    let mut command = shelf.command(&["cloud", how, "--url", url, "--user", user, "--json"]);
    command.env("CATCHWORD_PASSWORD", PASSWORD).output().unwrap()
}

fn entered(shelf: &Shelf, how: &str, url: &str) -> Value {
    let output = enter(shelf, how, url, "anna");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// Returns the line of `status` about the account.
fn of_account(shelf: &Shelf) -> Value {
    let lines = shelf.json(&["status"]);
    let lines = lines.as_array().unwrap();
    lines.iter().find(|line| line["subject"]["kind"] == "account").cloned().unwrap_or(Value::Null)
}

#[test]
fn two_libraries_converge_through_an_account() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let url = &server.url();
    let (phone, book) = Shelf::with_sample();
    let (laptop, _) = Shelf::with_sample();
    phone.json(&["annotate", &book, "--quote", "on the phone", "--ppm", "1000"]);
    phone.json(&["read", &book, "--ppm", "250000"]);
    let sent = entered(&phone, "signup", url);
    assert!(3 <= sent["pushed"].as_u64().unwrap(), "{sent}");
    assert_eq!((&sent["outbox"], &sent["refused"]), (&json!(0), &json!(0)));
    laptop.json(&["annotate", &book, "--quote", "on the laptop", "--ppm", "2000"]);
    let merged = entered(&laptop, "login", url);
    assert_eq!(merged["pulled"], sent["pushed"], "{merged}");
    let back = phone.json(&["cloud", "sync"]);
    assert_eq!(back["pulled"], merged["pushed"], "{back}");
    assert_eq!(state(&phone, &book), state(&laptop, &book));
    let nothing = json!({"pushed": 0, "pulled": 0, "rebased": 0, "refused": 0, "outbox": 0});
    assert_eq!(phone.json(&["cloud", "sync"]), nothing);
    assert_eq!(phone.json(&["cloud", "status"]), nothing);
    assert_eq!(of_account(&phone)["state"], "in_sync");

    // A place that is behind what the account has, made without knowing it, is refused.
    laptop.json(&["read", &book, "--ppm", "700000"]);
    laptop.json(&["cloud", "sync"]);
    assert_eq!(of_account(&phone)["state"], "waiting");
    phone.json(&["read", &book, "--ppm", "20000"]);
    assert_eq!(phone.json(&["cloud", "sync"])["refused"], 1);
    laptop.json(&["cloud", "sync"]);
    assert_eq!(phone.json(&["show", &book])["place"]["ppm"], 700_000);
    assert_eq!(state(&phone, &book), state(&laptop, &book));

    phone.json(&["cloud", "logout"]);
    assert_eq!(of_account(&phone)["state"], "stopped");
    assert_eq!(phone.failure(&["cloud", "sync"]).0, 4);
    assert_eq!(state(&phone, &book), state(&laptop, &book), "nothing is deleted");
}

#[test]
fn who_may_not_enter_is_told_why_with_the_documented_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let url = &server.url();
    let (phone, _) = Shelf::with_sample();
    let (code, told) = phone.failure(&["cloud", "status"]);
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("cloud login"), "{told}");
    entered(&phone, "signup", url);
    let (tablet, _) = Shelf::with_sample();
    let taken = enter(&tablet, "signup", url, "Anna");
    assert_eq!(taken.status.code(), Some(3), "{}", stderr(&taken));
    let wrong = tablet.command(&["cloud", "login", "--url", url, "--user", "anna"]);
    let refused = { wrong }.env("CATCHWORD_PASSWORD", "another one").output().unwrap();
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    let login = |url: &str| enter(&tablet, "login", url, "anna");
    let nobody = login("http://127.0.0.1:1");
    assert_eq!(nobody.status.code(), Some(1), "{}", stderr(&nobody));
    let readable = login("http://cloud.example");
    assert_eq!(readable.status.code(), Some(2));
    assert!(stderr(&readable).contains("--plain-http"), "{}", stderr(&readable));
    assert_eq!(login("cloud.example").status.code(), Some(2));
    // Nobody is there to be asked.
    let (code, told) = tablet.failure(&["cloud", "login", "--url", url, "--user", "anna"]);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("--password-stdin"), "{told}");

    let args = ["cloud", "login", "--url", url, "--user", "anna", "--password-stdin"];
    let mut child = tablet.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_certificate_that_is_not_believed_is_refused_and_the_one_of_ca_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (own, other) = (made(), made());
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let (right, wrong) = (file("right.pem", &own.cert.pem()), file("wrong.pem", &other.cert.pem()));
    let key = file("key.pem", &own.signing_key.serialize_pem());
    let server = Server::start_with(folder.path(), Some([&right, &key]));
    let url = format!("https://localhost:{}", server.at.port());
    let (phone, book) = Shelf::with_sample();
    let sign_up = |more: &[&str]| {
        let args = [&["cloud", "signup", "--url", &url, "--user", "anna"], more].concat();
        phone.command(&args).env("CATCHWORD_PASSWORD", PASSWORD).output().unwrap()
    };
    for more in [&[][..], &["--ca", wrong.to_str().unwrap()]] {
        let refused = sign_up(more);
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        let told = stderr(&refused);
        assert!(
            told.contains("certificate is not believed") && told.contains("--ca FILE"),
            "{told}"
        );
        assert_eq!(of_account(&phone), Value::Null, "nothing is kept of it");
    }
    // A file without a certificate is no reason to believe everybody.
    assert_ne!(sign_up(&["--ca", key.to_str().unwrap()]).status.code(), Some(0));

    let done = sign_up(&["--ca", right.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    phone.json(&["annotate", &book, "--quote", "over TLS", "--ppm", "1000"]);
    let sent = phone.json(&["cloud", "sync"]);
    assert!(1 <= sent["pushed"].as_u64().unwrap(), "it is believed from now on: {sent}");
}

#[test]
fn the_daemon_keeps_the_account_in_step_and_carries_out_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let url = &server.url();
    let (phone, book) = Shelf::with_sample();
    let (laptop, _) = Shelf::with_sample();
    let (serving, _) = serve(&phone);
    entered(&phone, "signup", url);
    entered(&laptop, "login", url);
    let (serving_too, _) = serve(&laptop);
    phone.json(&["annotate", &book, "--quote", "by itself", "--ppm", "1"]);
    until("it arrives by itself", || {
        laptop.json(&["show", &book])["annotations"].as_array().unwrap().len() == 1
    });
    assert_eq!(phone.json(&["cloud", "sync"])["outbox"], 0);
    assert_eq!(of_account(&phone)["state"], "in_sync");
    until("both are equal", || state(&phone, &book) == state(&laptop, &book));

    // A server that goes away is named, and so is what would help.
    drop(server);
    phone.json(&["annotate", &book, "--quote", "later", "--ppm", "2"]);
    until("the failure is known", || of_account(&phone)["state"] == "failing");
    let line = of_account(&phone);
    assert!(line["since"].is_u64() && line["remedy"].is_string(), "{line}");
    assert_eq!(phone.failure(&["cloud", "sync"]).0, 1);
    phone.json(&["cloud", "logout"]);
    assert_eq!(of_account(&phone)["state"], "stopped");
    serving.terminate();
    serving_too.terminate();
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

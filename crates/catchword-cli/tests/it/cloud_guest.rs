//! A library that was used for long without an account signs in, and is killed while it sends.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use catchword_proto::cloud::api::{AccountId, Record};
use serde_json::Value;

use crate::cloud::{PASSWORD, Server, enter};
use crate::support::{Shelf, stderr};

/// How often the sender is killed.
const KILLS: u64 = 10;

/// How large the library is.
struct Size {
    books: u64,
    annotations: u64,
}

impl Size {
    /// All of it where `CATCHWORD_GUEST` is `full`.
    fn of_this_run() -> Self {
        if std::env::var_os("CATCHWORD_GUEST").is_some_and(|value| value == "full") {
            Self { books: 500, annotations: 20_000 }
        } else {
            Self { books: 40, annotations: 1_200 }
        }
    }
}

fn end(server: &Server) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(server.ledger.end(AccountId::of_user("anna"))).unwrap()
}

/// Returns how often each change and event stands in the feed, by its bytes.
fn feed(server: &Server) -> BTreeMap<Vec<u8>, u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut found, mut cursor) = (BTreeMap::new(), 0);
    loop {
        let page = server.ledger.page(AccountId::of_user("anna"), cursor, 1_000);
        let page = runtime.block_on(page).unwrap();
        for record in page.records {
            let (Record::Change { bytes, .. } | Record::Event { bytes }) = record.record else {
                panic!("nothing is void")
            };
            *found.entry(bytes.0).or_insert(0) += 1;
        }
        cursor = page.cursor;
        if cursor == page.end {
            return found;
        }
    }
}

/// Everything a person sees of each book.
fn everything(shelf: &Shelf) -> BTreeMap<String, Value> {
    let books = shelf.json(&["books"]);
    let books = books.as_array().unwrap().iter();
    books.map(|book| (book["book"].as_str().unwrap().to_owned(), book.clone())).collect()
}

fn generate(shelf: &Shelf, size: &Size, seed: &str) {
    let (books, each) = (size.books.to_string(), (size.annotations / size.books).to_string());
    let args = ["generate", "--books", &books, "--annotations", &each, "--seed", seed];
    assert_eq!(shelf.json(&args)["annotations"], size.annotations);
}

#[test]
fn a_guest_that_is_killed_while_it_sends_ends_complete_and_a_second_one_is_merged() {
    let size = Size::of_this_run();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let url = server.url();
    let guest = Shelf::new();
    generate(&guest, &size, "1");
    let before = everything(&guest);
    let started = Instant::now();
    let kills = send_and_kill(&guest, &url, &server);
    let sent = guest.json(&["cloud", "sync"]);
    assert_eq!((&sent["outbox"], &sent["refused"]), (&0.into(), &0.into()), "{sent}");
    let took = started.elapsed();
    let records = feed(&server);
    assert!(records.values().all(|times| *times == 1), "nothing is there twice");
    assert_eq!(records.len() as u64, end(&server));
    assert_eq!(everything(&guest), before, "nothing changed here");

    let reader = Shelf::new();
    let output = enter(&reader, "login", &url, "anna");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(everything(&reader), before, "nothing is missing");
    same_book(&guest, &reader, before.keys().next().unwrap());

    // A second one, with some of the same books and some of its own.
    let second = Shelf::new();
    let half = Size { books: size.books / 2, annotations: size.annotations / 2 };
    generate(&second, &half, "1");
    generate(&second, &Size { books: 5, annotations: 50 }, "2");
    let own = everything(&second);
    let shared = own.keys().filter(|book| before.contains_key(*book)).count() as u64;
    let output = enter(&second, "login", &url, "anna");
    assert!(output.status.success(), "{}", stderr(&output));
    guest.json(&["cloud", "sync"]);
    let (one, other) = (everything(&guest), everything(&second));
    assert_eq!(one, other);
    assert_eq!(one.len(), before.len() + own.len() - usize::try_from(shared).unwrap());
    for book in before.keys().chain(own.keys()).step_by(17) {
        same_book(&guest, &second, book);
    }
    assert!(feed(&server).values().all(|times| *times == 1));
    eprintln!(
        "guest: {} books, {} annotations, {} records; {kills} kills in {took:?}; then {} books of \
         which {shared} were there: {} books, {} records",
        size.books,
        size.annotations,
        records.len(),
        own.len(),
        one.len(),
        end(&server),
    );
}

/// Signs in and sends, and kills the process so often before it is done; returns how often.
fn send_and_kill(guest: &Shelf, url: &str, server: &Server) -> u64 {
    let mut kills = 0;
    let signup = ["cloud", "signup", "--url", url, "--user", "anna"];
    let sync = ["cloud", "sync"];
    // The first one until it has an account and sends.
    let mut args: &[&str] = &signup;
    let mut patience = Duration::from_millis(5);
    while kills < KILLS {
        let from = end(server);
        let mut command = guest.command(args);
        let command = command.env("CATCHWORD_PASSWORD", PASSWORD);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Each time a little later, so that it dies in another place.
        let since = Instant::now();
        let ended = loop {
            if child.try_wait().unwrap().is_some() {
                break true;
            }
            let signed_in = args.len() == 2 || from < end(server);
            if signed_in && patience <= since.elapsed() {
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        args = &sync;
        if ended {
            // It was done before it could be killed.
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        patience += Duration::from_millis(7);
    }
    kills
}

fn same_book(one: &Shelf, other: &Shelf, book: &str) {
    let shown = |shelf: &Shelf| {
        let shown = shelf.json(&["show", book]);
        ["heads", "place", "annotations", "tags", "totals"].map(|name| shown[name].clone())
    };
    assert_eq!(shown(one), shown(other), "{book}");
}

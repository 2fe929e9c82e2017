//! `pair`, `peers`, `serve`, `sync`: two and three devices, each a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Shelf, fixtures, stderr, stdout};

/// A command that goes on while others run.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(shelf: &Shelf, args: &[&str]) -> Self {
        let mut command = shelf.command(args);
        let mut child = command.arg("--json").stdout(Stdio::piped()).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, out }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))
    }

    /// Waits until the command ends, and returns what it printed besides the lines that were read.
    fn end(mut self) -> Value {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("text");
        assert!(self.child.wait().expect("it ends").success());
        serde_json::from_str(&rest).unwrap_or(Value::Null)
    }

    /// Asks it to end, as a person or a system does.
    pub(crate) fn terminate(self) {
        let id = self.child.id().to_string();
        let killed = std::process::Command::new("kill").args(["-TERM", &id]).status();
        assert!(killed.expect("kill is there").success());
        assert_eq!(self.end(), Value::Null);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A daemon that nobody finds by itself, and where it listens.
pub(crate) fn serve(shelf: &Shelf) -> (Running, String) {
    let mut serving = Running::start(shelf, &["serve", "--no-mdns", "--listen", "127.0.0.1:0"]);
    let listening = serving.line()["listening"].as_str().expect("an address").to_owned();
    (serving, listening)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Pairs two devices, and returns what the joiner calls the host.
pub(crate) fn pair(host: &Shelf, joiner: &Shelf) -> String {
    let mut showing =
        Running::start(host, &["pair", "--show", "--qr-only", "--listen", "127.0.0.1:0"]);
    let shown = showing.line();
    let (qr, key) = (text(&shown["qr"]), text(&shown["key"]));
    assert_eq!(key.len(), 6);
    let told = joiner.json(&["pair", "--qr", qr, "--key", key]);
    let hosted = showing.end();
    assert_eq!(told["name"], "phone", "as all devices of these tests are called");
    assert_ne!(told["peer"], hosted["peer"], "each names the other");
    text(&told["peer"]).to_owned()
}

pub(crate) fn sync(from: &Shelf, address: &str) -> Value {
    from.json(&["sync", "--addr", address])[0].clone()
}

/// What must be equal on devices that are in sync.
pub(crate) fn state(shelf: &Shelf, book: &str) -> Value {
    let shown = shelf.json(&["show", book]);
    let names = ["heads", "place", "furthest", "annotations", "tags", "journal", "totals"];
    names.into_iter().map(|name| (name.to_owned(), shown[name].clone())).collect()
}

#[test]
fn two_devices_that_were_apart_are_equal_after_one_sync() {
    let ((phone, book), (tablet, other)) = (Shelf::with_sample(), Shelf::with_sample());
    assert_eq!(book, other, "one book file is one book");
    pair(&phone, &tablet);

    let marked = phone.json(&["annotate", &book, "--quote", "both see this", "--ppm", "1000"]);
    let id = text(&marked["id"]);
    let (serving, address) = serve(&phone);
    assert_eq!(sync(&tablet, &address)["in_sync"], true);
    serving.terminate();

    // Apart: two colours, an edit against a delete, a rewind against an advance.
    phone.json(&["read", &book, "--ppm", "700000"]);
    phone.json(&["edit", &book, id, "--color", "red"]);
    phone.json(&["journal", &book, "--set", "from the phone\n"]);
    tablet.json(&["read", &book, "--ppm", "200000", "--seconds", "60"]);
    tablet.json(&["delete", &book, id]);
    tablet.json(&["tag", &book, "--add", "sea"]);

    let (serving, address) = serve(&phone);
    let synced = sync(&tablet, &address);
    assert_eq!(synced["in_sync"], true, "{synced}");
    let state_of_phone = state(&phone, &book);
    assert_eq!(state_of_phone, state(&tablet, &book));
    assert_eq!(state_of_phone["place"]["ppm"], 200_000);
    assert_eq!(state_of_phone["furthest"]["ppm"], 700_000);
    assert_eq!(state_of_phone["annotations"][0]["deleted"], false, "an edit keeps it");
    assert_eq!(state_of_phone["tags"], json!(["sea"]));

    let idle = sync(&tablet, &address);
    let bytes = |name: &str| idle[name].as_u64().expect("a number");
    assert_eq!((&idle["round_trips"], &idle["in_sync"]), (&json!(1), &json!(true)));
    assert_eq!((bytes("changes_sent"), bytes("changes_received")), (0, 0));
    assert!(bytes("bytes_sent") <= 512 && bytes("bytes_received") <= 512, "{idle}");
    serving.terminate();
}

/// Everything in the folder of a library.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = ["library", "wal", "witness"].map(|name| folder.join(name));
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

#[test]
fn a_disk_that_went_back_without_notice_forks_its_device_and_nothing_is_lost() {
    let ((phone, book), (tablet, _)) = (Shelf::with_sample(), Shelf::with_sample());
    pair(&phone, &tablet);
    let (serving, address) = serve(&tablet);
    assert_eq!(sync(&phone, &address)["in_sync"], true);
    let annotate = |quote: &str| {
        phone.json(&["annotate", &book, "--quote", quote, "--ppm", "1000"]);
    };
    annotate("before");
    let earlier = content(&phone.data());
    annotate("given away, then forgotten");
    phone.json(&["read", &book, "--ppm", "400000", "--seconds", "60"]);
    assert_eq!(sync(&phone, &address)["in_sync"], true);

    // The very same files, as they were: nothing here says that anything is missing.
    for (file, bytes) in earlier {
        std::fs::write(file, bytes).unwrap();
    }
    annotate("written in the place of the other");
    phone.json(&["read", &book, "--ppm", "500000", "--seconds", "30"]);
    let mut synced = Value::Null;
    for _ in 0..4 {
        synced = sync(&phone, &address);
    }
    assert_eq!(synced["in_sync"], true, "{synced}");
    let [of_phone, of_tablet] = [&phone, &tablet].map(|shelf| state(shelf, &book));
    assert_eq!(of_phone, of_tablet);
    let quotes = of_phone["annotations"].as_array().unwrap().iter();
    let mut quotes: Vec<&str> = quotes.map(|found| text(&found["quote"])).collect();
    quotes.sort_unstable();
    let expected = ["before", "given away, then forgotten", "written in the place of the other"];
    assert_eq!(quotes, expected);
    assert_eq!(of_phone["place"]["ppm"], 500_000);
    assert_eq!(of_phone["totals"]["seconds"], 90, "{}", of_phone["totals"]);
    for shelf in [&phone, &tablet] {
        shelf.json(&["check"]);
    }
    serving.terminate();
}

#[test]
fn the_file_of_a_book_comes_when_it_is_asked_for() {
    let (phone, book) = Shelf::with_sample();
    let tablet = Shelf::new();
    let host = pair(&phone, &tablet);
    let (serving, address) = serve(&phone);
    assert_eq!(sync(&tablet, &address)["in_sync"], true);

    let (code, said) = tablet.failure(&["read", &book, "--page", "1"]);
    assert_eq!(code, 4, "the file is not here: {said}");
    let copy = tablet.path().join("copy.epub");
    let copy = copy.to_str().expect("a plain path");
    let fetched = tablet.json(&["fetch", &book, "--addr", &address, "--save", copy]);
    let original = std::fs::read(phone.sample()).expect("the sample is there");
    assert_eq!(fetched["bytes"], original.len());
    assert_eq!((&fetched["bytes_received"], &fetched["from"]), (&fetched["bytes"], &json!([host])));
    assert_eq!(std::fs::read(copy).expect("it was saved"), original);
    assert_eq!(tablet.json(&["fetch", &book])["bytes_received"], 0, "nobody is asked again");
    serving.terminate();

    std::fs::remove_file(copy).expect("it is there");
    let (daemon, _) = serve(&tablet);
    tablet.json(&["fetch", &book, "--save", copy]);
    assert_eq!(std::fs::read(copy).expect("the daemon saved it"), original);
    daemon.terminate();

    let lonely = Shelf::with_sample().0;
    assert_eq!(lonely.failure(&["fetch", "no such book"]).0, 4);
}

#[test]
fn a_book_goes_with_its_history_when_another_device_has_it() {
    let (phone, book) = Shelf::with_sample();
    let tablet = Shelf::new();
    let host = pair(&tablet, &phone);
    phone.json(&["annotate", &book, "--quote", "kept elsewhere", "--ppm", "5"]);
    phone.json(&["remove", &book]);
    let (code, said) = phone.failure(&["remove", &book, "--purge", "--addr", "127.0.0.1:1"]);
    assert_eq!(code, 3, "nobody is there: {said}");

    let (serving, address) = serve(&tablet);
    let purged = phone.json(&["remove", &book[..8], "--purge", "--addr", &address]);
    assert_eq!(purged, json!({ "book": book, "removed": true, "kept_by": host }));
    assert_eq!(state(&tablet, &book)["annotations"][0]["quote"], "kept elsewhere");
    phone.json(&["import", phone.sample().to_str().expect("a plain path")]);
    assert_eq!(state(&phone, &book)["annotations"], json!([]), "its history is not here");
    assert_eq!(sync(&phone, &address)["in_sync"], true);
    assert_eq!(state(&phone, &book), state(&tablet, &book));
    serving.terminate();
}

#[test]
fn a_change_reaches_the_third_device_through_the_second() {
    let (phone, book) = Shelf::with_sample();
    let (tablet, reader) = (Shelf::new(), Shelf::new());
    let host = pair(&phone, &tablet);
    pair(&tablet, &reader);
    phone.json(&["annotate", &book, "--quote", "passed on", "--ppm", "5"]);

    let (serving, address) = serve(&phone);
    let first = tablet.json(&["sync", "--peer", &host, "--addr", &address])[0].clone();
    serving.terminate();
    let (serving, address) = serve(&tablet);
    let second = sync(&reader, &address);
    assert_eq!((&first["in_sync"], &second["in_sync"]), (&json!(true), &json!(true)));
    assert_eq!(state(&reader, &book)["annotations"][0]["quote"], "passed on");
    serving.terminate();
}

#[test]
fn what_travels_along_a_chain_is_every_change_once_for_each_hop() {
    const CHANGES: u64 = 5;
    let (phone, book) = Shelf::with_sample();
    let (tablet, reader) = (Shelf::new(), Shelf::new());
    let host = pair(&phone, &tablet);
    pair(&tablet, &reader);
    // What one device gets from the next, and whether both are equal then.
    let along = || {
        let (serving, address) = serve(&phone);
        let first = tablet.json(&["sync", "--peer", &host, "--addr", &address])[0].clone();
        serving.terminate();
        let (serving, address) = serve(&tablet);
        let second = sync(&reader, &address);
        serving.terminate();
        let count = |synced: &Value, name: &str| {
            assert_eq!(synced["in_sync"], true, "{synced}");
            synced[name].as_u64().expect("a number")
        };
        let sum = |name: &str| count(&first, name) + count(&second, name);
        (sum("changes_sent"), sum("changes_received"))
    };
    // Twice: first the devices tell each other their names, both ways.
    along();
    along();
    assert_eq!(along(), (0, 0));
    for n in 0..CHANGES {
        let (quote, ppm) = (format!("passage {n}"), n.to_string());
        phone.json(&["annotate", &book, "--quote", &quote, "--ppm", &ppm]);
    }
    // The dialling side receives here; what it receives was sent once.
    assert_eq!(along(), (0, 2 * CHANGES));
    assert_eq!(state(&phone, &book), state(&reader, &book));
}

#[test]
fn two_libraries_of_real_books_are_equal_after_offline_work() {
    let Some(fixtures) = fixtures() else { return };
    let books = ["standardebooks/flatland.epub", "idpf/childrens-media-query.epub"];
    let (phone, tablet) = (Shelf::new(), Shelf::new());
    pair(&phone, &tablet);
    let mut ids = Vec::new();
    for book in books {
        let path = fixtures.join(book);
        let path = path.to_str().expect("a plain path");
        let [one, other] = [&phone, &tablet].map(|shelf| shelf.json(&["import", path])[0].clone());
        assert_eq!(one["book"], other["book"]);
        ids.push(text(&one["book"]).to_owned());
    }
    for (shelf, colour) in [(&phone, "yellow"), (&tablet, "blue")] {
        for (n, book) in ids.iter().enumerate() {
            let ppm = (100_000 * (n + 1)).to_string();
            shelf.json(&["read", book, "--ppm", &ppm, "--seconds", "30"]);
            shelf.json(&["annotate", book, "--quote", "a line", "--color", colour, "--ppm", &ppm]);
            shelf.json(&["tag", book, "--add", colour]);
            shelf.json(&["journal", book, "--set", &format!("{colour} thoughts\n")]);
        }
    }
    let (serving, address) = serve(&phone);
    let first = sync(&tablet, &address);
    assert_eq!(first["in_sync"], true, "{first}");
    for book in &ids {
        let of_phone = state(&phone, book);
        assert_eq!(of_phone, state(&tablet, book));
        assert_eq!(of_phone["annotations"].as_array().map(Vec::len), Some(2));
        assert_eq!(of_phone["tags"], json!(["blue", "yellow"]));
        assert_eq!(of_phone["totals"]["seconds"], 60, "{}", of_phone["totals"]);
        let journal = text(&of_phone["journal"]);
        assert!(journal.contains("yellow thoughts") && journal.contains("blue thoughts"));
    }
    let idle = sync(&tablet, &address);
    let within = |name: &str| idle[name].as_u64().is_some_and(|bytes| bytes <= 512);
    assert_eq!((&idle["round_trips"], &idle["in_sync"]), (&json!(1), &json!(true)));
    assert!(within("bytes_sent") && within("bytes_received"), "{idle}");
    serving.terminate();
}

#[test]
fn a_wrong_key_pairs_nobody_and_a_forgotten_device_is_refused() {
    let (phone, tablet) = (Shelf::new(), Shelf::new());
    let mut showing =
        Running::start(&phone, &["pair", "--show", "--qr-only", "--listen", "127.0.0.1:0"]);
    let shown = showing.line();
    let key = text(&shown["key"]);
    let wrong = if key == "000000" { "000001" } else { "000000" };
    let qr = text(&shown["qr"]);
    let (code, message) = tablet.failure(&["pair", "--qr", qr, "--key", wrong]);
    assert_eq!(code, 3, "{message}");
    assert_eq!(tablet.json(&["peers"]), json!([]));
    drop(showing);

    pair(&phone, &tablet);
    let peer = tablet.json(&["peers"])[0]["peer"].as_str().expect("an id").to_owned();
    assert_eq!(tablet.json(&["peers", "forget", &peer])[0]["state"], "revoked");
    let (serving, address) = serve(&tablet);
    let (code, message) = phone.failure(&["sync", "--addr", &address]);
    assert_eq!(code, 3, "{message}");
    assert!(message.contains("does not know this one"), "{message}");
    assert_eq!(phone.json(&["peers"])[0]["state"], "deactivated");
    serving.terminate();
}

#[test]
fn a_daemon_carries_out_what_others_ask_with_their_paths_and_their_input() {
    let (phone, book) = Shelf::with_sample();
    let alone = phone.json(&["show", &book]);
    let (serving, _) = serve(&phone);
    assert_eq!(phone.json(&["show", &book]), alone);

    let folder = tempfile::tempdir().expect("there is room");
    std::fs::write(folder.path().join("journal.txt"), "by a path of the caller\n").expect("room");
    let mut journal = phone.command(&["journal", &book, "--file", "journal.txt"]);
    let output = journal.current_dir(folder.path()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(phone.json(&["show", &book])["journal"], "by a path of the caller\n");

    let (code, message) = phone.failure(&["show", "no such book"]);
    assert_eq!(code, 4, "{message}");
    let (code, message) = phone.failure(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1, "{message}");
    serving.terminate();
    assert_eq!(phone.json(&["show", &book])["journal"], "by a path of the caller\n");
}

/// Looks again and again, for as long as a machine may take that is busy.
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn two_processes_find_each_other_by_multicast_and_sync_without_addresses() {
    let (phone, book) = Shelf::with_sample();
    let tablet = Shelf::new();
    pair(&phone, &tablet);
    phone.json(&["annotate", &book, "--quote", "found", "--ppm", "1"]);

    // The port that the pairing was made at is gone: nothing but an announcement says where it is now.
    let mut serving = Running::start(&phone, &["serve"]);
    assert_eq!(serving.line()["mdns"], true, "multicast does not work on this machine");
    wait("a sync without an address", || {
        let output = tablet.command(&["sync", "--json"]).output().expect("it runs");
        output.status.success() && stdout(&output).contains("\"in_sync\":true")
    });
    assert_eq!(state(&tablet, &book)["annotations"][0]["quote"], "found");

    // With a daemon on either side nobody asks for a sync any more.
    let mut other = Running::start(&tablet, &["serve"]);
    assert_eq!(other.line()["mdns"], true);
    let quotes = |shelf: &Shelf| state(shelf, &book)["annotations"].as_array().map_or(0, Vec::len);
    tablet.json(&["annotate", &book, "--quote", "pushed", "--ppm", "2"]);
    wait("a push of the tablet", || quotes(&phone) == 2);
    phone.json(&["annotate", &book, "--quote", "pushed back", "--ppm", "3"]);
    wait("a push of the phone", || quotes(&tablet) == 3);
    let in_sync = |shelf: &Shelf| {
        let lines = shelf.json(&["status"]);
        let of_peer = |line: &&Value| line["subject"]["kind"] == "peer";
        let lines: Vec<Value> =
            lines.as_array().expect("a list").iter().filter(of_peer).cloned().collect();
        lines.len() == 1 && lines[0]["state"] == "in_sync"
    };
    wait("agreement", || in_sync(&phone) && in_sync(&tablet));
    other.terminate();
    serving.terminate();
}

#[test]
fn the_six_digits_are_enough_on_one_network() {
    let (phone, tablet) = (Shelf::new(), Shelf::new());
    let mut showing = Running::start(&phone, &["pair", "--show"]);
    let key = showing.line()["key"].as_str().expect("a key").to_owned();
    // Somebody else may show a code on this network just now.
    wait("a moment in which one device shows a code", || {
        let joined = tablet.command(&["pair", "--key", &key]).output().expect("it runs");
        let several = stderr(&joined).contains("devices near here show a code");
        assert!(joined.status.success() || several, "{}", stderr(&joined));
        joined.status.success()
    });
    assert_eq!(tablet.json(&["peers"])[0]["name"], "phone");
    showing.end();
}

#[test]
fn status_names_clocks_books_and_devices_with_what_would_help() {
    let (phone, book) = Shelf::with_sample();
    let line = |lines: &Value, kind: &str| {
        let mut lines = lines.as_array().expect("a list").iter();
        lines.find(|line| line["subject"]["kind"] == kind).cloned().unwrap_or_default()
    };
    let alone = phone.json(&["status"]);
    assert!(text(&line(&alone, "library")["remedy"]).contains("pair --show"), "{alone}");

    let ahead = Shelf::with_clock_offset_ms(365 * 86_400_000);
    pair(&phone, &ahead);
    assert_eq!(line(&phone.json(&["status"]), "peer")["state"], "waiting");
    let (serving, address) = serve(&phone);
    assert_eq!(sync(&ahead, &address)["in_sync"], true);
    ahead.json(&["read", &book, "--ppm", "500000"]);
    assert_eq!(sync(&ahead, &address)["in_sync"], true);
    let lines = phone.json(&["status"]);
    let (peer, device) = (line(&lines, "peer"), line(&lines, "device"));
    assert_eq!(peer["state"], "noted", "{lines}");
    for named in [peer, device] {
        assert_eq!(named["subject"]["name"], "phone", "as all devices of these tests are called");
        assert!(text(&named["reason"]).ends_with(" s ahead"), "{named}");
        assert!(text(&named["remedy"]).contains("clock"), "{named}");
    }
    serving.terminate();

    phone.json(&["annotate", &book, "--quote", "unsent", "--ppm", "1"]);
    let of_book = phone.json(&["status", &book]);
    assert_eq!(line(&of_book, "book")["reason"], "phone has not confirmed 1 changes");
    let (code, message) = phone.failure(&["status", "no such book"]);
    assert_eq!(code, 4, "{message}");
}

#[test]
fn a_scope_is_set_by_book_and_by_shelf_and_listed() {
    let (phone, book) = Shelf::with_sample();
    let tablet = Shelf::new();
    pair(&phone, &tablet);
    let peer = phone.json(&["peers"])[0].clone();
    assert_eq!(peer["scope"], "all");
    let peer = text(&peer["peer"]);
    phone.json(&["shelf", "lent", "--add", &book]);
    let shelf = phone.json(&["shelf"])[0].clone();
    let scoped = phone.json(&["peers", "scope", peer, "--shelf", "lent"])[0].clone();
    assert_eq!(scoped["scope"]["shelves"][0], shelf["shelf"], "{scoped}");
    let (serving, address) = serve(&phone);
    assert_eq!(sync(&tablet, &address)["in_sync"], true);
    assert_eq!(tablet.json(&["books"])[0]["book"], book.as_str());
    assert_eq!(tablet.json(&["shelf"]), json!([]));
    serving.terminate();

    let scoped = phone.json(&["peers", "scope", peer, "--book", &book])[0].clone();
    assert_eq!(scoped["scope"], json!({"shelves": [], "books": [book]}));
    assert_eq!(phone.json(&["peers", "scope", peer, "--all"])[0]["scope"], "all");
    let (code, _) = phone.failure(&["peers", "scope", peer]);
    assert_eq!(code, 2);
    let (code, message) = phone.failure(&["peers", "scope", peer, "--shelf", "none"]);
    assert_eq!(code, 4, "{message}");
}

#[cfg(unix)]
#[test]
fn the_daemon_asks_whoever_asked_it_before_it_takes_a_device_in() {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    let (phone, tablet) = (Shelf::new(), Shelf::new());
    let (serving, _) = serve(&phone);
    for (said, admitted) in [("n\n", false), ("yes\n", true)] {
        // As a process with a terminal asks.
        let mut socket = UnixStream::connect(phone.data().join("daemon/socket")).expect("a daemon");
        let request = json!({
            "version": 2, "arguments": ["pair", "--show", "--qr-only", "--json"], "folder": "/", "width": 80,
            "answers": true,
        });
        let send = |socket: &mut UnixStream, bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
            socket.write_all(&[&length, bytes].concat()).expect("it is there");
        };
        send(&mut socket, request.to_string().as_bytes());
        send(&mut socket, b"");
        let next = |socket: &mut UnixStream| {
            let mut head = [0; 5];
            socket.read_exact(&mut head).expect("a frame");
            let [kind, length @ ..] = head;
            let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
            socket.read_exact(&mut bytes).expect("a frame");
            (kind, String::from_utf8(bytes).expect("text"))
        };
        let (_, shown) = next(&mut socket);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let joining = std::thread::scope(|threads| {
            let join = threads.spawn(|| {
                let args = ["pair", "--qr", text(&shown["qr"]), "--key", text(&shown["key"])];
                tablet.command(&args).output().expect("it runs").status.success()
            });
            let (kind, question) = next(&mut socket);
            assert_eq!(kind, 4, "{question}");
            assert!(question.starts_with("Allow phone, "), "{question}");
            send(&mut socket, said.as_bytes());
            join.join().expect("it ends")
        });
        assert_eq!(joining, admitted, "{said:?}");
        let rest: Vec<(u8, String)> = std::iter::from_fn(|| {
            let frame = next(&mut socket);
            (frame.0 != 3).then_some(frame)
        })
        .collect();
        assert_eq!(rest.iter().any(|(kind, _)| *kind == 1), admitted, "{rest:?}");
        assert_eq!(phone.json(&["peers"]).as_array().map_or(0, Vec::len), usize::from(admitted));
    }
    serving.terminate();
}

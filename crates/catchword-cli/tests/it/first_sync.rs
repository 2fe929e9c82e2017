//! The first sync of an empty device: killed on the way, it goes on where it was.

use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::devices::{pair, serve, state, sync, text};
use crate::support::Shelf;

/// How often the receiver is killed.
const KILLS: u64 = 5;
/// In one book. Enough for twice as many pieces as there are kills.
const ANNOTATIONS: u64 = 45_000;
/// Changes that come again after a kill: a piece may be durable in one transaction, and its mark moves
/// in the next.
const PIECE_CHANGES_MAX: u64 = 6_000;
/// The greatest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Passes datagrams on between one device that dials and one that listens, and counts them.
struct Relay {
    address: SocketAddr,
    to_dialler: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    fn to(listening: &str) -> Self {
        let [front, back] = [0; 2].map(|_| Arc::new(UdpSocket::bind("127.0.0.1:0").expect("room")));
        back.connect(listening).expect("an address");
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a duration");
        }
        let address = front.local_addr().expect("it is bound");
        let (to_dialler, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (there, mut threads) = ((Arc::clone(&front), Arc::clone(&back)), Vec::new());
        let ended = Arc::clone(&over);
        threads.push(thread::spawn(move || {
            let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
            while !ended.load(Ordering::SeqCst) {
                let Ok((len, from)) = there.0.recv_from(&mut datagram) else { continue };
                there.0.connect(from).expect("an address");
                // As on any network, what cannot be passed on is lost.
                let _lost = there.1.send(&datagram[..len]);
            }
        }));
        let (ended, counted) = (Arc::clone(&over), Arc::clone(&to_dialler));
        threads.push(thread::spawn(move || {
            let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
            while !ended.load(Ordering::SeqCst) {
                let Ok(len) = back.recv(&mut datagram) else { continue };
                counted.fetch_add(len as u64, Ordering::SeqCst);
                let _lost = front.send(&datagram[..len]);
            }
        }));
        Self { address, to_dialler, over, threads }
    }

    /// How many bytes went to the device that dials.
    fn bytes(&self) -> u64 {
        self.to_dialler.load(Ordering::SeqCst)
    }

    /// Ends, and returns how many bytes went to the device that dials.
    fn end(mut self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("it does not panic");
        }
        self.bytes()
    }
}

/// A whole sync through a relay; returns its report, and how many bytes came.
fn sync_through_relay(shelf: &Shelf, listening: &str) -> (Value, u64) {
    let relay = Relay::to(listening);
    let synced = sync(shelf, &relay.address.to_string());
    (synced, relay.end())
}

/// Begins a sync, kills it as soon as so many bytes came, and returns how many did.
fn sync_until_killed(shelf: &Shelf, listening: &str, bytes: u64) -> u64 {
    let relay = Relay::to(listening);
    let address = relay.address.to_string();
    let mut command = shelf.command(&["sync", "--addr", &address]);
    let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
    while relay.bytes() < bytes {
        assert!(child.try_wait().expect("ours").is_none(), "it ends after {} bytes", relay.bytes());
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("ours");
    child.wait().expect("ours");
    relay.end()
}

fn annotations(shelf: &Shelf) -> u64 {
    let books = shelf.json(&["books"]);
    books[0]["annotations"].as_u64().unwrap_or(0)
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name}: {value}"))
}

#[test]
fn a_first_sync_that_is_killed_five_times_goes_on_where_it_was() {
    let (host, whole, killed) = (Shelf::new(), Shelf::new(), Shelf::new());
    let count = ANNOTATIONS.to_string();
    host.json(&["generate", "--books", "1", "--annotations", &count, "--seed", "3"]);
    let book = text(&host.json(&["books"])[0]["book"]).to_owned();
    host.json(&["read", &book, "--ppm", "700000", "--seconds", "60"]);
    host.json(&["journal", &book, "--set", "long words\n"]);
    host.json(&["tag", &book, "--add", "sea"]);
    pair(&host, &whole);
    pair(&host, &killed);
    let (serving, address) = serve(&host);
    // In one go, to know what it costs.
    let (at_once, all_bytes) = sync_through_relay(&whole, &address);
    assert_eq!(at_once["in_sync"], true, "{at_once}");
    let pieces = number(&at_once, "round_trips") - 1;
    assert!(2 * KILLS <= pieces, "{at_once}");
    let piece_bytes = all_bytes / pieces;

    let (mut bytes, mut held) = (0, 0);
    for _ in 0..KILLS {
        // In the second piece: the first was decided before that was asked for.
        bytes += sync_until_killed(&killed, &address, piece_bytes * 3 / 2);
        let now = annotations(&killed);
        assert!(held < now && now < ANNOTATIONS, "{held}, then {now}");
        held = now;
    }
    let (last, rest) = sync_through_relay(&killed, &address);
    assert_eq!(last["in_sync"], true, "{last}");
    let left = number(&at_once, "changes_received") - held;
    assert!(
        number(&last, "changes_received") <= left + PIECE_CHANGES_MAX,
        "{left} were left: {last}"
    );
    let bytes = bytes + rest;
    // One piece for each kill; begun anew, it would be one and a half.
    let again_max = KILLS * piece_bytes * 5 / 4;
    assert!(bytes <= all_bytes + again_max, "{bytes} bytes, {all_bytes} at once");
    eprintln!("{bytes} bytes with {KILLS} kills, {all_bytes} at once in {pieces} pieces");

    serving.terminate();
    let expected = state(&host, &book);
    for shelf in [&whole, &killed] {
        assert_eq!(state(shelf, &book), expected);
        assert_eq!(shelf.json(&["check"])["clean"], true);
    }
}

#[test]
fn a_second_sync_of_a_thousand_books_is_one_round_trip() {
    let (phone, tablet) = (Shelf::new(), Shelf::new());
    phone.json(&["generate", "--books", "1000", "--annotations", "2", "--seed", "3"]);
    pair(&phone, &tablet);
    let (serving, address) = serve(&phone);
    let first = sync(&tablet, &address);
    assert_eq!((&first["in_sync"], &first["books_changed"]), (&json!(true), &json!(1_000)));
    let second = sync(&tablet, &address);
    serving.terminate();
    assert_eq!((&second["round_trips"], &second["in_sync"]), (&json!(1), &json!(true)));
    assert_eq!(second["changes_sent"], 0);
    assert_eq!(second["changes_received"], 0);
    assert!(number(&second, "bytes_sent") <= 512, "{second}");
    assert!(number(&second, "bytes_received") <= 512, "{second}");
    eprintln!("1,000 books: {second}");
}

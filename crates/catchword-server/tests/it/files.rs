//! Book files: what counts, what is refused, and who sees them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use catchword_model::id::{BookId, sha256};
use catchword_proto::cloud::api::ProblemKind;
use catchword_server::files::{Disk, FILE_BYTES_MAX};

use crate::server::{Client, OPEN, Server};

/// Longer than what is read from the disk at once.
fn text() -> Vec<u8> {
    (0..200_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn path_of(bytes: &[u8]) -> String {
    format!("/v1/files/{}", BookId(sha256(&[bytes])))
}

fn server(folder: &Path, account_bytes_max: u64) -> Server {
    Server::start_with_files(OPEN, Disk::open(folder, account_bytes_max).unwrap())
}

/// Every file below a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let accounts = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = accounts.flat_map(|account| std::fs::read_dir(account).unwrap());
    files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Sends a head and some bytes, and returns the answer; the connection stays open until there is one.
fn raw(client: &Client, path: &str, length: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(client.at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
         {length}\r\n\r\n",
        client.signed_in.token
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    let _cut = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_file_comes_back_as_it_was_whole_or_in_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 1 << 20);
    let anna = server.sign_up("anna");
    let bytes = text();
    let path = path_of(&bytes);
    assert_eq!(anna.get(&path).problem(), ProblemKind::NotFound);
    assert_eq!(anna.call(("PUT", &path), &bytes).status, 201);
    assert_eq!(anna.call(("PUT", &path), &bytes).status, 204, "it is there");
    let whole = anna.get(&path);
    assert_eq!((whole.status, &whole.body), (200, &bytes));
    assert_eq!(whole.headers["accept-ranges"], "bytes");

    let range = |text: &str| anna.try_call(("GET", &path), &[("range", text)], &[]).unwrap();
    for (text, first, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=65535-65537", 65_535, 65_538),
        ("bytes=100000-", 100_000, 200_000),
        ("bytes=-5", 199_995, 200_000),
        ("bytes=199999-999999", 199_999, 200_000),
    ] {
        let reply = range(text);
        assert_eq!((reply.status, reply.body.as_slice()), (206, &bytes[first..end]), "{text}");
        assert_eq!(reply.headers["content-range"], format!("bytes {first}-{}/200000", end - 1));
    }
    assert_eq!(range("bytes=200000-").problem(), ProblemKind::Range);
    assert_eq!(range("bytes=0-1,5-6").body, bytes);

    let empty = path_of(b"");
    assert_eq!(anna.call(("PUT", &empty), b"").status, 201);
    assert_eq!(anna.get(&empty).body, b"");
    assert_eq!(anna.call(("DELETE", &path), &[]).status, 204);
    assert_eq!(anna.call(("DELETE", &path), &[]).problem(), ProblemKind::NotFound);
    assert_eq!(anna.get(&path).problem(), ProblemKind::NotFound);
}

#[test]
fn bytes_that_are_not_those_of_the_name_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 1 << 20);
    let anna = server.sign_up("anna");
    let bytes = text();
    let path = path_of(&bytes);
    let mut other = bytes.clone();
    other[150_000] ^= 1;
    assert_eq!(anna.call(("PUT", &path), &other).problem(), ProblemKind::Digest);
    assert_eq!(anna.call(("PUT", &path), &bytes[1..]).problem(), ProblemKind::Digest);
    // One that goes away in the middle.
    let mut stream = TcpStream::connect(anna.at).unwrap();
    let token = &anna.signed_in.token;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[..100_000]).unwrap();
    let mut seen = false;
    for _ in 0..200 {
        seen |= names(folder.path()).iter().any(|name| name.contains(".part"));
        if seen {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(seen, "it is on its way");
    assert_eq!(anna.get(&path).problem(), ProblemKind::NotFound);
    assert_eq!(anna.call(("PUT", &path), &bytes).problem(), ProblemKind::SlowDown, "one at a time");
    drop(stream);
    for _ in 0..1_000 {
        if names(folder.path()).is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(names(folder.path()), [""; 0]);
    assert_eq!(anna.call(("PUT", &path), &bytes).status, 201);
    assert_eq!(names(folder.path()).len(), 1);
}

#[test]
fn lengths_and_room_have_limits() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 1_000);
    let anna = server.sign_up("anna");
    let (small, large) = (vec![1; 400], vec![2; 600]);
    let one_more = vec![3; 601];
    let too_long = format!("content-length: {}", FILE_BYTES_MAX + 1);
    let longest = format!("content-length: {FILE_BYTES_MAX}");
    for (length, status) in [
        (too_long.as_str(), "HTTP/1.1 413"),
        (&longest, "HTTP/1.1 507"),
        ("transfer-encoding: chunked", "HTTP/1.1 400"),
        ("content-length: -1", "HTTP/1.1 400"),
        ("content-length: 99999999999999999999999", "HTTP/1.1 400"),
        ("content-length: 1\r\ncontent-length: 2", "HTTP/1.1 400"),
    ] {
        let answer = raw(&anna, &path_of(&small), length, b"");
        assert!(answer.starts_with(status), "{length}: {answer}");
    }
    assert_eq!(anna.call(("PUT", &path_of(&small)), &small).status, 201);
    let reply = anna.call(("PUT", &path_of(&one_more)), &one_more);
    assert_eq!(reply.problem(), ProblemKind::Full, "601 bytes where 600 are left");
    assert_eq!(anna.call(("PUT", &path_of(&large)), &large).status, 201);
    assert_eq!(anna.call(("PUT", &path_of(b"x")), b"x").problem(), ProblemKind::Full);
    assert_eq!(anna.call(("DELETE", &path_of(&small)), &[]).status, 204);
    assert_eq!(anna.call(("PUT", &path_of(b"x")), b"x").status, 201, "there is room again");

    for name in ["x", "..%2f..%2fcloud.redb", &"A".repeat(64), &"a".repeat(63)] {
        for method in ["PUT", "GET", "DELETE"] {
            let reply = anna.call((method, &format!("/v1/files/{name}")), b"");
            assert_eq!(reply.problem(), ProblemKind::NotFound, "{method} {name}");
        }
    }
}

#[test]
fn an_account_does_not_learn_what_another_has() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 1 << 20);
    let (anna, bert) = (server.sign_up("anna"), server.sign_up("bert"));
    let bytes = text();
    let path = path_of(&bytes);
    assert_eq!(anna.call(("PUT", &path), &bytes).status, 201);
    for method in ["GET", "DELETE"] {
        assert_eq!(bert.call((method, &path), &[]).problem(), ProblemKind::NotFound);
    }
    assert_eq!(bert.call(("PUT", &path), &[]).problem(), ProblemKind::Digest);
    assert_eq!(bert.call(("PUT", &path), &bytes).status, 201, "as if it were nowhere");
    assert_eq!(anna.call(("DELETE", &path), &[]).status, 204);
    assert_eq!(bert.get(&path).body, bytes);

    let nobody = Client { at: server.at, signed_in: bert.signed_in.clone() };
    let token = nobody.signed_in.token.replace("cw1.", "cw1.A");
    for method in ["PUT", "GET", "DELETE"] {
        let headers = [("authorization", token.as_str())];
        let reply = crate::server::call(server.at, (method, &path), &headers, b"").unwrap();
        assert_eq!(reply.problem(), ProblemKind::Unauthorized);
    }
}

#[test]
fn without_a_folder_there_are_no_files() {
    let server = Server::start(OPEN);
    let anna = server.sign_up("anna");
    for method in ["PUT", "GET", "DELETE"] {
        let reply = anna.call((method, &path_of(b"x")), b"x");
        assert_eq!(reply.problem(), ProblemKind::NotFound, "{method}");
    }
}

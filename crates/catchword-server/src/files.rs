//! `/v1/files/{sha256}`: a backup of book files, where whoever runs the server allows it.
//!
//! A file comes whole or not at all, and is there when it has the bytes that its name says. Whoever does
//! not have a file in the own account learns nothing about it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use catchword_model::id::BookId;
use catchword_proto::cloud::api::{AccountId, ProblemKind};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use self::disk::Upload;
use crate::app::{App, Shared, admit};
use crate::auth::fill;
use crate::problem::Refusal;

mod disk;

pub use disk::Disk;

/// The longest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// How long a file may take.
pub(crate) const FILE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a part of it may take.
const PART_MAX: Duration = Duration::from_secs(10);
/// Parts that wait for the disk.
const PARTS_MAX: usize = 4;
/// What is read from the disk at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// When somebody else of the account uploads: try again after this, in milliseconds.
const UPLOAD_RETRY_MS: u64 = 1_000;

/// Files, and who uploads one now.
#[derive(Debug)]
pub(crate) struct Files {
    disk: Disk,
    uploading: Arc<Mutex<BTreeSet<AccountId>>>,
}

impl Files {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk, uploading: Arc::default() }
    }

    /// Lets one upload of an account begin: what fits is counted before.
    fn begin(&self, account: AccountId) -> Option<Uploading> {
        let mut uploading = self.uploading.lock().unwrap_or_else(PoisonError::into_inner);
        let first = uploading.insert(account);
        first.then(|| Uploading { account, all: Arc::clone(&self.uploading) })
    }
}

struct Uploading {
    account: AccountId,
    all: Arc<Mutex<BTreeSet<AccountId>>>,
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.account);
    }
}

fn files(app: &App) -> Result<&Files, Refusal> {
    app.files.as_ref().ok_or(ProblemKind::NotFound.into())
}

fn failed(error: &io::Error) -> Refusal {
    tracing::error!(%error, "a file cannot be kept or read");
    ProblemKind::Failed.into()
}

/// Does what waits for the disk where nobody else waits.
async fn on_disk<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    let disk = files(app)?.disk.clone();
    let done = tokio::task::spawn_blocking(move || work(&disk)).await;
    done.map_err(|_| ProblemKind::Failed)?.map_err(|error| failed(&error))
}

pub(crate) async fn put(
    State(app): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let (caller, _permit) = admit(&app, &headers).await?;
    let account = caller.account;
    let file: BookId = name.parse().map_err(|_| ProblemKind::NotFound)?;
    let uploading = files(&app)?.begin(account).ok_or(Refusal::later(UPLOAD_RETRY_MS))?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length: u64 = length.and_then(|text| text.parse().ok()).ok_or(ProblemKind::Malformed)?;
    if FILE_BYTES_MAX < length {
        return Err(ProblemKind::TooLarge.into());
    }
    if on_disk(&app, move |disk| disk.find(account, file)).await?.is_some() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if !on_disk(&app, move |disk| disk.has_room(account, length)).await? {
        return Err(ProblemKind::Full.into());
    }
    let mut chance = [0; 16];
    fill(&mut chance)?;
    let (sender, chunks) = mpsc::channel(PARTS_MAX);
    let disk = files(&app)?.disk.clone();
    // The next one may begin when this is over, also where nobody waits for it any more.
    let keeping = tokio::task::spawn_blocking(move || {
        let kept = disk.keep((account, file), chance, chunks);
        drop(uploading);
        kept
    });
    send_all(body, sender).await?;
    let kept = keeping.await.map_err(|_| ProblemKind::Failed)?;
    match kept.map_err(|error| failed(&error))? {
        Upload::Kept => Ok(StatusCode::CREATED.into_response()),
        Upload::Other => Err(ProblemKind::Digest.into()),
        Upload::Full => Err(ProblemKind::Full.into()),
    }
}

/// Hands a body to the disk, part by part.
async fn send_all(mut body: Body, to: mpsc::Sender<Bytes>) -> Result<(), Refusal> {
    loop {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let next = tokio::time::timeout(PART_MAX, next).await.map_err(|_| ProblemKind::Slow)?;
        let Some(frame) = next else { return Ok(()) };
        let frame = frame.map_err(|_| ProblemKind::Malformed)?;
        let Ok(bytes) = frame.into_data() else { continue };
        if to.send(bytes).await.is_err() {
            // The disk has had enough, and says why.
            return Ok(());
        }
    }
}

pub(crate) async fn get(
    State(app): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let (caller, permit) = admit(&app, &headers).await?;
    let file: BookId = name.parse().map_err(|_| ProblemKind::NotFound)?;
    let found = on_disk(&app, move |disk| disk.find(caller.account, file)).await?;
    let (mut from, length) = found.ok_or(ProblemKind::NotFound)?;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let range = range.map_or(Range::Whole, |text| Range::read(text, length));
    let (status, first, end) = match range {
        Range::Whole => (StatusCode::OK, 0, length),
        Range::Part { first, end } => (StatusCode::PARTIAL_CONTENT, first, end),
        Range::Beyond => return Err(ProblemKind::Range.into()),
    };
    from.seek(SeekFrom::Start(first)).map_err(|error| failed(&error))?;
    let body = Reading { state: Some(ReadState::Idle(from)), left: end - first, _permit: permit };
    let mut response = (status, Body::new(body)).into_response();
    let to = response.headers_mut();
    to.insert(header::CONTENT_LENGTH, HeaderValue::from(end - first));
    to.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    to.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let text = |text: String| HeaderValue::try_from(text).map_err(|_| ProblemKind::Failed);
    to.insert(header::ETAG, text(format!("\"{file}\""))?);
    if status == StatusCode::PARTIAL_CONTENT {
        let last = end.saturating_sub(1);
        to.insert(header::CONTENT_RANGE, text(format!("bytes {first}-{last}/{length}"))?);
    }
    Ok(response)
}

pub(crate) async fn delete(
    State(app): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let (caller, _permit) = admit(&app, &headers).await?;
    let file: BookId = name.parse().map_err(|_| ProblemKind::NotFound)?;
    let there = on_disk(&app, move |disk| disk.remove(caller.account, file)).await?;
    if there {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(ProblemKind::NotFound.into())
    }
}

/// Which bytes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// All of them: nothing else was said, or nothing that this server reads.
    Whole,
    /// From one up to another.
    Part { first: u64, end: u64 },
    /// None that there are.
    Beyond,
}

impl Range {
    /// Reads one range of bytes. Several at once are answered with everything, as is allowed.
    fn read(text: &str, length: u64) -> Self {
        let range = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'));
        let Some((first, last)) = range else { return Self::Whole };
        let (first, last) = (first.trim(), last.trim());
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
            return Self::Whole;
        }
        // What is too large for a number is beyond every file.
        let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
        let (first, end) = match (first, last) {
            ("", count) => (length.saturating_sub(number(count)), length),
            (first, "") => (number(first), length),
            (first, last) if number(last) < number(first) => return Self::Whole,
            (first, last) => (number(first), number(last).saturating_add(1).min(length)),
        };
        if first < end { Self::Part { first, end } } else { Self::Beyond }
    }
}

/// A file on its way to a client, a chunk at a time.
struct Reading {
    state: Option<ReadState>,
    left: u64,
    _permit: OwnedSemaphorePermit,
}

enum ReadState {
    Idle(File),
    Busy(JoinHandle<io::Result<(File, Vec<u8>)>>),
}

impl hyper::body::Body for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut busy = match self.state.take() {
            // A file that failed once, or a whole one.
            None => return Poll::Ready(None),
            Some(ReadState::Idle(_)) if self.left == 0 => return Poll::Ready(None),
            Some(ReadState::Idle(file)) => {
                let bytes = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                tokio::task::spawn_blocking(move || read(file, bytes))
            }
            Some(ReadState::Busy(busy)) => busy,
        };
        let Poll::Ready(done) = Pin::new(&mut busy).poll(context) else {
            self.state = Some(ReadState::Busy(busy));
            return Poll::Pending;
        };
        let (file, bytes) = match done.map_err(io::Error::other).flatten() {
            Ok(read) => read,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        self.left -= bytes.len() as u64;
        self.state = Some(ReadState::Idle(file));
        Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
    }
}

fn read(mut file: File, bytes: usize) -> io::Result<(File, Vec<u8>)> {
    let mut chunk = vec![0; bytes];
    file.read_exact(&mut chunk)?;
    Ok((file, chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_and_what_is_none_is_the_whole_file() {
        let part = |first, end| Range::Part { first, end };
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-4", part(2, 5)),
            ("bytes=2-", part(2, 10)),
            ("bytes=9-99", part(9, 10)),
            ("bytes=0-18446744073709551615", part(0, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-99999999999999999999", part(0, 10)),
            ("bytes=10-", Range::Beyond),
            ("bytes=99999999999999999999-", Range::Beyond),
            ("bytes=-0", Range::Beyond),
            ("bytes=5-4", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("lines=0-1", Range::Whole),
        ];
        for (text, expected) in cases {
            assert_eq!(Range::read(text, 10), expected, "{text}");
        }
        assert_eq!(Range::read("bytes=0-", 0), Range::Beyond);
    }
}

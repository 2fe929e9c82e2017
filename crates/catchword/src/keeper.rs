//! What has to happen some time after a write although nobody calls: publishing page turns after a
//! minute, and moving what waits into the rows after a second of quiet.
//!
//! # Invariants
//!
//! 1. Nothing durable depends on the keeper: what it has not done is done by the next write, or at the
//!    next start.
//! 2. Its thread ends before the library is closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use catchword_model::id::BookId;

use crate::library::Core;

/// How long page turns wait before they become a change.
pub const PUBLISH_AFTER: Duration = Duration::from_secs(60);
/// How long nothing is written before what waits is moved into the rows.
const DRAIN_AFTER: Duration = Duration::from_secs(1);

/// Watches the deadlines of one library.
#[derive(Debug)]
pub(crate) struct Keeper {
    watch: Arc<Watch>,
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Watch {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Due {
    drain: Option<Instant>,
    publish: BTreeMap<BookId, Instant>,
    ended: bool,
}

/// What a deadline asks for.
#[derive(Debug, PartialEq, Eq)]
enum Duty {
    Drain,
    Publish(BookId),
}

impl Keeper {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { watch: Arc::default(), core, thread: Mutex::new(None) }
    }

    /// Notes that something was written.
    pub(crate) fn written(&self) {
        let mut due = self.watch.lock();
        let idle = due.drain.is_none();
        due.drain = Some(Instant::now() + DRAIN_AFTER);
        drop(due);
        // While a deadline stands the thread looks again by itself when it comes.
        if idle {
            self.wake();
        }
    }

    /// Notes that a page was turned. The first turn since the last publication decides when.
    pub(crate) fn turned(&self, book: BookId) {
        let mut due = self.watch.lock();
        due.publish.entry(book).or_insert_with(|| Instant::now() + PUBLISH_AFTER);
        drop(due);
        self.wake();
    }

    /// Notes that the turns of a book were published.
    pub(crate) fn published(&self, book: BookId) {
        self.watch.lock().publish.remove(&book);
    }

    fn wake(&self) {
        self.watch.changed.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (watch, core) = (Arc::clone(&self.watch), Arc::clone(&self.core));
            let spawned = thread::Builder::new().name("catchword-keeper".to_owned());
            // Without a thread everything happens later: see invariant 1.
            *thread = spawned.spawn(move || watch.keep(&core)).ok();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.watch.lock().ended = true;
        self.watch.changed.notify_all();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A keeper that panicked has written nothing by halves.
            let _ended = thread.join();
        }
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, core: &Core) {
        let mut due = self.lock();
        while !due.ended {
            let now = Instant::now();
            if let Some(duty) = due.take(now) {
                drop(due);
                carry_out(core, &duty);
                due = self.lock();
                continue;
            }
            due = match due.next() {
                Some(next) => {
                    let rest = next.saturating_duration_since(now);
                    let woken = self.changed.wait_timeout(due, rest);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(due).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Due {
    fn next(&self) -> Option<Instant> {
        self.publish.values().copied().chain(self.drain).min()
    }

    fn take(&mut self, now: Instant) -> Option<Duty> {
        let publish = self.publish.iter().find(|(_, due)| **due <= now).map(|(book, _)| *book);
        if let Some(book) = publish {
            self.publish.remove(&book);
            return Some(Duty::Publish(book));
        }
        self.drain.take_if(|due| *due <= now).map(|_| Duty::Drain)
    }
}

fn carry_out(core: &Core, duty: &Duty) {
    // What fails is kept, and the next write of the application says so.
    match duty {
        Duty::Drain => drop(core.store.drain()),
        Duty::Publish(book) => drop(core.publish(*book)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duty_is_due_once_and_not_before_its_time() {
        let start = Instant::now();
        let book = BookId([1; 32]);
        let mut due = Due { drain: Some(start + DRAIN_AFTER), ..Due::default() };
        due.publish.insert(book, start + PUBLISH_AFTER);

        assert_eq!(due.take(start), None);
        assert_eq!(due.next(), Some(start + DRAIN_AFTER));
        assert_eq!(due.take(start + DRAIN_AFTER), Some(Duty::Drain));
        assert_eq!(due.take(start + DRAIN_AFTER), None);
        assert_eq!(due.take(start + PUBLISH_AFTER), Some(Duty::Publish(book)));
        assert_eq!(due.next(), None);
    }
}

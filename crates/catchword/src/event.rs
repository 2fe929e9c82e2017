//! What applications are told: typed events, through subscriptions that never hold a writer up.
//!
//! # Invariants
//!
//! 1. An event is sent after what it tells of is durable.
//! 2. A subscriber sees events in the order in which the writes were made.
//! 3. A subscriber that does not read loses the newest events, not the writer's time, and is told how
//!    many.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use catchword_model::id::{AnnotationId, BookId, ShelfId};
use catchword_model::identity::Fingerprint;

/// Events that wait for one subscriber; what comes above is counted and dropped.
pub const EVENTS_WAITING_MAX: usize = 1_024;

/// Something has changed, and is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A book was added, or came back after it had been removed.
    BookAdded {
        /// Which book.
        book: BookId,
    },
    /// A book was removed from this device.
    BookRemoved {
        /// Which book.
        book: BookId,
    },
    /// Title, authors or other things known about a book have changed.
    MetadataChanged {
        /// Which book.
        book: BookId,
    },
    /// The place in a book has moved.
    PlaceMoved {
        /// Which book.
        book: BookId,
        /// Where it is now, in parts per million.
        ppm: u32,
        /// Which reading of the book.
        pass: u32,
    },
    /// An annotation was made.
    AnnotationAdded {
        /// In which book.
        book: BookId,
        /// Which annotation.
        id: AnnotationId,
    },
    /// A field of an annotation was changed, or it came back after a deletion.
    AnnotationChanged {
        /// In which book.
        book: BookId,
        /// Which annotation.
        id: AnnotationId,
    },
    /// An annotation was deleted.
    AnnotationRemoved {
        /// In which book.
        book: BookId,
        /// Which annotation.
        id: AnnotationId,
    },
    /// The tags of a book have changed.
    TagsChanged {
        /// Which book.
        book: BookId,
    },
    /// The journal of a book has changed.
    JournalChanged {
        /// Which book.
        book: BookId,
    },
    /// The application's own data of a book have changed.
    AppDataChanged {
        /// Which book.
        book: BookId,
    },
    /// A shelf was made, named, filled, emptied or deleted.
    ShelfChanged {
        /// Which shelf.
        shelf: ShelfId,
    },
    /// A paired device was paired, deactivated or forgotten, or its state changed otherwise.
    PeerChanged {
        /// Which device.
        peer: Fingerprint,
    },
    /// Somebody else came in the name of a paired device. Nothing was sent to him, and the device is
    /// deactivated until the person decides: pair again, or go on trusting the pinned certificate.
    Impostor {
        /// In whose name: its pinned certificate.
        peer: Fingerprint,
        /// The certificate that was shown instead.
        presented: Fingerprint,
    },
    /// The clock of a paired device is off by more than a minute. Nothing is refused because of it.
    ClockSkew {
        /// Which device.
        peer: Fingerprint,
        /// How far it is ahead of this one's, in milliseconds.
        by_ms: i64,
    },
    /// Events were dropped, because this subscriber did not read them. Read everything anew.
    Missed {
        /// How many.
        count: u64,
    },
}

impl Event {
    /// Returns whether it tells of a paired device, and not of what the library holds.
    #[cfg(feature = "net")]
    pub(crate) const fn is_about_a_peer(&self) -> bool {
        matches!(self, Self::PeerChanged { .. } | Self::Impostor { .. } | Self::ClockSkew { .. })
    }
}

/// A stream of [`Event`]s. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
}

/// The subscribers of one library.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    queues: Mutex<Vec<Weak<Queue>>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    missed: u64,
    ended: bool,
}

impl Subscription {
    /// Returns the next event if there is one now.
    pub fn try_next(&self) -> Option<Event> {
        self.queue.lock().take()
    }

    /// Waits for the next event, at most as long as `timeout`.
    pub fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now() + timeout;
        let mut waiting = self.queue.lock();
        loop {
            if let Some(event) = waiting.take() {
                return Some(event);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if waiting.ended || rest.is_zero() {
                return None;
            }
            let woken = self.queue.changed.wait_timeout(waiting, rest);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Waits for each event; ends when the library is closed.
impl Iterator for Subscription {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut waiting = self.queue.lock();
        loop {
            if let Some(event) = waiting.take() {
                return Some(event);
            }
            if waiting.ended {
                return None;
            }
            let woken = self.queue.changed.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Subscribers {
    pub(crate) fn subscribe(&self) -> Subscription {
        let queue = Arc::new(Queue::default());
        self.lock().push(Arc::downgrade(&queue));
        Subscription { queue }
    }

    pub(crate) fn send(&self, event: &Event) {
        self.lock().retain(|queue| match queue.upgrade() {
            Some(queue) => {
                queue.lock().put(event.clone());
                queue.changed.notify_all();
                true
            }
            None => false,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        for queue in self.lock().iter().filter_map(Weak::upgrade) {
            queue.lock().ended = true;
            queue.changed.notify_all();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Once an event was missed, all are until the subscriber has read what waits: it must read
    /// everything anew anyway, and an order with a gap in the middle would mislead it.
    fn put(&mut self, event: Event) {
        if 0 < self.missed || EVENTS_WAITING_MAX <= self.events.len() {
            self.missed = self.missed.saturating_add(1);
        } else {
            self.events.push_back(event);
        }
    }

    fn take(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let count = std::mem::take(&mut self.missed);
        (0 < count).then_some(Event::Missed { count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(n: u8) -> Event {
        Event::BookAdded { book: BookId([n; 32]) }
    }

    #[test]
    fn every_subscriber_sees_events_in_order() {
        let subscribers = Subscribers::default();
        let (one, two) = (subscribers.subscribe(), subscribers.subscribe());
        subscribers.send(&added(1));
        subscribers.send(&added(2));

        for subscription in [one, two] {
            assert_eq!(subscription.try_next(), Some(added(1)));
            assert_eq!(subscription.next_timeout(Duration::from_secs(60)), Some(added(2)));
            assert_eq!(subscription.try_next(), None);
        }
    }

    #[test]
    fn a_subscriber_that_does_not_read_is_told_how_much_it_missed() {
        let subscribers = Subscribers::default();
        let subscription = subscribers.subscribe();
        for _ in 0..EVENTS_WAITING_MAX + 3 {
            subscribers.send(&added(1));
        }
        for _ in 0..EVENTS_WAITING_MAX {
            assert_eq!(subscription.try_next(), Some(added(1)));
        }
        assert_eq!(subscription.try_next(), Some(Event::Missed { count: 3 }));

        subscribers.send(&added(2));
        assert_eq!(subscription.try_next(), Some(added(2)));
    }

    #[test]
    fn a_subscription_ends_with_its_library_and_not_before_the_last_event() {
        let subscribers = Subscribers::default();
        let subscription = subscribers.subscribe();
        subscribers.send(&added(1));
        drop(subscribers);
        assert_eq!(subscription.collect::<Vec<_>>(), [added(1)]);
    }

    #[test]
    fn a_subscription_that_was_dropped_is_forgotten() {
        let subscribers = Subscribers::default();
        drop(subscribers.subscribe());
        subscribers.send(&added(1));
        assert!(subscribers.lock().is_empty());
    }
}

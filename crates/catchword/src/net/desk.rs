//! One thread that asks the store, for all connections of a node.
//!
//! The store answers one at a time anyway. A thread of its own keeps what a piece needs in memory in
//! one place: on whatever thread is free, each would keep as much for itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Something to be done.
type Work = Box<dyn FnOnce() + Send>;

/// The thread. It ends when nothing is left to do and this is dropped.
#[derive(Debug)]
pub(crate) struct Desk {
    sender: Mutex<Sender<Work>>,
}

impl Default for Desk {
    fn default() -> Self {
        let (sender, receiver) = channel();
        // Without a thread all work is dropped, and whoever waits for it hears of that.
        let _started = thread::Builder::new()
            .name("catchword-desk".to_owned())
            .spawn(move || work_through(&receiver));
        Self { sender: Mutex::new(sender) }
    }
}

impl Desk {
    /// Has something done after everything that was put here before.
    pub(crate) fn put(&self, work: impl FnOnce() + Send + 'static) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not taken is dropped, and whoever waits for it hears of that.
        let _taken = sender.send(Box::new(work));
    }
}

fn work_through(receiver: &Receiver<Work>) {
    for work in receiver {
        // Work that fails harms nobody else's.
        let _failed = catch_unwind(AssertUnwindSafe(work));
    }
}

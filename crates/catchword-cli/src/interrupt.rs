//! Ctrl-C: the first asks a long command to stop at the next safe place, the second ends the
//! process.
//!
//! Both lose nothing that was acknowledged: the first because work stops between transactions, the
//! second because what was acknowledged is on the disk.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Exit, Failure};

/// Whether somebody asked the process to stop. Cheap to clone; all clones say the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over Ctrl-C, and the polite signal to terminate, for the rest of the process.
    ///
    /// To be called once, by a command that polls [`is_asked`](Self::is_asked).
    pub(crate) fn install() -> Result<Self, Failure> {
        let interrupt = Self::default();
        let asked = Arc::clone(&interrupt.asked);
        let handler = move || {
            if asked.swap(true, Ordering::SeqCst) {
                std::process::exit(Exit::Failed.code().into());
            }
        };
        ctrlc::set_handler(handler).map_err(|error| Failure::new(Exit::Failed, error, ""))?;
        Ok(interrupt)
    }

    /// Asks to stop at the next safe place.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Returns whether to stop at the next safe place.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Says to long work whether it goes on.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        if self.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Makes the failure of a command that was stopped; `done` says how far it came.
pub(crate) fn stopped(done: &str) -> Failure {
    Failure::message(
        Exit::Failed,
        format_args!("stopped: {done}"),
        "what was done is kept; run the command again to go on",
    )
}

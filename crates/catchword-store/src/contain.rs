//! What becomes of a panic of redb: an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{LoadError, OpenError};

/// redb stopped over something it did not expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the database stopped over what it read")]
pub(crate) struct Stopped;

/// Calls redb. What `call` writes to must not be written again after a panic: the caller gives it up.
pub(crate) fn contained<T, E: From<Stopped>>(call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // Nothing of ours stays half changed: what `call` owns is dropped, and what it borrows given up.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(Stopped.into()))
}

impl From<Stopped> for LoadError {
    fn from(stopped: Stopped) -> Self {
        Self::Corrupt { detail: stopped.to_string() }
    }
}

impl From<Stopped> for OpenError {
    fn from(stopped: Stopped) -> Self {
        Self::Corrupt { detail: stopped.to_string() }
    }
}

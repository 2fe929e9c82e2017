//! What long work tells while it runs, and how it is asked to stop.

use std::ops::ControlFlow;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading the log and verifying it.
    Reading,
    /// Comparing tables with what the log says.
    Comparing,
    /// Writing what was rebuilt.
    Rebuilding,
    /// Packing changes into blocks.
    Packing,
    /// Copying the library, or book files.
    Copying,
}

/// How far long work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// How much of it is done.
    pub done: u64,
    /// How much there is, as far as that is known.
    pub total: u64,
}

/// How long work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// All of it is done.
    #[default]
    Finished,
    /// It was asked to stop. What is done stays done.
    Stopped,
}

/// Is told how far the work has come, and says whether it goes on.
///
/// It must not call the store: the library may be locked.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

//! Undoing and redoing this device's own edits of a book, since the library was opened.
//!
//! An undo is a new edit that writes what was there before. It travels and merges like any other,
//! and so never takes back what another device wrote meanwhile in another field.

use catchword_model::edit::Edit;

/// Steps of one book that can be undone; older ones are forgotten.
pub const UNDO_STEPS_MAX: usize = 100;

/// One edit, and what takes it back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) undo: Vec<Edit>,
    pub(crate) redo: Vec<Edit>,
}

/// The steps of one book.
#[derive(Debug, Default)]
pub(crate) struct UndoStack {
    done: Vec<Step>,
    undone: Vec<Step>,
}

impl UndoStack {
    /// Notes an edit. What was undone before cannot be redone any more.
    pub(crate) fn note(&mut self, step: Step) {
        self.undone.clear();
        self.done.push(step);
        if UNDO_STEPS_MAX < self.done.len() {
            self.done.remove(0);
        }
    }

    /// Returns the step to be undone next.
    pub(crate) fn next_undo(&self) -> Option<Step> {
        self.done.last().cloned()
    }

    /// Returns the step to be redone next.
    pub(crate) fn next_redo(&self) -> Option<Step> {
        self.undone.last().cloned()
    }

    /// Notes that the next step was undone.
    pub(crate) fn undone(&mut self) {
        self.undone.extend(self.done.pop());
    }

    /// Notes that the next step was redone.
    pub(crate) fn redone(&mut self) {
        self.done.extend(self.undone.pop());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(tag: &str) -> Step {
        let tag = tag.to_owned();
        Step { undo: vec![Edit::RemoveTag { tag: tag.clone() }], redo: vec![Edit::AddTag { tag }] }
    }

    #[test]
    fn a_new_edit_forgets_what_could_be_redone() {
        let mut stack = UndoStack::default();
        stack.note(step("a"));
        stack.undone();
        assert_eq!(stack.next_redo(), Some(step("a")));

        stack.note(step("b"));
        assert_eq!(stack.next_redo(), None);
        assert_eq!(stack.next_undo(), Some(step("b")));
    }

    #[test]
    fn the_oldest_steps_are_forgotten() {
        let mut stack = UndoStack::default();
        (0..=UNDO_STEPS_MAX).for_each(|n| stack.note(step(&n.to_string())));
        for n in (1..=UNDO_STEPS_MAX).rev() {
            assert_eq!(stack.next_undo(), Some(step(&n.to_string())));
            stack.undone();
        }
        assert_eq!(stack.next_undo(), None);
    }
}

//! What goes to the terminal: tables and text for people, one JSON value for programs, progress bars
//! on standard error.
//!
//! # Invariants
//!
//! 1. With `--json`, standard output gets exactly one JSON value and a line feed, or nothing; where
//!    reading fails in the middle of a long list the value is cut off, and the exit code says so.
//! 2. Text that came from a book file or another device reaches a terminal without control
//!    characters, so that it cannot move the cursor or change what was printed before.
//! 3. A progress bar is drawn only where standard error is a terminal.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use console::{measure_text_width, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::terminal::Terminal;

/// Narrowest a column is made, in characters.
const COLUMN_WIDTH_MIN: usize = 12;
/// Space between two columns.
const GAP: &str = "  ";
/// What is collected before it is written, in bytes: a long list is written while it is read.
const JSON_BUFFER_BYTES: usize = 64 << 10;
/// How often a bar is drawn at most, in times per second.
const DRAWS_PER_SECOND: u8 = 8;

/// Where a command prints to, and in which form.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    terminal: Terminal,
}

impl Output {
    /// Prints to a terminal, or what stands for one.
    pub(crate) const fn new(json: bool, terminal: Terminal) -> Self {
        Self { json, terminal }
    }

    /// Returns whether a program reads what is printed.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Returns where it prints to.
    pub(crate) const fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// Prints the outcome of the command: `value` for programs, what `write` makes for people.
    pub(crate) fn print(
        &self,
        value: &impl Serialize,
        write: impl FnOnce(&mut Page),
    ) -> Result<(), Failure> {
        if self.json {
            return self.send_json(value);
        }
        let mut page = Page { text: String::new(), width: self.terminal.width() };
        write(&mut page);
        self.send(&page.text)
    }

    /// Prints a line for people at once, while the command goes on. Nothing with `--json`.
    pub(crate) fn say(&self, line: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.send(&format!("{line}\n")) }
    }

    /// Prints several lines for people at once, while the command goes on. Nothing with `--json`.
    pub(crate) fn say_page(&self, write: impl FnOnce(&mut Page)) -> Result<(), Failure> {
        let mut page = Page { text: String::new(), width: self.terminal.width() };
        write(&mut page);
        if self.json { Ok(()) } else { self.send(&page.text) }
    }

    /// Prints one JSON value at once, while the command goes on. Nothing without `--json`.
    pub(crate) fn tell(&self, value: &impl Serialize) -> Result<(), Failure> {
        if self.json { self.send_json(value) } else { Ok(()) }
    }

    /// Prints a warning or a failure to standard error.
    pub(crate) fn complain(&self, message: &str) {
        self.terminal.complain(message);
    }

    /// Returns standard input.
    pub(crate) fn input(&self) -> Box<dyn io::BufRead + '_> {
        self.terminal.input()
    }

    /// Starts a bar for `total` steps; nothing is shown unless standard error is a terminal.
    pub(crate) fn progress(&self, what: &'static str, total: u64) -> Progress {
        let target = if self.terminal.shows_progress() {
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}  {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress { bar }
    }

    fn send(&self, text: &str) -> Result<(), Failure> {
        let mut out = &self.terminal;
        unless_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }

    /// Writes the value as it is serialized: what a list reads one by one is never in memory as a whole.
    fn send_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut out = io::BufWriter::with_capacity(JSON_BUFFER_BYTES, &self.terminal);
        match serde_json::to_writer(&mut out, value) {
            Ok(()) => unless_closed(out.write_all(b"\n").and_then(|()| out.flush())),
            Err(error) if error.is_io() => unless_closed(Err(error.into())),
            Err(error) => Err(Failure::new(Exit::Failed, error, "")),
        }
    }
}

/// A reader that closed its end has seen what it wanted: that is no failure.
fn unless_closed(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Text for people, in the making.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    width: Option<usize>,
}

impl Page {
    /// Adds a line as it is.
    pub(crate) fn line(&mut self, line: impl std::fmt::Display) {
        let written = writeln!(self.text, "{line}");
        debug_assert!(written.is_ok(), "a string takes every line");
    }

    /// Adds a line that starts with a label, for lists of properties.
    pub(crate) fn property(&mut self, label: &str, value: impl std::fmt::Display) {
        self.line(format_args!("{label:<12}{value}"));
    }

    /// Adds a long text: line feeds and tabs stay, other control characters go.
    pub(crate) fn paragraph(&mut self, text: &str) {
        for line in text.lines() {
            let kept: String = line.chars().filter(|c| *c == '\t' || !is_harmful(*c)).collect();
            self.line(kept);
        }
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, table: &Table) {
        table.write(&mut self.text, self.width);
    }
}

/// One column of a [`Table`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    align: Align,
    /// Whether the column may be cut when the terminal is too narrow.
    cut: Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    IfNarrow,
}

impl Column {
    /// Makes a column of words, always shown in full.
    pub(crate) const fn word(title: &'static str) -> Self {
        Self { title, align: Align::Left, cut: Cut::Never }
    }

    /// Makes a column of text that is cut where the terminal is too narrow.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, align: Align::Left, cut: Cut::IfNarrow }
    }

    /// Makes a column of numbers.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, align: Align::Right, cut: Cut::Never }
    }
}

/// Rows under a line of titles, aligned.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Makes a table without rows.
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row, one cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells.map(|cell| plain(&cell)).into());
    }

    fn write(&self, out: &mut String, width: Option<usize>) {
        let widths = self.widths(width);
        let titles: Vec<String> =
            self.columns.iter().map(|column| column.title.to_owned()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let cell = truncate_str(cell, *width, "…");
                let space = " ".repeat(width.saturating_sub(measure_text_width(&cell)));
                match column.align {
                    Align::Left => line.extend([&*cell, &space, GAP]),
                    Align::Right => line.extend([&*space, &cell, GAP]),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }

    /// Returns the width of each column; those that may be cut share what is too much.
    fn widths(&self, terminal: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> =
            self.columns.iter().map(|column| measure_text_width(column.title)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(measure_text_width(cell));
            }
        }
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        let Some(room) = terminal.map(|terminal| terminal.saturating_sub(gaps)) else {
            return widths;
        };
        while room < widths.iter().sum() {
            let widest = widths
                .iter_mut()
                .zip(&self.columns)
                .filter(|(width, column)| column.cut == Cut::IfNarrow && COLUMN_WIDTH_MIN < **width)
                .max_by_key(|(width, _)| **width);
            match widest {
                Some((width, _)) => *width -= 1,
                None => break,
            }
        }
        widths
    }
}

/// Writes text on one line without control characters.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { ' ' } else { c }).collect()
}

/// Control characters, and those that turn the direction of writing for the rest of the line.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Writes parts per million as a percentage with one decimal, rounded down.
pub(crate) fn percent(ppm: u32) -> String {
    format!("{}.{} %", ppm / 10_000, ppm / 1_000 % 10)
}

/// Writes a count with its noun: `1 book`, `2 books`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Writes a size in bytes with its unit, rounded down: `312 B`, `4 KiB`, `17 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// A bar on standard error that shows how far long work has come.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Says that `done` of `total` steps are done.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

/// The bar goes when the work ends, however it ends.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([Column::text("Title"), Column::number("Place")]);
        table.row(["Emma".to_owned(), "12.5 %".to_owned()]);
        table.row(["The Strange Case of Dr Jekyll".to_owned(), "0.0 %".to_owned()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let mut text = String::new();
        table().write(&mut text, None);
        assert_eq!(
            text,
            "Title                           Place\n\
             Emma                           12.5 %\n\
             The Strange Case of Dr Jekyll   0.0 %\n"
        );
    }

    #[test]
    fn text_is_cut_where_the_terminal_is_narrow_and_numbers_are_not() {
        let mut text = String::new();
        table().write(&mut text, Some(24));
        assert_eq!(
            text,
            "Title              Place\n\
             Emma              12.5 %\n\
             The Strange Cas…   0.0 %\n"
        );
        let mut text = String::new();
        table().write(&mut text, Some(3));
        assert!(text.contains("12.5 %"), "{text}");
    }

    #[test]
    fn a_title_cannot_move_the_cursor_or_turn_the_line_around() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "a [2Jb c d");
        let mut page = Page { text: String::new(), width: None };
        page.paragraph("one\u{7}\n\ttwo\u{1b}]0;x");
        assert_eq!(page.text, "one\n\ttwo]0;x\n");
    }

    #[test]
    fn parts_per_million_are_rounded_down() {
        assert_eq!(percent(0), "0.0 %");
        assert_eq!(percent(125_999), "12.5 %");
        assert_eq!(percent(999_999), "99.9 %");
        assert_eq!(percent(1_000_000), "100.0 %");
    }
}

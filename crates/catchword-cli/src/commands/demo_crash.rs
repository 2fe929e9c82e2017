//! The crash of the demonstration: a second process that writes until it is killed.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use catchword::{AnnotationId, Book, BookId, Hlc, Locator, NewAnnotation};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::count;

/// Highlights that the writer makes before it turns pages.
const HIGHLIGHTS: u32 = 20;
/// Acknowledged page turns after which it is killed.
const TURNS_BEFORE_KILL: usize = 15;
/// Page turns after which it ends by itself, should nobody kill it.
const TURNS_MAX: u32 = 20_000;
/// Where the page turns begin, in parts per million.
const TURNS_FROM_PPM: u32 = 400_000;

/// The passage that the writer highlights.
pub(crate) const WRITTEN_QUOTE: &str = "written before the crash";

const HIGHLIGHT: &str = "highlight";
const TURN: &str = "turn";

/// What was acknowledged before the kill.
#[derive(Debug, Default)]
pub(crate) struct Crash {
    highlights: Vec<AnnotationId>,
    turns: Vec<Hlc>,
}

impl Crash {
    /// Returns how many writes were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        (self.highlights.len() + self.turns.len()) as u64
    }

    /// Says what was acknowledged.
    pub(crate) fn told(&self) -> String {
        let highlights = count(self.highlights.len() as u64, "highlight");
        format!("{highlights} and {}", count(self.turns.len() as u64, "page turn"))
    }

    /// Returns how many of the acknowledged writes are in the book.
    ///
    /// Page turns are one place in the end: the turns are there if the place is that of the last one,
    /// or of a turn that came after it and was not told any more.
    pub(crate) fn found(&self, book: &Book) -> Result<u64, Failure> {
        let mut found = 0;
        for id in &self.highlights {
            found += u64::from(book.annotation(*id)?.is_some());
        }
        let place = book.place()?.map_or(Hlc::ZERO, |place| place.stamp());
        found += self.turns.iter().filter(|turn| **turn <= place).count() as u64;
        Ok(found)
    }
}

/// Starts the writer, listens to what it says is acknowledged, and kills it in the middle.
pub(crate) fn crash(context: &Context, book: BookId) -> Result<Crash, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, error, "");
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .arg("demo")
        .arg("--writer")
        .arg(book.to_string())
        .arg("--data")
        .arg(&context.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut crash = Crash::default();
    if let Some(stdout) = child.stdout.take() {
        // What it said before it was killed counts, even if it is read afterwards.
        for line in BufReader::new(stdout).lines() {
            crash.listen(&line.map_err(failed)?);
            if crash.turns.len() == TURNS_BEFORE_KILL {
                child.kill().map_err(failed)?;
            }
        }
    }
    child.wait().map_err(failed)?;
    if crash.turns.len() < TURNS_BEFORE_KILL {
        return Err(Failure::message(Exit::Failed, "the second process did not write", ""));
    }
    Ok(crash)
}

impl Crash {
    fn listen(&mut self, line: &str) {
        match line.split_once(' ') {
            Some((HIGHLIGHT, id)) => self.highlights.extend(id.parse::<AnnotationId>().ok()),
            Some((TURN, stamp)) => {
                self.turns.extend(stamp.parse().ok().and_then(Hlc::from_packed));
            }
            // The kill cut the line off: it was not told.
            _ => (),
        }
    }
}

/// Writes into the book and says what is acknowledged, until it is killed.
pub(crate) fn write_until_killed(name: &str, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let book = library.find(name)?;
    let mut out = io::stdout().lock();
    for number in 0..HIGHLIGHTS {
        let place = Locator::new().with_total_ppm(200_000 + number * 5_000);
        let made = book.annotate(NewAnnotation::highlight(WRITTEN_QUOTE).at(place))?;
        writeln!(out, "{HIGHLIGHT} {}", made.id)?;
    }
    let mut session = book.session("catchword demo")?;
    session.restored();
    for number in 0..TURNS_MAX {
        session.spent(1);
        let place = Locator::new().with_total_ppm(TURNS_FROM_PPM + number);
        if let Some(receipt) = session.turned(place)? {
            writeln!(out, "{TURN} {}", receipt.stamp.packed())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_is_not_counted() {
        let mut crash = Crash::default();
        for line in ["highlight 01ARZ3NDEKTSV4RRFFQ69G5FAV", "turn 12345", "highlight 01ARZ", "tu"]
        {
            crash.listen(line);
        }
        assert_eq!(crash.acknowledged(), 2);
        assert_eq!(crash.told(), "1 highlight and 1 page turn");
    }
}

//! Where a command reads and prints: this process, or another one that asked a daemon.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::sync::Arc;

use console::Term;

/// The terminal of a person, or what stands for one.
#[derive(Debug, Clone)]
pub(crate) enum Terminal {
    /// That of this process.
    Here,
    /// That of a process that asked this one.
    There(Arc<dyn Remote>),
}

/// The standard streams of another process.
pub(crate) trait Remote: std::fmt::Debug + Send + Sync {
    /// What it was given on standard input.
    fn input(&self) -> &[u8];
    /// Width of its terminal in characters, if its standard output is one.
    fn width(&self) -> Option<usize>;
    /// Writes to its standard output.
    fn write_out(&self, bytes: &[u8]) -> io::Result<()>;
    /// Writes to its standard error.
    fn write_err(&self, bytes: &[u8]) -> io::Result<()>;
    /// Returns whether somebody is there who answers questions.
    fn answers(&self) -> bool;
    /// Asks whoever is there, and returns the line that was typed.
    fn ask(&self, question: &str) -> io::Result<String>;
}

impl Terminal {
    /// Returns the width of the terminal in characters, if standard output is one.
    pub(crate) fn width(&self) -> Option<usize> {
        match self {
            Self::Here => {
                let size = Term::stdout().size_checked().filter(|_| io::stdout().is_terminal());
                size.map(|(_, columns)| usize::from(columns))
            }
            Self::There(remote) => remote.width(),
        }
    }

    /// Returns whether somebody sees a bar that moves.
    pub(crate) fn shows_progress(&self) -> bool {
        matches!(self, Self::Here) && io::stderr().is_terminal()
    }

    /// Returns standard input.
    pub(crate) fn input(&self) -> Box<dyn BufRead + '_> {
        match self {
            Self::Here => Box::new(io::stdin().lock()),
            Self::There(remote) => Box::new(remote.input()),
        }
    }

    /// Returns whether somebody is there who answers questions.
    pub(crate) fn answers(&self) -> bool {
        match self {
            Self::Here => io::stdin().is_terminal(),
            Self::There(remote) => remote.answers(),
        }
    }

    /// Asks whoever is there, on standard error, and returns the line that was typed.
    pub(crate) fn ask(&self, question: &str) -> io::Result<String> {
        match self {
            Self::Here => {
                let mut stderr = io::stderr().lock();
                write!(stderr, "{question}")?;
                stderr.flush()?;
                let mut line = String::new();
                io::stdin().lock().read_line(&mut line)?;
                Ok(line)
            }
            Self::There(remote) => remote.ask(question),
        }
    }

    /// Prints a warning or a failure to standard error.
    pub(crate) fn complain(&self, message: &str) {
        // There is nowhere left to say that standard error does not work.
        let _nowhere_to_report = match self {
            Self::Here => writeln!(io::stderr().lock(), "{message}"),
            Self::There(remote) => remote.write_err(format!("{message}\n").as_bytes()),
        };
    }
}

/// Standard output.
impl Write for &Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Terminal::Here => io::stdout().lock().write(bytes),
            Terminal::There(remote) => remote.write_out(bytes).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Terminal::Here => io::stdout().lock().flush(),
            Terminal::There(_) => Ok(()),
        }
    }
}

//! Why a command did not do what it was asked for, and what to do about it.

use std::fmt;
use std::process::ExitCode;

/// How the process ends: part of what scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was tried and did not succeed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// It is not allowed, or the input is not accepted.
    Refused,
    /// What it is about is not there.
    NotFound,
}

impl Exit {
    /// Returns the code of the process.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotFound => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A command ended without success.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    error: anyhow::Error,
    advice: String,
}

impl Failure {
    /// Makes a failure; `advice` is one line that says what to do, or empty.
    pub(crate) fn new(
        exit: Exit,
        error: impl Into<anyhow::Error>,
        advice: impl Into<String>,
    ) -> Self {
        Self { exit, error: error.into(), advice: advice.into() }
    }

    /// Makes a failure that has a message and no cause.
    pub(crate) fn message(exit: Exit, message: impl fmt::Display, advice: &str) -> Self {
        Self::new(exit, anyhow::anyhow!("{message}"), advice)
    }

    /// Says what the failure is about, before its message.
    pub(crate) fn about(self, subject: impl fmt::Display) -> Self {
        // A context would make the old message a cause, which reads the same.
        Self { error: self.error.context(subject.to_string()), ..self }
    }

    /// Makes the failure of a file that cannot be read or written.
    pub(crate) fn file(verb: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let exit = if missing { Exit::NotFound } else { Exit::Failed };
        let error = anyhow::Error::new(error).context(format!("cannot {verb} {}", path.display()));
        Self::new(exit, error, "check that the path is right and that you may use it")
    }
}

/// The message with its causes, then the advice on a line of its own.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catchword: {:#}", self.error)?;
        match self.advice.as_str() {
            "" => Ok(()),
            advice => write!(f, "\n{advice}"),
        }
    }
}

/// Standard output went away or is full.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let error = anyhow::Error::new(error).context("cannot write to standard output");
        Self::new(Exit::Failed, error, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_causes_and_then_what_to_do() {
        let cause = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "no entry");
        let failure = Failure::file("read", std::path::Path::new("a.epub"), cause);

        assert_eq!(failure.exit.code(), 1);
        assert_eq!(
            failure.to_string(),
            "catchword: cannot read a.epub: no entry\n\
             check that the path is right and that you may use it"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_not_found() {
        let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
        let failure = Failure::file("read", std::path::Path::new("a.epub"), cause);
        assert_eq!(failure.exit.code(), 4);
    }
}

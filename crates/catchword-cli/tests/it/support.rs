//! Running the program on a library of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Runs the program with these arguments, without the environment of the person who tests.
pub(crate) fn catchword(args: &[&str]) -> Output {
    command(args).output().expect("the program was built")
}

/// Prepares a run of the program.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_catchword"));
    command.args(args).stdin(Stdio::null());
    for variable in ["CATCHWORD_DATA", "CATCHWORD_CLOCK_OFFSET_MS", "CATCHWORD_PASSWORD", "COLUMNS"]
    {
        command.env_remove(variable);
    }
    command
}

/// Returns what was printed to standard output.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

/// Returns what was printed to standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("output is UTF-8")
}

/// A library in a folder that goes when the test ends.
pub(crate) struct Shelf {
    folder: TempDir,
    /// Added to the wall clock of every run, in milliseconds.
    clock_offset_ms: i64,
}

impl Shelf {
    /// Makes a folder without a library.
    pub(crate) fn nothing() -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        Self { folder, clock_offset_ms: 0 }
    }

    /// Makes an empty library on a device whose clock is wrong.
    pub(crate) fn with_clock_offset_ms(clock_offset_ms: i64) -> Self {
        let made = Self { clock_offset_ms, ..Self::nothing() };
        made.json(&["init", "--name", "phone"]);
        made
    }

    /// Makes an empty library.
    pub(crate) fn new() -> Self {
        let made = Self::nothing();
        made.json(&["init", "--name", "phone"]);
        made
    }

    /// Makes a library with a sample book, and returns the book's id.
    pub(crate) fn with_sample() -> (Self, String) {
        let made = Self::new();
        let file = made.sample();
        let imported = made.json(&["import", file.to_str().expect("a plain path")]);
        let book = imported[0]["book"].as_str().expect("an id").to_owned();
        (made, book)
    }

    /// Where files may be put.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the library lies.
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("library")
    }

    /// Writes a sample book and returns its path.
    pub(crate) fn sample(&self) -> PathBuf {
        let sample = catchword_formats::sample::all().remove(0);
        let path = self.path().join(sample.file_name);
        std::fs::write(&path, sample.bytes).expect("there is room for a file");
        path
    }

    /// Prepares a run on this library.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        command.arg("--data").arg(self.data());
        command.env("CATCHWORD_CLOCK_OFFSET_MS", self.clock_offset_ms.to_string());
        command
    }

    /// Runs the program on this library.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program was built")
    }

    /// Runs a command that succeeds, and reads the one JSON value it prints.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.command(args).arg("--json").output().expect("the program was built");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        let text = stdout(&output);
        assert_eq!(text.lines().count(), 1, "{args:?} prints one line: {text}");
        serde_json::from_str(&text).expect("output is JSON")
    }

    /// Runs a command that fails, and returns its exit code and what it says.
    pub(crate) fn failure(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        let code = output.status.code().expect("the program ended by itself");
        assert_ne!(code, 0, "{args:?}: {}", stdout(&output));
        (code, stderr(&output))
    }
}

/// Returns the folder of real files, or `None`, said on standard error, where there is none.
pub(crate) fn fixtures() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let folder = std::env::var_os("CATCHWORD_FIXTURES").map_or(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var_os("CATCHWORD_REQUIRE_FIXTURES").is_some_and(|value| value == "1");
    assert!(!required, "the fixtures are required and not at {}", folder.display());
    say("left out: there are no fixtures");
    None
}

fn say(line: &str) {
    #[expect(clippy::print_stderr, reason = "a test says what it left out")]
    {
        eprintln!("{line}");
    }
}

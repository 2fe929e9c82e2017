//! How fast it is, one file for each question, each figure beside its floor and its peer.
//!
//! Absolute times differ between machines and from minute to minute. So contestants take turns in one
//! run, and ratios are what counts; what can be counted (syncs, bytes, messages) is asserted in tests.

pub mod figure;
pub mod network;
pub mod peer;
pub mod process;
pub mod question;
pub mod round;
pub mod workload;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use figure::{Figure, show};
use question::QUESTIONS;
use workload::Workspace;

/// What the command line asks for.
#[derive(Debug, Default)]
struct Request {
    questions: Vec<String>,
    json: bool,
    quick: bool,
    judge: bool,
    dir: Option<PathBuf>,
}

/// Does what the command line asks for.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let outcome = match arguments.split_first() {
        Some((first, rest)) if first == process::TASK => perform(rest).map(|()| ExitCode::SUCCESS),
        _ => read_request(arguments).and_then(|request| answer(&request)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn read_request(arguments: Vec<String>) -> anyhow::Result<Request> {
    let mut request = Request::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => request.json = true,
            "--quick" => request.quick = true,
            "--judge" => request.judge = true,
            "--dir" => request.dir = Some(arguments.next().context("--dir needs a folder")?.into()),
            // What `cargo bench` adds.
            "--bench" => (),
            name if QUESTIONS.iter().any(|question| question.name == name) => {
                request.questions.push(argument);
            }
            other => anyhow::bail!(
                "no question {other}; there are: {}",
                QUESTIONS.map(|question| question.name).join(", ")
            ),
        }
    }
    Ok(request)
}

fn answer(request: &Request) -> anyhow::Result<ExitCode> {
    let own;
    let folder = if let Some(folder) = &request.dir {
        folder.clone()
    } else {
        own = tempfile::tempdir()?;
        own.path().to_path_buf()
    };
    let workspace = Workspace::new(folder, request.quick)?;
    let mut all: Vec<Figure> = Vec::new();
    for question in &QUESTIONS {
        if !request.questions.is_empty() && !request.questions.iter().any(|q| q == question.name) {
            continue;
        }
        let figures = (question.ask)(&workspace).with_context(|| question.name)?;
        if !request.json {
            show(&mut io::stdout().lock(), &figures)?;
        }
        all.extend(figures);
    }
    if request.json {
        let values: Vec<_> = all.iter().map(Figure::to_json).collect();
        serde_json::to_writer_pretty(io::stdout().lock(), &values)?;
    }
    let missed = all.iter().any(Figure::is_missed);
    Ok(if request.judge && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Does one task in this process and prints one JSON value.
fn perform(arguments: &[String]) -> anyhow::Result<()> {
    let (name, paths) = arguments.split_first().context("which task?")?;
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    question::perform(name, &paths)
}

#[expect(clippy::print_stderr, reason = "this is a program for the terminal")]
fn complain(message: &str) {
    eprintln!("{message}");
}

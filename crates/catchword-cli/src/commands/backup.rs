//! `catchword backup` and `catchword restore`: the whole library in one file.

use catchword::{BackupError, Existing, Library};
use serde::Serialize;

use crate::args::{BackupArgs, RestoreArgs};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::interrupt::stopped;
use crate::output::{count, size};

#[derive(Serialize)]
struct Saved {
    bytes: u64,
    files: u64,
    files_left_out: Vec<String>,
}

#[derive(Serialize)]
struct Restored {
    device: String,
    documents: u64,
    files: u64,
    bytes: u64,
}

/// Saves the library.
pub(crate) fn backup(args: &BackupArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let interrupt = context.interrupt()?;
    let progress = context.output.progress("backup", 0);
    let saved = library.backup(context.path(&args.file), &mut |now| {
        progress.set(now.done, now.total);
        interrupt.flow()
    });
    drop(progress);
    let report = saved?;
    for book in &report.files_left_out {
        context
            .output
            .complain(&format!("catchword: the file of {book} is missing or damaged and left out"));
    }
    let left_out = report.files_left_out.iter().map(ToString::to_string);
    let saved =
        Saved { bytes: report.bytes, files: report.files, files_left_out: left_out.collect() };
    context.output.print(&saved, |page| {
        let (size, files) = (size(saved.bytes), count(saved.files, "book file"));
        page.line(format_args!("saved {size} with {files} to {}", args.file.display()));
        page.line("the keys of this device are not in it");
    })
}

/// Brings a backup back, and opens it, so that it begins its new generation at once.
pub(crate) fn restore(args: &RestoreArgs, context: &Context) -> Result<(), Failure> {
    if !args.file.exists() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Failure::file("read", &args.file, missing));
    }
    let report = Library::restore(&args.file, &context.folder, Existing::Replace)?;
    let library = Library::open_existing(&context.folder, context.config())?;
    let restored = Restored {
        device: library.device().to_string(),
        documents: report.documents,
        files: report.files,
        bytes: report.bytes,
    };
    context.output.print(&restored, |page| {
        let files = count(restored.files, "book file");
        page.line(format_args!("restored {} with {files}", size(restored.bytes)));
        page.line("this library continues as a new device");
        page.property("device", &restored.device);
    })
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Library(error) => error.into(),
            error @ BackupError::Occupied => {
                Self::new(Exit::Refused, error, "choose another name, or move that file away")
            }
            error @ (BackupError::Keys(_) | BackupError::OtherKey) => {
                Self::new(Exit::Refused, error, "look at the folder `keys` in the data folder")
            }
            BackupError::Stopped => stopped("there is no new backup"),
            error @ (BackupError::Io(_) | _) => {
                Self::new(Exit::Failed, error, "see whether the disk is full or not writable")
            }
        }
    }
}

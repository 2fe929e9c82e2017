//! What every command needs: where the library is, how to print, and what the environment says.

use std::path::PathBuf;

use catchword::{AnnotationId, Config, Evidence, Library};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output::{Output, complain};

/// Shifts this device's wall clock, for trials: milliseconds, with a sign.
const CLOCK_OFFSET_VARIABLE: &str = "CATCHWORD_CLOCK_OFFSET_MS";

const LIST_IDS: &str = "`catchword show BOOK` lists the annotations with their ids";

/// Where a command works.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Folder of the library; it need not be there.
    pub(crate) folder: PathBuf,
    /// Where to print to.
    pub(crate) output: Output,
    /// Added to the wall clock, in milliseconds.
    pub(crate) clock_offset_ms: i64,
}

impl Context {
    /// Reads the global options and the environment.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let folder = match &global.data {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        Ok(Self { folder, output: Output::new(global.json), clock_offset_ms: clock_offset_ms()? })
    }
}

impl Context {
    /// Returns how a library is opened here.
    pub(crate) fn config(&self) -> Config {
        Config::default().with_clock_offset_ms(self.clock_offset_ms)
    }

    /// Opens the library, and warns of what opening found.
    pub(crate) fn open(&self) -> Result<Library, Failure> {
        let library = Library::open_existing(&self.folder, self.config())?;
        if let Some(evidence) = library.opened().new_generation {
            complain(&format!(
                "catchword: this library continues as a new device: {}",
                because(evidence)
            ));
        }
        Ok(library)
    }
}

/// Says why a library continues as a new device.
fn because(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::NoWitness => "it was restored from a backup, or moved without its witness",
        Evidence::OtherFile => "it is a copy of another one",
        Evidence::OtherGeneration => "one backup was restored twice",
        Evidence::Ahead => "it is an older state of itself",
        Evidence::OtherWal => "its newest writes are missing or those of another library",
        Evidence::OtherKey => "its keys are not those it was written with",
    }
}

/// Reads the id of an annotation as a person types it.
pub(crate) fn annotation_id(text: &str) -> Result<AnnotationId, Failure> {
    text.trim().to_ascii_uppercase().parse().map_err(|error| {
        Failure::new(Exit::Usage, anyhow::Error::new(error).context(format!("{text:?}")), LIST_IDS)
    })
}

fn default_folder() -> Result<PathBuf, Failure> {
    directories::ProjectDirs::from("", "", "catchword")
        .map(|folders| folders.data_dir().to_owned())
        .ok_or_else(|| {
            Failure::message(
                Exit::Usage,
                "this account has no home folder",
                "say where the library is, with --data DIR or in CATCHWORD_DATA",
            )
        })
}

fn clock_offset_ms() -> Result<i64, Failure> {
    let Some(value) = std::env::var_os(CLOCK_OFFSET_VARIABLE) else { return Ok(0) };
    value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        Failure::message(
            Exit::Usage,
            format_args!("{CLOCK_OFFSET_VARIABLE} is not a whole number of milliseconds"),
            "unset it, or give a number such as -3600000",
        )
    })
}

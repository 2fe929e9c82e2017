//! What every command needs: where the library is, how to print, and what the environment says.

use std::path::{Path, PathBuf};

use catchword::{AnnotationId, Config, Library};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::network::Network;
use crate::output::Output;
use crate::terminal::Terminal;

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
    /// What a daemon holds, and the process it works for.
    pub(crate) daemon: Option<Serving>,
}

/// A command that a daemon carries out for another process.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// The library that the daemon holds.
    pub(crate) library: Library,
    /// And puts on the network.
    pub(crate) network: Network,
    /// The folder that the other process works in.
    pub(crate) caller_folder: PathBuf,
    /// Whether the other process asked to stop, or went away.
    pub(crate) interrupt: Interrupt,
}

impl Context {
    /// Reads the global options and the environment.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let folder = match &global.data {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        let output = Output::new(global.json, Terminal::Here);
        Ok(Self { folder, output, clock_offset_ms: clock_offset_ms()?, daemon: None })
    }

    /// Returns the path that the caller means.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        match &self.daemon {
            Some(serving) => serving.caller_folder.join(path),
            None => path.as_ref().to_owned(),
        }
    }

    /// Takes over Ctrl-C. To be called once, by a command that polls it.
    pub(crate) fn interrupt(&self) -> Result<Interrupt, Failure> {
        match &self.daemon {
            Some(serving) => Ok(serving.interrupt.clone()),
            None => Interrupt::install(),
        }
    }

    /// Returns how a library is opened here.
    pub(crate) fn config(&self) -> Config {
        Config::default().with_clock_offset_ms(self.clock_offset_ms)
    }

    /// Opens the library, and warns of what opening found.
    pub(crate) fn open(&self) -> Result<Library, Failure> {
        if let Some(serving) = &self.daemon {
            return Ok(serving.library.clone());
        }
        let library = Library::open_existing(&self.folder, self.config())?;
        if let Some(evidence) = library.opened().new_generation {
            self.output.complain(&format!(
                "catchword: this library continues as a new device: {evidence}"
            ));
        }
        Ok(library)
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

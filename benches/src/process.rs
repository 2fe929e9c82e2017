//! Processes of their own: for memory, for what is not in any cache, and to be killed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

/// The argument that makes this program do one task and print one JSON value.
pub const TASK: &str = "--task";

/// Runs a task in a process of its own and returns what it printed.
///
/// # Errors
///
/// If the process fails, or prints no JSON.
pub fn task(name: &str, paths: &[&Path]) -> anyhow::Result<Value> {
    start_task(name, paths)?.wait()
}

/// A task that runs while this process goes on.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Waits until it ends, and returns what it printed.
    ///
    /// # Errors
    ///
    /// As [`task`].
    pub fn wait(self) -> anyhow::Result<Value> {
        let output = self.child.wait_with_output()?;
        anyhow::ensure!(output.status.success(), "task {} failed", self.name);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// Starts a task in a process of its own.
///
/// # Errors
///
/// If it does not start.
pub fn start_task(name: &str, paths: &[&Path]) -> anyhow::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(TASK).arg(name).args(paths).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = command.spawn().with_context(|| format!("task {name}"))?;
    Ok(Running { name: name.to_owned(), child })
}

/// Runs a task until it says that it is ready, then kills it as the operating system of a phone would.
///
/// # Errors
///
/// If the process ends before it is ready.
pub fn kill_when_ready(name: &str, paths: &[&Path]) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(TASK).arg(name).args(paths).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child: Child = command.spawn()?;
    let stdout = child.stdout.take().context("no pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    anyhow::ensure!(line.trim() == "\"ready\"", "task {name} was not ready: {line:?}");
    Ok(())
}

/// Starts a task that listens until it is killed, and returns it with the port that it prints first.
///
/// # Errors
///
/// If the process ends before it listens.
pub fn listening(name: &str, paths: &[&Path]) -> anyhow::Result<(Child, u16)> {
    let mut running = start_task(name, paths)?.child;
    let stdout = running.stdout.take().context("no pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let port = line.trim().parse().with_context(|| format!("task {name} said {line:?}"))?;
    Ok((running, port))
}

/// Returns how much memory a process has, in KiB.
///
/// # Errors
///
/// If the operating system does not say.
pub fn memory_kib(process: u32) -> anyhow::Result<u64> {
    status_kib_of(&process.to_string(), "VmRSS:")
}

/// Returns a number that a task printed.
///
/// # Errors
///
/// If it printed another thing.
pub fn number(value: &Value, name: &str) -> anyhow::Result<f64> {
    value.get(name).and_then(Value::as_f64).with_context(|| format!("no {name} in {value}"))
}

/// How much of the disk is in memory when a task begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Nothing: the page cache was dropped.
    Cold,
    /// What was there, because only the superuser may drop the page cache.
    Warm,
}

impl Cache {
    /// Drops the page cache if this process may.
    pub fn drop_pages() -> Self {
        // Only clean pages are dropped, so what is dirty is written first.
        let synced = Command::new("sync").status().is_ok_and(|status| status.success());
        match fs::write("/proc/sys/vm/drop_caches", "3") {
            Ok(()) if synced => Self::Cold,
            _ => Self::Warm,
        }
    }

    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "cached",
        }
    }
}

/// Brings the program itself into the page cache, so that a task measures its data.
///
/// # Errors
///
/// If the program cannot be read.
pub fn warm_program() -> anyhow::Result<()> {
    fs::read(std::env::current_exe()?)?;
    Ok(())
}

/// Measures how long this thread is on a processor: work that waits for nothing takes no longer because
/// others are at work on the same machine.
#[derive(Debug)]
pub struct OnProcessor {
    start_ns: u64,
}

impl OnProcessor {
    /// Begins.
    ///
    /// # Errors
    ///
    /// If the operating system does not say.
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self { start_ns: on_processor_ns()? })
    }

    /// Returns the time on a processor since the start, to some milliseconds.
    ///
    /// # Errors
    ///
    /// If the operating system does not say.
    pub fn elapsed(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from_nanos(on_processor_ns()?.saturating_sub(self.start_ns)))
    }
}

fn on_processor_ns() -> anyhow::Result<u64> {
    let said = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(said.split_whitespace().next().context("no number")?.parse()?)
}

/// The most memory this process had since [`forget`](PeakMemory::forget).
#[derive(Debug)]
pub struct PeakMemory {
    before_kib: u64,
}

impl PeakMemory {
    /// Forgets the peak so far.
    ///
    /// # Errors
    ///
    /// If the operating system does not say how much memory a process has.
    pub fn forget() -> anyhow::Result<Self> {
        fs::write("/proc/self/clear_refs", "5")?;
        Ok(Self { before_kib: status_kib("VmRSS:")? })
    }

    /// Returns by how much the peak lies above the memory at the start, in MiB.
    ///
    /// # Errors
    ///
    /// As [`forget`](Self::forget).
    pub fn growth_mib(&self) -> anyhow::Result<f64> {
        let grown = status_kib("VmHWM:")?.saturating_sub(self.before_kib);
        Ok(f64::from(u32::try_from(grown)?) / 1_024.0)
    }
}

fn status_kib(name: &str) -> anyhow::Result<u64> {
    status_kib_of("self", name)
}

fn status_kib_of(process: &str, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}

/// Copies a folder of files over another one.
///
/// # Errors
///
/// What the disk says.
pub fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

//! Carrying out commands for other processes.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use catchword::Library;
use clap::Parser as _;

use super::frame::{
    INPUT_BYTES_MAX, Kind, LINE_BYTES_MAX, Request, VERSION, read_block, read_request, write_frames,
};
use crate::args::Cli;
use crate::commands;
use crate::context::{Context, Serving};
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::network::Network;
use crate::output::Output;
use crate::terminal::{Remote, Terminal};

/// How long stopping waits for commands: a system that shuts down gives about as long.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Commands that are carried out at once; further ones wait for their turn.
const COMMANDS_MAX: usize = 16;

/// Takes commands until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    slots: Arc<Slots>,
}

impl Server {
    /// Opens the socket of the library, and carries out what comes over it.
    ///
    /// Whoever calls holds the library, so a socket that is there already is a dead one.
    pub(crate) fn start(
        context: &Context,
        library: &Library,
        network: &Network,
    ) -> Result<Self, Failure> {
        let path = super::socket_path(&context.folder);
        let listener =
            bind(&path).map_err(|error| Failure::file("open the socket", &path, error))?;
        let held = (library.clone(), network.clone());
        let context = context.clone();
        let slots = Arc::new(Slots::default());
        let busy = Arc::clone(&slots);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let slot = Slots::take(&busy);
                let (context, held) = (context.clone(), held.clone());
                thread::spawn(move || {
                    let _slot = slot;
                    serve(stream, &context, held);
                });
            }
        });
        Ok(Self { path, slots })
    }

    /// Takes no command any more, and waits until those that run have told their callers how they ended,
    /// at most [`DRAIN_MAX`]. What was acknowledged is durable however long it takes.
    pub(crate) fn drain(self) {
        let slots = Arc::clone(&self.slots);
        drop(self);
        slots.wait_for_none(DRAIN_MAX);
    }
}

/// Nobody finds the socket any more.
impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(path);
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => own(folder)?,
        made => made?,
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    UnixListener::bind(path)
}

/// A folder that others may enter, or that somebody else made, is no place for the socket.
fn own(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    let parent = folder.parent().unwrap_or(folder);
    let mine = found.uid() == fs::metadata(parent)?.uid();
    // The last six bits are what the group and everybody else may do.
    if found.is_dir() && 6 <= found.mode().trailing_zeros() && mine {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may enter its folder"))
}

/// Carries out one command.
fn serve(mut stream: UnixStream, context: &Context, (library, network): (Library, Network)) {
    let received = read_request(&mut stream)
        .and_then(|request| Ok((request, read_block(&mut stream, INPUT_BYTES_MAX)?)));
    let Ok((request, input)) = received else { return };
    let (Ok(stream_out), Ok(watched)) = (stream.try_clone(), stream.try_clone()) else { return };
    let interrupt = Interrupt::default();
    let lines = Mutex::new(watch(watched, interrupt.clone()));
    let (width, answers) = (request.width, request.answers);
    let caller = Arc::new(Caller { input, width, answers, stream: Mutex::new(stream_out), lines });
    let terminal = Terminal::There(Arc::clone(&caller) as Arc<dyn Remote>);
    let serving = Serving { library, network, caller_folder: request.folder.clone(), interrupt };
    let exit = match perform(&request, context, &terminal, serving) {
        Ok(()) => 0,
        Err(failure) => {
            terminal.complain(&failure.to_string());
            failure.exit.code()
        }
    };
    // Whoever went away does not need the exit code.
    let _gone = caller.write(Kind::Exit, &[exit]);
    let _gone = stream.shutdown(Shutdown::Both);
}

fn perform(
    request: &Request,
    context: &Context,
    terminal: &Terminal,
    serving: Serving,
) -> Result<(), Failure> {
    if request.version != VERSION {
        return Err(Failure::message(
            Exit::Failed,
            "the daemon that holds this library is of another release",
            "stop it, and start it anew with this one",
        ));
    }
    let arguments =
        std::iter::once("catchword").chain(request.arguments.iter().map(String::as_str));
    let cli = Cli::try_parse_from(arguments).map_err(|error| {
        let text = error.render().to_string();
        Failure::message(Exit::Usage, text.trim_end(), "the daemon is of another release")
    })?;
    if !cli.command.is_for_daemon() {
        return Err(Failure::message(Exit::Usage, "this command is not for a daemon", ""));
    }
    let output = Output::new(cli.global.json, terminal.clone());
    let context = Context { output, daemon: Some(serving), ..context.clone() };
    commands::run(&cli.command, &context)
}

/// Takes the lines that the other process sends back, and says when it goes away: that ends reading.
fn watch(mut stream: UnixStream, interrupt: Interrupt) -> Receiver<Vec<u8>> {
    let (sender, lines) = sync_channel(1);
    thread::spawn(move || {
        while let Ok(line) = read_block(&mut stream, LINE_BYTES_MAX) {
            // A line that nobody asked for ends it as well.
            if sender.try_send(line).is_err() {
                break;
            }
        }
        interrupt.ask();
    });
    lines
}

/// The process that asked.
#[derive(Debug)]
struct Caller {
    input: Vec<u8>,
    width: Option<usize>,
    answers: bool,
    stream: Mutex<UnixStream>,
    lines: Mutex<Receiver<Vec<u8>>>,
}

impl Caller {
    fn write(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        write_frames(&mut *stream, kind, bytes)
    }
}

impl Remote for Caller {
    fn input(&self) -> &[u8] {
        &self.input
    }

    fn width(&self) -> Option<usize> {
        self.width
    }

    fn write_out(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(Kind::Out, bytes)
    }

    fn write_err(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(Kind::Err, bytes)
    }

    fn answers(&self) -> bool {
        self.answers
    }

    fn ask(&self, question: &str) -> io::Result<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(Kind::Ask, question.as_bytes())?;
        let line = lines.recv().map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

/// How many commands run.
#[derive(Debug, Default)]
struct Slots {
    taken: Mutex<usize>,
    freed: std::sync::Condvar,
}

impl Slots {
    /// Waits for a free one, and takes it until it is dropped.
    fn take(slots: &Arc<Self>) -> Slot {
        let taken = slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |taken: &mut usize| COMMANDS_MAX <= *taken;
        let mut taken = slots.freed.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Slot(Arc::clone(slots))
    }

    fn wait_for_none(&self, wait_max: Duration) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let some = |taken: &mut usize| 0 < *taken;
        let _drained_or_late = self.freed.wait_timeout_while(taken, wait_max, some);
    }
}

struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_all();
    }
}

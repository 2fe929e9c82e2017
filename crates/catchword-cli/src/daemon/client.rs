//! Asking the daemon to carry out a command.

use std::process::ExitCode;

use crate::args::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Has the daemon of the library carry out the command, if one runs; returns how it ended there.
///
/// `None`: no daemon runs, or the command needs none.
#[cfg(unix)]
pub(crate) fn forward(command: &Command, context: &Context) -> Result<Option<ExitCode>, Failure> {
    use std::os::unix::net::UnixStream;

    if !command.is_for_daemon() {
        return Ok(None);
    }
    match UnixStream::connect(super::socket_path(&context.folder)) {
        Ok(stream) => {
            // It is asked for where the person is, and travels like standard input.
            let password = crate::commands::cloud::password_of(command)?;
            unix::ask(stream, password.as_ref().map(|password| password.as_str())).map(Some)
        }
        // A daemon that was killed leaves its socket behind.
        Err(_) => Ok(None),
    }
}

/// There is no such socket on this platform: a second process is told that the library is held.
#[cfg(not(unix))]
pub(crate) fn forward(_: &Command, _: &Context) -> Result<Option<ExitCode>, Failure> {
    Ok(None)
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::process::ExitCode;

    use crate::daemon::frame::{
        INPUT_BYTES_MAX, Kind, LINE_BYTES_MAX, Request, VERSION, read_frame, write_block,
    };
    use crate::failure::{Exit, Failure};
    use crate::terminal::Terminal;

    /// Stands for standard input among the arguments.
    const INPUT: &str = "-";

    /// Sends the command line, and prints what comes back.
    pub(super) fn ask(mut stream: UnixStream, password: Option<&str>) -> Result<ExitCode, Failure> {
        let request = request()?;
        let input = if let Some(password) = password {
            password.as_bytes().to_vec()
        } else if request.arguments.iter().any(|argument| argument == INPUT) {
            read_input()?
        } else {
            Vec::new()
        };
        let sent = serde_json::to_vec(&request).map_err(io::Error::from).and_then(|request| {
            write_block(&mut stream, &request)?;
            write_block(&mut stream, &input)
        });
        sent.map_err(gone)?;
        loop {
            let (kind, bytes) = read_frame(&mut stream).map_err(gone)?;
            let printed = match kind {
                Kind::Out => io::stdout().lock().write_all(&bytes),
                Kind::Err => io::stderr().lock().write_all(&bytes),
                Kind::Ask => {
                    let line = Terminal::Here.ask(&String::from_utf8_lossy(&bytes))?;
                    let line = line.get(..LINE_BYTES_MAX).unwrap_or(&line);
                    write_block(&mut stream, line.as_bytes())
                }
                Kind::Exit => {
                    io::stdout().lock().flush()?;
                    return Ok(ExitCode::from(bytes.first().copied().unwrap_or(1)));
                }
            };
            match printed {
                // The reader has seen what it wanted.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(ExitCode::SUCCESS);
                }
                printed => printed?,
            }
        }
    }

    fn request() -> Result<Request, Failure> {
        let arguments = std::env::args_os().skip(1).map(std::ffi::OsString::into_string);
        let arguments = arguments.collect::<Result<_, _>>().map_err(|argument| {
            Failure::message(
                Exit::Usage,
                format_args!("{} is not UTF-8", argument.display()),
                "stop the daemon that holds this library, or rename the file",
            )
        })?;
        let folder = std::env::current_dir()
            .map_err(|error| Failure::file("use", std::path::Path::new("."), error))?;
        let (width, answers) = (Terminal::Here.width(), Terminal::Here.answers());
        Ok(Request { version: VERSION, arguments, folder, width, answers })
    }

    fn read_input() -> Result<Vec<u8>, Failure> {
        let mut input = Vec::new();
        let limit = INPUT_BYTES_MAX as u64 + 1;
        let read = io::stdin().lock().take(limit).read_to_end(&mut input);
        read.map_err(|error| Failure::file("read", std::path::Path::new(INPUT), error))?;
        if INPUT_BYTES_MAX < input.len() {
            let message = format!("standard input is longer than {} MiB", INPUT_BYTES_MAX >> 20);
            return Err(Failure::message(Exit::Refused, message, "give it in parts"));
        }
        Ok(input)
    }

    fn gone(error: io::Error) -> Failure {
        let error = anyhow::Error::new(error).context("the daemon went away");
        Failure::new(Exit::Failed, error, "see whether it is done, and run the command again")
    }
}

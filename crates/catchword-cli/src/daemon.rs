//! The process that holds a library while others ask it: a socket in the folder of the library, over
//! which a command travels there and what it prints comes back.
//!
//! # Invariants
//!
//! 1. Only the owner of the folder can open the socket.
//! 2. A command does the same through the daemon as without it: the same code runs, on the same
//!    library, with the paths, the input and the terminal of whoever asked.
//!
//! # What is not here
//!
//! Other devices: those come over the network, and never through this socket.

pub(crate) mod client;
mod frame;
#[cfg(unix)]
pub(crate) mod server;

#[cfg(unix)]
use std::path::{Path, PathBuf};

/// Folder of the socket, in the folder of the library: only its owner may enter.
#[cfg(unix)]
const FOLDER: &str = "daemon";
/// Name of the socket.
#[cfg(unix)]
const SOCKET: &str = "socket";

/// Returns where the socket of a library is. Where the path is longer than a system takes, nobody can
/// listen there, and a second process is told that the library is held.
#[cfg(unix)]
fn socket_path(folder: &Path) -> PathBuf {
    folder.join(FOLDER).join(SOCKET)
}

//! What travels over the socket.
//!
//! A request is one JSON value and what standard input holds, each after its length (`u32`, big-endian).
//! An answer is any number of frames: kind (one byte), length, bytes; the last is the exit code. A frame
//! that asks is answered with one line, after its length, over the same socket.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of this protocol: both ends are the same program, of the same release or not.
pub(super) const VERSION: u32 = 2;
/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Longest standard input, in bytes: a journal, or a list of files.
pub(super) const INPUT_BYTES_MAX: usize = 64 << 20;
/// Longest line that is sent back to a question, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 4 << 10;
/// Longest frame of an answer, in bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// A command, and where it was given.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) version: u32,
    /// Everything behind the name of the program.
    pub(super) arguments: Vec<String>,
    /// The folder that relative paths begin in.
    pub(super) folder: PathBuf,
    /// Width of the terminal in characters, if standard output is one.
    pub(super) width: Option<usize>,
    /// Whether standard input is a terminal, so that somebody can be asked.
    pub(super) answers: bool,
}

/// A part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// For standard output.
    Out,
    /// For standard error.
    Err,
    /// A question: one line of standard input is sent back.
    Ask,
    /// The exit code, one byte. Nothing follows.
    Exit,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Out, Self::Err, Self::Ask, Self::Exit];

    const fn code(self) -> u8 {
        match self {
            Self::Out => 1,
            Self::Err => 2,
            Self::Exit => 3,
            Self::Ask => 4,
        }
    }
}

/// Writes bytes after their length.
pub(super) fn write_block(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(bytes)
}

/// Reads bytes after their length.
pub(super) fn read_block(from: &mut impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if bytes_max < length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a part that is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a request without its input.
pub(super) fn read_request(from: &mut impl Read) -> io::Result<Request> {
    let bytes = read_block(from, REQUEST_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

/// Writes parts of an answer.
pub(super) fn write_frames(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(FRAME_BYTES_MAX) {
        to.write_all(&[kind.code()])?;
        write_block(to, chunk)?;
    }
    Ok(())
}

/// Reads a part of an answer.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut code = [0];
    from.read_exact(&mut code)?;
    let kind = Kind::ALL.into_iter().find(|kind| [kind.code()] == code);
    let kind = kind.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an unknown part"))?;
    Ok((kind, read_block(from, FRAME_BYTES_MAX)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_in_parts_and_a_long_one_in_several() {
        let long = vec![7; FRAME_BYTES_MAX + 1];
        let mut wire = Vec::new();
        write_frames(&mut wire, Kind::Out, &long).unwrap();
        write_frames(&mut wire, Kind::Exit, &[3]).unwrap();
        let mut wire = wire.as_slice();
        let mut out = Vec::new();
        let code = loop {
            match read_frame(&mut wire).unwrap() {
                (Kind::Exit, code) => break code,
                (_, bytes) => out.extend(bytes),
            }
        };
        assert_eq!((out, code), (long, vec![3]));
    }

    #[test]
    fn a_part_that_is_too_long_or_unknown_is_refused_before_it_is_read() {
        let too_long = u32::MAX.to_be_bytes();
        assert!(read_block(&mut too_long.as_slice(), REQUEST_BYTES_MAX).is_err());
        assert!(read_frame(&mut [9, 0, 0, 0, 0].as_slice()).is_err());
    }
}

//! Reading and writing messages: integers big-endian, lengths before what they count.
//!
//! ```text
//! pairing frame    u16 length | so many bytes, 1 to 1,024
//! ```
//!
//! # Invariants
//!
//! 1. A length that a peer claims is compared with its limit before anything of that size is kept.
//! 2. What does not read is a [`WireError`], never a panic.

/// Content of one frame of a pairing, in bytes.
///
/// The longest message has 163 bytes; whoever sends six times that is doing something else.
pub const PAIRING_FRAME_BYTES_MAX: usize = 1_024;

const PAIRING_LENGTH_BYTES: usize = 2;

/// A message does not have the form it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The message ends in the middle of a value.
    #[error("a message is cut off")]
    CutOff,
    /// Something follows the last value.
    #[error("{0} bytes follow the end of a message")]
    Trailing(usize),
    /// A length is above its limit.
    #[error("{bytes} bytes, more than {bytes_max}")]
    TooLong {
        /// The length, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// A frame has no content.
    #[error("a frame is empty")]
    Empty,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
}

/// Reads the values of a message one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the first of these bytes on.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns what is not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Reads one byte.
    ///
    /// # Errors
    ///
    /// [`WireError::CutOff`].
    pub fn byte(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.fixed()?))
    }

    /// Reads two bytes as a number.
    ///
    /// # Errors
    ///
    /// [`WireError::CutOff`].
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    /// Reads four bytes as a number.
    ///
    /// # Errors
    ///
    /// [`WireError::CutOff`].
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    /// Reads eight bytes as a number.
    ///
    /// # Errors
    ///
    /// [`WireError::CutOff`].
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.fixed()?))
    }

    /// Reads as many bytes as the type says.
    ///
    /// # Errors
    ///
    /// [`WireError::CutOff`].
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::CutOff)?;
        self.0 = rest;
        Ok(*head)
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::CutOff`].
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(bytes).ok_or(WireError::CutOff)?;
        self.0 = rest;
        Ok(head)
    }

    /// Reads a text behind a length of one byte.
    ///
    /// # Errors
    ///
    /// [`WireError`], also if the text is longer than `bytes_max`.
    pub fn short_text(&mut self, bytes_max: u8) -> Result<&'a str, WireError> {
        let bytes = self.byte()?;
        if bytes_max < bytes {
            return Err(too_long(bytes.into(), bytes_max.into()));
        }
        str::from_utf8(self.take(bytes.into())?).map_err(|_| WireError::NotUtf8)
    }

    /// Says that the message ends here.
    ///
    /// # Errors
    ///
    /// [`WireError::Trailing`] if it does not.
    pub const fn finish(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}

/// Writes the values of a message one after the other.
#[derive(Debug, Clone, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins an empty message.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Writes one byte.
    pub fn byte(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Writes a number of two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Writes a number of four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Writes a number of eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Writes a text behind a length of one byte, cut between characters where it is too long.
    pub fn short_text(&mut self, text: &str, bytes_max: u8) -> &mut Self {
        let text = cut(text, bytes_max.into());
        self.byte(u8::try_from(text.len()).unwrap_or(bytes_max)).bytes(text.as_bytes())
    }

    /// Returns the message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Returns the longest beginning of a text that has at most so many bytes.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=text.len().min(bytes_max)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// Puts its length before the content of a pairing frame.
///
/// # Errors
///
/// [`WireError::TooLong`] or [`WireError::Empty`].
pub fn pairing_frame(content: &[u8]) -> Result<Vec<u8>, WireError> {
    let length = checked_length(content.len())?;
    let mut frame = Writer::new();
    frame.u16(length).bytes(content);
    Ok(frame.finish())
}

/// Cuts what arrives on a stream into the contents of pairing frames.
///
/// Holds one frame at most: whoever sends more before the frame was taken is told so.
#[derive(Debug, Default)]
pub struct PairingFrames {
    /// Invariant: at most [`PAIRING_FRAME_BYTES_MAX`] and the length before it.
    waiting: Vec<u8>,
}

impl PairingFrames {
    /// Takes what arrived, and returns the content of a frame if one is complete now.
    ///
    /// In a pairing each side waits for the other's answer, so nothing follows a frame.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLong`], [`WireError::Empty`], or [`WireError::Trailing`] if more than one
    /// frame arrived. The stream is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, WireError> {
        let room = PAIRING_LENGTH_BYTES + PAIRING_FRAME_BYTES_MAX - self.waiting.len();
        let (taken, beyond) = bytes.split_at(bytes.len().min(room));
        self.waiting.extend_from_slice(taken);
        let mut reader = Reader::new(&self.waiting);
        let Ok(length) = reader.u16() else { return Ok(None) };
        let length = usize::from(checked_length(length.into())?);
        let Ok(content) = reader.take(length) else { return Ok(None) };
        let trailing = reader.rest().len() + beyond.len();
        if trailing != 0 {
            return Err(WireError::Trailing(trailing));
        }
        let content = content.to_vec();
        self.waiting.clear();
        Ok(Some(content))
    }
}

fn checked_length(bytes: usize) -> Result<u16, WireError> {
    if bytes == 0 {
        return Err(WireError::Empty);
    }
    match u16::try_from(bytes) {
        Ok(length) if bytes <= PAIRING_FRAME_BYTES_MAX => Ok(length),
        _ => Err(too_long(bytes, PAIRING_FRAME_BYTES_MAX)),
    }
}

const fn too_long(bytes: usize, bytes_max: usize) -> WireError {
    WireError::TooLong { bytes, bytes_max }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_at_the_limit_passes_and_one_byte_more_is_refused() {
        let longest = vec![7; PAIRING_FRAME_BYTES_MAX];
        let frame = pairing_frame(&longest).unwrap();
        assert_eq!(PairingFrames::default().push(&frame), Ok(Some(longest.clone())));

        let too_long = WireError::TooLong { bytes: 1_025, bytes_max: 1_024 };
        assert_eq!(pairing_frame(&[longest, vec![7]].concat()), Err(too_long));
        assert_eq!(PairingFrames::default().push(&1_025_u16.to_be_bytes()), Err(too_long));
    }

    #[test]
    fn an_empty_frame_is_refused() {
        assert_eq!(pairing_frame(&[]), Err(WireError::Empty));
        assert_eq!(PairingFrames::default().push(&[0, 0]), Err(WireError::Empty));
    }

    #[test]
    fn what_follows_a_frame_is_refused_however_long_it_is() {
        for beyond in [1, 5_000] {
            let bytes = [vec![0, 1, 9], vec![0; beyond]].concat();
            let refused = Err(WireError::Trailing(beyond));
            assert_eq!(PairingFrames::default().push(&bytes), refused);
        }
    }

    #[test]
    fn a_text_is_cut_between_characters_and_a_longer_one_is_refused() {
        let mut writer = Writer::new();
        writer.short_text("aéé", 4);
        let bytes = writer.finish();
        assert_eq!(Reader::new(&bytes).short_text(4), Ok("aé"));
        let too_long = WireError::TooLong { bytes: 3, bytes_max: 2 };
        assert_eq!(Reader::new(&bytes).short_text(2), Err(too_long));
        assert_eq!(Reader::new(&[1, 0xFF]).short_text(2), Err(WireError::NotUtf8));
    }

    proptest! {
        #[test]
        fn values_round_trip(a in any::<u8>(), b in any::<u16>(), c in any::<u32>(), d in any::<u64>()) {
            let mut writer = Writer::new();
            writer.byte(a).u16(b).u32(c).u64(d).bytes(&[1, 2]);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.byte(), Ok(a));
            prop_assert_eq!(reader.u16(), Ok(b));
            prop_assert_eq!(reader.u32(), Ok(c));
            prop_assert_eq!(reader.u64(), Ok(d));
            prop_assert_eq!(reader.finish(), Err(WireError::Trailing(2)));
            prop_assert_eq!(reader.fixed(), Ok([1, 2]));
            prop_assert_eq!(reader.byte(), Err(WireError::CutOff));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn a_frame_arrives_however_it_is_cut(content in proptest::collection::vec(any::<u8>(), 1..40), step in 1..9_usize) {
            let frame = pairing_frame(&content).unwrap();
            let mut frames = PairingFrames::default();
            let mut found = Vec::new();
            for piece in frame.chunks(step) {
                found.extend(frames.push(piece).unwrap());
            }
            prop_assert_eq!(found, [content]);
        }
    }
}

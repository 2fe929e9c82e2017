//! The five messages of a pairing, and who a device says it is.
//!
//! ```text
//! M1  J->H  u8 version = 1 | u8 mode | id[8] | nonce[32] | proof[32] in mode Q | share[33]
//! M2  H->J  nonce[32] | share[33]
//! M3  J->H  introduction | mac[32]
//! M4  H->J  introduction | mac[32]
//! M5  J->H  mac[32]
//!
//! introduction   three times: u8 length | UTF-8       name, platform, version
//! ```

use super::code::PairingId;
use super::pake::SHARE_BYTES;
use crate::wire::{PAIRING_FRAME_BYTES_MAX, Reader, WireError, Writer, cut};

/// The version of the messages, and of everything that is computed from them.
pub const PAIRING_VERSION: u8 = 1;

/// Length of a device's name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: u8 = 64;

/// Length of a platform's tag and of a version, each, in bytes of UTF-8.
pub const TAG_BYTES_MAX: u8 = 32;

const MAC_BYTES: usize = 32;

const _: () = assert!(
    3 + NAME_BYTES_MAX as usize + 2 * TAG_BYTES_MAX as usize + MAC_BYTES < PAIRING_FRAME_BYTES_MAX
);

/// What the joiner knows of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The joiner has scanned the QR code. Q on the wire.
    Scanned,
    /// The joiner has the six digits only. K on the wire.
    KeyOnly,
}

impl Mode {
    /// Returns the byte that stands for the mode in messages and in what is computed from them.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Scanned => b'Q',
            Self::KeyOnly => b'K',
        }
    }
}

/// Who a device says it is: for people, and proven to come from whoever knows the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    name: String,
    platform: String,
    version: String,
}

impl Introduction {
    /// Describes a device. What is too long is cut, and what people cannot see is taken out:
    /// control characters, and characters that turn the direction of writing.
    pub fn new(name: &str, platform: &str, version: &str) -> Self {
        Self {
            name: visible(name, NAME_BYTES_MAX),
            platform: visible(platform, TAG_BYTES_MAX),
            version: visible(version, TAG_BYTES_MAX),
        }
    }

    /// What people call the device; may be empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of device, for a picture: `android`, `linux`, …
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The release the device runs.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.short_text(&self.name, NAME_BYTES_MAX);
        writer.short_text(&self.platform, TAG_BYTES_MAX);
        writer.short_text(&self.version, TAG_BYTES_MAX);
        writer.finish()
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let name = reader.short_text(NAME_BYTES_MAX)?;
        let platform = reader.short_text(TAG_BYTES_MAX)?;
        let version = reader.short_text(TAG_BYTES_MAX)?;
        Ok(Self::new(name, platform, version))
    }
}

fn visible(text: &str, bytes_max: u8) -> String {
    let visible: String = text.chars().filter(|char| !is_hidden(*char)).collect();
    cut(visible.trim(), bytes_max.into()).trim_end().to_owned()
}

/// A name must not reorder or break the line in which a person reads it.
fn is_hidden(char: char) -> bool {
    let turns = matches!(char, '\u{61C}' | '\u{200E}' | '\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(char, '\u{2028}' | '\u{2029}');
    char.is_control() || turns || breaks
}

/// M1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct First {
    pub(super) id: PairingId,
    pub(super) nonce: [u8; 32],
    pub(super) proof: Option<[u8; MAC_BYTES]>,
    pub(super) share: [u8; SHARE_BYTES],
}

impl First {
    /// The mode follows from the proof, so that no message says one and has the other.
    pub(super) const fn mode(&self) -> Mode {
        if self.proof.is_some() { Mode::Scanned } else { Mode::KeyOnly }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.byte(PAIRING_VERSION).byte(self.mode().byte());
        writer.bytes(&self.id.0).bytes(&self.nonce);
        writer.bytes(self.proof.as_ref().map_or(&[], |proof| proof.as_slice()));
        writer.bytes(&self.share);
        writer.finish()
    }

    /// Returns `None` for what is no first message of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.byte().ok()? != PAIRING_VERSION {
            return None;
        }
        let mode = reader.byte().ok()?;
        let id = PairingId(reader.fixed().ok()?);
        let nonce = reader.fixed().ok()?;
        let proof = match mode {
            b'Q' => Some(reader.fixed().ok()?),
            b'K' => None,
            _ => return None,
        };
        let share = reader.fixed().ok()?;
        reader.finish().ok()?;
        Some(Self { id, nonce, proof, share })
    }
}

/// M2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Second {
    pub(super) nonce: [u8; 32],
    pub(super) share: [u8; SHARE_BYTES],
}

impl Second {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(&self.nonce).bytes(&self.share);
        writer.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let second = Self { nonce: reader.fixed().ok()?, share: reader.fixed().ok()? };
        reader.finish().ok()?;
        Some(second)
    }
}

/// M3 and M4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    /// As it came: the MAC covers these bytes, not what is shown of them.
    pub(super) introduction_bytes: Vec<u8>,
    pub(super) introduction: Introduction,
    pub(super) mac: [u8; MAC_BYTES],
}

impl Proof {
    pub(super) fn encode(introduction_bytes: &[u8], mac: &[u8; MAC_BYTES]) -> Vec<u8> {
        [introduction_bytes, mac].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (introduction_bytes, mac) = bytes.split_last_chunk()?;
        let mut reader = Reader::new(introduction_bytes);
        let introduction = Introduction::read(&mut reader).ok()?;
        reader.finish().ok()?;
        Some(Self { introduction_bytes: introduction_bytes.to_vec(), introduction, mac: *mac })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_first_message_has_the_length_the_limit_speaks_of() {
        let first = First {
            id: PairingId([1; 8]),
            nonce: [2; 32],
            proof: Some([3; 32]),
            share: [4; SHARE_BYTES],
        };
        let bytes = first.encode();
        assert_eq!(bytes.len(), 107);
        assert_eq!(First::decode(&bytes), Some(first.clone()));
        let key_only = First { proof: None, ..first }.encode();
        assert_eq!(key_only.len(), 75);

        for wrong in [&bytes[..106], &[bytes.as_slice(), &[0]].concat(), &key_only[..74]] {
            assert_eq!(First::decode(wrong), None);
        }
        for (at, value) in [(0, 0), (0, 2), (1, b'K'), (1, b'q')] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            assert_eq!(First::decode(&wrong), None, "byte {at} is {value}");
        }
    }

    #[test]
    fn a_name_shows_what_it_is_and_keeps_to_its_line() {
        let name = |name: &str| Introduction::new(name, "", "").name().to_owned();
        assert_eq!(name(" Ana's\n phone\u{202E}\u{2067}\u{7} "), "Ana's phone");
        assert_eq!(name(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(name(&"x".repeat(65)), "x".repeat(64));
        assert_eq!(name(&"é".repeat(33)), "é".repeat(32));
        assert_eq!(name("\u{202E}"), "");
    }

    #[test]
    fn a_received_name_is_cleaned_and_a_longer_one_refused() {
        let mut writer = Writer::new();
        writer.short_text("a\u{202E}b", 64).short_text("linux", 32).short_text("0.1.0", 32);
        let bytes = writer.finish();
        let proof = Proof::decode(&Proof::encode(&bytes, &[9; 32])).unwrap();
        assert_eq!(proof.introduction, Introduction::new("ab", "linux", "0.1.0"));
        assert_eq!(proof.introduction_bytes, bytes);

        let longer = [&[65_u8][..], &[b'x'; 65], &[0, 0], &[9; 32]].concat();
        assert_eq!(Proof::decode(&longer), None);
        let most = [&[64_u8][..], &[b'x'; 64], &[0, 0], &[9; 32]].concat();
        assert!(Proof::decode(&most).is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = First::decode(&bytes) {
                prop_assert_eq!(first.encode(), bytes.clone());
            }
            if let Some(second) = Second::decode(&bytes) {
                prop_assert_eq!(second.encode(), bytes.clone());
            }
            if let Some(proof) = Proof::decode(&bytes) {
                prop_assert_eq!(Proof::encode(&proof.introduction_bytes, &proof.mac), bytes);
            }
        }

        #[test]
        fn introductions_round_trip(name in ".{0,80}", platform in ".{0,40}", version in ".{0,40}") {
            let introduction = Introduction::new(&name, &platform, &version);
            let proof = Proof::decode(&Proof::encode(&introduction.encode(), &[0; 32])).unwrap();
            prop_assert_eq!(proof.introduction, introduction);
        }
    }
}

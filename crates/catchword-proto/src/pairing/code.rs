//! What people carry from one device to the other: the key of six digits and the QR code.
//!
//! ```text
//! QR code   "CW1:" | base32, upper case, unpadded:
//!           u8 version = 1 | u8 flags = 0 | id[8] | fingerprint of the host[32] | secret[16]
//!           | u16 UDP port | up to four times: u8 4 | address[4]  or  u8 6 | address[16]
//! ```
//!
//! Not in it: the key, a name, and an expiry. The host enforces the expiry on its own clock.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use catchword_model::identity::Fingerprint;
use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use crate::wire::{Reader, WireError, Writer};

/// Characters of a QR code's text. More would make a code that cheap cameras do not read.
pub const QR_CHARS_MAX: usize = 220;

/// Addresses in a QR code: two networks, each with both families.
pub const QR_ADDRESSES_MAX: usize = 4;

/// Digits of a key. A person types them.
pub const KEY_DIGITS: usize = 6;

/// Keys there are.
pub const KEY_SPACE: u32 = 1_000_000;

/// What stands before the base32 of a QR code: so that a scanner knows whose code it is.
pub const QR_PREFIX: &str = "CW1:";

const QR_VERSION: u8 = 1;
const FAMILY_4: u8 = 4;
const FAMILY_6: u8 = 6;
const QR_BYTES_MAX: usize = 1 + 1 + 8 + 32 + 16 + 2 + QR_ADDRESSES_MAX * (1 + 16);

const _: () = assert!(QR_PREFIX.len() + (QR_BYTES_MAX * 8).div_ceil(5) <= QR_CHARS_MAX);

/// Names one window of one host. Random; zero stands for a window whose id is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairingId(pub [u8; 8]);

impl PairingId {
    /// Stands for whatever window is open: a joiner that has only an address uses it.
    pub const UNNAMED: Self = Self([0; 8]);
}

/// The six digits that a person types, new for every window. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingKey(Zeroizing<[u8; KEY_DIGITS]>);

impl PairingKey {
    /// Draws a key from 32 random bytes, every key with the same probability.
    ///
    /// Returns `None` for bytes that would favour some keys, about once in 10^29 draws: draw again
    /// from new ones.
    pub fn draw(random: &[u8; 32]) -> Option<Self> {
        const FAIR: u32 = u32::MAX - u32::MAX % KEY_SPACE;
        let words = random.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
        let word = words.into_iter().find(|word| *word < FAIR)?;
        Some(Self::numbered(word % KEY_SPACE))
    }

    /// Reads what a person typed: six digits, blanks and hyphens between them do not count.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if there is anything else.
    pub fn parse(typed: &str) -> Result<Self, KeyError> {
        let mut digits = Zeroizing::new([0; KEY_DIGITS]);
        let mut places = digits.iter_mut();
        for byte in typed.bytes().filter(|byte| !matches!(byte, b' ' | b'-')) {
            let place = places.next().filter(|_| byte.is_ascii_digit()).ok_or(KeyError)?;
            *place = byte;
        }
        if places.next().is_some() { Err(KeyError) } else { Ok(Self(digits)) }
    }

    /// Returns the six digits, to be shown to the person at the host and to nobody else.
    pub fn expose(&self) -> &[u8; KEY_DIGITS] {
        &self.0
    }

    fn numbered(number: u32) -> Self {
        let mut digits = Zeroizing::new([b'0'; KEY_DIGITS]);
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self(digits)
    }
}

/// The digits are left out.
impl fmt::Debug for PairingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingKey(..)")
    }
}

/// A key has six digits, and this has something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has six digits; type the six that the other device shows")]
#[non_exhaustive]
pub struct KeyError;

/// The 16 random bytes that only a QR code carries. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct QrSecret(Zeroizing<[u8; 16]>);

impl QrSecret {
    /// Takes over secret bytes. The caller wipes its own copy.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The bytes are left out.
impl fmt::Debug for QrSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QrSecret(..)")
    }
}

/// What a joiner learns from the host's screen: whom to expect, where, and a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QrCode {
    /// The window.
    pub id: PairingId,
    /// The only certificate that the joiner will talk to.
    pub host: Fingerprint,
    /// Proves that the joiner has seen the code.
    pub secret: QrSecret,
    /// UDP port of the host.
    pub port: u16,
    /// Where the host may be reached; [`QR_ADDRESSES_MAX`] at most.
    pub addresses: Vec<IpAddr>,
}

impl QrCode {
    /// Returns the text of the code. Addresses beyond [`QR_ADDRESSES_MAX`] are left out.
    ///
    /// The text contains the secret: it is drawn, and wiped when it is dropped.
    pub fn encode(&self) -> Zeroizing<String> {
        let mut writer = Writer::new();
        writer.byte(QR_VERSION).byte(0).bytes(&self.id.0).bytes(&self.host.0);
        writer.bytes(self.secret.expose()).u16(self.port);
        for address in self.addresses.iter().take(QR_ADDRESSES_MAX) {
            match address {
                IpAddr::V4(address) => writer.byte(FAMILY_4).bytes(&address.octets()),
                IpAddr::V6(address) => writer.byte(FAMILY_6).bytes(&address.octets()),
            };
        }
        let bytes = Zeroizing::new(writer.finish());
        let mut text = Zeroizing::new(String::with_capacity(QR_CHARS_MAX));
        text.push_str(QR_PREFIX);
        BASE32_NOPAD.encode_append(&bytes, &mut text);
        text
    }

    /// Reads the text of a code.
    ///
    /// # Errors
    ///
    /// [`QrError::Newer`] for a code that a newer release made, [`QrError::NotACode`] for anything
    /// else that is not exactly what [`encode`](Self::encode) returns.
    pub fn decode(text: &str) -> Result<Self, QrError> {
        if QR_CHARS_MAX < text.len() {
            return Err(QrError::NotACode);
        }
        let base32 = text.strip_prefix(QR_PREFIX).ok_or(QrError::NotACode)?;
        let bytes = BASE32_NOPAD.decode(base32.as_bytes()).map_err(|_| QrError::NotACode)?;
        let bytes = Zeroizing::new(bytes);
        let mut reader = Reader::new(&bytes);
        let version = reader.byte().map_err(|_| QrError::NotACode)?;
        if QR_VERSION < version {
            return Err(QrError::Newer);
        }
        if version != QR_VERSION {
            return Err(QrError::NotACode);
        }
        let flags = reader.byte().map_err(|_| QrError::NotACode)?;
        if flags != 0 {
            return Err(QrError::Newer);
        }
        Self::read(reader).map_err(|_| QrError::NotACode)
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let id = PairingId(reader.fixed()?);
        let host = Fingerprint(reader.fixed()?);
        let secret = QrSecret::new(reader.fixed()?);
        let port = reader.u16()?;
        let mut addresses = Vec::new();
        while !reader.rest().is_empty() && addresses.len() < QR_ADDRESSES_MAX {
            addresses.push(match reader.byte()? {
                FAMILY_4 => IpAddr::V4(Ipv4Addr::from(reader.fixed::<4>()?)),
                FAMILY_6 => IpAddr::V6(Ipv6Addr::from(reader.fixed::<16>()?)),
                _ => return Err(WireError::Trailing(reader.rest().len())),
            });
        }
        reader.finish()?;
        Ok(Self { id, host, secret, port, addresses })
    }
}

/// A text is not a code that this release reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QrError {
    /// The text is something else, or damaged.
    #[error("this is no catchword code; scan the one that the other device shows")]
    NotACode,
    /// A newer release made the code.
    #[error("a newer release made this code; update this device first")]
    Newer,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(addresses: usize) -> QrCode {
        let six = IpAddr::V6(Ipv6Addr::from_bits(0xFE80 << 112 | 7));
        QrCode {
            id: PairingId([1; 8]),
            host: Fingerprint([2; 32]),
            secret: QrSecret::new([3; 16]),
            port: 4_433,
            addresses: vec![six; addresses],
        }
    }

    #[test]
    fn a_code_with_all_addresses_is_short_enough_and_a_fifth_address_is_left_out() {
        let longest = code(QR_ADDRESSES_MAX).encode();
        assert_eq!(longest.len(), 209);
        assert_eq!(QrCode::decode(&longest), Ok(code(QR_ADDRESSES_MAX)));
        assert_eq!(code(QR_ADDRESSES_MAX + 1).encode(), longest);
    }

    #[test]
    fn a_code_with_a_fifth_address_or_a_foreign_alphabet_is_refused() {
        let text = code(0).encode();
        let bytes = BASE32_NOPAD.decode(text[QR_PREFIX.len()..].as_bytes()).unwrap();
        let with = |more: &[u8]| {
            let base32 = BASE32_NOPAD.encode(&[&bytes, more].concat());
            QrCode::decode(&format!("{QR_PREFIX}{base32}")).map(|code| code.addresses.len())
        };
        let four = [4, 127, 0, 0, 1];

        assert_eq!(with(&four.repeat(4)), Ok(4));
        assert_eq!(with(&four.repeat(5)), Err(QrError::NotACode));
        assert_eq!(with(&[5, 1, 1, 1, 1]), Err(QrError::NotACode));
        assert_eq!(with(&[4, 1, 1, 1]), Err(QrError::NotACode));
        assert_eq!(QrCode::decode(&text.to_lowercase()), Err(QrError::NotACode));
        assert_eq!(QrCode::decode(&text[1..]), Err(QrError::NotACode));
        assert_eq!(QrCode::decode(&format!("{}=", *text)), Err(QrError::NotACode));
    }

    #[test]
    fn another_version_or_a_flag_is_refused_by_name() {
        let text = code(0).encode();
        let bytes = BASE32_NOPAD.decode(text[QR_PREFIX.len()..].as_bytes()).unwrap();
        let with = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            QrCode::decode(&format!("{QR_PREFIX}{}", BASE32_NOPAD.encode(&bytes))).err()
        };

        assert_eq!(with(0, 1), None);
        assert_eq!(with(0, 0), Some(QrError::NotACode));
        assert_eq!(with(0, 2), Some(QrError::Newer));
        assert_eq!(with(1, 1), Some(QrError::Newer));
    }

    #[test]
    fn a_text_one_character_too_long_is_not_decoded() {
        let text = format!("{QR_PREFIX}{}", "A".repeat(QR_CHARS_MAX + 1 - QR_PREFIX.len()));
        assert_eq!(QrCode::decode(&text), Err(QrError::NotACode));
    }

    #[test]
    fn a_word_that_favours_small_keys_is_passed_over() {
        let key = |words: [u32; 8]| {
            let mut random = [0; 32];
            for (to, word) in random.chunks_exact_mut(4).zip(words) {
                to.copy_from_slice(&word.to_be_bytes());
            }
            PairingKey::draw(&random).map(|key| *key.expose())
        };
        let unfair = 4_294_000_000;

        assert_eq!(key([unfair - 1; 8]), Some(*b"999999"));
        assert_eq!(key([unfair, 7, 0, 0, 0, 0, 0, 0]), Some(*b"000007"));
        assert_eq!(key([unfair; 8]), None);
        assert_eq!(key([u32::MAX; 8]), None);
    }

    #[test]
    fn a_key_is_read_as_people_type_it_and_nothing_else_is_a_key() {
        let key = PairingKey::parse("012345").unwrap();
        assert_eq!(key.expose(), b"012345");
        assert_eq!(PairingKey::parse("012 345"), Ok(key.clone()));
        assert_eq!(PairingKey::parse(" 012-345 "), Ok(key));
        for wrong in ["", "01234", "0123456", "01234x", "０１２３４５"] {
            assert_eq!(PairingKey::parse(wrong), Err(KeyError), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?} {:?}", code(0), PairingKey::parse("918273").unwrap());
        assert!(!printed.contains("918273"), "{printed}");
        assert!(printed.contains("QrSecret(..)"), "{printed}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic_and_what_it_takes_it_would_write(text in "(CW1:)?[A-Z2-7]{0,230}") {
            if let Ok(code) = QrCode::decode(&text) {
                prop_assert_eq!(&*code.encode(), &text);
            }
        }

        #[test]
        fn codes_round_trip(id in any::<[u8; 8]>(), secret in any::<[u8; 16]>(), port in any::<u16>(), addresses in proptest::collection::vec(any::<IpAddr>(), 0..5)) {
            let code = QrCode { id: PairingId(id), secret: QrSecret::new(secret), port, addresses, ..code(0) };
            prop_assert_eq!(QrCode::decode(&code.encode()), Ok(code));
        }
    }
}

//! Who a device is to others: its public key, and the fingerprint of its certificate.
//!
//! # What is not here
//!
//! The secret key and the certificate itself: the engine keeps them.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};

use crate::id::{DeviceId, Generation, ParseIdError, hex_digits, hex_id, sha256};

/// Groups of characters in the form that people compare.
const GROUPS: usize = 8;
/// Characters in each group.
const GROUP_CHARS: usize = 4;
/// Bytes that the groups stand for: each character carries five bits.
const SHOWN_BYTES: usize = GROUPS * GROUP_CHARS * 5 / 8;

/// Length of a public key as a DER-encoded `SubjectPublicKeyInfo`, in bytes.
pub const SPKI_BYTES: usize = SPKI_PREFIX.len() + KEY_BYTES;

/// Length of a signature, in bytes.
pub const SIGNATURE_BYTES: usize = 64;

const KEY_BYTES: usize = 32;

/// What stands before the 32 bytes of an Ed25519 key in a DER-encoded `SubjectPublicKeyInfo`.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

hex_id!(
    /// A peer: the SHA-256 of the whole DER encoding of its certificate.
    ///
    /// Programs compare all 32 bytes. People compare [`groups`](Self::groups), which stand for the
    /// first 20 of them.
    Fingerprint, 32, "a fingerprint of 64 hex digits"
);

impl Fingerprint {
    /// Returns the fingerprint of a DER-encoded certificate.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self(sha256(&[der]))
    }

    /// Returns the form that is shown to people: eight groups of four characters of base32 (RFC 4648,
    /// upper case), with a space between.
    ///
    /// # Examples
    ///
    /// ```
    /// use catchword_model::identity::Fingerprint;
    ///
    /// let fingerprint = Fingerprint::of_certificate(b"certificate");
    /// assert_eq!(fingerprint.groups(), "APLG 3UEI GXA4 UPYS RTHK ZUPT DLEU CYYJ");
    /// ```
    pub fn groups(&self) -> String {
        let (shown, _) = self.0.split_at(SHOWN_BYTES);
        let text = data_encoding::BASE32_NOPAD.encode(shown);
        let mut groups = String::with_capacity(text.len() + GROUPS);
        for (place, char) in text.chars().enumerate() {
            if 0 < place && place % GROUP_CHARS == 0 {
                groups.push(' ');
            }
            groups.push(char);
        }
        groups
    }
}

/// The public half of a device's Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Returns the public half of a secret key.
    pub fn of_secret(secret: &[u8; KEY_BYTES]) -> Self {
        Self(SigningKey::from_bytes(secret).verifying_key())
    }

    /// Reads a key from its 32 bytes.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] if they are no point of the curve, or one under which anybody can sign.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<Self, PublicKeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| PublicKeyError)?;
        if key.is_weak() { Err(PublicKeyError) } else { Ok(Self(key)) }
    }

    /// Reads a key from a DER-encoded `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] if it is not the one encoding of a usable Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let key = spki.strip_prefix(&SPKI_PREFIX).ok_or(PublicKeyError)?;
        Self::from_bytes(key.try_into().map_err(|_| PublicKeyError)?)
    }

    /// Returns the 32 bytes of the key.
    pub fn to_bytes(self) -> [u8; KEY_BYTES] {
        self.0.to_bytes()
    }

    /// Returns the key as a DER-encoded `SubjectPublicKeyInfo`.
    pub fn to_spki(self) -> [u8; SPKI_BYTES] {
        let mut spki = [0; SPKI_BYTES];
        let (prefix, key) = spki.split_at_mut(SPKI_PREFIX.len());
        prefix.copy_from_slice(&SPKI_PREFIX);
        key.copy_from_slice(&self.to_bytes());
        spki
    }

    /// Returns the device that this key is in one generation of its store.
    pub fn device(self, generation: Generation) -> DeviceId {
        DeviceId::derive(&self.to_spki(), generation)
    }

    /// Returns whether the signature of a message is this key's.
    ///
    /// The strict rule of RFC 8032, so that every device decides alike: a small-order key or nonce, and
    /// a second spelling of a signature, are refused.
    pub fn verify(self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", data_encoding::HEXLOWER.encode(&self.to_bytes()))
    }
}

/// Bytes are not a public key that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 public key")]
#[non_exhaustive]
pub struct PublicKeyError;

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer as _;

    use super::*;

    fn key() -> (SigningKey, PublicKey) {
        let key = SigningKey::from_bytes(&[7; 32]);
        (key, PublicKey::of_secret(&[7; 32]))
    }

    #[test]
    fn people_compare_eight_groups_and_programs_all_of_it() {
        let fingerprint = Fingerprint([0xff; 32]);
        let mut other = fingerprint;
        other.0[31] ^= 1;

        assert_eq!(fingerprint.groups(), ["7777"; 8].join(" "));
        assert_eq!(fingerprint.groups(), other.groups());
        assert_ne!(fingerprint, other);
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));

        other.0[19] ^= 1;
        assert_eq!(other.groups(), format!("{}7776", "7777 ".repeat(7)));
    }

    #[test]
    fn a_key_round_trips_and_nothing_else_is_one() {
        let (_, public) = key();
        assert_eq!(PublicKey::from_spki(&public.to_spki()), Ok(public));

        let spki = public.to_spki();
        for cut in 0..spki.len() {
            assert_eq!(PublicKey::from_spki(&spki[..cut]), Err(PublicKeyError), "cut at {cut}");
        }
        let longer = [&spki[..], &[0]].concat();
        assert_eq!(PublicKey::from_spki(&longer), Err(PublicKeyError));
        for place in 0..SPKI_PREFIX.len() {
            let mut other = spki;
            other[place] ^= 1;
            assert_eq!(PublicKey::from_spki(&other), Err(PublicKeyError), "at {place}");
        }
    }

    #[test]
    fn a_key_under_which_anybody_can_sign_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(PublicKeyError));
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(PublicKeyError), "a point of order 4");
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_alone() {
        let (key, public) = key();
        let signature = key.sign(b"message").to_bytes();

        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"massage", &signature));
        for bit in 0..8 * SIGNATURE_BYTES {
            let mut other = signature;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!public.verify(b"message", &other), "bit {bit}");
        }
        assert!(!PublicKey::of_secret(&[8; 32]).verify(b"message", &signature));
    }

    #[test]
    fn a_second_spelling_of_a_signature_is_refused() {
        let (key, public) = key();
        let signature = key.sign(b"message").to_bytes();
        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"message", &plus_order(signature)));
    }

    /// Adds the order of the group to the second half: the same scalar, spelled another way.
    fn plus_order(mut signature: [u8; SIGNATURE_BYTES]) -> [u8; SIGNATURE_BYTES] {
        let order = data_encoding::HEXLOWER
            .decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
            .unwrap();
        let mut carry = 0;
        for (byte, more) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(more) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        signature
    }
}

//! Keys that two paired devices derive from what they share, and the tags made with them.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::PairSecret;

/// Length of a key and of a whole tag, in bytes.
pub const MAC_BYTES: usize = 32;

/// A key for HMAC-SHA-256, wiped when it is dropped.
#[derive(Clone)]
pub struct MacKey(Zeroizing<[u8; MAC_BYTES]>);

impl MacKey {
    /// Derives the key of one purpose: HKDF-SHA-256, expand only, with the parts one after the other as
    /// its info.
    pub fn derive(secret: &PairSecret, info: &[&[u8]]) -> Self {
        Self(expand(&extracted(secret), info))
    }

    /// Takes over the bytes of a key that was derived in another way.
    pub(crate) const fn new(key: Zeroizing<[u8; MAC_BYTES]>) -> Self {
        Self(key)
    }

    /// Returns the tag of the parts, one after the other.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        self.feed(parts).finalize().into_bytes().into()
    }

    /// Returns whether the tag is that of the parts, in a time that does not depend on where they
    /// differ.
    pub fn verifies(&self, parts: &[&[u8]], tag: &[u8; MAC_BYTES]) -> bool {
        self.feed(parts).verify_slice(tag).is_ok()
    }

    fn feed(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

fn extracted(secret: &PairSecret) -> Hkdf<Sha256> {
    Hkdf::from_prk(secret.expose()).expect("a secret is as long as a hash")
}

/// Returns 32 bytes of HKDF-Expand, with the parts one after the other as its info.
pub(crate) fn expand(hkdf: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<[u8; MAC_BYTES]> {
    let mut key = Zeroizing::new([0; MAC_BYTES]);
    hkdf.expand_multi_info(info, &mut *key).expect("a key is as long as a hash");
    key
}

/// The bytes are left out.
impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with another implementation: `HMAC(secret, "label" ‖ "part" ‖ 01)`, and under that key
    /// `HMAC(key, "message")`.
    #[test]
    fn keys_and_tags_follow_the_written_rule() {
        let key = MacKey::derive(&PairSecret::new([7; 32]), &[b"label", b"part"]);
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!(hex(&*key.0), KEY);
        assert_eq!(hex(&key.tag(&[b"mess", b"age"])), TAG);
    }

    #[test]
    fn a_tag_holds_for_its_message_and_key_alone() {
        let key = MacKey::derive(&PairSecret::new([7; 32]), &[b"label"]);
        let other = MacKey::derive(&PairSecret::new([7; 32]), &[b"lable"]);
        let tag = key.tag(&[b"message"]);

        assert!(key.verifies(&[b"message"], &tag));
        assert!(!key.verifies(&[b"massage"], &tag));
        assert!(!other.verifies(&[b"message"], &tag));
    }

    #[test]
    fn a_key_does_not_print_its_bytes() {
        let key = MacKey::derive(&PairSecret::new([7; 32]), &[b"label"]);
        assert_eq!(format!("{key:?}"), "MacKey(..)");
    }

    const KEY: &str = "ac47d81d36e7c8bc12a8d1a59ddcf259587e0f3380ec71d80ca3e0abc8da66eb";
    const TAG: &str = "a625a5faae0746d31227698eb1f765011ff49e263db0d7853f8b7fd4f59f92fd";
}

//! Secrets that are wiped when they are dropped and never printed.

use std::fmt;

use zeroize::Zeroizing;

/// Length of a secret, in bytes.
pub const SECRET_BYTES: usize = 32;

/// What two paired devices share: 32 bytes from their pairing.
///
/// Never used as a key itself; every key is derived from it under a label of its own.
#[derive(Clone)]
pub struct PairSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl PairSecret {
    /// Takes over secret bytes. The caller wipes its own copy.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the secret bytes, to be kept in a key store.
    pub fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

/// The bytes are left out.
impl fmt::Debug for PairSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairSecret(..)")
    }
}

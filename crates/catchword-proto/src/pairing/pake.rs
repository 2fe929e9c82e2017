//! The exchange that turns a password of six digits into a strong key.
//!
//! Wire version 1 is SPAKE2 over Ed25519 as the crate `spake2` computes it; the host is its side A.
//! That crate is not audited, and its transcript is not the one of RFC 9382. The bound on guessing
//! does not rest on either: confirmations, identities and the binding to the connection are ours
//! and cover the shares. So the exchange is behind [`Pake`], and can be replaced.

use std::fmt;

use spake2::{Ed25519Group, Identity, Password};
use zeroize::Zeroizing;

/// Length of a share, in bytes: a letter for the side, and a point.
pub const SHARE_BYTES: usize = 33;

/// Random bytes from which a share is made.
pub const PAKE_RANDOM_BYTES: usize = 64;

/// The two sides of a pairing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Shows the key.
    Host,
    /// Types the key.
    Joiner,
}

/// Both sides' identities, each with its role and the certificate of this connection.
#[derive(Debug, Clone, Copy)]
pub struct Identities<'a> {
    /// Of the host.
    pub host: &'a [u8],
    /// Of the joiner.
    pub joiner: &'a [u8],
}

/// One side of one run of a balanced password-authenticated key exchange.
pub trait Pake: Sized {
    /// Begins a run, and returns the share for the other side.
    ///
    /// `random` is used for nothing else.
    fn start(
        role: Role,
        password: &[u8; 32],
        identities: Identities<'_>,
        random: &[u8; PAKE_RANDOM_BYTES],
    ) -> (Self, [u8; SHARE_BYTES]);

    /// Returns the key. It is the other side's only if both had one password and these identities.
    ///
    /// # Errors
    ///
    /// [`BadShare`] if no honest side sends such a share.
    fn finish(self, share: &[u8; SHARE_BYTES]) -> Result<Zeroizing<Vec<u8>>, BadShare>;
}

/// No honest side sends such a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share is no point that an honest device sends")]
#[non_exhaustive]
pub struct BadShare;

/// SPAKE2 over Ed25519 as the crate `spake2` computes it, with the host as its side A: version 1.
pub struct Spake2 {
    side: spake2::Spake2<Ed25519Group>,
}

impl Pake for Spake2 {
    fn start(
        role: Role,
        password: &[u8; 32],
        identities: Identities<'_>,
        random: &[u8; PAKE_RANDOM_BYTES],
    ) -> (Self, [u8; SHARE_BYTES]) {
        let password = Password::new(password);
        let host = Identity::new(identities.host);
        let joiner = Identity::new(identities.joiner);
        let drawn = Drawn { random, taken: 0 };
        let (side, share) = match role {
            Role::Host => spake2::Spake2::start_a_with_rng(&password, &host, &joiner, drawn),
            Role::Joiner => spake2::Spake2::start_b_with_rng(&password, &host, &joiner, drawn),
        };
        let share = share.try_into().expect("a share is a letter and a point");
        (Self { side }, share)
    }

    fn finish(self, share: &[u8; SHARE_BYTES]) -> Result<Zeroizing<Vec<u8>>, BadShare> {
        let [_, point @ ..] = share;
        if !is_canonical(point) || is_of_small_order(point) {
            return Err(BadShare);
        }
        self.side.finish(share).map(Zeroizing::new).map_err(|_| BadShare)
    }
}

/// The state is left out.
impl fmt::Debug for Spake2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spake2(..)")
    }
}

/// Hands out the bytes it was given, once, to a crate that wants a generator.
struct Drawn<'a> {
    random: &'a [u8; PAKE_RANDOM_BYTES],
    taken: usize,
}

impl rand_core::RngCore for Drawn<'_> {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        let end = self.taken + to.len();
        let bytes = self.random.get(self.taken..end);
        to.copy_from_slice(bytes.expect("a share takes 64 random bytes"));
        self.taken = end;
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

impl rand_core::CryptoRng for Drawn<'_> {}

/// The prime of the field, 2^255 - 19, least byte first.
const PRIME: [u8; 32] = {
    let mut prime = [0xFF; 32];
    prime[0] = 0xED;
    prime[31] = 0x7F;
    prime
};

/// The points whose order divides 8, by their coordinate y, least byte first: those of order 4 (0),
/// 1 (1), 2 (-1) and twice two of order 8.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = PRIME;
        minus_one[0] = 0xEC;
        minus_one
    },
    [
        0x26, 0xE8, 0x95, 0x8F, 0xC2, 0xB2, 0x27, 0xB0, 0x45, 0xC3, 0xF4, 0x89, 0xF2, 0xEF, 0x98,
        0xF0, 0xD5, 0xDF, 0xAC, 0x05, 0xD3, 0xC6, 0x33, 0x39, 0xB1, 0x38, 0x02, 0x88, 0x6D, 0x53,
        0xFC, 0x05,
    ],
    [
        0xC7, 0x17, 0x6A, 0x70, 0x3D, 0x4D, 0xD8, 0x4F, 0xBA, 0x3C, 0x0B, 0x76, 0x0D, 0x10, 0x67,
        0x0F, 0x2A, 0x20, 0x53, 0xFA, 0x2C, 0x39, 0xCC, 0xC6, 0x4E, 0xC7, 0xFD, 0x77, 0x92, 0xAC,
        0x03, 0x7A,
    ],
];

/// Takes the sign of x out of an encoded point; what is left is y.
fn coordinate_y(point: &[u8; 32]) -> [u8; 32] {
    let mut y = *point;
    if let Some(last) = y.last_mut() {
        *last &= 0x7F;
    }
    y
}

/// One point has one encoding: y below the prime. The crate would take another too.
fn is_canonical(point: &[u8; 32]) -> bool {
    coordinate_y(point).iter().rev().lt(PRIME.iter().rev())
}

/// With such a share an impostor would know part of the key without a guess.
fn is_of_small_order(point: &[u8; 32]) -> bool {
    SMALL_ORDER.contains(&coordinate_y(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with another implementation of SPAKE2 with the constants of the Python package of that
    /// name: the host is side A, and what is random is a number of 64 bytes, least first.
    const HOST: &str = "4110a2aa2d6b5bc1246cad708a506dae2b4675d3439037e78917751997ca3c9865";
    const JOINER: &str = "42feff50b6177b67c66eab02bd46483149fed0027daf29f7165ff607475f5825af";
    const KEY: &str = "0e9461e6761f3e445034a726be171de6601025f6bdd2f3d392ff2ad8ed9f3a5d";

    #[test]
    fn the_exchange_is_the_one_that_version_1_means() {
        let identities = Identities { host: b"host", joiner: b"join" };
        let (host, x) = Spake2::start(Role::Host, &[7; 32], identities, &[8; 64]);
        let (joiner, y) = Spake2::start(Role::Joiner, &[7; 32], identities, &[9; 64]);

        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!((hex(&x), hex(&y)), (HOST.to_owned(), JOINER.to_owned()));
        assert_eq!(hex(&host.finish(&y).unwrap()), KEY);
        assert_eq!(hex(&joiner.finish(&x).unwrap()), KEY);
    }

    #[test]
    fn another_password_or_identity_gives_another_key() {
        let identities = Identities { host: b"host", joiner: b"join" };
        let others = Identities { host: b"host", joiner: b"joim" };
        for (password, identities) in [([6; 32], identities), ([7; 32], others)] {
            let honest = Identities { host: b"host", joiner: b"join" };
            let (host, x) = Spake2::start(Role::Host, &[7; 32], honest, &[8; 64]);
            let (joiner, y) = Spake2::start(Role::Joiner, &password, identities, &[9; 64]);
            assert_ne!(host.finish(&y).unwrap(), joiner.finish(&x).unwrap());
        }
    }
}

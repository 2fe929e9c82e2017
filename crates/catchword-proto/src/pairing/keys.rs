//! Everything that is computed in a pairing. The formulas are those of `docs/PAIRING.md`.

use std::fmt;

use catchword_model::id::sha256;
use catchword_model::identity::Fingerprint;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::code::{PairingId, PairingKey, QrSecret};
use super::message::Mode;
use crate::mac::{MacKey, expand};
use crate::secret::PairSecret;

/// Label under which both sides export a value from their TLS session; the context is the id in M1.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-catchword-pair-v1";

/// What both sides exported from their TLS session: nobody on another connection has it.
#[derive(Clone)]
pub struct Exporter(Zeroizing<[u8; 32]>);

impl Exporter {
    /// Takes over exported bytes. The caller wipes its own copy.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

/// The bytes are left out.
impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}

/// What a pairing is about, as the side that computes sees it, and never as a message says it.
pub(super) struct Setting<'a> {
    pub(super) mode: Mode,
    /// As it stands in M1.
    pub(super) id: PairingId,
    pub(super) host: Fingerprint,
    pub(super) joiner: Fingerprint,
    pub(super) exporter: &'a Exporter,
}

impl Setting<'_> {
    pub(super) fn host_identity(&self) -> Vec<u8> {
        [b"host".as_slice(), &self.host.0].concat()
    }

    pub(super) fn joiner_identity(&self) -> Vec<u8> {
        [b"join".as_slice(), &self.joiner.0].concat()
    }

    /// Returns the password: from the six digits, and in mode Q from the QR code's secret.
    pub(super) fn password(
        &self,
        key: &PairingKey,
        secret: Option<&QrSecret>,
    ) -> Zeroizing<[u8; 32]> {
        let secret = secret.map_or([].as_slice(), |secret| secret.expose());
        let mut material = Zeroizing::new(Vec::with_capacity(32));
        material.extend_from_slice(key.expose());
        material.extend_from_slice(secret);
        let extracted = Hkdf::<Sha256>::new(Some(b"catchword/pair/pw/v1"), &material);
        expand(&extracted, &[&[self.mode.byte()], &self.id.0])
    }

    /// Returns the proof that the joiner has seen the QR code.
    pub(super) fn qr_proof(&self, secret: &QrSecret, nonce: &[u8; 32]) -> [u8; 32] {
        // One block of HKDF-Expand, written out: the secret is shorter than the crate allows.
        let mut expand = Hmac::<Sha256>::new_from_slice(secret.expose())
            .expect("HMAC takes a key of any length");
        expand.update(b"catchword/pair/qrproof/v1\x01");
        let key = MacKey::new(Zeroizing::new(expand.finalize().into_bytes().into()));
        key.tag(&[self.exporter.0.as_slice(), nonce])
    }

    /// Ties the key of the exchange to everything that both sides saw.
    pub(super) fn confirmation(&self, first: &[u8], second: &[u8], key: &[u8]) -> Confirmation {
        let transcript = sha256(&[
            b"catchword/pair/v1",
            &[self.mode.byte()],
            &self.id.0,
            &self.host.0,
            &self.joiner.0,
            self.exporter.0.as_slice(),
            &length(first),
            first,
            &length(second),
            second,
        ]);
        let extracted = Hkdf::<Sha256>::new(Some(&transcript), key);
        let key = |label: &[u8]| MacKey::new(expand(&extracted, &[label]));
        Confirmation {
            transcript,
            joiner: key(b"catchword/pair/confirm/joiner/v1"),
            host: key(b"catchword/pair/confirm/host/v1"),
            acknowledgement: key(b"catchword/pair/ack/joiner/v1"),
            secret: PairSecret::new(*expand(&extracted, &[b"catchword/pair/secret/v1"])),
        }
    }
}

fn length(message: &[u8]) -> [u8; 4] {
    u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// Compares two MACs in a time that says nothing about where they differ.
pub(super) fn same_mac(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.ct_eq(right).into()
}

/// The keys with which each side proves that it has the other's key, and the secret they share.
#[derive(Debug)]
pub(super) struct Confirmation {
    transcript: [u8; 32],
    joiner: MacKey,
    host: MacKey,
    acknowledgement: MacKey,
    secret: PairSecret,
}

impl Confirmation {
    /// The MAC of M3.
    pub(super) fn joiner_mac(&self, introduction: &[u8]) -> [u8; 32] {
        self.joiner.tag(&[&self.transcript, introduction])
    }

    /// The MAC of M4.
    pub(super) fn host_mac(&self, introduction: &[u8], joiner_mac: &[u8; 32]) -> [u8; 32] {
        self.host.tag(&[&self.transcript, introduction, joiner_mac])
    }

    /// The MAC of M5.
    pub(super) fn acknowledgement(&self, host_mac: &[u8; 32]) -> [u8; 32] {
        self.acknowledgement.tag(&[host_mac])
    }

    pub(super) fn secret(&self) -> PairSecret {
        self.secret.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    /// Each computed with another implementation, from the formulas: (mode, password, M3, M4, M5,
    /// secret).
    const EXPECTED: [(Mode, [&str; 5]); 2] = [
        (
            Mode::Scanned,
            [
                "fba48565dfc48120da661e7462105725f6276c0973a696d453927e68ed143b56",
                "0bf8f5fdc4eb8f2a0478ae10d0c4022041c08a7eec9edd4a4ab53a5d6b029864",
                "264da4fdfd6554336b6c89033babaca6dc92d4e6515b6c1f7a439475a02a2c20",
                "69fc08f1d95357686e1cd347f41c9021cb4757f24fefd983dfc17b955d202d0f",
                "ff52cc9955a71d06a3bef425b3efbb05ad74264ea9ebcd1378e16e55960d6658",
            ],
        ),
        (
            Mode::KeyOnly,
            [
                "2d5cb259f0ef57d9c5b2becf9d4be6667427c921b4bcbe42e039c929666ecc0e",
                "24e7fb7a7413840221dcd692a66578226bfedb04460e50da0b49fd7210ae16f9",
                "a067fdfe82221b1a97f687e8abe41a5fdb1e1088318e179a1ee725f848a5daba",
                "2e9f58c883ce3da1e1784aa2302aea77292dbd55c91fb6c0f42819e32b610fd0",
                "4f3473ac1c338da07a7ffdfe20f7c08216a7b4a814bf8331e2fa78ca87cdad00",
            ],
        ),
    ];

    #[test]
    fn everything_is_computed_as_it_is_written() {
        let exporter = Exporter::new([5; 32]);
        let (host, joiner) = (Fingerprint([0xA0; 32]), Fingerprint([0xB0; 32]));
        let (key, code) = (PairingKey::parse("123456").unwrap(), QrSecret::new([3; 16]));
        for (mode, expected) in EXPECTED {
            let id = PairingId([1; 8]);
            let setting = Setting { mode, id, host, joiner, exporter: &exporter };
            let code = (mode == Mode::Scanned).then_some(&code);
            let confirmation = setting.confirmation(b"first", b"second", b"key");
            let third = confirmation.joiner_mac(b"joiner");
            let fourth = confirmation.host_mac(b"host", &third);
            let computed = [
                *setting.password(&key, code),
                third,
                fourth,
                confirmation.acknowledgement(&fourth),
                *confirmation.secret().expose(),
            ];
            assert_eq!(computed.map(|bytes| hex(&bytes)), expected, "{mode:?}");
        }
    }

    #[test]
    fn the_proof_of_the_code_is_computed_as_it_is_written() {
        let exporter = Exporter::new([5; 32]);
        let (host, joiner) = (Fingerprint([0xA0; 32]), Fingerprint([0xB0; 32]));
        let (mode, id) = (Mode::Scanned, PairingId([1; 8]));
        let setting = Setting { mode, id, host, joiner, exporter: &exporter };
        assert_eq!(
            hex(&setting.qr_proof(&QrSecret::new([3; 16]), &[6; 32])),
            "4816d82e948d6686968fecc6cd87cc7557320ade613a130cd47dd548e0e9eeb0"
        );
    }
}

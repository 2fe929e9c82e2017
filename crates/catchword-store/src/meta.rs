//! The names in `meta`, and reading them.

use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, Author, DeviceId, DocumentId, Generation};

use crate::bytes::{Reader, Writer};
use crate::error::{LoadError, corrupt, load};
use crate::snapshot::Snapshot;

/// The format this release writes.
pub const FORMAT: u32 = 1;

pub(crate) const FORMAT_NAME: &str = "format";
pub(crate) const DRAINED: &str = "drained";
pub(crate) const NEXT_SEQUENCE: &str = "next_sequence";
pub(crate) const CLOCK: &str = "clock";
pub(crate) const WAL: &str = "wal";
/// The sum of the items of all documents. See `exchange/common.rs`.
pub(crate) const SUM: &str = "sum";
/// Bytes of everything parked.
pub(crate) const PARKED_BYTES: &str = "parked_bytes";
/// The first stamp of somebody else that was ahead of the wall clock. See `exchange/ahead.rs`.
pub(crate) const AHEAD: &str = "ahead";
/// Which of this device's actors writes in documents that were purged. See `purge.rs`.
pub(crate) const ACTORS: &str = "actors";
/// The account that the library is signed in to, or was last. Absent until the first one.
pub(crate) const CLOUD_ACCOUNT: &str = "cloud_account";
pub(crate) const IDENTITY: &str = "identity";
/// What is kept of the windows in which devices were paired. Absent until the first one.
pub(crate) const PAIRING_WINDOWS: &str = "pairing_windows";
/// Present from when another `wal` was found until a new generation has started.
pub(crate) const OTHER_WAL: &str = "other_wal";
/// A document that is being laid out anew. See `exchange/forks/rebuild.rs`.
pub(crate) const ANEW: &str = "anew";
/// Present from when this device's present generation was seen to fork until a new one has started.
pub(crate) const FORKED: &str = "forked";
/// In `wal`: the random id that `library` knows it by.
pub(crate) const WAL_ID: &str = "id";

/// Who this library is: the generation, its device, the key, and the devices it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredIdentity {
    pub(crate) generation: Generation,
    pub(crate) device: DeviceId,
    pub(crate) public_key_spki: Vec<u8>,
    /// Newest last.
    pub(crate) replaced: Vec<Former>,
}

/// A device that this library was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) device: DeviceId,
    pub(crate) generation: Generation,
}

impl StoredIdentity {
    pub(crate) fn new(generation: Generation, public_key_spki: &[u8]) -> Self {
        Self {
            generation,
            device: DeviceId::derive(public_key_spki, generation),
            public_key_spki: public_key_spki.to_vec(),
            replaced: Vec::new(),
        }
    }

    /// Makes the identity of the generation after this one.
    pub(crate) fn succeeded_by(&self, generation: Generation, public_key_spki: &[u8]) -> Self {
        let mut replaced = self.replaced.clone();
        replaced.push(Former { device: self.device, generation: self.generation });
        Self { replaced, ..Self::new(generation, public_key_spki) }
    }

    /// Returns the generation of a device that this library is or was, with its present key.
    pub(crate) fn generation_of(&self, device: DeviceId) -> Option<Generation> {
        let own = std::iter::once(self.generation);
        let formers = self.replaced.iter().map(|former| former.generation);
        own.chain(formers)
            .find(|generation| DeviceId::derive(&self.public_key_spki, *generation) == device)
    }

    /// Returns the generation in which one of this library's first actors in a document, up to `n_max`,
    /// is this one, and which of them it is.
    pub(crate) fn generation_with_actor(
        &self,
        document: DocumentId,
        actor: ActorId,
        n_max: u32,
    ) -> Option<(Generation, u32)> {
        let own = std::iter::once(self.generation);
        let formers = self.replaced.iter().map(|former| former.generation);
        own.chain(formers).find_map(|generation| {
            let device = DeviceId::derive(&self.public_key_spki, generation);
            let n = (0..=n_max).find(|n| Author { device, n: *n }.actor(document) == actor)?;
            Some((generation, n))
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.fixed(&self.generation.0).fixed(&self.device.0).prefixed(&self.public_key_spki);
        out.len(self.replaced.len());
        self.replaced.iter().for_each(|former| {
            out.fixed(&former.device.0).fixed(&former.generation.0);
        });
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        let generation = Generation(input.fixed()?);
        let device = DeviceId(input.fixed()?);
        let public_key_spki = input.prefixed()?.to_vec();
        let count = input.count()?;
        let replaced = (0..count).map(|_| {
            let device = DeviceId(input.fixed()?);
            Ok(Former { device, generation: Generation(input.fixed()?) })
        });
        let replaced = replaced.collect::<Result<_, LoadError>>()?;
        Ok(Self { generation, device, public_key_spki, replaced })
    }
}

impl Snapshot {
    pub(crate) fn meta_bytes(&self, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
        Ok(self.meta.get(name).map_err(load)?.map(|value| value.value().to_vec()))
    }

    pub(crate) fn meta_number(&self, name: &str) -> Result<u64, LoadError> {
        let Some(bytes) = self.meta_bytes(name)? else { return Ok(0) };
        let bytes: [u8; 8] =
            bytes.try_into().map_err(|_| corrupt(format!("`{name}` is no number")))?;
        Ok(u64::from_be_bytes(bytes))
    }

    pub(crate) fn clock(&self) -> Result<Hlc, LoadError> {
        Ok(Hlc::from_packed(self.meta_number(CLOCK)?).unwrap_or(Hlc::ZERO))
    }

    pub(crate) fn identity(&self) -> Result<StoredIdentity, LoadError> {
        let bytes = self.meta_bytes(IDENTITY)?;
        StoredIdentity::decode(&bytes.ok_or_else(|| corrupt("the library names no device"))?)
    }
}

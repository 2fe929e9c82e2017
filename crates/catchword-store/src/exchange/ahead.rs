//! Who has a clock that is ahead: a stamp that came is far above the wall clock.
//!
//! Every clock that sees such a stamp goes on above it, so the stamps of everybody are ahead from then
//! on. The first one that was seen is kept, since it names whose clock it was.

use catchword_model::change::Change;
use catchword_model::hlc::Hlc;
use catchword_model::id::{DeviceId, DocumentId};
use catchword_model::identity::Fingerprint;
use redb::WriteTransaction;

use crate::bytes::{Reader, Writer};
use crate::error::{LoadError, load};
use crate::exchange::Peer;
use crate::{Inner, Store, meta, tables};

/// How far a stamp may be ahead of the wall clock before it is named, in milliseconds: 60 s.
pub const STAMP_AHEAD_MS: u64 = 60_000;

/// A change whose stamp is ahead of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Who brought it.
    pub brought_by: Fingerprint,
    /// In which document.
    pub document: DocumentId,
    /// Who made it.
    pub device: DeviceId,
    /// Its stamp.
    pub stamp: Hlc,
    /// When it came, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl Ahead {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.number(self.since_ms).fixed(&self.brought_by.0).fixed(&self.document.0);
        out.fixed(&self.device.0).number(self.stamp.packed());
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut input = Reader(bytes);
        Ok(Self {
            since_ms: input.number()?,
            brought_by: Fingerprint(input.fixed()?),
            document: DocumentId(input.fixed()?),
            device: DeviceId(input.fixed()?),
            stamp: Hlc::from_packed(input.number()?).unwrap_or(Hlc::ZERO),
        })
    }
}

fn is_ahead(stamp: Hlc, now_ms: u64) -> bool {
    now_ms.saturating_add(STAMP_AHEAD_MS) < stamp.wall_ms()
}

impl Store {
    /// Returns the first change of somebody else that came with a stamp ahead of the wall clock, while
    /// it is.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn ahead(&self, now_ms: u64) -> Result<Option<Ahead>, LoadError> {
        self.lock().ahead(now_ms)
    }
}

impl Inner {
    fn ahead(&mut self, now_ms: u64) -> Result<Option<Ahead>, LoadError> {
        let (stage, disk) = self.parts()?;
        let kept = match stage.exchange.ahead {
            Some(staged) => Some(staged),
            None => disk.meta_bytes(meta::AHEAD)?.map(|kept| Ahead::decode(&kept)).transpose()?,
        };
        Ok(kept.filter(|kept| is_ahead(kept.stamp, now_ms)))
    }

    /// Notes the stamp of a change that was added, if it is the first that is ahead.
    pub(super) fn note_stamp(
        &mut self,
        peer: &Peer<'_>,
        document: DocumentId,
        change: &Change,
    ) -> Result<(), LoadError> {
        let stamp = Hlc::of_change(change.time);
        if !is_ahead(stamp, peer.now_ms) || self.ahead(peer.now_ms)?.is_some() {
            return Ok(());
        }
        let Some(number) = self.number(document)? else { return Ok(()) };
        let (stage, disk) = self.parts()?;
        let author = stage.doc(disk, number)?.writer(change.actor).and_then(|writer| writer.author);
        let Some(author) = author else { return Ok(()) };
        let (brought_by, since_ms) = (peer.origin.peer, peer.now_ms);
        let device = author.device;
        stage.exchange.ahead = Some(Ahead { brought_by, document, device, stamp, since_ms });
        Ok(())
    }
}

pub(super) fn write(write: &WriteTransaction, ahead: Option<Ahead>) -> Result<(), LoadError> {
    let Some(ahead) = ahead else { return Ok(()) };
    let mut table = write.open_table(tables::META).map_err(load)?;
    table.insert(meta::AHEAD, ahead.encode().as_slice()).map_err(load)?;
    Ok(())
}

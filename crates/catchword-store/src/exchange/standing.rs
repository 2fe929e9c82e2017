//! Where each document stands towards a peer: for people who ask why a book is not in sync.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::id::DocumentId;

use crate::Store;
use crate::error::{AppendError, LoadError, load};
use crate::exchange::{Peer, arrivals};
use crate::snapshot::Snapshot;

/// What a peer does not have, or does not get, of the documents that are here. Notes count as their
/// book.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Changes and events that the peer has not said to have decided, and that it did not bring.
    pub unsent: BTreeMap<DocumentId, u64>,
    /// What this device does not exchange with it.
    pub excluded_here: BTreeSet<DocumentId>,
    /// What the peer does not exchange with this device.
    pub excluded_there: BTreeSet<DocumentId>,
}

impl Store {
    /// Says where each document stands towards a peer that has decided everything up to `after`, or
    /// beyond. What waits in `wal` is moved to the rows before.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the disk refuses.
    pub fn standing(&self, peer: &Peer<'_>, after: u64) -> Result<Standing, AppendError> {
        let mut inner = self.lock();
        inner.drain()?;
        let end = inner.end()?;
        let (_, disk) = inner.parts()?;
        Ok(standing(disk, peer, if end < after { 0 } else { after })?)
    }
}

fn standing(disk: &Snapshot, peer: &Peer<'_>, after: u64) -> Result<Standing, LoadError> {
    let theirs = disk.peer_record(peer.origin)?.exclusions;
    let mut standing = Standing { excluded_here: disk.excluded(peer)?, ..Standing::default() };
    if !theirs.macs.is_empty() {
        for found in disk.book_ids.range::<&[u8; 32]>(..).map_err(load)? {
            let id = DocumentId(*found.map_err(load)?.0.value());
            if theirs.macs.binary_search(&(peer.mac)(id)).is_ok() {
                standing.excluded_there.insert(id);
            }
        }
    }
    let common = disk.common(peer)?;
    for run in arrivals::above(disk, after)? {
        let run = run?;
        let Some(doc) = disk.doc(run.arrival.number)? else { continue };
        if run.arrival.origin == Some(peer.origin) || !common.holds(doc.of) {
            continue;
        }
        let subject = disk.doc(doc.of)?.map_or(doc.id, |subject| subject.id);
        let count = run.last() + 1 - run.first.max(after + 1);
        *standing.unsent.entry(subject).or_default() += count;
    }
    Ok(standing)
}

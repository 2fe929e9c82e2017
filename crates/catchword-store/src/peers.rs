//! The paired devices, and what is kept of the windows in which devices were paired.
//!
//! What a row says, and what may be done with a peer, is known to the protocols. Here are the rows:
//! each write is one durable transaction, which is there completely or not at all.

use catchword_model::identity::Fingerprint;

use crate::error::{AppendError, LoadError, load};
use crate::{Store, meta, tables};

/// What changes in the table of peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerRows {
    /// Rows to be put, each in the place of the one with its fingerprint.
    pub put: Vec<(Fingerprint, Vec<u8>)>,
    /// Rows to be deleted. One that is not there is none.
    pub dropped: Vec<Fingerprint>,
}

impl Store {
    /// Returns the row of every peer, in the order of their fingerprints.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn peers(&self) -> Result<Vec<(Fingerprint, Vec<u8>)>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        let rows = disk.peers.range::<&[u8; 32]>(..).map_err(load)?;
        let mut peers = Vec::new();
        for found in rows {
            let (peer, row) = found.map_err(load)?;
            peers.push((Fingerprint(*peer.value()), row.value().to_vec()));
        }
        Ok(peers)
    }

    /// Changes rows of peers, in one transaction, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`AppendError::Closed`] if an earlier write failed, [`AppendError::Io`] if this one did.
    pub fn write_peers(&self, rows: &PeerRows) -> Result<(), AppendError> {
        self.write_pairing(|write| {
            let mut peers = write.open_table(tables::PEERS).map_err(load)?;
            for peer in &rows.dropped {
                peers.remove(&peer.0).map_err(load)?;
            }
            for (peer, row) in &rows.put {
                peers.insert(&peer.0, row.as_slice()).map_err(load)?;
            }
            Ok(())
        })
    }

    /// Returns what was kept of the windows in which devices were paired, or nothing.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn pairing_windows(&self) -> Result<Option<Vec<u8>>, LoadError> {
        let mut inner = self.lock();
        let (_, disk) = inner.parts()?;
        disk.meta_bytes(meta::PAIRING_WINDOWS)
    }

    /// Keeps what is known of the windows, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`AppendError::Closed`] if an earlier write failed, [`AppendError::Io`] if this one did.
    pub fn keep_pairing_windows(&self, windows: &[u8]) -> Result<(), AppendError> {
        self.write_pairing(|write| {
            let mut meta = write.open_table(tables::META).map_err(load)?;
            meta.insert(meta::PAIRING_WINDOWS, windows).map_err(load)?;
            Ok(())
        })
    }

    fn write_pairing(
        &self,
        write_tables: impl FnOnce(&redb::WriteTransaction) -> Result<(), LoadError>,
    ) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.writable()?;
        Ok(inner.write_meta(write_tables)?)
    }
}

//! Deletes the history of a book from this device, once a paired device has shown that it has it.

use std::net::SocketAddr;
use std::sync::Arc;

use catchword_model::id::BookId;
use catchword_model::identity::Fingerprint;
use catchword_proto::trust::{PeerState, StepError};
use tokio::task::spawn_blocking;

use crate::error::{EditError, RemoveError};
use crate::net::keeping::Shared;
use crate::net::peers::PeerError;

/// Syncs with one peer until both have the same: the first brings what was missed.
const SYNCS_MAX: usize = 3;

/// What stands for everything of a book.
type State = [u8; 32];

impl Shared {
    /// Removes a book, and deletes its history, if a peer that can be asked now has all of it. Returns
    /// that peer.
    pub(crate) async fn purge(
        self: &Arc<Self>,
        book: BookId,
        address: Option<SocketAddr>,
    ) -> Result<Fingerprint, RemoveError> {
        // A removed book is not exchanged, so nobody could say what he has of it.
        let was_removed = self.on_store(move |shared| shared.restore(book)).await?;
        let holder = self.holder_of(book, address).await;
        let may_go = matches!(holder, Ok(Some(_)));
        if was_removed || may_go {
            self.on_store(move |shared| shared.library.remove(book)).await?;
        }
        let (peer, state) = holder?.ok_or(RemoveError::OnlyHere)?;
        let purge = move |shared: &Self| {
            let store = &shared.library.core().store;
            store.purge(book, state).map_err(|error| RemoveError::Edit(EditError::store(error)))
        };
        // Somebody wrote in it in between: then it is removed, and its history is here.
        if self.on_store(purge).await? { Ok(peer) } else { Err(RemoveError::OnlyHere) }
    }

    fn restore(&self, book: BookId) -> Result<bool, RemoveError> {
        let restored = self.library.core().store.restore_removed(book);
        restored.map_err(|error| RemoveError::Edit(EditError::store(error)))
    }

    /// Returns a peer that has everything of a book, and what that is.
    async fn holder_of(
        self: &Arc<Self>,
        book: BookId,
        address: Option<SocketAddr>,
    ) -> Result<Option<(Fingerprint, State)>, RemoveError> {
        let peers = self.peers.records().into_iter();
        for record in peers.filter(|record| record.state == PeerState::Active) {
            let peer = record.fingerprint;
            for _ in 0..SYNCS_MAX {
                let before = self.state_of(book).await?;
                let Ok(report) = self.sync(peer, address).await else { break };
                let is_same = before.is_some() && before == self.state_of(book).await?;
                if report.in_sync && is_same {
                    let keeps = self.keeps(peer, book).await;
                    if let Some(state) = before.filter(|_| keeps) {
                        return Ok(Some((peer, state)));
                    }
                    break;
                }
            }
        }
        Ok(None)
    }

    async fn keeps(&self, peer: Fingerprint, book: BookId) -> bool {
        let record = self.peers.find(peer).ok_or(PeerError::Step(StepError::NoPeer));
        let (Ok(record), Ok(Some(secret))) = (record, self.peers.secret(peer)) else {
            return false;
        };
        self.ledger(&record, &secret).keeps(book).await
    }

    async fn state_of(self: &Arc<Self>, book: BookId) -> Result<Option<State>, RemoveError> {
        self.on_store(move |shared| {
            let state = shared.library.core().store.book_state(book);
            state.map_err(|error| RemoveError::Edit(EditError::store(error)))
        })
        .await
    }

    async fn on_store<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, RemoveError> + Send + 'static,
    ) -> Result<T, RemoveError> {
        let shared = Arc::clone(self);
        let gone = |error: tokio::task::JoinError| {
            RemoveError::Edit(EditError::Io(std::io::Error::other(error).into()))
        };
        spawn_blocking(move || work(&shared)).await.map_err(gone)?
    }
}

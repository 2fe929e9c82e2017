//! `catchword peers`: the paired devices.

use catchword::net::{FindPeerError, PeerError, PeerRecord, PeerState};
use serde::Serialize;

use crate::args::{PeersArgs, PeersCommand};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::network::Network;
use crate::output::{Column, Table};
use crate::time::utc;

#[derive(Serialize)]
struct Listed {
    peer: String,
    name: String,
    state: &'static str,
    reason: Option<String>,
    /// When it last answered, in milliseconds since the Unix epoch.
    last_sync: Option<u64>,
    scope: &'static str,
}

impl From<PeerRecord> for Listed {
    fn from(record: PeerRecord) -> Self {
        let (state, reason) = match record.state {
            PeerState::Provisional => ("provisional", None),
            PeerState::Active => ("active", None),
            PeerState::Deactivated(_) => ("deactivated", Some(record.state.to_string())),
            PeerState::Revoked => ("revoked", None),
        };
        Self {
            peer: record.fingerprint.to_string(),
            name: record.name,
            state,
            reason,
            last_sync: record.last_ok_ms,
            scope: "all",
        }
    }
}

/// Changes what is asked for, and lists the peers.
pub(crate) fn run(args: &PeersArgs, context: &Context) -> Result<(), Failure> {
    let network = Network::of(context, None)?;
    let node = network.node();
    match &args.command {
        None => (),
        Some(PeersCommand::Forget(named)) => {
            let peer = node.find_peer(&named.peer)?;
            network.run(async { node.forget(peer.fingerprint) })?;
        }
        Some(PeersCommand::Trust(named)) => node.trust(node.find_peer(&named.peer)?.fingerprint)?,
    }
    let peers: Vec<Listed> = node.peers().into_iter().map(Listed::from).collect();
    context.output.print(&peers, |page| {
        if peers.is_empty() {
            page.line("no device is paired with this one");
            return;
        }
        let columns = [
            Column::word("Peer"),
            Column::text("Name"),
            Column::word("State"),
            Column::word("Last answer"),
            Column::text("Why"),
        ];
        let mut table = Table::new(columns);
        for peer in &peers {
            table.row([
                peer.peer.chars().take(12).collect(),
                peer.name.clone(),
                peer.state.to_owned(),
                peer.last_sync.map(utc).unwrap_or_default(),
                peer.reason.clone().unwrap_or_default(),
            ]);
        }
        page.table(&table);
    })?;
    network.close();
    Ok(())
}

impl From<FindPeerError> for Failure {
    fn from(error: FindPeerError) -> Self {
        Self::new(Exit::NotFound, error, "`catchword peers` lists them")
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        let exit = if matches!(error, PeerError::Step(_)) { Exit::Refused } else { Exit::Failed };
        Self::new(exit, error, "`catchword peers` lists them with their states")
    }
}

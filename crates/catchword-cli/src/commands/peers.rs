//! `catchword peers`: the paired devices.

use catchword::Library;
use catchword::net::{FindPeerError, NodeConfig, PeerError, PeerRecord, PeerScope, PeerState};
use serde::Serialize;

use crate::args::{PeersArgs, PeersCommand, ScopeArgs};
use crate::commands::shelf::required;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::network::Network;
use crate::output::{Column, Table, count};
use crate::time::utc;

#[derive(Serialize)]
struct Listed {
    peer: String,
    name: String,
    state: &'static str,
    reason: Option<String>,
    /// When it last answered, in milliseconds since the Unix epoch.
    last_sync: Option<u64>,
    scope: Scope,
    /// Whether it gets them, and brings nothing.
    read_only: bool,
}

/// Which books a device gets.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    /// Everything: the word `all`.
    All,
    /// What is named: ids.
    #[serde(untagged)]
    Chosen { shelves: Vec<String>, books: Vec<String> },
}

impl From<PeerScope> for Scope {
    fn from(scope: PeerScope) -> Self {
        match scope {
            PeerScope::All => Self::All,
            PeerScope::Chosen { shelves, books } => Self::Chosen {
                shelves: shelves.iter().map(ToString::to_string).collect(),
                books: books.iter().map(ToString::to_string).collect(),
            },
        }
    }
}

/// In words.
impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Chosen { shelves, books } => {
                let (shelves, books) = (shelves.len(), count(books.len() as u64, "book"));
                write!(f, "{books}, and what is on {shelves} of the shelves")
            }
        }
    }
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
            scope: record.scope.into(),
            read_only: record.is_read_only,
        }
    }
}

/// Changes what is asked for, and lists the peers.
pub(crate) fn run(args: &PeersArgs, context: &Context) -> Result<(), Failure> {
    let network = Network::of(context, &NodeConfig::default())?;
    let node = network.node();
    match &args.command {
        None => (),
        Some(PeersCommand::Forget(named)) => {
            let peer = node.find_peer(&named.peer)?;
            network.run(async { node.forget(peer.fingerprint) })?;
        }
        Some(PeersCommand::Trust(named)) => node.trust(node.find_peer(&named.peer)?.fingerprint)?,
        Some(PeersCommand::Scope(args)) => {
            let peer = node.find_peer(&args.peer)?;
            node.scope(peer.fingerprint, &scope(args, network.library())?)?;
            node.set_read_only(peer.fingerprint, args.read_only)?;
        }
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
            Column::text("Gets"),
            Column::text("Why"),
        ];
        let mut table = Table::new(columns);
        for peer in &peers {
            table.row([
                peer.peer.chars().take(12).collect(),
                peer.name.clone(),
                peer.state.to_owned(),
                peer.last_sync.map(utc).unwrap_or_default(),
                if peer.read_only {
                    format!("{}, to read", peer.scope)
                } else {
                    peer.scope.to_string()
                },
                peer.reason.clone().unwrap_or_default(),
            ]);
        }
        page.table(&table);
    })?;
    network.close();
    Ok(())
}

fn scope(args: &ScopeArgs, library: &Library) -> Result<PeerScope, Failure> {
    if args.all {
        return Ok(PeerScope::All);
    }
    let books = args.books.iter().map(|name| Ok(library.find(name)?.id()));
    let books = books.collect::<Result<_, Failure>>()?;
    let shelves = args.shelves.iter().map(|name| required(library, name));
    Ok(PeerScope::Chosen { shelves: shelves.collect::<Result<_, Failure>>()?, books })
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

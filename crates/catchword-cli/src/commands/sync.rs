//! `catchword sync`: the same state on two devices, now.

use std::collections::BTreeSet;

use catchword::net::{NodeConfig, PeerRecord, PeerState, SyncError, SyncReport};
use serde::Serialize;

use crate::args::SyncArgs;
use crate::commands::conflicts::Cards;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::network::{Network, discovery};
use crate::output::{count, plain, size};

/// Disagreements that are shown after a sync; `conflicts` lists them all.
const CARDS_MAX: usize = 10;

#[derive(Serialize)]
struct Synced {
    peer: String,
    round_trips: u64,
    bytes_sent: u64,
    bytes_received: u64,
    changes_sent: u64,
    changes_received: u64,
    books_changed: u64,
    in_sync: bool,
}

impl From<&SyncReport> for Synced {
    fn from(report: &SyncReport) -> Self {
        Self {
            peer: report.peer.to_string(),
            round_trips: report.round_trips,
            bytes_sent: report.bytes_sent,
            bytes_received: report.bytes_received,
            changes_sent: report.changes_sent,
            changes_received: report.changes_received,
            books_changed: report.books_changed.len() as u64,
            in_sync: report.in_sync,
        }
    }
}

/// Syncs with each peer that is meant, and fails if any could not be met.
pub(crate) fn run(args: &SyncArgs, context: &Context) -> Result<(), Failure> {
    let discovery = if args.addr.is_none() { discovery(context) } else { None };
    let network = Network::of(context, &NodeConfig::default().with_discovery(discovery))?;
    let peers = peers(args, &network)?;
    let (mut synced, mut failed) = (Vec::new(), Vec::new());
    for peer in &peers {
        match network.run(network.node().sync(peer.fingerprint, args.addr)) {
            Ok(report) => synced.push((peer, report)),
            Err(error) => failed.push(Failure::from(error).about(plain(&peer.name))),
        }
    }
    let shapes: Vec<Synced> = synced.iter().map(|(_, report)| report.into()).collect();
    let changed = synced.iter().flat_map(|(_, report)| report.books_changed.iter().copied());
    let cards = if context.output.is_json() {
        Cards::default()
    } else {
        Cards::of(network.library(), changed.collect::<BTreeSet<_>>())?
    };
    context.output.print(&shapes, |page| {
        for (peer, report) in &synced {
            let state = if report.in_sync { "in sync" } else { "not in sync yet" };
            page.line(format_args!(
                "{}: {state}; sent {} ({}), received {} ({}), in {}",
                plain(&peer.name),
                count(report.changes_sent, "change"),
                size(report.bytes_sent),
                count(report.changes_received, "change"),
                size(report.bytes_received),
                count(report.round_trips, "round trip"),
            ));
        }
        cards.write(page, CARDS_MAX);
    })?;
    network.close();
    let last = failed.pop();
    for failure in &failed {
        context.output.complain(&failure.to_string());
    }
    last.map_or(Ok(()), Err)
}

fn peers(args: &SyncArgs, network: &Network) -> Result<Vec<PeerRecord>, Failure> {
    if let Some(named) = &args.peer {
        return Ok(vec![network.node().find_peer(named)?]);
    }
    let mut peers = network.node().peers();
    peers.retain(|peer| matches!(peer.state, PeerState::Active | PeerState::Provisional));
    match (peers.len(), args.addr) {
        (0, _) => Err(no_peers()),
        (1, _) | (_, None) => Ok(peers),
        (_, Some(_)) => Err(Failure::message(
            Exit::Usage,
            "several devices are paired, and an address belongs to one",
            "say which with --peer PEER",
        )),
    }
}

/// Makes the failure of a command that needs another device.
pub(crate) fn no_peers() -> Failure {
    Failure::message(
        Exit::NotFound,
        "no device is paired with this one",
        "`catchword pair --show` here, and on the other device what it prints",
    )
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        let (exit, advice) = match &error {
            SyncError::NoAddress => (Exit::Failed, "give one with --addr HOST:PORT"),
            SyncError::Dial(_) => {
                (Exit::Failed, "see that the other device runs `catchword serve`, and where")
            }
            SyncError::NotActive(_) => {
                (Exit::Refused, "`catchword peers` says why; trust it again, or pair again")
            }
            SyncError::UnknownToPeer | SyncError::NoSecret => {
                (Exit::Refused, "`catchword pair --show`, on either device")
            }
            SyncError::Peer(_) | SyncError::Call(_) | _ => (Exit::Failed, ""),
        };
        Self::new(exit, error, advice)
    }
}

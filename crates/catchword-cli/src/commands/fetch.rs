//! `catchword fetch`: the file of a book, from the paired devices that have it.

use catchword::net::{FetchError, FetchFailure, NodeConfig, PeerRecord, PeerState};
use serde::Serialize;

use crate::args::FetchArgs;
use crate::commands::sync::no_peers;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::network::{Network, discovery};
use crate::output::{plain, size};

#[derive(Serialize)]
struct Fetched {
    book: String,
    /// Of the file.
    bytes: u64,
    /// That came now.
    bytes_received: u64,
    /// Fingerprints of the devices that gave something.
    from: Vec<String>,
    /// Fingerprints of the devices whose copy is not the book.
    damaged: Vec<String>,
}

/// Fetches the file, and copies it to where it is wanted.
pub(crate) fn run(args: &FetchArgs, context: &Context) -> Result<(), Failure> {
    let interrupt = context.interrupt()?;
    let discovery = if args.addr.is_none() { discovery(context) } else { None };
    let network = Network::of(context, &NodeConfig::default().with_discovery(discovery))?;
    let book = network.library().find(&args.book)?;
    let node = network.node();
    let named = args.peer.as_ref().map(|named| node.find_peer(named)).transpose()?;
    let mut peers = node.peers();
    peers.retain(|peer| matches!(peer.state, PeerState::Active | PeerState::Provisional));
    let from = match (named, args.addr) {
        (Some(peer), address) => Some((peer.fingerprint, address)),
        (None, None) => None,
        (None, Some(_)) => Some((the_one(&peers)?.fingerprint, args.addr)),
    };
    let progress = context.output.progress("fetch", 0);
    let fetched = network.run(node.fetch(book.id(), from, |now| {
        progress.set(now.bytes, now.size);
        interrupt.flow()
    }));
    drop(progress);
    network.close();
    let fetched = match fetched {
        Err(FetchError::Failed(FetchFailure::NoSource)) if peers.is_empty() => {
            return Err(no_peers());
        }
        fetched => fetched?,
    };
    if let Some(save) = &args.save {
        files::replace(&context.path(save), book.open_file()?)?;
    }
    let name = |peer| {
        let record = peers.iter().find(|record| record.fingerprint == peer);
        record.map(|record| plain(&record.name)).unwrap_or_default()
    };
    let shape = Fetched {
        book: book.id().to_string(),
        bytes: fetched.bytes,
        bytes_received: fetched.bytes_received,
        from: fetched.from.iter().map(ToString::to_string).collect(),
        damaged: fetched.damaged.iter().map(ToString::to_string).collect(),
    };
    let title = book.title()?;
    context.output.print(&shape, |page| {
        let title = plain(&title);
        let from: Vec<_> = fetched.from.iter().map(|peer| name(*peer)).collect();
        match fetched.bytes_received {
            0 => page.line(format_args!("the file of {title} is here, {}", size(fetched.bytes))),
            _ => page.line(format_args!(
                "fetched the file of {title} from {}, {}",
                from.join(" and "),
                size(fetched.bytes),
            )),
        }
        for peer in &fetched.damaged {
            page.line(format_args!(
                "the copy on {} is damaged: import it there again",
                name(*peer)
            ));
        }
        if let Some(save) = &args.save {
            page.line(format_args!("saved to {}", save.display()));
        }
    })
}

/// Returns whose address it is, if one device alone is paired.
fn the_one(peers: &[PeerRecord]) -> Result<&PeerRecord, Failure> {
    match peers {
        [] => Err(no_peers()),
        [one] => Ok(one),
        _ => Err(Failure::message(
            Exit::Usage,
            "several devices are paired, and an address belongs to one",
            "say which with --peer PEER",
        )),
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let (exit, advice) = match error {
            FetchError::Peer(error) => return error.into(),
            FetchError::Import(error) => return error.into(),
            FetchError::NoBook => (Exit::NotFound, "`catchword books` lists what is there"),
            FetchError::Failed(FetchFailure::NoSource) => {
                (Exit::Failed, "see that a device that has it runs `catchword serve`")
            }
            FetchError::Failed(FetchFailure::Nowhere) => (
                Exit::NotFound,
                "import its file on a device that has it, or see what `catchword peers` says there",
            ),
            FetchError::Failed(FetchFailure::Corrupt) => {
                (Exit::Refused, "import its file again on the device that has it")
            }
            FetchError::Failed(_) | FetchError::Stopped => (Exit::Failed, "run the command again"),
            FetchError::Running => (Exit::Failed, "wait for it"),
            FetchError::Io(_) => (Exit::Failed, "make room, or see that the folder can be written"),
            _ => (Exit::Failed, ""),
        };
        Self::new(exit, error, advice)
    }
}

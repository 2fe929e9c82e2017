//! Libraries on loopback: paired, and synced over real connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context as _;
use catchword::net::{Hosted, Hosting, Join, Node, NodeConfig, PeerRecord, SyncReport};
use catchword::{Config, Library};

use crate::workload::{SEED, Workspace};

/// A library that listens on loopback.
#[derive(Debug)]
pub struct Side {
    /// The library.
    pub library: Library,
    node: Node,
    runtime: tokio::runtime::Runtime,
}

impl Side {
    /// Opens a library, or makes an empty one, and listens.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let library = Library::open_with(folder, Config::default())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = NodeConfig::default().with_listen(Some(loopback));
        let entered = runtime.enter();
        let node = Node::start(&library, &config)?;
        drop(entered);
        Ok(Self { library, node, runtime })
    }

    /// Opens a window, and returns what the other side needs, in two words.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn invite(&self) -> anyhow::Result<(Hosted, String)> {
        let _entered = self.runtime.enter();
        let hosted = self.node.host(Hosting::default())?;
        let words = format!("{} {}", hosted.qr, hosted.key);
        Ok((hosted, words))
    }

    /// Waits until the other side has come.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn admit(&self, hosted: Hosted) -> anyhow::Result<PeerRecord> {
        Ok(self.runtime.block_on(hosted.wait())?)
    }

    /// Joins the side that said these words.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn join(&self, words: &str) -> anyhow::Result<PeerRecord> {
        let (qr, key) = words.split_once(' ').context("a code and a key")?;
        let join = Join::Scanned { qr: qr.to_owned(), key: key.to_owned(), address: None };
        Ok(self.runtime.block_on(self.node.join(&join))?)
    }

    /// Syncs with a peer, where it was met before.
    ///
    /// # Errors
    ///
    /// What the engine says, or if both are not in sync.
    pub fn sync(&self, peer: &PeerRecord) -> anyhow::Result<SyncReport> {
        let report = self.runtime.block_on(self.node.sync(peer.fingerprint, None))?;
        anyhow::ensure!(report.in_sync, "{report:?}");
        Ok(report)
    }
}

/// Pairs two sides; returns the first as the second knows it.
///
/// # Errors
///
/// What the engine says.
pub fn pair(host: &Side, joiner: &Side) -> anyhow::Result<PeerRecord> {
    let (hosted, words) = host.invite()?;
    let known = joiner.join(&words)?;
    host.admit(hosted)?;
    Ok(known)
}

/// Makes a library that may be put on the network: it has keys of its own.
///
/// # Errors
///
/// What the engine says.
pub fn library(
    workspace: &Workspace,
    name: &str,
    books: u32,
    annotations: u32,
) -> anyhow::Result<Side> {
    let side = Side::open(&workspace.fresh(name)?)?;
    side.library.generate(books, annotations, SEED, |_, _| ControlFlow::Continue(()))?;
    Ok(side)
}

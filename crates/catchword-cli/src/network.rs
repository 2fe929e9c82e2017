//! A node and the runtime it runs on: that of the daemon, or one for a single command.

use std::net::SocketAddr;
use std::sync::Arc;

use catchword::Library;
use catchword::net::cloud::Cloud;
use catchword::net::{Discovery, Mdns, Node, NodeConfig, NodeError};
use tokio::runtime::Runtime;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// A library on the network. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    library: Library,
    node: Arc<Node>,
    online: Online,
    /// Whether the daemon goes on when the command is done.
    lasting: bool,
}

impl Network {
    /// Returns the daemon's, or puts the library on the network for one command.
    pub(crate) fn of(context: &Context, config: &NodeConfig) -> Result<Self, Failure> {
        match &context.daemon {
            Some(serving) => Ok(Self { lasting: true, ..serving.network.clone() }),
            None => Self::start(&context.open()?, config),
        }
    }

    /// Puts the library on the network.
    pub(crate) fn start(library: &Library, config: &NodeConfig) -> Result<Self, Failure> {
        let online = Online::start(library)?;
        let node = {
            let _inside = online.runtime.enter();
            Node::start(library, config)?
        };
        Ok(Self { library: library.clone(), node: Arc::new(node), online, lasting: false })
    }

    /// Keeps the library and its account in step as long as this lasts.
    pub(crate) fn keep_in_account(&self) {
        let cloud = self.cloud().clone();
        drop(self.online.runtime.spawn(async move { cloud.run().await }));
    }

    /// Returns the account of the library.
    pub(crate) fn cloud(&self) -> &Cloud {
        &self.online.cloud
    }

    /// Returns what is on the network.
    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Returns where it listens.
    pub(crate) fn listening(&self) -> Result<SocketAddr, Failure> {
        self.node.address().map_err(|error| Failure::new(Exit::Failed, error, ""))
    }

    /// Waits for something of the network.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.online.run(work)
    }

    /// Closes every connection, unless a daemon goes on.
    pub(crate) fn close(&self) {
        if !self.lasting {
            self.run(self.node.close());
        }
    }
}

/// A library and its account, without the network of paired devices. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Online {
    pub(crate) cloud: Cloud,
    runtime: Arc<Runtime>,
}

impl Online {
    /// Returns the daemon's, or makes one for a single command.
    pub(crate) fn of(context: &Context) -> Result<Self, Failure> {
        match &context.daemon {
            Some(serving) => Ok(serving.network.online.clone()),
            None => Self::start(&context.open()?),
        }
    }

    fn start(library: &Library) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error, ""))?;
        Ok(Self { cloud: Cloud::of(library), runtime: Arc::new(runtime) })
    }

    /// Waits for something of the account.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// Returns how devices on this network are found, and a warning where they are not.
pub(crate) fn discovery(context: &Context) -> Option<Arc<dyn Discovery>> {
    // The daemon has its own.
    if context.daemon.is_some() {
        return None;
    }
    match Mdns::new() {
        Ok(mdns) => Some(Arc::new(mdns)),
        Err(error) => {
            context.output.complain(&format!("catchword: {error}"));
            None
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let advice = "see whether the port is taken, or choose another with --listen HOST:PORT";
        Self::new(Exit::Failed, error, advice)
    }
}

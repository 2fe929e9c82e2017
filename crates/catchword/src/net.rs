//! Other devices: the drivers that run the protocols over a network. Feature `net`.
//!
//! [`Endpoint`] makes and takes connections, a [`Connection`] carries signed requests and pairings, and
//! [`Discovery`] says who is near. None of them decides whom to trust or what to say: they ask [`Trust`],
//! and carry what they are given.

mod call;
mod certificate;
pub mod cloud;
mod desk;
mod discovery;
mod fetching;
mod keeping;
mod ledger;
mod lending;
mod mdns;
mod meeting;
mod neighbours;
mod node;
mod pairing;
mod peers;
mod purging;
mod quic;
mod rounds;
mod serving;
mod status;
mod stream;
mod syncing;
mod table;
mod tls;
mod trouble;

pub use catchword_proto::blob::fetch::Failure as FetchFailure;
pub use catchword_proto::trust::{Deactivation, PeerRecord, PeerScope, PeerState};

pub use call::{Ask, CallError, Incoming, IncomingError, Reply};
pub use certificate::DeviceIdentity;
pub use discovery::{Discovery, DiscoveryError, Heard};
pub use fetching::{FetchError, FetchProgress, FetchReport};
pub use mdns::Mdns;
pub use meeting::SyncError;
pub use node::{FindPeerError, Hosted, Join, JoinError, Near, Node, NodeConfig, NodeError};
pub use pairing::{Allow, Asking, Hosting, OnAsk, PairError};
pub use peers::{PeerBook, PeerError};
pub use quic::{BindError, Candidate, Connection, DialError, Endpoint, Lost, Source};
pub use status::{Reason, State, Status, Subject};
pub use stream::{Stream, StreamError};
pub use syncing::SyncReport;
pub use tls::{Purpose, Trust};
pub use trouble::{Trouble, Why};

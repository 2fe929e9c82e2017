//! Who is near: a trait, so that a phone can bring its platform's own.

use std::fmt;
use std::net::SocketAddr;

use catchword_proto::discovery::Announcement;

/// Announces this device on the local network, and hears others.
///
/// What is heard is a reason to dial and never a reason to trust.
pub trait Discovery: fmt::Debug + Send + Sync {
    /// Announces this device, in place of what it announced before.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`]; the earlier announcement may be gone.
    fn announce(&self, announcement: &Announcement) -> Result<(), DiscoveryError>;

    /// Calls `heard` for every announcement from now on, from a thread of its own, again whenever
    /// something about it changes. Called once.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`]; nothing will be heard.
    fn listen(&self, heard: Box<dyn Fn(Heard) + Send>) -> Result<(), DiscoveryError>;

    /// Takes the announcement back and stops listening. Nothing can be started again.
    fn stop(&self);
}

/// An announcement, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heard {
    /// What was announced.
    pub announcement: Announcement,
    /// Where to dial: addresses on this network, at most four, at least one.
    pub addresses: Vec<SocketAddr>,
}

impl Heard {
    /// Puts together what was heard.
    pub fn new(announcement: Announcement, addresses: Vec<SocketAddr>) -> Self {
        Self { announcement, addresses }
    }
}

/// Devices cannot find each other on the local network. Addresses that are known still work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The system does not allow it, or the network does not carry it.
    #[error("cannot announce or hear devices on this network")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

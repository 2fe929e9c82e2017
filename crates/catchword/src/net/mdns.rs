//! Discovery by multicast DNS, on every interface, loopback included.
//!
//! # Invariants
//!
//! 1. Nothing of what is announced outlives the random name it is announced under.
//! 2. However much is announced, at most [`INSTANCES_MAX`] announcements are remembered. Beyond that
//!    everything is forgotten, and listening pauses.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use catchword_proto::discovery::{Announcement, SERVICE, dialable};
use mdns_sd::{ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo, TxtProperty};

use crate::net::{Discovery, DiscoveryError, Heard};

/// Announcements that are remembered at once: more devices than share any network with readers.
pub(crate) const INSTANCES_MAX: usize = 256;
/// How long listening pauses after a flood.
const PAUSE: Duration = Duration::from_secs(10);
/// How long stopping waits for the last message to go out.
const GOODBYE: Duration = Duration::from_millis(500);

/// Discovery by multicast DNS.
///
/// It follows the interfaces of this machine as they come and go, within five seconds.
pub struct Mdns {
    daemon: ServiceDaemon,
    announced: Mutex<Option<String>>,
    /// Dropped to wake the listener out of its pause.
    running: Mutex<Option<Sender<()>>>,
}

impl Mdns {
    /// Starts without announcing or hearing anything yet.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`].
    pub fn new() -> Result<Self, DiscoveryError> {
        let daemon = ServiceDaemon::new().map_err(unavailable)?;
        Ok(Self { daemon, announced: Mutex::new(None), running: Mutex::new(None) })
    }
}

impl Discovery for Mdns {
    fn announce(&self, announcement: &Announcement) -> Result<(), DiscoveryError> {
        let service = service(announcement)?;
        let name = service.get_fullname().to_owned();
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = announced.take_if(|former| *former != name) {
            // Fails only when it is stopped, and then so does what follows.
            let _goodbye = self.daemon.unregister(&former);
        }
        self.daemon.register(service).map_err(unavailable)?;
        *announced = Some(name);
        Ok(())
    }

    fn listen(&self, heard: Box<dyn Fn(Heard) + Send>) -> Result<(), DiscoveryError> {
        let (running, stopped) = channel();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        let daemon = self.daemon.clone();
        let thread = thread::Builder::new().name("catchword-mdns".to_owned());
        let spawned = thread.spawn(move || listen(&daemon, &*heard, &stopped));
        spawned.map(|_| ()).map_err(|error| DiscoveryError::Unavailable(error.into()))
    }

    fn stop(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Ok(stopped) = self.daemon.shutdown() {
            // Who is gone without a goodbye is forgotten after a while.
            let _said = stopped.recv_timeout(GOODBYE);
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Mdns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mdns").finish_non_exhaustive()
    }
}

fn domain() -> String {
    format!("{SERVICE}.local.")
}

fn service(announcement: &Announcement) -> Result<ServiceInfo, DiscoveryError> {
    let name = announcement.name.to_string();
    let host = format!("{name}.local.");
    let txt: Vec<TxtProperty> = announcement.txt().into_iter().map(TxtProperty::from).collect();
    let service = ServiceInfo::new(&domain(), &name, &host, (), announcement.port, txt);
    let mut service = service.map_err(unavailable)?.enable_addr_auto();
    // Nobody else has drawn this name.
    service.set_requires_probe(false);
    Ok(service)
}

/// Hears until it is stopped.
fn listen(daemon: &ServiceDaemon, heard: &dyn Fn(Heard), stopped: &Receiver<()>) {
    loop {
        // Fails only when it is stopped or has too much to do.
        if let Ok(events) = daemon.browse(&domain()) {
            let mut instances = BTreeSet::new();
            while let Ok(event) = events.recv()
                && instances.len() <= INSTANCES_MAX
            {
                take(event, &mut instances, heard);
            }
            let _forgotten = daemon.stop_browse(&domain());
        }
        if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum that grows")]
fn take(event: ServiceEvent, instances: &mut BTreeSet<String>, heard: &dyn Fn(Heard)) {
    match event {
        ServiceEvent::ServiceFound(_, name) => {
            instances.insert(name);
        }
        ServiceEvent::ServiceRemoved(_, name) => {
            instances.remove(&name);
        }
        ServiceEvent::ServiceResolved(service) => {
            if let Some(announced) = read(&service) {
                heard(announced);
            }
        }
        _ => (),
    }
}

fn read(service: &ResolvedService) -> Option<Heard> {
    let (name, _) = service.fullname.split_once('.')?;
    let txt = service.txt_properties.iter();
    let txt = txt.map(|entry| (entry.key(), entry.val().unwrap_or_default()));
    let announcement = Announcement::read(name, service.port, txt).ok()?;
    let addresses = dialable(service.addresses.iter().map(|ip| address(ip, service.port)));
    (!addresses.is_empty()).then(|| Heard::new(announcement, addresses))
}

fn address(ip: &ScopedIp, port: u16) -> SocketAddr {
    if let ScopedIp::V6(scoped) = ip
        && scoped.addr().is_unicast_link_local()
    {
        // Means nothing without its link.
        return SocketAddrV6::new(*scoped.addr(), port, 0, scoped.scope_id().index).into();
    }
    SocketAddr::new(ip.to_ip_addr(), port)
}

fn unavailable(error: mdns_sd::Error) -> DiscoveryError {
    DiscoveryError::Unavailable(error.into())
}

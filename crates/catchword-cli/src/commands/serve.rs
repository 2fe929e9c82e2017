//! `catchword serve`: the library on the network, until the process is stopped.

use std::time::Duration;

use catchword::Event;
use catchword::net::{NodeConfig, PeerRecord};
use serde::Serialize;

use crate::args::ServeArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::network::{Network, discovery};
use crate::output::plain;
use crate::time::utc;

/// How often is looked whether the process should stop.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Serving {
    listening: String,
    /// Whether devices on this network are looked for.
    mdns: bool,
    fingerprint: String,
}

/// Serves until Ctrl-C or the polite signal to terminate.
pub(crate) fn run(args: &ServeArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let interrupt = context.interrupt()?;
    let discovery = if args.no_mdns { None } else { discovery(context) };
    let mdns = discovery.is_some();
    let config = NodeConfig::default().with_listen(args.listen).with_lasting(true);
    let network = Network::start(&library, &config.with_discovery(discovery))?;
    network.keep_in_account();
    #[cfg(unix)]
    let commands = crate::daemon::server::Server::start(context, &library, &network)?;
    let serving = Serving {
        listening: network.listening()?.to_string(),
        mdns,
        fingerprint: network.node().fingerprint().groups(),
    };
    context.output.print(&serving, |page| {
        page.line(format_args!("listening  {}", serving.listening));
        page.line(format_args!("this device is {}", serving.fingerprint));
        if !serving.mdns {
            page.line("devices on this network are not looked for");
        }
    })?;
    let events = library.subscribe();
    while !interrupt.is_asked() {
        if let Some(event) = events.next_timeout(LOOK) {
            log(context, &network, &event);
        }
    }
    #[cfg(unix)]
    commands.drain();
    network.close();
    Ok(())
}

/// Says what happened to a paired device. What happens to books is asked for, not logged.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not about devices is not logged")]
fn log(context: &Context, network: &Network, event: &Event) {
    let record =
        |peer| network.node().peers().into_iter().find(|record| record.fingerprint == peer);
    let name =
        |peer| record(peer).map(|record: PeerRecord| plain(&record.name)).unwrap_or_default();
    let told = match event {
        Event::PeerChanged { peer } => {
            record(*peer).map(|record| format!("{} is {}", plain(&record.name), record.state))
        }
        Event::Impostor { peer, presented } => Some(format!(
            "somebody else came as {}: {} instead of {}; `catchword status` says what to do",
            name(*peer),
            presented.groups(),
            peer.groups()
        )),
        Event::ClockSkew { peer, by_ms } => {
            let (seconds, word) =
                (by_ms.unsigned_abs() / 1_000, if *by_ms < 0 { "behind" } else { "ahead" });
            Some(format!("the clock of {} is {seconds} s {word}", name(*peer)))
        }
        _ => None,
    };
    if let Some(told) = told {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        context.output.complain(&format!("{}  {told}", utc(now_ms)));
    }
}

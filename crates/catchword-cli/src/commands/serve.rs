//! `catchword serve`: the library on the network, until the process is stopped.

use std::time::Duration;

use serde::Serialize;

use crate::args::ServeArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::network::Network;

/// How often is looked whether the process should stop.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Serving {
    listening: String,
    fingerprint: String,
}

/// Serves until Ctrl-C or the polite signal to terminate.
pub(crate) fn run(args: &ServeArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let interrupt = context.interrupt()?;
    let network = Network::start(&library, args.listen)?;
    #[cfg(unix)]
    let _commands = crate::daemon::server::Server::start(context, &library, &network)?;
    let serving = Serving {
        listening: network.listening()?.to_string(),
        fingerprint: network.node().fingerprint().groups(),
    };
    context.output.print(&serving, |page| {
        page.line(format_args!("listening  {}", serving.listening));
        page.line(format_args!("this device is {}", serving.fingerprint));
    })?;
    while !interrupt.is_asked() {
        std::thread::sleep(LOOK);
    }
    network.close();
    Ok(())
}

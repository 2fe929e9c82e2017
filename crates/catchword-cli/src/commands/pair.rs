//! `catchword pair`: two devices that know each other from now on.

use catchword::net::{Allow, Asking, Hosting, Join, JoinError, NodeConfig, PairError, PeerRecord};
use serde::Serialize;

use crate::args::PairArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::network::{Network, discovery};
use crate::output::plain;
use crate::terminal::Terminal;

/// What is shown, and taken to the other device.
#[derive(Serialize)]
struct Shown<'a> {
    qr: &'a str,
    key: &'a str,
    port: u16,
}

#[derive(Serialize)]
struct Paired {
    peer: String,
    name: String,
    fingerprint: String,
}

impl From<PeerRecord> for Paired {
    fn from(record: PeerRecord) -> Self {
        Self {
            peer: record.fingerprint.to_string(),
            name: record.name,
            fingerprint: record.fingerprint.groups(),
        }
    }
}

/// Shows a code, or takes one.
pub(crate) fn run(args: &PairArgs, context: &Context) -> Result<(), Failure> {
    let searches = args.qr.is_none() && args.addr.is_none() && !args.qr_only;
    let discovery = if searches { discovery(context) } else { None };
    let config = NodeConfig::default().with_listen(args.listen).with_discovery(discovery);
    let network = Network::of(context, &config)?;
    let paired = if args.show { show(args, context, &network) } else { join(args, &network) }?;
    let paired = Paired::from(paired);
    context.output.print(&paired, |page| {
        page.line(format_args!("paired with {}", plain(&paired.name)));
        page.property("fingerprint", &paired.fingerprint);
        page.line("`catchword sync` brings both libraries to the same state");
    })?;
    network.close();
    Ok(())
}

fn show(args: &PairArgs, context: &Context, network: &Network) -> Result<PeerRecord, Failure> {
    let mut hosting = Hosting::default().with_qr_only(args.qr_only);
    let terminal = context.output.terminal().clone();
    if !args.yes && terminal.answers() {
        hosting = hosting.with_ask(move |who, answer| ask(terminal.clone(), who, answer));
    }
    let hosted = network.run(async { network.node().host(hosting) })?;
    let shown = Shown { qr: &hosted.qr, key: &hosted.key, port: hosted.port };
    context.output.tell(&shown)?;
    context.output.say(&drawn(&hosted.qr))?;
    context.output.say(&format!("key   {}", hosted.key))?;
    context.output.say(&format!("port  {}", hosted.port))?;
    context.output.say(&format!(
        "\non the other device, within two minutes:\n  catchword pair --qr {} --key {}\n\
         or, on the same network, without the code:\n  catchword pair --key {} [--addr THIS-DEVICE:{}]",
        hosted.qr, hosted.key, hosted.key, hosted.port
    ))?;
    Ok(network.run(hosted.wait())?)
}

/// Asks the person in front of the terminal; whatever is not yes is no.
fn ask(terminal: Terminal, who: Asking, answer: Allow) {
    std::thread::spawn(move || {
        let question = format!("Allow {}, {}? [y/N] ", plain(&who.name), who.fingerprint.groups());
        let line = terminal.ask(&question).unwrap_or_default();
        answer.say(matches!(line.trim(), "y" | "Y" | "yes"));
    });
}

fn join(args: &PairArgs, network: &Network) -> Result<PeerRecord, Failure> {
    let key = args.key.clone().unwrap_or_default();
    let address = args.addr;
    let invitation = match &args.qr {
        Some(qr) => Join::Scanned { qr: qr.clone(), key, address },
        None => Join::KeyOnly { key, address },
    };
    Ok(network.run(network.node().join(&invitation))?)
}

/// Draws the code with two modules in each character; a text that does not fit is left out.
fn drawn(text: &str) -> String {
    use qrcode::QrCode;
    use qrcode::render::unicode::Dense1x2;

    QrCode::new(text).map_or_else(
        |_| String::new(),
        |code| {
            let mut drawing = code.render::<Dense1x2>();
            drawing.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
        },
    )
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Pair(error) => error.into(),
            error @ (JoinError::NobodyNear | JoinError::SeveralNear(_)) => Self::new(
                Exit::NotFound,
                error,
                "give its address with --addr HOST:PORT, or what its QR code says with --qr TEXT",
            ),
            error @ (JoinError::Code(_) | JoinError::Key(_) | _) => {
                Self::new(Exit::Usage, error, "take what `catchword pair --show` prints")
            }
        }
    }
}

impl From<PairError> for Failure {
    fn from(error: PairError) -> Self {
        let exit = match &error {
            PairError::Join(_) | PairError::Over(_) => Exit::Refused,
            PairError::Dial(_)
            | PairError::Lost(_)
            | PairError::Peer(_)
            | PairError::Read(_)
            | PairError::Random(_)
            | _ => Exit::Failed,
        };
        Self::new(exit, error, "see that both devices are on one network, and show a new code")
    }
}

//! `catchword status`: why something is not in sync.

use catchword::net::{NodeConfig, Status, Subject};
use serde::Serialize;

use crate::args::StatusArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::network::Network;
use crate::output::{Page, plain};
use crate::time::utc;

/// How one thing stands.
#[derive(Serialize)]
struct Line {
    subject: About,
    state: &'static str,
    reason: Option<String>,
    /// In milliseconds since the Unix epoch.
    since: Option<u64>,
    remedy: Option<&'static str>,
}

/// What a line is about: its kind, its id, and what people call it.
#[derive(Serialize)]
struct About {
    kind: &'static str,
    id: Option<String>,
    name: String,
}

impl From<Subject> for About {
    fn from(subject: Subject) -> Self {
        let (kind, id, name) = match subject {
            Subject::Account { url, user } => ("account", Some(url), user),
            Subject::Peer { peer, name } => ("peer", Some(peer.to_string()), name),
            Subject::Device { device, name } => ("device", Some(device.to_string()), name),
            Subject::Book { book, title } => ("book", Some(book.to_string()), title),
            Subject::Library | _ => ("library", None, String::new()),
        };
        Self { kind, id, name }
    }
}

/// How things stand, for people and for programs.
pub(crate) struct Lines(Vec<Line>);

impl Lines {
    pub(crate) fn of(lines: Vec<Status>) -> Self {
        Self(lines.into_iter().map(Line::from).collect())
    }

    pub(crate) fn write(&self, page: &mut Page) {
        for line in &self.0 {
            let why = line.reason.as_ref().map(|why| format!(": {}", plain(why)));
            let since = line.since.map(|since| format!(", since {}", utc(since)));
            page.line(format_args!(
                "{}  {}{}{}",
                line.state.replace('_', " "),
                line.subject,
                why.unwrap_or_default(),
                since.unwrap_or_default(),
            ));
            if let Some(remedy) = line.remedy {
                page.line(format_args!("    {remedy}"));
            }
        }
    }
}

impl From<Status> for Line {
    fn from(status: Status) -> Self {
        let remedy = status.reason.as_ref().and_then(catchword::net::Reason::remedy);
        Self {
            subject: status.subject.into(),
            state: status.state.name(),
            reason: status.reason.map(|reason| reason.to_string()),
            since: status.since_ms,
            remedy,
        }
    }
}

/// In words.
impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.id.as_deref().unwrap_or_default();
        let (kind, name) = (self.kind, plain(&self.name));
        match (kind, name.is_empty()) {
            ("library", _) => f.write_str("this library"),
            ("account", _) => {
                write!(f, "account {name} at {}", plain(self.id.as_deref().unwrap_or_default()))
            }
            (kind, true) => write!(f, "{kind} {}", id.get(..12).unwrap_or(id)),
            (kind, false) => write!(f, "{kind} {name}"),
        }
    }
}

/// Says how everything stands, or one book.
pub(crate) fn run(args: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let network = Network::of(context, &NodeConfig::default())?;
    let book = args.book.as_ref().map(|name| network.library().find(name)).transpose()?;
    let book = book.map(|book| book.id());
    if context.daemon.is_none() && book.is_none() {
        // What it finds is told below.
        let _told_as_status = network.run(network.cloud().look());
    }
    let mut lines = network.node().status(book)?;
    lines.extend(network.cloud().status(book)?);
    let lines = Lines::of(lines);
    context.output.print(&lines.0, |page| {
        if lines.0.is_empty() {
            page.line("nothing to say: no paired device exchanges this");
        }
        lines.write(page);
    })?;
    network.close();
    Ok(())
}

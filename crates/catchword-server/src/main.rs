//! The process: settings, the ledger, a listener, and an orderly end.

use std::sync::Arc;

use anyhow::Context as _;
use catchword_server::app::{App, Routes};
use catchword_server::config::{Args, Place, Projector, Settings};
use catchword_server::files::Disk;
use catchword_server::ledger::{Ledger, PostgresLedger, RedbLedger};
use catchword_server::serve;
use clap::Parser as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The file of the embedded ledger in its folder.
const FILE: &str = "cloud.redb";

fn main() -> anyhow::Result<()> {
    let settings = Args::parse().settings()?;
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(settings))
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let ledger = open(&settings.place).await?;
    let tls = match &settings.tls {
        Some((chain, key)) => Some(serve::tls(chain, key)?),
        None => None,
    };
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let listening = listener.local_addr()?;
    let security = if tls.is_some() { "TLS" } else { "plain HTTP: put a proxy with TLS before it" };
    let (end, ending) = watch::channel(false);
    let files = settings.files.as_ref().map(|(folder, bytes)| Disk::open(folder, *bytes));
    let files = files.transpose().context("cannot use the folder for book files")?;
    let app = App::with_files(ledger, files, settings.policy, ending)?;
    let router = Routes::all().serve(Arc::clone(&app));
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tracing::info!(%listening, security, "serving");

    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        tracing::info!("ending: calls that are being answered are finished");
        // Nobody hears it where nothing is served any more.
        let _told = end.send(true);
    });
    serve::serve(listener, tls, Arc::clone(&app), router).await;
    // The last one to hold the ledger waits for what it accepted.
    drop(app);
    tracing::info!("ended");
    Ok(())
}

async fn open(place: &Place) -> anyhow::Result<Arc<dyn Ledger>> {
    match place {
        Place::Folder(folder) => {
            std::fs::create_dir_all(folder).context("cannot make the folder")?;
            let ledger = RedbLedger::open(&folder.join(FILE)).context("cannot open the ledger")?;
            Ok(Arc::new(ledger))
        }
        Place::Postgres { url, connections, projector } => {
            let ledger = PostgresLedger::open(url, *connections).await;
            let ledger = ledger.context("cannot open the ledger")?;
            Ok(match projector {
                Projector::Here => Arc::new(ledger.with_projector()),
                Projector::Elsewhere => Arc::new(ledger),
            })
        }
    }
}

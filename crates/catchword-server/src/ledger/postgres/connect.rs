//! How the database is reached: what its URL says, and TLS by the same rustls as everything else.
//!
//! # Invariants
//!
//! 1. Nothing goes in plain over a network, unless the URL says `sslmode=disable`.
//! 2. Where TLS is spoken, certificate and name are verified, whatever the URL calls it.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Config, Socket};
use tokio_rustls::{TlsConnector, client};

use crate::ledger::LedgerError;

/// Reads the URL of a database.
pub(super) fn parse(url: &str) -> Result<(Config, Connect), LedgerError> {
    let (url, roots) = take_roots(url);
    let mut config: Config = url.parse().map_err(LedgerError::database)?;
    let mode = config.get_ssl_mode();
    if mode == SslMode::Require {
        let roots = roots.ok_or_else(|| unfit("TLS needs sslrootcert=FILE in the URL"))?;
        let tls = Some(connector(&roots)?);
        return Ok((config, Connect { tls }));
    }
    let maybe = url.contains("sslmode=") || !is_here(&config);
    if mode != SslMode::Disable && maybe {
        let detail = "say in the URL whether to speak TLS: sslmode=require&sslrootcert=FILE, or \
                      sslmode=disable where nobody else reads the network";
        return Err(unfit(detail));
    }
    config.ssl_mode(SslMode::Disable);
    Ok((config, Connect { tls: None }))
}

/// Takes out what the driver does not know: where the roots are, and the modes that verify.
fn take_roots(url: &str) -> (String, Option<PathBuf>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut roots = None;
    let mut left = Vec::new();
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("sslrootcert", file)) => roots = Some(PathBuf::from(file)),
            Some(("sslmode", "verify-ca" | "verify-full")) => left.push("sslmode=require"),
            _ => left.push(parameter),
        }
    }
    (format!("{base}?{}", left.join("&")), roots)
}

/// Returns whether the database is on this machine.
fn is_here(config: &Config) -> bool {
    let is_loopback = |host: &Host| match host {
        #[cfg(unix)]
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
    };
    let addresses = config.get_hostaddrs();
    config.get_hosts().iter().all(is_loopback)
        && addresses.iter().all(std::net::IpAddr::is_loopback)
}

fn connector(roots: &Path) -> Result<TlsConnector, LedgerError> {
    let unreadable = |_| unfit("sslrootcert is no file of certificates (PEM)");
    let certificates = CertificateDer::pem_file_iter(roots).map_err(unreadable)?;
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates {
        // What this release cannot use is of no use in verifying either.
        let _added = store.add(certificate.map_err(unreadable)?);
    }
    if store.is_empty() {
        return Err(unfit("sslrootcert holds no certificate that can be used"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(LedgerError::database)?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn unfit(detail: &str) -> LedgerError {
    LedgerError::Unfit { detail: detail.to_owned() }
}

/// Makes connections, over TLS if the URL says so.
#[derive(Clone)]
pub(super) struct Connect {
    tls: Option<TlsConnector>,
}

impl MakeTlsConnect<Socket> for Connect {
    type Stream = Stream;
    type TlsConnect = ToHost;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<ToHost> {
        // Nobody asks where TLS is not spoken.
        let Some(tls) = self.tls.clone() else { return Ok(ToHost(None)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(ToHost(Some((tls, name))))
    }
}

/// Speaks TLS with one host.
pub(super) struct ToHost(Option<(TlsConnector, ServerName<'static>)>);

impl TlsConnect<Socket> for ToHost {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let (tls, name) = self.0.ok_or(io::ErrorKind::Unsupported)?;
            Ok(Stream(Box::new(tls.connect(name, socket).await?)))
        })
    }
}

/// A connection over TLS.
pub(super) struct Stream(Box<client::TlsStream<Socket>>);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        // The certificate is verified, which is what a binding would prove.
        ChannelBinding::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(url: &str) -> bool {
        parse(url).unwrap().1.tls.is_none()
    }

    #[test]
    fn in_plain_only_on_this_machine_or_where_the_url_says_so() {
        assert!(is_plain("postgres://me@localhost/cloud"));
        assert!(is_plain("postgres://me@127.0.0.1:5433/cloud?application_name=x"));
        assert!(is_plain("postgres://me@[::1]/cloud"));
        assert!(is_plain("postgres://me@%2Frun%2Fpostgresql/cloud"));
        assert!(is_plain("postgres://me@database/cloud?sslmode=disable"));
        for url in [
            "postgres://me@database/cloud",
            "postgres://me@10.0.0.1/cloud",
            "postgres://me@localhost,database/cloud",
            "postgres://me@localhost/cloud?sslmode=prefer",
            "postgres://me@localhost/cloud?sslmode=require",
            "postgres://me@localhost/cloud?sslmode=verify-full&sslrootcert=/nowhere",
        ] {
            assert!(matches!(parse(url), Err(LedgerError::Unfit { .. })), "{url}");
        }
        assert!(parse("postgres://me@localhost/cloud?sslmode=maybe").is_err());
    }

    #[test]
    fn what_the_driver_does_not_know_is_taken_out() {
        let (url, roots) =
            take_roots("postgres://h/d?a=b&sslmode=verify-full&sslrootcert=/x/y.pem");
        assert_eq!(url, "postgres://h/d?a=b&sslmode=require");
        assert_eq!(roots, Some(PathBuf::from("/x/y.pem")));
        assert_eq!(take_roots("postgres://h/d"), ("postgres://h/d".to_owned(), None));
    }
}

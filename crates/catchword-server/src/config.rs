//! Settings: flags first, then the environment, then a file, then what is built in.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use serde::Deserialize;

/// Where the server listens where nothing is said: this machine only.
const LISTEN: &str = "127.0.0.1:8790";
/// Connections to PostgreSQL of one process.
const DATABASE_CONNECTIONS: usize = 16;
/// What the book files of one account may take, in MiB.
const FILES_QUOTA_MIB: u32 = 4_096;

/// Serve the account cloud of catchword
///
/// Keeps libraries of the people who have an account here, and brings their devices to the same
/// state. One household needs nothing but --data; several server processes share one PostgreSQL by
/// --database-url.
#[derive(Debug, Parser)]
#[command(name = "catchword-server", version)]
pub struct Args {
    /// Read settings from this TOML file; its names are those of the flags, with underscores
    #[arg(long, env = "CATCHWORD_SERVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

/// What can be set, in each of the three places. What belongs together is looked at once, when all of them
/// are put together.
#[derive(Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    /// Keep everything in this folder
    #[arg(long, env = "CATCHWORD_SERVER_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep everything in PostgreSQL 15 or newer
    #[arg(
        long,
        env = "CATCHWORD_SERVER_DATABASE_URL",
        value_name = "postgres://USER@HOST/NAME",
        hide_env_values = true
    )]
    database_url: Option<String>,
    /// Open at most this many connections to PostgreSQL [default: 16]
    #[arg(long, env = "CATCHWORD_SERVER_DATABASE_CONNECTIONS", value_name = "N")]
    database_connections: Option<usize>,
    /// Make no plain rows of places and annotations: another process on this database does
    #[arg(long, env = "CATCHWORD_SERVER_NO_PROJECTOR", num_args = 0..=1, default_missing_value = "true")]
    no_projector: Option<bool>,
    /// Listen here [default: 127.0.0.1:8790]
    #[arg(long, env = "CATCHWORD_SERVER_LISTEN", value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// Speak TLS with this certificate chain (PEM); without it, plain HTTP for a proxy that does
    #[arg(long, env = "CATCHWORD_SERVER_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, env = "CATCHWORD_SERVER_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Keep a backup of book files in this folder; without it, none
    #[arg(long, env = "CATCHWORD_SERVER_FILES", value_name = "DIR")]
    files: Option<PathBuf>,
    /// Keep so many MiB of book files for one account [default: 4096]
    #[arg(long, env = "CATCHWORD_SERVER_FILES_QUOTA", value_name = "MIB")]
    files_quota: Option<u32>,
    /// Take no new accounts
    #[arg(long, env = "CATCHWORD_SERVER_CLOSED", num_args = 0..=1, default_missing_value = "true")]
    closed: Option<bool>,
    /// Believe the last address in X-Forwarded-For, which a proxy before this server writes
    #[arg(long, env = "CATCHWORD_SERVER_BEHIND_PROXY", num_args = 0..=1, default_missing_value = "true")]
    behind_proxy: Option<bool>,
}

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a folder.
    Folder(PathBuf),
    /// In PostgreSQL.
    Postgres {
        /// Where.
        url: String,
        /// How many connections at most.
        connections: usize,
        /// Who makes the plain rows.
        projector: Projector,
    },
}

/// Who makes plain rows of places and annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projector {
    /// This process, or another, whoever comes first.
    Here,
    /// Another process, or none.
    Elsewhere,
}

/// Settings that hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the ledger is.
    pub place: Place,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Certificate chain and key, for TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where book files are kept, and how many bytes for one account.
    pub files: Option<(PathBuf, u64)>,
    /// What is allowed.
    pub policy: crate::app::Policy,
}

/// Settings do not hold together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the settings file cannot be read")]
    File(#[source] std::io::Error),
    /// The file has something that is no setting.
    #[error("the settings file does not read")]
    Syntax(#[source] Box<toml::de::Error>),
    /// It is not said where to keep everything, or said twice.
    #[error("say where to keep everything: --data DIR or --database-url URL, one of them")]
    Place,
    /// TLS needs two files.
    #[error("TLS needs both a certificate and its key")]
    Tls,
}

impl Args {
    /// Puts flags, environment and file together.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn settings(self) -> Result<Settings, ConfigError> {
        let file = match &self.config {
            None => Given::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(ConfigError::File)?;
                toml::from_str(&text).map_err(|error| ConfigError::Syntax(error.into()))?
            }
        };
        self.given.over(file)
    }
}

impl Given {
    fn over(self, file: Self) -> Result<Settings, ConfigError> {
        use crate::app::{AddressFrom, Policy, SignUp};

        let connections = self.database_connections.or(file.database_connections);
        let connections = connections.unwrap_or(DATABASE_CONNECTIONS).max(2);
        let no_projector = self.no_projector.or(file.no_projector).unwrap_or(false);
        let projector = if no_projector { Projector::Elsewhere } else { Projector::Here };
        // Whoever says one of them in one place does not mean the other one in the next.
        let here = (self.data, self.database_url);
        let said = if here == (None, None) { (file.data, file.database_url) } else { here };
        let place = match said {
            (Some(folder), None) => Place::Folder(folder),
            (None, Some(url)) => Place::Postgres { url, connections, projector },
            (None, None) | (Some(_), Some(_)) => return Err(ConfigError::Place),
        };
        let certificate = self.tls_certificate.or(file.tls_certificate);
        let tls = match (certificate, self.tls_key.or(file.tls_key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(ConfigError::Tls),
        };
        let quota = self.files_quota.or(file.files_quota).unwrap_or(FILES_QUOTA_MIB);
        let files = self.files.or(file.files).map(|folder| (folder, u64::from(quota) << 20));
        let closed = self.closed.or(file.closed).unwrap_or(false);
        let proxied = self.behind_proxy.or(file.behind_proxy).unwrap_or(false);
        let listen = self.listen.or(file.listen);
        let listen = listen.map_or_else(|| LISTEN.parse(), Ok);
        Ok(Settings {
            place,
            listen: listen.unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0))),
            tls,
            files,
            policy: Policy {
                sign_up: if closed { SignUp::Closed } else { SignUp::Open },
                address: if proxied { AddressFrom::Proxy } else { AddressFrom::Connection },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AddressFrom, SignUp};

    fn settings(flags: &[&str], file: &str) -> Result<Settings, ConfigError> {
        let args = std::iter::once("catchword-server").chain(flags.iter().copied());
        let args = Args::try_parse_from(args).unwrap();
        args.given.over(toml::from_str(file).unwrap())
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_what_is_built_in() {
        let built_in = settings(&["--data", "d"], "").unwrap();
        assert_eq!(built_in.place, Place::Folder("d".into()));
        assert_eq!(built_in.listen.to_string(), LISTEN);
        assert_eq!(built_in.policy.sign_up, SignUp::Open);
        assert_eq!(built_in.files, None);

        let file = "data = \"f\"\nlisten = \"0.0.0.0:1\"\nclosed = true\nbehind_proxy = true\n\
                    files = \"b\"\nfiles_quota = 1";
        let of_file = settings(&[], file).unwrap();
        assert_eq!(of_file.place, Place::Folder("f".into()));
        assert_eq!(of_file.listen.port(), 1);
        assert_eq!(of_file.files, Some(("b".into(), 1 << 20)));
        assert_eq!(of_file.policy.sign_up, SignUp::Closed);
        assert_eq!(of_file.policy.address, AddressFrom::Proxy);

        let flags = ["--database-url", "u", "--listen", "[::1]:2", "--closed", "false"];
        let both = settings(&flags, file).unwrap();
        let (url, projector) = ("u".to_owned(), Projector::Here);
        let place = Place::Postgres { url, connections: 16, projector };
        assert_eq!((both.place, both.listen.port()), (place, 2));
        assert_eq!(both.policy.sign_up, SignUp::Open);
    }

    #[test]
    fn what_belongs_together_may_be_said_in_two_places() {
        let file = "data = \"d\"\ntls_key = \"k\"";
        let both = settings(&["--tls-certificate", "c"], file).unwrap();
        assert_eq!(both.tls, Some(("c".into(), "k".into())));
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        assert!(matches!(settings(&[], ""), Err(ConfigError::Place)));
        let both = "data = \"d\"\ndatabase_url = \"u\"";
        assert!(matches!(settings(&[], both), Err(ConfigError::Place)));
        let flags = ["--data", "d", "--database-url", "u"];
        assert!(matches!(settings(&flags, ""), Err(ConfigError::Place)));
        let half = "data = \"d\"\ntls_key = \"k\"";
        assert!(matches!(settings(&[], half), Err(ConfigError::Tls)));
        assert!(toml::from_str::<Given>("dat = \"d\"").is_err());
    }
}

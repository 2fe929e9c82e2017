//! Where a server is.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

/// Longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 1_024;

/// Where a server is: `https://HOST[:PORT][/PATH]`, or `http://` where that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    secure: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// Without a slash at its end.
    path: String,
}

/// A text is no address of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It does not read.
    #[error("not an address such as https://cloud.example")]
    Malformed,
    /// It has a user, a query or a fragment.
    #[error("the address of a server has no user and nothing behind its path")]
    Surplus,
    /// Password and books would travel readably over a network. Use `https://`, or say that this is meant.
    #[error("http:// to another machine is readable on the way")]
    Readable,
}

impl ServerAddress {
    /// Reads an address. Without TLS only this machine may be meant, unless `plain` says otherwise.
    ///
    /// # Errors
    ///
    /// [`AddressError`].
    pub fn parse(text: &str, plain: bool) -> Result<Self, AddressError> {
        let text = text.trim();
        if ADDRESS_BYTES_MAX < text.len() || text.contains('#') {
            return Err(AddressError::Malformed);
        }
        let uri: Uri = text.parse().map_err(|_| AddressError::Malformed)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(AddressError::Malformed),
        };
        let authority = uri.authority().ok_or(AddressError::Malformed)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(AddressError::Surplus);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let host = host.to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        // Behind the brackets of an IPv6 address, a colon means a port.
        let names_port = authority.as_str().rsplit(']').next().is_some_and(|end| end.contains(':'));
        if host.is_empty() || (names_port && authority.port_u16().is_none()) {
            return Err(AddressError::Malformed);
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        let address = Self { secure, host, port, path };
        if secure || plain || address.is_this_machine() {
            Ok(address)
        } else {
            Err(AddressError::Readable)
        }
    }

    fn is_this_machine(&self) -> bool {
        let loopback = self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        loopback || self.host == "localhost"
    }

    /// Returns whether it is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the host and the port, as they stand in a request.
    pub(crate) fn authority(&self) -> String {
        let port = if self.port == if self.secure { 443 } else { 80 } {
            String::new()
        } else {
            format!(":{}", self.port)
        };
        if self.host.contains(':') {
            format!("[{}]{port}", self.host)
        } else {
            format!("{}{port}", self.host)
        }
    }

    /// Returns a path of the server.
    pub(crate) fn path(&self, call: &str) -> String {
        format!("{}{call}", self.path)
    }
}

/// In its one form.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        for (text, shown, path) in [
            ("https://Cloud.Example", "https://cloud.example", "/v1/ingest"),
            (" https://cloud.example:443/ ", "https://cloud.example", "/v1/ingest"),
            (
                "https://cloud.example:8790/books/",
                "https://cloud.example:8790/books",
                "/books/v1/ingest",
            ),
            ("http://127.0.0.1:8790", "http://127.0.0.1:8790", "/v1/ingest"),
            ("http://[::1]:1/", "http://[::1]:1", "/v1/ingest"),
            ("http://localhost", "http://localhost", "/v1/ingest"),
        ] {
            let address = ServerAddress::parse(text, false).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.path("/v1/ingest"), path);
            assert_eq!(ServerAddress::parse(shown, false), Ok(address));
        }
    }

    #[test]
    fn what_could_be_read_on_the_way_is_said_on_purpose() {
        for text in ["http://cloud.example", "http://192.168.1.2:8790", "http://localhost.example"]
        {
            assert_eq!(ServerAddress::parse(text, false), Err(AddressError::Readable), "{text}");
            assert!(!ServerAddress::parse(text, true).unwrap().is_secure());
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "cloud.example",
            "ftp://a",
            "https://",
            "https:///x",
            "https://a b",
            "https://a:x",
            "https://a#b",
            "https://:1",
        ] {
            assert_eq!(ServerAddress::parse(text, true), Err(AddressError::Malformed), "{text}");
        }
        for text in ["https://anna@cloud.example", "https://anna:pw@a", "https://a/?x=1"] {
            assert_eq!(ServerAddress::parse(text, true), Err(AddressError::Surplus), "{text}");
        }
        let long = format!("https://a/{}", "x".repeat(ADDRESS_BYTES_MAX - 10));
        assert!(ServerAddress::parse(&long, true).is_ok());
        assert_eq!(ServerAddress::parse(&(long + "x"), true), Err(AddressError::Malformed));
    }
}

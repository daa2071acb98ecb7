//! Where a sidecar listens, as people write it.

use std::{fmt, net::IpAddr, net::Ipv6Addr, path::PathBuf, str::FromStr};

/// Parsed from `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        port: u16,
        /// What the scheme says; `None` without one: TLS when certificates are given.
        tls: Option<bool>,
    },
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read the address `{address}`: {problem}; accepted are HOST:PORT, http://HOST:PORT, \
     https://HOST:PORT and unix:/PATH"
)]
pub struct AddressError {
    address: String,
    problem: &'static str,
}

impl Address {
    /// Whether the scheme demands TLS (true), excludes it (false), or leaves it open.
    pub(super) fn tls(&self) -> Option<bool> {
        match self {
            Self::Tcp { tls, .. } => *tls,
            Self::Unix(_) => Some(false),
        }
    }

    /// True where nobody outside this host can listen.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }

    /// As tonic wants it.
    pub(super) fn uri(&self, encrypted: bool) -> String {
        match self {
            Self::Unix(_) => self.to_string(),
            Self::Tcp { host, port, .. } => {
                let tls = Some(encrypted);
                Self::Tcp { host: host.clone(), port: *port, tls }.to_string()
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        let fail = |problem| AddressError { address: address.to_owned(), problem };
        if let Some(rest) = address.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(fail("the path of a unix socket must be absolute"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (tls, rest) = match address.split_once("://") {
            None => (None, address),
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some(_) => return Err(fail("unknown scheme")),
        };
        let rest = if tls.is_some() { rest.strip_suffix('/').unwrap_or(rest) } else { rest };
        if rest.contains(|c: char| matches!(c, '/' | '?' | '#' | '@' | '\\') || c.is_whitespace()) {
            return Err(fail("only a host and a port belong here"));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| fail("the port is missing"))?;
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err(fail("the port must be a number from 1 to 65535")),
            Ok(port) => port,
        };
        let host = match host.strip_prefix('[').map(|h| h.strip_suffix(']')) {
            Some(Some(v6)) if v6.parse::<Ipv6Addr>().is_ok() => v6,
            Some(_) => return Err(fail("only an IPv6 address belongs in brackets")),
            None if host.contains(':') => return Err(fail("an IPv6 address needs brackets")),
            None if host.is_empty() => return Err(fail("the host is missing")),
            None => host,
        };
        Ok(Self::Tcp { host: host.to_owned(), port, tls })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port, tls } => {
                f.write_str(match tls {
                    None => "",
                    Some(false) => "http://",
                    Some(true) => "https://",
                })?;
                if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_forms_are_read_and_printed_back() {
        for (text, printed) in [
            ("127.0.0.1:29700", "127.0.0.1:29700"),
            ("master-0.svc:29700", "master-0.svc:29700"),
            ("[::1]:29700", "[::1]:29700"),
            ("http://h:1", "http://h:1"),
            ("https://h:1/", "https://h:1"),
            ("unix:/run/p.sock", "unix:/run/p.sock"),
            ("unix:///run/p.sock", "unix:/run/p.sock"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), printed);
            assert_eq!(printed.parse(), Ok(address));
        }
    }

    #[test]
    fn anything_else_names_the_accepted_forms() {
        for text in [
            "",
            "host",
            ":1",
            "h:",
            "h:0",
            "h:65536",
            "h:-1",
            "::1:29700",
            "[::1]",
            "[h]:1",
            "ftp://h:1",
            "http://h",
            "http://h:1/path",
            "http://user@h:1",
            "h :1",
            "h:1/",
            "unix:run/p.sock",
            "unix:",
            "unix://",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("unix:/PATH") && error.contains("HOST:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn only_loopback_and_sockets_are_local() {
        let local = |text: &str| text.parse::<Address>().unwrap().is_local();
        for text in ["127.1.2.3:1", "LOCALHOST:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/s"] {
            assert!(local(text), "{text}");
        }
        for text in ["10.0.0.1:1", "localhost.example:1", "127.0.0.1.example:1", "[::]:1", "0.0.0.0:1"] {
            assert!(!local(text), "{text}");
        }
    }

    #[test]
    fn without_a_scheme_the_certificates_decide() {
        let address: Address = "h:1".parse().unwrap();
        assert_eq!(address.uri(false), "http://h:1");
        assert_eq!(address.uri(true), "https://h:1");
    }
}

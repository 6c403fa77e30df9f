//! The URL of a WebSocket (RFC 6455 §3).

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

/// The URL of a WebSocket, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether it is `wss`.
    pub tls: bool,
    /// Whom to connect to.
    pub host: Host,
    /// Where.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By its name, in lower case.
    Name(String),
    /// By its address.
    Address(IpAddr),
}

/// Why a text is no URL of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidTarget {
    /// It begins otherwise.
    #[error("the URL must begin with wss:// or ws://")]
    Scheme,
    /// It is one of the web.
    #[error("WebSocket URLs have their own schemes: write {0}")]
    Http(String),
    /// There is no host.
    #[error("there is no host in the URL")]
    NoHost,
    /// The host is none.
    #[error("\"{0}\" is neither a host name in ASCII nor an address")]
    Host(String),
    /// The port is no number from 1 to 65535.
    #[error("\"{0}\" is not a valid port")]
    Port(String),
    /// Passwords in URLs reach nobody.
    #[error("a WebSocket URL has no user or password: use --header \"Authorization: …\"")]
    User,
    /// RFC 6455 §3: they must not be there.
    #[error("a WebSocket URL has no fragment (\"#…\"); write \"%23\" for a \"#\" in the path")]
    Fragment,
    /// Spaces and letters outside of ASCII.
    #[error("the path has characters that must be percent-encoded")]
    Path,
}

impl Host {
    /// Whether it is an address or name of this machine or of a private network: who uses those knows that they are
    /// not for everybody.
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Self::Address(IpAddr::V4(v4)) => {
                v4.is_loopback() || v4.is_private() || v4.is_link_local()
            }
            Self::Address(IpAddr::V6(v6)) => {
                v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()
            }
        }
    }
}

impl Target {
    /// Reads `wss://host[:port]/path`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(url: &str) -> Result<Self, InvalidTarget> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidTarget::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "wss" => true,
            "ws" => false,
            "https" => return Err(InvalidTarget::Http(format!("wss://{rest}"))),
            "http" => return Err(InvalidTarget::Http(format!("ws://{rest}"))),
            _ => return Err(InvalidTarget::Scheme),
        };
        if rest.contains('#') {
            return Err(InvalidTarget::Fragment);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(InvalidTarget::User);
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidTarget::Path);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None | Some("") => default_port(tls),
            Some(text) => match text.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(InvalidTarget::Port(text.to_owned())),
            },
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { tls, host: Host::parse(host)?, port, path })
    }

    /// Host, and port where it is not the usual one: what `Host` says.
    pub fn authority(&self) -> String {
        match self.port == default_port(self.tls) {
            true => self.host.to_string(),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The origin of a page of the same host, port and security.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, InvalidTarget> {
        let invalid = || InvalidTarget::Host(text.to_owned());
        if text.is_empty() {
            return Err(InvalidTarget::NoHost);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(invalid)?;
            return inner.parse().map(|ip| Self::Address(IpAddr::V6(ip))).map_err(|_| invalid());
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(is_good) || wssgate_dns::Name::new(name.as_bytes()).is_err() {
            return Err(invalid());
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), InvalidTarget> {
    if !authority.starts_with('[') {
        return Ok(match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        });
    }
    let end = authority.find(']').ok_or_else(|| InvalidTarget::Host(authority.to_owned()))?;
    match authority.split_at(end + 1) {
        (host, "") => Ok((host, None)),
        (host, rest) => match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None => Err(InvalidTarget::Host(authority.to_owned())),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_written_in_one_way() {
        for (url, authority, port, path, written) in [
            ("wss://A.test", "a.test", 443, "/", "wss://a.test/"),
            ("WS://a.test./x?y=1", "a.test", 80, "/x?y=1", "ws://a.test/x?y=1"),
            ("wss://a.test?y", "a.test", 443, "/?y", "wss://a.test/?y"),
            ("wss://a.test:443/", "a.test", 443, "/", "wss://a.test/"),
            ("ws://a.test:443/", "a.test:443", 443, "/", "ws://a.test:443/"),
            ("wss://[::1]:8443/", "[::1]:8443", 8443, "/", "wss://[::1]:8443/"),
            ("ws://127.0.0.1:/", "127.0.0.1", 80, "/", "ws://127.0.0.1/"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(
                (target.authority().as_str(), target.port, target.path.as_str()),
                (authority, port, path),
                "{url}"
            );
            assert_eq!(target.to_string(), written);
        }
    }

    #[test]
    fn what_is_no_url_of_a_websocket_is_named() {
        use InvalidTarget::*;
        for (url, error) in [
            ("a.test", Scheme),
            ("ftp://a.test", Scheme),
            ("https://a.test/x", Http("wss://a.test/x".into())),
            ("http://a.test", Http("ws://a.test".into())),
            ("wss://", NoHost),
            ("wss://:443/", NoHost),
            ("wss://a..test/", Host("a..test".into())),
            ("wss://a b/", Host("a b".into())),
            ("wss://münchen.test/", Host("münchen.test".into())),
            ("wss://[::1/", Host("[::1".into())),
            ("wss://[::1]x/", Host("[::1]x".into())),
            ("wss://a.test:x/", Port("x".into())),
            ("wss://a.test:0/", Port("0".into())),
            ("wss://a.test:65536/", Port("65536".into())),
            ("wss://u:p@a.test/", User),
            ("wss://a.test/#x", Fragment),
            ("wss://a.test/a b", Path),
        ] {
            assert_eq!(Target::parse(url), Err(error), "{url}");
        }
    }
}

//! `--from`: what clients connect to.

use std::net::IpAddr;

use super::{CommandError, has_ipv6, port};

/// What clients ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct From {
    /// A name, or an address without brackets.
    pub(super) name: String,
    pub(super) port: u16,
}

impl From {
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        let fail = || CommandError::From(text.to_owned());
        let bare = text.strip_prefix("wss://").or_else(|| text.strip_prefix("https://"));
        let bare = bare.unwrap_or(text).trim_end_matches('/');
        let (name, rest) = match bare.strip_prefix('[') {
            Some(address) => address.split_once(']').ok_or_else(fail)?,
            None => bare.split_at(bare.find(':').unwrap_or(bare.len())),
        };
        // "Connect to the name 9443" is never meant.
        if !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CommandError::OnlyPort(bare.to_owned()));
        }
        let is_name = match bare.starts_with('[') {
            true => matches!(name.parse(), Ok(IpAddr::V6(_))),
            false => is_name(name),
        };
        if !is_name {
            return Err(fail());
        }
        let port = match rest.strip_prefix(':') {
            Some(number) => port(number, "--from")?,
            None if rest.is_empty() => 443,
            None => return Err(fail()),
        };
        Ok(Self { name: name.to_ascii_lowercase(), port })
    }

    fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok()
    }

    /// Whether it is every address of this machine, which nobody connects to by that name.
    pub(super) fn is_any(&self) -> bool {
        self.address().is_some_and(|address| address.is_unspecified())
    }

    /// Where to listen: names of this machine only on this machine.
    pub(super) fn addresses(&self) -> Vec<String> {
        let Self { name, port } = self;
        let is_local = match self.address() {
            Some(address) => address.is_loopback(),
            None => name == "localhost" || name.ends_with(".localhost"),
        };
        let mut addresses = match is_local {
            true => vec![format!("127.0.0.1:{port}"), format!("[::1]:{port}")],
            false => vec![port.to_string(), format!("[::]:{port}")],
        };
        let only_ipv4 = self.is_any() && !name.contains(':');
        if only_ipv4 || !has_ipv6() {
            addresses.truncate(1);
        }
        addresses
    }

    /// The name of the server in the configuration.
    pub(super) fn server_name(&self) -> &str {
        // Whoever connects by an address of IPv6, or by any address, is served all the same.
        if self.is_any() || self.name.contains(':') { "_" } else { &self.name }
    }

    /// What a certificate of our own making is for.
    pub(super) fn certified(&self) -> Vec<String> {
        if !self.is_any() {
            return vec![self.name.clone()];
        }
        let host = wssgate_sys::process::host_name();
        let host = Some(host).filter(|host| is_name(host) && host != "localhost");
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        local.into_iter().chain(host).collect()
    }

    pub(super) fn url(&self) -> String {
        let name = match &*self.name {
            _ if self.is_any() => "localhost".to_owned(),
            address if address.contains(':') => format!("[{address}]"),
            name => name.to_owned(),
        };
        match self.port {
            443 => format!("wss://{name}"),
            port => format!("wss://{name}:{port}"),
        }
    }
}

/// Whether it is a name, or an address of IPv4. The text goes into a configuration, where anything else could mean
/// more than a name.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
    name.bytes().all(fits) && !name.split('.').any(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_a_name_and_a_port() {
        let port = |text: &str| Err(format!("the port \"{text}\" of --from is not"));
        for (text, expected) in [
            ("example.com", Ok(("example.com", 443))),
            ("Example.com:8443", Ok(("example.com", 8443))),
            ("wss://example.com/", Ok(("example.com", 443))),
            ("localhost:8443", Ok(("localhost", 8443))),
            ("0.0.0.0:1", Ok(("0.0.0.0", 1))),
            ("[::1]:8443", Ok(("::1", 8443))),
            ("[::]", Ok(("::", 443))),
            ("a:x", port("x")),
            ("a:", port("")),
            ("a:0", port("0")),
            ("a:65536", port("65536")),
            ("[::1]:", port("")),
            ("", Err("--from".to_owned())),
            (
                "9443",
                Err("--from \"9443\" is a port without a name: write localhost:9443".to_owned()),
            ),
            (":443", Err("--from".to_owned())),
            ("::1", Err("--from".to_owned())),
            ("[::1", Err("--from".to_owned())),
            ("[::1]x", Err("--from".to_owned())),
            ("[a]", Err("--from".to_owned())),
            ("[127.0.0.1]", Err("--from".to_owned())),
            ("a b", Err("--from".to_owned())),
            ("a;b", Err("--from".to_owned())),
            (".example.com", Err("--from".to_owned())),
            ("chat.example.com.", Err("--from".to_owned())),
            ("chat..example.com", Err("--from".to_owned())),
        ] {
            match (From::parse(text).map_err(|error| error.to_string()), expected) {
                (Err(error), Err(expected)) => {
                    assert!(error.starts_with(&expected), "{text}: {error}")
                }
                (parsed, expected) => {
                    let expected =
                        expected.map(|(name, port)| From { name: name.to_owned(), port });
                    assert_eq!(parsed, expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn names_of_this_machine_stay_on_this_machine() {
        let addresses = |name: &str| From::parse(name).expect("a name").addresses();
        let with_ipv6 = |both: [&'static str; 2]| both[..if has_ipv6() { 2 } else { 1 }].to_vec();
        assert_eq!(addresses("localhost:1"), with_ipv6(["127.0.0.1:1", "[::1]:1"]));
        assert_eq!(addresses("[::1]:1"), with_ipv6(["127.0.0.1:1", "[::1]:1"]));
        assert_eq!(addresses("example.com"), with_ipv6(["443", "[::]:443"]));
        assert_eq!(addresses("[::]:1"), with_ipv6(["1", "[::]:1"]));
        assert_eq!(addresses("0.0.0.0:1"), ["1"]);
    }

    #[test]
    fn every_address_is_no_name() {
        let from = From::parse("0.0.0.0:8443").expect("an address");
        assert_eq!((from.server_name(), &*from.url()), ("_", "wss://localhost:8443"));
        assert!(from.certified().starts_with(&["localhost".to_owned(), "127.0.0.1".to_owned()]));
        let from = From::parse("[::1]:8443").expect("an address");
        assert_eq!((from.server_name(), &*from.url()), ("_", "wss://[::1]:8443"));
        assert_eq!(from.certified(), ["::1"]);
    }
}

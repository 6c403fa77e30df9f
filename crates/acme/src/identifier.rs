//! What a certificate is for: names and addresses.

use std::fmt;
use std::net::IpAddr;

/// A name or an address that a certificate is wanted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identifier {
    /// A name, lower case; `*.` may stand before it.
    Dns(Box<str>),
    /// An address (RFC 8738).
    Ip(IpAddr),
}

impl Identifier {
    /// The name in the ClientHello of a CA that looks for a challenge certificate: an address is asked
    /// for by its name in the DNS (RFC 8738 §6).
    pub(crate) fn server_name(&self) -> String {
        match self {
            Self::Dns(name) => name.to_string(),
            Self::Ip(IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            Self::Ip(IpAddr::V6(address)) => {
                let octets = address.octets();
                let nibbles = octets.iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
                nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
            }
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => formatter.write_str(name),
            Self::Ip(address) => address.fmt(formatter),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_asked_for_by_their_names() {
        for (text, expected) in [
            ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
            ("fe80::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa"),
        ] {
            assert_eq!(Identifier::Ip(text.parse().unwrap()).server_name(), expected);
        }
        assert_eq!(Identifier::Dns("a.test".into()).server_name(), "a.test");
    }
}

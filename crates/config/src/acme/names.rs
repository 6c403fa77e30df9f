//! What a certificate is for: names and addresses.

use std::fmt;
use std::net::IpAddr;

/// A name or an address that a certificate is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcmeIdentifier {
    /// A name, lower case; `*.` may stand before it.
    Dns(Box<str>),
    /// An address.
    Ip(IpAddr),
}

impl AcmeIdentifier {
    /// Whether it stands for all names below another one.
    pub(crate) fn is_wildcard(&self) -> bool {
        matches!(self, Self::Dns(name) if name.starts_with("*."))
    }
}

impl fmt::Display for AcmeIdentifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => formatter.write_str(name),
            Self::Ip(address) => address.fmt(formatter),
        }
    }
}

/// Why a text is no name for a certificate, in nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameError {
    Invalid(u8, usize),
    Unexpected(char, usize),
    NotALabel,
}

impl fmt::Display for NameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(byte, at) => {
                write!(formatter, "invalid character {byte:x} at position {at}")
            }
            Self::Unexpected(byte, at) => {
                write!(formatter, "unexpected character '{byte}' at position {at}")
            }
            Self::NotALabel => formatter.write_str("does not end with a label"),
        }
    }
}

/// Reads a name or an address. As in nginx, `.example.com` stands for `www.example.com` and `example.com`.
pub(crate) fn identifiers(text: &[u8]) -> Result<Vec<AcmeIdentifier>, NameError> {
    let name = String::from_utf8_lossy(text).to_ascii_lowercase();
    if let Ok(address) = name.parse() {
        return Ok(vec![AcmeIdentifier::Ip(address)]);
    }
    check(text)?;
    let dns = |name: String| AcmeIdentifier::Dns(name.into());
    Ok(match name.strip_prefix('.') {
        Some(host) => vec![dns(format!("www.{host}")), dns(host.to_owned())],
        None => vec![dns(name)],
    })
}

/// Checks a name as nginx does: it must be one that a request may be for, with at most a dot or `*.` before it.
fn check(name: &[u8]) -> Result<(), NameError> {
    #[derive(PartialEq, Eq)]
    enum Behind {
        Nothing,
        Label,
        Dot,
        Wildcard,
    }
    let mut behind = Behind::Nothing;
    for (at, &byte) in name.iter().enumerate() {
        behind = match byte {
            0..=0x20 | 0x7f.. => return Err(NameError::Invalid(byte, at)),
            b'*' if behind == Behind::Nothing => Behind::Wildcard,
            b'.' if behind != Behind::Dot => Behind::Dot,
            _ if behind != Behind::Wildcard
                && (byte.is_ascii_alphanumeric() || b"-_~%!$&'()+,;=".contains(&byte)) =>
            {
                Behind::Label
            }
            _ => return Err(NameError::Unexpected(char::from(byte), at)),
        };
    }
    if behind == Behind::Label { Ok(()) } else { Err(NameError::NotALabel) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_nginx_checks_them() {
        for (name, expected) in [
            ("example", Ok(())),
            ("_example", Ok(())),
            ("Example.", Err(NameError::NotALabel)),
            ("E\x10ample", Err(NameError::Invalid(0x10, 1))),
            ("www.example..test", Err(NameError::Unexpected('.', 12))),
            ("xn--e1afmkfd.xn--80akhbyknj4f", Ok(())),
            ("*", Err(NameError::NotALabel)),
            ("*.example.test", Ok(())),
            ("*ww.example.test", Err(NameError::Unexpected('w', 1))),
            ("www.example.*", Err(NameError::Unexpected('*', 12))),
            ("", Err(NameError::NotALabel)),
            ("*.", Err(NameError::NotALabel)),
        ] {
            assert_eq!(check(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn a_leading_dot_means_two_names() {
        let names = identifiers(b".Example.test").expect("a name");
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["www.example.test", "example.test"]);
    }
}

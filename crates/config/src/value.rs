//! nginx's ways to write numbers, sizes, times and addresses.
//!
//! Everything here is a function from bytes to a value; who asks knows the directive and words the error.

mod origin;
mod url;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::Span;

pub use origin::Origin;
pub use url::{UpstreamUrl, UrlError};

/// A value and the place where the configuration says it.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

/// The least size of a zone that nginx accepts: eight pages.
pub(crate) const MIN_ZONE_SIZE: u64 = 8 * 4096;

/// A decimal number without a sign.
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // nginx's numbers are signed, so half the range is all there is.
    std::str::from_utf8(text).ok()?.parse().ok().filter(|&value| value <= i64::MAX as u64)
}

/// A size in bytes: `512`, `8k`, `1m`.
pub fn size(text: &[u8]) -> Option<u64> {
    scaled(text, |unit| match unit {
        b'k' => Some(1 << 10),
        b'm' => Some(1 << 20),
        _ => None,
    })
}

/// An offset in bytes: like a size, and `2g`.
pub fn offset(text: &[u8]) -> Option<u64> {
    scaled(text, |unit| match unit {
        b'k' => Some(1 << 10),
        b'm' => Some(1 << 20),
        b'g' => Some(1 << 30),
        _ => None,
    })
}

fn scaled(text: &[u8], scale: impl Fn(u8) -> Option<u64>) -> Option<u64> {
    let (&last, head) = text.split_last()?;
    match scale(last.to_ascii_lowercase()) {
        Some(scale) => number(head)?.checked_mul(scale).filter(|&value| value <= i64::MAX as u64),
        None => number(text),
    }
}

/// A time with milliseconds: `500ms`, `1m30s`, `60`.
pub fn duration(text: &[u8]) -> Option<Duration> {
    time(text, false).map(Duration::from_millis)
}

/// A time in whole seconds: `1d`, `1y`, `60`.
pub fn seconds(text: &[u8]) -> Option<Duration> {
    time(text, true).map(Duration::from_secs)
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Units in the order in which they may follow each other, in seconds; a month has 30 days, a year 365. A number alone
/// (its unit is empty) counts seconds.
const UNITS: [(&[u8], u64); 8] = [
    (b"y", 365 * DAY),
    (b"M", 30 * DAY),
    (b"w", 7 * DAY),
    (b"d", DAY),
    (b"h", HOUR),
    (b"m", MINUTE),
    (b"s", 1),
    (b"", 1),
];

/// Milliseconds, or seconds when `whole`. Years only exist where seconds are counted, `ms` only elsewhere.
fn time(text: &[u8], whole: bool) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    let mut next_unit = if whole { 0 } else { 1 };
    let mut counted = false;
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        // A bare unit counts nothing but is no error, as long as a number stands somewhere.
        let value = if digits == 0 { 0 } else { number(&rest[..digits])? };
        counted |= digits > 0;
        rest = &rest[digits..];
        if rest.starts_with(b"ms") {
            if whole || next_unit > UNITS.len() {
                return None;
            }
            next_unit = UNITS.len() + 1;
            total = total.checked_add(value)?;
            rest = &rest[2..];
        } else {
            let len = usize::from(!rest.is_empty() && rest[0] != b' ');
            let index = UNITS.iter().position(|(unit, _)| *unit == &rest[..len])?;
            if index < next_unit {
                return None;
            }
            next_unit = index + 1;
            let scale = if whole { UNITS[index].1 } else { UNITS[index].1 * 1000 };
            total = total.checked_add(value.checked_mul(scale)?)?;
            rest = &rest[len..];
        }
        let spaces = rest.iter().take_while(|&&byte| byte == b' ').count();
        rest = &rest[spaces..];
    }
    (counted && total <= i64::MAX as u64).then_some(total)
}

/// The host of an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `*` or no host at all (`listen 80`).
    Any,
    /// A literal address.
    Ip(IpAddr),
    /// A name to be resolved.
    Name(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// What `listen`, `server` and the URL of `proxy_pass` say about a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The host as written, without brackets' contents changed: `[::1]`, `localhost`, `/path`.
    pub host_text: Vec<u8>,
    /// The port, if one was written.
    pub port: Option<u16>,
    /// The last port of a range (`listen` only).
    pub last_port: Option<u16>,
    /// The URI part, from its `/` or `?` on.
    pub uri: Vec<u8>,
}

/// A place to listen or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddr {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl ListenAddr {
    /// The port; Unix sockets have none.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

/// As nginx writes it in messages and variables: `127.0.0.1:80`, `[::1]:80`, `unix:/path`.
impl fmt::Display for ListenAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Which forms of an [`Endpoint`] are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `listen`: a port alone, `*`, port ranges.
    Listen,
    /// `server` of an upstream and the like: host with or without port.
    Host,
    /// What follows `http://`: host, port, URI.
    Url,
}

/// Reads an address.
///
/// # Errors
/// nginx's words for what is wrong.
pub fn endpoint(text: &[u8], form: Form) -> Result<Endpoint, &'static str> {
    if text.len() >= 5 && text[..5].eq_ignore_ascii_case(b"unix:") {
        return unix_endpoint(&text[5..], form);
    }
    let (authority, uri) = split_uri(text);
    if !uri.is_empty() && form != Form::Url {
        return Err("invalid host");
    }
    let (host, port) = split_port(authority)?;
    if form == Form::Listen
        && port.is_none()
        && !host.starts_with(b"[")
        && let Some(ports) = port_only(host)
    {
        let (port, last_port) = ports?;
        return Ok(Endpoint {
            host: Host::Any,
            host_text: vec![],
            port: Some(port),
            last_port,
            uri: vec![],
        });
    }
    let (port, last_port) = match port {
        None => (None, None),
        Some(port) => {
            let (first, last) = port_range(port, form == Form::Listen)?;
            (Some(first), last)
        }
    };
    let endpoint = |host_of| Endpoint {
        host: host_of,
        host_text: host.to_vec(),
        port,
        last_port,
        uri: uri.to_vec(),
    };
    read_host(host, form).map(endpoint)
}

/// `unix:/path`, followed by `:` and the URI in a URL.
fn unix_endpoint(rest: &[u8], form: Form) -> Result<Endpoint, &'static str> {
    let colon = rest.iter().position(|&byte| byte == b':').filter(|_| form == Form::Url);
    let (path, uri) = match colon {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &rest[rest.len()..]),
    };
    if path.is_empty() {
        return Err("no path in the unix domain socket");
    }
    // sun_path holds 108 bytes, the final NUL included.
    if path.len() > 107 {
        return Err("too long path in the unix domain socket");
    }
    let host = Host::Unix(PathBuf::from(crate::paths::os_string(path)));
    Ok(Endpoint { host, host_text: path.to_vec(), port: None, last_port: None, uri: uri.to_vec() })
}

fn split_uri(text: &[u8]) -> (&[u8], &[u8]) {
    let at = text.iter().position(|byte| b"/?".contains(byte)).unwrap_or(text.len());
    text.split_at(at)
}

/// Splits host (with its brackets) and the text after the colon.
///
/// # Errors
/// nginx's words for brackets that are not closed, or that something but a port follows.
pub fn split_port(authority: &[u8]) -> Result<(&[u8], Option<&[u8]>), &'static str> {
    if authority.starts_with(b"[") {
        let end = authority.iter().position(|&byte| byte == b']').ok_or("invalid host")?;
        let (host, rest) = authority.split_at(end + 1);
        return match rest {
            [] => Ok((host, None)),
            [b':', port @ ..] => Ok((host, Some(port))),
            _ => Err("invalid host"),
        };
    }
    match authority.iter().position(|&byte| byte == b':') {
        Some(at) => Ok((&authority[..at], Some(&authority[at + 1..]))),
        None => Ok((authority, None)),
    }
}

type Ports = (u16, Option<u16>);

/// `listen 80` and `listen 80-90`; `None` when it is no number and must be a host.
fn port_only(text: &[u8]) -> Option<Result<Ports, &'static str>> {
    let first = text.split(|&byte| byte == b'-').next()?;
    number(first)?;
    Some(port_range(text, true))
}

fn port_range(text: &[u8], range: bool) -> Result<Ports, &'static str> {
    let port = |text: &[u8]| match number(text) {
        Some(value @ 1..=65535) => Ok(value as u16),
        _ => Err("invalid port"),
    };
    match text.iter().position(|&byte| byte == b'-').filter(|_| range) {
        None => Ok((port(text)?, None)),
        Some(at) => match (port(&text[..at])?, port(&text[at + 1..])?) {
            (first, last) if first > last => Err("invalid port range"),
            (first, last) => Ok((first, Some(last))),
        },
    }
}

fn read_host(host: &[u8], form: Form) -> Result<Host, &'static str> {
    if let [b'[', inner @ .., b']'] = host {
        let address =
            std::str::from_utf8(inner).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        return address.map(|address| Host::Ip(address.into())).ok_or("invalid IPv6 address");
    }
    match host {
        b"" => Err("no host"),
        b"*" if form == Form::Listen => Ok(Host::Any),
        _ => {
            let text = std::str::from_utf8(host).map_err(|_| "invalid host")?;
            Ok(match text.parse::<Ipv4Addr>() {
                Ok(address) => Host::Ip(address.into()),
                Err(_) => Host::Name(text.to_owned()),
            })
        }
    }
}

/// An address or network in CIDR form, and whether bits right of the mask had to be cleared.
pub fn network(text: &[u8]) -> Option<(IpAddr, u8, bool)> {
    let text = std::str::from_utf8(text).ok()?;
    let (address, bits) = match text.split_once('/') {
        None => (text.parse::<IpAddr>().ok()?, None),
        Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(number(bits.as_bytes())?)),
    };
    let (full, value) = match address {
        IpAddr::V4(address) => (32, u128::from(address.to_bits()) << 96),
        IpAddr::V6(address) => (128, address.to_bits()),
    };
    let bits = bits.unwrap_or(full);
    if bits > full {
        return None;
    }
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
    let masked = value & mask;
    let address = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((masked >> 96) as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(masked)),
    };
    Some((address, bits as u8, masked != value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_bounds() {
        let cases: &[(&str, Option<u64>, Option<u64>)] = &[
            ("0", Some(0), Some(0)),
            ("8k", Some(8192), Some(8192)),
            ("8K", Some(8192), Some(8192)),
            ("1m", Some(1 << 20), Some(1 << 20)),
            ("2g", None, Some(2 << 30)),
            ("", None, None),
            ("k", None, None),
            ("-1", None, None),
            ("1.5m", None, None),
            ("9223372036854775807", Some(i64::MAX as u64), Some(i64::MAX as u64)),
            ("9223372036854775808", None, None),
            ("9223372036854775807k", None, None),
        ];
        for (text, as_size, as_offset) in cases {
            assert_eq!(size(text.as_bytes()), *as_size, "size {text:?}");
            assert_eq!(offset(text.as_bytes()), *as_offset, "offset {text:?}");
        }
    }

    #[test]
    fn times_combine_units_in_falling_order() {
        let cases: &[(&str, Option<u64>)] = &[
            ("60", Some(60_000)),
            ("0", Some(0)),
            ("500ms", Some(500)),
            ("1s500ms", Some(1_500)),
            ("1m", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1h 30m", Some(5_400_000)),
            ("1d", Some(86_400_000)),
            ("1w", Some(604_800_000)),
            ("1M", Some(2_592_000_000)),
            ("1440m", Some(86_400_000)),
            ("1m30", Some(90_000)),
            ("1y", None),
            ("30m1h", None),
            ("1m1m", None),
            ("500ms1s", None),
            ("1x", None),
            ("", None),
            ("s", None),
            ("-1s", None),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text.as_bytes()), millis.map(Duration::from_millis), "{text:?}");
        }
        assert_eq!(seconds(b"1y"), Some(Duration::from_secs(31_536_000)));
        assert_eq!(seconds(b"500ms"), None);
    }

    #[test]
    fn addresses_are_read_in_every_form() {
        type Expected = Result<(Host, Option<u16>), &'static str>;
        let cases: &[(&str, Form, Expected)] = &[
            ("80", Form::Listen, Ok((Host::Any, Some(80)))),
            ("*:80", Form::Listen, Ok((Host::Any, Some(80)))),
            ("*", Form::Listen, Ok((Host::Any, None))),
            ("127.0.0.1", Form::Listen, Ok((Host::Ip([127, 0, 0, 1].into()), None))),
            ("[::1]:80", Form::Listen, Ok((Host::Ip(Ipv6Addr::LOCALHOST.into()), Some(80)))),
            ("localhost:80", Form::Listen, Ok((Host::Name("localhost".into()), Some(80)))),
            ("unix:/run/x", Form::Listen, Ok((Host::Unix("/run/x".into()), None))),
            ("0", Form::Listen, Err("invalid port")),
            ("65536", Form::Listen, Err("invalid port")),
            ("80-70", Form::Listen, Err("invalid port range")),
            ("a:b", Form::Listen, Err("invalid port")),
            ("a/b", Form::Listen, Err("invalid host")),
            (":80", Form::Host, Err("no host")),
            ("80", Form::Host, Ok((Host::Name("80".into()), None))),
            ("[::1", Form::Host, Err("invalid host")),
            ("[::x]:1", Form::Host, Err("invalid IPv6 address")),
            ("unix:", Form::Host, Err("no path in the unix domain socket")),
        ];
        for (text, form, expected) in cases {
            let found = endpoint(text.as_bytes(), *form).map(|found| (found.host, found.port));
            assert_eq!(found, *expected, "{text:?}");
        }
    }

    #[test]
    fn a_url_keeps_its_uri_and_a_range_its_end() {
        let uri = |text: &str| endpoint(text.as_bytes(), Form::Url).map(|found| found.uri);
        assert_eq!(uri("a:8080/x?y"), Ok(b"/x?y".to_vec()));
        assert_eq!(uri("a?y"), Ok(b"?y".to_vec()));
        assert_eq!(uri("unix:/run/x:/uri"), Ok(b"/uri".to_vec()));
        assert_eq!(uri("unix:/run/x"), Ok(vec![]));
        assert_eq!(endpoint(b"80-90", Form::Listen).map(|found| found.last_port), Ok(Some(90)));
    }

    #[test]
    fn a_network_is_cut_to_its_mask() {
        assert_eq!(network(b"10.1.2.3/8"), Some(([10, 0, 0, 0].into(), 8, true)));
        assert_eq!(network(b"10.1.2.3"), Some(([10, 1, 2, 3].into(), 32, false)));
        assert_eq!(network(b"::/0"), Some((Ipv6Addr::UNSPECIFIED.into(), 0, false)));
        assert_eq!(network(b"10.0.0.0/33"), None);
        assert_eq!(network(b"host"), None);
    }
}

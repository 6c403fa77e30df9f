//! Who stands behind proxies that are trusted, by what they tell.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use wssgate_config::model::{RealIp, TrustedProxy};

use crate::exchange::request::Request;
use crate::exchange::variables::contains;

/// The address that `X-Forwarded-For` tells of `peer`, if that is trusted. The list may be spread
/// over several fields.
pub(crate) fn forwarded_for(
    request: &Request,
    trust: &RealIp,
    peer: Option<IpAddr>,
) -> Option<SocketAddr> {
    let fields = request.arrival.head.as_ref()?.fields();
    let lines: Vec<_> = fields.all("x-forwarded-for").collect();
    last_hop(trust, peer, lines.into_iter().rev())
}

/// Follows addresses from the end of the last line as long as everybody on the way is trusted; only
/// the first step unless `real_ip_recursive` is on. What is no address ends the way.
pub(crate) fn last_hop<'l>(
    trust: &RealIp,
    mut peer: Option<IpAddr>,
    lines: impl Iterator<Item = &'l [u8]>,
) -> Option<SocketAddr> {
    let mut found = None;
    let hops = lines.flat_map(|line| line.rsplit(|byte| b" ,".contains(byte)));
    for hop in hops.filter(|hop| !hop.is_empty()) {
        if !is_trusted(&trust.from, peer) {
            break;
        }
        let Some(address) = address(hop) else { break };
        found = Some(address);
        peer = Some(address.ip());
        if !trust.recursive {
            break;
        }
    }
    found
}

/// Whether the other end is one of those who are believed; `None` is a Unix socket.
pub(crate) fn is_trusted(from: &[TrustedProxy], peer: Option<IpAddr>) -> bool {
    // `::ffff:192.0.2.1` is the same host as 192.0.2.1.
    let peer = peer.map(|ip| ip.to_canonical());
    from.iter().any(|proxy| match (proxy, peer) {
        (TrustedProxy::Network(base, bits), Some(ip)) => contains(*base, *bits, ip),
        (TrustedProxy::Unix, None) => true,
        (TrustedProxy::Network(..), None) | (TrustedProxy::Unix, Some(_)) => false,
    })
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`; the port is 0
/// where none is written.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.parse::<IpAddr>().ok().or_else(|| {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    });
    match bare {
        Some(ip) => Some(SocketAddr::new(ip, 0)),
        None => text.parse().ok().filter(|address: &SocketAddr| address.port() != 0),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_config::model::RealIpHeader;

    use super::*;

    #[test]
    fn the_way_is_followed_as_far_as_it_is_trusted() {
        let network = |text: &str, bits| TrustedProxy::Network(text.parse().unwrap(), bits);
        let mut trust = RealIp {
            from: vec![network("127.0.0.1", 32), network("10.0.1.0", 24), TrustedProxy::Unix],
            header: RealIpHeader::ForwardedFor,
            recursive: false,
        };
        for (recursive, peer, lines, expected) in [
            (false, "127.0.0.1", &["10.0.0.1, 192.0.2.1"][..], Some("192.0.2.1:0")),
            (false, "127.0.0.1", &["192.0.2.1, 10.0.1.1, 127.0.0.1"], Some("127.0.0.1:0")),
            (true, "127.0.0.1", &["10.0.1.1, 192.0.2.1, 127.0.0.1"], Some("192.0.2.1:0")),
            (true, "127.0.0.1", &["10.0.1.1", "192.0.2.1", "127.0.0.1"], Some("192.0.2.1:0")),
            (true, "127.0.0.1", &["10.0.1.1,10.0.1.2"], Some("10.0.1.1:0")),
            (true, "127.0.0.1", &["192.0.2.1, bad, 10.0.1.2"], Some("10.0.1.2:0")),
            (false, "127.0.0.1", &["192.0.2.1, bad"], None),
            (false, "127.0.0.1", &["192.0.2.1 ,, "], Some("192.0.2.1:0")),
            (false, "127.0.0.1", &["192.0.2.1:8"], Some("192.0.2.1:8")),
            (false, "127.0.0.1", &["[::1]"], Some("[::1]:0")),
            (false, "127.0.0.1", &["[::1]:8"], Some("[::1]:8")),
            (false, "127.0.0.1", &["::1:8"], Some("[::1:8]:0")),
            (false, "127.0.0.1", &["192.0.2.1:0"], None),
            (false, "127.0.0.1", &[""], None),
            (false, "127.0.0.1", &[], None),
            (false, "::ffff:10.0.1.7", &["192.0.2.1"], Some("192.0.2.1:0")),
            (false, "10.0.2.1", &["192.0.2.1"], None),
            (false, "", &["192.0.2.1"], Some("192.0.2.1:0")),
        ] {
            trust.recursive = recursive;
            let lines = lines.iter().rev().map(|line| line.as_bytes());
            let found = last_hop(&trust, peer.parse().ok(), lines);
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(found, expected, "{recursive} {peer} {expected:?}");
        }
    }
}

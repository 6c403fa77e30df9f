//! `map`, `geo` and `split_clients`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use wssgate_config::hosts::HostTable;
use wssgate_config::model::MapKind;
use wssgate_config::template::Template;

use crate::exchange::forwarded::forwarded_for;
use crate::exchange::request::Request;

/// The value that a block gives for this request.
pub(super) fn value(request: &Request, kind: &MapKind) -> Option<Bytes> {
    match kind {
        MapKind::Map { source, hostnames, table, default } => {
            let mut key = request.text(source);
            if *hostnames && key.last() == Some(&b'.') {
                key.truncate(key.len() - 1);
            }
            Some(request.text(look_up(request, table, &key).unwrap_or(default)))
        }
        MapKind::SplitClients { source, parts } => {
            let hash = murmur2(&request.text(source));
            let part = parts.iter().find(|(bound, _)| hash < *bound || *bound == u32::MAX);
            Some(part.map(|(_, value)| request.text(value)).unwrap_or_default())
        }
        MapKind::Geo { source, networks, default, proxies } => {
            let told = parse_address(&request.text(source));
            let behind = proxies.as_ref().and_then(|proxies| {
                let found = forwarded_for(request, proxies, Some(told?))?;
                Some(found.ip().to_canonical())
            });
            let found = behind.or(told).and_then(|ip| longest(networks, ip));
            Some(Bytes::copy_from_slice(found.unwrap_or(default)))
        }
    }
}

fn look_up<'t>(
    request: &Request,
    table: &'t HostTable<Template>,
    key: &Bytes,
) -> Option<&'t Template> {
    let (value, matched) = table.find(key)?;
    if let Some((regex, captures)) = matched {
        request.remember(regex, key, captures);
    }
    Some(value)
}

/// The value of the smallest network that contains `ip`; of equal ones the last.
fn longest(networks: &[(IpAddr, u8, Box<[u8]>)], ip: IpAddr) -> Option<&[u8]> {
    let inside = networks.iter().filter(|(base, bits, _)| contains(*base, *bits, ip));
    inside.max_by_key(|(_, bits, _)| *bits).map(|(_, _, value)| &value[..])
}

/// Whether `ip` lies in the network of `bits` bits at `base`.
pub(crate) fn contains(base: IpAddr, bits: u8, ip: IpAddr) -> bool {
    match (base, ip) {
        (IpAddr::V4(base), IpAddr::V4(ip)) => {
            // A shift by the whole width, for `/0`, is none that can be made.
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            (base.to_bits() ^ ip.to_bits()) & mask == 0
        }
        (IpAddr::V6(base), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            (base.to_bits() ^ ip.to_bits()) & mask == 0
        }
        _ => false,
    }
}

/// An address as text; nginx looks anything else up as 255.255.255.255. A mapped IPv4 address
/// counts as IPv4.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let parsed = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|a| a.ip()));
    Some(parsed.map_or(IpAddr::V4(Ipv4Addr::BROADCAST), |ip| ip.to_canonical()))
}

/// MurmurHash2 with seed 0, as nginx uses it.
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, &byte) in rest.iter().enumerate() {
        hash ^= u32::from(byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_wins() {
        let network = |text: &str, bits, value: &str| {
            (text.parse().unwrap(), bits, value.as_bytes().to_vec().into_boxed_slice())
        };
        let networks = [
            network("0.0.0.0", 0, "any"),
            network("10.0.0.0", 8, "ten"),
            network("10.1.0.0", 16, "ten-one"),
            network("2001:db8::", 32, "six"),
        ];
        for (ip, expected) in [
            ("10.1.2.3", Some("ten-one")),
            ("10.2.2.3", Some("ten")),
            ("11.2.2.3", Some("any")),
            ("2001:db8::1", Some("six")),
            ("::1", None),
        ] {
            let found = longest(&networks, ip.parse().unwrap());
            assert_eq!(found, expected.map(str::as_bytes), "{ip}");
        }
    }

    #[test]
    fn murmur2_gives_the_values_of_the_reference() {
        // Computed with the reference implementation.
        for (text, hash) in [
            ("", 0),
            ("a", 0x9268_5f5e),
            ("abc", 0x1357_7c9b),
            ("abcd", 0x2687_3021),
            ("hello world", 0x44a8_1419),
        ] {
            assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
        }
    }
}

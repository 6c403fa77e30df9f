//! `geo`: a variable made from an address.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use wssgate_syntax::{self as syntax, Diagnostic, Word, printable};

use crate::directive::Arity::Between;
use crate::directive::{AnyDirective, Braces, Directive, H};
use crate::map::{define, entries};
use crate::read::{self, Reading, Reads, variable_name};
use crate::template::{Part, Template};
use crate::trust::{RealIp, RealIpHeader, TrustedProxy};
use crate::variable::{MapId, MapKind};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&GEO];

/// `geo`
pub(crate) static GEO: Directive<MapId> = Directive {
    name: "geo",
    contexts: H,
    arity: Between(1, 2),
    doc: "Creates a variable whose value depends on the client address.",
    braces: Braces::Entries,
    ..Directive::repeated(geo)
};

fn geo(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<MapId> {
    let (source, name) = match &directive.args[..] {
        [name] => (reading.names.mention("remote_addr", name.span), name),
        [source, name] => {
            let source_name = variable_name(source)?;
            (reading.names.mention(&source_name, source.span), name)
        }
        _ => unreachable!("the row asks for one or two arguments"),
    };
    let mut draft = Draft::default();
    for (index, entry) in entries(directive).iter().enumerate() {
        if let Err(problem) = add_entry(reading, &mut draft, entry, index) {
            reading.report.push(problem);
        }
    }
    let volatile = draft.volatile;
    let default = std::mem::take(&mut draft.default);
    let source = Template::new([Part::Variable(source)]);
    let from = std::mem::take(&mut draft.proxies);
    let (header, recursive) = (RealIpHeader::ForwardedFor, draft.recursive);
    let proxies = (!from.is_empty()).then_some(RealIp { from, header, recursive });
    let kind = MapKind::Geo { source, networks: draft.into_networks(), default, proxies };
    define(reading, name, kind, volatile)
}

type Network = (IpAddr, u8);

#[derive(Default)]
struct Draft {
    volatile: bool,
    default: Box<[u8]>,
    proxies: Vec<TrustedProxy>,
    recursive: bool,
    networks: HashMap<Network, Box<[u8]>>,
    /// Used after `ranges`.
    ranges: Option<Ranges>,
}

impl Draft {
    /// All networks, in a fixed order.
    fn into_networks(self) -> Vec<(IpAddr, u8, Box<[u8]>)> {
        let networks = self.networks.into_iter();
        let mut all: Vec<_> =
            networks.map(|((address, bits), value)| (address, bits, value)).collect();
        all.extend(self.ranges.unwrap_or_default().into_networks());
        all.sort();
        all
    }
}

fn add_entry(
    reading: &mut Reading<'_>,
    draft: &mut Draft,
    entry: &syntax::Directive,
    index: usize,
) -> Result<(), Diagnostic> {
    let key = &entry.name;
    match (&*key.value, &entry.args[..]) {
        (b"volatile", []) => draft.volatile = true,
        (b"ranges", []) if index == 0 => draft.ranges = Some(Ranges::default()),
        (b"ranges", []) => {
            let message =
                "the \"ranges\" directive must be the first directive inside \"geo\" block";
            return Err(Diagnostic::error(message).at(key.span, ""));
        }
        // Includes are followed by the parser; one that is left failed there.
        (b"include", [_]) => {}
        (b"proxy_recursive", []) => draft.recursive = true,
        (b"proxy", [proxy]) => {
            let (address, bits) = network(reading, proxy)?;
            draft.proxies.push(TrustedProxy::Network(address, bits));
        }
        (b"default", [value]) => draft.default = value.value.clone(),
        (b"delete", [network]) => delete(reading, draft, network)?,
        (_, [value]) => add(reading, draft, key, &value.value)?,
        _ => {
            let problem = Diagnostic::error("invalid number of the geo parameters");
            return Err(problem.at(entry.head(), "expected a network and a value"));
        }
    }
    Ok(())
}

fn add(
    reading: &mut Reading<'_>,
    draft: &mut Draft,
    key: &Word,
    value: &[u8],
) -> Result<(), Diagnostic> {
    let old = match &mut draft.ranges {
        Some(ranges) => ranges.add(range(key)?, value),
        None => draft.networks.insert(network(reading, key)?, value.into()),
    };
    if let Some(old) = old {
        let what = if draft.ranges.is_some() { "range" } else { "network" };
        let message = format!(
            "duplicate {what} \"{key}\", value: \"{}\", old value: \"{}\"",
            printable(value),
            printable(&old)
        );
        reading.report.push(Diagnostic::warning(message).at(key.span, ""));
    }
    Ok(())
}

fn delete(reading: &mut Reading<'_>, draft: &mut Draft, word: &Word) -> Result<(), Diagnostic> {
    let found = match &mut draft.ranges {
        Some(ranges) => ranges.delete(range(word)?),
        None => draft.networks.remove(&network(reading, word)?).is_some(),
    };
    if !found {
        let message = format!("no network \"{word}\" to delete");
        reading.report.push(Diagnostic::warning(message).at(word.span, ""));
    }
    Ok(())
}

fn network(reading: &mut Reading<'_>, word: &Word) -> Result<Network, Diagnostic> {
    read::network(reading, word)
        .ok_or_else(|| Diagnostic::error(format!("invalid network \"{word}\"")).at(word.span, ""))
}

/// Reads `first-last`.
fn range(word: &Word) -> Result<(u32, u32), Diagnostic> {
    let ends = word.as_str().and_then(|text| text.split_once('-'));
    let ends = ends.and_then(|(first, last)| {
        let first: Ipv4Addr = first.parse().ok()?;
        let last: Ipv4Addr = last.parse().ok()?;
        Some((first.to_bits(), last.to_bits()))
    });
    ends.filter(|(first, last)| first <= last)
        .ok_or_else(|| Diagnostic::error(format!("invalid range \"{word}\"")).at(word.span, ""))
}

/// Ranges that do not overlap: first address to last address and value. A later range takes its part from earlier ones.
#[derive(Default)]
struct Ranges(BTreeMap<u32, (u32, Box<[u8]>)>);

impl Ranges {
    /// Adds a range; returns the value of an equal one that it replaces.
    fn add(&mut self, (first, last): (u32, u32), value: &[u8]) -> Option<Box<[u8]>> {
        let equal =
            self.0.get(&first).filter(|(end, _)| *end == last).map(|(_, value)| value.clone());
        // What begins before and reaches into the new range.
        if let Some((&start, (end, old))) = self.0.range(..first).next_back()
            && *end >= first
        {
            let (end, old) = (*end, old.clone());
            self.0.insert(start, (first - 1, old.clone()));
            if end > last {
                self.0.insert(last + 1, (end, old));
            }
        }
        let inside: Vec<u32> = self.0.range(first..=last).map(|(start, _)| *start).collect();
        for start in inside {
            if let Some((end, old)) = self.0.remove(&start).filter(|(end, _)| *end > last) {
                self.0.insert(last + 1, (end, old));
            }
        }
        self.0.insert(first, (last, value.into()));
        equal
    }

    /// Removes a range that was given exactly so.
    fn delete(&mut self, (first, last): (u32, u32)) -> bool {
        let found = self.0.get(&first).is_some_and(|(end, _)| *end == last);
        if found {
            self.0.remove(&first);
        }
        found
    }

    /// The same as networks.
    fn into_networks(self) -> Vec<(IpAddr, u8, Box<[u8]>)> {
        let mut networks = Vec::new();
        for (first, (last, value)) in self.0 {
            let mut at = u64::from(first);
            while at <= u64::from(last) {
                // The largest network that begins here and ends in the range.
                let aligned = (at as u32).trailing_zeros().min(32);
                let left = u64::from(last) - at + 1;
                let size = aligned.min(left.ilog2());
                let address = IpAddr::V4(Ipv4Addr::from_bits(at as u32));
                networks.push((address, (32 - size) as u8, value.clone()));
                at += 1 << size;
            }
        }
        networks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(ranges: &[(&str, &str, &str)]) -> Vec<String> {
        let mut all = Ranges::default();
        for (first, last, value) in ranges {
            let bits =
                |text: &str| text.parse::<Ipv4Addr>().map(Ipv4Addr::to_bits).expect("an address");
            all.add((bits(first), bits(last)), value.as_bytes());
        }
        let networks = all.into_networks().into_iter();
        networks
            .map(|(address, bits, value)| format!("{address}/{bits} {}", printable(&value)))
            .collect()
    }

    #[test]
    fn ranges_become_networks() {
        assert_eq!(networks(&[("0.0.0.0", "255.255.255.255", "a")]), ["0.0.0.0/0 a"]);
        assert_eq!(
            networks(&[("10.0.0.1", "10.0.0.4", "a")]),
            ["10.0.0.1/32 a", "10.0.0.2/31 a", "10.0.0.4/32 a"]
        );
        assert_eq!(
            networks(&[("255.255.255.255", "255.255.255.255", "a")]),
            ["255.255.255.255/32 a"]
        );
    }

    #[test]
    fn a_later_range_takes_its_part_from_earlier_ones() {
        assert_eq!(
            networks(&[("10.0.0.0", "10.0.0.7", "a"), ("10.0.0.2", "10.0.0.3", "b")]),
            ["10.0.0.0/31 a", "10.0.0.2/31 b", "10.0.0.4/30 a"]
        );
        assert_eq!(
            networks(&[
                ("10.0.0.0", "10.0.0.1", "a"),
                ("10.0.0.2", "10.0.0.3", "b"),
                ("10.0.0.1", "10.0.0.2", "c")
            ]),
            ["10.0.0.0/32 a", "10.0.0.1/32 c", "10.0.0.2/32 c", "10.0.0.3/32 b"]
        );
    }

    proptest::proptest! {
        /// The last range that holds an address decides, whatever was cut out of earlier ones.
        #[test]
        fn networks_say_what_the_ranges_said(
            ranges in proptest::collection::vec((0u32..64, 0u32..64, 0u8..5), 0..12),
        ) {
            let mut all = Ranges::default();
            let ordered: Vec<_> =
                ranges.iter().map(|&(a, b, value)| (a.min(b), a.max(b), value)).collect();
            for &(first, last, value) in &ordered {
                all.add((first, last), &[value]);
            }
            let networks = all.into_networks();
            for address in 0..64u32 {
                let said = ordered.iter().rev().find(|(first, last, _)| (first..=last).contains(&&address));
                let holds = |network: &&(IpAddr, u8, Box<[u8]>)| match network.0 {
                    IpAddr::V4(base) => u64::from(address) >> (32 - network.1)
                        == u64::from(base.to_bits()) >> (32 - network.1),
                    IpAddr::V6(_) => false,
                };
                let found: Vec<_> = networks.iter().filter(holds).map(|network| network.2[0]).collect();
                proptest::prop_assert_eq!(found, said.map(|said| said.2).into_iter().collect::<Vec<_>>());
            }
        }
    }
}

//! How many connections there can be to a group: each takes a port of ours, and of those there are
//! only so many for each address of the other side.

use std::collections::HashSet;
use std::fs;

use wssgate_config::model::{Advice, Content, Http, ListenAddr, Location, ProxyPass, Upstream};
use wssgate_syntax::{Diagnostic, Report};

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// How many ports of ours there are for each address of the other side, if the system says so. Those that are reserved
/// (`ip_local_reserved_ports`) are counted, too.
pub(crate) fn local() -> Option<usize> {
    ports_in(&fs::read_to_string(RANGE).ok()?)
}

/// Says of groups to which WebSockets are passed when `connections` of clients, which the
/// configuration allows, could not all be passed on.
pub(crate) fn check(http: &Http, connections: usize, report: &mut Report) {
    if let Some(ports) = local() {
        check_for(http, connections, ports, report);
    }
}

fn check_for(http: &Http, connections: usize, ports: usize, report: &mut Report) {
    let mut told = HashSet::new();
    for location in &http.locations {
        let Content::Proxy(ProxyPass::Fixed(pass)) = &location.content else { continue };
        let Some(addresses) = addresses(&http.upstreams[pass.upstream.0]) else { continue };
        let most = ports.saturating_mul(addresses);
        if connections <= most
            || !is_for_upgrades(location)
            || location.proxy.bind.is_some()
            || location.ignored.contains(&Advice::Ports)
            || !told.insert(pass.upstream.0)
        {
            continue;
        }
        let name = String::from_utf8_lossy(&http.upstreams[pass.upstream.0].name);
        let message = format!(
            "upstream \"{name}\" can have {most} connections at a time, fewer than the \
             {connections} that worker_connections allows"
        );
        let help = "if so many WebSockets are to be open, raise net.ipv4.ip_local_port_range, add \
                    addresses of the app server, or connect from several with `proxy_bind`";
        let addresses = if addresses == 1 { "its address" } else { "each of its addresses" };
        let problem = Diagnostic::information(message)
            .at(location.span, "")
            .note(format!("there are {ports} local ports for {addresses}"));
        report.push(problem.note(Advice::Ports.silencer()).help(help));
    }
}

/// Whether lines of the location ask for upgrades. Without them WebSockets are passed too, but
/// nobody has said that there are any.
fn is_for_upgrades(location: &Location) -> bool {
    let mut lines = location.proxy.set_headers.iter();
    lines.any(|(name, value)| name.eq_ignore_ascii_case(b"upgrade") && !value.is_empty())
}

/// How many addresses a group has that are in use; `None` if a Unix socket, which needs no ports,
/// is among them, or names that may have any number.
fn addresses(upstream: &Upstream) -> Option<usize> {
    let mut found = HashSet::new();
    for server in upstream.servers.iter().filter(|server| !server.down) {
        if server.resolve.is_some() {
            return None;
        }
        for address in &server.addresses {
            match address {
                ListenAddr::Ip(address) => found.insert(*address),
                ListenAddr::Unix(_) => return None,
            };
        }
    }
    Some(found.len()).filter(|count| *count > 0)
}

/// The ports of `low high`.
fn ports_in(range: &str) -> Option<usize> {
    let mut numbers = range.split_whitespace().map(str::parse::<usize>);
    let (low, high) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(high.checked_sub(low)? + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_config::load;
    use wssgate_config::load::LoadOptions;

    use super::*;

    fn messages(text: &str, connections: usize) -> Vec<String> {
        let text = format!("events {{}} http {{ {text} }}");
        let loaded = load(&LoadOptions::text(text)).unwrap();
        let mut report = Report::default();
        check_for(&loaded.config.http.unwrap(), connections, 28_232, &mut report);
        report.iter().map(|diagnostic| diagnostic.message.clone()).collect()
    }

    #[test]
    fn a_group_is_held_against_what_its_addresses_allow() {
        const UPGRADE: &str =
            "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";
        let one = "127.0.0.1:3000";
        for (servers, lines, connections, expected) in [
            (vec![one], UPGRADE, 30_000, 1),
            (vec![one], UPGRADE, 28_232, 0),
            (vec![one, "127.0.0.2:3000"], UPGRADE, 30_000, 0),
            (vec![one, "127.0.0.1:3001"], UPGRADE, 60_000, 1),
            (vec![one, "127.0.0.2:3000 down"], UPGRADE, 30_000, 1),
            (vec![one, "unix:/run/app.sock"], UPGRADE, 100_000, 0),
            (vec![one], "", 100_000, 0),
            (vec![one], "proxy_set_header Upgrade \"\";", 100_000, 0),
        ] {
            let servers: String = servers.iter().map(|one| format!("server {one};")).collect();
            let text = format!(
                "upstream app {{ {servers} }} server {{ {lines}
                     location /a {{ proxy_pass http://app; }} location /b {{ proxy_pass http://app; }} }}"
            );
            assert_eq!(messages(&text, connections).len(), expected, "{text}");
        }
        let bound = format!(
            "server {{ {UPGRADE} proxy_bind 127.0.0.1; location / {{ proxy_pass http://{one}; }} }}"
        );
        assert!(messages(&bound, 100_000).is_empty());
    }

    #[test]
    fn a_range_is_inclusive() {
        assert_eq!(ports_in("32768\t60999\n"), Some(28_232));
        assert_eq!(ports_in("60999 32768"), None);
        assert_eq!(ports_in(""), None);
    }
}

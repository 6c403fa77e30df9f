//! The addresses of the name.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

use wssgate_dns::{Code, Data, Failure, Families, Lookup, Name, Outcome, Query, Transport, Wanted};

use crate::facts::DnsFacts;
use crate::report::Finding;
use crate::settings::Settings;
use crate::target::{Host, Target};

/// As many addresses are tried.
const MAX_ADDRESSES: usize = 16;

/// The largest datagram that is read, in bytes.
const MAX_DATAGRAM: usize = 65_535;

/// Looks the host up.
pub(crate) fn examine(target: &Target, settings: &Settings) -> (Vec<Finding>, DnsFacts) {
    let name = match &target.host {
        Host::Name(name) => name,
        Host::Address(address) => {
            let addresses = vec![*address];
            let facts = DnsFacts { name: address.to_string(), addresses, asked: None };
            return (Vec::new(), facts);
        }
    };
    let begun = Instant::now();
    let (asked, found) = match settings.dns {
        Some(server) => (server.to_string(), ask(server, name, settings.timeout)),
        None => ("system".to_owned(), ask_system(name)),
    };
    let (mut findings, mut addresses) = (Vec::new(), Vec::new());
    match found {
        Ok(found) => addresses = found,
        Err(why) => findings.push(unknown(name, &why)),
    }
    addresses.truncate(MAX_ADDRESSES);
    if findings.is_empty() && begun.elapsed() > settings.slow {
        findings.push(Finding::warning(
            "dns_slow",
            format!("resolving {name} took {:.1} s", begun.elapsed().as_secs_f64()),
            "check the DNS servers of this machine, and those of the domain",
        ));
    }
    (findings, DnsFacts { name: name.clone(), addresses, asked: Some(asked) })
}

/// Why there is no address.
enum Unknown {
    /// The name does not exist, or has no address.
    NoName(String),
    /// It could not be found out.
    Failed(String),
}

fn unknown(name: &str, why: &Unknown) -> Finding {
    match why {
        Unknown::NoName(text) => Finding::fault(
            "name_not_found",
            format!("{name} does not exist or has no address ({text})"),
            format!("check the spelling, and that the DNS zone has an A or AAAA record for {name}"),
        ),
        Unknown::Failed(text) => Finding::fault(
            "dns_failed",
            format!("{name} could not be resolved ({text})"),
            "check the network and the DNS servers of this machine; SERVFAIL can also be caused by \
             a zone with broken DNSSEC or unreachable name servers",
        ),
    }
}

fn ask_system(name: &str) -> Result<Vec<IpAddr>, Unknown> {
    // The port is of no interest here.
    match (name, 0).to_socket_addrs() {
        Ok(found) => {
            let mut addresses = Vec::new();
            for address in found.map(|address| address.ip()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Ok(addresses)
        }
        // getaddrinfo has numbers for this, which the standard library keeps to itself.
        Err(error) => {
            let text = error.to_string();
            let text = text.rsplit(": ").next().unwrap_or(&text).to_owned();
            match text.contains("Temporary failure") || text.contains("Non-recoverable") {
                true => Err(Unknown::Failed(text)),
                false => Err(Unknown::NoName(text)),
            }
        }
    }
}

/// Asks one server for both families.
fn ask(server: SocketAddr, name: &str, timeout: Duration) -> Result<Vec<IpAddr>, Unknown> {
    let failed = |error: io::Error| Unknown::Failed(format!("{server}: {error}"));
    let parsed = Name::new(name.as_bytes()).map_err(|error| Unknown::NoName(error.to_string()))?;
    let deadline = Instant::now() + timeout;
    let wanted = Wanted::Addresses(Families { ipv4: true, ipv6: true });
    let mut lookup = Lookup::new(parsed, wanted, 1, 0, Instant::now(), random);
    let udp = connected(server).map_err(failed)?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    while Instant::now() < deadline {
        if let Some(outcome) = lookup.outcome() {
            return conclude(outcome, server);
        }
        while let Some(query) = lookup.poll_query() {
            send(&udp, server, &query, &mut lookup, deadline).map_err(failed)?;
        }
        if lookup.outcome().is_some() {
            continue;
        }
        let now = Instant::now();
        let wait = lookup.due().min(deadline).saturating_duration_since(now);
        udp.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).map_err(failed)?;
        match udp.recv(&mut buffer) {
            // What is no answer to a question of ours may have been sent by anybody.
            Ok(len) => {
                let _ = lookup.on_message(Transport::Udp, &buffer[..len], Instant::now());
            }
            Err(error) if is_late(&error) => lookup.on_time(Instant::now()),
            Err(error) => return Err(failed(error)),
        }
    }
    Err(Unknown::Failed(format!("no response from {server} in time")))
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let own: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let udp = UdpSocket::bind((own, 0))?;
    udp.connect(server)?;
    Ok(udp)
}

/// Sends a query; on TCP its answer is waited for.
fn send(
    udp: &UdpSocket,
    server: SocketAddr,
    query: &Query,
    lookup: &mut Lookup,
    deadline: Instant,
) -> io::Result<()> {
    if query.transport == Transport::Udp {
        return udp.send(&query.bytes).map(drop);
    }
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut tcp = TcpStream::connect_timeout(&server, left())?;
    tcp.set_read_timeout(Some(left()))?;
    tcp.set_write_timeout(Some(left()))?;
    let len = u16::try_from(query.bytes.len()).map_err(io::Error::other)?;
    tcp.write_all(&[&len.to_be_bytes(), &query.bytes[..]].concat())?;
    let mut len = [0; 2];
    tcp.read_exact(&mut len)?;
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    tcp.read_exact(&mut answer)?;
    let answered = lookup.on_message(Transport::Tcp, &answer, Instant::now());
    answered.map_err(|_| io::Error::other("invalid DNS response"))
}

fn conclude(outcome: &Outcome, server: SocketAddr) -> Result<Vec<IpAddr>, Unknown> {
    match outcome {
        Outcome::Found(Data::Addresses(addresses), _) => Ok(addresses.clone()),
        Outcome::Found(Data::Services(_), _) => Err(Unknown::NoName("no addresses".into())),
        Outcome::Failed(Failure::Answered(Code::NoName), _) => {
            Err(Unknown::NoName(format!("says {server}")))
        }
        Outcome::Failed(failure, _) => Err(Unknown::Failed(format!("{server}: {failure}"))),
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without random numbers whoever sees our questions could answer them anyway.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}

//! A zone whose server takes changes (RFC 2136).

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use wssgate_dns::Name;
use wssgate_dns::tsig::{Key, Unverified};
use wssgate_dns::update::{Change, Kind, Reply, Told, change, question};

use crate::ask::{ask, ask_until, id};

/// How often a change is asked for.
const TRIES: usize = 3;

/// How long to wait before servers are asked again whether they show a record.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a server may fail to answer before it is left out.
const FAILURES: usize = 2;

/// Servers of a zone that are asked, and those of its reply whose addresses are wanted.
const MAX_SERVERS: usize = 16;
const MAX_NAMED: usize = 32;

/// The port of servers that a zone names.
const PORT: u16 = 53;

/// What a zone's server is asked to change.
#[derive(Clone, Debug)]
pub struct Update {
    /// The server that takes changes.
    pub server: SocketAddr,
    /// The zone; found by asking the server when it is not said.
    pub zone: Option<String>,
    /// What signs messages.
    pub key: Option<Key>,
    /// For how many seconds others may remember a record.
    pub ttl: u32,
    /// How long to wait until all servers of the zone show a record; zero to ask none.
    pub propagation: Duration,
}

impl Update {
    /// Adds the TXT record `value` at `name` beside those that are there, and waits until it can be
    /// seen.
    ///
    /// # Errors
    /// When the server does not add it, or it is not seen in time.
    pub async fn present(&self, name: &str, value: &str) -> Result<(), String> {
        let name = self::name(name)?;
        let zone = self.zone_of(&name).await?;
        self.change(&zone, &name, value, Change::Add { ttl: self.ttl }).await?;
        match self.propagation.is_zero() {
            true => Ok(()),
            false => {
                let deadline = Instant::now() + self.propagation;
                let servers = self.servers(&zone, Instant::now() + self.propagation / 2).await;
                wait(servers, deadline, &name, value).await.map_err(|server| {
                    let seconds = self.propagation.as_secs();
                    format!(
                        "the DNS server {server} of the zone {zone} does not return the record \
                         after {seconds} seconds"
                    )
                })
            }
        }
    }

    /// Takes this record away; others at that name stay.
    ///
    /// # Errors
    /// When the server does not.
    pub async fn cleanup(&self, name: &str, value: &str) -> Result<(), String> {
        let name = self::name(name)?;
        let zone = self.zone_of(&name).await?;
        self.change(&zone, &name, value, Change::Remove).await
    }

    async fn zone_of(&self, record: &Name) -> Result<Name, String> {
        if let Some(zone) = &self.zone {
            return name(zone);
        }
        let (reply, _) = self.ask(&question(id(), record, Kind::Soa)).await?;
        let zone = reply
            .records
            .iter()
            .find(|(owner, told)| *told == Told::Zone && is_within(record, owner));
        let fail =
            || format!("the DNS server {} has no zone of {record} ({})", self.server, reply.code);
        zone.map(|(zone, _)| zone.clone()).ok_or_else(fail)
    }

    async fn change(
        &self,
        zone: &Name,
        record: &Name,
        value: &str,
        how: Change,
    ) -> Result<(), String> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.try_change(zone, record, value, how).await {
                Err(Failure::Unreachable(_)) if tried < TRIES => {}
                Err(failure) => return Err(self.explain(&failure, zone)),
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn try_change(
        &self,
        zone: &Name,
        record: &Name,
        value: &str,
        how: Change,
    ) -> Result<(), Failure> {
        let message = change(id(), zone, record, value, how);
        // Signed anew each time: a signature counts for some minutes only.
        let signed = self.key.as_ref().map(|key| (key, key.sign(&message, now())));
        let sent = signed.as_ref().map_or(&message, |(_, signed)| &signed.bytes);
        let verify = |bytes: &[u8]| {
            let signed = signed.as_ref();
            signed.map_or(Ok(()), |(key, signed)| key.verify(bytes, signed, now()))
        };
        let is_believed =
            |bytes: &[u8]| verify(bytes).map_or_else(|why| why.is_authentic(), |()| true);
        let replied = ask_until(self.server, sent, is_believed).await;
        let (reply, bytes) = replied.map_err(Failure::Unreachable)?;
        match (reply.code.is_fine(), verify(&bytes)) {
            (true, Ok(())) => Ok(()),
            // Who refuses may have no signature for it; what he says is told either way.
            (false, Ok(()) | Err(Unverified::Missing)) => Err(Failure::Refused(reply)),
            (_, Err(unverified)) => Err(Failure::Unverified(unverified)),
        }
    }

    fn explain(&self, failure: &Failure, zone: &Name) -> String {
        let server = self.server;
        match failure {
            Failure::Unreachable(error) => {
                format!("the DNS server {server} cannot be asked: {error}")
            }
            Failure::Refused(reply) => {
                format!("the DNS server {server} did not change the zone {zone}: {}", reply.code)
            }
            Failure::Unverified(why) => {
                let key = self.key.as_ref().map(|key| key.name().to_string()).unwrap_or_default();
                format!("the DNS server {server} and we do not agree on the key \"{key}\": {why}")
            }
        }
    }

    async fn ask(&self, message: &[u8]) -> Result<(Reply, Vec<u8>), String> {
        let reply = ask(self.server, message).await;
        reply.map_err(|error| format!("the DNS server {} cannot be asked: {error}", self.server))
    }

    /// The server that takes changes, and those that the zone names, as far as they are found until then.
    async fn servers(&self, zone: &Name, deadline: Instant) -> BTreeSet<SocketAddr> {
        let mut servers = BTreeSet::from([self.server]);
        let message = question(id(), zone, Kind::Ns);
        let Ok(Ok((reply, _))) = timeout_at(deadline, self.ask(&message)).await else {
            return servers;
        };
        let mut looked_up = JoinSet::new();
        for (_, told) in reply.records.iter().take(MAX_NAMED) {
            let Told::Server(host) = told else { continue };
            let told = addresses(host, &reply);
            match told.is_empty() {
                true => drop(looked_up.spawn(look_up(host.clone()))),
                false => servers.extend(told),
            }
        }
        while let Ok(Some(found)) = timeout_at(deadline, looked_up.join_next()).await {
            servers.extend(found.unwrap_or_default());
        }
        // Known by another port already.
        let (ip, port) = (self.server.ip(), self.server.port());
        servers.retain(|server| server.ip() != ip || server.port() == port);
        while servers.len() > MAX_SERVERS {
            let other = servers.iter().rfind(|server| **server != self.server).copied();
            other.map(|other| servers.remove(&other));
        }
        servers
    }
}

/// The addresses of a host that a reply tells.
fn addresses(host: &Name, reply: &Reply) -> Vec<SocketAddr> {
    let told = reply.records.iter().filter(|(owner, _)| owner == host);
    let told = told.filter_map(|(_, told)| match told {
        Told::Address(address) => Some(SocketAddr::new(*address, PORT)),
        _ => None,
    });
    told.collect()
}

/// The addresses of a host that the system knows.
async fn look_up(host: Name) -> Vec<SocketAddr> {
    let found = tokio::net::lookup_host((host.as_str(), PORT)).await;
    found.map(Iterator::collect).unwrap_or_default()
}

/// Why a change was not made.
enum Failure {
    Unreachable(io::Error),
    Refused(Reply),
    Unverified(Unverified),
}

/// Waits until those servers that can be asked show the record; gives one that does not in time.
async fn wait(
    servers: BTreeSet<SocketAddr>,
    deadline: Instant,
    record: &Name,
    value: &str,
) -> Result<(), SocketAddr> {
    let mut waiting = JoinSet::new();
    for server in servers {
        waiting.spawn(until_shown(server, deadline, record.clone(), value.to_owned()));
    }
    let mut missing = Vec::new();
    while let Some(seen) = waiting.join_next().await {
        missing.extend(seen.ok().and_then(Result::err));
    }
    // Sooner one that has answered without the record than one that nobody can ask.
    missing.sort_by_key(|(_, failures)| *failures);
    missing.first().map_or(Ok(()), |(server, _)| Err(*server))
}

/// Waits until a server shows the record, or cannot be asked; gives it, and how often it could not be asked, if it
/// does not in time.
async fn until_shown(
    server: SocketAddr,
    deadline: Instant,
    record: Name,
    value: String,
) -> Result<(), (SocketAddr, usize)> {
    let mut failures = 0;
    loop {
        match timeout_at(deadline, shows(server, &record, &value)).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => failures = 0,
            // It may be hidden from us; the CA asks those that are not.
            Ok(Err(_)) if failures + 1 >= FAILURES => return Ok(()),
            Ok(Err(_)) => failures += 1,
            Err(_) => return Err((server, failures + 1)),
        }
        if Instant::now() + PAUSE > deadline {
            return Err((server, failures));
        }
        sleep(PAUSE).await;
    }
}

/// Whether a server shows the record.
async fn shows(server: SocketAddr, record: &Name, value: &str) -> io::Result<bool> {
    let (reply, _) = ask(server, &question(id(), record, Kind::Txt)).await?;
    if !reply.code.is_fine() && !reply.code.is_no_name() {
        return Err(io::Error::other(reply.code.to_string()));
    }
    Ok(reply.texts(record).any(|text| text == value.as_bytes()))
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text.as_bytes()).map_err(|_| format!("invalid name \"{text}\""))
}

/// Whether a name is that of a zone or below it.
fn is_within(name: &Name, zone: &Name) -> bool {
    let rest = name.as_str().strip_suffix(zone.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A server that has no record for the first `late` questions, and then the text `v`.
    fn server(late: usize) -> SocketAddr {
        counting(late).0
    }

    /// The same, and how many questions it has got.
    fn counting(late: usize) -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            loop {
                let mut bytes = [0; 512];
                let (len, from) = socket.recv_from(&mut bytes).unwrap();
                let count = counted.fetch_add(1, Ordering::Relaxed);
                let mut reply = bytes[..len].to_vec();
                reply[2] |= 0x84;
                if count >= late {
                    reply[7] = 1;
                    reply.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 9, 0, 2, 1, b'v']);
                }
                socket.send_to(&reply, from).unwrap();
            }
        });
        (address, asked)
    }

    fn silent() -> (SocketAddr, UdpSocket) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    /// One that is slow must not keep us from the others.
    #[tokio::test]
    async fn servers_are_asked_at_once() {
        let record = name("_acme-challenge.a.test").unwrap();
        let (one, _open) = silent();
        let (other, _open_too) = silent();
        let (late, asked) = counting(1);
        let deadline = Instant::now() + Duration::from_secs(4);
        let missing = wait([one, other, late].into(), deadline, &record, "v").await.unwrap_err();
        assert!([one, other].contains(&missing));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn without_names_of_servers_the_one_that_takes_changes_is_asked() {
        let zone = name("a.test").unwrap();
        let (mute, _open) = silent();
        for server in [mute, server(usize::MAX)] {
            let (key, propagation) = (None, Duration::from_secs(1));
            let update = Update { server, zone: None, key, ttl: 60, propagation };
            let servers = update.servers(&zone, Instant::now() + propagation).await;
            assert_eq!(servers, [server].into());
        }
    }

    #[tokio::test]
    async fn all_servers_that_answer_must_show_the_record() {
        let record = name("_acme-challenge.a.test").unwrap();
        let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (soon, late, never) = (server(0), server(1), server(usize::MAX));
        for (servers, seconds, expected) in [
            (vec![soon, late, gone], 60, Ok(())),
            (vec![soon, never], 1, Err(never)),
            (vec![never, gone], 1, Err(never)),
            (vec![gone], 60, Ok(())),
        ] {
            let deadline = Instant::now() + Duration::from_secs(seconds);
            let servers = servers.into_iter().collect();
            assert_eq!(wait(servers, deadline, &record, "v").await, expected);
        }
        let deadline = Instant::now();
        assert_eq!(wait([soon].into(), deadline, &record, "w").await, Err(soon), "another value");
    }

    #[test]
    fn a_name_is_within_its_zone_only() {
        for (inner, zone, expected) in [
            ("a.test", "a.test", true),
            ("b.a.test", "a.test", true),
            ("ba.test", "a.test", false),
            ("test", "a.test", false),
        ] {
            assert_eq!(is_within(&name(inner).unwrap(), &name(zone).unwrap()), expected, "{inner}");
        }
    }
}

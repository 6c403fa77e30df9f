//! Groups with servers whose names are looked up while the server runs.
//!
//! A line with `resolve` stands for as many servers as its name has addresses, or hosts of a service.
//! They are looked up again before the answer expires, and the group's peers are replaced when
//! something has changed. An answer that there is nothing empties the line; while servers fail or
//! are silent everything stays as it is.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use wssgate_config::model::{ListenAddr, LogLevel, Resolve, Upstream, UpstreamServer};
use wssgate_dns::{Code, Data, Failure, Name, Service};

use super::group::Group;
use super::hosts::sorted;
use crate::resolve::{Job, Key, Resolver, ResolverThread, SILENCE, Unresolved};

/// There is no such name.
const NO_NAME: Unresolved = Unresolved::Failed(Failure::Answered(Code::NoName));

/// How long a name rests after a failure, at first; each time twice as long, up to [`LONGEST_REST`].
/// While its line stands for nothing it is never longer: requests are refused for want of a peer.
const REST: Duration = Duration::from_secs(1);

/// A server that is started should not have to wait for long.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What goes wrong for long is told this often.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Hosts that one service may have.
const MAX_HOSTS: usize = 64;

/// The servers of a group as far as they are known when it is made: those of lines with `resolve` as
/// the group before it has them.
pub(super) fn known_servers(model: &Upstream, previous: Option<&Group>) -> Vec<UpstreamServer> {
    let before = previous.map(Group::servers).unwrap_or_default();
    let known = |line: &UpstreamServer| match &line.resolve {
        None => vec![line.clone()],
        Some(resolve) => known_of(line, resolve, &before),
    };
    model.servers.iter().flat_map(known).collect()
}

/// What a line with `resolve` stands for as far as the servers of a group tell.
fn known_of(
    line: &UpstreamServer,
    resolve: &Resolve,
    before: &[UpstreamServer],
) -> Vec<UpstreamServer> {
    let same = |server: &&UpstreamServer| {
        let other = server.resolve.as_ref();
        other.is_some_and(|other| other.host == resolve.host && other.service == resolve.service)
    };
    // A host may stand on several lines with other ports, and has the same addresses on each.
    let count = if resolve.service.is_some() { usize::MAX } else { 1 };
    let same = before.iter().filter(same).take(count);
    same.map(|server| carried_over(line, resolve, server)).collect()
}

/// A server of the group before, as a line says it now.
fn carried_over(
    line: &UpstreamServer,
    resolve: &Resolve,
    before: &UpstreamServer,
) -> UpstreamServer {
    if resolve.service.is_some() {
        return UpstreamServer {
            name: before.name.clone(),
            addresses: before.addresses.clone(),
            weight: if line.weight == 1 { before.weight } else { line.weight },
            backup: before.backup,
            ..line.clone()
        };
    }
    let with_port = |address: &ListenAddr| match address {
        ListenAddr::Ip(address) => ListenAddr::Ip(SocketAddr::new(address.ip(), resolve.port)),
        ListenAddr::Unix(_) => address.clone(),
    };
    let addresses = before.addresses.iter().map(with_port).collect();
    UpstreamServer { addresses, ..line.clone() }
}

/// Keeps the peers of a group at the addresses that its names have, as long as the group lives;
/// nothing if it has no such names.
pub(crate) fn follow(
    model: &Upstream,
    group: &Arc<Group>,
    resolvers: &[Arc<Resolver>],
    thread: &Arc<ResolverThread>,
) -> Option<Job> {
    if model.servers.iter().all(|server| server.resolve.is_none()) {
        return None;
    }
    let resolver = Arc::clone(resolvers.get(model.resolver?.0)?);
    let (group, thread) = (Arc::downgrade(group), Arc::clone(thread));
    let (lines, timeout) = (model.servers.clone(), model.resolver_timeout);
    Some(Box::new(move || {
        let before = group.upgrade().map(|group| group.servers()).unwrap_or_default();
        let known = |line: &UpstreamServer| match &line.resolve {
            None => vec![line.clone()],
            Some(resolve) => known_of(line, resolve, &before),
        };
        let found = RefCell::new(lines.iter().map(known).collect());
        let told_of_host = Cell::new(None);
        let following = Following { group, lines, found, told_of_host, resolver, thread, timeout };
        let following = Rc::new(following);
        let lines = following.lines.iter().enumerate();
        let named = lines.filter(|(_, line)| line.resolve.is_some()).map(|(line, _)| line);
        let follow = |line| {
            let following = Rc::clone(&following);
            Box::pin(async move { following.line(line).await }) as Pin<Box<dyn Future<Output = ()>>>
        };
        named.map(follow).collect()
    }))
}

/// One group whose names are looked up.
struct Following {
    group: Weak<Group>,
    /// As they are written.
    lines: Vec<UpstreamServer>,
    /// What each stands for.
    found: RefCell<Vec<Vec<UpstreamServer>>>,
    /// When it was last told that a host of a service cannot be resolved.
    told_of_host: Cell<Option<Instant>>,
    resolver: Arc<Resolver>,
    thread: Arc<ResolverThread>,
    timeout: Duration,
}

impl Following {
    /// Looks one line up again and again.
    async fn line(&self, number: usize) {
        let line = &self.lines[number];
        let Some(resolve) = &line.resolve else { return };
        let mut rest = REST;
        let mut told_at: Option<Instant> = None;
        while self.group.strong_count() > 0 {
            let wait = match self.look_up(number, resolve).await {
                Ok((servers, renew_at)) => {
                    if told_at.take().is_some() {
                        let text = format_args!("{} was resolved again", resolve.host);
                        self.thread.log(LogLevel::Notice, text);
                    }
                    rest = REST;
                    self.set(number, servers);
                    renew_at.saturating_duration_since(Instant::now())
                }
                Err(failure) => {
                    let now = Instant::now();
                    if told_at.is_none_or(|at| now - at >= TELL_INTERVAL) {
                        told_at = Some(now);
                        self.tell(resolve, failure);
                    }
                    if failure == NO_NAME {
                        self.set(number, Vec::new());
                    }
                    rest_after_failure(&mut rest, self.found.borrow()[number].is_empty())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// nginx's words.
    fn tell(&self, resolve: &Resolve, failure: Unresolved) {
        let host = &resolve.host;
        match &resolve.service {
            None => {
                let text = format_args!("{host} could not be resolved ({failure})");
                self.thread.log(LogLevel::Error, text);
            }
            Some(service) => {
                let service = service.escape_ascii();
                let text =
                    format_args!("service {service} of {host} could not be resolved ({failure})");
                self.thread.log(LogLevel::Error, text);
            }
        }
    }

    fn tell_of_host(&self, resolve: &Resolve, service: &Service, failure: Unresolved) {
        let now = Instant::now();
        if self.told_of_host.get().is_none_or(|at| now - at >= TELL_INTERVAL) {
            self.told_of_host.set(Some(now));
            let (target, host) = (&service.target, &resolve.host);
            let text = format_args!(
                "{target} could not be resolved ({failure}) while resolving service of {host}"
            );
            self.thread.log(LogLevel::Error, text);
        }
    }

    /// The servers that a line stands for now, and when to look again.
    async fn look_up(
        &self,
        number: usize,
        resolve: &Resolve,
    ) -> Result<(Vec<UpstreamServer>, Instant), Unresolved> {
        let line = &self.lines[number];
        let host = Name::new(resolve.host.as_bytes()).map_err(|_| NO_NAME)?;
        let Some(service) = &resolve.service else {
            let (answer, renew_at) =
                self.resolver.newest(Key::addresses(host), self.timeout).await?;
            let addresses = sorted(answer.host_addresses(), resolve.port);
            return Ok((vec![UpstreamServer { addresses, ..line.clone() }], renew_at));
        };
        let name = host.service(service).map_err(|_| NO_NAME)?;
        let (answer, mut renew_at) =
            self.resolver.newest(Key::services(name), self.timeout).await?;
        let Data::Services(services) = &answer.data else { return Err(NO_NAME) };
        let mut hosts = Vec::new();
        let mut failed = None;
        for service in services.iter().take(MAX_HOSTS) {
            let key = Key::addresses(service.target.clone());
            let answer = match failed {
                // One wait for nothing is enough.
                Some(SILENCE) => Err(SILENCE),
                _ => self.resolver.newest(key, self.timeout).await,
            };
            match answer {
                Ok((answer, due)) => {
                    renew_at = renew_at.min(due);
                    hosts.push((service, sorted(answer.host_addresses(), service.port)));
                }
                Err(failure) => {
                    self.tell_of_host(resolve, service, failure);
                    if failure == SILENCE || failed.is_none_or(|failed| failed == NO_NAME) {
                        failed = Some(failure);
                    }
                    if failure != NO_NAME {
                        // Nothing new is known of it.
                        let before = self.addresses_before(number, service);
                        hosts.extend(before.map(|addresses| (service, addresses)));
                    }
                    renew_at = renew_at.min(Instant::now() + LONGEST_REST);
                }
            }
        }
        match failed {
            Some(failure) if hosts.is_empty() => Err(failure),
            _ => Ok((servers_of(line, &hosts), renew_at)),
        }
    }

    /// The addresses that a host of a service had before.
    fn addresses_before(&self, number: usize, service: &Service) -> Option<Vec<ListenAddr>> {
        let found = self.found.borrow();
        let port = |address: &ListenAddr| match address {
            ListenAddr::Ip(address) => Some(address.port()),
            ListenAddr::Unix(_) => None,
        };
        let same = |server: &&UpstreamServer| {
            *server.name == *service.target.as_str().as_bytes()
                && server.addresses.first().and_then(port) == Some(service.port)
        };
        found[number].iter().find(same).map(|server| server.addresses.clone())
    }

    /// Replaces the peers when a line stands for other servers than before.
    fn set(&self, number: usize, servers: Vec<UpstreamServer>) {
        let Some(group) = self.group.upgrade() else { return };
        let mut found = self.found.borrow_mut();
        found[number] = servers;
        let now = found.concat();
        let before = group.servers();
        if now[..] != before[..] {
            group.replace(&now);
        }
    }
}

/// How long a name rests now, after `rest` was doubled for the next failure; `empty`: its line stands for
/// nothing.
fn rest_after_failure(rest: &mut Duration, empty: bool) -> Duration {
    let doubled = (*rest * 2).min(LONGEST_REST);
    let rest = std::mem::replace(rest, doubled);
    if empty { rest.min(REST) } else { rest }
}

/// The servers of a service: those of the best priority, and all others as backup.
fn servers_of(line: &UpstreamServer, hosts: &[(&Service, Vec<ListenAddr>)]) -> Vec<UpstreamServer> {
    let best = hosts.iter().map(|(service, _)| service.priority).min();
    let server = |(service, addresses): &(&Service, Vec<ListenAddr>)| UpstreamServer {
        name: service.target.as_str().as_bytes().into(),
        addresses: addresses.clone(),
        weight: match line.weight {
            // RFC 2782: 0 is a weight, but a small one.
            1 => u32::from(service.weight.max(1)),
            weight => weight,
        },
        backup: line.backup || Some(service.priority) != best,
        ..line.clone()
    };
    let mut servers: Vec<_> = hosts.iter().map(server).collect();
    servers.sort_by(|one, other| (&one.name, &one.addresses).cmp(&(&other.name, &other.addresses)));
    servers
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

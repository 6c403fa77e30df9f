//! Groups of the hosts that URLs of variables name.
//!
//! A host with several addresses is a group like any other, from the first request for it on. So an
//! address that does not answer is passed over by the requests that follow, and each of them begins
//! with another one. nginx knows such a group for one request only.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use wssgate_config::model::{ListenAddr, Recovery, UpstreamServer};
use wssgate_dns::Name;

use super::group::Group;
use crate::resolve::{Answer, Resolver};

/// The parts of the table, with a lock each.
const SHARDS: usize = 16;

/// Hosts that one part knows: as many as a resolver does.
const HOSTS_PER_SHARD: usize = 256;

/// The groups of hosts.
#[derive(Debug)]
pub struct Hosts {
    shards: [Mutex<HashMap<Id, Host>>; SHARDS],
    hasher: RandomState,
}

/// Name and port, how soon failed peers are asked again, and where the resolver is in memory: another
/// one may know other addresses.
type Id = (usize, Name, u16, Recovery);

#[derive(Debug)]
struct Host {
    /// What the peers were made of.
    answer: Arc<Answer>,
    group: Arc<Group>,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            hasher: RandomState::new(),
        }
    }
}

impl Hosts {
    /// The group of a host, at the addresses that it has by this answer of the resolver.
    pub(crate) fn group(
        &self,
        resolver: &Arc<Resolver>,
        name: Name,
        port: u16,
        answer: Arc<Answer>,
        recovery: Recovery,
    ) -> Arc<Group> {
        let id = (Arc::as_ptr(resolver).addr(), name, port, recovery);
        let shard = self.hasher.hash_one(&id) as usize % SHARDS;
        // Whoever panicked, the table is whole.
        let mut hosts = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS_PER_SHARD && !hosts.contains_key(&id) {
            // Whose answer is the oldest is probably not asked for any more.
            let oldest = hosts.iter().min_by_key(|(_, host)| host.answer.renew_at);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                hosts.remove(&oldest);
            }
        }
        match hosts.entry(id) {
            Entry::Occupied(mut host) => {
                let host = host.get_mut();
                if !Arc::ptr_eq(&host.answer, &answer) {
                    let server = server(&host.group.name, &answer, port);
                    if host.group.servers().first() != Some(&server) {
                        host.group.replace(&[server]);
                    }
                    host.answer = answer;
                }
                Arc::clone(&host.group)
            }
            Entry::Vacant(free) => {
                let name = format!("{}:{port}", free.key().1).into_bytes();
                let group = Arc::new(Group::of_server(server(&name, &answer, port), recovery));
                free.insert(Host { answer, group: Arc::clone(&group) });
                group
            }
        }
    }
}

fn server(name: &[u8], answer: &Answer, port: u16) -> UpstreamServer {
    UpstreamServer::new(name.into(), sorted(answer.host_addresses(), port))
}

/// Always in the same order: DNS servers answer in another one each time.
pub(super) fn sorted(addresses: &[IpAddr], port: u16) -> Vec<ListenAddr> {
    let mut addresses: Vec<_> =
        addresses.iter().map(|ip| ListenAddr::Ip(SocketAddr::new(*ip, port))).collect();
    addresses.sort();
    addresses
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use wssgate_config::model;
    use wssgate_dns::Data;

    use super::*;

    fn name(number: usize) -> Name {
        Name::new(format!("host{number}.test").as_bytes()).unwrap()
    }

    fn answer(addresses: &[&str], renew_at: Instant) -> Arc<Answer> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Answer { data: Data::Addresses(addresses), renew_at })
    }

    fn resolver() -> Arc<Resolver> {
        let servers = vec!["127.0.0.1:53".parse().unwrap()];
        let model = model::Resolver { servers, valid: None, ipv4: true, ipv6: true };
        Arc::new(Resolver::new(model, Arc::default()))
    }

    fn next(group: &Group) -> String {
        let now = Instant::now();
        let lease = group.choose(&mut group.selection(b"", None, 0), now).unwrap();
        lease.peer().name.to_string()
    }

    #[test]
    fn a_host_stays_a_group_while_its_addresses_change() {
        let (hosts, resolver, now) = (Hosts::default(), resolver(), Instant::now());
        let both = answer(&["127.0.0.2", "127.0.0.1"], now);
        let group = hosts.group(&resolver, name(1), 80, Arc::clone(&both), Recovery::Eager);
        assert_eq!([next(&group), next(&group)], ["127.0.0.1:80", "127.0.0.2:80"]);
        let failed = group.choose(&mut group.selection(b"", None, 0), now).unwrap();
        assert_eq!(&*failed.peer().name, "127.0.0.1:80");
        failed.fail(now);

        // The other order is no change.
        for again in [both, answer(&["127.0.0.1", "127.0.0.2"], now)] {
            assert!(Arc::ptr_eq(
                &group,
                &hosts.group(&resolver, name(1), 80, again, Recovery::Eager)
            ));
            assert_eq!([next(&group), next(&group)], ["127.0.0.2:80"; 2]);
        }
        let changed = answer(&["127.0.0.1", "127.0.0.3"], now);
        assert!(Arc::ptr_eq(
            &group,
            &hosts.group(&resolver, name(1), 80, changed, Recovery::Eager)
        ));
        assert_eq!([next(&group), next(&group)], ["127.0.0.3:80"; 2], "it still fails");
        let other =
            hosts.group(&resolver, name(1), 81, answer(&["127.0.0.1"], now), Recovery::Eager);
        assert_eq!(next(&other), "127.0.0.1:81");
        let inner = hosts.group(
            &self::resolver(),
            name(1),
            80,
            answer(&["10.0.0.1"], now),
            Recovery::Eager,
        );
        assert_eq!((next(&inner), next(&group)), ("10.0.0.1:80".into(), "127.0.0.3:80".into()));
    }

    #[test]
    fn of_too_many_hosts_the_oldest_is_forgotten() {
        let (hosts, resolver, now) = (Hosts::default(), resolver(), Instant::now());
        let most = SHARDS * HOSTS_PER_SHARD;
        for number in 0..2 * most {
            let renew_at = now + Duration::from_secs(number as u64);
            hosts.group(
                &resolver,
                name(number),
                80,
                answer(&["127.0.0.1"], renew_at),
                Recovery::Eager,
            );
        }
        let shards = hosts.shards.iter().map(|shard| shard.lock().unwrap());
        let counts: Vec<_> = shards.map(|hosts| hosts.len()).collect();
        assert!(counts.iter().all(|count| *count <= HOSTS_PER_SHARD), "{counts:?}");
        let newest = (Arc::as_ptr(&resolver).addr(), name(2 * most - 1), 80, Recovery::Eager);
        let shard = hosts.hasher.hash_one(&newest) as usize % SHARDS;
        assert!(hosts.shards[shard].lock().unwrap().contains_key(&newest));
    }
}

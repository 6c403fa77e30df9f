//! What we lack ourselves when a connection cannot be made.
//!
//! To a peer that is no failure of the peer: while descriptors are short every peer would be out of use
//! soon, and would still be when the shortage is over. It is told to the operator instead, who can
//! do something about it.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use std::{fmt, io};

use wssgate_sys::errno::{EMFILE, ENFILE, ENOBUFS};

/// The same shortage is not told more often by one worker.
const INTERVAL: Duration = Duration::from_secs(10);

/// What a connection needs of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Descriptors of this process.
    Descriptors,
    /// Open files of the whole system.
    SystemFiles,
    /// Memory of the kernel.
    Memory,
    /// Ports of the address in `proxy_bind`, whatever the peer.
    BoundPorts,
    /// Ports for connections to one peer's address.
    Ports,
    /// The address in `proxy_bind`.
    LocalAddress,
}

impl Resource {
    /// What `call` lacked, if that is why it failed.
    pub(crate) fn lacking(call: Call, error: &io::Error) -> Option<Self> {
        match (error.raw_os_error()?, error.kind(), call) {
            (EMFILE, ..) => Some(Self::Descriptors),
            (ENFILE, ..) => Some(Self::SystemFiles),
            (ENOBUFS, ..) | (_, io::ErrorKind::OutOfMemory, _) => Some(Self::Memory),
            (_, io::ErrorKind::AddrInUse, Call::Bind) => Some(Self::BoundPorts),
            (_, io::ErrorKind::AddrNotAvailable, Call::Bind) => Some(Self::LocalAddress),
            (_, io::ErrorKind::AddrNotAvailable, Call::Connect { from, to }) => {
                has_source(from, to?).then_some(Self::Ports)
            }
            _ => None,
        }
    }

    /// Whether a connection to another peer may be possible all the same. The kernel counts ports
    /// for each address that they are connected to.
    pub(crate) fn is_of_one_peer(self) -> bool {
        self == Self::Ports
    }

    /// Whether there is more of it as soon as a client's connection closes.
    pub(crate) fn is_held_by_clients(self) -> bool {
        matches!(self, Self::Descriptors | Self::SystemFiles | Self::Memory)
    }

    /// What an operator can do about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Descriptors => {
                "out of file descriptors; raise worker_rlimit_nofile or the open file limit of the \
                 process"
            }
            Self::SystemFiles => "the system is out of file handles; raise fs.file-max",
            Self::Memory => {
                "the system is out of memory for sockets; raise the memory limit or net.ipv4.tcp_mem"
            }
            Self::BoundPorts => {
                "out of local ports for proxy_bind; raise net.ipv4.ip_local_port_range or bind to \
                 more addresses"
            }
            Self::Ports => {
                "out of local ports for this peer; raise net.ipv4.ip_local_port_range or connect \
                 from more addresses with proxy_bind"
            }
            Self::LocalAddress => "the proxy_bind address is not assigned to this host",
        }
    }
}

/// A system call on the way to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Accept,
    Socket,
    Bind,
    /// From an address, if one is bound, to an address, if it is one of IP.
    Connect {
        from: Option<SocketAddr>,
        to: Option<SocketAddr>,
    },
}

impl Call {
    /// As error lines name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept4()",
            Self::Socket => "socket()",
            Self::Bind => "bind()",
            Self::Connect { .. } => "connect()",
        }
    }
}

/// Whether there is an address to reach `to` from. A host without IPv6 says of a peer that has
/// nothing else the same as one that has run out of ports, but that peer is of no use to it.
fn has_source(from: Option<SocketAddr>, to: SocketAddr) -> bool {
    let any = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = SocketAddr::new(from.map_or(any, |from| from.ip()), 0);
    // UDP has ports of its own, and connecting sends nothing. What else fails now, such as a lack
    // of descriptors, says nothing of the peer.
    let probe = UdpSocket::bind(from).and_then(|socket| socket.connect(to));
    !probe.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// How often the same was not told, for the end of a line about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Untold(u64);

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            times => write!(f, "; {times} similar messages suppressed"),
        }
    }
}

/// The shortages that one worker has told of.
#[derive(Debug, Default)]
pub struct Shortages {
    told: RefCell<Vec<Told>>,
}

#[derive(Debug)]
struct Told {
    resource: Resource,
    last: Instant,
    /// How often it was not told since.
    untold: u64,
}

impl Shortages {
    /// Whether a shortage is to be told `now`; if so, how often it was not since the last time.
    pub(crate) fn note(&self, resource: Resource, now: Instant) -> Option<Untold> {
        let mut all = self.told.borrow_mut();
        let Some(told) = all.iter_mut().find(|told| told.resource == resource) else {
            all.push(Told { resource, last: now, untold: 0 });
            return Some(Untold(0));
        };
        if now.saturating_duration_since(told.last) < INTERVAL {
            told.untold += 1;
            return None;
        }
        told.last = now;
        Some(Untold(std::mem::take(&mut told.untold)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_known_by_its_call_and_error() {
        let to = Some("127.0.0.1:80".parse().unwrap());
        let connect = Call::Connect { from: None, to };
        for (call, errno, expected) in [
            (Call::Socket, 24, Some(Resource::Descriptors)),
            (Call::Socket, 23, Some(Resource::SystemFiles)),
            (Call::Socket, 105, Some(Resource::Memory)),
            (connect, 12, Some(Resource::Memory)),
            (connect, 99, Some(Resource::Ports)),
            (Call::Bind, 99, Some(Resource::LocalAddress)),
            (Call::Bind, 98, Some(Resource::BoundPorts)),
            (connect, 111, None),
            (connect, 113, None),
            (Call::Bind, 13, None),
            (Call::Connect { from: None, to: None }, 11, None),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(Resource::lacking(call, &error), expected, "{call:?} {errno}");
        }
    }

    #[test]
    fn a_peer_that_no_address_of_ours_can_reach_is_no_shortage() {
        let to = Some("127.0.0.1:80".parse().unwrap());
        let from = Some("192.0.2.1:0".parse().unwrap());
        let error = io::Error::from_raw_os_error(99);
        assert_eq!(Resource::lacking(Call::Connect { from, to }, &error), None);
    }

    #[test]
    fn a_shortage_that_goes_on_is_told_now_and_then() {
        let (shortages, began) = (Shortages::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..35 {
            let now = began + Duration::from_secs(second);
            told.extend(
                shortages.note(Resource::Descriptors, now).map(|Untold(times)| (second, times)),
            );
        }
        assert_eq!(told, [(0, 0), (10, 9), (20, 9), (30, 9)]);
        assert_eq!(shortages.note(Resource::Memory, began), Some(Untold(0)), "each for itself");
    }
}

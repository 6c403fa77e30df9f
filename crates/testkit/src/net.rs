//! Addresses that no other test uses.
//!
//! All of 127.0.0.0/8 is loopback, so every test process listens on an address made of its pid.
//! Two processes cannot collide, and within one a set remembers what was handed out.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addr {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl From<&Path> for Addr {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

impl From<&Addr> for Addr {
    fn from(addr: &Addr) -> Self {
        addr.clone()
    }
}

/// As `proxy_pass http://…` and `server …;` want it.
impl std::fmt::Display for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The loopback address of this test process: 127.64.0.0 plus its pid, which has 22 bits on Linux.
pub fn loopback() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | high, middle, low)
}

/// An address on [`loopback`] where nothing listens, never handed out twice by this process.
pub fn free_addr() -> SocketAddr {
    free_addr_on(loopback().into())
}

/// An address on `ip` where nothing listens, never handed out twice by this process. Prefer
/// [`free_addr`]: on a shared `ip` another process may take the port before it is used.
pub fn free_addr_on(ip: IpAddr) -> SocketAddr {
    static TAKEN: Mutex<Option<HashSet<SocketAddr>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().expect("nothing panics while this is locked");
    let taken = taken.get_or_insert_default();
    // The kernel hands out ports at random; a repetition is rare, so this bound is never met.
    for _ in 0..1000 {
        let addr = TcpListener::bind((ip, 0)).and_then(|listener| listener.local_addr());
        let addr = addr.unwrap_or_else(|error| panic!("cannot bind to {ip}: {error}"));
        if taken.insert(addr) {
            return addr;
        }
    }
    panic!("no free port on {ip}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ_and_can_be_bound() {
        let (a, b) = (free_addr(), free_addr());
        assert_ne!(a, b);
        let listeners = [TcpListener::bind(a), TcpListener::bind(b)];
        assert!(listeners.iter().all(Result::is_ok), "{listeners:?}");
        assert!(a.ip().is_loopback());
    }

    #[test]
    fn addresses_read_as_the_configuration_wants_them() {
        let tcp: SocketAddr = ([127, 0, 0, 1], 80).into();
        assert_eq!(Addr::from(tcp).to_string(), "127.0.0.1:80");
        assert_eq!(Addr::from(Path::new("/tmp/s")).to_string(), "unix:/tmp/s");
    }
}

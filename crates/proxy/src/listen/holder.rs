//! Who listens on a port that we want, as far as /proc shows it: proc_pid_net(5) and proc_pid_fd(5).

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The state `TCP_LISTEN` in /proc/net/tcp.
const LISTEN: &str = "0A";

/// A process and its number, as in `nginx (process 1)`. Only root sees those of others.
pub(super) fn of(address: SocketAddr) -> Option<String> {
    let inode = inode(address.port(), Some(address.ip()))?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.filter(|entry| has_descriptor(&entry.path(), &socket));
    // Not `self`, which is there as well.
    let pid = processes.find_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (process {pid})", name.trim_end()))
}

/// Whether anybody listens on this port of TCP, on whatever address; `None` where /proc does not tell.
pub fn is_listened_on(port: u16) -> Option<bool> {
    fs::read_to_string("/proc/net/tcp").ok()?;
    Some(inode(port, None).is_some())
}

/// The inode of a socket that listens on this port, and is in the way of this address if one is given.
fn inode(port: u16, ip: Option<IpAddr>) -> Option<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let mut lines = tables.iter().flatten().flat_map(|table| table.lines());
    lines.find_map(|line| inode_in(line, port, ip))
}

/// Of a line such as `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 …`.
fn inode_in(line: &str, port: u16, ip: Option<IpAddr>) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (bound, local) = fields.next()?.rsplit_once(':')?;
    let listens = fields.nth(1)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
    let meets = ip.is_none_or(|ip| meet(bound, ip));
    fields.nth(5).filter(|_| listens && meets)?.parse().ok()
}

/// Whether who is bound to one address is in the way of the other: they are the same, or one is every address.
fn meet(bound: &str, ip: IpAddr) -> bool {
    let is_any = bound.bytes().all(|digit| digit == b'0');
    is_any || ip.is_unspecified() || bound == hex(ip)
}

/// As /proc writes it: words of four bytes, each as the number that the machine takes it for.
fn hex(ip: IpAddr) -> String {
    let word = |bytes: &[u8]| match bytes.try_into() {
        Ok(bytes) => format!("{:08X}", u32::from_ne_bytes(bytes)),
        Err(_) => String::new(),
    };
    match ip {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().chunks(4).map(word).collect(),
    }
}

/// Whether a process has it open.
fn has_descriptor(process: &Path, socket: &str) -> bool {
    let descriptors = fs::read_dir(process.join("fd"));
    let mut links =
        descriptors.into_iter().flatten().flatten().map(|entry| fs::read_link(entry.path()));
    links.any(|link| link.is_ok_and(|link| link.as_os_str() == socket))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn we_find_ourselves() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let holder = of(address).unwrap();
        assert!(holder.ends_with(&format!(" (process {})", std::process::id())), "{holder}");
        assert_eq!(is_listened_on(address.port()), Some(true));
        // A process that another test has started may hold the socket for a moment, until its `exec`.
        drop(listener);
        wssgate_testkit::wait_until("the port to be free", || {
            is_listened_on(address.port()) == Some(false)
        });
    }

    #[test]
    fn lines_of_other_states_and_ports_are_passed_over() {
        let line = |state: &str| {
            format!(
                "   0: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 12345 1 0"
            )
        };
        let inode_in = |line: &str, port| inode_in(line, port, None);
        assert_eq!(inode_in(&line("0A"), 8080), Some(12345));
        assert_eq!(inode_in(&line("01"), 8080), None);
        assert_eq!(inode_in(&line("0A"), 8081), None);
        assert_eq!(inode_in("  sl  local_address rem_address   st", 8080), None);
    }

    #[test]
    fn only_who_has_the_same_address_or_all_is_in_the_way() {
        let bound = |text: &str| hex(text.parse().unwrap());
        for (one, other, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "10.0.0.1", false),
            ("0.0.0.0", "10.0.0.1", true),
            ("10.0.0.1", "0.0.0.0", true),
            ("::", "10.0.0.1", true),
            ("::1", "::1", true),
            ("::1", "fe80::1", false),
        ] {
            assert_eq!(meet(&bound(one), other.parse().unwrap()), expected, "{one} {other}");
        }
        #[cfg(target_endian = "little")]
        assert_eq!(bound("127.0.0.1"), "0100007F");
    }
}

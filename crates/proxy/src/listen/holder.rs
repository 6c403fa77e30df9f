//! Who listens on a port that we want, as far as /proc shows it: proc_pid_net(5) and proc_pid_fd(5).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// The state `TCP_LISTEN` in /proc/net/tcp.
const LISTEN: &str = "0A";

/// A process and its number, as in `nginx (process 1)`. Only root sees those of others.
pub(super) fn of(address: SocketAddr) -> Option<String> {
    let inode = inode(address.port())?;
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
    Some(inode(port).is_some())
}

/// The inode of a socket that listens on this port.
fn inode(port: u16) -> Option<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    tables.iter().flatten().find_map(|table| table.lines().find_map(|line| inode_in(line, port)))
}

/// Of a line such as `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 …`.
fn inode_in(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (_, local) = fields.next()?.rsplit_once(':')?;
    let listens = fields.nth(1)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
    fields.nth(5).filter(|_| listens)?.parse().ok()
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
        assert_eq!(inode_in(&line("0A"), 8080), Some(12345));
        assert_eq!(inode_in(&line("01"), 8080), None);
        assert_eq!(inode_in(&line("0A"), 8081), None);
        assert_eq!(inode_in("  sl  local_address rem_address   st", 8080), None);
    }
}

//! HAProxy before the program or behind it, where it is installed.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{skipped, wait_until};

/// Debian's HAProxy.
const HAPROXY: &str = "/usr/sbin/haproxy";

/// A HAProxy that runs until it is dropped.
#[derive(Debug)]
pub struct Haproxy {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Haproxy {
    /// Starts one in this mode, with `sections` behind the defaults, and waits until it listens. `None` where there is
    /// none; then `what` is said to be skipped.
    pub fn start(what: &str, listens: SocketAddr, mode: &str, sections: &str) -> Option<Self> {
        if !Path::new(HAPROXY).exists() {
            skipped(&format!("{what}: not installed"));
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("haproxy.cfg");
        let defaults = format!(
            "defaults\n mode {mode}\n timeout client 10s\n timeout server 10s\n \
             timeout connect 10s\n"
        );
        fs::write(&path, format!("{defaults}{sections}\n")).expect("writing a configuration");
        let mut command = Command::new(HAPROXY);
        command.args(["-db", "-q", "-f"]).arg(&path).stdin(Stdio::null());
        let child = command.spawn().expect("starting HAProxy");
        wait_until("HAProxy", || TcpStream::connect(listens).is_ok());
        Some(Self { child, _dir: dir })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

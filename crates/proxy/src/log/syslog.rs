//! Lines as syslog datagrams (RFC 3164), as nginx sends them.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};

use wssgate_config::model::{ListenAddr, Syslog};

use crate::clock;

/// Bytes of one datagram, nginx's bound.
const MAX_DATAGRAM: usize = 4096;

/// One `syslog:` target.
#[derive(Debug)]
pub(super) struct SyslogSink {
    parameters: Syslog,
    hostname: String,
    socket: Mutex<Option<Socket>>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl SyslogSink {
    /// Connects with the first line, so that a server that is not there yet does no harm.
    pub(super) fn new(parameters: &Syslog) -> Self {
        Self {
            parameters: parameters.clone(),
            hostname: wssgate_sys::process::host_name(),
            socket: Mutex::new(None),
        }
    }

    /// The severity of access lines.
    pub(super) fn severity(&self) -> u8 {
        self.parameters.severity
    }

    /// Sends one line; if that fails it is lost and the next one tries a new socket.
    pub(super) fn send(&self, severity: u8, line: &[u8]) {
        let mut datagram = self.header(severity).into_bytes();
        let room = MAX_DATAGRAM.saturating_sub(datagram.len()).min(line.len());
        datagram.extend_from_slice(&line[..room]);
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.is_none() {
            *socket = connect(&self.parameters.server).ok();
        }
        let sent = match &*socket {
            Some(Socket::Udp(udp)) => udp.send(&datagram),
            Some(Socket::Unix(unix)) => unix.send(&datagram),
            None => return,
        };
        // A full buffer is the reader's matter; anything else may be a server that went away.
        if sent.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock) {
            *socket = None;
        }
    }

    fn header(&self, severity: u8) -> String {
        let priority = u32::from(self.parameters.facility) * 8 + u32::from(severity);
        let time = clock::syslog_time(clock::now());
        let tag = &self.parameters.tag;
        if self.parameters.nohostname {
            format!("<{priority}>{time} {tag}: ")
        } else {
            format!("<{priority}>{time} {} {tag}: ", self.hostname)
        }
    }
}

fn connect(server: &ListenAddr) -> std::io::Result<Socket> {
    match server {
        ListenAddr::Ip(address) => {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(address)?;
            Ok(Socket::Udp(socket))
        }
        ListenAddr::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect(path)?;
            Ok(Socket::Unix(socket))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parameters(server: ListenAddr, nohostname: bool) -> Syslog {
        Syslog { server, facility: 23, severity: 6, tag: "nginx".into(), nohostname }
    }

    #[test]
    fn a_datagram_begins_with_priority_time_host_and_tag() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = ListenAddr::Ip(server.local_addr().unwrap());
        SyslogSink::new(&parameters(address, false)).send(6, b"hello");
        let mut buffer = [0; 512];
        let len = server.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let host = wssgate_sys::process::host_name();
        assert!(text.starts_with("<190>"), "{text}");
        assert!(text.ends_with(&format!(" {host} nginx: hello")), "{text}");
    }

    #[test]
    fn a_server_that_appears_later_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let sink = SyslogSink::new(&parameters(ListenAddr::Unix(path.clone()), true));
        sink.send(3, b"lost");
        let server = UnixDatagram::bind(&path).unwrap();
        sink.send(3, b"seen");
        let mut buffer = [0; 512];
        let len = server.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(text.starts_with("<187>") && text.ends_with(" nginx: seen"), "{text}");
    }
}

//! Lines as syslog datagrams (RFC 3164), as nginx sends them.

use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use wssgate_config::model::{ListenAddr, LogLevel, Syslog};

use super::file::LogFiles;
use super::losses::Losses;
use crate::{clock, errno_text};

/// Bytes of one datagram: what UDP can carry at most.
const MAX_DATAGRAM: usize = 65507;

/// One `syslog:` target. Sending never waits: what the socket does not take at once is lost.
#[derive(Debug)]
pub(super) struct SyslogSink {
    parameters: Syslog,
    hostname: String,
    /// None before the first line, and after a failure.
    socket: ArcSwapOption<Socket>,
    losses: Arc<Losses>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl SyslogSink {
    /// Connects with the first line, so that a server that is not there yet does no harm.
    pub(super) fn new(parameters: &Syslog, files: &LogFiles) -> Self {
        let what = format!("lines to syslog server {}", parameters.server);
        Self {
            parameters: parameters.clone(),
            hostname: wssgate_sys::process::host_name(),
            socket: ArcSwapOption::empty(),
            losses: files.losses_of(what),
        }
    }

    /// The severity of access lines.
    pub(super) fn severity(&self) -> u8 {
        self.parameters.severity
    }

    /// Sends one line; if that fails it is lost.
    pub(super) fn send(&self, severity: u8, line: &[u8]) {
        let mut datagram = self.header(severity).into_bytes();
        let room = MAX_DATAGRAM.saturating_sub(datagram.len()).min(line.len());
        datagram.extend_from_slice(&line[..room]);
        let socket = match self.socket.load_full().map_or_else(|| self.connect(), Ok) {
            Ok(socket) => socket,
            Err(error) => return self.lose("connect()", &error, LogLevel::Alert),
        };
        let sent = match &*socket {
            Socket::Udp(udp) => udp.send(&datagram),
            Socket::Unix(unix) => unix.send(&datagram),
        };
        match sent {
            Ok(_) => self.losses.on_success(),
            // A full buffer is the reader's matter.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lose("send()", &error, LogLevel::Error);
            }
            Err(error) => {
                // The server may have gone away: the next line tries a new socket.
                self.socket.store(None);
                self.lose("send()", &error, blame(&error));
            }
        }
    }

    fn lose(&self, call: &str, error: &io::Error, level: LogLevel) {
        self.losses.on_failure(Instant::now(), level, || {
            let (error, server) = (errno_text(error), &self.parameters.server);
            format!("{call} failed ({error}) while logging to syslog, server: {server}")
        });
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

    /// Several may do so at once; one of the sockets stays.
    fn connect(&self) -> io::Result<Arc<Socket>> {
        let socket = Arc::new(connect(&self.parameters.server)?);
        self.socket.store(Some(Arc::clone(&socket)));
        Ok(socket)
    }
}

/// How loud a failure to send is, as in nginx: what happens to peers is no alert.
fn blame(error: &io::Error) -> LogLevel {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected
        | Kind::TimedOut
        | Kind::NetworkDown
        | Kind::NetworkUnreachable
        | Kind::HostUnreachable => LogLevel::Error,
        _ => LogLevel::Alert,
    }
}

fn connect(server: &ListenAddr) -> io::Result<Socket> {
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

    fn sink(files: &LogFiles, server: ListenAddr, nohostname: bool) -> SyslogSink {
        let tag = "nginx".into();
        let parameters = Syslog { server, facility: 23, severity: 6, tag, nohostname };
        SyslogSink::new(&parameters, files)
    }

    fn received(len: usize, buffer: &[u8]) -> String {
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    #[test]
    fn a_datagram_begins_with_priority_time_host_and_tag() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = ListenAddr::Ip(server.local_addr().unwrap());
        let files = LogFiles::new().unwrap();
        sink(&files, address, false).send(6, b"hello");
        let mut buffer = [0; 512];
        let text = received(server.recv(&mut buffer).unwrap(), &buffer);
        let host = wssgate_sys::process::host_name();
        assert!(text.starts_with("<190>"), "{text}");
        assert!(text.ends_with(&format!(" {host} nginx: hello")), "{text}");
        assert!(files.losses().is_empty());
    }

    #[test]
    fn a_server_that_appears_later_is_found_and_the_gap_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let files = LogFiles::new().unwrap();
        let sink = sink(&files, ListenAddr::Unix(path.clone()), true);
        sink.send(3, b"lost");
        let place = format!("unix:{}", path.display());
        let failure = format!(
            "connect() failed (2: No such file or directory) while logging to syslog, server: {place}"
        );
        assert_eq!(files.losses(), [(LogLevel::Alert, failure)]);
        let server = UnixDatagram::bind(&path).unwrap();
        sink.send(3, b"seen");
        let mut buffer = [0; 512];
        let text = received(server.recv(&mut buffer).unwrap(), &buffer);
        assert!(text.starts_with("<187>") && text.ends_with(" nginx: seen"), "{text}");
        let gap = format!("1 lines to syslog server {place} were lost");
        assert_eq!(files.losses(), [(LogLevel::Error, gap)]);
    }

    #[test]
    fn a_server_that_does_not_read_costs_lines_and_not_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _server = UnixDatagram::bind(&path).unwrap();
        let files = LogFiles::new().unwrap();
        let sink = sink(&files, ListenAddr::Unix(path), true);
        let mut told = Vec::new();
        while told.is_empty() {
            sink.send(6, &[b'x'; 1000]);
            told = files.losses();
        }
        let (level, text) = &told[0];
        assert_eq!(*level, LogLevel::Error);
        assert!(text.starts_with("send() failed (11: "), "{text}");
    }
}

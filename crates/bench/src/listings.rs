//! Listings of live tunnels over the admin socket, ten a second.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::stats::Latencies;

/// From the beginning of one to that of the next.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// All tunnels fit, and are sorted.
const REQUEST: &[u8] =
    b"GET /v1/tunnels?client=127.0.0.0/8&sort=idle HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A thread that asks.
pub(crate) struct Lister {
    end: Sender<()>,
    thread: JoinHandle<io::Result<Latencies>>,
}

impl Lister {
    pub(crate) fn begin(socket: &Path) -> Self {
        let (end, ended) = mpsc::channel();
        let socket = PathBuf::from(socket);
        let thread = thread::spawn(move || {
            let mut latencies = Latencies::default();
            loop {
                let begin = Instant::now();
                ask(&socket)?;
                latencies.add(begin.elapsed());
                match ended.recv_timeout(INTERVAL.saturating_sub(begin.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(latencies),
                }
            }
        });
        Self { end, thread }
    }

    /// Asks no more; how long each answer took.
    pub(crate) fn end(self) -> io::Result<Latencies> {
        drop(self.end);
        self.thread.join().map_err(|_| io::Error::other("the thread that lists panicked"))?
    }
}

fn ask(socket: &Path) -> io::Result<()> {
    let mut connection = UnixStream::connect(socket)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(REQUEST)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let is_page = answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"tunnels\":[{");
    match is_page {
        true => Ok(()),
        false => Err(io::Error::other(format!("no listing: {answer:.200}"))),
    }
}

//! What becomes of connections for which there is no descriptor left.
//!
//! nginx rests when `accept` fails so, for half a second (`accept_mutex_delay`) and then again: whoever
//! connects waits in the backlog, unanswered, until somebody else has left or his own patience ends, and
//! to a balancer the server looks slow rather than full. Here each worker keeps one descriptor in reserve.
//! It is given up for the client that has waited longest, who is told 503 and goes, and is taken back. So
//! clients hear at once that they should come later or try elsewhere, the backlog stays short for when
//! there is room, and open connections notice nothing.
//!
//! There is one such client at a time. [`PACE`], [`PATIENCE`] and [`READS`] bound how often, how long and
//! how much, so that a flood of them costs a worker next to nothing.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;
use wssgate_sys::eventfd::EventFd;

use crate::front::connection::read_once;
use crate::listen::Stream;
use crate::peers::{Call, Resource, Shortages};

/// How long a worker waits behind a refusal, of which it makes at most 200 a second, and for its
/// descriptor if that is gone.
pub(super) const PACE: Duration = Duration::from_millis(5);

/// How long a client is waited for, to send its request and to close.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often is read what a client sends.
const READS: usize = 32;

/// Without a body it is right for every method.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Temporarily Unavailable\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";

/// A shortage is over when there was none for so long.
const CALM: Duration = Duration::from_secs(1);

/// What a worker has in reserve for a shortage of descriptors, and what it has told of such times.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Locked by the listener that gives it up, until it has it back.
    pub(super) spare: Mutex<Spare>,
    pub(super) dearth: Dearth,
}

impl Reserve {
    /// With its descriptor, if there is one.
    pub(super) fn new() -> Self {
        let mut spare = Spare::default();
        spare.take_back();
        Self { spare: Mutex::new(spare), dearth: Dearth::default() }
    }

    /// Makes good what could not be taken back when it should have been.
    pub(super) fn replenish(&self) {
        if let Ok(mut spare) = self.spare.try_lock() {
            spare.take_back();
        }
    }
}

/// The descriptor in reserve. Any open file would do; this one needs no path.
#[derive(Debug, Default)]
pub(super) struct Spare(Option<EventFd>);

impl Spare {
    /// Leaves one more descriptor for whoever is first to take it.
    pub(super) fn give_up(&mut self) {
        self.0 = None;
    }

    /// Whether it is here.
    pub(super) fn take_back(&mut self) -> bool {
        if self.0.is_none() {
            self.0 = EventFd::new().ok();
        }
        self.0.is_some()
    }
}

/// Whether there is a descriptor besides.
pub(super) fn is_room() -> bool {
    EventFd::new().is_ok()
}

/// A time of want as the log tells it: when it begins, now and then while it lasts, and when it is over.
#[derive(Debug, Default)]
pub(super) struct Dearth {
    shortages: Shortages,
    /// When something was short, until that is over.
    last: Cell<Option<Instant>>,
    refused: Cell<u64>,
}

impl Dearth {
    /// What is to be told of a failure for want of `resource`.
    pub(super) fn on_shortage(
        &self,
        resource: Resource,
        error: &io::Error,
        now: Instant,
    ) -> Option<String> {
        self.last.set(Some(now));
        let untold = self.shortages.note(resource, now)?;
        let (call, errno) = (Call::Accept.name(), crate::errno_text(error));
        Some(format!("{call} failed ({errno}): {}{untold}", resource.advice()))
    }

    pub(super) fn on_refusal(&self) {
        self.refused.set(self.refused.get() + 1);
    }

    /// What is to be told when a connection could be accepted.
    pub(super) fn on_accepted(&self, now: Instant) -> Option<String> {
        // At the limit each end of a connection lets one in, and the next one is refused.
        if now.saturating_duration_since(self.last.get()?) < CALM {
            return None;
        }
        self.last.set(None);
        Some(match self.refused.take() {
            0 => "accepting again".to_owned(),
            refused => format!("accepting again, after {refused} connections were refused"),
        })
    }
}

/// Answers a client that cannot be served, and waits for it to close. A socket that is closed with
/// input unread resets the connection, and the reset may destroy the answer before the client has
/// read it (RFC 9112 §9.6).
pub(super) async fn refuse(mut stream: Stream) {
    // Clients that go on or never begin have had their chance.
    let _ = timeout(PATIENCE, answer(&mut stream)).await;
}

async fn answer(stream: &mut Stream) -> io::Result<()> {
    // Before its request a client may not understand an answer.
    let mut read = read_once(stream).await?;
    let has_no_body = read.starts_with(b"GET ");
    // There is room for it: nothing was written before.
    stream.try_write(REFUSAL)?;
    stream.shutdown_write()?;
    for _ in 0..READS {
        // As WebSockets begin: nothing will follow, so that the client's way back need not be waited for.
        if has_no_body && read.ends_with(b"\r\n\r\n") {
            break;
        }
        read = read_once(stream).await?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    #[test]
    fn a_time_of_want_is_told_when_it_begins_now_and_then_and_when_it_is_over() {
        let (dearth, began) = (Dearth::default(), Instant::now());
        let error = io::Error::from_raw_os_error(24);
        assert_eq!(dearth.on_accepted(began), None);
        let mut told = Vec::new();
        // Each tenth of a second a descriptor is free for a moment.
        for tenth in 0..=105 {
            let now = began + Duration::from_millis(tenth * 100);
            told.extend(dearth.on_shortage(Resource::Descriptors, &error, now));
            dearth.on_refusal();
            told.extend(dearth.on_accepted(now + Duration::from_millis(50)));
        }
        told.extend(dearth.on_accepted(began + Duration::from_secs(12)));
        told.extend(dearth.on_accepted(began + Duration::from_secs(13)));
        let short = "accept4() failed (24: Too many open files): out of file descriptors; raise \
                     worker_rlimit_nofile or the open file limit of the process";
        assert_eq!(
            told,
            [
                short,
                &format!("{short}; 99 similar messages suppressed"),
                "accepting again, after 106 connections were refused"
            ]
        );
    }

    /// What a client that sends `parts` and then reads gets, while it keeps its end open.
    fn refused(parts: &'static [&'static [u8]]) -> Vec<u8> {
        let (mut client, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let client = thread::spawn(move || {
            parts.iter().for_each(|part| client.write_all(part).unwrap());
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(ours).unwrap();
            refuse(Stream::Unix(stream)).await;
        });
        client.join().unwrap()
    }

    #[test]
    fn a_refusal_waits_for_the_request_and_ends_without_one() {
        const HEAD: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(refused(&[HEAD, b"hello"]), REFUSAL);
        assert_eq!(refused(&[b"GET / HTTP/1.1\r\n", b"\r\n"]), REFUSAL);
        assert_eq!(refused(&[]), b"");
    }
}

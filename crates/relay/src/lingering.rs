//! Sockets of tunnels that are over, read on for a while.
//!
//! Who closes a socket above bytes that nobody has read sends a reset, and a reset destroys what the peer has
//! not read yet: the alert that tells it why, or a Close. So our direction is ended first, and what the peer
//! still sends is thrown away until it ends as well, or its time is over.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use slab::Slab;
use wssgate_sys::socket::{self, Received};

/// How long a peer has to read what we said last, and to end.
const LINGER_MS: u64 = 2_000;

/// How much is thrown away; a peer that sends without end may have its reset.
const MOST_BYTES: usize = 1 << 20;

/// How many sockets are kept; with more of them the oldest are closed.
const MOST_SOCKETS: usize = 4096;

/// The sockets.
#[derive(Debug, Default)]
pub(crate) struct Lingering {
    sockets: Slab<Socket>,
    /// When they are closed and their keys, in that order; some have ended before.
    due: VecDeque<(u64, usize)>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    until_ms: u64,
    /// How much may still come.
    left: usize,
}

impl Lingering {
    /// Takes a socket whose sending direction was ended, if its peer has not ended by now. `watch` is given it
    /// with its key and says whether events of it will come.
    pub(crate) fn take(
        &mut self,
        fd: OwnedFd,
        now_ms: u64,
        watch: impl FnOnce(BorrowedFd<'_>, usize) -> bool,
    ) {
        let until_ms = now_ms + LINGER_MS;
        let mut socket = Socket { fd, until_ms, left: MOST_BYTES };
        if !socket.discard() {
            return;
        }
        // Before the key is known, since a place that gets free is the next one that is taken.
        while self.sockets.len() >= MOST_SOCKETS
            && let Some((until_ms, key)) = self.due.pop_front()
        {
            self.close(key, until_ms);
        }
        if !watch(socket.fd.as_fd(), self.sockets.vacant_key()) {
            return;
        }
        let key = self.sockets.insert(socket);
        self.due.push_back((until_ms, key));
    }

    /// Something has come, or the end.
    pub(crate) fn on_event(&mut self, key: usize) {
        if self.sockets.get_mut(key).is_some_and(|socket| !socket.discard()) {
            self.sockets.remove(key);
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.due.front().map(|&(until_ms, _)| until_ms)
    }

    /// Closes those whose time is over.
    pub(crate) fn on_time(&mut self, now_ms: u64) {
        while let Some((until_ms, key)) = self.due.pop_front_if(|due| due.0 <= now_ms) {
            self.close(key, until_ms);
        }
        if self.sockets.is_empty() {
            *self = Self::default();
        }
    }

    /// Closes the socket that was taken with this end. Its key may be another one's by now.
    fn close(&mut self, key: usize, until_ms: u64) {
        if self.sockets.get(key).is_some_and(|socket| socket.until_ms == until_ms) {
            self.sockets.remove(key);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
    }
}

impl Socket {
    /// Throws away what is there; says whether more may come.
    fn discard(&mut self) -> bool {
        let mut discarded = [0; 8 * 1024];
        while self.left > 0 {
            match socket::recv(self.fd.as_fd(), &mut discarded) {
                Ok(Received::Bytes(len)) => self.left = self.left.saturating_sub(len),
                Ok(Received::Blocked) => return true,
                Ok(Received::End) | Err(_) => return false,
            }
        }
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn there_are_no_more_than_the_most_also_when_those_that_are_due_have_ended() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut lingering = Lingering::default();
        let take = |lingering: &mut Lingering| {
            let fd = ours.try_clone().unwrap().into();
            lingering.take(fd, 0, |_, _| true);
        };
        (0..MOST_SOCKETS).for_each(|_| take(&mut lingering));
        // The first three end before their time, and others come in their places.
        (0..3).for_each(|key| drop(lingering.sockets.remove(key)));
        (0..10).for_each(|_| take(&mut lingering));
        assert_eq!(lingering.len(), MOST_SOCKETS);
    }

    #[test]
    fn events_come_with_the_key_of_their_socket() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut lingering = Lingering::default();
        let mut watched = Vec::new();
        for _ in 0..MOST_SOCKETS + 3 {
            let fd = ours.try_clone().unwrap().into();
            lingering.take(fd, 0, |_, key| {
                watched.push(key);
                true
            });
        }
        let last: Vec<_> = watched[MOST_SOCKETS..].to_vec();
        let due: Vec<_> = lingering.due.iter().rev().take(3).rev().map(|due| due.1).collect();
        assert_eq!(last, due);
    }
}

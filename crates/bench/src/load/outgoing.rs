//! Writes what the kernel takes and keeps the rest until there is room.

use std::io;
use std::os::fd::BorrowedFd;

use wssgate_sys::batch::Outcome;
use wssgate_sys::socket::{Sent, send};

use super::GROUP;
use super::message::SHORT;

/// Bytes that the kernel has not taken yet. What is kept is at most a few messages.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    at: usize,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes `bytes` in their order, short ones with the next delivery of `outbox`.
    pub(super) fn post(
        &mut self,
        outbox: &mut Outbox,
        token: u64,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
    ) -> io::Result<()> {
        // What waits in the outbox is not overtaken.
        if self.is_empty() && (bytes.len() <= SHORT || outbox.last() == Some(token)) {
            outbox.push(token, bytes);
            return Ok(());
        }
        self.send(socket, bytes)
    }

    /// Keeps what the kernel did not take of posted bytes.
    pub(super) fn on_delivered(&mut self, bytes: &[u8], outcome: Outcome) -> io::Result<()> {
        let taken = match outcome.sent()? {
            Sent::Bytes(n) => n,
            Sent::Blocked => 0,
        };
        self.bytes.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Writes `bytes`, now or behind what waits already.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.is_empty() { write(socket, bytes)? } else { 0 };
        self.bytes.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.at += write(socket, &self.bytes[self.at..])?;
        if self.at == self.bytes.len() {
            *self = Self::default();
        }
        Ok(())
    }
}

/// What many sockets are to send, so that it can enter the kernel together.
///
/// A socket has at most one piece in it; what it posts next has to follow at once and joins that.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Whose the pieces are, and where each ends.
    posts: Vec<(u64, usize)>,
}

impl Outbox {
    /// Whether it is time to deliver.
    pub(super) fn is_full(&self) -> bool {
        self.posts.len() >= GROUP
    }

    /// All pieces with their tokens.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let begins = std::iter::once(0).chain(self.posts.iter().map(|&(_, end)| end));
        let posts = begins.zip(&self.posts);
        posts.map(|(begin, &(token, end))| (token, &self.bytes[begin..end]))
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.posts.clear();
    }

    /// Forgets the piece of a socket that ends just after it posted.
    pub(super) fn forget_last(&mut self, token: u64) {
        self.posts.pop_if(|&mut (last, _)| last == token);
        self.bytes.truncate(self.posts.last().map_or(0, |&(_, end)| end));
    }

    fn last(&self) -> Option<u64> {
        self.posts.last().map(|&(token, _)| token)
    }

    fn push(&mut self, token: u64, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let end = self.bytes.len();
        match self.posts.last_mut() {
            Some((last, last_end)) if *last == token => *last_end = end,
            _ => {
                debug_assert!(self.posts.iter().all(|&(earlier, _)| earlier != token));
                self.posts.push((token, end));
            }
        }
    }
}

fn write(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < bytes.len() {
        match send(socket, &bytes[at..])? {
            Sent::Bytes(n) => at += n,
            Sent::Blocked => break,
        }
    }
    Ok(at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use wssgate_sys::batch::Batch;

    use super::*;

    #[test]
    fn what_does_not_fit_follows_in_order() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        let mut out = Outgoing::default();
        out.send(near.as_fd(), &bytes).unwrap();
        out.send(near.as_fd(), b"end").unwrap();
        assert!(!out.is_empty());
        let mut seen = Vec::new();
        let mut piece = vec![0; 1 << 16];
        while seen.len() < bytes.len() + 3 {
            let n = far.read(&mut piece).unwrap();
            seen.extend_from_slice(&piece[..n]);
            out.flush(near.as_fd()).unwrap();
        }
        assert!(out.is_empty() && seen.starts_with(&bytes) && seen.ends_with(b"end"));
    }

    fn posted(outbox: &Outbox) -> Vec<(u64, Vec<u8>)> {
        outbox.pieces().map(|(token, bytes)| (token, bytes.to_vec())).collect()
    }

    #[test]
    fn what_is_posted_in_turn_is_one_piece_and_is_not_overtaken() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (mut outbox, mut one, mut other) =
            (Outbox::default(), Outgoing::default(), Outgoing::default());
        let long = vec![7; SHORT + 1];
        one.post(&mut outbox, 1, near.as_fd(), b"a").unwrap();
        other.post(&mut outbox, 2, near.as_fd(), b"b").unwrap();
        other.post(&mut outbox, 2, near.as_fd(), &long).unwrap();
        let behind = [&b"b"[..], &long].concat();
        assert_eq!(posted(&outbox), [(1, b"a".to_vec()), (2, behind)]);
        outbox.forget_last(1);
        outbox.forget_last(2);
        assert_eq!(posted(&outbox), [(1, b"a".to_vec())]);
        outbox.clear();
        assert!(posted(&outbox).is_empty());
        one.post(&mut outbox, 1, near.as_fd(), &long).unwrap();
        assert!(posted(&outbox).is_empty());
        let mut seen = vec![0; long.len()];
        far.read_exact(&mut seen).unwrap();
        assert_eq!(seen, long);
    }

    #[test]
    fn what_a_delivery_leaves_over_follows() {
        let pairs: Vec<_> = (0..6).map(|_| UnixStream::pair().unwrap()).collect();
        for mut batch in [Some(Batch::one_by_one()), Batch::new(8).ok()].into_iter().flatten() {
            let mut outs: Vec<_> = pairs.iter().map(|_| Outgoing::default()).collect();
            let mut outbox = Outbox::default();
            // Every second one takes nothing any more.
            for (near, _) in pairs.iter().step_by(2) {
                while let Sent::Bytes(_) = send(near.as_fd(), &[0; 4096]).unwrap() {}
            }
            for (token, (out, (near, _))) in (0..).zip(outs.iter_mut().zip(&pairs)) {
                out.post(&mut outbox, token, near.as_fd(), b"hello").unwrap();
            }
            let calls = outbox.pieces();
            let calls = calls.map(|(token, bytes)| (pairs[token as usize].0.as_fd(), bytes));
            for ((token, bytes), &outcome) in outbox.pieces().zip(batch.send(calls)) {
                outs[token as usize].on_delivered(bytes, outcome).unwrap();
            }
            let blocked: Vec<_> = outs.iter().map(|out| !out.is_empty()).collect();
            assert_eq!(blocked, [true, false, true, false, true, false]);
        }
    }
}

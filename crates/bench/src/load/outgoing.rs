//! Writes what the kernel takes and keeps the rest until there is room.

use std::io;
use std::os::fd::BorrowedFd;

use wssgate_sys::socket::{Sent, send};

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
}

//! A client's connection between the end of rustls and the relay.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use wssgate_records::{AES_GCM_RECORDS, MAX_CONTROL, Records, Role, sealed_len};

use super::Detached;

/// How much is sealed at once, and how much of it may wait for the socket.
const AT_ONCE: usize = 16 * 1024;

/// A connection whose keys were taken before the last answer, so that what that says is true: it is still
/// sealed here, and nothing is read any more.
pub struct Keyed<S> {
    rest: Detached<S>,
    records: Records,
}

impl<S> Keyed<S> {
    /// Goes on with a client's connection.
    pub fn new(detached: Detached<S>) -> Self {
        let records = Records::new(&detached.keys, Role::Client, AES_GCM_RECORDS);
        Self { rest: detached, records }
    }

    /// All that is needed to go on, with the keys as they are by now.
    pub fn into_detached(mut self) -> Detached<S> {
        *self.rest.keys = self.records.keys();
        self.rest
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        &self.rest.socket
    }
}

impl<S: AsyncWrite + Unpin> Keyed<S> {
    /// Seals some of these bytes; says how many were taken.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // What rustls had still to say goes along.
        if self.rest.unsent.len() > AT_ONCE {
            ready!(self.poll_flush(cx))?;
        }
        let mut plain = Vec::new();
        for part in parts {
            plain.extend_from_slice(&part[..part.len().min(AT_ONCE - plain.len())]);
        }
        let mut wire = vec![0; sealed_len(plain.len())];
        let used = self.records.seal(&plain, &mut wire).map_err(io::Error::other)?;
        self.rest.unsent.extend_from_slice(&wire[..used]);
        // What the socket does not take now waits for the flush.
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(plain.len()))
    }

    /// Sends what was sealed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Detached { socket, unsent, .. } = &mut self.rest;
        while !unsent.is_empty() {
            let taken = ready!(Pin::new(&mut *socket).poll_write(cx, unsent))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            unsent.drain(..taken);
        }
        *unsent = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Ends our direction in good order.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut alert = [0; MAX_CONTROL];
        // Said once, however often this is polled.
        let used = self.records.close_notify(&mut alert);
        self.rest.unsent.extend_from_slice(&alert[..used]);
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.rest.socket).poll_shutdown(cx)
    }
}

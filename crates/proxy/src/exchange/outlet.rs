//! Where an answer goes: a client over HTTP/1, or whoever made a subrequest.
//!
//! A [`Responder`](super::Responder) says what is answered and how fast; an outlet knows how that
//! looks on its wire. It is given pieces and writes them when it is polled, so that time limits and
//! rates stay with the responder.

use std::task::{Context, Poll};

use bytes::Bytes;
use wssgate_http1::Fields;

use super::{Reply, Request};

/// The client can no longer be written to: it has gone, or took nothing for `send_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The connection is closed or broken.
    #[error("client closed connection")]
    Closed,
    /// Nothing could be written for too long.
    #[error("client timed out")]
    Timeout,
}

/// How the body of an answer is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, whatever is given (HEAD, 204, 304).
    Empty,
    /// As it comes: of this length, or until the connection closes.
    Plain(Option<u64>),
    /// Its end is marked, and trailers may stand there.
    Delimited,
}

/// Whether a client is still there; subrequests ask for the client of their parent.
pub trait Presence {
    /// Ready when the client goes away. What it sends meanwhile is kept for later.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// The way of one answer: a head, pieces of a body, the end.
pub trait Outlet {
    /// Takes the fields of an interim answer of status 103 (RFC 8297), before the head. Who has no
    /// client that would understand it drops it.
    fn early_hints(&mut self, _: &Fields) {}

    /// Takes the head and decides how the body is carried.
    ///
    /// Notes in the request what variables can see of the head (the fields that it has, its length
    /// on the wire) and whether the connection can be kept.
    fn head(&mut self, request: &mut Request, reply: Reply) -> Framing;

    /// Takes a piece of the body, which is not empty. Not called while [`Outlet::is_full`].
    fn body(&mut self, piece: Bytes);

    /// Takes the end of a [`Framing::Delimited`] body.
    fn end(&mut self, trailers: &Fields);

    /// Whether what was taken must be written before more is given.
    fn is_full(&self) -> bool;

    /// Whether all that was taken was written.
    fn is_written(&self) -> bool;

    /// Writes some of what was taken, at most `most` bytes; ready when some of it went, with its
    /// length on the wire.
    fn poll_write(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<usize, Gone>>;

    /// Hands on what was written and is held back by a layer beneath.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// The client took nothing for `send_timeout`.
    fn on_timeout(&mut self);
}

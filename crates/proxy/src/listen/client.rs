//! An accepted connection as HTTP sees it: plain, or within TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::Stream;
use crate::tls::keys::{self, DetachError, Keyed, LAST_RECORDS, RecordBoundary};

/// A client's socket, with TLS or without.
pub enum ClientStream {
    /// Plain.
    Plain(Stream),
    /// After a TLS handshake.
    Tls(Box<TlsStream<RecordBoundary<Stream>>>),
    /// After a TLS handshake, its keys taken.
    Keyed(Box<Keyed<Stream>>),
}

impl ClientStream {
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            // What comes is for who goes on with the keys.
            Self::Keyed(_) => Poll::Pending,
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.records_left() <= LAST_RECORDS {
            return Poll::Ready(Err(keys::worn()));
        }
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, parts),
            Self::Keyed(keyed) => keyed.poll_write(cx, parts),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Keyed(keyed) => keyed.poll_flush(cx),
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Keyed(keyed) => keyed.poll_shutdown(cx),
        }
    }
}

impl ClientStream {
    /// The socket beneath.
    pub(crate) fn socket(&self) -> &Stream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0.inner(),
            Self::Keyed(keyed) => keyed.socket(),
        }
    }

    /// How many records TLS will still seal.
    pub(crate) fn records_left(&self) -> u64 {
        match self {
            Self::Tls(stream) => {
                let (boundary, tls) = stream.get_ref();
                keys::records_left(tls.negotiated_cipher_suite(), boundary.sealed())
            }
            Self::Plain(_) | Self::Keyed(_) => u64::MAX,
        }
    }

    /// The same with its keys taken, if there is TLS; and why nobody can go on with them, if nobody can.
    ///
    /// # Errors
    /// When the connection is lost with that.
    pub(crate) fn take_keys(self) -> Result<(Self, Option<DetachError>), DetachError> {
        match self {
            Self::Tls(stream) => {
                let mut detached = keys::detach(stream)?;
                let flaw = detached.flaw.take();
                Ok((Self::Keyed(Box::new(Keyed::new(detached))), flaw))
            }
            taken => Ok((taken, None)),
        }
    }
}

//! The body of a request on an HTTP/1 connection (RFC 9112 §6).

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use wssgate_http1::{BodyDecoder, Decoded, Framing};

use super::client::Client;
use crate::exchange::body::{BodyError, BodySource, Length};
use crate::exchange::request::Traffic;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The body that follows a head.
pub(crate) struct WireBody {
    client: Rc<Client>,
    traffic: Rc<Traffic>,
    framing: Framing,
    decoder: BodyDecoder,
    /// What is to be sent yet before the client goes on; empty if it does not wait.
    interim: &'static [u8],
    discarded: bool,
}

impl WireBody {
    /// The body that follows a head on `client`.
    pub(crate) fn new(
        client: Rc<Client>,
        traffic: Rc<Traffic>,
        framing: Framing,
        expects_continue: bool,
    ) -> Self {
        let interim = if expects_continue { CONTINUE } else { b"" };
        Self { client, traffic, framing, decoder: framing.into(), interim, discarded: false }
    }

    /// Takes the next piece from what was read.
    fn decode(&mut self) -> Result<Decoded, BodyError> {
        let decoder = &mut self.decoder;
        let (decoded, consumed) = self.client.with_input(|input| {
            let before = input.len();
            (decoder.decode(input), before - input.len())
        });
        if !self.discarded {
            self.traffic.add_body(consumed);
        }
        decoded.map_err(BodyError::Invalid)
    }

    /// Joins chunks that arrived together: what was one packet stays one.
    fn with_following(&mut self, first: Bytes) -> Result<Bytes, BodyError> {
        if self.framing != Framing::Chunked {
            return Ok(first);
        }
        let mut joined = BytesMut::new();
        while let Decoded::Data(data) = self.decode()? {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&data);
        }
        Ok(if joined.is_empty() { first } else { joined.freeze() })
    }
}

impl BodySource for WireBody {
    fn length(&self) -> Length {
        match self.framing {
            // A request does not end with its connection (RFC 9112 §6.3).
            Framing::None | Framing::UntilClose => Length::None,
            Framing::Length(len) => Length::Known(len),
            Framing::Chunked => Length::Unknown,
        }
    }

    fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    fn arrived(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.decode()? {
            Decoded::Data(data) => self.with_following(data).map(Some),
            Decoded::End { .. } | Decoded::NeedMore => Ok(None),
        }
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(match ready!(self.client.poll_read(cx)) {
            Ok(0) | Err(_) => Err(BodyError::Closed),
            Ok(_) => Ok(()),
        })
    }

    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if self.interim.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.interim.is_empty() {
            match ready!(self.client.poll_write(cx, self.interim, &[])) {
                Ok(written) => {
                    self.traffic.add_sent(written);
                    self.interim = &self.interim[written..];
                }
                Err(_) => {
                    self.interim = b"";
                    return Poll::Ready(Err(BodyError::Closed));
                }
            }
        }
        self.client.poll_flush(cx).map_err(|_| BodyError::Closed)
    }

    fn forget_continue(&mut self) {
        self.interim = b"";
    }

    fn discard(&mut self) {
        self.discarded = true;
    }
}

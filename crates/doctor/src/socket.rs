//! The client's end of a WebSocket, as far as a diagnosis needs one: it sends pings and messages, answers
//! pings, and says how the end came.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use wssgate_ws::{CloseCode, ControlFrame, FrameHeader, Opcode, close, mask};

use crate::exchange::{random, read_more};
use crate::wire::{Wire, ended_by};

/// How long the closing handshake may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Something that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A ping, which has been answered.
    Ping,
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// A frame of a message with so many bytes of payload.
    Data(u64),
}

/// Why nothing more comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The deadline has come; the WebSocket is still there.
    Late,
    /// A Close came.
    Close(Option<CloseCode>, String),
    /// The connection was ended without a Close, in this way.
    Cut(String),
    /// What came is no WebSocket.
    Broken(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("silence"),
            Self::Close(None, _) => f.write_str("a Close without a code"),
            Self::Close(Some(code), reason) if reason.is_empty() => {
                write!(f, "a Close with code {code}")
            }
            Self::Close(Some(code), reason) => write!(f, "a Close with code {code}, \"{reason}\""),
            Self::Cut(how) => write!(f, "{how} without a Close"),
            Self::Broken(why) => write!(f, "an invalid frame ({why})"),
        }
    }
}

/// A WebSocket.
pub(crate) struct Socket {
    wire: Wire,
    input: BytesMut,
    is_tls: bool,
    /// The frame of a message whose payload is passing: its length, and how much is to come.
    passing: Option<(u64, u64)>,
}

impl Socket {
    /// Behind a valid 101; `input` is what came after it.
    pub(crate) fn new(wire: Wire, input: BytesMut, is_tls: bool) -> Self {
        Self { wire, input, is_tls, passing: None }
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// When nothing came until `deadline`, or nothing more will.
    pub(crate) fn next(&mut self, deadline: Instant) -> Result<Event, Ended> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(event);
            }
            self.wire.set_deadline(deadline);
            match read_more(&mut self.wire, &mut self.input) {
                Ok(len) if len > 0 => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(Ended::Late),
                read => return Err(Ended::Cut(ended_by(&read, self.is_tls))),
            }
        }
    }

    /// Takes an event from what has come.
    fn take(&mut self) -> Result<Option<Event>, Ended> {
        if let Some((len, left)) = self.passing {
            let here =
                usize::try_from(left).map_or(self.input.len(), |left| left.min(self.input.len()));
            let _ = self.input.split_to(here);
            let left = left - here as u64;
            self.passing = (left > 0).then_some((len, left));
            return Ok((left == 0).then_some(Event::Data(len)));
        }
        let broken = |why: &dyn fmt::Display| Ended::Broken(why.to_string());
        let Some((header, rest)) =
            FrameHeader::decode(&self.input).map_err(|error| broken(&error))?
        else {
            return Ok(None);
        };
        if header.mask.is_some() {
            return Err(broken(&"a frame from the server is masked"));
        }
        let header_len = self.input.len() - rest.len();
        if !header.opcode.is_control() {
            let _ = self.input.split_to(header_len);
            self.passing = Some((header.payload_len, header.payload_len));
            return self.take();
        }
        // At most 125 bytes, as decoding has checked.
        let len = header.payload_len as usize;
        if rest.len() < len {
            return Ok(None);
        }
        let payload = rest[..len].to_vec();
        let _ = self.input.split_to(header_len + len);
        match header.opcode {
            Opcode::Ping => {
                self.send(&ControlFrame::new(Opcode::Pong, &payload, Some(random())))?;
                Ok(Some(Event::Ping))
            }
            Opcode::Pong => Ok(Some(Event::Pong(payload))),
            _ => Err(self.closed(&payload)),
        }
    }

    /// Answers a Close.
    fn closed(&mut self, payload: &[u8]) -> Ended {
        // Who does not take the answer has gone.
        let _ = self.send(&ControlFrame::new(Opcode::Close, payload, Some(random())));
        match close::decode(payload) {
            Ok(Some((code, reason))) => Ended::Close(Some(code), reason.to_owned()),
            Ok(None) => Ended::Close(None, String::new()),
            Err(error) => Ended::Broken(error.to_string()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let sent = self.wire.write_all(bytes).and_then(|()| self.wire.flush());
        sent.map_err(|error: io::Error| match error.kind() {
            ErrorKind::TimedOut => Ended::Late,
            _ => Ended::Cut(ended_by(&Err(error), self.is_tls)),
        })
    }

    /// Sends a ping, within the deadline of what is waited for next.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub(crate) fn ping(&mut self, payload: &[u8], deadline: Instant) -> Result<(), Ended> {
        self.wire.set_deadline(deadline);
        self.send(&ControlFrame::new(Opcode::Ping, payload, Some(random())))
    }

    /// Sends a ping and waits for its pong; gives the round trip and what came in between.
    ///
    /// # Errors
    /// When there is none within `timeout`.
    pub(crate) fn round_trip(
        &mut self,
        timeout: Duration,
    ) -> Result<(Duration, Vec<Event>), Ended> {
        let begun = Instant::now();
        let payload: [u8; 8] = random();
        self.ping(&payload, begun + timeout)?;
        let mut between = Vec::new();
        loop {
            match self.next(begun + timeout)? {
                Event::Pong(other) if other == payload => return Ok((begun.elapsed(), between)),
                // A server that never stops sending ends at the deadline, and counts till then.
                event if between.len() < MAX_BETWEEN => between.push(event),
                _ => {}
            }
            if begun.elapsed() > timeout {
                return Err(Ended::Late);
            }
        }
    }

    /// Sends a text message of so many bytes, in one frame.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub(crate) fn message(&mut self, len: u64, deadline: Instant) -> Result<(), Ended> {
        let key = random();
        let mut header = FrameHeader::whole(Opcode::Text, len);
        header.mask = Some(key);
        self.wire.set_deadline(deadline);
        self.send(&header.encode())?;
        let mut piece = [b'x'; PIECE];
        mask::apply(key, 0, &mut piece);
        let mut left = len;
        while left > 0 {
            // A multiple of the mask's length, so that each piece begins where the mask does.
            let here = left.min(PIECE as u64);
            self.send(&piece[..here as usize])?;
            left -= here;
        }
        Ok(())
    }

    /// Ends it in good order, as far as the server takes part.
    pub(crate) fn close(mut self) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        self.wire.set_deadline(deadline);
        if self.send(&close::encode(CloseCode::NORMAL, "", Some(random()))).is_ok() {
            while Instant::now() < deadline && self.next(deadline).is_ok() {}
        }
    }
}

/// So many events between a ping and its pong are remembered.
const MAX_BETWEEN: usize = 1000;

/// How much of a message is sent at once, in bytes.
const PIECE: usize = 16 << 10;

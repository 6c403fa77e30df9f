//! A check that opens a WebSocket: the handshake, a ping that is answered, a Close that is answered.

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::timeout;
use wssgate_http1::ResponseHead;
use wssgate_ws::CloseCode;
use wssgate_ws::frame::{ControlFrame, FrameError, FrameHeader, MAX_CONTROL_LEN, Opcode};
use wssgate_ws::handshake::{Oddity, Offer, Switched, encode_key};

use super::super::attempt::SENDING;
use super::super::destination::Destination;
use super::super::request::{BodyFraming, UpstreamRequest};
use super::{Failed, Probe};
use crate::exchange::Request;
use crate::peers::{Connection, Failure, READ_SIZE};

/// Fields that the handshake says itself, whatever lines of the configuration say.
const OWN: [&str; 7] = [
    "Upgrade",
    "Connection",
    "Content-Length",
    "Transfer-Encoding",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Extensions",
];

impl Probe<'_> {
    /// # Errors
    /// When the peer does not behave as a WebSocket server does.
    pub(super) async fn websocket(
        &self,
        request: &Request,
        destination: &Destination<'_>,
        subprotocol: Option<&[u8]>,
    ) -> Result<(), Failed> {
        let (head, offer) = self.handshake(request, destination, subprotocol)?;
        let connection = self.connect(request, destination).await?;
        self.doing.set(SENDING);
        connection.write(head, self.settings().send_timeout).await?;
        let head = self.head(&connection).await?;
        self.doing.set("checking WebSocket handshake");
        switches(&head, &offer, subprotocol).map_err(Failed::Because)?;
        self.doing.set("waiting for WebSocket pong");
        let question: [u8; 8] = random();
        self.say(&connection, Opcode::Ping, &question).await?;
        self.hear(&connection, |frame| match frame.opcode {
            Opcode::Pong if frame.payload[..] == question => Ok(true),
            Opcode::Close => Err("upstream closed the WebSocket".to_owned()),
            _ => Ok(false),
        })
        .await?;
        self.doing.set("waiting for WebSocket close");
        self.say(&connection, Opcode::Close, &CloseCode::NORMAL.0.to_be_bytes()).await?;
        self.hear(&connection, |frame| Ok(frame.opcode == Opcode::Close)).await
    }

    /// The head of the request, and what it offers.
    fn handshake(
        &self,
        request: &Request,
        destination: &Destination<'_>,
        subprotocol: Option<&[u8]>,
    ) -> Result<(Bytes, Offer), Failed> {
        let key = encode_key(random());
        let is_own = |name: &[u8]| {
            OWN.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
                || subprotocol.is_some() && name.eq_ignore_ascii_case(b"Sec-WebSocket-Protocol")
        };
        let lines = self.settings().set_headers.iter().filter(|(name, _)| !is_own(name));
        let mut set: Vec<_> = lines.map(|(name, value)| (&name[..], request.text(value))).collect();
        set.extend([
            (&b"Upgrade"[..], Bytes::from_static(b"websocket")),
            (b"Connection", Bytes::from_static(b"Upgrade")),
            (b"Sec-WebSocket-Version", Bytes::from_static(b"13")),
            (b"Sec-WebSocket-Key", Bytes::copy_from_slice(&key)),
        ]);
        let subprotocol = subprotocol.map(Bytes::copy_from_slice);
        set.extend(subprotocol.map(|name| (&b"Sec-WebSocket-Protocol"[..], name)));
        let head = UpstreamRequest {
            method: b"GET",
            target: &self.check.model().uri,
            http11: true,
            proxy_host: &destination.host,
            set: &set,
            upgrade: None,
            framing: BodyFraming::None,
            client: None,
            instead: &[],
        };
        let fields = head.fields();
        let offer = Offer::from_request(fields.iter().map(|(name, value)| (*name, &value[..])));
        let text = head.write(&fields).map_err(|error| {
            Failed::Ours(wssgate_config::model::LogLevel::Error, error.to_string())
        })?;
        Ok((text, offer.unwrap_or_default()))
    }

    async fn say(
        &self,
        connection: &Connection,
        opcode: Opcode,
        payload: &[u8],
    ) -> Result<(), Failed> {
        let frame = ControlFrame::new(opcode, payload, Some(random()));
        let frame = Bytes::copy_from_slice(&frame);
        Ok(connection.write(frame, self.settings().send_timeout).await?)
    }

    /// Reads frames until `done` says so, within `proxy_read_timeout`. Pings are answered, and what is no
    /// control frame is passed over: many servers greet.
    async fn hear(
        &self,
        connection: &Connection,
        mut done: impl FnMut(&Control) -> Result<bool, String>,
    ) -> Result<(), Failed> {
        let hearing = async {
            let mut frames = Frames::default();
            loop {
                let next = connection.with_input(|input| frames.next(input));
                match next.map_err(|error| {
                    Failed::Because(format!("upstream sent an invalid WebSocket frame: {error}"))
                })? {
                    Some(frame) if done(&frame).map_err(Failed::Because)? => return Ok(()),
                    Some(Control { opcode: Opcode::Ping, payload }) => {
                        self.say(connection, Opcode::Pong, &payload).await?;
                    }
                    Some(_) => {}
                    None if connection.fill(READ_SIZE).await? == 0 => {
                        return Err(Failure::Closed.into());
                    }
                    None => {}
                }
            }
        };
        timeout(self.settings().read_timeout, hearing).await.unwrap_or(Err(Failure::Timeout.into()))
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without it a mask can be guessed, and so can a question: neither protects anything here.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}

/// Whether a response is the switch that was asked for (RFC 6455 §4.1).
///
/// # Errors
/// Why not.
fn switches(head: &ResponseHead, offer: &Offer, subprotocol: Option<&[u8]>) -> Result<(), String> {
    if head.status() != 101 {
        return Err(format!(
            "upstream answered a WebSocket handshake with status {}",
            head.status()
        ));
    }
    let invalid = |why: String| Err(format!("upstream sent an invalid 101 response: {why}"));
    match offer.check_answer(head.fields().iter()) {
        Err(error) => invalid(error.to_string()),
        Ok(Switched::Other) => invalid("it does not switch to WebSocket".to_owned()),
        // What a proxy leaves to its client is for us to judge here.
        Ok(Switched::WebSocket { oddities, .. }) if !oddities.is_empty() => {
            invalid(oddities.iter().map(Oddity::to_string).collect::<Vec<_>>().join("; "))
        }
        Ok(Switched::WebSocket { subprotocol: selected, .. }) => match subprotocol {
            Some(wanted) if selected.as_deref() != Some(wanted) => {
                invalid(format!("it does not select the subprotocol \"{}\"", wanted.escape_ascii()))
            }
            _ => Ok(()),
        },
    }
}

/// A control frame.
#[derive(Debug, PartialEq, Eq)]
struct Control {
    opcode: Opcode,
    payload: Vec<u8>,
}

/// The control frames among what a server sends.
#[derive(Debug, Default)]
struct Frames {
    /// What is left of the payload of a data frame.
    passed_over: u64,
}

impl Frames {
    /// Takes the next control frame, and what stands before it. `Ok(None)` asks for more bytes.
    ///
    /// # Errors
    /// When the protocol is broken.
    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Control>, FrameError> {
        loop {
            let skipped = input.len().min(usize::try_from(self.passed_over).unwrap_or(usize::MAX));
            input.advance(skipped);
            self.passed_over -= skipped as u64;
            if self.passed_over > 0 {
                return Ok(None);
            }
            let Some((header, rest)) = FrameHeader::decode(input)? else { return Ok(None) };
            if header.mask.is_some() {
                return Err(FrameError::Masked);
            }
            if header.rsv != 0 {
                // No extension was offered.
                return Err(FrameError::ReservedBits(header.rsv));
            }
            let header_len = input.len() - rest.len();
            if !header.opcode.is_control() {
                self.passed_over = header.payload_len;
                input.advance(header_len);
                continue;
            }
            let len = usize::try_from(header.payload_len).unwrap_or(MAX_CONTROL_LEN);
            let Some(payload) = rest.get(..len) else { return Ok(None) };
            let control = Control { opcode: header.opcode, payload: payload.to_vec() };
            input.advance(header_len + len);
            return Ok(Some(control));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What is found when the bytes come one by one.
    fn found(bytes: &[u8]) -> Result<Vec<(Opcode, Vec<u8>)>, FrameError> {
        let (mut frames, mut input, mut found) = (Frames::default(), BytesMut::new(), Vec::new());
        for byte in bytes {
            input.extend_from_slice(&[*byte]);
            while let Some(Control { opcode, payload }) = frames.next(&mut input)? {
                found.push((opcode, payload));
            }
        }
        Ok(found)
    }

    #[test]
    fn control_frames_are_found_between_and_within_messages() {
        let long = [&b"\x82\x7e\x01\x00"[..], &[0x8a; 256]].concat();
        for (bytes, expected) in [
            (&b"\x8a\x02hi"[..], vec![(Opcode::Pong, b"hi".to_vec())]),
            (
                b"\x81\x05hello\x01\x01a\x89\x00\x80\x01b\x88\x02\x03\xe8",
                vec![(Opcode::Ping, vec![]), (Opcode::Close, vec![3, 0xe8])],
            ),
            (&[&long[..], b"\x8a\x00"].concat(), vec![(Opcode::Pong, vec![])]),
        ] {
            assert_eq!(found(bytes), Ok(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn a_server_that_breaks_the_protocol_is_not_well() {
        for (bytes, expected) in [
            (&b"\x8a\x80\x01\x02\x03\x04"[..], FrameError::Masked),
            (b"\xca\x00", FrameError::ReservedBits(0b100)),
            (b"\x83\x00", FrameError::ReservedOpcode(3)),
            (b"HTTP", FrameError::FragmentedControl),
        ] {
            assert_eq!(found(bytes), Err(expected), "{bytes:x?}");
        }
    }
}

//! One WebSocket of the demo's app server.

use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wssgate_ws::{CloseCode, ControlFrame, FrameHeader, Opcode, close, mask};

use super::room::Room;

/// The longest message that is taken, in bytes.
const MAX_MESSAGE: u64 = 64 * 1024;

/// Talks until either side closes. `input` holds bytes read behind the handshake.
pub(super) async fn run(
    mut stream: TcpStream,
    mut input: BytesMut,
    hello: Value,
    room: Rc<Room>,
) -> io::Result<()> {
    stream.write_all(&text(&hello.to_string())).await?;
    let (number, mut told) = room.join();
    let outcome = loop {
        match take_frame(&mut input) {
            Ok(Some(frame)) => match on_frame(frame, number, &room) {
                Reply::Nothing => continue,
                Reply::Send(bytes) => match stream.write_all(&bytes).await {
                    Ok(()) => continue,
                    Err(error) => break Err(error),
                },
                Reply::Close(bytes) => break stream.write_all(&bytes).await,
            },
            Ok(None) => {}
            Err(code) => break stream.write_all(&close::encode(code, "", None)).await,
        }
        tokio::select! {
            read = stream.read_buf(&mut input) => match read {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            },
            Some(message) = told.recv() => {
                if let Err(error) = stream.write_all(&text(&message)).await {
                    break Err(error);
                }
            }
        }
    };
    room.leave(number);
    outcome?;
    stream.shutdown().await
}

enum Reply {
    Nothing,
    Send(Vec<u8>),
    Close(Vec<u8>),
}

fn on_frame((opcode, payload): (Opcode, Vec<u8>), number: u64, room: &Room) -> Reply {
    match opcode {
        Opcode::Close => {
            let code = close::decode(&payload).ok().flatten();
            // A Close without a code is answered like an ordinary one; 1005 must not be sent (RFC
            // 6455 §7.4.1).
            let code = code.map_or(CloseCode(1000), |(code, _)| code);
            Reply::Close(close::encode(code, "", None).to_vec())
        }
        Opcode::Ping => Reply::Send(ControlFrame::new(Opcode::Pong, &payload, None).to_vec()),
        Opcode::Text => on_message(&payload, number, room),
        _ => Reply::Nothing,
    }
}

fn on_message(payload: &[u8], number: u64, room: &Room) -> Reply {
    let Ok(message) = serde_json::from_slice::<Value>(payload) else { return Reply::Nothing };
    match message["type"].as_str() {
        Some("echo") => Reply::Send(text(&message.to_string())),
        Some("chat") => {
            let said = message["text"].as_str().unwrap_or_default();
            room.tell(&json!({"type": "chat", "from": number, "text": said}));
            Reply::Nothing
        }
        Some("push") => {
            room.tell(&json!({"type": "push", "text": "the push that you requested"}));
            Reply::Nothing
        }
        _ => Reply::Nothing,
    }
}

/// Takes one whole frame from the front of `input`; the page sends no fragments.
fn take_frame(input: &mut BytesMut) -> Result<Option<(Opcode, Vec<u8>)>, CloseCode> {
    let Some((header, rest)) = FrameHeader::decode(input).map_err(|_| CloseCode(1002))? else {
        return Ok(None);
    };
    let (Some(key), true) = (header.mask, header.fin) else { return Err(CloseCode(1002)) };
    if header.payload_len > MAX_MESSAGE {
        return Err(CloseCode(1009));
    }
    let header_len = input.len() - rest.len();
    // Not cut off: no more than MAX_MESSAGE.
    let payload_len = header.payload_len as usize;
    if rest.len() < payload_len {
        return Ok(None);
    }
    input.advance(header_len);
    let mut payload = input.split_to(payload_len).to_vec();
    mask::apply(key, 0, &mut payload);
    Ok(Some((header.opcode, payload)))
}

fn text(message: &str) -> Vec<u8> {
    let header = FrameHeader::whole(Opcode::Text, message.len() as u64).encode();
    [&header, message.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut header = FrameHeader::whole(opcode, payload.len() as u64);
        header.mask = Some([1, 2, 3, 4]);
        let mut masked = payload.to_vec();
        mask::apply([1, 2, 3, 4], 0, &mut masked);
        [&header.encode(), &masked[..]].concat()
    }

    #[test]
    fn a_frame_is_taken_once_it_is_whole() {
        let whole = frame(Opcode::Text, b"hello");
        for cut in 0..whole.len() {
            assert_eq!(take_frame(&mut BytesMut::from(&whole[..cut])), Ok(None), "{cut}");
        }
        let mut input = BytesMut::from(&[&whole[..], b"rest"].concat()[..]);
        assert_eq!(take_frame(&mut input), Ok(Some((Opcode::Text, b"hello".to_vec()))));
        assert_eq!(&input[..], b"rest");
    }

    #[test]
    fn an_unmasked_or_huge_frame_is_refused() {
        let unmasked = FrameHeader::whole(Opcode::Text, 1).encode();
        assert_eq!(take_frame(&mut BytesMut::from(&unmasked[..])), Err(CloseCode(1002)));
        let mut huge = FrameHeader::whole(Opcode::Text, MAX_MESSAGE + 1);
        huge.mask = Some([0; 4]);
        assert_eq!(take_frame(&mut BytesMut::from(&huge.encode()[..])), Err(CloseCode(1009)));
    }

    #[test]
    fn an_echo_comes_back_and_a_chat_goes_to_everybody() {
        let room = Room::default();
        let (number, mut heard) = room.join();
        let echo = br#"{"id":7,"type":"echo"}"#;
        let Reply::Send(bytes) = on_frame((Opcode::Text, echo.to_vec()), number, &room) else {
            panic!("no answer");
        };
        assert!(bytes.ends_with(echo));
        let chat = br#"{"type":"chat","text":"hi"}"#;
        assert!(matches!(on_frame((Opcode::Text, chat.to_vec()), number, &room), Reply::Nothing));
        let _people = heard.try_recv();
        let said: Value = serde_json::from_str(&heard.try_recv().expect("told")).expect("JSON");
        assert_eq!(said, json!({"type": "chat", "from": 1, "text": "hi"}));
    }
}

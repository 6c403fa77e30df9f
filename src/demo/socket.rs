//! One WebSocket of the demo's app server.

use std::io;

use bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, channel};
use wssgate_ws::{CloseCode, ControlFrame, FrameHeader, Opcode, close, mask};

use super::room::Room;

/// The longest message that is taken, in bytes.
const MAX_MESSAGE: u64 = 64 * 1024;

/// Talks until either side closes. `input` holds bytes read behind the handshake; whom `hello` greets joins
/// the room, anybody else hears only echoes.
pub(super) async fn run(
    mut stream: TcpStream,
    input: BytesMut,
    hello: Option<Value>,
    room: &Room,
) -> io::Result<()> {
    let outcome = match hello {
        Some(mut hello) => {
            let (number, told) = room.join();
            hello["you"] = json!(number);
            let outcome = greet_and_talk(&mut stream, input, &hello, (number, room), told).await;
            room.leave(number);
            outcome
        }
        // Without a sender, nothing is told.
        None => talk(&mut stream, input, None, channel(1).1).await,
    };
    outcome?;
    stream.shutdown().await
}

async fn greet_and_talk(
    stream: &mut TcpStream,
    input: BytesMut,
    hello: &Value,
    seat: (u64, &Room),
    told: Receiver<String>,
) -> io::Result<()> {
    stream.write_all(&text(&hello.to_string())).await?;
    talk(stream, input, Some(seat), told).await
}

async fn talk(
    stream: &mut TcpStream,
    mut input: BytesMut,
    seat: Option<(u64, &Room)>,
    mut told: Receiver<String>,
) -> io::Result<()> {
    loop {
        let reply = match take_frame(&mut input) {
            Ok(Some(frame)) => on_frame(frame, seat),
            Ok(None) => {
                tokio::select! {
                    read = stream.read_buf(&mut input) => match read? {
                        0 => return Ok(()),
                        _ => Reply::Nothing,
                    },
                    Some(message) = told.recv() => Reply::Send(text(&message)),
                }
            }
            Err(code) => Reply::Close(close::encode(code, "", None).to_vec()),
        };
        match reply {
            Reply::Nothing => {}
            Reply::Send(bytes) => stream.write_all(&bytes).await?,
            Reply::Close(bytes) => return stream.write_all(&bytes).await,
        }
    }
}

enum Reply {
    Nothing,
    Send(Vec<u8>),
    Close(Vec<u8>),
}

fn on_frame((opcode, payload): (Opcode, Vec<u8>), seat: Option<(u64, &Room)>) -> Reply {
    match opcode {
        Opcode::Close => {
            let code = close::decode(&payload).ok().flatten();
            // A Close without a code is answered like an ordinary one; 1005 must not be sent (RFC
            // 6455 §7.4.1).
            let code = code.map_or(CloseCode(1000), |(code, _)| code);
            Reply::Close(close::encode(code, "", None).to_vec())
        }
        Opcode::Ping => Reply::Send(ControlFrame::new(Opcode::Pong, &payload, None).to_vec()),
        Opcode::Text | Opcode::Binary => match seat {
            Some((number, room)) => on_message(&payload, number, room),
            None => Reply::Send(message(opcode, &payload)),
        },
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
            let said = "the push that you requested";
            Reply::Send(text(&json!({"type": "push", "to": "you", "text": said}).to_string()))
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

fn text(said: &str) -> Vec<u8> {
    message(Opcode::Text, said.as_bytes())
}

fn message(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::whole(opcode, payload.len() as u64).encode();
    [&header, payload].concat()
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

    fn said(reply: Reply) -> Value {
        let Reply::Send(bytes) = reply else { panic!("no answer") };
        let (_, payload) = FrameHeader::decode(&bytes).expect("valid").expect("whole");
        serde_json::from_slice(payload).expect("JSON")
    }

    #[test]
    fn an_echo_and_a_push_go_to_who_asked_and_a_chat_to_everybody() {
        let room = Room::default();
        let (number, mut heard) = room.join();
        let (_, mut other) = room.join();
        let people = [heard.try_recv(), heard.try_recv(), other.try_recv()];
        assert!(people.iter().all(Result::is_ok));
        let send = |message: &Value| {
            on_frame((Opcode::Text, message.to_string().into_bytes()), Some((number, &room)))
        };
        let echo = json!({"type": "echo", "id": 7});
        assert_eq!(said(send(&echo)), echo);
        let push = said(send(&json!({"type": "push"})));
        assert_eq!((&push["type"], &push["to"]), (&json!("push"), &json!("you")));
        assert!(heard.try_recv().is_err() && other.try_recv().is_err());
        assert!(matches!(send(&json!({"type": "chat", "text": "hi"})), Reply::Nothing));
        for member in [&mut heard, &mut other] {
            let told: Value =
                serde_json::from_str(&member.try_recv().expect("told")).expect("JSON");
            assert_eq!(told, json!({"type": "chat", "from": 1, "text": "hi"}));
        }
    }

    #[test]
    fn outside_the_room_each_message_comes_back_as_it_is() {
        for opcode in [Opcode::Text, Opcode::Binary] {
            let reply = on_frame((opcode, b"{\"type\":\"chat\"}".to_vec()), None);
            let Reply::Send(bytes) = reply else { panic!("no answer") };
            let (header, payload) = FrameHeader::decode(&bytes).expect("valid").expect("whole");
            assert_eq!((header.opcode, payload), (opcode, &b"{\"type\":\"chat\"}"[..]));
        }
    }
}

//! Frames over a socket or TLS, without blocking.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use wssgate_testkit::Frame;
use wssgate_ws::{FrameHeader, Side, accept_key, frame::must_mask, handshake, mask};

/// The longest head of a handshake.
const MAX_HEAD_LEN: usize = 8 << 10;

/// A socket or TLS over one.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for S {}

/// Reads heads and frames of the other end.
pub(crate) struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    from: Side,
    unread: Vec<u8>,
    /// How much of `unread` has been taken.
    taken: usize,
}

/// Writes frames of this end.
pub(crate) struct Writer {
    stream: WriteHalf<Box<dyn Stream>>,
    side: Side,
}

/// Both halves for the end that is `side`.
pub(crate) fn split(stream: Box<dyn Stream>, side: Side) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    let reader = Reader { stream: read, from: side.other(), unread: Vec::new(), taken: 0 };
    (reader, Writer { stream: write, side })
}

/// The client's part of a handshake.
pub(crate) async fn ask(stream: Box<dyn Stream>, path: &str) -> io::Result<(Reader, Writer)> {
    let (mut reader, mut writer) = split(stream, Side::Client);
    let key = handshake::encode_key([b'k'; 16]);
    writer.bytes(&handshake::encode_request(path, "localhost", &key, &[])).await?;
    let head = reader.head().await?;
    match head.starts_with("HTTP/1.1 101 ") {
        true => Ok((reader, writer)),
        false => Err(io::Error::other(head)),
    }
}

/// A client's request that waits for its 101.
pub(crate) struct Asked {
    pub(crate) path: String,
    key: String,
    reader: Reader,
    writer: Writer,
}

/// The server's part of a handshake, up to the answer.
pub(crate) async fn hear(stream: Box<dyn Stream>) -> io::Result<Asked> {
    let (mut reader, writer) = split(stream, Side::Server);
    let head = reader.head().await?;
    let path = head.split(' ').nth(1);
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let (Some(path), Some(key)) = (path, key) else { return Err(io::Error::other(head)) };
    Ok(Asked { path: path.to_owned(), key: key.to_owned(), reader, writer })
}

impl Asked {
    /// Answers with a 101.
    pub(crate) async fn grant(mut self) -> io::Result<(Reader, Writer)> {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(self.key.as_bytes()).escape_ascii()
        );
        self.writer.bytes(answer.as_bytes()).await?;
        Ok((self.reader, self.writer))
    }
}

impl Reader {
    /// Reads up to the empty line that ends a head, and returns it with that.
    pub(crate) async fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                self.taken = at + 4;
                return Ok(String::from_utf8_lossy(&self.unread[..self.taken]).into_owned());
            }
            if self.unread.len() > MAX_HEAD_LEN || !self.more().await? {
                return Err(io::Error::other(format!("no head: {:?}", self.unread.escape_ascii())));
            }
        }
    }

    /// The next frame with its payload unmasked; `None` at the end of the stream.
    pub(crate) async fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let unread = &self.unread[self.taken..];
            if let Some((header, rest)) = FrameHeader::decode(unread).map_err(io::Error::other)? {
                if header.mask.is_some() != must_mask(self.from) {
                    return Err(io::Error::other(format!("wrong mask: {header:?}")));
                }
                let len = usize::try_from(header.payload_len).expect("frames of tests are small");
                if let Some(payload) = rest.get(..len) {
                    let mut payload = payload.to_vec();
                    mask::apply(header.mask.unwrap_or_default(), 0, &mut payload);
                    self.taken += unread.len() - rest.len() + len;
                    let FrameHeader { fin, rsv, opcode, .. } = header;
                    return Ok(Some(Frame { fin, rsv, opcode, payload }));
                }
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Whether what is left of a frame that never ended is the beginning of `frame`.
    pub(crate) fn rest_begins(&self, frame: Option<&Frame>) -> bool {
        let rest = &self.unread[self.taken..];
        let Some(frame) = frame else { return rest.is_empty() };
        match FrameHeader::decode(rest) {
            Ok(Some((header, payload))) => {
                let mut payload = payload.to_vec();
                mask::apply(header.mask.unwrap_or_default(), 0, &mut payload);
                (header.fin, header.rsv, header.opcode) == (frame.fin, frame.rsv, frame.opcode)
                    && header.payload_len == frame.payload.len() as u64
                    && frame.payload.starts_with(&payload)
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Reads once; false at the end of the stream.
    async fn more(&mut self) -> io::Result<bool> {
        self.unread.drain(..self.taken);
        self.taken = 0;
        self.unread.reserve(16 << 10);
        Ok(self.stream.read_buf(&mut self.unread).await? > 0)
    }
}

impl Writer {
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// A frame, or the first `len` bytes of it.
    pub(crate) async fn frame(&mut self, frame: &Frame, len: Option<usize>) -> io::Result<()> {
        // Any mask; this one changes with the frame.
        let key = (frame.payload.len() as u32 ^ 0x5a37_fa21).to_be_bytes();
        let bytes = frame.encode(must_mask(self.side).then_some(key));
        self.bytes(&bytes[..len.unwrap_or(bytes.len()).min(bytes.len())]).await
    }

    /// FIN, over TLS behind a close_notify.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

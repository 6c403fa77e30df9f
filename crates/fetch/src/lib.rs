//! What requests of our own to other servers have in common, over HTTP/1.1 (RFC 9112): a connection to one of
//! several addresses, and an answer that is read as a whole, with bounds. The words for people are the caller's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wssgate_http1::{BodyDecoder, Decoded, Method, ResponseHead, ResponseParser};

/// Why none of the addresses could be connected to: what was wrong with the last.
#[derive(Debug)]
pub enum Unconnected {
    /// There is none.
    NoAddress,
    /// The system says no.
    Failed(SocketAddr, io::Error),
    /// Nothing has come in time.
    Late(SocketAddr),
}

/// Connects to the first address that answers, each within `patience`.
///
/// # Errors
/// When none does.
pub async fn connect(
    addresses: &[SocketAddr],
    patience: Duration,
) -> Result<TcpStream, Unconnected> {
    let mut why = Unconnected::NoAddress;
    for &address in addresses {
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = Unconnected::Failed(address, error),
            Err(_) => why = Unconnected::Late(address),
        }
    }
    Err(why)
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ended before the head had.
    #[error("the connection was closed before an answer")]
    NoHead,
    /// It ended before the body had.
    #[error("the answer is incomplete")]
    Incomplete,
    /// The body is longer than it may be.
    #[error("the answer is too long")]
    TooLong,
    /// The head is no HTTP, or longer than it may be.
    #[error("{0}")]
    Head(String),
    /// The body is not framed as HTTP frames it.
    #[error("{0}")]
    Body(String),
}

/// Reads one answer from a connection that carries nothing else.
#[derive(Debug)]
pub struct AnswerReader<S> {
    stream: S,
    input: BytesMut,
}

impl<S: AsyncRead + Unpin> AnswerReader<S> {
    /// Reads from here.
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    /// Reads the head, of `max` bytes at most; interim answers in front of it are passed over.
    ///
    /// # Errors
    /// When there is none.
    pub async fn head(&mut self, max: usize) -> Result<ResponseHead, AnswerError> {
        let mut parser = ResponseParser::new();
        loop {
            let parsed = parser.parse(&mut self.input, max);
            match parsed.map_err(|error| AnswerError::Head(error.to_string()))? {
                Some(head) if head.is_interim() => parser = ResponseParser::new(),
                Some(head) => return Ok(head),
                None if self.more().await? => {}
                None => return Err(AnswerError::NoHead),
            }
        }
    }

    /// Reads the body behind that head, of `max` bytes at most; `asked` is what was asked for.
    ///
    /// # Errors
    /// When it is not whole, or too long.
    pub async fn body(
        &mut self,
        head: &ResponseHead,
        asked: Method,
        max: usize,
    ) -> Result<Vec<u8>, AnswerError> {
        let framing = head.framing(asked).map_err(|error| AnswerError::Body(error.to_string()))?;
        let (mut decoder, mut body) = (BodyDecoder::from(framing), Vec::new());
        loop {
            let decoded = decoder.decode(&mut self.input);
            match decoded.map_err(|error| AnswerError::Body(error.to_string()))? {
                Decoded::End { .. } => return Ok(body),
                Decoded::Data(data) if body.len() + data.len() > max => {
                    return Err(AnswerError::TooLong);
                }
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::NeedMore if self.more().await? => {}
                Decoded::NeedMore if matches!(decoder, BodyDecoder::UntilClose) => return Ok(body),
                Decoded::NeedMore => return Err(AnswerError::Incomplete),
            }
        }
    }

    /// Reads on; says whether there was anything.
    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.input).await? > 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn read(wire: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let mut reader = AnswerReader::new(wire);
        let told = |error: AnswerError| error.to_string();
        let head = reader.head(100).await.map_err(told)?;
        let body = reader.body(&head, Method::Get, 5).await.map_err(told)?;
        Ok((head.status(), body))
    }

    #[tokio::test]
    async fn an_answer_is_read_as_a_whole_or_said_to_be_none() {
        for (wire, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Ok((200, "ab"))),
            ("HTTP/1.1 404 No\r\n\r\nabc", Ok((404, "abc"))),
            (
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
                Ok((200, "a")),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
                Ok((200, "ab")),
            ),
            ("HTTP/1.1 200 OK\r\n", Err("the connection was closed before an answer")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Err("the answer is incomplete")),
            ("HTTP/1.1 200 OK\r\n\r\nabcdef", Err("the answer is too long")),
        ] {
            let expected = expected
                .map(|(status, body): (u16, &str)| (status, body.as_bytes().to_vec()))
                .map_err(str::to_owned);
            assert_eq!(read(wire.as_bytes()).await, expected, "{wire:?}");
        }
        assert!(read(b"SMTP\r\n\r\n").await.is_err());
    }
}

//! Handshakes of clients and servers that are tasks: heads are read and WebSockets granted.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wssgate_ws::accept_key;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// The longest head that is read.
const MAX_HEAD: usize = 8192;

/// A listening socket of a server, also at a port whose connections have just been closed.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Grants the WebSocket that is asked for.
pub(crate) async fn grant(stream: &mut TcpStream) -> io::Result<()> {
    let head = read_head(stream).await?;
    let key = field(&head, "sec-websocket-key").ok_or(io::ErrorKind::InvalidData)?;
    let accept = accept_key(key.as_bytes());
    let accept = std::str::from_utf8(accept.as_ref()).map_err(io::Error::other)?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await
}

/// Reads a head, and perhaps a part of what follows it; nothing does in a handshake that succeeds.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    String::from_utf8(head).map_err(io::Error::other)
}

/// The value of the first field of this name.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

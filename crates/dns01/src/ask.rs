//! One message to a server, and what comes back.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use wssgate_dns::update::Reply;

/// How long a server may think about one message.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a message is sent on UDP before TCP is tried.
const TRIES: usize = 2;

/// The largest datagram that is read.
const MAX_DATAGRAM: usize = 65_535;

/// Asks until there is a reply: on UDP, then on TCP. It is given with its bytes.
///
/// # Errors
/// When the server cannot be reached, or answers neither in time.
pub(crate) async fn ask(server: SocketAddr, message: &[u8]) -> io::Result<(Reply, Vec<u8>)> {
    for _ in 0..TRIES {
        match timeout(PATIENCE, by_udp(server, message)).await {
            Ok(Ok((reply, _))) if reply.truncated => break,
            Ok(Ok(reply)) => return Ok(reply),
            // Nobody listens there for UDP; somebody may for TCP.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => break,
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    let silence = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    timeout(PATIENCE, by_tcp(server, message)).await.map_err(silence)?
}

async fn by_udp(server: SocketAddr, message: &[u8]) -> io::Result<(Reply, Vec<u8>)> {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        let len = socket.recv(&mut datagram).await?;
        // Anything else may have been sent by anybody.
        if let Some(reply) = read(&datagram[..len], message) {
            datagram.truncate(len);
            return Ok((reply, datagram));
        }
    }
}

async fn by_tcp(server: SocketAddr, message: &[u8]) -> io::Result<(Reply, Vec<u8>)> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await?;
    let len = stream.read_u16().await?;
    let mut bytes = vec![0; len.into()];
    stream.read_exact(&mut bytes).await?;
    let reply = read(&bytes, message).ok_or_else(|| io::Error::other("invalid DNS response"))?;
    Ok((reply, bytes))
}

fn read(bytes: &[u8], message: &[u8]) -> Option<Reply> {
    let (id, _) = message.split_first_chunk()?;
    Reply::decode(bytes, u16::from_be_bytes(*id)).ok()
}

/// The number of a new message.
pub(crate) fn id() -> u16 {
    let mut bytes = [0; 2];
    // Without random numbers whoever sees our questions could answer them anyway.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}

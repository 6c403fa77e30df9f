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

/// A reply with its bytes.
type Replied = (Reply, Vec<u8>);

/// Asks until there is a reply: on UDP, then on TCP.
///
/// # Errors
/// When the server cannot be reached, or answers neither in time.
pub(crate) async fn ask(server: SocketAddr, message: &[u8]) -> io::Result<Replied> {
    ask_until(server, message, |_| true).await
}

/// The same, but on UDP, where anybody may send one, a reply that is not believed ends nothing (RFC 8945 §5.3).
/// It is what there is to show when no better one comes in time, and none on TCP either.
pub(crate) async fn ask_until(
    server: SocketAddr,
    message: &[u8],
    is_believed: impl Fn(&[u8]) -> bool,
) -> io::Result<Replied> {
    let mut doubtful = None;
    for _ in 0..TRIES {
        let asked = by_udp(server, message, &is_believed, &mut doubtful);
        match timeout(PATIENCE, asked).await {
            Ok(Ok((reply, _))) if reply.truncated => break,
            Ok(Ok(reply)) => return Ok(reply),
            // Nobody listens there for UDP; somebody may for TCP.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => break,
            Ok(Err(error)) => return Err(error),
            // The server does not answer better the next time.
            Err(_) if doubtful.is_some() => break,
            Err(_) => {}
        }
    }
    let silence = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let replied = timeout(PATIENCE, by_tcp(server, message)).await.map_err(silence);
    match (replied.and_then(|replied| replied), doubtful) {
        (Err(_), Some(doubtful)) => Ok(doubtful),
        (replied, _) => replied,
    }
}

async fn by_udp(
    server: SocketAddr,
    message: &[u8],
    is_believed: impl Fn(&[u8]) -> bool,
    doubtful: &mut Option<Replied>,
) -> io::Result<Replied> {
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
        let Some(reply) = read(&datagram[..len], message) else { continue };
        let bytes = datagram[..len].to_vec();
        if reply.truncated || is_believed(&bytes) {
            return Ok((reply, bytes));
        }
        *doubtful = Some((reply, bytes));
    }
}

async fn by_tcp(server: SocketAddr, message: &[u8]) -> io::Result<Replied> {
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

//! Taking the traffic keys out of a finished handshake.
//!
//! rustls shakes hands; once a switch has happened only keys, nonces and sequence numbers matter, and
//! the connection object goes. Three things make that safe:
//! - the socket stands below tokio-rustls in a [`RecordBoundary`], so that rustls never holds part of a
//!   record when it is asked for its keys;
//! - the handshake runs inside [`capture`], because KeyUpdate (RFC 8446 §4.6.3) needs the traffic
//!   secrets, which rustls tells only a [`KeyLog`] ([`SecretLog`], to be set in every config);
//! - the secrets are believed only if the extracted keys follow from them.

mod boundary;
mod keyed;
mod server_hello;

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::{fmt, future};

use rustls::{
    Connection, ConnectionCommon, ConnectionTrafficSecrets, ExtractedSecrets, KeyLog, SideData,
    SupportedCipherSuite,
};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{client, server};
use wssgate_records::{Aead, DirectionKeys, Role, Started, TlsFault, TlsKeys, TlsVersion};
use zeroize::Zeroize;

pub use boundary::RecordBoundary;
pub use keyed::Keyed;
pub use server_hello::{ServerHello, SessionId, Settled};

/// The first application traffic secrets of a TLS 1.3 connection. Wiped when dropped.
pub struct TrafficSecrets {
    client: [u8; 48],
    server: [u8; 48],
}

impl Default for TrafficSecrets {
    fn default() -> Self {
        Self { client: [0; 48], server: [0; 48] }
    }
}

impl Drop for TrafficSecrets {
    fn drop(&mut self) {
        self.client.zeroize();
        self.server.zeroize();
    }
}

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficSecrets")
    }
}

thread_local! {
    /// Where [`SecretLog`] puts what it hears, while a [`capture`] is polled on this thread.
    static CAPTURED: RefCell<Option<Box<TrafficSecrets>>> = const { RefCell::new(None) };
}

/// The [`KeyLog`] that every rustls config of ours carries (`config.key_log = Arc::new(SecretLog)`).
///
/// It writes nothing anywhere but to the [`capture`] that is being polled.
#[derive(Debug)]
pub struct SecretLog;

impl KeyLog for SecretLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        CAPTURED.with_borrow_mut(|captured| {
            let Some(secrets) = captured else { return };
            let place = match label {
                "CLIENT_TRAFFIC_SECRET_0" => &mut secrets.client,
                "SERVER_TRAFFIC_SECRET_0" => &mut secrets.server,
                _ => return,
            };
            // The length is the hash's, 32 or 48 bytes. One that fits nowhere is left out, and the
            // keys are refused later.
            if let Some(place) = place.get_mut(..secret.len()) {
                place.copy_from_slice(secret);
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

/// Runs a handshake and keeps its traffic secrets in the stream's [`RecordBoundary`].
///
/// Handshakes of one thread interleave, so secrets are collected poll by poll.
pub async fn capture<T: TlsStream>(
    handshake: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut handshake = pin!(handshake);
    let mut secrets = Some(Box::default());
    let mut stream = future::poll_fn(|cx| {
        // Only for this poll: between two polls others shake hands on this thread.
        CAPTURED.set(secrets.take());
        let poll = handshake.as_mut().poll(cx);
        secrets = CAPTURED.take();
        poll
    })
    .await?;
    if let Some(secrets) = secrets {
        stream.boundary_mut().keep(secrets);
    }
    Ok(stream)
}

/// A stream of tokio-rustls over a [`RecordBoundary`], towards a client or an upstream.
pub trait TlsStream: AsyncRead + AsyncWrite + Unpin {
    /// The socket below.
    type Socket;
    /// rustls's data of the side that we are.
    type Side: SideData;
    /// What the peer is.
    const PEER: Role;

    /// The boundary and the connection.
    fn parts_mut(
        &mut self,
    ) -> (&mut RecordBoundary<Self::Socket>, &mut ConnectionCommon<Self::Side>);

    /// The boundary.
    fn boundary_mut(&mut self) -> &mut RecordBoundary<Self::Socket> {
        self.parts_mut().0
    }

    /// Takes the stream apart.
    fn into_parts(self) -> (RecordBoundary<Self::Socket>, Connection);

    /// Our own secret first, the peer's second.
    fn ours_first(secrets: &TrafficSecrets) -> (&[u8; 48], &[u8; 48]);
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for server::TlsStream<RecordBoundary<S>> {
    type Socket = S;
    type Side = rustls::server::ServerConnectionData;
    const PEER: Role = Role::Client;

    fn parts_mut(&mut self) -> (&mut RecordBoundary<S>, &mut ConnectionCommon<Self::Side>) {
        let (boundary, connection) = self.get_mut();
        (boundary, connection)
    }

    fn into_parts(self) -> (RecordBoundary<S>, Connection) {
        let (boundary, connection) = self.into_inner();
        (boundary, connection.into())
    }

    fn ours_first(secrets: &TrafficSecrets) -> (&[u8; 48], &[u8; 48]) {
        (&secrets.server, &secrets.client)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for client::TlsStream<RecordBoundary<S>> {
    type Socket = S;
    type Side = rustls::client::ClientConnectionData;
    const PEER: Role = Role::Server;

    fn parts_mut(&mut self) -> (&mut RecordBoundary<S>, &mut ConnectionCommon<Self::Side>) {
        let (boundary, connection) = self.get_mut();
        (boundary, connection)
    }

    fn into_parts(self) -> (RecordBoundary<S>, Connection) {
        let (boundary, connection) = self.into_inner();
        (boundary, connection.into())
    }

    fn ours_first(secrets: &TrafficSecrets) -> (&[u8; 48], &[u8; 48]) {
        (&secrets.client, &secrets.server)
    }
}

/// Large, so it is handed from one to the next in its box.
impl<T: TlsStream> TlsStream for Box<T> {
    type Socket = T::Socket;
    type Side = T::Side;
    const PEER: Role = T::PEER;

    fn parts_mut(&mut self) -> (&mut RecordBoundary<T::Socket>, &mut ConnectionCommon<T::Side>) {
        (**self).parts_mut()
    }

    fn into_parts(self) -> (RecordBoundary<T::Socket>, Connection) {
        (*self).into_parts()
    }

    fn ours_first(secrets: &TrafficSecrets) -> (&[u8; 48], &[u8; 48]) {
        T::ours_first(secrets)
    }
}

/// How many more records than `sealed` rustls will seal with its key. At the limit of an AES-GCM key of TLS 1.2
/// it says close_notify by itself, and then takes all that is written and sends nothing of it. TLS 1.3
/// changes its keys in time.
pub fn records_left(suite: Option<SupportedCipherSuite>, sealed: u64) -> u64 {
    match suite {
        Some(SupportedCipherSuite::Tls12(suite)) => {
            suite.common.confidentiality_limit.saturating_sub(sealed)
        }
        _ => u64::MAX,
    }
}

/// With fewer records left nothing more is written: what one write becomes, what waits sealed (64 KiB each, in
/// the smallest records that `ssl_buffer_size` makes, 512 bytes), and an alert.
pub const LAST_RECORDS: u64 = 512;

/// With fewer left a connection serves no further request: a short answer may have so many.
pub const FEW_RECORDS: u64 = 1 << 16;

/// What writing fails with when there are no more than [`LAST_RECORDS`].
pub fn worn() -> io::Error {
    io::Error::other("TLS 1.2 key usage limit reached")
}

/// A TLS stream without rustls: the socket, the keys, and what had been read ahead.
#[derive(Debug)]
pub struct Detached<S> {
    /// The socket.
    pub socket: S,
    /// Its keys.
    pub keys: Box<TlsKeys>,
    /// Why nobody can go on with the keys for long; an answer can be sealed all the same.
    pub flaw: Option<DetachError>,
    /// Records that go before all that is sealed with the keys: what rustls had still to say.
    pub unsent: Vec<u8>,
    /// Bytes that rustls had opened and nobody had read. They follow what the caller did read.
    pub plaintext: Vec<u8>,
    /// Bytes of the wire that rustls had not seen, beginning at a record.
    pub ciphertext: Vec<u8>,
    /// The peer has sent close_notify.
    pub ended: bool,
}

/// Why a TLS stream could not be taken apart.
#[derive(Debug, Error)]
pub enum DetachError {
    /// rustls does not do what it promises.
    #[error("cannot use the TLS connection")]
    Io(#[source] io::Error),
    /// rustls does not give the keys, or not of a kind that we know.
    #[error("cannot take the keys out of the TLS connection")]
    Extract(#[source] rustls::Error),
    /// The suite is none of ours.
    #[error("the cipher suite has no AEAD that the relay knows")]
    UnknownAead,
    /// rustls holds part of a record, so its keys would not fit what follows.
    #[error("part of a TLS record is in flight")]
    PartialRecord,
    /// The handshake did not run inside [`capture`], or its config lacks [`SecretLog`], or the keys were
    /// updated too often since.
    #[error("the traffic secrets of the TLS connection are not known")]
    SecretsMissing,
    /// The peer has begun something that it must not.
    #[error("TLS error on the connection: {0}")]
    Fault(TlsFault),
}

/// Takes a TLS stream apart.
///
/// The config needs `enable_secret_extraction` and [`SecretLog`]. Do not read between the last message
/// that matters and this call: what was not read comes along.
pub fn detach<T: TlsStream>(mut stream: T) -> Result<Detached<T::Socket>, DetachError> {
    let connection = stream.parts_mut().1;
    let (plaintext, ended) = read_ahead(connection)?;
    // The sequence number must be the one behind all that was sealed.
    let mut written = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut written).map_err(DetachError::Io)?;
    }
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
        Some(rustls::ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
        _ => return Err(DetachError::UnknownAead),
    };
    let (boundary, connection) = stream.into_parts();
    let extracted = connection.dangerous_extract_secrets().map_err(DetachError::Extract)?;
    let boundary = boundary.into_parts().ok_or(DetachError::PartialRecord)?;
    let mut keys = Box::new(keys_of(version, &extracted)?);
    let flaw = complete::<T>(&mut keys, &boundary.secrets, &boundary.seen).err();
    let unsent = [boundary.late, written].concat();
    let (socket, ciphertext) = (boundary.inner, boundary.unseen);
    Ok(Detached { socket, keys, flaw, unsent, plaintext, ciphertext, ended })
}

/// Adds what the keys follow from, and what the peer has begun; `seen` is what rustls opened last.
fn complete<T: TlsStream>(
    keys: &mut TlsKeys,
    secrets: &TrafficSecrets,
    seen: &[u8],
) -> Result<(), DetachError> {
    let (ours, theirs) = T::ours_first(secrets);
    let aead = keys.aead;
    if keys.version == TlsVersion::Tls13
        && !(keys.tx.find_secret(aead, ours) && keys.rx.find_secret(aead, theirs))
    {
        return Err(DetachError::SecretsMissing);
    }
    keys.find_started(T::PEER, seen).map_err(DetachError::Fault)
}

/// What rustls has opened, and whether the peer has sent close_notify behind it.
fn read_ahead<D: SideData>(
    connection: &mut ConnectionCommon<D>,
) -> Result<(Vec<u8>, bool), DetachError> {
    let state = connection.process_new_packets().map_err(DetachError::Extract)?;
    let mut plaintext = vec![0; state.plaintext_bytes_to_read()];
    connection.reader().read_exact(&mut plaintext).map_err(DetachError::Io)?;
    // An answer to a KeyUpdate is written by rustls only before the next data; it must not get lost.
    connection.writer().write(&[]).map_err(DetachError::Io)?;
    Ok((plaintext, state.peer_has_closed()))
}

/// Keys as rustls gives them.
fn keys_of(version: TlsVersion, extracted: &ExtractedSecrets) -> Result<TlsKeys, DetachError> {
    let (aead, tx) = direction(&extracted.tx)?;
    let (rx_aead, rx) = direction(&extracted.rx)?;
    if aead != rx_aead {
        return Err(DetachError::UnknownAead);
    }
    Ok(TlsKeys { version, aead, tx, rx, started: Started::default() })
}

fn direction(
    (sequence, secrets): &(u64, ConnectionTrafficSecrets),
) -> Result<(Aead, DirectionKeys), DetachError> {
    let (aead, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Aead::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Aead::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Aead::ChaCha20Poly1305, key, iv),
        _ => return Err(DetachError::UnknownAead),
    };
    let keys = DirectionKeys::new(aead, key.as_ref(), iv.as_ref(), *sequence)
        .ok_or(DetachError::UnknownAead)?;
    Ok((aead, keys))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

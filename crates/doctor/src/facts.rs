//! What was seen in each step; the names of the fields are those of JSON.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

/// What was seen in a step.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Facts {
    /// Of the name.
    Dns(DnsFacts),
    /// Of the connections.
    Tcp(TcpFacts),
    /// Of TLS.
    Tls(Box<TlsFacts>),
    /// Of the response to the handshake.
    Handshake(HandshakeFacts),
    /// Of those between.
    Hops(HopsFacts),
    /// Of pings.
    Ping(PingFacts),
    /// Of long messages.
    Size(SizeFacts),
    /// Of silence.
    Idle(IdleFacts),
}

/// The addresses of a name.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DnsFacts {
    /// The name, or the address that was written instead.
    pub name: String,
    /// IPv4 and IPv6, in the order in which they are tried.
    pub addresses: Vec<IpAddr>,
    /// Who was asked: `system`, or the address of a DNS server; nobody about an address.
    pub asked: Option<String>,
}

/// Connections to each address.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TcpFacts {
    /// One for each address.
    pub attempts: Vec<Attempt>,
}

/// One connection.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// Where to.
    pub address: SocketAddr,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// Why there is none.
    pub error: Option<String>,
}

/// TLS.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TlsFacts {
    /// The address of all that follows.
    pub address: String,
    /// The name that was sent as SNI; none for an address.
    pub sni: Option<String>,
    /// The version, such as `TLS 1.3`.
    pub version: Option<String>,
    /// The cipher suite.
    pub cipher: Option<String>,
    /// All versions among 1.2 and 1.3 that the server speaks.
    pub versions: Vec<String>,
    /// What the server chose when offered only `http/1.1`, as browsers do for WebSockets.
    pub alpn: Option<String>,
    /// What it chose when offered `h2` as well.
    pub alpn_with_h2: Option<String>,
    /// What it does without SNI: `same certificate`, `certificate of NAME`, or what went wrong.
    pub without_sni: Option<String>,
    /// The names in the server's certificate.
    pub names: Vec<String>,
    /// Who makes the chain trusted: `public root` or `--ca`.
    pub trusted_by: Option<String>,
    /// The certificates as they were sent.
    pub chain: Vec<CertificateFacts>,
}

/// One certificate.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateFacts {
    /// Its owner.
    pub subject: String,
    /// Who has issued it.
    pub issuer: String,
    /// The kind of its key.
    pub key: String,
    /// How it was signed.
    pub signature: String,
    /// The beginning of its life (RFC 3339).
    pub from: String,
    /// The end of its life.
    pub to: String,
    /// How many days it has left; negative when it has expired.
    pub days_left: i64,
}

/// The response to the handshake.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HandshakeFacts {
    /// The `Origin` of the request.
    pub origin: Option<String>,
    /// The status of the response.
    pub status: Option<u16>,
    /// Until its head had come, in milliseconds, without TCP and TLS.
    pub response_ms: Option<f64>,
    /// The subprotocol that was chosen.
    pub subprotocol: Option<String>,
    /// The extensions that were chosen.
    pub extensions: Option<String>,
    /// The first line of the body of what is no 101.
    pub body: Option<String>,
    /// What was tried further, and what came of it.
    pub tried: Vec<String>,
}

/// Who stands between.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HopsFacts {
    /// `Server`.
    pub server: Option<String>,
    /// `Via`.
    pub via: Option<String>,
    /// `X-WebSocket-Hops`, which wssgate sends to trusted clients (`websocket_trace`).
    pub hops: Option<String>,
    /// Known services, by headers that only they send.
    pub services: Vec<String>,
    /// How much longer the response took than a round trip of TCP, in milliseconds.
    pub behind_ms: Option<f64>,
}

/// Round trips.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PingFacts {
    /// Of each ping, in milliseconds.
    pub ms: Vec<f64>,
    /// Messages that the server sent meanwhile.
    pub messages: u64,
}

/// Long messages.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SizeFacts {
    /// The longest that was received, in bytes.
    pub largest: Option<u64>,
    /// Whether messages came back.
    pub echoed: bool,
}

/// Silence.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IdleFacts {
    /// The silences that were begun.
    pub tried_seconds: Vec<f64>,
    /// The longest silence that was survived, in seconds.
    pub survived_seconds: f64,
    /// The silence after which the connection was cut, in seconds.
    pub cut_after_seconds: Option<f64>,
    /// How it was cut.
    pub cut_by: Option<String>,
    /// Pings of the server, which end a silence.
    pub pings: u64,
}

/// Milliseconds with three digits behind the point.
pub(crate) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Seconds with three digits behind the point.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

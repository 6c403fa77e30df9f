//! The variables with a fixed name.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::rand;
use bytes::{BufMut, Bytes, BytesMut};
use wssgate_config::model::ListenAddr;
use wssgate_config::variable::{Builtin, ProxyProtocolTlv};
use wssgate_http1::Version;
use wssgate_proxy_protocol::Ends;

use super::{joined, referer, tcpinfo, upstream};
use crate::clock::{self, Moment};
use crate::exchange::ending::{self, Ending};
use crate::exchange::request::{Request, address_text};
use crate::exchange::response::NGINX_VERSION;
use crate::exchange::{credentials, headers, identity, path, subprotocols, trace};

/// The value of a fixed variable.
pub(super) fn value(request: &Request, variable: Builtin) -> Option<Bytes> {
    use Builtin as B;
    let connection = &request.connection;
    match variable {
        B::Args | B::QueryString => some_text(&request.target.args.borrow()),
        B::IsArgs => flag(!request.target.args.borrow().is_empty(), "?"),
        // Empty for a path that was refused, missing when no line was understood.
        B::Uri | B::DocumentUri if request.arrival.head.is_some() => {
            Some(request.target.path.clone())
        }
        B::Uri | B::DocumentUri => some_text(&request.target.path),
        B::RequestUri => request.arrival.uri.clone(),
        B::Request => Some(request.arrival.line.clone()),
        B::RequestMethod => some_text(request.shown_method()),
        B::Host => Some(host(request)),
        B::RequestPort => {
            text(request.arrival.port.map(|port| port.to_string()).unwrap_or_default())
        }
        B::IsRequestPort => flag(request.arrival.port.is_some(), ":"),
        B::ServerName => Some(Bytes::copy_from_slice(&request.server().name)),
        B::ServerProtocol => server_protocol(request),
        B::ContentLength => content_length(request),
        B::ContentType => header(request, "content-type"),
        B::WebSocketProtocol => subprotocols::for_upstream(request),
        B::RemoteUser => credentials::basic(request).map(|credentials| credentials.user),
        B::JwtPayload => identity::token(request).map(|token| token.payload().clone()),
        B::DocumentRoot => Some(path::root(request)),
        B::RealpathRoot => path::real_root(request),
        B::RequestFilename => path::file(request, &request.target.path),
        B::RequestBody => request_body(request),
        B::RequestBodyFile => request_body_file(request),
        // What only the end knows for good: by now it is this much.
        late if ending::is_late(late) => Ending::of(request).value(late, Moment::now()),
        B::WebSocketHops => trace::hops(request),
        B::WebSocketTrace => trace::id(request),
        B::WebSocketHandshakeTime => text(seconds(request.tunnel.handshake?)),
        B::DateGmt => date(request, true),
        B::DateLocal => date(request, false),
        B::RequestLength => text(request_length(request).to_string()),
        B::Status => text(format!("{:03}", status(request))),
        B::InvalidReferer => {
            let referers = request.location().settings.valid_referers.as_ref();
            let referer = header(request, "referer");
            let valid = |referers| referer::is_valid(referers, referer.as_deref());
            flag(!referers.is_none_or(|referers| valid(referers)), "1")
        }
        B::SecureLinkExpires => request.values.link_expires.borrow().clone(),
        B::LimitConnStatus => request.limits.connections.get().map(Bytes::from),
        B::LimitReqStatus => request.limits.requests.get().map(Bytes::from),
        B::LimitRate => text(headers::limit_rate(request, request.location()).to_string()),
        B::Pipe => text(if request.arrival.pipelined { "p" } else { "." }),
        B::RequestId => Some(request_id()),
        B::RemoteAddr => text(request.client_text()),
        B::RemotePort => text(request.client.map(port).unwrap_or_default()),
        B::BinaryRemoteAddr => Some(binary_address(request.client_ip())),
        B::ServerAddr => text(local_address(&connection.local)),
        B::ServerPort => text(local_port(&connection.local)),
        B::Connection => text(connection.serial.to_string()),
        B::ConnectionRequests => text(connection.requests.get().to_string()),
        B::ConnectionsActive
        | B::ConnectionsReading
        | B::ConnectionsWaiting
        | B::ConnectionsWriting => text(connections(request, variable).to_string()),
        B::Scheme => text(if connection.is_tls() { "https" } else { "http" }),
        B::Https => flag(connection.is_tls(), "on"),
        B::Http2 | B::Http3 => Some(Bytes::new()),
        B::NginxVersion => text(NGINX_VERSION),
        B::Hostname => text(hostname()),
        B::Pid => text(std::process::id().to_string()),
        B::ProxyAddXForwardedFor => Some(forwarded_for(request)),
        B::ProxyHost => some_text(&request.upstream.host),
        B::ProxyPort => (!request.upstream.host.is_empty()).then(|| request.upstream.port.clone()),
        B::UpstreamAddr => upstream::list(request, upstream::address),
        B::UpstreamLastAddr => upstream::list_last(request),
        B::UpstreamStatus => upstream::list(request, upstream::status),
        B::UpstreamConnectTime => {
            upstream::list(request, |state| upstream::time(state.connect_time))
        }
        B::UpstreamHeaderTime => upstream::list(request, |state| upstream::time(state.header_time)),
        B::UpstreamCacheStatus => None,
        B::ProxyProtocolAddr => told(request, |ends| ends.source.ip().to_string()),
        B::ProxyProtocolPort => told(request, |ends| port(ends.source)),
        B::ProxyProtocolServerAddr => told(request, |ends| ends.destination.ip().to_string()),
        B::ProxyProtocolServerPort => told(request, |ends| port(ends.destination)),
        B::RealipRemoteAddr => text(address_text(connection.peer.map(|peer| peer.ip()))),
        B::RealipRemotePort => text(connection.peer.map(port).unwrap_or_default()),
        B::TcpinfoRcvSpace | B::TcpinfoRtt | B::TcpinfoRttvar | B::TcpinfoSndCwnd => {
            tcpinfo::value(connection, variable)
        }
        _ => {
            let now = clock::since_epoch(clock::now()).as_secs();
            connection.tls.as_ref()?.variable(variable, now.try_into().unwrap_or(i64::MAX))
        }
    }
}

/// The time in the format of the SSI command `config`.
fn date(request: &Request, gmt: bool) -> Option<Bytes> {
    const FORMAT: &str = "%A, %d-%b-%Y %H:%M:%S %Z";
    let said = request.values.time_format.borrow();
    let format = said.as_deref().unwrap_or(FORMAT);
    clock::format_time(clock::now(), format, gmt).map(Bytes::from)
}

fn text(value: impl Into<Bytes>) -> Option<Bytes> {
    Some(value.into())
}

/// The text, or no value at all when it is empty.
fn some_text(value: &Bytes) -> Option<Bytes> {
    (!value.is_empty()).then(|| value.clone())
}

fn flag(set: bool, value: &'static str) -> Option<Bytes> {
    text(if set { value } else { "" })
}

/// Seconds with milliseconds.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// What a header of the PROXY protocol tells of the ends of the connection.
fn told(request: &Request, what: impl FnOnce(&Ends) -> String) -> Option<Bytes> {
    text(what(&request.connection.told.as_ref()?.ends))
}

/// `$proxy_protocol_tlv_NAME`.
pub(super) fn tlv(request: &Request, tlv: ProxyProtocolTlv) -> Option<Bytes> {
    let tlvs = &request.connection.told.as_ref()?.tlvs;
    match tlv {
        ProxyProtocolTlv::OfType(kind) => tlvs.find(kind).map(Bytes::copy_from_slice),
        ProxyProtocolTlv::OfTls(kind) => tlvs.ssl()?.find(kind).map(Bytes::copy_from_slice),
        ProxyProtocolTlv::TlsVerify => text(tlvs.ssl()?.verify.to_string()),
    }
}

/// A port; an address that came without one, as in a header, has none.
fn port(address: SocketAddr) -> String {
    match address.port() {
        0 => String::new(),
        port => port.to_string(),
    }
}

fn header(request: &Request, name: &str) -> Option<Bytes> {
    joined(request.arrival.head.as_ref()?.fields().iter(), name.as_bytes(), b", ")
}

fn host(request: &Request) -> Bytes {
    match request.arrival.host.is_empty() {
        true => Bytes::copy_from_slice(&request.server().name),
        false => request.arrival.host.clone(),
    }
}

/// Of a line that was not understood as in nginx: empty if that happened behind a good target, and
/// otherwise none.
fn server_protocol(request: &Request) -> Option<Bytes> {
    if let Some(head) = &request.arrival.head {
        return Some(Bytes::copy_from_slice(head.protocol()));
    }
    // How far nginx came in the line: to a protocol that it does not know, or not even there.
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'-');
    let mut words = request.arrival.line.split(|&byte| byte == b' ');
    let method = words.next().is_some_and(|method| method.iter().all(is_method));
    let is_target =
        |target: &[u8]| target.starts_with(b"/") && !target.iter().any(u8::is_ascii_control);
    let target = method && words.next().is_some_and(is_target);
    let protocol = words.next().is_some_and(|protocol| protocol.starts_with(b"H"));
    (target && protocol).then(Bytes::new)
}

fn content_length(request: &Request) -> Option<Bytes> {
    let sent = header(request, "content-length");
    sent.or_else(|| {
        request.body.as_ref().filter(|_| has_body(request)).map(|body| body.len.to_string().into())
    })
}

fn has_body(request: &Request) -> bool {
    request.arrival.head.as_ref().is_some_and(|head| head.framing() != wssgate_http1::Framing::None)
}

fn request_body(request: &Request) -> Option<Bytes> {
    let body = request.body.as_ref()?;
    (body.file.is_none() && !body.memory.is_empty()).then(|| body.memory.clone())
}

fn request_body_file(request: &Request) -> Option<Bytes> {
    use std::os::unix::ffi::OsStrExt;
    let file = request.body.as_ref()?.file.as_ref()?;
    Some(Bytes::copy_from_slice(file.path().as_os_str().as_bytes()))
}

/// Line, head and body as read so far.
fn request_length(request: &Request) -> u64 {
    request.arrival.head_len + request.traffic.body_received.get()
}

pub(crate) fn bytes_sent(request: &Request) -> u64 {
    request.traffic.sent.get()
}

/// `$status`: what special responses decided wins.
pub(crate) fn status(request: &Request) -> u16 {
    match (request.response.error_status, request.response.status) {
        (0, 0) if request.arrival.version == Version::Http09 => 9,
        (0, status) => status,
        (status, _) => status,
    }
}

fn binary_address(client: Option<IpAddr>) -> Bytes {
    match client {
        Some(IpAddr::V4(ip)) => Bytes::copy_from_slice(&ip.octets()),
        Some(IpAddr::V6(ip)) => Bytes::copy_from_slice(&ip.octets()),
        None => Bytes::from_static(b"unix:"),
    }
}

fn local_address(local: &ListenAddr) -> String {
    match local {
        ListenAddr::Ip(address) => address.ip().to_string(),
        ListenAddr::Unix(_) => local.to_string(),
    }
}

fn local_port(local: &ListenAddr) -> String {
    match local {
        ListenAddr::Ip(address) => address.port().to_string(),
        ListenAddr::Unix(_) => String::new(),
    }
}

fn connections(request: &Request, variable: Builtin) -> u64 {
    request.site.all_metrics.total(|counters| match variable {
        Builtin::ConnectionsActive => counters.active.value(),
        Builtin::ConnectionsReading => counters.reading.value(),
        Builtin::ConnectionsWriting => counters.writing.value(),
        _ => counters.waiting.value(),
    })
}

/// `X-Forwarded-For` with the client's address behind it.
fn forwarded_for(request: &Request) -> Bytes {
    let client = request.client_text();
    match header(request, "x-forwarded-for") {
        Some(value) => {
            let mut list = BytesMut::from(&value[..]);
            list.put_slice(b", ");
            list.put_slice(client.as_bytes());
            list.freeze()
        }
        None => client.into(),
    }
}

/// The name of this machine, read once.
pub(crate) fn hostname() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(wssgate_sys::process::host_name)
}

/// 16 random bytes in hexadecimal.
pub(crate) fn request_id() -> Bytes {
    let mut bytes = [0; 16];
    // Without random bytes requests cannot be told apart, which harms nobody's safety.
    let _ = rand::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

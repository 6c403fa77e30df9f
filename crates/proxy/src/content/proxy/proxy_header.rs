//! What an upstream is told of the client before the first request (`proxy_protocol`).

use bytes::Bytes;
use wssgate_config::model::{ListenAddr, SendProxyProtocol};
use wssgate_proxy_protocol::{Certificate, Ends, TlsFacts, encode_v1, encode_v2};

use crate::exchange::request::Request;
use crate::tls::server::TlsInfo;

/// The header for connections on which this request may be sent.
pub(super) fn of(request: &Request, version: SendProxyProtocol) -> Option<Bytes> {
    let local = match &request.connection.local {
        ListenAddr::Ip(address) => Some(*address),
        ListenAddr::Unix(_) => None,
    };
    let ends = request.client.zip(local);
    let ends = ends.map(|(source, destination)| Ends { source, destination });
    match version {
        SendProxyProtocol::Off => None,
        SendProxyProtocol::V1 => Some(encode_v1(ends.as_ref()).into()),
        SendProxyProtocol::V2 => {
            let tls = request.connection.tls.as_deref();
            let name = tls.and_then(TlsInfo::client_common_name);
            let facts = tls.map(|tls| facts(tls, name.as_deref()));
            Some(encode_v2(ends.as_ref(), facts.as_ref()).into())
        }
    }
}

fn facts<'f>(tls: &'f TlsInfo, common_name: Option<&'f str>) -> TlsFacts<'f> {
    let certificate = tls.client_certificate.as_ref().map(|_| Certificate {
        common_name: common_name.map(str::as_bytes),
        earlier: tls.reused,
        verify: tls.client_verify.number(),
    });
    TlsFacts {
        authority: tls.server_name.as_deref().map(str::as_bytes),
        alpn: tls.alpn.as_deref(),
        version: tls.protocol,
        cipher: tls.cipher,
        certificate,
    }
}

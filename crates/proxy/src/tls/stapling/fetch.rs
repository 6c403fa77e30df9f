//! One question to a responder, over plain HTTP (RFC 6960 appendix A).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wssgate_dns::{Data, Name};
use wssgate_fetch::{AnswerError, AnswerReader, Unconnected, connect};
use wssgate_http1::{Escape, Method, escape};

use crate::errno_text;
use crate::resolve::Resolver;

/// How long an answer may take, from the lookup of the responder's name on; as in nginx.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one of several addresses may take to be connected to.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest head and body of an answer; nginx has as much for both.
const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 16 << 10;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Responder {
    pub(super) host: String,
    port: u16,
    /// With a slash at its end.
    path: String,
}

impl Responder {
    /// Reads a URL; `None` when it is not one of plain HTTP.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let prefix = url.get(..7).filter(|prefix| prefix.eq_ignore_ascii_case("http://"))?;
        let rest = &url[prefix.len()..];
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => (&authority[..at], authority[at + 1..].parse().ok()?),
            None => (authority, 80),
        };
        let is_clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_clean(host) || !is_clean(path) {
            return None;
        }
        let slash = if path.ends_with('/') { "" } else { "/" };
        Some(Self { host: host.to_owned(), port, path: format!("{path}{slash}") })
    }

    fn request(&self, question: &[u8]) -> Vec<u8> {
        let mut request = format!("GET {}", self.path).into_bytes();
        let base64 = BASE64_STANDARD.encode(question);
        escape(&mut request, base64.as_bytes(), Escape::UriComponent);
        let port = if self.port == 80 { String::new() } else { format!(":{}", self.port) };
        let host = format!(" HTTP/1.1\r\nHost: {}{port}\r\nConnection: close\r\n\r\n", self.host);
        request.extend(host.as_bytes());
        request
    }

    async fn addresses(
        &self,
        resolver: Option<&(Arc<Resolver>, Duration)>,
    ) -> Result<Vec<SocketAddr>, String> {
        let literal = self.host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![(ip, self.port).into()]);
        }
        let failed = |why: String| format!("{} could not be resolved ({why})", self.host);
        let Some((resolver, patience)) = resolver else {
            let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
            return found.map(Iterator::collect).map_err(|error| failed(error.to_string()));
        };
        let name = Name::new(self.host.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let found = resolver.host(name, *patience).await.map_err(|why| failed(why.to_string()))?;
        match &found.data {
            Data::Addresses(found) => Ok(found.iter().map(|ip| (*ip, self.port).into()).collect()),
            Data::Services(_) => Ok(Vec::new()),
        }
    }
}

/// Asks a responder.
///
/// # Errors
/// When it does not answer as it should.
pub(super) async fn fetch(
    responder: &Responder,
    question: &[u8],
    resolver: Option<&(Arc<Resolver>, Duration)>,
) -> Result<Vec<u8>, String> {
    let asking = async {
        let addresses = responder.addresses(resolver).await?;
        let mut stream = connect(&addresses, CONNECT).await.map_err(unconnected)?;
        let request = responder.request(question);
        let wrote = stream.write_all(&request).await;
        wrote.map_err(|error| format!("send() failed ({})", errno_text(&error)))?;
        answer(stream).await
    };
    timeout(PATIENCE, asking).await.map_err(|_| "OCSP responder timed out".to_owned())?
}

fn unconnected(why: Unconnected) -> String {
    match why {
        Unconnected::NoAddress => "no address of the OCSP responder".to_owned(),
        Unconnected::Failed(address, error) => {
            format!("connect() to {address} failed ({})", errno_text(&error))
        }
        Unconnected::Late(address) => format!("connect() to {address} timed out"),
    }
}

async fn answer(stream: TcpStream) -> Result<Vec<u8>, String> {
    let mut reader = AnswerReader::new(stream);
    let head = reader.head(MAX_HEAD).await.map_err(unanswered)?;
    if head.status() != 200 {
        return Err(format!("OCSP responder sent HTTP status {}", head.status()));
    }
    let kind = head.fields().first("Content-Type").unwrap_or_default();
    if !kind.eq_ignore_ascii_case(b"application/ocsp-response") {
        let kind = String::from_utf8_lossy(kind);
        return Err(format!("OCSP responder sent invalid \"Content-Type\" header: \"{kind}\""));
    }
    reader.body(&head, Method::Get, MAX_BODY).await.map_err(unanswered)
}

/// nginx's words.
fn unanswered(error: AnswerError) -> String {
    match error {
        AnswerError::Io(error) => format!("recv() failed ({})", errno_text(&error)),
        AnswerError::NoHead | AnswerError::Incomplete => {
            "OCSP responder prematurely closed connection".to_owned()
        }
        AnswerError::TooLong => "OCSP responder sent too long response".to_owned(),
        AnswerError::Head(why) => format!("OCSP responder sent invalid response ({why})"),
        AnswerError::Body(why) => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_responder_speaks_plain_http() {
        for (url, expected) in [
            ("http://ocsp.test", Some(("ocsp.test", 80, "/"))),
            ("HTTP://ocsp.test:8080/a", Some(("ocsp.test", 8080, "/a/"))),
            ("http://[::1]:81/a/", Some(("[::1]", 81, "/a/"))),
            ("http://[::1]/", Some(("[::1]", 80, "/"))),
            ("https://ocsp.test/", None),
            ("ldap://ocsp.test/", None),
            ("http://", None),
            ("http://a:x/", None),
            ("http://a/\r\nX: y", None),
        ] {
            let read = Responder::parse(url);
            let read = read.as_ref().map(|one| (one.host.as_str(), one.port, one.path.as_str()));
            assert_eq!(read, expected, "{url}");
        }
    }

    #[test]
    fn a_question_is_part_of_the_path() {
        let responder = Responder::parse("http://a.test:81/x").expect("a URL");
        let request = responder.request(&[0xfb, 0xff, 0xfe]);
        let text = String::from_utf8_lossy(&request);
        let expected =
            "GET /x/%2B%2F%2F%2B HTTP/1.1\r\nHost: a.test:81\r\nConnection: close\r\n\r\n";
        assert_eq!(text, expected);
    }
}

//! Requests to a CA: one connection each, over TLS.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ::http::header::{LINK, LOCATION, RETRY_AFTER};
use ::http::{HeaderMap, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wssgate_fetch::{AnswerError, AnswerReader, Unconnected, connect};
use wssgate_http1::{Method as Asked, ResponseHead};

use crate::failure::{Refused, Unreachable};

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(30);

/// How long one of several addresses may take to be connected to.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest head and the longest body of an answer.
const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 1 << 20;

/// How often an answer may lead elsewhere.
const MAX_REDIRECTS: usize = 10;

/// The longest time that a CA is left alone, whatever it wants.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// What is noted of answers at most.
const MAX_NOTES: usize = 1000;

/// The addresses of a host, or why there are none.
pub type Addresses = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, String>> + Send>>;

/// Finds the addresses of a host and port.
pub type Resolve = Arc<dyn Fn(String, u16) -> Addresses + Send + Sync>;

/// How a CA is reached.
#[derive(Clone)]
pub struct Transport {
    /// Whom we trust.
    pub tls: Arc<ClientConfig>,
    /// How its name becomes addresses.
    pub resolve: Resolve,
    /// What we call ourselves.
    pub user_agent: String,
}

/// Sends requests for the library, and notes of the answers what it does not hand on.
#[derive(Clone)]
pub(crate) struct Client {
    transport: Arc<Mutex<Transport>>,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    /// How long to wait before a URL is asked again.
    retry_after: HashMap<String, Duration>,
    /// Chains of certificates by their URL.
    chains: HashMap<String, NotedChain>,
}

/// A chain as it came, and the URLs of others for the same certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct NotedChain {
    pub(crate) pem: String,
    pub(crate) alternates: Vec<String>,
}

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Client {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport: Arc::new(Mutex::new(transport)), notes: Arc::default() }
    }

    /// Goes this way from the next request on.
    pub(crate) fn reach_by(&self, transport: Transport) {
        *self.transport.lock().unwrap_or_else(PoisonError::into_inner) = transport;
    }

    /// How long the CA wants to be left alone with a URL.
    pub(crate) fn take_retry_after(&self, url: &str) -> Option<Duration> {
        self.notes().retry_after.remove(url)
    }

    /// The chain that came from a URL.
    pub(crate) fn take_chain(&self, url: &str) -> Option<NotedChain> {
        self.notes().chains.remove(url)
    }

    /// Gets a JSON document.
    pub(crate) async fn get(
        &self,
        url: &str,
    ) -> Result<(serde_json::Value, Option<Duration>), Error> {
        let request = Request::builder().method(Method::GET).uri(url);
        let answer = self.send(request.body(BodyWrapper::default())?).await?;
        let wait = retry_after(&answer.headers);
        if !answer.status.is_success() {
            let problem = serde_json::from_slice(&answer.body);
            return Err(refusal(url, &answer)
                .or_else(|| problem.ok().map(Error::Api))
                .unwrap_or_else(|| unreachable_because(status_text(url, answer.status))));
        }
        Ok((serde_json::from_slice(&answer.body)?, wait))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Whoever panicked, the maps are whole.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Answer, Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_or_else(|never| match never {}, |body| body.to_bytes());
        let transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut uri = parts.uri;
        for _ in 0..=MAX_REDIRECTS {
            let head = head(&parts.method, &uri, &parts.headers, body.len(), &transport)?;
            let exchange = exchange(&transport, &uri, &parts.method, head, &body);
            let late = || unreachable_because(format!("{uri}: no response within {REQUEST:?}"));
            let answer = timeout(REQUEST, exchange).await.map_err(|_| late())??;
            // What is signed says where it goes, so it cannot go elsewhere.
            if !answer.status.is_redirection() || parts.method == Method::POST {
                self.note(&uri.to_string(), &answer);
                return Ok(answer);
            }
            let target = answer.headers.get(LOCATION).and_then(|target| target.to_str().ok());
            let lost = || unreachable_because(format!("{uri} redirects to no URL"));
            uri = target.and_then(|target| resolved(&uri, target)).ok_or_else(lost)?;
        }
        Err(unreachable_because(format!("{uri}: too many redirects")))
    }

    fn note(&self, url: &str, answer: &Answer) {
        let mut notes = self.notes();
        let wait = retry_after(&answer.headers);
        if let Some(wait) = wait.filter(|_| answer.status.is_success()) {
            if notes.retry_after.len() >= MAX_NOTES {
                notes.retry_after.clear();
            }
            notes.retry_after.insert(url.to_owned(), wait);
        }
        let begins = b"-----BEGIN CERTIFICATE-----";
        if answer.status.is_success() && answer.body.trim_ascii_start().starts_with(begins) {
            if notes.chains.len() >= MAX_NOTES {
                notes.chains.clear();
            }
            let pem = String::from_utf8_lossy(&answer.body).into_owned();
            let alternates = alternates(&answer.headers, url);
            notes.chains.insert(url.to_owned(), NotedChain { pem, alternates });
        }
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let url = request.uri().to_string();
            let answer = client.send(request).await?;
            if let Some(refusal) = refusal(&url, &answer) {
                return Err(refusal);
            }
            let (mut parts, ()) = ::http::Response::new(()).into_parts();
            parts.status = answer.status;
            parts.headers = answer.headers;
            Ok(BytesResponse { parts, body: Box::new(answer.body) })
        })
    }
}

/// What the library does not make of an error: it takes each for a problem document, and hands on no wait.
fn refusal(url: &str, answer: &Answer) -> Option<Error> {
    if answer.status.is_success() {
        return None;
    }
    let retry_after = retry_after(&answer.headers);
    let Ok(problem) = serde_json::from_slice::<Problem>(&answer.body) else {
        let text = status_text(url, answer.status);
        let gone = matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE);
        return Some(Error::Other(Box::new(Unreachable { text, gone, retry_after })));
    };
    // It tries again itself then.
    if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce") {
        return None;
    }
    Some(Error::Other(Box::new(Refused { problem, retry_after: retry_after? })))
}

fn status_text(url: &str, status: StatusCode) -> String {
    format!("{url} responded with {status}")
}

fn unreachable_because(text: impl Into<String>) -> Error {
    Error::Other(Box::new(Unreachable { text: text.into(), gone: false, retry_after: None }))
}

/// Where a redirect leads: to a URL, or to a path at the same place.
fn resolved(base: &Uri, target: &str) -> Option<Uri> {
    let target = Uri::from_str(target).ok()?;
    if target.scheme().is_some() {
        return Some(target);
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = target.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}

fn head(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    len: usize,
    transport: &Transport,
) -> Result<Vec<u8>, Error> {
    let authority =
        uri.authority().ok_or_else(|| unreachable_because(format!("{uri} is not a URL")))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let agent = &transport.user_agent;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\nConnection: close\r\n"
    );
    if method == Method::POST {
        head.push_str(&format!("Content-Length: {len}\r\n"));
    }
    let mut head = head.into_bytes();
    for (name, value) in headers.iter().filter(|(name, _)| *name != ::http::header::USER_AGENT) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// One request and its answer.
async fn exchange(
    transport: &Transport,
    uri: &Uri,
    method: &Method,
    head: Vec<u8>,
    body: &[u8],
) -> Result<Answer, Error> {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
    let fail = |why: String| unreachable_because(format!("{host}:{port}: {why}"));
    if uri.scheme_str() != Some("https") {
        return Err(fail("only https is supported".to_owned()));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| fail(error.to_string()))?;
    let addresses = (transport.resolve)(bare.to_owned(), port).await.map_err(fail)?;
    let stream = connect(&addresses, CONNECT).await.map_err(|why| fail(unconnected(why)))?;
    let connector = TlsConnector::from(Arc::clone(&transport.tls));
    let mut stream =
        connector.connect(name, stream).await.map_err(|error| fail(error.to_string()))?;
    let broken = |error: std::io::Error| fail(error.to_string());
    stream.write_all(&head).await.map_err(broken)?;
    stream.write_all(body).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let asked = if method == Method::HEAD { Asked::Head } else { Asked::Get };
    let mut reader = AnswerReader::new(stream);
    let told = |error: AnswerError| fail(error.to_string());
    let answer = reader.head(MAX_HEAD).await.map_err(told)?;
    let body = reader.body(&answer, asked, MAX_BODY).await.map_err(told)?;
    let status = StatusCode::from_u16(answer.status()).map_err(|error| fail(error.to_string()))?;
    Ok(Answer { status, headers: fields(&answer), body: body.into() })
}

fn unconnected(why: Unconnected) -> String {
    match why {
        Unconnected::NoAddress => "the name has no address".to_owned(),
        Unconnected::Failed(address, error) => format!("connect to {address}: {error}"),
        Unconnected::Late(address) => {
            format!("connect to {address}: no response within {CONNECT:?}")
        }
    }
}

fn fields(head: &ResponseHead) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in head.fields().iter() {
        let name = ::http::HeaderName::from_bytes(name);
        // Nobody looks for one that the types cannot hold.
        if let (Ok(name), Ok(value)) = (name, ::http::HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// How long an answer wants us to wait: seconds, or a date, and not for ever.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let then = SystemTime::from(then);
    Some(then.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST_WAIT))
}

/// The URLs behind `rel="alternate"`.
fn alternates(headers: &HeaderMap, base: &str) -> Vec<String> {
    let base = Uri::from_str(base).unwrap_or_default();
    let links = headers.get_all(LINK).into_iter().filter_map(|link| link.to_str().ok());
    let links = links.flat_map(|links| links.split(",<").flat_map(|link| link.split(", <")));
    let links = links.filter_map(|link| {
        let (target, parameters) = link.trim_start_matches('<').split_once('>')?;
        let is_alternate = parameters.split(';').any(|parameter| {
            let rel = parameter.trim().strip_prefix("rel=");
            rel.is_some_and(|rel| rel.trim_matches('"').split(' ').any(|rel| rel == "alternate"))
        });
        is_alternate.then(|| resolved(&base, target)).flatten()
    });
    links.map(|uri| uri.to_string()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use crate::schedule::Blame;

    #[test]
    fn a_wait_is_in_seconds_or_a_date() {
        let wait = |text: &str| {
            let headers = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT"), Some(0));
        assert_eq!(wait("Fri, 31 Dec 2100 23:59:59 GMT"), Some(86_400));
        assert_eq!(wait("18446744073709551615"), Some(86_400));
        assert_eq!(wait("soon"), None);
    }

    /// The wait is that of this answer, whoever else asks meanwhile.
    #[test]
    fn an_error_carries_how_long_to_wait() {
        let of = |status, wait: Option<&str>, body: &'static str| {
            let headers =
                wait.map(|wait| (RETRY_AFTER, wait.parse().unwrap())).into_iter().collect();
            let answer = Answer { status, headers, body: body.into() };
            refusal("https://ca.test/x", &answer).map(Failure::from)
        };
        let busy = of(StatusCode::SERVICE_UNAVAILABLE, Some("120"), "<html>").unwrap();
        assert_eq!((busy.blame, busy.retry_after), (Blame::Way, Some(Duration::from_secs(120))));
        let limited = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}"#;
        let refused = of(StatusCode::TOO_MANY_REQUESTS, Some("3600"), limited).unwrap();
        let expected = (Blame::Request, "rateLimited", Some(Duration::from_secs(3600)));
        assert_eq!((refused.blame, &*refused.kind, refused.retry_after), expected);
        // The library takes care of these.
        assert!(of(StatusCode::TOO_MANY_REQUESTS, None, limited).is_none());
        let nonce = r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#;
        assert!(of(StatusCode::BAD_REQUEST, Some("1"), nonce).is_none());
        assert!(of(StatusCode::OK, Some("1"), "").is_none());
    }

    #[test]
    fn alternates_are_found_among_links() {
        let links = [
            r#"<https://ca.test/dir>;rel="index""#,
            r#"<https://ca.test/c/1>;rel="alternate", </c/2>; rel=alternate"#,
        ];
        let headers = links.map(|link| (LINK, link.parse().unwrap())).into_iter().collect();
        let found = alternates(&headers, "https://ca.test/c/0");
        assert_eq!(found, ["https://ca.test/c/1", "https://ca.test/c/2"]);
    }
}

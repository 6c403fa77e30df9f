//! `wssgate health URL`: whether a server answers, for health checks of containers that have no other program.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::Args;
use thiserror::Error;
use wssgate_http1::ResponseParser;
use wssgate_proxy::errno_text;

use crate::text::with_port;

/// The command line of `wssgate health`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthArgs {
    /// What is asked for.
    #[arg(help = "What to ask for: http://HOST[:PORT]/[PATH]")]
    url: String,
    /// Seconds that everything together may take
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Why a server does not count as healthy.
#[derive(Debug, Error)]
pub(crate) enum Unhealthy {
    #[error("\"{0}\" is not http://HOST[:PORT]/[PATH]")]
    Url(String),
    #[error("{server}: {}", errno_text(source))]
    Io { server: String, source: io::Error },
    #[error("{0}: the response is no HTTP: {1}")]
    Response(String, String),
    #[error("{0}: the connection was closed before a response")]
    Closed(String),
    #[error("{0}: status {1}")]
    Status(String, u16),
}

/// The longest head of a response, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Asks once; a status from 200 to 399 is health.
pub(crate) fn check(args: &HealthArgs) -> Result<(), Unhealthy> {
    let (authority, path) = parse(&args.url).ok_or_else(|| Unhealthy::Url(args.url.clone()))?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let failed = |source| Unhealthy::Io { server: authority.to_owned(), source };
    let mut stream = connect(authority, deadline).map_err(failed)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: wssgate-health\r\nConnection: close\r\n\r\n"
    );
    stream.set_write_timeout(Some(left(deadline))).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut parser = ResponseParser::new();
    let (mut input, mut buffer) = (BytesMut::new(), [0; 4096]);
    loop {
        let parsed = parser.parse(&mut input, MAX_HEAD);
        match parsed.map_err(|error| Unhealthy::Response(authority.into(), error.to_string()))? {
            Some(head) if head.is_interim() => parser = ResponseParser::new(),
            Some(head) if (200..400).contains(&head.status()) => return Ok(()),
            Some(head) => return Err(Unhealthy::Status(authority.into(), head.status())),
            None => {
                stream.set_read_timeout(Some(left(deadline))).map_err(failed)?;
                match stream.read(&mut buffer).map_err(failed)? {
                    0 => return Err(Unhealthy::Closed(authority.into())),
                    len => input.extend_from_slice(&buffer[..len]),
                }
            }
        }
    }
}

/// Host with port, and path.
fn parse(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let path = if path.is_empty() { "/" } else { path };
    (!authority.is_empty() && fits(rest)).then_some((authority, path))
}

fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let addresses = with_port(authority, 80).to_socket_addrs()?;
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(deadline)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The time that is left; never none, which sockets take for no limit.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What a server that says this and closes counts as.
    fn judge(response: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(response.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        let args = HealthArgs { url: format!("http://{address}/up?x"), timeout: 10 };
        let judged = check(&args).map_err(|error| error.to_string());
        let request = server.join().unwrap();
        let expected = format!("GET /up?x HTTP/1.1\r\nHost: {address}\r\n");
        assert!(request.starts_with(&expected), "{request}");
        judged.map_err(|error| error.replace(&address.to_string(), "A"))
    }

    #[test]
    fn a_good_status_is_health() {
        for (response, expected) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
            ("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", Ok(())),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Err("A: status 404")),
            ("HTTP/1.1 503 Busy\r\n\r\n", Err("A: status 503")),
            ("HTTP/1.1 200 OK\r\n", Err("A: the connection was closed before a response")),
        ] {
            assert_eq!(judge(response), expected.map_err(str::to_owned), "{response}");
        }
        let error = judge("SSH-2.0-x\r\n\r\n").unwrap_err();
        assert!(error.starts_with("A: the response is no HTTP: "), "{error}");
    }

    #[test]
    fn nobody_there_is_no_health() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ask = |url: String| check(&HealthArgs { url, timeout: 1 }).unwrap_err().to_string();
        let error = ask(format!("http://{address}"));
        assert_eq!(error, format!("{address}: 111: Connection refused"));
        for url in ["127.0.0.1:80", "https://a/", "http://", "http://a b/"] {
            assert_eq!(ask(url.to_owned()), format!("\"{url}\" is not http://HOST[:PORT]/[PATH]"));
        }
        // It accepts, in the kernel, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = ask(format!("http://{}/", silent.local_addr().unwrap()));
        assert!(error.ends_with("11: Resource temporarily unavailable"), "{error}");
    }
}

//! `wssgate health URL`: whether a server answers, for health checks of containers that have no other program.

mod trust;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::Args;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use thiserror::Error;
use wssgate_doctor::Timed;
use wssgate_http1::ResponseParser;

use self::trust::{Trust, Untrusted};
use crate::text::{reason, with_port};

/// The command line of `wssgate health`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HealthArgs {
    /// What is asked for.
    #[arg(help = "What to ask for: http://HOST[:PORT]/[PATH] or https://…")]
    url: String,
    /// Seconds that everything together may take
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// Name of the server in Host, SNI and its certificate [default: that of the URL]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// File with CA certificates in PEM to trust besides the public ones and the development CA
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Accept any certificate, of a server on this machine alone
    #[arg(long)]
    insecure: bool,
}

/// Why a server does not count as healthy.
#[derive(Debug, Error)]
pub(crate) enum Unhealthy {
    #[error("\"{0}\" is not http://HOST[:PORT]/[PATH] or https://…")]
    Url(String),
    #[error("\"{0}\" is no name of a server")]
    Name(String),
    #[error("{option} has no effect without https://")]
    NoTls { option: &'static str },
    #[error("--insecure is for servers on this machine, and {0} is another: give the CA by --ca")]
    Insecure(SocketAddr),
    #[error(transparent)]
    Trust(#[from] Untrusted),
    #[error("{server}: {}", reason(source))]
    Io { server: String, source: io::Error },
    #[error("{server}: no answer within {seconds} s while {doing}")]
    Late { server: String, seconds: u64, doing: &'static str },
    #[error("{server}: TLS failed: {source}{}", help(source))]
    Tls { server: String, source: rustls::Error },
    #[error("{0}: the response is no HTTP: {1}")]
    Response(String, String),
    #[error("{0}: the connection was closed before a response")]
    Closed(String),
    #[error("{0}: status {1}")]
    Status(String, u16),
}

/// What may help against a failure of TLS.
fn help(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext, UnknownIssuer};
    match error {
        rustls::Error::InvalidCertificate(UnknownIssuer) => {
            "; give the CA by --ca, or use --insecure for a server on this machine"
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "; give the name of the server by --host"
        }
        rustls::Error::InvalidMessage(_) => "; is it a port for plain HTTP (http://)?",
        _ => "",
    }
}

/// The longest head of a response, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Asks once; a status from 200 to 399 is health.
pub(crate) fn check(args: &HealthArgs) -> Result<(), Unhealthy> {
    let url = Url::parse(&args.url).ok_or_else(|| Unhealthy::Url(args.url.clone()))?;
    let given = [("--ca", args.ca.is_some()), ("--insecure", args.insecure)];
    if let Some((option, _)) = given.into_iter().find(|(_, given)| *given && !url.tls) {
        return Err(Unhealthy::NoTls { option });
    }
    let check = Check { args, url, deadline: Instant::now() + Duration::from_secs(args.timeout) };
    let port = if url.tls { 443 } else { 80 };
    let found = addresses(with_port(url.authority, port), check.deadline, system_lookup);
    let found = found.map_err(|error| check.failed(error, "looking up the name"))?;
    let (mut stream, peer) =
        check.connect(&found).map_err(|error| check.failed(error, "connecting"))?;
    if !url.tls {
        return check.ask(&mut stream);
    }
    let name = args.host.as_deref().unwrap_or_else(|| url.host());
    let server = ServerName::try_from(name.to_owned());
    let server = server.map_err(|_| Unhealthy::Name(name.to_owned()))?;
    let trust = match args.insecure {
        true if !peer.ip().to_canonical().is_loopback() => return Err(Unhealthy::Insecure(peer)),
        true => Trust::Anybody,
        false => Trust::Of(args.ca.as_deref()),
    };
    let tls = ClientConnection::new(trust.config()?, server).map_err(|error| check.tls(error))?;
    check.ask(&mut StreamOwned::new(tls, stream))
}

/// One check under way.
struct Check<'a> {
    args: &'a HealthArgs,
    url: Url<'a>,
    deadline: Instant,
}

impl Check<'_> {
    fn server(&self) -> String {
        self.url.authority.to_owned()
    }

    fn tls(&self, source: rustls::Error) -> Unhealthy {
        Unhealthy::Tls { server: self.server(), source }
    }

    fn failed(&self, error: io::Error, doing: &'static str) -> Unhealthy {
        let server = self.server();
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (tls, error.kind()) {
            (Some(source), _) => self.tls(source.clone()),
            (None, ErrorKind::TimedOut) => {
                Unhealthy::Late { server, seconds: self.args.timeout, doing }
            }
            // Of TLS that ends without a word.
            (None, ErrorKind::UnexpectedEof) => Unhealthy::Closed(server),
            (None, _) => Unhealthy::Io { server, source: error },
        }
    }

    /// A connection to one of these addresses, and which it is.
    fn connect(&self, addresses: &[SocketAddr]) -> io::Result<(Timed, SocketAddr)> {
        let mut failed = io::Error::from(ErrorKind::AddrNotAvailable);
        for &peer in addresses {
            match Timed::connect(peer, left(self.deadline)?) {
                Ok(stream) => return Ok((stream, peer)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn ask(&self, stream: &mut (impl Read + Write)) -> Result<(), Unhealthy> {
        let (path, host) = (self.url.path, self.args.host.as_deref());
        let host = host.unwrap_or(self.url.authority);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wssgate-health\r\nConnection: close\r\n\r\n"
        );
        let failed = |error| self.failed(error, "waiting for a response");
        stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(failed)?;
        let mut parser = ResponseParser::new();
        let (mut input, mut buffer) = (BytesMut::new(), [0; 4096]);
        loop {
            let parsed = parser.parse(&mut input, MAX_HEAD);
            match parsed.map_err(|error| Unhealthy::Response(self.server(), error.to_string()))? {
                Some(head) if head.is_interim() => parser = ResponseParser::new(),
                Some(head) if (200..400).contains(&head.status()) => return Ok(()),
                Some(head) => return Err(Unhealthy::Status(self.server(), head.status())),
                None => match stream.read(&mut buffer).map_err(failed)? {
                    0 => return Err(Unhealthy::Closed(self.server())),
                    len => input.extend_from_slice(&buffer[..len]),
                },
            }
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
struct Url<'a> {
    tls: bool,
    /// Host, with a port if one was written.
    authority: &'a str,
    path: &'a str,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let fits = rest.bytes().all(|byte| byte.is_ascii_graphic());
        let path = if path.is_empty() { "/" } else { path };
        (!authority.is_empty() && fits).then_some(Self { tls, authority, path })
    }

    /// Without port and brackets.
    fn host(self) -> &'a str {
        match self.authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => self.authority.split(':').next().unwrap_or(self.authority),
        }
    }
}

fn system_lookup(authority: &str) -> io::Result<Vec<SocketAddr>> {
    authority.to_socket_addrs().map(Iterator::collect)
}

/// Looks a host up. The system waits for name servers as long as it likes, so it does in a thread that nobody waits
/// for longer than until `deadline`.
fn addresses(
    authority: String,
    deadline: Instant,
    lookup: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    let (sender, found) = mpsc::channel();
    // Nobody may be there any more to receive it.
    thread::spawn(move || drop(sender.send(lookup(&authority))));
    found.recv_timeout(left(deadline)?).unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// The time that is left; never none, which sockets take for no limit.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
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
        let url = format!("http://{address}/up?x");
        let args = HealthArgs { url, timeout: 10, ..HealthArgs::default() };
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
        let ask = |url: String| {
            let args = HealthArgs { url, timeout: 1, ..HealthArgs::default() };
            check(&args).unwrap_err().to_string()
        };
        let error = ask(format!("http://{address}"));
        assert_eq!(error, format!("{address}: Connection refused"));
        for url in ["127.0.0.1:80", "ws://a/", "http://", "http://a b/"] {
            let expected = format!("\"{url}\" is not http://HOST[:PORT]/[PATH] or https://…");
            assert_eq!(ask(url.to_owned()), expected);
        }
        // It accepts, in the kernel, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = ask(format!("http://{}/", silent.local_addr().unwrap()));
        assert!(error.ends_with("no answer within 1 s while waiting for a response"), "{error}");
    }

    #[test]
    fn a_lookup_is_not_waited_for_longer_than_asked() {
        let (ended, wait) = mpsc::channel::<()>();
        let lookup = move |_: &str| {
            // Until the test has ended.
            let _ = wait.recv();
            Ok(Vec::new())
        };
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = addresses("a.test:80".to_owned(), deadline, lookup).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(ended);
        let found = |_: &str| Ok(vec![SocketAddr::from(([127, 0, 0, 1], 1))]);
        let deadline = Instant::now() + Duration::from_secs(10);
        assert_eq!(addresses("a.test:80".to_owned(), deadline, found).unwrap().len(), 1);
    }

    #[test]
    fn the_host_of_a_url_has_no_port() {
        for (url, host) in [
            ("https://a:1/x", "a"),
            ("https://a", "a"),
            ("https://[::1]:1/", "::1"),
            ("http://[::1]", "::1"),
        ] {
            assert_eq!(Url::parse(url).unwrap().host(), host);
        }
    }
}

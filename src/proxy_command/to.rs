//! `--to`: where the app servers are.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::from::From;
use super::{CommandError, port};
use crate::text::with_port;

/// The app servers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// One or more, alike in scheme and path.
    servers: Vec<Server>,
}

/// One app server.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    scheme: &'static str,
    /// `HOST`, `HOST:PORT` or `unix:/PATH`.
    address: String,
    /// What a URL has behind its address.
    path: String,
}

/// Where those listen that this machine alone can reach.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// What several servers are called in the configuration.
const GROUP: &str = "app";

impl Target {
    pub(super) fn parse(texts: &[String]) -> Result<Self, CommandError> {
        let servers: Vec<_> =
            texts.iter().map(|text| Server::parse(text)).collect::<Result<_, _>>()?;
        for (server, text) in servers.iter().zip(texts) {
            if (server.scheme, &server.path) != (servers[0].scheme, &servers[0].path) {
                return Err(CommandError::Unlike(texts[0].clone(), text.clone()));
            }
        }
        Ok(Self { servers })
    }

    /// Each location with its URL for `proxy_pass`.
    ///
    /// nginx puts the path of a URL in place of the `/` that the location has, so `/chat` would become `/appchat` by
    /// `/app`. Here it becomes `/app/chat`, and `/` alone `/app`.
    pub(super) fn passes(&self) -> Vec<(&'static str, String)> {
        let url = match &self.servers[..] {
            [server] => server.to_string(),
            [server, ..] => format!("{}://{GROUP}{}", server.scheme, server.path),
            [] => unreachable!("clap requires one"),
        };
        match self.path() {
            path if path.is_empty() || path.ends_with('/') => vec![("/", url)],
            _ => vec![("= /", url.clone()), ("/", format!("{url}/"))],
        }
    }

    /// What stands before the paths of requests.
    pub(super) fn path(&self) -> &str {
        self.servers.first().map_or("", |server| &server.path)
    }

    /// Whether one of them is what `--from` listens on.
    pub(super) fn is(&self, from: &From) -> bool {
        self.servers.iter().any(|server| server.is(from))
    }

    /// Those on this machine that nobody listens on. Nothing is connected to: app servers would tell their log of
    /// somebody who says nothing.
    pub(super) fn absent(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().filter(|server| server.is_absent()).map(|server| &*server.address)
    }

    /// The block of several servers.
    pub(super) fn upstream(&self) -> String {
        if self.servers.len() == 1 {
            return String::new();
        }
        let line = |server: &Server| format!("        server {};\n", server.with_port());
        let servers: String = self.servers.iter().map(line).collect();
        format!("\n    upstream {GROUP} {{\n        least_conn;\n{servers}    }}\n")
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, CommandError> {
        let fail = || CommandError::To(text.to_owned());
        let (scheme, rest) = match text.split_once("://") {
            Some(("http" | "ws", rest)) => ("http", rest),
            Some(("https" | "wss", rest)) => ("https", rest),
            Some(_) => return Err(fail()),
            None => ("http", text),
        };
        // In the configuration that this is written into these would end the word or name a variable.
        let odd = |byte: u8| byte.is_ascii_control() || b" $\"';{}".contains(&byte);
        if rest.is_empty() || rest.bytes().any(odd) {
            return Err(fail());
        }
        if rest.contains(',') {
            return Err(CommandError::Several(text.to_owned()));
        }
        if rest.starts_with("unix:") {
            return Ok(Self { scheme, address: rest.to_owned(), path: String::new() });
        }
        if rest.contains(['?', '#']) {
            return Err(CommandError::Query(text.to_owned()));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path == "/" { String::new() } else { path.to_owned() };
        Ok(Self {
            scheme,
            address: address(authority).map_err(|error| error.unwrap_or_else(fail))?,
            path,
        })
    }

    /// Whether requests would come back. `--from` listens on all addresses of this machine, or on its loopback
    /// addresses.
    fn is(&self, from: &From) -> bool {
        let port = if self.scheme == "https" { 443 } else { 80 };
        let address = with_port(&self.address, port);
        let Some((host, port)) = address.rsplit_once(':') else { return false };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_local = match host.parse::<IpAddr>() {
            Ok(address) => address.is_unspecified() || LOOPBACK.contains(&address),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        port.parse() == Ok(from.port) && (is_local || host.eq_ignore_ascii_case(&from.name))
    }

    fn is_absent(&self) -> bool {
        if let Some(path) = self.address.strip_prefix("unix:") {
            return !Path::new(path).exists();
        }
        let port = if self.scheme == "https" { 443 } else { 80 };
        let address = with_port(&self.address, port);
        let Some((host, port)) = address.rsplit_once(':') else { return false };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_local = match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        let port = port.parse().ok().filter(|_| is_local);
        port.is_some_and(|port| wssgate_proxy::listen::is_listened_on(port) == Some(false))
    }

    /// The address as a group needs it, in which the scheme says no port.
    fn with_port(&self) -> String {
        match self.scheme {
            "https" => with_port(&self.address, 443),
            _ => self.address.clone(),
        }
    }
}

/// `HOST:PORT`, `HOST`, `:PORT` or `PORT`; the error has no words of its own unless it is about the port.
fn address(text: &str) -> Result<String, Option<CommandError>> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(format!("localhost:{}", port(text, "--to")?));
    }
    let end = match text.strip_prefix('[') {
        Some(address) => address.find(']').ok_or(None)? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    let host = if host.is_empty() { "localhost" } else { host };
    match rest.strip_prefix(':') {
        // An address of IPv6 needs brackets.
        Some(number) if number.contains(':') => Err(None),
        Some(number) => Ok(format!("{host}:{}", port(number, "--to")?)),
        None if rest.is_empty() && !text.is_empty() => Ok(host.to_owned()),
        None => Err(None),
    }
}

impl Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.address, self.path)
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.servers.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use wssgate_testkit::wait_until;

    use super::*;

    fn target(texts: &[&str]) -> Result<Target, String> {
        let texts: Vec<_> = texts.iter().map(|&text| text.to_owned()).collect();
        Target::parse(&texts).map_err(|error| error.to_string())
    }

    #[test]
    fn to_is_a_place_to_pass_to() {
        let port = |text: &str| Err(format!("the port \"{text}\" of --to is not"));
        for (text, expected) in [
            ("localhost:8282", Ok("http://localhost:8282")),
            ("8282", Ok("http://localhost:8282")),
            (":8282", Ok("http://localhost:8282")),
            ("ws://:8282/", Ok("http://localhost:8282")),
            ("ws://app:1/", Ok("http://app:1")),
            ("wss://app", Ok("https://app")),
            ("http://app:1/base/", Ok("http://app:1/base/")),
            ("[::1]:1", Ok("http://[::1]:1")),
            ("[::1]", Ok("http://[::1]")),
            ("unix:/run/app.sock", Ok("http://unix:/run/app.sock")),
            ("0", port("0")),
            ("82820", port("82820")),
            ("localhost:99999", port("99999")),
            ("localhost:http", port("http")),
            ("localhost:", port("")),
            (":", port("")),
            ("ftp://app", Err("--to".to_owned())),
            ("", Err("--to".to_owned())),
            ("http://", Err("--to".to_owned())),
            ("/run/app.sock", Err("--to".to_owned())),
            ("::1", Err("--to".to_owned())),
            ("[::1", Err("--to".to_owned())),
            ("[::1]x", Err("--to".to_owned())),
            ("a b", Err("--to".to_owned())),
            ("$host", Err("--to".to_owned())),
            ("a;b", Err("--to".to_owned())),
            ("1,2", Err("--to \"1,2\" names several app servers: repeat --to".to_owned())),
            ("http://a/x?y=1", Err("--to \"http://a/x?y=1\" has a query".to_owned())),
            ("http://a?y=1", Err("--to \"http://a?y=1\" has a query".to_owned())),
        ] {
            match (target(&[text]).map(|target| target.passes()[0].1.clone()), expected) {
                (Err(error), Err(expected)) => {
                    assert!(error.starts_with(&expected), "{text}: {error}")
                }
                (parsed, expected) => {
                    assert_eq!(parsed, expected.map(str::to_owned), "{text}");
                }
            }
        }
    }

    #[test]
    fn its_own_address_is_found() {
        for (from, to, expected) in [
            ("localhost:8443", "8443", true),
            ("localhost:8443", "https://127.0.0.1:8443/x", true),
            ("localhost:8443", "[::1]:8443", true),
            ("localhost:8443", "8282", false),
            ("localhost:8443", "127.0.0.2:8443", false),
            ("chat.example.com", "https://localhost", true),
            ("chat.example.com", "wss://Chat.example.com", true),
            ("chat.example.com", "chat.example.com", false),
            ("chat.example.com:80", "chat.example.com", true),
            ("chat.example.com", "https://10.0.0.1", false),
            ("0.0.0.0:8443", "0.0.0.0:8443", true),
            ("[::1]:8443", "localhost:8443", true),
            ("localhost:8443", "unix:/run/a:8443", false),
        ] {
            let from = From::parse(from).expect("a name");
            assert_eq!(target(&[to]).expect("an address").is(&from), expected, "{to}");
            let several = target(&["10.0.0.9:1", "10.0.0.9:2"]).expect("alike");
            assert!(!several.is(&from));
        }
    }

    #[test]
    fn an_app_server_that_is_not_there_yet_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let absent = |to: &[&str]| {
            let target = target(to).expect("alike");
            target.absent().map(str::to_owned).collect::<Vec<_>>()
        };
        // Of other machines nothing is known.
        assert_eq!(absent(&[&address, "10.0.0.9:1"]), [""; 0]);
        let gone = ["unix:/nonexistent/app.sock", &address];
        assert_eq!(absent(&gone), gone[..1]);
        drop(listener);
        // A process that another test has started may hold the socket until its `exec`.
        wait_until("the port to be free", || absent(&gone) == gone);
    }

    #[test]
    fn several_servers_are_a_group() {
        let several = target(&["wss://a/ws", "https://b:1/ws", "wss://[::1]/ws"]).expect("alike");
        let passes = [("= /", "https://app/ws".to_owned()), ("/", "https://app/ws/".to_owned())];
        assert_eq!(several.passes(), passes);
        assert_eq!(several.to_string(), "https://a/ws, https://b:1/ws, https://[::1]/ws");
        assert_eq!(
            several.upstream(),
            "\n    upstream app {\n        least_conn;\n        server a:443;\n        server b:1;\n        \
             server [::1]:443;\n    }\n"
        );
        assert_eq!(target(&["1"]).expect("a port").upstream(), "");
        for unlike in [["ws://a", "wss://b"], ["http://a/x", "http://b"]] {
            let error = target(&unlike).expect_err("unlike");
            assert!(error.ends_with("must agree in scheme and path"), "{error}");
        }
    }
}

//! The request as an upstream sees it: nginx's rules for the target and the fields.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use wssgate_http1::{
    Escape, Fields, Version, WriteError, escape, write_end, write_field, write_request_line,
};

use super::handshake::Instead;

/// Fields of the client that are never passed on; `proxy_set_header` may set them.
const NOT_PASSED: [&str; 9] = [
    "Host",
    "Connection",
    "Proxy-Connection",
    "Content-Length",
    "Transfer-Encoding",
    "TE",
    "Keep-Alive",
    "Expect",
    "Upgrade",
];

/// The URI part of a `proxy_pass`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UriPart<'a> {
    /// Not given: the request's own URI.
    None,
    /// Takes the place of the location's prefix.
    Replaces {
        /// The prefix.
        prefix: &'a [u8],
        /// What stands for it.
        uri: &'a [u8],
    },
    /// Made with variables: is the whole target.
    Whole(Bytes),
}

/// What a target is made of.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    /// The `proxy_pass`'s part.
    pub(crate) part: UriPart<'a>,
    /// The target as the client sent it, while it still says what `path` and `args` say.
    pub(crate) raw: Option<&'a [u8]>,
    /// The normalised path.
    pub(crate) path: &'a [u8],
    /// The arguments.
    pub(crate) args: &'a [u8],
    /// Whether the path had escapes or was made by us, and so must be escaped.
    pub(crate) escape: bool,
    /// Whether the path still begins with the location's prefix (no `rewrite … break`).
    pub(crate) in_location: bool,
}

impl Target<'_> {
    /// The text for the request line.
    pub(crate) fn text(&self) -> Vec<u8> {
        let (skip, uri) = match (&self.part, self.raw) {
            (UriPart::Whole(uri), _) => return uri.to_vec(),
            (UriPart::None, Some(raw)) => return absolute_path(raw),
            (UriPart::Replaces { prefix, uri }, _) if self.in_location => {
                (prefix.len().min(self.path.len()), *uri)
            }
            (UriPart::None | UriPart::Replaces { .. }, _) => (0, &b""[..]),
        };
        let mut target = uri.to_vec();
        let rest = &self.path[skip..];
        match self.escape {
            true => escape(&mut target, rest, Escape::Uri),
            false => target.extend_from_slice(rest),
        }
        if !self.args.is_empty() {
            target.push(b'?');
            target.extend_from_slice(self.args);
        }
        target
    }
}

/// `http://host?a=b` has no path; in a request line there must be one.
fn absolute_path(raw: &[u8]) -> Vec<u8> {
    match raw.first() {
        Some(b'/') => raw.to_vec(),
        _ => [b"/", raw].concat(),
    }
}

/// How the body is framed for the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// No body and no field about it.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Name and value of a field that is sent.
pub(crate) type OutgoingField<'a> = (&'a [u8], Cow<'a, [u8]>);

/// What a request head is made of.
#[derive(Debug)]
pub(crate) struct UpstreamRequest<'a> {
    /// The method.
    pub(crate) method: &'a [u8],
    /// The target.
    pub(crate) target: &'a [u8],
    /// HTTP/1.1, else 1.0.
    pub(crate) http11: bool,
    /// `$proxy_host`.
    pub(crate) proxy_host: &'a [u8],
    /// `proxy_set_header` lines with their values.
    pub(crate) set: &'a [(&'a [u8], Bytes)],
    /// The protocols of an upgrade that is passed on without being asked to by a line.
    pub(crate) upgrade: Option<&'a [u8]>,
    /// How the body is framed.
    pub(crate) framing: BodyFraming,
    /// The client's fields; `None` with `proxy_pass_request_headers off`.
    pub(crate) client: Option<&'a Fields>,
    /// What is sent in place of some of the client's fields.
    pub(crate) instead: &'a [Instead],
}

impl UpstreamRequest<'_> {
    /// Writes the head with these [`fields`](Self::fields).
    ///
    /// # Errors
    /// When a variable has put something into it that would end a line.
    pub(crate) fn write(&self, fields: &[OutgoingField<'_>]) -> Result<Bytes, WriteError> {
        let mut out = BytesMut::with_capacity(512);
        let version = if self.http11 { Version::Http11 } else { Version::Http10 };
        write_request_line(&mut out, self.method, self.target, version)?;
        for (name, value) in fields {
            write_field(&mut out, name, value)?;
        }
        write_end(&mut out);
        Ok(out.freeze())
    }

    /// Whether the lines set make this the last request of its connection.
    pub(crate) fn closes(&self) -> bool {
        let connection = self.set.iter().filter(|(name, _)| is(name, "Connection"));
        let mut options = connection.flat_map(|(_, value)| value.split(|byte| *byte == b','));
        options.any(|option| is(option.trim_ascii(), "close"))
    }

    /// All fields in nginx's order: Host, the lines set, those about the body, the client's.
    pub(crate) fn fields(&self) -> Vec<OutgoingField<'_>> {
        let mut fields: Vec<OutgoingField<'_>> = Vec::with_capacity(16);
        let host = self.host();
        if !host.is_empty() {
            fields.push((b"Host", host.into()));
        }
        let lines = self.set.iter().filter(|(name, _)| !is(name, "Host"));
        for (name, value) in lines.filter(|(_, value)| !value.is_empty()) {
            fields.push((name, value[..].into()));
        }
        if let Some(protocols) = self.upgrade {
            fields.push((b"Upgrade", protocols.into()));
            // A sender of Upgrade must name it in Connection (RFC 9110 §7.8).
            fields.push((b"Connection", b"upgrade"[..].into()));
        }
        match self.framing {
            BodyFraming::Chunked if !self.sets(b"Transfer-Encoding") => {
                fields.push((b"Transfer-Encoding", b"chunked"[..].into()));
            }
            BodyFraming::Length(len) if !self.sets(b"Content-Length") => {
                fields.push((b"Content-Length", len.to_string().into_bytes().into()));
            }
            _ => {}
        }
        for (name, value) in self.client.into_iter().flat_map(Fields::iter) {
            let taken = self.instead.iter().any(|(other, _)| is(name, other));
            if !taken && !NOT_PASSED.iter().any(|other| is(name, other)) && !self.sets(name) {
                fields.push((name, value.into()));
            }
        }
        let instead = self.instead.iter().filter(|_| self.client.is_some());
        for (name, value) in instead.filter(|(_, value)| !value.is_empty()) {
            if !self.sets(name.as_bytes()) {
                fields.push((name.as_bytes(), value[..].into()));
            }
        }
        fields
    }

    /// An explicitly empty Host is `$proxy_host` too in HTTP/1.1, which demands one.
    fn host(&self) -> &[u8] {
        match self.set.iter().rfind(|(name, _)| is(name, "Host")) {
            Some((_, value)) if !value.is_empty() || !self.http11 => value,
            _ => self.proxy_host,
        }
    }

    fn sets(&self, name: &[u8]) -> bool {
        self.set.iter().any(|(other, _)| name.eq_ignore_ascii_case(other))
    }
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PLAIN: Target<'_> = Target {
        part: UriPart::None,
        raw: None,
        path: b"/",
        args: b"",
        escape: false,
        in_location: true,
    };

    fn replaces(prefix: &'static str, uri: &'static str) -> UriPart<'static> {
        UriPart::Replaces { prefix: prefix.as_bytes(), uri: uri.as_bytes() }
    }

    #[test]
    fn the_target_follows_the_rules_of_proxy_pass() {
        for (target, expected) in [
            (
                Target { raw: Some(b"/a%20b/../c?d"), path: b"/c", args: b"d", ..PLAIN },
                "/a%20b/../c?d",
            ),
            (Target { raw: Some(b"?d"), args: b"d", ..PLAIN }, "/?d"),
            (Target { path: b"/a b", args: b"x=1", escape: true, ..PLAIN }, "/a%20b?x=1"),
            (
                Target {
                    part: replaces("/default", "/"),
                    raw: Some(b"/default/x%2fy?a=1"),
                    path: b"/default/x/y",
                    args: b"a=1",
                    escape: true,
                    ..PLAIN
                },
                "//x/y?a=1",
            ),
            (
                Target { part: replaces("/uri/", "/sub/"), path: b"/uri/c", args: b"d", ..PLAIN },
                "/sub/c?d",
            ),
            (
                Target {
                    part: replaces("/uri/", "/sub/"),
                    path: b"/new",
                    in_location: false,
                    ..PLAIN
                },
                "/new",
            ),
            (Target { part: replaces("/long/prefix", "/x"), path: b"/", ..PLAIN }, "/x"),
            (
                Target {
                    part: UriPart::Whole(Bytes::from_static(b"/fixed")),
                    raw: Some(b"/varuri/zz?q=1"),
                    args: b"q=1",
                    ..PLAIN
                },
                "/fixed",
            ),
        ] {
            let text = String::from_utf8(target.text()).unwrap();
            assert_eq!(text, expected, "{target:?}");
        }
    }

    fn head<'a>(set: &'a [(&'a [u8], Bytes)], client: &'a Fields) -> UpstreamRequest<'a> {
        UpstreamRequest {
            method: b"GET",
            target: b"/",
            http11: true,
            proxy_host: b"up:81",
            set,
            upgrade: None,
            framing: BodyFraming::None,
            client: Some(client),
            instead: &[],
        }
    }

    #[test]
    fn what_stands_for_a_field_is_sent_once_or_not_at_all() {
        let client: Fields = [
            ("sec-websocket-protocol", "bearer.a.b.c"),
            ("X", "1"),
            ("Sec-WebSocket-Protocol", "chat"),
        ]
        .into_iter()
        .collect();
        let mut head = head(&[], &client);
        let chat = [("Sec-WebSocket-Protocol", Bytes::from_static(b"chat"))];
        head.instead = &chat;
        assert_eq!(
            written(&head),
            "GET / HTTP/1.1\r\nHost: up:81\r\nX: 1\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        );
        let nothing = [("Sec-WebSocket-Protocol", Bytes::new())];
        head.instead = &nothing;
        assert_eq!(written(&head), "GET / HTTP/1.1\r\nHost: up:81\r\nX: 1\r\n\r\n");
    }

    #[test]
    fn a_line_that_says_close_makes_it_the_last_request() {
        for (name, value, closes) in [
            ("Connection", "close", true),
            ("connection", "x, Close", true),
            ("Connection", "", false),
            ("Connection", "upgrade", false),
            ("X", "close", false),
        ] {
            let (set, client) = ([(name.as_bytes(), Bytes::from(value))], Fields::default());
            assert_eq!(head(&set, &client).closes(), closes, "{name}: {value}");
        }
    }

    fn written(head: &UpstreamRequest<'_>) -> String {
        String::from_utf8(head.write(&head.fields()).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn fields_come_in_nginx_order_and_hop_by_hop_ones_are_left_out() {
        let client: Fields = [
            ("Host", "client"),
            ("Accept", "*/*"),
            ("connection", "keep-alive, X"),
            ("Proxy-Connection", "keep-alive"),
            ("Keep-Alive", "1"),
            ("TE", "trailers"),
            ("Expect", "100-continue"),
            ("Upgrade", "h2c"),
            ("Content-Length", "3"),
            ("transfer-encoding", "chunked"),
            ("x-A", "1"),
            ("x-A", "2"),
        ]
        .into_iter()
        .collect();
        let set = [
            (&b"X-Real-IP"[..], Bytes::from_static(b"10.0.0.1")),
            (b"Accept", Bytes::new()),
            (b"X-Empty", Bytes::new()),
        ];
        let mut head = head(&set, &client);
        head.framing = BodyFraming::Length(3);
        assert_eq!(
            written(&head),
            "GET / HTTP/1.1\r\nHost: up:81\r\nX-Real-IP: 10.0.0.1\r\nContent-Length: 3\r\n\
             x-A: 1\r\nx-A: 2\r\n\r\n"
        );
        head.framing = BodyFraming::Chunked;
        head.client = None;
        head.http11 = false;
        assert_eq!(
            written(&head),
            "GET / HTTP/1.0\r\nHost: up:81\r\nX-Real-IP: 10.0.0.1\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn lines_set_win_over_what_is_built_in() {
        let client: Fields = [("Upgrade", "websocket"), ("Range", "x")].into_iter().collect();
        let set = [
            (&b"host"[..], Bytes::from_static(b"set")),
            (b"upgrade", Bytes::from_static(b"foo")),
            (b"Connection", Bytes::from_static(b"upgrade")),
            (b"content-length", Bytes::new()),
            (b"Range", Bytes::new()),
        ];
        let mut head = head(&set, &client);
        head.framing = BodyFraming::Length(9);
        assert_eq!(
            written(&head),
            "GET / HTTP/1.1\r\nHost: set\r\nupgrade: foo\r\nConnection: upgrade\r\n\r\n"
        );
    }

    #[test]
    fn an_empty_host_is_the_upstreams_in_http_1_1_only() {
        let client = Fields::default();
        let set = [(&b"Host"[..], Bytes::new())];
        let mut head = head(&set, &client);
        assert_eq!(written(&head), "GET / HTTP/1.1\r\nHost: up:81\r\n\r\n");
        head.http11 = false;
        assert_eq!(written(&head), "GET / HTTP/1.0\r\n\r\n");
    }

    #[test]
    fn a_websocket_upgrade_passes_without_any_line() {
        let client: Fields = [("Upgrade", "websocket")].into_iter().collect();
        let mut head = head(&[], &client);
        head.upgrade = Some(b"websocket");
        assert_eq!(
            written(&head),
            "GET / HTTP/1.1\r\nHost: up:81\r\nUpgrade: websocket\r\n\
             Connection: upgrade\r\n\r\n"
        );
    }

    #[test]
    fn a_variable_cannot_end_a_line() {
        let client = Fields::default();
        let set = [(&b"X"[..], Bytes::from_static(b"a\r\nEvil: b"))];
        let head = head(&set, &client);
        assert!(head.write(&head.fields()).is_err());
    }
}

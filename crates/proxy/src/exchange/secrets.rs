//! Tokens stay out of log lines: `***` stands for them.
//!
//! In a URI whatever stands under the name of an argument for tokens is hidden. Elsewhere the text of a token is, if it
//! is long enough to be one and the place may hold it. A client chooses that text, and must not be able to blank out with
//! it what else a line says: its address, or the path that it has asked for.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use wssgate_config::model::{LocationSettings, TokenSource};
use wssgate_config::template::Part;
use wssgate_config::variable::{Builtin, Variable};

use super::request::Request;
use super::{identity, token};

/// What stands for a token.
const MASK: &[u8] = b"***";

/// The shortest text, in bytes, that is looked for where other things may stand: a random token has more.
const MIN_TEXT: usize = 16;

/// How many tokens, and how many names of arguments, are remembered for a request.
const MAX_REMEMBERED: usize = 8;

/// Arguments in which widespread programs and services send tokens, passwords or signatures, in lower case. In lines of
/// our own making they are hidden without being asked to.
const WELL_KNOWN: [&str; 25] = [
    "access_token",
    "accesstoken",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "client_secret",
    "id_token",
    "jwt",
    "key",
    "passwd",
    "password",
    "pwd",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "ticket",
    "tkn",
    "token",
    "vncticket",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
];

/// The tokens of a request that must not get into log lines; subrequests share them.
#[derive(Debug, Default)]
pub struct Secrets {
    texts: RefCell<Vec<Bytes>>,
    arguments: RefCell<Vec<Bytes>>,
}

impl Secrets {
    /// Keeps a token out of the log lines from now on.
    pub(crate) fn add(&self, text: Bytes) {
        remember(&mut self.texts.borrow_mut(), text);
    }

    fn is_empty(&self) -> bool {
        self.texts.borrow().is_empty() && self.arguments.borrow().is_empty()
    }

    fn has_argument(&self, name: &[u8]) -> bool {
        self.arguments.borrow().iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// A value without the texts of tokens that are hidden there.
    fn without(&self, value: Bytes, is_hidden: fn(&[u8]) -> bool) -> Bytes {
        let texts = self.texts.borrow();
        texts.iter().filter(|text| is_hidden(text)).fold(value, |value, text| replace(value, text))
    }
}

fn remember(list: &mut Vec<Bytes>, text: Bytes) {
    if !text.is_empty() && list.len() < MAX_REMEMBERED && !list.contains(&text) {
        list.push(text);
    }
}

/// Keeps the tokens that the location asks for out of the log lines from now on, even if nobody comes to look at them.
pub(crate) fn learn(request: &Request) {
    let secrets = &request.secrets;
    if let Some(text) = identity::presented(request) {
        secrets.add(text);
    }
    let settings = &request.location().settings;
    if let Some(token) = &settings.websocket_token {
        for text in token.sources.iter().filter_map(|source| token::written(request, token, source))
        {
            secrets.add(token::decoded(&text));
            secrets.add(text);
        }
    }
    for name in arguments(request, settings) {
        remember(&mut secrets.arguments.borrow_mut(), Bytes::copy_from_slice(name));
    }
}

/// The arguments that a location takes tokens from.
fn arguments<'s>(
    request: &'s Request,
    settings: &'s LocationSettings,
) -> impl Iterator<Item = &'s [u8]> {
    let of_jwt = settings.auth_jwt.as_ref().and_then(|jwt| jwt.token).and_then(|variable| {
        match &request.http().variables.slot(variable).meaning {
            Variable::Argument(name) => Some(&name[..]),
            _ => None,
        }
    });
    let sources = settings.websocket_token.iter().flat_map(|token| &token.sources);
    let of_token = sources.filter_map(|source| match source {
        TokenSource::Argument(name) => Some(&name[..]),
        _ => None,
    });
    of_jwt.into_iter().chain(of_token)
}

/// What may stand where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// What we know ourselves.
    Own,
    /// Tokens and what goes with them.
    Credentials,
    /// A URI.
    Uri,
    /// A field of the client, which may be a URI.
    Field,
    /// Anything.
    Open,
}

fn origin_of(request: &Request, part: &Part) -> Origin {
    use Builtin as B;
    let Part::Variable(id) = part else { return Origin::Open };
    let settings = &request.location().settings;
    if settings.auth_jwt.as_ref().is_some_and(|jwt| jwt.token == Some(*id)) {
        return Origin::Credentials;
    }
    let of_upstream = |name: &[u8]| {
        settings.websocket_token.as_ref().is_some_and(|to| to.field.eq_ignore_ascii_case(name))
    };
    match &request.http().variables.slot(*id).meaning {
        Variable::Builtin(B::Args | B::QueryString | B::Request | B::RequestUri) => Origin::Uri,
        Variable::Builtin(
            B::Uri | B::DocumentUri | B::RequestFilename | B::RequestBody | B::WebSocketProtocol,
        ) => Origin::Open,
        Variable::Builtin(_) | Variable::ProxyProtocolTlv(_) => Origin::Own,
        Variable::Argument(_) | Variable::Cookie(_) | Variable::OfferedSubprotocol(_) => {
            Origin::Credentials
        }
        Variable::RequestHeader(name) => match &name[..] {
            b"authorization" | b"cookie" | b"sec-websocket-protocol" => Origin::Credentials,
            name if of_upstream(name) => Origin::Credentials,
            _ => Origin::Field,
        },
        _ => Origin::Open,
    }
}

/// The value of a part of an access line, as it is shown there.
pub(crate) fn shown(request: &Request, part: &Part, value: Bytes) -> Bytes {
    let secrets = &request.secrets;
    if secrets.is_empty() {
        return value;
    }
    let is_secret = |name: &[u8]| secrets.has_argument(name);
    match origin_of(request, part) {
        Origin::Own => value,
        Origin::Credentials => secrets.without(value, |_| true),
        Origin::Uri => secrets.without(hide_arguments(value, is_secret), is_token),
        Origin::Field => hide_arguments(value, is_secret),
        Origin::Open => secrets.without(hide_arguments(value, is_secret), is_token),
    }
}

/// A URI of a request, as error lines show it.
pub(crate) fn shown_uri(request: &Request, uri: &[u8]) -> Bytes {
    let settings = &request.location().settings;
    let is_secret = |name: &[u8]| {
        is_well_known(name)
            || request.secrets.has_argument(name)
            || arguments(request, settings).any(|known| known.eq_ignore_ascii_case(name))
    };
    let uri = hide_arguments(Bytes::copy_from_slice(uri), is_secret);
    request.secrets.without(uri, is_token)
}

fn is_well_known(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    WELL_KNOWN.binary_search_by(|known| known.as_bytes().cmp(&lower)).is_ok()
}

/// Whether a text may be a token, and not a word or a part of an address.
fn is_token(text: &[u8]) -> bool {
    let of_address = |byte: &u8| byte.is_ascii_hexdigit() || b".:, ".contains(byte);
    let address = text.iter().all(of_address) && text.iter().any(|byte| b".:".contains(byte));
    text.len() >= MIN_TEXT && !address
}

/// A text with the values of some arguments hidden, wherever in it there is a query.
fn hide_arguments(text: Bytes, is_secret: impl Fn(&[u8]) -> bool) -> Bytes {
    let mut hidden: Option<BytesMut> = None;
    // Up to where `text` is in `hidden`, and where the next name begins.
    let (mut done, mut start) = (0, 0);
    while let Some(len) = text[start..].iter().position(|byte| b"=&?# \"".contains(byte)) {
        let end = start + len;
        if text[end] != b'=' || !is_secret(&text[start..end]) {
            start = end + 1;
            continue;
        }
        let value = &text[end + 1..];
        let len = value.iter().position(|byte| b"&# \"".contains(byte)).unwrap_or(value.len());
        if len > 0 {
            let hidden = hidden.get_or_insert_with(BytesMut::new);
            hidden.extend_from_slice(&text[done..=end]);
            hidden.extend_from_slice(MASK);
            done = end + 1 + len;
        }
        start = end + 1 + len;
    }
    match hidden {
        None => text,
        Some(mut hidden) => {
            hidden.extend_from_slice(&text[done..]);
            hidden.freeze()
        }
    }
}

fn replace(text: Bytes, secret: &[u8]) -> Bytes {
    let finder = memchr::memmem::Finder::new(secret);
    if finder.find(&text).is_none() {
        return text;
    }
    let mut out = BytesMut::with_capacity(text.len());
    let mut rest = &text[..];
    while let Some(at) = finder.find(rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(MASK);
        rest = &rest[at + secret.len()..];
    }
    out.extend_from_slice(rest);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_hidden_by_their_names() {
        let is_secret = |name: &[u8]| name.eq_ignore_ascii_case(b"token");
        for (text, expected) in [
            ("GET /ws?token=abc HTTP/1.1", "GET /ws?token=*** HTTP/1.1"),
            ("GET /ws?a=1&Token=a=b?c&d=2 HTTP/1.1", "GET /ws?a=1&Token=***&d=2 HTTP/1.1"),
            ("token=a&token=b", "token=***&token=***"),
            ("/ws?token=", "/ws?token="),
            ("/ws?token", "/ws?token"),
            ("/token=abc", "/token=abc"),
            ("/ws?mytoken=abc&tokens=1", "/ws?mytoken=abc&tokens=1"),
            ("/ws?x=token=abc", "/ws?x=token=***"),
            ("https://a.test/?token=abc#x", "https://a.test/?token=***#x"),
            ("", ""),
        ] {
            let shown = hide_arguments(Bytes::from_static(text.as_bytes()), is_secret);
            assert_eq!(shown, expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_token_leaves_every_text() {
        let secrets = Secrets::default();
        let line =
            Bytes::from_static(b"GET /?t=header.claims.proof&u=header.claims.proof HTTP/1.1");
        assert_eq!(secrets.without(line.clone(), is_token), line);
        secrets.add(Bytes::new());
        secrets.add(Bytes::from_static(b"header.claims.proof"));
        secrets.add(Bytes::from_static(b"GET"));
        assert_eq!(secrets.without(line, is_token), &b"GET /?t=***&u=*** HTTP/1.1"[..]);
        let field = Bytes::from_static(b"GET=header.claims");
        assert_eq!(secrets.without(field, |_| true), &b"***=header.claims"[..]);
    }

    #[test]
    fn no_token_looks_like_an_address() {
        for (text, expected) in [
            ("2001:db8:1234:5678::1", false),
            ("203.0.113.195, 198.51.100.7", false),
            ("/admin/users/", false),
            ("0123456789abcdef", true),
            ("eyJhbGciOi.e30.abcdef", true),
        ] {
            assert_eq!(is_token(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn well_known_names_are_sorted_for_the_search() {
        assert!(WELL_KNOWN.is_sorted());
        assert!(is_well_known(b"Access_Token") && !is_well_known(b"sid"));
    }
}

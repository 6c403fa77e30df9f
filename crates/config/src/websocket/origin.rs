//! `websocket_origin`: from which pages WebSockets may be opened.
//!
//! A browser sends cookies along with a WebSocket whatever page opens it, and no rule of the browser keeps the page from
//! reading what comes back. Only the server can look where the page is from (RFC 6455 §10.2).

use std::fmt;
use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, compile};
use crate::regex::Regex;
use crate::template::VariableId;
use crate::value::Origin;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_ORIGIN];

/// `websocket_origin`
pub(crate) static WEBSOCKET_ORIGIN: Directive<Option<Arc<AllowedOrigins>>> = Directive {
    name: "websocket_origin",
    contexts: HSL,
    arity: AtLeast(1),
    default: "off",
    doc: "Allows WebSockets only from these origins; other handshakes get a 403 and a line in the \
          error log. An origin is written as browsers send it, `https://chat.example.com` or \
          `https://localhost:8443`; `https://*.example.com` matches every name below that domain. \
          `same` is the origin of the requested URL: its host, its port, and the scheme of the \
          connection, or the one that a proxy in `set_real_ip_from` sends in `X-Forwarded-Proto`. \
          A value that begins with `~` is a case-insensitive regular expression that must match \
          the whole origin. `none` stands for requests without an `Origin` header, as sent by \
          programs other than browsers, and `null` for pages without an origin, as in sandboxed \
          frames. A request with several or malformed origins is always refused.",
    ..Directive::once(origins)
};

/// Which origins `websocket_origin` lists.
#[derive(Clone, Debug)]
pub struct AllowedOrigins {
    none: bool,
    null: bool,
    same: bool,
    exact: Vec<Origin>,
    /// With hosts that begin with a dot: what must stand behind something.
    below: Vec<Origin>,
    regexes: Vec<Regex>,
}

impl AllowedOrigins {
    /// Whether a request needs no `Origin`.
    pub fn allow_none(&self) -> bool {
        self.none
    }

    /// Whether the opaque origin is allowed, which is written `null` (RFC 6454 §6.1).
    pub fn allow_null(&self) -> bool {
        self.null
    }

    /// Whether an origin is allowed in a request that is for `own`, if that is known.
    pub fn allow(&self, origin: &Origin, own: Option<&Origin>) -> bool {
        (self.same && own == Some(origin))
            || self.exact.contains(origin)
            || self.below.iter().any(|domain| origin.is_below(domain))
            || self.regexes.iter().any(|regex| regex.captures(&origin.text()).is_some())
    }
}

/// What an origin must not look like in a configuration, and what to do instead.
#[derive(Clone, Copy)]
enum Mistake {
    Everybody,
    NoScheme,
    Path,
    Wildcard,
    NotAscii,
    Other,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Everybody => "`websocket_origin off` accepts every origin",
            Self::NoScheme => "an origin begins with its scheme, as `https://` does",
            Self::Path => "an origin ends with its host or port, without `/`",
            Self::Wildcard => "`*.` is only allowed at the beginning of a host",
            Self::NotAscii => "browsers send such names in their ASCII form, `xn--…`",
            Self::Other => "an origin is written like `https://chat.example.com`",
        })
    }
}

fn origins(
    _: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Option<Arc<AllowedOrigins>>> {
    if let [word] = &directive.args[..]
        && word.is("off")
    {
        return Ok(None);
    }
    let mut allowed = AllowedOrigins {
        none: false,
        null: false,
        same: false,
        exact: Vec::new(),
        below: Vec::new(),
        regexes: Vec::new(),
    };
    for word in &directive.args {
        match &*word.value {
            b"off" => {
                let problem = Diagnostic::error("\"off\" cannot be combined with origins");
                return Err(problem.at(word.span, "accepts every origin"));
            }
            b"none" => allowed.none = true,
            b"null" => allowed.null = true,
            b"same" => allowed.same = true,
            b"~" => return Err(Diagnostic::error("empty regex in \"~\"").at(word.span, "")),
            [b'~', pattern @ ..] => allowed.regexes.push(whole(word, pattern)?),
            text => match origin(text) {
                Ok((origin, false)) => allowed.exact.push(origin),
                Ok((domain, true)) => allowed.below.push(domain),
                Err(mistake) => {
                    let problem = Diagnostic::error(format!("invalid origin \"{word}\""));
                    return Err(problem.at(word.span, "").help(mistake.to_string()));
                }
            },
        }
    }
    Ok(Some(Arc::new(allowed)))
}

/// An expression that is matched with whole origins: one that is found anywhere in them would let in
/// `https://example.com.elsewhere.test` too.
fn whole(word: &Word, pattern: &[u8]) -> Reads<Regex> {
    // Named groups set no variables: only whether it matches counts.
    let compile = |pattern: &[u8]| compile(pattern, true, word.span, |_| VariableId(0));
    // By itself first, so that a mistake is told in its own words.
    compile(pattern)?;
    compile(&[b"\\A(?:", pattern, b")\\z"].concat())
}

/// An origin as written, and whether it stands for all names below its host.
fn origin(text: &[u8]) -> Result<(Origin, bool), Mistake> {
    if text == b"*" {
        return Err(Mistake::Everybody);
    }
    let at = text.windows(3).position(|part| part == b"://").ok_or(Mistake::NoScheme)?;
    let (start, host) = text.split_at(at + 3);
    let (host, wild) = match host.strip_prefix(b"*") {
        Some(below) if below.starts_with(b".") && below.len() > 1 => (&below[1..], true),
        Some(_) => return Err(Mistake::Wildcard),
        None => (host, false),
    };
    if let Some(origin) = Origin::parse(&[start, host].concat()) {
        return Ok((if wild { origin.below() } else { origin }, wild));
    }
    Err(match () {
        () if host.contains(&b'/') => Mistake::Path,
        () if host.contains(&b'*') => Mistake::Wildcard,
        () if !host.is_ascii() => Mistake::NotAscii,
        () => Mistake::Other,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_syntax::{FileId, SourceMap, Span, parse_text};

    use super::*;
    use crate::paths::Paths;
    use crate::read::system_resolve;
    use crate::registry::registry;

    fn allowed(list: &str) -> AllowedOrigins {
        let parsed = parse_text("test", format!("websocket_origin {list};").as_bytes());
        let paths = Paths { prefix: "/p".into(), conf_dir: "/c".into() };
        let (sources, nowhere) = (SourceMap::default(), Span { file: FileId(0), start: 0, end: 0 });
        let mut reading = Reading::new(registry(), nowhere, &paths, &sources, system_resolve);
        let read = origins(&mut reading, &parsed.directives[0]);
        Arc::unwrap_or_clone(read.unwrap_or_else(|problem| panic!("{}", problem.message)).unwrap())
    }

    #[test]
    fn only_what_is_listed_is_allowed() {
        for (list, origin, is_allowed) in [
            ("https://a.test", "https://a.test", true),
            ("https://A.test:443", "HTTPS://a.TEST", true),
            ("https://a.test", "http://a.test", false),
            ("https://a.test", "https://a.test:8443", false),
            ("https://a.test", "https://b.a.test", false),
            ("https://a.test", "https://a.test.evil.test", false),
            ("http://a.test:8080 https://b.test", "https://b.test", true),
            ("https://*.a.test", "https://b.a.test", true),
            ("https://*.a.test", "https://c.b.A.test:443", true),
            ("https://*.a.test", "https://a.test", false),
            ("https://*.a.test", "https://.a.test", false),
            ("https://*.a.test", "https://ba.test", false),
            ("https://*.a.test", "https://b.a.test:444", false),
            ("https://*.a.test", "http://b.a.test", false),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("chrome-extension://abc", "chrome-extension://abc", true),
            ("http://[::1]:80", "http://[0:0::1]", true),
            (r"~^https://\w+\.a\.test$", "https://b.a.test", true),
            (r"~https://\w+\.a\.test", "https://B.a.test", true),
            (r"~https://\w+\.a\.test", "https://b.a.test.evil.test", false),
            (r"~https://\w+\.a\.test", "https://evil.test:1", false),
            (r"~a\.test|https://b\.test", "https://a.test", false),
            (r"~http://localhost(:\d+)?", "http://localhost:3000", true),
            ("same", "https://own.test", true),
            ("same", "https://other.test", false),
            ("none null", "https://own.test", false),
        ] {
            let own = Origin::parse(b"https://own.test").unwrap();
            let origin_sent = Origin::parse(origin.as_bytes()).unwrap_or(own.clone());
            let parsed = Origin::parse(origin.as_bytes()).is_some();
            let found = parsed && allowed(list).allow(&origin_sent, Some(&own));
            assert_eq!(found, is_allowed, "{list} {origin}");
        }
    }

    #[test]
    fn words_stand_for_what_is_no_origin() {
        let words = |list| {
            let allowed = allowed(list);
            (allowed.allow_none(), allowed.allow_null())
        };
        assert_eq!(words("https://a.test"), (false, false));
        assert_eq!(words("https://a.test none"), (true, false));
        assert_eq!(words("null same"), (false, true));
    }

    #[test]
    fn without_a_host_nothing_is_the_same() {
        let origin = Origin::parse(b"https://a.test").unwrap();
        assert!(!allowed("same").allow(&origin, None));
    }
}

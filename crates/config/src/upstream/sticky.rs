//! `sticky`: which server of a group a client belongs to, and how that is known.

use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Word, printable};

use crate::directive::Arity::AtLeast;
use crate::directive::{Directive, U};
use crate::read::{Reading, Reads, directive_problem, has_variables, meant_parameter, parameter};
use crate::template::{Template, VariableId};
use crate::value::{self, Located, MIN_ZONE_SIZE};

/// `sticky`
pub(crate) static STICKY: Directive<Sticky> = Directive {
    name: "sticky",
    contexts: U,
    arity: AtLeast(2),
    doc: "Binds a client to one server of the group: `cookie` with a cookie set by the proxy, \
          `route` with a variable that contains the `route=` of the server, `learn` by remembering \
          where sessions were created. May be placed before or after the balancing method, which \
          is used for unknown clients and when their server is not available.",
    ..Directive::once(sticky)
};

/// How clients are kept at one server.
#[derive(Clone, Debug)]
pub enum Sticky {
    /// `cookie NAME …`: the cookie says which server.
    Cookie(StickyCookie),
    /// `route $variable …`: the first variable that has a value says which server.
    Route(Box<[VariableId]>),
    /// `learn …`: a session is found at the server that created it.
    Learn(StickyLearn),
}

/// The cookie of `sticky cookie`.
#[derive(Clone, Debug)]
pub struct StickyCookie {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its value in a request.
    pub sent: VariableId,
    /// `expires=`.
    pub expires: CookieLife,
    /// `domain=`; left out when it is empty.
    pub domain: Option<Template>,
    /// `path=`.
    pub path: Option<Box<[u8]>>,
    /// `httponly`.
    pub httponly: bool,
    /// `secure`.
    pub secure: bool,
    /// `samesite=`; left out when it is empty.
    pub samesite: Option<Template>,
}

/// How long a browser keeps a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieLife {
    /// As long as it runs.
    Session,
    /// So long.
    For(Duration),
    /// For ever: until the last day that every browser can count to.
    Max,
}

/// `sticky learn`.
#[derive(Clone, Debug)]
pub struct StickyLearn {
    /// `create=`: the session that a response begins.
    pub create: Box<[VariableId]>,
    /// `lookup=`: the session of a request.
    pub lookup: Box<[VariableId]>,
    /// Name of the table.
    pub zone: Located<Box<[u8]>>,
    /// Bytes that the table may take.
    pub size: u64,
    /// How long a session is remembered after its last use.
    pub timeout: Duration,
    /// `header`: it is learnt from the head of the response, not at its end.
    pub at_header: bool,
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

fn sticky(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Sticky> {
    let (kind, rest) = directive.args.split_first().expect("the row asks for two arguments");
    match () {
        () if kind.is("cookie") => Ok(Sticky::Cookie(cookie(reading, directive, rest)?)),
        () if kind.is("route") => {
            let names = rest.iter().map(|word| variable(reading, word, &word.value));
            Ok(Sticky::Route(names.collect::<Reads<_>>()?))
        }
        () if kind.is("learn") => Ok(Sticky::Learn(learn(reading, directive, rest)?)),
        () => Err(unknown(kind, &["cookie", "learn", "route"])),
    }
}

fn unknown(word: &Word, known: &[&'static str]) -> Diagnostic {
    let problem = Diagnostic::error(format!("unknown parameter \"{word}\"")).at(word.span, "");
    problem.maybe_help(meant_parameter(word, known))
}

/// The variable that `text`, a part of `word`, names with a `$` before it.
fn variable(reading: &mut Reading<'_>, word: &Word, text: &[u8]) -> Reads<VariableId> {
    let is_name = |name: &&[u8]| {
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    let name = text.strip_prefix(b"$").filter(is_name).ok_or_else(|| {
        let message = format!("invalid variable name \"{}\"", printable(text));
        Diagnostic::error(message).at(word.span, "must be one variable, such as `$cookie_name`")
    })?;
    Ok(reading.names.mention(&String::from_utf8_lossy(name), word.span))
}

/// Sets a parameter that may stand once.
fn once<T>(
    directive: &syntax::Directive,
    word: &Word,
    slot: &mut Option<T>,
    name: &str,
    value: T,
) -> Reads<()> {
    if slot.replace(value).is_some() {
        let what = format!("parameter \"{name}\" is duplicate");
        return Err(directive_problem(directive, word, &what));
    }
    Ok(())
}

fn cookie(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    words: &[Word],
) -> Reads<StickyCookie> {
    const KNOWN: &[&str] = &["domain", "expires", "httponly", "path", "samesite", "secure"];
    let (name, words) = words.split_first().expect("the row asks for two arguments");
    if name.value.is_empty() {
        return Err(directive_problem(directive, name, "empty cookie name"));
    }
    let (mut expires, mut domain, mut path, mut samesite) = (None, None, None, None);
    let (mut httponly, mut secure) = (None, None);
    for word in words {
        if let Some(text) = parameter(word, "domain=") {
            let text = some(directive, word, "domain", text)?;
            let template = reading.names.template(text, word.span)?;
            once(directive, word, &mut domain, "domain", template)?;
        } else if let Some(text) = parameter(word, "path=") {
            let text = some(directive, word, "path", text)?;
            once(directive, word, &mut path, "path", text.into())?;
        } else if let Some(text) = parameter(word, "expires=") {
            once(directive, word, &mut expires, "expires", life(directive, word, text)?)?;
        } else if word.is("httponly") {
            once(directive, word, &mut httponly, "httponly", ())?;
        } else if word.is("secure") {
            once(directive, word, &mut secure, "secure", ())?;
        } else if let Some(text) = parameter(word, "samesite=") {
            if !has_variables(word) && !is_samesite(text) {
                let what = "invalid \"samesite\" parameter value";
                let problem = directive_problem(directive, word, what);
                return Err(problem.help("expected `strict`, `lax` or `none`"));
            }
            let template = reading.names.template(text, word.span)?;
            once(directive, word, &mut samesite, "samesite", template)?;
        } else {
            return Err(unknown(word, KNOWN));
        }
    }
    let variable = format!("cookie_{}", String::from_utf8_lossy(&name.value));
    Ok(StickyCookie {
        name: name.value.clone(),
        sent: reading.names.mention(&variable, name.span),
        expires: expires.unwrap_or(CookieLife::Session),
        domain,
        path,
        httponly: httponly.is_some(),
        secure: secure.is_some(),
        samesite,
    })
}

/// A value of `samesite` that browsers know.
pub fn is_samesite(text: &[u8]) -> bool {
    ["strict", "lax", "none"].iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

fn some<'w>(
    directive: &syntax::Directive,
    word: &Word,
    name: &str,
    text: &'w [u8],
) -> Reads<&'w [u8]> {
    match text {
        [] => Err(directive_problem(directive, word, &format!("no value for \"{name}\""))),
        text => Ok(text),
    }
}

fn life(directive: &syntax::Directive, word: &Word, text: &[u8]) -> Reads<CookieLife> {
    if text == b"max" {
        return Ok(CookieLife::Max);
    }
    let life = value::seconds(text).map(CookieLife::For);
    life.ok_or_else(|| directive_problem(directive, word, "invalid \"expires\" parameter value"))
}

fn learn(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    words: &[Word],
) -> Reads<StickyLearn> {
    const KNOWN: &[&str] = &["create", "header", "lookup", "timeout", "zone"];
    let (mut create, mut lookup) = (Vec::new(), Vec::new());
    let (mut zone, mut timeout, mut at_header) = (None, None, false);
    let problem = |word, what: &str| directive_problem(directive, word, what);
    for word in words {
        if let Some(text) = parameter(word, "zone=") {
            if zone.replace(sized_zone(directive, word, text)?).is_some() {
                return Err(problem(word, "duplicate zone"));
            }
        } else if let Some(text) = parameter(word, "timeout=") {
            let time = value::duration(text).filter(|time| !time.is_zero());
            let time = time.ok_or_else(|| problem(word, "invalid timeout"))?;
            if timeout.replace(time).is_some() {
                return Err(problem(word, "duplicate timeout"));
            }
        } else if let Some(text) = parameter(word, "create=") {
            create.push(session(reading, directive, word, "create", text)?);
        } else if let Some(text) = parameter(word, "lookup=") {
            lookup.push(session(reading, directive, word, "lookup", text)?);
        } else if word.is("header") {
            at_header = true;
        } else if word.is("sync") {
            let help = "sessions are shared by all workers of this process, not between hosts";
            return Err(unknown(word, KNOWN).help(help));
        } else {
            return Err(unknown(word, KNOWN));
        }
    }
    let missing = |name| {
        let message = format!("\"sticky\" directive \"{name}\" parameter is not specified");
        Diagnostic::error(message).at(directive.head(), "")
    };
    if lookup.is_empty() {
        return Err(missing("lookup").help("e.g. `lookup=$cookie_session`"));
    }
    if create.is_empty() {
        return Err(missing("create").help("e.g. `create=$upstream_cookie_session`"));
    }
    let (zone, size) = zone.ok_or_else(|| missing("zone").help("e.g. `zone=sessions:1m`"))?;
    Ok(StickyLearn {
        create: create.into(),
        lookup: lookup.into(),
        zone,
        size,
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        at_header,
    })
}

fn session(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    word: &Word,
    name: &str,
    text: &[u8],
) -> Reads<VariableId> {
    if text.first() != Some(&b'$') {
        let what = format!("missing variable in the \"{name}\" parameter");
        return Err(directive_problem(directive, word, &what));
    }
    variable(reading, word, text)
}

/// `NAME:SIZE`
fn sized_zone(
    directive: &syntax::Directive,
    word: &Word,
    text: &[u8],
) -> Reads<(Located<Box<[u8]>>, u64)> {
    let problem = |what: &str| directive_problem(directive, word, what);
    let colon = memchr::memchr(b':', text).ok_or_else(|| problem("zone size is not specified"))?;
    let (name, size) = (&text[..colon], &text[colon + 1..]);
    if name.is_empty() {
        return Err(problem("zone name is not specified"));
    }
    let size = value::size(size).ok_or_else(|| problem("invalid zone size"))?;
    if size < MIN_ZONE_SIZE {
        return Err(problem("zone is too small").help("a zone has at least 32k"));
    }
    Ok((Located { value: name.into(), span: word.span }, size))
}

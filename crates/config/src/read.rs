//! Readers: from the words of a directive to a typed value, with nginx's words for what is wrong.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Report, SourceMap, Span, Word, closest};

use crate::buffering::Buffers;
use crate::directive::{Parameter, Registry};
use crate::handshake_rates::HandshakeRate;
use crate::name_servers::Resolver;
use crate::names::Names;
use crate::paths::Paths;
use crate::regex::Regex;
use crate::template::{Part, Template, VariableId};
use crate::value::{self, Endpoint, Host, ListenAddr, Located};
use crate::variable::Map;
use crate::zones::Zones;

/// Turns a host name and a port into addresses.
pub type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// What readers know and collect.
pub struct Reading<'a> {
    /// Every row.
    pub(crate) registry: &'static Registry,
    /// The span of what nobody wrote: the defaults.
    pub(crate) nowhere: Span,
    /// Variables.
    pub(crate) names: Names,
    /// Problems.
    pub(crate) report: Report,
    /// Base directories.
    pub(crate) paths: &'a Paths,
    /// The texts.
    pub(crate) sources: &'a SourceMap,
    /// `map` and its kin, in order.
    pub(crate) maps: Vec<Map>,
    /// What `resolver` lines say, each once.
    pub(crate) resolvers: Vec<Resolver>,
    /// What `websocket_handshake_rate` lines say.
    pub(crate) handshake_rates: Vec<HandshakeRate>,
    /// The zones of `limit_req` and `limit_conn`.
    pub(crate) zones: Zones,
    /// Charsets that are named, as the first line that does writes them.
    pub(crate) charsets: Vec<Box<[u8]>>,
    /// Where it was said that a `charset_map` is missing.
    pub(crate) charset_problems: HashSet<Span>,
    /// Names that have been noted as having no effect.
    pub(crate) noted: HashSet<&'static str>,
    /// The buffers of access logs.
    pub(crate) log_buffers: Buffers,
    /// Log files and where each is named first.
    pub(crate) log_files: HashMap<PathBuf, Span>,
    resolve: Resolve,
}

/// The result of a reader.
pub(crate) type Reads<T> = Result<T, Diagnostic>;

impl<'a> Reading<'a> {
    /// Starts with nothing read.
    pub fn new(
        registry: &'static Registry,
        nowhere: Span,
        paths: &'a Paths,
        sources: &'a SourceMap,
        resolve: Resolve,
    ) -> Self {
        let (names, report, noted) = (Names::default(), Report::default(), HashSet::new());
        Self {
            registry,
            nowhere,
            names,
            report,
            paths,
            sources,
            maps: Vec::new(),
            resolvers: Vec::new(),
            handshake_rates: Vec::new(),
            zones: Zones::default(),
            charsets: Vec::new(),
            charset_problems: HashSet::new(),
            noted,
            log_buffers: Buffers::new(),
            log_files: HashMap::new(),
            resolve,
        }
    }

    /// Reports an error at one place.
    pub(crate) fn error(&mut self, message: impl Into<String>, span: Span) {
        self.report.push(Diagnostic::error(message).at(span, ""));
    }

    /// Compiles a word with variables.
    pub(crate) fn template(&mut self, word: &Word) -> Result<Template, Diagnostic> {
        self.names.template(&word.value, word.span)
    }

    /// Compiles a path: a text that begins with a variable stays, another is put below the prefix.
    pub(crate) fn path_template(&mut self, word: &Word) -> Result<Template, Diagnostic> {
        let template = self.template(word)?;
        if matches!(template.parts().first(), None | Some(Part::Variable(_) | Part::Capture(_))) {
            return Ok(template);
        }
        let full = self.paths.below_prefix(&word.value);
        self.names.template(full.as_os_str().as_encoded_bytes(), word.span)
    }

    /// Compiles a regular expression, whose named groups become variables.
    pub(crate) fn regex(
        &mut self,
        pattern: &[u8],
        caseless: bool,
        span: Span,
    ) -> Result<Regex, Diagnostic> {
        let mut refused = None;
        let names = &mut self.names;
        let regex = compile(pattern, caseless, span, |name| {
            names.assign_group(name).unwrap_or_else(|_| {
                refused = Some(name.to_owned());
                names.mention(name, span)
            })
        })?;
        match refused {
            Some(name) => Err(duplicate_variable(&name, span)),
            None => Ok(regex),
        }
    }

    /// The addresses of a host; `listen` takes `*` too.
    pub(crate) fn addresses(
        &self,
        endpoint: &Endpoint,
        default_port: u16,
    ) -> io::Result<Vec<ListenAddr>> {
        let port = endpoint.port.unwrap_or(default_port);
        Ok(match &endpoint.host {
            Host::Unix(path) => vec![ListenAddr::Unix(path.clone())],
            Host::Any => vec![ListenAddr::Ip(SocketAddr::from(([0, 0, 0, 0], port)))],
            Host::Ip(address) => vec![ListenAddr::Ip(SocketAddr::new(*address, port))],
            Host::Name(name) => {
                let mut found: Vec<ListenAddr> = Vec::new();
                for address in (self.resolve)(name, port)?.into_iter().map(ListenAddr::Ip) {
                    if !found.contains(&address) {
                        found.push(address);
                    }
                }
                if found.is_empty() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                found
            }
        })
    }
}

/// The system's resolver.
///
/// # Errors
/// What the system says.
pub fn system_resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs as _;
    Ok((name, port).to_socket_addrs()?.collect())
}

/// Compiles a regular expression; `slot` gives the variable for the name of each named group.
pub(crate) fn compile(
    pattern: &[u8],
    caseless: bool,
    span: Span,
    slot: impl FnMut(&str) -> VariableId,
) -> Result<Regex, Diagnostic> {
    let failed = |message: String| Diagnostic::error(message).at(span, "not a regular expression");
    let text = std::str::from_utf8(pattern)
        .map_err(|_| failed("regular expression is not UTF-8".into()))?;
    Regex::new(text, caseless, slot)
        .map_err(|error| failed(format!("pcre2_compile() failed: {error}")))
}

/// A name that may not be changed.
pub(crate) fn duplicate_variable(name: &str, span: Span) -> Diagnostic {
    Diagnostic::error(format!("the duplicate \"{name}\" variable"))
        .at(span, "belongs to the program")
}

/// `"NAME" directive WHAT`: how nginx reports what a directive's own setter refuses.
pub(crate) fn directive_problem(
    directive: &syntax::Directive,
    word: &Word,
    what: &str,
) -> Diagnostic {
    Diagnostic::error(format!("\"{}\" directive {what}", directive.name)).at(word.span, "")
}

/// `invalid value "x"`.
pub(crate) fn invalid_value(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid value \"{word}\"")).at(word.span, "")
}

/// `invalid parameter "x"`.
pub(crate) fn invalid_parameter(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid parameter \"{word}\"")).at(word.span, "")
}

/// `invalid parameter "x"`, with the known parameter that was probably meant.
pub(crate) fn unknown_parameter(word: &Word, known: &[&'static str]) -> Diagnostic {
    invalid_parameter(word).maybe_help(meant_parameter(word, known))
}

/// The names of explained parameters, for suggestions.
pub(crate) fn parameter_names(parameters: &[Parameter]) -> Vec<&'static str> {
    let name = |(written, _): &Parameter| written.split('=').next().unwrap_or_default();
    parameters.iter().map(name).collect()
}

/// Which of the known parameters was probably meant, by the name before any `=`.
pub(crate) fn meant_parameter(word: &Word, known: &[&'static str]) -> Option<String> {
    let name = word.value.split(|&byte| byte == b'=').next().unwrap_or_default();
    let names = known.iter().map(|known| known.trim_end_matches('='));
    let close = closest(name, names).filter(|close| close.as_bytes() != name);
    close.map(|close| format!("did you mean `{close}`?"))
}

/// The name behind a `$`.
pub(crate) fn variable_name(word: &Word) -> Result<String, Diagnostic> {
    match word.as_str().and_then(|text| text.strip_prefix('$')).filter(|name| !name.is_empty()) {
        Some(name) => Ok(name.to_ascii_lowercase()),
        None => Err(Diagnostic::error(format!("invalid variable name \"{word}\""))
            .at(word.span, "must be a variable")
            .help("a variable begins with `$`")),
    }
}

/// Whether a word is written `$…` anywhere.
pub(crate) fn has_variables(word: &Word) -> bool {
    word.value.contains(&b'$')
}

/// `on` or `off`, in any case.
pub(crate) fn on_or_off(directive: &syntax::Directive, word: &Word) -> Result<bool, Diagnostic> {
    if word.value.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if word.value.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        let message = format!(
            "invalid value \"{word}\" in \"{}\" directive, it must be \"on\" or \"off\"",
            directive.name
        );
        Err(Diagnostic::error(message).at(word.span, "must be `on` or `off`"))
    }
}

/// Reads a flag as `bool`.
pub(crate) fn flag(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<bool> {
    on_or_off(directive, &directive.args[0])
}

/// How sizes are written.
const SIZES: &str = "a size is written like `512`, `16k` or `1m`";

/// How times are written.
const TIMES: &str = "a time is written like `500ms`, `30s`, `1m30s` or `1h`";

/// Reads a number as `u64`.
pub(crate) fn number(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<u64> {
    let word = &directive.args[0];
    let value = value::number(&word.value)
        .ok_or_else(|| directive_problem(directive, word, "invalid number"))?;
    Ok(value)
}

/// Reads a size as `u64`.
pub(crate) fn size(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<u64> {
    let word = &directive.args[0];
    let value = value::size(&word.value)
        .ok_or_else(|| directive_problem(directive, word, "invalid value").help(SIZES))?;
    Ok(value)
}

/// Reads an offset as `u64`.
pub(crate) fn offset(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<u64> {
    let word = &directive.args[0];
    let value = value::offset(&word.value)
        .ok_or_else(|| directive_problem(directive, word, "invalid value").help(SIZES))?;
    Ok(value)
}

/// Reads a time as [`Duration`].
pub(crate) fn duration(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Duration> {
    let word = &directive.args[0];
    let value: Option<Duration> = value::duration(&word.value);
    value.ok_or_else(|| directive_problem(directive, word, "invalid value").help(TIMES))
}

/// Reads whole seconds as [`Duration`].
pub(crate) fn seconds(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Duration> {
    let word = &directive.args[0];
    let value: Option<Duration> = value::seconds(&word.value);
    value.ok_or_else(|| directive_problem(directive, word, "invalid value").help(TIMES))
}

/// Reads a count and a size as `(usize, usize)`.
pub(crate) fn buffers(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<(usize, usize)> {
    let [count_word, size_word] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let invalid = |word| directive_problem(directive, word, "invalid value");
    let count = value::number(&count_word.value)
        .filter(|&count| count > 0)
        .ok_or_else(|| invalid(count_word))?;
    let size =
        value::size(&size_word.value).filter(|&size| size > 0).ok_or_else(|| invalid(size_word))?;
    Ok((count as usize, size as usize))
}

/// Reads text as `Box<[u8]>`.
pub(crate) fn text(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Box<[u8]>> {
    Ok(directive.args[0].value.clone())
}

/// Reads text as `Located<Box<[u8]>>`.
pub(crate) fn located_text(
    _: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Located<Box<[u8]>>> {
    let word = &directive.args[0];
    Ok(Located { value: word.value.clone(), span: word.span })
}

/// Reads a text with variables as [`Template`].
pub(crate) fn template(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Template> {
    reading.template(&directive.args[0])
}

/// Reads a size that may hold variables as [`Template`] (of digits, when it has none).
pub(crate) fn size_template(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Template> {
    let word = &directive.args[0];
    if has_variables(word) {
        return template(reading, directive);
    }
    let bytes = value::size(&word.value)
        .ok_or_else(|| directive_problem(directive, word, "invalid value").help(SIZES))?;
    Ok(Template::text(bytes.to_string().into_bytes()))
}

/// A rate that applies; a fixed 0 is none.
pub(crate) fn rate(rate: Template) -> Option<Template> {
    Some(rate).filter(|rate| rate.as_text() != Some(b"0"))
}

/// Reads a path below the configuration's directory as `Located<PathBuf>`.
pub(crate) fn conf_path(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Located<PathBuf>> {
    let word = &directive.args[0];
    Ok(Located { value: reading.paths.below_conf(&word.value), span: word.span })
}

/// Reads a path below the prefix as [`PathBuf`].
pub(crate) fn prefix_path(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<PathBuf> {
    let path: PathBuf = reading.paths.below_prefix(&directive.args[0].value);
    Ok(path)
}

/// Reads a directive that says all by standing there, as `()`.
pub(crate) fn present(_: &mut Reading<'_>, _: &syntax::Directive) -> Reads<()> {
    Ok(())
}

/// Sets what a word asks for; a word that is given twice is warned of.
pub(crate) fn set_once(reading: &mut Reading<'_>, flag: &mut bool, word: &Word) {
    if std::mem::replace(flag, true) {
        let message = format!("duplicate value \"{word}\"");
        reading.report.push(Diagnostic::warning(message).at(word.span, ""));
    }
}

/// A network in CIDR form, or an address alone; bits right of the mask are warned of.
pub(crate) fn network(reading: &mut Reading<'_>, word: &Word) -> Option<(IpAddr, u8)> {
    let (address, bits, cut) = value::network(&word.value)?;
    if cut {
        let message = format!("low address bits of \"{word}\" are meaningless");
        reading.report.push(Diagnostic::warning(message).at(word.span, ""));
    }
    Some((address, bits))
}

/// One of a few words.
pub(crate) fn one_of<T: Copy>(word: &Word, choices: &[(&str, T)]) -> Result<T, Diagnostic> {
    let found = choices.iter().find(|(name, _)| word.value.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        invalid_value(word).help(format!("expected one of {}", names.join(", ")))
    })
}

/// The text behind `prefix` in a parameter like `weight=5`.
pub(crate) fn parameter<'w>(word: &'w Word, prefix: &str) -> Option<&'w [u8]> {
    word.value.strip_prefix(prefix.as_bytes())
}

//! `server_name`: what a virtual server is called.

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, S};
use crate::read::{Reading, Reads, parameter};
use crate::regex::Regex;
use crate::value::Located;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&SERVER_NAME];

/// `server_name`
pub(crate) static SERVER_NAME: Directive<Vec<ServerName>> = Directive {
    name: "server_name",
    contexts: S,
    arity: AtLeast(1),
    doc: "Sets the names of a virtual server.",
    ..Directive::repeated(server_name)
};

/// One name of `server_name`.
#[derive(Clone)]
pub(crate) struct ServerName {
    /// Lower case unless it is a regular expression; with its `~` as written.
    pub(crate) text: Located<Box<[u8]>>,
    /// The expression of `~…`.
    pub(crate) regex: Option<Regex>,
}

fn server_name(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<ServerName>> {
    let names: Result<Vec<ServerName>, _> =
        directive.args.iter().map(|word| one_name(reading, word)).collect();
    names
}

fn one_name(reading: &mut Reading<'_>, word: &Word) -> Result<ServerName, Diagnostic> {
    let text = &word.value;
    let bad_wildcard = text.first() == Some(&b'*') && (text.len() < 3 || text[1] != b'.');
    if bad_wildcard || **text == *b"." {
        return Err(
            Diagnostic::error(format!("server name \"{word}\" is invalid")).at(word.span, "")
        );
    }
    if text.contains(&b'/') {
        let message = format!("server name \"{word}\" has suspicious symbols");
        let problem = Diagnostic::warning(message).at(word.span, "");
        reading.report.push(problem.help("a name is only the host of a URL"));
    }
    let located = |value: Box<[u8]>| Located { value, span: word.span };
    if let Some(pattern) = parameter(word, "~") {
        if pattern.is_empty() {
            return Err(Diagnostic::error(format!("empty regex in server name \"{word}\""))
                .at(word.span, ""));
        }
        // Host names come in lower case; only a pattern with capitals would otherwise never match.
        let caseless = pattern.iter().any(u8::is_ascii_uppercase);
        let regex = reading.regex(pattern, caseless, word.span)?;
        return Ok(ServerName { text: located(text.clone()), regex: Some(regex) });
    }
    let name = if text.eq_ignore_ascii_case(b"$hostname") { hostname() } else { text.to_vec() };
    Ok(ServerName { text: located(name.to_ascii_lowercase().into()), regex: None })
}

/// The name of this machine, as the kernel knows it.
fn hostname() -> Vec<u8> {
    let name = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_ascii().to_vec()
}

//! `proxy_pass`: where requests go.

use wssgate_syntax::{self as syntax, Diagnostic, Span, printable};

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Directive, L, LI, X};
use crate::read::{Reading, Reads, has_variables};
use crate::scope::Scope;
use crate::template::Template;
use crate::upstream::{Groups, UpstreamId};
use crate::value::{UpstreamUrl, UrlError};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&PROXY_PASS];

/// `proxy_pass`
pub(crate) static PROXY_PASS: Directive<PassDraft> = Directive {
    name: "proxy_pass",
    contexts: L | LI | X,
    arity: Exactly(1),
    doc: "Passes requests to an upstream server or group.",
    ..Directive::once(proxy_pass)
};

/// `proxy_pass`.
#[derive(Clone, Debug)]
pub enum ProxyPass {
    /// The URL had no variables.
    Fixed(FixedPass),
    /// The URL is made for each request.
    Variable(Template),
}

/// `proxy_pass` to a place known at load time.
#[derive(Clone, Debug)]
pub struct FixedPass {
    /// `https://`.
    pub tls: bool,
    /// The group of peers.
    pub upstream: UpstreamId,
    /// `$proxy_host`: name, and port unless it is the scheme's default; `localhost` for Unix
    /// sockets without a name.
    pub host: Box<[u8]>,
    /// `$proxy_port`; empty for Unix sockets.
    pub port: Box<[u8]>,
    /// The URI part with which the matched part of the request's path is replaced.
    pub uri: Option<Box<[u8]>>,
    /// The prefix of the location where `proxy_pass` was written, which `uri` replaces.
    pub location_prefix: Box<[u8]>,
}

/// `proxy_pass` before its host is looked up.
#[derive(Clone)]
pub(crate) enum PassDraft {
    /// With variables.
    Variable(Template),
    /// Without.
    Fixed {
        url: UpstreamUrl,
        /// As written.
        text: Box<[u8]>,
        span: Span,
    },
}

fn proxy_pass(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<PassDraft> {
    let word = &directive.args[0];
    if has_variables(word) {
        return reading.template(word).map(PassDraft::Variable);
    }
    let url = UpstreamUrl::parse(&word.value).map_err(|error| match error {
        UrlError::Scheme => Diagnostic::error("invalid URL prefix")
            .at(word.span, "must begin with a scheme")
            .help(match word.value.starts_with(b"ws") && word.value.contains(&b'/') {
                true => {
                    "write `http` for `ws` and `https` for `wss`: a WebSocket begins as an HTTP \
                     request"
                }
                false => "write `http://` or `https://` before the host",
            }),
        UrlError::Endpoint { text, reason } => {
            let message = format!("{reason} in upstream \"{}\"", printable(text));
            Diagnostic::error(message).at(word.span, "")
        }
    })?;
    Ok(PassDraft::Fixed { url, text: word.value.clone(), span: word.span })
}

/// The `proxy_pass` written on this level. `prefix` is what the location's name matches as a path; a location of any
/// other kind has none.
pub(crate) fn own_pass(
    reading: &mut Reading<'_>,
    groups: &mut Groups,
    scope: &Scope<'_, '_>,
    prefix: Option<&[u8]>,
) -> Option<ProxyPass> {
    match scope.level.last(&PROXY_PASS)? {
        PassDraft::Variable(url) => Some(ProxyPass::Variable(url.clone())),
        PassDraft::Fixed { url, span, .. } => {
            let upstream = groups.group_for(reading, url, *span);
            if prefix.is_none() && !url.endpoint.uri.is_empty() {
                let message = "\"proxy_pass\" cannot have URI part in location given by regular \
                    expression, or inside named location, or inside \"if\" statement, or inside \
                    \"limit_except\" block";
                let problem = Diagnostic::error(message).at(*span, "");
                let help = "remove the path, from the `/` after the host on";
                reading.report.push(problem.help(help));
            }
            let (host, port) = url.host_and_port();
            Some(ProxyPass::Fixed(FixedPass {
                tls: url.tls,
                upstream: upstream?,
                host: host.into(),
                port: port.into(),
                uri: Some(&url.endpoint.uri[..]).filter(|uri| !uri.is_empty()).map(Into::into),
                location_prefix: prefix.unwrap_or_default().into(),
            }))
        }
    }
}

/// Whether TLS may be spoken to the upstream.
pub(crate) fn uses_tls(pass: Option<&ProxyPass>) -> bool {
    match pass {
        Some(ProxyPass::Fixed(pass)) => pass.tls,
        Some(ProxyPass::Variable(_)) => true,
        None => false,
    }
}

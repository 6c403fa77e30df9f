//! `proxy_pass`: where requests go.

use wssgate_syntax::{self as syntax, Diagnostic, Span};

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Directive, L, LI, X};
use crate::location::{Content, LocationKind, Position};
use crate::read::{Reading, Reads, has_variables};
use crate::resolve::Resolver;
use crate::scope::Scope;
use crate::template::Template;
use crate::upstream::UpstreamId;
use crate::value::{self, Endpoint, Form, Host};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&PROXY_PASS];

/// `proxy_pass`
pub(crate) static PROXY_PASS: Directive<PassDraft> = Directive {
    name: "proxy_pass",
    contexts: L | LI | X,
    arity: Exactly(1),
    doc: "Passes requests to an upstream.",
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
        tls: bool,
        endpoint: Endpoint,
        /// As written.
        url: Box<[u8]>,
        span: Span,
    },
}

fn proxy_pass(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<PassDraft> {
    let word = &directive.args[0];
    if has_variables(word) {
        return reading.template(word).map(PassDraft::Variable);
    }
    let (tls, rest) = match split_scheme(&word.value) {
        Some(found) => found,
        None => {
            let problem =
                Diagnostic::error("invalid URL prefix").at(word.span, "must begin with a scheme");
            return Err(problem.help("write `http://` or `https://` before the host"));
        }
    };
    let endpoint = value::endpoint(rest, Form::Url).map_err(|error| {
        let rest = wssgate_syntax::printable(rest);
        Diagnostic::error(format!("{error} in upstream \"{rest}\"")).at(word.span, "")
    })?;
    Ok(PassDraft::Fixed { tls, endpoint, url: word.value.clone(), span: word.span })
}

/// Whether TLS is asked for, and what follows the scheme.
fn split_scheme(url: &[u8]) -> Option<(bool, &[u8])> {
    let after = |scheme: &[u8]| {
        let (start, rest) = url.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    after(b"http://")
        .map(|rest| (false, rest))
        .or_else(|| after(b"https://").map(|rest| (true, rest)))
}

impl Resolver<'_, '_> {
    /// The `proxy_pass` written on this level.
    pub(crate) fn own_pass(
        &mut self,
        scope: &Scope<'_, '_>,
        position: &Position,
    ) -> Option<ProxyPass> {
        match scope.level.last(&PROXY_PASS)? {
            PassDraft::Variable(url) => Some(ProxyPass::Variable(url)),
            PassDraft::Fixed { tls, endpoint, span, .. } => {
                let upstream = self.upstream_for(&endpoint, default_port(tls), span);
                let plain = matches!(
                    position.kind,
                    LocationKind::Exact | LocationKind::Prefix | LocationKind::PrefixFinal
                );
                if !plain && !endpoint.uri.is_empty() {
                    let message = "\"proxy_pass\" cannot have URI part in location given by regular \
                        expression, or inside named location, or inside \"if\" statement, or inside \
                        \"limit_except\" block";
                    let problem = Diagnostic::error(message).at(span, "");
                    let help = "leave out everything from the `/` behind the host on";
                    self.reading.report.push(problem.help(help));
                }
                let (host, port) = host_and_port(&endpoint, tls);
                Some(ProxyPass::Fixed(FixedPass {
                    tls,
                    upstream: upstream?,
                    host: host.into(),
                    port: port.into(),
                    uri: Some(endpoint.uri).filter(|uri| !uri.is_empty()).map(Into::into),
                    location_prefix: if plain { position.name.clone() } else { Box::default() },
                }))
            }
        }
    }
}

/// Whether TLS may be spoken to the upstream.
pub(crate) fn uses_tls(content: &Content) -> bool {
    match content {
        Content::Proxy(ProxyPass::Fixed(pass)) => pass.tls,
        Content::Proxy(ProxyPass::Variable(_)) => true,
        _ => false,
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// `$proxy_host` and `$proxy_port`.
fn host_and_port(endpoint: &Endpoint, tls: bool) -> (Vec<u8>, Vec<u8>) {
    if matches!(endpoint.host, Host::Unix(_)) {
        return (b"localhost".to_vec(), Vec::new());
    }
    let port = endpoint.port.unwrap_or(default_port(tls));
    let mut host = endpoint.host_text.clone();
    if port != default_port(tls) {
        host.extend_from_slice(format!(":{port}").as_bytes());
    }
    (host, port.to_string().into_bytes())
}

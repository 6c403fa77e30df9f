//! `proxy_pass` and the settings that go with it.

use std::path::PathBuf;

use wssgate_syntax::{Diagnostic, Span};

use crate::directives::proxy::{CookieDraft, NO_NEXT, PassDraft, RedirectDraft};
use crate::draft::Entry;
use crate::model::{
    Content, FixedPass, Located, LocationKind, NextUpstream, ProxyPass, ProxyRedirect,
    ProxySettings, ProxyTls, TlsProtocols,
};
use crate::template::Template;
use crate::value::{Endpoint, Host};

use super::location::Place;
use super::server::union;
use super::{Resolver, Scope};

/// Rules of `proxy_redirect` on the way down: whether they apply, and those that are known.
#[derive(Clone, Default)]
pub(crate) struct Redirects {
    /// `off` was not said.
    pub(crate) on: bool,
    /// Own rules or those of an outer level, its default one too.
    pub(crate) rules: Option<Vec<ProxyRedirect>>,
}

impl Redirects {
    /// What applies.
    pub(crate) fn effective(&self) -> Vec<ProxyRedirect> {
        self.rules.clone().filter(|_| self.on).unwrap_or_default()
    }
}

/// The fields of upstream answers that clients never see, unless `proxy_pass_header` names them.
const HIDDEN: [&str; 8] = [
    "date",
    "server",
    "x-pad",
    "x-accel-expires",
    "x-accel-redirect",
    "x-accel-limit-rate",
    "x-accel-buffering",
    "x-accel-charset",
];

impl Resolver<'_, '_> {
    /// The `proxy_pass` written on this level.
    pub(crate) fn own_pass(&mut self, scope: &Scope<'_, '_>, place: &Place) -> Option<ProxyPass> {
        match scope.level.named("proxy_pass").next()?.value::<PassDraft>()? {
            PassDraft::Variable(url) => Some(ProxyPass::Variable(url)),
            PassDraft::Fixed { tls, endpoint, span, .. } => {
                let upstream = self.upstream_for(&endpoint, default_port(tls), span);
                let plain = matches!(
                    place.kind,
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
                    location_prefix: if plain { place.name.clone() } else { Box::default() },
                }))
            }
        }
    }

    /// The `proxy_redirect` rules that apply on a level, given those of the outer one.
    pub(crate) fn redirects(
        &mut self,
        scope: &Scope<'_, '_>,
        outer: &Redirects,
        place: &Place,
    ) -> Redirects {
        let default = own_default(scope, place);
        let mut own: Vec<ProxyRedirect> = Vec::new();
        let mut off = false;
        for entry in scope.level.named("proxy_redirect") {
            let duplicate = match entry.value::<RedirectDraft>() {
                Some(RedirectDraft::Off(span)) => {
                    let duplicate = off || !own.is_empty();
                    off = true;
                    duplicate.then_some(span)
                }
                Some(RedirectDraft::Default(span)) => {
                    own.extend(self.explicit_default(scope, entry, &default, span));
                    off.then_some(span)
                }
                Some(RedirectDraft::Rule(rule)) => {
                    own.push(rule);
                    off.then(|| entry.directive.head())
                }
                None => None,
            };
            if let Some(span) = duplicate {
                self.error("\"proxy_redirect\" directive is duplicate", span);
            }
        }
        let said = scope.level.has("proxy_redirect");
        let on = if said { !off } else { outer.on };
        let mut rules = Some(own).filter(|own| !own.is_empty());
        if on && rules.is_none() {
            rules = outer.rules.clone().or_else(|| default.map(|rule| vec![rule]));
        }
        Redirects { on, rules }
    }

    fn explicit_default(
        &mut self,
        scope: &Scope<'_, '_>,
        entry: &Entry<'_>,
        default: &Option<ProxyRedirect>,
        span: Span,
    ) -> Option<ProxyRedirect> {
        let pass = scope.level.named("proxy_pass").next();
        let message = match pass.and_then(|pass| Some((pass.value()?, pass.directive.span))) {
            Some((PassDraft::Variable(_), _)) => {
                "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables"
            }
            Some((PassDraft::Fixed { .. }, pass_span))
                if pass_span.file != entry.directive.span.file
                    || pass_span.start < entry.directive.span.start =>
            {
                return default.clone();
            }
            _ => "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive",
        };
        self.error(message, span);
        None
    }

    /// Everything else about passing requests on.
    pub(crate) fn proxy_settings(
        &mut self,
        scope: &Scope<'_, '_>,
        redirects: &Redirects,
        content: &Content,
    ) -> ProxySettings {
        let (buffer_size, buffers, busy_buffers_size) = self.buffers(scope);
        let pass_headers: Vec<Box<[u8]>> = scope.all("proxy_pass_header");
        ProxySettings {
            http11: scope.one("proxy_http_version"),
            websocket: scope.one("websocket"),
            websocket_tcp_user_timeout: scope.one("websocket_tcp_user_timeout"),
            set_headers: scope.all("proxy_set_header"),
            set_body: scope.maybe("proxy_set_body"),
            method: scope.maybe("proxy_method"),
            pass_request_headers: scope.one("proxy_pass_request_headers"),
            pass_request_body: scope.one("proxy_pass_request_body"),
            connect_timeout: scope.one("proxy_connect_timeout"),
            read_timeout: scope.one("proxy_read_timeout"),
            send_timeout: scope.one("proxy_send_timeout"),
            next_upstream: next_upstream(scope),
            next_upstream_timeout: scope.one("proxy_next_upstream_timeout"),
            next_upstream_tries: scope.small("proxy_next_upstream_tries"),
            buffering: scope.one("proxy_buffering"),
            request_buffering: scope.one("proxy_request_buffering"),
            buffer_size,
            buffers,
            busy_buffers_size,
            redirects: redirects.effective(),
            hide_headers: hidden(scope, &pass_headers),
            pass_headers,
            ignore_headers: scope.all::<Vec<Box<[u8]>>>("proxy_ignore_headers").concat(),
            intercept_errors: scope.one("proxy_intercept_errors"),
            ignore_client_abort: scope.one("proxy_ignore_client_abort"),
            socket_keepalive: scope.one("proxy_socket_keepalive"),
            bind: scope.maybe::<Option<Template>>("proxy_bind").flatten(),
            limit_rate: limit(scope.one("proxy_limit_rate")),
            force_ranges: scope.one("proxy_force_ranges"),
            pass_trailers: scope.one("proxy_pass_trailers"),
            cookie_domains: self.cookie_rules(scope, "proxy_cookie_domain"),
            cookie_paths: self.cookie_rules(scope, "proxy_cookie_path"),
            cookie_flags: self.cookie_rules(scope, "proxy_cookie_flags"),
            tls: self.proxy_tls(scope, uses_tls(content)),
        }
    }

    /// The rules of a `proxy_cookie_…` directive, which `off` must be the only one of.
    fn cookie_rules<T: Clone + 'static>(&mut self, scope: &Scope<'_, '_>, name: &str) -> Vec<T> {
        let Some(found) = scope.nearest(&[name]) else {
            return Vec::new();
        };
        let drafts: Vec<CookieDraft<T>> = found.all(name);
        if drafts.len() > 1 && drafts.iter().any(Option::is_none) {
            let second = found.level.named(name).nth(1);
            let span = second.map_or(self.nowhere, |entry| entry.directive.head());
            self.error(format!("\"{name}\" directive is duplicate"), span);
        }
        drafts.into_iter().flatten().collect()
    }

    /// Buffer sizes, which must fit each other as nginx has it.
    fn buffers(&mut self, scope: &Scope<'_, '_>) -> (usize, (usize, usize), usize) {
        let size = scope.count("proxy_buffer_size");
        let (count, each): (usize, usize) = scope.one("proxy_buffers");
        let largest = size.max(each);
        let busy = scope.maybe::<u64>("proxy_busy_buffers_size");
        let busy = busy.map_or(largest.saturating_mul(2), |busy| busy as usize);
        let message = if count < 2 {
            "there must be at least 2 \"proxy_buffers\""
        } else if busy < largest {
            "\"proxy_busy_buffers_size\" must be equal to or greater than the maximum of the value of \
             \"proxy_buffer_size\" and one of the \"proxy_buffers\""
        } else if busy > (count - 1).saturating_mul(each) {
            "\"proxy_busy_buffers_size\" must be less than the size of all \"proxy_buffers\" minus one \
             buffer"
        } else {
            return (size, (count, each), busy);
        };
        let names = ["proxy_busy_buffers_size", "proxy_buffers", "proxy_buffer_size"];
        let mut problem = Diagnostic::error(message);
        for name in names {
            let written = scope.nearest(&[name]).and_then(|found| found.level.named(name).next());
            if let Some(entry) = written.filter(|entry| entry.directive.span != self.nowhere) {
                problem = problem.at(entry.directive.head(), "");
            }
        }
        self.reading.report.push(problem);
        (size, (count, each), busy)
    }

    fn proxy_tls(&mut self, scope: &Scope<'_, '_>, used: bool) -> ProxyTls {
        let certificate =
            scope.maybe::<Option<Located<PathBuf>>>("proxy_ssl_certificate").flatten();
        let key = scope.maybe::<Option<Located<PathBuf>>>("proxy_ssl_certificate_key").flatten();
        if let (true, Some(certificate), None) = (used, &certificate, &key) {
            let path = certificate.value.display();
            let message =
                format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{path}\"");
            self.error(message, certificate.span);
        }
        let verify: bool = scope.one("proxy_ssl_verify");
        let trusted_certificate = scope.maybe("proxy_ssl_trusted_certificate");
        if used && verify && trusted_certificate.is_none() {
            let found = scope.nearest(&["proxy_ssl_verify"]);
            let entry = found.and_then(|found| found.level.named("proxy_ssl_verify").next());
            let message = "no proxy_ssl_trusted_certificate for proxy_ssl_verify";
            let span = entry.map_or(self.nowhere, |entry| entry.directive.head());
            self.error(message, span);
        }
        ProxyTls {
            server_name: scope.one("proxy_ssl_server_name"),
            name: scope.maybe("proxy_ssl_name"),
            verify,
            verify_depth: scope.small("proxy_ssl_verify_depth"),
            trusted_certificate,
            crl: scope.maybe("proxy_ssl_crl"),
            certificate: certificate.zip(key),
            password_file: scope.maybe("proxy_ssl_password_file"),
            protocols: union(&scope.all::<TlsProtocols>("proxy_ssl_protocols")),
            ciphers: scope.one("proxy_ssl_ciphers"),
            session_reuse: scope.one("proxy_ssl_session_reuse"),
        }
    }
}

/// Whether TLS may be spoken to the upstream.
fn uses_tls(content: &Content) -> bool {
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

/// What `proxy_redirect default` means on a level that has a `proxy_pass` without variables.
fn own_default(scope: &Scope<'_, '_>, place: &Place) -> Option<ProxyRedirect> {
    match scope.level.named("proxy_pass").next()?.value::<PassDraft>()? {
        PassDraft::Variable(_) => None,
        PassDraft::Fixed { url, endpoint, .. } if endpoint.uri.is_empty() => {
            let from = [&url[..], b"/"].concat();
            Some(ProxyRedirect::Prefix { from: Template::text(from), to: Template::text(*b"/") })
        }
        PassDraft::Fixed { url, .. } => Some(ProxyRedirect::Prefix {
            from: Template::text(url),
            to: Template::text(place.name.clone()),
        }),
    }
}

/// Hidden fields: those of the directive and the built-in ones, without those that are passed.
fn hidden(scope: &Scope<'_, '_>, passed: &[Box<[u8]>]) -> Vec<Box<[u8]>> {
    let mut hidden: Vec<Box<[u8]>> = scope.all("proxy_hide_header");
    let builtin = HIDDEN.iter().map(|name| Box::<[u8]>::from(name.as_bytes()));
    for name in builtin {
        if !hidden.contains(&name) && !passed.contains(&name) {
            hidden.push(name);
        }
    }
    hidden
}

/// A rate; a fixed 0 is none.
pub(crate) fn limit(rate: Template) -> Option<Template> {
    Some(rate).filter(|rate| rate.as_text() != Some(b"0"))
}

/// The conditions of all lines of a level together; `off` turns them all off.
fn next_upstream(scope: &Scope<'_, '_>) -> NextUpstream {
    let lines: Vec<(NextUpstream, bool)> = scope.all("proxy_next_upstream");
    if lines.iter().any(|(_, off)| *off) {
        return NO_NEXT;
    }
    let any = |field: fn(&NextUpstream) -> bool| lines.iter().any(|(line, _)| field(line));
    NextUpstream {
        error: any(|line| line.error),
        timeout: any(|line| line.timeout),
        invalid_header: any(|line| line.invalid_header),
        non_idempotent: any(|line| line.non_idempotent),
        http_403: any(|line| line.http_403),
        http_404: any(|line| line.http_404),
        http_429: any(|line| line.http_429),
        http_500: any(|line| line.http_500),
        http_502: any(|line| line.http_502),
        http_503: any(|line| line.http_503),
        http_504: any(|line| line.http_504),
    }
}

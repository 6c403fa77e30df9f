//! Metrics that everybody can read.

use wssgate_syntax::Diagnostic;

use super::{Adviser, Place};
use crate::access::{ALLOW, DENY};
use crate::advice_kind::Advice;
use crate::auth_basic::AUTH_BASIC;
use crate::auth_jwt::AUTH_JWT;
use crate::auth_request::AUTH_REQUEST;
use crate::listen::LISTEN;
use crate::location::PROMETHEUS;
use crate::rewrite::{IF, RETURN};
use crate::scope::Scope;
use crate::settings::INTERNAL;
use crate::tls::SSL_VERIFY_CLIENT;
use crate::value::ListenAddr;

impl Adviser<'_, '_> {
    /// Speaks of `prometheus` where nothing asks who comes.
    pub(super) fn public_metrics(&mut self, place: &Place<'_, '_, '_>) {
        let scope = place.scope;
        let Some(line) = scope.level.lines(&PROMETHEUS).next() else { return };
        if !place.is_reached_by_path() || self.asks_who_comes(scope) || is_local(scope) {
            return;
        }
        let message = "metrics can be read by everybody who can connect";
        let problem = Diagnostic::information(message)
            .at(line.directive.head(), "no rule for access applies here")
            .help(
                "add `allow` with the address of Prometheus and `deny all`, or listen on 127.0.0.1",
            );
        self.tell(scope, Advice::PublicMetrics, problem);
    }

    /// Whether there is any rule for access, whatever it says.
    fn asks_who_comes(&self, scope: &Scope<'_, '_>) -> bool {
        let nowhere = self.reading.nowhere;
        scope.nearest(&[&ALLOW, &DENY]).is_some()
            || scope.written_at(&AUTH_BASIC, nowhere).is_some()
            || scope.written_at(&AUTH_JWT, nowhere).is_some()
            || scope.written_at(&AUTH_REQUEST, nowhere).is_some()
            || scope.written_at(&SSL_VERIFY_CLIENT, nowhere).is_some()
            || scope.level.has(&INTERNAL)
            || refuses_some(scope)
    }
}

/// Whether a level or one around it may turn requests away by rewrites.
fn refuses_some(scope: &Scope<'_, '_>) -> bool {
    let level = scope.level;
    level.has(&IF) || level.has(&RETURN) || scope.outer.is_some_and(refuses_some)
}

/// Whether only programs of this machine can connect.
fn is_local(scope: &Scope<'_, '_>) -> bool {
    let Some(level) = scope.nearest(&[&LISTEN]) else { return false };
    level.values(&LISTEN).flat_map(|listen| listen.addresses).all(|address| match address {
        ListenAddr::Ip(address) => address.ip().is_loopback(),
        ListenAddr::Unix(_) => true,
    })
}

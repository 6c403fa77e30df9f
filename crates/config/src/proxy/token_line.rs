//! A line that sets the field in which `websocket_token` sends a token: it would say something else.

use wssgate_syntax::{Diagnostic, printable};

use crate::proxy::PROXY_SET_HEADER;
use crate::read::Reading;
use crate::scope::Scope;
use crate::websocket::token::WEBSOCKET_TOKEN;

/// Reports such a line once, on the level where the two meet.
pub(super) fn check(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) {
    if !scope.level.has(&WEBSOCKET_TOKEN) && !scope.level.has(&PROXY_SET_HEADER) {
        return;
    }
    let Some(token) = scope.get(&WEBSOCKET_TOKEN) else { return };
    let level = scope.nearest(&[&PROXY_SET_HEADER]);
    let mut lines = level.into_iter().flat_map(|level| level.lines(&PROXY_SET_HEADER));
    let line = lines
        .find(|line| line.value.is_some_and(|(name, _)| name.eq_ignore_ascii_case(&token.field)));
    if let (Some(line), Some(place)) = (line, scope.written_at(&WEBSOCKET_TOKEN, reading.nowhere)) {
        let name = printable(&token.field);
        let problem = Diagnostic::error(format!("both set \"{name}\" for the upstream server"))
            .at(line.directive.head(), "")
            .at(place, "sends the token in it");
        reading.report.push(problem.help("leave the `proxy_set_header` line out"));
    }
}

//! `Origin` and `Host`: app servers compare them, and a proxy that changes one of them makes every handshake fail.

use wssgate_syntax::Diagnostic;

use super::{Adviser, Known, Place, SetHeaders, known};
use crate::advice_kind::Advice;
use crate::level::Level;
use crate::rewrite::condition::Condition;
use crate::rewrite::{IF, RETURN, REWRITE, RewriteOp};
use crate::scope::Scope;
use crate::server_name::SERVER_NAME;
use crate::template::VariableId;
use crate::variable::{Builtin, MapKind, Variable};

impl Adviser<'_, '_> {
    /// Somebody who checks where WebSockets come from passes them on with another `Host`.
    pub(super) fn host_and_origin(&mut self, place: &Place<'_, '_, '_>) {
        let headers = SetHeaders::of(place.scope);
        let websockets = place.is_named_for_websockets() || headers.line("upgrade").is_some();
        let Some(line) = headers.line("host").filter(|_| websockets) else { return };
        if headers.line("origin").is_some() || !self.is_other_host(place.scope, &line) {
            return;
        }
        let Some(check) = self.origin_check(place.scope) else { return };
        let message = "the app server gets a \"Host\" that differs from the browser's \"Origin\"";
        let problem = Diagnostic::warning(message)
            .at(line.directive.head(), "not the host that the page came from")
            .at(check, "the origin is checked here, and by many app servers against the host");
        let problem = problem.help("write `proxy_set_header Host $host;`");
        self.tell(place.scope, Advice::HostAndOrigin, problem);
    }

    fn is_other_host(&self, scope: &Scope<'_, '_>, line: &super::HeaderLine<'_, '_>) -> bool {
        let Some((_, value)) = line.value else { return false };
        match known(self.reading, value) {
            Known::Text(b"") => false,
            Known::Text(text) => !server_names(scope).any(|name| name.eq_ignore_ascii_case(text)),
            Known::Variable(_, Variable::Builtin(builtin)) => *builtin == Builtin::ProxyHost,
            Known::Variable(..) | Known::Open => false,
        }
    }

    /// Where the origin of requests is checked.
    fn origin_check(&self, scope: &Scope<'_, '_>) -> Option<wssgate_syntax::Span> {
        self.check_in(scope.level).or_else(|| self.origin_check(scope.outer?))
    }

    fn check_in(&self, level: &Level<'_>) -> Option<wssgate_syntax::Span> {
        let line = level.lines(&IF).find(|line| {
            let variable = match line.value {
                Some(
                    Condition::True(variable)
                    | Condition::Equal { variable, .. }
                    | Condition::Matches { variable, .. },
                ) => *variable,
                _ => return false,
            };
            self.is_of_origin(variable) && line.level.is_some_and(refuses)
        })?;
        Some(line.directive.head())
    }

    /// Whether a variable is the origin, or made from it.
    fn is_of_origin(&self, variable: VariableId) -> bool {
        match &self.reading.names.slot_of(variable).meaning {
            Variable::RequestHeader(field) => **field == *b"origin",
            Variable::Map(id) => match self.reading.maps.get(id.0).map(|map| &map.kind) {
                Some(MapKind::Map { source, .. }) => matches!(
                    known(self.reading, source),
                    Known::Variable(_, Variable::RequestHeader(field)) if **field == *b"origin"
                ),
                _ => false,
            },
            _ => false,
        }
    }
}

/// Whether requests that come to a level are turned away. Fields for CORS are added to others.
fn refuses(level: &Level<'_>) -> bool {
    level.lines_of([&RETURN, &REWRITE]).any(|line| match line.value {
        Some(RewriteOp::Return(answer)) => (400..500).contains(&answer.status),
        Some(RewriteOp::Rewrite(_)) => true,
        _ => false,
    })
}

fn server_names<'s>(scope: &Scope<'s, '_>) -> impl Iterator<Item = Box<[u8]>> + 's {
    let level = scope.nearest(&[&SERVER_NAME]);
    let names = level.into_iter().flat_map(|level| level.values(&SERVER_NAME).flatten());
    names.map(|name| name.text.value)
}

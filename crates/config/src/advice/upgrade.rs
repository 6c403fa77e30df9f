//! The two lines that nginx needs for an upgrade: how they go wrong, and how they get lost.

use std::collections::HashMap;

use wssgate_syntax::{Diagnostic, Span, closest, printable};

use super::{Adviser, HeaderLine, Known, Place, SetHeaders, known, line_in};
use crate::advice_kind::Advice;
use crate::ignored::ignored;
use crate::misspelt::misspelt_field;
use crate::proxy::{PROXY_HTTP_VERSION, PROXY_READ_TIMEOUT};
use crate::read::Reading;
use crate::scope::Scope;
use crate::template::Template;
use crate::tunnels::{FrameCheck, Sides, WEBSOCKET_CHECK, WEBSOCKET_PING_INTERVAL};
use crate::variable::{Builtin, MapKind, Variable};
use crate::websocket::WEBSOCKET;

/// What makes the two lines right.
const LINES: &str = "write `proxy_set_header Upgrade $http_upgrade;` and `proxy_set_header \
    Connection upgrade;`, or neither: `websocket on`, the default, passes WebSockets without";

/// Places where idle WebSockets end soon.
#[derive(Default)]
pub(super) struct IdlePlaces {
    first: Option<Diagnostic>,
    more: usize,
}

/// Places where lines of outer levels do not apply.
#[derive(Default)]
pub(super) struct LostLines {
    all: Vec<Lost>,
    by_line: HashMap<Span, usize>,
}

struct Lost {
    diagnostic: Diagnostic,
    more: usize,
}

impl Adviser<'_, '_> {
    /// What becomes of upgrades in a location that passes requests on.
    pub(super) fn upgrade(&mut self, place: &Place<'_, '_, '_>) {
        let headers = SetHeaders::of(place.scope);
        let (upgrade, connection) = (headers.line("upgrade"), headers.line("connection"));
        let wanted = upgrade.as_ref().filter(|line| !sends_nothing(line));
        let misnamed = wanted.and_then(|upgrade| self.no_protocol(upgrade));
        let problem = misnamed.or_else(|| match (wanted, &connection) {
            (Some(upgrade), None) => Some(
                Diagnostic::warning("\"Upgrade\" is sent without \"Connection\", upgrades fail")
                    .at(upgrade.directive.head(), "has no effect without the other line")
                    .help(LINES),
            ),
            (Some(upgrade), Some(connection)) => self.no_upgrade(connection).map(|why| {
                Diagnostic::warning("\"Connection\" does not ask for the upgrade, upgrades fail")
                    .at(connection.directive.head(), why)
                    .at(upgrade.directive.head(), "has no effect without it")
                    .help(LINES)
            }),
            (None, Some(connection)) => self.lone_connection(place, connection),
            (None, None) => None,
        });
        // How long a WebSocket lasts is of interest where one is opened at all.
        match (problem.or_else(|| self.old_version(place, wanted.is_some())), wanted) {
            (Some(problem), _) => self.tell(place.scope, Advice::UpgradeHeaders, problem),
            (None, Some(upgrade)) => self.idle(place, upgrade.directive.head()),
            (None, None) => {}
        }
        if upgrade.is_none() && connection.is_none() {
            self.lost(place.scope, place.span());
        }
    }

    /// A `Connection` line without an `Upgrade` line. Ordinary locations have one to keep connections to their upstream.
    fn lone_connection(
        &self,
        place: &Place<'_, '_, '_>,
        connection: &HeaderLine<'_, '_>,
    ) -> Option<Diagnostic> {
        let (_, value) = connection.value?;
        let text = match known(self.reading, value) {
            Known::Text(text) => text,
            _ => return None,
        };
        let (message, label) = match names_upgrade(text) {
            true => (
                "\"Connection\" asks for an upgrade without \"Upgrade\", upgrades fail",
                "has no effect without the other line",
            ),
            false if place.is_named_for_websockets() => (
                "\"Connection\" disables upgrades in a location for WebSockets",
                "replaces what would be sent for an upgrade",
            ),
            false => return None,
        };
        let problem = Diagnostic::warning(message).at(connection.directive.head(), label);
        let problem = if names_upgrade(text) { problem } else { problem.at(place.span(), "") };
        Some(problem.help(LINES))
    }

    /// Why the `Upgrade` line names no protocol.
    fn no_protocol(&self, line: &HeaderLine<'_, '_>) -> Option<Diagnostic> {
        let (_, value) = line.value?;
        let label = match known(self.reading, value) {
            Known::Text(text) => {
                let mistaken = [b"http_upgrade".as_slice(), b"upgrade", b"connection_upgrade"];
                let is = |other: &&[u8]| text.eq_ignore_ascii_case(other);
                mistaken.iter().any(is).then(|| "this text is sent as is".to_owned())?
            }
            // A misspelt name is told of where it stands.
            Known::Variable(name, Variable::RequestHeader(field))
                if **field != *b"upgrade" && !is_misspelt(name) =>
            {
                format!("`${name}` is the client's header \"{}\"", printable(field))
            }
            _ => return None,
        };
        let problem = Diagnostic::warning("\"Upgrade\" names no protocol, upgrades fail");
        Some(problem.at(line.directive.head(), label).help("did you mean `$http_upgrade`?"))
    }

    /// Why a `Connection` line asks for no upgrade when a WebSocket is wanted.
    fn no_upgrade(&self, line: &HeaderLine<'_, '_>) -> Option<String> {
        let (_, value) = line.value?;
        match known(self.reading, value) {
            Known::Text(text) if names_upgrade(text) => None,
            Known::Text(b"") => Some("nothing is sent".into()),
            Known::Text(text) => Some(match closest(text, ["upgrade"]) {
                Some(_) => format!("\"{}\" is misspelt", printable(text)),
                None => format!("`upgrade` is not in \"{}\"", printable(text)),
            }),
            Known::Variable(name, Variable::RequestHeader(field)) if **field == *b"upgrade" => {
                Some(format!("`${name}` is the protocol; that is for the other line"))
            }
            Known::Variable(name, Variable::Builtin(Builtin::Connection)) => Some(format!(
                "`${name}` is a serial number; `$connection_upgrade` is the usual name for a `map`"
            )),
            Known::Variable(name, Variable::Map(id)) => {
                no_upgrade_in_map(self.reading, name, &self.reading.maps.get(id.0)?.kind)
            }
            _ => None,
        }
    }

    /// HTTP/1.0 has no upgrades (RFC 9110 §7.8).
    fn old_version(&self, place: &Place<'_, '_, '_>, wanted: bool) -> Option<Diagnostic> {
        let here = wanted || place.is_named_for_websockets();
        if !here || place.scope.get(&PROXY_HTTP_VERSION) {
            return None;
        }
        let span = place.scope.written_at(&PROXY_HTTP_VERSION, self.reading.nowhere)?;
        let problem = Diagnostic::warning("HTTP/1.0 has no upgrades, WebSockets fail");
        let problem = problem.at(span, "").at(place.span(), "");
        Some(problem.help("write `proxy_http_version 1.1;` or leave it out"))
    }

    /// A WebSocket on which nobody speaks for `proxy_read_timeout` ends, unless our own pings are answered.
    fn idle(&mut self, place: &Place<'_, '_, '_>, line: Span) {
        let timeout = place.scope.get(&PROXY_READ_TIMEOUT);
        let Sides { client, upstream } = place.scope.get(&WEBSOCKET_PING_INTERVAL);
        let follows = place.scope.get(&WEBSOCKET_CHECK) != FrameCheck::Off;
        let pings = [client, upstream].into_iter().flatten().any(|interval| interval < timeout);
        if timeout.as_secs() > 60
            || follows && pings
            || ignored(place.scope).contains(&Advice::IdleTimeout)
        {
            return;
        }
        if self.idle.first.is_some() {
            self.idle.more += 1;
            return;
        }
        let seconds = timeout.as_secs();
        let written = place.scope.written_at(&PROXY_READ_TIMEOUT, self.reading.nowhere);
        let message = format!("WebSockets end after {seconds} seconds of silence");
        let problem = Diagnostic::information(message).at(written.unwrap_or(line), "");
        let problem = match written {
            Some(_) => problem,
            None => problem.note(format!("`proxy_read_timeout` is {seconds}s by default")),
        };
        let help =
            "remove the line that disables pings, or write for example `proxy_read_timeout 1h;`";
        self.idle.first = Some(problem.help(help));
    }

    pub(super) fn tell_idle(&mut self) {
        let Some(problem) = self.idle.first.take() else { return };
        let problem = and_more(problem, self.idle.more, "locations");
        self.reading.report.push(problem.note(Advice::IdleTimeout.silencer()));
    }

    /// Lines of an outer level for an upgrade, which lines of this level for other fields replace.
    fn lost(&mut self, scope: &Scope<'_, '_>, place: Span) {
        let Some(level) = SetHeaders::of(scope).level else { return };
        let Some(line) = outer_upgrade(scope, level) else { return };
        if ignored(scope).contains(&Advice::LostHeaders) {
            return;
        }
        if let Some(&known) = self.lost.by_line.get(&line) {
            self.lost.all[known].more += 1;
            return;
        }
        let here = level.lines(&super::PROXY_SET_HEADER).next();
        let here = here.map_or(place, |line| line.directive.head());
        let passed = scope.get(&WEBSOCKET) && scope.get(&PROXY_HTTP_VERSION);
        let problem = match passed {
            true => Diagnostic::information(
                "the line for \"Upgrade\" does not apply in an inner block; WebSockets are passed \
                 all the same, other upgrades are not",
            ),
            false => Diagnostic::warning(
                "the line for \"Upgrade\" does not apply in an inner block, upgrades fail",
            ),
        };
        let diagnostic = problem
            .at(here, "this line replaces all lines of outer blocks")
            .at(line, "does not apply there")
            .help("repeat the lines of the outer block, for example by an `include`");
        self.lost.by_line.insert(line, self.lost.all.len());
        self.lost.all.push(Lost { diagnostic, more: 0 });
    }

    pub(super) fn tell_lost(&mut self) {
        for lost in std::mem::take(&mut self.lost.all) {
            let problem = and_more(lost.diagnostic, lost.more, "blocks");
            self.reading.report.push(problem.note(Advice::LostHeaders.silencer()));
        }
    }
}

fn and_more(problem: Diagnostic, more: usize, what: &str) -> Diagnostic {
    match more {
        0 => problem,
        1 => problem.note(format!("the same applies to one more {}", what.trim_end_matches('s'))),
        more => problem.note(format!("the same applies to {more} more {what}")),
    }
}

/// The line for `Upgrade` of a level around `level`, the one whose lines apply.
fn outer_upgrade(scope: &Scope<'_, '_>, level: &crate::level::Level<'_>) -> Option<Span> {
    let mut outer = Some(scope);
    while let Some(scope) = outer {
        outer = scope.outer;
        if std::ptr::eq(scope.level, level) {
            break;
        }
    }
    while let Some(scope) = outer {
        if let Some(line) = line_in(scope.level, "upgrade").filter(|line| !sends_nothing(line)) {
            return Some(line.directive.head());
        }
        outer = scope.outer;
    }
    None
}

fn sends_nothing(line: &HeaderLine<'_, '_>) -> bool {
    line.value.is_some_and(|(_, value)| value.is_empty())
}

/// Whether a value of `Connection` has the option `upgrade`.
fn names_upgrade(text: &[u8]) -> bool {
    text.split(|&byte| byte == b',')
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Whether a variable of a request field probably has another name.
fn is_misspelt(variable: &str) -> bool {
    variable.strip_prefix("http_").and_then(misspelt_field).is_some()
}

/// Why a `map` gives no `upgrade` for a WebSocket.
fn no_upgrade_in_map(reading: &Reading<'_>, name: &str, kind: &MapKind) -> Option<String> {
    let MapKind::Map { source, table, default, .. } = kind else { return None };
    let Known::Variable(source, Variable::RequestHeader(field)) = known(reading, source) else {
        return None;
    };
    let asks = |value: &Template| value.as_text().is_some_and(names_upgrade);
    match &**field {
        b"upgrade" => {
            let value = table.find(b"websocket").map_or(default, |(value, _)| value);
            let text = value.as_text().filter(|text| !names_upgrade(text))?;
            Some(format!("`${name}` is \"{}\" for a WebSocket", printable(text)))
        }
        b"connection" => None,
        // The other fields of a handshake tell it as well.
        field if field.starts_with(b"sec-websocket-") => None,
        _ if is_misspelt(source) => None,
        // A field that is no part of an upgrade cannot tell one from other requests.
        _ if asks(default) || table.values().any(asks) => {
            Some(format!("`${name}` is made from `${source}` and not from `$http_upgrade`"))
        }
        _ => None,
    }
}

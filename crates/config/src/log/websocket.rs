//! `websocket_log`: records of WebSockets, also while they live.

use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, HSL};
use crate::log::{LogFormatId, LogTarget, Logs, log_target};
use crate::read::{Reading, Reads, has_variables, invalid_parameter, parameter};
use crate::scope::Scope;
use crate::value::{self, Located};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&WEBSOCKET_LOG];

/// `websocket_log`
pub(crate) static WEBSOCKET_LOG: Directive<WebSocketLogDraft> = Directive {
    name: "websocket_log",
    contexts: HSL,
    arity: AtLeast(1),
    default: "off",
    doc: "Sets where WebSockets are logged and in which format (`websocket` by default): one \
          record when a WebSocket ends, with `open` also one when it begins, and with `interval=` \
          one per interval while it is open. The first interval is shortened at random, so that \
          WebSockets that began together are not logged together. `$websocket_event` tells the \
          records apart. `access_log` still writes its own line at the end. Records are written at \
          once, except to a file for which an `access_log` line sets a buffer.",
    ..Directive::repeated(websocket_log)
};

/// One `websocket_log` line.
#[derive(Clone, Debug)]
pub struct WebSocketLog {
    /// Where records go.
    pub target: LogTarget,
    /// Which format.
    pub format: LogFormatId,
    /// Whether there is one at the beginning.
    pub open: bool,
    /// How often there is one in between.
    pub interval: Option<Duration>,
}

/// `websocket_log` before its format is looked up.
#[derive(Clone)]
pub(crate) enum WebSocketLogDraft {
    /// `off`.
    Off,
    /// A place.
    On {
        /// Where.
        target: LogTarget,
        /// The format's name; `websocket` when not given.
        format: Option<Located<Box<[u8]>>>,
        /// `open`.
        open: bool,
        /// `interval=`.
        interval: Option<Duration>,
    },
}

/// More often than this nobody can read, and a line for each of many WebSockets would be all that there is time for.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

fn websocket_log(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<WebSocketLogDraft> {
    let first = &directive.args[0];
    if first.is("off") {
        return match directive.args.get(1) {
            None => Ok(WebSocketLogDraft::Off),
            Some(word) => Err(invalid_parameter(word)),
        };
    }
    if has_variables(first) {
        let message = "the path of \"websocket_log\" cannot have variables";
        return Err(Diagnostic::error(message).at(first.span, ""));
    }
    let target = log_target(reading, first, 6)?;
    let (mut format, mut open, mut interval) = (None, false, None);
    for (place, word) in directive.args[1..].iter().enumerate() {
        if let Some(text) = parameter(word, "interval=") {
            let time = value::duration(text).filter(|&time| time >= MIN_INTERVAL);
            let time = time.ok_or_else(|| invalid_parameter(word).help("at least `1s`"))?;
            if interval.replace(time).is_some() {
                return Err(invalid_parameter(word));
            }
        } else if parameter(word, "if=").is_some() {
            let help = "conditions are not supported: use `websocket_log` in the locations to be \
                        logged";
            return Err(invalid_parameter(word).help(help));
        } else if word.is("gzip")
            || ["buffer=", "flush=", "gzip="].iter().any(|name| parameter(word, name).is_some())
        {
            let help = "records are written at once, so that they can be seen while a WebSocket is \
                        open";
            return Err(invalid_parameter(word).help(help));
        } else if word.is("open") && !open {
            open = true;
        } else if place == 0 {
            format = Some(Located { value: word.value.clone(), span: word.span });
        } else {
            return Err(invalid_parameter(word));
        }
    }
    Ok(WebSocketLogDraft::On { target, format, open, interval })
}

impl Logs {
    /// The logs of WebSockets that apply in `scope`; `off` beside others turns all off.
    pub(crate) fn websocket_logs(
        &mut self,
        reading: &mut Reading<'_>,
        scope: &Scope<'_, '_>,
    ) -> Vec<WebSocketLog> {
        let drafts: Vec<WebSocketLogDraft> = scope.all(&WEBSOCKET_LOG);
        if drafts.iter().any(|draft| matches!(draft, WebSocketLogDraft::Off)) {
            return Vec::new();
        }
        drafts.into_iter().filter_map(|draft| self.websocket_log(reading, draft)).collect()
    }

    fn websocket_log(
        &mut self,
        reading: &mut Reading<'_>,
        draft: WebSocketLogDraft,
    ) -> Option<WebSocketLog> {
        let WebSocketLogDraft::On { target, format, open, interval } = draft else {
            return None;
        };
        let default = || Located { value: b"websocket"[..].into(), span: reading.nowhere };
        let name = format.unwrap_or_else(default);
        let format = self.format_named(reading, &name)?;
        Some(WebSocketLog { target, format, open, interval })
    }
}

//! Access lines that are rendered before the end, with holes for the few values that only the end
//! knows (bytes, durations, the time). So a tunnel, which may live for days, keeps no request.

use bytes::BytesMut;
use wssgate_config::model::{Http, LocationId, LogEscape, LogFormat, MapKind};
use wssgate_config::template::{Part, Template, VariableId};
use wssgate_config::variable::{Builtin, Variable};

use super::Rendered;
use crate::clock::Moment;
use crate::exchange::ending::{
    Ending, is_late as is_late_builtin, is_of_attempts, is_of_the_moment,
};
use crate::exchange::request::Request;
use crate::exchange::websocket::Record;
use crate::generation::Generation;

/// How deep maps are followed before they are taken for late.
const MAX_DEPTH: u8 = 10;

/// The access lines of one request.
#[derive(Debug)]
pub(crate) struct EarlyLines(Box<[Line]>);

/// Which log of the location a line is for.
#[derive(Clone, Copy, Debug)]
enum Log {
    /// This one of its `access_log` lines: at the end.
    Access(u16),
    /// This one of its `websocket_log` lines: at the events that it wants.
    WebSocket(u16),
}

#[derive(Debug)]
struct Line {
    log: Log,
    escape: LogEscape,
    text: Box<[u8]>,
    /// Where in `text` a value is missing, and which.
    holes: Box<[(u32, Builtin)]>,
}

impl EarlyLines {
    /// Renders what can be rendered of all lines; `None` when one cannot be made that way, because it
    /// tells of other connections, a `map` looks at a late value or the path of the log has variables.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let http = request.http();
        let logs = &request.location().settings.access_logs;
        let mut lines = Vec::with_capacity(logs.len());
        for (index, log) in logs.iter().enumerate() {
            let condition = log.condition.as_ref();
            if condition.is_some_and(|condition| is_late_template(http, condition, 0)) {
                return None;
            }
            if !super::is_wanted(request, log) {
                continue;
            }
            // One with a path of variables has no sink.
            request.generation.logs.access_sink(request.route.location, index)?;
            let format = &http.log_formats[log.format.0];
            lines.push(Line::of(request, Log::Access(u16::try_from(index).ok()?), format)?);
        }
        let records = &request.location().settings.websocket_logs;
        for (index, log) in records.iter().enumerate().filter(|_| request.tunnel.is_websocket) {
            let format = &http.log_formats[log.format.0];
            lines.push(Line::of(request, Log::WebSocket(u16::try_from(index).ok()?), format)?);
        }
        Some(Self(lines.into()))
    }

    /// Whether nothing will be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a hole asks for the attempts at peers.
    pub(crate) fn ask_for_attempts(&self) -> bool {
        let mut holes = self.0.iter().flat_map(|line| &*line.holes);
        holes.any(|&(_, hole)| is_of_attempts(hole))
    }

    /// Fills the holes and writes the lines of the event that `ending` tells of.
    pub(crate) fn write(&self, generation: &Generation, location: LocationId, ending: &Ending<'_>) {
        let settings = &generation.http().locations[location.0].settings;
        let now = Moment::now();
        for line in &self.0 {
            let logs = &generation.logs;
            let sink = match line.log {
                Log::Access(index) if ending.tunnel.is_some_and(Record::is_end) => {
                    logs.access_sink(location, index.into())
                }
                Log::WebSocket(index)
                    if super::is_wanted_now(settings, index.into(), ending.tunnel) =>
                {
                    logs.websocket_sink(location, index.into())
                }
                _ => None,
            };
            let Some(sink) = sink else { continue };
            let mut whole = BytesMut::with_capacity(line.text.len() + 16 * line.holes.len());
            let mut done = 0;
            for &(at, hole) in &line.holes {
                whole.extend_from_slice(&line.text[done..at as usize]);
                super::put_value(&mut whole, line.escape, ending.value(hole, now));
                done = at as usize;
            }
            whole.extend_from_slice(&line.text[done..]);
            sink.write_line(&whole);
        }
    }
}

impl Line {
    /// Renders what can be rendered; `None` when the line cannot be made that way.
    fn of(request: &Request, log: Log, format: &LogFormat) -> Option<Self> {
        let http = request.http();
        let mut holes = Vec::new();
        let mut rendered = Rendered::new(format.escape);
        for part in format.line.parts() {
            match late(http, part) {
                Late::No => rendered.put(request, part),
                Late::Builtin(builtin) => {
                    holes.push((u32::try_from(rendered.len()).ok()?, builtin));
                }
                Late::WithRequest => return None,
            }
        }
        let text = rendered.into_text();
        Some(Self { log, escape: format.escape, text: text[..].into(), holes: holes.into() })
    }
}

/// Whether a part of a line is known only at the end.
enum Late {
    No,
    Builtin(Builtin),
    /// And then only while the request is there.
    WithRequest,
}

fn late(http: &Http, part: &Part) -> Late {
    let Part::Variable(id) = part else { return Late::No };
    match &http.variables.slot(*id).meaning {
        Variable::Builtin(builtin) if is_late_builtin(*builtin) => Late::Builtin(*builtin),
        Variable::Builtin(builtin) if is_of_the_moment(*builtin) => Late::WithRequest,
        Variable::Map(_) if is_late(http, *id, 0) => Late::WithRequest,
        _ => Late::No,
    }
}

fn is_late(http: &Http, id: VariableId, depth: u8) -> bool {
    match &http.variables.slot(id).meaning {
        Variable::Builtin(builtin) => is_late_builtin(*builtin) || is_of_the_moment(*builtin),
        Variable::Map(map) if depth < MAX_DEPTH => {
            let late = |template: &Template| is_late_template(http, template, depth + 1);
            match &http.maps[map.0].kind {
                MapKind::Map { source, table, default, .. } => {
                    late(source) || late(default) || table.values().any(late)
                }
                MapKind::SplitClients { source, parts } => {
                    late(source) || parts.iter().any(|(_, value)| late(value))
                }
                MapKind::Geo { source, .. } => late(source),
            }
        }
        // Too deep to follow: taken for late, the line is made at the end and is right all the
        // same.
        Variable::Map(_) => true,
        _ => false,
    }
}

fn is_late_template(http: &Http, template: &Template, depth: u8) -> bool {
    let is_late = |part: &Part| matches!(part, Part::Variable(id) if is_late(http, *id, depth));
    template.parts().iter().any(is_late)
}

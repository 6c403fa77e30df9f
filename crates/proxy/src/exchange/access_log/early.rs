//! Access lines that are rendered before the end, with holes for the few values that only the end
//! knows (bytes, durations, the time). So a tunnel, which may live for days, keeps no request.
//!
//! They move to another process as they are. Its configuration says where they go, and not how they look: that was
//! decided when they were rendered.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use wssgate_config::model::{
    AccessLogTarget, Http, LocationId, LocationSettings, LogEscape, LogFormat, LogTarget, MapKind,
    WebSocketLog,
};
use wssgate_config::template::{Part, Template, VariableId};
use wssgate_config::variable::{Builtin, Variable};

use super::Rendered;
use crate::clock::Moment;
use crate::clock::micros;
use crate::exchange::ending::{
    Ending, is_late as is_late_builtin, is_of_attempts, is_of_the_moment,
};
use crate::exchange::request::Request;
use crate::exchange::websocket::{Event, Record};
use crate::generation::Generation;
use crate::log::{AccessSink, TargetState};

/// How deep maps are followed before they are taken for late.
const MAX_DEPTH: u8 = 10;

/// The access lines of one request.
#[derive(Debug)]
pub(crate) struct EarlyLines(Box<[Line]>);

/// Which log of the location a line is for.
#[derive(Debug)]
enum Log {
    /// This one of its `access_log` lines: at the end.
    Access(u16),
    /// This one of its `websocket_log` lines: at the events that it wants.
    WebSocket(u16),
    /// One of a location that is no more.
    Former(Box<Former>),
}

/// A log of a location that is no more, which others of the configuration still have.
#[derive(Debug)]
struct Former {
    kind: Kind,
    target: LogTarget,
    sink: Arc<AccessSink>,
    /// How often there is a record in between.
    interval: Option<Duration>,
    /// How often that is told of.
    shortest: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum Kind {
    #[n(0)]
    Access,
    #[n(1)]
    WebSocket,
}

#[derive(Clone, Copy, Debug, Encode, Decode)]
#[cbor(index_only)]
enum Escape {
    #[n(0)]
    Default,
    #[n(1)]
    Json,
    #[n(2)]
    None,
}

/// A line for another process. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct LineState<'b> {
    /// What it is for.
    #[n(0)]
    kind: Kind,
    /// Where it goes.
    #[b(1)]
    target: TargetState<'b>,
    #[n(2)]
    escape: Escape,
    #[b(3)]
    text: &'b ByteSlice,
    /// Where in the text values are missing, and the names of the variables; one whose name is not known has none.
    #[b(4)]
    holes: Vec<(u32, &'b str)>,
    /// How often there is a record in between, in microseconds.
    #[n(5)]
    interval: Option<u64>,
    /// The interval of the most eager log of the location.
    #[n(6)]
    shortest: Option<u64>,
}

#[derive(Debug)]
struct Line {
    log: Log,
    escape: LogEscape,
    text: Box<[u8]>,
    /// Where in `text` a value is missing, and which.
    holes: Box<[(u32, Option<Builtin>)]>,
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
        holes.any(|&(_, hole)| hole.is_some_and(is_of_attempts))
    }

    /// Fills the holes and writes the lines of the event that `ending` tells of.
    pub(crate) fn write(&self, generation: &Generation, location: LocationId, ending: &Ending<'_>) {
        let settings = &generation.http().locations[location.0].settings;
        let now = Moment::now();
        for line in &self.0 {
            let logs = &generation.logs;
            let sink = match &line.log {
                Log::Access(index) if ending.tunnel.is_some_and(Record::is_end) => {
                    logs.access_sink(location, usize::from(*index))
                }
                Log::WebSocket(index)
                    if super::is_wanted_now(settings, usize::from(*index), ending.tunnel) =>
                {
                    logs.websocket_sink(location, usize::from(*index))
                }
                Log::Former(former) if former.wants(ending.tunnel) => Some(&former.sink),
                _ => None,
            };
            let Some(sink) = sink else { continue };
            let mut whole = BytesMut::with_capacity(line.text.len() + 16 * line.holes.len());
            let mut done = 0;
            for &(at, hole) in &line.holes {
                whole.extend_from_slice(&line.text[done..at as usize]);
                let value = hole.and_then(|hole| ending.value(hole, now));
                super::put_value(&mut whole, line.escape, value);
                done = at as usize;
            }
            whole.extend_from_slice(&line.text[done..]);
            sink.write_line(&whole);
        }
    }

    /// What another process has to know of them.
    pub(crate) fn state<'b>(
        &'b self,
        generation: &'b Generation,
        location: LocationId,
    ) -> Vec<LineState<'b>> {
        let settings = &generation.http().locations[location.0].settings;
        self.0.iter().filter_map(|line| line.state(settings)).collect()
    }

    /// Those that another process has rendered, in a location of this one. Each goes to the log of the location that is
    /// at the same place as before. Where there is none any more, to one of the other logs of the location, in their
    /// order: its file was given another name. A log with a condition is none of these, for nobody can say now whether
    /// it wants the line; nor is one whose path has variables. What is left belongs to logs that are not wanted any more, and is dropped.
    pub(crate) fn restore(
        lines: &[LineState<'_>],
        generation: &Generation,
        location: LocationId,
    ) -> Self {
        let settings = &generation.http().locations[location.0].settings;
        let mut logs = Taken::new(settings);
        let mut found: Vec<_> = lines.iter().map(|line| logs.same(line)).collect();
        for (line, log) in lines.iter().zip(&mut found).filter(|(_, log)| log.is_none()) {
            *log = logs.other(line);
        }
        let lines = lines.iter().zip(found);
        Self(lines.filter_map(|(line, log)| Line::restore(line, log?)).collect())
    }

    /// Those that another process has rendered in a location that this one does not have. They go where they went, as
    /// far as any location has a log there: others are not open.
    pub(crate) fn restore_of_nowhere(lines: &[LineState<'_>], generation: &Generation) -> Self {
        let restored = lines.iter().filter_map(|line| {
            let target = line.target.target()?;
            let former = Former {
                kind: line.kind,
                sink: Arc::clone(generation.logs.sink_at(&target)?),
                target,
                interval: line.interval.map(Duration::from_micros),
                shortest: line.shortest.map(Duration::from_micros),
            };
            Line::restore(line, Log::Former(Box::new(former)))
        });
        Self(restored.collect())
    }
}

impl Former {
    /// Whether it wants a line of the event that is told of.
    fn wants(&self, record: Option<&Record>) -> bool {
        let Some(record) = record else { return false };
        match (record.event, self.kind, self.interval) {
            (Event::Close, ..) => true,
            (Event::Progress, Kind::WebSocket, Some(interval)) => {
                super::is_due(record, interval, self.shortest)
            }
            _ => false,
        }
    }
}

/// The logs of a location, and which of the first 64 of each kind lines were found for.
struct Taken<'s> {
    settings: &'s LocationSettings,
    access: u64,
    websocket: u64,
}

impl<'s> Taken<'s> {
    fn new(settings: &'s LocationSettings) -> Self {
        Self { settings, access: 0, websocket: 0 }
    }

    /// The log at the place of a line.
    fn same(&mut self, line: &LineState<'_>) -> Option<Log> {
        self.first(line.kind, |target, _| line.target.is(target))
    }

    /// Another log.
    fn other(&mut self, line: &LineState<'_>) -> Option<Log> {
        self.first(line.kind, |_, is_conditional| !is_conditional)
    }

    /// The first log that is free and fits.
    fn first(&mut self, kind: Kind, fits: impl Fn(&LogTarget, bool) -> bool) -> Option<Log> {
        let is_free = |taken: u64, index: usize| index < 64 && taken & (1 << index) == 0;
        match kind {
            Kind::Access => {
                let mut logs = self.settings.access_logs.iter().enumerate();
                let index = logs.position(|(index, log)| match &log.target {
                    AccessLogTarget::Fixed(target) => {
                        is_free(self.access, index) && fits(target, log.condition.is_some())
                    }
                    AccessLogTarget::Variable(_) => false,
                })?;
                self.access |= 1 << index;
                Some(Log::Access(u16::try_from(index).ok()?))
            }
            Kind::WebSocket => {
                let mut logs = self.settings.websocket_logs.iter().enumerate();
                let free = |(index, log): (usize, &WebSocketLog)| {
                    is_free(self.websocket, index) && fits(&log.target, false)
                };
                let index = logs.position(free)?;
                self.websocket |= 1 << index;
                Some(Log::WebSocket(u16::try_from(index).ok()?))
            }
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
                    holes.push((u32::try_from(rendered.len()).ok()?, Some(builtin)));
                }
                Late::WithRequest => return None,
            }
        }
        let text = rendered.into_text();
        Some(Self { log, escape: format.escape, text: text[..].into(), holes: holes.into() })
    }

    fn state<'b>(&'b self, settings: &'b LocationSettings) -> Option<LineState<'b>> {
        let mut interval = None;
        let mut shortest = super::shortest_interval(settings);
        let (kind, target) = match &self.log {
            Log::Access(index) => match &settings.access_logs.get(usize::from(*index))?.target {
                AccessLogTarget::Fixed(target) => (Kind::Access, target),
                AccessLogTarget::Variable(_) => return None,
            },
            Log::WebSocket(index) => {
                let log = settings.websocket_logs.get(usize::from(*index))?;
                interval = log.interval;
                (Kind::WebSocket, &log.target)
            }
            Log::Former(former) => {
                (interval, shortest) = (former.interval, former.shortest);
                (former.kind, &former.target)
            }
        };
        Some(LineState {
            kind,
            target: target.into(),
            escape: match self.escape {
                LogEscape::Default => Escape::Default,
                LogEscape::Json => Escape::Json,
                LogEscape::None => Escape::None,
            },
            text: (&*self.text).into(),
            holes: (self.holes.iter())
                .map(|(at, hole)| (*at, hole.map_or("", Builtin::name)))
                .collect(),
            interval: interval.map(micros),
            shortest: interval.and(shortest).map(micros),
        })
    }

    /// `None` if it cannot be one of ours.
    fn restore(state: &LineState<'_>, log: Log) -> Option<Self> {
        let positions = state.holes.iter().map(|(at, _)| *at as usize);
        if !positions.clone().is_sorted() || positions.max() > Some(state.text.len()) {
            return None;
        }
        let known = |name: &str| Builtin::named(name).filter(|hole| is_late_builtin(*hole));
        Some(Self {
            log,
            escape: match state.escape {
                Escape::Default => LogEscape::Default,
                Escape::Json => LogEscape::Json,
                Escape::None => LogEscape::None,
            },
            text: state.text[..].into(),
            holes: state.holes.iter().map(|(at, name)| (*at, known(name))).collect(),
        })
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

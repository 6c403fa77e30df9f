//! What is said when a tunnel has ended, made ready when it begins.
//!
//! A tunnel may live for days, so nothing of its request stays: the access lines are rendered at
//! the switch, with holes for the few values that only the end knows (bytes, durations, the time).
//! Where a line cannot be made that way, because a `map` looks at such a value or the path of the
//! log has variables, the request itself is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wssgate_config::model::{Http, LocationId, LogLevel, MapKind};
use wssgate_config::template::{Part, Template, VariableId};
use wssgate_config::variable::{Builtin, Variable};
use wssgate_relay::{EndCause, TunnelEnd};

use crate::clock;
use crate::exchange::access_log::{self, Rendered};
use crate::exchange::request::{Request, UpstreamState};
use crate::exchange::variables;
use crate::generation::Generation;
use crate::log::AccessSink;

/// How deep maps are followed before they are taken for late.
const MAX_DEPTH: u8 = 10;

/// What is kept of a request until its tunnel ends.
pub(super) struct Conclusion {
    generation: Arc<Generation>,
    location: LocationId,
    serial: u64,
    /// When the upstream was asked.
    began: Instant,
    /// The context of error lines; `None` when none of the tunnel would be written.
    context: Option<Box<str>>,
    access: Access,
}

/// The access lines.
enum Access {
    Lines(Box<Lines>),
    Request(Box<Request>),
}

/// Rendered lines and what fills their holes.
struct Lines {
    lines: Box<[Line]>,
    /// Kept when a hole asks for it.
    upstream: Box<[UpstreamState]>,
    started: Instant,
    accepted: Instant,
    /// `$bytes_sent` at the switch, and how much of it is the head.
    sent: u64,
    head_len: u64,
}

struct Line {
    sink: Arc<AccessSink>,
    text: Box<[u8]>,
    /// Where in `text` a value is missing, and which.
    holes: Box<[(u32, Builtin)]>,
}

impl Conclusion {
    /// Takes what is needed out of a request whose upstream was asked at `began`.
    pub(super) fn new(request: Request, began: Instant) -> Self {
        let context = request.logs(LogLevel::Info).then(|| request.context().into());
        Self {
            generation: Arc::clone(&request.generation),
            location: request.route.location,
            serial: request.connection.serial,
            began,
            context,
            access: match lines(&request) {
                Some(lines) => Access::Lines(Box::new(lines)),
                None => Access::Request(Box::new(request)),
            },
        }
    }

    /// The generation that the tunnel began with.
    pub(super) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// Says how the tunnel ended.
    pub(super) fn conclude(self, end: &TunnelEnd) {
        if let (Some(context), Some(message)) = (&self.context, super::message(&end.cause)) {
            let line = format_args!("{message} while proxying upgraded connection{context}");
            let log = self.generation.logs.error_log(self.location);
            log.write(LogLevel::Info, Some(self.serial), line);
        }
        let elapsed = self.began.elapsed();
        match self.access {
            Access::Lines(lines) => lines.write(end, elapsed),
            Access::Request(mut request) => {
                account(&mut request, end, elapsed);
                access_log::write(&request);
            }
        }
    }
}

/// Adds what passed through the tunnel to what the variables of its request tell.
fn account(request: &mut Request, end: &TunnelEnd, elapsed: Duration) {
    let connection = &request.connection;
    connection.sent.set(connection.sent.get() + end.client.sent);
    connection.received.set(connection.received.get() + end.client.received);
    add(&mut request.upstream.attempts, end, elapsed);
    request.response.complete = is_complete(end);
}

/// Adds what passed to what is known of the last attempt, which became the tunnel.
fn add(upstream: &mut [UpstreamState], end: &TunnelEnd, elapsed: Duration) {
    if let Some(state) = upstream.last_mut() {
        state.response_time = Some(elapsed);
        state.bytes_sent += end.upstream.sent;
        state.bytes_received += end.upstream.received;
        state.response_length += end.upstream.received;
    }
}

fn is_complete(end: &TunnelEnd) -> bool {
    matches!(end.cause, EndCause::Ended(_))
}

/// The access lines of a request with holes; `None` when they cannot be rendered yet.
fn lines(request: &Request) -> Option<Lines> {
    let http = request.http();
    let logs = &request.location().settings.access_logs;
    let mut lines = Vec::with_capacity(logs.len());
    for (index, log) in logs.iter().enumerate() {
        if log.condition.as_ref().is_some_and(|condition| is_late_template(http, condition, 0)) {
            return None;
        }
        if !access_log::is_wanted(request, log) {
            continue;
        }
        let sink = request.generation.logs.access_sink(request.route.location, index)?;
        let format = &http.log_formats[log.format.0];
        let mut holes = Vec::new();
        let mut rendered = Rendered::new(format.escape);
        for part in format.line.parts() {
            match (part, late(http, part)) {
                (_, Late::No) => rendered.put(request, part),
                (_, Late::Builtin(builtin)) => {
                    holes.push((u32::try_from(rendered.len()).ok()?, builtin));
                }
                (_, Late::Map) => return None,
            }
        }
        let text = rendered.into_text();
        lines.push(Line { sink: Arc::clone(sink), text: text[..].into(), holes: holes.into() });
    }
    let of_upstream = |line: &Line| line.holes.iter().any(|(_, hole)| is_of_upstream(*hole));
    let upstream = match lines.iter().any(of_upstream) {
        true => request.upstream.attempts.clone().into(),
        false => Box::default(),
    };
    Some(Lines {
        lines: lines.into(),
        upstream,
        started: request.arrival.at,
        accepted: request.connection.accepted,
        sent: variables::bytes_sent(request),
        head_len: request.response.head_len,
    })
}

impl Lines {
    fn write(mut self, end: &TunnelEnd, elapsed: Duration) {
        add(&mut self.upstream, end, elapsed);
        for line in &self.lines {
            let mut whole = Vec::with_capacity(line.text.len() + 16 * line.holes.len());
            let mut done = 0;
            for &(at, hole) in &line.holes {
                whole.extend_from_slice(&line.text[done..at as usize]);
                whole.extend_from_slice(self.value(hole, end).as_bytes());
                done = at as usize;
            }
            whole.extend_from_slice(&line.text[done..]);
            line.sink.write_line(&whole);
        }
    }

    /// What fills a hole. None of these values needs an escape.
    fn value(&self, hole: Builtin, end: &TunnelEnd) -> String {
        use Builtin as B;
        let sent = self.sent + end.client.sent;
        match hole {
            B::BytesSent => sent.to_string(),
            B::BodyBytesSent => sent.saturating_sub(self.head_len).to_string(),
            B::RequestTime => variables::seconds(self.started.elapsed()),
            B::ConnectionTime => variables::seconds(self.accepted.elapsed()),
            B::Msec => variables::seconds(clock::since_epoch(clock::now())),
            B::TimeIso8601 => clock::time_iso8601(clock::now()),
            B::TimeLocal => clock::time_local(clock::now()),
            B::RequestCompletion if is_complete(end) => "OK".to_owned(),
            _ => {
                let passed = variables::passed(hole, &self.upstream).unwrap_or_default();
                String::from_utf8_lossy(&passed).into_owned()
            }
        }
    }
}

/// Whether a part of a line is known only at the end.
enum Late {
    No,
    Builtin(Builtin),
    Map,
}

fn late(http: &Http, part: &Part) -> Late {
    let Part::Variable(id) = part else { return Late::No };
    match &http.variables.slot(*id).meaning {
        Variable::Builtin(builtin) if is_late_builtin(*builtin) => Late::Builtin(*builtin),
        Variable::Map(_) if is_late(http, *id, 0) => Late::Map,
        _ => Late::No,
    }
}

fn is_late(http: &Http, id: VariableId, depth: u8) -> bool {
    match &http.variables.slot(id).meaning {
        Variable::Builtin(builtin) => is_late_builtin(*builtin),
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
        Variable::Map(_) => true,
        _ => false,
    }
}

fn is_late_template(http: &Http, template: &Template, depth: u8) -> bool {
    let is_late = |part: &Part| matches!(part, Part::Variable(id) if is_late(http, *id, depth));
    template.parts().iter().any(is_late)
}

fn is_late_builtin(builtin: Builtin) -> bool {
    use Builtin as B;
    let of_time = matches!(
        builtin,
        B::RequestTime | B::ConnectionTime | B::Msec | B::TimeIso8601 | B::TimeLocal
    );
    let of_bytes = matches!(builtin, B::BytesSent | B::BodyBytesSent | B::RequestCompletion);
    of_time || of_bytes || is_of_upstream(builtin)
}

fn is_of_upstream(builtin: Builtin) -> bool {
    use Builtin as B;
    matches!(
        builtin,
        B::UpstreamBytesReceived
            | B::UpstreamBytesSent
            | B::UpstreamResponseLength
            | B::UpstreamResponseTime
    )
}

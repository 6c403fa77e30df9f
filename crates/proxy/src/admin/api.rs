//! What can be asked for and ordered, by paths: `docs/ctl.md` tells of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;
use wssgate_config::model::LogLevel;
use wssgate_http1::{Method, RequestHead};
use wssgate_relay::SideCounters;
use wssgate_sys::privileges;
use wssgate_sys::socket::Credentials;
use wssgate_ws::CloseCode;
use wssgate_ws::close::MAX_REASON_LEN;
use wssgate_ws::conversation::{Cause, Farewell};

use super::current::Comparison;
use super::drains::DrainError;
use super::query::{Query, QueryError};
use super::rows::{Filter, Pager};
use super::tap::{self, Started, TapRefusal};
use super::walk::{self, Silent, walk};
use super::{Order, Reloaded, View};
use crate::auth::revocations::Full;
use crate::clock;
use crate::log::{level_name, level_named};
use crate::metrics::WorkerCounters;
use crate::site::Phase;

/// How long the main thread may take for a reload. It may look names up.
const RELOAD_TIME: Duration = Duration::from_secs(120);

/// How long a new program may take to start. It reads its configuration meanwhile.
const UPGRADE_TIME: Duration = Duration::from_secs(120);

/// A status and what is told with it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn error(status: u16, message: &str) -> Self {
        Self { status, body: json!({"error": message}) }
    }
}

/// Why a request is not answered as it wants.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("there is nothing at this path; it is described in ctl.md")]
    NoPath,
    #[error("{0} is expected here")]
    Method(&'static str),
    #[error("there is no live WebSocket with this id")]
    NoTunnel,
    #[error("without a filter this closes all: say so by all=true")]
    Everything,
    #[error(transparent)]
    Silent(#[from] Silent),
    /// Something was done before it, and stays done.
    #[error("{refusal}; {done}")]
    Halfway { refusal: Box<Refusal>, done: String },
    #[error(transparent)]
    Tap(#[from] TapRefusal),
    #[error("name one of subject, token_id and user, and a text that is not empty")]
    Whom,
    #[error("there is no revocation with this id")]
    NoRevocation,
    #[error(transparent)]
    Full(#[from] Full),
    #[error("the server does not reload now")]
    NotNow,
    #[error("a reload or an upgrade is under way, and another waits: try again when it is done")]
    Busy,
    #[error(transparent)]
    Drain(#[from] DrainError),
    #[error("{0}")]
    Wrong(&'static str),
    #[error("{0}")]
    NotThere(&'static str),
    #[error("the server did not tell in time what came of it; see its error log")]
    Late,
    #[error("only root and the user that started the server may upgrade it")]
    NotYours,
    #[error("{0}")]
    NotUpgraded(String),
}

impl Refusal {
    fn status(&self) -> u16 {
        match self {
            Self::Query(_) | Self::Everything | Self::Whom | Self::Wrong(_) => 400,
            Self::NoPath
            | Self::NoTunnel
            | Self::NoRevocation
            | Self::NotThere(_)
            | Self::Drain(DrainError::Unknown) => 404,
            Self::Method(_) => 405,
            Self::NotYours => 403,
            Self::NotNow | Self::Busy | Self::NotUpgraded(_) | Self::Full(_) | Self::Drain(_) => {
                409
            }
            Self::Silent(_) | Self::Late => 503,
            Self::Tap(refusal) => refusal.status(),
            Self::Halfway { refusal, .. } => refusal.status(),
        }
    }

    /// The same for whoever has to know besides what was done already.
    pub(super) fn after(self, done: impl Into<String>) -> Self {
        Self::Halfway { refusal: Box::new(self), done: done.into() }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<'a> {
    /// A process of this user, through the socket.
    Socket(Credentials),
    /// Somebody at a page, in words for the log.
    Dashboard(&'a str),
}

/// Answers one request of this process and user.
pub(super) fn answer(head: &RequestHead, by: Credentials, view: &View) -> Answer {
    let Ok(uri) = head.uri(false) else { return Answer::error(400, "the target is no URI") };
    let args = uri.args.as_deref().unwrap_or_default();
    match std::str::from_utf8(&uri.path) {
        Ok(path) => answer_at(path, args, head.method(), By::Socket(by), view),
        Err(_) => Answer::error(404, &Refusal::NoPath.to_string()),
    }
}

/// Answers a request for this path with these parameters.
pub(super) fn answer_at(
    path: &str,
    args: &[u8],
    method: Method,
    by: By<'_>,
    view: &View,
) -> Answer {
    let answered = Query::parse(args)
        .map_err(Refusal::from)
        .and_then(|query| Request { method, query, by, view }.answer(path));
    answered.unwrap_or_else(|refusal| Answer::error(refusal.status(), &refusal.to_string()))
}

/// Begins a tap, if that is what is asked for, and says who taps.
pub(super) fn tap(
    head: &RequestHead,
    by: Credentials,
    view: &View,
) -> Option<Result<(Started, String), Answer>> {
    let uri = head.uri(false).ok().filter(|uri| &*uri.path == b"/v1/tap")?;
    let args = uri.args.as_deref().unwrap_or_default();
    let started = Query::parse(args).map_err(Refusal::from).and_then(|query| {
        let request = Request { method: head.method(), query, by: By::Socket(by), view };
        request.tap()
    });
    Some(started.map_err(|refusal| Answer::error(refusal.status(), &refusal.to_string())))
}

pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) query: Query,
    by: By<'a>,
    pub(super) view: &'a View,
}

impl Request<'_> {
    fn answer(self, path: &str) -> Result<Answer, Refusal> {
        let parts: Vec<_> = path.strip_prefix("/v1/").ok_or(Refusal::NoPath)?.split('/').collect();
        match parts[..] {
            ["status"] => self.status(),
            ["tunnels"] => self.list(),
            ["tunnels", "close"] => self.close_some(),
            ["tunnels", id] => self.show(id),
            ["tunnels", id, "close"] => self.close_one(id),
            ["upstreams"] => self.upstreams(),
            ["revocations"] => self.revocations(),
            ["revocations", id] => self.unrevoke(id),
            ["upstreams", "peers"] => self.change_peer(),
            ["drains"] => self.drains(),
            ["drains", id] => self.drain(id),
            ["drains", id, "cancel"] => self.cancel_drain(id),
            ["resume"] => self.resume(),
            ["log-level"] => self.log_level(),
            ["reload"] => self.reload(),
            ["upgrade"] => self.upgrade(),
            _ => Err(Refusal::NoPath),
        }
    }

    pub(super) fn reads(&self) -> Result<(), Refusal> {
        let reads = matches!(self.method, Method::Get);
        if reads { Ok(()) } else { Err(Refusal::Method("GET")) }
    }

    pub(super) fn changes(&self) -> Result<(), Refusal> {
        let changes = matches!(self.method, Method::Post);
        if changes { Ok(()) } else { Err(Refusal::Method("POST")) }
    }

    /// Tells the log who has ordered something.
    pub(super) fn note(&self, what: impl std::fmt::Display) {
        let logs = &self.view.current.load().logs;
        logs.main().write(LogLevel::Notice, None, format_args!("{what}, by {}", self.who()));
    }

    /// Whether a page of `dashboard` asks.
    pub(super) fn is_of_dashboard(&self) -> bool {
        matches!(self.by, By::Dashboard(_))
    }

    /// Such as `root (process 77)`.
    pub(super) fn who(&self) -> String {
        let Credentials { pid, uid } = match self.by {
            By::Socket(credentials) => credentials,
            By::Dashboard(who) => return format!("{who} through the dashboard"),
        };
        let name = privileges::user_name(uid).unwrap_or_else(|| format!("user {uid}"));
        format!("{name} (process {pid}) through the admin socket")
    }

    fn status(self) -> Result<Answer, Refusal> {
        self.reads()?;
        self.query.finish()?;
        let View { current, metrics, phase, program, .. } = self.view;
        let started = clock::since_epoch(metrics.started);
        let uptime = clock::since_epoch(clock::now()).saturating_sub(started);
        let generations: BTreeMap<_, _> = metrics.registry.generations().into_iter().collect();
        Ok(ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "program": program.get().map(|path| path.to_string_lossy()),
            "phase": match *phase.borrow() {
                Phase::Serving => "serving",
                Phase::Yielding => "yielding",
                Phase::Leaving => "leaving",
                Phase::Draining => "draining",
                Phase::Stopping => "stopping",
            },
            "started": clock::millis(started) as f64 / 1000.0,
            "uptime": uptime.as_secs(),
            "generation": current.load().number,
            "workers": metrics.workers().count(),
            "connections": metrics.total(|worker| worker.active.value()),
            "tunnels": metrics.total(|worker| worker.tunnels.value()),
            "tunnels_by_generation": generations,
            "totals": totals(metrics.workers()),
            "by_worker": metrics.workers().map(worker).collect::<Vec<_>>(),
        })))
    }

    fn list(mut self) -> Result<Answer, Refusal> {
        self.reads()?;
        let filter = Filter::parse(&mut self.query)?;
        let mut pager = Pager::parse(&mut self.query)?;
        self.query.finish()?;
        let mut comparison = pager.current.then(|| self.view.walks.compare(Instant::now()));
        walk(&self.view.relays.all(), |mut row| {
            // Of all, so that the next question may be for others.
            row.current = comparison.as_mut().and_then(|comparison| comparison.see(&row));
            if filter.fits(&row) {
                pager.add(row);
            }
        })?;
        comparison.into_iter().for_each(Comparison::keep);
        Ok(ok(pager.finish()))
    }

    fn tap(mut self) -> Result<(Started, String), Refusal> {
        self.reads()?;
        let wanted = tap::Wanted::parse(&mut self.query)?;
        std::mem::take(&mut self.query).finish()?;
        let started = tap::start(wanted, self.view)?;
        let with = if started.shows_payload() { " with payloads" } else { "" };
        let many = if started.count() == 1 { "WebSocket" } else { "WebSockets" };
        self.note(format_args!("tapping {} {many}{with}", started.count()));
        Ok((started, self.who()))
    }

    fn show(self, id: &str) -> Result<Answer, Refusal> {
        self.reads()?;
        self.query.finish()?;
        let filter = Filter::of_id(id.parse().map_err(|_| Refusal::NoTunnel)?);
        let mut found = None;
        walk(&self.view.relays.all(), |row| {
            if filter.fits(&row) {
                found = Some(row.json());
            }
        })?;
        found.map(ok).ok_or(Refusal::NoTunnel)
    }

    fn close_one(mut self, id: &str) -> Result<Answer, Refusal> {
        self.changes()?;
        let filter = Filter::of_id(id.parse().map_err(|_| Refusal::NoTunnel)?);
        let words = words(&mut self.query)?;
        std::mem::take(&mut self.query).finish()?;
        match self.close(&filter, words.as_ref(), false)? {
            (0, _) => Err(Refusal::NoTunnel),
            (matched, closed) => Ok(ok(json!({"matched": matched, "closed": closed}))),
        }
    }

    fn close_some(mut self) -> Result<Answer, Refusal> {
        self.changes()?;
        let filter = Filter::parse(&mut self.query)?;
        let words = words(&mut self.query)?;
        let (all, dry_run) = (self.query.flag("all")?, self.query.flag("dry_run")?);
        std::mem::take(&mut self.query).finish()?;
        if filter.is_empty() && !all {
            return Err(Refusal::Everything);
        }
        let (matched, closed) = self.close(&filter, words.as_ref(), dry_run)?;
        Ok(ok(json!({"matched": matched, "closed": closed})))
    }

    /// Closes those that fit now; says how many fitted, and of how many the closing began with that.
    fn close(
        &self,
        filter: &Filter,
        words: Option<&Arc<Farewell>>,
        dry_run: bool,
    ) -> Result<(usize, usize), Refusal> {
        let relays = self.view.relays.all();
        let (mut matched, mut first) = (0, None);
        let handles = walk::select(&relays, |row| {
            let fits = filter.fits(row);
            matched += usize::from(fits);
            // What is being closed already needs no second order.
            let is_meant = fits && !row.live.is_closing;
            if is_meant {
                first.get_or_insert(row.about.id);
            }
            is_meant
        })?;
        let count: usize = handles.iter().map(Vec::len).sum();
        let mut closed = 0;
        if let Some(first) = first.filter(|_| !dry_run) {
            let with =
                words.map_or_else(String::new, |words| format!(" with code {}", words.code.0));
            let what = match count {
                1 => format!("closing the WebSocket of connection {first}{with}"),
                _ => format!("closing {count} WebSockets{with}"),
            };
            // Before it is done, for that may be the last thing.
            self.note(what);
            for (worker, handles) in handles.iter().enumerate() {
                let killed = walk::end(&relays, worker, handles, Cause::Kill, words);
                closed += killed.map_err(|silent| {
                    Refusal::from(silent).after(format!("{closed} of {count} are closed already"))
                })?;
            }
        }
        Ok((matched, closed))
    }

    fn log_level(mut self) -> Result<Answer, Refusal> {
        let generation = self.view.current.load_full();
        if matches!(self.method, Method::Post) {
            let read = |text: &str| match text {
                "configured" => Some(None),
                name => level_named(name).map(Some),
            };
            let expected = "a level of error_log or \"configured\" is expected";
            let level = self.query.read("level", expected, read)?;
            let level = level.ok_or(QueryError::Missing("level"))?;
            std::mem::take(&mut self.query).finish()?;
            let name = level.map_or("as configured", level_name);
            let note = format_args!("log level {name}");
            // Under whichever of the two levels it is written.
            let is_written = generation.logs.main().enabled(LogLevel::Notice);
            if is_written {
                self.note(note);
            }
            generation.logs.choose_level(level);
            if !is_written {
                self.note(note);
            }
        } else {
            self.reads()?;
            self.query.finish()?;
        }
        let main = generation.logs.main();
        Ok(ok(json!({
            "level": main.chosen().map(level_name),
            "configured": main.configured().map(level_name),
        })))
    }

    fn reload(self) -> Result<Answer, Refusal> {
        self.changes()?;
        let by = self.who();
        self.query.finish()?;
        let _place = self.view.orders.wait().ok_or(Refusal::Busy)?;
        let (answer, reloaded) = mpsc::channel();
        self.view.orders.give(Order::Reload { by, answer });
        let reloaded = reloaded.recv_timeout(RELOAD_TIME).map_err(|_| Refusal::NotNow)?;
        let Reloaded { generation, messages } = reloaded;
        let messages: Vec<_> = messages
            .into_iter()
            .map(|(level, text)| json!({"level": level, "message": text}))
            .collect();
        let status = if generation.is_some() { 200 } else { 422 };
        Ok(Answer { status, body: json!({"generation": generation, "messages": messages}) })
    }

    fn upgrade(mut self) -> Result<Answer, Refusal> {
        self.changes()?;
        // Others may have been let in to see and close WebSockets, not to run programs in our name.
        // The program may do what its main thread may, which of a process that root has started is more than its
        // user may.
        let is_roots = self.view.current.load().is_roots();
        let is_allowed = match self.by {
            By::Socket(by) if is_roots => by.uid == 0,
            By::Socket(by) => privileges::is_own_or_root(by.uid),
            By::Dashboard(_) => false,
        };
        if !is_allowed {
            return Err(Refusal::NotYours);
        }
        let absolute = |text: &str| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
        let binary = self.query.read("binary", "an absolute path is expected", absolute)?;
        let by = self.who();
        self.query.finish()?;
        let _place = self.view.orders.wait().ok_or(Refusal::Busy)?;
        let (answer, upgraded) = mpsc::channel();
        self.view.orders.give(Order::Upgrade { by, binary, answer });
        let upgraded = upgraded.recv_timeout(UPGRADE_TIME).map_err(|_| Refusal::Late)?;
        let upgraded = upgraded.map_err(Refusal::NotUpgraded)?;
        Ok(ok(json!({
            "from": {"pid": std::process::id(), "version": env!("CARGO_PKG_VERSION")},
            "to": {"pid": upgraded.pid, "version": upgraded.version},
            "sockets": upgraded.sockets,
            "moved": upgraded.moved,
            "remaining": {"connections": upgraded.connections, "tunnels": upgraded.tunnels},
        })))
    }
}

pub(super) fn ok(body: Value) -> Answer {
    Answer { status: 200, body }
}

/// What these workers have done since the start.
fn totals<'w>(workers: impl Iterator<Item = &'w WorkerCounters> + Clone) -> Value {
    let sum = |of: fn(&WorkerCounters) -> u64| workers.clone().map(of).sum::<u64>();
    // Those that end meanwhile must not make more ends than beginnings.
    let open = sum(|worker| worker.tunnels.value());
    let began = sum(|worker| worker.relay.tunnels.value());
    let side = |of: fn(&WorkerCounters) -> &SideCounters| {
        let sum = |value: fn(&SideCounters) -> u64| {
            workers.clone().map(|one| value(of(one))).sum::<u64>()
        };
        json!({
            "messages": sum(|side| side.texts.value() + side.binaries.value()),
            "bytes": sum(|side| side.bytes.value()),
        })
    };
    json!({
        "connections": sum(|worker| worker.accepted.value()),
        "tunnels": began,
        "ended": began.saturating_sub(open),
        "from_client": side(|worker| &worker.relay.client),
        "from_upstream": side(|worker| &worker.relay.upstream),
    })
}

fn worker(worker: &WorkerCounters) -> Value {
    json!({
        "worker": worker.id,
        "connections": worker.active.value(),
        "tunnels": worker.tunnels.value(),
        "totals": totals(std::iter::once(worker)),
    })
}

/// What the clients are to be told, if that is said.
pub(super) fn words(query: &mut Query) -> Result<Option<Arc<Farewell>>, QueryError> {
    let code = |text: &str| text.parse().ok().map(CloseCode).filter(|code| code.is_valid_on_wire());
    let expected = "a code that may be sent is expected, such as 1008, 1012 or 4000 to 4999";
    let code = query.read("code", expected, code)?;
    let fitting = |text: &str| (text.len() <= MAX_REASON_LEN).then(|| Box::<str>::from(text));
    let reason = query.read("reason", "at most 123 bytes are expected", fitting)?;
    match (code, reason) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(QueryError::Missing("code")),
        (Some(code), reason) => {
            Ok(Some(Arc::new(Farewell { code, reason: reason.unwrap_or_default() })))
        }
    }
}

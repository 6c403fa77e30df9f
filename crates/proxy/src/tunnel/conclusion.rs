//! What is said when a tunnel has ended, made ready when it begins.
//!
//! A tunnel may live for days, so nothing of its request stays but rendered access lines. Only where
//! a line cannot be made that way the request itself is kept.

use std::sync::Arc;
use std::time::Instant;

use wssgate_config::model::{LocationId, LogLevel};
use wssgate_relay::TunnelEnd;

use crate::exchange::access_log::{self, EarlyLines};
use crate::exchange::ending::Ending;
use crate::exchange::request::Request;
use crate::exchange::variables;
use crate::exchange::websocket::Record;
use crate::generation::Generation;
use crate::metrics::ServerCounters;
use crate::peers::Lease;
use crate::tunnel::message;

/// What is kept of a request until its tunnel ends.
pub(super) struct Conclusion {
    counted: Counted,
    serial: u64,
    /// When the upstream was asked.
    began: Instant,
    /// The context of error lines; `None` when none of the tunnel would be written.
    context: Option<Box<str>>,
    access: Access,
}

/// A tunnel as its server and its generation count it, however it comes to its end: also with the worker, if that
/// panics.
struct Counted {
    /// The one that it began with.
    generation: Arc<Generation>,
    location: LocationId,
    worker: usize,
}

impl Counted {
    fn new(request: &Request) -> Self {
        let generation = Arc::clone(&request.generation);
        let counted =
            Self { generation, location: request.route.location, worker: request.site.id };
        counted.server().opened.increment();
        counted.generation.tunnels.increment();
        counted
    }

    fn server(&self) -> &ServerCounters {
        self.generation.server_counters(self.location, self.worker)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.generation.tunnels.decrement();
        self.server().ended.increment();
    }
}

/// The access lines.
enum Access {
    Nothing,
    Lines(Box<(EarlyLines, Ending<'static>)>),
    Request(Box<Request>),
}

impl Conclusion {
    /// Takes what is needed out of a request whose upstream was asked at `began`.
    pub(super) fn new(request: Request, began: Instant) -> Self {
        let context = request.logs(LogLevel::Info).then(|| request.context().into());
        Self {
            counted: Counted::new(&request),
            serial: request.connection.serial,
            began,
            context,
            access: match EarlyLines::of(&request) {
                Some(lines) if lines.is_empty() => Access::Nothing,
                Some(lines) => {
                    let ending = Ending::of(&request).detached(lines.ask_for_attempts());
                    Access::Lines(Box::new((lines, ending)))
                }
                None => Access::Request(Box::new(request)),
            },
        }
    }

    /// The generation that the tunnel began with.
    pub(super) fn generation(&self) -> &Arc<Generation> {
        &self.counted.generation
    }

    /// What its worker counts of its server.
    pub(super) fn server_counters(&self) -> &ServerCounters {
        self.counted.server()
    }

    /// Counts the end of the tunnel as a failure of its peer.
    pub(super) fn count_failure(&self, lease: Lease) {
        let name = lease.peer().name.clone();
        if lease.fail(Instant::now()) {
            let context = self.context.as_deref().unwrap_or_default();
            let line = format_args!(
                "upstream server {name} temporarily disabled, it reset an upgraded connection at \
                 once{context}"
            );
            let log = self.counted.generation.logs.error_log(self.counted.location);
            log.write(LogLevel::Warn, Some(self.serial), line);
        }
    }

    /// Writes an error line of the tunnel that goes on.
    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        if let Some(context) = &self.context {
            let line = format_args!("{what} while proxying upgraded connection{context}");
            let log = self.counted.generation.logs.error_log(self.counted.location);
            log.write(LogLevel::Info, Some(self.serial), line);
        }
    }

    /// Says that a WebSocket begins, where that is wanted.
    pub(super) fn open(&mut self) {
        let Counted { generation, location, .. } = &self.counted;
        let location = &generation.http().locations[location.0];
        if !location.settings.websocket_logs.is_empty() {
            self.tell(Record::open());
        }
    }

    /// Says what is known of the tunnel, where that is wanted. It goes on.
    pub(super) fn tell(&mut self, record: Record) {
        let took = self.began.elapsed();
        match &mut self.access {
            Access::Nothing => {}
            Access::Lines(kept) => {
                let (lines, ending) = &**kept;
                let ending = ending.clone().with_tunnel(&record, took);
                lines.write(&self.counted.generation, self.counted.location, &ending);
            }
            Access::Request(request) => {
                if request.tunnel.told.replace((Box::new(record), took)).is_some() {
                    // Maps keep what they have looked up, which was another moment's.
                    variables::forget_maps(request);
                }
                access_log::write_record(request);
            }
        }
    }

    /// Says how the tunnel ended.
    pub(super) fn conclude(mut self, end: &TunnelEnd, record: Record) {
        if let Some(message) = message::of(end, &record) {
            self.note(format_args!("{message}"));
        }
        self.tell(record);
        if let Access::Request(request) = self.access {
            // The end of the worker waits for the line.
            let entered = request.site.live.enter();
            tokio::task::spawn_local(async move {
                access_log::write(&request).await;
                drop(entered);
            });
        }
    }
}

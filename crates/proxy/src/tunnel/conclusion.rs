//! What is said when a tunnel has ended, made ready when it begins.
//!
//! A tunnel may live for days, so nothing of its request stays but rendered access lines. Only where
//! a line cannot be made that way the request itself is kept.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use minicbor::{Decode, Encode};
use wssgate_config::model::{LocationId, LogLevel};
use wssgate_relay::TunnelEnd;

use crate::clock::SharedClock;
use crate::exchange::access_log::{self, EarlyLines, LineState};
use crate::exchange::ending::{Ending, EndingState};
use crate::exchange::request::Request;
use crate::exchange::variables;
use crate::exchange::websocket::Record;
use crate::generation::Generation;
use crate::metrics::{ServerCounters, ServerSeries};
use crate::peers::Lease;
use crate::tunnel::message;
use crate::tunnel::portable::{Spot, Stays};

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
    /// The one that it began with, or came to.
    generation: Arc<Generation>,
    spot: Spot,
    worker: usize,
    series: Arc<ServerSeries>,
    /// Whether it is one of another process that was bound here and has not come.
    expected: Cell<bool>,
    /// Whether it goes on elsewhere.
    leaves: bool,
}

impl Counted {
    /// One that begins.
    fn new(request: &Request) -> Self {
        let (generation, location) = (Arc::clone(&request.generation), request.route.location);
        let series = Arc::clone(generation.series(location));
        let counted = Self::of(generation, Spot::Here(location), series, request.site.id);
        counted.server().opened.increment();
        counted
    }

    /// One that has begun elsewhere and may come.
    fn expected(generation: Arc<Generation>, spot: Spot, worker: usize) -> Self {
        let series = match &spot {
            Spot::Here(location) => Arc::clone(generation.series(*location)),
            Spot::Gone(gone) => Arc::clone(&gone.series),
        };
        let counted = Self::of(generation, spot, series, worker);
        counted.expected.set(true);
        counted
    }

    /// It has come, if it was expected.
    fn arrive(&self) {
        if self.expected.replace(false) {
            self.server().taken_over.increment();
        }
    }

    fn of(
        generation: Arc<Generation>,
        spot: Spot,
        series: Arc<ServerSeries>,
        worker: usize,
    ) -> Self {
        generation.tunnels.increment();
        Self { generation, spot, worker, series, expected: Cell::new(false), leaves: false }
    }

    fn server(&self) -> &ServerCounters {
        self.series.worker(self.worker)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.generation.tunnels.decrement();
        if self.expected.get() {
            // It has stayed where it was.
            return;
        }
        let server = self.server();
        if self.leaves { &server.left } else { &server.ended }.increment();
    }
}

/// The access lines.
enum Access {
    Nothing,
    Lines(Box<(EarlyLines, Ending<'static>)>),
    Request(Box<Request>),
}

/// A [`Conclusion`] for another process. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct ConclusionState<'b> {
    #[n(0)]
    serial: u64,
    /// On the shared clock.
    #[n(1)]
    began: u64,
    #[b(2)]
    context: Option<&'b str>,
    #[b(3)]
    lines: Option<Vec<LineState<'b>>>,
    /// Where there are lines.
    #[b(4)]
    ending: Option<EndingState<'b>>,
}

impl Conclusion {
    /// What another process has to know of it.
    pub(super) fn state(&self, clock: &SharedClock) -> Result<ConclusionState<'_>, Stays> {
        let (lines, ending) = match &self.access {
            Access::Nothing => (None, None),
            Access::Lines(kept) => {
                let (lines, ending) = &**kept;
                let lines = lines.state(&self.counted.generation, self.location());
                (Some(lines), Some(ending.state(clock)))
            }
            Access::Request(_) => return Err(Stays::Request),
        };
        Ok(ConclusionState {
            serial: self.serial,
            began: clock.micros_of(self.began),
            context: self.context.as_deref(),
            lines,
            ending,
        })
    }

    /// The one that another process has known, at a place of this generation. It is counted as taken over when it comes.
    pub(super) fn restore(
        state: &ConclusionState<'_>,
        generation: &Arc<Generation>,
        spot: &Spot,
        worker: usize,
        clock: &SharedClock,
    ) -> Self {
        let access = match (&state.lines, &state.ending) {
            (Some(lines), Some(ending)) => {
                let lines = match spot {
                    Spot::Here(location) => EarlyLines::restore(lines, generation, *location),
                    Spot::Gone(_) => EarlyLines::restore_of_nowhere(lines, generation),
                };
                match lines.is_empty() {
                    true => Access::Nothing,
                    false => Access::Lines(Box::new((lines, Ending::restore(ending, clock)))),
                }
            }
            _ => Access::Nothing,
        };
        Self {
            counted: Counted::expected(Arc::clone(generation), spot.clone(), worker),
            serial: state.serial,
            began: clock.moment(state.began),
            context: state.context.map(Into::into),
            access,
        }
    }

    /// It is carried here, if it was not before.
    pub(super) fn arrive(&self) {
        self.counted.arrive();
    }

    /// Nothing is said here: another process goes on with the tunnel.
    pub(super) fn leave(mut self) {
        self.counted.leaves = true;
    }

    /// Where the tunnel is.
    pub(super) fn spot(&self) -> &Spot {
        &self.counted.spot
    }

    /// The location that it is in, or near.
    pub(super) fn location(&self) -> LocationId {
        self.counted.spot.location()
    }

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
            let log = self.counted.generation.logs.error_log(self.location());
            log.write(LogLevel::Warn, Some(self.serial), line);
        }
    }

    /// Writes an error line of the tunnel that goes on.
    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        if let Some(context) = &self.context {
            let line = format_args!("{what} while proxying upgraded connection{context}");
            let log = self.counted.generation.logs.error_log(self.location());
            log.write(LogLevel::Info, Some(self.serial), line);
        }
    }

    /// Says that a WebSocket begins, where that is wanted.
    pub(super) fn open(&mut self) {
        let location = &self.counted.generation.http().locations[self.location().0];
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
                lines.write(&self.counted.generation, self.counted.spot.location(), &ending);
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

//! Error lines and access lines, and the files that they go to.
//!
//! A line is written by the thread that has it to say, with one `write` to a descriptor opened with
//! `O_APPEND`, as nginx does: nothing is queued, and lines of several workers do not mix. A line
//! that cannot be written at once is lost and counted; connections never wait for a log.
//! The main thread opens, reopens and flushes (see [`LogFiles`]).

mod access;
mod error;
mod file;
mod kept_open;
mod losses;
mod moved;
mod stderr;
mod syslog;
mod with_variables;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

pub use access::AccessSink;
pub(crate) use error::level_named;
pub use error::{ErrorLog, level_name};
pub use file::{LogFiles, OpenError};
pub(crate) use file::{Notifier, NotifyOnDrop};
pub(crate) use moved::TargetState;
pub(crate) use with_variables::{AppendError, LogWithVariables};
use wssgate_config::Config;
use wssgate_config::model::{self, AccessLogTarget, LocationId, LogLevel, LogTarget};

/// The logs of one generation, all of them open.
#[derive(Debug)]
pub struct Logs {
    main: Arc<ErrorLog>,
    locations: Vec<LocationLogs>,
    /// All places of access lines and records that have no variables.
    sinks: HashMap<LogTarget, Arc<AccessSink>>,
}

#[derive(Debug)]
struct LocationLogs {
    error: Arc<ErrorLog>,
    access: Vec<Place>,
    websocket: Vec<Arc<AccessSink>>,
}

/// Where the lines of one `access_log` go.
#[derive(Debug)]
enum Place {
    Sink(Arc<AccessSink>),
    WithVariables(Arc<LogWithVariables>),
}

impl Logs {
    /// Opens everything that `config` names; `default` is where errors go when it names nothing.
    pub fn open(
        config: &Config,
        files: &Arc<LogFiles>,
        default: &LogTarget,
    ) -> Result<Self, OpenError> {
        let default = [model::ErrorLog { target: default.clone(), level: LogLevel::Error }];
        let or_default = |lines: &[model::ErrorLog]| match lines {
            [] => default.to_vec(),
            lines => lines.to_vec(),
        };
        let main_lines = or_default(&config.core.error_logs);
        let main = Arc::new(ErrorLog::open(&main_lines, files)?);
        // Most locations inherit their lines, so few different ones are left.
        let mut known = vec![(main_lines, Arc::clone(&main))];
        let mut places = Places::new(config, files);
        let mut locations = Vec::new();
        for location in config.http.iter().flat_map(|http| &http.locations) {
            let settings = &location.settings;
            let lines = or_default(&settings.error_logs);
            let error = match known.iter().find(|(other, _)| *other == lines) {
                Some((_, log)) => Arc::clone(log),
                None => {
                    let log = Arc::new(ErrorLog::open(&lines, files)?);
                    known.push((lines, Arc::clone(&log)));
                    log
                }
            };
            let lines = settings.access_logs.iter();
            let access = lines.map(|line| match &line.target {
                AccessLogTarget::Fixed(target) => places.sink(target).map(Place::Sink),
                AccessLogTarget::Variable(_) => {
                    Ok(places.with_variables(settings.open_log_file_cache.as_ref()))
                }
            });
            let access = access.collect::<Result<_, _>>()?;
            let records = settings.websocket_logs.iter();
            let websocket =
                records.map(|record| places.sink(&record.target)).collect::<Result<_, _>>()?;
            locations.push(LocationLogs { error, access, websocket });
        }
        let sinks = places.sinks.into_iter().map(|(target, sink)| (target.clone(), sink)).collect();
        Ok(Self { main, locations, sinks })
    }

    /// The error log of the main level.
    pub fn main(&self) -> &Arc<ErrorLog> {
        &self.main
    }

    /// From here on this level holds in every error log, or with `None` what is configured again.
    pub(crate) fn choose_level(&self, level: Option<LogLevel>) {
        self.main.choose(level);
        self.locations.iter().for_each(|logs| logs.error.choose(level));
    }

    /// The error log that applies in a location.
    pub fn error_log(&self, location: LocationId) -> &Arc<ErrorLog> {
        self.locations.get(location.0).map_or(&self.main, |logs| &logs.error)
    }

    /// Where line number `index` of a location's `access_logs` goes; `None` when its path has
    /// variables.
    pub fn access_sink(&self, location: LocationId, index: usize) -> Option<&Arc<AccessSink>> {
        match self.place(location, index)? {
            Place::Sink(sink) => Some(sink),
            Place::WithVariables(_) => None,
        }
    }

    /// The same of its `websocket_logs`.
    pub(crate) fn websocket_sink(
        &self,
        location: LocationId,
        index: usize,
    ) -> Option<&Arc<AccessSink>> {
        self.locations.get(location.0)?.websocket.get(index)
    }

    /// A place of access lines or records of any location.
    pub(crate) fn sink_at(&self, target: &LogTarget) -> Option<&Arc<AccessSink>> {
        self.sinks.get(target)
    }

    /// Where line number `index` of a location's `access_logs` goes, if its path has variables.
    pub(crate) fn with_variables(
        &self,
        location: LocationId,
        index: usize,
    ) -> Option<&Arc<LogWithVariables>> {
        match self.place(location, index)? {
            Place::Sink(_) => None,
            Place::WithVariables(log) => Some(log),
        }
    }

    fn place(&self, location: LocationId, index: usize) -> Option<&Place> {
        self.locations.get(location.0)?.access.get(index)
    }
}

/// The places of all access lines, each made once.
struct Places<'a> {
    files: &'a Arc<LogFiles>,
    /// As in nginx the buffer belongs to the file: every line that goes there goes through it.
    buffering: HashMap<&'a LogTarget, model::Buffering>,
    sinks: HashMap<&'a LogTarget, Arc<AccessSink>>,
    with_variables: Vec<Arc<LogWithVariables>>,
}

impl<'a> Places<'a> {
    fn new(config: &'a Config, files: &'a Arc<LogFiles>) -> Self {
        let locations = config.http.iter().flat_map(|http| &http.locations);
        let lines = locations.flat_map(|location| location.settings.access_logs.iter());
        let buffering = lines.filter_map(|line| match &line.target {
            AccessLogTarget::Fixed(target) => Some((target, line.buffering?)),
            AccessLogTarget::Variable(_) => None,
        });
        let buffering = buffering.collect();
        Self { files, buffering, sinks: HashMap::new(), with_variables: Vec::new() }
    }

    fn sink(&mut self, target: &'a LogTarget) -> Result<Arc<AccessSink>, OpenError> {
        Ok(match self.sinks.entry(target) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let buffering = self.buffering.get(target).copied();
                Arc::clone(new.insert(self.files.access_sink(target, buffering)?))
            }
        })
    }

    /// Those that inherit one `open_log_file_cache` share it.
    fn with_variables(&mut self, limits: Option<&Arc<model::LogFileCache>>) -> Place {
        let known = self.with_variables.iter().find(|log| log.has(limits));
        Place::WithVariables(known.cloned().unwrap_or_else(|| {
            let log = Arc::new(LogWithVariables::new(limits, self.files));
            self.with_variables.push(Arc::clone(&log));
            log
        }))
    }
}

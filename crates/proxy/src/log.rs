//! Error lines and access lines, and the files that they go to.
//!
//! A line is written by the thread that has it to say, with one `write` to a descriptor opened with
//! `O_APPEND`, as nginx does: nothing is queued, and lines of several workers do not mix. A line
//! that cannot be written at once is lost and counted; connections never wait for a log.
//! The main thread opens, reopens and flushes (see [`LogFiles`]).

mod access;
mod error;
mod file;
mod syslog;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

pub use access::AccessSink;
pub use error::{ErrorLog, level_name};
pub use file::{LogFiles, OpenError};
pub(crate) use file::{Notifier, NotifyOnDrop};
use wssgate_config::Config;
use wssgate_config::model::{self, AccessLogTarget, LocationId, LogLevel, LogTarget};

/// The logs of one generation, all of them open.
#[derive(Debug)]
pub struct Logs {
    main: Arc<ErrorLog>,
    locations: Vec<LocationLogs>,
    files: Arc<LogFiles>,
}

#[derive(Debug)]
struct LocationLogs {
    error: Arc<ErrorLog>,
    access: Vec<Option<Arc<AccessSink>>>,
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
        // Locations share a sink, else its buffer would part their lines.
        let mut sinks = HashMap::new();
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
            let access = settings.access_logs.iter().map(|line| {
                let AccessLogTarget::Fixed(target) = &line.target else { return Ok(None) };
                let sink = match sinks.entry((target, line.buffer, line.flush)) {
                    Entry::Occupied(known) => Arc::clone(known.get()),
                    Entry::Vacant(new) => {
                        let sink = files.access_sink(target, line.buffer, line.flush)?;
                        Arc::clone(new.insert(sink))
                    }
                };
                Ok(Some(sink))
            });
            locations.push(LocationLogs { error, access: access.collect::<Result<_, _>>()? });
        }
        Ok(Self { main, locations, files: Arc::clone(files) })
    }

    /// The error log of the main level.
    pub fn main(&self) -> &Arc<ErrorLog> {
        &self.main
    }

    /// The error log that applies in a location.
    pub fn error_log(&self, location: LocationId) -> &Arc<ErrorLog> {
        self.locations.get(location.0).map_or(&self.main, |logs| &logs.error)
    }

    /// Where line number `index` of a location's `access_logs` goes; `None` when its path has
    /// variables (see [`Logs::append`]).
    pub fn access_sink(&self, location: LocationId, index: usize) -> Option<&Arc<AccessSink>> {
        self.locations.get(location.0)?.access.get(index)?.as_ref()
    }

    /// Writes one access line to a path made for this request, opening it just for that, as nginx
    /// does without `open_log_file_cache`.
    pub fn append(&self, path: &Path, line: &[u8]) -> Result<(), OpenError> {
        self.files.append(path, line)
    }
}

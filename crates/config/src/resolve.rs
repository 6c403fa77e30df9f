//! From what was written to what applies: one whole configuration, each subject resolving its own part.

use std::collections::HashMap;
use std::path::PathBuf;

use wssgate_syntax::{Diagnostic, Span};

use crate::core::{Core, WORKER_SHUTDOWN_TIMEOUT, core};
use crate::http::{self, Http, http};
use crate::level::Level;
use crate::read::Reading;
use crate::unresolved::warn_of_missing_resolvers;

/// One whole configuration.
#[derive(Debug)]
pub struct Config {
    /// The main level.
    pub core: Core,
    /// The `http` block, when there is one.
    pub http: Option<Http>,
    /// Log files and where each is named first.
    pub log_files: HashMap<PathBuf, Span>,
}

/// Builds the model. Problems go to the report; with errors there the result is not to be used.
pub(crate) fn resolve(
    reading: &mut Reading<'_>,
    main: &Level<'_>,
    error_log: Option<PathBuf>,
) -> Config {
    let core = core(reading, main, error_log);
    let level = main.lines(&http::HTTP).next().and_then(|line| line.level);
    let http = level.map(|level| http(reading, core.error_logs.clone(), level));
    if let (Some(http), Some(level)) = (&http, level) {
        warn_of_missing_resolvers(reading, http, level);
    }
    if let Some(http) = &http {
        warn_of_cut_drains(reading, main, &core, http);
    }
    Config { core, http, log_files: std::mem::take(&mut reading.log_files) }
}

/// A drain that takes longer than the process has ends in the storm that it was to prevent.
fn warn_of_cut_drains(reading: &mut Reading<'_>, main: &Level<'_>, core: &Core, http: &Http) {
    let drains = http.locations.iter().filter_map(|location| location.proxy.tunnels.drain);
    let Some(longest) = drains.map(|drain| drain.over).max() else { return };
    let line = main.lines(&WORKER_SHUTDOWN_TIMEOUT).next();
    if let Some(line) = line
        && core.worker_shutdown_timeout.is_some_and(|timeout| timeout <= longest)
    {
        let message =
            "\"worker_shutdown_timeout\" ends \"websocket_drain\" before its time is over";
        let problem = Diagnostic::warning(message).at(line.directive.head(), "");
        let help = format!("make it longer than {longest:?}: the rest would be closed at once");
        reading.report.push(problem.help(help));
    }
}

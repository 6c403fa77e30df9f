//! From what was written to what applies: one whole configuration, each subject resolving its own part.

use std::path::PathBuf;

use crate::core::{Core, core};
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
    Config { core, http }
}

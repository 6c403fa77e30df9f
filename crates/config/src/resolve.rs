//! From what was written to what applies: inheritance, references, checks across directives.
//!
//! Each subject resolves its own part; here is what they share.

use std::collections::HashMap;
use std::path::PathBuf;

use wssgate_syntax::{Diagnostic, Span};

use crate::core::{Core, core};
use crate::http::{self, Http};
use crate::level::Level;
use crate::location::Location;
use crate::log::{ErrorLog, LogFormatId};
use crate::read::Reading;
use crate::server::Server;
use crate::upstream::{Upstream, UpstreamId};

/// One whole configuration.
#[derive(Debug)]
pub struct Config {
    /// The main level.
    pub core: Core,
    /// The `http` block, when there is one.
    pub http: Option<Http>,
}

/// What is known while the model is built.
pub(crate) struct Resolver<'r, 'a> {
    pub(crate) reading: &'r mut Reading<'a>,
    pub(crate) nowhere: Span,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) explicit: HashMap<Vec<u8>, UpstreamId>,
    pub(crate) locations: Vec<Location>,
    pub(crate) servers: Vec<Server>,
    pub(crate) log_formats: Vec<crate::model::LogFormat>,
    pub(crate) formats: HashMap<Box<[u8]>, LogFormatId>,
    pub(crate) error_logs: Vec<ErrorLog>,
}

/// Builds the model. Problems go to the report; with errors there the result is not to be used.
pub(crate) fn resolve(
    reading: &mut Reading<'_>,
    main: &Level<'_>,
    error_log: Option<PathBuf>,
    nowhere: Span,
) -> Config {
    let core = core(reading, main, error_log, nowhere);
    let mut resolver = Resolver {
        reading,
        nowhere,
        upstreams: Vec::new(),
        explicit: HashMap::new(),
        locations: Vec::new(),
        servers: Vec::new(),
        log_formats: Vec::new(),
        formats: HashMap::new(),
        error_logs: core.error_logs.clone(),
    };
    let http = main.lines(&http::HTTP).next().and_then(|line| line.level);
    let http = http.map(|level| resolver.http(level));
    Config { core, http }
}

impl Resolver<'_, '_> {
    pub(crate) fn error(&mut self, message: impl Into<String>, span: Span) {
        self.reading.report.push(Diagnostic::error(message).at(span, ""));
    }
}

//! From what was written to what applies: inheritance, references, checks across directives.
//!
//! A directive of an inner level replaces the same directive of all outer ones; lists are replaced as a whole. The
//! outermost level of all is one that nobody wrote: the defaults of the rows.

mod listen;
mod location;
mod log;
mod proxy;
mod server;
mod upstream;

use std::collections::HashMap;
use std::path::PathBuf;

use wssgate_syntax::{Diagnostic, Directive, Span, parse_text};

use crate::directive::{Braces, Context, Kind, rows};
use crate::draft::{Entry, Level, walk};
use crate::model::{
    Config, Core, ErrorLog, EventMethod, Http, Located, Location, LogFormatId, LogLevel, LogTarget,
    Server, Upstream, UpstreamId,
};
use crate::read::Reading;

/// A level and what it stands in.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'s, 't> {
    pub(crate) level: &'s Level<'t>,
    outer: Option<&'s Scope<'s, 't>>,
}

impl<'s, 't> Scope<'s, 't> {
    fn outermost(level: &'s Level<'t>) -> Self {
        Self { level, outer: None }
    }

    /// A level inside this one.
    pub(crate) fn inner<'i>(&'i self, level: &'i Level<'t>) -> Scope<'i, 't>
    where
        's: 'i,
    {
        Scope { level, outer: Some(self) }
    }

    /// The innermost level that says one of `names`.
    pub(crate) fn nearest(&self, names: &[&str]) -> Option<&Scope<'s, 't>> {
        if names.iter().any(|name| self.level.has(name)) {
            return Some(self);
        }
        self.outer.and_then(|outer| outer.nearest(names))
    }

    /// The value of a directive that some level sets.
    pub(crate) fn maybe<T: Clone + 'static>(&self, name: &str) -> Option<T> {
        self.nearest(&[name])?.level.named(name).next_back()?.value()
    }

    /// The value of a directive that has a default.
    ///
    /// # Panics
    /// When its row has none: a mistake of ours.
    pub(crate) fn one<T: Clone + 'static>(&self, name: &str) -> T {
        self.maybe(name)
            .or_else(|| self.default_of(name))
            .unwrap_or_else(|| panic!("`{name}` has no default"))
    }

    /// What the outermost level says, for directives that could not be read.
    fn default_of<T: Clone + 'static>(&self, name: &str) -> Option<T> {
        match self.outer {
            Some(outer) => outer.default_of(name),
            None => self.level.named(name).next_back()?.value(),
        }
    }

    /// A number that is used as a count or a size in memory.
    pub(crate) fn count(&self, name: &str) -> usize {
        usize::try_from(self.one::<u64>(name)).unwrap_or(usize::MAX)
    }

    /// A number that is used as a 32-bit one.
    pub(crate) fn small(&self, name: &str) -> u32 {
        u32::try_from(self.one::<u64>(name)).unwrap_or(u32::MAX)
    }

    /// All values of a directive on the innermost level that says it.
    pub(crate) fn all<T: Clone + 'static>(&self, name: &str) -> Vec<T> {
        let found = self.nearest(&[name]);
        found
            .into_iter()
            .flat_map(|scope| scope.level.named(name))
            .filter_map(Entry::value)
            .collect()
    }
}

/// The tree of all defaults that rows of `context` have. Its spans lead to `nowhere`, since nobody wrote them.
pub(crate) fn default_directives(context: Context, nowhere: Span) -> Vec<Directive> {
    let mut text = String::new();
    for row in rows().iter().filter(|row| row.allowed_in(context) && !row.default.is_empty()) {
        debug_assert!(row.braces == Braces::None && matches!(row.kind, Kind::Works(_)));
        text.push_str(&format!("{} {};\n", row.name, row.default));
    }
    let mut directives = parse_text("defaults", text.as_bytes()).directives;
    for directive in &mut directives {
        directive.span = nowhere;
        directive.name.span = nowhere;
        directive.args.iter_mut().for_each(|word| word.span = nowhere);
    }
    directives
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
    let http = main.named("http").next().and_then(|entry| entry.level.as_ref());
    let http = http.map(|level| resolver.http(level));
    Config { core, http }
}

fn core(
    reading: &mut Reading<'_>,
    main: &Level<'_>,
    error_log: Option<PathBuf>,
    nowhere: Span,
) -> Core {
    let main_defaults = default_directives(Context::Main, nowhere);
    let main_defaults = walk(reading, &main_defaults, Context::Main, true);
    let events_defaults = default_directives(Context::Events, nowhere);
    let events_defaults = walk(reading, &events_defaults, Context::Events, true);
    let outermost = Scope::outermost(&main_defaults);
    let scope = outermost.inner(main);
    let outer_events = Scope::outermost(&events_defaults);
    let events = main.named("events").next();
    let written_events = events.and_then(|entry| entry.level.as_ref());
    let events_scope = written_events.map_or(outer_events, |level| outer_events.inner(level));
    if events.is_none() {
        let help = "add `events { }`";
        reading.report.push(Diagnostic::error("no \"events\" section in configuration").help(help));
    }
    let user = main.named("user").next();
    let default_log = ErrorLog {
        target: error_log.map_or(LogTarget::Stderr, LogTarget::File),
        level: LogLevel::Error,
    };
    let error_logs = if main.has("error_log") { scope.all("error_log") } else { vec![default_log] };
    Core {
        daemon: scope.one("daemon"),
        master_process: scope.one("master_process"),
        worker_processes: scope.one("worker_processes"),
        user: user.and_then(|entry| {
            Some(Located { value: entry.value()?, span: entry.directive.head() })
        }),
        pid: scope.one("pid"),
        error_logs,
        worker_rlimit_nofile: scope.maybe("worker_rlimit_nofile"),
        worker_connections: events_scope.count("worker_connections"),
        event_method: events_scope.maybe("use").unwrap_or(EventMethod::Best),
        worker_shutdown_timeout: scope.maybe("worker_shutdown_timeout"),
        working_directory: scope.maybe("working_directory"),
        env: scope.all("env"),
    }
}

impl Resolver<'_, '_> {
    pub(crate) fn error(&mut self, message: impl Into<String>, span: Span) {
        self.reading.report.push(Diagnostic::error(message).at(span, ""));
    }

    fn http(&mut self, level: &Level<'_>) -> Http {
        let nowhere = self.nowhere;
        let mut defaults = default_directives(Context::Http, nowhere);
        // What only inner levels know has its default on the outermost level too.
        for context in [Context::Server, Context::Location] {
            let more = default_directives(context, nowhere);
            let known = |directive: &Directive| {
                defaults.iter().any(|other| other.name.value == directive.name.value)
            };
            let more: Vec<_> = more.into_iter().filter(|directive| !known(directive)).collect();
            defaults.extend(more);
        }
        let defaults = walk(self.reading, &defaults, Context::Http, true);
        let outermost = Scope::outermost(&defaults);
        let scope = outermost.inner(level);
        self.log_formats(level);
        self.upstream_blocks(level);
        self.server_blocks(level, &scope);
        let sockets = self.sockets(level);
        let unknown = self.reading.names.unknown();
        self.reading.report.extend(unknown);
        Http {
            variables: std::mem::take(&mut self.reading.names).into_variables(),
            maps: std::mem::take(&mut self.reading.maps),
            upstreams: std::mem::take(&mut self.upstreams),
            servers: std::mem::take(&mut self.servers),
            locations: std::mem::take(&mut self.locations),
            sockets,
            log_formats: std::mem::take(&mut self.log_formats),
        }
    }
}

//! The `http` block: all that servers, locations and upstreams share.

use wssgate_syntax as syntax;

use crate::directive::Arity::Exactly;
use crate::directive::{AnyDirective, Braces, Context, Directive, M};
use crate::level::{Level, walk};
use crate::listen::ListenSocket;
use crate::location::Location;
use crate::log::LogFormat;
use crate::read::present;
use crate::resolve::Resolver;
use crate::scope::{Scope, default_directives};
use crate::server::Server;
use crate::upstream::Upstream;
use crate::variable::{Map, Variables};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&HTTP];

/// `http`
pub(crate) static HTTP: Directive<()> = Directive {
    name: "http",
    contexts: M,
    arity: Exactly(0),
    doc: "Holds everything about HTTP.",
    braces: Braces::Level(Context::Http),
    ..Directive::once(present)
};

/// The `http` block.
#[derive(Debug)]
pub struct Http {
    /// Every variable that is used.
    pub variables: Variables,
    /// `map`, `geo` and `split_clients` blocks.
    pub maps: Vec<Map>,
    /// `upstream` blocks first, then one implicit group for each host of a `proxy_pass`.
    pub upstreams: Vec<Upstream>,
    /// `server` blocks in order.
    pub servers: Vec<Server>,
    /// All locations, those of `if` blocks and each server's own level too.
    pub locations: Vec<Location>,
    /// What to bind and which servers answer there.
    pub sockets: Vec<ListenSocket>,
    /// `log_format` lines; number 0 is `combined`.
    pub log_formats: Vec<LogFormat>,
}

impl Resolver<'_, '_> {
    pub(crate) fn http(&mut self, level: &Level<'_>) -> Http {
        let nowhere = self.nowhere;
        let mut defaults = default_directives(self.reading.registry, Context::Http, nowhere);
        // What only inner levels know has its default on the outermost level too.
        for context in [Context::Server, Context::Location] {
            let more = default_directives(self.reading.registry, context, nowhere);
            let known = |directive: &syntax::Directive| {
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
        let problems = self.reading.names.problems();
        self.reading.report.extend(problems);
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

//! Locations: what they match, how they nest, what applies in them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, printable};

use crate::acme::Certificates;
use crate::advice_kind::Advice;
use crate::common::Common;
use crate::directive::Arity::{AtLeast, Between, Exactly};
use crate::directive::{AnyDirective, Braces, Context, Directive, L, Parameter, S};
use crate::health_check::matching::Matches;
use crate::health_check::{HealthCheck, check_of};
use crate::ignored::ignored;
use crate::level::Entry;
use crate::log::Logs;
use crate::position::{LocationKind, Position};
use crate::proxy::inherited::InheritedProxy;
use crate::proxy::pass::{self, PROXY_PASS, ProxyPass, own_pass};
use crate::proxy::{self, ProxySettings, proxy_settings};
use crate::read::{
    Reading, Reads, directive_problem, parameter, parameter_names, present, unknown_parameter,
};
use crate::regex::Regex;
use crate::rewrite::{self, RewriteOp};
use crate::scope::Scope;
use crate::settings::{InheritedSettings, LocationSettings, settings};
use crate::upstream::Groups;
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&DASHBOARD, &EMPTY_GIF, &LIMIT_EXCEPT, &LOCATION, &PROMETHEUS, &READINESS, &STUB_STATUS];

/// `dashboard`
pub(crate) static DASHBOARD: Directive<bool> = Directive {
    name: "dashboard",
    contexts: L,
    arity: Between(0, 1),
    doc: "Shows a page for operators: open WebSockets with their users, rates, causes of ends, upstream servers and \
          certificates ([dashboard.md](dashboard.md)). The location must be a prefix, with `^~` if the server has regular \
          expressions that match below it, and its access restricted by \
          `allow` and `deny all`, `auth_basic`, `auth_jwt`, `auth_request` or `ssl_verify_client on`.",
    parameters: &[("control", "whoever gets in may also close and drain WebSockets")],
    example: "server {\n    listen 9000;\n    location ^~ /dashboard/ {\n        dashboard control;\n        \
              auth_basic operators;\n        auth_basic_user_file operators.htpasswd;\n        access_log off;\n    \
              }\n}",
    ..Directive::once(control)
};

/// `empty_gif`
pub(crate) static EMPTY_GIF: Directive<()> = Directive {
    name: "empty_gif",
    contexts: L,
    arity: Exactly(0),
    doc: "Responds with a transparent GIF of one pixel.",
    ..Directive::once(present)
};

/// `limit_except`
pub(crate) static LIMIT_EXCEPT: Directive<Vec<Box<[u8]>>> = Directive {
    name: "limit_except",
    contexts: L,
    arity: AtLeast(1),
    doc: "Applies the enclosed directives to all HTTP methods except those listed.",
    braces: Braces::Level(Context::LimitExcept),
    ..Directive::once(limit_except)
};

/// `location`
pub(crate) static LOCATION: Directive<LocationName> = Directive {
    name: "location",
    contexts: S | L,
    arity: Between(1, 2),
    doc: "Holds the settings for requests whose path matches a prefix or a regular expression.",
    braces: Braces::Level(Context::Location),
    ..Directive::repeated(location)
};

/// `prometheus`
pub(crate) static PROMETHEUS: Directive<()> = Directive {
    name: "prometheus",
    contexts: L,
    arity: Exactly(0),
    doc: "Responds with metrics for Prometheus, in its text format or OpenMetrics, as the request's \
          `Accept` asks. What there is, is in [metrics.md](metrics.md).",
    ..Directive::once(present)
};

/// `readiness`
pub(crate) static READINESS: Directive<Duration> = Directive {
    name: "readiness",
    contexts: L,
    arity: Between(0, 1),
    parameters: READINESS_PARAMETERS,
    doc: "Responds with 200 and `ready` as long as the server accepts connections, and with 503, \
          `Retry-After` and `draining` once QUIT has been received. Without `delay=` its port \
          refuses new connections then, so only those that were open before can still ask.",
    ..Directive::once(readiness)
};

const READINESS_PARAMETERS: &[Parameter] = &[(
    "delay=TIME",
    "how long after QUIT connections are still accepted while this says 503, so that load \
     balancers learn it in time; the longest one in the configuration counts, and a second QUIT \
     ends the wait; 0 by default",
)];

fn readiness(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Duration> {
    let Some(word) = directive.args.first() else { return Ok(Duration::ZERO) };
    let Some(text) = parameter(word, "delay=") else {
        return Err(unknown_parameter(word, &parameter_names(READINESS_PARAMETERS)));
    };
    value::duration(text).ok_or_else(|| directive_problem(directive, word, "invalid value"))
}

/// `stub_status`
pub(crate) static STUB_STATUS: Directive<()> = Directive {
    name: "stub_status",
    contexts: S | L,
    arity: Between(0, 1),
    doc: "Responds with basic connection and request counters.",
    ..Directive::once(present)
};

/// Index into [`Http::locations`](crate::model::Http::locations).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocationId(pub usize);

/// One location with everything that applies in it.
#[derive(Debug)]
pub struct Location {
    /// How it is matched.
    pub kind: LocationKind,
    /// The path, regular expression or `@name` as written; the enclosing location's for `if`.
    pub name: Box<[u8]>,
    /// Whether a request for the name without its final slash is redirected (a prefix ending in
    /// `/` that is passed to an upstream, or of a dashboard).
    pub auto_redirect: bool,
    /// Nested locations.
    pub locations: Locations,
    /// Rewrite directives in order.
    pub rewrite: Vec<RewriteOp>,
    /// Who answers.
    pub content: Content,
    /// `limit_except`: methods that are exempt (upper case; `GET` includes `HEAD`) and the
    /// location that applies to all others.
    pub limit_except: Option<(Vec<Box<[u8]>>, LocationId)>,
    /// Merged settings.
    pub settings: Arc<LocationSettings>,
    /// Merged `proxy_*` settings.
    pub proxy: Arc<ProxySettings>,
    /// Where it was written.
    pub span: Span,
    /// `ignore_warnings`.
    pub ignored: Vec<Advice>,
}

/// The locations of one level.
#[derive(Clone, Debug, Default)]
pub struct Locations {
    /// `=` locations by path.
    pub exact: HashMap<Box<[u8]>, LocationId>,
    /// Prefix and `^~` locations, sorted by path, so that the longest match comes last.
    pub prefixes: Vec<(Box<[u8]>, LocationId)>,
    /// `~` and `~*` locations in the order of the file.
    pub regexes: Vec<(Regex, LocationId)>,
}

/// Who answers a request in a location.
#[derive(Clone, Debug)]
pub enum Content {
    /// Files below `root` or `alias`.
    Files,
    /// `proxy_pass`.
    Proxy(ProxyPass),
    /// `dashboard`.
    Dashboard(Dashboard),
    /// `prometheus`.
    Prometheus,
    /// `readiness`, and how long after QUIT connections are still accepted.
    Readiness(Duration),
    /// `stub_status`.
    StubStatus,
    /// `empty_gif`.
    EmptyGif,
}

/// `dashboard` in a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dashboard {
    /// `control`: requests may close WebSockets.
    pub control: bool,
    /// Some are let in for their address alone. A page of others can have a browser come from there, under a name of
    /// its own (DNS rebinding), so requests must name the server as it is known.
    pub by_address: bool,
    /// Clients are known by their certificates, so requests must have one that was verified.
    pub certified: bool,
}

/// The arguments of `location`.
#[derive(Clone)]
pub(crate) struct LocationName {
    pub(crate) kind: LocationKind,
    /// Without its modifier.
    pub(crate) name: Box<[u8]>,
    /// The expression of `~` and `~*`.
    pub(crate) regex: Option<Regex>,
    /// Whether it is `~*`.
    pub(crate) caseless: bool,
}

fn control(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<bool> {
    match directive.args.first() {
        None => Ok(false),
        Some(word) if word.is("control") => Ok(true),
        Some(word) => Err(unknown_parameter(word, &["control"])),
    }
}

fn location(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<LocationName> {
    let (modifier, name): (&[u8], &[u8]) = match &directive.args[..] {
        [modifier, name] => (&modifier.value, &name.value),
        [word] => split_modifier(&word.value),
        _ => unreachable!("the row asks for one or two arguments"),
    };
    let span = directive.args[directive.args.len() - 1].span;
    let kind = match modifier {
        b"" if name.starts_with(b"@") && directive.args.len() == 1 => LocationKind::Named,
        b"" if directive.args.len() == 1 => LocationKind::Prefix,
        b"=" => LocationKind::Exact,
        b"^~" => LocationKind::PrefixFinal,
        b"~" | b"~*" => LocationKind::Regex,
        _ => {
            let word = &directive.args[0];
            let problem = Diagnostic::error(format!("invalid location modifier \"{word}\""));
            return Err(problem.at(word.span, "one of `=`, `~`, `~*`, `^~`"));
        }
    };
    let regex = match kind {
        LocationKind::Regex => Some(reading.regex(name, modifier == b"~*", span)?),
        _ => None,
    };
    Ok(LocationName { kind, name: name.into(), regex, caseless: modifier == b"~*" })
}

/// `location =/path` and the like: the modifier may stick to the name.
fn split_modifier(text: &[u8]) -> (&[u8], &[u8]) {
    match text {
        [b'=', name @ ..] => (b"=", name),
        [b'^', b'~', name @ ..] => (b"^~", name),
        [b'~', b'*', name @ ..] => (b"~*", name),
        [b'~', name @ ..] => (b"~", name),
        name => (b"", name),
    }
}

/// The methods that `limit_except` knows.
const METHODS: [&str; 15] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "CONNECT",
];

fn limit_except(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<Box<[u8]>>> {
    let mut methods: Vec<Box<[u8]>> = Vec::new();
    for word in &directive.args {
        let Some(method) =
            METHODS.iter().find(|method| word.value.eq_ignore_ascii_case(method.as_bytes()))
        else {
            return Err(Diagnostic::error(format!("invalid method \"{word}\"")).at(word.span, ""));
        };
        methods.push(method.as_bytes().into());
        if *method == "GET" {
            methods.push(b"HEAD".as_slice().into());
        }
    }
    Ok(methods)
}

/// What a level hands down that is not simply the nearest value.
pub(crate) struct Inherited {
    settings: InheritedSettings,
    proxy: InheritedProxy,
    /// Only `if` and `limit_except` blocks take it over.
    content: Content,
    own_settings: Common<LocationSettings>,
    own_proxy: Common<ProxySettings>,
}

/// What has no say in [`ProxySettings`].
const NO_PROXY_SETTINGS: [&[&dyn AnyDirective]; 2] = [rewrite::ROWS, ROWS];

/// What has no say in [`LocationSettings`].
const NO_SETTINGS: [&[&dyn AnyDirective]; 4] = [rewrite::ROWS, ROWS, pass::ROWS, proxy::ROWS];

/// The directive, if it says who answers, and whether nginx does not know it.
fn answers<'t>(entry: &Entry<'t>) -> Option<(&'t syntax::Directive, bool)> {
    let pass = entry.of(&PROXY_PASS).map(|line| (line.directive, false));
    pass.or_else(|| entry.of(&STUB_STATUS).map(|line| (line.directive, false)))
        .or_else(|| entry.of(&EMPTY_GIF).map(|line| (line.directive, false)))
        .or_else(|| entry.of(&DASHBOARD).map(|line| (line.directive, true)))
        .or_else(|| entry.of(&PROMETHEUS).map(|line| (line.directive, true)))
        .or_else(|| entry.of(&READINESS).map(|line| (line.directive, true)))
}

/// What is known while locations are built.
pub(crate) struct Resolver<'r, 'a> {
    pub(crate) reading: &'r mut Reading<'a>,
    pub(crate) groups: Groups,
    pub(crate) logs: Logs,
    pub(crate) acme: Certificates,
    pub(crate) matches: Matches,
    pub(crate) locations: Vec<Location>,
    /// Those of the server whose locations are built.
    pub(crate) health_checks: Vec<(LocationId, HealthCheck)>,
}

impl Resolver<'_, '_> {
    /// What the `http` level hands down.
    pub(crate) fn outermost_inheritance(&mut self, http: &Scope<'_, '_>) -> Inherited {
        let nothing = Inherited {
            settings: InheritedSettings::outermost(http),
            proxy: InheritedProxy::outermost(),
            content: Content::Files,
            own_settings: Common::new(),
            own_proxy: Common::new(),
        };
        self.inheritance(http, &nothing, &Position::server(self.reading.nowhere))
    }

    /// What a level hands down, given what it was handed.
    pub(crate) fn inheritance(
        &mut self,
        scope: &Scope<'_, '_>,
        outer: &Inherited,
        position: &Position<'_>,
    ) -> Inherited {
        let settings = outer.settings.inner(self.reading, scope, position);
        let proxy = outer.proxy.inner(self.reading, scope, position);
        let content = self.content(scope, outer, position);
        let passes = matches!(content, Content::Proxy(_));
        let same_proxy = !passes && scope.level.says_only(&NO_PROXY_SETTINGS);
        Inherited {
            settings,
            proxy,
            content,
            own_settings: outer.own_settings.inner(scope.level.says_only(&NO_SETTINGS)),
            own_proxy: outer.own_proxy.inner(same_proxy),
        }
    }

    fn content(
        &mut self,
        scope: &Scope<'_, '_>,
        outer: &Inherited,
        position: &Position<'_>,
    ) -> Content {
        self.check_contents(scope);
        for entry in scope.level.entries().iter().rev() {
            if entry.of(&PROXY_PASS).is_some() {
                let prefix = position.prefix();
                let pass = own_pass(self.reading, &mut self.groups, scope, prefix);
                return pass.map_or(Content::Files, Content::Proxy);
            }
            if let Some(line) = entry.of(&DASHBOARD) {
                let control = line.value == Some(&true);
                let dashboard = Dashboard { control, by_address: true, certified: false };
                return Content::Dashboard(dashboard);
            }
            if entry.of(&PROMETHEUS).is_some() {
                return Content::Prometheus;
            }
            if let Some(delay) = entry.of(&READINESS) {
                return Content::Readiness(delay.value.copied().unwrap_or_default());
            }
            if entry.of(&STUB_STATUS).is_some() {
                return Content::StubStatus;
            }
            if entry.of(&EMPTY_GIF).is_some() {
                return Content::EmptyGif;
            }
        }
        match (&position.kind, &outer.content) {
            // `if` and `limit_except` pass on what the location around them passes on.
            (LocationKind::Unnamed, passed @ (Content::Proxy(_) | Content::Dashboard(_))) => {
                passed.clone()
            }
            _ => Content::Files,
        }
    }

    /// Reports what answers besides the last one, which is the only one that does. nginx lets those that it knows
    /// itself stand together without a word.
    fn check_contents(&mut self, scope: &Scope<'_, '_>) {
        let answering: Vec<_> = scope.level.entries().iter().filter_map(answers).collect();
        let [others @ .., (last, last_is_ours)] = &answering[..] else { return };
        for (other, is_ours) in
            others.iter().filter(|(other, _)| other.name.value != last.name.value)
        {
            let message = format!("\"{}\" and \"{}\" both answer here", other.name, last.name);
            let problem = match is_ours | last_is_ours {
                true => Diagnostic::error(message),
                false => Diagnostic::warning(message),
            };
            let problem = problem.at(other.span, "without effect");
            self.reading.report.push(problem.at(last.span, "the last one answers"));
        }
    }

    /// Takes in the locations inside a level.
    pub(crate) fn nested(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
        position: &Position<'_>,
        locations: &mut Locations,
        mut named: Option<&mut BTreeMap<Box<[u8]>, LocationId>>,
    ) {
        let mut seen: HashSet<(bool, &[u8])> = HashSet::new();
        for line in scope.level.lines(&LOCATION) {
            let (Some(name), Some(level)) = (line.value, line.level) else {
                continue;
            };
            let span = line.directive.head();
            let &LocationName { kind, ref name, ref regex, .. } = name;
            if scope.level.context == Context::Location {
                self.check_nesting(position, kind, name, span);
            }
            let exact = kind == LocationKind::Exact;
            if kind != LocationKind::Regex && !seen.insert((exact, &**name)) {
                self.duplicate_location(kind, name, span);
                continue;
            }
            let inner_position = Position { kind, name, span };
            let scope = scope.inner(level);
            let id = self.whole_location(&scope, inherited, &inner_position);
            match (kind, regex) {
                (LocationKind::Exact, _) => {
                    locations.exact.insert(name.clone(), id);
                }
                (LocationKind::Named, _) => {
                    if let Some(named) = named.as_deref_mut() {
                        named.insert(name.clone(), id);
                    }
                }
                (_, Some(regex)) => locations.regexes.push((regex.clone(), id)),
                _ => locations.prefixes.push((name.clone(), id)),
            }
        }
        locations.prefixes.sort_by(|left, right| left.0.cmp(&right.0));
    }

    /// Of two named locations nginx silently takes the first; of others it wants only one.
    fn duplicate_location(&mut self, kind: LocationKind, name: &[u8], span: Span) {
        let message = format!("duplicate location \"{}\"", printable(name));
        let problem = match kind {
            LocationKind::Named => Diagnostic::warning(message).at(span, "never used"),
            _ => Diagnostic::error(message).at(span, ""),
        };
        self.reading.report.push(problem);
    }

    fn check_nesting(&mut self, outer: &Position<'_>, kind: LocationKind, name: &[u8], span: Span) {
        let inside = name.starts_with(outer.name);
        let (name, outer_name) = (printable(name), printable(outer.name));
        let message = match (outer.kind, kind) {
            (LocationKind::Exact, _) => {
                format!("location \"{name}\" cannot be inside the exact location \"{outer_name}\"")
            }
            (LocationKind::Named, _) => {
                format!("location \"{name}\" cannot be inside the named location \"{outer_name}\"")
            }
            (_, LocationKind::Named) => {
                format!("named location \"{name}\" can be on the server level only")
            }
            (_, LocationKind::Regex) => return,
            _ if inside => return,
            _ => format!("location \"{name}\" is outside location \"{outer_name}\""),
        };
        let problem = Diagnostic::error(message).at(span, "");
        self.reading.report.push(problem.at(outer.span, "inside this location"));
    }

    /// A location with everything inside it.
    fn whole_location(
        &mut self,
        scope: &Scope<'_, '_>,
        outer: &Inherited,
        position: &Position<'_>,
    ) -> LocationId {
        let inherited = self.inheritance(scope, outer, position);
        let rewrite = self.rewrite_ops(scope, &inherited, position);
        let mut locations = Locations::default();
        self.nested(scope, &inherited, position, &mut locations, None);
        self.location(scope, inherited, position, locations, rewrite)
    }

    /// Builds a location of what applies on its level.
    pub(crate) fn location(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: Inherited,
        position: &Position<'_>,
        locations: Locations,
        rewrite: Vec<RewriteOp>,
    ) -> LocationId {
        let limit_except = self.limit_except(scope, &inherited, position);
        let own_pass = scope.level.has(&PROXY_PASS);
        let settings = inherited
            .own_settings
            .get(|| settings(self.reading, &mut self.logs, scope, &inherited.settings));
        let pass = match &inherited.content {
            Content::Proxy(pass) => Some(pass),
            _ => None,
        };
        let proxy =
            inherited.own_proxy.get(|| proxy_settings(self.reading, scope, &inherited.proxy, pass));
        if let Some(check) = check_of(self.reading, &mut self.groups, &self.matches, scope, pass) {
            self.health_checks.push((LocationId(self.locations.len()), check));
        }
        let own_paths = own_pass || scope.level.has(&DASHBOARD);
        let plain = matches!(position.kind, LocationKind::Prefix | LocationKind::PrefixFinal);
        self.locations.push(Location {
            kind: position.kind,
            name: position.name.into(),
            auto_redirect: own_paths && plain && position.name.ends_with(b"/"),
            locations,
            rewrite,
            content: inherited.content,
            limit_except,
            settings,
            proxy,
            span: position.span,
            ignored: ignored(scope),
        });
        LocationId(self.locations.len() - 1)
    }

    fn limit_except(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
        position: &Position<'_>,
    ) -> Option<(Vec<Box<[u8]>>, LocationId)> {
        let line = scope.level.lines(&LIMIT_EXCEPT).next()?;
        let level = line.level?;
        let position = position.unnamed(line.directive.head());
        Some((line.value?.clone(), self.whole_location(&scope.inner(level), inherited, &position)))
    }
}

//! Locations: what they match, how they nest, what applies in them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use wssgate_syntax::{Diagnostic, Span, printable};

use crate::directive::Context;
use crate::directives::headers::Inherit;
use crate::directives::http::Keepalive;
use crate::directives::location::LocationName;
use crate::draft::Entry;
use crate::model::{
    AccessRule, AddHeader, AuthRequest, Condition, Content, ErrorPage, Location, LocationId,
    LocationKind, LocationSettings, Locations, MimeTypes, RewriteOp, Root,
};
use crate::template::Template;

use super::proxy::{Redirects, limit};
use super::{Resolver, Scope};

/// Where a level stands among the locations.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) kind: LocationKind,
    /// The location's name; that of the enclosing location for `if` and `limit_except`.
    pub(crate) name: Box<[u8]>,
    pub(crate) span: Span,
}

impl Place {
    /// The server's own level.
    pub(crate) fn server(span: Span) -> Self {
        Self { kind: LocationKind::Unnamed, name: Box::default(), span }
    }

    /// An `if` or `limit_except` here.
    fn unnamed(&self, span: Span) -> Self {
        Self { kind: LocationKind::Unnamed, name: self.name.clone(), span }
    }
}

/// What a level hands down that is not simply the nearest value.
#[derive(Clone)]
pub(crate) struct Inherited {
    types: Arc<MimeTypes>,
    root: Root,
    redirects: Redirects,
    add_headers: Vec<AddHeader>,
    add_trailers: Vec<AddHeader>,
    /// Only `if` and `limit_except` blocks take it over.
    content: Content,
}

impl Resolver<'_, '_> {
    /// What the `http` level hands down.
    pub(crate) fn outermost_inheritance(&mut self, http: &Scope<'_, '_>) -> Inherited {
        let types = [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")];
        let types =
            types.map(|(extension, mime)| (extension.as_bytes().into(), mime.as_bytes().into()));
        let root = http.outer.map(|defaults| defaults.one::<Root>("root"));
        let nothing = Inherited {
            types: Arc::new(types.into_iter().collect()),
            root: root.unwrap_or_else(|| http.one("root")),
            redirects: Redirects { on: true, rules: None },
            add_headers: Vec::new(),
            add_trailers: Vec::new(),
            content: Content::Files,
        };
        self.inheritance(http, &nothing, &Place::server(self.nowhere))
    }

    /// What a level hands down, given what it was handed.
    pub(crate) fn inheritance(
        &mut self,
        scope: &Scope<'_, '_>,
        outer: &Inherited,
        place: &Place,
    ) -> Inherited {
        Inherited {
            types: types(scope).unwrap_or_else(|| Arc::clone(&outer.types)),
            root: self.root(scope, place).unwrap_or_else(|| outer.root.clone()),
            redirects: self.redirects(scope, &outer.redirects, place),
            add_headers: fields(scope, &outer.add_headers, "add_header", "add_header_inherit"),
            add_trailers: fields(scope, &outer.add_trailers, "add_trailer", "add_trailer_inherit"),
            content: self.content(scope, outer, place),
        }
    }

    fn content(&mut self, scope: &Scope<'_, '_>, outer: &Inherited, place: &Place) -> Content {
        let own = ["proxy_pass", "stub_status", "empty_gif"];
        let last = scope.level.entries().iter().rev().find(|entry| own.contains(&entry.row.name));
        match (last.map(|entry| entry.row.name), place.kind == LocationKind::Unnamed) {
            (Some("stub_status"), _) => Content::StubStatus,
            (Some("empty_gif"), _) => Content::EmptyGif,
            (Some(_), _) => self.own_pass(scope, place).map_or(Content::Files, Content::Proxy),
            // `if` and `limit_except` pass on what the location around them passes on.
            (None, true) if matches!(outer.content, Content::Proxy(_)) => outer.content.clone(),
            (None, _) => Content::Files,
        }
    }

    /// `root` or `alias` of this level.
    fn root(&mut self, scope: &Scope<'_, '_>, place: &Place) -> Option<Root> {
        let level = scope.level;
        let mut said =
            level.entries().iter().filter(|entry| matches!(entry.row.name, "root" | "alias"));
        let first = said.next()?;
        if let Some(second) = said.next() {
            let message = format!(
                "\"{}\" directive is duplicate, \"{}\" directive was specified earlier",
                second.row.name, first.row.name
            );
            self.error(message, second.directive.head());
        }
        if first.row.name == "alias" && place.kind == LocationKind::Named {
            let message = "the \"alias\" directive cannot be used inside the named location";
            self.error(message, first.directive.head());
        }
        let mut root: Root = first.value()?;
        if root.alias && place.kind != LocationKind::Regex {
            root.alias_prefix = place.name.clone();
        }
        Some(root)
    }

    /// Takes in the locations inside a level.
    pub(crate) fn nested(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
        place: &Place,
        locations: &mut Locations,
        mut named: Option<&mut BTreeMap<Box<[u8]>, LocationId>>,
    ) {
        let mut seen: HashSet<(bool, Box<[u8]>)> = HashSet::new();
        for entry in scope.level.named("location") {
            let (Some(name), Some(level)) = (entry.value::<LocationName>(), &entry.level) else {
                continue;
            };
            let span = entry.directive.head();
            let LocationName { kind, name, regex } = name;
            if scope.level.context == Context::Location {
                self.check_nesting(place, &kind, &name, span);
            }
            let exact = kind == LocationKind::Exact;
            if kind != LocationKind::Regex && !seen.insert((exact, name.clone())) {
                self.duplicate_location(&kind, &name, span);
                continue;
            }
            let inner_place = Place { kind: kind.clone(), name: name.clone(), span };
            let scope = scope.inner(level);
            let id = self.whole_location(&scope, inherited, &inner_place);
            match (kind, regex) {
                (LocationKind::Exact, _) => {
                    locations.exact.insert(name, id);
                }
                (LocationKind::Named, _) => {
                    if let Some(named) = named.as_deref_mut() {
                        named.insert(name, id);
                    }
                }
                (_, Some(regex)) => locations.regexes.push((regex, id)),
                _ => locations.prefixes.push((name, id)),
            }
        }
        locations.prefixes.sort_by(|left, right| left.0.cmp(&right.0));
    }

    /// Of two named locations nginx silently takes the first; of others it wants only one.
    fn duplicate_location(&mut self, kind: &LocationKind, name: &[u8], span: Span) {
        let message = format!("duplicate location \"{}\"", printable(name));
        let problem = match kind {
            LocationKind::Named => Diagnostic::warning(message).at(span, "never used"),
            _ => Diagnostic::error(message).at(span, ""),
        };
        self.reading.report.push(problem);
    }

    fn check_nesting(&mut self, outer: &Place, kind: &LocationKind, name: &[u8], span: Span) {
        let inside = name.starts_with(&outer.name);
        let (name, outer_name) = (printable(name), printable(&outer.name));
        let message = match (&outer.kind, kind) {
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
        self.reading.report.push(problem.at(outer.span, "inside of this"));
    }

    /// A location with everything inside it.
    fn whole_location(
        &mut self,
        scope: &Scope<'_, '_>,
        outer: &Inherited,
        place: &Place,
    ) -> LocationId {
        let inherited = self.inheritance(scope, outer, place);
        let rewrite = self.rewrite_ops(scope, &inherited, place);
        let mut locations = Locations::default();
        self.nested(scope, &inherited, place, &mut locations, None);
        self.location(scope, &inherited, place, locations, rewrite)
    }

    /// Builds a location of what applies on its level.
    pub(crate) fn location(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
        place: &Place,
        locations: Locations,
        rewrite: Vec<RewriteOp>,
    ) -> LocationId {
        let limit_except = self.limit_except(scope, inherited, place);
        let own_pass = scope.level.has("proxy_pass");
        let settings = self.settings(scope, inherited);
        let proxy = self.proxy_settings(scope, &inherited.redirects, &inherited.content);
        let plain = matches!(place.kind, LocationKind::Prefix | LocationKind::PrefixFinal);
        self.locations.push(Location {
            kind: place.kind.clone(),
            name: place.name.clone(),
            auto_redirect: own_pass && plain && place.name.ends_with(b"/"),
            locations,
            rewrite,
            content: inherited.content.clone(),
            limit_except,
            settings,
            proxy,
            span: place.span,
        });
        LocationId(self.locations.len() - 1)
    }

    fn limit_except(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
        place: &Place,
    ) -> Option<(Vec<Box<[u8]>>, LocationId)> {
        let entry = scope.level.named("limit_except").next()?;
        let level = entry.level.as_ref()?;
        let place = place.unnamed(entry.directive.head());
        Some((entry.value()?, self.whole_location(&scope.inner(level), inherited, &place)))
    }

    /// The rewrite directives of a level in order, those inside its `if` blocks too.
    pub(crate) fn rewrite_ops(
        &mut self,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
        place: &Place,
    ) -> Vec<RewriteOp> {
        let mut ops = Vec::new();
        for entry in scope.level.entries() {
            match entry.row.name {
                "break" => ops.push(RewriteOp::Break),
                "set" | "return" | "rewrite" => ops.extend(entry.value::<RewriteOp>()),
                "if" => ops.extend(self.if_block(scope, entry, inherited, place)),
                _ => {}
            }
        }
        ops
    }

    fn if_block(
        &mut self,
        scope: &Scope<'_, '_>,
        entry: &Entry<'_>,
        inherited: &Inherited,
        place: &Place,
    ) -> Option<RewriteOp> {
        let condition: Condition = entry.value()?;
        let scope = scope.inner(entry.level.as_ref()?);
        let place = place.unnamed(entry.directive.head());
        let inherited = self.inheritance(&scope, inherited, &place);
        let ops = self.rewrite_ops(&scope, &inherited, &place);
        let location = (scope.level.context == Context::LocationIf)
            .then(|| self.location(&scope, &inherited, &place, Locations::default(), Vec::new()));
        Some(RewriteOp::If { condition, ops, location })
    }

    fn settings(&mut self, scope: &Scope<'_, '_>, inherited: &Inherited) -> LocationSettings {
        let keepalive: Keepalive = scope.one("keepalive_timeout");
        LocationSettings {
            root: inherited.root.clone(),
            index: scope.all::<Vec<Template>>("index").concat(),
            try_files: scope.level.named("try_files").next().and_then(Entry::value),
            types: Arc::clone(&inherited.types),
            default_type: scope.one("default_type"),
            error_pages: scope.all::<ErrorPage>("error_page"),
            recursive_error_pages: scope.one("recursive_error_pages"),
            internal: scope.maybe::<()>("internal").is_some(),
            client_max_body_size: scope.one("client_max_body_size"),
            client_body_buffer_size: scope.count("client_body_buffer_size"),
            client_body_timeout: scope.one("client_body_timeout"),
            client_body_temp_path: scope.one("client_body_temp_path"),
            client_body_in_file_only: scope.one("client_body_in_file_only"),
            keepalive_timeout: keepalive.timeout,
            keepalive_header: keepalive.header,
            keepalive_requests: scope.one("keepalive_requests"),
            keepalive_time: scope.one("keepalive_time"),
            send_timeout: scope.one("send_timeout"),
            lingering_close: scope.one("lingering_close"),
            lingering_time: scope.one("lingering_time"),
            lingering_timeout: scope.one("lingering_timeout"),
            reset_timedout_connection: scope.one("reset_timedout_connection"),
            tcp_nodelay: scope.one("tcp_nodelay"),
            server_tokens: scope.one("server_tokens"),
            etag: scope.one("etag"),
            if_modified_since: scope.one("if_modified_since"),
            absolute_redirect: scope.one("absolute_redirect"),
            port_in_redirect: scope.one("port_in_redirect"),
            server_name_in_redirect: scope.one("server_name_in_redirect"),
            log_not_found: scope.one("log_not_found"),
            chunked_transfer_encoding: scope.one("chunked_transfer_encoding"),
            msie_padding: scope.one("msie_padding"),
            limit_rate: limit(scope.one("limit_rate")),
            limit_rate_after: limit(scope.one("limit_rate_after")),
            add_headers: inherited.add_headers.clone(),
            add_trailers: inherited.add_trailers.clone(),
            expires: scope.maybe("expires"),
            log_subrequest: scope.one("log_subrequest"),
            auth_request: auth_request(scope),
            access: access(scope),
            access_logs: self.access_logs(scope),
            error_logs: self.error_logs(scope),
        }
    }
}

/// The `types` blocks of this level together.
fn types(scope: &Scope<'_, '_>) -> Option<Arc<MimeTypes>> {
    if !scope.level.has("types") {
        return None;
    }
    let blocks = scope.level.named("types").filter_map(Entry::value::<MimeTypes>);
    Some(Arc::new(blocks.flatten().collect()))
}

/// `add_header` or `add_trailer` lines: own ones replace outer ones, unless they are to be merged.
fn fields(scope: &Scope<'_, '_>, outer: &[AddHeader], name: &str, inherit: &str) -> Vec<AddHeader> {
    let own: Vec<AddHeader> = scope.level.named(name).filter_map(Entry::value).collect();
    match scope.one::<Inherit>(inherit) {
        Inherit::On if own.is_empty() => outer.to_vec(),
        Inherit::Merge => outer.iter().cloned().chain(own).collect(),
        Inherit::On | Inherit::Off => own,
    }
}

/// Whom to ask, and what to keep of the answer; both are inherited on their own.
fn auth_request(scope: &Scope<'_, '_>) -> Option<AuthRequest> {
    let uri = scope.one::<Option<Box<[u8]>>>("auth_request")?;
    Some(AuthRequest { uri, set: scope.all("auth_request_set") })
}

/// `allow` and `deny` are one list.
fn access(scope: &Scope<'_, '_>) -> Vec<AccessRule> {
    let Some(found) = scope.nearest(&["allow", "deny"]) else {
        return Vec::new();
    };
    let entries = found.level.entries().iter();
    let rules = entries.filter(|entry| matches!(entry.row.name, "allow" | "deny"));
    rules.filter_map(Entry::value).collect()
}

//! Names that need a `resolver` and have none.

use std::collections::HashSet;

use wssgate_syntax::Diagnostic;

use crate::http::Http;
use crate::location::{Content, Location, LocationId, Locations};
use crate::proxy::pass::ProxyPass;
use crate::read::Reading;
use crate::rewrite::RewriteOp;
use crate::server::Server;
use crate::template::{Part, Template, VariableId};
use crate::upstream::Upstream;
use crate::value::{Host, UpstreamUrl};
use crate::variable::Variables;

/// Warns of names in `proxy_pass` that will need a resolver and have none: every request would be
/// answered with 502.
pub(crate) fn warn_of_missing_resolvers(reading: &mut Reading<'_>, http: &Http) {
    let groups = GroupNames::of(&http.upstreams);
    for server in &http.servers {
        let mut locations = Vec::new();
        server.named_locations.values().for_each(|id| collect(http, *id, &mut locations));
        collect_all(http, &server.locations, &mut locations);
        for location in locations {
            warn_of_location(reading, http, &groups, server, location);
        }
    }
}

/// The names of all groups, in lower case.
#[derive(Default)]
struct GroupNames {
    /// Those of `upstream` blocks.
    explicit: HashSet<Vec<u8>>,
    /// Those of groups without a block.
    implicit: HashSet<Vec<u8>>,
}

impl GroupNames {
    fn of(groups: &[Upstream]) -> Self {
        let mut names = Self::default();
        for group in groups {
            let kind = if group.explicit { &mut names.explicit } else { &mut names.implicit };
            kind.insert(group.name.to_ascii_lowercase());
        }
        names
    }

    /// Whether one is the group of a URL. An `upstream` block has no port: a URL that names one means an address, as
    /// in nginx.
    fn know(&self, url: &UpstreamUrl) -> bool {
        let endpoint = &url.endpoint;
        let explicit = endpoint.port.is_none()
            && self.explicit.contains(&endpoint.host_text.to_ascii_lowercase());
        explicit || self.implicit.contains(&url.group_name().to_ascii_lowercase())
    }
}

/// Collects a location and those inside it, but for `if` and `limit_except`: what those have taken over
/// is told where it was written.
fn collect<'h>(http: &'h Http, id: LocationId, found: &mut Vec<&'h Location>) {
    let location = &http.locations[id.0];
    found.push(location);
    collect_all(http, &location.locations, found);
}

fn collect_all<'h>(http: &'h Http, locations: &Locations, found: &mut Vec<&'h Location>) {
    let prefixes = locations.prefixes.iter().map(|(_, id)| id);
    let regexes = locations.regexes.iter().map(|(_, id)| id);
    let ids = locations.exact.values().chain(prefixes).chain(regexes);
    // In the order of the file.
    let mut ids: Vec<_> = ids.copied().collect();
    ids.sort();
    ids.into_iter().for_each(|id| collect(http, id, found));
}

fn warn_of_location(
    reading: &mut Reading<'_>,
    http: &Http,
    groups: &GroupNames,
    server: &Server,
    location: &Location,
) {
    let Content::Proxy(ProxyPass::Variable(url)) = &location.content else { return };
    if location.settings.resolver.is_some() {
        return;
    }
    let mut told = HashSet::new();
    for prefix in prefixes(&http.variables, url, server, location) {
        let Ok(url) = UpstreamUrl::parse(&prefix) else { continue };
        let Host::Name(name) = &url.endpoint.host else { continue };
        if groups.know(&url) || !told.insert(name.clone()) {
            continue;
        }
        let message = format!("no resolver defined to resolve {name}");
        let help = "add a `resolver`, e.g. `resolver 127.0.0.11;` in a Docker container, or define an \
                    `upstream` block of this name";
        let problem = Diagnostic::warning(message)
            .at(location.span, "requests here will be answered with 502");
        reading.report.push(problem.help(help));
    }
}

/// What a variable may have been `set` to when a location passes a request on.
fn values<'h>(
    variable: VariableId,
    server: &'h Server,
    location: &'h Location,
) -> Vec<&'h Template> {
    let mut values = Vec::new();
    let always = collect_set(variable, &location.rewrite, &mut values);
    if !always {
        collect_set(variable, &server.rewrite, &mut values);
    }
    values
}

/// Collects what `set` gives to a variable; whether it does so in any case.
fn collect_set<'o>(
    variable: VariableId,
    ops: &'o [RewriteOp],
    values: &mut Vec<&'o Template>,
) -> bool {
    let mut always = false;
    for op in ops {
        match op {
            RewriteOp::Set { variable: set, value } if *set == variable => {
                values.push(value);
                always = true;
            }
            RewriteOp::If { ops, .. } => {
                collect_set(variable, ops, values);
            }
            _ => {}
        }
    }
    always
}

/// With what a URL will begin, its host included, as far as that is certain.
fn prefixes(
    variables: &Variables,
    url: &Template,
    server: &Server,
    location: &Location,
) -> Vec<Vec<u8>> {
    let (mut texts, mut rest) = (vec![Vec::new()], url.parts());
    while let Some((part, after)) = rest.split_first() {
        let values: Vec<&[u8]> = match part {
            Part::Text(text) => vec![text],
            Part::Variable(variable) => {
                let values = values(*variable, server, location).into_iter();
                values.filter_map(Template::as_text).collect()
            }
            Part::Capture(_) => Vec::new(),
        };
        // Of two variables with several values each, not all pairs need occur.
        if values.is_empty() || (texts.len() > 1 && values.len() > 1) {
            break;
        }
        let longer = |text: Vec<u8>| values.iter().map(move |value| [&text[..], value].concat());
        texts = texts.into_iter().flat_map(longer).collect();
        rest = after;
    }
    // What follows must not go on with the host.
    let path_follows = match rest.first() {
        None => true,
        Some(Part::Text(text)) => text.starts_with(b"/") || text.starts_with(b"?"),
        Some(Part::Variable(variable)) => {
            matches!(&*variables.slot(*variable).name, "request_uri" | "uri" | "document_uri")
        }
        Some(Part::Capture(_)) => false,
    };
    let whole = |text: &Vec<u8>| {
        let host = text.splitn(4, |byte| *byte == b'/').nth(3);
        path_follows || host.is_some()
    };
    texts.retain(whole);
    texts
}

//! Names that need a `resolver` and have none.

mod texts;

use std::collections::{BTreeMap, HashSet};

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use texts::{Maps, Place, Text};

use crate::http::Http;
use crate::level::Level;
use crate::location::{Content, Location, LocationId, Locations};
use crate::proxy::pass::ProxyPass;
use crate::read::Reading;
use crate::server::Server;
use crate::template::{Part, Template};
use crate::upstream::Upstream;
use crate::value::{Host, UpstreamUrl};
use crate::variable::MapId;
use crate::{geo, map};

/// Warns of names in `proxy_pass` that will need a resolver and have none: every request would be
/// answered with 502.
pub(crate) fn warn_of_missing_resolvers(reading: &mut Reading<'_>, http: &Http, level: &Level<'_>) {
    let groups = GroupNames::of(&http.upstreams);
    let maps = Maps::of(http);
    let mut missing = Missing { maps: &maps, groups, level, told: HashSet::new() };
    for server in &http.servers {
        let mut locations = Vec::new();
        server.named_locations.values().for_each(|id| collect(http, *id, &mut locations));
        collect_all(http, &server.locations, &mut locations);
        for location in locations {
            missing.warn_of_location(reading, server, location);
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

/// Names without a resolver, of maps told once.
struct Missing<'h> {
    maps: &'h Maps<'h>,
    groups: GroupNames,
    level: &'h Level<'h>,
    told: HashSet<(MapId, String)>,
}

impl Missing<'_> {
    fn warn_of_location(
        &mut self,
        reading: &mut Reading<'_>,
        server: &Server,
        location: &Location,
    ) {
        let Content::Proxy(ProxyPass::Variable(url)) = &location.content else { return };
        if location.settings.resolver.is_some() {
            return;
        }
        let mut of_maps = BTreeMap::<MapId, Vec<String>>::new();
        let mut told = HashSet::new();
        for text in prefixes(&Place { maps: self.maps, server, location }, url) {
            let Some(name) = self.missing_name(&text.bytes) else { continue };
            match text.map {
                Some(map) if !self.told.insert((map, name.clone())) => {}
                Some(map) => of_maps.entry(map).or_default().push(name),
                None if !told.insert(name.clone()) => {}
                None => {
                    let problem = problem(&name).at(location.span, "requests here will get a 502");
                    reading.report.push(problem);
                }
            }
        }
        for (map, names) in of_maps {
            reading.report.push(self.problem_of_map(map, &names, location));
        }
    }

    /// The name in a URL that will have to be looked up.
    fn missing_name(&self, url: &[u8]) -> Option<String> {
        let url = UpstreamUrl::parse(url).ok()?;
        match &url.endpoint.host {
            Host::Name(name) if !self.groups.know(&url) => Some(name.clone()),
            _ => None,
        }
    }

    fn problem_of_map(&self, map: MapId, names: &[String], location: &Location) -> Diagnostic {
        let problem = problem(&listed(names));
        let Some(block) = self.block(map) else {
            return problem.at(location.span, "requests here will get a 502");
        };
        let variable = block.args.last().map_or_else(String::new, ToString::to_string);
        let label = format!("requests that `{variable}` sends there will get a 502");
        let says = |word: &&Word| is_named_in(&names[0], &word.to_string());
        let value = map::entries(block).iter().filter_map(|entry| entry.args.last()).find(says);
        let place = value.map_or(block.head(), |word| word.span);
        problem.at(location.span, label).at(place, format!("`{variable}` gets the name here"))
    }

    /// What defines a map.
    fn block(&self, map: MapId) -> Option<&syntax::Directive> {
        let lines = self.level.lines_of([&map::MAP, &map::SPLIT_CLIENTS, &geo::GEO]);
        let mut lines = lines.filter(|line| line.value == Some(&map));
        lines.next().map(|line| line.directive)
    }
}

/// Whether the host of a value is `name`; the rest of its URL may stand around it.
fn is_named_in(name: &str, value: &str) -> bool {
    let in_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    value.split(|c| !in_host(c)).any(|part| part.eq_ignore_ascii_case(name))
}

fn problem(names: &str) -> Diagnostic {
    let message = format!("no resolver defined to resolve {names}");
    let help = "add a `resolver`, e.g. `resolver 127.0.0.11;` in a Docker container, or define an \
                `upstream` block of this name";
    Diagnostic::warning(message).help(help)
}

/// Names as they stand in a sentence, which does not become longer than can be read.
fn listed(names: &[String]) -> String {
    match names {
        [name] => name.clone(),
        [a, b, c, others @ ..] if !others.is_empty() => {
            format!("{a}, {b}, {c} and {} more", others.len())
        }
        _ => {
            let (last, names) = names.split_last().expect("some are missing");
            format!("{} and {last}", names.join(", "))
        }
    }
}

/// With what a URL will begin, its host included, as far as that is certain.
fn prefixes(place: &Place<'_>, url: &Template) -> Vec<Text> {
    let (mut texts, rest) = place.beginnings(url);
    // What follows must not go on with the host.
    let path_follows = match rest.first() {
        None => true,
        Some(Part::Text(text)) => text.starts_with(b"/") || text.starts_with(b"?"),
        Some(Part::Variable(variable)) => {
            let name = &*place.maps.http.variables.slot(*variable).name;
            matches!(name, "request_uri" | "uri" | "document_uri")
        }
        Some(Part::Capture(_)) => false,
    };
    let is_whole = |text: &Text| {
        let path = text.bytes.splitn(4, |byte| *byte == b'/').nth(3);
        path_follows || path.is_some()
    };
    texts.retain(is_whole);
    texts
}

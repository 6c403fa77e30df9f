//! Names that need a `resolver` and have none.

use std::collections::{HashMap, HashSet};

use wssgate_syntax::Diagnostic;

use crate::http::Http;
use crate::location::Content;
use crate::proxy::pass::ProxyPass;
use crate::read::Reading;
use crate::rewrite::RewriteOp;
use crate::template::{Part, Template, VariableId};
use crate::value::{Host, UpstreamUrl};
use crate::variable::Variables;

/// Warns of names in `proxy_pass` that will need a resolver and have none: every request would be
/// answered with 502.
pub(crate) fn warn_of_missing_resolvers(reading: &mut Reading<'_>, http: &Http) {
    let ops = http.locations.iter().map(|location| &location.rewrite);
    let mut set = HashMap::new();
    ops.chain(http.servers.iter().map(|server| &server.rewrite))
        .for_each(|ops| collect_set(ops, &mut set));
    let mut told = HashSet::new();
    for location in &http.locations {
        let Content::Proxy(ProxyPass::Variable(url)) = &location.content else { continue };
        if location.settings.resolver.is_some() {
            continue;
        }
        let prefixes = prefixes(&http.variables, url, &set);
        for url in prefixes.iter().filter_map(|prefix| UpstreamUrl::parse(prefix).ok()) {
            let Host::Name(name) = &url.endpoint.host else { continue };
            let known = http.upstreams.iter().any(|upstream| upstream.is_for(&url));
            if known || !told.insert((location.span, name.clone())) {
                continue;
            }
            let message = format!("no resolver defined to resolve {name}");
            let help = "add a `resolver`, e.g. `resolver 127.0.0.11;` in a Docker container, or define \
                        an `upstream` block of this name";
            let problem = Diagnostic::warning(message)
                .at(location.span, "requests here will be answered with 502");
            reading.report.push(problem.help(help));
        }
    }
}

/// Collects what `set` gives to variables.
fn collect_set<'o>(ops: &'o [RewriteOp], set: &mut HashMap<VariableId, Vec<&'o Template>>) {
    for op in ops {
        match op {
            RewriteOp::Set { variable, value } => set.entry(*variable).or_default().push(value),
            RewriteOp::If { ops, .. } => collect_set(ops, set),
            _ => {}
        }
    }
}

/// With what a URL will begin, its host included, as far as that is certain.
fn prefixes(
    variables: &Variables,
    url: &Template,
    set: &HashMap<VariableId, Vec<&Template>>,
) -> Vec<Box<[u8]>> {
    let Some((first, rest)) = url.parts().split_first() else { return Vec::new() };
    let texts: Vec<&[u8]> = match first {
        Part::Text(text) => vec![text],
        Part::Variable(variable) => {
            let values = set.get(variable).into_iter().flatten();
            values.filter_map(|value| value.as_text()).collect()
        }
        Part::Capture(_) => return Vec::new(),
    };
    // What follows must not go on with the host.
    let path_follows = match rest.first() {
        None => true,
        Some(Part::Text(text)) => text.starts_with(b"/") || text.starts_with(b"?"),
        Some(Part::Variable(variable)) => {
            matches!(&*variables.slot(*variable).name, "request_uri" | "uri" | "document_uri")
        }
        Some(Part::Capture(_)) => false,
    };
    let whole = |text: &&[u8]| {
        let host = text.splitn(4, |byte| *byte == b'/').nth(3);
        path_follows || host.is_some()
    };
    texts.into_iter().filter(whole).map(Into::into).collect()
}

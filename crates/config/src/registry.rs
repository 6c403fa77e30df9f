//! All rows of all subjects.

use std::sync::OnceLock;

use crate::directive::{AnyDirective, Registry, Row};
use crate::{
    access, acme, auth_basic, auth_jwt, auth_request, client_body, core, dns, error_page, files,
    filters, foreign, geo, headers, health_check, http, kept_connections, limits, listen, listing,
    location, log, map, proxy, real_ip, referer, refused, rewrite, secure_link, server,
    server_name, settings, subrequests, tls, tunnels, upstream, websocket, without_effect,
};

/// The implemented rows by subject.
static TABLES: &[&[&dyn AnyDirective]] = &[
    access::ROWS,
    acme::ROWS,
    acme::dns::ROWS,
    acme::issuer::ROWS,
    auth_basic::ROWS,
    auth_jwt::ROWS,
    auth_request::ROWS,
    client_body::ROWS,
    core::ROWS,
    dns::ROWS,
    error_page::ROWS,
    files::ROWS,
    filters::addition::ROWS,
    filters::charset::ROWS,
    filters::ssi::ROWS,
    filters::sub::ROWS,
    geo::ROWS,
    headers::ROWS,
    health_check::ROWS,
    health_check::matching::ROWS,
    http::ROWS,
    crate::ignored::ROWS,
    kept_connections::ROWS,
    limits::connections::ROWS,
    limits::handshakes::ROWS,
    limits::requests::ROWS,
    limits::websockets::ROWS,
    listen::ROWS,
    listing::ROWS,
    location::ROWS,
    log::ROWS,
    log::websocket::ROWS,
    map::ROWS,
    proxy::ROWS,
    proxy::cookies::ROWS,
    proxy::next_upstream::ROWS,
    proxy::pass::ROWS,
    proxy::redirect::ROWS,
    proxy::tls::ROWS,
    real_ip::ROWS,
    referer::ROWS,
    rewrite::ROWS,
    secure_link::ROWS,
    server::ROWS,
    server_name::ROWS,
    settings::ROWS,
    subrequests::ROWS,
    tls::ROWS,
    upstream::ROWS,
    upstream::balance::ROWS,
    tunnels::ROWS,
    tunnels::credentials::ROWS,
    tunnels::drain::ROWS,
    tunnels::rates::ROWS,
    websocket::ROWS,
    websocket::handshake::ROWS,
    websocket::origin::ROWS,
    websocket::tap::ROWS,
    websocket::token::ROWS,
    websocket::trace::ROWS,
];

/// Every row of the program.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut rows: Vec<Row> = TABLES.iter().copied().flatten().map(|row| row.row()).collect();
        rows.extend(foreign::rows());
        rows.extend(refused::rows());
        rows.extend(without_effect::rows());
        Registry::new(rows)
    })
}

/// Every row, sorted by name; rows of one name have different contexts.
pub fn rows() -> &'static [Row] {
    registry().rows()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use wssgate_syntax::{FileId, SourceMap, Span};

    use super::*;
    use crate::directive::{Context, Kind};
    use crate::level::walk;
    use crate::paths::Paths;
    use crate::read::Reading;
    use crate::read::system_resolve;
    use crate::scope::default_directives;

    #[test]
    fn a_name_has_one_row_in_each_context() {
        let mut seen = HashSet::new();
        for row in rows() {
            assert_ne!(row.contexts, 0, "{}", row.name);
            for context in Context::ALL.into_iter().filter(|context| row.allowed_in(*context)) {
                assert!(
                    seen.insert((&row.name, context)),
                    "{} twice in {}",
                    row.name,
                    context.name()
                );
            }
        }
    }

    #[test]
    fn tables_are_sorted_and_documented() {
        let typed = TABLES.iter().map(|table| table.iter().map(|row| row.row()).collect());
        for table in typed.chain([refused::rows(), without_effect::rows()]) {
            let names: Vec<_> = Vec::from_iter(table).into_iter().map(|row| row.name).collect();
            assert!(names.is_sorted(), "{names:?}");
        }
        for row in rows() {
            assert!(row.doc.len() > 10, "{}", row.name);
            let sentence = row.doc.ends_with('.') && row.doc.starts_with(char::is_uppercase);
            assert!(sentence || !matches!(row.kind, Kind::Works), "{}: {}", row.name, row.doc);
        }
    }

    /// A row that its table forgets would be unknown to everybody but the settings that ask for it.
    #[test]
    fn every_row_is_listed() {
        fn count(directory: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(directory).expect("the sources are there");
            let paths = entries.map(|entry| entry.expect("the sources can be read").path());
            let in_one = |path: std::path::PathBuf| match path.is_dir() {
                true => count(&path),
                false => {
                    let text = std::fs::read_to_string(&path).expect("sources are text");
                    text.lines().filter(|line| is_row(line)).count()
                }
            };
            paths.map(in_one).sum()
        }
        fn is_row(line: &str) -> bool {
            line.starts_with("pub(crate) static ") && line.contains(": Directive<")
        }
        let written = count(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let listed = rows().iter().filter(|row| row.is_read()).count();
        assert_eq!(listed, written);
    }

    #[test]
    fn every_default_is_accepted_by_its_own_row() {
        let paths = Paths { prefix: "/p".into(), conf_dir: "/c".into() };
        let sources = SourceMap::default();
        let nowhere = Span { file: FileId(0), start: 0, end: 0 };
        for context in Context::ALL {
            let mut reading = Reading::new(registry(), nowhere, &paths, &sources, system_resolve);
            let directives = default_directives(registry(), context, nowhere);
            let level = walk(&mut reading, &directives, context, true);
            let problems: Vec<_> = reading.report.iter().map(|problem| &problem.message).collect();
            assert!(problems.is_empty(), "{}: {problems:?}", context.name());
            assert_eq!(level.entries().len(), directives.len());
        }
    }

    #[test]
    fn what_decides_about_access_is_never_without_effect() {
        let guards = [
            "allow",
            "deny",
            "auth_basic",
            "auth_jwt",
            "auth_request",
            "satisfy",
            "limit_req",
            "limit_conn",
            "set_real_ip_from",
            "ssl_verify_client",
            "ssl_crl",
            "ssl_ocsp",
            "proxy_ssl_verify",
            "internal",
        ];
        for guard in guards {
            let rows = registry().named(guard.as_bytes());
            assert!(!rows.is_empty(), "{guard}");
            assert!(rows.iter().all(|row| !matches!(row.kind, Kind::WithoutEffect(_))), "{guard}");
        }
    }
}

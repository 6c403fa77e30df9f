//! Who must be kept from a `dashboard`.
//!
//! Who reads the page sees users and addresses, so a configuration that shows it to everybody is refused. That nobody
//! but programs of this machine can connect is not enough: a browser on it does what pages of others say, and so may
//! a proxy in front.

use wssgate_syntax::Diagnostic;

use crate::access::{AccessFrom, AccessRule, Satisfy};
use crate::listen::ListenSocket;
use crate::location::{Content, Location};
use crate::position::LocationKind;
use crate::read::Reading;
use crate::server::{Server, ServerId};
use crate::settings::LocationSettings;
use crate::template::Template;
use crate::tls::VerifyClient;

/// What stands between a location and everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// Nothing, and why.
    None(&'static str),
    /// Addresses; or, with `satisfy any`, something that they make needless.
    Addresses,
    /// Everybody has to prove who he is.
    Credentials,
}

/// Looks at every dashboard: reports those that nothing guards, and tells the others by what they are guarded.
pub(crate) fn check(
    reading: &mut Reading<'_>,
    servers: &[Server],
    sockets: &[ListenSocket],
    locations: &mut [Location],
) {
    // Locations of a server stand before its own level.
    let mut first = 0;
    for (id, server) in servers.iter().enumerate() {
        let own = first..=server.location.0;
        first = server.location.0 + 1;
        if !locations[own.clone()].iter().any(is_dashboard) {
            continue;
        }
        let certified = verifies_clients(ServerId(id), server, sockets);
        for number in own.clone() {
            let location = &mut locations[number];
            if let Content::Dashboard(dashboard) = &mut location.content {
                dashboard.by_address = guard(certified, &location.settings) != Guard::Credentials;
            }
        }
        for number in own {
            report(reading, certified, locations, number);
        }
    }
}

fn is_dashboard(location: &Location) -> bool {
    matches!(location.content, Content::Dashboard(_))
}

/// Reports what is wrong with the dashboard of a location, if it has one.
fn report(reading: &mut Reading<'_>, certified: bool, locations: &[Location], number: usize) {
    use LocationKind as K;
    let location = &locations[number];
    // Blocks inside a location are looked at with it.
    if !is_dashboard(location) || location.kind == K::Unnamed {
        return;
    }
    if matches!(location.kind, K::Exact | K::Regex | K::Named) {
        let problem = Diagnostic::error("\"dashboard\" needs a location that is a prefix")
            .at(location.span, "its files are below its path")
            .help("write `location /dashboard/`");
        reading.report.push(problem);
    }
    let others = location.limit_except.as_ref().map(|(_, others)| &locations[others.0]);
    let all = std::iter::once(location).chain(others);
    let open = all.filter_map(|one| match guard(certified, &one.settings) {
        Guard::None(why) => Some((one.span, why)),
        Guard::Addresses | Guard::Credentials => None,
    });
    if let Some((span, why)) = open.take(1).next() {
        let help = "add `allow` with your addresses and `deny all`, or `auth_basic`, `auth_jwt` or `auth_request`";
        let problem = Diagnostic::error("the dashboard is open to everybody");
        reading.report.push(problem.at(span, why).help(help));
    }
}

fn guard(certified: bool, settings: &LocationSettings) -> Guard {
    if certified {
        return Guard::Credentials;
    }
    // A realm that is made of variables may become `off`.
    let asks = |realm: &Template| realm.as_text().is_some();
    let basic = settings.auth_basic.as_ref().map(|basic| asks(&basic.realm));
    let token = settings.auth_jwt.as_ref().map(|jwt| asks(&jwt.realm));
    let credentials = basic == Some(true) || token == Some(true) || settings.auth_request.is_some();
    match (settings.satisfy, credentials, Addresses::of(&settings.access)) {
        (Satisfy::Any, true, Addresses::Everybody) => {
            Guard::None("with `satisfy any` the `allow` lets everybody in")
        }
        (Satisfy::Any, true, Addresses::None) | (Satisfy::All, true, _) => Guard::Credentials,
        (Satisfy::Any, true, _) | (_, false, Addresses::Closed) => Guard::Addresses,
        (_, false, Addresses::Open | Addresses::Everybody) => Guard::None(
            "`allow` and `deny` let in whom they do not name: no `deny all` stands last",
        ),
        (_, false, Addresses::None) if basic.or(token).is_some() => {
            Guard::None("the realm has a variable, which may be `off`")
        }
        (_, false, Addresses::None) => Guard::None("no rule for access applies here"),
    }
}

/// Whether a server asks every client for a certificate.
fn verifies_clients(id: ServerId, server: &Server, sockets: &[ListenSocket]) -> bool {
    let routes = sockets.iter().flat_map(|socket| &socket.routes);
    let mut own = routes.filter(|route| {
        route.default_server == id || route.names.values().any(|named| *named == id)
    });
    server.tls.verify_client == VerifyClient::On && own.all(|route| route.ssl)
}

/// Whom `allow` and `deny` let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    /// There are no such lines.
    None,
    /// Nobody but whom they name.
    Closed,
    /// Some are denied, and whoever is not named comes in.
    Open,
    /// They say that everybody comes in.
    Everybody,
}

impl Addresses {
    fn of(rules: &[AccessRule]) -> Self {
        // The first rule that fits decides; this one fits everybody, or all of a family.
        let is_for_all = |rule: &&AccessRule| match rule.who {
            AccessFrom::All => true,
            AccessFrom::Network(_, bits) => rule.allow && bits == 0,
            AccessFrom::Unix => false,
        };
        match rules.iter().find(is_for_all) {
            _ if rules.is_empty() => Self::None,
            Some(rule) if rule.allow => Self::Everybody,
            Some(_) => Self::Closed,
            None => Self::Open,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {

    use crate::load;
    use crate::load::LoadOptions;
    use crate::model::{Content, Dashboard};

    /// What the first dashboard of a server is; `None` if the configuration is refused.
    fn dashboard(lines: &str) -> Option<Dashboard> {
        let text = format!("events {{}} http {{ server {{ {lines} }} }}");
        let config = load::load(&LoadOptions::text(text)).ok()?.config;
        let mut contents = config.http.as_ref()?.locations.iter().map(|location| &location.content);
        contents.find_map(|content| match content {
            Content::Dashboard(dashboard) => Some(*dashboard),
            _ => None,
        })
    }

    #[test]
    fn who_comes_in_by_address_alone_is_known() {
        const BASIC: &str = "auth_basic a; auth_basic_user_file f;";
        for (rules, expected) in [
            (BASIC.to_owned(), Some(false)),
            ("auth_request /ask;".into(), Some(false)),
            ("allow 10.0.0.0/8; deny all;".into(), Some(true)),
            (format!("{BASIC} allow 10.0.0.0/8; deny all;"), Some(false)),
            (format!("{BASIC} allow 10.0.0.0/8; deny all; satisfy any;"), Some(true)),
            (format!("{BASIC} allow 10.0.0.0/8; satisfy any;"), Some(true)),
            (format!("{BASIC} satisfy any;"), Some(false)),
            (format!("{BASIC} allow all;"), Some(false)),
            (format!("{BASIC} allow all; satisfy any;"), None),
            ("deny all;".into(), Some(true)),
            ("deny 10.0.0.1;".into(), None),
            ("deny 0.0.0.0/0;".into(), None),
            ("allow 0.0.0.0/0; deny all;".into(), None),
            ("allow 10.0.0.0/8; allow all; deny all;".into(), None),
            ("auth_basic a;".into(), None),
            ("auth_basic $host; auth_basic_user_file f;".into(), None),
            (String::new(), None),
        ] {
            let found = dashboard(&format!("location /d/ {{ dashboard; {rules} }}"));
            let expected = expected.map(|by_address| Dashboard { control: false, by_address });
            assert_eq!(found, expected, "{rules}");
        }
    }

    #[test]
    fn blocks_inside_are_the_dashboard_too() {
        let lines = "location /d/ { dashboard control; deny all; limit_except GET { allow 10.0.0.1; deny all; } }";
        assert_eq!(dashboard(lines), Some(Dashboard { control: true, by_address: true }));
        let open = "location /d/ { dashboard; deny all; limit_except GET { allow all; } }";
        assert_eq!(dashboard(open), None);
    }
}

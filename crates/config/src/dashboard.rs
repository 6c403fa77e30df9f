//! Who must be kept from a `dashboard`.
//!
//! Who reads the page sees users and addresses, so a configuration that shows it to everybody is refused. That nobody
//! but programs of this machine can connect is not enough: a browser on it does what pages of others say, and so may
//! a proxy in front.

use wssgate_syntax::{Diagnostic, printable};

use crate::access::{AccessFrom, AccessRule, Satisfy};
use crate::listen::ListenSocket;
use crate::location::{Content, Location};
use crate::position::LocationKind;
use crate::read::Reading;
use crate::server::{Server, ServerId};
use crate::settings::LocationSettings;
use crate::template::Template;
use crate::tls::VerifyClient;
use crate::trust::TrustedProxy;

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

/// What is known of a server for all its dashboards.
#[derive(Clone, Copy, Debug)]
struct Doors {
    /// It asks every client for a certificate.
    certified: bool,
    /// It listens on a Unix socket, where clients have no address.
    unix: bool,
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
        let doors = Doors::of(ServerId(id), server, sockets);
        for number in own.clone() {
            let location = &mut locations[number];
            if let Content::Dashboard(dashboard) = &mut location.content {
                dashboard.by_address = may_go_by_address(doors, &location.settings);
                dashboard.certified = doors.certified;
            }
        }
        for number in own {
            report(reading, doors, locations, number);
            report_regex(reading, server, locations, number);
        }
    }
}

fn is_dashboard(location: &Location) -> bool {
    matches!(location.content, Content::Dashboard(_))
}

/// Reports what is wrong with the dashboard of a location, if it has one.
fn report(reading: &mut Reading<'_>, doors: Doors, locations: &[Location], number: usize) {
    use LocationKind as K;
    let location = &locations[number];
    // Blocks inside a location are looked at with it.
    if !is_dashboard(location) || location.kind == K::Unnamed {
        return;
    }
    if matches!(location.kind, K::Exact | K::Regex | K::Named) {
        let problem = Diagnostic::error("\"dashboard\" needs a location that is a prefix")
            .at(location.span, "its files are below its path")
            .help("write `location ^~ /dashboard/`");
        reading.report.push(problem);
    }
    let others = location.limit_except.as_ref().map(|(_, others)| &locations[others.0]);
    let all = std::iter::once(location).chain(others);
    let open = all.clone().filter_map(|one| match guard(doors, &one.settings) {
        Guard::None(why) => Some((one.span, why)),
        Guard::Addresses | Guard::Credentials => None,
    });
    if let Some((span, why)) = open.take(1).next() {
        let help = "add `allow` with your addresses and `deny all`, or `auth_basic`, `auth_jwt` or `auth_request`";
        let problem = Diagnostic::error("the dashboard is open to everybody");
        reading.report.push(problem.at(span, why).help(help));
    }
    let claimed = |one: &&Location| {
        guard(doors, &one.settings) == Guard::Addresses && believes_everybody(&one.settings)
    };
    if let Some(one) = all.clone().find(claimed) {
        let problem = Diagnostic::warning("clients say themselves from which address they come")
            .at(one.span, "the dashboard lets them in by it")
            .help("name only your own proxies with `set_real_ip_from`");
        reading.report.push(problem);
    }
}

/// Whether somebody may be let in for the address alone. Whom `auth_request` asks may do so too.
fn may_go_by_address(doors: Doors, settings: &LocationSettings) -> bool {
    if guard(doors, settings) != Guard::Credentials {
        return true;
    }
    let asks_others = !doors.certified && settings.auth_request.is_some();
    let mut others = settings.clone();
    others.auth_request = None;
    asks_others && (settings.satisfy == Satisfy::Any || guard(doors, &others) != Guard::Credentials)
}

/// Whether `set_real_ip_from` names all addresses.
fn believes_everybody(settings: &LocationSettings) -> bool {
    let everybody = |proxy: &TrustedProxy| matches!(proxy, TrustedProxy::Network(_, 0));
    settings.real_ip.as_ref().is_some_and(|real_ip| real_ip.from.iter().any(everybody))
}

/// Some of what stands below a dashboard, as far as regular expressions tell files apart.
const BELOW: [&str; 5] = ["app.js", "style.css", "icon.svg", "api/overview", ""];

/// Warns of a regular expression of the server that takes what belongs to a dashboard, since it goes before a prefix.
fn report_regex(reading: &mut Reading<'_>, server: &Server, locations: &[Location], number: usize) {
    let location = &locations[number];
    let mut prefixes = server.locations.prefixes.iter();
    if !is_dashboard(location)
        || location.kind != LocationKind::Prefix
        || !prefixes.any(|(_, id)| id.0 == number)
    {
        return;
    }
    let directory = [location.name.strip_suffix(b"/").unwrap_or(&location.name), b"/"].concat();
    let taken = BELOW.iter().find_map(|file| {
        let path = [&directory[..], file.as_bytes()].concat();
        let (_, id) =
            server.locations.regexes.iter().find(|(regex, _)| regex.captures(&path).is_some())?;
        Some((path, locations[id.0].span))
    });
    let Some((path, regex)) = taken else { return };
    let problem = Diagnostic::warning("the dashboard does not get all that is below its path")
        .at(regex, format!("takes `{}`", printable(&path)))
        .at(location.span, "a regular expression goes before this prefix")
        .help(format!("write `location ^~ {}`", printable(&location.name)));
    reading.report.push(problem);
}

fn guard(doors: Doors, settings: &LocationSettings) -> Guard {
    if doors.certified {
        return Guard::Credentials;
    }
    // A realm that is made of variables may become `off`.
    let asks = |realm: &Template| realm.as_text().is_some();
    let basic = settings.auth_basic.as_ref().map(|basic| asks(&basic.realm));
    let token = settings.auth_jwt.as_ref().map(|jwt| asks(&jwt.realm));
    let credentials = basic == Some(true) || token == Some(true) || settings.auth_request.is_some();
    match (settings.satisfy, credentials, Addresses::of(&settings.access, doors.unix)) {
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

impl Doors {
    fn of(id: ServerId, server: &Server, sockets: &[ListenSocket]) -> Self {
        let routes = sockets
            .iter()
            .flat_map(|socket| socket.routes.iter().map(move |route| (socket, route)));
        let mut own = routes.filter(|(_, route)| {
            route.default_server == id || route.names.values().any(|named| *named == id)
        });
        Self {
            certified: server.tls.verify_client == VerifyClient::On
                && own.clone().all(|(_, route)| route.ssl),
            unix: own.any(|(socket, _)| socket.address.port().is_none()),
        }
    }
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
    /// `unix`: clients may have no address.
    fn of(rules: &[AccessRule], unix: bool) -> Self {
        if rules.is_empty() {
            return Self::None;
        }
        // The first rule that fits decides: of IPv4, IPv6 and Unix sockets those that are denied as a whole.
        let mut denied = [false, false, !unix];
        for rule in rules {
            let whole = match rule.who {
                AccessFrom::All => [true; 3],
                AccessFrom::Network(ip, 0) => [ip.is_ipv4(), ip.is_ipv6(), false],
                AccessFrom::Unix => [false, false, true],
                AccessFrom::Network(..) => continue,
            };
            if rule.allow && (0..2).any(|family| whole[family] && !denied[family]) {
                return Self::Everybody;
            }
            for family in 0..3 {
                denied[family] |= whole[family] && !rule.allow;
            }
            if denied == [true; 3] {
                return Self::Closed;
            }
        }
        Self::Open
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
            ("auth_request /ask;".into(), Some(true)),
            (format!("{BASIC} auth_request /ask;"), Some(false)),
            (format!("{BASIC} auth_request /ask; satisfy any;"), Some(true)),
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
            ("allow 10.0.0.0/8; deny 0.0.0.0/0; deny ::/0;".into(), Some(true)),
            ("deny ::/0; deny 0.0.0.0/0; allow all;".into(), Some(true)),
            ("deny ::/0; allow 0.0.0.0/0; deny all;".into(), None),
            ("allow unix:; deny all;".into(), Some(true)),
            ("allow 0.0.0.0/0; deny all;".into(), None),
            ("allow 10.0.0.0/8; allow all; deny all;".into(), None),
            ("auth_basic a;".into(), None),
            ("auth_basic $host; auth_basic_user_file f;".into(), None),
            (String::new(), None),
        ] {
            let found = dashboard(&format!("location /d/ {{ dashboard; {rules} }}"));
            let expected = expected.map(|by_address| Dashboard {
                control: false,
                by_address,
                certified: false,
            });
            assert_eq!(found, expected, "{rules}");
        }
    }

    #[test]
    fn blocks_inside_are_the_dashboard_too() {
        let lines = "location /d/ { dashboard control; deny all; limit_except GET { allow 10.0.0.1; deny all; } }";
        let expected = Dashboard { control: true, by_address: true, certified: false };
        assert_eq!(dashboard(lines), Some(expected));
        let open = "location /d/ { dashboard; deny all; limit_except GET { allow all; } }";
        assert_eq!(dashboard(open), None);
    }

    /// Clients of a Unix socket have no address, so only `all` and `unix:` are for them.
    #[test]
    fn a_unix_socket_is_closed_by_its_own_rule() {
        let lines = |more| {
            format!(
                "listen unix:/tmp/d.sock; location /d/ {{ dashboard; deny 0.0.0.0/0; deny ::/0; {more} }}"
            )
        };
        assert_eq!(dashboard(&lines("")), None);
        assert!(dashboard(&lines("deny unix:;")).is_some());
        assert!(dashboard(&lines("deny all;")).is_some());
    }
}

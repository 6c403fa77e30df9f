//! Servers and locations as other processes of ours know them, whose configuration may be another one.
//!
//! A server is known by its first name and the addresses that it listens on, a location by its path through the
//! blocks of its server, each with its modifier and text. All of that together, encoded, is the name of a location; most
//! names that come are among those of our own, and are found by one look into a table.

use std::collections::{BTreeSet, HashMap};

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use wssgate_config::model::{
    Content, Http, ListenAddr, LocationId, LocationKind, Locations, RewriteOp, Server, ServerId,
};

use crate::portable::AddressState;

/// The names of all locations of a generation.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    /// By [`LocationId`].
    names: Vec<Box<[u8]>>,
    /// Those of one name are told apart in no other way either: the first one has it.
    known: HashMap<Box<[u8]>, LocationId>,
    /// The addresses of each server.
    addresses: Vec<BTreeSet<ListenAddr>>,
}

/// What a name of another process stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This location, which passes requests to upstreams.
    Here(LocationId),
    /// There is no such location any more, or it does something else; this is the level of a server that it would
    /// be in.
    Near(LocationId),
}

/// A name. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct HomeState<'b> {
    /// The first name of the server; empty if it has none.
    #[b(0)]
    server: &'b ByteSlice,
    /// Where it listens, in order.
    #[b(1)]
    #[cbor(default)]
    addresses: Vec<AddressState<'b>>,
    /// From the server to the location; none is the server's own level.
    #[b(2)]
    #[cbor(default)]
    path: Vec<StepState<'b>>,
}

/// One block of a path.
#[derive(Clone, Copy, Debug, Encode, Decode)]
#[cbor(map)]
struct StepState<'b> {
    #[n(0)]
    kind: StepKind,
    /// As it is written, without its modifier.
    #[b(1)]
    text: Option<&'b ByteSlice>,
    /// Which one of those of this kind, for blocks without a text.
    #[n(2)]
    number: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum StepKind {
    #[n(0)]
    Exact,
    #[n(1)]
    Prefix,
    #[n(2)]
    PrefixFinal,
    #[n(3)]
    Regex,
    #[n(4)]
    RegexCaseless,
    #[n(5)]
    Named,
    #[n(6)]
    If,
    #[n(7)]
    LimitExcept,
}

impl Homes {
    /// Names all locations.
    pub(crate) fn new(http: &Http) -> Self {
        let addresses = addresses(http);
        let mut homes = Self {
            names: vec![Box::default(); http.locations.len()],
            known: HashMap::with_capacity(http.locations.len()),
            addresses: Vec::new(),
        };
        for (server, addresses) in http.servers.iter().zip(&addresses) {
            let addresses = addresses.iter().map(AddressState::from).collect();
            let mut naming = Naming {
                http,
                homes: &mut homes,
                home: HomeState { server: (&*server.name).into(), addresses, path: Vec::new() },
            };
            naming.server(server);
        }
        homes.addresses = addresses;
        homes
    }

    /// The name of a location.
    pub(crate) fn name(&self, location: LocationId) -> &[u8] {
        self.names.get(location.0).map_or(&[], |name| name)
    }

    /// The location that another process calls so; `None` if there is no server at all, or this is no name.
    pub(crate) fn find(&self, http: &Http, name: &[u8]) -> Option<Found> {
        let passes = |id: &LocationId| matches!(http.locations[id.0].content, Content::Proxy(_));
        if let Some(id) = self.known.get(name).filter(|id| passes(id)) {
            return Some(Found::Here(*id));
        }
        let wanted: HomeState<'_> = minicbor::decode(name).ok()?;
        let listens: Vec<_> = wanted.addresses.iter().filter_map(|one| one.address()).collect();
        let shared = |addresses: &BTreeSet<ListenAddr>| {
            listens.iter().filter(|one| addresses.contains(one)).count()
        };
        let mut candidates: Vec<_> = http
            .servers
            .iter()
            .zip(&self.addresses)
            .filter(|(server, _)| server.name[..] == wanted.server[..])
            .map(|(server, addresses)| (shared(addresses), server, addresses))
            // One without a name is only known by where it listens.
            .filter(|(shared, ..)| *shared > 0 || !wanted.server.is_empty())
            .collect();
        candidates.sort_by_key(|(shared, ..)| std::cmp::Reverse(*shared));
        let mut inside = candidates.iter().filter_map(|(_, server, addresses)| {
            self.inside(server, addresses, &wanted.path, passes)
        });
        if let Some(id) = inside.next() {
            return Some(Found::Here(id));
        }
        let heir = || {
            let mut routes = http.sockets.iter().flat_map(|socket| &socket.routes);
            let route = routes.find(|route| listens.contains(&route.address))?;
            http.servers.get(route.default_server.0)
        };
        let named = candidates.first().map(|(_, server, _)| *server);
        let server = named.or_else(heir).or(http.servers.first())?;
        Some(Found::Near(server.location))
    }

    /// The location at the end of a path, if the server has it. For an `if` block that is gone, the location around it
    /// stands: it was there before the `if` applied.
    fn inside(
        &self,
        server: &Server,
        addresses: &BTreeSet<ListenAddr>,
        path: &[StepState<'_>],
        passes: impl Fn(&LocationId) -> bool,
    ) -> Option<LocationId> {
        let mut home = HomeState {
            server: (&*server.name).into(),
            addresses: addresses.iter().map(AddressState::from).collect(),
            path: path.to_vec(),
        };
        loop {
            let id = self.known.get(&*encoded(&home)).copied();
            if let Some(id) = id.filter(&passes) {
                return Some(id);
            }
            home.path.pop().filter(|last| last.text.is_none())?;
        }
    }
}

/// The first name of the server in the name of a location, for who counts by it.
pub(crate) fn server_in(name: &[u8]) -> Option<&[u8]> {
    let home: HomeState<'_> = minicbor::decode(name).ok()?;
    Some(home.server)
}

/// The addresses that each server listens on.
fn addresses(http: &Http) -> Vec<BTreeSet<ListenAddr>> {
    let mut addresses = vec![BTreeSet::new(); http.servers.len()];
    for route in http.sockets.iter().flat_map(|socket| &socket.routes) {
        let mut add = |server: ServerId| addresses[server.0].insert(route.address.clone());
        add(route.default_server);
        route.names.values().for_each(|&server| {
            add(server);
        });
    }
    addresses
}

fn encoded(home: &HomeState<'_>) -> Box<[u8]> {
    let mut name = Vec::with_capacity(128);
    // A vector takes everything.
    let _ = minicbor::encode(home, &mut name);
    name.into()
}

/// Walks through the blocks of a server.
struct Naming<'h> {
    http: &'h Http,
    homes: &'h mut Homes,
    home: HomeState<'h>,
}

impl<'h> Naming<'h> {
    fn server(&mut self, server: &'h Server) {
        self.name(server.location);
        self.blocks(server.location, &server.rewrite);
        self.locations(&server.locations);
        server.named_locations.values().for_each(|id| self.location(*id, false));
    }

    fn locations(&mut self, locations: &'h Locations) {
        // In a table they have no order, and each is named by its own text.
        locations.exact.values().for_each(|id| self.location(*id, false));
        locations.prefixes.iter().for_each(|(_, id)| self.location(*id, false));
        for (regex, id) in &locations.regexes {
            self.location(*id, regex.is_caseless());
        }
    }

    fn location(&mut self, id: LocationId, caseless: bool) {
        let location = &self.http.locations[id.0];
        let kind = match location.kind {
            LocationKind::Exact => StepKind::Exact,
            LocationKind::Prefix => StepKind::Prefix,
            LocationKind::PrefixFinal => StepKind::PrefixFinal,
            LocationKind::Regex if caseless => StepKind::RegexCaseless,
            LocationKind::Regex => StepKind::Regex,
            LocationKind::Named => StepKind::Named,
            // Never in one of the tables.
            LocationKind::Unnamed => return,
        };
        let text = Some((&*location.name).into());
        self.home.path.push(StepState { kind, text, number: None });
        self.name(id);
        self.blocks(id, &location.rewrite);
        self.locations(&location.locations);
        self.home.path.pop();
    }

    /// The `if` and `limit_except` blocks of a location or server.
    fn blocks(&mut self, id: LocationId, rewrite: &'h [RewriteOp]) {
        let mut blocks = 0;
        for op in rewrite {
            let RewriteOp::If { location, .. } = op else { continue };
            if let Some(inner) = location {
                self.block(*inner, StepKind::If, blocks);
            }
            blocks += 1;
        }
        if let Some((_, inner)) = &self.http.locations[id.0].limit_except {
            self.block(*inner, StepKind::LimitExcept, 0);
        }
    }

    fn block(&mut self, id: LocationId, kind: StepKind, number: u32) {
        self.home.path.push(StepState { kind, text: None, number: Some(number) });
        self.name(id);
        self.blocks(id, &self.http.locations[id.0].rewrite);
        self.home.path.pop();
    }

    fn name(&mut self, id: LocationId) {
        let name = encoded(&self.home);
        self.homes.known.entry(name.clone()).or_insert(id);
        self.homes.names[id.0] = name;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_config::LoadOptions;
    use wssgate_config::load;
    use wssgate_config::model::Config;

    use super::*;

    fn config(servers: &str) -> Config {
        let text = format!("events {{}} http {{ {servers} }}");
        load(&LoadOptions::text(text)).unwrap().config
    }

    /// Where the location that `old` calls by its text is in `new`; by its text too.
    fn moved(old: &str, text: &str, new: &str) -> (bool, String) {
        let (old, new) = (config(old), config(new));
        let (old, new) = (old.http.unwrap(), new.http.unwrap());
        let at = old.locations.iter().position(|one| &*one.name == text.as_bytes()).unwrap();
        let name = Homes::new(&old).name(LocationId(at)).to_vec();
        let found = Homes::new(&new).find(&new, &name).unwrap();
        let (Found::Here(id) | Found::Near(id)) = found;
        let server = &new.servers[new.server_of(id).0];
        let shown = [&*server.name, b" ", &*new.locations[id.0].name].concat();
        (matches!(found, Found::Here(_)), String::from_utf8(shown).unwrap())
    }

    const PASS: &str = "{ proxy_pass http://127.0.0.1:1; }";

    #[test]
    fn a_location_is_found_again_by_its_server_and_path() {
        let old = format!("server {{ listen 127.0.0.1:80; server_name a; location /ws {PASS} }}");
        let found = |new: &str| moved(&old, "/ws", new);
        // Others stand before it, in its own server and as servers.
        let new = format!(
            "server {{ listen 127.0.0.1:80; server_name x; location /ws {PASS} }}
             server {{ listen 127.0.0.1:80; server_name a; location / {PASS} location = /ws {PASS}
                location /ws {PASS} }}"
        );
        assert_eq!(found(&new), (true, "a /ws".into()));
        // Of two with its name, the one at its address.
        let new = format!(
            "server {{ listen 127.0.0.1:81; server_name a; location /ws {PASS} location /x {PASS} }}
             server {{ listen 127.0.0.1:80; server_name a; location /ws {PASS} }}"
        );
        let (here, _) = found(&new);
        assert!(here);
        // At its address there is none such.
        let new = format!(
            "server {{ listen 127.0.0.1:80; server_name a; return 301 /; }}
             server {{ listen 127.0.0.1:81; server_name a; location /ws {PASS} }}"
        );
        assert_eq!(found(&new), (true, "a /ws".into()));
        let new = format!("server {{ listen 127.0.0.1:81; server_name a; location /ws {PASS} }}");
        assert_eq!(found(&new), (true, "a /ws".into()), "it listens elsewhere");
    }

    #[test]
    fn a_location_that_is_gone_or_passes_nothing_on_is_near_its_server() {
        let old = format!("server {{ listen 127.0.0.1:80; server_name a; location /ws {PASS} }}");
        let found = |new: &str| moved(&old, "/ws", new);
        for inside in ["", "location /ws { return 200; }", "location = /ws { }"] {
            let new = format!(
                "server {{ listen 127.0.0.1:80; server_name x; location /ws {PASS} }}
                 server {{ listen 127.0.0.1:80; server_name a; {inside} }}"
            );
            assert_eq!(found(&new), (false, "a ".into()), "{inside}");
        }
        let new = format!(
            "server {{ listen 127.0.0.1:90; server_name x; location /ws {PASS} }}
             server {{ listen 127.0.0.1:80; server_name y; location /ws {PASS} }}"
        );
        assert_eq!(found(&new), (false, "y ".into()), "who answers at its address now");
        let new = format!("server {{ listen 127.0.0.1:90; server_name x; location /ws {PASS} }}");
        assert_eq!(found(&new), (false, "x ".into()));
    }

    #[test]
    fn servers_without_a_name_are_known_by_their_addresses() {
        let old = format!("server {{ listen 127.0.0.1:80; location /ws {PASS} }}");
        let other = format!("server {{ listen 127.0.0.1:81; location /ws {PASS} }}");
        let both = format!("{other} {old}");
        assert_eq!(moved(&old, "/ws", &both), (true, " /ws".into()));
        assert_eq!(moved(&old, "/ws", &other), (false, " ".into()));
    }

    #[test]
    fn nested_locations_and_blocks_have_names_of_their_own() {
        let text = format!(
            "server {{ listen 127.0.0.1:80; server_name a b;
                location /a {{ proxy_pass http://127.0.0.1:1;
                    location /a/x {PASS} location ~ x {PASS} location ~* x {PASS}
                    if ($arg_a) {{ set $x 1; }} if ($arg_b) {{ set $x 2; }}
                    limit_except GET {{ deny all; }} }}
                location ~ x {PASS} location ^~ /b {PASS} location @n {PASS} }}
             server {{ listen 127.0.0.1:80; server_name c; location /a {PASS} }}"
        );
        let config = config(&text);
        let http = config.http.unwrap();
        let homes = Homes::new(&http);
        let names: BTreeSet<_> = homes.names.iter().collect();
        assert_eq!(names.len(), http.locations.len(), "{names:?}");
        for (at, location) in http.locations.iter().enumerate() {
            let id = LocationId(at);
            let expected = match location.content {
                Content::Proxy(_) => Found::Here(id),
                _ => Found::Near(http.servers[http.server_of(id).0].location),
            };
            assert_eq!(homes.find(&http, homes.name(id)), Some(expected));
        }
    }

    #[test]
    fn the_location_around_stands_for_an_if_that_is_gone() {
        let with = |inside: &str| {
            format!(
                "server {{ listen 127.0.0.1:80; server_name a;
                    location /a {{ proxy_pass http://127.0.0.1:1; {inside} }} }}"
            )
        };
        let (old, new) = (config(&with("if ($arg_a) { set $x 1; }")), config(&with("")));
        let (old, new) = (old.http.unwrap(), new.http.unwrap());
        let homes = Homes::new(&old);
        let inner = old.locations.iter().position(|one| one.kind == LocationKind::Unnamed);
        let inner = LocationId(inner.unwrap());
        let found = Homes::new(&new).find(&new, homes.name(inner));
        let Some(Found::Here(id)) = found else { panic!("{found:?}") };
        assert_eq!(&*new.locations[id.0].name, b"/a");
        assert_eq!(new.locations[id.0].kind, LocationKind::Prefix);
    }

    #[test]
    fn what_is_no_name_is_found_nowhere() {
        let config = config("server { listen 127.0.0.1:80; }");
        let http = config.http.unwrap();
        let homes = Homes::new(&http);
        for bytes in
            [&b""[..], b"\xff", b"\xa0", b"\xa1\x00\x00", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert_eq!(homes.find(&http, bytes), None, "{bytes:?}");
        }
    }
}

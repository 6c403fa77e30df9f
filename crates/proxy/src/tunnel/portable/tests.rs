//! Tunnels between processes that are played by two worlds, each with its own configuration, logs and counts.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::LocalSet;
use wssgate_config::model::{LogTarget, UpstreamId};
use wssgate_config::{LoadOptions, load};
use wssgate_relay::{self as relay, EndCause, Leg, Relay, Report, Side, Totals, TunnelEnd};
use wssgate_ws::Extensions;
use wssgate_ws::conversation::meter::{Charge, Toll};

use super::*;
use crate::exchange::request::{Arrival, ConnectionInfo, Request};
use crate::exchange::response::Reply;
use crate::generation::Environment;
use crate::listen::{ClientStream, Stream};
use crate::metrics::Metrics;
use crate::peers::{IdlePool, Shortages};
use crate::site::Phase;
use crate::tunnel::table::Tunnels;
use crate::tunnel::{self, Switch};

/// A worker without listeners.
struct World {
    site: Rc<Site>,
    tunnels: Tunnels,
    relay: Option<Relay>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.stop().unwrap();
        }
    }
}

impl World {
    /// With an `http` block of this content, in which `%` is a directory.
    fn new(http: &str, directory: &TempDir) -> Self {
        let path = directory.path().to_str().unwrap();
        let text = format!(
            "error_log %/error.log info; events {{}} http {{ client_body_temp_path %/bodies; access_log off; \
             {http} }}"
        );
        let loaded = load(&LoadOptions::text(text.replace('%', path)));
        let config = loaded.unwrap_or_else(|failed| panic!("{:?}", failed.report)).config;
        let environment = Environment::new(LogTarget::Stderr).unwrap();
        let (generation, _) = Generation::build(config, None, &environment).unwrap();
        let metrics = Metrics::new(generation.workers, Arc::clone(&environment.metrics));
        let counters = Arc::clone(&metrics.worker(0).relay);
        let settings = relay::Settings::default();
        let relay = relay::start("relay", settings, counters, |_, _| {}, |_| {}).unwrap();
        let site = Site {
            id: 0,
            metrics: Arc::clone(metrics.worker(0)),
            all_metrics: metrics,
            listeners: watch::channel(Vec::new()).1,
            desk: None,
            current: Arc::new(ArcSwap::from_pointee(generation)),
            wanted_phase: watch::channel(Phase::Serving).1,
            idle_upstreams: IdlePool::new(),
            shortages: Shortages::default(),
            unhealthy: watch::Sender::new(()),
            revocations: Arc::default(),
            live: Rc::default(),
        };
        let tunnels = Tunnels::new(relay.handle());
        Self { site: Rc::new(site), tunnels, relay: Some(relay) }
    }

    fn group(&self) -> Arc<Group> {
        Arc::clone(&self.site.generation().upstreams[0])
    }

    /// The location that is written so.
    fn location(&self, name: &str) -> LocationId {
        let generation = self.site.generation();
        let locations = &generation.http().locations;
        let found = locations.iter().position(|one| &*one.name == name.as_bytes());
        LocationId(found.unwrap())
    }

    /// A request that came to a location.
    fn request(&self, location: &str, serial: u64) -> Request {
        let connection = ConnectionInfo {
            serial,
            peer: Some(CLIENT.parse().unwrap()),
            told: None,
            local: ListenAddr::Unix("front".into()),
            socket: 0,
            tls: None,
            accepted: Instant::now(),
            requests: Cell::new(1),
            holder: RefCell::default(),
        };
        let line = Bytes::from_static(b"GET /ws HTTP/1.1");
        let arrival = Arrival::new(line, Instant::now(), false);
        let (generation, site) = (self.site.generation(), Rc::clone(&self.site));
        let location = self.location(location);
        let server = generation.http().server_of(location);
        let mut request = Request::new(generation, site, Rc::new(connection), server, arrival);
        request.route.location = location;
        request.response.status = 101;
        request
    }

    /// A WebSocket of such a request; its ticket.
    async fn open(&self, location: &str, serial: u64) -> u64 {
        let request = self.request(location, serial);
        let id = match &request.location().content {
            wssgate_config::model::Content::Proxy(wssgate_config::model::ProxyPass::Fixed(
                fixed,
            )) => fixed.upstream,
            _ => UpstreamId(0),
        };
        let group = Arc::clone(&request.generation.upstreams[id.0]);
        let mut lease = group.choose(&mut group.selection(b"", None, 0), Instant::now()).unwrap();
        group.answered(&mut lease, Instant::now());
        lease.switched(Instant::now());
        let session = group.sessions.as_ref().map(|sessions| {
            let (key, peer) = (SessionKey::of(b"its session"), *lease.peer().id());
            sessions.learn(key, peer, true, Instant::now());
            Box::new(TunnelSession { sessions: Arc::clone(sessions), key, peer, new: true })
        });
        if let Some(limits) = &request.location().settings.limit_connections {
            for limit in &limits.limits {
                let zone = request.generation.limit_zones.connections(limit.zone);
                let held = zone.enter(b"its key", limit.most).unwrap();
                request.limits.held.borrow_mut().push(held);
            }
        }
        let switch = Switch {
            reply: Reply::new(101),
            subprotocol: Some(Bytes::from_static(b"chat")),
            upstream: Leg { unix: true, ..Leg::plain(socket(), Vec::new()) },
            lease,
            session,
            extensions: Some(Extensions::NONE),
            began: Instant::now(),
        };
        let stream = tokio::net::UnixStream::from_std(socket()).unwrap();
        let client = ClientStream::Plain(Stream::Unix(stream));
        let before = self.tunnels.count();
        tunnel::begin(request, client, BytesMut::new(), switch, &self.tunnels).await;
        before as u64
    }

    /// What its metrics say of a server: open tunnels, those opened here, those taken over.
    fn counts(&self, server: &str) -> [u64; 3] {
        let all = self.site.all_metrics.registry.all_servers();
        let series = all.iter().find(|series| &*series.name == server).unwrap();
        let begun = series.total(|worker| worker.begun());
        let gone = series.total(|worker| worker.gone());
        let opened = series.total(|worker| worker.opened.value());
        [begun - gone, opened, series.total(|worker| worker.taken_over.value())]
    }

    /// Its tunnels as its worker, its connections, its generation and all its peers count them.
    fn tallies(&self) -> [u64; 4] {
        let generation = self.site.generation();
        let groups = generation.upstreams.iter().flat_map(|group| group.peers().into_values());
        let peers = groups.map(|status| status.tunnels).sum();
        let live = self.site.live.count() as u64;
        [self.site.metrics.tunnels.value(), live, generation.tunnels.value(), peers]
    }

    /// One that is on its way.
    fn expect(&self, record: &[u8]) -> Bound {
        self.tunnels.bind(&[record], &self.site).pop().unwrap().unwrap()
    }

    /// One that has come.
    fn bind(&self, record: &[u8]) -> Bound {
        let bound = self.expect(record);
        self.tunnels.settle(bound.ticket, &self.site);
        bound
    }
}

const CLIENT: &str = "192.0.2.7:4000";

/// One end of a connection whose other end stays open until the test is over.
fn socket() -> UnixStream {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    std::mem::forget(far);
    near
}

/// An end in good order.
fn end(sent: u64) -> Report {
    let totals = |sent| Totals { sent, received: 2 * sent, ..Totals::default() };
    Report::End(Box::new(TunnelEnd {
        cause: EndCause::Ended(Side::Client),
        duration: Duration::from_secs(7),
        first_close: None,
        client: totals(sent),
        upstream: totals(sent + 1),
    }))
}

/// Runs a test on a runtime of one thread, as a worker has.
fn run(test: impl AsyncFnOnce(TempDir)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test(tempfile::tempdir().unwrap()));
}

fn lines(directory: &TempDir, file: &str) -> Vec<String> {
    let text = fs::read_to_string(directory.path().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

const FORMAT: &str = "log_format told '$remote_addr \"$request\" $status $bytes_sent $connection \
    $websocket_lifetime $upstream_bytes_sent $websocket_close_cause';";

/// A server with a location `/ws`, which holds `inside`; `outside` is in the `http` block.
fn site(outside: &str, inside: &str) -> String {
    format!(
        "{FORMAT} upstream app {{ server 127.0.0.1:9001; }} {outside}
         server {{ listen 127.0.0.1:8001; server_name chat.test;
            location /ws {{ proxy_pass http://app; {inside} }} }}"
    )
}

const LOGGED: &str = "access_log %/access.log told;";

/// Packs the one tunnel of a world.
fn pack(world: &World, ticket: u64) -> Vec<u8> {
    world.tunnels.pack(&[ticket]).pop().unwrap().unwrap()
}

#[test]
fn a_tunnel_that_moves_is_told_and_counted_as_one_that_stays() {
    run(async |directory| {
        let http = site("", &format!("{LOGGED} proxy_read_timeout 33s;"));
        let (old, new) = (World::new(&http, &directory), World::new(&http, &directory));
        let stays = old.open("/ws", 41).await;
        let moves = old.open("/ws", 41).await;
        let record = pack(&old, moves);
        // One that was expected and does not come is none.
        let expected = new.expect(&record);
        assert_eq!(new.tallies(), [1, 1, 1, 1]);
        new.tunnels.forget(expected.ticket);
        assert_eq!((new.tallies(), new.counts("chat.test")), ([0; 4], [0; 3]));
        let bound = new.bind(&record);
        assert_eq!(new.tallies(), [1, 1, 1, 1]);
        assert_eq!(new.counts("chat.test"), [1, 0, 1]);
        let group = new.group();
        let lease = group.choose(&mut group.selection(b"", None, 0), Instant::now()).unwrap();
        let peer = Arc::clone(lease.shared_peer());
        lease.unused();
        let origin =
            Origin { generation: 1, location: new.location("/ws").0 as u32, server: peer.number() };
        assert_eq!((bound.ticket, bound.origin), (0, origin));
        assert_eq!(bound.timers.read, Duration::from_secs(33));
        assert!(bound.policy.is_some() && bound.meters.is_none());
        let about = bound.label.about::<About>().unwrap();
        assert_eq!((about.id, about.client), (41, Some(CLIENT.parse::<SocketAddr>().unwrap())));
        assert_eq!(about.subprotocol.as_deref(), Some("chat"));
        assert_eq!((&*about.place.server, &*about.place.location), ("chat.test", "/ws"));
        assert_eq!(&*about.peer.name, PEER);
        // The old one forgets it without a word.
        old.tunnels.forget(moves);
        assert_eq!(old.tallies(), [1, 1, 1, 1]);
        assert_eq!(old.counts("chat.test"), [1, 2, 0]);
        assert_eq!(lines(&directory, "access.log"), Vec::<String>::new());
        new.tunnels.tell(bound.ticket, end(5));
        old.tunnels.tell(stays, end(5));
        assert_eq!(new.tallies(), [0; 4]);
        assert_eq!(new.counts("chat.test"), [0, 0, 1]);
        let written = lines(&directory, "access.log");
        assert_eq!(written[0], written[1]);
        assert_eq!(written[0], "192.0.2.7 \"GET /ws HTTP/1.1\" 101 5 41 7.000 - client_fin");
    });
}

const PEER: &str = "127.0.0.1:9001";

#[test]
fn the_newest_settings_of_the_location_hold() {
    run(async |directory| {
        let old = World::new(&site("", LOGGED), &directory);
        let ticket = old.open("/ws", 1).await;
        let inside = "proxy_read_timeout 5s; proxy_send_timeout 6s; send_timeout 7s;
            proxy_buffer_size 8k; websocket_idle_timeout 9s;
            websocket_log %/records.log interval=10s;";
        let new = World::new(&site("", inside), &directory);
        let bound = new.bind(&pack(&old, ticket));
        let seconds = Duration::from_secs;
        let timers = bound.timers;
        assert_eq!(
            [timers.read, timers.upstream_send, timers.client_send, timers.half_close],
            [5, 6, 7, 5].map(seconds)
        );
        assert_eq!((timers.progress, bound.buffer_size), (Some(seconds(10)), 8192));
        assert_eq!(bound.policy.unwrap().idle_ms, Some(9_000));
    });
}

#[test]
fn a_tunnel_whose_location_is_gone_keeps_its_settings() {
    run(async |directory| {
        let inside = "access_log %/access.log told; access_log %/gone.log told;
            proxy_read_timeout 5s; proxy_buffer_size 8k; websocket_ping_interval client=11s;
            websocket_max_frame_size client=77; websocket_drain 1m;";
        let old = World::new(&site("", inside), &directory);
        let record = pack(&old, old.open("/ws", 1).await);
        let elsewhere = "server { listen 127.0.0.1:8001; server_name chat.test;
                location /other { proxy_pass http://app; access_log %/access.log; } }";
        let no_server = "server { listen 127.0.0.1:8001; server_name other.test;
                location /ws { proxy_pass http://app; access_log %/access.log; } }";
        for (number, servers) in [elsewhere, no_server].iter().enumerate() {
            let http = format!("upstream app {{ server {PEER}; }} {servers}");
            let new = World::new(&http, &directory);
            let bound = new.bind(&record);
            assert_eq!(new.tallies(), [1, 1, 1, 1]);
            assert_eq!(new.counts("chat.test"), [1, 0, 1]);
            assert_eq!(bound.timers.read, Duration::from_secs(5));
            assert_eq!(bound.buffer_size, 8192);
            let policy = bound.policy.unwrap();
            assert_eq!(policy.keep_alive.client.unwrap().interval_ms, 11_000);
            assert_eq!(policy.limits.client.frame, Some(77));
            let own_level = new.site.generation().http().servers[0].location;
            assert_eq!(bound.origin.location, own_level.0 as u32);
            let about = bound.label.about::<About>().unwrap();
            assert_eq!((&*about.place.server, &*about.place.location), ("chat.test", "/ws"));
            assert_eq!(about.place.upstream.as_deref(), Some("app"));
            // It goes on to another process, which has the location.
            let again = pack(&new, bound.ticket);
            let third = World::new(&site("", LOGGED), &directory);
            let there = third.bind(&again);
            assert_eq!(there.origin.location, third.location("/ws").0 as u32);
            assert_eq!(there.timers.read, Duration::from_secs(60));
            third.tunnels.forget(there.ticket);
            assert_eq!(third.tallies(), [0; 4]);
            assert_eq!(third.counts("chat.test"), [0, 0, 1]);
            new.tunnels.tell(bound.ticket, end(1));
            assert_eq!(new.counts("chat.test"), [0, 0, 1]);
            assert_eq!(lines(&directory, "access.log").len(), number + 1);
        }
        assert_eq!(lines(&directory, "gone.log").len(), 0);
    });
}

#[test]
fn lines_go_to_the_logs_of_the_location_at_the_same_places_and_then_to_others() {
    run(async |directory| {
        let old = "access_log %/a.log told; access_log %/b.log told;";
        let old = World::new(&site("", old), &directory);
        let record = pack(&old, old.open("/ws", 1).await);
        for (logs, expected) in [
            ("access_log %/b.log; access_log %/a.log;", [1, 1, 0, 0]),
            ("access_log %/c.log; access_log %/b.log;", [0, 1, 1, 0]),
            ("access_log %/c.log;", [0, 0, 1, 0]),
            ("access_log %/c.log combined if=$arg_x; access_log %/d.log;", [0, 0, 0, 1]),
            ("access_log %/b.log combined if=$arg_x;", [0, 1, 0, 0]),
            ("access_log %/$host.log;", [0, 0, 0, 0]),
            ("access_log off;", [0, 0, 0, 0]),
        ] {
            let new = World::new(&site("", logs), &directory);
            let bound = new.bind(&record);
            new.tunnels.tell(bound.ticket, end(1));
            let files = ["a.log", "b.log", "c.log", "d.log"];
            let written = files.map(|file| lines(&directory, file).len());
            assert_eq!(written, expected, "{logs}");
            files.iter().for_each(|file| drop(fs::remove_file(directory.path().join(file))));
        }
    });
}

#[test]
fn a_peer_that_is_gone_is_one_as_after_a_reload() {
    run(async |directory| {
        let http = |upstream: &str| {
            format!(
                "{upstream} server {{ listen 127.0.0.1:8001; server_name chat.test;
                    location /ws {{ proxy_pass http://app; {LOGGED} }} }} {FORMAT}"
            )
        };
        let old = World::new(&site("", LOGGED), &directory);
        let record = pack(&old, old.open("/ws", 1).await);
        // Another server in its group.
        let new = World::new(&http("upstream app { server 127.0.0.1:9002; }"), &directory);
        let records = [&*record, &*record];
        let bound: Vec<_> = new.tunnels.bind(&records, &new.site).into_iter().flatten().collect();
        assert_eq!(bound[0].origin.server, bound[1].origin.server);
        let gone = new.group().peers().remove(&ListenAddr::Ip(PEER.parse().unwrap())).unwrap();
        assert!(!gone.is_known);
        assert_eq!((gone.connections, gone.tunnels), (2, 2));
        bound.iter().for_each(|bound| new.tunnels.tell(bound.ticket, end(1)));
        // Listings hold it no longer either.
        drop(bound);
        assert!(!new.group().peers().contains_key(&ListenAddr::Ip(PEER.parse().unwrap())));
        // No such group.
        let new = World::new(
            "upstream none { server 127.0.0.1:9002; } server { listen 127.0.0.1:8001; server_name \
             chat.test; location /ws { proxy_pass http://none; } }",
            &directory,
        );
        let bound = new.bind(&record);
        assert_eq!(&*bound.label.about::<About>().unwrap().peer.name, PEER);
        assert_eq!(new.tallies(), [1, 1, 1, 0]);
        assert!(!pack(&new, bound.ticket).is_empty());
        new.tunnels.tell(bound.ticket, end(1));
        assert_eq!(new.tallies(), [0; 4]);
    });
}

#[test]
fn a_peer_counts_tunnels_that_come_beyond_its_limit() {
    run(async |directory| {
        let old = World::new(&site("", LOGGED), &directory);
        let record = pack(&old, old.open("/ws", 1).await);
        let http = site("", LOGGED)
            .replace("server 127.0.0.1:9001;", "server 127.0.0.1:9001 max_conns=1; zone app 64k;");
        let new = World::new(&http, &directory);
        let records = [&*record; 3];
        let bound: Vec<_> = new.tunnels.bind(&records, &new.site).into_iter().flatten().collect();
        assert_eq!(bound.len(), 3);
        let (group, now) = (new.group(), Instant::now());
        let choose = || group.choose(&mut group.selection(b"", None, 0), now);
        bound.iter().take(2).for_each(|bound| new.tunnels.tell(bound.ticket, end(1)));
        assert!(choose().is_none(), "one is left");
        new.tunnels.tell(bound[2].ticket, end(1));
        assert!(choose().is_some());
    });
}

#[test]
fn limit_conn_counts_a_tunnel_by_its_key_where_the_zone_is_the_same() {
    run(async |directory| {
        let zone = |zone: &str, most: u32| {
            site(
                &format!("limit_conn_zone {zone}; limit_conn_status 503;"),
                &format!("{LOGGED} limit_conn a {most};"),
            )
        };
        let old = World::new(&zone("$remote_addr zone=a:1m", 9), &directory);
        let record = pack(&old, old.open("/ws", 1).await);
        for (wanted, counted) in [
            ("$remote_addr zone=a:1m", true),
            ("$remote_addr zone=a:2m", true),
            ("$uri zone=a:1m", false),
            ("$remote_addr zone=b:1m; limit_conn_zone $uri zone=a:1m", false),
        ] {
            let new = World::new(&zone(wanted, 1), &directory);
            let records = [&*record; 2];
            let bound: Vec<_> =
                new.tunnels.bind(&records, &new.site).into_iter().flatten().collect();
            assert_eq!(bound.len(), 2);
            let generation = new.site.generation();
            let settings = &generation.http().locations[new.location("/ws").0].settings;
            let id = settings.limit_connections.as_ref().unwrap().limits[0].zone;
            let enter =
                |most| generation.limit_zones.connections(id).enter(b"its key", most).is_ok();
            assert_eq!((enter(2), enter(3)), (!counted, true), "{wanted}");
            bound.iter().for_each(|bound| new.tunnels.tell(bound.ticket, end(1)));
            assert!(enter(1));
        }
    });
}

#[test]
fn sessions_go_on_where_their_zone_is() {
    run(async |directory| {
        let sticky = |zone: &str| {
            site("", LOGGED).replace(
                "server 127.0.0.1:9001;",
                &format!(
                    "server 127.0.0.1:9001; sticky learn create=$cookie_s lookup=$cookie_s zone={zone}:1m;"
                ),
            )
        };
        let old = World::new(&sticky("a"), &directory);
        let record = pack(&old, old.open("/ws", 1).await);
        let key = SessionKey::of(b"its session");
        for (zone, known) in [("a", true), ("b", false)] {
            let new = World::new(&sticky(zone), &directory);
            let bound = new.bind(&record);
            let (group, now) = (new.group(), Instant::now());
            let sessions = group.sessions.as_ref().unwrap();
            assert_eq!(sessions.find(key, now).is_some(), known);
            new.tunnels.tell(bound.ticket, end(1));
            assert_eq!(sessions.find(key, now).is_some(), known);
        }
    });
}

/// How many messages of the client a WebSocket may send at once before it has to wait.
fn messages_at_once(bound: &Bound) -> usize {
    let meters = &bound.meters.as_ref().unwrap().client;
    let now = relay::clock_ms();
    let one = Charge { messages: 1, bytes: 10 };
    let is_free = || meters.iter().all(|meter| meter.charge(one, now) == Toll::Free);
    (0..1_000).take_while(|_| is_free()).count()
}

#[test]
fn meters_are_as_full_as_they_were_and_go_by_the_newest_rates() {
    run(async |directory| {
        let rated = |burst: u32| {
            site("", &format!("{LOGGED} websocket_message_rate client=1r/m burst={burst};"))
        };
        let old = World::new(&rated(10), &directory);
        let ticket = old.open("/ws", 1).await;
        let record = pack(&old, ticket);
        let halfway = World::new(&rated(10), &directory);
        let bound = halfway.bind(&record);
        let one = Charge { messages: 4, bytes: 10 };
        let meters = &bound.meters.as_ref().unwrap().client;
        assert_eq!(meters[0].charge(one, relay::clock_ms()), Toll::Free);
        let record = pack(&halfway, bound.ticket);
        for (burst, expected) in [(10, 6), (20, 16), (2, 0)] {
            let new = World::new(&rated(burst), &directory);
            assert_eq!(messages_at_once(&new.bind(&record)), expected, "{burst}");
        }
        let gone = World::new("server { listen 127.0.0.1:8001; }", &directory);
        assert_eq!(messages_at_once(&gone.bind(&record)), 6);
        let unlimited = World::new(&site("", LOGGED), &directory);
        assert!(unlimited.bind(&record).meters.is_none());
    });
}

#[test]
fn limit_rate_is_that_of_the_location_unless_the_request_has_said_it() {
    run(async |directory| {
        let rate = |text: &str| site("", &format!("{LOGGED} {text}"));
        let meters_of = |bound: Bound| bound.meters.map_or(0, |meters| meters.server.len());
        let old = World::new(&rate("limit_rate 1k;"), &directory);
        let record = pack(&old, old.open("/ws", 1).await);
        for (wanted, expected) in
            [("limit_rate 2k;", 1), ("limit_rate $arg_rate;", 1), ("limit_rate 0;", 0), ("", 0)]
        {
            let new = World::new(&rate(wanted), &directory);
            assert_eq!(meters_of(new.bind(&record)), expected, "{wanted}");
        }
        let none = World::new(&rate(""), &directory);
        let record = pack(&none, none.open("/ws", 1).await);
        let new = World::new(&rate("limit_rate 2k;"), &directory);
        assert_eq!(meters_of(new.bind(&record)), 1);
    });
}

#[test]
fn what_keeps_a_whole_request_stays() {
    run(async |directory| {
        let outside = "map $bytes_sent $much { default 0; ~... 1; }
            log_format with_map '$much';";
        let inside = "access_log %/access.log with_map;";
        let old = World::new(&site(outside, inside), &directory);
        let ticket = old.open("/ws", 1).await;
        let packed = old.tunnels.pack(&[ticket, 7]);
        assert_eq!(packed[0].as_ref().unwrap_err(), &Stays::Request);
        assert_eq!(packed[1].as_ref().unwrap_err(), &Stays::Ended);
        let inside = format!("{LOGGED} websocket_reauth 1m /auth;");
        let old = World::new(&site("", &inside), &directory);
        let ticket = old.open("/ws", 1).await;
        assert_eq!(old.tunnels.pack(&[ticket]).remove(0).unwrap_err(), Stays::Asked);
    });
}

#[test]
fn without_a_server_nothing_is_taken() {
    run(async |directory| {
        let old = World::new(&site("", LOGGED), &directory);
        let record = pack(&old, old.open("/ws", 1).await);
        let new = World::new("", &directory);
        let refused = new.tunnels.bind(&[&record], &new.site).remove(0).unwrap_err();
        assert_eq!(refused, Refusal::NoServer);
        assert_eq!(new.tallies(), [0; 4]);
    });
}

/// A tunnel of which everything is kept that can be.
const EVERYTHING: &str = "log_format json escape=json '{\"from\":\"$remote_addr\",\"at\":$msec,\"tried\":\"$upstream_response_time\"}';
    log_format told '$remote_addr \"$request\" $status $bytes_sent $connection $websocket_close_cause';
    limit_conn_zone $remote_addr zone=connections:1m;
    websocket_limit_zone $server_name zone=messages:1m rate=100r/s;
    upstream app { server 127.0.0.1:9001; sticky learn create=$cookie_s lookup=$cookie_s zone=sessions:1m; }
    server { listen 127.0.0.1:8001; listen [::1]:8002; server_name chat.test www.chat.test;
        location /chat { proxy_pass http://app;
            location ~* ^/chat/(ws|wss)$ { proxy_pass http://app;
                access_log syslog:server=127.0.0.1:1514,tag=chat told;
                websocket_log syslog:server=127.0.0.1:1514,nohostname json open interval=1m;
                limit_conn connections 9; websocket_limit zone=messages burst=50;
                websocket_user $server_name; limit_rate 1m; limit_rate_after 10k;
                websocket_byte_rate client=1m upstream=2m; } } }";

/// What the first release that can has packed. Each further one whose records have more is recorded beside it.
const RECORDED: &str = include_str!("recorded-1.hex");

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Writes what this release packs, in place of a record that is not there yet.
#[test]
fn this_release_packs_what_was_recorded() {
    run(async |directory| {
        let old = World::new(EVERYTHING, &directory);
        let ticket = old.open("^/chat/(ws|wss)$", 9_007_199_254_740_993).await;
        let record = pack(&old, ticket);
        if std::env::var_os("UPDATE_REFERENCE").is_some() && RECORDED.is_empty() {
            let hex: Vec<_> = record.iter().map(|byte| format!("{byte:02x}")).collect();
            let lines: Vec<_> = hex.chunks(40).map(|line| line.concat()).collect();
            let path = format!("{}/src/tunnel/portable/recorded-1.hex", env!("CARGO_MANIFEST_DIR"));
            fs::write(path, lines.join("\n") + "\n").unwrap();
        }
        // But for times and levels it is the same.
        assert!(record.len().abs_diff(bytes_of(RECORDED).len()) < 40, "{}", record.len());
    });
}

#[test]
fn what_an_earlier_release_has_packed_is_bound() {
    run(async |directory| {
        let record = bytes_of(RECORDED);
        let log = "access_log %/access.log;";
        let new = EVERYTHING.replace("websocket_user", &format!("{log} websocket_user"));
        let new = new.replace("access_log syslog:server=127.0.0.1:1514,tag=chat told;", "");
        let new = World::new(&new, &directory);
        let bound = new.bind(&record);
        assert_eq!(new.tallies(), [1; 4]);
        assert_eq!(new.counts("chat.test"), [1, 0, 1]);
        let location = new.location("^/chat/(ws|wss)$");
        assert_eq!(bound.origin.location, location.0 as u32);
        let about = bound.label.about::<About>().unwrap();
        assert_eq!((about.id, about.user.as_deref()), (9_007_199_254_740_993, Some("chat.test")));
        let meters = bound.meters.unwrap();
        assert_eq!((meters.client.len(), meters.server.len()), (2, 2));
        let generation = new.site.generation();
        let zones = &generation.limit_zones;
        let settings = &generation.http().locations[location.0].settings;
        let zone = settings.limit_connections.as_ref().unwrap().limits[0].zone;
        assert!(zones.connections(zone).enter(b"its key", 1).is_err());
        let sessions = new.group().sessions.clone().unwrap();
        assert!(sessions.find(SessionKey::of(b"its session"), Instant::now()).is_some());
        new.tunnels.tell(bound.ticket, end(5));
        assert_eq!(
            lines(&directory, "access.log"),
            ["192.0.2.7 \"GET /ws HTTP/1.1\" 101 5 9007199254740993 client_fin"]
        );
        assert_eq!(new.tallies(), [0; 4]);
        assert!(zones.connections(zone).enter(b"its key", 1).is_ok());
    });
}

#[test]
fn fields_of_a_later_release_are_skipped() {
    run(async |directory| {
        let new = World::new(EVERYTHING, &directory);
        let mut record = bytes_of(RECORDED);
        assert_eq!(record[0] & 0xe0, 0xa0, "a map of a few fields");
        record[0] += 1;
        minicbor::encode((999u64, ["something", "new"]), &mut record).unwrap();
        let array = record.len() - minicbor::to_vec((999u64, ["something", "new"])).unwrap().len();
        // A key and a value, and not the array of both.
        record.remove(array);
        new.bind(&record);
        assert_eq!(new.tallies(), [1; 4]);
    });
}

#[test]
fn whatever_is_said_to_be_a_tunnel_nothing_panics_and_nothing_is_left() {
    run(async |directory| {
        let records = [bytes_of(RECORDED), {
            let old = World::new(&site("", LOGGED), &directory);
            pack(&old, old.open("/ws", 1).await)
        }];
        let worlds = [
            World::new(EVERYTHING, &directory),
            World::new(&site("", LOGGED), &directory),
            World::new("server { listen 127.0.0.1:8001; }", &directory),
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let mut bound_at_all = 0;
        for round in 0..6_000 {
            let mut record = records[round % 2].clone();
            match random(3) {
                0 => record.truncate(random(record.len())),
                1 => {
                    let at = random(record.len());
                    record.drain(at..record.len().min(at + 1 + random(8)));
                }
                _ => {}
            }
            for _ in 0..1 + random(3) {
                let at = random(record.len().max(1));
                if let Some(byte) = record.get_mut(at) {
                    *byte = [0, 0xff, 0x1b, 0xa0, 0xf6, 0x9f, *byte ^ 1, *byte ^ 0x20][random(8)];
                }
            }
            let world = &worlds[random(3)];
            for bound in world.tunnels.bind(&[&record], &world.site).into_iter().flatten() {
                bound_at_all += 1;
                if let Some(meters) = &bound.meters {
                    let all = meters.client.iter().chain(&meters.server);
                    let one = Charge { messages: 1, bytes: 1 };
                    all.for_each(|meter| {
                        let _ = meter.charge(one, relay::clock_ms());
                    });
                }
                let _ = world.tunnels.pack(&[bound.ticket]);
                match random(2) {
                    0 => world.tunnels.tell(bound.ticket, end(u64::MAX / 4)),
                    _ => world.tunnels.forget(bound.ticket),
                }
            }
        }
        assert!(bound_at_all > 300, "{bound_at_all}");
        worlds.iter().for_each(|world| assert_eq!(world.tallies(), [0; 4]));
    });
}

/// Not a claim but a measurement: `cargo test --release -p wssgate-proxy --lib -- --ignored --nocapture microseconds`.
#[test]
#[ignore = "it measures"]
fn how_many_microseconds_a_tunnel_takes() {
    run(async |directory| {
        const COUNT: usize = 9_000;
        let http = site("", "access_log %/access.log;");
        let (old, new) = (World::new(&http, &directory), World::new(&http, &directory));
        let gone = World::new(&site("", LOGGED).replace("/ws", "/other"), &directory);
        let ticket = old.open("/ws", 1).await;
        let tickets = vec![ticket; COUNT];
        for world in [&new, &gone] {
            let began = Instant::now();
            let records = old.tunnels.pack(&tickets);
            let packed = began.elapsed();
            let records: Vec<_> =
                records.iter().map(|record| &**record.as_ref().unwrap()).collect();
            let began = Instant::now();
            let bound = world.tunnels.bind(&records, &world.site);
            let took = began.elapsed();
            assert!(bound.iter().all(Result::is_ok));
            let each = |took: Duration| took.as_nanos() / COUNT as u128;
            println!(
                "{} bytes, packed in {} ns, bound in {} ns",
                records[0].len(),
                each(packed),
                each(took)
            );
            bound.into_iter().flatten().for_each(|bound| world.tunnels.forget(bound.ticket));
        }
    });
}

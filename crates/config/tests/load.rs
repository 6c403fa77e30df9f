//! Whole configurations: text in, model out.
#![allow(clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use wssgate_config::load::LoadOptions;
use wssgate_config::model::{
    Config, Content, Http, ListenAddr, Location, LocationId, ProxyPass, SessionCache,
};
use wssgate_config::{Loaded, load};
use wssgate_syntax::{Main, Memory};

/// Knows two names and no others, so that tests need no network.
fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match name {
        "localhost" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
        "board.xncoding.com" => Ok(vec![SocketAddr::from(([192, 0, 2, 7], port))]),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

const MAIN: &str = "user www-data;\nevents { worker_connections 768; }\nhttp {\n\
    sendfile on;\n include /etc/nginx/sites/*;\n}\n";

fn load_site(site: &str) -> Loaded {
    let options_ssl = include_str!("founding/options-ssl-nginx.conf");
    let files: Memory = [
        ("/etc/nginx/nginx.conf", MAIN),
        ("/etc/nginx/sites/site.conf", site),
        ("/etc/letsencrypt/options-ssl-nginx.conf", options_ssl),
    ]
    .into_iter()
    .collect();
    let main = Main::File("/etc/nginx/nginx.conf".into());
    let options = LoadOptions { main, files: &files, resolve, ..LoadOptions::default() };
    match load(&options) {
        Ok(loaded) => loaded,
        Err(failed) => panic!("{}", failed.report.render(&failed.sources, false)),
    }
}

fn http(config: &Config) -> &Http {
    config.http.as_ref().unwrap()
}

fn root_location(http: &Http) -> &Location {
    let LocationId(id) = http.servers[0].locations.prefixes[0].1;
    &http.locations[id]
}

fn addresses(http: &Http, location: &Location) -> Vec<ListenAddr> {
    let Content::Proxy(ProxyPass::Fixed(pass)) = &location.content else {
        panic!("passed on");
    };
    http.upstreams[pass.upstream.0]
        .servers
        .iter()
        .flat_map(|server| server.addresses.clone())
        .collect()
}

#[test]
fn the_gateway_configuration_becomes_a_model() {
    let loaded = load_site(include_str!("founding/gateway.conf"));
    let http = http(&loaded.config);
    let location = root_location(http);
    assert_eq!(addresses(http, location), [ListenAddr::Ip(([127, 0, 0, 1], 8282).into())]);
    assert_eq!(location.proxy.read_timeout, Duration::from_secs(300));
    assert_eq!(location.proxy.send_timeout, Duration::from_secs(300));
    assert_eq!(location.proxy.set_headers.len(), 5);
    assert!(location.proxy.http11);
    assert_eq!(http.sockets.len(), 1);
    assert_eq!(http.sockets[0].address, ListenAddr::Ip(([0, 0, 0, 0], 80).into()));
    assert!(!http.sockets[0].routes[0].ssl);
    assert_eq!(&*http.servers[0].name, b"board.xncoding.com");
    assert_eq!(http.maps.len(), 1);
    assert_eq!(loaded.config.core.worker_connections, 768);
}

#[test]
fn the_direct_configuration_speaks_tls() {
    let loaded = load_site(include_str!("founding/direct.conf"));
    let http = http(&loaded.config);
    assert!(http.sockets[0].routes[0].ssl);
    let files = &http.servers[0].tls.certificates[0];
    assert_eq!(
        files.chain.value.to_str(),
        Some("/etc/letsencrypt/live/test.enzhico.net/fullchain.pem")
    );
    assert_eq!(
        files.key.value.to_str(),
        Some("/etc/letsencrypt/live/test.enzhico.net/privkey.pem")
    );
}

#[test]
fn the_edge_configuration_takes_certbots_settings() {
    let loaded = load_site(include_str!("founding/edge.conf"));
    let http = http(&loaded.config);
    let tls = &http.servers[0].tls;
    assert_eq!(tls.session_timeout, Duration::from_secs(24 * 60 * 60));
    assert!(!tls.session_tickets && !tls.prefer_server_ciphers);
    assert!(
        matches!(&tls.session_cache, SessionCache::Shared { name, sessions: 40_000 } if **name == *b"le_nginx_SSL")
    );
    assert!(tls.ciphers.value.starts_with(b"ECDHE-ECDSA-AES128-GCM-SHA256:"));
    assert!(tls.dhparam.is_some());
    let location = root_location(http);
    assert_eq!(addresses(http, location), [ListenAddr::Ip(([192, 0, 2, 7], 80).into())]);
    let Content::Proxy(ProxyPass::Fixed(pass)) = &location.content else {
        panic!("passed on");
    };
    assert_eq!(
        (&*pass.host, &*pass.port, &pass.uri),
        (&b"board.xncoding.com"[..], &b"80"[..], &None)
    );
}

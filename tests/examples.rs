//! The examples are configurations that work.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use wssgate_config::model::{Content, ListenAddr, LocationKind, ProxyPass};
use wssgate_config::{Config, LoadOptions};

fn load(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    match wssgate_config::load(&LoadOptions::file(path)) {
        Ok(loaded) => {
            let said = loaded.report.render(&loaded.sources, false);
            assert!(loaded.report.is_empty(), "{name} should say nothing:\n{said}");
            loaded.config
        }
        Err(failed) => panic!("{name}:\n{}", failed.report.render(&failed.sources, false)),
    }
}

/// Ports that are listened on, with TLS or without.
fn ports(config: &Config) -> Vec<(u16, bool)> {
    let sockets = &config.http.as_ref().unwrap().sockets;
    let mut ports: Vec<_> = sockets
        .iter()
        .map(|socket| match &socket.address {
            ListenAddr::Ip(address) => (address.port(), socket.routes.iter().all(|r| r.ssl)),
            ListenAddr::Unix(path) => panic!("{path:?}"),
        })
        .collect();
    ports.dedup();
    ports
}

/// Names of the groups that locations pass to.
fn upstreams(config: &Config) -> Vec<String> {
    let http = config.http.as_ref().unwrap();
    let passes = http.locations.iter().filter(|location| location.kind == LocationKind::Prefix);
    passes
        .map(|location| match &location.content {
            Content::Proxy(ProxyPass::Fixed(pass)) => {
                String::from_utf8_lossy(&http.upstreams[pass.upstream.0].name).into_owned()
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn the_examples_say_what_they_are_for() {
    let direct = load("direct.conf");
    assert_eq!(ports(&direct), [(443, true), (80, false)]);
    assert_eq!(upstreams(&direct), ["app"]);
    let edge = load("edge.conf");
    assert_eq!(ports(&edge), [(443, true)]);
    assert_eq!(upstreams(&edge), ["localhost:8080"]);
    let gateway = load("gateway.conf");
    assert_eq!(ports(&gateway), [(8080, false)]);
    assert_eq!(upstreams(&gateway), ["app"]);
}

#[test]
fn every_example_is_laid_out_as_fmt_does_it() {
    for name in ["direct.conf", "edge.conf", "gateway.conf"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let text = std::fs::read(path).unwrap();
        let formatted = wssgate_syntax::format(name, &text).unwrap();
        assert_eq!(String::from_utf8(formatted).unwrap(), String::from_utf8(text).unwrap());
    }
}

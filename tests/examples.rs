//! The examples are configurations that work: each is laid out, explained, and accepted without a word.
#![allow(clippy::unwrap_used)]

mod example;

use std::path::Path;

use wssgate_config::model::{Content, ListenAddr, LocationKind, ProxyPass};
use wssgate_config::{Config, LoadOptions};

use example::{Example, names};

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
fn the_first_examples_say_what_they_are_for() {
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
fn every_example_says_what_it_is_for_and_what_to_change() {
    let names = names();
    assert!(names.len() >= 33, "{names:?}");
    for name in names.iter().filter(|name| !matches!(&***name, "direct" | "edge" | "gateway")) {
        let text = Example::of(name).text;
        let comment = text.lines().take_while(|line| line.starts_with('#')).collect::<Vec<_>>();
        assert!((3..=16).contains(&comment.len()), "{name}: {comment:?}");
        assert!(comment.iter().any(|line| line.starts_with("# Change: ")), "{name}");
    }
}

#[test]
fn every_example_is_laid_out_as_fmt_does_it() {
    for name in names() {
        let text = Example::of(&name).text;
        let formatted = wssgate_syntax::format(&name, text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(formatted).unwrap(), text, "{name}");
    }
}

#[test]
fn every_example_is_accepted_without_a_word() {
    let mut told = String::new();
    for name in names() {
        let tested = Example::of(&name).setup().run(&["-t"]);
        if !tested.status.success() || tested.stderr.lines().count() != 2 {
            told += &format!("{name}: {}", tested.stderr);
        }
    }
    assert!(told.is_empty(), "{told}");
}

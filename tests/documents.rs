//! What the documents say holds: links lead somewhere, configurations are accepted, files that are named exist.
//!
//! The commands in them are held to the command line by a test in `src/cli.rs`.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use wssgate_config::directive::{Braces, Context};
use wssgate_config::{LoadOptions, registry};
use wssgate_testkit::documents::{self, Document};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `a/../b` is `b`; nothing for what leads out of the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => out.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

/// Links of these documents that lead nowhere: to no file that `exists`, or to no heading.
fn broken_links(documents: &[Document], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&Path, &[String]> =
        documents.iter().map(|document| (&*document.path, &*document.anchors)).collect();
    let mut broken = Vec::new();
    for document in documents {
        for link in &document.links {
            let (file, anchor) = link.text.split_once('#').unwrap_or((&link.text, ""));
            if file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let mut tell =
                |what| broken.push(format!("{}: {}: {what}", document.place(link.line), link.text));
            let target = if file.is_empty() {
                document.path.clone()
            } else {
                let beside = document.path.parent().unwrap_or(Path::new("")).join(file);
                match normal(&beside) {
                    Some(target) if exists(&target) => target,
                    _ => {
                        tell("there is no such file");
                        continue;
                    }
                }
            };
            let known = anchors.get(&*target);
            if !anchor.is_empty()
                && !known.is_some_and(|anchors| anchors.iter().any(|known| known == anchor))
            {
                tell("there is no such heading");
            }
        }
    }
    broken
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents::all(root());
    let count: usize = documents.iter().map(|document| document.links.len()).sum();
    assert!(count > 100, "{count} links");
    let broken = broken_links(&documents, |path| root().join(path).exists());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let documents = [
        Document::parse("README.md", "# Top\n[a](docs/a.md) [b](docs/b.md)\n[c](docs/a.md#two)\n"),
        Document::parse(
            "docs/a.md",
            "# One\n[a](../README.md#top) [b](#one) [c](#two)\n[d](../../x.md)\n",
        ),
        Document::parse("docs/c.md", "[a](https://example.com/nothing#here) [b](a.md#one)"),
    ];
    let there = ["README.md", "docs/a.md", "docs/c.md"].map(PathBuf::from);
    assert_eq!(
        broken_links(&documents, |path| there.iter().any(|known| known == path)),
        [
            "README.md:2: docs/b.md: there is no such file",
            "README.md:3: docs/a.md#two: there is no such heading",
            "docs/a.md:2: #two: there is no such heading",
            "docs/a.md:3: ../../x.md: there is no such file",
        ]
    );
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let documents = documents::all(root());
    let docs = Path::new("docs");
    let summary = documents.iter().find(|document| document.path == docs.join("SUMMARY.md"));
    let listed: Vec<_> = summary.unwrap().links.iter().map(|link| docs.join(&link.text)).collect();
    let pages: BTreeSet<_> = documents
        .iter()
        .map(|document| document.path.clone())
        .filter(|path| path.starts_with(docs) && !path.ends_with("SUMMARY.md"))
        .collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), pages);
    assert_eq!(listed.len(), pages.len(), "a page is listed twice");
}

/// What stands first in two rows of one table, as code: a merge has kept both sides of a conflict.
fn doubled_rows(text: &str) -> Vec<&str> {
    let (mut doubled, mut seen) = (Vec::new(), BTreeSet::new());
    for line in text.lines() {
        let Some(first) = line.strip_prefix('|').and_then(|row| row.split('|').next()) else {
            seen.clear();
            continue;
        };
        let first = first.trim();
        if first.starts_with('`') && !seen.insert(first) {
            doubled.push(first);
        }
    }
    doubled
}

#[test]
fn no_table_has_a_row_twice() {
    for document in documents::all(root()) {
        let text = std::fs::read_to_string(root().join(&document.path)).unwrap();
        let doubled = doubled_rows(&text);
        assert!(doubled.is_empty(), "{}: {doubled:?}", document.path.display());
    }
}

#[test]
fn a_row_that_is_there_twice_is_found() {
    let text = "| a | |\n| --- | --- |\n| `x` | 1 |\n| `y` | 2 |\n| `x` | 3 |\n\n| `y` | 4 |\n";
    assert_eq!(doubled_rows(text), ["`x`"]);
}

/// Paths that are named in code and begin in the repository, without those that exist.
fn missing_files(documents: &[Document], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    const PLACES: [&str; 10] = [
        ".ci",
        "benches",
        "contrib",
        "crates",
        "docs",
        "examples",
        "fuzz",
        "packaging",
        "src",
        "tests",
    ];
    let mut missing = Vec::new();
    for document in documents {
        let lines =
            document.blocks.iter().filter(|block| block.language != "nginx").flat_map(|block| {
                let lines = block.text.lines().enumerate();
                lines.map(|(index, line)| (block.line + index, line))
            });
        let spans = document.spans.iter().map(|span| (span.line, &*span.text));
        for (line, text) in lines.chain(spans) {
            for word in text.split([' ', '"', '\'', '(', ')', ',', ';']) {
                let path = word.strip_prefix("$PWD/").unwrap_or(word).trim_end_matches(['.', ':']);
                let Some((place, below)) = path.split_once('/') else { continue };
                if !PLACES.contains(&place) || below.contains("://") {
                    continue;
                }
                // Of `examples/*.conf` the directory.
                let path = Path::new(path);
                let path = if path.to_string_lossy().contains('*') {
                    path.parent().unwrap()
                } else {
                    path
                };
                // Tests and benchmarks go by names without their ending.
                let is_there = exists(path) || exists(&path.with_extension("rs"));
                // What fuzzing finds is kept beside it, and is no part of the repository.
                if !is_there && !path.starts_with("fuzz/corpus") {
                    missing.push(format!("{}: {word}", document.place(line)));
                }
            }
        }
    }
    missing
}

#[test]
fn every_file_of_the_repository_that_is_named_exists() {
    let missing = missing_files(&documents::all(root()), |path| root().join(path).exists());
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_file_that_does_not_exist_is_found() {
    let text = "`tests/a.rs`, `examples/*.conf`, `src` and `target/x`\n\n    packaging/site\n    x $PWD/examples/b.conf\n";
    let documents = [Document::parse("a.md", text)];
    let exists =
        |path: &Path| ["examples", "packaging/site"].iter().any(|there| path == Path::new(there));
    assert_eq!(
        missing_files(&documents, exists),
        ["a.md:4: $PWD/examples/b.conf", "a.md:1: tests/a.rs"]
    );
}

/// The levels of a configuration that a piece of one may belong to.
#[derive(Default)]
struct Levels {
    main: String,
    http: String,
    server: String,
    location: String,
    upstream: String,
    /// What was set on these levels, and may not be set again.
    set: BTreeSet<(&'static str, String)>,
}

impl Levels {
    /// The whole configuration around them.
    fn text(&self) -> String {
        let Self { main, http, server, location, upstream, .. } = self;
        let events = if main.contains("events") { "" } else { "events {}\n" };
        let mut http = http.clone();
        if !location.is_empty() || !server.is_empty() {
            http += &format!("server {{\nlisten 127.0.0.1:8;\n{server}");
            if !location.is_empty() {
                http += &format!("location /of-the-test {{\n{location}}}\n");
            }
            http += "}\n";
        }
        if !upstream.is_empty() {
            http += &format!("upstream of-the-test {{\n{upstream}}}\n");
        }
        let http = if http.is_empty() { http } else { format!("http {{\n{http}}}\n") };
        format!("{main}{events}{http}")
    }
}

/// Complete configurations with all of `piece` in them, each directive on the outermost level that it may stand on.
/// What sets something again is an alternative to the line before, and gets a configuration of its own.
fn configurations(piece: &str) -> Result<Vec<String>, String> {
    // Lines that are left out.
    let lines = piece.lines().map(|line| if line.trim() == "…" { "" } else { line });
    let piece = lines.collect::<Vec<_>>().join("\n");
    let parsed = wssgate_syntax::parse_text("piece", piece.as_bytes());
    if !parsed.report.is_empty() {
        return Err(parsed.report.render(&parsed.sources, false));
    }
    let mut all = vec![Levels::default()];
    for directive in &parsed.directives {
        let rows = || {
            let named = registry::rows().iter().filter(|row| directive.name.is(&row.name));
            // `server` is a block in `http` and a line in `upstream`.
            named.filter(|row| (row.braces == Braces::None) == directive.block.is_none())
        };
        let row_in = |context| rows().find(|row| row.allowed_in(context));
        let places = [
            (Context::Main, "main"),
            (Context::Http, "http"),
            (Context::Server, "server"),
            (Context::Location, "location"),
            (Context::Upstream, "upstream"),
        ];
        let place = places.into_iter().find_map(|(at, name)| Some((name, row_in(at)?)));
        let text = String::from_utf8_lossy(parsed.sources.text(directive.span)).into_owned();
        // One that nobody knows is told by the program.
        let (place, repeats) = place.map_or(("main", true), |(name, row)| (name, row.repeats));
        let key = (place, directive.name.to_str_lossy().into_owned());
        let again = !repeats && directive.block.is_none();
        let free = all.iter().position(|levels| !again || !levels.set.contains(&key));
        let free = free.unwrap_or(all.len());
        if free == all.len() {
            all.push(Levels::default());
        }
        let levels = &mut all[free];
        levels.set.insert(key);
        let level = match place {
            "main" => &mut levels.main,
            "http" => &mut levels.http,
            "server" => &mut levels.server,
            "location" => &mut levels.location,
            _ => &mut levels.upstream,
        };
        level.push_str(&text);
        level.push('\n');
    }
    Ok(all.iter().map(Levels::text).collect())
}

/// What the program says of a piece of a configuration, if it says anything.
fn complaint(piece: &str) -> Option<String> {
    // Names in documents are those of others; nobody is asked for them.
    fn somewhere(_: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
    }
    let texts = match configurations(piece) {
        Ok(texts) => texts,
        Err(said) => return Some(said),
    };
    let said = texts.into_iter().filter_map(|text| {
        let options = LoadOptions { resolve: somewhere, ..LoadOptions::text(text) };
        let (report, sources) = match wssgate_config::load(&options) {
            Ok(loaded) => (loaded.report, loaded.sources),
            Err(failed) => (failed.report, failed.sources),
        };
        (!report.is_empty()).then(|| report.render(&sources, false))
    });
    let said: Vec<_> = said.collect();
    (!said.is_empty()).then(|| said.join("\n"))
}

#[test]
fn every_configuration_is_accepted_without_a_word() {
    let (mut count, mut told) = (0, String::new());
    for document in documents::all(root()) {
        for block in document.blocks.iter().filter(|block| block.language == "nginx") {
            count += 1;
            if let Some(said) = complaint(&block.text) {
                told += &format!("{}:\n{said}\n", document.place(block.line));
            }
        }
    }
    assert!(count > 20, "{count} configurations");
    assert!(told.is_empty(), "{told}");
}

#[test]
fn what_is_wrong_in_a_piece_of_a_configuration_is_found() {
    let fine = [
        "location / { proxy_pass http://app.example.com:8282; }",
        "proxy_set_header A b;\n…\nmap $http_a $c { default x; }",
        "listen 443;\nserver_name a;",
        "events {}\nhttp { server { listen 80; } }",
        "server 127.0.0.1:1;\nleast_conn;",
        "websocket_max_message_size 1m;\nwebsocket_max_message_size client=1m;",
    ];
    for piece in fine {
        assert_eq!(complaint(piece), None, "{piece}");
    }
    let wrong = [
        ("location / { proxy_pas http://a; }", "unknown directive"),
        ("proxy_read_timeout soon;", "invalid"),
        ("location / {", "unexpected end of file"),
        ("server { location / { upstream a { server b; } } }", "not allowed here"),
        ("websocket_max_message_size 1m;\nwebsocket_max_message_size x;", "invalid"),
        ("stream { }", "not supported"),
    ];
    for (piece, expected) in wrong {
        let said = complaint(piece).unwrap_or_default();
        assert!(said.contains(expected), "{piece}: {said}");
    }
}

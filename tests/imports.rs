//! In the engine, modules use those below them: the order of ARCHITECTURE.md, read from the sources. In
//! no crate do more than three modules go in a circle.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the bottom to the top. What stands on one line may use each other and all before; the
/// longest name that a path begins with says where it belongs.
const ORDER: &[&[&str]] = &[
    &["clock", "metrics", "portable"],
    &["auth", "limit"],
    &["log"],
    &["resolve"],
    &["tls"],
    &["acme"],
    &["listen"],
    &["peers"],
    &["generation"],
    &["dashboard"],
    &["site"],
    &["exchange"],
    &["tunnel"],
    &["content"],
    &["front"],
    &["worker"],
    &["moving"],
    &["admin"],
    &["proxy"],
];

#[test]
fn modules_of_the_engine_use_those_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/proxy/src");
    let mut files = Vec::new();
    sources(&root, "", &mut files);
    assert!(files.len() > 50, "the sources of the engine are elsewhere");
    let mut wrong = Vec::new();
    for (module, text) in &files {
        let Some(own) = layer(module) else {
            wrong.push(format!("{module} has no place in the order"));
            continue;
        };
        let used = uses(module, text)
            .into_iter()
            .filter(|used| layer(used).is_some_and(|used| used > own));
        wrong.extend(used.map(|used| format!("{module} uses {used}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_circle_has_more_than_three_modules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut crates: Vec<_> =
        fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    crates.push(root.to_owned());
    assert!(crates.len() > 8, "the crates are elsewhere");
    for path in crates {
        let mut files = Vec::new();
        sources(&path.join("src"), "", &mut files);
        let wide: Vec<_> = circles(&files).into_iter().filter(|circle| circle.len() > 3).collect();
        assert!(wide.is_empty(), "in {}: {wide:?}", path.display());
    }
}

/// The sets of top-level modules of which each uses all others, directly or not.
fn circles(files: &[(String, String)]) -> BTreeSet<BTreeSet<String>> {
    let top = |path: &str| path.split("::").next().unwrap_or_default().to_owned();
    let mut reached: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in files {
        let used = uses(module, text).iter().map(|path| top(path)).collect::<BTreeSet<_>>();
        reached.entry(top(module)).or_default().extend(used);
    }
    // As often as there are modules, everybody reaches what those reach that he reaches.
    for _ in 0..reached.len() {
        let before = reached.clone();
        for set in reached.values_mut() {
            let more = set.iter().filter_map(|one| before.get(one)).flatten().cloned();
            *set = set.iter().cloned().chain(more.collect::<Vec<_>>()).collect();
        }
    }
    let both = |one: &str, other: &str| {
        let reaches = |a: &str, b: &str| reached.get(a).is_some_and(|set| set.contains(b));
        reaches(one, other) && reaches(other, one)
    };
    let names = || reached.keys();
    names()
        .map(|one| names().filter(|other| *other == one || both(one, other)).cloned().collect())
        .collect()
}

#[test]
fn a_circle_is_found() {
    let files = [("a", "crate::b::X"), ("b", "crate::c"), ("c::d", "crate::a"), ("e", "crate::a")];
    let files = files.map(|(module, text)| (module.to_owned(), text.to_owned()));
    let found: Vec<_> = circles(&files).into_iter().filter(|circle| circle.len() > 1).collect();
    assert_eq!(found, [["a", "b", "c"].map(str::to_owned).into()]);
}

/// Where a path belongs; nowhere if it is an item of `lib.rs`.
fn layer(path: &str) -> Option<usize> {
    let places =
        ORDER.iter().enumerate().flat_map(|(at, names)| names.iter().map(move |n| (n, at)));
    let begins = |name: &str| {
        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    places.filter(|(name, _)| begins(name)).max_by_key(|(name, _)| name.len()).map(|(_, at)| at)
}

/// Every module but `lib.rs` and tests, with its text.
fn sources(dir: &Path, within: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let module = if within.is_empty() { stem.to_owned() } else { format!("{within}::{stem}") };
        match stem {
            "lib" | "tests" | "testing" => {}
            _ if path.is_dir() => sources(&path, &module, files),
            _ => files.push((module, product(&fs::read_to_string(&path).unwrap()))),
        }
    }
}

/// Without comments, and without the tests at the end.
fn product(text: &str) -> String {
    let end = text.find("\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths behind `crate::`, and behind `super::` in `module`, groups taken apart.
fn uses(module: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in text.match_indices("crate::") {
        tree(&text[at + word.len()..], "", &mut found);
    }
    for (at, word) in text.match_indices("super::") {
        let before = text[..at].len() - text[..at].trim_end_matches(word).len();
        let up = 1 + before / word.len();
        let parent = module.rsplitn(up + 1, "::").nth(up).unwrap_or_default();
        if !text[at + word.len()..].starts_with(word) {
            tree(&text[at + word.len()..], parent, &mut found);
        }
    }
    found
}

/// Reads one path or group and returns what follows it.
fn tree<'t>(text: &'t str, before: &str, found: &mut Vec<String>) -> &'t str {
    if let Some(group) = text.strip_prefix('{') {
        let mut rest = group.trim_start();
        while !rest.starts_with('}') && !rest.is_empty() {
            rest = tree(rest, before, found);
            rest = rest.trim_start_matches(|c: char| c != ',' && c != '}');
            rest = rest.trim_start_matches(',').trim_start();
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let len = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(len);
    let path = match before {
        "" => name.to_owned(),
        _ if name == "self" => before.to_owned(),
        _ => format!("{before}::{name}"),
    };
    match rest.strip_prefix("::") {
        Some(rest) => tree(rest, &path, found),
        None => {
            found.push(path);
            rest
        }
    }
}

#[test]
fn a_group_is_taken_apart() {
    let text = "use crate::a::{self, b::{C, d as e}, F};\nfn f() { crate::g::h(); }\n\
                use super::i;\nfn k() { super::super::L }";
    let expected = ["a", "a::b::C", "a::b::d", "a::F", "g::h", "x::y::i", "x::L"];
    assert_eq!(uses("x::y::z", text), expected);
}

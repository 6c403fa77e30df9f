//! `docs/directives.md` says what the rows say.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// With `UPDATE_REFERENCE=1` in the environment the file is written instead.
#[test]
fn the_committed_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/directives.md");
    let text = wssgate_config::reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "docs/directives.md is stale: run the test with UPDATE_REFERENCE=1");
}

#[test]
fn the_examples_are_accepted() {
    let text = wssgate_config::reference();
    accepted(blocks(&text).map(|example| format!("events {{}} http {{ {example} }}")));
}

/// `tests/app-servers/run` runs them, but is no part of the gate.
#[test]
fn the_recipes_for_app_servers_are_accepted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/app-servers.md");
    let text = std::fs::read_to_string(path).unwrap();
    accepted(blocks(&text).map(|block| format!("events {{}} http {{ server {{ {block} }} }}")));
}

/// The configurations in a document.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n```nginx\n").skip(1).map(|rest| rest.split("\n```").next().unwrap())
}

fn accepted(configurations: impl Iterator<Item = String>) {
    let mut count = 0;
    for text in configurations {
        if let Err(failed) = wssgate_config::load(&wssgate_config::LoadOptions::text(text.clone()))
        {
            panic!("{text}\n{}", failed.report.render(&failed.sources, false));
        }
        count += 1;
    }
    assert!(count > 0, "no example is found");
}

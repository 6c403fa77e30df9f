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
    let mut examples =
        text.split("\n```nginx\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let mut count = 0;
    for example in &mut examples {
        let options =
            wssgate_config::LoadOptions::text(format!("events {{}} http {{ {example} }}"));
        if let Err(failed) = wssgate_config::load(&options) {
            panic!("{example}\n{}", failed.report.render(&failed.sources, false));
        }
        count += 1;
    }
    assert!(count > 0, "no example is found");
}

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

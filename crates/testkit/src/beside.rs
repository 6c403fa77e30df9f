//! Tests that hold the program against another one, where that is installed.

use std::io::{self, Write};
use std::path::Path;

/// Debian's nginx.
pub const NGINX: &str = "/usr/sbin/nginx";

/// The program under test, and nginx where it is installed.
pub fn with_nginx(exe: &'static str) -> impl Iterator<Item = &'static str> {
    let installed = Path::new(NGINX).exists();
    if !installed {
        skipped("the same with nginx: not installed");
    }
    [exe].into_iter().chain(installed.then_some(NGINX))
}

/// Says what is not tested, past the capture of the test runner, which hides what passing tests print.
pub fn skipped(what: &str) {
    let _ = writeln!(io::stderr(), "skipped: {what}");
}

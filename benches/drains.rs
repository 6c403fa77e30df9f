//! A reload ends all WebSockets, and their clients come back; see `benches/README.md`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    wssgate_bench::drains(Path::new(env!("CARGO_BIN_EXE_wssgate")), &root.join("docs/bench"))
}

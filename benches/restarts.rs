//! App servers restart under reconnecting WebSocket clients; see `benches/README.md`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    wssgate_bench::restarts(Path::new(env!("CARGO_BIN_EXE_wssgate")), &root.join("docs/bench"))
}

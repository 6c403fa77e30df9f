//! The program of a proxy is replaced under tunnels in use; see `benches/README.md`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    wssgate_bench::upgrades(Path::new(env!("CARGO_BIN_EXE_wssgate")), &root.join("docs/bench"))
}

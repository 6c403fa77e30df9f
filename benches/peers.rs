//! wssgate, nginx and HAProxy at the same work; see `benches/README.md`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    wssgate_bench::main(Path::new(env!("CARGO_BIN_EXE_wssgate")), &root.join("docs/bench"))
}

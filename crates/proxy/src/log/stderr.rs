//! Lines on standard error, which may be a pipe that nobody reads at the moment.

use std::io::{self, Write as _};

use wssgate_sys::files;

/// What a pipe that is ready takes without waiting (PIPE_BUF).
const PIECE: usize = 4096;

/// Writes `lines`, or loses them from where standard error takes no more: nobody waits for it, and
/// there is nowhere left to say that this failed.
pub(super) fn write(lines: &[u8]) {
    let stderr = io::stderr();
    let mut out = stderr.lock();
    for piece in lines.chunks(PIECE) {
        if !files::is_writable(&out) || out.write_all(piece).is_err() {
            return;
        }
    }
}

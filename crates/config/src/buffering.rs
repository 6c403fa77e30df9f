//! How the lines of an access log wait for each other.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// `buffer=`, `flush=` and `gzip=` of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// Bytes of lines that wait before they are written together.
    pub capacity: usize,
    /// How long a line may wait.
    pub flush: Option<Duration>,
    /// Compresses what is written, with this level (1 to 9).
    pub gzip: Option<u8>,
}

/// The buffers of all access logs: each belongs to its file.
pub(crate) type Buffers = HashMap<PathBuf, Buffering>;

//! Access logs with variables in their path: the file is known only with the request.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use wssgate_config::model::LogFileCache;
use wssgate_sys::errno::ENOTDIR;

use super::file::{LogFiles, OpenError, append, open};
use super::kept_open::KeptOpen;
use super::losses::Losses;
use crate::errno_text;

/// The files of all such logs that keep them open by the same rules.
#[derive(Debug)]
pub(crate) struct LogWithVariables {
    /// `None` when each line opens its file.
    kept_open: Option<Arc<KeptOpen>>,
    losses: Arc<Losses>,
}

/// Why a line could not be written; in nginx's words.
#[derive(Debug, Error)]
pub(crate) enum AppendError {
    /// The root of the request is no directory.
    #[error("testing \"{}\" existence failed ({})", root.display(), errno_text(source))]
    NoRoot { root: PathBuf, source: io::Error },
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl LogWithVariables {
    pub(super) fn new(limits: Option<&Arc<LogFileCache>>, files: &LogFiles) -> Self {
        Self {
            kept_open: limits.map(|limits| files.keep_open(limits)),
            losses: files.losses_of("writes to logs with variables in their path".to_owned()),
        }
    }

    /// Whether it keeps files open by these rules.
    pub(super) fn has(&self, limits: Option<&Arc<LogFileCache>>) -> bool {
        match (&self.kept_open, limits) {
            (Some(kept_open), Some(limits)) => Arc::ptr_eq(kept_open.limits(), limits),
            (None, None) => true,
            _ => false,
        }
    }

    /// Writes a line to a file that is open already; whether that was the case.
    pub(crate) fn write_if_open(&self, path: &Path, line: &[u8]) -> bool {
        let Some(kept_open) = &self.kept_open else { return false };
        match kept_open.find(path.as_os_str().as_encoded_bytes(), Instant::now()) {
            Some(file) => {
                self.losses.note(append(&file, path, &[line, b"\n"]));
                true
            }
            None => false,
        }
    }

    /// Opens the file and writes a line. This may wait for the disk.
    ///
    /// As in nginx the `root` of the request must exist, so that names that somebody has made up do
    /// not fill the disk.
    pub(crate) fn open_and_write(
        &self,
        root: &Path,
        path: &Path,
        line: &[u8],
    ) -> Result<(), AppendError> {
        check_root(root).map_err(|source| AppendError::NoRoot { root: root.into(), source })?;
        let file: Arc<File> = Arc::new(open(path)?);
        self.losses.note(append(&file, path, &[line, b"\n"]));
        if let Some(kept_open) = &self.kept_open {
            kept_open.keep(path.as_os_str().as_encoded_bytes(), &file, Instant::now());
        }
        Ok(())
    }
}

fn check_root(root: &Path) -> io::Result<()> {
    match std::fs::metadata(root)?.is_dir() {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(ENOTDIR)),
    }
}

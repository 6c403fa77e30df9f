//! What a look at the files of `auth_basic` and `auth_jwt` shows while a configuration is loaded.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use wssgate_config::Config;
use wssgate_config::model::JwtKeys;
use wssgate_config::template::Template;
use wssgate_syntax::{Diagnostic, Report, Span};

use crate::auth::keys::KeySets;
use crate::errno_text;

/// Warns of files that let nobody in. They are read with each request, and may come later, so that is
/// no error.
pub(super) fn check(config: &Config, keys: &KeySets, report: &mut Report) {
    let mut seen = BTreeSet::new();
    let mut warn = |path: &Path, reason: String, span: Span| {
        let message = format!("\"{}\" cannot be used: {reason}", path.display());
        report.push(Diagnostic::warning(message).at(span, "all access is denied"));
    };
    for location in config.http.iter().flat_map(|http| &http.locations) {
        let settings = &location.settings;
        if let Some(basic) = &settings.auth_basic
            && let Some(path) = fixed_path(&basic.directory, &basic.user_file.value)
            && seen.insert(path.clone())
            && let Err(error) = fs::File::open(&path)
        {
            let reason = format!("open() failed ({})", errno_text(&error));
            warn(&path, reason, basic.user_file.span);
        }
        let Some(jwt) = &settings.auth_jwt else { continue };
        for source in &jwt.keys {
            if let JwtKeys::File(file) = source
                && let Some(path) = fixed_path(&jwt.directory, &file.value)
                && seen.insert(path.clone())
                && let Err(error) = keys.of_file(&path)
            {
                warn(&path, error.to_string(), file.span);
            }
        }
    }
}

/// A path without variables.
fn fixed_path(directory: &Path, path: &Template) -> Option<PathBuf> {
    Some(directory.join(OsStr::from_bytes(path.as_text()?)))
}

//! `index`: a file that stands for its directory.

use std::io::{self, ErrorKind};

use wssgate_config::model::{Location, LogLevel};
use wssgate_sys::errno;

use crate::content::Outcome;
use crate::errno_text;
use crate::exchange::Request;
use crate::exchange::body::blocking;
use crate::exchange::path::{as_path, file};

/// An internal redirect to the first file that exists; `None` when none does.
pub(super) async fn find(request: &Request, location: &Location) -> Option<Outcome> {
    let mut directory_seen = false;
    for template in location.settings.index.iter() {
        let name = request.text(template);
        let args = request.target.args.borrow().clone();
        // Such a name is a path of its own, and whoever answers there will see whether it exists.
        if name.first() == Some(&b'/') {
            return Some(Outcome::InternalRedirect { path: name, args });
        }
        let Some(directory) = file(request, &request.target.path) else {
            return Some(Outcome::Status(500));
        };
        let full = [&directory[..], &name].concat();
        let Err(error) = exists(&full).await else {
            let path = [&request.target.path[..], &name].concat().into();
            return Some(Outcome::InternalRedirect { path, args });
        };
        if let Some(status) = denied(request, location, &full, &error) {
            return Some(Outcome::Status(status));
        }
        if !directory_seen
            && let Some(status) = test_directory(request, location, &directory, &full).await
        {
            return Some(Outcome::Status(status));
        }
        directory_seen = true;
        if error.kind() != ErrorKind::NotFound {
            return Some(Outcome::Status(stat_failed(request, &full, &error)));
        }
    }
    None
}

async fn exists(path: &[u8]) -> io::Result<()> {
    let path = path.to_vec();
    blocking(move || std::fs::metadata(as_path(&path)).map(drop)).await
}

/// The answer when a file cannot even be looked for.
fn denied(request: &Request, location: &Location, path: &[u8], error: &io::Error) -> Option<u16> {
    let path = path.escape_ascii();
    match error.kind() {
        ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            Some(not_found(request, location, path, error))
        }
        ErrorKind::PermissionDenied => {
            let error = errno_text(error);
            request.log(LogLevel::Error, format_args!("\"{path}\" is forbidden ({error})"));
            Some(403)
        }
        // As nginx, which says nothing of links.
        _ => is_loop(error).then_some(403),
    }
}

/// A missing directory is 404, not a forbidden listing. `tried` is the file that was looked for.
async fn test_directory(
    request: &Request,
    location: &Location,
    directory: &[u8],
    tried: &[u8],
) -> Option<u16> {
    let directory = directory.strip_suffix(b"/").unwrap_or(directory);
    let owned = if directory.is_empty() { b"/".to_vec() } else { directory.to_vec() };
    match blocking(move || std::fs::metadata(as_path(&owned))).await {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => {
            let directory = directory.escape_ascii();
            request.log(LogLevel::Alert, format_args!("\"{directory}\" is not a directory"));
            Some(500)
        }
        // Files were looked for in it, so it is there.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Some(not_found(request, location, tried.escape_ascii(), &error))
        }
        Err(error) if is_loop(&error) => Some(403),
        Err(error) => Some(stat_failed(request, directory, &error)),
    }
}

fn not_found(
    request: &Request,
    location: &Location,
    path: impl std::fmt::Display,
    error: &io::Error,
) -> u16 {
    if location.settings.log_not_found {
        let error = errno_text(error);
        request.log(LogLevel::Error, format_args!("\"{path}\" is not found ({error})"));
    }
    404
}

fn stat_failed(request: &Request, path: &[u8], error: &io::Error) -> u16 {
    let (path, error) = (path.escape_ascii(), errno_text(error));
    request.log(LogLevel::Crit, format_args!("stat() \"{path}\" failed ({error})"));
    500
}

fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(errno::ELOOP)
}

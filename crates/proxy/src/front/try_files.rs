//! `try_files`: the first candidate that exists becomes the path.

use bytes::Bytes;
use wssgate_config::model::{Location, LogLevel, TryFallback, TryFiles};

use crate::content::Outcome;
use crate::content::pages::split_args;
use crate::exchange::body::blocking;
use crate::exchange::path::as_path;
use crate::exchange::{Request, path};

/// Looks for the candidates; `None` when one was found and is now the path.
pub(crate) async fn run(
    request: &mut Request,
    location: &Location,
    try_files: &TryFiles,
) -> Option<Outcome> {
    for candidate in &try_files.candidates {
        let name = request.text(&candidate.path);
        let name = without_prefix(location, &name, candidate.path.as_text().is_none());
        let full = full_path(request, &name);
        let found = blocking(move || std::fs::metadata(as_path(&full))).await;
        match found {
            Ok(metadata) if metadata.is_dir() == candidate.directory => {
                adopt(request, location, &name, candidate.directory);
                return None;
            }
            Ok(_) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => request.log(
                LogLevel::Crit,
                format_args!("stat() of a try_files candidate failed ({error})"),
            ),
        }
    }
    Some(match &try_files.fallback {
        TryFallback::Status(status) => Outcome::Status(*status),
        TryFallback::Uri(uri) => {
            let uri = request.text(uri);
            match uri.first() {
                Some(b'@') => Outcome::NamedLocation(uri),
                _ => {
                    let (path, args) = split_args(&uri);
                    Outcome::InternalRedirect { path, args }
                }
            }
        }
    })
}

/// With `alias` a candidate made of variables usually begins with the location's prefix, which the
/// alias replaces.
fn without_prefix(location: &Location, name: &Bytes, has_variables: bool) -> Bytes {
    let root = &location.settings.root;
    match name.strip_prefix(&root.alias_prefix[..]) {
        Some(rest) if root.alias && has_variables => name.slice_ref(rest),
        _ => name.clone(),
    }
}

fn full_path(request: &Request, name: &[u8]) -> Bytes {
    [&path::root(request)[..], name].concat().into()
}

/// Makes what was found the path.
fn adopt(request: &mut Request, location: &Location, name: &Bytes, directory: bool) {
    let root = &location.settings.root;
    request.target.path = match &root.alias_prefix[..] {
        _ if !root.alias => name.clone(),
        [] if directory => return,
        [] => {
            request.route.path_after_alias = true;
            name.clone()
        }
        prefix => [prefix, name].concat().into(),
    };
}

fn is_missing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}

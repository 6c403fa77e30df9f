//! Directories without an index file: `autoindex` lists them, `random_index` chooses a file.

mod directory;
mod format;

use std::io::{self, ErrorKind};

use bytes::Bytes;
use wssgate_config::model::{Autoindex, ListingFormat, Location, LogLevel};
use wssgate_http1::Method;

use crate::content::conditional::{self, Verdict};
use crate::content::{self, Outcome};
use crate::errno_text;
use crate::exchange::body::blocking;
use crate::exchange::path::file;
use crate::exchange::{Exchange, Reply, Request, variables};
use directory::Failed;
use format::{Page, Style};

/// How long the name of a function may be that `jsonp` calls, in bytes.
const CALLBACK_MAX: usize = 128;

/// Lists the directory that the path means; `None` when listings are off or not for this method.
pub(super) async fn list(exchange: &mut Exchange, location: &Location) -> Option<Outcome> {
    let settings = &location.settings;
    let wanted = settings.autoindex.as_ref()?;
    match exchange.request.target.method {
        Method::Get | Method::Head => Some(answer(exchange, wanted).await),
        _ => None,
    }
}

async fn answer(exchange: &mut Exchange, wanted: &Autoindex) -> Outcome {
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let request = &exchange.request;
    let Some(path) = directory_path(request) else { return Outcome::Status(500) };
    let Ok(callback) = callback(request, wanted.format) else { return Outcome::Status(400) };
    let mut reply = Reply::new(200);
    reply.content_type = Some(Bytes::from_static(content_type(wanted.format, callback.is_some())));
    let verdict = conditional::judge(request, &reply);
    // Nobody will see what is in it.
    let only_open = verdict != Verdict::Send || request.target.method == Method::Head;
    let read = blocking({
        let path = path.clone();
        move || Ok(directory::read(&path, only_open))
    });
    let entries = match read.await {
        Ok(Ok(entries)) => entries,
        Ok(Err(failed)) => return explain(request, &path, &failed),
        Err(error) => return explain(request, &path, &Failed::Open(error)),
    };
    match verdict {
        Verdict::Failed => return Outcome::Status(412),
        Verdict::NotModified => conditional::make_not_modified(&mut reply),
        Verdict::Send => {}
    }
    if let Err(refused) = exchange.response.head(&mut exchange.request, reply) {
        return content::unsatisfiable(&mut exchange.request, refused);
    }
    entries.skipped().for_each(|line| exchange.request.log(LogLevel::Crit, line));
    // Only the head says in which charset names will be read.
    let style = Style::of(&exchange.request, wanted, callback);
    match send(exchange, Page::new(entries, style)).await {
        Ok(()) => Outcome::Done,
        Err(()) => Outcome::Close,
    }
}

async fn send(exchange: &mut Exchange, page: Page) -> Result<(), ()> {
    if !exchange.response.is_empty() {
        for piece in page {
            exchange.response.body(&exchange.request, piece).await.map_err(|_| ())?;
        }
    }
    exchange.response.finish(&mut exchange.request, None).await.map_err(|_| ())
}

/// `random_index`: an internal redirect to one of the files; `None` when there is none, or it is off.
pub(super) async fn choose(request: &Request, location: &Location) -> Option<Outcome> {
    let settings = &location.settings;
    if !settings.random_index {
        return None;
    }
    let Some(path) = directory_path(request) else { return Some(Outcome::Status(500)) };
    let chosen = blocking({
        let path = path.clone();
        move || Ok(directory::random_file(&path))
    });
    match chosen.await {
        Ok(Ok(None)) => None,
        Ok(Ok(Some(name))) => {
            let path = [&request.target.path[..], &name].concat().into();
            let args = request.target.args.borrow().clone();
            Some(Outcome::InternalRedirect { path, args })
        }
        Ok(Err(failed)) => Some(explain(request, &path, &failed)),
        Err(error) => Some(explain(request, &path, &Failed::Open(error))),
    }
}

/// The directory, without the slash at its end; `None` when an `alias` does not fit the path.
fn directory_path(request: &Request) -> Option<Bytes> {
    let path = file(request, &request.target.path)?;
    let without = path.strip_suffix(b"/").filter(|rest| !rest.is_empty());
    Some(without.map(|rest| path.slice_ref(rest)).unwrap_or(path))
}

/// The function that the client wants to have called; `Err` when its name is none.
fn callback(request: &Request, format: ListingFormat) -> Result<Option<Bytes>, ()> {
    if format != ListingFormat::Jsonp {
        return Ok(None);
    }
    let args = request.target.args.borrow().clone();
    let name = variables::argument(&args, b"callback").filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok(None) };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let wrong = match &name {
        name if name.len() > CALLBACK_MAX => "too long",
        name if !name.iter().all(plain) => "invalid",
        _ => return Ok(Some(name)),
    };
    let name = name.escape_ascii();
    request.log(LogLevel::Info, format_args!("client sent {wrong} callback name: \"{name}\""));
    Err(())
}

fn content_type(format: ListingFormat, has_callback: bool) -> &'static [u8] {
    match format {
        ListingFormat::Html => b"text/html",
        ListingFormat::Jsonp if has_callback => b"application/javascript",
        ListingFormat::Json | ListingFormat::Jsonp => b"application/json",
        ListingFormat::Xml => b"text/xml; charset=utf-8",
    }
}

/// Tells the log why a directory could not be read; gives the answer.
fn explain(request: &Request, path: &[u8], failed: &Failed) -> Outcome {
    let path = path.escape_ascii();
    let (status, level) = match failed {
        Failed::Open(error) => of_open(error),
        Failed::Read(_) | Failed::Stat { .. } => (500, LogLevel::Crit),
        Failed::TooLarge => (500, LogLevel::Error),
        Failed::Crowded => (503, LogLevel::Error),
    };
    let because = |error: &io::Error| format!("failed ({})", errno_text(error));
    match failed {
        Failed::Open(error) => {
            request.log(level, format_args!("opendir() \"{path}\" {}", because(error)));
        }
        Failed::Read(error) => {
            request.log(level, format_args!("readdir() \"{path}\" {}", because(error)));
        }
        Failed::Stat { call, path, error } => {
            let path = path.escape_ascii();
            request.log(level, format_args!("{call} \"{path}\" {}", because(error)));
        }
        Failed::TooLarge => request.log(
            level,
            format_args!(
                "directory \"{path}\" has too many files: its listing needs more than {} MiB",
                directory::ONE_MAX >> 20
            ),
        ),
        Failed::Crowded => request.log(
            level,
            format_args!(
                "no memory for a listing of \"{path}\": all that are being sent need {} MiB",
                directory::ALL_MAX >> 20
            ),
        ),
    }
    Outcome::Status(status)
}

fn of_open(error: &io::Error) -> (u16, LogLevel) {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            (404, LogLevel::Error)
        }
        ErrorKind::PermissionDenied => (403, LogLevel::Error),
        _ => (500, LogLevel::Crit),
    }
}

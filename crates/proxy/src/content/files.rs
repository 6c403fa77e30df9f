//! Files below `root` or `alias`.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use bytes::Bytes;
use wssgate_config::model::{Location, LogLevel};
use wssgate_http1::{Escape, Method, escape};
use wssgate_sys::errno;

use crate::content::conditional::{self, Verdict};
use crate::content::status::content_type;
use crate::content::{self, Outcome, index, listing, reads_files};
use crate::errno_text;
use crate::exchange::body::blocking;
use crate::exchange::path::{as_path, file};
use crate::exchange::{Exchange, Reply, Request, Seeking};

/// How much of a file is read at once.
const PIECE: u64 = 64 * 1024;

/// Answers with a file, an index or a listing, or a redirect to a directory.
pub(crate) async fn serve(exchange: &mut Exchange, location: &Location) -> Outcome {
    let request = &exchange.request;
    if !reads_files(request.target.method) {
        return Outcome::Status(405);
    }
    if request.target.path.last() == Some(&b'/') {
        return directory(exchange, location).await;
    }
    let Some(path) = file(request, &request.target.path) else {
        return Outcome::Status(500);
    };
    let opened = blocking({
        let path = path.clone();
        move || open(&path)
    });
    match opened.await {
        Err(error) => failed(request, location, &path, &error),
        Ok(Entry::Directory) => to_directory(exchange),
        Ok(Entry::Other) => {
            let path = path.escape_ascii();
            request.log(LogLevel::Crit, format_args!("\"{path}\" is not a regular file"));
            Outcome::Status(404)
        }
        // Not before the file was found: nginx answers 404 to a POST where there is none.
        Ok(Entry::File(_)) if request.target.method == Method::Post => Outcome::Status(405),
        Ok(Entry::File(found)) => send(exchange, location, found).await,
    }
}

/// What a path leads to.
enum Entry {
    File(Found),
    Directory,
    Other,
}

/// An open file and the beginning of it.
struct Found {
    file: Arc<File>,
    len: u64,
    modified: i64,
    start: Vec<u8>,
}

/// Opens without waiting for the other end of a pipe.
fn open(path: &[u8]) -> io::Result<Entry> {
    const NONBLOCK: i32 = 0o4000;
    let file = File::options().read(true).custom_flags(NONBLOCK).open(as_path(path))?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Ok(Entry::Directory);
    }
    if !metadata.is_file() {
        return Ok(Entry::Other);
    }
    // A small file is read whole in the same trip to the thread that may block.
    let mut start = Vec::new();
    (&file).take(PIECE.min(metadata.len())).read_to_end(&mut start)?;
    Ok(Entry::File(Found {
        file: Arc::new(file),
        len: metadata.len(),
        modified: metadata.mtime(),
        start,
    }))
}

fn failed(request: &Request, location: &Location, path: &[u8], error: &io::Error) -> Outcome {
    let (status, level) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            (404, LogLevel::Error)
        }
        _ if is_forbidden(error) => (403, LogLevel::Error),
        _ => (500, LogLevel::Crit),
    };
    if status != 404 || location.settings.log_not_found {
        let path = path.escape_ascii();
        request.log(level, format_args!("open() \"{path}\" failed ({})", errno_text(error)));
    }
    Outcome::Status(status)
}

fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied || error.raw_os_error() == Some(errno::ELOOP)
}

/// 301 to the same path with a slash.
fn to_directory(exchange: &mut Exchange) -> Outcome {
    let request = &mut exchange.request;
    let mut url = Vec::with_capacity(request.target.path.len() + 1);
    escape(&mut url, &request.target.path, Escape::Uri);
    url.push(b'/');
    let args = request.target.args.borrow().clone();
    if !args.is_empty() {
        url.push(b'?');
        url.extend_from_slice(&args);
    }
    request.response.redirect = Some(url.into());
    Outcome::Status(301)
}

async fn send(exchange: &mut Exchange, location: &Location, found: Found) -> Outcome {
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let request = &exchange.request;
    let mut reply = Reply::new(200);
    reply.length = Some(found.len);
    reply.last_modified = Some(found.modified);
    if location.settings.etag {
        // nginx's form, so that what caches have stays valid when one replaces the other.
        reply.push("ETag", format!("\"{:x}-{:x}\"", found.modified, found.len));
    }
    reply.content_type = content_type(request);
    reply.accept_ranges = true;
    reply.seeking = Seeking::Anywhere;
    match conditional::judge(request, &reply) {
        Verdict::Failed => return Outcome::Status(412),
        Verdict::NotModified => conditional::make_not_modified(&mut reply),
        Verdict::Send => {}
    }
    if let Err(refused) = exchange.response.head(&mut exchange.request, reply) {
        return content::unsatisfiable(&mut exchange.request, refused);
    }
    match send_body(exchange, found).await {
        Ok(()) => Outcome::Done,
        Err(()) => Outcome::Close,
    }
}

/// Sends what is wanted of a file.
async fn send_body(exchange: &mut Exchange, found: Found) -> Result<(), ()> {
    let parts = match (exchange.response.is_empty(), exchange.response.parts()) {
        (true, _) => Vec::new(),
        (false, Some(parts)) => parts.to_vec(),
        (false, None) => vec![(0, found.len)],
    };
    let start = Bytes::from(found.start);
    for part in parts {
        send_part(exchange, &found.file, &start, part).await?;
    }
    exchange.response.finish(&mut exchange.request, None).await.map_err(|_| ())
}

/// Sends the bytes of a file from `part.0` to `part.1`; its `start` was read before.
async fn send_part(
    exchange: &mut Exchange,
    file: &Arc<File>,
    start: &Bytes,
    part: (u64, u64),
) -> Result<(), ()> {
    let (mut at, end) = part;
    while at < end {
        let piece = match start.len() as u64 {
            have if at < have => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                start.slice(from..usize::try_from(have.min(end)).unwrap_or(start.len()))
            }
            _ => {
                let file = Arc::clone(file);
                let len = PIECE.min(end - at);
                blocking(move || read_at(&file, at, len)).await.map_err(|_| ())?
            }
        };
        if piece.is_empty() {
            // The file was cut while it was sent; the length is promised already.
            return Err(());
        }
        at += piece.len() as u64;
        exchange.response.body(&exchange.request, piece).await.map_err(|_| ())?;
    }
    Ok(())
}

fn read_at(mut file: &File, at: u64, len: u64) -> io::Result<Bytes> {
    file.seek(SeekFrom::Start(at))?;
    let mut piece = Vec::new();
    file.take(len).read_to_end(&mut piece)?;
    Ok(piece.into())
}

/// Answers with an index, a listing, or that there is none.
async fn directory(exchange: &mut Exchange, location: &Location) -> Outcome {
    if let Some(outcome) = listing::choose(&exchange.request, location).await {
        return outcome;
    }
    if let Some(outcome) = index::find(&exchange.request, location).await {
        return outcome;
    }
    if let Some(outcome) = listing::list(exchange, location).await {
        return outcome;
    }
    let request = &exchange.request;
    let shown = file(request, &request.target.path).unwrap_or_default();
    let shown = shown.escape_ascii();
    request.log(LogLevel::Error, format_args!("directory index of \"{shown}\" is forbidden"));
    Outcome::Status(403)
}

//! HTTP on the admin socket: one request on each connection, without a body, in bounded time.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::SockRef;
use wssgate_config::model::LogLevel;
use wssgate_http1::{
    Framing, Limits, RequestHead, RequestParser, Version, reason, write_end, write_field,
    write_status_line,
};
use wssgate_sys::socket;

use super::View;
use super::api::{self, Answer};
use super::current::KEEP;
use super::tap::{self, Started};

/// How long a request may take to come: as many as there are threads keep all others waiting so long.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// How long the other end may take nothing of the answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long nobody is accepted after the system had no means for it.
const REST: Duration = Duration::from_millis(100);

/// Answers requests until the socket is shut down.
pub(super) fn serve(listener: &UnixListener, ends: &AtomicBool, view: &View) {
    while !ends.load(Ordering::Acquire) {
        // What is kept for who asks again is let go if nobody does: then `accept` ends to look.
        let patience = view.walks.forget(Instant::now()).then_some(KEEP);
        let _ = SockRef::from(listener).set_read_timeout(patience);
        match listener.accept() {
            // Who went away while asking wants no answer.
            Ok((stream, _)) => drop(answer(stream, view)),
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            // Such as too many open files.
            Err(_) => thread::sleep(REST),
        }
    }
}

fn answer(mut stream: UnixStream, view: &View) -> io::Result<()> {
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    // This process does not end by itself until the answer is written.
    let place = view.answers.take();
    let answer = match read(&stream)? {
        Ok(head) => {
            let by = socket::credentials(stream.as_fd())?;
            match api::tap(&head, by, view) {
                Some(Ok((tap, who))) => {
                    drop(place);
                    return tell(tap, who, stream, view);
                }
                Some(Err(refusal)) => refusal,
                None => api::answer(&head, by, view),
            }
        }
        Err(status) => Answer::error(status, reason(status)),
    };
    let body = answer.body.to_string();
    let mut out = Vec::with_capacity(body.len() + 256);
    let phrase = reason(answer.status);
    // None of it can be refused: no text of others is among it.
    let head = write_status_line(&mut out, answer.status, phrase.as_bytes())
        .and_then(|()| write_field(&mut out, b"Content-Type", b"application/json"))
        .and_then(|()| write_field(&mut out, b"Cache-Control", b"no-store"))
        .and_then(|()| write_field(&mut out, b"Connection", b"close"));
    head.map_err(io::Error::other)?;
    let len = (body.len() + 1).to_string();
    write_field(&mut out, b"Content-Length", len.as_bytes()).map_err(io::Error::other)?;
    write_end(&mut out);
    out.extend_from_slice(body.as_bytes());
    out.push(b'\n');
    stream.write_all(&out)
}

/// Leaves a connection to a tap; the log is told of its end.
fn tell(tap: Started, who: String, stream: UnixStream, view: &View) -> io::Result<()> {
    let current = Arc::clone(&view.current);
    tap::run(tap, stream, move |end| {
        let generation = current.load();
        let line = format_args!("a tap has ended ({end}), by {who}");
        generation.logs.main().write(LogLevel::Notice, None, line);
    })
}

/// The head of a request, or the status of the refusal.
fn read(mut stream: &UnixStream) -> io::Result<Result<RequestHead, u16>> {
    let deadline = Instant::now() + REQUEST_TIME;
    let (mut parser, limits) = (RequestParser::new(), Limits::default());
    let (mut input, mut buffer) = (BytesMut::new(), [0; 2048]);
    loop {
        match parser.parse(&mut input, &limits) {
            Err(error) => return Ok(Err(error.status())),
            Ok(Some(head)) if head.version() == Version::Http09 => return Ok(Err(505)),
            Ok(Some(head)) => {
                let has_body = !matches!(head.framing(), Framing::None | Framing::Length(0));
                return Ok(if has_body { Err(413) } else { Ok(head) });
            }
            Ok(None) => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(408));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => input.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Err(408)),
            Err(error) => return Err(error),
        }
    }
}

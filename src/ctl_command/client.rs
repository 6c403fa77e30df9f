//! Requests over the admin socket: HTTP, one on each connection.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;
use thiserror::Error;
use wssgate_http1::ResponseParser;
use wssgate_proxy::errno_text;
use wssgate_sys::socket::credentials;

/// The most rows that a server puts into one answer.
pub(super) const MAX_ROWS: u64 = 1000;

/// How long the server may say nothing. A reload may look names up.
const PATIENCE: Duration = Duration::from_secs(130);

/// The longest answer, in bytes: many times what the rows of one take.
const MAX_ANSWER: u64 = 64 << 20;

/// The longest head of an answer, in bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;

/// The longest line of a tap, in bytes: a payload of 4 KiB may be written as six times as many.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// Why something was not done.
#[derive(Debug, Error)]
pub(crate) enum CtlError {
    #[error("{0}")]
    Usage(&'static str),
    #[error("the configuration {} cannot be read: give the socket by --socket", .0.display())]
    Configuration(PathBuf),
    #[error("{} says `admin off` or `pid off`, so the server has no admin socket", .0.display())]
    Off(PathBuf),
    #[error("connect() to unix:{} failed ({})", path.display(), super::help(source))]
    Connect { path: PathBuf, source: io::Error },
    #[error("unix:{}: {}", path.display(), errno_text(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("unix:{}: the answer is not one of wssgate", .0.display())]
    Unexpected(PathBuf),
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("standard output: {}", errno_text(.0))]
    Output(io::Error),
}

/// Asks one server.
pub(crate) struct Client {
    path: PathBuf,
    /// How long the server may say nothing.
    patience: Duration,
}

impl Client {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, patience: PATIENCE }
    }

    /// The same for answers that come sooner or are not worth the wait.
    pub(super) fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(crate) fn get(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Value, CtlError> {
        self.good("GET", path, query)
    }

    pub(crate) fn post(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Value, CtlError> {
        self.good("POST", path, query)
    }

    pub(super) fn delete(&self, path: &str) -> Result<Value, CtlError> {
        self.good("DELETE", path, &[])
    }

    /// As [`Self::post`] where an answer that tells of a failure is of use too.
    pub(super) fn post_for_status(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<(u16, Value), CtlError> {
        let (status, answer) = self.ask("POST", path, query)?;
        refused(status, &answer).map_or(Ok((status, answer)), Err)
    }

    /// What there is to say of an answer that makes no sense.
    pub(super) fn unexpected(&self) -> CtlError {
        CtlError::Unexpected(self.path.clone())
    }

    fn good(
        &self,
        method: &str,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Value, CtlError> {
        match self.ask(method, path, query)? {
            (200, answer) => Ok(answer),
            (status, answer) => Err(refused(status, &answer).unwrap_or_else(|| self.unexpected())),
        }
    }

    /// What there is to say of a connection that failed.
    pub(super) fn failed(&self, source: io::Error) -> CtlError {
        CtlError::Io { path: self.path.clone(), source }
    }

    /// Sends a request; the answer comes on the connection, when it likes.
    pub(super) fn open(
        &self,
        method: &str,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<UnixStream, CtlError> {
        let mut target = format!("/v1/{path}");
        for (at, (name, value)) in query.iter().enumerate() {
            let mark = if at == 0 { '?' } else { '&' };
            // Writing to a string does not fail.
            let _ = write!(target, "{mark}{name}={}", escaped(value));
        }
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: wssgate\r\nConnection: close\r\n\r\n");
        let connected = UnixStream::connect(&self.path);
        let stream =
            connected.map_err(|source| CtlError::Connect { path: self.path.clone(), source })?;
        let sent = stream.set_write_timeout(Some(self.patience));
        let sent = sent.and_then(|()| (&stream).write_all(request.as_bytes()));
        sent.map_err(|source| self.failed(source))?;
        Ok(stream)
    }

    /// The process that listens, as it is numbered here: 0 if it is in no PID namespace of ours.
    pub(crate) fn server(&self) -> Result<u64, CtlError> {
        let connected = UnixStream::connect(&self.path);
        let stream =
            connected.map_err(|source| CtlError::Connect { path: self.path.clone(), source })?;
        let server = credentials(stream.as_fd()).map_err(|source| self.failed(source))?;
        Ok(u64::try_from(server.pid).unwrap_or_default())
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<(u16, Value), CtlError> {
        let stream = self.open(method, path, query)?;
        let answer = receive(&stream, self.patience).map_err(|source| self.failed(source))?;
        let mut input = BytesMut::from(&answer[..]);
        match ResponseParser::new().parse(&mut input, MAX_HEAD) {
            Ok(Some(head)) => {
                let body = serde_json::from_slice(&input).map_err(|_| self.unexpected())?;
                Ok((head.status(), body))
            }
            Ok(None) | Err(_) => Err(self.unexpected()),
        }
    }
}

/// What a refusal says.
fn refused(status: u16, answer: &Value) -> Option<CtlError> {
    let message = answer["error"].as_str()?.to_owned();
    Some(CtlError::Refused { status, message })
}

fn receive(stream: &UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// A text as it may stand in a target (RFC 3986 §2.3).
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Writes to standard output; somebody who reads no more, such as `head`, wants no more.
pub(crate) fn print(text: &str) -> Result<(), CtlError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CtlError::Output(error)),
        _ => Ok(()),
    }
}

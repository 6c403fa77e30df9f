//! The request body: read piece by piece as it comes, or as a whole into memory or a file.

use std::fs::{self, File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;
use wssgate_config::model::{BodyInFile, LocationSettings, LogLevel};

use crate::exchange::refusal::Blame;

/// How much of a temporary file is read at once.
const FILE_PIECE: usize = 64 * 1024;

/// Why a request body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Longer than `client_max_body_size`.
    #[error("client intended to send too large body")]
    TooLarge,
    /// Nothing came for `client_body_timeout`.
    #[error("client timed out")]
    Timeout,
    /// The connection ended inside the body.
    #[error("client prematurely closed connection")]
    Closed,
    /// The framing is broken.
    #[error("client sent {0}")]
    Invalid(wssgate_http1::BodyError),
    /// The temporary file failed.
    #[error("temporary file for the request body failed ({})", crate::errno_text(.0))]
    File(io::Error),
    /// The directory `client_body_temp_path` does not take a file.
    #[error("open() in \"{}\" failed ({})", .0.display(), crate::errno_text(.1))]
    Directory(PathBuf, io::Error),
}

impl BodyError {
    /// The status that nginx answers with.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Timeout => 408,
            Self::Closed | Self::Invalid(_) => 400,
            Self::File(_) | Self::Directory(..) => 500,
        }
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::TooLarge | Self::Timeout | Self::Closed | Self::Invalid(_) => Blame::Client,
            Self::File(_) | Self::Directory(..) => Blame::Server,
        }
    }

    /// How loud nginx is about it.
    pub fn level(&self) -> LogLevel {
        match self {
            Self::Timeout | Self::Closed => LogLevel::Info,
            Self::TooLarge | Self::Invalid(_) => LogLevel::Error,
            Self::File(_) | Self::Directory(..) => LogLevel::Crit,
        }
    }
}

/// A body that was read as a whole.
#[derive(Debug)]
pub struct BufferedBody {
    /// The bytes, when they are in memory.
    pub memory: Bytes,
    /// The file that has them otherwise.
    pub file: Option<TempFile>,
    /// Length of the body.
    pub len: u64,
}

/// A file that is removed when nobody needs it any more.
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    file: Arc<File>,
    keep: bool,
}

impl TempFile {
    /// Makes a new file below `directory`, which is made if need be.
    fn create(directory: &Path, keep: bool) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        fs::create_dir_all(directory)?;
        // Names of an earlier process may still be there.
        loop {
            let path = directory.join(format!("{:010}", NEXT.fetch_add(1, Ordering::Relaxed)));
            // What clients send is for nobody else on this machine.
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            match options.open(&path) {
                Ok(file) => return Ok(Self { path, file: Arc::new(file), keep }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn append(&self, bytes: Bytes) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        blocking(move || (&*file).write_all(&bytes)).await
    }

    async fn read_at(&self, offset: u64) -> io::Result<Bytes> {
        let file = Arc::clone(&self.file);
        blocking(move || {
            // The position is shared with `append`, which has done its work before anybody reads.
            (&*file).seek(SeekFrom::Start(offset))?;
            let mut piece = vec![0; FILE_PIECE];
            let read = (&*file).read(&mut piece)?;
            piece.truncate(read);
            Ok(piece.into())
        })
        .await
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing depends on it: the file only takes room.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How much of a body may stay in memory: the buffer, and a quarter more when that is known to hold
/// all of it, as in nginx.
fn memory_for(length: Length, buffer: usize) -> usize {
    let more = buffer + buffer / 4;
    match length {
        Length::Known(len) if len < more as u64 => more,
        _ => buffer,
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// How long a body is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    None,
    /// This many bytes.
    Known(u64),
    /// Its end will be marked.
    Unknown,
}

/// Where the bytes of a body come from: an HTTP/1 connection, or nowhere.
pub trait BodySource {
    /// How long the body is said to be.
    fn length(&self) -> Length;

    /// Whether the whole body was taken.
    fn is_done(&self) -> bool;

    /// Takes what has arrived, never empty; `None` when nothing has or nothing follows.
    ///
    /// # Errors
    /// When its framing is broken.
    fn arrived(&mut self) -> Result<Option<Bytes>, BodyError>;

    /// Ready when more has arrived.
    ///
    /// # Errors
    /// When the connection has ended inside the body.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>>;

    /// Tells a client that waits for it to go on (100 Continue, RFC 9110 §10.1.1), once.
    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>>;

    /// The client is not to be told to go on: it gets the final answer instead.
    fn forget_continue(&mut self);

    /// Nobody wants what follows, so that it does not count for `$request_length`, as in nginx.
    fn discard(&mut self);
}

/// The source of a body of which nothing is to arrive: there is none, or all of it is here already.
#[derive(Clone, Copy, Debug)]
pub struct Complete(pub Length);

impl BodySource for Complete {
    fn length(&self) -> Length {
        self.0
    }

    fn is_done(&self) -> bool {
        true
    }

    fn arrived(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(None)
    }

    fn poll_arrival(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(Err(BodyError::Closed))
    }

    fn poll_continue(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(Ok(()))
    }

    fn forget_continue(&mut self) {}

    fn discard(&mut self) {}
}

/// The body of one request.
pub struct RequestBody {
    source: Box<dyn BodySource>,
    max_len: u64,
    timeout: Duration,
    received: u64,
    buffered: Option<Rc<BufferedBody>>,
    /// How much of the buffered body was given out.
    position: u64,
    /// Whether somebody has begun to read it.
    begun: bool,
    /// Whether the connection ended inside it.
    broken: bool,
}

impl RequestBody {
    /// The body that `source` brings.
    pub(crate) fn new(source: impl BodySource + 'static) -> Self {
        Self {
            source: Box::new(source),
            max_len: 0,
            timeout: Duration::from_secs(60),
            received: 0,
            buffered: None,
            position: 0,
            begun: false,
            broken: false,
        }
    }

    /// A body that was read as a whole, for another request.
    pub(crate) fn copy_of(body: Rc<BufferedBody>) -> Self {
        let mut copy = Self::new(Complete(Length::Known(body.len)));
        copy.received = body.len;
        copy.begun = true;
        copy.buffered = Some(body);
        copy
    }

    /// Takes the bounds of the location that applies now.
    pub(crate) fn bound(&mut self, settings: &LocationSettings) {
        self.max_len = settings.client_max_body_size;
        self.timeout = settings.client_body_timeout;
    }

    /// The client is not to be told to go on: it gets the final answer instead.
    pub(crate) fn forget_continue(&mut self) {
        self.source.forget_continue();
    }

    /// How long the client says that the body is.
    pub fn length(&self) -> Length {
        self.source.length()
    }

    /// Length of the body, once it is known.
    pub fn len(&self) -> Option<u64> {
        match (&self.buffered, self.length()) {
            (Some(buffered), _) => Some(buffered.len),
            (None, Length::None) => Some(0),
            (None, Length::Known(len)) => Some(len),
            (None, Length::Unknown) => None,
        }
    }

    /// Whether it is known that there is no body.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Starts over with a buffered body.
    pub fn rewind(&mut self) {
        self.position = 0;
    }

    /// Whether the whole body was read from the connection.
    pub(crate) fn is_read(&self) -> bool {
        self.source.is_done()
    }

    /// Whether somebody has begun to read the body.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun
    }

    /// Whether the connection ended inside the body.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Nobody wants the body; as nginx does, a client that asks is told to send it all the same.
    /// What has arrived already is looked at, so that broken framing is still answered with 400.
    pub(crate) async fn will_discard(&mut self) -> Result<(), BodyError> {
        // A client that is gone is noticed by the answer.
        let _ = self.send_continue().await;
        self.source.discard();
        while self.source.arrived()?.is_some() {}
        Ok(())
    }

    /// Reads some of the body and drops it; `false` at the end.
    pub(crate) async fn skip(&mut self) -> Result<bool, BodyError> {
        // Nothing of it is kept, so only time bounds it.
        self.max_len = 0;
        self.source.forget_continue();
        self.source.discard();
        Ok(self.next_piece().await?.is_some())
    }

    /// The next piece, never empty; `None` at the end.
    ///
    /// The first call sends `100 Continue` if the client waits for it. Safe to drop at any await.
    ///
    /// # Errors
    /// When the body breaks off, is too long or too slow; `status` of the error is the answer.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.begun = true;
        match self.buffered.clone() {
            Some(buffered) => self.buffered_chunk(&buffered).await,
            None => self.next_piece().await,
        }
    }

    async fn buffered_chunk(&mut self, body: &BufferedBody) -> Result<Option<Bytes>, BodyError> {
        if self.position >= body.len {
            return Ok(None);
        }
        let piece = match &body.file {
            Some(file) => file.read_at(self.position).await.map_err(BodyError::File)?,
            None => body.memory.slice(usize::try_from(self.position).unwrap_or(usize::MAX)..),
        };
        // Somebody has cut the file short. An empty piece would be taken for the end of the body.
        if piece.is_empty() {
            return Err(BodyError::File(io::ErrorKind::UnexpectedEof.into()));
        }
        self.position += piece.len() as u64;
        Ok(Some(piece))
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.send_continue().await?;
        loop {
            if let Some(piece) = self.source.arrived()? {
                return self.on_data(piece).map(Some);
            }
            if self.source.is_done() {
                return Ok(None);
            }
            // For each arrival anew, as in nginx: a long body may take long, but not be silent for
            // long.
            let arrival = poll_fn(|cx| self.source.poll_arrival(cx));
            let arrival = timeout(self.timeout, arrival).await.unwrap_or(Err(BodyError::Timeout));
            self.broken |= matches!(arrival, Err(BodyError::Closed));
            arrival?;
        }
    }

    /// Whether it is known that nothing follows what was given out.
    pub fn at_end(&self) -> bool {
        match &self.buffered {
            Some(body) => self.position >= body.len,
            None => self.source.is_done(),
        }
    }

    fn on_data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.received += data.len() as u64;
        match self.max_len {
            0 => Ok(data),
            max if self.received <= max => Ok(data),
            _ => Err(BodyError::TooLarge),
        }
    }

    async fn send_continue(&mut self) -> Result<(), BodyError> {
        let sent = timeout(self.timeout, poll_fn(|cx| self.source.poll_continue(cx))).await;
        sent.unwrap_or(Err(BodyError::Closed))
    }

    /// Reads the body as a whole: into memory up to `client_body_buffer_size`, else into a file.
    ///
    /// Afterwards [`RequestBody::chunk`] gives it out again, as often as it is rewound.
    ///
    /// # Errors
    /// As [`RequestBody::chunk`].
    pub async fn buffer(
        &mut self,
        settings: &LocationSettings,
    ) -> Result<Rc<BufferedBody>, BodyError> {
        if let Some(buffered) = &self.buffered {
            return Ok(Rc::clone(buffered));
        }
        self.begun = true;
        let in_file = settings.client_body_in_file_only;
        let room = memory_for(self.length(), settings.client_body_buffer_size);
        let mut memory = BytesMut::new();
        let mut file = None;
        if in_file != BodyInFile::Off && self.length() != Length::None {
            file = Some(self.temp_file(settings)?);
        }
        while let Some(piece) = self.next_piece().await? {
            // Only now: most bodies never need a file.
            if file.is_none() && memory.len() + piece.len() > room {
                let made = self.temp_file(settings)?;
                made.append(memory.split().freeze()).await.map_err(BodyError::File)?;
                file = Some(made);
            }
            match &file {
                Some(file) => file.append(piece).await.map_err(BodyError::File)?,
                None => memory.extend_from_slice(&piece),
            }
        }
        let body = Rc::new(BufferedBody { memory: memory.freeze(), file, len: self.received });
        self.buffered = Some(Rc::clone(&body));
        Ok(body)
    }

    fn temp_file(&self, settings: &LocationSettings) -> Result<TempFile, BodyError> {
        let keep = settings.client_body_in_file_only == BodyInFile::On;
        let directory = &settings.client_body_temp_path;
        TempFile::create(directory, keep)
            .map_err(|error| BodyError::Directory(directory.clone(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_takes_no_file_is_named() {
        let directory = PathBuf::from("/dev/null/body");
        let error = TempFile::create(&directory, false).expect_err("below a device");
        assert_eq!(
            BodyError::Directory(directory, error).to_string(),
            "open() in \"/dev/null/body\" failed (20: Not a directory)"
        );
    }

    #[test]
    fn a_body_that_just_exceeds_the_buffer_stays_in_memory() {
        for (length, expected) in [
            (Length::Known(100), 125),
            (Length::Known(124), 125),
            (Length::Known(125), 100),
            (Length::Unknown, 100),
        ] {
            assert_eq!(memory_for(length, 100), expected, "{length:?}");
        }
    }
}

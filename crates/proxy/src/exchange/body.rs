//! The request body: read piece by piece as it comes, or as a whole into memory or a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;
use wssgate_config::model::{BodyInFile, LocationSettings, LogLevel};
use wssgate_http1::{BodyDecoder, Decoded, Framing};

use crate::exchange::client::Client;
use crate::exchange::request::Request;

/// How much of a temporary file is read at once.
const FILE_PIECE: usize = 64 * 1024;
const CONTINUE: Bytes = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");

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
    #[error("temporary file of the request body failed ({})", crate::errno_text(.0))]
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
fn memory_for(framing: Framing, buffer: usize) -> usize {
    let more = buffer + buffer / 4;
    match framing {
        Framing::Length(len) if len < more as u64 => more,
        _ => buffer,
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The body of one request.
pub struct RequestBody {
    client: Rc<Client>,
    framing: Framing,
    decoder: BodyDecoder,
    /// Whether the client waits for 100 Continue.
    expects_continue: bool,
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
    /// Whether nobody wants it, so that it does not count for `$request_length`, as in nginx.
    discarded: bool,
}

impl RequestBody {
    /// The body that follows a head on `client`.
    pub(crate) fn new(client: Rc<Client>, framing: Framing, expects_continue: bool) -> Self {
        Self {
            client,
            framing,
            decoder: framing.into(),
            expects_continue,
            max_len: 0,
            timeout: Duration::from_secs(60),
            received: 0,
            buffered: None,
            position: 0,
            begun: false,
            broken: false,
            discarded: false,
        }
    }

    /// Takes the bounds of the location that applies now.
    pub(crate) fn bound(&mut self, settings: &LocationSettings) {
        self.max_len = settings.client_max_body_size;
        self.timeout = settings.client_body_timeout;
    }

    /// The client is not to be told to go on: it gets the final answer instead.
    pub(crate) fn forget_continue(&mut self) {
        self.expects_continue = false;
    }

    /// How the client frames the body.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Length of the body, once it is known.
    pub fn len(&self) -> Option<u64> {
        match (&self.buffered, self.framing) {
            (Some(buffered), _) => Some(buffered.len),
            (None, Framing::None) => Some(0),
            (None, Framing::Length(len)) => Some(len),
            (None, _) => None,
        }
    }

    /// Whether it is known that there is no body.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Body bytes read from the client so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the body can be sent from its start: nothing was given out yet, or it is buffered.
    pub fn can_rewind(&self) -> bool {
        self.buffered.is_some() || self.received == 0
    }

    /// Starts over with a buffered body.
    pub fn rewind(&mut self) {
        self.position = 0;
    }

    /// Whether the whole body was read from the connection.
    pub(crate) fn is_read(&self) -> bool {
        self.decoder.is_done()
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
        self.discarded = true;
        while let Decoded::Data(_) = self.decode()? {}
        Ok(())
    }

    /// Reads some of the body and drops it; `false` at the end.
    pub(crate) async fn skip(&mut self) -> Result<bool, BodyError> {
        self.max_len = 0;
        self.expects_continue = false;
        self.discarded = true;
        Ok(self.wire_chunk().await?.is_some())
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
            None => self.wire_chunk().await,
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
        if piece.is_empty() {
            return Err(BodyError::File(io::ErrorKind::UnexpectedEof.into()));
        }
        self.position += piece.len() as u64;
        Ok(Some(piece))
    }

    async fn wire_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.send_continue().await?;
        loop {
            match self.decode()? {
                Decoded::Data(data) => {
                    let data = self.with_following(data)?;
                    return self.on_data(data).map(Some);
                }
                Decoded::End { .. } => return Ok(None),
                Decoded::NeedMore => self.fill().await?,
            }
        }
    }

    /// Joins chunks that arrived together: what was one packet stays one.
    fn with_following(&mut self, first: Bytes) -> Result<Bytes, BodyError> {
        if self.framing != Framing::Chunked {
            return Ok(first);
        }
        let mut joined = BytesMut::new();
        while let Decoded::Data(data) = self.decode()? {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&data);
        }
        Ok(if joined.is_empty() { first } else { joined.freeze() })
    }

    /// Whether it is known that nothing follows what was given out.
    pub fn at_end(&self) -> bool {
        match &self.buffered {
            Some(body) => self.position >= body.len,
            None => self.decoder.is_done(),
        }
    }

    /// Takes the next piece from what was read.
    fn decode(&mut self) -> Result<Decoded, BodyError> {
        let decoder = &mut self.decoder;
        let (decoded, consumed) = self.client.with_input(|input| {
            let before = input.len();
            (decoder.decode(input), before - input.len())
        });
        if !self.discarded {
            let wire = &self.client.info.body_received;
            wire.set(wire.get() + consumed as u64);
        }
        decoded.map_err(BodyError::Invalid)
    }

    fn on_data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.received += data.len() as u64;
        match self.max_len {
            0 => Ok(data),
            max if self.received <= max => Ok(data),
            _ => Err(BodyError::TooLarge),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        match timeout(self.timeout, self.client.fill()).await {
            Err(_) => Err(BodyError::Timeout),
            Ok(Ok(0) | Err(_)) => {
                self.broken = true;
                Err(BodyError::Closed)
            }
            Ok(Ok(_)) => Ok(()),
        }
    }

    async fn send_continue(&mut self) -> Result<(), BodyError> {
        if !self.expects_continue {
            return Ok(());
        }
        self.expects_continue = false;
        let sent = self.client.write(CONTINUE, Bytes::new(), self.timeout).await;
        sent.map_err(|_| BodyError::Closed)
    }

    /// Reads the body as a whole: into memory up to `client_body_buffer_size`, else into a file.
    ///
    /// Afterwards [`RequestBody::chunk`] gives it out again, as often as it is rewound, and
    /// `$request_body` and `$request_body_file` have values.
    ///
    /// # Errors
    /// As [`RequestBody::chunk`].
    pub async fn buffer(&mut self, request: &mut Request) -> Result<(), BodyError> {
        if self.buffered.is_some() {
            return Ok(());
        }
        self.begun = true;
        let generation = Arc::clone(&request.generation);
        let settings = &generation.http().locations[request.place.location.0].settings;
        let in_file = settings.client_body_in_file_only;
        let room = memory_for(self.framing, settings.client_body_buffer_size);
        let mut memory = BytesMut::new();
        let mut file = None;
        if in_file != BodyInFile::Off && self.framing != Framing::None {
            file = Some(self.temp_file(settings)?);
        }
        while let Some(piece) = self.wire_chunk().await? {
            if file.is_none() && memory.len() + piece.len() > room {
                request
                    .log(LogLevel::Warn, "a client request body is buffered to a temporary file");
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
        request.body = Some(Rc::clone(&body));
        self.buffered = Some(body);
        Ok(())
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
        for (framing, expected) in [
            (Framing::Length(100), 125),
            (Framing::Length(124), 125),
            (Framing::Length(125), 100),
            (Framing::Chunked, 100),
        ] {
            assert_eq!(memory_for(framing, 100), expected, "{framing:?}");
        }
    }
}

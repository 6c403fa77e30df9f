//! One try at one peer: connect, send the request, read the head of the answer.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::sleep_until;
use wssgate_config::model::{LogLevel, ProxySettings};
use wssgate_http1::{ResponseError, ResponseHead, ResponseParser, encode_chunk};

use super::plan::Plan;
use super::response;
use crate::exchange::body::{BodyError, RequestBody};
use crate::exchange::request::Request;
use crate::exchange::response::Responder;
use crate::peers::{Connection, Failure, READ_SIZE, Resource};

/// Interim answers (1xx) that an upstream may send before the real one.
pub(super) const MAX_INTERIM: usize = 16;

/// What went wrong, as `proxy_next_upstream` sorts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection, or it broke.
    Error,
    /// Too slow.
    Timeout,
    /// No valid answer.
    InvalidHeader,
    /// An answer with this status.
    Status(u16),
    /// We lack something to make a connection with.
    Shortage(Resource),
}

/// Why a try has failed.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What sort of failure.
    pub(crate) cause: Cause,
    /// What to log: message and what was being done.
    pub(crate) message: String,
}

impl Trouble {
    /// A failure of the connection while doing `action`.
    pub(crate) fn new(failure: &Failure, action: &str) -> Self {
        let cause = match failure {
            Failure::Timeout => Cause::Timeout,
            Failure::Shortage(_, _, resource) => Cause::Shortage(*resource),
            Failure::Io(..) | Failure::Closed => Cause::Error,
        };
        Self { cause, message: format!("{failure} while {action}") }
    }

    fn invalid(error: ResponseError, line: &[u8]) -> Self {
        let message = match error {
            ResponseError::InvalidHeader => {
                format!("{error}: \"{}\" while {READING}", line.escape_ascii())
            }
            _ => format!("{error} while {READING}"),
        };
        Self { cause: Cause::InvalidHeader, message }
    }
}

pub(super) const SENDING: &str = "sending request to upstream";
pub(super) const READING: &str = "reading response header from upstream";

/// Why a try ends without an answer.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The peer failed.
    Upstream(Trouble),
    /// Something of ours is wrong; what to log.
    Own(String),
    /// The client has gone.
    ClientGone,
    /// The client's body could not be read.
    Body(BodyError),
}

/// How far sending has come.
#[derive(Debug)]
pub(crate) enum Sending {
    /// Still at it.
    Going,
    /// All was sent.
    Done,
    /// The peer takes no more; it may have answered all the same.
    Broken(Failure),
}

/// The request on its way, in a future that can be polled beside the answer.
pub(crate) struct Sender<'a> {
    future: Pin<Box<dyn Future<Output = Result<(), SendError>> + 'a>>,
    /// How far it has come.
    pub(crate) state: Sending,
}

enum SendError {
    Upstream(Failure),
    Client(BodyError),
}

impl<'a> Sender<'a> {
    /// Begins to send `plan` and the body on `connection`; `kept` remembers the body.
    pub(crate) fn new(
        connection: &'a Connection,
        plan: &'a Plan,
        body: &'a mut RequestBody,
        timeout: Duration,
        kept: &'a RefCell<Kept>,
    ) -> Self {
        let future = Box::pin(send(connection, plan, body, timeout, kept));
        Self { future, state: Sending::Going }
    }

    /// Goes on sending; resolves once, when all is sent or the peer takes no more.
    ///
    /// # Errors
    /// When the client's body cannot be read.
    pub(crate) async fn run(&mut self) -> Result<(), BodyError> {
        match self.state {
            Sending::Going => {}
            // Nothing more will happen here: whoever waits for it waits for something else too.
            _ => return std::future::pending().await,
        }
        self.state = match self.future.as_mut().await {
            Ok(()) => Sending::Done,
            Err(SendError::Upstream(failure)) => Sending::Broken(failure),
            Err(SendError::Client(error)) => {
                self.state = Sending::Broken(Failure::Closed);
                return Err(error);
            }
        };
        Ok(())
    }

    /// Sends all that is left.
    ///
    /// # Errors
    /// When the peer takes no more, or the client's body cannot be read.
    pub(crate) async fn finish(&mut self) -> Result<(), Ended> {
        if matches!(self.state, Sending::Going) {
            self.run().await.map_err(Ended::Body)?;
        }
        match &self.state {
            Sending::Broken(failure) => Err(Ended::Upstream(Trouble::new(failure, SENDING))),
            Sending::Going | Sending::Done => Ok(()),
        }
    }

    /// Whether the whole request was sent.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, Sending::Done)
    }
}

async fn send(
    connection: &Connection,
    plan: &Plan,
    body: &mut RequestBody,
    timeout: Duration,
    kept: &RefCell<Kept>,
) -> Result<(), SendError> {
    let write =
        async |bytes: Bytes| connection.write(bytes, timeout).await.map_err(SendError::Upstream);
    if !plan.with_body {
        return write(plan.head.clone()).await;
    }
    // What is there already goes along with the head, as one packet.
    let mut piece = match plan.unbuffered {
        true => now(body.chunk()).await,
        false => Some(body.chunk().await),
    };
    if piece.is_none() {
        write(plan.head.clone()).await?;
    }
    let mut head = piece.is_some().then(|| plan.head.clone());
    loop {
        let read = match piece.take() {
            Some(read) => read,
            None => body.chunk().await,
        };
        let read = read.map_err(SendError::Client)?;
        // Looked for now, so that the last chunk goes along with the end and not in a packet of its
        // own.
        let last = read.is_none() || body.at_end();
        kept.borrow_mut().add(read.as_deref());
        if last && read.is_some() {
            kept.borrow_mut().add(None);
        }
        let framed = framed(read, last, plan.chunked);
        match head.take() {
            Some(head) if framed.len() <= READ_SIZE => {
                write([head, framed].concat().into()).await?
            }
            Some(head) => {
                write(head).await?;
                write(framed).await?;
            }
            None => write(framed).await?,
        }
        if last {
            return Ok(());
        }
    }
}

/// What a future has to give without waiting; it must be safe to drop.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A piece of the body, or its end, as it is sent.
fn framed(piece: Option<Bytes>, last: bool, chunked: bool) -> Bytes {
    // Without the client's trailers: whoever takes the chunks off may discard them (RFC 9112
    // §7.1.2).
    const END: &[u8] = b"0\r\n\r\n";
    match (piece, chunked) {
        (Some(piece), true) if last => [&chunk(&piece), END].concat().into(),
        (Some(piece), true) => chunk(&piece),
        (Some(piece), false) => piece,
        (None, true) => Bytes::from_static(END),
        (None, false) => Bytes::new(),
    }
}

/// An unbuffered body that is small enough to be remembered, for `$request_body`.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: BytesMut,
    /// Bytes that may still come; `None` when nothing is remembered.
    left: Option<usize>,
    whole: bool,
}

impl Kept {
    /// Remembers up to `limit` bytes.
    pub(crate) fn up_to(limit: Option<usize>) -> Self {
        Self { left: limit, ..Self::default() }
    }

    fn add(&mut self, piece: Option<&[u8]>) {
        let Some(left) = self.left else { return };
        match piece {
            None => self.whole = true,
            Some(piece) => {
                self.left = left.checked_sub(piece.len());
                match self.left {
                    Some(_) => self.bytes.extend_from_slice(piece),
                    None => self.bytes = BytesMut::new(),
                }
            }
        }
    }

    /// The body, if all of it was seen and remembered.
    pub(crate) fn whole(&mut self) -> Option<Bytes> {
        let whole = self.whole && self.left.is_some();
        whole.then(|| std::mem::take(&mut self.bytes).freeze())
    }
}

fn chunk(piece: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(piece.len() + 20);
    encode_chunk(&mut out, piece);
    out.freeze()
}

/// Sends and reads until the head of the answer is there.
///
/// The answer may come before the request was sent whole; sending goes on then with
/// [`Sender::run`].
pub(crate) async fn head(
    connection: &Connection,
    sender: &mut Sender<'_>,
    settings: &ProxySettings,
    response: &Responder,
    request: &Request,
) -> Result<ResponseHead, Ended> {
    let hints = Hints { request, response, settings, room: settings.buffer_size };
    let mut reading = Box::pin(read_head(connection, settings.buffer_size, hints));
    let mut deadline: Option<Instant> = None;
    loop {
        let sent = !matches!(sender.state, Sending::Going);
        tokio::select! {
            // An answer that is there wins over a failure to send: a peer that refuses a body early
            // may close the connection at once.
            biased;
            head = &mut reading => return head.map_err(|trouble| blame(sender, trouble)),
            result = sender.run(), if !sent => {
                result.map_err(Ended::Body)?;
                // Only from here on, as in nginx: until all is sent the peer need not answer, and
                // `proxy_send_timeout` has an eye on it.
                deadline = Some(Instant::now() + settings.read_timeout);
            }
            // Until then whoever reads the body would notice.
            () = response.closed(), if sent && !settings.ignore_client_abort => return Err(Ended::ClientGone),
            () = at(deadline) => {
                let trouble = Trouble::new(&Failure::Timeout, READING);
                return Err(blame(sender, trouble));
            }
        }
        // After any other failure the answer may be on its way; a peer that takes nothing has none.
        if let Sending::Broken(Failure::Timeout) = sender.state {
            return Err(Ended::Upstream(Trouble::new(&Failure::Timeout, SENDING)));
        }
    }
}

/// If sending had failed and no answer explains it, that failure is the reason.
fn blame(sender: &Sender<'_>, trouble: Trouble) -> Ended {
    Ended::Upstream(match &sender.state {
        Sending::Broken(failure) => Trouble::new(failure, SENDING),
        Sending::Going | Sending::Done => trouble,
    })
}

/// Resolves at a time, or never.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// `early_hints`: interim answers of status 103 that go on to the client.
struct Hints<'a> {
    request: &'a Request,
    response: &'a Responder,
    settings: &'a ProxySettings,
    /// Bytes that they may still have, all together.
    room: usize,
}

impl Hints<'_> {
    async fn pass(&mut self, head: &ResponseHead) {
        let Some(room) = self.room.checked_sub(head.raw_len()) else {
            self.request.log(LogLevel::Info, "upstream sent too big early hints");
            return;
        };
        self.room = room;
        let fields = response::hints(self.settings, head);
        // That a client has gone is noticed by those who wait for it.
        let _ = self.response.early_hints(self.request, &fields).await;
    }
}

/// Reads a head. Of interim answers only hints go on.
async fn read_head(
    connection: &Connection,
    max: usize,
    mut hints: Hints<'_>,
) -> Result<ResponseHead, Trouble> {
    let mut parser = ResponseParser::new();
    let mut interim = 0;
    loop {
        match connection.with_input(|input| parser.parse(input, max)) {
            Ok(Some(head)) if head.is_interim() && interim < MAX_INTERIM => {
                interim += 1;
                if head.status() == 103 {
                    hints.pass(&head).await;
                }
            }
            Ok(Some(head)) if head.is_interim() => {
                let message = format!("upstream sent too many interim responses while {READING}");
                return Err(Trouble { cause: Cause::InvalidHeader, message });
            }
            Ok(Some(head)) => return Ok(head),
            Ok(None) => {
                let filled = connection.fill(max).await;
                if filled.map_err(|failure| Trouble::new(&failure, READING))? == 0 {
                    return Err(Trouble::new(&Failure::Closed, READING));
                }
            }
            Err(error) => {
                return Err(
                    connection.with_input(|input| Trouble::invalid(error, parser.bad_line(input)))
                );
            }
        }
    }
}

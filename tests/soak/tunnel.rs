//! Tunnels that live as long as the test wants: what each end sends, and what it expects.
//!
//! All that is sent follows from the number of the tunnel, so that a frame that is missing, doubled, changed or
//! in another place is noticed when the next one comes. Both ends count what they send.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};
use wssgate_testkit::{Frame, close, text};
use wssgate_ws::{FrameHeader, Opcode, Side, frame::must_mask};

use crate::{
    life::{Content, Lens, Random},
    wire::{Reader, Writer},
};

/// Frames of a side that ends its direction soon, at least.
const FIRST: u64 = 10;

/// The longest pause where the other side has ended its direction: three seconds of silence would end the tunnel.
const HALF_PAUSE_MS: u64 = 500;

/// What happens in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The server sends every frame back, pings as pongs.
    Echo,
    /// The same with messages of a mebibyte.
    Large,
    /// The same as the first, but both ends stop for a while within a TLS record or a frame.
    Torn,
    /// The client has ended its direction, and the server goes on sending.
    HalfClient,
    /// The other way around.
    HalfServer,
    /// The server sends all the time, and the client reads only when it is told to finish.
    UnreadClient,
    /// The other way around.
    UnreadServer,
    /// Neither sends anything but pongs to the proxy's pings.
    Quiet,
}

/// Of hundred tunnels so many are of these kinds; all others echo.
const SHARES: [(Kind, u64); 7] = [
    (Kind::UnreadClient, 1),
    (Kind::UnreadServer, 1),
    (Kind::HalfClient, 5),
    (Kind::HalfServer, 5),
    (Kind::Large, 2),
    (Kind::Torn, 15),
    (Kind::Quiet, 5),
];

/// How the client reaches the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain,
    Tls12,
    Tls13,
}

/// A tunnel, known to both of its ends.
pub(crate) struct Tunnel {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) wire: Wire,
    /// Who sends the first Close, or ends its direction first.
    pub(crate) ends_first: Side,
    /// Its place among the tunnels of a test.
    place: u64,
    is_to_finish: watch::Sender<bool>,
    /// Frames that came as they should at the end that hears the other until the end.
    pub(crate) progress: AtomicU64,
    /// When the client asked for it, and when it had the 101.
    pub(crate) began: Mutex<Option<(Instant, Instant)>>,
    ends: [Mutex<Option<End>>; 2],
}

/// What became of one end.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) sent: Tally,
    pub(crate) at: Instant,
    pub(crate) how: Result<(), Stop>,
}

/// Why an end did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The connection ended or was reset before, and nothing that had come was wrong.
    Cut,
    /// What came or happened should not have.
    Fault(String),
}

/// What one end has sent, counted like the variables of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) bytes: u64,
    pub(crate) frames: u64,
    pub(crate) messages: u64,
    pub(crate) payload: u64,
    pub(crate) largest: u64,
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    /// Of the message that has not ended.
    pub(crate) unfinished: u64,
}

impl Tally {
    fn add(&mut self, frame: &Frame, from: Side) {
        let payload_len = frame.payload.len() as u64;
        let header = FrameHeader {
            fin: frame.fin,
            rsv: frame.rsv,
            opcode: frame.opcode,
            mask: must_mask(from).then_some([0; 4]),
            payload_len,
        };
        self.bytes += header.encode().len() as u64 + payload_len;
        self.frames += 1;
        match frame.opcode {
            Opcode::Ping => self.pings += 1,
            Opcode::Pong => self.pongs += 1,
            Opcode::Close => {}
            _ => {
                self.unfinished += payload_len;
                if frame.fin {
                    self.messages += 1;
                    self.payload += self.unfinished;
                    self.largest = self.largest.max(self.unfinished);
                    self.unfinished = 0;
                }
            }
        }
    }
}

impl Tunnel {
    /// One half has TLS 1.3, a quarter 1.2, a quarter none; kinds and upstreams are spread over all of them.
    pub(crate) fn new(id: u64, place: u64) -> Self {
        let wire = match place % 4 {
            0 => Wire::Plain,
            1 => Wire::Tls12,
            _ => Wire::Tls13,
        };
        let kind = kind(place);
        let mut random = Random::new(id);
        let ends_first = match kind {
            Kind::HalfClient | Kind::UnreadServer => Side::Client,
            Kind::HalfServer | Kind::UnreadClient => Side::Server,
            _ if random.range((0, 1)) == 0 => Side::Client,
            _ => Side::Server,
        };
        Self {
            id,
            kind,
            wire,
            ends_first,
            place,
            is_to_finish: watch::Sender::new(false),
            progress: AtomicU64::new(0),
            began: Mutex::default(),
            ends: Default::default(),
        }
    }

    /// Where the client asks for it.
    pub(crate) fn path(&self) -> String {
        let (round, tls) = (self.place / 4, if self.has_tls_upstream() { "tls" } else { "plain" });
        let place = match self.kind {
            Kind::Quiet => "pinged-",
            _ if round % 2 == 0 => "checked-",
            _ => "",
        };
        format!("/{place}{tls}/{:x}", self.id)
    }

    fn has_tls_upstream(&self) -> bool {
        (self.place / 8).is_multiple_of(2)
    }

    /// Who sends the first Close, if there is one.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let is_half = matches!(self.kind, Kind::HalfClient | Kind::HalfServer);
        (!is_half).then(|| 3000 + (self.id % 2000) as u16)
    }

    /// Has it come to its end.
    pub(crate) fn finish(&self) {
        self.is_to_finish.send_replace(true);
    }

    pub(crate) fn is_finishing(&self) -> bool {
        *self.is_to_finish.borrow()
    }

    /// What became of an end, if it is through.
    pub(crate) fn end(&self, side: Side) -> Option<End> {
        self.ends[side as usize].lock().unwrap().clone()
    }

    /// Whether both ends are through.
    pub(crate) fn has_ended(&self) -> bool {
        [Side::Client, Side::Server].into_iter().all(|side| self.end(side).is_some())
    }

    pub(crate) fn is_cut(&self) -> bool {
        let is_cut = |side| self.end(side).is_some_and(|end| end.how == Err(Stop::Cut));
        [Side::Client, Side::Server].into_iter().any(is_cut)
    }

    /// What the access line should say of what this end has sent.
    pub(crate) fn logged(&self, side: Side) -> Option<Tally> {
        let mut sent = self.end(side)?.sent;
        if self.kind == Kind::Quiet {
            // Answers to pings of the proxy are bytes of the tunnel, and no frames of the conversation.
            sent.frames -= sent.pongs;
            sent.pongs = 0;
        }
        Some(sent)
    }

    pub(crate) fn note(&self, side: Side, sent: Tally, how: Result<(), Stop>) {
        *self.ends[side as usize].lock().unwrap() = Some(End { sent, at: Instant::now(), how });
        // It cannot go on either.
        self.finish();
    }

    /// What this end sends, but for the last message and the Close.
    pub(crate) fn content(&self, from: Side) -> Content {
        let lens = if self.kind == Kind::Large { Lens::Large } else { Lens::Short };
        Content::endless(self.id ^ (from as u64 + 1) << 56, lens)
    }

    /// What comes behind all content.
    fn last(&self) -> Frame {
        text(&format!("the last of {:x}", self.id))
    }

    fn close(&self) -> Frame {
        close(self.close_code().unwrap_or(1000), &format!("the end of {:x}", self.id))
    }
}

fn kind(place: u64) -> Kind {
    // Of 400 tunnels each wire has every kind in its share.
    let mut rest = (place / 4 * 37 + place % 4 * 53) % 100;
    for (kind, share) in SHARES {
        match rest.checked_sub(share) {
            Some(left) => rest = left,
            // TLS 1.2 has no half of a connection.
            None if place % 4 == 1 && matches!(kind, Kind::HalfClient | Kind::HalfServer) => break,
            None => return kind,
        }
    }
    Kind::Echo
}

/// What the server sends back.
fn echo(frame: Frame) -> Frame {
    match frame.opcode {
        Opcode::Ping => Frame { opcode: Opcode::Pong, ..frame },
        _ => frame,
    }
}

/// One end of a tunnel whose handshake is done.
pub(crate) struct Ends<'t> {
    tunnel: &'t Tunnel,
    side: Side,
    hears: Hears<'t>,
    tells: Tells<'t>,
}

/// Lives as one end to the end, and notes what became of it.
pub(crate) async fn live(
    tunnel: &Tunnel,
    side: Side,
    (reader, writer): (Reader, Writer),
    pause_ms: u64,
) {
    let hears = Hears { tunnel, side, reader };
    let pauses = Random::new(tunnel.id ^ side as u64);
    let pause_ms = match tunnel.kind {
        Kind::Large => 2 * pause_ms,
        Kind::HalfClient | Kind::HalfServer => pause_ms.min(HALF_PAUSE_MS),
        _ => pause_ms,
    };
    let tells =
        Tells { tunnel, side, writer, sent: Tally::default(), has_closed: false, pauses, pause_ms };
    let mut ends = Ends { tunnel, side, hears, tells };
    let how = match (tunnel.kind, side) {
        (Kind::Echo | Kind::Large | Kind::Torn, Side::Client) => ends.speak().await,
        (Kind::Echo | Kind::Large | Kind::Torn, Side::Server) => ends.echo().await,
        (Kind::HalfClient, Side::Client) => ends.speak_and_listen().await,
        (Kind::HalfClient, Side::Server) => ends.echo_and_speak().await,
        (Kind::HalfServer, _) => ends.speak_apart().await,
        (Kind::UnreadClient, Side::Server) | (Kind::UnreadServer, Side::Client) => {
            ends.speak_to_nobody().await
        }
        (Kind::UnreadClient, Side::Client) | (Kind::UnreadServer, Side::Server) => {
            ends.read_late().await
        }
        (Kind::Quiet, _) => ends.answer_pings().await,
    };
    tunnel.note(side, ends.tells.sent, how);
}

impl Ends<'_> {
    /// A client that compares what comes back.
    async fn speak(&mut self) -> Result<(), Stop> {
        let (tunnel, hears, tells) = (self.tunnel, &mut self.hears, &mut self.tells);
        let listens = hears.expect(tunnel.content(Side::Client).map(echo));
        both(tunnel, tells.speak(true), listens).await?;
        self.leave().await
    }

    /// A server that compares what comes, and sends it back.
    async fn echo(&mut self) -> Result<(), Stop> {
        self.send_all_back().await?;
        self.leave().await
    }

    async fn send_all_back(&mut self) -> Result<(), Stop> {
        let mut content = self.tunnel.content(Side::Client);
        while let Some(frame) = self.hears.next(&mut content).await? {
            self.tells.send(&echo(frame)).await?;
        }
        self.tells.send(&self.tunnel.last()).await
    }

    /// A client that ends its direction and hears the other one.
    async fn speak_and_listen(&mut self) -> Result<(), Stop> {
        let (tunnel, hears, tells) = (self.tunnel, &mut self.hears, &mut self.tells);
        let speaks = async {
            tells.speak_first().await?;
            tells.end().await
        };
        let listens = async {
            hears.expect(tunnel.content(Side::Client).map(echo)).await?;
            hears.expect(tunnel.content(Side::Server)).await?;
            hears.expect_end().await
        };
        both(tunnel, speaks, listens).await
    }

    /// A server whose client has ended its direction.
    async fn echo_and_speak(&mut self) -> Result<(), Stop> {
        self.send_all_back().await?;
        self.hears.expect_end().await?;
        self.tells.speak(true).await?;
        self.tells.end().await
    }

    /// Both ends of a tunnel whose server ends its direction first; neither answers the other.
    async fn speak_apart(&mut self) -> Result<(), Stop> {
        let (tunnel, side) = (self.tunnel, self.side);
        let (hears, tells) = (&mut self.hears, &mut self.tells);
        let speaks = async {
            match side {
                Side::Client => tells.speak(true).await?,
                Side::Server => tells.speak_first().await?,
            }
            tells.end().await
        };
        let listens = async {
            hears.expect(tunnel.content(side.other())).await?;
            hears.expect_end().await
        };
        both(tunnel, speaks, listens).await
    }

    /// Sends as much as is taken.
    async fn speak_to_nobody(&mut self) -> Result<(), Stop> {
        self.tells.speak(false).await?;
        self.leave().await
    }

    /// Reads only when it is over.
    async fn read_late(&mut self) -> Result<(), Stop> {
        self.tunnel.until_finish().await;
        self.hears.expect(self.tunnel.content(self.side.other())).await?;
        self.leave().await
    }

    async fn answer_pings(&mut self) -> Result<(), Stop> {
        let (tunnel, is_first) = (self.tunnel, self.tunnel.ends_first == self.side);
        let mut is_to_close = is_first;
        loop {
            let frame = tokio::select! {
                frame = self.hears.reader.frame() => frame,
                () = tunnel.until_finish(), if is_to_close => {
                    is_to_close = false;
                    self.tells.send(&tunnel.close()).await?;
                    continue;
                }
            };
            match frame.map_err(stop)? {
                Some(ping) if ping.opcode == Opcode::Ping => {
                    tunnel.progress.fetch_add(1, Ordering::Relaxed);
                    // Nothing follows a Close.
                    if is_to_close || !is_first {
                        self.tells.send(&echo(ping)).await?;
                    }
                }
                Some(frame) if frame == tunnel.close() => {
                    if !is_first {
                        self.tells.send(&frame).await?;
                    }
                    return self.last_steps().await;
                }
                None if self.hears.reader.rest_begins(None) => return Err(Stop::Cut),
                other => return Err(Stop::Fault(format!("{other:?} in silence"))),
            }
        }
    }

    /// The closing handshake, behind all content.
    async fn leave(&mut self) -> Result<(), Stop> {
        let (tunnel, close) = (self.tunnel, self.tunnel.close());
        let is_first = tunnel.ends_first == self.side;
        if is_first && !self.tells.has_closed {
            self.tells.send(&close).await?;
        }
        match self.hears.reader.frame().await.map_err(stop)? {
            Some(frame) if frame == close => {}
            None if self.hears.reader.rest_begins(Some(&close)) => return Err(Stop::Cut),
            other => return Err(Stop::Fault(format!("{other:?} instead of the Close"))),
        }
        if !is_first {
            self.tells.send(&close).await?;
        }
        self.last_steps().await
    }

    /// The server's end closes the connection first (RFC 6455 §7.1.1).
    async fn last_steps(&mut self) -> Result<(), Stop> {
        match self.side {
            Side::Server => self.tells.end().await,
            Side::Client => self.hears.expect_end().await,
        }
    }
}

impl Tunnel {
    async fn until_finish(&self) {
        // The sender is ours.
        let _ = self.is_to_finish.subscribe().wait_for(|&is| is).await;
    }
}

/// Both at once; a fault says more than a cut.
async fn both(
    tunnel: &Tunnel,
    speaks: impl Future<Output = Result<(), Stop>>,
    listens: impl Future<Output = Result<(), Stop>>,
) -> Result<(), Stop> {
    let listens = async {
        let heard = listens.await;
        if heard.is_err() {
            // Who pauses need not.
            tunnel.finish();
        }
        heard
    };
    match tokio::join!(speaks, listens) {
        (Err(Stop::Fault(fault)), _) | (_, Err(Stop::Fault(fault))) => Err(Stop::Fault(fault)),
        (spoke, heard) => spoke.and(heard),
    }
}

/// The hearing half of an end.
struct Hears<'t> {
    tunnel: &'t Tunnel,
    side: Side,
    reader: Reader,
}

impl Hears<'_> {
    /// All of this and then the last message.
    async fn expect(&mut self, content: impl Iterator<Item = Frame>) -> Result<(), Stop> {
        let mut content = content;
        while self.next(&mut content).await?.is_some() {}
        Ok(())
    }

    /// The next of the content; `None` for the last message.
    async fn next(
        &mut self,
        content: &mut impl Iterator<Item = Frame>,
    ) -> Result<Option<Frame>, Stop> {
        let (expected, last) = (content.next(), self.tunnel.last());
        match self.reader.frame().await {
            Ok(Some(frame)) if Some(&frame) == expected.as_ref() => {
                if self.side == self.tunnel.listener() {
                    self.tunnel.progress.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Some(frame))
            }
            Ok(Some(frame)) if frame == last => Ok(None),
            Ok(Some(frame)) => Err(Stop::Fault(format!("{frame:?} instead of {expected:?}"))),
            end => {
                let is_piece = |frame| self.reader.rest_begins(frame);
                if !is_piece(expected.as_ref()) && !is_piece(Some(&last)) {
                    let place = self.tunnel.progress.load(Ordering::Relaxed);
                    let fault = format!(
                        "a piece of something else than {expected:?} behind {place} frames"
                    );
                    return Err(Stop::Fault(fault));
                }
                end.map_or_else(|error| Err(stop(error)), |_| Err(Stop::Cut))
            }
        }
    }

    /// An orderly end of the stream, and nothing before it.
    async fn expect_end(&mut self) -> Result<(), Stop> {
        match self.reader.frame().await.map_err(stop)? {
            None if self.reader.rest_begins(None) => Ok(()),
            other => Err(Stop::Fault(format!("{other:?} instead of the end"))),
        }
    }
}

impl Tunnel {
    /// The end that hears the other until the end.
    fn listener(&self) -> Side {
        match self.kind {
            Kind::HalfServer | Kind::UnreadServer => Side::Server,
            _ => Side::Client,
        }
    }
}

/// The speaking half of an end.
struct Tells<'t> {
    tunnel: &'t Tunnel,
    side: Side,
    writer: Writer,
    sent: Tally,
    has_closed: bool,
    pauses: Random,
    pause_ms: u64,
}

impl Tells<'_> {
    /// Content until the tunnel is to finish, and then the last message.
    async fn speak(&mut self, with_pauses: bool) -> Result<(), Stop> {
        let mut is_to_finish = self.tunnel.is_to_finish.subscribe();
        let mut content = self.tunnel.content(self.side);
        while let Some(frame) = content.next() {
            self.send(&frame).await?;
            if *is_to_finish.borrow() {
                if content.is_in_message() { continue } else { break }
            }
            if with_pauses {
                let pause = Duration::from_millis(self.pauses.range((0, self.pause_ms)));
                // The sender is the tunnel's.
                tokio::select! { () = sleep(pause) => {}, _ = is_to_finish.wait_for(|&is| is) => {} }
            }
        }
        self.send(&self.tunnel.last()).await
    }

    /// A few messages, and then the last one.
    async fn speak_first(&mut self) -> Result<(), Stop> {
        let mut content = self.tunnel.content(self.side);
        let mut count = 0;
        while count < FIRST || content.is_in_message() {
            let Some(frame) = content.next() else { break };
            self.send(&frame).await?;
            count += 1;
        }
        self.send(&self.tunnel.last()).await
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), Stop> {
        self.writer.frame(frame, None).await.map_err(stop)?;
        self.sent.add(frame, self.side);
        self.has_closed |= frame.opcode == Opcode::Close;
        Ok(())
    }

    /// Ends this direction.
    async fn end(&mut self) -> Result<(), Stop> {
        self.writer.shutdown().await.map_err(stop)
    }
}

/// What an error of a connection means: TLS that does not fit is none of these.
fn stop(error: io::Error) -> Stop {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof => {
            Stop::Cut
        }
        _ => Stop::Fault(error.to_string()),
    }
}

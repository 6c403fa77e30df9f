//! One end of a tunnel: sends what its life says, and holds what comes against what the other end sends.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use wssgate_testkit::{Frame, pong};
use wssgate_ws::{Opcode, Side};

use crate::{
    life::{Ending, Life, Random},
    wire::{Reader, Writer},
};

/// How long nothing may come, or go, before a life counts as lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// Answers that wait to be sent: each end has few pings under way.
const MAX_ANSWERS: usize = 256;

/// What all lives share.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// Nobody pauses any more, and no life begins.
    pub(crate) stop: AtomicBool,
    /// The longest pause between two frames, in milliseconds.
    pub(crate) pause_ms: u64,
    /// Lives that ended as they should, seen from each end.
    pub(crate) ended: [AtomicU64; 2],
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Pings of neither end.
    pub(crate) foreign_pings: AtomicU64,
    /// Ends that were refused, or whose other end was, and were told so; and those that had no time for it.
    pub(crate) refused: [AtomicU64; 2],
    pub(crate) faults: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Notes what became of a life at one end.
    pub(crate) fn note(&self, life: u64, side: Side, result: Result<(), String>) {
        match result {
            Ok(()) => _ = self.ended[side as usize].fetch_add(1, Ordering::SeqCst),
            Err(fault) => {
                let fault = format!("life {life:x}, {side:?}: {fault}");
                self.faults.lock().expect("nothing panics while this is locked").push(fault);
            }
        }
    }
}

/// What the reader tells the writer.
#[derive(Clone, Debug, PartialEq)]
enum News {
    /// More is to come from the other end.
    Open,
    /// All of its content is there, and all of our pings are answered.
    Complete,
    /// It sent this Close.
    Closed(Frame),
    /// The stream has ended.
    Gone,
}

/// Lives as one end. The handshake is done.
pub(crate) async fn live(
    world: &World,
    life: &Life,
    side: Side,
    reader: Reader,
    writer: Writer,
) -> Result<(), String> {
    let (answers, to_send) = mpsc::channel(MAX_ANSWERS);
    let (news, to_hear) = watch::channel(News::Open);
    // Ours that no pong has answered.
    let pings = Mutex::new(VecDeque::new());
    let sends =
        Sends { world, life, side, writer, pings: &pings, to_send, to_hear, has_closed: false };
    let hears = Hears { world, life, side, reader, pings: &pings, answers, news };
    let (sends, hears) = (sends.run(), hears.run());
    let is_reset = matches!(life.ending, Ending::Reset { .. });
    if is_reset && life.ended_by == side {
        // Whatever is not done yet is given up, the socket with it.
        return tokio::select! { heard = hears => heard, sent = sends => said(sent) };
    }
    let (sent, heard) = tokio::join!(sends, hears);
    heard?;
    // What was sent last may have met the reset, or the end of the time to answer.
    let is_refused = matches!(life.ending, Ending::Refused { .. });
    if is_reset || is_refused { Ok(()) } else { said(sent) }
}

fn said(sent: io::Result<()>) -> Result<(), String> {
    sent.map_err(|error| format!("cannot send: {error}"))
}

/// The sending half of an end.
struct Sends<'w> {
    world: &'w World,
    life: &'w Life,
    side: Side,
    writer: Writer,
    pings: &'w Mutex<VecDeque<Vec<u8>>>,
    to_send: mpsc::Receiver<Frame>,
    to_hear: watch::Receiver<News>,
    /// Nothing may follow our Close, not even the answers that still wait.
    has_closed: bool,
}

impl Sends<'_> {
    async fn run(mut self) -> io::Result<()> {
        let mut pauses = Random::new(self.world.ended[0].load(Ordering::Relaxed));
        for frame in self.life.content(self.side) {
            let pause = match self.world.is_stopped() {
                true => Duration::ZERO,
                false => Duration::from_millis(pauses.range((0, self.world.pause_ms))),
            };
            if self.wait_for(|_| false, Some(pause)).await? {
                return self.answer_the_end().await;
            }
            if frame.opcode == Opcode::Ping {
                lock(self.pings).push_back(frame.payload.clone());
            }
            self.send(&frame, None).await?;
        }
        if self.life.ended_by != self.side {
            self.wait_for(|_| false, None).await?;
            return self.answer_the_end().await;
        }
        if self.life.complete && self.wait_for(|news| *news == News::Complete, None).await? {
            return self.answer_the_end().await;
        }
        match &self.life.ending {
            Ending::Close(close) => {
                self.send(close, None).await?;
                self.has_closed = true;
                // The server's end closes the connection first (RFC 6455 §7.1.1).
                self.wait_for(|_| false, None).await?;
                self.finish().await
            }
            Ending::Reset { bytes_of_a_frame } => {
                let unfinished = Frame::new(Opcode::Binary, vec![b'?'; 1 << 10]);
                self.send(&unfinished, Some(*bytes_of_a_frame)).await
            }
            Ending::Refused { frame, .. } => {
                self.send(frame, None).await?;
                self.wait_for(|_| false, None).await?;
                self.answer_the_end().await
            }
        }
    }

    /// Sends answers until the news are as wanted, or the other end has ended the life (then true), or
    /// this time has passed.
    async fn wait_for(
        &mut self,
        is_wanted: impl Fn(&News) -> bool,
        at_most: Option<Duration>,
    ) -> io::Result<bool> {
        // Without a limit of its own it ends with the receiving half, which has one.
        let pause = sleep(at_most.unwrap_or(Duration::MAX));
        tokio::pin!(pause);
        loop {
            {
                let news = self.to_hear.borrow_and_update();
                match &*news {
                    News::Closed(_) | News::Gone => return Ok(true),
                    news if is_wanted(news) => return Ok(false),
                    _ => {}
                }
            }
            tokio::select! {
                () = &mut pause => return Ok(false),
                Some(answer) = self.to_send.recv() => if !self.has_closed {
                    self.send(&answer, None).await?;
                },
                changed = self.to_hear.changed() => if changed.is_err() {
                    return Ok(true);
                },
            }
        }
    }

    /// The other end has ended the life.
    async fn answer_the_end(&mut self) -> io::Result<()> {
        let news = self.to_hear.borrow().clone();
        if let News::Closed(close) = news {
            self.send(&close, None).await?;
        }
        self.finish().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self.side {
            Side::Server => self.writer.shutdown().await,
            Side::Client => Ok(()),
        }
    }

    async fn send(&mut self, frame: &Frame, len: Option<usize>) -> io::Result<()> {
        let sent = timeout(PATIENCE, self.writer.frame(frame, len)).await;
        sent.map_err(|_| io::Error::other("nobody takes it"))?
    }
}

/// The receiving half of an end.
struct Hears<'w> {
    world: &'w World,
    life: &'w Life,
    side: Side,
    reader: Reader,
    pings: &'w Mutex<VecDeque<Vec<u8>>>,
    answers: mpsc::Sender<Frame>,
    news: watch::Sender<News>,
}

impl Hears<'_> {
    async fn run(mut self) -> Result<(), String> {
        let heard = self.listen().await;
        self.news.send_if_modified(|news| {
            let is_new = !matches!(news, News::Closed(_));
            *news = if is_new { News::Gone } else { news.clone() };
            is_new
        });
        heard
    }

    async fn listen(&mut self) -> Result<(), String> {
        let mut content = self.life.content(self.side.other());
        let (mut expected, mut count) = (content.next(), 0_u64);
        loop {
            if expected.is_none() && lock(self.pings).is_empty() {
                self.news.send_if_modified(|news| {
                    let is_new = *news == News::Open;
                    *news = if is_new { News::Complete } else { news.clone() };
                    is_new
                });
            }
            let place = || format!("frame {count}");
            let frame = match timeout(PATIENCE, self.reader.frame()).await {
                Err(_) => return Err(format!("{}: nothing comes", place())),
                Ok(Ok(Some(frame))) => frame,
                Ok(end) => return self.check_end(end, expected.as_ref(), &place()),
            };
            match frame.opcode {
                _ if Some(&frame) == expected.as_ref() => {
                    if frame.opcode == Opcode::Ping {
                        self.answer(pong(&*frame.payload)).await;
                    }
                    self.world.frames.fetch_add(1, Ordering::Relaxed);
                    self.world.bytes.fetch_add(frame.payload.len() as u64, Ordering::Relaxed);
                    (expected, count) = (content.next(), count + 1);
                }
                Opcode::Pong => {
                    let first = lock(self.pings).pop_front();
                    if first.as_ref() != Some(&frame.payload) {
                        return Err(format!("{}: {frame:?} answers no ping of ours", place()));
                    }
                }
                Opcode::Close => return self.on_close(frame, expected.is_none(), &place()).await,
                Opcode::Ping => {
                    self.world.foreign_pings.fetch_add(1, Ordering::Relaxed);
                    self.answer(pong(frame.payload)).await;
                }
                _ => return Err(format!("{}: {frame:?} instead of {expected:?}", place())),
            }
        }
    }

    /// An end whose sending half is gone has no answers either.
    async fn answer(&self, pong: Frame) {
        let _ = self.answers.send(pong).await;
    }

    /// The other end's Close, or its answer to ours; nothing but the end may follow.
    async fn on_close(&mut self, frame: Frame, all: bool, place: &str) -> Result<(), String> {
        let Some(close) = self.life.close_for(self.side) else {
            return Err(format!("{place}: {frame:?}, but the life ends by a reset"));
        };
        if let Ending::Refused { .. } = self.life.ending {
            self.world.refused[0].fetch_add(1, Ordering::Relaxed);
        }
        if frame != close {
            return Err(format!("{place}: {frame:?} instead of {close:?}"));
        }
        if self.life.ended_by != self.side && !all {
            return Err(format!("{place}: a Close before everything was there"));
        }
        self.news.send_replace(News::Closed(frame));
        if self.side == Side::Server {
            return Ok(());
        }
        match timeout(PATIENCE, self.reader.frame()).await {
            Err(_) => Err("no end behind the Close".into()),
            Ok(Ok(None)) if self.reader.rest_begins(None) => Ok(()),
            Ok(end) => Err(format!("{end:?} behind the Close")),
        }
    }

    /// The stream ended without a Close.
    fn check_end(
        &self,
        end: io::Result<Option<Frame>>,
        expected: Option<&Frame>,
        place: &str,
    ) -> Result<(), String> {
        // All of it, and then perhaps a piece of what only a reset end sends.
        let is_all = match self.life.ending {
            Ending::Close(_) => return Err(format!("{place}: {end:?} instead of a Close")),
            Ending::Reset { .. } => expected.is_none() || self.life.ended_by == self.side,
            // On a busy machine a frame may be under way for longer than anybody waits.
            Ending::Refused { .. } => {
                self.world.refused[1].fetch_add(1, Ordering::Relaxed);
                expected.is_none() && self.reader.rest_begins(None)
            }
        };
        if is_all || self.reader.rest_begins(expected) {
            return Ok(());
        }
        Err(format!("{place}: a piece of something else than {expected:?}"))
    }
}

fn lock(pings: &Mutex<VecDeque<Vec<u8>>>) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
    pings.lock().expect("nothing panics while this is locked")
}

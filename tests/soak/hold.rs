//! A socket that sometimes takes a part of what is written, and the rest only a while later: the other side has a
//! piece of a TLS record or of a frame until then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::life::Random;

/// One of so many writes is held.
const ONE_OF: u64 = 6;

/// For how long: enough for an upgrade to fall into it.
const HOLD_MS: (u64, u64) = (1, 1000);

/// Whether a socket holds anything.
#[derive(Clone, Default)]
pub(crate) struct Switch(Arc<AtomicBool>);

impl Switch {
    pub(crate) fn set(&self, is_on: bool) {
        self.0.store(is_on, Ordering::Relaxed);
    }
}

/// See above; it begins with its first switch.
pub(crate) struct Holding {
    stream: TcpStream,
    random: Random,
    switch: Switch,
    /// Until then nothing more is written.
    held: Option<Pin<Box<Sleep>>>,
    /// What follows a piece that was held is not held as well.
    was_held: bool,
}

impl Holding {
    pub(crate) fn new(stream: TcpStream, seed: u64) -> Self {
        let (random, switch) = (Random::new(seed), Switch::default());
        Self { stream, random, switch, held: None, was_held: false }
    }

    pub(crate) fn switch(&self) -> Switch {
        self.switch.clone()
    }
}

impl AsyncRead for Holding {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Holding {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(held) = &mut this.held {
            ready!(held.as_mut().poll(context));
            this.held = None;
            this.was_held = true;
        }
        let may_hold = this.switch.0.load(Ordering::Relaxed) && !this.was_held && bytes.len() > 1;
        let is_held = may_hold && this.random.range((1, ONE_OF)) == ONE_OF;
        let len = match is_held {
            true => this.random.range((1, bytes.len() as u64 - 1)) as usize,
            false => bytes.len(),
        };
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, &bytes[..len]))?;
        this.was_held = false;
        if is_held {
            this.held = Some(Box::pin(sleep(Duration::from_millis(this.random.range(HOLD_MS)))));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

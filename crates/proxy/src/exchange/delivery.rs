//! The last stretch of the way of an answer: pieces go to the outlet in order, no faster than they
//! may, and each within its time. Subrequests whose bodies become a part of the answer share it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{sleep_until, timeout};
use wssgate_http1::Fields;

use crate::exchange::outlet::{Framing, Gone, Outlet, Presence};
use crate::exchange::request::Request;
use crate::exchange::response::Reply;

/// Bytes per second, and how many are free. As in nginx those of the head count, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: u64,
    pub(crate) free: u64,
    pub(crate) start: Instant,
}

/// Brings pieces of one answer to its client.
pub(crate) struct Delivery<O: ?Sized = dyn Outlet> {
    client: Rc<dyn Presence>,
    send_timeout: Cell<Duration>,
    rate: Cell<Option<Rate>>,
    /// Bytes of the body that were taken.
    body_len: Cell<u64>,
    /// Bytes that were written, as long as on the wire.
    written: Cell<u64>,
    /// Only borrowed inside a poll, or where nothing is waited for.
    outlet: RefCell<O>,
}

impl<O: Outlet> Delivery<O> {
    /// Delivers to `client` through `outlet`.
    pub(crate) fn new(outlet: O, client: Rc<dyn Presence>) -> Self {
        Self {
            client,
            send_timeout: Cell::new(Duration::from_secs(60)),
            rate: Cell::new(None),
            body_len: Cell::new(0),
            written: Cell::new(0),
            outlet: RefCell::new(outlet),
        }
    }
}

impl Delivery {
    /// Whom the answer is for.
    pub(crate) fn client(&self) -> Rc<dyn Presence> {
        Rc::clone(&self.client)
    }

    /// Resolves when the client goes away. What it sends meanwhile is kept for later.
    pub(crate) async fn closed(&self) {
        poll_fn(|cx| self.client.poll_closed(cx)).await;
    }

    /// Gives the head to the outlet, and the bounds of what follows.
    pub(crate) fn head(
        &self,
        request: &mut Request,
        reply: Reply,
        send_timeout: Duration,
        rate: Option<Rate>,
    ) -> Framing {
        self.send_timeout.set(send_timeout);
        self.rate.set(rate);
        self.outlet.borrow_mut().head(request, reply)
    }

    /// Sends an interim answer with these fields.
    pub(crate) async fn early_hints(&self, fields: &Fields) -> Result<(), Gone> {
        self.outlet.borrow_mut().early_hints(fields);
        self.flush().await
    }

    /// Bytes of the body that were taken so far.
    pub(crate) fn body_len(&self) -> u64 {
        self.body_len.get()
    }

    /// Takes a piece of the body. Small pieces are collected.
    pub(crate) async fn body(&self, piece: Bytes) -> Result<(), Gone> {
        self.body_len.set(self.body_len.get() + piece.len() as u64);
        self.give(piece).await
    }

    /// Takes the end of a body whose end is marked.
    pub(crate) fn end(&self, trailers: &Fields) {
        self.outlet.borrow_mut().end(trailers);
    }

    /// Gives a piece to the outlet, and waits until it can take another one.
    async fn give(&self, piece: Bytes) -> Result<(), Gone> {
        self.outlet.borrow_mut().body(piece);
        if !self.outlet.borrow().is_full() {
            return Ok(());
        }
        // Not to the last byte: what ends the piece goes along with what follows.
        while self.outlet.borrow().is_full() {
            self.write_some().await?;
        }
        self.hand_on().await
    }

    /// Writes what was collected.
    pub(crate) async fn flush(&self) -> Result<(), Gone> {
        while !self.outlet.borrow().is_written() {
            self.write_some().await?;
        }
        self.hand_on().await
    }

    /// Writes no more and no sooner than `limit_rate` allows.
    async fn write_some(&self) -> Result<(), Gone> {
        let most = match self.rate.get() {
            Some(rate) => self.allowed(rate).await?,
            None => usize::MAX,
        };
        let written = self.in_time(|cx| self.outlet.borrow_mut().poll_write(cx, most)).await?;
        self.written.set(self.written.get() + written as u64);
        Ok(())
    }

    async fn hand_on(&self) -> Result<(), Gone> {
        self.in_time(|cx| self.outlet.borrow_mut().poll_flush(cx)).await
    }

    /// Does what the client has a time for.
    async fn in_time<T>(
        &self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, Gone>>,
    ) -> Result<T, Gone> {
        // Most often that is done at once, and no timer is made.
        let at_once = poll_fn(|cx| Poll::Ready(poll(cx))).await;
        if let Poll::Ready(result) = at_once {
            return result;
        }
        timeout(self.send_timeout.get(), poll_fn(poll)).await.unwrap_or_else(|_| {
            self.outlet.borrow_mut().on_timeout();
            Err(Gone::Timeout)
        })
    }

    /// How many bytes may be written now; waits until there are some.
    async fn allowed(&self, Rate { per_second, free, start }: Rate) -> Result<usize, Gone> {
        let written = self.written.get();
        loop {
            // nginx counts whole seconds and gives the one that has begun in advance.
            let seconds = start.elapsed().as_secs() + 1;
            let allowed = per_second.saturating_mul(seconds).saturating_add(free);
            let left = allowed.saturating_sub(written);
            if left > 0 {
                return Ok(usize::try_from(left).unwrap_or(usize::MAX));
            }
            // What was written must not wait for what may not be yet.
            self.hand_on().await?;
            let over = written.saturating_sub(free);
            let due = start + Duration::from_millis(over * 1000 / per_second + 1);
            tokio::select! {
                () = sleep_until(due.into()) => {}
                () = self.closed() => return Err(Gone::Closed),
            }
        }
    }
}

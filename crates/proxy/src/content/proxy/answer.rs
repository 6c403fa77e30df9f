//! The way of an answer to the client: its body through a bounded buffer, at the client's pace.
//!
//! With `proxy_buffering` up to `proxy_buffers` of an answer wait in memory for a slow client, and
//! beyond that the upstream has to wait too: nothing is written to temporary files.

use std::time::{Duration, Instant};

use wssgate_config::model::{LogLevel, ProxySettings};
use wssgate_config::value;
use wssgate_http1::{BodyDecoder, Decoded, Fields, Framing};

use super::attempt::{Sender, Sending, at};
use crate::exchange::body::BodyError;
use crate::exchange::outlet::Gone;
use crate::exchange::request::Request;
use crate::exchange::response::Responder;
use crate::peers::{Connection, Failure, READ_SIZE};

const READING: &str = "reading upstream";

/// How the body of an answer ended.
#[derive(Debug)]
pub(crate) enum BodyEnd {
    /// Whole; with the trailers of a chunked one.
    Whole(Fields),
    /// The upstream broke off, in this way.
    Broken(String),
    /// The client has gone.
    ClientGone(Gone),
    /// The client's own body broke off.
    Body(BodyError),
}

/// What an answer's body is carried with.
pub(crate) struct Carrier<'a, 's> {
    pub(crate) request: &'a Request,
    pub(crate) connection: &'a Connection,
    pub(crate) sender: &'a mut Sender<'s>,
    pub(crate) response: &'a mut Responder,
    pub(crate) settings: &'a ProxySettings,
}

impl Carrier<'_, '_> {
    /// Carries the whole body. The head is already with the responder.
    pub(crate) async fn carry(&mut self, framing: Framing) -> BodyEnd {
        let mut decoder = BodyDecoder::from(framing);
        let mut pace = Pace::new(self.request, self.settings);
        loop {
            match self.connection.with_input(|input| decoder.decode(input)) {
                Ok(Decoded::Data(piece)) => {
                    if let Err(gone) = self.response.body(self.request, piece).await {
                        return BodyEnd::ClientGone(gone);
                    }
                }
                Ok(Decoded::End { trailers }) => return BodyEnd::Whole(trailers),
                Ok(Decoded::NeedMore) => match self.more(&mut pace).await {
                    Ok(0) => return self.ended(&decoder),
                    Ok(_) => {}
                    Err(end) => return end,
                },
                Err(error) => return BodyEnd::Broken(format!("upstream sent {error}")),
            }
        }
    }

    /// Reads more, while the request body goes on being sent.
    async fn more(&mut self, pace: &mut Pace) -> Result<usize, BodyEnd> {
        let at_hand = self.at_hand(pace).await;
        if let Some(read @ Ok(1..)) = at_hand {
            return pace.on_read(read);
        }
        // The upstream may say nothing for a long time, and the client is to have all that was said
        // before.
        self.response.flush().await.map_err(BodyEnd::ClientGone)?;
        if let Some(end) = at_hand {
            return pace.on_read(end);
        }
        pace.wait().await;
        let max = pace.bound(self.buffer_len());
        let mut timer = Instant::now() + self.settings.read_timeout;
        loop {
            let going = matches!(self.sender.state, Sending::Going);
            tokio::select! {
                biased;
                read = self.connection.fill(max) => return pace.on_read(read),
                result = self.sender.run(), if going => {
                    // An answer needs no whole request: only the connection cannot be kept.
                    result.map_err(BodyEnd::Body)?;
                    timer = Instant::now() + self.settings.read_timeout;
                }
                () = self.response.closed(), if !going && !self.settings.ignore_client_abort => {
                    return Err(BodyEnd::ClientGone(Gone::Closed));
                }
                () = at(Some(timer)), if !going => {
                    return Err(BodyEnd::Broken(Failure::Timeout.to_string()));
                }
            }
        }
    }

    /// Reads what is there without waiting, so that it goes to the client along with what came before.
    async fn at_hand(&self, pace: &Pace) -> Option<Result<usize, Failure>> {
        if !pace.is_due() {
            return None;
        }
        let max = pace.bound(self.buffer_len());
        crate::at_once(self.connection.fill(max)).await
    }

    /// How much of the answer may be in memory.
    fn buffer_len(&self) -> usize {
        let (count, size) = self.settings.buffers;
        match self.settings.buffering {
            true => count.saturating_mul(size).max(self.settings.buffer_size),
            false => self.settings.buffer_size,
        }
    }

    fn ended(&self, decoder: &BodyDecoder) -> BodyEnd {
        match decoder {
            BodyDecoder::UntilClose | BodyDecoder::None => BodyEnd::Whole(Fields::default()),
            BodyDecoder::Length(_) | BodyDecoder::Chunked(_) => {
                BodyEnd::Broken(Failure::Closed.to_string())
            }
        }
    }
}

/// Logs why an answer was cut short.
pub(crate) fn log_broken(request: &Request, message: &str) {
    request.log(LogLevel::Error, format_args!("{message} while {READING}"));
}

/// `proxy_limit_rate`: how fast an answer may be read.
struct Pace {
    /// Bytes per second.
    rate: Option<u64>,
    start: Instant,
    read: u64,
}

impl Pace {
    fn new(request: &Request, settings: &ProxySettings) -> Self {
        // nginx limits only what it buffers.
        let text = settings.limit_rate.as_ref().filter(|_| settings.buffering);
        let rate = text.and_then(|template| value::size(&request.text(template)));
        let rate = rate.filter(|rate| *rate > 0);
        Self { rate, start: Instant::now(), read: 0 }
    }

    /// When something may be read; `None`: now.
    fn due(&self) -> Option<Instant> {
        // A rate of zero was taken for none.
        let due = Duration::from_millis(self.read.saturating_mul(1000) / self.rate?);
        Some(self.start + due)
    }

    fn is_due(&self) -> bool {
        self.due().is_none_or(|due| due <= Instant::now())
    }

    /// Waits until something may be read.
    async fn wait(&self) {
        if let Some(due) = self.due() {
            at(Some(due)).await;
        }
    }

    /// How much may be read now, at most `max`: what a second allows.
    fn bound(&self, max: usize) -> usize {
        let second =
            self.rate.map_or(usize::MAX, |rate| usize::try_from(rate).unwrap_or(usize::MAX));
        // Never 0: having read nothing would look like the end of the connection.
        max.min(second).clamp(1, READ_SIZE)
    }

    fn on_read(&mut self, read: Result<usize, Failure>) -> Result<usize, BodyEnd> {
        let len = read.map_err(|failure| BodyEnd::Broken(failure.to_string()))?;
        self.read += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_allows_no_more_than_the_rate() {
        let pace = Pace { rate: Some(100), start: Instant::now(), read: 0 };
        assert_eq!(pace.bound(4096), 100);
        let free = Pace { rate: None, start: Instant::now(), read: 0 };
        assert_eq!(free.bound(4096), 4096);
        assert_eq!(free.bound(1 << 30), READ_SIZE);
    }
}

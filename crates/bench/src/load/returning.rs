//! Clients whose tunnels may end: each comes back, and what that meant is noted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::{Duration, Instant};

use super::client::Role;
use super::{Load, Plan, TURN, Target};
use crate::retry::{Random, delay};
use crate::stats::Latencies;

/// The longest that a client waits before it connects again.
const JITTER: Duration = Duration::from_secs(1);

/// How often somebody looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);

/// How long it sleeps at most when nothing comes: what is due may be sent so much later.
const PACE: Duration = Duration::from_millis(1);

/// The pieces of time for which figures are kept.
pub(crate) const SLOT: Duration = Duration::from_millis(1000 / PER_SECOND as u64);

/// How many of them are a second.
pub(crate) const PER_SECOND: usize = 4;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How long after its planned moment the echo of each message was complete.
    pub(crate) latencies: Latencies,
    /// Tunnels that ended.
    pub(crate) lost: usize,
    /// Messages that had been sent and whose echo did not come.
    pub(crate) unanswered: usize,
    /// Messages that were not sent, as their client was away.
    pub(crate) unsent: usize,
    /// Handshakes that clients began to come back, and those of them that failed.
    pub(crate) handshakes: usize,
    pub(crate) failed: usize,
    /// Clients that have no tunnel.
    pub(crate) away: usize,
    /// When the last one came back.
    pub(crate) back: Option<Instant>,
    /// How long the load had something to do.
    pub(crate) busy: Duration,
    pub(crate) slots: Vec<Slot>,
}

/// What was seen in a [`SLOT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Tunnels that ended, and clients that came back.
    pub(crate) lost: usize,
    pub(crate) back: usize,
    /// The longest delay of a message whose echo came.
    pub(crate) longest: Duration,
}

/// What becomes of clients whose tunnel ends.
#[derive(Debug)]
pub(super) struct Returning {
    began: Instant,
    random: Random,
    /// Who connects again, and when.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Handshakes of each client that failed in a row, if it is away.
    away: Vec<Option<u32>>,
    seen: Seen,
}

impl Returning {
    fn slot(&mut self, now: Instant) -> &mut Slot {
        let index = ((now - self.began).as_nanos() / SLOT.as_nanos()) as usize;
        let slots = &mut self.seen.slots;
        slots.resize(slots.len().max(index + 1), Slot::default());
        &mut slots[index]
    }

    pub(super) fn on_delay(&mut self, now: Instant, delay: Duration) {
        let slot = self.slot(now);
        slot.longest = slot.longest.max(delay);
    }

    /// A client had the first echo of a tunnel.
    pub(super) fn on_back(&mut self, index: usize, now: Instant) {
        if self.away[index].take().is_some() {
            self.seen.away -= 1;
            self.seen.back = Some(now);
            self.slot(now).back += 1;
        }
    }

    fn on_end(&mut self, index: usize, unanswered: usize) {
        let now = Instant::now();
        let wait = match &mut self.away[index] {
            Some(failures) => {
                self.seen.failed += 1;
                *failures += 1;
                delay(*failures - 1, &mut self.random)
            }
            away => {
                *away = Some(0);
                self.seen.lost += 1;
                self.seen.unanswered += unanswered;
                self.seen.away += 1;
                self.slot(now).lost += 1;
                JITTER.mul_f64(self.random.share())
            }
        };
        self.due.push(Reverse((now + wait, index)));
    }
}

impl Load {
    /// A connection of a client has ended, in whatever way. Only while clients may come back this is no failure,
    /// nor is a handshake then that fails; wrong bytes in a tunnel always are.
    pub(super) fn on_end(&mut self, index: usize, error: io::Error) -> io::Result<()> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let Some(returning) = &mut self.returning else { return Err(error) };
        // It may have been told of more than once.
        let Some(client) = &self.clients[index] else { return Ok(()) };
        let is_end =
            [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind());
        if client.is_open() && !is_end {
            return Err(error);
        }
        returning.on_end(index, client.due.len());
        self.clients[index] = None;
        Ok(())
    }

    /// Sends `per_second` messages, evenly spaced over all clients in turn, until it is over, which is asked every now
    /// and then. Clients whose tunnel ends come back to `target`; while one is away its messages are not sent.
    ///
    /// The load never sleeps meanwhile, so that neither timers nor waking up are measured.
    pub(crate) fn paced_while(
        &mut self,
        per_second: u32,
        target: &Target,
        mut goes_on: impl FnMut(&Seen) -> io::Result<bool>,
    ) -> io::Result<Seen> {
        self.plan = Plan::Rest;
        self.latencies = Latencies::default();
        self.busy = Duration::ZERO;
        let (begin, mut sent, mut look) = (Instant::now(), 0, Instant::now());
        self.returning = Some(Returning {
            began: begin,
            // The same for every proxy.
            random: Random(1),
            due: BinaryHeap::new(),
            away: vec![None; self.clients.len()],
            seen: Seen::default(),
        });
        loop {
            let now = Instant::now();
            let due = begin + Duration::from_secs(1) * sent / per_second;
            if now >= due {
                self.send_due(sent as usize % self.clients.len(), due)?;
                sent += 1;
            } else if now >= look {
                look = now + LOOK;
                let is_over = match &self.returning {
                    Some(returning) => !goes_on(&returning.seen)?,
                    None => true,
                };
                if is_over {
                    break;
                }
            } else {
                self.connect_due(target, now)?;
                // The proxies run on this core as well.
                self.turn(PACE)?;
            }
        }
        // What is under way is part of it; who is away stays so.
        let deadline = Instant::now() + super::PATIENCE;
        while self.clients.iter().flatten().any(|it| !it.due.is_empty())
            && Instant::now() < deadline
        {
            self.turn(TURN)?;
        }
        let mut seen = self.returning.take().map(|it| it.seen).unwrap_or_default();
        seen.latencies = std::mem::take(&mut self.latencies);
        seen.busy = self.busy;
        Ok(seen)
    }

    fn send_due(&mut self, index: usize, due: Instant) -> io::Result<()> {
        match &mut self.clients[index] {
            // What a client sends first when it is back has no due time.
            Some(client) if client.is_open() && client.in_flight == client.due.len() => {
                client.due.push_back(due);
                self.send(index)?;
                let begin = Instant::now();
                self.deliver()?;
                self.busy += begin.elapsed();
            }
            _ => self.returning.iter_mut().for_each(|it| it.seen.unsent += 1),
        }
        Ok(())
    }

    fn connect_due(&mut self, target: &Target, now: Instant) -> io::Result<()> {
        while let Some(returning) = &mut self.returning
            && returning.due.peek().is_some_and(|Reverse((at, _))| *at <= now)
            && let Some(Reverse((_, index))) = returning.due.pop()
        {
            returning.seen.handshakes += 1;
            self.connect_as(index, target, Role::Echo)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;

    use super::*;
    use crate::load::Security;

    #[test]
    fn without_an_end_all_messages_are_answered() {
        let mut load = Load::new().unwrap();
        let addresses = load.backend_addresses().unwrap();
        let target = Target { addresses, security: Security::Plain };
        load.open(&target, 5, 5).unwrap();
        let end = Instant::now() + Duration::from_millis(200);
        let mut seen = load.paced_while(1000, &target, |_| Ok(Instant::now() < end)).unwrap();
        assert!(seen.latencies.percentile_us(1.0).unwrap() > 0.0 && seen.busy > Duration::ZERO);
        assert_eq!((seen.lost, seen.unanswered, seen.unsent, seen.away), (0, 0, 0, 0));
    }

    /// Passes connections on, each in threads of its own, and ends the first ones after a moment.
    fn forwarder(to: std::net::SocketAddr, first: usize) -> std::net::SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let (mut client, mut server) = (client.unwrap(), TcpStream::connect(to).unwrap());
                let (mut back, mut forth) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                let ends = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                thread::spawn(move || io::copy(&mut client, &mut server));
                thread::spawn(move || io::copy(&mut back, &mut forth));
                if number < first {
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(300));
                        ends.iter().for_each(|end| end.shutdown(Shutdown::Both).unwrap());
                    });
                }
            }
        });
        address
    }

    #[test]
    fn clients_whose_tunnel_ends_come_back_and_are_counted() {
        let mut load = Load::new().unwrap();
        let addresses = vec![forwarder(load.backend_addresses().unwrap()[0], 2)];
        let target = Target { addresses, security: Security::Plain };
        load.open(&target, 5, 5).unwrap();
        let seen =
            load.paced_while(1000, &target, |seen| Ok(seen.lost < 2 || seen.away > 0)).unwrap();
        assert_eq!((seen.lost, seen.handshakes, seen.failed, seen.away), (2, 2, 0, 0));
        assert!(seen.unsent > 0 && seen.back.is_some());
        let sum = |of: fn(&Slot) -> usize| seen.slots.iter().map(of).sum::<usize>();
        assert_eq!((sum(|slot| slot.lost), sum(|slot| slot.back)), (2, 2));
    }
}

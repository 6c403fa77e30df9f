//! HTTP/1 towards the client: one request after the other on one connection.
//!
//! Between two requests a connection owns no buffer and holds no generation, so that idle
//! connections are small and a reload lets go of them; each request takes the newest generation.

mod body;
pub(crate) mod client;
mod outlet;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{Sleep, sleep, timeout, timeout_at};
use wssgate_config::model::{
    AddressRoute, ConnectionSettings, LingeringClose, ListenAddr, LocationSettings, LogLevel,
    ServerId,
};
use wssgate_http1::{Framing, HeadError, Limits, RequestHead, RequestParser};

use crate::exchange::body::{Complete, Length};
use crate::exchange::request::Arrival;
use crate::exchange::{
    ConnectionInfo, Exchange, Request, RequestBody, Responder, access_log, variables,
};
use crate::front::phases::{self, Finish};
use crate::front::{after, arrival, route, subrequest};
use crate::generation::{Generation, Life};
use crate::metrics::{HandshakeFailure, Held, status_class};
use crate::site::{Phase, Site};
use crate::tls::keys::{DetachError, FEW_RECORDS, LAST_RECORDS};
use crate::tunnel::table::Tunnels;
use crate::tunnel::{self, Switch};

use body::WireBody;
use client::Client;
use outlet::WireOutlet;

/// How long a final close_notify may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A client connection that speaks HTTP/1.
pub(crate) struct Link {
    /// What its requests need of the worker.
    pub(crate) site: Rc<Site>,
    /// Where it goes when it switches protocols.
    pub(crate) tunnels: Rc<Tunnels>,
    /// The connection.
    pub(crate) client: Rc<Client>,
    /// The address that accepted it, by which a generation finds its servers.
    pub(crate) address: ListenAddr,
    /// Plain HTTP came to a TLS port: everything is answered with 497.
    pub(crate) misses_tls: bool,
}

/// What follows a request.
enum Next {
    /// Wait for another one, no longer than this.
    Keep(Duration),
    /// The connection is over.
    Close,
    /// It becomes a tunnel.
    Switch(Box<(Exchange, Switch)>),
}

/// How reading a head ended.
enum HeadRead {
    Head(Box<RequestHead>),
    Bad(HeadError),
    Closed,
    Timeout,
}

/// Serves the requests of a connection until it ends; `wait` is how long the first may take to
/// begin. An idle connection ends with the `life` of the generation that it last used.
pub(crate) async fn serve(link: Link, wait: Duration, mut life: Life) {
    let mut held = Held::new(&link.site.metrics, |counters| &counters.waiting);
    let mut served = 0;
    // Kept from one wait to the next: to be told of ends costs more to ask for than to go on waiting for.
    let site = Rc::clone(&link.site);
    let mut stopped = pin!(site.reached(Phase::Stopping));
    let mut expired = pin!(life.clone().end());
    let mut timer = pin!(sleep(wait));
    loop {
        // What is there is a request that has begun; who waited for it would wait for the next
        // packet.
        let pipelined = served > 0 && link.client.has_input();
        if !pipelined && !link.has_begun(stopped.as_mut(), expired.as_mut(), timer.as_mut()).await {
            break;
        }
        held.move_to(|counters| &counters.reading);
        let generation = link.site.generation();
        // A reload may have taken the address away.
        let Some(socket) = generation.socket_at(&link.address) else { break };
        if !life.is(&generation.life()) {
            life = generation.life();
            expired.set(life.clone().end());
        }
        // Boxed, so that an idle connection owns no memory of requests.
        let one = Box::pin(link.serve_one(generation, socket, pipelined, &mut held));
        let next = tokio::select! {
            // First, because it ends by itself where there is something to log.
            biased;
            next = one => next,
            () = expired.as_mut() => Next::Close,
        };
        match next {
            Next::Keep(limit) => timer.as_mut().reset(tokio::time::Instant::now() + limit),
            // `conclude` has ended the connection in the way that fits.
            Next::Close => return,
            Next::Switch(switched) => {
                return Box::pin(link.switch(switched)).await;
            }
        }
        if served == 0 {
            // Connections that had a request close when the worker is to end.
            stopped.set(site.reached(Phase::Yielding));
        }
        served += 1;
        held.move_to(|counters| &counters.waiting);
    }
    let _ = timeout(GOODBYE, link.client.shutdown()).await;
}

impl Link {
    fn info(&self) -> &Rc<ConnectionInfo> {
        &self.client.info
    }

    /// Waits for the first byte of a request, until one of the others comes first.
    async fn has_begun(
        &self,
        stopped: impl Future<Output = ()>,
        expired: impl Future<Output = ()>,
        timer: Pin<&mut Sleep>,
    ) -> bool {
        if self.client.has_input() {
            return true;
        }
        tokio::select! {
            // First, because a request is there more often than not.
            biased;
            read = self.client.fill() => read.is_ok_and(|read| read > 0),
            () = stopped => false,
            () = expired => false,
            () = timer => false,
        }
    }

    /// Reads and answers one request; `socket` is the index of its address in `generation`.
    async fn serve_one(
        &self,
        generation: Arc<Generation>,
        socket: usize,
        pipelined: bool,
        held: &mut Held,
    ) -> Next {
        let sockets = &generation.http().sockets;
        let Some(route) = route::address_route(&sockets[socket], &self.info().local) else {
            return Next::Close;
        };
        let server = arrival::sni_server(self.info(), route).unwrap_or(route.default_server);
        let settings = &generation.http().servers[server.0].connection;
        let mut parser = RequestParser::new();
        let started = Instant::now();
        self.site.metrics.requests.increment();
        self.info().requests.set(self.info().requests.get() + 1);
        let read = self.read_head(&mut parser, settings).await;
        held.move_to(|counters| &counters.writing);
        let line = match &read {
            HeadRead::Head(head) => Bytes::copy_from_slice(head.request_line()),
            _ => self.client.with_input(|input| {
                let known = parser.request_line(input);
                Bytes::copy_from_slice(known.unwrap_or_else(|| parser.bad_line(input)))
            }),
        };
        let mut exchange = self.exchange(&generation, server, line, started, pipelined);
        if !matches!(read, HeadRead::Head(_))
            && let Some(part) = self.client.with_input(|input| parser.part(input))
        {
            arrival::take_in_part(&mut exchange.request, part, route);
        }
        let end = match read {
            HeadRead::Head(head) => self.work(&mut exchange, *head, route).await,
            HeadRead::Bad(error) => {
                exchange
                    .request
                    .log(LogLevel::Info, format_args!("{error} while reading {}", error.place()));
                phases::refuse(&mut exchange, error.code()).await
            }
            HeadRead::Closed => {
                // For the log alone, as in nginx: nobody is there to be told.
                exchange.request.response.status = 400;
                exchange.request.log(LogLevel::Info, "client prematurely closed connection");
                Finish::Close
            }
            HeadRead::Timeout => {
                exchange.request.response.status = 408;
                exchange
                    .request
                    .log(LogLevel::Info, "client timed out (110: Connection timed out)");
                Finish::Close
            }
        };
        self.conclude(exchange, end).await
    }

    async fn read_head(
        &self,
        parser: &mut RequestParser,
        settings: &ConnectionSettings,
    ) -> HeadRead {
        let limits = limits(settings);
        // For the whole head: a client that sends a byte now and then does not put it off.
        let deadline = Instant::now() + settings.client_header_timeout;
        loop {
            match self.client.with_input(|input| parser.parse(input, &limits)) {
                Ok(Some(head)) => return HeadRead::Head(Box::new(head)),
                Ok(None) => {}
                Err(error) => return HeadRead::Bad(error),
            }
            match timeout_at(deadline.into(), self.client.fill()).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return HeadRead::Closed,
                Err(_) => return HeadRead::Timeout,
            }
        }
    }

    /// A request of which nothing is known but its line.
    fn exchange(
        &self,
        generation: &Arc<Generation>,
        server: ServerId,
        line: Bytes,
        started: Instant,
        pipelined: bool,
    ) -> Exchange {
        let info = self.info();
        let arrival = Arrival::new(line, started, pipelined);
        let (generation, site) = (Arc::clone(generation), Rc::clone(&self.site));
        let request = Request::new(generation, site, Rc::clone(info), server, arrival);
        let mut body = RequestBody::new(Complete(Length::None));
        body.bound(&request.location().settings);
        let outlet = WireOutlet::new(Rc::clone(&self.client), Rc::clone(&request.traffic));
        let response = Responder::new(outlet, Rc::clone(&self.client) as _, subrequest::embed);
        Exchange { request, body, response, background: None }
    }

    /// Answers a request whose head is good.
    async fn work(
        &self,
        exchange: &mut Exchange,
        head: RequestHead,
        route: &AddressRoute,
    ) -> Finish {
        let request = &mut exchange.request;
        if head.framing() != Framing::None || head.expects_continue() {
            let (client, traffic) = (Rc::clone(&self.client), Rc::clone(&request.traffic));
            let body = WireBody::new(client, traffic, head.framing(), head.expects_continue());
            exchange.body = RequestBody::new(body);
            exchange.body.bound(&request.location().settings);
        }
        let keeps_alive = head.keeps_alive();
        if let Err(refusal) = arrival::take_in(request, head, route, self.misses_tls) {
            let status = request.refuse(&refusal);
            return phases::refuse(exchange, status).await;
        }
        request.fate.keepalive = keeps_alive && self.client.records_left() > FEW_RECORDS;
        request.fate.lingering = !exchange.body.is_empty();
        let life = request.generation.life();
        tokio::select! {
            biased;
            end = phases::answer(exchange) => end,
            () = life.expired() => Finish::Close,
        }
    }

    /// Ends a request: reads what is left of its body, writes its log line, and decides about the
    /// connection.
    async fn conclude(&self, mut exchange: Exchange, end: Finish) -> Next {
        let generation = Arc::clone(&exchange.request.generation);
        let settings = &generation.http().locations[exchange.request.route.location.0].settings;
        let end = match end {
            Finish::Upgrade(switch) => match self.client.take_keys() {
                Ok(()) => return Next::Switch(Box::new((exchange, *switch))),
                Err(error) => {
                    drop(switch);
                    self.refuse_switch(&mut exchange, &error).await
                }
            },
            end => end,
        };
        after::run(&mut exchange).await;
        let answered = matches!(end, Finish::Done);
        let mut clean = answered;
        if answered && !exchange.body.is_read() {
            // The upstream answered before the body was through: nobody knows what follows.
            clean = !exchange.body.is_begun() && drain(&mut exchange.body, settings).await;
        }
        if !answered && self.client.records_left() <= LAST_RECORDS {
            exchange
                .request
                .log(LogLevel::Error, "TLS 1.2 key usage limit reached while sending to client");
        }
        self.count(&exchange.request);
        access_log::write(&exchange.request).await;
        // Of a client that has ended its direction there is no further request to come.
        if clean && exchange.request.fate.keepalive && !self.client.at_eof() {
            return Next::Keep(settings.keepalive_timeout);
        }
        if answered {
            let unread = !exchange.body.is_read() && exchange.request.fate.lingering;
            self.close(settings, unread).await;
        } else if settings.reset_timedout_connection && is_timeout(&exchange.request, &self.client)
        {
            self.client.reset_on_close();
        }
        Next::Close
    }

    /// Closes a connection that was answered, so that the client can read the answer.
    async fn close(&self, settings: &LocationSettings, unread: bool) {
        let linger = match settings.lingering_close {
            LingeringClose::Off => false,
            LingeringClose::Always => true,
            LingeringClose::On => unread || self.client.has_input() || self.is_readable().await,
        };
        // A socket that is closed with input unread resets the connection, and the reset may
        // destroy the answer before the client has read it (RFC 9112 §9.6). So we end our direction
        // and go on reading for a while.
        let _ = timeout(GOODBYE, self.client.shutdown()).await;
        if !linger {
            return;
        }
        let deadline = Instant::now() + settings.lingering_time;
        while Instant::now() < deadline {
            self.client.with_input(|input| input.clear());
            match timeout(settings.lingering_timeout, self.client.fill()).await {
                Ok(Ok(1..)) => {}
                _ => return,
            }
        }
    }

    /// Whether the client has sent something that nobody read.
    async fn is_readable(&self) -> bool {
        matches!(crate::at_once(self.client.fill()).await, Some(Ok(1..)))
    }

    /// Answers that the upstream has switched protocols and we cannot.
    async fn refuse_switch(&self, exchange: &mut Exchange, error: &DetachError) -> Finish {
        let request = &mut exchange.request;
        request.log(LogLevel::Error, format_args!("{error} while switching protocols"));
        request.tunnel.refused.set(Some(HandshakeFailure::Switch));
        // Nothing is read any more.
        request.fate.keepalive = false;
        match phases::refuse(exchange, 502).await {
            // By an `error_page` that leads to another upstream.
            Finish::Upgrade(switch) => drop(switch),
            end => return end,
        }
        let request = &mut exchange.request;
        let text = "the upstream of the error page switched protocols, which the client cannot";
        request.log(LogLevel::Error, text);
        // The built-in one is left.
        request.route.error_page = true;
        phases::refuse(exchange, 502).await
    }

    /// Turns the connection into a tunnel, which says itself how it ended.
    async fn switch(self, switched: Box<(Exchange, Switch)>) {
        // What runs in the background may go on beside the tunnel.
        let (Exchange { mut request, body, mut response, background: _background }, mut switch) =
            *switched;
        // A switch has no ranges.
        let _ = response.head(&mut request, std::mem::take(&mut switch.reply));
        let sent = response.flush().await;
        drop((body, response));
        // The log line will want it when the socket has long been with the relay.
        variables::keep_tcpinfo(&request);
        // Nobody else uses the connection any more.
        if let (Ok(()), Ok(client)) = (sent, Rc::try_unwrap(self.client))
            && let (Some(stream), input) = client.into_parts()
        {
            tunnel::begin(request, stream, input, switch, &self.tunnels).await;
        } else {
            request.site.metrics.failed_handshakes.count(HandshakeFailure::ClientGone);
            access_log::write(&request).await;
        }
    }

    /// Counts a request that has come to no tunnel.
    fn count(&self, request: &Request) {
        let Site { id, metrics, .. } = &*self.site;
        let counters = request.generation.server_counters(request.route.location, *id);
        counters.requests[status_class(request.response.status)].observe(request.elapsed());
        if request.asks_for_websocket() {
            metrics.failed_handshakes.count(request.handshake_failure());
        }
    }
}

/// Whether a connection without an answer counts as one that timed out; 444 does, as in nginx.
fn is_timeout(request: &Request, client: &Client) -> bool {
    client.timed_out() || matches!(request.response.status, 408 | 444)
}

fn limits(settings: &ConnectionSettings) -> Limits {
    Limits {
        client_header_buffer_size: settings.client_header_buffer_size,
        large_buffers: settings.large_client_header_buffers.0,
        large_buffer_size: settings.large_client_header_buffers.1,
        max_headers: settings.max_headers,
        underscores_in_headers: settings.underscores_in_headers,
        ignore_invalid_headers: settings.ignore_invalid_headers,
    }
}

/// Reads the rest of a body and drops it, for no longer than the lingering times; says whether the
/// end was reached.
async fn drain(body: &mut RequestBody, settings: &LocationSettings) -> bool {
    let deadline = Instant::now() + settings.lingering_time;
    while Instant::now() < deadline {
        match timeout(settings.lingering_timeout, body.skip()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return true,
            _ => return false,
        }
    }
    false
}

//! A tunnel, from the finished switch to its end.
//!
//! Both sockets go to the relay with everything that was read ahead. What stays here is no task and
//! no request, only what must be said at the end.

pub(crate) mod about;
mod conclusion;
mod message;
mod meters;
pub(crate) mod portable;
pub(crate) mod reauth;
pub(crate) mod table;

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use wssgate_config::model::{Lifetime, Location, LogLevel, TunnelSettings};
use wssgate_relay::listing::Label;
use wssgate_relay::{
    EndCause, Handover, Leg, LegTls, Origin, Progress, Protocol, Side, Timers, TunnelEnd,
};
use wssgate_sys::errno::ECONNRESET;
use wssgate_sys::socket;
use wssgate_ws::conversation::{Meters, Notes, PerSide, Policy};
use wssgate_ws::{Extensions, conversation};

use crate::clock::{self, millis};
use crate::exchange::access_log;
use crate::exchange::request::Request;
use crate::exchange::response::Reply;
use crate::exchange::websocket::Record;
use crate::generation::Generation;
use crate::limit::Held;
use crate::listen::{ClientStream, Stream};
use crate::metrics::{HandshakeFailure, WorkerCounters};
use crate::peers::sticky::{PeerId, SessionKey, Sessions};
use crate::peers::{Connection, Lease, MOMENT, Peer, PeerStream};
use crate::site::Open;
use crate::tls::keys::{self, DetachError, Detached};
use about::About;
use conclusion::Conclusion;
use meters::Metered;
use reauth::Asked;
use table::Tunnels;

/// An upstream that has switched protocols.
pub struct Switch {
    /// The 101 for the client, until it is sent.
    pub reply: Reply,
    /// What it says the WebSocket speaks.
    pub(crate) subprotocol: Option<Bytes>,
    /// Its side of the tunnel.
    pub(crate) upstream: Leg,
    pub(crate) lease: Lease,
    /// Its session for `sticky learn`.
    pub(crate) session: Option<Box<TunnelSession>>,
    /// Those of the WebSocket that follows; none if something else does.
    pub(crate) extensions: Option<Extensions>,
    pub(crate) began: Instant,
}

/// Why a switch cannot become a tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    #[error("cannot take over the connection: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] DetachError),
}

/// Begins a tunnel, after the 101 was sent. `input` is what the client sent behind its request.
///
/// The access lines of the request are written when the tunnel ends, or now if it cannot begin.
pub(crate) async fn begin(
    mut request: Request,
    client: ClientStream,
    input: BytesMut,
    switch: Switch,
    tunnels: &Tunnels,
) {
    let handshake = request.arrival.at.elapsed();
    request.tunnel.handshake = Some(handshake);
    request.tunnel.is_websocket = switch.extensions.is_some();
    let Switch { reply: _, subprotocol, upstream, lease, session, extensions, began } = switch;
    let about = About::new(&request, &lease, subprotocol.as_deref());
    match legs(client, input, upstream, &request) {
        Ok(legs) => {
            let metered = Metered::of(&request);
            let mut handover =
                handover(&request, lease.peer(), legs, extensions, metered.as_deref());
            let label = Label::new(about);
            let site = Rc::clone(&request.site);
            let open = site.open();
            let limits = request.limits.held.take().into();
            let is_websocket = request.tunnel.is_websocket;
            let asked = is_websocket.then(|| Asked::of(&request)).flatten();
            let mut conclusion = Conclusion::new(request, began);
            conclusion.server_counters().handshake.observe(handshake);
            conclusion.open();
            let tunnel = Tunnel {
                conclusion,
                session,
                lease,
                open,
                asked,
                limits,
                metered,
                label: label.clone(),
                is_websocket,
            };
            handover.label = Some(label);
            tunnels.carry(handover, tunnel, &site);
        }
        Err(error) => {
            request.log(LogLevel::Error, format_args!("{error} while switching protocols"));
            request.site.metrics.failed_handshakes.count(HandshakeFailure::Switch);
            access_log::write(&request).await;
        }
    }
}

/// What a worker keeps of a tunnel that its relay carries.
pub(crate) struct Tunnel {
    conclusion: Conclusion,
    /// The peer is busy for least_conn and max_conns until the end.
    lease: Lease,
    session: Option<Box<TunnelSession>>,
    open: Open,
    /// Where `websocket_reauth` wants it.
    asked: Option<Rc<Asked>>,
    /// `limit_conn` counts it until the end.
    limits: Box<[Held]>,
    /// Who counts what its sides send.
    metered: Option<Box<Metered>>,
    /// What listings tell of it.
    label: Label,
    is_websocket: bool,
}

/// The session that a tunnel belongs to. It is in use until the tunnel ends.
pub(crate) struct TunnelSession {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) key: SessionKey,
    pub(crate) peer: PeerId,
    /// Whether it was created with the tunnel.
    pub(crate) new: bool,
}

impl Tunnel {
    /// The peer on its other side.
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        self.lease.shared_peer()
    }

    /// The generation that it began with, or came to from another process.
    pub(crate) fn generation(&self) -> &Arc<Generation> {
        self.conclusion.generation()
    }

    /// Says what was found while it goes on.
    pub(crate) fn note(&self, notes: &Notes) {
        let sides = [("client", notes.silent.client), ("upstream", notes.silent.server)];
        for (side, _) in sides.into_iter().filter(|(_, silent)| *silent) {
            self.conclusion.note(format_args!("{side} does not answer pings"));
        }
        let sides = [("client", notes.broken.client), ("upstream", notes.broken.server)];
        for (side, _) in sides.into_iter().filter(|(_, broken)| *broken) {
            self.conclusion.note(format_args!("{side} sent an invalid WebSocket frame"));
        }
    }

    /// It is carried here, if it was not before.
    pub(crate) fn arrive(&self) {
        self.conclusion.arrive();
    }

    /// It goes on in another process: nothing is said here, and nothing counts it any more.
    pub(crate) fn leave(self) {
        self.conclusion.leave();
    }

    /// Tells what has passed while it goes on.
    pub(crate) fn tell(&mut self, progress: Progress) {
        self.conclusion.tell(progress.into());
    }

    /// Says how it ended.
    pub(crate) fn end(self, end: &TunnelEnd) {
        let Self { conclusion, lease, session, open, .. } = self;
        let record = Record::from(end);
        count_end(&conclusion, open.counters(), end, &record);
        // Its line does not count the tunnel any more.
        drop(open);
        if let Some(session) = session {
            session.sessions.learn(session.key, session.peer, session.new, Instant::now());
        }
        if is_failure_of_peer(end) {
            conclusion.count_failure(lease);
        }
        conclusion.conclude(end, record);
    }
}

fn count_end(conclusion: &Conclusion, worker: &WorkerCounters, end: &TunnelEnd, record: &Record) {
    let code = record.first_close().map(|(code, _)| code.0);
    worker.ends.count(record.word().unwrap_or_default(), code);
    conclusion.server_counters().lifetime.observe(end.duration);
}

/// Whether a tunnel that ended so is a failure of its peer. How others end says nothing of its
/// health: a peer that closes in good order means it, and after a while it may have any reason.
fn is_failure_of_peer(end: &TunnelEnd) -> bool {
    end.cause == EndCause::Broken(Side::Upstream, ECONNRESET)
        && end.duration < MOMENT
        // Else it has closed: what its connection does afterwards says nothing.
        && end.upstream.close.is_none()
}

/// What a connection becomes whose upstream has switched protocols; with what was read ahead.
pub(crate) fn upstream_leg(connection: Connection) -> Result<Leg, HandoverError> {
    let (stream, read, ended) = connection.into_parts();
    let mut leg = match stream {
        PeerStream::Plain(stream) => plain_leg(stream, read)?,
        PeerStream::Tls(stream) => tls_leg(keys::detach(stream)?, read)?,
    };
    leg.ended |= ended;
    Ok(leg)
}

fn legs(
    client: ClientStream,
    input: BytesMut,
    upstream: Leg,
    request: &Request,
) -> Result<(Leg, Leg), HandoverError> {
    let client = match client {
        ClientStream::Plain(stream) => plain_leg(stream, input)?,
        ClientStream::Tls(stream) => tls_leg(keys::detach(stream)?, input)?,
        ClientStream::Keyed(keyed) => tls_leg(keyed.into_detached(), input)?,
    };
    let location = request.location();
    for leg in [&client, &upstream] {
        let user_timeout = location.proxy.websocket_tcp_user_timeout;
        set_tcp_options(leg, location.settings.tcp_nodelay, user_timeout)?;
    }
    Ok((client, upstream))
}

/// `nodelay` is what every TCP connection has until here.
fn set_tcp_options(leg: &Leg, nodelay: bool, user_timeout: Option<Duration>) -> io::Result<()> {
    if leg.unix {
        return Ok(());
    }
    if !nodelay {
        socket::set_nodelay(leg.socket.as_fd(), false)?;
    }
    user_timeout.map_or(Ok(()), |timeout| socket::set_user_timeout(leg.socket.as_fd(), timeout))
}

fn plain_leg(stream: Stream, read: BytesMut) -> Result<Leg, HandoverError> {
    let unix = stream.is_unix();
    Ok(Leg { unix, ..Leg::plain(stream.into_fd()?, read.into()) })
}

fn tls_leg(detached: Detached<Stream>, read: BytesMut) -> Result<Leg, HandoverError> {
    let Detached { socket, keys, flaw, unsent, plaintext: opened, ciphertext, ended } = detached;
    if let Some(flaw) = flaw {
        return Err(flaw.into());
    }
    let mut plaintext: Vec<u8> = read.into();
    plaintext.extend_from_slice(&opened);
    let unix = socket.is_unix();
    let tls = LegTls::Keys(keys);
    Ok(Leg { socket: socket.into_fd()?, unix, tls, unsent, plaintext, ciphertext, ended })
}

fn handover(
    request: &Request,
    peer: &Peer,
    (client, upstream): (Leg, Leg),
    extensions: Option<Extensions>,
    metered: Option<&Metered>,
) -> Handover {
    let location = request.location();
    let proxy = &location.proxy;
    Handover {
        ticket: 0,
        origin: Origin {
            generation: request.generation.number,
            // Nobody writes as many.
            location: request.route.location.0 as u32,
            server: peer.number(),
        },
        client,
        upstream,
        protocol: match (extensions, request.generation.policy(request.route.location)) {
            (Some(extensions), Some(policy)) => {
                let meters = metered.map(Metered::meters);
                let settings = settings(request, extensions, policy, &proxy.tunnels, meters);
                Protocol::WebSocket(settings)
            }
            _ => Protocol::Other,
        },
        timers: timers(location, request.tunnel.is_websocket),
        buffer_size: proxy.buffer_size,
        label: None,
    }
}

/// How long the tunnels of a location wait for what.
fn timers(location: &Location, is_websocket: bool) -> Timers {
    let Location { proxy, settings, .. } = location;
    Timers {
        read: proxy.read_timeout,
        upstream_send: proxy.send_timeout,
        client_send: settings.send_timeout,
        // No directive of nginx's speaks of it, because nginx ends such a tunnel at once.
        half_close: proxy.read_timeout,
        progress: is_websocket.then(|| access_log::shortest_interval(settings)).flatten(),
    }
}

/// What a conversation is begun with.
fn settings(
    request: &Request,
    extensions: Extensions,
    policy: &Arc<Policy>,
    tunnels: &TunnelSettings,
    meters: Option<Box<PerSide<Meters>>>,
) -> conversation::Settings {
    let mut mark = [0; 4];
    // Without random numbers the mark is one that somebody else may have as well; then an end's pong with
    // the same eight bytes would be taken for ours.
    let _ = aws_lc_rs::rand::fill(&mut mark);
    conversation::Settings {
        extensions,
        policy: Arc::clone(policy),
        lifetime_ms: tunnels.max_lifetime.map(lifetime_ms),
        expiry_ms: tunnels.expiry.and_then(|expiry| {
            let at = request.identity.expires()?.checked_add(expiry.grace)?;
            Some(left_ms(at, clock::now()))
        }),
        mark,
        meters,
    }
}

/// What is left until a time of day, in milliseconds; 0 if it is over already.
fn left_ms(at: SystemTime, now: SystemTime) -> u64 {
    at.duration_since(now).map_or(0, millis)
}

/// How long one WebSocket may live, in milliseconds.
fn lifetime_ms(lifetime: Lifetime) -> u64 {
    let mut random = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut random);
    let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
    millis(lifetime.limit - lifetime.jitter.mul_f64(share))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use socket2::SockRef;
    use wssgate_relay::Totals;
    use wssgate_ws::CloseCode;

    use super::*;

    #[test]
    fn tcp_options_are_set_on_tcp_sockets_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let second = Duration::from_secs(1);
        for (nodelay, user_timeout) in [(true, None), (false, None), (true, Some(second))] {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            stream.set_nodelay(true).unwrap();
            let leg = Leg::plain(stream, Vec::new());
            set_tcp_options(&leg, nodelay, user_timeout).unwrap();
            let socket = SockRef::from(&leg.socket);
            assert_eq!(socket.tcp_nodelay().unwrap(), nodelay);
            assert_eq!(socket.tcp_user_timeout().unwrap(), user_timeout);
        }
        let (near, _far) = UnixStream::pair().unwrap();
        let leg = Leg { unix: true, ..Leg::plain(near, Vec::new()) };
        set_tcp_options(&leg, false, Some(second)).unwrap();
    }

    #[test]
    fn what_is_left_of_a_time_is_never_less_than_nothing() {
        let now = clock::now();
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!((left_ms(at(1_500), now), left_ms(now, now)), (1_500, 0));
        assert_eq!(left_ms(now, at(1)), 0);
    }

    #[test]
    fn only_a_reset_right_behind_the_101_is_a_failure_of_the_peer() {
        let (soon, late) = (Duration::from_millis(999), MOMENT);
        for (cause, duration, expected) in [
            (EndCause::Broken(Side::Upstream, ECONNRESET), soon, true),
            (EndCause::Broken(Side::Upstream, ECONNRESET), late, false),
            (EndCause::Broken(Side::Client, ECONNRESET), soon, false),
            (EndCause::Broken(Side::Upstream, 110), soon, false),
            (EndCause::Ended(Side::Upstream), soon, false),
        ] {
            let (client, upstream) = <(Totals, Totals)>::default();
            let end = TunnelEnd { cause, duration, first_close: None, client, upstream };
            assert_eq!(is_failure_of_peer(&end), expected, "{end:?}");
            let upstream = Totals { close: Some(CloseCode::NORMAL), ..end.upstream };
            assert!(!is_failure_of_peer(&TunnelEnd { upstream, ..end }), "it has closed");
        }
    }
}

//! `health_check`: asks peers at intervals whether they are well.
//!
//! A check is a request like those of the location where it is written, made by us and answered to
//! nobody. One worker makes them all, a task for each check and peer; what they find is kept beside the
//! peer, where every worker sees it.

mod websocket;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use wssgate_config::model::{
    CheckKind, Content, HealthCheck, ListenAddr, LocationId, LogLevel, Match, ProxyPass,
    ProxySettings, ServerId,
};
use wssgate_http1::{BodyDecoder, Decoded, Method, ResponseHead, ResponseParser};

use super::attempt::{Cause, Ended, MAX_INTERIM, READING, SENDING, Trouble};
use super::connect::Connecting;
use super::destination::Destination;
use super::plan::Plan;
use super::request::UriPart;
use super::{CONNECTING, record};
use crate::exchange::body::{Complete, Length};
use crate::exchange::request::{Arrival, ConnectionInfo, Origin, Parent, UpstreamState};
use crate::exchange::{Request, RequestBody, variables};
use crate::generation::Generation;
use crate::peers::{Connection, Failure, Group, Peer, READ_SIZE, Turn};
use crate::site::Site;

/// How long a check rests that has panicked.
const REST: Duration = Duration::from_secs(1);

/// How much of a body is looked at, as in nginx.
const MAX_BODY: usize = 256 * 1024;

/// Begins the checks of the newest generation. They go on until what this gives back is dropped.
pub(crate) fn begin(site: &Rc<Site>) -> JoinSet<()> {
    let generation = site.generation();
    let mut tasks = JoinSet::new();
    let Some(http) = &generation.config.http else { return tasks };
    let mut numbers = HashMap::new();
    for (id, server) in http.servers.iter().enumerate() {
        for (at, (location, model)) in server.health_checks.iter().enumerate() {
            // Its number among the checks of its group.
            let next: &mut usize = numbers.entry(model.upstream).or_default();
            let check = Check {
                site: Rc::clone(site),
                group: Arc::clone(&generation.upstreams[model.upstream.0]),
                generation: Arc::clone(&generation),
                server: ServerId(id),
                location: *location,
                at,
                number: *next,
            };
            *next += 1;
            tasks.spawn_local(Rc::new(check).follow());
        }
    }
    tasks
}

/// One `health_check` line.
struct Check {
    site: Rc<Site>,
    generation: Arc<Generation>,
    server: ServerId,
    location: LocationId,
    /// Which one of its server.
    at: usize,
    group: Arc<Group>,
    /// Which one of its group.
    number: usize,
}

impl Check {
    fn model(&self) -> &HealthCheck {
        &self.generation.http().servers[self.server.0].health_checks[self.at].1
    }

    /// Asks each peer that the group has, as it gets and loses them.
    async fn follow(self: Rc<Self>) {
        let mut changes = self.group.changes();
        let mut tasks = JoinSet::new();
        let mut asked = HashMap::<u32, AbortHandle>::new();
        loop {
            changes.borrow_and_update();
            let mut before = std::mem::take(&mut asked);
            for peer in self.group.checked_peers() {
                let number = peer.number();
                let task = before
                    .remove(&number)
                    .unwrap_or_else(|| tasks.spawn_local(Rc::clone(&self).ask(peer)));
                asked.insert(number, task);
            }
            before.into_values().for_each(|task| task.abort());
            tokio::select! {
                // Its sender is in the group, which is held.
                _ = changes.changed() => {}
                Some(ended) = tasks.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        let log = self.generation.logs.error_log(self.location);
                        log.write(LogLevel::Alert, None, "a health check panicked and is begun anew");
                        // What made it panic may do so again.
                        sleep(REST).await;
                    }
                }
            }
            asked.retain(|_, task| !task.is_finished());
        }
    }

    /// Asks one peer again and again.
    async fn ask(self: Rc<Self>, peer: Arc<Peer>) {
        let HealthCheck { interval, jitter, timeout: limit, .. } = *self.model();
        let mut kept = None;
        loop {
            sleep(delay(jitter, random())).await;
            let probe = Probe { check: &self, peer: &peer, doing: Cell::new(CONNECTING) };
            let result = match limit {
                None => probe.run(&mut kept).await,
                Some(limit) => {
                    timeout(limit, probe.run(&mut kept)).await.unwrap_or(Err(Failed::Late))
                }
            };
            if result.is_err() {
                kept = None;
            }
            self.tell(&probe, result);
            sleep(interval).await;
        }
    }

    /// Takes in what a check has found, and says in the log what has changed.
    fn tell(&self, probe: &Probe<'_>, result: Result<(), Failed>) {
        let log = self.generation.logs.error_log(self.location);
        let (passed, why) = match result {
            Ok(()) => (true, None),
            Err(Failed::Test) => (false, None),
            Err(Failed::Late) => (false, Some(Failure::Timeout.to_string())),
            Err(Failed::Because(why)) => (false, Some(why)),
            Err(Failed::Ours(level, why)) => {
                // Of the peer it says nothing.
                return log.write(level, None, format_args!("{why}{}", probe.context()));
            }
        };
        let peer = probe.peer;
        let result = self.group.check_result(peer, self.number, passed, Instant::now());
        if result.concerns_tunnels {
            self.site.unhealthy.send_replace(());
        }
        let (doing, context) = (probe.doing.get(), probe.context());
        if let Some(why) = why {
            let level = if result.turn.is_some() { LogLevel::Error } else { LogLevel::Info };
            log.write(level, None, format_args!("{why} while {doing}{context}"));
        }
        let (level, what) = match result.turn {
            None => return,
            Some(Turn::Up) => (LogLevel::Notice, "healthy"),
            Some(Turn::Down) => (LogLevel::Warn, "unhealthy"),
        };
        log.write(level, None, format_args!("peer is {what} while {doing}{context}"));
    }
}

/// How long a check waits: a part of `jitter` that `random` decides about.
fn delay(jitter: Duration, random: u32) -> Duration {
    jitter.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without it checks come together, and nothing else is different.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// Why a check has not passed.
#[derive(Debug)]
enum Failed {
    /// The response is there and not what it should be.
    Test,
    /// It is not there in time.
    Late,
    /// For this reason, in nginx's words if it has some.
    Because(String),
    /// Something of ours is wrong, so it is no result.
    Ours(LogLevel, String),
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Timeout => Self::Late,
            other => Self::Because(other.to_string()),
        }
    }
}

/// One check of one peer.
struct Probe<'a> {
    check: &'a Check,
    peer: &'a Peer,
    /// What it is at, in nginx's words.
    doing: Cell<&'static str>,
}

impl Probe<'_> {
    /// What lines of the log say of it, in nginx's words.
    fn context(&self) -> String {
        let model = self.check.model();
        let name = match &model.kind {
            CheckKind::Http { matching: Some(matching), .. } => matching.name(),
            _ => b"",
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (name, peer, group) = (text(name), &self.peer.name, text(&self.check.group.name));
        let port = model.port.map(|port| format!(", port {port}")).unwrap_or_default();
        format!(", health check \"{name}\" of peer {peer} in upstream \"{group}\"{port}")
    }

    fn settings(&self) -> &ProxySettings {
        &self.check.generation.http().locations[self.check.location.0].proxy
    }

    /// The pass of the location; the configuration has seen to it that there is one.
    fn pass(&self) -> Option<&ProxyPass> {
        match &self.check.generation.http().locations[self.check.location.0].content {
            Content::Proxy(pass) => Some(pass),
            _ => None,
        }
    }

    /// Where to connect: to the peer, at another port if one is given.
    fn address(&self) -> ListenAddr {
        match (&self.peer.address, self.check.model().port) {
            (ListenAddr::Ip(address), Some(port)) => {
                ListenAddr::Ip(std::net::SocketAddr::new(address.ip(), port))
            }
            (address, _) => address.clone(),
        }
    }

    /// # Errors
    /// When the peer has not passed.
    async fn run(&self, kept: &mut Option<Connection>) -> Result<(), Failed> {
        self.doing.set(CONNECTING);
        let ours = |why: String| Failed::Ours(LogLevel::Error, format!("{why} while {CONNECTING}"));
        let mut request = self.request();
        let Some(pass) = self.pass() else { return Err(ours("no upstream".to_owned())) };
        let destination = Destination::of(&request, pass);
        let mut destination = destination.map_err(|refusal| ours(refusal.to_string()))?;
        destination.uri = UriPart::Whole(Bytes::copy_from_slice(&self.check.model().uri));
        request.upstream.host = destination.host.clone();
        request.upstream.port = destination.port.clone();
        request.upstream.scheme = if destination.tls { "https://" } else { "http://" };
        let address = Bytes::copy_from_slice(self.peer.name.as_bytes());
        let state = UpstreamState { address: Some(address), ..UpstreamState::default() };
        request.upstream.attempts.push(state);
        match &self.check.model().kind {
            CheckKind::WebSocket { subprotocol } => {
                self.websocket(&request, &destination, subprotocol.as_deref()).await
            }
            CheckKind::Http { matching, keepalive } => {
                let body = RequestBody::new(Complete(Length::None));
                let plan = Plan::of(&request, &body, &destination, false);
                let plan = plan.map_err(|refusal| ours(refusal.to_string()))?;
                request.upstream.target = plan.target.clone();
                let lasts = |connection: &Connection| {
                    keepalive.is_some_and(|time| connection.made.elapsed() < time)
                        && connection.is_clean()
                };
                let before = kept.take().filter(lasts);
                let after = self.http(&mut request, &destination, &plan, before).await?;
                self.judge(&mut request, after, &plan, matching.as_deref(), kept).await
            }
        }
    }

    /// A request that nobody has sent us.
    fn request(&self) -> Request {
        let Check { generation, site, .. } = self.check;
        let (model, http) = (self.check.model(), generation.http());
        let connection = ConnectionInfo {
            serial: 0,
            peer: None,
            told: None,
            local: http.sockets.first().map_or_else(
                || ListenAddr::Unix(Default::default()),
                |socket| socket.address.clone(),
            ),
            socket: 0,
            tls: None,
            accepted: Instant::now(),
            requests: Cell::new(1),
            holder: Default::default(),
        };
        let arrival = Arrival::new(Bytes::new(), Instant::now(), false);
        let (generation, site) = (Arc::clone(generation), Rc::clone(site));
        let mut request =
            Request::new(generation, site, Rc::new(connection), self.check.server, arrival);
        let get = Bytes::from_static(b"GET");
        request.route.location = self.check.location;
        request.route.origin = Origin::Subrequest(Parent {
            method_name: get.clone(),
            depth: 0,
            or_nothing: true,
            own: true,
        });
        request.target.method = Method::Get;
        request.target.method_name = get;
        let mut parts = model.uri.splitn(2, |byte| *byte == b'?');
        request.target.path = Bytes::copy_from_slice(parts.next().unwrap_or_default());
        let args = Bytes::copy_from_slice(parts.next().unwrap_or_default());
        *request.target.args.borrow_mut() = args;
        request.target.as_sent.set(false);
        request
    }

    async fn connect(
        &self,
        request: &Request,
        destination: &Destination<'_>,
    ) -> Result<Connection, Failed> {
        self.doing.set(CONNECTING);
        let connecting = Connecting { request, settings: self.settings(), destination };
        let key = connecting.key(&self.check.group, &self.address());
        match connecting.connect(&key).await {
            Ok(connection) => Ok(connection),
            Err(Ended::Upstream(Trouble { cause: Cause::Shortage(resource), message })) => {
                let untold = self.check.site.shortages.note(resource, Instant::now());
                let (level, untold) = match untold {
                    Some(untold) => (LogLevel::Alert, untold.to_string()),
                    None => (LogLevel::Debug, String::new()),
                };
                let advice = resource.advice();
                Err(Failed::Ours(level, format!("{message}: {advice}{untold}")))
            }
            Err(Ended::Upstream(trouble)) => {
                let (why, doing) = trouble.message.rsplit_once(" while ").unzip();
                if doing == Some(super::connect::SHAKING) {
                    self.doing.set(super::connect::SHAKING);
                }
                Err(Failed::Because(why.unwrap_or(&trouble.message).to_owned()))
            }
            Err(Ended::Own(message)) => Err(Failed::Ours(LogLevel::Error, message)),
            // Nobody is there who could go, and there is no body.
            Err(Ended::ClientGone | Ended::Body(_)) => Err(Failed::Test),
        }
    }

    /// Sends the request, over a connection of `before` if there is one that is still good, and reads
    /// the head of the response.
    async fn http(
        &self,
        request: &mut Request,
        destination: &Destination<'_>,
        plan: &Plan,
        before: Option<Connection>,
    ) -> Result<(Connection, ResponseHead), Failed> {
        if let Some(mut connection) = before {
            connection.reuse();
            match self.exchange(request, &connection, plan.head.clone()).await {
                Ok(head) => return Ok((connection, head)),
                Err(Failed::Late) => return Err(Failed::Late),
                // The peer may have closed it just now, which says nothing of it.
                Err(_) => {}
            }
        }
        let began = Instant::now();
        let connection = self.connect(request, destination).await?;
        if let Some(state) = request.upstream.attempts.last_mut() {
            state.connect_time = Some(began.elapsed());
        }
        let head = self.exchange(request, &connection, plan.head.clone()).await?;
        Ok((connection, head))
    }

    async fn exchange(
        &self,
        request: &mut Request,
        connection: &Connection,
        text: Bytes,
    ) -> Result<ResponseHead, Failed> {
        let began = Instant::now();
        self.doing.set(SENDING);
        connection.write(text, self.settings().send_timeout).await?;
        let head = self.head(connection).await?;
        record(request, connection, Some(&head), began);
        if let Some(state) = request.upstream.attempts.last_mut() {
            state.status = head.status();
            state.header_time = Some(began.elapsed());
        }
        request.upstream.head = Some(head.clone());
        Ok(head)
    }

    /// The head of the response, behind interim ones; all of it within `proxy_read_timeout`.
    async fn head(&self, connection: &Connection) -> Result<ResponseHead, Failed> {
        self.doing.set(READING);
        let reading = async {
            let (mut parser, mut interim) = (ResponseParser::new(), 0);
            let max = self.settings().buffer_size;
            loop {
                match connection.with_input(|input| parser.parse(input, max)) {
                    Ok(Some(head)) if head.is_interim() && interim < MAX_INTERIM => interim += 1,
                    Ok(Some(head)) if head.is_interim() => {
                        let why = "upstream sent too many interim responses";
                        return Err(Failed::Because(why.to_owned()));
                    }
                    Ok(Some(head)) => return Ok(head),
                    Ok(None) if connection.fill(max).await? == 0 => {
                        return Err(Failure::Closed.into());
                    }
                    Ok(None) => {}
                    Err(error) => return Err(Failed::Because(error.to_string())),
                }
            }
        };
        timeout(self.settings().read_timeout, reading).await.unwrap_or(Err(Failure::Timeout.into()))
    }

    /// Tests a response. Its connection is `kept` if it can be used again, for who wants that.
    async fn judge(
        &self,
        request: &mut Request,
        (connection, head): (Connection, ResponseHead),
        plan: &Plan,
        matching: Option<&Match>,
        kept: &mut Option<Connection>,
    ) -> Result<(), Failed> {
        self.doing.set("checking status code");
        let status = head.status();
        let is_good = match matching {
            Some(matching) => matching.takes_status(status),
            None => (200..400).contains(&status),
        };
        if !is_good {
            return Err(Failed::Test);
        }
        let keeps = matches!(self.check.model().kind, CheckKind::Http { keepalive: Some(_), .. });
        let tests_body = matching.is_some_and(Match::tests_body);
        if let Some(matching) = matching.filter(|matching| matching.tests_fields()) {
            self.doing.set("checking header");
            if !matching.takes_fields(head.fields().iter()) {
                return Err(Failed::Test);
            }
        }
        if keeps || tests_body {
            let (body, whole) = self.body(&connection, &head, plan.method).await?;
            if let Some(matching) = matching.filter(|_| tests_body) {
                self.doing.set("checking body");
                if !matching.takes_body(&body) {
                    return Err(Failed::Test);
                }
            }
            let framing = head.framing(plan.method);
            let lasts = whole && framing.is_ok_and(|framing| head.keeps_alive(framing));
            if keeps && lasts && !plan.closes {
                *kept = Some(connection);
            }
        }
        let required = matching.map_or(&[][..], Match::required);
        if !required.is_empty() {
            self.doing.set("checking variables");
            let is_true = |value| variables::is_true(&request.text(value));
            if !required.iter().all(is_true) {
                return Err(Failed::Test);
            }
        }
        Ok(())
    }

    /// The beginning of the body, and whether that is all of it.
    async fn body(
        &self,
        connection: &Connection,
        head: &ResponseHead,
        method: Method,
    ) -> Result<(BytesMut, bool), Failed> {
        self.doing.set("reading upstream");
        let framing = head.framing(method).map_err(|error| Failed::Because(error.to_string()))?;
        let (mut decoder, mut body) = (BodyDecoder::from(framing), BytesMut::new());
        while body.len() < MAX_BODY {
            match connection.with_input(|input| decoder.decode(input)) {
                Ok(Decoded::Data(data)) => body.extend_from_slice(&data),
                Ok(Decoded::End { .. }) => return Ok((body, true)),
                Ok(Decoded::NeedMore) => {
                    let filling = connection.fill(READ_SIZE);
                    let filled = timeout(self.settings().read_timeout, filling).await;
                    if filled.map_err(|_| Failure::Timeout)?? == 0 {
                        return match decoder {
                            BodyDecoder::UntilClose => Ok((body, false)),
                            _ => Err(Failure::Closed.into()),
                        };
                    }
                }
                Err(error) => return Err(Failed::Because(format!("upstream sent {error}"))),
            }
        }
        body.truncate(MAX_BODY);
        Ok((body, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_a_part_of_the_jitter() {
        let jitter = Duration::from_secs(4);
        assert_eq!(delay(jitter, 0), Duration::ZERO);
        assert_eq!(delay(jitter, u32::MAX), jitter);
        let half = delay(jitter, u32::MAX / 2);
        assert!(half > Duration::from_millis(1999) && half < Duration::from_millis(2001));
        assert_eq!(delay(Duration::ZERO, u32::MAX), Duration::ZERO);
    }
}

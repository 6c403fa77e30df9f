//! Which tunnels an answer shows, in which order, and how.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use wssgate_config::value;
use wssgate_relay::{Side, Totals};

use super::current::Current;
use super::query::{Query, QueryError};
use super::walk::Row;
use crate::auth::revocations::{self, Kind};
use crate::clock::millis;
use crate::tunnel::about;

/// Rows of one answer unless it is said.
const ROWS: usize = 100;

/// The most rows of one answer.
const MAX_ROWS: usize = 1000;

/// The names of all parts of a [`Filter`], in the order in which people see them.
pub const FILTERS: [&str; 15] = [
    "id",
    "user",
    "client",
    "upstream",
    "server",
    "location",
    "subprotocol",
    "subject",
    "token_id",
    "generation",
    "worker",
    "min_age",
    "min_idle",
    "min_rate",
    "min_rtt",
];

/// Which tunnels are meant; all parts must fit.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    id: Option<u64>,
    user: Option<String>,
    client: Option<(IpAddr, u8)>,
    upstream: Option<String>,
    server: Option<String>,
    location: Option<String>,
    subprotocol: Option<String>,
    subject: Option<String>,
    token_id: Option<String>,
    generation: Option<u64>,
    worker: Option<usize>,
    min_age: Option<Duration>,
    min_idle: Option<Duration>,
    min_rate: Option<u64>,
    min_rtt: Option<Duration>,
}

impl Filter {
    /// The one with this number.
    pub(super) fn of_id(id: u64) -> Self {
        Self { id: Some(id), ..Self::default() }
    }

    pub(super) fn parse(query: &mut Query) -> Result<Self, QueryError> {
        let network = |text: &str| {
            let (address, bits, _) = value::network(text.as_bytes())?;
            Some((address, bits))
        };
        // As much of a name as is kept, so that long ones are found.
        let kept = |name: Option<String>| {
            name.map(|name| revocations::text_of(name.as_bytes()).into_string())
        };
        Ok(Self {
            id: query.number("id")?,
            user: kept(query.text("user")),
            client: query.read("client", "an address or a network is expected", network)?,
            upstream: query.text("upstream"),
            server: query.text("server"),
            location: query.text("location"),
            subprotocol: query
                .text("subprotocol")
                .map(|name| about::subprotocol_text(name.as_bytes()).into()),
            subject: kept(query.text("subject")),
            token_id: kept(query.text("token_id")),
            generation: query.number("generation")?,
            worker: query.number("worker")?,
            min_age: query.duration("min_age")?,
            min_idle: query.duration("min_idle")?,
            min_rate: query.number("min_rate")?,
            min_rtt: query.duration("min_rtt")?,
        })
    }

    /// Whether it says nothing, so that every tunnel is meant.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            id,
            user,
            client,
            upstream,
            server,
            location,
            subprotocol,
            subject,
            token_id,
            generation,
            worker,
            min_age,
            min_idle,
            min_rate,
            min_rtt,
        } = self;
        id.is_none()
            && [user, upstream, server, location, subprotocol, subject, token_id]
                .into_iter()
                .all(Option::is_none)
            && client.is_none()
            && generation.is_none()
            && worker.is_none()
            && [min_age, min_idle, min_rtt].into_iter().all(Option::is_none)
            && min_rate.is_none()
    }

    /// Server, location and upstream, if it says something of those and of nothing else.
    pub(super) fn place(&self) -> Option<(Option<String>, Option<String>, Option<String>)> {
        let mut rest = self.clone();
        let names = (rest.server.take(), rest.location.take(), rest.upstream.take());
        (rest.is_empty() && !self.is_empty()).then_some(names)
    }

    pub(super) fn fits(&self, row: &Row) -> bool {
        let (about, live) = (&*row.about, &row.live);
        let is = |wanted: &Option<String>, found: Option<&str>| {
            // An empty text asks for those that have none.
            wanted.as_deref().is_none_or(|wanted| wanted == found.unwrap_or(""))
        };
        let place = &*about.place;
        self.id.is_none_or(|id| id == about.id)
            && is(&self.user, about.user.as_deref())
            && is(&self.subject, about.name(Kind::Subject))
            && is(&self.token_id, about.name(Kind::TokenId))
            && is(&self.server, Some(&place.server))
            && is(&self.location, Some(&place.location))
            && is(&self.subprotocol, about.subprotocol.as_deref())
            && self.upstream.as_deref().is_none_or(|wanted| {
                wanted == &*about.peer.name || place.upstream.as_deref() == Some(wanted)
            })
            && self.client.is_none_or(|network| {
                about.client.is_some_and(|client| is_within(client.ip(), network))
            })
            && self.generation.is_none_or(|number| number == live.generation)
            && self.worker.is_none_or(|worker| worker == row.worker)
            && self.min_age.is_none_or(|least| live.passed.duration >= least)
            && self.min_idle.is_none_or(|least| live.idle >= least)
            && self.min_rate.is_none_or(|least| rate(row) >= least)
            && self.min_rtt.is_none_or(|least| rtt(row).is_some_and(|rtt| rtt >= least))
    }
}

fn is_within(address: IpAddr, (network, bits): (IpAddr, u8)) -> bool {
    let (address, width) = match (address.to_canonical(), network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits() ^ network.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits() ^ network.to_bits(), 128),
        _ => return false,
    };
    // What differs must lie behind the first bits.
    address.checked_shr(width - u32::from(bits)).unwrap_or(0) == 0
}

/// By what rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Age,
    Idle,
    Messages,
    Bytes,
    Rate,
    Current,
    Rtt,
}

impl Key {
    const ALL: [(&str, Self); 8] = [
        ("id", Self::Id),
        ("age", Self::Age),
        ("idle", Self::Idle),
        ("messages", Self::Messages),
        ("bytes", Self::Bytes),
        ("rate", Self::Rate),
        ("current", Self::Current),
        ("rtt", Self::Rtt),
    ];

    fn of(self, row: &Row) -> u64 {
        match self {
            Self::Id => row.about.id,
            // Of an age the order stays, however long the next question is in coming.
            Self::Age => u64::MAX - row.about.opened_ms,
            Self::Idle => millis(row.live.idle),
            Self::Messages => sum(row, messages),
            Self::Bytes => sum(row, |totals| totals.received),
            Self::Rate => rate(row),
            Self::Current => row.current.map_or(0, |current| current.bytes),
            Self::Rtt => rtt(row).map_or(0, millis),
        }
    }
}

/// Where a row stands among the others, first ones less; numbers decide between equals.
type Rank = (u64, u64);

/// Which rows of those that fit are shown: the first ones behind a place.
#[derive(Debug)]
pub(super) struct Pager {
    key: Key,
    /// The greatest value comes first.
    descends: bool,
    after: Option<Rank>,
    limit: usize,
    /// Rows tell of current rates.
    pub(super) current: bool,
    rows: Vec<(Rank, Row)>,
    /// How many rows have fitted, shown or not.
    matched: u64,
}

impl Pager {
    pub(super) fn parse(query: &mut Query) -> Result<Self, QueryError> {
        let key = |text: &str| Key::ALL.iter().find(|(name, _)| *name == text).map(|(_, key)| *key);
        let expected = "id, age, idle, messages, bytes, rate, current or rtt is expected";
        let key = query.read("sort", expected, key)?.unwrap_or(Key::Id);
        let order = |text: &str| match text {
            "asc" => Some(false),
            "desc" => Some(true),
            _ => None,
        };
        let descends = query.read("order", "asc or desc is expected", order)?;
        let after = |text: &str| {
            let (value, id) = text.split_once('.')?;
            Some((value.parse().ok()?, id.parse().ok()?))
        };
        let limit = |text: &str| text.parse().ok().filter(|limit| (1..=MAX_ROWS).contains(limit));
        Ok(Self {
            key,
            // Who asks for the slowest wants to see them first.
            descends: descends.unwrap_or(key != Key::Id),
            after: query.read("after", "the \"next\" of an answer is expected", after)?,
            limit: query
                .read("limit", "a number from 1 to 1000 is expected", limit)?
                .unwrap_or(ROWS),
            current: query.flag("current")? || key == Key::Current,
            rows: Vec::new(),
            matched: 0,
        })
    }

    /// Takes a row that fits.
    pub(super) fn add(&mut self, row: Row) {
        self.matched += 1;
        let value = self.key.of(&row);
        let rank = (if self.descends { u64::MAX - value } else { value }, row.about.id);
        if self.after.is_some_and(|after| rank <= after) {
            return;
        }
        self.rows.push((rank, row));
        // Never many more than are shown, however many fit.
        if self.rows.len() >= 2 * self.limit + 64 {
            self.rows.select_nth_unstable_by_key(self.limit, |(rank, _)| *rank);
            // One more than is shown, which tells that more follow.
            self.rows.truncate(self.limit + 1);
        }
    }

    /// The answer.
    pub(super) fn finish(mut self) -> Value {
        self.rows.sort_unstable_by_key(|(rank, _)| *rank);
        let has_more = self.rows.len() > self.limit;
        self.rows.truncate(self.limit);
        let last = self.rows.last().filter(|_| has_more);
        let next = last.map(|((value, id), _)| format!("{value}.{id}"));
        let tunnels: Vec<_> = self
            .rows
            .iter()
            .map(|(_, row)| {
                let mut shown = row.json();
                if self.current {
                    shown["current"] = row.current.map_or(Value::Null, Current::json);
                }
                shown
            })
            .collect();
        json!({"matched": self.matched, "next": next, "tunnels": tunnels})
    }
}

impl Row {
    /// As answers have it.
    pub(super) fn json(&self) -> Value {
        let (about, live) = (&*self.about, &self.live);
        let passed = &live.passed;
        let seconds = |time: Duration| millis(time) as f64 / 1000.0;
        let side = |totals: &Totals| {
            json!({
                "messages": totals.frames.map(|counts| counts.messages),
                "bytes": totals.received,
                "pings": totals.frames.map(|counts| counts.pings),
                "rtt": totals.rtt.map(seconds),
                "blocked": seconds(totals.blocked),
                "close": totals.close.map(|code| code.0),
                "sent_close": totals.own_close.map(|code| code.0),
            })
        };
        json!({
            "id": about.id.to_string(),
            "state": if live.is_ending { "closing" } else { "open" },
            "websocket": live.is_websocket,
            "client": about.client.map_or_else(|| "unix:".to_owned(), |client| client.to_string()),
            "user": about.user,
            "subject": about.name(Kind::Subject),
            "token_id": about.name(Kind::TokenId),
            "server": about.place.server,
            "location": about.place.location,
            "upstream": about.place.upstream,
            "peer": about.peer.name,
            "subprotocol": about.subprotocol,
            "generation": live.generation,
            "worker": self.worker,
            "opened": about.opened_ms as f64 / 1000.0,
            "age": seconds(passed.duration),
            "idle": seconds(live.idle),
            "rate": rate(self),
            "first_close": passed.first_close.map(|side| match side {
                Side::Client => "client",
                Side::Upstream => "upstream",
            }),
            "from_client": side(&passed.client),
            "from_upstream": side(&passed.upstream),
        })
    }
}

impl Current {
    fn json(self) -> Value {
        let over = millis(self.over) as f64 / 1000.0;
        json!({"bytes": self.bytes, "messages": self.messages, "over": over})
    }
}

fn sum(row: &Row, of: impl Fn(&Totals) -> u64) -> u64 {
    of(&row.live.passed.client) + of(&row.live.passed.upstream)
}

fn messages(totals: &Totals) -> u64 {
    totals.frames.map_or(0, |counts| counts.messages)
}

/// Bytes a second, both ways together, over the whole life.
fn rate(row: &Row) -> u64 {
    let bytes = u128::from(sum(row, |totals| totals.received));
    let lived_ms = row.live.passed.duration.as_millis().max(1);
    u64::try_from(bytes * 1000 / lived_ms).unwrap_or(u64::MAX)
}

/// The longer one of both sides.
fn rtt(row: &Row) -> Option<Duration> {
    row.live.passed.client.rtt.max(row.live.passed.upstream.rtt)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use wssgate_config::model::{ListenAddr, Recovery, UpstreamServer, WebSocketTap};
    use wssgate_relay::Progress;
    use wssgate_relay::listing::{Handle, Label, Live};
    use wssgate_ws::Counts;

    use super::*;
    use crate::generation::Place;
    use crate::peers::{Group, Peer};
    use crate::tunnel::about::{About, TokenNames};

    fn peer() -> Arc<Peer> {
        let server = UpstreamServer {
            name: b"app".as_slice().into(),
            addresses: vec![ListenAddr::Ip("10.0.0.9:80".parse().unwrap())],
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            slow_start: Duration::ZERO,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
            drain: false,
            route: None,
            resolve: None,
        };
        let group = Group::of_server(server, Recovery::Eager);
        let mut selection = group.selection(b"", None, 0);
        Arc::clone(group.choose(&mut selection, Instant::now()).unwrap().shared_peer())
    }

    #[test]
    fn what_a_filter_says_is_told_under_its_names() {
        for name in FILTERS {
            let value = if name == "client" { "::1" } else { "1" };
            let args = format!("{name}={value}");
            let mut query = Query::parse(args.as_bytes()).unwrap();
            // The log calls what is meant so; else it would be everything.
            assert_eq!(query.meaning(), args);
            let filter = Filter::parse(&mut query).unwrap();
            assert!(!filter.is_empty(), "{name}");
            assert_eq!(query.finish(), Ok(()), "{name}");
        }
    }

    /// A tunnel that began `id` seconds after the first one, and has got `messages` of 100 bytes.
    pub(in super::super) fn row(
        id: u64,
        messages: u64,
        edit: impl FnOnce(&mut About, &mut Live),
    ) -> Row {
        let place = Place {
            server: "a.test".into(),
            location: "/chat".into(),
            upstream: Some("chat".into()),
            tap: WebSocketTap::Headers,
        };
        let mut about = About {
            id,
            place: Arc::new(place),
            peer: peer(),
            client: Some("192.0.2.7:5000".parse().unwrap()),
            subprotocol: None,
            user: Some("ann".into()),
            token: None,
            opened_ms: 1_000 * id,
        };
        let counts = Counts { messages, ..Counts::default() };
        let totals = Totals { received: 100 * messages, frames: Some(counts), ..Totals::default() };
        let mut live = Live {
            handle: Handle::new(0, &Label::new(id)),
            generation: 3,
            is_websocket: true,
            idle: Duration::from_secs(5),
            is_ending: false,
            is_closing: false,
            passed: Progress {
                duration: Duration::from_secs(10),
                client: totals,
                ..Progress::default()
            },
        };
        edit(&mut about, &mut live);
        Row { worker: 1, about: Arc::new(about), live, current: None }
    }

    #[test]
    fn all_parts_of_a_filter_must_fit() {
        let row = row(7, 30, |about, live| {
            about.subprotocol = Some("v1".into());
            about.token = Some(Box::new(TokenNames { subject: Some("a1".into()), id: None }));
            live.passed.client.rtt = Some(Duration::from_millis(20));
        });
        for (args, expected) in [
            ("", true),
            ("id=7", true),
            ("id=8", false),
            ("user=ann", true),
            ("user=an", false),
            ("user=", false),
            ("subject=a1", true),
            ("subject=a", false),
            ("subject=a1&token_id=", true),
            ("token_id=a1", false),
            ("client=192.0.2.7", true),
            ("client=192.0.2.0/24", true),
            ("client=192.0.3.0/24", false),
            ("client=0.0.0.0/0", true),
            ("client=::/0", false),
            ("upstream=chat", true),
            ("upstream=10.0.0.9:80", true),
            ("upstream=other", false),
            ("server=a.test&location=%2Fchat&subprotocol=v1&generation=3&worker=1", true),
            ("server=a.test&location=/&subprotocol=v1&generation=3&worker=1", false),
            ("subprotocol=", false),
            ("worker=0", false),
            ("min_age=10s&min_idle=5s&min_rate=300&min_rtt=20ms", true),
            ("min_age=11s", false),
            ("min_idle=6s", false),
            ("min_rate=301", false),
            ("min_rtt=21ms", false),
        ] {
            let mut query = Query::parse(args.as_bytes()).unwrap();
            let filter = Filter::parse(&mut query).unwrap();
            query.finish().unwrap();
            assert_eq!(filter.fits(&row), expected, "{args}");
            assert_eq!(filter.is_empty(), args.is_empty());
        }
    }

    #[test]
    fn a_network_of_the_other_family_has_no_address() {
        let within = |address: &str, network: &str, bits| {
            is_within(address.parse().unwrap(), (network.parse().unwrap(), bits))
        };
        assert!(within("::ffff:192.0.2.7", "192.0.2.0", 24), "mapped");
        assert!(within("2001:db8::1", "2001:db8::", 32) && within("::1", "::", 0));
        assert!(!within("2001:db9::1", "2001:db8::", 32) && !within("::1", "0.0.0.0", 0));
        assert!(within("192.0.2.7", "192.0.2.7", 32) && !within("192.0.2.6", "192.0.2.7", 32));
    }

    /// The numbers of one page, and where the next one begins.
    fn page(args: &str, rows: impl IntoIterator<Item = Row>) -> (Vec<u64>, Option<String>, u64) {
        let mut pager = Pager::parse(&mut Query::parse(args.as_bytes()).unwrap()).unwrap();
        rows.into_iter().for_each(|row| pager.add(row));
        let answer = pager.finish();
        let tunnels = answer["tunnels"].as_array().unwrap();
        let ids = tunnels.iter().map(|one| one["id"].as_str().unwrap().parse().unwrap());
        let next = answer["next"].as_str().map(str::to_owned);
        (ids.collect(), next, answer["matched"].as_u64().unwrap())
    }

    #[test]
    fn pages_follow_each_other_and_miss_nothing() {
        // Few numbers of messages, so that many are equal; in no order.
        let rows = || (0..1000u64).map(|at| at * 389 % 1000).map(|id| row(id, id % 7, |_, _| {}));
        for (key, order) in [
            ("id", "asc"),
            ("id", "desc"),
            ("messages", "desc"),
            ("messages", "asc"),
            ("age", "desc"),
        ] {
            let (mut all, mut after) = (Vec::new(), String::new());
            loop {
                let args = format!("sort={key}&order={order}&limit=64{after}");
                let (ids, next, matched) = page(&args, rows());
                assert_eq!(matched, 1000);
                all.extend(ids);
                match next {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            let mut expected: Vec<u64> = (0..1000).collect();
            match (key, order) {
                ("id", "desc") => expected.reverse(),
                ("messages", "asc") => expected.sort_by_key(|id| id % 7),
                ("messages", _) => expected.sort_by_key(|id| 6 - id % 7),
                // What has the least number began first and is the oldest.
                _ => {}
            }
            assert_eq!(all, expected, "{key} {order}");
        }
    }

    #[test]
    fn who_asks_for_a_key_gets_the_greatest_first() {
        let rows = || [row(1, 5, |_, _| {}), row(2, 9, |_, _| {}), row(3, 7, |_, _| {})];
        assert_eq!(page("sort=messages", rows()), (vec![2, 3, 1], None, 3));
        assert_eq!(page("sort=rate&limit=1", rows()).0, [2]);
        assert_eq!(page("", rows()).0, [1, 2, 3]);
        assert_eq!(page("limit=3", rows()).1, None, "nothing follows");
        for args in ["sort=x", "order=x", "limit=0", "limit=1001", "after=1"] {
            assert!(Pager::parse(&mut Query::parse(args.as_bytes()).unwrap()).is_err(), "{args}");
        }
    }
}

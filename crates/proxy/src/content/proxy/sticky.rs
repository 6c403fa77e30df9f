//! `sticky` for one request: the peer that its client belongs to, and what tells so the next time.

use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use wssgate_config::model::{CookieLife, LogLevel, Sticky, StickyCookie, is_samesite};
use wssgate_config::template::VariableId;

use super::Proxying;
use crate::clock;
use crate::exchange::request::Request;
use crate::exchange::variables;
use crate::peers::sticky::{Learnt, PeerId, SessionKey};
use crate::peers::{Group, Lease, Selection};
use crate::tunnel::TunnelSession;

/// Lets the peer come first to which the client belongs by what it sends.
pub(super) fn want(request: &Request, group: &Group, selection: &mut Selection) {
    let known = match &group.sticky {
        None => None,
        Some(Sticky::Cookie(cookie)) => first(request, &[cookie.sent]),
        Some(Sticky::Route(names)) => first(request, names),
        Some(Sticky::Learn(learn)) => first(request, &learn.lookup),
    };
    if let Some(id) = known {
        group.want(selection, &id);
    }
}

/// The first value that is not empty.
fn first(request: &Request, names: &[VariableId]) -> Option<Bytes> {
    names.iter().filter_map(|name| variables::value(request, *name)).find(|value| !value.is_empty())
}

impl Proxying<'_> {
    /// Marks the client by a cookie of the chosen peer, in place of that of a peer tried before.
    pub(super) fn mark(&mut self, lease: &Lease) {
        let Some(Sticky::Cookie(cookie)) = &self.group.sticky else { return };
        let line = set_cookie(self.request, cookie, lease.peer().id(), clock::now());
        let cookies = &mut self.request.response.cookies;
        let at = *self.cookie.get_or_insert(cookies.len());
        cookies.truncate(at);
        cookies.push(line);
    }

    /// Remembers the session from the head of a response, if that is what was asked for.
    pub(super) fn learn_at_header(&self, lease: &Lease) {
        if self.learns_at_header() {
            self.learn(lease);
        }
    }

    /// Remembers the session at the end of a response. It is over before the client knows the end,
    /// so that its next request finds the session.
    pub(super) fn learn_at_end(&self, lease: &Lease) {
        if !self.learns_at_header() {
            self.learn(lease);
        }
    }

    fn learns_at_header(&self) -> bool {
        matches!(&self.group.sticky, Some(Sticky::Learn(learn)) if learn.at_header)
    }

    /// Remembers the session at a switch of protocols. nginx does without `header` when the tunnel
    /// ends; until then a client that opens another one would be nobody's.
    pub(super) fn learn_at_switch(&self, lease: &Lease) -> Option<Box<TunnelSession>> {
        self.learn(lease).map(Box::new)
    }

    fn learn(&self, lease: &Lease) -> Option<TunnelSession> {
        let group = self.group;
        let (Some(Sticky::Learn(learn)), Some(sessions)) = (&group.sticky, &group.sessions) else {
            return None;
        };
        let created = first(self.request, &learn.create);
        let new = created.is_some();
        let name = created.or_else(|| first(self.request, &learn.lookup))?;
        let (key, peer) = (SessionKey::of(&name), *lease.peer().id());
        if sessions.learn(key, peer, new, Instant::now()) == Learnt::FirstLost {
            self.request.log(LogLevel::Warn, sessions.full());
        }
        Some(TunnelSession { sessions: sessions.clone(), key, peer, new })
    }
}

/// The `Set-Cookie` line of a peer.
fn set_cookie(request: &Request, cookie: &StickyCookie, id: &PeerId, now: SystemTime) -> Bytes {
    let text = |template: &_| request.text(template);
    let mut line = BytesMut::from(&cookie.name[..]);
    let mut put = |before: &str, value: &[u8]| {
        line.extend_from_slice(before.as_bytes());
        line.extend_from_slice(value);
    };
    put("=", id.as_bytes());
    match cookie.expires {
        CookieLife::Session => {}
        CookieLife::For(life) => {
            put("; expires=", clock::format_cookie_date(end(now, life)).as_bytes());
            put("; max-age=", life.as_secs().to_string().as_bytes());
        }
        CookieLife::Max => {
            put("; expires=", clock::format_cookie_date(LAST_DAY).as_bytes());
            put("; max-age=", b"315360000");
        }
    }
    if let Some(domain) = cookie.domain.as_ref().map(text).filter(|domain| !domain.is_empty()) {
        put("; domain=", &domain);
    }
    if cookie.httponly {
        put("; httponly", b"");
    }
    if cookie.secure {
        put("; secure", b"");
    }
    if let Some(word) = cookie.samesite.as_ref().map(text).filter(|word| !word.is_empty()) {
        // What a browser does not know counts as `lax` there; a mistake must not make it weaker.
        put("; samesite=", if is_samesite(&word) { &word } else { b"strict" });
    }
    if let Some(path) = &cookie.path {
        put("; path=", path);
    }
    line.freeze()
}

/// The end of `expires=max`: Thu, 31 Dec 2037 23:55:55.
const LAST_DAY: i64 = 2_145_916_555;

/// Seconds since 1970 after which a cookie that is kept for `life` ends.
fn end(now: SystemTime, life: Duration) -> i64 {
    let end = clock::since_epoch(now).saturating_add(life);
    i64::try_from(end.as_secs()).unwrap_or(i64::MAX)
}

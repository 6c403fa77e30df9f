//! What is known of an order, for those who ask.

use serde::{Deserialize, Serialize};

use crate::issuer::Order;
use crate::schedule::{self, Span, random};

/// What is known of an order; lies beside its certificate as JSON. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Status {
    /// The URL of the directory of the CA that was asked last.
    pub uri: String,
    /// The names.
    pub names: Vec<String>,
    /// When the certificate is valid, if there is one.
    pub valid: Option<Span>,
    /// When it will be renewed, or obtained.
    pub next: i64,
    /// What the CA suggests (RFC 9773).
    pub suggested: Option<Span>,
    /// When it was last tried to obtain it.
    pub tried: Option<i64>,
    /// Whether that goes on; a process that ends meanwhile leaves it so.
    pub trying: bool,
    /// How often that has failed since it last succeeded.
    pub failures: u32,
    /// How many of these failures a CA may count.
    pub refusals: u32,
    /// Why it last failed.
    pub error: Option<String>,
    /// What kind of failure the CA calls it; empty when the CA has not refused.
    pub kind: String,
    /// Until when the CA wants to be left alone.
    pub not_before: Option<i64>,
    /// When a certificate was last obtained.
    pub issued: Option<i64>,
    /// How many in a row were obtained sooner than the one before should have been replaced.
    pub hurried: u32,
    /// When it was tried sooner than it should have been, because of restarts and reloads.
    pub forced: Vec<i64>,
}

/// How often in an hour restarts and reloads may force a try.
const FORCED: usize = 4;
const HOUR: i64 = 3600;

/// How soon after a failure it may be tried again, whoever wants that: one that a CA may count, or another one.
const SHORTEST_PAUSE: i64 = 60;
const SHORTEST_PAUSE_OF_WAY: i64 = 5;

/// The clock of a host may be adjusted by so much without having gone back.
const SLACK: i64 = 5;

impl Status {
    /// What is known of a certificate that another program has obtained.
    pub fn of_foreign(uri: &str, order: &Order, valid: Span) -> Self {
        let names = order.identifiers.iter().map(ToString::to_string).collect();
        let next = schedule::renewal_window(valid).moment(random());
        Self { uri: uri.to_owned(), names, valid: Some(valid), next, ..Self::default() }
    }

    /// Notes that a certificate was obtained.
    pub(crate) fn on_issued(&mut self, valid: Span, now: i64) {
        let is_hurried = |at: i64| now - at < schedule::hurry(valid.seconds());
        self.hurried = match self.issued {
            Some(at) if is_hurried(at) => self.hurried.saturating_add(1),
            _ => 0,
        };
        self.issued = Some(now);
    }

    /// When the next certificate may be obtained, whoever wants it.
    pub(crate) fn soonest(&self, now: i64) -> i64 {
        let life = self.valid.map_or(i64::MAX, Span::seconds);
        self.issued.map_or(now, |at| at + schedule::rest(life, self.hurried))
    }

    /// When it may be tried again because somebody wants it.
    pub(crate) fn soonest_retry(&self) -> i64 {
        let life = self.valid.map_or(i64::MAX, Span::seconds);
        let pause = if self.kind.is_empty() { SHORTEST_PAUSE_OF_WAY } else { SHORTEST_PAUSE };
        self.tried.map_or(0, |at| at + pause.min(life / 8))
    }

    /// Tries it at `soonest`, if not before, the CA allows it, and it was not forced too often.
    pub(crate) fn force(&mut self, now: i64, soonest: i64) {
        self.forced.retain(|&at| now - HOUR < at && at <= now + HOUR);
        let free = self.forced.len().checked_sub(FORCED).map_or(0, |at| self.forced[at] + HOUR);
        let at = soonest.max(free).max(self.not_before.unwrap_or_default()).max(now);
        if at < self.next {
            self.next = at;
            self.forced.push(at);
        }
    }

    /// Takes times that lie ahead for a clock that was put back.
    pub(crate) fn correct(&mut self, now: i64) {
        let is_ahead = |at: &Option<i64>| at.is_some_and(|at| at > now + SLACK);
        if !is_ahead(&self.tried) && !is_ahead(&self.issued) {
            return;
        }
        let to_now = |at: i64| at.min(now);
        (self.tried, self.issued) = (self.tried.map(to_now), self.issued.map(to_now));
        self.forced.iter_mut().for_each(|at| *at = to_now(*at));
        let most = now + schedule::longest_pause(self.valid.is_some_and(|valid| now < valid.end));
        self.not_before = self.not_before.map(|at| at.min(most));
        self.next = match self.valid {
            Some(valid) if self.failures == 0 => {
                let due = self.suggested.unwrap_or_else(|| schedule::renewal_window(valid));
                due.moment(0.5).max(self.soonest(now))
            }
            _ => self.next.min(most),
        };
    }

    /// What to do about the last error, if anybody knows.
    pub fn advice(&self) -> Option<&'static str> {
        self.error.as_ref()?;
        Some(match &*self.kind {
            "" => "check whether the CA can be reached from here; it is tried again soon",
            "agreementRequired" | "userActionRequired" => {
                "read the terms of service of the CA and add `accept_terms_of_service;`"
            }
            "caa" => {
                "the CAA record of the domain does not allow this CA: change it, or use another CA"
            }
            "connection" | "tls" => {
                "check whether the port of the challenge (80 for http-01, 443 for tls-alpn-01) can \
                 be reached from the internet, also over IPv6 if the name has an AAAA record"
            }
            "dns" => "check whether the name exists in the DNS and resolves to this host",
            "dnsUpdate" => "check whether the DNS server allows this record to be written",
            "externalAccountRequired" => {
                "create an account on the CA's site and add `external_account_key`"
            }
            "invalidProfile" => "request another `profile`, or remove `require`",
            "noChallenge" => "set another `challenge`",
            "rateLimited" => "wait; use the CA's staging server for experiments",
            "rejectedIdentifier" | "unsupportedIdentifier" => {
                "the CA does not issue certificates for this name: use another one"
            }
            "unauthorized" | "incorrectResponse" => {
                "another server has responded for this name: check whether it resolves to this \
                 host, and whether a CDN or another server is in front"
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn a_ca_or_clock_in_a_hurry_gets_fewer_and_fewer_orders() {
        let valid = Span { start: 0, end: 90 * DAY };
        let mut status = Status { valid: Some(valid), ..Status::default() };
        // Each is due at once by the clock.
        let mut now = 80 * DAY;
        let begun = now;
        let mut orders = 0;
        while now < begun + 7 * DAY {
            status.on_issued(valid, now);
            orders += 1;
            now = status.soonest(now);
        }
        assert_eq!(orders, 5);
        status.on_issued(valid, now + 60 * DAY);
        assert_eq!(status.hurried, 0);
    }

    #[test]
    fn restarts_and_reloads_force_four_tries_in_an_hour() {
        let mut status = Status { failures: 1, kind: "dns".into(), ..Status::default() };
        let mut tries = Vec::new();
        for now in 100_000..100_000 + 7200 {
            // The first is due; it fails at once, and somebody wants it each second.
            let soonest = status.soonest_retry();
            status.force(now, soonest);
            if now >= status.next {
                tries.push(now - 100_000);
                (status.tried, status.next) = (Some(now), now + 100_000);
            }
        }
        assert_eq!(tries, [0, 60, 120, 180, 240, 3660, 3720, 3780, 3840]);
        status = Status { failures: 1, next: 9000, not_before: Some(5000), ..Status::default() };
        status.force(1000, 0);
        assert_eq!(status.next, 5000);
    }

    #[test]
    fn a_clock_that_was_put_back_freezes_nothing() {
        let now = 1_000_000;
        let ahead = Some(now + 900 * DAY);
        let next = now + 901 * DAY;
        let mut failed =
            Status { failures: 3, tried: ahead, not_before: ahead, next, ..Status::default() };
        failed.correct(now);
        assert_eq!((failed.tried, failed.next), (Some(now), now + 6000));
        let valid = Some(Span { start: now, end: now + 90 * DAY });
        let mut issued = Status { valid, tried: ahead, issued: ahead, next, ..Status::default() };
        issued.correct(now);
        assert_eq!(issued.next, now + 60 * DAY);
        let other = issued.clone();
        issued.correct(now);
        assert_eq!(issued, other);
    }

    /// What an older or newer version has written is read as far as possible.
    #[test]
    fn a_status_is_read_as_far_as_it_is_known() {
        let status: Status = serde_json::from_str(r#"{"next": 5, "new": true}"#).expect("JSON");
        assert_eq!(status, Status { next: 5, ..Status::default() });
        assert_eq!(status.advice(), None);
        let status = Status { error: Some("x".into()), kind: "dns".into(), ..status };
        assert!(status.advice().is_some_and(|advice| advice.contains("DNS")));
    }
}

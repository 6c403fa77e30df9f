//! Keeps the certificate of one order: takes it from disk, obtains it, renews it in time.
//!
//! ```text
//! start ─▶ none, or due ─obtain─▶ in use ─window─▶ due
//!             ▲    │                │ ▲
//!             └pause┘ failure       └─┘ the CA says when (RFC 9773)
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::chain::Chain;
use crate::failure::Failure;
use crate::issuer::Order;
use crate::obtain::obtain;
use crate::renewal_info;
use crate::schedule::{self, Span, pause, random, renewal_window};
use crate::session::Session;
use crate::state::{Lock, Stamp};
use crate::status::Status;

/// The longest time until the clock is looked at again: it may be set, and machines sleep.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// How often it is looked whether another process has written a certificate, or is gone.
const FOLLOW: Duration = Duration::from_secs(2);

/// How long another process is trusted to obtain a certificate before people are told that there is none, seconds.
const LEADS: i64 = 300;

/// How long it takes to begin where nothing can be kept.
const FIRST_UNKEPT: i64 = 5;

/// How long until it is tried again to write what could not be written.
const SAVE_AGAIN: i64 = 60;

/// What goes on is told this often.
const TELL_AGAIN: i64 = 86_400;

/// How often a CA is asked whether it has an opinion on renewals.
const ASK_AGAIN: i64 = 86_400;

/// How loud something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// An operator has to do something.
    Error,
    /// An operator may want to.
    Warning,
    /// What happens from time to time.
    Notice,
    /// The rest.
    Information,
}

/// Those who use a certificate.
pub trait Outside: Send + Sync {
    /// Uses this certificate from now on.
    ///
    /// # Errors
    /// When it cannot be used.
    fn install(&self, chain: &Arc<Chain>) -> Result<(), String>;

    /// Tells people.
    fn tell(&self, loudness: Loudness, text: &str);
}

/// Keeps the certificate of one order.
pub struct Keeper {
    session: Arc<Session>,
    order: Order,
    id: String,
    outside: Arc<dyn Outside>,
    chain: Option<Arc<Chain>>,
    stamp: Option<Stamp>,
    status: Status,
    /// What is wrong as it was told last, and when.
    told: Option<(String, i64)>,
    /// When the CA is asked when to renew, and how often it has not answered since.
    ask_at: i64,
    unanswered: u32,
    /// When to write the certificate again, if that has failed.
    save_at: Option<i64>,
    /// The right to obtain the certificate.
    lock: Option<Lock>,
    follows: bool,
    /// Since when it follows without a certificate and nobody has been told.
    followed_since: i64,
    /// Whether it was told that nothing can be kept.
    is_unkept: bool,
    nudge: Arc<Notify>,
}

impl Keeper {
    /// Begins with the certificate that is in use already, if there is one. With new settings, what has failed before
    /// says nothing.
    pub fn new(
        session: Arc<Session>,
        order: Order,
        outside: Arc<dyn Outside>,
        chain: Option<Arc<Chain>>,
        settings_are_new: bool,
    ) -> Self {
        let id = order.id();
        let stamp = session.directory.stamp(&id);
        let mut keeper = Self {
            session,
            order,
            id,
            outside,
            chain,
            stamp,
            status: Status::default(),
            told: None,
            ask_at: 0,
            unanswered: 0,
            save_at: None,
            lock: None,
            follows: false,
            followed_since: 0,
            is_unkept: false,
            nudge: Arc::default(),
        };
        keeper.begin(now(), settings_are_new);
        if keeper.chain.is_some() && keeper.stamp.is_none() {
            // It was obtained while there was no directory, or another one.
            keeper.save_at = Some(0);
        }
        keeper
    }

    /// Wakes it up to try again what has failed, if it did not try that just now.
    pub fn nudge(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }

    /// Works for ever, in a [`LocalSet`](tokio::task::LocalSet).
    pub async fn run(mut self) {
        loop {
            self.lock = self.lock.take().or_else(|| self.session.directory.lock(&self.id));
            if self.lock.is_none() {
                self.follow();
                sleep(FOLLOW).await;
                continue;
            }
            if self.follows {
                self.follows = false;
                self.take_in();
                self.begin(now(), false);
            }
            let now = now();
            self.status.correct(now);
            if now >= self.status.next {
                self.renew().await;
            } else if self.chain.is_some() && now >= self.ask_at {
                self.ask().await;
            } else if self.save_at.is_some_and(|at| now >= at) {
                self.save();
            } else {
                let asks = self.chain.as_ref().map(|_| self.ask_at);
                let due =
                    [asks, self.save_at].into_iter().flatten().fold(self.status.next, i64::min);
                let left = Duration::from_secs(u64::try_from(due - now).unwrap_or_default());
                let nap = left.clamp(Duration::from_millis(100), LONGEST_NAP);
                tokio::select! {
                    () = sleep(nap) => {}
                    () = self.nudge.notified() => self.on_nudge(crate::now()),
                }
            }
        }
    }

    /// Goes on where an earlier process has stopped.
    fn begin(&mut self, now: i64, settings_are_new: bool) {
        let uri = self.session.issuer.uri.clone();
        let kept = self.session.directory.status(&self.id).unwrap_or_default();
        let names = self.order.identifiers.iter().map(ToString::to_string).collect();
        let valid = self.chain.as_ref().map(|chain| chain.valid);
        self.ask_at = now;
        if !kept.uri.is_empty() && kept.uri != uri {
            let (next, forced) = (i64::MAX, kept.forced);
            self.status = Status { uri, names, valid, next, forced, ..Status::default() };
            return self.status.force(now, now);
        }
        let is_known = kept.next > 0 && kept.valid == valid;
        self.status = Status { uri, names, valid, ..kept };
        let status = &mut self.status;
        status.correct(now);
        if status.trying {
            status.trying = false;
            status.failures = status.failures.saturating_add(1);
            status.refusals = status.refusals.saturating_add(1);
            status.kind = "other".to_owned();
            status.error = Some("wssgate exited during the attempt".to_owned());
            let pause = pause(schedule::Blame::Request, status.refusals, valid, now, random());
            status.next = status.tried.unwrap_or(now) + seconds(pause).max(1);
        } else if !is_known && status.failures == 0 {
            status.suggested = None;
            let due = valid.map_or(now, |valid| renewal_window(valid).moment(random()));
            status.next = due.max(status.soonest(now));
        } else if valid.is_some_and(|valid| valid.end <= now) && status.failures == 0 {
            status.next = status.next.min(status.soonest(now));
        }
        let is_lost = valid.is_none() && status.issued.is_some() && status.hurried < 3;
        if status.failures > 0 || is_lost {
            // An order that goes on is none that a CA would count.
            let is_free = settings_are_new || self.session.directory.pending(&self.id).is_some();
            let soonest = if is_free { now } else { status.soonest_retry() };
            status.force(now, soonest);
        }
    }

    fn on_nudge(&mut self, now: i64) {
        if self.status.failures > 0 {
            let soonest = self.status.soonest_retry();
            self.status.force(now, soonest);
        }
    }

    /// Obtains the certificate.
    async fn renew(&mut self) {
        if !self.is_prepared(now()) {
            return;
        }
        let old = self.chain.clone();
        let result = obtain(&self.session, &self.order, old.as_deref()).await;
        let now = now();
        self.status.tried = Some(now);
        let installed = result.and_then(|chain| {
            let chain = Arc::new(chain);
            let installed = self.outside.install(&chain);
            installed.map(|()| chain).map_err(|error| {
                Failure::request(format!("the certificate of the CA cannot be used: {error}"))
            })
        });
        match installed {
            Ok(chain) => self.on_success(chain, now),
            Err(failure) => self.on_failure(failure, now),
        }
    }

    /// Leaves a trace of what begins, so that no restart begins it at once again. Where that cannot be, nothing is
    /// ordered while there is a certificate.
    fn is_prepared(&mut self, now: i64) -> bool {
        self.status.trying = true;
        self.status.tried = Some(now);
        let Err(error) = self.session.directory.write_status(&self.id, &self.status) else {
            return true;
        };
        if self.status.valid.is_some_and(|valid| now < valid.end) {
            let text = format!("{error}: nothing is ordered while nothing can be stored");
            self.on_failure(Failure::request(text), now);
            return false;
        }
        if !std::mem::replace(&mut self.is_unkept, true) {
            let text = format!("{error}: every restart has to obtain the certificate again");
            self.tell(Loudness::Error, &text);
            // A process that is started again and again does not get further than this.
            self.status.next = now + FIRST_UNKEPT;
            return false;
        }
        true
    }

    fn on_success(&mut self, chain: Arc<Chain>, now: i64) {
        let valid = chain.valid;
        self.chain = Some(chain);
        self.status.valid = Some(valid);
        self.status.on_issued(valid, now);
        let due = renewal_window(valid).moment(random());
        if due <= now || now < valid.start {
            let (start, end) = (date(valid.start), date(valid.end));
            let text = format!(
                "the new certificate is valid from {start} until {end}, which does not fit this host's time {}: \
                 is the clock right?",
                date(now)
            );
            self.tell(Loudness::Error, &text);
        }
        self.status.next = due.max(self.status.soonest(now));
        self.status.suggested = None;
        self.status.trying = false;
        self.status.failures = 0;
        self.status.refusals = 0;
        self.status.kind = String::new();
        self.status.error = None;
        self.status.not_before = None;
        self.told = None;
        // RFC 9773 §4.3 wants it to be asked for at once.
        (self.ask_at, self.unanswered) = (now, 0);
        let (until, next) = (date(valid.end), date(self.status.next));
        let text = format!("certificate obtained, valid until {until}, renewal at {next}");
        self.tell(Loudness::Notice, &text);
        self.save();
    }

    fn on_failure(&mut self, failure: Failure, now: i64) {
        let status = &mut self.status;
        status.trying = false;
        status.failures = status.failures.saturating_add(1);
        // Each kind has its own pauses.
        let of_kind = match failure.blame {
            schedule::Blame::Way => status.failures.saturating_sub(status.refusals),
            schedule::Blame::Request => {
                status.refusals = status.refusals.saturating_add(1);
                status.refusals
            }
        };
        let left = status.valid.map(|valid| valid.end - now);
        let pause = pause(failure.blame, of_kind, status.valid, now, random());
        status.not_before = failure.retry_after.map(|wait| now.saturating_add(seconds(wait)));
        status.next = (now + seconds(pause).max(1)).max(status.not_before.unwrap_or_default());
        status.kind = match failure.blame {
            schedule::Blame::Way => String::new(),
            schedule::Blame::Request if failure.kind.is_empty() => "other".to_owned(),
            schedule::Blame::Request => failure.kind,
        };
        status.error = Some(failure.text.clone());
        let left = match left {
            Some(left @ 1..) => format!(", the certificate in use expires in {}", span(left)),
            Some(left) => format!(", the certificate in use expired {} ago", span(-left)),
            None => String::new(),
        };
        let next = span(status.next - now);
        let text = format!("{}, next try in {next}{left}", failure.text);
        let is_new = |(told, at): &(String, i64)| *told != failure.text || now - at >= TELL_AGAIN;
        if self.told.as_ref().is_none_or(is_new) {
            self.tell(Loudness::Error, &text);
            self.told = Some((failure.text, now));
        } else {
            self.tell(Loudness::Information, &text);
        }
        self.save_status();
    }

    /// Asks the CA when it wants the certificate to be renewed.
    async fn ask(&mut self) {
        let Some(chain) = self.chain.clone() else { return };
        let answer = renewal_info::ask(&self.session, &chain).await;
        let now = now();
        let wait = |wait: Duration| now + i64::try_from(wait.as_secs()).unwrap_or(ASK_AGAIN).max(1);
        match answer {
            Ok(None) => (self.ask_at, self.unanswered) = (now + ASK_AGAIN, 0),
            Ok(Some((window, life))) => {
                (self.ask_at, self.unanswered) = (wait(life), 0);
                if window.end > chain.valid.end {
                    let text = "the CA suggests renewal after the certificate has expired, ignored";
                    self.tell(Loudness::Warning, text);
                } else if self.status.suggested != Some(window) {
                    self.status.suggested = Some(window);
                    // What waits after a failure is due already.
                    if self.status.failures == 0 {
                        let soonest = self.status.soonest(now);
                        self.status.next = window.moment(random()).max(soonest);
                    }
                    let next = date(self.status.next);
                    self.tell(Loudness::Notice, &format!("renewal at {next}, as the CA suggests"));
                    self.save_status();
                }
            }
            Err(failure) => {
                self.unanswered = self.unanswered.saturating_add(1);
                let valid = Some(Span { start: now, end: now + ASK_AGAIN });
                let blame = schedule::Blame::Request;
                let pause = pause(blame, self.unanswered, valid, now, random());
                self.ask_at = wait(failure.retry_after.unwrap_or_default().max(pause));
                let loudness = match self.unanswered {
                    1 => Loudness::Warning,
                    _ => Loudness::Information,
                };
                let text = format!("asking the CA when to renew failed: {failure}");
                self.tell(loudness, &text);
            }
        }
    }

    /// Writes the certificate; it is in use whether that works or not.
    fn save(&mut self) {
        let Some(chain) = &self.chain else { return };
        match self.session.directory.write_certificate(&self.id, chain) {
            Ok(()) => {
                self.stamp = self.session.directory.stamp(&self.id);
                self.session.directory.forget_pending(&self.id);
                if self.save_at.take().is_some() {
                    self.tell(
                        Loudness::Notice,
                        "the certificate has now been written to the state directory",
                    );
                }
                self.save_status();
            }
            Err(error) => {
                if self.save_at.is_none() {
                    let text = format!(
                        "{error}: the certificate is in use, but a restart has to obtain it again; \
                         trying again every {SAVE_AGAIN}s"
                    );
                    self.tell(Loudness::Error, &text);
                }
                self.save_at = Some(now() + SAVE_AGAIN);
            }
        }
    }

    fn save_status(&self) {
        // It is for people, who are told otherwise when nothing can be written.
        let _ = self.session.directory.write_status(&self.id, &self.status);
    }

    /// Does as the process does that has the lock.
    fn follow(&mut self) {
        if !std::mem::replace(&mut self.follows, true) {
            self.followed_since = now();
            match self.session.directory.lock_problem(&self.id) {
                None => {
                    let text = "another process with this state directory is obtaining the \
                                certificate";
                    self.tell(Loudness::Notice, text);
                }
                Some(problem) => {
                    let text = format!(
                        "{problem}: nothing is obtained, since another process may have the lock"
                    );
                    self.tell(Loudness::Error, &text);
                }
            }
        }
        self.take_in();
        if self.chain.is_none() && now() - self.followed_since >= LEADS {
            let text = format!(
                "no certificate after {}: the log of the process that has its lock in the state directory says why",
                span(LEADS)
            );
            self.tell(Loudness::Warning, &text);
            self.followed_since = now() + TELL_AGAIN - LEADS;
        }
    }

    /// Uses the certificate on disk if it is another one.
    fn take_in(&mut self) {
        let stamp = self.session.directory.stamp(&self.id);
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        let read = self.session.directory.certificate(&self.id);
        let used = read.and_then(|chain| match chain {
            Some(chain) => {
                let chain = Arc::new(chain);
                self.outside.install(&chain)?;
                self.chain = Some(chain);
                Ok(true)
            }
            None => Ok(false),
        });
        match used {
            Ok(true) => self.tell(Loudness::Notice, "certificate taken from the state directory"),
            Ok(false) => {}
            // It may be in the middle of being replaced.
            Err(error) => {
                self.stamp = None;
                self.tell(Loudness::Information, &error);
            }
        }
    }

    fn tell(&self, loudness: Loudness, text: &str) {
        let (issuer, names) = (&self.session.issuer.name, self.order.names());
        self.outside.tell(loudness, &format!("acme issuer \"{issuer}\", {names}: {text}"));
    }
}

fn seconds(pause: Duration) -> i64 {
    i64::try_from(pause.as_secs()).unwrap_or(i64::MAX / 2)
}

/// Seconds since the Unix epoch.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A time for people.
pub fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}

/// A number of seconds for people: its two largest units.
pub fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds.max(0);
    let mut parts = Vec::new();
    for (size, unit) in units {
        if left >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::pending::Pending;
    use crate::{Challenges, Identifier, Issuer, KeyKind, Transport};

    struct Silent;

    impl Outside for Silent {
        fn install(&self, _: &Arc<Chain>) -> Result<(), String> {
            Ok(())
        }

        fn tell(&self, _: Loudness, _: &str) {}
    }

    /// A keeper whose CA cannot be reached.
    fn keeper(state: &Path, chain: Option<Arc<Chain>>) -> Keeper {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.unwrap().with_root_certificates(RootCertStore::empty());
        let transport = Transport {
            tls: Arc::new(tls.with_no_client_auth()),
            resolve: Arc::new(|_, _| Box::pin(async { Err("no such host".to_owned()) })),
            user_agent: String::new(),
        };
        let issuer = Issuer {
            name: "ca".into(),
            uri: "https://ca.test/".into(),
            account_key: None,
            contacts: Vec::new(),
            challenge: crate::ChallengeKind::Http01,
            common_name: false,
            external_account: None,
            preferred_chain: None,
            profile: None,
            accept_terms: true,
            state_path: Some(state.to_owned()),
        };
        let order =
            Order { identifiers: vec![Identifier::Dns("a.test".into())], key: KeyKind::default() };
        let session = Session::new(issuer, transport, Arc::<Challenges>::default());
        Keeper::new(Arc::new(session), order, Arc::new(Silent), chain, false)
    }

    fn chain() -> Arc<Chain> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Arc::new(Chain::new(pem, key.serialize_pem().into()).unwrap())
    }

    #[test]
    fn a_process_that_dies_while_it_tries_does_not_try_again_at_once() {
        let state = tempfile::tempdir().unwrap();
        let mut first = keeper(state.path(), None);
        let begun = now();
        assert!(first.status.next <= begun && first.is_prepared(begun));
        let second = keeper(state.path(), None);
        assert_eq!((second.status.failures, second.status.refusals), (1, 1));
        assert!(second.status.next >= begun + 50, "{:?}", second.status);
    }

    /// The CA counts it once, but nobody knows how it ends.
    #[test]
    fn an_order_on_its_way_goes_on_at_once_but_not_for_ever() {
        let state = tempfile::tempdir().unwrap();
        let mut restarts = 0;
        loop {
            let mut keeper = keeper(state.path(), None);
            if keeper.status.next > now() || restarts > 9 {
                break;
            }
            assert!(keeper.is_prepared(now()));
            let (uri, order) = ("https://ca.test/".into(), "https://ca.test/order/1".into());
            let pending = Pending { uri, profile: None, order, placed: now(), key: String::new() };
            keeper.session.directory.write_pending(&keeper.id, &pending).unwrap();
            restarts += 1;
        }
        assert_eq!(restarts, 5);
    }

    #[test]
    fn restarts_keep_when_to_renew_but_not_what_another_ca_has_done() {
        let state = tempfile::tempdir().unwrap();
        let chain = chain();
        let mut first = keeper(state.path(), None);
        first.on_success(Arc::clone(&chain), now());
        let next = first.status.next;
        // The CA wants it early, and is refused once.
        first.status.next = now() + 500;
        first.on_failure(
            Failure { retry_after: Some(Duration::from_secs(7000)), ..Failure::request("x") },
            now(),
        );
        let second = keeper(state.path(), Some(Arc::clone(&chain)));
        assert!(second.status.next < next && second.status.next >= now() + 6900);
        first.status.uri = "https://other.test/".into();
        first.save_status();
        let third = keeper(state.path(), Some(chain));
        assert!(third.status.next <= now() && third.status.failures == 0);
    }

    #[test]
    fn nothing_is_ordered_while_nothing_can_be_kept_and_a_certificate_is_valid() {
        let mut with = keeper(Path::new("/nonexistent/state"), Some(chain()));
        assert!(!with.is_prepared(now()) && with.status.next >= now() + 50);
        let mut without = keeper(Path::new("/nonexistent/state"), None);
        assert!(!without.is_prepared(now()) && without.status.next >= now() + FIRST_UNKEPT - 1);
        assert!(without.is_prepared(now()));
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, expected) in
            [(0, "0s"), (59, "59s"), (61, "1m 1s"), (90_061, "1d 1h"), (86_400 * 60, "60d")]
        {
            assert_eq!(span(seconds), expected);
        }
    }
}

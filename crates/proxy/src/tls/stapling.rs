//! What a CA's responder says of a certificate, fetched ahead and shown in handshakes (OCSP stapling,
//! RFC 6066 §8).
//!
//! A handshake never waits for it: until there is an answer, and when the last one is over, the
//! certificate is shown alone; so it is at once when a responder says that it is not good. Answers outlive a
//! generation, so that a reload does not forget them.

mod fetch;
mod file;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use wssgate_config::model::{LogLevel, ServerTls, Stapling};
use wssgate_syntax::{Diagnostic, Report};
use wssgate_x509::Certificate;
use wssgate_x509::ocsp::{Good, Subject, Unfit};

use super::certificates::{self, Contents};
use super::served::Served;
use crate::clock::unix_seconds as now;
use crate::resolve::{Job, Resolver, ResolverThread};
use fetch::Responder;
use file::Filed;

/// How long before its end an answer is replaced, and how long to wait after a failure, as in nginx.
const MARGIN: i64 = 300;

/// An answer is looked at again after this time at the latest, as in nginx: it may have been revoked.
const LONGEST: i64 = 3600;

/// Responders that are asked at once.
const AT_ONCE: usize = 8;

/// The answers to questions about certificates, by certificate. All generations share them.
#[derive(Debug, Default)]
pub struct Answers(Mutex<HashMap<Box<[u8]>, Answer>>);

/// A good answer.
#[derive(Clone, Debug)]
struct Answer {
    der: Arc<[u8]>,
    /// Seconds since the Unix epoch.
    until: i64,
    renew_at: i64,
}

impl Answers {
    fn find(&self, certificate: &[u8], now: i64) -> Option<Answer> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(certificate).filter(|answer| now < answer.until).cloned()
    }

    fn keep(&self, certificate: &[u8], answer: Answer, now: i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, answer| now < answer.until);
        known.insert(certificate.into(), answer);
    }

    fn forget(&self, certificate: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(certificate);
    }
}

/// What has to be done for a certificate while it is served.
#[derive(Clone, Debug)]
pub(super) enum Stapler {
    /// Its CA is asked.
    Asking(Asking),
    /// An answer from a file ends.
    Filed(Filed),
}

/// A certificate whose CA is asked.
#[derive(Clone)]
pub(super) struct Asking {
    served: Arc<Served>,
    asks: Arc<Asks>,
}

/// How to ask about a certificate.
struct Asks {
    path: Box<str>,
    /// `ssl_stapling_responder`, instead of what the certificate says.
    responder: Option<Responder>,
    /// `ssl_stapling_verify`.
    verify: bool,
    trusted: Vec<Certificate>,
    answers: Arc<Answers>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Asking").field("path", &self.asks.path).finish_non_exhaustive()
    }
}

impl Stapler {
    /// Staples from a file, or gives who asks. Nothing when neither can be done; the report then has a
    /// warning, or an error when the file cannot be used.
    pub(super) fn build(
        stapling: &Stapling,
        tls: &ServerTls,
        (served, path): (&Arc<Served>, &Path),
        answers: &Arc<Answers>,
        contents: &Contents,
        report: &mut Report,
    ) -> Option<Self> {
        let path = path.display().to_string();
        let trusted = trusted(tls, contents);
        let subject = subject(&served.bare(), &trusted).ok_or_else(|| no_issuer(&path));
        let built = match &stapling.file {
            Some(file) => {
                let answer = file::read(&file.value, contents);
                let fail = |why| report.push(Diagnostic::error(why).at(file.span, "needed here"));
                let answer = answer.map_err(fail).ok()?;
                let of = (served, path.as_str());
                let filed =
                    subject.and_then(|subject| Filed::build(of, &file.value, &answer, &subject));
                filed.map(Self::Filed)
            }
            None => subject.and_then(|subject| {
                let asks = Arc::new(Asks::build(stapling, path, trusted, &subject, answers)?);
                let asking = Asking { served: Arc::clone(served), asks };
                asking.show_known(&served.bare(), now());
                Ok(Self::Asking(asking))
            }),
        };
        let ignore = |why| {
            let text = format!("\"ssl_stapling\" ignored, {why}");
            report.push(Diagnostic::warning(text).at(stapling.span, ""));
        };
        built.map_err(ignore).ok()
    }

    /// Does it until it is dropped.
    async fn run(self, turns: Rc<Semaphore>, ask: Rc<Ask>) {
        match self {
            Self::Asking(asking) => asking.run(turns, ask).await,
            Self::Filed(filed) => filed.run(&ask.thread).await,
        }
    }
}

impl Asks {
    fn build(
        stapling: &Stapling,
        path: String,
        trusted: Vec<Certificate>,
        subject: &Subject,
        answers: &Arc<Answers>,
    ) -> Result<Self, String> {
        let written = stapling.responder.as_ref().map(|url| String::from_utf8_lossy(&url.value));
        let named = || subject.responder();
        let url = written.clone().map(Into::into).or_else(named);
        let url = url.ok_or_else(|| no_responder(&path))?;
        let responder = Responder::parse(&url).ok_or_else(|| {
            format!("invalid URL prefix in OCSP responder \"{url}\" in the certificate \"{path}\"")
        })?;
        Ok(Self {
            path: path.into(),
            responder: written.is_some().then_some(responder),
            verify: stapling.verify,
            trusted,
            answers: Arc::clone(answers),
        })
    }
}

impl Asking {
    /// Asks again and again.
    async fn run(self, turns: Rc<Semaphore>, ask: Rc<Ask>) {
        loop {
            let key = self.served.bare();
            let known = self.show_known(&key, now());
            let wait = match known.map(|renew_at| renew_at - now()).filter(|left| *left > 0) {
                Some(left) => left,
                None => {
                    let turn = turns.acquire().await;
                    let asked = self.ask(&key, &ask).await;
                    drop(turn);
                    match asked {
                        Ok(renew_at) => (renew_at - now()).max(1),
                        Err(why) => {
                            ask.thread.log(LogLevel::Error, why);
                            MARGIN
                        }
                    }
                }
            };
            tokio::select! {
                () = sleep(Duration::from_secs(wait.unsigned_abs())) => {}
                () = self.served.replaced() => {}
            }
        }
    }

    /// Shows what is known already, also by another server with this certificate, if it is good enough
    /// for this one; says when it is to be replaced.
    fn show_known(&self, key: &Arc<CertifiedKey>, now: i64) -> Option<i64> {
        let known = self.asks.answers.find(&key.cert[0], now)?;
        let subject = subject(key, &self.asks.trusted)?;
        subject.judge(&known.der, self.asks.verify).ok()?;
        self.served.staple(key, &known.der, known.until);
        Some(known.renew_at)
    }

    /// Asks once; says when to ask again.
    async fn ask(&self, key: &Arc<CertifiedKey>, ask: &Ask) -> Result<i64, String> {
        let path = &self.asks.path;
        let subject = subject(key, &self.asks.trusted).ok_or_else(|| no_issuer(path))?;
        let named = || subject.responder().as_deref().and_then(Responder::parse);
        let responder = self.asks.responder.clone().or_else(named);
        let responder = responder.ok_or_else(|| no_responder(path))?;
        let why = |why: &dyn fmt::Display| {
            format!(
                "{why} while requesting certificate status, responder: {}, certificate: \"{path}\"",
                responder.host
            )
        };
        let request = subject.request().ok_or_else(|| why(&"out of memory"))?;
        let resolver = ask.resolver.as_ref();
        let fetched = fetch::fetch(&responder, &request, resolver).await;
        let der = fetched.map_err(|error| why(&error))?;
        let judged = subject.judge(&der, self.asks.verify);
        self.take_in(key, der, judged, now()).map_err(|unfit| why(&unfit))
    }

    /// Shows and keeps an answer by what it says; says when to ask again. Of what the responder does not call
    /// good nothing is shown any more, as it has been said by somebody who may.
    fn take_in(
        &self,
        key: &Arc<CertifiedKey>,
        der: Vec<u8>,
        judged: Result<Good, Unfit>,
        now: i64,
    ) -> Result<i64, Unfit> {
        if let Err(Unfit::Revoked(_) | Unfit::Unknown(_)) = judged {
            self.asks.answers.forget(&key.cert[0]);
            self.served.unstaple(key);
        }
        let until = judged?.until;
        let renew_at = renew_at(until, now);
        self.served.staple(key, &der, until);
        self.asks.answers.keep(&key.cert[0], Answer { der: der.into(), until, renew_at }, now);
        Ok(renew_at)
    }
}

/// What asking needs besides the certificate.
pub(super) struct Ask {
    pub(super) resolver: Option<(Arc<Resolver>, Duration)>,
    pub(super) thread: Arc<ResolverThread>,
}

/// What the resolver's thread has to do for these certificates.
pub(super) fn job(staplers: Vec<(Stapler, Ask)>) -> Job {
    Box::new(move || {
        let turns = Rc::new(Semaphore::new(AT_ONCE));
        let run = |(stapler, ask): (Stapler, Ask)| {
            let running: Pin<Box<dyn Future<Output = ()>>> =
                Box::pin(stapler.run(Rc::clone(&turns), Rc::new(ask)));
            running
        };
        staplers.into_iter().map(run).collect()
    })
}

/// When an answer is to be replaced: before it is over, and within an hour.
fn renew_at(until: i64, now: i64) -> i64 {
    until.saturating_sub(MARGIN).min(now + LONGEST).max(now + MARGIN)
}

/// Whom clients and responders are trusted by: what nginx has in its store.
fn trusted(tls: &ServerTls, contents: &Contents) -> Vec<Certificate> {
    let files = [&tls.trusted_certificate, &tls.client_certificate];
    // What is wrong with them is said where clients are verified.
    let read = |file: &std::path::PathBuf| certificates::read_certificates(file, contents).ok();
    let chains = files.into_iter().flatten().filter_map(|file| read(&file.value));
    chains.flatten().filter_map(|der| Certificate::parse(&der)).collect()
}

fn subject(key: &CertifiedKey, trusted: &[Certificate]) -> Option<Subject> {
    let mut chain = key.cert.iter().map(|der| Certificate::parse(der));
    let leaf = chain.next()??;
    Subject::new(leaf, chain.flatten().collect(), trusted.to_vec())
}

fn no_issuer(path: &str) -> String {
    format!("issuer certificate not found for certificate \"{path}\"")
}

fn no_responder(path: &str) -> String {
    format!("no OCSP responder URL in the certificate \"{path}\"")
}

#[cfg(test)]
mod tests {
    use wssgate_testkit::Pki;

    use super::*;

    #[test]
    fn an_answer_is_replaced_before_it_is_over_and_within_an_hour() {
        for (until, expected) in [
            (1000, 1300),
            (1500, 1300),
            (2000, 1700),
            (4900, 4600),
            (90_000, 4600),
            (i64::MAX, 4600),
        ] {
            assert_eq!(renew_at(until, 1000), expected, "{until}");
        }
    }

    #[test]
    fn what_is_no_longer_good_is_shown_no_longer() {
        let (bad, vague) = (Err(Unfit::Revoked(9000)), Err(Unfit::Unknown(9000)));
        for (said, stays) in [
            (bad, false),
            (vague, false),
            (Err(Unfit::Unsuccessful(3)), true),
            (Err(Unfit::Unverified), true),
            (Err(Unfit::OtherCertificate), true),
            (Err(Unfit::OutOfDate), true),
        ] {
            let pki = Pki::new();
            let leaf = pki.leaf(&["a.test"]);
            let text = |path: &Path| std::fs::read_to_string(path).expect("a file");
            let key = certificates::from_pem(&text(&leaf.fullchain), &text(&leaf.key));
            let key = key.expect("a certificate");
            let served = Arc::new(Served::new(Arc::clone(&key)));
            let asks = Asks {
                path: "a.pem".into(),
                responder: None,
                verify: false,
                trusted: Vec::new(),
                answers: Arc::default(),
            };
            let asking = Asking { served: Arc::clone(&served), asks: Arc::new(asks) };
            let good = asking.take_in(&key, b"good".to_vec(), Ok(Good { until: 9000 }), 1000);
            assert_eq!(good, Ok(4600));
            assert_eq!(served.at(2000).ocsp.as_deref(), Some(&b"good"[..]));
            assert_eq!(asking.take_in(&key, b"other".to_vec(), said, 2000).err(), said.err());
            let expected = stays.then_some(&b"good"[..]);
            assert_eq!(served.at(2000).ocsp.as_deref(), expected, "{said:?}");
            assert_eq!(asking.asks.answers.find(&key.cert[0], 2000).is_some(), stays, "{said:?}");
        }
    }

    #[test]
    fn answers_that_are_over_are_forgotten() {
        let answers = Answers::default();
        let answer = |until| Answer { der: b"x"[..].into(), until, renew_at: 0 };
        answers.keep(b"a", answer(100), 50);
        assert!(answers.find(b"a", 99).is_some() && answers.find(b"a", 100).is_none());
        assert!(answers.find(b"b", 50).is_none());
        answers.keep(b"b", answer(200), 100);
        assert_eq!(answers.0.lock().map(|known| known.len()).ok(), Some(1));
    }
}

//! The walk from step to step.

use std::time::{Instant, SystemTime};

use crate::exchange::Route;
use crate::facts::{Facts, ms};
use crate::report::{Finding, Report, Skipped, Step, StepReport, Verdict, worst};
use crate::settings::Settings;
use crate::target::Target;
use crate::{dns, handshake, idle, ping, size, tcp, tls};

/// Walks from the name of `target` as far as it gets. Each step is `told` as soon as it is done: the last
/// ones may take minutes.
pub fn examine(target: &Target, settings: &Settings, told: &mut dyn FnMut(&StepReport)) -> Report {
    let mut walk = Walk { steps: Vec::new(), begun: Instant::now(), told };
    walk.all(target, settings);
    let verdict = walk.steps.iter().map(|step| step.verdict).max().unwrap_or(Verdict::Ok);
    let skipped = skipped(&walk.steps, target, settings);
    Report { url: target.to_string(), verdict, steps: walk.steps, skipped }
}

/// The steps that were skipped, and why.
fn skipped(taken: &[StepReport], target: &Target, settings: &Settings) -> Vec<Skipped> {
    // What was seen beside the last step that others build on says nothing of why they are missing.
    let last = match taken.last().map(|report| report.step) {
        Some(Step::Hops) => Step::Handshake,
        Some(Step::Size) => Step::Ping,
        other => other.unwrap_or(Step::Dns),
    };
    let why = |step| match step {
        Step::Tls if !target.tls => "ws:// is without TLS".to_owned(),
        Step::Size if settings.size.is_none() => "asked for by --size BYTES".to_owned(),
        Step::Idle if settings.idle.is_none() => "asked for by --idle SECONDS".to_owned(),
        _ => format!("{} failed", in_words(last)),
    };
    let is_taken = |step: &Step| taken.iter().any(|report| report.step == *step);
    let missing = Step::ALL.into_iter().filter(|step| !is_taken(step));
    missing.map(|step| Skipped { step, why: why(step) }).collect()
}

/// A step as the subject of a sentence.
fn in_words(step: Step) -> &'static str {
    match step {
        Step::Dns => "DNS",
        Step::Tcp => "TCP",
        Step::Tls => "TLS",
        Step::Handshake => "the handshake",
        step => step.name(),
    }
}

struct Walk<'a> {
    steps: Vec<StepReport>,
    /// When the step began that is told next.
    begun: Instant,
    told: &'a mut dyn FnMut(&StepReport),
}

impl Walk<'_> {
    fn tell(&mut self, step: Step, findings: Vec<Finding>, facts: Facts) {
        let ms = ms(self.begun.elapsed());
        let report = StepReport { step, verdict: worst(&findings), ms, findings, facts };
        (self.told)(&report);
        self.steps.push(report);
        self.begun = Instant::now();
    }

    fn all(&mut self, target: &Target, settings: &Settings) {
        let (findings, facts) = dns::examine(target, settings);
        let addresses = facts.addresses.clone();
        self.tell(Step::Dns, findings, Facts::Dns(facts));
        if addresses.is_empty() {
            return;
        }
        let (findings, facts, all) = tcp::examine(&addresses, target.port, settings);
        self.tell(Step::Tcp, findings, Facts::Tcp(facts));
        let Some((reached, others)) = all.split_first() else { return };
        if target.tls {
            let now = seconds_since_epoch();
            let (mut findings, facts, is_done) =
                tls::examine(reached.address, target, settings, now);
            for other in others {
                let more = tls::elsewhere(other.address, target, settings, now, &findings);
                findings.extend(more);
            }
            self.tell(Step::Tls, findings, Facts::Tls(Box::new(facts)));
            if !is_done {
                return;
            }
        }
        let route = Route { address: reached.address, target, settings };
        let done = handshake::examine(&route);
        let response_ms = done.facts.response_ms;
        self.tell(Step::Handshake, done.findings, Facts::Handshake(done.facts));
        if let Some(head) = done.head {
            let facts = handshake::hops(&head, response_ms, reached.took);
            self.tell(Step::Hops, Vec::new(), Facts::Hops(facts));
        }
        let Some(socket) = done.socket else { return };
        let (findings, facts, socket) = ping::examine(socket, settings);
        self.tell(Step::Ping, findings, Facts::Ping(facts));
        if let Some(max) = settings.size {
            let (findings, facts) = size::examine(&route, max);
            self.tell(Step::Size, findings, Facts::Size(facts));
        }
        let Some(socket) = socket else { return };
        match settings.idle {
            None => socket.close(),
            Some(max) => {
                let (findings, facts) = idle::examine(socket, max, settings);
                self.tell(Step::Idle, findings, Facts::Idle(facts));
            }
        }
    }
}

fn seconds_since_epoch() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

//! What was found.

use serde::Serialize;

use crate::facts::Facts;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong.
    Ok,
    /// Some clients fail, or all will some day.
    Warning,
    /// WebSockets cannot work like this.
    Fault,
}

/// A step of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The addresses of the name.
    Dns,
    /// Connections to each address.
    Tcp,
    /// The TLS handshake and the certificates.
    Tls,
    /// The WebSocket handshake.
    Handshake,
    /// Who stands between.
    Hops,
    /// Round trips of pings.
    Ping,
    /// Long messages.
    Size,
    /// Silence.
    Idle,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Handshake,
        Self::Hops,
        Self::Ping,
        Self::Size,
        Self::Idle,
    ];

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Hops => "hops",
            Self::Ping => "ping",
            Self::Size => "size",
            Self::Idle => "idle",
        }
    }
}

/// Something that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A word for programs; it does not change.
    pub code: &'static str,
    /// How bad it is; never [`Verdict::Ok`].
    pub verdict: Verdict,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    /// WebSockets cannot work like this.
    pub(crate) fn fault(
        code: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { code, verdict: Verdict::Fault, what: what.into(), fix: fix.into() }
    }

    /// Some clients fail, or all will some day.
    pub(crate) fn warning(
        code: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { code, verdict: Verdict::Warning, what: what.into(), fix: fix.into() }
    }
}

/// One step and what was found in it.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Which.
    pub step: Step,
    /// The worst of its findings.
    pub verdict: Verdict,
    /// How long the step took, in milliseconds.
    pub ms: f64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What was seen.
    pub facts: Facts,
}

/// The whole walk.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The URL.
    pub url: String,
    /// The worst of all findings.
    pub verdict: Verdict,
    /// The steps that were taken, in their order.
    pub steps: Vec<StepReport>,
    /// The others.
    pub skipped: Vec<Skipped>,
}

/// A step that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Which.
    pub step: Step,
    /// Why not.
    pub why: String,
}

impl Report {
    /// All findings, in the order of the steps.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.steps.iter().flat_map(|step| &step.findings)
    }
}

/// The worst of them.
pub(crate) fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

//! Why there is no certificate.

use std::time::Duration;

use instant_acme::{Error, Problem};
use thiserror::Error;

use crate::schedule::Blame;

/// Why there is no certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct Failure {
    /// In the words of who knows.
    pub text: String,
    /// What kind of failure the CA calls it (RFC 8555 §6.7); empty when it is not the CA who says so.
    pub kind: String,
    /// Who is to blame.
    pub blame: Blame,
    /// How long the CA wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Something that we want or show is wrong.
    pub fn request(text: impl Into<String>) -> Self {
        let (text, kind) = (text.into(), String::new());
        Self { text, kind, blame: Blame::Request, retry_after: None }
    }

    /// The CA cannot be reached, or cannot do its work.
    pub fn way(text: impl Into<String>) -> Self {
        Self { blame: Blame::Way, ..Self::request(text) }
    }

    /// Whether it says nothing about the order that it happened to.
    pub(crate) fn is_passing(&self) -> bool {
        self.blame == Blame::Way || self.kind == "rateLimited"
    }

    /// The same, seen while doing something.
    pub(crate) fn while_doing(mut self, what: &str) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }
}

/// The kind of a failure where the CA, or what stands before it, has nothing at a URL and tells no problem.
pub(crate) const GONE: &str = "gone";

/// What of the network went wrong; our client's own error, as the library hands it through.
#[derive(Debug, Error)]
#[error("{text}")]
pub(crate) struct Unreachable {
    pub(crate) text: String,
    /// Whether nothing is there: 404 or 410.
    pub(crate) gone: bool,
    /// How long the other side wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

/// A problem that the CA wants us to wait with, which the library would not hand through.
#[derive(Debug, Error)]
#[error("{problem}")]
pub(crate) struct Refused {
    pub(crate) problem: Problem,
    pub(crate) retry_after: Duration,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => problem_failure(&problem),
            Error::Other(other) => {
                if let Some(lost) = other.downcast_ref::<Unreachable>() {
                    let kind = if lost.gone { GONE.to_owned() } else { String::new() };
                    Self { retry_after: lost.retry_after, kind, ..Self::way(lost.to_string()) }
                } else if let Some(refused) = other.downcast_ref::<Refused>() {
                    let retry_after = Some(refused.retry_after);
                    Self { retry_after, ..problem_failure(&refused.problem) }
                } else {
                    Self::request(other.to_string())
                }
            }
            Error::Json(error) => Self::way(format!("the CA's answer makes no sense: {error}")),
            other => Self::request(other.to_string()),
        }
    }
}

/// What a CA says is wrong.
pub(crate) fn problem_failure(problem: &Problem) -> Failure {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    // The library has tried a few more nonces by then.
    let server_side = matches!(kind, "serverInternal" | "badNonce")
        || problem.status.is_some_and(|status| status >= 500);
    Failure {
        blame: if server_side { Blame::Way } else { Blame::Request },
        kind: kind.to_owned(),
        ..Failure::request(words(problem))
    }
}

/// The problem in the CA's words: `detail (type)`, and the same for each name it tells apart.
pub(crate) fn words(problem: &Problem) -> String {
    let mut text = one(problem.detail.as_deref(), problem.r#type.as_deref());
    for inner in &problem.subproblems {
        let about = inner.identifier.as_ref().map(|identifier| identifier.authorized(false));
        let about = about.map(|about| format!("{about}: ")).unwrap_or_default();
        let inner = one(inner.detail.as_deref(), inner.r#type.as_deref());
        text.push_str(&format!("; {about}{inner}"));
    }
    // It goes into one line of a log.
    text.replace(|character: char| character.is_control(), " ")
}

fn one(detail: Option<&str>, kind: Option<&str>) -> String {
    let kind = kind.map(|kind| kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind));
    match (detail, kind) {
        (Some(detail), Some(kind)) => format!("{detail} ({kind})"),
        (Some(text), None) | (None, Some(text)) => text.to_owned(),
        (None, None) => "no reason given".to_owned(),
    }
}

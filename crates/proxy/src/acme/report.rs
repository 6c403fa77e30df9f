//! What is known of certificates by ACME, for people: read from the state directories, also by a process that
//! obtains none.

use std::fmt::{self, Display};

use wssgate_acme::state::Directory;
use wssgate_acme::status::Status;
use wssgate_acme::{Chain, date, now, span};
use wssgate_config::model::Http;
use wssgate_syntax::Span;

/// What is known of one certificate.
#[derive(Debug)]
pub struct Known {
    /// Where it was configured.
    pub span: Span,
    names: String,
    issuer: String,
    uri: String,
    /// Whether anything is kept on disk at all.
    kept: bool,
    /// When the certificate ends, if there is one.
    end: Option<i64>,
    unreadable: Option<String>,
    status: Option<Status>,
    now: i64,
}

impl Known {
    /// What is known of every certificate of a configuration.
    pub fn all(http: &Http) -> Vec<Self> {
        let now = now();
        let of = |model: &wssgate_config::model::AcmeCertificate| {
            let issuer = &http.acme.issuers[model.issuer.0];
            let order = super::order(model);
            let directory = Directory::new(issuer.state_path.clone());
            let (chain, unreadable) = match directory.certificate(&order.id()) {
                Ok(chain) => (chain, None),
                Err(error) => (None, Some(error)),
            };
            Self {
                span: model.span,
                names: order.names(),
                issuer: issuer.name.value.to_string(),
                uri: issuer.uri.to_string(),
                kept: issuer.state_path.is_some(),
                end: chain.map(|chain: Chain| chain.valid.end),
                unreadable,
                status: directory.status(&order.id()),
                now,
            }
        };
        http.acme.certificates.iter().map(of).collect()
    }

    /// Whether there is a certificate that is valid now.
    pub fn is_valid(&self) -> bool {
        self.end.is_some_and(|end| end > self.now)
    }

    /// The state of the certificate in one line.
    fn certificate(&self) -> String {
        match (self.end, &self.unreadable) {
            (_, Some(error)) => error.clone(),
            (Some(end), _) if end > self.now => {
                format!("valid until {} (for {})", date(end), span(end - self.now))
            }
            (Some(end), _) => format!("expired at {} ({} ago)", date(end), span(self.now - end)),
            (None, _) if !self.kept => {
                "in memory only, if there is one (state_path off)".to_owned()
            }
            // A process with the lock tries only what its own configuration wants.
            (None, _) if self.status.is_none() => {
                "not obtained yet, no process has tried".to_owned()
            }
            (None, _) => "not obtained yet".to_owned(),
        }
    }

    /// When something will be done about it.
    fn next(&self) -> Option<String> {
        let next = self.status.as_ref().map(|status| status.next).filter(|&next| next > 0)?;
        Some(match next - self.now {
            left @ 1.. => format!("{} (in {})", date(next), span(left)),
            _ => format!("due since {}", date(next)),
        })
    }

    /// All of it in one line.
    pub fn line(&self) -> String {
        let Self { names, issuer, .. } = self;
        let mut line =
            format!("acme issuer \"{issuer}\", {names}: certificate {}", self.certificate());
        if let Some(next) = self.next() {
            line.push_str(&format!(", renewal {next}"));
        }
        if let Some(error) = self.status.as_ref().and_then(|status| status.error.as_ref()) {
            line.push_str(&format!(", last error: {error}"));
        }
        line
    }

    /// What to do.
    pub fn advice(&self) -> Option<&'static str> {
        self.status.as_ref()?.advice()
    }
}

impl Display for Known {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.names)?;
        let mut row = |name: &str, value: &str| writeln!(formatter, "  {name:<12} {value}");
        row("issuer", &format!("{} ({})", self.issuer, self.uri))?;
        row("certificate", &self.certificate())?;
        if let Some(next) = self.next() {
            row("renewal", &next)?;
        }
        let status = self.status.as_ref();
        if let Some((status, error)) = status.and_then(|s| Some((s, s.error.as_ref()?))) {
            let tried = status.tried.map(|at| format!(" ({} ago)", span(self.now - at)));
            row("last error", &format!("{error}{}", tried.unwrap_or_default()))?;
        }
        if let Some(advice) = self.advice() {
            row("what to do", advice)?;
        }
        Ok(())
    }
}

//! What is known of an order, for those who ask.

use serde::{Deserialize, Serialize};

use crate::schedule::Span;

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
    /// How often that has failed since it last succeeded.
    pub failures: u32,
    /// Why it last failed.
    pub error: Option<String>,
    /// What kind of failure the CA calls it; empty when the CA has not refused.
    pub kind: String,
    /// Until when the CA wants to be left alone.
    pub not_before: Option<i64>,
}

impl Status {
    /// What to do about the last error, if anybody knows.
    pub fn advice(&self) -> Option<&'static str> {
        self.error.as_ref()?;
        Some(match &*self.kind {
            "" => "see whether the CA can be reached from here; it is tried again soon",
            "agreementRequired" | "userActionRequired" => {
                "read the terms of service of the CA and add `accept_terms_of_service;`"
            }
            "caa" => {
                "the CAA record of the domain does not allow this CA: change it, or use another CA"
            }
            "connection" | "tls" => {
                "see whether the port of the challenge (80 for http-01, 443 for tls-alpn-01) can be reached \
                 from the internet, also over IPv6 if the name has an AAAA record"
            }
            "dns" => "see whether the name exists in the DNS and leads to this host",
            "dnsUpdate" => "see whether the DNS server allows to write this record",
            "externalAccountRequired" => {
                "get an account at the site of the CA and add `external_account_key`"
            }
            "invalidProfile" => "ask for another `profile`, or leave out `require`",
            "noChallenge" => "set another `challenge`",
            "rateLimited" => "wait; use the staging server of the CA while you try",
            "rejectedIdentifier" | "unsupportedIdentifier" => {
                "the CA does not issue certificates for this name: use another one"
            }
            "unauthorized" | "incorrectResponse" => {
                "another server has answered for this name: see whether the DNS leads here, and whether a \
                 CDN or another server is in front"
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! The kinds of advice, by the names that `ignore_warnings` takes.

/// A kind of advice, as `ignore_warnings` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Advice {
    /// A chain of certificates that some clients reject.
    CertificateChain,
    /// A server name that the certificate does not cover.
    CertificateNames,
    /// A port where CAs look for challenges and nobody listens.
    ChallengePort,
    /// Another `Host` beside the browser's `Origin`.
    HostAndOrigin,
    /// WebSockets that end when nothing is said for a minute.
    IdleTimeout,
    /// Lines for an upgrade that do not apply in an inner block.
    LostHeaders,
    /// A variable of a request field that no client sends, one letter from another.
    MisspeltVariable,
    /// More connections than there are ports.
    Ports,
    /// Metrics that everybody can read.
    PublicMetrics,
    /// What wants to be held in WebSockets of which nobody looks at the frames.
    UncheckedFrames,
    /// A location that no request reaches.
    Unreachable,
    /// A variable that is used before it has a value.
    UnsetVariable,
    /// Lines for an upgrade that do not make one.
    UpgradeHeaders,
}

/// Each kind with its name.
pub(crate) const NAMES: [(&str, Advice); 13] = [
    ("certificate_chain", Advice::CertificateChain),
    ("certificate_names", Advice::CertificateNames),
    ("challenge_port", Advice::ChallengePort),
    ("host_and_origin", Advice::HostAndOrigin),
    ("idle_timeout", Advice::IdleTimeout),
    ("lost_headers", Advice::LostHeaders),
    ("misspelt_variable", Advice::MisspeltVariable),
    ("ports", Advice::Ports),
    ("public_metrics", Advice::PublicMetrics),
    ("unchecked_frames", Advice::UncheckedFrames),
    ("unreachable", Advice::Unreachable),
    ("unset_variable", Advice::UnsetVariable),
    ("upgrade_headers", Advice::UpgradeHeaders),
];

const SILENCES: &str = " silences this";

impl Advice {
    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, advice)| *advice == self).map_or("", |(name, _)| name)
    }

    /// How to silence it.
    pub fn silencer(self) -> String {
        format!("`ignore_warnings {};`{SILENCES}", self.name())
    }

    /// Whether a note is such a text, which is of no use to those who have no file to write it into.
    pub fn is_silencer(note: &str) -> bool {
        note.ends_with(SILENCES)
    }
}

//! What was found, for terminals.

use crate::facts::{
    CertificateFacts, DnsFacts, Facts, HandshakeFacts, HopsFacts, IdleFacts, PingFacts, SizeFacts,
    TcpFacts, TlsFacts,
};
use crate::report::{Finding, Report, Skipped, StepReport, Verdict};

/// The column at which lines below the first one of a step begin.
const INDENT: &str = "                   ";

/// So many characters of a finding stand on one line behind that.
const WIDTH: usize = 80;

/// How text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether verdicts have colours.
    pub color: bool,
}

impl Style {
    /// One step: what was seen, then what is wrong and what to do; ends with a line end.
    pub fn step(self, report: &StepReport) -> String {
        let mut lines = lines(&report.facts);
        lines.extend(report.findings.iter().flat_map(|finding| self.finding(finding)));
        let mut text = format!("{} {:<10}", self.verdict(report.verdict), report.step.name());
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                text += INDENT;
            }
            text += line;
            text.push('\n');
        }
        text
    }

    /// The end: which steps were skipped and why, then how many faults and warnings there are.
    pub fn summary(self, report: &Report) -> String {
        let count =
            |verdict| report.findings().filter(|finding| finding.verdict == verdict).count();
        let number = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let (faults, warnings) = (count(Verdict::Fault), count(Verdict::Warning));
        let words = match (faults, warnings) {
            (0, 0) => "everything is fine".into(),
            (0, _) => number(warnings, "warning"),
            (_, 0) => number(faults, "fault"),
            _ => format!("{}, {}", number(faults, "fault"), number(warnings, "warning")),
        };
        format!("{}{words}\n", skipped(&report.skipped))
    }

    fn finding(self, finding: &Finding) -> Vec<String> {
        let word = match finding.verdict {
            Verdict::Fault => "fault",
            _ => "warning",
        };
        let what = format!("{word} [{}]: {}", finding.code, plain(&finding.what));
        let mut lines = wrapped(&what, "  ");
        // Colours have no width, so they come behind the wrapping.
        lines[0] = lines[0].replacen(word, &self.painted(finding.verdict, word), 1);
        lines.extend(wrapped(&format!("  to do: {}", plain(&finding.fix)), "    "));
        lines
    }

    fn verdict(self, verdict: Verdict) -> String {
        let word = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Fault => "FAULT",
        };
        // Paint has a width of its own, so the word is padded first.
        self.painted(verdict, &format!("{word:<8}"))
    }

    fn painted(self, verdict: Verdict, text: &str) -> String {
        let color = match verdict {
            Verdict::Ok => 32,
            Verdict::Warning => 33,
            Verdict::Fault => 31,
        };
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The steps that were skipped, those for the same reason together.
fn skipped(steps: &[Skipped]) -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Skipped { step, why } in steps {
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, steps)) => steps.push(step.name()),
            None => reasons.push((why, vec![step.name()])),
        }
    }
    let parts = reasons.iter().map(|(why, steps)| format!("{} ({why})", steps.join(", ")));
    let parts: Vec<_> = parts.collect();
    match parts.is_empty() {
        true => String::new(),
        false => {
            let lines = wrapped(&parts.join("; "), "");
            format!("{:<19}{}\n", "skipped", lines.join(&format!("\n{INDENT}")))
        }
    }
}

/// Text in lines of at most [`WIDTH`] characters, if its words are not longer; all but the first begin with
/// `indent`.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut len = 0;
    // Split at single spaces, so that those at the beginning stay.
    for (index, word) in text.split(' ').enumerate() {
        let word_len = word.chars().count();
        let line = lines.last_mut().expect("there is always one");
        if index > 0 && len + 1 + word_len > WIDTH && !line.trim().is_empty() {
            lines.push(format!("{indent}{word}"));
            len = indent.len() + word_len;
            continue;
        }
        if index > 0 {
            line.push(' ');
            len += 1;
        }
        line.push_str(word);
        len += word_len;
    }
    lines
}

/// Text of others without what could move the cursor.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

fn lines(facts: &Facts) -> Vec<String> {
    let lines = match facts {
        Facts::Dns(facts) => dns(facts),
        Facts::Tcp(facts) => tcp(facts),
        Facts::Tls(facts) => tls(facts),
        Facts::Handshake(facts) => handshake(facts),
        Facts::Hops(facts) => hops(facts),
        Facts::Ping(facts) => ping(facts),
        Facts::Size(facts) => size(facts),
        Facts::Idle(facts) => idle(facts),
    };
    lines.iter().map(|line| plain(line)).collect()
}

fn dns(facts: &DnsFacts) -> Vec<String> {
    let addresses: Vec<_> = facts.addresses.iter().map(ToString::to_string).collect();
    vec![match (&facts.asked, addresses.is_empty()) {
        (None, _) => format!("{} is an address", facts.name),
        (Some(_), true) => facts.name.clone(),
        (Some(_), false) => format!("{}: {}", facts.name, addresses.join(", ")),
    }]
}

fn tcp(facts: &TcpFacts) -> Vec<String> {
    let line = |attempt: &crate::facts::Attempt| match &attempt.error {
        None => format!("{} in {:.1} ms", attempt.address, attempt.ms),
        Some(error) => format!("{}: {error}", attempt.address),
    };
    facts.attempts.iter().map(line).collect()
}

fn tls(facts: &TlsFacts) -> Vec<String> {
    let Some(version) = &facts.version else { return vec![format!("with {}", facts.address)] };
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
    let mut lines = vec![
        format!("{version}, {} (speaks {})", or_none(&facts.cipher), facts.versions.join(", ")),
        format!(
            "ALPN: {} for a WebSocket, {} if h2 is offered too",
            or_none(&facts.alpn),
            or_none(&facts.alpn_with_h2)
        ),
    ];
    if let (Some(sni), Some(without)) = (&facts.sni, &facts.without_sni) {
        lines.push(format!("SNI: {sni}; without it: {without}"));
    }
    if !facts.names.is_empty() {
        lines.push(format!("names: {}", facts.names.join(", ")));
    }
    lines.extend(facts.chain.iter().enumerate().map(|(index, one)| certificate(index + 1, one)));
    lines.extend(facts.trusted_by.iter().map(|by| match by.as_str() {
        "--ca" => "trusted only through --ca: other clients must trust that CA as well".into(),
        by => format!("trusted by a {by}, without fetching anything"),
    }));
    lines
}

fn certificate(place: usize, one: &CertificateFacts) -> String {
    let until = one.to.split('T').next().unwrap_or_default();
    format!(
        "{place}. {}: {}, issued by {} ({}), until {until}",
        one.subject, one.key, one.issuer, one.signature
    )
}

fn handshake(facts: &HandshakeFacts) -> Vec<String> {
    let origin = facts.origin.as_deref().unwrap_or("none");
    let mut first = match (facts.status, facts.response_ms) {
        (Some(status), Some(ms)) => format!("{status} in {ms:.1} ms"),
        _ => "no response".into(),
    };
    first += &format!(", Origin {origin}");
    if let Some(subprotocol) = &facts.subprotocol {
        first += &format!(", subprotocol {subprotocol}");
    }
    if let Some(extensions) = &facts.extensions {
        first += &format!(", {extensions}");
    }
    let tried = facts.tried.iter().map(|tried| format!("tried {tried}"));
    std::iter::once(first).chain(tried).collect()
}

fn hops(facts: &HopsFacts) -> Vec<String> {
    let mut parts = Vec::new();
    parts.extend(facts.server.iter().map(|server| format!("Server {server}")));
    parts.extend(facts.via.iter().map(|via| format!("Via {via}")));
    parts.extend(facts.hops.iter().map(|hops| format!("hops {hops}")));
    parts.extend(facts.services.iter().cloned());
    if parts.is_empty() {
        parts.push("no server or proxy identifies itself".into());
    }
    let mut line = parts.join(", ");
    if let Some(behind) = facts.behind_ms {
        line += &format!("; {behind:.1} ms more than a round trip of TCP");
    }
    vec![line]
}

fn ping(facts: &PingFacts) -> Vec<String> {
    if facts.ms.is_empty() {
        return vec!["no pong".into()];
    }
    let least = facts.ms.iter().copied().fold(f64::INFINITY, f64::min);
    let most = facts.ms.iter().copied().fold(0.0, f64::max);
    let mean = facts.ms.iter().sum::<f64>() / facts.ms.len() as f64;
    let mut line =
        format!("{} pongs, {least:.1}/{mean:.1}/{most:.1} ms (min/mean/max)", facts.ms.len());
    if facts.messages > 0 {
        line += &format!(", {} messages meanwhile", facts.messages);
    }
    vec![line]
}

fn size(facts: &SizeFacts) -> Vec<String> {
    vec![match (facts.largest, facts.echoed) {
        (None, _) => "no message was received".into(),
        (Some(largest), true) => format!("messages of up to {largest} bytes came back"),
        (Some(largest), false) => format!("messages of up to {largest} bytes were received"),
    }]
}

fn idle(facts: &IdleFacts) -> Vec<String> {
    let tried: Vec<_> = facts.tried_seconds.iter().map(|&silence| short(silence)).collect();
    let survived = short(facts.survived_seconds);
    let mut lines = vec![format!("silent for {} s, each time until a ping", tried.join(", "))];
    if facts.pings > 0 {
        let (pings, ends) = if facts.pings == 1 { ("ping", "ends") } else { ("pings", "end") };
        lines.push(format!("the server sent {} {pings}, which {ends} a silence", facts.pings));
    }
    lines.push(match facts.cut_by {
        None => format!(
            "the connection stayed open: nothing cut it within {survived} s of silence; longer was not tried"
        ),
        Some(_) => format!("the longest silence that it survived was {survived} s"),
    });
    lines
}

/// A number of seconds without what nobody wants to know.
fn short(seconds: f64) -> String {
    let scale = if seconds < 1.0 { 100.0 } else { 10.0 };
    ((seconds * scale).round() / scale).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Step;

    #[test]
    fn steps_skipped_for_one_reason_stand_together() {
        let one = |step, why: &str| Skipped { step, why: why.to_owned() };
        assert_eq!(skipped(&[]), "");
        let steps = [one(Step::Tls, "a"), one(Step::Hops, "b"), one(Step::Ping, "b")];
        assert_eq!(skipped(&steps), "skipped            tls (a); hops, ping (b)\n");
        let steps = [one(Step::Tls, "a"), one(Step::Size, &"word ".repeat(20))];
        let text = skipped(&steps);
        assert!(text.lines().count() == 2 && text.contains(&format!("\n{INDENT}word")), "{text}");
    }

    #[test]
    fn an_idle_connection_is_told_with_what_was_tried() {
        let mut facts = IdleFacts {
            survived_seconds: 10.04,
            tried_seconds: vec![5.0, 10.0],
            ..IdleFacts::default()
        };
        let lines = |facts: &IdleFacts| idle(facts).join("\n");
        let expected = "silent for 5, 10 s, each time until a ping\nthe connection stayed open: nothing cut it within \
                        10 s of silence; longer was not tried";
        assert_eq!(lines(&facts), expected);
        (facts.pings, facts.cut_by) = (1, Some("RST".to_owned()));
        let text = lines(&facts);
        assert!(text.contains("sent 1 ping, which ends a silence"), "{text}");
        assert!(text.ends_with("the longest silence that it survived was 10 s"), "{text}");
    }

    #[test]
    fn long_findings_are_wrapped_and_bytes_of_others_are_harmless() {
        let what = format!("it says \x1b[2J {}", "word ".repeat(30).trim_end());
        let finding = Finding::fault("no_pong", what, "x".repeat(100));
        let facts = Facts::Hops(HopsFacts { via: Some("\x07".into()), ..HopsFacts::default() });
        let findings = vec![finding];
        let report =
            StepReport { step: Step::Hops, verdict: Verdict::Fault, ms: 1.0, findings, facts };
        let text = Style::default().step(&report);
        let expected = format!(
            "FAULT    hops      Via \u{fffd}\n\
             {INDENT}fault [no_pong]: it says \u{fffd}[2J {}\n\
             {INDENT}  {}\n\
             {INDENT}  {}\n\
             {INDENT}  to do:\n\
             {INDENT}    {}\n",
            "word ".repeat(10).trim_end(),
            "word ".repeat(15).trim_end(),
            "word ".repeat(5).trim_end(),
            "x".repeat(100),
        );
        assert_eq!(text, expected);
        let colored = Style { color: true }.step(&report);
        assert!(colored.contains("\x1b[31mfault\x1b[0m [no_pong]"), "{colored:?}");
        assert!(!colored.contains("\x1b[2J") && !colored.contains('\x07'), "{colored:?}");
    }
}

//! Certificates that are obtained by ACME: `acme_certificate` and whom it names.

pub(crate) mod dns;
pub(crate) mod issuer;
pub(crate) mod names;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word, printable};

use crate::acme::issuer::{AcmeChallenge, AcmeIssuer, AcmeIssuerId, Issuers};
use crate::acme::names::{AcmeIdentifier, identifiers};
use crate::advice_kind::Advice;
use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{AnyDirective, Directive, H, S};
use crate::ignored::is_silenced;
use crate::level::Level;
use crate::read::{Reading, Reads, directive_problem, parameter};
use crate::server_name::ServerName;
use crate::value::{self, Located, MIN_ZONE_SIZE};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&ACME_CERTIFICATE, &ACME_SHARED_ZONE];

/// `acme_certificate`
pub(crate) static ACME_CERTIFICATE: Directive<Wanted> = Directive {
    name: "acme_certificate",
    contexts: S,
    arity: AtLeast(1),
    doc: "Obtains a certificate from an `acme_issuer`, for these names and addresses or for those \
          of `server_name`, and renews it in time. `key=` is its key type: `ecdsa:256`, \
          `ecdsa:384`, `ecdsa:521`, `rsa:2048`, `rsa:3072` or `rsa:4096`. `ssl_certificate \
          $acme_certificate` and `ssl_certificate_key $acme_certificate_key` use it.",
    ..Directive::once(wanted)
};

/// `acme_shared_zone`
pub(crate) static ACME_SHARED_ZONE: Directive<()> = Directive {
    name: "acme_shared_zone",
    contexts: H,
    arity: Exactly(1),
    without_effect: "workers always share certificates and challenges",
    ..Directive::once(shared_zone)
};

/// Index into [`Acme::certificates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AcmeCertificateId(pub usize);

/// What is obtained by ACME, and from whom.
#[derive(Debug, Default)]
pub struct Acme {
    /// `acme_issuer` blocks.
    pub issuers: Vec<AcmeIssuer>,
    /// What servers want; two that want the same share it.
    pub certificates: Vec<AcmeCertificate>,
}

/// `acme_certificate`.
#[derive(Clone, Debug)]
pub struct AcmeCertificate {
    /// From whom.
    pub issuer: AcmeIssuerId,
    /// For which names and addresses; never none.
    pub identifiers: Vec<AcmeIdentifier>,
    /// `key=`.
    pub key: AcmeKey,
    /// Where it was written first.
    pub span: Span,
}

/// `key=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeKey {
    /// On a curve of so many bits: 256, 384 or 521.
    Ecdsa(u32),
    /// Of so many bits: 2048, 3072 or 4096.
    Rsa(u32),
}

/// What `acme_certificate` says.
#[derive(Clone)]
pub(crate) struct Wanted {
    issuer: Located<Box<[u8]>>,
    identifiers: Vec<AcmeIdentifier>,
    key: AcmeKey,
}

fn wanted(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Wanted> {
    let name = &directive.args[0];
    if name.value.is_empty() {
        return Err(directive_problem(directive, name, "\"issuer\" is missing"));
    }
    let issuer = Located { value: name.value.clone(), span: name.span };
    let mut wanted = Wanted { issuer, identifiers: Vec::new(), key: AcmeKey::Ecdsa(256) };
    for word in &directive.args[1..] {
        if let Some(text) = parameter(word, "key=") {
            let key = key(text).map_err(|why| directive_problem(directive, word, why))?;
            wanted.key =
                key.ok_or_else(|| directive_problem(directive, word, "invalid \"key\" value"))?;
        } else {
            let read = identifiers(&word.value).map_err(|why| bad_name(word, &why));
            wanted.identifiers.extend(read?);
        }
    }
    Ok(wanted)
}

fn bad_name(word: &Word, why: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::error(format!("invalid server name: {why}")).at(word.span, "")
}

/// Reads a kind of key; `None` when it does not begin with an algorithm.
pub(crate) fn key(text: &[u8]) -> Result<Option<AcmeKey>, &'static str> {
    let mut parts = text.splitn(2, |&byte| byte == b':');
    let (algorithm, size) = (parts.next().unwrap_or_default(), parts.next());
    match (algorithm, size) {
        (b"ecdsa", None | Some(b"256")) => Ok(Some(AcmeKey::Ecdsa(256))),
        (b"ecdsa", Some(b"384")) => Ok(Some(AcmeKey::Ecdsa(384))),
        (b"ecdsa", Some(b"521")) => Ok(Some(AcmeKey::Ecdsa(521))),
        (b"ecdsa", _) => Err("unsupported curve"),
        (b"rsa", None | Some(b"2048")) => Ok(Some(AcmeKey::Rsa(2048))),
        (b"rsa", Some(b"3072")) => Ok(Some(AcmeKey::Rsa(3072))),
        (b"rsa", Some(b"4096")) => Ok(Some(AcmeKey::Rsa(4096))),
        (b"rsa", _) => Err("unsupported key size"),
        _ => Ok(None),
    }
}

fn shared_zone(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<()> {
    let word = &directive.args[0];
    let problem = |message: String| Err(Diagnostic::error(message).at(word.span, ""));
    let Some(zone) = parameter(word, "zone=") else {
        return problem("\"acme_shared_zone\" must have \"zone\" parameter".to_owned());
    };
    let mut parts = zone.splitn(2, |&byte| byte == b':');
    let (name, size) = (parts.next().unwrap_or_default(), parts.next().and_then(value::size));
    match size {
        None => problem(format!("invalid zone size \"{}\"", printable(zone))),
        Some(..MIN_ZONE_SIZE) => problem(format!("zone {} is too small", printable(name))),
        Some(_) => Ok(()),
    }
}

/// Collects what servers want.
pub(crate) struct Certificates {
    issuers: Issuers,
    certificates: Vec<AcmeCertificate>,
}

impl Certificates {
    /// Takes in every `acme_issuer`; they may be used before they stand.
    pub(crate) fn new(issuers: Issuers) -> Self {
        Self { issuers, certificates: Vec::new() }
    }

    /// What a server wants, if anything.
    pub(crate) fn of_server(
        &mut self,
        reading: &mut Reading<'_>,
        server: &Level<'_>,
        names: &[ServerName],
    ) -> Option<AcmeCertificateId> {
        let line = server.lines(&ACME_CERTIFICATE).next()?;
        let span = line.directive.head();
        let mut wanted = line.value.cloned()?;
        let Some(issuer) = self.issuers.find(&wanted.issuer.value) else {
            let name = printable(&wanted.issuer.value);
            reading.error(format!("issuer \"{name}\" is missing"), wanted.issuer.span);
            return None;
        };
        if wanted.identifiers.is_empty() {
            wanted.identifiers = of_names(reading, names, span)?;
        }
        let mut seen = Vec::new();
        wanted.identifiers.retain(|one| {
            !seen.contains(one) && {
                seen.push(one.clone());
                true
            }
        });
        let is_wildcard = |one: &&AcmeIdentifier| one.is_wildcard();
        if let Some(wildcard) = wanted.identifiers.iter().find(is_wildcard)
            && !self.issuers.proves_wildcards(issuer)
        {
            let message = format!("no certificate for the wildcard \"{wildcard}\"");
            let help = "CAs issue those with `challenge dns-01` only; name each host in \
                        \"acme_certificate\"";
            reading.report.push(Diagnostic::error(message).at(span, "").help(help));
            return None;
        }
        let Wanted { identifiers, key, .. } = wanted;
        let same = |other: &AcmeCertificate| {
            other.issuer == issuer && other.identifiers == identifiers && other.key == key
        };
        let known = self.certificates.iter().position(same);
        Some(AcmeCertificateId(known.unwrap_or_else(|| {
            self.certificates.push(AcmeCertificate { issuer, identifiers, key, span });
            self.certificates.len() - 1
        })))
    }

    /// Warns of what would be obtained for nobody.
    pub(crate) fn check_use(&self, reading: &mut Reading<'_>, used: &[AcmeCertificateId]) {
        for (index, certificate) in self.certificates.iter().enumerate() {
            if !used.contains(&AcmeCertificateId(index)) {
                let message = "no server uses the certificate of \"acme_certificate\"";
                let help = "add `ssl_certificate $acme_certificate;` and `ssl_certificate_key \
                            $acme_certificate_key;`";
                let problem = Diagnostic::warning(message).at(certificate.span, "");
                reading.report.push(problem.help(help));
            }
        }
    }

    /// Warns of ports where CAs will look and nobody listens, of those that somebody listens on.
    pub(crate) fn check_ports(&self, reading: &mut Reading<'_>, http: &Level<'_>, ports: &[u16]) {
        for (id, issuer) in self.issuers.iter() {
            let (port, line) = match issuer.challenge {
                AcmeChallenge::Http01 => (80, "listen 80;"),
                AcmeChallenge::TlsAlpn01 => (443, "listen 443 ssl;"),
                AcmeChallenge::Dns01 => continue,
            };
            let is_used = self.certificates.iter().any(|certificate| certificate.issuer == id);
            let Located { value: name, span } = &issuer.name;
            let is_silenced = || is_silenced(http, Advice::ChallengePort, *span);
            if is_used && !ports.contains(&port) && !is_silenced() {
                let message = format!(
                    "nothing listens on port {port}, which the CA of acme_issuer \"{name}\" \
                     connects to"
                );
                let problem = Diagnostic::warning(message).at(*span, "");
                let problem = problem.help(format!(
                    "add `{line}`, unless something in front forwards that port to this server"
                ));
                reading.report.push(problem.note(Advice::ChallengePort.silencer()));
            }
        }
    }

    /// All of them.
    pub(crate) fn into_acme(self) -> Acme {
        Acme { issuers: self.issuers.into_issuers(), certificates: self.certificates }
    }
}

/// The names of a server that a certificate can be for.
fn of_names(
    reading: &mut Reading<'_>,
    names: &[ServerName],
    span: Span,
) -> Option<Vec<AcmeIdentifier>> {
    let mut found = Vec::new();
    for name in names {
        let text = &name.text.value;
        if name.regex.is_some() {
            let message = format!(
                "\"acme_certificate\": unsupported regular expression in server_name: {}",
                printable(text)
            );
            reading.report.push(Diagnostic::warning(message).at(name.text.span, ""));
        } else if !text.is_empty() {
            match identifiers(text) {
                Ok(read) => found.extend(read),
                Err(why) => {
                    let message = format!("\"acme_certificate\": invalid server name: {why}");
                    reading.error(message, name.text.span);
                    return None;
                }
            }
        }
    }
    if found.is_empty() {
        let message = "\"acme_certificate\": no identifiers found in \"server_name\"";
        reading.error(message, span);
        return None;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use crate::load::{LoadOptions, load};

    use wssgate_syntax::Severity;

    const USED: &str =
        "ssl_certificate $acme_certificate; ssl_certificate_key $acme_certificate_key;";

    /// Every error of a configuration with these lines in `acme_issuer`, `http` and `server`.
    fn errors(issuer: &str, http: &str, server: &str) -> Vec<String> {
        problems(Severity::Error, issuer, http, &format!("{server} {USED}"))
    }

    fn problems(severity: Severity, issuer: &str, http: &str, server: &str) -> Vec<String> {
        let text = format!(
            "events {{}} http {{ {http} server {{ listen 127.0.0.1:443 ssl; {server} }} \
             server {{ listen 127.0.0.1:80; }} \
             acme_issuer ca {{ uri https://ca.test/dir; {issuer} }} }}"
        );
        let report = match load(&LoadOptions::text(text)) {
            Ok(loaded) => loaded.report,
            Err(failed) => failed.report,
        };
        let problems = report.iter().filter(|problem| problem.severity == severity);
        problems.map(|problem| problem.message.clone()).collect()
    }

    #[test]
    fn what_would_do_nothing_is_told() {
        let (server, used) = ("acme_certificate ca a.test;", USED);
        let good = format!("{server} {used}");
        let lacks = "no \"acme_certificate\" is defined for \"ssl_certificate $acme_certificate\"";
        let more = |server: &str| format!("server {{ {server} }} {used}");
        for (http, server, expected) in [
            ("", used, &[lacks][..]),
            ("", &format!("{used} ssl_reject_handshake on;"), &[]),
            (used, server, &[]),
            (&more("listen 127.0.0.1:443; server_name b;"), server, &[lacks]),
            (&more("listen 127.0.0.1:80;"), server, &[]),
            // Said once is enough.
            ("", &format!("acme_certificate no a.test; {used}"), &["issuer \"no\" is missing"]),
        ] {
            assert_eq!(problems(Severity::Error, "", http, server), expected, "{http} {server}");
        }
        let unused = "no server uses the certificate of \"acme_certificate\"";
        let late = "\"dns_propagation_timeout\" has no effect without \"dns_update\"";
        for (issuer, server, expected) in [
            ("", &*good, &[][..]),
            ("", &format!("{server} ssl_reject_handshake on;"), &[unused]),
            ("dns_propagation_timeout 1m;", &good, &[late]),
            ("challenge dns; dns_hook /x; dns_propagation_timeout 1m;", &good, &[late]),
            ("challenge dns; dns_update server=192.0.2.1; dns_propagation_timeout 1m;", &good, &[]),
        ] {
            assert_eq!(
                problems(Severity::Warning, issuer, "", server),
                expected,
                "{issuer} {server}"
            );
        }
    }

    #[test]
    fn ports_where_a_ca_would_look_in_vain_are_told() {
        let good = format!("acme_certificate ca a.test; {USED}");
        let dns = "challenge dns; dns_hook /x;";
        for (issuer, http, listen, expected) in [
            ("", "", "80", None),
            ("", "", "[::1]:80", None),
            ("", "", "8080", Some(80)),
            ("challenge tls-alpn;", "", "443 ssl", None),
            ("challenge tls-alpn;", "", "80", Some(443)),
            (dns, "", "8080", None),
            ("", "ignore_warnings challenge_port;", "8080", None),
        ] {
            let text = format!(
                "events {{}} http {{ {http} server {{ listen 4433 ssl; {good} }} server {{ listen {listen}; {USED} \
                 ssl_reject_handshake on; }} acme_issuer ca {{ uri https://ca.test/dir; {issuer} }} }}"
            );
            let report = load(&LoadOptions::text(text)).expect("it is good").report;
            let told: Vec<_> = report.iter().map(|problem| problem.message.clone()).collect();
            let text = |port| {
                format!(
                    "nothing listens on port {port}, which the CA of acme_issuer \"ca\" connects to"
                )
            };
            assert_eq!(
                told,
                expected.map(text).into_iter().collect::<Vec<_>>(),
                "{issuer} {listen}"
            );
        }
    }

    #[test]
    fn what_nginx_takes_is_taken() {
        let issuer = "account_key ecdsa:256; challenge http; contact admin@example.test; ssl_verify off; \
                      state_path off; accept_terms_of_service; external_account_key kid data:c2VjcmV0; \
                      preferred_chain Root; profile short require; common_name_in_csr on;";
        let http = "acme_shared_zone zone=ngx_acme_shared:1M; resolver 127.0.0.1;";
        for server in [
            "acme_certificate ca .example.test 192.0.2.1 key=rsa:4096;",
            "server_name .example.test ~^x$ ''; acme_certificate ca;",
        ] {
            assert_eq!(errors(issuer, http, server), [""; 0], "{server}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_nginx_words() {
        let good = "acme_certificate ca example.test;";
        for (issuer, http, server, expected) in [
            ("", "acme_shared_zone x;", good, "\"acme_shared_zone\" must have \"zone\" parameter"),
            ("", "acme_shared_zone zone=x:y;", good, "invalid zone size \"x:y\""),
            ("", "acme_shared_zone zone=x:1k;", good, "zone x is too small"),
            ("account_key ecdsa:234;", "", good, "\"account_key\" directive unsupported curve"),
            ("account_key rsa:1024;", "", good, "\"account_key\" directive unsupported key size"),
            ("account_key rsa;", "", good, "account keys of \"rsa\" are not supported"),
            ("challenge bad;", "", good, "unsupported challenge: bad"),
            (
                "challenge dns;",
                "",
                good,
                "no \"dns_hook\" or \"dns_update\" for \"challenge dns-01\"",
            ),
            (
                "challenge dns-01; dns_hook /x; dns_update server=192.0.2.1;",
                "",
                good,
                "\"dns_hook\" and \"dns_update\" cannot both be used",
            ),
            (
                "challenge dns-01; dns_update zone=x;",
                "",
                good,
                "\"dns_update\" must have \"server\" parameter",
            ),
            ("profile a b;", "", good, "invalid value \"b\""),
            (
                "",
                "",
                "acme_certificate ca;",
                "\"acme_certificate\": no identifiers found in \"server_name\"",
            ),
            ("", "", "acme_certificate no example.test;", "issuer \"no\" is missing"),
            (
                "",
                "",
                "server_name www.example.*; acme_certificate ca;",
                "\"acme_certificate\": invalid server name: unexpected character '*' at position 12",
            ),
            (
                "",
                "",
                "acme_certificate ca .example..test;",
                "invalid server name: unexpected character '.' at position 9",
            ),
            (
                "",
                "",
                "acme_certificate ca x key=x;",
                "\"acme_certificate\" directive invalid \"key\" value",
            ),
            (
                "",
                "",
                "acme_certificate ca *.x.test;",
                "no certificate for the wildcard \"*.x.test\"",
            ),
            ("", "acme_issuer two { }", good, "\"acme_issuer\" directive \"uri\" is missing"),
            (
                "",
                "acme_issuer two { uri http://two.test/; }",
                good,
                "invalid value \"http://two.test/\"",
            ),
            (
                "",
                "log_format x $acme_certificate_key;",
                good,
                "unknown \"acme_certificate_key\" variable",
            ),
        ] {
            assert_eq!(errors(issuer, http, server), [expected], "{issuer} {http} {server}");
        }
    }
}

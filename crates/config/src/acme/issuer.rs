//! `acme_issuer`: a CA and our account there.

use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word, printable};

use crate::acme::dns::{self, AcmeDns};
use crate::acme::{AcmeKey, key};
use crate::directive::Arity::{Between, Exactly, Flag};
use crate::directive::{AI, AnyDirective, Braces, Context, Directive, H};
use crate::dns::{RESOLVER, RESOLVER_TIMEOUT};
use crate::level::{Level, walk};
use crate::name_servers::ResolverId;
use crate::read::{
    Reading, Reads, conf_path, directive_problem, flag, invalid_value, located_text, parameter,
    present,
};
use crate::scope::{Scope, default_directives};
use crate::value::Located;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &ACCEPT_TERMS_OF_SERVICE,
    &ACCOUNT_KEY,
    &ACME_ISSUER,
    &CHALLENGE,
    &COMMON_NAME_IN_CSR,
    &CONTACT,
    &EXTERNAL_ACCOUNT_KEY,
    &PREFERRED_CHAIN,
    &PROFILE,
    &SSL_TRUSTED_CERTIFICATE,
    &SSL_VERIFY,
    &STATE_PATH,
    &URI,
];

/// `accept_terms_of_service`
pub(crate) static ACCEPT_TERMS_OF_SERVICE: Directive<()> = Directive {
    name: "accept_terms_of_service",
    contexts: AI,
    arity: Exactly(0),
    doc: "Agrees to the terms of service of the CA.",
    ..Directive::once(present)
};

/// `account_key`
pub(crate) static ACCOUNT_KEY: Directive<Option<Located<PathBuf>>> = Directive {
    name: "account_key",
    contexts: AI,
    arity: Exactly(1),
    default: "ecdsa:256",
    doc: "Sets the account key: `ecdsa:256` generates one and keeps it in `state_path`; otherwise \
          a file with such a key in PEM.",
    ..Directive::once(account_key)
};

/// `acme_issuer`
pub(crate) static ACME_ISSUER: Directive<Located<Box<[u8]>>> = Directive {
    name: "acme_issuer",
    contexts: H,
    arity: Exactly(1),
    doc: "Defines a CA that `acme_certificate` obtains certificates from.",
    braces: Braces::Level(Context::AcmeIssuer),
    ..Directive::repeated(located_text)
};

/// `challenge`
pub(crate) static CHALLENGE: Directive<AcmeChallenge> = Directive {
    name: "challenge",
    contexts: AI,
    arity: Exactly(1),
    default: "http-01",
    doc: "Sets how control of the names is proved to the CA: `http-01` (or `http`) by a response \
          on port 80, `tls-alpn-01` (or `tls-alpn`) by a certificate on port 443, `dns-01` (or \
          `dns`), required for wildcards, by a record that `dns_hook` or `dns_update` writes.",
    ..Directive::once(challenge)
};

/// `common_name_in_csr`
pub(crate) static COMMON_NAME_IN_CSR: Directive<bool> = Directive {
    name: "common_name_in_csr",
    contexts: AI,
    arity: Flag,
    default: "off",
    doc: "Puts the first name into the subject of certificate requests too, which some CAs require \
          and some refuse.",
    ..Directive::once(flag)
};

/// `contact`
pub(crate) static CONTACT: Directive<Box<str>> = Directive {
    name: "contact",
    contexts: AI,
    arity: Exactly(1),
    doc: "Sets a URL or an e-mail address at which the CA can contact the owner of the account.",
    ..Directive::repeated(contact)
};

/// `external_account_key`
pub(crate) static EXTERNAL_ACCOUNT_KEY: Directive<AcmeExternalAccount> = Directive {
    name: "external_account_key",
    contexts: AI,
    arity: Exactly(2),
    doc: "Binds the account to an existing one at the CA: its key ID and the file with its key in \
          base64url, or `data:` and the key.",
    ..Directive::once(external_account_key)
};

/// `preferred_chain`
pub(crate) static PREFERRED_CHAIN: Directive<Box<str>> = Directive {
    name: "preferred_chain",
    contexts: AI,
    arity: Exactly(1),
    doc: "If the CA offers several chains for a certificate, prefers the one whose topmost \
          certificate was issued by this common name.",
    ..Directive::once(utf8)
};

/// `profile`
pub(crate) static PROFILE: Directive<(Box<str>, bool)> = Directive {
    name: "profile",
    contexts: AI,
    arity: Between(1, 2),
    doc: "Requests certificates with this profile if the CA offers it; with `require`, requests \
          none otherwise.",
    ..Directive::once(profile)
};

/// `ssl_trusted_certificate`
pub(crate) static SSL_TRUSTED_CERTIFICATE: Directive<Located<PathBuf>> = Directive {
    name: "ssl_trusted_certificate",
    contexts: AI,
    arity: Exactly(1),
    doc: "Sets the file with the CA certificates, in PEM, for verifying the CA's server; those of \
          the system by default.",
    ..Directive::once(conf_path)
};

/// `ssl_verify`
pub(crate) static SSL_VERIFY: Directive<bool> = Directive {
    name: "ssl_verify",
    contexts: AI,
    arity: Flag,
    default: "on",
    doc: "Verifies the certificate of the CA's server.",
    ..Directive::once(flag)
};

/// `state_path`
pub(crate) static STATE_PATH: Directive<Option<PathBuf>> = Directive {
    name: "state_path",
    contexts: AI,
    arity: Exactly(1),
    doc: "Sets the directory for the account key, certificates and their keys; `off` keeps them in \
          memory only. The default is `acme_NAME` below the prefix.",
    ..Directive::once(state_path)
};

/// `uri`
pub(crate) static URI: Directive<Located<Box<str>>> = Directive {
    name: "uri",
    contexts: AI,
    arity: Exactly(1),
    doc: "Sets the URL of the CA's directory; required.",
    ..Directive::once(uri)
};

/// Index into [`Acme::issuers`](crate::model::Acme::issuers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AcmeIssuerId(pub usize);

/// `acme_issuer`.
#[derive(Clone, Debug)]
pub struct AcmeIssuer {
    /// What it is called.
    pub name: Located<Box<str>>,
    /// `uri`.
    pub uri: Box<str>,
    /// `account_key`, where it is a file.
    pub account_key: Option<Located<PathBuf>>,
    /// `contact`: URLs.
    pub contacts: Vec<Box<str>>,
    /// `challenge`.
    pub challenge: AcmeChallenge,
    /// `dns_hook` or `dns_update`; there for `dns-01` and only for that.
    pub dns: Option<AcmeDns>,
    /// `common_name_in_csr`.
    pub common_name: bool,
    /// `external_account_key`.
    pub external_account: Option<AcmeExternalAccount>,
    /// `preferred_chain`.
    pub preferred_chain: Option<Box<str>>,
    /// `profile`, and whether it is required.
    pub profile: Option<(Box<str>, bool)>,
    /// `accept_terms_of_service`.
    pub accept_terms: bool,
    /// `ssl_trusted_certificate`.
    pub trusted_certificate: Option<Located<PathBuf>>,
    /// `ssl_verify`.
    pub verify: bool,
    /// `state_path`.
    pub state_path: Option<PathBuf>,
    /// `resolver` of the `http` block; the system's without one.
    pub resolver: Option<ResolverId>,
    /// `resolver_timeout` of the `http` block.
    pub resolver_timeout: Duration,
}

/// `challenge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// An answer on port 80.
    Http01,
    /// A certificate on port 443.
    TlsAlpn01,
    /// A record in the DNS.
    Dns01,
}

/// `external_account_key`.
#[derive(Clone, Debug)]
pub struct AcmeExternalAccount {
    /// What the CA calls it.
    pub id: Box<str>,
    /// Its key.
    pub key: AcmeExternalKey,
    /// Where it was written.
    pub span: Span,
}

/// Where the key of an external account is.
#[derive(Clone, Debug)]
pub enum AcmeExternalKey {
    /// Here, in base64url.
    Data(Box<[u8]>),
    /// In a file.
    File(PathBuf),
}

fn account_key(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Option<Located<PathBuf>>> {
    let word = &directive.args[0];
    match key(&word.value).map_err(|why| directive_problem(directive, word, why))? {
        Some(AcmeKey::Ecdsa(256)) => Ok(None),
        Some(_) => {
            let message = format!("account keys of \"{word}\" are not supported");
            let help = "use `ecdsa:256`; it has nothing to do with the keys of certificates, which \
                        `acme_certificate … key=` sets";
            Err(Diagnostic::error(message).at(word.span, "").help(help))
        }
        None => {
            let value = reading.paths.below_conf(&word.value);
            Ok(Some(Located { value, span: word.span }))
        }
    }
}

fn challenge(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<AcmeChallenge> {
    let word = &directive.args[0];
    match &*word.value {
        b"http" | b"http-01" => Ok(AcmeChallenge::Http01),
        b"tls-alpn" | b"tls-alpn-01" => Ok(AcmeChallenge::TlsAlpn01),
        b"dns" | b"dns-01" => Ok(AcmeChallenge::Dns01),
        _ => {
            let problem = Diagnostic::error(format!("unsupported challenge: {word}"));
            Err(problem.at(word.span, "").help("expected `http-01`, `tls-alpn-01` or `dns-01`"))
        }
    }
}

fn contact(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Box<str>> {
    let word = &directive.args[0];
    let text = text(word)?;
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match scheme.is_some_and(is_scheme) {
        true => Ok(text.into()),
        false if text.is_empty() => Err(invalid_value(word)),
        false => Ok(format!("mailto:{text}").into()),
    }
}

fn external_account_key(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<AcmeExternalAccount> {
    let [id, key] = &directive.args[..] else { unreachable!("the row asks for two arguments") };
    if let Some(empty) = [id, key].into_iter().find(|word| word.value.is_empty()) {
        return Err(invalid_value(empty));
    }
    let key_is = match parameter(key, "data:") {
        Some(data) => AcmeExternalKey::Data(data.into()),
        None => AcmeExternalKey::File(reading.paths.below_conf(&key.value)),
    };
    Ok(AcmeExternalAccount { id: text(id)?.into(), key: key_is, span: key.span })
}

fn profile(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<(Box<str>, bool)> {
    let required = match directive.args.get(1) {
        None => false,
        Some(word) if word.is("require") => true,
        Some(word) => return Err(invalid_value(word)),
    };
    Ok((text(&directive.args[0])?.into(), required))
}

fn state_path(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<PathBuf>> {
    let word = &directive.args[0];
    Ok((!word.is("off")).then(|| reading.paths.below_prefix(&word.value)))
}

fn uri(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Located<Box<str>>> {
    let word = &directive.args[0];
    let text = text(word)?;
    let host = text.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    let bad = |byte: u8| byte <= b' ' || byte == 0x7f;
    match host.is_some_and(|host| !host.is_empty()) && !text.bytes().any(bad) {
        true => Ok(Located { value: text.into(), span: word.span }),
        false => {
            Err(invalid_value(word).help("the URL of a CA's directory begins with `https://`"))
        }
    }
}

fn utf8(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Box<str>> {
    text(&directive.args[0]).map(Into::into)
}

fn text(word: &Word) -> Reads<&str> {
    word.as_str()
        .ok_or_else(|| Diagnostic::error("contains invalid UTF-8 sequence").at(word.span, ""))
}

/// Every issuer, by name.
pub(crate) struct Issuers(Vec<AcmeIssuer>);

impl Issuers {
    /// Takes in every `acme_issuer`.
    pub(crate) fn new(reading: &mut Reading<'_>, http: &Level<'_>, scope: &Scope<'_, '_>) -> Self {
        let defaults = default_directives(reading.registry, Context::AcmeIssuer, reading.nowhere);
        let defaults = walk(reading, &defaults, Context::AcmeIssuer, true);
        let defaults = Scope::outermost(&defaults);
        let mut issuers = Self(Vec::new());
        for line in http.lines(&ACME_ISSUER) {
            let (Some(name), Some(level)) = (line.value, line.level) else { continue };
            let span = line.directive.head();
            if issuers.find(&name.value).is_some() {
                let message = format!("duplicate acme_issuer \"{}\"", printable(&name.value));
                reading.error(message, span);
                continue;
            }
            let issuer = issuer(reading, name, level, &defaults.inner(level), scope);
            issuers.0.extend(issuer);
        }
        issuers.check_paths(reading);
        issuers
    }

    /// The issuer of this name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<AcmeIssuerId> {
        let found = self.0.iter().position(|issuer| issuer.name.value.as_bytes() == name);
        found.map(AcmeIssuerId)
    }

    /// Whether it can be shown that all names below one are ours.
    pub(crate) fn proves_wildcards(&self, id: AcmeIssuerId) -> bool {
        match self.0[id.0].challenge {
            AcmeChallenge::Http01 | AcmeChallenge::TlsAlpn01 => false,
            AcmeChallenge::Dns01 => true,
        }
    }

    /// All of them, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (AcmeIssuerId, &AcmeIssuer)> {
        self.0.iter().enumerate().map(|(at, issuer)| (AcmeIssuerId(at), issuer))
    }

    /// All of them, by [`AcmeIssuerId`].
    pub(crate) fn into_issuers(self) -> Vec<AcmeIssuer> {
        self.0
    }

    /// Of two issuers in one directory, certificates for the same names overwrite each other.
    fn check_paths(&self, reading: &mut Reading<'_>) {
        for (at, issuer) in self.0.iter().enumerate() {
            let same = |other: &&AcmeIssuer| {
                issuer.state_path.is_some() && other.state_path == issuer.state_path
            };
            if let Some(other) = self.0[..at].iter().find(same) {
                let message = format!(
                    "acme_issuer \"{}\" and \"{}\" have the same \"state_path\"",
                    other.name.value, issuer.name.value
                );
                let problem = Diagnostic::warning(message).at(issuer.name.span, "");
                let help = "certificates for the same names would overwrite each other";
                reading.report.push(problem.help(help));
            }
        }
    }
}

fn issuer(
    reading: &mut Reading<'_>,
    name: &Located<Box<[u8]>>,
    level: &Level<'_>,
    own: &Scope<'_, '_>,
    http: &Scope<'_, '_>,
) -> Option<AcmeIssuer> {
    let Ok(text) = std::str::from_utf8(&name.value) else {
        reading.error("\"acme_issuer\" directive invalid value", name.span);
        return None;
    };
    let Some(uri) = level.last(&URI) else {
        if !level.has(&URI) {
            reading.error("\"acme_issuer\" directive \"uri\" is missing", name.span);
        }
        return None;
    };
    let challenge = own.get(&CHALLENGE);
    let by_dns = challenge == AcmeChallenge::Dns01;
    let dns = dns::of_issuer(reading, level, own, by_dns, name.span);
    let default = || Some(reading.paths.below_prefix(format!("acme_{text}").as_bytes()));
    Some(AcmeIssuer {
        name: Located { value: text.into(), span: name.span },
        uri: uri.value.clone(),
        account_key: own.get(&ACCOUNT_KEY),
        contacts: level.values(&CONTACT).collect(),
        challenge,
        dns,
        common_name: own.get(&COMMON_NAME_IN_CSR),
        external_account: level.last(&EXTERNAL_ACCOUNT_KEY).cloned(),
        preferred_chain: level.last(&PREFERRED_CHAIN).cloned(),
        profile: level.last(&PROFILE).cloned(),
        accept_terms: level.has(&ACCEPT_TERMS_OF_SERVICE),
        trusted_certificate: level.last(&SSL_TRUSTED_CERTIFICATE).cloned(),
        verify: own.get(&SSL_VERIFY),
        state_path: level.last(&STATE_PATH).cloned().unwrap_or_else(default),
        resolver: http.maybe(&RESOLVER),
        resolver_timeout: http.get(&RESOLVER_TIMEOUT),
    })
}

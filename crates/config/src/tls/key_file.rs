//! Certificates and keys in files, whose paths may have variables.

use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word};

use crate::read::{Reading, Reads, has_variables, invalid_parameter, parameter};
use crate::template::Template;
use crate::value::{self, Located};

/// One `ssl_certificate` with its `ssl_certificate_key`.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain in PEM, leaf first; relative paths are below the configuration's directory.
    pub chain: Located<PathBuf>,
    /// The private key in PEM.
    pub key: Located<PathBuf>,
}

/// The same when a path has variables.
#[derive(Clone, Debug)]
pub struct VariableCertificate {
    /// The chain.
    pub chain: VariableFile,
    /// The private key.
    pub key: VariableFile,
}

/// A path with variables.
#[derive(Clone, Debug)]
pub struct VariableFile {
    /// The path.
    pub path: Template,
    /// What a relative path is relative to.
    pub base: PathBuf,
}

/// `ssl_certificate_cache` and `proxy_ssl_certificate_cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateCache {
    /// How many certificates and keys are kept, each counted by itself.
    pub max: usize,
    /// After this time a file is looked at again.
    pub valid: Duration,
    /// After this time without use it is dropped.
    pub inactive: Duration,
}

/// The argument of a directive that names a certificate or key.
#[derive(Clone)]
pub(crate) struct KeyFile {
    /// Below the configuration's directory; as written when it has variables.
    pub(crate) path: Located<PathBuf>,
    /// Of one that has variables.
    variable: Option<VariableFile>,
    /// `$acme_certificate` or `$acme_certificate_key`.
    acme: Option<&'static str>,
}

/// Those of a server, by where they come from.
#[derive(Default)]
pub(crate) struct Pairs {
    pub(crate) fixed: Vec<CertificateFiles>,
    pub(crate) variable: Vec<VariableCertificate>,
    /// Whether one comes from `acme_certificate`.
    pub(crate) acme: bool,
}

/// The variables of nginx's ACME module: chain and key.
const ACME: [&str; 2] = ["acme_certificate", "acme_certificate_key"];

/// What they stand for, for the reference: they are no values of requests.
pub(crate) const ACME_VARIABLES: [(&str, &str); 2] = [
    (ACME[0], "the certificate of acme_certificate, as the whole value of ssl_certificate"),
    (ACME[1], "the key of acme_certificate, as the whole value of ssl_certificate_key"),
];

impl KeyFile {
    /// As one that is found anew each time, which a path without variables can be as well.
    fn into_variable(self) -> VariableFile {
        let text = || Template::text(self.path.value.as_os_str().as_encoded_bytes());
        self.variable.unwrap_or_else(|| VariableFile { path: text(), base: PathBuf::new() })
    }
}

/// Reads the path of a certificate or key, which may not be anything but a file.
pub(crate) fn key_file(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<KeyFile> {
    let word = &file_of_store(directive);
    if ["data:", "engine:", "store:"].iter().any(|scheme| word.value.starts_with(scheme.as_bytes()))
    {
        let message = format!("keys outside of files in \"{}\" are not supported", directive.name);
        let help = "store the key in a file that only root can read";
        return Err(Diagnostic::error(message).at(word.span, "").help(help));
    }
    let path = Located { value: reading.paths.below_conf(&word.value), span: word.span };
    let variable = match has_variables(word) {
        true => {
            let path = reading.template(word)?;
            Some(VariableFile { path, base: reading.paths.conf_dir.clone() })
        }
        false => None,
    };
    Ok(KeyFile { path, variable, acme: None })
}

/// The same for servers, which may have the certificate of `acme_certificate`.
pub(crate) fn server_key_file(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<KeyFile> {
    let word = &directive.args[0];
    match acme_variable(word) {
        None => key_file(reading, directive),
        acme => {
            let path = Located { value: reading.paths.below_conf(&word.value), span: word.span };
            Ok(KeyFile { path, variable: None, acme })
        }
    }
}

/// Sees that the variables of `acme_certificate` stand beside each other.
pub(crate) fn check_acme(reading: &mut Reading<'_>, chains: &[KeyFile], keys: &[KeyFile]) {
    for (chain, key) in chains.iter().zip(keys) {
        if chain.acme.or(key.acme).is_some() && [chain.acme, key.acme] != ACME.map(Some) {
            let message = "\"$acme_certificate\" and \"$acme_certificate_key\" belong together";
            let problem = Diagnostic::error(message).at(chain.path.span, "certificate");
            reading.report.push(problem.at(key.path.span, "key"));
        }
    }
}

/// The variable that a word is, if it is one of [`ACME`].
fn acme_variable(word: &Word) -> Option<&'static str> {
    let name = word.as_str()?.strip_prefix('$')?;
    let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    ACME.into_iter().find(|acme| name.eq_ignore_ascii_case(acme))
}

/// The argument; of `store:file:/PATH`, where OpenSSL would find a key in that file too, the path.
fn file_of_store(directive: &syntax::Directive) -> Word {
    let mut word = directive.args[0].clone();
    let is_key = directive.name.value.ends_with(b"_key");
    match word.value.strip_prefix(b"store:file:").filter(|path| is_key && path.starts_with(b"/")) {
        Some(path) => {
            word.value = path.into();
            word
        }
        None => word,
    }
}

/// Chains with their keys. As in nginx, one variable makes all of them variable.
pub(crate) fn pairs(chains: Vec<KeyFile>, keys: Vec<KeyFile>) -> Pairs {
    let (acme, all): (Vec<_>, Vec<_>) =
        chains.into_iter().zip(keys).partition(|(chain, key)| chain.acme.or(key.acme).is_some());
    let acme = !acme.is_empty();
    if all.iter().any(|(chain, key)| chain.variable.is_some() || key.variable.is_some()) {
        let variable = all.into_iter().map(|(chain, key)| VariableCertificate {
            chain: chain.into_variable(),
            key: key.into_variable(),
        });
        return Pairs { variable: variable.collect(), acme, ..Pairs::default() };
    }
    let fixed = all.into_iter();
    let fixed = fixed.map(|(chain, key)| CertificateFiles { chain: chain.path, key: key.path });
    Pairs { fixed: fixed.collect(), acme, ..Pairs::default() }
}

/// Reads `max=N [valid=TIME] [inactive=TIME]`, or `off`.
pub(crate) fn certificate_cache(
    _: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Option<Located<CertificateCache>>> {
    let mut max = None;
    let (mut valid, mut inactive) = (Duration::from_secs(60), Duration::from_secs(10));
    let time =
        |word: &Word, text: &[u8]| value::seconds(text).ok_or_else(|| invalid_parameter(word));
    for word in &directive.args {
        if let Some(text) = parameter(word, "max=") {
            let number = value::number(text).filter(|&number| number > 0);
            max = Some(number.ok_or_else(|| invalid_parameter(word))? as usize);
        } else if let Some(text) = parameter(word, "valid=") {
            valid = time(word, text)?;
        } else if let Some(text) = parameter(word, "inactive=") {
            inactive = time(word, text)?;
        } else if word.is("off") {
            return Ok(None);
        } else {
            return Err(invalid_parameter(word));
        }
    }
    let span: Span = directive.head();
    let max = max.ok_or_else(|| {
        let message = format!("\"{}\" must have the \"max\" parameter", directive.name);
        Diagnostic::error(message).at(span, "")
    })?;
    Ok(Some(Located { value: CertificateCache { max, valid, inactive }, span }))
}

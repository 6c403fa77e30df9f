//! Public names, whose certificates are obtained by ACME.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use thiserror::Error;
use wssgate_sys::privileges;

use super::from::From;
use super::{Parts, has_ipv6};
use crate::text::quoted;

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Domains whose names nobody has in public, so that no CA issues certificates for them.
const PRIVATE: [&str; 10] = [
    "localhost",
    "local",
    "test",
    "internal",
    "invalid",
    "example",
    "home.arpa",
    "lan",
    "localdomain",
    "onion",
];

/// How the certificate of a public name is obtained.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AcmeArgs {
    /// Obtain a certificate for a public name by ACME, and agree to the CA's terms of service
    #[arg(long)]
    agree_tos: bool,
    /// E-mail address at which the CA can contact you
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Use Let's Encrypt's staging server, whose certificates no browser trusts
    #[arg(long, conflicts_with = "acme_uri")]
    staging: bool,
    /// Directory URL of the CA; Let's Encrypt by default
    #[arg(long, value_name = "URL")]
    acme_uri: Option<String>,
    /// Port for plain HTTP, for the CA's challenges and redirects to HTTPS [default: 80]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
}

impl AcmeArgs {
    /// Whether a CA is asked for, whatever the name.
    pub(super) fn names_ca(&self) -> bool {
        self.acme_uri.is_some()
    }

    /// The first option that says something, for those who obtain nothing from a CA.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            ("--acme-uri", self.acme_uri.is_some()),
            ("--agree-tos", self.agree_tos),
            ("--email", self.email.is_some()),
            ("--http-port", self.http_port.is_some()),
            ("--staging", self.staging),
        ];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }

    fn http_port(&self) -> u16 {
        self.http_port.unwrap_or(80)
    }
}

/// Why no certificate can be obtained.
#[derive(Debug, Error)]
pub(crate) enum NoAcme {
    #[error(
        "the certificate of \"{0}\" is obtained from a CA ({1}): agree to its terms of service with \
         --agree-tos, or use --cert and --key, or --dev-ca"
    )]
    Terms(String, String),
    #[error("no place for certificates: set STATE_DIRECTORY, XDG_DATA_HOME or HOME")]
    NoPlace,
    #[error("{}: {source}", path.display())]
    Place { path: PathBuf, source: io::Error },
    #[error("--{0} \"{1}\" cannot be written into a configuration")]
    Odd(&'static str, String),
}

/// Whether a CA may issue certificates for a name.
pub(super) fn is_public(name: &str) -> bool {
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    let is_private = |domain: &&str| {
        name.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    // For wildcards somebody has to write into the DNS, which takes a configuration.
    !is_address && name.contains('.') && !name.contains('*') && !PRIVATE.iter().any(is_private)
}

/// The parts of the configuration, and what to tell the person. Nothing is made if it is only to be printed.
pub(super) fn parts(args: &AcmeArgs, from: &From, print: bool) -> Result<(Parts, String), NoAcme> {
    let uri = match (&args.acme_uri, args.staging) {
        (Some(uri), _) => uri.as_str(),
        (None, true) => LETS_ENCRYPT_STAGING,
        (None, false) => LETS_ENCRYPT,
    };
    if !args.agree_tos && !print {
        return Err(NoAcme::Terms(from.name.clone(), uri.to_owned()));
    }
    for (option, text) in [("acme-uri", Some(uri)), ("email", args.email.as_deref())] {
        let odd = |byte: u8| byte.is_ascii_control() || byte == b'$';
        if let Some(text) = text.filter(|text| text.bytes().any(odd)) {
            return Err(NoAcme::Odd(option, text.to_owned()));
        }
    }
    let issuer = match uri {
        LETS_ENCRYPT => "letsencrypt",
        LETS_ENCRYPT_STAGING => "letsencrypt-staging",
        _ => "ca",
    };
    let place = place(args.acme_uri.as_deref())?;
    if !print {
        make(&place)?;
    }
    let state = place.join(issuer).display().to_string();
    let mut http = String::from("\n");
    if args.http_port() != 80 {
        // Whoever asks for another one leads the CA there.
        http.push_str("    ignore_warnings challenge_port;\n");
    }
    let _ = writeln!(http, "    acme_issuer {issuer} {{");
    let _ = writeln!(http, "        uri {};", quoted(uri));
    if let Some(email) = &args.email {
        let _ = writeln!(http, "        contact {};", quoted(email));
    }
    let _ = writeln!(http, "        state_path {};", quoted(&state));
    if args.agree_tos {
        let _ = writeln!(http, "        accept_terms_of_service;");
    }
    let _ = writeln!(http, "    }}\n");
    http.push_str(&redirect(args.http_port(), from));
    let server = format!(
        "        acme_certificate {issuer};\n        ssl_certificate $acme_certificate;\n        \
         ssl_certificate_key $acme_certificate_key;\n"
    );
    let (name, port) = (&from.name, args.http_port());
    let advice = format!(
        "\nThe certificate is obtained from {uri}, which must be able to reach \
         http://{name}:{port}/,\nand is kept in {state}. The log says when it is ready.\n"
    );
    Ok((Parts { level: "notice", http, server }, advice))
}

/// The server for plain HTTP.
fn redirect(port: u16, from: &From) -> String {
    let name = &from.name;
    let to = match from.port {
        443 => name.clone(),
        port => format!("{name}:{port}"),
    };
    let second = if has_ipv6() { format!("\n        listen [::]:{port};") } else { String::new() };
    format!(
        "    server {{\n        server_name {name};\n        listen {port};{second}\n        \
         return 301 https://{to}$request_uri;\n    }}\n"
    )
}

/// Where certificates are kept: what the service manager gives, or the system's place for root, or the user's.
/// Those of other CAs have places of their own.
fn place(uri: Option<&str>) -> Result<PathBuf, NoAcme> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = || {
        let home = || variable("HOME").map(|home| home.join(".local/share"));
        let data = variable("XDG_DATA_HOME").or_else(home)?;
        Some(data.join("wssgate"))
    };
    let place = match variable("STATE_DIRECTORY") {
        // A service may have several; ours is the first.
        Some(given) => {
            let first = given.as_os_str().as_bytes().split(|&byte| byte == b':').next();
            first.map(|first| PathBuf::from(OsStr::from_bytes(first)))
        }
        None if privileges::is_root() => Some(PathBuf::from("/var/lib/wssgate")),
        None => own(),
    };
    let place = place.ok_or(NoAcme::NoPlace)?.join("acme");
    Ok(match uri {
        None => place,
        Some(uri) => {
            let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
            let host = uri.trim_start_matches("https://").split('/').next().unwrap_or_default();
            place.join(host.chars().map(safe).collect::<String>())
        }
    })
}

/// Makes the directories above the one of the issuer, so that the user of the workers can get there. Those that are
/// there already are left as they are.
fn make(place: &Path) -> Result<(), NoAcme> {
    let missing: Vec<_> = place
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    for path in missing.into_iter().rev() {
        let made = match DirBuilder::new().create(path) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made,
        };
        // Whatever the umask takes away.
        let made = made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)));
        made.map_err(|source| NoAcme::Place { path: path.to_owned(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ca_issues_for_private_names() {
        for (name, expected) in [
            ("chat.example.com", true),
            ("example.com", true),
            ("mytest.com", true),
            ("localhost", false),
            ("a.localhost", false),
            ("chat", false),
            ("printer.local", false),
            ("a.test", false),
            ("a.internal", false),
            ("10.0.0.1", false),
            ("nas.home.arpa", false),
            ("*.example.com", false),
        ] {
            assert_eq!(is_public(name), expected, "{name}");
        }
    }

    #[test]
    fn workers_get_through_directories_that_are_made() {
        let place = tempfile::tempdir().expect("a directory");
        let old = place.path().join("old");
        let mode = |path: &Path| fs::metadata(path).expect("made").permissions().mode() & 0o777;
        fs::create_dir(&old).expect("made");
        fs::set_permissions(&old, Permissions::from_mode(0o700)).expect("changed");
        make(&old.join("a/b")).expect("made");
        make(&old.join("a/b")).expect("there already");
        assert_eq!(
            [&old, &old.join("a"), &old.join("a/b")].map(|path| mode(path)),
            [0o700, 0o755, 0o755]
        );
    }

    #[test]
    fn a_port_is_kept_by_the_redirect() {
        let from = |port| From { name: "a.example.com".to_owned(), port };
        assert!(redirect(80, &from(443)).contains("return 301 https://a.example.com$request_uri;"));
        assert!(redirect(81, &from(8443)).contains("https://a.example.com:8443$request_uri;"));
    }
}

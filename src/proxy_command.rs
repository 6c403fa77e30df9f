//! `wssgate proxy --from NAME --to ADDRESS`: the main job without a file.

mod public;

use std::fmt::Write as _;

use clap::Parser;
use thiserror::Error;

use crate::Own;
use crate::dev_ca::{DevCa, DevCaError};
use crate::options::OwnConf;
use crate::text::quoted;

/// Terminate TLS for a name and proxy to an app server, without a configuration file
#[derive(Parser, Clone, Debug, PartialEq, Eq)]
#[command(name = "proxy", bin_name = "wssgate proxy")]
pub(crate) struct ProxyArgs {
    /// Name and port that clients connect to; the port defaults to 443
    #[arg(long, value_name = "NAME[:PORT]")]
    from: String,
    /// Address of the app server: HOST:PORT, a URL (http, https, ws, wss) or unix:/PATH
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// File with the certificate chain in PEM, server certificate first
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<String>,
    /// File with the private key in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<String>,
    /// Issue the certificate by the development CA of this machine, whatever the name
    #[arg(long, conflicts_with = "cert")]
    dev_ca: bool,
    #[command(flatten)]
    acme: public::AcmeArgs,
    /// Print the equivalent configuration and exit
    #[arg(long)]
    print_config: bool,
}

/// Why the command makes no sense, or has no certificate.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("--from \"{0}\" is not a host name with an optional port")]
    From(String),
    #[error("--to \"{0}\" is not HOST:PORT, a URL or unix:/PATH")]
    To(String),
    #[error("{option} has no effect, {why}")]
    NoEffect { option: &'static str, why: String },
    #[error(
        "no certificate for the wildcard \"{0}\" can be obtained without a configuration (challenge dns-01)"
    )]
    Wildcard(String),
    #[error(transparent)]
    Certificate(#[from] DevCaError),
    #[error(transparent)]
    Acme(#[from] public::NoAcme),
}

/// Gives the configuration that the options stand for, and what to tell the person.
pub(crate) fn prepare(args: &ProxyArgs) -> Result<Own, CommandError> {
    let (from, to) = (From::parse(&args.from)?, target(&args.to)?);
    let (parts, advice) = match files_instead_of_acme(args, &from.name)? {
        true => {
            let (chain, key, advice) = certificate(args, &from.name)?;
            (Parts::with_files(&chain, &key), advice)
        }
        false => public::parts(&args.acme, &from, args.print_config)?,
    };
    let text = config(&from, &to, &parts);
    if args.print_config {
        return Ok(Own::Print(text));
    }
    let url = from.url();
    let greeting = format!("wssgate proxy\n\n  {url}  →  {to}\n  stop with Ctrl-C\n{advice}");
    Ok(Own::Serve(OwnConf { name: "proxy", text, greeting }))
}

/// Whether there is nothing to obtain from a CA; then no option may be about that.
fn files_instead_of_acme(args: &ProxyArgs, name: &str) -> Result<bool, CommandError> {
    let why = if args.cert.is_some() {
        "the certificate is the one of --cert".to_owned()
    } else if args.dev_ca {
        "the certificate is issued by the development CA (--dev-ca)".to_owned()
    } else if name.contains('*') {
        let given = args.acme.given();
        return given.map_or(Ok(true), |_| Err(CommandError::Wildcard(name.to_owned())));
    } else if args.acme.names_ca() || public::is_public(name) {
        // Whoever names a CA knows that it issues certificates for such a name.
        return Ok(false);
    } else {
        format!("\"{name}\" is a private name with a certificate of the development CA")
    };
    match args.acme.given() {
        Some(option) => Err(CommandError::NoEffect { option, why }),
        None => Ok(true),
    }
}

/// The given certificate, or one of the development CA and the advice to trust it.
fn certificate(args: &ProxyArgs, name: &str) -> Result<(String, String, String), DevCaError> {
    if let (Some(chain), Some(key)) = (&args.cert, &args.key) {
        // In a configuration a relative path would begin at the prefix, not where the command was
        // typed.
        let absolute = |path: &String| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
            path.display().to_string()
        };
        return Ok((absolute(chain), absolute(key), String::new()));
    }
    let authority = DevCa::open()?;
    let (chain, key) = authority.issue(&[name.to_owned()])?;
    let advice = format!(
        "\nWithout --cert and --key, the certificate is issued by the development CA of this machine.\n{}",
        authority.advice(),
    );
    Ok((chain.display().to_string(), key.display().to_string(), advice))
}

/// What clients ask for.
#[derive(Debug, PartialEq, Eq)]
struct From {
    name: String,
    port: u16,
}

impl From {
    fn parse(text: &str) -> Result<Self, CommandError> {
        let fail = || CommandError::From(text.to_owned());
        let bare = text.strip_prefix("wss://").or_else(|| text.strip_prefix("https://"));
        let bare = bare.unwrap_or(text).trim_end_matches('/');
        let (name, port) = match bare.split_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| fail())?),
            None => (bare, 443),
        };
        // The text goes into a configuration, where anything else could mean more than a name.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
        let has_empty_label = name.split('.').any(str::is_empty);
        if has_empty_label || !name.bytes().all(fits) || port == 0 {
            return Err(fail());
        }
        Ok(Self { name: name.to_ascii_lowercase(), port })
    }

    /// Where to listen: names of this machine only on this machine.
    fn addresses(&self) -> [String; 2] {
        let Self { name, port } = self;
        match name == "localhost" || name.ends_with(".localhost") || name.starts_with("127.") {
            true => [format!("127.0.0.1:{port}"), format!("[::1]:{port}")],
            false => [port.to_string(), format!("[::]:{port}")],
        }
    }

    fn url(&self) -> String {
        match self.port {
            443 => format!("wss://{}", self.name),
            port => format!("wss://{}:{port}", self.name),
        }
    }
}

/// The URL for `proxy_pass`.
fn target(text: &str) -> Result<String, CommandError> {
    let fail = || CommandError::To(text.to_owned());
    let (scheme, rest) = match text.split_once("://") {
        Some(("http" | "ws", rest)) => ("http", rest),
        Some(("https" | "wss", rest)) => ("https", rest),
        Some(_) => return Err(fail()),
        None => ("http", text),
    };
    let rest = rest.trim_end_matches('/');
    // In the configuration that this is written into these would end the word or name a variable.
    let odd = |byte: u8| byte.is_ascii_control() || b" $\"';{}".contains(&byte);
    if rest.is_empty() || rest.bytes().any(odd) {
        return Err(fail());
    }
    match rest.strip_prefix("unix:") {
        Some(path) => Ok(format!("{scheme}://unix:{path}")),
        None => Ok(format!("{scheme}://{rest}")),
    }
}

/// What a configuration says that depends on where its certificate comes from.
#[derive(Debug, Default)]
struct Parts {
    /// How much is logged.
    level: &'static str,
    /// Lines in the `http` block.
    http: String,
    /// Lines in the server.
    server: String,
}

impl Parts {
    fn with_files(chain: &str, key: &str) -> Self {
        let (chain, key) = (quoted(chain), quoted(key));
        let mut server = String::new();
        let _ = writeln!(server, "        ssl_certificate {chain};");
        let _ = writeln!(server, "        ssl_certificate_key {key};");
        Self { level: "warn", server, http: String::new() }
    }
}

/// Whether this machine has IPv6: without it a configuration would be refused for such an address alone.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn config(from: &From, to: &str, parts: &Parts) -> String {
    let [first, second] = from.addresses();
    let second = match has_ipv6() {
        true => format!("\n        listen {second} ssl;"),
        false => String::new(),
    };
    let (name, Parts { level, http, server }) = (&from.name, parts);
    format!(
        r#"daemon off;
pid off;
error_log stderr {level};

events {{
}}

http {{
    access_log /dev/stdout;

    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      close;
    }}
{http}
    server {{
        server_name {name};
        listen {first} ssl;{second}
{server}        location / {{
            proxy_pass {to};
            proxy_read_timeout 1h;
            proxy_request_buffering off;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_a_name_and_a_port() {
        for (text, expected) in [
            ("example.com", Some(("example.com", 443))),
            ("Example.com:8443", Some(("example.com", 8443))),
            ("wss://example.com/", Some(("example.com", 443))),
            ("localhost:8443", Some(("localhost", 8443))),
            ("", None),
            (":443", None),
            ("a b", None),
            ("a:x", None),
            ("a:0", None),
            ("a;b", None),
            (".example.com", None),
            ("chat.example.com.", None),
            ("chat..example.com", None),
        ] {
            let parsed = From::parse(text).ok();
            let expected = expected.map(|(name, port)| From { name: name.to_owned(), port });
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn nothing_about_a_ca_is_ignored() {
        let judge = |line: &str| {
            let args = ["proxy", "--to", "a:1"].into_iter().chain(line.split(' '));
            let args = ProxyArgs::parse_from(args);
            let from = From::parse(&args.from).expect("a name");
            files_instead_of_acme(&args, &from.name).map_err(|error| error.to_string())
        };
        for (line, expected) in [
            ("--from a.example.com", Ok(false)),
            ("--from a.example.com --agree-tos --email x --http-port 80", Ok(false)),
            ("--from a.test", Ok(true)),
            ("--from a.test --acme-uri https://ca.test/", Ok(false)),
            ("--from a.test --agree-tos", Err("--agree-tos has no effect")),
            ("--from a.test --http-port 80", Err("--http-port has no effect")),
            ("--from localhost --staging", Err("--staging has no effect")),
            ("--from a.example.com --dev-ca --email x", Err("--email has no effect")),
            (
                "--from a.test --acme-uri https://ca.test/ --cert x --key x",
                Err("--acme-uri has no effect"),
            ),
            ("--from *.example.com", Ok(true)),
            ("--from *.example.com --agree-tos", Err("no certificate for the wildcard")),
            ("--from *.a.test --acme-uri https://ca.test/", Err("no certificate for the wildcard")),
        ] {
            match (judge(line), expected) {
                (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{error}"),
                (judged, expected) => assert_eq!(judged, expected.map_err(str::to_owned), "{line}"),
            }
        }
    }

    #[test]
    fn to_is_a_place_to_pass_to() {
        for (text, expected) in [
            ("localhost:8282", Some("http://localhost:8282")),
            ("ws://app:1/", Some("http://app:1")),
            ("wss://app", Some("https://app")),
            ("unix:/run/app.sock", Some("http://unix:/run/app.sock")),
            ("ftp://app", None),
            ("", None),
            ("a b", None),
            ("$host", None),
            ("a;b", None),
        ] {
            assert_eq!(target(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn names_of_this_machine_stay_on_this_machine() {
        let addresses = |name: &str| From::parse(name).expect("a name").addresses();
        assert_eq!(addresses("localhost:1"), ["127.0.0.1:1", "[::1]:1"]);
        assert_eq!(addresses("example.com"), ["443", "[::]:443"]);
    }
}

//! `wssgate proxy --from NAME --to ADDRESS`: the main job without a file.

mod from;
mod public;
mod to;

use std::fmt::Write as _;

use clap::Args;
use thiserror::Error;
use wssgate_sys::process;

use self::from::From;
use self::to::Target;
use crate::Own;
use crate::dev_ca::{DevCa, DevCaError};
use crate::options::OwnConf;
use crate::reloads::Reloads;
use crate::text::{FOREGROUND, quoted};

/// The command line of `wssgate proxy`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyArgs {
    /// Name and port that clients connect to; the port defaults to 443
    #[arg(long, value_name = "NAME[:PORT]")]
    from: String,
    /// Address of the app server: PORT, HOST:PORT, URL or unix:/PATH; of several the least busy is next. The path of
    /// a URL is put before the paths of requests
    #[arg(long, value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// File with the certificate chain in PEM, server certificate first
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<String>,
    /// File with the private key in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<String>,
    /// Use a certificate from this machine's development CA, whatever the name
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
    #[error("--from \"{0}\" is not a host name or address with an optional port")]
    From(String),
    #[error("--from \"{0}\" is a port without a name: write localhost:{0}")]
    OnlyPort(String),
    #[error("--to \"{0}\" is not PORT, HOST:PORT, a URL or unix:/PATH")]
    To(String),
    #[error("--to \"{0}\" names several app servers: repeat --to for each")]
    Several(String),
    #[error("the port \"{port}\" of {option} is not a number from 1 to 65535")]
    Port { option: &'static str, port: String },
    #[error("--to \"{0}\" has a query or fragment; requests bring their own")]
    Query(String),
    #[error(
        "--to \"{0}\" is what --from listens on, so every request would come back: name the app server, which listens \
         on another port"
    )]
    Loop(String),
    #[error("--to \"{0}\" and \"{1}\" must agree in scheme and path")]
    Unlike(String, String),
    #[error("{option} has no effect, {why}")]
    NoEffect { option: &'static str, why: String },
    #[error(
        "no certificate for the wildcard \"{0}\" can be obtained without a configuration (challenge dns-01)"
    )]
    Wildcard(String),
    #[error("{0}; use --cert and --key")]
    Certificate(#[from] DevCaError),
    #[error(transparent)]
    Acme(#[from] public::NoAcme),
}

/// Gives the configuration that the options stand for, and what to tell the person.
pub(crate) fn prepare(args: &ProxyArgs) -> Result<Own, CommandError> {
    let (from, to) = (From::parse(&args.from)?, Target::parse(&args.to)?);
    if to.is(&from) {
        return Err(CommandError::Loop(to.to_string()));
    }
    let (parts, advice) = match files_instead_of_acme(args, &from)? {
        true => certificate(args, &from)?,
        false => public::parts(&args.acme, &from, args.print_config)?,
    };
    if args.print_config {
        return Ok(Own::Print(config(&from, &to, &parts, PRINTED_CONNECTIONS)));
    }
    let text = config(&from, &to, &parts, connections());
    let url = from.url();
    let example = match (to.path(), to.passes().last()) {
        ("", _) | (_, None) => String::new(),
        (_, Some((_, base))) => format!("  {url}/x  →  {base}x\n"),
    };
    let absent = to.absent().map(|server| format!("\nNothing listens on {server} yet.\n"));
    let absent: String = absent.collect();
    let greeting =
        format!("wssgate proxy\n\n  {url}  →  {to}\n{example}  stop with Ctrl-C\n{absent}{advice}");
    Ok(Own::Serve(OwnConf { name: "proxy", text, greeting, reloads: Reloads::default() }))
}

/// A port of one of our options.
fn port(text: &str, option: &'static str) -> Result<u16, CommandError> {
    let number = text.parse().ok().filter(|&port| port > 0);
    number.ok_or_else(|| CommandError::Port { option, port: text.to_owned() })
}

/// How many connections a worker may have: what the limit of open files leaves, as high as it goes.
fn connections() -> u64 {
    let limit = process::raise_descriptor_limit();
    let limit =
        limit.or_else(|_| process::descriptor_limit().map(|(soft, _)| soft)).unwrap_or(1024);
    wssgate_proxy::fitting_connections(limit).min(MOST_CONNECTIONS)
}

/// As many a printed configuration has: where it goes there may be another limit of open files.
const PRINTED_CONNECTIONS: u64 = 8192;

/// Where descriptors are without limit, memory is not.
const MOST_CONNECTIONS: u64 = 100_000;

/// Whether there is nothing to obtain from a CA; then no option may be about that.
fn files_instead_of_acme(args: &ProxyArgs, from: &From) -> Result<bool, CommandError> {
    let name = &*from.name;
    let why = if args.cert.is_some() {
        "the certificate is the one of --cert".to_owned()
    } else if args.dev_ca {
        "the certificate is issued by the development CA (--dev-ca)".to_owned()
    } else if from.is_any() {
        format!("\"{name}\" is every address of this machine and no name")
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
fn certificate(args: &ProxyArgs, from: &From) -> Result<(Parts, String), DevCaError> {
    if let (Some(chain), Some(key)) = (&args.cert, &args.key) {
        // In a configuration a relative path would begin at the prefix, not where the command was
        // typed.
        let absolute = |path: &String| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
            path.display().to_string()
        };
        return Ok((Parts::with_files("", &absolute(chain), &absolute(key)), String::new()));
    }
    let names = from.certified();
    let (chain, key) = DevCa::leaf_paths(&names[0])?;
    let comment =
        "        # Made by the command \"wssgate proxy\"; a file of your own comes here.\n";
    let parts =
        Parts::with_files(comment, &chain.display().to_string(), &key.display().to_string());
    if args.print_config {
        return Ok((parts, String::new()));
    }
    let authority = DevCa::open()?;
    authority.issue(&names)?;
    let advice = format!(
        "\nWithout --cert and --key, the certificate is issued by the development CA of this machine.\n{}",
        authority.advice(),
    );
    Ok((parts, advice))
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
    fn with_files(comment: &str, chain: &str, key: &str) -> Self {
        let (chain, key) = (quoted(chain), quoted(key));
        let mut server = comment.to_owned();
        let _ = writeln!(server, "        ssl_certificate {chain};");
        let _ = writeln!(server, "        ssl_certificate_key {key};");
        Self { level: "warn", server, http: String::new() }
    }
}

/// Whether this machine has IPv6: without it a configuration would be refused for such an address alone.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn config(from: &From, to: &Target, parts: &Parts, connections: u64) -> String {
    let listen: Vec<_> = from.addresses();
    let listen: String =
        listen.iter().map(|address| format!("        listen {address} ssl;\n")).collect();
    let (name, Parts { level, http, server }) = (from.server_name(), parts);
    let group = to.upstream();
    let locations: String = to.passes().iter().map(|(name, url)| location(name, url)).collect();
    format!(
        r#"{FOREGROUND}daemon off;
pid off;
worker_processes auto;
error_log stderr {level};

events {{
    # Per worker, within the limit of open files; each WebSocket takes two.
    worker_connections {connections};
}}

http {{
    # Of a WebSocket it says who closed it, and with which code.
    access_log /dev/stdout websocket;

    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      close;
    }}
{group}{http}
    server {{
        server_name {name};
{listen}{server}{locations}    }}
}}
"#
    )
}

fn location(name: &str, url: &str) -> String {
    format!(
        "        location {name} {{
            proxy_pass {url};
            proxy_read_timeout 1h;
            proxy_request_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            # For nginx; wssgate needs them only for upgrades with a body, such as those of `docker exec`.
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ProxyArgs,
    }

    #[test]
    fn nothing_about_a_ca_is_ignored() {
        let judge = |line: &str| {
            let words = ["proxy", "--to", "a:1"].into_iter().chain(line.split(' '));
            let Line { args } = Line::parse_from(words);
            let from = From::parse(&args.from).expect("a name");
            files_instead_of_acme(&args, &from).map_err(|error| error.to_string())
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
            ("--from 0.0.0.0:8443", Ok(true)),
            ("--from 0.0.0.0 --agree-tos", Err("--agree-tos has no effect")),
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
    fn limits_are_those_of_a_real_site() {
        let from = From::parse("localhost:1").expect("a name");
        let to = Target::parse(&["8282".to_owned()]).expect("a port");
        let text = config(&from, &to, &Parts::with_files("", "a", "b"), connections());
        for line in ["worker_processes auto;", &format!("worker_connections {};", connections())] {
            assert!(text.contains(line), "{text}");
        }
        assert!((1..=MOST_CONNECTIONS).contains(&connections()));
    }
}

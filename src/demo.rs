//! `wssgate demo`: the whole picture on one machine with nothing else installed.
//!
//! An app server, a gateway hop before it, an edge hop with TLS before that, and a page that shows
//! what passes. The two hops are configured in nginx's language like any other.

mod app;
mod control;
mod page;
mod room;
mod socket;

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::{io, thread};

use clap::{Args, value_parser};
use thiserror::Error;
use wssgate_sys::signals;

use self::app::App;
use self::control::Control;
use crate::Own;
use crate::dev_ca::{DevCa, DevCaError};
use crate::options::OwnConf;
use crate::reloads::Reloads;
use crate::text::{FOREGROUND, quoted, shell_word};

/// The command line of `wssgate demo`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct DemoArgs {
    /// Port of the page and of the edge hop, with TLS
    #[arg(long, default_value_t = 8443, value_parser = value_parser!(u16).range(1..))]
    port: u16,
    /// Port of the gateway hop [default: a free one from 18280 on]
    #[arg(long, value_parser = value_parser!(u16).range(1..))]
    gateway_port: Option<u16>,
    /// Port of the app server [default: a free one from 18282 on]
    #[arg(long, value_parser = value_parser!(u16).range(1..))]
    app_port: Option<u16>,
    /// Print the configuration of the two hops and exit
    #[arg(long)]
    print_config: bool,
}

/// Why the demo does not start.
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    #[error("port {port} is already in use: set another with {option} PORT")]
    PortInUse { port: u16, option: &'static str },
    #[error("cannot listen on port {port}: {source}")]
    Port { port: u16, source: io::Error },
    #[error(transparent)]
    Certificate(#[from] DevCaError),
    #[error("cannot start the app server: {0}")]
    App(#[source] io::Error),
}

/// Where the ports begin that are looked at when none is given, far from those that app servers of the person's own
/// may be on.
const GATEWAY_PORT: u16 = 18280;
const APP_PORT: u16 = 18282;

/// The ports of the three parts.
#[derive(Clone, Copy)]
struct Ports {
    edge: u16,
    gateway: u16,
    app: u16,
}

/// Starts the app server; gives the configuration of the hops and what to tell the person.
pub(crate) fn prepare(args: &DemoArgs) -> Result<Own, DemoError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let (chain, key) = DevCa::leaf_paths(&names[0])?;
    let certificate = (chain.display().to_string(), key.display().to_string());
    // On a host without IPv6 the configuration would be refused for the address alone.
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if args.print_config {
        let gateway = args.gateway_port.unwrap_or(GATEWAY_PORT);
        let ports = Ports { edge: args.port, gateway, app: args.app_port.unwrap_or(APP_PORT) };
        return Ok(Own::Print(config(ports, has_ipv6, &certificate)));
    }
    // Of the hops only tried: the proxy will bind them, but would not say which option chooses another.
    bind(Some(args.port), "--port", args.port)?;
    let (listener, app) = bind(args.app_port, "--app-port", APP_PORT)?;
    let (_, gateway) = bind(args.gateway_port, "--gateway-port", GATEWAY_PORT)?;
    let ports = Ports { edge: args.port, gateway, app };
    let authority = DevCa::open()?;
    authority.issue(&names)?;
    let (reloads, program) = (Reloads::default(), program());
    let greeting = banner(ports, &program, &authority);
    let app = App::new(Control::new(ports.edge, reloads.clone()), program);
    serve_app(listener, app).map_err(DemoError::App)?;
    let text = config(ports, has_ipv6, &certificate);
    Ok(Own::Serve(OwnConf { name: "demo", text, greeting, reloads }))
}

/// Listens on the port that `option` gives, or on the first free one of ten, or on any.
fn bind(
    given: Option<u16>,
    option: &'static str,
    first: u16,
) -> Result<(TcpListener, u16), DemoError> {
    let (mut tried, port) = match given {
        Some(port) => (vec![port], port),
        None => ((first..first + 10).chain([0]).collect(), first),
    };
    let last = tried.pop().unwrap_or(port);
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let free = tried.into_iter().find_map(|port| listen(port).ok());
    let listener = free.map_or_else(|| listen(last), Ok).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => DemoError::PortInUse { port, option },
        _ => DemoError::Port { port, source },
    })?;
    let bound = listener.local_addr().map_err(|source| DemoError::Port { port, source })?;
    Ok((listener, bound.port()))
}

/// Runs the app server on a thread of its own: it is not part of the proxy.
fn serve_app(listener: TcpListener, app: App) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Ctrl-C is for the main thread.
    signals::block()?;
    let serve = move || {
        tokio::task::LocalSet::new().block_on(&runtime, async {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                app::serve(listener, app).await;
            }
        });
    };
    thread::Builder::new().name("app".to_owned()).spawn(serve).map(drop)
}

/// How this program was called, so that a person who has it elsewhere than in `PATH` can type what they
/// are told.
fn program() -> String {
    let called = std::env::args_os().next().and_then(|called| called.into_string().ok());
    called
        .filter(|called| !called.is_empty())
        .map_or_else(|| "wssgate".to_owned(), |called| shell_word(&called))
}

fn banner(ports: Ports, program: &str, authority: &DevCa) -> String {
    let Ports { edge: port, gateway, app } = ports;
    let (ca, pid) = (authority.certificate(), std::process::id());
    format!(
        "wssgate demo

  open           https://localhost:{port}/
  path           browser ─wss→ edge :{port} ─ws→ gateway :{gateway} ─ws→ app server :{app}
  push to all    curl --cacert {} -d hello https://localhost:{port}/push
  reload         kill -HUP {pid}, or the button on the page
  configuration  {program} demo --port {port} --print-config
  stop           Ctrl-C

Next, your own app instead, say on port 3000: stop the demo and run
  {program} proxy --from localhost:{port} --to 3000

The browser shows a warning until it trusts the development CA of this machine.
{}",
        ca.display(),
        authority.advice(),
    )
}

/// The two hops, in nginx's language.
fn config(ports: Ports, has_ipv6: bool, (chain, key): &(String, String)) -> String {
    let Ports { edge: port, gateway, app } = ports;
    let ipv6 = match has_ipv6 {
        true => format!("\n        listen [::1]:{port} ssl;"),
        false => String::new(),
    };
    let (chain, key) = (quoted(chain), quoted(key));
    format!(
        r#"{FOREGROUND}daemon off;
pid off;
worker_processes 1;
error_log stderr notice;

events {{
    # Each WebSocket through both hops takes four, and the page opens eight.
    worker_connections 1024;
}}

http {{
    access_log off;

    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      close;
    }}

    # The app server.
    upstream websocket {{
        server 127.0.0.1:{app};
    }}

    # The gateway host, by the name that the edge uses.
    upstream chat.example.com {{
        server 127.0.0.1:{gateway};
    }}

    # The edge: terminates TLS.
    server {{
        server_name localhost;
        listen 127.0.0.1:{port} ssl;{ipv6}
        ssl_certificate {chain};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://chat.example.com;
            proxy_read_timeout 300s;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}

    # The gateway, next to the app server.
    server {{
        server_name chat.example.com;
        listen 127.0.0.1:{gateway};
        location / {{
            proxy_pass http://websocket;
            proxy_read_timeout 300s;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_http_version 1.1;
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
    fn a_port_that_is_taken_is_left_alone_unless_it_was_asked_for() {
        let (_taken, port) = bind(None, "--app-port", APP_PORT).expect("one of ten, or any");
        let (_other, next) = bind(None, "--app-port", APP_PORT).expect("another one");
        assert_ne!(port, next);
        let error = bind(Some(port), "--app-port", APP_PORT).expect_err("taken");
        let expected = format!("port {port} is already in use: set another with --app-port PORT");
        assert_eq!(error.to_string(), expected);
    }
}

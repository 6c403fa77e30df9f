//! `wssgate demo`: the whole picture on one machine with nothing else installed.
//!
//! An app server, a gateway hop before it, an edge hop with TLS before that, and a page that shows
//! what passes. The two hops are configured in nginx's language like any other.

mod app;
mod room;
mod socket;

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::{io, thread};

use clap::Parser;
use thiserror::Error;
use wssgate_sys::signals;

use crate::Own;
use crate::dev_ca::{DevCa, DevCaError};
use crate::options::OwnConf;
use crate::text::quoted;

/// Run an app server behind two proxy hops on this machine, with a page to try it
#[derive(Parser, Clone, Debug, PartialEq, Eq)]
#[command(name = "demo", bin_name = "wssgate demo")]
pub(crate) struct DemoArgs {
    /// Port of the page and of the edge hop, with TLS
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Port of the gateway hop
    #[arg(long, default_value_t = 8280)]
    gateway_port: u16,
    /// Port of the app server
    #[arg(long, default_value_t = 8282)]
    app_port: u16,
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

/// Starts the app server; gives the configuration of the hops and what to tell the person.
pub(crate) fn prepare(args: &DemoArgs) -> Result<Own, DemoError> {
    let authority = DevCa::open()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let (chain, key) = authority.issue(&names)?;
    // On a host without IPv6 the configuration would be refused for the address alone.
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let certificate = (chain.display().to_string(), key.display().to_string());
    let text = config(args, has_ipv6, &certificate);
    if args.print_config {
        return Ok(Own::Print(text));
    }
    for (port, option) in [(args.port, "--port"), (args.gateway_port, "--gateway-port")] {
        // Only tried: the proxy will bind it, but would not say which option chooses another.
        drop(bind(port, option)?);
    }
    let listener = bind(args.app_port, "--app-port")?;
    serve_app(listener).map_err(DemoError::App)?;
    Ok(Own::Serve(OwnConf { name: "demo", text, greeting: banner(args, &authority) }))
}

fn bind(port: u16, option: &'static str) -> Result<TcpListener, DemoError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => DemoError::PortInUse { port, option },
        _ => DemoError::Port { port, source },
    })
}

/// Runs the app server on a thread of its own: it is not part of the proxy.
fn serve_app(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Ctrl-C is for the main thread.
    signals::block()?;
    let serve = move || {
        tokio::task::LocalSet::new().block_on(&runtime, async {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                app::serve(listener).await;
            }
        });
    };
    thread::Builder::new().name("app".to_owned()).spawn(serve).map(drop)
}

fn banner(args: &DemoArgs, authority: &DevCa) -> String {
    let DemoArgs { port, gateway_port, app_port, .. } = args;
    let ca = authority.certificate();
    format!(
        "wssgate demo

  open           https://localhost:{port}/
  path           browser ─wss→ edge :{port} ─ws→ gateway :{gateway_port} ─ws→ app server :{app_port}
  push to all    curl --cacert {} -d hello https://localhost:{port}/push
  configuration  wssgate demo --print-config
  stop           Ctrl-C

The browser shows a warning until it trusts the development CA of this machine.
{}",
        ca.display(),
        authority.advice(),
    )
}

/// The two hops, in nginx's language.
fn config(args: &DemoArgs, has_ipv6: bool, (chain, key): &(String, String)) -> String {
    let DemoArgs { port, gateway_port, app_port, .. } = args;
    let ipv6 = match has_ipv6 {
        true => format!("\n        listen [::1]:{port} ssl;"),
        false => String::new(),
    };
    let (chain, key) = (quoted(chain), quoted(key));
    format!(
        r#"daemon off;
pid off;
worker_processes 1;
error_log stderr warn;

events {{
}}

http {{
    access_log off;

    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      close;
    }}

    # The app server.
    upstream websocket {{
        server 127.0.0.1:{app_port};
    }}

    # The gateway host, by the name that the edge uses.
    upstream board.xncoding.com {{
        server 127.0.0.1:{gateway_port};
    }}

    # The edge: terminates TLS.
    server {{
        server_name localhost;
        listen 127.0.0.1:{port} ssl;{ipv6}
        ssl_certificate {chain};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://board.xncoding.com;
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
        server_name board.xncoding.com;
        listen 127.0.0.1:{gateway_port};
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

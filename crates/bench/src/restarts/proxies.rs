//! The proxies in front of the servers that restart, each with the configuration that its
//! documentation gives for WebSockets; nothing is tuned for restarts.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::peers::{Installed, Peer, Running, Site, free_ports};

/// Name and version.
pub(super) fn text(installed: &Installed) -> String {
    match installed.peer {
        Peer::Direct => "no proxy: each client connects to one of the servers at random".into(),
        peer => format!("{}: {}", peer.name(), installed.version),
    }
}

/// Starts the proxy in front of `servers`; `None` if there is none.
pub(super) fn start(
    installed: &Installed,
    site: &Site,
    servers: &[SocketAddr],
) -> io::Result<Option<Running>> {
    let peer = installed.peer;
    if peer == Peer::Direct {
        return Ok(None);
    }
    let (plain, _) = free_ports()?;
    let dir = site.dir.path().join("restarts").join(peer.name());
    fs::create_dir_all(&dir)?;
    let (text, args) = configuration(peer, plain[0], servers, site, &dir);
    fs::write(dir.join("proxy.conf"), text)?;
    let args: Vec<_> = args.split_whitespace().map(str::to_string).collect();
    Running::launch(installed, &args, site, &dir, (plain[..1].to_vec(), Vec::new())).map(Some)
}

fn configuration(
    peer: Peer,
    listen: SocketAddr,
    servers: &[SocketAddr],
    site: &Site,
    dir: &Path,
) -> (String, String) {
    let limit = site.descriptors;
    match peer {
        Peer::Haproxy => (haproxy(listen, servers, limit), "-db -q -f proxy.conf".into()),
        Peer::Caddy => {
            (caddy(listen, servers), "run --config proxy.conf --adapter caddyfile".into())
        }
        _ => {
            let dir = dir.display();
            (
                nginx(listen, servers, limit, &dir),
                format!("-p {dir} -c proxy.conf -e {dir}/error.log"),
            )
        }
    }
}

fn nginx(
    listen: SocketAddr,
    servers: &[SocketAddr],
    limit: u64,
    dir: &std::path::Display<'_>,
) -> String {
    let servers = servers.iter().fold(String::new(), |mut text, at| {
        write!(text, " server {at};").expect("a String takes all text");
        text
    });
    let connections = limit / 2;
    format!(
        "\
daemon off;
worker_processes 1;
worker_rlimit_nofile {limit};
pid {dir}/nginx.pid;
error_log {dir}/error.log crit;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      close;
    }}
    upstream app {{{servers} }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $host;
            proxy_read_timeout 1h;
        }}
    }}
}}
"
    )
}

fn haproxy(listen: SocketAddr, servers: &[SocketAddr], limit: u64) -> String {
    let connections = limit.saturating_sub(200) / 2;
    let servers = servers.iter().enumerate().fold(String::new(), |mut text, (number, at)| {
        writeln!(text, "    server s{number} {at} check").expect("a String takes all text");
        text
    });
    format!(
        "\
global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    maxconn {connections}
    option redispatch
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend chat
    bind {listen} backlog 4096
    default_backend app
backend app
    balance roundrobin
{servers}"
    )
}

fn caddy(listen: SocketAddr, servers: &[SocketAddr]) -> String {
    let servers = servers.iter().fold(String::new(), |text, at| format!("{text} {at}"));
    let (ip, port) = (listen.ip(), listen.port());
    format!(
        "\
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind {ip}
    reverse_proxy{servers}
}}
"
    )
}

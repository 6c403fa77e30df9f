//! Configurations as a careful operator would write them, saying the same to every proxy: one
//! worker, no logs, tunnels may rest for an hour, four addresses in front and four backends.
//!
//! wssgate and nginx read the same file.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::{Extra, Peer, Site};
use crate::{bare, requests};

/// What a configuration is made of.
pub(super) struct Setup<'a> {
    pub(super) site: &'a Site,
    /// Where this proxy may write.
    pub(super) dir: &'a Path,
    pub(super) plain: &'a [SocketAddr],
    pub(super) tls: &'a [SocketAddr],
    pub(super) backends: &'a [SocketAddr],
    pub(super) extra: Extra,
}

impl Setup<'_> {
    /// The text for `proxy.conf`, and the arguments with which a proxy reads it.
    pub(super) fn of(&self, peer: Peer) -> (String, Vec<String>) {
        let dir = self.dir.display();
        match peer {
            Peer::Haproxy => {
                // Only a master reads its file again.
                let master = if matches!(self.extra, Extra::Reload(_)) { "-W " } else { "" };
                (self.haproxy(), words(&format!("{master}-db -q -f proxy.conf")))
            }
            Peer::Bare => (String::new(), self.bare()),
            _ => (self.nginx(peer), words(&format!("-p {dir} -c proxy.conf -e {dir}/error.log"))),
        }
    }

    fn nginx(&self, peer: Peer) -> String {
        let own = match peer {
            Peer::Wssgate => &*self.site.directives,
            Peer::Before => &*self.site.before_directives,
            _ => "",
        };
        let (dir, limit) = (self.dir.display(), self.site.descriptors);
        let certificate = &self.site.certificate;
        let servers = each(self.backends, |at| format!("server {at};"));
        let plain = each(self.plain, |at| format!("listen {at} backlog=4096;"));
        let tls = each(self.tls, |at| format!("listen {at} ssl backlog=4096;"));
        let (cert, key) = (certificate.cert.display(), certificate.key.display());
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temp = temp.map(|name| format!("{name}_temp_path {dir}/{name};")).join("\n    ");
        // Nobody is refused, so that all answers are alike; 1,000,000 keys take 128 MB in nginx.
        let (zone, limited) = match self.extra {
            Extra::Limits => (
                "limit_req_zone $arg_key zone=keys:160m rate=1000r/s;",
                format!(
                    "keepalive_requests 1000000000;
        location = {} {{
            limit_req zone=keys burst=1000 nodelay;
            empty_gif;
        }}",
                    requests::PATH
                ),
            ),
            Extra::Metrics => ("", format!("location = {} {{ prometheus; }}", requests::METRICS)),
            _ => ("", String::new()),
        };
        let shutdown = match self.extra {
            Extra::Reload(end) | Extra::Upgrade(end) => {
                format!("worker_shutdown_timeout {}s;", end.as_secs())
            }
            _ => String::new(),
        };
        // In the foreground nginx ignores USR2. What an upgrade took stands in the log.
        let (daemon, level, workers) = match self.extra {
            Extra::Upgrade(_) => ("on", "notice", 2),
            _ => ("off", "crit", 1),
        };
        let verified = match self.extra {
            Extra::Clients => format!(
                "ssl_client_certificate {};
        ssl_verify_client on;",
                certificate.authority.display()
            ),
            _ => String::new(),
        };
        format!(
            "\
daemon {daemon};
worker_processes {workers};
worker_rlimit_nofile {limit};
{shutdown}
pid {dir}/nginx.pid;
error_log {dir}/error.log {level};
events {{
    worker_connections {limit};
}}
http {{
    access_log off;
    {own}
    {temp}
    {zone}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      close;
    }}
    upstream backend {{
        {servers}
    }}
    server {{
        {plain}
        {tls}
        ssl_certificate     {cert};
        ssl_certificate_key {key};
        ssl_protocols       TLSv1.2 TLSv1.3;
        {verified}
        {limited}
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $host;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"
        )
    }

    fn bare(&self) -> Vec<String> {
        let listen = self.plain.iter().map(|at| ["--listen".to_owned(), at.to_string()]);
        let backends = self.backends.iter().map(|at| ["--backend".to_owned(), at.to_string()]);
        let addresses = listen.chain(backends).flatten();
        std::iter::once(bare::ARGUMENT.to_owned()).chain(addresses).collect()
    }

    fn haproxy(&self) -> String {
        // Two descriptors for each connection, and some for itself.
        let connections = self.site.descriptors.saturating_sub(200) / 2;
        let certificate = &self.site.certificate;
        let both = certificate.both.display();
        let verified = match self.extra {
            Extra::Clients => {
                format!(" ca-file {} verify required", certificate.authority.display())
            }
            _ => String::new(),
        };
        let shutdown = match self.extra {
            Extra::Reload(end) => format!("hard-stop-after {}s", end.as_secs()),
            _ => String::new(),
        };
        // One line: each `bind` would have ticket keys of its own.
        let (plain, tls) = (list(self.plain), list(self.tls));
        let mut number = 0;
        let servers = each(self.backends, |at| {
            number += 1;
            format!("server s{number} {at}")
        });
        format!(
            "\
global
    nbthread 1
    maxconn {connections}
    {shutdown}
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    maxconn {connections}
    timeout connect 60s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend chat
    bind {plain} backlog 4096
    bind {tls} ssl crt {both} alpn http/1.1{verified} backlog 4096
    default_backend backend
backend backend
    balance roundrobin
    {servers}
"
        )
    }
}

fn each(addresses: &[SocketAddr], mut line: impl FnMut(&SocketAddr) -> String) -> String {
    let mut text = String::new();
    for (index, address) in addresses.iter().enumerate() {
        let indent = if index == 0 { "" } else { "\n    " };
        write!(text, "{indent}{}", line(address)).expect("a String takes all text");
    }
    text
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_address_and_the_certificate_stand_in_both_configurations() {
        let site = Site::new().unwrap();
        let on = |port| {
            [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([127, 0, 0, 2], port))]
        };
        let (plain, tls, backends) = (on(1001), on(1002), on(1003));
        let dir = site.dir.path();
        let setup = Setup {
            site: &site,
            dir,
            plain: &plain,
            tls: &tls,
            backends: &backends,
            extra: Extra::Limits,
        };
        for peer in [Peer::Wssgate, Peer::Haproxy] {
            let (text, args) = setup.of(peer);
            for address in plain.iter().chain(&tls).chain(&backends) {
                assert_eq!(text.matches(&address.to_string()).count(), 1, "{peer:?} {address}");
            }
            assert!(text.contains(site.dir.path().to_str().unwrap()));
            assert!(args.iter().any(|arg| arg == "proxy.conf"));
        }
        assert_eq!(setup.of(Peer::Wssgate).0, setup.of(Peer::Nginx).0);
        let upgraded = Setup { extra: Extra::Upgrade(Duration::from_secs(5)), ..setup };
        let text = upgraded.of(Peer::Nginx).0;
        assert!(text.contains("daemon on;") && text.contains("worker_shutdown_timeout 5s;"));
        let reloaded = Setup { extra: Extra::Reload(Duration::from_secs(20)), ..setup };
        assert!(reloaded.of(Peer::Nginx).0.contains("worker_shutdown_timeout 20s;"));
        let (text, args) = reloaded.of(Peer::Haproxy);
        assert!(text.contains("hard-stop-after 20s") && args.iter().any(|arg| arg == "-W"));
    }
}

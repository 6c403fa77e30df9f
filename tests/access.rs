//! `allow` and `deny` for IPv4 clients of an IPv6 socket, whose addresses are mapped
//! (`::ffff:192.0.2.1`), and others who look at addresses; where nginx is installed it must say the same.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Instance, free_addr, http, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

const SERVER: &str = "
    geo $net { default none; 127.0.0.0/8 four; ::ffff:127.0.0.0/104 six; }
    map $binary_remote_addr $long { default no; '~^(?s:.{16})$' yes; }
    server {
        listen %%MAPPED%% ipv6only=off;
        location /network { allow 2001:db8::/32; deny ::/0; empty_gif; }
        location /mapped { deny ::ffff:127.0.0.0/104; empty_gif; }
        location /welcome { allow ::ffff:127.0.0.0/104; deny ::/0; empty_gif; }
        location /other { allow 192.0.2.1; deny ::/0; empty_gif; }
        location /both { allow 127.0.0.1; deny ::/0; empty_gif; }
        location /four { deny 127.0.0.0/8; allow ::/0; empty_gif; }
        location /all { allow 2001:db8::/32; deny all; empty_gif; }
        location /first { deny ::/0; allow all; empty_gif; }
        location /unix { allow unix:; deny ::/0; empty_gif; }
        location /outer { deny ::/0; location /outer/inner { allow 192.0.2.1; empty_gif; } }
        location /seen { add_header X-Seen '$remote_addr $net $long'; empty_gif; }
        location /trusted { set_real_ip_from 127.0.0.0/8; deny 192.0.2.1; empty_gif; }
        location /untrusted { set_real_ip_from ::ffff:127.0.0.0/104; deny 192.0.2.1; empty_gif; }
    }";

const CASES: &[(&str, u16)] = &[
    ("/network", 403),
    ("/mapped", 403),
    ("/welcome", 200),
    ("/other", 200),
    ("/both", 200),
    ("/four", 403),
    ("/all", 403),
    ("/first", 200),
    ("/unix", 403),
    ("/outer/inner", 200),
    ("/trusted", 403),
    ("/untrusted", 200),
];

#[test]
fn mapped_clients_are_judged_as_by_nginx() {
    for exe in with_nginx(WSSGATE) {
        let addr = free_addr();
        let mapped = format!("[::ffff:{}]:{}", addr.ip(), addr.port());
        let _server = Instance::setup(exe).http(SERVER).var("MAPPED", mapped).start();
        let get = |path: &str| {
            let fields = "Host: a\r\nX-Real-IP: 192.0.2.1\r\nConnection: close";
            http::exchange(addr, format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n"))
        };
        for (path, status) in CASES {
            assert_eq!(get(path).status, *status, "{exe}: {path}");
        }
        let seen = get("/seen");
        assert_eq!(seen.field("x-seen"), Some("::ffff:127.0.0.1 four yes"), "{exe}");
    }
}

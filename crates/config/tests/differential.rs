//! Accepts what nginx accepts, refuses what nginx refuses: the same texts go through `nginx -t`.
//!
//! Directives that are refused on purpose have no place here, nor what nginx 1.22 does not know yet.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use wssgate_config::load;
use wssgate_config::load::LoadOptions;

const MAIN: &[&str] = &[
    "",
    "worker_processes auto;",
    "worker_processes x;",
    "user nobody nogroup;",
    "worker_rlimit_nofile 1k;",
    "worker_shutdown_timeout 10s;",
    "worker_shutdown_timeout 1y;",
    "daemon maybe;",
    "error_log stderr debug info;",
    "error_log stderr nosuch;",
    "env A=b; env C;",
    "http { } http { }",
    "events { }",
    "timer_resolution 100ms; lock_file x; worker_priority 0;",
    "nosuch on;",
    "server { }",
    "http { server { } } }",
    "http { server { }",
];

const HTTP: &[&str] = &[
    "map $http_upgrade $c { default upgrade; '' close; }",
    "map $a$b $c { }",
    "map $uri $c { a b c; }",
    "map $uri $c { a b; A c; }",
    "map $uri $c { default a; default b; }",
    "map $uri $c { \\default a; default b; }",
    "map $uri $c { hostnames; *.a.b c; .a.b d; }",
    "map $uri $c { hostnames; *.a.b c; a.* d; a.b e; ~x f; ~*Y g; }",
    "map $uri $c { ~( x; }",
    "map $uri $uri { }",
    "map $uri c { }",
    "map $uri { }",
    "geo $g { default 0; 127.0.0.0/8 1; ::1 2; }",
    "geo $remote_port $g { 10.0.0.1/33 1; }",
    "geo $g { ranges; default a; 10.0.0.0-10.0.0.255 b; 10.0.0.7-10.0.0.9 c; }",
    "geo $g { default a; ranges; }",
    "geo $g { ranges; 10.0.0.0/8 b; }",
    "geo $g { ranges; 10.0.0.9-10.0.0.1 b; }",
    "geo $g { 10.0.0.0/8 a; delete 10.0.0.0/8; delete 11.0.0.0/8; }",
    "geo $g { nosuch.host 1; }",
    "geo $g { 10.0.0.0/8 1; 10.0.0.0/8 2; }",
    "split_clients $uri $s { 10% a; 0.5% b; * c; }",
    "split_clients $uri $s { 10% a; 95% b; }",
    "split_clients $uri $s { 10 a; }",
    "upstream u { server 127.0.0.1:1; }",
    "upstream u { }",
    "upstream u { server 127.0.0.1:1; } upstream u { server 127.0.0.1:2; }",
    "upstream u { server 127.0.0.1:1 weight=2 max_fails=0 fail_timeout=1m max_conns=3; }",
    "upstream u { server 127.0.0.1:1 weight=0; }",
    "upstream u { server 127.0.0.1:1 weight=-1; }",
    "upstream u { server 127.0.0.1:1 nosuch; }",
    "upstream u { server 127.0.0.1:1 fail_timeout=500ms; }",
    "upstream u { server 127.0.0.1:1; server 127.0.0.1:2 backup; keepalive 4; }",
    "upstream u { server 127.0.0.1:1 backup; }",
    "upstream u { ip_hash; server 127.0.0.1:1; server 127.0.0.1:2 backup; }",
    "upstream u { server 127.0.0.1:1; ip_hash; }",
    "upstream u { server 127.0.0.1:1; hash $uri consistent; }",
    "upstream u { server 127.0.0.1:1; hash $uri ketama; }",
    "upstream u { server 127.0.0.1:1; random two least_conn; }",
    "upstream u { server 127.0.0.1:1; random three; }",
    "upstream u { server 127.0.0.1:1; zone z 64k; }",
    "upstream u { server 127.0.0.1:1; zone z 1k; }",
    "upstream u { server unix:/tmp/x; server [::1]:80; }",
    "upstream u { server unix:; }",
    "upstream u { server [::1; }",
    "upstream u { server 127.0.0.1:70000; }",
    "upstream u { server nosuch.invalid; }",
    "upstream u { listen 80; }",
    "log_format x '$remote_addr'; log_format x '$uri';",
    "log_format x escape=json '$remote_addr' '$uri';",
    "log_format x escape=xml '$remote_addr';",
    "log_format x;",
    "types { text/html html; } types { text/css css; }",
    "types_hash_max_size 2048; server_names_hash_bucket_size 64;",
    "sendfile on; tcp_nopush on; gzip on; gzip_types text/css;",
    "sendfile 1;",
    "ssl_protocols TLSv1.2 TLSv1.3; ssl_prefer_server_ciphers on;",
    "ssl_protocols TLSv9;",
    "ssl_session_cache shared:S:1m; ssl_session_timeout 1d;",
    "ssl_session_cache shared:S;",
    "ssl_session_cache shared:S:1k;",
    "ssl_session_cache nosuch;",
    "ssl_session_cache builtin:1000 shared:S:10m;",
    "client_header_buffer_size 1k; large_client_header_buffers 4 8k;",
    "large_client_header_buffers 4;",
    "proxy_set_header A b; proxy_set_header A '';",
    "proxy_set_header A;",
    "proxy_buffers 8 16k; proxy_buffer_size 32k; proxy_busy_buffers_size 64k;",
    "proxy_buffer_size 128k;",
    "proxy_pass http://127.0.0.1;",
    "location / { }",
    "include nosuch.conf;",
    "include nosuch/*.conf;",
];

const SERVER: &[&str] = &[
    "",
    "listen 127.0.0.1:18080;",
    "listen 127.0.0.1:18080; listen 127.0.0.1:18080;",
    "listen 127.0.0.1:18080 default_server backlog=64 rcvbuf=8k sndbuf=8k so_keepalive=on;",
    "listen 127.0.0.1:18080 so_keepalive=30m::10;",
    "listen 127.0.0.1:18080 so_keepalive=::;",
    "listen 127.0.0.1:18080 backlog=0;",
    "listen 127.0.0.1:18080 ipv6only=maybe;",
    "listen 127.0.0.1:18080 nosuch;",
    "listen 127.0.0.1:18080-18082;",
    "listen 127.0.0.1:18082-18080;",
    "listen 0;",
    "listen 65536;",
    "listen [::1]:18080;",
    "listen localhost:18080;",
    "listen nosuch.invalid:18080;",
    "listen 127.0.0.1:18080/x;",
    "listen 127.0.0.1:18080 ssl;",
    "listen 127.0.0.1:18080 ssl; ssl_reject_handshake on;",
    "listen 127.0.0.1:18080 reuseport deferred fastopen=5 bind;",
    "server_name a b.example.com *.example.com www.* .example.org ~^x$ '';",
    "server_name *;",
    "server_name .;",
    "server_name *x;",
    "server_name www.*.example.com;",
    "server_name a; } server { server_name www.*.example.com;",
    "server_name ~(;",
    "server_name a; server_name b;",
    "server_name $hostname;",
    "location / { } location / { }",
    "location / { } location = / { } location ^~ /a { } location ~ a { } location ~* a { } location @a { }",
    "location /a { location /b { } }",
    "location /a { location /a/b { location ~ x { } } }",
    "location = /a { location /a/b { } }",
    "location @a { location /b { } }",
    "location /a { location @b { } }",
    "location ~ a { location /x { } }",
    "location ~ ( { }",
    "location nosuch /a { }",
    "location { }",
    "if ($host = a) { return 301 https://$host$request_uri; }",
    "if ($host = a) { proxy_pass http://127.0.0.1; }",
    "if ($host = a) { root /x; }",
    "return 301 https://$host$request_uri;",
    "rewrite ^/a /b last; rewrite ^ https://x permanent; rewrite ^ /x? break;",
    "set $x 1; if ($x) { set $y 2; } return 200 $y;",
    "try_files $uri $uri/ =404;",
    "try_files $uri;",
    "error_page 404 /404.html; error_page 500 502 = /50x; error_page 403 =200 @x; location @x { }",
    "error_page 404;",
    "error_page 200 /x;",
    "error_page 499 /x;",
    "error_page =200 /x;",
    "keepalive_timeout 5 10; keepalive_requests 10;",
    "keepalive_timeout 5 10 15;",
    "client_max_body_size 2g; client_body_buffer_size 2g;",
    "client_max_body_size 2g; client_body_buffer_size 2m;",
    "merge_slashes off; underscores_in_headers on; ignore_invalid_headers off;",
    "internal;",
    "alias /x;",
    "stub_status;",
    "ssl_verify_client on;",
    "ssl_verify_depth x;",
];

const LOCATION: &[&str] = &[
    "",
    "proxy_pass http://127.0.0.1:1;",
    "proxy_pass http://127.0.0.1:1/x?y;",
    "proxy_pass https://127.0.0.1;",
    "proxy_pass ftp://127.0.0.1;",
    "proxy_pass http://;",
    "proxy_pass http://nosuch.invalid;",
    "proxy_pass http://$host;",
    "proxy_pass http://unix:/tmp/x:/uri;",
    "proxy_pass http://unix:/tmp/x;",
    "proxy_pass http://later; }} upstream later { server 127.0.0.1:1; } server { location / {",
    "proxy_pass http://later:80; }} upstream later { server 127.0.0.1:1; } server { location / {",
    "proxy_pass http://127.0.0.1:1; proxy_pass http://127.0.0.1:2;",
    "if ($uri) { proxy_pass http://127.0.0.1:1; }",
    "if ($uri) { proxy_pass http://127.0.0.1:1/; }",
    "limit_except GET { proxy_pass http://127.0.0.1:1; deny all; }",
    "limit_except GET { proxy_pass http://127.0.0.1:1/; }",
    "limit_except NOSUCH { deny all; }",
    "proxy_pass http://127.0.0.1:1; proxy_redirect default;",
    "proxy_redirect default; proxy_pass http://127.0.0.1:1;",
    "proxy_redirect off;",
    "proxy_redirect off; proxy_redirect off;",
    "proxy_redirect / /x; proxy_redirect ~*a $1;",
    "proxy_pass http://$host; proxy_redirect default;",
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;",
    "proxy_http_version 1.2;",
    "proxy_read_timeout 300s; proxy_read_timeout 300s;",
    "proxy_read_timeout forever;",
    "proxy_next_upstream error timeout http_502 non_idempotent;",
    "proxy_next_upstream off;",
    "proxy_next_upstream nosuch;",
    "proxy_buffers 1 4k;",
    "proxy_buffers 2 4k; proxy_busy_buffers_size 8k;",
    "proxy_busy_buffers_size 1k;",
    "proxy_ignore_headers Expires X-Accel-Redirect;",
    "proxy_ignore_headers Nosuch;",
    "proxy_hide_header A; proxy_pass_header Server;",
    "proxy_bind 127.0.0.1;",
    "proxy_bind off;",
    "proxy_bind nosuch;",
    "proxy_cookie_domain a b; proxy_cookie_path / /x; proxy_cookie_flags one secure;",
    "proxy_cookie_domain x;",
    "proxy_ssl_verify on; proxy_pass http://127.0.0.1:1;",
    "proxy_ssl_verify on; proxy_pass https://127.0.0.1:1;",
    "proxy_method POST; proxy_set_body x$uri; proxy_pass_request_body off;",
    "root /x; index a b /c;",
    "root /x; root /y;",
    "root /x; alias /y;",
    "root $document_root;",
    "alias /x/;",
    "internal;",
    "internal on;",
    "expires 1h;",
    "expires -1;",
    "expires @15h30m;",
    "expires @25h;",
    "expires modified +24h;",
    "expires epoch; add_header A b always; add_header C $uri;",
    "expires max off;",
    "expires soon;",
    "add_header A b never;",
    "add_header A;",
    "allow 10.0.0.0/8; allow ::1; allow unix:; deny all;",
    "allow 10.0.0.0/33;",
    "allow nosuch;",
    "access_log off;",
    "access_log off combined;",
    "access_log /dev/null combined if=$uri buffer=32k flush=1m;",
    "access_log /dev/null nosuch;",
    "access_log /dev/null combined buffer=x;",
    "return 200;",
    "return 200 'x$uri';",
    "return https://x;",
    "return /x;",
    "return 1000;",
    "return;",
    "return 200 a b;",
    "rewrite ( x;",
    "rewrite a b last x;",
    "rewrite a b nosuch;",
    "rewrite ^/(.*)$ /x/$1 break;",
    "if ($uri) { }",
    "if ( $uri ~* x ) { break; }",
    "if ($uri ~ (?<a>x)) { return 200 $a; }",
    "if ($uri = ) { }",
    "if ($uri ! x) { }",
    "if (-f $request_filename) { } if (!-e /x) { } if (-x /x) { }",
    "if (-q /x) { }",
    "if (uri) { }",
    "if $uri { }",
    "if ($uri) { if ($host) { } }",
    "if ($uri) { location / { } }",
    "set $x $nosuch;",
    "set $x $x;",
    "set x y;",
    "set $uri y;",
    "set $http_x y;",
    "set $args a=b; set $limit_rate 1k;",
    "return 200 $;",
    "return 200 ${uri;",
    "return 200 ${uri}$1$arg_$http_$cookie_x;",
    "types { } default_type text/x;",
    "types { text/x a; text/y a; }",
    "limit_rate 10k; limit_rate_after 1m;",
    "limit_rate $arg_rate;",
    "limit_rate x;",
    "send_timeout 10; lingering_close always; lingering_time 1; lingering_timeout 1;",
    "lingering_close maybe;",
    "client_body_in_file_only clean; client_body_temp_path /tmp/wssgate-body;",
    "try_files /x /y =404;",
    "try_files /x =abc;",
    "etag off; if_modified_since before; server_tokens build; chunked_transfer_encoding off;",
    "server_tokens maybe;",
    "empty_gif;",
    "empty_gif on;",
    "aio threads; directio 4m; output_buffers 1 32k; open_file_cache off;",
    "tcp_nodelay ON;",
    "tcp_nodelay true;",
    "proxy_pas http://127.0.0.1;",
    "proxy_set_header A b",
    "listen 80;",
    "worker_processes 1;",
    "root;",
    "root /x { }",
];

fn ours(text: &str, prefix: &Path) -> Result<(), Vec<String>> {
    let options = LoadOptions { prefix: prefix.into(), ..LoadOptions::text(text) };
    load(&options).map(|_| ()).map_err(|failed| failed.report.lines(&failed.sources))
}

fn theirs(text: &str, prefix: &Path) -> Result<(), String> {
    let conf = prefix.join("nginx.conf");
    std::fs::write(&conf, text).unwrap();
    let output = Command::new("nginx")
        .args(["-t", "-q", "-e", "stderr", "-p"])
        .arg(prefix)
        .arg("-c")
        .arg(&conf)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn nginx_and_we_accept_the_same() {
    if Command::new("nginx").arg("-v").output().is_err() {
        eprintln!("SKIPPED: nginx is not installed, nothing was compared");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path();
    let globals = "pid nginx.pid;";
    let http = |text: &str| format!("{globals} events {{}} http {{ access_log off; {text}\n}}");
    let server = |text: &str| http(&format!("server {{ {text}\n}}"));
    let location =
        |text: &str| server(&format!("listen 127.0.0.1:18080; location / {{ {text}\n}}"));
    let main = |text: &str| format!("{globals} {text} events {{}}");
    type Wrap<'w> = &'w dyn Fn(&str) -> String;
    let tables: [(&[&str], Wrap<'_>); 4] =
        [(MAIN, &main), (HTTP, &http), (SERVER, &server), (LOCATION, &location)];
    let mut differences = Vec::new();
    let mut accepted = 0;
    for (table, wrap) in tables {
        for text in table {
            let (ours, theirs) = (ours(&wrap(text), prefix), theirs(&wrap(text), prefix));
            accepted += usize::from(theirs.is_ok());
            if ours.is_ok() != theirs.is_ok() {
                differences.push(format!("{text}\n  we: {ours:?}\n  nginx: {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let total: usize = tables.iter().map(|(table, _)| table.len()).sum();
    assert!(accepted > 100 && total - accepted > 100, "{accepted} of {total} were accepted");
}

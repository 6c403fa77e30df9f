//! What is said about configurations that are wrong or odd: text in, messages out.
#![allow(clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;

use wssgate_config::load;
use wssgate_config::load::LoadOptions;
use wssgate_syntax::{Report, Severity};

fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match name {
        "localhost" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn report(text: &str) -> Report {
    let options = LoadOptions { resolve, ..LoadOptions::text(text) };
    match load(&options) {
        Ok(loaded) => loaded.report,
        Err(failed) => failed.report,
    }
}

/// Errors and warnings, the latter with `warn: ` before them; notes are left out.
fn messages(text: &str) -> Vec<String> {
    let report = report(text);
    let said = report.iter().filter(|diagnostic| diagnostic.severity != Severity::Note);
    said.map(|diagnostic| match diagnostic.severity {
        Severity::Warning => format!("warn: {}", diagnostic.message),
        _ => diagnostic.message.clone(),
    })
    .collect()
}

fn check(wrap: impl Fn(&str) -> String, cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(messages(&wrap(text)), *expected, "{text}");
    }
}

fn in_main(text: &str) -> String {
    format!("events {{}}\n{text}\n")
}

fn in_http(text: &str) -> String {
    in_main(&format!("http {{ {text} }}"))
}

fn in_server(text: &str) -> String {
    in_http(&format!("server {{ {text} }}"))
}

fn in_location(text: &str) -> String {
    in_server(&format!("location / {{ {text} }}"))
}

#[test]
fn shape_and_place_of_directives_are_checked() {
    check(
        in_location,
        &[
            ("proxy_pas http://localhost;", &["unknown directive \"proxy_pas\""]),
            ("listen 80;", &["\"listen\" directive is not allowed here"]),
            ("proxy_pass;", &["invalid number of arguments in \"proxy_pass\" directive"]),
            ("tcp_nodelay;", &["invalid number of arguments in \"tcp_nodelay\" directive"]),
            (
                "if ($a) { root /x; } set $a b; tcp_nodelay on { }",
                &["directive \"tcp_nodelay\" is not terminated by \";\""],
            ),
            ("types;", &["directive \"types\" has no opening \"{\""]),
            ("send_timeout 1s; send_timeout 2s;", &["\"send_timeout\" directive is duplicate"]),
            (
                "proxy_pass http://localhost; proxy_pass http://localhost;",
                &["\"proxy_pass\" directive is duplicate"],
            ),
            ("root /a; root /b;", &["\"root\" directive is duplicate"]),
            (
                "root /a; alias /b;",
                &["\"alias\" directive is duplicate, \"root\" directive was specified earlier"],
            ),
            ("limit_req zone=a;", &["zero size shared memory zone \"a\""]),
            ("fastcgi_pass localhost:9000;", &["\"fastcgi_pass\" directive is not supported"]),
        ],
    );
    check(
        in_main,
        &[
            (
                "http { server { ssl on; } }",
                &[
                    "no \"ssl_certificate\" is defined for the \"ssl\" directive",
                    "warn: the \"ssl\" directive is deprecated, use the \"listen ... ssl\" directive instead",
                ],
            ),
            ("http { server { ssl off; } }", &[]),
            ("http { server { } } http { }", &["\"http\" directive is duplicate"]),
            (
                "http { websocket_limit_zone $uri zone=w:1m rate=fast; }",
                &["invalid parameter \"rate=fast\""],
            ),
            (
                "http { websocket_limit_zone $uri zone=w:1m zone=w:1m; }",
                &["\"websocket_limit_zone\" must have \"rate\" parameter"],
            ),
            (
                "http { limit_conn_zone $uri zone=w:1m; websocket_limit zone=w; }",
                &["the shared memory zone \"w\" is already declared for a different use"],
            ),
            (
                "http { websocket_limit_zone $uri zone=w:1m rate=1m;
                     websocket_limit zone=w; websocket_limit zone=w from=upstream; }",
                &["\"websocket_limit\" directive is duplicate"],
            ),
            ("stream { }", &["\"stream\" directive is not supported"]),
            ("load_module x.so;", &[]),
            ("worker_processes 0;", &["\"worker_processes\" directive invalid value"]),
            ("error_log x loud;", &["invalid log level \"loud\""]),
        ],
    );
    assert_eq!(messages("http { }"), ["no \"events\" section in configuration"]);
}

#[test]
fn values_are_checked() {
    check(
        |text| format!("events {{ {text} }}"),
        &[
            ("use upoll;", &["invalid event type \"upoll\""]),
            ("use epoll; use epoll;", &["\"use\" directive is duplicate"]),
        ],
    );
    check(
        in_location,
        &[
            ("send_timeout 1x;", &["\"send_timeout\" directive invalid value"]),
            ("client_max_body_size 1q;", &["\"client_max_body_size\" directive invalid value"]),
            ("keepalive_requests many;", &["\"keepalive_requests\" directive invalid number"]),
            ("proxy_buffers 8;", &["invalid number of arguments in \"proxy_buffers\" directive"]),
            ("proxy_buffers 1 4k;", &["there must be at least 2 \"proxy_buffers\""]),
            (
                "tcp_nodelay yes;",
                &[
                    "invalid value \"yes\" in \"tcp_nodelay\" directive, it must be \"on\" or \"off\"",
                ],
            ),
            (
                "websocket_tcp_user_timeout 0;",
                &["\"websocket_tcp_user_timeout\" directive invalid value"],
            ),
            (
                "websocket_tcp_user_timeout 25d;",
                &["\"websocket_tcp_user_timeout\" directive invalid value"],
            ),
            ("websocket_message_rate 10;", &["\"websocket_message_rate\" directive invalid value"]),
            (
                "websocket_message_rate burst=5;",
                &["\"websocket_message_rate\" directive invalid value"],
            ),
            (
                "websocket_byte_rate client=1k delay close;",
                &["\"websocket_byte_rate\" directive duplicate value"],
            ),
            (
                "websocket_byte_rate 1k burst=x;",
                &["\"websocket_byte_rate\" directive invalid value"],
            ),
            ("websocket_limit zone=w;", &["zero size shared memory zone \"w\""]),
            ("websocket_limit close;", &["\"websocket_limit\" must have \"zone\" parameter"]),
            ("websocket_limit from=both zone=w;", &["invalid parameter \"from=both\""]),
            (
                "sendfile yes;",
                &["invalid value \"yes\" in \"sendfile\" directive, it must be \"on\" or \"off\""],
            ),
            ("proxy_http_version 3;", &["invalid value \"3\""]),
            ("proxy_next_upstream errors;", &["invalid value \"errors\""]),
            ("expires soon;", &["\"expires\" directive invalid value"]),
            ("error_page 200 /x;", &["value \"200\" must be between 300 and 599"]),
            ("error_page 499 /x;", &["invalid value \"499\""]),
            ("try_files /x =abc;", &["invalid code \"=abc\""]),
            ("allow 10.0.0.0/33;", &["invalid parameter \"10.0.0.0/33\""]),
            ("deny 10.0.0.1/8;", &["warn: low address bits of \"10.0.0.1/8\" are meaningless"]),
            ("add_header A b sometimes;", &["invalid parameter \"sometimes\""]),
            ("limit_except FOO { deny all; }", &["invalid method \"FOO\""]),
            ("access_log /x nosuch;", &["unknown log format \"nosuch\""]),
            ("access_log off x;", &["invalid parameter \"x\""]),
            ("access_log /x combined buffer=0;", &["invalid buffer size \"0\""]),
            ("access_log /x combined flush=1s;", &["no buffer is defined for access_log \"/x\""]),
            ("access_log /x combined gzip=10;", &["invalid compression level \"10\""]),
            ("access_log /x combined gzip flush=0;", &["invalid flush time \"0\""]),
            ("access_log /$uri combined gzip;", &["buffered logs cannot have variables in name"]),
            (
                "access_log syslog:server=127.0.0.1 combined buffer=1k;",
                &["logs to syslog cannot be buffered"],
            ),
            (
                "access_log /x combined gzip; access_log /x combined buffer=64k;",
                &["access_log \"/x\" already defined with conflicting parameters"],
            ),
            ("access_log /x combined buffer=64k; access_log /x;", &[]),
            (
                "error_log syslog:server=127.0.0.1,facility=user,facility=mail;",
                &["duplicate syslog \"facility\""],
            ),
            (
                "error_log syslog:server=127.0.0.1,severity=warn,severity=warn;",
                &["duplicate syslog \"severity\""],
            ),
            ("error_log memory:32m;", &["logs in memory are not supported"]),
            (
                "open_log_file_cache inactive=5;",
                &["\"open_log_file_cache\" must have \"max\" parameter"],
            ),
            (
                "open_log_file_cache max=5 valid=1ms;",
                &["invalid \"open_log_file_cache\" parameter \"valid=1ms\""],
            ),
            ("open_log_file_cache off;", &[]),
            (
                "root /a/$document_root;",
                &["the $document_root variable cannot be used in the \"root\" directive"],
            ),
        ],
    );
}

#[test]
fn variables_must_exist_and_may_be_defined_later() {
    check(
        in_location,
        &[
            ("return 200 $nosuch;", &["unknown \"nosuch\" variable"]),
            ("return 200 $later; set $later x;", &["warn: \"$later\" has no value here yet"]),
            ("add_header A $http_x$arg_y$cookie_z$sent_http_a$upstream_http_b;", &[]),
            ("return 200 $http_$arg_;", &[]),
            ("return 200 a$;", &["invalid variable name"]),
            ("return 200 ${host;", &["the closing bracket in \"host\" variable is missing"]),
            ("return 200 $1$9${host}x;", &[]),
            ("set $host x;", &["the duplicate \"host\" variable"]),
            ("set $args x; set $limit_rate 1k;", &[]),
            ("set host x;", &["invalid variable name \"host\""]),
            ("if ($uri ~ (?<uri>x)) { }", &["the duplicate \"uri\" variable"]),
            ("if ($uri ~ (?<own>x)) { return 200 $own; }", &[]),
        ],
    );
    check(
        in_http,
        &[
            ("map $uri $x { } map $uri $y { default $x; }", &[]),
            ("map $nosuch $x { }", &["unknown \"nosuch\" variable"]),
            ("map $uri $uri { }", &["the duplicate \"uri\" variable"]),
            ("map $uri x { }", &["invalid variable name \"x\""]),
        ],
    );
    let report = report(&in_location("return 200 $remote_adr;"));
    assert_eq!(report.iter().next().unwrap().help.as_deref(), Some("did you mean `$remote_addr`?"));
}

#[test]
fn the_admin_socket_is_checked() {
    let wrong =
        "\"admin\" directive takes `off` or a Unix socket, such as `unix:/run/wssgate.sock`";
    check(
        in_main,
        &[
            ("admin off;", &[]),
            ("admin unix:/run/x mode=0660;", &[]),
            ("admin 127.0.0.1:8080;", &[wrong]),
            ("admin unix:;", &[wrong]),
            ("admin unix:/run/x mode=0999;", &["invalid parameter \"mode=0999\""]),
            ("admin unix:/run/x mode=1777;", &["invalid parameter \"mode=1777\""]),
            ("admin unix:/run/x open;", &["invalid parameter \"open\""]),
            ("admin off mode=0600;", &["invalid parameter \"mode=0600\""]),
        ],
    );
}

#[test]
fn maps_are_checked() {
    check(
        in_http,
        &[
            ("map $uri $x { a 1; A 2; }", &["conflicting parameter \"A\""]),
            ("map $uri $x { default 1; default 2; }", &["duplicate default map parameter"]),
            ("map $uri $x { a; }", &["invalid number of the map parameters"]),
            ("map $uri $x { a 1 2; }", &["invalid number of the map parameters"]),
            ("map $uri $x { \\default 1; default 2; \\volatile 3; volatile; }", &[]),
            ("map $host $x { hostnames; *.a.b 1; .a.b 2; }", &["conflicting parameter \".a.b\""]),
            (
                "geo $x { 10.0.0.0/8 a; 10.0.0.0/8 b; }",
                &["warn: duplicate network \"10.0.0.0/8\", value: \"b\", old value: \"a\""],
            ),
            ("geo $x { host a; }", &["invalid network \"host\""]),
            ("geo $x { proxy host; }", &["invalid network \"host\""]),
            ("geo $x { proxy_recursive on off; }", &["invalid number of the geo parameters"]),
            ("split_clients $uri $x { 50% a; 60% b; }", &["percent total is greater than 100%"]),
            ("split_clients $uri $x { 0% a; }", &["invalid percent value \"0%\""]),
            ("split_clients $uri $x { 33.33% a; * b; }", &[]),
        ],
    );
}

#[test]
fn upstreams_are_checked() {
    check(
        in_http,
        &[
            ("upstream u { }", &["no servers are inside upstream"]),
            (
                "upstream u { server localhost; } upstream u { server localhost; }",
                &["duplicate upstream \"u\""],
            ),
            (
                "upstream u { server nosuch.invalid; }",
                &["host not found in upstream \"nosuch.invalid\""],
            ),
            ("upstream u { server localhost:x; }", &["invalid port in upstream \"localhost:x\""]),
            ("upstream u { server localhost weight=0; }", &["invalid parameter \"weight=0\""]),
            ("upstream u { server localhost slow; }", &["invalid parameter \"slow\""]),
            (
                "upstream u { ip_hash; server localhost backup; server localhost; }",
                &["balancing method does not support parameter \"backup\""],
            ),
            (
                "upstream u { random; server localhost slow_start=1s; }",
                &["balancing method does not support parameter \"slow_start=1s\""],
            ),
            (
                "upstream u { server localhost slow_start=x; }",
                &["invalid parameter \"slow_start=x\""],
            ),
            (
                "upstream u { least_time header now; server localhost; }",
                &["invalid parameter \"now\""],
            ),
            ("upstream u { least_time never; server localhost; }", &["invalid value \"never\""]),
            (
                "upstream u { random two least_time; server localhost; }",
                &["invalid parameter \"least_time\""],
            ),
            (
                "upstream u { server localhost; queue 0; }",
                &["invalid value \"0\" in \"queue\" directive"],
            ),
            (
                "upstream u { server localhost; queue 1 timeout=x; }",
                &["invalid parameter \"timeout=x\""],
            ),
            (
                "upstream u { server localhost; keepalive 1 global; }",
                &["invalid parameter \"global\""],
            ),
            (
                "upstream u { server localhost; websocket_recovery later; }",
                &["invalid value \"later\""],
            ),
            (
                "upstream u { ip_hash; least_conn; server localhost; }",
                &["warn: load balancing method redefined"],
            ),
        ],
    );
    check(
        in_location,
        &[
            (
                "proxy_pass http://nosuch.invalid;",
                &["host not found in upstream \"nosuch.invalid\""],
            ),
            ("proxy_pass localhost;", &["invalid URL prefix"]),
            ("proxy_pass http://localhost:0;", &["invalid port in upstream \"localhost:0\""]),
            ("proxy_pass http://;", &["no host in upstream \"\""]),
            (
                "proxy_redirect default;",
                &["\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive"],
            ),
            (
                "proxy_pass http://$host; proxy_redirect default;",
                &[
                    "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables",
                ],
            ),
            (
                "proxy_redirect off; proxy_redirect a b;",
                &["\"proxy_redirect\" directive is duplicate"],
            ),
            ("proxy_redirect x;", &["invalid parameter \"x\""]),
        ],
    );
    let wrap =
        |place: &str| in_http(&format!("upstream u {{ server localhost; }} server {{ {place} }}"));
    let uri = "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside \
        named location, or inside \"if\" statement, or inside \"limit_except\" block";
    check(
        wrap,
        &[
            ("location ~ x { proxy_pass http://u/; }", &[uri]),
            ("location @x { proxy_pass http://u/; }", &[uri]),
            ("location / { if ($uri) { proxy_pass http://u/; } }", &[uri]),
            ("location / { limit_except GET { proxy_pass http://u/; } }", &[uri]),
            ("location / { proxy_pass http://u/; }", &[]),
            ("location / { proxy_pass http://u:80; }", &["upstream \"u\" may not have port 80"]),
        ],
    );
}

#[test]
fn locations_are_checked() {
    check(
        in_server,
        &[
            ("location /a { } location /a { }", &["duplicate location \"/a\""]),
            ("location /a { } location ^~ /a { }", &["duplicate location \"/a\""]),
            ("location /a { } location = /a { }", &[]),
            ("location ~ a { } location ~ a { }", &["warn: location \"a\" is never used"]),
            ("location /a { location /b { } }", &["location \"/b\" is outside location \"/a\""]),
            (
                "location = /a { location /a/b { } }",
                &["location \"/a/b\" cannot be inside the exact location \"/a\""],
            ),
            (
                "location @a { location /b { } }",
                &["location \"/b\" cannot be inside the named location \"@a\""],
            ),
            (
                "location /a { location @b { } }",
                &["named location \"@b\" can be on the server level only"],
            ),
            ("location /a { location ~ b { location ~ c { } } }", &[]),
            ("location %% /a { }", &["invalid location modifier \"%%\""]),
            (
                "location @a { alias /x; }",
                &["the \"alias\" directive cannot be used inside the named location"],
            ),
        ],
    );
}

#[test]
fn rewrite_directives_are_checked() {
    check(
        in_location,
        &[
            ("return abc;", &["invalid return code \"abc\""]),
            ("return 1000;", &["invalid return code \"1000\""]),
            ("return http://a; return 301 http://a; return 200;", &[]),
            ("rewrite a b c;", &["invalid parameter \"c\""]),
            ("rewrite a '';", &["empty replacement"]),
            ("if $uri { }", &["invalid condition \"$uri\""]),
            ("if ($uri = a b) { }", &["invalid condition \"$uri\""]),
            ("if ($uri == a) { }", &["unexpected \"==\" in condition"]),
            ("if (-z /x) { }", &["invalid condition \"-z\""]),
            ("if (!-f $request_filename) { } if ( -d /x ) { }", &[]),
            ("if ($uri = '') { } if ($uri !~* \\.x$) { } if ($uri) { }", &[]),
        ],
    );
}

#[test]
fn addresses_and_names_are_checked() {
    check(
        in_http,
        &[
            (
                "server { listen 80 default_server; } server { listen 80 default_server; }",
                &[
                    "warn: conflicting server name \"\" on 0.0.0.0:80, ignored",
                    "a duplicate default server for 0.0.0.0:80",
                ],
            ),
            ("server { listen 80; listen *:80; }", &["a duplicate listen 0.0.0.0:80"]),
            (
                "server { listen 80 backlog=1; server_name a; } server { listen 80 backlog=2; }",
                &["duplicate listen options for 0.0.0.0:80"],
            ),
            (
                "server { listen 80; server_name a; } server { listen 80; server_name A; }",
                &["warn: conflicting server name \"a\" on 0.0.0.0:80, ignored"],
            ),
            (
                "server { listen 443 ssl; }",
                &["no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive"],
            ),
            ("server { listen 443 ssl; ssl_reject_handshake on; }", &[]),
            (
                "server { listen 443 ssl; ssl_certificate a; }",
                &["no \"ssl_certificate_key\" is defined for certificate \"/usr/share/nginx/a\""],
            ),
        ],
    );
    check(
        in_server,
        &[
            (
                "listen nosuch.invalid:80;",
                &["host not found in \"nosuch.invalid:80\" of the \"listen\" directive"],
            ),
            ("listen 99999;", &["invalid port in \"99999\" of the \"listen\" directive"]),
            ("listen 80 fast;", &["invalid parameter \"fast\""]),
            ("listen 80 so_keepalive=x;", &["invalid so_keepalive value: \"x\""]),
            ("listen 80 backlog=x;", &["invalid backlog \"backlog=x\""]),
            ("listen 80 quic;", &["the \"quic\" parameter is not supported"]),
            (
                "set_real_ip_from nosuch.invalid;",
                &["host not found in set_real_ip_from \"nosuch.invalid\""],
            ),
            (
                "set_real_ip_from 10.0.0.0/33;",
                &["host not found in set_real_ip_from \"10.0.0.0/33\""],
            ),
            (
                "set_real_ip_from 10.0.0.1/8;",
                &["warn: low address bits of \"10.0.0.1/8\" are meaningless"],
            ),
            ("real_ip_header a; real_ip_header b;", &["\"real_ip_header\" directive is duplicate"]),
            (
                "ssl_certificate_cache valid=1s;",
                &["\"ssl_certificate_cache\" must have the \"max\" parameter"],
            ),
            ("ssl_certificate_cache max=0;", &["invalid parameter \"max=0\""]),
            ("proxy_ssl_certificate_cache max=1 old=1s;", &["invalid parameter \"old=1s\""]),
            (
                "ssl_certificate data:$arg_a;",
                &["keys outside of files in \"ssl_certificate\" are not supported"],
            ),
            (
                "ssl_certificate store:file:/a.pem;",
                &["keys outside of files in \"ssl_certificate\" are not supported"],
            ),
            (
                "ssl_certificate_key store:pkcs11:object=a;",
                &["keys outside of files in \"ssl_certificate_key\" are not supported"],
            ),
            ("ssl_conf_command MinProtocol TLSv1.3;", &[]),
            (
                "ssl_protocols TLSv1.2; ssl_conf_command minprotocol TLSv1.3;",
                &["this leaves no supported protocol version"],
            ),
            (
                "ssl_conf_command MinProtocol TLSv4;",
                &["SSL_CONF_cmd(\"MinProtocol\", \"TLSv4\") failed: unknown protocol version"],
            ),
            ("ssl_conf_command Options KTLS,-SessionTicket;", &[]),
            (
                "ssl_conf_command Options UnsafeLegacyRenegotiation;",
                &[
                    "SSL_CONF_cmd(\"Options\", \"UnsafeLegacyRenegotiation\") failed: this would weaken TLS, which is not possible here",
                ],
            ),
            (
                "ssl_conf_command Options Fast;",
                &["SSL_CONF_cmd(\"Options\", \"Fast\") failed: unknown option"],
            ),
            (
                "proxy_ssl_conf_command SignatureAlgorithms RSA+SHA256;",
                &[
                    "SSL_CONF_cmd(\"SignatureAlgorithms\", \"RSA+SHA256\") failed: the command is not supported",
                ],
            ),
            (
                "ssl_conf_command PrivateKey a;",
                &["\"PrivateKey\" needs a \"Certificate\" before it"],
            ),
            ("proxy_protocol v3;", &["invalid value \"v3\""]),
            (
                "return 200 $proxy_protocol_tlv_none;",
                &["unknown \"proxy_protocol_tlv_none\" variable"],
            ),
            ("server_name *;", &["server name \"*\" is invalid"]),
            ("server_name a/b;", &["warn: server name \"a/b\" has suspicious symbols"]),
            ("server_name ~;", &["empty regex in server name \"~\""]),
            ("ssl_protocols TLSv1.4;", &["invalid value \"TLSv1.4\""]),
            ("ssl_session_cache shared:x;", &["invalid session cache \"shared:x\""]),
        ],
    );
}

#[test]
fn one_run_reports_every_problem_in_the_order_of_the_text() {
    let text = "server { listen 80 fast; location / { proxy_pas x; return 200 $nosuch; send_timeout 1x; } }";
    assert_eq!(
        messages(&in_http(text)),
        [
            "invalid parameter \"fast\"",
            "unknown directive \"proxy_pas\"",
            "unknown \"nosuch\" variable",
            "\"send_timeout\" directive invalid value",
        ]
    );
}

#[test]
fn a_forgotten_semicolon_is_found_behind_the_argument_that_it_swallowed() {
    let text = in_server("location / {\nproxy_pass http://localhost\nproxy_read_timeout 5s;\n}");
    let report = report(&text);
    let problem = report.iter().next().unwrap();
    assert_eq!(problem.message, "invalid number of arguments in \"proxy_pass\" directive");
    assert_eq!(problem.help.as_deref(), Some("is the `;` before `proxy_read_timeout` missing?"));
}

#[test]
fn a_misspelt_parameter_gets_a_suggestion() {
    for (text, expected) in [
        ("server { listen 80 fastopne=3; }", Some("did you mean `fastopen`?")),
        ("upstream u { server localhost wieght=3; }", Some("did you mean `weight`?")),
        ("upstream u { server localhost weight=x; }", None),
    ] {
        let report = report(&in_http(text));
        assert_eq!(report.iter().next().unwrap().help.as_deref(), expected, "{text}");
    }
}

#[test]
fn what_is_refused_may_be_turned_off() {
    check(
        in_location,
        &[
            ("auth_basic off; auth_request off; userid off; ssi off; mirror off;", &[]),
            ("userid on;", &["\"userid\" directive is not supported"]),
            ("fastcgi_pass off;", &["\"fastcgi_pass\" directive is not supported"]),
        ],
    );
}

/// What a row says is checked as before, and `-t` says that nothing more is done with it.
#[test]
fn what_has_no_effect_may_be_checked() {
    let small = "\"proxy_busy_buffers_size\" must be equal to or greater than the maximum of the value of \
        \"proxy_buffer_size\" and one of the \"proxy_buffers\"";
    check(
        in_location,
        &[
            ("proxy_busy_buffers_size 8k;", &[]),
            ("proxy_busy_buffers_size 1k;", &[small]),
            (
                "proxy_busy_buffers_size x;",
                &["\"proxy_busy_buffers_size\" directive invalid value"],
            ),
        ],
    );
    let twice = "upstream u { server localhost; zone z 64k; zone z 64k; }";
    check(in_http, &[(twice, &["\"zone\" directive is duplicate"])]);
    let texts = [
        in_location("proxy_busy_buffers_size 8k;"),
        in_http("upstream u { server localhost; zone z 64k; }"),
        in_main("master_process off;"),
        in_main("env TZ=UTC; env PATH;"),
    ];
    for text in texts {
        let report = report(&text);
        let notes: Vec<_> = report.iter().map(|diagnostic| &diagnostic.message).collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("directive has no effect: "), "{notes:?}");
    }
}

#[test]
fn a_variable_that_is_always_empty_is_noted_once() {
    let report = report(&in_location("return 200 $ssl_sigalg$ssl_sigalg$ssl_protocol;"));
    let notes: Vec<_> = report.iter().map(|diagnostic| &diagnostic.message).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("\"ssl_sigalg\" variable is always empty: "), "{notes:?}");
}

#[test]
fn what_has_no_effect_is_noted_once() {
    let report = report(&in_server("sendfile on; location / { sendfile off; tcp_nopush on; }"));
    let notes: Vec<_> = report.iter().map(|diagnostic| diagnostic.message.clone()).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("\"sendfile\" directive has no effect: "));
}

#[test]
fn what_asks_for_no_more_than_is_done_is_not_noted() {
    let told = |text: &str| report(text).iter().count();
    let off = "gzip off; gzip_static off; http2 off; proxy_cache off; open_file_cache off; \
        proxy_cache_use_stale off; proxy_max_temp_file_size 0; ssl_stapling off;";
    assert_eq!(told(&in_server(off)), 0);
    assert_eq!(told(&in_main("pcre_jit on; worker_priority 0;")), 0);
    assert_eq!(told(&in_main("pcre_jit off; worker_priority 5;")), 2);
    assert_eq!(told(&in_server("gzip off; location / { gzip on; } location /a { gzip on; }")), 1);
}

#[test]
fn names_need_somebody_who_looks_them_up() {
    check(
        in_http,
        &[
            ("resolver localhost [::1]:54 127.0.0.1 valid=30s ipv6=off local=off;", &[]),
            ("resolver 127.0.0.1 status_zone=dns;", &[]),
            ("resolver valid=1s;", &["no name servers defined"]),
            ("resolver local=off;", &["no name servers defined"]),
            ("resolver 127.0.0.1 valid=x;", &["invalid parameter: valid=x"]),
            ("resolver 127.0.0.1 ipv4=maybe;", &["invalid parameter: ipv4=maybe"]),
            ("resolver local=maybe;", &["invalid parameter: local=maybe"]),
            (
                "resolver local=/nosuch/resolv.conf;",
                &["no name servers found in \"/nosuch/resolv.conf\""],
            ),
            (
                "resolver 127.0.0.1 ipv4=off ipv6=off;",
                &["\"ipv4\" and \"ipv6\" cannot both be \"off\""],
            ),
            ("resolver nosuch.invalid;", &["host not found in resolver \"nosuch.invalid\""]),
            ("resolver unix:/run/dns;", &["invalid host in resolver \"unix:/run/dns\""]),
            ("resolver 127.0.0.1:0;", &["invalid port in resolver \"127.0.0.1:0\""]),
            ("resolver 127.0.0.1; resolver 127.0.0.2;", &["\"resolver\" directive is duplicate"]),
            ("resolver_timeout x;", &["\"resolver_timeout\" directive invalid value"]),
        ],
    );
    check(
        in_http,
        &[
            ("resolver 127.0.0.1; upstream u { server nosuch.invalid resolve; }", &[]),
            ("upstream u { server a.test service=ws resolve; resolver 127.0.0.1; }", &[]),
            ("upstream u { server 127.0.0.1 resolve; }", &[]),
            (
                "upstream u { server a.test resolve; }",
                &["no resolver defined to resolve names at run time in upstream \"u\""],
            ),
            (
                "upstream u { server a.test resolve; resolver x; }",
                &["host not found in resolver \"x\""],
            ),
            (
                "upstream u { server localhost service=ws; }",
                &["service upstream \"localhost\" requires \"resolve\" parameter"],
            ),
            (
                "upstream u { server localhost:81 service=ws resolve; }",
                &["service upstream \"localhost:81\" may not have port"],
            ),
            (
                "upstream u { server 127.0.0.1 service=ws resolve; }",
                &["service upstream \"127.0.0.1\" requires domain name"],
            ),
            ("upstream u { server localhost service= resolve; }", &["service is empty"]),
        ],
    );
    let missing: &[&str] = &["warn: no resolver defined to resolve app.test"];
    check(
        in_location,
        &[
            ("proxy_pass http://app.test$request_uri;", missing),
            ("proxy_pass http://app.test/x$is_args;", missing),
            ("set $up http://app.test:81; proxy_pass $up;", missing),
            ("set $up https://app.test; proxy_pass $up/x;", missing),
            ("if ($http_x) { set $up http://app.test; } proxy_pass $up;", missing),
            ("location /a { set $up http://app.test; proxy_pass $up; }", missing),
            ("proxy_pass http://app.test$request_uri; resolver 127.0.0.1;", &[]),
            // What follows may belong to the host.
            ("proxy_pass http://app.test$http_x;", &[]),
            ("set $up http://app.test; proxy_pass $up$http_x;", &[]),
            ("proxy_pass http://$host;", &[]),
            ("set $up http://$host; proxy_pass $up;", &[]),
            ("set $up http://127.0.0.1:81; proxy_pass $up;", &[]),
        ],
    );
    check(
        in_http,
        &[
            (
                "upstream app { server localhost; }
                 server { location / { set $up http://app; proxy_pass $up; } }",
                &[],
            ),
            (
                "server { location /a { proxy_pass http://localhost:81; }
                     location / { proxy_pass http://localhost:81$request_uri; } }",
                &[],
            ),
            (
                "server { server_name a; set $up http://app.test; resolver 127.0.0.1;
                     location / { proxy_pass $up; } }
                 server { set $up http://127.0.0.1; location / { proxy_pass $up; } }",
                &[],
            ),
            (
                "server { set $up http://app.test;
                     location / { set $up http://127.0.0.1; proxy_pass $up; } }",
                &[],
            ),
            ("server { set $up http://app.test; location / { proxy_pass $up; } }", missing),
            (
                "server { resolver 127.0.0.1;
                     location / { set $up http://app.test; proxy_pass $up; } }",
                &[],
            ),
        ],
    );
}

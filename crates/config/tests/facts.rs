//! What a configuration means: text in, facts of the model out.
#![allow(clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use wssgate_config::load;
use wssgate_config::load::LoadOptions;
use wssgate_config::model::*;
use wssgate_config::template::{Part, Template};
use wssgate_config::variable::{Builtin, Variable};

fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match name {
        "one" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
        "two" => Ok(vec![
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([127, 0, 0, 2], port)),
        ]),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn config(text: &str) -> Config {
    let options = LoadOptions { resolve, ..LoadOptions::text(text) };
    match load(&options) {
        Ok(loaded) => loaded.config,
        Err(failed) => panic!("{}", failed.report.render(&failed.sources, false)),
    }
}

fn http(text: &str) -> Http {
    config(&format!("events {{}} http {{ {text} }}")).http.unwrap()
}

fn server(text: &str) -> Http {
    http(&format!("server {{ {text} }}"))
}

/// The location written `/…` or `@…` on the outermost level of the first server.
fn location<'h>(http: &'h Http, name: &str) -> &'h Location {
    nested(http, &http.servers[0].locations, name)
}

fn nested<'h>(http: &'h Http, locations: &Locations, name: &str) -> &'h Location {
    let (_, id) = locations.prefixes.iter().find(|(path, _)| **path == *name.as_bytes()).unwrap();
    &http.locations[id.0]
}

/// A template as it would be written.
fn text(http: &Http, template: &Template) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Part::Variable(id) => format!("${{{}}}", http.variables.slot(*id).name),
        Part::Capture(group) => format!("${group}"),
    };
    template.parts().iter().map(part).collect()
}

fn fixed(content: &Content) -> &FixedPass {
    match content {
        Content::Proxy(ProxyPass::Fixed(pass)) => pass,
        other => panic!("{other:?}"),
    }
}

fn redirects(http: &Http, location: &Location) -> Vec<String> {
    let rule = |rule: &ProxyRedirect| match rule {
        ProxyRedirect::Prefix { from, to } => format!("{} > {}", text(http, from), text(http, to)),
        ProxyRedirect::Regex { from, to } => format!("~{} > {}", from.source(), text(http, to)),
    };
    location.proxy.redirects.iter().map(rule).collect()
}

#[test]
fn the_innermost_level_that_says_it_decides() {
    let http = http(
        "send_timeout 1s; proxy_read_timeout 1s; server { send_timeout 2s; \
         location /a { send_timeout 3s; location /a/b { } } location /c { } } server { }",
    );
    let a = location(&http, "/a");
    let seconds = |location: &Location| location.settings.send_timeout.as_secs();
    assert_eq!(seconds(a), 3);
    assert_eq!(seconds(nested(&http, &a.locations, "/a/b")), 3);
    assert_eq!(seconds(location(&http, "/c")), 2);
    assert_eq!(seconds(&http.locations[http.servers[1].location.0]), 1);
    assert_eq!(a.proxy.read_timeout, Duration::from_secs(1));
    assert_eq!(a.proxy.connect_timeout, Duration::from_secs(60));
}

#[test]
fn the_event_method_is_the_best_one_unless_it_is_named() {
    let method = |events: &str| config(&format!("events {{ {events} }}")).core.event_method;
    assert_eq!(method(""), EventMethod::Best);
    assert_eq!(method("use poll;"), EventMethod::Best);
    assert_eq!(method("use epoll;"), EventMethod::Epoll);
    assert_eq!(method("use io_uring;"), EventMethod::IoUring);
}

#[test]
fn a_tcp_user_timeout_is_a_time_or_off() {
    let http = http(
        "websocket_tcp_user_timeout 30s; server { location /a { } location /b { \
         websocket_tcp_user_timeout off; } location /c { websocket_tcp_user_timeout 1500ms; } }",
    );
    let timeout = |name| location(&http, name).proxy.websocket_tcp_user_timeout;
    assert_eq!(timeout("/a"), Some(Duration::from_secs(30)));
    assert_eq!(timeout("/b"), None);
    assert_eq!(timeout("/c"), Some(Duration::from_millis(1_500)));
    let by_default = server("location / { }");
    assert_eq!(location(&by_default, "/").proxy.websocket_tcp_user_timeout, None);
}

#[test]
fn lists_are_replaced_as_a_whole() {
    let http = http(
        "proxy_set_header A 1; add_header X 1; error_page 404 /h; deny all; access_log /h; \
         server { location /own { proxy_set_header B 2; add_header Y 2; error_page 500 /l; \
         allow all; access_log off; } location /none { } }",
    );
    let (own, none) = (location(&http, "/own"), location(&http, "/none"));
    let set = |location: &Location| {
        location.proxy.set_headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((set(own), set(none)), (vec![(*b"B").into()], vec![(*b"A").into()]));
    let added = |location: &Location| {
        location.settings.add_headers.iter().map(|add| add.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((added(own), added(none)), (vec![(*b"Y").into()], vec![(*b"X").into()]));
    assert_eq!(own.settings.error_pages[0].statuses, [500]);
    assert_eq!(none.settings.error_pages[0].statuses, [404]);
    let all = |allow| AccessRule { allow, who: AccessFrom::All };
    assert_eq!(
        (&own.settings.access[..], &none.settings.access[..]),
        (&[all(true)][..], &[all(false)][..])
    );
    assert!(own.settings.access_logs.is_empty());
    assert_eq!(none.settings.access_logs.len(), 1);
}

#[test]
fn fields_can_be_merged_or_dropped() {
    let http = http(
        "add_header X 1; server { location /merge { add_header_inherit merge; add_header Y 2; } \
         location /off { add_header_inherit off; } }",
    );
    let names = |location: &Location| location.settings.add_headers.len();
    assert_eq!((names(location(&http, "/merge")), names(location(&http, "/off"))), (2, 0));
}

#[test]
fn an_upstream_may_stand_behind_its_use_and_names_become_all_their_addresses() {
    let http = http(
        "server { location / { proxy_pass http://app; } location /i { proxy_pass https://two:8443/x; } \
         location /j { proxy_pass http://one; } location /k { proxy_pass http://ONE:80; } } \
         upstream app { server two:9000 weight=3; server 127.0.0.9 down; server unix:/s backup; }",
    );
    let app = fixed(&location(&http, "/").content);
    assert_eq!(&*app.host, b"app");
    let group = &http.upstreams[app.upstream.0];
    assert!(group.explicit && group.keepalive == 32);
    let counts: Vec<_> =
        group.servers.iter().map(|server| (server.addresses.len(), server.weight)).collect();
    assert_eq!(counts, [(2, 3), (1, 1), (1, 1)]);
    assert_eq!(group.servers[1].addresses, [ListenAddr::Ip(([127, 0, 0, 9], 80).into())]);
    assert_eq!(group.servers[2].addresses, [ListenAddr::Unix("/s".into())]);
    let implicit = fixed(&location(&http, "/i").content);
    assert!(implicit.tls);
    assert_eq!((&*implicit.host, &*implicit.port), (&b"two:8443"[..], &b"8443"[..]));
    assert_eq!(implicit.uri.as_deref(), Some(&b"/x"[..]));
    assert_eq!(&*implicit.location_prefix, b"/i");
    let group = &http.upstreams[implicit.upstream.0];
    assert!(!group.explicit && group.keepalive == 0);
    let same = [location(&http, "/j"), location(&http, "/k")]
        .map(|location| fixed(&location.content).upstream);
    assert_eq!(same[0], same[1]);
}

#[test]
fn an_empty_certificate_undoes_the_outer_one() {
    let http = server(
        "proxy_ssl_certificate c; proxy_ssl_certificate_key k; location /a { proxy_pass https://one; } \
         location /b { proxy_ssl_certificate ''; proxy_pass https://one; }",
    );
    let certificate = |name| location(&http, name).proxy.tls.certificate.is_some();
    assert!(certificate("/a") && !certificate("/b"));
}

#[test]
fn a_unix_upstream_has_a_path_and_a_uri() {
    let http = server("location /a { proxy_pass http://unix:/run/x:/uri; }");
    let pass = fixed(&location(&http, "/a").content);
    assert_eq!((&*pass.host, &*pass.port), (&b"localhost"[..], &b""[..]));
    assert_eq!(pass.uri.as_deref(), Some(&b"/uri"[..]));
    let group = &http.upstreams[pass.upstream.0];
    assert_eq!(group.servers[0].addresses, [ListenAddr::Unix("/run/x".into())]);
}

#[test]
fn redirects_default_to_the_url_of_proxy_pass() {
    let http = server(
        "location /plain/ { proxy_pass http://one:81; } location /uri/ { proxy_pass http://one:81/x/; } \
         location /off { proxy_pass http://one; proxy_redirect off; } \
         location /own { proxy_pass http://one; proxy_redirect default; proxy_redirect ~^/(x) /y/$1; } \
         location /variable { proxy_pass http://$host; } \
         location /if { proxy_pass http://one; if ($uri) { proxy_pass http://two; } }",
    );
    let of = |name| redirects(&http, location(&http, name));
    assert_eq!(of("/plain/"), ["http://one:81/ > /"]);
    assert_eq!(of("/uri/"), ["http://one:81/x/ > /uri/"]);
    assert!(of("/off").is_empty() && of("/variable").is_empty());
    assert_eq!(of("/own"), ["http://one/ > /", "~^/(x) > /y/$1"]);
    let RewriteOp::If { location: Some(id), .. } = &location(&http, "/if").rewrite[0] else {
        panic!("an if with a location");
    };
    assert_eq!(redirects(&http, &http.locations[id.0]), ["http://one/ > /"]);
}

#[test]
fn if_and_limit_except_pass_on_what_their_location_passes_on() {
    let http = server(
        "location /a { proxy_pass http://one/x; proxy_set_header A b; \
         if ($http_upgrade) { add_header U 1; } limit_except GET { deny all; } location /a/b { } }",
    );
    let a = location(&http, "/a");
    let RewriteOp::If { condition: Condition::True(variable), location: Some(inner), .. } =
        &a.rewrite[0]
    else {
        panic!("an if");
    };
    let upgrade = Variable::RequestHeader(b"upgrade".as_slice().into());
    assert_eq!(http.variables.slot(*variable).meaning, upgrade);
    let inner = &http.locations[inner.0];
    assert_eq!(inner.kind, LocationKind::Unnamed);
    assert_eq!(fixed(&inner.content).uri.as_deref(), Some(&b"/x"[..]));
    assert_eq!(inner.proxy.set_headers.len(), 1);
    let (methods, limited) = a.limit_except.as_ref().unwrap();
    assert_eq!(methods.len(), 2, "GET brings HEAD");
    let limited = &http.locations[limited.0];
    assert!(matches!(limited.content, Content::Proxy(_)));
    assert_eq!(limited.settings.access.len(), 1);
    assert!(matches!(nested(&http, &a.locations, "/a/b").content, Content::Files));
}

#[test]
fn locations_are_sorted_by_kind() {
    let http = server(
        "location /b { } location / { } location = /x { } location ~* \\.PHP$ { } location @n { } \
         location ^~ /f/ { proxy_pass http://one; } location /g/ { proxy_pass http://one; } \
         location =/y { } location ~z { }",
    );
    let server = &http.servers[0];
    let names: Vec<_> =
        server.locations.prefixes.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["/", "/b", "/f/", "/g/"]);
    assert!(
        server.locations.exact.contains_key(&b"/x"[..])
            && server.locations.exact.contains_key(&b"/y"[..])
    );
    let regexes: Vec<_> =
        server.locations.regexes.iter().map(|(regex, _)| regex.source()).collect();
    assert_eq!(regexes, ["\\.PHP$", "z"]);
    assert!(server.locations.regexes[0].0.captures(b"/a.php").is_some());
    assert!(server.named_locations.contains_key(&b"@n"[..]));
    assert_eq!(location(&http, "/f/").kind, LocationKind::PrefixFinal);
    assert!(location(&http, "/g/").auto_redirect && !location(&http, "/b").auto_redirect);
}

#[test]
fn listens_are_merged_by_address() {
    let http = http(
        "server { listen 80; server_name a; } server { listen *:80 default_server; server_name b .c.d e.*; } \
         server { listen 127.0.0.1:80; server_name f; } server { listen 127.0.0.2:80 backlog=7; } \
         server { listen [::1]:80; } server { listen unix:/tmp/s; } \
         server { listen 90-92; }",
    );
    let addresses: Vec<_> =
        http.sockets.iter().map(|socket| (socket.address.clone(), socket.routes.len())).collect();
    let ip = |text: &str| ListenAddr::Ip(text.parse().unwrap());
    assert_eq!(
        addresses,
        [
            (ip("0.0.0.0:80"), 2),
            (ip("127.0.0.2:80"), 1),
            (ip("[::1]:80"), 1),
            (ListenAddr::Unix("/tmp/s".into()), 1),
            (ip("0.0.0.0:90"), 1),
            (ip("0.0.0.0:91"), 1),
            (ip("0.0.0.0:92"), 1),
        ]
    );
    let wildcard = &http.sockets[0];
    assert_eq!(wildcard.routes[0].address, ip("127.0.0.1:80"));
    let any = &wildcard.routes[1];
    assert_eq!(any.default_server, ServerId(1));
    let find = |name: &str| any.names.find(name.as_bytes()).map(|(server, _)| server.0);
    assert_eq!(
        [find("a"), find("x.c.d"), find("c.d"), find("e.org"), find("f")],
        [Some(0), Some(1), Some(1), Some(1), None]
    );
    assert_eq!(http.sockets[1].options.backlog, Some(7));
}

#[test]
fn rewrites_are_taken_apart() {
    let http = server(
        "rewrite ^/a(.*)$ /b$1?x=1 last; rewrite ^ /c?; rewrite ^ https://$host/ break; \
         rewrite ^ /d?y permanent; return 444; return http://x; set $v a$uri; break;",
    );
    let ops = &http.servers[0].rewrite;
    let rewrites: Vec<_> = ops
        .iter()
        .filter_map(|op| match op {
            RewriteOp::Rewrite(rewrite) => Some((
                text(&http, &rewrite.replacement),
                rewrite.args.as_ref().map(|args| text(&http, args)),
                rewrite.append_args,
                rewrite.flag,
            )),
            _ => None,
        })
        .collect();
    assert_eq!(
        rewrites,
        [
            ("/b$1".into(), Some("x=1".into()), true, RewriteFlag::Last),
            ("/c".into(), None, false, RewriteFlag::None),
            ("https://${host}/".into(), None, true, RewriteFlag::Redirect),
            ("/d?y".into(), None, true, RewriteFlag::Permanent),
        ]
    );
    let RewriteOp::Return(closing) = &ops[4] else { panic!("return") };
    assert!(closing.status == 444 && closing.text.is_none());
    let RewriteOp::Return(redirect) = &ops[5] else { panic!("return") };
    assert_eq!(
        (redirect.status, text(&http, redirect.text.as_ref().unwrap())),
        (302, "http://x".into())
    );
    assert!(matches!(&ops[6], RewriteOp::Set { value, .. } if text(&http, value) == "a${uri}"));
    assert!(matches!(ops[7], RewriteOp::Break));
}

#[test]
fn maps_know_every_kind_of_key() {
    let http = http(
        "map $http_host $m { hostnames; default d$uri; a.b 1; *.c 2; e.* 3; ~*^x(?<rest>.*)$ $rest; \\default 5; } \
         server { return 200 $m; }",
    );
    let MapKind::Map { table, default, hostnames, .. } = &http.maps[0].kind else {
        panic!("a map")
    };
    assert!(*hostnames);
    assert_eq!(text(&http, default), "d${uri}");
    let find = |key: &str| table.find(key.as_bytes()).map(|(value, _)| text(&http, value));
    assert_eq!(find("a.b").as_deref(), Some("1"));
    assert_eq!(find("z.c").as_deref(), Some("2"));
    assert_eq!(find("e.f").as_deref(), Some("3"));
    assert_eq!(find("XYZ").as_deref(), Some("${rest}"));
    assert_eq!(find("default").as_deref(), Some("5"));
    assert_eq!(find("nothing"), None);
    let id = http.variables.find("m").unwrap();
    assert_eq!(http.variables.slot(id).meaning, Variable::Map(MapId(0)));
}

#[test]
fn split_clients_and_geo_are_maps_too() {
    let http = http(
        "split_clients $remote_addr $s { 25% a; 0.5% b; * c; } \
         geo $g { default none; 10.0.0.0/8 ten; 10.1.0.0/16 more; 10.0.0.0/8 again; }",
    );
    let MapKind::SplitClients { parts, .. } = &http.maps[0].kind else { panic!("split_clients") };
    let bounds: Vec<_> = parts.iter().map(|(bound, _)| *bound).collect();
    assert_eq!(bounds, [u32::MAX / 4, 1_095_216_660, u32::MAX]);
    let MapKind::Geo { source, networks, default, .. } = &http.maps[1].kind else { panic!("geo") };
    assert_eq!(text(&http, source), "${remote_addr}");
    assert_eq!(&**default, b"none");
    assert_eq!(networks.len(), 2);
    assert_eq!(&*networks[0].2, b"again");
}

#[test]
fn files_are_found_below_their_directory() {
    let http = server(
        "root site/; location /a { alias /x/; } location /b { root $host/y; } \
         location /t { try_files $uri $uri/ @f; } location /i { index a $host/b; types { text/x X Y; } } \
         ssl_certificate c; ssl_certificate_key k;",
    );
    let root = |name| {
        let root = &location(&http, name).settings.root;
        (
            text(&http, &root.path),
            root.alias,
            String::from_utf8_lossy(&root.alias_prefix).into_owned(),
        )
    };
    assert_eq!(root("/t"), ("/usr/share/nginx/site".into(), false, "".into()));
    assert_eq!(root("/a"), ("/x/".into(), true, "/a".into()));
    assert_eq!(root("/b"), ("${host}/y".into(), false, "".into()));
    let files = location(&http, "/t").settings.try_files.as_ref().unwrap();
    let candidates: Vec<_> =
        files.candidates.iter().map(|file| (text(&http, &file.path), file.directory)).collect();
    assert_eq!(candidates, [("${uri}".into(), false), ("${uri}".into(), true)]);
    assert!(matches!(&files.fallback, TryFallback::Uri(uri) if text(&http, uri) == "@f"));
    let types = &location(&http, "/i").settings.types;
    assert_eq!(types.len(), 2);
    assert_eq!(types.get(&b"x"[..]).map(|mime| &**mime), Some(&b"text/x"[..]));
    assert_eq!(
        location(&http, "/t").settings.types.get(&b"html"[..]).map(|mime| &**mime),
        Some(&b"text/html"[..])
    );
}

#[test]
fn the_main_level_has_nginx_s_defaults() {
    let core = config("events {}").core;
    assert_eq!(core.worker_processes, Some(1));
    assert_eq!(core.worker_connections, 512);
    assert_eq!(core.pid.unwrap().to_str(), Some("/run/nginx.pid"));
    assert_eq!(core.error_logs, [ErrorLog { target: LogTarget::Stderr, level: LogLevel::Error }]);
    assert!(core.daemon && core.user.is_none());
    let core = config(
        "events {} worker_processes auto; pid off; user www; error_log e info; error_log stderr;",
    )
    .core;
    assert_eq!((core.worker_processes, core.pid), (None, None));
    assert_eq!(core.user.unwrap().value, User { name: "www".into(), group: "www".into() });
    let target = LogTarget::File("/usr/share/nginx/e".into());
    assert_eq!(core.error_logs[0], ErrorLog { target, level: LogLevel::Info });
    assert_eq!(core.error_logs.len(), 2);
}

#[test]
fn the_admin_socket_is_beside_the_pid_file_unless_it_is_said() {
    for (text, expected) in [
        ("", Some(("/run/nginx.admin.sock", 0o600, true))),
        ("pid /run/a/b.pid;", Some(("/run/a/b.admin.sock", 0o600, true))),
        ("pid /run/b;", Some(("/run/b.admin.sock", 0o600, true))),
        ("pid off;", None),
        ("admin off;", None),
        ("pid off; admin unix:/run/x;", Some(("/run/x", 0o600, false))),
        ("admin unix:x mode=0660;", Some(("/usr/share/nginx/x", 0o660, false))),
    ] {
        let admin = config(&format!("events {{}} {text}")).core.admin;
        let found = admin.as_ref().map(|it| (it.path.to_str().unwrap(), it.mode, it.is_default));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn logs_have_a_format_and_a_place() {
    let http = server(
        "access_log /a; access_log /b own if=$uri buffer=8k flush=5s; access_log /c/$host.log own; \
         access_log syslog:server=127.0.0.1:514,facility=user,tag=t own; access_log /z OWN gzip; \
         open_log_file_cache max=9 valid=1m; error_log /e warn; } \
         log_format own escape=json '$status ' '$uri'; server {",
    );
    let settings = &http.locations[http.servers[0].location.0].settings;
    let logs = &settings.access_logs;
    assert_eq!(logs[0].format, LogFormatId(0), "`combined` is the first");
    let own = &http.log_formats[logs[1].format.0];
    assert_eq!((text(&http, &own.line), own.escape), ("${status} ${uri}".into(), LogEscape::Json));
    assert!(logs[1].condition.is_some());
    let flush = Some(Duration::from_secs(5));
    assert_eq!(logs[1].buffering, Some(Buffering { capacity: 8192, flush, gzip: None }));
    assert_eq!(logs[4].format, logs[1].format, "names are compared without regard to case");
    let gzip = Buffering { capacity: 65536, flush: None, gzip: Some(1) };
    assert_eq!((logs[0].buffering, logs[4].buffering), (None, Some(gzip)));
    let cache = settings.open_log_file_cache.as_ref().unwrap();
    assert_eq!((cache.max, cache.min_uses, cache.inactive.as_secs()), (9, 1, 10));
    assert!(
        matches!(&logs[2].target, AccessLogTarget::Variable(path) if text(&http, path) == "/c/${host}.log")
    );
    let AccessLogTarget::Fixed(LogTarget::Syslog(syslog)) = &logs[3].target else {
        panic!("syslog")
    };
    assert_eq!((syslog.facility, syslog.severity, &*syslog.tag), (1, 6, "t"));
    assert_eq!(settings.error_logs[0].level, LogLevel::Warn);
}

#[test]
fn a_variable_has_one_slot_whatever_its_case() {
    let http = server("return 200 $HOST$host${Host}$Arg_X$arg_x;");
    let id = http.variables.find("host").unwrap();
    assert_eq!(http.variables.slot(id).meaning, Variable::Builtin(Builtin::Host));
    let RewriteOp::Return(answer) = &http.servers[0].rewrite[0] else { panic!("return") };
    assert_eq!(text(&http, answer.text.as_ref().unwrap()), "${host}${host}${host}${arg_x}${arg_x}");
}

#[test]
fn the_command_line_adds_directives_and_a_place_for_errors() {
    let mut options = LoadOptions::text("events {} error_log /x;");
    options.globals = Some("daemon off; worker_processes 3;".into());
    options.error_log = Some("early.log".into());
    let core = load(&options).unwrap().config.core;
    assert!(!core.daemon);
    assert_eq!(core.worker_processes, Some(3));
    assert_eq!(core.error_logs[0].target, LogTarget::File("/x".into()));
    let mut options = LoadOptions::text("events {}");
    options.error_log = Some("early.log".into());
    let core = load(&options).unwrap().config.core;
    assert_eq!(core.error_logs[0].target, LogTarget::File("/usr/share/nginx/early.log".into()));
}

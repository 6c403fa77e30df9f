//! What clients see of ordinary HTTP: every answer byte for byte as nginx gives it.
//!
//! The expected bytes were compared with a real nginx; only its version differs.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, End, Instance, Pki};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server with these directives and a few files.
fn serve(server: &str) -> Instance {
    Instance::setup(EXE)
        .http(&format!("root %%DIR%%/html; types {{ text/html html; text/plain txt; }} {server}"))
        .file("html/a.html", "<a>\n")
        .file("html/b.txt", "0123456789")
        .file("html/sub/index.html", "sub index")
        .file("html/empty/x.txt", "x")
        .start()
}

/// Sends bytes and gives all that comes until the end, with the times taken out.
fn ask(server: &Instance, request: impl AsRef<[u8]>) -> String {
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(request);
    let (bytes, end) = client.recv_to_end();
    assert_eq!(end, End::Eof);
    without_times(&bytes)
}

fn without_times(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split_inclusive("\r\n").map(|line| match line.split_once(": ") {
        Some((name @ ("Date" | "Last-Modified" | "Expires" | "ETag"), _)) => {
            format!("{name}: -\r\n")
        }
        _ => line.to_owned(),
    });
    lines.collect()
}

/// A GET on a connection that ends with it.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// The status line and everything behind the head.
fn brief(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let line = head.lines().next().unwrap_or_default();
    (line.trim_start_matches("HTTP/1.1 ").to_owned(), body.to_owned())
}

fn field(answer: &str, name: &str) -> Option<String> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
}

/// A built-in page as it stands on the wire.
fn page(line: &str, title: &str, body: &str, fields: &str) -> String {
    let body = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n{body}\
         <hr><center>nginx/1.31.5</center>\r\n</body>\r\n</html>\r\n"
    );
    format!(
        "HTTP/1.1 {line}\r\nServer: nginx/1.31.5\r\nDate: -\r\nContent-Type: text/html\r\n\
         Content-Length: {}\r\n{fields}Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn simple_page(line: &str, title: &str, fields: &str) -> String {
    page(line, title, &format!("<center><h1>{title}</h1></center>\r\n"), fields)
}

#[test]
fn broken_heads_are_answered_with_the_pages_of_nginx() {
    let server = serve("server { listen %%LISTEN_0%%; location / { return 200 ok; } }");
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000));
    let long_field = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(9000));
    let bad = "400 Bad Request";
    for (request, expected) in [
        ("get / HTTP/1.1\r\n\r\n", simple_page(bad, bad, "")),
        ("GET / HTTP/1.1\r\n\r\n", simple_page(bad, bad, "")),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", simple_page(bad, bad, "")),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", simple_page(bad, bad, "")),
        ("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", simple_page(bad, bad, "")),
        ("GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", simple_page(bad, bad, "")),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            simple_page(bad, bad, ""),
        ),
        (&long_path, simple_page("414 Request-URI Too Large", "414 Request-URI Too Large", "")),
        (
            &long_field,
            page(
                bad,
                "400 Request Header Or Cookie Too Large",
                "<center><h1>400 Bad Request</h1></center>\r\n\
                 <center>Request Header Or Cookie Too Large</center>\r\n",
                "",
            ),
        ),
        (
            "GET / HTTP/2.0\r\n\r\n",
            simple_page("505 HTTP Version Not Supported", "505 HTTP Version Not Supported", ""),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            simple_page("501 Not Implemented", "501 Not Implemented", ""),
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            simple_page("405 Not Allowed", "405 Not Allowed", ""),
        ),
    ] {
        assert_eq!(ask(&server, request), expected, "{request:.60}");
    }
}

#[test]
fn answers_without_files_are_those_of_nginx() {
    let server = serve(
        "server { listen %%LISTEN_0%%; server_name localhost; absolute_redirect off;
             location /text { return 200 \"hello\\n\"; }
             location /none { return 204; }
             location /moved { return 301 /a?b; }
             location /out { return 302 http://x/; }
             location /nope { return 404 no; }
             location /odd { return 599; }
             location /plain { server_tokens off; return 403; }
             location /hdr { add_header A a; add_header B b always; return 200 x; }
             location /hdr4 { add_header A a; add_header B b always; return 404; }
             location /expires { expires max; return 200 x; }
             location /gone { return 444; } }",
    );
    let plain = |line: &str, body: &str, fields: &str, more: &str| {
        let len = body.len();
        format!(
            "HTTP/1.1 {line}\r\nServer: nginx/1.31.5\r\nDate: -\r\nContent-Type: text/plain\r\n\
             Content-Length: {len}\r\n{fields}Connection: close\r\n{more}\r\n{body}"
        )
    };
    for (path, expected) in [
        ("/text", plain("200 OK", "hello\n", "", "")),
        (
            "/none",
            "HTTP/1.1 204 No Content\r\nServer: nginx/1.31.5\r\nDate: -\r\nConnection: close\r\n\r\n"
                .to_owned(),
        ),
        (
            "/moved",
            simple_page("301 Moved Permanently", "301 Moved Permanently", "")
                .replace("close\r\n", "close\r\nLocation: /a?b\r\n"),
        ),
        (
            "/out",
            simple_page("302 Moved Temporarily", "302 Found", "")
                .replace("close\r\n", "close\r\nLocation: http://x/\r\n"),
        ),
        ("/nope", plain("404 Not Found", "no", "", "")),
        (
            "/odd",
            "HTTP/1.1 599 \r\nServer: nginx/1.31.5\r\nDate: -\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
                .to_owned(),
        ),
        (
            "/plain",
            simple_page("403 Forbidden", "403 Forbidden", "")
                .replace("nginx/1.31.5", "nginx")
                .replace("Content-Length: 153", "Content-Length: 146"),
        ),
        ("/hdr", plain("200 OK", "x", "", "A: a\r\nB: b\r\n")),
        (
            "/hdr4",
            simple_page("404 Not Found", "404 Not Found", "")
                .replace("close\r\n", "close\r\nB: b\r\n"),
        ),
        (
            "/expires",
            plain("200 OK", "x", "", "Expires: -\r\nCache-Control: max-age=315360000\r\n"),
        ),
        ("/gone", String::new()),
    ] {
        assert_eq!(ask(&server, get(path)), expected, "{path}");
    }
}

#[test]
fn one_packet_may_hold_several_requests() {
    let server = serve("server { listen %%LISTEN_0%%; location / { return 200 $uri:$pipe; } }");
    let kept = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answers = ask(&server, kept("/1") + &kept("/2") + &get("/3"));
    let bodies: Vec<_> = answers.split("\r\n\r\n").skip(1).map(|rest| &rest[..4]).collect();
    assert_eq!(bodies, ["/1:.", "/2:p", "/3:p"]);
    assert_eq!(answers.matches("Connection: keep-alive\r\n").count(), 2);
    assert!(answers.contains("Connection: close\r\n"));
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let server = serve("server { listen %%LISTEN_0%%; location / { return 200 ok; } }");
    let mut client = Conn::connect(server.listen(0));
    for byte in get("/").bytes() {
        client.send_raw([byte]);
    }
    let (bytes, _) = client.recv_to_end();
    assert_eq!(brief(&without_times(&bytes)), ("200 OK".into(), "ok".into()));
}

#[test]
fn old_versions_get_what_they_understand() {
    let server =
        serve("server { listen %%LISTEN_0%%; location / { add_trailer T t; return 200 ok; } }");
    for (request, connection, encoding) in [
        ("GET / HTTP/1.0\r\n\r\n", "close", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close", Some("chunked")),
    ] {
        let answer = ask(&server, request);
        assert_eq!(field(&answer, "Connection").as_deref(), Some(connection));
        assert_eq!(field(&answer, "Transfer-Encoding").as_deref(), encoding, "{request}");
    }
    assert_eq!(ask(&server, "GET /\r\n"), "ok");
    assert_eq!(
        ask(&server, get("/")).split_once("\r\n\r\n").unwrap().1,
        "2\r\nok\r\n0\r\nT: t\r\n\r\n"
    );
}

/// The end of a body must stay one, whatever a variable puts behind it.
#[test]
fn a_trailer_that_would_break_the_body_is_left_out() {
    let server = serve(
        "server { listen %%LISTEN_0%%; location / { add_trailer A $arg_a; add_trailer U $uri; return 200 ok; } }",
    );
    let answer = ask(&server, "GET /x%0ay?a=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\n2\r\nok\r\n0\r\nA: 1\r\n\r\n"), "{answer:?}");
    server.wait_for_log("invalid response trailer \"U\" left out");
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let server = serve("server { listen %%LISTEN_0%%; location /r { return 200 text; } }");
    for path in ["/r", "/a.html", "/nope", "/sub"] {
        let whole = ask(&server, get(path));
        let head = ask(&server, get(path).replacen("GET", "HEAD", 1));
        assert_eq!(head, whole[..whole.find("\r\n\r\n").unwrap() + 4], "{path}");
    }
}

#[test]
fn bodies_nobody_wants_do_not_put_the_connection_out_of_step() {
    let server = serve(
        "server { listen %%LISTEN_0%%; client_max_body_size 20; lingering_timeout 100ms;
             location / { return 200 $uri; } }",
    );
    let post = |fields: &str| format!("POST /1 HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for (first, statuses) in [
        (post("Content-Length: 5\r\n") + "GET /", &["200 OK", "200 OK"][..]),
        (post("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", &["200 OK", "200 OK"]),
        (post("Transfer-Encoding: chunked\r\n") + "5x\r\nhello\r\n0\r\n\r\n", &["400 Bad Request"]),
        (post("Content-Length: 21\r\n"), &["413 Request Entity Too Large"]),
    ] {
        let answers = ask(&server, first.clone() + &get("/2"));
        let found: Vec<_> = answers
            .lines()
            .filter_map(|line| line.split_once("HTTP/1.1 "))
            .map(|(_, status)| status)
            .collect();
        assert_eq!(found, statuses, "{first}");
    }
}

#[test]
fn a_client_that_waits_to_send_its_body_is_told_to_go_on() {
    let server = serve(
        "server { listen %%LISTEN_0%%; client_max_body_size 20; location / { return 200 ok; } }",
    );
    let post = |len: u32| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let answer = ask(&server, post(5) + "hello");
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(ask(&server, post(21)).starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_body_that_is_too_long_has_its_error_page() {
    let server = serve(
        "server { listen %%LISTEN_0%%; client_max_body_size 4; error_page 413 /page;
             location /page { return 200 page:$request_method; } }",
    );
    let length = "Connection: close\r\nContent-Length: 5";
    for (fields, body) in [(length, "hello"), ("Expect: 100-continue\r\nContent-Length: 5", "")] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
        let (line, text) = brief(&ask(&server, request));
        assert_eq!((&*line, &*text), ("413 Request Entity Too Large", "page:GET"), "{fields}");
    }
}

#[test]
fn error_pages_are_whole_whatever_was_asked_of_the_file() {
    let server = serve("server { listen %%LISTEN_0%%; error_page 404 /b.txt; }");
    for condition in ["Range: bytes=0-1", "If-None-Match: *", "If-Match: \"x\""] {
        let request =
            format!("GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{condition}\r\n\r\n");
        let answer = ask(&server, request);
        let (line, text) = brief(&answer);
        assert_eq!((&*line, &*text), ("404 Not Found", "0123456789"), "{condition}");
        assert_eq!(field(&answer, "Accept-Ranges"), None, "{condition}");
    }
}

#[test]
fn error_pages_are_found_and_keep_or_change_the_status() {
    let server = serve(
        "server { listen %%LISTEN_0%%; server_name localhost;
             location /page { return 200 page:$uri; }
             location @named { return 203 named:$uri; }
             location /same { error_page 404 /page; return 404; }
             location /other { error_page 404 =200 /page; return 404; }
             location /of { error_page 404 = /page; return 404; }
             location /named { error_page 502 = @named; return 502; }
             location /url { error_page 500 http://other/; return 500; }
             location /twice { error_page 404 /twice2; return 404; }
             location /twice2 { error_page 405 /page; return 405; }
             location /deep { recursive_error_pages on; error_page 404 /deep2; return 404; }
             location /deep2 { error_page 405 =418 /page; return 405; }
             location /missing { error_page 404 @nobody; return 404; }
             location /tls { error_page 495 497 /page; return 497; }
             location /loop { rewrite ^ /loop last; } }",
    );
    for (path, status, body) in [
        ("/same", "404 Not Found", "page:/page"),
        ("/other", "200 OK", "page:/page"),
        ("/of", "200 OK", "page:/page"),
        ("/named", "203 ", "named:/named"),
        ("/url", "302 Moved Temporarily", ""),
        ("/twice", "405 Not Allowed", ""),
        ("/deep", "418 ", "page:/page"),
        ("/missing", "500 Internal Server Error", ""),
        ("/tls", "400 Bad Request", "page:/page"),
        ("/loop", "500 Internal Server Error", ""),
    ] {
        let (line, text) = brief(&ask(&server, get(path)));
        assert_eq!(line, status, "{path}");
        assert!(text.starts_with(body), "{path}: {text}");
    }
    assert!(
        server
            .error_log()
            .contains("rewrite or internal redirection cycle while processing \"/loop\"")
    );
    assert!(server.error_log().contains("could not find named location \"@nobody\""));
}

#[test]
fn files_are_found_by_path_index_and_try_files() {
    let server = serve(
        "server { listen %%LISTEN_0%%; server_name localhost;
             location /alias/ { alias %%DIR%%/html/sub/; }
             location /try { try_files $uri /b.txt =404; }
             location /fall { try_files /x @named; }
             location @named { return 200 named; }
             location /int { internal; }
             location /deny { deny all; }
             location /low { limit_except GET { deny all; } return 200 ok; } }",
    );
    for (request, status, body) in [
        (get("/b.txt"), "200 OK", "0123456789"),
        (get("/%62.txt?x"), "200 OK", "0123456789"),
        (get("/sub/"), "200 OK", "sub index"),
        (get("/alias/index.html"), "200 OK", "sub index"),
        (get("/alias/"), "200 OK", "sub index"),
        (get("/sub?a=b"), "301 Moved Permanently", ""),
        (get("/empty/"), "403 Forbidden", ""),
        (get("/b.txt/x"), "404 Not Found", ""),
        (get("/nowhere/"), "404 Not Found", ""),
        (get("/try"), "200 OK", "0123456789"),
        (get("/fall"), "200 OK", "named"),
        (get("/int"), "404 Not Found", ""),
        (get("/deny"), "403 Forbidden", ""),
        (get("/low"), "200 OK", "ok"),
        (get("/low").replacen("GET", "PUT", 1), "403 Forbidden", ""),
        (get("/b.txt").replacen("GET", "POST", 1), "405 Not Allowed", ""),
    ] {
        let (line, text) = brief(&ask(&server, &request));
        assert_eq!(line, status, "{request}");
        assert!(text.starts_with(body), "{request}: {text}");
    }
    let location = field(&ask(&server, get("/sub?a=b")), "Location").unwrap();
    assert_eq!(location, format!("http://localhost:{}/sub/?a=b", server.listen(0).port()));
}

#[test]
fn conditions_and_ranges_of_files_are_honoured() {
    let server = serve("server { listen %%LISTEN_0%%; }");
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(get("/b.txt"));
    let answer = String::from_utf8(client.recv_to_end().0).unwrap();
    let etag = field(&answer, "ETag").unwrap();
    let modified = field(&answer, "Last-Modified").unwrap();
    for (condition, status, body) in [
        ("Range: bytes=2-4".to_owned(), "206 Partial Content", "234"),
        ("Range: bytes=-3".to_owned(), "206 Partial Content", "789"),
        ("Range: bytes=10-".to_owned(), "416 Requested Range Not Satisfiable", "<html>"),
        (format!("If-Range: {etag}\r\nRange: bytes=0-0"), "206 Partial Content", "0"),
        ("If-Range: \"x\"\r\nRange: bytes=0-0".to_owned(), "200 OK", "0123456789"),
        (format!("If-None-Match: {etag}"), "304 Not Modified", ""),
        (format!("If-Modified-Since: {modified}"), "304 Not Modified", ""),
        ("If-None-Match: \"x\"".to_owned(), "200 OK", "0123456789"),
        ("If-Match: \"x\"".to_owned(), "412 Precondition Failed", "<html>"),
    ] {
        let request = get("/b.txt").replace("\r\n\r\n", &format!("\r\n{condition}\r\n\r\n"));
        let (line, text) = brief(&ask(&server, request));
        assert_eq!(line, status, "{condition}");
        assert!(text.starts_with(body), "{condition}: {text}");
    }
}

#[test]
fn the_server_is_chosen_by_name_as_nginx_does() {
    let server = serve(
        "server { listen %%LISTEN_0%%; server_name first; return 200 first; }
         server { listen %%LISTEN_0%%; server_name two.example; return 200 two; }
         server { listen %%LISTEN_0%%; server_name *.example; return 200 head; }
         server { listen %%LISTEN_0%%; server_name www.*; return 200 tail; }
         server { listen %%LISTEN_0%%; server_name \"~^(?<sub>\\w+)\\.rx$\"; return 200 rx:$sub; }",
    );
    for (host, expected) in [
        ("two.example", "two"),
        ("TWO.Example.:81", "two"),
        ("a.b.example", "head"),
        ("www.org", "tail"),
        ("abc.rx", "rx:abc"),
        ("nobody", "first"),
    ] {
        let request = get("/").replace("Host: localhost", &format!("Host: {host}"));
        assert_eq!(brief(&ask(&server, request)).1, expected, "{host}");
    }
    let absolute = get("http://two.example/x");
    assert_eq!(brief(&ask(&server, absolute)).1, "two", "the target wins over Host");
}

#[test]
fn the_location_is_chosen_as_nginx_does() {
    let server = serve(
        "server { listen %%LISTEN_0%%; server_name localhost; absolute_redirect off;
             location / { return 200 root; }
             location = /exact { return 200 exact; }
             location /exact { return 200 prefix; }
             location /long/ { return 200 long; }
             location /long/er/ { return 200 longer; }
             location ^~ /final/ { return 200 final; }
             location ~ \\.php$ { return 200 regex; }
             location ~* \\.PHP { return 200 caseless; }
             location /nest/ {
                 return 200 nest;
                 location /nest/in/ { return 200 inner; }
                 location ~ in\\.txt$ { return 200 inner-regex; }
             }
             location ~ ^/outer/ {
                 location ~ /x { return 200 in-regex; }
             }
             location ~ ^/outer/.*\\.txt$ { return 200 late; }
             location /pass/ { proxy_pass http://127.0.0.1:1; } }",
    );
    for (path, expected) in [
        ("/", "root"),
        ("/exact", "exact"),
        ("/exactly", "prefix"),
        ("/long", "root"),
        ("/long/x", "long"),
        ("/long/er/x", "longer"),
        ("/long/x.php", "regex"),
        ("/long/x.Php5", "caseless"),
        ("/final/x.php", "final"),
        ("/nest/in/x", "inner"),
        ("/nest/in/x.php", "regex"),
        ("/nest/in.txt", "inner-regex"),
        ("/nest/x", "nest"),
        ("/outer/x.txt", "in-regex"),
    ] {
        assert_eq!(brief(&ask(&server, get(path))).1, expected, "{path}");
    }
    let answer = ask(&server, get("/pass?a"));
    assert_eq!(brief(&answer).0, "301 Moved Permanently");
    assert_eq!(field(&answer, "Location").as_deref(), Some("/pass/?a"));
}

#[test]
fn variables_tell_of_request_and_connection() {
    let server = serve(
        "map $arg_m $mapped { default none; a A; ~^b(.) re-$1; }
         server { listen %%LISTEN_0%%; server_name localhost;
             location / { set $own \"$uri$is_args$args\"; return 200 $own; }
             location /m { return 200 $mapped; }
             location ~ ^/re/(?<n>.+)$ { return 200 $n-$1; }
             location /v { return 200 \"$arg_q,$http_x_foo,$cookie_c,$remote_user,$request_method,$scheme,$https,$remote_addr,$http_none,$content_type\"; }
             location /rw { rewrite ^/rw/(.*)$ /v/$1?q=$1 last; } }",
    );
    for (path, expected) in [
        ("/x%20y?a=b", "/x y?a=b"),
        ("/m?m=a", "A"),
        ("/m?m=bz", "re-z"),
        ("/m", "none"),
        ("/re/abc", "abc-abc"),
        ("/v?Q=1", "1,1, 2,3,me,GET,http,,127.0.0.1,,t/p"),
        ("/rw/z", "z,1, 2,3,me,GET,http,,127.0.0.1,,t/p"),
    ] {
        let fields = "\r\nX-Foo: 1\r\nX-Foo: 2\r\nCookie: a=1; c=3\r\nAuthorization: Basic bWU6eA==\r\nContent-Type: t/p\r\n\r\n";
        let request = get(path).replace("\r\n\r\n", fields);
        assert_eq!(brief(&ask(&server, request)).1, expected, "{path}");
    }
}

#[test]
fn every_request_leaves_its_line() {
    let server = serve(
        "log_format t '$request|$status|$body_bytes_sent|$bytes_sent|$request_length|$http_none';
         log_format j escape=json '{\"ua\":\"$http_user_agent\"}';
         map $uri $wanted { default 1; /quiet 0; }
         server { listen %%LISTEN_0%%; access_log %%DIR%%/t.log t if=$wanted; access_log %%DIR%%/j.log j;
             location / { return 200 hello; } location /gone { return 444; } }",
    );
    ask(&server, get("/quiet"));
    ask(&server, get("/").replace("\r\n\r\n", "\r\nUser-Agent: a\"b\\\r\n\r\n"));
    ask(&server, get("/gone"));
    ask(&server, "nonsense\r\n\r\n");
    server.wait_for_line("t.log", "GET / HTTP/1.1|200|5|1");
    server.wait_for_line("t.log", "GET /gone HTTP/1.1|444|0|0|58|-");
    server.wait_for_line("t.log", "nonsense|400|157|");
    server.wait_for_line("j.log", r#"{"ua":"a\"b\\"}"#);
    assert!(!server.read("t.log").contains("quiet"));
}

#[test]
fn a_slow_head_is_given_up_without_an_answer() {
    let server = serve(
        "server { listen %%LISTEN_0%%; client_header_timeout 200ms; location / { return 200 ok; } }",
    );
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("GET / HTTP/1.1\r\nHost:");
    client.expect_eof();
    server.wait_for_access("\"GET / HTTP/1.1\" 408 0");
}

#[test]
fn idle_connections_end_by_time_by_count_and_by_quit() {
    let server = serve(
        "server { listen %%LISTEN_0%%; location / { return 200 ok; }
             location /short { keepalive_timeout 100ms; return 200 ok; }
             location /two { keepalive_requests 2; return 200 ok; } }",
    );
    let kept = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answers = ask(&server, kept("/short"));
    assert!(answers.contains("Connection: keep-alive"));
    let answers = ask(&server, kept("/two") + &kept("/two") + &kept("/two"));
    assert_eq!(answers.matches("200 OK").count(), 2);
    let mut idle = Conn::connect(server.listen(0));
    idle.send_raw(kept("/"));
    server.wait_for_access("\"GET / HTTP/1.1\" 200 2");
    server.signal("QUIT");
    let (bytes, end) = idle.recv_to_end();
    assert!(bytes.ends_with(b"ok"));
    assert_eq!(end, End::Eof);
    assert!(server.wait().success());
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let server = Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%% ssl; ssl_certificate %%CHAIN%%; ssl_certificate_key %%KEY%%;
                 location / { return 200 $scheme:$ssl_protocol; } }",
        )
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .start();
    let title = "400 The plain HTTP request was sent to HTTPS port";
    let body = "<center><h1>400 Bad Request</h1></center>\r\n\
                <center>The plain HTTP request was sent to HTTPS port</center>\r\n";
    assert_eq!(ask(&server, get("/")), page("400 Bad Request", title, body, ""));
    let mut client =
        Conn::try_connect_tls(server.listen(0), pki.client_config(), "localhost").unwrap();
    client.send_raw(get("/"));
    let (bytes, end) = client.recv_to_end();
    assert_eq!(brief(&without_times(&bytes)), ("200 OK".into(), "https:TLSv1.3".into()));
    assert_eq!(end, End::Eof, "over TLS a close_notify comes before the end");
}

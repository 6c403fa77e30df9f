//! What changes bodies on their way: the program and, where there is one, nginx do the same to the same
//! pages.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, End, Instance, NGINX, Upstream, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server with these directives and pages below `html`.
fn serve(exe: &str, server: &str, pages: &[(&str, &str)]) -> Instance {
    let text = format!(
        "root %%DIR%%/html; types {{ text/html html; text/plain txt; }} charset_map A B {{ 58 59; }}
         server {{ listen %%LISTEN_0%%; server_name localhost; {server} }}"
    );
    let mut setup = Instance::setup(exe).http(&text);
    for (name, page) in pages {
        setup = setup.file(&format!("html/{name}"), page);
    }
    setup.start()
}

/// Sends a GET on a connection that ends with it; the head and the body of the answer.
fn get(server: &Instance, path: &str, fields: &str) -> (String, String) {
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{fields}\r\n"));
    let (bytes, end) = client.recv_to_end();
    assert_eq!(end, End::Eof);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_owned(), body.to_owned())
}

#[test]
fn pages_with_includes_are_put_together_as_by_nginx() {
    let pages = [
        ("a.html", "[a<!--#include virtual=\"b.html?x=1\" --><!--#include file=\"c.txt\"-->a]"),
        (
            "b.html",
            "(b <!--#echo var=\"arg_x\" default=\"-\" --><!--#include virtual=\"/d/e.html\" -->)",
        ),
        ("c.txt", "<!--#echo var=\"uri\" -->"),
        (
            "d/e.html",
            "{<!--#echo var=\"uri\" -->|<!--#include virtual=\"f.html\" wait=\"yes\" -->}",
        ),
        ("d/f.html", "f"),
        (
            "echo.html",
            "<!--#set var=\"v\" value=\"<&'\\$x'>\" --><!--#echo var=\"v\" -->\
             <!--#echo var=\"v\" encoding=\"url\" --><!--#echo var=\"v\" encoding=\"none\" -->\
             <!--#echo var=\"no\" --><!--#echo var=\"no\" default=\"\" -->",
        ),
        (
            "if.html",
            "<!--#if expr=\"$arg_a = /^(x)(y)?/\" -->1<!--#echo var=\"1\" -->\
             <!--#elif expr=\"$arg_a\" -->2<!--#if expr=\"$arg_a\" -->!<!--#else -->3<!--#endif -->.",
        ),
        (
            "stub.html",
            "<!--#block name=\"s\" -->S<!--#endblock -->\
             <!--#include virtual=\"/missing\" stub=\"s\" --><!--#include virtual=\"/empty.html\" stub=\"s\" -->\
             <!--#include virtual=\"/d/f.html\" stub=\"s\" --><!--#include virtual=\"/missing.html\" -->",
        ),
        ("set.html", "<!--#include virtual=\"/d/f.html\" set=\"x\" -->-<!--#echo var=\"x\" -->"),
        (
            "bad.html",
            "<!--#config errmsg=\"E\" --><!--#nonsense -->1<!--#echo -->2<!--#echo var=\"a\" var=\"b\"-->3\
             <!--#include -->4<!--#include virtual=\"../a.html\" -->5<!--#echo x=\"y\" -->6<!--#endif -->\
             7<!--#echo var=y -->8<!--#set var=\"q\" value=\"${q\" -->9<!-- # --><!--<!--#echo var=\"host\" -->",
        ),
        ("empty.html", ""),
        ("open.html", "x<!--#echo var=\"host\""),
    ];
    let mut expected = Vec::new();
    for exe in [NGINX, WSSGATE].into_iter().filter(|exe| with_nginx(WSSGATE).any(|one| one == *exe))
    {
        let server = serve(
            exe,
            "ssi on; error_page 404 /404.html; location = /404.html { return 404 gone; }",
            &pages,
        );
        let asked = [
            "/a.html",
            "/echo.html",
            "/if.html",
            "/if.html?a=xyz",
            "/if.html?a=q",
            "/stub.html",
            "/set.html",
            "/bad.html",
            "/empty.html",
            "/open.html",
        ];
        let answers: Vec<_> = asked.iter().map(|path| (*path, get(&server, path, "").1)).collect();
        match expected.is_empty() {
            true => expected = answers,
            false => assert_eq!(answers, expected),
        }
    }
    let a = "[a(b 1{/d/e.html|f})<!--#echo var=\"uri\" -->a]";
    assert_eq!(expected[0].1, a, "no command is executed in a type that is not listed");
}

#[test]
fn a_page_that_includes_itself_ends() {
    for exe in with_nginx(WSSGATE) {
        let page = [("a.html", "a<!--#include virtual=\"/a.html\" -->")];
        let server = serve(exe, "ssi on;", &page);
        let (_, body) = get(&server, "/a.html", "");
        let error = "[an error occurred while processing the directive]";
        assert_eq!(body, format!("{}{error}", "a".repeat(52)), "{exe}");
        server.wait_for_log("subrequests cycle while processing \"/a.html\"");
    }
}

#[test]
fn pages_that_include_themselves_twice_end_after_some_thousands() {
    let include = "<!--#include virtual=\"/a.html\" -->";
    let stub = "<!--#include virtual=\"/empty.html\" stub=\"s\" -->";
    let pages = [
        ("a.html", format!("z{include}{include}")),
        (
            "b.html",
            format!(
                "<!--#config errmsg=\"!\" --><!--#block name=\"s\" -->{stub}t<!--#endblock -->{stub}"
            ),
        ),
        ("empty.html", String::new()),
    ];
    let pages = pages.each_ref().map(|(name, page)| (*name, page.as_str()));
    let server = serve(WSSGATE, "ssi on;", &pages);
    let (_, body) = get(&server, "/a.html", "");
    let made = body.matches('z').count();
    assert!((1000..=5001).contains(&made), "{made} pages");
    server.wait_for_log("too many subrequests while processing \"/a.html\"");
    assert_eq!(server.error_log().matches("subrequests cycle").count(), 1, "told once");
    let (_, body) = get(&server, "/b.html", "");
    assert!(body == format!("!{}", "t".repeat(5000)), "{:.200}", body);
    server.wait_for_log("too many subrequests while processing \"/empty.html\"");
    assert_eq!(
        server.error_log().matches("too many subrequests").count(),
        2,
        "told once for each page"
    );
}

#[test]
fn the_text_of_an_error_is_not_read_for_commands() {
    let error = "z<!--#include virtual='/a.html' -->";
    let page = format!("<!--#config errmsg=\"{error}\" --><!--#include virtual=\"/a.html\" -->");
    for exe in with_nginx(WSSGATE) {
        let server = serve(exe, "ssi on;", &[("a.html", &page)]);
        assert_eq!(get(&server, "/a.html", "").1, error, "{exe}");
    }
}

#[test]
fn variables_and_blocks_of_a_page_take_room_however_short_they_are() {
    let error = "<!--#config errmsg=\"!\" -->";
    let sets = |name: fn(usize) -> String, value: &str| -> String {
        let set = |n| format!("<!--#set var=\"{}\" value=\"{value}\" -->", name(n));
        (0..20_000).map(set).collect()
    };
    let echo = "<!--#echo var=\"v00000\" -->";
    let long = "x".repeat(100);
    let pages = [
        ("many.html", format!("{error}{}{echo}", sets(|n| format!("v{n:05}"), "1"))),
        ("one.html", format!("{error}{}{echo}", sets(|_| "v00000".to_owned(), &long))),
        (
            "blocks.html",
            format!("{error}{}", "<!--#block name=\"b\" -->x<!--#endblock -->".repeat(20_000)),
        ),
    ];
    let pages = pages.each_ref().map(|(name, page)| (*name, page.as_str()));
    let server = serve(WSSGATE, "ssi on; sub_filter Q q;", &pages);
    // A mebibyte; 64 bytes beside names and texts.
    let refused = |len: usize| "!".repeat(20_000 - 1024 * 1024 / (64 + len));
    assert!(get(&server, "/many.html", "").1 == format!("{}1", refused("v000001".len())));
    assert_eq!(get(&server, "/one.html", "").1, long);
    assert!(get(&server, "/blocks.html", "").1 == refused("bx".len()));
    server.wait_for_log("request: \"GET /blocks.html");
    assert_eq!(
        server.error_log().matches("too long variables").count(),
        2,
        "told once for each page"
    );
}

#[test]
fn includes_come_from_upstreams_in_order_and_through_their_own_filters() {
    let upstream = Upstream::http(|request| {
        let body = format!("<!--#echo var=\"uri\" -->{}", "x".repeat(100_000));
        let fields = format!("Content-Type: text/html\r\nX-Seen: {}\r\n", request.method());
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
    });
    let server = serve(
        WSSGATE,
        &format!(
            "ssi on; location /up/ {{ proxy_pass http://{}; }}
             location /raw/ {{ ssi off; proxy_pass http://{}; }}",
            upstream.addr(),
            upstream.addr()
        ),
        &[("a.html", "1<!--#include virtual=\"/up/b\" -->2<!--#include virtual=\"/raw/c\" -->3")],
    );
    let (head, body) = get(&server, "/a.html", "");
    assert!(!head.contains("Content-Length") && !head.contains("ETag"), "{head}");
    let x = "x".repeat(100_000);
    assert!(body == format!("1/up/b{x}2<!--#echo var=\"uri\" -->{x}3"), "{:.200}", body);
    assert_eq!(upstream.next_request().target(), "/up/b");
    assert_eq!(upstream.next_request().target(), "/raw/c");
}

#[test]
fn pages_stand_before_and_behind_a_body() {
    let pages = [("a.html", "A"), ("b.html", "B"), ("c.txt", "C")];
    for exe in with_nginx(WSSGATE) {
        let server = serve(
            exe,
            "location /a { add_before_body /b.html; add_after_body /c.txt; }
             location /c { add_before_body /b.html; }",
            &pages,
        );
        let (head, body) = get(&server, "/a.html", "Range: bytes=0-0\r\n");
        assert_eq!(body, "BAC", "{exe}");
        assert!(head.contains("200 OK") && head.contains("ETag: W/\""), "{exe}: {head}");
        assert_eq!(get(&server, "/c.txt", "").1, "C", "{exe}");
    }
}

#[test]
fn ranges_of_a_file_are_answered_as_by_nginx() {
    let page: String = (0..9000).map(|n| format!("{n:04}")).collect();
    let ranges = [
        "0-9",
        "-4",
        "100-",
        "0-0,-1",
        "35000-35003, 0-3",
        "2-2,1-1,40000-",
        "40000-",
        "9-1",
        "0-",
        "x",
        "0-35999,5-6",
        "1-2,3-4,5-6",
    ];
    let mut expected: Vec<(&str, String)> = Vec::new();
    for exe in [NGINX, WSSGATE].into_iter().filter(|exe| with_nginx(WSSGATE).any(|one| one == *exe))
    {
        let server = serve(exe, "max_ranges 2;", &[("a.txt", &page)]);
        let answers: Vec<_> = ranges
            .iter()
            .map(|range| {
                let (head, body) = get(&server, "/a.txt", &format!("Range: bytes={range}\r\n"));
                // What both choose freely.
                let boundary = head
                    .split_once("boundary=")
                    .map_or("-", |(_, rest)| rest.lines().next().unwrap());
                let known = ["HTTP/1.", "Content-", "Accept-"];
                let head =
                    head.lines().filter(|line| known.iter().any(|name| line.starts_with(name)));
                let answer = format!("{}\n\n{body}", head.collect::<Vec<_>>().join("\n"));
                let answer =
                    if body.contains("nginx/1") { answer[..60].to_owned() } else { answer };
                (*range, answer.replace(boundary, "-"))
            })
            .collect();
        match expected.is_empty() {
            true => expected = answers,
            false => assert_eq!(answers, expected),
        }
    }
    assert!(expected[3].1.contains("multipart/byteranges"));
}

/// All filters at once, in nginx's order: additions and SSI commands are not searched, what is replaced
/// may be a command, and the charset is that of the whole.
#[test]
fn filters_come_in_the_order_of_nginx() {
    let pages = [
        ("a.html", "foo X <!--#include virtual=\"/foo.html\" --> Foo CMD FOO"),
        ("foo.html", "[foo X]"),
        ("t.txt", "foo X"),
    ];
    let mut expected: Vec<String> = Vec::new();
    for exe in [NGINX, WSSGATE].into_iter().filter(|exe| with_nginx(WSSGATE).any(|one| one == *exe))
    {
        let server = serve(
            exe,
            "location = /a.html {
                 add_before_body /t.txt; ssi on; charset B; source_charset A;
                 sub_filter foo bar; sub_filter CMD '<!--#echo var=\"uri\" -->$arg_x';
             }
             location /t.txt { sub_filter foo never; }
             location /foo.html { source_charset A; sub_filter foo inner; sub_filter_once off; }
             location /u/ { alias %%DIR%%/html/; charset utf-8; sub_filter_types *; sub_filter x yyyy; }
            ",
            &pages,
        );
        let answers = ["/a.html?x=1", "/u/a.html", "/u/t.txt", "/foo.html"].map(|path| {
            let (head, body) = get(&server, path, "");
            let fields = head.lines().filter(|line| line.starts_with("Content-"));
            format!("{}\n{body}", fields.collect::<Vec<_>>().join("\n"))
        });
        match expected.is_empty() {
            true => expected = answers.to_vec(),
            false => assert_eq!(answers.to_vec(), expected),
        }
    }
}

/// The sizes of the chunks of an answer over HTTP/1.1, and its body.
fn chunks(server: &Instance, path: &str) -> (Vec<usize>, String) {
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    let (bytes, end) = client.recv_to_end();
    assert_eq!(end, End::Eof);
    let text = String::from_utf8(bytes).unwrap();
    let (head, mut rest) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
    let (mut sizes, mut body) = (Vec::new(), String::new());
    loop {
        let (size, behind) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            assert_eq!(behind, "\r\n");
            return (sizes, body);
        }
        sizes.push(size);
        body += &behind[..size];
        rest = behind[size..].strip_prefix("\r\n").unwrap();
    }
}

/// A filter gives many pieces where it was given one. What is there together goes together.
#[test]
fn what_filters_make_of_a_page_goes_in_few_chunks() {
    let page = |len: usize| "a foo in a page, ".repeat(len / 17);
    let upstream = {
        let (small, large) = (page(3000), page(30_000));
        Upstream::http(move |request| {
            let body = if request.target() == "/up/small" { &small } else { &large };
            let fields = format!("Content-Type: text/html\r\nContent-Length: {}", body.len());
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}")
        })
    };
    for exe in with_nginx(WSSGATE) {
        let server = serve(
            exe,
            &format!(
                "sub_filter foo bar; sub_filter_once off; location /up/ {{ proxy_pass http://{}; }}
                 location /ssi {{ ssi on; }}",
                upstream.addr()
            ),
            &[
                ("small.html", &page(3000)),
                ("large.html", &page(30_000)),
                (
                    "ssi/a.html",
                    "1<!--#echo var=\"uri\" -->foo<!--#include virtual=\"/small.html\" -->3",
                ),
            ],
        );
        for (path, len, most) in [
            ("/small.html", 3000, 1),
            ("/large.html", 30_000, 1),
            ("/up/small", 3000, 2),
            // What an upstream sends may come in parts.
            ("/up/large", 30_000, 8),
        ] {
            let (sizes, body) = chunks(&server, path);
            assert_eq!(body, page(len).replace("foo", "bar"));
            assert!(sizes.len() <= most, "{exe} {path}: {sizes:?}");
        }
        let (sizes, body) = chunks(&server, "/ssi/a.html");
        assert_eq!(body, format!("1/ssi/a.htmlbar{}3", page(3000).replace("foo", "bar")));
        assert!(sizes.len() <= 3, "{exe}: {sizes:?}");
    }
}

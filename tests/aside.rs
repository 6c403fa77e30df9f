//! What happens beside the answer itself: hints before it, copies of the request, and what follows.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, End, Instance, Listener, Upstream};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server in front of `upstream`.
fn serve(upstream: &str, http: &str) -> Instance {
    Instance::setup(EXE).http(http).var("UPSTREAM", upstream).start()
}

fn ask(server: &Instance, request: &str) -> String {
    let mut client = Conn::connect(server.listen(0));
    client.send_raw(request);
    let (bytes, end) = client.recv_to_end();
    assert_eq!(end, End::Eof);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn hints_go_to_clients_that_understand_them_and_before_the_answer() {
    let hints = "HTTP/1.1 103 \r\nLink: </a.css>\r\nConnection: x\r\nX-Accel-Expires: 1\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let upstream = Upstream::says(format!("{hints}HTTP/1.1 102 P\r\nA: b\r\n\r\n{answer}"));
    let server = serve(
        &upstream.addr().to_string(),
        "server { listen %%LISTEN_0%%; early_hints 0 $arg_e; location / { proxy_pass http://%%UPSTREAM%%; } }",
    );
    let get = |query: &str, version: &str| {
        ask(
            &server,
            &format!("GET /?{query} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n"),
        )
    };
    let passed = get("e=1", "1.1");
    assert!(
        passed.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{passed}"
    );
    for (query, version) in [("e=0", "1.1"), ("", "1.1"), ("e=1", "1.0")] {
        let answer = get(query, version);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{query} {version}: {answer}");
    }
}

#[test]
fn a_copy_has_method_and_body_and_the_answer_does_not_wait_for_it() {
    let (app, copies) = (Upstream::text("app"), Listener::bind());
    let server = Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%%;
                 location / { mirror /copy; proxy_pass http://%%APP%%; }
                 location = /copy { internal; proxy_pass http://%%COPIES%%$request_uri; } }",
        )
        .var("APP", app.addr())
        .var("COPIES", copies.addr())
        .start();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut copy = copies.accept();
    let request = copy.recv_request();
    assert_eq!((request.method(), request.target()), ("POST", "/a?b"));
    assert_eq!(&request.body[..], b"hello");
    assert_eq!(&client.recv_response().body[..], b"app");
    assert_eq!(&app.next_request().body[..], b"hello");
    // The next one does, which bounds how many copies there can be.
    client.send_raw("GET /c HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(app.requests().is_empty());
    copy.send_raw("HTTP/1.1 500 Not so well\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(app.next_request().target(), "/c");
}

#[test]
fn what_follows_knows_the_answer_and_changes_nothing_of_it() {
    let (login, followed) = (Upstream::text("seen"), "/after");
    let server = serve(
        &login.addr().to_string(),
        "log_format short '$status $body_bytes_sent $uri';
         server { listen %%LISTEN_0%%; access_log %%DIR%%/short.log short;
             location / { post_action @after; return 201 four; }
             location @after { proxy_pass http://%%UPSTREAM%%;
                 proxy_set_header X-Answer \"$status $body_bytes_sent\"; rewrite ^ /after break; } }",
    );
    let mut client = Conn::connect(server.listen(0));
    for _ in 0..2 {
        client.send_raw("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.recv_response();
        assert_eq!((response.status, &response.body[..]), (201, &b"four"[..]));
        let request = login.next_request();
        assert_eq!((request.target(), request.field("x-answer")), (followed, Some("201 4")));
    }
    server.wait_for_line("short.log", "201 4 /after");
}

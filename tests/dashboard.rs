//! `dashboard`: what it shows, who may do what, and the page in a real browser.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wssgate_testkit::http::Response;
use wssgate_testkit::{
    Conn, Handshake, Instance, Pki, Upstream, close, program, text, wait_until, wait_within,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// An echo server with users, one dashboard that may close and one that only shows.
const CONF: &str = "upstream chat { server %%UP%%; }
    server { listen %%LISTEN_0%%; server_name chat.test; websocket_user $arg_user;
      location /chat { proxy_pass http://chat; }
      location /v1 { websocket_protocol v1; proxy_pass http://chat; } }
    server { listen %%LISTEN_9%%; server_name ops.test; access_log off;
      allow 127.0.0.1; deny all;
      location /view { dashboard; }
      location /dashboard/ { dashboard control; }
      location /named/ { auth_basic ops; auth_basic_user_file users; dashboard control; }
      location /less/ { dashboard control; limit_except GET { deny all; } }
      location /any/ { satisfy any; deny all; auth_request /ok; auth_basic ops; auth_basic_user_file users;
        dashboard control; }
      location = /ok { return 204; }
      location = /dashboard/api/moved { return 302 /login; }
      location = /dashboard/api/foreign { return 200 hello; }
      location /shared/ { dashboard; expires 1h; add_header Access-Control-Allow-Origin *;
        add_header X-Frame-Options ALLOWALL; add_header Strict-Transport-Security max-age=60; }
      location /page { ssi on; root %%DIR%%; } }";

fn start(upstream: &Upstream) -> Instance {
    let setup = Instance::setup(WSSGATE).main_and_http("user root;", CONF);
    let page = "<!--# include virtual=\"/dashboard/api/overview\" -->";
    setup.var("UP", upstream.addr()).file("users", "ann:{PLAIN}secret\n").file("page", page).start()
}

fn open(server: &Instance, path: &str) -> Conn {
    Handshake::to(server.listen(0)).path(path).open()
}

/// A request with these lines of a head, of which the first is the request line without its version.
fn ask(server: &Instance, line: &str, fields: &[&str]) -> Response {
    let host = if fields.iter().any(|field| field.starts_with("Host:")) {
        ""
    } else {
        "Host: ops.test\r\n"
    };
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let head = format!("{line} HTTP/1.1\r\n{host}{fields}Connection: close\r\n\r\n");
    let mut conn = Conn::connect(server.listen(9));
    conn.send_raw(head);
    conn.try_recv_response(line.split(' ').next().unwrap()).unwrap()
}

#[track_caller]
fn json_of(response: &Response) -> Value {
    assert_eq!(response.field("content-type"), Some("application/json"));
    assert_eq!(response.field("cache-control"), Some("no-store"));
    serde_json::from_str(&response.text()).unwrap()
}

#[track_caller]
fn get(server: &Instance, path: &str) -> Value {
    let response = ask(server, &format!("GET {path}"), &[]);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    json_of(&response)
}

/// What the page sends with an order.
const OWN: [&str; 2] = ["X-Wssgate: 1", "Sec-Fetch-Site: same-origin"];

#[test]
fn the_page_is_below_any_path_and_held_to_itself() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    for (path, to) in [("/view", "/view/"), ("/dashboard", "/dashboard/")] {
        let response = ask(&server, &format!("GET {path}"), &[]);
        assert_eq!(response.status, 301);
        assert!(response.field("location").unwrap().ends_with(to), "{path}");
    }
    for path in ["/view/", "/dashboard/", "/dashboard/app.js", "/view/style.css", "/view/icon.svg"]
    {
        let response = ask(&server, &format!("GET {path}"), &[]);
        assert_eq!(response.status, 200, "{path}");
        let policy = response.field("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(response.field(name), Some(value), "{path}");
        }
        let tag = format!("If-None-Match: {}", response.field("etag").unwrap());
        assert_eq!(ask(&server, &format!("GET {path}"), &[&tag]).status, 304);
        assert_eq!(ask(&server, &format!("HEAD {path}"), &[]).text(), "");
    }
    for (line, status) in [
        ("GET /viewer", 404),
        ("GET /view/none.js", 404),
        ("GET /view/api/none", 404),
        ("POST /dashboard/", 405),
        ("PUT /dashboard/api/tunnels", 405),
        // Of the socket's API only a part is offered.
        ("GET /dashboard/api/log-level", 404),
        ("GET /dashboard/api/status", 404),
    ] {
        assert_eq!(ask(&server, line, &[]).status, status, "{line}");
    }
    let reload = ask(&server, "POST /dashboard/api/reload", &OWN);
    assert_eq!(reload.status, 404);
    // What nobody was asked for gets into no page of others.
    let page = ask(&server, "GET /page", &[]);
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("counters"), "{}", page.text());
}

#[test]
fn the_overview_tells_what_was_counted() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut ann = open(&server, "/chat?user=ann");
    ann.send([text("hello")]);
    ann.expect([text("hello")]);
    let mut bob = open(&server, "/v1?user=bob");
    bob.send([close(1000, "")]);
    bob.expect([close(1000, "")]);
    let refused = Handshake::to(server.listen(0)).path("/v1").field("Sec-WebSocket-Protocol", "v2");
    assert_eq!(refused.answer().1.status, 400);
    let mut overview = Value::Null;
    wait_until("the end of a socket", || {
        overview = get(&server, "/view/api/overview");
        overview["counters"]["ends"] == json!({"client_close": 1})
    });
    let counters = &overview["counters"];
    assert_eq!((&counters["tunnels"], &counters["opened"]), (&1.into(), &2.into()));
    assert_eq!((&counters["messages"], &counters["failed"]), (&json!([1, 1]), &1.into()));
    assert_eq!(overview["failures"], json!({"subprotocol": 1}));
    assert_eq!(overview["control"], false);
    assert_eq!(get(&server, "/dashboard/api/overview")["control"], true);
    assert_eq!(overview["status"]["pid"], server.pid());
    assert_eq!(overview["reload"]["successful"], true);
    assert_eq!(overview["upstreams"][0]["name"], "chat");
    assert_eq!(overview["upstreams"][0]["peers"][0]["state"], "up");
    assert_eq!(overview["certificates"], json!([]));
    assert_eq!(ask(&server, "GET /view/api/overview?since=x", &[]).status, 400);
    let listed = get(&server, "/view/api/tunnels?user=ann");
    assert_eq!((&listed["matched"], &listed["tunnels"][0]["user"]), (&1.into(), &"ann".into()));
    assert_eq!(get(&server, "/view/api/tunnels?user=bob")["matched"], 0);
    let id = listed["tunnels"][0]["id"].as_str().unwrap();
    assert_eq!(get(&server, &format!("/view/api/tunnels/{id}"))["user"], "ann");
}

/// When the history began, in milliseconds since 1970; its thread may have to start first.
fn began(server: &Instance) -> u64 {
    let mut began = None;
    wait_until("a history", || {
        began = get(server, "/view/api/overview")["history"]["began"].as_u64();
        began.is_some()
    });
    began.unwrap()
}

#[test]
fn the_history_goes_on_over_reloads_and_ends_with_the_last_dashboard() {
    let upstream = Upstream::echo();
    let pki = Pki::new();
    let mut server = start(&upstream);
    let began = began(&server);
    let _ann = open(&server, "/chat?user=ann");
    server.signal("HUP");
    let mut overview = Value::Null;
    // A point is ten seconds.
    wait_within("the first point", std::time::Duration::from_secs(30), || {
        overview = get(&server, "/view/api/overview");
        overview["history"]["next"] == 1
    });
    assert_eq!(overview["status"]["generation"], 2);
    let history = &overview["history"];
    assert_eq!(history["began"], began);
    let point = &history["points"][0];
    assert_eq!((&point["tunnels"], &point["opened"]), (&1.into(), &1.into()));
    assert!(point["span"].as_u64().unwrap() >= 10_000, "{point}");
    assert_eq!(get(&server, "/view/api/overview?since=1")["history"]["points"], json!([]));
    server.rewrite_http("");
    server.signal("HUP");
    server.wait_for_log("generation 3");
    let leaf = pki.leaf(&["ops.test"]);
    let secure = format!(
        "server {{ listen %%LISTEN_8%% ssl; server_name ops.test; ssl_certificate {}; ssl_certificate_key {}; }}",
        leaf.fullchain.display(),
        leaf.key.display()
    );
    server.rewrite_http(&format!("{CONF} {secure}"));
    server.signal("HUP");
    server.wait_for_log("generation 4");
    assert!(self::began(&server) > began, "nothing was kept without one");
    let overview = get(&server, "/view/api/overview");
    assert_eq!(overview["certificates"][0]["server"], "ops.test");
    assert!(overview["certificates"][0]["ends"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(overview["reload"]["successes"], 3);
}

/// What forms, links and scripts of other sites can send is refused, and what a dashboard may not do.
#[test]
fn only_the_page_itself_gives_orders() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut ann = open(&server, "/chat?user=ann");
    ann.send([text("x")]);
    ann.expect([text("x")]);
    const HEADER: &str = "X-Wssgate: 1";
    let port = server.listen(9).port();
    let (own, address) =
        (format!("Origin: http://ops.test:{port}"), format!("Host: 127.0.0.1:{port}"));
    let (host, of_address) =
        (format!("Host: ops.test:{port}"), format!("Origin: http://127.0.0.1:{port}"));
    let post = "POST /dashboard/api/tunnels/close?user=ann&dry_run=true";
    for (line, fields, status) in [
        (post, &OWN[..], 200),
        (post, &[HEADER, &own, &host], 200),
        (post, &[HEADER, &of_address, &address], 200),
        (post, &[HEADER, "Sec-Fetch-Site: same-origin", "Origin: https://before.example"], 200),
        (post, &["Sec-Fetch-Site: same-origin"], 403),
        (post, &[&own, &host], 403),
        (post, &[HEADER], 403),
        (post, &[HEADER, "Sec-Fetch-Site: cross-site"], 403),
        (post, &[HEADER, "Sec-Fetch-Site: same-site", &own, &host], 403),
        (post, &[HEADER, "Sec-Fetch-Site: none"], 403),
        (post, &[HEADER, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"], 403),
        (post, &[HEADER, "Origin: null", &host], 403),
        (post, &[HEADER, "Origin: http://evil.example", &host], 403),
        (post, &[HEADER, "Origin: http://ops.test", &host], 403),
        (post, &[HEADER, &own, &own, &host], 403),
        (post, &["X-Wssgate: 2", "Sec-Fetch-Site: same-origin"], 403),
        ("POST /view/api/tunnels/close?user=ann&dry_run=true", &OWN[..], 403),
        ("POST /less/api/tunnels/close?user=ann&dry_run=true", &OWN[..], 403),
        ("GET /dashboard/api/tunnels/close?user=ann", &OWN[..], 405),
        ("POST /named/api/tunnels/close?user=ann&dry_run=true", &OWN[..], 401),
        ("POST /dashboard/api/tunnels/close", &OWN[..], 400),
    ] {
        let response = ask(&server, line, fields);
        assert_eq!(response.status, status, "{line} {fields:?}: {}", response.text());
        assert_eq!(response.field("access-control-allow-origin"), None);
    }
    assert_eq!(get(&server, "/less/api/tunnels")["matched"], 1, "it may look");
    assert_eq!(get(&server, "/less/api/overview")["control"], false, "and is told so");
    // A preflight gets no leave.
    assert_eq!(ask(&server, "OPTIONS /dashboard/api/tunnels/close", &[&own]).status, 405);
    ann.send([text("still here")]);
    ann.expect([text("still here")]);
}

/// A name that leads here from elsewhere gets nothing where an address alone lets browsers in.
#[test]
fn a_name_of_others_shows_nothing() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    for (host, path, status) in [
        ("ops.test", "/view/", 200),
        ("OPS.test:80", "/view/", 200),
        ("127.0.0.1", "/view/", 200),
        ("[::1]:9000", "/view/api/overview", 200),
        ("localhost:9000", "/view/", 200),
        ("evil.example", "/view/", 421),
        ("chat.test", "/view/api/tunnels", 421),
        // A browser does not send a password of another name.
        ("evil.example", "/named/", 401),
    ] {
        let response = ask(&server, &format!("GET {path}"), &[&format!("Host: {host}")]);
        assert_eq!(response.status, status, "{host} {path}");
    }
    let basic = "Authorization: Basic YW5uOnNlY3JldA==";
    assert_eq!(ask(&server, "GET /named/", &["Host: evil.example", basic]).status, 200);
}

/// An `error_page` for clients without a certificate leads past `ssl_verify_client`, but shows them nothing.
#[test]
fn without_a_certificate_there_is_nothing_to_see() {
    let pki = Pki::new();
    let (server_leaf, client_leaf) = (pki.leaf(&["ops.test"]), pki.leaf(&["ann.test"]));
    let lines = format!(
        "server {{ listen %%LISTEN_0%% ssl; server_name ops.test; ssl_certificate {}; ssl_certificate_key {};
          ssl_verify_client on; ssl_client_certificate {}; error_page 495 496 = /d/api/overview;
          location /d/ {{ dashboard control; }} }}",
        server_leaf.fullchain.display(),
        server_leaf.key.display(),
        pki.root_path().display(),
    );
    let server = Instance::setup(WSSGATE).main_and_http("user root;", &lines).start();
    for (config, status) in
        [(pki.client_config(), 403), (pki.client_config_with(&client_leaf), 200)]
    {
        let mut conn = Conn::try_connect_tls(server.listen(0), config, "ops.test").unwrap();
        conn.send_raw(
            "GET /d/api/overview HTTP/1.1\r\nHost: ops.test\r\nConnection: close\r\n\r\n",
        );
        let response = conn.try_recv_response("GET").unwrap();
        assert_eq!(response.status, status, "{}", response.text());
        assert_eq!(response.text().contains("counters"), status == 200);
    }
}

#[test]
fn who_closes_what_is_in_the_log() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut all: Vec<_> =
        ["ann", "ann", "bob"].map(|user| open(&server, &format!("/chat?user={user}"))).into();
    let basic = "Authorization: Basic YW5uOnNlY3JldA==";
    let order = |line: &str| json_of(&ask(&server, line, &[OWN[0], OWN[1], basic]));
    let dry = order("POST /named/api/tunnels/close?user=ann&dry_run=true");
    assert_eq!(dry, json!({"matched": 2, "closed": 0}));
    let closed = order("POST /named/api/tunnels/close?user=ann&code=4001&reason=elsewhere");
    assert_eq!(closed, json!({"matched": 2, "closed": 2}));
    for ann in &mut all[..2] {
        ann.expect([close(4001, "elsewhere")]);
    }
    server.wait_for_log("[notice]");
    server.wait_for_log(
        "closing 2 WebSockets with code 4001, by ann (127.0.0.1) through the dashboard",
    );
    let id =
        get(&server, "/view/api/tunnels?user=bob")["tunnels"][0]["id"].as_str().unwrap().to_owned();
    let one = ask(&server, &format!("POST /dashboard/api/tunnels/{id}/close"), &OWN);
    assert_eq!(json_of(&one)["closed"], 1);
    all[2].expect([close(1001, "")]);
    server.wait_for_log(&format!(
        "closing the WebSocket of connection {id}, by 127.0.0.1 through the dashboard"
    ));
    // Something else lets in, so a name with a wrong password is nobody's.
    let _cy = open(&server, "/chat?user=cy");
    let wrong = "Authorization: Basic YW5uOndyb25n";
    let line = "POST /any/api/tunnels/close?user=cy&code=4002";
    assert_eq!(json_of(&ask(&server, line, &[OWN[0], OWN[1], wrong]))["closed"], 1);
    server.wait_for_log("with code 4002, by 127.0.0.1 through the dashboard");
    let _di = open(&server, "/chat?user=di");
    let line = "POST /any/api/tunnels/close?user=di&code=4003";
    assert_eq!(json_of(&ask(&server, line, &[OWN[0], OWN[1], basic]))["closed"], 1);
    server.wait_for_log("with code 4003, by ann (127.0.0.1) through the dashboard");
}

/// What applies to all of a server must not open a dashboard to others or have it kept.
#[test]
fn inherited_fields_do_not_weaken_it() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    for (path, kept) in [("/shared/api/overview", "no-store"), ("/shared/", "no-cache")] {
        let response = ask(&server, &format!("GET {path}"), &["Origin: https://evil.example"]);
        assert_eq!(response.status, 200);
        for (name, value) in [
            ("cache-control", Some(kept)),
            ("expires", None),
            ("access-control-allow-origin", None),
            ("x-frame-options", Some("DENY")),
            ("strict-transport-security", Some("max-age=60")),
        ] {
            let all: Vec<_> = response.head.all(name).collect();
            assert_eq!(all, Vec::from_iter(value), "{path} {name}");
        }
    }
}

/// A dashboard cannot let new WebSockets in again, so it does not keep them out.
#[test]
fn a_dashboard_closes_no_door() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let line = "POST /dashboard/api/drains?server=chat.test&over=1m&refuse_new=true";
    let refused = ask(&server, line, &OWN);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("refuse_new is for `wssgate ctl`"), "{}", refused.text());
    let _ann = open(&server, "/chat?user=ann");
}

/// A person filters, looks at one socket, closes some, and sees the server go and come.
#[test]
fn operators_use_the_page() {
    const WHAT: &str = "the dashboard in a browser";
    let Some(chromium) = program::chromium(WHAT) else { return };
    let Some(mut python) = program::python(WHAT, "websockets") else { return };
    // Kept, so that a person can look at the pictures.
    let directory = tempfile::tempdir().unwrap().keep();
    eprintln!("screenshots: {}", directory.display());
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut all =
        ["ann", "<i>bob</i>", "ann"].map(|user| open(&server, &format!("/chat?user={user}")));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/dashboard.py");
    let address = server.listen(9);
    let urls = ["dashboard", "view"].map(|path| format!("http://{address}/{path}/"));
    python.arg(script).arg(chromium).args(urls).arg(&directory).env("HOME", &directory);
    let (shown, server) = watch(&mut python, server);

    for ann in [0, 2] {
        all[ann].expect([close(4001, "elsewhere")]);
    }
    assert_eq!((&shown["sockets"], &shown["title"]), (&"3".into(), &"3 sockets · wssgate".into()));
    let nothing =
        json!({"light": [], "dark": [], "wide": [], "tablet": [], "phone": [], "smallest": []});
    assert_eq!(shown["cut off"], nothing);
    assert_eq!(shown["differ"], true, "the page is dark where the system is");
    let labels = shown["charts"].as_array().unwrap();
    assert_eq!(labels.len(), 6);
    assert!(labels[0].as_str().unwrap().starts_with("Sockets"), "{labels:?}");
    let text = |key: &str| shown[key].as_str().unwrap();
    assert!(text("upstreams").contains(&upstream.addr().to_string()), "{shown:#}");
    assert!(text("reload").contains("none since the start"), "{shown:#}");
    let themes = &shown["themes"];
    assert_eq!(themes["Theme: auto"], themes["Theme: light"]);
    assert_ne!(themes["Theme: dark"], themes["Theme: light"]);
    assert_eq!(shown["modules"], json!({"focused": "a", "visible": "a\\u{202e}b\\u{200b}c\\n"}));
    assert_eq!(shown["refusals"], json!([1, 2, 404]));
    let misled = text("misled");
    assert!(misled.contains("not known here") && misled.ends_with(": usr."), "{misled}");
    closed(&shown["close"]);
    drained(&shown["drain"]);
    let lost = &shown["lost"];
    assert!(lost["banner"].as_str().unwrap().starts_with("No answer since "), "{lost}");
    assert!(lost["back"].as_str().unwrap().starts_with("The server was restarted "), "{lost}");
    assert_eq!(lost["cut off"], json!([]));
    assert_eq!((&shown["violations"], &shown["errors"]), (&json!([]), &json!([])));
    assert_eq!(shown["injected"], false);
    assert_ne!(shown["caught"], json!([]), "the policy is in force");
    assert_eq!(shown["view"], json!({"tag": true, "control": false, "refused": 403}));
    for picture in ["light", "dark", "wide", "tablet", "phone", "smallest", "details", "lost"] {
        let len = fs::metadata(directory.join(picture).with_extension("png")).unwrap().len();
        assert!(len > 10_000, "{picture} has {len} bytes");
    }
    // The browser's profile is large and of no interest.
    fs::remove_dir_all(directory.join("profile")).unwrap();
    assert!(server.stop().success());
}

/// The filter finds two of three, and those are closed.
fn closed(shown: &Value) {
    assert_eq!(shown["users"], json!(["ann", "ann"]));
    assert_eq!((&shown["matched"], &shown["address"]), (&"2 match".into(), &"#user=ann".into()));
    assert_eq!(shown["button"], "Close matching…");
    let details = shown["details"].as_str().unwrap();
    assert!(details.contains("chat.test") && details.contains("/chat"), "{details}");
    assert_eq!(
        (&shown["cut off in details"], &shown["cut off when asked"]),
        (&json!([]), &json!([]))
    );
    assert_eq!((&shown["folded"], &shown["unfolded"]), (&true.into(), &true.into()));
    let problem = shown["problem"].as_str().unwrap();
    assert!(problem.contains("\"min_age\": a time such as 90s"), "{problem}");
    let question = shown["question"].as_str().unwrap();
    assert!(
        question.starts_with("This closes 2 sockets that match user ann, older than 0s."),
        "{question}"
    );
    assert_eq!(shown["go"], "Close 2");
    assert!(shown["bad code"].as_str().unwrap().contains("a code that may be sent"), "{shown:#}");
    assert_eq!(shown["done"], "2 sockets closed.");
    assert_eq!(shown["empty"], "No socket matches these filters.");
    // A name is text, whatever is in it.
    assert_eq!((&shown["others"], &shown["markup"]), (&json!(["<i>bob</i>"]), &0.into()));
}

/// A drain of everybody has to be confirmed, shows how far it is, and can be cancelled.
fn drained(shown: &Value) {
    assert_eq!(shown["button"], "Drain all…");
    let question = shown["question"].as_str().unwrap();
    assert!(
        question.starts_with("This closes 1 socket of this server: no filter is set"),
        "{question}"
    );
    assert_eq!(shown["unconfirmed"], false);
    let running = shown["running"].as_str().unwrap();
    assert!(running.contains("0 of 1 socket told") && running.contains("of 10 min"), "{running}");
    assert!(running.contains("by 127.0.0.1 through the dashboard"), "{running}");
    assert!(shown["cancelled"].as_str().unwrap().contains("cancelled after"), "{shown:#}");
    assert_eq!(shown["left"], 1);
    assert_eq!((&shown["cut off"], &shown["cut off when asked"]), (&json!([]), &json!([])));
}

/// Runs the script, does to the server what it says, and gives what it saw.
fn watch(command: &mut Command, mut server: Instance) -> (Value, Instance) {
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = script.stdin.take().unwrap();
    let mut output = BufReader::new(script.stdout.take().unwrap()).lines();
    let shown = loop {
        let line = output.next().expect("the script says what it saw").unwrap();
        match &*line {
            "stop" => {
                server.signal("KILL");
                wait_until("end", || server.has_ended());
            }
            "start" => server.restart(),
            _ => break line,
        }
        input.write_all(b"done\n").unwrap();
    };
    assert!(script.wait().unwrap().success());
    (serde_json::from_str(&shown).unwrap(), server)
}

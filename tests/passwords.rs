//! `auth_basic`, `satisfy` and `auth_delay` through the whole program; where nginx is installed it must
//! say the same to every request.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use wssgate_testkit::{Conn, Handshake, Instance, Upstream, http, text, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

const USERS: &str = "# who may come in
ada:{PLAIN}secret
ada:{PLAIN}later
bob:$2y$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm
crypt:sa3tHJ3/KuYvI:with a comment
broken:$1$
#eve:{PLAIN}secret
:{PLAIN}x
";

/// A location for each rule; an image of one pixel is what they guard.
const SERVER: &str = "
    map $arg_off $realm { default \"a $arg_r b\"; 1 off; }
    auth_basic_user_file users;
    server {
        listen %%LISTEN_0%%;
        location /open { empty_gif; }
        location /closed { auth_basic \"closed site\"; empty_gif; }
        location /inner { auth_basic x; location /inner/off { auth_basic off; empty_gif; } }
        location /realm { auth_basic $realm; empty_gif; }
        location /file { auth_basic x; auth_basic_user_file %%DIR%%/$arg_f; empty_gif; }
        location /relative { auth_basic x; auth_basic_user_file $arg_f; empty_gif; }
        location /methods { empty_gif; limit_except GET { auth_basic w; } }
        location /all/allow { satisfy all; allow all; auth_basic x; empty_gif; }
        location /all/deny { satisfy all; deny all; auth_basic x; empty_gif; }
        location /any/allow { satisfy any; allow all; auth_basic x; empty_gif; }
        location /any/deny { satisfy any; deny all; auth_basic x; empty_gif; }
        location /any/none { satisfy any; allow 192.0.2.1; auth_basic x; empty_gif; }
        location /any/only { satisfy any; deny all; empty_gif; }
        location /page { auth_basic x; error_page 401 /open/page; empty_gif; }
        location /missing { satisfy any; deny all; auth_basic x; auth_basic_user_file none; }
    }";

fn start(exe: &str) -> Instance {
    let setup = Instance::setup(exe).file("users", USERS).file("crlf", "ada:{PLAIN}secret\r\n");
    // nginx's workers read the files as whom they are.
    setup.main_and_http("user root;", SERVER).start()
}

fn authorization(credentials: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials))
}

fn ask(server: &Instance, method: &str, path: &str, credentials: &str) -> http::Response {
    let field = match credentials {
        "" => String::new(),
        raw if raw.starts_with('=') => format!("Authorization: {}\r\n", &raw[1..]),
        credentials => authorization(credentials),
    };
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{field}Connection: close\r\n\r\n");
    http::exchange(server.listen(0), request)
}

/// Method, path, credentials, status, challenge.
const CASES: &[(&str, &str, &str, u16, Option<&str>)] = &[
    ("GET", "/closed", "", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "ada:secret", 200, None),
    ("GET", "/closed", "ada:later", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "ada:", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "bob:password", 200, None),
    ("GET", "/closed", "bob:passwort", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "crypt:password", 200, None),
    ("GET", "/closed", "broken:password", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "eve:secret", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "#eve:secret", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", ":x", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", ":", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "ad:secret", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "=Bearer YWRhOnNlY3JldA==", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "=bAsIc   YWRhOnNlY3JldA==", 200, None),
    ("GET", "/closed", "=Basic !!!", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "=Basic YWRhOnNlY3JldA", 200, None),
    ("GET", "/closed", "=Basic YWRhOnNlY3JldB", 200, None),
    ("GET", "/closed", "=Basic YWRhOnNlY3JldA=", 200, None),
    ("GET", "/closed", "=Basic YWRhOnNlY3JldA==!", 200, None),
    ("GET", "/closed", "=Basic YWRhOnNlY3JldA!", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "=Basic YWRhO", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/closed", "=Basic YWRh", 401, Some("Basic realm=\"closed site\"")),
    ("GET", "/inner/off", "", 200, None),
    ("GET", "/realm?r=x", "", 401, Some("Basic realm=\"a x b\"")),
    ("GET", "/realm?off=1", "", 200, None),
    ("GET", "/file?f=users", "ada:secret", 200, None),
    ("GET", "/file?f=crlf", "ada:secret", 200, None),
    ("GET", "/file?f=none", "ada:secret", 403, None),
    ("GET", "/file?f=none", "", 401, Some("Basic realm=\"x\"")),
    ("GET", "/file", "ada:secret", 500, None),
    ("GET", "/relative?f=users", "ada:secret", 200, None),
    ("GET", "/methods", "", 200, None),
    ("POST", "/methods", "", 401, Some("Basic realm=\"w\"")),
    ("GET", "/all/allow", "", 401, Some("Basic realm=\"x\"")),
    ("GET", "/all/allow", "ada:secret", 200, None),
    ("GET", "/all/deny", "ada:secret", 403, None),
    ("GET", "/any/allow", "", 200, None),
    ("GET", "/any/allow", "ada:wrong", 200, None),
    ("GET", "/any/deny", "", 401, Some("Basic realm=\"x\"")),
    ("GET", "/any/deny", "ada:secret", 200, None),
    ("GET", "/any/none", "", 401, Some("Basic realm=\"x\"")),
    ("GET", "/any/only", "", 403, None),
    ("GET", "/page", "", 401, Some("Basic realm=\"x\"")),
    ("GET", "/missing", "ada:secret", 403, None),
];

#[test]
fn everybody_is_answered_as_by_nginx() {
    for exe in with_nginx(WSSGATE) {
        let server = start(exe);
        for (method, path, credentials, status, challenge) in CASES {
            let response = ask(&server, method, path, credentials);
            let case = format!("{exe}: {method} {path} {credentials}");
            assert_eq!(response.status, *status, "{case}");
            assert_eq!(response.field("www-authenticate"), *challenge, "{case}");
        }
        let users = server.dir().join("users").display().to_string();
        for line in [
            "[info]|no user/password was provided for basic authentication, client: ",
            "[error]|user \"ada\": password mismatch, client: ",
            &format!("[error]|user \"ad\" was not found in \"{users}\", client: "),
            "none\" failed (2: No such file or directory), client: ",
            "[crit]|failed (21: Is a directory), client: ",
            "[error]|access forbidden by rule, client: ",
        ] {
            let (level, part) = line.split_once('|').unwrap_or(("[error]", line));
            let found = server.wait_for_log(part);
            assert!(found.contains(level), "{exe}: {found}");
        }
        // What another rule may outdo is no news: one line of each that is really refused.
        let log = server.error_log();
        let forbidden = log.lines().filter(|line| line.contains("access forbidden by rule"));
        assert_eq!(forbidden.count(), 3, "{exe}: {log}");
    }
}

#[test]
fn a_websocket_needs_the_password_too() {
    let upstream = Upstream::echo();
    let server = Instance::setup(WSSGATE)
        .file("users", USERS)
        .main_and_http(
            "user root;",
            "log_format user '$status $remote_user';
             server { listen %%LISTEN_0%%; access_log %%DIR%%/user.log user;
                 auth_basic x; auth_basic_user_file users;
                 location / { proxy_pass http://%%UP%%; } }",
        )
        .var("UP", upstream.addr())
        .start();
    let refused = Handshake::to(server.listen(0)).send().recv_response();
    assert_eq!(refused.status, 401);
    assert_eq!(upstream.connections(), 0);
    let credentials = format!("Basic {}", BASE64_STANDARD.encode("bob:password"));
    let mut client = Handshake::to(server.listen(0)).field("Authorization", &credentials).open();
    client.send([text("hello")]);
    client.expect([text("hello")]);
    assert_eq!(upstream.next_request().field("authorization"), Some(&*credentials));
    drop(client);
    server.wait_for_line("user.log", "101 bob");
}

/// A changed file counts from the next request on, also for who has just been verified.
#[test]
fn a_user_who_is_removed_is_out_at_once() {
    let server = start(WSSGATE);
    let users = server.dir().join("users");
    let status = |credentials| ask(&server, "GET", "/closed", credentials).status;
    assert_eq!(status("bob:password"), 200);
    assert_eq!(status("bob:password"), 200);
    fs::write(&users, "ada:{PLAIN}secret\n").unwrap();
    assert_eq!(status("bob:password"), 401);
    fs::write(&users, "bob:{PLAIN}new\n").unwrap();
    assert_eq!((status("bob:password"), status("bob:new")), (401, 200));
    fs::remove_file(&users).unwrap();
    assert_eq!(status("bob:new"), 403);
}

#[test]
fn hashing_holds_up_nobody_else() {
    let server = Instance::setup(WSSGATE)
        // Takes days: whatever waits for it never ends.
        .file("users", "bob:$2y$31$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm\n")
        .main_and_http("user root; worker_processes 1;", SERVER)
        .start();
    let mut slow: Vec<_> = (0..2).map(|_| Conn::connect(server.listen(0))).collect();
    for client in &mut slow {
        client.send_raw(format!(
            "GET /closed HTTP/1.1\r\nHost: a\r\n{}\r\n",
            authorization("bob:wrong")
        ));
    }
    for _ in 0..5 {
        assert_eq!(ask(&server, "GET", "/open", "").status, 200);
    }
}

#[test]
fn who_fails_on_is_slowed_and_who_is_known_is_not() {
    let server = start(WSSGATE);
    let status = |credentials: &str| ask(&server, "GET", "/closed", credentials).status;
    assert_eq!(status("ada:secret"), 200);
    let began = Instant::now();
    for number in 0..20 {
        assert_eq!(status(&format!("ada:{number}")), 401);
    }
    assert_eq!(status("ada:x"), 401);
    // Attempts that come together: one a second, and no more than a few wait.
    let mut clients: Vec<_> = (0..12).map(|_| Conn::connect(server.listen(0))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_raw(format!(
            "GET /closed HTTP/1.1\r\nHost: a\r\n{}\r\n",
            authorization(&format!("ada:guess {number}"))
        ));
    }
    server.wait_for_log("too many failed attempts to log in, client: ");
    assert_eq!(status("ada:secret"), 200, "verified before");
    let statuses: Vec<_> = clients.iter_mut().map(|client| client.recv_response().status).collect();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!((1..12).contains(&refused), "{statuses:?}");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

/// A page asks for many things at once.
#[test]
fn who_knows_the_password_is_not_locked_out_by_others_behind_the_same_address() {
    let server = start(WSSGATE);
    for number in 0..21 {
        let credentials = format!("ada:{number}");
        assert_eq!(ask(&server, "GET", "/closed", &credentials).status, 401);
    }
    for credentials in ["bob:password", "ada:secret"] {
        let mut clients: Vec<_> = (0..30).map(|_| Conn::connect(server.listen(0))).collect();
        for client in &mut clients {
            client.send_raw(format!(
                "GET /closed HTTP/1.1\r\nHost: a\r\n{}\r\n",
                authorization(credentials)
            ));
        }
        for client in &mut clients {
            assert_eq!(client.recv_response().status, 200, "{credentials}");
        }
    }
}

#[test]
fn a_401_is_delayed_and_a_client_that_leaves_is_let_go() {
    let server = Instance::setup(WSSGATE)
        .file("users", USERS)
        .main_and_http(
            "user root;",
            "auth_basic x; auth_basic_user_file users;
             server { listen %%LISTEN_0%%; auth_delay 1h; location / { empty_gif; }
                 location /short { auth_delay 1s; empty_gif; } }",
        )
        .start();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for_log("delaying unauthorized request");
    assert_eq!(ask(&server, "GET", "/", "ada:secret").status, 200);
    drop(client);
    server.wait_for_access("\"GET / HTTP/1.1\" 499 ");
    let began = Instant::now();
    assert_eq!(ask(&server, "GET", "/short", "").status, 401);
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_hash_that_nobody_can_check_is_told_of() {
    let server = start(WSSGATE);
    fs::write(server.dir().join("users"), "ada:$y$j9T$abc$def\nbob:secret\n").unwrap();
    assert_eq!(ask(&server, "GET", "/closed", "ada:secret").status, 401);
    server.wait_for_log("user \"ada\": password hashes of this kind (yescrypt) are not supported");
    assert_eq!(ask(&server, "GET", "/closed", "bob:secret").status, 401);
    server.wait_for_log("user \"bob\": the password hash is malformed");
}

#[test]
fn a_realm_without_a_file_is_warned_of() {
    let run = Instance::setup(WSSGATE)
        .http("server { listen %%LISTEN_0%%; location / { auth_basic x; } }")
        .run(&["-t"]);
    assert!(run.status.success());
    assert!(run.stderr.contains("\"auth_basic\" directive protects nothing"), "{}", run.stderr);
}

#[test]
fn a_file_that_is_not_there_is_warned_of_once() {
    let run = Instance::setup(WSSGATE)
        .file("keys", "{}")
        .http(
            "server { listen %%LISTEN_0%%; auth_basic x; auth_basic_user_file none;
             location /a { auth_jwt x; auth_jwt_key_file keys; } location /b { } }",
        )
        .run(&["-t"]);
    assert!(run.status.success(), "{}", run.stderr);
    for reason in [
        "none\" cannot be used: open() failed (2: No such file or directory)",
        "keys\" cannot be used: neither a JSON Web Key Set nor a JSON Web Key",
    ] {
        // In nginx's words, and drawn: not for each of the locations that use it.
        assert!((1..=2).contains(&run.stderr.matches(reason).count()), "{}", run.stderr);
    }
}

//! `wssgate ctl revoke` and `/v1/revocations`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};
use wssgate_testkit::{
    Conn, Handshake, Instance, Listener, Upstream, close, http, text, wait_until,
};

use super::{EXE, handshake, start, token};

const CHAT: &str = "
    log_format ends '$jwt_claim_sub $status $websocket_close_cause $websocket_close_code';
    access_log %%DIR%%/ends.log ends;
    auth_jwt_key_file keys.json;
    map $upstream_http_x_user $told { default $upstream_http_x_user; '' nobody; }
    server {
        listen %%LISTEN_0%%;
        auth_jwt chat;
        location / { proxy_pass http://%%UP%%; }
        location /open { auth_jwt off; websocket_user $arg_user; proxy_pass http://%%UP%%; }
        location /told { auth_jwt off; websocket_user $told; proxy_pass http://%%UP%%; }
        location /any { satisfy any; deny 127.0.0.2; allow all; auth_jwt chat; proxy_pass http://%%UP%%; }
        location /file { empty_gif; }
        location /open/file { auth_jwt off; websocket_user $arg_user; empty_gif; }
    }";

/// What is printed; the exit code has to be this.
#[track_caller]
fn ctl(server: &Instance, code: i32, arguments: &[&str]) -> String {
    let mut command = Command::new(EXE);
    command.arg("ctl").arg("-p").arg(server.dir()).args(["-c", "nginx.conf"]).args(arguments);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    format!("{}{told}", String::from_utf8(output.stdout).unwrap())
}

#[track_caller]
fn json_of(server: &Instance, arguments: &[&str]) -> Value {
    serde_json::from_str(&ctl(server, 0, &[arguments, &["--json"]].concat())).unwrap()
}

/// The status and the body of the answer to this request.
fn ask(server: &Instance, line: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(server.dir().join("nginx.admin.sock")).unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap())
}

fn get(server: &Instance, path: &str, claims: &Value) -> http::Response {
    let bearer = token(claims);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n\r\n"
    );
    http::exchange(server.listen(0), request)
}

fn stays(client: &mut Conn) {
    client.send([text("still here")]);
    client.expect([text("still here")]);
}

#[test]
fn whose_credentials_are_revoked_is_closed_and_others_stay() {
    let upstream = Upstream::echo();
    let server = start(CHAT, upstream.addr());
    let open = |path: &str, claims: Value| handshake(&server, path, &claims).open();
    let mut anns =
        [open("/", json!({"sub": "ann", "jti": "a1"})), open("/", json!({"sub": "ann"}))];
    let mut bob = open("/", json!({"sub": "bob", "jti": "b1"}));
    let mut other_bob = open("/", json!({"sub": "bob", "jti": 7}));
    let mut cid = open("/open?user=cid", json!({"sub": "cid"}));
    // Nobody has verified this token.
    let mut forged = open("/open?user=x", json!({"sub": "ann", "jti": "b1"}));
    let listed = json_of(&server, &["list", "--subject", "ann", "--token-id", "a1"]);
    assert_eq!((&listed["matched"], &listed["tunnels"][0]["subject"]), (&1.into(), &"ann".into()));
    assert_eq!(listed["tunnels"][0]["token_id"], "a1");
    for (arguments, closed) in [
        (["--subject", "an"], 0),
        (["--subject", "ann"], 2),
        (["--subject", "ann"], 0),
        (["--token-id", "7"], 1),
        (["--user", "cid"], 1),
        (["--user", "ann"], 0),
    ] {
        let told = ctl(&server, 0, &[&["revoke"][..], &arguments].concat());
        assert!(told.ends_with(&format!("), {closed} closed\n")), "{arguments:?}: {told}");
    }
    for client in anns.iter_mut().chain([&mut other_bob, &mut cid]) {
        client.expect([close(1008, "credentials revoked")]);
    }
    stays(&mut bob);
    stays(&mut forged);
    drop(anns);
    server.wait_for_line("ends.log", "ann 101 credentials 1008");
    server.wait_for_log(
        "WebSocket closed by the proxy with 1008, the credentials of the client are revoked while",
    );
    let line = server.wait_for_log("revoking the subject \"ann\" for 86400s, by ");
    assert!(line.contains(") through the admin socket"), "{line}");
}

#[test]
fn who_comes_while_it_is_revoked_is_refused() {
    let upstream = Upstream::echo();
    let mut server = start(CHAT, upstream.addr());
    let (ann, bob) = (json!({"sub": "ann", "jti": "a1"}), json!({"sub": "bob", "jti": "b1"}));
    let status =
        |server: &Instance, path: &str, claims| handshake(server, path, claims).answer().1.status;
    ctl(&server, 0, &["revoke", "--subject", "ann"]);
    let response = handshake(&server, "/", &ann).answer().1;
    assert_eq!(response.status, 401);
    let challenge = "Bearer realm=\"chat\", error=\"invalid_token\"";
    assert_eq!(response.field("www-authenticate"), Some(challenge));
    server.wait_for_log("JWT is revoked by its subject");
    // A token is for all that it opens.
    assert_eq!(get(&server, "/file", &ann).status, 401);
    assert_eq!((status(&server, "/", &bob), get(&server, "/file", &bob).status), (101, 200));
    ctl(&server, 0, &["revoke", "--token-id", "b1"]);
    assert_eq!(status(&server, "/", &bob), 401);
    server.wait_for_log("JWT is revoked by its token ID");
    // It is as good as none, so that another rule may let the client in.
    assert_eq!(status(&server, "/any", &bob), 101);
    ctl(&server, 0, &["revoke", "--user", "cid"]);
    assert_eq!(status(&server, "/open?user=cid", &bob), 401);
    server.wait_for_log("the user is revoked");
    assert_eq!(status(&server, "/open?user=dan", &bob), 101);
    // A user is one of WebSockets.
    assert_eq!(get(&server, "/open/file?user=cid", &bob).status, 200);
    // A reload changes nothing.
    server.rewrite();
    ctl(&server, 0, &["reload"]);
    assert_eq!(status(&server, "/", &ann), 401);
    let listed = ctl(&server, 0, &["revocations"]);
    let rows: Vec<Vec<_>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "KIND", "TEXT", "LEFT"]);
    assert_eq!(rows[1], ["1", "subject", "ann", "23h59m"]);
    assert_eq!(rows[2][1..4], ["token", "id", "b1"]);
    assert_eq!(rows[3][1..3], ["user", "cid"]);
    let told = ctl(&server, 1, &["unrevoke", "1", "99"]);
    assert!(told.contains("1 removed\n") && told.contains("99: there is no revocation"), "{told}");
    assert_eq!(status(&server, "/", &ann), 101);
    server.wait_for_log("the subject \"ann\" is no longer revoked, by ");
    // Only the process knows of them.
    assert_eq!(json_of(&server, &["revocations"])["held"], 2);
    server.signal("TERM");
    server.restart();
    assert_eq!(json_of(&server, &["revocations"])["held"], 0);
    assert_eq!(status(&server, "/", &bob), 101);
}

#[test]
fn a_revocation_ends_by_itself() {
    let upstream = Upstream::echo();
    let server = start(CHAT, upstream.addr());
    let ann = handshake(&server, "/", &json!({"sub": "ann"}));
    let answer = json_of(&server, &["revoke", "--subject", "ann", "--for", "700ms"]);
    let lasts = answer["ends"].as_f64().unwrap() - answer["began"].as_f64().unwrap();
    assert!((0.69..0.71).contains(&lasts), "{answer}");
    assert_eq!(ann.answer().1.status, 401);
    wait_until("the end of the revocation", || ann.answer().1.status == 101);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_secs_f64() >= answer["ends"].as_f64().unwrap() - 0.01, "too early");
    assert_eq!(json_of(&server, &["revocations"])["held"], 0);
}

/// Its handshake has passed the check, and there is no tunnel yet that a revocation could find.
#[test]
fn who_is_between_handshake_and_tunnel_does_not_slip_through() {
    let listener = Listener::bind();
    let server = start(CHAT, listener.addr());
    for (path, claims, revoked) in [
        ("/", json!({"sub": "ann"}), ["--subject", "ann"]),
        ("/", json!({"jti": "b1"}), ["--token-id", "b1"]),
        ("/open?user=cid", json!({}), ["--user", "cid"]),
        ("/told", json!({}), ["--user", "dan"]),
    ] {
        let mut client = handshake(&server, path, &claims).send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        let told = ctl(&server, 0, &[&["revoke"][..], &revoked].concat());
        assert!(told.ends_with(", 0 closed\n"), "{told}");
        upstream.accept_websocket(&request, "X-User: dan\r\n");
        assert_eq!(client.recv_response().status, 101);
        client.expect([close(1008, "credentials revoked")]);
        upstream.expect([close(1001, "credentials revoked")]);
    }
    // What only the response of the upstream server tells is known when it is there.
    let mut client = handshake(&server, "/told", &json!({})).send();
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    upstream.accept_websocket(&request, "X-User: dan\r\n");
    assert_eq!(client.recv_response().status, 101);
    client.expect([close(1008, "credentials revoked")]);
}

#[test]
fn of_those_who_come_all_the_time_nobody_slips_through() {
    let upstream = Upstream::echo();
    let key = "{\"keys\": [{\"kty\": \"oct\", \"k\": \"c2VjcmV0\"}]}";
    let setup = Instance::setup(EXE).file("keys.json", key);
    let server =
        setup.main_and_http("user root; worker_processes 2;", CHAT).var("UP", upstream.addr());
    let server = server.start();
    let ann: Handshake = handshake(&server, "/", &json!({"sub": "ann"}));
    for _ in 0..5 {
        let comers: Vec<_> = (0..4)
            .map(|_| {
                let ann = ann.clone();
                // Until one is refused, which is after the revocation.
                thread::spawn(move || {
                    let mut open = Vec::new();
                    loop {
                        let (client, response) = ann.answer();
                        match response.status {
                            101 => open.push(client),
                            status => return (status, open),
                        }
                    }
                })
            })
            .collect();
        wait_until("some", || json_of(&server, &["list"])["matched"].as_u64() >= Some(20));
        let id = json_of(&server, &["revoke", "--subject", "ann"])["id"].clone();
        for comer in comers {
            let (status, open) = comer.join().unwrap();
            assert_eq!(status, 401);
            for mut client in open {
                client.expect([close(1008, "credentials revoked")]);
            }
        }
        ctl(&server, 0, &["unrevoke", id.as_str().unwrap()]);
    }
}

#[test]
fn the_list_is_bounded_and_told_in_pages() {
    let upstream = Upstream::echo();
    let server = start(CHAT, upstream.addr());
    for number in 0..10_000 {
        let (status, _) = ask(&server, &format!("POST /v1/revocations?token_id=t{number}&for=1h"));
        assert_eq!(status, 200);
    }
    let (status, answer) = ask(&server, "POST /v1/revocations?subject=ann");
    assert_eq!(status, 409);
    let why = "10000 revocations are held, which is the most; remove some or wait until they end";
    assert_eq!(answer["error"], why);
    assert!(ctl(&server, 1, &["revoke", "--subject", "ann"]).contains(why));
    // Who is there already can be revoked for longer.
    assert_eq!(ask(&server, "POST /v1/revocations?token_id=t7&for=2h").1["id"], "8");
    let (_, page) = ask(&server, "GET /v1/revocations?after=3&limit=2");
    assert_eq!((&page["held"], &page["max"]), (&10_000.into(), &10_000.into()));
    assert_eq!((&page["revocations"][0]["token_id"], &page["next"]), (&"t3".into(), &"5".into()));
    let all = json_of(&server, &["revocations"]);
    assert_eq!(all["revocations"].as_array().unwrap().len(), 10_000);
    assert_eq!(ask(&server, "DELETE /v1/revocations/1").1["token_id"], "t0");
    assert_eq!(ask(&server, "POST /v1/revocations?subject=ann").0, 200);
}

#[test]
fn what_is_not_understood_is_refused() {
    let server = start(CHAT, "127.0.0.1:1");
    for (line, status, error) in [
        ("POST /v1/revocations", 400, "name one of subject, token_id and user"),
        ("POST /v1/revocations?subject=", 400, "a text that is not empty"),
        ("POST /v1/revocations?subject=a&user=b", 400, "name one of"),
        ("POST /v1/revocations?subject=a&for=0", 400, "a time such as 1h, at most 366d"),
        ("POST /v1/revocations?subject=a&for=2y", 400, "a time such as 1h, at most 366d"),
        ("POST /v1/revocations?subject=a&form=1h", 400, "unknown parameter \"form\""),
        ("GET /v1/revocations?limit=1001", 400, "1 to 1000 is expected"),
        ("GET /v1/revocations?subject=a", 400, "unknown parameter \"subject\""),
        ("DELETE /v1/revocations", 405, "GET or POST is expected"),
        ("GET /v1/revocations/1", 405, "DELETE is expected"),
        ("DELETE /v1/revocations/1", 404, "there is no revocation with this id"),
        ("DELETE /v1/revocations/x", 404, "there is no revocation with this id"),
        ("DELETE /v1/revocations/1?all=true", 400, "unknown parameter \"all\""),
    ] {
        let (found, answer) = ask(&server, line);
        assert_eq!(found, status, "{line}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(error), "{line}: {answer}");
    }
    assert_eq!(ask(&server, "GET /v1/revocations").1["held"], 0);
    ctl(&server, 2, &["revoke"]);
    ctl(&server, 2, &["revoke", "--subject", "a", "--user", "b"]);
    ctl(&server, 2, &["unrevoke"]);
    ctl(&server, 2, &["revoke", "--subject", "a", "--for", "soon"]);
}

#[test]
fn who_revokes_what_no_location_knows_is_warned() {
    let upstream = Upstream::echo();
    let server = start(
        "server { listen %%LISTEN_0%%; websocket_user $arg_user;
           location / { proxy_pass http://%%UP%%; } }",
        upstream.addr(),
    );
    let told = ctl(&server, 0, &["revoke", "--subject", "ann"]);
    assert!(told.contains("warning: no location has auth_jwt: this refuses nobody\n"), "{told}");
    assert!(told.contains("revoked (id 1), 0 closed\n"), "it is held all the same: {told}");
    let told = ctl(&server, 0, &["revoke", "--user", "ann"]);
    assert!(!told.contains("warning"), "{told}");
}

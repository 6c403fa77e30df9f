//! `websocket_expiry`.

use std::time::Duration;

use serde_json::json;
use wssgate_testkit::{Listener, Upstream, close, continuation, text};

use super::{handshake, in_seconds, now, start};

const CHAT: &str = "
    log_format ends '$uri $websocket_close_cause $websocket_close_code $websocket_closed_by';
    access_log %%DIR%%/ends.log ends;
    auth_jwt_key_file keys.json;
    server {
        listen %%LISTEN_0%%;
        auth_jwt chat;
        location / { proxy_pass http://%%UP%%; }
        location /off { websocket_expiry off; proxy_pass http://%%UP%%; }
        location /grace { websocket_expiry on grace=2s; proxy_pass http://%%UP%%; }
        location /leeway { auth_jwt_leeway 4s; proxy_pass http://%%UP%%; }
        location /both { auth_jwt_leeway 2s; websocket_expiry on grace=2s; proxy_pass http://%%UP%%; }
        location /short { websocket_max_lifetime 100ms jitter=0; proxy_pass http://%%UP%%; }
        location /any { satisfy any; allow all; proxy_pass http://%%UP%%; }
        location /unmet { satisfy any; deny all; auth_jwt_require $jwt_claim_admin;
            auth_request /yes; proxy_pass http://%%UP%%; }
        location = /yes { auth_jwt off; return 204; }
    }";

#[test]
fn an_expired_token_ends_its_websocket_between_two_frames_of_a_message() {
    let listener = Listener::bind();
    let server = start(CHAT, listener.addr());
    let expires = in_seconds(1);
    let (mut client, mut upstream) =
        handshake(&server, "/", &json!({"exp": expires})).open_with(&listener);
    upstream.send([text("one ").more()]);
    client.expect([text("one ").more()]);
    // The first half of a frame in the midst of the message.
    let frame = continuation("two").encode(None);
    upstream.send_raw(&frame[..3]);
    assert_eq!(client.recv_raw(3), frame[..3]);
    upstream.expect([close(1001, "credentials expired")]);
    assert!(now() >= Duration::from_secs(expires), "too early");
    upstream.send_raw(&frame[3..]);
    assert_eq!(client.recv_raw(frame.len() - 3), frame[3..]);
    client.expect([close(1008, "credentials expired")]);
    drop((client, upstream));
    server.wait_for_line("ends.log", "/ credentials 1008 proxy");
    server.wait_for_log(
        "WebSocket closed by the proxy with 1008, the token of the client has expired while",
    );
}

#[test]
fn grace_and_leeway_put_the_end_off() {
    let upstream = Upstream::echo();
    let server = start(CHAT, upstream.addr());
    // One that has expired already and is let in by the leeway alone.
    let (grace, leeway, both) = (in_seconds(0), in_seconds(0) - 2, in_seconds(0) - 1);
    let mut clients: Vec<_> =
        [("/grace", grace, grace + 2), ("/leeway", leeway, leeway + 4), ("/both", both, both + 4)]
            .map(|(path, expires, ends)| {
                (path, ends, handshake(&server, path, &json!({"exp": expires})).open())
            })
            .into();
    for (path, ends, client) in &mut clients {
        client.expect([close(1008, "credentials expired")]);
        assert!(now() >= Duration::from_secs(*ends), "{path}: too early");
    }
}

#[test]
fn only_a_token_that_let_it_in_and_has_a_time_ends_a_websocket() {
    let upstream = Upstream::echo();
    let server = start(CHAT, upstream.addr());
    let soon = json!({"exp": in_seconds(0)});
    let mut staying = [
        ("/", json!({})),
        ("/off", soon.clone()),
        // Its address lets it in, and nobody looks at the token.
        ("/any", soon.clone()),
        // Another location does, though the token is valid.
        ("/unmet", soon.clone()),
    ]
    .map(|(path, claims)| handshake(&server, path, &claims).open());
    // The earlier one of the two counts.
    let mut short = handshake(&server, "/short", &json!({"exp": in_seconds(60)})).open();
    short.expect([close(1001, "maximum lifetime reached")]);
    let mut ending = handshake(&server, "/", &soon).open();
    ending.expect([close(1008, "credentials expired")]);
    for client in &mut staying {
        client.send([text("still here")]);
        client.expect([text("still here")]);
    }
}

#[test]
fn a_reload_does_not_lose_the_end() {
    let upstream = Upstream::echo();
    let mut server = start(CHAT, upstream.addr());
    let mut client = handshake(&server, "/", &json!({"exp": in_seconds(1)})).open();
    server.rewrite_http(&CHAT.replace("auth_jwt chat;", "auth_jwt chat; websocket_expiry off;"));
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    // Who comes later is of the new configuration.
    let mut other = handshake(&server, "/", &json!({"exp": in_seconds(0)})).open();
    client.expect([close(1008, "credentials expired")]);
    other.send([text("still here")]);
    other.expect([text("still here")]);
}

/// What was valid when it was checked may not be any more when the upstream server has answered.
#[test]
fn a_token_that_expires_during_the_handshake_ends_its_websocket_at_once() {
    let listener = Listener::bind();
    let server = start(CHAT, listener.addr());
    let expires = in_seconds(0);
    let mut client = handshake(&server, "/", &json!({"exp": expires})).send();
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    while now() < Duration::from_secs(expires) {
        std::thread::sleep(Duration::from_secs(expires).saturating_sub(now()));
    }
    upstream.accept_websocket(&request, "");
    assert_eq!(client.recv_response().status, 101);
    client.expect([close(1008, "credentials expired")]);
}

//! WebSockets bound to credentials, with the real program: tokens that expire, servers that are asked again,
//! revocations.
#![allow(clippy::unwrap_used)]

mod expiry;
mod reauth;
mod revocations;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use wssgate_testkit::{Handshake, Instance};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// The wall clock, since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A time of day that is at least `ahead` seconds away, as tokens have it.
fn in_seconds(ahead: u64) -> u64 {
    now().as_secs() + ahead + 1
}

fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(b"secret").unwrap();
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// The program with the key of [`token`], running on what stands in its `http` block.
fn start(text: &str, up: impl std::fmt::Display) -> Instance {
    let key = json!({"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode("secret")});
    let setup = Instance::setup(EXE).file("keys.json", json!({ "keys": [key] }).to_string());
    setup.main_and_http("user root;", text).var("UP", up).start()
}

fn handshake(server: &Instance, path: &str, claims: &Value) -> Handshake {
    let bearer = format!("Bearer {}", token(claims));
    Handshake::to(server.listen(0)).path(path).field("Authorization", &bearer)
}

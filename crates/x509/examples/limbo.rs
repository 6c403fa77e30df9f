//! Judges the chains of x509-limbo (https://github.com/C2SP/x509-limbo), whose file is given, and writes
//! a line for each: its name, what we say, and why. `tests/tls_matrix/limbo.py` compares that with
//! OpenSSL.
#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use wssgate_x509::{Anchor, Certificate, Peer, RevocationList, Trust};

/// As many as Debian's nginx can be told.
const DEPTH: u32 = 6;

fn main() {
    let path = std::env::args().nth(1).expect("the path of limbo.json");
    let limbo: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for case in limbo["testcases"].as_array().unwrap() {
        let said =
            judge(case).map_or_else(|why| format!("FAILURE\t{why}"), |()| "SUCCESS\t".into());
        println!("{}\t{said}", case["id"].as_str().unwrap());
    }
}

fn judge(case: &Value) -> Result<(), String> {
    let is_server = case["validation_kind"] == "SERVER";
    let peer = if is_server { Peer::Server } else { Peer::Client };
    let anchors = all(&case["trusted_certs"]);
    let anchors = anchors.iter().map(|der| Anchor::parse(der, peer));
    let anchors: Option<Vec<_>> = anchors.collect();
    let lists: Option<Vec<_>> =
        all(&case["crls"]).iter().map(|der| RevocationList::parse(der)).collect();
    let trust = Trust::new(
        peer,
        anchors.ok_or("unreadable anchor")?,
        &lists.ok_or("unreadable list")?,
        case["max_chain_depth"].as_u64().map_or(DEPTH, |depth| depth.try_into().unwrap()),
    );
    let leaf = der(case["peer_certificate"].as_str().unwrap());
    let sent = all(&case["untrusted_intermediates"]);
    let time = case["validation_time"].as_str();
    let time = time.map_or_else(jiff::Timestamp::now, |time| time.parse().unwrap());
    trust
        .unwrap()
        .verify(&leaf, sent.iter().map(Vec::as_slice), time.as_second())
        .map_err(|fault| fault.to_string())?;
    match case["expected_peer_name"]["value"].as_str() {
        Some(name) if !Certificate::parse(&leaf).unwrap().is_for_host(name.as_bytes()) => {
            Err("hostname mismatch".to_owned())
        }
        _ => Ok(()),
    }
}

fn all(texts: &Value) -> Vec<Vec<u8>> {
    texts.as_array().unwrap().iter().map(|text| der(text.as_str().unwrap())).collect()
}

/// The content of the first block of PEM.
fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().skip_while(|line| !line.starts_with("-----BEGIN")).skip(1);
    let text: String = lines.take_while(|line| !line.starts_with("-----END")).collect();
    BASE64_STANDARD.decode(text).unwrap_or_default()
}

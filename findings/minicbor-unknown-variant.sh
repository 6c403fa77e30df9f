#!/usr/bin/env bash
# minicbor 2.3.1 (crates.io, with minicbor-derive): a derived Decode takes an optional field for a missing one if anything
# inside of it is an enum variant that it does not know, at whatever depth. The documentation promises that an unknown
# variant in an optional field is read as None; that it reaches through structs in between is easily missed. So a part
# whose sender knows a newer cipher does not fail to be read: the reader goes on as if there were none.
#
# Seen: the variant 7, which the reader does not have, is an error in a field that must be there, and makes a whole
# optional struct around it None without an error; its other field, which could be read, is lost with it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cargo init --quiet --vcs none --name probe
cat >>Cargo.toml <<'TOML'
minicbor = { version = "=2.3.1", features = ["alloc", "derive"] }
minicbor-derive = "=0.19.5"
TOML
cat >src/main.rs <<'RUST'
use minicbor::{Decode, Encode};

/// What the sender knows.
#[derive(Encode)]
#[cbor(map)]
struct Sent {
    #[n(0)]
    layer: Option<SentLayer>,
}

#[derive(Encode)]
#[cbor(map)]
struct SentLayer {
    #[n(0)]
    cipher: u8,
    #[n(1)]
    sequence: u64,
}

#[derive(Debug, Decode)]
#[cbor(index_only)]
enum Cipher {
    #[n(0)]
    A,
    #[n(1)]
    B,
}

#[derive(Debug, Decode)]
#[cbor(map)]
#[allow(dead_code)]
struct Layer {
    #[n(0)]
    cipher: Cipher,
    #[n(1)]
    sequence: u64,
}

#[derive(Debug, Decode)]
#[cbor(map)]
#[allow(dead_code)]
struct Optional {
    #[n(0)]
    layer: Option<Layer>,
}

#[derive(Debug, Decode)]
#[cbor(map)]
#[allow(dead_code)]
struct Required {
    #[n(0)]
    layer: Layer,
}

fn main() {
    for cipher in [1, 7] {
        let bytes = minicbor::to_vec(Sent { layer: Some(SentLayer { cipher, sequence: 5 }) }).unwrap();
        println!("{:?}", minicbor::decode::<Optional>(&bytes).map_err(|_| "error"));
        println!("{:?}", minicbor::decode::<Required>(&bytes).map_err(|_| "error"));
    }
}
RUST
seen=$(cargo run --quiet)
printf '%s\n' "$seen"
expected='Ok(Optional { layer: Some(Layer { cipher: B, sequence: 5 }) })
Ok(Required { layer: Layer { cipher: B, sequence: 5 } })
Ok(Optional { layer: None })
Err("error")'
[ "$seen" = "$expected" ] || { echo 'changed: minicbor 2.3.1 reads unknown variants otherwise' >&2; exit 1; }
echo 'as described'

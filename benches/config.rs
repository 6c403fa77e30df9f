//! Reading configurations of five megabytes: each shape must take less than a second, and twice the size no more than
//! about twice the time. What is read is made here; nothing of it leaves the process.

use std::fmt::Write as _;

use divan::Bencher;
use divan::counter::BytesCount;
use wssgate_config::load;
use wssgate_config::load::LoadOptions;

fn main() {
    divan::main();
}

/// The whole size, and half of it.
const SIZES: [usize; 2] = [5 << 20, 5 << 19];

/// Repeats what `part` writes for one number after the other until `size` bytes are there.
fn parts(size: usize, part: impl Fn(&mut String, usize)) -> String {
    let mut text = String::with_capacity(size + 4096);
    let mut number = 0;
    while text.len() < size {
        part(&mut text, number);
        number += 1;
    }
    text
}

fn read(bencher: Bencher<'_, '_>, http: &str) {
    let text = format!("events {{ }}\nhttp {{\n{http}}}\n");
    let bencher = bencher.counter(BytesCount::of_str(&text));
    // What was read is given back, and freed when nobody waits for it: servers keep it for a long time.
    bencher.bench(|| load(&LoadOptions::text(text.as_str())));
}

/// Sites with a group, a map, a page for errors and locations of their own.
#[divan::bench(args = SIZES, sample_count = 5)]
fn sites(bencher: Bencher<'_, '_>, size: usize) {
    let text = parts(size, |text, n| {
        let _ = write!(
            text,
            "map $http_x_{n} $own_{n} {{ default a; b c; }}
             upstream app_{n} {{ server 127.0.0.1:{port}; server 127.0.0.2:{port} backup; }}
             server {{
                 listen 80;
                 server_name s{n}.example.com www.s{n}.example.com;
                 error_page 502 503 504 /50x.html;
                 proxy_set_header Host $host;
                 proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection upgrade;
                 location / {{ proxy_pass http://app_{n}; proxy_read_timeout 1h; }}
                 location /api/ {{ proxy_pass http://127.0.0.3:{port}/v1/; add_header X-Own $own_{n}; }}
                 location ~ ^/files/(.*)$ {{ root /srv/{n}; try_files /$1 =404; }}
             }}\n",
            port = 1024 + n % 60_000,
        );
    });
    read(bencher, &text);
}

/// One map of many keys.
#[divan::bench(args = SIZES, sample_count = 5)]
fn map(bencher: Bencher<'_, '_>, size: usize) {
    let entries = parts(size, |text, n| {
        let _ = writeln!(text, "key{n}.example.com backend-{n};");
    });
    read(bencher, &format!("map $host $backend {{ {entries} }} server {{ return 200 $backend; }}"));
}

/// One list of many networks.
#[divan::bench(args = SIZES, sample_count = 5)]
fn geo(bencher: Bencher<'_, '_>, size: usize) {
    let entries = parts(size, |text, n| {
        let (a, b, c) = (1 + n / 65_536 % 200, n / 256 % 256, n % 256);
        let _ = writeln!(text, "{a}.{b}.{c}.0/24 zone-{n};");
    });
    read(bencher, &format!("geo $zone {{ {entries} }} server {{ return 200 $zone; }}"));
}

/// One server of many locations.
#[divan::bench(args = SIZES, sample_count = 5)]
fn locations(bencher: Bencher<'_, '_>, size: usize) {
    let text = parts(size, |text, n| {
        let _ = writeln!(
            text,
            "location /path/{n}/ {{ set $v{n} a; proxy_pass http://127.0.0.1:3000; proxy_set_header X-N $v{n}; }}
             location ~ ^/regex/{n}/x$ {{ return 200 $v{n}; }}"
        );
    });
    read(bencher, &format!("server {{ {text} }}"));
}

/// Nothing that anybody knows: as much as is refused must not take longer.
#[divan::bench(args = SIZES, sample_count = 5)]
fn unknown_directives(bencher: Bencher<'_, '_>, size: usize) {
    let text = parts(size, |text, n| {
        let _ = writeln!(text, "proxy_sett_header_{n} $unknown_{n} b;");
    });
    read(bencher, &text);
}

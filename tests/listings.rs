//! Directory listings where they meet many files and local time. How they look besides is
//! held against nginx by `tests/like_nginx.rs`.
#![allow(clippy::unwrap_used)]

use std::fs;

use wssgate_testkit::{Conn, Instance, http, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// Enough for dozens of pieces.
const MANY: usize = 15_000;

#[test]
fn a_large_listing_is_whole() {
    let mut bodies = Vec::new();
    for exe in with_nginx(WSSGATE) {
        let setup =
            Instance::setup(exe).file("html/a.txt", "small").file("html/many/index", "").http(
                "server { listen %%LISTEN_0%%; root %%DIR%%/html;
                     location /many/ { autoindex on; autoindex_format xml; } }",
            );
        let many = setup.dir().join("html/many");
        for at in 0..MANY {
            fs::write(many.join(format!("file with a name of some length {at}")), "").unwrap();
        }
        let server = setup.start();
        let mut waiting = Conn::connect(server.listen(0));
        waiting.send_raw("GET /many/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let head = waiting.try_recv_head().unwrap();
        assert_eq!(head.field("content-type"), Some("text/xml; charset=utf-8"), "{exe}");
        assert_eq!(http::get(server.listen(0), "a.test", "/a.txt").text(), "small", "{exe}");
        let whole = http::get(server.listen(0), "a.test", "/many/").text();
        let names = names(&whole);
        assert_eq!(names.len(), MANY + 1, "{exe}");
        bodies.push(names);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
}

/// The elements without their attributes.
fn names(list: &str) -> Vec<String> {
    let elements = list.lines().filter(|line| line.starts_with("<file "));
    elements.filter_map(|line| Some(line.split_once('>')?.1.to_owned())).collect()
}

#[test]
fn local_time_is_that_of_today() {
    for exe in with_nginx(WSSGATE) {
        let setup = Instance::setup(exe).env("TZ", "HERE-5:30").file("html/a.txt", "").http(
            "server { listen %%LISTEN_0%%; root %%DIR%%/html; autoindex on; autoindex_localtime on;
                     location /utc/ { autoindex_localtime off; alias %%DIR%%/html/; }
                     location /xml/ { autoindex_format xml; alias %%DIR%%/html/; } }",
        );
        let file = fs::File::options().write(true).open(setup.dir().join("html/a.txt")).unwrap();
        let changed = std::time::Duration::from_secs(1_000_000_000);
        file.set_modified(std::time::UNIX_EPOCH + changed).unwrap();
        let server = setup.start();
        for (path, expected) in [
            ("/", "09-Sep-2001 07:16 "),
            ("/utc/", "09-Sep-2001 01:46 "),
            ("/xml/", "<file mtime=\"2001-09-09T01:46:40Z\" size=\"0\">a.txt</file>"),
        ] {
            let listing = http::get(server.listen(0), "a.test", path).text();
            assert!(listing.contains(expected), "{exe} {path}: {listing}");
        }
    }
}

//! `$tcpinfo_*`: what the kernel measures of a client's connection.
#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Addr, Handshake, Instance, Pki, Upstream, http, text, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");
const ALL: &str = "$tcpinfo_rtt,$tcpinfo_rttvar,$tcpinfo_snd_cwnd,$tcpinfo_rcv_space";

/// Whether these are the four values of a connection on this machine: microseconds that are neither
/// nanoseconds nor milliseconds, the ten segments of RFC 6928, and a window of kilobytes.
fn are_plausible(values: &str) -> bool {
    let values: Vec<u32> = values.split(',').filter_map(|value| value.parse().ok()).collect();
    match values[..] {
        [rtt, rttvar, cwnd, space] => {
            let times = 1..5_000_000;
            times.contains(&rtt) && times.contains(&rttvar) && cwnd >= 10 && space >= 4096
        }
        _ => false,
    }
}

#[test]
fn a_request_is_told_what_is_measured_of_its_connection() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .http(&format!(
                "ssl_certificate {}; ssl_certificate_key {}; log_format all \"[{ALL}]\";
                 server {{ listen %%LISTEN_0%%; listen %%LISTEN_1%% ssl; listen unix:%%DIR%%/socket;
                     access_log %%DIR%%/access.log all; location / {{ return 200 \"{ALL}\"; }} }}",
                leaf.fullchain.display(),
                leaf.key.display(),
            ))
            .start();
        let plain = http::get(server.listen(0), "a", "/").text();
        assert!(are_plausible(&plain), "{exe}: {plain}");
        let logged = server.wait_for_access("[");
        assert!(are_plausible(logged.trim_matches(['[', ']'])), "{exe}: {logged}");
        let client = Handshake::to(server.listen(1)).tls(pki.client_config(), "localhost");
        let secured = client.answer().1.text();
        assert!(are_plausible(&secured), "{exe}: {secured}");
        let unix = http::get(Addr::Unix(server.dir().join("socket")), "a", "/").text();
        assert_eq!(unix, ",,,", "{exe}");
        server.wait_for_access("[-,-,-,-]");
    }
}

/// The first line is made at the switch, the second when the tunnel has ended and its socket is gone.
#[test]
fn the_line_of_a_tunnel_has_what_was_measured_at_the_switch() {
    let upstream = Upstream::echo();
    let server = Instance::setup(WSSGATE)
        .http(&format!(
            "log_format first \"first [{ALL}]\"; log_format second \"second [{ALL}]\";
             map $bytes_sent $late {{ default yes; }}
             server {{ listen %%LISTEN_0%%; location / {{ proxy_pass http://%%UP%%;
                 access_log %%DIR%%/access.log first; }}
                 location /late {{ proxy_pass http://%%UP%%;
                 access_log %%DIR%%/access.log second if=$late; }} }}"
        ))
        .var("UP", upstream.addr())
        .start();
    for (path, word) in [("/", "first ["), ("/late", "second [")] {
        let mut client = Handshake::to(server.listen(0)).path(path).open();
        client.send([text("hello")]);
        client.expect([text("hello")]);
        drop(client);
        let line = server.wait_for_access(word);
        let values = line.trim_start_matches(word).trim_end_matches(']');
        assert!(are_plausible(values), "{line}");
    }
}

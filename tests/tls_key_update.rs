//! Traffic keys that OpenSSL's client changes in the middle of a WebSocket (TLS 1.3, RFC 8446 §4.6.3).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use wssgate_testkit::{Frame, GUARD, Instance, Listener, Pki, close, skipped, text};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");
const CONF: &str = r"
    server {
        listen %%LISTEN_0%% ssl;
        ssl_certificate %%CHAIN%%;
        ssl_certificate_key %%KEY%%;
        location / { proxy_pass http://%%UP%%; }
    }
";

/// With ASCII under it every byte has its high bit, so nothing of a frame is one of the letters that
/// `s_client` obeys.
const MASK: [u8; 4] = [0x81, 0x92, 0xa3, 0xb4];

#[test]
fn keys_change_under_a_tunnel_when_the_client_says_so() {
    if Command::new("openssl").arg("version").output().is_err() {
        skipped("key updates: no openssl");
        return;
    }
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let listener = Listener::bind();
    let server = Instance::setup(EXE)
        .http(CONF)
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .var("UP", listener.addr())
        .start();
    let mut client = SClient::connect(server.listen(0), &pki.root_path(), server.dir());
    client.send(
        b"GET /keys HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
          Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut upstream = listener.accept();
    let request = upstream.recv_request();
    upstream.accept_websocket(&request, "");
    let head = client.recv_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");

    let mut exchange = |client: &mut SClient, message: &str| {
        client.send(&text(message).encode(Some(MASK)));
        upstream.expect([text(message)]);
        let answer = text(&message.to_uppercase());
        upstream.send([answer.clone()]);
        client.expect(&answer);
    };
    exchange(&mut client, "before");
    // `K` asks for ours as well, `k` does not; both go out with the next bytes of the client.
    for (round, letter) in "KkKKkk".chars().enumerate() {
        client.update_keys(letter);
        exchange(&mut client, &format!("after {letter}, round {round}"));
        exchange(&mut client, &"in several records ".repeat(4_000));
    }
    // Its own six, and ours for each of the three that were asked for.
    assert_eq!((client.updates(">>>"), client.updates("<<<")), (6, 3));

    let bye = close(1000, "bye");
    client.send(&bye.encode(Some(MASK)));
    upstream.expect([bye.clone()]);
    upstream.send([bye.clone()]);
    client.expect(&bye);
    upstream.shutdown_write().unwrap();
    // It ends by itself, and without an error only after a close_notify.
    assert!(client.end().success());
    upstream.expect_eof();
    server.wait_for_access("\"GET /keys HTTP/1.1\" 101 ");
    assert!(!server.error_log().contains("TLS error on the client"), "{}", server.error_log());
    assert!(server.stop().success());
}

/// `openssl s_client`, which obeys a read of its stdin that begins with one of its letters, and sends
/// every other.
struct SClient {
    child: Child,
    stdin: ChildStdin,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    /// What the server said and nobody has looked at.
    unread: Vec<u8>,
    /// What it tells of itself.
    told: String,
    /// Its list of TLS messages.
    messages: PathBuf,
}

impl SClient {
    fn connect(addr: SocketAddr, root: &Path, dir: &Path) -> Self {
        let messages = dir.join("messages");
        let mut child = Command::new("openssl")
            .args(["s_client", "-brief", "-tls1_3", "-verify_return_error"])
            .args(["-servername", "localhost", "-verify_hostname", "localhost"])
            .arg("-connect")
            .arg(addr.to_string())
            .arg("-CAfile")
            .arg(root)
            .args(["-msg", "-msgfile"])
            .arg(&messages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = pump(child.stdout.take().unwrap());
        let stderr = pump(child.stderr.take().unwrap());
        let (unread, told) = (Vec::new(), String::new());
        let mut client = Self { child, stdin, stdout, stderr, unread, told, messages };
        client.wait_until_told("CONNECTION ESTABLISHED");
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stdin.write_all(bytes).unwrap();
    }

    /// Only while nothing else is on its way to it: the letter must begin a read.
    fn update_keys(&mut self, letter: char) {
        self.told.clear();
        self.send(&[letter as u8, b'\n']);
        self.wait_until_told("KEYUPDATE");
    }

    fn wait_until_told(&mut self, what: &str) {
        while !self.told.contains(what) {
            let more = self.stderr.recv_timeout(GUARD);
            let more = more.unwrap_or_else(|_| panic!("waited for {what:?}, got {}", self.told));
            self.told.push_str(&String::from_utf8_lossy(&more));
        }
    }

    fn recv_more(&mut self) {
        let more = self.stdout.recv_timeout(GUARD);
        self.unread.extend(
            more.unwrap_or_else(|_| panic!("waited for bytes, got {} of them", self.unread.len())),
        );
    }

    fn recv_head(&mut self) -> String {
        loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.unread.drain(..at + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            self.recv_more();
        }
    }

    fn expect(&mut self, frame: &Frame) {
        let expected = frame.encode(None);
        while self.unread.len() < expected.len() {
            self.recv_more();
        }
        let got: Vec<u8> = self.unread.drain(..expected.len()).collect();
        assert!(got == expected, "not {frame:?}");
    }

    /// How many KeyUpdates went this way.
    fn updates(&self, way: &str) -> usize {
        let messages = fs::read_to_string(&self.messages).unwrap();
        messages.lines().filter(|line| line.starts_with(way) && line.contains("KeyUpdate")).count()
    }

    /// Waits for its end, before which it says nothing more.
    fn end(&mut self) -> ExitStatus {
        assert!(self.stdout.recv_timeout(GUARD).is_err() && self.unread.is_empty());
        let deadline = Instant::now() + GUARD;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "openssl does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for SClient {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe to its end on a thread, so that waiting for it can end.
fn pump(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

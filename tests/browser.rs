//! The demo's page in a real browser: chat, push and what the app server saw, through two hops.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use wssgate_testkit::{GUARD, net::free_addr_on, program};

#[test]
fn a_person_uses_the_demo() {
    const WHAT: &str = "the demo in a browser";
    let Some(chromium) = program::chromium(WHAT) else { return };
    let Some(mut python) = program::python(WHAT, "websockets") else { return };
    // Kept, so that a person can look at the pictures.
    let directory = tempfile::tempdir().unwrap().keep();
    eprintln!("screenshots: {}", directory.display());
    let demo = Demo::start(&directory);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/demo.py");
    let python = python.arg(script).args([chromium, &*demo.url]).arg(&directory);
    let shown = program::run(python.env("HOME", &directory));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();

    assert_eq!(text("state"), "open · wss://");
    assert!(text("chat").ends_with("hello through two hops ✓"), "{shown:#}");
    assert!(text("push").contains("you requested"), "{shown:#}");
    assert!(text("people").contains("1 person"), "{shown:#}");
    assert!(text("round trips").parse::<f64>().is_ok_and(|ms| ms > 0.0), "{shown:#}");
    assert_eq!(shown["wider than a phone"], false);
    let request = text("request");
    let mut lines = request.lines();
    assert_eq!(lines.next(), Some("GET /ws HTTP/1.1"));
    let field = |name: &str| {
        let found = request.lines().find_map(|line| line.split_once(": ").filter(|f| f.0 == name));
        found.map(|(_, value)| value)
    };
    assert_eq!(field("Host"), Some("chat.example.com"));
    assert_eq!(field("X-Real-IP"), Some("127.0.0.1"));
    let forwarded = field("X-Forwarded-For").unwrap();
    assert!(["127.0.0.1, 127.0.0.1", "::1, 127.0.0.1"].contains(&forwarded), "{forwarded}");
    assert_eq!(field("Connection"), Some("upgrade"));
    assert_eq!(field("Upgrade"), Some("websocket"));
    for picture in ["light.png", "dark.png", "narrow.png"] {
        let len = fs::metadata(directory.join(picture)).unwrap().len();
        assert!(len > 10_000, "{picture} has {len} bytes");
    }
    // The browser's profile is large and of no interest.
    fs::remove_dir_all(directory.join("profile")).unwrap();
    assert!(demo.stop().success());
}

/// `wssgate demo`, killed when dropped.
struct Demo {
    child: Child,
    url: String,
}

impl Demo {
    /// Starts it with a development CA of its own and waits until it says where to look.
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wssgate"));
        command.arg("demo").env("HOME", directory).env("XDG_DATA_HOME", directory);
        for option in ["--port", "--gateway-port", "--app-port"] {
            let port = free_addr_on(Ipv4Addr::LOCALHOST.into()).port();
            command.args([option, &port.to_string()]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut url = None;
        let mut line = String::new();
        while url.is_none() && output.read_line(&mut line).unwrap() > 0 {
            url = line
                .split_whitespace()
                .find(|word| word.starts_with("https://"))
                .map(str::to_owned);
            line.clear();
        }
        // What else it prints must not fill the pipe.
        thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Self { child, url: url.expect("the demo prints its URL") }
    }

    /// Ctrl-C.
    fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let deadline = Instant::now() + GUARD;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the demo does not stop");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

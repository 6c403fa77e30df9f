//! The demo's page in a real browser: chat, push, reloads, a lost connection and what the app server saw.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wssgate_testkit::{GUARD, net::free_addr_on, program};

#[test]
fn people_use_the_demo() {
    const WHAT: &str = "the demo in a browser";
    let Some(chromium) = program::chromium(WHAT) else { return };
    let Some(mut python) = program::python(WHAT, "websockets") else { return };
    // Kept, so that a person can look at the pictures.
    let directory = tempfile::tempdir().unwrap().keep();
    eprintln!("screenshots: {}", directory.display());
    let demo = Demo::start(&directory, [(); 3].map(|()| free_port()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/demo.py");
    let python = python.arg(script).args([chromium, &*demo.url]).arg(&directory);
    let (shown, demo) = watch(python.env("HOME", &directory), demo, &directory);

    talked(&shown["talk"]);
    reloaded(&shown["reload"]);
    lost_and_found(&shown["lost"]);
    received(shown["request"].as_str().unwrap());
    let text = |key: &str| shown[key].as_str().unwrap_or_default();
    assert!(text("round trips").parse::<f64>().is_ok_and(|ms| ms > 0.0), "{shown:#}");
    for label in [" ms", "30 s ago", "now"] {
        assert!(text("axis").contains(label), "{label}: {shown:#}");
    }
    let port = demo.ports[0];
    let next = format!(" proxy --from localhost:{port} --to 3000");
    assert!(shown["next"][0].as_str().unwrap().ends_with(&next), "{shown:#}");
    let nothing = json!({"light": [], "dark": [], "narrow": [], "smallest": []});
    assert_eq!(shown["cut off"], nothing);
    assert_eq!(shown["violations"], json!([]));
    assert_eq!(shown["injected"], false);
    assert_ne!(shown["caught"], json!([]), "the policy is in force");
    for picture in ["light", "dark", "narrow", "smallest", "lost"] {
        let len = fs::metadata(directory.join(picture).with_extension("png")).unwrap().len();
        assert!(len > 10_000, "{picture} has {len} bytes");
    }
    // The browser's profile is large and of no interest.
    fs::remove_dir_all(directory.join("profile")).unwrap();
    assert!(demo.stop().success());
}

/// One's own messages are marked, and a push reaches only who asked.
fn talked(shown: &Value) {
    assert_eq!(shown["state"], "open · wss://");
    assert_eq!(shown["people"], "· 2 people here");
    assert_eq!(shown["mine"], json!(["You\nhello through two hops ✓"]));
    assert_eq!(shown["others"], json!(["Guest 2\nhello from another tab"]));
    assert_eq!(shown["mine of the other"], json!(["You\nhello from another tab"]));
    assert_eq!(shown["push"], json!(["App server, to you\nthe push that you requested"]));
    assert_eq!(shown["push of the other"], json!([]));
}

/// A reload builds a new generation, or fails, and leaves every socket as it was.
fn reloaded(shown: &Value) {
    for (number, verdict) in [2, 3].iter().zip(shown["verdicts"].as_array().unwrap()) {
        let verdict = verdict.as_str().unwrap();
        let (took, kept) = verdict.split_once(" ms. ").unwrap_or_else(|| panic!("{verdict}"));
        assert!(took.starts_with(&format!("Generation {number} took over after ")), "{verdict}");
        assert_eq!(kept, "All 8 WebSockets stayed open and answer; no message was dropped.");
    }
    assert_eq!(shown["failure"], "Not reloaded: failed; the terminal says why");
    assert_eq!(shown["sockets kept"], 8);
    for (key, expected) in [("sockets shown", "8"), ("reloads", "2"), ("dropped", "0")] {
        assert_eq!(shown[key], expected, "{key}");
    }
    assert_eq!(shown["hops"], json!(["generation 3", "generation 3"]));
    assert_eq!((&shown["without the header"], &shown["by a link"]), (&json!(403), &json!(405)));
    assert_eq!(shown["generation in the end"], 3);
}

/// A lost connection is one state and one line, and comes back by itself.
fn lost_and_found(shown: &Value) {
    let attempt = shown["state"].as_str().unwrap().strip_prefix("reconnecting… attempt ");
    assert!(attempt.is_some_and(|number| number.parse::<u32>().unwrap() >= 3), "{shown:#}");
    let notes = |key: &str| shown[key].as_array().unwrap().clone();
    assert_eq!(notes("notes").len(), 1, "{shown:#}");
    assert!(
        notes("notes")[0].as_str().unwrap().starts_with("Connection lost (code 10"),
        "{shown:#}"
    );
    assert_eq!(shown["cut off when lost"], json!([]));
    assert_eq!(shown["sockets when lost"], "0");
    assert_eq!(notes("notes in the end").len(), 1, "{shown:#}");
    let note = notes("notes in the end")[0].as_str().unwrap().to_owned();
    assert!(note.starts_with("Connection lost for ") && note.contains(" s, back after "), "{note}");
    assert_eq!(shown["draft"], "a draft");
    assert_eq!((&shown["generation"], &shown["dropped"]), (&json!("generation 1"), &json!("0")));
}

/// What both hops say reaches the app server.
fn received(request: &str) {
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
}

/// Runs the script, does to the demo what it says, and gives what it saw and the demo of the end.
fn watch(command: &mut Command, demo: Demo, directory: &Path) -> (Value, Demo) {
    let ports = demo.ports;
    let mut demo = Some(demo);
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = script.stdin.take().unwrap();
    let mut output = BufReader::new(script.stdout.take().unwrap()).lines();
    let key = directory.join("wssgate/dev-ca/leaf-localhost.key");
    let elsewhere = directory.join("elsewhere.key");
    let shown = loop {
        let line = output.next().expect("the script says what it saw").unwrap();
        match &*line {
            "spoil" => fs::rename(&key, &elsewhere).unwrap(),
            "mend" => fs::rename(&elsewhere, &key).unwrap(),
            "stop" => assert!(demo.take().unwrap().stop().success()),
            "start" => demo = Some(Demo::start(directory, ports)),
            _ => break line,
        }
        input.write_all(b"done\n").unwrap();
    };
    assert!(script.wait().unwrap().success());
    (serde_json::from_str(&shown).unwrap(), demo.unwrap())
}

fn free_port() -> u16 {
    free_addr_on(Ipv4Addr::LOCALHOST.into()).port()
}

/// `wssgate demo`, killed when dropped.
struct Demo {
    child: Child,
    url: String,
    ports: [u16; 3],
}

impl Demo {
    /// Starts it with a development CA of its own and waits until it says where to look.
    fn start(directory: &Path, ports: [u16; 3]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wssgate"));
        command.arg("demo").env("HOME", directory).env("XDG_DATA_HOME", directory);
        for (option, port) in ["--port", "--gateway-port", "--app-port"].iter().zip(ports) {
            command.arg(option).arg(port.to_string());
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
        Self { child, url: url.expect("the demo prints its URL"), ports }
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

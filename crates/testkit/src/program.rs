//! Programs of others that tests drive: Python and node with their packages, Chromium.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use crate::{GUARD, skipped};

const CHROMIUM: [&str; 3] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// Where `tests/node/install` puts packages.
const NODE_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/node/node_modules");

/// `$WSSGATE_TEST_PYTHON` or python3, if it has this module; else `what` is said to be skipped.
pub fn python(what: &str, module: &str) -> Option<Command> {
    let python = env::var("WSSGATE_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let command = || {
        let mut command = Command::new(&python);
        // Scripts are in the repository; what Python makes of them must not be.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    if !succeeds(command().args(["-c", &format!("import {module}")])) {
        skipped(&format!("{what}: no {module} for {python} (or $WSSGATE_TEST_PYTHON)"));
        return None;
    }
    Some(command())
}

/// node, if it has this package; else `what` is said to be skipped.
pub fn node(what: &str, package: &str) -> Option<Command> {
    let command = || {
        let mut command = Command::new("node");
        command.env("NODE_PATH", env::var("NODE_PATH").unwrap_or_else(|_| NODE_PATH.into()));
        command
    };
    if !succeeds(command().args(["-e", &format!("require.resolve('{package}')")])) {
        skipped(&format!("{what}: no node with {package}, see tests/node/install"));
        return None;
    }
    Some(command())
}

/// Chromium, if there is one; else `what` is said to be skipped.
pub fn chromium(what: &str) -> Option<&'static str> {
    let found = CHROMIUM.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        skipped(&format!("{what}: no chromium"));
    }
    found
}

fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A server in another language that prints its port and then what happens, a line for each. It runs
/// until it is dropped.
#[derive(Debug)]
pub struct Script {
    child: Child,
    port: u16,
    lines: Receiver<String>,
}

impl Script {
    /// Starts it and waits for its port.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = lines_of(child.stdout.take().expect("it is piped"));
        let mut script = Self { child, port: 0, lines };
        script.port = script.next_line().parse().expect("the first line is a port");
        script
    }

    /// The port on 127.0.0.1 where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it says next; waits for it.
    #[track_caller]
    pub fn next_line(&self) -> String {
        let line = self.lines.recv_timeout(GUARD);
        line.unwrap_or_else(|error| panic!("waited for a line of a script: {error}"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines in a thread of its own, which ends with the program.
fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(stdout).lines();
        lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

/// Runs a program to its end, which must be a success, and returns what it printed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Directives that the environment adds to the `http` block of long runs: `$WSSGATE_TEST_DIRECTIVES`.
pub fn more_directives() -> String {
    env::var("WSSGATE_TEST_DIRECTIVES").unwrap_or_default()
}

//! `wssgate upgrade`: has a running server replaced by another program file, and tells what came of it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use thiserror::Error;
use wssgate_proxy::errno_text;

use crate::console;
use crate::ctl_command::{Client, CtlError, ServerArgs, print};

/// How long the new program may take to test the configuration: as long as it may take to start.
const CHECK_TIME: Duration = Duration::from_secs(100);

/// How often it looks whether that is done.
const LOOK: Duration = Duration::from_millis(10);

/// The command line of `wssgate upgrade`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpgradeArgs {
    /// Program file to start [default: the path that the server was started from]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print what the server answers, as JSON
    #[arg(long)]
    json: bool,
}

/// Why nothing was upgraded.
#[derive(Debug, Error)]
enum UpgradeError {
    #[error(transparent)]
    Ctl(#[from] CtlError),
    #[error("{} cannot be started ({})", .0.display(), errno_text(.1))]
    NotStarted(PathBuf, io::Error),
    #[error("{} does not accept the configuration ({})", .0.display(), .1)]
    NotAccepted(PathBuf, ExitStatus),
    #[error("{} has not tested the configuration within {} seconds", .0.display(), CHECK_TIME.as_secs())]
    Hangs(PathBuf),
    #[error(
        "the server says that it is process {told}, and is {found} here: run this where its process is, such as in \
         its container"
    )]
    Elsewhere { told: u64, found: u64 },
    #[error("{message}: nothing was upgraded, process {pid} goes on")]
    NotUpgraded { message: String, pid: u64 },
}

/// Does it.
pub(crate) fn run(args: &UpgradeArgs) -> ExitCode {
    match args.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::say(error);
            ExitCode::FAILURE
        }
    }
}

impl UpgradeArgs {
    fn run(&self) -> Result<(), UpgradeError> {
        let client = Client::new(self.server.socket()?);
        let status = client.get("status", &[])?;
        let (pid, version) = (number(&status["pid"]), text(&status["version"]));
        self.tell(&format!("process {pid} runs wssgate {version}"))?;
        // Its arguments and directory are looked up by that number.
        let found = client.server()?;
        if found != pid {
            return Err(UpgradeError::Elsewhere { told: pid, found });
        }
        let binary =
            self.binary.as_deref().map(|path| std::path::absolute(path).unwrap_or(path.into()));
        if let Some(path) = binary.clone().or_else(|| status["program"].as_str().map(PathBuf::from))
        {
            check(&path, pid)?;
            self.tell(&format!("{} accepts its configuration", path.display()))?;
        }
        let revocations = client.get("revocations", &[("limit", "1".to_owned())]);
        let lost = revocations.map_or(0, |revocations| number(&revocations["held"]));
        let query = binary.map(|path| ("binary", path.to_string_lossy().into_owned()));
        let upgraded = client.post("upgrade", query.as_slice()).map_err(|error| match error {
            CtlError::Refused { message, .. } => UpgradeError::NotUpgraded { message, pid },
            other => other.into(),
        })?;
        if self.json {
            return Ok(print(&format!("{upgraded:#}\n"))?);
        }
        Ok(print(&result(&upgraded, lost))?)
    }

    /// Shows how far it is.
    fn tell(&self, text: &str) -> Result<(), CtlError> {
        if self.json { Ok(()) } else { print(&format!("{text}\n")) }
    }
}

/// Has a program test the configuration that a process was started with.
fn check(binary: &Path, pid: u64) -> Result<(), UpgradeError> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut command = Command::new(binary);
    let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
    command.args(arguments_in(&arguments)).args(["-t", "-q"]);
    // Of relative paths. Who may not look there sees the same directory in most cases.
    if let Ok(directory) = fs::read_link(process.join("cwd")) {
        command.current_dir(directory);
    }
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let not_started = |error| UpgradeError::NotStarted(binary.to_owned(), error);
    let mut child = started.map_err(not_started)?;
    let until = Instant::now() + CHECK_TIME;
    loop {
        match child.try_wait().map_err(not_started)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(UpgradeError::NotAccepted(binary.to_owned(), status)),
            None if Instant::now() < until => thread::sleep(LOOK),
            None => {
                // It may just have ended.
                let _ = child.kill();
                let _ = child.wait();
                return Err(UpgradeError::Hangs(binary.to_owned()));
            }
        }
    }
}

/// The arguments in a `/proc/PID/cmdline`, each of which ends with a null byte; empty ones among them.
fn arguments_in(line: &[u8]) -> impl Iterator<Item = &OsStr> {
    let line = line.strip_suffix(&[0]).unwrap_or(line);
    line.split(|&byte| byte == 0).skip(1).map(OsStr::from_bytes)
}

/// What has come of it, in words; so many revocations were `lost`.
fn result(upgraded: &Value, lost: u64) -> String {
    let [from, to] = ["from", "to"].map(|side| number(&upgraded[side]["pid"]));
    let sockets = counted(number(&upgraded["sockets"]), "listening socket");
    let connections = number(&upgraded["remaining"]["connections"]);
    let mut words = format!(
        "process {to} runs wssgate {} in its place: {sockets} inherited\n",
        text(&upgraded["to"]["version"])
    );
    if let moved @ 1.. = number(&upgraded["moved"]) {
        let have = if moved == 1 { "has" } else { "have" };
        words += &format!("{} {have} moved to it\n", counted(moved, "tunnel"));
    }
    words += &match connections {
        0 => format!("process {from} has no connections left and ends\n"),
        _ => {
            let tunnels = counted(number(&upgraded["remaining"]["tunnels"]), "tunnel");
            let left = counted(connections, "connection");
            format!(
                "process {from} has {left} left, among them {tunnels}, and ends with the last one\n"
            )
        }
    };
    if lost > 0 {
        let (lost, are) = (counted(lost, "revocation"), if lost == 1 { "is" } else { "are" });
        words += &format!("{lost} of process {from} {are} lost: revoke again\n");
    }
    words
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("of an unknown version")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_result_says_who_serves_and_what_is_left() {
        let answer = |connections: u64| {
            json!({
                "from": {"pid": 1, "version": "0.1.0"}, "to": {"pid": 2, "version": "0.2.0"},
                "sockets": 3, "moved": connections * 5,
                "remaining": {"connections": connections, "tunnels": 1},
            })
        };
        assert_eq!(
            result(&answer(2), 0),
            "process 2 runs wssgate 0.2.0 in its place: 3 listening sockets inherited\n\
             10 tunnels have moved to it\n\
             process 1 has 2 connections left, among them 1 tunnel, and ends with the last one\n"
        );
        assert!(result(&answer(0), 0).ends_with("process 1 has no connections left and ends\n"));
        for (lost, told) in
            [(1, "1 revocation of process 1 is"), (2, "2 revocations of process 1 are")]
        {
            assert!(
                result(&answer(0), lost).ends_with(&format!("ends\n{told} lost: revoke again\n"))
            );
        }
    }

    #[test]
    fn no_argument_is_dropped() {
        let arguments = |line: &[u8]| arguments_in(line).map(OsStr::to_owned).collect::<Vec<_>>();
        assert_eq!(arguments(b"a\0-g\0\0-p\0x\0"), ["-g", "", "-p", "x"]);
        assert_eq!(arguments(b"a\0-g\0\0"), ["-g", ""]);
        assert_eq!(arguments(b"a\0"), [""; 0]);
        assert_eq!(arguments(b""), [""; 0]);
    }
}

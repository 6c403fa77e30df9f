//! `wssgate upgrade`: has a running server replaced by another program file, and tells what came of it.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use clap::Args;
use serde_json::Value;
use thiserror::Error;
use wssgate_proxy::errno_text;

use crate::console;
use crate::ctl_command::{Client, CtlError, ServerArgs, print};

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
        let binary =
            self.binary.as_deref().map(|path| std::path::absolute(path).unwrap_or(path.into()));
        if let Some(path) = binary.clone().or_else(|| program_of(pid)) {
            check(&path, pid)?;
            self.tell(&format!("{} accepts its configuration", path.display()))?;
        }
        let query = binary.map(|path| ("binary", path.to_string_lossy().into_owned()));
        let upgraded = client.post("upgrade", query.as_slice()).map_err(|error| match error {
            CtlError::Refused { message, .. } => UpgradeError::NotUpgraded { message, pid },
            other => other.into(),
        })?;
        if self.json {
            return Ok(print(&format!("{upgraded:#}\n"))?);
        }
        Ok(print(&result(&upgraded))?)
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
    let arguments = arguments.split(|&byte| byte == 0).skip(1).filter(|word| !word.is_empty());
    command.args(arguments.map(std::ffi::OsStr::from_bytes)).args(["-t", "-q"]);
    // Of relative paths. Who may not look there sees the same directory in most cases.
    if let Ok(directory) = fs::read_link(process.join("cwd")) {
        command.current_dir(directory);
    }
    let tested = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    match tested {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(UpgradeError::NotAccepted(binary.to_owned(), status)),
        Err(error) => Err(UpgradeError::NotStarted(binary.to_owned(), error)),
    }
}

/// The file that is now where the program of a process was started from, as far as we may see that.
fn program_of(pid: u64) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?.into_os_string().into_vec();
    let path = path.strip_suffix(b" (deleted)").map(<[u8]>::to_vec).unwrap_or(path);
    let path = PathBuf::from(std::ffi::OsString::from_vec(path));
    path.is_file().then_some(path)
}

/// What has come of it, in words.
fn result(upgraded: &Value) -> String {
    let [from, to] = ["from", "to"].map(|side| number(&upgraded[side]["pid"]));
    let sockets = counted(number(&upgraded["sockets"]), "listening socket");
    let connections = number(&upgraded["remaining"]["connections"]);
    let mut words = format!(
        "process {to} runs wssgate {} in its place: {sockets} inherited\n",
        text(&upgraded["to"]["version"])
    );
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
                "sockets": 3, "remaining": {"connections": connections, "tunnels": 1},
            })
        };
        assert_eq!(
            result(&answer(2)),
            "process 2 runs wssgate 0.2.0 in its place: 3 listening sockets inherited\n\
             process 1 has 2 connections left, among them 1 tunnel, and ends with the last one\n"
        );
        assert!(result(&answer(0)).ends_with("process 1 has no connections left and ends\n"));
    }
}

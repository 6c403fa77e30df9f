//! A program of the operator's that changes the zone.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a program may take, unless it was told otherwise.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is read of a program's complaints; it can go on, nobody keeps it.
const MAX_COMPLAINTS: usize = 16 << 10;

/// How long its pipe may stay open behind a program that has ended: somebody it has started may still
/// hold it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What killed processes are sent.
const SIGKILL: i32 = 9;

/// A program that is called with `present` or `cleanup`, the name with a final dot, and the value.
///
/// It is called without a shell, in a process group of its own, with nothing on its standard input.
/// Besides our environment it has `ACME_ACTION` (also as `WSSGATE_ACME_ACTION`), `ACME_DOMAIN`,
/// `ACME_RECORD` and `ACME_VALUE`, and what certbot calls those: `CERTBOT_DOMAIN` and
/// `CERTBOT_VALIDATION`.
#[derive(Clone, Debug)]
pub struct Hook {
    program: PathBuf,
    args: Vec<String>,
    patience: Duration,
}

impl Hook {
    /// Calls `program` with `args` before what is said of the record.
    pub fn new(program: PathBuf, args: Vec<String>) -> Self {
        Self { program, args, patience: PATIENCE }
    }

    /// How long it may take.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Adds the TXT record `value` at `name` beside those that are there.
    ///
    /// # Errors
    /// When the program cannot be started, takes too long or ends with anything but 0.
    pub async fn present(&self, name: &str, value: &str) -> Result<(), String> {
        self.call("present", name, value).await
    }

    /// Takes this record away.
    ///
    /// # Errors
    /// As for [`Hook::present`].
    pub async fn cleanup(&self, name: &str, value: &str) -> Result<(), String> {
        self.call("cleanup", name, value).await
    }

    async fn call(&self, action: &str, name: &str, value: &str) -> Result<(), String> {
        let program = self.program.display();
        let mut child = self
            .command(action, name, value)
            .spawn()
            .map_err(|error| format!("cannot start \"{program}\": {}", words(&error)))?;
        let mut complaints = Complaints::new(child.stderr.take());
        let group = Group(Arc::new(Mutex::new(Some(child.id()))));
        let ours = Arc::clone(&group.0);
        // Whatever becomes of this future, somebody waits for the child, so it leaves no zombie.
        let waiting =
            timeout_at(Instant::now() + self.patience, spawn_blocking(move || wait(child, &ours)));
        let ended = tokio::select! {
            ended = waiting => ended,
            never = complaints.hear() => match never {},
        };
        drop(group);
        // Somebody else may hold the pipe.
        let _ = timeout(LAST_WORDS, complaints.hear_out()).await;
        let status = match ended {
            Ok(Ok(Ok(status))) if status.success() => return Ok(()),
            Ok(Ok(Ok(status))) => ended_with(status),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("was killed: it took more than {} seconds", self.patience.as_secs()),
        };
        Err(match complaints.last_line() {
            Some(line) => format!("\"{program} {action}\" {status}: {line}"),
            None => format!("\"{program} {action}\" {status}"),
        })
    }

    fn command(&self, action: &str, name: &str, value: &str) -> Command {
        let domain = name.strip_prefix("_acme-challenge.").unwrap_or(name);
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .args([action, &format!("{name}."), value])
            .env("ACME_ACTION", action)
            .env("WSSGATE_ACME_ACTION", action)
            .env("ACME_DOMAIN", domain)
            .env("ACME_RECORD", name)
            .env("ACME_VALUE", value)
            .env("CERTBOT_DOMAIN", domain)
            .env("CERTBOT_VALIDATION", value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }
}

/// A group of processes, which ends with this: its number, for as long as that is nobody else's.
struct Group(Arc<Mutex<Option<u32>>>);

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn kill(group: Option<u32>) {
    if let Some(group) = group.and_then(|group| i32::try_from(group).ok()) {
        // There is none left when all of it has ended.
        let _ = wssgate_sys::process::kill(-group, SIGKILL);
    }
}

/// Waits for the first of a group, and ends what it has started and not waited for. Until the child has been waited
/// for, the group's number is given to nobody else.
fn wait(mut child: Child, group: &Mutex<Option<u32>>) -> io::Result<ExitStatus> {
    // Where this fails, so does what follows.
    let _ = wssgate_sys::process::wait_for_end(child.id());
    kill(group.lock().unwrap_or_else(PoisonError::into_inner).take());
    child.wait()
}

/// What a program complains about.
struct Complaints {
    pipe: Option<Receiver>,
    said: Vec<u8>,
}

impl Complaints {
    fn new(pipe: Option<ChildStderr>) -> Self {
        // Without it only the reason is missing.
        let pipe = pipe.and_then(|pipe| Receiver::from_owned_fd(OwnedFd::from(pipe)).ok());
        Self { pipe, said: Vec::new() }
    }

    /// Hears what is said to its end.
    async fn hear_out(&mut self) {
        let mut piece = [0; 4096];
        let Some(pipe) = &mut self.pipe else { return };
        while let Ok(len @ 1..) = pipe.read(&mut piece).await {
            self.said.extend_from_slice(&piece[..len]);
            // The last line is what counts.
            let surplus = self.said.len().saturating_sub(MAX_COMPLAINTS);
            self.said.drain(..surplus);
        }
        self.pipe = None;
    }

    /// Hears what is said for as long as it is asked to.
    async fn hear(&mut self) -> Infallible {
        self.hear_out().await;
        pending().await
    }

    /// The last line that says something.
    fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.said);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().filter(|letter| !letter.is_control()).take(300).collect())
    }
}

fn ended_with(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The system's words.
fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("({number}: {})", wssgate_sys::process::error_text(number)),
        None => error.to_string(),
    }
}

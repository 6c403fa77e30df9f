//! A program of the operator's that changes the zone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
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
        let group = Group(child.id());
        let stderr = child.stderr.take().map(|pipe| Receiver::from_owned_fd(OwnedFd::from(pipe)));
        let stderr = stderr.transpose().map_err(|error| format!("\"{program}\": {error}"))?;
        let deadline = Instant::now() + self.patience;
        let complaints = tokio::spawn(complaints(stderr));
        // Whatever becomes of this future, somebody waits for the child, so it leaves no zombie.
        let waiting = spawn_blocking(move || wait(child));
        let ended = timeout_at(deadline, waiting).await;
        // Also what it has started and not waited for.
        drop(group);
        let said = timeout(LAST_WORDS, complaints).await;
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        let status = match ended {
            Ok(Ok(Ok(status))) if status.success() => return Ok(()),
            Ok(Ok(Ok(status))) => ended_with(status),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("was killed: it took more than {} seconds", self.patience.as_secs()),
        };
        Err(match last_line(&said) {
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

/// A group of processes, which ends with this.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0) {
            // There is none left when all of it has ended.
            let _ = wssgate_sys::process::kill(-group, SIGKILL);
        }
    }
}

fn wait(mut child: Child) -> io::Result<ExitStatus> {
    child.wait()
}

/// The beginning of what a program complains about, to its end.
async fn complaints(pipe: Option<Receiver>) -> String {
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    let Some(mut pipe) = pipe else { return String::new() };
    while let Ok(len @ 1..) = pipe.read(&mut piece).await {
        said.extend_from_slice(&piece[..len]);
        // The last line is what counts.
        let surplus = said.len().saturating_sub(MAX_COMPLAINTS);
        said.drain(..surplus);
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn last_line(text: &str) -> Option<String> {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|letter| !letter.is_control()).take(300).collect())
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

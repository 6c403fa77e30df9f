//! `wssgate ctl drain`, `drains` and `resume`.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::client::{self, Client, CtlError};
use super::{CtlArgs, FilterArgs, show};
use crate::console;

/// How often the server is asked how far a drain is, at most.
const TICK: Duration = Duration::from_millis(250);

/// How often lines are added where none can be changed, at most and at least; between them ten times in all.
const MOST_OFTEN: Duration = Duration::from_secs(1);
const LEAST_OFTEN: Duration = Duration::from_secs(60);

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// All WebSockets
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    manner: MannerArgs,
    /// Refuse new WebSockets with 503 in the locations of --server, --location or --upstream, until `resume` or a reload
    #[arg(long)]
    refuse_new: bool,
    /// When refused clients may come again (`Retry-After`), each at a random time of these [default: 10s-60s]
    #[arg(long, value_name = "MIN-MAX", requires = "refuse_new")]
    retry_after: Option<String>,
    /// Begin; without it they are only counted
    #[arg(long)]
    yes: bool,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct DrainsArgs {
    /// Let those stay who were not closed yet by the drain with this id
    #[arg(long, value_name = "ID")]
    cancel: Option<u64>,
}

/// How some are closed one after the other.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MannerArgs {
    /// The time from the first Close to the last, such as 30s or 10m
    #[arg(long, value_name = "TIME")]
    over: Option<String>,
    /// Code of the Close that clients are sent, such as 1012 or 4000 to 4999 [default: 1001]
    #[arg(long)]
    code: Option<u16>,
    /// Reason in it, at most 123 bytes
    #[arg(long, requires = "code", value_name = "TEXT")]
    reason: Option<String>,
    /// Who is closed first [default: oldest]
    #[arg(long, value_parser = ["oldest", "idlest"])]
    order: Option<String>,
    /// Those who would be closed within such a time are closed in random order [default: a tenth of the time]
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct ResumeArgs {
    /// First name of the server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The location as it is written, without its modifier
    #[arg(long)]
    location: Option<String>,
    /// Name of the upstream in `proxy_pass`
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Everywhere
    #[arg(long)]
    all: bool,
}

impl MannerArgs {
    /// As parameters of a request.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let Self { over, code, reason, order, jitter } = self;
        let code = code.map(|code| code.to_string());
        let all = [
            ("over", over),
            ("code", &code),
            ("reason", reason),
            ("order", order),
            ("jitter", jitter),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

impl CtlArgs {
    pub(super) fn drain(&self, client: &Client, drain: &DrainArgs) -> Result<bool, CtlError> {
        let mut query = drain.filter.query();
        if query.is_empty() && !drain.all {
            return Err(CtlError::Usage("name a filter, or --all"));
        }
        if drain.manner.over.is_none() {
            return Err(CtlError::Usage(
                "say by --over how long it is to take, such as --over 60s",
            ));
        }
        query.extend(drain.manner.query());
        for (name, is_said) in
            [("all", drain.all), ("refuse_new", drain.refuse_new), ("dry_run", !drain.yes)]
        {
            query.extend(is_said.then(|| (name, "true".to_owned())));
        }
        query.extend(drain.retry_after.clone().map(|time| ("retry_after", time)));
        let answer = client.post("drains", &query)?;
        let matched = answer["matched"].as_u64().unwrap_or(0);
        if !drain.yes {
            self.print(&answer, || format!("{matched} would be closed; add --yes to begin\n"))?;
            tell_staying(&answer);
            return Ok(false);
        }
        self.follow_drain(client, &answer, drain.detach)
    }

    /// Tells how far a drain is that has begun, until it is over; says whether all that were meant have ended.
    pub(super) fn follow_drain(
        &self,
        client: &Client,
        answer: &Value,
        detach: bool,
    ) -> Result<bool, CtlError> {
        let mut drain = answer["drain"].clone();
        let id = drain["id"].as_u64().ok_or_else(|| client.unexpected())?;
        if detach {
            self.print(answer, || line(&drain) + "\n")?;
            tell_staying(answer);
            return Ok(true);
        }
        if self.json {
            self.print(answer, String::new)?;
        }
        let mut told = Progress::new(self.json);
        // Whether the server is about to end, with all that it has open.
        let mut is_ending = false;
        let has_ended = loop {
            let is_over = drain["state"] != "running" && is_over(&drain);
            told.tell(&drain, is_over)?;
            if is_over {
                told.end()?;
                break drain["state"] == "ended";
            }
            thread::sleep(told.tick(&drain));
            match ask(client, id, &drain) {
                Ok(Asked::Same(now)) => drain = now,
                Ok(Asked::Other) => {
                    told.end()?;
                    console::say(
                        "another server answers there now; the drain goes on in the old one, \
                         whose error log says how far it is",
                    );
                    break false;
                }
                Err(error) if is_gone(&error) => {
                    told.end()?;
                    let left = number(&drain, "tunnels").saturating_sub(number(&drain, "told"));
                    let all_told = !drain["tunnels"].is_null() && left == 0;
                    if all_told || is_ending {
                        console::say("the server has ended");
                        break true;
                    }
                    console::say(format_args!(
                        "the server has ended; {left} had not been closed when it was asked last"
                    ));
                    break false;
                }
                Err(error) => {
                    told.end()?;
                    return Err(error);
                }
            }
            // What cannot be asked is seen the next time.
            if let Ok(status) = client.get("status", &[]) {
                is_ending = matches!(status["phase"].as_str(), Some("draining" | "stopping"));
            }
        };
        Ok(has_ended & !tell_staying(answer))
    }

    pub(super) fn drains(&self, client: &Client, drains: &DrainsArgs) -> Result<bool, CtlError> {
        if let Some(id) = drains.cancel {
            let answer = client.post(&format!("drains/{id}/cancel"), &[])?;
            return self.print(&answer, || line(&answer) + "\n");
        }
        let answer = client.get("drains", &[])?;
        self.print(&answer, || {
            let lines = show::array(&answer["drains"]).iter().map(|drain| line(drain) + "\n");
            let refusing = show::array(&answer["refusing"]).iter().map(|place| {
                let (location, server) =
                    (show::text(&place["location"]), show::text(&place["server"]));
                format!("no new WebSockets in location {location} of server {server}\n")
            });
            let told: String = lines.chain(refusing).collect();
            if told.is_empty() { "no drains\n".to_owned() } else { told }
        })
    }

    pub(super) fn resume(&self, client: &Client, resume: &ResumeArgs) -> Result<bool, CtlError> {
        let ResumeArgs { server, location, upstream, all } = resume;
        if !all && [server, location, upstream].into_iter().all(Option::is_none) {
            let usage = "name a location by --server, --location or --upstream, or say --all";
            return Err(CtlError::Usage(usage));
        }
        let names = [("server", server), ("location", location), ("upstream", upstream)];
        let names = names.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let all = all.then(|| ("all", "true".to_owned()));
        let answer = client.post("resume", &names.chain(all).collect::<Vec<_>>())?;
        let resumed = answer["resumed"].as_u64().unwrap_or(0);
        self.print(&answer, || match resumed {
            1 => "new WebSockets are let in again in 1 location\n".to_owned(),
            _ => format!("new WebSockets are let in again in {resumed} locations\n"),
        })?;
        Ok(resumed > 0)
    }
}

/// Tells how many stay because they cannot be drained; says whether there are any.
fn tell_staying(answer: &Value) -> bool {
    let staying = match answer["staying"].as_u64().unwrap_or(0) {
        0 => return false,
        1 => "1 stays: its frames are not known".to_owned(),
        staying => format!("{staying} stay: their frames are not known"),
    };
    console::say(staying);
    true
}

/// Who answers when a drain is asked about.
enum Asked {
    /// The server that it has begun in; this is known of it now.
    Same(Value),
    /// Another one, which has taken the socket.
    Other,
}

fn ask(client: &Client, id: u64, drain: &Value) -> Result<Asked, CtlError> {
    let get = || client.get(&format!("drains/{id}"), &[]);
    let asked = get().or_else(|error| match error {
        // It may have ended in the middle of the answer: then nobody is there the next time.
        CtlError::Io { .. } | CtlError::Unexpected(_) => {
            thread::sleep(TICK);
            get()
        }
        error => Err(error),
    });
    match asked {
        Ok(now) if now["started"] == drain["started"] => Ok(Asked::Same(now)),
        Ok(_) | Err(CtlError::Refused { status: 404, .. }) => Ok(Asked::Other),
        Err(error) => Err(error),
    }
}

/// Whether there is no server any more.
fn is_gone(error: &CtlError) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error, CtlError::Connect { source, .. } if matches!(source.kind(), NotFound | ConnectionRefused))
}

/// What is told of a drain while it goes on: in a terminal a line that changes, else a line for each change; with
/// JSON one answer a line.
struct Progress {
    json: bool,
    terminal: bool,
    last: Option<(String, Instant)>,
    began: Instant,
}

fn seconds(value: &Value) -> Duration {
    Duration::try_from_secs_f64(value.as_f64().unwrap_or(0.0)).unwrap_or_default()
}

impl Progress {
    fn new(json: bool) -> Self {
        let terminal = !json && io::stdout().is_terminal();
        Self { json, terminal, last: None, began: Instant::now() }
    }

    /// When to ask again: soon at first, for a short drain is over soon.
    fn tick(&self, drain: &Value) -> Duration {
        let share = seconds(&drain["over"]).max(self.began.elapsed()) / 20;
        share.clamp(Duration::from_millis(20), TICK)
    }

    fn tell(&mut self, drain: &Value, is_last: bool) -> Result<(), CtlError> {
        let line = if self.json { counts(drain).to_string() } else { line(drain) };
        let interval = match self.terminal {
            true => Duration::ZERO,
            false => (seconds(&drain["over"]) / 10).clamp(MOST_OFTEN, LEAST_OFTEN),
        };
        let is_news =
            |(last, at): &(String, Instant)| *last != line && (is_last || at.elapsed() >= interval);
        if !self.last.as_ref().is_none_or(is_news) {
            return Ok(());
        }
        // Back to the beginning of the line, and nothing of the last one left.
        let text = if self.terminal { format!("\r\x1b[K{line}") } else { format!("{line}\n") };
        client::print(&text)?;
        let _ = io::stdout().flush();
        self.last = Some((line, Instant::now()));
        Ok(())
    }

    fn end(&self) -> Result<(), CtlError> {
        if self.terminal { client::print("\n") } else { Ok(()) }
    }
}

/// What of an answer tells how far it is.
fn counts(drain: &Value) -> Value {
    let member = |name: &str| drain[name].clone();
    json!({
        "id": member("id"),
        "state": member("state"),
        "tunnels": member("tunnels"),
        "told": member("told"),
        "ended": member("ended"),
        "spared": member("spared"),
    })
}

/// Whether nobody is left; of a cancelled one some may be closing still.
fn is_over(drain: &Value) -> bool {
    !drain["tunnels"].is_null()
        && number(drain, "ended") + number(drain, "spared") >= number(drain, "tunnels")
}

fn number(drain: &Value, name: &str) -> u64 {
    drain[name].as_u64().unwrap_or(0)
}

/// One drain in a line.
fn line(drain: &Value) -> String {
    let number = |name: &str| number(drain, name);
    let (id, what) = (number("id"), show::text(&drain["what"]));
    let Some(tunnels) = drain["tunnels"].as_u64() else {
        return format!("drain {id} of {what}: counting");
    };
    let spared = match number("spared") {
        0 => String::new(),
        spared => format!(", {spared} left to stay or to another drain"),
    };
    let (told, ended) = (number("told"), number("ended"));
    let over = show::seconds(&drain["over"]);
    match drain["state"].as_str() {
        Some("running") => format!(
            "drain {id} of {what}: {told} of {tunnels} closed over {over}, {ended} have ended{spared}"
        ),
        Some("cancelled") => format!("drain {id} of {what}: cancelled, {ended} have ended{spared}"),
        _ => {
            let took = show::seconds(&drain["took"]);
            format!("drain {id} of {what}: {ended} ended in {took}{spared}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_told_in_a_line() {
        let drain = |state: &str, [tunnels, told, ended, spared]: [u64; 4]| {
            json!({"id": 3, "what": "user=ann", "state": state, "over": 60.0, "took": 61.2,
                "tunnels": tunnels, "told": told, "ended": ended, "spared": spared})
        };
        for (drain, expected, over) in [
            (
                drain("running", [10, 4, 3, 0]),
                "drain 3 of user=ann: 4 of 10 closed over 1m0s, 3 have ended",
                false,
            ),
            (drain("ended", [10, 9, 10, 0]), "drain 3 of user=ann: 10 ended in 1m1s", true),
            (
                drain("cancelled", [10, 4, 3, 6]),
                "drain 3 of user=ann: cancelled, 3 have ended, 6 left to stay or to another drain",
                false,
            ),
            (
                json!({"id": 3, "what": "a\u{1b}b", "state": "running", "tunnels": null}),
                "drain 3 of a\\u{1b}b: counting",
                false,
            ),
        ] {
            assert_eq!((line(&drain).as_str(), is_over(&drain)), (expected, over));
        }
    }
}

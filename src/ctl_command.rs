//! `wssgate ctl`: asks a running server over its admin socket, and tells it what to do (`docs/ctl.md`).

mod client;
mod drain;
mod revocations;
mod show;
mod tap;
mod top;
mod upstreams;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wssgate_proxy::errno_text;

pub(crate) use self::client::{Client, CtlError, print};
use self::drain::{DrainArgs, DrainsArgs, ResumeArgs};
use self::upstreams::ChangeArgs;
use crate::console;
use crate::load;
use crate::options::Options;

/// Over how long current rates are told: a little more than the least that a server does.
const CURRENT_TIME: Duration = Duration::from_millis(1_100);

/// The command line of `wssgate ctl`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct CtlArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    server: ServerArgs,
    /// Print what the server answers, as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
enum Action {
    /// List live WebSockets and other tunnels
    List(ListArgs),
    /// Show everything that is known of one
    Show {
        /// Its id, as `list` and error log lines (*ID) have it
        id: String,
    },
    /// Close some between two messages
    ///
    /// Without --code clients are sent a Close with code 1001 and no reason. Upstream servers are always sent
    /// 1001. The exit code is 0 if something was closed.
    Kill(KillArgs),
    /// Show the frames of some WebSockets while they pass
    ///
    /// Headers only, unless --payload is given and `websocket_tap payload` allows it. Ends when all of them have
    /// ended; Ctrl-C ends it before. Those that begin later are not shown.
    Tap(tap::TapArgs),
    /// Watch it all on the whole screen: rates, the busiest tunnels; keys sort, filter and close
    Top(top::TopArgs),
    /// Refuse clients by what they were let in with, and close their WebSockets
    ///
    /// Those that are open are closed with code 1008, and new ones are refused with 401 until the time is over,
    /// or the revocation is removed. Reloads keep revocations, a restart of the server does not.
    Revoke(revocations::RevokeArgs),
    /// List what is revoked
    Revocations,
    /// Remove revocations before their time is over
    Unrevoke {
        /// Ids, as `revocations` has them
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Close some one after the other, evenly spread over a time, and tell how far it is
    ///
    /// An interrupt ends only the telling; the drain goes on. The exit code is 0 if all that match have ended, 1 if
    /// they were only counted, the drain was cancelled, or some stay because their frames are not known.
    Drain(DrainArgs),
    /// Show drains, also those of reloads and QUIT, and where new WebSockets are refused
    Drains(DrainsArgs),
    /// Let new WebSockets in again where `drain --refuse-new` refuses them
    Resume(ResumeArgs),
    /// Show version, uptime, generations and how much is open
    Status,
    /// Reload the configuration, and tell what is wrong with it
    ///
    /// The exit code is 1 if it was refused; then the previous configuration stays in effect.
    Reload,
    /// Show upstream servers: whether they are used, connections, failures; or change how one is used
    ///
    /// Changes last until the next reload.
    Upstreams {
        #[command(subcommand)]
        change: Option<ChangeArgs>,
    },
    /// Show or set the level of all error logs until the next reload
    LogLevel {
        /// debug, info, notice, warn, error, crit, alert or emerg; configured for what the configuration says
        level: Option<String>,
    },
}

/// Which server.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerArgs {
    /// Its admin socket [default: the one of the configuration]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Configuration file that it was started with
    #[arg(short, value_name = "FILE", global = true)]
    conf: Option<PathBuf>,
    /// Directory that relative paths are resolved against
    #[arg(short, value_name = "DIRECTORY", global = true)]
    prefix: Option<PathBuf>,
    /// Directives to read before the file
    #[arg(short, value_name = "DIRECTIVES", global = true)]
    globals: Option<String>,
}

/// Which tunnels; all that is said must fit.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
struct FilterArgs {
    /// Whom they belong to (`websocket_user`); "" for nobody
    #[arg(long)]
    user: Option<String>,
    /// Address or network of the client
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Name of an upstream, or address of one of its servers
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// First name of the server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The location as it is written, without its modifier
    #[arg(long)]
    location: Option<String>,
    /// The subprotocol that was agreed on; "" for none
    #[arg(long, value_name = "NAME")]
    subprotocol: Option<String>,
    /// The subject of the token (`auth_jwt`), its claim `sub`; "" for none
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The ID of the token (`auth_jwt`), its claim `jti`; "" for none
    #[arg(long, value_name = "TEXT")]
    token_id: Option<String>,
    /// Number of the configuration that they began with
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
    /// Number of the worker, from 0 on
    #[arg(long, value_name = "NUMBER")]
    worker: Option<usize>,
    /// At least this old, such as 90s or 1h30m
    #[arg(long, value_name = "TIME")]
    min_age: Option<String>,
    /// Without any byte for at least this long
    #[arg(long, value_name = "TIME")]
    min_idle: Option<String>,
    /// At least so many bytes a second, both ways together, over the whole life
    #[arg(long, value_name = "BYTES")]
    min_rate: Option<u64>,
    /// One side took at least this long to answer our last ping
    #[arg(long, value_name = "TIME")]
    min_rtt: Option<String>,
}

impl FilterArgs {
    /// As parameters of a request.
    fn query(&self) -> Vec<(&'static str, String)> {
        let Self {
            user,
            client,
            upstream,
            server,
            location,
            subprotocol,
            subject,
            token_id,
            generation,
            worker,
            min_age,
            min_idle,
            min_rate,
            min_rtt,
        } = self;
        let texts = [
            ("user", user),
            ("client", client),
            ("upstream", upstream),
            ("server", server),
            ("location", location),
            ("subprotocol", subprotocol),
            ("subject", subject),
            ("token_id", token_id),
            ("min_age", min_age),
            ("min_idle", min_idle),
            ("min_rtt", min_rtt),
        ];
        let numbers = [
            ("generation", *generation),
            ("worker", worker.map(|worker| worker as u64)),
            ("min_rate", *min_rate),
        ];
        let texts = texts.into_iter().map(|(name, text)| (name, text.clone()));
        let numbers = numbers.map(|(name, number)| (name, number.map(|number| number.to_string())));
        texts.chain(numbers).filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// By what they are ordered
    #[arg(long, value_name = "KEY", default_value = "id")]
    #[arg(value_parser = ["id", "age", "idle", "messages", "bytes", "rate", "current", "rtt"])]
    sort: String,
    /// Which end comes first [default: desc, for id asc]
    #[arg(long, value_parser = ["asc", "desc"])]
    order: Option<String>,
    /// How many are shown
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Show all that fit
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
struct KillArgs {
    /// Ids, as `list` has them
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Code of the Close that clients are sent, such as 1008, 1012 or 4000 to 4999
    #[arg(long)]
    code: Option<u16>,
    /// Reason in it, at most 123 bytes
    #[arg(long, requires = "code", value_name = "TEXT")]
    reason: Option<String>,
    /// Close all that fit; without it they are only counted
    #[arg(long)]
    yes: bool,
}

/// Does what is asked.
pub(crate) fn run(args: &CtlArgs) -> ExitCode {
    match args.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            console::say(&error);
            match error {
                // Without a terminal there is nothing wrong with the command line.
                CtlError::Usage(_) if matches!(args.action, Action::Top(_)) => ExitCode::FAILURE,
                // As what the parser of the command line refuses.
                CtlError::Usage(_) | CtlError::Refused { status: 400, .. } => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

impl CtlArgs {
    fn run(&self) -> Result<bool, CtlError> {
        let socket = self.server.socket()?;
        let client = Client::new(socket.clone());
        match &self.action {
            Action::List(list) => self.list(&client, list),
            Action::Show { id } => {
                let shown = client.get(&format!("tunnels/{}", client::escaped(id)), &[])?;
                self.print(&shown, || show::tunnel(&shown))
            }
            Action::Top(top) => top::run(socket, top).map(|()| true),
            Action::Tap(tap) => tap::run(&client, tap, self.json),
            Action::Kill(kill) => self.kill(&client, kill),
            Action::Revoke(revoke) => {
                let answer = revoke.run(&client)?;
                if let Some(warning) = answer["warning"].as_str() {
                    console::say(format_args!("warning: {warning}"));
                }
                self.print(&answer, || revocations::revoked(&answer))
            }
            Action::Revocations => {
                let list = revocations::list(&client)?;
                self.print(&list, || revocations::revocations(&list))
            }
            Action::Unrevoke { ids } => {
                let (answer, all) = revocations::remove(&client, ids)?;
                let count = show::array(&answer["removed"]).len();
                self.print(&answer, || format!("{count} removed\n"))?;
                Ok(all)
            }
            Action::Drain(drain) => self.drain(&client, drain),
            Action::Drains(drains) => self.drains(&client, drains),
            Action::Resume(resume) => self.resume(&client, resume),
            Action::Status => {
                let status = client.get("status", &[])?;
                self.print(&status, || show::pairs(&status))
            }
            Action::Reload => {
                let (status, reloaded) = client.post_for_status("reload", &[])?;
                self.print(&reloaded, || show::reloaded(&reloaded))?;
                Ok(status == 200)
            }
            Action::Upstreams { change } => self.upstreams(&client, change.as_ref()),
            Action::LogLevel { level } => {
                let answer = match level {
                    Some(level) => client.post("log-level", &[("level", level.clone())])?,
                    None => client.get("log-level", &[])?,
                };
                self.print(&answer, || show::log_level(&answer))
            }
        }
    }

    fn print(&self, answer: &Value, text: impl FnOnce() -> String) -> Result<bool, CtlError> {
        client::print(&if self.json { format!("{answer:#}\n") } else { text() })?;
        Ok(true)
    }

    /// Asks for one page after the other until all are there that are wanted.
    fn list(&self, client: &Client, list: &ListArgs) -> Result<bool, CtlError> {
        let limit = if list.all { u64::MAX } else { list.limit };
        // From page to page a tunnel may pass another in idle time or bytes, and would be missed: what does not fit
        // into one page is asked for in the order of numbers, and sorted here.
        let sorts_here = limit > client::MAX_ROWS && !matches!(list.sort.as_str(), "id" | "age");
        if list.sort == "current" {
            // What passes now is the difference of two looks.
            client.get("tunnels", &[("current", "true".to_owned()), ("limit", "1".to_owned())])?;
            thread::sleep(CURRENT_TIME);
        }
        let mut wanted = if sorts_here { u64::MAX } else { limit };
        let (mut tunnels, mut after, mut matched) = (Vec::new(), None, 0);
        loop {
            let mut query = list.filter.query();
            if sorts_here {
                query.push(("current", (list.sort == "current").to_string()));
            } else {
                query.push(("sort", list.sort.clone()));
                query.extend(list.order.clone().map(|order| ("order", order)));
            }
            query.push(("limit", wanted.min(client::MAX_ROWS).to_string()));
            query.extend(after.map(|after| ("after", after)));
            let mut page = client.get("tunnels", &query)?;
            let Value::Array(rows) = page["tunnels"].take() else {
                return Err(client.unexpected());
            };
            matched = page["matched"].as_u64().unwrap_or(0).max(matched);
            wanted = wanted.saturating_sub(rows.len() as u64);
            tunnels.extend(rows);
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() || wanted == 0 {
                break;
            }
        }
        if sorts_here {
            sort(&mut tunnels, &list.sort, list.order.as_deref() == Some("asc"));
            tunnels.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        let shown = tunnels.len() as u64;
        let answer = json!({"matched": matched, "next": after, "tunnels": tunnels});
        self.print(&answer, || show::tunnels(&answer))?;
        if shown < matched && !self.json {
            eprintln!(
                "{shown} of {matched} shown; --all shows the others, filters make them fewer"
            );
        }
        Ok(true)
    }

    fn kill(&self, client: &Client, kill: &KillArgs) -> Result<bool, CtlError> {
        let mut words = Vec::new();
        words.extend(kill.code.map(|code| ("code", code.to_string())));
        words.extend(kill.reason.clone().map(|reason| ("reason", reason)));
        let filter = kill.filter.query();
        match (kill.ids.is_empty(), filter.is_empty() && !kill.all) {
            (true, true) => return Err(CtlError::Usage("name ids, a filter, or --all")),
            (false, false) => {
                return Err(CtlError::Usage("ids and filters cannot be used together"));
            }
            (false, true) => return self.kill_each(client, &kill.ids, &words),
            (true, false) => {}
        }
        let mut query = filter;
        if kill.all {
            query.push(("all", "true".to_owned()));
        }
        query.extend(words);
        if !kill.yes {
            query.push(("dry_run", "true".to_owned()));
        }
        let answer = client.post("tunnels/close", &query)?;
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        let (matched, closed) = (number("matched"), number("closed"));
        self.print(&answer, || match kill.yes {
            true => format!("{closed} closed\n"),
            false => format!("{matched} would be closed; add --yes to close them\n"),
        })?;
        Ok(closed > 0)
    }

    fn kill_each(
        &self,
        client: &Client,
        ids: &[String],
        words: &[(&'static str, String)],
    ) -> Result<bool, CtlError> {
        let mut closed = 0;
        for id in ids {
            let path = format!("tunnels/{}/close", client::escaped(id));
            match client.post(&path, words) {
                Ok(answer) => closed += answer["closed"].as_u64().unwrap_or(0),
                // The others are to be closed all the same.
                Err(CtlError::Refused { status: 404, .. }) => {
                    console::say(format_args!("{id}: there is no live WebSocket with this id"));
                }
                Err(error) => return Err(error),
            }
        }
        let answer = json!({"matched": ids.len(), "closed": closed});
        self.print(&answer, || format!("{closed} closed\n"))?;
        Ok(closed == ids.len() as u64)
    }
}

impl ServerArgs {
    /// Where the server listens: as it was said, or as its configuration says.
    pub(crate) fn socket(&self) -> Result<PathBuf, CtlError> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let mut options = Options {
            conf: self.conf.clone(),
            prefix: self.prefix.clone(),
            globals: self.globals.clone().map(String::into_bytes),
            ..Options::default()
        };
        options.find_places();
        let loaded = load::load(&options);
        let config = loaded.config.or(loaded.remains);
        let conf = options.conf_path();
        let Some(config) = config else {
            console::say_all(&loaded.report, &loaded.sources);
            return Err(CtlError::Configuration(conf));
        };
        config.core.admin.map(|admin| admin.path).ok_or(CtlError::Off(conf))
    }
}

/// What helps where a socket cannot be connected to.
fn help(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let text = errno_text(error);
    match error.kind() {
        NotFound | ConnectionRefused => format!(
            "{text}: no server runs with it; give the same -c, -p and -g as when the server was started, or --socket"
        ),
        PermissionDenied => format!(
            "{text}: only the user that started the server may use it, unless `admin` says otherwise with mode="
        ),
        _ => text,
    }
}
/// Sorts tunnels as the server does by this key.
fn sort(tunnels: &mut [Value], key: &str, ascends: bool) {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let sides = |tunnel: &Value, member: &str| {
        ["from_client", "from_upstream"].map(|side| number(&tunnel[side][member]))
    };
    let rank = |tunnel: &Value| match key {
        "messages" | "bytes" => sides(tunnel, key).iter().sum(),
        "rtt" => sides(tunnel, key).into_iter().fold(0.0, f64::max),
        "current" => number(&tunnel["current"]["bytes"]),
        _ => number(&tunnel[key]),
    };
    // Stable, so that numbers decide between equals.
    tunnels.sort_by(|one, other| match ascends {
        true => rank(one).total_cmp(&rank(other)),
        false => rank(other).total_cmp(&rank(one)),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_listings_are_sorted_here_as_the_server_sorts_short_ones() {
        let tunnel = |id: &str, idle: f64, [up, down]: [u64; 2], rtt: Value| {
            let upstream = json!({"messages": down, "bytes": 0});
            json!({"id": id, "idle": idle, "from_client": {"messages": up, "rtt": rtt}, "from_upstream": upstream})
        };
        let tunnels = [
            tunnel("1", 5.0, [1, 1], Value::Null),
            tunnel("2", 9.0, [0, 3], json!(0.2)),
            tunnel("3", 5.0, [0, 0], json!(0.1)),
        ];
        for (key, ascends, expected) in [
            ("idle", false, "213"),
            ("idle", true, "132"),
            ("messages", false, "213"),
            ("rtt", false, "231"),
        ] {
            let mut sorted = tunnels.to_vec();
            sort(&mut sorted, key, ascends);
            let ids: String = sorted.iter().filter_map(|one| one["id"].as_str()).collect();
            assert_eq!(ids, expected, "{key} {ascends}");
        }
    }
}

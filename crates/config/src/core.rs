//! The main level and `events`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Origin, Span};

use crate::directive::Arity::{Between, Exactly, Flag};
use crate::directive::{AnyDirective, Braces, Context, Directive, E, H, L, LI, M, S, SI, U, X};
use crate::level::{Level, walk};
use crate::log::{self, ErrorLog, LogLevel, LogTarget};
use crate::read::{
    Reading, Reads, directive_problem, duration, flag, invalid_parameter, number, parameter,
    prefix_path, present,
};
use crate::scope::{Scope, default_directives};
use crate::value::{self, Located};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &ADMIN,
    &DAEMON,
    &ENV,
    &EVENTS,
    &INCLUDE,
    &MASTER_PROCESS,
    &PID,
    &USE,
    &USER,
    &WORKER_CONNECTIONS,
    &WORKER_PROCESSES,
    &WORKER_RLIMIT_NOFILE,
    &WORKER_SHUTDOWN_TIMEOUT,
    &WORKING_DIRECTORY,
];

/// `admin`
pub(crate) static ADMIN: Directive<AdminLine> = Directive {
    name: "admin",
    contexts: M,
    arity: Between(1, 2),
    doc: "Sets the Unix socket that `wssgate ctl` uses and that answers HTTP requests in JSON \
          (ctl.md), as `unix:` and a path. `mode=` sets the permissions of the socket, `0600` by \
          default: whoever may write to it can list and close WebSockets and reload the \
          configuration. Without this directive the socket is next to the pid file \
          (`/run/nginx.admin.sock` for `/run/nginx.pid`), or there is none with `pid off`; one \
          that cannot be created there is only reported. `off` means no socket.",
    ..Directive::once(admin)
};

/// `daemon`
pub(crate) static DAEMON: Directive<bool> = Directive {
    name: "daemon",
    contexts: M,
    arity: Flag,
    default: "on",
    doc: "Runs in the background as a daemon.",
    ..Directive::once(flag)
};

/// `env`
pub(crate) static ENV: Directive<()> = Directive {
    name: "env",
    contexts: M,
    arity: Exactly(1),
    without_effect: "the process keeps its environment unchanged",
    ..Directive::repeated(present)
};

/// `events`
pub(crate) static EVENTS: Directive<()> = Directive {
    name: "events",
    contexts: M,
    arity: Exactly(0),
    doc: "Holds the directives that control connection processing.",
    braces: Braces::Level(Context::Events),
    ..Directive::once(present)
};

/// `include`
pub(crate) static INCLUDE: Directive<()> = Directive {
    name: "include",
    contexts: EVERYWHERE,
    arity: Exactly(1),
    doc: "Includes a file, or all files that match a mask.",
    ..Directive::repeated(present)
};

/// `master_process`
pub(crate) static MASTER_PROCESS: Directive<bool> = Directive {
    name: "master_process",
    contexts: M,
    arity: Flag,
    without_effect: "there is always a single process",
    ..Directive::once(flag)
};

/// `pid`
pub(crate) static PID: Directive<Option<PathBuf>> = Directive {
    name: "pid",
    contexts: M,
    arity: Exactly(1),
    default: "/run/nginx.pid",
    doc: "Sets the file that stores the process ID; with `off` there is none.",
    ..Directive::once(pid)
};

/// `use`
pub(crate) static USE: Directive<EventMethod> = Directive {
    name: "use",
    contexts: E,
    arity: Exactly(1),
    doc: "Selects how tunnels are served: `io_uring` submits the socket calls of several tunnels \
          at once, which takes less CPU; `epoll` makes each call separately. Without this \
          directive, and with any other method of nginx, `io_uring` is used where the kernel \
          allows it, so a `use epoll` that was only meant to select nginx's best method on Linux \
          can be removed.",
    ..Directive::once(event_method)
};

/// `user`
pub(crate) static USER: Directive<User> = Directive {
    name: "user",
    contexts: M,
    arity: Between(1, 2),
    doc: "Sets the user and group to run as when started as root.",
    ..Directive::once(user)
};

/// `worker_connections`
pub(crate) static WORKER_CONNECTIONS: Directive<u64> = Directive {
    name: "worker_connections",
    contexts: E,
    arity: Exactly(1),
    default: "512",
    doc: "Sets the maximum number of connections per worker.",
    ..Directive::once(number)
};

/// `worker_processes`
pub(crate) static WORKER_PROCESSES: Directive<Option<usize>> = Directive {
    name: "worker_processes",
    contexts: M,
    arity: Exactly(1),
    default: "1",
    doc: "Sets the number of workers; `auto` starts one per CPU core.",
    ..Directive::once(workers)
};

/// `worker_rlimit_nofile`
pub(crate) static WORKER_RLIMIT_NOFILE: Directive<u64> = Directive {
    name: "worker_rlimit_nofile",
    contexts: M,
    arity: Exactly(1),
    doc: "Sets the limit on open files (`RLIMIT_NOFILE`) of the process.",
    ..Directive::once(number)
};

/// `worker_shutdown_timeout`
pub(crate) static WORKER_SHUTDOWN_TIMEOUT: Directive<Duration> = Directive {
    name: "worker_shutdown_timeout",
    contexts: M,
    arity: Exactly(1),
    doc: "Sets how long connections may stay open after a reload or during a graceful shutdown; \
          then they are closed. WebSockets are sent a Close with code 1001, or that of \
          `websocket_drain`, between two frames and have one second to respond.",
    ..Directive::once(duration)
};

/// `working_directory`
pub(crate) static WORKING_DIRECTORY: Directive<PathBuf> = Directive {
    name: "working_directory",
    contexts: M,
    arity: Exactly(1),
    doc: "Sets the working directory of the process.",
    ..Directive::once(prefix_path)
};

const EVERYWHERE: u16 = M | E | H | S | L | SI | LI | X | U;

/// The socket of `wssgate ctl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it is.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// Whether nobody has asked for it; then it may be missing.
    pub is_default: bool,
}

impl Admin {
    /// The mode without `mode=`: nobody but the user that the server was started as.
    const MODE: u32 = 0o600;

    /// What there is without a line.
    fn beside(pid_file: &Path) -> Self {
        let mut path = pid_file.to_path_buf();
        if path.extension().is_some_and(|extension| extension == "pid") {
            path.set_extension("");
        }
        path.as_mut_os_string().push(".admin.sock");
        Self { path, mode: Self::MODE, is_default: true }
    }
}

/// `admin` as it is written.
#[derive(Clone, Debug)]
pub(crate) enum AdminLine {
    Off,
    At(Admin),
}

/// The main level and `events`.
#[derive(Clone, Debug)]
pub struct Core {
    /// `admin`: the socket of `wssgate ctl`.
    pub admin: Option<Admin>,
    /// `daemon`: go to the background.
    pub daemon: bool,
    /// `worker_processes`; `None` is `auto`.
    pub worker_processes: Option<usize>,
    /// `user`: whom to become when started as root.
    pub user: Option<Located<User>>,
    /// `pid`: the pid file, already relative to the prefix; `None` when `off`.
    pub pid: Option<PathBuf>,
    /// `error_log` lines of the main level.
    pub error_logs: Vec<ErrorLog>,
    /// `worker_rlimit_nofile`: descriptors this process may open.
    pub worker_rlimit_nofile: Option<u64>,
    /// `use`.
    pub event_method: EventMethod,
    /// `worker_connections`: connections per worker.
    pub worker_connections: usize,
    /// Where that was written; `None` for the default.
    pub worker_connections_at: Option<Span>,
    /// `worker_shutdown_timeout`: how long old connections may live after a reload or QUIT.
    pub worker_shutdown_timeout: Option<Duration>,
    /// `working_directory`.
    pub working_directory: Option<PathBuf>,
}

/// `use`: how tunnels are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventMethod {
    /// By the best method that the kernel has and allows.
    Best,
    /// epoll tells which sockets are ready, and each is read and written by a system call.
    Epoll,
    /// The same, with the calls of several sockets made at once by io_uring.
    IoUring,
}

/// `user NAME [GROUP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name of the user.
    pub name: String,
    /// Name of the group; the user's name when not given, as nginx has it.
    pub group: String,
}

fn admin(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<AdminLine> {
    let (word, mode) = (&directive.args[0], directive.args.get(1));
    if word.is("off") {
        return mode.map_or(Ok(AdminLine::Off), |word| Err(invalid_parameter(word)));
    }
    let path = word.value.strip_prefix(b"unix:").filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| {
        directive_problem(
            directive,
            word,
            "takes `off` or a Unix socket, such as `unix:/run/wssgate.sock`",
        )
    })?;
    let mode = match mode {
        None => Admin::MODE,
        Some(word) => {
            let digits = parameter(word, "mode=").and_then(|text| std::str::from_utf8(text).ok());
            let mode = digits.and_then(|digits| u32::from_str_radix(digits, 8).ok());
            mode.filter(|&mode| mode <= 0o777).ok_or_else(|| invalid_parameter(word))?
        }
    };
    let path = reading.paths.below_prefix(path);
    Ok(AdminLine::At(Admin { path, mode, is_default: false }))
}

fn pid(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<PathBuf>> {
    let word = &directive.args[0];
    Ok((!word.is("off")).then(|| reading.paths.below_prefix(&word.value)))
}

fn event_method(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<EventMethod> {
    let word = &directive.args[0];
    let others = ["select", "poll", "kqueue", "/dev/poll", "eventport"];
    let methods = [("epoll", EventMethod::Epoll), ("io_uring", EventMethod::IoUring)];
    let others = others.map(|name| (name, EventMethod::Best));
    let known = [&methods[..], &others[..]].concat();
    let found = known.iter().find(|(name, _)| word.is(name));
    let unknown = || Diagnostic::error(format!("invalid event type \"{word}\"")).at(word.span, "");
    Ok(found.ok_or_else(unknown)?.1)
}

fn user(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<User> {
    let name = directive.args[0].to_str_lossy().into_owned();
    let group =
        directive.args.get(1).map_or_else(|| name.clone(), |word| word.to_str_lossy().into_owned());
    Ok(User { name, group })
}

fn workers(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<usize>> {
    let word = &directive.args[0];
    if word.is("auto") {
        return Ok(None);
    }
    let count = value::number(&word.value).filter(|&count| count > 0);
    let count = count.ok_or_else(|| directive_problem(directive, word, "invalid value"))?;
    Ok(Some(count as usize))
}

/// The main file, if nothing stands in it.
fn empty_file(reading: &Reading<'_>) -> Option<String> {
    let mut files = reading.sources.files().map(|(_, file)| file);
    let main = files.find(|file| file.origin() == Origin::File)?;
    main.bytes().trim_ascii().is_empty().then(|| main.path().display().to_string())
}

pub(crate) fn core(
    reading: &mut Reading<'_>,
    main: &Level<'_>,
    error_log: Option<PathBuf>,
) -> Core {
    let nowhere = reading.nowhere;
    let main_defaults = default_directives(reading.registry, Context::Main, nowhere);
    let main_defaults = walk(reading, &main_defaults, Context::Main, true);
    let events_defaults = default_directives(reading.registry, Context::Events, nowhere);
    let events_defaults = walk(reading, &events_defaults, Context::Events, true);
    let outermost = Scope::outermost(&main_defaults);
    let scope = outermost.inner(main);
    let outer_events = Scope::outermost(&events_defaults);
    let events = main.lines(&EVENTS).next();
    let written_events = events.as_ref().and_then(|line| line.level);
    let events_scope = written_events.map_or(outer_events, |level| outer_events.inner(level));
    if events.is_none() {
        let problem = Diagnostic::error("no \"events\" section in configuration");
        reading.report.push(match empty_file(reading) {
            Some(path) => problem.help(format!("{path} is empty: is it the right file?")),
            None => problem.help("add `events { }`"),
        });
    }
    if let Some(line) = main.lines(&WORKER_SHUTDOWN_TIMEOUT).next() {
        let message =
            "\"worker_shutdown_timeout\" ends WebSockets after a reload, which is not needed here";
        let help = "remove it: a reload starts no process, and open connections keep the \
                    configuration they began with";
        let problem = Diagnostic::information(message).at(line.directive.head(), "");
        reading.report.push(problem.help(help));
    }
    let user = main.lines(&USER).next();
    let default_log = ErrorLog {
        target: error_log.map_or(LogTarget::Stderr, LogTarget::File),
        level: LogLevel::Error,
    };
    let error_logs = if main.has(&log::MAIN_ERROR_LOG) {
        scope.all(&log::MAIN_ERROR_LOG)
    } else {
        vec![default_log]
    };
    let pid: Option<PathBuf> = scope.get(&PID);
    let admin = match scope.maybe(&ADMIN) {
        Some(AdminLine::Off) => None,
        Some(AdminLine::At(admin)) => Some(admin),
        None => pid.as_deref().map(Admin::beside),
    };
    Core {
        admin,
        daemon: scope.get(&DAEMON),
        worker_processes: scope.get(&WORKER_PROCESSES),
        user: user.and_then(|line| {
            Some(Located { value: line.value?.clone(), span: line.directive.head() })
        }),
        pid,
        error_logs,
        worker_rlimit_nofile: scope.maybe(&WORKER_RLIMIT_NOFILE),
        worker_connections: events_scope.count(&WORKER_CONNECTIONS),
        worker_connections_at: events_scope.written_at(&WORKER_CONNECTIONS, nowhere),
        event_method: events_scope.maybe(&USE).unwrap_or(EventMethod::Best),
        worker_shutdown_timeout: scope.maybe(&WORKER_SHUTDOWN_TIMEOUT),
        working_directory: scope.maybe(&WORKING_DIRECTORY),
    }
}

//! The main level and `events`.

use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{Diagnostic, Directive, Span};

use crate::directive::Arity::{Between, Exactly, Flag};
use crate::directive::{Braces, Context, E, H, L, LI, M, Row, S, SI, U, Value, X, works};
use crate::draft::{Level, walk};
use crate::log::{ErrorLog, LogLevel, LogTarget};
use crate::read::{
    Reading, Reads, directive_problem, duration, flag, number, prefix_path, present,
};
use crate::scope::{Scope, default_directives};
use crate::value;
use crate::value::Located;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("daemon", M, Flag, "on", "Goes to the background after the start.", flag),
    works("env", M, Exactly(1), "", "Keeps or sets an environment variable.", env).many(),
    works("events", M, Exactly(0), "", "Holds the settings of connection handling.", present)
        .block(Braces::Level(Context::Events)),
    works(
        "include",
        EVERYWHERE,
        Exactly(1),
        "",
        "Reads the files that match a mask in its place.",
        present,
    )
    .many(),
    works(
        "master_process",
        M,
        Flag,
        "on",
        "Accepted for nginx's sake: there is one process in any case.",
        flag,
    ),
    works(
        "pid",
        M,
        Exactly(1),
        "/run/nginx.pid",
        "Names the file that holds the process number; `off` for none.",
        pid,
    ),
    works(
        "use",
        E,
        Exactly(1),
        "",
        "Chooses how tunnels are served: `io_uring` makes the socket calls of several at once, which takes \
         less CPU; `epoll` makes each alone. Without it, and with any other method of nginx's, it is \
         `io_uring` where the kernel lets us, so a `use epoll` that only names the best of Linux can go.",
        event_method,
    ),
    works("user", M, Between(1, 2), "", "Says whom to become when started as root.", user),
    works(
        "worker_connections",
        E,
        Exactly(1),
        "512",
        "Bounds the connections of one worker.",
        number,
    ),
    works(
        "worker_processes",
        M,
        Exactly(1),
        "1",
        "Says how many workers there are; `auto` for one per core.",
        workers,
    ),
    works(
        "worker_rlimit_nofile",
        M,
        Exactly(1),
        "",
        "Sets the number of descriptors this process may open.",
        number,
    ),
    works(
        "worker_shutdown_timeout",
        M,
        Exactly(1),
        "",
        "Ends connections of an old configuration after this long.",
        duration,
    ),
    works("working_directory", M, Exactly(1), "", "Changes to this directory.", prefix_path),
];

const EVERYWHERE: u16 = M | E | H | S | L | SI | LI | X | U;

/// The main level and `events`.
#[derive(Clone, Debug)]
pub struct Core {
    /// `daemon`: go to the background.
    pub daemon: bool,
    /// `master_process`: accepted; we always run as one process.
    pub master_process: bool,
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
    /// `worker_shutdown_timeout`: how long old connections may live after a reload or QUIT.
    pub worker_shutdown_timeout: Option<Duration>,
    /// `working_directory`.
    pub working_directory: Option<PathBuf>,
    /// `env` lines: names to keep and `NAME=value` to set.
    pub env: Vec<Box<[u8]>>,
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

fn env(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    Ok(Value::new(directive.args[0].value.clone()))
}

fn pid(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    Ok(Value::new((!word.is("off")).then(|| reading.paths.below_prefix(&word.value))))
}

fn event_method(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    let others = ["select", "poll", "kqueue", "/dev/poll", "eventport"];
    let methods = [("epoll", EventMethod::Epoll), ("io_uring", EventMethod::IoUring)];
    let others = others.map(|name| (name, EventMethod::Best));
    let known = [&methods[..], &others[..]].concat();
    let found = known.iter().find(|(name, _)| word.is(name));
    let unknown = || Diagnostic::error(format!("invalid event type \"{word}\"")).at(word.span, "");
    Ok(Value::new(found.ok_or_else(unknown)?.1))
}

fn user(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let name = directive.args[0].to_str_lossy().into_owned();
    let group =
        directive.args.get(1).map_or_else(|| name.clone(), |word| word.to_str_lossy().into_owned());
    Ok(Value::new(User { name, group }))
}

fn workers(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    if word.is("auto") {
        return Ok(Value::new(None::<usize>));
    }
    let count = value::number(&word.value).filter(|&count| count > 0);
    let count = count.ok_or_else(|| directive_problem(directive, word, "invalid value"))?;
    Ok(Value::new(Some(count as usize)))
}

pub(crate) fn core(
    reading: &mut Reading<'_>,
    main: &Level<'_>,
    error_log: Option<PathBuf>,
    nowhere: Span,
) -> Core {
    let main_defaults = default_directives(Context::Main, nowhere);
    let main_defaults = walk(reading, &main_defaults, Context::Main, true);
    let events_defaults = default_directives(Context::Events, nowhere);
    let events_defaults = walk(reading, &events_defaults, Context::Events, true);
    let outermost = Scope::outermost(&main_defaults);
    let scope = outermost.inner(main);
    let outer_events = Scope::outermost(&events_defaults);
    let events = main.named("events").next();
    let written_events = events.and_then(|entry| entry.level.as_ref());
    let events_scope = written_events.map_or(outer_events, |level| outer_events.inner(level));
    if events.is_none() {
        let help = "add `events { }`";
        reading.report.push(Diagnostic::error("no \"events\" section in configuration").help(help));
    }
    let user = main.named("user").next();
    let default_log = ErrorLog {
        target: error_log.map_or(LogTarget::Stderr, LogTarget::File),
        level: LogLevel::Error,
    };
    let error_logs = if main.has("error_log") { scope.all("error_log") } else { vec![default_log] };
    Core {
        daemon: scope.one("daemon"),
        master_process: scope.one("master_process"),
        worker_processes: scope.one("worker_processes"),
        user: user.and_then(|entry| {
            Some(Located { value: entry.value()?, span: entry.directive.head() })
        }),
        pid: scope.one("pid"),
        error_logs,
        worker_rlimit_nofile: scope.maybe("worker_rlimit_nofile"),
        worker_connections: events_scope.count("worker_connections"),
        event_method: events_scope.maybe("use").unwrap_or(EventMethod::Best),
        worker_shutdown_timeout: scope.maybe("worker_shutdown_timeout"),
        working_directory: scope.maybe("working_directory"),
        env: scope.all("env"),
    }
}

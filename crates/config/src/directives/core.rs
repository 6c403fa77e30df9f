//! The main level and `events`.

use wssgate_syntax::{Diagnostic, Directive};

use crate::directive::Arity::{Between, Exactly, Flag};
use crate::directive::{Braces, Context, E, H, L, LI, M, Row, S, SI, U, Value, X, works};
use crate::model::{EventMethod, User};
use crate::read::{
    Reading, Reads, directive_problem, duration, flag, number, prefix_path, present,
};
use crate::value;

const EVERYWHERE: u16 = M | E | H | S | L | SI | LI | X | U;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("daemon", M, Flag, "on", "Goes to the background after the start.", flag),
    works("env", M, Exactly(1), "", "Keeps or sets an environment variable.", env).many(),
    works("events", M, Exactly(0), "", "Holds the settings of connection handling.", present)
        .block(Braces::Level(Context::Events)),
    works("http", M, Exactly(0), "", "Holds everything about HTTP.", present)
        .block(Braces::Level(Context::Http)),
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
        "Ends connections of an old configuration after this long; a WebSocket is closed with 1001 \
         between two frames and has a second to answer.",
        duration,
    ),
    works("working_directory", M, Exactly(1), "", "Changes to this directory.", prefix_path),
];

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

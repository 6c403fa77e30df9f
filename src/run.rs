//! From an accepted configuration to a running server.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{io, panic};

use thiserror::Error;
use wssgate_config::model::{Core, ListenSocket, LogLevel};
use wssgate_proxy::admin::AdminSocket;
use wssgate_proxy::listen::PassedSockets;
use wssgate_proxy::log::ErrorLog;
use wssgate_proxy::moving::{self, Taking};
use wssgate_proxy::{Prepared, Proxy, errno_text};
use wssgate_sys::epoll::Epoll;
use wssgate_sys::process::{self, Daemonised};
use wssgate_sys::signals::Signals;
use wssgate_sys::{passed, privileges};

use crate::Failed;
use crate::console::{Accepted, Console};
use crate::greeting::Greeting;
use crate::load;
use crate::options::Options;
use crate::pid_file::PidFile;
use crate::service_manager::{STORED, ServiceManager};
use crate::supervise::{self, Server, Storing};
use crate::upgrade::{Message, Predecessor, Program};

/// How many connections a process that is replaced may number while the next one starts.
const BETWEEN_NUMBERS: u64 = 1 << 20;

/// How many descriptors a process has open besides those of tunnels, about.
const BESIDES: u64 = 256;

/// Reads the configuration and serves with it, perhaps in the place of a process that runs.
pub(crate) fn serve(options: &Options, console: Console) -> Result<(), Failed> {
    let program = Program::of_this_process();
    // Our commands have threads already, and are not replaced.
    let mut predecessor = if options.own.is_none() { Predecessor::find() } else { None };
    if predecessor.is_some()
        && let Err(error) = privileges::settle_kept()
    {
        console.write(LogLevel::Alert, failed("keeping capabilities", &error));
    }
    let prepared = console
        .expect(load::load(options))
        .and_then(|accepted| prepare(accepted, &console, &mut predecessor));
    let (core, prepared, kept) = prepared.inspect_err(|_| {
        if let Some(old) = &predecessor {
            old.tell(&Message::Refused { reason: console.problem().unwrap_or_default() });
        }
    })?;
    if let Some(old) = &predecessor {
        old.tell(&Message::Checked);
    }
    run(options, core, prepared, console, program, predecessor, kept)
}

/// Builds what the configuration says and binds its sockets. Besides, what a service manager has kept for us.
fn prepare(
    accepted: Accepted,
    console: &Console,
    predecessor: &mut Option<Predecessor>,
) -> Result<(Core, Prepared, Vec<OwnedFd>), Failed> {
    let Accepted { config, sources } = accepted;
    let core = config.core.clone();
    let (kept, of_manager): (Vec<_>, Vec<_>) =
        passed::descriptors().into_iter().partition(|passed| passed.name == STORED);
    let of_manager = of_manager.into_iter().map(|passed| passed.descriptor).collect();
    let kept: Vec<_> = kept.into_iter().map(|passed| passed.descriptor).collect();
    let passed = match predecessor {
        Some(old) => old.take_sockets(of_manager),
        None => PassedSockets { of_manager, ..PassedSockets::default() },
    };
    // Too few descriptors are better than no server, as in nginx.
    if let Err(message) = set_descriptor_limit(&core) {
        console.write(LogLevel::Alert, message);
    }
    let (last_connection, tunnels) = moving::announced(&kept);
    // Tunnels keep their numbers.
    wssgate_proxy::set_first_serial(last_connection.saturating_add(1));
    // While there is one thread; tunnels that come later would wait for it. Without the room they only wait.
    if let Some(old) = predecessor {
        let _ = process::make_room_for_descriptors(old.descriptors());
    } else if tunnels > 0 {
        let _ = process::make_room_for_descriptors(2 * tunnels + BESIDES);
    }
    let prepared = match Proxy::prepare(config, console.environment.clone(), passed) {
        Ok(prepared) => prepared,
        Err(report) => {
            console.report(&report, &sources);
            return Err(Failed);
        }
    };
    console.report(prepared.report(), &sources);
    console.tell_idle();
    // Afterwards nobody would see the exit code.
    if let Some(path) = &core.pid {
        PidFile::check(path).map_err(|error| tell(console, &unopened(path, &error)))?;
    }
    Ok((core, prepared, kept))
}

/// Goes to the background, writes the pid file, gives up root, and serves until it is told to end.
fn run(
    options: &Options,
    core: Core,
    prepared: Prepared,
    console: Console,
    program: Program,
    mut predecessor: Option<Predecessor>,
    kept: Vec<OwnedFd>,
) -> Result<(), Failed> {
    // From here on, threads exist or the terminal may be gone: signals wait in a descriptor.
    let signals = Signals::new().map_err(|error| tell(&console, &failed("signalfd()", &error)))?;
    let epoll = Epoll::new().map_err(|error| tell(&console, &failed("epoll_create1()", &error)))?;
    let admin = match &predecessor {
        None => open_admin(&core, &console)?,
        Some(_) => None,
    };
    let greeting = Greeting::new(options, &core, sockets(&prepared));
    // Who takes over is where it has to be.
    if core.daemon && predecessor.is_none() && daemonise(&console)? == Daemonised::Parent {
        // The child goes on with it.
        if let Some(socket) = admin {
            socket.leave();
        }
        greeting.tell();
        return Ok(());
    }
    // Before the pid file, from which on others expect us there.
    if let Some(socket) = &admin {
        let listens = socket.listen_as_this_process();
        listens.map_err(|error| tell(&console, &failed("listen() of \"admin\"", &error)))?;
    }
    // Of what we still are as root the file is root's anyway.
    let for_root = prepared.generation().is_roots() && !privileges::is_root();
    let pid_file = core.pid.as_ref().map(|path| {
        PidFile::create(path, for_root).map_err(|error| tell(&console, &unopened(path, &error)))
    });
    let pid_file = pid_file.transpose()?;
    let log = Arc::clone(prepared.generation().logs.main());
    report_panics(Arc::clone(&log));
    if core.daemon && !log.writes_to_stderr(LogLevel::Emerg) {
        process::close_stderr().map_err(|error| tell(&console, &failed("dup2()", &error)))?;
    }
    let told = console.told();
    drop(console);
    let mut proxy = start(prepared).map_err(|error| {
        log.write(LogLevel::Emerg, None, &error);
        Failed
    })?;
    proxy.show_program(program.path());
    let admin = match &predecessor {
        Some(old) => take_admin_over(&core, old, &proxy),
        None => admin,
    };
    if let Some(Err(error)) = admin.map(|socket| proxy.open_admin(socket)) {
        proxy.log(LogLevel::Alert, failed("starting the threads of \"admin\"", &error));
    }
    let version = env!("CARGO_PKG_VERSION");
    proxy.log(LogLevel::Notice, format_args!("wssgate {version} started"));
    if let Some(own) = &options.own {
        // Nobody may be there to read it.
        let _ = writeln!(io::stdout(), "{}", own.greeting);
    } else if !core.daemon && predecessor.is_none() {
        greeting.tell();
    }
    let manager = ServiceManager::from_environment();
    let mut taking = None;
    if let Some(old) = &mut predecessor {
        proxy.share_sockets(true);
        // Its tunnels keep their numbers, and it goes on to number until it gives way.
        wssgate_proxy::set_first_serial(old.last_connection() + BETWEEN_NUMBERS);
        taking = take_tunnels(old, &proxy);
        // Until it gives way the service is the old process.
        if old.speaks() {
            manager.be_silent();
        }
        old.tell(&Message::Ready);
    }
    let server = Server {
        proxy,
        signals,
        epoll,
        pid_file,
        options,
        told,
        messages: Vec::new(),
        manager,
        program,
        predecessor,
        taking,
        upgrade: None,
        storing: Storing::default(),
        is_superseded: false,
    };
    server.take_up(kept);
    server.manager.ready("serving");
    supervise::supervise(server)
}

/// Waits for the tunnels of the process that we replace.
fn take_tunnels(old: &mut Predecessor, proxy: &Proxy) -> Option<Taking> {
    let taken = old.take_tunnels().map(|channel| proxy.take_tunnels(channel)).transpose();
    taken.unwrap_or_else(|error| {
        let text = failed("starting the thread that takes tunnels over", &error);
        proxy.log(LogLevel::Error, text);
        None
    })
}

fn sockets(prepared: &Prepared) -> &[ListenSocket] {
    prepared.generation().config.http.as_ref().map_or(&[], |http| &http.sockets)
}

/// The socket of `wssgate ctl`, made while we may do what whoever started us may. One that nobody has asked for
/// need not be.
fn open_admin(core: &Core, console: &Console) -> Result<Option<AdminSocket>, Failed> {
    let Some(wanted) = &core.admin else { return Ok(None) };
    match AdminSocket::open(wanted, false) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if wanted.is_default => {
            console.note(format_args!("{error}, so `wssgate ctl` cannot be used"));
            Ok(None)
        }
        Err(error) => Err(tell(console, &error.to_string())),
    }
}

/// The socket of `wssgate ctl` of the process that we replace, from now on ours. Nothing hangs on it.
fn take_admin_over(core: &Core, old: &Predecessor, proxy: &Proxy) -> Option<AdminSocket> {
    let wanted = core.admin.as_ref()?;
    let for_root = proxy.generation().is_roots();
    let opened = match old.has_admin_at(&wanted.path) {
        true => AdminSocket::take_over(wanted, for_root),
        false => AdminSocket::open(wanted, for_root),
    };
    let level = if wanted.is_default { LogLevel::Notice } else { LogLevel::Error };
    let told =
        |error: &_| proxy.log(level, format_args!("{error}, so `wssgate ctl` cannot be used"));
    opened.inspect_err(told).ok()
}

/// Why a server whose sockets are bound does not start after all.
#[derive(Debug, Error)]
enum StartError {
    #[error("{}", failed(&format!("becoming user \"{name}\""), source))]
    User { name: String, source: io::Error },
    #[error("{}", failed(&format!("chdir(\"{}\")", path.display()), source))]
    WorkingDirectory { path: PathBuf, source: io::Error },
    #[error("{}", failed("starting the workers", .0))]
    Workers(#[source] io::Error),
}

/// Becomes the user that the configuration names and starts the workers.
fn start(prepared: Prepared) -> Result<Proxy, StartError> {
    // A process that has been replaced had become that user already.
    if let Some(owner) = &prepared.generation().owner
        && privileges::is_root()
    {
        privileges::become_user(owner)
            .map_err(|source| StartError::User { name: owner.name.clone(), source })?;
    }
    // After root was given up, as in nginx: whom the workers run as must be able to go there.
    if let Some(directory) = &prepared.generation().config.core.working_directory {
        std::env::set_current_dir(directory)
            .map_err(|source| StartError::WorkingDirectory { path: directory.clone(), source })?;
    }
    prepared.start().map_err(StartError::Workers)
}

fn daemonise(console: &Console) -> Result<Daemonised, Failed> {
    process::daemonise().map_err(|error| tell(console, &failed("fork()", &error)))
}

fn failed(what: &str, error: &io::Error) -> String {
    format!("{what} failed ({})", errno_text(error))
}

/// nginx's words for a file that does not open.
pub(crate) fn unopened(path: &Path, error: &io::Error) -> String {
    failed(&format!("open() \"{}\"", path.display()), error)
}

fn tell(console: &Console, message: &str) -> Failed {
    console.write(LogLevel::Emerg, message);
    Failed
}

/// `worker_rlimit_nofile`; without it as many descriptors as we may have, because every tunnel
/// needs two.
pub(crate) fn set_descriptor_limit(core: &Core) -> Result<(), String> {
    match core.worker_rlimit_nofile {
        Some(limit) => process::set_descriptor_limit(limit).map_err(|error| {
            let text = failed(&format!("setrlimit(RLIMIT_NOFILE, {limit})"), &error);
            match process::raise_descriptor_limit() {
                Ok(granted) => format!("{text}, the limit is {granted}"),
                Err(_) => text,
            }
        }),
        None => {
            // What is not granted is not needed yet.
            let _ = process::raise_descriptor_limit();
            Ok(())
        }
    }
}

/// A panic ends one connection. Where it happened must be known, even in the background.
fn report_panics(log: Arc<ErrorLog>) {
    panic::set_hook(Box::new(move |panic| {
        log.write(LogLevel::Alert, None, format_args!("a task panicked: {panic}"));
    }));
}

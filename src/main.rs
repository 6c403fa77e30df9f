//! wssgate: a WebSocket reverse proxy configured in nginx's language.
//!
//! Without a subcommand it is started as nginx is, with the same options, words and exit codes.

mod acme_command;
mod cli;
mod console;
mod ctl_command;
mod demo;
mod dev_ca;
mod doctor_command;
mod format;
mod greeting;
mod health;
mod load;
mod options;
mod pid_file;
mod proxy_command;
mod reloads;
mod run;
mod send_signal;
mod service_manager;
mod signal;
mod supervise;
mod text;
mod upgrade;
mod upgrade_command;
mod version;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use cli::{Command, Invocation};
use console::Console;
use load::Loaded;
use options::{Action, Options, OwnConf};
use pid_file::PidFile;
use wssgate_config::model::LogLevel;
use wssgate_proxy::Proxy;

fn main() -> ExitCode {
    be_called_as_invoked();
    let done = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Nginx(options)) => nginx(&options),
        Ok(Invocation::Own(command)) => match command {
            Command::Proxy(arguments) => own(proxy_command::prepare(&arguments)),
            Command::Demo(arguments) => own(demo::prepare(&arguments)),
            Command::Fmt(arguments) => return format::run(&arguments),
            Command::Acme(arguments) => return acme_command::run(&arguments),
            Command::Ctl(arguments) => return ctl_command::run(&arguments),
            Command::Upgrade(arguments) => return upgrade_command::run(&arguments),
            Command::Doctor(arguments) => return doctor_command::run(&arguments),
            Command::Health(arguments) => health::check(&arguments).map_err(console::fail),
            Command::Completions { shell } => cli::print_completions(shell),
            Command::Man => cli::print_man_page(),
        },
        Err(error) => return error.tell(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed) => ExitCode::FAILURE,
    }
}

/// Takes the name that we were invoked by, so that those who look for a process called `nginx` (such
/// as Debian's `/etc/init.d/nginx rotate`) find one that was started as `nginx`. The system itself
/// takes the name of the file; a service manager may give another one.
fn be_called_as_invoked() {
    let invoked = std::env::args_os().next();
    if let Some(name) = invoked.as_deref().map(Path::new).and_then(Path::file_name) {
        // It works under any name.
        let _ = wssgate_sys::process::set_name(name);
    }
}

/// Something went wrong and the user has been told; the exit code is 1.
#[derive(Debug)]
struct Failed;

/// What a command without a file does: it prints its configuration, or serves with it.
fn own(prepared: Result<Own, impl std::fmt::Display>) -> Result<(), Failed> {
    match prepared {
        Ok(Own::Print(text)) => io::stdout().write_all(text.as_bytes()).map_err(|_| Failed),
        Ok(Own::Serve(own)) => {
            let error_log = Some(std::path::PathBuf::new());
            nginx(&Options { own: Some(own), error_log, ..Options::default() })
        }
        Err(error) => Err(console::fail(error)),
    }
}

/// What a command without a file came to.
enum Own {
    /// Only the configuration is wanted.
    Print(String),
    /// It is to be served.
    Serve(OwnConf),
}

/// What nginx does with its options: tell, test, signal or serve.
fn nginx(options: &Options) -> Result<(), Failed> {
    if let Some(detail) = options.version {
        eprint!("{}", version::text(detail));
        if !options.tests() {
            return Ok(());
        }
    }
    let mut console =
        Console::open(options).map_err(|error| console::fail(format_args!("[emerg] {error}")))?;
    match &options.action {
        Action::Serve => run::serve(options, console),
        Action::Signal(signal) => {
            let accepted = console
                .expect(load::load(options))
                .inspect_err(|_| send_signal::tell_unsent(*signal))?;
            send_signal::send(*signal, options, &accepted, &console)
        }
        Action::Test { dump } => {
            let tested = test(options, load::load(options), *dump, &mut console);
            if tested.is_err() {
                console.tell_count();
                let path = options.conf_path();
                console::say(format_args!("configuration file {} test failed", path.display()));
            }
            tested
        }
    }
}

/// `-t` and `-T`.
fn test(
    options: &Options,
    loaded: Loaded,
    dump: bool,
    console: &mut Console,
) -> Result<(), Failed> {
    let path = options.conf_path();
    let path = path.display();
    let sources = loaded.sources.clone();
    if loaded.config.is_none() {
        return Err(refuse(loaded, console));
    }
    let config = console.expect(loaded)?.config;
    let pid = config.core.pid.clone();
    if !options.quiet {
        console::say(format_args!("the configuration file {path} syntax is ok"));
    }
    // As at the start, so that what is said of the limit holds there too. Who only tests may lack
    // the right to raise it.
    if let Err(message) = run::set_descriptor_limit(&config.core) {
        console.write(LogLevel::Warn, message);
    }
    let checked = Proxy::check(config, &console.environment);
    let is_good = checked.is_ok();
    let (Ok(mut report) | Err(mut report)) = checked;
    report.sort();
    console.report(&report, &sources);
    if !is_good {
        return Err(Failed);
    }
    check_pid_file(pid.as_deref(), console)?;
    console.tell_idle();
    if !options.quiet {
        console.tell_count();
        console::say(format_args!("configuration file {path} test is successful"));
    }
    if dump {
        io::stdout().write_all(&sources.dump()).map_err(|_| Failed)?;
    }
    Ok(())
}

/// Tells what is wrong with a configuration, and with its certificates if they can be made out: who has mended the
/// rest would else learn of them in the next run only.
fn refuse(loaded: Loaded, console: &Console) -> Failed {
    let mut report = loaded.report;
    if let Some(remains) = &loaded.remains {
        report.append(Proxy::check_certificates(remains));
        report.sort();
    }
    console.report(&report, &loaded.sources);
    // Of a file that was not read nothing is left.
    if loaded.sources.files().next().is_some() {
        let certificates = if loaded.remains.is_some() { "" } else { "certificates, " };
        eprintln!(
            "{certificates}log files, passwords and addresses are checked when these errors are gone"
        );
    }
    Failed
}

/// A server that cannot write its pid file does not start. Who only tests may lack the right to.
fn check_pid_file(path: Option<&Path>, console: &Console) -> Result<(), Failed> {
    let Some(path) = path else { return Ok(()) };
    match PidFile::check(path) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            console.write(LogLevel::Emerg, run::unopened(path, &error));
            Err(Failed)
        }
        _ => Ok(()),
    }
}

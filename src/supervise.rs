//! The main thread while the server runs: it obeys signals and does what is due.

mod remain;
mod store;
mod upgrade;

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wssgate_config::model::{Core, LogLevel};
use wssgate_proxy::admin::{Order, Reloaded};
use wssgate_proxy::log::level_name;
use wssgate_proxy::moving::Taking;
use wssgate_proxy::{Proxy, errno_text};
use wssgate_syntax::{Report, Severity, SourceMap};
use wssgate_sys::epoll::{Epoll, Events};
use wssgate_sys::signals::Signals;

use crate::Failed;
use crate::console;
use crate::load;
use crate::options::Options;
use crate::pid_file::PidFile;
use crate::reloads::Outcome;
use crate::run;
use crate::service_manager::ServiceManager;
use crate::signal::Signal;
use crate::upgrade::{Predecessor, Program};
pub(crate) use store::Storing;
use upgrade::Upgrade;

/// How long a fast stop may take. Workers need a fifth of a second, and another one at most for WebSockets whose sides
/// have been asked to close just before.
const LONGEST_STOP: Duration = Duration::from_secs(2);

/// What a reload says that changed nothing.
const RELOAD_FAILED: &str = "reload failed, the previous configuration stays in effect";

/// The running server and what the main thread obeys for it.
pub(crate) struct Server<'a> {
    /// The engine.
    pub(crate) proxy: Proxy,
    /// Where signals arrive.
    pub(crate) signals: Signals,
    /// What waits for them. It is made before anybody can connect and use up the descriptors.
    pub(crate) epoll: Epoll,
    /// Removed at the end.
    pub(crate) pid_file: Option<PidFile>,
    /// What it was started with; a reload reads the same file.
    pub(crate) options: &'a Options,
    /// The warnings and notices about the configuration that is in effect.
    pub(crate) told: HashSet<String>,
    /// What was said about the configuration at the last reload.
    pub(crate) messages: Vec<(&'static str, String)>,
    /// Who is told how it goes.
    pub(crate) manager: ServiceManager,
    /// How to start the program again.
    pub(crate) program: Program,
    /// The process that we replace, if it was there when we began.
    pub(crate) predecessor: Option<Predecessor>,
    /// What takes its tunnels over, until nothing more comes.
    pub(crate) taking: Option<Taking>,
    /// The process that replaces us.
    pub(crate) upgrade: Option<Upgrade>,
    /// What the service manager keeps of us.
    pub(crate) storing: Storing,
    /// Whether the process that has replaced us was replaced itself.
    pub(crate) is_superseded: bool,
}

/// Runs until the last worker has ended.
pub(crate) fn supervise(mut server: Server<'_>) -> Result<(), Failed> {
    let ended = server.obey().map_err(|error| {
        let text = format!("waiting for signals failed ({})", errno_text(&error));
        server.proxy.log(LogLevel::Emerg, text);
        Failed
    });
    server.end_giving();
    if server.proxy.is_finished() {
        server.proxy.log(LogLevel::Notice, "exit");
        server.remain_if_first();
        return ended;
    }
    // Waiting for a worker that does not end could take for ever.
    server.proxy.log(LogLevel::Crit, "workers did not exit in time, exiting");
    // `exit` runs no destructors, which would do all of these.
    server.proxy.flush_logs();
    server.proxy.close_admin();
    server.remain_if_first();
    drop(server.pid_file);
    std::process::exit(i32::from(ended.is_err()));
}

impl Server<'_> {
    /// Whether a container would end with us, who have been replaced.
    fn must_remain(&self) -> bool {
        remain::is_needed() && (self.upgrade.is_some() || self.is_superseded)
    }

    /// Stays as the parent of whoever has replaced us, if a container would end with us.
    fn remain_if_first(&mut self) {
        if !self.must_remain() {
            return;
        }
        let successor = self.successor();
        let text = match successor {
            Some(successor) => format!("stays as the parent of process {successor}"),
            None => "stays as the parent of those who have replaced it".to_owned(),
        };
        self.proxy.log(LogLevel::Notice, text);
        let pid = self.proxy.generation().config.core.pid.clone();
        // They would be ours for as long as the container lives.
        self.pid_file = None;
        self.proxy.close_admin();
        self.proxy.flush_logs();
        // Of what the other one knows nobody hears any more, and it would be readable for ever. Without a new one it only
        // looks more often.
        let signals_alone = Epoll::new().and_then(|epoll| {
            epoll.add_level_readable(self.signals.as_fd(), 0)?;
            Ok(epoll)
        });
        let epoll = signals_alone.as_ref().unwrap_or(&self.epoll);
        let code = remain::remain(epoll, &self.signals, pid.as_deref(), successor);
        std::process::exit(code.into());
    }

    fn obey(&mut self) -> std::io::Result<()> {
        self.epoll.add_level_readable(self.signals.as_fd(), 0)?;
        self.epoll.add_level_readable(self.proxy.wakeup(), 1)?;
        if let Some(channel) = self.predecessor.as_ref().and_then(Predecessor::descriptor) {
            self.epoll.add_level_readable(channel, 3)?;
        }
        let mut events = Events::with_capacity(4);
        let mut stop_by = None;
        loop {
            while let Some(received) = self.signals.take() {
                if let Some((signal, line)) = Signal::received(received) {
                    self.proxy.log(LogLevel::Notice, line);
                    self.on_signal(signal, &mut stop_by);
                    // Who stops a container means whoever serves.
                    if matches!(signal, Signal::Quit | Signal::Terminate) && self.must_remain() {
                        remain::pass_on(received.number);
                    }
                }
            }
            while let Some(order) = self.proxy.next_order() {
                self.on_order(order);
            }
            let now = Instant::now();
            let look = self.follow_upgrade(now);
            let store = self.follow_store(now);
            // First, so that what the last worker has left to tell is told.
            let is_finished = self.proxy.is_finished();
            let due = self.proxy.maintain(now);
            if is_finished || stop_by.is_some_and(|by| by <= now) {
                return Ok(());
            }
            let next = due.into_iter().chain(stop_by).chain(look).chain(store).min();
            self.epoll.wait(&mut events, next.map(|next| next.saturating_duration_since(now)))?;
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Reload { by, answer } => {
                // Without an answer whoever asked learns that nothing is reloaded any more.
                if !self.proxy.is_serving() {
                    let text = format_args!("reload requested by {by} is ignored while ending");
                    return self.proxy.log(LogLevel::Notice, text);
                }
                self.proxy.log(LogLevel::Notice, format_args!("reload requested by {by}"));
                let generation = self.reload();
                let messages = std::mem::take(&mut self.messages);
                // Who asked may be gone.
                let _ = answer.send(Reloaded { generation, messages });
            }
            Order::Upgrade { by, binary, answer } => {
                self.proxy.log(LogLevel::Notice, format_args!("upgrade requested by {by}"));
                self.begin_upgrade(binary.as_deref(), Some(answer));
            }
        }
    }

    fn on_signal(&mut self, signal: Signal, stop_by: &mut Option<Instant>) {
        match signal {
            Signal::Reload if self.proxy.is_yielding() => self.take_back(),
            Signal::Reload => {
                self.reload();
            }
            Signal::Reopen => self.proxy.reopen(),
            Signal::Quit => {
                // What the new process has said before counts, also if both are found together.
                self.follow_upgrade(Instant::now());
                self.end_gracefully();
            }
            Signal::Terminate => {
                self.commit();
                self.proxy.share_sockets(self.has_heir());
                self.tell_stopping("closing all connections");
                self.store_tunnels();
                self.proxy.stop();
                stop_by.get_or_insert(Instant::now() + LONGEST_STOP);
            }
            Signal::Upgrade => self.begin_upgrade(None, None),
            // In nginx a step of a binary upgrade. Without a new binary nobody would accept.
            Signal::Winch if self.proxy.generation().config.core.daemon => {
                if self.yield_and_wait() {
                    return;
                }
                let text = "SIGWINCH is ignored, connections are still accepted; SIGQUIT ends it";
                self.proxy.log(LogLevel::Warn, text);
            }
            Signal::Winch => {}
        }
    }

    /// Ends with the last connection.
    fn end_gracefully(&mut self) {
        self.hold_for_successor();
        self.commit();
        self.proxy.share_sockets(self.has_heir());
        self.tell_stopping("waiting for open connections to end");
        self.hold_tunnels();
        self.proxy.drain();
    }

    /// The service does not stop with a process that is being replaced.
    fn tell_stopping(&self, status: &str) {
        if self.upgrade.is_none() {
            self.manager.stopping(status);
        }
    }

    /// Obeys the request for a reload; the answer is the number of the new generation, if there is one.
    fn reload(&mut self) -> Option<u64> {
        self.messages.clear();
        // A server that has been told to end does not begin anew, as in nginx.
        if !self.proxy.is_serving() {
            return None;
        }
        self.manager.reloading();
        let reloaded = self.reconfigure();
        self.proxy.count_reload(reloaded.is_ok());
        self.tell_listeners(reloaded.is_err());
        match reloaded {
            Ok(number) => {
                let text = format!("reconfigured, generation {number}");
                self.proxy.log(LogLevel::Notice, &text);
                self.manager.ready(text);
                Some(number)
            }
            Err(Failed) => {
                self.proxy.log(LogLevel::Error, RELOAD_FAILED);
                self.manager.ready(RELOAD_FAILED);
                None
            }
        }
    }

    /// Reads the configuration again and gives the number of its generation; a bad one changes nothing.
    fn reconfigure(&mut self) -> Result<u64, Failed> {
        let loaded = load::load(self.options);
        let mut told = self.tell(&loaded.report, &loaded.sources);
        let Some(config) = loaded.config else {
            self.told.extend(told);
            return Err(Failed);
        };
        let core = config.core.clone();
        // Taken before the swap; afterwards nobody could tell what has changed.
        let before = self.proxy.generation();
        if let Some(path) = core.pid.as_ref().filter(|_| core.pid != before.config.core.pid)
            && let Err(error) = PidFile::check(path)
        {
            self.told.extend(told);
            self.say(LogLevel::Emerg, run::unopened(path, &error));
            return Err(Failed);
        }
        match self.proxy.reload(config) {
            Ok(report) => {
                told.extend(self.tell(&report, &loaded.sources));
                self.told = told;
                for undone in before.undone() {
                    self.say(LogLevel::Warn, undone);
                }
                self.apply(&before.config.core, &core);
                Ok(self.proxy.generation().number)
            }
            Err(report) => {
                told.extend(self.tell(&report, &loaded.sources));
                self.told.extend(told);
                Err(Failed)
            }
        }
    }

    /// Tells those of our own commands who wait for the end of a reload.
    fn tell_listeners(&self, is_failure: bool) {
        if let Some(own) = &self.options.own {
            let generation = self.proxy.generation().number;
            own.reloads.tell(Outcome { generation, is_failure });
        }
    }

    /// Logs what there is to say, and returns its warnings and notices. Those that were told of the
    /// configuration before are not told again: certbot alone reloads every few weeks.
    fn tell(&mut self, report: &Report, sources: &SourceMap) -> HashSet<String> {
        let mut told = HashSet::new();
        for (severity, message) in report.texts(sources) {
            if severity == Severity::Error || !self.told.contains(&message) {
                self.proxy.log(console::level_of(severity), &message);
            }
            // Who asks for a reload has not seen what was told before.
            self.messages.push((level_name(console::level_of(severity)), message.clone()));
            if severity != Severity::Error {
                told.insert(message);
            }
        }
        told
    }

    /// What of the main level can change while we run, and a word about what cannot.
    fn apply(&mut self, before: &Core, now: &Core) {
        if let Err(message) = run::set_descriptor_limit(now) {
            self.say(LogLevel::Warn, message);
        }
        if let Err(error) = self.proxy.follow_admin() {
            let is_asked_for = now.admin.as_ref().is_some_and(|admin| !admin.is_default);
            let level = if is_asked_for { LogLevel::Error } else { LogLevel::Notice };
            self.say(level, error.to_string());
        }
        if before.pid != now.pid {
            self.move_pid_file(now.pid.as_ref());
        }
        let user = |core: &Core| core.user.as_ref().map(|user| user.value.clone());
        if before.worker_processes != now.worker_processes || user(before) != user(now) {
            let text = "changes to \"worker_processes\" and \"user\" take effect after a restart";
            self.say(LogLevel::Warn, text.to_owned());
        }
    }

    /// Tells the log, and whoever has asked for the reload.
    fn say(&mut self, level: LogLevel, message: String) {
        self.proxy.log(level, &message);
        self.messages.push((level_name(level), message));
    }

    fn move_pid_file(&mut self, path: Option<&PathBuf>) {
        let Some(path) = path else {
            self.pid_file = None;
            return;
        };
        match PidFile::create(path, self.proxy.generation().is_roots()) {
            Ok(file) => self.pid_file = Some(file),
            Err(error) => {
                let kept = self.pid_file.as_ref().map(PidFile::path);
                let text = format!(
                    "open() \"{}\" failed ({}), the pid file remains {kept:?}",
                    path.display(),
                    errno_text(&error)
                );
                self.say(LogLevel::Error, text);
            }
        }
    }
}

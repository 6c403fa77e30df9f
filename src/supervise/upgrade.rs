//! The steps of an upgrade in the main thread: of the process that is replaced, and of the one that replaces it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use wssgate_config::model::LogLevel;
use wssgate_proxy::admin::Upgraded;
use wssgate_proxy::errno_text;
use wssgate_proxy::moving::{Giving, Pass, Taken, Taking};

use super::Server;
use crate::pid_file::{self, PidFile};
use crate::upgrade::{Event, Hello, Message, News, Successor};

/// How long a new process may take to serve.
const START_TIME: Duration = Duration::from_secs(100);

/// How long a process that was replaced by a signal waits for the next one of nginx's procedure, though it has no
/// connections left: scripts look for its pid file, and a rollback must be possible.
const LINGER: Duration = Duration::from_secs(30);

/// How often it looks whether its last connection has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Where the result goes, if somebody waits for it.
pub(super) type Answer = mpsc::Sender<Result<Upgraded, String>>;

/// A new process that was started, from the view of the one that it replaces.
#[derive(Debug)]
pub(crate) struct Upgrade {
    successor: Successor,
    answer: Option<Answer>,
    start_by: Instant,
    is_ready: bool,
    /// Whether what can move has done so.
    is_settled: bool,
    /// Whether it was asked for by a signal, whose sender may go on by signals.
    by_signal: bool,
    /// From when on this process ends with its last connection; not by itself if operators want to see first.
    ends_from: Option<Instant>,
    /// What gives our tunnels to it.
    giving: Option<Giving>,
    /// How many tunnels are its own by now that were ours.
    moved: u64,
    /// Why how many could not move, as it was told last: they are offered again in each pass.
    stay: BTreeMap<String, u64>,
}

impl Upgrade {
    /// What its program says of its version.
    fn version(&self) -> String {
        self.successor.hello.as_ref().map(|hello| hello.program.clone()).unwrap_or_default()
    }

    /// What its process is called in the log.
    fn name(&self) -> String {
        format!("new binary process {}", self.successor.pid())
    }
}

impl Server<'_> {
    /// Whether the sockets will be served when this process has ended.
    pub(super) fn has_heir(&self) -> bool {
        self.upgrade.is_some()
            || self.is_superseded
            || self.predecessor.as_ref().is_some_and(|old| old.is_alive())
    }

    /// The process that replaces us.
    pub(super) fn successor(&self) -> Option<u32> {
        self.upgrade.as_ref().map(|upgrade| upgrade.successor.pid())
    }

    /// Starts a new program: the one that we were started from, or `binary`.
    pub(super) fn begin_upgrade(&mut self, binary: Option<&Path>, answer: Option<Answer>) {
        let by_signal = answer.is_none();
        // Whoever asks may have seen the end of the one before, which stands in the way until we have.
        self.follow_predecessor();
        match self.start_successor(binary) {
            Ok(successor) => {
                let start_by = Instant::now() + START_TIME;
                let upgrade = Upgrade {
                    successor,
                    answer,
                    start_by,
                    is_ready: false,
                    is_settled: false,
                    by_signal,
                    ends_from: None,
                    giving: None,
                    moved: 0,
                    stay: BTreeMap::new(),
                };
                self.proxy.log(LogLevel::Notice, format_args!("start {}", upgrade.name()));
                self.upgrade = Some(upgrade);
                self.proxy.share_sockets(true);
            }
            Err((level, text)) => {
                self.proxy.log(level, &text);
                if let Some(answer) = answer {
                    // Who asked may be gone.
                    let _ = answer.send(Err(text));
                }
            }
        }
    }

    fn start_successor(&mut self, binary: Option<&Path>) -> Result<Successor, (LogLevel, String)> {
        let ignored = |why: &str| Err((LogLevel::Notice, format!("the upgrade is ignored: {why}")));
        if let Some(upgrade) = &self.upgrade {
            return ignored(&format!("{} is running already", upgrade.name()));
        }
        if !self.proxy.is_serving() {
            return ignored("this process is about to end");
        }
        if let Some(own) = &self.options.own {
            return ignored(&format!("{} runs without a configuration file", own.name));
        }
        if let Some(old) = self.predecessor.as_ref().filter(|old| !old.may_be_final()) {
            let text =
                format!("process {}, which this one replaces, accepts connections", old.pid());
            return ignored(&text);
        }
        if let Some(file) = &mut self.pid_file
            && let Err(error) = file.set_aside()
        {
            let (path, error) = (file.path().display(), errno_text(&error));
            let text = format!("rename() \"{path}\" to \"{path}.oldbin\" failed ({error})");
            return Err((LogLevel::Alert, text));
        }
        let core = &self.proxy.generation().config.core;
        let admin = core.admin.as_ref().map(|admin| admin.path.clone());
        // A tunnel is one connection and has two sockets.
        let descriptors = 2 * self.proxy.open_connections() + 256;
        let hello = Hello { admin, descriptors, ..Hello::ours() };
        let sockets = self.proxy.sockets_to_leave();
        let started = Successor::start(&self.program, binary, &sockets, hello);
        let watched = started.and_then(|mut successor| {
            let mut descriptors = successor.descriptors();
            let added = descriptors.try_for_each(|fd| self.epoll.add_level_readable(fd, 2));
            drop(descriptors);
            added.inspect_err(|_| successor.kill()).map(|()| successor)
        });
        let successor = watched.map_err(|error| {
            self.restore_pid_file();
            let (path, error) = (binary.unwrap_or(self.program.path()), errno_text(&error));
            let path = path.display();
            let text =
                format!("execve() failed while executing new binary process \"{path}\" ({error})");
            (LogLevel::Alert, text)
        })?;
        Ok(successor)
    }

    /// Does what the new process wants, and what is due. The answer is when to look again, if nothing comes before.
    pub(super) fn follow_upgrade(&mut self, now: Instant) -> Option<Instant> {
        self.follow_predecessor();
        while let Some(event) = self.next_event() {
            match event {
                Event::Checked => {
                    if let Some(upgrade) = &self.upgrade {
                        let text = format!("{} has accepted its configuration", upgrade.name());
                        self.proxy.log(LogLevel::Notice, text);
                    }
                }
                Event::Ready => self.on_ready(now),
                Event::Final => {
                    let text = "the process that replaced this one is replaced itself";
                    self.proxy.log(LogLevel::Notice, text);
                    self.is_superseded = true;
                    self.end_gracefully();
                }
                Event::Ended(status) => self.on_successors_end(status),
            }
        }
        self.follow_tunnels();
        let looks = [self.wait_for_start(now), self.end_if_unused(now)];
        looks.into_iter().flatten().min()
    }

    fn next_event(&mut self) -> Option<Event> {
        let successor = &mut self.upgrade.as_mut()?.successor;
        let was_mute = successor.is_mute();
        let event = successor.next();
        if successor.is_mute() && !was_mute {
            // Otherwise it would be readable for ever.
            let _ = self.epoll.delete(successor.channel());
        }
        event
    }

    fn on_ready(&mut self, now: Instant) {
        let Some(upgrade) = &mut self.upgrade else { return };
        upgrade.is_ready = true;
        // Not before: until then it is the one that can go on in our place.
        if let Some(old) = &self.predecessor {
            old.tell(&Message::Final);
        }
        if let Some(file) = &mut self.pid_file {
            file.forget_former();
        }
        // Who has asked on the command line has no signals to come.
        let linger = if upgrade.by_signal { LINGER } else { Duration::ZERO };
        self.yield_to_successor(Some(now + linger));
        let (Some(upgrade), proxy) = (&self.upgrade, &self.proxy) else { return };
        let text = format!(
            "{}, wssgate {}, accepts connections; {} remain here, {} of them tunnels",
            upgrade.name(),
            upgrade.version(),
            proxy.open_connections(),
            proxy.open_tunnels()
        );
        proxy.log(LogLevel::Notice, text);
        self.give_tunnels();
    }

    /// Begins to give our tunnels to the new process, if it takes them.
    fn give_tunnels(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        let channel = upgrade.successor.take_tunnels();
        let giving = channel.map(|channel| self.proxy.give_tunnels(channel)).transpose();
        upgrade.giving = giving.unwrap_or_else(|error| {
            let text =
                format!("the tunnels stay here: no thread for them ({})", errno_text(&error));
            self.proxy.log(LogLevel::Error, text);
            None
        });
        if upgrade.giving.is_none() {
            self.end_first_pass();
        }
    }

    /// Tells what has become of tunnels, here and there.
    fn follow_tunnels(&mut self) {
        while let Some(pass) = self.upgrade.as_ref().and_then(|it| it.giving.as_ref()?.next()) {
            self.tell_pass(&pass);
            if let Some(upgrade) = self.upgrade.as_mut().filter(|_| pass.error.is_some()) {
                upgrade.giving = None;
            }
            self.end_first_pass();
        }
        self.follow_taking();
    }

    /// Gives nothing away any more.
    pub(super) fn end_giving(&mut self) {
        let giving = self.upgrade.as_mut().and_then(|upgrade| upgrade.giving.take());
        for pass in giving.into_iter().flat_map(Giving::finish) {
            self.tell_pass(&pass);
        }
    }

    /// Whether tunnels are about to go over to a new process of ours.
    pub(super) fn is_handing_over(&self) -> bool {
        let hands_over =
            |upgrade: &Upgrade| !upgrade.is_settled && upgrade.successor.hello.is_some();
        self.upgrade.as_ref().is_some_and(hands_over)
    }

    /// Tunnels that are about to go over to a new process are not drained before.
    pub(super) fn hold_for_successor(&mut self) {
        if self.is_handing_over() {
            self.proxy.hold_tunnels();
        }
    }

    fn tell_pass(&mut self, pass: &Pass) {
        let Some(upgrade) = &mut self.upgrade else { return };
        upgrade.moved += pass.moved;
        let log = |level, text: String| self.proxy.log(level, text);
        if pass.moved > 0 {
            let (moved, took, longest) = (pass.moved, ms(pass.took), ms(pass.longest));
            log(
                LogLevel::Notice,
                format!(
                    "{} moved to {} in {took} ms, none was out of work for more than {longest} ms",
                    counted(moved, "tunnel has", "tunnels have"),
                    upgrade.name()
                ),
            );
        }
        let told = std::mem::replace(&mut upgrade.stay, pass.stay.clone());
        for (why, count) in pass.stay.iter().filter(|&(why, count)| told.get(why) != Some(count)) {
            let stay = counted(*count, "tunnel stays", "tunnels stay");
            log(LogLevel::Notice, format!("{stay} in this process: {why}"));
        }
        if pass.unknown > 0 {
            let ended = counted(pass.unknown, "tunnel has", "tunnels have");
            let text =
                format!("{ended} ended, for nobody knows whether {} serves them", upgrade.name());
            log(LogLevel::Alert, text);
        }
        // One that has ended is told of when it ends.
        if let Some(error) = pass.error.as_ref().filter(|_| upgrade.is_ready) {
            let text = format!("no more tunnels move to {}: {error}", upgrade.name());
            log(LogLevel::Warn, text);
        }
    }

    /// What remains here ends here, and whoever has asked for the upgrade is told how it went.
    fn end_first_pass(&mut self) {
        let (Some(upgrade), proxy) = (&mut self.upgrade, &mut self.proxy) else { return };
        if std::mem::replace(&mut upgrade.is_settled, true) {
            return;
        }
        proxy.drain_tunnels();
        let Some(answer) = upgrade.answer.take() else { return };
        let (pid, sockets) = (upgrade.successor.pid(), upgrade.successor.sockets);
        let (connections, tunnels) = (proxy.open_connections(), proxy.open_tunnels());
        let (version, moved) = (upgrade.version(), upgrade.moved);
        // Who asked may be gone.
        let _ = answer.send(Ok(Upgraded { pid, version, sockets, moved, connections, tunnels }));
    }

    /// What comes from the process that we replace.
    fn follow_taking(&mut self) {
        while let Some(taken) = self.taking.as_ref().and_then(Taking::next) {
            let pid = self.predecessor.as_ref().map_or(0, |old| old.pid());
            match taken {
                Taken::Pass { taken, refused, took } => {
                    let tunnels = counted(taken, "tunnel", "tunnels");
                    let mut text = format!("{tunnels} taken over from old process {pid}");
                    if let Some(took) = took {
                        text += &format!(" in {} ms", ms(took));
                    }
                    if refused > 0 {
                        text += &format!(", {refused} refused");
                    }
                    self.proxy.log(LogLevel::Notice, text);
                }
                Taken::End(error) => {
                    if let Some(error) = error {
                        let text = format!("no more tunnels come from old process {pid}: {error}");
                        self.proxy.log(LogLevel::Notice, text);
                    }
                    self.taking = None;
                }
            }
        }
    }

    /// Leaves accepting to the new process. `ends_from`: when this one may end by itself.
    fn yield_to_successor(&mut self, ends_from: Option<Instant>) {
        let Some(upgrade) = &mut self.upgrade else { return };
        upgrade.ends_from = ends_from;
        self.proxy.give_way();
        upgrade.successor.tell(&Message::Committed);
        if let Some(giving) = &upgrade.giving {
            giving.go_on(true);
        }
        self.manager.hand_over(upgrade.successor.pid(), "serving");
    }

    /// Leaves accepting to a new process that serves, if that was taken back, because this one is about to end.
    pub(super) fn commit(&mut self) {
        if self.proxy.is_serving() && self.upgrade.as_ref().is_some_and(|upgrade| upgrade.is_ready)
        {
            self.yield_to_successor(None);
            self.drain_if_nothing_moves();
        }
    }

    /// What cannot go over to the new process, or no longer, ends here.
    fn drain_if_nothing_moves(&mut self) {
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.giving.is_none()) {
            self.proxy.drain_tunnels();
        }
    }

    /// SIGWINCH: nginx's workers end and its master waits. Whether there is a new process to accept.
    pub(super) fn yield_and_wait(&mut self) -> bool {
        self.yield_to_successor(None);
        self.drain_if_nothing_moves();
        self.upgrade.is_some()
    }

    /// SIGHUP to a process that has given way: it accepts again, beside the new one.
    pub(super) fn take_back(&mut self) {
        self.proxy.resume();
        self.manager.speak();
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.ends_from = None;
            // What begins now ends with the next time that this process gives way.
            upgrade.is_settled = false;
            if let Some(giving) = &upgrade.giving {
                giving.go_on(false);
            }
            upgrade.successor.tell(&Message::Resumed);
            let text = format!("connections are accepted again, also by {}", upgrade.name());
            self.proxy.log(LogLevel::Notice, text);
        }
    }

    fn on_successors_end(&mut self, status: ExitStatus) {
        // What it has taken is known for certain only now.
        self.end_giving();
        let Some(mut upgrade) = self.upgrade.take() else { return };
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, signal) => format!("exited on signal {}", signal.unwrap_or_default()),
        };
        let reason = upgrade.successor.reason.take();
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let mut text = format!("{} {how}{reason}", upgrade.name());
        // What ends before it serves has failed, whatever it says; of another program we do not know when it did.
        let has_served = upgrade.is_ready || self.proxy.is_yielding() || self.is_superseded;
        let is_good = status.success() && has_served;
        let level = if is_good { LogLevel::Notice } else { LogLevel::Alert };
        if !is_good && upgrade.moved > 0 {
            let moved = counted(upgrade.moved, "tunnel", "tunnels");
            text += &format!("; {moved} that it had taken over ended with it");
        }
        self.proxy.log(level, &text);
        self.proxy.share_sockets(self.has_heir());
        if !self.is_superseded {
            self.manager.speak();
        }
        if self.proxy.is_yielding() {
            self.proxy.resume();
            self.proxy.log(LogLevel::Notice, "connections are accepted again");
        } else if !self.proxy.is_serving() && self.room() == 0 {
            // Nobody is left who could have them.
            self.proxy.drain_tunnels();
        }
        if self.proxy.is_serving() {
            // The new one had taken its path over.
            if let Err(error) = self.proxy.follow_admin() {
                self.proxy.log(LogLevel::Error, error);
            }
            if upgrade.is_ready {
                self.manager.ready("serving again");
            }
        }
        // Last, so that whoever looks for the file or is told finds everything as it was.
        self.restore_pid_file();
        if let Some(answer) = upgrade.answer.take() {
            let _ = answer.send(Err(text));
        }
    }

    fn restore_pid_file(&mut self) {
        // The file is the one of the process that has replaced our successor.
        if self.is_superseded {
            return;
        }
        let is_rescuable = self.predecessor.as_ref().is_some_and(|old| old.is_alive());
        let (serves, for_root) = (self.proxy.is_serving(), self.proxy.generation().is_roots());
        if let Some(file) = &mut self.pid_file
            && let Err(error) = file.put_back(serves, for_root, is_rescuable)
        {
            let (path, error) = (file.path().display(), errno_text(&error));
            let text = format!("rename() \"{path}.oldbin\" back to \"{path}\" failed ({error})");
            self.proxy.log(LogLevel::Alert, text);
        }
    }

    /// Ends a new process that hangs, and the waiting of whoever wants to know of one that says nothing.
    fn wait_for_start(&mut self, now: Instant) -> Option<Instant> {
        let upgrade = self.upgrade.as_mut()?;
        let poll = upgrade.successor.must_be_polled().then_some(now + LOOK);
        if upgrade.is_ready {
            return poll;
        }
        if now < upgrade.start_by {
            return poll.into_iter().chain([upgrade.start_by]).min();
        }
        // nginx says nothing, but has its pid file then.
        let pid = i32::try_from(upgrade.successor.pid()).unwrap_or_default();
        let has_pid_file = |file: &PidFile| matches!(pid_file::read(file.path()), Ok(Ok(written)) if written == pid);
        let is_other =
            upgrade.successor.hello.is_none() && self.pid_file.as_ref().is_none_or(has_pid_file);
        if !is_other {
            upgrade.start_by = now + START_TIME;
            let seconds = START_TIME.as_secs();
            upgrade.successor.reason = Some(format!("it did not serve within {seconds} seconds"));
            upgrade.successor.kill();
        } else if let Some(answer) = upgrade.answer.take() {
            let text = format!(
                "{} runs, but is none that tells when it serves: go on as with nginx, by WINCH and QUIT to this one",
                upgrade.name()
            );
            let _ = answer.send(Err(text));
        }
        poll
    }

    /// Ends a process that was replaced with its last connection.
    fn end_if_unused(&mut self, now: Instant) -> Option<Instant> {
        let from = self.upgrade.as_ref()?.ends_from.filter(|_| self.proxy.is_yielding())?;
        // Who has asked for the upgrade is told of it first.
        if self.proxy.open_connections() > 0 || self.proxy.is_answering() {
            return Some(from.max(now + LOOK));
        }
        if now < from {
            return Some(from);
        }
        self.proxy.log(LogLevel::Notice, "replaced, and the last connection has ended");
        self.end_gracefully();
        None
    }

    /// What the process that we replace tells.
    fn follow_predecessor(&mut self) {
        while let Some(news) = self.predecessor.as_mut().and_then(|old| old.next()) {
            let pid = self.predecessor.as_ref().map_or(0, |old| old.pid());
            match news {
                News::Committed => {
                    let text = format!("old process {pid} accepts no more connections");
                    self.proxy.log(LogLevel::Notice, text);
                    self.speak_for_service();
                }
                News::Resumed => {
                    let text = format!("old process {pid} accepts connections again");
                    self.proxy.log(LogLevel::Notice, &text);
                    self.manager.hand_over(pid, &text);
                    // Whoever goes back wants no third one.
                    if let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| !upgrade.is_ready)
                    {
                        upgrade.successor.reason = Some(text);
                        upgrade.successor.kill();
                    }
                }
                News::Gone => {
                    self.proxy.log(LogLevel::Notice, format_args!("old process {pid} has ended"));
                    self.proxy.share_sockets(self.upgrade.is_some());
                    if self.manager.is_silent() {
                        self.speak_for_service();
                    }
                }
            }
        }
    }

    /// The service is this process from now on, unless the next one has replaced it already.
    fn speak_for_service(&self) {
        if self.upgrade.as_ref().is_none_or(|upgrade| !upgrade.is_ready) {
            self.manager.speak();
            self.manager.ready("serving");
        }
    }
}

/// So many of something, and what they do.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A time in milliseconds, to a tenth.
pub(super) fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

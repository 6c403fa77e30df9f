//! `wssgate ctl top` on a terminal: tmux is the terminal, presses keys and reads the screen.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use wssgate_testkit::{
    Conn, GUARD, Handshake, Instance, Upstream, close, skipped, text, wait_until, wait_within,
};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// Who is where; one has a name that a terminal would obey.
const USERS: &str = "access_log off;
    upstream chat { server %%UP%%; }
    upstream away { server 127.0.0.1:1 down; }
    server { listen %%LISTEN_0%%; server_name chat.test; websocket_user $arg_user;
      location /chat { proxy_pass http://chat; }
      location /away { proxy_pass http://away; }
      location /evil { websocket_user \"\u{1b}[2Jevil\"; proxy_pass http://chat; } }";

fn start(upstream: &Upstream) -> Instance {
    Instance::setup(WSSGATE).main_and_http("user root;", USERS).var("UP", upstream.addr()).start()
}

fn open(server: &Instance, path: &str) -> Conn {
    Handshake::to(server.listen(0)).path(path).open()
}

/// A terminal with a shell in it. Dropping it ends both.
struct Terminal {
    directory: tempfile::TempDir,
}

impl Terminal {
    /// `None`, told, where there is no tmux.
    fn open(columns: usize, rows: usize) -> Option<Self> {
        let found = Command::new("tmux").arg("-V").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            skipped("needs tmux");
            return None;
        }
        let terminal = Self { directory: tempfile::tempdir().unwrap() };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut arguments =
            vec!["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows];
        arguments.push("PS1='$ ' exec sh");
        terminal.tmux(&arguments);
        terminal.wait_for("$");
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.directory.path().join("socket")).args(arguments);
        // UTF-8, whatever the machine is set to.
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("NO_COLOR");
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen has this, and returns it.
    #[track_caller]
    fn wait_for(&self, part: &str) -> String {
        self.wait_to_be(part, |screen| screen.contains(part))
    }

    #[track_caller]
    fn wait_to_be(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> String {
        let mut screen = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_within(what, GUARD, || {
                screen = self.screen();
                is_so(&screen)
            });
        }));
        assert!(found.is_ok(), "waited for {what:?} on\n{screen}");
        screen
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    fn resize(&self, columns: usize, rows: usize) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Starts the program; its exit code is told behind it.
    fn top(&self, server: &Instance, before: &str, arguments: &str) {
        let line = format!(
            "clear; {before} {WSSGATE} ctl top -d 1 -p {} -c nginx.conf {arguments}; echo code=$?",
            server.dir().display()
        );
        self.type_text(&line);
        self.press(&["Enter"]);
    }

    /// Whether the terminal is as programs expect it: lines, echo, a cursor, no alternate screen.
    fn is_whole(&self) -> bool {
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]);
        let modes = Command::new("stty").arg("-aF").arg(self.pane("pane_tty")).output().unwrap();
        let modes = String::from_utf8(modes.stdout).unwrap();
        flags.trim() == "01" && modes.contains(" icanon") && modes.contains(" echo ")
    }

    fn pane(&self, what: &str) -> String {
        self.tmux(&["display-message", "-p", &format!("#{{{what}}}")]).trim().to_owned()
    }

    /// The number of the program that the shell runs.
    fn child(&self) -> String {
        let shell = self.pane("pane_pid");
        let children = PathBuf::from(format!("/proc/{shell}/task/{shell}/children"));
        fs::read_to_string(children).unwrap().trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.directory.path().join("socket")).arg("kill-server");
        let _ = command.stderr(Stdio::null()).status();
    }
}

#[test]
fn it_needs_a_terminal() {
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut command = Command::new(WSSGATE);
    command.args(["ctl", "top", "-c", "nginx.conf", "-p"]).arg(server.dir()).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("needs a terminal") && told.contains("ctl list"), "{told}");
    assert!(output.stdout.is_empty());
}

#[test]
fn it_shows_who_is_busy_and_keys_sort_filter_and_open() {
    let Some(terminal) = Terminal::open(80, 24) else { return };
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let _ann = open(&server, "/chat?user=ann");
    let mut bob = open(&server, "/chat?user=bob");
    let _evil = open(&server, "/evil");
    terminal.top(&server, "", "");
    let screen = terminal.wait_for("1-3 of 3 by current rate, greatest first");
    assert!(screen.starts_with("wssgate "), "{screen}");
    assert!(screen.contains(" serving ") && screen.contains("generation 1"), "{screen}");
    assert!(screen.contains("1 down: away 127.0.0.1:1"), "{screen}");
    assert!(screen.contains("\\u{1b}[2Jevil"), "{screen}");
    // Whoever says something comes to the top, with a rate.
    let row_of = |screen: &str, row: usize| {
        screen.lines().skip_while(|line| !line.starts_with("ID")).nth(row).unwrap_or("").to_owned()
    };
    terminal.wait_to_be("bob on top", |screen| {
        bob.send([text("hello")]);
        bob.expect([text("hello")]);
        row_of(screen, 1).contains(" bob ")
    });
    terminal.wait_to_be("messages per second", |screen| {
        bob.send([text("hello")]);
        bob.expect([text("hello")]);
        let line = screen.lines().find(|line| line.starts_with("Clients sent"));
        let rate = line.and_then(|line| line.split_whitespace().nth(2)?.parse::<f64>().ok());
        rate.is_some_and(|rate| rate > 0.0)
    });
    terminal.press(&["n"]);
    terminal.wait_to_be("ann on top", |screen| {
        screen.contains("by number") && row_of(screen, 1).contains(" ann ")
    });
    terminal.press(&["n"]);
    terminal.wait_to_be("the other way round", |screen| row_of(screen, 1).contains("evil"));
    terminal.press(&["/"]);
    terminal.type_text("user=bob");
    terminal.wait_for("Filter: user=bob");
    terminal.press(&["Enter"]);
    terminal.wait_to_be("bob alone", |screen| {
        screen.contains("1-1 of 1 with user=bob") && !screen.contains(" ann ")
    });
    terminal.press(&["Enter"]);
    terminal.wait_to_be("details", |screen| {
        screen.starts_with("Tunnel ") && screen.contains("from_client.messages")
    });
    terminal.press(&["Escape"]);
    terminal.wait_for("1-1 of 1");
    terminal.press(&["/", "C-u"]);
    terminal.type_text("colour=red");
    terminal.press(&["Enter"]);
    terminal.wait_for("there is no filter \"colour\"");
    terminal.press(&["C-u"]);
    terminal.type_text("min_age=soon");
    terminal.press(&["Enter"]);
    terminal.wait_for("invalid value \"soon\"");
    terminal.wait_for("1-1 of 1");
    terminal.press(&["Escape"]);
    terminal.wait_to_be("table", |screen| !screen.contains("soon"));
    terminal.press(&["Escape"]);
    terminal.wait_for("of 3 by number");
    terminal.press(&["?"]);
    terminal.wait_for("sort by current rate");
    terminal.press(&["q", "q"]);
    terminal.wait_for("code=0");
    assert!(terminal.is_whole());
}

#[test]
fn one_is_closed_after_a_yes_and_the_window_may_change() {
    let Some(terminal) = Terminal::open(80, 24) else { return };
    let upstream = Upstream::echo();
    let server = start(&upstream);
    let mut ann = open(&server, "/chat?user=ann");
    let mut bob = open(&server, "/chat?user=bob");
    terminal.top(&server, "", "--sort id");
    terminal.wait_for("1-2 of 2");
    terminal.resize(40, 10);
    let screen = terminal.wait_to_be("a short head", |screen| !screen.contains("Workers"));
    assert!(screen.lines().count() <= 10 && screen.contains("bob"), "{screen}");
    terminal.resize(100, 30);
    terminal.wait_for("Workers");
    terminal.press(&["Down", "k"]);
    terminal.wait_for("of bob, code and reason");
    terminal.type_text("99");
    terminal.press(&["Enter"]);
    terminal.wait_for("a code comes first");
    terminal.press(&["C-u"]);
    terminal.type_text("4001 go away");
    terminal.press(&["Enter"]);
    terminal.wait_for("of bob with 4001 \"go away\"? y/n");
    terminal.press(&["x"]);
    terminal.wait_for("nothing was closed");
    bob.send([text("still here")]);
    bob.expect([text("still here")]);
    terminal.press(&["k"]);
    terminal.type_text("4001 go away");
    terminal.press(&["Enter", "y"]);
    bob.expect([close(4001, "go away")]);
    drop(bob);
    terminal.wait_for("1-1 of 1");
    ann.send([text("hello")]);
    ann.expect([text("hello")]);
    terminal.press(&["C-c"]);
    terminal.wait_for("code=0");
    assert!(terminal.is_whole());
}

#[test]
fn a_server_that_is_gone_is_asked_again() {
    let Some(terminal) = Terminal::open(80, 24) else { return };
    let upstream = Upstream::echo();
    let mut server = start(&upstream);
    let ann = open(&server, "/chat?user=ann");
    terminal.top(&server, "", "");
    terminal.wait_for("1-1 of 1");
    server.signal("KILL");
    wait_until("end", || server.has_ended());
    let screen = terminal.wait_for("not answering for ");
    assert!(screen.contains(" ann "), "what was known stays: {screen}");
    drop(ann);
    server.restart();
    let screen = terminal.wait_for("0 of 0");
    assert!(!screen.contains("not answering"), "{screen}");
    terminal.press(&["q"]);
    terminal.wait_for("code=0");
}

#[test]
fn the_terminal_is_given_back_to_a_signal_and_to_a_stop() {
    let Some(terminal) = Terminal::open(80, 24) else { return };
    let upstream = Upstream::echo();
    let server = start(&upstream);
    terminal.top(&server, "NO_COLOR=1", "");
    terminal.wait_for("0 of 0");
    assert!(!terminal.is_whole());
    let coloured = |screen: &str| screen.contains("38;5;");
    assert!(!coloured(&terminal.tmux(&["capture-pane", "-p", "-e"])));
    for signal in ["TERM", "HUP"] {
        let status = Command::new("kill").args(["-s", signal, &terminal.child()]).status();
        assert!(status.unwrap().success());
        terminal.wait_for(if signal == "TERM" { "code=143" } else { "code=129" });
        assert!(terminal.is_whole(), "{signal}");
        terminal.top(&server, "", "");
        terminal.wait_for("0 of 0");
    }
    assert!(coloured(&terminal.tmux(&["capture-pane", "-p", "-e"])));
    terminal.press(&["C-z"]);
    terminal.wait_for("Stopped");
    wait_within("a whole terminal", Duration::from_secs(5), || terminal.is_whole());
    terminal.type_text("fg");
    terminal.press(&["Enter"]);
    terminal.wait_for("0 of 0");
    assert!(!terminal.is_whole());
    terminal.press(&["q"]);
    terminal.wait_to_be("the shell", |_| terminal.is_whole());
}

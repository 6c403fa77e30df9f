//! The program under test, running on a configuration in a directory of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{GUARD, free_addr};

/// How often the file system is looked at while waiting for something to appear in it.
const POLL: Duration = Duration::from_millis(5);

/// A configuration that is about to be started.
///
/// In its text `%%LISTEN_0%%`, `%%LISTEN_1%%`, … become free addresses, `%%DIR%%` the directory,
/// and `%%NAME%%` what [`Setup::var`] says.
///
/// ```no_run
/// # use wssgate_testkit::{Handshake, Instance, Upstream, text};
/// # let exe = "wssgate";
/// let upstream = Upstream::echo();
/// let wssgate = Instance::setup(exe)
///     .http("server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } }")
///     .var("UP", upstream.addr())
///     .start();
/// let mut client = Handshake::to(wssgate.listen(0)).open();
/// client.send([text("hello")]);
/// client.expect([text("hello")]);
/// assert!(wssgate.stop().success());
/// ```
pub struct Setup {
    exe: PathBuf,
    dir: tempfile::TempDir,
    conf: String,
    vars: BTreeMap<String, String>,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    listens: BTreeMap<usize, SocketAddr>,
}

impl Setup {
    /// The whole configuration. It must say `daemon off;` and `pid %%DIR%%/nginx.pid;`.
    #[must_use]
    pub fn conf(mut self, text: &str) -> Self {
        self.conf = text.into();
        self
    }

    /// What stands in the `http` block; around it stand logs and the pid file in the directory.
    #[must_use]
    pub fn http(self, text: &str) -> Self {
        self.main_and_http("", text)
    }

    /// The same with directives outside of the `http` block.
    #[must_use]
    pub fn main_and_http(self, main: &str, text: &str) -> Self {
        self.conf(&format!(
            "daemon off;\npid %%DIR%%/nginx.pid;\nerror_log %%DIR%%/error.log info;\n{main}\n\
             events {{}}\nhttp {{\naccess_log %%DIR%%/access.log;\n{text}\n}}\n"
        ))
    }

    /// What `%%NAME%%` stands for.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.vars.insert(name.into(), value.to_string());
        self
    }

    /// A further file, or with `/` in its name one in a directory below.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join(name);
        let parent = path.parent().expect("a file stands in a directory");
        fs::create_dir_all(parent).expect("directory of a file");
        fs::write(&path, content).expect("file of the configuration");
        self
    }

    /// A further argument of the command line.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the program and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Instance {
        self.try_start().unwrap_or_else(|failed| panic!("program did not start: {failed:?}"))
    }

    /// Starts the program, and returns how it ended if it does so before it is ready.
    #[track_caller]
    pub fn try_start(mut self) -> Result<Instance, Failed> {
        let text = self.conf.clone();
        self.write_conf(&text);
        let mut instance = Instance { child: self.spawn(), setup: self };
        instance.wait_until_ready();
        match instance.child.try_wait().expect("status of the child") {
            None => Ok(instance),
            Some(status) => Err(Failed { status, stderr: instance.stderr() }),
        }
    }

    /// Runs the program to its end with these arguments besides the usual ones (such as `-t`), and
    /// returns its exit status and stderr.
    #[track_caller]
    pub fn run(mut self, args: &[&str]) -> Failed {
        let text = self.conf.clone();
        self.write_conf(&text);
        let output = self.command().args(args).output().expect("program runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Failed { status: output.status, stderr }
    }

    #[track_caller]
    fn spawn(&self) -> Child {
        let stderr = File::create(self.dir.path().join("stderr.log")).expect("stderr.log");
        let child = self.command().stderr(stderr).spawn();
        child.unwrap_or_else(|error| panic!("cannot run {}: {error}", self.exe.display()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.exe);
        command.arg("-p").arg(self.dir.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        command
            .args(&self.args)
            .envs(self.envs.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn write_conf(&mut self, text: &str) {
        let mut text = text.replace("%%DIR%%", &self.dir.path().display().to_string());
        for (name, value) in &self.vars {
            text = text.replace(&format!("%%{name}%%"), value);
        }
        for number in 0..16 {
            let placeholder = format!("%%LISTEN_{number}%%");
            if text.contains(&placeholder) {
                let addr = *self.listens.entry(number).or_insert_with(free_addr);
                text = text.replace(&placeholder, &addr.to_string());
            }
        }
        assert!(!text.contains("%%"), "a placeholder has no value: {text}");
        fs::write(self.dir.path().join("nginx.conf"), text).expect("nginx.conf");
    }
}

/// How a program ended that was not, or no longer, to run.
#[derive(Debug)]
pub struct Failed {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// The running program; it is killed when this is dropped.
pub struct Instance {
    child: Child,
    setup: Setup,
}

impl Instance {
    /// A configuration for the program at `exe`: `env!("CARGO_BIN_EXE_wssgate")`.
    pub fn setup(exe: impl AsRef<Path>) -> Setup {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        // Workers without privileges have to read in it too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        Setup {
            exe: exe.as_ref().to_owned(),
            dir,
            conf: String::new(),
            vars: BTreeMap::new(),
            args: Vec::new(),
            envs: Vec::new(),
            listens: BTreeMap::new(),
        }
    }

    /// The address that `%%LISTEN_number%%` became.
    #[track_caller]
    pub fn listen(&self, number: usize) -> SocketAddr {
        let addr = self.setup.listens.get(&number);
        *addr.unwrap_or_else(|| panic!("the configuration has no %%LISTEN_{number}%%"))
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// The process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What `%%NAME%%` stands for in configurations to come.
    pub fn set_var(&mut self, name: &str, value: impl std::fmt::Display) {
        self.setup.vars.insert(name.into(), value.to_string());
    }

    /// Replaces the `http` block of the configuration; takes effect with `signal("HUP")`.
    /// Addresses keep their numbers.
    pub fn rewrite_http(&mut self, text: &str) {
        let old = std::mem::take(&mut self.setup.conf);
        let (main, _) = old.split_once("events {}").expect("started by `http`");
        let text =
            format!("{main}events {{}}\nhttp {{\naccess_log %%DIR%%/access.log;\n{text}\n}}\n");
        self.setup.write_conf(&text);
        self.setup.conf = text;
    }

    /// Writes the configuration again with what [`Self::set_var`] said; takes effect with
    /// `signal("HUP")`.
    pub fn rewrite(&mut self) {
        let text = self.setup.conf.clone();
        self.setup.write_conf(&text);
    }

    /// Sends a signal by its name, such as `HUP`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot send {name}");
    }

    /// Asks for a graceful end (QUIT) and waits for it.
    #[track_caller]
    pub fn stop(self) -> ExitStatus {
        self.signal("QUIT");
        self.wait()
    }

    /// Asks for a fast end (TERM) and waits for it.
    #[track_caller]
    pub fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        wait_until("the end of the program", || self.has_ended());
        self.child.wait().expect("status of the child")
    }

    /// Waits for the end, which a signal must have brought about, and starts it again at the same addresses.
    #[track_caller]
    pub fn restart(&mut self) {
        wait_until("the end of the program", || self.has_ended());
        // Who is killed leaves it behind.
        let _ = fs::remove_file(self.pid_file());
        self.child = self.setup.spawn();
        self.wait_until_ready();
        assert!(!self.has_ended(), "program did not start again: {}", self.stderr());
    }

    fn pid_file(&self) -> PathBuf {
        self.dir().join("nginx.pid")
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        let pid_file = self.pid_file();
        wait_until("the pid file", || {
            let ready = fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n'));
            ready || self.has_ended()
        });
    }

    /// Whether the program has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("status of the child").is_some()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.read("stderr.log")
    }

    /// The error log so far.
    pub fn error_log(&self) -> String {
        self.read("error.log")
    }

    /// The access log so far.
    pub fn access_log(&self) -> String {
        self.read("access.log")
    }

    /// A file of its directory; empty if there is none.
    pub fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.dir().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a line with `part` in the error log, and returns it.
    #[track_caller]
    pub fn wait_for_log(&self, part: &str) -> String {
        self.wait_for_line("error.log", part)
    }

    /// Waits for a line with `part` in the access log, and returns it.
    #[track_caller]
    pub fn wait_for_access(&self, part: &str) -> String {
        self.wait_for_line("access.log", part)
    }

    /// Waits for a complete line with `part` in a file of the directory, and returns it.
    #[track_caller]
    pub fn wait_for_line(&self, file: &str, part: &str) -> String {
        let mut found = None;
        wait_until(&format!("{part:?} in {file}"), || {
            let text = self.read(file);
            let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
            found = complete.lines().find(|line| line.contains(part)).map(str::to_owned);
            found.is_some()
        });
        found.expect("we waited for it")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // A killed nginx would leave its workers behind, so it is asked first.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.pid().to_string()).status();
            let deadline = Instant::now() + LAST_CHANCE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- stderr\n{}--- error.log\n{}---", self.stderr(), self.error_log());
        }
    }
}

/// How long a dropped server may take to end after TERM.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Waits until `is_so`; what is waited for happens in another process.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_within(what, GUARD, is_so);
}

/// The same for what may take so long by itself.
#[track_caller]
pub fn wait_within(what: &str, time: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(POLL);
    }
}

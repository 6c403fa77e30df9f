//! A stand-in for systemd, as far as a service with a descriptor store sees it: sd_notify(3), sd_listen_fds(3), and
//! `FileDescriptorStoreMax=` of systemd.service(5). Where these say little it does what systemd 257 does.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wssgate_sys::rights;
use wssgate_testkit::{GUARD, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// The name of the socket unit.
const SOCKET_UNIT: &str = "wssgate.socket";

/// A descriptor that is kept.
struct Kept {
    name: String,
    descriptor: OwnedFd,
    /// Whether it is dropped when its other end is closed.
    is_polled: bool,
}

#[derive(Default)]
struct State {
    /// The last one that was stored comes first.
    store: Vec<Kept>,
    /// What it was told, message by message.
    told: Vec<String>,
}

/// How it is set up.
#[derive(Clone, Copy)]
pub(crate) struct Unit {
    /// `FileDescriptorStoreMax=`.
    pub(crate) max: usize,
    /// What `$FDSTORE` says, which is the same.
    pub(crate) told: usize,
}

impl Unit {
    /// With a store for so many.
    pub(crate) fn keeping(max: usize) -> Self {
        Self { max, told: max }
    }
}

/// The manager, the one service that it has, and a socket unit of that.
pub(crate) struct Manager {
    unit: Unit,
    directory: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    /// While it is set the manager reads nothing.
    is_busy: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    listener: TcpListener,
    service: Option<Child>,
}

impl Manager {
    pub(crate) fn new(unit: Unit) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Workers without privileges go there too.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let (state, is_busy, ends) =
            <(Arc<Mutex<State>>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let reading = (Arc::clone(&state), Arc::clone(&is_busy), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            let (state, is_busy, ends) = reading;
            while !ends.load(Ordering::Relaxed) {
                let tick = Some(Duration::from_millis(5));
                if is_busy.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                } else if rights::wait_readable(socket.as_fd(), tick).unwrap() {
                    read(&socket, unit.max, &state);
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let thread = Some(thread);
        Self { unit, directory, state, is_busy, ends, thread, listener, service: None }
    }

    /// Where clients go, whether the service runs or not.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the service with this configuration, and waits until it is started (`READY=1`).
    #[track_caller]
    pub(crate) fn start(&mut self, main: &str, http: &str) {
        let conf = format!(
            "daemon off; pid nginx.pid; worker_processes 2; error_log error.log info; {main}
             events {{}} http {{ {http} }}"
        );
        fs::write(self.path("nginx.conf"), conf).unwrap();
        self.state.lock().unwrap().told.clear();
        let listener = (SOCKET_UNIT.to_owned(), self.listener.try_clone().unwrap().into());
        let stored = |kept: &Kept| (kept.name.clone(), kept.descriptor.try_clone().unwrap());
        // Those of socket units come first.
        let passed: Vec<(String, OwnedFd)> = [listener]
            .into_iter()
            .chain(self.state.lock().unwrap().store.iter().map(stored))
            .collect();
        self.service = Some(spawn(self.directory.path(), self.unit.told, passed));
        wait_until("READY=1", || self.told("READY=1") || self.has_ended());
        assert!(!self.has_ended(), "it ended: {}", self.read("error.log"));
        // Whoever was ready has said everything else before.
        self.synchronise();
    }

    /// Waits until every message is read that was sent.
    fn synchronise(&self) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(self.path("notify")).unwrap();
        let (open, passed) = io::pipe().unwrap();
        rights::send(socket.as_fd(), &[io::IoSlice::new(b"BARRIER=1")], &[passed.as_fd()]).unwrap();
        drop(passed);
        assert!(rights::wait_readable(open.as_fd(), Some(GUARD)).unwrap());
    }

    /// The process of the service.
    pub(crate) fn pid(&self) -> u32 {
        self.service.as_ref().unwrap().id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.service.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Signals it.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Waits until it has ended: a restart goes on from here, and what is stored stays.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_until("the end of the service", || self.has_ended());
        let status = self.service.take().unwrap().wait().unwrap();
        self.state.lock().unwrap().store.retain(|kept| !kept.is_polled);
        status
    }

    /// It was not restarted, but stopped: nothing stays.
    pub(crate) fn discard(&self) {
        self.state.lock().unwrap().store.clear();
    }

    /// The names of what is stored.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.state.lock().unwrap().store.iter().map(|kept| kept.name.clone()).collect()
    }

    /// Has kept this too.
    pub(crate) fn keep(&self, name: &str, descriptor: OwnedFd) {
        let kept = Kept { name: name.to_owned(), descriptor, is_polled: false };
        self.state.lock().unwrap().store.insert(0, kept);
    }

    /// Whether any message since the start had this line.
    pub(crate) fn told(&self, line: &str) -> bool {
        let told = &self.state.lock().unwrap().told;
        told.iter().any(|message| message.lines().any(|found| found == line))
    }

    /// Reads nothing for now.
    pub(crate) fn be_busy(&self, busy: bool) {
        self.is_busy.store(busy, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    /// Waits for a line with this part in a log, and gives all of the file.
    #[track_caller]
    pub(crate) fn wait_for(&self, file: &str, part: &str) -> String {
        let mut text = String::new();
        wait_until(&format!("{part:?} in {file}"), || {
            text = self.read(file);
            text.split_inclusive('\n').any(|line| line.contains(part) && line.ends_with('\n'))
        });
        text
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            // It may have ended.
            let _ = service.kill();
            let _ = service.wait();
        }
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().map(JoinHandle::join);
        if thread::panicking() {
            for log in ["error.log", "ends.log"] {
                eprintln!("--- {log}\n{}---", self.read(log));
            }
        } else {
            thread.unwrap().unwrap();
        }
    }
}

/// Starts the service; the descriptors become 3 and so on.
fn spawn(directory: &Path, room: usize, passed: Vec<(String, OwnedFd)>) -> Child {
    let names: Vec<_> = passed.iter().map(|(name, _)| name.as_str()).collect();
    let (names, count) = (names.join(":"), passed.len());
    // A shell moves them there; it cannot move more.
    assert!((1..=3).contains(&count), "{names}");
    let moved = ["3<&0", "3<&0 4<&1", "3<&0 4<&1 5<&2"][count - 1];
    let script = format!(
        "exec {moved}; exec </dev/null >/dev/null 2>>\"$0/stderr.log\"
         LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES='{names}' exec \"$@\""
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(directory).arg(EXE);
    command.args(["-c", "nginx.conf", "-e", "error.log", "-p"]).arg(directory);
    command.env("NOTIFY_SOCKET", directory.join("notify")).env_remove("FDSTORE");
    if room > 0 {
        command.env("FDSTORE", room.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    for (at, (_, descriptor)) in passed.into_iter().enumerate() {
        match at {
            0 => command.stdin(descriptor),
            1 => command.stdout(descriptor),
            _ => command.stderr(descriptor),
        };
    }
    command.spawn().unwrap()
}

/// Reads a notification and obeys it.
fn read(socket: &UnixDatagram, max: usize, state: &Mutex<State>) {
    let (mut buffer, mut passed) = ([0; 4096], Vec::new());
    let received = rights::receive(socket.as_fd(), &mut buffer, rights::MOST, &mut passed).unwrap();
    let message = String::from_utf8(buffer[..received.len].to_vec()).unwrap();
    let lines: Vec<_> = message.lines().collect();
    if lines.contains(&"BARRIER=1") {
        // The descriptor is closed, and anything else in such a message is ignored.
        assert!(lines.len() == 1 && passed.len() == 1, "{message}");
        return;
    }
    let state = &mut *state.lock().unwrap();
    let value = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let name = value("FDNAME").filter(|name| is_name(name));
    if value("FDSTOREREMOVE") == Some("1") {
        let name = name.unwrap();
        state.store.retain(|kept| kept.name != name);
    }
    if value("FDSTORE") == Some("1") {
        for descriptor in passed {
            if state.store.len() >= max {
                // The rest is closed, and nobody is told.
                break;
            }
            if state.store.iter().any(|kept| file(&kept.descriptor) == file(&descriptor)) {
                continue;
            }
            let name = name.unwrap_or("stored").to_owned();
            let is_polled = value("FDPOLL") != Some("0");
            state.store.insert(0, Kept { name, descriptor, is_polled });
        }
    }
    state.told.push(message);
}

/// Which open file that is; good enough for sockets and files in memory.
fn file(descriptor: &OwnedFd) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).unwrap()
}

/// What systemd takes for a name (`fdname_is_valid`).
fn is_name(name: &str) -> bool {
    name.len() <= 255 && name.bytes().all(|byte| (b' '..127).contains(&byte) && byte != b':')
}

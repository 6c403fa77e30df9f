//! The proxies that are compared: found, configured, started on their core, stopped.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use wssgate_sys::{affinity, process};

use crate::certificate::Certificate;
use crate::process::{Tree, is_alive};

mod config;

/// How long a proxy may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a proxy that starts or stops is looked at.
const POLL: Duration = Duration::from_millis(5);

/// The addresses that proxies listen on: ports towards one address would run out.
const ADDRESSES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(127, 0, 0, 1),
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 0, 3),
    Ipv4Addr::new(127, 0, 0, 4),
];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Wssgate,
    /// An earlier wssgate.
    Before,
    Nginx,
    Haproxy,
    /// Only in front of servers that restart.
    Caddy,
    /// Nobody: clients connect to the backend.
    Direct,
    /// A loop of this benchmark that only receives and sends.
    Bare,
}

impl Peer {
    /// Those that are compared unless somebody says otherwise.
    pub(crate) const PROXIES: [Self; 3] = [Self::Wssgate, Self::Nginx, Self::Haproxy];

    /// How many may be up at the same time: those, an earlier wssgate and the bare relay.
    pub(crate) const MOST_AT_ONCE: usize = Self::PROXIES.len() + 2;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wssgate => "wssgate",
            Self::Before => "before",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Direct => "no proxy",
            Self::Bare => "bare relay",
        }
    }

    /// The one of this name, in any case.
    pub(crate) fn named(name: &str, among: &[Self]) -> Result<Self, String> {
        let found = among.iter().find(|peer| peer.name().eq_ignore_ascii_case(name));
        found.copied().ok_or(format!("unknown peer {name}"))
    }
}

/// What a row needs of a configuration that others do without; an earlier wssgate may not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    None,
    /// A location with `limit_req`.
    Limits,
    /// A location with `prometheus`.
    Metrics,
    /// Certificates of clients are asked for and verified.
    Clients,
    /// A reload ends open tunnels after this time (`worker_shutdown_timeout`, `hard-stop-after`).
    Reload(Duration),
    /// It runs in the background, where it can be upgraded (USR2); what remains in the old process ends after this
    /// time (`worker_shutdown_timeout`).
    Upgrade(Duration),
}

/// A proxy that is installed.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) peer: Peer,
    program: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
}

impl Installed {
    /// Looks for a proxy; `wssgate` is where ours is, be it this one or an earlier one.
    fn find(peer: Peer, wssgate: &Path) -> Result<Self, String> {
        let program = match peer {
            Peer::Wssgate | Peer::Before => wssgate.to_path_buf(),
            Peer::Nginx => in_path("nginx").ok_or("nginx is not installed")?,
            Peer::Haproxy => in_path("haproxy").ok_or("HAProxy is not installed")?,
            Peer::Caddy => in_path("caddy").ok_or("Caddy is not installed")?,
            Peer::Direct => return Ok(Self::direct()),
            Peer::Bare => return Ok(Self::bare()),
        };
        let version = version(&program, peer);
        let version = version.map_err(|error| format!("{} does not run: {error}", peer.name()))?;
        Ok(Self { peer, program, version })
    }

    pub(crate) fn direct() -> Self {
        Self { peer: Peer::Direct, program: PathBuf::new(), version: String::new() }
    }

    pub(crate) fn bare() -> Self {
        let program = std::env::current_exe().unwrap_or_default();
        Self { peer: Peer::Bare, program, version: String::new() }
    }
}

/// The wanted proxies that are there, each with where wssgate is; a missing one is told and left out.
pub(crate) fn installed<'p>(wanted: impl Iterator<Item = (Peer, &'p Path)>) -> Vec<Installed> {
    let found = wanted.map(|(peer, wssgate)| Installed::find(peer, wssgate));
    found
        .filter_map(|found| found.inspect_err(|missing| eprintln!("skipped: {missing}")).ok())
        .collect()
}

/// The version of a proxy and, if it says so, of its OpenSSL.
fn version(program: &Path, peer: Peer) -> io::Result<String> {
    let argument = match peer {
        Peer::Haproxy => "-vv",
        Peer::Caddy => "version",
        _ => "-V",
    };
    let output = Command::new(program).arg(argument).output()?;
    // nginx speaks on stderr, HAProxy on stdout.
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text);
    let first = text.lines().next().unwrap_or_default().trim_start_matches("nginx version: ");
    let library = text.lines().find(|line| {
        line.starts_with("built with OpenSSL") || line.starts_with("Running on OpenSSL")
    });
    let parts = [Some(first), library].into_iter().flatten().map(str::trim);
    Ok(parts.collect::<Vec<_>>().join(", "))
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Where proxies run, and what they share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) certificate: Certificate,
    pub(crate) cores: Cores,
    /// How many descriptors a process may open.
    pub(crate) descriptors: u64,
    /// What else stands in the configuration of wssgate, and of the earlier one.
    pub(crate) directives: String,
    pub(crate) before_directives: String,
}

/// The core of the proxy and that of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
}

impl Site {
    pub(crate) fn new() -> io::Result<Self> {
        let descriptors = process::raise_descriptor_limit()?;
        let cores = affinity::allowed_cores()?;
        let &[proxy, load, ..] = &cores[..] else {
            return Err(io::Error::other("two cores are needed: one for the proxy, one for load"));
        };
        let dir = tempfile::Builder::new().prefix("wssgate-bench").tempdir()?;
        let certificate = Certificate::write(dir.path())?;
        let cores = Cores { proxy, load };
        let (directives, before_directives) = Default::default();
        Ok(Self { dir, certificate, cores, descriptors, directives, before_directives })
    }
}

/// A proxy that runs; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) plain: Vec<SocketAddr>,
    pub(crate) tls: Vec<SocketAddr>,
}

impl Running {
    /// Starts a proxy in front of `backends` and waits until it listens.
    pub(crate) fn start(
        installed: &Installed,
        site: &Site,
        backends: &[SocketAddr],
        extra: Extra,
    ) -> io::Result<Self> {
        let (plain, tls) = free_ports()?;
        // Others may be running.
        let dir = site.dir.path().join(installed.peer.name());
        fs::create_dir_all(&dir)?;
        let setup = config::Setup { site, dir: &dir, plain: &plain, tls: &tls, backends, extra };
        let (text, args) = setup.of(installed.peer);
        let file = dir.join("proxy.conf");
        fs::write(&file, text).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", file.display()))
        })?;
        Self::launch(installed, &args, site, &dir, (plain, tls))
    }

    /// Starts a proxy that finds its configuration in `dir` and waits until it listens at these
    /// addresses, plain and with TLS.
    pub(crate) fn launch(
        installed: &Installed,
        args: &[String],
        site: &Site,
        dir: &Path,
        (plain, tls): (Vec<SocketAddr>, Vec<SocketAddr>),
    ) -> io::Result<Self> {
        let stderr = fs::File::create(dir.join("stderr"))?;
        let mut command = Command::new(&installed.program);
        // Caddy writes there.
        command.env("HOME", dir).env("XDG_DATA_HOME", dir).env("XDG_CONFIG_HOME", dir);
        command.args(args).current_dir(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        // What is started from here runs on the core of the proxies.
        affinity::run_on(site.cores.proxy)?;
        let child = command.spawn();
        affinity::run_on(site.cores.load)?;
        let child = child.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", installed.program.display()))
        })?;
        let mut running = Self { child, plain, tls };
        running.wait_until_ready(dir, installed.peer)?;
        Ok(running)
    }

    /// Its processes.
    pub(crate) fn tree(&self) -> Tree {
        Tree::of(self.child.id())
    }

    /// Has the configuration read again, as an operator does.
    pub(crate) fn reload(&self, peer: Peer) -> io::Result<()> {
        let signal = if peer == Peer::Haproxy { libc::SIGUSR2 } else { libc::SIGHUP };
        process::kill(self.child.id() as i32, signal)
    }

    fn wait_until_ready(&mut self, dir: &Path, peer: Peer) -> io::Result<()> {
        let begin = Instant::now();
        let tls = if peer == Peer::Bare { &[][..] } else { &self.tls };
        for address in self.plain.iter().chain(tls) {
            while TcpStream::connect(address).is_err() {
                if self.child.try_wait()?.is_some() || begin.elapsed() > PATIENCE {
                    let text = fs::read_to_string(dir.join("stderr"))?;
                    return Err(io::Error::other(format!("it does not start: {}", text.trim())));
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pids = self.tree().pids().unwrap_or_default();
        let begin = Instant::now();
        // It may have ended by itself; then there is nothing to signal.
        let _ = process::kill(self.child.id() as i32, libc::SIGTERM);
        while matches!(self.child.try_wait(), Ok(None)) && begin.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            for pid in pids {
                let _ = process::kill(pid as i32, libc::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// A proxy in the background, and whatever replaces it; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    dir: PathBuf,
    pub(crate) tls: Vec<SocketAddr>,
}

impl Background {
    /// Starts a proxy that can be upgraded in front of `backends` and waits until it listens.
    pub(crate) fn start(
        installed: &Installed,
        site: &Site,
        backends: &[SocketAddr],
        extra: Extra,
    ) -> io::Result<Self> {
        let (plain, tls) = free_ports()?;
        // Each time another one: the one before may have left its files behind.
        let dir = tempfile::Builder::new().prefix("run").tempdir_in(site.dir.path())?.keep();
        let setup = config::Setup { site, dir: &dir, plain: &plain, tls: &tls, backends, extra };
        let (text, args) = setup.of(installed.peer);
        fs::write(dir.join("proxy.conf"), text)?;
        let stderr = fs::File::create(dir.join("stderr"))?;
        let mut command = Command::new(&installed.program);
        command.args(args).current_dir(&dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        // A program that replaces another one has the machine as its operators have it.
        affinity::run_on_any(&[site.cores.proxy, site.cores.load])?;
        let status = command.status();
        affinity::run_on(site.cores.load)?;
        let this = Self { dir, tls };
        let begin = Instant::now();
        let is_ready = || {
            let listens = |address: &SocketAddr| TcpStream::connect(address).is_ok();
            this.pid().is_some() && this.tls.iter().all(listens)
        };
        while !is_ready() {
            if !status.as_ref().is_ok_and(ExitStatus::success) || begin.elapsed() > PATIENCE {
                let text = fs::read_to_string(this.dir.join("stderr"))?;
                return Err(io::Error::other(format!("it does not start: {}", text.trim())));
            }
            std::thread::sleep(POLL);
        }
        Ok(this)
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid_in("nginx.pid")
    }

    fn pid_in(&self, file: &str) -> Option<u32> {
        fs::read_to_string(self.dir.join(file)).ok()?.trim().parse().ok()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("error.log")).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The old one first, as it would serve again when the new one ends.
        for pid in ["nginx.pid.oldbin", "nginx.pid"].iter().filter_map(|file| self.pid_in(file)) {
            let pids = Tree::of(pid).pids().unwrap_or_default();
            let begin = Instant::now();
            // They may have ended by themselves; then there is nothing to signal.
            let _ = process::kill(pid as i32, libc::SIGTERM);
            while pids.iter().any(|&pid| is_alive(pid)) && begin.elapsed() < PATIENCE {
                std::thread::sleep(POLL);
            }
            for pid in pids.into_iter().filter(|&pid| is_alive(pid)) {
                let _ = process::kill(pid as i32, libc::SIGKILL);
            }
        }
    }
}

/// Addresses with a port that is free now, for plain connections and for TLS.
pub(crate) fn free_ports() -> io::Result<(Vec<SocketAddr>, Vec<SocketAddr>)> {
    let first = TcpListener::bind((ADDRESSES[0], 0))?;
    let second = TcpListener::bind((ADDRESSES[0], 0))?;
    let with = |port: u16| ADDRESSES.map(|address| SocketAddr::from((address, port))).to_vec();
    Ok((with(first.local_addr()?.port()), with(second.local_addr()?.port())))
}

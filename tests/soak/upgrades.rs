//! The program is replaced again and again under tunnels in use: they move to the new process, and nothing is lost,
//! doubled or out of its place; the access log has every byte. And: the new process is killed while they move.
//!
//! `WSSGATE_LONG_SOAK` makes it 100 upgrades of 2,000 tunnels, and 200 kills. `WSSGATE_SOAK_TUNNELS`,
//! `WSSGATE_SOAK_UPGRADES`, `WSSGATE_SOAK_KILLS`, `WSSGATE_SOAK_FRAMES` (a second, of all together) and
//! `WSSGATE_SOAK_SEED` choose other numbers. A build with optimisations stands four times as many frames.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    io::{self, Read, Seek, SeekFrom},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, rustls::pki_types::ServerName};
use wssgate_testkit::{Instance, Pki, net::free_addr_on, program, wait_until, wait_within};
use wssgate_ws::Side;

use crate::{
    EXE, alone,
    hold::Holding,
    life::Random,
    on_a_runtime, setting,
    tunnel::{Kind, Stop, Tally, Tunnel, Wire, live},
    wire::{self, Reader, Stream, Writer},
};

/// What all clients send together, in frames a second.
const FRAMES_A_SECOND: u64 = 1000;

/// Handshakes at a time.
const HANDSHAKES: usize = 32;

/// From which upgrade on memory and descriptors must not grow: the tenth, or in short runs the second.
fn settled_at(upgrades: usize) -> usize {
    if upgrades >= 20 { 10 } else { upgrades.min(2) }
}

/// How much more memory a later process may take: buffers that are in use when it is looked at, and what the allocator
/// keeps. What each upgrade left behind for each tunnel would add up: 100 bytes are 18 MiB in the long run.
const MEMORY_SLACK: u64 = 6 << 20;

/// The same for descriptors: a connection to the admin socket, the channel to the process before.
const DESCRIPTOR_SLACK: u64 = 4;

/// How long whatever depends on all tunnels may take.
fn patience() -> Duration {
    Duration::from_secs(if is_long() { 900 } else { 90 })
}

/// What the old process logs when it has started a new one, with its number.
const STARTED: &str = "start new binary process ";

/// What it logs when the new one was killed, behind the number.
const KILLED: &str = " exited on signal 9";

/// What stands in the same line behind the count of tunnels that have ended with the new one.
const ENDED_WITH: &str = "that it had taken over";

fn is_long() -> bool {
    env::var_os("WSSGATE_LONG_SOAK").is_some()
}

fn seed() -> u64 {
    let seed = setting("WSSGATE_SOAK_SEED", u64::from(std::process::id()));
    eprintln!("seed {seed}");
    seed
}

#[test]
fn tunnels_move_to_each_new_process_as_they_are() {
    let _alone = alone();
    let (tunnels, upgrades) = if is_long() { (2000, 100) } else { (200, 6) };
    let tunnels = setting("WSSGATE_SOAK_TUNNELS", tunnels);
    let upgrades = setting("WSSGATE_SOAK_UPGRADES", upgrades);
    let soak = Soak::start(seed(), tunnels, FRAMES_A_SECOND);
    soak.open(tunnels);
    soak.wait_for_progress();
    let mut sizes = Vec::new();
    for upgrade in 1..=upgrades {
        let old = soak.pid();
        let output = soak.upgrade();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "upgrade {upgrade}: {told}");
        let new = soak.pid();
        assert_ne!(new, old);
        wait_within(&format!("the end of process {old}"), patience(), || !exists(old));
        soak.wait_for_progress();
        sizes.push(soak.size_of(new));
    }
    let faults = soak.finish(false);
    assert_none(&faults);
    check_sizes(&sizes);
    let log = soak.instance.error_log();
    assert!(!log.contains("[alert]") && !log.contains("[crit]"), "{log}");
}

#[track_caller]
fn assert_none(faults: &[String]) {
    let some = &faults[..faults.len().min(5)];
    assert!(faults.is_empty(), "{} faults, the first: {some:#?}", faults.len());
}

/// A process at work with all tunnels.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Memory of its own, in bytes: pages of the program are shared with the next one.
    memory: u64,
    descriptors: u64,
}

#[track_caller]
fn check_sizes(sizes: &[Size]) {
    let later = &sizes[settled_at(sizes.len()) - 1..];
    let (first, rest) = later.split_first().unwrap();
    let most = |of: fn(&Size) -> u64| rest.iter().map(of).max().unwrap_or_default();
    let (memory, descriptors) = (most(|size| size.memory), most(|size| size.descriptors));
    eprintln!("{first:?} of the first that counts, then at most {memory} and {descriptors}");
    assert!(memory <= first.memory + first.memory / 10 + MEMORY_SLACK, "{sizes:?}");
    assert!(descriptors <= first.descriptors + DESCRIPTOR_SLACK, "{sizes:?}");
}

/// The old process is there all the time: after USR2 it waits for scripts.
#[test]
fn a_new_process_that_is_killed_takes_no_tunnel_with_it_unless_a_line_says_so() {
    let _alone = alone();
    let kills = setting("WSSGATE_SOAK_KILLS", if is_long() { 200 } else { 10 });
    let seed = seed();
    let tunnels = 48;
    let soak = Soak::start(seed, tunnels, FRAMES_A_SECOND / 2);
    let mut random = Random::new(seed);
    let old = soak.pid();
    let mut log = Tail::of(&soak.instance.dir().join("error.log"));
    let mut lost = 0;
    for kill in 0..kills {
        let missing = tunnels - soak.living().len() as u64;
        if missing > 0 {
            soak.open(missing);
            soak.wait_for_progress();
        }
        let before = soak.living();
        log.skip();
        let moment = Moment::new(&mut random);
        send("USR2", old);
        let new: u32 = log.wait_for(STARTED).trim().parse().unwrap();
        if let Some(line) = moment.line {
            log.wait_for(line);
        }
        spin(moment.delay);
        send("KILL", new);
        let ended = log.wait_for(&format!("process {new}{KILLED}"));
        let told = told_lost(&ended);
        wait_until("the old process to serve", || {
            soak.pid() == old && !soak.instance.dir().join("nginx.pid.oldbin").exists()
        });
        // Each of them goes on, or has noticed that it does not.
        soak.wait_for_progress_of(&before);
        let cut = || before.iter().filter(|tunnel| tunnel.is_cut()).count() as u64;
        eprintln!("{kill}: {moment:?}: {} of {} tunnels ended", cut(), before.len());
        // Those that do not read take a moment to notice.
        wait_within(&format!("{told} tunnels to end by kill {kill}"), patience(), || cut() == told);
        soak.assert_no_faults();
        lost += told;
    }
    eprintln!("{lost} tunnels ended in {kills} kills");
    let faults = soak.finish(true);
    assert_none(&faults);
}

/// When the new process is killed.
#[derive(Debug)]
struct Moment {
    /// Behind this line in the log, or its start.
    line: Option<&'static str>,
    delay: Duration,
}

impl Moment {
    /// Tunnels move when the new process is ready, so most are near that. Short delays are as likely as long ones.
    fn new(random: &mut Random) -> Self {
        let line = match random.range((0, 9)) {
            0 => None,
            1..=4 => Some(CHECKED),
            _ => Some(READY),
        };
        let scale = random.range((0, 10));
        let delay = Duration::from_micros(random.range((0, 100 << scale)));
        Self { line, delay }
    }
}

/// What the old process logs when the new one has read its configuration, and when it serves.
const CHECKED: &str = "has accepted its configuration";
const READY: &str = "accepts connections";

/// How many tunnels have ended with the new process, as the line of its end says: the last number before the words.
fn told_lost(line: &str) -> u64 {
    let Some((before, _)) = line.split_once(ENDED_WITH) else { return 0 };
    before.split_whitespace().filter_map(|word| word.parse().ok()).next_back().unwrap_or_default()
}

fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// The lines of a log as they come.
struct Tail {
    file: fs::File,
    unread: String,
}

impl Tail {
    fn of(path: &Path) -> Self {
        Self { file: fs::File::open(path).unwrap(), unread: String::new() }
    }

    /// Forgets what is there.
    fn skip(&mut self) {
        self.file.seek(SeekFrom::End(0)).unwrap();
        self.unread.clear();
    }

    /// The rest of the first line that has this in it, behind that; all that came before is forgotten.
    #[track_caller]
    fn wait_for(&mut self, part: &str) -> String {
        let until = Instant::now() + patience();
        loop {
            while let Some((line, rest)) = self.unread.split_once('\n') {
                let found = line.split_once(part).map(|(_, rest)| rest.to_owned());
                self.unread = rest.to_owned();
                if let Some(found) = found {
                    return found;
                }
            }
            assert!(Instant::now() < until, "waited in vain for {part:?} in the log");
            if self.file.read_to_string(&mut self.unread).unwrap() == 0 {
                // The moment that follows is to be chosen, so nobody sleeps for long.
                thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

/// A server, both ends of its tunnels, and all that replace it.
struct Soak {
    instance: Instance,
    tunnels: Arc<Tunnels>,
    to_open: mpsc::UnboundedSender<Arc<Tunnel>>,
    seeds: Mutex<Random>,
    _pki: Pki,
}

/// All tunnels that there were, by their numbers.
type Tunnels = Mutex<BTreeMap<u64, Arc<Tunnel>>>;

impl Soak {
    fn start(seed: u64, tunnels: u64, frames_a_second: u64) -> Self {
        let frames_a_second = setting("WSSGATE_SOAK_FRAMES", frames_a_second);
        wssgate_sys::process::raise_descriptor_limit().unwrap();
        let pki = Pki::new();
        let leaf = pki.leaf(&["localhost"]);
        let all = Arc::<Tunnels>::default();
        // The mean of a pause is half of the longest.
        let pause_ms = 2 * tunnels * 1000 / frames_a_second;
        let apps = [(); 2].map(|()| free_addr_on(Ipv4Addr::LOCALHOST.into()));
        let servers = apps.into_iter().zip([None, Some(leaf.server_config())]);
        let servers: Vec<_> = servers
            .map(|(addr, tls)| {
                (std::net::TcpListener::bind(addr).unwrap(), tls.map(TlsAcceptor::from))
            })
            .collect();
        // These threads end with the process.
        let known = Arc::clone(&all);
        thread::spawn(move || {
            on_a_runtime(async {
                for (listener, tls) in servers {
                    tokio::spawn(serve(Arc::clone(&known), listener, tls, pause_ms));
                }
                std::future::pending::<()>().await;
            });
        });
        let instance = Instance::setup(EXE)
            .conf(&configuration())
            .var("PLAIN", apps[0])
            .var("TLS", apps[1])
            .var("CHAIN", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .start();
        let (to_open, opens) = mpsc::unbounded_channel();
        let door = Door {
            addrs: [0, 1, 2].map(|number| instance.listen(number)),
            tls: TlsConnector::from(pki.client_config()),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            pause_ms,
        };
        thread::spawn(move || on_a_runtime(visit(door, opens)));
        Self { instance, tunnels: all, to_open, seeds: Mutex::new(Random::new(seed)), _pki: pki }
    }

    /// Opens so many more.
    #[track_caller]
    fn open(&self, count: u64) {
        let mut new = Vec::new();
        {
            let (mut seeds, mut tunnels) =
                (self.seeds.lock().unwrap(), self.tunnels.lock().unwrap());
            for _ in 0..count {
                let place = tunnels.len() as u64;
                let tunnel = Arc::new(Tunnel::new(seeds.next(), place));
                tunnels.insert(tunnel.id, Arc::clone(&tunnel));
                new.push(tunnel);
            }
        }
        for tunnel in &new {
            self.to_open.send(Arc::clone(tunnel)).unwrap();
        }
        wait_within("tunnels to open", patience(), || {
            self.assert_no_faults();
            new.iter().all(|tunnel| tunnel.began.lock().unwrap().is_some())
        });
    }

    fn all(&self) -> Vec<Arc<Tunnel>> {
        self.tunnels.lock().unwrap().values().cloned().collect()
    }

    /// Those that neither end has given up.
    fn living(&self) -> Vec<Arc<Tunnel>> {
        let mut all = self.all();
        all.retain(|tunnel| {
            tunnel.end(Side::Client).is_none() && tunnel.end(Side::Server).is_none()
        });
        all
    }

    fn faults(&self) -> Vec<String> {
        self.all().iter().filter_map(|tunnel| fault_of(tunnel)).collect()
    }

    #[track_caller]
    fn assert_no_faults(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{} faults, the first: {}", faults.len(), faults[0]);
    }

    /// Waits until something has come through every tunnel from now on.
    #[track_caller]
    fn wait_for_progress(&self) {
        self.wait_for_progress_of(&self.living());
    }

    /// The same for some of them; or they have ended.
    #[track_caller]
    fn wait_for_progress_of(&self, tunnels: &[Arc<Tunnel>]) {
        let seen = |tunnel: &Arc<Tunnel>| tunnel.progress.load(Ordering::Relaxed);
        let before: Vec<_> = tunnels.iter().map(seen).collect();
        // More than one: the first may have been on its way.
        let stuck = || {
            let stuck = tunnels.iter().zip(&before).filter(|(tunnel, before)| {
                let is_read = !matches!(tunnel.kind, Kind::UnreadClient | Kind::UnreadServer);
                is_read && !tunnel.has_ended() && seen(tunnel) < **before + 2
            });
            stuck.map(|(tunnel, _)| (tunnel.kind, tunnel.wire, tunnel.path())).collect::<Vec<_>>()
        };
        let until = Instant::now() + patience();
        loop {
            let stuck = stuck();
            self.assert_no_faults();
            if stuck.is_empty() {
                return;
            }
            let some = &stuck[..stuck.len().min(5)];
            assert!(Instant::now() < until, "nothing comes through {}: {some:?}", stuck.len());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process that the pid file names.
    fn pid(&self) -> u32 {
        self.instance.read("nginx.pid").trim().parse().unwrap_or_default()
    }

    fn upgrade(&self) -> Output {
        let mut command = Command::new(EXE);
        command.args(["upgrade", "-c", "nginx.conf", "-p"]).arg(self.instance.dir());
        command.output().unwrap()
    }

    fn size_of(&self, pid: u32) -> Size {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kib: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        Size { memory: kib << 10, descriptors }
    }

    /// Ends all tunnels, and says what is wrong with them and their lines in the log.
    #[track_caller]
    fn finish(&self, may_be_cut: bool) -> Vec<String> {
        let all = self.all();
        all.iter().for_each(|tunnel| tunnel.finish());
        let until = Instant::now() + patience();
        while !all.iter().all(|tunnel| tunnel.has_ended()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        let whole = all.iter().filter(|tunnel| !tunnel.is_cut()).count();
        // Their lines follow; one that is missing is told below.
        let is_logged = |lines: &HashMap<u64, Line>| {
            all.iter().all(|tunnel| tunnel.is_cut() || lines.contains_key(&tunnel.id))
        };
        while !is_logged(&self.lines().0) && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        let ended = Instant::now();
        let (lines, more) = self.lines();
        let mut faults = self.faults();
        faults.extend(more);
        for tunnel in &all {
            if !tunnel.has_ended() {
                let ends = [Side::Client, Side::Server].map(|side| tunnel.end(side));
                faults.push(format!(
                    "{:?} over {:?} does not end: {ends:?}",
                    tunnel.kind, tunnel.wire
                ));
            } else if tunnel.is_cut() {
                if !may_be_cut {
                    let ends = [Side::Client, Side::Server].map(|side| tunnel.end(side));
                    let line = lines.get(&tunnel.id).map(|line| &line.text);
                    let (kind, wire) = (tunnel.kind, tunnel.wire);
                    faults.push(format!("{kind:?} over {wire:?} was cut: {line:?}, {ends:?}"));
                }
            } else {
                match lines.get(&tunnel.id) {
                    None => faults.push(format!("no line for {}", tunnel.path())),
                    Some(line) => faults.extend(line.faults(tunnel, ended)),
                }
            }
        }
        let sent = |side| all.iter().filter_map(move |tunnel| tunnel.end(side)).map(|end| end.sent);
        let total = |of: fn(&Tally) -> u64| {
            [Side::Client, Side::Server].map(|side| sent(side).map(|tally| of(&tally)).sum::<u64>())
        };
        eprintln!(
            "{} tunnels, {whole} of them whole: {:?} frames, {:?} messages, {:?} MiB",
            all.len(),
            total(|tally| tally.frames),
            total(|tally| tally.messages),
            total(|tally| tally.bytes).map(|bytes| bytes >> 20)
        );
        faults
    }

    /// The lines of the access log by the number of the tunnel, and what is wrong with the log.
    fn lines(&self) -> (HashMap<u64, Line>, Vec<String>) {
        let (mut lines, mut faults) = (HashMap::new(), Vec::new());
        for text in self.instance.access_log().lines() {
            let Some((id, line)) = Line::parse(text) else {
                // The last one may not be complete.
                faults.push(format!("an odd line: {text}"));
                continue;
            };
            if lines.insert(id, line).is_some() {
                faults.push(format!("a second line: {text}"));
            }
        }
        (lines, faults)
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        let pids = ["nginx.pid", "nginx.pid.oldbin"].map(|file| self.instance.read(file));
        for pid in pids.iter().filter_map(|pid| pid.trim().parse::<u32>().ok()) {
            // It may have ended.
            let _ = Command::new("kill").arg(pid.to_string()).status();
            if pid != self.instance.pid() && !thread::panicking() {
                wait_until("the end of a process", || !exists(pid));
            }
        }
    }
}

/// What is wrong with a tunnel from the view of its ends.
fn fault_of(tunnel: &Tunnel) -> Option<String> {
    [Side::Client, Side::Server].into_iter().find_map(|side| match tunnel.end(side)?.how {
        Err(Stop::Fault(fault)) => {
            let Tunnel { id, kind, wire, .. } = tunnel;
            Some(format!("{id:x}, {kind:?} over {wire:?}, {side:?}: {fault}"))
        }
        _ => None,
    })
}

/// A line of the access log.
#[derive(Debug)]
struct Line {
    by: String,
    code: String,
    cause: String,
    lifetime: f64,
    /// Of the client and the upstream server.
    sides: [Tally; 2],
    text: String,
}

const FIELDS: [&str; 6] =
    ["bytes", "frames", "messages", "payload_bytes", "largest_message", "pings"];

fn log_format() -> String {
    let of = |side: &str| {
        let names = FIELDS.iter().chain(&["pongs"]);
        names.map(|name| format!("$websocket_{side}_{name}")).collect::<Vec<_>>().join(" ")
    };
    format!(
        "log_format soak '$uri $websocket_closed_by $websocket_close_code $websocket_close_cause \
         $websocket_lifetime {} {}';",
        of("client"),
        of("upstream")
    )
}

impl Line {
    fn parse(text: &str) -> Option<(u64, Self)> {
        let mut words = text.split(' ');
        let id = u64::from_str_radix(words.next()?.rsplit('/').next()?, 16).ok()?;
        let [by, code, cause] = [words.next()?, words.next()?, words.next()?].map(str::to_owned);
        let lifetime = words.next()?.parse().ok()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let mut side = || {
            Some(Tally {
                bytes: number()?,
                frames: number()?,
                messages: number()?,
                payload: number()?,
                largest: number()?,
                pings: number()?,
                pongs: number()?,
                unfinished: 0,
            })
        };
        let sides = [side()?, side()?];
        Some((id, Self { by, code, cause, lifetime, sides, text: text.to_owned() }))
    }

    /// What it should not say of this tunnel, whose line was there at `ended`.
    fn faults(&self, tunnel: &Tunnel, ended: Instant) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |what: &str, is_right: bool, expected: String| {
            if !is_right {
                let kind = tunnel.kind;
                faults.push(format!("{kind:?}: {what} should be {expected}: {}", self.text));
            }
        };
        let by = match tunnel.ends_first {
            Side::Client => "client",
            Side::Server => "upstream",
        };
        let code = tunnel.close_code().map_or("-".to_owned(), |code| code.to_string());
        let cause = format!("{by}_{}", if code == "-" { "fin" } else { "close" });
        check("closed_by", self.by == by, by.to_owned());
        check("code", self.code == code, code);
        check("cause", self.cause == cause, cause);
        for (side, name) in [(Side::Client, "client"), (Side::Server, "upstream")] {
            let sent = tunnel.logged(side).unwrap();
            check(name, self.sides[side as usize] == sent, format!("{sent:?}"));
        }
        let (asked, granted) = tunnel.began.lock().unwrap().unwrap();
        let least = tunnel.end(Side::Client).unwrap().at.min(tunnel.end(Side::Server).unwrap().at);
        let (least, most) = (least - granted, ended - asked);
        let lifetime = Duration::from_secs_f64(self.lifetime) + LATE;
        check(
            "lifetime",
            (least..=most + 2 * LATE).contains(&lifetime),
            format!("{least:?} to {most:?}"),
        );
        faults
    }
}

/// How much later than its ends the proxy may see the beginning or the end of a tunnel on a busy machine.
const LATE: Duration = Duration::from_secs(1);

fn configuration() -> String {
    format!(
        "daemon off;
         pid %%DIR%%/nginx.pid;
         error_log %%DIR%%/error.log notice;
         worker_processes 2;
         worker_rlimit_nofile 20000;
         events {{ worker_connections 10000; }}
         http {{
             {}
             access_log %%DIR%%/access.log soak;
             websocket_ping_interval off;
             proxy_read_timeout 1h;
             proxy_send_timeout 1h;
             send_timeout 1h;
             {}
             ssl_certificate %%CHAIN%%;
             ssl_certificate_key %%KEY%%;
             server {{
                 listen %%LISTEN_0%% backlog=4096;
                 listen %%LISTEN_1%% ssl backlog=4096;
                 ssl_protocols TLSv1.2;
                 {LOCATIONS}
             }}
             server {{
                 listen %%LISTEN_2%% ssl backlog=4096;
                 ssl_protocols TLSv1.3;
                 {LOCATIONS}
             }}
         }}",
        log_format(),
        program::more_directives(),
    )
}

const LOCATIONS: &str = "
    location /plain/ { proxy_pass http://%%PLAIN%%; }
    location /tls/ { proxy_pass https://%%TLS%%; }
    location /checked-plain/ {
        websocket_check text; websocket_max_message_size 2m; proxy_pass http://%%PLAIN%%;
    }
    location /checked-tls/ {
        websocket_check text; websocket_max_message_size 2m; proxy_pass https://%%TLS%%;
    }
    location /pinged-plain/ { websocket_ping_interval 200ms; proxy_pass http://%%PLAIN%%; }
    location /pinged-tls/ { websocket_ping_interval 200ms; proxy_pass https://%%TLS%%; }";

/// Accepts the servers' ends.
async fn serve(
    tunnels: Arc<Tunnels>,
    listener: std::net::TcpListener,
    tls: Option<TlsAcceptor>,
    pause_ms: u64,
) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (tunnels, tls) = (Arc::clone(&tunnels), tls.clone());
        tokio::spawn(async move {
            // The client has the 502 that follows.
            let Ok((tunnel, halves)) = welcome(&tunnels, tcp, tls).await else { return };
            live(&tunnel, Side::Server, halves, pause_ms).await;
        });
    }
}

async fn welcome(
    tunnels: &Tunnels,
    tcp: TcpStream,
    tls: Option<TlsAcceptor>,
) -> io::Result<(Arc<Tunnel>, (Reader, Writer))> {
    tcp.set_nodelay(true)?;
    // Which tunnel it is comes later; they all may hold back.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let tcp = Holding::new(tcp, NUMBER.fetch_add(1, Ordering::Relaxed));
    let switch = tcp.switch();
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(tcp),
        Some(tls) => Box::new(tls.accept(tcp).await?),
    };
    let asked = wire::hear(stream).await?;
    let id = asked.path.rsplit('/').next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let tunnel = id.and_then(|id| tunnels.lock().unwrap().get(&id).cloned());
    let tunnel = tunnel.ok_or_else(|| io::Error::other(asked.path.clone()))?;
    let halves = asked.grant().await?;
    switch.set(tunnel.kind == Kind::Torn);
    Ok((tunnel, halves))
}

/// Where clients come in.
#[derive(Clone)]
struct Door {
    /// Plain, TLS 1.2, TLS 1.3.
    addrs: [SocketAddr; 3],
    tls: TlsConnector,
    handshakes: Arc<Semaphore>,
    pause_ms: u64,
}

/// Lives the clients' ends of the tunnels that come.
async fn visit(door: Door, mut tunnels: mpsc::UnboundedReceiver<Arc<Tunnel>>) {
    while let Some(tunnel) = tunnels.recv().await {
        let door = door.clone();
        tokio::spawn(async move {
            match door.enter(&tunnel).await {
                Ok(halves) => live(&tunnel, Side::Client, halves, door.pause_ms).await,
                Err(error) => {
                    let fault = Stop::Fault(format!("handshake: {error}"));
                    tunnel.note(Side::Client, Tally::default(), Err(fault));
                }
            }
        });
    }
    // Those that are there go on.
    std::future::pending::<()>().await;
}

impl Door {
    async fn enter(&self, tunnel: &Tunnel) -> io::Result<(Reader, Writer)> {
        let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let asked = Instant::now();
        let tcp = TcpStream::connect(self.addrs[tunnel.wire as usize]).await?;
        tcp.set_nodelay(true)?;
        let tcp = Holding::new(tcp, tunnel.id);
        let switch = tcp.switch();
        let stream: Box<dyn Stream> = match tunnel.wire {
            Wire::Plain => Box::new(tcp),
            Wire::Tls12 | Wire::Tls13 => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Box::new(self.tls.connect(name, tcp).await?)
            }
        };
        let halves = wire::ask(stream, &tunnel.path()).await?;
        switch.set(tunnel.kind == Kind::Torn);
        *tunnel.began.lock().unwrap() = Some((asked, Instant::now()));
        Ok(halves)
    }
}

fn exists(pid: u32) -> bool {
    // Of those who are no children of ours nobody keeps the number.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[track_caller]
fn send(signal: &str, pid: u32) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot send {signal} to {pid}");
}

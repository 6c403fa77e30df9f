//! Many tunnels, all kinds of traffic and ends, a reload every second: not a byte is lost, doubled or
//! out of its place.
//!
//! A tunnel is one life ([`life`]): both ends know from a number in its path what each sends and how it
//! ends, and hold every frame against that ([`end`]). Lives follow each other in as many places as there
//! are tunnels at a time. A quarter has TLS on neither side of the program, a quarter on both. Half of them
//! pass where frames are checked and messages limited, and some end by what is refused there. What the ends
//! would notice is tried without the program ([`checks`]).
//!
//! Tunnels of another kind ([`tunnel`]) live as long as the test, while the program is replaced ([`upgrades`]).
//!
//! `WSSGATE_SOAK_TUNNELS` (200), `WSSGATE_SOAK_SECONDS` (15) and `WSSGATE_SOAK_SEED` make it the
//! long run; `WSSGATE_TEST_DIRECTIVES` adds to the `http` block.
#![allow(clippy::unwrap_used)]

mod checks;
mod end;
mod hold;
mod life;
mod tunnel;
mod upgrades;
mod wire;

use std::{
    env, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, rustls::pki_types::ServerName};
use wssgate_testkit::{Instance, Pki, net::free_addr_on, program, wait_until};
use wssgate_ws::Side;

use end::{World, live};
use life::{Life, MAX_MESSAGE, Random};
use wire::{Reader, Stream, Writer};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");
const BETWEEN_RELOADS: Duration = Duration::from_secs(1);

/// What all ends send together, in frames a second; a busy machine takes longer, and nothing else.
const FRAMES_A_SECOND: u64 = 4000;

/// Long tests come one after the other: each wants the whole machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // One that fails does not make the others fail.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn not_a_byte_is_lost() {
    let _alone = alone();
    let tunnels = setting("WSSGATE_SOAK_TUNNELS", 200);
    let lasts = Duration::from_secs(setting("WSSGATE_SOAK_SECONDS", 15));
    let seed = setting("WSSGATE_SOAK_SEED", u64::from(std::process::id()));
    eprintln!("seed {seed}");
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    // Both ends of each tunnel send; the mean of a pause is half of the longest.
    let pause_ms = 2 * 2 * tunnels * 1000 / FRAMES_A_SECOND;
    let world = Arc::new(World { pause_ms, ..World::default() });
    let apps = [(); 2].map(|()| free_addr_on(Ipv4Addr::LOCALHOST.into()));
    for (addr, tls) in apps.into_iter().zip([None, Some(leaf.server_config())]) {
        let world = Arc::clone(&world);
        let listener = std::net::TcpListener::bind(addr).unwrap();
        // Its thread ends with the process.
        thread::spawn(move || on_a_runtime(serve(world, listener, tls.map(TlsAcceptor::from))));
    }
    let mut wssgate = Instance::setup(EXE)
        .conf(&configuration())
        .var("PLAIN", apps[0])
        .var("TLS", apps[1])
        .var("CHAIN", leaf.fullchain.display())
        .var("KEY", leaf.key.display())
        .var("GENERATION", 0)
        .start();
    let clients = {
        let world = Arc::clone(&world);
        let entry = Entry {
            addrs: [wssgate.listen(0), wssgate.listen(1)],
            tls: TlsConnector::from(pki.client_config()),
        };
        thread::spawn(move || on_a_runtime(visit(world, entry, tunnels, seed)))
    };

    let start = Instant::now();
    let mut reloads = 0;
    while start.elapsed() < lasts && world.faults.lock().unwrap().is_empty() {
        thread::sleep(BETWEEN_RELOADS);
        reloads += 1;
        wssgate.set_var("GENERATION", reloads);
        wssgate.rewrite();
        wssgate.signal("HUP");
    }
    world.stop.store(true, Ordering::SeqCst);
    clients.join().unwrap();
    let ended = |side: Side| world.ended[side as usize].load(Ordering::SeqCst);
    let faults = || world.faults.lock().unwrap().clone();
    wait_until("the servers' ends", || {
        ended(Side::Server) == ended(Side::Client) || !faults().is_empty()
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let pings = count(&world.foreign_pings);
    let [told, cut] = world.refused.each_ref().map(count);
    eprintln!("{told} ends heard why something was refused, {cut} had no time for it");
    eprintln!(
        "{} lives, {} frames, {} MiB, {reloads} reloads, {pings} pings of neither end",
        ended(Side::Client),
        count(&world.frames),
        count(&world.bytes) >> 20,
    );
    let faults = faults();
    let some = &faults[..faults.len().min(5)];
    assert!(faults.is_empty(), "{} faults, the first: {some:#?}", faults.len());
    assert!(ended(Side::Client) >= tunnels);
    assert!(wssgate.stop().success());
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

fn configuration() -> String {
    format!(
        "daemon off;
         pid %%DIR%%/nginx.pid;
         error_log %%DIR%%/error.log info;
         worker_processes 2;
         worker_rlimit_nofile 20000;
         events {{ worker_connections 10000; }}
         http {{
             access_log %%DIR%%/access.log;
             {}
             server {{
                 listen %%LISTEN_0%%;
                 listen %%LISTEN_1%% ssl;
                 ssl_certificate %%CHAIN%%;
                 ssl_certificate_key %%KEY%%;
                 location /plain/ {{ proxy_pass http://%%PLAIN%%; }}
                 location /tls/ {{ proxy_pass https://%%TLS%%; }}
                 location /checked-plain/ {{ {CHECKED} proxy_pass http://%%PLAIN%%; }}
                 location /checked-tls/ {{ {CHECKED} proxy_pass https://%%TLS%%; }}
                 location = /generation {{ return 200 %%GENERATION%%; }}
             }}
         }}",
        program::more_directives(),
        CHECKED = format!("websocket_check text; websocket_max_message_size {MAX_MESSAGE};"),
    )
}

fn on_a_runtime(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future);
}

/// Accepts the servers' ends of lives.
async fn serve(world: Arc<World>, listener: std::net::TcpListener, tls: Option<TlsAcceptor>) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (world, tls) = (Arc::clone(&world), tls.clone());
        tokio::spawn(async move {
            match welcome(tcp, tls).await {
                Ok((seed, reader, writer)) => {
                    let life = Life::new(seed);
                    let lived = live(&world, &life, Side::Server, reader, writer).await;
                    world.note(seed, Side::Server, lived);
                }
                Err(error) => world.note(0, Side::Server, Err(format!("handshake: {error}"))),
            }
        });
    }
}

/// The server's part of a handshake; returns the number of the life.
async fn welcome(tcp: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<(u64, Reader, Writer)> {
    tcp.set_nodelay(true)?;
    // Another handle to it, until it is known what its life is.
    let socket = SockRef::from(&tcp).try_clone()?;
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(tcp),
        Some(tls) => Box::new(tls.accept(tcp).await?),
    };
    let asked = wire::hear(stream).await?;
    let seed = asked.path.split('/').nth(2).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let Some(seed) = seed else { return Err(io::Error::other(asked.path)) };
    Life::new(seed).arm(&socket, Side::Server)?;
    let (reader, writer) = asked.grant().await?;
    Ok((seed, reader, writer))
}

/// Where clients connect: plain and TLS.
#[derive(Clone)]
struct Entry {
    addrs: [SocketAddr; 2],
    tls: TlsConnector,
}

/// Lives the clients' ends, so many at a time, until told to stop.
async fn visit(world: Arc<World>, entry: Entry, tunnels: u64, seed: u64) {
    let mut places = tokio::task::JoinSet::new();
    for place in 0..tunnels {
        let (world, entry) = (Arc::clone(&world), entry.clone());
        places.spawn(async move {
            let mut seeds = Random::new(seed ^ (place << 32));
            // Each place lives once at least.
            loop {
                let life = seeds.next();
                let lived = match entry.enter(place, life).await {
                    Ok((reader, writer)) => {
                        live(&world, &Life::new(life), Side::Client, reader, writer).await
                    }
                    Err(error) => Err(format!("handshake: {error}")),
                };
                let is_lost = lived.is_err();
                world.note(life, Side::Client, lived);
                if is_lost || world.is_stopped() {
                    return;
                }
            }
        });
    }
    places.join_all().await;
}

impl Entry {
    /// The client's part of a handshake.
    async fn enter(&self, place: u64, life: u64) -> io::Result<(Reader, Writer)> {
        let (tls_here, tls_there) = (place & 1 == 1, place & 2 == 2);
        let tcp = TcpStream::connect(self.addrs[usize::from(tls_here)]).await?;
        tcp.set_nodelay(true)?;
        let lives = Life::new(life);
        lives.arm(&SockRef::from(&tcp), Side::Client)?;
        let stream: Box<dyn Stream> = match tls_here {
            false => Box::new(tcp),
            true => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Box::new(self.tls.connect(name, tcp).await?)
            }
        };
        let (checked, wire) = (lives.is_checked, if tls_there { "tls" } else { "plain" });
        let path = format!("/{}{wire}/{life:x}", if checked { "checked-" } else { "" });
        wire::ask(stream, &path).await
    }
}

//! The upstream's side: a listener whose connections are each served by a script in a thread.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use rustls::ServerConfig;
use wssgate_ws::{Opcode, accept_key};

use crate::{Addr, Conn, GUARD, Request};

/// What a WebSocket server says to an ordinary request.
const NO_UPGRADE: &str =
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\nConnection: close\r\n\r\nno upgrade";

/// What an upstream does with one connection.
type Script = dyn Fn(&mut Conn) + Send + Sync;

/// Where and how an upstream listens.
#[derive(Clone, Default)]
pub struct Builder {
    at: Option<Addr>,
    tls: Option<Arc<ServerConfig>>,
}

impl Builder {
    /// At this address instead of a port of 127.0.0.1 that the kernel chooses; port 0 lets the
    /// kernel choose on another address, such as `::1`.
    #[must_use]
    pub fn at(mut self, addr: impl Into<Addr>) -> Self {
        self.at = Some(addr.into());
        self
    }

    /// At a Unix socket.
    #[must_use]
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.at = Some(Addr::Unix(path.into()));
        self
    }

    /// With TLS; see [`crate::pki::Leaf::server_config`].
    #[must_use]
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Serves every connection by `script`, in a thread of its own. The connection closes when the
    /// script returns.
    #[track_caller]
    pub fn serve(self, script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
        Upstream::start(self, Arc::new(script)).unwrap_or_else(|error| panic!("upstream: {error}"))
    }

    /// Completes WebSocket handshakes and then runs `script`; other requests get a 400.
    #[track_caller]
    pub fn websocket(self, script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
        self.serve(move |conn| {
            let Ok(Some(request)) = conn.try_recv_request() else { return };
            if request.field("Sec-WebSocket-Key").is_none() {
                let _ = conn.try_send_raw(NO_UPGRADE);
                return;
            }
            conn.accept_websocket(&request, "");
            script(conn);
        })
    }

    /// Echoes WebSocket frames, answers pings and the Close, and then closes.
    #[track_caller]
    pub fn echo(self) -> Upstream {
        self.websocket(Conn::echo)
    }

    /// Answers every request of every connection with the bytes that `answer` makes of it, until
    /// the client closes.
    #[track_caller]
    pub fn http<A: AsRef<[u8]>>(
        self,
        answer: impl Fn(&Request) -> A + Send + Sync + 'static,
    ) -> Upstream {
        self.serve(move |conn| {
            while let Ok(Some(request)) = conn.try_recv_request() {
                if conn.try_send_raw(answer(&request)).is_err() {
                    return;
                }
            }
        })
    }
}

/// An upstream that runs until it is dropped.
pub struct Upstream {
    addr: Addr,
    requests: Receiver<Request>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<Vec<JoinHandle<()>>>>,
}

impl Upstream {
    /// An upstream to be described; the short forms below are for the usual cases.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// See [`Builder::serve`].
    #[track_caller]
    pub fn serve(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        Self::builder().serve(script)
    }

    /// See [`Builder::websocket`].
    #[track_caller]
    pub fn websocket(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        Self::builder().websocket(script)
    }

    /// See [`Builder::echo`].
    #[track_caller]
    pub fn echo() -> Self {
        Self::builder().echo()
    }

    /// See [`Builder::http`].
    #[track_caller]
    pub fn http<A: AsRef<[u8]>>(answer: impl Fn(&Request) -> A + Send + Sync + 'static) -> Self {
        Self::builder().http(answer)
    }

    /// Answers every request with 200 and this text.
    #[track_caller]
    pub fn text(body: &str) -> Self {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Self::http(move |_| answer.clone())
    }

    /// Reads one request, sends these bytes whatever they are, and closes.
    #[track_caller]
    pub fn says(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::serve(move |conn| {
            if let Ok(Some(_)) = conn.try_recv_request() {
                let _ = conn.try_send_raw(&bytes);
            }
        })
    }

    fn start(builder: Builder, script: Arc<Script>) -> io::Result<Self> {
        let at = builder.at.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into());
        let (listener, addr) = Socket::bind(at)?;
        let (sender, requests) = channel();
        let (connections, stop) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let acceptor = Acceptor {
            listener,
            tls: builder.tls,
            script,
            sender,
            connections: Arc::clone(&connections),
            stop: Arc::clone(&stop),
        };
        let accepting = Some(thread::spawn(move || acceptor.run()));
        Ok(Self { addr, requests, connections, stop, accepting })
    }

    /// Where it listens; as text it is what `proxy_pass http://…` wants.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// The port, if it listens on TCP.
    #[track_caller]
    pub fn port(&self) -> u16 {
        match &self.addr {
            Addr::Tcp(addr) => addr.port(),
            Addr::Unix(path) => panic!("{} has no port", path.display()),
        }
    }

    /// The next request that was received on any connection; waits for it.
    #[track_caller]
    pub fn next_request(&self) -> Request {
        self.requests.recv_timeout(GUARD).unwrap_or_else(|_| panic!("upstream got no request"))
    }

    /// The requests received so far and not asked for.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Stops listening, waits for all scripts to return, and fails if one of them failed.
    #[track_caller]
    pub fn finish(mut self) {
        for script in self.stop_accepting() {
            if let Err(panic) = script.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    fn stop_accepting(&mut self) -> Vec<JoinHandle<()>> {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits in accept.
        let _ = Conn::try_connect(&self.addr);
        self.accepting.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop_accepting();
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    fn bind(at: Addr) -> io::Result<(Self, Addr)> {
        match at {
            Addr::Tcp(addr) => {
                let listener = TcpListener::bind(addr)?;
                let addr = listener.local_addr()?.into();
                Ok((Self::Tcp(listener), addr))
            }
            Addr::Unix(path) => Ok((Self::Unix(UnixListener::bind(&path)?), Addr::Unix(path))),
        }
    }
}

struct Acceptor {
    listener: Socket,
    tls: Option<Arc<ServerConfig>>,
    script: Arc<Script>,
    sender: Sender<Request>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Acceptor {
    /// Accepts until told to stop; returns the threads of the scripts.
    fn run(self) -> Vec<JoinHandle<()>> {
        let mut scripts = Vec::new();
        loop {
            let accepted = match &self.listener {
                Socket::Tcp(listener) => listener.accept().map(|(stream, _)| Accepted::Tcp(stream)),
                Socket::Unix(listener) => {
                    listener.accept().map(|(stream, _)| Accepted::Unix(stream))
                }
            };
            if self.stop.load(Ordering::SeqCst) {
                return scripts;
            }
            let Ok(accepted) = accepted else { continue };
            let number = self.connections.fetch_add(1, Ordering::SeqCst);
            let (tls, script) = (self.tls.clone(), Arc::clone(&self.script));
            let sender = self.sender.clone();
            scripts.push(thread::spawn(move || {
                // A peer that fails to finish TLS is what some tests are about.
                if let Ok(mut conn) = accepted.into_conn(tls) {
                    conn.number = number;
                    conn.recorder = Some(sender);
                    script(&mut conn);
                }
            }));
        }
    }
}

enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    fn into_conn(self, tls: Option<Arc<ServerConfig>>) -> io::Result<Conn> {
        match self {
            Self::Tcp(stream) => Conn::accepted_tcp(stream, tls),
            Self::Unix(stream) => Conn::accepted_unix(stream),
        }
    }
}

impl Conn {
    /// Sends the 101 that belongs to `request`; `more` are further lines, each with its CRLF.
    #[track_caller]
    pub fn accept_websocket(&mut self, request: &Request, more: &str) {
        let Some(key) = request.field("Sec-WebSocket-Key") else {
            panic!("no Sec-WebSocket-Key in {request:?}");
        };
        let accept = accept_key(key.as_bytes());
        let accept = String::from_utf8_lossy(&accept);
        self.send_raw(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
        ));
    }

    /// Echoes frames until the Close is answered or the connection ends.
    pub fn echo(&mut self) {
        while let Ok(mut frame) = self.try_recv() {
            let opcode = frame.opcode;
            match opcode {
                Opcode::Ping => frame.opcode = Opcode::Pong,
                Opcode::Pong => continue,
                _ => {}
            }
            if self.try_send([frame]).is_err() || opcode == Opcode::Close {
                return;
            }
        }
    }
}

/// A door that a script waits at until the test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate; clones are the same gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().expect("nothing panics while this is locked") = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    #[track_caller]
    pub fn wait(&self) {
        let is_open = self.0.0.lock().expect("nothing panics while this is locked");
        let (is_open, _) = self
            .0
            .1
            .wait_timeout_while(is_open, GUARD, |is_open| !*is_open)
            .expect("nothing panics while this is locked");
        assert!(*is_open, "nobody opened the gate");
    }
}

/// `127.0.0.1` or `::1` with a port that the kernel chooses, for [`Builder::at`].
pub fn any_port_on(ip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(ip.into(), 0)
}

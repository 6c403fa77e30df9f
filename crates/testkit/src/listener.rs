//! An upstream that the test speaks for itself, in its own thread: dialogues read from the top.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use rustls::ServerConfig;

use crate::{Addr, Conn, GUARD, Handshake};

/// A listener on 127.0.0.1 whose connections the test accepts when it wants them.
///
/// ```no_run
/// # use wssgate_testkit::{Handshake, Listener, continuation, ping, text};
/// # let proxy: std::net::SocketAddr = ([127, 0, 0, 1], 80).into();
/// let listener = Listener::bind();
/// let (mut client, mut upstream) = Handshake::to(proxy).open_with(&listener);
/// client.send([text("hel").more(), ping("?"), continuation("lo")]);
/// upstream.expect([text("hel").more(), ping("?"), continuation("lo")]);
/// ```
pub struct Listener {
    listener: TcpListener,
    addr: Addr,
    tls: Option<Arc<ServerConfig>>,
}

impl Listener {
    /// Listens on a port that the kernel chooses.
    #[track_caller]
    pub fn bind() -> Self {
        Self::bind_on(Ipv4Addr::LOCALHOST)
    }

    /// The same on another address than 127.0.0.1.
    #[track_caller]
    pub fn bind_on(ip: Ipv4Addr) -> Self {
        let listen = || -> io::Result<Self> {
            let listener = TcpListener::bind(SocketAddr::from((ip, 0)))?;
            // On Linux this bounds accept too.
            socket2::SockRef::from(&listener).set_read_timeout(Some(GUARD))?;
            let addr = listener.local_addr()?.into();
            Ok(Self { listener, addr, tls: None })
        };
        listen().unwrap_or_else(|error| panic!("cannot listen: {error}"))
    }

    /// The same with TLS; its handshake is part of [`Listener::accept`].
    #[must_use]
    pub fn tls(self, config: Arc<ServerConfig>) -> Self {
        Self { tls: Some(config), ..self }
    }

    /// Where it listens.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Waits for the next connection.
    #[track_caller]
    pub fn accept(&self) -> Conn {
        let accepted = self.listener.accept();
        accepted
            .and_then(|(stream, _)| Conn::accepted_tcp(stream, self.tls.clone()))
            .unwrap_or_else(|error| panic!("waited for a connection: {error}"))
    }
}

impl Handshake {
    /// Makes the handshake with a proxy whose upstream is `listener`, speaking for both ends:
    /// returns the client's connection and the upstream's.
    #[track_caller]
    pub fn open_with(&self, listener: &Listener) -> (Conn, Conn) {
        let mut client = self.send();
        let mut upstream = listener.accept();
        let request = upstream.recv_request();
        upstream.accept_websocket(&request, "");
        let answer = client.recv_response();
        self.check(&answer);
        (client, upstream)
    }
}

//! The client's side of an opening handshake.

use std::{io, sync::Arc};

use rustls::ClientConfig;
use wssgate_ws::{Offer, Switched, handshake};

use crate::{Addr, Conn, Head, Response};

/// The key of every handshake: predictable, so that failures can be compared.
const KEY: [u8; 16] = *b"the sample nonce";

/// A WebSocket handshake to be made.
///
/// ```no_run
/// # let addr: std::net::SocketAddr = ([127, 0, 0, 1], 80).into();
/// let mut client = wssgate_testkit::Handshake::to(addr).host("a.test").path("/chat").open();
/// client.send([wssgate_testkit::text("hello")]);
/// ```
#[derive(Clone, Debug)]
pub struct Handshake {
    addr: Addr,
    host: String,
    path: String,
    fields: Vec<(String, String)>,
    tls: Option<(Arc<ClientConfig>, String)>,
    early: Vec<u8>,
}

impl Handshake {
    /// A handshake with whoever listens at `addr`, for `Host: localhost` and the path `/`.
    pub fn to(addr: impl Into<Addr>) -> Self {
        Self {
            addr: addr.into(),
            host: "localhost".into(),
            path: "/".into(),
            fields: Vec::new(),
            tls: None,
            early: Vec::new(),
        }
    }

    /// Another `Host`.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// Another path, with its query.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// One more field, behind those that every handshake has.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Over TLS, with this server name; see [`crate::Pki::client_config`].
    #[must_use]
    pub fn tls(mut self, config: Arc<ClientConfig>, name: &str) -> Self {
        self.tls = Some((config, name.into()));
        self
    }

    /// Bytes that leave in one write with the request, before any answer.
    #[must_use]
    pub fn early(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.early = bytes.into();
        self
    }

    /// The request as it goes over the wire, early bytes included.
    pub fn encode(&self) -> Vec<u8> {
        let fields = self.fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        let key = handshake::encode_key(KEY);
        let mut bytes =
            handshake::encode_request(&self.path, &self.host, &key, &fields.collect::<Vec<_>>());
        bytes.extend_from_slice(&self.early);
        bytes
    }

    /// Connects and sends the request, and waits for nothing.
    #[track_caller]
    pub fn send(&self) -> Conn {
        self.try_send().unwrap_or_else(|error| panic!("handshake with {}: {error}", self.addr))
    }

    /// Connects and sends the request, and says if that fails.
    pub fn try_send(&self) -> io::Result<Conn> {
        let mut conn = match &self.tls {
            None => Conn::try_connect(&self.addr)?,
            Some((config, name)) => Conn::try_connect_tls(&self.addr, config.clone(), name)?,
        };
        conn.try_send_raw(self.encode())?;
        Ok(conn)
    }

    /// Makes the handshake, and expects a 101 that [`wssgate_ws::Offer`] accepts.
    #[track_caller]
    pub fn open(&self) -> Conn {
        self.open_with_head().0
    }

    /// Like [`Handshake::open`], with the head of the answer.
    #[track_caller]
    pub fn open_with_head(&self) -> (Conn, Head) {
        let (conn, response) = self.answer();
        self.check(&response);
        (conn, response.head)
    }

    /// Holds the answer against what was asked for.
    #[track_caller]
    pub(crate) fn check(&self, response: &Response) {
        assert_eq!(response.status, 101, "{response:?}");
        let request = Head::parse_request(&self.encode());
        let offer = Offer::from_request(as_fields(&request)).expect("we sent Upgrade");
        match offer.check_answer(as_fields(&response.head)) {
            Ok(Switched::WebSocket { oddities, .. }) if !oddities.is_empty() => {
                panic!("odd 101 answer: {oddities:?}: {:?}", response.head)
            }
            Ok(_) => {}
            Err(error) => panic!("invalid 101 answer: {error}: {:?}", response.head),
        }
    }

    /// Makes the handshake and returns whatever the answer is, with its body if it is no 101.
    #[track_caller]
    pub fn answer(&self) -> (Conn, Response) {
        let mut conn = self.send();
        let response = conn.recv_response();
        (conn, response)
    }
}

fn as_fields(head: &Head) -> impl Iterator<Item = handshake::Field<'_>> {
    head.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

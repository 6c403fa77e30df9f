//! What others wrote, through the program: clients and servers in Python, node, Rust and a browser.
//!
//! Each client tries the same with each server, compression on where it knows it: messages of many
//! sizes, fragments, pings both ways, both ends' close codes and reasons, and connections cut off. It
//! fails by itself; here the server's view of the ends is added. The routes are ws with one hop and wss
//! with two. `WSSGATE_TEST_DIRECTIVES` adds to the configuration of all hops.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{
            CloseFrame,
            frame::{
                Frame, Utf8Bytes,
                coding::{Data, OpCode},
            },
        },
    },
};
use wssgate_testkit::{
    Instance, Pki,
    net::loopback,
    program::{self, Script},
};
use wssgate_ws::conversation::PING_LEN;

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// For everything that one client does, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// The program in front of a server. `listen(0)` is ws, `listen(1)` wss and two hops away.
struct Gateway {
    instance: Instance,
    pki: Pki,
}

impl Gateway {
    fn before(server: &Script) -> Self {
        let pki = Pki::new();
        let leaf = pki.leaf(&["localhost", &loopback().to_string()]);
        // The page is for clients that begin with one.
        let page =
            "location = /page { default_type text/html; return 200 <title>interop</title>; }";
        let http = format!(
            "{}
             ssl_certificate %%CHAIN%%; ssl_certificate_key %%KEY%%;
             server {{ listen %%LISTEN_0%%; {page} location / {{ proxy_pass http://%%APP%%; }} }}
             server {{ listen %%LISTEN_1%% ssl; {page} location / {{ proxy_pass https://%%LISTEN_2%%; }} }}
             server {{ listen %%LISTEN_2%% ssl; location / {{ proxy_pass http://%%APP%%; }} }}",
            program::more_directives()
        );
        let instance = Instance::setup(EXE)
            .http(&http)
            .var("APP", format!("127.0.0.1:{}", server.port()))
            .var("CHAIN", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .start();
        Self { instance, pki }
    }

    /// The URLs of both routes, beginning with this scheme or with an s behind it.
    fn urls(&self, scheme: &str) -> [String; 2] {
        let [plain, tls] = [0, 1].map(|number| self.instance.listen(number));
        [format!("{scheme}://{plain}"), format!("{scheme}s://{tls}")]
    }
}

/// The servers that can be run here.
fn servers(client: &str) -> Vec<Script> {
    let node = program::node(&format!("{client} with node's ws"), "ws");
    let python = program::python(&format!("{client} with Python's websockets"), "websockets");
    let with = |command: Option<Command>, name| {
        let mut command = command?;
        command.arg(script(name));
        Some(Script::start(command))
    };
    [with(node, "server.cjs"), with(python, "server.py")].into_iter().flatten().collect()
}

/// Has the server said how each connection of a client ended, with these codes for the ping?
#[track_caller]
fn check_ends(server: &Script, after_ping: u16) {
    let mut ends: Vec<_> = (0..4)
        .map(|_| {
            let end: Value = serde_json::from_str(&server.next_line()).unwrap();
            let path = end["path"].as_str().unwrap().split('/').nth(1).unwrap().to_owned();
            (path, end["code"].clone(), end["reason"].clone())
        })
        .collect();
    // Connections that were cut off end in their own time.
    ends.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let expected = [
        ("abort", 1006, ""),
        ("close", 4002, "the server ✓"),
        ("echo", 3001, "the client ✓"),
        ("ping", after_ping, ""),
    ];
    let expected =
        expected.map(|(path, code, reason)| (path.to_owned(), json!(code), json!(reason)));
    assert_eq!(ends, expected);
}

#[test]
fn nodes_ws_tells_no_difference() {
    for server in servers("node's ws") {
        let gateway = Gateway::before(&server);
        for url in gateway.urls("ws") {
            let Some(mut node) = program::node("node's ws", "ws") else { return };
            program::run(node.arg(script("client.cjs")).arg(url));
            check_ends(&server, 1006);
        }
        assert!(gateway.instance.stop().success());
    }
}

#[test]
fn pythons_websockets_tells_no_difference() {
    for server in servers("Python's websockets") {
        let gateway = Gateway::before(&server);
        for url in gateway.urls("ws") {
            let Some(mut python) = program::python("Python's websockets", "websockets") else {
                return;
            };
            let python = python.arg(script("client.py")).arg(url).arg(gateway.pki.root_path());
            program::run(python);
            check_ends(&server, 1006);
        }
        assert!(gateway.instance.stop().success());
    }
}

#[test]
fn chromium_tells_no_difference() {
    const WHAT: &str = "WebSockets of a browser";
    let Some(chromium) = program::chromium(WHAT) else { return };
    for server in servers("Chromium") {
        let gateway = Gateway::before(&server);
        for url in gateway.urls("http") {
            let Some(mut python) = program::python(WHAT, "websockets") else { return };
            let profile = tempfile::tempdir().unwrap();
            let python = python.arg(script("chromium_client.py")).arg(chromium);
            program::run(
                python.arg(format!("{url}/page")).arg(profile.path()).env("HOME", profile.path()),
            );
            check_ends(&server, 1005);
        }
        assert!(gateway.instance.stop().success());
    }
}

#[test]
fn tokio_tungstenite_tells_no_difference() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for server in servers("tokio-tungstenite") {
        let gateway = Gateway::before(&server);
        for (number, url) in gateway.urls("ws").into_iter().enumerate() {
            let tls = (number == 1).then(|| gateway.pki.client_config());
            let dialogue = Tungstenite { url, tls }.converse();
            runtime.block_on(async { tokio::time::timeout(PATIENCE, dialogue).await }).unwrap();
            check_ends(&server, 1006);
        }
        assert!(gateway.instance.stop().success());
    }
}

/// A client with tokio-tungstenite, which knows no compression.
struct Tungstenite {
    url: String,
    tls: Option<Arc<ClientConfig>>,
}

/// A socket or TLS over one.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

type Socket = WebSocketStream<Box<dyn Stream>>;

impl Tungstenite {
    async fn open(&self, path: &str) -> Socket {
        let authority = self.url.split("//").nth(1).unwrap();
        let tcp = TcpStream::connect(authority).await.unwrap();
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap())
            }
        };
        let url = format!("{}{path}", self.url);
        tokio_tungstenite::client_async(url, stream).await.unwrap().0
    }

    async fn converse(self) {
        let mut echo = self.open("/echo").await;
        for size in [0, 1, 125, 126, 127, 65535, 65536, 1 << 20] {
            let bytes: Vec<u8> =
                (0..size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let messages = [Message::binary(bytes), Message::text("é".repeat(size as usize / 2))];
            for message in &messages {
                echo.send(message.clone()).await.unwrap();
            }
            for message in &messages {
                let got = next(&mut echo).await.unwrap().unwrap();
                assert!(got == *message, "{size} bytes differ");
            }
        }
        let parts = [
            ("in ", Data::Text, false),
            ("three ", Data::Continue, false),
            ("pieces", Data::Continue, true),
        ];
        for (part, opcode, fin) in parts {
            let frame = Frame::message(part, OpCode::Data(opcode), fin);
            echo.send(Message::Frame(frame)).await.unwrap();
        }
        assert_eq!(next(&mut echo).await.unwrap().unwrap(), Message::text("in three pieces"));
        echo.send(Message::Ping("anybody?".into())).await.unwrap();
        assert_eq!(next(&mut echo).await.unwrap().unwrap(), Message::Pong("anybody?".into()));
        let close = close_frame(3001, "the client ✓");
        echo.close(Some(close.clone())).await.unwrap();
        assert_eq!(next(&mut echo).await.unwrap().unwrap(), Message::Close(Some(close)));
        assert!(next(&mut echo).await.is_none());

        let mut pinged = self.open("/ping").await;
        pinged.send(Message::text("ping me")).await.unwrap();
        assert_eq!(
            next(&mut pinged).await.unwrap().unwrap(),
            Message::Ping("are you there?".into())
        );
        assert_eq!(next(&mut pinged).await.unwrap().unwrap(), Message::text("pong are you there?"));
        drop(pinged);

        let mut closed = self.open("/close/4002/the%20server%20%E2%9C%93").await;
        closed.send(Message::text("close me")).await.unwrap();
        let close = close_frame(4002, "the server ✓");
        assert_eq!(next(&mut closed).await.unwrap().unwrap(), Message::Close(Some(close)));
        assert!(next(&mut closed).await.is_none());

        let mut aborted = self.open("/abort").await;
        aborted.send(Message::text("cut me off")).await.unwrap();
        // What others call 1006.
        assert!(next(&mut aborted).await.unwrap().is_err());
    }
}

/// What comes next, but for pings of wssgate's own, which it shows.
async fn next(socket: &mut Socket) -> Option<tungstenite::Result<Message>> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Ping(payload))) if payload.len() == PING_LEN => {}
            other => return other,
        }
    }
}

fn close_frame(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) }
}

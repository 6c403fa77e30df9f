//! The demo's app server: plain HTTP and `ws://`, as an app behind a proxy would be.
//!
//! It answers with the page, opens WebSockets at `/ws` (the chat room) and `/echo` (each message comes
//! back), and pushes to everybody what is posted to `/push`. It knows nothing of TLS or of the hops
//! before it; that the page can reload them is the affair of `control`.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wssgate_http1::{BodyDecoder, Decoded, Framing, Limits, Method, RequestHead, RequestParser};
use wssgate_ws::{accept_key, handshake};

use super::control::{Control, Refusal};
use super::page;
use super::room::Room;
use super::socket;

/// How long a client may take for a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that may be posted.
const MAX_BODY: usize = 4096;

/// How often everybody is told that the server still has something to say.
const PUSH_EVERY: Duration = Duration::from_secs(15);

/// What the app server consists of.
pub(super) struct App {
    /// Those who have the page open.
    room: Room,
    control: Control,
    policy: String,
    /// How the program was called.
    program: String,
}

impl App {
    /// `control` is about the hops before it; `program` is how a person runs this program.
    pub(super) fn new(control: Control, program: String) -> Self {
        Self { room: Room::default(), control, policy: page::policy(), program }
    }
}

/// Serves until dropped. Must run inside a `LocalSet`.
pub(super) async fn serve(listener: TcpListener, app: App) {
    let app = Rc::new(app);
    tokio::task::spawn_local(push_regularly(Rc::clone(&app)));
    tokio::task::spawn_local(tell_generations(Rc::clone(&app)));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let app = Rc::clone(&app);
                // A connection that breaks is the client's affair.
                tokio::task::spawn_local(async move { drop(connection(stream, peer, app).await) });
            }
            // No descriptors left, most likely: others will close theirs.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn push_regularly(app: Rc<App>) {
    let mut count = 0_u64;
    loop {
        tokio::time::sleep(PUSH_EVERY).await;
        count += 1;
        app.room.tell(&json!({"type": "tick", "count": count}));
    }
}

/// Tells everybody of each reload, wherever it was asked for.
async fn tell_generations(app: Rc<App>) {
    let mut outcomes = app.control.listen();
    while outcomes.changed().await.is_ok() {
        let generation = outcomes.borrow_and_update().generation;
        app.room.tell(&json!({"type": "generation", "number": generation}));
    }
}

/// One connection: requests one after the other, or a WebSocket.
async fn connection(mut stream: TcpStream, peer: SocketAddr, app: Rc<App>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(4096);
    while let Some(head) = timeout(PATIENCE, request(&mut stream, &mut input)).await?? {
        let body = timeout(PATIENCE, body(&mut stream, &mut input, head.framing())).await??;
        let path = head.target().split(|byte| *byte == b'?').next().unwrap_or_default();
        if path == b"/ws" || path == b"/echo" {
            if let Some(stream) = switch(stream, &head).await? {
                let hello = (path == b"/ws").then(|| hello(&head, peer, &app));
                return socket::run(stream, input, hello, &app.room).await;
            }
            return Ok(());
        }
        let answer = match path.strip_prefix(b"/control/") {
            Some(name) => control(&head, name, &app.control).await,
            None => answer(&head, path, &body, &app),
        };
        stream.write_all(&answer).await?;
        if !head.keeps_alive() {
            break;
        }
    }
    stream.shutdown().await
}

async fn request(stream: &mut TcpStream, input: &mut BytesMut) -> io::Result<Option<RequestHead>> {
    let mut parser = RequestParser::new();
    let limits = Limits::default();
    loop {
        match parser.parse(input, &limits) {
            Ok(Some(head)) => return Ok(Some(head)),
            Ok(None) if stream.read_buf(input).await? == 0 => return Ok(None),
            Ok(None) => {}
            Err(error) => {
                stream.write_all(&text("400 Bad Request", "bad request\n")).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
            }
        }
    }
}

/// Reads a request body whole, up to [`MAX_BODY`].
async fn body(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    framing: Framing,
) -> io::Result<Vec<u8>> {
    let mut decoder = BodyDecoder::from(framing);
    let mut whole = Vec::new();
    loop {
        match decoder.decode(input) {
            Ok(Decoded::Data(data)) if whole.len() + data.len() <= MAX_BODY => {
                whole.extend_from_slice(&data);
            }
            Ok(Decoded::End { .. }) => return Ok(whole),
            Ok(Decoded::NeedMore) if stream.read_buf(input).await? > 0 => {}
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
            }
        }
    }
}

/// Does what `/control/NAME` stands for.
async fn control(head: &RequestHead, name: &[u8], control: &Control) -> Vec<u8> {
    let done = match control.check(head, name) {
        Ok(()) => control.reload().await,
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(outcome) => response("200 OK", "application/json", "", &outcome.to_string()),
        Err(refusal) => {
            let (status, why) = refusal.answer();
            let allow = if refusal == Refusal::Method { "Allow: POST\r\n" } else { "" };
            response(status, "text/plain", allow, why)
        }
    }
}

fn answer(head: &RequestHead, path: &[u8], body: &[u8], app: &App) -> Vec<u8> {
    match (head.method(), path) {
        (Method::Get | Method::Head, b"/") => {
            // Isolated from other origins, a page's clock is exact enough for round trips on one machine.
            let fields = format!(
                "Content-Security-Policy: {}\r\nCross-Origin-Opener-Policy: same-origin\r\n\
                 Cross-Origin-Embedder-Policy: require-corp\r\nReferrer-Policy: same-origin\r\n",
                app.policy,
            );
            response("200 OK", "text/html; charset=utf-8", &fields, page::PAGE)
        }
        (Method::Get, b"/request") => {
            response("200 OK", "application/json", "", &describe(head).to_string())
        }
        (Method::Post, b"/push") => {
            let said = String::from_utf8_lossy(body);
            app.room.tell(&json!({"type": "push", "to": "all", "text": said}));
            text("200 OK", &format!("pushed to {} WebSockets\n", app.room.count()))
        }
        _ => text("404 Not Found", "not found\n"),
    }
}

fn text(status: &str, body: &str) -> Vec<u8> {
    response(status, "text/plain", "", body)
}

/// `fields` are whole lines.
fn response(status: &str, content_type: &str, fields: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{fields}\r\n{body}",
        body.len(),
    )
    .into_bytes()
}

/// What the request looks like from here.
fn describe(head: &RequestHead) -> Value {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields: Vec<_> =
        head.fields().iter().map(|(name, value)| json!([lossy(name), lossy(value)])).collect();
    json!({"line": lossy(head.request_line()), "fields": fields})
}

/// What a page is told first.
fn hello(head: &RequestHead, peer: SocketAddr, app: &App) -> Value {
    json!({
        "type": "hello",
        "peer": peer.to_string(),
        "request": describe(head),
        "generation": app.control.listen().borrow().generation,
        "controls": app.control.granted(head.fields()),
        "process": std::process::id(),
        "program": app.program,
    })
}

/// Answers the opening handshake; gives the stream back if it was one.
async fn switch(mut stream: TcpStream, head: &RequestHead) -> io::Result<Option<TcpStream>> {
    let is_http11 = head.protocol() == b"HTTP/1.1";
    if let Err(error) =
        handshake::check_request(head.method_name(), is_http11, head.fields().iter())
    {
        let why = format!("this is a WebSocket endpoint: {error}\n");
        stream.write_all(&text("400 Bad Request", &why)).await?;
        return Ok(None);
    }
    let key = head.fields().first("Sec-WebSocket-Key").unwrap_or_default();
    let accept = accept_key(key);
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        String::from_utf8_lossy(&accept),
    );
    stream.write_all(switch.as_bytes()).await?;
    Ok(Some(stream))
}

//! The app server behind the proxies: it grants every WebSocket, answers every message, and knows when
//! handshakes came.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;
use wssgate_ws::Opcode;

use super::frames::{FRAMES, Frame, Incoming, LONG, answer, frame, number};
use crate::upgrade::{grant, listen};

/// Between two pieces of a long answer, as a network or a slow producer brings them.
const PAUSE: Duration = Duration::from_millis(50);

/// A server at work until this is dropped. It has a thread of its own: clients that are busy with
/// handshakes must not hide when they came here.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    arrivals: Receiver<Instant>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            listen((Ipv4Addr::LOCALHOST, 0).into())?
        };
        let address = listener.local_addr()?;
        let (arrived, arrivals) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = serve(listener, arrived) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, arrivals, stop: Some(stop), thread: Some(thread) })
    }

    /// When handshakes came that were granted since this was asked last, in order.
    pub(super) fn arrivals(&self) -> Vec<Instant> {
        self.arrivals.try_iter().collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, arrived: Sender<Instant>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let arrived = arrived.clone();
            spawn_local(async move { drop(converse(stream, &arrived).await) });
        }
    }
}

async fn converse(mut stream: TcpStream, arrived: &Sender<Instant>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    grant(&mut stream).await?;
    // Nobody listens any more when the run has ended.
    let _ = arrived.send(Instant::now());
    let mut incoming = Incoming::default();
    let mut buffer = vec![0; 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        incoming.push(&buffer[..count]);
        while let Some(frame) = incoming.next().map_err(io::Error::other)? {
            match frame {
                Frame::Message(message) => respond(&mut stream, &message).await?,
                Frame::Ping(payload) => send(&mut stream, Opcode::Pong, true, &payload).await?,
                Frame::Close(payload) => {
                    return send(&mut stream, Opcode::Close, true, &payload).await;
                }
                Frame::Fragment | Frame::Pong => {}
            }
        }
    }
}

async fn respond(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    let number = number(request).ok_or(io::ErrorKind::InvalidData)?;
    let answer = answer(number);
    if answer.len() < LONG {
        return send(stream, Opcode::Binary, true, &answer).await;
    }
    for (index, payload) in answer.chunks(LONG / FRAMES).enumerate() {
        let opcode = if index == 0 { Opcode::Binary } else { Opcode::Continuation };
        let wire = frame(opcode, index + 1 == FRAMES, None, payload);
        let (first, second) = wire.split_at(wire.len() / 2);
        stream.write_all(first).await?;
        sleep(PAUSE).await;
        stream.write_all(second).await?;
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn send(stream: &mut TcpStream, opcode: Opcode, fin: bool, payload: &[u8]) -> io::Result<()> {
    stream.write_all(&frame(opcode, fin, None, payload)).await
}

//! Whatever two peers send each other through the relay, however it is cut, sealed and held up: it arrives whole and in
//! order on the other side, and the relay has counted what a naive reading of the whole stream counts. A drain cuts it
//! short between two frames, and puts a Close nowhere else; only who does not go on is cut within one.
#![no_main]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use rustls::{Connection, ProtocolVersion};
use socket2::SockRef;
use wssgate_records::Role;
use wssgate_records::testing::{SUITES, Session, session};
use wssgate_relay::fuzz::Stepper;
use wssgate_relay::{
    EndCause, Handover, Leg, LegTls, Origin, Protocol, Settings, Side, Timers, Totals,
};
use wssgate_ws::{CloseCode, Counts, Extensions, conversation};

/// How long the last bytes may take before something counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of the relay's time a step takes.
const TICK: Duration = Duration::from_millis(2);
/// A record layer refuses more records without data than 32 in a row; tickets and answers count.
const MAX_UPDATES: u8 = 20;
/// What one input may send, so that it stays quick.
const MAX_SENT: usize = 1 << 20;

fuzz_target!(|input: ([u8; 5], Vec<(u8, u16)>)| {
    let ([client, upstream, protocol, ahead, limit], steps) = input;
    let (client, client_leg) = Peer::new(client, Side::Client);
    let (upstream, upstream_leg) = Peer::new(upstream, Side::Upstream);
    let extensions = match protocol % 4 {
        0 => None,
        1 => Some(Extensions::NONE),
        2 => Some(Extensions::DEFLATE),
        _ => Some(Extensions::UNKNOWN),
    };
    // Few records for each key, and small turns.
    let settings = Settings {
        turn_bytes: usize::from(limit) * 64 + 1,
        tls_record_limit: u64::from(limit % 16) + 2,
        io_uring: limit & 0x40 != 0,
    };
    let relay = Stepper::new(settings).expect("an epoll");
    // The relay makes the socket calls of several tunnels together.
    let neighbours = if ahead & 0x80 == 0 { 0 } else { 4 };
    let neighbours = (0..neighbours).map(|_| Neighbour::of(&relay)).collect();
    let mut dialogue = Dialogue { relay, client, upstream, neighbours };
    dialogue.relay.step(Duration::ZERO, TICK).expect("the relay takes them");

    let (before, after) = steps.split_at(steps.len().min(usize::from(ahead % 8)));
    before.iter().for_each(|step| dialogue.say(*step));
    dialogue.hand_over(client_leg, upstream_leg, extensions, usize::from(limit) * 16);
    for step in after {
        dialogue.say(*step);
    }
    if protocol >= 0xc0 {
        dialogue.drain(extensions, protocol & 0x20 != 0);
    } else {
        dialogue.end(extensions);
    }
});

struct Dialogue {
    relay: Stepper,
    client: Peer,
    upstream: Peer,
    neighbours: Vec<Neighbour>,
}

/// Another tunnel, which has something to carry in every step.
struct Neighbour {
    client: UnixStream,
    upstream: UnixStream,
    sent: u8,
}

/// The ticket of the tunnel that is looked at; neighbours have others.
const TICKET: u64 = 0;

impl Neighbour {
    fn of(relay: &Stepper) -> Self {
        let [(client, near_client), (upstream, near_upstream)] =
            [(); 2].map(|()| UnixStream::pair().expect("a socket pair"));
        relay.hand_over(Handover {
            ticket: TICKET + 1,
            origin: Origin::default(),
            client: Leg::plain(near_client, Vec::new()),
            upstream: Leg::plain(near_upstream, Vec::new()),
            protocol: Protocol::Other,
            timers: Timers::default(),
            buffer_size: 64,
            label: None,
        });
        upstream.set_nonblocking(true).expect("is a socket");
        Self { client, upstream, sent: 0 }
    }

    fn speak(&mut self) {
        self.sent = self.sent.wrapping_add(1);
        self.client.write_all(&[self.sent]).expect("the kernel has room for a byte");
    }

    fn hear(&mut self) {
        let mut heard = [0; 64];
        let read = self.upstream.read(&mut heard).expect("it was carried");
        assert_eq!(heard[read - 1], self.sent);
    }
}

impl Dialogue {
    fn peer(&mut self, side: Side) -> &mut Peer {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }

    /// One step of the relay, in which the neighbours have something to carry too.
    fn step(&mut self, wait: Duration) {
        self.neighbours.iter_mut().for_each(Neighbour::speak);
        self.relay.step(wait, TICK).expect("the relay goes on");
        self.neighbours.iter_mut().for_each(Neighbour::hear);
    }

    fn say(&mut self, (what, amount): (u8, u16)) {
        let side = if what % 2 == 0 { Side::Client } else { Side::Upstream };
        let peer = self.peer(side);
        let amount_usize = usize::from(amount);
        match what / 2 % 16 {
            0..=2 => peer.frame(side, amount),
            3 => peer.say(&noise(amount_usize % 64)),
            4 => peer.say(&noise(amount_usize)),
            // Any two bytes may begin a frame.
            5 => peer.say(&amount.to_be_bytes()),
            6..=8 => peer.write(amount_usize),
            9 => peer.read(amount_usize),
            10 => peer.update_keys(),
            11 if amount % 4 == 0 => peer.end(amount % 8 == 0),
            12 if amount % 4 == 0 => peer.garble(amount),
            _ => self.step(Duration::ZERO),
        }
    }

    /// What was said until now was read ahead: a part without TLS, a part with.
    fn hand_over(
        &mut self,
        client: Leg,
        upstream: Leg,
        extensions: Option<Extensions>,
        buffer_size: usize,
    ) {
        let client = self.client.read_ahead(client, buffer_size);
        let upstream = self.upstream.read_ahead(upstream, buffer_size);
        self.relay.hand_over(Handover {
            ticket: TICKET,
            origin: Origin::default(),
            client,
            upstream,
            protocol: match extensions {
                Some(extensions) => Protocol::WebSocket(conversation::Settings {
                    extensions,
                    ..conversation::Settings::default()
                }),
                None => Protocol::Other,
            },
            timers: Timers::default(),
            buffer_size,
            label: None,
        });
    }

    /// The relay ends it. What has arrived until then is what was said, and perhaps a Close; all frames are whole if
    /// both sides finish what they say.
    fn drain(mut self, extensions: Option<Extensions>, goes_on: bool) {
        self.relay.step(Duration::ZERO, TICK).expect("the relay goes on");
        self.relay.drain(TICKET);
        if goes_on {
            self.client.say(&[0x88, 0x80, 1, 2, 3, 4]);
            self.upstream.say(&[0x88, 0]);
        }
        let begin = Instant::now();
        let mut quiet = 0;
        while self.relay.ended().is_none() {
            assert!(begin.elapsed() < PATIENCE, "the tunnel does not end");
            quiet = if goes_on && self.go_on() { 0 } else { quiet + 1 };
            let (wait, passed) = match quiet {
                0 => (Duration::ZERO, Duration::ZERO),
                ..20 => (Duration::from_millis(1), TICK),
                _ => (Duration::ZERO, 50 * TICK),
            };
            self.relay.step(wait, passed).expect("the relay goes on");
        }
        self.hear_the_end(begin);
        let ways = [(&self.client, true), (&self.upstream, false)];
        if goes_on && let Some(extensions) = extensions {
            let clear = ways.iter().all(|(peer, masked)| {
                let read = naive(&peer.sent, *masked, extensions);
                peer.finished.is_none() && !peer.garbled && read.whole && read.broken == Some(false)
            });
            for (to, masked) in [(&self.client, false), (&self.upstream, true)] {
                let read = naive(&to.received, masked, extensions);
                assert!(!clear || read.whole && read.close.is_some(), "a frame was cut");
            }
        }
        for (from, to, masked) in
            [(&self.client, &self.upstream, true), (&self.upstream, &self.client, false)]
        {
            let whole = from.sent.starts_with(&to.received);
            assert!(whole || is_sent_away(&from.sent, &to.received, masked, extensions));
        }
    }

    /// Both sides write and read what they can; says whether anything moved.
    fn go_on(&mut self) -> bool {
        let mut moved = false;
        for peer in [&mut self.client, &mut self.upstream] {
            let before = (peer.pending.len(), peer.received.len());
            peer.write(usize::MAX);
            peer.read(usize::MAX);
            moved |= before != (peer.pending.len(), peer.received.len());
        }
        moved
    }

    /// The kernel may still have bytes for a TCP peer that was slow.
    fn hear_the_end(&mut self, begin: Instant) {
        for peer in [&mut self.client, &mut self.upstream] {
            while !peer.ended {
                assert!(begin.elapsed() < PATIENCE, "a side did not hear the end");
                peer.read(usize::MAX);
                std::thread::yield_now();
            }
        }
    }

    /// Both end, everything arrives, and the relay says so.
    fn end(mut self, extensions: Option<Extensions>) {
        self.client.end(true);
        self.upstream.end(true);
        let begin = Instant::now();
        let end = loop {
            let moved = self.go_on();
            if let Some(end) = self.relay.ended() {
                break end;
            }
            assert!(begin.elapsed() < PATIENCE, "the tunnel does not end");
            let wait = if moved { Duration::ZERO } else { Duration::from_millis(1) };
            self.step(wait);
        };
        self.hear_the_end(begin);
        let Self { client, upstream, .. } = &self;
        check_arrival(client, upstream);
        check_arrival(upstream, client);
        let ends_alone = |peer: &Peer| peer.garbled || peer.wants_nothing();
        if ends_alone(client) || ends_alone(upstream) {
            return;
        }
        assert!(matches!(end.cause, EndCause::Ended(_)), "{:?}", end.cause);
        check_totals(client, upstream, end.client, extensions, true);
        check_totals(upstream, client, end.upstream, extensions, false);
    }
}

/// One end of the tunnel.
struct Peer {
    socket: TcpStream,
    handed_over: bool,
    tls: Option<Connection>,
    /// All it said, in bytes of the tunnel.
    sent: Vec<u8>,
    /// What of that was sealed and not yet written.
    pending: Vec<u8>,
    /// All that arrived, likewise.
    received: Vec<u8>,
    /// How it ended its direction: in good order, or without close_notify.
    finished: Option<bool>,
    /// FIN was sent.
    shut: bool,
    /// The other direction is over.
    ended: bool,
    /// It sent records that are none.
    garbled: bool,
    updates: u8,
    in_message: bool,
}

impl Peer {
    /// A peer over a socket and a protection that `choice` says, and the relay's leg towards it.
    fn new(choice: u8, side: Side) -> (Self, Leg) {
        let (socket, near) = socket_pair(choice & 0xc0 == 0xc0, choice & 0xc0 == 0x80);
        let suite = SUITES[usize::from(choice % 64 / 2) % SUITES.len()];
        let ours = if side == Side::Client { Role::Server } else { Role::Client };
        let (protection, tls, pending) = match choice % 2 {
            0 => (LegTls::Plain, None, Vec::new()),
            _ => {
                let Session { keys, peer, tickets } = session(suite, ours);
                (LegTls::Keys(Box::new(keys)), Some(peer), tickets)
            }
        };
        let leg = Leg { tls: protection, ..Leg::plain(near, Vec::new()) };
        let peer = Self {
            socket,
            handed_over: false,
            tls,
            sent: Vec::new(),
            pending,
            received: Vec::new(),
            finished: None,
            shut: false,
            ended: false,
            garbled: false,
            updates: 0,
            in_message: false,
        };
        (peer, leg)
    }

    /// Moves up to `most` bytes of what was said into the leg that is handed over; only then may
    /// the rest follow.
    fn read_ahead(&mut self, mut leg: Leg, most: usize) -> Leg {
        self.handed_over = true;
        let read = self.pending.drain(..self.pending.len().min(most)).collect();
        match self.tls {
            Some(_) => leg.ciphertext = read,
            None => leg.plaintext = read,
        }
        leg
    }

    /// Says a frame that is in order where it stands.
    fn frame(&mut self, from: Side, amount: u16) {
        let control = amount & 7 == 7;
        let (opcode, fin, len) = match (control, amount >> 3 & 3) {
            (true, 0) => (8, true, usize::from(amount >> 5) % 120 & !1),
            (true, kind) => (8 + kind.min(2) as u8, true, usize::from(amount >> 5) % 126),
            (false, kind) => {
                let opcode = if self.in_message { 0 } else { 1 + u8::from(kind & 1 == 0) };
                (opcode, kind & 2 == 0, usize::from(amount >> 5) * 37)
            }
        };
        if !control {
            self.in_message = !fin;
        }
        let masked = from == Side::Client;
        let mut frame = vec![u8::from(fin) << 7 | opcode];
        let mask_bit = u8::from(masked) << 7;
        match len {
            ..126 => frame.push(mask_bit | len as u8),
            ..0x1_0000 => {
                frame.push(mask_bit | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask_bit | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend(amount.to_le_bytes().repeat(2));
        }
        frame.extend(noise(len));
        self.say(&frame);
    }

    fn say(&mut self, plain: &[u8]) {
        if self.finished.is_some() || self.garbled || self.sent.len() + plain.len() > MAX_SENT {
            return;
        }
        self.sent.extend_from_slice(plain);
        self.updates = if plain.is_empty() { self.updates } else { 0 };
        let Some(tls) = &mut self.tls else {
            self.pending.extend_from_slice(plain);
            return;
        };
        for part in plain.chunks(1 << 14) {
            tls.writer().write_all(part).expect("rustls takes a record");
            write_out(tls, &mut self.pending);
        }
    }

    fn update_keys(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        if self.finished.is_none() && !self.garbled && self.updates < MAX_UPDATES {
            self.updates += 1;
            // TLS 1.2 has none.
            let _ = tls.refresh_traffic_keys();
            write_out(tls, &mut self.pending);
        }
    }

    fn end(&mut self, orderly: bool) {
        if self.finished.is_some() {
            return;
        }
        self.finished = Some(orderly);
        if let (true, Some(tls)) = (orderly, &mut self.tls) {
            tls.send_close_notify();
            write_out(tls, &mut self.pending);
        }
    }

    /// close_notify of TLS 1.2 ends both directions: who has sent it gets nothing more (RFC 5246 §7.2.1).
    fn wants_nothing(&self) -> bool {
        let version = self.tls.as_ref().and_then(|tls| tls.protocol_version());
        self.finished == Some(true) && version == Some(ProtocolVersion::TLSv1_2)
    }

    fn garble(&mut self, amount: u16) {
        if self.tls.is_some() && self.finished.is_none() {
            self.garbled = true;
            self.pending.extend([20 + (amount >> 12) as u8 % 5, 3, 3, 0, (amount >> 4) as u8]);
            self.pending.extend(noise(usize::from(amount % 512)));
        }
    }

    /// Writes as much as the kernel takes, up to `most`.
    fn write(&mut self, most: usize) {
        if !self.handed_over {
            return;
        }
        while !self.pending.is_empty() {
            let len = self.pending.len().min(most);
            match self.socket.write(&self.pending[..len]) {
                Ok(0) => break,
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The relay has given up, which the end will show.
                Err(_) => self.pending.clear(),
            }
            if most != usize::MAX {
                break;
            }
        }
        if self.pending.is_empty() && self.finished.is_some() && !self.shut {
            self.shut = true;
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Reads what is there, up to `most`.
    fn read(&mut self, most: usize) {
        let mut buffer = [0; 16 << 10];
        while !self.ended {
            let len = buffer.len().min(most);
            if len == 0 {
                return;
            }
            match self.socket.read(&mut buffer[..len]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.receive(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
            if most != usize::MAX {
                return;
            }
        }
    }

    fn receive(&mut self, mut wire: &[u8]) {
        let Some(tls) = &mut self.tls else {
            self.received.extend_from_slice(wire);
            return;
        };
        while !wire.is_empty() {
            // It takes nothing more behind close_notify or an error.
            if !matches!(tls.read_tls(&mut wire), Ok(1..)) {
                return;
            }
            match tls.process_new_packets() {
                Ok(state) => {
                    let start = self.received.len();
                    self.received.resize(start + state.plaintext_bytes_to_read(), 0);
                    tls.reader().read_exact(&mut self.received[start..]).expect("it is there");
                }
                Err(error) => {
                    let told = matches!(error, rustls::Error::AlertReceived(_));
                    assert!(self.garbled && told, "rustls objects: {error}");
                    return;
                }
            }
        }
    }
}

fn write_out(tls: &mut Connection, wire: &mut Vec<u8>) {
    while tls.wants_write() {
        tls.write_tls(wire).expect("memory takes it");
    }
}

/// The peer's socket and the relay's; small buffers make the relay keep bytes. (With TCP they would make the kernel
/// wait, too.)
fn socket_pair(tcp: bool, small: bool) -> (TcpStream, OwnedFd) {
    let (far, near): (OwnedFd, OwnedFd) = if tcp {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
        far.set_nodelay(true).expect("is TCP");
        (far.into(), listener.accept().expect("connected").0.into())
    } else {
        let (far, near) = UnixStream::pair().expect("a socket pair");
        (far.into(), near.into())
    };
    if small {
        for socket in [&far, &near] {
            let socket = SockRef::from(socket);
            socket.set_send_buffer_size(4096).expect("is a socket");
            socket.set_recv_buffer_size(4096).expect("is a socket");
        }
    }
    // A stream socket is a stream socket; this type sends without SIGPIPE.
    let far = TcpStream::from(far);
    far.set_nonblocking(true).expect("is a socket");
    (far, near)
}

/// Bytes without a short period, so that loss and reordering show.
fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ i >> 5 ^ i >> 11) as u8).collect()
}

fn check_arrival(from: &Peer, to: &Peer) {
    if to.wants_nothing() {
        assert!(from.sent.starts_with(&to.received));
        return;
    }
    let whole = !from.garbled && !to.garbled;
    if whole || (!to.garbled && to.sent.is_empty()) {
        assert!(to.received == from.sent, "{} of {}", to.received.len(), from.sent.len());
    } else {
        assert!(from.sent.starts_with(&to.received));
    }
}

fn check_totals(
    peer: &Peer,
    other: &Peer,
    totals: Totals,
    extensions: Option<Extensions>,
    masked: bool,
) {
    assert_eq!(totals.received, peer.sent.len() as u64);
    assert_eq!(totals.sent, other.sent.len() as u64);
    assert_eq!(totals.truncated, peer.tls.is_some() && peer.finished == Some(false));
    let Some(extensions) = extensions else {
        assert_eq!((totals.frames, totals.close), (None, None));
        return;
    };
    let read = naive(&peer.sent, masked, extensions);
    // What is said of payloads, the tracker's own target compares.
    let counts = totals.frames.map(|counts| Counts {
        texts: 0,
        payload: 0,
        text_payload: 0,
        largest: 0,
        ..counts
    });
    assert_eq!((counts, totals.close), (Some(read.counts), read.close));
    if let Some(broken) = read.broken {
        assert_eq!(totals.broken.is_some(), broken);
    }
}

/// Whether what arrived is the front of what was said up to the end of a frame, and then (the front of) a Close that says
/// 1001.
fn is_sent_away(
    sent: &[u8],
    received: &[u8],
    masked: bool,
    extensions: Option<Extensions>,
) -> bool {
    let Some(extensions) = extensions else { return false };
    (1..=8.min(received.len())).any(|len| {
        let (before, close) = received.split_at(received.len() - len);
        let read = naive(before, masked, extensions);
        let between = read.whole && read.close.is_none() && read.broken == Some(false);
        sent.starts_with(before) && between && begins_going_away(close, masked)
    })
}

fn begins_going_away(close: &[u8], masked: bool) -> bool {
    match (masked, close) {
        (false, close) => [0x88, 2, 3, 0xe9].starts_with(close),
        (true, [0x88, 0x82, a, b, _, _, high, low]) => (a ^ high, b ^ low) == (3, 0xe9),
        (true, close) => {
            close.len() < 8 && (close[0], close.get(1).unwrap_or(&0x82)) == (0x88, &0x82)
        }
    }
}

/// What a stream holds.
struct Naive {
    counts: Counts,
    close: Option<CloseCode>,
    /// `None` when the stream ends in a header, which may be wrong already or not.
    broken: Option<bool>,
    /// It ends behind a frame.
    whole: bool,
}

/// Reads frames as RFC 6455 §5.2 draws them, with everything at hand.
fn naive(stream: &[u8], masked: bool, extensions: Extensions) -> Naive {
    let counts = Counts { bytes: stream.len() as u64, ..Counts::default() };
    let mut read = Naive { counts, close: None, broken: Some(false), whole: false };
    let (mut rest, mut in_message) = (stream, false);
    while !rest.is_empty() {
        let Some((&[first, second], after)) = rest.split_first_chunk() else {
            read.broken = None;
            return read;
        };
        let (fin, opcode, short) = (first & 0x80 != 0, first & 0xf, second & 0x7f);
        let long = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_len = if second & 0x80 != 0 { 4 } else { 0 };
        let Some((header, after)) = after.split_at_checked(long + mask_len) else {
            read.broken = None;
            return read;
        };
        let (len, mask) = header.split_at(long);
        let len = match long {
            0 => u64::from(short),
            _ => len.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        let minimal = match long {
            0 => true,
            2 => len >= 126,
            _ => (0x1_0000..1 << 63).contains(&len),
        };
        let data = opcode < 3;
        let begins = opcode == 1 || opcode == 2;
        let rsv = match (extensions, begins) {
            (Extensions::NONE, _) | (Extensions::DEFLATE, false) => 0,
            (Extensions::DEFLATE, true) => 0x40,
            _ => 0x70,
        };
        let right = (data || (8..=10).contains(&opcode))
            && first & 0x70 & !rsv == 0
            && (data || (fin && len <= 125))
            && (opcode != 8 || len != 1)
            && (!data || begins != in_message)
            && (second & 0x80 != 0) == masked
            && minimal;
        if !right {
            read.broken = Some(true);
            return read;
        }
        if data {
            in_message = !fin;
        }
        if opcode == 8 && read.close.is_none() {
            let unmasked = |at: usize| Some(after.get(at)? ^ mask.get(at).copied().unwrap_or(0));
            read.close = match len {
                0 => Some(CloseCode::NO_STATUS),
                _ => unmasked(0)
                    .zip(unmasked(1))
                    .map(|(high, low)| CloseCode(u16::from_be_bytes([high, low]))),
            };
        }
        if len > after.len() as u64 {
            return read;
        }
        rest = &after[len as usize..];
        read.counts.frames += 1;
        match opcode {
            9 => read.counts.pings += 1,
            10 => read.counts.pongs += 1,
            8 => {}
            _ => read.counts.messages += u64::from(fin),
        }
    }
    read.whole = true;
    read
}

//! Plain HTTP requests at a fixed rate, each with one of many keys: the load for `limit_req`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The location that both proxies have for it.
pub(crate) const PATH: &str = "/limited";

/// The location of metrics.
pub(crate) const METRICS: &str = "/metrics";

/// Connections over which requests go in turn.
const CONNECTIONS: usize = 20;

/// How long a proxy may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clients that keep their connections.
#[derive(Debug)]
pub(crate) struct Requests {
    connections: Vec<TcpStream>,
    /// How many keys there are.
    keys: u32,
    /// The state of a xorshift generator: every proxy is asked for the same keys.
    random: u32,
    /// The length of an answer; all are alike.
    answer_len: usize,
}

impl Requests {
    /// Connects and has every key known to the proxy.
    pub(crate) fn open(addresses: &[SocketAddr], keys: u32) -> io::Result<Self> {
        let connect = |address: &SocketAddr| {
            let connection = TcpStream::connect(address)?;
            connection.set_nodelay(true)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            Ok(connection)
        };
        let connections = addresses.iter().cycle().take(CONNECTIONS).map(connect);
        let connections = connections.collect::<io::Result<Vec<_>>>()?;
        let mut requests = Self { connections, keys, random: 0x9e37_79b9, answer_len: 0 };
        requests.answer_len = requests.measure_answer()?;
        let all: Vec<u32> = (0..keys).collect();
        for some in all.chunks(16 * CONNECTIONS) {
            requests.ask(some)?;
        }
        Ok(requests)
    }

    /// Asks for random keys, this many a second, and returns how many were asked for.
    pub(crate) fn run(&mut self, per_second: u32, time: Duration) -> io::Result<u64> {
        let round = Duration::from_secs(1) * CONNECTIONS as u32 / per_second;
        let (begin, mut due, mut count) = (Instant::now(), Duration::ZERO, 0);
        while due < time {
            // As with messages, the load does not sleep: what is late is not to be its own wake-up.
            while begin.elapsed() < due {
                std::hint::spin_loop();
            }
            let keys: Vec<u32> = (0..CONNECTIONS).map(|_| self.next_key()).collect();
            self.ask(&keys)?;
            count += keys.len() as u64;
            due += round;
        }
        Ok(count)
    }

    /// One request for each key over the connections in turn, then all answers.
    fn ask(&mut self, keys: &[u32]) -> io::Result<()> {
        let mut batches = vec![(Vec::new(), 0); self.connections.len()];
        for (index, key) in keys.iter().enumerate() {
            let (text, count) = &mut batches[index % CONNECTIONS];
            text.extend_from_slice(request(*key).as_bytes());
            *count += 1;
        }
        for (connection, (text, _)) in self.connections.iter_mut().zip(&batches) {
            connection.write_all(text)?;
        }
        let mut answer = vec![0; self.answer_len];
        for (connection, (_, count)) in self.connections.iter_mut().zip(&batches) {
            for _ in 0..*count {
                connection.read_exact(&mut answer)?;
                check(&answer)?;
            }
        }
        Ok(())
    }

    fn next_key(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % self.keys
    }

    fn measure_answer(&mut self) -> io::Result<usize> {
        let connection = &mut self.connections[0];
        connection.write_all(request(0).as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        check(&head)?;
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|length| length.trim().parse::<usize>().ok());
        let length = length.ok_or_else(|| io::Error::other(format!("no length: {text}")))?;
        connection.read_exact(&mut vec![0; length])?;
        Ok(head.len() + length)
    }
}

/// Reads the metrics once, as Prometheus does.
pub(crate) fn metrics(address: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let request = format!(
        "GET {METRICS} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    check(&answer)?;
    match answer.ends_with(b"# EOF\n") {
        true => Ok(()),
        false => Err(io::Error::other("the metrics have no end")),
    }
}

fn request(key: u32) -> String {
    format!("GET {PATH}?key={key:08x} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Nobody is to be refused: an error is answered for another price.
fn check(answer: &[u8]) -> io::Result<()> {
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("unexpected answer: {}", line.escape_ascii())))
}

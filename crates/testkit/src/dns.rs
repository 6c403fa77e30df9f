//! A DNS server that says what the test wants, on UDP and TCP.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::{GUARD, free_addr};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// What is said of one name.
#[derive(Clone, Debug, Default)]
pub struct Says {
    code: u8,
    ttl: u32,
    records: Vec<(u16, Vec<u8>)>,
    truncated: bool,
    after_another: bool,
    silent: bool,
}

impl Says {
    /// These addresses, for an hour.
    pub fn addresses(addresses: &[&str]) -> Self {
        let record = |text: &&str| match text.parse::<IpAddr>().expect("an address") {
            IpAddr::V4(address) => (A, address.octets().to_vec()),
            IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
        };
        let records = addresses.iter().map(record).collect();
        Self { ttl: 3600, records, ..Self::default() }
    }

    /// It is another name of this one.
    pub fn alias(name: &str) -> Self {
        Self { ttl: 3600, records: vec![(CNAME, encode(name))], ..Self::default() }
    }

    /// The hosts of a service: priority, weight, port and name of each.
    pub fn service(hosts: &[(u16, u16, u16, &str)]) -> Self {
        let record = |(priority, weight, port, name): &(u16, u16, u16, &str)| {
            let numbers = [priority, weight, port].map(|number| number.to_be_bytes()).concat();
            (SRV, [numbers, encode(name)].concat())
        };
        Self { ttl: 3600, records: hosts.iter().map(record).collect(), ..Self::default() }
    }

    /// An error, by its number: 2 is a server that cannot find out, 3 a name that does not exist.
    pub fn code(code: u8) -> Self {
        Self { code, ..Self::default() }
    }

    /// Nothing at all.
    pub fn nothing() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// For so many seconds.
    #[must_use]
    pub fn ttl(self, ttl: u32) -> Self {
        Self { ttl, ..self }
    }

    /// On UDP it does not fit.
    #[must_use]
    pub fn truncated(self) -> Self {
        Self { truncated: true, ..self }
    }

    /// After the answer to a question with another number, which says something else.
    #[must_use]
    pub fn after_another(self) -> Self {
        Self { after_another: true, ..self }
    }

    /// The answer to `query`, which asks for records of this number.
    fn answer(&self, query: &[u8], kind: u16, truncated: bool) -> Vec<u8> {
        let records: Vec<_> = self
            .records
            .iter()
            .filter(|(record, _)| !truncated && [kind, CNAME].contains(record))
            .collect();
        let mut bytes = query.to_vec();
        bytes[2] |= 0x80 | if truncated { 2 } else { 0 };
        bytes[3] = 0x80 | self.code;
        bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (record, data) in records {
            bytes.extend([0xc0, 12]);
            bytes.extend(record.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(self.ttl.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }
}

fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// One question that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name, as it was written.
    pub name: String,
    /// The number of the kind of record: 1 is A, 28 AAAA, 33 SRV.
    pub kind: u16,
    /// Whether it came on TCP.
    pub tcp: bool,
}

/// A DNS server. Names of which it was told nothing do not exist. Dropping it ends it.
pub struct Dns {
    addr: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    names: Mutex<HashMap<String, Says>>,
    asked: Mutex<Vec<Asked>>,
    over: AtomicBool,
}

impl Dns {
    /// Starts it on a free address.
    #[track_caller]
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let addr = free_addr();
        let listen = || Ok((UdpSocket::bind(addr)?, TcpListener::bind(addr)?));
        let (udp, tcp): (UdpSocket, TcpListener) =
            listen().unwrap_or_else(|error: io::Error| panic!("DNS on {addr}: {error}"));
        let (by_udp, by_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || by_udp.serve_udp(&udp)),
            thread::spawn(move || by_tcp.serve_tcp(&tcp)),
        ];
        Self { addr, shared, threads }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What is said of a name from now on.
    pub fn set(&self, name: &str, says: Says) {
        lock(&self.shared.names).insert(name.into(), says);
    }

    /// The questions about a name that came until now.
    pub fn asked(&self, name: &str) -> Vec<Asked> {
        lock(&self.shared.asked).iter().filter(|asked| asked.name == name).cloned().collect()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Both threads wait for something to come.
        let poke = || -> io::Result<()> {
            UdpSocket::bind((self.addr.ip(), 0))?.send_to(b"", self.addr)?;
            TcpStream::connect(self.addr).map(drop)
        };
        if poke().is_ok() {
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn serve_udp(&self, socket: &UdpSocket) {
        let mut buffer = [0; 1024];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            for answer in self.answers(&buffer[..len], false) {
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        while let Ok((mut stream, _)) = listener.accept() {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            // Who breaks off has broken off.
            let _ = self.serve_stream(&mut stream);
        }
    }

    fn serve_stream(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(GUARD))?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut query = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut query)?;
        for answer in self.answers(&query, true) {
            stream.write_all(&(answer.len() as u16).to_be_bytes())?;
            stream.write_all(&answer)?;
        }
        Ok(())
    }

    fn answers(&self, query: &[u8], tcp: bool) -> Vec<Vec<u8>> {
        let Some((name, kind)) = question(query) else { return Vec::new() };
        lock(&self.asked).push(Asked { name: name.clone(), kind, tcp });
        let says = lock(&self.names).get(&name).cloned().unwrap_or_else(|| Says::code(3));
        if says.silent {
            return Vec::new();
        }
        let mut answers = Vec::new();
        if says.after_another {
            let mut other = Says::code(3).answer(query, kind, false);
            other[0] ^= 0xff;
            answers.push(other);
        }
        answers.push(says.answer(query, kind, says.truncated && !tcp));
        answers
    }
}

/// The name and kind that a query asks for.
fn question(query: &[u8]) -> Option<(String, u16)> {
    let mut rest = query.get(12..)?;
    let mut labels = Vec::new();
    loop {
        let (len, after) = rest.split_first()?;
        if *len == 0 {
            let kind = u16::from_be_bytes(after.get(..2)?.try_into().ok()?);
            return Some((labels.join("."), kind));
        }
        let (label, after) = after.split_at_checked((*len).into())?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = after;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! HTTP/1.1 as tests see it: heads with the order and case of their fields, and bodies.
//!
//! This is no careful parser, it believes what the program under test sends; what it cannot read
//! fails the test.

use std::io::{self, ErrorKind};

use crate::{Addr, Conn};

/// The longest head or line that a test may receive.
const MAX_HEAD_LEN: usize = 1 << 20;

/// The head of a message as it was received.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    /// The request or status line.
    pub start: String,
    /// Names and values of the fields, in their order and case.
    pub fields: Vec<(String, String)>,
    /// The bytes, up to and including the empty line.
    pub raw: Vec<u8>,
}

impl Head {
    /// The value of the first field called `name`, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all fields called `name`, in any case.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v)
    }

    /// The fields as lines, `Name: value`, in their order and case.
    pub fn lines(&self) -> Vec<String> {
        self.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    /// Reads the head at the front of a request of ours.
    pub(crate) fn parse_request(bytes: &[u8]) -> Self {
        Self::parse(bytes.to_vec()).expect("requests of ours are well-formed")
    }

    fn parse(raw: Vec<u8>) -> io::Result<Self> {
        let text = String::from_utf8_lossy(&raw);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(|| bad("field", line))?;
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Self { start, fields, raw })
    }

    /// The status of an answer.
    fn status(&self) -> io::Result<u16> {
        let status = self.start.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        status.and_then(|s| s.parse().ok()).ok_or_else(|| bad("status line", &self.start))
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head(\"{}\")", self.raw.escape_ascii())
    }
}

/// A request that an upstream received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its head.
    pub head: Head,
    /// Its body, without the framing.
    pub body: Vec<u8>,
    /// Which connection of the upstream it came on, counted from 0.
    pub connection: usize,
}

impl Request {
    /// The method.
    pub fn method(&self) -> &str {
        self.head.start.split(' ').next().unwrap_or_default()
    }

    /// The target as it was written.
    pub fn target(&self) -> &str {
        self.head.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of the first field called `name`, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }
}

/// An answer that a client received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Its head.
    pub head: Head,
    /// Its body, without the framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first field called `name`, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends `GET path` on a connection of its own and returns the answer.
#[track_caller]
pub fn get(addr: impl Into<Addr>, host: &str, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    exchange(addr, request)
}

/// Sends raw bytes on a connection of its own and returns the first answer.
#[track_caller]
pub fn exchange(addr: impl Into<Addr>, request: impl AsRef<[u8]>) -> Response {
    let mut conn = Conn::connect(addr);
    conn.send_raw(request);
    conn.recv_response()
}

impl Conn {
    /// Receives a head, of a request or of an answer.
    pub fn try_recv_head(&mut self) -> io::Result<Head> {
        let raw = self.read_while(|unread| {
            let end = unread.windows(4).position(|four| four == b"\r\n\r\n");
            assert!(unread.len() < MAX_HEAD_LEN, "head is too long");
            end.map(|end| end + 4)
        })?;
        Head::parse(raw)
    }

    /// Receives an answer to anything but HEAD, with its body if its status has one. 101 and other
    /// 1xx answers count as answers.
    #[track_caller]
    pub fn recv_response(&mut self) -> Response {
        self.try_recv_response("GET")
            .unwrap_or_else(|error| panic!("waited for an answer: {error}; got {self:?}"))
    }

    /// Receives the answer to a request with this method, or says what is wrong.
    pub fn try_recv_response(&mut self, method: &str) -> io::Result<Response> {
        let head = self.try_recv_head()?;
        let status = head.status()?;
        let bodiless = method == "HEAD" || matches!(status, 100..200 | 204 | 304);
        let body = match framing(&head)? {
            _ if bodiless => Vec::new(),
            Framing::None => self.recv_to_close()?,
            framing => self.try_recv_body(framing)?,
        };
        Ok(Response { status, head, body })
    }

    /// Receives a request with its body; `None` if the client has closed instead.
    pub fn try_recv_request(&mut self) -> io::Result<Option<Request>> {
        if self.unread().is_empty() {
            match self.read_more() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let head = self.try_recv_head()?;
        let body = self.try_recv_body(framing(&head)?)?;
        let request = Request { head, body, connection: self.number };
        if let Some(recorder) = &self.recorder {
            // Nobody may be left who wants to know.
            let _ = recorder.send(request.clone());
        }
        Ok(Some(request))
    }

    /// Receives a request that must come.
    #[track_caller]
    pub fn recv_request(&mut self) -> Request {
        match self.try_recv_request() {
            Ok(Some(request)) => request,
            Ok(None) => panic!("waited for a request: connection was closed"),
            Err(error) => panic!("waited for a request: {error}; got {self:?}"),
        }
    }

    fn recv_to_close(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.read_more() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        self.try_recv_raw(self.unread().len())
    }

    fn try_recv_body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        match framing {
            Framing::None => Ok(Vec::new()),
            Framing::Length(len) => self.try_recv_raw(len),
            Framing::Chunked => self.try_recv_chunks(),
        }
    }

    fn try_recv_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.try_recv_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| bad("chunk size", &line))?;
            if size == 0 {
                while !self.try_recv_line()?.is_empty() {}
                return Ok(body);
            }
            body.append(&mut self.try_recv_raw(size)?);
            let end = self.try_recv_line()?;
            if !end.is_empty() {
                return Err(bad("end of a chunk", &end));
            }
        }
    }

    /// Receives a line without its CRLF.
    pub fn try_recv_line(&mut self) -> io::Result<String> {
        let mut line = self.read_while(|unread| {
            assert!(unread.len() < MAX_HEAD_LEN, "line is too long");
            unread.windows(2).position(|two| two == b"\r\n").map(|end| end + 2)
        })?;
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn framing(head: &Head) -> io::Result<Framing> {
    if let Some(coding) = head.field("Transfer-Encoding") {
        return match coding.eq_ignore_ascii_case("chunked") {
            true => Ok(Framing::Chunked),
            false => Err(bad("Transfer-Encoding", coding)),
        };
    }
    head.field("Content-Length").map_or(Ok(Framing::None), |len| {
        len.parse().map(Framing::Length).map_err(|_| bad("Content-Length", len))
    })
}

fn bad(what: &str, text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("bad {what}: {text:?}"))
}

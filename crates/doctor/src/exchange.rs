//! One request on a new connection, and its answer.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use wssgate_http1::{BodyDecoder, Decoded, Method, ResponseHead, ResponseParser};
use wssgate_ws::handshake::{Field, Offer, encode_key};

use crate::settings::Settings;
use crate::shake::{self, Unshaken};
use crate::target::Target;
use crate::wire::{Timed, Wire, ended_by, tls_error};

/// The longest head of a response, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// So much of a body is looked at, in bytes.
const MAX_BODY: usize = 4 << 10;

/// How long a body is waited for once its head is there.
const BODY_PATIENCE: Duration = Duration::from_secs(2);

/// The extension that browsers offer (RFC 7692).
const DEFLATE: &str = "permessage-deflate; client_max_window_bits";

/// What a request says.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) path: String,
    pub(crate) origin: Option<String>,
    /// Whether `Upgrade` is there.
    pub(crate) upgrade: bool,
    /// Whether `Connection: Upgrade` is there.
    pub(crate) connection: bool,
    /// Whether compression is offered, as browsers do.
    pub(crate) deflate: bool,
}

impl Ask {
    /// The handshake of a browser.
    pub(crate) fn usual(target: &Target, settings: &Settings) -> Self {
        Self {
            path: target.path.clone(),
            origin: Some(settings.origin.clone().unwrap_or_else(|| target.origin())),
            upgrade: true,
            connection: true,
            deflate: true,
        }
    }
}

/// Whom requests are sent to.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) target: &'a Target,
    pub(crate) settings: &'a Settings,
}

/// A response.
pub(crate) struct Answered {
    pub(crate) head: ResponseHead,
    /// The beginning of the body; nothing of a 101.
    pub(crate) body: Vec<u8>,
    /// Until the head was there, without TCP and TLS.
    pub(crate) took: Duration,
    /// What the request offered to switch to.
    pub(crate) offer: Option<Offer>,
    pub(crate) wire: Wire,
    /// What came behind the head of a 101.
    pub(crate) rest: BytesMut,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// There is no connection.
    Unconnected(String),
    /// It was closed before the head of a response had ended; in which way.
    Closed(String),
    /// Nothing came in time.
    Late,
    /// What came is no HTTP.
    NotHttp(Vec<u8>),
    /// The server wants a certificate of the client.
    NoClientCertificate,
}

impl Unanswered {
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Unconnected(why) => why.clone(),
            Self::Closed(how) => format!("the connection was ended by {how}"),
            Self::Late => "no response in time".into(),
            Self::NotHttp(_) => "no HTTP".into(),
            Self::NoClientCertificate => "a client certificate is required".into(),
        }
    }
}

impl Route<'_> {
    /// A new connection, its TLS handshake done.
    fn connect(&self) -> Result<Wire, Unanswered> {
        let timeout = self.settings.timeout;
        if self.target.tls {
            let host = &self.target.host;
            let shaken = shake::shake(self.address, host, shake::Offer::USUAL, timeout);
            return shaken.map(|shaken| shaken.wire).map_err(|unshaken| match unshaken {
                Unshaken::Late => Unanswered::Late,
                other => Unanswered::Unconnected(other.words()),
            });
        }
        let timed = Timed::connect(self.address, timeout);
        timed.map(Wire::Plain).map_err(|error| Unanswered::Unconnected(error.to_string()))
    }

    /// Sends a request and reads the response.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn exchange(&self, ask: &Ask) -> Result<Answered, Unanswered> {
        let mut wire = self.connect()?;
        let begun = Instant::now();
        wire.set_deadline(begun + self.settings.timeout);
        let (request, offer) = self.request(ask);
        let is_tls = self.target.tls;
        // Who refuses early may have answered before all of it was taken.
        let sent = wire.write_all(&request).and_then(|()| wire.flush());
        let mut input = BytesMut::new();
        let head = match read_head(&mut wire, &mut input) {
            Ok(head) => head,
            Err(NoHead::NotHttp) => return Err(Unanswered::NotHttp(input.to_vec())),
            Err(NoHead::Read(read)) => {
                let failed = sent.map(|()| 0);
                return Err(unread(if failed.is_err() { failed } else { read }, is_tls));
            }
        };
        let took = begun.elapsed();
        let body = match head.status() {
            101 => Vec::new(),
            _ => {
                wire.set_deadline(Instant::now() + BODY_PATIENCE.min(self.settings.timeout));
                read_body(&mut wire, &head, &mut input)
            }
        };
        Ok(Answered { head, body, took, offer, wire, rest: input })
    }

    /// The head of a request, and what it offers.
    fn request(&self, ask: &Ask) -> (Vec<u8>, Option<Offer>) {
        let key = encode_key(random());
        let key = String::from_utf8_lossy(&key).into_owned();
        let mut fields = vec![("Host", self.target.authority())];
        if ask.upgrade {
            fields.push(("Upgrade", "websocket".into()));
        }
        if ask.connection {
            fields.push(("Connection", "Upgrade".into()));
        }
        fields.push(("Sec-WebSocket-Version", "13".into()));
        fields.push(("Sec-WebSocket-Key", key));
        if ask.deflate {
            fields.push(("Sec-WebSocket-Extensions", DEFLATE.into()));
        }
        if !self.settings.protocols.is_empty() {
            fields.push(("Sec-WebSocket-Protocol", self.settings.protocols.join(", ")));
        }
        if let Some(origin) = &ask.origin {
            fields.push(("Origin", origin.clone()));
        }
        fields.push(("User-Agent", concat!("wssgate-doctor/", env!("CARGO_PKG_VERSION")).into()));
        for (name, value) in &self.settings.headers {
            fields.push((name, value.clone()));
        }
        let mut head = format!("GET {} HTTP/1.1\r\n", ask.path);
        for (name, value) in &fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let bytes =
            fields.iter().map(|(name, value)| -> Field<'_> { (name.as_bytes(), value.as_bytes()) });
        let offer = Offer::from_request(bytes);
        (head.into_bytes(), offer)
    }
}

/// Why there is no head.
enum NoHead {
    NotHttp,
    Read(io::Result<usize>),
}

fn read_head(wire: &mut Wire, input: &mut BytesMut) -> Result<ResponseHead, NoHead> {
    let mut parser = ResponseParser::new();
    loop {
        match parser.parse(input, MAX_HEAD) {
            Ok(Some(head)) if head.is_interim() => parser = ResponseParser::new(),
            Ok(Some(head)) => return Ok(head),
            Ok(None) => match read_more(wire, input) {
                Ok(len) if len > 0 => {}
                ended => return Err(NoHead::Read(ended)),
            },
            Err(_) => return Err(NoHead::NotHttp),
        }
    }
}

/// The beginning of a body, as far as it comes in time.
fn read_body(wire: &mut Wire, head: &ResponseHead, input: &mut BytesMut) -> Vec<u8> {
    let mut body = Vec::new();
    let Ok(framing) = head.framing(Method::Get) else { return body };
    let mut decoder = BodyDecoder::from(framing);
    while body.len() < MAX_BODY {
        match decoder.decode(input) {
            Ok(Decoded::Data(data)) => body.extend_from_slice(&data),
            Ok(Decoded::NeedMore) if matches!(read_more(wire, input), Ok(len) if len > 0) => {}
            _ => break,
        }
    }
    body.truncate(MAX_BODY);
    body
}

fn unread(read: io::Result<usize>, is_tls: bool) -> Unanswered {
    use rustls::AlertDescription as Alert;
    match &read {
        Err(error) if error.kind() == ErrorKind::TimedOut => Unanswered::Late,
        Err(error) => match tls_error(error) {
            Some(rustls::Error::AlertReceived(
                Alert::CertificateRequired | Alert::BadCertificate | Alert::NoCertificate,
            )) => Unanswered::NoClientCertificate,
            _ => Unanswered::Closed(ended_by(&read, is_tls)),
        },
        Ok(_) => Unanswered::Closed(ended_by(&read, is_tls)),
    }
}

/// Reads on; says how much there was.
pub(crate) fn read_more(wire: &mut Wire, input: &mut BytesMut) -> io::Result<usize> {
    let mut buffer = [0; 16 << 10];
    let len = loop {
        match wire.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    input.extend_from_slice(&buffer[..len]);
    Ok(len)
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // They only have to differ: nobody is kept out by them.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}

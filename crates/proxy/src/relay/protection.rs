//! What stands between the bytes of a wire and those inside: nothing, records by keys, or rustls.
//!
//! rustls keeps its own buffers and costs more CPU and memory; it is there for who does not want to
//! trust our record layer.

use std::io::{self, Read, Write};

use rustls::{Connection, Error};

use super::record::{MAX_CONTROL, MAX_PLAIN, Opened, Records, TlsFault};
use super::{LegTls, Side};

/// The protection of one leg.
#[derive(Debug)]
pub(super) enum Protection {
    /// The bytes are what they are.
    None,
    /// Records by keys alone.
    Keys(Box<Records>),
    /// The connection of the handshake goes on.
    Rustls(Box<Connection>),
}

impl Protection {
    pub(super) fn new(tls: LegTls, peer: Side, record_limit: u64) -> Self {
        match tls {
            LegTls::Plain => Self::None,
            // The box wipes itself; what is moved out of one would stay behind in freed memory.
            LegTls::Keys(keys) => Self::Keys(Box::new(Records::new(&keys, peer, record_limit))),
            LegTls::Rustls(mut connection) => {
                // The leg bounds what is sealed; a limit here would cut writes short.
                connection.set_buffer_limit(None);
                Self::Rustls(connection)
            }
        }
    }

    /// How many bytes were opened before and not taken.
    pub(super) fn opened_before(&mut self) -> usize {
        match self {
            Self::None | Self::Keys(_) => 0,
            // A failure shows again when more is opened.
            Self::Rustls(connection) => {
                connection.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read())
            }
        }
    }

    /// Opens what is whole of `wire` into `plain`, which is at least as long as both that and what
    /// rustls may hold: a record.
    pub(super) fn open(&mut self, wire: &[u8], plain: &mut [u8]) -> Opened {
        match self {
            Self::None => {
                plain[..wire.len()].copy_from_slice(wire);
                Opened { consumed: wire.len(), plain: wire.len(), end: None }
            }
            Self::Keys(records) => records.open(wire, plain),
            Self::Rustls(connection) => open_by_rustls(connection, wire, plain),
        }
    }

    /// Seals `plain` into `out`; says how much of `out` is used. Not called without protection.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        match self {
            Self::None => Ok(0),
            Self::Keys(records) => records.seal(plain, out),
            Self::Rustls(connection) => seal_by_rustls(connection, plain, out),
        }
    }

    /// The record that ends our direction in good order; none without TLS or when it has ended.
    pub(super) fn close_notify(&mut self, out: &mut [u8; MAX_CONTROL]) -> usize {
        match self {
            Self::None => 0,
            Self::Keys(records) => records.close_notify(out),
            Self::Rustls(connection) => {
                connection.send_close_notify();
                write_out(connection, out)
            }
        }
    }

    /// The record that tells the peer what was wrong with its own.
    pub(super) fn fatal_alert(&mut self, fault: TlsFault, out: &mut [u8; MAX_CONTROL]) -> usize {
        match (self, fault.alert()) {
            (Self::Keys(records), Some(alert)) => records.fatal_alert(alert, out),
            // It has written its alert already.
            (Self::Rustls(connection), _) => write_out(connection, out),
            (Self::None | Self::Keys(_), _) => 0,
        }
    }

    /// Whether expanded keys are held that [`Self::rest`] would drop.
    pub(super) fn is_awake(&self) -> bool {
        matches!(self, Self::Keys(records) if records.is_awake())
    }

    /// Drops expanded keys until they are needed again.
    pub(super) fn rest(&mut self) {
        if let Self::Keys(records) = self {
            records.rest();
        }
    }
}

fn open_by_rustls(connection: &mut Connection, mut wire: &[u8], plain: &mut [u8]) -> Opened {
    let mut opened = Opened { consumed: wire.len(), plain: 0, end: None };
    loop {
        let state = match connection.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                opened.end = Some(Err(fault(&error)));
                return opened;
            }
        };
        let end = opened.plain + state.plaintext_bytes_to_read();
        if connection.reader().read_exact(&mut plain[opened.plain..end]).is_ok() {
            opened.plain = end;
        }
        if state.peer_has_closed() {
            opened.end = Some(Ok(()));
            return opened;
        }
        // It takes nothing only after close_notify or with data to read, and both are done with.
        if wire.is_empty() || !matches!(connection.read_tls(&mut wire), Ok(1..)) {
            return opened;
        }
    }
}

fn seal_by_rustls(
    connection: &mut Connection,
    plain: &[u8],
    out: &mut [u8],
) -> Result<usize, TlsFault> {
    let mut used = 0;
    for fragment in plain.chunks(MAX_PLAIN) {
        let mut rest = fragment;
        // It may stop once before a record, to change keys.
        for _ in 0..3 {
            rest = &rest[connection.writer().write(rest).unwrap_or(0)..];
        }
        let written = write_out(connection, &mut out[used..]);
        if !rest.is_empty() || written <= fragment.len() {
            // Worn out keys of TLS 1.2: it says close_notify instead.
            return Err(TlsFault::KeysExhausted);
        }
        used += written;
    }
    Ok(used)
}

/// What rustls wants to have written.
fn write_out(connection: &mut Connection, out: &mut [u8]) -> usize {
    let mut out = io::Cursor::new(out);
    while connection.wants_write() && matches!(connection.write_tls(&mut out), Ok(1..)) {}
    usize::try_from(out.position()).unwrap_or(0)
}

fn fault(error: &Error) -> TlsFault {
    match error {
        Error::AlertReceived(alert) => TlsFault::Alert(u8::from(*alert)),
        Error::DecryptError => TlsFault::BadRecordMac,
        Error::PeerSentOversizedRecord => TlsFault::RecordOverflow,
        Error::InvalidMessage(_) => TlsFault::DecodeError,
        _ => TlsFault::UnexpectedMessage,
    }
}

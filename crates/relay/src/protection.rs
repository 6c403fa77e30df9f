//! What stands between the bytes of a wire and those inside: nothing, records by keys, or rustls.
//!
//! rustls keeps its own buffers and costs more CPU and memory; it is there for who does not want to
//! trust our record layer.

use std::io::{self, Read, Write};

use rustls::{Connection, Error};
use wssgate_records::{MAX_CONTROL, Opened, Records, Role, TlsFault, kind};

use crate::{LegTls, Side};

/// The protection of one leg.
#[derive(Debug)]
pub(crate) enum Protection {
    /// The bytes are what they are.
    None,
    /// Records by keys alone.
    Keys(Box<Records>),
    /// The connection of the handshake goes on.
    Rustls(Box<Connection>),
}

/// What was sealed.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// How many bytes are for the wire, with a fault too.
    pub(crate) used: usize,
    /// Why nothing of the protocol inside is among them.
    pub(crate) fault: Option<TlsFault>,
}

impl Protection {
    pub(crate) fn new(tls: LegTls, peer: Side, record_limit: u64) -> Self {
        match tls {
            LegTls::Plain => Self::None,
            // The box wipes itself; what is moved out of one would stay behind in freed memory.
            LegTls::Keys(keys) => {
                let peer = match peer {
                    Side::Client => Role::Client,
                    Side::Upstream => Role::Server,
                };
                Self::Keys(Box::new(Records::new(&keys, peer, record_limit)))
            }
            LegTls::Rustls(mut connection) => {
                // The leg bounds what is sealed; a limit here would cut writes short.
                connection.set_buffer_limit(None);
                Self::Rustls(connection)
            }
        }
    }

    /// How many bytes were opened before and not taken.
    pub(crate) fn opened_before(&mut self) -> usize {
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
    pub(crate) fn open(&mut self, wire: &[u8], plain: &mut [u8]) -> Opened {
        match self {
            Self::None => {
                plain[..wire.len()].copy_from_slice(wire);
                Opened { consumed: wire.len(), plain: wire.len(), end: None }
            }
            Self::Keys(records) => records.open(wire, plain),
            Self::Rustls(connection) => open_by_rustls(connection, wire, plain),
        }
    }

    /// Seals all of `plain` or nothing of it into `out`. Not called without protection.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Sealed {
        match self {
            Self::None => Sealed { used: 0, fault: None },
            Self::Keys(records) => match records.seal(plain, out) {
                Ok(used) => Sealed { used, fault: None },
                Err(fault) => Sealed { used: 0, fault: Some(fault) },
            },
            Self::Rustls(connection) => seal_by_rustls(connection, plain, out),
        }
    }

    /// What ends our direction in good order; nothing without TLS or when it has ended.
    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Keys(records) => control(|out| records.close_notify(out)),
            Self::Rustls(connection) => {
                connection.send_close_notify();
                all_of(connection)
            }
        }
    }

    /// What tells the peer what was wrong with its records.
    pub(crate) fn fatal_alert(&mut self, fault: TlsFault) -> Vec<u8> {
        match (self, fault.alert()) {
            (Self::Keys(records), Some(alert)) => control(|out| records.fatal_alert(alert, out)),
            // It has written its alert already.
            (Self::Rustls(connection), _) => all_of(connection),
            (Self::None | Self::Keys(_), _) => Vec::new(),
        }
    }

    /// Whether expanded keys are held that [`Self::compact`] would drop.
    pub(crate) fn has_expanded_keys(&self) -> bool {
        matches!(self, Self::Keys(records) if records.has_expanded_keys())
    }

    /// Drops expanded keys until they are needed again.
    pub(crate) fn compact(&mut self) {
        if let Self::Keys(records) = self {
            records.compact();
        }
    }
}

fn open_by_rustls(connection: &mut Connection, mut wire: &[u8], plain: &mut [u8]) -> Opened {
    let mut opened = Opened { consumed: wire.len(), plain: 0, end: None };
    loop {
        let state = match connection.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // What came before the fault is good.
                while let Ok(taken @ 1..) = connection.reader().read(&mut plain[opened.plain..]) {
                    opened.plain += taken;
                }
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

fn seal_by_rustls(connection: &mut Connection, plain: &[u8], out: &mut [u8]) -> Sealed {
    // Answers that wait, so that what follows is the data.
    let before = write_out(connection, out);
    let accepted = connection.writer().write(plain).unwrap_or(0);
    let used = before + write_out(connection, &mut out[before..]);
    // TLS 1.3 disguises all as data and changes its keys in time. In TLS 1.2 rustls looks at all of a
    // write first; if its keys are exhausted it accepts the bytes, drops them and says close_notify.
    let is_data = out[before..used].first() == Some(&kind::DATA);
    let fault = (accepted < plain.len() || !is_data).then_some(TlsFault::KeysExhausted);
    Sealed { used, fault }
}

/// What rustls wants to have written, into `out`, which is long enough.
fn write_out(connection: &mut Connection, out: &mut [u8]) -> usize {
    let mut out = io::Cursor::new(out);
    while connection.wants_write() && matches!(connection.write_tls(&mut out), Ok(1..)) {}
    debug_assert!(!connection.wants_write(), "nobody comes back for the rest");
    usize::try_from(out.position()).unwrap_or(0)
}

/// What rustls wants to have written: an alert, and before it perhaps the answer to a KeyUpdate and
/// others that waited for data to go with.
fn all_of(connection: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    while connection.wants_write() && matches!(connection.write_tls(&mut out), Ok(1..)) {}
    out
}

/// One control message of our own records.
fn control(seal: impl FnOnce(&mut [u8; MAX_CONTROL]) -> usize) -> Vec<u8> {
    let mut out = [0; MAX_CONTROL];
    let used = seal(&mut out);
    out[..used].to_vec()
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

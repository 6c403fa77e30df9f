//! What stands between the bytes of a wire and those inside: nothing, or records by keys.

use wssgate_records::{MAX_CONTROL, Opened, Records, Role, TlsFault, TlsVersion};

use crate::{LegTls, Side};

/// The protection of one leg.
#[derive(Debug)]
pub(crate) enum Protection {
    /// The bytes are what they are.
    None,
    /// Records by keys alone.
    Keys(Box<Records>),
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
        }
    }

    /// Opens what is whole of `wire` into `plain`, which is at least as long.
    pub(crate) fn open(&mut self, wire: &[u8], plain: &mut [u8], now_ms: u64) -> Opened {
        match self {
            Self::None => {
                plain[..wire.len()].copy_from_slice(wire);
                Opened { consumed: wire.len(), plain: wire.len(), end: None }
            }
            Self::Keys(records) => records.open(wire, plain, now_ms),
        }
    }

    /// Seals all of `plain` into `out`, or nothing with a fault; says how much of `out` is used. Not called without protection.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        match self {
            Self::None => Ok(0),
            Self::Keys(records) => records.seal(plain, out),
        }
    }

    /// What ends our direction in good order; nothing without TLS or when it has ended.
    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Keys(records) => control(|out| records.close_notify(out)),
        }
    }

    /// What tells the peer what was wrong with its records.
    pub(crate) fn fatal_alert(&mut self, fault: TlsFault) -> Vec<u8> {
        match (self, fault.alert()) {
            (Self::Keys(records), Some(alert)) => control(|out| records.fatal_alert(alert, out)),
            (Self::None | Self::Keys(_), _) => Vec::new(),
        }
    }

    /// Whether it is that of TLS 1.2.
    pub(crate) fn is_tls_12(&self) -> bool {
        matches!(self, Self::Keys(records) if records.version() == TlsVersion::Tls12)
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

/// One control message.
fn control(seal: impl FnOnce(&mut [u8; MAX_CONTROL]) -> usize) -> Vec<u8> {
    let mut out = [0; MAX_CONTROL];
    let used = seal(&mut out);
    out[..used].to_vec()
}

//! What a server's first words tell of a session: its identifier, which rustls keeps to itself.

/// The identifier of a session (`$ssl_session_id`); empty where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionId {
    bytes: [u8; 32],
    len: usize,
}

impl SessionId {
    fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, len: id.len() })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The parts of a ServerHello that concern sessions (RFC 5246 §7.4.1.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerHello {
    random: SessionId,
    id: SessionId,
    /// A ticket follows (RFC 5077 §3.2).
    ticket: bool,
}

/// What a handshake has settled about its session.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// TLS 1.3.
    pub is_tls13: bool,
    /// A session was resumed.
    pub is_resumed: bool,
    /// Clients of this server are told that sessions could be resumed, whether or not they can.
    pub has_ids: bool,
}

impl ServerHello {
    /// Reads the record that begins a server's flight; `None` when it begins with something else.
    pub(super) fn read(record: &[u8]) -> Option<Self> {
        // Handshake, version, length; ServerHello, length, version.
        let [22, 3, _, _, _, 2, _, _, _, 3, _, rest @ ..] = record else { return None };
        let (random, rest) = rest.split_at_checked(32)?;
        let (&id_len, rest) = rest.split_first()?;
        let (id, rest) = rest.split_at_checked(id_len.into())?;
        // Suite, compression, length of the extensions.
        let ticket = rest.get(5..).is_some_and(|extensions| has_extension(extensions, 35));
        Some(Self { random: SessionId::new(random)?, id: SessionId::new(id)?, ticket })
    }

    /// The identifier that OpenSSL would show at the end of this handshake.
    ///
    /// What it shows where none is agreed on is a random number of the server, and so is this.
    pub fn session_id(&self, settled: Settled) -> SessionId {
        match settled {
            Settled { is_tls13: true, .. } => self.random,
            Settled { is_resumed: true, .. } => self.id,
            // The ticket is the session, and it has no other name yet.
            _ if self.ticket => SessionId::default(),
            Settled { has_ids: true, .. } if self.id.len == 0 => self.random,
            _ => self.id,
        }
    }
}

fn has_extension(mut extensions: &[u8], wanted: u8) -> bool {
    while let [kind @ .., high, low] = extensions.get(..4).unwrap_or_default() {
        if kind == [0, wanted] {
            return true;
        }
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        extensions = extensions.get(4 + len..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A record with a ServerHello of this identifier and these extensions.
    fn record(id: &[u8], extensions: &[u8]) -> Vec<u8> {
        let len = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let tail = [&[0xc0, 0x2b, 0, 0, len(extensions)], extensions].concat();
        let body = [&[3, 3], &[7; 32][..], &[len(id)], id, &tail].concat();
        [&[22, 3, 3, 0, len(&body) + 4, 2, 0, 0, len(&body)], &body[..]].concat()
    }

    #[test]
    fn identifiers_are_those_of_openssl() {
        let full = Settled { is_tls13: false, is_resumed: false, has_ids: true };
        let resumed = Settled { is_resumed: true, ..full };
        let off = Settled { has_ids: false, ..full };
        let tls13 = Settled { is_tls13: true, ..full };
        let ticket = [0, 23, 0, 0, 0xff, 1, 0, 1, 0, 0, 35, 0, 0];
        for (id, extensions, settled, expected) in [
            (&[9; 32][..], &[][..], full, &[9; 32][..]),
            (&[9; 32], &[], resumed, &[9; 32]),
            (&[9; 32], &ticket, full, &[]),
            (&[9; 32], &ticket, resumed, &[9; 32]),
            (&[9; 4], &ticket, resumed, &[9; 4]),
            (&[], &ticket[..9], full, &[7; 32]),
            (&[], &[], off, &[]),
            (&[9; 32], &[], tls13, &[7; 32]),
        ] {
            let hello = ServerHello::read(&record(id, extensions)).unwrap();
            assert_eq!(hello.session_id(settled).bytes(), expected, "{settled:?}");
        }
    }

    #[test]
    fn what_is_no_server_hello_is_none() {
        let whole = record(&[9; 32], &[0, 35, 0, 0]);
        assert!(ServerHello::read(&[&[23], &whole[1..]].concat()).is_none());
        assert!(ServerHello::read(&record(&[9; 33], &[])).is_none());
        for cut in 0..whole.len() {
            let hello = ServerHello::read(&whole[..cut]);
            assert_eq!(hello.is_some(), cut >= 11 + 32 + 1 + 32, "{cut}");
        }
    }
}
